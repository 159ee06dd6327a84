# Postcopy of a guest whose disk is another process that has its memory mapped.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Postcopy of a guest whose disk is another process that has its memory mapped.

That process reads and writes the guest's memory where it lies, so it has to
wait for pages that are still at the source, as vCPUs do.  The guest makes it:
it writes pages to the disk that it has not touched since they were filled, and
reads others from there.  Those it has spoiled before, so if they are right in
the end the process has written to all of them.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import contextmanager
from typing import Callable, Iterator

from ferry.errors import FerryError
from ferry.link import Link
from ferry.migrate import set_caps, set_params, tcp_uri
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.abilities import Skip
from ferrytest.postcopy import ACTIVE
from ferrytest.suite import Case

from backend import Backend, may_refuse_everybody
from lab import FILL, MEMORY, WORK, Lab, check
from postcopy import (PLAIN, POINTS, PREEMPT, SPEED, Move, Way, cut, summary)

MEM = f'memory-backend-memfd,id=mem,size={MEMORY}M,share=on'
PAGES = 256             # in a MiB
EVENTS = ('postcopy_request_shared_page', 'vhost_user_postcopy_waker_found')

# MiB of the guest's fill: from where on, and how much.  What is before that the
# guest writes to by itself.
SOURCE_READS = (WORK, 8)        # from the disk, while the first pass is sent
READS = (WORK + 8, 28)          # from the disk, in postcopy
WRITES = (WORK + 36, 28)        # to the disk, in postcopy
LEAST = 3               # faults of the backend: hundreds, if the source is fast

# However long the guest takes for its disk, on a machine that is busy: the first
# pass does not end meanwhile, nor does all of its memory come unrequested.
DRIP = {'max-bandwidth': 256 << 10}
TRICKLE = {'max-postcopy-bandwidth': 2 << 20}

AGAIN = ',reconnect-ms=100'
COMES_BACK = 30.0       # s
SETTLE = 0.2            # s


def pages(place: tuple[int, int]) -> str:
    """As the guest takes it."""
    return f'{place[0] * PAGES} {place[1] * PAGES}'


class Disks:
    """The disk, and those who serve it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.image = lab.workdir / 'disk.img'
        with open(self.image, 'wb') as image:
            image.truncate(FILL << 20)
        try:
            os.close(os.open(self.image, os.O_RDWR | os.O_DIRECT))
        except OSError as err:
            raise Skip('the backend needs O_DIRECT, which this file system '
                       f'does not have: {err}') from None
        self.backends: list[Backend] = []

    def backend(self, able: bool = True) -> Backend:
        """One more."""
        new = Backend(self.lab.workdir, self.image, able)
        self.backends.append(new)
        return new

    def vm(self, make: Callable[..., VM], kind: str,
           able: bool = True, more: str = '') -> tuple[VM, Backend]:
        """A QEMU with one of its own."""
        server = self.backend(able)
        events = [word for event in EVENTS for word in ('-trace', event)]
        vm = make(kind, mem_backend=MEM, disk=True,
                  args=server.options(more) + events)
        return vm, server

    def holds(self, place: tuple[int, int]) -> bool:
        """Whether something was written to each page there."""
        with open(self.image, 'rb') as image:
            image.seek(place[0] << 20)
            return all(any(image.read(4096))
                       for _ in range(place[1] * PAGES))

    def close(self) -> None:
        """End them all."""
        for server in self.backends:
            server.stop()
        self.image.unlink()


class DiskMove(Move):
    """A migration of a guest with such a disk."""

    def __init__(self, lab: Lab, disks: Disks, target: VM, server: Backend,
                 way: Way, link: Link) -> None:
        super().__init__(lab, target, way, link, **TRICKLE)
        self.disks = disks
        self.server = server        # of the destination

    def work(self, command: str, place: tuple[int, int]) -> None:
        """Have the guest do something with pages."""
        self.guest.command(f'{command} {pages(place)}', 30)

    def start(self, when: Callable[[dict], bool]) -> None:
        """Begin, with a disk that is in use, and switch."""
        for place in (SOURCE_READS, READS):
            self.work('store', place)
            self.work('spoil', place)
        self.begin(tcp_uri(), self.via)
        self.wait_sent(when)
        set_params(self.source.vm, DRIP)
        self.work('fetch', SOURCE_READS)
        set_params(self.source.vm, {name: SPEED[name] for name in DRIP})
        self.switch()
        self.guest.move_to(self.target.vm)

    def wait_fault(self, before: int) -> None:
        """Wait until the backend wanted more than BEFORE."""
        end = time.monotonic() + COMES_BACK
        while self.faults() <= before:
            check(time.monotonic() < end, 'the backend wants a page')
            time.sleep(0.002)

    def faults(self) -> int:
        """How often the destination's asked for a page of the source's."""
        text = self.target.vm.log_path.read_text(errors='replace')
        return len(re.findall(r'postcopy_request_shared_page for', text))

    def use(self) -> int:
        """Have it read and write what is missing; how often it waited."""
        for command, place in (('fetch', READS), ('store', WRITES)):
            before = self.faults()
            self.work(command, place)
            check(self.source.status == ACTIVE, 'there is still something '
                  f'missing after "{command}"')
            check(self.faults() > before + LEAST, 'it waited for pages of the '
                  f'source: {self.faults() - before} times in "{command}"')
        return self.faults()

    def finish_with_disk(self) -> None:
        """All memory and all of the disk is right."""
        self.let_go()
        self.finish()
        self.server.check_alive()
        self.check_disk()

    def check_disk(self) -> None:
        """It holds what was written to it in postcopy."""
        check(self.disks.holds(WRITES), 'the disk has been written to')
        # What it holds is seen when it comes back.
        self.work('spoil', WRITES)
        check(not self.guest.verify().ok, 'the guest sees what is wrong')
        self.work('fetch', WRITES)
        verdict = self.guest.verify()
        check(verdict.ok, f'the disk holds what it was given: {verdict.detail}')


@contextmanager
def booted(lab: Lab, source: str) -> Iterator[Disks]:
    """A guest of its own with such a disk."""
    lab.clear()
    disks = Disks(lab)
    try:
        disks.vm(lab.boot_anew, source)
        lab.observer.wait_beats(lab.source, 200)
        yield disks
    finally:
        lab.clear()
        disks.close()


@contextmanager
def with_disk(lab: Lab, source: str, target: str, way: Way,
              more: str = '') -> Iterator[DiskMove]:
    """A migration of it about to begin."""
    with booted(lab, source) as disks:
        vm, server = disks.vm(lab.target, target, more=more)
        with Link() as link, \
             DiskMove(lab, disks, vm, server, way, link) as move:
            yield move


def served(source: str, target: str, way: Way, full: bool) -> Case:
    """The disk is used all the while."""
    def run(lab: Lab) -> str:
        with with_disk(lab, source, target, way) as move:
            move.start(POINTS['midway'])
            count = move.use()
            move.finish_with_disk()
            return f'{count} faults of the backend, {summary(move)}'
    return Case(f'{source}-{target}-vhost-user-{way.name}', run, False,
                (source, target), way.needs, full)


def unable(lab: Lab) -> str:
    """Who cannot wait for pages is named, and precopy goes on as ever."""
    if not may_refuse_everybody():
        raise Skip('userfaultfd needs no privilege here')
    with booted(lab, 'ferry') as disks:
        vm, server = disks.vm(lab.target, 'ferry', able=False)
        try:
            set_caps(vm, {'postcopy-ram': True})
        except QMPError as err:
            said = err.desc
        else:
            raise FerryError('the destination says that it can do postcopy')
        check(server.name in said and 'PAGEFAULT' in said
              and 'userfaultfd' in said, f'it says who and what: {said}')
        for command in ('store', 'spoil', 'fetch'):
            lab.guest.command(f'{command} {pages(READS)}', 30)
        lab.must_move(vm)
        server.check_alive()
    return f'"{said}"'


def dies(lab: Lab) -> str:
    """The backend ends while it waits for a page: the guest is none the worse.

    It comes back at once, but must not see memory that is not there.
    """
    with with_disk(lab, 'ferry', 'ferry', PLAIN, AGAIN) as move:
        move.start(POINTS['midway'])
        move.work('fetch', READS)
        vm, before = move.target.vm, move.faults()
        writes = threading.Thread(target=move.work, args=('store', WRITES))
        writes.start()
        move.wait_fault(before + LEAST)
        move.link.hold()
        time.sleep(SETTLE)      # until it waits, or the guest does
        move.server.kill()
        # What comes meanwhile is turned away, and comes again.
        refused = 0
        move.link.hold(False)
        while refused < 2:
            refused += revive(move.server)
            check(move.source.status == ACTIVE, 'something is still missing')
        move.let_go()
        move.finish(verify=False)
        end = time.monotonic() + COMES_BACK
        while writes.is_alive():
            check(time.monotonic() < end, 'the guest gets its disk back')
            revive(move.server)
            writes.join(0.05)
        vm.check_alive()
        said = vm.log_path.read_text(errors='replace')
        check(f'{move.server.name} has lost its backend' in said,
              'QEMU says that the backend has gone')
        check('has come after postcopy began' in said,
              'QEMU says why it turns the backend away')
        verdict = lab.guest.verify()
        check(verdict.ok, f'memory is right all the same: {verdict.detail}')
        move.check_disk()
        return f'turned away {refused} times; {summary(move)}'


def revive(server: Backend) -> bool:
    """Start it anew if it has ended; whether it had."""
    time.sleep(0.02)
    ended = not server.alive()
    if ended:
        server.start()
    return ended


def broken(source: str, target: str, way: Way) -> Case:
    """The network is cut while the backend waits."""
    def run(lab: Lab) -> str:
        with with_disk(lab, source, target, way) as move:
            move.start(POINTS['midway'])
            before = move.faults()
            reads = threading.Thread(target=move.work, args=('fetch', READS))
            reads.start()
            move.wait_fault(before)
            cut(move)
            move.wait_paused()
            move.again()
            reads.join(COMES_BACK)
            check(not reads.is_alive(), 'the backend gets what it wanted')
            move.work('store', WRITES)
            move.finish_with_disk()
            return f'{move.faults()} faults of the backend, {summary(move)}'
    return Case(f'{source}-{target}-vhost-user-{way.name}-cut', run, False,
                (source, target), way.needs, True)


def all_cases() -> list[Case]:
    """One that goes well and what may go wrong; the others with --full."""
    pairs = (('ferry', 'ferry'), ('pristine', 'ferry'))
    return [
        *(served(*pair, way, (pair, way) != (pairs[0], PLAIN))
          for pair in pairs for way in (PLAIN, PREEMPT)),
        # As a destination the base never learns that the backend's pages have
        # come: with preempt it waits for them in the end, and it cannot ask for
        # them again after a pause.
        served('ferry', 'pristine', PLAIN, True),
        *(broken(*pair, PLAIN) for pair in pairs),
        broken('ferry', 'ferry', PREEMPT),
        Case('ferry-ferry-vhost-user-unable', unable, False, ('ferry',),
             PLAIN.needs),
        Case('ferry-ferry-vhost-user-dies', dies, False, ('ferry',),
             PLAIN.needs),
    ]
