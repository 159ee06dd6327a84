# Dirty bitmaps that travel with the guest.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps that travel with the guest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from common import (Box, Lock, caps, expect, hmp, image, is_state, listen,
                    migrate, null, params, reason, refused, status, until,
                    wait)
from ferry.errors import FerryError
from ferry.vm import VM
from stream import connected, half_a_bitmap

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


def add(vm: VM, node: str, name: str, granularity: int = 64 * KIB,
        **more: object) -> None:
    """A new bitmap."""
    vm.qmp.cmd('block-dirty-bitmap-add', {
        'node': node, 'name': name, 'granularity': granularity, **more})


def write(vm: VM, node: str, *ranges: tuple[int, int]) -> None:
    """Write to the disk, which marks what is written: (offset, length)."""
    where = f'-d /machine/peripheral/dev-{node}/virtio-backend' \
        if node.startswith('disk') else node
    for offset, length in ranges:
        said = hmp(vm, f'qemu-io {where} "write {offset} {length}"')
        if said:
            raise FerryError(f'qemu-io: {said}')


def bitmaps(vm: VM, node: str) -> dict[str, dict]:
    """Bitmaps of a node by name, as they are shown."""
    for info in vm.qmp.cmd('query-named-block-nodes', {'flat': True}):
        if info['node-name'] == node:
            return {b['name']: b for b in info.get('dirty-bitmaps', ())
                    if 'name' in b}
    raise FerryError(f'{vm.name} has no node {node}')


def sha(vm: VM, node: str, name: str) -> str:
    """Of the bits."""
    return vm.qmp.cmd('x-debug-block-dirty-bitmap-sha256', {
        'node': node, 'name': name})['sha256']


def look(vm: VM, node: str, names: list[str]) -> dict[str, tuple]:
    """What has to be the same on both sides."""
    shown = bitmaps(vm, node)
    if set(names) - set(shown):
        raise FerryError(f'{vm.name} has bitmaps {sorted(shown)} and not '
                         f'{names}')
    return {name: (shown[name]['granularity'], shown[name]['recording'],
                   shown[name]['persistent'], shown[name]['busy'],
                   sha(vm, node, name)) for name in names}


def pair(box: Box, src: str, dst: str, here: list[dict],
         there: list[dict] | None = None) -> tuple[VM, VM]:
    """Two ends with the capability on."""
    source = box.vm(src, here)
    try:
        destination = box.vm(dst, there or here, incoming=True, run=True)
    except BaseException:
        source.stop()
        raise
    caps(source, destination, dirty_bitmaps=True)
    return source, destination


# Everything that a bitmap can be

@dataclass
class Kind:
    """A bitmap, and the disk that it is of."""
    size: int
    granularity: int
    disabled: bool = False
    chunk: int = 64 * KIB           # that is written here and there


KINDS = {
    'one': Kind(64 * MIB, 64 * KIB),
    'fine': Kind(128 * MIB, 512),
    'odd': Kind(MIB + 512, 4 * KIB),
    'off': Kind(64 * MIB, MIB, disabled=True),
    'tiny': Kind(512, 512, chunk=512),
    'none': Kind(0, 512, chunk=0),
    'coarse': Kind(4 * TIB, 1 << 31),
    'large': Kind(5 * TIB + 512, 1 << 28),
}


def arrive(src: str, dst: str, postcopy: bool = False) -> Callable[[Box], None]:
    """Bitmaps of all kinds are the same afterwards."""
    def test(box: Box) -> None:
        # QEMU 10.0 never comes to the end of the large ones, and does not
        # bear one of an empty disk.
        kinds = {name: kind for name, kind in KINDS.items()
                 if 'pristine' not in (src, dst) or
                 (kind.size and kind.granularity < 1 << 28)}
        nodes = [null(name, kind.size) for name, kind in kinds.items()]
        source, destination = pair(box, src, dst, nodes)
        with source, destination:
            for name, kind in kinds.items():
                add(source, name, 'bm', kind.granularity)
                add(source, name, 'empty', kind.granularity)
                if kind.chunk:
                    places = {0, kind.size // 2 // 512 * 512,
                              kind.size - min(kind.chunk, kind.size)}
                    write(source, name, *((place, min(kind.chunk, kind.size))
                                          for place in places))
                if kind.disabled:
                    source.qmp.cmd('block-dirty-bitmap-disable', {
                        'node': name, 'name': 'bm'})
            names = ['bm', 'empty']
            before = {name: look(source, name, names) for name in kinds}
            if postcopy:
                leave_late(box, source, destination)
            else:
                migrate(box, source, destination)
            wait(destination, 'completed')
            after = {name: look(destination, name, names) for name in kinds}
            for name in kinds:
                if before[name] != after[name]:
                    raise FerryError(f'{name}: {before[name]} became '
                                     f'{after[name]}')
    return test


def leave_late(box: Box, source: VM, destination: VM) -> None:
    """A guest that runs, on a slow link, and its bitmaps in postcopy."""
    caps(source, destination, postcopy_ram=True)
    params(source, max_bandwidth=8 * MIB)
    source.qmp.cmd('cont')
    source.qmp.cmd('migrate', {'uri': listen(box, destination)})
    wait(source, 'active')
    source.qmp.cmd('migrate-start-postcopy')
    wait(source, 'completed')


def test_record(box: Box) -> None:
    """Writes on the destination are recorded from the start of the guest."""
    source, destination = pair(box, 'ferry', 'ferry', [null('n', 64 * MIB)])
    with source, destination:
        add(source, 'n', 'bm')
        write(source, 'n', (0, 64 * KIB))
        source.qmp.cmd('cont')
        migrate(box, source, destination)
        wait(destination, 'completed')
        write(destination, 'n', (MIB, 64 * KIB))
        if bitmaps(destination, 'n')['bm']['count'] != 128 * KIB:
            raise FerryError(f'{bitmaps(destination, "n")}')


# Disks of another size

def test_smaller(box: Box) -> None:
    """A disk that is smaller there is refused by name; later all is well."""
    source, destination = pair(box, 'ferry', 'ferry',
                               [null('a', MIB), null('n', 64 * MIB)],
                               [null('a', MIB), null('n', MIB)])
    with source, destination:
        for node in ('a', 'n'):
            add(source, node, 'bm')
            write(source, node, (0, MIB))
        source.qmp.cmd('cont')
        migrate(box, source, destination, 'failed')
        is_state(source, 'running')
        wait(destination, 'failed')
        expect(reason(destination), "'bm'", "'n'")
        for node in ('a', 'n'):
            if bitmaps(destination, node):
                raise FerryError('a failed migration has left a bitmap')
        source.qmp.cmd('block-dirty-bitmap-remove', {'node': 'n',
                                                     'name': 'bm'})
        before = sha(source, 'a', 'bm')
        migrate(box, source, destination)
        wait(destination, 'completed')
        if sha(destination, 'a', 'bm') != before:
            raise FerryError('the bitmap differs')


def test_larger(box: Box) -> None:
    """A disk that is larger there is taken: the rest of it is clean."""
    source, destination = pair(box, 'ferry', 'ferry', [null('n', MIB + 512)],
                               [null('n', 64 * MIB)])
    with source, destination:
        add(source, 'n', 'bm', 512)
        write(source, 'n', (0, MIB + 512))
        migrate(box, source, destination)
        wait(destination, 'completed')
        found = bitmaps(destination, 'n')['bm']
        if found['count'] != MIB + 512 or found['busy']:
            raise FerryError(f'{found}')


# More than once

def test_again(box: Box) -> None:
    """After a start that failed the same destination takes them."""
    shared, here, there = box.raw(), box.raw(), box.raw()
    source, destination = pair(
        box, 'ferry', 'ferry', [image(shared, 'disk0'), image(here, 'disk1')],
        [image(shared, 'disk0'), image(there, 'disk1')])
    with source, destination:
        # The destination was started stopped, which opens no disk.
        destination.qmp.cmd('cont')
        source.qmp.cmd('cont')
        add(source, 'disk0', 'bm')
        write(source, 'disk0', (0, 64 * KIB))
        with Lock(there):
            migrate(box, source, destination, 'failed')
            wait(destination, 'failed')
        is_state(source, 'running')
        if bitmaps(destination, 'disk0'):
            raise FerryError('the bitmap was left behind')
        before = look(source, 'disk0', ['bm'])
        migrate(box, source, destination)
        wait(destination, 'completed')
        is_state(destination, 'running')
        if look(destination, 'disk0', ['bm']) != before:
            raise FerryError('the bitmap differs')


def test_none_at_first(box: Box) -> None:
    """A bitmap that is made after a failed migration travels."""
    source, destination = pair(box, 'ferry', 'ferry', [null('n', MIB)])
    with source, destination:
        source.qmp.cmd('migrate', {'uri': f'unix:{box.name("nobody")}'})
        wait(source, 'failed')
        params(source, max_bandwidth=100 * KIB)
        source.qmp.cmd('migrate', {'uri': listen(box, destination)})
        wait(source, 'active')
        source.qmp.cmd('migrate_cancel')
        wait(source, 'cancelled')
        wait(destination, 'failed')
        params(source, max_bandwidth=GIB)
        add(source, 'n', 'bm')
        migrate(box, source, destination)
        wait(destination, 'completed')
        look(destination, 'n', ['bm'])


def test_strict(box: Box) -> None:
    """Without a bitmap the capability does not stand in the way."""
    source, destination = pair(box, 'ferry', 'ferry', [null('n', MIB)])
    with source, destination:
        caps(source, return_path=True, strict_downtime=True)
        params(source, downtime_limit=2000)
        add(source, 'n', 'bm')
        source.qmp.cmd('cont')
        refused(source, 'migrate', {'uri': f'unix:{box.name("nobody")}'},
                'strict-downtime')
        source.qmp.cmd('block-dirty-bitmap-remove', {'node': 'n',
                                                     'name': 'bm'})
        migrate(box, source, destination)


def test_pending(box: Box) -> None:
    """What is pending is counted in bytes: 256 KiB fit where 2 MiB do not."""
    source, destination = pair(box, 'ferry', 'ferry', [null('n', GIB)])
    with source, destination:
        add(source, 'n', 'bm', 512)
        source.qmp.cmd('cont')
        params(source, max_bandwidth=MIB, avail_switchover_bandwidth=MIB,
               downtime_limit=1000)
        source.qmp.cmd('migrate', {'uri': listen(box, destination)})
        wait(source, 'completed')


# Persistent ones

def job(vm: VM, options: dict) -> None:
    """Make an image."""
    vm.qmp.cmd('blockdev-create', {'job-id': 'job', 'options': options})
    until('the image', lambda: vm.qmp.cmd('query-jobs')[0]['status'] ==
          'concluded')
    vm.qmp.cmd('job-dismiss', {'id': 'job'})


def qcow2(box: Box) -> dict:
    """A new qcow2 image as a node."""
    path = box.raw(0)
    with box.vm('ferry', [{'driver': 'file', 'node-name': 'f',
                              'filename': str(path)}]) as vm:
        job(vm, {'driver': 'qcow2', 'file': 'f', 'size': 16 * MIB})
    return {'driver': 'qcow2', 'node-name': 'disk0',
            'file': {'driver': 'file', 'filename': str(path)}}


def stored(box: Box, disk: dict, before: str) -> None:
    """The bitmap is in the image, and good."""
    with box.vm('ferry', [disk]) as vm:
        found = bitmaps(vm, 'disk0').get('bm')
        if not found or found.get('inconsistent'):
            raise FerryError(f'the image has the bitmap {found}')
        if sha(vm, 'disk0', 'bm') != before:
            raise FerryError('the bitmap in the image differs')


def test_cancelled(box: Box) -> None:
    """After a migration that was cancelled it is stored by its owner."""
    disk = qcow2(box)
    source, destination = pair(box, 'ferry', 'ferry', [disk])
    with source, destination:
        add(source, 'disk0', 'bm', persistent=True)
        source.qmp.cmd('cont')
        write(source, 'disk0', (0, 64 * KIB))
        before = sha(source, 'disk0', 'bm')
        params(source, max_bandwidth=100 * KIB)
        source.qmp.cmd('migrate', {'uri': listen(box, destination)})
        wait(source, 'active')
        source.qmp.cmd('migrate_cancel')
        wait(source, 'cancelled')
    stored(box, disk, before)


def persistent(locked: bool) -> Callable[[Box], None]:
    """On a shared image, also if the destination cannot have another disk."""
    def test(box: Box) -> None:
        disk = qcow2(box)
        here, there = box.raw(), box.raw()
        source, destination = pair(box, 'ferry', 'ferry',
                                   [disk, image(here, 'disk1')],
                                   [disk, image(there, 'disk1')])
        with source, destination:
            destination.qmp.cmd('cont')
            add(source, 'disk0', 'bm', persistent=True)
            source.qmp.cmd('cont')
            write(source, 'disk0', (0, 64 * KIB))
            before = look(source, 'disk0', ['bm'])
            if locked:
                with Lock(there):
                    migrate(box, source, destination, 'failed')
                is_state(source, 'running')
                if look(source, 'disk0', ['bm']) != before:
                    raise FerryError('the source has lost its bitmap')
                wait(destination, 'failed')
            migrate(box, source, destination)
            wait(destination, 'completed')
            is_state(destination, 'running')
            if look(destination, 'disk0', ['bm']) != before:
                raise FerryError('the bitmap differs')
        stored(box, disk, before['bm'][-1])
    return test


# While it happens

def test_untouchable(box: Box) -> None:
    """Nodes and bitmaps stay as they are until the end, on both sides."""
    source, destination = pair(box, 'ferry', 'ferry', [
        image(box.raw(), 'n')], [image(box.raw(), 'n')])
    with source, destination:
        add(source, 'n', 'bm')
        source.qmp.cmd('cont')
        params(source, max_bandwidth=100 * KIB)
        source.qmp.cmd('migrate', {'uri': listen(box, destination)})
        wait(source, 'active')
        until('the bitmap', lambda: 'bm' in bitmaps(destination, 'n'))
        for vm in (source, destination):
            refused(vm, 'block_resize', {'node-name': 'n', 'size': 4 * MIB},
                    'bm')
            refused(vm, 'blockdev-del', {'node-name': 'n'}, 'in use')
            refused(vm, 'block-dirty-bitmap-remove',
                    {'node': 'n', 'name': 'bm'}, 'in use')
        source.qmp.cmd('migrate_cancel')
        wait(source, 'cancelled')
        wait(destination, 'failed')
        source.qmp.cmd('block_resize', {'node-name': 'n', 'size': 4 * MIB})
        for vm in (source, destination):
            vm.check_alive()
        destination.qmp.cmd('blockdev-del', {'node-name': 'n'})


def in_postcopy(what: str) -> Callable[[Box], None]:
    """WHAT happens while bitmaps are on their way: nobody crashes."""
    def test(box: Box) -> None:
        # 4 MiB of bits, in no order that could be left out
        nodes = [null('n0', 16 * GIB), null('n1', 16 * GIB)]
        source, destination = pair(box, 'ferry', 'ferry', nodes)
        with source, destination:
            for node in ('n0', 'n1'):
                add(source, node, 'bm', 512)
                write(source, node, *((i * 64 * MIB, 512)
                                      for i in range(256)))
            params(source, max_bandwidth=16 * MIB,
                   max_postcopy_bandwidth=500 * KIB)
            source.qmp.cmd('cont')
            source.qmp.cmd('migrate', {'uri': listen(box, destination)})
            wait(source, 'active')
            source.qmp.cmd('migrate-start-postcopy')
            wait(source, 'postcopy-active')
            is_state(destination, 'running')
            leave(what, source, destination)
    return test


def leave(what: str, source: VM, destination: VM) -> None:
    """End one side, or the connection."""
    if what == 'cut':
        source.qmp.cmd('yank', {'instances': [{'type': 'migration'}]})
        wait(destination, 'completed')
        is_state(destination, 'running')
        if bitmaps(destination, 'n0') or bitmaps(destination, 'n1'):
            raise FerryError('a bitmap that is not whole is shown')
        destination.qmp.cmd('blockdev-del', {'node-name': 'n0'})
        source.check_alive()
        return
    first = source if what == 'quit-source' else destination
    other = destination if first is source else source
    first.qmp.cmd('quit')
    until(f'the end of {first.name}', lambda: not first.alive(), 5)
    code = first.exit_status()
    if code:
        raise FerryError(f'{first.name} ended with {code}: '
                         f'{first.last_words()}')
    until('an end', lambda: status(other) != 'postcopy-active')
    other.check_alive()


def test_quit_half_way(box: Box) -> None:
    """QEMU ends though a source has stopped in the middle of a bitmap."""
    with box.vm('ferry', [null('n', MIB)]) as source:
        add(source, 'n', 'bm')
        write(source, 'n', (0, MIB))
        caps(source, dirty_bitmaps=True)
        data = half_a_bitmap(box, source)
    with box.vm('ferry', [null('n', MIB)], incoming=True) as destination:
        caps(destination, dirty_bitmaps=True)
        with connected(listen(box, destination), data, last=False):
            until('the bitmap', lambda: 'bm' in bitmaps(destination, 'n'))
            destination.qmp.cmd('quit')
            until('the end', lambda: not destination.alive(), 5)
        if destination.exit_status():
            raise FerryError(f'{destination.last_words()}')


def test_mirror(box: Box) -> None:
    """Under a mirror: the node below has the bitmap, and it travels."""
    nodes = [null('disk0', 16 * MIB), null('target', 16 * MIB)]
    source, destination = pair(box, 'ferry', 'ferry', nodes)
    with source, destination:
        add(source, 'disk0', 'bm')
        write(source, 'disk0', (0, 64 * KIB))
        before = look(source, 'disk0', ['bm'])
        source.qmp.cmd('blockdev-mirror', {
            'job-id': 'm', 'device': 'disk0', 'target': 'target',
            'sync': 'full', 'copy-mode': 'write-blocking'})
        until('the job', lambda: source.qmp.cmd('query-jobs')[0]['status'] ==
              'ready')
        caps(source, pause_before_switchover=True)
        source.qmp.cmd('cont')
        source.qmp.cmd('migrate', {'uri': listen(box, destination)})
        wait(source, 'pre-switchover')
        source.qmp.cmd('block-job-cancel', {'device': 'm'})
        until('the job', lambda: not source.qmp.cmd('query-jobs'))
        source.qmp.cmd('migrate-continue', {'state': 'pre-switchover'})
        wait(source, 'completed')
        wait(destination, 'completed')
        if look(destination, 'disk0', ['bm']) != before:
            raise FerryError('the bitmap differs')


TESTS: dict[str, Callable[[Box], None]] = {
    'bitmaps/arrive': arrive('ferry', 'ferry'),
    'bitmaps/to-pristine': arrive('ferry', 'pristine'),
    'bitmaps/from-pristine': arrive('pristine', 'ferry'),
    'bitmaps/postcopy': arrive('ferry', 'ferry', True),
    'bitmaps/recording': test_record,
    'bitmaps/smaller': test_smaller,
    'bitmaps/larger': test_larger,
    'bitmaps/again': test_again,
    'bitmaps/none-at-first': test_none_at_first,
    'bitmaps/strict': test_strict,
    'bitmaps/pending': test_pending,
    'bitmaps/cancelled': test_cancelled,
    'bitmaps/persistent': persistent(False),
    'bitmaps/persistent-refused': persistent(True),
    'bitmaps/untouchable': test_untouchable,
    'bitmaps/cut': in_postcopy('cut'),
    'bitmaps/quit-source': in_postcopy('quit-source'),
    'bitmaps/quit-destination': in_postcopy('quit-destination'),
    'bitmaps/quit-half-way': test_quit_half_way,
    'bitmaps/mirror': test_mirror,
}
