# Tests of ferrytest.drain.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of ferrytest.drain: what it takes, and what it answers."""

from __future__ import annotations

import socket
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'python'))

from ferrytest.drain import Drain                       # noqa: E402


class Draining(unittest.TestCase):
    """One connection after the other."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='f')
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, 'drain')

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        sock.settimeout(5)
        sock.connect(str(self.path))
        return sock

    def test_takes_all(self):
        with Drain(self.path) as drain:
            self.assertEqual(drain.uri, f'unix:{self.path}')
            for data in (b'x' * 1000000, b'second'):
                with self.connect() as sock:
                    sock.sendall(data)
                    self.assertEqual(drain.wait(
                        lambda got, want=data: got == want, 5), data)
        self.assertFalse(self.path.exists())

    def test_waits_no_longer_than_asked(self):
        with Drain(self.path) as drain:
            self.assertEqual(drain.wait(lambda got: False, 0.05), b'')

    def test_reply_and_farewell(self):
        with Drain(self.path, reply=b'hello', farewell=b'bye',
                   over=lambda data: data.endswith(b'.')):
            sock = self.connect()
            self.assertEqual(sock.recv(99), b'hello')
            sock.sendall(b'not yet')
            sock.settimeout(3 * Drain.QUIET)
            with self.assertRaises(TimeoutError):
                sock.recv(99)
            sock.settimeout(5)
            sock.sendall(b' now.')
            self.assertEqual(sock.recv(99), b'bye')

    def test_hangs_up(self):
        with Drain(self.path, reply=b'half', hang_up=True):
            sock = self.connect()
            self.assertEqual(sock.recv(99), b'half')
            self.assertEqual(sock.recv(99), b'')

    def test_close_hangs_up(self):
        drain = Drain(self.path)
        sock = self.connect()
        sock.sendall(b'x')
        drain.wait(bool, 5)
        drain.close()
        self.assertEqual(sock.recv(99), b'')


if __name__ == '__main__':
    unittest.main()
