# A guest that is nothing but a ROM.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is nothing but a ROM.

An operating system takes minutes in an emulator that watches each of its own
memory accesses.  This guest takes microseconds: the first instruction of the
processor is the first of its program, which adds one to the first word of each
page of a range, over and over.
"""

from __future__ import annotations

import struct

SIZE = 64 << 10         # of the ROM, which ends at 4 GiB and at 1 MiB
BASE = (1 << 32) - SIZE
RESET = 0xfff0          # where the processor begins
PAGE = 4096

START = 1 << 20         # of what is written to
END = 5 << 20
PAUSE = 4000            # turns of an empty loop after each page

CODE, DATA = 8, 16      # the segments


def _descriptor(kind: int) -> bytes:
    """A segment of 4 GiB from 0 on, for 32 bits; KIND is its type."""
    return struct.pack('<HHBBBB', 0xffff, 0, 0, kind, 0xcf, 0)


GDT_AT, POINTER_AT, REAL_AT, FLAT_AT = 0xf000, 0xf020, 0xf040, 0xf080
GDT = bytes(8) + _descriptor(0x9a) + _descriptor(0x92)
POINTER = struct.pack('<HI', len(GDT) - 1, BASE + GDT_AT)

# As the processor comes up, with 16 bits
REAL = (b'\xfa'                                         # cli
        + b'\x2e\x66\x0f\x01\x16'                       # lgdt cs:[POINTER]
        + struct.pack('<H', POINTER_AT)
        + b'\x0f\x20\xc0\x0c\x01\x0f\x22\xc0'           # cr0 |= 1
        + b'\x66\xea'                                   # jmp CODE:FLAT
        + struct.pack('<IH', BASE + FLAT_AT, CODE))


def flat(pause: int = PAUSE) -> bytes:
    """In a flat address space, with 32 bits."""
    return (b'\x66\xb8' + struct.pack('<H', DATA)       # mov ax, DATA
            + b'\x8e\xd8'                               # mov ds, ax
            + b'\xbf' + struct.pack('<I', START)        # pass: mov edi, START
            + b'\xff\x07'                               # page: inc [edi]
            + b'\xb9' + struct.pack('<I', pause)        # mov ecx, pause
            + b'\xe2\xfe'                               # loop $
            + b'\x81\xc7' + struct.pack('<I', PAGE)     # add edi, PAGE
            + b'\x81\xff' + struct.pack('<I', END)      # cmp edi, END
            + b'\x72\xe9'                               # jb page
            + b'\xeb\xe2')                              # jmp pass


def image(pause: int = PAUSE) -> bytes:
    """The ROM; PAUSE are the turns of an empty loop after each page."""
    rom = bytearray(SIZE)
    for where, what in ((GDT_AT, GDT), (POINTER_AT, POINTER),
                        (REAL_AT, REAL), (FLAT_AT, flat(pause)),
                        (RESET, b'\xe9' + struct.pack(
                            '<h', REAL_AT - RESET - 3))):
        rom[where:where + len(what)] = what
    return bytes(rom)
