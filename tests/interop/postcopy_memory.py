# Postcopy with memory of other kinds, and what else is set beside it.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Postcopy with memory of other kinds, and what else is set beside it."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterator

from ferry.link import Link
from ferry.migrate import set_caps, tcp_uri
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.hugepages import HUGE, huge_pages
from ferrytest.postcopy import PAUSED
from ferrytest.suite import Case

from common import UNDER_WAY
from lab import FILL, MEMORY, Lab, check
from postcopy import (PLAIN, POINTS, PREEMPT, SOON, TRICKLE, Move, Way,
                      cut, moving, summary)

PAIRS = (('ferry', 'ferry'), ('ferry', 'pristine'), ('pristine', 'ferry'))


@dataclass(frozen=True)
class Backend:
    """What guest memory is made of."""
    name: str
    options: str
    huge: bool = False
    twice: bool = False     # ours maps it a second time to fill it in place

    @property
    def text(self) -> str:
        """For -object."""
        return (f'memory-backend-memfd,id=mem,size={MEMORY}M,prealloc=off,'
                + self.options)


BACKENDS = (
    Backend('shared', 'share=on'),
    Backend('hugetlb', f'hugetlb=on,hugetlbsize={HUGE}M,share=off', True),
    Backend('hugetlb-shared', f'hugetlb=on,hugetlbsize={HUGE}M,share=on',
            True, True),
)


def mappings(vm: VM) -> int:
    """How often the guest's memory, a memfd, is mapped."""
    lines = Path(f'/proc/{vm.pid}/maps').read_text().splitlines()
    size = MEMORY << 20
    count = 0
    for line in lines:
        begin, end = (int(x, 16) for x in line.split()[0].split('-'))
        count += 'memfd:' in line and end - begin >= size
    return count


@contextmanager
def moving_backend(lab: Lab, source: str, target: str, way: Way,
                   backend: Backend, vcpus: int = 1, **params: int
                   ) -> Iterator[Move]:
    """As moving(), of a guest whose memory is BACKEND."""
    like = {'mem_backend': backend.text, 'smp': vcpus}
    try:
        lab.boot(source, **like)
        with Link() as link, \
             Move(lab, lab.target(target, **like), way, link, **params) as move:
            yield move
            lab.moved(move.target.vm)
    finally:
        lab.clear()         # or its huge pages could not be given back


@contextmanager
def room_for_two(backend: Backend) -> Iterator[None]:
    """Huge pages for the memory of both sides, if it is made of these."""
    with (huge_pages(2 * MEMORY // HUGE) if backend.huge else nullcontext()):
        yield


def backed(source: str, target: str, way: Way, backend: Backend) -> Case:
    """Memory of that kind, the network cut once."""
    def run(lab: Lab) -> str:
        lab.clear()
        with room_for_two(backend):
            return migrated(lab)

    def migrated(lab: Lab) -> str:
        with moving_backend(lab, source, target, way, backend,
                            **TRICKLE) as move:
            move.start(POINTS['midway'])
            times = mappings(move.target.vm)
            if target == 'ferry':
                check(times == (2 if backend.twice else 1),
                      f'memory is filled in as it should be: {times} mappings')
            move.wait_beats(SOON)
            cut(move)
            move.wait_paused()
            move.again()
            move.let_go()
            move.finish()
            check(mappings(move.target.vm) == 1, 'the second mapping is gone')
            check(move.info['ram']['postcopy-requests'] > 0,
                  'the destination asked for pages')
            return summary(move)
    return Case(f'{source}-{target}-postcopy-{way.name}-{backend.name}', run,
                False, (source, target), way.needs)


# What is set beside it

def resident(vm: VM) -> float:
    """MiB of it in memory."""
    status = Path(f'/proc/{vm.pid}/status').read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines()
                if line.startswith('VmRSS:'))


def released(source: str, target: str, way: Way) -> Case:
    """Memory that has been sent is given back while the rest is on its way."""
    way = Way(f'{way.name}-release-ram', {**way.caps, 'release-ram': True})

    def run(lab: Lab) -> str:
        with moving(lab, source, target, way, **TRICKLE) as move:
            before = resident(move.source.vm)
            move.start(POINTS['midway'])
            move.let_go()
            move.finish()
            freed = before - resident(move.source.vm)
            check(freed > FILL / 2, f'the source has given back {freed:.0f} '
                  f'MiB of {FILL} and more')
            return f'{summary(move)}, {freed:.0f} MiB given back'
    return Case(f'{source}-{target}-postcopy-{way.name}', run, False,
                (source, target), way.needs)


def release_cannot_pause() -> Case:
    """Nobody can go on after it, so a pause is refused, and it ends well."""
    way = Way('release-ram', {'release-ram': True})

    def run(lab: Lab) -> str:
        with moving(lab, 'ferry', 'ferry', way, **TRICKLE) as move:
            move.start(POINTS['midway'])
            try:
                move.source.vm.qmp.cmd('migrate-pause')
            except QMPError as err:
                check('release-ram' in err.desc, f'the reason: {err.desc}')
            else:
                check(False, 'it is refused')
            move.let_go()
            move.finish()
            return summary(move)
    return Case('ferry-ferry-postcopy-release-ram-pause', run, False,
                ('ferry', 'ferry'), way.needs)


def release_cannot_resume(source: str, target: str) -> Case:
    """What has been released cannot be sent again: said, and not tried."""
    way = Way('release-ram', {'release-ram': True})

    def run(lab: Lab) -> str:
        try:
            with moving(lab, source, target, way, **TRICKLE) as move:
                move.start(POINTS['midway'])
                cut(move)
                move.wait_paused()
                try:
                    move.resume(tcp_uri())
                except QMPError as err:
                    check('release-ram' in err.desc, 'the reason is told: '
                          f'{err.desc}')
                    check(move.source.status == PAUSED, 'it stays paused')
                    return err.desc
                check(False, 'resuming is refused')
                return ''
        finally:
            lab.clear()
    return Case(f'{source}-{target}-postcopy-release-ram-cut', run, False,
                (source, target), way.needs)


def by_itself(source: str, target: str, way: Way, rate: int) -> Case:
    """With postcopy-auto: switched if a whole pass was not enough, or not."""
    switches = rate > 0

    def run(lab: Lab) -> str:
        lab.boot(source)
        lab.guest.set_rate(rate)
        with Link() as link, \
             Move(lab, lab.target(target), way, link,
                  **{'downtime-limit': 1 if switches else 300}) as move:
            # The destination need not know who starts it.
            set_caps(move.source.vm, {**move.caps, 'postcopy-auto': True})
            move.begin(tcp_uri(), move.via)
            move.wait_switched()
            move.finish()
            ram = move.info['ram']
            was = 'postcopy-active' in move.source.states()
            lab.moved(move.target.vm)
            check(was == switches, f'postcopy was {"" if was else "not "}used '
                  f'at {rate} pages/s: '
                  f'{move.info["progress"].get("decision")}')
            check(ram['precopy-bytes'] > min(UNDER_WAY, FILL << 20),
                  'a whole pass comes before it')
            return summary(move) if was else 'not needed'
    return Case(f'{source}-{target}-postcopy-auto-{way.name}-{rate}', run,
                False, (source,), (*way.needs, 'postcopy-auto'))


def all_cases() -> list[Case]:
    """Each kind of memory with each pair; more of what both sides share."""
    cases = [backed(*pair, way, backend) for backend in BACKENDS
             for pair in PAIRS for way in (PLAIN, PREEMPT)
             if way is PLAIN or pair == ('ferry', 'ferry')]
    cases += [released(*pair, PLAIN) for pair in PAIRS]
    cases += [released('ferry', 'ferry', PREEMPT), release_cannot_pause(),
              release_cannot_resume('ferry', 'ferry')]
    cases += [by_itself('ferry', target, way, rate)
                    for target, way, rate in (
                        ('ferry', PLAIN, 4000), ('pristine', PLAIN, 4000),
                        ('ferry', PREEMPT, 4000), ('ferry', PLAIN, 0))]
    return [replace(case, full='pristine' in case.name or case.name.startswith(
        tuple(f'ferry-ferry-postcopy-preempt-{backend.name}'
              for backend in BACKENDS))) for case in cases]
