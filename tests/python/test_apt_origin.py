# Tests of base/apt-origin: reading the machine's apt configuration.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of base/apt-origin: reading the machine's apt configuration."""

import tempfile
import unittest
from pathlib import Path

from scripts import ROOT, load, run

origin = load('base/apt-origin')


class Parsing(unittest.TestCase):
    """Both forms of a source entry."""

    def test_one_line(self):
        found = list(origin.one_line_entries(
            '# deb http://commented.test/debian x main\n'
            'deb-src http://a.test/debian bookworm main\n'
            'deb http://a.test/debian bookworm main contrib # tail\n'
            'deb [arch=amd64 signed-by=/k.gpg] http://b.test/d trixie main\n'))
        self.assertEqual(found, [
            ('http://a.test/debian', 'bookworm', ['main', 'contrib'], ''),
            ('http://b.test/d', 'trixie', ['main'], '/k.gpg')])

    def test_deb822(self):
        found = list(origin.deb822_entries(
            'Types: deb deb-src\n# a comment\nURIs: http://a.test/debian\n'
            'Suites: trixie trixie-updates\nComponents: main\n'
            'Signed-By: /usr/share/keyrings/k.gpg\n\n'
            'Enabled: no\nTypes: deb\nURIs: http://off.test\n'
            'Suites: trixie\nComponents: main\n\n'
            'Types: deb-src\nURIs: http://src.test\nSuites: trixie\n'
            'Components: main\n'))
        self.assertEqual([(e.uri, e.suite) for e in found],
                         [('http://a.test/debian', 'trixie'),
                          ('http://a.test/debian', 'trixie-updates')])
        self.assertEqual(found[0].signed_by, '/usr/share/keyrings/k.gpg')

    def test_inline_key(self):
        stanza = next(origin.deb822_entries(
            'Types: deb\nURIs: http://a.test\nSuites: s\nComponents: main\n'
            'Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n'
            ' -----END PGP PUBLIC KEY BLOCK-----\n'))
        with tempfile.TemporaryDirectory() as folder:
            path = origin.key_file(stanza.signed_by, Path(folder))
            self.assertEqual(Path(path).read_text().splitlines(),
                             ['-----BEGIN PGP PUBLIC KEY BLOCK-----', '',
                              'abc', '-----END PGP PUBLIC KEY BLOCK-----'])

    def test_no_key_means_the_archive_keyring(self):
        self.assertEqual(origin.key_file('', Path('/nowhere')),
                         origin.DEFAULT_KEY)


class Choosing(unittest.TestCase):
    """The program as base/fetch calls it."""

    def ask(self, files: dict[str, str]):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return run([ROOT / 'base/apt-origin', '--etc', folder])

    def test_skips_other_archives(self):
        name = origin.codename()
        result = self.ask({
            'sources.list': f'deb http://sec.test {name}-security main\n',
            'sources.list.d/a.list': 'deb http://other.test nodistro main\n',
            'sources.list.d/b.sources':
                f'Types: deb\nURIs: http://right.test/debian\n'
                f'Suites: {name}\nComponents: main\n'})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.split('\t')[0],
                         'http://right.test/debian')

    def test_nothing_to_choose_from(self):
        result = self.ask({'sources.list': ''})
        self.assertEqual(result.returncode, 1)
        self.assertIn('no entry', result.stderr)


if __name__ == '__main__':
    unittest.main()
