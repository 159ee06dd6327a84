# Tests of scripts/migtop against a made-up monitor.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/migtop against a made-up monitor."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from fake_monitor import Monitor
from scripts import ROOT, run
from story import tell

MIGTOP = ROOT / 'scripts' / 'migtop'
FAST = ('--interval', '0.02')


def brief(**how) -> list[dict]:
    """A migration told in about twenty samples."""
    told = tell(step=0.6, **how)
    assert 8 < len(told) < 60, len(told)
    return told


class Base(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='m')
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = f'{folder.name}/qmp'

    def monitor(self, samples: list[dict], path: str | None = '',
                **more) -> Monitor:
        made = Monitor(self.path if path == '' else path, samples, **more)
        self.addCleanup(made.close)
        return made

    def call(self, *argv: str, code: int) -> tuple[str, str]:
        done = run([MIGTOP, *argv], env={**os.environ, 'TERM': 'xterm',
                                         'PYTHONUTF8': '1'})
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertNotIn('Traceback', done.stderr)
        return done.stdout, done.stderr

    def refuse(self, *argv: str, code: int = 1) -> str:
        """One line on stderr, nothing else."""
        out, err = self.call(*argv, code=code)
        self.assertEqual(out, '')
        self.assertEqual(err.count('\n'), 1, err)
        self.assertTrue(err.startswith('error: '), err)
        return err


class Lines(Base):
    def test_completed(self):
        self.monitor(brief())
        out, _ = self.call(self.path, *FAST, code=0)
        first, *_, last = out.splitlines()
        self.assertIn('setup', first)
        self.assertIn('active', out)
        self.assertIn('completed', last)
        self.assertIn('downtime 34 ms', last)

    def test_failed_and_cancelled(self):
        self.monitor(brief(end='failed'))
        out, _ = self.call(self.path, *FAST, code=3)
        self.assertIn('Broken pipe', out.splitlines()[-1])
        other = self.monitor(brief(end='cancelled'), f'{self.folder}/two')
        self.call(other.address, *FAST, code=4)

    def test_it_only_asks(self):
        monitor = self.monitor(brief())
        self.call(self.path, *FAST, code=0)
        self.assertEqual({name for name in monitor.asked
                          if not name.startswith('query-')},
                         {'qmp_capabilities'})

    def test_over_tcp(self):
        monitor = self.monitor(brief(), None)
        self.call(monitor.address, *FAST, code=0)

    def test_json(self):
        self.monitor(brief(progress=True))
        out, _ = self.call(self.path, '--json', *FAST, code=0)
        entries = [json.loads(line) for line in out.splitlines()]
        percents = [e['percent'] for e in entries if e['percent'] is not None]
        self.assertEqual(percents, sorted(percents))
        self.assertEqual((entries[-1]['phase'], percents[-1],
                          entries[-1]['socket'], entries[-1]['downtime_ms']),
                         ('completed', 100, self.path, 34))
        self.assertEqual(
            entries[-1]['query_migrate']['progress']['percent'], 100)

    def test_several_sockets_and_the_worst_counts(self):
        self.monitor(brief())
        other = self.monitor(brief(end='failed'), f'{self.folder}/two',
                             name='second')
        out, _ = self.call(self.path, other.address, *FAST, code=3)
        self.assertIn('vm (', out)
        self.assertIn('second (', out)

    def test_no_migration(self):
        self.monitor([{'migrate': {}}])
        out, _ = self.call(self.path, code=5)
        self.assertIn('no migration', out)
        started = time.monotonic()
        self.call(self.path, '--wait', '--timeout', '0.5', code=5)
        self.assertLess(time.monotonic() - started, 5)

    def test_once(self):
        self.monitor(brief()[4:6])
        out, _ = self.call(self.path, '--once', code=0)
        for part in ('active', 'memory', 'link', '%'):
            self.assertIn(part, out)
        self.assertNotIn('\033', out)

    def test_wait_for_qemu_and_for_the_migration(self):
        def appear() -> None:
            time.sleep(0.6)
            self.monitor([{'migrate': {}}] * 3 + brief())
        starter = threading.Thread(target=appear)
        starter.start()
        out, _ = self.call(self.path, '--wait', '--timeout', '30', *FAST,
                           code=0)
        starter.join()
        self.assertIn('completed', out)

    def test_wait_passes_over_an_old_failure(self):
        self.monitor([{'migrate': {'status': 'failed'}}] * 4 + brief())
        self.call(self.path, '--wait', *FAST, code=0)
        old = self.monitor([{'migrate': {'status': 'failed'}}],
                           f'{self.folder}/old')
        self.call(old.address, code=3)

    def test_qemu_goes_away(self):
        self.monitor(brief()[:8], die=True)
        out, _ = self.call(self.path, *FAST, code=6)
        self.assertIn('QEMU went away in phase active', out)

    def test_qemu_leaves_right_after_the_end(self):
        """Managers end the source at once; an event may be all there is."""
        self.monitor(brief()[:-1], die=True, events=(
            {'event': 'MIGRATION', 'data': {'status': 'completed'}},))
        self.call(self.path, *FAST, code=0)
        other = self.monitor(brief()[:-1], f'{self.folder}/two', die=True)
        out, _ = self.call(other.address, *FAST, code=6)
        self.assertIn('look at the destination', out)


class Refusals(Base):
    def test_no_such_socket(self):
        self.assertIn('no such socket', self.refuse(self.path))

    def test_not_a_socket(self):
        self.assertIn('not a socket', self.refuse(self.folder))

    def test_nobody_listens(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(self.path)
        self.assertIn('nobody listens', self.refuse(self.path))
        self.assertIn('nobody listens', self.refuse('127.0.0.1:1'))

    def test_taken_by_another_client(self):
        self.monitor([{'migrate': {}}], greeting=None)
        said = self.refuse(self.path)
        self.assertIn('one client at a time', said)
        self.assertIn('-qmp unix:', said)

    def test_not_a_monitor(self):
        self.monitor([], greeting=b'SSH-2.0-OpenSSH\r\n')
        self.assertIn('not a QMP socket', self.refuse(self.path))
        hmp = self.monitor([], f'{self.folder}/hmp', greeting=(
            b"QEMU 10.0 monitor - type 'help' for more information\r\n"))
        self.assertIn('human monitor', self.refuse(hmp.address))
        other = self.monitor([], f'{self.folder}/json', greeting=b'{"a": 1}\n')
        self.assertIn('not a QMP socket', self.refuse(other.address))

    def test_usage(self):
        for argv in ((), ('--interval', '0', 'x'), ('--nonsense', 'x'),
                     ('x', 'x'), ('--timeout', '1', 'x'),
                     ('--report', '/proc/none/x', 'x')):
            self.refuse(*argv, code=2)


class Reports(Base):
    def test_written_at_the_end(self):
        self.monitor(brief())
        page = Path(self.folder, 'r.html')
        _, err = self.call(self.path, '--report', str(page), *FAST, code=0)
        self.assertIn(str(page), err)
        self.assertIn('34 ms', page.read_text())

    def test_not_written_about_nothing(self):
        self.monitor([{'migrate': {}}])
        page = Path(self.folder, 'r.html')
        _, err = self.call(self.path, '--report', str(page), code=5)
        self.assertIn('not written', err)
        self.assertFalse(page.exists())

    def test_a_full_disk_is_said(self):
        if not Path('/dev/full').exists():
            self.skipTest('no /dev/full')
        self.monitor(brief())
        _, err = self.call(self.path, '--report', '/dev/full', *FAST, code=1)
        self.assertIn('No space left', err)


class OnATerminal(Base):
    def start(self, *argv: str) -> tuple[subprocess.Popen, int]:
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        process = subprocess.Popen(
            [str(MIGTOP), *argv], stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, env={**os.environ, 'TERM': 'xterm',
                                         'COLUMNS': '90', 'LINES': '30',
                                         'PYTHONUTF8': '1'})
        os.close(slave)
        self.addCleanup(self.end, process)
        return process, master

    @staticmethod
    def end(process: subprocess.Popen) -> None:
        if process.poll() is None:
            process.kill()
            process.wait()

    @staticmethod
    def read(master: int, until: str = '', limit: float = 20) -> str:
        """What is written until `until`, or to the end."""
        said, deadline = '', time.monotonic() + limit
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(master, 65536)
            except OSError:
                return said
            said += data.decode(errors='replace')
            if not data or (until and until in said):
                return said
        raise AssertionError(f'no {until or "end"} in {said[-500:]!r}')

    def test_redraws_in_place_and_gives_the_cursor_back(self):
        self.monitor(brief())
        process, master = self.start(self.path, *FAST)
        said = self.read(master)
        self.assertEqual(process.wait(10), 0)
        self.assertIn('█', said)
        self.assertRegex(said, '\033\\[\\dA')
        self.assertLess(said.index('\033[?25l'), said.rindex('\033[?25h'))
        last = said.split('\033[?25h')[0].rsplit('A\r', 1)[-1]
        self.assertIn('completed', last)
        self.assertIn('100 %', last)

    def test_ctrl_c(self):
        self.monitor(brief()[:6])
        page = Path(self.folder, 'r.html')
        process, master = self.start(self.path, '--report', str(page))
        said = self.read(master, 'memory')
        process.send_signal(signal.SIGINT)
        said = self.read(master)
        self.assertEqual(process.wait(10), 130)
        self.assertIn('\033[?25h', said)
        self.assertNotIn('Traceback', said)
        self.assertIn('Not over', page.read_text())

    def test_stays_where_no_migration_has_begun(self):
        self.monitor([{'migrate': {}}])
        process, master = self.start(self.path, *FAST)
        self.read(master, 'waiting for a migration to start')
        time.sleep(0.3)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        self.read(master)
        self.assertEqual(process.wait(10), 130)
        process, master = self.start(self.path, '--once')
        self.read(master)
        self.assertEqual(process.wait(10), 5)

    def test_a_silent_qemu_is_said_to_be_silent(self):
        monitor = self.monitor(brief()[:6])
        process, master = self.start(self.path)
        self.read(master, 'memory')
        answer, lock = monitor._answer, threading.Event()

        def slow(client, request):
            lock.wait(20)
            return answer(client, request)
        monitor._answer = slow
        self.assertIn('not answered', self.read(master, 'not answered'))
        lock.set()
        process.terminate()
        self.read(master)
        self.assertEqual(process.wait(10), 130)


if __name__ == '__main__':
    unittest.main()
