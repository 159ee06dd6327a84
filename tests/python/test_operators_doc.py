# Tests of the page for operators: what it quotes is what is said.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the page for operators: what it quotes is what is said."""

from __future__ import annotations

import re
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'python'))

PAGE = ROOT / 'docs' / 'devel' / 'migration' / 'operators.rst'
# Said by other parts of QEMU
ELSEWHERE = {'Failed to connect to'}


def tables(text: str) -> list[tuple[str, list[str]]]:
    """The header of each table, and what its first column quotes."""
    found = []
    for match in re.finditer(r'^(=+) =+\n(.+)\n=+ =+\n((?:.*\n)*?)=+ =+\n',
                             text, re.M):
        width = len(match[1])
        cells: list[str] = []
        for line in match[3].splitlines():
            cells.append(line[:width])
        found.append((match[2][:width].strip(),
                      [quote for cell in cells
                       for quote in re.findall('``(.+?)``', cell)]))
    return found


def said() -> str:
    """All texts in the sources, each as one line."""
    text = ''.join(path.read_text() for path in
                   sorted((ROOT / 'migration').rglob('*.c')))
    return re.sub(r'"\s*\n\s*"', '', text)


class Quotes(unittest.TestCase):
    """Of the page"""

    def setUp(self) -> None:
        self.tables = dict(tables(PAGE.read_text()))
        self.said = said()

    def pieces(self, quote: str) -> list[str]:
        """A quote without what stands in for something else."""
        return [piece.strip(" ':") for piece in quote.split('...')
                if piece.strip(" ':")]

    def test_messages(self) -> None:
        """Errors and decisions are those of the sources."""
        for header in ('it says', 'it begins with'):
            quotes = self.tables[header]
            self.assertGreater(len(quotes), 6, header)
            for quote in set(quotes) - ELSEWHERE:
                for piece in self.pieces(quote):
                    self.assertTrue(piece in self.said, quote)

    def test_lines(self) -> None:
        """Labels of the summary are those that summary.c writes."""
        summary = (ROOT / 'migration' / 'api' / 'summary.c').read_text()
        for label in ('memory', 'rate', 'downtime', 'strict', 'decision',
                      'requests', 'waits', 'channel'):
            self.assertIn(label, self.tables['line'])
            self.assertIn(f'"{label}', summary)

    def test_parameters(self) -> None:
        """What is to be chosen exists."""
        rows = (ROOT / 'migration' / 'base' / 'params.def').read_text()
        quotes = self.tables['parameter']
        self.assertGreater(len(quotes), 5)
        for quote in quotes:
            self.assertIn(f'"{quote}"', rows)


if __name__ == '__main__':
    unittest.main()
