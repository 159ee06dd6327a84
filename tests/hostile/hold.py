# Sources that lie about attempts to switch over.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources that lie about attempts to switch over (strict-downtime.rst).

It is about who may run the guest: whatever comes, it is
not started without a COMMIT for the attempt that the destination is ready for.
"""

from __future__ import annotations

import re
import socket
import struct
from typing import Callable

import records as r
from cases import (BLOCK, PAGE, POSTCOPY, Case, Change, advise, discard,
                   find)
from ferry.errors import FerryError
from ferry.vm import VM
from records import Record

HELLO = 0x46455252              # a Ferry asks who is there,
OFFER = 0xfd010000              # and says that it understands
REPORT, STRICT, ERROR = 0x4, 0x100, 0x40
KNOWS = ('query-migrate.progress',)
LIMIT_US = 300000
RAM_NUMBER = 0x52414d23         # stands for that of the section "ram"
WAIT = b'<the rest of this stream follows when there is an answer>'

Attempts = Callable[[bytes], list[bytes]]


def ping(value: int) -> Record:
    """A PING."""
    return r.command(r.PING, struct.pack('>I', value))


def greeting(features: int = REPORT | STRICT) -> list[Record]:
    """What a Ferry says first."""
    return [r.command(r.OPEN_RETURN_PATH), ping(HELLO),
            ping(OFFER | features), ping(1)]


def hold(attempt: int) -> bytes:
    """HOLD."""
    return r.command(r.HOLD, struct.pack('>II', attempt, LIMIT_US)).pack()


def about(command: int, attempt: int) -> bytes:
    """COMMIT or ABORT."""
    return r.command(command, struct.pack('>I', attempt)).pack()


def commit(attempt: int) -> bytes:
    """COMMIT."""
    return about(r.COMMIT, attempt)


def abort(attempt: int) -> bytes:
    """ABORT."""
    return about(r.ABORT, attempt)


def state(attempt: int, devices: bytes, length: int | None = None) -> bytes:
    """STATE, which may lie about its length."""
    size = len(devices) if length is None else length
    return r.command(r.STATE, struct.pack('>II', attempt, size)).pack() \
        + devices


def ready(attempt: int) -> bytes:
    """A place in a stream: the rest follows when READY has come."""
    return WAIT + struct.pack('>I', attempt)


def tell(sock: socket.socket, data: bytes) -> None:
    """Send DATA, and wait where ready() says so."""
    first, *others = data.split(WAIT)
    sock.sendall(first)
    heard = b''
    for piece in others:
        answer = re.compile(b'\x46\0..' + re.escape(piece[:4]), re.S)
        while not answer.search(heard):
            more = sock.recv(4096)
            if not more:
                return
            heard += more
        sock.sendall(piece[4:])


def strict(attempts: Attempts, hello: list[Record] | None = None,
           rest: bool = True) -> Change:
    """A stream with these ATTEMPTS, which are given all devices.

    Without a REST it breaks off after them.
    """
    def change(stream: list[Record]) -> bytes:
        start = find(stream, r.START, b'ram')
        number = stream[start].number
        devices = b''.join(one.pack() for one in stream if one.type == r.FULL)
        devices += Record(r.EOF).pack()
        end = next(i for i, one in enumerate(stream)
                   if one.type == r.END and one.number == number)
        others = [one for one in stream[end:] if one.type != r.FULL]
        return (r.join([*stream[:start], *(greeting() if hello is None
                                           else hello), *stream[start:end]])
                + b''.join(attempts(devices)).replace(
                    struct.pack('>I', RAM_NUMBER), struct.pack('>I', number))
                + (b''.join(one.pack() for one in others) if rest else b''))
    return change


def lie(name: str, attempts: Attempts, error: str | None,
        look: Callable[[VM], None] | None = None, **more: object) -> Case:
    """One case."""
    return Case(f'hold/{name}', strict(attempts, **more), error,
                needs=KNOWS, look=look or (held if error else None))


def held(vm: VM) -> None:
    """The guest was not started, and will not be."""
    status = vm.qmp.cmd('query-status')
    if status['running'] or status['status'] not in ('inmigrate',):
        raise FerryError(f'the guest is {status}')


def started(vm: VM) -> None:
    """It is where COMMIT brought it: as it stood on the source."""
    status = vm.qmp.cmd('query-status')
    if status['status'] == 'inmigrate':
        raise FerryError('the guest was not taken over')


LATE = 0x300000                 # in memory that nobody wrote to
LATE_BYTE = 0xa7


def late_page(offset: int = LATE) -> bytes:
    """A part of RAM with one page."""
    body = r.ram(r.PAGE, offset, BLOCK, bytes([LATE_BYTE]) * PAGE)
    return Record(r.PART, number=RAM_NUMBER, body=body + r.ram(r.EOS)).pack()


def not_written(vm: VM) -> None:
    """The guest was started, and its memory left alone."""
    started(vm)
    text = vm.qmp.cmd('human-monitor-command', {
        'command-line': f'xp /1bx {LATE:#x}'})
    if f'{LATE_BYTE:#04x}' in text:
        raise FerryError(f'the page was written: {text.strip()}')


CASES = [
    # honest ones, so that the others are known to fail for their lie
    lie('honest', lambda d: [hold(1), state(1, d), commit(1)], None, started),
    lie('second-attempt', lambda d: [
        hold(1), state(1, d), abort(1), hold(2), state(2, d), commit(2)],
        None, started),
    lie('aborted-before-state', lambda d: [
        hold(1), abort(1), hold(7), state(7, d), commit(7)], None, started),
    lie('aborted-many-times', lambda d: [
        *(one for i in range(1, 20) for one in (hold(i), state(i, d),
                                                abort(i))),
        hold(20), state(20, d), commit(20)], None, started),
    lie('all-after-commit-is-lost', lambda d: [
        hold(1), state(1, d), commit(1)], None, started, rest=False),
    lie('plain-after-abort', lambda d: [hold(1), abort(1), d[:-1]], None,
        started),

    lie('twice', lambda d: [hold(1), hold(2), state(2, d), commit(2)],
        'HOLD'),
    lie('attempt-0', lambda d: [hold(0), state(0, d), commit(0)],
        'attempt 0 received after attempt 0'),
    lie('same-attempt-again', lambda d: [
        hold(1), abort(1), hold(1), state(1, d), commit(1)],
        'attempt 1 received after attempt 1'),
    lie('earlier-attempt', lambda d: [
        hold(5), abort(5), hold(4), state(4, d), commit(4)],
        'attempt 4 received after attempt 5'),
    lie('when-ready', lambda d: [hold(1), state(1, d), hold(2), commit(2)],
        'HOLD'),

    lie('state-alone', lambda d: [state(1, d), commit(1)], 'STATE'),
    lie('state-of-another', lambda d: [hold(2), state(1, d), commit(2)],
        'attempt 1 received, 2 expected'),
    lie('state-twice', lambda d: [
        hold(1), state(1, d), state(1, d), commit(1)], 'STATE'),
    lie('state-cut', lambda d: [hold(1), state(1, d[:len(d) // 2])],
        'STATE', rest=False),
    lie('state-of-nothing', lambda d: [hold(1), state(1, b''), commit(1)],
        'STATE'),
    lie('state-without-end', lambda d: [
        hold(1), state(1, d[:-1]), commit(1)], 'STATE'),
    lie('state-shorter', lambda d: [
        hold(1), state(1, d, len(d) - 100), commit(1)], 'STATE'),
    lie('state-longer', lambda d: [
        hold(1), state(1, d, len(d) + (1 << 24)), commit(1)], 'STATE'),
    lie('state-of-4-GB', lambda d: [
        hold(1), state(1, d, 0xffffffff), commit(1)], 'more than the limit'),
    lie('state-of-noise', lambda d: [
        hold(1), state(1, b'\xa5' * 4096), commit(1)], 'STATE'),
    lie('state-with-commit', lambda d: [
        hold(1), state(1, commit(1) + d), commit(1)], 'COMMIT'),

    lie('devices-beside-state', lambda d: [
        hold(1), d[:-1], state(1, d), commit(1)], 'the command STATE'),
    lie('devices-when-ready', lambda d: [
        hold(1), state(1, d), d[:-1], commit(1)], 'the command STATE'),

    lie('commit-alone', lambda d: [commit(1)], 'COMMIT'),
    lie('commit-of-nothing', lambda d: [hold(1), commit(1)], 'COMMIT'),
    lie('commit-of-another', lambda d: [hold(1), state(1, d), commit(2)],
        'attempt 2 received, 1 expected'),
    lie('commit-of-aborted', lambda d: [
        hold(1), state(1, d), abort(1), commit(1)], 'COMMIT'),
    lie('commit-of-earlier', lambda d: [
        hold(1), state(1, d), abort(1), hold(2), state(2, d), commit(1)],
        'attempt 1 received, 2 expected'),
    lie('end-without-state', lambda d: [hold(1)],
        'while the guest is being held'),
    lie('end-without-commit', lambda d: [hold(1), state(1, d)],
        'while the guest is being held'),
    lie('plain-while-held', lambda d: [hold(1), d[:-1]],
        'while the guest is being held'),

    lie('abort-alone', lambda d: [abort(1)], 'ABORT'),
    lie('abort-twice', lambda d: [
        hold(1), state(1, d), abort(1), abort(1)], 'ABORT'),
    lie('abort-of-another', lambda d: [hold(1), state(1, d), abort(2)],
        'attempt 2 received, 1 expected'),
    # It cannot be taken back, nor be done twice.
    lie('abort-after-commit', lambda d: [
        hold(1), state(1, d), commit(1), abort(1)], None, started),
    lie('commit-twice', lambda d: [
        hold(1), state(1, d), commit(1), commit(1)], None, started),
    lie('page-after-commit', lambda d: [
        hold(1), state(1, d), commit(1), late_page()], None, not_written),

    lie('nobody-to-answer', lambda d: [hold(1), state(1, d), commit(1)],
        'READY cannot be sent', hello=[]),
    lie('source-without-reports', lambda d: [
        hold(1), state(1, d), commit(1)], 'READY cannot be sent',
        hello=greeting(0)),
]


# With memory to follow: the stream is read beside the state

def listens(devices: bytes) -> bytes:
    """A state whose memory may be missing."""
    return r.command(r.LISTEN).pack() + devices


def follows(name: str, attempts: Attempts, error: str | None,
            look: Callable[[VM], None] | None = None, lenient: bool = False,
            **more: object) -> Case:
    """One case."""
    more = {'hello': [*greeting(), advise()], **more}
    return Case(f'hold/postcopy-{name}', strict(attempts, **more), error,
                POSTCOPY, KNOWS, look or (held if error else None), lenient)


def try_one(attempt: int, devices: bytes) -> list[bytes]:
    """An attempt up to its READY."""
    return [hold(attempt), discard(BLOCK, (0, PAGE)).pack(),
            state(attempt, listens(devices)), ready(attempt)]


def bundle(inner: bytes) -> list[bytes]:
    """A package, as it is without attempts."""
    return [r.command(r.PACKAGED, struct.pack('>I', len(inner))).pack(),
            inner]


BESIDE = 'while the guest is being held'
WHEN_READY = 'when the guest is ready'

CASES += [
    follows('honest', lambda d: [*try_one(1, d), commit(1), late_page(0)],
            None, started),
    follows('second-attempt', lambda d: [
        *try_one(1, d), abort(1), *try_one(2, d), commit(2), late_page(0)],
        None, started),
    follows('aborted-many-times', lambda d: [
        *(one for i in range(1, 20) for one in (*try_one(i, d), abort(i))),
        *try_one(20, d), commit(20), late_page(0)], None, started),
    follows('aborted-before-ready', lambda d: [
        *(one for i in range(1, 20) for one in (
            hold(i), state(i, listens(d)), abort(i))),
        *try_one(20, d), commit(20), late_page(0)], None, started),
    follows('aborted-before-state', lambda d: [
        hold(1), discard(BLOCK, (0, PAGE)).pack(), abort(1), *try_one(2, d),
        commit(2), late_page(0)], None, started),
    follows('nothing-follows-after-all', lambda d: [
        *try_one(1, d), abort(1), hold(2), state(2, d), ready(2), commit(2)],
        None, started),
    follows('plain-after-abort', lambda d: [
        *try_one(1, d), abort(1), d[:-1]], None, started),
    follows('package-after-abort', lambda d: [
        *try_one(1, d), abort(1), *bundle(listens(d[:-1]) + r.command(
            r.RUN).pack()), late_page(0)], None, started),

    # It is read while the state is still being loaded, or just after.
    follows('commit-too-early', lambda d: [
        hold(1), state(1, listens(d)), commit(1)], 'COMMIT', lambda vm: None,
        True),
    follows('commit-of-another', lambda d: [*try_one(1, d), commit(2)],
            'attempt 2 received, 1 expected'),
    follows('commit-of-earlier', lambda d: [
        *try_one(1, d), abort(1), *try_one(2, d), commit(1)],
        'attempt 1 received, 2 expected'),
    follows('commit-of-aborted', lambda d: [*try_one(1, d), abort(1),
                                            commit(1)], 'COMMIT'),
    follows('abort-of-another', lambda d: [*try_one(1, d), abort(2)],
            'attempt 2 received, 1 expected'),
    follows('abort-twice', lambda d: [*try_one(1, d), abort(1), abort(1)],
            'ABORT'),
    follows('same-attempt-again', lambda d: [
        *try_one(1, d), abort(1), *try_one(1, d)],
        'attempt 1 received after attempt 1'),
    follows('hold-when-ready', lambda d: [*try_one(1, d), hold(2)],
            f'HOLD {WHEN_READY}'),
    follows('state-twice', lambda d: [
        *try_one(1, d), state(1, listens(d))], f'STATE {WHEN_READY}'),
    follows('discard-when-ready', lambda d: [
        *try_one(1, d), discard(BLOCK, (0, PAGE)).pack()],
        f'POSTCOPY_DISCARD {WHEN_READY}'),
    follows('package-when-ready', lambda d: [
        *try_one(1, d), *bundle(listens(d))], f'PACKAGED {WHEN_READY}'),
    follows('package-while-held', lambda d: [
        hold(1), *bundle(listens(d))], f'PACKAGED {BESIDE}'),
    follows('resume-when-ready', lambda d: [
        *try_one(1, d), r.command(r.RESUME).pack()],
        f'POSTCOPY_RESUME {WHEN_READY}'),
    follows('section-when-ready', lambda d: [*try_one(1, d), d],
            'only started sections may continue'),
    follows('listen-alone', lambda d: [hold(1), r.command(r.LISTEN).pack()],
            'POSTCOPY_LISTEN outside of a package'),
    # What else there is waits, or it might be found wrong before this is.
    follows('listen-twice', lambda d: [
        hold(1), state(1, listens(listens(d))), ready(1)],
        f'POSTCOPY_LISTEN {BESIDE}'),
    follows('listen-unannounced', lambda d: [
        hold(1), state(1, listens(d))], 'not announced postcopy',
        hello=greeting()),
    follows('discard-unannounced', lambda d: [
        hold(1), discard(BLOCK, (0, PAGE)).pack()], 'not announced postcopy',
        hello=greeting()),
    follows('run-in-state', lambda d: [
        hold(1), state(1, listens(d[:-1] + r.command(r.RUN).pack())),
        ready(1)], f'POSTCOPY_RUN {BESIDE}'),
    follows('state-of-noise', lambda d: [
        hold(1), state(1, listens(b'\xa5' * 4096)), ready(1)], 'STATE'),
    follows('state-without-end', lambda d: [
        hold(1), state(1, listens(d[:-1])), ready(1)], 'STATE'),
    follows('end-without-verdict', lambda d: try_one(1, d), BESIDE,
            rest=True),
    follows('breaks-off-when-ready', lambda d: try_one(1, d), '',
            rest=False),
    follows('breaks-off-before-ready', lambda d: [
        hold(1), state(1, listens(d))], '', rest=False),
    follows('breaks-off-before-state', lambda d: [
        hold(1), discard(BLOCK, (0, PAGE)).pack()], '', rest=False),
]
