# Tests of scripts/demo with a stand-in for QEMU.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/demo with a stand-in for QEMU."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from scripts import ROOT, load, run

demo = load('scripts/demo')
FAKE = Path(__file__).with_name('fake_qemu.py')
WORDS = ('mem=256', 'fill=1', 'work=1', 'uri=unix', f'src={FAKE}',
         f'dst={FAKE}')


class Options(unittest.TestCase):
    def refuse(self, *words: str) -> str:
        """One line that says what is wrong, exit code 2, nothing started."""
        done = run([ROOT / 'scripts/demo', *words])
        self.assertEqual((done.returncode, done.stdout), (2, ''))
        self.assertEqual(done.stderr.count('\n'), 1)
        self.assertTrue(done.stderr.startswith('error: '), done.stderr)
        return done.stderr

    def test_defaults_and_all_of_them(self):
        options = demo.parse([])
        self.assertEqual((options.mem, options.src, options.xbzrle),
                         (1024, 'ferry', False))
        options = demo.parse(['mem=2048', 'fill=1000', 'work=10', 'rate=0',
                              'uri=tcp:[::1]:4444', 'xbzrle=on', 'bandwidth=0',
                              'downtime=50', 'src=pristine', f'dst={FAKE}',
                              'report=/tmp/r.html'])
        self.assertEqual(
            (options.mem, options.fill, options.work, options.rate,
             options.uri, options.xbzrle, options.bandwidth, options.downtime,
             options.src, options.dst, options.report),
            (2048, 1000, 10, 0, 'tcp:[::1]:4444', True, 0, 50, 'pristine',
             str(FAKE), '/tmp/r.html'))

    def test_unknown_ones_are_told_what_is_allowed(self):
        for word in ('colour=red', 'mem', '--mem=1', 'Mem=3', ''):
            said = self.refuse(word)
            for name in demo.OPTIONS:
                self.assertIn(f' {name}=', said)

    def test_wrong_values(self):
        for word, hint in (
                ('mem=1G', 'whole number from 256'), ('mem=-1', 'whole number'),
                ('fill=0', 'whole number'), ('rate=2000000', 'to 1000000'),
                ('uri=rdma', 'tcp, unix'), ('uri=tcp:host', 'tcp, unix'),
                ('uri=tcp:127.0.0.1:99999', 'tcp, unix'),
                ('xbzrle=yes', 'on or off'), ('bandwidth=fast', 'number'),
                ('downtime=0', 'number'), ('src=/none', 'no such file'),
                ('dst=', 'a path')):
            with self.assertRaisesRegex(demo.Usage, hint, msg=word):
                demo.parse([word])

    def test_values_that_do_not_fit_together(self):
        for words, hint in (
                (['work=700'], 'more than fill'),
                (['fill=1000'], 'does not fit'),
                (['mem=512'], 'does not fit')):
            with self.assertRaisesRegex(demo.Usage, hint):
                demo.parse(words)
        self.refuse('work=700')

    def test_help_names_every_option(self):
        done = run([ROOT / 'scripts/demo', '--help'])
        self.assertEqual(done.returncode, 0)
        for name in demo.OPTIONS:
            self.assertIn(f' {name}=', done.stdout)


class Playing(unittest.TestCase):
    """The whole of it, with a machine that can be told to misbehave."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='d')
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        keep = tempfile.tempdir
        tempfile.tempdir = folder.name
        self.addCleanup(setattr, tempfile, 'tempdir', keep)

    def play(self, misbehave: str = '', *more: str) -> str:
        """Run it; what it printed, with its error as the last line."""
        out = io.StringIO()
        options = demo.parse([*WORDS, *more])
        with contextlib.ExitStack() as stack:
            for patch in (
                    mock.patch.dict(os.environ, FERRY_ACCEL='tcg'),
                    mock.patch.object(demo, 'SETTLE', 0.2),
                    mock.patch.object(demo.guests, 'ensure',
                                      lambda: (FAKE, FAKE)),
                    mock.patch.object(demo.guests, 'guest_args',
                                      lambda *_: misbehave)):
                stack.enter_context(patch)
            screen = stack.enter_context(demo.Screen(out))
            try:
                code = demo.Demo(options, demo.Stage(screen)).run()
            except demo.FerryError as err:
                code = 1
                self.assertNotIn('\n', str(err))
                out.write(f'error: {err}\n')
        said = out.getvalue()
        self.assertEqual(code, 1 if 'error: ' in said else 0, said)
        left = [p.name for p in self.folder.iterdir() if p.is_dir()]
        self.assertEqual(left, [], said)
        return said

    def fails(self, misbehave: str, hint: str) -> str:
        said = self.play(misbehave)
        self.assertRegex(said.splitlines()[-1], f'error: .*{hint}', said)
        return said

    def test_good(self):
        page = self.folder / 'r.html'
        said = self.play('', f'report={page}')
        for part in ('completed', '0.12 s', '25 ms', 'all there', 'verified',
                     'on the destination', 'as it should be',
                     'console: ferry-guest: up'):
            self.assertIn(part, said)
        self.assertNotIn('FAIL', said)
        self.assertIn('blackout, observed', page.read_text())

    def test_wrong_memory(self):
        said = self.fails('fake.wrong', 'guest memory: WRONG')
        self.assertIn('page 3', said)

    def test_lost_heartbeats(self):
        self.fails('fake.lose=7', '7 heartbeats were lost')

    def test_guest_running_twice(self):
        self.fails('fake.twice', '(ran twice|came again)')

    def test_refused_by_the_destination(self):
        self.fails('fake.refuse', 'migration: .*I do not want this guest')

    def test_qemu_that_does_not_start(self):
        self.fails('fake.die', 'cannot do that')

    def test_guest_that_panics(self):
        self.fails('fake.panic', 'Kernel panic')

    def test_stuck(self):
        with mock.patch.object(demo, 'MIGRATE_TIMEOUT', 0.5):
            self.fails('fake.stuck', 'not over in time')

    def test_too_little_memory(self):
        with mock.patch.object(demo, 'HOST_SPARE', 1 << 30):
            self.fails('', 'smaller fill')

    def test_addresses_that_cannot_be_listened_on(self):
        with socket.create_server(('127.0.0.1', 0)) as taken:
            port = taken.getsockname()[1]
            with self.assertRaisesRegex(demo.FerryError, 'in use; give'):
                demo.check_address(f'tcp:127.0.0.1:{port}')
        demo.check_address(f'tcp:127.0.0.1:{port}')
        for uri in ('tcp:192.0.2.7:4444', 'unix:/none/x'):
            with self.assertRaises(demo.FerryError, msg=uri):
                demo.check_address(uri)
        demo.check_address('tcp')
        demo.check_address('unix')

    def test_no_room_for_its_files(self):
        with mock.patch.object(demo.Path, 'write_bytes', side_effect=OSError(
                28, 'No space left on device')):
            self.fails('', 'No space left on device; make room')

    def test_what_a_killed_one_left_is_removed(self):
        dead, alive, other = (self.folder / name for name in (
            'ferry-demo-999999999-abc', f'ferry-demo-{os.getpid()}-abc',
            'ferry-demo-notes'))
        for path in (dead, alive, other):
            path.mkdir()
        demo.sweep()
        self.assertEqual([p.exists() for p in (dead, alive, other)],
                         [False, True, True])


class TheTable(unittest.TestCase):
    def judge(self, **how) -> list[str]:
        """Labels of the rows that are not as they should be."""
        show = demo.Demo(demo.Options(), demo.Stage(demo.Screen(io.StringIO())))
        good = {'ok': True, 'status': 'completed', 'total_ms': 5000,
                'downtime_ms': 20, 'blackout_ms': 30.0, 'noise_ms': 2.0}
        show.verify = demo.guests.Verify(True, 10, 5, 5, '')
        show.moved, show.source_state = True, 'postmigrate'
        for name in ('verify', 'moved'):
            if name in how:
                setattr(show, name, how.pop(name))
        show.result = demo.migration.Result(**{**good, **how})
        return [check.label for check in show.checks() if check.good is False]

    def test_nothing_wrong_is_overlooked(self):
        self.assertEqual(self.judge(), [])
        wrong = demo.guests.Verify(False, 10, 5, 4, 'page 3')
        for how, label in (
                ({'ok': False, 'error': 'x'}, 'migration'),
                ({'ok': False, 'status': 'failed'}, 'migration'),
                ({'blackout_ms': None}, 'blackout, observed'),
                ({'blackout_ms': 0.0}, 'blackout, observed'),
                ({'lost': 1}, 'heartbeats'), ({'repeated': 1}, 'heartbeats'),
                ({'verify': None}, 'guest memory'),
                ({'verify': wrong}, 'guest memory'),
                ({'moved': False}, 'guest runs')):
            self.assertEqual(self.judge(**how), [label], how)


if __name__ == '__main__':
    unittest.main()
