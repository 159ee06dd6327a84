# Tests that the page about commands is the one that its table makes.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests that the page about commands is the one that its table makes."""

from __future__ import annotations

import importlib.util
import sys
import unittest

from params_def import ROOT

FOLDER = ROOT / 'tests' / 'phases'


def load(name: str):
    """A module of that suite."""
    spec = importlib.util.spec_from_file_location(
        f'phases_{name}', FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Page(unittest.TestCase):
    """docs/devel/migration/commands.rst"""

    def test_is_up_to_date(self):
        table = load('table')
        self.assertEqual(table.PAGE.read_text(), table.page(),
                         'tests/phases/table.py --write')

    def test_phases_exist(self):
        table = load('table')
        for row in table.ROWS:
            with self.subTest(row.name):
                self.assertLessEqual(set(row.source), set(table.SOURCE))
                self.assertLessEqual(set(row.destination),
                                     set(table.DESTINATION))
