# A guest that goes on before its memory was loaded from a file.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that goes on before its memory was loaded from a file.

With mapped-ram and postcopy-ram the destination starts the guest when its
devices are loaded.  The guest writes to its memory from then on, and in the end
all of it must be right.  How fast the rest is read is limited, so that there is
always something missing when it matters.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

from ferry.errors import FerryError
from ferry.migrate import set_caps, set_params
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.abilities import turned_on
from ferrytest.hugepages import HUGE as HUGE_PAGE, huge_pages
from ferrytest.suite import Case

from files import (CHANNELS, MAPPED, OFFSET, arrived, ended, fresh, save,
                   takes_direct)
from lab import MEMORY, Lab, check, wait_completed
from postcopy import SETTLED
from vhost_user import LEAST, READS, WRITES, booted, pages

POSTCOPY = {'postcopy-ram': True}
TRICKLE = 2 << 20       # bytes/s: minutes for all of the guest's memory
SHARED = f'memory-backend-memfd,id=mem,size={MEMORY}M,share=on'
HUGE = SHARED + ',hugetlb=on,hugetlbsize=2M'
NEEDS = ('file:', 'mapped-ram', 'postcopy-ram')


def incoming(lab: Lab, path: Path, caps: dict[str, bool], offset: int = 0,
             params: dict[str, Any] | None = None, **more: Any) -> VM:
    """A QEMU that loads PATH lazily."""
    target = lab.target('ferry', **more)
    set_caps(target, {**caps, **POSTCOPY})
    set_params(target, params or {})
    lab.guest.expect(target)
    target.qmp.cmd('migrate-incoming', {'uri': f'file:{path},offset={offset}',
                                        'exit-on-error': False})
    return target


def wait_running(target: VM, within: float = 20) -> dict:
    """Until the guest runs, with memory that is missing."""
    end = time.monotonic() + within
    while not target.qmp.cmd('query-status')['running']:
        info = target.qmp.cmd('query-migrate')
        check(info.get('status') != 'failed' and time.monotonic() < end,
              f'the guest is started: {info}')
        time.sleep(0.005)
    return target.qmp.cmd('query-migrate')


def restored(saver: str, name: str, caps: dict[str, bool], *,
             offset: int = 0, backend: str = '', rate: int = 0,
             full: bool = False, **params: Any) -> Case:
    """Saved by one, and restored lazily."""
    more = {'mem_backend': backend} if backend else {}

    def run(lab: Lab) -> str:
        if 'hugetlb' not in backend:
            return restore(lab)
        # one VM saves, and one loads
        with huge_pages(2 * MEMORY // HUGE_PAGE):
            try:
                return restore(lab)
            finally:
                lab.clear()

    def restore(lab: Lab) -> str:
        lab.boot(saver, **more)
        path = fresh(lab)
        if params.get('direct-io'):
            takes_direct(path)
        path.write_bytes(b'x' * offset)
        save(lab, path, offset, caps, **params)
        target = incoming(lab, path, caps, offset, {
            'max-postcopy-bandwidth': TRICKLE, **params}, **more)
        info = wait_running(target)
        check(info['status'] == 'postcopy-active',
              f'memory is missing when the guest runs: {info}')
        lab.observer.attach(target)
        lab.observer.wait_beats(target, SETTLED)
        set_params(target, {'max-postcopy-bandwidth': rate})
        wait_completed(target)
        arrived(lab, target)
        path.unlink()
        if backend:
            lab.clear()
        faults = info.get('progress', {}).get('faults', {})
        return (f'{faults.get("count")} faults when the guest ran, median '
                f'{faults.get("p50-us")} us')
    return Case(f'lazy-{name}-{saver}', run, full=full, kinds=(saver, 'ferry'),
                needs=(*NEEDS, *turned_on(caps)))


def spoils(name: str, spoil: Callable[[Path], None], word: str,
           full: bool = False) -> Case:
    """The file is not what it was while the guest runs: it is stopped."""
    def run(lab: Lab) -> str:
        lab.boot('ferry')
        path = fresh(lab)
        save(lab, path)
        target = incoming(lab, path, MAPPED, params={
            'max-postcopy-bandwidth': TRICKLE})
        wait_running(target)
        # Before, it may wait for a page with a lock that the monitor needs.
        lab.observer.attach(target)
        lab.observer.wait_beats(target, SETTLED)
        spoil(path)
        error = stopped_with(target, word)
        for command, arguments in (
                ('cont', {}), ('migrate-recover', {'uri': f'file:{path}'})):
            try:
                target.qmp.cmd(command, arguments)
                raise FerryError(f'{command} is executed')
            except QMPError:
                pass
        check(target.qmp.cmd('query-status')['status'] == 'internal-error',
              'the guest is still stopped')
        target.stop()       # it ends when it is told to, within a limit
        lab.clear()
        return f'"{error}"'
    return Case(f'lazy-{name}', run, full=full, needs=NEEDS)


def stopped_with(target: VM, word: str, within: float = 20) -> str:
    """Until the guest is stopped; why."""
    end = time.monotonic() + within
    while target.qmp.cmd('query-status')['status'] != 'internal-error':
        check(time.monotonic() < end, 'the guest is stopped: '
              f'{target.qmp.cmd("query-migrate")}')
        time.sleep(0.01)
    info = target.qmp.cmd('query-migrate')
    check(info['status'] == 'postcopy-paused', f'it says so: {info}')
    error = info['error-desc']
    check(word in error, f'the reason tells of "{word}": {error}')
    return error


def truncate(path: Path) -> None:
    """Half of it is gone."""
    os.truncate(path, path.stat().st_size // 2)


def write(path: Path) -> None:
    """One byte of memory changes, and nothing else."""
    with open(path, 'r+b') as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def with_backend(lab: Lab) -> str:
    """A disk that is another process waits for pages of the file as well."""
    with booted(lab, 'ferry') as disks:
        for place in (READS, WRITES):
            lab.guest.command(f'store {pages(place)}', 30)
        path = fresh(lab)
        save(lab, path)
        target, server = disks.vm(lab.target, 'ferry')
        set_caps(target, {**MAPPED, **POSTCOPY})
        set_params(target, {'max-postcopy-bandwidth': TRICKLE})
        lab.guest.expect(target)
        target.qmp.cmd('migrate-incoming', {'uri': f'file:{path}'})
        wait_running(target)
        lab.observer.attach(target)
        lab.guest.move_to(target)
        lab.guest.command(f'store {pages(WRITES)}', 60)
        faults = target.log_path.read_text(errors='replace').count(
            'postcopy_request_shared_page for')
        check(faults > LEAST, f'it waited for pages of the file: {faults}')
        set_params(target, {'max-postcopy-bandwidth': 0})
        wait_completed(target)
        lab.moved(target)
        server.check_alive()
        check(disks.holds(WRITES), 'the disk has been written to')
        verdict = lab.guest.verify()
        check(verdict.ok, verdict.detail)
        return f'{faults} faults of the backend'


def cut_off(lab: Lab) -> str:
    """A file of which the end is missing starts no guest."""
    lab.boot('ferry')
    path = fresh(lab)
    save(lab, path)
    part = fresh(lab)
    size = path.stat().st_size
    said = set()
    for length in (100, size // 3, size - 100_000, size - 1):
        subprocess.run(['cp', '--sparse=always', path, part], check=True)
        os.truncate(part, length)
        target = incoming(lab, part, MAPPED)
        error = ended(target)['error-desc']
        check(target.qmp.cmd('query-status')['status'] == 'inmigrate',
              'the guest was not started')
        said.add(error)
        # The same QEMU takes the file that is whole.
        if length == size - 1:
            target.qmp.cmd('migrate-incoming', {'uri': f'file:{path}'})
            wait_completed(target)
            arrived(lab, target)
        else:
            lab.drop(target)
    path.unlink()
    part.unlink()
    return '; '.join(f'"{error}"' for error in sorted(said))


def refused(lab: Lab) -> str:
    """What cannot be, by name, and before anything is touched."""
    source = lab.boot('ferry')
    said = []

    def must_refuse(vm: VM, word: str, command: str, arguments: dict) -> None:
        try:
            vm.qmp.cmd(command, arguments)
            raise FerryError(f'{command} is executed: {arguments}')
        except QMPError as err:
            check(word in err.desc, f'the error tells of {word}: {err.desc}')
            said.append(err.desc)
    set_caps(source, {**MAPPED, **POSTCOPY})
    must_refuse(source, 'postcopy-ram', 'migrate',
                {'uri': f'file:{fresh(lab)}'})
    must_refuse(source, 'postcopy-preempt', 'migrate-set-capabilities', {
        'capabilities': [{'capability': 'postcopy-preempt', 'state': True}]})
    target = lab.target('ferry')
    set_caps(target, {**MAPPED, **POSTCOPY})
    must_refuse(target, 'file:', 'migrate-incoming', {'uri': lab.uri('tcp')})
    must_refuse(target, 'regular file', 'migrate-incoming',
                {'uri': 'file:/dev/zero'})
    set_caps(source, {'mapped-ram': False, 'postcopy-ram': False})
    lab.must_go_on()
    return '; '.join(f'"{error}"' for error in said)


def quits(lab: Lab) -> str:
    """QEMU ends while memory is missing, as fast as ever."""
    lab.boot('ferry')
    path = fresh(lab)
    save(lab, path)
    target = incoming(lab, path, MAPPED, params={
        'max-postcopy-bandwidth': TRICKLE})
    wait_running(target)
    try:
        target.qmp.cmd('migrate-pause')
        raise FerryError('migrate-pause is executed')
    except QMPError as err:
        refusal = err.desc
    start = time.monotonic()
    target.stop()
    took = time.monotonic() - start
    check(took < 5, f'it ends: {took:.1f} s')
    lab.clear()
    path.unlink()
    return f'{took * 1000:.0f} ms; "{refusal}"'


def all_cases() -> list[Case]:
    """Kinds of files and memory, then what may go wrong."""
    return [
        restored('ferry', 'mapped', MAPPED),
        restored('pristine', 'mapped', MAPPED),
        restored('ferry', 'offset', MAPPED, offset=OFFSET, full=True),
        restored('ferry', 'direct', CHANNELS,
                 **{'multifd-channels': 3, 'direct-io': True}),
        restored('ferry', 'shared', MAPPED, backend=SHARED, full=True),
        restored('ferry', 'huge', CHANNELS, backend=HUGE),
        Case('lazy-vhost-user', with_backend, needs=NEEDS),
        spoils('truncated', truncate, 'the file'),
        spoils('written', write, 'changed', full=True),
        Case('lazy-cut-off', cut_off, needs=NEEDS),
        Case('lazy-refused', refused, needs=NEEDS),
        Case('lazy-quits', quits, needs=NEEDS),
    ]
