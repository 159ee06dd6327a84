# Cases that run side by side, each lane with a guest of its own.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases that run side by side, each lane with a guest of its own.

Most of a case is waiting: for a link that is slow on purpose, for a boot, for
heartbeats.  A lane is a process of its own, tests/interop/run --lane, which
reads the names of cases and writes a line of JSON for each.  It ends when its
input does, and so with its parent.  Cases that measure time have the machine
for themselves afterwards (Case.alone).
"""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Iterator

from common import Case
from ferry.errors import FerryError
from ferry.paths import KINDS

RUN = Path(__file__).resolve().parent / 'run'
END_LIMIT = 30          # s, for a lane to end its QEMUs


@dataclass
class Verdict:
    """What became of a case."""
    name: str
    ok: bool
    skip: str                   # why it was not run, or ''
    notes: list[str]            # lines for people
    guest: str = ''             # in what kind of QEMU the guest is now


def begins(case: Case) -> str:
    """The kind of QEMU where the guest of CASE starts."""
    word = case.name.split('-', 1)[0]
    return word if word in KINDS else 'ferry'


class Lane:
    """One of the processes, and the case that it is at."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(RUN), '--lane'], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.case: Case | None = None
        self.guest = ''

    def give(self, case: Case) -> None:
        """Have it run CASE."""
        assert self.process.stdin is not None
        self.case = case
        self.process.stdin.write(case.name + '\n')
        self.process.stdin.flush()

    def take(self) -> Verdict:
        """The verdict, which can be read."""
        assert self.process.stdout is not None and self.case is not None
        line = self.process.stdout.readline()
        if not line:
            raise FerryError(f'a lane ended in {self.case.name}')
        verdict = Verdict(**json.loads(line))
        self.case, self.guest = None, verdict.guest
        return verdict

    def end(self) -> None:
        """Have it end what it started."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except OSError:
            pass                # it has ended
        try:
            self.process.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait()


def choose(pending: list[Case], guest: str) -> Case:
    """The next case, if possible one that goes on with the GUEST there is."""
    case = next((case for case in pending if begins(case) == guest),
                pending[0])
    pending.remove(case)
    return case


def side_by_side(cases: list[Case], count: int) -> Iterator[Verdict]:
    """Run CASES in COUNT lanes, those that must be alone at the end."""
    lanes = [Lane() for _ in range(count)]
    try:
        with selectors.DefaultSelector() as selector:
            for lane in lanes:
                selector.register(lane.process.stdout, selectors.EVENT_READ,
                                  lane)
            yield from _stage([case for case in cases if not case.alone],
                              lanes, selector)
            for lane in lanes[1:]:
                lane.end()
                selector.unregister(lane.process.stdout)
            yield from _stage([case for case in cases if case.alone],
                              lanes[:1], selector)
    finally:
        for lane in lanes:
            lane.end()


def _stage(pending: list[Case], lanes: list[Lane],
           selector: selectors.BaseSelector) -> Iterator[Verdict]:
    idle = list(lanes)
    while pending or len(idle) < len(lanes):
        while pending and idle:
            lane = idle.pop(0)
            lane.give(choose(pending, lane.guest))
        for key, _ in selector.select():
            yield key.data.take()
            idle.append(key.data)


def serve(cases: dict[str, Case], run: Callable[[Case], Verdict]) -> None:
    """A lane: run what is asked for by name."""
    for line in sys.stdin:
        verdict = run(cases[line.strip()])
        print(json.dumps(asdict(verdict)), flush=True)
