# One live migration, from setting it up to the verified guest.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""One live migration, from setting it up to the verified guest."""

from __future__ import annotations

import dataclasses
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any, Callable

from .errors import FerryError
from .guest import Guest
from .link import Link
from .observer import Observer
from .qmp import GONE, QMPError
from .vm import VM

ENDED = ('completed', 'failed', 'cancelled')
START_TIMEOUT = 20.0        # s from "completed" to the guest running
_numbers = itertools.count(1)


def tcp_uri() -> str:
    """A URI on the loopback interface with a port that was free just now.

    migrate() also takes 'tcp:127.0.0.1:0' and lets the destination choose.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(('127.0.0.1', 0))
        return f'tcp:127.0.0.1:{sock.getsockname()[1]}'


def unix_uri(workdir: Path) -> str:
    """A URI of a socket in WORKDIR that nobody uses yet."""
    return f'unix:{workdir}/migration-{os.getpid()}-{next(_numbers)}'


@dataclasses.dataclass
class Result:
    """What happened.  Times are in ms; 0 or None where not known."""

    ok: bool = False
    error: str = ''             # one line, if not ok
    status: str = 'none'        # the source's last word on the migration
    total_ms: float = 0         # as the source reports them ...
    downtime_ms: float = 0
    setup_ms: float = 0
    bytes: int = 0
    iterations: int = 0
    blackout_ms: float | None = None    # as the guest's heartbeats show
    noise_ms: float = 0         # p99 of the heartbeats' gaps before the start
    stall_ms: float = 0         # longest gap while the guest ran on the source
    lost: int = 0               # heartbeats lost or repeated from the start on
    repeated: int = 0
    cpu_src: float = 0          # s used during the migration
    cpu_dst: float = 0
    rss_src: float = 0          # peak since the start of the process, MiB
    rss_dst: float = 0
    wall_ms: float = 0          # "migrate" until the destination runs
    verified: bool | None = None
    detail: str = ''            # what the verification said
    samples: list[dict] = dataclasses.field(default_factory=list)
    caps: dict[str, bool] = dataclasses.field(default_factory=dict)
    params: dict[str, Any] = dataclasses.field(default_factory=dict)


def set_caps(vm: VM, caps: dict[str, bool]) -> None:
    """Set the migration capabilities CAPS on one side."""
    if caps:
        vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
            {'capability': name, 'state': bool(state)}
            for name, state in caps.items()]})


def set_params(vm: VM, params: dict[str, Any]) -> None:
    """Set the migration parameters PARAMS on one side."""
    if params:
        vm.qmp.cmd('migrate-set-parameters', dict(params))


def listen(vm: VM, uri: str) -> str:
    """Have VM wait for a migration at URI; return the URI to connect to."""
    if vm.incoming == 'defer':
        vm.qmp.cmd('migrate-incoming', {'uri': uri})
    if not uri.startswith('tcp:') or not uri.endswith(':0'):
        return uri
    for address in vm.qmp.cmd('query-migrate').get('socket-address', ()):
        if address.get('type') == 'inet':
            return f'tcp:{address["host"]}:{address["port"]}'
    raise FerryError(f'{vm.name} does not say which port it chose')


def sample(vm: VM, started: float) -> dict:
    """The state of the migration as VM, its source, sees it."""
    info = vm.qmp.cmd('query-migrate')
    run_state = vm.qmp.cmd('query-status')['status']
    now = time.monotonic()
    ram = info.get('ram', {})
    return {'t': now, 'elapsed': now - started,
            'phase': info.get('status', 'none'), 'status': run_state,
            'migrate': info, 'ram': ram,
            'transferred': ram.get('transferred', 0),
            'total': ram.get('total', 0),
            'remaining': ram.get('remaining', 0),
            'mbps': ram.get('mbps', 0.0),
            'dirty_pages_rate': ram.get('dirty-pages-rate', 0),
            'iteration': ram.get('dirty-sync-count', 0),
            'expected_downtime': info.get('expected-downtime')}


def _watch(src: VM, result: Result, on_sample: Callable[[dict], None] | None,
           interval: float, started: float, deadline: float) -> None:
    """Sample until the source says that it is over."""
    while True:
        one = sample(src, started)
        if not result.samples:
            one['caps'], one['params'] = result.caps, result.params
        result.samples.append(one)
        result.status = one['phase']
        if on_sample is not None:
            on_sample(one)
        if one['phase'] in ENDED:
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise FerryError(f'the migration was not over in time, its state '
                             f'is "{one["phase"]}"')
        time.sleep(min(interval, left))


def _destination_runs(dst: VM) -> None:
    """Wait until the destination has left its incoming state."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        state = dst.qmp.cmd('query-status')['status']
        if state not in ('inmigrate', 'finish-migrate', 'restore-vm'):
            if state == 'running' or dst.paused:
                return
            # A source that was paused leaves the destination paused.
            if state == 'paused':
                info = dst.qmp.cmd('query-migrate')
                if info.get('status') == 'completed':
                    return
        if time.monotonic() > deadline:
            raise FerryError(f'{dst.name} does not run, its state is '
                             f'"{state}"')
        time.sleep(0.002)


def _wall_ms(dst: VM, start_ns: int, start_real: float) -> float:
    """ms from the start until the destination ran.

    QEMU stamps its RESUME event, so that the result does not depend on how
    often we look; a destination that stays paused sends none.
    """
    until_now = (time.monotonic_ns() - start_ns) / 1e6
    if dst.qmp.cmd('query-status')['running']:
        stamp = dst.qmp.wait_event('RESUME', 2)['timestamp']
        at = stamp['seconds'] + stamp['microseconds'] / 1e6
        until_resume = (at - start_real) * 1e3
        # The two clocks may drift apart, and be set; not by this much.
        if 0 < until_resume <= until_now + 1:
            return until_resume
    return until_now


def _why_failed(src: VM, dst: VM) -> str:
    """One line on why the migration failed, from whoever knows."""
    reasons = []
    try:
        text = src.qmp.cmd('query-migrate').get('error-desc')
        if text:
            reasons.append(f'source: {text}')
    except QMPError:
        reasons.append(f'source ended: {src.last_words()}')
    # A destination that fails ends itself, but not at once.
    deadline = time.monotonic() + 1
    while dst.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    if not dst.alive():
        reasons.append(f'destination ended: {dst.last_words(4)}')
    return '; '.join(reasons) or 'no reason was given'


def _set_up(src: VM, dst: VM, uri: str, result: Result) -> str:
    """Configure both sides; return the URI to connect to."""
    if dst.incoming is None:
        raise FerryError(f'{dst.name} was not started with -incoming')
    for vm in (dst, src):
        set_caps(vm, result.caps)
        set_params(vm, result.params)
    uri = listen(dst, uri)
    result.caps = {row['capability']: row['state'] for row
                   in src.qmp.cmd('query-migrate-capabilities')}
    result.params = src.qmp.cmd('query-migrate-parameters')
    return uri


def _take_figures(result: Result) -> None:
    """Copy the source's own report from the last sample."""
    info = result.samples[-1]['migrate']
    result.total_ms = info.get('total-time', 0)
    result.downtime_ms = info.get('downtime', 0)
    result.setup_ms = info.get('setup-time', 0)
    result.bytes = info.get('ram', {}).get('transferred', 0)
    result.iterations = info.get('ram', {}).get('dirty-sync-count', 0)


def _take_heartbeats(result: Result, observer: Observer, dst: VM,
                     start_ns: int) -> None:
    """Read the guest's pauses off its heartbeats."""
    result.noise_ms = observer.noise_ms(99, until=start_ns)
    moves = observer.handovers(start_ns)
    if not moves:
        raise FerryError('no heartbeat came from the guest in its new place')
    result.blackout_ms = max(move.gap_ms for move in moves)
    result.stall_ms = observer.longest_gap_ms(start_ns, moves[0].at_ns)
    result.lost, result.repeated = observer.breaks(start_ns)
    if len(moves) > 1:
        raise FerryError(f'heartbeats came from both sides in turn: the guest '
                         f'ran twice (in {dst.name} and its source)')
    if result.lost or result.repeated:
        raise FerryError(f'{result.lost} heartbeats were lost and '
                         f'{result.repeated} came again')


def _arrive(result: Result, dst: VM, guest: Guest | None,
            observer: Observer | None, start_ns: int, verify: bool) -> None:
    """Check the guest in its new place."""
    running = dst.qmp.cmd('query-status')['running']
    if guest is not None:
        guest.move_to(dst)
    if observer is not None and running:
        observer.wait_beats(dst, 20)
        _take_heartbeats(result, observer, dst, start_ns)
    if guest is not None and verify and running:
        verdict = guest.verify()
        result.verified, result.detail = verdict.ok, verdict.detail
        if not verdict.ok:
            raise FerryError(f'memory is wrong after the migration: '
                             f'{verdict.detail}')


def _give_up(src: VM, guest: Guest | None, dst: VM) -> None:
    """Leave a failed attempt in good order; the guest stays where it is."""
    try:
        if src.qmp.cmd('query-migrate').get('status', 'none') not in (
                ENDED + ('none',)):
            src.qmp.cmd('migrate_cancel')
    except QMPError:
        pass        # the reason that is reported is the first one
    if guest is not None:
        guest.forget(dst)


def migrate(src: VM, dst: VM, uri: str, *,
            caps: dict[str, bool] | None = None,
            params: dict[str, Any] | None = None,
            guest: Guest | None = None, observer: Observer | None = None,
            on_sample: Callable[[dict], None] | None = None,
            interval: float = 0.1, timeout: float = 120,
            verify: bool = True, link: Link | None = None) -> Result:
    """Migrate the guest in SRC to DST over URI and measure it.

    CAPS and PARAMS are set on both sides; DST needs incoming='defer' for
    those to be in time (or URI as its incoming, when there are none).
    ON_SAMPLE sees every sample, one each INTERVAL s, and may act on SRC, e.g.
    cancel.  After TIMEOUT s the attempt is cancelled.  A GUEST is followed to
    DST and verified there; an OBSERVER is attached to DST in time.  With a LINK
    the source connects to that, which leads to where DST listens (TCP).

    A migration that fails gives a Result with ok=False and the reason, after
    which the guest is still in SRC; only mistakes in the call itself (such as
    an unknown capability) and a lost SRC raise.
    """
    result = Result(caps=dict(caps or {}), params=dict(params or {}))
    uri = _set_up(src, dst, uri, result)
    if link is not None:
        link.aim(uri)
        uri = link.uri
    if observer is not None:
        observer.attach(dst)
    if guest is not None:
        guest.expect(dst)
    cpu_src, cpu_dst = src.cpu_seconds(), dst.cpu_seconds()
    start_ns = time.monotonic_ns()
    start_real, started = time.time(), start_ns / 1e9
    moved = False
    try:
        src.qmp.cmd('migrate', {'uri': uri})
        _watch(src, result, on_sample, interval, started, started + timeout)
        _take_figures(result)
        if result.status == 'completed':
            _destination_runs(dst)
            moved = True
            result.wall_ms = _wall_ms(dst, start_ns, start_real)
        result.cpu_src = src.cpu_seconds() - cpu_src
        result.cpu_dst = dst.cpu_seconds() - cpu_dst
        if moved:
            _arrive(result, dst, guest, observer, start_ns, verify)
            result.ok = True
        elif result.status == 'cancelled':
            result.error = 'cancelled'
        else:
            result.error = _why_failed(src, dst)
    except QMPError as err:
        src.check_alive()
        if not moved and not dst.alive():
            result.error = _why_failed(src, dst)
        else:
            result.error = f'lost {dst.name}: {err}' if err.cls == GONE \
                else str(err)
    except FerryError as err:
        src.check_alive()
        result.error = str(err)
    result.rss_src, result.rss_dst = src.peak_rss_mib(), dst.peak_rss_mib()
    if not result.ok and not moved:
        _give_up(src, guest, dst)
    return result
