# Tests of ferry.observer: blackouts, noise, lost and repeated heartbeats.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of ferry.observer: blackouts, noise, lost and repeated heartbeats."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'python'))

from ferry.collector import count_breaks, step              # noqa: E402
from ferry.errors import FerryError                         # noqa: E402
from ferry.observer import Crossing, Observer, Timeline, percentile   # noqa: E402

MS = 1_000_000      # ns


class Counting(unittest.TestCase):
    """The count modulo 256."""

    def test_step(self):
        for last in range(256):
            self.assertEqual(step(last, (last + 1) % 256), (0, 0))
            self.assertEqual(step(last, (last + 2) % 256), (1, 0))
            self.assertEqual(step(last, (last + 128) % 256), (127, 0))
            self.assertEqual(step(last, last), (0, 1))
            self.assertEqual(step(last, (last - 5) % 256), (0, 6))

    def test_chunks(self):
        whole = bytes(i % 256 for i in range(1000))
        self.assertEqual(count_breaks(whole), (0, 0))
        self.assertEqual(count_breaks(whole[:300] + whole[303:]), (3, 0))
        self.assertEqual(count_breaks(whole[:300] + whole[298:]), (0, 2))
        self.assertEqual(count_breaks(b''), (0, 0))

    def test_every_single_loss_and_repeat_is_seen(self):
        whole = bytes(i % 256 for i in range(300))
        for i in range(1, 299):
            self.assertEqual(count_breaks(whole[:i] + whole[i + 1:]), (1, 0))
            self.assertEqual(count_breaks(whole[:i] + whole[i - 1:]), (0, 1))


class Percentiles(unittest.TestCase):
    """Nearest rank."""

    def test_ranks(self):
        values = [float(n) for n in range(100, 0, -1)]
        self.assertEqual(percentile(values, 50), 50)
        self.assertEqual(percentile(values, 99), 99)
        self.assertEqual(percentile(values, 100), 100)
        self.assertEqual(percentile(values, 0), 1)
        self.assertEqual(percentile([3.0], 99), 3)
        self.assertEqual(percentile([], 99), 0)


def timeline(*chunks: tuple) -> Timeline:
    """Chunks (source, ms, bytes)."""
    made = Timeline()
    for source, when, data in chunks:
        made.add(source, when * MS, data[0], data[-1], len(data),
                 *count_breaks(data))
    return made


class Gaps(unittest.TestCase):
    """What a series of chunks means."""

    def test_blackout_is_the_gap_between_the_two(self):
        made = timeline((1, 100, b'\1'), (1, 101, b'\2'), (1, 103, b'\3'),
                        (2, 153, b'\4'), (2, 154, b'\5'))
        (move,) = made.handovers
        self.assertEqual((move.source, move.target, move.at_ns),
                         (1, 2, 153 * MS))
        self.assertAlmostEqual(move.gap_ms, 50)
        self.assertEqual((move.lost, move.repeated), (0, 0))
        self.assertEqual([round(gap, 6) for _, gap in made.gaps()], [1, 2, 1])
        self.assertEqual(made.breaks, [])

    def test_crossing(self):
        made = timeline((1, 100, b'\xfd'), (1, 101, b'\xfe'), (2, 150, b'\xff'))
        self.assertIsNone(made.crossing())
        made.add(2, 159 * MS, 0, 1, 2)
        self.assertEqual(made.crossing(), Crossing(58, 255, 3))
        self.assertIsNone(made.crossing(151 * MS))

    def test_longer_pause_elsewhere_is_not_the_blackout(self):
        made = timeline((1, 0, b'\1'), (1, 90, b'\2'), (2, 100, b'\3'),
                        (2, 300, b'\4'))
        self.assertAlmostEqual(made.handovers[0].gap_ms, 10)
        self.assertEqual([round(gap) for _, gap in made.gaps()], [90, 200])

    def test_interval(self):
        made = timeline((1, 0, b'\1'), (1, 10, b'\2'), (1, 30, b'\3'),
                        (1, 60, b'\4'))
        self.assertEqual([round(gap) for _, gap
                          in made.gaps(10 * MS, 30 * MS)], [10, 20])

    def test_loss_at_the_handover(self):
        made = timeline((1, 0, b'\xff'), (2, 9, b'\x02'))
        self.assertEqual(made.handovers[0].lost, 2)
        self.assertEqual(made.breaks, [(9 * MS, 2, 0)])

    def test_repeat_at_the_handover(self):
        made = timeline((1, 0, b'\x07'), (2, 9, b'\x06'))
        self.assertEqual(made.handovers[0].repeated, 2)

    def test_loss_within_a_chunk(self):
        made = timeline((1, 0, b'\1\2'), (1, 1, b'\3\5\6'))
        self.assertEqual(made.breaks, [(1 * MS, 1, 0)])

    def test_steps(self):
        made = timeline((1, 0, b'\1\2'), (1, 1, b'\3\5\6'), (2, 2, b'\x09'))
        self.assertEqual(list(made.steps), [2, 4, 3])

    def test_two_guests_at_once(self):
        made = timeline((1, 0, b'\1'), (2, 1, b'\2'), (1, 2, b'\2'),
                        (2, 3, b'\3'))
        self.assertEqual([(m.source, m.target) for m in made.handovers],
                         [(1, 2), (2, 1), (1, 2)])

    def test_first_chunk_has_no_gap(self):
        made = timeline((1, 5000, b'\x40'))
        self.assertEqual((made.gaps(), made.handovers, made.breaks),
                         ([], [], []))


class FakeVM:
    """A heartbeat port that the test speaks for."""

    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        self.path = f'{folder}/{name}'
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(self.path)
        self._server.listen(1)

    def port_path(self, _role: str) -> str:
        return self.path

    def wait_attached(self, _role: str) -> None:
        self.port, _ = self._server.accept()
        self._server.close()


class Live(unittest.TestCase):
    """The collector's process and its time stamps."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.observer = Observer()
        self.addCleanup(self.observer.stop)

    def vm(self, name: str) -> FakeVM:
        made = FakeVM(self.folder, name)
        self.observer.attach(made)
        self.addCleanup(lambda: made.port.close())
        return made

    def test_blackout(self):
        one, two = self.vm('one'), self.vm('two')
        for byte in range(20):
            one.port.send(bytes([byte]))
            time.sleep(0.002)
        last = time.monotonic_ns()
        time.sleep(0.08)
        two.port.send(b'\x14')
        first = time.monotonic_ns()
        self.observer.wait_beats(two, 0)
        time.sleep(0.01)
        measured = self.observer.blackout_ms()
        real = (first - last) / 1e6
        self.assertGreater(measured, 80)
        self.assertLess(measured, real + 60)    # a loaded machine
        self.assertEqual(self.observer.breaks(), (0, 0))
        self.assertEqual(self.observer.bytes_from(one), 20)
        self.assertEqual(len(self.observer.gaps()), 19)

    def test_no_handover_no_blackout(self):
        one = self.vm('one')
        one.port.send(b'\0\1\2')
        time.sleep(0.01)
        one.port.send(b'\3')
        self.assertIsNone(self.observer.blackout_ms())
        self.assertEqual(self.observer.handovers(), [])

    def test_loss_is_counted(self):
        one = self.vm('one')
        for chunk in (b'\0\1', b'\3\4', b'\4'):
            one.port.send(chunk)
            time.sleep(0.02)
        self.assertEqual(self.observer.breaks(), (1, 1))

    def test_closed_port_is_no_problem(self):
        one, two = self.vm('one'), self.vm('two')
        one.port.send(b'\0')
        one.port.close()
        time.sleep(0.01)
        two.port.send(b'\1')
        self.observer.wait_beats(two, 0)
        time.sleep(0.01)
        self.assertEqual(self.observer.bytes_from(two), 1)

    def test_silence(self):
        one = self.vm('one')
        with self.assertRaises(FerryError):
            self.observer.wait_beats(one, 1, timeout=0.05)

    def test_attach_twice_is_once(self):
        one = self.vm('one')
        self.assertEqual(self.observer.attach(one), 1)


if __name__ == '__main__':
    unittest.main()
