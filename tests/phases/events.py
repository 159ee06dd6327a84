# What the guest and its devices do in each phase.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest and its devices do in each phase."""

from __future__ import annotations

import time
from typing import Callable

import lab as phases
import table
import told
from ferry.errors import FerryError
from ferry.vm import VM
from lab import Lab, Scene, run_state, set_params, start, until

NAMES = tuple(told.EVENTS)
NOTHING_FOR = 0.15      # s
SIGNS = {'RESET', 'SUSPEND', 'WAKEUP', 'SHUTDOWN', 'STOP', 'RESUME'}


def row(name: str) -> table.Row:
    """Of the table."""
    return next(r for r in table.ROWS if r.name == f'the guest: {name}')


def nothing_happens(vm: VM, before: str) -> None:
    """The guest has been told something, and does nothing of that."""
    time.sleep(NOTHING_FOR)
    seen = SIGNS.intersection(event['event'] for event in vm.qmp.events())
    if seen or run_state(vm) != before:
        raise FerryError(f'{", ".join(seen)}: {before} became {run_state(vm)}')


def recover(lab: Lab, src: VM, dst: VM) -> None:
    """Postcopy goes on."""
    uri = lab.uri()
    dst.qmp.cmd('migrate-recover', {'uri': uri})
    start(src, uri, resume=True)
    for vm in (src, dst):
        until(vm, 'postcopy-active')


def cut(src: VM, dst: VM) -> None:
    """It is paused once more."""
    src.qmp.cmd('migrate-pause')
    for vm in (src, dst):
        until(vm, 'postcopy-paused')


def one_by_one(lab: Lab, scene: Scene) -> None:
    """Each of them, while postcopy is paused."""
    dst, src = scene.vm, scene.other
    assert src is not None
    for name in NAMES:
        told.tell(lab, dst, name)
        nothing_happens(dst, 'running')
        recover(lab, src, dst)
        told.came(dst, name)
        told.bring_back(dst, name)
        cut(src, dst)


def try_running(lab: Lab, vm: VM) -> None:
    """The guest runs."""
    for name in NAMES:
        told.tell(lab, vm, name)
        told.came(vm, name)
        told.bring_back(vm, name)


def try_stopped(lab: Lab, vm: VM, again: Callable[[], object],
                let_by: Callable[[], None] = lambda: None) -> None:
    """The guest stands still, and does what it was told after a cancel."""
    for name in NAMES:
        told.tell(lab, vm, name)
        nothing_happens(vm, 'finish-migrate')
        vm.qmp.cmd('migrate_cancel')
        let_by()
        told.came(vm, name)
        told.bring_back(vm, name)
        until(vm, 'cancelled')
        if name != NAMES[-1]:
            again()
            vm.qmp.events()


def try_elsewhere(lab: Lab, vm: VM) -> None:
    """The guest does not run here."""
    vm.qmp.events()
    told.tell(lab, vm, *NAMES)
    nothing_happens(vm, run_state(vm))


def try_attempts(lab: Lab) -> None:
    """What they wait for is not ended by a cancel."""
    src, dst, gate = phases.attempt(lab)

    def again() -> None:
        nonlocal dst
        dst.stop()
        dst = phases.attempt_again(lab, src, gate)
    src.qmp.events()
    try_stopped(lab, src, again, gate.let_by)


def kind_of(side: str, phase: str) -> str:
    """It is the same for all that the guest does."""
    kinds = {row(name).cell(side, phase).kind for name in NAMES}
    assert len(kinds) == 1
    return kinds.pop()


def try_events(lab: Lab, side: str, phase: str) -> None:
    """All cells of a column that are events."""
    with told.guests(lab):
        if phase == 'attempt':
            try_attempts(lab)
            return
        scene = phases.PHASES[side][phase](lab)
        scene.vm.qmp.events()
        kind = kind_of(side, phase)
        if kind == 'works':
            try_running(lab, scene.vm)
        elif kind == 'idle':
            try_elsewhere(lab, scene.vm)
        elif side == 'source':
            def again() -> None:
                start(scene.vm, lab.drain().uri)
                until(scene.vm, phase)
            try_stopped(lab, scene.vm, again)
        else:
            one_by_one(lab, scene)


def leave_slowly(lab: Lab, src: VM, uri: str, name: str) -> None:
    """The guest does it while it is on its way."""
    set_params(src, max_bandwidth=phases.SLOW)
    start(src, uri)
    until(src, 'active')
    told.tell(lab, src, name)
    told.came(src, name)


def stays(vm: VM, name: str) -> None:
    """It is in that state, and soon still is."""
    time.sleep(0.1)
    told.came(vm, name, 0)


def holds(lab: Lab, name: str) -> None:
    """After a cancel, after a failure, and there."""
    with told.guests(lab):
        src, dst = lab.source(), lab.destination()
        leave_slowly(lab, src, lab.drain().uri, name)
        src.qmp.cmd('migrate_cancel')
        until(src, 'cancelled')
        stays(src, name)
        start(src, lab.drain(hang_up=True).uri)
        until(src, 'failed')
        stays(src, name)
        told.bring_back(src, name)
        uri = lab.uri()
        dst.qmp.cmd('migrate-incoming', {'uri': uri})
        leave_slowly(lab, src, uri, name)
        set_params(src, max_bandwidth=0)
        until(src, 'completed')
        until(dst, 'completed')
        stays(dst, name)
        told.bring_back(dst, name)


def writes(vm: VM) -> int:
    """How many writes to the disk that fails are done."""
    return sum(d['stats']['wr_operations'] for d in vm.qmp.cmd(
        'query-blockstats') if d.get('node-name') == 'slow')


def write_under_way(lab: Lab) -> VM:
    """A source that waits before the switchover; a write failed meanwhile."""
    src = lab.source()
    phases.set_caps(src, 'pause-before-switchover')
    told.tell(lab, src, 'I/O error', 'I/O error')
    end = time.monotonic() + 5
    while not writes(src):
        if time.monotonic() > end:
            raise FerryError('the guest does not write')
        time.sleep(0.01)
    time.sleep(0.3)
    told_so = run_state(src)
    if told_so != 'running':
        raise FerryError(f'the write was not slow: {told_so}')
    return src


def error_at_the_stop(lab: Lab) -> None:
    """A write fails when the guest is stopped for the switchover."""
    with told.guests(lab, slow=True):
        src = write_under_way(lab)
        start(src, lab.drain().uri)
        until(src, 'pre-switchover')
        src.qmp.wait_event('BLOCK_IO_ERROR', 1)
        src.qmp.cmd('migrate_cancel')
        until(src, 'cancelled')
        stays(src, 'I/O error')
        src.stop()
        src, dst = write_under_way(lab), lab.destination()
        uri = lab.uri()
        dst.qmp.cmd('migrate-incoming', {'uri': uri})
        start(src, uri)
        until(src, 'pre-switchover')
        src.qmp.cmd('migrate-continue', {'state': 'pre-switchover'})
        until(dst, 'completed')
        stays(dst, 'I/O error')
        told.bring_back(dst, 'I/O error')


def asleep(lab: Lab) -> None:
    """A guest that sleeps is not woken while it is about to leave."""
    with told.guests(lab):
        src = lab.source()
        phases.set_caps(src, 'pause-before-switchover')
        told.tell(lab, src, 'suspend')
        told.came(src, 'suspend')
        start(src, lab.drain().uri)
        until(src, 'pre-switchover')
        try:
            src.qmp.cmd('system_wakeup')
            raise FerryError('system_wakeup is not refused')
        except phases.QMPError:
            pass
        src.qmp.cmd('migrate_cancel')
        until(src, 'cancelled')
        stays(src, 'suspend')
        told.bring_back(src, 'suspend')
        told.tell(lab, src, 'suspend')
        told.came(src, 'suspend')
        set_params(src, max_bandwidth=phases.SLOW)
        start(src, lab.drain().uri)
        until(src, 'active')
        told.bring_back(src, 'suspend')
