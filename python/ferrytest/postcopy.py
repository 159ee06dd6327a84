# A migration that switches to postcopy, from its start to the verified guest.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration that switches to postcopy, from its start to the verified guest.

Unlike migrate() this is in steps, between which a test does what it likes:

    move = Postcopy(src, dst, guest=guest, observer=observer)
    move.begin(uri)
    move.switch()
    move.recover(uri)           # as often as the network fails
    move.finish()

All that is known of a QEMU meanwhile comes from its events, by a monitor that
does not need its main loop: the destination's may have to wait for a page.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Callable

from .abilities import OURS
from ferry.errors import FerryError
from ferry.guest import Guest
from ferry.migrate import listen, set_caps, set_params
from ferry.observer import Observer
from ferry.qmp import GONE, LATE, QMP, QMPError
from ferry.vm import VM

CAPS = {'postcopy-ram': True}
PREEMPT = {'postcopy-ram': True, 'postcopy-preempt': True}
ACTIVE, PAUSED = 'postcopy-active', 'postcopy-paused'
ENDED = ('completed', 'failed', 'cancelled')
PATIENCE = 20.0         # s for whatever has to happen
POLL = 0.002            # s
AGAIN = 0.05            # s until a step of a recovery is tried again


@dataclasses.dataclass(frozen=True)
class Event:
    """What a QEMU said, and when (s since 1970 by the host's clock)."""

    at: float
    name: str
    data: dict


class Side:
    """One of the two QEMUs, as its events tell."""

    def __init__(self, vm: VM) -> None:
        self.vm = vm
        self.events: list[Event] = []
        self.monitor = QMP(vm.view_path, oob=True)
        set_caps(vm, {'events': True})

    def look(self) -> None:
        """Take the events that have come."""
        for event in self.monitor.events():
            stamp = event['timestamp']
            self.events.append(Event(
                stamp['seconds'] + stamp['microseconds'] / 1e6,
                event['event'], event.get('data', {})))

    @property
    def status(self) -> str:
        """The state of the migration, 'none' before there is one."""
        self.look()
        return next((event.data['status'] for event in reversed(self.events)
                     if event.name == 'MIGRATION'), 'none')

    def states(self) -> list[str]:
        """All states, in their order."""
        self.look()
        return [event.data['status'] for event in self.events
                if event.name == 'MIGRATION']

    def when(self, name: str) -> list[float]:
        """When the event NAME came."""
        self.look()
        return [event.at for event in self.events if event.name == name]

    def entered(self, state: str) -> float:
        """When the migration first was in STATE."""
        self.look()
        for event in self.events:
            if event.name == 'MIGRATION' and event.data['status'] == state:
                return event.at
        raise FerryError(f'{self.vm.name} never was {state}')

    def why(self) -> str:
        """The reason that query-migrate gives, if it answers and has one."""
        try:
            return self.vm.qmp.cmd('query-migrate', timeout=1).get(
                'error-desc', '')
        except QMPError as err:
            return str(err)

    def close(self) -> None:
        """Let go of the monitor."""
        self.monitor.close()


class Postcopy:
    """One migration of the guest in SRC to DST."""

    def __init__(self, src: VM, dst: VM, *, caps: dict[str, bool] | None = None,
                 params: dict[str, Any] | None = None,
                 guest: Guest | None = None,
                 observer: Observer | None = None) -> None:
        self.caps = {**CAPS, **(caps or {})}
        self.params = dict(params or {})
        self.guest = guest
        self.observer = observer
        self.source = Side(src)
        self.target = Side(dst)
        self.start_ns = 0
        self.switched = 0.0         # when it was asked for
        self.cuts = 0
        self.info: dict = {}        # the source's last word

    # Its course

    def begin(self, uri: str, via: Callable[[str], str] | None = None) -> None:
        """Start it: DST listens at URI, SRC connects to what VIA makes of it.
        """
        src, dst = self.source.vm, self.target.vm
        for vm in (dst, src):
            lacks = OURS if vm.kind == 'pristine' else frozenset()
            set_caps(vm, {name: state for name, state in self.caps.items()
                          if name not in lacks})
            set_params(vm, {name: value for name, value in self.params.items()
                            if name not in lacks})
        address = listen(dst, uri)
        if self.observer is not None:
            self.observer.attach(dst)
        if self.guest is not None:
            self.guest.expect(dst)
        self.start_ns = time.monotonic_ns()
        src.qmp.cmd('migrate', {'uri': via(address) if via else address})

    def figures(self) -> dict:
        """What query-migrate says on the source."""
        self.info = self.source.vm.qmp.cmd('query-migrate')
        return self.info

    def wait_sent(self, enough: Callable[[dict], bool],
                  timeout: float = PATIENCE) -> None:
        """Wait until ENOUGH of 'ram' in the source's query-migrate."""
        self.until(lambda: 'ram' in self.figures()
                   and enough(self.info['ram']),
                   'the migration does not get far enough', timeout)

    def switch(self) -> None:
        """Switch to postcopy, and wait until the guest has moved."""
        self.switched = time.time()
        self.source.vm.qmp.cmd('migrate-start-postcopy')
        self.wait_switched()

    def wait_switched(self) -> None:
        """Wait until the guest has moved."""
        self.until(lambda: self.source.status in (ACTIVE, 'completed')
                   and bool(self.target.when('RESUME')),
                   'the guest does not start in its new place')

    def wait_paused(self, timeout: float = PATIENCE) -> None:
        """Wait until both sides have noticed that the network is gone."""
        self.until(lambda: self.source.status == PAUSED
                   and self.target.status == PAUSED,
                   'postcopy does not pause', timeout, PAUSED)
        self.cuts += 1

    def listen_again(self, uri: str) -> str:
        """Have the destination wait at URI; return what to connect to."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.target.monitor.urgent('migrate-recover', {'uri': uri})
                return uri
            except QMPError as err:
                # A port that is being freed, or a state about to change.
                if err.cls in (GONE, LATE) or time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN)

    def resume(self, uri: str) -> None:
        """Have the source connect to URI and go on."""
        self.source.vm.qmp.cmd('migrate', {'uri': uri, 'resume': True})

    def wait_resumed(self, timeout: float = PATIENCE) -> None:
        """Wait until both sides go on, or are done already."""
        self.until(lambda: all(side.status in (ACTIVE, 'completed')
                               for side in (self.source, self.target)),
                   'postcopy does not go on', timeout)

    def recover(self, uri: str, via: Callable[[str], str] | None = None
                ) -> None:
        """All of it: wait for the pause, listen at URI, connect, go on."""
        self.wait_paused()
        self.listen_again(uri)
        self.resume(via(uri) if via else uri)
        self.wait_resumed()

    def finish(self, timeout: float = 60, verify: bool = True) -> dict:
        """Wait for the end, and check all that is to be checked then."""
        self.until(lambda: self.source.status == 'completed'
                   and self.target.status == 'completed',
                   'postcopy does not end', timeout)
        self.figures()
        self.check_sides()
        if self.guest is not None:
            self.guest.move_to(self.target.vm)
        if self.observer is not None:
            self.observer.wait_beats(self.target.vm, 20)
            self.check_heartbeats()
        if self.guest is not None and verify:
            verdict = self.guest.verify()
            if not verdict.ok:
                raise FerryError('memory is wrong after the migration: '
                                 f'{verdict.detail}')
        return self.info

    def close(self) -> None:
        """Let go of the monitors; the QEMUs are their owner's."""
        self.source.close()
        self.target.close()

    def __enter__(self) -> Postcopy:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # Checks

    def check_sides(self) -> None:
        """The end as both sides have to report it; it never ran twice."""
        for side, state in ((self.source, 'postmigrate'),
                            (self.target, 'running')):
            vm = side.vm
            status = vm.qmp.cmd('query-status')['status']
            said = vm.qmp.cmd('query-migrate').get('status')
            if (status, said) != (state, 'completed'):
                raise FerryError(f'in the end {vm.name} is "{status}", its '
                                 f'migration "{said}"')
        self.check_once()

    def check_once(self) -> None:
        """The guest never ran on both sides, nor on the source again.

        An attempt to switch over that was given up may have stopped it before.
        """
        started = self.target.when('RESUME')
        stopped = self.source.when('STOP')
        again = self.source.when('RESUME')
        if started and (not stopped or stopped[-1] > started[0]):
            raise FerryError('the guest ran on both sides: the source stopped '
                             f'at {stopped}, the destination started at '
                             f'{started}')
        left = started if self.caps.get('strict-downtime') else stopped
        if started and [at for at in again if at > left[0]]:
            raise FerryError('the guest ran on the source again: stopped at '
                             f'{stopped}, started again at {again}')

    def check_heartbeats(self) -> float:
        """One hand-over and nothing lost; the blackout in ms."""
        assert self.observer is not None
        moves = self.observer.handovers(self.start_ns)
        if len(moves) != 1:
            raise FerryError('heartbeats changed sides '
                             f'{len(moves)} times: the guest ran twice')
        lost, repeated = self.observer.breaks(self.start_ns)
        if lost or repeated:
            raise FerryError(f'{lost} heartbeats were lost and {repeated} '
                             'came again')
        return moves[0].gap_ms

    def wait_beats(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait for so many heartbeats from the destination."""
        assert self.observer is not None
        self.observer.wait_beats(self.target.vm, count, timeout)

    def until(self, condition: Callable[[], bool], what: str,
              timeout: float = PATIENCE, fine: str = '') -> None:
        """Wait for CONDITION; a failure on the way is raised with reasons."""
        deadline = time.monotonic() + timeout
        while not condition():
            for side in (self.source, self.target):
                side.vm.check_alive()
                # The condition may have come true just before the end did.
                if (side.status in ('failed', 'cancelled')
                        and not condition()):
                    raise FerryError(f'the migration has {side.status} on '
                                     f'{side.vm.name}: {side.why()}')
            if time.monotonic() > deadline:
                raise FerryError(f'{what} within {timeout:.0f} s: '
                                 + self.where())
            time.sleep(POLL)

    def where(self) -> str:
        """The states and reasons of both sides."""
        return '; '.join(f'{side.vm.name} is {side.status} '
                         f'({side.why() or "no reason"})'
                         for side in (self.source, self.target))
