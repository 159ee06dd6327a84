# Free page hints, with the queue driven by hand.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Free page hints, with the queue driven by hand.

Pages that were hinted and never written to again are zero at the destination,
as they were not sent; all others are as they were.
"""

from __future__ import annotations

import struct
from typing import Callable, Iterable

from ferry.errors import FerryError
from ferrytest.suite import Case

from driver import (ALL, CMD_ID_MIN, CONFIG_CHANGED, DONE, HINT, NEEDS_RESET,
                    POISON, SLOT, STATS, STOP, VERSION_1, Balloon, In, Out)
from lab import HINTS, Lab
from machine import (DATA, DATA_PAGES, MEMORY, PAGE, Machine, check, pattern,
                     until)

BOTH = ('ferry', 'pristine')
DIRECTIONS = (('ferry', 'ferry'), ('ferry', 'pristine'),
              ('pristine', 'ferry'), ('pristine', 'pristine'))


def zeros_are(target: Machine, expected: Iterable[int]) -> None:
    """Insist that these pages were not sent, and that all others were."""
    wrong = []
    expected = set(expected)
    for page, got in enumerate(target.data_pages()):
        want = 0 if page in expected else pattern(page)
        if got != want:
            wrong.append(f'page {page} is {got}, not {want}')
    check(not wrong, 'just the hinted pages are missing: ' + '; '.join(wrong))


class Move:
    """A migration that a case interferes with."""

    def __init__(self, lab: Lab, source: str, target: str = '',
                 device: str = HINTS, args: tuple[str, ...] = (),
                 caps: dict[str, bool] | None = None,
                 features: tuple[int, ...] = ALL, poison: int = 0) -> None:
        self.source = lab.machine(source, device, args)
        self.target = lab.machine(target or source, device, args,
                                  incoming=True)
        self.source.fill_data()
        self.driver = Balloon(self.source).start(features, poison)
        self.caps = caps

    def begin(self) -> Balloon:
        """Start it; it gets stuck before the data."""
        self.source.begin(self.target, self.caps)
        return self.driver

    def request(self) -> tuple[Balloon, int]:
        """The same, and wait for the device to ask."""
        driver = self.begin()
        return driver, driver.asked()

    def round(self) -> tuple[Balloon, int]:
        """The same, and answer."""
        driver, cmd_id = self.request()
        driver.send_id(cmd_id)
        return driver, cmd_id

    def finish(self, missing: Iterable[int]) -> None:
        """Let it end, and compare."""
        self.source.finish(self.target)
        self.driver.move_to(self.target)
        zeros_are(self.target, missing)


# Transitions


def asks(lab: Lab, kind: str) -> None:
    """Nothing before a migration, then an id and an interrupt."""
    move = Move(lab, kind)
    driver = move.driver
    check(driver.cmd_id == STOP, 'nothing is asked before a migration')
    driver.hint(0)
    driver.isr()
    generation = driver.common('b', 21)
    _, cmd_id = move.request()
    check(cmd_id == CMD_ID_MIN + 1, f'the first id is {cmd_id:#x}')
    check(bool(driver.isr() & CONFIG_CHANGED), 'there is an interrupt')
    check(driver.common('b', 21) != generation, 'the generation changes')
    move.finish([])
    driver.must_be(DONE, 'at the destination')


def hinted(lab: Lab, kind: str) -> None:
    """What is hinted is not sent, and all else is."""
    move = Move(lab, kind)
    driver, cmd_id = move.round()
    driver.hint(0, 3, 4, 5, 40, DATA_PAGES - 1)
    driver.add('hints', In(DATA + 10 * PAGE, 8 * PAGE))
    driver.drain('hints')
    driver.send_id(STOP)
    driver.hint(50)
    move.finish([0, 3, 4, 5, 40, DATA_PAGES - 1, *range(10, 18)])
    check(move.source.qmp.cmd('query-status')['running'] is False,
          'the source stands still')
    driver.must_be(DONE, 'at the destination')
    driver.hint(1)              # it goes on to take buffers


def shows_id(lab: Lab) -> None:
    """The id can be read for as long as the round lasts."""
    move = Move(lab, 'ferry')
    driver, cmd_id = move.round()
    check(driver.cmd_id == cmd_id, 'it is there after the start')
    move.source.qmp.cmd('balloon', {'value': 48 << 20})
    check(driver.cmd_id == cmd_id, 'it is there after another change')
    driver.send_id(STOP)
    check(driver.cmd_id == STOP, 'it is gone when the guest has stopped')
    move.finish([])


def counted(lab: Lab) -> None:
    """What is left to send goes down by what was dirty, and only once."""
    move = Move(lab, 'ferry')
    driver, _ = move.round()

    def left() -> int:
        """And what was sent, of which there is more with time."""
        ram = move.source.qmp.cmd('query-migrate')['ram']
        return ram['remaining'] + PAGE * (ram['normal'] + ram['duplicate'])
    before = left()
    driver.add('hints', In(DATA, 40 * PAGE))
    driver.drain('hints')
    after = left()
    check(40 * PAGE <= before - after < 60 * PAGE, '40 pages are taken off: '
          f'{(before - after) // PAGE}')
    for _ in range(5):
        driver.add('hints', In(DATA, 40 * PAGE))
    driver.drain('hints')
    check(after - left() < 40 * PAGE, 'and not again: '
          f'{(after - left()) // PAGE}')
    move.finish(range(40))


def wrong_id(lab: Lab, kind: str) -> None:
    """A round begins with its id alone; any other ends it."""
    move = Move(lab, kind)
    driver, cmd_id = move.request()
    driver.hint(0)
    for other in (cmd_id - 1, cmd_id + 1, STOP, DONE, 0xffffffff):
        driver.send_id(other)
        driver.hint(1)
    driver.send_id(cmd_id)
    driver.hint(2)
    driver.send_id(cmd_id)
    driver.hint(3)
    driver.send_id(cmd_id)      # too late
    driver.hint(4)
    move.finish([2])


def in_one_buffer(lab: Lab, kind: str) -> None:
    """An id and hints may share a buffer; the id counts first."""
    move = Move(lab, kind)
    driver, cmd_id = move.request()
    driver.add('hints', Out(struct.pack('<I', cmd_id)), In(DATA, PAGE),
               In(DATA + 2 * PAGE, 2 * PAGE))
    driver.drain('hints')
    driver.add('hints', Out(b'\0\0'), Out(b'\0\0'), In(DATA + PAGE, PAGE))
    driver.drain('hints')
    move.finish([0, 2, 3])


def next_round(lab: Lab, kind: str) -> None:
    """Each sync ends a round; the next has another id."""
    move = Move(lab, kind)
    driver, first = move.round()
    driver.hint(0)
    move.source.next_pass(lambda: driver.cmd_id > first)
    second = driver.asked(first)
    check(second > first, f'the id is new: {second:#x} after {first:#x}')
    driver.hint(1)
    driver.send_id(first)
    driver.hint(2)
    driver.send_id(second)
    for page in range(3, 6):    # which the first pass may have sent
        move.source.fill(DATA + page * PAGE, PAGE, 0xaa)
    driver.hint(3)
    move.source.finish(move.target)
    check(move.target.data_pages()[0] == 0, 'the first round counted')
    check(move.target.data_pages()[1:3] == [pattern(1), pattern(2)],
          'what came between the rounds did not')
    check(move.target.data_pages()[3:6] == [0xaa] * 3,
          'what was written in the second one was sent')


# Lost pages


def written_after(lab: Lab, kind: str) -> None:
    """A hinted page that is written to is sent, hint or no hint."""
    move = Move(lab, kind)
    driver, _ = move.round()
    driver.hint(*range(8))
    for page in (2, 5):
        move.source.fill(DATA + page * PAGE, PAGE, 0xc3)
    move.source.finish(move.target)
    found = move.target.data_pages()[:8]
    check(found == [0, 0, 0xc3, 0, 0, 0xc3, 0, 0],
          f'the two pages are what was written: {found}')


def written_before_seen(lab: Lab, kind: str, synced: bool) -> list[int]:
    """Write to two pages while their hints are in the queue and not looked at.

    SYNCED: nor are they before the sync that sees the writes.  What the
    destination has then of each of the hinted pages.
    """
    move = Move(lab, kind)
    driver, first = move.round()
    for page in range(8):
        driver.add('hints', In(DATA + page * PAGE, PAGE), kick=False)
    for page in (2, 5):
        move.source.fill(DATA + page * PAGE, PAGE, 0xc3)
    if synced:
        # polls in the round, which is theirs to see or not
        move.source.next_pass(lambda: driver.cmd_id > first)
    driver.kick('hints')
    driver.drain('hints')
    move.source.finish(move.target)
    return move.target.data_pages()[:8]


def written_in_flight(lab: Lab, kind: str) -> None:
    """The same while the hint is in the queue and not looked at."""
    found = written_before_seen(lab, kind, False)
    check(found == [0, 0, 0xc3, 0, 0, 0xc3, 0, 0],
          f'the two pages are what was written: {found}')


def written_and_synced(lab: Lab, kind: str) -> None:
    """A hint that is looked at only after the sync that saw the write."""
    found = written_before_seen(lab, kind, True)
    check(found[2] == 0xc3 and found[5] == 0xc3,
          f'the two pages are what was written: {found}')


# Ranges

END = MEMORY << 20      # of RAM
RANGES: tuple[tuple[str, int, int, Iterable[int]], ...] = (
    ('a byte', DATA, 1, ()),
    ('less than a page', DATA + 1, PAGE - 1, ()),
    ('a page, not aligned', DATA + 8, PAGE, ()),
    ('two pages, not aligned', DATA + 8, 2 * PAGE, (1,)),
    ('two and the ends of others', DATA + PAGE - 1, 2 * PAGE + 2, (1, 2)),
    ('all of the data', DATA, DATA_PAGES * PAGE, range(DATA_PAGES)),
    ('up to the end of memory', DATA, END - DATA, range(DATA_PAGES)),
    ('behind the end of memory', END, PAGE, ()),
    ('nowhere', 0xd0000000, 16 * PAGE, ()),
    ('a device', 0xfee00000, PAGE, ()),
    ('the firmware', 0xffff0000, 0x10000, ()),
    ('far away', 1 << 45, PAGE, ()),
)


def ranges(lab: Lab) -> None:
    """Any range, inside, outside, aligned or not."""
    for what, address, size, missing in RANGES:
        move = Move(lab, 'ferry')
        driver, _ = move.round()
        driver.add('hints', In(address, size))
        until(lambda: driver.returned('hints') == 2 or not missing
              and driver.status & NEEDS_RESET, f'{what} comes back')
        try:
            move.finish(missing)
        except FerryError as err:
            raise FerryError(f'{what}: {err}') from err
        lab.clear()


def nonsense(lab: Lab, kind: str) -> None:
    """What no device can work with breaks it, and nothing else."""
    for what, parts in (
            ('a length of zero', (In(DATA, 0),)),
            ('4 GiB', (In(DATA, 0xffffffff),)),
            ('an address that wraps', (In(2 ** 64 - PAGE, 2 * PAGE),)),
            ('half an id', (Out(b'\1\0'),)),
            ('an empty id', (Out(b''),))):
        move = Move(lab, kind)
        driver, cmd_id = move.round()
        driver.add('hints', *parts)
        until(lambda: driver.status & NEEDS_RESET
              or driver.returned('hints') == driver.queues['hints'].added,
              f'{what} comes to an end')
        # It may have dropped what it could find of a huge range.
        move.source.finish(move.target)
        found = move.target.data_pages()
        check(all(got in (0, pattern(page)) for page, got
                  in enumerate(found)), f'{what}: memory is whole: {found}')
        if what != '4 GiB':
            check(0 not in found, f'{what}: all is sent')
        lab.clear()


def id_in_a_device(lab: Lab) -> None:
    """An id that has to be read from a device's registers is just wrong."""
    move = Move(lab, 'ferry')
    driver, cmd_id = move.request()
    queue = driver.queues['hints']
    move.source.write(queue.base + 16 * queue.free,
                      struct.pack('<QIHH', 0xfee00020, 4, 0, 0))
    slot = queue.added % 32
    move.source.store('w', queue.avail + 4 + 2 * slot, queue.free)
    queue.added += 1
    queue.free += 1
    move.source.store('w', queue.avail + 2, queue.added)
    driver.kick('hints')
    move.source.qmp.cmd('query-status')
    driver.drain('hints')
    driver.send_id(cmd_id)
    driver.hint(0)
    move.finish([0])


def across_blocks(lab: Lab, kind: str) -> None:
    """One hint over two RAM blocks, one behind the other."""
    half = 32 << 20         # less than the RAM, which is sent before
    base = 0x100000000
    args = ('-m', f'{MEMORY}M,slots=2,maxmem=1G',
            '-object', f'memory-backend-ram,id=m0,size={half}',
            '-object', f'memory-backend-ram,id=m1,size={half}',
            '-device', f'pc-dimm,memdev=m0,id=d0,addr={base}',
            '-device', f'pc-dimm,memdev=m1,id=d1,addr={base + half}')
    move = Move(lab, kind, args=args)
    edge = base + half
    for page in range(-4, 4):
        move.source.fill(edge + page * PAGE, PAGE, pattern(page + 4))
    driver, _ = move.round()
    driver.add('hints', In(edge - 3 * PAGE, 5 * PAGE + 7))
    driver.drain('hints')
    move.finish([])
    found = [move.target.load('b', edge + page * PAGE)
             for page in range(-4, 4)]
    want = [pattern(0), 0, 0, 0, 0, 0, pattern(6), pattern(7)]
    check(found == want, f'five pages are missing: {found}, not {want}')


def many(lab: Lab) -> None:
    """More buffers than are taken at once, in one go and in any number."""
    move = Move(lab, 'ferry')
    driver, _ = move.round()
    for turn in range(20):
        for page in range(turn + 8):
            driver.add('hints', In(DATA + page * PAGE, PAGE), kick=False)
        driver.kick('hints')
        driver.drain('hints')
    move.finish(range(27))


# Poison


def poisoned(lab: Lab) -> None:
    """A guest that keeps something in its free pages is not asked."""
    move = Move(lab, 'ferry', poison=0xaaaaaaaa)
    driver = move.begin()
    move.source.next_pass(lambda: passes(move.source) >= 3)
    check(driver.cmd_id == STOP, 'nothing is asked')
    driver.send_id(CMD_ID_MIN + 1)
    driver.hint(0)
    move.finish([])


def poisoned_late(lab: Lab) -> None:
    """What it hints is sent, if it says so only now."""
    move = Move(lab, 'ferry')
    driver, _ = move.round()
    driver.set_config(3, 1)
    driver.hint(0)
    driver.set_config(3, 0)
    driver.hint(1)
    move.finish([1])


def passes(machine: Machine) -> int:
    """How many syncs there were."""
    return machine.qmp.cmd('query-migrate')['ram']['dirty-sync-count']


def poison_unknown(lab: Lab, kind: str) -> None:
    """A value that was not negotiated means nothing."""
    move = Move(lab, kind, features=(STATS, HINT, VERSION_1),
                poison=0xaaaaaaaa)
    check(move.driver.config(3) == 0, 'it is not kept')
    driver, _ = move.round()
    driver.hint(0)
    move.finish([0])


# The end


def cancelled(lab: Lab, kind: str) -> None:
    """The guest gets its memory back, and the next migration has a new id."""
    move = Move(lab, kind)
    driver, cmd_id = move.round()
    driver.hint(0, 1)
    move.source.cancel()
    driver.must_be(DONE, 'after cancelling')
    check(bool(driver.isr() & CONFIG_CHANGED), 'there is an interrupt')
    driver.hint(2)
    move.target.stop()
    move.target = lab.machine(kind, HINTS, (), incoming=True)
    driver, again = move.round()
    check(again > cmd_id, f'a new id: {again:#x}')
    driver.hint(3)
    move.finish([3])


def broken(lab: Lab, kind: str) -> None:
    """The same when the destination is gone."""
    move = Move(lab, kind)
    driver, _ = move.round()
    driver.hint(0, 1)
    move.target.vm.kill()
    until(lambda: move.source.status() == 'failed', 'the migration fails')
    driver.must_be(DONE, 'after a failure')
    check(move.source.qmp.cmd('query-status')['running'], 'the guest runs')
    driver.hint(2)


def stopped(lab: Lab) -> None:
    """A guest that is stopped ends its round; its queue stands still."""
    move = Move(lab, 'ferry')
    driver, cmd_id = move.round()
    driver.hint(0)
    move.source.qmp.cmd('stop')
    check(driver.cmd_id == STOP, 'the round is over')
    driver.hint(1, wait=False)
    before = driver.returned('hints')
    move.source.next_pass(lambda: passes(move.source) >= 3)
    check(driver.returned('hints') == before, 'the queue stands still')
    driver.must_be(DONE, 'after a sync of a guest that stands still')
    move.source.qmp.cmd('cont')
    driver.drain('hints')
    move.source.next_pass(lambda: driver.cmd_id > cmd_id)
    driver.send_id(driver.cmd_id)
    move.finish([0])


def stopped_in_flight(lab: Lab) -> None:
    """Stopped with the queue full: all comes back, nothing is lost."""
    move = Move(lab, 'ferry')
    driver, _ = move.round()
    for turn in range(30):
        for page in range(20):
            driver.add('hints', In(DATA + page * PAGE, PAGE), kick=False)
        driver.kick('hints')
        move.source.qmp.cmd('stop')
        move.source.qmp.cmd('cont')
        driver.drain('hints')
    move.source.finish(move.target)
    found = move.target.data_pages()
    check(all(got in (0, pattern(page)) for page, got in enumerate(found)),
          f'memory is whole: {found}')
    check(found[20:] == [pattern(page) for page in range(20, DATA_PAGES)],
          'what was not hinted is there')


def switched_over_in_flight(lab: Lab, source: str, target: str) -> None:
    """The guest moves with buffers in the queue, which come back there."""
    move = Move(lab, source, target)
    driver, _ = move.round()
    for page in range(20):
        driver.add('hints', In(DATA + page * PAGE, PAGE), kick=False)
    move.source.set_params(0, 1000)
    until(lambda: move.source.status() == 'completed', 'it is done')
    until(lambda: move.target.qmp.cmd('query-status')['status'] == 'running',
          'the destination runs')
    driver.move_to(move.target)
    driver.must_be(DONE, 'at the destination')
    driver.kick('hints')
    driver.drain('hints')
    found = move.target.data_pages()
    check(all(got in (0, pattern(page)) for page, got in enumerate(found)),
          f'memory is whole: {found}')
    driver.hint(1)


# Who is there


def not_negotiated(lab: Lab, kind: str) -> None:
    """A guest that does not know of hints is left alone."""
    move = Move(lab, kind, features=(STATS, POISON, VERSION_1))
    driver = move.begin()
    move.source.next_pass(lambda: passes(move.source) >= 3)
    check(driver.cmd_id == STOP, 'nothing is asked')
    move.finish([])
    check(driver.cmd_id == STOP, 'and nothing is done')


def not_started(lab: Lab) -> None:
    """Nor is one whose driver is not up yet; then it is asked."""
    move = Move(lab, 'ferry')
    driver = move.driver
    driver.negotiate()
    move.begin()
    move.source.next_pass(lambda: passes(move.source) >= 3)
    check(driver.cmd_id == STOP, 'nothing is asked')
    driver.status = driver.status | 4
    move.source.next_pass(lambda: driver.cmd_id >= CMD_ID_MIN)
    driver.send_id(driver.cmd_id)
    move.finish([])


def plugged_late(lab: Lab) -> None:
    """A device that is there from the second pass on."""
    source = lab.machine('ferry', 'free-page-hint=off', ('-device',
                         'virtio-rng-pci,addr=5'))
    source.fill_data()
    balloon = Balloon(source)
    source.qmp.cmd('device_del', {'id': 'balloon'})
    source.out('l', 0xae08, 1 << SLOT)
    until(lambda: source.qmp.events() or True, '')
    del balloon
    source.begin(None)
    try:
        source.qmp.cmd('device_add', {
            'driver': 'virtio-balloon-pci', 'id': 'balloon', 'addr': f'{SLOT}',
            'disable-legacy': 'on', 'free-page-hint': True,
            'iothread': 'io0'})
    except FerryError as err:
        check('migrat' in str(err), f'QEMU says why not: {err}')
    else:
        driver = Balloon(source).start()
        source.next_pass(lambda: driver.cmd_id >= CMD_ID_MIN)
        driver.send_id(driver.cmd_id)
        driver.hint(0)
    source.cancel()


STATES = ('idle', 'requested', 'started', 'stopped', 'in-flight', 'done')


def enter(move: Move, state: str) -> Balloon:
    """Have the device in this state, in the middle of a migration."""
    driver = move.driver
    if state == 'done':
        move.source.begin(None)
        driver.asked()
        move.source.cancel()
        driver.must_be(DONE, 'after cancelling')
        return driver
    if state == 'idle':
        return driver
    driver, cmd_id = move.request()
    if state != 'requested':
        driver.send_id(cmd_id)
    if state == 'stopped':
        driver.send_id(STOP)
    if state == 'in-flight':
        for page in range(20):
            driver.add('hints', In(DATA + page * PAGE, PAGE), kick=False)
        driver.kick('hints')
    return driver


def whole(move: Move) -> None:
    """Finish it; nothing is lost but what was hinted at most."""
    if move.source.status() != 'active':
        move.begin()
    move.source.finish(move.target)
    found = move.target.data_pages()
    check(all(got in (0, pattern(page)) for page, got in enumerate(found)),
          f'memory is whole: {found}')
    check(found[20:] == [pattern(page) for page in range(20, DATA_PAGES)],
          'what was not hinted is there')


def reset_in(lab: Lab, state: str) -> None:
    """The driver resets the device, and comes again."""
    move = Move(lab, 'ferry')
    driver = enter(move, state)
    driver.status = 0
    check(driver.cmd_id == STOP, 'a reset device asks nothing')
    driver.start()
    if state not in ('idle', 'done'):
        move.source.next_pass(lambda: driver.cmd_id >= CMD_ID_MIN)
        cmd_id = driver.cmd_id
        driver.send_id(cmd_id)
        driver.hint(0)
    whole(move)
    driver.move_to(move.target)
    driver.must_be(DONE, 'at the destination')


def machine_reset_in(lab: Lab, state: str) -> None:
    """The machine is reset; its memory is migrated all the same."""
    move = Move(lab, 'ferry')
    enter(move, state)
    move.source.qmp.cmd('system_reset')
    until(lambda: move.driver.pci(4) & 7 == 0, 'it is reset')
    driver = Balloon(move.source).start()
    check(driver.cmd_id == STOP, 'a reset device asks nothing')
    whole(move)


def unplug_in(lab: Lab, state: str) -> None:
    """The guest lets the device go, whatever it is doing."""
    move = Move(lab, 'ferry')
    if state != 'done':
        move.source.qmp.cmd('device_del', {'id': 'balloon'})
    driver = enter(move, state)
    if state == 'done':
        move.source.qmp.cmd('device_del', {'id': 'balloon'})
    move.source.out('l', 0xae08, 1 << SLOT)
    until(lambda: driver.pci(0) == 0xffffffff, 'the device is gone')
    move.source.qmp.wait_event('DEVICE_DELETED', 10)
    if move.source.status() == 'active':
        move.source.cancel()
    # All of it: another may come, and the iothread may go.
    move.source.qmp.cmd('device_add', {
        'driver': 'virtio-balloon-pci', 'id': 'other', 'addr': f'{SLOT}',
        'disable-legacy': 'on', 'free-page-hint': True, 'iothread': 'io0'})
    driver = Balloon(move.source).start()
    move.source.begin(None)
    driver.send_id(driver.asked())
    driver.hint(1)
    move.source.cancel()
    move.source.qmp.cmd('query-status')


def iothread_goes(lab: Lab) -> None:
    """Without the device, the iothread can be deleted."""
    move = Move(lab, 'ferry')
    move.source.qmp.cmd('device_del', {'id': 'balloon'})
    enter(move, 'in-flight')
    move.source.out('l', 0xae08, 1 << SLOT)
    move.source.qmp.wait_event('DEVICE_DELETED', 10)
    move.source.cancel()
    move.source.qmp.cmd('object-del', {'id': 'io0'})
    until(lambda: not move.source.qmp.cmd('query-iothreads'), 'it is gone')


# Migration of the device


def moved_in(lab: Lab, state: str, source: str, target: str) -> None:
    """The device goes on elsewhere, and counts its rounds on."""
    move = Move(lab, source, target)
    driver = enter(move, state)
    before = max(driver.cmd_id, CMD_ID_MIN)
    whole(move)
    driver.move_to(move.target)
    driver.must_be(DONE, 'at the destination')
    driver.drain('hints')
    driver.hint(1)
    third = lab.machine(source, HINTS, (), incoming=True)
    move.target.begin(third)
    cmd_id = driver.asked()
    check(cmd_id > before, f'the id is new: {cmd_id:#x} after {before:#x}')
    for page in range(DATA_PAGES):
        move.target.fill(DATA + page * PAGE, PAGE, pattern(page))
    move.target.next_pass(lambda: driver.cmd_id > cmd_id)
    driver.send_id(driver.cmd_id)
    driver.hint(2)
    move.target.finish(third)
    found = third.data_pages()
    check(all(got == pattern(page) or page == 2
              for page, got in enumerate(found)), f'memory is whole: {found}')


def with_capability(lab: Lab, name: str, used: bool) -> None:
    """Hints and another capability."""
    move = Move(lab, 'ferry', caps={name: True})
    driver = move.begin()
    if used:
        driver.send_id(driver.asked())
        driver.hint(0, 1)
    else:
        move.source.next_pass(lambda: passes(move.source) >= 3)
        check(driver.cmd_id == STOP, 'nothing is asked')
        driver.send_id(CMD_ID_MIN + 1)
        driver.hint(0, 1)
    move.finish([0, 1] if used else [])
    driver.must_be(DONE, 'at the destination')


def cases() -> list[Case]:
    """All of them."""
    found: list[Case] = []

    def add(name: str, run: Callable, *args: str, **more: object) -> None:
        found.append(Case('-'.join(('hints', name, *args)),
                          lambda lab: run(lab, *args), **more))
    for name, run in (
            ('asks', asks), ('hinted', hinted), ('wrong-id', wrong_id),
            ('in-one-buffer', in_one_buffer), ('next-round', next_round),
            ('written-after', written_after),
            ('written-in-flight', written_in_flight),
            ('written-and-synced', written_and_synced),
            ('nonsense', nonsense), ('across-blocks', across_blocks),
            ('poison-unknown', poison_unknown), ('cancelled', cancelled),
            ('broken', broken), ('not-negotiated', not_negotiated)):
        for kind in BOTH:
            add(name, run, kind)
    for name, run in (
            ('ranges', ranges), ('shows-id', shows_id), ('counted', counted), ('many', many),
            ('id-in-a-device', id_in_a_device), ('poisoned', poisoned),
            ('poisoned-late', poisoned_late), ('stopped', stopped),
            ('stopped-in-flight', stopped_in_flight),
            ('not-started', not_started), ('plugged-late', plugged_late),
            ('iothread-goes', iothread_goes)):
        add(name, run)
    for direction in DIRECTIONS:
        add('switchover-in-flight', switched_over_in_flight, *direction)
        for state in STATES:
            add('moved', moved_in, state, *direction)
    for state in STATES:
        add('reset', reset_in, state)
        add('machine-reset', machine_reset_in, state)
        add('unplug', unplug_in, state)
    for name, used in (('postcopy-ram', False), ('multifd', True),
                       ('xbzrle', True)):
        found.append(Case(
            f'hints-with-{name}', lambda lab, name=name, used=used:
            with_capability(lab, name, used), needs=(name,)))
    return found
