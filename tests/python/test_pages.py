# Tests of the accounts that the test guest keeps of its memory.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the accounts that the test guest keeps of its memory.

tests/guest/pages.c is compiled for this machine and called directly, so that
every way of being wrong can be tried.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import unittest
import zlib
from ctypes import c_bool, c_uint32, c_uint64
from pathlib import Path

GUEST = Path(__file__).resolve().parents[1] / 'guest'
PAGE = 4096
COUNT = 40


class Pages(ctypes.Structure):
    """struct Pages of pages.h"""
    _fields_ = [('mem', ctypes.POINTER(c_uint64)),
                ('seq', ctypes.POINTER(c_uint32)), ('count', c_uint64),
                ('seed', c_uint64), ('writes', c_uint64),
                ('stripes', c_uint64)]


class Verdict(ctypes.Structure):
    """struct Verdict of pages.h"""
    _fields_ = [('sum', c_uint64), ('wrong', c_uint64), ('index', c_uint64),
                ('seq', c_uint32), ('offset', c_uint32),
                ('expected', c_uint64), ('got', c_uint64)]


@unittest.skipUnless(shutil.which('gcc'), 'gcc is not installed')
class Accounts(unittest.TestCase):
    """Every lie is found, in its place."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        library = Path(folder.name, 'pages.so')
        subprocess.run(['gcc', '-shared', '-fPIC', '-O2', '-o', str(library),
                        str(GUEST / 'pages.c')], check=True, timeout=60)
        cls.lib = ctypes.CDLL(str(library))
        for name in ('init', 'verify', 'corrupt', 'stale', 'skew', 'repair',
                     'peek'):
            getattr(cls.lib, f'pages_{name}').restype = c_bool
        cls.lib.pages_touch.restype = None

    def make(self, seed: int = 1, stripes: int = 0) -> Pages:
        pages = Pages(stripes=stripes)
        self.assertTrue(self.lib.pages_init(
            ctypes.byref(pages), c_uint64(COUNT), c_uint64(seed)))
        self.pages = pages
        return pages

    def touch(self, index: int) -> None:
        self.lib.pages_touch(ctypes.byref(self.pages), c_uint64(index))

    def change(self, name: str, index: int, offset: int = 0) -> bool:
        return getattr(self.lib, f'pages_{name}')(
            ctypes.byref(self.pages), c_uint64(index), c_uint32(offset))

    def verify(self) -> tuple[bool, Verdict]:
        verdict = Verdict()
        return self.lib.pages_verify(ctypes.byref(self.pages),
                                     ctypes.byref(verdict)), verdict

    def page(self, index: int) -> bytes:
        address = ctypes.addressof(self.pages.mem.contents) + index * PAGE
        return ctypes.string_at(address, PAGE)

    def put(self, index: int, offset: int, data: bytes) -> None:
        address = ctypes.addressof(self.pages.mem.contents) + index * PAGE
        ctypes.memmove(address + offset, data, len(data))

    def test_fresh_and_written(self):
        self.make()
        ok, verdict = self.verify()
        self.assertEqual((ok, verdict.sum, verdict.wrong), (True, 0, 0))
        for i in range(1000):
            self.touch(i * 7 % COUNT)
        ok, verdict = self.verify()
        self.assertEqual((ok, verdict.sum, self.pages.writes),
                         (True, 1000, 1000))

    def test_a_write_changes_as_many_words_as_asked_for(self):
        for stripes, words in ((0, 16), (16, 16), (3, 3), (1, 1)):
            self.make(stripes=stripes)
            for index in (0, 31, COUNT - 1):
                self.touch(index)
                before = self.page(index)
                self.touch(index)
                after = self.page(index)
                changed = {i // 8 for i in range(PAGE)
                           if before[i] != after[i]}
                self.assertEqual(len(changed), words)
                self.assertTrue(self.verify()[0])
                self.change('stale', index)
                self.assertEqual(self.page(index), before)
                self.assertEqual(self.verify()[1].index, index)
                self.change('repair', index)

    def test_every_byte_matters(self):
        self.make()
        self.touch(3)
        for offset in range(PAGE):
            self.change('corrupt', 3, offset)
            ok, verdict = self.verify()
            self.assertEqual((ok, verdict.wrong, verdict.index,
                              verdict.offset), (False, 1, 3, offset))
            self.change('corrupt', 3, offset)
        self.assertTrue(self.verify()[0])

    def test_a_lost_page_is_found(self):
        self.make()
        for index in (0, COUNT - 1):
            before = self.page(index)
            self.put(index, 0, bytes(PAGE))
            self.assertEqual(self.verify()[1].index, index)
            self.put(index, 0, before)
        self.assertTrue(self.verify()[0])

    def test_a_torn_page_is_found(self):
        # Any boundary, the old part before or behind it.
        self.make()
        for index in (0, 5, 31, 32):
            old = self.page(index)
            self.touch(index)
            new = self.page(index)
            for cut in range(256, PAGE, 256):
                for torn in (new[:cut] + old[cut:], old[:cut] + new[cut:]):
                    self.put(index, 0, torn)
                    ok, verdict = self.verify()
                    self.assertEqual((ok, verdict.index), (False, index))
            self.put(index, 0, new)
        self.assertTrue(self.verify()[0])

    def test_an_old_page_is_found(self):
        self.make()
        history = [self.page(9)]
        for _ in range(50):
            self.touch(9)
            for old in history[-5:]:
                self.assertNotEqual(old, self.page(9))
            history.append(self.page(9))
        self.change('stale', 9)
        self.assertEqual(self.page(9), history[-2])
        self.assertEqual(self.verify()[1].index, 9)
        self.change('repair', 9)
        self.assertEqual(self.page(9), history[-1])
        self.assertTrue(self.verify()[0])

    def test_an_old_page_with_an_old_table_is_found(self):
        self.make()
        self.assertFalse(self.change('skew', 4))    # never written
        self.touch(4)
        self.touch(4)
        self.assertTrue(self.change('skew', 4))
        ok, verdict = self.verify()
        self.assertEqual((ok, verdict.wrong, verdict.sum, self.pages.writes),
                         (False, 0, 1, 2))
        self.change('repair', 4)
        self.assertTrue(self.verify()[0])
        self.assertEqual((self.pages.writes, self.pages.seq[4]), (2, 2))

    def test_swapped_pages_are_found(self):
        self.make()
        one, two = self.page(1), self.page(2)
        self.put(1, 0, two)
        self.put(2, 0, one)
        self.assertEqual(self.verify()[1].wrong, 2)

    def test_seeds_and_pages_differ(self):
        self.make(1)
        first = [self.page(i) for i in range(COUNT)]
        self.make(2)
        second = [self.page(i) for i in range(COUNT)]
        self.assertEqual(len(set(first + second)), 2 * COUNT)

    def test_content_does_not_compress(self):

        self.make()
        data = b''.join(self.page(i) for i in range(COUNT))
        self.assertGreater(len(zlib.compress(data, 9)), 0.98 * len(data))

    def test_a_write_changes_little(self):
        self.make()
        before = self.page(8)
        self.touch(8)
        changed = sum(a != b for a, b in zip(before, self.page(8)))
        self.assertLessEqual(changed, 16 * 8)
        self.assertGreater(changed, 16 * 6)

    def test_peek_changes_nothing(self):
        self.make()
        before = [self.page(i) for i in range(COUNT)]
        self.assertTrue(self.change('peek', 3))
        self.assertEqual(before, [self.page(i) for i in range(COUNT)])
        self.assertTrue(self.verify()[0])


if __name__ == '__main__':
    unittest.main()
