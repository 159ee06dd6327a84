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
from contextlib import ExitStack, contextmanager
from typing import Callable, Iterator

from ferry.migrate import tcp_uri
from ferry.vm import VM
from ferrytest import tcp
from ferrytest.postcopy import PAUSED, PATIENCE
from ferrytest.suite import Case
from ferrytest.wait import until

from failures import stand_still
from lab import Lab, check
from multifd import CHANNELS
from multifd_postcopy import PARAMS, PLAIN, TLS, URGENT, check_used_again
from postcopy import PLAIN as ALONE
from postcopy import (POINTS, PREEMPT, TRICKLE, Move, Way, cut, moving,
                      summary)

MAGIC, VERSION = 0x11223344, 1
OFTEN = 0.004           # s between connections
OPEN = 4                # at a time: there is a place for each of them
PLACES = 1 + CHANNELS + 8   # connections of which nothing was read
FLOOD = 3 * PLACES
CLOSED = 'its source has closed it'
# The first request of a recovery: a command, the length of its payload, and the
# name of a block after its length.
COMMAND, RECV_BITMAP = 8, 10
BLOCK = b'pc.ram'
REQUEST = struct.pack('>BHHB', COMMAND, RECV_BITMAP, 1 + len(BLOCK),
                      len(BLOCK)) + BLOCK
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
    return socket.create_connection(('127.0.0.1', tcp.port_of(uri)), PATIENCE)


def port_of(sock: socket.socket) -> int:
    """By which its peer knows it."""
    return sock.getsockname()[1]


def leave(sock: socket.socket) -> None:
    """Close it, and wait until the other side has: it has no place then."""
    with sock:
        try:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(64):
                pass
        except OSError:
            pass                # a reset


def is_closed(sock: socket.socket) -> bool:
    """Whether the other side has closed it, which sends nothing."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b''
    except BlockingIOError:
        return False
    except OSError:
        return True


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
    """Connect with WORDS again and again, as long as somebody listens.

    The latest of the connections stay open, no more than there are places for.
    """
    over = threading.Event()
    count = [0]
    socks: list[socket.socket] = []

    def intrude() -> None:
        while not over.wait(OFTEN):
            if len(socks) == OPEN:
                leave(socks.pop(0))
            try:
                sock = connect(uri)
                socks.append(sock)
                sock.sendall(words[count[0] % len(words)])
            except OSError:
                continue
            count[0] += 1
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
        try:
            with connect(uri) as sock:
                port = port_of(sock)
                sock.sendall(REQUEST)
            until(lambda: tcp.end(uri, port).closed, 'its end has come')
        finally:
            stand_still(move.target.vm, False)
        log = move.target.vm.log_path
        move.until(lambda: CLOSED in log.read_text(errors='replace')
                   or pauses(move) != [1, 1],
                   'the connection is not closed', PATIENCE, PAUSED)
        check(pauses(move) == [1, 1], f'paused once: {pauses(move)}')
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
            until(lambda: tcp.end(uri, port_of(sock)).taken, 'it is accepted')
            move.resume(move.via(uri))
            move.wait_resumed()
            check(sock.recv(1) == b'', 'it is closed')
        check(pauses(move) == [1, 1], f'paused once: {pauses(move)}')
        move.let_go()
        move.finish()
        return summary(move)


def flooded(lab: Lab) -> str:
    """Those that say nothing have all places: the oldest make room."""
    with moving(lab, 'ferry', 'ferry', PLAIN, **PARAMS, **TRICKLE) as move:
        move.start(POINTS['midway'])
        move.wait_beats(0)
        cut(move)
        move.wait_paused()
        uri = move.listen_again(tcp_uri())
        with ExitStack() as stack:
            socks = [stack.enter_context(connect(uri)) for _ in range(FLOOD)]
            move.until(lambda: sum(map(is_closed, socks)) >= FLOOD - PLACES,
                       'those that are too many are not closed', PATIENCE,
                       PAUSED)
            check(not all(map(is_closed, socks)), 'the latest are there')
            move.resume(move.via(uri))
            move.wait_resumed()
        check(pauses(move) == [1, 1], f'paused once: {pauses(move)}')
        move.let_go()
        move.finish()
        check_used_again(move)
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
                          ('silent-connection', silent_alone),
                          ('flood', flooded))]
