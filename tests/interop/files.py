# Migrations to a file and from it.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations to a file and from it.

The guest writes to its memory while it is saved, so most pages are written to
the file more than once.  Then another QEMU loads the file.  What is compared is
the memory of the guest.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

from ferry import paths
from ferry.errors import FerryError
from ferry.migrate import ENDED, set_caps, set_params
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.abilities import Skip, turned_on
from ferrytest.suite import Case

from lab import FAST, FILL, MEMORY, Lab, check, wait_completed

MAPPED = {'mapped-ram': True}
CHANNELS = {'mapped-ram': True, 'multifd': True}
PAIRS = (('ferry', 'ferry'), ('ferry', 'pristine'), ('pristine', 'ferry'))
WRITES = 3000           # pages/s, of a guest that is saved
SLOW = 60 << 20         # bytes/s: some passes are needed
OFFSET = 1000           # of what somebody else has at the start of the file
NUMBERS = itertools.count(1)


def fresh(lab: Lab) -> Path:
    """The name of a file that is not there."""
    return lab.workdir / f'saved-{next(NUMBERS)}'


def save(lab: Lab, path: Path, offset: int = 0,
         caps: dict[str, bool] | None = None, **params: Any) -> dict:
    """Save the guest while it runs; what query-migrate says then."""
    source = lab.source
    lab.guest.set_rate(WRITES)
    set_caps(source, caps or MAPPED)
    set_params(source, {**FAST, 'max-bandwidth': SLOW, **params})
    source.qmp.cmd('migrate', {'uri': f'file:{path},offset={offset}'})
    wait_completed(source)
    return source.qmp.cmd('query-migrate')


def load(lab: Lab, target: VM, path: Path, offset: int = 0,
         caps: dict[str, bool] | None = None, **params: Any) -> None:
    """Have the guest go on in TARGET; all of its memory must be right."""
    set_caps(target, caps or MAPPED)
    set_params(target, params)
    lab.guest.expect(target)
    target.qmp.cmd('migrate-incoming', {'uri': f'file:{path},offset={offset}'})
    wait_completed(target)
    arrived(lab, target)


def arrived(lab: Lab, target: VM, went_back: bool = False) -> None:
    """The guest runs in TARGET now; all of its memory must be right."""
    lab.observer.attach(target)
    lab.guest.move_to(target)
    if went_back:
        lab.guest.went_back()
    lab.moved(target)
    # Nobody has seen the heartbeats before this one; later ones count.
    lab.observer.wait_beats(target)
    lab.began = time.monotonic_ns()
    verdict = lab.guest.verify()
    check(verdict.ok, verdict.detail)


def moves(source: str, target: str, *, offset: int = 0,
          name: str = 'mapped', caps: dict[str, bool] | None = None,
          full: bool = False, **params: Any) -> Case:
    """Saved by one, loaded by the other."""
    caps = caps or MAPPED

    def run(lab: Lab) -> str:
        lab.boot(source)
        path = fresh(lab)
        if params.get('direct-io'):
            takes_direct(path)
        path.write_bytes(b'x' * offset)
        info = save(lab, path, offset, caps, **params)
        ram = info['ram']
        load(lab, lab.target(target), path, offset, caps, **params)
        check(path.read_bytes()[:offset] == b'x' * offset,
              'what was in the file before is still there')
        if 'multifd' in caps:
            check(ram['multifd-bytes'] > 60 << 20,
                  f'the channels wrote memory: {ram["multifd-bytes"]}')
        if caps['mapped-ram']:
            used = path.stat().st_blocks * 512
            check(used < ram['total'], 'the file has holes where the guest '
                  f'never wrote: {used} of {ram["total"]}')
        path.unlink()
        return (f'{ram["dirty-sync-count"]} passes, {ram["normal-bytes"] >> 20}'
                f' MiB written in {info["total-time"]} ms')
    return Case(f'file-{name}-{source}-{target}', run, full=full,
                kinds=(source, target), needs=(
                    'file:', *turned_on(caps)))


def takes_direct(path: Path) -> None:
    """Skip unless the file system knows O_DIRECT."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT))
    except OSError as err:
        raise Skip(f'{path.parent} has no O_DIRECT: {err.strerror}') from err


def refused(lab: Lab) -> str:
    """Pages at fixed places need something that has such."""
    source = lab.boot('ferry')
    set_caps(source, MAPPED)
    target = lab.target('ferry')
    set_caps(target, MAPPED)
    said = []
    for command, vm in (('migrate', source), ('migrate-incoming', target)):
        for uri in (lab.uri('tcp'), 'exec:cat'):
            error = ''
            try:
                vm.qmp.cmd(command, {'uri': uri})
            except QMPError as err:
                error = err.desc
            check('mapped-ram' in error and 'file:' in error,
                  f'{command} to {uri} is refused with a way out: "{error}"')
            said.append(error)
    lab.drop(target)
    lab.must_go_on()
    set_caps(source, {'mapped-ram': False})
    lab.must_move(lab.target('ferry'))
    return f'"{said[0]}"'


def analyzed(lab: Lab) -> str:
    """The script that takes streams apart reads it, and finds the memory."""
    script = paths.BUILD / 'tree' / 'ferry' / 'scripts' / 'analyze-migration.py'
    lab.boot('ferry')
    path = fresh(lab)
    save(lab, path)
    folder = lab.workdir / f'analyzed-{next(NUMBERS)}'
    folder.mkdir()
    done = subprocess.run([sys.executable, script, '-x', '-f', path],
                          cwd=folder, capture_output=True, text=True)
    check(done.returncode == 0, f'it is read: {done.stderr[-300:]}')
    state = json.loads((folder / 'state.json').read_text())
    sizes = state['ram (1)']['section sizes']
    memory = folder / 'pc.ram'
    check(int(sizes['pc.ram'], 16) == MEMORY << 20 == memory.stat().st_size,
          f'it finds all of the memory: {sizes}')
    used = memory.stat().st_blocks * 512
    check(used > FILL << 20, f'and its pages: {used}')
    load(lab, lab.target('ferry'), path)
    path.unlink()
    shutil.rmtree(folder)
    return f'{len(sizes)} blocks, {used >> 20} MiB'


def only_one_side(saver: str, caps: dict[str, bool],
                  loads: dict[str, bool]) -> Case:
    """A file of one kind is not loaded as if it was of the other."""
    def run(lab: Lab) -> str:
        lab.boot(saver)
        path = fresh(lab)
        save(lab, path, caps=caps)
        target = lab.target('ferry')
        set_caps(target, loads)
        target.qmp.cmd('migrate-incoming', {'uri': f'file:{path}',
                                            'exit-on-error': False})
        error = ended(target)['error-desc']
        check('mapped-ram' in error, f'the error names it: {error}')
        lab.drop(target)
        load(lab, lab.target('ferry'), path, caps=caps)
        path.unlink()
        return f'"{error}"'
    which = 'saved' if caps.get('mapped-ram') else 'loaded'
    return Case(f'file-mapped-only-{which}-by-{saver}', run,
                kinds=(saver, 'ferry'), needs=('file:', 'mapped-ram'))


def ended(vm: VM, within: float = 20) -> dict:
    """Until the migration has failed; what it says of it."""
    end = time.monotonic() + within
    while (info := vm.qmp.cmd('query-migrate')).get('status') not in ENDED:
        check(time.monotonic() < end, f'it ends: {info}')
        time.sleep(0.02)
    check(info['status'] == 'failed', f'it failed: {info}')
    return info


def cancelled(lab: Lab) -> str:
    """In the middle; the guest goes on, and is saved to the same file."""
    source = lab.boot('ferry')
    path = fresh(lab)
    lab.guest.set_rate(WRITES)
    set_caps(source, MAPPED)
    set_params(source, {**FAST, 'max-bandwidth': 10 << 20})
    source.qmp.cmd('migrate', {'uri': f'file:{path}'})
    end = time.monotonic() + 20
    while source.qmp.cmd('query-migrate').get('ram', {}).get(
            'transferred', 0) < 5 << 20:
        check(time.monotonic() < end, 'pages are written')
        time.sleep(0.01)
    source.qmp.cmd('migrate_cancel')
    while source.qmp.cmd('query-migrate')['status'] != 'cancelled':
        check(time.monotonic() < end, 'it is cancelled')
        time.sleep(0.01)
    lab.must_go_on()
    target = lab.target('ferry')
    set_caps(target, MAPPED)
    target.qmp.cmd('migrate-incoming', {'uri': f'file:{path}',
                                        'exit-on-error': False})
    error = ended(target)['error-desc']
    lab.drop(target)
    save(lab, path)
    load(lab, lab.target('ferry'), path)
    path.unlink()
    return f'half a file: "{error}"'


@contextmanager
def small_disk(lab: Lab, mib: int) -> Iterator[Path]:
    """A file system with little room."""
    where = lab.workdir / f'small-{next(NUMBERS)}'
    where.mkdir()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={mib}m', 'tmpfs',
                    where], check=True)
    try:
        yield where
    finally:
        subprocess.run(['umount', where], check=True)


def disk_full(lab: Lab) -> str:
    """The disk is full: the guest runs on, and can be saved elsewhere."""
    if os.geteuid():
        raise FerryError('only root can mount a small file system')
    source = lab.boot('ferry')
    lab.guest.set_rate(WRITES)
    set_caps(source, MAPPED)
    set_params(source, FAST)
    with small_disk(lab, 40) as where:
        source.qmp.cmd('migrate', {'uri': f'file:{where}/saved'})
        error = ended(source)['error-desc']
        check('No space left' in error, f'the error says why: {error}')
    lab.must_go_on()
    path = fresh(lab)
    save(lab, path)
    load(lab, lab.target('ferry'), path)
    path.unlink()
    return f'"{error}"'


def cut_off(lab: Lab, caps: dict[str, bool] | None = None) -> str:
    """A file of which the end is missing is refused, wherever it ends."""
    lab.boot('ferry')
    path = fresh(lab)
    save(lab, path, caps=caps)
    part = fresh(lab)
    size = path.stat().st_size
    said = set()
    for length in (100, 4096, size // 3, size // 2, size - 100_000, size - 1):
        subprocess.run(['cp', '--sparse=always', path, part], check=True)
        os.truncate(part, length)
        target = lab.target('ferry')
        set_caps(target, caps or MAPPED)
        target.qmp.cmd('migrate-incoming', {'uri': f'file:{part}',
                                            'exit-on-error': False})
        said.add(ended(target)['error-desc'])
        lab.drop(target)
    load(lab, lab.target('ferry'), path, caps=caps)
    path.unlink()
    part.unlink()
    return '; '.join(f'"{error}"' for error in sorted(said))


def all_cases() -> list[Case]:
    """Each pair, then what may go wrong."""
    ours = {'kinds': ('ferry',), 'needs': ('file:', 'mapped-ram')}
    return [
        *(moves(*pair) for pair in PAIRS),
        *(moves(*pair, offset=OFFSET, name='mapped-offset', full=True)
          for pair in PAIRS),
        *(moves(*pair, name='mapped-channels', caps=CHANNELS,
                **{'multifd-channels': 3}) for pair in PAIRS),
        *(moves(*pair, name='mapped-direct', caps=CHANNELS,
                full=pair != PAIRS[0],
                **{'multifd-channels': 2, 'direct-io': True})
          for pair in PAIRS),
        moves('ferry', 'ferry', name='mapped-fewer-readers', caps=CHANNELS,
              full=True, **{'multifd-channels': 1}),
        *(moves(*pair, name='stream', caps={'mapped-ram': False}, full=True)
          for pair in PAIRS),
        only_one_side('ferry', MAPPED, {'mapped-ram': False}),
        only_one_side('pristine', MAPPED, {'mapped-ram': False}),
        only_one_side('ferry', {'mapped-ram': False}, MAPPED),
        Case('file-mapped-analyzed', analyzed, **ours),
        Case('file-mapped-refused', refused, **ours),
        Case('file-mapped-cancelled', cancelled, **ours),
        Case('file-mapped-disk-full', disk_full, **ours),
        Case('file-mapped-cut-off', cut_off, **ours),
        Case('file-mapped-channels-cut-off',
             lambda lab: cut_off(lab, CHANNELS), **ours),
    ]
