# One QEMU process: started, watched and surely ended.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process: started, watched and surely ended."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Sequence

from . import paths
from .errors import FerryError, one_line
from .qmp import QMP, QMPError

# The three UARTs of the guest: chardev id, I/O port, IRQ.  Each has an
# interrupt of its own: two ISA devices on one line would lose interrupts.
UARTS = (('console', 0x3f8, 4), ('control', 0x2f8, 3), ('beat', 0x3e8, 5))

# One more that counts accesses to memory, for who asks for it (pace=True).
PACE = ('pace', 0x2e8, 7)

SUN_PATH_MAX = 107              # longest path of a unix socket, bytes
PR_SET_PDEATHSIG = 1
START_TIMEOUT = 20.0            # s, until the monitor answers
STOP_TIMEOUT = 5.0              # s, for each of: quit, TERM, KILL

_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """Runs in the child: have the kernel kill it when the parent is gone."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is for the parent


class VM:
    """A QEMU with a monitor, a second monitor for viewers and three UARTs.

    Two VMs made with the same arguments, but for INCOMING, are the two ends
    of a migration.  Call start() from a thread that lives as long as the VM:
    the kernel kills QEMU when the thread that started it ends.
    """

    def __init__(self, kind: str | Path, name: str, workdir: Path, mem: int,
                 *, incoming: str | None = None, kernel: Path | None = None,
                 initrd: Path | None = None, append: str = '',
                 paused: bool = False, args: Sequence[str] = (),
                 mem_backend: str | None = None, smp: int = 1,
                 machine: str = 'q35', serial: bool = True,
                 accelerator: str | None = None, pace: bool = False,
                 fds: Sequence[int] = ()) -> None:
        """MEM is in MiB; MEM_BACKEND a whole -object string with id=mem.

        FDS are open in QEMU, too, with the same numbers.
        """
        self.kind = str(kind)
        self.name = name
        self.workdir = Path(workdir)
        self.mem = mem
        self.incoming = incoming
        self.kernel = kernel
        self.initrd = initrd
        self.append = append
        self.paused = paused
        self.args = list(args)
        self.mem_backend = mem_backend
        self.smp = smp
        self.machine = machine
        self.serial = serial
        self.accelerator = accelerator
        self.fds = list(fds)
        self.uarts = (*UARTS, PACE) if pace else UARTS
        self.binary = paths.qemu(kind)
        self.qmp_path = self._socket('qmp')
        self.view_path = self._socket('view')
        self.console_path = self._socket('console')
        self.control_path = self._socket('control')
        self.beat_path = self._socket('beat')
        self.log_path = self.workdir / f'{name}.log'
        self._process: subprocess.Popen | None = None
        self._qmp: QMP | None = None
        self._usage = (0.0, 0.0)    # last known CPU seconds and RSS

    def port_path(self, role: str) -> str:
        """The socket of the UART that has this role."""
        return self._socket(role)

    def _socket(self, role: str) -> str:
        path = str(self.workdir / f'{self.name}-{role}')
        if len(os.fsencode(path)) > SUN_PATH_MAX:
            raise FerryError(f'{path} is too long for a socket: '
                             'choose a shorter directory (see TMPDIR)')
        return path

    def command_line(self) -> list[str]:
        """The arguments QEMU is started with, the binary first."""
        machine = self.machine
        if self.mem_backend:
            machine += ',memory-backend=mem'
        line = [str(self.binary), '-name', self.name, '-nodefaults',
                '-no-user-config', '-display', 'none',
                '-accel', self.accelerator or accel(),
                '-smp', str(self.smp), '-m', f'{self.mem}M']
        if self.mem_backend:
            line += ['-object', self.mem_backend]
        line += ['-machine', machine]
        for path in (self.qmp_path, self.view_path):
            line += ['-qmp', f'unix:{path},server=on,wait=off']
        if self.serial:
            for index, (role, port, irq) in enumerate(self.uarts):
                path = self._socket(role)
                line += ['-chardev', f'socket,id={role},path={path},'
                                     'server=on,wait=off',
                         '-device', f'isa-serial,chardev={role},'
                                    f'index={index},iobase={port},irq={irq}']
        if self.kernel:
            line += ['-kernel', str(self.kernel)]
            if self.initrd:
                line += ['-initrd', str(self.initrd)]
            line += ['-append', self.append]
        if self.paused:
            line += ['-S']
        line += self.args
        if self.incoming is not None:
            line += ['-incoming', self.incoming]
        return line

    # Life

    def start(self, wait: bool = True) -> VM:
        """Start QEMU and wait until its monitor answers.

        Without WAIT that is left to connect(): for a QEMU that has no monitor
        before it has been given something.
        """
        if self._process is not None:
            raise FerryError(f'{self.name} was started already')
        self.workdir.mkdir(parents=True, exist_ok=True)
        line = self.command_line()
        try:
            with open(self.log_path, 'wb') as log:
                log.write(self._log_head(line).encode())
                log.flush()
                self._process = subprocess.Popen(
                    line, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    pass_fds=self.fds, preexec_fn=_die_with_parent)
        except OSError as err:
            raise FerryError(f'cannot start {self.name}: {err}') from err
        if wait:
            self.connect()
        return self

    @staticmethod
    def _log_head(line: list[str]) -> str:
        """A line like no other: an earlier VM may have had the same log."""
        return f'{shlex.join(line)}  # {time.time_ns()}\n'

    def took_over(self, old: VM) -> None:
        """The process of OLD has executed our command line: it is ours."""
        if self._process is not None or old._process is None:
            raise FerryError(f'{self.name} cannot take over {old.name}')
        if old._qmp is not None:
            old._qmp.close()
        self._process, old._process, old._qmp = old._process, None, None
        self.log_path = old.log_path

    def connect(self) -> None:
        """Wait until the monitor answers."""
        try:
            self._qmp = self._connect()
        except BaseException:
            self.stop()
            raise

    def _connect(self) -> QMP:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                return QMP(self.qmp_path)
            except QMPError as err:
                if not self.alive():
                    raise FerryError(
                        f'{self.name} ({self.kind}) ended at its start: '
                        f'{self.log_tail(1) or self._end()}') from err
                if time.monotonic() > deadline:
                    raise FerryError(
                        f'{self.name} ({self.kind}) did not answer within '
                        f'{START_TIMEOUT:.0f} s: {err}') from err
            time.sleep(0.01)

    def stop(self) -> None:
        """End QEMU: ask it, then TERM, then KILL.  Never fails."""
        process = self._process
        if process is not None and process.poll() is None:
            self._remember_usage()
            try:
                if self._qmp is not None:
                    self._qmp.cmd('quit', timeout=STOP_TIMEOUT)
                else:
                    process.terminate()
            except QMPError:
                process.terminate()
            for kill in (process.terminate, process.kill, lambda: None):
                try:
                    process.wait(STOP_TIMEOUT)
                    break
                except subprocess.TimeoutExpired:
                    kill()
        self._forget()

    def kill(self) -> None:
        """End QEMU at once, as a crash of the host would."""
        if self._process is not None:
            self._remember_usage()
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)
        self._forget()

    def _forget(self) -> None:
        if self._qmp is not None:
            self._qmp.close()
        for path in (self.qmp_path, self.view_path,
                     *(self._socket(role) for role, _, _ in self.uarts)):
            try:
                os.unlink(path)
            except OSError:
                pass

    def __enter__(self) -> VM:
        if self._process is None:
            self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    # State

    @property
    def qmp(self) -> QMP:
        """The first monitor; it belongs to the owner of the VM."""
        if self._qmp is None:
            raise FerryError(f'{self.name} is not running')
        return self._qmp

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        if self._process is None:
            raise FerryError(f'{self.name} is not running')
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def wait_end(self, timeout: float) -> int | None:
        """The exit status, if the process ends within TIMEOUT seconds."""
        if self._process is None:
            raise FerryError(f'{self.name} is not running')
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def _end(self) -> str:
        code = self._process.poll() if self._process else None
        if code is None:
            return 'still running'
        if code < 0:
            return f'killed by {signal.Signals(-code).name}'
        return f'exit status {code}'

    def exit_status(self) -> int | None:
        """How it ended, minus the signal if by one; None while it runs."""
        return self._process.poll() if self._process else None

    def check_alive(self) -> None:
        """Raise a FerryError with QEMU's last words if it has ended."""
        if not self.alive():
            raise FerryError(f'{self.name} ({self.kind}) ended: '
                             f'{self.last_words()}')

    def last_words(self, lines: int = 2) -> str:
        """How QEMU ended, and the last LINES that it wrote before."""
        said = self.log_tail(lines)
        return f'{self._end()}: {said}' if said else self._end()

    def log_tail(self, lines: int = 5) -> str:
        """The last LINES that QEMU wrote, folded into one line."""
        try:
            text = self.log_path.read_text(errors='replace')
        except OSError:
            return ''
        said = text.splitlines()[1:]        # the first is the command line
        return one_line(' '.join(said[-lines:]))

    def attached(self, role: str) -> bool:
        """Whether QEMU has accepted a client on 'console', 'control', ..."""
        for chardev in self.qmp.cmd('query-chardev'):
            if chardev['label'] == role:
                return not chardev['filename'].startswith('disconnected:')
        raise FerryError(f'{self.name} has no chardev {role}')

    def wait_attached(self, role: str, timeout: float = 5.0) -> None:
        """Wait until a client that connected is really served.

        connect() succeeds before QEMU looks at the socket, and what the guest
        sends until then is dropped.
        """
        deadline = time.monotonic() + timeout
        while not self.attached(role):
            if time.monotonic() > deadline:
                raise FerryError(f'{self.name} does not serve its {role} port')
            time.sleep(0.002)

    def cpu_seconds(self) -> float:
        """CPU time used so far, user and system, of all threads."""
        self._remember_usage()
        return self._usage[0]

    def peak_rss_mib(self) -> float:
        """The most memory that was resident at once, MiB."""
        self._remember_usage()
        return self._usage[1]

    def _remember_usage(self) -> None:
        """Keep the figures, so that they can be read after the end too."""
        if not self.alive():
            return
        # The kernel's id of another process's CPU clock (nanoseconds; the
        # fields in /proc/PID/stat are in ticks of 10 ms).
        clock = (~self.pid << 3) | 2
        try:
            seconds = time.clock_gettime(clock)
            status = Path(f'/proc/{self.pid}/status').read_text()
        except OSError:
            return
        for line in status.splitlines():
            if line.startswith('VmHWM:'):
                self._usage = (seconds, int(line.split()[1]) / 1024)


# Which accelerator works here

_accel: str | None = None


def _probe_kvm(binary: Path) -> bool:
    """Boot the guest under KVM and see whether it comes up.

    There are hosts whose /dev/kvm opens, but where a Linux guest crashes.
    """
    from . import guest     # at run time: guest builds on this module
    kernel, initrd = guest.ensure()
    try:
        with tempfile.TemporaryDirectory(prefix='ferry-kvm-') as scratch, \
             VM(binary, 'probe', Path(scratch), 256, kernel=kernel,
                initrd=initrd, append=guest.guest_args(16, 8, 1000),
                accelerator='kvm') as vm, guest.Guest(vm) as probe:
            probe.wait_ready(timeout=8)
            return probe.verify(timeout=8).ok
    except FerryError:
        return False


def _find_accel() -> str:
    if platform.machine() != 'x86_64' or not os.access('/dev/kvm',
                                                       os.R_OK | os.W_OK):
        return 'tcg'
    note = paths.BUILD / 'guest' / 'accel'
    boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    try:
        known_boot, known = note.read_text().split()
        if known_boot == boot and known in ('kvm', 'tcg'):
            return known
    except (OSError, ValueError):
        pass                # no note yet, or a damaged one
    # The base decides: what is being tested should not.
    binary = next((path for path in map(_built, ('pristine', 'ferry'))
                   if path), None)
    if binary is None:
        return 'tcg'        # for now: nothing to probe with
    found = 'kvm' if _probe_kvm(binary) else 'tcg'
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f'{boot} {found}\n')
    except OSError:
        pass                # it only costs the next process a probe
    return found


def _built(kind: str) -> Path | None:
    try:
        return paths.qemu(kind)
    except FerryError:
        return None


def accel() -> str:
    """'kvm' if a guest boots under it on this machine, else 'tcg'.

    The answer is kept for as long as the host is up; FERRY_ACCEL overrides.
    """
    global _accel
    if _accel is None:
        _accel = os.environ.get('FERRY_ACCEL') or _find_accel()
    return _accel
