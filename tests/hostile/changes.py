# What can be wrong in the state of a device: one change at a time.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of a section, each with a name that makes it again."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import Iterator

import fields
import records as r

# Types with a structure that the description does not tell are changed here
# and there; this many places of each.
PLACES = 6
WORDS = (1, 2, 4, 8)

# Types with a limit that is what was loaded last
KEPT = ('int32 le',)


@dataclass(frozen=True)
class Change:
    """One section that is not what was saved."""
    name: str           # SECTION/FIELD=KIND
    record: r.Record
    spoils: bool = False    # it may be that what is true is refused then


def numbers(old: int, bits: int, chance: random.Random
            ) -> Iterator[tuple[str, int]]:
    """Values that may be thought of less than others."""
    top = (1 << bits) - 1
    for kind, value in (('zero', 0), ('one', 1), ('max', top),
                        ('sign', 1 << bits - 1), ('most', top >> 1),
                        ('more', old + 1 & top), ('less', old - 1 & top),
                        ('random', chance.getrandbits(bits))):
        if value != old:
            yield kind, value


def in_field(body: bytes, each: fields.Field, seed: int
             ) -> Iterator[tuple[str, bytes]]:
    """Changes of one field: kind, and the section's body."""
    chance = random.Random(f'{seed} {each.path}')
    end = each.at + each.size

    def put(at: int, new: bytes) -> bytes:
        return body[:at] + new + body[at + len(new):]

    if each.size in WORDS:
        old = int.from_bytes(body[each.at:end], 'big')
        for kind, value in numbers(old, 8 * each.size, chance):
            yield kind, put(each.at, value.to_bytes(each.size, 'big'))
        return
    for kind, new in (('zeros', bytes(each.size)),
                      ('ones', b'\xff' * each.size),
                      ('noise', chance.randbytes(each.size))):
        if new != body[each.at:end]:
            yield kind, put(each.at, new)
    places = [0, *(chance.randrange(each.size) for _ in range(PLACES))]
    for offset in sorted(set(places)):
        size = min(chance.choice((1, 2, 4)), each.size - offset)
        at = each.at + offset
        old = int.from_bytes(body[at:at + size], 'big')
        for kind, value in numbers(old, 8 * size, chance):
            yield (f'{kind}@{offset}', put(at, value.to_bytes(size, 'big')))


def of_form(section: fields.Section) -> Iterator[tuple[str, r.Record]]:
    """Changes of a section's form."""
    record, body = section.record, section.record.body
    for kind, version in (('newer', record.version + 1),
                          ('older', record.version - 1 & 0xffffffff),
                          ('negative', 0x80000000), ('max', 0xffffffff)):
        yield f'version={kind}', record.but(version=version)
    for kind, end in (('nothing', 0), ('half', len(body) // 2),
                      ('less', max(len(body) - 1, 0))):
        yield f'length={kind}', record.but(body=body[:end])
    yield 'length=more', record.but(body=body + b'\0')
    for sub in section.subs:
        name = sub.name.encode()
        end = sub.at + sub.size
        whole = body[sub.at:end]
        rest = whole[fields.SUB_HEAD + len(name):]
        version = int.from_bytes(whole[2 + len(name):][:4], 'big')
        for kind, new in (
                ('gone', b''), ('twice', whole * 2),
                ('unknown', fields.head(sub, name[:-1] + b'~', version)
                 + rest),
                ('newer', fields.head(sub, name, version + 1) + rest),
                ('older', fields.head(sub, name, version - 1) + rest),
                ('cut', whole[:-1])):
            yield (f'{sub.name.rpartition("/")[2]}/={kind}',
                   record.but(body=body[:sub.at] + new + body[end:]))


def of_section(section: fields.Section, seed: int) -> Iterator[Change]:
    """All changes of a section."""
    for each in section.fields:
        for kind, body in in_field(section.record.body, each, seed):
            yield Change(f'{section.name}/{each.path}={kind}',
                         section.record.but(body=body), each.type in KEPT)
    for kind, record in of_form(section):
        yield Change(f'{section.name}/{kind}', record)
