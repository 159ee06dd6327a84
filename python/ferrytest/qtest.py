# The qtest protocol: memory and I/O ports of a QEMU, worked by hand.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The qtest protocol: memory and I/O ports of a QEMU, worked by hand."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Callable

from ferry.errors import FerryError

TIMEOUT = 15.0          # s for one answer


def arguments(path: Path) -> list[str]:
    """What QEMU is started with, to be spoken to at the socket PATH."""
    return ['-qtest', f'unix:{path},server=on,wait=off',
            '-qtest-log', '/dev/null']


class QTest:
    """A connection to the qtest server of a QEMU that was started."""

    def __init__(self, path: Path, check_alive: Callable[[], None]) -> None:
        """CHECK_ALIVE raises if the QEMU has ended."""
        self._check_alive = check_alive
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile('rb')

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()

    def ask(self, command: str) -> str:
        """Send a COMMAND; return what comes after OK."""
        try:
            self._socket.sendall(command.encode() + b'\n')
            while True:
                line = self._lines.readline().decode().strip()
                if not line.startswith('IRQ'):
                    break
        except OSError as err:
            raise FerryError(f'qtest: {err}') from err
        if not line.startswith('OK'):
            self._check_alive()
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
