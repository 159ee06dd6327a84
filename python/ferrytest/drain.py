# A listener that takes what a migration sends, in place of a destination.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A listener that takes what a migration sends, in place of a destination."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Callable


class Drain:
    """Takes one connection after the other, and all that they send.

    REPLY is sent to each of them first, and FAREWELL when nothing has come for
    QUIET seconds and OVER says that this was all.  With HANG_UP each connection
    is closed after the REPLY.
    """

    QUIET = 0.1

    def __init__(self, path: Path | str, *, reply: bytes = b'',
                 farewell: bytes = b'', hang_up: bool = False,
                 over: Callable[[bytes], bool] = lambda data: True) -> None:
        """Listen at PATH."""
        self.uri = f'unix:{path}'
        self.data = bytearray()     # of the latest connection
        self._reply = reply
        self._farewell = farewell
        self._hang_up = hang_up
        self._over = over
        self._closed = False
        self._peer: socket.socket | None = None
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen(4)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._closed:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            self._peer, self.data = peer, bytearray()
            try:
                with peer:
                    self._take(peer)
            except OSError:
                pass        # the other end went away

    def _take(self, peer: socket.socket) -> None:
        if self._reply:
            peer.sendall(self._reply)
        if self._hang_up:
            return
        peer.settimeout(self.QUIET if self._farewell else None)
        while True:
            try:
                data = peer.recv(1 << 18)
            except TimeoutError:
                if self._over(bytes(self.data)):
                    peer.sendall(self._farewell)
                    peer.settimeout(None)
                continue
            if not data:
                return
            self.data += data

    def wait(self, condition: Callable[[bytes], bool], timeout: float) -> bytes:
        """Wait until CONDITION holds for what came; return that."""
        end = time.monotonic() + timeout
        while True:
            data = bytes(self.data)
            if condition(data) or time.monotonic() > end:
                return data
            time.sleep(0.01)

    def close(self) -> None:
        """Hang up and listen no more."""
        self._closed = True
        for sock in (self._server, self._peer):
            if sock is None:
                continue
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass        # it was not connected
        self._server.close()
        self._thread.join(5)
        Path(self.uri.removeprefix('unix:')).unlink(missing_ok=True)

    def __enter__(self) -> Drain:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
