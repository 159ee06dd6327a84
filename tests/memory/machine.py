# A QEMU without a CPU, with devices that write to its memory.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU without a CPU, with devices that write to its memory."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

from ferry.errors import FerryError
from ferry.vm import VM
from ferrytest import qtest
from ferrytest.wait import until

MIB = 1 << 20
MEMORY = 64             # MiB
PAGE = 4096
NUMBERS = itertools.count(1)

# virtio-mem
SLOT = 4                # on the PCI bus
PLUGGED = 32            # MiB
BAR = 0xe0000000
RING, SCRATCH = MIB, 0x180000
VIRTIO_MEM = ('-object', f'memory-backend-ram,id=vm0,size={2 * PLUGGED}M',
              '-device', 'virtio-mem-pci,id=vmem0,memdev=vm0,block-size=2M,'
              f'requested-size={PLUGGED}M,addr={SLOT}')
COMMON, NOTIFY, DEVICE = 1, 2, 4


class Machine(qtest.QTest):
    """The QEMU, and its memory."""

    def __init__(self, folder: Path, args: tuple[str, ...],
                 incoming: bool = False) -> None:
        name = f'{"dst" if incoming else "src"}{next(NUMBERS)}'
        path = folder / f'{name}-qtest'
        self.folder = folder
        self.vm = VM('ferry', name, folder, MEMORY, serial=False,
                     accelerator='qtest', machine='pc,memory-backend=ram0',
                     incoming='defer' if incoming else None, args=[
                         *qtest.arguments(path),
                         '-object', f'memory-backend-ram,id=ram0,size={MEMORY}M',
                         '-m', f'{MEMORY}M,slots=2,maxmem=1G', *args]).start()
        self.qmp = self.vm.qmp
        super().__init__(path, self.vm.check_alive)

    def stop(self) -> None:
        """End it."""
        self.close()
        self.vm.stop()

    def content(self, start: int, size: int) -> bytes:
        """Memory, by way of a file as there may be much of it."""
        path = self.folder / f'{self.vm.name}.mem'
        self.qmp.cmd('pmemsave', {'val': start, 'size': size,
                                  'filename': str(path)})
        data = path.read_bytes()
        path.unlink()
        return data


class MemoryDevice:
    """A driver of virtio-mem: plugs what the device requests.

    By the virtio specification 1.2, modern PCI transport.
    """

    def __init__(self, machine: Machine) -> None:
        self.m = machine
        self.where: dict[int, int] = {}
        self.multiplier = 0
        self._find()
        self.base = self._plug()

    def _pci(self, offset: int) -> int:
        self.m.out('l', 0xcf8, 1 << 31 | SLOT << 11 | offset & ~3)
        return self.m.inp('l', 0xcfc)

    def _set_pci(self, offset: int, value: int) -> None:
        self.m.out('l', 0xcf8, 1 << 31 | SLOT << 11 | offset & ~3)
        self.m.out('l', 0xcfc, value)

    def _byte(self, offset: int) -> int:
        return self._pci(offset) >> offset % 4 * 8 & 0xff

    def _find(self) -> None:
        at = self._byte(0x34)
        while at:
            if self._byte(at) == 9:
                kind = self._byte(at + 3)
                if kind <= DEVICE:
                    self.where[kind] = BAR + self._pci(at + 8)
                if kind == NOTIFY:
                    self.multiplier = self._pci(at + 16)
            at = self._byte(at + 1)
        self._set_pci(0x20, BAR)
        self._set_pci(0x24, 0)
        self._set_pci(4, 7)

    def _negotiate(self) -> None:
        m, common = self.m, self.where[COMMON]
        for status in (0, 1, 3):
            m.store('b', common + 20, status)
        for half in (0, 1):
            m.store('l', common, half)
            offered = m.load('l', common + 4)
            m.store('l', common + 8, half)
            m.store('l', common + 12, offered)
        m.store('b', common + 20, 11)
        m.store('w', common + 22, 0)
        m.store('w', common + 24, 32)
        for at, address in ((32, RING), (40, RING + 0x1000),
                            (48, RING + 0x2000)):
            m.store('l', common + at, address)
            m.store('l', common + at + 4, 0)
        m.store('w', common + 28, 1)
        m.store('b', common + 20, 15)

    def _plug(self) -> int:
        m = self.m
        self._negotiate()
        base = m.load('q', self.where[DEVICE] + 16)
        blocks = PLUGGED // 2
        m.write(SCRATCH, struct.pack('<4HQ4H', 0, 0, 0, 0, base, blocks,
                                     0, 0, 0))
        m.write(RING, struct.pack('<QIHH', SCRATCH, 24, 1, 1)
                + struct.pack('<QIHH', SCRATCH + 64, 16, 2, 0))
        m.store('w', RING + 0x1004, 0)
        m.store('w', RING + 0x1002, 1)
        m.store('w', self.where[NOTIFY]
                + m.load('w', self.where[COMMON] + 30) * self.multiplier, 0)
        until(lambda: m.load('w', RING + 0x2002) == 1, 'memory is plugged')
        answer, = struct.unpack('<H', m.read(SCRATCH + 64, 2))
        if answer:
            raise FerryError(f'virtio-mem answers {answer} to a request')
        return base
