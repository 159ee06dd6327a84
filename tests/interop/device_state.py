# Devices whose state goes over the channels of multifd.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices whose state goes over the channels of multifd.

The devices are ours (hw/misc/state-sender.c): a pattern that is verified as it
arrives.  Where channels do not carry state it goes over the main one.
"""

from __future__ import annotations

import time
from typing import Any

from ferry.vm import VM
from ferrytest.suite import Case

from common import halfway, summary
from failures import failed
from lab import Lab, check
from multifd import COMPRESSION, MULTIFD, SLOW_RATE, params, ready

BYTES = 20_000_000
DEVICES = 2


def devices(more: str = '', count: int = DEVICES) -> list[str]:
    """Options of a QEMU."""
    args = []
    for number in range(count):
        args += ['-device', f'state-sender,id=ss{number},bytes={BYTES}'
                 + (more if number == 0 else '')]
    return args


def arrived(vm: VM, number: int) -> int:
    """Bytes that a device got."""
    return vm.qmp.cmd('qom-get', {'path': f'/machine/peripheral/ss{number}',
                                  'property': 'arrived'})


def moves(name: str, *, caps: dict[str, bool] | None = None,
          tls: bool = False, plain: bool = False, **more: Any) -> Case:
    """A migration that is to succeed; PLAIN: without multifd."""
    def run(lab: Lab) -> str:
        lab.boot_anew('ferry', args=devices())
        target = (lab.target('ferry', args=devices()) if plain
                  else ready(lab, 'ferry', args=devices()))
        if COMPRESSION in more:
            lab.guest.set_rate(SLOW_RATE)
        use = {**({'multifd': False} if plain else MULTIFD), **(caps or {})}
        result = lab.must_move(target, tls=tls, caps=use,
                               params=params(**more))
        got = [arrived(target, number) for number in range(DEVICES)]
        lab.clear()
        check(got == [BYTES] * DEVICES, f'all of it arrived: {got}')
        return summary(result)
    return Case(f'device-state-{name}', run, False, ('ferry',), ('multifd',))


def fails(lab: Lab) -> str:
    """A thread that fails: the guest goes on here, and the reason is told."""
    lab.boot_anew('ferry', args=devices(',fail=on'))
    target = ready(lab, 'ferry', args=devices())
    result = lab.move(target, caps=MULTIFD, params=params())
    said = failed(lab, result)
    check('was made to fail' in said, f'it says why: {said}')
    lab.clear()
    return f'"{said}"'


def differs(lab: Lab) -> str:
    """The destination has less of it, and says so."""
    lab.boot_anew('ferry', args=devices())
    target = ready(lab, 'ferry', args=devices(f',bytes={BYTES // 2}'))
    result = lab.move(target, caps=MULTIFD, params=params())
    said = failed(lab, result)
    check('not within its state' in said, f"it has the destination's: {said}")
    lab.clear()
    return f'"{said}"'


def cancelled(lab: Lab) -> str:
    """A thread that waits is told to stop when the migration is cancelled."""
    vm = lab.boot_anew('ferry', args=devices(',stall=on'))
    target = ready(lab, 'ferry', args=devices())
    took: list[float] = []

    def act() -> None:
        time.sleep(0.3)
        start = time.monotonic()
        vm.qmp.cmd('migrate_cancel')
        while vm.qmp.cmd('query-migrate')['status'] != 'cancelled':
            check(time.monotonic() - start < 5, 'it is cancelled in time')
            time.sleep(0.005)
        took.append((time.monotonic() - start) * 1000)
    on_sample, _ = halfway(act, lambda s: s['phase'] == 'device')
    result = lab.move(target, caps=MULTIFD, params=params(),
                      on_sample=on_sample)
    check(result.status == 'cancelled', f'it is "{result.status}"')
    lab.must_go_on()
    lab.clear()
    return f'cancelled in {took[0]:.0f} ms'


def all_cases() -> list[Case]:
    """What goes where, then what may go wrong."""
    cases = [moves('channels'), moves('tls', tls=True),
             moves('one', **{'multifd-channels': 1}),
             moves('compressed', **{COMPRESSION: 'zlib', 'max-bandwidth': 0,
                                    'downtime-limit': 3000}),
             moves('main', plain=True)]
    return cases + [
        Case(f'device-state-{name}', run, needs=('multifd',))
        for name, run in (('fails', fails), ('differs', differs),
                          ('cancelled', cancelled))]
