# Rounds: a migration, and one side of it that is told to end.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Rounds: a migration, and one side of it that is told to end."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pair
from ferry.errors import FerryError
from ferry.vm import VM
from pair import Pair, must_end

WITHIN = 4.0            # s to end, on a machine that has nothing else to do
LATE = 1.3              # of what a migration takes: how late it may be told
ENDED = ('completed', 'failed', 'cancelled')
PAUSED, ACTIVE = 'postcopy-paused', 'postcopy-active'
RATE = {'max_bandwidth': 32 << 20, 'max_postcopy_bandwidth': 16 << 20,
        'downtime_limit': 500}
# So slow that the guest waits for some page when it is paused
TRICKLE = {**RATE, 'max_postcopy_bandwidth': 1 << 20}

POST = {'events': True, 'postcopy-ram': True}
STRICT = {'events': True, 'strict-downtime': True, 'return-path': True}
KINDS: dict[str, dict[str, bool]] = {
    'precopy': {'events': True},
    'precopy-return-path': {'events': True, 'return-path': True},
    'postcopy': POST,
    'postcopy-preempt': {**POST, 'postcopy-preempt': True},
    'strict': STRICT,
    'strict-postcopy': {**STRICT, **POST},
}


@dataclass
class Plan:
    """How it is run."""
    binary: str
    count: int
    within: float       # s to end in
    chance: random.Random


@dataclass(frozen=True)
class Case:
    """A name, and one round: what it says of itself."""
    name: str
    round: Callable[[Plan, Path], str]


def told(vm: VM, out_of_band: Pair | None = None) -> Callable[[], object]:
    """What tells VM to end; out of band by its side's second monitor."""
    if out_of_band is None:
        return lambda: vm.qmp.cmd('quit')
    side = (out_of_band.source if vm is out_of_band.src
            else out_of_band.target)
    return lambda: side.monitor.urgent('quit')


def both_end(plan: Plan, two: Pair, first: VM, urgent: bool = False) -> float:
    """FIRST ends, and after it the other; how long the first one took."""
    took = must_end(first, told(first, two if urgent else None), plan.within)
    other = two.dst if first is two.src else two.src
    # It notices, or is about to; its monitor answers.
    other.qmp.cmd('query-migrate', timeout=pair.PATIENCE)
    must_end(other, told(other), plan.within)
    return took


def is_over(two: Pair) -> bool:
    """Whether both sides have said so."""
    return all(side.status in ENDED for side in (two.source, two.target))


LASTED: dict[str, float] = {}   # s, by kind of migration


def lasts(plan: Plan, folder: Path, kind: str) -> float:
    """How long such a migration takes here."""
    if kind not in LASTED:
        two = Pair(folder, plan.binary, KINDS[kind], **RATE)
        try:
            began = time.monotonic()
            two.begin('postcopy' in kind)
            two.until(lambda: is_over(two), 'over')
            LASTED[kind] = time.monotonic() - began
            if two.source.status != 'completed':
                raise FerryError(f'it ends as {two.source.why()}')
        finally:
            two.kill()
    return LASTED[kind]


def at_random(kind: str, side: str) -> Case:
    """One side is told to end at any time from the first command on."""
    def run(plan: Plan, folder: Path) -> str:
        delay = plan.chance.uniform(0, LATE * lasts(plan, folder, kind))
        two = Pair(folder, plan.binary, KINDS[kind], **RATE)
        try:
            two.begin('postcopy' in kind)
            time.sleep(delay)
            first = two.src if side == 'source' else two.dst
            states = two.source if side == 'source' else two.target
            before = states.status
            both_end(plan, two, first)
            return before
        finally:
            two.kill()
    return Case(f'{kind}/{side}', run)


def in_postcopy(two: Pair) -> bool:
    """Whether the guest has moved, and both sides have said so."""
    return two.source.status == ACTIVE and bool(two.target.when('RESUME'))


def is_paused(two: Pair) -> bool:
    """Whether both sides have said so."""
    return two.source.status == two.target.status == PAUSED


def paused(preempt: bool, how: str) -> Case:
    """A destination that has paused, whose guest waits for a page."""
    def run(plan: Plan, folder: Path) -> str:
        caps = {**POST, 'postcopy-preempt': preempt}
        two = Pair(folder, plan.binary, caps, **TRICKLE)
        with ThreadPoolExecutor(1) as pool:
            try:
                two.begin(True)
                two.until(lambda: in_postcopy(two), 'in postcopy')
                time.sleep(plan.chance.uniform(0, 0.2))
                if how == 'behind-stop':
                    # It waits for a guest that is about to wait for a page.
                    pool.submit(two.dst.qmp.cmd, 'stop')
                    time.sleep(plan.chance.uniform(0, 0.01))
                (two.source if plan.chance.random() < 0.5
                 else two.target).monitor.urgent('migrate-pause')
                two.until(lambda: is_paused(two), 'paused')
                time.sleep(plan.chance.uniform(0, 0.2))
                took = both_end(plan, two, two.dst, how == 'out-of-band')
                return f'{took:.1f} s'
            finally:
                two.kill()
    name = 'paused-preempt' if preempt else 'paused'
    return Case(f'{name}/{how}', run)


def recovering(side: str) -> Case:
    """Either side, while a postcopy that was paused is made to go on."""
    def run(plan: Plan, folder: Path) -> str:
        two = Pair(folder, plan.binary, POST, **TRICKLE)
        try:
            two.begin(True)
            two.until(lambda: in_postcopy(two), 'in postcopy')
            two.source.monitor.urgent('migrate-pause')
            two.until(lambda: is_paused(two), 'paused')
            uri = f'unix:{folder}/again'
            two.target.monitor.urgent('migrate-recover', {'uri': uri})
            two.src.qmp.cmd('migrate', {'uri': uri, 'resume': True})
            time.sleep(plan.chance.uniform(0, 0.15))
            first = two.src if side == 'source' else two.dst
            before = (two.source if side == 'source' else two.target).status
            both_end(plan, two, first, plan.chance.random() < 0.5)
            return before
        finally:
            two.kill()
    return Case(f'recovering/{side}', run)


CASES = [
    *(at_random(kind, side) for kind in KINDS
      for side in ('source', 'target')),
    *(recovering(side) for side in ('source', 'target')),
    *(paused(preempt, how) for preempt in (False, True)
      for how in ('in-band', 'out-of-band', 'behind-stop')),
]
