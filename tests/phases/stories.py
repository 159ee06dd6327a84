# What was requested in a phase still holds after it.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What was requested in a phase still holds after it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import actions
import events as guest
import lab as phases
import table
import told
from ferry.errors import FerryError
from ferry.qmp import QMP, QMPError
from ferry.vm import VM
from lab import Lab, run_state, set_caps, start, until

SHUT_FAILED = bytes((0, 1, 0, 4, 0, 0, 0, 1))


def check(good: bool, what: str) -> None:
    """Fail unless GOOD."""
    if not good:
        raise FerryError(what)


def is_state(vm: VM, wanted: str, limit: float = 5.0) -> None:
    """The guest is, or soon becomes, WANTED."""
    end = time.monotonic() + limit
    while run_state(vm) != wanted:
        check(time.monotonic() < end,
              f'the guest of {vm.name} is {run_state(vm)}, not {wanted}')
        time.sleep(0.01)


def events(vm: VM, name: str) -> int:
    """How many of them have come since the last call."""
    return sum(event['event'] == name for event in vm.qmp.events())


def cancelled(vm: VM) -> None:
    """Cancel, and wait for that."""
    vm.qmp.cmd('migrate_cancel')
    until(vm, 'cancelled')


def stop_then_cancel(lab: Lab) -> None:
    """pre-switchover, stop, cancel: the guest stays stopped."""
    vm = phases.src_pre_switchover(lab).vm
    vm.qmp.cmd('stop')
    cancelled(vm)
    time.sleep(0.1)
    is_state(vm, 'paused')
    vm.qmp.cmd('cont')
    is_state(vm, 'running')


def only_cancel(lab: Lab) -> None:
    """pre-switchover, cancel: the guest runs again."""
    vm = phases.src_pre_switchover(lab).vm
    cancelled(vm)
    is_state(vm, 'running')


def pair(lab: Lab, *caps: str) -> tuple[VM, VM]:
    """A source, and a destination that it is about to migrate to."""
    src, dst = lab.source(), lab.destination()
    for vm in (src, dst):
        set_caps(vm, *caps)
    uri = lab.uri()
    dst.qmp.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
    start(src, uri)
    return src, dst


def stop_then_continue(lab: Lab) -> None:
    """pre-switchover, stop, continue: the destination does not start it."""
    src, dst = pair(lab, 'pause-before-switchover')
    until(src, 'pre-switchover')
    src.qmp.cmd('stop')
    src.qmp.cmd('migrate-continue', {'state': 'pre-switchover'})
    until(src, 'completed')
    until(dst, 'completed')
    is_state(dst, 'paused')


def stop_in_attempt(lab: Lab) -> None:
    """A strict attempt, stop: another attempt, the guest arrives stopped."""
    src, dst, gate = phases.attempt(lab)
    src.qmp.cmd('stop')
    gate.open()
    until(src, 'completed')
    until(dst, 'completed')
    is_state(dst, 'paused')


def refused_at_last(lab: Lab, stop: bool = False) -> None:
    """device, and the destination could not take it: the guest runs again."""
    stopped = threading.Event()
    drain = lab.drain(farewell=SHUT_FAILED, over=lambda _: stopped.is_set())
    vm = lab.source()
    set_caps(vm, 'return-path')
    start(vm, drain.uri)
    until(vm, 'device')
    if stop:
        vm.qmp.cmd('stop')
    stopped.set()
    until(vm, 'failed')
    is_state(vm, 'paused' if stop else 'running')


def stop_then_failure(lab: Lab) -> None:
    """The same after a stop: it stays stopped."""
    refused_at_last(lab, True)


def cut_in_postcopy(lab: Lab) -> None:
    """A destination that ends before it has all of the package."""
    src, dst = lab.source(), lab.destination()
    for vm in (src, dst):
        set_caps(vm, 'postcopy-ram', 'pause-before-switchover')
    uri = lab.uri()
    dst.qmp.cmd('migrate-incoming', {'uri': uri})
    phases.set_params(src, max_bandwidth=phases.SLOW)
    start(src, uri)
    until(src, 'active')
    src.qmp.cmd('migrate-start-postcopy')
    until(src, 'pre-switchover')
    dst.kill()
    until(src, 'failed')
    is_state(src, 'running')


def given_up(src: VM) -> None:
    """Wait until an attempt has been."""
    src.qmp.wait_event('MIGRATION_SWITCHOVER_ABORTED', phases.LIMIT)


def reset_in_attempt(lab: Lab, command: str = 'system_reset',
                     event: str = 'RESET') -> None:
    """A strict attempt, and a command that changes the machine."""
    src, dst, gate = phases.attempt(lab)
    src.qmp.cmd(command)
    gate.open()
    given_up(src)
    src.qmp.wait_event(event, phases.LIMIT)
    until(src, 'completed')
    until(dst, 'completed')
    is_state(dst, 'running')


def balloon_in_attempt(lab: Lab) -> None:
    """The same with a new target of the balloon, which arrives."""
    src, dst, gate = phases.attempt(lab)
    src.qmp.cmd('balloon', {'value': 30 << 20})
    gate.open()
    given_up(src)
    until(src, 'completed')
    until(dst, 'completed')
    is_state(dst, 'running')


def changes_in_attempts(lab: Lab) -> None:
    """Each command that ends an attempt does, and is carried out."""
    rows = [row.name for row in table.ROWS
            if row.cell('source', 'attempt') is table.ABORTS]
    src, dst, gate = phases.attempt(
        lab, strict_downtime_attempts=10 * len(rows))
    for name in rows:
        gate.wait()
        is_state(src, 'finish-migrate')
        events(src, '')
        said = actions.answer(src, name)
        check(not said, f'{name}: {said}')
        is_state(src, 'running')        # until the next attempt
        if name not in ('eject', 'virtio-mem, requested-size'):
            actions.undo(src, name)
        gate.let_by()
        try:
            given_up(src)
        except QMPError:
            raise FerryError(f'{name} does not end an attempt') from None
    gate.open()
    until(src, 'completed')
    until(dst, 'completed')
    is_state(dst, 'running')
    wanted = dst.qmp.cmd('qom-get', {'path': '/machine/peripheral/vmem',
                                     'property': 'requested-size'})
    check(wanted == 4 << 20, f'requested-size is {wanted}')
    tray = next(d for d in dst.qmp.cmd('query-block')
                if d.get('qdev') == 'cd')
    check(tray['tray_open'], 'the tray is open')


def incoming_again(lab: Lab) -> None:
    """A failed load into CPUs that cannot be reset is not tried again."""
    vm = lab.destination('-global', 'migration.x-fault-cpus-stay=on')
    uri = lab.uri()
    listen = {'uri': uri, 'exit-on-error': False}
    vm.qmp.cmd('migrate-incoming', listen)
    machine = vm.qmp.cmd('qom-get', {'path': '/machine', 'property': 'type'})
    name = machine.removesuffix('-machine').encode()
    # It fits so far, and devices are prepared; then comes no record.
    phases.send(lab, uri, struct.pack('>IIBI', 0x5145564d, 3, 7, len(name))
                + name + b'no migration').close()
    until(vm, 'failed')
    error = vm.qmp.cmd('query-migrate')['error-desc']
    try:
        vm.qmp.cmd('migrate-incoming', {**listen, 'uri': lab.uri()})
        raise FerryError('migrate-incoming is not refused')
    except QMPError as err:
        check('CPUs cannot be reset' in err.desc, err.desc)
    check(vm.qmp.cmd('query-migrate')['error-desc'] == error,
          'the reason of the failure is kept')
    vm.stop()
    vm = lab.source('-global', 'migration.x-fault-cpus-stay=on')
    try:
        phases.hmp(vm, 'loadvm old')
        raise FerryError('loadvm is not refused')
    except QMPError as err:
        check('CPUs cannot be reset' in err.desc, err.desc)
    is_state(vm, 'running')


def images_of_a_guest_that_left(lab: Lab) -> None:
    """An export does not make a disk active that is in use over there."""
    vm = phases.src_postcopy_active(lab).vm
    try:
        actions.export(vm)
        raise FerryError('block-export-add is not refused')
    except QMPError:
        pass
    node = next(n for n in vm.qmp.cmd('query-named-block-nodes')
                if n['node-name'] == 'disk')
    check(not node['active'], 'the disk is not active')


# What has nothing to do with the guest, its machine or a migration of it, or
# is another way to what a row of the table is about
OTHERS = {
    'of the monitor, QMP itself and descriptors': (
        'add-fd', 'add_client', 'closefd', 'getfd', 'human-monitor-command',
        'qmp_capabilities', 'remove-fd', 'trace-event-get-state',
        'trace-event-set-state', 'device-list-properties', 'qom-get',
        'qom-list', 'qom-list-properties', 'qom-list-types', 'ringbuf-read',
        'ringbuf-write', 'request-ebpf'),
    'of displays and what is typed there; a stopped guest hears nothing': (
        'change-vnc-password', 'client_migrate_info', 'display-reload',
        'display-update', 'expire_password', 'input-send-event',
        'set_password'),
    'refused while a migration runs, see tests/interop/automatic.py': (
        'migrate-estimate',),
    'refused but for checkpoints, see tests/checkpoint/epochs': (
        'checkpoint-failover',),
    'of an own device of the host, as outside': (
        'chardev-change', 'chardev-send-break', 'add_client'),
    'of a job or bitmap, which there is where it can be started': (
        'block-dirty-bitmap-clear', 'block-dirty-bitmap-disable',
        'block-dirty-bitmap-enable', 'block-dirty-bitmap-merge',
        'block-dirty-bitmap-remove', 'block-job-cancel', 'block-job-change',
        'block-job-complete', 'block-job-dismiss', 'block-job-finalize',
        'block-job-pause', 'block-job-resume', 'block-job-set-speed',
        'job-cancel', 'job-complete', 'job-dismiss', 'job-finalize',
        'x-debug-block-dirty-bitmap-sha256'),
    'as another one of the table, by the same code': (
        'blockdev-snapshot', 'blockdev-snapshot-delete-internal-sync',
        'blockdev-change-medium', 'blockdev-close-tray',
        'blockdev-remove-medium', 'drive-backup', 'drive-mirror',
        'block-export-del', 'nbd-server-add', 'nbd-server-remove',
        'nbd-server-stop', 'cancel-vcpu-dirty-limit', 'set-vcpu-dirty-limit'),
    'of images and their host: nothing of the guest changes': (
        'blockdev-create', 'change-backing-file', 'block-set-write-threshold',
        'block-latency-histogram-set', 'x-blockdev-amend',
        'x-blockdev-change', 'x-blockdev-set-iothread',
        'x-debug-query-block-graph'),
    'of what cannot be migrated, is not in this build or ends before': (
        'cxl-add-dynamic-capacity', 'cxl-inject-correctable-error',
        'cxl-inject-dram-event', 'cxl-inject-general-media-event',
        'cxl-inject-memory-module-event', 'cxl-inject-poison',
        'cxl-inject-uncorrectable-errors', 'cxl-release-dynamic-capacity',
        'replay-break', 'replay-delete-break', 'replay-seek',
        'sev-inject-launch-secret', 'set-numa-node', 'x-exit-preconfig',
        'xen-event-inject', 'xen-event-list', 'xen-load-devices-state',
        'xen-save-devices-state', 'xen-set-global-dirty-log',
        'xen-set-replication', 'xen-colo-do-checkpoint',
        'x-colo-lost-heartbeat', 'query-xen-replication-status',
        'dumpdtb'),
}


def all_commands(lab: Lab) -> None:
    """Every command of QMP is in the table, or above."""
    said = ' '.join(row.name for row in table.ROWS).replace(',', ' ').split()
    known = {*said, 'qom-set', *(name for names in OTHERS.values()
                                 for name in names)}
    vm = lab.destination()
    missing = [c['name'] for c in vm.qmp.cmd('query-commands')
               if c['name'] not in known
               and not c['name'].startswith(('query-', 'x-query-'))]
    check(not missing, f'not in the table: {", ".join(sorted(missing))}')


def cancel_attempt(lab: Lab) -> None:
    """A strict attempt, cancel: the guest runs again."""
    src, _, gate = phases.attempt(lab)
    src.qmp.cmd('migrate_cancel')
    gate.open()
    until(src, 'cancelled')
    is_state(src, 'running')


def strict_with_bitmaps(lab: Lab) -> None:
    """strict-downtime is refused only if there is a bitmap to be sent."""
    vm = lab.source()
    set_caps(vm, 'return-path', 'strict-downtime', 'dirty-bitmaps')
    phases.set_params(vm, max_bandwidth=phases.SLOW)
    start(vm, lab.drain().uri)
    until(vm, 'active')
    cancelled(vm)
    vm.qmp.cmd('block-dirty-bitmap-add', {'node': 'disk', 'name': 'bitmap'})
    try:
        start(vm, lab.drain().uri)
        raise FerryError('with a bitmap it is not refused')
    except QMPError as err:
        check('strict-downtime' in err.desc, err.desc)
    phases.hmp(vm, 'savevm new')


def powerdown_in_attempt(lab: Lab) -> None:
    """The same with system_powerdown."""
    reset_in_attempt(lab, 'system_powerdown', 'POWERDOWN')


def registers(vm: VM) -> str:
    """The line with the program counter."""
    text = vm.qmp.cmd('human-monitor-command',
                      {'command-line': 'info registers'})
    return next(line for line in text.splitlines() if 'IP=' in line)


def reset_while_loading(lab: Lab) -> None:
    """system_reset while a stream is loaded: refused, nothing is changed."""
    data = phases.stream(lab)
    vm, sock = phases.loading(lab)
    vm.qmp.cmd('stop')
    try:
        vm.qmp.cmd('system_reset')
        raise FerryError('system_reset is not refused')
    except QMPError:
        pass
    time.sleep(0.1)
    sock.sendall(data[-phases.TAIL:])
    until(vm, 'completed')
    is_state(vm, 'paused')
    check(not events(vm, 'RESET'), 'the machine was not reset')
    saved = registers(vm)
    vm.stop()
    vm, uri = phases.incoming(lab)
    vm.qmp.cmd('stop')
    phases.send(lab, uri, data)
    until(vm, 'completed')
    is_state(vm, 'paused')
    check(registers(vm) == saved, 'the state is the one that was sent')


def wanted_there(command: str, state: str) -> Callable[[Lab], None]:
    """stop or cont while the guest is loaded holds when it is started."""
    def run(lab: Lab) -> None:
        data = phases.stream(lab)
        vm, sock = phases.loading(lab)
        if command == 'cont':
            vm.qmp.cmd('stop')
        vm.qmp.cmd(command)
        sock.sendall(data[-phases.TAIL:])
        until(vm, 'completed')
        is_state(vm, state)
    return run


def cont_after_completion(lab: Lab) -> None:
    """The source of a completed migration takes the guest back."""
    vm = phases.src_completed(lab).vm
    is_state(vm, 'postmigrate')
    vm.qmp.cmd('cont')
    is_state(vm, 'running')


class Debugger:
    """Just enough of a debugger."""

    def __init__(self, lab: Lab, vm: VM) -> None:
        path = f'{lab.folder}/{lab.name("g")}'
        phases.hmp_quiet(vm, f'gdbserver unix:{path},server=on,wait=off')
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(2)
        self.sock.connect(path)

    def send(self, command: str) -> None:
        """Without waiting for what comes of it."""
        self.sock.sendall(b'+$%s#%02x' % (command.encode(),
                                          sum(command.encode()) % 256))
        time.sleep(0.2)


def debugger_continues(lab: Lab) -> None:
    """A debugger cannot start a guest that is about to leave."""
    vm = lab.source()
    set_caps(vm, 'pause-before-switchover')
    debugger = Debugger(lab, vm)
    vm.qmp.cmd('cont')
    start(vm, lab.drain().uri)
    until(vm, 'pre-switchover')
    debugger.send('c')
    check(run_state(vm) == 'finish-migrate', f'it is {run_state(vm)}')
    cancelled(vm)


def debugged(lab: Lab) -> None:
    """A guest at a breakpoint can be migrated, and that be cancelled."""
    vm = lab.source()
    set_caps(vm, 'pause-before-switchover')
    debugger = Debugger(lab, vm)
    debugger.send('s')
    is_state(vm, 'debug')
    start(vm, lab.drain().uri)
    until(vm, 'pre-switchover')
    cancelled(vm)
    is_state(vm, 'paused')


def again_at_once(lab: Lab) -> None:
    """In the moment of a failure or cancel another migration can begin."""
    vm = lab.source()
    set_caps(vm, 'events')
    hangs_up, slow = lab.drain(hang_up=True), lab.drain()
    phases.set_params(vm, max_bandwidth=phases.SLOW)
    for _ in range(10):
        for drain, end in ((hangs_up, 'failed'), (slow, 'cancelled')):
            set_caps(vm, 'return-path')
            start(vm, drain.uri)
            if end == 'cancelled':
                vm.qmp.cmd('migrate_cancel')
            while vm.qmp.wait_event('MIGRATION', 5)['data']['status'] != end:
                pass
            is_state(vm, 'running', 0)


# A firmware of its own: resets the machine, again and again.
# What takes the main loop seconds to show, and nobody reads
MUCH = 'xp /2000000xb 0x100000'


def pause_at_the_end(lab: Lab) -> None:
    """All has come, but nobody knows it yet: too late to pause.

    The destination's main loop, which has yet to say so, is busy meanwhile.
    """
    src, dst = phases.postcopy(lab)
    with QMP(dst.view_path, oob=True) as urgent, \
            ThreadPoolExecutor(1) as pool:
        showing = pool.submit(dst.qmp.cmd, 'human-monitor-command',
                              {'command-line': MUCH}, 60)
        time.sleep(0.1)
        phases.set_params(src, max_postcopy_bandwidth=0)
        while src.qmp.cmd('query-migrate')['ram']['remaining']:
            time.sleep(0.01)
        time.sleep(0.2)
        check(not showing.done(), 'the main loop is busy long enough')
        said = ''
        try:
            urgent.urgent('migrate-pause')
        except QMPError as err:
            said = err.desc
        showing.result()
    until(src, 'completed', 'postcopy-paused')
    until(dst, 'completed')
    until(src, 'completed', limit=1)
    check('only supported' in said, f'it is refused: {said}')
    is_state(dst, 'running')


RESETS = bytes((
    0xfa,                       # cli
    0xb0, 0xfe,                 # mov $0xfe, %al
    0xe6, 0x64,                 # out %al, $0x64: keyboard controller, reset
    0xf4,                       # hlt
    0xeb, 0xfd))                # jmp to the hlt


def guest_resets(lab: Lab) -> None:
    """A guest's reset is never lost on the way."""
    firmware = lab.folder / 'resets.bin'
    firmware.write_bytes(bytes(65536 - 16 - 256) + RESETS.ljust(256, b'\xf4')
                         + b'\xe9\xfd\xfe'.ljust(16, b'\xf4'))
    args = ('-bios', str(firmware))
    src = lab.vm('s', args)
    for _ in range(20):
        src.qmp.wait_event('RESET', 5)
        dst = lab.vm('d', ('-incoming', 'defer', *args))
        uri = lab.uri()
        dst.qmp.cmd('migrate-incoming', {'uri': uri})
        start(src, uri)
        until(src, 'completed')
        until(dst, 'completed')
        src.stop()
        dst.qmp.events()
        dst.qmp.wait_event('RESET', 5)
        src = dst


def quits(side: str, phase: str) -> Callable[[Lab], None]:
    """quit ends QEMU within 4 s, with success."""
    def run(lab: Lab) -> None:
        scene = phases.PHASES[side][phase](lab)
        scene.vm.qmp.cmd('quit')
        code = scene.vm.wait_end(4)
        check(code == 0, f'exit status {code}')
    return run


STORIES: dict[str, Callable[[Lab], None]] = {
    'stop, then cancel': stop_then_cancel,
    'cancel without stop': only_cancel,
    'stop, then continue': stop_then_continue,
    'stop in an attempt': stop_in_attempt,
    'refused at last': refused_at_last,
    'stop, then failure': stop_then_failure,
    'postcopy without a destination': cut_in_postcopy,
    'system_reset in an attempt': reset_in_attempt,
    'system_powerdown in an attempt': powerdown_in_attempt,
    'balloon in an attempt': balloon_in_attempt,
    'every change in an attempt': changes_in_attempts,
    'cancel in an attempt': cancel_attempt,
    'incoming once more, confidential': incoming_again,
    'images of a guest that left': images_of_a_guest_that_left,
    'all commands': all_commands,
    'a write fails at the stop': guest.error_at_the_stop,
    'a guest that sleeps': guest.asleep,
    **{f'{name}, then the end': lambda lab, name=name: guest.holds(lab, name)
       for name, event in told.EVENTS.items() if event.state},
    'strict-downtime and bitmaps': strict_with_bitmaps,
    'system_reset while loading': reset_while_loading,
    'stop while loading': wanted_there('stop', 'paused'),
    'cont while loading': wanted_there('cont', 'running'),
    'cont after completion': cont_after_completion,
    'a debugger continues': debugger_continues,
    'a debugged guest': debugged,
    'again at once': again_at_once,
    'pause at the end': pause_at_the_end,
    'a guest that resets itself': guest_resets,
    **{f'quit: {side} {phase}': quits(side, phase)
       for side in phases.PHASES for phase in phases.PHASES[side]},
}
