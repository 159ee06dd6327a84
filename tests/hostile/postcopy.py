# Destinations that lie to a source in postcopy.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Destinations that lie to a source in postcopy.

Once the guest may run there the source can only pause, and say why: whoever
lied may come back, tell the truth, and get all that is missing.  Before that
the guest goes on where it is.
"""

from __future__ import annotations

import struct
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator

import records as r
from ferry.errors import FerryError
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest import abilities
from ferrytest.bench import native
from ferrytest.bench.run import ram_address
from peers import LIMIT, OURS, goes_on, status
from taker import (PONG, READY, RECV_BITMAP, REQ_PAGES_ID, RESUME_ACK, SHUT,
                   STARTED, Taker, bitmap, changed_range, message, report,
                   value, want)

NEEDS = ('postcopy-ram', 'return-path')
CAPS = {'postcopy-ram': True, 'return-path': True}
PAUSED = 'postcopy-paused'
BLOCK, PAGE = b'pc.ram', 4096
SIZE = 16 << 20         # of BLOCK
# Enough data, at so many bytes a second, that no end comes before the lie.
DATA = range(2 << 20, 14 << 20)
TRICKLE = 2 << 20
SLOWLY = {'max-bandwidth': TRICKLE, 'max-postcopy-bandwidth': TRICKLE,
          'downtime-limit': 1}
MANY = 2000


@dataclass(frozen=True)
class Lie:
    """What is said in postcopy.  HARMLESS: it may be ignored as well."""
    name: str
    data: bytes
    hang_up: bool = False
    harmless: bool = False
    needs: tuple[str, ...] = OURS


LIES = [
    Lie('hangs-up', b'', hang_up=True, needs=()),
    Lie('half-a-header', b'\0', hang_up=True, needs=()),
    Lie('half-a-message', want(0, PAGE, BLOCK)[:9], hang_up=True, needs=()),
    Lie('type-0', message(0)),
    Lie('type-77', message(77, b'abc')),
    Lie('type-65535', message(0xffff, bytes(8))),
    Lie('longer-than-any', message(PONG, bytes(600))),
    Lie('pong-of-2-bytes', message(PONG, b'\0\1')),
    Lie('pages-too-short', message(REQ_PAGES_ID, b'abc')),
    Lie('pages-name-too-long', message(
        REQ_PAGES_ID, struct.pack('>QIB', 0, PAGE, 200) + BLOCK)),
    Lie('pages-name-too-short', message(
        REQ_PAGES_ID, struct.pack('>QIB', 0, PAGE, 2) + BLOCK)),
    Lie('pages-before-a-name', want(0, PAGE)),
    Lie('pages-unknown-block', want(0, PAGE, b'nosuch')),
    Lie('pages-block-without-name', want(0, PAGE, b'')),
    Lie('pages-block-with-escape', want(0, PAGE, b'\x1b[2J')),
    Lie('pages-behind-end', want(SIZE, PAGE, BLOCK)),
    Lie('pages-far-behind-end', want(1 << 40, PAGE, BLOCK)),
    Lie('pages-over-end', want(SIZE - PAGE, 2 * PAGE, BLOCK)),
    Lie('pages-around', want((1 << 64) - PAGE, 2 * PAGE, BLOCK)),
    Lie('pages-unaligned', want(1, PAGE, BLOCK)),
    Lie('pages-of-odd-length', want(0, PAGE + 1, BLOCK)),
    Lie('pages-of-no-length', want(0, 0, BLOCK), harmless=True),
    Lie('pages-of-4-G', want(0, 0xfffff000, BLOCK)),
    Lie('pages-all-at-once', want(0, SIZE, BLOCK), harmless=True),
    Lie('pages-over-and-over', want(PAGE, PAGE, BLOCK) * MANY, harmless=True,
        needs=()),
    Lie('pages-after-a-lie', want(0, PAGE, b'nosuch')
        + want(0, PAGE, BLOCK) * MANY),
    Lie('bitmap-unasked', bitmap(BLOCK, bytes(SIZE // PAGE // 8))),
    Lie('bitmap-unknown-block', message(RECV_BITMAP, r.named(b'nosuch'))),
    Lie('resume-unasked', value(RESUME_ACK, 1), harmless=True),
    Lie('shut-failed', value(SHUT, 1)),
    Lie('shut-of-nothing', message(SHUT)),
    Lie('shut-too-early', value(SHUT, 0), hang_up=True, harmless=True),
]


def set_up(vm: VM) -> None:
    """A running guest that is about to leave, slowly."""
    native.fill(vm.pid, ram_address(vm) + DATA.start, len(DATA), 1)
    vm.qmp.cmd('cont')
    vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
        {'capability': name, 'state': state} for name, state in CAPS.items()]})
    vm.qmp.cmd('migrate-set-parameters', SLOWLY)


def turn_off(vm: VM) -> None:
    """Set back what set_up() has set."""
    vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
        {'capability': name, 'state': False} for name in CAPS]})
    vm.qmp.cmd('migrate-set-parameters', {'max-bandwidth': 0,
                                          'downtime-limit': 300})


def until(vm: VM, *states: str) -> dict:
    """Wait until the migration is in one of STATES."""
    end = time.monotonic() + LIMIT
    while (info := status(vm)).get('status') not in states:
        if time.monotonic() > end:
            raise FerryError(f'is {info.get("status")}, not one of {states}')
        time.sleep(0.005)
    return info


def stands(vm: VM) -> None:
    """The guest may run elsewhere, so it must not run here."""
    state = vm.qmp.cmd('query-status')
    if state['running']:
        raise FerryError(f'the guest runs on the source: {state}')


def paused_for_a_reason(vm: VM) -> str:
    """The migration has paused; the reason."""
    said = until(vm, PAUSED, 'failed', 'completed')
    if said['status'] != PAUSED:
        raise FerryError(f'is {said["status"]}, not paused: '
                         f'{said.get("error-desc")}')
    stands(vm)
    why = said.get('error-desc', '')
    if vm.kind != 'pristine' and (not why or '\n' in why or '\x1b' in why):
        raise FerryError(f'no clear reason for the pause: {why!r}')
    return why


def comes_back(vm: VM, taker: Taker) -> None:
    """The destination returns and tells the truth: all arrives."""
    taker.at = taker.answer = None
    vm.qmp.cmd('migrate-set-parameters', {'max-postcopy-bandwidth': 0})
    vm.qmp.cmd('migrate', {'uri': taker.uri, 'resume': True})
    arrives(vm, taker)


def arrives(vm: VM, taker: Taker) -> None:
    """The migration completes, and nothing is missing."""
    vm.qmp.cmd('migrate-set-parameters', {'max-postcopy-bandwidth': 0})
    info = until(vm, 'completed', 'failed', PAUSED)
    if info['status'] != 'completed':
        raise FerryError(f'does not complete: {info["status"]} '
                         f'{info.get("error-desc")} {taker.trouble}')
    stands(vm)
    taker.wait('end')
    missing = taker.missing()
    if missing or not taker.have:
        raise FerryError(f'{len(missing)} pages never came, the first is '
                         f'{missing[:1]}')


def switched(vm: VM, taker: Taker) -> None:
    """Migrate to TAKER and switch over at once."""
    set_up(vm)
    vm.qmp.cmd('migrate', {'uri': taker.uri})
    try:
        vm.qmp.cmd('migrate-start-postcopy')
    except QMPError:
        if status(vm)['status'] != 'failed':
            raise


@contextmanager
def in_postcopy(vm: VM, folder: Path, needs: Iterable[str] = ()
                ) -> Iterator[Taker]:
    """A migration that has just switched; the guest is where it goes."""
    abilities.require(vm.kind, [*NEEDS, *needs])
    with vm, Taker(folder / f'{vm.name}-taker') as taker:
        switched(vm, taker)
        taker.wait('started')
        until(vm, 'postcopy-active')
        yield taker


def check_lie(lie: Lie, vm: VM, folder: Path) -> None:
    """LIE in postcopy: the source pauses, and everything can be saved."""
    with in_postcopy(vm, folder, lie.needs) as taker:
        taker.say(lie.data)
        if lie.hang_up:
            time.sleep(0.05)
            taker.hang_up()
        if lie.harmless and not lie.hang_up:
            time.sleep(0.2)
            stands(vm)
            if status(vm)['status'] == 'postcopy-active':
                arrives(vm, taker)
                return
        paused_for_a_reason(vm)
        comes_back(vm, taker)


def check_urgent(vm: VM, folder: Path) -> None:
    """Pages that are asked for come first."""
    with in_postcopy(vm, folder) as taker:
        asked = [(BLOCK, at) for at in reversed(range(
            SIZE // 2, DATA.stop, SIZE // 64)) if (BLOCK, at) not in taker.have]
        if not asked:
            raise FerryError('everything is there already')
        began = len(taker.have)
        for name, at in asked:
            taker.say(want(at, PAGE, name))
        wait_for(lambda: all(page in taker.have for page in asked),
                 'what is asked for comes')
        if len(taker.have) - began > len(DATA) // PAGE // 4:
            raise FerryError(f'{len(taker.have) - began} pages came before '
                             f'{len(asked)} that were asked for')
        requests = status(vm)['ram']['postcopy-requests']
        if requests < len(asked):
            raise FerryError(f'{requests} requests counted, of {len(asked)}')
        arrives(vm, taker)


# Where a destination hangs up, and whether the guest can be there by then
STAGES = {'return-path': False, 'ping': False, 'advise': False, 'ram': False,
          'pages': None, 'discard': None, 'package-begins': None,
          'package': None, 'started': True}


def check_hang_up(stage: str, there: bool | None, vm: VM, folder: Path
                  ) -> None:
    """The destination goes away; the guest is on one side all the time."""
    abilities.require(vm.kind, NEEDS)
    with vm, Taker(folder / f'{vm.name}-taker') as taker:
        taker.at = lambda name: name == stage
        switched(vm, taker)
        info = until(vm, 'failed', PAUSED)
        if there is not None and (info['status'] == PAUSED) != there:
            raise FerryError(f'is {info["status"]}: '
                             f'{info.get("error-desc")}')
        if info['status'] == PAUSED:
            paused_for_a_reason(vm)
            if 'started' in taker.seen:
                comes_back(vm, taker)
            return
        if not info.get('error-desc'):
            raise FerryError(f'no reason: {info}')
        turn_off(vm)
        goes_on(vm, folder)


# Where a destination goes away for good, and whether it has been heard to have
# the guest by then
LOST = {'package': False, 'started': True, 'bitmap': True}


def check_given_up(stage: str, seen: bool, vm: VM, folder: Path) -> None:
    """The destination is gone: one who knows that it has never run the guest
    can have it back, in two steps.
    """
    abilities.require(vm.kind, [*NEEDS, *OURS])
    with vm, Taker(folder / f'{vm.name}-taker') as taker:
        taker.at = lambda name: name == (stage if stage != 'bitmap'
                                         else 'package')
        switched(vm, taker)
        paused_for_a_reason(vm)
        if stage == 'bitmap':
            # It comes back, answers once, and is gone again.
            taker.at = lambda name: taker.seen.count('bitmap') > 1
            vm.qmp.cmd('migrate', {'uri': taker.uri, 'resume': True})
            taker.wait('bitmap', 2)
            paused_for_a_reason(vm)
        try:
            vm.qmp.cmd('migrate_cancel')
            vm.qmp.cmd('migrate_cancel')    # twice is as good as once
        except QMPError as err:
            if not seen:
                raise FerryError(f'refused: {err.desc}') from None
            taker.at = None
            comes_back(vm, taker)
            return
        if seen:
            raise FerryError('what runs elsewhere could be taken back')
        info = until(vm, 'failed')
        if "'cont'" not in info.get('error-desc', ''):
            raise FerryError(f'no way is told: {info}')
        stands(vm)
        vm.qmp.cmd('cont')
        turn_off(vm)
        goes_on(vm, folder)


def changed(which: str, lie: bytes) -> Callable[[str, bytes], bytes]:
    """An answer of a recovery that says LIE instead of WHICH."""
    return lambda name, honest: lie if name == which else honest


BITS = bytes(SIZE // PAGE // 8)
RECOVERIES = {
    'bitmap-unknown-block': changed('bitmap', bitmap(b'nosuch', BITS)),
    'bitmap-of-nothing': changed('bitmap', bitmap(BLOCK, b'')),
    'bitmap-too-short': changed('bitmap', bitmap(BLOCK, BITS[:-8])),
    'bitmap-too-long': changed('bitmap', bitmap(BLOCK, BITS + bytes(64))),
    'bitmap-of-1-EB': changed('bitmap', bitmap(BLOCK, BITS, 1 << 60)),
    'bitmap-without-end': changed('bitmap', bitmap(BLOCK, BITS, end=0)),
    'bitmap-of-another-block': lambda name, honest: (
        bitmap(BLOCK, BITS) * 2 if name == 'bitmap' else honest),
    'refused': changed('resume', value(RESUME_ACK, 0)),
    'resume-77': changed('resume', value(RESUME_ACK, 77)),
    'resume-of-nothing': changed('resume', message(RESUME_ACK)),
    'resume-too-early': changed('bitmap', value(RESUME_ACK, 1)),
    'pages-in-recovery': changed('bitmap', want(0, PAGE, b'nosuch')),
}


def pauses_again(vm: VM, taker: Taker, stage: str, *,
                 answer: Callable[[str, bytes], bytes] | None = None,
                 at: Callable[[str], bool] | None = None) -> None:
    """A recovery gets as far as STAGE, and fails; the next one succeeds."""
    taker.hang_up()
    paused_for_a_reason(vm)
    taker.answer, taker.at = answer, at
    vm.qmp.cmd('migrate', {'uri': taker.uri, 'resume': True})
    taker.wait(stage)
    until(vm, PAUSED)
    paused_for_a_reason(vm)
    comes_back(vm, taker)


def check_recovery(name: str, vm: VM, folder: Path) -> None:
    """A destination that lies when it comes back is not believed."""
    with in_postcopy(vm, folder, OURS) as taker:
        pauses_again(vm, taker, 'bitmap', answer=RECOVERIES[name])


def check_recovery_stops(stage: str, vm: VM, folder: Path) -> None:
    """The destination goes away while it recovers."""
    with in_postcopy(vm, folder) as taker:
        pauses_again(vm, taker, stage, at=lambda name: name == stage)


# Attempts to switch over within a limit (strict-downtime.rst)

STRICT = ('strict-downtime', 'return-path')
TRIES = 4
IN_TIME = {'downtime-limit': 300, 'strict-downtime-attempts': TRIES}


@contextmanager
def attempts(vm: VM, folder: Path, answer: Callable[[str, bytes], bytes],
             at: Callable[[str], bool] | None = None) -> Iterator[Taker]:
    """A migration to who can hold a guest; ANSWER is about READY."""
    abilities.require(vm.kind, [*NEEDS, *STRICT])
    with vm, Taker(folder / f'{vm.name}-taker', holds=True) as taker:
        taker.answer, taker.at = answer, at
        set_up(vm)
        vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
            {'capability': name, 'state': True} for name in STRICT]})
        vm.qmp.cmd('migrate-set-parameters', IN_TIME)
        vm.qmp.cmd('migrate', {'uri': taker.uri})
        vm.qmp.cmd('migrate-start-postcopy')
        yield taker


def was_in_vain(vm: VM, folder: Path) -> None:
    """The guest goes on, and the next migration does not need a peer."""
    vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
        {'capability': 'strict-downtime', 'state': False}]})
    turn_off(vm)
    goes_on(vm, folder)


# What is said in place of the first READY, and whether another attempt follows
HELD = {
    'honest': (lambda ready: ready, 0),
    'twice': (lambda ready: ready + ready, 0),
    'of-another': (lambda ready: report(READY, 2), 1),
    'of-0': (lambda ready: report(READY, 0), 1),
    'never': (lambda ready: b'', 1),
    'started-at-once': (lambda ready: report(STARTED, 1), 1),
    'asks-first': (lambda ready: want(DATA.stop - PAGE, PAGE, BLOCK) + ready,
                   0),
    'asks-only': (lambda ready: want(DATA.stop - PAGE, PAGE, BLOCK), 1),
    'changed-first': (lambda ready: changed_range(0, PAGE, BLOCK) + ready, 1),
    'asks-over-and-over': (lambda ready: want(DATA.stop - PAGE, PAGE, BLOCK)
                           * MANY + ready, 0),
}


def check_held(name: str, vm: VM, folder: Path) -> None:
    """Pages that are asked for come, and none is lost over attempts."""
    say, aborted = HELD[name]
    told: list[bytes] = []

    def answer(what: str, honest: bytes) -> bytes:
        told.append(honest)
        return say(honest) if what == 'ready' and len(told) == 1 else honest

    with attempts(vm, folder, answer) as taker:
        if name == 'asks-only':
            taker.wait('state')
            wait_for(lambda: (BLOCK, DATA.stop - PAGE) in taker.have,
                     'what is asked for while it is held comes')
            if 'commit' in taker.seen:
                raise FerryError('it was handed over without a READY')
            taker.wait('abort')
            # Too late, and neither answered nor a reason to give up
            taker.say(want(0, PAGE, BLOCK) + want(PAGE, PAGE))
        taker.wait('started')
        if taker.seen.count('abort') != aborted:
            raise FerryError(f'attempts: {taker.seen}')
        arrives(vm, taker)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait for CONDITION."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise FerryError(f'not so: {what}')
        time.sleep(0.002)


# What ends the migration while it is held; the guest goes on
HELD_LIES = {
    'asks-for-no-block': want(0, PAGE, b'nosuch'),
    'asks-behind-the-end': want(SIZE, PAGE, BLOCK),
    'asks-without-name': want(0, PAGE),
    'bitmap': bitmap(BLOCK, bytes(SIZE // PAGE // 8)),
    'shut-failed': value(SHUT, 1),
    'shut': value(SHUT, 0),
    'half-a-report': message(READY, bytes(7)),
    'changed-no-block': changed_range(0, PAGE, b'nosuch'),
    'changed-nothing': changed_range(0, 0, BLOCK),
    'changed-part-of-a-page': changed_range(1, PAGE, BLOCK),
    'changed-behind-the-end': changed_range(SIZE, PAGE, BLOCK),
    'changed-beyond-the-end': changed_range(0, SIZE + PAGE, BLOCK),
    'changed-around-the-end': changed_range((1 << 64) - PAGE, 2 * PAGE, BLOCK),
}


def check_held_lie(name: str, vm: VM, folder: Path) -> None:
    """It is not handed over to who lies."""
    with attempts(vm, folder, lambda what, honest: HELD_LIES[name]) as taker:
        info = until(vm, 'failed', PAUSED, 'completed')
        if info['status'] != 'failed' or not info.get('error-desc'):
            raise FerryError(f'is {info["status"]}: {info.get("error-desc")}')
        if 'commit' in taker.seen:
            raise FerryError('it was handed over')
        was_in_vain(vm, folder)


# Where it hangs up, and whether the guest can be there by then
HELD_STAGES = {'hold': False, 'discard': False, 'state': False,
               'commit': True}


def check_held_hang_up(stage: str, vm: VM, folder: Path) -> None:
    """The destination goes away in an attempt."""
    with attempts(vm, folder, lambda what, honest: honest,
                  lambda name: name == stage) as taker:
        info = until(vm, 'failed', PAUSED)
        if (info['status'] == PAUSED) != HELD_STAGES[stage]:
            raise FerryError(f'is {info["status"]}: '
                             f'{info.get("error-desc")}')
        if info['status'] == PAUSED:
            paused_for_a_reason(vm)
            comes_back(vm, taker)
        else:
            was_in_vain(vm, folder)


def tests() -> list[tuple[str, Callable]]:
    """Name and function of each test, which gets the runner's Bench."""
    def test(name: str, check: Callable[..., None], *args: object
             ) -> tuple[str, Callable]:
        return f'postcopy/{name}', lambda lab: check(*args, lab.vm(),
                                                     lab.folder)
    return [
        *(test(lie.name, check_lie, lie) for lie in LIES),
        test('asked-for-comes-first', check_urgent),
        *(test(f'hangs-up-at-{stage}', check_hang_up, stage, there)
          for stage, there in STAGES.items()),
        *(test(f'given-up-after-{stage}', check_given_up, stage, seen)
          for stage, seen in LOST.items()),
        *(test(f'recover/{name}', check_recovery, name)
          for name in RECOVERIES),
        *(test(f'ready/{name}', check_held, name) for name in HELD),
        *(test(f'held/{name}', check_held_lie, name) for name in HELD_LIES),
        *(test(f'held/hangs-up-at/{stage}', check_held_hang_up, stage)
          for stage in HELD_STAGES),
        *(test(f'recover/hangs-up-at-{stage}', check_recovery_stops, stage)
          for stage in ('bitmap', 'resume'))]
