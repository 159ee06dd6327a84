# Where each field of a device lies in a migration stream.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The fields of each section, by the description at the end of a stream.

The description has the size of each field in the order of the stream, but not
its place; places are added up here, and must end where the section does.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field

import records as r

SUB_HEAD = 6            # bytes of a subsection before its fields, but its name
MANY = 6                # elements of an array, of which a few stand for all


@dataclass(frozen=True)
class Field:
    """One value."""
    path: str
    type: str
    at: int             # in the section's body
    size: int


@dataclass(frozen=True)
class Sub:
    """One subsection: its place, head included."""
    name: str
    at: int
    size: int


@dataclass
class Section:
    """One device in the stream."""
    record: r.Record
    fields: list[Field] = field(default_factory=list)
    subs: list[Sub] = field(default_factory=list)
    end: int = 0        # of what the description tells of

    @property
    def name(self) -> str:
        """What it is called in reports."""
        number = self.record.instance
        name = self.record.name.decode()
        return f'{name}#{number}' if number else name

    # What is nested is walked through; arrays of values are cut up.

    def walk(self, part: dict, at: int, path: str) -> int:
        """Add what PART, a section or structure, has from AT on; its end."""
        for each in part.get('fields', ()):
            at = self._field(each, at, path)
        for sub in part.get('subsections', ()):
            at = self._sub(sub, at)
        return at

    def _field(self, each: dict, at: int, path: str) -> int:
        size, count = each['size'], each.get('array_len', 1)
        name = path + each['name']
        if 'index' in each:
            name += f'[{each["index"]}]'
        inner = each.get('struct', each if 'fields' in each else None)
        if each['type'] == 'qtailq':
            inner = None        # what is told is of the last element
        for index in some(count):
            place = at + index * size
            one = f'{name}[{index}]' if count > 1 else name
            if inner:
                self.walk(inner, place, one + '.')
            elif size:
                self.fields.append(Field(one, each['type'], place, size))
        return at + count * size

    def _sub(self, sub: dict, at: int) -> int:
        name = sub['vmsd_name']
        start, at = at, at + SUB_HEAD + len(name)
        at = self.walk(sub, at, name.rpartition('/')[2] + '/')
        self.subs.append(Sub(name, start, at - start))
        return at


def some(count: int) -> list[int]:
    """All of a few, or the first, the last and some between."""
    if count <= MANY:
        return list(range(count))
    return sorted({0, 1, count // 2, count - 1})


def description(stream: list[r.Record]) -> list[dict]:
    """The devices, as the stream describes them."""
    text = next(rec.body for rec in stream if rec.type == r.DESCRIPTION)
    return json.loads(text)['devices']


def sections(stream: list[r.Record]) -> list[Section]:
    """The devices of a stream, with their fields."""
    found = []
    full = [rec for rec in stream if rec.type == r.FULL]
    told = description(stream)
    if len(full) != len(told):
        raise r.Malformed(f'{len(told)} devices are described, '
                          f'{len(full)} are there')
    for record, part in zip(full, told):
        if record.name.decode() != part['name']:
            raise r.Malformed(f'{record.name!r} is described as '
                              f'{part["name"]!r}')
        section = Section(record)
        section.end = section.walk(part, 0, '')
        if section.end != len(record.body):
            raise r.Malformed(f'section {section.name} has '
                              f'{len(record.body)} bytes, {section.end} are '
                              'described')
        check_subs(section)
        found.append(section)
    return found


def check_subs(section: Section) -> None:
    """Subsections begin where they should."""
    for sub in section.subs:
        head = bytes([r.SUBSECTION]) + r.named(sub.name.encode())
        if not section.record.body.startswith(head, sub.at):
            raise r.Malformed(f'there is no {sub.name} at {sub.at} of '
                              f'{section.name}')


def head(sub: Sub, name: bytes, version: int) -> bytes:
    """The head of a subsection like SUB."""
    return (bytes([r.SUBSECTION]) + r.named(name)
            + struct.pack('>I', version & 0xffffffff))
