# What the tests of disks have in common: VMs with disks, and who locks them.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of disks have in common: VMs with disks, and their locks."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Callable

from ferry.errors import FerryError
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.suite import Lab

LIMIT = 40              # s for a test
MEMORY = 32             # MiB

# Where QEMU says in an image's file that it does not share writing: a lock on
# this byte keeps others from writing.
NOT_SHARED_WRITE = 201


class Lock:
    """Keeps every QEMU from opening the image at PATH for writing."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR)
        fcntl.lockf(self._fd, fcntl.LOCK_SH, 1, NOT_SHARED_WRITE)

    def release(self) -> None:
        """Whoever wants it can have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()


class Box(Lab):
    """A folder for images, sockets and VMs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def name(self, role: str) -> Path:
        """A path that is not in use."""
        self.count += 1
        return self.folder / f'{role}{self.count}'

    def raw(self, size: int = 1 << 20) -> Path:
        """A raw image, not allocated."""
        path = self.name('raw')
        with open(path, 'wb') as file:
            file.truncate(size)
        return path

    def vm(self, kind: str, disks: list[dict], incoming: bool = False,
           args: tuple[str, ...] = (), run: bool = False,
           defer: bool = True) -> VM:
        """A VM with DISKS, which are -blockdev; those named disk* are used."""
        line = []
        for disk in disks:
            line += ['-blockdev', json.dumps(disk)]
            if disk['node-name'].startswith('disk'):
                line += ['-device', 'virtio-blk-pci,id=dev-%s,drive=%s' %
                         (disk['node-name'], disk['node-name'])]
        self.count += 1
        return VM(kind, f'vm{self.count}', self.folder, MEMORY,
                  paused=not run, serial=False, accelerator='tcg',
                  incoming=('defer' if defer else self.uri())
                  if incoming else None, args=[*line, *args]).start()

    def uri(self) -> str:
        """Where a destination can listen."""
        return f'unix:{self.name("mig")}'


def image(path: Path, name: str, **more: object) -> dict:
    """A raw image as a node."""
    return {'driver': 'raw', 'node-name': name,
            'file': {'driver': 'file', 'filename': str(path)}, **more}


def null(name: str, size: int) -> dict:
    """A disk of zeros that costs nothing."""
    return {'driver': 'null-co', 'node-name': name, 'size': size,
            'read-zeroes': True}


def caps(*vms: VM, **on: bool) -> None:
    """Set capabilities; underscores are dashes."""
    for vm in vms:
        vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
            {'capability': name.replace('_', '-'), 'state': state}
            for name, state in on.items()]})


def params(vm: VM, **values: object) -> None:
    """Set parameters; underscores are dashes."""
    vm.qmp.cmd('migrate-set-parameters', {
        name.replace('_', '-'): value for name, value in values.items()})


def hmp(vm: VM, line: str) -> str:
    """What HMP answers."""
    return vm.qmp.cmd('human-monitor-command', {'command-line': line}).strip()


def state(vm: VM) -> str:
    """The run state."""
    return vm.qmp.cmd('query-status')['status']


def reason(vm: VM) -> str:
    """What query-migrate says is wrong."""
    return vm.qmp.cmd('query-migrate').get('error-desc', '')


def until(what: str, condition: Callable[[], bool], limit: float = 15) -> None:
    """Wait for CONDITION."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise FerryError(f'{what} did not come')
        time.sleep(0.01)


def status(vm: VM) -> str:
    """Of its migration."""
    vm.check_alive()
    return vm.qmp.cmd('query-migrate').get('status', 'none')


def wait(vm: VM, *wanted: str, limit: float = 15) -> str:
    """Wait until its migration has one of these statuses."""
    now = ''

    def there() -> bool:
        nonlocal now
        now = status(vm)
        return now in wanted

    try:
        until('', there, limit)
    except FerryError as err:
        raise FerryError(f'{vm.name} is {now} and not {" or ".join(wanted)}: '
                         f'{reason(vm)}') from err
    return now


def listen(box: Box, dst: VM) -> str:
    """Have DST wait for a source; return where."""
    uri = box.uri()
    # QEMU 10.0 ends if it fails, unless it is told not to.
    dst.qmp.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
    return uri


def migrate(box: Box, src: VM, dst: VM, end: str = 'completed') -> None:
    """One migration that ends like that on the source."""
    src.qmp.cmd('migrate', {'uri': listen(box, dst)})
    found = wait(src, 'completed', 'failed')
    if found != end:
        raise FerryError(f'the source says {found} and not {end}: '
                         f'{reason(src)}; {reason(dst)}')


def is_state(vm: VM, *wanted: str) -> None:
    """The run state is one of these."""
    try:
        until('', lambda: state(vm) in wanted, 5)
    except FerryError as err:
        raise FerryError(f'{vm.name} is {state(vm)} and not '
                         f'{" or ".join(wanted)}') from err


def expect(what: str, *parts: str) -> None:
    """All PARTS are in WHAT."""
    for part in parts:
        if part not in what:
            raise FerryError(f'{what!r} does not say {part!r}')


def refused(vm: VM, command: str, args: dict, *parts: str) -> None:
    """The command fails and says PARTS."""
    try:
        vm.qmp.cmd(command, args)
    except QMPError as err:
        expect(str(err), *parts)
        return
    raise FerryError(f'{command} was not refused')
