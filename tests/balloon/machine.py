# A QEMU without a CPU, whose memory and devices a test works by hand.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU without a CPU, whose memory and devices a test works by hand."""

from __future__ import annotations

import itertools
import socket
import time
from pathlib import Path
from typing import Any, Callable

from ferry.errors import FerryError
from ferry.migrate import tcp_uri
from ferry.vm import VM

PATIENCE = 15.0         # s for what takes milliseconds
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


def check(condition: bool, claim: str) -> None:
    """Fail the case unless CONDITION."""
    if not condition:
        raise FerryError(f'not so: {claim}')


def until(condition: Callable[[], Any], claim: str) -> Any:
    """Wait for CONDITION, and return what it says."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise FerryError(f'not within {PATIENCE:.0f} s: {claim}')
        time.sleep(0.002)


def pattern(page: int) -> int:
    """The byte that page PAGE of the data is filled with, never 0."""
    return page * 37 % 255 + 1


class Machine:
    """The QEMU, and its memory."""

    def __init__(self, kind: str, folder: Path, device: str = '',
                 args: tuple[str, ...] = (), incoming: bool = False,
                 machine: str = 'pc', binary: str | None = None) -> None:
        """DEVICE are further properties of the balloon."""
        name = f'{kind}{next(NUMBERS)}'
        path = folder / f'{name}-qtest'
        self.kind = kind
        self.vm = VM(binary or kind, name, folder, MEMORY, serial=False,
                     accelerator='qtest', machine=machine,
                     incoming='defer' if incoming else None, args=[
                         '-qtest', f'unix:{path},server=on,wait=off',
                         '-qtest-log', '/dev/null',
                         '-object', 'iothread,id=io0', *args,
                         '-device', 'virtio-balloon-pci,id=balloon,'
                         f'addr={SLOT},disable-legacy=on,{device}']).start()
        self.qmp = self.vm.qmp
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile('rb')

    def stop(self) -> None:
        """End it."""
        self._lines.close()
        self._socket.close()
        self.vm.stop()

    # The qtest protocol

    def ask(self, command: str) -> str:
        """Send a COMMAND; return what comes after OK."""
        try:
            self._socket.sendall(command.encode() + b'\n')
            while True:
                line = self._lines.readline().decode().strip()
                if not line.startswith('IRQ'):
                    break
        except OSError as err:
            raise FerryError(f'{self.vm.name}: {err}') from err
        if not line.startswith('OK'):
            self.vm.check_alive()
            raise FerryError(f'qtest {command[:60]}: "{line}"')
        return line[3:]

    def write(self, address: int, data: bytes) -> None:
        """Write memory."""
        self.ask(f'write 0x{address:x} 0x{len(data):x} 0x{data.hex()}')

    def read(self, address: int, size: int) -> bytes:
        """Read memory."""
        return bytes.fromhex(self.ask(f'read 0x{address:x} 0x{size:x}')[2:])

    def fill(self, address: int, size: int, byte: int) -> None:
        """Set memory to a byte."""
        self.ask(f'memset 0x{address:x} 0x{size:x} 0x{byte:x}')

    def load(self, size: str, address: int) -> int:
        """Read a register of SIZE b, w, l or q."""
        return int(self.ask(f'read{size} 0x{address:x}'), 16)

    def store(self, size: str, address: int, value: int) -> None:
        """Write a register."""
        self.ask(f'write{size} 0x{address:x} 0x{value:x}')

    def out(self, size: str, port: int, value: int) -> None:
        """Write an I/O port."""
        self.ask(f'out{size} 0x{port:x} 0x{value:x}')

    def inp(self, size: str, port: int) -> int:
        """Read an I/O port."""
        return int(self.ask(f'in{size} 0x{port:x}'), 16)

    def step(self, nanoseconds: int) -> None:
        """Let the guest's time pass."""
        self.ask(f'clock_step {nanoseconds}')

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
