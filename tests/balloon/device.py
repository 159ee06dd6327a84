# All that a balloon does besides hints.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""All that a balloon does besides hints.

Each case runs on both QEMUs, with the same expectations.
"""

from __future__ import annotations

import itertools
import struct
import time
from typing import Any, Callable

from ferry.errors import FerryError
from ferry.qmp import QMPError
from ferrytest.hugepages import HUGE, huge_pages
from ferrytest.suite import Case
from ferrytest.wait import until

from driver import (ALL, CMD_ID_MIN, CONFIG_CHANGED, DONE, HINT, NEEDS_RESET,
                    OOM, POISON, REPORT, STATS, VERSION_1, Balloon, In, Out)
from lab import HINTS, Lab
from machine import DATA, MEMORY, PAGE, check, pattern

UNKNOWN = 2 ** 64 - 1
PATH = '/machine/peripheral/balloon'
REPORTING = 'free-page-reporting=on'

STAT_NAMES = (
    'stat-swap-in', 'stat-swap-out', 'stat-major-faults', 'stat-minor-faults',
    'stat-free-memory', 'stat-total-memory', 'stat-available-memory',
    'stat-disk-caches', 'stat-htlb-pgalloc', 'stat-htlb-pgfail',
    'stat-oom-kills', 'stat-alloc-stalls', 'stat-async-scans',
    'stat-direct-scans', 'stat-async-reclaims', 'stat-direct-reclaims')


def ready(lab: Lab, kind: str, device: str = REPORTING,
          features: tuple[int, ...] = ALL, poison: int = 0) -> Balloon:
    """A driver that has started its device."""
    return Balloon(lab.machine(kind, device)).start(features, poison)


def pfns(*pages: int) -> Out:
    """A buffer of page numbers."""
    return Out(struct.pack(f'<{len(pages)}I', *pages))


def put(driver: Balloon, name: str, *parts: Out | In) -> None:
    """One buffer, there and back."""
    driver.add(name, *parts)
    driver.drain(name)


# What it has


def features(lab: Lab, kind: str) -> None:
    """Each property is a feature; what can be configured follows from them."""
    names = {OOM: 'deflate-on-oom', HINT: 'free-page-hint',
             POISON: 'page-poison', REPORT: 'free-page-reporting'}
    for bits in itertools.product((False, True), repeat=5):
        on = dict(zip(names, bits))
        old = bits[4]
        driver = Balloon(lab.machine(kind, ','.join(
            [f'{names[bit]}={"on" if value else "off"}'
             for bit, value in on.items()]
            + ['iothread=io0', f'qemu-4-0-config-size={"on" if old else "off"}']
        )))
        got = driver.offered() & {0, STATS, *names}
        want = {STATS} | {bit for bit, value in on.items() if value}
        check(got == want, f'{on}: features {got}, not {want}')
        words = 4 if old or on[POISON] else 3 if on[HINT] else 2
        beyond = [driver.config(word) for word in range(words, 5)]
        check(all(word == 0xffffffff for word in beyond),
              f'{on}: there are {words} words of configuration: {beyond}')
        check(driver.config(words - 1) == 0, f'{on}: word {words - 1} is 0')
        lab.clear()


def defaults(lab: Lab, kind: str) -> None:
    """Of a device without any properties, by machine type."""
    for machine, want in (('pc', {STATS, POISON}),
                          ('pc-i440fx-5.0', {STATS}),
                          ('pc-i440fx-4.0', {STATS})):
        driver = Balloon(lab.machine(kind, machine=machine, device=''))
        got = driver.offered() & {0, STATS, OOM, HINT, POISON, REPORT}
        check(got == want, f'{machine}: features {got}, not {want}')
        words = 2 if machine.endswith('5.0') else 4
        check(driver.config(words) == 0xffffffff
              and driver.config(words - 1) == 0,
              f'{machine}: {words} words of configuration')
        lab.clear()


def no_iothread(lab: Lab, kind: str) -> None:
    """Hints without a thread are refused, and that leaves nothing behind."""
    machine = lab.machine(kind, 'free-page-hint=off')
    machine.qmp.cmd('device_del', {'id': 'balloon'})
    machine.out('l', 0xae08, 1 << 4)
    machine.qmp.wait_event('DEVICE_DELETED', 10)
    try:
        machine.qmp.cmd('device_add', {
            'driver': 'virtio-balloon-pci', 'id': 'one', 'addr': '4',
            'free-page-hint': True})
        raise FerryError('hints without an iothread are accepted')
    except QMPError as err:
        check('iothread' in err.desc and 'free-page-hint' in err.desc,
              f'the error says why: {err.desc}')
    if kind == 'ferry':
        machine.qmp.cmd('device_add', {
            'driver': 'virtio-balloon-pci', 'id': 'two', 'addr': '4',
            'free-page-hint': False})
        machine.qmp.cmd('query-balloon')


def only_one(lab: Lab, kind: str) -> None:
    """A second balloon is refused."""
    machine = lab.machine(kind, '')
    for number in (5, 6):
        try:
            machine.qmp.cmd('device_add', {
                'driver': 'virtio-balloon-pci', 'addr': str(number)})
            raise FerryError('a second balloon is accepted')
        except QMPError as err:
            check('Only one' in err.desc, f'the error says why: {err.desc}')
    check(machine.qmp.cmd('query-balloon')['actual'] == MEMORY << 20,
          'the first one goes on')


# Sizes


def sizes(lab: Lab, kind: str) -> None:
    """What the user wants, what the guest does, and who is told."""
    driver = ready(lab, kind)
    m = driver.m
    driver.isr()
    m.qmp.cmd('balloon', {'value': 40 << 20})
    check(driver.config(0) == (MEMORY - 40) << 8, 'the guest reads the size')
    check(bool(driver.isr() & CONFIG_CHANGED), 'it is told by an interrupt')
    check(m.qmp.cmd('query-balloon')['actual'] == MEMORY << 20,
          'nothing has changed yet')
    driver.set_config(1, 10 << 8)
    event = m.qmp.wait_event('BALLOON_CHANGE', 10)
    check(event['data']['actual'] == (MEMORY - 10) << 20, f'event: {event}')
    check(m.qmp.cmd('query-balloon')['actual'] == (MEMORY - 10) << 20,
          'the user reads what the guest did')
    driver.set_config(1, 10 << 8)
    time.sleep(0.05)
    check(not m.qmp.events(), 'no event without a change')
    m.qmp.cmd('balloon', {'value': 1 << 40})
    check(driver.config(0) == 0, 'more than there is means all')
    m.qmp.cmd('balloon', {'value': 1})
    check(driver.config(0) == (MEMORY << 8) - 1, 'one byte means a page')
    try:
        m.qmp.cmd('balloon', {'value': 0})
        raise FerryError('a size of 0 is accepted')
    except QMPError:
        pass


def too_large(lab: Lab) -> None:
    """A guest that says it gave up more than it has leaves nothing."""
    driver = ready(lab, 'ferry')
    driver.set_config(1, 0xffffffff)
    event = driver.m.qmp.wait_event('BALLOON_CHANGE', 10)
    check(event['data']['actual'] == 0, f'event: {event}')
    check(driver.m.qmp.cmd('query-balloon')['actual'] == 0, 'nothing is left')


def read_only(lab: Lab, kind: str) -> None:
    """The guest cannot write what is the host's."""
    driver = ready(lab, kind, HINTS)
    driver.set_config(0, 77)
    driver.set_config(2, 0x80000055)
    check(driver.config(0) == 0 and driver.config(2) == 0, 'they stay 0')
    driver.set_config(3, 0x55)
    check(driver.config(3) == 0x55, 'the poison is the guest\'s')
    driver.status = 0
    check(driver.config(3) == 0, 'until it resets the device')


# Pages


def inflated(lab: Lab, kind: str) -> None:
    """Pages in the balloon are gone; those that come back are zero."""
    driver = ready(lab, kind)
    m = driver.m
    m.fill_data()
    first = DATA // PAGE
    put(driver, 'inflate', pfns(first + 1, first + 3))
    put(driver, 'inflate', pfns(first + 5), pfns(first + 6))
    put(driver, 'inflate', pfns(first + 8), Out(b'\1\0'))
    gone = {1, 3, 5, 6, 8}
    found = m.data_pages()
    check(found == [0 if page in gone else pattern(page)
                    for page in range(len(found))], f'pages: {found}')
    m.fill(DATA + PAGE, PAGE, 0x77)
    put(driver, 'deflate', pfns(first + 1, first + 3, first + 4))
    found = m.data_pages()
    check(found[1] == 0x77 and found[3] == 0 and found[4] == pattern(4),
          f'deflating changes nothing: {found}')


def no_pages(lab: Lab, kind: str) -> None:
    """Page numbers of what is no memory are ignored, in any buffer."""
    driver = ready(lab, kind)
    m = driver.m
    m.fill_data()
    bad = (MEMORY << 8, 0xfee00, 0xfffff, 0xd0000, 0xa0, 0xffffffff,
           0x7fffffff, 0xe0000)
    for name in ('inflate', 'deflate'):
        put(driver, name, pfns(*bad, DATA // PAGE, *bad))
        put(driver, name, Out(b'\1'))
        put(driver, name, In(DATA + 20 * PAGE, PAGE))
        put(driver, name, In(0xd0000000, PAGE))
    check(not driver.status & NEEDS_RESET, 'the device goes on')
    found = m.data_pages()
    check(found == [0] + [pattern(page) for page in range(1, len(found))],
          f'only the page that is there: {found}')
    m.qmp.cmd('query-status')


def reported(lab: Lab, kind: str) -> None:
    """Pages that are reported free go; parts of pages stay."""
    driver = ready(lab, kind)
    m = driver.m
    m.fill_data()
    put(driver, 'report', In(DATA, PAGE), In(DATA + 4 * PAGE, 3 * PAGE))
    put(driver, 'report', In(DATA + 10 * PAGE + 8, PAGE))
    put(driver, 'report', In(DATA + 12 * PAGE, PAGE - 1))
    put(driver, 'report', In(0xfee00000, PAGE))
    put(driver, 'report', In(MEMORY << 20, PAGE))
    put(driver, 'report', Out(b'?'))
    gone = {0, 4, 5, 6}
    found = m.data_pages()
    check(found == [0 if page in gone else pattern(page)
                    for page in range(len(found))], f'pages: {found}')
    check(not driver.status & NEEDS_RESET, 'the device goes on')


def reported_poisoned(lab: Lab, kind: str) -> None:
    """Not those of a guest that has something in them."""
    driver = ready(lab, kind, poison=0xaa)
    driver.m.fill_data()
    put(driver, 'report', In(DATA, PAGE))
    driver.set_config(3, 0)
    put(driver, 'report', In(DATA + PAGE, PAGE))
    found = driver.m.data_pages()[:3]
    check(found == [pattern(0), 0, pattern(2)], f'pages: {found}')


def large_pages(lab: Lab, kind: str) -> None:
    """Of a page of the host, all has to come, and at once."""
    size, base, backend = HUGE << 20, 0x100000000, 128
    with huge_pages(backend // HUGE):
        machine = lab.machine(kind, REPORTING, (
            '-m', f'{MEMORY}M,slots=1,maxmem=1G', '-object',
            f'memory-backend-memfd,id=m0,size={backend}M,hugetlb=on,'
            f'hugetlbsize={HUGE}M',
            '-device', f'pc-dimm,memdev=m0,id=d0,addr={base}'))
        driver = Balloon(machine).start()
        for page in range(3):
            machine.fill(base + page * size, size, page + 1)
        first, units = base // PAGE, size // PAGE
        put(driver, 'inflate', pfns(*range(first, first + units)))
        put(driver, 'inflate', pfns(*range(first + units,
                                           first + 2 * units - 1)))
        put(driver, 'inflate', pfns(first + 2 * units - 1))
        got = [machine.load('b', base + page * size) for page in range(3)]
        lab.clear()
    check(got == [0, 2, 3], f'only the first one went: {got}')


# Statistics


def stats(driver: Balloon) -> dict[str, Any]:
    """What the user is told."""
    return driver.m.qmp.cmd('qom-get', {'path': PATH,
                                        'property': 'guest-stats'})


def poll(driver: Balloon, seconds: int) -> None:
    """Ask the guest so often."""
    driver.m.qmp.cmd('qom-set', {
        'path': PATH, 'property': 'guest-stats-polling-interval',
        'value': seconds})


def figures(*pairs: tuple[int, int]) -> Out:
    """A buffer of figures."""
    return Out(b''.join(struct.pack('<HQ', tag, value)
                        for tag, value in pairs))


def told(lab: Lab, kind: str) -> None:
    """Figures come in and are shown; the buffer is kept to ask again."""
    driver = ready(lab, kind)
    m = driver.m
    none = stats(driver)
    check(none == {'last-update': 0, 'stats': dict.fromkeys(STAT_NAMES,
                                                            UNKNOWN)},
          f'nothing is known: {none}')
    driver.add('stats', figures(*((tag, 1000 + tag) for tag in range(16)),
                                (16, 5), (0xffff, 6)))
    known = until(lambda: stats(driver)['last-update'] and stats(driver),
                  'the figures are there')
    check(known['stats'] == {name: 1000 + tag for tag, name
                             in enumerate(STAT_NAMES)}, f'all of: {known}')
    check(abs(known['last-update'] - time.time()) < 60, f'when: {known}')
    m.step(10 ** 10)
    check(driver.returned('stats') == 0, 'nobody asks')
    poll(driver, 2)
    m.step(1)
    driver.drain('stats')
    driver.add('stats', figures((4, 44)))
    until(lambda: stats(driver)['stats']['stat-free-memory'] == 44,
          'new figures are there')
    check(stats(driver)['stats']['stat-swap-in'] == UNKNOWN,
          'what is not told is not known')
    m.step(1_990_000_000)
    check(driver.returned('stats') == 1, 'it is not time yet')
    m.step(20_000_000)
    driver.drain('stats')
    m.step(10 ** 10)            # it has nothing to give back: tries again
    driver.add('stats', figures((4, 45)))
    m.step(2 * 10 ** 9)
    driver.drain('stats')
    driver.add('stats', figures((4, 46)))
    poll(driver, 0)
    m.step(10 ** 10)
    check(driver.returned('stats') == 3, 'nobody asks any more')


def two_buffers(lab: Lab, kind: str) -> None:
    """A guest that sends a second one gets the first back."""
    driver = ready(lab, kind)
    driver.add('stats', figures((0, 1)))
    driver.add('stats', figures((0, 2)) , Out(b'odd'))
    until(lambda: driver.returned('stats') == 1, 'the first is returned')
    check(stats(driver)['stats']['stat-swap-in'] == 2, 'the second counts')
    driver.add('stats', In(DATA, PAGE))
    until(lambda: driver.returned('stats') == 2, 'and the second')
    check(stats(driver)['stats']['stat-swap-in'] == UNKNOWN, 'nothing is said')


def intervals(lab: Lab, kind: str) -> None:
    """Which intervals are accepted."""
    driver = ready(lab, kind)
    for value, good in ((0, True), (1, True), (1, True), (-1, False),
                        (2 ** 32 - 1, True), (2 ** 32, False), (0, True),
                        (-2 ** 63, False), (5, True), (7, True)):
        try:
            poll(driver, value)
            accepted = True
        except QMPError:
            accepted = False
        check(accepted == good, f'{value} is {"" if good else "not "}accepted')
    now = driver.m.qmp.cmd('qom-get', {
        'path': PATH, 'property': 'guest-stats-polling-interval'})
    check(now == 7, f'the last one is {now}')


def forgotten(lab: Lab, kind: str) -> None:
    """A reset of the machine forgets them, one of the driver does not."""
    driver = ready(lab, kind)
    driver.add('stats', figures((0, 1)))
    until(lambda: stats(driver)['last-update'], 'they are there')
    driver.start()
    check(stats(driver)['stats']['stat-swap-in'] == 1, 'still there')
    driver.add('stats', figures((0, 2)))
    until(lambda: stats(driver)['stats']['stat-swap-in'] == 2, 'new ones')
    driver.m.qmp.cmd('system_reset')
    until(lambda: stats(driver)['last-update'] == 0, 'they are forgotten')
    check(stats(driver)['stats']['stat-swap-in'] == UNKNOWN, 'all of them')


def unplugged(lab: Lab, kind: str) -> None:
    """The device goes while it holds a buffer and a timer runs."""
    driver = ready(lab, kind)
    poll(driver, 1)
    driver.add('stats', figures((0, 1)))
    until(lambda: stats(driver)['last-update'], 'they are there')
    driver.m.qmp.cmd('device_del', {'id': 'balloon'})
    driver.m.out('l', 0xae08, 1 << 4)
    driver.m.qmp.wait_event('DEVICE_DELETED', 10)
    driver.m.step(10 ** 10)
    try:
        driver.m.qmp.cmd('query-balloon')
        raise FerryError('there is a balloon without a device')
    except QMPError as err:
        check(err.cls == 'DeviceNotActive', f'the error is {err.cls}')


# Migration


def moved(lab: Lab, source: str, target: str) -> None:
    """Sizes, poison and the buffer of statistics go along."""
    here = lab.machine(source, HINTS)
    there = lab.machine(target, HINTS, incoming=True)
    driver = Balloon(here).start()
    poll(driver, 5)
    here.fill_data()
    here.qmp.cmd('balloon', {'value': 50 << 20})
    driver.set_config(1, 333)
    driver.set_config(3, 0x1234)
    driver.add('stats', figures((3, 33)))
    until(lambda: stats(driver)['last-update'], 'they are there')
    here.begin(there)
    here.finish(there)
    driver.move_to(there)
    check([driver.config(word) for word in range(4)] ==
          [14 << 8, 333, DONE if source == 'pristine' or True else 0, 0x1234],
          f'configuration: {[driver.config(word) for word in range(4)]}')
    # The buffer that was held there is taken once more.
    until(lambda: stats(driver)['stats']['stat-minor-faults'] == 33,
          'the figures come along')
    poll(driver, 1)
    there.step(2 * 10 ** 9)
    driver.drain('stats')
    put(driver, 'inflate', pfns(DATA // PAGE))
    check(there.load('b', DATA) == 0, 'the balloon goes on')


def moved_plain(lab: Lab, source: str, target: str) -> None:
    """A device with nothing special, to one with nothing special."""
    here = lab.machine(source, 'page-poison=off')
    there = lab.machine(target, 'page-poison=off', incoming=True)
    driver = Balloon(here).start((STATS, VERSION_1))
    here.fill_data()
    driver.set_config(1, 77)
    here.begin(there)
    here.finish(there)
    driver.move_to(there)
    check(driver.config(1) == 77, 'its size goes along')
    put(driver, 'inflate', pfns(DATA // PAGE))


def bad_state(lab: Lab) -> None:
    """A stream with a state of hints that does not exist is refused."""
    for cmd_id, state in ((CMD_ID_MIN + 1, 4), (CMD_ID_MIN + 1, 0xffffffff),
                          (7, 0), (0, 3)):
        log = load_state(lab, cmd_id, state)
        check('free page hints' in log, f'{cmd_id:#x}, {state}: it says so: '
              f'{log}')
    for state in range(4):
        check(not load_state(lab, 0xffffffff, state), f'{state} is accepted')


def load_state(lab: Lab, cmd_id: int, state: int) -> str:
    """Load a stream with these values; what QEMU says if it refuses."""
    here = lab.machine('ferry', HINTS)
    Balloon(here).start()
    path = lab.folder / 'stream'
    here.qmp.cmd('stop')
    here.qmp.cmd('migrate', {'uri': f'exec:cat > {path}'})
    until(lambda: here.status() == 'completed', 'the stream is there')
    data = path.read_bytes()
    name = b'virtio-balloon-device/free-page-report'
    at = data.index(bytes([len(name)]) + name) + 1 + len(name) + 4
    path.write_bytes(data[:at] + struct.pack('>II', cmd_id, state)
                     + data[at + 8:])
    there = lab.machine('ferry', HINTS, incoming=True)
    there.qmp.cmd('migrate-set-parameters', {})
    there.qmp.cmd('migrate-incoming', {'uri': f'exec:cat {path}',
                                       'exit-on-error': False})
    until(lambda: there.status() in ('completed', 'failed'), 'it is loaded')
    failed = there.status() == 'failed'
    text = there.vm.log_tail(9)
    if not failed:
        config = Balloon.__new__(Balloon)
        config.m, config.where = there, {}
    lab.clear()
    return (text or 'refused') if failed else ''


def cases() -> list[Case]:
    """All of them."""
    found: list[Case] = []

    def add(name: str, run: Callable, *args: str) -> None:
        found.append(Case('-'.join(('device', name, *args)),
                          lambda lab: run(lab, *args)))
    for kind in ('ferry', 'pristine'):
        for name, run in (
                ('features', features), ('defaults', defaults),
                ('no-iothread', no_iothread), ('only-one', only_one),
                ('sizes', sizes), ('read-only', read_only),
                ('inflated', inflated), ('no-pages', no_pages),
                ('large-pages', large_pages), ('reported', reported),
                ('reported-poisoned', reported_poisoned), ('told', told),
                ('two-buffers', two_buffers), ('intervals', intervals),
                ('forgotten', forgotten), ('unplugged', unplugged)):
            add(name, run, kind)
    add('too-large', too_large)
    add('bad-state', bad_state)
    for source, target in (('ferry', 'ferry'), ('ferry', 'pristine'),
                           ('pristine', 'ferry')):
        add('moved', moved, source, target)
        add('moved-plain', moved_plain, source, target)
    return found
