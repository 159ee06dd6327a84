# Tests of tests/run: what it makes of the suites' output.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of tests/run: what it makes of the suites' output."""

import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from scripts import load

runner = load('tests/run')


class Judging(unittest.TestCase):
    """A bad end is never silent."""

    def judge(self, text: str, status: int = 0, expired: bool = False):
        suite = runner.Suite('s', ['s'], 7)
        outcome = runner.judge(suite, status, expired, text)
        return outcome.passed, outcome.failed, outcome.skipped

    def test_counts(self):
        self.assertEqual(self.judge('1..3\nok 1 - a\nnot ok 2 - b\n'
                                    'ok 3 - c # SKIP no reason\n', 1),
                         (1, 1, 1))

    def test_glib_form(self):
        self.assertEqual(self.judge('# random seed: x\nok 1 /a/b\n'
                                    '    ok 1 inner\nok 2 /a/c # SKIP x\n'),
                         (1, 0, 1))

    def test_bad_status_without_a_failed_test(self):
        self.assertEqual(self.judge('ok 1 - a\n', -11), (1, 1, 0))

    def test_no_test_at_all(self):
        self.assertEqual(self.judge(''), (0, 1, 0))

    def test_skipped_whole(self):
        self.assertEqual(self.judge('1..0 # SKIP no root\n', 77), (0, 0, 1))

    def test_time_ran_out(self):
        self.assertEqual(self.judge('ok 1 - a\n', -1, True), (1, 1, 0))

    def test_prose_is_no_test(self):
        self.assertEqual(self.judge('okay so far\nok 1 - a\n'), (1, 0, 0))


class Sets(unittest.TestCase):
    """What "make check" runs, "make check-full" runs at its longest."""

    def test_full_has_all_of_check(self):
        longest = {f'{name}-full' if f'{name}-full' in runner.SUITES else name
                   for name in runner.SETS['check']}
        self.assertEqual(longest - set(runner.SETS['full']), set())

    def test_names(self):
        for members in runner.SETS.values():
            self.assertEqual(set(members) - set(runner.SUITES), set())


class Order(unittest.TestCase):
    """What measures time comes alone, and then the longest first."""

    USES = {'short': (1, 60), 'long': (9, 60), 'busy': (5, 130),
            'waits': (3, 10), 'more': (2, 300)}

    def setUp(self):
        self.lock = threading.Lock()
        self.begun: list[str] = []
        self.beside: list[set[str]] = []
        self.now: set[str] = set()
        self.together: dict[str, threading.Barrier] = {}    # who must meet

    def run_suite(self, suite):
        with self.lock:
            self.begun.append(suite.name)
            self.now.add(suite.name)
            self.beside.append(set(self.now))
        if suite.name in self.together:
            self.together[suite.name].wait(30)
        with self.lock:
            self.now.remove(suite.name)

    def order(self, jobs: int, *names: str) -> list[str]:
        suites = [runner.Suite(name, ['s'], 7) for name in names]
        with mock.patch.object(runner, 'BESIDE', {
                name: runner.Use(*use) for name, use in self.USES.items()}), \
                mock.patch.object(runner, 'CPUS', 2), \
                mock.patch.object(runner, 'run_suite', self.run_suite):
            self.assertEqual(len(list(runner.run_all(suites, jobs))),
                             len(suites))
        return self.begun

    def test_longest_first(self):
        begun = self.order(2, 'short', 'strict', 'long', 'bench')
        self.assertEqual(begun[:2], ['strict', 'bench'])
        self.assertEqual(set(begun[2:]), {'long', 'short'})

    def test_one_by_one(self):
        names = ['short', 'strict', 'long', 'bench']
        self.assertEqual(self.order(1, *names), names)
        self.assertTrue(all(len(some) == 1 for some in self.beside))

    def test_what_the_cpus_can_carry(self):
        first = {'long', 'busy', 'waits'}
        self.together = dict.fromkeys(first, threading.Barrier(3))
        begun = self.order(3, *self.USES)
        self.assertEqual(set(begun[:3]), first)
        for some in self.beside:
            self.assertLessEqual(len(some), 3)
            loads = [self.USES[name][1] for name in some]
            self.assertTrue(len(some) == 1 or sum(loads) <= 200, some)

    def test_names(self):
        """What runs beside others is a suite."""
        known = {suite.name for name, make in runner.SUITES.items()
                 if 'asan' not in name and name not in ('unit', 'tsan')
                 for suite in make()}
        programs = {f'ferry:{path.stem}' for path in
                    (runner.ROOT / 'tests/unit/migration').glob('test-*.c')}
        self.assertEqual(set(runner.BESIDE) - known - programs, set())


class Executing(unittest.TestCase):
    """Limits hold for the whole process group."""

    def test_limit(self):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, 'log')
            suite = runner.Suite('s', ['sh', '-c', 'sleep 60 & sleep 60'], 1)
            start = time.monotonic()
            self.assertEqual(runner.execute(suite, log)[:2], (-1, True))
            self.assertLess(time.monotonic() - start, 10)

    def test_cpu_time(self):
        """That of grandchildren counts, once they were waited for."""
        busy = 'import time\nwhile time.process_time() < 0.3: pass'
        with tempfile.TemporaryDirectory() as folder:
            suite = runner.Suite('s', [
                'sh', '-c', f'{sys.executable} -c "{busy}"; exit 3'], 60)
            status, expired, cpu = runner.execute(suite, Path(folder, 'log'))
        self.assertEqual((status, expired), (3, False))
        self.assertGreater(cpu, 0.25)
        self.assertLess(cpu, 5)


if __name__ == '__main__':
    unittest.main()
