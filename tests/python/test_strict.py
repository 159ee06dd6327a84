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

from ferry.observer import Crossing, Handover           # noqa: E402
from ferrytest.postcopy import ACTIVE                   # noqa: E402
from ferrytest.strict import judge, machines, plan      # noqa: E402
from ferrytest.strict.follow import (                   # noqa: E402
    MIDWAY, REMEMBERED, Following, stopped_ms)
from ferrytest.strict.judge import Abort, Outcome       # noqa: E402

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

    def test_some_follow(self) -> None:
        made = plan.plan(600)
        some = [one for one in made if one.follow]
        self.assertAlmostEqual(len(some), 120, delta=4)
        for fault in (True, False):
            self.assertEqual({one.follow for one in some
                              if (one.fault is not plan.NONE) == fault},
                             set(plan.FOLLOWS))
        faults = {one.fault for one in some}
        self.assertEqual({one for one in plan.FAULTS
                          if one.ends == plan.LOST} & faults, set())
        self.assertEqual(len({one.name() for one in made}), 600)
        self.assertEqual(plan.only(made, '-postcopy'), some)
        for one in some:
            self.assertIn(f'-{one.follow.name}-{one.fault.name}', one.name())

    def test_machines(self) -> None:
        made = plan.plan(90)
        for machine in machines.MACHINES:
            some = [one for one in made if one.machine is machine]
            self.assertEqual(len(some), 30)
            self.assertTrue(any(one.fault.ends == plan.STAYS for one in some))
            self.assertTrue(any(one.follow for one in some))
        self.assertIn('ram-writer', ' '.join(
            machines.MACHINES[-1].options('ferry')))
        self.assertNotIn('ram-writer', ' '.join(
            machines.MACHINES[-1].options('pristine')))

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
        reached = Abort(1, "time was over during 'sync'", 50, {'ram': 3}, 50)
        other = replace(STAYED, error=told + "'sync' (ram 3 ms)")
        self.wrong(replace(other, aborts=[reached]), 'no attempt was over in',
                   what)
        # None came so far.
        self.assertEqual(judge.problems(
            what, replace(other, aborts=[replace(reached, parts={})]), 9), [])
        # It was named before, and the last attempt was over in another part.
        aborts = [Abort(1, "time was over during 'ram'", 50, {}, 50),
                  Abort(2, "time was over during 'sync'", 50, {}, 50)]
        self.assertEqual(judge.problems(
            what, replace(other, aborts=aborts), 9), [])
        self.wrong(replace(other, aborts=aborts[:1]), 'does not tell', what)

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

    def test_followed(self) -> None:
        what = replace(WHAT, follow=plan.FOLLOWS[0])
        # What the first heartbeat waits for is no part of the limit,
        slow = replace(GOOD, blackout_ms=400, stopped_ms=12, follow_ms=80)
        self.assertEqual(judge.problems(what, slow, 9), [])
        self.assertEqual(slow.first_ms, 388)
        # and there is no floor to take the place of who was not asked.
        self.wrong(replace(slow, stopped_ms=None), 'nobody asked', what)
        self.wrong(replace(slow, stopped_ms=51.1), 'was away', what)
        self.wrong(replace(slow, total_ms=50.1), 'ledger', what)
        self.assertFalse(GOOD.followed)
        self.wrong(replace(GOOD, blackout_ms=400), 'was away', what)
        self.assertIsNone(GOOD.first_ms)

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
        one = replace(one, follow_ms=3.5, gap_ms=2, faults={'count': 4})
        self.assertEqual(Outcome.load(one.dump()), one)
        old = GOOD.dump()
        for name in ('follow_ms', 'gap_ms', 'faults'):
            del old[name]       # as files have it that were written before
        self.assertEqual(Outcome.load(old), GOOD)


class Follow(unittest.TestCase):
    """Ends precopy, and asks the guest in time."""

    class Fake:
        """The source, the observer, and the guest; what they were told."""

        def __init__(self) -> None:
            self.qmp, self.told, self.crossed = self, [], None
            self.beats = 10

        def cmd(self, name: str) -> None:
            self.told.append(name)

        def move_to(self, _vm: object) -> None:
            self.told.append('move')

        def crossing(self, _start: int) -> Crossing | None:
            return self.crossed

        def apart_ms(self, first: int, count: int) -> float:
            self.told.append((first, count))
            return 300.0

        def handovers(self, _start: int) -> list[Handover]:
            return [Handover(1, 2, 77, 320.0, 0, 0)]

        def counts(self, since: int) -> list[tuple[int, int]]:
            return [(since, self.beats)]

    def look(self, how: plan.Follow, *samples: tuple[str, int]
             ) -> tuple[Follow.Fake, Following]:
        """What was done at these (phase, bytes sent); the guest comes last."""
        fake = self.Fake()
        following = Following(how, fake, fake, fake, fake, 0)
        for number, (phase, sent) in enumerate(samples, 1):
            if number == len(samples):
                fake.crossed = Crossing(320.0, 5, 7)
            following.look({'phase': phase, 'transferred': sent})
        return fake, following

    def test_at_once(self) -> None:
        fake, following = self.look(
            plan.FOLLOWS[0], ('setup', 0), ('device', 9), (ACTIVE, 9),
            (ACTIVE, 9))
        self.assertEqual(fake.told, ['migrate-start-postcopy', 'move', (5, 7)])
        self.assertEqual(following.stopped_ms, 20)
        following.look({'phase': ACTIVE, 'transferred': 9})
        self.assertEqual(len(fake.told), 3)

    def test_midway(self) -> None:
        how = next(one for one in plan.FOLLOWS if one.midway)
        fake, _ = self.look(how, ('setup', 0), ('active', MIDWAY - 1))
        self.assertEqual(fake.told, [])
        fake, _ = self.look(how, ('active', 0), ('active', MIDWAY))
        self.assertEqual(fake.told, ['migrate-start-postcopy'])

    def test_too_late(self) -> None:
        fake = self.Fake()
        self.assertIsNone(stopped_ms(fake, fake, 0))
        fake.crossed = Crossing(320.0, 5, 7)
        self.assertEqual(stopped_ms(fake, fake, 0), 20)
        fake.beats = REMEMBERED
        self.assertIsNone(stopped_ms(fake, fake, 0))
