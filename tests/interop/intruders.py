# Connections of others while a postcopy is recovered.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections of others while a postcopy is recovered.

Which of the source's channels a connection is shows in its first bytes.  So those
of strangers, those that say nothing and those of an attempt that is over are closed,
whenever they come, and the recovery does not pause for them.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import contextmanager
from typing import Callable, Iterator

from ferry.migrate import tcp_uri
from ferry.vm import VM
from ferrytest.postcopy import PAUSED, PATIENCE
from ferrytest.suite import Case

from failures import stand_still
from lab import Lab, check
from multifd import CHANNELS
from multifd_postcopy import PARAMS, PLAIN, TLS, URGENT, check_used_again
from postcopy import PLAIN as ALONE
from postcopy import (POINTS, PREEMPT, TRICKLE, Move, Way, cut, moving,
                      summary)

MAGIC, VERSION = 0x11223344, 1
OFTEN = 0.004           # s between connections
MANY = 40               # that are left open
RESUME = struct.pack('>BHHB', 8, 7, 7, 6) + b'pc.ram'
Words = Callable[[Move], list[bytes]]


def uuid_of(vm: VM) -> bytes:
    """As channels tell it."""
    return bytes.fromhex(vm.qmp.cmd('query-uuid')['UUID'].replace('-', ''))


def channel(vm: VM, number: int, attempt: int = 0) -> bytes:
    """What a channel of multifd begins with."""
    return struct.pack('>II16sB7xI28x', MAGIC, VERSION, uuid_of(vm), number,
                       attempt)


def connect(uri: str) -> socket.socket:
    """To who listens at URI."""
    host, port = uri.removeprefix('tcp:').rsplit(':', 1)
    return socket.create_connection((host, int(port)), 1)


def strangers(_move: Move) -> list[bytes]:
    """Who knows nothing of migrations, or has said little so far."""
    return [b'GET / HTTP/1.0\r\n\r\n', b'', b'\x08\0', b'\x11\x22\x33', b'QEVM']


def talkative(_move: Move) -> list[bytes]:
    """Those of them who can be told from a channel for urgent pages."""
    return [b'GET / HTTP/1.0\r\n\r\n', b'QEVM' + bytes(16)]


def late(move: Move) -> list[bytes]:
    """Channels of an attempt that is over, of a source that is not there."""
    vm = move.target.vm
    return [channel(vm, number, attempt) for number in range(CHANNELS)
            for attempt in (0, 77)] + [channel(vm, CHANNELS)]


@contextmanager
def intruding(uri: str, words: list[bytes]) -> Iterator[list[int]]:
    """Connect with WORDS again and again, as long as somebody listens."""
    over = threading.Event()
    count = [0]
    socks: list[socket.socket] = []

    def intrude() -> None:
        while not over.wait(OFTEN):
            try:
                sock = connect(uri)
                socks.append(sock)
                sock.sendall(words[count[0] % len(words)])
            except OSError:
                continue
            count[0] += 1
            if len(socks) > MANY:
                socks.pop(0).close()
    thread = threading.Thread(target=intrude, daemon=True)
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join()
        for sock in socks:
            sock.close()


def pauses(move: Move) -> list[int]:
    """How often each side has been paused."""
    return [side.states().count(PAUSED) for side in (move.source, move.target)]


def disturbed(lab: Lab, way: Way, words: Words) -> str:
    """It is recovered twice, and pauses no more often than it is cut."""
    params = {**PARAMS, **TRICKLE} if 'multifd' in way.caps else TRICKLE
    seen = 0
    with moving(lab, 'ferry', 'ferry', way, **params) as move:
        said = words(move)      # the monitor may not answer later
        move.start(POINTS['midway'])
        for _ in range(2):
            move.wait_beats(0)
            cut(move)
            move.wait_paused()
            uri = move.listen_again(tcp_uri())
            with intruding(uri, said) as count:
                move.until(lambda: count[0] >= 2 * len(said),
                           'others connect first', PATIENCE, PAUSED)
                move.resume(move.via(uri))
                move.wait_resumed()
                seen += count[0]
        check(pauses(move) == [2, 2], f'paused twice: {pauses(move)}')
        move.let_go()
        move.finish()
        if way in (PLAIN, TLS):
            check_used_again(move)
        return f'{summary(move)}, {seen} connections of others'


def case(way: Way, name: str, words: Words) -> Case:
    """One of them."""
    return Case(f'ferry-ferry-postcopy-{way.name}-{name}',
                lambda lab: disturbed(lab, way, words), False,
                ('ferry', 'ferry'), way.needs)


def late_main(lab: Lab) -> str:
    """The main channel of a source that has given up comes first."""
    with moving(lab, 'ferry', 'ferry', PLAIN, **PARAMS, **TRICKLE) as move:
        move.start(POINTS['midway'])
        move.wait_beats(0)
        cut(move)
        move.wait_paused()
        uri = move.listen_again(tcp_uri())
        stand_still(move.target.vm, True)
        with connect(uri) as sock:
            sock.sendall(RESUME)
        time.sleep(0.1)
        stand_still(move.target.vm, False)
        time.sleep(0.3)
        move.resume(move.via(uri))
        move.wait_resumed()
        check(pauses(move) == [1, 1], f'paused once: {pauses(move)}')
        move.let_go()
        move.finish()
        check_used_again(move)
        return summary(move)


def silent_alone(lab: Lab) -> str:
    """One that says nothing is there all the time, and is closed in the end."""
    with moving(lab, 'ferry', 'ferry', PLAIN, **PARAMS, **TRICKLE) as move:
        move.start(POINTS['midway'])
        move.wait_beats(0)
        cut(move)
        move.wait_paused()
        uri = move.listen_again(tcp_uri())
        with connect(uri) as sock:
            time.sleep(0.1)
            move.resume(move.via(uri))
            move.wait_resumed()
            sock.settimeout(5)
            check(sock.recv(1) == b'', 'it is closed')
        check(pauses(move) == [1, 1], f'paused once: {pauses(move)}')
        move.let_go()
        move.finish()
        return summary(move)


def all_cases() -> list[Case]:
    """Each kind, with and without channels."""
    cases = [case(way, 'strangers', strangers)
             for way in (ALONE, PLAIN)]
    cases += [case(way, 'strangers', talkative) for way in (PREEMPT, URGENT)]
    cases += [case(way, 'late-channels', late) for way in (ALONE, PLAIN)]
    return cases + [
        Case(f'ferry-ferry-postcopy-multifd-{name}', run, False,
             ('ferry', 'ferry'), PLAIN.needs)
        for name, run in (('late-main', late_main),
                          ('silent-connection', silent_alone))]
