# A limit of the downtime that holds when memory follows the guest.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A limit of the downtime that holds when memory follows the guest.

The guest has a device whose queues lie in memory that has not come yet when it
is loaded, so that pages are asked for in each attempt.  Attempts are made to
fail by delays in one of the two QEMUs, and to succeed by a higher limit; in
between the guest goes on at the source and writes all the while.
"""

from __future__ import annotations

import fcntl
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Iterator

from ferry.link import Link
from ferry.migrate import tcp_uri
from ferrytest.gate import Gate
from ferrytest.postcopy import ACTIVE
from ferrytest.suite import Case

from common import ends_by_itself
from lab import Lab, check
from postcopy import POINTS, PLAIN, PREEMPT, Move, Way, summary

DEVICE = ('-device', 'virtio-balloon-pci,addr=4,id=balloon')
DELAY, TOO_LITTLE, PLENTY = 150, 60, 600       # ms
# What may be left in that time is less than what the guest has changed in a
# pass, if it is fast: so there is no way for it to leave but by postcopy.
SLOWLY = {'max-bandwidth': 32 << 20}
FAST_GUEST = 8000
MANY = 100              # attempts
SOON = 20.0             # s
ABORTED = 'MIGRATION_SWITCHOVER_ABORTED'
STRICT = {'strict-downtime': True, 'return-path': True}
XBZRLE = Way('xbzrle', {'xbzrle': True})

# Where it is too slow for TOO_LITTLE: by the kind of the destination, one that
# waits for the other side, and one that does not.
SLOW = {'ferry': ('destination', 'device-load'),
        'pristine': ('source', 'ram')}
DISKS = ('disk-here', 'disk-there')
SLOW_SAVE = ('source', 'device-save')


def disk(path: Path) -> list[str]:
    """The options for a disk, which the guest does not know how to use."""
    with open(path, 'wb') as image:
        image.truncate(1 << 20)
    return ['-drive', f'file={path},format=raw,if=none,id=disk',
            '-device', 'virtio-blk-pci,drive=disk,addr=5']


def slowed(side: str, slow: tuple[str, str] | None) -> list[str]:
    """The options of that side's QEMU."""
    if slow is None or slow[0] != side:
        return list(DEVICE)
    return [*DEVICE, '-global', f'migration.x-fault-delay={slow[1]}:{DELAY}']


class Promised(Move):
    """A migration whose limit is a promise.

    With a GATE the guest stands still on both sides until that is opened.
    """

    gate: Gate | None = None

    def ask(self, when: str) -> None:
        """Begin, and ask for postcopy at that point of POINTS."""
        self.begin(tcp_uri(), self.via)
        self.wait_sent(POINTS[when])
        self.switched = time.time()
        self.source.vm.qmp.cmd('migrate-start-postcopy')

    def set(self, **params: int) -> None:
        """Change parameters on the way; '_' stands for '-'."""
        self.source.vm.qmp.cmd('migrate-set-parameters', {
            name.replace('_', '-'): value for name, value in params.items()})

    def reset_caps(self) -> None:
        """The next migration of the source is a plain one."""
        self.source.vm.qmp.cmd('migrate-set-capabilities', {
            'capabilities': [{'capability': name, 'state': False}
                             for name in self.caps]})

    def strict(self) -> dict:
        """What is to be seen of it."""
        return self.figures()['progress']['strict']

    def wait_aborted(self, count: int) -> None:
        """Wait until so many attempts were given up."""
        self.until(lambda: len(self.source.when(ABORTED)) >= count,
                   f'{count} attempts are not given up', SOON)

    def wait_held(self) -> None:
        """Wait until the guest stands still on both sides."""
        assert self.gate is not None
        self.until(self.gate.reached, 'there is no attempt')

    def open_gate(self) -> None:
        """It is not held any more."""
        if self.gate is not None:
            self.gate.open()

    def wait_gone(self) -> None:
        """Wait until the guest is over there."""
        self.until(lambda: bool(self.target.when('RESUME')),
                   'the guest does not leave', SOON)

    def check_aborts(self, longest_ms: float) -> None:
        """Each was told of, with a reason and a pause that was short."""
        told = [event.data for event in self.source.events
                if event.name == ABORTED]
        for number, one in enumerate(told, 1):
            check(one['attempt'] == number, f'attempt {number} was told of in '
                  f'its turn: {one}')
            check(len(one['reason']) > 10, f'with a reason: {one}')
            check(one['downtime']['total-us'] / 1e3 < longest_ms,
                  f'a pause of less than {longest_ms} ms: {one}')

    def check_promise(self, one_sided: bool, limit: float,
                      follows: bool = True) -> str:
        """What is to be seen of it in the end; the ledger."""
        check(ACTIVE in self.source.states() or not follows,
              f'it was by postcopy: {self.source.states()}')
        seen = self.strict()
        aborts = len(self.source.when(ABORTED))
        check(seen['attempts'] == aborts + 1,
              f'{aborts} attempts were in vain: {seen}')
        check(seen['one-sided'] == one_sided, f'what kind it was: {seen}')
        downtime = self.info['progress']['downtime']
        total = downtime['total-us'] / 1e3
        check(total < limit, f'the limit was kept: {total} ms')
        return ', '.join(f'{part["name"]} {part["us"] / 1e3:.1f}'
                         for part in downtime['parts'])


@contextmanager
def promised(lab: Lab, source: str, target: str, way: Way, limit: int,
             slow: tuple[str, str] | None = None, attempts: int = MANY,
             disks: bool = False, strict: bool = True, held: bool = False
             ) -> Iterator[Promised]:
    """A migration about to begin, with a guest of its own.

    What is SLOW takes DELAY ms.  Unless STRICT, the limit is not enforced.  If
    HELD, the destination does not go on when it has loaded the devices.
    """
    gate = Gate(lab.workdir, 'device-load') if held else None
    more = [disk(lab.workdir / side) if disks else [] for side in DISKS]
    src = lab.boot_anew(source, modules=True,
                        args=slowed('source', slow) + more[0])
    lab.observer.wait_beats(src, 200)
    lab.guest.set_rate(FAST_GUEST)
    dst = lab.target(target,
                     args=(slowed('destination', slow) + more[1]
                           + (gate.args if gate else [])))
    try:
        with Link() as link, Promised(lab, dst, way, link, **{
                **SLOWLY, 'downtime-limit': limit,
                'strict-downtime-attempts': attempts}) as move:
            move.caps |= STRICT if strict else {}
            move.gate = gate
            yield move
    finally:
        if gate is not None:
            gate.open()
        lab.clear()


@contextmanager
def locked(lab: Lab) -> Iterator[None]:
    """Somebody else has the destination's disk open for writing."""
    with open(lab.workdir / DISKS[1], 'r+b') as other:
        fcntl.lockf(other, fcntl.LOCK_EX, 200, 100)
        yield


def ends(move: Promised, status: str) -> float:
    """Wait until it has ended so at the source; how long that took, in s.

    The destination may fail before, as the source closes the connections.
    """
    start = time.monotonic()
    while move.source.status != status:
        check(time.monotonic() < start + SOON,
              f'it is {status}: {move.source.status}')
        time.sleep(0.01)
    return time.monotonic() - start


def stays(lab: Lab, move: Promised, status: str = 'failed') -> str:
    """It ends so, and the guest has never left; the reason."""
    ends(move, status)
    check(not move.target.when('RESUME'), 'it never ran over there')
    why = move.source.why()
    lab.must_go_on()
    move.open_gate()
    ends_by_itself(move.target.vm)
    return why


def case(name: str, run: object, source: str, target: str, way: Way,
         full: bool = False) -> Case:
    """One case; what is ours alone only the source has to have."""
    return Case(f'{source}-{target}-promised-{way.name}-{name}', run, False,
                (source,), (*way.needs, *STRICT), full)


def kept(source: str, target: str, way: Way, point: str) -> Case:
    """The limit is high enough: one attempt, and memory follows."""
    def run(lab: Lab) -> str:
        with promised(lab, source, target, way, PLENTY) as move:
            move.ask(point)
            move.wait_gone()
            move.finish()
            parts = move.check_promise(target == 'pristine', PLENTY)
            return f'{summary(move)}; {parts}'
    return case(f'kept-{point}', run, source, target, way)


def later(source: str, target: str, way: Way, slow: tuple[str, str],
          point: str) -> Case:
    """Attempts fail, and the guest goes on; with a higher limit it leaves."""
    def run(lab: Lab) -> str:
        with promised(lab, source, target, way, TOO_LITTLE, slow) as move:
            move.ask(point)
            move.wait_aborted(3)
            asked = move.figures()['ram']['postcopy-requests']
            check(move.source.status != 'postcopy-active'
                  and not move.target.when('RESUME'), 'it is still here')
            if slow == SLOW['ferry'] and point == 'at-once':
                check(asked > 0, 'pages were asked for while it was held')
            lab.observer.wait_beats(move.source.vm, 50)
            move.set(downtime_limit=PLENTY)
            move.wait_gone()
            move.finish()
            # Until its time is over, or until what hangs comes back.
            move.check_aborts(DELAY + 5 * TOO_LITTLE)
            parts = move.check_promise(target == 'pristine', PLENTY)
            return (f'{len(move.source.when(ABORTED))} aborts; '
                    f'{summary(move)}; {parts}')
    return case(f'later-{slow[1]}-{point}', run, source, target, way)


def differences(target: str) -> Case:
    """A page that was thrown away is not sent as a difference from itself."""
    def run(lab: Lab) -> str:
        with promised(lab, 'ferry', target, XBZRLE, TOO_LITTLE,
                      SLOW[target]) as move:
            def pages() -> int:
                return move.figures().get('xbzrle-cache', {}).get('pages', 0)
            move.begin(tcp_uri(), move.via)
            move.until(lambda: pages() > 500, 'no differences are sent')
            move.source.vm.qmp.cmd('migrate-start-postcopy')
            for _ in range(3):
                before = pages()
                move.wait_aborted(len(move.source.when(ABORTED)) + 1)
                move.until(lambda: pages() > before or bool(
                    move.source.when(ABORTED)[9:]), 'no more of them')
            move.set(downtime_limit=PLENTY)
            move.wait_gone()
            move.finish()
            parts = move.check_promise(target == 'pristine', PLENTY, False)
            return (f'{len(move.source.when(ABORTED))} aborts, {pages()} '
                    f'differences; {summary(move)}; {parts}')
    return case('differences', run, 'ferry', target, XBZRLE)


def precopy_after_all(source: str, target: str, way: Way) -> Case:
    """Attempts fail; then little is left, and nothing has to follow."""
    def run(lab: Lab) -> str:
        slow = SLOW[target]
        with promised(lab, source, target, way, TOO_LITTLE, slow) as move:
            move.ask('at-once')
            move.wait_aborted(1)
            lab.guest.set_rate(0)
            move.set(max_bandwidth=1 << 30)
            move.wait_aborted(4)
            move.set(downtime_limit=PLENTY)
            move.wait_gone()
            move.finish()
            parts = move.check_promise(target == 'pristine', PLENTY, False)
            one_way = ACTIVE in move.source.states()
            check(one_way == (target == 'pristine'),
                  'a pristine destination waits for a package')
            return f'{summary(move)}; {parts}'
    return case('precopy-after-all', run, source, target, way)


def never(source: str, target: str, way: Way, slow: tuple[str, str]) -> Case:
    """After the last attempt it fails; the guest never was away for long."""
    def run(lab: Lab) -> str:
        with promised(lab, source, target, way, TOO_LITTLE, slow, 3) as move:
            move.ask('midway')
            move.until(lambda: len(move.source.when(ABORTED)) == 3,
                       'three attempts are not given up', SOON)
            why = stays(lab, move)
            check('in 3 attempts' in why and '\n' not in why, why)
            move.reset_caps()
            lab.must_move(lab.target(target, args=list(DEVICE)))
            return f'"{why}"'
    return case(f'never-{slow[1]}', run, source, target, way)


def cut_while_held(target: str, way: Way) -> Case:
    """The network fails while the guest stands still on both sides."""
    def run(lab: Lab) -> str:
        with promised(lab, 'ferry', target, way, PLENTY, held=True) as move:
            move.ask('at-once')
            move.wait_held()
            check(move.link.cut() > 0, 'there was something to cut')
            return f'"{stays(lab, move)}"'
    return case('cut-while-held', run, 'ferry', target, way)


def cancel_while_held(target: str, way: Way) -> Case:
    """So does the user: it is not too late."""
    def run(lab: Lab) -> str:
        with promised(lab, 'ferry', target, way, PLENTY, held=True) as move:
            move.ask('at-once')
            move.wait_held()
            move.source.vm.qmp.cmd('migrate_cancel')
            stays(lab, move, 'cancelled')
            return 'cancelled'
    return case('cancel-while-held', run, 'ferry', target, way)


def disks_lost(way: Way) -> Case:
    """After COMMIT the disks cannot be opened: it never ran over there."""
    def run(lab: Lab) -> str:
        with promised(lab, 'ferry', 'ferry', way, PLENTY, disks=True) as move, \
             locked(lab):
            move.ask('at-once')
            why = stays(lab, move)
            check(ACTIVE in move.source.states(), 'it had been handed over: '
                  f'{move.source.states()}')
            return f'"{why}"'
    return case('disks-lost', run, 'ferry', 'ferry', way)


def all_cases() -> list[Case]:
    """A pristine source makes no promises."""
    cases = []
    for target in ('ferry', 'pristine'):
        for way in (PLAIN, PREEMPT):
            pair = ('ferry', target, way)
            cases += [kept(*pair, point) for point in POINTS]
            cases += [later(*pair, slow, point)
                      for slow in (SLOW[target], SLOW_SAVE)
                      for point in ('at-once', 'midway')]
            cases += [precopy_after_all(*pair), never(*pair, SLOW[target])]
        cases += [differences(target)]
    for way in (PLAIN, PREEMPT):
        cases += [cut_while_held('ferry', way),
                  cancel_while_held('ferry', way), disks_lost(way)]
    return [replace(case, alone=True, full=case.name.endswith('-midway') or
                    'pristine-promised-preempt' in case.name)
            for case in cases]
