# Tests of what "make install" installs of Python.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of make install: migtop works from there, and nothing is idle."""

import os
import sys
import tempfile
import unittest
from pathlib import Path

from scripts import ROOT, run

# Runs migtop's command line and then names what it has loaded.
LOADED = '''
import atexit, runpy, sys
atexit.register(lambda: print(*(m.__file__ for name, m in sys.modules.items()
                                if name.partition('.')[0] == 'ferry')))
sys.argv = [sys.argv[1], '--help']
runpy.run_path(sys.argv[0], run_name='__main__')
'''


class Installed(unittest.TestCase):
    """What stands below DESTDIR."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dest = Path(folder.name).resolve()
        done = run(['make', '-C', ROOT, 'install-migtop', 'prefix=/usr',
                    f'DESTDIR={self.dest}'])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.home = self.dest / 'usr' / 'share' / 'ferry'

    def files(self) -> set[Path]:
        """Modules that are installed."""
        return set((self.home / 'python').rglob('*.py'))

    def test_migtop_runs(self):
        done = run([self.dest / 'usr' / 'bin' / 'migtop', '--once',
                    self.dest / 'no-socket'], cwd='/',
                   env={**os.environ, 'PYTHONDONTWRITEBYTECODE': '1'})
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, 'error: .*no-socket')

    def test_all_is_used(self):
        done = run([sys.executable, '-B', '-c', LOADED,
                    self.home / 'scripts' / 'migtop'], cwd='/')
        self.assertEqual(done.returncode, 0, done.stderr)
        loaded = {Path(name) for name in done.stdout.splitlines()[-1].split()}
        self.assertEqual(loaded, self.files())

    def test_nothing_else(self):
        found = {str(path.relative_to(self.dest / 'usr'))
                 for path in self.dest.rglob('*') if not path.is_dir()}
        self.assertEqual(found - {
            str(path.relative_to(self.dest / 'usr'))
            for path in self.files()},
            {'bin/migtop', 'share/ferry/scripts/migtop'})


class Packages(unittest.TestCase):
    """The package that is used at run time does not know that of the tests.
    """

    def test_direction(self):
        for path in [*(ROOT / 'python' / 'ferry').rglob('*.py'),
                     ROOT / 'scripts' / 'migtop', ROOT / 'scripts' / 'demo']:
            text = path.read_text()
            self.assertNotRegex(text, r'(?m)^\s*(from|import) ferrytest\b',
                                path)


if __name__ == '__main__':
    unittest.main()
