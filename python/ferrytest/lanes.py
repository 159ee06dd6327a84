# Cases that run side by side, each lane with a lab of its own.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases that run side by side, each lane with a lab of its own.

Most of a case is waiting: for a link that is slow on purpose, for a boot, for
heartbeats.  A lane is a process of its own, the suite's program with --lane,
which reads the names of cases and writes a line of JSON for each, the members
of a suite.Verdict.  It ends when its input does, and so with its parent.  Cases
that measure time have the machine for themselves afterwards (Case.alone).
"""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Iterator, TextIO

from ferry.errors import FerryError

if TYPE_CHECKING:
    from .suite import Case, Verdict

END_LIMIT = 30          # s, for a lane to end its QEMUs


class Lane:
    """One of the processes, and the case that it is at."""

    def __init__(self, argv: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *argv, '--lane'], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.case: Case | None = None
        self.where = ''

    def give(self, case: Case) -> None:
        """Have it run CASE."""
        assert self.process.stdin is not None
        self.case = case
        self.process.stdin.write(case.name + '\n')
        self.process.stdin.flush()

    def take(self) -> dict[str, Any]:
        """The verdict, which can be read."""
        assert self.process.stdout is not None and self.case is not None
        line = self.process.stdout.readline()
        if not line:
            raise FerryError(f'a lane ended in {self.case.name}')
        verdict = json.loads(line)
        self.case, self.where = None, verdict['where']
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


def choose(pending: list[Case], where: str) -> Case:
    """The next case, if possible one that goes on from WHERE the lab is."""
    case = next((case for case in pending if case.begins == where),
                pending[0])
    pending.remove(case)
    return case


def side_by_side(cases: list[Case], count: int, argv: list[str]
                 ) -> Iterator[dict[str, Any]]:
    """Run CASES in COUNT lanes, those that must be alone at the end.

    ARGV is the command line of the suite.
    """
    lanes = [Lane(argv) for _ in range(count)]
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
           selector: selectors.BaseSelector) -> Iterator[dict[str, Any]]:
    idle = list(lanes)
    while pending or len(idle) < len(lanes):
        while pending and idle:
            lane = idle.pop(0)
            lane.give(choose(pending, lane.where))
        for key, _ in selector.select():
            yield key.data.take()
            idle.append(key.data)


def write(verdict: Verdict, out: TextIO) -> None:
    """A lane: tell the parent."""
    print(json.dumps(asdict(verdict)), file=out, flush=True)
