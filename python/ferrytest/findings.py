# What sanitizers said in the logs of a case.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What sanitizers said in the logs of a case.

An emulator that a sanitizer ends looks to its peer like one that was killed,
which is what many cases do to it anyway.  So the logs are read as well.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator

# In what an emulator with a sanitizer says
SANITIZER = re.compile(r'(?:ERROR|WARNING|SUMMARY): \w*Sanitizer|'
                       r'runtime error:')

# How sanitizers of emulators are set, if nobody else does.  What is left at the
# end of an emulator is not worth a report.
SETTINGS = {'ASAN_OPTIONS': 'detect_leaks=0',
            'UBSAN_OPTIONS': 'print_stacktrace=1:halt_on_error=1'}

# The address sanitizer keeps 256 MiB of what was freed.
KEEPS_LITTLE = 'quarantine_size_mb=1:thread_local_quarantine_size_kb=64'


def settings() -> None:
    """Have emulators end with what a sanitizer finds."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def keeps_little() -> Iterator[None]:
    """Emulators that are started meanwhile grow by what they do not free."""
    before = os.environ.get('ASAN_OPTIONS')
    os.environ['ASAN_OPTIONS'] = (f'{before}:{KEEPS_LITTLE}' if before
                                  else KEEPS_LITTLE)
    try:
        yield
    finally:
        if before is None:
            del os.environ['ASAN_OPTIONS']
        else:
            os.environ['ASAN_OPTIONS'] = before


def found(text: str, words: re.Pattern[str] = SANITIZER) -> list[str]:
    """Lines of a log with WORDS; the first, the command line, has none."""
    return [line.strip() for line in text.splitlines()[1:]
            if words.search(line)]


@dataclass(frozen=True)
class Seen:
    """A log as it was when it was read."""

    inode: int
    size: int
    digest: bytes       # of all that was in it
    told: int           # lines with findings

    def begins(self, inode: int, text: bytes) -> bool:
        """Whether that is the same log, to which something may have come."""
        return (inode, self.digest) == (self.inode, digest(text[:self.size]))


def digest(text: bytes) -> bytes:
    """By which texts are compared."""
    return hashlib.sha256(text).digest()


class Reader:
    """Logs below a folder, of which each line is told once.

    A log that does not begin as it did is another one, which has taken the place
    of the first.  That of a VM begins with a line like no other.
    """

    def __init__(self, folder: Path, patterns: Iterable[str]) -> None:
        self._folder, self._patterns = folder, tuple(patterns)
        self._seen: dict[Path, Seen] = {}

    def new(self) -> list[str]:
        """What was found since the last time, with the names of logs."""
        said = []
        for log in sorted({log for pattern in self._patterns
                           for log in self._folder.rglob(pattern)
                           if log.is_file()}):
            said += [f'{log.name}: {line}' for line in self._look(log)]
        return said

    def _look(self, log: Path) -> list[str]:
        with log.open('rb') as file:
            inode, text = os.fstat(file.fileno()).st_ino, file.read()
        lines = found(text.decode(errors='replace'))
        before = self._seen.get(log)
        told = before.told if before and before.begins(inode, text) else 0
        self._seen[log] = Seen(inode, len(text), digest(text), len(lines))
        return lines[told:]
