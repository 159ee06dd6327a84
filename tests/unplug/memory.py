# virtio-mem: memory of which only parts are plugged.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-mem: memory of which only parts are plugged.

What is not plugged is neither sent nor does it take memory on the other side.
"""

from __future__ import annotations

import copy
import re
import struct
import time
from pathlib import Path
from typing import Callable

from ferry.errors import FerryError
from ferrytest.suite import Case
from ferrytest.wait import until
from cases import Lab
from machine import PAGE, SLOW, Machine
from virtio import VERSION_1, Card

SLOT = 4
SIZE = 256              # MiB
START = 1 << 32         # address of the device's memory
BLOCK = 2 << 20
PLUGGED = tuple(range(3, 40, 2))        # blocks, none next to another
WANTED = 128            # MiB: the guest may have more than it has taken
PLUG, UNPLUG = 0, 1
ACK, BUSY = 0, 2
INACCESSIBLE = 1        # a feature: unplugged memory is not even read
SLACK = 64              # pages that may be resident besides
SHARED = 'x-ignore-shared'


class Guest(Machine):
    """A machine without a vCPU, with such a device."""

    def __init__(self, lab: Lab, kind: str, incoming: bool = False,
                 backend: str = 'memory-backend-ram',
                 args: tuple[str, ...] = ()) -> None:
        super().__init__(
            kind, lab.folder, None, (
                '-m', 'maxmem=2G', '-object',
                f'{backend},id=part,size={SIZE}M', '-device',
                f'virtio-mem-pci,id=vm,memdev=part,addr={SLOT},'
                f'block-size={BLOCK},requested-size={WANTED}M,'
                f'memaddr={START}', *args), 'q35', incoming=incoming,
            accelerator='qtest')
        lab.all.append(self)
        self.card = Card(self, SLOT)

    def change(self, what: int, block: int) -> int:
        """Ask the device to plug or unplug a block; return what it says."""
        answer = self.card.request(
            struct.pack('<HxxxxxxQHxxxxxx', what, START + block * BLOCK, 1),
            10)
        return struct.unpack('<H', answer[:2])[0]

    def plug(self) -> None:
        """Some blocks, each with content of its own."""
        self.card.start(VERSION_1, INACCESSIBLE, queue=True)
        for block in PLUGGED:
            if self.change(PLUG, block) != ACK:
                raise FerryError(f'block {block} cannot be plugged')
            self.qtest(f'memset {START + block * BLOCK:#x} {BLOCK:#x} '
                       f'{block + 1:#x}')

    def takes_over(self, other: Guest) -> None:
        """The driver goes on here."""
        self.card = copy.copy(other.card)
        self.card.machine = self

    def check_content(self) -> None:
        """All that was plugged is there, first and last pages at least."""
        for block in PLUGGED:
            for offset in (0, BLOCK // 2, BLOCK - PAGE):
                got = bytes.fromhex(self.qtest(
                    f'read {START + block * BLOCK + offset:#x} {PAGE:#x}')[2:])
                if got != bytes([block + 1]) * PAGE:
                    raise FerryError(f'block {block}: its content is lost')

    def resident(self) -> int:
        """Pages of the device's memory that exist in this process."""
        path = Path(f'/proc/{self.vm.pid}/smaps')
        found = re.findall(r'\nSize: +(\d+) kB(?:\n.*?)*?\nRss: +(\d+) kB',
                           path.read_text())
        pages = sum(int(rss) // 4 for size, rss in found
                    if int(size) == SIZE << 10)
        whole = [size for size, _ in found if int(size) == SIZE << 10]
        if len(whole) != 1:
            raise FerryError(f'{len(whole)} mappings of {SIZE} MiB')
        return pages

    def check_resident(self, most: int) -> None:
        """No more than what is plugged takes memory."""
        pages = self.resident()
        if pages > most + SLACK:
            raise FerryError(f'{pages} pages are resident, {most} plugged')


PAGES = len(PLUGGED) * BLOCK // PAGE


def sent(side: Machine) -> int:
    """Pages that were sent with content."""
    return side.info()['ram']['normal']


def began(lab: Lab, peer: str, *caps: str, slow: bool = False,
          backend: str = 'memory-backend-ram') -> tuple[Guest, Guest]:
    """A migration has begun."""
    src = Guest(lab, 'ferry', backend=backend)
    dst = Guest(lab, peer, True, backend)
    src.plug()
    src.check_resident(PAGES)
    if slow:
        src.params(max_bandwidth=SLOW, downtime_limit=1)
    lab.begin(src, dst, *caps)
    return src, dst


def arrived(src: Guest, dst: Guest, pages: int = PAGES) -> None:
    """It completes: content is there, and nothing else."""
    src.params(max_bandwidth=0, max_postcopy_bandwidth=0, downtime_limit=1000)
    src.completes()
    until(lambda: dst.cmd('query-status')['status'] == 'running',
          'the guest runs on the destination')
    if sent(src) > pages + 2 * (64 << 20) // PAGE // 8:
        raise FerryError(f'{sent(src)} pages were sent')
    src.check_resident(PAGES)
    dst.check_resident(PAGES)
    dst.check_content()
    dst.takes_over(src)
    spare = PLUGGED[0] + 1
    for what in (PLUG, UNPLUG):
        until(lambda w=what: dst.change(w, spare) == ACK,
              'blocks can be plugged and unplugged on the destination')
    dst.check_resident(PAGES)


def precopy(peer: str, *caps: str) -> Callable[[Lab], None]:
    """Plainly."""
    def test(lab: Lab) -> None:
        arrived(*began(lab, peer, *caps))
    return test


def resized(lab: Lab) -> None:
    """Neither a wish nor the guest changes anything in the middle."""
    src, dst = began(lab, 'ferry', slow=True)
    src.until('active')
    for size, what, block in ((SIZE, PLUG, PLUGGED[0] + 1),
                              (16, UNPLUG, PLUGGED[0])):
        src.cmd('qom-set', path='/machine/peripheral/vm',
                property='requested-size', value=size << 20)
        if src.change(what, block) != BUSY:
            raise FerryError('the guest can plug memory in the middle')
    arrived_but_unplug(src, dst)


def arrived_but_unplug(src: Guest, dst: Guest) -> None:
    """As arrived(), where more is plugged than is wanted."""
    src.params(max_bandwidth=0, downtime_limit=1000)
    src.completes()
    dst.check_resident(PAGES)
    dst.check_content()
    dst.takes_over(src)
    until(lambda: dst.change(UNPLUG, PLUGGED[0]) == ACK,
          'the guest can unplug on the destination')
    dst.check_resident(PAGES - BLOCK // PAGE)


def postcopy(peer: str, *caps: str) -> Callable[[Lab], None]:
    """The guest reads what it has, and what it has not, as it arrives."""
    def test(lab: Lab) -> None:
        src, dst = began(lab, peer, 'postcopy-ram', *caps, slow=True)
        src.until('active')
        time.sleep(0.3)
        src.params(max_postcopy_bandwidth=SLOW)
        src.cmd('migrate-start-postcopy')
        src.until('postcopy-active')
        dst.check_resident(PAGES)
        arrived(src, dst)
    return test


def shared(lab: Lab) -> None:
    """Both sides have the same memory: none is sent, none is lost."""
    path = Path('/dev/shm') / f'{lab.folder.name}-memory'
    backend = f'memory-backend-file,mem-path={path},share=on'
    try:
        src, dst = began(lab, 'ferry', SHARED, backend=backend)
        arrived(src, dst, 0)
        for side in (src, dst):
            side.stop()
            lab.all.remove(side)
    finally:
        path.unlink(missing_ok=True)


def snapshot(lab: Lab) -> None:
    """What was unplugged at the time is so again."""
    path = lab.folder / 'disk'
    side = Guest(lab, 'ferry')
    create(side, path)
    side.cmd('blockdev-add', driver='qcow2', node_name='disk',
             file={'driver': 'file', 'filename': str(path)})
    side.plug()
    job(side, 'snapshot-save')
    extra = PLUGGED[0] + 1
    if side.change(PLUG, extra) != ACK:
        raise FerryError('a block cannot be plugged')
    for block in (extra, *PLUGGED):
        side.qtest(f'memset {START + block * BLOCK:#x} {BLOCK:#x} 0xff')
    job(side, 'snapshot-load')
    side.check_content()
    side.check_resident(PAGES)
    if path.stat().st_size > (PAGES * PAGE) * 1.2 + (16 << 20):
        raise FerryError(f'the snapshot takes {path.stat().st_size >> 20} MiB')


def create(side: Machine, path: Path) -> None:
    """A qcow2 image."""
    for number, options in enumerate((
            {'driver': 'file', 'filename': str(path), 'size': 0},
            {'driver': 'qcow2', 'size': 1 << 30, 'file':
             {'driver': 'file', 'filename': str(path)}})):
        side.cmd('blockdev-create', job_id=f'c{number}', options=options)
        wait_job(side, f'c{number}')


def wait_job(side: Machine, name: str) -> None:
    """Wait for a job to conclude."""
    def concluded() -> dict | None:
        return next((entry for entry in side.cmd('query-jobs')
                     if entry['id'] == name
                     and entry['status'] == 'concluded'), None)
    state = until(concluded, f'job {name} concludes')
    side.cmd('job-dismiss', id=name)
    if 'error' in state:
        raise FerryError(state['error'])


def job(side: Machine, what: str) -> None:
    """Save or load the snapshot."""
    side.cmd(what, job_id=what, tag='one', vmstate='disk', devices=['disk'])
    wait_job(side, what)


def cases() -> list[Case]:
    """All of them."""
    return [Case('virtio-mem/precopy', precopy('ferry')),
            Case('virtio-mem/precopy/pristine', precopy('pristine')),
            Case('virtio-mem/xbzrle', precopy('ferry', 'xbzrle')),
            Case('virtio-mem/resized', resized),
            Case('virtio-mem/postcopy', postcopy('ferry')),
            Case('virtio-mem/postcopy/pristine', postcopy('pristine')),
            Case('virtio-mem/preempt', postcopy('ferry', 'postcopy-preempt')),
            Case('virtio-mem/ignore-shared', shared),
            Case('virtio-mem/snapshot', snapshot)]
