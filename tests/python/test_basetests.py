# Tests of ferrytest.basetests, tests/iotests/run and tests/qtests/run.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how tests of the base are judged, and how their output is read."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from scripts import ROOT, load

sys.path.insert(0, str(ROOT / 'python'))

from ferry import paths                                     # noqa: E402
from ferrytest import basetests                             # noqa: E402
from ferrytest.basetests import FAIL, PASS, SKIP, Kept, Outcome, judge  # noqa: E402

iotests = load('tests/iotests/run')
qtests = load('tests/qtests/run')


class Alone(unittest.TestCase):
    """A qtest that is run once more, on the pristine QEMU."""

    def test_after_those_that_it_needs(self):
        tests = qtests.Tests.__new__(qtests.Tests)
        tests.names = lambda full: ['/a/out', '/b/out', '/b/in', '/b/abort']
        asked = []

        def run(kind, names):
            asked.append((kind, names))
            return ((name, Outcome(PASS, name)) for name in names)
        tests.run = run
        self.assertEqual(tests.alone('pristine', '/b/in').why, '/b/in')
        self.assertEqual(tests.alone('pristine', '/c').why, '/c')
        self.assertEqual(asked, [('pristine', ['/b/out', '/b/in']),
                                 ('pristine', ['/c'])])


class Judging(unittest.TestCase):
    """Ours against the pristine QEMU."""

    def judge(self, ours: str, pristine: str):
        verdict = judge(Outcome(ours, 'ours'),
                        lambda: Outcome(pristine, 'base'))
        return verdict.ok, verdict.skip

    def test_passes(self):
        asked = mock.Mock()
        self.assertTrue(judge(Outcome(PASS), asked).ok)
        asked.assert_not_called()

    def test_only_pristine_passes(self):
        self.assertEqual(self.judge(FAIL, PASS), (False, ''))
        self.assertEqual(self.judge(SKIP, PASS), (False, ''))

    def test_neither_passes(self):
        ok, skip = self.judge(FAIL, FAIL)
        self.assertTrue(ok and 'either' in skip and 'base' in skip)
        self.assertEqual(self.judge(SKIP, SKIP), (True, 'ours'))
        self.assertTrue(self.judge(FAIL, SKIP)[0])


class Keeping(unittest.TestCase):
    """What the pristine QEMU did is asked for once a build."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.binary = Path(folder.name, 'qemu')
        self.binary.write_text('one')
        for target, name, value in (
                (paths, 'BUILD', Path(folder.name)),
                (basetests.paths, 'qemu', lambda kind: self.binary)):
            patch = mock.patch.object(target, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def test_once(self):
        run = mock.Mock(return_value=Outcome(FAIL, 'because'))
        self.assertEqual(Kept('s', run).outcome('t').why, 'because')
        self.assertEqual(Kept('s', run).outcome('t').status, FAIL)
        run.assert_called_once_with('pristine', 't')

    def test_built_again(self):
        run = mock.Mock(return_value=Outcome(PASS))
        Kept('s', run).outcome('t')
        self.binary.write_text('another')
        Kept('s', run).outcome('t')
        self.assertEqual(run.call_count, 2)


class Reading(unittest.TestCase):
    """What check prints, and what a line of a program's TAP means."""

    def test_check(self):
        line = '068   {}       [11:22:33] [11:22:35]   1.9s   {}'
        said = 'QEMU -- "x"\n\n' + line
        self.assertEqual(iotests.read(said.format('pass', '')).status, PASS)
        self.assertEqual(iotests.read(
            said.format('fail', '(last: 1.0s)  output mismatch')).why,
            'output mismatch')
        skipped = iotests.read('068   not run    [11:22:33] [11:22:35]   '
                               '...                  no qed here')
        self.assertEqual((skipped.status, skipped.why), (SKIP, 'no qed here'))
        self.assertEqual(iotests.read('it broke').status, FAIL)

    def test_text_that_is_another_on_purpose(self):
        said = ("--- a\n+++ b\n-Error: Device 'disk0' is writable but does "
                'not support snapshots\n+{}\n'
                '068   fail       [1:2:3] [1:2:4]   1s   output mismatch')
        good = ('Error: Cannot load a snapshot: the guest has not been '
                'migrated here yet')
        self.assertEqual(iotests.read(said.format(good)).status, PASS)
        self.assertEqual(iotests.read(said.format('Error: x')).status, FAIL)

    def test_points(self):
        def outcome(line: str, said: list[str]):
            return qtests.outcome(qtests.POINT.match(line), said)
        self.assertEqual(outcome('ok 1 /x/y', []).status, PASS)
        self.assertEqual(outcome('ok 1 /x/y # SKIP no swtpm', []).why,
                         'no swtpm')
        self.assertEqual(outcome('not ok 1 /x/y', ['# ERROR: a', 'b']).why,
                         '# ERROR: a')

    def test_left_out(self):
        for suite in ('iotests', 'qtests'):
            rows = basetests.left_out(ROOT / 'tests' / suite / 'left-out.txt')
            self.assertTrue(all(rows.values()))


if __name__ == '__main__':
    unittest.main()
