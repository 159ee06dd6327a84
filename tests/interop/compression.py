# Compression that changes while a migration runs.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compression that changes while a migration runs.

The two sides are set differently, or one of them is set anew in the middle.
Memory is compared afterwards, as always.
"""

from __future__ import annotations

import time
from typing import Any, Callable

from ferry.migrate import set_caps, set_params
from ferry.vm import VM
from ferrytest.suite import Case

from common import summary
from lab import Lab, check
from multifd import COMPRESSION as NAME
from multifd import MULTIFD, SLOW_RATE, params, ready

RETURN = {**MULTIFD, 'return-path': True}
LIMIT = 60              # s for a migration to end
SLOW = 40 << 20         # bytes/s


def listens_with(lab: Lab, kind: str, **more: Any) -> tuple[VM, str]:
    """A destination with these settings of its own."""
    target = ready(lab, kind)
    set_caps(target, RETURN)
    set_params(target, params(**more))
    uri = lab.uri('tcp')
    target.qmp.cmd('migrate-incoming', {'uri': uri})
    return target, uri


def follow(source: VM, act: Callable[[dict], None]) -> dict:
    """Have ACT look at query-migrate until the migration has ended."""
    end = time.monotonic() + LIMIT
    while True:
        info = source.qmp.cmd('query-migrate')
        if info['status'] in ('completed', 'failed'):
            return info
        check(time.monotonic() < end, f'it ends: {info}')
        act(info)
        time.sleep(0.02)


def methods(info: dict) -> set[str]:
    """How channels compress at present; of pristine QEMU nothing is known."""
    channels = info.get('progress', {}).get('channels', [])
    return {one['compression'] for one in channels}


def between(lab: Lab, source: VM, target: VM, uri: str,
            act: Callable[[dict], None], **more: Any) -> dict:
    """Migrate with settings of the source, and compare memory."""
    set_caps(source, RETURN)
    set_params(source, params(**more))
    lab.guest.expect(target)
    source.qmp.cmd('migrate', {'uri': uri})
    info = follow(source, act)
    check(info['status'] == 'completed', f'it completes: {info}')
    lab.guest.move_to(target)
    verdict = lab.guest.verify()
    check(verdict.ok, verdict.detail)
    lab.clear()         # the observer has not followed
    return info


def differs(source: str, target: str, here: str, there: str,
            seen: set[str] | None = None) -> Case:
    """Each side has its own setting; only the methods SEEN are used."""
    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        lab.guest.set_rate(SLOW_RATE)
        used: set[str] = set()
        dest, uri = listens_with(lab, target, **{NAME: there})
        info = between(lab, vm, dest, uri,
                       lambda info: used.update(methods(info)),
                       **{NAME: here})
        used |= methods(info)
        check(seen is None or used <= seen, f'{seen} are used: {used}')
        return f'used: {", ".join(sorted(used)) or "not known"}'
    return Case(f'{source}-{target}-compression-{here}-{there}', run, False,
                (source, target), ('multifd',))


def automatic(lab: Lab) -> str:
    """Both sides are set to 'auto'."""
    lab.boot('ferry')
    target = ready(lab, 'ferry')
    result = lab.must_move(target, caps=RETURN, params=params(
        **{NAME: 'auto', 'max-bandwidth': SLOW}))
    used: set[str] = set()
    for sample in result.samples:
        used |= methods(sample['migrate'])
    check(used <= {'none', 'zstd'}, f'none or zstd is used: {used}')
    return f'{summary(result)}; used: {", ".join(sorted(used))}'


def changed(target: str, *, takes: bool) -> Case:
    """Set anew in the middle, again and again."""
    steps = ({NAME: 'zlib'}, {NAME: 'zstd', 'multifd-zstd-level': 3},
             {NAME: 'auto'}, {NAME: 'none'}, {'multifd-zstd-level': 1},
             {NAME: 'zstd'}, {'multifd-zstd-level': 12}, {NAME: 'zlib'},
             {'multifd-zlib-level': 9}, {NAME: 'none', 'max-bandwidth': 0})

    def run(lab: Lab) -> str:
        vm = lab.boot('ferry')
        dest, uri = listens_with(lab, target, **{NAME: 'zstd'})
        left = list(steps)
        used: set[str] = set()
        last = 0.0

        def act(info: dict) -> None:
            nonlocal last
            used.update(methods(info))
            now = time.monotonic()
            if info['status'] == 'active' and left and now - last > 1.5:
                set_params(vm, left.pop(0))
                last = now
        between(lab, vm, dest, uri, act,
                **{NAME: 'zstd', 'max-bandwidth': 4 << 20})
        check(len(left) < len(steps) - 4, f'there was time: {left}')
        check(used <= {'none', 'zstd'} if not takes else 'zlib' in used,
              f'it changes if it can: {used}')
        return f'used: {", ".join(sorted(used))}'
    return Case(f'ferry-{target}-compression-changes', run, False,
                ('ferry', target), ('multifd',))


def all_cases() -> list[Case]:
    """What each side may be set to, then what changes."""
    plain = {'none'}
    cases = [differs(source, target, here, there, seen)
             for source, target, here, there, seen in (
                 ('ferry', 'ferry', 'auto', 'none', None),
                 ('ferry', 'ferry', 'zlib', 'none', {'none', 'zlib'}),
                 ('ferry', 'ferry', 'none', 'zstd', plain),
                 ('ferry', 'pristine', 'auto', 'none', plain),
                 ('pristine', 'ferry', 'zstd', 'auto', None),
                 ('pristine', 'ferry', 'none', 'auto', None))]
    cases += [changed('ferry', takes=True), changed('pristine', takes=False)]
    return cases + [Case('compression-auto', automatic, needs=('multifd',))]
