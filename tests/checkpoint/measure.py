# What protection costs: pauses, and the speed of the guest.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What protection costs: pauses, and the speed of the guest.

A guest of 1 GiB changes 20 MB/s, and is protected by 10 epochs a second.  Its
speed is how often a loop is gone through that takes what the other threads leave
of its vCPU; its clock is the host's here, so that stops count.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ferry.guest import Guest, guest_args, parse_values
from ferry.migrate import listen, set_caps, set_params, tcp_uri
from ferry.vm import VM
from ferrytest.suite import check

if TYPE_CHECKING:
    from lab import Lab

MEMORY, FILL, WORK = 1024, 768, 512     # MiB
RATE = 20_000_000 // 4096               # pages a second
SETTLE = 3.0            # s
SECONDS = 15.0
PACKETS = 100


def speed(guest: Guest) -> tuple[float, float]:
    """Rounds of the loop and pages written, both a second of the host."""
    def now() -> tuple[float, int, int]:
        spins = int(parse_values(guest.command('spin'))['spins'])
        return time.monotonic(), spins, int(guest.status()['writes'])
    before = now()
    time.sleep(SECONDS)
    after = now()
    took = after[0] - before[0]
    return (after[1] - before[1]) / took, (after[2] - before[2]) / took


def measure(lab: Lab) -> str:
    """Median and p99 of the pauses, and the speed with and without."""
    lab.clear()
    append = guest_args(FILL, WORK, RATE, net=PACKETS)

    def start(name: str, **more: str) -> VM:
        vm = VM('ferry', name, lab.folder, MEMORY, kernel=lab.kernel,
                initrd=lab.initrd, append=append,
                args=lab.outside.args(name), **more)
        lab.vms.append(vm)
        return vm.start()

    primary, secondary = start('pri'), start('sec', incoming='defer')
    with Guest(primary) as guest:
        guest.wait_ready(120)
        guest.command('spin')
        time.sleep(SETTLE)
        plain, writes = speed(guest)
        for vm in (primary, secondary):
            set_caps(vm, {'return-path': True, 'checkpoint': True,
                          'events': True})
            set_params(vm, {'max-bandwidth': 4 << 30, 'downtime-limit': 300,
                            'checkpoint-interval': 100})
        primary.qmp.cmd('migrate', {'uri': listen(secondary, tcp_uri())})
        lab.primary, lab.secondary = primary, secondary
        lab.wait_epoch(secondary, 10)
        began = primary.qmp.cmd('query-migrate')['progress']['checkpoint']
        cpu, clock = primary.cpu_seconds(), time.monotonic()
        held, held_writes = speed(guest)
        cpu = (primary.cpu_seconds() - cpu) / (time.monotonic() - clock)
        took = time.monotonic() - clock
        info = primary.qmp.cmd('query-migrate')['progress']['checkpoint']
        epochs = info['epoch'] - began['epoch']
        check(guest.verify().ok, 'the memory is as it should be')
    lab.clear()
    parts = ', '.join(f'{name} {info["pause"][name] / 1e3:.2f}' for name in
                      ('stop', 'devices', 'sync', 'memory', 'resume'))
    return (f'pause median {info["pause-median"] / 1e3:.2f} ms, '
            f'p99 {info["pause-p99"] / 1e3:.2f}, '
            f'max {info["pause-max"] / 1e3:.2f} (the last: {parts}); '
            f'{epochs / took:.1f} epochs/s of '
            f'{(info["total-bytes"] - began["total-bytes"]) / epochs / 1e6:.2f}'
            f' MB; guest speed {100 * held / plain:.1f} %, '
            f'writes {held_writes:.0f}/s of {writes:.0f}/s; '
            f'primary {cpu:.2f} CPUs')
