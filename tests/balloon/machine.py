# A QEMU without a CPU, whose memory and devices a test works by hand.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU without a CPU, whose memory and devices a test works by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Callable

from ferry.migrate import tcp_uri
from ferry.vm import VM
from ferrytest import qtest
from ferrytest.suite import check
from ferrytest.wait import until

PAGE = 4096
MEMORY = 64             # MiB
SLOT = 4                # of the balloon on the PCI bus

# Memory as the tests use it.  What keeps a slow migration busy comes first.
RINGS = 1 << 20
SCRATCH = 0x180000
FILLER, FILLER_BYTES = 2 << 20, 14 << 20
DATA, DATA_PAGES = 32 << 20, 64

SLOW = 256 << 10        # bytes a second: nothing but filler gets sent
NUMBERS = itertools.count(1)


def pattern(page: int) -> int:
    """The byte that page PAGE of the data is filled with, never 0."""
    return page * 37 % 255 + 1


class Machine(qtest.QTest):
    """The QEMU, and its memory."""

    def __init__(self, kind: str, folder: Path, device: str = '',
                 args: tuple[str, ...] = (), incoming: bool = False,
                 machine: str = 'pc') -> None:
        """DEVICE are further properties of the balloon."""
        name = f'{kind}{next(NUMBERS)}'
        path = folder / f'{name}-qtest'
        self.kind = kind
        self.vm = VM(kind, name, folder, MEMORY, serial=False,
                     accelerator='qtest', machine=machine,
                     incoming='defer' if incoming else None, args=[
                         *qtest.arguments(path),
                         '-object', 'iothread,id=io0', *args,
                         '-device', 'virtio-balloon-pci,id=balloon,'
                         f'addr={SLOT},disable-legacy=on,{device}']).start()
        self.qmp = self.vm.qmp
        super().__init__(path, self.vm.check_alive)

    def stop(self) -> None:
        """End it."""
        self.close()
        self.vm.stop()

    # The data

    def fill_data(self) -> None:
        """What there is to migrate."""
        self.fill(FILLER, FILLER_BYTES, 0x5a)
        for page in range(DATA_PAGES):
            self.fill(DATA + page * PAGE, PAGE, pattern(page))

    def data_pages(self, base: int = DATA) -> list[int | None]:
        """Of each page of the data: its byte, or None if not all are equal."""
        found: list[int | None] = []
        for page in range(DATA_PAGES):
            got = self.read(base + page * PAGE, PAGE)
            found.append(got[0] if got == got[:1] * PAGE else None)
        return found

    # Migrations

    def begin(self, target: Machine | None,
              caps: dict[str, bool] | None = None) -> None:
        """Start a migration that gets stuck in its first pass."""
        if target is None:
            uri = 'exec:cat > /dev/null'
        else:
            uri = tcp_uri()
            target.set_caps(caps)
            target.qmp.cmd('migrate-incoming', {'uri': uri})
        self.set_caps(caps)
        self.set_params(SLOW, 1)
        self.qmp.cmd('migrate', {'uri': uri})
        until(lambda: self.status() == 'active', 'the migration is active')

    def set_caps(self, caps: dict[str, bool] | None) -> None:
        """Set migration capabilities."""
        if caps:
            self.qmp.cmd('migrate-set-capabilities', {'capabilities': [
                {'capability': name, 'state': state}
                for name, state in caps.items()]})

    def set_params(self, bandwidth: int, downtime: int) -> None:
        """Set bytes a second (0: no limit) and ms."""
        self.qmp.cmd('migrate-set-parameters', {
            'max-bandwidth': bandwidth, 'downtime-limit': downtime})

    def status(self) -> str:
        """Of the migration."""
        return self.qmp.cmd('query-migrate').get('status', 'none')

    def next_pass(self, seen: Callable[[], bool]) -> None:
        """Get the migration to its next sync, until SEEN."""
        self.set_params(40 << 20, 1)
        byte = 0
        def another() -> bool:
            nonlocal byte
            byte = byte % 255 + 1
            self.fill(FILLER, FILLER_BYTES, byte)
            return seen()
        until(another, 'the migration begins another pass')
        self.set_params(SLOW, 1)

    def finish(self, target: Machine) -> None:
        """Let the migration come to its end."""
        self.set_params(0, 1000)
        until(lambda: self.status() in ('completed', 'failed'),
              'the migration ends')
        check(self.status() == 'completed', 'the migration succeeds: '
              f'{self.qmp.cmd("query-migrate").get("error-desc")}; '
              f'{target.vm.log_tail(3)}')
        until(lambda: target.qmp.cmd('query-status')['status'] == 'running',
              'the destination runs')

    def cancel(self) -> None:
        """Give the migration up."""
        self.qmp.cmd('migrate_cancel')
        until(lambda: self.status() == 'cancelled', 'it is cancelled')
