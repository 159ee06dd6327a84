# What a destination says once it has told that the guest runs.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a destination says once it has told that the guest runs.

Who has seen the event RESUME may ask for the state, or migrate the guest again.
A machine of many vCPUs, which do nothing, takes long to have all of them go on.
"""

from __future__ import annotations

import contextlib
import time
from typing import Iterator

from ferry.migrate import ENDED
from ferry.vm import VM
from ferrytest.suite import Case

from lab import Lab, check

VCPUS = 96
TURNS = 3
WITHIN = 20.0           # s


@contextlib.contextmanager
def machine(lab: Lab, kind: str, name: str, incoming: str | None = None
            ) -> Iterator[VM]:
    """A machine whose vCPUs run nothing."""
    vm = VM(kind, name, lab.workdir, 16, incoming=incoming, smp=VCPUS,
            serial=False, accelerator='qtest')
    try:
        yield vm.start()
    finally:
        vm.stop()


def wait_ended(vm: VM) -> str:
    """The state of a migration that has ended."""
    end = time.monotonic() + WITHIN
    while (status := vm.qmp.cmd('query-migrate').get('status')) not in ENDED:
        check(time.monotonic() < end, f'it ends: {status}')
        time.sleep(0.01)
    return status


def resumed(source: str, target: str) -> Case:
    """RESUME comes with the state "completed", and the guest may leave."""
    def turn(lab: Lab, src: VM, dst: VM) -> None:
        uri = lab.uri('unix')
        dst.qmp.cmd('migrate-incoming', {'uri': uri})
        src.qmp.cmd('migrate', {'uri': uri})
        dst.qmp.wait_event('RESUME', WITHIN)
        status = dst.qmp.cmd('query-migrate').get('status')
        dst.qmp.cmd('migrate', {'uri': 'exec:cat >/dev/null'})
        check(status == 'completed', f'the guest runs, and the state is '
              f'"{status}"')
        for vm in (src, dst):
            status = wait_ended(vm)
            check(status == 'completed', f'{vm.name} completes: "{status}"')

    def run(lab: Lab) -> str:
        for number in range(TURNS):
            with machine(lab, source, f'left{number}') as src, \
                 machine(lab, target, f'came{number}', 'defer') as dst:
                turn(lab, src, dst)
        return f'{TURNS} times'
    return Case(f'{source}-{target}-resume-is-completed', run, False,
                (source, target))


def all_cases() -> list[Case]:
    """Both emulators as the destination: the base tests the test."""
    return [resumed('ferry', 'ferry'), resumed('ferry', 'pristine')]
