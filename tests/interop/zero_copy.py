# Migrations whose memory the kernel sends in place.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations whose memory the kernel sends in place.

On one host the kernel copies all the same, which is told of.
"""

from __future__ import annotations

from typing import Any

from ferry.migrate import set_caps, set_params
from ferrytest.suite import Case

from common import halfway, summary
from lab import OFF, Lab, check
from multifd import CHANNELS, MULTIFD, both, listens, params, ready, sent

CAPS = {**MULTIFD, 'zero-copy-send': True}
LEAST = 60 << 20        # bytes on the channels


def moves(source: str, target: str, name: str = 'plain',
          **more: Any) -> Case:
    """A migration that is to succeed."""
    def run(lab: Lab) -> str:
        lab.boot(source)
        result = lab.must_move(ready(lab, target), caps=CAPS,
                               params=params(**more))
        ram = result.samples[-1]['ram']
        missed = ram.get('dirty-sync-missed-zero-copy', 0)
        check(sent(result) > LEAST, 'memory took the channels')
        check(missed > 0 or source != 'ferry', f'copies are counted: {ram}')
        set_caps(lab.source, {**OFF, 'zero-copy-send': False})
        return f'{summary(result)}, {missed} times in vain'
    return Case(f'{source}-{target}-zero-copy-{name}', run, False,
                (source, target), ('multifd', 'zero-copy-send'))


def cancelled(lab: Lab) -> str:
    """Cancelled, and tried again."""
    vm = lab.boot('ferry')
    on_sample, _ = halfway(lambda: vm.qmp.cmd('migrate_cancel'),
                           lambda s: s['phase'] == 'active' and
                           s['transferred'] > LEAST // 2)
    result = lab.move(ready(lab, 'ferry'), caps=CAPS,
                      params=params(**{'max-bandwidth': 40 << 20}),
                      on_sample=on_sample)
    check(result.status == 'cancelled', f'it is "{result.status}"')
    lab.must_go_on()
    again = lab.must_move(ready(lab, 'ferry'), caps=CAPS, params=params())
    set_caps(lab.source, {'zero-copy-send': False})
    return summary(again)


def over_unix(lab: Lab) -> str:
    """A UNIX socket cannot send in place, which is said at once."""
    vm = lab.boot('ferry')
    target = ready(lab, 'ferry')
    set_params(target, params())
    uri = lab.uri('unix')
    target.qmp.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
    set_caps(vm, {'zero-copy-send': False})
    set_caps(vm, CAPS)
    said = both(lab, target, uri, 'failed', 20)
    set_caps(vm, {'zero-copy-send': False})
    check('zero-copy-send' in said, f'it says why: {said}')
    lab.must_go_on()
    return f'"{said}"'


def one_sided(lab: Lab) -> str:
    """The destination does not know of it."""
    vm = lab.boot('ferry')
    target, uri = listens(lab, CHANNELS)
    set_caps(vm, CAPS)
    both(lab, target, uri, 'completed', 20)
    lab.guest.move_to(target)
    verdict = lab.guest.verify()
    check(verdict.ok, verdict.detail)
    lab.clear()         # the observer has not followed
    return verdict.detail


def all_cases() -> list[Case]:
    """Both directions, then what may go wrong."""
    cases = [moves(source, target) for source, target in (
        ('ferry', 'ferry'), ('ferry', 'pristine'), ('pristine', 'ferry'))]
    cases += [moves('ferry', 'ferry', 'legacy-zeros',
                    **{'zero-page-detection': 'legacy'}),
              moves('ferry', 'ferry', 'many', **{'multifd-channels': 16})]
    return cases + [
        Case(f'zero-copy-{name}', run, needs=('multifd', 'zero-copy-send'))
        for name, run in (('cancelled', cancelled), ('unix', over_unix),
                          ('one-sided', one_sided))]
