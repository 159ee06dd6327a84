# Tests of the relay that the interoperability test damages a stream with.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the relay that the interoperability test damages a stream with."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'interop'))

from meddler import Damage      # noqa: E402


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


if __name__ == '__main__':
    unittest.main()
