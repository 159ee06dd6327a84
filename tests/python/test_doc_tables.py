# A test of the tables in the documentation.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A test of the tables in the documentation.

In a simple table of reStructuredText a line whose first column is empty goes on
with the row above.  One that has text in the first column alone is a row of its
own, which nobody means: the rest of that name stands in the line above.  Text
between two columns, or a border within a table that is unlike the others, makes
an error of the whole table.
"""

from __future__ import annotations

import re
import unittest
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / 'docs' / 'devel' / 'migration'
BORDER = re.compile(r' *=+(?: +=+)+ *')


def broken_rows(text: str) -> list[str]:
    """Lines of simple tables with text in the first column alone, or between
    two columns."""
    found = []
    border, columns = '', []    # of the table; none: no table
    for line in text.splitlines():
        if BORDER.fullmatch(line):
            if border and line.rstrip() != border:
                found.append(line)
            border = line.rstrip()
            columns = [part.span() for part in re.finditer('=+', line)]
        elif not line.strip():
            border, columns = '', []
        elif columns and (not line[columns[1][0]:].strip() or any(
                line[end:start].strip()
                for (_, end), (start, _) in zip(columns, columns[1:]))):
            found.append(line)
    return found


class Tables(unittest.TestCase):
    """Of all pages"""

    def test_finds(self) -> None:
        """A name that goes on in the next line is found, a text is not; and what
        does not keep to the columns."""
        head = '==== ====\nname text\n==== ====\n'
        self.assertEqual(broken_rows(head + 'a    b\n     c\n'), [])
        self.assertEqual(broken_rows(head + 'a    b\nc\n'), ['c'])
        self.assertEqual(broken_rows(head + 'a b  c\nab cd e\n'), ['ab cd e'])
        self.assertEqual(broken_rows(head + 'a    b\n=== ===\n'), ['=== ==='])

    def test_pages(self) -> None:
        """No page has such a row."""
        pages = sorted(DOCS.glob('*.rst'))
        self.assertGreater(len(pages), 20)
        for page in pages:
            with self.subTest(page=page.name):
                self.assertEqual(broken_rows(page.read_text()), [])


if __name__ == '__main__':
    unittest.main()
