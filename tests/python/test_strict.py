# The plan and the judge of switchovers under a strict downtime.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The plan and the judge of switchovers under a strict downtime."""

from __future__ import annotations

import sys
import unittest
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'python'))

from ferry.strict import judge, plan                    # noqa: E402
from ferry.strict.judge import Abort, Outcome           # noqa: E402

WHAT = plan.Switchover(1, 64, 50, plan.WAYS[0])
GOOD = Outcome(1, 'x', 'completed', attempts=1, total_ms=10, blackout_ms=18,
               noise_ms=1, runs=['dst'], verified=True)
STAYED = replace(GOOD, status='failed', total_ms=None, blackout_ms=None,
                 runs=['src'])


def fault(name: str) -> plan.Switchover:
    """With that fault."""
    return replace(WHAT, fault=next(one for one in plan.FAULTS
                                    if one.name == name))


class Plan(unittest.TestCase):
    """What is tried."""

    def test_same_seed(self) -> None:
        self.assertEqual(plan.plan(50, 3), plan.plan(50, 3))
        self.assertEqual(plan.plan(50, 3), plan.plan(90, 3)[:50])
        self.assertNotEqual(plan.plan(50, 3), plan.plan(50, 4))

    def test_a_third_has_faults(self) -> None:
        made = plan.plan(300)
        faults = [one.fault for one in made if one.fault is not plan.NONE]
        self.assertEqual(len(faults), 100)
        self.assertEqual(set(faults), set(plan.FAULTS))
        self.assertEqual({one.rate for one in made}, set(plan.RATES))
        self.assertEqual({one.way for one in made}, set(plan.WAYS))
        for one in made:
            self.assertIn(one.limit, one.fault.limits)

    def test_delay(self) -> None:
        what = fault('dst-ram-long').fault
        self.assertEqual(what.delay('dst', 50), 'ram:90')
        self.assertEqual(what.delay('src', 50), '')
        self.assertEqual(plan.NONE.delay('src', 50), '')


class Judge(unittest.TestCase):
    """What is wrong."""

    def wrong(self, outcome: Outcome, text: str,
              what: plan.Switchover = WHAT) -> None:
        """There is one problem, which says TEXT."""
        found = judge.problems(what, outcome, 9)
        self.assertEqual(len(found), 1, found)
        self.assertIn(text, found[0])

    def test_good(self) -> None:
        self.assertEqual(judge.problems(WHAT, GOOD, 9), [])
        self.assertEqual(judge.problems(WHAT, STAYED, 9), [])

    def test_too_long(self) -> None:
        self.wrong(replace(GOOD, total_ms=50.1), 'ledger')
        self.wrong(replace(GOOD, blackout_ms=60.1), 'was away')
        self.wrong(replace(GOOD, stopped_ms=51.1), 'was away')
        self.assertEqual(judge.problems(WHAT, replace(
            GOOD, blackout_ms=80, stopped_ms=50.9), 9), [])
        self.wrong(replace(GOOD, total_ms=None), 'no ledger')
        self.wrong(replace(GOOD, blackout_ms=None), 'no hand-over')
        late = replace(GOOD, total_ms=52, late_ms=1)
        self.assertEqual(judge.problems(WHAT, late, 9), [])

    def test_guests(self) -> None:
        self.wrong(replace(GOOD, runs=['src', 'dst']), 'runs on')
        self.wrong(replace(GOOD, runs=[]), 'runs on')
        self.wrong(replace(STAYED, runs=[]), 'runs on')
        self.wrong(replace(STAYED, runs=['src', 'dst']), 'runs on')
        self.wrong(replace(GOOD, lost=1), 'lost')
        self.wrong(replace(GOOD, repeated=1), 'repeated')
        self.wrong(replace(GOOD, verified=False), 'memory')
        self.wrong(replace(GOOD, wrong='something'), 'something')

    def test_aborts(self) -> None:
        one = Abort(1, 'r', 49, {}, 50)
        self.assertEqual(judge.problems(
            WHAT, replace(GOOD, aborts=[one]), 9), [])
        self.wrong(replace(GOOD, aborts=[replace(one, total_ms=51)]), 'took')
        self.wrong(replace(GOOD, aborts=[replace(one, seen_ms=52)]), 'seen')

    def test_must_stay(self) -> None:
        what = fault('src-ram-long')
        self.wrong(GOOD, 'all the same', what)
        told = ('The guest could not be switched over within the downtime '
                'limit; in the last, time was over during ')
        self.assertEqual(judge.problems(
            what, replace(STAYED, error=told + "'ram'"), 9), [])
        self.wrong(replace(STAYED, error=told + "'sync' (ram 3 ms)"),
                   'does not name', what)

    def test_lost(self) -> None:
        what = fault('dst-killed-late')
        lost = replace(STAYED, runs=[], error="'cont' has it go on")
        self.assertEqual(judge.problems(what, lost, 9), [])
        self.wrong(replace(lost, runs=['src']), 'runs on', what)
        self.wrong(replace(lost, error=''), 'what to do', what)

    def test_floor(self) -> None:
        ones = [replace(GOOD, blackout_ms=10 + i) for i in range(11)]
        self.assertEqual(judge.floor_ms([]), 0)
        self.assertEqual(judge.floor_ms(ones[:3]), 1)
        self.assertEqual(judge.floor_ms(ones), 5)

    def test_agreement(self) -> None:
        ones = [replace(GOOD, stopped_ms=seen)
                for seen in (7, 9.2, 10, 10.9, 11.5)]
        found = judge.agreement([*ones, STAYED, GOOD])
        self.assertEqual((found.count, found.within_noise), (5, 3))
        self.assertAlmostEqual(found.apart, 0.9)
        self.assertEqual(found.noise, 1)
        self.assertEqual(judge.agreement([]).count, 0)

    def test_unsafe(self) -> None:
        self.assertEqual(judge.unsafe(WHAT, replace(GOOD, total_ms=99)), [])
        self.assertEqual(len(judge.unsafe(WHAT, replace(GOOD, runs=[]))), 1)

    def test_json(self) -> None:
        one = replace(GOOD, aborts=[Abort(1, 'r', 2, {'ram': 1.0})])
        self.assertEqual(Outcome.load(one.dump()), one)
