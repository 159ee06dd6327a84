# What a QEMU has open, and what it holds.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU has open, and what it holds: nothing may be left of a migration.

A source is compared with itself before; a destination, when all has come, with
a source before it starts to migrate: it runs the same guest with the same ports.
"""

from __future__ import annotations

import collections
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ferry.errors import FerryError
from ferry.vm import VM

SETTLE = 5.0            # s for threads to end and descriptors to be closed
POLL = 0.05
RSS_SLACK = 12.0        # MiB, of the guest's memory and QEMU's caches
HEAP_SLACK = 6.0        # MiB, of what is not the guest's memory


@dataclass(frozen=True)
class Level:
    """The resources of one process."""

    fds: tuple[tuple[str, int], ...]    # kind of descriptor, how many
    threads: int
    rss: float                          # MiB
    heap: float                         # MiB, without the guest's memory

    def words(self) -> str:
        """In one line."""
        return (f'{sum(count for _, count in self.fds)} descriptors, '
                f'{self.threads} threads, {self.rss:.0f} MiB, '
                f'{self.heap:.1f} of it its own')


# Opened once by who is a destination, and kept for the next one: no leak.
_KEPT = {'/dev/userfaultfd': 1}


def _kind(target: str) -> str:
    """'socket:[123]' and its like without the number; any file is a file."""
    if target.startswith('/') and not target.startswith('/dev/'):
        return 'file'
    return target.split(':[', 1)[0]


def descriptors(pid: int) -> tuple[tuple[str, int], ...]:
    """How many open descriptors there are of each kind."""
    found: collections.Counter[str] = collections.Counter()
    folder = f'/proc/{pid}/fd'
    for name in os.listdir(folder):
        try:
            found[_kind(os.readlink(f'{folder}/{name}'))] += 1
        except OSError:
            pass        # closed meanwhile
    return tuple(sorted(found.items()))


def own_memory(pid: int, guest_mib: int) -> float:
    """Anonymous memory in MiB, mappings as large as the guest's apart."""
    total, big = 0, False
    for line in Path(f'/proc/{pid}/smaps').read_text().splitlines():
        words = line.split()
        if '-' in words[0] and not words[0].endswith(':'):
            begin, end = (int(word, 16) for word in words[0].split('-'))
            big = end - begin >= guest_mib << 20
        elif words[0] == 'Anonymous:' and not big:
            total += int(words[1])
    return total / 1024


# What the translator of TCG keeps, and threads that come and go by themselves,
# say nothing about a migration.
_POOL = ('worker', 'pool-')


def threads(pid: int) -> int:
    """How many threads there are, those of QEMU's pools apart."""
    count = 0
    for name in os.listdir(f'/proc/{pid}/task'):
        try:
            comm = Path(f'/proc/{pid}/task/{name}/comm').read_text()
        except OSError:
            continue
        count += not comm.startswith(_POOL)
    return count


def measure(vm: VM) -> Level:
    """What VM has now."""
    status = Path(f'/proc/{vm.pid}/status').read_text()
    rss = next(int(line.split()[1]) / 1024 for line in status.splitlines()
               if line.startswith('VmRSS:'))
    return Level(descriptors(vm.pid), threads(vm.pid), rss,
                 own_memory(vm.pid, vm.mem))


class Levels:
    """What is normal, and who is not."""

    def __init__(self) -> None:
        self._normal: dict[str, Level] = {}     # by kind of QEMU
        self._grown: dict[str, list[float]] = {}    # MiB

    def before(self, vm: VM) -> Level:
        """VM runs a guest, and no migration: that is how it should be."""
        level = measure(vm)
        self._normal.setdefault(vm.kind, level)
        return level

    def check_source(self, vm: VM, before: Level) -> None:
        """The migration is over; VM still has the guest's memory."""
        self._compare(vm, before, True)

    def check_target(self, vm: VM) -> None:
        """VM runs what has come; it is like one that was not migrated to."""
        normal = self._normal.get(vm.kind)
        if normal is not None:
            self._compare(vm, normal, False)

    def _compare(self, vm: VM, normal: Level, memory: bool) -> None:
        deadline = time.monotonic() + SETTLE
        while (found := self._excess(vm, normal, memory)):
            if time.monotonic() > deadline:
                raise FerryError(f'{vm.name} ({vm.kind}) keeps {found}')
            time.sleep(POLL)

    def _excess(self, vm: VM, normal: Level, memory: bool) -> str:
        """What VM has more than is normal, '' if nothing."""
        now = measure(vm)
        before = dict(normal.fds) if memory else {**_KEPT, **dict(normal.fds)}
        more = [f'{count - before.get(kind, 0)} of {kind}'
                for kind, count in now.fds if count > before.get(kind, 0)]
        if more:
            return f'descriptors: {", ".join(more)}'
        if now.threads > normal.threads:
            return f'{now.threads - normal.threads} threads'
        grown = now.heap - normal.heap
        role = f'{Path(vm.kind).name} as {"source" if memory else "target"}'
        self._grown.setdefault(role, []).append(grown)
        if grown > HEAP_SLACK:
            return f'{grown:.1f} MiB of memory of its own'
        if memory and now.rss - normal.rss > RSS_SLACK:
            return f'{now.rss - normal.rss:.1f} MiB of resident memory'
        return ''

    def summary(self) -> str:
        """How much more memory of their own they had afterwards."""
        said = [f'{role} {sorted(all_)[len(all_) // 2]:+.1f} MiB (median), '
                f'{max(all_):+.1f} (most)'
                for role, all_ in self._grown.items()]
        return 'more memory afterwards: ' + (', '.join(said) or 'not known')
