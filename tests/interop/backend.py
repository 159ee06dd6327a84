# A disk that another process serves: QEMU's own vhost-user-blk.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that another process serves: QEMU's own vhost-user-blk.

It maps the guest's memory, and reads and writes it on its own account.  The
base builds it with its tools only, which nobody else here needs; it is three
files, so it is compiled here.  The library is the one with our patch: without
that it ends when postcopy begins.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import shlex
import signal
import subprocess
import time
from pathlib import Path

from ferry import paths
from ferry.errors import FerryError, one_line

LIBRARY = 'subprojects/libvhost-user'
SOURCES = ('contrib/vhost-user-blk/vhost-user-blk.c',
           f'{LIBRARY}/libvhost-user.c', f'{LIBRARY}/libvhost-user-glib.c')
PATIENCE = 5.0          # s
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
CAP_SYS_PTRACE = 19
UNPRIVILEGED = Path('/proc/sys/vm/unprivileged_userfaultfd')

_libc = ctypes.CDLL(None, use_errno=True)


def build() -> Path:
    """Compile it, unless that was done; return the program."""
    tree = paths.BUILD / 'tree' / 'ferry'
    sources = [tree / name for name in SOURCES]
    program = paths.BUILD / 'vhost' / 'vhost-user-blk'
    program.parent.mkdir(parents=True, exist_ok=True)
    with open(program.parent / '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(source.stat().st_mtime for source in sources)
        if not program.exists() or program.stat().st_mtime < newest:
            _compile(tree, sources, program)
    return program


def _compile(tree: Path, sources: list[Path], program: Path) -> None:
    partial = program.with_suffix('.partial')
    try:
        flags = shlex.split(subprocess.run(
            ['pkg-config', '--cflags', '--libs', 'glib-2.0'], check=True,
            timeout=20, capture_output=True, text=True).stdout)
        subprocess.run(
            ['gcc', '-O1', '-g', '-D_GNU_SOURCE', '-pthread', '-o', partial,
             *(f'-I{folder}' for folder in (
                 paths.BUILD / 'ferry', tree / 'include', tree / LIBRARY)),
             *sources, *flags],
            check=True, timeout=120, capture_output=True, text=True)
    except (OSError, subprocess.SubprocessError) as err:
        said = getattr(err, 'stderr', None) or str(err)
        raise FerryError('cannot build vhost-user-blk: '
                         + one_line(said[-300:])) from err
    partial.rename(program)


def may_refuse_everybody() -> bool:
    """Whether userfaultfd needs a privilege here, which can be taken away."""
    try:
        return UNPRIVILEGED.read_text().strip() == '0'
    except OSError:
        return False


class Backend:
    """One process that serves IMAGE to one QEMU.

    Unless it is ABLE it may not use userfaultfd, and does not offer to.
    """

    numbers = itertools.count(1)

    def __init__(self, folder: Path, image: Path, able: bool = True) -> None:
        self.name = f'disk{next(self.numbers)}'
        self._socket = folder / self.name
        self._log = folder / f'{self.name}.log'
        self._image = image
        self._able = able
        self.start()

    def start(self) -> None:
        """Wait for the QEMU; anew, if it has ended."""
        program = build()
        self._socket.unlink(missing_ok=True)
        with open(self._log, 'ab') as log:
            self._process = subprocess.Popen(
                [program, '-s', self._socket, '-b', self._image], stdout=log,
                stderr=log, stdin=subprocess.DEVNULL,
                preexec_fn=_with_parent if self._able else _unprivileged)
        end = time.monotonic() + PATIENCE
        while not self._socket.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise FerryError(f'vhost-user-blk does not listen: '
                                 f'{self._log.read_text()}')
            time.sleep(0.01)

    def options(self, more: str = '') -> list[str]:
        """For the QEMU that uses it; MORE is for the connection."""
        return ['-chardev', f'socket,id={self.name},path={self._socket}{more}',
                '-device', 'vhost-user-blk-pci,id=disk,addr=6,'
                           f'chardev={self.name}']

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def check_alive(self) -> None:
        """It has not ended."""
        if not self.alive():
            raise FerryError(f'{self.name}, a vhost-user-blk, has ended with '
                             f'{self._process.returncode}: '
                             f'{one_line(self._log.read_text()[-300:])}')

    def kill(self) -> None:
        """As if it had crashed."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def stop(self) -> None:
        """End it, if it is there."""
        if self.alive():
            self.kill()
        self._socket.unlink(missing_ok=True)


def _with_parent() -> None:
    """Runs in the child."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unprivileged() -> None:
    """Runs in the child: what userfaultfd needs is gone with exec()."""
    _with_parent()
    _libc.prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0)
