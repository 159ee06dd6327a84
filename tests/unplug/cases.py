# What is ejected, and when; what has to become of the migration.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is ejected, and when; what has to become of the migration."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from ferry.errors import FerryError
from ferrytest import suite
from ferrytest.drain import Drain
from ferrytest.suite import Case
from ferrytest.wait import until
from machine import SLOW, Machine, firmware

RING_PAGES = 4096       # more than a second's worth, if sent at FAST
LOOPS = 500             # the guest writes to all of them in a time slice
FAST = 8 << 20          # bytes a second
CPUS = 12               # that can be ejected
SHARE = 99              # %, of its time that the guest loses
DIMM = 64               # MiB
CANCEL_S = 2.0          # a cancelled migration has to end within


@dataclass(frozen=True)
class Kind:
    """Something that can be ejected."""
    machine: str
    args: tuple[str, ...]
    eject: tuple[tuple[int, int, int], ...]     # width, port, value
    backend: str = ''


KINDS = {
    'dimm': Kind('q35', ('-m', 'slots=2,maxmem=1G', '-object',
                         f'memory-backend-ram,id=m1,size={DIMM}M',
                         '-device', 'pc-dimm,id=d1,memdev=m1'),
                 ((4, 0xa00, 0), (1, 0xa14, 8)), 'm1'),
    'nic': Kind('pc', ('-device', 'e1000,id=d1,addr=5'),
                ((4, 0xae10, 0), (4, 0xae08, 1 << 5))),
}


class Lab(suite.Lab):
    """The machines of a case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Machine] = []

    def machine(self, kind: str, args: tuple[str, ...], machine: str,
                incoming: bool = False) -> Machine:
        """Start one."""
        made = Machine(kind, self.folder,
                       firmware(self.folder, RING_PAGES, LOOPS), args,
                       machine, incoming=incoming)
        self.all.append(made)
        return made

    def pair(self, what: Kind, peer: str) -> tuple[Machine, Machine]:
        """Source and destination with that device."""
        return (self.machine('ferry', what.args, what.machine),
                self.machine(peer, what.args, what.machine, incoming=True))

    def begin(self, src: Machine, dst: Machine, *caps: str) -> None:
        """Begin a migration."""
        uri = f'unix:{self.folder}/link{len(self.all)}'
        for side in (src, dst):
            side.caps(*caps)
        dst.cmd('migrate-incoming', uri=uri)
        src.cmd('migrate', uri=uri)

    def clear(self) -> None:
        """End them."""
        while self.all:
            self.all.pop().stop()

    def last_words(self) -> list[str]:
        """What the machines have said."""
        return [f'{one.vm.name}: {one.vm.last_words()}' for one in self.all]


def is_there(side: Machine, device: str) -> bool:
    """Whether a device has not been deleted."""
    return any(entry['name'] == device for entry in
               side.cmd('qom-list', path='/machine/peripheral'))


def wait_for_rcu(side: Machine) -> None:
    """Some time for RCU, which waits for vCPUs that never leave their loop."""
    if side.cmd('query-status')['running']:
        side.cmd('stop')
        side.cmd('cont')
    time.sleep(0.05)


def ram_blocks(side: Machine) -> int:
    """How many RAM blocks there are, with or without a name."""
    return side.cmd('human-monitor-command',
                    command_line='info ramblock').count('0x')


def eject(side: Machine, what: Kind, by_guest: bool) -> None:
    """Complete the unplug, and delete what the device had."""
    blocks = ram_blocks(side)
    for width, port, value in what.eject:
        (side.guest_out if by_guest else side.out)(width, port, value)
    until(lambda: not is_there(side, 'd1'), 'the device is deleted')
    if what.backend:
        side.cmd('object-del', id=what.backend)

    def freed() -> bool:
        wait_for_rcu(side)
        return ram_blocks(side) < blocks
    until(freed, 'its RAM block is removed')
    for _ in range(3):
        wait_for_rcu(side)      # and unmapped


def fill_dimm(side: Machine) -> None:
    """There is something to send, none of it zero."""
    for at in range(0, DIMM, 2):
        side.qtest(f'memset {0x100000000 + (at << 20):#x} 0x100000 '
                   f'{at % 255 + 1:#x}')


def prepare(lab: Lab, kind: str, peer: str) -> tuple[Machine, Machine]:
    """Both sides; on the source unplug has been requested."""
    what = KINDS[kind]
    src, dst = lab.pair(what, peer)
    if kind == 'dimm':
        fill_dimm(src)
    src.cmd('device_del', id='d1')
    until(lambda: src.ring(RING_PAGES)[-1] > 1, 'the guest runs')
    return src, dst


def arrives(src: Machine, dst: Machine) -> None:
    """Without limits now; the guest has to run over there."""
    src.params(max_bandwidth=0, max_postcopy_bandwidth=0, downtime_limit=1000)
    src.completes()
    until(lambda: dst.cmd('query-status')['status'] == 'running',
          'the guest runs on the destination')
    dst.runs_on(RING_PAGES)
    dst.check_ring(RING_PAGES)


def while_active(kind: str, peer: str, *caps: str) -> Callable[[Lab], None]:
    """The guest ejects while the first pass is under way."""
    def test(lab: Lab) -> None:
        src, dst = prepare(lab, kind, peer)
        src.params(max_bandwidth=SLOW, downtime_limit=1)
        lab.begin(src, dst, *caps)
        src.until('active')
        time.sleep(0.3)
        eject(src, KINDS[kind], True)
        arrives(src, dst)
    return test


def while_stopped(kind: str, peer: str) -> Callable[[Lab], None]:
    """It goes while the user is waited for before the switchover."""
    def test(lab: Lab) -> None:
        src, dst = prepare(lab, kind, peer)
        src.caps('pause-before-switchover')
        src.params(downtime_limit=2000)
        lab.begin(src, dst)
        src.until('pre-switchover')
        eject(src, KINDS[kind], False)
        src.cmd('migrate-continue', state='pre-switchover')
        arrives(src, dst)
    return test


def in_postcopy(kind: str, peer: str, *caps: str) -> Callable[[Lab], None]:
    """It goes on the source while memory follows the guest."""
    def test(lab: Lab) -> None:
        src, dst = prepare(lab, kind, peer)
        src.params(max_bandwidth=SLOW, max_postcopy_bandwidth=SLOW,
                   downtime_limit=1)
        lab.begin(src, dst, 'postcopy-ram', *caps)
        src.until('active')
        time.sleep(0.2)
        src.cmd('migrate-start-postcopy')
        src.until('postcopy-active')
        eject(src, KINDS[kind], False)
        dst.runs_on(RING_PAGES)
        arrives(src, dst)
    return test


def recovered(kind: str) -> Callable[[Lab], None]:
    """It goes in postcopy, which is paused and recovered after that."""
    def test(lab: Lab) -> None:
        src, dst = prepare(lab, kind, 'ferry')
        src.params(max_bandwidth=SLOW, max_postcopy_bandwidth=SLOW,
                   downtime_limit=1)
        lab.begin(src, dst, 'postcopy-ram')
        src.until('active')
        time.sleep(0.2)
        src.cmd('migrate-start-postcopy')
        src.until('postcopy-active')
        eject(src, KINDS[kind], False)
        src.cmd('migrate-pause')
        for side in (src, dst):
            side.until('postcopy-paused')
        uri = f'unix:{lab.folder}/recover'
        dst.cmd('migrate-recover', uri=uri)
        src.cmd('migrate', uri=uri, resume=True)
        src.until('postcopy-active', 'completed')
        arrives(src, dst)
    return test


def before_postcopy(kind: str, peer: str, *caps: str
                    ) -> Callable[[Lab], None]:
    """It goes before, and all that is known of it follows as zeros."""
    def test(lab: Lab) -> None:
        src, dst = prepare(lab, kind, peer)
        src.params(max_bandwidth=SLOW, max_postcopy_bandwidth=0,
                   downtime_limit=1)
        lab.begin(src, dst, 'postcopy-ram', *caps)
        src.until('active')
        time.sleep(0.2)
        eject(src, KINDS[kind], True)
        src.cmd('migrate-start-postcopy')
        src.until('postcopy-active', 'completed')
        arrives(src, dst)
    return test


def strict(kind: str, *caps: str) -> Callable[[Lab], None]:
    """With a limit that is kept."""
    def test(lab: Lab) -> None:
        src, dst = prepare(lab, kind, 'ferry')
        src.params(max_bandwidth=SLOW, max_postcopy_bandwidth=0,
                   downtime_limit=1)
        lab.begin(src, dst, 'return-path', 'strict-downtime', *caps)
        src.until('active')
        time.sleep(0.3)
        eject(src, KINDS[kind], True)
        if caps:
            src.params(downtime_limit=1000)
            src.cmd('migrate-start-postcopy')
        arrives(src, dst)
    return test


def on_destination(kind: str, by_guest: bool) -> Callable[[Lab], None]:
    """The guest ejects where it runs, while its memory still arrives."""
    def test(lab: Lab) -> None:
        what = KINDS[kind]
        src, dst = lab.pair(what, 'ferry')
        if kind == 'dimm':
            fill_dimm(src)
        until(lambda: src.ring(RING_PAGES)[-1] > 1, 'the guest runs')
        src.params(max_bandwidth=SLOW, max_postcopy_bandwidth=SLOW,
                   downtime_limit=1)
        lab.begin(src, dst, 'postcopy-ram')
        src.until('active')
        src.cmd('migrate-start-postcopy')
        src.until('postcopy-active')
        dst.runs_on(RING_PAGES)
        eject(dst, what, by_guest)
        arrives(src, dst)
    return test


# vCPUs, and a guest that is throttled

def cpu_args() -> tuple[str, ...]:
    """vCPUs besides the first, that only wait."""
    args: list[str] = ['-smp', f'1,sockets={CPUS + 1},cores=1,threads=1,'
                               f'maxcpus={CPUS + 1}']
    for number in range(1, CPUS + 1):
        args += ['-device', f'qemu64-x86_64-cpu,socket-id={number},'
                            f'core-id=0,thread-id=0,id=c{number}']
    return tuple(args)


def eject_cpu(side: Machine, number: int) -> None:
    """The guest ejects a vCPU."""
    for width, port, value in ((4, 0xcd8, 0), (4, 0xcd8, number),
                               (1, 0xcdc, 8)):
        side.guest_out(width, port, value)


def vcpus(side: Machine) -> int:
    """How many there are."""
    return len(side.cmd('query-cpus-fast'))


def wait_throttled(side: Machine) -> None:
    """Until the guest has hardly any time left."""
    until(lambda: side.info().get('cpu-throttle-percentage') == SHARE,
          'the guest is throttled')


def set_throttle(side: Machine) -> None:
    """To that share at once, and the migration does not converge."""
    side.params(cpu_throttle_initial=SHARE, max_cpu_throttle=SHARE,
                throttle_trigger_threshold=1, downtime_limit=1,
                max_bandwidth=FAST)


def throttled(lab: Lab, args: tuple[str, ...] = (), *caps: str
              ) -> tuple[Machine, Machine]:
    """A migration whose guest has little time left."""
    src = lab.machine('ferry', args, 'q35')
    dst = lab.machine('ferry', args, 'q35', incoming=True)
    set_throttle(src)
    lab.begin(src, dst, 'auto-converge', *caps)
    wait_throttled(src)
    return src, dst


def throttle_ends(side: Machine) -> None:
    """The guest has its time again, at once."""
    left = side.info().get('cpu-throttle-percentage')
    if left:
        raise FerryError(f'the guest is still throttled by {left} %')


def ends_quickly(side: Machine, status: str) -> None:
    """It ends that way, before a user wonders."""
    side.until(status, patience=CANCEL_S)


def eject_cpus(lab: Lab) -> None:
    """vCPUs go one by one while the log is collected all the time.

    The destination never allows the switchover, so the source collects it
    again and again, and waits for each vCPU.
    """
    src = lab.machine('ferry', cpu_args(), 'q35')
    set_throttle(src)
    with Drain(lab.folder / 'drain') as drain:
        src.caps('auto-converge', 'return-path', 'switchover-ack')
        src.cmd('migrate', uri=drain.uri)
        wait_throttled(src)
        src.params(max_bandwidth=0, downtime_limit=2000)
        for number in range(1, CPUS + 1):
            eject_cpu(src, number)
            until(lambda n=number: vcpus(src) == CPUS + 1 - n,
                  'the vCPU is deleted')
        src.cmd('migrate_cancel')
        ends_quickly(src, 'cancelled')
    throttle_ends(src)
    src.runs_on(RING_PAGES)


def eject_cpus_and_arrive(lab: Lab) -> None:
    """The same, and the guest goes on over there."""
    args = cpu_args()
    src, dst = throttled(lab, args)
    src.params(max_bandwidth=SLOW)
    for number in range(1, CPUS + 1, 3):
        eject_cpu(src, number)
    arrives(src, dst)


def throttle_cancel(lab: Lab) -> None:
    """Cancelled at 99 %: the guest has all its time within a slice."""
    src, _ = throttled(lab)
    src.cmd('migrate_cancel')
    ends_quickly(src, 'cancelled')
    full_speed(src)


def throttle_failure(lab: Lab) -> None:
    """The destination is gone."""
    src, dst = throttled(lab)
    dst.vm.kill()
    ends_quickly(src, 'failed')
    full_speed(src)


def throttle_completion(lab: Lab) -> None:
    """It arrives."""
    src, dst = throttled(lab)
    arrives(src, dst)
    throttle_ends(src)
    throttle_ends(dst)


def throttle_postcopy(lab: Lab) -> None:
    """It leaves: no guest is slowed down any more, and nothing says so."""
    src, dst = throttled(lab, (), 'postcopy-ram')
    src.params(max_postcopy_bandwidth=SLOW)
    src.cmd('migrate-start-postcopy')
    src.until('postcopy-active', 'completed')
    throttle_ends(src)
    dst.runs_on(RING_PAGES)
    arrives(src, dst)


def full_speed(side: Machine) -> None:
    """As many rounds as before, or nearly: not the hundredth part."""
    throttle_ends(side)
    first, start = side.ring(RING_PAGES)[0], time.monotonic()
    time.sleep(0.5)
    rate = (side.ring(RING_PAGES)[0] - first) / (time.monotonic() - start)
    side.cmd('stop')
    side.cmd('cont')
    fresh = side.ring(RING_PAGES)[0], time.monotonic()
    time.sleep(0.5)
    after = (side.ring(RING_PAGES)[0] - fresh[0]) / (time.monotonic() -
                                                      fresh[1])
    if rate < after / 5:
        raise FerryError(f'{rate:.1f} rounds a second, {after:.1f} later')


def cases() -> Iterator[Case]:
    """All of them."""
    for kind in KINDS:
        for peer in ('ferry', 'pristine'):
            yield Case(f'{kind}/active/{peer}', while_active(kind, peer))
            yield Case(f'{kind}/pre-switchover/{peer}',
                       while_stopped(kind, peer))
            yield Case(f'{kind}/postcopy/{peer}', in_postcopy(kind, peer))
        yield Case(f'{kind}/before-postcopy', before_postcopy(kind, 'ferry'))
        yield Case(f'{kind}/strict', strict(kind))
        yield Case(f'{kind}/strict-postcopy', strict(kind, 'postcopy-ram'))
        yield Case(f'{kind}/recovered', recovered(kind))
    yield Case('dimm/before-postcopy/pristine',
               before_postcopy('dimm', 'pristine'))
    yield Case('dimm/xbzrle', while_active('dimm', 'ferry', 'xbzrle'))
    yield Case('dimm/release-ram', in_postcopy('dimm', 'ferry',
                                               'release-ram'))
    yield Case('dimm/preempt', in_postcopy('dimm', 'ferry',
                                           'postcopy-preempt'))
    yield Case('nic/on-destination', on_destination('nic', True))
    yield Case('dimm/on-destination', on_destination('dimm', True))
    yield Case('cpu/cancel', eject_cpus)
    yield Case('cpu/arrive', eject_cpus_and_arrive)
    yield Case('throttle/cancel', throttle_cancel)
    yield Case('throttle/failure', throttle_failure)
    yield Case('throttle/completion', throttle_completion)
    yield Case('throttle/postcopy', throttle_postcopy)
