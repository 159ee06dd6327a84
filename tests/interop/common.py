# What the cases of the interoperability test share.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the cases of the interoperability test share."""

from __future__ import annotations

import time
from typing import Callable, Iterable

from ferry.migrate import Result
from ferry.vm import VM
from ferrytest.wait import until

from lab import RATE, check

# Leaves time to interfere
SLOW = {'max-bandwidth': 40 << 20, 'downtime-limit': 300}
# Takes enough passes for xbzrle to find pages that it knows
PASSES = {'max-bandwidth': 128 << 20, 'downtime-limit': 20}
PASSES_RATE = 2 * RATE
ENDS_WITHIN = 10.0      # s for a QEMU whose peer is gone to say so and end
UNDER_WAY = 40 << 20    # bytes sent when a case interferes

# Source and destination, in an order in which each of them finds the guest
# where the last one left it, over and over.
ROUND = (('ferry', 'ferry'), ('ferry', 'pristine'), ('pristine', 'pristine'),
         ('pristine', 'ferry'))

OnSample = Callable[[dict], None]


def summary(result: Result) -> str:
    """The figures of one migration."""
    return (f'{result.total_ms:.0f} ms, {result.bytes / 2 ** 20:.0f} MiB, '
            f'{result.iterations} iterations, blackout '
            f'{result.blackout_ms:.0f} ms')


def under_way(sample: dict) -> bool:
    """Whether a migration is within its first pass over memory."""
    return sample['phase'] == 'active' and sample['transferred'] > UNDER_WAY


def halfway(action: Callable[[], object],
            when: Callable[[dict], bool] = under_way
            ) -> tuple[OnSample, list[float]]:
    """An on_sample that acts once, as soon as it is time.

    The list gets the share of memory that had been sent by then.
    """
    done: list[float] = []

    def on_sample(sample: dict) -> None:
        if not done and when(sample):
            done.append(1 - sample['remaining'] / max(sample['total'], 1))
            action()
    return on_sample, done


def says(vm: VM, words: Iterable[str], before: str = '') -> str:
    """Wait until VM has said one of WORDS, or its peer, who said BEFORE, has.

    Who sees a migration fail may see it before the other side has said why.
    """
    def said() -> str:
        text = f'{before} {vm.log_tail(4)}'.strip()
        return text if any(word in text.lower() for word in words) else ''
    return until(said, f'{vm.name} says one of {words}; "{before}"')


def ends_by_itself(vm: VM) -> float:
    """Wait for VM to end; return the seconds it took."""
    start = time.monotonic()
    while vm.alive():
        check(time.monotonic() - start < ENDS_WITHIN,
              f'{vm.name} ends when its peer is gone')
        time.sleep(0.02)
    return time.monotonic() - start
