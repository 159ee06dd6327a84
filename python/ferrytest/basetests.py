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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable

from ferry import paths
from ferry.errors import FerryError, one_line

PASS, FAIL, SKIP = 'pass', 'fail', 'skip'
SHOWN = 20              # lines of what a test said before it failed


@dataclass
class Outcome:
    """What a test did with one QEMU."""
    status: str
    why: str = ''
    said: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """What is to be said of a test."""
    ok: bool
    skip: str = ''
    notes: list[str] = field(default_factory=list)


def judge(ours: Outcome, pristine: Callable[[], Outcome]) -> Verdict:
    """Compare OURS with what PRISTINE, asked only if need be, returns."""
    if ours.status == PASS:
        return Verdict(True)
    base = pristine()
    if base.status == PASS:
        did = 'fails' if ours.status == FAIL else 'is not run'
        return Verdict(False, notes=[
            f'{did} on ours, passes on pristine QEMU: {one_line(ours.why)}',
            *ours.said[-SHOWN:]])
    if FAIL in (ours.status, base.status):
        return Verdict(True, 'does not pass on pristine QEMU here either: '
                       + one_line(base.why or ours.why))
    return Verdict(True, one_line(ours.why))


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


class Report:
    """The points of the TAP."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._number = 0
        self.failed = 0
        print('TAP version 13', flush=True)

    def point(self, test: str, verdict: Verdict) -> None:
        """Print the line of TEST."""
        self._number += 1
        self.failed += not verdict.ok
        print(f'{"" if verdict.ok else "not "}ok {self._number} - '
              f'{self._suite} {test}'
              + (f' # SKIP {verdict.skip}' if verdict.skip else ''))
        for note in verdict.notes:
            print(f'# {note}')
        print(end='', flush=True)

    def end(self) -> int:
        """Print the plan; return the exit status."""
        print(f'1..{self._number}', flush=True)
        return 1 if self.failed or not self._number else 0
