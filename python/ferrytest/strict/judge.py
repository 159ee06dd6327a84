# What must be true of a switchover, whatever went wrong.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What must be true of a switchover, whatever went wrong.

All from what was measured: no QEMU is needed here.  What a machine was late by
while it was measured is nobody's fault, and allowed for.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, Iterable

from . import plan

# What a source does before it sees that what it was at has taken too long
AFTER_MS = 5.0


@dataclass
class Abort:
    """One event MIGRATION_SWITCHOVER_ABORTED."""

    attempt: int
    reason: str
    total_ms: float
    parts: dict[str, float]
    seen_ms: float = 0          # the gap in the heartbeats at that time


@dataclass
class Outcome:
    """What became of a switchover.  Times in ms."""

    number: int
    name: str
    status: str = 'none'        # of the migration
    error: str = ''             # the source's error-desc
    attempts: int = 0
    total_ms: float | None = None       # of the ledger, if it completed
    predicted_ms: float | None = None   # the last decision before
    qemu_ms: float = 0                  # downtime as query-migrate has it
    blackout_ms: float | None = None    # as seen from outside
    stopped_ms: float | None = None     # as seen, less what the guest lived
    noise_ms: float = 0
    late_ms: float = 0                  # how late the machine was, at worst
    parts: dict[str, float] = field(default_factory=dict)
    aborts: list[Abort] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)   # sides that run at the end
    lost: int = 0               # heartbeats
    repeated: int = 0
    verified: bool = False
    wrong: str = ''             # what went wrong with doing all this
    seconds: float = 0
    # Of one whose memory followed: until all of it was there, the longest gap
    # between heartbeats meanwhile, and what the guest waited for pages
    follow_ms: float | None = None
    gap_ms: float = 0
    faults: dict[str, float] = field(default_factory=dict)

    @property
    def followed(self) -> bool:
        """Whether it was switched over to postcopy."""
        return self.follow_ms is not None

    def dump(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @property
    def first_ms(self) -> float | None:
        """What the first heartbeat took of a guest that ran again."""
        if self.blackout_ms is None or self.stopped_ms is None:
            return None
        return max(0.0, self.blackout_ms - self.stopped_ms)

    @classmethod
    def load(cls, row: dict[str, Any]) -> Outcome:
        """What dump() made."""
        aborts = [Abort(**one) for one in row['aborts']]
        return cls(**{**row, 'aborts': aborts})


def beyond_ms(outcomes: Iterable[Outcome]) -> list[float]:
    """What an observer saw that is in no ledger, the least first."""
    return sorted(one.blackout_ms - one.total_ms for one in outcomes
                  if one.blackout_ms is not None and one.total_ms is not None)


def floor_ms(references: Iterable[Outcome]) -> float:
    """What an observer sees that no ledger can contain.

    The destination's first moments, in which it translates the guest's code:
    the median of guests that came paused and were told to go on.
    """
    beyond = beyond_ms(references)
    return statistics.median(beyond) if beyond else 0.0


def away_ms(one: Outcome, floor: float) -> float | None:
    """For how long the guest stood still, as observed.

    Where the guest's own clock was not read in time the FLOOR is taken off.
    If memory follows, no floor is known: what its first beat waits for is
    different each time.
    """
    if one.stopped_ms is not None:
        return one.stopped_ms
    if one.blackout_ms is None or one.followed:
        return None
    return one.blackout_ms - floor


@dataclass
class Agreement:
    """How often ledger and observer say the same, out of COUNT.

    WITHIN_NOISE: that it stood still for so long.  Medians: how far they are
    APART, and the NOISE.
    """

    count: int
    within_noise: int
    apart: float
    noise: float


def agreement(outcomes: Iterable[Outcome]) -> Agreement:
    """Compare the ledgers of those that arrived with what was seen."""
    apart, noise = [], []
    for one in outcomes:
        seen = one.stopped_ms
        if one.status == 'completed' and one.total_ms and seen is not None:
            apart.append(abs(seen - one.total_ms))
            noise.append(one.noise_ms)
    if not apart:
        return Agreement(0, 0, 0, 0)
    return Agreement(
        len(apart), sum(far <= near for far, near in zip(apart, noise)),
        statistics.median(apart), statistics.median(noise))


Claims = Iterable[tuple[bool, str]]     # what has to be so; or what to say


def _times(what: plan.Switchover, is_: Outcome, floor: float) -> Claims:
    """The limit was kept."""
    fault, limit = what.fault, what.limit
    # Two threads have to get a CPU: one that acts and one that runs the guest.
    late = 2 * is_.late_ms
    # What a thread does that holds the lock is not interrupted.
    over = late + (fault.delay_ms(limit) + AFTER_MS if fault.bql else 0)
    for one in is_.aborts:
        yield (one.total_ms <= limit + over,
               f'attempt {one.attempt} ({one.reason}) took '
               f'{one.total_ms:.1f} ms of {limit}')
        yield (one.seen_ms <= limit + over + is_.noise_ms,
               f'attempt {one.attempt} ({one.reason}) was seen for '
               f'{one.seen_ms:.1f} ms of {limit}, noise {is_.noise_ms:.1f}')
    if is_.status == 'completed' and is_.total_ms and is_.blackout_ms:
        over = late + (fault.delay_ms(limit) if fault.late else 0)
        yield (is_.total_ms <= limit + over,
               f'the ledger has {is_.total_ms} ms of {limit}: {is_.parts}')
        away = away_ms(is_, floor)
        yield away is not None, 'nobody asked the guest in time'
        away = away or 0.0
        yield (away <= limit + over + is_.noise_ms,
               f'was away for {away:.1f} ms of {limit}, noise '
               f'{is_.noise_ms:.1f}')


def _rest(what: plan.Switchover, is_: Outcome) -> Claims:
    """Nobody was lost, and what went wrong is told."""
    fault = what.fault
    if is_.status == 'completed':
        yield is_.total_ms is not None, 'there is no ledger'
        yield is_.blackout_ms is not None, 'no hand-over was seen'
        yield is_.runs == ['dst'], f'runs on {is_.runs}'
        yield fault.ends != plan.STAYS, 'was switched over all the same'
    elif fault.ends == plan.LOST:
        yield "'cont'" in is_.error, f'does not say what to do: {is_.error}'
        yield is_.runs == [], f'runs on {is_.runs}'
    else:
        yield is_.runs == ['src'], f'runs on {is_.runs}'
        yield ('kill' not in fault.act or 'goes on here' in is_.error,
               f'does not say where the guest is: {is_.error}')
        yield fault.ends != plan.MOVES, f'did not arrive: {is_.error}'
    if 'could not be switched over within' in is_.error:
        reasons = [one.reason for one in is_.aborts]
        yield (all(reason in is_.error for reason in reasons[-1:]),
               f'the error does not tell {reasons[-1:]}: {is_.error}')
        # An attempt may be over before it comes to the fault.
        reached = any(part in one.parts for part in fault.named
                      for one in is_.aborts)
        yield (fault.ends != plan.STAYS or not reached or any(
            f"during '{part}'" in text for part in fault.named
            for text in (*reasons, is_.error)),
            f'no attempt was over in {fault.named}: {reasons} {is_.error}')
    yield is_.verified, 'memory was not verified'
    yield (not is_.lost and (not is_.repeated or fault.ends == plan.LOST),
           f'{is_.lost} heartbeats were lost, {is_.repeated} repeated')


def unsafe(what: plan.Switchover, is_: Outcome) -> list[str]:
    """What must not be, however busy the machine was."""
    if is_.wrong:
        return [is_.wrong]
    return [text for good, text in _rest(what, is_) if not good]


def problems(what: plan.Switchover, is_: Outcome, floor: float) -> list[str]:
    """All that is not as it has to be; FLOOR is that of the same run."""
    return unsafe(what, is_) + [
        text for good, text in _times(what, is_, floor) if not good]
