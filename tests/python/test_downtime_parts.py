# Tests that what names parts of a downtime agrees with their rows.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests that what names parts of a downtime agrees with their rows."""

from __future__ import annotations

import re
import unittest
from dataclasses import dataclass
from pathlib import Path

from ferrytest.strict import plan
import story

ROOT = Path(__file__).resolve().parents[2]
DEF = ROOT / 'migration' / 'base' / 'downtime-parts.def'
PAGE = ROOT / 'docs' / 'devel' / 'migration' / 'strict-downtime.rst'

ROW = re.compile(r'^DOWNTIME_PART\((.*?)\)$', re.M | re.S)
SIDES = {'SOURCE': ('source',), 'DESTINATION': ('destination',),
         'BOTH': ('source', 'destination'), 'NETWORK': ()}
DELAYS = {'CAN_DELAY': True, 'NO_DELAY': False}


@dataclass
class Part:
    """A row of downtime-parts.def."""
    id: str
    name: str
    side: str
    can_delay: bool
    guess: tuple[int, int]

    @property
    def delayed(self) -> list[tuple[str, str]]:
        """Name and side of each place where it can be delayed."""
        return [(self.name, side) for side in SIDES[self.side]
                if self.can_delay]


def read_parts() -> list[Part]:
    """All rows, in the order of the file."""
    rows = []
    for body in ROW.findall(DEF.read_text()):
        enum, name, side, delay, once, section = (
            cell.strip() for cell in body.split(','))
        rows.append(Part(enum, name.strip('"'), side, DELAYS[delay],
                         (int(once), int(section))))
    return rows


def table(heads: list[str]) -> list[list[str]]:
    """The first two cells of the rows of the table that begins with HEADS."""
    blocks = re.findall(r'^(=+  =+  =+.*)\n(.*)\n\1\n(.*?)\n\1$',
                        PAGE.read_text(), re.M | re.S)
    for _, head, rows in blocks:
        if head.split()[:len(heads)] == heads:
            return [re.split(r'  +', line)[:2] for line in rows.split('\n')
                    if not line.startswith(' ')]
    raise AssertionError(f'no table with {heads}')


class Parts(unittest.TestCase):
    """One list, and what repeats some of it."""

    def setUp(self) -> None:
        self.parts = read_parts()

    def test_rows_are_complete(self) -> None:
        self.assertGreater(len(self.parts), 5)
        for part in self.parts:
            self.assertIn(part.side, SIDES)
            self.assertEqual(part.name.upper().replace('-', '_'), part.id)
            if part.side == 'NETWORK':
                self.assertFalse(part.can_delay)

    def test_table_of_meanings(self) -> None:
        expected = [[p.name, p.side.lower()] for p in self.parts]
        rows = table(['part', 'side', 'what'])
        self.assertEqual(rows[:-1], expected)
        self.assertEqual(rows[-1][0], 'other')

    def test_table_of_delays(self) -> None:
        rows = [tuple(row) for row in table(['part', 'side', 'where'])]
        expected = [one for p in self.parts for one in p.delayed]
        self.assertEqual(sorted(rows), sorted(expected))

    def test_planned_faults(self) -> None:
        """Each delay that is planned exists on its side."""
        sides = {'src': 'source', 'dst': 'destination'}
        places = [one for p in self.parts for one in p.delayed]
        for fault in plan.FAULTS:
            if fault.part:
                self.assertIn((fault.part, sides[fault.side]), places)

    def test_story(self) -> None:
        """What tests of the tools show is what there is to show."""
        names = [p.name for p in self.parts]
        told = [part['name'] for part in story.DOWNTIME['parts']]
        self.assertEqual(told, [name for name in names if name in told])


if __name__ == '__main__':
    unittest.main()
