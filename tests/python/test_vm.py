# Tests of ferry.vm, ferry.migrate and ferry.errors with a stand-in for QEMU.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of ferry.vm, ferry.migrate and ferry.errors with a fake QEMU."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'python'))

from ferry import migrate, paths, vm as vm_module       # noqa: E402
from ferry.errors import FerryError, one_line           # noqa: E402
from ferry.guest import Guest                           # noqa: E402
from ferry.observer import Observer                     # noqa: E402
from ferry.qmp import QMPError                          # noqa: E402
from ferry.vm import VM                                 # noqa: E402

FAKE = Path(__file__).with_name('fake_qemu.py')


def exists(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return 'Z' not in Path(f'/proc/{pid}/stat').read_text().rsplit(
            ')', 1)[1].split()[0]
    except OSError:
        return False


class Base(unittest.TestCase):
    """A directory, and VMs that are ended with the test."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='f')
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def make(self, name: str, append: str = '', **more) -> VM:
        made = VM(FAKE, name, self.folder, 64, kernel=FAKE, append=append,
                  accelerator='tcg', **more)
        self.addCleanup(made.stop)
        return made


class CommandLine(Base):
    """What QEMU is started with."""

    def test_both_ends_differ_in_incoming_alone(self):
        one = self.make('x', args=['-cpu', 'max']).command_line()
        two = self.make('x', args=['-cpu', 'max'], incoming='defer'
                        ).command_line()
        self.assertEqual(two, one + ['-incoming', 'defer'])

    def test_memory_backend(self):
        line = self.make('x', mem_backend='memory-backend-ram,id=mem,'
                         'size=64M,reserve=off').command_line()
        self.assertIn('q35,memory-backend=mem', line)
        self.assertEqual(line[line.index('-object') + 1],
                         'memory-backend-ram,id=mem,size=64M,reserve=off')

    def test_no_serial_no_kernel(self):
        line = VM(FAKE, 'x', self.folder, 64, serial=False,
                  accelerator='tcg').command_line()
        for word in ('-chardev', '-kernel', '-append', '-S', '-incoming'):
            self.assertNotIn(word, line)

    def test_interrupts_are_not_shared(self):
        irqs = [irq for _, _, irq in vm_module.UARTS]
        self.assertEqual(len(set(irqs)), len(irqs))

    def test_path_too_long(self):
        with self.assertRaises(FerryError) as caught:
            VM(FAKE, 'x', Path('/tmp/' + 'y' * 100), 64)
        self.assertIn('too long', str(caught.exception))

    def test_no_such_qemu(self):
        before, paths.BUILD = paths.BUILD, Path('/nonexistent')
        try:
            for kind, hint in (('ferry', 'make ferry'), ('/no/qemu', 'path'),
                               ('pristine', 'make pristine')):
                with self.assertRaises(FerryError) as caught:
                    paths.qemu(kind)
                self.assertIn(hint, str(caught.exception))
        finally:
            paths.BUILD = before


class Life(Base):
    """Start and end."""

    def test_start_and_stop(self):
        made = self.make('a')
        self.assertFalse(made.alive())
        with made:
            pid = made.pid
            self.assertTrue(made.alive())
            self.assertEqual(made.qmp.cmd('query-status')['running'], True)
            self.assertGreater(made.cpu_seconds(), 0)
            self.assertGreater(made.peak_rss_mib(), 1)
        self.assertFalse(made.alive())
        self.assertFalse(exists(pid))
        self.assertFalse(Path(made.qmp_path).exists())
        self.assertGreater(made.cpu_seconds(), 0)   # remembered
        made.stop()                                 # again: no harm

    def test_logs_differ(self):
        """Also those of two that are the same."""
        heads = []
        for _ in range(2):
            with self.make('a') as made:
                heads.append(made.log_path.read_text().splitlines()[0])
                self.assertIn(shlex.join(made.command_line()), heads[-1])
        self.assertNotEqual(*heads)

    def test_ends_at_its_start(self):
        with self.assertRaises(FerryError) as caught:
            self.make('a', 'fake.die').start()
        self.assertIn('fake: cannot do that', str(caught.exception))

    def test_not_a_program(self):
        script = self.folder / 'qemu'
        script.write_text('nonsense')
        script.chmod(0o755)
        with self.assertRaises(FerryError) as caught:
            VM(script, 'x', self.folder, 64, accelerator='tcg').start()
        self.assertIn('cannot start x', str(caught.exception))

    def test_deaf(self):
        made = self.make('a', 'fake.deaf').start()
        pid = made.pid
        before, vm_module.STOP_TIMEOUT = vm_module.STOP_TIMEOUT, 0.2
        try:
            made.stop()
        finally:
            vm_module.STOP_TIMEOUT = before
        self.assertFalse(exists(pid))

    def test_ended_behind_our_back(self):
        made = self.make('a').start()
        os.kill(made.pid, signal.SIGKILL)
        with self.assertRaises(QMPError) as caught:
            made.qmp.cmd('query-status')
        self.assertEqual(caught.exception.cls, 'Disconnected')
        made._process.wait(5)
        with self.assertRaises(FerryError) as caught:
            made.check_alive()
        self.assertIn('killed by SIGKILL', str(caught.exception))

    def test_attached(self):
        with self.make('a') as made:
            self.assertFalse(made.attached('beat'))
            with self.assertRaises(FerryError):
                made.wait_attached('console', 0.05)
            with self.assertRaises(FerryError):
                made.attached('nonsense')


SCRIPT = '''
import sys, time
sys.path.insert(0, {python!r})
from pathlib import Path
from ferry.errors import FerryError, run_main
from ferry.vm import VM
def main(argv):
    with VM({fake!r}, 'a', Path({folder!r}), 64, accelerator='tcg',
            append={append!r}, kernel=Path('k')) as vm:
        print(vm.pid, flush=True)
        {body}
    return 3
run_main(main)
'''


class Scripts(Base):
    """run_main(), and that no QEMU is left over."""

    def script(self, body: str, append: str = '') -> subprocess.Popen:
        text = SCRIPT.format(python=str(ROOT / 'python'), fake=str(FAKE),
                             folder=str(self.folder), body=body,
                             append=append)
        made = subprocess.Popen([sys.executable, '-c', text], text=True,
                                stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)
        self.addCleanup(made.stdout.close)
        self.addCleanup(made.stderr.close)
        self.pid = int(made.stdout.readline())
        return made

    def gone(self) -> bool:
        for _ in range(200):
            if not exists(self.pid):
                return True
            time.sleep(0.01)
        return False

    def test_status(self):
        made = self.script('pass')
        self.assertEqual(made.wait(10), 3)
        self.assertTrue(self.gone())

    def test_error(self):
        made = self.script('raise FerryError("no luck")')
        self.assertEqual(made.wait(10), 1)
        self.assertEqual(made.stderr.read(), 'error: no luck\n')
        self.assertTrue(self.gone())

    def test_signals(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            made = self.script('time.sleep(60)')
            made.send_signal(number)
            self.assertEqual(made.wait(10), 130, number)
            self.assertEqual(made.stderr.read(), 'interrupted\n')
            self.assertTrue(self.gone())

    def test_killed(self):
        made = self.script('time.sleep(60)', 'fake.deaf')
        made.kill()
        made.wait(10)
        self.assertTrue(self.gone())

    def test_one_line(self):
        self.assertEqual(one_line(' a\n b\t c '), 'a b c')
        self.assertEqual(len(one_line('x' * 1000)), 400)


class Migrating(Base):
    """migrate(), with two fakes."""

    def go(self, words: str = '', watch: bool = True,
           **more) -> migrate.Result:
        self.src = self.make('src', words).start()
        self.dst = self.make('dst', words, incoming='defer').start()
        observer = Observer()
        self.addCleanup(observer.stop)
        observer.attach(self.src)
        self.guest = Guest(self.src)
        self.addCleanup(self.guest.close)
        self.guest.wait_ready(5)
        observer.wait_beats(self.src, 50)
        return migrate.migrate(
            self.src, self.dst, migrate.unix_uri(self.folder),
            guest=self.guest, observer=observer if watch else None,
            interval=0.01, **more)

    def test_good(self):
        seen = []
        result = self.go(on_sample=seen.append, caps={'xbzrle': False},
                         params={'downtime-limit': 7})
        self.assertTrue(result.ok, result.error)
        self.assertTrue(result.verified)
        self.assertEqual((result.status, result.total_ms, result.downtime_ms,
                          result.setup_ms, result.bytes, result.iterations),
                         ('completed', 123, 25, 1, 4567, 3))
        self.assertGreater(result.blackout_ms, 20)
        self.assertLess(result.blackout_ms, 1000)
        self.assertGreater(result.noise_ms, 0.5)
        self.assertGreater(result.wall_ms, 100)
        self.assertEqual((result.lost, result.repeated), (0, 0))
        self.assertEqual(seen, result.samples)
        self.assertEqual(seen[0]['caps'], {'xbzrle': False})
        self.assertEqual(seen[0]['params'], {'downtime-limit': 300})
        self.assertNotIn('caps', seen[1])
        self.assertEqual(seen[-1]['phase'], 'completed')
        self.assertLess(seen[0]['t'], seen[-1]['t'])
        self.assertIs(self.guest.vm, self.dst)

    def test_lost_heartbeats(self):
        result = self.go('fake.lose=3')
        self.assertFalse(result.ok)
        self.assertEqual(result.lost, 3)
        self.assertIn('3 heartbeats were lost', result.error)

    def test_two_guests(self):
        result = self.go('fake.twice')
        self.assertFalse(result.ok)
        self.assertIn('ran twice', result.error)

    def test_wrong_memory(self):
        result = self.go('fake.wrong')
        self.assertFalse(result.ok)
        self.assertIs(result.verified, False)
        self.assertIn('page 3', result.error)

    def test_no_verify(self):
        result = self.go('fake.wrong', verify=False)
        self.assertTrue(result.ok)
        self.assertIsNone(result.verified)

    def test_time_limit(self):
        result = self.go('fake.stuck', timeout=0.3)
        self.assertFalse(result.ok)
        self.assertIn('not over in time', result.error)
        self.assertTrue(self.src.qmp.cmd('query-status')['running'])
        for _ in range(100):
            status = self.src.qmp.cmd('query-migrate')['status']
            if status == 'cancelled':
                break
            time.sleep(0.01)
        self.assertEqual(status, 'cancelled')
        self.assertTrue(self.guest.verify(5).ok)    # still in the source

    def test_cancel(self):
        def cancel(sample: dict) -> None:
            if sample['phase'] == 'active':
                self.src.qmp.cmd('migrate_cancel')
        result = self.go('fake.stuck', on_sample=cancel)
        self.assertEqual((result.ok, result.status, result.error),
                         (False, 'cancelled', 'cancelled'))

    def test_destination_refuses(self):
        result = self.go('fake.refuse')
        self.assertFalse(result.ok)
        self.assertIn('I do not want this guest', result.error)
        self.assertTrue(self.guest.verify(5).ok)

    def test_destination_killed(self):
        result = self.go('fake.stuck', timeout=0.5,
                         on_sample=lambda _: self.dst.kill())
        self.assertFalse(result.ok)
        self.assertTrue(self.src.alive())

    def test_source_killed(self):
        with self.assertRaises(FerryError) as caught:
            self.go('fake.stuck', on_sample=lambda _: self.src.kill())
        self.assertIn('src', str(caught.exception))

    def test_destination_not_incoming(self):
        src, dst = self.make('src').start(), self.make('dst').start()
        with self.assertRaises(FerryError) as caught:
            migrate.migrate(src, dst, 'unix:x')
        self.assertIn('-incoming', str(caught.exception))

    def test_uris(self):
        self.assertRegex(migrate.tcp_uri(), r'^tcp:127\.0\.0\.1:\d+$')
        self.assertNotEqual(migrate.unix_uri(self.folder),
                            migrate.unix_uri(self.folder))


if __name__ == '__main__':
    unittest.main()
