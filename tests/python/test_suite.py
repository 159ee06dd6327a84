# Tests of ferrytest.suite, ferrytest.lanes and ferrytest.process.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how suites run their cases, and of what they print."""

import contextlib
import functools
import io
import os
import signal
import sys
import tempfile
import textwrap
import time
import unittest
from pathlib import Path
from unittest import mock

from scripts import ROOT, load, run

sys.path.insert(0, str(ROOT / 'python'))

from ferry import paths                                     # noqa: E402
from ferry.errors import FerryError                         # noqa: E402
from ferrytest import findings, lanes, process, suite       # noqa: E402
from ferrytest.suite import (Case, Failed, Lab, Skip, Suite,    # noqa: E402
                             attempt, check, matches)

tests_run = load('tests/run')


def fail(why: str = 'because', notes: tuple[str, ...] = ()):
    """A case that fails."""
    def act(_place):
        raise Failed(why, notes)
    return act


def skip(_place):
    """A case that cannot be had."""
    raise Skip('not here')


class Trying(unittest.TestCase):
    """What is made of how a case ends."""

    def test_passes(self):
        self.assertEqual(attempt('a', lambda: '3 pages').notes, ['3 pages'])
        self.assertEqual(attempt('a', lambda: None).notes, [])

    def test_fails(self):
        verdict = attempt('a', lambda: fail('x', ('y',))(None))
        self.assertEqual((verdict.ok, verdict.notes), (False, ['x', 'y']))

    def test_is_skipped(self):
        verdict = attempt('a', lambda: skip(None))
        self.assertEqual((verdict.ok, verdict.skip), (True, 'not here'))

    def test_is_broken(self):
        """A mistake in a test says where it is."""
        verdict = attempt('a', lambda: {}['key'])
        self.assertFalse(verdict.ok)
        self.assertEqual(verdict.notes[0], "KeyError: 'key'")
        self.assertIn(__file__, '\n'.join(verdict.notes))

    def test_check(self):
        self.assertTrue(attempt('a', lambda: check(1, 'one')).ok)
        self.assertEqual(attempt('a', lambda: check('', 'it is')).notes,
                         ['not so: it is'])

    def test_takes_too_long(self):
        before = signal.getsignal(signal.SIGALRM)
        verdict = attempt('a', lambda: time.sleep(60), 0.05)
        self.assertEqual(verdict.notes, ['not done after 0.05 s'])
        self.assertLess(verdict.seconds, 30)
        self.assertEqual(signal.getsignal(signal.SIGALRM), before)
        self.assertEqual(signal.getitimer(signal.ITIMER_REAL)[0], 0)


class Box(Lab):
    """A lab that notes what happens to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.did: list[str] = []

    def last_words(self) -> list[str]:
        return ['qemu said x']

    def save_logs(self) -> None:
        (self.folder / 'elsewhere.log').write_text('brought')

    def tidy(self) -> None:
        self.did.append('tidy')

    def clear(self) -> None:
        self.did.append('clear')


class Running(unittest.TestCase):
    """A suite as a whole."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = Path(folder.name)
        for patch in (mock.patch.object(paths, 'BUILD', self.build),
                      mock.patch.object(sys, 'argv', ['tests/s/run']),
                      mock.patch.dict(os.environ)):
            patch.start()
            self.addCleanup(patch.stop)

    def run_suite(self, cases, *argv: str, **more) -> tuple[int, list[str]]:
        """Exit status, and lines."""
        made = Suite('s', 'About it.\n\nMore.', cases if callable(cases)
                     else lambda options: cases, kinds=(), **more)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = made.main(list(argv))
        return status, out.getvalue().splitlines()

    def test_all_sorts(self):
        status, said = self.run_suite([
            Case('a', lambda folder: 'fine', what='in words'),
            Case('b', fail('x  y')), Case('c', skip)])
        self.assertEqual(status, 1)
        self.assertEqual([line for line in said if line[0] != '#'], [
            'TAP version 13', 'ok 1 - a: in words', 'not ok 2 - b',
            'ok 3 - c # SKIP not here', '1..3'])
        self.assertRegex(said[2], r'^# \d\.\d s: fine$')
        self.assertIn('# x y', said)
        self.assertRegex(said[-1], '^# 1 passed, 1 failed, 1 skipped ')
        outcome = tests_run.read_tap('\n'.join(said))
        self.assertEqual((outcome.passed, outcome.failed, outcome.skipped),
                         (1, 1, 1))
        self.assertRegex(outcome.problems[0], r'^b\n +# x y\n')
        self.assertNotIn('fine', outcome.problems[0])

    def test_good(self):
        seen = []
        status, said = self.run_suite([Case('a', seen.append)])
        self.assertEqual((status, said[1:3]), (0, ['ok 1 - a', '1..1']))
        self.assertFalse(seen[0].exists())

    def test_choice(self):
        cases = [Case('one/x', skip, quick=True), Case('two', skip),
                 Case('long', skip, full=True)]
        for argv, names in ((), 'one/x two'), (('--full',), 'one/x two long'), \
                (('--quick',), 'one/x'), (('--case', 'long'), 'long'), \
                (('t*',), 'two'), (('ne/', '--case', 'on'), 'one/x long'):
            self.assertEqual(self.run_suite(cases, '--list', *argv),
                             (0, names.split()))
        with self.assertRaisesRegex(FerryError, '--list'):
            self.run_suite(cases, 'none')

    def test_shared_lab(self):
        labs = []

        def lab(folder):
            labs.append(Box(folder))
            return labs[-1]

        def act(box):
            (box.folder / 'vm.log').write_text('last')
            raise FerryError('x')
        _, said = self.run_suite([Case('a', skip), Case('b/c', act)], lab=lab)
        self.assertEqual([box.did for box in labs],
                         [['tidy', 'clear', 'clear']])
        self.assertIn('# qemu said x', said)
        kept = self.build / 'check' / 'logs' / 's' / 'b-c'
        self.assertIn(f'# logs: {kept}', said)
        self.assertEqual((kept / 'vm.log').read_text(), 'last')
        self.assertEqual((kept / 'elsewhere.log').read_text(), 'brought')

    def test_word_of_a_sanitizer(self):
        """It fails the case in which it was said, and no other one.

        A VM may go on, or another one may have the same log.
        """
        said = 'vm.c:3:1: runtime error: load of misaligned address'

        def writes(mode, text):
            def act(box):
                with (box.folder / 'vm.log').open(mode) as log:
                    log.write(text)
            return act

        def starts(number, more=''):
            return writes('w', f'qemu -name runtime error: # {number}\n'
                          f'{said}\n{more}')
        cases = [Case('starts', starts(1)), Case('none', id),
                 Case('goes-on', writes('a', f'{said}\n')),
                 Case('anew', starts(2)), Case('silent', writes('a', 'yes\n')),
                 Case('longer', starts(3, f'{said}\n' * 3)),
                 Case('cut', writes('a', said[:20])),
                 Case('rest', writes('a', said[20:])),
                 Case('clean', writes('w', 'qemu\n'))]
        good = ('none', 'silent', 'cut', 'clean')
        status, lines = self.run_suite(cases, lab=Box)
        points = [line for line in lines if line[0] != '#']
        self.assertEqual((status, points[1:-1]), (1, [
            f'{"" if case.name in good else "not "}ok {number} - {case.name}'
            for number, case in enumerate(cases, 1)]))
        self.assertEqual(lines.count(f'# vm.log: {said}'), 1 + 1 + 1 + 4 + 1,
                         lines)
        self.assertEqual(self.run_suite(cases, lab=Box, spotless=False)[0], 0)

    def test_sanitizers_keep_little(self):
        with mock.patch.dict(os.environ, {'ASAN_OPTIONS': 'a=1'}):
            with findings.keeps_little():
                self.assertRegex(os.environ['ASAN_OPTIONS'], '^a=1:quarantine')
            self.assertEqual(os.environ['ASAN_OPTIONS'], 'a=1')

    def test_labs_apart(self):
        labs = []

        def lab(folder):
            labs.append(Box(folder))
            return labs[-1]
        self.run_suite([Case('a', id), Case('b', id)], lab=lab, shared=False)
        self.assertEqual([box.did for box in labs], [['tidy', 'clear']] * 2)

    def test_tries(self):
        left = ['once', 'twice']

        def act(_folder):
            if left:
                raise FerryError(left.pop(0))
        status, said = self.run_suite([Case('a', act)], tries=3)
        self.assertEqual((status, said[1]), (0, 'ok 1 - a'))
        self.assertIn('try 1: once', said[2])
        self.assertIn('# try 2: twice', said)

    def test_generator(self):
        """A case may come of the one before it."""
        found = []

        def cases(_options):
            yield Case('make', lambda folder: found.append('x'))
            for name in found:
                yield Case(name, lambda folder: None)
            print('# the last word')
        self.assertEqual(self.run_suite(cases)[1][1:5],
                         ['ok 1 - make', 'ok 2 - x', '# the last word', '1..2'])

    def test_cannot_run(self):
        def check(_options):
            raise Skip('no root')
        self.assertEqual(self.run_suite([], check=check),
                         (77, ['1..0 # SKIP no root']))
        with self.assertRaisesRegex(FerryError, 'no root'):
            self.run_suite([], '--no-skip', check=check)

    def test_patience(self):
        _, said = self.run_suite([Case('a', lambda folder: time.sleep(60))],
                                 '--patience', '0.01', limit=10)
        self.assertIn('# not done after 0.1 s', said)

    def test_ours(self):
        """Another QEMU in the place of ours, in children as well."""
        binary = self.build / 'other'
        binary.write_text('')
        binary.chmod(0o700)
        seen = []
        self.run_suite([Case('a', lambda folder: seen.append(
            (paths.qemu('ferry'), os.environ[paths.IN_PLACE])))],
            '--ours', str(binary))
        self.assertEqual(seen, [(binary, str(binary))])
        with self.assertRaisesRegex(FerryError, 'no QEMU at'):
            self.run_suite([], '--ours', 'nothing')

    def test_repetition(self):
        seen = []

        def cases(options):
            seen.append((options.count, options.seed))
            return [Case('a', id)]
        _, said = self.run_suite(cases, '--seed', '5', count=3, seed=1)
        self.assertEqual(seen, [(3, 5)])
        self.assertEqual(said[1], '# seed 5')
        self.refused(cases, '--count', '0', count=3)

    def refused(self, cases, *argv: str, **more) -> None:
        """The command line is wrong."""
        with self.assertRaises(SystemExit), \
                contextlib.redirect_stderr(io.StringIO()):
            self.run_suite(cases, *argv, **more)

    def test_cases_that_need_others(self):
        cases = [Case('a', id)]
        self.assertEqual(self.run_suite(cases, '--jobs', '1', jobs=0)[0], 0)
        self.refused(cases, '--jobs', '2', jobs=0)

    def test_own_flags(self):
        seen = []
        self.run_suite(lambda options: seen.append(options.busy)
                       or [Case('a', id)], '--busy', flags=lambda parser:
                       parser.add_argument('--busy', action='store_true'))
        self.assertEqual(seen, [True])

    def test_named(self):
        def good(_folder):
            """It is
            good.

            More.
            """
        cases = suite.named({'a': good, 'b': functools.partial(good)})(None)
        self.assertEqual([(case.name, case.what) for case in cases],
                         [('a', 'It is good'), ('b', '')])

    def test_matches(self):
        self.assertTrue(matches('a/b', ()))
        self.assertTrue(matches('a/b', ['x', 'a/*']))
        self.assertTrue(matches('a/b', ['/b']))
        self.assertFalse(matches('a/b', ['B']))


# A suite that says where it ran, and in what order
PROGRAM = textwrap.dedent('''
    import os, sys, time
    sys.path.insert(0, {python!r})
    from ferry.errors import FerryError
    from ferrytest.suite import Case, Lab, Suite

    class Box(Lab):
        def __init__(self, folder):
            self.here = ''
        def clear(self):
            pass
        def where(self):
            return self.here

    def act(name):
        def run(box):
            print('noise')
            if name == 'end':
                os._exit(3)
            if name == 'bad':
                raise FerryError('because')
            box.here = 'x'
            return f'in {{os.getpid()}}'
        return run

    names = [f'c{{number}}' for number in range(9)] + ['bad', 'end']
    Suite('s', 'S', lambda options: [
        Case('alone', act('alone'), alone=True),
        *(Case(name, act(name), full=name == 'end') for name in names)],
        lab=Box, kinds=()).start()
''').format(python=str(ROOT / 'python'))


class Beside(unittest.TestCase):
    """Cases side by side."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.program = Path(folder.name, 'run')
        self.program.write_text(PROGRAM)

    def test_all(self):
        done = run([sys.executable, self.program, '--jobs', '2'])
        self.assertEqual(done.returncode, 1, done.stderr)
        said = done.stdout.splitlines()
        points = [line for line in said if line.startswith(('ok', 'not'))]
        self.assertEqual(len(points), 11)
        self.assertEqual(points[-1], 'ok 11 - alone')
        self.assertIn('# because', said)
        self.assertEqual(len({line.split()[-1] for line in said
                              if ': in ' in line}), 2)
        self.assertNotIn('noise', said)

    def test_lane_ends(self):
        done = run([sys.executable, self.program, '--jobs', '2', '--full'])
        self.assertEqual(done.returncode, 1)
        self.assertIn('a lane ended in end', done.stderr)

    def test_choose(self):
        """A case that goes on with the guest there is saves a boot."""
        pending = [Case('a', id, begins='ferry'), Case('b', id, begins='base'),
                   Case('c', id)]
        self.assertEqual(lanes.choose(pending, 'base').name, 'b')
        self.assertEqual(lanes.choose(pending, 'base').name, 'a')
        self.assertEqual(lanes.choose(pending, 'x').name, 'c')
        self.assertEqual(pending, [])


class Programs(unittest.TestCase):
    """What is started is ended, with what it started itself."""

    def test_finish(self):
        self.assertEqual(process.finish(['sh', '-c', 'echo a; exit 3'], 20),
                         (3, 'a\n'))

    def test_limit(self):
        began = time.monotonic()
        status, said = process.finish(
            ['sh', '-c', 'sleep 60 & echo $!; sleep 60'], 0.3)
        self.assertEqual(status, -signal.SIGTERM)
        child, last = said.split('\n\n')
        self.assertEqual(last, 'not done after 0.3 s')
        self.assertTrue(gone(int(child)))
        self.assertLess(time.monotonic() - began, 30)

    def test_lines(self):
        self.assertEqual(list(process.lines(['printf', 'a\\nb'])), ['a', 'b'])
        for text, how in (('kill -9 $$', 'killed by SIGKILL'),
                          ('exit 4', 'exit status 4')):
            with self.assertRaisesRegex(process.Ended, how):
                list(process.lines(['sh', '-c', text]))
        with self.assertRaisesRegex(process.Ended, 'not done after 0.3 s'):
            list(process.lines(['sleep', '60'], 0.3))


def gone(pid: int) -> bool:
    """Whether a process has ended, or does so within a moment."""
    for _ in range(200):
        try:
            state = Path(f'/proc/{pid}/stat').read_text()
        except OSError:
            return True
        if state.rpartition(')')[2].split()[0] == 'Z':
            return True
        time.sleep(0.01)
    return False


if __name__ == '__main__':
    unittest.main()
