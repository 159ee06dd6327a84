# Snapshots of a guest that goes on.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots of a guest that goes on (background-snapshot).

The guest writes to its memory while that is written to a file.  Then another
QEMU loads the file: the guest counts what it has written to each page, and all
of its memory must be of one moment.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from ferry.migrate import set_caps, set_params
from ferry.vm import VM
from ferrytest.suite import Case

from files import arrived, ended, fresh, small_disk
from lab import FAST, MEMORY, Lab, check, wait_completed

SNAPSHOT = {'background-snapshot': True}
MAPPED = {'background-snapshot': True, 'mapped-ram': True}
WRITES = 6000           # pages/s
FEW_WRITES = 300        # of a guest for which nothing is written to the end
SHARED = f'memory-backend-memfd,id=mem,size={MEMORY}M,share=on'
NEEDS = ('background-snapshot', 'file:')
NEVER_READ = 'exec:sleep 60'


def begin(lab: Lab, uri: str, caps: dict[str, bool],
          rate: int = WRITES) -> VM:
    """Start a snapshot of a guest that writes."""
    source = lab.source
    lab.guest.set_rate(rate)
    set_params(source, FAST)
    set_caps(source, caps)
    source.qmp.cmd('migrate', {'uri': uri})
    return source


@dataclass(frozen=True)
class Taken:
    """A snapshot."""
    path: Path
    caps: dict[str, bool]
    info: dict              # of query-migrate
    writes: tuple[int, int]     # the guest had done, before and after


def take(lab: Lab, caps: dict[str, bool], path: Path | None = None) -> Taken:
    """One snapshot; the guest goes on all the while."""
    path = path or fresh(lab)
    before = lab.guest.status()['writes']
    source = begin(lab, f'file:{path}', caps)
    wait_completed(source)
    info = source.qmp.cmd('query-migrate')
    after = lab.guest.status()['writes']
    check(after > before, 'the guest writes meanwhile')
    lab.must_go_on()
    return Taken(path, caps, info, (before, after))


def load(lab: Lab, target: VM, taken: Taken) -> None:
    """The guest of the snapshot must be right, in each page, and of its time."""
    set_caps(target, {'mapped-ram': taken.caps.get('mapped-ram', False)})
    lab.source.qmp.cmd('stop')
    lab.guest.expect(target)
    target.qmp.cmd('migrate-incoming', {'uri': f'file:{taken.path}'})
    wait_completed(target)
    arrived(lab, target, went_back=True)
    writes = lab.guest.status()['writes']
    check(writes >= taken.writes[0], 'it is of no moment before the command: '
          f'{writes} writes, {taken.writes[0]} then')
    taken.path.unlink()


def taken(target: str, name: str, caps: dict[str, bool], backend: str = '',
          full: bool = False) -> Case:
    """Two of a guest, of which the second is loaded."""
    def run(lab: Lab) -> str:
        more = {'mem_backend': backend} if backend else {}
        lab.boot('ferry', **more)
        first = take(lab, caps)
        last = take(lab, caps, first.path)
        load(lab, lab.target(target, **more), last)
        info = last.info
        if backend:
            lab.clear()
        served = info['ram'].get('postcopy-requests', 0)
        return (f'{info["ram"]["transferred"] >> 20} MiB in '
                f'{info["total-time"]} ms, the guest stood still for '
                f'{info["downtime"]} ms and waited for {served} pages')
    return Case(f'background-{name}-{target}', run, full=full,
                kinds=('ferry', target), needs=NEEDS)


def paused(lab: Lab) -> str:
    """Of a guest that is paused, which stays so, here and there."""
    source = lab.boot('ferry')
    source.qmp.cmd('stop')
    path = fresh(lab)
    set_params(source, FAST)
    set_caps(source, SNAPSHOT)
    source.qmp.cmd('migrate', {'uri': f'file:{path}'})
    wait_completed(source)
    check(source.qmp.cmd('query-status')['status'] == 'paused',
          'the guest is still paused')
    target = lab.target('ferry')
    lab.guest.expect(target)
    target.qmp.cmd('migrate-incoming', {'uri': f'file:{path}'})
    wait_completed(target)
    check(target.qmp.cmd('query-status')['status'] == 'paused',
          'that of the snapshot is paused')
    target.qmp.cmd('cont')
    arrived(lab, target)
    path.unlink()
    return 'paused here and there'


def cancelled(lab: Lab) -> str:
    """While nothing is read: the guest goes on, and commands are answered.

    The guest writes to less memory than is kept for it, so that no vCPU waits
    for memory with the BQL held.
    """
    lab.boot('ferry')
    source = begin(lab, NEVER_READ, SNAPSHOT, FEW_WRITES)
    lab.observer.wait_beats(source, 500)
    info = source.qmp.cmd('query-migrate')
    check(info['status'] == 'active', f'nothing is read: {info}')
    start = time.monotonic()
    source.qmp.cmd('migrate_cancel')
    while (status := source.qmp.cmd('query-migrate')['status']) != 'cancelled':
        check(time.monotonic() - start < 5, f'it is cancelled: {status}')
        time.sleep(0.01)
    took = time.monotonic() - start
    lab.must_go_on()
    load(lab, lab.target('ferry'), take(lab, SNAPSHOT))
    return f'cancelled in {took * 1000:.0f} ms'


def stalled(lab: Lab) -> str:
    """What it is written to takes nothing: the guest does not wait for ever."""
    lab.boot('ferry')
    source = begin(lab, NEVER_READ, SNAPSHOT)
    error = ended(source, 30)['error-desc']
    check('waited for 10 s' in error, f'the error says why: {error}')
    lab.must_go_on()
    load(lab, lab.target('ferry'), take(lab, SNAPSHOT))
    return f'"{error}"'


def disk_full(lab: Lab) -> str:
    """The disk is full: the guest goes on."""
    check(os.geteuid() == 0, 'only root can mount a small file system')
    lab.boot('ferry')
    with small_disk(lab, 40) as where:
        error = ended(begin(lab, f'file:{where}/snapshot', SNAPSHOT))['error-desc']
        check('No space left' in error, f'the error says why: {error}')
    lab.must_go_on()
    set_caps(lab.source, dict.fromkeys(SNAPSHOT, False))
    lab.must_move(lab.target('ferry'))
    return f'"{error}"'


def all_cases() -> list[Case]:
    """Forms of files and memory, then what may go wrong."""
    return [
        taken('ferry', 'plain', SNAPSHOT),
        taken('pristine', 'plain', SNAPSHOT, full=True),
        taken('ferry', 'mapped', MAPPED, full=True),
        taken('pristine', 'mapped', MAPPED),
        taken('ferry', 'shared', SNAPSHOT, SHARED),
        Case('background-paused', paused, needs=NEEDS),
        Case('background-cancelled', cancelled, needs=(*NEEDS, 'exec:')),
        Case('background-stalled', stalled, full=True,
             needs=(*NEEDS, 'exec:')),
        Case('background-disk-full', disk_full, needs=NEEDS),
    ]
