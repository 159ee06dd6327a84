# Tests of the benchmark: statistics, cases, table, files, picture, helpers.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the benchmark: statistics, cases, table, files, picture, helpers.

No QEMU is needed.  The last class compiles the two C helpers and tries them on
processes of its own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from unittest import mock

from scripts import ROOT, load, run as run_program

from ferry.errors import FerryError
from ferrytest.bench import cases, chart, linux, machine, native, report
from ferrytest.bench import stats

bench = load('bench/bench')


def a_run(round_: int, total: float, cpu: tuple = (1.0, 0.5), **more) -> dict:
    values = {'total_ms': total, 'downtime_ms': 5, 'bytes': 3e9,
              'engine_src': cpu[0], 'engine_dst': cpu[1],
              'cpu_src': cpu[0], 'cpu_dst': cpu[1],
              'rss_src': 100.0, 'rss_dst': 50.0}
    return {'round': round_, 'error': None, 'values': values,
            'verified': True, 'query_migrate': {}, **more}


def failed(round_: int, why: str) -> dict:
    return {'round': round_, 'error': why, 'values': {}, 'verified': None}


def a_case(name: str = 'random-3g', **pairs) -> dict:
    return {'name': name, 'title': 'a <guest> & more', 'mem_mib': 3072,
            'reference': 'pristine', 'skipped': None, 'bare': [],
            'pairs': {pair.replace('__', ':'): {
                'src': pair.split('__')[0], 'dst': pair.split('__')[-1],
                'runs': runs} for pair, runs in pairs.items()}}


def a_result(*found) -> dict:
    return {'format': report.FORMAT, 'version': report.VERSION,
            'started': '2030-01-02T03:04:05Z', 'revision': 'abc', 'busy': None,
            'machine': {'cpu': 'A & B <9>', 'cpus': 2, 'memory_mib': 24000,
                        'kernel': '6.1', 'system': 'Debian', 'virtual': True},
            'settings': {'runs': 3, 'perf': False},
            'engines': {'pristine': {'version': 'QEMU 10'},
                        'ferry': {'version': 'QEMU 10 ferry'}},
            'cases': list(found)}


PRISTINE_RUNS = [a_run(0, 1000.0), a_run(1, 1100.0), a_run(2, 4000.0)]
FERRY_RUNS = [a_run(0, 500.0, (0.5, 0.25)), a_run(1, 275.0, (0.5, 0.25)),
              a_run(2, 550.0, (0.5, 0.25))]


class Statistics(unittest.TestCase):

    def test_summary_is_not_moved_by_an_outlier(self):
        found = stats.summary([10.0, 11.0, 12.0, 13.0, 500.0])
        self.assertEqual((found.n, found.median, found.low, found.high),
                         (5, 12.0, 10.0, 500.0))
        self.assertEqual(found.spread, 1.0)
        self.assertAlmostEqual(found.spread_percent, 100 / 12)

    def test_even_number_of_values(self):
        self.assertEqual(stats.summary([1.0, 2.0, 3.0, 10.0]).median, 2.5)

    def test_few_values_have_no_spread(self):
        self.assertIsNone(stats.summary([1.0, 2.0]).spread)
        self.assertIsNone(stats.summary([1.0]).spread_percent)

    def test_missing_values_do_not_count(self):
        self.assertEqual(stats.summary([None, 4.0, None]).n, 1)
        self.assertIsNone(stats.summary([None]))
        self.assertIsNone(stats.summary([]))

    def test_ratio_is_of_medians_and_reaches_over_pairs(self):
        found = stats.ratio({0: 5.0, 1: 6.0, 2: 40.0},
                            {0: 10.0, 1: 12.0, 2: 20.0})
        self.assertEqual(found.median, 0.5)
        self.assertEqual((found.low, found.high, found.n), (0.5, 2.0, 3))

    def test_ratio_uses_only_rounds_that_both_have(self):
        found = stats.ratio({0: 5.0, 2: 1.0}, {0: 10.0, 1: 30.0})
        self.assertEqual((found.low, found.high, found.n), (0.5, 0.5, 1))

    def test_nothing_to_divide_by(self):
        self.assertIsNone(stats.ratio({0: 1.0}, {0: 0.0}))
        self.assertIsNone(stats.ratio({0: 1.0}, {}))
        self.assertIsNone(stats.ratio({}, {0: 1.0}))
        self.assertEqual(stats.ratio({0: 1.0}, {1: 2.0}).n, 0)


class Cases(unittest.TestCase):

    def names(self, *patterns, quick=False):
        return [case.name for case in cases.select(patterns, quick)]

    def test_names_are_unique_and_plain(self):
        names = [case.name for case in cases.CASES]
        self.assertEqual(len(names), len(set(names)))
        for name in names:
            self.assertRegex(name, '^[a-z0-9-]+$')

    def test_default_set(self):
        names = self.names()
        for name in ('idle-4g', 'idle-16g', 'idle-64g', 'idle-256g', 'zero-3g',
                     'random-3g', 'linux-slow', 'linux-medium', 'linux-fast',
                     'mixed-idle-16g', 'mixed-random-3g'):
            self.assertIn(name, names)
        self.assertNotIn('idle-784g', names)

    def test_patterns(self):
        self.assertEqual(self.names('idle-784g'), ['idle-784g'])
        self.assertEqual(self.names('random-3g', 'idle-4g'),
                         ['idle-4g', 'random-3g'])
        self.assertEqual(len(self.names('idle-*')), 5)

    def test_unknown_pattern(self):
        with self.assertRaisesRegex(FerryError, "'idel-4g': see --list"):
            cases.select(['idel-4g'])

    def test_quick_is_part_of_the_default(self):
        self.assertTrue(set(self.names(quick=True)) < set(self.names()))

    def test_targets_can_be_measured(self):
        chosen = cases.select([], targets=True)
        self.assertGreater(len(chosen), 5)
        for case in chosen:
            for target in case.targets:
                self.assertIn(target.pair, case.pairs)
                self.assertIn(target.what, report.MEASURES)
                self.assertTrue(case.bare or target.what != 'bare')
                self.assertTrue(case.hold_pages
                                or 'encode' not in target.what)

    def test_pair_names(self):
        self.assertEqual(cases.pair('ferry').name, 'ferry')
        self.assertEqual(cases.pair('ferry:pristine'), cases.OUT)
        hints = cases.pair('ferry+hints')
        self.assertEqual((hints.src, hints.dst, hints.hints, hints.name),
                         ('ferry', 'ferry', True, 'ferry+hints'))
        for wrong in ('', ':', 'ferry:', ':ferry', '+hints'):
            with self.subTest(wrong), self.assertRaises(FerryError):
                cases.pair(wrong)

    def test_need_counts_both_ends(self):
        by_name = {case.name: case for case in cases.CASES}
        self.assertGreater(by_name['random-3g'].need_mib(), 2 * 3072)
        # Reading what was never touched costs page tables on both sides.
        self.assertGreater(by_name['idle-784g'].need_mib(), 2 * 784 * 2)
        self.assertLess(by_name['idle-784g'].need_mib(), 8192)


class Program(unittest.TestCase):

    def test_turns_alternate(self):
        pairs = list(cases.CASES[0].pairs)
        self.assertEqual(bench.in_turn(pairs, 0), pairs)
        self.assertEqual(bench.in_turn(pairs, 1), pairs[::-1])
        four = ['a', 'b', 'c', 'd']
        first = {bench.in_turn(four, n)[0] for n in range(4)}
        self.assertEqual(first, set(four))

    def options(self, *argv):
        return bench.with_pairs(cases.select(['idle-4g']),
                                bench.options(list(argv)))[0].pairs

    def test_engines(self):
        self.assertEqual([p.name for p in self.options()],
                         ['pristine', 'ferry'])
        self.assertEqual([p.name for p in self.options(
            '--engines', 'ferry,ferry:/x/qemu')], ['ferry', 'ferry:/x/qemu'])
        self.assertEqual([p.name for p in self.options(
            '--src', 'ferry', '--dst', 'pristine')],
            ['pristine', 'ferry:pristine'])

    def test_wrong_engines(self):
        for argv in (['--src', 'ferry'], ['--engines', 'ferry,ferry'],
                     ['--src', 'pristine', '--dst', 'pristine'],
                     ['--engines', 'ferry', '--src', 'a', '--dst', 'b'],
                     ['--engines', ''], ['--engines', 'ferry,']):
            with self.subTest(argv), self.assertRaises(FerryError):
                self.options(*argv)

    def test_no_room(self):
        case = cases.select(['random-3g'])[0]
        out = bench.new_case(case)
        with mock.patch.object(machine, 'available_mib', lambda: 512):
            bench.run_case(case, out, 3, False, bench.Progress())
        self.assertRegex(out['skipped'],
                         r'needs [\d,]+ MiB of memory, 512 MiB are available')
        self.assertEqual(out['pairs']['ferry']['runs'], [])
        self.assertIn('skipped: needs', report.case_rows(out))

    def test_what_an_engine_lacks(self):
        case = cases.select(['random-3g-multifd2'])[0]
        asked = []

        def lacks(kind, needs):
            asked.append((kind, needs))
            return 'not available yet' if kind == 'ferry' else None
        with mock.patch.object(machine, 'available_mib', lambda: 1 << 20), \
             mock.patch.object(bench.abilities, 'lacks', lacks):
            self.assertEqual(bench.why_skip(case),
                             'ferry: not available yet')
            self.assertEqual(asked, [('ferry', ['multifd'])])
            self.assertIsNone(bench.why_skip(cases.select(['idle-4g'])[0]))

    def test_failures_are_results_and_end_that_pair(self):
        case = cases.select(['idle-4g'])[0]
        out = bench.new_case(case)

        def one(_case, pair, seed, perf):
            if pair.name == 'ferry':
                raise FerryError('it\nbroke')
            self.assertFalse(perf)
            return a_run(0, 100.0 * seed)

        with mock.patch.object(bench.run, 'one', one), \
             mock.patch.object(machine, 'available_mib', lambda: 1 << 20):
            bench.run_case(case, out, 5, False, bench.Progress())
        self.assertEqual(len(out['pairs']['pristine']['runs']), 5)
        self.assertEqual([r['error'] for r in out['pairs']['ferry']['runs']],
                         ['it broke'] * bench.GIVE_UP_AFTER)

    def test_not_built(self):
        with self.assertRaisesRegex(FerryError, 'no QEMU at /no/such'):
            bench.engines_of(bench.with_pairs(
                cases.select(['idle-4g']),
                bench.options(['--engines', '/no/such'])))

    def test_command_line_errors_are_one_line(self):
        for argv, text in ((['--case', 'nope'], "no case matches 'nope'"),
                           (['--show', '/no/such.json'], 'cannot read'),
                           (['--src', 'ferry'], '--src and --dst go together')):
            with self.subTest(argv):
                done = run_program([sys.executable, ROOT / 'bench' / 'bench',
                                    *argv])
                self.assertEqual(done.returncode, 1)
                self.assertIn(text, done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_runs_must_be_positive(self):
        for wrong in ('0', '-1', 'x'):
            done = run_program([sys.executable, ROOT / 'bench' / 'bench',
                                '--runs', wrong])
            self.assertEqual(done.returncode, 2)
            self.assertIn('invalid positive number', done.stderr)


class Tables(unittest.TestCase):

    def test_numbers(self):
        for value, text in ((0, '0'), (None, '-'), (0.0024, '0.00240'),
                            (0.5, '0.500'), (1.0, '1.00'), (12.34, '12.3'),
                            (943.2, '943'), (42700.0, '42,700'),
                            (-12.34, '-12.3')):
            with self.subTest(value):
                self.assertEqual(report.number(value), text)

    def test_rows(self):
        case = a_case(pristine=PRISTINE_RUNS, ferry=FERRY_RUNS)
        title, reference, ours = report.case_rows(case).splitlines()
        self.assertIn('random-3g: a <guest> & more', title)
        self.assertEqual(reference.split(), [
            'pristine', '3', '1,100', '9', '5.00', '-', '1.00+0.500', '3,000',
            '150', '1.00', '-', '1.00', 'ok'])
        self.assertEqual(ours.split(), [
            'ferry', '3', '500', '10', '5.00', '-', '0.500+0.250', '3,000',
            '150', '0.455', '0.138-0.500', '0.500', 'ok'])

    def test_columns_line_up(self):
        case = a_case(pristine=PRISTINE_RUNS, ferry=FERRY_RUNS)
        lines = report.case_rows(case).splitlines()[1:]
        self.assertEqual(len({len(line) for line in lines}), 1)
        self.assertEqual(len(lines[0]),
                         len(report.table_head().splitlines()[0]))

    def test_a_path_does_not_spoil_the_columns(self):
        path = '/somewhere/far/away/qemu-system-x86_64'
        case = a_case(pristine=PRISTINE_RUNS, **{path: FERRY_RUNS})
        lines = report.case_rows(case).splitlines()[1:]
        self.assertEqual(len({len(line) for line in lines}), 1)
        self.assertTrue(lines[1].startswith('  ..'))
        self.assertIn('system-x86_64 ', lines[1])

    def test_wrong_memory_is_shouted(self):
        wrong = [a_run(0, 1.0), a_run(1, 1.0, verified=False, memory={
            'differs_at': 0x1234})]
        case = a_case(pristine=PRISTINE_RUNS, ferry=wrong)
        self.assertTrue(report.case_rows(case).endswith('DIFFERS'))
        self.assertEqual(report.problems(a_result(case)), [
            'random-3g ferry run 2: the memory of the guest differs '
            'at 0x1234'])

    def test_unverified_is_not_ok(self):
        case = a_case(pristine=[a_run(0, 1.0, verified=None)])
        self.assertTrue(report.case_rows(case).endswith(' -'))

    def test_all_failed(self):
        case = a_case(pristine=PRISTINE_RUNS, ferry=[failed(0, 'no way')])
        self.assertIn('failed', report.case_rows(case).splitlines()[2])
        self.assertEqual(report.problems(a_result(case)),
                         ['random-3g ferry run 1: no way'])

    def test_reference_failed(self):
        case = a_case(pristine=[failed(0, 'x')], ferry=FERRY_RUNS)
        cells = report.case_rows(case).splitlines()[2].split()
        self.assertEqual(cells[1:3], ['3', '500'])
        self.assertEqual(cells[-4:], ['-', '-', '-', 'ok'])

    def test_bare_pair(self):
        case = a_case(pristine=PRISTINE_RUNS, ferry=FERRY_RUNS)
        case['bare'] = [{'round': n, 'values': {
            'seconds': 0.8, 'cpu_send': 0.6, 'cpu_recv': 0.7, 'bytes': 3e9,
            'gb_per_s': 4.0}} for n in range(3)]
        *_others, bare, rates, cpu = report.case_rows(case).splitlines()
        self.assertEqual(bare.split()[:5],
                         ['bare', 'socket', 'pair', '3', '800'])
        # 3 GiB in 1.1 s and in 0.5 s, against 4 GB/s
        self.assertEqual(rates, '  GB/s: bare pair 4.00, pristine 2.93 (0.73 '
                                'of it), ferry 6.44 (1.6 of it)')
        # 3 GiB are 3.22 GB
        self.assertEqual(cpu, '  CPU s/GB, source+destination: bare pair '
                              '0.186+0.217, pristine 0.310+0.155, ferry '
                              '0.155+0.0776')

    def targets(self, *rows: tuple) -> list[str]:
        case = a_case(pristine=PRISTINE_RUNS, ferry=FERRY_RUNS)
        case['targets'] = [{'pair': pair, 'what': what, 'limit': limit}
                           for pair, what, limit in rows]
        said = report.targets(a_result(case)).splitlines()
        table = report.case_rows(case)
        for line in said[1:]:
            self.assertIn('target: ' + line.removeprefix(
                '  random-3g').strip(), table)
        return said

    def test_targets(self):
        self.assertEqual(self.targets(('ferry', 'time', 0.5),
                                      ('ferry', 'time', 0.4),
                                      ('ferry', 'cpu', 0.5)), [
            'targets: 2 of 3 met',
            '  random-3g       ferry time x 0.455, at most 0.500: met',
            '  random-3g       ferry time x 0.455, at most 0.400: MISSED',
            '  random-3g       ferry CPU x 0.500, at most 0.500: met'])

    def test_targets_that_were_not_measured(self):
        self.assertEqual(self.targets(('other', 'time', 1), ('ferry', 'bare',
                                                             0.9)), [])
        case = a_case(pristine=[], ferry=[]) | {
            'skipped': 'no', 'targets': [{'pair': 'ferry', 'what': 'time',
                                          'limit': 1}]}
        self.assertEqual(report.targets(a_result(case)), '')

    def test_more_is_better_for_a_share(self):
        case = a_case(pristine=PRISTINE_RUNS, ferry=FERRY_RUNS)
        case['bare'] = [{'round': 0, 'values': {
            'seconds': 0.8, 'cpu_send': 0.6, 'cpu_recv': 0.7, 'bytes': 3e9,
            'gb_per_s': 4.0}}]
        for pair, reached in (('ferry', True), ('pristine', False)):
            self.assertIs(report.met(case, {
                'pair': pair, 'what': 'bare', 'limit': 0.9}), reached)

    def test_encoding(self):
        def runs(time, size):
            values = {'total_ms': 9.0, 'xbzrle_us_per_page': time,
                      'xbzrle_sender_us_per_page': time / 4,
                      'xbzrle_bytes_per_page': size}
            return [{'round': 0, 'error': None, 'verified': True,
                     'values': values}]

        case = a_case('linux-xbzrle', pristine=runs(2.0, 16.0),
                      ferry=runs(0.5, 15.0))
        self.assertEqual(report.case_rows(case).splitlines()[-1],
                         '  xbzrle: pristine 2.00 us (x 1.00), 0.500 us of it '
                         'in the sender, 16.0 bytes a page, ferry 0.500 us '
                         '(x 0.250), 0.125 us of it in the sender, 15.0 bytes '
                         'a page')


class FakeSource:
    """A VM that is asked for CPU time and told parameters."""

    def __init__(self):
        self.pid, self.qmp, self.seconds = os.getpid(), self, 0.0
        self.told = []

    def cmd(self, name, args=None):
        if args is not None:
            self.told.append(args)
        return []

    def cpu_seconds(self):
        return self.seconds


class Holding(unittest.TestCase):
    """A migration is slowed down in time, and let go when enough was done."""

    def setUp(self):
        self.source = FakeSource()
        case = cases.select(['linux-xbzrle'])[0]
        self.hold = linux.Hold(case, self.source)
        self.enough = case.hold_pages
        pause = mock.patch.object(linux, 'PAUSE', 0)
        pause.start()
        self.addCleanup(pause.stop)

    def look(self, passes, remaining, pages=0, seconds=0.0):
        self.source.seconds = seconds
        self.hold.look({'migrate': {
            'ram': {'dirty-sync-count': passes, 'remaining': remaining},
            'xbzrle-cache': {'pages': pages, 'bytes': pages * 17}}})
        told, self.source.told = self.source.told, []
        return told

    def test_course(self):
        self.hold.look({'migrate': {}})
        self.assertEqual(self.look(1, 1 << 30), [])
        self.assertEqual(self.look(2, 60 << 20),
                         [{'max-bandwidth': linux.SEED_SPEED}])
        self.assertEqual(self.look(2, 30 << 20), [])
        self.assertEqual(self.look(2, linux.SEEDED - 1),
                         [{'max-bandwidth': linux.ENCODE_SPEED}])
        self.assertEqual(self.look(3, 50 << 20, 1000, 2.0), [])
        self.assertEqual(self.look(9, 50 << 20, self.enough + 1000, 2.6),
                         [linux.RELEASE])
        self.assertEqual(self.look(9, 50 << 20, self.enough + 2000, 9.0), [])
        values = self.hold.values()
        self.assertEqual(values['xbzrle_pages'], self.enough)
        self.assertAlmostEqual(values['xbzrle_us_per_page'],
                               0.6e6 / self.enough)
        self.assertEqual(values['xbzrle_bytes_per_page'], 17)

    def test_threads_of_the_migration(self):
        old, new = sorted(self.hold._before)[0], -1
        seconds = {old: 5.0, new: 1.0}
        with mock.patch.object(machine, 'threads',
                               return_value=[old, new]), \
             mock.patch.object(machine, 'thread_seconds',
                               side_effect=lambda _pid, tids:
                               sum(seconds[tid] for tid in tids)):
            self.look(3, 50 << 20, 1000)
            seconds.update({old: 9.0, new: 1.3})
            self.look(9, 50 << 20, self.enough + 1000)
        self.assertAlmostEqual(
            self.hold.values()['xbzrle_sender_us_per_page'],
            0.3e6 / self.enough)

    def test_a_missed_second_pass(self):
        self.assertEqual(self.look(3, 60 << 20),
                         [{'max-bandwidth': linux.ENCODE_SPEED}])

    def test_ended_early(self):
        self.look(3, 60 << 20, 1000)
        with self.assertRaisesRegex(FerryError, 'before enough pages'):
            self.hold.values()


class Files(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.result = a_result(a_case(pristine=PRISTINE_RUNS,
                                      ferry=FERRY_RUNS))

    def test_round_trip(self):
        path = self.folder / 'new' / 'r.json'
        report.save(self.result, path)
        self.assertEqual(report.load(path), self.result)
        self.assertEqual(os.listdir(path.parent), ['r.json'])

    def test_unwritable(self):
        (self.folder / 'file').write_text('')
        with self.assertRaisesRegex(FerryError, 'cannot write .*file/r.json'):
            report.save(self.result, self.folder / 'file' / 'r.json')

    def test_load_rejects(self):
        path = self.folder / 'r.json'
        for text, error in (('{', 'is no JSON'), ('[]', 'not the result'),
                            ('{"format": "x"}', 'not the result'),
                            (json.dumps({**self.result, 'version': 99}),
                             'format version 99')):
            path.write_text(text)
            with self.subTest(text), self.assertRaisesRegex(FerryError, error):
                report.load(path)
        with self.assertRaisesRegex(FerryError, 'cannot read'):
            report.load(self.folder / 'none')

    def test_compare(self):
        new = a_result(a_case(pristine=PRISTINE_RUNS,
                              ferry=[a_run(0, 250.0, (0.25, 0.125))]))
        new['busy'] = 'load average 2'
        new['machine']['kernel'] = '6.2'
        lines = report.compare(self.result, new).splitlines()
        self.assertEqual(lines[3].split(), [
            'random-3g', 'ferry', '500', '250', 'x0.500', 'x0.500', 'x1.00',
            '0.455', '->', '0.227'])
        self.assertIn('note: kernel was 6.1, is 6.2', lines)
        self.assertIn('note: the machine was not idle in the second: '
                      'load average 2', lines)

    def test_compare_without_common_cases(self):
        other = a_result(a_case('idle-4g', pristine=PRISTINE_RUNS))
        with self.assertRaisesRegex(FerryError, 'no case in common'):
            report.compare(self.result, other)


class Picture(unittest.TestCase):

    def draw(self, *found):
        result = a_result(*found)
        root = ElementTree.fromstring(chart.svg(result))
        return root, {'': 'http://www.w3.org/2000/svg'}

    def test_well_formed_and_complete(self):
        case = a_case(pristine=PRISTINE_RUNS, ferry=FERRY_RUNS,
                      ferry__pristine=[a_run(0, 800.0)])
        root, space = self.draw(case, {**a_case('idle-4g'), 'pairs': {},
                                       'skipped': 'no <room>'})
        text = ' '.join(''.join(e.itertext())
                        for e in root.findall('.//text', space))
        for part in ('random-3g', 'a <guest> & more', 'ferry → pristine',
                     '1.10 s', '0.500 s', '×0.455', '×0.500', 'idle-4g',
                     'skipped: no <room>', 'A & B <9>'):
            self.assertIn(part, text)

    def bars(self, root, space, style):
        return [float(e.get('width')) for e in root.findall('.//rect', space)
                if e.get('class') == style]

    def test_bars_are_to_scale(self):
        case = a_case(pristine=[a_run(0, 1000.0)], ferry=[a_run(0, 250.0)])
        root, space = self.draw(case)
        reference = self.bars(root, space, 'reference')
        ours = self.bars(root, space, 'other')
        self.assertEqual(reference[0], chart.GROUPS[0][0])
        self.assertAlmostEqual(ours[0] / reference[0], 0.25, delta=0.01)

    def test_a_tiny_bar_is_still_seen(self):
        case = a_case(pristine=[a_run(0, 40000.0)], ferry=[a_run(0, 1.0)])
        root, space = self.draw(case)
        self.assertEqual(self.bars(root, space, 'other')[0], chart.TINY)

    def test_everything_is_inside(self):
        case = a_case(pristine=PRISTINE_RUNS, ferry=FERRY_RUNS)
        root, space = self.draw(case, case, case)
        height = float(root.get('height'))
        for element in root.findall('.//text', space):
            self.assertLess(float(element.get('y')), height)
            self.assertLess(float(element.get('x')), chart.WIDTH)

    def test_no_result(self):
        root, space = self.draw(a_case(pristine=PRISTINE_RUNS,
                                       ferry=[failed(0, 'broke & burnt')]))
        text = ' '.join(''.join(e.itertext())
                        for e in root.findall('.//text', space))
        self.assertIn('no result', text)
        self.assertIn('broke & burnt', text)


class Machine(unittest.TestCase):

    def test_description_is_complete(self):
        found = machine.describe()
        self.assertGreater(found['cpus'], 0)
        self.assertGreater(found['memory_mib'], 100)
        self.assertTrue(found['cpu'])
        self.assertGreaterEqual(found['memory_mib'], machine.available_mib())

    def test_busy_machine_is_noticed(self):
        with mock.patch.object(os, 'getloadavg', lambda: (64.0, 0, 0)):
            self.assertIn('load average 64.00', machine.why_not_idle(0.05))
        with mock.patch.object(os, 'getloadavg', lambda: (0.0, 0, 0)), \
             mock.patch.object(machine, 'busy_seconds', side_effect=[
                 (0.0, 0.0), (1000.0, 0.0)]):
            self.assertIn('% busy', machine.why_not_idle(0.05))
        with mock.patch.object(os, 'getloadavg', lambda: (0.0, 0, 0)), \
             mock.patch.object(machine, 'busy_seconds', lambda: (0.0, 0.0)):
            self.assertIsNone(machine.why_not_idle(0.05))

    def test_thread_time(self):
        before = machine.thread_seconds(os.getpid(), [os.getpid()])
        total = sum(i * i for i in range(300000))
        self.assertTrue(total)
        self.assertGreater(machine.thread_seconds(os.getpid(), [os.getpid()]),
                           before)


# A process with 64 MiB of anonymous memory: prints where it is, then waits.
OWNER = '''
import ctypes, mmap, sys
memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.read()
'''


@unittest.skipUnless(shutil.which(os.environ.get('CC') or 'cc'),
                     'no C compiler')
class Helpers(unittest.TestCase):

    SIZE = 64 << 20

    def owner(self):
        process = subprocess.Popen([sys.executable, '-c', OWNER], text=True,
                                   stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        return process.pid, int(process.stdout.readline())

    def setUp(self):
        try:
            native.fill(*self.owner(), 4096, 1)
        except FerryError as err:
            if 'Operation not permitted' in str(err):
                self.skipTest(str(err))
            raise

    def test_untouched_memory_is_equal_at_no_cost(self):
        found = native.compare(self.owner(), self.owner(), self.SIZE)
        self.assertEqual((found['equal'], found['populated']), (True, 0))

    def test_same_seed_same_memory(self):
        a, b = self.owner(), self.owner()
        native.fill(*a, self.SIZE, 7)
        native.fill(*b, self.SIZE, 7)
        found = native.compare(a, b, self.SIZE)
        self.assertTrue(found['equal'] and found['complete'])
        self.assertEqual(found['compared'], self.SIZE)

    def test_a_changed_page_is_found(self):
        a, b = self.owner(), self.owner()
        for owner in (a, b):
            native.fill(*owner, self.SIZE, 7)
        at = 33 * (1 << 20) + 5 * 4096
        native.fill(b[0], b[1] + at, 4096, 8)
        found = native.compare(a, b, self.SIZE)
        self.assertFalse(found['equal'])
        self.assertEqual(found['differs_at'] // 4096, at // 4096)

    def test_a_page_on_one_side_only_is_found(self):
        for one in range(2):
            pair = [self.owner(), self.owner()]
            native.fill(pair[one][0], pair[one][1] + 40 * 4096, 4096, 3)
            found = native.compare(*pair, self.SIZE)
            self.assertFalse(found['equal'])
            self.assertEqual(found['differs_at'] // 4096, 40)

    def test_pages_are_neither_zero_nor_alike(self):
        a, b = self.owner(), self.owner()
        native.fill(*a, self.SIZE, 7)
        native.fill(*b, self.SIZE, 7)
        shifted = (b[0], b[1] + 4096)
        found = native.compare(a, shifted, self.SIZE - 4096)
        self.assertFalse(found['equal'])
        self.assertLess(found['differs_at'], 4096)

    def test_no_such_process(self):
        with self.assertRaisesRegex(FerryError, 'No such process'):
            native.fill(4194304 - 1, 4096, 4096, 1)

    def test_bare_pair(self):
        for kind in ('tcp', 'unix'):
            found = native.bare_pair(kind, 16)
            self.assertEqual(found['bytes'], 16 << 20)
            self.assertAlmostEqual(found['gb_per_s'] * found['seconds'],
                                   (16 << 20) / 1e9, places=4)
            self.assertGreater(found['cpu_recv'], 0)

    def test_bare_pairs(self):
        for pairs in (2, 3):
            found = native.bare_pair('tcp', 16, pairs)
            self.assertEqual((found['pairs'], found['bytes']),
                             (pairs, 16 << 20))

    def test_bare_pair_rejects(self):
        program = native.program('bare-pair')
        for argv in (['-m', '0'], ['-m', '1x'], ['-c', '0'], ['-c', '65'],
                     ['udp'], ['-z']):
            with self.subTest(argv):
                done = run_program([program, *argv])
                self.assertEqual(done.returncode, 2)
                self.assertTrue(done.stderr)

    def test_compile_error_is_one_line(self):
        with tempfile.TemporaryDirectory() as folder, \
             mock.patch.object(native, 'SOURCES', Path(folder)), \
             mock.patch.object(native, 'OUTPUT', Path(folder) / 'out'):
            (Path(folder) / 'x.c').write_text('int main(void) { oops }\n')
            with self.assertRaises(FerryError) as caught:
                native.program('x')
        self.assertRegex(str(caught.exception), '^cannot compile x.c: .*oops')
        self.assertNotIn('\n', str(caught.exception))


class Documentation(unittest.TestCase):

    def test_every_option_is_documented(self):
        text = (ROOT / 'docs/devel/migration/benchmark.rst').read_text()
        shown = run_program([sys.executable, ROOT / 'bench' / 'bench',
                             '--help']).stdout
        for option in set(re.findall(r'--[a-z-]+', shown)) - {'--help'}:
            self.assertIn(option, text)


if __name__ == '__main__':
    unittest.main()
