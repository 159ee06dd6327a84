# A driver of virtio over PCI, worked by hand.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver of virtio over PCI, worked by hand.

It follows the virtio specification 1.2: modern PCI transport, split rings, of
which one buffer at a time is used.
"""

from __future__ import annotations

import struct

from ferry.errors import FerryError
from machine import Machine

VERSION_1 = 32
CAP_VENDOR, COMMON, NOTIFY = 9, 1, 2
BAR = 0xe0000000        # where the registers of slot 0 would be
BAR_SPACE = 0x100000
RING = 0x200000         # in guest memory
RING_SIZE = 8
F_NEXT, F_WRITE = 1, 2


class Card:
    """A device in a slot of the first bus."""

    def __init__(self, machine: Machine, slot: int) -> None:
        self.machine = machine
        self.slot = slot
        self.bar = BAR + slot * BAR_SPACE
        self.common = self.notify = 0
        self.used = 0

    def _select(self, offset: int) -> None:
        self.machine.out(4, 0xcf8,
                         0x80000000 | self.slot << 11 | (offset & ~3))

    def config(self, offset: int, width: int = 4) -> int:
        """Read the configuration space."""
        self._select(offset)
        value = int(self.machine.qtest('inl 0xcfc'), 16) >> 8 * (offset & 3)
        return value & (1 << 8 * width) - 1

    def set_config(self, offset: int, value: int) -> None:
        """Write a word of it."""
        self._select(offset)
        self.machine.out(4, 0xcfc, value)

    def _find(self) -> None:
        """The registers, in the memory of BAR 4."""
        at = self.config(0x34, 1)
        while at:
            if self.config(at, 1) == CAP_VENDOR:
                kind = self.config(at + 3, 1)
                if kind == COMMON:
                    self.common = self.bar + self.config(at + 8)
                elif kind == NOTIFY:
                    self.notify = self.bar + self.config(at + 8)
            at = self.config(at + 1, 1)
        if not self.common:
            raise FerryError('the device has no common configuration')

    def store(self, size: str, offset: int, value: int) -> None:
        """Write a common register of SIZE b, w or l."""
        self.machine.qtest(f'write{size} {self.common + offset:#x} {value:#x}')

    def start(self, *features: int, queue: bool = False) -> Card:
        """Negotiate these features, as far as they are offered."""
        self.set_config(0x20, self.bar)
        self.set_config(0x24, 0)
        self.set_config(0x04, 6)
        self._find()
        for status in (0, 1, 3):
            self.store('b', 20, status)
        for word in range(2):
            self.store('l', 0, word)
            offered = int(self.machine.qtest(f'readl {self.common + 4:#x}'),
                          16)
            bits = sum(1 << feature % 32 for feature in features
                       if feature // 32 == word)
            self.store('l', 8, word)
            self.store('l', 12, bits & offered)
        self.store('b', 20, 11)
        if queue:
            self._make_queue()
        self.store('b', 20, 15)
        return self

    def _make_queue(self) -> None:
        self.store('w', 22, 0)
        self.store('w', 24, RING_SIZE)
        for offset, part in ((32, 0), (40, 0x1000), (48, 0x2000)):
            self.store('l', offset, RING + part)
            self.store('l', offset + 4, 0)
        self.store('w', 28, 1)

    def _write(self, address: int, data: bytes) -> None:
        self.machine.qtest(f'write {address:#x} {len(data):#x} 0x{data.hex()}')

    def _read(self, address: int, size: int) -> bytes:
        return bytes.fromhex(self.machine.qtest(
            f'read {address:#x} {size:#x}')[2:])

    def request(self, data: bytes, answer: int) -> bytes:
        """Send DATA by the first queue; return so many bytes of the ANSWER."""
        buffers = RING + 0x3000
        self._write(buffers, data)
        self._write(RING, struct.pack('<QIHH', buffers, len(data), F_NEXT, 1)
                    + struct.pack('<QIHH', buffers + 0x100, answer, F_WRITE,
                                  0))
        self._write(RING + 0x1000 + 4 + 2 * (self.used % RING_SIZE), bytes(2))
        self.used = (self.used + 1) & 0xffff
        self._write(RING + 0x1000 + 2, struct.pack('<H', self.used))
        self.machine.qtest(f'writew {self.notify:#x} 0')
        done, = struct.unpack('<H', self._read(RING + 0x2000 + 2, 2))
        if done != self.used:
            raise FerryError('the device did not answer')
        return self._read(buffers + 0x100, answer)
