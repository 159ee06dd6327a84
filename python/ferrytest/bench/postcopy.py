# Benchmark runs that switch to postcopy.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmark runs that switch to postcopy.

The guest accesses a page at random, so many times a second, and times each
access: a fault is one that takes long.  That its clock runs on while it waits
is checked in each run.  How much it gets done is counted from outside, by the
bytes that it sends for every so many accesses (tests/guest/timing.h).

faults       accesses that took FAULT_NS or more, less as many as there would
             have been without postcopy (a vCPU is interrupted now and then)
fault_p50_us, fault_p99_us      what they took
full_speed_ms   from the order to migrate until the guest, seen from outside,
             does 90 % of what it did before, for WINDOW at least
clock_lag_ms    how far its clock fell behind that of the host
requests     pages that were asked for, as the source reports them
"""

from __future__ import annotations

import time
from typing import Any

from ferry import guest as guests
from ferry.errors import FerryError
from ferry.observer import Observer
from ..postcopy import Postcopy
from ferry.vm import VM
from . import native
from .cases import Case, Pair
from .linux import SETTLE, TCP, VERIFY_TIMEOUT, machine_for
from .run import Meter, reported, workdir

FAULT_NS = 30_000
FAST = 0.9              # of the speed before
WINDOW = 200_000_000    # ns
BASE = 2.0              # s of normal life, to compare with
BOOT_TIMEOUT = 120.0    # s
LAG = 0.25              # of the time that passed: more is no lag any more
GIVE_UP = 20.0          # s until it is as fast as before
MS = 1e6                # ns


def rank(counts: dict[int, float], share: float) -> float:
    """The value that SHARE of COUNTS (value -> how often) do not exceed."""
    total, seen = sum(counts.values()), 0.0
    for value, count in sorted(counts.items()):
        seen += count
        if seen >= share * total:
            return value
    return 0.0


def faults(before: dict[int, int], after: dict[int, int]) -> dict[int, float]:
    """The accesses of AFTER that waited for a page, BEFORE is without any."""
    scale = sum(after.values()) / max(1, sum(before.values()))
    slow: dict[int, float] = {}
    usual = 0.0     # there may be fewer of that length: then it counts above
    for value, count in sorted(after.items()):
        if value < FAULT_NS:
            continue
        usual = scale * before.get(value, 0)
        if count > usual:
            slow[value] = count - usual
    return slow


def full_speed(counts: list[tuple[int, int]], start: int, speed: float
               ) -> int | None:
    """ns from START until COUNTS, (ns, how many), reach 90 % of SPEED (1/s).

    None if they do not, within what is known.
    """
    need = FAST * speed * WINDOW / 1e9
    times = [start] + [when for when, _ in counts if when > start]
    last = counts[-1][0] if counts else 0
    head = tail = 0
    inside = 0
    for begin in times:
        while tail < len(counts) and counts[tail][0] <= begin:
            if tail < head:
                inside -= counts[tail][1]
            tail += 1
        head = max(head, tail)
        while head < len(counts) and counts[head][0] <= begin + WINDOW:
            inside += counts[head][1]
            head += 1
        if inside >= need:
            return begin - start
        if begin + WINDOW > last:
            return None
    return None


class Pace:
    """What the guest gets done, seen from outside."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.speed = 0.0        # bytes a second, normally

    def settle(self, since: int) -> None:
        """It has lived normally SINCE then, in ns."""
        now = time.monotonic_ns()
        done = sum(count for _, count in self._observer.counts(since, now))
        self.speed = done * 1e9 / (now - since)
        if not done:
            raise FerryError('the guest does not count its accesses')

    def wait(self, start: int) -> float:
        """ms from START until it does nearly as much again."""
        deadline = time.monotonic() + GIVE_UP
        while True:
            took = full_speed(self._observer.counts(start), start, self.speed)
            if took is not None:
                return took / MS
            if time.monotonic() > deadline:
                raise FerryError('the guest does not get as fast as it was '
                                 f'within {GIVE_UP:.0f} s')
            time.sleep(0.05)


def _lag(before: guests.Times, after: guests.Times) -> float:
    """ms that the guest's clock fell behind the host's."""
    passed = after.told_ns - before.told_ns
    lag = passed - (after.clock_ns - before.clock_ns)
    if lag > LAG * passed:
        raise FerryError('the clock of the guest stood still while it waited '
                         f'for pages: {lag / MS:.0f} of {passed / MS:.0f} ms')
    return lag / MS


def _values(before: guests.Times, settled: guests.Times, after: guests.Times
            ) -> dict[str, float]:
    slow = faults(settled.since(before), after.since(settled))
    return {'faults': sum(slow.values()),
            'fault_p50_us': rank(slow, 0.5) / 1e3,
            'fault_p99_us': rank(slow, 0.99) / 1e3,
            'clock_lag_ms': _lag(settled, after)}


def _migrate(case: Case, caps: dict[str, bool], src: VM, dst: VM,
             guest: guests.Guest, observer: Observer, pace: Observer,
             perf: bool) -> dict[str, Any]:
    """The measured part."""
    speed = Pace(pace)
    begin, before = time.monotonic_ns(), guest.times()
    time.sleep(BASE)
    speed.settle(begin)
    settled = guest.times()
    pace.attach(dst)
    with Postcopy(src, dst, caps=caps, guest=guest,
                  observer=observer, params={'max-bandwidth': 0,
                                             **case.params}) as move:
        meter = Meter(src, dst, perf)
        try:
            start, start_real = time.monotonic_ns(), time.time()
            move.begin(TCP)
            move.switch()
            info = move.finish(case.timeout, verify=False)
            values = meter.end()
        finally:
            meter.abandon()
        values |= _values(before, settled, guest.times())
        values['full_speed_ms'] = speed.wait(start)
        values['requests'] = info['ram']['postcopy-requests']
        values['blackout_ms'] = move.check_heartbeats()
        values['noise_ms'] = observer.noise_ms(99, until=start)
        values['wall_ms'] = 1e3 * (max(
            side.entered('completed') for side in (move.source, move.target))
            - start_real)
    return {'values': values | reported(info), 'query_migrate': info}


def measure(case: Case, pair: Pair, seed: int, perf: bool) -> dict[str, Any]:
    """One migration of the Linux guest of CASE; see run.one()."""
    with workdir() as where, \
         machine_for(case, pair.src, 'src', where, seed, False) as src, \
         guests.Guest(src) as guest, \
         machine_for(case, pair.dst, 'dst', where, seed, True) as dst, \
         Observer() as observer, Observer('pace') as pace:
        observer.attach(src)
        pace.attach(src)
        guest.wait_ready(BOOT_TIMEOUT)
        native.warm(case.warm_mib())
        time.sleep(SETTLE)
        done = _migrate(case, case.caps_of(pair), src, dst, guest, observer,
                        pace, perf)
        check = guest.verify(VERIFY_TIMEOUT)
    return {**done, 'verified': check.ok,
            'memory': {'detail': check.detail, 'pages': check.pages,
                       'writes': check.writes}}
