# Tests of what measures and watches postcopy.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what measures and watches postcopy, without QEMU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
import unittest
from ctypes import c_bool, c_uint, c_uint64
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'python'))

from ferry.errors import FerryError                         # noqa: E402
from ferry.guest import Times                               # noqa: E402
from ferrytest.bench import postcopy as bench               # noqa: E402
from ferrytest.postcopy import Event, Postcopy              # noqa: E402

MS = 1_000_000


class Faults(unittest.TestCase):
    """Which accesses waited for a page, and how long."""

    def test_rank(self):
        counts = {10: 1, 20: 98, 30: 1}
        self.assertEqual([bench.rank(counts, share) for share in
                          (0.01, 0.5, 0.99, 1.0)], [10, 20, 20, 30])
        self.assertEqual(bench.rank({}, 0.5), 0)

    def test_short_ones_are_none(self):
        self.assertEqual(bench.faults({}, {900: 1000, 29999: 5}), {})

    def test_usual_delays_are_taken_off(self):
        before = {1000: 970, 50000: 20, 90000: 10}
        after = {1000: 380, 50000: 10, 90000: 40, 800000: 70}
        self.assertEqual(bench.faults(before, after),
                         {90000: 35.0, 800000: 70.0})

    def test_since(self):
        before = Times(0, 0, 0, 5, {10: 3, 20: 2})
        after = Times(0, 0, 0, 9, {10: 3, 20: 4, 30: 2})
        self.assertEqual(after.since(before), {20: 2, 30: 2})

    def test_clock(self):
        before = Times(0, 0, 0, 0, {})
        values = bench._values(before, before, Times(
            90 * MS, 0, 100 * MS, 1, {40000: 1}))
        self.assertEqual(values['clock_lag_ms'], 10)
        with self.assertRaises(FerryError):
            bench._values(before, before, Times(50 * MS, 0, 100 * MS, 1, {}))


class FullSpeed(unittest.TestCase):
    """When the guest is as fast as before: 1,000 counts a second."""

    @staticmethod
    def counts(*pieces: tuple[int, int, int]) -> list[tuple[int, int]]:
        """(from ms, to ms, counts in each ms)"""
        return [(ms * MS, each) for start, end, each in pieces
                for ms in range(start, end)]

    def took(self, *pieces: tuple[int, int, int]) -> float | None:
        found = bench.full_speed(self.counts(*pieces), 100 * MS, 1000.0)
        return None if found is None else found / MS

    def test_never_slow(self):
        self.assertEqual(self.took((0, 500, 1)), 0)

    def test_gap(self):
        # A window may begin with a tenth of it in the gap.
        found = self.took((0, 110, 1), (400, 800, 1))
        self.assertIsNotNone(found)
        self.assertLessEqual(abs(found - 300), 20)

    def test_not_yet(self):
        self.assertIsNone(self.took((0, 110, 1), (400, 450, 1)))
        self.assertIsNone(self.took((0, 50, 1)))
        self.assertIsNone(bench.full_speed([], 0, 1000.0))

    def test_slow_for_good(self):
        self.assertIsNone(self.took((0, 100, 2), (100, 900, 0)))

    def test_what_was_before_does_not_count(self):
        self.assertIsNone(self.took((0, 100, 50)))


class FakeSide:
    """A side that has said all that it will."""

    def __init__(self, **events: list[float]) -> None:
        self.events = [Event(at, name, {}) for name, times in events.items()
                       for at in times]

    def when(self, name: str) -> list[float]:
        return [event.at for event in self.events if event.name == name]


class Once(unittest.TestCase):
    """The guest runs on one side at a time."""

    @staticmethod
    def check(source: FakeSide, target: FakeSide, **caps: bool) -> None:
        move = Postcopy.__new__(Postcopy)
        move.source, move.target = source, target
        move.caps = caps
        move.check_once()

    def test_fine(self):
        self.check(FakeSide(STOP=[1.0]), FakeSide(RESUME=[1.1]))
        self.check(FakeSide(STOP=[1.0]), FakeSide())
        self.check(FakeSide(STOP=[1.0], RESUME=[0.5]), FakeSide(RESUME=[1.1]))
        self.check(FakeSide(STOP=[1.0, 3.0], RESUME=[2.0]), FakeSide())

    def test_twice(self):
        for source in (FakeSide(), FakeSide(STOP=[1.2]),
                       FakeSide(STOP=[1.0], RESUME=[2.0])):
            with self.assertRaises(FerryError):
                self.check(source, FakeSide(RESUME=[1.1]))

    def test_strict(self):
        given_up = FakeSide(STOP=[1.0, 2.0], RESUME=[1.5])
        strict = {'strict-downtime': True}
        self.check(given_up, FakeSide(RESUME=[2.1]), **strict)
        with self.assertRaises(FerryError):
            self.check(given_up, FakeSide(RESUME=[2.1]))
        with self.assertRaises(FerryError):
            self.check(FakeSide(STOP=[1.0, 2.0], RESUME=[1.5, 2.2]),
                       FakeSide(RESUME=[2.1]), **strict)


@unittest.skipUnless(shutil.which('gcc'), 'gcc is not installed')
class Timing(unittest.TestCase):
    """tests/guest/timing.c, compiled for this machine."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        library = Path(folder.name, 'timing.so')
        subprocess.run(['gcc', '-shared', '-fPIC', '-O2', '-o', str(library),
                        str(ROOT / 'tests' / 'guest' / 'timing.c')],
                       check=True, timeout=60)
        cls.lib = ctypes.CDLL(str(library))
        cls.lib.timing_bucket.argtypes = [c_uint64]
        cls.lib.timing_bucket.restype = c_uint
        cls.lib.timing_floor.restype = c_uint64
        cls.lib.timing_tell.restype = c_bool

    def test_buckets(self):
        last = -1
        for ns in (*range(1000), *(3 * 2 ** n // 2 for n in range(10, 40))):
            bucket = self.lib.timing_bucket(ns)
            self.assertGreaterEqual(bucket, last)
            self.assertLessEqual(self.lib.timing_floor(bucket), ns)
            self.assertLess(ns, self.lib.timing_floor(bucket + 1))
            self.assertLessEqual(
                self.lib.timing_floor(bucket + 1)
                - self.lib.timing_floor(bucket), max(1, ns / 8))
            last = bucket

    def test_longest(self):
        self.assertEqual(self.lib.timing_bucket(2 ** 63), 40 * 8 - 1)

    def test_in_pieces(self):
        word = c_uint64(7)
        for _ in range(15):     # the sixteenth would go to a port
            self.lib.timing_access(ctypes.byref(word))
        found, start, more = [], c_uint(0), False
        while not more:
            text = ctypes.create_string_buffer(14)
            more = self.lib.timing_tell(text, 14, ctypes.byref(start))
            count, *pairs = text.value.decode().split()
            self.assertEqual(count, '15')
            self.assertTrue(pairs or more)
            found += pairs
        counts = [pair.split(':') for pair in found]
        self.assertEqual(sum(int(count) for _, count in counts), 15)
        self.assertEqual(len({floor for floor, _ in counts}), len(counts))


if __name__ == '__main__':
    unittest.main()
