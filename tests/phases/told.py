# A guest that does what it is told over its serial port.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that does what it is told over its serial port.

Its firmware is made here: it fills some memory, so that there is something to
send, and then does what each byte says that comes in.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import dataclass
from typing import Iterator

from ferry.errors import FerryError
from ferry.vm import VM

from lab import Lab, run_state

ROM = 65536
CODE = 512              # bytes before the last 16
PM_CONTROL = 0x604      # the power management's port, where we put it
PVPANIC = 0x505
WATCHDOG = 0x443        # of an ib700
DISK = 0x1f0            # of an ISA IDE controller
WRITES = 40             # to the disk, at most


@dataclass(frozen=True)
class Event:
    """What a guest does: how it is told, and what state that leads to."""
    byte: bytes
    state: str          # '' if it goes on, with the event RESET


EVENTS = {
    'reset': Event(b'r', ''),
    'suspend': Event(b's', 'suspended'),
    'I/O error': Event(b'i', 'io-error'),
    'watchdog': Event(b'w', 'watchdog'),
    'panic': Event(b'p', 'guest-panicked'),
    'power-off': Event(b'o', 'shutdown'),
}


def port_out(port: int, value: int) -> bytes:
    """mov $port, %dx; mov $value, %al; out %al, (%dx)"""
    return b'\xba' + port.to_bytes(2, 'little') + bytes((0xb0, value, 0xee))


def pci_write(register: int, value: int) -> bytes:
    """A register of the LPC bridge, by the ports 0xcf8 and 0xcfc."""
    def write(port: int, number: int) -> bytes:
        return (b'\x66\xb8' + number.to_bytes(4, 'little')     # mov, %eax
                + b'\xba' + port.to_bytes(2, 'little')
                + b'\x66\xef')                                  # out %eax
    return write(0xcf8, 0x8000f800 | register) + write(0xcfc, value)


def power(sleep_type: int) -> bytes:
    """To sleep, or off."""
    return (b'\xba' + PM_CONTROL.to_bytes(2, 'little')
            + b'\xb8' + (0x2000 | sleep_type << 10).to_bytes(2, 'little')
            + b'\xef')                                          # out %ax


def write_sector() -> bytes:
    """The first of the disk, when that has done what it was told before."""
    return (b'\xba' + (DISK + 7).to_bytes(2, 'little')
            + b'\xec\xa8\x80\x75\xfb'   # until the disk is not busy
            + port_out(DISK + 6, 0xe0) + port_out(DISK + 2, 1)
            + port_out(DISK + 3, 0) + port_out(DISK + 4, 0)
            + port_out(DISK + 5, 0) + port_out(DISK + 7, 0x30)
            + b'\xec\xa8\x08\x74\xfb'   # until the disk wants data
            + b'\xba' + DISK.to_bytes(2, 'little')
            + b'\xb9\x00\x01\xef\xe2\xfd')  # 256 words


WHAT = {'s': power(1), 'o': power(0), 'r': b'\xb0\xfe\xe6\x64',
        'p': port_out(PVPANIC, 1), 'w': port_out(WATCHDOG, 15),
        'i': write_sector()}


def fill() -> bytes:
    """256 KiB from 0x10000 on, with what is not zero."""
    code = b'\xfc'                                              # cld
    for segment in range(0x1000, 0x5000, 0x1000):
        code += (b'\xb8' + segment.to_bytes(2, 'little') + b'\x8e\xc0'
                 + b'\x31\xff\xb9\x00\x80'      # %di = 0, %cx = 32768
                 + b'\xb8\x5a\xa5\xf3\xab')     # rep stosw
    return code


def firmware() -> bytes:
    """All of it."""
    start = b'\xfa' + fill() + pci_write(0x40, 0x601) + pci_write(0x44, 0x80)
    wait = b'\xba\xfd\x03\xec\xa8\x01\x74\xfb\xba\xf8\x03\xec'
    code = start + wait
    again = len(start)
    for byte, what in WHAT.items():
        # Not this one: past what it does, and past the way back.
        code += bytes((0x3c, ord(byte), 0x75, len(what) + 3)) + what
        code += b'\xe9' + (again - len(code) - 3).to_bytes(2, 'little',
                                                           signed=True)
    code += b'\xe9' + (again - len(code) - 3).to_bytes(2, 'little',
                                                       signed=True)
    assert len(code) <= CODE
    begin = ROM - 16 - CODE
    jump = b'\xe9' + (begin - (ROM - 16 + 3)).to_bytes(2, 'little', signed=True)
    return (bytes(begin) + code.ljust(CODE, b'\xf4') + jump.ljust(16, b'\xf4'))


def disk(slow: bool) -> str:
    """The first write fails, the next does not, and so on; SLOW: the second."""
    odd = 0 if slow else 1
    rules = {'driver': 'blkdebug', 'node-name': 'errors',
             'image': {'driver': 'null-co', 'size': 1 << 20,
                       'node-name': 'nothing'},
             'set-state': [{'event': 'pwritev', 'state': state,
                            'new_state': state + 1}
                           for state in range(1, WRITES)],
             'inject-error': [{'event': 'pwritev', 'state': state, 'errno': 5,
                               'once': True}
                              for state in range(1, WRITES)
                              if state % 2 == odd]}
    if not slow:
        return json.dumps(rules)
    return json.dumps({'driver': 'throttle', 'node-name': 'slow',
                       'throttle-group': 'group', 'file': rules})


@contextlib.contextmanager
def guests(lab: Lab, slow: bool = False) -> Iterator[None]:
    """All guests of the lab are such, meanwhile."""
    rom = lab.folder / 'told.bin'
    rom.write_bytes(firmware())
    before = (lab.guest, lab.recorded, lab.snapshots)
    lab.snapshots = False
    top = 'slow' if slow else 'errors'
    lab.recorded = b''
    lab.guest = (
        '-bios', str(rom), '-action', 'panic=pause,shutdown=pause,'
        'watchdog=pause',
        '-chardev', 'socket,id=told,path=@told,server=on,wait=off',
        '-device', 'isa-serial,chardev=told', '-device', 'pvpanic',
        '-device', 'ib700',
        '-object', 'throttle-group,id=group,x-bps-write=64',
        '-blockdev', disk(slow),
        '-device', 'isa-ide,id=old', '-device',
        f'ide-hd,bus=old.0,drive={top},werror=stop,rerror=stop')
    try:
        yield
    finally:
        lab.guest, lab.recorded, lab.snapshots = before


def tell(lab: Lab, vm: VM, *names: str) -> None:
    """Have the guest do these, one after the other."""
    path = f'{lab.folder}/{vm.name}-told'
    if path not in lab.told:
        sock = lab.stack.enter_context(
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.connect(path)
        lab.told[path] = sock
    lab.told[path].sendall(b''.join(EVENTS[name].byte for name in names))


def came(vm: VM, name: str, limit: float = 5.0) -> None:
    """It has happened, or soon has."""
    state = EVENTS[name].state
    if not state:
        vm.qmp.wait_event('RESET', limit)
        return
    end = time.monotonic() + limit
    while run_state(vm) != state:
        if time.monotonic() > end:
            raise FerryError(f'{name}: the guest of {vm.name} is '
                             f'{run_state(vm)}, not {state}')
        time.sleep(0.01)


def is_running(vm: VM, limit: float) -> bool:
    """It runs, or soon does."""
    end = time.monotonic() + limit
    while run_state(vm) != 'running':
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def continue_it(vm: VM) -> None:
    """Where the guest is now the disk may fail once more."""
    for _ in range(2):
        vm.qmp.cmd('cont')
        time.sleep(0.05)
        if is_running(vm, 0):
            return


def bring_back(vm: VM, name: str) -> None:
    """The guest runs again, and can be told more."""
    state = EVENTS[name].state
    if state == 'suspended':
        vm.qmp.cmd('system_wakeup')
    elif state:
        if state in ('guest-panicked', 'shutdown'):
            vm.qmp.cmd('system_reset')
            vm.qmp.wait_event('RESET', 5)
        continue_it(vm)
    if not is_running(vm, 5):
        raise FerryError(f'after {name} the guest is {run_state(vm)}')
    vm.qmp.events()
