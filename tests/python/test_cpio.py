# Tests of ferry.cpio: the archive is what the kernel expects.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of ferry.cpio: the archive is what the kernel expects."""

from __future__ import annotations

import stat
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'python'))

from ferry import cpio                      # noqa: E402
from ferry.errors import FerryError         # noqa: E402

FIELDS = ('inode', 'mode', 'uid', 'gid', 'links', 'time', 'size', 'dev_major',
          'dev_minor', 'major', 'minor', 'name_size', 'check')


def read(data: bytes) -> dict[str, dict]:
    """A reader of the format, written from its description alone."""
    members, at = {}, 0
    while True:
        assert at % 4 == 0 and data[at:at + 6] == b'070701', at
        numbers = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16)
                   for i in range(13)]
        member = dict(zip(FIELDS, numbers))
        at += 110
        name = data[at:at + member['name_size']]
        assert name[-1:] == b'\0'
        at += member['name_size']
        at += -at % 4
        member['data'] = data[at:at + member['size']]
        assert len(member['data']) == member['size']
        at += member['size']
        at += -at % 4
        if name == b'TRAILER!!!\0':
            assert at == len(data)
            return members
        members[name[:-1].decode()] = member


class Writing(unittest.TestCase):
    """Members of all kinds and sizes come back."""

    def test_kinds(self):
        archive = cpio.Archive()
        archive.directory('dev')
        archive.char_device('dev/console', 5, 1)
        archive.file('init', b'#!/bin/sh\n')
        archive.file('data', b'x', 0o644)
        members = read(archive.finish())
        self.assertEqual(list(members), ['dev', 'dev/console', 'init', 'data'])
        self.assertTrue(stat.S_ISDIR(members['dev']['mode']))
        console = members['dev/console']
        self.assertTrue(stat.S_ISCHR(console['mode']))
        self.assertEqual((console['major'], console['minor']), (5, 1))
        self.assertEqual(members['init']['mode'], stat.S_IFREG | 0o755)
        self.assertEqual(members['init']['data'], b'#!/bin/sh\n')
        self.assertEqual(members['data']['mode'], stat.S_IFREG | 0o644)

    def test_padding(self):
        for name_length in range(1, 9):
            for size in (0, 1, 2, 3, 4, 5, 4095, 4096):
                archive = cpio.Archive()
                archive.file('n' * name_length, b'\xa5' * size)
                archive.file('next', b'n')
                members = read(archive.finish())
                self.assertEqual(members['n' * name_length]['data'],
                                 b'\xa5' * size)
                self.assertEqual(members['next']['data'], b'n')

    def test_inodes_differ(self):
        # Equal inodes would make the kernel link the second to the first.
        archive = cpio.Archive()
        for name in 'abc':
            archive.file(name, name.encode())
        inodes = [m['inode'] for m in read(archive.finish()).values()]
        self.assertEqual(len(set(inodes)), 3)

    def test_reproducible(self):
        with tempfile.TemporaryDirectory() as folder:
            init = Path(folder, 'init')
            init.write_bytes(b'\x7fELF')
            one = cpio.initramfs({'init': init})
            init.touch()
            self.assertEqual(one, cpio.initramfs({'init': init}))
            self.assertIn('dev/console', read(one))

    def test_command_line(self):
        with tempfile.TemporaryDirectory() as folder:
            init, output = Path(folder, 'i'), Path(folder, 'out.img')
            init.write_bytes(b'abc')
            cpio.main([str(output), f'init={init}'])
            self.assertEqual(read(output.read_bytes())['init']['data'], b'abc')
            self.assertEqual(sorted(p.name for p in Path(folder).iterdir()),
                             ['i', 'out.img'])

    def test_mistakes(self):
        for argv in ([], ['out'], ['out', 'init'],
                     ['/nonexistent/out', 'init=/dev/null'],
                     ['/tmp/x', 'init=/nonexistent/file']):
            with self.assertRaises(FerryError):
                cpio.main(argv)


if __name__ == '__main__':
    unittest.main()
