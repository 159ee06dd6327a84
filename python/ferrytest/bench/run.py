# One migration: prepared, measured, verified.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration: prepared, measured, verified.

What is measured, and from where:

wall_ms      the command 'migrate' until both sides reported the end
total_ms, downtime_ms, setup_ms, bytes, passes    as the source reports them
blackout_ms  longest gap in the heartbeat of a running guest, seen from outside
cpu_src, cpu_dst        CPU seconds, user + system, of the whole process
engine_src, engine_dst  the same without the threads of the virtual CPUs
rss_src, rss_dst        peak resident memory during the migration, MiB
grown_src, grown_dst    how far that is above what it was before
instr_src, instr_dst    instructions retired (with --perf, where it works)
xbzrle_pages, xbzrle_us_per_page, xbzrle_bytes_per_page    pages encoded while
             a migration was held up for that, and CPU time and bytes of each
fault_p50_us, fault_p99_us, faults, full_speed_ms, clock_lag_ms, requests
             of a switch to postcopy; see postcopy.py
xbzrle_sender_us_per_page    of that time, what threads took that the migration
             had begun: without the main loop, which serves a running guest
others       CPUs that were kept busy by anything else meanwhile

Nothing polls QEMU while a stopped guest is measured: the end of a migration
comes as an event.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator
from contextlib import contextmanager

from . import machine, native
from .cases import Case, Pair
from ferry.errors import FerryError
from ferry.qmp import QMPError
from ferry.vm import VM

MIB = 1 << 20
PAGE = 4096

# Pages with data in a guest that was otherwise never touched.  Each may cost a
# huge page, so they are few.
MARKS = 4

END_STATES = ('completed', 'failed', 'cancelled')


# Instructions

def perf_problem() -> str | None:
    """None if instructions can be counted here, else why not."""
    if not shutil.which('perf'):
        return 'perf is not installed (package linux-perf)'
    done = subprocess.run(['perf', 'stat', '-x,', '-e', 'instructions', 'true'],
                          text=True, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, check=False, timeout=20)
    if _perf_count(done.stderr) is None:
        return 'this machine does not count instructions'
    return None


def _perf_count(text: str) -> int | None:
    for line in text.splitlines():
        fields = line.split(',')
        if len(fields) > 2 and fields[2].startswith('instructions'):
            return int(fields[0]) if fields[0].isdigit() else None
    return None


class _Perf:
    """Counts the instructions of one process while it is open."""

    def __init__(self, pid: int) -> None:
        self._perf = subprocess.Popen(
            ['perf', 'stat', '-x,', '-e', 'instructions', '-p', str(pid)],
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE)

    def end(self) -> int | None:
        """Stop counting; the count, or None if there is none."""
        self._perf.send_signal(signal.SIGINT)
        try:
            return _perf_count(self._perf.communicate(timeout=10)[1])
        except subprocess.TimeoutExpired:
            self._perf.kill()
            self._perf.wait()
            return None


# CPU time and memory of the two ends

def vcpu_threads(vm: VM) -> list[int]:
    """The threads that run the virtual CPUs of VM."""
    return [cpu['thread-id'] for cpu in vm.qmp.cmd('query-cpus-fast')]


class Meter:
    """CPU time, memory and noise between two moments."""

    def __init__(self, src: VM, dst: VM, perf: bool) -> None:
        self._ends = (('src', src), ('dst', dst))
        self._vcpus = {name: vcpu_threads(vm) for name, vm in self._ends}
        self._before: dict[str, float] = {}
        for name, vm in self._ends:
            machine.forget_peak(vm.pid)
            self._before['rss_' + name] = machine.resident_mib(vm.pid)
        self._perf = ({name: _Perf(vm.pid) for name, vm in self._ends}
                      if perf else {})
        if perf:
            time.sleep(0.1)     # until perf has attached itself
        self._start = self._now()

    def _now(self) -> dict[str, float]:
        busy, stolen = machine.busy_seconds()
        now = {'time': time.monotonic(), 'busy': busy + stolen,
               'self': time.process_time()}
        for name, vm in self._ends:
            cpu = vm.cpu_seconds()
            now['cpu_' + name] = cpu
            now['engine_' + name] = cpu - machine.thread_seconds(
                vm.pid, self._vcpus[name])
        return now

    def end(self) -> dict[str, float | None]:
        """Everything this measures, by name."""
        stop = self._now()
        used = {key: stop[key] - self._start[key] for key in stop}
        values: dict[str, float | None] = {}
        for name, vm in self._ends:
            values['cpu_' + name] = used['cpu_' + name]
            values['engine_' + name] = used['engine_' + name]
            values['rss_' + name] = vm.peak_rss_mib()
            values['grown_' + name] = (vm.peak_rss_mib() -
                                       self._before['rss_' + name])
        # The kernel counts busy time in ticks: too coarse for a short run.
        if used['time'] >= 0.25:
            ours = used['cpu_src'] + used['cpu_dst'] + used['self']
            values['others'] = max(0.0, used['busy'] - ours) / used['time']
        for name, perf in self._perf.items():
            values['instr_' + name] = perf.end()
        self._perf = {}
        return values

    def abandon(self) -> None:
        """Leave nothing behind after a failure."""
        for perf in self._perf.values():
            perf.end()


# Stopped guests

def _backend(case: Case, source: bool) -> str:
    text = f'memory-backend-ram,id=mem,size={case.mem}M'
    touched = case.memory == 'zero' and source
    return text + (',prealloc=on' if touched else ',reserve=off')


def ram_address(vm: VM) -> int:
    """Where the RAM of the guest begins in QEMU's own memory."""
    said = vm.qmp.cmd('human-monitor-command',
                      {'command-line': 'gpa2hva 0'}) or ''
    found = re.search(r'is (0x[0-9a-f]+)', said)
    if not found:
        raise FerryError(f'{vm.name} does not say where its memory is: '
                         f'{said.strip()}')
    return int(found.group(1), 16)


def _prepare(case: Case, src: VM, seed: int) -> None:
    """Put into the memory of SRC what the case is about."""
    start, size = ram_address(src), case.mem * MIB
    if case.memory == 'random':
        native.fill(src.pid, start, size, seed)
        return
    # Were everything zero, then an engine that sends nothing would pass for
    # correct.
    for mark in range(MARKS):
        where = (size - PAGE) * mark // (MARKS - 1) // PAGE * PAGE
        native.fill(src.pid, start + where, PAGE, seed * MARKS + mark)


def _configure(case: Case, pair: Pair, vm: VM) -> None:
    caps = {'events': True, **case.caps_of(pair)}
    vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
        {'capability': name, 'state': state} for name, state in caps.items()]})
    params = {'max-bandwidth': 0, **case.params}
    vm.qmp.cmd('migrate-set-parameters', params)


def _listen(case: Case, dst: VM) -> str:
    """Have DST wait for the stream; the URI that leads to it."""
    if case.transport == 'unix':
        uri = f'unix:{dst.workdir}/stream'
        dst.qmp.cmd('migrate-incoming', {'uri': uri})
        return uri
    dst.qmp.cmd('migrate-incoming', {'uri': 'tcp:127.0.0.1:0'})
    for address in dst.qmp.cmd('query-migrate').get('socket-address', []):
        if address.get('type') == 'inet':
            return f"tcp:{address['host']}:{address['port']}"
    raise FerryError(f'{dst.name} ({dst.kind}) does not say where it listens')


def _wait_end(vm: VM, deadline: float) -> str:
    while True:
        left = deadline - time.monotonic()
        try:
            event = vm.qmp.wait_event('MIGRATION', max(left, 0.001))
        except QMPError as err:
            vm.check_alive()
            if err.cls == 'Timeout':
                raise FerryError(f'{vm.name} ({vm.kind}) did not end the '
                                 'migration in time') from err
            raise
        status = event['data']['status']
        if status in END_STATES:
            return status


def _await_both(src: VM, dst: VM, deadline: float) -> None:
    for vm in (src, dst):
        status = _wait_end(vm, deadline)
        if status != 'completed':
            why = ''
            for end in (src, dst):
                if end.alive() and not why:
                    why = end.qmp.cmd('query-migrate').get('error-desc', '')
            raise FerryError(f'migration {status} on {vm.name} ({vm.kind})'
                             f'{": " + why if why else ""}')


def reported(info: dict[str, Any]) -> dict[str, float | None]:
    """The figures in a reply to query-migrate."""
    ram = info.get('ram') or {}
    return {'total_ms': info.get('total-time'),
            'downtime_ms': info.get('downtime'),
            'setup_ms': info.get('setup-time'),
            'bytes': ram.get('transferred'),
            'passes': ram.get('dirty-sync-count')}


@contextmanager
def workdir() -> Iterator[Path]:
    """A short-lived folder for the sockets of one run."""
    with tempfile.TemporaryDirectory(prefix='ferry-bench-') as name:
        yield Path(name)


def _stopped(case: Case, pair: Pair, seed: int, perf: bool) -> dict[str, Any]:
    with workdir() as where, \
         VM(pair.src, 'src', where, case.mem, paused=True, serial=False,
            mem_backend=_backend(case, True), accelerator='tcg') as src, \
         VM(pair.dst, 'dst', where, case.mem, paused=True, serial=False,
            mem_backend=_backend(case, False), accelerator='tcg',
            incoming='defer') as dst:
        size = case.mem * MIB
        _prepare(case, src, seed)
        for vm in (src, dst):
            _configure(case, pair, vm)
        uri = _listen(case, dst)
        native.warm(case.warm_mib())
        meter = Meter(src, dst, perf)
        try:
            start = time.monotonic()
            src.qmp.cmd('migrate', {'uri': uri})
            _await_both(src, dst, start + case.timeout)
            wall = time.monotonic() - start
            info = src.qmp.cmd('query-migrate')
            dst.qmp.cmd('query-migrate')    # its cleanup has run as well now
            values = meter.end()
        finally:
            meter.abandon()
        values |= {'wall_ms': 1000 * wall, **reported(info)}
        same = native.compare((src.pid, ram_address(src)),
                              (dst.pid, ram_address(dst)), size)
    return {'values': values, 'verified': same['equal'], 'memory': same,
            'query_migrate': info}


def one(case: Case, pair: Pair, seed: int, perf: bool = False
        ) -> dict[str, Any]:
    """Migrate the guest of CASE once between the engines of PAIR.

    Returns the figures ('values'), whether the memory arrived ('verified'),
    and the source's last reply ('query_migrate').
    """
    if case.postcopy:
        from . import postcopy
        return postcopy.measure(case, pair, seed, perf)
    if case.load:
        from . import linux     # needs the guest, which others do without
        return linux.measure(case, pair, seed, perf)
    return _stopped(case, pair, seed, perf)
