# The Linux guest that keeps accounts of its own memory, seen from outside.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The Linux guest that keeps accounts of its own memory, seen from outside.

tests/guest/ holds the guest itself.  Here is the client of its console and of
its control port.  Both stay attached through a migration: expect() attaches to
the destination before it runs, move_to() lets go of the source afterwards.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import secrets
import selectors
import socket
import subprocess
import threading
import time
from pathlib import Path

from . import paths
from .errors import FerryError, one_line
from .vm import VM

ASK_AGAIN = 3.0         # s after which an unanswered command is sent again
LINE_MAX = 4096         # longer "lines" are noise and are cut

# Of the kernel's command line: on a busy host the timer of a guest under TCG may
# come too late for the check, and then the kernel panics.
NO_TIMER_CHECK = 'no_timer_check'

_STATUS = re.compile(r'ferry-guest: up ([\d.]+) s, (\d+) pages, (\d+) writes, '
                     r'(\d+)/s')
_ERROR = re.compile(r'ferry-guest: error: (.*)|(Kernel panic.*)')


def ensure() -> tuple[Path, Path]:
    """Build the guest if it is not up to date; return kernel and initrd."""
    script = paths.ROOT / 'tests' / 'guest' / 'build'
    environment = dict(os.environ, FERRY_BUILD=str(paths.BUILD))
    try:
        done = subprocess.run([str(script)], env=environment, text=True,
                              stdout=subprocess.PIPE, timeout=900,
                              stderr=subprocess.STDOUT, check=False,
                              stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise FerryError(f'cannot build the test guest: {err}') from err
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.strip()]
        reason = re.sub(r'^(ferry: )?error: ', '', said[-1] if said else '')
        raise FerryError('cannot build the test guest: '
                         + one_line(reason or f'{script} failed'))
    return paths.BUILD / 'guest' / 'vmlinuz', paths.BUILD / 'guest/initrd.img'


def guest_args(fill_mib: int, work_mib: int, rate: int, seed: int = 1,
               order: str = 'random', stripes: int = 16,
               timed: bool = False, modules: bool = False,
               disk: bool = False, net: int | None = None) -> str:
    """The kernel's command line for a guest with these settings.

    FILL_MIB are filled with a pattern, the first WORK_MIB of it are written
    to, RATE pages a second, in random or linear ORDER.  Each write changes
    STRIPES words of 8 bytes, at most one in every 256 bytes.  With TIMED the
    guest measures how long the access to each page takes.  With
    MODULES the drivers are loaded that tests/guest/build has put in, as
    virtio_balloon.  With DISK it has a virtio disk (see tests/guest/disk.h).
    With NET it sends so many numbered packets a second (tests/guest/net.h).
    """
    return (f'console=ttyS0 quiet mitigations=off tsc=reliable {NO_TIMER_CHECK} '
            f'ferry.fill={fill_mib} ferry.work={work_mib} ferry.rate={rate} '
            f'ferry.seed={seed} ferry.order={order} ferry.stripes={stripes}'
            + (' ferry.timed=1' if timed else '')
            + (' ferry.modules=1' if modules else '')
            + (' ferry.disk=1' if disk else '')
            + (f' ferry.packets={net}' if net is not None else ''))


@dataclasses.dataclass
class Verify:
    """What the guest found when it recomputed all of its pages."""

    ok: bool
    pages: int
    writes: int
    sum: int
    detail: str


@dataclasses.dataclass
class Times:
    """How long the guest's accesses took, until now."""

    clock_ns: int           # of the guest
    asked_ns: int           # of the host, when it was asked,
    told_ns: int            # and when it had answered
    accesses: int
    counts: dict[int, int]  # how many took so many ns, or a little more

    def since(self, before: Times) -> dict[int, int]:
        """The counts of what came after BEFORE."""
        return {floor: new for floor, count in sorted(self.counts.items())
                if (new := count - before.counts.get(floor, 0)) > 0}


def parse_values(text: str) -> dict[str, int | str]:
    """Read "name=value ..." into a dict, decimal numbers as int."""
    values: dict[str, int | str] = {}
    for word in text.split():
        name, sign, value = word.partition('=')
        if sign:
            decimal = value.isdigit() and not (len(value) > 1
                                               and value[0] == '0')
            values[name] = int(value) if decimal else value
    return values


def parse_verify(answer: str, seen_writes: int = 0) -> Verify:
    """Read the guest's answer to "verify".

    SEEN_WRITES is a number of writes that the guest reported earlier: if it
    has fewer now, all of its memory went back in time, accounts included.
    """
    word, _, rest = answer.partition(' ')
    values = parse_values(rest)
    try:
        pages, writes, total, wrong = (int(values[name]) for name in
                                       ('pages', 'writes', 'sum', 'wrong'))
    except (KeyError, ValueError) as err:
        raise FerryError(f'the guest answered verify with "{answer}"') from err
    ok, detail = word == 'ok', f'{pages} pages as expected'
    if wrong:
        detail = (f'{wrong} of {pages} pages differ, the first is page '
                  f'{values.get("index")} (sequence {values.get("seq")}) at '
                  f'byte {values.get("offset")}: expected '
                  f'{values.get("expected")}, got {values.get("got")}')
    elif values.get('lost'):
        detail = (f'{values["lost"]} of the {values.get("made")} blocks that '
                  'the guest allocated did not hold what it wrote there')
    elif total != writes:
        detail = (f'the pages account for {total} writes, but {writes} were '
                  'made')
    elif writes < seen_writes:
        ok = False
        detail = (f'memory went back: {writes} writes, but {seen_writes} were '
                  'reported earlier')
    elif not ok:
        raise FerryError(f'the guest answered verify with "{answer}"')
    return Verify(ok, pages, writes, total, detail)


class Lines:
    """Cut what a serial port sends into lines."""

    def __init__(self) -> None:
        self._rest = ''

    def feed(self, data: bytes) -> list[str]:
        """Add DATA; return the lines that it completes."""
        *lines, rest = (self._rest + data.decode('latin-1')).split('\n')
        self._rest = rest[-LINE_MAX:]
        return [line.strip('\r') for line in lines]


class _Ports:
    """The console and the control port of one VM."""

    def __init__(self, vm: VM) -> None:
        self.vm = vm
        self.console = self._open(vm.console_path)
        try:
            self.control = self._open(vm.control_path)
        except FerryError:
            self.console.close()
            raise
        try:
            vm.wait_attached('console')
            vm.wait_attached('control')
        except FerryError:
            self.close()
            raise

    @staticmethod
    def _open(path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(5)
            sock.connect(path)
        except OSError as err:
            sock.close()
            raise FerryError(f'cannot attach to {path}: '
                             f'{err.strerror or err}') from err
        return sock

    def close(self) -> None:
        self.console.close()
        self.control.close()


class Guest:
    """The guest in VM, wherever it moves."""

    def __init__(self, vm: VM) -> None:
        """Attach to VM, which must have been started."""
        self.vm = vm
        self._changed = threading.Condition()
        self._one_command = threading.Lock()
        self._ids = (f'{secrets.token_hex(4)}.{n}' for n in itertools.count())
        self._answers: dict[str, str] = {}
        self._console: list[str] = []
        self._seen_writes = 0
        self._up = False
        self._broken: str | None = None
        self._moves = 0
        self._ports: dict[VM, _Ports] = {}
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = socket.socketpair()
        self._selector.register(self._wake_r, selectors.EVENT_READ, None)
        self.expect(vm)
        self._reader = threading.Thread(target=self._read, daemon=True,
                                        name=f'guest-{vm.name}')
        self._reader.start()

    # The reader thread

    def _read(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._wake_r.recv(64)
                    continue
                self._read_one(key.fileobj, *key.data)

    def _read_one(self, sock: socket.socket, lines: Lines,
                  is_console: bool) -> None:
        try:
            data = sock.recv(1 << 16)
        except OSError:
            data = b''
        if not data:
            with self._changed:
                try:
                    self._selector.unregister(sock)
                except (KeyError, ValueError):
                    pass        # closed by move_to() at this very moment
            return
        with self._changed:
            for line in lines.feed(data):
                if is_console:
                    self._take_console(line)
                else:
                    serial, _, answer = line.partition(' ')
                    if serial in self._answers:
                        self._answers[serial] = answer
            self._changed.notify_all()

    def _take_console(self, line: str) -> None:
        if not line:
            return
        self._console.append(line)
        del self._console[:-200]
        status = _STATUS.search(line)
        if status:
            self._seen_writes = max(self._seen_writes, int(status[3]))
        if status or 'ferry-guest: ready' in line:
            self._up = True
        error = _ERROR.search(line)
        if error:
            self._broken = error[1] or error[2]

    # Where the guest is

    def expect(self, vm: VM) -> None:
        """Attach to VM as well, where the guest will be in a moment."""
        if vm in self._ports:
            return
        ports = _Ports(vm)
        with self._changed:
            self._ports[vm] = ports
            for sock, is_console in ((ports.console, True),
                                     (ports.control, False)):
                self._selector.register(sock, selectors.EVENT_READ,
                                        (Lines(), is_console))
        self._wake_w.send(b'.')

    def forget(self, vm: VM) -> None:
        """Let go of VM's ports; undoes expect()."""
        with self._changed:
            ports = self._ports.pop(vm, None)
            if ports is None:
                return
            for sock in (ports.console, ports.control):
                try:
                    self._selector.unregister(sock)
                except (KeyError, ValueError):
                    pass        # it had reached its end
            ports.close()

    def move_to(self, vm: VM) -> None:
        """The guest runs in VM now; let go of the others."""
        self.expect(vm)
        with self._changed:
            self.vm = vm
            self._moves += 1
            self._changed.notify_all()
        for other in list(self._ports):
            if other is not vm:
                self.forget(other)

    def close(self) -> None:
        """Let go of all ports."""
        if self._closed:
            return
        self._closed = True
        self._wake_w.send(b'.')
        self._reader.join(5)
        for vm in list(self._ports):
            self.forget(vm)
        self._selector.close()
        self._wake_r.close()
        self._wake_w.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # What the guest says and does

    def last_line(self) -> str:
        """The latest whole line on the console."""
        with self._changed:
            return self._console[-1] if self._console else ''

    def console(self) -> list[str]:
        """The latest lines on the console (up to 200)."""
        with self._changed:
            return list(self._console)

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until the guest has booted, filled its memory and answers."""
        deadline = time.monotonic() + timeout
        while not self._up:
            with self._changed:
                self._changed.wait(0.1)
            if self._broken:
                raise FerryError(f'the guest failed: {self._broken}')
            self.vm.check_alive()
            if time.monotonic() > deadline:
                raise FerryError(
                    f'the guest in {self.vm.name} was not up within '
                    f'{timeout:.0f} s; its console ended with '
                    f'"{self.last_line()}"')
        self.command('ping', max(deadline - time.monotonic(), 1))

    def command(self, text: str, timeout: float = 10) -> str:
        """Have the guest run the command TEXT; return its answer.

        The command runs once even if it has to be sent again because the
        guest moved between question and answer.
        """
        with self._one_command:
            serial = next(self._ids)
            with self._changed:
                self._answers[serial] = ''
            try:
                answer = self._ask(serial, text, time.monotonic() + timeout)
            finally:
                with self._changed:
                    del self._answers[serial]
        if answer.startswith('error'):
            raise FerryError(f'guest command "{text}": {answer[6:]}')
        return answer

    def _ask(self, serial: str, text: str, deadline: float) -> str:
        while True:
            with self._changed:
                moves, vm, ports = self._moves, self.vm, self._ports[self.vm]
            try:
                # The first newline ends what an earlier client left unended.
                ports.control.sendall(f'\n{serial} {text}\n'.encode())
            except OSError:
                vm.check_alive()
            again = time.monotonic() + ASK_AGAIN
            with self._changed:
                while (time.monotonic() < min(again, deadline)
                       and self._moves == moves):
                    if self._answers[serial]:
                        return self._answers[serial]
                    self._changed.wait(max(
                        0.001, min(again, deadline) - time.monotonic()))
                if self._answers[serial]:
                    return self._answers[serial]
            if time.monotonic() >= deadline:
                vm.check_alive()
                raise FerryError(f'the guest in {vm.name} did not answer '
                                 f'"{text}" in time')

    def set_rate(self, pages_per_second: int) -> None:
        """Let the guest write so many pages a second."""
        self.command(f'rate {pages_per_second}')

    def status(self) -> dict:
        """up_ms, pages, work, rate, writes, beats, skipped, seed."""
        values = parse_values(self.command('status'))
        with self._changed:
            self._seen_writes = max(self._seen_writes,
                                    int(values.get('writes', 0)))
        return values

    def apart_ms(self, first: int, count: int) -> float:
        """From the heartbeat before number FIRST it took COUNT beats so long.

        By the guest's own clock, which stands still while it is stopped.  It
        remembers the last 256, by the byte that was sent.
        """
        answer = self.command(f'apart {first} {count}')
        return int(parse_values(answer)['us']) / 1e3

    def times(self, timeout: float = 10) -> Times:
        """How long accesses have taken; needs a guest that is TIMED."""
        asked, start = time.monotonic_ns(), 0
        counts: dict[int, int] = {}
        while True:
            answer = self.command(f'times {start}', timeout)
            values = parse_values(answer)
            try:
                start, clock = int(values['next']), int(values['ns'])
                accesses, *pairs = answer.split()[3:]
                counts |= {int(floor): int(count) for floor, count in
                           (pair.split(':') for pair in pairs)}
            except (KeyError, ValueError) as err:
                raise FerryError('the guest answered times with '
                                 f'"{answer}"') from err
            if not start:
                return Times(clock, asked, time.monotonic_ns(), int(accesses),
                             counts)

    def went_back(self) -> None:
        """It is that of a snapshot: what it did later has never been."""
        self._seen_writes = 0

    def verify(self, timeout: float = 60) -> Verify:
        """Have the guest recompute and compare all of its pages."""
        with self._changed:
            seen = self._seen_writes
        result = parse_verify(self.command('verify', timeout), seen)
        with self._changed:
            self._seen_writes = max(seen, result.writes)
        return result
