# Files that whoever manages QEMU has opened.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that whoever manages QEMU has opened.

libvirt saves a guest so with the format "sparse": it writes a header of its own
to a file, and gives QEMU the descriptor in an fdset, with one more that is open
with O_DIRECT where memory is to go past the page cache.  QEMU migrates to
"file:/dev/fdset/N,offset=LENGTH", and the header is completed afterwards.  A
guest is restored with descriptors that QEMU is started with (-add-fd).

A descriptor of an fdset shares its position and its flags with all that were
made from it: the header, and where each part of the stream goes, tell whether
some channel relies on a position of its own.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

from ferry.errors import FerryError
from ferry.migrate import ENDED, set_caps, set_params
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.abilities import turned_on
from ferrytest.suite import Case

from files import (CHANNELS, MAPPED, PAIRS, arrived, ended, fresh,
                   takes_direct)
from lab import FAST, Lab, check, wait_completed
from lazy import POSTCOPY, TRICKLE, wait_running

HEADER = b'LibvirtQemudPart' + b'<domain/>' * 900 + bytes(65537)
DONE = b'LibvirtQemudSave'
SAVING, RESTORING = 7, 3        # fdsets
STREAM = {'mapped-ram': False}
PARALLEL = {'multifd-channels': 3}
DIRECT = {'multifd-channels': 2, 'direct-io': True}


def uri(number: int) -> str:
    """What QEMU is told of the file."""
    return f'file:/dev/fdset/{number},offset={len(HEADER):#x}'


@contextmanager
def opened(path: Path, flags: int, direct: bool) -> Iterator[list[int]]:
    """The file, and once more past the page cache if DIRECT."""
    fds = []
    try:
        fds.append(os.open(path, flags, 0o600))
        if direct:
            fds.append(os.open(path, flags & os.O_ACCMODE | os.O_DIRECT))
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def give(vm: VM, fds: list[int]) -> None:
    """Have them in an fdset that was not there."""
    check(all(row['fdset-id'] != SAVING
              for row in vm.qmp.cmd('query-fdsets')), 'there was none')
    for fd in fds:
        vm.qmp.cmd('add-fd', {'fdset-id': SAVING, 'opaque': f'saving-{fd}'},
                   fds=[fd])


def taken_back(vm: VM, number: int) -> None:
    """The fdset is removed, and nobody has a descriptor of it any more."""
    vm.qmp.cmd('remove-fd', {'fdset-id': number})
    left = [os.readlink(f'/proc/{vm.pid}/fd/{fd}')
            for fd in os.listdir(f'/proc/{vm.pid}/fd')
            if os.path.exists(f'/proc/{vm.pid}/fd/{fd}')]
    check(vm.qmp.cmd('query-fdsets') == [], 'it is gone')
    check(not any('saved-' in name for name in left),
          f'the file is closed: {left}')


def settings(vm: VM, caps: dict[str, bool], params: dict[str, Any]) -> None:
    """Those of a save or of a restore."""
    set_caps(vm, caps)
    set_params(vm, {**FAST, 'max-bandwidth': 0, **params})


def save(lab: Lab, path: Path, caps: dict[str, bool],
         params: dict[str, Any], live: bool) -> None:
    """Save the guest, which is stopped unless LIVE."""
    source = lab.source
    assert source is not None
    if not live:
        source.qmp.cmd('stop')
    settings(source, caps, params)
    with opened(path, os.O_WRONLY | os.O_TRUNC | os.O_CREAT,
                params.get('direct-io', False)) as fds:
        os.write(fds[0], HEADER)
        give(source, fds)
    source.qmp.cmd('migrate', {'uri': uri(SAVING)})
    wait_completed(source)
    taken_back(source, SAVING)
    check(path.read_bytes()[:len(HEADER)] == HEADER, 'the header is there')
    with path.open('r+b') as file:
        file.write(DONE)


@contextmanager
def restoring(lab: Lab, kind: str, path: Path, direct: bool = False
              ) -> Iterator[VM]:
    """A QEMU that was started with the file, which it is to load."""
    with opened(path, os.O_RDONLY, direct) as fds:
        added = [word for fd in fds for word in (
            '-add-fd', f'set={RESTORING},fd={fd},opaque=restoring-{fd}')]
        target = lab.target(kind, args=added, fds=fds, paused=True)
    yield target
    if target.alive():
        taken_back(target, RESTORING)


def moves(source: str, target: str, name: str, caps: dict[str, bool], *,
          live: bool = False, full: bool = False, **params: Any) -> Case:
    """Saved by one, and restored in the other."""
    direct = params.get('direct-io', False)

    def run(lab: Lab) -> str:
        lab.boot(source)
        path = fresh(lab)
        if direct:
            takes_direct(path)
        save(lab, path, caps, params, live)
        with restoring(lab, target, path, direct) as vm:
            settings(vm, caps, params)
            lab.guest.expect(vm)
            vm.qmp.cmd('migrate-incoming', {'uri': uri(RESTORING)})
            wait_completed(vm)
            vm.qmp.cmd('cont')
            arrived(lab, vm)
        size, used = path.stat().st_size, path.stat().st_blocks * 512
        check(not caps['mapped-ram'] or used < size,
              f'the file has holes: {used} of {size}')
        path.unlink()
        return f'{used >> 20} of {size >> 20} MiB'
    return Case(f'file-passed-{name}-{source}-{target}', run, full=full,
                kinds=(source, target), needs=('file:', *turned_on(caps)))


def lazily(name: str, caps: dict[str, bool], *, full: bool = False,
           **params: Any) -> Case:
    """The guest runs before its memory is read from descriptors."""
    direct = params.get('direct-io', False)

    def run(lab: Lab) -> str:
        lab.boot('ferry')
        path = fresh(lab)
        if direct:
            takes_direct(path)
        save(lab, path, caps, params, True)
        with restoring(lab, 'ferry', path, direct) as vm:
            settings(vm, {**caps, **POSTCOPY}, {
                'max-postcopy-bandwidth': TRICKLE, **params})
            lab.guest.expect(vm)
            vm.qmp.cmd('migrate-incoming', {'uri': uri(RESTORING)})
            wait_status(vm, 'postcopy-active')
            vm.qmp.cmd('cont')
            info = wait_running(vm)
            set_params(vm, {'max-postcopy-bandwidth': 0})
            wait_completed(vm)
            arrived(lab, vm)
        path.unlink()
        return f'{info["status"]} when the guest ran'
    return Case(f'lazy-passed-{name}', run, full=full, needs=(
        'file:', 'postcopy-ram', *turned_on(caps)))


def wait_status(vm: VM, status: str, within: float = 20) -> None:
    """Until the migration has it."""
    end = time.monotonic() + within
    while (info := vm.qmp.cmd('query-migrate')).get('status') != status:
        check(info.get('status') not in ENDED and time.monotonic() < end,
              f'it becomes {status}: {info}')
        time.sleep(0.005)


def wrong(lab: Lab) -> str:
    """What the descriptors are not good for is refused, and the guest goes on.
    """
    source = lab.boot('ferry')
    path = fresh(lab)
    takes_direct(path)
    path.write_bytes(HEADER)
    said = []
    for what, flags, params in (
            ('only to be read', os.O_RDONLY, PARALLEL),
            ('without one for O_DIRECT', os.O_WRONLY, DIRECT)):
        settings(source, CHANNELS, {'direct-io': False, **params})
        with opened(path, flags, False) as fds:
            give(source, fds)
        try:
            source.qmp.cmd('migrate', {'uri': uri(SAVING)})
            said.append(ended(source)['error-desc'])
        except QMPError as err:
            said.append(err.desc)
        check('flags' in said[-1], f'{what}: the error names it: {said[-1]}')
        taken_back(source, SAVING)
        lab.must_go_on()
    check(path.read_bytes() == HEADER, 'the header is there')
    try:
        source.qmp.cmd('migrate', {'uri': uri(SAVING)})
        raise FerryError('an fdset that is not there is accepted')
    except QMPError as err:
        said.append(err.desc)
    lab.must_go_on()
    set_params(source, {'direct-io': False})
    path.unlink()
    return '; '.join(f'"{error}"' for error in said)


def all_cases() -> list[Case]:
    """As libvirt does it, then what it does not do."""
    return [
        *(moves(*pair, 'sparse', MAPPED) for pair in PAIRS),
        *(moves(*pair, 'parallel', CHANNELS, full=True,
                **PARALLEL) for pair in PAIRS),
        *(moves(*pair, 'direct', CHANNELS, **DIRECT) for pair in PAIRS),
        *(moves(*pair, 'stream', STREAM, full=True) for pair in PAIRS),
        *(moves(*pair, 'live', CHANNELS, live=True, full=True, **DIRECT)
          for pair in PAIRS),
        lazily('sparse', MAPPED, full=True),
        lazily('direct', CHANNELS, **DIRECT),
        Case('file-passed-wrong', wrong, needs=('file:', 'mapped-ram',
                                                'multifd')),
    ]
