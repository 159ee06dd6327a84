# A recorded stream of checkpoints, taken apart.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A recorded stream of checkpoints, taken apart.

What a primary sends does not depend on what the secondary answers, but for the
moment of it.  So it can be recorded once, changed, and given to a new secondary
as often as it takes.
"""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

COMMAND, CHECKPOINT, END = 8, 0x460a, 0x460b
SHUT, ACK, ERROR = 1, 0x4613, 0x4604
HEAD = struct.Struct('>BHHQII')     # type, command, length; number, lengths
FIRST = struct.pack('>BHHQ', COMMAND, CHECKPOINT, 16, 1)
LIMIT = 10.0            # s
CHUNK = 1 << 16


@dataclass(frozen=True)
class Epoch:
    """One epoch of a stream."""

    number: int
    memory: bytes
    devices: bytes

    def pack(self, number: int | None = None, memory: int | None = None,
             devices: int | None = None) -> bytes:
        """As it is sent; or with a head that says something else."""
        return HEAD.pack(
            COMMAND, CHECKPOINT, 16,
            self.number if number is None else number,
            len(self.memory) if memory is None else memory,
            len(self.devices) if devices is None else devices
        ) + self.memory + self.devices


def ack(number: int) -> bytes:
    """What the secondary says when it has all of an epoch."""
    return struct.pack('>HHQ', ACK, 8, number)


def end(number: int) -> bytes:
    """The command that ends the protection."""
    return struct.pack('>BHHQ', COMMAND, END, 8, number)


class Stream:
    """All before the first epoch, and the whole epochs."""

    def __init__(self, data: bytes) -> None:
        at = data.index(FIRST)
        self.precopy = data[:at]
        self.epochs: list[Epoch] = []
        while len(data) - at >= HEAD.size:
            kind, command, _, number, memory, devices = \
                HEAD.unpack_from(data, at)
            body = at + HEAD.size
            last = body + memory + devices
            if (kind, command) != (COMMAND, CHECKPOINT) or last > len(data):
                break
            self.epochs.append(Epoch(number, data[body:body + memory],
                                     data[body + memory:last]))
            at = last

    def upto(self, count: int) -> bytes:
        """What comes until COUNT epochs are whole."""
        return self.precopy + b''.join(epoch.pack()
                                       for epoch in self.epochs[:count])


class Recorder:
    """Listens at PATH, passes all on to TARGET, and keeps what goes there."""

    def __init__(self, path: Path, target: Path,
                 answers: Callable[[bytes], bytes] | None = None) -> None:
        """ANSWERS changes what comes back."""
        self._target = target
        self._answers = answers
        self._kept = bytearray()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        near, _ = self._server.accept()
        far = socket.socket(socket.AF_UNIX)
        far.connect(str(self._target))
        threading.Thread(target=self._pass, args=(far, near, None),
                         daemon=True).start()
        self._pass(near, far, self._kept)

    def _pass(self, come: socket.socket, go: socket.socket,
              kept: bytearray | None) -> None:
        try:
            while chunk := come.recv(CHUNK):
                if kept is not None:
                    kept += chunk
                elif self._answers:
                    chunk = self._answers(chunk)
                go.sendall(chunk)
            go.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def stream(self) -> Stream:
        """What has gone there so far."""
        return Stream(bytes(self._kept))

    def close(self) -> None:
        """Listen no more."""
        self._server.close()


class Player:
    """A primary that says what it is told to; it hears the answers."""

    def __init__(self, path: Path) -> None:
        self.said: list[tuple[int, bytes]] = []
        self._changed = threading.Condition()
        self.over = False
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(LIMIT)
        self._sock.connect(str(path))
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        rest = b''
        try:
            while chunk := self._sock.recv(CHUNK):
                rest += chunk
                while len(rest) >= 4:
                    kind, size = struct.unpack_from('>HH', rest)
                    if len(rest) < 4 + size:
                        break
                    with self._changed:
                        self.said.append((kind, rest[4:4 + size]))
                        self._changed.notify_all()
                    rest = rest[4 + size:]
        except OSError:
            pass
        with self._changed:
            self.over = True
            self._changed.notify_all()

    def say(self, data: bytes) -> None:
        """Send DATA, if anybody still takes it."""
        try:
            self._sock.sendall(data)
        except OSError:
            pass

    def acks(self) -> list[int]:
        """The epochs that were acknowledged."""
        return [int.from_bytes(what, 'big') for kind, what in self.said
                if kind == ACK]

    def shut(self) -> int | None:
        """What SHUT said."""
        return next((int.from_bytes(what, 'big') for kind, what in self.said
                     if kind == SHUT), None)

    def wait_acks(self, count: int) -> bool:
        """Wait until so many epochs were acknowledged."""
        with self._changed:
            return self._changed.wait_for(
                lambda: len(self.acks()) >= count or self.over, LIMIT) \
                and len(self.acks()) >= count

    def wait_over(self) -> bool:
        """Wait until the secondary has said its last word."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.over or self.shut() is not None, LIMIT)

    def close(self) -> None:
        """Hang up."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._sock.close()

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
