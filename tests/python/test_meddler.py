# Tests of the relay that damages streams or cuts them off.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the relay that damages streams or cuts them off."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'interop'))

from meddler import Cut, Damage, Scissors       # noqa: E402


class Damaging(unittest.TestCase):
    """Exactly one byte, wherever the stream is cut."""

    def test_every_cut(self):
        data = bytes(range(10)) + b'SIGN' + bytes(range(20, 40))
        want = bytearray(data)
        want[10 + 7] ^= 1
        for one in range(len(data) + 1):
            for two in range(one, len(data) + 1):
                damage = Damage(b'SIGN', 7)
                got = b''.join(damage.apply(part) for part in (
                    data[:one], data[one:two], data[two:]))
                self.assertEqual(got, bytes(want))
                self.assertEqual(damage.done, 1)

    def test_nothing_to_damage(self):
        damage = Damage(b'SIGN', 4)
        self.assertEqual(damage.apply(b'SIG' * 9), b'SIG' * 9)
        self.assertEqual(damage.done, 0)


class Cutting(unittest.TestCase):
    """Before the pattern, as far as that had not passed."""

    def passed(self, scissors: Scissors, *chunks: bytes) -> bytes:
        """What comes out before the cut."""
        out = b''
        try:
            for chunk in chunks:
                out += scissors.apply(chunk)
        except Cut as cut:
            self.assertTrue(scissors.done.is_set())
            return out + cut.args[0]
        self.assertFalse(scissors.done.is_set())
        return out

    def test_pattern(self):
        data = b'abcSTOPdef'
        for one in range(4):
            self.assertEqual(self.passed(Scissors(b'STOP').arm(), data[:one],
                                         data[one:]), b'abc')
        # Half of it has passed when it is seen.
        self.assertEqual(self.passed(Scissors(b'STOP').arm(), b'abcST',
                                     b'OPdef'), b'abcST')

    def test_not_armed(self):
        scissors = Scissors(b'STOP')
        self.assertEqual(self.passed(scissors, b'STOP', b'x'), b'STOPx')
        scissors.arm()
        self.assertEqual(self.passed(scissors, b'aSTOP'), b'a')

    def test_anything(self):
        scissors = Scissors(b'')
        self.assertEqual(self.passed(scissors, b'abc'), b'abc')
        self.assertEqual(self.passed(scissors.arm(), b'def'), b'')


if __name__ == '__main__':
    unittest.main()
