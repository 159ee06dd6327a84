# Tests of what the kernel tells of a connection.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what the kernel tells of a connection."""

from __future__ import annotations

import socket
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'python'))

from ferrytest import tcp                                   # noqa: E402
from ferrytest.wait import until                            # noqa: E402


class Ends(unittest.TestCase):
    """One connection, from its beginning to its end."""

    def setUp(self):
        self.server = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(self.server.close)
        self.uri = f'tcp:127.0.0.1:{self.server.getsockname()[1]}'
        self.sock = socket.create_connection(self.server.getsockname())
        self.addCleanup(self.sock.close)
        self.peer = self.sock.getsockname()[1]

    def becomes(self, **wanted: object) -> None:
        """It is that, when the kernel has done its work."""
        until(lambda: wanted.items() <= {
            name: getattr(tcp.end(self.uri, self.peer), name)
            for name in wanted}.items(), f'{wanted}')

    def test_course(self):
        self.sock.sendall(b'abc')
        self.becomes(unread=3, taken=False, read=False, closed=False)
        taken, _ = self.server.accept()
        self.addCleanup(taken.close)
        self.becomes(unread=3, taken=True, read=False)
        taken.recv(8)
        self.becomes(read=True, closed=False)
        self.sock.close()
        self.becomes(closed=True)

    def test_closed_first(self):
        self.sock.close()
        self.becomes(closed=True, taken=False)

    def test_none(self):
        self.assertEqual(tcp.end(self.uri, 1), tcp.End())
        self.assertEqual(tcp.port_of('tcp:[::]:80'), 80)


if __name__ == '__main__':
    unittest.main()
