# Tests of ferry.link.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of ferry.link: bytes pass, and what becomes of connections."""

from __future__ import annotations

import socket
import sys
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'python'))

from ferry.link import Link                                 # noqa: E402


class Linked(unittest.TestCase):
    """A connection through a Link."""

    def setUp(self):
        self.server = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(self.server.close)
        self.server.settimeout(5)
        self.link = Link(self.server.getsockname()[1])
        self.addCleanup(self.link.close)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        before = len(self.link.connections)
        near = socket.create_connection(('127.0.0.1', self.link.port), 5)
        self.addCleanup(near.close)
        far, _ = self.server.accept()
        self.addCleanup(far.close)
        far.settimeout(5)
        end = time.monotonic() + 5
        while len(self.link.connections) == before:     # it is put down last
            self.assertLess(time.monotonic(), end)
            time.sleep(0.001)
        return near, far

    @staticmethod
    def take(sock: socket.socket, count: int) -> bytes:
        data = b''
        while len(data) < count and (more := sock.recv(count - len(data))):
            data += more
        return data

    def ended(self, sock: socket.socket) -> bool:
        try:
            return sock.recv(1) == b''
        except ConnectionResetError:
            return True

    def test_speed(self):
        self.link = Link(self.server.getsockname()[1], speed=4_000_000)
        self.addCleanup(self.link.close)
        near, far = self.pair()
        start = time.monotonic()
        near.sendall(b'x' * 400000)
        self.assertEqual(self.take(far, 400000), b'x' * 400000)
        took = time.monotonic() - start
        self.assertTrue(0.09 < took < 2, f'{took} s')

    def test_speed_is_kept(self):
        """Sleeps that are too long, and work, do not add up."""
        link = Link(self.server.getsockname()[1], speed=60_000_000)
        self.addCleanup(link.close)
        clock = [100.0]
        with mock.patch('ferry.link.time') as made_up:
            made_up.monotonic.side_effect = lambda: clock[0]

            def sleep(seconds):
                clock[0] += seconds + 0.004
            made_up.sleep.side_effect = sleep
            for _ in range(1000):
                link._wait_turn(60_000)
                clock[0] += 0.0002
                link._end_turn()
            self.assertAlmostEqual(clock[0], 101, delta=0.01)
            clock[0] += 5           # nobody sends: that time is gone
            link._wait_turn(60_000)
            self.assertAlmostEqual(clock[0], 106, delta=0.01)
            clock[0] += 1           # who receives does not take it: no more
            link._end_turn()
            for _ in range(100):
                link._wait_turn(60_000)
                link._end_turn()
            self.assertAlmostEqual(clock[0], 107.1, delta=0.02)

    def test_both_ways(self):
        near, far = self.pair()
        near.sendall(b'x' * 300000)
        self.assertEqual(self.take(far, 300000), b'x' * 300000)
        far.sendall(b'answer')
        self.assertEqual(self.take(near, 6), b'answer')
        near.shutdown(socket.SHUT_WR)
        self.assertEqual(far.recv(1), b'')
        far.sendall(b'late')
        self.assertEqual(self.take(near, 4), b'late')
        one, = self.link.connections
        # What was passed on is counted afterwards.
        end = time.monotonic() + 5
        while one.answered < 10 and time.monotonic() < end:
            time.sleep(0.001)
        self.assertEqual((one.sent, one.answered), (300000, 10))

    def test_ends_by_itself(self):
        near, far = self.pair()
        near.close()
        self.assertTrue(self.ended(far))
        self.assertEqual(len(self.link.alive()), 1)
        far.close()
        for _ in range(100):
            if not self.link.alive():
                return
            time.sleep(0.02)
        self.fail('it is still there')

    def test_cut_all(self):
        pairs = [self.pair(), self.pair()]
        self.assertEqual(self.link.cut(), 2)
        for pair in pairs:
            for sock in pair:
                self.assertTrue(self.ended(sock))
        self.assertEqual(self.link.alive(), [])

    def test_cut_one(self):
        first, second = self.pair(), self.pair()
        self.assertEqual(self.link.cut(1, reset=False), 1)
        self.assertTrue(self.ended(second[0]))
        self.assertTrue(self.ended(second[1]))
        first[0].sendall(b'a')
        self.assertEqual(first[1].recv(1), b'a')

    def test_cut_at_a_byte(self):
        near, far = self.pair()
        near.sendall(b'12345')
        self.take(far, 5)
        self.link.cut_after(1000, reset=False)
        near.sendall(b'x' * 5000)
        self.assertEqual(len(self.take(far, 5000)), 1000)
        self.assertTrue(self.link.cut_by_alarm.wait(5))
        self.assertTrue(self.ended(near))

    def test_cut_at_an_answer(self):
        near, far = self.pair()
        self.link.cut_after(3, 'answered', reset=False)
        near.sendall(b'x' * 5000)
        self.assertEqual(len(self.take(far, 5000)), 5000)
        far.sendall(b'12345')
        self.assertEqual(self.take(near, 5), b'123')

    def test_hold(self):
        near, far = self.pair()
        self.link.hold()
        near.sendall(b'later')
        far.settimeout(0.2)
        with self.assertRaises(TimeoutError):
            far.recv(5)
        self.link.hold(False)
        far.settimeout(5)
        self.assertEqual(self.take(far, 5), b'later')

    def test_cut_while_held(self):
        near, far = self.pair()
        self.link.hold()
        near.sendall(b'never')
        time.sleep(0.05)
        self.link.cut()
        self.assertTrue(self.ended(far))

    def check_leads(self):
        """A new connection is led to the server."""
        near, far = self.pair()
        near.sendall(b'a')
        self.assertEqual(far.recv(1), b'a')

    def test_refuse(self):
        self.link.refuse()
        with self.assertRaises(OSError):
            socket.create_connection(('127.0.0.1', self.link.port), 1)
        self.link.refuse(False)
        self.check_leads()

    def test_of_an_attempt_that_is_over(self):
        """Who was not taken before the link is aimed anew does not get there.
        """
        self.pair()
        connect, taken = socket.create_connection, threading.Event()
        go_on = threading.Event()

        def slowly(address, timeout):
            taken.set()
            go_on.wait(5)
            return connect(address, timeout)
        with mock.patch('ferry.link.socket.create_connection', slowly):
            late = [connect(('127.0.0.1', self.link.port), 5)
                    for _ in range(2)]
            for sock in late:
                self.addCleanup(sock.close)
            self.assertTrue(taken.wait(5))
            self.link.aim(f'tcp:127.0.0.1:{self.server.getsockname()[1]}')
            go_on.set()
            for sock in late:
                self.assertTrue(self.ended(sock))
        self.server.accept()[0].close()     # the one that was being led there
        self.check_leads()
        self.assertEqual(len(self.link.connections), 2)

    def test_aimed_while_it_refuses(self):
        self.pair()
        self.link.refuse()
        self.link.aim(f'tcp:127.0.0.1:{self.server.getsockname()[1]}')
        with self.assertRaises(OSError):
            socket.create_connection(('127.0.0.1', self.link.port), 1)
        self.link.refuse(False)
        self.check_leads()

    def test_leads_nowhere(self):
        self.server.close()
        with socket.create_connection(('127.0.0.1', self.link.port),
                                      5) as near:
            self.assertTrue(self.ended(near))


if __name__ == '__main__':
    unittest.main()
