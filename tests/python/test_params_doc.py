# Tests that the documentation of parameters agrees with their rows.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests that the documentation of parameters agrees with their rows."""

from __future__ import annotations

import re
import unittest

from params_def import ROOT, read_rows

PAGE = ROOT / 'docs' / 'devel' / 'migration' / 'parameters.rst'


def sections() -> dict[str, str]:
    """The text of the page below each label."""
    parts = re.split(r'^\.\. _migration-(\w+):$', PAGE.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


class Documentation(unittest.TestCase):
    """Every row is documented, in its section, with its values."""

    def test_all_rows_are_read(self):
        rows = read_rows()
        macros = [row.macro for row in rows]
        self.assertEqual(macros.count('CAP'), 25)
        self.assertEqual(len(rows) - 25, 40)

    def test_rows(self):
        page = sections()
        for row in read_rows():
            with self.subTest(row.name):
                text = page[row.section]
                if row.macro == 'CAP':
                    option = ('' if row.option == '-'
                              else f' (``-global`` {row.option})')
                    self.assertIn(f'\n- ``{row.name}``{option}: ', text)
                else:
                    lines = [re.split(r'\s+', line.replace('at once', 'at_once')
                                      .replace('next start', 'next_start'))
                             for line in text.splitlines()]
                    cells = [cell.replace(' ', '_') for cell in row.cells()]
                    self.assertIn(cells, lines)

    def test_no_other_rows(self):
        known = {row.name for row in read_rows()}
        for text in sections().values():
            for name in re.findall(r'^(?:- ``)?([a-z][a-z0-9-]+)(?:``|  *\S.* '
                                   r'(?:at once|next start) )', text, re.M):
                self.assertIn(name, known)


if __name__ == '__main__':
    unittest.main()
