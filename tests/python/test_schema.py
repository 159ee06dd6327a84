# Tests of what the patches add to QAPI.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what the patches add to QAPI."""

import re
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'base'))

from manifest import patched_names, patches                 # noqa: E402


def added() -> dict[str, str]:
    """Name of a patch that changes the schema -> the lines that it adds."""
    return {patch.name: '\n'.join(re.findall(r'^\+(?!\+\+ )(.*)$',
                                             patch.read_text(), re.M))
            for patch in patches(ROOT)
            if any(name.startswith('qapi/') for name in patched_names(patch))}


class Schema(unittest.TestCase):
    def test_no_name_of_a_product(self):
        """It is meant for upstream, where nobody knows what a Ferry is."""
        self.assertIn('MigrationProgress', ''.join(added().values()))
        for name, lines in added().items():
            self.assertNotRegex(lines, '(?i)ferry', name)


if __name__ == '__main__':
    unittest.main()
