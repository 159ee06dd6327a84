# What somebody outside of a guest gets to know of it.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody outside of a guest gets to know of it.

The guest sends numbered packets (tests/guest/net.h).  The backend of its network
device is connected to a socket of the Outside, which writes down what comes out
of each QEMU.  The guest on a secondary must know all that has been seen: it goes
on with a higher number than any that had left the primary.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ferry.errors import FerryError

MAC = '52:54:00:0c:0f:01'
ETHERTYPE, MAGIC = 0x88b5, 0x46657279
BEAT, REQUEST, ANSWER = 1, 2, 3
FRAME = struct.Struct('>6s6sHIIQQQ')
FRAME_MIN = 60
LENGTH = struct.Struct('>I')        # before each packet of a stream netdev
QUIET = 0.05            # s without a packet: none is on its way
POLL = 0.002            # s


@dataclass(frozen=True)
class Packet:
    """One numbered packet, and when it was seen."""

    kind: int
    number: int
    writes: int
    received: int
    at: float


class Port:
    """The packets that came out of one QEMU."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packets: list[Packet] = []
        self.other = 0              # packets that the kernel sent
        self.ended = False
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(str(path))
        self.server.listen(1)
        self.sock: socket.socket | None = None
        self._rest = b''

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        data, at = self._rest + data, 0
        while len(data) - at >= LENGTH.size:
            size, = LENGTH.unpack_from(data, at)
            end = at + LENGTH.size + size
            if end > len(data):
                break
            self._take(data[at + LENGTH.size:end])
            at = end
        self._rest = data[at:]

    def _take(self, frame: bytes) -> None:
        if len(frame) >= FRAME.size:
            _, _, kind, magic, *told = FRAME.unpack_from(frame)
            if kind == ETHERTYPE and magic == MAGIC:
                self.packets.append(Packet(*told, time.monotonic()))
                return
        self.other += 1

    def beats(self) -> list[Packet]:
        """Those that the guest numbers, in the order of their arrival."""
        return [packet for packet in list(self.packets)
                if packet.kind == BEAT]

    def last(self) -> Packet:
        """The last of these."""
        beats = self.beats()
        return beats[-1] if beats else Packet(BEAT, 0, 0, 0, 0.0)


class Outside:
    """Everybody that the guest can talk to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake, theirs = socket.socketpair()
        self._selector.register(theirs, selectors.EVENT_READ, None)
        self._reading = threading.Event()
        self._reading.set()
        self._closed = False
        self.ports: dict[str, Port] = {}
        self._thread = threading.Thread(target=self._read, daemon=True,
                                        name='outside')
        self._thread.start()

    # The thread

    def _read(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(0.1):
                if key.data is None:
                    key.fileobj.recv(64)
                    continue
                port: Port = key.data
                with self._lock:
                    if key.fileobj is port.server:
                        self._accept(port)
                    elif self._reading.is_set():
                        self._receive(port)
            if not self._reading.is_set():
                time.sleep(POLL)

    def _accept(self, port: Port) -> None:
        try:
            port.sock, _ = port.server.accept()
        except OSError:
            return
        self._selector.unregister(port.server)
        self._selector.register(port.sock, selectors.EVENT_READ, port)

    def _receive(self, port: Port) -> None:
        try:
            data = port.sock.recv(1 << 18)
        except OSError:
            data = b''
        if data:
            port.feed(data)
            return
        self._selector.unregister(port.sock)
        port.ended = True

    # What a test does

    def args(self, name: str, queue: str = '', filtered: bool = True,
             more: str = '') -> list[str]:
        """The options of a QEMU whose guest can talk to us."""
        port = Port(self._folder / f'{name}-net')
        with self._lock:
            self.ports[name] = port
            self._selector.register(port.server, selectors.EVENT_READ, port)
        self._wake.send(b'.')
        args = ['-netdev', 'stream,id=n0,server=off,addr.type=unix,'
                f'addr.path={port.path}',
                '-device', 'virtio-net-pci,id=net0,netdev=n0,romfile=,'
                f'mac={MAC}']
        if filtered:
            args += ['-object', 'filter-checkpoint,id=f0,netdev=n0'
                     + (f',queue={queue}' if queue else '') + more]
        return args

    def hold(self, still: bool = True) -> None:
        """Read nothing, or go on: then the guest cannot send for long."""
        if still:
            self._reading.clear()
        else:
            self._reading.set()

    def request(self, name: str, number: int) -> float:
        """Send the guest a request; when that was."""
        frame = FRAME.pack(b'\xff' * 6, b'\x52\x54\0\0\0\1', ETHERTYPE, MAGIC,
                           REQUEST, number, 0, 0).ljust(FRAME_MIN, b'\0')
        sock = self.ports[name].sock
        if sock is None:
            raise FerryError(f'{name} is not connected')
        sock.sendall(LENGTH.pack(len(frame)) + frame)
        return time.monotonic()

    def wait(self, what: str, done: Callable[[], object],
             limit: float = 20) -> None:
        """Wait until DONE()."""
        end = time.monotonic() + limit
        while not done():
            if time.monotonic() > end:
                raise FerryError(f'{what}: not within {limit:.0f} s')
            time.sleep(POLL)

    def wait_beat(self, name: str, limit: float = 20) -> Packet:
        """The first numbered packet of this QEMU."""
        port = self.ports[name]
        self.wait(f'a packet of the guest in {name}', port.beats, limit)
        return port.beats()[0]

    def settle(self, name: str) -> Packet:
        """Wait until nothing more comes; the last packet that came."""
        port = self.ports[name]
        count, since = len(port.packets), time.monotonic()
        while not port.ended and time.monotonic() - since < QUIET:
            time.sleep(POLL)
            if len(port.packets) != count:
                count, since = len(port.packets), time.monotonic()
        return port.last()

    def forget(self, name: str) -> None:
        """This QEMU has ended."""
        port = self.ports.pop(name, None)
        if port is None:
            return
        with self._lock:
            for sock in (port.server, port.sock):
                if sock is None:
                    continue
                try:
                    self._selector.unregister(sock)
                except (KeyError, ValueError):
                    pass
                sock.close()
        port.path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the thread, and let go of everything."""
        self._closed = True
        self._reading.set()
        self._wake.send(b'.')
        self._thread.join(5)
        for name in list(self.ports):
            self.forget(name)
        self._selector.close()
        self._wake.close()
