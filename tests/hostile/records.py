# Take a migration stream apart at its records, and put it together again.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of a migration stream, as docs/devel/migration/wire.rst has them.

Nothing in a stream says how long a section is.  What does, if anything, is
the footer: a section ends where its footer stands and a record follows.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace

from ferry.errors import FerryError

MAGIC, VERSION = 0x5145564d, 3

EOF, START, PART, END, FULL = 0, 1, 2, 3, 4
DESCRIPTION, CONFIGURATION, COMMAND, FOOTER = 6, 7, 8, 0x7e
SUBSECTION = 5

# Commands
OPEN_RETURN_PATH, PING, ADVISE, LISTEN, RUN, DISCARD = 1, 2, 3, 4, 5, 6
PACKAGED, ENABLE_COLO, RESUME, RECV_BITMAP, SWITCHOVER_START = 7, 8, 9, 10, 11

# ... that only a Ferry understands: attempts to switch over
HOLD, STATE, COMMIT, ABORT = 0x4600, 0x4601, 0x4602, 0x4603

# RAM: flags of a record
ZERO, MEM_SIZE, PAGE, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
XBZRLE, HOOK, FLUSH = 0x40, 0x80, 0x200
# ... that only a Ferry understands
PAGE_RUN, ZERO_RANGE = 0x400, 0x800
PAGE_SIZE = 4096

SECTIONS = (START, PART, END, FULL)
RECORDS = (EOF, *SECTIONS, COMMAND)


class Malformed(FerryError):
    """The bytes are no migration stream."""


@dataclass(frozen=True)
class Record:
    """One record; fields that its type does not have are left alone."""
    type: int
    number: int = 0             # of a section
    name: bytes = b''
    instance: int = 0
    version: int = 0
    body: bytes = b''           # also: JSON, configuration, payload
    command: int = 0
    length: int | None = None   # said of the body, if it is not its own
    footer: bytes | None = None     # None: the right one

    def but(self, **changes: object) -> Record:
        """The same with CHANGES."""
        return replace(self, **changes)

    def pack(self) -> bytes:
        """The bytes of it."""
        head = bytes([self.type])
        length = len(self.body) if self.length is None else self.length
        if self.type in SECTIONS:
            head += struct.pack('>I', self.number)
            if self.type in (START, FULL):
                head += bytes([len(self.name)]) + self.name
                head += struct.pack('>II', self.instance, self.version)
            footer = struct.pack('>BI', FOOTER, self.number)
            return head + self.body + (footer if self.footer is None
                                       else self.footer)
        if self.type == COMMAND:
            head += struct.pack('>HH', self.command, length)
        elif self.type in (DESCRIPTION, CONFIGURATION):
            head += struct.pack('>I', length)
        return head + self.body


def header(magic: int = MAGIC, version: int = VERSION) -> bytes:
    """The first bytes of a stream."""
    return struct.pack('>II', magic, version)


def command(number: int, payload: bytes = b'', **changes: object) -> Record:
    """A command record."""
    return Record(COMMAND, command=number, body=payload).but(**changes)


def named(name: bytes) -> bytes:
    """A name with its length in front."""
    return bytes([len(name)]) + name


def subsection(name: bytes, body: bytes, version: int = 1) -> bytes:
    """A subsection of the configuration."""
    return (bytes([SUBSECTION]) + named(name) + struct.pack('>I', version)
            + body)


def ram(flags: int, offset: int = 0, block: bytes | None = None,
        rest: bytes = b'') -> bytes:
    """A record of RAM; without a BLOCK, CONTINUE has to be in the FLAGS."""
    name = b'' if block is None else named(block)
    return struct.pack('>Q', offset | flags) + name + rest


class Parser:
    """Cuts a whole stream into records."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, layout: str) -> tuple:
        """Unpack what comes next."""
        layout = '>' + layout
        try:
            values = struct.unpack_from(layout, self.data, self.at)
        except struct.error:
            raise Malformed(f'ends at {len(self.data)}') from None
        self.at += struct.calcsize(layout)
        return values

    def bytes(self, count: int) -> bytes:
        """COUNT bytes."""
        return self.take(f'{count}s')[0]

    def parse(self) -> list[Record]:
        """All records after the header."""
        if self.take('II') != (MAGIC, VERSION):
            raise Malformed('starts with another magic or version')
        records = []
        while self.at < len(self.data):
            records.append(self.record())
        return records

    def record(self) -> Record:
        """The next record."""
        kind, = self.take('B')
        if kind in SECTIONS:
            return self.section(kind)
        if kind == COMMAND:
            number, length = self.take('HH')
            return command(number, self.bytes(length))
        if kind in (DESCRIPTION, CONFIGURATION):
            length, = self.take('I')
            body = self.bytes(length)
            if kind == CONFIGURATION:
                return Record(kind, body=body + self.subsections(),
                              length=length)
            return Record(kind, body=body)
        if kind == EOF:
            return Record(kind)
        raise Malformed(f'record of type {kind:#x} at {self.at - 1:#x}')

    def subsections(self) -> bytes:
        """Those of the configuration that follow."""
        start = self.at
        while self.data[self.at:self.at + 1] == bytes([SUBSECTION]):
            _, length = self.take('BB')
            name = self.bytes(length)
            self.take('I')
            if name.endswith(b'/target-page-bits'):
                self.take('I')
            elif name.endswith(b'/uuid'):
                self.bytes(16)
            elif name.endswith(b'/capabilities'):
                for _ in range(self.take('I')[0]):
                    self.bytes(self.take('B')[0])
            else:
                raise Malformed(f'subsection {name!r}')
        return self.data[start:self.at]

    def section(self, kind: int) -> Record:
        """A section, to its footer."""
        number, = self.take('I')
        name, instance, version = b'', 0, 0
        if kind in (START, FULL):
            length, = self.take('B')
            name = self.bytes(length)
            instance, version = self.take('II')
        footer = struct.pack('>BI', FOOTER, number)
        end = self.data.find(footer, self.at)
        while end >= 0:
            after = self.data[end + 5:end + 6]
            if after and after[0] in RECORDS:
                break
            end = self.data.find(footer, end + 1)
        if end < 0:
            raise Malformed(f'no footer of section {number} {name!r}')
        body = self.bytes(end - self.at)
        self.at += len(footer)
        return Record(kind, number, name, instance, version, body)


class Memory:
    """What a stream says of RAM: the list of its blocks, and each page."""

    def __init__(self, stream: list[Record], addresses: bool = False) -> None:
        """ADDRESSES: the list has one of each block (x-ignore-shared)."""
        self._addresses = addresses
        self.blocks: list[tuple[bytes, int]] = []
        self.pages: dict[tuple[bytes, int], bytes] = {}
        self._block = b''
        number = None
        for record in stream:
            if record.type == START and record.name == b'ram':
                number = record.number
            if record.type in (START, PART, END) and record.number == number:
                self._take(record.body)

    def _take(self, body: bytes) -> None:
        parser = Parser(body)
        while parser.at < len(body):
            entry, = parser.take('Q')
            offset = entry & -PAGE_SIZE
            flags = entry & (PAGE_SIZE - 1)
            if flags == EOS:
                continue
            if flags == MEM_SIZE:
                self._list(parser, offset)
                continue
            if not flags & CONTINUE:
                length, = parser.take('B')
                self._block = parser.bytes(length)
            self._page(parser, flags & ~CONTINUE, offset)

    def _list(self, parser: Parser, left: int) -> None:
        while left > 0:
            length, = parser.take('B')
            name = parser.bytes(length)
            size, = parser.take('Q')
            if self._addresses:
                parser.take('Q')
            self.blocks.append((name, size))
            left -= size

    def _page(self, parser: Parser, flags: int, offset: int) -> None:
        where = self._block, offset
        if flags == PAGE:
            self.pages[where] = parser.bytes(PAGE_SIZE)
        elif flags == ZERO:
            if parser.take('B') != (0,):
                raise Malformed(f'a zero page of other bytes at {where}')
            self.pages[where] = bytes(PAGE_SIZE)
        else:
            raise Malformed(f'RAM flags {flags:#x} at {where}')


def whole(data: bytes) -> bool:
    """Whether all of a stream is there: it ends with a description.

    What is in memory may look like a record, so that a stream of a guest that
    has run cannot be parsed for certain.
    """
    ends = re.finditer(re.escape(bytes([DESCRIPTION])) + rb'(?=(....)\{)',
                       data, re.DOTALL)
    return data.endswith(b'}') and any(
        end.end() + 4 + int.from_bytes(end[1], 'big') == len(data)
        for end in ends)


def but_greeting(stream: list[Record]) -> list[Record]:
    """STREAM without what asks the destination to answer, and who it is.

    Also without an advice that is empty: that more of the dirty bitmaps may
    come after the guest has started.  Nothing depends on it.
    """
    return [rec for rec in stream if rec.type != COMMAND or not (
        rec.command in (OPEN_RETURN_PATH, PING)
        or rec.command == ADVISE and not rec.body)]


def but_memory(stream: list[Record]) -> list[Record]:
    """STREAM without the pages of RAM, which come in any order and number."""
    number = next(rec.number for rec in stream
                  if rec.type == START and rec.name == b'ram')
    return [rec.but(body=b'') if rec.type == END and rec.number == number
            else rec for rec in stream
            if not (rec.type == PART and rec.number == number)]


def parse(data: bytes) -> list[Record]:
    """Cut DATA into records."""
    return Parser(data).parse()


def join(records: list[Record], head: bytes = header()) -> bytes:
    """A stream of RECORDS."""
    return head + b''.join(record.pack() for record in records)
