# A driver of virtio-balloon over PCI, as slow and as strange as a test wants.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver of virtio-balloon over PCI, as slow and as strange as a test wants.

It follows the virtio specification 1.2: modern PCI transport, split rings.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from ferry.errors import FerryError
from ferrytest.wait import until

from machine import DATA, PAGE, RINGS, SCRATCH, SLOT, Machine, check

# Features
STATS, OOM, HINT, POISON, REPORT, VERSION_1 = 1, 2, 3, 4, 5, 32
ALL = (STATS, HINT, POISON, REPORT, VERSION_1)

# Status
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 64

STOP, DONE, CMD_ID_MIN = 0, 1, 0x80000000
CONFIG_CHANGED = 2              # in the ISR

BAR = 0xe0000000
QUEUE_SPACE = 0x10000           # of guest memory for a ring
RING_SIZE = 32                  # no queue of the device has less
COMMON, NOTIFY, ISR, DEVICE = 1, 2, 3, 4

F_NEXT, F_WRITE = 1, 2


@dataclass
class Out:
    """Data for the device."""
    data: bytes


@dataclass
class In:
    """Memory that the device may write to, or that is hinted."""
    address: int
    size: int


@dataclass
class Queue:
    """A split ring in guest memory; its indices are ours, so they survive a
    migration."""
    index: int
    base: int
    notify: int = 0
    added: int = 0
    free: int = 0               # the next descriptor, in turns
    lengths: list[int] = field(default_factory=list)

    @property
    def avail(self) -> int:
        return self.base + 0x1000

    @property
    def used(self) -> int:
        return self.base + 0x2000


class Balloon:
    """The driver, bound to the machine that the device is in."""

    def __init__(self, machine: Machine) -> None:
        self.m = machine
        self.where: dict[int, int] = {}
        self.multiplier = 0
        self.queues: dict[str, Queue] = {}
        self.features = 0
        self._scratch = SCRATCH
        self._find()

    # PCI

    def pci(self, offset: int) -> int:
        """Read a register of configuration space."""
        self.m.out('l', 0xcf8, 1 << 31 | SLOT << 11 | offset & ~3)
        return self.m.inp('l', 0xcfc)

    def set_pci(self, offset: int, value: int) -> None:
        """Write one."""
        self.m.out('l', 0xcf8, 1 << 31 | SLOT << 11 | offset & ~3)
        self.m.out('l', 0xcfc, value)

    def _byte(self, offset: int) -> int:
        return self.pci(offset) >> offset % 4 * 8 & 0xff

    def _find(self) -> None:
        """Map the device, and find where its structures are."""
        check(self.pci(0) >> 16 in (0x1002, 0x1045), 'there is a balloon')
        at = self._byte(0x34)
        while at:
            if self._byte(at) == 9:
                kind, bar = self._byte(at + 3), self._byte(at + 4)
                if kind <= DEVICE:
                    check(bar == 4, 'all structures are in BAR 4')
                    self.where[kind] = BAR + self.pci(at + 8)
                if kind == NOTIFY:
                    self.multiplier = self.pci(at + 16)
            at = self._byte(at + 1)
        self.set_pci(0x20, BAR)
        self.set_pci(0x24, 0)
        self.set_pci(4, 7)

    def move_to(self, machine: Machine) -> None:
        """The guest, this driver with it, goes on over there."""
        self.m = machine

    # Registers

    def common(self, size: str, offset: int) -> int:
        """Read from the common configuration."""
        return self.m.load(size, self.where[COMMON] + offset)

    def set_common(self, size: str, offset: int, value: int) -> None:
        """Write to it."""
        self.m.store(size, self.where[COMMON] + offset, value)

    @property
    def status(self) -> int:
        return self.common('b', 20)

    @status.setter
    def status(self, value: int) -> None:
        self.set_common('b', 20, value)

    def isr(self) -> int:
        """Why there was an interrupt; reading forgets it."""
        return self.m.load('b', self.where[ISR])

    def config(self, field_number: int) -> int:
        """num_pages, actual, command id, poison"""
        return self.m.load('l', self.where[DEVICE] + 4 * field_number)

    def set_config(self, field_number: int, value: int) -> None:
        """Write one of them."""
        self.m.store('l', self.where[DEVICE] + 4 * field_number, value)

    @property
    def cmd_id(self) -> int:
        return self.config(2)

    # Life

    def offered(self) -> set[int]:
        """The features that the device has."""
        bits = 0
        for half in (0, 1):
            self.set_common('l', 0, half)
            bits |= self.common('l', 4) << 32 * half
        return {bit for bit in range(64) if bits >> bit & 1}

    def negotiate(self, features: tuple[int, ...] = ALL) -> None:
        """All up to, and not with, DRIVER_OK."""
        self.status = 0
        check(self.status == 0, 'a reset device has status 0')
        self.status = ACKNOWLEDGE
        self.status = ACKNOWLEDGE | DRIVER
        accepted = self.offered() & set(features)
        for half in (0, 1):
            self.set_common('l', 8, half)
            self.set_common('l', 12, sum(1 << bit % 32 for bit in accepted
                                         if bit // 32 == half))
        self.status = ACKNOWLEDGE | DRIVER | FEATURES_OK
        check(bool(self.status & FEATURES_OK), 'the features are accepted')
        self.queues = {}
        names = ['inflate', 'deflate', 'stats']
        names += ['hints'] if HINT in self.offered() else []
        names += ['report'] if REPORT in self.offered() else []
        for index, name in enumerate(names):
            self._set_up(name, index)

    def _set_up(self, name: str, index: int) -> None:
        queue = Queue(index, RINGS + index * QUEUE_SPACE)
        self.m.fill(queue.base, QUEUE_SPACE, 0)
        self.set_common('w', 22, index)
        check(self.common('w', 24) >= RING_SIZE, f'the queue {name} is there')
        self.set_common('w', 24, RING_SIZE)
        for at, address in ((32, queue.base), (40, queue.avail),
                            (48, queue.used)):
            self.set_common('l', at, address)
            self.set_common('l', at + 4, 0)
        queue.notify = (self.where[NOTIFY]
                        + self.common('w', 30) * self.multiplier)
        self.set_common('w', 28, 1)
        self.queues[name] = queue

    def start(self, features: tuple[int, ...] = ALL, poison: int = 0
              ) -> Balloon:
        """All that a driver does when it is loaded."""
        self.negotiate(features)
        if poison:
            self.set_config(3, poison)
        self.status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
        return self

    # Queues

    def add(self, name: str, *parts: Out | In, kick: bool = True) -> None:
        """Put one buffer into a queue."""
        queue = self.queues[name]
        head = queue.free
        for number, part in enumerate(parts):
            flags = F_NEXT if number + 1 < len(parts) else 0
            if isinstance(part, Out):
                address, size = self._scratch, len(part.data)
                if part.data:
                    self.m.write(address, part.data)
                self._scratch += -(-size // 16) * 16
                if self._scratch > SCRATCH + 0x40000:
                    self._scratch = SCRATCH
            else:
                address, size, flags = part.address, part.size, flags | F_WRITE
            following = (queue.free + 1) % RING_SIZE
            self.m.write(queue.base + 16 * queue.free, struct.pack(
                '<QIHH', address, size, flags, following))
            queue.free = following
        slot = queue.added % RING_SIZE
        self.m.store('w', queue.avail + 4 + 2 * slot, head)
        queue.added += 1
        self.m.store('w', queue.avail + 2, queue.added & 0xffff)
        if kick:
            self.kick(name)

    def kick(self, name: str) -> None:
        """Tell the device to look."""
        self.m.store('w', self.queues[name].notify, self.queues[name].index)

    def returned(self, name: str) -> int:
        """How many buffers the device has given back (modulo 65536)."""
        return self.m.load('w', self.queues[name].used + 2)

    def drain(self, name: str) -> None:
        """Wait until it has given back all."""
        queue = self.queues[name]
        until(lambda: self.returned(name) == queue.added & 0xffff,
              f'all buffers of {name} come back: {self.returned(name)} of '
              f'{queue.added}')

    # Hints

    def send_id(self, cmd_id: int) -> None:
        """Begin to hint, or end it."""
        self.add('hints', Out(struct.pack('<I', cmd_id)))
        self.drain('hints')

    def hint(self, *pages: int, wait: bool = True) -> None:
        """Pages of the data are free, one buffer each."""
        for page in pages:
            self.add('hints', In(DATA + page * PAGE, PAGE), kick=False)
        self.kick('hints')
        if wait:
            self.drain('hints')

    def asked(self, after: int = 0) -> int:
        """Wait for a command id other than AFTER."""
        until(lambda: self.cmd_id >= CMD_ID_MIN and self.cmd_id != after,
              f'the device asks for hints; it says {self.cmd_id:#x}')
        return self.cmd_id

    def must_be(self, cmd_id: int, when: str) -> None:
        """The command id becomes this one."""
        try:
            until(lambda: self.cmd_id == cmd_id, '')
        except FerryError as err:
            raise FerryError(f'{when}: the command id is {self.cmd_id:#x}, '
                             f'not {cmd_id:#x}') from err
