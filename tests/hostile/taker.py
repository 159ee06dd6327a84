# A destination that understands what it gets, postcopy included.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A destination that understands what it gets, postcopy included.

It takes the stream apart while it comes, answers as a destination does, and
keeps account of the pages that it has.  A test tells it where to lie or to hang
up.  It has no guest: what it says about faults is made up.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path
from typing import Callable

import records as r
from ferry.errors import FerryError

# Messages of the return path
SHUT, PONG, REQ_PAGES_ID, REQ_PAGES = 1, 2, 3, 4
RECV_BITMAP, RESUME_ACK, SWITCHOVER_ACK = 5, 6, 7
BITMAP_END = 0x0123456789abcdef
RESUMED = 1
# Between two Ferrys: reports, and attempts to switch over
HELLO, IS_PEER = 0x46455252, 0xfe010104
READY, STARTED = 0x4600, 0x4601
CHANGED, ABORTED = 0x4610, 0x4611

LIMIT = 10.0            # s


def message(kind: int, payload: bytes = b'', length: int | None = None
            ) -> bytes:
    """A message, which may lie about its length."""
    size = len(payload) if length is None else length
    return struct.pack('>HH', kind, size) + payload


def value(kind: int, number: int) -> bytes:
    """A message with a number in it."""
    return message(kind, struct.pack('>I', number))


def want(start: int, length: int, block: bytes | None = None) -> bytes:
    """A request for pages."""
    asked = struct.pack('>QI', start, length)
    if block is None:
        return message(REQ_PAGES, asked)
    return message(REQ_PAGES_ID, asked + r.named(block))


def bitmap(block: bytes, bits: bytes, size: int | None = None,
           end: int = BITMAP_END) -> bytes:
    """What has been received of BLOCK, and lies about that."""
    bits += bytes(-len(bits) % 8)
    return (message(RECV_BITMAP, r.named(block))
            + struct.pack('>Q', len(bits) if size is None else size)
            + bits + struct.pack('>Q', end))


def changed_range(start: int, size: int, block: bytes) -> bytes:
    """Memory here is not what was sent."""
    return message(CHANGED, struct.pack('>QQ', start, size) + r.named(block))


def report(kind: int, attempt: int) -> bytes:
    """READY or STARTED."""
    return message(kind, struct.pack('>IIII', attempt, 1000, 10, 100))


class HungUp(Exception):
    """The other side did, or a test wants us to."""


class Taker:
    """Listens at PATH and takes one migration, resumed as often as it is.

    AT is called with the name of each thing that has come, before it is
    answered: 'return-path', 'ping', 'advise', 'ram', 'pages', 'discard',
    'package-begins', 'package', 'started', 'bitmap', 'resume', 'end'.  It returns True to
    hang up there.  ANSWER, if it is not None, changes what is said in a
    recovery: it gets the name and the honest answer.

    If it HOLDS it says that it is a Ferry, which can hold a guest: then there
    are 'hold', 'state', 'abort' and 'commit' in place of a package, and ANSWER
    gets 'ready' as well.
    """

    def __init__(self, path: Path, holds: bool = False) -> None:
        self.path = path
        self._holds = holds
        self.uri = f'unix:{path}'
        self.at: Callable[[str], bool] | None = None
        self.answer: Callable[[str, bytes], bytes] | None = None
        self.blocks: dict[bytes, int] = {}              # name: bytes
        self.have: set[tuple[bytes, int]] = set()
        self.twice = 0          # pages that came again without a discard
        self.seen: list[str] = []
        self.trouble = ''       # what the source did wrong
        self._changed = threading.Condition()
        self._sock: socket.socket | None = None
        self._file = None
        self._block = b''
        self._ram = -1
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen(4)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    # For a test

    def wait(self, name: str, times: int = 1, limit: float = LIMIT) -> None:
        """Wait until NAME has come so often."""
        with self._changed:
            if not self._changed.wait_for(
                    lambda: self.seen.count(name) >= times, limit):
                raise FerryError(f'"{name}" does not come: {self.seen[-8:]} '
                                 f'{self.trouble}')

    def say(self, data: bytes) -> None:
        """Send DATA on the return path."""
        try:
            self._sock.sendall(data)
        except OSError:
            pass        # it has heard enough

    def hang_up(self) -> None:
        """Close the connection; another may come."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def missing(self) -> list[tuple[bytes, int]]:
        """Pages that never came, or were discarded later."""
        return [(name, at) for name, size in self.blocks.items()
                for at in range(0, size, r.PAGE_SIZE)
                if (name, at) not in self.have]

    def honest(self, block: bytes) -> bytes:
        """The bits of what has been received of BLOCK."""
        bits = bytearray(-(-self.blocks.get(block, 0) // r.PAGE_SIZE // 8))
        for name, at in self.have:
            if name == block:
                page = at // r.PAGE_SIZE
                bits[page // 8] |= 1 << page % 8
        return bytes(bits)

    def close(self) -> None:
        """Hang up for good."""
        try:
            # It wakes who waits for a connection; close() does not.
            self._server.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._server.close()
        self.hang_up()
        self._thread.join(5)
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Taker:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # The stream

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            self._sock, self._file = sock, sock.makefile('rb', 1 << 18)
            try:
                self._take()
            except (HungUp, OSError):
                pass
            except r.Malformed as err:
                self.trouble = str(err)
            finally:
                self._file.close()
                sock.close()

    def _event(self, name: str) -> None:
        with self._changed:
            self.seen.append(name)
            self._changed.notify_all()
        if self.at is not None and self.at(name):
            self.hang_up()
            raise HungUp

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise HungUp
        return data

    def _get(self, layout: str) -> tuple:
        return struct.unpack('>' + layout,
                             self._bytes(struct.calcsize('>' + layout)))

    def _name(self) -> bytes:
        return self._bytes(self._get('B')[0])

    def _take(self) -> None:
        magic = self._peek(8)
        if magic == r.header():
            self._bytes(8)
        while self._record():
            pass
        self._event('end')
        self.say(value(SHUT, 0))
        while self._file.read(4096):
            pass

    def _peek(self, count: int) -> bytes:
        data = self._file.peek(count)
        while 0 < len(data) < count:
            time.sleep(0.001)
            data = self._file.peek(count)
        return data[:count]

    def _record(self) -> bool:
        """Take one; False after the last."""
        kind, = self._get('B')
        if kind == r.COMMAND:
            number, length = self._get('HH')
            self._command(number, self._bytes(length))
        elif kind == r.CONFIGURATION:
            self._bytes(self._get('I')[0])
        elif kind in (r.START, r.PART, r.END):
            self._section(kind)
        elif kind != r.EOF:
            raise r.Malformed(f'record of type {kind:#x}')
        return kind != r.EOF

    def _section(self, kind: int) -> None:
        number, = self._get('I')
        if kind == r.START:
            name = self._name()
            self._get('II')
            if name != b'ram':
                raise r.Malformed(f'section {name!r}')
            self._ram = number
        if number != self._ram:
            raise r.Malformed(f'section {number}')
        while self._entry():
            pass
        if self._get('BI') != (r.FOOTER, number):
            raise r.Malformed('no footer')
        self._event('ram' if kind == r.START else 'pages')

    def _entry(self) -> bool:
        """Take an entry of RAM; False after the last."""
        entry, = self._get('Q')
        flags, offset = entry & (r.PAGE_SIZE - 1), entry & -r.PAGE_SIZE
        if flags == r.EOS:
            return False
        if flags == r.MEM_SIZE:
            while offset > 0:
                name = self._name()
                self.blocks[name], = self._get('Q')
                offset -= self.blocks[name]
            return True
        if not flags & r.CONTINUE:
            self._block = self._name()
        self._page(flags & ~r.CONTINUE, offset)
        return True

    def _page(self, flags: int, offset: int) -> None:
        if flags == r.PAGE:
            self._bytes(r.PAGE_SIZE)
        elif flags == r.ZERO:
            self._bytes(1)
        else:
            raise r.Malformed(f'flags {flags:#x}')
        where = self._block, offset
        if {'package', 'commit'} & set(self.seen) and where in self.have:
            self.twice += 1
        self.have.add(where)

    # Commands

    def _command(self, number: int, payload: bytes) -> None:
        names = {r.OPEN_RETURN_PATH: 'return-path', r.PING: 'ping',
                 r.ADVISE: 'advise', r.DISCARD: 'discard',
                 r.PACKAGED: 'package-begins', r.RECV_BITMAP: 'bitmap',
                 r.RESUME: 'resume', r.SWITCHOVER_START: 'switchover',
                 r.HOLD: 'hold', r.STATE: 'state', r.COMMIT: 'commit',
                 r.ABORT: 'abort'}
        if number not in names:
            raise r.Malformed(f'command {number}')
        if number == r.DISCARD:
            self._discard(payload)
        elif number == r.STATE:
            self._state(payload)
        self._event(names[number])
        if number == r.PING:
            self.say(message(PONG, payload))
            if self._holds and payload == struct.pack('>I', HELLO):
                self.say(value(PONG, IS_PEER))
        elif number == r.STATE:
            self._reply('ready', report(READY, *struct.unpack(
                '>I', payload[:4])))
        elif number == r.ABORT:
            self.say(message(ABORTED, payload))
        elif number == r.COMMIT:
            self.say(report(STARTED, *struct.unpack('>I', payload)))
            self._event('started')
        elif number == r.PACKAGED:
            package = self._bytes(struct.unpack('>I', payload)[0])
            self._event('package')
            self._started(package)
        elif number == r.RECV_BITMAP:
            block = payload[1:]
            self._reply('bitmap', bitmap(block, self.honest(block)))
        elif number == r.RESUME:
            self._reply('resume', value(RESUME_ACK, RESUMED))

    def _state(self, payload: bytes) -> None:
        """Take the state of a guest that is held."""
        listen = r.command(r.LISTEN).pack()
        if self._bytes(struct.unpack('>II', payload)[1])[:4] != listen[:4]:
            raise r.Malformed('the state does not say LISTEN first')

    def _started(self, package: bytes) -> None:
        """Answer the ping at the end of PACKAGE: the guest is taken over."""
        run = r.command(r.RUN).pack()
        ping = r.command(r.PING, bytes(4)).pack()
        last = package[-len(ping + run):]
        if not package.endswith(run) or last[:5] != ping[:5]:
            raise r.Malformed('the package does not end with PING and RUN')
        self.say(message(PONG, last[5:9]))
        self._event('started')

    def _reply(self, name: str, honest: bytes) -> None:
        self.say(self.answer(name, honest) if self.answer else honest)

    def _discard(self, payload: bytes) -> None:
        length = payload[1]
        name = payload[2:2 + length]
        for start, size in struct.iter_unpack('>QQ', payload[3 + length:]):
            self.have -= {(name, at) for at in
                          range(start, start + size, r.PAGE_SIZE)}
