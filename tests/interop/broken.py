# Connections that break while the guest is handed over.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that break while the guest is handed over.

Until the destination has all that it needs the guest goes on in the source.
From then on nobody but the destination knows who has it, and if it cannot say
so, the source must leave the guest alone until somebody says that it may run.
"""

from __future__ import annotations

import time

from ferry.migrate import Result
from ferry.vm import VM
from ferrytest.suite import Case

from common import ends_by_itself, summary
from failures import failed, why
from lab import Lab, check
from meddler import Meddler, Scissors

# Memory for seconds is left when the guest stops: far more than fits into what
# is between the source and the relay.
PAUSE = {'max-bandwidth': 40 << 20, 'downtime-limit': 2000}
LEFT = 2 << 20          # bytes, at least

DESCRIPTION = b'"vmsd_name"'            # of devices: in the very last flush
# That all is well: what a Ferry says first when the guest runs, and the very
# last answer of others.
STARTED = {'ferry': b'\x46\x01', 'pristine': b'\0\1\0\4\0\0\0\0'}

LEAVES_ALONE = 0.5      # s that are looked at


def cut(lab: Lab, target: VM, there: Scissors | None, back: Scissors | None,
        **more) -> Result:
    """Migrate through scissors."""
    ahead = lab.uri('unix')
    meddlers: list[Meddler] = []

    def via(behind: str) -> str:
        meddlers.append(Meddler(ahead.removeprefix('unix:'),
                                behind.removeprefix('unix:'), there, back))
        return ahead
    try:
        result = lab.move(target, 'unix', via=via, **more)
    finally:
        for meddler in meddlers:
            meddler.close()
    check(all(one is None or one.done.is_set() for one in (there, back)),
          f'the connection was cut: {result.status} {result.error}')
    return result


def before(source: str, target: str) -> Case:
    """Memory is missing: the guest goes on, and the next attempt succeeds."""
    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        first = lab.target(target)
        scissors = Scissors(b'')
        left: list[int] = []

        def on_sample(sample: dict) -> None:
            if sample['phase'] == 'pre-switchover' and not left:
                left.append(sample['remaining'])
                scissors.arm()
                vm.qmp.cmd('migrate-continue', {'state': 'pre-switchover'})
        result = cut(lab, first, scissors, None, params=PAUSE,
                     caps={'pause-before-switchover': True},
                     on_sample=on_sample)
        check(bool(left) and left[0] > LEFT, 'much was left when the guest '
              f'stopped: {left}')
        said = failed(lab, result)
        check("'cont'" not in said, f'nobody has to do anything: {said}')
        ends_by_itself(first)
        check(not lab.observer.handovers(lab.began),
              'the guest has never run elsewhere')
        again = lab.must_move(lab.target(target))
        return f'"{said}" with {left[0] >> 20} MiB left; then {summary(again)}'
    return Case(f'{source}-{target}-cut-before-hand-over', run)


def must_wait(lab: Lab, result: Result) -> str:
    """The source leaves the guest alone, and says what it waits for."""
    source = lab.source
    assert source is not None
    check(result.status == 'failed', 'nobody knows that it succeeded: '
          f'{result.status} {result.error}')
    said = why(lab)
    check("'cont'" in said and 'stays stopped' in said,
          f'the error says what to do: {said}')
    end = time.monotonic() + LEAVES_ALONE
    while time.monotonic() < end:
        state = source.qmp.cmd('query-status')
        check(not state['running'] and state['status'] == 'postmigrate',
              f'the guest is left alone: {state}')
        time.sleep(0.05)
    return said


def after(source: str, target: str) -> Case:
    """The last bytes are missing: the guest is nowhere until `cont`."""
    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        first = lab.target(target)
        result = cut(lab, first, Scissors(DESCRIPTION).arm(), None)
        said = must_wait(lab, result)
        ends_by_itself(first)
        check(not lab.observer.handovers(lab.began),
              'the guest has never run elsewhere')
        vm.qmp.cmd('cont')
        lab.must_go_on()
        again = lab.must_move(lab.target(target))
        return f'"{said}"; then {summary(again)}'
    return Case(f'{source}-{target}-cut-after-hand-over', run)


def unanswered(source: str, target: str, answer: bool = True) -> Case:
    """The ANSWER is missing: the guest runs there, and only there.

    Or the last bytes are, to one who does not need them.
    """
    def run(lab: Lab) -> str:
        lab.boot(source)
        there = lab.target(target)
        scissors = Scissors(STARTED[target] if answer else DESCRIPTION).arm()
        result = cut(lab, there, *((None, scissors) if answer else
                                   (scissors, None)))
        said = must_wait(lab, result)
        state = there.qmp.cmd('query-status')
        check(state['running'], f'the guest runs over there: {state}')
        lab.guest.move_to(there)
        lab.drop(lab.source)
        lab.source = there
        lab.must_go_on()
        moves = lab.observer.handovers(lab.began)
        check(len(moves) == 1, f'it changed its place once: {moves}')
        again = lab.must_move(lab.target(source))
        return f'"{said}"; then {summary(again)}'
    return Case(f'{source}-{target}-cut-'
                + ('before-answer' if answer else 'after-hand-over'), run)


def all_cases() -> list[Case]:
    """The source is ours; who its peer is must not matter to it.

    A pristine one does without the description of devices.
    """
    return [before('ferry', 'ferry'), after('ferry', 'ferry'),
            unanswered('ferry', 'ferry'), before('ferry', 'pristine'),
            unanswered('ferry', 'pristine', False),
            unanswered('ferry', 'pristine')]
