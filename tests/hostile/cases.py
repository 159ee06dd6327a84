# Streams that lie, and what has to be said about each.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""One case a lie: how to make the stream, and a part of the error."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Callable

import records as r
from ferry.vm import VM
from records import Record

Change = Callable[[list[Record]], bytes]

CAPS = r.subsection(b'configuration/capabilities',
                    struct.pack('>I', 1) + r.named(b'x-ignore-shared'))


@dataclass
class Case:
    """A changed stream.

    An error of None means that the load succeeds all the same; LOOK is called
    with the VM afterwards.  LENIENT: it may be ignored as well.
    """
    name: str
    change: Change
    error: str | None
    caps: dict[str, bool] = field(default_factory=dict)
    needs: tuple[str, ...] = ()     # see ferrytest.abilities
    look: Callable[[VM], None] | None = None
    lenient: bool = False


def find(stream: list[Record], kind: int, name: bytes = b'') -> int:
    """Index of the first record of that type and name."""
    for index, record in enumerate(stream):
        if record.type == kind and record.name == name:
            return index
    raise ValueError(f'the stream has no record {kind} {name!r}')


def device(stream: list[Record]) -> int:
    """Index of the first device."""
    return next(i for i, rec in enumerate(stream) if rec.type == r.FULL)


def changed(kind: int, name: bytes, **changes: object) -> Change:
    """Change fields of one record."""
    def change(stream: list[Record]) -> bytes:
        at = find(stream, kind, name)
        stream[at] = stream[at].but(**changes)
        return r.join(stream)
    return change


def device_changed(**changes: object) -> Change:
    """Change fields of the first device."""
    def change(stream: list[Record]) -> bytes:
        at = device(stream)
        stream[at] = stream[at].but(**changes)
        return r.join(stream)
    return change


def device_body(edit: Callable[[bytes], bytes]) -> Change:
    """Change the state of the device 'timer', which has no subsections."""
    def change(stream: list[Record]) -> bytes:
        at = find(stream, r.FULL, b'timer')
        stream[at] = stream[at].but(body=edit(stream[at].body))
        return r.join(stream)
    return change


def before_ram(*extra: Record) -> Change:
    """Put records between the configuration and RAM."""
    def change(stream: list[Record]) -> bytes:
        at = find(stream, r.START, b'ram')
        return r.join([*stream[:at], *extra, *stream[at:]])
    return change


def machine(name: bytes, length: int | None = None) -> Change:
    """Another machine type."""
    return changed(r.CONFIGURATION, b'', body=name, length=length)


def config_extra(extra: bytes) -> Change:
    """Something after the machine type."""
    def change(stream: list[Record]) -> bytes:
        at = find(stream, r.CONFIGURATION)
        old = stream[at]
        stream[at] = old.but(body=old.body + extra, length=old.length)
        return r.join(stream)
    return change


def cut(where: Callable[[list[Record]], int], within: float) -> Change:
    """End the stream inside of one record, at that part of it."""
    def change(stream: list[Record]) -> bytes:
        at = where(stream)
        last = stream[at].pack()
        return r.join(stream[:at]) + last[:int(len(last) * within)]
    return change


def at_type(kind: int, name: bytes = b'') -> Callable[[list[Record]], int]:
    """For cut()."""
    return lambda stream: find(stream, kind, name)


def same_number(stream: list[Record]) -> bytes:
    """A second live section with the number of RAM."""
    ram = stream[find(stream, r.START, b'ram')]
    twin = ram.but(name=b'dirty-bitmap', version=1, body=b'')
    at = find(stream, r.START, b'ram')
    return r.join([*stream[:at + 1], twin, *stream[at + 1:]])


def part_before_start(stream: list[Record]) -> bytes:
    """RAM goes on before it started."""
    at = find(stream, r.START, b'ram')
    part = Record(r.PART, number=stream[at].number)
    return r.join([*stream[:at], part, *stream[at:]])


def no_description(stream: list[Record]) -> bytes:
    """Another record where the description should be."""
    return r.join([*stream[:-1], Record(r.EOF)])


def package(*inner: Record, length: int | None = None) -> list[bytes]:
    """A package of records, and the command before it."""
    data = b''.join(record.pack() for record in inner)
    size = len(data) if length is None else length
    return [r.command(r.PACKAGED, struct.pack('>I', size)).pack(), data]


def raw_before_ram(*extra: bytes) -> Change:
    """The same as before_ram() for bytes."""
    def change(stream: list[Record]) -> bytes:
        at = find(stream, r.START, b'ram')
        return (r.join(stream[:at]) + b''.join(extra)
                + b''.join(record.pack() for record in stream[at:]))
    return change


POSTCOPY = {'postcopy-ram': True}
PAGE = 4096


def advise(host: int = PAGE, target: int = PAGE) -> Record:
    """POSTCOPY_ADVISE for RAM."""
    return r.command(r.ADVISE, struct.pack('>QQ', host, target))


def discard(block: bytes, *ranges: tuple[int, int], version: int = 0,
            end: bytes = b'\0', junk: bytes = b'') -> Record:
    """POSTCOPY_DISCARD."""
    payload = bytes([version]) + r.named(block) + end
    for start, length in ranges:
        payload += struct.pack('>QQ', start, length)
    return r.command(r.DISCARD, payload + junk)


def after_ram_setup(*extra: Record) -> Change:
    """Put records after the first one of RAM."""
    def change(stream: list[Record]) -> bytes:
        at = find(stream, r.START, b'ram') + 1
        return r.join([*stream[:at], *extra, *stream[at:]])
    return change


OPEN = r.command(r.OPEN_RETURN_PATH)
PING = r.command(r.PING, b'\0\0\0\1')
BLOCK = b'pc.ram'

INTACT = [
    Case('intact', r.join, None),
    Case('no-description', no_description, None),
    Case('ping-and-switchover', before_ram(
        OPEN, PING, r.command(r.SWITCHOVER_START)), None),
    Case('advised', before_ram(advise()), None, POSTCOPY),
]

HEADER = [
    Case('one-byte', lambda _: b'Q', 'stream ends after'),
    Case('magic', lambda s: r.join(s, r.header(magic=0x12345678)),
         'Not a migration stream'),
    Case('version-2', lambda s: r.join(s, r.header(version=2)),
         'has version 2'),
    Case('version-99', lambda s: r.join(s, r.header(version=99)),
         'has version 99'),
    Case('no-configuration', lambda s: r.join(s[1:]),
         'configuration record is missing'),
    Case('other-machine', machine(b'pc-i440fx-10.0'),
         "machine type is 'pc-i440fx-10.0'"),
    Case('part-of-machine', machine(b'pc'), "machine type is 'pc'"),
    Case('machine-with-escape', machine(b'\x1b[2J'),
         "machine type is '\\033[2J'"),
    Case('machine-of-4-GB', machine(b'pc', length=0xffffffff),
         'A length in the configuration record is too large'),
    Case('page-bits', config_extra(
        r.subsection(b'configuration/target-page-bits',
                     struct.pack('>I', 16))), 'target page has 16 bits'),
    Case('capability-on', config_extra(CAPS),
         'capability x-ignore-shared is on on the source'),
    Case('capability-off', r.join,
         'capability x-ignore-shared is off on the source',
         {'x-ignore-shared': True}),
    Case('capability-unknown', config_extra(
        r.subsection(b'configuration/capabilities',
                     struct.pack('>I', 1) + r.named(b'levitate'))),
         'a capability that is unknown'),
    Case('capabilities-4-G', config_extra(
        r.subsection(b'configuration/capabilities',
                     struct.pack('>I', 0xffffffff))),
         'A length in the configuration record is too large'),
    Case('uuid', config_extra(
        r.subsection(b'configuration/uuid', bytes(16))),
         "VM's UUID is 00000000-0000-0000-0000-000000000000"),
]

SECTION = [
    Case('unknown-section', device_changed(name=b'flux-capacitor'),
         "Unknown section or instance 'flux-capacitor'"),
    Case('section-with-escape', device_changed(name=b'\x1b[2J'),
         "instance '\\033[2J'"),
    Case('section-without-name', device_changed(name=b''),
         "Unknown section or instance ''"),
    Case('section-with-nul', device_changed(name=b'timer\0'),
         "Unknown section or instance 'timer'"),
    Case('unknown-instance', device_changed(instance=77),
         "Unknown section or instance 'timer' 77"),
    Case('new-version', device_changed(version=200), 'has version 200'),
    Case('negative-version', device_changed(version=0xffffffff),
         'has version 4294967295'),
    Case('wrong-footer', device_changed(footer=b'\x7e\0\0\xff\xff'),
         'its footer says 65535'),
    Case('no-footer', device_changed(footer=b''),
         'is not followed by its footer'),
    Case('short-state', device_body(lambda b: b[:-1]), "Section 'timer'"),
    Case('long-state', device_body(lambda b: b + b'\0'),
         "Section 'timer' instance 0 is not followed by its footer"),
    Case('part-before-start', part_before_start, 'which did not start'),
    Case('part-of-unknown', before_ram(Record(r.PART, number=0xdeadbeef)),
         'section number 3735928559'),
    Case('same-number', same_number, 'have the same number'),
    Case('unknown-type', before_ram(Record(0x33)), 'Unknown type 0x33'),
    Case('type-255', before_ram(Record(0xff)), 'Unknown type 0xff'),
    Case('second-configuration', before_ram(
        Record(r.CONFIGURATION, body=b'pc')), 'Unknown type 0x07'),
    Case('early-description', before_ram(
        Record(r.DESCRIPTION, body=b'{}')), 'Unknown type 0x06'),
]

CUT = [
    Case('cut-in-configuration', cut(at_type(r.CONFIGURATION), .5), 'stream ends after'),
    Case('cut-before-ram', cut(at_type(r.START, b'ram'), 0), 'stream ends after'),
    Case('cut-in-section-name', cut(at_type(r.START, b'ram'), .05),
         'In the header of a section'),
    Case('cut-in-ram-setup', cut(at_type(r.START, b'ram'), .8),
         "Section 'ram'"),
    Case('cut-in-ram', cut(at_type(r.END), .5), "Section 'ram'"),
    Case('cut-in-device-header', cut(device, .1),
         'In the header of a section'),
    Case('cut-in-device', cut(device, .7), "Section 'timer'"),
    Case('cut-in-footer', cut(device, .99), "After section 'timer'"),
    Case('cut-before-end', cut(at_type(r.EOF), 0), 'stream ends after'),
    Case('cut-before-description', cut(at_type(r.DESCRIPTION), 0),
         'breaks off after all state'),
    Case('cut-in-description', cut(at_type(r.DESCRIPTION), .5),
         'breaks off after all state'),
    Case('description-of-4-GB', changed(r.DESCRIPTION, b'',
                                        length=0xffffffff),
         'longer than the limit'),
]

COMMAND = [
    Case('command-0', before_ram(r.command(0)),
         'unknown migration command 0x0'),
    Case('command-12', before_ram(r.command(12)),
         'unknown migration command 0xc'),
    Case('command-65535', before_ram(r.command(0xffff, length=0xffff)),
         'unknown migration command 0xffff with 65535 bytes'),
    Case('ping-of-2-bytes', before_ram(OPEN, r.command(r.PING, b'\0\1')),
         'PING with 2 bytes'),
    Case('ping-without-path', before_ram(PING), 'no return path'),
    Case('second-return-path', before_ram(OPEN, OPEN), 'open already'),
    Case('cut-in-command', cut(at_type(r.COMMAND), .5),
         'In the header of a command'),
    Case('advise-of-8-bytes', before_ram(r.command(r.ADVISE, bytes(8))),
         'POSTCOPY_ADVISE with 8 bytes'),
    Case('advise-unasked', before_ram(advise()),
         'POSTCOPY_ADVISE'),
    Case('listen-in-precopy', before_ram(r.command(r.LISTEN)),
         'POSTCOPY_LISTEN during precopy'),
    Case('run-in-precopy', before_ram(r.command(r.RUN)),
         'POSTCOPY_RUN during precopy'),
    Case('resume-in-precopy', before_ram(r.command(r.RESUME)),
         'POSTCOPY_RESUME during precopy'),
    Case('bitmap-in-precopy', before_ram(
        r.command(r.RECV_BITMAP, r.named(b'pc.ram'))),
         'RECV_BITMAP during precopy'),
    Case('discard-in-precopy', before_ram(discard(BLOCK, (0, PAGE))),
         'POSTCOPY_DISCARD during precopy'),
    Case('package-in-precopy', raw_before_ram(*package()),
         'PACKAGED during precopy'),
]

# Two threads see that something is wrong, and the first of them says so.
EITHER_THREAD = 'load of migration failed: '

POSTCOPY_CASES = [
    Case('advise-missing-ram', before_ram(r.command(r.ADVISE)),
         'is enabled here but not on the source', POSTCOPY),
    Case('advise-twice', before_ram(advise(), advise()),
         'POSTCOPY_ADVISE during precopy that may become postcopy', POSTCOPY),
    Case('advise-page-size', before_ram(advise(target=8192)),
         "target's page size is 8192", POSTCOPY),
    Case('advise-host-pages', before_ram(advise(host=0x200000)),
         'page sizes 0x200000', POSTCOPY),
    Case('listen-outside', before_ram(advise(), r.command(r.LISTEN)),
         'POSTCOPY_LISTEN outside of a package', POSTCOPY),
    Case('run-before-listen', raw_before_ram(
        advise().pack(), *package(r.command(r.RUN))),
         'POSTCOPY_RUN during precopy', POSTCOPY),
    Case('package-in-package', raw_before_ram(
        advise().pack(),
        *package(r.command(r.PACKAGED, struct.pack('>I', 0)))),
         'PACKAGED inside of a package', POSTCOPY),
    Case('package-of-4-GB', raw_before_ram(
        advise().pack(), *package(length=0xffffffff)),
         'more than the limit', POSTCOPY),
    Case('package-cut', raw_before_ram(
        advise().pack(), *package(length=1 << 29)), 'PACKAGED', POSTCOPY),
    Case('package-garbage', raw_before_ram(
        advise().pack(), *package(Record(0x55))), 'Unknown type 0x55',
         POSTCOPY),
    Case('listen-without-path', raw_before_ram(
        advise().pack(), *package(r.command(r.LISTEN))),
         'no return path', POSTCOPY),
    Case('package-without-run', raw_before_ram(
        OPEN.pack(), advise().pack(),
        *package(r.command(r.LISTEN), Record(0x55))),
         EITHER_THREAD, POSTCOPY),
    Case('package-with-end', raw_before_ram(
        OPEN.pack(), advise().pack(),
        *package(r.command(r.LISTEN), Record(r.EOF))),
         EITHER_THREAD, POSTCOPY),
    Case('pages-and-devices-cut', lambda stream: (
        r.join([stream[0], OPEN, advise()])
        + b''.join(package(r.command(r.LISTEN)))), EITHER_THREAD,
         POSTCOPY),
    Case('switchover-after-discard', after_ram_setup(
        advise(), discard(BLOCK, (0, PAGE))),
         'SWITCHOVER_START while postcopy discards pages', POSTCOPY),
    Case('discard-unknown-block', after_ram_setup(
        advise(), discard(b'nosuch', (0, PAGE))),
         "no RAM block 'nosuch'", POSTCOPY),
    Case('discard-version', after_ram_setup(
        advise(), discard(BLOCK, (0, PAGE), version=9)),
         'Unknown version 9', POSTCOPY),
    Case('discard-name-not-ended', after_ram_setup(
        advise(), discard(BLOCK, (0, PAGE), end=b'x')),
         'name of the RAM block is malformed', POSTCOPY),
    Case('discard-odd-length', after_ram_setup(
        advise(), discard(BLOCK, (0, PAGE), junk=b'abc')),
         'is not a multiple of a range', POSTCOPY),
    Case('discard-behind-end', after_ram_setup(
        advise(), discard(BLOCK, (1 << 40, PAGE))), 'are no pages of',
         POSTCOPY),
    Case('discard-overflow', after_ram_setup(
        advise(), discard(BLOCK, (PAGE, (1 << 64) - PAGE))),
         'are no pages of', POSTCOPY),
    Case('discard-unaligned', after_ram_setup(
        advise(), discard(BLOCK, (1, PAGE))), 'are no pages of', POSTCOPY),
    Case('bitmap-before-run', after_ram_setup(
        advise(), r.command(r.RECV_BITMAP, r.named(BLOCK))),
         'RECV_BITMAP during precopy', POSTCOPY),
]

CASES = INTACT + HEADER + SECTION + CUT + COMMAND + POSTCOPY_CASES
