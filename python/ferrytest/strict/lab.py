# One guest that travels from QEMU to QEMU under a strict downtime.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest that travels from QEMU to QEMU under a strict downtime.

To boot a guest takes seconds, a destination a third of one: so there is one
guest, and it goes on from where the last migration left it.
"""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from ferry.errors import FerryError, one_line
from ferry.guest import Guest, ensure, guest_args
from ferry.link import Link
from ferry.migrate import ENDED, Result, migrate, tcp_uri
from ferry.observer import Observer
from ..postcopy import ACTIVE
from ferry.qmp import GONE, QMP, QMPError
from ..tls import TLS, SharedKey
from ferry.vm import VM
from . import plan
from .follow import Following, stopped_ms
from .judge import Abort, Outcome
from .lateness import Lateness
from .machines import PLAIN, Machine

MEMORY, FILL, WORK = 256, 48, 16        # MiB
PAGES = 256                             # in a MB that the guest writes
BANDWIDTH = 1 << 30
SLOWLY = 48 << 20       # until postcopy, if that is to begin midway
ATTEMPTS = 3
TIMEOUT = 12.0          # s; a guest that writes too fast is left where it is
ENDS_WITHIN = 5.0       # s
SETTLE = 0.25           # s, to know how the heartbeats come
HEAR = 0.02             # s between two looks at whether it is over
LOOK = 0.02             # s, to meet a guest whose memory follows
STALL = 0.2             # s that a link or a destination stands, and the limit
TOGGLED = ('xbzrle', 'auto-converge', 'pause-before-switchover',
           'switchover-ack', 'postcopy-ram', 'postcopy-preempt')
REFERENCE = plan.Switchover(-1, 4, 2000, plan.Way('reference'))


def _ms(event: dict[str, Any]) -> float:
    stamp = event['timestamp']
    return stamp['seconds'] * 1e3 + stamp['microseconds'] / 1e3


def to_mono() -> float:
    """What is to be added to the time of an event for ours, ms."""
    return time.monotonic() * 1e3 - time.time() * 1e3


class Events:
    """Hears the events of a source, and says that it may go on."""

    def __init__(self, vm: VM) -> None:
        self._qmp = QMP(vm.view_path)
        self._over = False
        self.heard: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()

    def _hear(self) -> None:
        while not self._over:
            try:
                self._take(self._qmp.next_event(HEAR))
            except QMPError as err:
                if err.cls == GONE:
                    return

    def _take(self, event: dict[str, Any]) -> None:
        self.heard.append(event)
        if event.get('data', {}).get('status') == 'pre-switchover':
            try:
                self._qmp.cmd('migrate-continue', {'state': 'pre-switchover'})
            except QMPError:
                pass        # it was cancelled at that moment

    def pauses(self) -> list[tuple[float, float]]:
        """When the user was waited for: end, and how long, ms."""
        found, since = [], None
        for event in self.heard:
            status = event.get('data', {}).get('status')
            if event['event'] != 'MIGRATION':
                continue
            if status == 'pre-switchover':
                since = _ms(event)
            elif since is not None:
                found.append((_ms(event), _ms(event) - since))
                since = None
        return found

    def stops(self) -> list[tuple[float, float]]:
        """From when to when the guest stood still in the source, ms."""
        found, since = [], None
        for event in self.heard:
            if event['event'] == 'STOP':
                since = _ms(event)
            elif event['event'] == 'RESUME' and since is not None:
                found.append((since, _ms(event)))
                since = None
        return found

    def entered(self, status: str) -> float | None:
        """When the migration was first in STATUS, ms."""
        return next((_ms(event) for event in self.heard
                     if event['event'] == 'MIGRATION'
                     and event['data']['status'] == status), None)

    def stop(self) -> None:
        """Hear no more."""
        time.sleep(0.01)        # what was sent last
        self._over = True
        self._thread.join(2)
        self._qmp.close()


class Act:
    """Does something in the middle of the first attempt, and undoes it."""

    def __init__(self, dst: VM, link: Link | None, what: plan.Switchover
                 ) -> None:
        self._dst, self._link, self._what = dst, link, what
        self._pid = dst.pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _wait(self, line: str) -> bool:
        """Whether the destination has logged LINE before all is over."""
        while not self._over.is_set():
            if line in self._dst.log_path.read_text(errors='replace'):
                return True
            time.sleep(0.0005)
        return False

    def _run(self) -> None:
        act, patience = self._what.fault.act, STALL + self._what.limit / 1e3
        if act == 'kill-late':
            if self._wait('migration_hold_commit '):
                os.kill(self._pid, signal.SIGKILL)
            return
        if not self._wait('migration_hold '):
            return
        if act == 'kill-early':
            os.kill(self._pid, signal.SIGKILL)
        elif act == 'stop':
            os.kill(self._pid, signal.SIGSTOP)
            self._over.wait(patience)
            os.kill(self._pid, signal.SIGCONT)
        elif act == 'stall' and self._link is not None:
            self._link.hold()
            self._over.wait(patience)
            self._link.hold(False)

    def stop(self) -> None:
        """It must have happened by now, or never will."""
        self._over.set()
        self._thread.join(5)


class Lab:
    """The guest, where it is, and where it goes next."""

    def __init__(self, workdir: Path, kind: str = 'ferry') -> None:
        self.workdir, self.kind = workdir, kind
        self.kernel, self.initrd = ensure()
        self.references: list[Outcome] = []
        self._lateness = Lateness()
        self._count = 0
        self._rate: int | None = None
        self._machine: Machine = PLAIN
        self._delays: dict[VM, str] = {}
        self._key = SharedKey(workdir)
        self._source: VM | None = None
        self._guest: Guest | None = None
        self._observer: Observer | None = None

    # QEMUs

    def _vm(self, delay: str, **more: Any) -> VM:
        self._count += 1
        args = self._machine.options(self.kind)
        if self.kind != 'pristine':
            args += ['-trace', 'migration_hold*']
        if delay:
            args += ['-global', f'migration.x-fault-delay={delay}']
        vm = VM(self.kind, f'{Path(self.kind).name}{self._count}',
                self.workdir, MEMORY, kernel=self.kernel, initrd=self.initrd,
                append=' '.join((
                    guest_args(FILL, WORK, 0, modules=self._machine.modules),
                    self._machine.append)), args=args, **more)
        self._delays[vm] = delay
        return vm.start()

    def _boot(self) -> None:
        self.clear()
        self._source = self._vm('')
        self._observer = Observer()
        self._observer.attach(self._source)
        self._guest = Guest(self._source)
        self._guest.wait_ready(60)
        self._machine.wait_plugged(self._source)
        self._rate = None

    def _drop(self, vm: VM | None) -> None:
        if vm is None:
            return
        vm.stop()
        vm.log_path.unlink(missing_ok=True)
        self._key.forget(vm)
        self._delays.pop(vm, None)

    def clear(self) -> None:
        """End everything."""
        if self._guest is not None:
            self._guest.close()
        if self._observer is not None:
            self._observer.stop()
        for vm in list(self._delays):
            self._drop(vm)
        self._source = self._guest = self._observer = None

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.clear()
        self._lateness.stop()

    # Switchovers

    def prepare(self, what: plan.Switchover) -> None:
        """Have the guest run where WHAT can begin.

        On the way there it may be brought to another QEMU, from which the
        observer's floor is learnt.
        """
        delay = what.fault.delay('src', what.limit)
        if (self._source is None or not self._source.alive()
                or self._machine is not what.machine):
            self._machine = what.machine
            self._boot()
        assert self._source is not None
        if self._delays[self._source] != delay:
            self.refer(delay)

    def refer(self, delay: str = '', rate: int = 4) -> Outcome:
        """Bring the guest to a QEMU with that DELAY, and see it start cold.

        It is paused on the way, so that nothing of the migration is in the
        time from 'cont' to its first heartbeat: what is left is what the
        observer sees beyond a ledger.
        """
        if self._source is None:
            self._boot()
        self._set_rate(rate)
        one = Outcome(-1, f'cold-{rate}MBps')
        self._bring_paused(one, self._vm(delay, incoming='defer'))
        if not one.verified:
            self.clear()
            raise FerryError(f'a migration of a paused guest: {one.wrong}')
        self.references.append(one)
        return one

    def _bring_paused(self, is_: Outcome, dst: VM) -> None:
        assert self._source and self._guest and self._observer
        src, start = self._source, time.monotonic_ns()
        src.qmp.cmd('stop')
        caps = {name: False for name in TOGGLED} | {'return-path': True}
        if self.kind != 'pristine':
            caps['strict-downtime'] = False
        result = migrate(src, dst, tcp_uri(), caps=caps,
                         params={'max-bandwidth': BANDWIDTH, 'tls-creds': ''},
                         guest=self._guest, observer=self._observer,
                         interval=0.02, timeout=TIMEOUT, verify=False)
        is_.status = result.status
        if not result.ok:
            is_.wrong = result.error
            return
        offset = to_mono()
        dst.qmp.cmd('cont')
        resumed = _ms(dst.qmp.wait_event('RESUME', 5)) + offset
        self._observer.wait_beats(dst, 20)
        moves = self._observer.handovers(start)
        is_.total_ms = 0.0
        is_.blackout_ms = moves[-1].at_ns / 1e6 - resumed
        self._end(is_, REFERENCE, src, dst)

    def switch_over(self, what: plan.Switchover) -> Outcome:
        """Try it; a lab that is not fit to go on is emptied."""
        start = time.monotonic()
        try:
            self.prepare(what)
            dst = self._vm(what.fault.delay('dst', what.limit),
                           incoming='defer')
            done = self._move(what, dst)
        except FerryError as err:
            done = Outcome(what.number, what.name(), wrong=one_line(str(err)))
        done.seconds = round(time.monotonic() - start, 2)
        if done.wrong or not done.verified or done.lost or done.repeated:
            self.clear()
        return done

    def _set_rate(self, rate: int) -> None:
        assert self._guest is not None
        if rate != self._rate:
            self._guest.set_rate(rate * PAGES)
            self._rate = rate

    def _settings(self, what: plan.Switchover
                  ) -> tuple[dict[str, bool], dict[str, Any]]:
        follow = what.follow.caps if what.follow else ()
        caps = {name: name in what.way.caps + follow for name in TOGGLED}
        caps.update({'return-path': True, 'events': True})
        params: dict[str, Any] = {
            'downtime-limit': what.limit, 'max-bandwidth': BANDWIDTH,
            'tls-creds': TLS if what.way.tls else ''}
        if what.follow and what.follow.midway:
            params['max-bandwidth'] = SLOWLY
        if self.kind != 'pristine':
            caps['strict-downtime'] = True
            params['strict-downtime-attempts'] = ATTEMPTS
        return caps, params

    def _move(self, what: plan.Switchover, dst: VM) -> Outcome:
        assert self._source and self._guest and self._observer
        src, observer = self._source, self._observer
        is_ = Outcome(what.number, what.name())
        self._set_rate(what.rate)
        settled = time.monotonic_ns()
        time.sleep(SETTLE)
        if what.way.tls:
            self._key.give(src, dst)
        caps, params = self._settings(what)
        link = Link() if what.fault.act == 'stall' else None
        events = Events(src)
        act = Act(dst, link, what) if what.fault.act else None
        start = time.monotonic_ns()
        following = Following(what.follow, src, dst, self._guest, observer,
                              start) if what.follow else None
        is_.noise_ms = observer.noise_ms(99, settled, start)
        try:
            result = migrate(src, dst, tcp_uri(), caps=caps, params=params,
                             guest=self._guest, observer=observer,
                             on_sample=following and following.look,
                             interval=LOOK if following else 0.05,
                             timeout=TIMEOUT, verify=False, link=link)
            if act is not None:
                act.stop()
            self._take(is_, src, result)
            if is_.status == 'completed':
                is_.stopped_ms = following and following.stopped_ms \
                    or stopped_ms(self._guest, observer, start)
            is_.late_ms = self._lateness.worst_ms(start)
            events.stop()
            self._take_events(is_, events, start)
            since, until = events.entered(ACTIVE), events.entered('completed')
            if following is not None and since and until:
                following.take(is_, since + to_mono(), until + to_mono())
            self._end(is_, what, src, dst)
            is_.lost, is_.repeated = observer.breaks(start)
        finally:
            if act is not None:
                act.stop()
            if link is not None:
                link.close()
        return is_

    def _take(self, is_: Outcome, src: VM, result: Result) -> None:
        """What the source says, once it is over."""
        deadline = time.monotonic() + ENDS_WITHIN
        info = src.qmp.cmd('query-migrate')
        while info.get('status') not in ENDED:
            if time.monotonic() > deadline:
                raise FerryError(f'does not end: {info.get("status")}')
            time.sleep(0.01)
            info = src.qmp.cmd('query-migrate')
        is_.status, is_.error = info['status'], info.get('error-desc', '')
        is_.qemu_ms = info.get('downtime', 0)
        progress = info.get('progress', {})
        is_.attempts = progress.get('strict', {}).get('attempts', 0)
        is_.predicted_ms = _prediction(progress)
        if is_.status == 'completed':
            is_.blackout_ms = result.blackout_ms
            ledger = progress.get('downtime')
            if ledger:
                is_.total_ms = ledger['total-us'] / 1e3
                is_.parts = _parts(ledger)
            if not result.ok:
                is_.wrong = result.error

    def _take_events(self, is_: Outcome, events: Events, start: int) -> None:
        assert self._observer is not None
        pauses = events.pauses()
        stops = events.stops()
        offset = to_mono()
        gaps = self._observer.gaps(start)
        for event in events.heard:
            if event['event'] != 'MIGRATION_SWITCHOVER_ABORTED':
                continue
            data, at = event['data'], _ms(event)
            stood = [one for one in stops if one[1] <= at]
            seen = 0.0
            if stood:
                since, until = stood[-1]
                user = sum(took for end, took in pauses if since <= end <= at)
                middle = (since + until) / 2 + offset
                seen = max((gap for when, gap in gaps
                            if when / 1e6 - gap <= middle <= when / 1e6),
                           default=0.0)
                seen = max(0.0, seen - user)
            ledger = data['downtime']
            is_.aborts.append(Abort(data['attempt'], data['reason'],
                                    ledger['total-us'] / 1e3, _parts(ledger),
                                    seen))
        if is_.blackout_ms is not None and pauses:
            is_.blackout_ms -= pauses[-1][1]
        if is_.stopped_ms is not None and pauses:
            is_.stopped_ms -= pauses[-1][1]

    def _end(self, is_: Outcome, what: plan.Switchover, src: VM, dst: VM
             ) -> None:
        """Who runs now; the other one ends."""
        assert self._guest is not None
        for side, vm in (('src', src), ('dst', dst)):
            try:
                if vm.alive() and vm.qmp.cmd('query-status')['running']:
                    is_.runs.append(side)
            except QMPError:
                pass        # it is about to end
        if is_.status == 'completed':
            is_.wrong = is_.wrong or self._machine.compare(src, dst)
            self._source = dst
            self._drop(src)
        else:
            self._guest.forget(dst)
            self._drop(dst)
            if what.fault.ends == plan.LOST and not is_.runs:
                src.qmp.cmd('cont')
        verdict = self._guest.verify()
        is_.verified = verdict.ok
        if not verdict.ok:
            is_.wrong = f'memory is wrong: {verdict.detail}'


def _parts(ledger: dict[str, Any]) -> dict[str, float]:
    return {part['name']: part['us'] / 1e3 for part in ledger['parts']}


def _prediction(progress: dict[str, Any]) -> float | None:
    """What the last decision thought that the downtime would be, ms."""
    found = progress.get('predicted-downtime', {})
    return found['likely-us'] / 1e3 if found else None


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """The quartiles; all of them 0 without VALUES."""
    if len(values) < 2:
        return (values[0],) * 3 if values else (0.0, 0.0, 0.0)
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return low, middle, high

