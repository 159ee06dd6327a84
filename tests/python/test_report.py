# Tests of the page that tells the story of a migration.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the page that tells the story of a migration."""

import math
import re
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

from story import tell

from ferry import report
from ferry.errors import FerryError
from ferry.track import Sample, Track, read_progress


def track_of(**how) -> Track:
    return Track().feed_all(tell(**how))


def parse(page: str) -> ElementTree.Element:
    head = '<!DOCTYPE html>\n'
    if not page.startswith(head):
        raise AssertionError('no doctype')
    return ElementTree.fromstring(page[len(head):])


def text_of(page: str) -> str:
    return ' '.join(''.join(parse(page).find('body').itertext()).split())


class Scales(unittest.TestCase):
    def test_ticks_are_round_and_reach_the_top(self):
        for top in (0.003, 0.7, 1, 42, 99.9, 100, 101, 4096, 1e9):
            marks = report.ticks(top)
            self.assertGreaterEqual(marks[-1], top * 0.999999)
            self.assertIn(len(marks), range(2, 8))
            step = marks[1]
            lead = step / 10 ** math.floor(math.log10(step * 1.000001))
            self.assertIn(round(lead, 6), (1, 2, 5))

    def test_thin_keeps_peaks(self):
        values = [(i, 1) for i in range(10000)]
        values[1234] = (1234, 99)
        values[4321] = (4321, -5)
        kept = report.thin(values, 200)
        self.assertLess(len(kept), 260)
        self.assertIn((1234, 99), kept)
        self.assertIn((4321, -5), kept)
        self.assertEqual(kept[-1], values[-1])
        self.assertEqual([v[0] for v in kept], sorted(v[0] for v in kept))


class Cards(unittest.TestCase):
    def test_channels(self):
        track = track_of(progress=True)
        self.assertEqual(report.channels_card(track), '')
        track.progress = read_progress({'channels': [
            {'id': 0, 'bytes': 3 << 20, 'memory': 3 << 20, 'busy': 50,
             'compression': 'none', 'ratio': 0},
            {'id': 7, 'bytes': 1 << 20, 'memory': 4 << 20, 'busy': 99,
             'compression': 'zstd', 'level': 1, 'ratio': 400},
            {'compression': '<b>'}]})
        text = text_of(report.page([('vm', track)]))
        self.assertIn('0 3.00 MiB 3.00 MiB 50 % none -'.replace(' ', ''),
                      text.replace(' ', ''))
        self.assertIn('7 1.00 MiB 4.00 MiB 99 % zstd 1 400 %'.replace(' ', ''),
                      text.replace(' ', ''))

    def test_preflight(self):
        why = ('preflight: the destination cannot take this guest: section '
               "'a': instance 0 on the source: add it; ram 'pc.ram': 1 & 2")
        track = Track().feed_all([
            Sample(0, {'status': 'setup'}),
            Sample(1, {'status': 'failed', 'error-desc': why})])
        text = text_of(report.page([('vm', track)]))
        self.assertIn("section 'a'", text)
        self.assertIn('instance 0 on the source: add it', text)
        self.assertIn('1 & 2', text)
        track = Track().feed_all([
            Sample(0, {'status': 'setup'}),
            Sample(1, {'status': 'failed', 'error-desc': 'other'})])
        self.assertEqual(report.preflight_card(track), '')


class ThePage(unittest.TestCase):
    def test_it_needs_nothing_from_outside(self):
        page = report.page([('vm', track_of(progress=True))])
        self.assertNotIn('<script', page)
        self.assertNotRegex(page, r'(?:src|href|@import|url\()\s*[=(]')
        self.assertNotRegex(page, r'https?:|//[a-z]')

    def test_it_is_well_formed_and_says_the_numbers(self):
        track = track_of(dirty=60)
        page = report.page([('vm <one> & "two"', track)],
                           [('blackout', '41 ms')])
        said = text_of(page)
        for part in ('vm <one> & "two"', 'Completed', '34 ms', '300 ms',
                     'blackout', '41 ms', f'{track.point.iteration} passes',
                     'zero pages', 'Passes over memory'):
            self.assertIn(part, said)

    def test_charts(self):
        track = track_of(dirty=60, extra={'cpu-throttle-percentage': 20})
        root = parse(report.page([('vm', track)]))
        charts = {c.get('aria-label'): c for c in root.iter('svg')}
        self.assertEqual(list(charts), [
            'phases of the migration',
            'Sent over the link, and dirtied by the guest',
            'Memory left to send', 'Downtime if it switched over now',
            'Guest throttled'])
        passes = len(track.passes) - 1
        for label in list(charts)[1:]:
            lines = [e for e in charts[label] if e.get('class') == 'pass']
            self.assertEqual(len(lines), passes, label)
        names = [e.text for e in
                 charts['phases of the migration'].iter('title')]
        self.assertEqual([n.split(':')[0].split(' ')[0] for n in names],
                         ['setup', 'active', 'device', 'completed'])

    def test_lines_stay_inside_their_chart(self):
        for how in ({}, {'dirty': 150}, {'bandwidth': 5}, {'step': 1.7}):
            root = parse(report.page([('vm', track_of(**how))]))
            for chart in root.iter('svg'):
                width, height = map(float, chart.get('viewBox').split()[2:])
                for path in chart.iter('path'):
                    spots = re.findall(r'[ML](-?[\d.]+) (-?[\d.]+)',
                                       path.get('d'))
                    self.assertTrue(spots)
                    for x, y in spots:
                        self.assertTrue(0 <= float(x) <= width)
                        self.assertTrue(0 <= float(y) <= height)

    def test_the_line_follows_the_numbers(self):
        """The highest point of the curve of what remains is its first."""
        root = parse(report.page([('vm', track_of(dirty=10))]))
        chart = next(c for c in root.iter('svg')
                     if c.get('aria-label') == 'Memory left to send')
        line = next(p for p in chart.iter('path')
                    if p.get('class') == 'line')
        heights = [float(y) for _, y in
                   re.findall(r'[ML]([\d.]+) ([\d.]+)', line.get('d'))]
        self.assertEqual(min(heights), heights[0])
        self.assertEqual(max(heights), heights[-1])

    def test_ledgers(self):
        said = text_of(report.page([('vm', track_of(progress=True))]))
        for part in ('Where the downtime went', '38 ms in all',
                     'device-load 6.0 ms', 'Guest stalled', '1.1 ms (sync)',
                     'zero-range, page-run'):
            self.assertIn(part, said)
        said = text_of(report.page([('vm', track_of())]))
        self.assertNotIn('Where the downtime went', said)

    def test_failed_cut_short_and_never_watched(self):
        said = text_of(report.page([('vm', track_of(end='failed'))]))
        self.assertIn('Failed after', said)
        self.assertIn('Broken pipe', said)
        half = Track().feed_all(tell()[:25])
        half.lost = 'QEMU went away'
        said = text_of(report.page([('vm', half)]))
        self.assertIn('Not over', said)
        self.assertIn('QEMU went away', said)
        only_end = Track().feed_all([Sample(1.0, {'status': 'failed'})])
        self.assertIn('No chart', text_of(report.page([('vm', only_end)])))
        only_start = Track().feed_all([Sample(1.0, {'status': 'setup'})])
        parse(report.page([('vm', only_start)]))

    def test_two_migrations_on_one_page(self):
        said = text_of(report.page([('first', track_of()),
                                    ('second', track_of(end='cancelled'))]))
        self.assertIn('first', said)
        self.assertIn('Cancelled', said)

    def test_hostile_text_is_only_text(self):
        evil = '</title><script>alert(1)</script>\x00\x1b"\'&'
        track = Track().feed_all(tell(progress=True))
        track.info['error-desc'] = evil
        track.info['progress'] = {'reason': evil}
        track.progress = read_progress({
            'decision': evil, 'peer': {'features': [evil]},
            'downtime': {'parts': [{'name': evil, 'us': 3000}]}})
        track.params = {evil: evil}
        track.caps = {evil: True}
        page = report.page([(evil, track)], [(evil, evil)])
        self.assertNotIn('<script', page)
        parse(page)

    def test_a_long_one_stays_small(self):
        track = track_of(bandwidth=2, total=512, zero=0, dirty=0, step=0.05)
        self.assertGreater(len(track.points), 4000)
        self.assertLess(len(report.page([('vm', track)])), 250000)


class TheFile(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_written_whole_and_alone(self):
        path = self.folder / 'r.html'
        path.write_text('older')
        report.write(str(path), [('vm', track_of())])
        parse(path.read_text())
        self.assertEqual([p.name for p in self.folder.iterdir()], ['r.html'])
        self.assertEqual(path.stat().st_mode & 0o777, 0o644)

    def test_places_that_do_not_work_are_said_in_one_line(self):
        for path in (self.folder, self.folder / 'none' / 'r.html'):
            with self.assertRaises(FerryError) as caught:
                report.check_writable(str(path))
            self.assertNotIn('\n', str(caught.exception))
        report.check_writable(str(self.folder / 'fine.html'))

    def test_a_full_disk_leaves_nothing(self):
        full = Path('/dev/full')
        if not full.exists():
            self.skipTest('no /dev/full')
        with self.assertRaisesRegex(FerryError, 'No space left'):
            report.write(str(full), [('vm', track_of())])
        gone = self.folder / 'gone'
        with self.assertRaises(FerryError):
            report.write(str(gone / 'r.html'), [('vm', track_of())])
        self.assertEqual(list(self.folder.iterdir()), [])


if __name__ == '__main__':
    unittest.main()
