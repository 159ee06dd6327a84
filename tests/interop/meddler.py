# A relay that damages a byte of the stream, or cuts it off at one.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A relay that damages a byte of the stream, or cuts it off at one.

The stream has no checksums, so nothing but the guest's own accounts can tell
that a byte of a guest page was damaged: a test of the test.  What the page
looks like is computed here from the rules in tests/guest/pages.c, which shows
at the same time that the guest's memory holds what it is said to hold.

A stream that is cut off tells by where that was what either side knows of the
other.  Sockets are unix sockets, which hold little: who writes is never far
ahead of the relay.
"""

from __future__ import annotations

import socket
import threading
from typing import Protocol

MASK = (1 << 64) - 1
SIGNATURE_WORDS = 8


def _scatter(x: int) -> int:
    x = (x + 0x9e3779b97f4a7c15) & MASK
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93 & MASK
    x = (x ^ x >> 29) * 0xd6e8feb86659fd93 & MASK
    return x ^ x >> 32


def page_start(seed: int, index: int) -> bytes:
    """The first bytes of a page, which must have no hot word among them."""
    assert index % 32 >= SIGNATURE_WORDS
    x = _scatter(_scatter(seed) + index & MASK)
    start = b''
    for _ in range(SIGNATURE_WORDS):
        x = (x * 0x5851f42d4c957f2d + 0x14057b7ef767814f) & MASK
        start += (x ^ x >> 29).to_bytes(8, 'little')
    return start


class Damage:
    """Finds SIGNATURE in a stream and damages the byte OFFSET behind it."""

    def __init__(self, signature: bytes, offset: int) -> None:
        assert offset >= len(signature)
        self._signature = signature
        self._offset = offset
        self._seen = 0          # bytes of the stream so far
        self._tail = b''        # the last of them
        self._target: int | None = None
        self.done = 0

    def apply(self, chunk: bytes) -> bytes:
        """Take the next CHUNK of the stream; return what to pass on."""
        window = self._tail + chunk
        at = window.find(self._signature)
        if at >= 0 and self._target is None:
            self._target = self._seen - len(self._tail) + at + self._offset
        self._tail = window[-(len(self._signature) - 1):]
        first, self._seen = self._seen, self._seen + len(chunk)
        if self._target is None or not first <= self._target < self._seen:
            return chunk
        damaged = bytearray(chunk)
        damaged[self._target - first] ^= 0x01
        self._target = None
        self._tail = b''
        self.done += 1
        return bytes(damaged)


class Change(Protocol):
    """What a Meddler does to a stream."""

    def apply(self, chunk: bytes) -> bytes:
        """Take the next CHUNK; return what to pass on, or raise Cut."""


class Cut(Exception):
    """The connection ends here, after the bytes that are given."""


class Scissors:
    """Cuts the connection before PATTERN passes, once it is told to.

    Every stream contains the pattern b'', at its very next byte.
    """

    def __init__(self, pattern: bytes) -> None:
        self._pattern = pattern
        self._tail = b''        # the last bytes that passed
        self._armed = threading.Event()
        self.done = threading.Event()

    def arm(self) -> Scissors:
        """From now on."""
        self._armed.set()
        return self

    def apply(self, chunk: bytes) -> bytes:
        """See Change."""
        passed = len(self._tail)
        window = self._tail + chunk
        at = window.find(self._pattern, 0 if self._pattern else passed)
        if self._armed.is_set() and at >= 0:
            self.done.set()
            raise Cut(window[passed:at])
        keep = max(len(self._pattern) - 1, 0)
        self._tail = window[len(window) - keep:]
        return chunk


class Meddler:
    """Listens at PATH, connects to TARGET and passes bytes on.

    THERE and BACK change them on their way; None: they pass as they are.
    """

    def __init__(self, path: str, target: str, there: Change | None = None,
                 back: Change | None = None) -> None:
        self._target = target
        self._there = there
        self._back = back
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(path)
        self._server.listen(1)
        self._server.settimeout(20)
        self._sockets = [self._server]
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def _relay(self) -> None:
        try:
            source, _ = self._server.accept()
            target = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._sockets += [source, target]
            target.connect(self._target)
            back = threading.Thread(target=self._pass, daemon=True, args=(
                target, source, self._back))
            back.start()
            self._pass(source, target, self._there)
            back.join(20)
        except OSError:
            pass        # one of the ends went away; both ends notice

    @staticmethod
    def _pass(come: socket.socket, go: socket.socket, change: Change | None
              ) -> None:
        try:
            while chunk := come.recv(1 << 18):
                go.sendall(change.apply(chunk) if change else chunk)
            go.shutdown(socket.SHUT_WR)
        except Cut as cut:
            go.sendall(cut.args[0])
            for sock in (come, go):
                sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Stop relaying."""
        for sock in self._sockets:
            sock.close()
        self._thread.join(5)

    def __enter__(self) -> Meddler:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
