# How each command of the table is given, and taken back.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""How each command of the table is given, and taken back."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ferry.errors import FerryError
from ferry.qmp import QMPError
from ferry.vm import VM

from lab import DISK, hmp, run_job, set_params


@dataclass(frozen=True)
class Action:
    """Gives a command to a VM; undo is called if it was accepted."""
    do: Callable[[VM], object]
    undo: Callable[[VM], object] = lambda vm: None


def qmp(name: str, /, **args: object) -> Callable[[VM], object]:
    """A command of QMP, with _ for -."""
    def give(vm: VM) -> object:
        return vm.qmp.cmd(name, {key.replace('_', '-'): value
                                 for key, value in args.items()})
    return give


def human(line: str) -> Callable[[VM], object]:
    """A command of HMP."""
    return lambda vm: hmp(vm, line)


def job(name: str, /, **args: object) -> Callable[[VM], object]:
    """A job, to its end."""
    return lambda vm: run_job(vm, name, **args)


def in_folder(name: str, /, argument: str, suffix: str, prefix: str = '',
              **args: object) -> Callable[[VM], object]:
    """A command of QMP with a file for one of its arguments."""
    def give(vm: VM) -> object:
        path = Path(vm.workdir) / f'{vm.name}-{suffix}'
        with contextlib.suppress(OSError):
            path.unlink()
        return vm.qmp.cmd(name, {argument: f'{prefix}{path}', **args})
    return give


def migrate_nowhere(vm: VM) -> None:
    """To an address that nobody listens at, if it gets so far."""
    vm.qmp.cmd('migrate', {'uri': f'unix:{vm.workdir}/nobody'})


def listen(vm: VM) -> None:
    """An address of its own."""
    vm.qmp.cmd('migrate-incoming', {
        'uri': f'unix:{vm.workdir}/{vm.name}-again', 'exit-on-error': False})


# A node of its own for commands that need one more

def add_spare(vm: VM) -> None:
    """The node spare, as large as the disk."""
    vm.qmp.cmd('blockdev-add', {'driver': 'null-co', 'node-name': 'spare',
                                'size': DISK})


def drop_spare(vm: VM) -> None:
    """It is not used any more, or soon will not be."""
    end = time.monotonic() + 2
    while True:
        try:
            vm.qmp.cmd('blockdev-del', {'node-name': 'spare'})
            return
        except QMPError:
            if time.monotonic() > end:
                raise
        time.sleep(0.01)


def with_spare(do: Callable[[VM], object],
               undo: Callable[[VM], object] = lambda vm: None) -> Action:
    """A command that uses it, and is over when undo was called."""
    def give(vm: VM) -> None:
        add_spare(vm)
        try:
            do(vm)
        except QMPError:
            drop_spare(vm)
            raise

    def take_back(vm: VM) -> None:
        undo(vm)
        drop_spare(vm)
    return Action(give, take_back)


def reads(line: str) -> Callable[[VM], object]:
    """A command of HMP whose answer is text."""
    def give(vm: VM) -> None:
        said = vm.qmp.cmd('human-monitor-command', {'command-line': line})
        if said.startswith('Error: '):
            raise QMPError('GenericError', said.removeprefix('Error: ').strip(),
                           line)
    return give


def steps(*parts: Callable[[VM], object]) -> Callable[[VM], object]:
    """One after the other."""
    def give(vm: VM) -> None:
        for part in parts:
            part(vm)
    return give


def queries(vm: VM) -> None:
    """All that only look; those that cannot are the answer."""
    bad = []
    for name in sorted(c['name'] for c in vm.qmp.cmd('query-commands')):
        if name.startswith('query-') and name not in NOT_ASKED:
            try:
                vm.qmp.cmd(name)
            except QMPError as err:
                bad.append(f'{name}: {err.desc}')
    if bad:
        raise QMPError('GenericError', '; '.join(bad), 'query-*')


# They want to know more, or have much to say that is always the same.
NOT_ASKED = ('query-qmp-schema', 'query-cpu-definitions', 'query-machines',
             'query-command-line-options',
             'query-cpu-model-baseline', 'query-cpu-model-comparison',
             'query-cpu-model-expansion', 'query-stats',
             'query-rocker', 'query-rocker-ports',
             'query-rocker-of-dpa-flows', 'query-rocker-of-dpa-groups')


def overlay(snapshot: Callable[[VM, Path], object]) -> Action:
    """An overlay on a node of its own; nothing is left if that fails."""
    def drop(vm: VM) -> None:
        vm.qmp.cmd('blockdev-del', {'node-name': 'spare'})

    def give(vm: VM) -> None:
        add_spare(vm)
        path = Path(vm.workdir) / f'{vm.name}-overlay'
        try:
            snapshot(vm, path)
        except QMPError:
            if path.exists():
                raise FerryError('the overlay was made') from None
            drop(vm)
            raise

    def take_back(vm: VM) -> None:
        # Nobody uses the overlay, so that it is gone already.
        drop(vm)
        (Path(vm.workdir) / f'{vm.name}-overlay').unlink()
    return Action(give, take_back)


def snapshot_arguments(path: Path) -> dict[str, object]:
    """Of blockdev-snapshot-sync."""
    return {'node-name': 'spare', 'snapshot-file': str(path),
            'snapshot-node-name': 'overlay'}


def snapshot_sync(vm: VM, path: Path) -> None:
    """As it is."""
    vm.qmp.cmd('blockdev-snapshot-sync', snapshot_arguments(path))


def snapshot_in_transaction(vm: VM, path: Path) -> None:
    """With a bitmap, which is not there if it is refused."""
    bitmap = {'node': 'spare', 'name': 'bitmap'}
    try:
        vm.qmp.cmd('transaction', {'actions': [
            {'type': 'block-dirty-bitmap-add', 'data': bitmap},
            {'type': 'blockdev-snapshot-sync',
             'data': snapshot_arguments(path)}]})
    except QMPError:
        vm.qmp.cmd('block-dirty-bitmap-add', bitmap)
        raise


def cancel_job(vm: VM) -> None:
    """It is over when this returns."""
    vm.qmp.cmd('block-job-cancel', {'device': 'job', 'force': True})
    end = time.monotonic() + 5
    while vm.qmp.cmd('query-jobs'):
        if time.monotonic() > end:
            raise FerryError('the job does not end')
        time.sleep(0.01)


def export(vm: VM) -> None:
    """The disk, over NBD; nothing is left of it if that fails."""
    vm.qmp.cmd('nbd-server-start', {'addr': {
        'type': 'unix', 'data': {'path': f'{vm.workdir}/{vm.name}-nbd'}}})
    try:
        vm.qmp.cmd('block-export-add', {
            'type': 'nbd', 'id': 'export', 'node-name': 'disk'})
    except QMPError:
        vm.qmp.cmd('nbd-server-stop')
        raise


CAPS = {'capabilities': [{'capability': 'xbzrle', 'state': True}]}
CAPS_BACK = {'capabilities': [{'capability': 'xbzrle', 'state': False}]}

ACTIONS: dict[str, Action] = {
    'migrate-check': Action(qmp('migrate-check')),
    'migrate resume': Action(lambda vm: vm.qmp.cmd('migrate', {
        'uri': f'unix:{vm.workdir}/nobody', 'resume': True})),
    'migrate_cancel': Action(qmp('migrate_cancel')),
    'migrate-continue': Action(qmp('migrate-continue',
                                   state='pre-switchover')),
    'migrate-start-postcopy': Action(qmp('migrate-start-postcopy')),
    'migrate-pause': Action(qmp('migrate-pause')),
    'migrate-recover': Action(lambda vm: vm.qmp.cmd('migrate-recover', {
        'uri': f'unix:{vm.workdir}/{vm.name}-recover'})),
    'system_wakeup': Action(qmp('system_wakeup')),
    'system_powerdown': Action(qmp('system_powerdown')),
    'system_reset': Action(qmp('system_reset')),
    'stop': Action(qmp('stop')),
    'cont': Action(qmp('cont')),
    'vmstate-check': Action(qmp('vmstate-check')),
    'savevm': Action(human('savevm old')),
    'loadvm': Action(human('loadvm old')),
    'delvm': Action(human('delvm none')),
    'snapshot-save': Action(
        job('snapshot-save', tag='new', vmstate='disk', devices=['disk']),
        human('delvm new')),
    'snapshot-load': Action(job('snapshot-load', tag='old', vmstate='disk',
                                devices=['disk'])),
    'snapshot-delete': Action(job('snapshot-delete', tag='none',
                                  devices=['disk'])),
    'migrate': Action(migrate_nowhere),
    'migrate-incoming': Action(listen),
    'yank': Action(qmp('yank', instances=[{'type': 'migration'}])),
    'inject-nmi': Action(qmp('inject-nmi')),
    'migrate-set-capabilities': Action(
        lambda vm: vm.qmp.cmd('migrate-set-capabilities', CAPS),
        lambda vm: vm.qmp.cmd('migrate-set-capabilities', CAPS_BACK)),
    'migrate-set-parameters': Action(
        lambda vm: set_params(vm, announce_rounds=6)),
    'query-migrate': Action(qmp('query-migrate')),
    'device_add': Action(
        qmp('device_add', driver='virtio-net-pci', id='net', bus='pcie.0'),
        ),
    'device_del': Action(qmp('device_del', id='rng')),
    'object-add memory-backend': Action(
        qmp('object-add', qom_type='memory-backend-ram', id='more',
            size=1 << 20),
        qmp('object-del', id='more')),
    'object-del memory-backend': Action(steps(
        qmp('object-add', qom_type='memory-backend-ram', id='more',
            size=1 << 20), qmp('object-del', id='more'))),
    'device_add of a CPU': Action(qmp(
        'device_add', driver='qemu64-x86_64-cpu', id='cpu2', socket_id=2,
        core_id=0, thread_id=0)),
    'device_del of a CPU': Action(qmp('device_del', id='cpu1')),
    'device_add of a DIMM': Action(qmp(
        'device_add', driver='pc-dimm', id='dimm1', memdev='dimm1-mem')),
    'device_del of a DIMM': Action(qmp('device_del', id='dimm0')),
    'device-sync-config': Action(qmp('device-sync-config', id='vd')),
    'virtio-mem, requested-size': Action(
        qmp('qom-set', path='/machine/peripheral/vmem',
            property='requested-size', value=4 << 20),
        qmp('qom-set', path='/machine/peripheral/vmem',
            property='requested-size', value=0)),
    'set_link': Action(qmp('set_link', name='nic', up=False),
                       qmp('set_link', name='nic', up=True)),
    'netdev_add, netdev_del': Action(steps(
        qmp('netdev_add', type='hubport', id='more', hubid=1),
        qmp('netdev_del', id='more'))),
    'chardev-add, chardev-remove': Action(steps(
        qmp('chardev-add', id='more', backend={'type': 'null', 'data': {}}),
        qmp('chardev-remove', id='more'))),
    'announce-self': Action(lambda vm: vm.qmp.cmd('announce-self', {
        'initial': 50, 'max': 500, 'rounds': 1, 'step': 50})),
    'calc-dirty-rate': Action(qmp('calc-dirty-rate', calc_time=50,
                                  calc_time_unit='millisecond')),
    'screendump': Action(in_folder('screendump', 'filename', 'screen')),
    'x and xp (HMP)': Action(steps(reads('xp /4bx 0'), reads('x /4bx 0'))),
    'gva2gpa (HMP)': Action(reads('gva2gpa 0')),
    'info tlb and info mem (HMP)': Action(steps(reads('info tlb'),
                                                reads('info mem'))),
    'x-query-virtio-queue-element': Action(qmp(
        'x-query-virtio-queue-element', queue=0,
        path='/machine/peripheral/nic/virtio-backend')),
    'o (HMP)': Action(human('o /b 0x80 0')),
    'mce (HMP)': Action(human('mce 0 9 0x8000000000000000 0 0 0')),
    'send-key': Action(qmp('send-key', keys=[
        {'type': 'qcode', 'data': 'shift'}])),
    'rtc-reset-reinjection': Action(qmp('rtc-reset-reinjection')),
    'set-action': Action(qmp('set-action', panic='pause')),
    'watchdog-set-action': Action(qmp('watchdog-set-action', action='pause')),
    'query-*': Action(queries),
    'balloon': Action(qmp('balloon', value=30 << 20)),
    'dump-guest-memory': Action(
        in_folder('dump-guest-memory', 'protocol', 'dump', 'file:',
                  paging=False)),
    'memsave': Action(in_folder('memsave', 'filename', 'memory', val=0,
                                size=4096)),
    'pmemsave': Action(in_folder('pmemsave', 'filename', 'memory', val=0,
                                 size=4096)),
    'query-block': Action(qmp('query-block')),
    'blockdev-add': Action(
        qmp('blockdev-add', driver='null-co', node_name='added', size=1 << 20),
        qmp('blockdev-del', node_name='added')),
    'blockdev-del': with_spare(lambda vm: None),
    'blockdev-snapshot-sync': overlay(snapshot_sync),
    'transaction with a snapshot': overlay(snapshot_in_transaction),
    'transaction': Action(
        qmp('transaction', actions=[
            {'type': 'block-dirty-bitmap-add',
             'data': {'node': 'disk', 'name': name}} for name in 'ab']),
        qmp('transaction', actions=[
            {'type': 'block-dirty-bitmap-remove',
             'data': {'node': 'disk', 'name': name}} for name in 'ab'])),
    'blockdev-set-active': with_spare(steps(
        qmp('blockdev-set-active', node_name='spare', active=False),
        qmp('blockdev-set-active', node_name='spare', active=True))),
    'blockdev-open-tray': Action(qmp('blockdev-open-tray', id='cd'),
                                 qmp('blockdev-close-tray', id='cd')),
    'blockdev-insert-medium': with_spare(
        steps(qmp('blockdev-open-tray', id='cd'),
              qmp('blockdev-insert-medium', id='cd', node_name='spare')),
        steps(qmp('blockdev-remove-medium', id='cd'),
              qmp('blockdev-close-tray', id='cd'))),
    'eject': Action(qmp('eject', id='cd'), qmp('blockdev-close-tray',
                                               id='cd')),
    'block_set_io_throttle': Action(qmp(
        'block_set_io_throttle', id='vd', bps=0, bps_rd=0, bps_wr=0, iops=0,
        iops_rd=0, iops_wr=0)),
    'block-commit': Action(
        qmp('block-commit', job_id='job', device='disk'),
        cancel_job),
    'job-pause, job-resume': with_spare(
        steps(qmp('blockdev-mirror', job_id='job', device='disk',
                  target='spare', sync='full'),
              qmp('job-pause', id='job'), qmp('job-resume', id='job')),
        cancel_job),
    'block-stream': Action(job('block-stream', device='disk')),
    'blockdev-reopen': with_spare(qmp('blockdev-reopen', options=[
        {'driver': 'null-co', 'node-name': 'spare', 'size': DISK}])),
    'block_resize': Action(qmp('block_resize', node_name='disk',
                               size=1 << 20)),
    'blockdev-backup': with_spare(
        job('blockdev-backup', device='disk', target='spare', sync='full')),
    'blockdev-mirror': with_spare(
        qmp('blockdev-mirror', job_id='job', device='disk', target='spare',
            sync='full'),
        cancel_job),
    'blockdev-snapshot-internal-sync': Action(
        qmp('blockdev-snapshot-internal-sync', device='disk', name='inner'),
        qmp('blockdev-snapshot-delete-internal-sync', device='disk',
            name='inner')),
    'block-dirty-bitmap-add': Action(
        qmp('block-dirty-bitmap-add', node='disk', name='bitmap'),
        qmp('block-dirty-bitmap-remove', node='disk', name='bitmap')),
    'nbd-server-start': Action(
        lambda vm: vm.qmp.cmd('nbd-server-start', {'addr': {
            'type': 'unix', 'data': {'path': f'{vm.workdir}/{vm.name}-nbd'}}}),
        qmp('nbd-server-stop')),
    'block-export-add': Action(export, qmp('nbd-server-stop')),
}


def answer(vm: VM, name: str) -> str:
    """What a VM says to a command: '' if that is accepted."""
    try:
        ACTIONS[name].do(vm)
    except QMPError as err:
        return f'{err.cls}: {err.desc}' if err.cls != 'GenericError' \
            else err.desc
    return ''


def undo(vm: VM, name: str) -> None:
    """Take it back."""
    ACTIONS[name].undo(vm)
