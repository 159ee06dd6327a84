# Tests of ferry.guest: what the guest says, and who it says it to.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of ferry.guest: what the guest says, and who it says it to."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'python'))

from ferry import guest                     # noqa: E402
from ferry.errors import FerryError         # noqa: E402
from ferry.vm import VM                     # noqa: E402

FAKE = Path(__file__).with_name('fake_qemu.py')


class Parsing(unittest.TestCase):
    """The control port's language."""

    def test_values(self):
        self.assertEqual(guest.parse_values('a=1 b=x c=00ff d=0 junk e='),
                         {'a': 1, 'b': 'x', 'c': '00ff', 'd': 0, 'e': ''})

    def test_verify_ok(self):
        verdict = guest.parse_verify('ok pages=10 writes=7 sum=7 wrong=0', 7)
        self.assertEqual((verdict.ok, verdict.pages, verdict.writes,
                          verdict.sum), (True, 10, 7, 7))

    def test_verify_wrong_page(self):
        verdict = guest.parse_verify(
            'bad pages=10 writes=7 sum=7 wrong=2 index=4 offset=17 seq=3 '
            'expected=00000000000000aa got=00000000000000ab')
        self.assertFalse(verdict.ok)
        for word in ('2 of 10', 'page 4 ', 'byte 17', '00aa', '00ab'):
            self.assertIn(word, verdict.detail)

    def test_verify_wrong_sum(self):
        verdict = guest.parse_verify('bad pages=10 writes=9 sum=7 wrong=0')
        self.assertFalse(verdict.ok)
        self.assertIn('account for 7', verdict.detail)

    def test_verify_lost_block(self):
        verdict = guest.parse_verify('bad pages=10 writes=7 sum=7 wrong=0 '
                                     'blocks=3 made=9 refused=0 lost=2')
        self.assertFalse(verdict.ok)
        self.assertIn('2 of the 9 blocks', verdict.detail)

    def test_verify_went_back(self):
        verdict = guest.parse_verify('ok pages=10 writes=7 sum=7 wrong=0', 8)
        self.assertFalse(verdict.ok)
        self.assertIn('went back', verdict.detail)

    def test_verify_nonsense(self):
        for text in ('', 'ok', 'ok pages=1', 'bad pages=1 writes=2 sum=2 '
                     'wrong=0', 'ok pages=x writes=1 sum=1 wrong=0'):
            with self.assertRaises(FerryError):
                guest.parse_verify(text)

    def test_lines(self):
        data = b'one\r\n\ntwo\nthree'
        for cut in range(len(data) + 1):
            lines = guest.Lines()
            self.assertEqual(lines.feed(data[:cut]) + lines.feed(data[cut:]),
                             ['one', '', 'two'])

    def test_endless_line(self):
        lines = guest.Lines()
        for _ in range(100):
            self.assertEqual(lines.feed(b'x' * 4096), [])
        self.assertLess(len(lines.feed(b'\n')[0]), 5000)

    def test_arguments(self):
        text = guest.guest_args(96, 32, 4000, seed=9, order='linear')
        for word in ('ferry.fill=96', 'ferry.work=32', 'ferry.rate=4000',
                     'ferry.seed=9', 'ferry.order=linear', 'console=ttyS0'):
            self.assertIn(word, text.split())


class Talking(unittest.TestCase):
    """The client, with a stand-in for QEMU and the guest."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='f')
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def vm(self, name: str, append: str = '', **more) -> VM:
        vm = VM(FAKE, name, self.folder, 64, kernel=FAKE, append=append,
                accelerator='tcg', **more)
        self.addCleanup(vm.stop)
        return vm.start()

    def guest(self, vm: VM) -> guest.Guest:
        made = guest.Guest(vm)
        self.addCleanup(made.close)
        return made

    def test_ready_and_commands(self):
        talk = self.guest(self.vm('a'))
        talk.wait_ready(5)
        self.assertEqual(talk.status()['pages'], 10)
        self.assertTrue(talk.verify(5).ok)
        self.assertIn('ferry-guest: up', talk.last_line())
        with self.assertRaises(FerryError) as caught:
            talk.command('dance')
        self.assertIn('unknown command dance', str(caught.exception))

    def test_question_is_asked_again(self):
        talk = self.guest(self.vm('a', 'fake.mute'))
        before, guest.ASK_AGAIN = guest.ASK_AGAIN, 0.1
        try:
            self.assertTrue(talk.command('ping', 5).startswith('ok'))
        finally:
            guest.ASK_AGAIN = before

    def test_no_answer(self):
        talk = self.guest(self.vm('a', incoming='defer'))
        with self.assertRaises(FerryError) as caught:
            talk.command('ping', 0.1)
        self.assertIn('did not answer "ping"', str(caught.exception))

    def test_panic(self):
        talk = self.guest(self.vm('a', 'fake.panic'))
        with self.assertRaises(FerryError) as caught:
            talk.wait_ready(5)
        self.assertIn('Kernel panic', str(caught.exception))

    def test_qemu_ends(self):
        vm = self.vm('a', incoming='defer')
        talk = self.guest(vm)
        vm.kill()
        with self.assertRaises(FerryError) as caught:
            talk.wait_ready(5)
        self.assertIn('killed by SIGKILL', str(caught.exception))

    def test_not_up_in_time(self):
        talk = self.guest(self.vm('a', incoming='defer'))
        with self.assertRaises(FerryError) as caught:
            talk.wait_ready(0.2)
        self.assertIn('not up within', str(caught.exception))

    def test_move_while_a_question_is_open(self):
        one = self.vm('a', incoming='defer')    # its guest never answers
        two = self.vm('b')
        talk = self.guest(one)
        talk.expect(two)
        mover = threading.Timer(0.2, talk.move_to, (two,))
        mover.start()
        start = time.monotonic()
        self.assertTrue(talk.command('ping', 5).startswith('ok'))
        self.assertLess(time.monotonic() - start, 2)
        mover.join()
        # The ports of the first are free again for somebody else.
        self.guest(one)

    def test_close_twice(self):
        talk = self.guest(self.vm('a'))
        talk.close()
        talk.close()


if __name__ == '__main__':
    unittest.main()
