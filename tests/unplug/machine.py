# Two machines with a tiny guest, which ejects devices when it is told to.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Two machines with a tiny guest, which ejects devices when it is told to."""

from __future__ import annotations

import itertools
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any, Sequence

from ferry.errors import FerryError
from ferry.vm import VM
from ferrytest import qtest
from ferrytest.wait import PATIENCE, until

PAGE = 4096
MEMORY = 64             # MiB
RING = 1 << 20          # address of what the guest writes to
PAGES = 0xf100          # where the firmware finds what it has to do
SLOW = 1 << 20          # bytes a second: a migration takes its time
NUMBERS = itertools.count(1)
SOURCE = Path(__file__).with_name('firmware.S')


def firmware(folder: Path, pages: int, loops: int) -> Path:
    """The guest, which writes to PAGES pages and counts to LOOPS after each."""
    target, code = folder / f'firmware-{pages}-{loops}', folder / 'firmware'
    if not code.exists():
        parts = folder / 'firmware.o'
        for command in (
                ['cc', '-m32', '-c', '-o', str(parts), str(SOURCE)],
                ['ld', '-m', 'elf_i386', '-e', '0', '-Ttext', '0',
                 '--oformat', 'binary', '-o', str(code), str(parts)]):
            subprocess.run(command, check=True, timeout=30)
    data = bytearray(code.read_bytes())
    data[PAGES:PAGES + 8] = struct.pack('<II', pages, loops)
    target.write_bytes(data)
    return target


class Machine:
    """A QEMU with that guest."""

    def __init__(self, kind: str, folder: Path, bios: Path | None,
                 args: Sequence[str], machine: str, *, incoming: bool = False,
                 accelerator: str = 'tcg') -> None:
        name = f'{Path(kind).name[:8]}{next(NUMBERS)}'
        path = folder / f'{name}-qtest'
        self.vm = VM(kind, name, folder, MEMORY, machine=machine,
                     accelerator=accelerator,
                     incoming='defer' if incoming else None, args=[
                         *(('-bios', str(bios)) if bios else ()),
                         *qtest.arguments(path), *args]).start()
        self.qmp = self.vm.qmp
        self._qtest = qtest.QTest(path, self.vm.check_alive)
        self._console: socket.socket | None = None

    def stop(self) -> None:
        """End it."""
        self._qtest.close()
        if self._console:
            self._console.close()
        self.vm.stop()

    # What the guest does

    def guest_out(self, width: int, port: int, value: int) -> None:
        """Have the guest write to an I/O port, and wait until it has."""
        if self._console is None:
            self._console = socket.socket(socket.AF_UNIX)
            self._console.settimeout(PATIENCE)
            self._console.connect(str(self.vm.console_path))
            self.vm.wait_attached('console')
        try:
            self._console.sendall(struct.pack('<cHBI', b'o', port, width,
                                              value))
            answer = self._console.recv(1)
        except OSError as err:
            raise FerryError(f'the guest of {self.vm.name}: {err}') from err
        if answer != b'o':
            raise FerryError(f'the guest of {self.vm.name} says {answer!r}')

    # What is done to it from outside

    def qtest(self, command: str) -> str:
        """A command of the qtest protocol, also while the guest is stopped."""
        return self._qtest.ask(command)

    def out(self, width: int, port: int, value: int) -> None:
        """Write to an I/O port, as if the guest did."""
        self.qtest(f'out{" bw l"[width]} {port:#x} {value:#x}')

    def cmd(self, name: str, **args: object) -> Any:
        """A QMP command."""
        return self.qmp.cmd(name, {key.replace('_', '-'): value
                                   for key, value in args.items()})

    def caps(self, *names: str) -> None:
        """Enable capabilities."""
        self.cmd('migrate-set-capabilities', capabilities=[
            {'capability': name, 'state': True} for name in names])

    def params(self, **values: object) -> None:
        """Set parameters."""
        self.cmd('migrate-set-parameters', **values)

    # Migration

    def info(self) -> dict[str, Any]:
        """What query-migrate says."""
        self.vm.check_alive()
        return self.cmd('query-migrate')

    def status(self) -> str:
        """Of the migration."""
        return self.info().get('status', 'none')

    def until(self, *wanted: str, patience: float = PATIENCE) -> str:
        """Wait for a status."""
        said: list[str] = ['none']

        def reached() -> bool:
            said[0] = self.status()
            return said[0] in wanted
        try:
            until(reached, '', patience)
        except FerryError as err:
            raise FerryError(f'{said[0]} after {patience:.0f} s instead of '
                             f'{" or ".join(wanted)}: '
                             f'{self.info().get("error-desc", "")}') from err
        return said[0]

    def completes(self) -> None:
        """Wait for the end of a migration that succeeds."""
        if self.until('completed', 'failed', 'cancelled',
                      'postcopy-paused') != 'completed':
            info = self.info()
            raise FerryError(f'{info["status"]}: {info.get("error-desc")}')

    # Memory

    def ring(self, pages: int) -> list[int]:
        """The rounds in which the pages of the ring were written last."""
        path = self.vm.workdir / f'{self.vm.name}-memory'
        self.cmd('pmemsave', val=RING, size=pages * PAGE, filename=str(path))
        data = path.read_bytes()
        path.unlink()
        return [word for (word,) in struct.iter_unpack(
            f'<I{PAGE - 4}x', data)]

    def check_ring(self, pages: int) -> None:
        """Stop the guest: none of its writes may have been lost."""
        self.cmd('stop')
        rounds = self.ring(pages)
        newest = rounds[0]
        if any(value not in (newest, newest - 1) for value in rounds) or \
                rounds != sorted(rounds, reverse=True) or newest < 2:
            old = [page for page, value in enumerate(rounds)
                   if value not in (newest, newest - 1)]
            raise FerryError(f'pages were lost: round {newest}, but '
                             f'{len(old)} of {pages} pages are older, the '
                             f'first {old[:5]}')

    def runs_on(self, pages: int) -> None:
        """The guest runs: its ring changes."""
        before = self.ring(pages)
        until(lambda: self.ring(pages) != before, 'the guest runs')
