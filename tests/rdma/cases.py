# Migrations over RDMA, on whatever device there is.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations over RDMA, on whatever device there is.

The guest is a firmware that changes 2 MiB of memory all the time; 16 MiB more
are random.  After each migration the memory of both sides is compared byte for
byte: the source has stopped, and the destination waits for 'cont'.
"""

from __future__ import annotations

import filecmp
import os
import time
from pathlib import Path
from typing import Callable, Iterator

from ferry.errors import FerryError
from ferry.migrate import set_caps, set_params
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.suite import Case, check

MEMORY = 64                     # MiB
RANDOM = (16 << 20, 16 << 20)   # where, and how much
LOW = 1 << 20                   # below are holes
CHANGED = 0x400000              # a page that the firmware changes
ENDED = ('completed', 'failed', 'cancelled')
MEASURED = ('live', 'pinned', 'held', 'postcopy')
PAIRS = (('ferry', 'ferry'), ('ferry', 'pristine'), ('pristine', 'ferry'))


class Place:
    """Where cases run: the address, the firmware, how patient to be."""

    def __init__(self, address: str, firmware: Path, patience: float) -> None:
        self.address = address
        self.firmware = firmware
        self.patience = patience
        self._port = 7800

    def uri(self) -> str:
        """A new address to listen at."""
        self._port += 1
        return f'rdma:{self.address}:{self._port}'


class Pair:
    """A source whose guest runs, and destinations."""

    def __init__(self, place: Place, folder: Path, kinds: tuple[str, str],
                 caps: tuple[str, ...] = (), paused: bool = False) -> None:
        self.place = place
        self.folder = folder
        self.kinds = kinds
        self.caps = {name: True for name in caps}
        self._ended: list[VM] = []
        noise = folder / 'random'
        noise.write_bytes(os.urandom(RANDOM[1]))
        self.src = self._vm('src', kinds[0], paused=paused, more=(
            '-device', f'loader,file={noise},addr={RANDOM[0]:#x},'
                       'force-raw=on'))
        # A slow machine sends slowly, and its guest changes as much.
        set_params(self.src, {'downtime-limit': int(500 * place.patience)})
        self.uri = ''
        self.dst = self.listen()

    def _vm(self, name: str, kind: str, *, paused: bool = False,
            incoming: str | None = None, more: tuple[str, ...] = ()) -> VM:
        vm = VM(kind, name, self.folder, MEMORY, serial=False, paused=paused,
                incoming=incoming, accelerator='tcg',
                args=('-bios', str(self.place.firmware), *more))
        self._ended.append(vm)
        vm.start()
        set_caps(vm, self.caps)
        return vm

    def listen(self) -> VM:
        """One more destination, at a new address."""
        self.uri = self.place.uri()
        self.dst = self._vm(f'dst{len(self._ended)}', self.kinds[1],
                            paused=True, incoming='defer')
        self.dst.qmp.cmd('migrate-incoming', {'uri': self.uri})
        return self.dst

    def wait(self, phases: tuple[str, ...] = ENDED) -> dict:
        """Until the source says that one of PHASES has come."""
        end = time.monotonic() + 30 * self.place.patience
        while time.monotonic() < end:
            # Pristine answers nothing while it registers memory.
            info = self.src.qmp.cmd('query-migrate',
                                    timeout=10 * self.place.patience)
            if info.get('status') in phases:
                return info
            time.sleep(0.02)
        raise FerryError(f'the source is still "{info.get("status")}"')

    def migrate(self, uri: str = '') -> dict:
        """Migrate, and return what the source says at the end."""
        self.src.qmp.cmd('migrate', {'uri': uri or self.uri})
        return self.wait()

    def same_memory(self) -> None:
        """Compare all of it, and see that the guest can go on."""
        files = [self.folder / 'src.ram', self.folder / 'dst.ram']
        end = time.monotonic() + 10 * self.place.patience
        while self.dst.qmp.cmd('query-status')['status'] == 'inmigrate':
            check(time.monotonic() < end, 'the destination has the guest')
            time.sleep(0.02)
        for vm, file in zip((self.src, self.dst), files):
            vm.qmp.cmd('pmemsave', {'val': LOW, 'filename': str(file),
                                    'size': (MEMORY << 20) - LOW},
                       timeout=10 * self.place.patience)
        check(filecmp.cmp(*files, shallow=False),
              'memory is the same on both sides')
        with open(files[1], 'rb') as ram:
            ram.seek(RANDOM[0] - LOW)
            check((self.folder / 'random').read_bytes() == ram.read(RANDOM[1]),
                  'the random part is what it was')
        self.dst.qmp.cmd('cont')
        self.runs(self.dst)

    def runs(self, vm: VM) -> None:
        """The guest changes its memory on this side."""
        def word() -> bytes:
            file = self.folder / 'word'
            vm.qmp.cmd('pmemsave', {'val': CHANGED, 'size': 4,
                                    'filename': str(file)})
            return file.read_bytes()
        before = word()
        end = time.monotonic() + 10 * self.place.patience
        while word() == before:
            check(time.monotonic() < end, f'the guest runs on {vm.name}')
            time.sleep(0.02)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_exc: object) -> None:
        for vm in self._ended:
            vm.stop()


def completed(info: dict) -> str:
    """The figures of a migration that must have succeeded."""
    check(info['status'] == 'completed',
          f'the migration is completed: {info["status"]}, '
          f'{info.get("error-desc", "")}')
    return (f'total {info["total-time"]} ms, downtime {info["downtime"]} ms, '
            f'{info["ram"]["transferred"] >> 10} KiB')


def failed(info: dict, *words: str) -> str:
    """Why it failed, which must have WORDS in it."""
    why = info.get('error-desc', '')
    check(info['status'] == 'failed', f'it fails: {info["status"]}')
    for word in words:
        check(word in why, f'"{word}" is said: {why}')
    return why


def moves(place: Place, kinds: tuple[str, str], caps: tuple[str, ...],
          paused: bool) -> Callable[[Path], str]:
    """A migration that must succeed."""
    def run(folder: Path) -> str:
        with Pair(place, folder, kinds, caps, paused) as pair:
            if not paused:
                pair.runs(pair.src)
            said = completed(pair.migrate())
            pair.same_memory()
            return said
    return run


# The device that does not exist: the third queue pair of a process, which is
# the destination's first one for writes, and by how many microseconds these
# are late.
SLOW = {'VERBS_SLOW': '3:20000'}


def several(place: Place, kinds: tuple[str, str],
            env: dict[str, str]) -> Callable[[Path], str]:
    """Four queue pairs, or as many as the destination accepts."""
    def run(folder: Path) -> str:
        os.environ.update(env)
        try:
            pair = Pair(place, folder, kinds, ('return-path',))
        finally:
            for name in env:
                del os.environ[name]
        with pair:
            set_params(pair.src, {'x-rdma-queue-pairs': 4})
            pair.runs(pair.src)
            said = completed(pair.migrate())
            pair.same_memory()
            warned = 'accepts 1 queue pairs' in \
                (folder / 'src.log').read_text()
            check(warned == (kinds[1] == 'pristine'),
                  f'fewer are warned of: {warned}')
            return said
    return run


def strict(place: Place) -> Callable[[Path], str]:
    """A switchover that is held, and started by COMMIT."""
    def run(folder: Path) -> str:
        with Pair(place, folder, ('ferry', 'ferry'),
                  ('return-path', 'strict-downtime')) as pair:
            pair.runs(pair.src)
            info = pair.migrate()
            said = completed(info)
            pair.same_memory()
            held = info['progress']['strict']
            check(not held['one-sided'], f'the destination holds: {held}')
            return f'{said}, attempts: {held["attempts"]}'
    return run


class Copied(Pair):
    """A pair whose guest runs on the destination before its memory is there.

    So it is compared with what the source still has: the part that is random
    and does not change.
    """

    def begin(self, rate: int) -> None:
        """Until the guest runs on the destination, its memory at RATE."""
        # It must not be over before postcopy is requested.
        set_params(self.src, {'max-bandwidth': 8 << 20, 'downtime-limit': 1,
                              'max-postcopy-bandwidth': rate})
        self.src.qmp.cmd('migrate', {'uri': self.uri})
        self.wait(('active',))
        self.src.qmp.cmd('migrate-start-postcopy')
        self.wait(('postcopy-active', *ENDED))

    def same_memory(self) -> None:
        end = time.monotonic() + 10 * self.place.patience
        while self.dst.qmp.cmd('query-migrate').get('status') != 'completed':
            check(time.monotonic() < end, 'the destination has all memory')
            time.sleep(0.02)
        for vm in (self.src, self.dst):
            file = self.folder / f'{vm.name}.random'
            vm.qmp.cmd('pmemsave', {'val': RANDOM[0], 'size': RANDOM[1],
                                    'filename': str(file)},
                       timeout=10 * self.place.patience)
            check(filecmp.cmp(file, self.folder / 'random', shallow=False),
                  f'the random part is what it was on {vm.name}')
        self.dst.qmp.cmd('cont')
        self.runs(self.dst)


def postcopy(place: Place, kinds: tuple[str, str], pin: bool,
             held: bool = False) -> Callable[[Path], str]:
    """The guest runs on the destination while its memory follows.

    HELD: it is there, and does not run until all memory is.
    """
    def run(folder: Path) -> str:
        caps = ('return-path', 'postcopy-ram') + \
            (('rdma-pin-all',) if pin else ())
        with Copied(place, folder, kinds, caps, paused=False) as pair:
            if not held:
                pair.dst.qmp.cmd('cont')
            pair.runs(pair.src)
            pair.begin(0)
            info = pair.wait()
            said = completed(info)
            pair.same_memory()
            requests = info['ram']['postcopy-requests']
            sent = info['ram']['postcopy-bytes'] >> 10
            check(sent > 1024, f'memory follows the guest: {sent} KiB')
            return f'{said}, {sent} KiB in postcopy, {requests} requests'
    return run


def recovered(place: Place) -> Callable[[Path], str]:
    """The connection breaks in postcopy, and another one goes on."""
    def run(folder: Path) -> str:
        with Copied(place, folder, ('ferry', 'ferry'),
                    ('return-path', 'postcopy-ram')) as pair:
            pair.dst.qmp.cmd('cont')
            pair.begin(1 << 20)
            pair.src.qmp.cmd('migrate-pause')
            pair.wait(('postcopy-paused', *ENDED))
            end = time.monotonic() + 10 * place.patience
            while pair.dst.qmp.cmd('query-migrate').get('status') != \
                    'postcopy-paused':
                check(time.monotonic() < end, 'the destination is paused')
                time.sleep(0.02)
            uri = place.uri()
            pair.dst.qmp.cmd('migrate-recover', {'uri': uri})
            set_params(pair.src, {'max-postcopy-bandwidth': 0})
            pair.src.qmp.cmd('migrate', {'uri': uri, 'resume': True})
            time.sleep(0.2)
            said = completed(pair.wait())
            pair.same_memory()
            return said
    return run


def bad_port(place: Place) -> Callable[[Path], str]:
    """Nobody listens; then somebody does."""
    def run(folder: Path) -> str:
        with Pair(place, folder, ('ferry', 'ferry')) as pair:
            said = failed(pair.migrate(place.uri()), 'RDMA connection to',
                          'no QEMU listens')
            pair.runs(pair.src)
            completed(pair.migrate())
            pair.same_memory()
            return said
    return run


def killed(place: Place) -> Callable[[Path], str]:
    """The destination ends in the middle; another one gets the guest."""
    def run(folder: Path) -> str:
        with Pair(place, folder, ('ferry', 'ferry'),
                  ('return-path',)) as pair:
            set_params(pair.src, {'max-bandwidth': 4 << 20})
            pair.src.qmp.cmd('migrate', {'uri': pair.uri})
            pair.wait(('active',))
            time.sleep(0.3)
            pair.dst.kill()
            said = failed(pair.wait())
            pair.runs(pair.src)
            set_params(pair.src, {'max-bandwidth': 1 << 30})
            pair.listen()
            completed(pair.migrate())
            pair.same_memory()
            return said
    return run


def stopped(place: Place, how: str) -> Callable[[Path], str]:
    """Cancelled or yanked in the middle, and then migrated."""
    def run(folder: Path) -> str:
        with Pair(place, folder, ('ferry', 'ferry'),
                  ('return-path',)) as pair:
            set_params(pair.src, {'max-bandwidth': 4 << 20})
            pair.src.qmp.cmd('migrate', {'uri': pair.uri})
            pair.wait(('active',))
            time.sleep(0.3)
            if how == 'yank':
                pair.src.qmp.cmd('yank', {'instances': [
                    {'type': 'migration'}]})
                said = failed(pair.wait())
            else:
                pair.src.qmp.cmd('migrate_cancel')
                said = pair.wait()['status']
                check(said == 'cancelled', f'it is cancelled: {said}')
            pair.runs(pair.src)
            set_params(pair.src, {'max-bandwidth': 1 << 30})
            pair.listen()
            completed(pair.migrate())
            pair.same_memory()
            return said
    return run


def refused(place: Place) -> Callable[[Path], str]:
    """What is not possible over RDMA is said before anything is done."""
    def run(folder: Path) -> str:
        names = {('multifd',): 'multi-channel', ('xbzrle',): 'xbzrle',
                 ('x-ignore-shared',): 'x-ignore-shared',
                 ('postcopy-ram', 'postcopy-preempt'): 'multi-channel',
                 ('postcopy-ram', 'strict-downtime'): 'together'}
        with Pair(place, folder, ('ferry', 'ferry')) as pair:
            for caps, word in names.items():
                set_caps(pair.src, {'return-path': True})
                set_caps(pair.src, {name: True for name in caps})
                try:
                    pair.src.qmp.cmd('migrate', {'uri': pair.uri})
                except QMPError as err:
                    check(word in str(err), f'{word} is named: {err}')
                else:
                    raise FerryError(f'{caps} are not refused')
                set_caps(pair.src, {name: False for name in reversed(caps)})
        return f'{len(names)} capabilities'
    return run


def measured(place: Place, what: str, kinds: tuple[str, str]
             ) -> Callable[[Path], str]:
    """One of MEASURED."""
    if what in ('postcopy', 'held'):
        return postcopy(place, kinds, False, what == 'held')
    pin = ('rdma-pin-all',) if what == 'pinned' else ()
    return moves(place, kinds, ('return-path', *pin), False)


def pairs(place: Place, wanted: str) -> Iterator[Case]:
    """WANTED is COUNT:CASE:CASE...; pristine's and ours in turns."""
    count, *names = wanted.split(':')
    for number in range(int(count)):
        for what in names:
            for kind in ('pristine', 'ferry'):
                yield Case(f'{what}-{kind}-{number}',
                           measured(place, what, (kind, kind)))


def all_cases(place: Place) -> Iterator[Case]:
    """All cases, those that matter most first."""
    quick = place.patience > 1
    for kinds in PAIRS:
        name = '-to-'.join(kinds)
        for what, caps in (('live', ()), ('live-answers', ('return-path',)),
                           ('live-pin-all', ('rdma-pin-all',))):
            yield Case(f'{what}-{name}', moves(place, kinds, caps, False),
                       quick=what == 'live', what=f'a guest that runs, {name}')
        yield Case(f'postcopy-{name}', postcopy(place, kinds, False),
                   what=f'memory follows the guest, {name}',
                   quick=kinds == PAIRS[0])
    yield Case('postcopy-pin-all', postcopy(place, PAIRS[0], True))
    yield Case('recovered', recovered(place))
    yield Case('strict', strict(place), quick=True)
    for kinds in PAIRS[:2]:
        yield Case(f'queue-pairs-{"-to-".join(kinds)}',
                   several(place, kinds, {}), quick=kinds == PAIRS[0])
    if not quick:
        yield Case('queue-pairs-one-slow', several(place, PAIRS[0], SLOW))
        yield Case('paused-ferry-to-ferry',
                   moves(place, ('ferry', 'ferry'), (), True))
        yield Case('refused', refused(place))
    yield Case('bad-port', bad_port(place), quick=True)
    yield Case('destination-killed', killed(place), quick=True)
    yield Case('cancelled', stopped(place, 'cancel'))
    yield Case('yanked', stopped(place, 'yank'))
