# Tests of base/fetch and base/build where they refuse: no archive is asked.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of base/fetch and base/build where they refuse: no archive is asked."""

import os
import tempfile
import unittest
from pathlib import Path

from scripts import ROOT, run


class Refusals(unittest.TestCase):
    """One line that says what is wrong, nothing left behind."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = Path(folder.name, 'build')
        self.build.mkdir()
        self.own = Path(folder.name, 'qemu')

    def call(self, *argv: str, **env: str):
        result = run([ROOT / argv[0], *argv[1:]],
                     env={**os.environ, 'FERRY_BUILD': str(self.build),
                          'FERRY_LOCKED': '', **env})
        return result.returncode, result.stdout + result.stderr

    def stand_in(self, name: str, text: str) -> str:
        """A PATH on which NAME is a program of ours."""
        folder = self.build / 'bin'
        folder.mkdir(exist_ok=True)
        (folder / name).write_text('#!/bin/sh\n' + text)
        (folder / name).chmod(0o755)
        return f'{folder}:{os.environ["PATH"]}'

    def lock(self) -> dict[str, str]:
        rows = (line.split() for line in
                (ROOT / 'base/qemu.lock').read_text().splitlines())
        return {r[2]: r[1] for r in rows if r and r[0] == 'sha256'}

    def test_own_source_missing(self):
        status, said = self.call('base/fetch', QEMU_SRC=str(self.own))
        self.assertEqual(status, 1)
        self.assertIn('does not exist', said)

    def test_own_source_is_something_else(self):
        self.own.mkdir()
        status, said = self.call('base/fetch', QEMU_SRC=str(self.own))
        self.assertEqual(status, 1)
        self.assertIn('does not look like QEMU', said)

    def test_own_source_of_another_series(self):
        self.own.mkdir()
        (self.own / 'VERSION').write_text('9.2.1\n')
        status, said = self.call('base/fetch', QEMU_SRC=str(self.own))
        self.assertEqual(status, 1)
        self.assertIn('is QEMU 9.2.1', said)

    def test_own_source_is_taken(self):
        self.own.mkdir()
        (self.own / 'VERSION').write_text('10.0.99\n')
        status, said = self.call('base/fetch', QEMU_SRC=str(self.own))
        self.assertEqual(status, 0, said)
        tree = self.build / 'tree/pristine'
        self.assertEqual((tree / 'VERSION').read_text(), '10.0.99\n')
        again = self.call('base/fetch', QEMU_SRC=str(self.own))
        self.assertEqual(again, (0, ''))

    def test_wrong_checksum(self):
        downloads = self.build / 'download'
        downloads.mkdir()
        for name in self.lock():
            (downloads / name).write_text('damaged')
        status, said = self.call('base/fetch')
        self.assertEqual(status, 1)
        self.assertIn('does not have the SHA-256', said)
        self.assertFalse((self.build / 'tree').exists())

    def test_no_network(self):
        path = self.stand_in('apt-get', 'echo "E: Failed to fetch" ; exit 100')
        status, said = self.call('base/fetch', PATH=path)
        self.assertEqual(status, 1)
        self.assertIn('cannot be read (no network', said)

    def test_no_source_in_the_archive(self):
        self.stand_in('apt-get', 'exit 0')
        path = self.stand_in('apt-cache', 'exit 0')
        status, said = self.call('base/fetch', PATH=path)
        self.assertEqual(status, 1)
        self.assertIn('offers no source (deb-src)', said)

    def test_archive_moved_on(self):
        self.stand_in('apt-get', 'case "$*" in *" source "*) exit 100;; esac')
        path = self.stand_in('apt-cache',
                             'echo "Version: 1:9.2.4+ds-1"\n'
                             'echo "Version: 1:10.0.98+ds-1"\n'
                             'echo "Version: 1:10.0.99+ds-1"\n'
                             'echo "Version: 1:10.1.0+ds-1"\n')
        status, said = self.call('base/fetch', PATH=path)
        self.assertEqual(status, 1)     # the stand-in has nothing to download
        self.assertIn('moved on to 1:10.0.99+ds-1', said)

    def test_little_disk(self):
        path = self.stand_in('df', 'echo Avail; echo 3')
        self.own.mkdir()
        (self.own / 'VERSION').write_text('10.0.99\n')
        status, said = self.call('base/fetch', QEMU_SRC=str(self.own),
                                 PATH=path)
        self.assertEqual(status, 1)
        self.assertIn('needs 6 GB of disk', said)
        self.assertIn('only 3 GB free', said)

    def test_no_compiler(self):
        path = self.stand_in('gcc', 'exit 1')
        (self.build / 'tree/ferry').mkdir(parents=True)
        status, said = self.call('base/build', 'ferry', PATH=path)
        self.assertEqual(status, 1)
        self.assertIn('gcc cannot make a program', said)

    def test_unknown_tree(self):
        status, said = self.call('base/build', 'ferrari')
        self.assertEqual(status, 1)
        self.assertIn('ferry|pristine', said)

    def test_released_not_offered(self):
        status, said = self.call('base/fetch-qemu', 'nosuch',
                                 PATH=self.stand_in('apt-get', 'exit 100'))
        self.assertEqual(status, 3)
        self.assertIn('nosuch', said)
        self.assertEqual([p.name for p in (self.build / 'released').iterdir()],
                         ['apt-nosuch'])


if __name__ == '__main__':
    unittest.main()
