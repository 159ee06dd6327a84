# Two emulators whose guest is a ROM, and other work for the machine.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Two emulators whose guest is a ROM, and other work for the machine."""

from __future__ import annotations

import contextlib
import ctypes
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'tsan'))

import rom                                                  # noqa: E402
from ferry.errors import FerryError                         # noqa: E402
from ferry.migrate import set_caps, set_params              # noqa: E402
from ferry.qmp import GONE, QMPError                        # noqa: E402
from ferry.vm import VM                                     # noqa: E402
from ferrytest.bench import native                          # noqa: E402
from ferrytest.bench.run import ram_address                 # noqa: E402
from ferrytest.findings import SANITIZER, found             # noqa: E402
from ferrytest.postcopy import Side                         # noqa: E402

MEMORY = 64                     # MiB
FILL = (16 << 20, 24 << 20)     # start and length of random data
PATIENCE = 30.0                 # s for a step; a sanitizer on a busy machine
POLL = 0.005                    # s

# In what an emulator says before it ends as it must not
FINDING = re.compile(f'{SANITIZER.pattern}|Assertion|assertion failed')

_libc = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """Runs in the child."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@contextlib.contextmanager
def busy(count: int, seconds: int) -> Iterator[None]:
    """COUNT processes that do nothing but that, for SECONDS at most."""
    work = (f'import time\nend = time.monotonic() + {seconds}\n'
            'while time.monotonic() < end: pass')
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, '-c', work],
                                       stdin=subprocess.DEVNULL,
                                       preexec_fn=_end_with_parent)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


class Pair:
    """A source with a guest that runs, and a destination that waits for it."""

    def __init__(self, folder: Path, binary: str | Path,
                 caps: dict[str, bool], **params: int) -> None:
        self.vms: list[VM] = []
        self.folder = folder
        self.uri = f'unix:{folder}/socket'
        image = folder / 'rom'
        image.write_bytes(rom.image())
        try:
            self.src, self.dst = (VM(
                binary, name, folder, MEMORY, serial=False, accelerator='tcg',
                incoming=incoming, args=['-bios', str(image)]) for
                name, incoming in (('source', None), ('target', 'defer')))
            for vm in (self.src, self.dst):
                self.vms.append(vm)
                vm.start()
                set_caps(vm, caps)
                set_params(vm, {name.replace('_', '-'): value
                                for name, value in params.items()})
            native.fill(self.src.pid, ram_address(self.src) + FILL[0],
                        FILL[1], 1)
            self.source, self.target = Side(self.src), Side(self.dst)
        except BaseException:
            self.kill()
            raise

    def begin(self, postcopy: bool) -> None:
        """Migrate, and have the guest go first at once if POSTCOPY."""
        self.dst.qmp.cmd('migrate-incoming', {
            'uri': self.uri, 'exit-on-error': False})
        self.src.qmp.cmd('migrate', {'uri': self.uri})
        if postcopy:
            self.src.qmp.cmd('migrate-start-postcopy')

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait for something that both live to see."""
        end = time.monotonic() + PATIENCE
        while not done():
            for vm in self.vms:
                vm.check_alive()
            if time.monotonic() > end:
                raise FerryError(f'not {what}: the source is '
                                 f'{self.source.states()}, the destination '
                                 f'{self.target.states()}')
            time.sleep(POLL)

    def kill(self) -> None:
        """End both, whatever they are at."""
        for side in ('source', 'target'):
            with contextlib.suppress(AttributeError):
                getattr(self, side).close()
        for vm in self.vms:
            vm.kill()


def findings(vm: VM) -> str:
    """What VM has said that it must not say, or ''."""
    return '; '.join(found(vm.log_path.read_text(errors='replace'), FINDING))


def must_end(vm: VM, quit_now: Callable[[], object], within: float) -> float:
    """QEMU ends in an orderly way when it is told to; after how long (s)."""
    began = time.monotonic()
    try:
        quit_now()
    except QMPError as err:
        # Its answer may not have come out any more.
        if err.cls != GONE:
            raise
    status = vm.wait_end(max(0.0, began + within - time.monotonic()))
    if status is None:
        raise FerryError(f'{vm.name} does not end within {within:.0f} s')
    if status or findings(vm):
        raise FerryError(f'{vm.name}: {vm.last_words()}; {findings(vm)}')
    return time.monotonic() - began
