# The guest of the libvirt test: how it is made, and what it says.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest of the libvirt test: how it is made, and what it says.

It runs one static program (tick.c) on a Linux kernel.  Its serial port goes to
one file that the QEMUs of both hosts append to, so the file holds everything
the guest ever said, in order, wherever it was at the time.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import time
from pathlib import Path

import hosts
from ferry import cpio, paths
from ferry.errors import FerryError, one_line
from ferry.guest import NO_TIMER_CHECK

NAME = 'ferry-test'
MEMORY_MIB = 192
FILL_MIB = 48                   # data that does not compress
HOT_MIB = 16                    # of it, what the guest writes to ...
RATE = 160                      # ... this many pages per tick of 50 ms
SWEEP = 8                       # ticks in which it looks at all of it
DISK_MIB = 16

SERIAL = hosts.WORK / 'serial.log'
KERNEL = hosts.WORK / 'vmlinuz'
INITRD = hosts.WORK / 'initrd.img'
VERBS = hosts.WORK / 'libfake-verbs.so'

BOOT_LIMIT = 60
TICK_LIMIT = 20                 # seconds for a few more ticks

# Nothing but a panic may come between the ticks.
CMDLINE = (f'console=ttyS0 loglevel=1 panic=-1 {NO_TIMER_CHECK} '
           f'fill={FILL_MIB} hot={HOT_MIB} rate={RATE}')

XML = '''\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>cccccccc-3333-4333-8333-333333333333</uuid>
  <memory unit='MiB'>{memory}</memory>
  {limit}
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>{emulator}</emulator>
    {disk}
    <serial type='file'>
      <source path='{serial}' append='on'/>
      <target port='0'/>
    </serial>
    <memballoon model='none'/>
  </devices>
  {preload}
</domain>
'''

DISK_XML = '''\
<disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{path}'/>
      <target dev='vda' bus='virtio'/>
    </disk>'''


# libvirt migrates over RDMA only what has a limit, which it lets QEMU lock.
LIMIT_XML = "<memtune><hard_limit unit='bytes'>{}</hard_limit></memtune>"
PRELOAD_XML = '''\
<qemu:commandline>
    <qemu:env name='LD_PRELOAD' value='{path}'/>
  </qemu:commandline>'''


class GuestError(FerryError):
    """The guest is not as it should be."""


def _compile(source: Path, target: Path, *flags: str) -> None:
    built = subprocess.run(
        ['cc', '-O2', '-Wall', '-Werror', *flags, '-o', str(target),
         str(source)],
        capture_output=True, text=True, timeout=60, check=False)
    if built.returncode != 0:
        raise FerryError(f'cannot build {source.name}: '
                         f'{one_line(built.stderr)}')


def prepare(kernel: Path) -> None:
    """Put the kernel and the initrd where the domain's XML expects them."""
    shutil.copy(kernel, KERNEL)
    program = hosts.WORK / 'tick'
    _compile(hosts.HERE / 'tick.c', program, '-std=gnu11', '-static')
    _compile(paths.ROOT / 'tests/unit/migration/fake-verbs.c', VERBS,
             '-D_GNU_SOURCE', '-shared', '-fPIC', '-pthread')
    INITRD.write_bytes(cpio.initramfs({'init': program}))


def disk_path(host: hosts.Host) -> Path:
    """Where HOST keeps the guest's disk, as seen from outside the host."""
    return host.dir / 'var/lib/ferry-test.img'


def _lockable() -> int:
    """What the guest's QEMU may lock: root in a container cannot allow more.

    A device that does not exist locks nothing.
    """
    most = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    enough = 4 * MEMORY_MIB << 20
    return enough if most == resource.RLIM_INFINITY else min(most, enough)


def write_xml(pair: str, disk: bool, rdma: str = '') -> Path:
    """Write the domain's description; PAIR says which QEMUs run it.

    RDMA: '', 'allowed', or 'fake' with a device that does not exist.
    """
    device = DISK_XML.format(path='/var/lib/ferry-test.img') if disk else ''
    path = hosts.WORK / 'domain.xml'
    path.write_text(XML.format(
        name=NAME, memory=MEMORY_MIB, kernel=KERNEL, initrd=INITRD,
        cmdline=CMDLINE, emulator=hosts.emulator(pair), disk=device,
        serial=SERIAL,
        limit=LIMIT_XML.format(_lockable()) if rdma else '',
        preload=PRELOAD_XML.format(path=VERBS) if rdma == 'fake' else ''))
    return path




def count_ticks(log: str) -> int:
    """The number of ticks in LOG, what a guest has said so far.

    Raises GuestError if a tick is missing, repeated or reports bad memory.
    """
    count = 0
    # The last line may be incomplete; every other one has to be whole.
    for line in log.split('\n')[:-1]:
        line = line.strip()
        match = re.fullmatch(r'tick (\d+) bad (\d+)', line)
        if not match:
            # The firmware talks first; after that nobody else should.
            if count or 'Kernel panic' in line or 'tick program' in line:
                raise GuestError(f'after {count} ticks the guest said: '
                                 f'{one_line(line, 120)}')
            continue
        number, bad = int(match[1]), int(match[2])
        if number != count:
            raise GuestError(f'tick {number} came where tick {count} was due')
        if bad:
            raise GuestError(f'{bad} pages of guest memory are wrong at '
                             f'tick {number}')
        count += 1
    return count


def ticks() -> int:
    """How often the guest has ticked; GuestError as for count_ticks()."""
    return count_ticks(SERIAL.read_bytes().decode(errors='replace'))


def wait_ticks(more: int, limit: float = TICK_LIMIT) -> int:
    """Wait for MORE ticks than now, without a fault; how many there are."""
    goal = ticks() + more
    deadline = time.monotonic() + limit
    while True:
        count = ticks()
        if count >= goal:
            return count
        if time.monotonic() > deadline:
            raise GuestError(f'the guest stopped: no tick {goal - 1} within '
                             f'{limit:.0f} s, the last is {count - 1}')
        time.sleep(0.05)
