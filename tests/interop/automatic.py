# A guest that writes faster than the link can carry, and convergence=auto.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that writes faster than the link can carry, and convergence=auto.

The guest of converge.py, whose migration does not end by itself.  Which means
are enabled, and what on-miss says, is all that differs between the parts.
"""

from __future__ import annotations

from typing import Any

from ferry.migrate import Result
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.suite import Case

from common import summary
from converge import FASTEST, LINK, MBPS, RATE, speed, throttle
from lab import FILL, MEMORY, WORK, Lab, check

SLOW_RATE = 4000        # pages a second, a quarter of the link
BACK = {'convergence': 'manual', 'total-time-limit': 0, 'on-miss': 'continue'}
AUTO = {**LINK, 'convergence': 'auto'}
TOTAL = 3500            # ms; the first pass takes two seconds
PASS = 1000 * WORK / MBPS       # ms
SLACK = 1000            # ms, of a machine that does other things as well


def decisions(result: Result) -> list[str]:
    """What the source has decided, in order, each once.

    The last one is in the last sample, which is of the ended migration: those
    in between may have begun and ended between two samples.
    """
    said: list[str] = []
    for sample in result.samples:
        one = sample['migrate'].get('progress', {}).get('decision', '')
        if one and one not in said:
            said.append(one)
    return said


def must_say(result: Result, text: str) -> None:
    """Insist that TEXT is in one of the decisions."""
    said = decisions(result)
    check(any(text in one for one in said), f'"{text}" is among {said}')


def move(lab: Lab, caps: dict[str, bool], params: dict[str, Any]) -> Result:
    """Migrate the guest, which must arrive whole."""
    target = lab.target('ferry')
    result = lab.must_move(target, caps=caps, params={**AUTO, **params})
    target.qmp.cmd('migrate-set-parameters', BACK)
    return result


def cancelled(lab: Lab) -> str:
    """Nothing is enabled: when the time is over the guest stays."""
    target = lab.target('ferry')
    result = lab.move(target, params={**AUTO, 'total-time-limit': TOTAL,
                                      'on-miss': 'cancel'})
    check(result.status == 'cancelled', f'cancelled: {result.status} '
          f'{result.error}')
    check(TOTAL <= result.samples[-1]['elapsed'] * 1000 <= TOTAL + PASS + SLACK,
          f'as the time is over: {result.samples[-1]["elapsed"]:.1f} s')
    why = result.samples[-1]['migrate'].get('error-desc', '')
    check('total-time-limit' in why, f'it says why: {why}')
    lab.must_go_on()
    lab.drop(target)
    return f'cancelled after {result.samples[-1]["elapsed"]:.1f} s'


def beyond(lab: Lab) -> str:
    """Nothing is enabled: the downtime limit is exceeded, when told to."""
    result = move(lab, {}, {'total-time-limit': TOTAL,
                            'on-miss': 'switchover'})
    must_say(result, 'as on-miss says')
    check(result.total_ms <= TOTAL + PASS + SLACK,
          f'at most a pass late: {result.total_ms} ms')
    must_say(result, f'ms of {LINK["downtime-limit"]}.0 ms, the lowest lately')
    return f'beyond the limit: {summary(result)}'


def throttled(lab: Lab) -> str:
    """Throttled by as much as it takes, it arrives within the limit."""
    result = move(lab, {'auto-converge': True}, {})
    seen = sorted(set(map(throttle, result.samples)))
    check(seen[0] == 0 and seen[-1] > LINK['cpu-throttle-initial'],
          f'it is throttled, and not in the steps of the user: {seen}')
    check(result.downtime_ms <= 2 * LINK['downtime-limit'],
          f'within the limit: {result.downtime_ms} ms')
    must_say(result, 'vCPUs throttled to')
    now = speed(lab)
    check(now > FASTEST, f'the guest is fast where it arrives: {now:.0%}')
    return f'throttled at {seen} %: {summary(result)}'


def postcopy(lab: Lab) -> str:
    """With postcopy enabled it starts by itself, and vCPUs are left alone."""
    result = move(lab, {'postcopy-ram': True}, {})
    check(not any(map(throttle, result.samples)), 'nobody is throttled')
    must_say(result, 'postcopy: nothing else makes passes shrink')
    return f'postcopy: {summary(result)}'


def refused(lab: Lab) -> str:
    """Limits that contradict each other are refused with a number that does."""
    assert lab.source is not None
    qmp = lab.source.qmp
    said = []
    for wrong in ({'downtime-limit': 0}, {'total-time-limit': 500}):
        try:
            qmp.cmd('migrate-set-parameters', {**AUTO, **wrong})
            check(False, f'{wrong} is refused')
        except QMPError as err:
            said.append(err.desc)
    check('at least 1 ms' in said[0], said[0])
    least = int(said[1].split('at least ')[1].split()[0])
    qmp.cmd('migrate-set-parameters', {**AUTO, 'total-time-limit': least + 100})
    qmp.cmd('migrate-set-parameters', {**BACK, 'on-miss': 'postcopy'})
    qmp.cmd('migrate-set-parameters', {'convergence': 'auto'})
    try:
        qmp.cmd('migrate', {'uri': 'tcp:127.0.0.1:1'})
        check(False, 'on-miss=postcopy without postcopy-ram is refused')
    except QMPError as err:
        check('postcopy-ram' in err.desc, err.desc)
    qmp.cmd('migrate-set-parameters', BACK)
    return f'at least {least} ms'


def automatic(lab: Lab) -> str:
    """See the top of this file."""
    lab.boot('ferry')
    lab.guest.set_rate(RATE)
    now = speed(lab)
    check(now > FASTEST, f'the guest writes as fast as it should: {now:.0%}')
    return ', '.join(part(lab) for part in (refused, cancelled, beyond,
                                            throttled, postcopy))


def estimate(vm: VM, **arguments: int) -> dict[str, Any]:
    """What migrate-estimate answers, with methods by their names."""
    answer = vm.qmp.cmd('migrate-estimate', {'bandwidth': MBPS << 20,
                                             **arguments})
    answer['methods'] = {one['method']: one for one in answer['methods']}
    return answer


def refusal(vm: VM, **arguments: int) -> str:
    """Why migrate-estimate is refused."""
    try:
        estimate(vm, **arguments)
    except QMPError as err:
        return err.desc
    return ''


def estimates(lab: Lab) -> str:
    """What is estimated, beside what the migration takes then."""
    source = lab.boot('ferry')
    lab.guest.set_rate(SLOW_RATE)
    qmp = source.qmp
    qmp.cmd('migrate-set-parameters', LINK)
    check('range of 50 to 5000' in refusal(source, **{'calc-time': 49}),
          'a time that is too short is refused')
    told = estimate(source)
    precopy = told['methods']['precopy']
    check(told['pick'] == 'precopy', f'precopy is picked: {told}')
    check(FILL + WORK < told['memory'] >> 20 < MEMORY, 'memory that exists: '
          f'{told["memory"] >> 20} MiB')
    again = estimate(source, **{'calc-time': 100})
    check(again['dirtied'] < told['dirtied'], 'less is dirtied in less time')
    said = qmp.cmd('human-monitor-command',
                   {'command-line': 'migrate_estimate 1 64M'})
    check('pick: precopy' in said and 'not enabled' in said, said)
    target = lab.target('ferry')
    during: list[str] = []

    def on_sample(sample: dict) -> None:
        if not during and sample['phase'] == 'active':
            during.append(refusal(source))
    result = lab.must_move(target, params=LINK, on_sample=on_sample)
    check('in progress' in during[0], f'not during a migration: {during}')
    off = result.total_ms / precopy['total-ms']['likely']
    check(0.5 < off < 2, f'{precopy["total-ms"]} ms were expected, it took '
          f'{result.total_ms}')
    lab.guest.set_rate(RATE)
    fast = estimate(target)
    check('total-ms' not in fast['methods']['precopy'] and
          'total-ms' in fast['methods']['throttling'],
          f'precopy would not end, throttled it would: {fast["methods"]}')
    return (f'expected {precopy["total-ms"]} ms, took {result.total_ms} ms: '
            f'{off:.2f}')


def all_cases() -> list[Case]:
    """One for what is decided, whose parts share a guest, and estimates."""
    return [Case('ferry-ferry-convergence-auto', automatic, False, ('ferry',),
                 ('auto-converge', 'convergence=auto'), alone=True),
            Case('ferry-ferry-estimate', estimates, False, ('ferry',),
                 ('convergence=auto',), alone=True)]
