# A test of the tables in the documentation.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A test of the tables in the documentation.

In a simple table of reStructuredText a line whose first column is empty goes on
with the row above.  One that has text in the first column alone is a row of its
own, which nobody means: the rest of that name stands in the line above.
"""

from __future__ import annotations

import re
import unittest
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / 'docs' / 'devel' / 'migration'
BORDER = re.compile(r' *=+(?: +=+)+ *')


def broken_rows(text: str) -> list[str]:
    """Lines of simple tables with text in the first column alone."""
    found = []
    second = 0                  # where that column begins; 0: no table
    for line in text.splitlines():
        if BORDER.fullmatch(line):
            second = [part.start() for part in re.finditer('=+', line)][1]
        elif not line.strip():
            second = 0
        elif second and not line[second:].strip():
            found.append(line)
    return found


class Tables(unittest.TestCase):
    """Of all pages"""

    def test_finds(self) -> None:
        """A name that goes on in the next line is found, a text is not."""
        head = '==== ====\nname text\n==== ====\n'
        self.assertEqual(broken_rows(head + 'a    b\n     c\n'), [])
        self.assertEqual(broken_rows(head + 'a    b\nc\n'), ['c'])

    def test_pages(self) -> None:
        """No page has such a row."""
        pages = sorted(DOCS.glob('*.rst'))
        self.assertGreater(len(pages), 20)
        for page in pages:
            with self.subTest(page=page.name):
                self.assertEqual(broken_rows(page.read_text()), [])


if __name__ == '__main__':
    unittest.main()
