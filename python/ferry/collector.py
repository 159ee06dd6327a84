# The process that takes the time of every heartbeat byte.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that takes the time of every heartbeat byte.

A process of its own, because a thread would have to wait for the interpreter
lock of the script that drives the test, which costs milliseconds; it asks for
real-time priority for the same reason and works without it too.

It is started by observer.py with a socket (SOCK_SEQPACKET) as its standard
input.  Packets that come in:

    'A' id          watch the stream socket that is passed along
    'S' id          write all records out, then one with this id and count 0

Records that go to standard output, as RECORD below: one for every chunk that
was read.  The end of standard input ends the process.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import sys
import time

# id, first byte, last byte, time (ns, CLOCK_MONOTONIC), count of bytes,
# bytes that were left out within the chunk, and bytes that came again
RECORD = struct.Struct('=HBBQIII')
PACKET = struct.Struct('=cH')
FLUSH_NS = 20_000_000
PR_SET_PDEATHSIG = 1


def step(last: int, byte: int) -> tuple[int, int]:
    """(lost, repeated) when BYTE follows LAST in a count modulo 256."""
    ahead = (byte - last - 1) % 256
    return (ahead, 0) if ahead < 128 else (0, 256 - ahead)


def count_breaks(chunk: bytes) -> tuple[int, int]:
    """(lost, repeated) within CHUNK."""
    lost = repeated = 0
    for last, byte in zip(chunk, chunk[1:]):
        if byte != (last + 1) % 256:
            one_lost, one_repeated = step(last, byte)
            lost += one_lost
            repeated += one_repeated
    return lost, repeated


def _raise_priority() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (OSError, AttributeError):
        pass        # not allowed: the figures get a little noisier


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]


class Collector:
    """Reads all watched sockets and keeps records until they are written."""

    def __init__(self) -> None:
        self.orders = socket.socket(fileno=os.dup(0))
        self.poll = select.poll()
        self.poll.register(self.orders, select.POLLIN)
        self.watched: dict[int, tuple[int, socket.socket]] = {}
        self.records = bytearray()

    def take_order(self) -> bool:
        """Obey one packet; False at the end."""
        data, fds, _, _ = socket.recv_fds(self.orders, PACKET.size, 1)
        if len(data) != PACKET.size:
            return False
        order, number = PACKET.unpack(data)
        if order == b'A':
            sock = socket.socket(fileno=fds[0])
            sock.setblocking(False)
            self.watched[sock.fileno()] = number, sock
            self.poll.register(sock, select.POLLIN)
        elif order == b'S':
            self.records += RECORD.pack(number, 0, 0, time.monotonic_ns(),
                                        0, 0, 0)
            self.flush()
        return True

    def read(self, fd: int, now: int) -> None:
        """Record what arrived on the watched socket FD."""
        number, sock = self.watched[fd]
        try:
            chunk = sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            chunk = b''
        if not chunk:
            self.poll.unregister(fd)
            del self.watched[fd]
            sock.close()
            return
        lost, repeated = count_breaks(chunk) if len(chunk) > 1 else (0, 0)
        self.records += RECORD.pack(number, chunk[0], chunk[-1], now,
                                    len(chunk), lost, repeated)

    def flush(self) -> None:
        """Write out all records."""
        _write(self.records)
        self.records.clear()

    def run(self) -> None:
        """Work until there is nobody left to work for."""
        flushed = time.monotonic_ns()
        while True:
            ready = self.poll.poll(100)
            now = time.monotonic_ns()
            # The heartbeats first: an order must not delay their time.
            for fd, _ in ready:
                if fd in self.watched:
                    self.read(fd, now)
            if any(fd == self.orders.fileno() for fd, _ in ready):
                if not self.take_order():
                    return
            if self.records and now - flushed > FLUSH_NS:
                self.flush()
                flushed = now


def main() -> None:
    """Run as a child of observer.py."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)   # our parent decides
    _raise_priority()
    try:
        Collector().run()
    except BrokenPipeError:
        sys.exit(0)         # the parent is gone


if __name__ == '__main__':
    main()
