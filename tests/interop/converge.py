# A guest that writes faster than the link can carry.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that writes faster than the link can carry.

All of its working set is written to again while one pass over it is under way,
so there is always more left than may be sent while the guest stands still.
Slowed down it still wants to write as much, but does not get to.
"""

from __future__ import annotations

import time

from ferry.migrate import Result
from ferrytest.suite import Case

from common import summary
from lab import WORK, Lab, check

RATE = 100000           # pages a second: the working set in less than 0.1 s
MBPS = 64               # MiB/s that the link carries
LINK = {'max-bandwidth': MBPS << 20, 'downtime-limit': 100,
        'cpu-throttle-initial': 50, 'cpu-throttle-increment': 25}
PATIENCE = 6.0          # s for a migration that does not converge
PASSES = 5              # over memory in that time, at least
FASTEST = 0.5           # of RATE that a guest must reach which is not slowed

assert WORK / MBPS > 2 * LINK['downtime-limit'] / 1000


def throttle(sample: dict) -> int:
    """How much of their time the vCPUs lose, in per cent."""
    return sample['migrate'].get('cpu-throttle-percentage', 0)


def speed(lab: Lab) -> float:
    """Pages that the guest writes a second, of those it wants to write."""
    start, before = time.monotonic(), lab.guest.status()['writes']
    time.sleep(0.5)
    after = lab.guest.status()['writes']
    return (after - before) / (time.monotonic() - start) / RATE


def attempt(lab: Lab, converge: bool, enough) -> Result:
    """Migrate until ENOUGH, which is given each sample, says to cancel."""
    source = lab.source
    assert source is not None
    asked: list[dict] = []

    def on_sample(sample: dict) -> None:
        if not asked and sample['phase'] == 'active' and enough(sample):
            asked.append(sample)
            source.qmp.cmd('migrate_cancel')
    first = lab.target('ferry')
    result = lab.move(first, caps={'auto-converge': converge}, params=LINK,
                      on_sample=on_sample)
    check(result.status == 'cancelled', 'it went on until it was cancelled: '
          f'{result.status} {result.error}')
    lab.must_go_on()
    lab.drop(first)
    return result


def not_alone(lab: Lab) -> str:
    """Without help it goes on for ever."""
    result = attempt(lab, False, lambda s: s['elapsed'] > PATIENCE)
    passes = max(sample['iteration'] for sample in result.samples)
    check(passes >= PASSES, f'it tried {PASSES} times at least: {passes}')
    check(not any(map(throttle, result.samples)), 'nobody slows it down')
    return f'{passes} passes in vain'


def cancelled(lab: Lab) -> str:
    """Who is slowed down is fast again when the migration is cancelled."""
    deepest = LINK['cpu-throttle-initial'] + LINK['cpu-throttle-increment']
    result = attempt(lab, True, lambda s: throttle(s) >= deepest)
    check(throttle(result.samples[-1]) == 0, 'nothing is said of slowing '
          f'down afterwards: {throttle(result.samples[-1])}')
    now = speed(lab)
    check(now > FASTEST, f'the guest is fast again: {now:.0%} of its rate')
    return f'cancelled at {deepest} %, then {now:.0%} of its rate'


def with_help(lab: Lab) -> str:
    """Slowed down step by step, it arrives."""
    target = lab.target('ferry')
    result = lab.must_move(target, caps={'auto-converge': True}, params=LINK)
    seen = [throttle(sample) for sample in result.samples]
    steps = sorted(set(seen))
    check(seen[0] == 0 and LINK['cpu-throttle-initial'] in steps,
          f'it is slowed down once it is known to be too fast: {steps}')
    check(seen[:-1] == sorted(seen[:-1]), f'more and more: {seen}')
    check(seen[-1] == 0, 'and not any more once it has gone: '
          f'{result.samples[-1]["phase"]} at {seen[-1]} %')
    now = speed(lab)
    check(now > FASTEST, 'the guest is fast where it arrives: '
          f'{now:.0%} of its rate')
    return f'at {steps} %: {summary(result)}'


def auto_converge(lab: Lab) -> str:
    """See the top of this file."""
    lab.boot('ferry')
    lab.guest.set_rate(RATE)
    now = speed(lab)
    check(now > FASTEST, f'the guest writes as fast as it should: {now:.0%}')
    return ', '.join(part(lab) for part in (not_alone, cancelled, with_help))


def all_cases() -> list[Case]:
    """One: each of its parts is nothing without the others."""
    return [Case('ferry-ferry-auto-converge', auto_converge, False, ('ferry',),
                 ('auto-converge',), alone=True)]
