# What was requested in a phase still holds after it.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What was requested in a phase still holds after it."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import lab as phases
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
    src, dst = phases.attempt(lab)
    src.qmp.cmd('stop')
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


def reset_in_attempt(lab: Lab, command: str = 'system_reset',
                     event: str = 'RESET') -> None:
    """A strict attempt, and a command that changes the machine."""
    src, dst = phases.attempt(lab)
    src.qmp.cmd(command)
    src.qmp.wait_event('MIGRATION_SWITCHOVER_ABORTED', 2)
    src.qmp.wait_event(event, 2)
    until(src, 'completed')
    until(dst, 'completed')
    is_state(dst, 'running')


def balloon_in_attempt(lab: Lab) -> None:
    """The same with a new target of the balloon, which arrives."""
    src, dst = phases.attempt(lab)
    src.qmp.cmd('balloon', {'value': 30 << 20})
    src.qmp.wait_event('MIGRATION_SWITCHOVER_ABORTED', 2)
    until(src, 'completed')
    until(dst, 'completed')
    is_state(dst, 'running')


def cancel_attempt(lab: Lab) -> None:
    """A strict attempt, cancel: the guest runs again."""
    src = phases.attempt(lab)[0]
    cancelled(src)
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
    'cancel in an attempt': cancel_attempt,
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
