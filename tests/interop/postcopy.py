# The guest is switched over first, and its memory follows.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest is switched over first, and its memory follows.

Every way to lose the network on the way ends in a pause on both sides, from
which the migration goes on; the guest never runs twice, and nothing of it is
lost.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Callable, Iterator

from ferry.errors import FerryError
from ferry.link import Link
from ferry.migrate import tcp_uri
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.postcopy import ACTIVE, PAUSED, Postcopy
from ferrytest.suite import Case
from ferrytest.tls import TLS

from common import ENDS_WITHIN, ROUND, SLOW, UNDER_WAY, halfway
from failures import Mode, cancelled
from lab import Lab, check
from progress import check_progress

SPEED = {'max-bandwidth': 40 << 20, 'downtime-limit': 1,
         'max-postcopy-bandwidth': 0}
TRICKLE = {'max-postcopy-bandwidth': 16 << 20}   # leaves time to interfere
FULL_SPEED = {'max-postcopy-bandwidth': 0}

# A guest under TCG whose kernel waits for a page may do so with the lock in its
# hands that the main loop needs as well, and for as long as the network is cut.
# Nothing but urgent commands can be given then.  After so many heartbeats what
# it needs all the time is there.
SETTLED = 100
SOON = 10
STALL = 1.0             # s


@dataclass(frozen=True)
class Way:
    """How to migrate."""
    name: str
    caps: dict[str, bool] = field(default_factory=dict)
    tls: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """See ferrytest.abilities."""
        return ('postcopy-ram', *self.caps)


PLAIN = Way('plain')
PREEMPT = Way('preempt', {'postcopy-preempt': True})
BLOCKTIME = Way('blocktime', {'postcopy-blocktime': True})
PLAIN_TLS = Way('tls', tls=True)
PREEMPT_TLS = Way('preempt-tls', {'postcopy-preempt': True}, True)

# When to switch, by 'ram' of query-migrate
POINTS: dict[str, Callable[[dict], bool]] = {
    'at-once': lambda ram: True,
    'midway': lambda ram: ram['transferred'] > UNDER_WAY,
    'nearly-done': lambda ram: ram['dirty-sync-count'] >= 3
    and 0 < ram['remaining'] < ram['total'] // 8,
}


class Move(Postcopy):
    """A migration of the lab's guest through a link of our own."""

    def __init__(self, lab: Lab, target: VM, way: Way, link: Link,
                 **params: int) -> None:
        assert lab.source is not None
        if way.tls:
            lab.secure(target)
        super().__init__(lab.source, target, caps=way.caps, guest=lab.guest,
                         observer=lab.observer, params={
                             **SPEED, **params,
                             'tls-creds': TLS if way.tls else ''})
        self.link = link
        self.earlier = 0        # connections that are not of this attempt

    def via(self, uri: str) -> str:
        """Connect through the link to who listens at URI."""
        self.link.aim(uri)
        self.earlier = len(self.link.connections)
        return self.link.uri

    def connection(self, number: int) -> Connection:
        """The main connection, which has number 0, or the other one.

        Whoever connects goes on as soon as the kernel has the connection; the
        link may take it later, on a busy machine after the guest has moved.
        """
        at = self.earlier + number
        self.until(lambda: len(self.link.connections) > at,
                   f'connection {number} does not come')
        one = self.link.connections[at]
        check(one.alive, f'connection {number} is up')
        return one

    def start(self, when: Callable[[dict], bool]) -> None:
        """Begin, and switch as soon as it is time."""
        self.begin(tcp_uri(), self.via)
        self.wait_sent(when)
        self.switch()

    def again(self) -> None:
        """Recover from a pause that is about to come."""
        self.recover(tcp_uri(), self.via)

    def let_go(self) -> None:
        """Let the rest come as fast as it can."""
        self.source.vm.qmp.cmd('migrate-set-parameters', FULL_SPEED)


@contextmanager
def moving(lab: Lab, source: str, target: str, way: Way, **params: int
           ) -> Iterator[Move]:
    """A migration about to begin; if all goes well the guest has moved."""
    lab.boot(source)
    with Link() as link, \
         Move(lab, lab.target(target), way, link, **params) as move:
        yield move
        check(ACTIVE in move.source.states(), 'the source told of postcopy: '
              f'{move.source.states()}')
        check(ACTIVE in move.target.states(), 'the destination told of it: '
              f'{move.target.states()}')
        lab.moved(move.target.vm)


def summary(move: Move) -> str:
    """The figures of one migration."""
    ram = move.info['ram']
    return (f'{move.info["total-time"]} ms, {ram["postcopy-requests"]} '
            f'requests, downtime {move.info["downtime"]} ms, blackout '
            f'{move.check_heartbeats():.0f} ms')


def check_told(move: Move) -> None:
    """The human monitors tell of requests and waits as those of QMP do."""
    for side, member in ((move.source, 'served'), (move.target, 'faults')):
        if side.vm.kind == 'ferry':
            check(member in check_progress(side.vm),
                  f'{side.vm.name} tells of {member}')


def plain(source: str, target: str, way: Way, point: str) -> Case:
    """Nothing goes wrong."""
    def run(lab: Lab) -> str:
        with moving(lab, source, target, way) as move:
            move.start(POINTS[point])
            move.finish()
            if point != 'nearly-done':
                check(move.info['ram']['postcopy-requests'] > 0,
                      'the destination asked for pages')
                check_told(move)
            return summary(move)
    return Case(f'{source}-{target}-postcopy-{way.name}-{point}', run, False,
                (source, target), way.needs)


# Interruptions: what is done to a migration

def cut(move: Move) -> None:
    """Both sides get a reset."""
    move.link.cut()


def close(move: Move) -> None:
    """Both sides see an orderly end."""
    move.link.cut(reset=False)


def cut_first(move: Move) -> None:
    """Only the main connection goes."""
    move.connection(1)
    move.connection(0).cut(True)


def cut_second(move: Move) -> None:
    """Only the one for urgent pages goes."""
    move.connection(1).cut(True)


def pause_source(move: Move) -> None:
    """The user asks the source for a pause."""
    move.source.vm.qmp.cmd('migrate-pause')


def pause_target(move: Move) -> None:
    """The user asks the destination for one."""
    move.target.monitor.urgent('migrate-pause')


def pause_silent(move: Move) -> None:
    """The network swallows everything, and the user asks both for a pause."""
    move.link.hold()
    time.sleep(0.1)
    pause_source(move)
    try:
        pause_target(move)
    except QMPError:
        # The source's orderly end may have got through before.
        check(move.target.status == PAUSED, 'a pause may be refused to who '
              f'has paused: {move.target.status}')
    move.wait_paused()
    move.link.cut()


def broken(source: str, target: str, way: Way,
           breaking: Callable[[Move], None]) -> Case:
    """It is interrupted twice, and goes on each time."""
    def run(lab: Lab) -> str:
        with moving(lab, source, target, way, **TRICKLE) as move:
            move.start(POINTS['midway'])
            for beats in (0, SOON):
                move.wait_beats(beats)
                check(move.source.status == ACTIVE, 'something is left to do')
                breaking(move)
                move.wait_paused()
                move.check_once()
                move.again()
            move.let_go()
            move.finish()
            return summary(move)
    name = breaking.__name__.replace('_', '-')
    return Case(f'{source}-{target}-postcopy-{way.name}-{name}', run, False,
                (source, target), way.needs)


def paused_at_once(source: str, target: str, way: Way) -> Case:
    """A pause is requested while the destination still loads the devices."""
    def run(lab: Lab) -> str:
        with moving(lab, source, target, way, **TRICKLE) as move:
            src = move.source.vm
            move.begin(tcp_uri(), move.via)
            move.wait_sent(POINTS['midway'])
            src.qmp.cmd('migrate-start-postcopy')
            while src.qmp.cmd('query-migrate')['status'] != ACTIVE:
                pass                    # every millisecond matters
            pause_source(move)
            move.wait_paused()
            move.check_once()
            move.again()
            move.let_go()
            move.finish()
            return summary(move)
    return Case(f'{source}-{target}-postcopy-{way.name}-paused-at-once', run,
                False, (source, target), way.needs)


def stalled(source: str, target: str, way: Way) -> Case:
    """The network stands still for a while: no reason for a pause."""
    def run(lab: Lab) -> str:
        with moving(lab, source, target, way, **TRICKLE) as move:
            move.start(POINTS['midway'])
            move.link.hold()
            time.sleep(STALL)
            move.link.hold(False)
            move.let_go()
            move.finish()
            check(PAUSED not in move.source.states()
                  + move.target.states(), 'it waited without a pause')
            return summary(move)
    return Case(f'{source}-{target}-postcopy-{way.name}-stall', run, False,
                (source, target), way.needs)


# Mistakes of the user

def refused(side: VM, command: str, args: dict | None = None) -> str:
    """COMMAND must be refused; return how."""
    try:
        side.qmp.cmd(command, args)
    except QMPError as err:
        check('\n' not in err.desc.strip() and len(err.desc) > 10,
              f'the error is one clear line: {err.desc!r}')
        return err.desc
    raise FerryError(f'{side.name} took {command} {args or ""}')


def back_to_pause(move: Move, tries: int) -> None:
    """An attempt to resume has failed: the source is paused once more."""
    end = time.monotonic() + 10
    while (move.source.states().count(PAUSED) <= tries
           or move.source.status != PAUSED):
        check(time.monotonic() < end, 'the source is paused again: '
              f'{move.source.states()}')
        time.sleep(0.01)


def recover_wrongly(source: str, target: str, way: Way) -> Case:
    """Recovered on the wrong side, to nowhere, twice: and then as it should.
    """
    def run(lab: Lab) -> str:
        with moving(lab, source, target, way, **TRICKLE) as move:
            src, dst = move.source.vm, move.target.vm
            uri = tcp_uri()
            refused(src, 'migrate-recover', {'uri': uri})
            refused(dst, 'migrate-recover', {'uri': uri})
            move.start(POINTS['midway'])
            move.wait_beats(SETTLED)
            said = [refused(dst, 'migrate-recover', {'uri': uri}),
                    refused(src, 'migrate-recover', {'uri': uri}),
                    refused(src, 'migrate', {'uri': uri, 'resume': True})]
            cut(move)
            move.wait_paused()
            said += [refused(src, 'migrate-recover', {'uri': uri}),
                     refused(src, 'migrate', {'uri': uri}),
                     refused(dst, 'migrate', {'uri': uri, 'resume': True}),
                     refused(dst, 'migrate-recover', {'uri': 'nonsense:1'}),
                     refused(src, 'migrate', {'uri': 'nonsense:1',
                                              'resume': True})]
            move.resume(uri)            # nobody listens there
            back_to_pause(move, 1)
            check(move.source.why() != '', 'the source says why')
            move.listen_again(uri)
            other = tcp_uri()
            try:                        # twice: either answer is fine
                move.target.monitor.urgent('migrate-recover', {'uri': other})
                uri = other
            except QMPError:
                pass
            move.resume(move.via(uri))
            move.wait_resumed()
            check(not src.qmp.cmd('query-status')['running'],
                  'the source does not run')
            move.let_go()
            move.finish()
            return '; '.join(f'"{words}"' for words in dict.fromkeys(said))
    return Case(f'{source}-{target}-postcopy-{way.name}-recover-wrongly', run,
                False, (source, target), way.needs)


def cut_again(source: str, target: str, way: Way) -> Case:
    """The network fails in the middle of each recovery, at another byte."""
    def run(lab: Lab) -> str:
        with moving(lab, source, target, way, **TRICKLE) as move:
            move.start(POINTS['midway'])
            move.wait_beats(SOON)
            cut(move)
            tried = 0
            for way_, count in (('sent', 1), ('sent', 9), ('answered', 1),
                                ('sent', 30), ('answered', 40),
                                ('answered', 3000)):
                move.wait_paused()
                uri = tcp_uri()
                move.listen_again(uri)
                move.link.cut_after(count, way_)
                pauses = move.source.states().count(PAUSED)
                move.resume(move.via(uri))
                back_to_pause(move, pauses)
                tried += 1
            move.again()
            move.let_go()
            move.finish()
            return f'cut {tried} times while it recovered; {summary(move)}'
    return Case(f'{source}-{target}-postcopy-{way.name}-cut-again', run,
                False, (source, target), way.needs)


def cancel_refused(source: str, target: str, way: Way) -> Case:
    """Too late to cancel: the guest must not run on the source again."""
    def run(lab: Lab) -> str:
        with moving(lab, source, target, way, **TRICKLE) as move:
            src = move.source.vm
            move.start(POINTS['midway'])
            said = 'accepted and ignored'
            for stage in ('active', 'paused'):
                try:
                    src.qmp.cmd('migrate_cancel')
                except QMPError as err:
                    said = f'"{err.desc}"'
                time.sleep(0.1)
                check(not src.qmp.cmd('query-status')['running'],
                      f'cancelled while {stage}, the source does not run')
                if stage == 'active':
                    if move.source.status == ACTIVE:
                        cut(move)
                    move.wait_paused()
            move.again()
            move.let_go()
            move.finish()
            return said
    return Case(f'{source}-{target}-postcopy-{way.name}-cancel-late', run,
                False, (source, target), way.needs)


def asked_late(source: str, target: str) -> Case:
    """Asked for when the migration has ended, which nobody can foresee.

    That is no error, and the next migration does not know of it.
    """
    late = {'postcopy-ram': True}

    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        on_sample, done = halfway(lambda: vm.qmp.cmd('migrate_cancel'))
        result = lab.move(lab.target(target), caps=late, params=SLOW,
                          on_sample=on_sample)
        check(bool(done) and result.status == 'cancelled',
              f'it is cancelled midway: {result.status} {result.error}')
        vm.qmp.cmd('migrate-start-postcopy')
        lab.must_go_on()
        phases = []

        def ask_at_the_end(sample: dict) -> None:
            phases.append(sample['phase'])
            if sample['phase'] == 'completed':
                vm.qmp.cmd('migrate-start-postcopy')
        lab.must_move(lab.target(target), caps=late, on_sample=ask_at_the_end)
        check(ACTIVE not in phases, f'it was not switched: {phases}')
        return ' '.join(dict.fromkeys(phases))
    return Case(f'{source}-{target}-postcopy-asked-late', run, False,
                (source, target), PLAIN.needs)


def target_dies(source: str, target: str, way: Way, **params: int) -> Case:
    """The guest died with its new host: its old one must not revive it."""
    def run(lab: Lab) -> str:
        try:
            with moving(lab, source, target, way, **TRICKLE, **params) as move:
                move.start(POINTS['midway'])
                move.wait_beats(SOON)
                src = move.source.vm
                move.target.vm.kill()
                end = time.monotonic() + 10
                while move.source.status != PAUSED:
                    check(time.monotonic() < end, 'the source pauses')
                    time.sleep(0.01)
                state = src.qmp.cmd('query-status')
                check(not state['running'], f'the source stands: {state}')
                return move.source.why()
        finally:
            lab.clear()
    return Case(f'{source}-{target}-postcopy-{way.name}-target-dies', run,
                False, (source, target), way.needs)


def ends(source: str, target: str, way: Way, how: str, beats: int) -> Case:
    """A destination that has paused is told to end, and does.

    With few beats its main loop has probably to wait for the guest, which
    waits for memory.
    """
    def run(lab: Lab) -> str:
        try:
            with moving(lab, source, target, way, **TRICKLE) as move:
                move.start(POINTS['midway'])
                move.wait_beats(beats)
                cut(move)
                move.wait_paused()
                vm = move.target.vm
                began = time.monotonic()
                if how == 'quit':
                    move.target.monitor.urgent('quit')
                else:
                    os.kill(vm.pid, signal.SIGTERM)
                while vm.alive():
                    check(time.monotonic() < began + ENDS_WITHIN,
                          'it ends when it is told to')
                    time.sleep(0.01)
                took = time.monotonic() - began
                state = move.source.vm.qmp.cmd('query-status')
                check(not state['running'], f'the source stands: {state}')
                forced = 'as if it was killed' in vm.log_tail(3)
                return (f'{took:.1f} s, '
                        f'{"by force" if forced else "in an orderly way"}')
        finally:
            lab.clear()
    return Case(f'{source}-{target}-postcopy-{way.name}-{how}-after-{beats}',
                run, False, (source, target), way.needs)


def vcpu_beyond_smp(name: str) -> Case:
    """A vCPU whose number is beyond those of -smp is measured as well."""
    given = ['-smp', '1,maxcpus=3,sockets=3,cores=1,threads=1', '-device',
             'qemu64-x86_64-cpu,socket-id=2,core-id=0,thread-id=0']

    def run(lab: Lab) -> str:
        try:
            lab.boot_anew('ferry', args=given)
            with Link() as link, \
                 Move(lab, lab.target('ferry', args=given), BLOCKTIME, link
                      ) as move:
                move.start(POINTS['at-once'])
                move.finish()
                lab.moved(move.target.vm)
                waits = move.target.vm.qmp.cmd('query-migrate')[
                    'postcopy-vcpu-blocktime']
                check(len(waits) == 3 and not waits[1],
                      f'vCPUs 0 and 2 are told of: {waits}')
                check(max(waits) > 0, f'some of them waited: {waits}')
                return f'{waits} ms'
        finally:
            lab.clear()
    return Case(name, run, needs=BLOCKTIME.needs)


def all_cases() -> list[Case]:
    """Pristine pairs are among those of the longer run: they test the test."""
    mixed = [pair for pair in ROUND if 'ferry' in pair]
    both = (PLAIN, PREEMPT)
    cases = [plain(*pair, way, point) for way in both
             for point in POINTS for pair in ROUND]
    cases += [plain(*pair, way, 'midway') for way in (PLAIN_TLS, PREEMPT_TLS)
              for pair in mixed]
    cases += [cancelled(*pair, Mode(f'postcopy-{way.name}',
                                    {'postcopy-ram': True, **way.caps}))
              for way in both for pair in mixed]
    cases += [broken(*pair, way, cut) for way in both for pair in ROUND]
    cases += [broken(*pair, way, breaking) for way, ways in (
        (PLAIN, (close, pause_source, pause_target, pause_silent)),
        (PREEMPT, (cut_first, cut_second, pause_silent)),
        (PLAIN_TLS, (cut,)), (PREEMPT_TLS, (cut,)))
              for breaking in ways for pair in mixed]
    cases += [made(*pair, way) for made in (
        stalled, cut_again, recover_wrongly) for way in both
              for pair in mixed]
    cases += [cancel_refused('ferry', 'ferry', PLAIN),
              cancel_refused('ferry', 'pristine', PLAIN)]
    # Most of what the longer run adds concerns one side alone.
    return [replace(case, full='ferry' not in case.kinds or
                    'pristine' in case.kinds
                    and not case.name.endswith(ALL_PAIRS))
            for case in cases] + [
                vcpu_beyond_smp('ferry-ferry-postcopy-vcpu-beyond-smp')] + [
                asked_late('ferry', 'ferry')] + [
                paused_at_once('ferry', target, way) for way in both
                for target in ('ferry', 'pristine')] + [
                target_dies(*pair, PLAIN) for pair in mixed] + [
                ends('ferry', 'ferry', way, how, beats)
                for way, how, beats in (
                    (PLAIN, 'quit', 0), (PLAIN, 'quit', SETTLED),
                    (PREEMPT, 'term', 0), (PLAIN, 'term', SETTLED))]


# What is tried with every pair in the shorter run, too
ALL_PAIRS = ('plain-midway', 'preempt-midway', 'plain-cut', 'preempt-cut')
