# Tests of base/assemble on a small base of their own.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of base/assemble on a small base of their own."""

import os
import shutil
import tempfile
import unittest
from pathlib import Path

from scripts import ROOT, run

PATCH = '''From: somebody
Subject: [PATCH] a change

--- a/main.c
+++ b/main.c
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
'''


class Assemble(unittest.TestCase):
    """Each test has a repository and a base of a few files."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.repo = Path(folder.name, 'repo')
        self.build = self.repo / 'build'
        self.base = self.build / 'tree' / 'pristine'
        self.tree = self.build / 'tree' / 'ferry'
        self.put(self.base / '.ferry-base', 'archive 1\n')
        self.put(self.base / 'main.c', 'one\ntwo\nthree\n')
        self.put(self.base / 'lib/old.c', 'the old\n')
        self.put(self.base / 'lib/kept.c', 'kept\n')
        self.put(self.base / 'lib/old.h', 'old header\n')
        self.put(self.base / 'build/object', 'must not be copied\n')
        self.put(self.repo / 'new/a.c', 'ours\n')
        self.put(self.repo / 'new/notes.txt', 'not a source\n')
        self.put(self.repo / 'lib/compat/old.h', 'our header\n')
        self.put(self.repo / 'base/patches/0001-a.patch', PATCH)
        self.overlay('own new', 'place lib/compat/old.h lib/old.h',
                     'replace lib/old.c new/a.c')
        for name in ('assemble', 'manifest.py'):
            shutil.copy(ROOT / 'base' / name, self.repo / 'base' / name)

    @staticmethod
    def put(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def overlay(self, *lines: str) -> None:
        self.put(self.repo / 'base/overlay', '\n'.join(lines) + '\n')

    def assemble(self, *args: str, good: bool = True) -> str:
        env = {k: v for k, v in os.environ.items() if k != 'FERRY_BUILD'}
        result = run([self.repo / 'base/assemble', *args], env=env)
        self.assertEqual(result.returncode == 0, good,
                         result.stdout + result.stderr)
        return result.stdout + result.stderr

    def read(self, name: str) -> str:
        return (self.tree / name).read_text()

    def test_lays_over(self):
        self.assemble()
        self.assertEqual(self.read('main.c'), 'one\nTWO\nthree\n')
        self.assertEqual(self.read('new/a.c'), 'ours\n')
        self.assertEqual(self.read('lib/old.h'), 'our header\n')
        self.assertEqual(self.read('lib/kept.c'), 'kept\n')
        self.assertFalse((self.tree / 'lib/old.c').exists())
        self.assertFalse((self.tree / 'new/notes.txt').exists())
        self.assertFalse((self.tree / 'build').exists())
        self.assertTrue((self.tree / 'new/a.c').samefile(
            self.repo / 'new/a.c'))
        self.assertEqual((self.base / 'main.c').read_text(),
                         'one\ntwo\nthree\n')

    def test_second_run_changes_nothing(self):
        self.assemble()
        before = (self.tree / 'main.c').stat().st_mtime_ns
        self.assertEqual(self.assemble(), '')
        self.assertEqual((self.tree / 'main.c').stat().st_mtime_ns, before)

    def test_what_is_given_up_comes_back(self):
        self.assemble()
        self.overlay('own new')
        (self.repo / 'base/patches/0001-a.patch').unlink()
        self.assemble()
        self.assertEqual(self.read('lib/old.c'), 'the old\n')
        self.assertEqual(self.read('lib/old.h'), 'old header\n')
        self.assertFalse((self.tree / 'lib/old.h').is_symlink())
        self.assertEqual(self.read('main.c'), 'one\ntwo\nthree\n')

    def test_removed_file_leaves_the_tree(self):
        self.assemble()
        (self.repo / 'new/a.c').unlink()
        self.put(self.repo / 'new/b.c', 'b\n')
        self.assemble()
        self.assertFalse(os.path.lexists(self.tree / 'new/a.c'))
        self.assertEqual(self.read('new/b.c'), 'b\n')

    def test_new_base_starts_afresh(self):
        self.assemble()
        self.put(self.tree / 'leftover.c', 'x')
        self.put(self.base / '.ferry-base', 'archive 2\n')
        self.assemble()
        self.assertFalse((self.tree / 'leftover.c').exists())

    def test_patch_that_does_not_apply(self):
        self.put(self.base / 'main.c', 'one\nzwei\nthree\n')
        said = self.assemble(good=False)
        self.assertIn('0001-a.patch', said)
        self.assertIn('main.c', said)
        self.assertIn('Hunk #1', said)
        self.assertEqual(len(said.splitlines()), 1)
        self.assertFalse(self.tree.exists())

    def test_patched_and_replaced(self):
        self.overlay('own new', 'replace main.c new/a.c')
        self.assertIn('both patched and replaced: main.c',
                      self.assemble(good=False))

    def test_bad_manifest(self):
        for line, reason in (('own nowhere', 'no folder nowhere'),
                             ('place nothing.c x.c', 'no file nothing.c'),
                             ('replace lib/none.c a', 'which the base lacks'),
                             ('adopt x', 'cannot read "adopt x"')):
            with self.subTest(line):
                self.overlay(line)
                self.assertIn(reason, self.assemble(good=False))

    def test_no_base(self):
        shutil.rmtree(self.base)
        self.assertIn('run base/fetch', self.assemble(good=False))

    def test_copies(self):
        into = self.build / 'elsewhere'
        self.assemble('--into', str(into))
        self.assertFalse((into / 'new/a.c').is_symlink())
        self.assertEqual((into / 'new/a.c').read_text(), 'ours\n')

    def test_status(self):
        said = self.assemble('--status')
        self.assertIn('owned: 2 files', said)
        self.assertIn('lib/old.c  by new/a.c', said)
        self.assertIn('lib/compat/old.h  (as lib/old.h)', said)
        self.assertIn('0001-a.patch: main.c', said)


if __name__ == '__main__':
    unittest.main()
