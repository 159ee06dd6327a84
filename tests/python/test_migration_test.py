# Tests of tests/migration-test/run.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of tests/migration-test/run: rows, reasons and what it prints."""

import unittest
from unittest import mock

from scripts import ROOT, load

runner = load('tests/migration-test/run')

FERRY, PRISTINE = 'ferry', 'pristine'


def rows(text: str):
    return runner.read_rows(text)


class Rows(unittest.TestCase):
    """left-out.txt."""

    def test_read(self):
        row, = rows('# comment\n\npostcopy/preempt  a,b=c  for a reason\n')
        self.assertEqual(row.needs, ('a', 'b=c'))
        self.assertEqual(row.why, 'for a reason')

    def test_without_reason(self):
        with self.assertRaises(runner.FerryError) as caught:
            rows('postcopy postcopy-ram\n')
        self.assertIn(':1:', str(caught.exception))

    def test_covers_whole_names(self):
        row, = rows('precopy/file x y\n')
        self.assertTrue(row.covers('/x86_64/migration/precopy/file'))
        self.assertTrue(row.covers('/x86_64/migration/precopy/file/offset'))
        self.assertFalse(row.covers('/x86_64/migration/precopy/files'))
        self.assertFalse(row.covers('/x86_64/migration/precopy'))

    def test_path_outside_of_migration(self):
        row, = rows('dirty_limit x y\n')
        self.assertTrue(row.covers('/x86_64/dirty_limit'))

    def test_the_file_itself(self):
        text = (ROOT / 'tests/migration-test/left-out.txt').read_text()
        names = [row.tests for row in rows(text)]
        self.assertEqual(len(names), len(set(names)))
        self.assertIn('multifd', names)


class Reasons(unittest.TestCase):
    """A row holds while a QEMU lacks what it needs."""

    def excuse(self, lacking: set) -> str | None:
        def require(kinds, needs):
            for kind in kinds:
                for need in needs:
                    if (kind, need) in lacking:
                        raise runner.abilities.Skip(f'{kind}: no {need}')
        with mock.patch.object(runner.abilities, 'require', require):
            return runner.excuse('/x86_64/migration/multifd/zlib', rows(
                'postcopy postcopy-ram b\nmultifd multifd,zstd channels\n'),
                (FERRY, PRISTINE))

    def test_nothing_lacks(self):
        self.assertIsNone(self.excuse(set()))
        self.assertIsNone(self.excuse({(FERRY, 'postcopy-ram')}))

    def test_one_lacks(self):
        self.assertEqual(self.excuse({(PRISTINE, 'zstd')}),
                         'channels (pristine: no zstd)')


class Output(unittest.TestCase):
    """Our reason stands where glib says 'by request'."""

    def verdict(self, status: str, why: str = ''):
        found = runner.verdict('/x/a', runner.Outcome(status, why, ['said']),
                               {'/x/a': 'needs more'})
        return found.ok, found.skip, found.notes

    def test_verdicts(self):
        self.assertEqual(self.verdict('pass'), (True, '', []))
        self.assertEqual(self.verdict('skip', 'by request (-s option)'),
                         (True, 'needs more', []))
        self.assertEqual(self.verdict('skip', 'no KVM'), (True, 'no KVM', []))
        self.assertEqual(self.verdict('fail', 'it broke'),
                         (False, '', ['it broke', 'said']))


if __name__ == '__main__':
    unittest.main()
