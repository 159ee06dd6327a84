# A switchover to postcopy: asked for, and what the guest waits for after it.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A switchover to postcopy: asked for, and what the guest waits for after it.

The limit is of the switchover.  How long the guest waits for pages afterwards
is no part of it, and is kept apart from all that is compared with it.
"""

from __future__ import annotations

import time
from typing import Any

from ferry.errors import FerryError
from ferry.guest import Guest
from ferry.observer import Observer
from ..postcopy import ACTIVE
from ferry.vm import VM
from . import plan
from .judge import Outcome

MIDWAY = 24 << 20       # bytes that were sent
REMEMBERED = 250        # heartbeats, by the guest; a few less than it does
ENDS_WITHIN = 5.0       # s from the source's end to the destination's
WAITS = ('p50-us', 'p99-us', 'max-us')


def stopped_ms(guest: Guest, observer: Observer, start: int) -> float | None:
    """For how long the guest stood still, from outside and inside alone.

    What it lived through of a blackout by its own clock, cold and slow as it
    was, was no downtime.  Too late it does not remember.
    """
    crossing = observer.crossing(start)
    if crossing is None:
        return None
    lived = guest.apart_ms(crossing.first, crossing.count)
    arrived = observer.handovers(start)[-1].at_ns
    if sum(count for _, count in observer.counts(arrived)) >= REMEMBERED:
        return None
    return crossing.ms - lived


def _waits(dst: VM) -> dict[str, float]:
    """What the destination says of waits for pages; times in ms."""
    deadline = time.monotonic() + ENDS_WITHIN
    info = dst.qmp.cmd('query-migrate')
    while info.get('status') != 'completed':
        if time.monotonic() > deadline:
            raise FerryError(f'{dst.name} does not end: {info.get("status")}')
        time.sleep(0.005)
        info = dst.qmp.cmd('query-migrate')
    told = info.get('progress', {}).get('faults')
    if not told:
        return {'count': 0}
    return {'count': told['count']} | {
        name.replace('-us', '-ms'): told[name] / 1e3 for name in WAITS}


class Following:
    """One migration that is to end by postcopy; look() at each sample."""

    def __init__(self, how: plan.Follow, src: VM, dst: VM, guest: Guest,
                 observer: Observer, start: int) -> None:
        self._how, self._src, self._dst = how, src, dst
        self._guest, self._observer, self._start = guest, observer, start
        self._asked = self._met = False
        self.stopped_ms: float | None = None

    def look(self, sample: dict[str, Any]) -> None:
        """Ask for postcopy when it is time, and the guest once it is there.

        It remembers its first beats for a quarter of a second only, which may
        be over before all of its memory is there.
        """
        if not self._asked:
            if self._how.midway and sample['transferred'] < MIDWAY:
                return
            self._src.qmp.cmd('migrate-start-postcopy')
            self._asked = True
        elif (sample['phase'] == ACTIVE and not self._met
              and self._observer.crossing(self._start)):
            self._met = True
            self._guest.move_to(self._dst)
            self.stopped_ms = stopped_ms(self._guest, self._observer,
                                         self._start)

    def take(self, is_: Outcome, since: float, until: float) -> None:
        """Of one whose memory followed, SINCE then and UNTIL then.

        In ms of the monotonic clock: how long, and what was felt.
        """
        arrived = self._observer.handovers(self._start)[-1].at_ns
        is_.follow_ms = round(until - since, 1)
        is_.gap_ms = self._observer.longest_gap_ms(arrived, int(until * 1e6))
        is_.faults = _waits(self._dst)
