# Sources that lie to a destination in postcopy.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources that lie to a destination in postcopy.

Once the destination may run the guest it can only pause, and say why: a source
that comes back and tells the truth brings all that is missing.  Before that it
fails, and the guest does not run there.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import records as r
from cases import advise, discard
from ferry.errors import FerryError
from ferry.qmp import QMP, QMPError
from ferry.vm import VM
from ferrytest import abilities
from ferrytest.bench.run import ram_address
from giver import HELLO, PAGE, Giver, Touch, Where
from peers import LIMIT, OURS
from postcopy import PAUSED, until
from records import Record

NEEDS = ('postcopy-ram', 'return-path', *OURS)
CAPS = {'postcopy-ram': True}
ACTIVE = 'postcopy-active'
BLOCK = b'pc.ram'
SIZE = 16 << 20         # of BLOCK
HUGE = (1 << 64) - PAGE
DATA = b'\x5a' * PAGE
# The guest that was recorded never ran: these pages are not zero.
FILLED = range(1 << 20, 12 << 20, 3 * PAGE)
WAITS = 'inmigrate'     # the guest has not come
ENDS = 4.0              # s for a QEMU that is told to end
LINGERS = 0.4           # s that a failed destination reads on, at least
ASIDE_VALUE = 7
ASIDE = struct.pack('>I', ASIDE_VALUE)
Say = Callable[[Giver], list[bytes | Record]]


@dataclass(frozen=True)
class Lie:
    """What is sent after RUN.

    ERROR is a part of the reason for the pause; None if it may not do any harm,
    '' if it may pause as well as not.
    """
    name: str
    say: Say
    error: str | None
    hang_up: bool = False


def entry(name: str, *what: bytes, error: str = '') -> Lie:
    """Entries of RAM."""
    return Lie(name, lambda g: [g.part(*what)], error or "Section 'ram'")


def command(name: str, number: int, payload: bytes = b'',
            error: str | None = None) -> Lie:
    """One command."""
    return Lie(name, lambda g: [r.command(number, payload)],
               error or 'command')


TWICE = (BLOCK, 0x100000)
LIES = [
    # no harm
    Lie('nothing', lambda g: [], None),
    Lie('page-twice', lambda g: [g.part(g.page(TWICE)),
                                 g.part(g.page(TWICE, DATA))], None),
    Lie('page-and-zero', lambda g: [g.part(
        g.page(TWICE), g.page(TWICE, bytes(PAGE)))], None),
    Lie('page-many-times', lambda g: [g.part(*[g.page(TWICE)] * 500)], None),
    Lie('nobody-asked', lambda g: [g.part(*(
        g.page(where) for where in reversed(g.everything()[:600])))], None),
    Lie('empty-section', lambda g: [g.part()] * 100, None),
    Lie('ping', lambda g: [r.command(r.PING, bytes(4))] * 100, None),

    # where no page is
    entry('unknown-block', r.ram(r.PAGE, 0, b'nosuch', DATA)),
    entry('block-with-escape', r.ram(r.PAGE, 0, b'\x1b[2J', DATA)),
    entry('block-without-name', r.ram(r.PAGE, 0, b'', DATA)),
    entry('before-a-name', r.ram(r.PAGE | r.CONTINUE, 0, rest=DATA)),
    entry('behind-end', r.ram(r.PAGE, SIZE, BLOCK, DATA)),
    entry('far-behind-end', r.ram(r.PAGE, 1 << 40, BLOCK, DATA)),
    entry('at-the-very-end', r.ram(r.PAGE, HUGE, BLOCK, DATA)),
    entry('zero-behind-end', r.ram(r.ZERO, SIZE, BLOCK, b'\0')),
    entry('run-over-end', r.ram(r.PAGE_RUN, SIZE - PAGE, BLOCK,
                                struct.pack('>I', 2) + 2 * DATA)),
    entry('range-over-end', r.ram(r.ZERO_RANGE, SIZE - PAGE, BLOCK,
                                  struct.pack('>Q', 2))),
    entry('range-around', r.ram(r.ZERO_RANGE, PAGE, BLOCK,
                                struct.pack('>Q', (1 << 64) - 1))),

    # what is no page
    entry('no-flag', r.ram(0, 0, BLOCK, DATA)),
    entry('flag-of-old', r.ram(0x01, 0, BLOCK, DATA)),
    entry('page-and-zero-at-once', r.ram(r.PAGE | r.ZERO, 0, BLOCK, DATA)),
    entry('zero-of-ones', r.ram(r.ZERO, 0, BLOCK, b'\1')),
    entry('difference', r.ram(r.XBZRLE, 0, BLOCK, b'\1\0\6\0\4\1\0\0\0')),
    entry('run-of-4-G', r.ram(r.PAGE_RUN, 0, BLOCK,
                              struct.pack('>I', 0xffffffff) + DATA)),
    entry('list-of-blocks', r.ram(r.MEM_SIZE, SIZE, rest=r.named(BLOCK)
                                  + struct.pack('>Q', SIZE))),
    Lie('page-cut', lambda g: [g.part(g.page(TWICE, DATA)).pack()[:99]],
        "Section 'ram'", True),

    # what has its time, which is over
    command('run-twice', r.RUN),
    command('listen-twice', r.LISTEN),
    command('return-path-twice', r.OPEN_RETURN_PATH),
    command('switchover', r.SWITCHOVER_START),
    command('resume-unasked', r.RESUME),
    command('colo', r.ENABLE_COLO),
    Lie('bitmap-unasked', lambda g: [
        r.command(r.RECV_BITMAP, r.named(BLOCK))], ''),
    command('bitmap-unknown-block', r.RECV_BITMAP, r.named(b'nosuch')),
    command('bitmap-without-name', r.RECV_BITMAP, b'\x20a'),
    Lie('advise', lambda g: [advise()], 'POSTCOPY_ADVISE'),
    Lie('discard', lambda g: [discard(BLOCK, (0, PAGE))], 'POSTCOPY_DISCARD'),
    Lie('package-twice', lambda g: [g.package()], 'PACKAGED'),
    command('attempt', r.HOLD, bytes(8)),
    command('command-99', 99),
    command('ping-of-2-bytes', r.PING, b'\0\1'),

    # what comes from another stream
    Lie('another-stream', lambda g: g.greeting(), 'Unknown type'),
    Lie('memory-again', lambda g: [g.greeting()[-1]], ''),
    Lie('device', lambda g: [g.devices[0]], ''),
    Lie('part-of-nothing', lambda g: [Record(r.PART, number=0xdeadbeef)],
        'section number 3735928559'),
    Lie('wrong-footer', lambda g: [g.part(g.page(TWICE)).but(
        footer=b'\x7e\0\0\xff\xff')], 'its footer says 65535'),
    Lie('unknown-type', lambda g: [Record(0x33)], 'Unknown type 0x33'),
    Lie('noise', lambda g: [b'\xa5' * 4096], 'Unknown type 0xa5'),

    # nothing more
    Lie('hangs-up', lambda g: [], 'stream ends', True),
    Lie('half-a-record', lambda g: [b'\x02\0'], '', True),
]


class Bench:
    """A destination and who gives it a guest."""

    def __init__(self, start: Callable[..., VM], folder: Path,
                 stream: bytes, caps: dict[str, bool] | None = None) -> None:
        self.caps = {**CAPS, **(caps or {})}
        abilities.require('ferry', [*NEEDS, *self.caps])
        self.vm = start(incoming='defer')
        self.giver = Giver(r.parse(stream))
        for at in FILLED:
            self.giver.pages[BLOCK, at] = struct.pack('>Q', at) * (PAGE // 8)
        self.path = folder / f'{self.vm.name}-giver'
        self.tries = 0
        self.base = 0

    def __enter__(self) -> Bench:
        self.vm.start()
        self.base = ram_address(self.vm)
        self.vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
            {'capability': name, 'state': state}
            for name, state in self.caps.items()]})
        self.vm.qmp.cmd('migrate-incoming', {'uri': f'unix:{self.path}',
                                             'exit-on-error': False})
        self.giver.connect(self.path)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.giver.close()
        self.vm.stop()

    def begin(self) -> None:
        """All up to RUN, and wait until that is known to have come."""
        giver = self.giver
        giver.say(*giver.greeting(), giver.discard(), giver.package())
        giver.wait(lambda: HELLO in giver.pongs, 'RUN does not come')
        until(self.vm, ACTIVE)
        self.has_guest()

    def has_guest(self) -> None:
        """The guest is the destination's."""
        end = time.monotonic() + LIMIT
        while self.vm.qmp.cmd('query-status')['status'] == WAITS:
            if time.monotonic() > end:
                raise FerryError('the guest did not come')
            time.sleep(0.01)

    def paused(self) -> str:
        """It has paused; why."""
        info = until(self.vm, PAUSED, 'failed', 'completed')
        why = info.get('error-desc', '')
        if info['status'] != PAUSED:
            raise FerryError(f'is {info["status"]}, not paused: {why}')
        if not why or '\n' in why or '\x1b' in why:
            raise FerryError(f'no clear reason for the pause: {why!r}')
        self.has_guest()
        return why

    def reconnect(self, monitor: QMP | None = None) -> None:
        """To a new address, as a source that resumes; by MONITOR if need be.
        """
        self.tries += 1
        path = self.path.with_name(f'{self.path.name}-{self.tries}')
        command_ = (monitor.urgent if monitor is not None
                    else self.vm.qmp.cmd)
        command_('migrate-recover', {'uri': f'unix:{path}'})
        self.giver.connect(path)

    def ask(self) -> None:
        """Ask for the bitmap of each block."""
        giver = self.giver
        for block, _ in giver.blocks:
            giver.say(r.command(r.RECV_BITMAP, r.named(block)))
        giver.wait(lambda: len(giver.bitmaps) == len(giver.blocks),
                   'not all bitmaps come')

    def comes_back(self, monitor: QMP | None = None) -> None:
        """An honest source comes and brings all that is missing."""
        giver = self.giver
        self.reconnect(monitor)
        self.ask()
        giver.say(r.command(r.RESUME))
        giver.wait(lambda: giver.acks == [1], 'RESUME is not answered')
        giver.send(giver.lacking())
        self.complete()

    def complete(self) -> None:
        """The end; and the guest has what it had."""
        giver = self.giver
        giver.finish()
        info = until(self.vm, 'completed', PAUSED, 'failed')
        if info['status'] != 'completed':
            raise FerryError(f'does not complete: {info["status"]} '
                             f'{info.get("error-desc")}')
        self.verify()

    def verify(self) -> None:
        """Compare all of BLOCK."""
        with open(f'/proc/{self.vm.pid}/mem', 'rb', 0) as memory:
            memory.seek(self.base)
            have = memory.read(SIZE)
        for at in range(0, SIZE, PAGE):
            due = self.giver.pages.get((BLOCK, at), bytes(PAGE))
            if have[at:at + PAGE] != due:
                raise FerryError(f'page {at:#x} is wrong')


def check_lie(lie: Lie, bench: Bench) -> None:
    """LIE in postcopy: it pauses, or does not care; all can be saved."""
    giver = bench.giver
    with bench:
        bench.begin()
        giver.say(*lie.say(giver))
        if lie.hang_up:
            giver.close()
        if lie.error is None or lie.error == '' and not lie.hang_up:
            giver.send(giver.everything())
            giver.finish()
            info = until(bench.vm, 'completed', PAUSED, 'failed')
            if info['status'] == 'completed':
                bench.verify()
                return
            if lie.error is None:
                raise FerryError(f'is {info["status"]}: '
                                 f'{info.get("error-desc")}')
        why = bench.paused()
        if lie.error not in why:
            raise FerryError(f'pauses as {why!r}, not {lie.error!r}')
        bench.comes_back()


# Packages with which no guest can run, and what is said
LISTEN, RUN = r.command(r.LISTEN), r.command(r.RUN)
PACKAGES: dict[str, Say] = {
    'without-run': lambda g: [LISTEN, *g.devices],
    'of-listen': lambda g: [LISTEN],
    'with-end-before-run': lambda g: [LISTEN, *g.devices, Record(r.EOF), RUN],
    'listens-twice': lambda g: [LISTEN, LISTEN, *g.devices, RUN],
    'runs-first': lambda g: [RUN, LISTEN, *g.devices],
    'never-listens': lambda g: [*g.devices, RUN],
    'runs-and-goes-on': lambda g: [LISTEN, RUN, *g.devices],
    'with-device-cut': lambda g: [
        LISTEN, *g.devices[:-1],
        g.devices[-1].pack()[:-20] + b'\xff' * 15, RUN],
    'with-unknown-device': lambda g: [
        LISTEN, g.devices[0].but(name=b'flux-capacitor'), RUN],
    'with-discard': lambda g: [LISTEN, discard(BLOCK, (0, PAGE)), RUN],
}
# Of these all has come by then: the guest may run after all.
MAY_RUN = ('runs-and-goes-on', 'without-run')


def check_package(name: str, bench: Bench) -> None:
    """Without all of its devices the guest must not run."""
    giver = bench.giver
    with bench:
        giver.say(*giver.greeting(), giver.discard(),
                  giver.package(*PACKAGES[name](giver)))
        giver.send(giver.everything())
        giver.finish()
        info = until(bench.vm, 'failed', 'completed', PAUSED)
        why = info.get('error-desc', '')
        if info['status'] != 'failed' and name not in MAY_RUN:
            raise FerryError(f'is {info["status"]}: {why}')
        if info['status'] == 'failed' and not why:
            raise FerryError('fails without a reason')
        state = bench.vm.qmp.cmd('query-status')
        if info['status'] == 'failed' and state['status'] != WAITS:
            raise FerryError(f'the guest of a failed load is {state}')


def steps(giver: Giver) -> list[tuple[str, list[bytes | Record]]]:
    """What an honest source says, in pieces."""
    package = giver.package()
    pages = giver.everything()
    half = len(pages) // 2
    return [
        ('greeting', giver.greeting()), ('discard', [giver.discard()]),
        ('half-a-package', [package[:len(package) // 2]]),
        ('package', [package[len(package) // 2:]]),
        ('pages', [giver.part(*(giver.page(one) for one in pages[:half]))]),
        ('all-pages', [giver.part(*(giver.page(one)
                                    for one in pages[half:]))]),
        ('memory', [giver.part(kind=r.END)]), ('end', [Record(r.EOF)])]


STEPS = ('greeting', 'discard', 'half-a-package', 'package', 'pages',
         'all-pages', 'memory', 'end')


def say_until(bench: Bench, last: str) -> None:
    """All steps up to LAST."""
    for name, what in steps(bench.giver):
        bench.giver.say(*what)
        if name == 'package' and last != name:
            bench.giver.wait(lambda: HELLO in bench.giver.pongs,
                             'RUN does not come')
        if name == last:
            return


def check_hang_up(last: str, bench: Bench) -> None:
    """The source goes away: before RUN all is over, then it pauses."""
    with bench:
        say_until(bench, last)
        if last == 'package':
            bench.giver.wait(lambda: HELLO in bench.giver.pongs,
                             'RUN does not come')
        bench.giver.close()
        info = until(bench.vm, 'failed', 'completed', PAUSED)
        due = ('failed' if STEPS.index(last) < STEPS.index('package')
               else 'completed' if last == 'end' else PAUSED)
        if info['status'] != due:
            raise FerryError(f'is {info["status"]}, not {due}: '
                             f'{info.get("error-desc")}')
        if due == PAUSED:
            bench.paused()
            bench.comes_back()
        elif due == 'completed':
            bench.verify()


def check_deaf(last: str, bench: Bench) -> None:
    """The way back is closed; the stream goes on."""
    giver = bench.giver
    with bench:
        for name, what in steps(giver):
            giver.say(*what)
            if name == last:
                giver.deafen()
            elif name == 'package' and STEPS.index(last) > STEPS.index(name):
                giver.wait(lambda: HELLO in giver.pongs, 'RUN does not come')
        info = until(bench.vm, 'failed', 'completed', PAUSED)
        if info['status'] == PAUSED:
            bench.paused()
            bench.comes_back()
        elif info['status'] == 'completed':
            bench.verify()
        elif STEPS.index(last) > STEPS.index('package'):
            raise FerryError(f'is {info["status"]}: {info.get("error-desc")}')


def expected(where: Where, giver: Giver) -> int:
    """The first word of a page as the guest sees it."""
    return int.from_bytes(giver.pages[where][:8], 'little')


def check_owed(bench: Bench) -> None:
    """The stream ends, but somebody waits for a page that did not come."""
    giver = bench.giver
    where = BLOCK, FILLED.start
    with bench:
        bench.begin()
        touch = Touch(bench.vm, where[1])
        giver.wait(lambda: (BLOCK, where[1], PAGE) in giver.asked,
                   'the page is not asked for')
        giver.send(one for one in giver.everything() if one != where)
        giver.finish()
        giver.wait(lambda: giver.over, 'it does not pause')
        again(lambda: bench.comes_back(touch.monitor))
        if touch.end() != expected(where, giver):
            raise FerryError(f'who waited has read {touch.word:#x}')


def check_keeps_back(bench: Bench) -> None:
    """The stream ends, but pages did not come that nobody waits for."""
    giver = bench.giver
    kept = {(BLOCK, at) for at in (FILLED.start, FILLED[-1], SIZE - PAGE)}
    with bench:
        bench.begin()
        giver.send(one for one in giver.everything() if one not in kept)
        giver.finish()
        why = bench.paused()
        if f'{len(kept)} pages' not in why or BLOCK.decode() not in why:
            raise FerryError(f'pauses as {why!r}')
        bench.reconnect()
        bench.ask()
        if set(giver.lacking()) != kept:
            raise FerryError(f'lacks {giver.lacking()}')
        giver.say(r.command(r.RESUME))
        giver.wait(lambda: giver.acks == [1], 'RESUME is not answered')
        giver.send(giver.lacking())
        bench.complete()


def check_gone(bench: Bench) -> None:
    """The source is gone while the package is being loaded, which goes on."""
    giver = bench.giver
    with bench:
        giver.say(*giver.greeting(), giver.discard(), giver.package())
        giver.close()
        bench.paused()
        bench.comes_back()


def check_heard_out(inner: Say | None, bench: Bench) -> None:
    """Who fails says so, and does not hang up on a source that still sends.

    A connection that is closed with something unread is reset, and what was
    said last may be lost.  INNER is a package; without one it fails before.
    """
    giver = bench.giver
    page = giver.part(giver.page(TWICE))
    with bench:
        giver.say(*giver.greeting(), giver.discard())
        giver.say(Record(0x33) if inner is None
                  else giver.package(*inner(giver)))
        giver.wait(lambda: giver.shut is not None, 'it does not say SHUT')
        end = time.monotonic() + LINGERS
        while time.monotonic() < end:
            giver.say(*[page] * 100)
            if giver.over:
                raise FerryError('it has hung up first')
        if giver.shut != 1:
            raise FerryError(f'it says {giver.shut}')
        giver.close()
        until(bench.vm, 'failed')


# How a destination that is paused is told to end
ORDERS: dict[str, Callable[[VM, QMP], None]] = {
    'in-band': lambda vm, urgent: vm.qmp.cmd('quit'),
    'out-of-band': lambda vm, urgent: urgent.urgent('quit'),
    'after-stop': lambda vm, urgent: vm.qmp.cmd('quit'),
    'by-signal': lambda vm, urgent: os.kill(vm.pid, signal.SIGTERM),
}


def check_ends(order: str, bench: Bench) -> None:
    """QEMU is told to end while a vCPU waits for a page that does not come.

    The guest executes its first instruction, which has not come.
    """
    giver, vm = bench.giver, bench.vm
    with bench, QMP(vm.view_path, oob=True) as urgent:
        bench.begin()
        vm.qmp.cmd('cont')
        giver.wait(lambda: bool(giver.asked), 'no vCPU asks for a page')
        if order == 'after-stop':
            stopped_by_pause(bench)
        giver.close()
        bench.paused()
        began = time.monotonic()
        ORDERS[order](vm, urgent)
        code = vm.wait_end(ENDS)
        if code != 0:
            raise FerryError(f'{order}: ends with status {code}: '
                             f'{vm.log_tail(2)}')
        if time.monotonic() - began > ENDS:
            raise FerryError(f'{order}: took longer than {ENDS} s')


def stopped_by_pause(bench: Bench) -> None:
    """'stop' waits for a vCPU that waits for a page, until postcopy pauses."""
    said: list[str] = []

    def stop() -> None:
        try:
            bench.vm.qmp.cmd('stop', timeout=ENDS)
        except QMPError as err:
            said.append(str(err))

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    time.sleep(0.2)
    bench.giver.close()
    thread.join(2 * ENDS)
    if thread.is_alive() or said:
        raise FerryError(f'stop: {said or "no answer"}')


def check_stops(bench: Bench) -> None:
    """A vCPU that waits for a page is stopped, and goes on where it was."""
    giver, vm = bench.giver, bench.vm
    with bench:
        bench.begin()
        vm.qmp.cmd('cont')
        giver.wait(lambda: bool(giver.asked), 'no vCPU asks for a page')
        stopped_by_pause(bench)
        bench.paused()
        bench.reconnect()
        bench.ask()
        giver.say(r.command(r.RESUME))
        giver.wait(lambda: bool(giver.asked), 'it does not ask again')
        giver.send(giver.lacking())
        bench.complete()
        state = vm.qmp.cmd('query-status')
        if state['status'] != 'paused':
            raise FerryError(f'is {state}')
        at = pc_of(vm)
        vm.qmp.cmd('cont')
        end = time.monotonic() + LIMIT
        while pc_of(vm) == at:
            if time.monotonic() > end:
                raise FerryError(f'the guest stays at {at}')
            time.sleep(0.01)


def pc_of(vm: VM) -> str:
    """Where the guest is."""
    said = vm.qmp.cmd('human-monitor-command',
                      {'command-line': 'info registers'})
    return said.split('EIP=')[1].split()[0]


# What a destination fails at
HEARD_OUT: dict[str, Say | None] = {
    'before-package': None,
    'package-never-listens': PACKAGES['never-listens'],
    'package-with-unknown-device': PACKAGES['with-unknown-device'],
}


class Second:
    """The giver's channel for urgent pages, and who connects before it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socks: list[socket.socket] = []

    def connect(self, data: bytes = b'') -> socket.socket:
        """Connect, and say DATA."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(LIMIT)
        sock.connect(str(self.path))
        sock.sendall(data)
        self.socks.append(sock)
        return sock

    def __enter__(self) -> Second:
        return self

    def __exit__(self, *_exc: object) -> None:
        for sock in self.socks:
            sock.close()


def check_strangers(bench: Bench) -> None:
    """Others connect before the source makes its second connection.

    They hang up, say something else, say half of it, or say nothing.
    """
    giver = bench.giver
    where = BLOCK, FILLED.start
    with bench, Second(bench.path) as second:
        giver.say(*giver.greeting(), r.command(r.PING, ASIDE))
        giver.wait(lambda: ASIDE_VALUE in giver.pongs, 'it does not answer')
        second.connect().close()
        second.connect()
        second.connect(b'GET / HTTP/1.0\r\n\r\n')
        second.connect(giver.page((b'nosuch', 0), DATA))
        second.connect(giver.page(where)[:5])
        urgent = second.connect()
        giver.say(giver.discard(), giver.package())
        giver.wait(lambda: HELLO in giver.pongs, 'RUN does not come')
        bench.has_guest()
        touch = Touch(bench.vm, where[1])
        giver.wait(lambda: (BLOCK, where[1], PAGE) in giver.asked,
                   'the page is not asked for')
        urgent.sendall(giver.page(where))
        if touch.end() != expected(where, giver):
            raise FerryError(f'who waited has read {touch.word:#x}')
        giver.send(one for one in giver.everything() if one != where)
        bench.complete()


def check_nobody_hears(bench: Bench) -> None:
    """Somebody waits for a page, but the way back is closed."""
    giver = bench.giver
    where = BLOCK, FILLED.start
    with bench:
        bench.begin()
        giver.deafen()
        touch = Touch(bench.vm, where[1])
        giver.send(giver.everything())
        giver.finish()
        if touch.end() != expected(where, giver):
            giver.close()
            again(lambda: bench.comes_back(touch.monitor))
            return
        info = until(bench.vm, 'completed', PAUSED, 'failed')
        if info['status'] == PAUSED:
            bench.comes_back()
        elif info['status'] == 'failed':
            raise FerryError(f'fails: {info.get("error-desc")}')
        bench.verify()


def check_waits(bench: Bench) -> None:
    """The source goes away twice while somebody waits; each page once."""
    giver = bench.giver
    where = BLOCK, FILLED.start
    asked = BLOCK, where[1], PAGE
    with bench:
        bench.begin()
        touch = Touch(bench.vm, where[1])
        giver.wait(lambda: asked in giver.asked, 'the page is not asked for')
        for _ in range(2):
            giver.close()
            again(lambda: bench.reconnect(touch.monitor))
            bench.ask()
            giver.say(r.command(r.RESUME))
            giver.wait(lambda: asked in giver.asked,
                       'the page is not asked for again')
            if giver.asked.count(asked) != 1:
                raise FerryError(f'asked for too often: {giver.asked}')
        giver.send([where])
        if touch.end() != expected(where, giver):
            raise FerryError(f'who waited has read {touch.word:#x}')
        giver.send(giver.lacking())
        bench.complete()


def check_looked_at(bench: Bench) -> None:
    """Somebody reads a page between DISCARD and LISTEN: it comes all the same.
    """
    giver = bench.giver
    with bench:
        giver.say(*giver.greeting(), giver.discard(), r.command(r.PING, ASIDE))
        giver.wait(lambda: ASIDE_VALUE in giver.pongs, 'DISCARD does not come')
        for at in FILLED[:100]:
            Touch(bench.vm, at).end()
        giver.say(giver.package())
        giver.wait(lambda: HELLO in giver.pongs, 'RUN does not come')
        giver.send(giver.everything())
        bench.complete()


def again(step: Callable[[], None]) -> None:
    """Do STEP as soon as it is possible: it has to pause first."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            step()
            return
        except QMPError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


RECOVERIES: dict[str, Say] = {
    'another-stream': lambda g: g.greeting(),
    'bitmap-unknown-block': lambda g: [
        r.command(r.RECV_BITMAP, r.named(b'nosuch'))],
    'bitmap-with-escape': lambda g: [
        r.command(r.RECV_BITMAP, r.named(b'\x1b[2J'))],
    'bitmap-of-nothing': lambda g: [r.command(r.RECV_BITMAP)],
    'resume-with-data': lambda g: [r.command(r.RESUME, b'abc')],
    'resume-twice': lambda g: [r.command(r.RESUME), r.command(r.RESUME)],
    'runs-again': lambda g: [RUN],
    'listens-again': lambda g: [LISTEN],
    'package-again': lambda g: [g.package()],
    'page-behind-end': lambda g: [
        g.part(r.ram(r.PAGE, SIZE, BLOCK, DATA))],
    'noise': lambda g: [b'\xa5' * 4096],
    'half-a-command': lambda g: [b'\x08\0'],
    'nothing': lambda g: [],
    'end': lambda g: [Record(r.EOF)],
    'all-and-end': lambda g: [g.part(*(g.page(one) for one in g.everything())),
                              g.part(kind=r.END), Record(r.EOF)],
}


def check_recovery(name: str, bench: Bench) -> None:
    """A source that lies when it comes back: paused still, or again.

    At first the lie is all that there is of it, and then it has introduced itself.
    """
    giver = bench.giver
    with bench:
        bench.begin()
        giver.close()
        bench.paused()
        for introduced in (False, True):
            bench.reconnect()
            if introduced:
                bench.ask()
                until(bench.vm, 'postcopy-recover')
            giver.say(*RECOVERIES[name](giver))
            if name in ('half-a-command', 'nothing'):
                giver.close()
            else:
                giver.wait(lambda: giver.over, 'the lie is taken')
            bench.paused()
        bench.comes_back()


def check_lost_again(step: str, bench: Bench) -> None:
    """The source goes away while it recovers, here and there."""
    giver = bench.giver
    with bench:
        bench.begin()
        giver.close()
        bench.paused()
        bench.reconnect()
        if step != 'at-once':
            bench.ask()
        if step == 'after-resume':
            giver.say(r.command(r.RESUME))
            giver.wait(lambda: giver.acks == [1], 'RESUME is not answered')
            giver.send(giver.lacking()[:100])
        giver.close()
        bench.paused()
        bench.comes_back()


def tests() -> list[tuple[str, Callable]]:
    """Name and function of each test, which gets the runner's Bench."""
    def bench(lab: Any, **caps: bool) -> Bench:
        return Bench(lab.vm, lab.folder, lab.stream, {
            name.replace('_', '-'): state for name, state in caps.items()})

    made: list[tuple[str, Callable]] = [
        (f'source/{lie.name}',
         lambda lab, lie=lie: check_lie(lie, bench(lab))) for lie in LIES]
    made += [(f'source/{name}', lambda lab, check=check: check(bench(lab)))
             for name, check in (('owes-a-page', check_owed),
                                 ('keeps-pages-back', check_keeps_back),
                                 ('gone-with-package', check_gone),
                                 ('stops', check_stops),
                                 ('nobody-hears', check_nobody_hears),
                                 ('waits', check_waits),
                                 ('looked-at', check_looked_at))]
    made.append(('source/strangers-before-second-channel',
                 lambda lab: check_strangers(
                     bench(lab, postcopy_preempt=True))))
    for group, check, names in (
            ('package', check_package, PACKAGES),
            ('hangs-up-after', check_hang_up, STEPS),
            ('deaf-after', check_deaf, STEPS),
            ('ends', check_ends, ORDERS),
            ('heard-out', lambda name, bench: check_heard_out(
                HEARD_OUT[name], bench), HEARD_OUT),
            ('recover', check_recovery, RECOVERIES),
            ('recover/lost', check_lost_again,
             ('at-once', 'after-bitmaps', 'after-resume'))):
        made += [(f'source/{group}/{name}',
                  lambda lab, name=name, check=check: check(name, bench(lab)))
                 for name in names]
    return made
