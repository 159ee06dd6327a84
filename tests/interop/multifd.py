# Migrations on several channels.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations on several channels.

Memory is sent on channels of its own, beside the main one.  What is compared
is the memory of the guest, which writes to it all the while.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
import uuid
from typing import Any

from ferry.link import Connection, Link
from ferry.migrate import set_caps, set_params
from ferry.vm import VM
from ferrytest import tcp
from ferrytest.suite import Case
from ferrytest.wait import until

from common import halfway, summary
from failures import failed
from lab import FAST, Lab, check
from progress import check_progress

CHANNELS = 3
MULTIFD = {'multifd': True}
COMPRESSION = 'multifd-compression'
PAIRS = (('ferry', 'ferry'), ('ferry', 'pristine'), ('pristine', 'ferry'))
SENT = 60 << 20         # bytes on the channels, of a guest with 96 MiB
INIT = struct.Struct('>II16sB39x')      # what a channel begins with
# Pages a second that the guest writes where they are compressed.  A machine
# that does other things as well may compress no more than RATE, and never end.
SLOW_RATE = 500


def params(**more: Any) -> dict[str, Any]:
    """All that other cases may have left different."""
    return {**FAST, 'multifd-channels': CHANNELS, COMPRESSION: 'none',
            'zero-page-detection': 'multifd', **more}


def ready(lab: Lab, kind: str, **more: Any) -> VM:
    """A destination that waits for that."""
    target = lab.target(kind, **more)
    set_caps(target, MULTIFD)
    return target


def sent(result: Any) -> int:
    """Bytes that took the way of the channels."""
    return result.samples[-1]['ram'].get('multifd-bytes', 0)


def tells_of_channels(result: Any, count: int) -> None:
    """What is told of each agrees with what is told of all."""
    last = result.samples[-1]
    channels = last['migrate']['progress']['channels']
    check([one['id'] for one in channels] == list(range(count)),
          f'each channel is told of: {channels}')
    bytes_ = sum(one['bytes'] for one in channels)
    check(bytes_ == last['ram']['multifd-bytes'],
          f'they add up to {last["ram"]["multifd-bytes"]}: {channels}')
    check(all(0 < one['busy'] <= 100 and one['memory'] > 0
              for one in channels) or count > 4,
          f'all were at work: {channels}')


def moves(source: str, target: str, name: str, *, transport: str = 'tcp',
          tls: bool = False, caps: dict[str, bool] | None = None,
          ours: dict[str, bool] | None = None, least: int = SENT,
          full: bool = False, **more: Any) -> Case:
    """A migration that is to succeed; OURS are for the source alone."""
    def run(lab: Lab) -> str:
        set_caps(lab.boot(source), ours or {})
        if COMPRESSION in more:
            lab.guest.set_rate(SLOW_RATE)
        result = lab.must_move(ready(lab, target), transport, tls=tls,
                               caps={**MULTIFD, **(caps or {})},
                               params=params(**more))
        got = sent(result)
        check(got > least, f'memory took the channels: {got} bytes')
        if source == 'ferry':
            tells_of_channels(result, more.get('multifd-channels', CHANNELS))
        return f'{summary(result)}, {got >> 20} MiB on the channels'
    return Case(f'{source}-{target}-multifd-{name}', run, False,
                (source, target), ('multifd',), full)


def paused(target: str) -> Case:
    """A pause before the switchover, in which both monitors say the same."""
    def run(lab: Lab) -> str:
        vm = lab.boot('ferry')
        told: list[set[str]] = []

        def on_sample(sample: dict) -> None:
            if sample['phase'] == 'pre-switchover' and not told:
                told.append(check_progress(vm))
                vm.qmp.cmd('migrate-continue', {'state': 'pre-switchover'})
        result = lab.must_move(ready(lab, target), params=params(), caps={
            **MULTIFD, 'pause-before-switchover': True}, on_sample=on_sample)
        check(bool(told) and 'channels' in told[0],
              f'channels are told of: {told}')
        return summary(result)
    return Case(f'ferry-{target}-multifd-pause', run, False,
                ('ferry', target), ('multifd',))


def machine(source: str, target: str) -> Case:
    """The end of each section is a mark, as old machine types have it."""
    old = ['-global', 'migration.multifd-flush-after-each-section=on']

    def run(lab: Lab) -> str:
        lab.boot_anew(source, args=old)
        result = lab.must_move(ready(lab, target, args=old), caps=MULTIFD,
                               params=params(
                                   **{'zero-page-detection': 'legacy'}))
        lab.clear()
        return summary(result)
    return Case(f'{source}-{target}-multifd-old-machine', run, False,
                (source, target), ('multifd',))


def cancelled(source: str, target: str) -> Case:
    """Cancelled, and tried again with another number of channels."""
    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        on_sample, _ = halfway(lambda: vm.qmp.cmd('migrate_cancel'),
                               lambda s: s['phase'] == 'active' and
                               s['transferred'] > SENT // 2)
        result = lab.move(ready(lab, target), caps=MULTIFD,
                          params=params(**{'max-bandwidth': 40 << 20}),
                          on_sample=on_sample)
        check(result.status == 'cancelled', f'it is "{result.status}"')
        lab.must_go_on()
        again = lab.must_move(ready(lab, target), caps=MULTIFD,
                              params=params(**{'multifd-channels': 5}))
        return summary(again)
    return Case(f'{source}-{target}-multifd-cancelled', run, False,
                (source, target), ('multifd',))


def stopped(lab: Lab) -> str:
    """A destination that stands still does not keep `migrate_cancel` waiting.
    """
    vm = lab.boot('ferry')
    target = ready(lab, 'ferry')
    took: list[float] = []

    def act() -> None:
        os.kill(target.pid, signal.SIGSTOP)
        time.sleep(0.5)
        start = time.monotonic()
        vm.qmp.cmd('migrate_cancel')
        while vm.qmp.cmd('query-migrate')['status'] != 'cancelled':
            check(time.monotonic() - start < 5, 'it is cancelled in time')
            time.sleep(0.002)
        took.append((time.monotonic() - start) * 1000)
        os.kill(target.pid, signal.SIGCONT)
    on_sample, _ = halfway(act, lambda s: s['phase'] == 'active')
    result = lab.move(target, caps=MULTIFD, params=params(),
                      on_sample=on_sample)
    check(result.status == 'cancelled', f'it is "{result.status}"')
    lab.must_go_on()
    return f'cancelled in {took[0]:.0f} ms'


def begins(lab: Lab, target: VM, uri: str, **more: Any) -> None:
    """Migrate to a destination that listens already."""
    source = lab.source
    assert source is not None
    set_caps(source, MULTIFD)
    set_params(source, params(**more))
    lab.guest.expect(target)
    source.qmp.cmd('migrate', {'uri': uri})


def becomes(source: VM, wanted: str, within: float) -> str:
    """Wait until that is WANTED; return the source's error."""
    end = time.monotonic() + within
    while True:
        info = source.qmp.cmd('query-migrate')
        if info['status'] in ('completed', 'failed'):
            break
        check(time.monotonic() < end, f'it ends: {info}')
        time.sleep(0.01)
    check(info['status'] == wanted, f'it is {wanted}: {info}')
    return info.get('error-desc', '')


def both(lab: Lab, target: VM, uri: str, wanted: str, within: float,
         **more: Any) -> str:
    """Migrate to a destination that listens already, up to a state.

    Return the source's error.
    """
    begins(lab, target, uri, **more)
    assert lab.source is not None
    return becomes(lab.source, wanted, within)


def listens(lab: Lab, channels: int = 0) -> tuple[VM, str]:
    """A destination that stays after a failure, and where it listens."""
    target = lab.target('ferry')
    if channels:
        set_caps(target, MULTIFD)
        set_params(target, params(**{'multifd-channels': channels}))
    uri = lab.uri('tcp')
    target.qmp.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
    return target, uri


def strangers(lab: Lab) -> str:
    """Connections of others do not disturb, whether they say something or not.
    """
    lab.boot('ferry')
    target, uri = listens(lab, CHANNELS)
    host, port = uri.removeprefix('tcp:').split(':')
    socks: list[socket.socket] = []
    for words in (b'GET / HTTP/1.0\r\n\r\n', b'', b'\x11\x22\x33'):
        sock = socket.create_connection((host, int(port)))
        sock.sendall(words)
        socks.append(sock)
    both(lab, target, uri, 'completed', 20)
    for sock in socks:
        sock.close()
    lab.guest.move_to(target)
    verdict = lab.guest.verify()
    check(verdict.ok, verdict.detail)
    lab.clear()         # the observer has not followed
    return f'{len(socks)} of them; {verdict.detail}'


def have_been_read(uri: str, socks: list[socket.socket]) -> bool:
    """Whether who listens at URI has read all that has come of SOCKS."""
    return all(tcp.end(uri, sock.getsockname()[1]).read for sock in socks)


def is_known(one: Connection, uri: str) -> bool:
    """Whether who listens at URI has read what the channel begins with."""
    sent = one.sent
    end = tcp.end(uri, one.far.getsockname()[1])
    return end.taken and sent - end.unread >= INIT.size


def channels_wait(link: Link, uri: str) -> bool:
    """Whether the source's are known, behind LINK; or they are closed."""
    channels = link.connections[1:]         # the main one is the first
    try:
        return (len(channels) == CHANNELS
                and all(is_known(one, uri) for one in channels))
    except OSError:
        return True


def late(lab: Lab) -> str:
    """Channels of an attempt that is over come before those of the next one.

    Others come in between, and are seen to have been closed only when the next
    attempt's wait for their places.
    """
    source = lab.boot('ferry')
    target, uri = listens(lab, CHANNELS)
    vm = uuid.UUID(target.qmp.cmd('query-uuid')['UUID']).bytes

    def introduced(channel: int) -> socket.socket:
        sock = socket.create_connection(('127.0.0.1', tcp.port_of(uri)))
        sock.sendall(INIT.pack(0x11223344, 1, vm, channel))
        return sock
    for channel in range(CHANNELS):
        introduced(channel).close()
    socks = [introduced(channel) for channel in range(CHANNELS)]
    until(lambda: have_been_read(uri, socks), 'they have been read')
    with Link() as link:
        link.aim(uri)
        begins(lab, target, link.uri)
        until(lambda: channels_wait(link, uri), 'the next ones come')
        target.qmp.cmd('query-status')      # its main loop has looked at them
        for sock in socks:
            sock.close()
        becomes(source, 'completed', 20)
    lab.guest.move_to(target)
    verdict = lab.guest.verify()
    check(verdict.ok, verdict.detail)
    lab.clear()         # the observer has not followed
    return verdict.detail


def too_many(lab: Lab) -> str:
    """A source with more channels than are expected; the other waits on."""
    lab.boot('ferry')
    target, uri = listens(lab, 2)
    said = both(lab, target, uri, 'failed', 10)
    check('multifd-channels' in said, f'it says why: {said}')
    there = target.qmp.cmd('query-migrate')['status']
    check(there == 'setup', f'the destination waits: {there}')
    lab.must_go_on()
    return f'"{said}"'


def too_few(lab: Lab) -> str:
    """The same with less: nobody waits for ever."""
    lab.boot('ferry')
    said = both(lab, *listens(lab, 4), 'failed', 60)
    check('multifd-channels' in said, f'it says why: {said}')
    lab.must_go_on()
    return f'"{said}"'


def plain_destination(lab: Lab) -> str:
    """The other side has the capability not set."""
    lab.boot('ferry')
    said = both(lab, *listens(lab), 'failed', 20)
    check('capability' in said, f'it says why: {said}')
    lab.must_go_on()
    return f'"{said}"'


def killed(lab: Lab) -> str:
    """A destination that dies in the middle: the guest goes on here."""
    lab.boot('ferry')
    target = ready(lab, 'ferry')
    on_sample, _ = halfway(target.kill, lambda s: s['phase'] == 'active' and
                           s['transferred'] > SENT // 2)
    result = lab.move(target, caps=MULTIFD,
                      params=params(**{'max-bandwidth': 40 << 20}),
                      on_sample=on_sample)
    said = failed(lab, result)
    again = lab.must_move(ready(lab, 'ferry'), caps=MULTIFD, params=params())
    return f'"{said}"; then {summary(again)}'


def all_cases() -> list[Case]:
    """Each pair with each form of packets, then what may go wrong."""
    cases: list[Case] = []
    for source, target in PAIRS:
        cases += [
            moves(source, target, 'plain'),
            moves(source, target, 'unix', transport='unix', full=True),
            moves(source, target, 'zlib', least=1 << 20,
                  full=source == target,
                  **{COMPRESSION: 'zlib'}),
            moves(source, target, 'zstd', least=1 << 20,
                  **{COMPRESSION: 'zstd'}),
            moves(source, target, 'tls', tls=True),
            moves(source, target, 'legacy-zeros',
                  **{'zero-page-detection': 'legacy'}),
            moves(source, target, 'no-zeros', full=True,
                  **{'zero-page-detection': 'none'}),
            moves(source, target, 'one', full=True,
                  **{'multifd-channels': 1}),
            moves(source, target, 'many', full=True,
                  **{'multifd-channels': 16}),
            machine(source, target),
            cancelled(source, target)]
        cases.append(moves(source, target, 'return-path',
                           caps={'return-path': True}))
    strict = {'return-path': True, 'strict-downtime': True}
    cases += [moves('ferry', 'ferry', 'strict', caps=strict),
              moves('ferry', 'pristine', 'strict', ours=strict)]
    cases += [paused('ferry'), paused('pristine')]
    return cases + [
        Case(f'multifd-{name}', run, needs=('multifd',))
        for name, run in (
            ('destination-stopped', stopped), ('strangers', strangers),
            ('late-channels', late),
            ('too-many', too_many), ('too-few', too_few),
            ('plain-destination', plain_destination), ('killed', killed))]
