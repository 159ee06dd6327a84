# Migrations in which something but the migration writes to memory.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations in which something but the migration writes to memory.

Both sides are compared page by page when the guest has arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ferry.errors import FerryError
from ferrytest.gate import Gate
from ferrytest.wait import until

from machine import (MEMORY, MIB, PAGE, PLUGGED, VIRTIO_MEM, Machine,
                     MemoryDevice)

RANGE, LENGTH = 0x300000, 2 * PAGE      # what writers write to
TIGHT_MS, WIDE_MS = 60, 8000            # limits: none is kept, all are
LOAD_MS = 300                           # devices take so long there, unless a
                                        # command is given meanwhile
STRICT = {'strict-downtime': True, 'return-path': True, 'events': True}
POSTCOPY = {**STRICT, 'postcopy-ram': True}


def writer(**props: object) -> tuple[str, ...]:
    """The device that writes."""
    text = ''.join(f',{name.replace("_", "-")}={value}'
                   for name, value in props.items())
    return ('-device', f'ram-writer,addr={RANGE:#x},len={LENGTH},fill=200'
            + text)


LOADER = ('-device', f'loader,addr={RANGE:#x},data=0x1122334455667788,'
          'data-len=8')
ALL_OF_IT = ('-device', 'ram-writer,addr=0x200000,len=0x3c00000,fill=7,'
             'on-reset=on')

WRITERS = {
    'nothing': (),
    'reset-dma': writer(on_reset='on'),
    'reset-pointer': writer(on_reset='on', how='pointer'),
    'reset-discards': writer(on_reset='on', how='discard'),
    'reset-writes-all': ALL_OF_IT,
    'loader': LOADER,
    'load-dma': writer(on_load='on'),
    'stop-dma': writer(on_stop='on'),
    'virtio-mem': VIRTIO_MEM,
}


@dataclass(frozen=True)
class Move:
    """One migration."""
    name: str
    here: tuple[str, ...]               # further arguments of the source
    there: tuple[str, ...]              # and of the destination
    caps: dict[str, bool]
    aborts: int                         # attempts that are to be given up
    interfere: str = ''                 # a command while the guest is held
    ours: tuple[int, int] | None = None     # what devices load is theirs
    full: bool = False                  # not in the short selection

    @property
    def postcopy(self) -> bool:
        """Whether memory follows the guest."""
        return self.caps.get('postcopy-ram', False)

    def run(self, folder: Path) -> None:
        """Do it, and compare."""
        gate = Gate(folder, 'device-load') if self.interfere else None
        delay = gate.args if gate else (
            '-global', f'migration.x-fault-delay=device-load:{LOAD_MS}')
        source = Machine(folder, self.here)
        try:
            there = Machine(folder, (*delay, *self.there), True)
            try:
                Run(self, source, there, gate).run()
            finally:
                if gate:
                    gate.open()
                there.stop()
        finally:
            source.stop()


class Run:
    """One case under way."""

    def __init__(self, case: Move, source: Machine, there: Machine,
                 gate: Gate | None) -> None:
        self.case = case
        self.source = source
        self.there = there
        self.gate = gate
        self.plugged = 0

    def strict(self) -> dict:
        """What is known of attempts."""
        info = self.source.qmp.cmd('query-migrate')
        return info.get('progress', {}).get('strict') or {}

    def fill(self) -> None:
        """Give memory a content that differs from page to page."""
        if VIRTIO_MEM[1] in self.case.here:
            self.plugged = MemoryDevice(self.source).base
        for page in range(0x200000, MEMORY * MIB, 16 * PAGE):
            self.source.fill(page, PAGE, page // PAGE % 251 + 1)
        self.source.fill(RANGE, LENGTH, 0x77)
        for at in range(0, PLUGGED * MIB if self.plugged else 0, 64 * PAGE):
            self.source.fill(self.plugged + at, PAGE, at // PAGE % 251 + 1)

    def begin(self) -> None:
        """Start it with a limit that cannot be kept."""
        caps = [{'capability': name, 'state': on}
                for name, on in self.case.caps.items()]
        for side in (self.source, self.there):
            side.qmp.cmd('migrate-set-capabilities', {'capabilities': caps})
        strict = self.case.caps.get('strict-downtime')
        limit = TIGHT_MS if strict and self.case.aborts else WIDE_MS
        params = {'max-bandwidth': 0, 'downtime-limit': limit}
        if strict:
            params['strict-downtime-attempts'] = 100
        self.source.qmp.cmd('migrate-set-parameters', params)
        uri = f'unix:{self.source.folder}/{self.source.vm.name}-mig'
        self.there.qmp.cmd('migrate-incoming', {'uri': uri})
        self.source.qmp.cmd('migrate', {'uri': uri})
        if self.case.postcopy:
            self.source.qmp.cmd('migrate-start-postcopy')

    def abort(self) -> None:
        """Wait until attempts have been given up; then time is not short."""
        if self.case.aborts:
            until(lambda: self.strict().get('attempts', 0) > self.case.aborts,
                  f'{self.case.aborts} attempts are given up')
            self.source.qmp.cmd('migrate-set-parameters',
                                {'downtime-limit': WIDE_MS})

    def status(self) -> str:
        """Of the migration."""
        return self.source.qmp.cmd('query-migrate')['status']

    def interfere(self) -> None:
        """While the destination loads devices, and the guest is stopped."""
        if self.gate:
            self.gate.wait()
            self.source.qmp.cmd(self.case.interfere)
            self.gate.open()

    def run(self) -> None:
        """All of it."""
        self.fill()
        self.begin()
        self.abort()
        self.interfere()
        until(lambda: self.status() in ('completed', 'failed'),
              'the migration ends')
        info = self.source.qmp.cmd('query-migrate')
        if info['status'] != 'completed':
            raise FerryError(f'{info["status"]}: {info.get("error-desc")}')
        until(lambda: self.there.qmp.cmd('query-status')['status']
              == 'running', 'the guest runs on the destination')
        until(lambda: self.there.qmp.cmd('query-migrate')['status']
              == 'completed', 'the destination has all of it')
        if self.case.interfere and self.strict().get('attempts', 0) < 2:
            raise FerryError('the attempt was not given up')
        self.compare(0, MEMORY * MIB)
        if self.plugged:
            self.compare(self.plugged, PLUGGED * MIB)

    def compare(self, start: int, size: int) -> None:
        """Memory of both sides."""
        here = self.source.content(start, size)
        there = self.there.content(start, size)
        wrong = [start + at for at in range(0, size, PAGE)
                 if here[at:at + PAGE] != there[at:at + PAGE]]
        if self.case.ours:
            first, length = self.case.ours
            wrong = [at for at in wrong if not first <= at < first + length]
        if wrong:
            raise FerryError(
                f'{len(wrong)} of {size // PAGE} pages differ, the first at '
                f'{wrong[0]:#x}: {here[wrong[0] - start]:#04x} here, '
                f'{there[wrong[0] - start]:#04x} there')


def case(name: str, args: tuple[str, ...], caps: dict[str, bool],
         aborts: int, **more: object) -> Move:
    """The same machine on both sides."""
    ours = (RANGE, LENGTH) if name.startswith('load-') else None
    way = 'postcopy' if caps.get('postcopy-ram') else 'precopy'
    return Move(f'{way}/{name}/{aborts}', args, args, caps, aborts, ours=ours,
                **more)


def moves() -> list[Move]:
    """What there is to do, with up to five attempts given up."""
    made = []
    for name, args in WRITERS.items():
        made += [case(name, args, STRICT, n, full=n not in (1, 3))
                 for n in range(6)]
        made += [case(name, args, POSTCOPY, n, full=n != 2)
                 for n in (0, 1, 2, 5)]
    made += [case('reset-in-device', LOADER, caps, 0,
                  interfere='system_reset') for caps in (STRICT, POSTCOPY)]
    made += [Move(f'{way}/timer-there', writer(), writer(period_ms=150), caps,
                  0, ours=(RANGE, LENGTH))
             for way, caps in (('precopy', STRICT), ('postcopy', POSTCOPY))]
    return made
