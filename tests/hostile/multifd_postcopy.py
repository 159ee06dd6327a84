# Sources that lie on several channels and go over to postcopy.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources that lie on several channels and go over to postcopy.

A part of the guest's memory comes on channels, the rest in postcopy on the main
one.  What is said on a channel that should have ended changes nothing.
"""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

import records as r
from ferry.errors import FerryError
from ferry.vm import VM
from ferrytest import abilities
from giver import LIMIT, Giver, Where
from multifd import (BLOCK, CHANNELS, HERE, MARK, PAGE, Packet, Source,
                     answers, closed, listen, over, send)
from postcopy import PAUSED, until
from ram import first_words

NEEDS = ('multifd', 'postcopy-ram')
FIRST = (BLOCK, HERE)           # comes on a channel
LATER = (BLOCK, HERE + r.PAGE_SIZE)     # ... and is discarded
OTHER = b'\x11' * r.PAGE_SIZE


class Mixed(Giver):
    """Memory on channels, and then postcopy."""

    def __init__(self, vm: VM, path: Path, stream: bytes) -> None:
        super().__init__(r.parse(stream))
        self.vm = vm
        self._path = path
        self._init = Source(vm, path, stream).init
        self.channels: list[socket.socket] = []

    def close(self) -> None:
        """Hang up everywhere."""
        super().close()
        for sock in getattr(self, 'channels', ()):
            sock.close()
        self.channels = []

    def begin(self) -> None:
        """All connections, and the first mark."""
        self.connect(self._path)
        for number in range(CHANNELS):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(LIMIT)
            sock.connect(str(self._path))
            send(sock, self._init(number) + MARK)
            self.channels.append(sock)
        *greeting, ram = self.greeting()
        end = r.ram(r.EOS)
        body = ram.body[:-len(end)] + r.ram(r.FLUSH) + end
        self.say(*greeting, ram.but(body=body))

    def early(self) -> None:
        """Two pages on a channel."""
        send(self.channels[0], Packet((FIRST[1], LATER[1])).pack())

    def marks(self, *channels: int) -> None:
        """The last mark, on the main channel and on those."""
        for number in channels:
            send(self.channels[number], MARK)
        self.say(self.part(r.ram(r.FLUSH)))

    def leave(self) -> None:
        """One of the two pages is discarded, and the guest handed over."""
        self.say(r.command(r.DISCARD, b'\0' + r.named(BLOCK) + b'\0'
                           + struct.pack('>QQ', LATER[1], r.PAGE_SIZE)),
                 self.package())

    def rest(self) -> None:
        """All that is missing."""
        self.say(self.part(self.page(LATER, OTHER)))
        self.send(self.but(FIRST, LATER))
        self.finish()

    def but(self, *which: Where) -> list[Where]:
        """All pages that are none of WHICH."""
        return [where for where in self.everything() if where not in which]


@contextmanager
def mixed(vm: VM, folder: Path, stream: bytes) -> Iterator[Mixed]:
    """A destination, and a source that has said how it begins."""
    abilities.require(vm.kind, NEEDS)
    with vm:
        vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
            {'capability': 'postcopy-ram', 'state': True}]})
        path = folder / f'{vm.name}-mixed'
        listen(vm, path, 'none')
        with Mixed(vm, path, stream) as giver:
            yield giver


def completed(giver: Mixed) -> None:
    """It ends well, and memory is as it was sent."""
    info = over(giver.vm)
    if info['status'] != 'completed':
        raise FerryError(f'it is {info}')
    first_words(giver.vm, 0x5a5a5a5a, 0x11111111, 0)


def check_honest(giver: Mixed) -> None:
    """What came on a channel stays, but for what is discarded."""
    giver.begin()
    giver.early()
    giver.marks(0, 1)
    giver.leave()
    for sock in giver.channels:
        closed(sock)
    giver.rest()
    completed(giver)


def check_page_after(giver: Mixed) -> None:
    """A page behind the last mark, when the destination listens."""
    giver.begin()
    giver.early()
    giver.marks(0, 1)
    giver.leave()
    for sock in giver.channels:
        closed(sock)
    for sock in giver.channels:
        send(sock, Packet((FIRST[1],), data=b'\xee' * r.PAGE_SIZE).pack())
    giver.rest()
    completed(giver)


def check_half_a_packet(giver: Mixed) -> None:
    """A packet that began behind the last mark, and does not go on."""
    giver.begin()
    giver.early()
    giver.marks(0, 1)
    send(giver.channels[0], Packet((HERE + 9 * r.PAGE_SIZE,), data=PAGE
                                   ).pack()[:2000])
    giver.leave()
    closed(giver.channels[0])
    giver.rest()
    completed(giver)


def check_mark_after(giver: Mixed) -> None:
    """A mark on the main channel when the others have gone: it pauses."""
    giver.begin()
    giver.early()
    giver.marks(0, 1)
    giver.leave()
    closed(giver.channels[0])
    giver.say(giver.part(r.ram(r.FLUSH)))
    until(giver.vm, PAUSED)


def check_stalls(giver: Mixed) -> None:
    """A channel does not come to the last mark, for a while."""
    giver.begin()
    giver.early()
    giver.marks(1)
    answers(giver.vm)
    send(giver.channels[0], MARK)
    giver.leave()
    giver.rest()
    completed(giver)


def check_closed(giver: Mixed) -> None:
    """A channel ends before the last mark: the guest is not taken."""
    giver.begin()
    giver.early()
    giver.marks(1)
    answers(giver.vm)
    giver.channels[0].close()
    refused(giver, 'multifd channel 0: ')


def refused(giver: Mixed, text: str) -> None:
    """The load fails, with TEXT, and the source is told."""
    info = over(giver.vm)
    said = info.get('error-desc', '')
    if info['status'] != 'failed' or text not in said or '\n' in said:
        raise FerryError(f'not refused for {text!r}: {info}')
    giver.wait(lambda: giver.shut == 1, 'the source is not told')


CASES: dict[str, Callable[[Mixed], None]] = {
    'honest': check_honest, 'page-after-listen': check_page_after,
    'half-a-packet-at-listen': check_half_a_packet,
    'mark-after-listen': check_mark_after, 'stalls-at-last-mark': check_stalls,
    'closed-before-last-mark': check_closed,
}


def tests() -> list[tuple[str, Callable]]:
    """Name and function of each test, which gets the runner's Bench."""
    def test(check: Callable[[Mixed], None]) -> Callable:
        def run(lab: object) -> None:
            with mixed(lab.vm(incoming='defer'), lab.folder,
                       lab.stream) as giver:
                check(giver)
        return run
    return [(f'multifd-postcopy/{name}', test(check))
            for name, check in CASES.items()]
