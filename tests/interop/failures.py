# Migrations that fail, stall or are cancelled, and the next attempt.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations that fail, stall or are cancelled, and the next attempt.

Whatever goes wrong, the guest must go on where it is, nothing of it may be
lost, the source must say why, and the next attempt must succeed.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from ferry.errors import FerryError
from ferry.migrate import Result
from ferry.vm import VM
from ferrytest.suite import Case

from common import (PASSES, PASSES_RATE, ROUND, SLOW, OnSample, ends_by_itself,
                    halfway, says, summary, under_way)
from lab import FAST, MEMORY, Lab, check

STALL = 1.0             # s that one side stands still
SMALL = 'unix'          # its buffers are full at once, those of TCP may grow
CANCELLED_WITHIN = 5.0  # s, whatever the peer does
ANSWERS_WITHIN = 1.0    # s, while the peer stands still


@dataclass(frozen=True)
class Mode:
    """How to migrate."""
    name: str
    caps: dict[str, bool] = field(default_factory=dict)
    tls: bool = False
    slow: dict[str, int] = field(default_factory=lambda: SLOW)
    fast: dict[str, int] = field(default_factory=lambda: FAST)

    def move(self, lab: Lab, target: VM, on_sample: OnSample) -> Result:
        """Migrate slowly enough to interfere."""
        return lab.move(target, caps=self.caps, params=self.slow,
                        tls=self.tls, on_sample=on_sample)

    def must_move(self, lab: Lab, target: VM) -> Result:
        """Migrate, and insist that all went well."""
        return lab.must_move(target, caps=self.caps, params=self.fast,
                             tls=self.tls)


PLAIN = Mode('plain')
TLS = Mode('tls', tls=True)
XBZRLE = Mode('xbzrle', {'xbzrle': True}, fast=PASSES,
              slow={'max-bandwidth': 64 << 20, 'downtime-limit': 1})


class Encoding:
    """Whether pages are being sent as differences by now.

    Left alone, passes over what the guest changes get shorter and shorter, and
    the migration may end before that: so it is slowed down below the rate of
    changes, first of pages, and then of differences.
    """

    def __init__(self, vm: VM) -> None:
        self._vm = vm
        self._speed = 0

    def __call__(self, sample: dict) -> bool:
        if sample['phase'] != 'active' or sample['iteration'] < 2:
            return False
        known = sample['iteration'] > 2 or sample['remaining'] < 6 << 20
        speed = 2 << 20 if known else 16 << 20
        if speed != self._speed:
            self._vm.qmp.cmd('migrate-set-parameters',
                             {'max-bandwidth': speed})
            self._speed = speed
        return sample['migrate'].get('xbzrle-cache', {}).get('pages', 0) > 0


def why(lab: Lab) -> str:
    """The reason that query-migrate gives on the source: one line."""
    assert lab.source is not None
    info = lab.source.qmp.cmd('query-migrate')
    text = info.get('error-desc', '')
    check(bool(text), f'query-migrate says why it failed: {info}')
    check('\n' not in text.strip(), f'the error is one line: "{text}"')
    return text


def cancelled(source: str, target: str, mode: Mode) -> Case:
    """migrate_cancel in the middle; the next attempt succeeds."""
    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        if mode is XBZRLE:
            lab.guest.set_rate(PASSES_RATE)
        first = lab.target(target)
        asked: list[float] = []

        def cancel() -> None:
            asked.append(time.monotonic())
            vm.qmp.cmd('migrate_cancel')
        on_sample, done = halfway(
            cancel, Encoding(vm) if mode is XBZRLE else under_way)
        result = mode.move(lab, first, on_sample)
        check(bool(done), 'the migration was under way when cancelled: '
              f'{result.status} {result.error}')
        took = result.samples[-1]['t'] - asked[0]
        check(result.status == 'cancelled',
              f'the state is "cancelled": {result.status} {result.error}')
        check(took < CANCELLED_WITHIN, f'it was cancelled within '
              f'{CANCELLED_WITHIN:.0f} s: {took:.1f}')
        lab.must_go_on()
        ends_by_itself(first)
        again = mode.must_move(lab, lab.target(target))
        return (f'cancelled at {done[0]:.0%} in {1e3 * took:.0f} ms; then '
                f'{summary(again)}')
    # It is the source that has to do something.
    repeats = source == 'pristine' and (target == source or mode is not PLAIN)
    return Case(f'{source}-{target}-cancel-{mode.name}', run, False,
                (source, target), tuple(mode.caps), repeats)


def failed(lab: Lab, result: Result) -> str:
    """Check how a failure looks on the source; its reason."""
    check(result.status == 'failed', 'the state is "failed": '
          f'{result.status} {result.error}')
    said = why(lab)
    check(f'source: {said}' in result.error,
          f'the source sticks to why it failed: {result.error}')
    lab.must_go_on()
    return said


def target_killed(source: str, target: str) -> Case:
    """The destination dies in the middle; the next attempt succeeds."""
    def run(lab: Lab) -> str:
        lab.boot(source)
        first = lab.target(target)
        on_sample, done = halfway(first.kill)
        result = lab.move(first, params=SLOW, on_sample=on_sample)
        check(bool(done), 'the migration was under way')
        said = failed(lab, result)
        again = lab.must_move(lab.target(target))
        return f'"{said}"; killed at {done[0]:.0%}; then {summary(again)}'
    return Case(f'{source}-{target}-destination-killed', run)


def source_killed(source: str, target: str) -> Case:
    """The source dies in the middle: the destination says so and ends."""
    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        first = lab.target(target)
        on_sample, done = halfway(vm.kill)
        try:
            lab.move(first, params=SLOW, on_sample=on_sample)
        except FerryError:
            check(not vm.alive(), 'the source is the one that is gone')
        check(bool(done), 'the migration was under way')
        seconds = ends_by_itself(first)
        words = first.log_tail(2)
        check(words != '', 'the destination says why it ends')
        lab.clear()
        return f'killed at {done[0]:.0%}; after {seconds:.1f} s "{words}"'
    return Case(f'{source}-{target}-source-killed', run)


def unlike(name: str, source: str, target: str, words: tuple[str, ...],
           **other: Any) -> Case:
    """A destination that is started otherwise; one of WORDS tells."""
    def run(lab: Lab) -> str:
        lab.boot(source)
        first = lab.target(target, **other)
        result = lab.move(first)
        failed(lab, result)
        said = says(first, words, result.error)
        if source == target == 'ferry':
            # They were compared before it had anything to load.
            status = first.qmp.cmd('query-migrate').get('status')
            check(status == 'setup', f'the destination still waits: {status}')
            lab.drop(first)
        else:
            ends_by_itself(first)
        lab.must_move(lab.target(target))
        return f'"{said}"'
    return Case(f'{source}-{target}-{name}', run)


def stand_still(vm: VM, still: bool) -> None:
    """Stop the process of VM, or let it go on."""
    os.kill(vm.pid, signal.SIGSTOP if still else signal.SIGCONT)


class Stall:
    """An on_sample: the destination stands still, and then something is done.

    It checks that the source answers; nothing is done before it is held up.
    """

    def __init__(self, target: VM, then: Any) -> None:
        self._target = target
        self._then = then
        self._began = False
        self._sent = -1
        self._since = 0.0       # it has been that
        self.acted_at = 0.0
        self.slowest = 0.0      # s, of the source's answers
        self._last = 0.0

    def __call__(self, sample: dict) -> None:
        now = time.monotonic()
        if self.acted_at:
            return
        if not self._began:
            if under_way(sample):
                stand_still(self._target, True)
                self._began = True
        else:
            self.slowest = max(self.slowest, now - self._last)
            if sample['transferred'] != self._sent:     # into buffers
                self._sent, self._since = sample['transferred'], now
            if now - self._since > STALL:
                self.check(sample)
                self.acted_at = time.monotonic()
                self._then()
        self._last = time.monotonic()

    def check(self, sample: dict) -> None:
        """The migration is held up, and the source is not."""
        check(sample['phase'] == 'active', 'a destination that stands still '
              f'is no failure by itself: {sample["phase"]}')
        check(sample['status'] == 'running', 'the guest runs meanwhile: '
              f'{sample["status"]}')
        check(self.slowest < ANSWERS_WITHIN, 'the source answers meanwhile: '
              f'after {self.slowest:.1f} s')


def stalled_and_cancelled(source: str, target: str) -> Case:
    """The destination stops reading; migrate_cancel works all the same."""
    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        first = lab.target(target)
        stall = Stall(first, lambda: vm.qmp.cmd('migrate_cancel'))
        try:
            result = lab.move(first, SMALL, params=SLOW, on_sample=stall)
        finally:
            stand_still(first, False)
        check(result.status == 'cancelled',
              f'the state is "cancelled": {result.status} {result.error}')
        took = result.samples[-1]['t'] - stall.acted_at
        check(took < CANCELLED_WITHIN, 'it was cancelled within '
              f'{CANCELLED_WITHIN:.0f} s: {took:.1f}')
        lab.must_go_on()
        ends_by_itself(first)
        again = lab.must_move(lab.target(target))
        return (f'cancelled in {1e3 * took:.0f} ms, answers within '
                f'{1e3 * stall.slowest:.0f}; then {summary(again)}')
    return Case(f'{source}-{target}-stall-cancel', run)


def stalled_and_resumed(source: str, target: str) -> Case:
    """The destination stands still for a while; the migration goes on."""
    def run(lab: Lab) -> str:
        lab.boot(source)
        first = lab.target(target)
        stall = Stall(first, lambda: stand_still(first, False))
        try:
            result = lab.must_move(first, SMALL, params=SLOW,
                                   on_sample=stall)
        finally:
            stand_still(first, False)
        check(stall.acted_at > 0, 'the destination stood still')
        return summary(result)
    return Case(f'{source}-{target}-stall-resume', run)


def source_stalls(source: str, target: str) -> Case:
    """The source stands still: the destination answers, and then goes on."""
    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        first = lab.target(target)
        slowest: list[float] = []

        def stall() -> None:
            stand_still(vm, True)
            try:
                end = time.monotonic() + STALL
                while (now := time.monotonic()) < end:
                    info = first.qmp.cmd('query-migrate')
                    check(info.get('status') == 'active',
                          f'the destination waits: {info.get("status")}')
                    slowest.append(time.monotonic() - now)
                    time.sleep(0.01)
            finally:
                stand_still(vm, False)
        on_sample, done = halfway(stall)
        result = lab.must_move(first, params=SLOW, on_sample=on_sample)
        check(bool(done), 'the migration was under way')
        check(max(slowest) < ANSWERS_WITHIN, 'the destination answers while '
              f'nothing comes: after {max(slowest):.1f} s')
        return (f'answers within {1e3 * max(slowest):.0f} ms; '
                f'{summary(result)}')
    return Case(f'{source}-{target}-source-stalls', run)


def all_cases() -> list[Case]:
    """Those that leave the guest in good order."""
    cases = [cancelled(*pair, mode) for mode in (PLAIN, TLS, XBZRLE)
             for pair in ROUND]
    mixed = [pair for pair in ROUND if 'ferry' in pair]
    cases += [target_killed(*pair) for pair in mixed]
    cases += [unlike('other-memory-size', *pair, ('mismatch', 'size'),
                     mem=MEMORY // 2) for pair in mixed]
    cases += [unlike('other-machine', *pair, ('machine type',), machine='pc')
              for pair in mixed]
    cases += [stalled_and_resumed('ferry', 'ferry'),
              stalled_and_resumed('ferry', 'pristine'),
              source_stalls('pristine', 'ferry'),
              source_stalls('ferry', 'ferry'),
              stalled_and_cancelled('ferry', 'ferry'),
              stalled_and_cancelled('ferry', 'pristine')]
    return cases


def last_cases() -> list[Case]:
    """Those that lose the guest."""
    return [source_killed('ferry', 'ferry'),
            source_killed('pristine', 'ferry')]
