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
from ferrytest.basetests import (FAIL, PASS, SKIP, Kept, Outcome,  # noqa: E402
                                 judge, outcomes)
from ferrytest.process import Ended                         # noqa: E402
from ferrytest.suite import attempt                         # noqa: E402

iotests = load('tests/iotests/run')
qtests = load('tests/qtests/run')


class Alone(unittest.TestCase):
    """A qtest that is run once more, or that ends the program."""

    def test_ends_the_program(self):
        """The next ones are run in another."""
        tests = qtests.Tests.__new__(qtests.Tests)
        tests.limit = 1
        runs = [['ok 1 /a', '# b hangs'], ['ok 1 /c']]

        def lines(_kind, _limit, *_args):
            yield from runs.pop(0)
            if runs:
                raise Ended('killed by SIGSEGV')
        tests.lines = lines
        self.assertEqual([(name, one.why) for name, one in
                          tests.run('ferry', ['/a', '/b', '/c'])],
                         [('/a', ''), ('/b', 'killed by SIGSEGV'), ('/c', '')])

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
        verdict = attempt('t', lambda: judge(
            Outcome(ours, 'ours'), lambda: Outcome(pristine, 'base')))
        return verdict.ok, verdict.skip

    def test_passes(self):
        asked = mock.Mock()
        judge(Outcome(PASS), asked)
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
        def program():
            yield from ('TAP version 13', 'ok 1 /x/y',
                        'ok 2 /x/z # SKIP no swtpm', '# ERROR: a', 'b',
                        'not ok 3 /x/a', 'c')
            raise Ended('killed by SIGABRT')
        found = list(outcomes(program()))
        self.assertEqual([(name, one.status, one.why) for name, one in found],
                         [('/x/y', PASS, ''), ('/x/z', SKIP, 'no swtpm'),
                          ('/x/a', FAIL, '# ERROR: a'),
                          ('', FAIL, 'killed by SIGABRT')])
        self.assertEqual(found[2][1].said, ['# ERROR: a', 'b'])
        self.assertEqual(found[3][1].said, ['c', 'killed by SIGABRT'])

    def test_left_out(self):
        for suite in ('iotests', 'qtests'):
            rows = basetests.left_out(ROOT / 'tests' / suite / 'left-out.txt')
            self.assertTrue(all(rows.values()))


if __name__ == '__main__':
    unittest.main()
