# Tests of tests/interop/lanes.py: which case is next, and lanes that end.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of tests/interop/lanes.py: which case is next, and lanes that end."""

import subprocess
import sys
import unittest
from unittest import mock

from scripts import ROOT

sys.path[:0] = [str(ROOT / 'python'), str(ROOT / 'tests' / 'interop')]

import lanes                                                # noqa: E402
from common import Case                                     # noqa: E402
from ferry.errors import FerryError                         # noqa: E402

# Stands in for a lane: says of each case that it went well.
LANE = '''
import json, sys
for line in sys.stdin:
    name = line.strip()
    if name == "broken":
        sys.exit(1)
    print(json.dumps({"name": name, "ok": True, "skip": "", "notes": [],
                      "guest": "pristine"}), flush=True)
'''


def case(name: str, **more) -> Case:
    return Case(name, lambda lab: '', **more)


class Choosing(unittest.TestCase):
    """A case that goes on with the guest there is saves a boot."""

    def test_choose(self):
        pending = [case('ferry-a'), case('pristine-b'), case('refused')]
        self.assertEqual(lanes.choose(pending, 'pristine').name, 'pristine-b')
        self.assertEqual(lanes.choose(pending, 'pristine').name, 'ferry-a')
        self.assertEqual(lanes.choose(pending, '').name, 'refused')
        self.assertEqual(pending, [])


class Running(unittest.TestCase):
    """All cases are run, and those alone come last."""

    def setUp(self):
        popen = subprocess.Popen
        patch = mock.patch.object(
            lanes.subprocess, 'Popen', lambda argv, **more:
            popen([sys.executable, '-c', LANE], **more))
        patch.start()
        self.addCleanup(patch.stop)

    def test_all(self):
        cases = [case('a', alone=True), *(case(f'ferry-{n}')
                                          for n in range(9))]
        names = [v.name for v in lanes.side_by_side(cases, 2)]
        self.assertEqual(sorted(names), sorted(c.name for c in cases))
        self.assertEqual(names[-1], 'a')

    def test_lane_ends(self):
        with self.assertRaises(FerryError) as caught:
            list(lanes.side_by_side([case('broken'), case('x')], 2))
        self.assertIn('broken', str(caught.exception))


if __name__ == '__main__':
    unittest.main()
