# A source that does postcopy by hand.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that does postcopy by hand.

It has a recorded stream, gives it out in the order of postcopy and hears what
the destination answers.  A test says what is sent, when, and where it lies.
"""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path
from typing import Callable, Iterable

import records as r
from ferry.errors import FerryError
from ferry.qmp import QMP, QMPError
from ferry.vm import VM
from records import Record
from taker import (BITMAP_END, PONG, RECV_BITMAP, REQ_PAGES, REQ_PAGES_ID,
                   RESUME_ACK, SHUT)

LIMIT = 10.0            # s
PAGE = r.PAGE_SIZE
HELLO = 3               # the PING that stands before RUN
Where = tuple[bytes, int]


class Giver:
    """Has the guest of STREAM, and connects to who listens at a path."""

    def __init__(self, stream: list[Record]) -> None:
        memory = r.Memory(stream)
        self.pages = memory.pages
        self.blocks = memory.blocks
        self._config = stream[0]
        self._ram = next(one for one in stream
                         if one.type == r.START and one.name == b'ram')
        self.devices = [one for one in stream if one.type == r.FULL]
        self._changed = threading.Condition()
        self._sock: socket.socket | None = None
        self._forget()

    def _forget(self) -> None:
        """What is known of one connection."""
        self.pongs: list[int] = []
        self.asked: list[tuple[bytes, int, int]] = []
        self.bitmaps: dict[bytes, bytes] = {}
        self.acks: list[int] = []
        self.shut: int | None = None
        self.over = False       # nothing more comes
        self.trouble = ''       # what the destination did wrong

    # Connections

    def connect(self, path: Path) -> None:
        """A new connection; what was heard on the last one is forgotten."""
        self.close()
        self._forget()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(LIMIT)
        self._sock.connect(str(path))
        threading.Thread(target=self._hear, args=(self._sock,),
                         daemon=True).start()

    def close(self) -> None:
        """Hang up."""
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._sock.close()
            self._sock = None

    def deafen(self) -> None:
        """Close the way back, and no more than that."""
        try:
            self._sock.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def __enter__(self) -> Giver:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def say(self, *what: bytes | Record) -> None:
        """Send bytes and records, if anybody still takes them."""
        data = b''.join(one.pack() if isinstance(one, Record) else one
                        for one in what)
        try:
            self._sock.sendall(data)
        except OSError:
            pass                # it has heard enough

    def wait(self, condition: Callable[[], bool], what: str,
             limit: float = LIMIT) -> None:
        """Wait until CONDITION() holds; WHAT did not happen otherwise."""
        with self._changed:
            if not self._changed.wait_for(condition, limit):
                raise FerryError(f'{what}: {self.pongs} {self.asked[-3:]} '
                                 f'{self.shut} {self.trouble}')

    # Parts of a stream

    def greeting(self) -> list[bytes | Record]:
        """All that comes before memory: it may become postcopy."""
        return [r.header(), self._config, r.command(r.OPEN_RETURN_PATH),
                r.command(r.PING, struct.pack('>I', 1)),
                r.command(r.ADVISE, struct.pack('>QQ', PAGE, PAGE)),
                self._ram]

    def discard(self) -> Record:
        """The last page of each block is to be thrown away."""
        block, size = self.blocks[0]
        return r.command(r.DISCARD, b'\0' + r.named(block) + b'\0'
                         + struct.pack('>QQ', size - PAGE, PAGE))

    def package(self, *inner: bytes | Record) -> bytes:
        """The package, or one of INNER."""
        whole = inner or (r.command(r.LISTEN), *self.devices,
                          r.command(r.PING, struct.pack('>I', HELLO)),
                          r.command(r.RUN))
        data = b''.join(one.pack() if isinstance(one, Record) else one
                        for one in whole)
        return r.command(r.PACKAGED, struct.pack('>I', len(data))).pack() \
            + data

    def part(self, *entries: bytes, kind: int = r.PART) -> Record:
        """A section of RAM."""
        return Record(kind, number=self._ram.number,
                      body=b''.join(entries) + r.ram(r.EOS))

    def page(self, where: Where, data: bytes | None = None) -> bytes:
        """A page as an entry of RAM; DATA in place of what it has."""
        block, offset = where
        data = self.pages.get(where, bytes(PAGE)) if data is None else data
        if data == bytes(PAGE):
            return r.ram(r.ZERO, offset, block, b'\0')
        return r.ram(r.PAGE, offset, block, data)

    def everything(self) -> list[Where]:
        """Where all pages are."""
        return [(block, at) for block, size in self.blocks
                for at in range(0, size, PAGE)]

    def send(self, which: Iterable[Where]) -> None:
        """Send pages."""
        self.say(self.part(*(self.page(where) for where in which)))

    def finish(self) -> None:
        """The end of memory and of the stream."""
        self.say(self.part(kind=r.END), Record(r.EOF))

    def lacking(self) -> list[Where]:
        """What the destination lacks, as its bitmaps say."""
        missing = []
        for block, at in self.everything():
            page = at // PAGE
            if not self.bitmaps[block][page // 8] >> page % 8 & 1:
                missing.append((block, at))
        return missing

    # What is heard

    def _hear(self, sock: socket.socket) -> None:
        try:
            with sock.makefile('rb') as stream:
                while self._message(stream):
                    pass
        except (OSError, ValueError, struct.error) as err:
            self.trouble = str(err)
        with self._changed:
            self.over = True
            self._changed.notify_all()

    def _message(self, stream: object) -> bool:
        head = stream.read(4)
        if len(head) < 4:
            return False
        kind, length = struct.unpack('>HH', head)
        body = stream.read(length)
        with self._changed:
            if kind == PONG:
                self.pongs.append(struct.unpack('>I', body)[0])
            elif kind in (REQ_PAGES, REQ_PAGES_ID):
                start, size = struct.unpack_from('>QI', body)
                name = body[13:] if kind == REQ_PAGES_ID else \
                    self.asked[-1][0]
                self.asked.append((name, start, size))
            elif kind == RECV_BITMAP:
                size, = struct.unpack('>Q', stream.read(8))
                self.bitmaps[body[1:]] = stream.read(size)
                if stream.read(8) != struct.pack('>Q', BITMAP_END):
                    raise ValueError('the bitmap has no end')
            elif kind == RESUME_ACK:
                self.acks.append(struct.unpack('>I', body)[0])
            elif kind == SHUT:
                self.shut, = struct.unpack('>I', body)
            else:
                raise ValueError(f'message {kind}')
            self._changed.notify_all()
        return True


class Touch(threading.Thread):
    """The destination itself needs a page, and its main loop waits for it.

    Until then it takes nothing but urgent commands: see MONITOR.
    """

    def __init__(self, vm: VM, address: int) -> None:
        super().__init__(daemon=True)
        self.word = -1          # what the page begins with
        self.monitor = QMP(vm.view_path, oob=True)
        self._vm, self._address = vm, address
        self.start()

    def run(self) -> None:
        """Read a word."""
        try:
            said = self._vm.qmp.cmd('human-monitor-command', {
                'command-line': f'xp /1xg {self._address:#x}'},
                timeout=2 * LIMIT)
            self.word = int(said.split()[-1], 16)
        except QMPError:
            pass                # it has gone

    def end(self) -> int:
        """Wait for the page; the word."""
        self.join(2 * LIMIT)
        self.monitor.close()
        return self.word
