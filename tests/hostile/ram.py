# Lies about memory.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Lies about memory: in the list of its blocks, and in what they hold.

The second half is about records that one Ferry sends another.  A QEMU that does
not know them refuses them as well, so what is asked for here holds for both.
"""

from __future__ import annotations

import struct

import records as r
from cases import BLOCK, Case, Change, find
from ferry.errors import FerryError
from ferry.vm import VM
from records import PAGE_SIZE, Record

SIZE = 16 << 20         # of BLOCK, bytes
HUGE = (1 << 64) - PAGE_SIZE

# Who loads RAM may say more than this, which names the section.
RAM = "Section 'ram'"


def part(*entries: bytes, end: bool = True) -> Change:
    """Give RAM a section of ENTRIES, after the list of its blocks."""
    def change(stream: list[Record]) -> bytes:
        at = find(stream, r.START, b'ram')
        body = b''.join(entries) + (r.ram(r.EOS) if end else b'')
        extra = Record(r.PART, number=stream[at].number, body=body)
        if not end:
            return r.join(stream[:at + 1]) + extra.but(footer=b'').pack()
        return r.join([*stream[:at + 1], extra, *stream[at + 1:]])
    return change


def late(*entries: bytes) -> Change:
    """The same after all pages that are really there."""
    def change(stream: list[Record]) -> bytes:
        number = stream[find(stream, r.START, b'ram')].number
        at = next(index for index, rec in enumerate(stream)
                  if rec.type == r.END and rec.number == number)
        extra = Record(r.PART, number=number,
                       body=b''.join(entries) + r.ram(r.EOS))
        return r.join([*stream[:at], extra, *stream[at:]])
    return change


def blocks(stream: list[Record]) -> list[tuple[bytes, int]]:
    """Name and length of each block in the list."""
    body = stream[find(stream, r.START, b'ram')].body
    left = struct.unpack_from('>Q', body)[0] & -PAGE_SIZE
    at, found = 8, []
    while left:
        end = at + 1 + body[at]
        size, = struct.unpack_from('>Q', body, end)
        found.append((body[at + 1:end], size))
        left -= size
        at = end + 8
    return found


def listed(edit: dict[bytes, tuple[bytes, int]], more: int = 0,
           end: bool = True) -> Change:
    """Change entries of the list; MORE is added to the total."""
    def change(stream: list[Record]) -> bytes:
        entries = [edit.get(name, (name, size))
                   for name, size in blocks(stream)]
        total = sum(size for _, size in entries) + more
        body = r.ram(r.MEM_SIZE, total & ((1 << 64) - 1)) + b''.join(
            r.named(name) + struct.pack('>Q', size) for name, size in entries)
        at = find(stream, r.START, b'ram')
        stream[at] = stream[at].but(body=body + (r.ram(r.EOS) if end else b''))
        return r.join(stream)
    return change


def xbzrle(body: bytes, encoding: int = 1, length: int | None = None) -> bytes:
    """A page as a difference."""
    size = len(body) if length is None else length
    return r.ram(r.XBZRLE, 0, BLOCK, struct.pack('>BH', encoding, size) + body)


PAGE = b'\x5a' * PAGE_SIZE

LIST = [
    Case('list-as-it-was', listed({}), None),
    Case('list-unknown-block', listed({BLOCK: (b'nosuch', SIZE)}), RAM),
    Case('list-block-without-name', listed({BLOCK: (b'', SIZE)}), RAM),
    Case('list-smaller-block', listed({BLOCK: (BLOCK, SIZE // 2)}), RAM),
    Case('list-larger-block', listed({BLOCK: (BLOCK, SIZE * 2)}), RAM),
    Case('list-block-of-8-EB', listed({BLOCK: (BLOCK, 1 << 63)}), RAM),
    Case('list-empty-block', listed({BLOCK: (BLOCK, 0)}), RAM),
    Case('list-odd-size', listed({BLOCK: (BLOCK, SIZE - 1)}, 1), RAM),
    Case('list-longer-than-said', listed({}, -SIZE), RAM),
    Case('list-shorter-than-said', listed({}, SIZE), RAM),
    Case('list-of-16-EB', listed({}, HUGE), RAM),
    Case('list-without-end', listed({}, end=False), RAM),
]

LEGACY = [
    Case('page-unknown-block', part(r.ram(r.PAGE, 0, b'nosuch', PAGE)), RAM),
    Case('page-block-with-escape', part(r.ram(r.PAGE, 0, b'\x1b[2J', PAGE)),
         RAM),
    Case('page-behind-end', part(r.ram(r.PAGE, SIZE, BLOCK, PAGE)), RAM),
    Case('page-far-behind-end', part(r.ram(r.PAGE, HUGE, BLOCK, PAGE)), RAM),
    Case('page-before-a-name', part(r.ram(r.PAGE | r.CONTINUE, 0, rest=PAGE)),
         RAM),
    Case('page-cut', part(r.ram(r.PAGE, 0, BLOCK, PAGE[:99]), end=False), RAM),
    Case('page-and-zero-at-once', part(
        r.ram(r.PAGE | r.ZERO, 0, BLOCK, PAGE)), RAM),
    Case('zero-behind-end', part(r.ram(r.ZERO, SIZE, BLOCK, b'\0')), RAM),
    Case('zero-of-ones', part(r.ram(r.ZERO, 0, BLOCK, b'\1')), RAM),
    Case('zero-cut', part(r.ram(r.ZERO, 0, BLOCK), end=False), RAM),
    Case('no-flag', part(r.ram(0, 0, BLOCK, PAGE)), RAM),
    Case('flag-of-old', part(r.ram(0x01, 0, BLOCK, PAGE)), RAM),
    Case('flag-compressed', part(r.ram(0x100, 0, BLOCK, PAGE)), RAM),
    Case('flag-rdma', part(r.ram(r.HOOK)), RAM, lenient=True),
    Case('xbzrle-encoding', part(xbzrle(b'\0\1x', 7)), RAM),
    Case('xbzrle-too-long', part(xbzrle(bytes(5000))), RAM),
    Case('xbzrle-behind-page', part(xbzrle(b'\xff\x1f\2xy')), RAM),
    Case('xbzrle-without-bytes', part(xbzrle(b'\0\5x')), RAM),
    Case('xbzrle-endless-number', part(xbzrle(b'\xff' * 9)), RAM),
    Case('xbzrle-cut', part(xbzrle(b'\0', length=4000), end=False), RAM),
    Case('xbzrle-behind-end', part(
        r.ram(r.XBZRLE, SIZE, BLOCK, b'\1\0\0')), RAM),
]


def run(count: int, pages: int | None = None, offset: int = 0,
        block: bytes | None = BLOCK, flags: int = r.PAGE_RUN,
        fill: bytes = b'\x5a') -> bytes:
    """A run said to have COUNT pages that has PAGES of them."""
    have = count if pages is None else pages
    return r.ram(flags, offset, block,
                 struct.pack('>I', count) + fill * (have * PAGE_SIZE))


def zeros(count: int, offset: int = 0, block: bytes | None = BLOCK,
          flags: int = r.ZERO_RANGE) -> bytes:
    """A range of COUNT pages that are zero."""
    return r.ram(flags, offset, block, struct.pack('>Q', count))


HERE = 0x400000         # bytes, in BLOCK


def first_words(vm: VM, *values: int) -> None:
    """The pages from HERE on begin with VALUES."""
    for index, value in enumerate(values):
        said = vm.qmp.cmd('human-monitor-command', {
            'command-line': f'xp /1xw {HERE + index * PAGE_SIZE:#x}'})
        if int(said.split()[-1], 16) != value:
            raise FerryError(f'page {index} begins with {said.strip()!r}, not '
                             f'{value:#x}')


# Who has this member answers the handshake, and so must understand these.
KNOWS = ('query-migrate.progress',)
Z = 0x5a5a5a5a

GOOD = [
    Case('page-and-zero', late(
        *(r.ram(r.PAGE, HERE + at * PAGE_SIZE, BLOCK, PAGE)
          for at in range(3)),
        r.ram(r.ZERO | r.CONTINUE, HERE + PAGE_SIZE, rest=b'\0')), None,
         look=lambda vm: first_words(vm, Z, 0, Z, 0)),
    Case('xbzrle', late(
        r.ram(r.PAGE, HERE, BLOCK, PAGE),
        r.ram(r.XBZRLE, HERE, BLOCK, b'\1\0\6' + b'\0\4\1\0\0\0')), None,
         look=lambda vm: first_words(vm, 1, 0)),
]

PEER = [
    Case('run-and-range', late(
        run(4, offset=HERE),
        zeros(2, HERE + PAGE_SIZE, None, r.ZERO_RANGE | r.CONTINUE)), None,
         needs=KNOWS, look=lambda vm: first_words(vm, Z, 0, 0, Z, 0)),
    Case('longest-run', late(run(512, offset=HERE)), None, needs=KNOWS,
         look=lambda vm: first_words(vm, *[Z] * 512, 0)),
    Case('range-over-it', late(run(2, offset=HERE),
                               zeros(9, HERE - PAGE_SIZE)), None,
         needs=KNOWS, look=lambda vm: first_words(vm, 0, 0)),
    Case('run-to-the-end', late(run(2, offset=SIZE - 2 * PAGE_SIZE)), None,
         needs=KNOWS),
    Case('run-empty', part(run(0)), RAM),
    Case('run-too-long', part(run(513)), RAM),
    Case('run-of-4-G', part(run(0xffffffff, 1)), RAM),
    Case('run-behind-end', part(run(1, offset=SIZE)), RAM),
    Case('run-over-end', part(run(2, offset=SIZE - PAGE_SIZE)), RAM),
    Case('run-around', part(run(2, offset=HUGE)), RAM),
    Case('run-unknown-block', part(run(1, block=b'nosuch')), RAM),
    Case('run-before-a-name', part(run(
        1, block=None, flags=r.PAGE_RUN | r.CONTINUE)), RAM),
    Case('run-cut-in-count', part(r.ram(r.PAGE_RUN, 0, BLOCK, b'\0'),
                                  end=False), RAM),
    Case('run-cut', part(run(9, 8), end=False), RAM),
    Case('run-and-page-at-once', part(run(1, flags=r.PAGE_RUN | r.PAGE)), RAM),
    Case('run-and-end-at-once', part(run(1, flags=r.PAGE_RUN | r.EOS)), RAM),
    Case('run-and-range-at-once', part(run(
        1, flags=r.PAGE_RUN | r.ZERO_RANGE)), RAM),
    Case('range-empty', part(zeros(0)), RAM),
    Case('range-over-end', part(zeros(SIZE // PAGE_SIZE + 1)), RAM),
    Case('range-behind-end', part(zeros(1, SIZE)), RAM),
    Case('range-around', part(zeros((1 << 64) - 1, PAGE_SIZE)), RAM),
    Case('range-around-in-bytes', part(zeros(1 << 52)), RAM),
    Case('range-just-around-in-bytes', part(zeros((1 << 52) + 1)), RAM),
    Case('range-unknown-block', part(zeros(1, block=b'nosuch')), RAM),
    Case('range-before-a-name', part(zeros(
        1, block=None, flags=r.ZERO_RANGE | r.CONTINUE)), RAM),
    Case('range-cut', part(r.ram(r.ZERO_RANGE, 0, BLOCK, bytes(7)), end=False),
         RAM),
    Case('range-and-zero-at-once', part(zeros(
        1, flags=r.ZERO_RANGE | r.ZERO)), RAM),
]

CASES = LIST + LEGACY + GOOD + PEER
