# Tests of ferrytest.abilities with a stand-in for QEMU.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of ferrytest.abilities with a fake QEMU."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'python'))

from ferry.errors import FerryError                     # noqa: E402
from ferrytest import abilities                         # noqa: E402

FAKE = Path(__file__).with_name('fake_qemu.py')


class Asking(unittest.TestCase):
    """What is lacking is what a QEMU says is lacking."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='f')
        self.addCleanup(folder.cleanup)
        # answers are remembered by binary: each test has its own
        self.fake = Path(folder.name, 'fake')
        shutil.copy(FAKE, self.fake)
        self.words(lacks='multifd,mode=cpr-reboot,exec:,late-file:')

    def words(self, **words: str) -> None:
        text = ' '.join(f'fake.{key}={value}' for key, value in words.items())
        change = mock.patch.dict(os.environ, FAKE_WORDS=text)
        change.start()
        self.addCleanup(change.stop)

    def lacks(self, *needs: str) -> str | None:
        return abilities.lacks(self.fake, needs)

    def test_capability(self):
        self.assertIn("'multifd' is not available yet", self.lacks('multifd'))
        self.assertIsNone(self.lacks('xbzrle'))

    def test_other_errors_say_nothing(self):
        self.assertIsNone(self.lacks('postcopy-preempt'))

    def test_kernel(self):
        with mock.patch.dict(abilities.KERNEL,
                             {'postcopy-ram': lambda: 'no userfaultfd'}):
            self.assertEqual(self.lacks('xbzrle', 'postcopy-ram'),
                             'no userfaultfd')
            self.assertIsNone(self.lacks('xbzrle'))

    def test_value_of_a_parameter(self):
        self.assertIn('cpr-reboot', self.lacks('mode=cpr-reboot'))
        self.assertIsNone(self.lacks('mode=cpr-transfer'))

    def test_transport(self):
        self.assertIn('not available yet', self.lacks('exec:'))
        self.assertIn('not available yet', self.lacks('file:'))
        self.assertIsNone(self.lacks('vsock:'))

    def test_unknown_transport(self):
        with self.assertRaises(FerryError):
            self.lacks('pigeon:')

    def test_member(self):
        self.assertIsNone(self.lacks('query-migrate.status'))
        self.assertIn('has no progress', self.lacks('query-migrate.progress'))
        self.assertIn('has no x', self.lacks('no-such-command.x'))

    def test_first_reason_of_several(self):
        self.assertIn('multifd', self.lacks('xbzrle', 'multifd', 'exec:'))
        self.assertIsNone(self.lacks())

    def test_asked_once(self):
        self.lacks('multifd')
        with mock.patch.object(abilities, 'VM', side_effect=AssertionError):
            self.assertIn('multifd', self.lacks('multifd'))

    def test_require(self):
        abilities.require(self.fake, ['xbzrle'])
        with self.assertRaises(abilities.Skip) as caught:
            abilities.require([self.fake], ['xbzrle', 'multifd'])
        self.assertIn('fake: Capability', str(caught.exception))

    def test_turned_on(self):
        self.assertEqual(abilities.turned_on({'a': True, 'b': False}), ['a'])
        self.assertEqual(abilities.turned_on(None), [])


if __name__ == '__main__':
    unittest.main()
