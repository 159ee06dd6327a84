# Which switchovers to try: rates, limits, ways and faults.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which switchovers to try: rates, limits, ways and faults.

A plan follows from its seed alone, so that a long run can be gone on with and
a bad switchover repeated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .machines import MACHINES, PLAIN, Machine

RATES = (0, 4, 16, 64, 200, 400)            # MB/s that the guest dirties
LIMITS = (20, 30, 50, 100, 200, 300, 500)   # ms


@dataclass(frozen=True)
class Way:
    """How a guest is migrated, besides the limit."""

    name: str
    caps: tuple[str, ...] = ()
    tls: bool = False


WAYS = (Way('plain'), Way('plain'), Way('xbzrle', ('xbzrle',)),
        Way('auto-converge', ('auto-converge',)), Way('tls', tls=True),
        Way('pause', ('pause-before-switchover',)),
        Way('ack', ('switchover-ack',)),
        Way('ack+pause', ('switchover-ack', 'pause-before-switchover')),
        Way('tls+xbzrle', ('xbzrle',), tls=True))


@dataclass(frozen=True)
class Follow:
    """Precopy ends by migrate-start-postcopy, and memory follows the guest.

    MIDWAY: only when some of it has been sent, and may have to be thrown away.
    """

    name: str
    caps: tuple[str, ...] = ('postcopy-ram',)
    midway: bool = False


_PREEMPT = ('postcopy-ram', 'postcopy-preempt')
FOLLOWS = (Follow('postcopy'), Follow('postcopy-preempt', _PREEMPT),
           Follow('postcopy-midway', midway=True),
           Follow('postcopy-preempt-midway', _PREEMPT, True))
FOLLOW_EVERY = 5
IN_A_ROW = 10           # with the same machine

# How a migration may end, see judge.py
MOVES, STAYS, EITHER, LOST = 'moves', 'stays', 'either', 'lost'


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    A delay of PART is SHARE of the limit and MORE ms.  ACT names what the lab
    does in the middle of the first attempt.  BQL: a delay of the source that
    cannot be interrupted; LATE: one after the hand-over.
    """

    name: str
    ends: str = EITHER
    side: str = ''
    part: str = ''
    share: float = 0
    more: int = 0
    act: str = ''
    bql: bool = False
    late: bool = False
    limits: tuple[int, ...] = LIMITS

    @property
    def named(self) -> tuple[str, ...]:
        """What the source may say that time was over in.

        Of the other side it knows only how long it waits for it, or that it
        takes no more memory.
        """
        if self.side == 'dst':
            return ('device-load', self.part)
        return (self.part,)

    def delay_ms(self, limit: int) -> int:
        """How long the delay is."""
        return round(self.share * limit) + self.more if self.part else 0

    def delay(self, side: str, limit: int) -> str:
        """The value of x-fault-delay for SIDE."""
        if side != self.side or not self.part:
            return ''
        return f'{self.part}:{self.delay_ms(limit)}'


NONE = Fault('none')

# None of these may do more than use up time, or have the guest stay.
SHORT = tuple(
    Fault(f'{side}-{part}-short', EITHER, side, part, 0.3, bql=bql, late=late)
    for side, part, bql, late in (
        ('src', 'stop', True, False), ('src', 'device-save', True, False),
        ('src', 'ram', False, False), ('src', 'flush', False, False),
        ('dst', 'ram', False, False), ('dst', 'device-load', False, False)))
LONG = tuple(
    Fault(f'{side}-{part}-long', STAYS, side, part, 1, 40, bql=bql,
          limits=(20, 30, 50, 100))
    for side, part, bql in (
        ('src', 'stop', True), ('src', 'device-save', True),
        ('src', 'ram', False), ('src', 'flush', False),
        ('dst', 'ram', False), ('dst', 'device-load', False)))
# After COMMIT nothing can be taken back: what is late is seen afterwards.
LATE = tuple(
    Fault(f'dst-{part}-late', EITHER, 'dst', part, 0.3, late=True)
    for part in ('activate', 'start'))
ACTS = (Fault('link-stalls', act='stall'),
        Fault('dst-stopped', act='stop'),
        Fault('dst-killed-early', STAYS, act='kill-early',
              side='dst', part='device-load', share=0.5,
              limits=(200, 300, 500)),
        Fault('dst-killed-late', LOST, act='kill-late',
              side='dst', part='activate', more=400, late=True,
              limits=(200, 300, 500)))
FAULTS = SHORT + LONG + LATE + ACTS


@dataclass(frozen=True)
class Switchover:
    """One of a plan."""

    number: int
    rate: int           # MB/s
    limit: int          # ms
    way: Way
    fault: Fault = NONE
    follow: Follow | None = None
    machine: Machine = PLAIN

    def name(self) -> str:
        """For people; the same plan gives the same names."""
        how = self.way.name
        if self.follow is not None:
            how += f'-{self.follow.name}'
        if self.machine is not PLAIN:
            how = f'{self.machine.name}-{how}'
        return (f'{self.number:04}-{self.rate}MBps-{self.limit}ms-'
                f'{how}-{self.fault.name}')


def _follow(number: int, fault: Fault) -> Follow | None:
    """One in five, and of these a third with faults, as of all.

    It takes none of the dice, so that what the others are does not change.  A
    connection that is lost after COMMIT is a pause of postcopy, which is
    another test's.
    """
    turn, rest = divmod(number, FOLLOW_EVERY)
    if rest != FOLLOW_EVERY - 1 or fault.ends == LOST:
        return None
    return FOLLOWS[turn % len(FOLLOWS)]


def plan(count: int, seed: int = 1) -> list[Switchover]:
    """COUNT switchovers, a third of them with a fault, all faults in turn.

    One in five is a switchover to postcopy, and after ten another kind of
    machine comes.
    """
    dice = random.Random(seed)
    made: list[Switchover] = []
    faults: list[Fault] = []
    for number in range(count):
        fault = NONE
        if number % 3 == 2:
            if not faults:
                faults = dice.sample(FAULTS, len(FAULTS))
            fault = faults.pop()
        way = dice.choice(WAYS)
        if fault.act == 'stall' and way.tls:
            way = WAYS[0]       # the link is plain TCP; so is what it holds up
        made.append(Switchover(number, dice.choice(RATES),
                               dice.choice(fault.limits), way, fault,
                               _follow(number, fault),
                               MACHINES[number // IN_A_ROW % len(MACHINES)]))
    return made


def only(whole: list[Switchover], part: str) -> list[Switchover]:
    """Those of a plan in whose names PART is."""
    return [one for one in whole if part in one.name()]
