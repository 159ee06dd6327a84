# Tests of what the thread sanitizer's reports are taken for.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what the thread sanitizer's reports are taken for."""

from __future__ import annotations

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tsan'))

import reports      # noqa: E402
import rom          # noqa: E402

REPORT = '''\
==================
WARNING: ThreadSanitizer: data race (pid=7)
  Write of size 8 at 0x7b50 by main thread (mutexes: write M0):
    #0 memcpy <null> (qemu+0x1)
    #1 {writer} /a/build-tsan/../{where}:81:25 (qemu+0x2) (BuildId: ab)

  Previous read of size 8 at 0x7b50 by thread T7:
    #0 do_io /a/build-tsan/../io/channel.c:7:1 (qemu+0x3)

  Location is heap block of size 504 at 0x7b50 allocated by main thread:
    #0 malloc <null> (qemu+0x4)
    #1 made /a/build-tsan/../migration/core/ctx.c:156:28 (qemu+0x5)

  Thread T7 'worker' (tid=9, running) created by main thread at:
    #0 started /a/build-tsan/../migration/core/source.c:1:2 (qemu+0x6)

SUMMARY: ThreadSanitizer: data race in {writer}
==================
'''


def read(*texts: str) -> list[reports.Report]:
    """The reports in a file with these."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'tsan.7').write_text(''.join(texts))
        Path(folder, 'tsan7.log').write_text('no report')
        return reports.read(Path(folder))


class Reports(unittest.TestCase):
    """Whose they are, and what they are called."""

    def test_ours(self):
        found, = read(REPORT.format(writer='store',
                                    where='migration/base/params.c'))
        self.assertTrue(found.ours())
        self.assertEqual(found.title(), 'data race: store params.c:81:25 / '
                                        'do_io channel.c:7:1')

    def test_of_others(self):
        """Where memory and threads come from does not count."""
        found, = read(REPORT.format(writer='store', where='util/async.c'))
        self.assertFalse(found.ours())

    def test_several(self):
        one = REPORT.format(writer='one', where='util/async.c')
        two = REPORT.format(writer='two', where='migration/ram/delta.c')
        found = read(one, 'noise\n', two, one)
        self.assertEqual([report.ours() for report in found], [False, True])

    def test_none(self):
        self.assertEqual(read('qemu: terminating\n'), [])


class Rom(unittest.TestCase):
    """The jumps of the guest go where they should."""

    def test_jumps(self):
        image = rom.image()
        self.assertEqual(len(image), rom.SIZE)
        reset = int.from_bytes(image[0xfff1:0xfff3], 'little', signed=True)
        self.assertEqual(rom.RESET + 3 + reset, rom.REAL_AT)
        flat = rom.flat()
        page = flat.index(b'\xff\x07')
        again = flat.index(b'\xbf')
        for at, goal in ((len(flat) - 4, page), (len(flat) - 2, again)):
            offset = flat[at + 1] - 256
            self.assertEqual(at + 2 + offset, goal)
