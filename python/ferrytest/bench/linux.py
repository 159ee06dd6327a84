# Benchmark runs with a running Linux guest.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmark runs with a running Linux guest.

The guest keeps accounts of its own memory and sends a heartbeat; see
tests/guest.  Its virtual CPU runs beside the migration and competes with it
for the machine's CPUs, as it does in practice.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ferry import guest as guests
from ferry.errors import FerryError
from ferry.migrate import Result, migrate, unix_uri
from ferry.observer import Observer
from ferry.vm import VM
from . import machine, native
from .cases import Case, Pair
from .run import Meter, reported, vcpu_threads, workdir

SETTLE = 1.0            # s at the set rate before the migration starts
SETTLE_FREED = 3.0      # s, in which the kernel puts together what was freed
POLL = 0.1              # s between looks at the migration
VERIFY_TIMEOUT = 60.0
SCRATCH_TIMEOUT = 60.0
TCP = 'tcp:127.0.0.1:0'       # the destination chooses the port

# How a migration is held up, and let go; speeds in bytes/s.
FIRST_SPEED = 64 << 20
SEED_SPEED = 16 << 20
ENCODE_SPEED = 1 << 20
SEEDED = 4 << 20        # bytes left of the second pass
WATCH = 0.02            # s between looks while a speed must change in time,
PAUSE = 0.1             # and in addition later: looking costs CPU time, too
NEVER = {'downtime-limit': 1, 'max-bandwidth': FIRST_SPEED}
RELEASE = {'max-bandwidth': 0, 'downtime-limit': 30000}


def _balloon(hints: bool) -> list[str]:
    """Arguments for a balloon, of the same shape with and without hints."""
    return ['-object', 'iothread,id=hints', '-device',
            'virtio-balloon-pci,iothread=hints,free-page-hint='
            + ('on' if hints else 'off')]


def machine_for(case: Case, kind: str, name: str, where: Path, seed: int,
                incoming: bool, hints: bool = False) -> VM:
    """One end of a migration of the guest of CASE, not started."""
    kernel, initrd = guests.ensure()
    load = case.load
    append = guests.guest_args(load.fill, load.work, load.rate, seed=seed,
                               stripes=load.stripes, timed=load.timed,
                               modules=load.freed > 0)
    return VM(kind, name, where, case.mem, kernel=kernel, initrd=initrd,
              append=append, incoming='defer' if incoming else None,
              args=_balloon(hints) if load.freed else (), pace=load.timed)


class Hold:
    """Keeps a migration from ending until enough pages were delta-encoded.

    The first two passes send whole pages and fill the cache.  When the second
    is nearly over, bandwidth drops to less than what the guest dirties even
    with every page encoded; left alone, passes would get shorter and shorter
    and the migration would end.  What counts is from then on until enough
    pages were encoded.
    """

    def __init__(self, case: Case, src: VM) -> None:
        self._src = src
        self._pages = case.hold_pages
        self._vcpus = vcpu_threads(src)
        self._before = set(machine.threads(src.pid))
        self._speed: int | None = None
        self._begin: dict[str, float] | None = None
        self._end: dict[str, float] | None = None

    def look(self, sample: dict[str, Any]) -> None:
        """Act on a reply to query-migrate."""
        info = sample['migrate']
        cache = info.get('xbzrle-cache')
        ram = info.get('ram', {})
        passes = ram.get('dirty-sync-count', 0)
        if passes < 2 or cache is None or self._end is not None:
            return
        seeded = passes > 2 or ram['remaining'] < SEEDED
        self._slow_down(ENCODE_SPEED if seeded else SEED_SPEED)
        if self._begin is None and cache['pages'] > 0:
            self._begin = self._now(cache)
        if cache['pages'] >= self._pages:
            self._end = self._now(cache)
            self._set(RELEASE)
        elif seeded:
            time.sleep(PAUSE)

    def _slow_down(self, speed: int) -> None:
        if self._speed != speed:
            self._set({'max-bandwidth': speed})
            self._speed = speed

    def _now(self, cache: dict[str, Any]) -> dict[str, float]:
        return {'cpu': self._src.cpu_seconds() - machine.thread_seconds(
                    self._src.pid, self._vcpus),
                'sender': machine.thread_seconds(self._src.pid, self._begun()),
                'pages': cache['pages'], 'bytes': cache['bytes']}

    def _begun(self) -> list[int]:
        """The threads that the migration has begun."""
        return [tid for tid in machine.threads(self._src.pid)
                if tid not in self._before]

    def _set(self, params: dict[str, Any]) -> None:
        self._src.qmp.cmd('migrate-set-parameters', params)

    def values(self) -> dict[str, float]:
        """What encoding one page cost."""
        if self._begin is None or self._end is None:
            raise FerryError('the migration ended before enough pages were '
                             'encoded')
        used = {key: self._end[key] - self._begin[key] for key in self._end}
        if not used['pages']:
            raise FerryError('no pages were encoded while it was measured')
        return {'xbzrle_pages': used['pages'],
                'xbzrle_us_per_page': 1e6 * used['cpu'] / used['pages'],
                'xbzrle_sender_us_per_page':
                    1e6 * used['sender'] / used['pages'],
                'xbzrle_bytes_per_page': used['bytes'] / used['pages']}


def _migrate(case: Case, caps: dict[str, bool], src: VM, dst: VM,
             guest: guests.Guest, observer: Observer, hold: Hold | None
             ) -> Result:
    uri = unix_uri(src.workdir) if case.transport == 'unix' else TCP
    params = {'max-bandwidth': 0, **case.params, **(NEVER if hold else {})}
    done = migrate(src, dst, uri, caps=caps, params=params,
                   guest=guest, observer=observer,
                   on_sample=hold.look if hold else None,
                   interval=WATCH if hold else POLL, timeout=case.timeout,
                   verify=False)
    if not done.ok:
        raise FerryError(f'migration {done.status}: {done.error}')
    return done


def measure(case: Case, pair: Pair, seed: int, perf: bool) -> dict[str, Any]:
    """One migration of the Linux guest of CASE; see run.one()."""
    with workdir() as where, \
         machine_for(case, pair.src, 'src', where, seed, False,
                     pair.hints) as src, \
         guests.Guest(src) as guest, \
         machine_for(case, pair.dst, 'dst', where, seed, True,
                     pair.hints) as dst, \
         Observer() as observer:
        observer.attach(src)
        guest.wait_ready()
        if case.load.freed:
            guest.command(f'scratch {case.load.freed}', SCRATCH_TIMEOUT)
            time.sleep(SETTLE_FREED)
        time.sleep(SETTLE)
        native.warm(case.warm_mib())
        hold = Hold(case, src) if case.hold_pages else None
        meter = Meter(src, dst, perf)
        try:
            done = _migrate(case, case.caps_of(pair), src, dst, guest,
                            observer, hold)
            values = meter.end()
        finally:
            meter.abandon()
        info = src.qmp.cmd('query-migrate')
        check = guest.verify(VERIFY_TIMEOUT)
    values |= {'wall_ms': done.wall_ms, **reported(info),
               'blackout_ms': done.blackout_ms, 'stall_ms': done.stall_ms,
               'noise_ms': done.noise_ms, **(hold.values() if hold else {})}
    return {'values': values, 'verified': check.ok,
            'memory': {'detail': check.detail, 'pages': check.pages,
                       'writes': check.writes},
            'query_migrate': info}
