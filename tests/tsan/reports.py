# What the thread sanitizer said.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the thread sanitizer said.

Only what has a function of migration/ on the stack of one of the accesses, or
of one of the locks, is about us.  QEMU has races of its own; those are counted,
so that nobody takes silence for an absence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BEGIN = 'WARNING: ThreadSanitizer: '
_FRAME = re.compile(r'\s+#\d+ (\S+) (\S+)')
# Parts of a report that say where something was made, not what happened.
_ORIGIN = re.compile(r'\s+(Thread T\d+|Location is|Mutex M\d+ .*created|'
                     r'As if synchronized)')
_OURS = re.compile(r'/migration/[\w/-]+\.[ch](:|$)')


@dataclass(frozen=True)
class Report:
    """One warning."""
    kind: str
    stacks: tuple[tuple[tuple[str, str], ...], ...]     # (function, place)
    text: str

    def ours(self) -> bool:
        """Whether migration/ has a part in it."""
        return any(_OURS.search(place) for stack in self.stacks
                   for _, place in stack)

    def title(self) -> str:
        """The innermost functions, in one line."""
        tops = [next((f'{name} {Path(place).name}' for name, place in stack
                      if '/' in place and '<null>' not in place), '?')
                for stack in self.stacks]
        return f'{self.kind}: {" / ".join(tops)}'


def _parse(text: str) -> Report:
    kind = text.splitlines()[0].partition(' (')[0]
    stacks: list[list[tuple[str, str]]] = []
    counts, fresh = True, True
    for line in text.splitlines()[1:]:
        frame = _FRAME.match(line)
        if frame and counts:
            if fresh:
                stacks.append([])
            stacks[-1].append((frame[1], frame[2]))
            fresh = False
        elif not frame:
            if line.strip():
                counts = not _ORIGIN.match(line)
            fresh = True
    return Report(kind, tuple(map(tuple, stacks)), text.strip())


def read(folder: Path) -> list[Report]:
    """All reports in the files of FOLDER, each once."""
    found: dict[str, Report] = {}
    for path in sorted(folder.glob('tsan.*')):
        for text in path.read_text(errors='replace').split(_BEGIN)[1:]:
            report = _parse(text.partition('=' * 18)[0])
            found.setdefault(report.title(), report)
    return list(found.values())
