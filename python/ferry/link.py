# A TCP connection that can be cut, held up and refused.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A TCP connection that can be cut, held up and refused.

A migration that goes through a Link meets all that a network can do to it, at
the very byte where a test wants it.  Or it has the speed of one, also when QEMU
does not limit itself, as it does not once the guest has stopped.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Callable

CHUNK = 1 << 18
SLOW_BUFFER = 1 << 16   # bytes at a time, and that wait, at a given speed
CATCH_UP = 0.01         # s that a link makes up for, if its far end took them
CONNECT_TIMEOUT = 5.0   # s
BACKLOG = 8
RESET = struct.pack('ii', 1, 0)     # SO_LINGER: what is unsent is dropped


@dataclass(eq=False)
class Connection:
    """One connection that goes through: who connected, and to whom."""

    near: socket.socket
    far: socket.socket
    sent: int = 0           # bytes passed on, away from who connected
    answered: int = 0       # ... and back
    alive: bool = True
    ways: int = 2           # in which there may be more to come
    lock: threading.Lock = field(default_factory=threading.Lock)

    def end_of(self, sock: socket.socket) -> None:
        """Nothing more will come for SOCK."""
        with self.lock:
            self.ways -= 1
            over = self.ways == 0
        if over:
            self.cut(False)
        else:
            sock.shutdown(socket.SHUT_WR)

    def cut(self, reset: bool) -> None:
        """End it on both sides at once, with RST or with FIN."""
        with self.lock:
            if not self.alive:
                return
            self.alive = False
            for sock in (self.near, self.far):
                try:
                    if reset:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                        RESET)
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass        # that end is gone already
                sock.close()


class Link:
    """Listens on a port of its own and passes everything on to another."""

    def __init__(self, port: int | None = None, speed: int = 0) -> None:
        """Lead to PORT of this machine; see aim().

        SPEED is in bytes a second, away from who connects and of all
        connections together; 0 is as fast as it goes.
        """
        self._port = port
        self._speed = speed
        self._free_at = 0.0     # when what was passed on has gone
        self._late = 0.0        # s since then in which no more was taken
        self._lock = threading.Lock()
        self._open = threading.Event()      # clear while it is held up
        self._open.set()
        self._closed = False
        self._alarm: tuple[str, int, bool] | None = None
        self._seen = {'sent': 0, 'answered': 0}
        self.cut_by_alarm = threading.Event()
        # Makes something else of what a connection has sent
        self.change: Callable[[Connection, bytes], bytes] | None = None
        self.connections: list[Connection] = []     # in order of their coming
        self._listens = True
        self._server = self._listen(0)
        self.port = self._server.getsockname()[1]
        self.uri = f'tcp:127.0.0.1:{self.port}'

    @staticmethod
    def _socket() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return sock

    def _listen(self, port: int) -> socket.socket:
        server = self._socket()
        if self._speed:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER)
        server.bind(('127.0.0.1', port))
        server.listen(BACKLOG)
        with self._lock:
            self._server = server
        threading.Thread(target=self._serve, args=(server,), daemon=True,
                         name='link').start()
        return server

    # What a test does to it

    def aim(self, uri: str) -> None:
        """Lead new connections to URI, tcp:HOST:PORT.

        A connection that was not accepted yet is closed: it belongs to an
        attempt that is over.
        """
        with self._lock:
            before, listens = self._server, self._listens
            self._port = int(uri.rpartition(':')[2])
        if self.connections and listens:
            self._shut(before)
            self._listen(self.port)

    def cut(self, which: int | None = None, reset: bool = True) -> int:
        """Cut all connections, or that one of those that live; how many."""
        with self._lock:
            alive = [one for one in self.connections if one.alive]
        chosen = alive if which is None else alive[which:which + 1]
        for one in chosen:
            one.cut(reset)
        self._open.set()        # who was held up is to notice
        return len(chosen)

    def cut_after(self, count: int, way: str = 'sent', reset: bool = True
                  ) -> None:
        """Cut everything when COUNT more bytes have gone that WAY.

        WAY is 'sent', or 'answered' for what comes back.
        """
        with self._lock:
            self.cut_by_alarm.clear()
            self._alarm = (way, self._seen[way] + count, reset)

    def disarm(self) -> None:
        """Forget the last cut_after()."""
        with self._lock:
            self._alarm = None

    def hold(self, still: bool = True) -> None:
        """Pass nothing on, or go on; the connections stay open."""
        if still:
            self._open.clear()
        else:
            self._open.set()

    def refuse(self, on: bool = True) -> None:
        """Refuse new connections, or accept them again."""
        self._listens = not on
        if on:
            self._shut(self._server)
        else:
            self._listen(self.port)

    def alive(self) -> list[Connection]:
        """The connections that are up."""
        with self._lock:
            return [one for one in self.connections if one.alive]

    def close(self) -> None:
        """Cut everything and listen no more."""
        self._closed = True
        self._shut(self._server)
        self.cut()

    @staticmethod
    def _shut(sock: socket.socket) -> None:
        try:
            sock.shutdown(socket.SHUT_RDWR)     # wakes who waits in accept()
        except OSError:
            pass
        sock.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # How it works: one thread listens, two serve each connection

    def _serve(self, server: socket.socket) -> None:
        while not self._closed:
            try:
                near, _ = server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(('127.0.0.1', self._port or 0),
                                               CONNECT_TIMEOUT)
            except OSError:
                near.close()    # as a router that has lost its way
                continue
            with self._lock:
                late = server is not self._server
            if late:            # see aim()
                near.close()
                far.close()
                return
            self._start(near, far)

    def _start(self, near: socket.socket, far: socket.socket) -> None:
        for sock in (near, far):
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one = Connection(near, far)
        with self._lock:
            self.connections.append(one)
        for come, go, way in ((near, far, 'sent'), (far, near, 'answered')):
            threading.Thread(target=self._pass, args=(one, come, go, way),
                             daemon=True, name=f'link-{way}').start()

    def _pass(self, one: Connection, come: socket.socket, go: socket.socket,
              way: str) -> None:
        slow = self._speed and way == 'sent'
        buffer = memoryview(bytearray(SLOW_BUFFER if slow else CHUNK))
        try:
            while count := come.recv_into(buffer):
                self._open.wait()
                if slow:
                    self._wait_turn(count)
                data = self._changed(one, way, buffer[:count])
                allowed, reset = self._count(way, len(data))
                go.sendall(data[:allowed])
                setattr(one, way, getattr(one, way) + allowed)
                if reset is not None:
                    self.cut(reset=reset)
                    self.cut_by_alarm.set()
                if slow:
                    self._end_turn()
            one.end_of(go)
        except OSError:
            one.cut(False)      # one end went away: so does the other

    def _changed(self, one: Connection, way: str, data: memoryview
                 ) -> memoryview:
        if way != 'sent' or self.change is None:
            return data
        return memoryview(self.change(one, bytes(data)))

    def _wait_turn(self, count: int) -> None:
        """Wait for as long as COUNT bytes take after those before them."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - self._late) + \
                count / self._speed
            end = self._free_at
        if end > now:
            time.sleep(end - now)

    def _end_turn(self) -> None:
        """The next wait is shorter by what passing on took too long.

        A sleep that ends late and the work after it would make the link slower
        than it says.  It is not idle until it waits for something to pass on.
        """
        with self._lock:
            late = max(time.monotonic() - self._free_at, 0)
            self._late = min(late, CATCH_UP)

    def _count(self, way: str, count: int) -> tuple[int, bool | None]:
        """How many of COUNT bytes may pass, and how to cut after them."""
        with self._lock:
            before = self._seen[way]
            self._seen[way] = before + count
            if self._alarm is None or self._alarm[0] != way:
                return count, None
            _, limit, reset = self._alarm
            if before + count < limit:
                return count, None
            self._alarm = None
            return max(0, limit - before), reset
