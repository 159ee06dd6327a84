# Postcopy after memory was sent on several channels.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Postcopy after memory was sent on several channels.

Memory takes channels of its own, also after the switchover, when the main one
has no more of it than what is requested, or the one for urgent pages does.  After
a recovery the channels are connected again, unless there is that for urgent
pages.  A page that was sent on a channel and is discarded, or one that was loaded
and is not known to be, would show in the guest's memory.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Callable, Iterator

from ferry.link import Connection
from ferry.migrate import set_caps, set_params, tcp_uri
from ferrytest.postcopy import ACTIVE, PAUSED
from ferrytest.suite import Case

from common import SLOW as SLOWLY
from common import UNDER_WAY, says
from failures import Mode, cancelled
from lab import FAST, Lab, check
from multifd import CHANNELS, both, params
from postcopy import (POINTS, TRICKLE, Move, Way, back_to_pause, cut, moving,
                      pause_source, pause_target, refused, summary,
                      target_dies)
from postcopy_memory import (BACKENDS, Backend, backed, moving_backend,
                             room_for_two)
from promised import (DELAY, DEVICE, PLENTY, SLOW, SOON, Promised, ends,
                      promised, stays)

MULTIFD = {'multifd': True}
PREEMPT = {'postcopy-preempt': True}
PLAIN = Way('multifd', MULTIFD)
URGENT = Way('multifd-preempt', {**MULTIFD, **PREEMPT})
TLS = Way('multifd-tls', MULTIFD, True)
URGENT_TLS = Way('multifd-preempt-tls', {**MULTIFD, **PREEMPT}, True)
PARAMS: dict[str, Any] = {
    'multifd-channels': CHANNELS, 'multifd-compression': 'none',
    'zero-page-detection': 'multifd'}
STALL = 1.0             # s
VCPUS = 4
HUGE_PAGES = tuple(backend for backend in BACKENDS if backend.huge)
# What begins the main channel of a recovery, and what channels begin with
PING_AGAIN, PING_BYTES = struct.pack('>BHHB', 8, 2, 4, 0x51), 9
CHANNEL_MAGIC, CHANNEL_ATTEMPT = struct.pack('>I', 0x11223344), (32, 36)
SOME_BYTES = 30         # of the main channel
TOO_FAR = 0             # ms of the downtime limit: no round trip is as short


def on_channels(move: Move) -> int:
    """MiB that took the channels; they are told of."""
    sent = move.info['ram']['multifd-bytes']
    check(sent > UNDER_WAY // 2, f'memory took the channels: {sent} bytes')
    told = move.info['progress']['channels']
    check(len(told) == CHANNELS, f'channels are told of: {told}')
    return sent >> 20


@contextmanager
def several(lab: Lab, way: Way, **params: int) -> Iterator[Move]:
    """A migration about to begin."""
    with moving(lab, 'ferry', 'ferry', way, **PARAMS, **params) as move:
        yield move


def case(way: Way, name: str, run: Callable[[Lab], str],
         full: bool = False) -> Case:
    """One case; such a guest moves between two Ferrys alone."""
    return Case(f'ferry-ferry-postcopy-{way.name}-{name}', run, False,
                ('ferry', 'ferry'), way.needs, full)


def plain(way: Way, point: str) -> Case:
    """Nothing goes wrong."""
    def run(lab: Lab) -> str:
        with several(lab, way) as move:
            move.start(POINTS[point])
            move.finish()
            return f'{summary(move)}, {on_channels(move)} MiB on channels'
    return case(way, point, run, point == 'nearly-done')


def many(channels: int) -> Case:
    """As many channels as that."""
    def run(lab: Lab) -> str:
        with moving(lab, 'ferry', 'ferry', PLAIN,
                    **{**PARAMS, 'multifd-channels': channels}) as move:
            move.start(POINTS['midway'])
            move.finish()
            told = move.info['progress']['channels']
            check(len(told) == channels, f'channels are told of: {told}')
            check(all(one['bytes'] for one in told), f'all are used: {told}')
            return summary(move)
    return case(PLAIN, f'{channels}-channels', run, channels == 1)


def vcpus_on_huge_pages(backend: Backend) -> Case:
    """Several vCPUs wait for huge pages, each of which is on one channel."""
    def run(lab: Lab) -> str:
        lab.clear()
        with room_for_two(backend), moving_backend(
                lab, 'ferry', 'ferry', PLAIN, backend, VCPUS, **PARAMS) as move:
            move.start(POINTS['at-once'])
            move.finish()
            return f'{summary(move)}, {on_channels(move)} MiB on channels'
    return case(PLAIN, f'vcpus-{backend.name}', run, True)


def channel_cut_later(move: Move) -> None:
    """In postcopy one of those that have the background goes."""
    if len(move.link.alive()) > 2:
        check(move.link.cut(1) == 1, 'there was a channel to cut')
    else:
        cut(move)


def pause_silent_source(move: Move) -> None:
    """The network swallows everything, and threads wait for it."""
    move.link.hold()
    time.sleep(STALL)
    pause_source(move)
    move.until(lambda: move.source.status == PAUSED, 'it is not paused')
    move.link.cut()
    move.link.hold(False)


def pause_silent_target(move: Move) -> None:
    """The same, and the user asks the destination for a pause."""
    move.link.hold()
    time.sleep(STALL)
    pause_target(move)
    move.until(lambda: PAUSED in move.target.states(), 'it is not paused')
    move.link.cut()
    move.link.hold(False)


def check_used_again(move: Move) -> None:
    """The channels that were connected last have had some of the memory."""
    told = move.info['progress']['channels']
    check(all(one['memory'] for one in told),
          f'all channels were used after the recovery: {told}')


def again(way: Way, breaking: Callable[[Move], None]) -> Case:
    """The network fails in postcopy, twice."""
    def run(lab: Lab) -> str:
        with several(lab, way, **TRICKLE) as move:
            move.start(POINTS['midway'])
            for _ in range(2):
                move.wait_beats(0)
                check(move.source.status == ACTIVE, 'something is left to do')
                breaking(move)
                move.wait_paused()
                move.check_once()
                move.again()
            move.let_go()
            move.finish()
            if 'postcopy-preempt' not in way.caps:
                check_used_again(move)
            return f'{summary(move)}, {on_channels(move)} MiB on channels'
    return case(way, breaking.__name__.replace('_', '-'), run)


def older(one: Connection, data: bytes) -> bytes:
    """What a Ferry sends that does not number attempts to recover."""
    if one.sent:
        return data
    if data.startswith(PING_AGAIN):
        return data[PING_BYTES:]
    if data.startswith(CHANNEL_MAGIC):
        at, end = CHANNEL_ATTEMPT
        return data[:at] + bytes(end - at) + data[end:]
    return data


def older_source(lab: Lab) -> str:
    """The network fails before its channels have come again, and once more."""
    with several(lab, PLAIN, **TRICKLE) as move:
        move.link.change = older
        move.start(POINTS['midway'])
        move.wait_beats(0)
        cut(move)
        for _ in range(2):
            move.wait_paused()
            uri = tcp_uri()
            move.listen_again(uri)
            move.link.cut_after(SOME_BYTES)
            pauses = move.source.states().count(PAUSED)
            move.resume(move.via(uri))
            back_to_pause(move, pauses)
        move.again()
        move.let_go()
        move.finish()
        check_used_again(move)
        return summary(move)


def compressed_again(lab: Lab) -> str:
    """Compressed channels do not come again, and are not waited for."""
    with moving(lab, 'ferry', 'ferry', PLAIN,
                **{**PARAMS, **TRICKLE, 'multifd-compression': 'zlib'}) as move:
        move.start(POINTS['midway'])
        move.wait_beats(0)
        cut(move)
        move.wait_paused()
        uri = tcp_uri()
        move.recover(uri, move.via)
        host, port = uri.removeprefix('tcp:').rsplit(':', 1)
        try:
            socket.create_connection((host, int(port)), STALL).close()
            check(False, 'the destination does not listen any more')
        except ConnectionRefusedError:
            pass
        move.let_go()
        move.finish()
        return summary(move)


def ask_on_held_link(move: Move) -> None:
    """Request postcopy midway, when nothing moves on the network any more."""
    move.begin(tcp_uri(), move.via)
    move.wait_sent(POINTS['midway'])
    move.link.hold()
    time.sleep(0.2)
    move.source.vm.qmp.cmd('migrate-start-postcopy')


def stalled(lab: Lab) -> str:
    """The network stops when postcopy is requested; nobody gives up."""
    with several(lab, PLAIN) as move:
        ask_on_held_link(move)
        time.sleep(STALL)
        move.link.hold(False)
        move.finish()
        return f'{summary(move)}, {on_channels(move)} MiB on channels'


def channel_cut(lab: Lab) -> str:
    """A channel is cut when postcopy is requested: the guest goes on here."""
    with promised(lab, 'ferry', 'ferry', PLAIN, PLENTY, strict=False) as move:
        ask_on_held_link(move)
        time.sleep(0.1)
        check(move.link.cut(1) == 1, 'there was a channel to cut')
        why = stays(lab, move)
        move.reset_caps()
        lab.must_move(lab.target('ferry', args=list(DEVICE)))
        return f'"{why}"'


def cancelled_while_stalled(lab: Lab) -> str:
    """The user need not wait for a channel that does not move."""
    with promised(lab, 'ferry', 'ferry', PLAIN, PLENTY, strict=False) as move:
        ask_on_held_link(move)
        time.sleep(0.2)
        move.source.vm.qmp.cmd('migrate_cancel')
        took = ends(move, 'cancelled')
        check(took < 5, f'it is cancelled in time: {took:.1f} s')
        move.link.hold(False)
        stays(lab, move, 'cancelled')
        return f'{took:.2f} s'


def held_cancelled(move: Promised) -> None:
    """It is cancelled while the destination has the state."""
    move.source.vm.qmp.cmd('migrate-start-postcopy')
    move.wait_held()
    move.source.vm.qmp.cmd('migrate_cancel')


def held_killed(move: Promised) -> None:
    """The destination ends, which had closed the channels."""
    move.source.vm.qmp.cmd('migrate-start-postcopy')
    move.wait_held()
    move.target.vm.kill()


def stays_here(act: Callable[[Promised], None], status: str) -> Case:
    """Pages were discarded at the destination; the guest is here."""
    def run(lab: Lab) -> str:
        with promised(lab, 'ferry', 'ferry', PLAIN, PLENTY, strict=False,
                      held=True) as move:
            move.begin(tcp_uri(), move.via)
            move.wait_sent(POINTS['midway'])
            act(move)
            why = stays(lab, move, status)
            move.reset_caps()
            lab.must_move(lab.target('ferry', args=list(DEVICE)))
            return f'"{why}"'
    return case(PLAIN, act.__name__.replace('_', '-'), run)


def far(way: Way) -> Case:
    """Too far for another round trip: devices are the order to start."""
    def run(lab: Lab) -> str:
        with promised(lab, 'ferry', 'ferry', way, TOO_FAR,
                      strict=False) as move:
            move.begin(tcp_uri(), move.via)
            move.wait_sent(POINTS['midway'])
            move.source.vm.qmp.cmd('migrate-start-postcopy')
            move.wait_gone()
            move.finish()
            return summary(move)
    return case(way, 'far', run)


def strict(way: Way) -> Case:
    """The limit of the downtime is a promise, and is kept."""
    def run(lab: Lab) -> str:
        with promised(lab, 'ferry', 'ferry', way, PLENTY) as move:
            move.ask('midway')
            move.wait_gone()
            move.finish()
            parts = move.check_promise(False, PLENTY)
            return f'{summary(move)}; {parts}'
    return case(way, 'strict', run)


def strict_later(lab: Lab) -> str:
    """Attempts are given up after the channels have ended; then one is not.

    In between precopy goes on, on the main channel.
    """
    with promised(lab, 'ferry', 'ferry', PLAIN, DELAY // 3,
                  SLOW['ferry']) as move:
        move.ask('midway')
        move.wait_aborted(3)
        check(not move.target.when('RESUME'), 'it is still here')
        move.set(downtime_limit=PLENTY)
        move.wait_gone()
        move.finish()
        move.check_aborts(PLENTY)
        return summary(move)


def precopy_after(lab: Lab) -> str:
    """Postcopy is possible and nobody requests it."""
    lab.boot('ferry')
    target = lab.target('ferry')
    set_caps(target, {**MULTIFD, **PREEMPT, 'postcopy-ram': True})
    result = lab.must_move(target, caps={
        **MULTIFD, **PREEMPT, 'postcopy-ram': True}, params=params())
    sent = result.samples[-1]['ram'].get('multifd-bytes', 0)
    check(sent > UNDER_WAY // 2, f'memory took the channels: {sent} bytes')
    return f'{sent >> 20} MiB on channels'


def to_pristine(lab: Lab) -> str:
    """A destination that cannot have both fails before anything is sent."""
    source = lab.boot('ferry')
    target = lab.target('pristine')
    set_caps(target, MULTIFD)
    set_params(target, params())
    uri = lab.uri('tcp')
    target.qmp.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
    set_caps(source, {'postcopy-ram': True})
    said = both(lab, target, uri, 'failed', SOON)
    says(target, ('postcopy',))
    lab.must_go_on()
    return f'"{said}"'


def old_machine(lab: Lab) -> str:
    """An old machine type is refused with the reason; each alone is not."""
    vm = lab.boot_anew('ferry', args=[
        '-global', 'migration.multifd-flush-after-each-section=on'])
    set_caps(vm, {**MULTIFD, 'postcopy-ram': True})
    said = refused(vm, 'migrate', {'uri': lab.uri('tcp')})
    check('machine type' in said, f'it says why: {said}')
    lab.must_go_on()
    lab.clear()
    return f'"{said}"'


def all_cases() -> list[Case]:
    """What nothing disturbs, and then what may go wrong."""
    cases = [plain(PLAIN, point) for point in POINTS]
    cases += [plain(way, 'midway') for way in (URGENT, TLS, URGENT_TLS)]
    cases += [plain(URGENT, 'at-once')]
    cases += [again(way, breaking) for way, breaking in (
        (PLAIN, cut), (URGENT, cut), (PLAIN, pause_source),
        (PLAIN, pause_target), (PLAIN, channel_cut_later),
        (URGENT, channel_cut_later), (PLAIN, pause_silent_source),
        (URGENT, pause_silent_target))]
    cases += [cancelled('ferry', 'ferry', Mode(
        'postcopy-multifd', {'postcopy-ram': True, **MULTIFD},
        slow={**SLOWLY, **PARAMS}, fast={**FAST, **PARAMS}))]
    cases += [stays_here(held_cancelled, 'cancelled'),
              stays_here(held_killed, 'failed')]
    cases += [far(PLAIN), far(URGENT), strict(PLAIN), strict(URGENT)]
    cases += [many(channels) for channels in (1, 2, 4)]
    cases += [target_dies('ferry', 'ferry', way, **PARAMS)
              for way in (PLAIN, URGENT)]
    cases += [replace(backed('ferry', 'ferry', way, backend),
                      full=way is URGENT)
              for way in (PLAIN, URGENT) for backend in HUGE_PAGES]
    cases += [vcpus_on_huge_pages(backend) for backend in HUGE_PAGES]
    return cases + [case(PLAIN, name, run) for name, run in (
        ('compressed-again', compressed_again),
        ('older-source', older_source),
        ('stalled', stalled), ('channel-cut', channel_cut),
        ('cancelled-while-stalled', cancelled_while_stalled),
        ('strict-later', strict_later), ('not-requested', precopy_after),
        ('old-machine', old_machine))] + [
            Case('ferry-pristine-postcopy-multifd', to_pristine, False,
                 ('ferry', 'pristine'), PLAIN.needs)]
