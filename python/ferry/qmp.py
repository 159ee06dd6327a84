# A client of QEMU's monitor protocol.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of QEMU's monitor protocol (QMP), on a unix socket or TCP."""

from __future__ import annotations

import collections
import json
import os
import re
import socket
import threading
import time
from typing import Any, Sequence

from .errors import FerryError

GONE = 'Disconnected'
LATE = 'Timeout'


class QMPError(FerryError):
    """A command that failed.

    .cls is QEMU's error class, or 'Disconnected' when the connection was lost,
    or 'Timeout' when no answer came in time; .desc is the bare description.
    """

    def __init__(self, cls: str, desc: str, command: str = '') -> None:
        super().__init__(f'{command}: {desc}' if command else desc)
        self.cls = cls
        self.desc = desc


class Splitter:
    """Cut a byte stream into QMP messages (one JSON object a line)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []       # of a message that may be long

    def feed(self, data: bytes) -> list[dict]:
        """Add DATA; return the messages that it completes."""
        self._parts.append(data)
        if b'\n' not in data:
            return []
        *lines, rest = b''.join(self._parts).split(b'\n')
        self._parts = [rest]
        messages = []
        for line in lines:
            if not line.strip():
                continue
            try:
                message = json.loads(line)
            except ValueError as err:
                raise QMPError(GONE, f'the monitor sent no JSON: {line[:80]!r}'
                               ) from err
            if not isinstance(message, dict):
                raise QMPError(GONE, 'the monitor sent no JSON object: '
                                     f'{line[:80]!r}')
            messages.append(message)
        return messages


def tcp_address(address: str) -> tuple[str, int] | None:
    """The (host, port) that ADDRESS means, or None if it is a path.

    "host:port" and "[v6]:port" are TCP; what contains a slash, or exists as
    a file, is a path.
    """
    match = re.fullmatch(r'(?:\[([^\]/]+)\]|([^:/\[\]]+)):(\d{1,5})', address)
    if match is None or os.path.exists(address):
        return None
    return match[1] or match[2], int(match[3])


def _connect(address: str, timeout: float) -> socket.socket:
    tcp = tcp_address(address)
    if tcp is not None:
        return socket.create_connection(tcp, timeout)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


class QMP:
    """One connection to a monitor; may be shared by threads."""

    def __init__(self, path: str, timeout: float = 10.0, oob: bool = False
                 ) -> None:
        """Connect to PATH, a unix socket or "host:port".

        TIMEOUT (s) holds for this and is the default for every command.  With
        OOB such commands as allow it are run at once, see urgent().
        """
        self._oob = oob
        self.path = str(path)
        self.timeout = timeout
        self._lock = threading.RLock()
        self._splitter = Splitter()
        self._inbox: collections.deque[dict] = collections.deque()
        self._events: collections.deque[dict] = collections.deque()
        self._serial = 0
        try:
            self._sock = _connect(self.path, timeout)
        except OSError as err:
            raise QMPError(GONE, f'cannot connect to the monitor {self.path}: '
                                 f'{err.strerror or err}') from err
        try:
            self._greet(time.monotonic() + timeout)
        except QMPError:
            self._sock.close()
            raise

    def _greet(self, deadline: float) -> None:
        while not self._inbox:
            self._receive(deadline, 'greeting')
        greeting = self._inbox.popleft().get('QMP')
        if greeting is None:
            raise QMPError(GONE, f'{self.path} is not a QMP monitor')
        self.greeting = greeting
        if self._oob and 'oob' not in greeting.get('capabilities', ()):
            raise QMPError(GONE, f'{self.path} takes no urgent commands')
        self.cmd('qmp_capabilities', {'enable': ['oob']} if self._oob else None)

    def _receive(self, deadline: float, what: str) -> None:
        """Wait for data until DEADLINE and sort what came."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise QMPError(LATE, f'no answer from {self.path} in time', what)
        self._sock.settimeout(left)
        try:
            data = self._sock.recv(1 << 16)
        except TimeoutError as err:
            raise QMPError(LATE, f'no answer from {self.path} in time',
                           what) from err
        except OSError as err:
            raise QMPError(GONE, f'monitor {self.path} is gone: '
                                 f'{err.strerror or err}', what) from err
        if not data:
            raise QMPError(GONE, f'monitor {self.path} closed the connection',
                           what)
        for message in self._splitter.feed(data):
            box = self._events if 'event' in message else self._inbox
            box.append(message)

    def urgent(self, name: str, args: dict | None = None,
               timeout: float | None = None) -> Any:
        """Run NAME out of band: even if QEMU's main loop stands still."""
        return self.cmd(name, args, timeout, 'exec-oob')

    def cmd(self, name: str, args: dict | None = None,
            timeout: float | None = None, how: str = 'execute',
            fds: Sequence[int] = ()) -> Any:
        """Run the command NAME and return what it returns.

        FDS go along with it, for a command that takes them.
        """
        request: dict[str, Any] = {how: name}
        if args:
            request['arguments'] = args
        with self._lock:
            self._serial += 1
            request['id'] = self._serial
            deadline = time.monotonic() + (self.timeout if timeout is None
                                           else timeout)
            try:
                self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
                self._send(json.dumps(request).encode() + b'\n', fds)
            except OSError as err:
                raise QMPError(GONE, f'monitor {self.path} is gone: '
                                     f'{err.strerror or err}', name) from err
            return self._answer(name, request['id'], deadline)

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        sent = socket.send_fds(self._sock, [data], fds) if fds else 0
        self._sock.sendall(data[sent:])

    def _answer(self, name: str, serial: int, deadline: float) -> Any:
        while True:
            while self._inbox:
                message = self._inbox.popleft()
                if message.get('id', serial) != serial:
                    continue        # the late answer to one that timed out
                if 'error' in message:
                    error = message['error']
                    raise QMPError(error.get('class', 'GenericError'),
                                   error.get('desc', 'no description'), name)
                return message.get('return')
            self._receive(deadline, name)

    def events(self) -> list[dict]:
        """Take all events that have arrived; never waits."""
        with self._lock:
            try:
                self._sock.setblocking(False)
                while True:
                    data = self._sock.recv(1 << 16)
                    if not data:
                        break
                    for message in self._splitter.feed(data):
                        box = (self._events if 'event' in message
                               else self._inbox)
                        box.append(message)
            except OSError:
                pass    # nothing more for now; a dead socket shows up in cmd()
            events = list(self._events)
            self._events.clear()
            return events

    def wait_event(self, name: str, timeout: float) -> dict:
        """Wait for the event NAME and take it; others stay queued."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while True:
                for event in self._events:
                    if event['event'] == name:
                        self._events.remove(event)
                        return event
                self._receive(deadline, f'event {name}')

    def next_event(self, timeout: float) -> dict:
        """Wait for an event, whichever it is, and take it."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while not self._events:
                self._receive(deadline, 'event')
            return self._events.popleft()

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._sock.close()

    def __enter__(self) -> QMP:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
