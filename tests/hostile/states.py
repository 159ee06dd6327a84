# Streams of guests that this one cannot be: other run states, other clocks.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run states a stream may name, and guests that count instructions."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Callable

import records as r
from ferry.errors import FerryError
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.drain import Drain

LIMIT = 15.0            # s
MEMORY = 16             # MiB
STATE = b'globalstate'
NAME_AT, NAME_SIZE = 4, 32
SUSPENDED_AT = NAME_AT + NAME_SIZE + 1

# All of QEMU's, and what is none.
NAMES = ('debug', 'inmigrate', 'internal-error', 'io-error', 'paused',
         'postmigrate', 'prelaunch', 'finish-migrate', 'restore-vm',
         'running', 'save-vm', 'shutdown', 'suspended', 'watchdog',
         'guest-panicked', 'colo', '', 'of-no-use', 'x' * NAME_SIZE)

ICOUNT = ('-icount', 'shift=auto', '-rtc', 'clock=vm')


class Lab:
    """QEMUs for streams of other states."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    @functools.cached_property
    def stream(self) -> list[r.Record]:
        """That of a guest like any other."""
        return self.record()

    def vm(self, *args: str, incoming: bool = False) -> VM:
        """A new QEMU, not started."""
        self.count += 1
        return VM('ferry', f'state-{self.count}', self.folder, MEMORY,
                  paused=not incoming, serial=False, accelerator='tcg',
                  incoming='defer' if incoming else None, args=args)

    def record(self, *args: str) -> list[r.Record]:
        """The stream of a guest that never ran."""
        with self.vm(*args) as vm:
            return r.but_greeting(r.parse(self.drained(vm)))

    def drained(self, vm: VM) -> bytes:
        """What VM sends to nobody."""
        with Drain(self.folder / f'{vm.name}-drain') as drain:
            vm.qmp.cmd('migrate', {'uri': drain.uri})
            said(vm, 'completed')
            return drain.wait(r.whole, LIMIT)

    def load(self, vm: VM, stream: list[r.Record]) -> dict:
        """What comes of STREAM in VM."""
        path = self.folder / f'{vm.name}-stream'
        path.write_bytes(r.join(stream))
        vm.qmp.cmd('migrate-incoming', {'uri': f'file:{path}',
                                        'exit-on-error': False})
        return said(vm, 'completed', 'failed')


def said(vm: VM, *ends: str) -> dict:
    """Wait until the migration has one of the statuses ENDS."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        vm.check_alive()
        state = vm.qmp.cmd('query-migrate')
        if state.get('status') in ends:
            return state
        time.sleep(0.005)
    raise FerryError(f'the migration did not end: {state}')


def with_state(stream: list[r.Record], name: str, suspended: bool
               ) -> list[r.Record]:
    """STREAM of a guest that was in that state."""
    def change(rec: r.Record) -> r.Record:
        if rec.type != r.FULL or rec.name != STATE:
            return rec
        body = bytearray(rec.body)
        body[NAME_AT:NAME_AT + NAME_SIZE] = \
            name.encode().ljust(NAME_SIZE, b'\0')
        body[SUSPENDED_AT] = suspended
        return rec.but(body=bytes(body))
    return [change(rec) for rec in stream]


def go_on(vm: VM) -> None:
    """Whatever state it is in, it can be told to go on, and answers."""
    for command in ('query-status', 'cont', 'stop', 'cont', 'system_reset',
                    'cont', 'query-status'):
        try:
            vm.qmp.cmd(command)
        except QMPError as err:
            if err.cls != 'GenericError':
                time.sleep(0.2)
                vm.check_alive()
                raise
    vm.check_alive()


def check_state(lab: Lab, stream: list[r.Record], name: str,
                suspended: bool) -> None:
    """A guest that was in the state NAME, says the stream."""
    with lab.vm(incoming=True) as vm:
        end = lab.load(vm, with_state(stream, name, suspended))['status']
        if (end == 'failed') != (name in ('', *NAMES[-2:])):
            raise FerryError(f'the load {end}')
        go_on(vm)


def check_sleeper(lab: Lab, stream: list[r.Record]) -> None:
    """A guest that sleeps is migrated, and goes on where it was."""
    with lab.vm(incoming=True) as vm:
        lab.load(vm, with_state(stream, 'suspended', True))
        status = vm.qmp.cmd('query-status')['status']
        if status != 'suspended':
            raise FerryError(f'it is {status}')
        lab.drained(vm)
        vm.qmp.cmd('cont')
        vm.check_alive()
        status = vm.qmp.cmd('query-status')['status']
        if status != 'suspended':
            raise FerryError(f'afterwards it is {status}')


def check_icount_stream(lab: Lab) -> None:
    """A guest that counts instructions comes to one that does not."""
    with lab.vm(incoming=True) as vm:
        state = lab.load(vm, lab.record(*ICOUNT))
        if state['status'] != 'failed':
            raise FerryError(f'it is accepted: {state}')
        if '-icount' not in vm.log_path.read_text(errors='replace'
                                                  ).partition('\n')[2]:
            raise FerryError('nothing is said of -icount')
        vm.check_alive()


def check_icount_snapshot(lab: Lab) -> None:
    """A snapshot of a guest that counts instructions."""
    image = lab.folder / 'icount.qcow2'
    make_image(lab, image)
    disk = ('-blockdev', f'driver=qcow2,node-name=d0,file.driver=file,'
            f'file.filename={image}', '-device', 'virtio-blk-pci,drive=d0')
    with lab.vm(*ICOUNT, *disk) as vm:
        hmp(vm, 'savevm s')
    with lab.vm(*disk) as vm:
        answer = hmp(vm, 'loadvm s')
        vm.check_alive()
        if '-icount' not in answer or 'Error' not in answer:
            raise FerryError(f'loadvm says {answer!r}')
    with lab.vm(*ICOUNT, *disk) as vm:
        answer = hmp(vm, 'loadvm s')
        if answer:
            raise FerryError(f'with -icount loadvm says {answer!r}')


def hmp(vm: VM, line: str) -> str:
    """What the human monitor says to LINE."""
    try:
        return vm.qmp.cmd('human-monitor-command',
                          {'command-line': line}).strip()
    except QMPError:
        time.sleep(0.2)
        vm.check_alive()
        raise


def make_image(lab: Lab, image: Path) -> None:
    """A new qcow2 image, made by QEMU."""
    with lab.vm() as vm:
        job(vm, {'driver': 'file', 'filename': str(image), 'size': 0})
        vm.qmp.cmd('blockdev-add', {'driver': 'file', 'node-name': 'f',
                                    'filename': str(image)})
        job(vm, {'driver': 'qcow2', 'file': 'f', 'size': 1 << 20})


def job(vm: VM, options: dict) -> None:
    """Create an image, or a layer of it."""
    vm.qmp.cmd('blockdev-create', {'job-id': 'job', 'options': options})
    deadline = time.monotonic() + LIMIT
    while vm.qmp.cmd('query-jobs')[0]['status'] != 'concluded':
        if time.monotonic() > deadline:
            raise FerryError('the image is not made')
        time.sleep(0.005)
    vm.qmp.cmd('job-dismiss', {'id': 'job'})


def tests() -> list[tuple[str, Callable[[Lab], None]]]:
    """Name and function of each test."""
    found: list[tuple[str, Callable[[Lab], None]]] = [
        ('icount/stream', check_icount_stream),
        ('icount/snapshot', check_icount_snapshot),
        ('state/sleeper', lambda lab: check_sleeper(lab, lab.stream))]
    for name in NAMES:
        for suspended in (False, True):
            found.append((
                f'state/{name or "(none)"}' + '-slept' * suspended,
                lambda lab, name=name, suspended=suspended:
                check_state(lab, lab.stream, name, suspended)))
    return found
