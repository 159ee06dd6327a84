# Tests of who writes down what a protected guest sends.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of who writes down what a protected guest sends."""

from __future__ import annotations

import importlib.util
import socket
import sys
import tempfile
import unittest
from pathlib import Path

from params_def import ROOT


def load():
    """The module of that suite."""
    spec = importlib.util.spec_from_file_location(
        'checkpoint_outside', ROOT / 'tests/checkpoint/outside.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


outside = load()


def packet(number: int, kind: int = outside.BEAT, writes: int = 5) -> bytes:
    """As a stream netdev sends it."""
    frame = outside.FRAME.pack(b'\xff' * 6, b'\x52' * 6, outside.ETHERTYPE,
                               outside.MAGIC, kind, number, writes, 0)
    frame = frame.ljust(outside.FRAME_MIN, b'\0')
    return outside.LENGTH.pack(len(frame)) + frame


class PortTest(unittest.TestCase):
    """What comes out of one QEMU"""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.port = outside.Port(Path(self.folder.name) / 'net')
        self.addCleanup(self.folder.cleanup)
        self.addCleanup(self.port.server.close)

    def test_cut_anywhere(self):
        data = packet(1) + packet(2) + packet(9, outside.ANSWER) + packet(3)
        for at in range(len(data)):
            with self.subTest(at):
                self.port.packets.clear()
                self.port.feed(data[:at])
                self.port.feed(data[at:])
                self.assertEqual([p.number for p in self.port.beats()],
                                 [1, 2, 3])
                self.assertEqual(self.port.last().number, 3)

    def test_others_are_counted(self):
        self.port.feed(outside.LENGTH.pack(60) + b'\0' * 60)
        self.port.feed(outside.LENGTH.pack(3) + b'abc' + packet(4))
        self.assertEqual((self.port.other, self.port.last().number), (2, 4))

    def test_nothing_yet(self):
        self.assertEqual(self.port.last().number, 0)
        self.port.feed(packet(7)[:-1])
        self.assertEqual(self.port.beats(), [])


class OutsideTest(unittest.TestCase):
    """Sockets of several QEMUs"""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.outside = outside.Outside(Path(self.folder.name))
        self.addCleanup(self.outside.close)

    def connect(self, name: str) -> socket.socket:
        args = self.outside.args(name)
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.connect(args[1].partition('addr.path=')[2])
        return sock

    def test_what_was_sent_before_the_end_counts(self):
        sock = self.connect('a')
        sock.sendall(packet(1) + packet(2))
        sock.close()
        self.assertEqual(self.outside.settle('a').number, 2)
        self.assertTrue(self.outside.ports['a'].ended)

    def test_held(self):
        sock = self.connect('a')
        sock.sendall(packet(1))
        self.outside.wait_beat('a')
        self.outside.hold()
        sock.sendall(packet(2))
        self.assertEqual(self.outside.settle('a').number, 1)
        self.outside.hold(False)
        self.outside.wait('it', lambda:
                          self.outside.ports['a'].last().number == 2, 5)

    def test_request(self):
        sock = self.connect('a')
        sock.sendall(packet(1))
        self.outside.wait_beat('a')
        self.outside.request('a', 77)
        data = sock.recv(1000)
        *_, kind, number, _, _ = outside.FRAME.unpack_from(
            data, outside.LENGTH.size)
        self.assertEqual((kind, number), (outside.REQUEST, 77))


if __name__ == '__main__':
    unittest.main()
