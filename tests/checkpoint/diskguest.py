# A guest that writes to its disk, one sector after the other.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that writes to its disk, one sector after the other.

It is a ROM that counts.  Turn K writes K into a page of memory and into a sector
of an IDE disk, each the next one of a ring, and notes in memory before and after
that which turn it is.  So what memory says of any moment tells what the disk had
at this moment, but for the one sector of the turn that was going on.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tsan'))

import rom                                                  # noqa: E402

SECTOR = 512
SECTORS = 8192          # of the disk, a power of 2
SIZE = SECTORS * SECTOR
PAGES = 256             # of memory that are written to, a power of 2
BEGUN, DONE = 0x100000, 0x100004
BUFFER = 0x101000
AREA = 0x200000
MEMORY = 16             # MiB
PAUSE = 2000            # turns of an empty loop, now and then

# Ports of the first IDE bus
DATA, COUNT, LOW, MIDDLE, HIGH, DRIVE, STATUS = (
    0x1f0, 0x1f2, 0x1f3, 0x1f4, 0x1f5, 0x1f6, 0x1f7)
WRITE, BUSY, DRQ = 0x30, 0x80, 0x08


def _port(port: int) -> bytes:
    """mov dx, PORT"""
    return b'\x66\xba' + struct.pack('<H', port)


def _out(port: int, value: int) -> bytes:
    return _port(port) + b'\xb0' + bytes([value]) + b'\xee'


def _next_byte(port: int) -> bytes:
    """out PORT, al; shr eax, 8"""
    return _port(port) + b'\xee' + b'\xc1\xe8\x08'


def _rest() -> bytes:
    """mov ecx, PAUSE; loop $"""
    return b'\xb9' + struct.pack('<I', PAUSE) + b'\xe2\xfe'


JZ, JNZ = 0x74, 0x75


def _wait(mask: int, leave: int) -> bytes:
    """Again and again: in al, dx; test al, MASK; LEAVE if it is so.

    In between it rests: each access takes a lock that others need as well.
    """
    rest = _rest()
    turn = b'\xec\xa8' + bytes([mask, leave, len(rest) + 2]) + rest
    return turn + b'\xeb' + struct.pack('<b', -len(turn) - 2)


def image() -> bytes:
    """The ROM."""
    turn = (b'\x43'                                         # inc ebx
            + b'\x89\x1d' + struct.pack('<I', BEGUN)        # mov [BEGUN], ebx
            + b'\x89\xd8'                                   # mov eax, ebx
            + b'\xbf' + struct.pack('<I', BUFFER)           # mov edi, BUFFER
            + b'\xb9' + struct.pack('<I', SECTOR // 4)      # mov ecx, words
            + b'\xf3\xab'                                   # rep stosd
            + b'\x25' + struct.pack('<I', PAGES - 1)        # and eax, PAGES - 1
            + b'\xc1\xe0\x0c'                               # shl eax, 12
            + b'\x89\x98' + struct.pack('<I', AREA)         # mov [eax+AREA], ebx
            + _port(STATUS) + _wait(BUSY, JZ)
            + _out(DRIVE, 0xe0) + _out(COUNT, 1)
            + b'\x89\xd8'                                   # mov eax, ebx
            + b'\x25' + struct.pack('<I', SECTORS - 1)      # and eax, ...
            + _next_byte(LOW) + _next_byte(MIDDLE) + _next_byte(HIGH)
            + _out(STATUS, WRITE) + _wait(DRQ, JNZ)
            + b'\xbe' + struct.pack('<I', BUFFER)           # mov esi, BUFFER
            + b'\xb9' + struct.pack('<I', SECTOR // 2)      # mov ecx, halves
            + _port(DATA) + b'\xf3\x66\x6f'                 # rep outsw
            + _port(STATUS) + _wait(BUSY, JZ)
            + b'\x89\x1d' + struct.pack('<I', DONE)         # mov [DONE], ebx
            + _rest())
    start = (b'\x66\xb8' + struct.pack('<H', rom.DATA)      # mov ax, DATA
             + b'\x8e\xd8\x8e\xc0'                          # mov ds, es, ax
             + b'\xfc\x31\xdb')                             # cld; ebx = 0
    whole = bytearray(rom.image())
    code = start + turn + b'\xe9' + struct.pack('<i', -len(turn) - 5)
    whole[rom.FLAT_AT:rom.FLAT_AT + len(code)] = code
    return bytes(whole)


def last(turn: int, place: int, ring: int) -> int:
    """The last turn up to TURN that was PLACE's in a ring; 0: none was."""
    found = turn - (turn - place) % ring
    return found if found > 0 else 0


def compare(what: str, begun: int, done: int, found: list[int]) -> list[str]:
    """What a ring of numbers has in other places than a guest has put there."""
    wrong = []
    for place, number in enumerate(found):
        right = {last(done, place, len(found))}
        if begun % len(found) == place:
            right.add(begun)
        if number not in right:
            wrong.append(f'{what} {place}: {number}, and not {sorted(right)}')
    return wrong


def words(data: bytes, step: int) -> list[int]:
    """The first word of each STEP bytes."""
    return [struct.unpack_from('<I', data, at)[0]
            for at in range(0, len(data), step)]


def disk(data: bytes) -> list[int]:
    """The numbers in its sectors; -1 where the parts of one differ."""
    return [struct.unpack_from('<I', data, at)[0]
            if data[at:at + SECTOR] == data[at:at + 4] * (SECTOR // 4) else -1
            for at in range(0, len(data), SECTOR)]
