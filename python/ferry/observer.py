# Blackouts and stalls of a guest, as somebody outside of it sees them.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Blackouts and stalls of a guest, as somebody outside of it sees them.

The guest sends one byte a millisecond, which counts modulo 256.  Under TCG its
clock stands still while it is stopped, so only time stamps taken outside show
how long that was.  The stamps are taken by collector.py; here they are kept
and read.  One Observer is for one guest: attach() it to every VM that the guest
runs in, before it runs there.
"""

from __future__ import annotations

import array
import dataclasses
import itertools
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from .collector import PACKET, RECORD, step
from .errors import FerryError
from .vm import VM

SYNC_BIT = 0x8000       # marks ids of answers to 'S' in the records
MS = 1e-6               # ms in a ns
PATIENCE = 30.0         # s, on a machine that has much else to do


@dataclasses.dataclass
class Handover:
    """The guest went silent in one VM and was next heard from another."""

    source: int         # numbers of the VMs, in the order of attach()
    target: int
    at_ns: int          # first sign of life in the target
    gap_ms: float
    lost: int           # bytes that are missing between the two,
    repeated: int       # or that came again
    index: int = 0      # of the chunk in the timeline


@dataclasses.dataclass
class Crossing:
    """From the last sign of life in one VM to the second in the next."""

    ms: float
    first: int          # the byte that followed on the last one in the source
    count: int          # bytes from that one on


class Timeline:
    """All chunks of heartbeat bytes in the order of their arrival."""

    def __init__(self) -> None:
        self.times = array.array('Q')
        self.sources = array.array('H')
        self.steps = array.array('Q')       # bytes, those left out included
        self.gap = array.array('Q')         # ns since the chunk before
        self.lasts = array.array('B')       # the last byte
        self.bytes_of: dict[int, int] = {}
        self.handovers: list[Handover] = []
        self.breaks: list[tuple[int, int, int]] = []   # ns, lost, repeated
        self._last_byte = 0

    def add(self, source: int, when: int, first: int, last: int, count: int,
            lost: int = 0, repeated: int = 0) -> None:
        """Add a chunk of COUNT bytes, FIRST to LAST, that arrived at WHEN."""
        if lost or repeated:
            self.breaks.append((when, lost, repeated))
        steps = count + lost
        if not self.times:
            self.gap.append(0)
        else:
            gap = max(0, when - self.times[-1])
            self.gap.append(gap)
            lost, repeated = step(self._last_byte, first)
            steps += lost
            if lost or repeated:
                self.breaks.append((when, lost, repeated))
            if source != self.sources[-1]:
                self.handovers.append(Handover(
                    self.sources[-1], source, when, gap * MS, lost, repeated,
                    len(self.times)))
        self.times.append(when)
        self.sources.append(source)
        self.lasts.append(last)
        self.steps.append(steps)
        self.bytes_of[source] = self.bytes_of.get(source, 0) + count
        self._last_byte = last

    def gaps(self, since: int = 0, until: int = 2 ** 63
             ) -> list[tuple[int, float]]:
        """(ns when it ended, ms) of each gap that ended in the interval.

        Gaps that span a hand-over are not among them.
        """
        moved = {handover.at_ns for handover in self.handovers}
        return [(when, gap * MS) for when, gap
                in itertools.islice(zip(self.times, self.gap), 1, None)
                if since <= when <= until and when not in moved]

    def crossing(self, since: int = 0) -> Crossing | None:
        """The last hand-over since then, up to the second sign of life.

        The first may be of a byte that the guest had given to its UART before
        it was stopped.
        """
        moves = [one for one in self.handovers if one.at_ns >= since]
        if not moves or moves[-1].index + 1 >= len(self.times):
            return None
        index = moves[-1].index
        before = self.lasts[index - 1]
        return Crossing((self.times[index + 1] - self.times[index - 1]) * MS,
                        (before + 1) % 256,
                        (self.lasts[index + 1] - before) % 256)


def percentile(values: list[float], p: float) -> float:
    """The smallest of VALUES that P percent of them do not exceed."""
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = -(-len(ordered) * p // 100)
    return ordered[min(len(ordered), max(1, int(rank))) - 1]


class Observer:
    """Watches the heartbeat of one guest through all of its VMs.

    Or, with another ROLE, what the guest sends on that port in its place.
    """

    def __init__(self, role: str = 'beat') -> None:
        self._role = role
        self._timeline = Timeline()
        self._synced = threading.Condition()
        self._last_sync = 0
        self._numbers: dict[VM, int] = {}
        self._next_sync = itertools.count(1)
        self._orders, theirs = socket.socketpair(socket.AF_UNIX,
                                                 socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, '-I',
                 str(Path(__file__).with_name('collector.py'))],
                stdin=theirs, stdout=subprocess.PIPE,
                start_new_session=True)     # Ctrl-C is for the parent
        self._reader = threading.Thread(target=self._read, daemon=True,
                                        name='observer')
        self._reader.start()
        try:
            self.sync()     # what arrives before it runs would get no time
        except FerryError:
            self.stop()
            raise

    def _read(self) -> None:
        pipe = self._process.stdout
        while True:
            data = pipe.read(RECORD.size)
            if len(data) < RECORD.size:
                break
            number, first, last, when, count, lost, again = \
                RECORD.unpack(data)
            with self._synced:
                if number & SYNC_BIT:
                    self._last_sync = number
                    self._synced.notify_all()
                else:
                    self._timeline.add(number, when, first, last, count,
                                       lost, again)

    def _order(self, kind: bytes, number: int,
               fds: tuple[int, ...] = ()) -> None:
        try:
            socket.send_fds(self._orders, [PACKET.pack(kind, number)], fds)
        except OSError as err:
            raise FerryError('the heartbeat observer has ended') from err

    def attach(self, vm: VM) -> int:
        """Watch VM too; return its number in Handover records."""
        if vm in self._numbers:
            return self._numbers[vm]
        number = len(self._numbers) + 1
        path = vm.port_path(self._role)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(path)
            except OSError as err:
                raise FerryError(f'cannot attach to {path}: '
                                 f'{err.strerror or err}') from err
            self._order(b'A', number, (sock.fileno(),))
        self._numbers[vm] = number
        vm.wait_attached(self._role)
        return number

    def sync(self) -> Timeline:
        """Everything that has arrived so far.

        The reader goes on adding to it: use it at once, or copy.
        """
        number = SYNC_BIT | next(self._next_sync) % SYNC_BIT
        self._order(b'S', number)
        with self._synced:
            if not self._synced.wait_for(
                    lambda: self._last_sync == number, PATIENCE):
                raise FerryError('the heartbeat observer does not answer')
        return self._timeline

    def bytes_from(self, vm: VM) -> int:
        """How many heartbeats have come from VM."""
        return self.sync().bytes_of.get(self._numbers.get(vm, 0), 0)

    def wait_beats(self, vm: VM, count: int = 1, timeout: float = 10) -> None:
        """Wait until COUNT more heartbeats have come from VM."""
        deadline = time.monotonic() + timeout
        want = self.bytes_from(vm) + count
        while self.bytes_from(vm) < want:
            if time.monotonic() > deadline:
                raise FerryError(f'no heartbeat from the guest in {vm.name}')
            time.sleep(0.005)

    def noise_ms(self, p: float = 99, since: int = 0,
                 until: int = 2 ** 63) -> float:
        """Percentile P of the gaps between heartbeats, hand-overs apart.

        SINCE and UNTIL are in ns of time.monotonic_ns().
        """
        return percentile([gap for _, gap in self.sync().gaps(since, until)],
                          p)

    def gaps(self, since: int = 0, until: int = 2 ** 63
             ) -> list[tuple[int, float]]:
        """(ns when it ended, ms) of every gap, hand-overs apart."""
        return self.sync().gaps(since, until)

    def longest_gap_ms(self, since: int = 0, until: int = 2 ** 63) -> float:
        """The longest gap, hand-overs apart."""
        return max((gap for _, gap in self.gaps(since, until)), default=0.0)

    def handovers(self, since: int = 0) -> list[Handover]:
        """Each time the guest went from one VM to another."""
        return [handover for handover in self.sync().handovers
                if handover.at_ns >= since]

    def crossing(self, since: int = 0) -> Crossing | None:
        """The last hand-over, if the second sign of life has come."""
        return self.sync().crossing(since)

    def blackout_ms(self, since: int = 0) -> float | None:
        """The longest gap that spans a hand-over; None if there was none."""
        return max((handover.gap_ms for handover in self.handovers(since)),
                   default=None)

    def counts(self, since: int = 0, until: int = 2 ** 63
               ) -> list[tuple[int, int]]:
        """(ns, bytes) of each time when some came, left out ones included."""
        line = self.sync()
        return [(when, steps) for when, steps in zip(line.times, line.steps)
                if since <= when <= until]

    def breaks(self, since: int = 0) -> tuple[int, int]:
        """(lost, repeated) heartbeats, hand-overs included."""
        found = [one for one in self.sync().breaks if one[0] >= since]
        return (sum(lost for _, lost, _ in found),
                sum(repeated for _, _, repeated in found))

    def stop(self) -> None:
        """End the collector; what was gathered can no longer be asked for."""
        self._orders.close()
        if self._process.poll() is None:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(2)
        self._process.stdout.close()

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
