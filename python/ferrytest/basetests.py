# Tests of the base, run on ours and judged by what they do on the base.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the base, run on ours and judged by what they do on the base.

Not all of the base's tests pass on every machine, with the base itself either.
So a test that does not pass on ours is run on the pristine QEMU as well: it has
failed if it passes there, and is skipped with its reason if it does not.  What
the pristine QEMU does is kept in the build directory until it is built again.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable, Iterable, Iterator

from ferry import paths
from ferry.errors import FerryError, one_line

from .process import Ended
from .suite import Failed, Skip

PASS, FAIL, SKIP = 'pass', 'fail', 'skip'
SHOWN = 20              # lines of what a test said before it failed

POINT = re.compile(r'^(not )?ok \d+ (/\S+)(?: # SKIP ?(.*))?$')


@dataclass
class Outcome:
    """What a test did with one QEMU."""
    status: str
    why: str = ''
    said: list[str] = field(default_factory=list)
    seconds: float = 0


def judge(ours: Outcome, pristine: Callable[[], Outcome]) -> None:
    """Compare OURS with what PRISTINE, asked only if need be, returns."""
    if ours.status == PASS:
        return
    base = pristine()
    if base.status == PASS:
        did = 'fails' if ours.status == FAIL else 'is not run'
        raise Failed(f'{did} on ours, passes on pristine QEMU: '
                     + one_line(ours.why), ours.said[-SHOWN:])
    if FAIL in (ours.status, base.status):
        raise Skip('does not pass on pristine QEMU here either: '
                   + one_line(base.why or ours.why))
    raise Skip(one_line(ours.why))


def outcome(match: re.Match, said: list[str], seconds: float = 0) -> Outcome:
    """What a line of TAP means; SAID came before it."""
    if match[1]:
        why = next((line for line in reversed(said) if 'ERROR' in line
                    or 'Bail' in line), said[-1] if said else 'it failed')
        return Outcome(FAIL, why, said, seconds)
    if match[3] is not None:
        return Outcome(SKIP, match[3] or 'no reason given', said, seconds)
    return Outcome(PASS, said=said, seconds=seconds)


def outcomes(lines: Iterable[str]) -> Iterator[tuple[str, Outcome]]:
    """What a program of tests says of each of them.

    If it ends badly, that is the last outcome, without a name.
    """
    said: list[str] = []
    began = time.monotonic()
    try:
        for line in lines:
            match = POINT.match(line)
            if not match:
                said.append(line)
                continue
            yield match[2], outcome(match, said, time.monotonic() - began)
            said, began = [], time.monotonic()
    except Ended as err:
        yield '', Outcome(FAIL, str(err), [*said, str(err)],
                          time.monotonic() - began)


class Kept:
    """What the pristine QEMU did, by test, in a file of the build directory.
    """

    def __init__(self, name: str,
                 run: Callable[[str, str], Outcome]) -> None:
        """RUN(kind, test) runs a test; NAME is that of the suite."""
        self._run = run
        self._path = paths.BUILD / f'{name}-pristine.json'
        self._binary = paths.qemu('pristine')
        self._known: dict[str, Outcome] = {}
        try:
            kept = json.loads(self._path.read_text())
            if kept['binary'] == self._identity():
                self._known = {test: Outcome(**outcome) for test, outcome
                               in kept['tests'].items()}
        except (OSError, ValueError, KeyError, TypeError):
            pass                # there is none yet, or none of use

    def _identity(self) -> list[int]:
        state = self._binary.resolve().stat()
        return [state.st_mtime_ns, state.st_size]

    def outcome(self, test: str) -> Outcome:
        """What TEST does there."""
        if test not in self._known:
            self._known[test] = self._run('pristine', test)
            self._path.write_text(json.dumps({
                'binary': self._identity(), 'tests': {
                    name: asdict(one) for name, one in self._known.items()}}))
        return self._known[test]


def left_out(path: Path) -> dict[str, str]:
    """The rows of a file of tests that are not run: name and reason."""
    rows = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split(None, 1)
        if not words or line.startswith('#'):
            continue
        if len(words) < 2:
            raise FerryError(f'{path.name}:{number}: a row has a test and a '
                             'reason')
        rows[words[0]] = words[1]
    return rows
