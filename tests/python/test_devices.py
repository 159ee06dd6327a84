# What tests/hostile/devices makes of a QEMU that ends.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/hostile/devices makes of a QEMU that ends."""

from __future__ import annotations

import sys
import unittest
from types import SimpleNamespace
from typing import Any

from scripts import ROOT, load

sys.path.insert(0, str(ROOT / 'tests' / 'hostile'))
devices = load('tests/hostile/devices')


class Spoiled:
    """A bench that ends when the true section follows what was changed."""
    target = True

    def __init__(self, name: str) -> None:
        self.sections = [SimpleNamespace(name=name, record=None)]

    def try_lone(self, change: Any) -> bool:
        """Load one section."""
        if change.name == self.sections[0].name:
            raise devices.Ended('killed by SIGABRT')
        return True


def section(name: str) -> Any:
    """The tally of one change of a section with that NAME."""
    trial = devices.Trial(None, SimpleNamespace(name='pc'))
    trial.faults = [devices.Fault('chip/*', 'sometimes', '')]
    return trial.section(Spoiled(name), name, [
        devices.changes.Change(f'{name}/field=zero', None)])


class Section(unittest.TestCase):
    """What the true section finds after changed ones."""

    def test_known(self) -> None:
        tally = section('chip')
        self.assertEqual((tally.bad, tally.loaded, tally.known), ([], 1, 1))

    def test_other(self) -> None:
        tally = section('disk')
        self.assertEqual((len(tally.bad), tally.known), (1, 0))


if __name__ == '__main__':
    unittest.main()
