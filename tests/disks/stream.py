# Streams with dirty bitmaps that lie.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams with dirty bitmaps that lie."""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager
from typing import Callable, Iterator

from common import Box, caps, expect, listen, null, reason, wait
from ferry.errors import FerryError
from ferry.vm import VM
from ferrytest.drain import Drain

MIB = 1 << 20
NODE, NAME = b'n', b'bm'

# A chunk that introduces the bitmap: flags START, node and name; granularity
# 64 KiB; enabled
NAMES = b'\1' + NODE + b'\2' + NAME
START = b'\x1c' + NAMES + struct.pack('>IB', 64 << 10, 1)
# The same bitmap's 16 bits in one chunk: 2,048 sectors, 32 bytes
HEAD = struct.pack('>QIQ', 0, 2048, 32)
COMPLETE = b'\x20\x01'              # and the end of the section


@contextmanager
def connected(uri: str, data: bytes, last: bool = True) -> Iterator[None]:
    """Send DATA to who listens there, and stay; it is all if LAST."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(uri.removeprefix('unix:'))
        try:
            sock.sendall(data)
            if last:
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass        # it has heard enough
        yield


def record(box: Box, source: VM) -> bytes:
    """The whole stream of that source."""
    with Drain(box.name('drain')) as drain:
        source.qmp.cmd('migrate', {'uri': drain.uri})
        data = drain.wait(lambda come: bits(come) >= 0 and
                          come.rstrip(b'\0').endswith(b'}'), 15)
    at = bits(data)
    if at < 0 or data.count(START) != 1:
        raise FerryError('the stream is not what it was')
    return data


def bits(data: bytes) -> int:
    """Where the chunk with bits goes on after its flags and names."""
    return data.find(HEAD)


def half_a_bitmap(box: Box, source: VM) -> bytes:
    """A stream that stops in the middle of the bits."""
    data = record(box, source)
    return data[:bits(data) + len(HEAD) + 3]


Lie = Callable[[bytes], bytes]


def start(old: bytes, new: bytes) -> Lie:
    """In the chunk that introduces the bitmap."""
    if START.count(old) != 1:
        raise ValueError(old)
    return lambda data: data.replace(START, START.replace(old, new), 1)


def head(first: int = 0, sectors: int = 2048, length: int = 32) -> Lie:
    """In the head of the bits."""
    def lie(data: bytes) -> bytes:
        return data.replace(HEAD, struct.pack('>QIQ', first, sectors, length),
                            1)
    return lie


def end(new: bytes) -> Lie:
    """In place of the chunk that says that all has come."""
    def lie(data: bytes) -> bytes:
        at = bits(data) + len(HEAD) + 32
        if data[at:at + 2] != COMPLETE:
            raise FerryError('the stream is not what it was')
        return data[:at] + new + data[at + 2:]
    return lie


# What is done to the stream, and what is in the reason
LIES: dict[str, tuple[Lie, str]] = {
    'granularity-0': (start(b'\0\1\0\0', b'\0\0\0\0'), 'granularity'),
    'granularity-3': (start(b'\0\1\0\0', b'\0\0\0\3'), 'granularity'),
    'granularity-256': (start(b'\0\1\0\0', b'\0\0\1\0'), 'granularity'),
    'flags': (start(b'\0\1\0\0\1', b'\0\1\0\0\xf9'), 'unknown flags'),
    'two-starts': (lambda data: data.replace(START, START + START, 1),
                   'already exists'),
    'no-name': (start(b'\2bm', b'\0'), 'not valid'),
    'first-after-end': (head(first=4096), "'n'"),
    'first-huge': (head(first=(1 << 64) - 1), "'n'"),
    'first-wraps': (head(first=1 << 55), "'n'"),
    'first-unaligned': (head(first=128, sectors=128), 'begin at'),
    'too-many': (head(sectors=0xffffffff), "'n'"),
    'bits-of-another': (end(b'\x44\5other' + HEAD + bytes(32) + COMPLETE),
                        'other'),
    'complete-twice': (end(b'\x20' + COMPLETE), "'bm'"),
    'length': (head(length=64), 'bytes of dirty bitmap'),
    'length-huge': (head(length=1 << 40), 'limit'),
}


def test_lies(box: Box) -> None:
    """Each lie about a bitmap is refused, and nobody ends because of it."""
    with box.vm('ferry', [null('n', MIB)]) as source:
        source.qmp.cmd('block-dirty-bitmap-add', {
            'node': 'n', 'name': 'bm', 'granularity': 64 << 10})
        source.qmp.cmd('human-monitor-command', {
            'command-line': 'qemu-io n "write 0 1M"'})
        caps(source, dirty_bitmaps=True)
        data = record(box, source)
    with box.vm('ferry', [null('n', MIB)], incoming=True) as vm:
        caps(vm, dirty_bitmaps=True)
        for name, (lie, part) in LIES.items():
            told = lie(data)
            if told == data:
                raise FerryError(f'{name} is no lie')
            with connected(listen(box, vm), told):
                try:
                    wait(vm, 'failed')
                except FerryError as err:
                    raise FerryError(f'{name}: {err}') from err
            expect(f'{name}: {reason(vm)}', part)
        # None of them has left anything behind.
        with connected(listen(box, vm), data):
            wait(vm, 'completed')


TESTS: dict[str, Callable[[Box], None]] = {'bitmaps/lies': test_lies}
