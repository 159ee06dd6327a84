# Tests of ferry.kmodules: what is loaded, and in which order.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of ferry.kmodules: what is loaded, and in which order."""

from __future__ import annotations

import lzma
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'python'))

from ferry import kmodules                      # noqa: E402
from ferry.errors import FerryError             # noqa: E402


class Modules(unittest.TestCase):

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.tree = Path(scratch.name)
        self.folder = self.tree / 'usr/lib/modules/6.1-test'
        (self.folder / 'kernel/drivers').mkdir(parents=True)
        (self.folder / 'modules.builtin').write_text(
            'kernel/drivers/virtio-ring.ko\n')

    def module(self, name: str, depends: str, packed: bool = False) -> None:
        data = b'\x7fELF\0license=GPL\0depends=' + depends.encode() + b'\0'
        path = self.folder / 'kernel/drivers' / f'{name}.ko'
        if packed:
            path.with_suffix('.ko.xz').write_bytes(lzma.compress(data))
        else:
            path.write_bytes(data)

    def test_order(self):
        self.module('balloon', 'virtio,virtio_ring')
        self.module('virtio', 'low-level', packed=True)
        self.module('low-level', '')
        out = self.tree / 'out'
        self.assertEqual(kmodules.main(
            [str(self.tree), str(out), 'balloon', 'virtio']), 0)
        names = sorted(path.name for path in out.iterdir())
        self.assertEqual(names, ['00-low_level.ko', '01-virtio.ko',
                                 '02-balloon.ko'])
        for path in out.iterdir():
            self.assertTrue(path.read_bytes().startswith(b'\x7fELF'))

    def test_unknown(self):
        with self.assertRaisesRegex(FerryError, 'no module balloon'):
            kmodules.Modules(self.tree).in_order(['balloon'])

    def test_no_kernel(self):
        with self.assertRaisesRegex(FerryError, 'no kernel modules'):
            kmodules.Modules(self.tree / 'out')


if __name__ == '__main__':
    unittest.main()
