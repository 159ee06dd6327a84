# Destinations that lie to a source, and peers that fall silent.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Destinations that lie to a source, and peers that fall silent.

The source talks to a program that takes its stream and answers something on the
return path.  Whatever that is, the guest goes on, the source says what is wrong
in one line, and the next migration succeeds.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import records as r
from ferry.errors import FerryError
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest import abilities
from ferrytest.drain import Drain
from ferrytest.tls import write_key
from taker import (PONG, RECV_BITMAP, REQ_PAGES_ID, RESUME_ACK, SHUT,
                   SWITCHOVER_ACK, message, value, want)

LIMIT = 10.0            # s for a migration to end
CANCELLED_WITHIN = 5.0  # s
ANSWERS_WITHIN = 1.0    # s
SILENT = 0.7            # s
OVER = ('completed', 'failed', 'cancelled')

SHUT_OK = value(SHUT, 0)


@dataclass(frozen=True)
class Answer:
    """What a destination says, and how the migration ends.

    FAREWELL is said once the stream is over.  STATUS None: the lie is one that
    may be ignored as well as refused.
    """
    name: str
    reply: bytes
    status: str | None = 'failed'
    farewell: bytes = SHUT_OK
    hang_up: bool = False
    needs: tuple[str, ...] = ()     # see ferrytest.abilities
    says: str = ''                  # a part of the source's error


# The base's source may fall over requests for pages: only ours is asked.
OURS = ('query-migrate.progress',)

ANSWERS = [
    Answer('nothing-but-the-end', b'', 'completed'),
    Answer('peer-of-the-future', value(PONG, 0xfeffffff), 'completed'),
    Answer('pong-unasked', value(PONG, 12345), 'completed'),
    Answer('hangs-up', b'', hang_up=True),
    Answer('half-a-header', b'\0', hang_up=True),
    Answer('half-a-message', value(PONG, 1)[:6], hang_up=True),
    Answer('type-0', message(0)),
    Answer('type-77', message(77, b'abc')),
    Answer('type-65535', message(0xffff, bytes(8))),
    Answer('longer-than-any', message(PONG, bytes(600))),
    Answer('length-65535', message(PONG, b'', 0xffff) + bytes(70000)),
    Answer('pong-of-2-bytes', message(PONG, b'\0\1')),
    Answer('shut-of-nothing', message(SHUT)),
    Answer('shut-failed', value(SHUT, 1)),
    Answer('pages-too-short', message(REQ_PAGES_ID, b'abc')),
    Answer('pages-name-too-long', message(
        REQ_PAGES_ID, struct.pack('>QIB', 0, 4096, 200) + b'pc.ram')),
    Answer('pages-before-a-name', want(0, 4096), needs=OURS),
    Answer('pages-unknown-block', want(0, 4096, b'nosuch'),
           needs=OURS),
    Answer('pages-behind-end', want(1 << 40, 4096, b'pc.ram'),
           needs=OURS),
    Answer('pages-around', want((1 << 64) - 4096, 8192, b'pc.ram'),
           needs=OURS),
    Answer('pages-in-precopy', want(0, 4096, b'pc.ram'), None,
           needs=OURS),
    Answer('bitmap-unasked', message(RECV_BITMAP, r.named(b'pc.ram'))
           + bytes(4096)),
    Answer('bitmap-unknown-block', message(RECV_BITMAP, r.named(b'nosuch'))),
    Answer('resume-unasked', value(RESUME_ACK, 1), None),
    Answer('switchover-unasked', message(SWITCHOVER_ACK), None),
]

# Reports of a peer
READY, STARTED = 0x4600, 0x4601
PEER = value(PONG, 0xfe01000c) + value(PONG, 1)


def report(kind: int, attempt: int, *devices: tuple[int, bytes],
           junk: bytes = b'') -> bytes:
    """READY or STARTED, with names of devices."""
    body = struct.pack('>IIII', attempt, 1000, 10, 100)
    for took, name in devices:
        body += struct.pack('>I', took) + r.named(name)
    return message(kind, body + junk)


ANSWERS += [
    Answer('ready-unasked', PEER + report(READY, 7), 'completed', needs=OURS),
    Answer('started-of-another-attempt', PEER + report(STARTED, 7),
           'completed', needs=OURS),
    Answer('started-too-early', PEER + report(STARTED, 0), None, needs=OURS),
    Answer('report-in-full', PEER + report(
        READY, 3, *((i, b'device-%d' % i) for i in range(10))), 'completed',
        needs=OURS),
    Answer('report-too-short', PEER + message(READY, bytes(15)), needs=OURS),
    Answer('report-of-nothing', PEER + message(STARTED), needs=OURS),
    Answer('report-too-long', PEER + message(READY, bytes(500)), needs=OURS),
    Answer('report-of-11-devices', PEER + report(
        READY, 1, *((i, b'd') for i in range(11))), needs=OURS),
    Answer('report-with-half-a-device', PEER + report(
        READY, 1, junk=b'\0\0\0'), needs=OURS),
    Answer('report-with-name-cut', PEER + report(
        READY, 1, junk=b'\0\0\0\1\x28virtio'), needs=OURS),
    Answer('report-with-long-name', PEER + report(
        READY, 1, (1, b'x' * 41)), needs=OURS),
    Answer('report-with-escape', PEER + report(
        STARTED, 0, (1, b'\x1b[2J')), needs=OURS),
    Answer('report-with-no-name', PEER + report(READY, 1, (1, b'')),
           needs=OURS),
]


# Why a peer failed
ERROR = 0x4604
WHY = PEER + message(ERROR, b'no disk')

ANSWERS += [
    Answer('error', WHY, farewell=value(SHUT, 1), needs=OURS,
           says='destination: no disk'),
    Answer('error-at-the-end', PEER, farewell=message(ERROR, b'no disk')
           + value(SHUT, 1), needs=OURS, says='destination: no disk'),
    Answer('error-without-end', WHY, hang_up=True, needs=OURS,
           says='destination: no disk'),
    Answer('error-not-printable', PEER + message(
        ERROR, b'\x1b[2J\n\0\xff\xe2\x80\xae'), farewell=value(SHUT, 1),
        needs=OURS, says='destination: \\x1b[2J\\x0a\\x00\\xff'
                         '\\xe2\\x80\\xae'),
    Answer('error-of-512-bytes', PEER + message(ERROR, b'x' * 512),
           farewell=value(SHUT, 1), needs=OURS, says='x' * 512),
    Answer('error-of-513-bytes', PEER + message(ERROR, b'x' * 513),
           needs=OURS),
    Answer('error-of-nothing', PEER + message(ERROR), needs=OURS),
    Answer('error-cut', PEER + message(ERROR, b'no', 7), hang_up=True,
           needs=OURS),
    Answer('error-twice', WHY + message(ERROR, b'two'), needs=OURS,
           says='ERROR after ERROR'),
    Answer('error-and-more', WHY + value(PONG, 2), needs=OURS,
           says='PONG after ERROR'),
    Answer('error-and-success', WHY + SHUT_OK, needs=OURS, says='success'),
]


def status(vm: VM) -> dict:
    """What query-migrate says."""
    vm.check_alive()
    return vm.qmp.cmd('query-migrate')


def over(vm: VM, limit: float = LIMIT) -> dict:
    """Wait for the end of a migration."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        info = status(vm)
        if info.get('status') in OVER:
            return info
        time.sleep(0.01)
    raise FerryError(f'does not end: {info.get("status")}')


# What is said to the next migration: a greeting heard and the guest loaded.
HEARD = value(PONG, 1)


def goes_on(vm: VM, folder: Path, mute: bool = False) -> None:
    """The guest runs, and the next migration succeeds.

    Nobody answers it if it is to a MUTE one, for which our QEMU waits 3 s.
    """
    end = time.monotonic() + LIMIT
    while not vm.qmp.cmd('query-status')['running']:
        if time.monotonic() > end:
            raise FerryError('the guest does not run after a failure: '
                             f'{vm.qmp.cmd("query-status")}')
        time.sleep(0.01)
    return_path(vm, False)
    said = {} if mute else {'reply': HEARD, 'farewell': SHUT_OK,
                            'over': r.whole}
    with Drain(folder / f'{vm.name}-next', **said) as drain:
        vm.qmp.cmd('migrate', {'uri': drain.uri})
        info = over(vm)
    if info['status'] != 'completed':
        raise FerryError(f'the next migration: {info}')


def return_path(vm: VM, state: bool) -> None:
    """Whether the destination shall answer."""
    vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
        {'capability': 'return-path', 'state': state}]})


def check_answer(answer: Answer, vm: VM, folder: Path) -> None:
    """Migrate VM to who answers that."""
    abilities.require(vm.kind, ['return-path', *answer.needs])
    with vm:
        vm.qmp.cmd('cont')
        return_path(vm, True)
        with Drain(folder / f'{vm.name}-peer', reply=answer.reply,
                   farewell=answer.farewell, hang_up=answer.hang_up,
                   over=r.whole) as drain:
            vm.qmp.cmd('migrate', {'uri': drain.uri})
            info = over(vm)
        if answer.status not in (None, info['status']):
            raise FerryError(f'the migration {info["status"]}, but should be '
                             f'{answer.status}: {info}')
        said = info.get('error-desc', '')
        if info['status'] == 'failed':
            if not said or '\n' in said or answer.says not in said:
                raise FerryError(f'no clear error: {said!r}')
            goes_on(vm, folder)


def check_silence(vm: VM, folder: Path) -> None:
    """A peer that never says that it has loaded all can be cancelled.

    Without the return path the next one, as silent, is enough.
    """
    with vm:
        vm.qmp.cmd('cont')
        return_path(vm, True)
        with Drain(folder / f'{vm.name}-peer') as drain:
            vm.qmp.cmd('migrate', {'uri': drain.uri})
            drain.wait(lambda data: False, SILENT)
            info = status(vm)
            if info['status'] in OVER:
                raise FerryError('the end of the migration was not awaited: '
                                 f'{info}')
            vm.qmp.cmd('migrate_cancel')
            info = over(vm, CANCELLED_WITHIN)
        if info['status'] != 'cancelled':
            raise FerryError(f'is not cancelled: {info}')
        goes_on(vm, folder, mute=True)


def check_lost(vm: VM, folder: Path) -> None:
    """A peer that has all of the guest, and goes away without a word.

    The guest may run there: it must not run here before somebody says so.
    """
    abilities.require(vm.kind, ['return-path', *OURS])
    with vm:
        vm.qmp.cmd('cont')
        return_path(vm, True)
        with Drain(folder / f'{vm.name}-peer',
                   reply=value(PONG, 1)) as drain:
            vm.qmp.cmd('migrate', {'uri': drain.uri})
            if not r.whole(drain.wait(r.whole, LIMIT)):
                raise FerryError('the stream does not end')
            try:
                vm.qmp.cmd('migrate_cancel')
            except QMPError as err:
                if 'too late' not in err.desc:
                    raise
            else:
                raise FerryError('is cancelled after the end of the stream')
        info = over(vm)
        if info['status'] != 'failed' or "'cont'" not in info['error-desc']:
            raise FerryError(f'no clear error: {info}')
        state = vm.qmp.cmd('query-status')
        if state['running'] or state['status'] != 'postmigrate':
            raise FerryError(f'the guest does not wait: {state}')
        vm.qmp.cmd('cont')
        goes_on(vm, folder)


def check_stream_stops(data: bytes, share: float, vm: VM, folder: Path
                       ) -> None:
    """A source that falls silent: the monitor answers, and the end is clear."""
    path = folder / f'{vm.name}-stream'
    with vm:
        vm.qmp.cmd('migrate-incoming', {'uri': f'unix:{path}',
                                        'exit-on-error': False})
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(path))
            sock.sendall(data[:int(len(data) * share)])
            end = time.monotonic() + SILENT
            while (asked := time.monotonic()) < end:
                info = status(vm)
                if info.get('status') in OVER:
                    raise FerryError(f'did not wait: {info}')
                if time.monotonic() - asked > ANSWERS_WITHIN:
                    raise FerryError('the monitor does not answer')
                time.sleep(0.01)
        info = over(vm)
        if info['status'] != 'failed' or not info.get('error-desc'):
            raise FerryError(f'no clear error: {info}')


def check_unplug(data: bytes, share: float, vm: VM, folder: Path) -> None:
    """What is being loaded cannot be unplugged; it can be before and after."""
    path = folder / f'{vm.name}-stream'
    vm.args += ['-device', 'qemu-xhci', '-device', 'usb-tablet,id=one',
                '-device', 'usb-tablet,id=two']
    with vm:
        vm.qmp.cmd('migrate-incoming', {'uri': f'unix:{path}',
                                        'exit-on-error': False})
        vm.qmp.cmd('device_del', {'id': 'one'})
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(path))
            begun = int(len(data) * share)
            sock.sendall(data[:begun])
            end = time.monotonic() + LIMIT
            while status(vm).get('status') != 'active':
                if time.monotonic() > end:
                    raise FerryError(f'does not begin: {status(vm)}')
                time.sleep(0.01)
            try:
                vm.qmp.cmd('device_del', {'id': 'two'})
            except QMPError as err:
                if 'not allowed while migrating' not in err.desc:
                    raise
            else:
                raise FerryError('a device goes while it is loaded')
            sock.sendall(data[begun:])
            info = over(vm)
        if info['status'] != 'completed':
            raise FerryError(f'the migration: {info}')
        vm.qmp.cmd('device_del', {'id': 'two'})


def check_no_tls(data: bytes, vm: VM, folder: Path) -> None:
    """A command that does not speak TLS fails; another source may come."""
    keys = folder / f'{vm.name}-keys'
    write_key(keys, '0f' * 32)
    path = folder / f'{vm.name}-stream'
    with vm:
        vm.qmp.cmd('object-add', {'qom-type': 'tls-creds-psk', 'id': 'tls0',
                                  'dir': str(keys), 'endpoint': 'server'})
        for command in ('echo no TLS', 'true'):
            vm.qmp.cmd('migrate-set-parameters', {'tls-creds': 'tls0'})
            vm.qmp.cmd('migrate-incoming', {'uri': f'exec:{command}',
                                            'exit-on-error': False})
            info = over(vm)
            said = info.get('error-desc', '')
            if info['status'] != 'failed' or 'TLS handshake' not in said:
                raise FerryError(f'no clear error: {info}')
        vm.qmp.cmd('migrate-set-parameters', {'tls-creds': ''})
        vm.qmp.cmd('migrate-incoming', {'uri': f'unix:{path}',
                                        'exit-on-error': False})
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(path))
            sock.sendall(data)
            info = over(vm)
        if info['status'] != 'completed':
            raise FerryError(f'the next migration: {info}')


def tests() -> list[tuple[str, Callable]]:
    """Name and function of each test, which gets the runner's Bench."""
    made: list[tuple[str, Callable]] = [
        (f'answer/{answer.name}', lambda lab, answer=answer: check_answer(
            answer, lab.vm(), lab.folder)) for answer in ANSWERS]
    made += [
        ('answer/silence', lambda lab: check_silence(lab.vm(), lab.folder)),
        ('answer/lost', lambda lab: check_lost(lab.vm(), lab.folder))]
    made += [(f'unplug-at-{share:.1%}', lambda lab, share=share: check_unplug(
        lab.stream, share, lab.vm(incoming='defer'), lab.folder))
        for share in (0.3, 0.999)]
    made.append(('exec-without-tls', lambda lab: check_no_tls(
        lab.stream, lab.vm(incoming='defer'), lab.folder)))
    # The first is in the configuration, the others in memory and devices.
    return made + [
        (f'stream-stops-at-{share:.3%}',
         lambda lab, share=share: check_stream_stops(
             lab.stream, share, lab.vm(incoming='defer'), lab.folder))
        for share in (0.00005, 0.01, 0.3, 0.9, 0.999)]
