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
    'blockdev-reopen': with_spare(qmp('blockdev-reopen', options=[
        {'driver': 'null-co', 'node-name': 'spare', 'size': DISK}])),
    'block_resize': Action(qmp('block_resize', node_name='disk',
                               size=1 << 20)),
    'blockdev-backup': with_spare(
        job('blockdev-backup', device='disk', target='spare', sync='full')),
    'blockdev-mirror': with_spare(
        qmp('blockdev-mirror', job_id='job', device='disk', target='spare',
            sync='full'),
        qmp('block-job-cancel', device='job', force=True)),
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
