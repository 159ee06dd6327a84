# What machines the guest travels between: devices that write to its memory.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What machines the guest travels between: devices that write to its memory.

An attempt that is given up resets the destination, and devices that write to
memory then have to be undone: so guests have them, and memory that is plugged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ferry.vm import VM
from ..wait import until

MIB = 1 << 20


@dataclass(frozen=True)
class Machine:
    """What it has besides.

    OURS are devices that the base does not have.  WRITTEN is memory, as start
    and length, that devices write to and the guest leaves alone.  PLUGGED is
    what the guest is to have plugged in, in MiB.
    """

    name: str
    args: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    append: str = ''
    modules: bool = False
    written: tuple[int, int] | None = None
    plugged: int = 0

    def options(self, kind: str) -> list[str]:
        """What QEMU is started with."""
        return [*self.args, *(self.ours if kind != 'pristine' else ())]

    def wait_plugged(self, vm: VM) -> None:
        """Until the guest has plugged in what it is to have."""
        if self.plugged:
            until(lambda: vm.qmp.cmd('query-memory-size-summary').get(
                'plugged-memory') == self.plugged * MIB,
                  f'the guest has plugged in {self.plugged} MiB')

    def compare(self, src: VM, dst: VM) -> str:
        """What devices wrote is the same on both sides; or what is wrong."""
        if self.written is None:
            return ''
        here, there = (_content(vm, *self.written) for vm in (src, dst))
        if here == there:
            return ''
        at = next(i for i, (a, b) in enumerate(zip(here, there)) if a != b)
        return (f'byte {at} of what devices write is {there[at]:#x} on the '
                f'destination and {here[at]:#x} on the source')


def _content(vm: VM, start: int, size: int) -> bytes:
    path = Path(f'{vm.log_path}.mem')
    vm.qmp.cmd('pmemsave', {'val': start, 'size': size, 'filename': str(path)})
    try:
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


# The guest allocates what it writes in memory that was plugged in first.
_PLUGGED = 96
_WRITTEN = (192 * MIB, 2 * MIB)


def _writer(offset: int, fill: int, **props: str) -> tuple[str, str]:
    text = ','.join(f'{name.replace("_", "-")}={value}'
                    for name, value in props.items())
    return ('-device', f'ram-writer,addr={_WRITTEN[0] + offset:#x},len=65536,'
            f'fill={fill},{text}')


PLAIN = Machine('plain')
MACHINES = (
    PLAIN,
    Machine('virtio-mem', modules=True, plugged=_PLUGGED,
            append='memhp_default_state=online_movable',
            args=('-m', '256M,maxmem=1G',
                  '-object', 'memory-backend-ram,id=plugged,size=128M',
                  '-device', 'virtio-mem-pci,memdev=plugged,'
                  f'requested-size={_PLUGGED}M')),
    Machine('writers', append='memmap={}M${}M'.format(
                _WRITTEN[1] // MIB, _WRITTEN[0] // MIB),
            written=_WRITTEN,
            args=('-device', f'loader,addr={_WRITTEN[0] + MIB:#x},'
                  'data=0x1122334455667788,data-len=8'),
            ours=(*_writer(0, 200, on_reset='on', on_stop='on'),
                  *_writer(128 << 10, 100, on_reset='on', how='pointer'),
                  *_writer(256 << 10, 50, on_reset='on', on_stop='on',
                           how='discard'))))
