# Tests of what migtop and the demo show: samples in, numbers and lines out.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what migtop and the demo show: samples in, numbers and lines out."""

import json
import random
import re
import unittest

from story import DOWNTIME, PROGRESS, MIB, PAGE, PARAMS, Story, tell

from ferry import track as track_module
from ferry import view
from ferry.paths import ROOT
from ferry.track import Sample, Track, forecast, read_progress, slope

FANCY = view.Style(unicode=True, color=True)
WIDE = view.Style(unicode=True)
ESCAPES = re.compile('\033\\[[0-9;]*m')


def track_of(**how) -> Track:
    return Track().feed_all(tell(**how))


def active(**more) -> dict:
    """One reply in the middle of things."""
    ram = {'transferred': 300 * MIB, 'remaining': 100 * MIB,
           'total': 1024 * MIB, 'duplicate': 1000, 'normal': 76800,
           'dirty-pages-rate': 4096, 'mbps': 838.8608, 'page-size': PAGE,
           'dirty-sync-count': 3, 'pages-per-second': 25600,
           'postcopy-requests': 0, 'multifd-bytes': 0}
    ram.update(more.pop('ram', {}))
    return {'status': 'active', 'total-time': 3000, 'ram': ram, **more}


def lines_of(reply: dict, width: int = 100, **sample) -> str:
    track = Track()
    track.feed(Sample(50.0, reply, params=PARAMS, **sample))
    return '\n'.join(view.block(track, width, WIDE))


def schema_paths() -> set[str]:
    """The members of the progress object, from our patches to QAPI, as
    Progress takes them."""
    ours = ''
    for patch in sorted((ROOT / 'base' / 'patches').glob('*-qapi-*.patch')):
        for hunk in re.split(r'^@@.*\n', patch.read_text(), flags=re.M)[1:]:
            lines = hunk.partition('-- \n')[0].splitlines(keepends=True)
            old, new = (''.join(line[1:] for line in lines if line[0] in kinds)
                        for kinds in (' -', ' +'))
            ours = ours.replace(old, new, 1) if old in ours else ours + new
    structs = {name: re.findall(r"'\*?([a-z0-9-]+)': (?:'(\w+)'|\[)", members)
               for name, members in re.findall(
                   r"'struct': '(\w+)',\s*'data': {(.*?)}", ours, re.S)}

    def below(struct: str) -> set[str]:
        paths = set()
        for name, kind in structs[struct]:
            paths |= {name} | {f'{name}.{path}' for path in
                               (below(kind) if kind in structs else ())}
        return paths

    return below('MigrationProgress')


class Numbers(unittest.TestCase):
    def test_size(self):
        for count, said in ((0, '0 B'), (999, '999 B'), (1024, '1.00 KiB'),
                            (12345678, '11.8 MiB'), (1 << 30, '1.00 GiB'),
                            (123 << 30, '123 GiB'), (1 << 50, '1024 TiB')):
            self.assertEqual(view.size(count), said)

    def test_times(self):
        for value, said in ((0, '0.00 s'), (0.34, '0.34 s'), (7.44, '7.4 s'),
                            (59.96, '1:00 min'), (65, '1:05 min'),
                            (7384, '2:03:04 h')):
            self.assertEqual(view.seconds(value), said)
        for value, said in ((0, '0 ms'), (0.042, '0.042 ms'), (3.44, '3.4 ms'),
                            (231.2, '231 ms'), (1234, '1,234 ms')):
            self.assertEqual(view.millis(value), said)

    def test_clean(self):
        self.assertEqual(view.clean('a\tb\n\x1b[31mc\u202e\x9b2J  d'),
                         'a b ?[31mc??2J d')


class Pictures(unittest.TestCase):
    def test_bar_has_its_width_and_is_full_only_at_the_end(self):
        for style in (view.PLAIN, WIDE):
            full = '=' if style is view.PLAIN else '█'
            for width in (1, 8, 33):
                for percent in (-5, 0, 0.1, 50, 99, 99.99, 100, 140):
                    drawn = view.bar(percent, width, style)
                    self.assertEqual(len(drawn), width)
                    self.assertEqual(drawn == full * width, percent >= 100)

    def test_bar_never_shrinks(self):
        filled = [view.bar(p / 10, 40, WIDE).count('█') for p in range(1001)]
        self.assertEqual(filled, sorted(filled))

    def test_sparkline(self):
        self.assertEqual(view.sparkline([], 10, WIDE), '')
        self.assertEqual(view.sparkline([0, 0], 10, WIDE), '▁▁')
        self.assertEqual(view.sparkline(range(9), 9, WIDE), '▁▁▂▃▄▅▆▇█')
        self.assertEqual(view.sparkline([9, 1, 8], 2, WIDE), '▁█')
        self.assertEqual(view.sparkline([1, 1], 5, WIDE, top=8), '▁▁')
        self.assertTrue(view.sparkline([1, 5], 5, view.PLAIN).isascii())

    def test_stacked_fills_its_width_and_keeps_small_parts(self):
        parts = [('ram', 100.0), ('tiny', 0.001), ('none', 0.0), ('end', 9.0)]
        spans = view.stacked(parts, 30, WIDE)
        self.assertEqual(len(spans), 3)
        self.assertEqual(view.width_of(spans), 30)
        self.assertTrue(all(part for part, _ in spans))
        self.assertEqual(view.stacked([('a', 0.0)], 30, WIDE), [])

    def test_cut_counts_columns_not_characters(self):
        self.assertEqual(view.paint([('日本語', '')], 5, WIDE), '日本…')
        self.assertEqual(view.paint([('abc', 'bad'), ('def', '')], 4, FANCY),
                         '\033[1;31mabc\033[0m\033[2m…\033[0m')


class Forecast(unittest.TestCase):
    def test_nothing_left(self):
        self.assertEqual(forecast(0, 0, 0, 0.3), (0.0, True))

    def test_unknown_speed(self):
        self.assertEqual(forecast(100, 0, 50, 0.3), (None, None))

    def test_idle_guest_needs_what_remains(self):
        self.assertEqual(forecast(1000, 100, 0, 0.3), (1000.0, True))

    def test_each_pass_adds_what_was_dirtied_in_it(self):
        left, converges = forecast(1000, 100, 50, 0.0)
        self.assertTrue(converges)
        self.assertAlmostEqual(left, 2000, delta=2)

    def test_ends_once_the_rest_fits_into_the_downtime(self):
        left, _ = forecast(1000, 100, 50, 3.0)      # 300 bytes fit
        self.assertEqual(left, 1000 + 500 + 250)

    def test_guest_faster_than_the_link(self):
        self.assertEqual(forecast(1000, 100, 120, 0.3), (None, False))

    def test_slope_looks_back_over_the_window(self):
        history = [(0.0, 0), (1.0, 100), (2.0, 300)]
        self.assertEqual(slope(history, 2.0, 1.0), 200)
        self.assertEqual(slope(history, 2.0, 1.5), 150)
        self.assertEqual(slope(history, 2.0, 9.0), 150)
        self.assertEqual(slope(history[:1], 0.0, 1.0), 0)
        self.assertEqual(slope([(1.0, 5), (1.0, 9)], 1.0, 1.0), 0)


class TheTrack(unittest.TestCase):
    def test_percent_never_falls_and_ends_at_100(self):
        for how in ({}, {'dirty': 90}, {'dirty': 150}, {'progress': True},
                    {'zero': 1000}, {'bandwidth': 30}):
            percents = [p.percent for p in track_of(**how).points]
            self.assertEqual(percents, sorted(percents), how)
            self.assertEqual(percents[-1], 100)
            self.assertLessEqual(percents[-2], 99)

    def test_a_failed_one_keeps_its_numbers_and_never_shows_100(self):
        track = track_of(end='failed')
        self.assertTrue(track.ended)
        self.assertEqual(track.error, 'Broken pipe')
        self.assertLess(track.point.percent, 100)
        self.assertGreater(track.point.transferred, 500 * MIB)
        self.assertGreater(track.point.elapsed, 5)

    def test_time_left_is_about_right(self):
        track = track_of(dirty=30)
        whole = track.points[-1].elapsed
        middle = next(p for p in track.points if p.elapsed > whole / 2)
        self.assertAlmostEqual(middle.eta, whole - middle.elapsed,
                               delta=0.35 * whole)

    def test_not_converging_is_said(self):
        track = track_of(dirty=150)
        self.assertTrue(any(p.converges is False for p in track.points))
        stuck = next(p for p in track.points if p.converges is False)
        self.assertIsNone(stuck.eta)

    def test_bandwidth_is_measured(self):
        points = track_of(zero=0, bandwidth=80).points
        middle = points[len(points) // 2].bandwidth / MIB
        self.assertAlmostEqual(middle, 80, delta=8)

    def test_first_sample_uses_qemus_own_rate(self):
        track = Track().feed_all([{'t': 1.0, 'migrate': active()}])
        self.assertAlmostEqual(track.point.bandwidth, 100 * MIB, delta=MIB)
        self.assertIsNotNone(track.point.eta)

    def test_passes_and_phases(self):
        track = track_of(dirty=60)
        numbers = [one.number for one in track.passes]
        self.assertEqual(numbers, list(range(1, numbers[-1] + 1)))
        self.assertEqual([p.name for p in track.phases],
                         ['setup', 'active', 'device', 'completed'])
        for before, after in zip(track.phases, track.phases[1:]):
            self.assertEqual(before.end, after.start)
        rows = track.pass_rows()
        self.assertAlmostEqual(sum(sent for _, _, sent in rows),
                               track.point.transferred, delta=20 * MIB)

    def test_setup_that_was_not_seen_is_drawn(self):
        track = Track().feed_all([{'t': 9.0, 'migrate': active(
            **{'setup-time': 400})}])
        self.assertEqual([(p.name, p.start, p.end) for p in track.phases],
                         [('setup', 0, 0.4), ('active', 0.4, 3.0)])

    def test_joining_late_knows_when_it_began(self):
        track = Track().feed_all([{'t': 1000.0, 'migrate': active()}])
        self.assertEqual(track.point.elapsed, 3.0)
        track.feed(Sample(1002.0, {'status': 'failed'}))
        self.assertEqual(track.point.elapsed, 5.0)

    def test_a_second_migration_begins_anew(self):
        track = track_of(end='failed')
        track.feed(Sample(500.0, {'status': 'setup'}))
        self.assertEqual((track.restarts, track.point.percent), (1, 0))
        self.assertEqual(track.error, '')
        self.assertEqual(len(track.points), 1)

    def test_a_second_migration_not_seen_starting(self):
        track = Track().feed_all([{'t': 9.0, 'migrate': active()}])
        track.feed(Sample(9.5, {**active(), 'total-time': 100}))
        self.assertEqual(track.restarts, 1)

    def test_an_ended_one_does_not_grow(self):
        track = track_of()
        before = len(track.points)
        for i in range(50):
            track.feed(Sample(300.0 + i, tell()[-1]['migrate']))
        self.assertEqual(len(track.points), before)

    def test_end_by_event(self):
        track = Track().feed_all([{'t': 9.0, 'migrate': active()}])
        track.end(9.5, 'completed')
        self.assertEqual((track.phase, track.point.percent),
                         ('completed', 100))

    def test_days_long_stories_are_thinned(self):
        keep, track_module.MAX_POINTS = track_module.MAX_POINTS, 100
        self.addCleanup(setattr, track_module, 'MAX_POINTS', keep)
        track = Track()
        for i in range(1000):
            track.feed(Sample(float(i), {**active(), 'total-time': 1000 * i}))
        self.assertLess(len(track.points), 130)
        times = [p.elapsed for p in track.points]
        self.assertEqual(times, sorted(times))
        self.assertEqual(times[-1], 999)

    def test_incoming(self):
        track = Track().feed_all([{'t': 1.0, 'status': 'inmigrate', 'migrate': {
            'status': 'active', 'socket-address': [
                {'type': 'inet', 'host': '10.0.0.9', 'port': '4444'}]}}])
        self.assertTrue(track.incoming)
        said = '\n'.join(view.block(track, 100, WIDE))
        self.assertIn('receiving', said)
        self.assertIn('10.0.0.9:4444', said)
        track.feed(Sample(2.0, {'status': 'completed'}, 'running'))
        self.assertIn('has arrived', '\n'.join(view.block(track, 100)))

    def test_bare_replies_and_junk_are_taken(self):
        for junk in ({}, {'migrate': None}, {'migrate': {'ram': 7}}, None, 4,
                     {'migrate': {'status': 9}}, {'migrate': {
                         'status': 'active', 'ram': {'total': 'x'}}}):
            track = Track().feed_all([junk])
            view.block(track, 80)
            view.line(track)
            json.dumps(view.record(track))
        track = Track().feed_all([active()])
        self.assertEqual(track.phase, 'active')


class ProgressObject(unittest.TestCase):
    def test_all_of_it(self):
        info = read_progress({**PROGRESS, 'downtime': DOWNTIME})
        self.assertEqual(info.text('phase'), 'later-pass')
        self.assertEqual(info.number('percent'), 40)
        self.assertEqual(info.ms('eta.high-ms'), 3300)
        self.assertEqual(info.ms('predicted-downtime.likely-us'), 41.2)
        self.assertEqual(info.parts('predicted-downtime.parts'), [
            ('stop', 0.42), ('ram', 30.2), ('start', 0.4)])
        self.assertEqual(info.number('bandwidth'), 100 << 20)
        self.assertEqual(info.numbers('stall'), {
            'count': 3, 'total-us': 1900, 'longest-us': 1100})
        self.assertEqual(info.ms('downtime.total-us'), 38.1)
        self.assertAlmostEqual(
            sum(ms for _, ms in info.parts('downtime.parts')), 38.1)
        self.assertEqual(info.texts('peer.features'),
                         ['zero-range', 'page-run'])

    def test_what_is_not_told_is_not_known(self):
        info = read_progress({
            'phase': 'receiving', 'eta': {'low-ms': 5}, 'decision': 7,
            'stall': [], 'downtime': {'total-us': 7, 'parts': {}},
            'peer': {'features': [1, 'page-run']}})
        self.assertEqual(info.ms('eta.low-ms'), 5)
        self.assertIsNone(info.ms('eta.high-ms'))
        self.assertIsNone(info.number('phase'))
        self.assertIsNone(info.ms('stall.total-us'))
        self.assertIsNone(info.ms('phase.of.nothing'))
        self.assertEqual(info.text('decision'), '')
        self.assertEqual(info.ms('downtime.total-us'), 0.007)
        self.assertEqual(info.parts('downtime.parts'), [])
        self.assertEqual(info.texts('peer.features'), ['page-run'])
        self.assertEqual(info.numbers('served'), {})
        self.assertFalse(info.flag('strict.one-sided'))
        self.assertIsNone(read_progress('no object'))
        self.assertIsNone(read_progress(None))

    def test_what_is_read_exists(self):
        """What the tools ask for is in QEMU's schema by that name."""
        schema = schema_paths()
        self.assertGreater(len(schema), 40)
        asked = set()
        for file in ('track.py', 'view.py', 'report.py'):
            text = (ROOT / 'python' / 'ferry' / file).read_text()
            asked |= set(re.findall(
                r"(?:info|self\.progress)\.(?:number|numbers|ms|text|texts|"
                r"flag|parts|objects)\(\s*f?['\"]([^'\"]+)", text))
        self.assertGreater(len(asked), 20)
        for path in asked:
            known = re.compile(re.sub(r'{\w+}', r'[a-z0-9]+', path))
            self.assertTrue(any(map(known.fullmatch, schema)), path)

    def test_both_sides_of_faults_are_shown(self):
        for part, said in (
                ({'served': {'asked': 1200, 'urgent': 1100, 'again': 12,
                             'along': 34567, 'later': 8}},
                 ('1,200 pages', '8 later', '1,100 sent urgently', '12 sent once more',
                  '34,567 sent along')),
                ({'faults': {'count': 5, 'requests': 4, 'p99-us': 2500}},
                 ('5 waits for memory', 'p99 2.5 ms', '4 requests'))):
            shown = lines_of(active(progress={'phase': 'postcopy', **part}))
            for words in said:
                self.assertIn(words, shown)

    def test_no_shape_is_fatal(self):
        dice = random.Random(7)
        names = ['phase', 'percent', 'eta', 'likely-ms', 'low-ms', 'decision',
                 'stall', 'downtime', 'peer', 'features', 'count', 'longest-us',
                 'predicted-downtime', 'parts', 'us', 'name', 'total-us']

        def value(depth: int):
            kind = dice.randrange(8 if depth else 6)
            if kind < 6:
                return [None, True, -3, 1e300, 'x', ''][kind]
            if kind == 6:
                return [value(depth - 1) for _ in range(dice.randrange(4))]
            return {dice.choice(names): value(depth - 1)
                    for _ in range(dice.randrange(5))}

        for _ in range(3000):
            junk = {dice.choice(names): value(3) for _ in range(6)}
            reply = {**active(), 'progress': junk}
            track = Track().feed_all([{'t': 1.0, 'migrate': reply}])
            view.block(track, dice.randrange(1, 120), WIDE)
            view.line(track)

    def test_it_is_shown(self):
        said = '\n'.join(view.block(track_of(progress=True), 100, WIDE))
        for part in ('would take 320 ms', 'longest 1.1 ms (sync)', 'page-run',
                     'device-load 6.0 ms', '38 ms'):
            self.assertIn(part, said)
        said = lines_of({**active(), 'progress': PROGRESS})
        for part in ('40 %', '≈2.4 s (1.9 to 3.3) left', '≈41 ms expected',
                     'ram 30 ms', 'later-pass'):
            self.assertIn(part, said)
        said = lines_of({**active(), 'progress': {
            **PROGRESS, 'eta': {'low-ms': 1900, 'likely-ms': 2400}}})
        self.assertIn('≈2.4 s (1.9 or more) left', said)


class TheBlock(unittest.TestCase):
    def test_what_is_shown(self):
        said = lines_of(active(**{'expected-downtime': 240}))
        for part in ('active', '300 MiB sent', '100 MiB of 1.00 GiB left',
                     'pass 3', '100 MiB/s', 'limit 128 MiB/s', '16.0 MiB/s',
                     '≈240 ms', 'limit 300 ms', '3.0 s'):
            self.assertIn(part, said)
        for part in ('throttle', 'xbzrle', 'multifd', 'postcopy', 'error'):
            self.assertNotIn(part, said)

    def test_what_is_shown_only_when_in_use(self):
        said = lines_of(active(**{
            'cpu-throttle-percentage': 20,
            'ram': {'multifd-bytes': 200 * MIB},
            'xbzrle-cache': {'cache-size': 64 * MIB, 'bytes': 2 * MIB,
                             'pages': 4000, 'cache-miss': 120,
                             'cache-miss-rate': 0.12, 'overflow': 7}}))
        for part in ('20 % of vCPU', '200 MiB over 4 channels', '67 % of all',
                     '4,000 pages in 2.00 MiB', '12 % missed', '7 overflowed'):
            self.assertIn(part, said)

    def test_checkpoints(self):
        said = lines_of(active(progress={'checkpoint': {
            'state': 'protected', 'epoch': 1234, 'age': 42,
            'last-bytes': 2 * MIB, 'total-bytes': 3 * MIB,
            'pause-median': 900, 'pause-p99': 4000, 'pause-max': 12000,
            'buffered-packets': 7, 'buffered-bytes': 700}}))
        for part in ('checkpoint', 'protected', 'epoch 1,234', '42 ms old',
                     '2.00 MiB', 'paused 0.9 ms', 'p99 4.0 ms',
                     'longest 12 ms', '7 packets held'):
            self.assertIn(part, said)
        self.assertNotIn('checkpoint', lines_of(active(progress={'checkpoint': {}})))
        self.assertNotIn('old', lines_of(active(progress={
            'checkpoint': {'state': 'starting', 'epoch': 0}})))

    def test_channels(self):
        def said(*channels) -> str:
            return lines_of(active(ram={'multifd-bytes': 200 * MIB}, progress={
                'phase': 'first-pass', 'channels': [
                    {'id': i, 'bytes': sent * MIB, 'memory': memory * MIB,
                     'busy': busy}
                    for i, (sent, memory, busy) in enumerate(channels)]}))
        shown = said((100, 100, 70), (100, 101, 64))
        self.assertIn('busy 64 to 70 %', shown)
        self.assertNotIn('compressed', shown)
        self.assertIn('compressed to 50 %', said((50, 100, 9), (25, 50, 9)))
        self.assertNotIn('busy', said())
        shown = lines_of(active(ram={'multifd-bytes': 200 * MIB}, progress={
            'phase': 'first-pass', 'channels': [
                {'id': 0, 'bytes': MIB, 'memory': 3 * MIB, 'busy': 50,
                 'compression': 'zstd', 'level': -1, 'ratio': 400},
                {'id': 1, 'bytes': MIB, 'memory': MIB, 'busy': 50,
                 'compression': 'none', 'ratio': 100}]}))
        self.assertIn('now zstd -1 to 25 %', shown)

    def test_postcopy(self):
        said = lines_of({**active(ram={'postcopy-requests': 1234,
                                       'postcopy-bytes': 5 * MIB}),
                         'status': 'postcopy-active', 'downtime': 12})
        self.assertIn('1,234 pages asked for', said)
        self.assertIn('12 ms', said)
        self.assertNotIn('dirtying', said)
        said = lines_of({**active(), 'status': 'postcopy-paused',
                         'error-desc': 'Connection reset'})
        self.assertIn('migrate-recover', said)
        self.assertIn('Connection reset', said)

    def test_downtime_is_not_known_in_the_first_pass(self):
        said = lines_of(active(**{'expected-downtime': 300,
                                  'ram': {'dirty-sync-count': 1}}))
        self.assertNotIn('downtime', said)

    def test_no_line_is_wider_than_the_terminal(self):
        tracks = [track_of(progress=True), track_of(end='failed'), Track(),
                  track_of(dirty=150), Track().feed_all(tell()[:20])]
        for track in tracks:
            for width in (40, 57, 80, 200):
                for style in (FANCY, WIDE, view.PLAIN):
                    for text in view.block(track, width, style, 'n' * 30,
                                           [('guest', 'x' * 300)]):
                        bare = ESCAPES.sub('', text)
                        self.assertLessEqual(view.width_of([(bare, '')]), width)

    def test_plain_is_ascii_without_escapes(self):
        track = track_of(progress=True)
        text = '\n'.join(view.block(track, 80, view.PLAIN, 'vm-ä') +
                         [view.line(track, view.PLAIN, 'vm-b')])
        self.assertTrue(text.isascii())
        self.assertNotIn('\033', text)

    def test_hostile_text_cannot_reach_the_terminal(self):
        evil = 'x\033]0;owned\007\033[2J\r\n\x9b1A'
        track = Track().feed_all([{'t': 1.0, 'status': evil, 'migrate': {
            **active(), 'status': 'active' + evil, 'error-desc': evil,
            'blocked-reasons': [evil], 'progress': {
                'phase': evil, 'decision': evil,
                'peer': {'version': 1, 'features': [evil]},
                'downtime': {'total-us': 3, 'parts': [
                    {'name': evil, 'us': 3000}]},
                'stall': {'longest-us': 5, 'step': evil}}}}])
        track.lost = evil
        everything = view.block(track, 100, WIDE, evil, [('guest', evil)])
        everything.append(view.line(track, WIDE, evil))
        track.lost = ''
        everything.append(view.line(track, WIDE, evil))
        for text in everything:
            self.assertFalse(re.search('[\x00-\x1f\x7f-\x9f]', text), text)

    def test_nothing_started(self):
        self.assertIn('no migration', '\n'.join(view.block(Track(), 80)))
        self.assertEqual(view.line(Track()), 'no migration')

    def test_a_failure_not_watched(self):
        said = lines_of({'status': 'failed', 'error-desc': 'no route'})
        self.assertIn('no route', said)
        self.assertNotIn('%', said)

    def test_lost_and_silent(self):
        track = Track().feed_all([{'t': 1.0, 'migrate': active()}])
        track.silent = 3.0
        self.assertIn('not answered for 3.0 s', '\n'.join(view.block(track)))
        track.lost = 'QEMU went away'
        self.assertIn('QEMU went away', '\n'.join(view.block(track)))
        self.assertIn('QEMU went away', view.line(track))


class LinesAndRecords(unittest.TestCase):
    def test_line_while_active(self):
        track = Track().feed_all([{'t': 1.0, 'params': PARAMS, 'migrate': {
            **active(), 'expected-downtime': 231,
            'cpu-throttle-percentage': 30}}])
        said = view.line(track, name='vm')
        for part in ('vm: ', '3.0s', 'active', 'pass 3', 'sent  300 MiB',
                     'left  100 MiB', '100 MiB/s', 'downtime ~231/300 ms',
                     'throttle 30%', 'eta '):
            self.assertIn(part, said)

    def test_line_at_the_end(self):
        self.assertIn('downtime 34 ms', view.line(track_of()))
        self.assertIn('Broken pipe', view.line(track_of(end='failed')))

    def test_record(self):
        story = Story()
        samples = story.samples()
        track = Track().feed_all(next(samples) for _ in range(30))
        got = json.loads(json.dumps(view.record(track, 'vm')))
        self.assertEqual((got['name'], got['phase'], got['pass']),
                         ('vm', 'active', 1))
        self.assertEqual(got['transferred'], story.sent)
        self.assertEqual(got['remaining'], story.remaining)
        self.assertEqual(got['downtime_limit_ms'], 300)
        self.assertIsNone(got['downtime_ms'])
        done = view.record(track.feed_all(samples))
        self.assertEqual((done['percent'], done['downtime_ms'], done['ended']),
                         (100, 34, True))


if __name__ == '__main__':
    unittest.main()
