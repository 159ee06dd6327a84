# Sources and destinations that stay in a phase of a migration.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources and destinations that stay in a phase of a migration."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ferry.errors import FerryError
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest import suite
from ferrytest.drain import Drain
from ferrytest.gate import LONGEST, Gate

MEMORY = 32             # MiB
DISK = 1 << 20          # bytes
SLOW = 20000            # bytes/s: what there is to send lasts for a minute
LIMIT = 20.0            # s to get into a phase
# An attempt stays open until a test opens its gate; there is time for that, ms.
ATTEMPT_MS = 2 * LONGEST
TAIL = 20000            # bytes of a stream that are held back: devices

# What can be plugged, unplugged and changed
MACHINE = (
    '-m', f'size={MEMORY}M,slots=4,maxmem=1G',
    '-smp', '1,sockets=3,cores=1,threads=1,maxcpus=3',
    '-device', 'qemu64-x86_64-cpu,id=cpu1,socket-id=1,core-id=0,thread-id=0',
    '-object', 'memory-backend-ram,id=dimm0-mem,size=16M',
    '-device', 'pc-dimm,id=dimm0,memdev=dimm0-mem',
    '-object', 'memory-backend-ram,id=dimm1-mem,size=16M',
    '-object', 'memory-backend-ram,id=vmem-mem,size=16M',
    '-device', 'virtio-mem-pci,id=vmem,memdev=vmem-mem',
    '-netdev', 'hubport,id=hub,hubid=0',
    '-device', 'virtio-net-pci,id=nic,netdev=hub,romfile=',
    '-device', 'ide-cd,id=cd,bus=ide.2',
    '-device', 'bochs-display,vgamem=4M',
    '-device', 'virtio-balloon-pci',
    '-device', 'pcie-root-port,id=rp',
    '-device', 'virtio-rng-pci,id=rng,bus=rp')


class Lab(suite.Lab):
    """VMs with a disk in a folder, and what they are connected to."""

    def __init__(self, folder: Path, kind: str = 'ferry') -> None:
        self.folder = folder
        self.kind = kind
        self.count = 0
        self.image = folder / 'disk'
        self.recorded = b''
        self.guest: tuple[str, ...] = MACHINE
        self.snapshots = True       # a source has one
        self.told: dict[str, socket.socket] = {}
        self.stack = contextlib.ExitStack()
        self.make_image(self.image)

    def clear(self) -> None:
        """End all VMs and whom they were connected to."""
        self.stack.close()
        self.stack = contextlib.ExitStack()

    def name(self, what: str) -> str:
        """A name that was not used before."""
        self.count += 1
        return f'{what}{self.count}'

    def make_image(self, path: Path) -> None:
        """A new qcow2 image, made by QEMU."""
        with VM('ferry', self.name('i'), self.folder, 16, paused=True,
                serial=False, accelerator='qtest', machine='none') as vm:
            for options in (
                    {'driver': 'file', 'filename': str(path), 'size': 0},
                    {'driver': 'qcow2', 'file': 'f', 'size': DISK}):
                if options['driver'] == 'qcow2':
                    vm.qmp.cmd('blockdev-add', {
                        'driver': 'file', 'node-name': 'f',
                        'filename': str(path)})
                run_job(vm, 'blockdev-create', options=options)

    def vm(self, kind: str, args: tuple[str, ...] = ()) -> VM:
        """A guest whose firmware runs; the disk's node is called disk."""
        node = {'driver': 'qcow2', 'node-name': 'disk', 'file': {
            'driver': 'file', 'filename': str(self.image),
            'node-name': 'file', 'locking': 'off'}, 'backing': {
            'driver': 'null-co', 'node-name': 'base', 'size': DISK}}
        name = self.name(kind)
        # @ stands for a path of this VM's own.
        guest = [arg.replace('path=@', f'path={self.folder}/{name}-')
                 for arg in self.guest]
        vm = VM(self.kind, name, self.folder, MEMORY, serial=False,
                accelerator='tcg', args=[
                    '-blockdev', json.dumps(node),
                    '-device', 'virtio-blk-pci,drive=disk,id=vd',
                    *guest, *args])
        self.stack.push(vm)
        return vm.start()

    def idle(self) -> tuple[str, ...]:
        """Options for a guest that has filled memory, and uses it no more."""
        import told     # which imports this

        rom = self.folder / 'idle.bin'
        rom.write_bytes(told.firmware())
        return ('-bios', str(rom))

    def source(self, *args: str) -> VM:
        """It runs, and has a snapshot if its disks can have one."""
        vm = self.vm('s', args)
        if self.snapshots:
            hmp(vm, 'savevm old')
        return vm

    def destination(self, *args: str) -> VM:
        """It waits for migrate-incoming."""
        return self.vm('d', ('-incoming', 'defer', *args))

    def drain(self, **args: object) -> Drain:
        """One that takes a stream."""
        return self.stack.enter_context(
            Drain(self.folder / self.name('p'), **args))

    def uri(self) -> str:
        """Of a socket that nobody uses yet."""
        return f'unix:{self.folder}/{self.name("m")}'

    def silent(self) -> str:
        """A socket that takes connections and says nothing."""
        uri = self.uri()
        sock = self.stack.enter_context(
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.bind(uri.removeprefix('unix:'))
        sock.listen(4)
        return uri


def run_job(vm: VM, command: str, **args: object) -> None:
    """Run a job to its end; its error is ours."""
    vm.qmp.cmd(command, {'job-id': 'job', **args})
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        state = [j for j in vm.qmp.cmd('query-jobs') if j['id'] == 'job']
        if not state:
            return
        if state[0]['status'] == 'concluded':
            vm.qmp.cmd('job-dismiss', {'id': 'job'})
            if 'error' in state[0]:
                raise QMPError('GenericError', state[0]['error'], command)
            return
        time.sleep(0.01)
    raise FerryError(f'{command} did not end')


def hmp(vm: VM, line: str) -> None:
    """An HMP command; what it says is its error."""
    said = vm.qmp.cmd('human-monitor-command', {'command-line': line}).strip()
    if said:
        raise QMPError('GenericError', said.removeprefix('Error: '), line)


def hmp_quiet(vm: VM, line: str) -> None:
    """An HMP command that has something to say."""
    vm.qmp.cmd('human-monitor-command', {'command-line': line})


def status(vm: VM) -> str:
    """Of its migration."""
    return vm.qmp.cmd('query-migrate').get('status', 'none')


def run_state(vm: VM) -> str:
    """Of its guest."""
    return vm.qmp.cmd('query-status')['status']


def until(vm: VM, *wanted: str, limit: float = LIMIT) -> str:
    """Wait for one of these phases; returns which it is."""
    end = time.monotonic() + limit
    while True:
        now = status(vm)
        if now in wanted:
            return now
        if time.monotonic() > end:
            raise FerryError(f'{vm.name} is {now}, not {" or ".join(wanted)}: '
                             f'{vm.qmp.cmd("query-migrate")}')
        time.sleep(0.01)


def set_caps(vm: VM, *names: str) -> None:
    """Turn them on."""
    vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
        {'capability': name, 'state': True} for name in names]})


def set_params(vm: VM, **params: object) -> None:
    """With _ for -."""
    vm.qmp.cmd('migrate-set-parameters',
               {name.replace('_', '-'): value
                for name, value in params.items()})


def start(vm: VM, uri: str, **more: object) -> None:
    """Begin to migrate."""
    vm.qmp.cmd('migrate', {'uri': uri, **more})


@dataclass
class Scene:
    """A VM in a phase, and the other side if that is a VM as well."""
    vm: VM
    other: VM | None = None

    def close(self) -> None:
        """End both."""
        for vm in (self.vm, self.other):
            if vm is not None:
                vm.stop()


def leaving(lab: Lab, phase: str, uri: str = '', caps: tuple[str, ...] = (),
            args: tuple[str, ...] = (), **params: object) -> Scene:
    """A source that has got into a phase on its way to who takes all."""
    vm = lab.source(*args)
    set_caps(vm, *caps)
    set_params(vm, **params)
    start(vm, uri or lab.drain().uri)
    until(vm, phase)
    return Scene(vm)


def src_setup(lab: Lab) -> Scene:
    """A TLS handshake that nobody answers."""
    return leaving(lab, 'setup', lab.silent(), tls_creds='tls', args=(
        '-object', 'tls-creds-anon,id=tls,endpoint=client'))


def src_active(lab: Lab) -> Scene:
    """Memory is sent slowly."""
    return leaving(lab, 'active', max_bandwidth=SLOW)


def src_pre_switchover(lab: Lab) -> Scene:
    """It waits for migrate-continue."""
    return leaving(lab, 'pre-switchover', caps=('pause-before-switchover',))


def src_device(lab: Lab) -> Scene:
    """All is sent, and nobody says what became of it."""
    scene = leaving(lab, 'device', caps=('return-path',))
    # The BQL is held until the end has been sent.
    time.sleep(0.1)
    return scene


def attempt(lab: Lab, **params: object) -> tuple[VM, VM, Gate]:
    """Source and destination in an attempt, which waits at a gate.

    Devices have been saved, and memory would be sent.
    """
    gate = Gate(lab.folder, 'ram')
    src = lab.source(*gate.args)
    lab.stack.callback(gate.open)
    set_caps(src, 'return-path', 'strict-downtime', 'events')
    set_params(src, downtime_limit=ATTEMPT_MS, **params)
    return src, attempt_again(lab, src, gate), gate


def attempt_again(lab: Lab, src: VM, gate: Gate) -> VM:
    """The same source, and another destination."""
    dst = lab.destination()
    set_caps(dst, 'return-path', 'strict-downtime', 'events')
    uri = lab.uri()
    dst.qmp.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
    start(src, uri)
    gate.wait()
    return dst


def src_attempt(lab: Lab) -> Scene:
    """strict-downtime: the guest is stopped and can still be resumed."""
    src, dst, _ = attempt(lab)
    return Scene(src, dst)


def postcopy(lab: Lab) -> tuple[VM, VM]:
    """Source and destination in postcopy, which lasts."""
    src, dst = lab.source(), lab.destination()
    for vm in (src, dst):
        set_caps(vm, 'postcopy-ram')
    set_params(src, max_bandwidth=SLOW, max_postcopy_bandwidth=SLOW)
    uri = lab.uri()
    dst.qmp.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
    start(src, uri)
    until(src, 'active')
    time.sleep(0.2)
    src.qmp.cmd('migrate-start-postcopy')
    until(src, 'postcopy-active')
    until(dst, 'postcopy-active')
    return src, dst


def paused(lab: Lab) -> tuple[VM, VM]:
    """The same with a connection that was cut.

    A vCPU that waits for memory in the middle of an instruction that is emulated
    under the big lock keeps the destination from answering until it recovers.
    So the guest, if a test has no other one, leaves its memory alone.
    """
    before = lab.guest
    if '-bios' not in before:
        lab.guest = (*before, *lab.idle())
    try:
        src, dst = postcopy(lab)
    finally:
        lab.guest = before
    time.sleep(0.2)
    src.qmp.cmd('migrate-pause')
    until(src, 'postcopy-paused')
    until(dst, 'postcopy-paused')
    return src, dst


def src_postcopy_active(lab: Lab) -> Scene:
    """Memory follows slowly."""
    return Scene(*postcopy(lab))


def src_postcopy_paused(lab: Lab) -> Scene:
    """After migrate-pause."""
    return Scene(*paused(lab))


def src_postcopy_recover(lab: Lab) -> Scene:
    """A new connection on which nobody answers."""
    src, dst = paused(lab)
    start(src, lab.drain().uri, resume=True)
    until(src, 'postcopy-recover')
    return Scene(src, dst)


def src_completed(lab: Lab) -> Scene:
    """The guest was migrated away."""
    return leaving(lab, 'completed')


def src_failed(lab: Lab) -> Scene:
    """The destination hung up."""
    return leaving(lab, 'failed', lab.drain(hang_up=True).uri,
                   max_bandwidth=SLOW)


def src_cancelled(lab: Lab) -> Scene:
    """After migrate_cancel."""
    scene = src_active(lab)
    scene.vm.qmp.cmd('migrate_cancel')
    until(scene.vm, 'cancelled')
    return scene


def dst_none(lab: Lab) -> Scene:
    """-incoming defer"""
    return Scene(lab.destination())


def incoming(lab: Lab) -> tuple[VM, str]:
    """A destination that listens, and where."""
    vm = lab.destination()
    uri = lab.uri()
    vm.qmp.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
    return vm, uri


def dst_setup(lab: Lab) -> Scene:
    """It listens."""
    return Scene(incoming(lab)[0])


def stream(lab: Lab) -> bytes:
    """What a migration of the guest sends."""
    if not lab.recorded:
        vm, drain = lab.source(), lab.drain()
        start(vm, drain.uri)
        until(vm, 'completed')
        vm.stop()
        lab.recorded = drain.wait(lambda data: data.endswith(b'}'), 5)
    return lab.recorded


def send(lab: Lab, uri: str, data: bytes) -> socket.socket:
    """Be a source that has sent DATA, and goes on whenever it wants."""
    sock = lab.stack.enter_context(
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    sock.connect(uri.removeprefix('unix:'))
    sock.sendall(data)
    return sock


def loading(lab: Lab) -> tuple[VM, socket.socket]:
    """Memory and some devices are loaded; and who sends the rest."""
    data = stream(lab)
    vm, uri = incoming(lab)
    sock = send(lab, uri, data[:-TAIL])
    until(vm, 'active')
    time.sleep(0.2)
    return vm, sock


def dst_active(lab: Lab) -> Scene:
    """Half of the devices have not come yet."""
    return Scene(loading(lab)[0])


def dst_held(lab: Lab) -> Scene:
    """strict-downtime: HOLD has come and no COMMIT."""
    src, dst, _ = attempt(lab)
    return Scene(dst, src)


def dst_failed(lab: Lab) -> Scene:
    """What came was no migration."""
    vm, uri = incoming(lab)
    send(lab, uri, b'no migration').close()
    until(vm, 'failed')
    return Scene(vm)


def dst_postcopy_active(lab: Lab) -> Scene:
    """The guest runs, and memory follows slowly."""
    src, dst = postcopy(lab)
    return Scene(dst, src)


def dst_postcopy_paused(lab: Lab) -> Scene:
    """The guest runs as far as its memory goes."""
    src, dst = paused(lab)
    return Scene(dst, src)


PHASES: dict[str, dict[str, Callable[[Lab], Scene]]] = {
    'source': {
        'setup': src_setup, 'active': src_active,
        'pre-switchover': src_pre_switchover, 'attempt': src_attempt,
        'device': src_device, 'postcopy-active': src_postcopy_active,
        'postcopy-paused': src_postcopy_paused,
        'postcopy-recover': src_postcopy_recover,
        'completed': src_completed, 'failed': src_failed,
        'cancelled': src_cancelled},
    'destination': {
        'none': dst_none, 'setup': dst_setup, 'active': dst_active,
        'held': dst_held, 'failed': dst_failed,
        'postcopy-active': dst_postcopy_active,
        'postcopy-paused': dst_postcopy_paused}}
