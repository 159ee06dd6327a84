# The machine a benchmark runs on.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine a benchmark runs on: what it is, and whether it is quiet."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from ferry import paths
from ferry.errors import FerryError

MIB = 1 << 20

# Above either of these a machine does not count as idle.
LOAD_PER_CPU = 0.25
BUSY_SHARE = 0.10


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors='replace').strip()
    except OSError:
        return ''


def _field(text: str, key: str, separator: str = ':') -> str:
    for line in text.splitlines():
        name, found, value = line.partition(separator)
        if found and name.strip() == key:
            return value.strip().strip('"')
    return ''


def _chosen(path: str) -> str:
    """The word in [brackets] of a file that lists all choices."""
    text = _read(path)
    return text.partition('[')[2].partition(']')[0] or text


def describe() -> dict[str, Any]:
    """What a reader must know to judge the numbers."""
    cpuinfo = _read('/proc/cpuinfo')
    flags = _field(cpuinfo, 'flags').split()
    mm = '/sys/kernel/mm/transparent_hugepage/'
    governor = _read('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor')
    return {
        'cpu': _field(cpuinfo, 'model name') or platform.machine(),
        'cpus': len(os.sched_getaffinity(0)),
        'memory_mib': mem_total_mib(),
        'kernel': platform.release(),
        'system': _field(_read('/etc/os-release'), 'PRETTY_NAME', '='),
        'virtual': 'hypervisor' in flags,
        'huge_pages': _chosen(mm + 'enabled'),
        'huge_page_defrag': _chosen(mm + 'defrag'),
        'overcommit': _read('/proc/sys/vm/overcommit_memory'),
        'governor': governor or None,
        'python': platform.python_version(),
    }


def describe_engine(kind: str) -> dict[str, Any]:
    """Which binary KIND stands for."""
    path = paths.qemu(kind)
    try:
        done = subprocess.run([str(path), '--version'], timeout=20, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              check=True)
    except (OSError, subprocess.SubprocessError) as err:
        raise FerryError(f'{path} does not run: {err}') from err
    digest = hashlib.sha256()
    with open(path, 'rb') as binary:
        while piece := binary.read(MIB):
            digest.update(piece)
    return {'path': str(path), 'version': done.stdout.splitlines()[0],
            'sha256': digest.hexdigest(),
            'built': time.strftime('%Y-%m-%dT%H:%M:%SZ',
                                   time.gmtime(path.stat().st_mtime))}


def revision() -> str | None:
    """The commit the working tree is at; '+' when it was changed since."""
    try:
        done = subprocess.run(
            ['git', '-C', str(paths.ROOT), 'describe', '--always',
             '--dirty=+', '--exclude=*'],
            timeout=20, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


# Memory

def _meminfo_mib(key: str) -> int:
    return int((_field(_read('/proc/meminfo'), key) or '0').split()[0]) // 1024


def mem_total_mib() -> int:
    """Memory of the machine."""
    return _meminfo_mib('MemTotal')


def _cgroup_left_mib() -> int | None:
    """What the control groups above us leave; None without a limit."""
    name = ''
    for line in _read('/proc/self/cgroup').splitlines():
        if line.startswith('0::'):
            name = line[3:]
    left = None
    group = Path('/sys/fs/cgroup') / name.lstrip('/')
    while group.is_relative_to('/sys/fs/cgroup'):
        limit, used = (_read(str(group / 'memory.max')),
                       _read(str(group / 'memory.current')))
        if limit.isdigit() and used.isdigit():
            here = (int(limit) - int(used)) // MIB
            left = here if left is None else min(left, here)
        group = group.parent
    return left


def available_mib() -> int:
    """Memory that can be had without swapping."""
    left = _cgroup_left_mib()
    here = _meminfo_mib('MemAvailable')
    return here if left is None else min(here, left)


def no_overcommit() -> bool:
    """Whether the kernel insists on backing for every reservation."""
    return _read('/proc/sys/vm/overcommit_memory') == '2'


# Load

def busy_seconds() -> tuple[float, float]:
    """CPU seconds of all processes since boot, and those stolen from us by
    other virtual machines."""
    fields = [int(x) for x in _read('/proc/stat').splitlines()[0].split()[1:]]
    user, nice, system, _idle, _wait, irq, softirq, steal = fields[:8]
    ticks = os.sysconf('SC_CLK_TCK')
    return (user + nice + system + irq + softirq) / ticks, steal / ticks


def why_not_idle(sample_s: float = 1.0) -> str | None:
    """None if the machine is quiet, else what keeps it from being so."""
    cpus = os.cpu_count() or 1
    start = time.monotonic()
    before = busy_seconds()
    time.sleep(sample_s)
    after = busy_seconds()
    wall = (time.monotonic() - start) * cpus
    busy = max(0.0, after[0] - before[0]) / wall
    steal = max(0.0, after[1] - before[1]) / wall
    load = os.getloadavg()[0]
    if (load <= LOAD_PER_CPU * cpus and busy <= BUSY_SHARE
            and steal <= BUSY_SHARE):
        return None
    return (f'load average {load:.2f} on {cpus} CPUs, {100 * busy:.0f} % busy '
            f'and {100 * steal:.0f} % stolen within {sample_s:.0f} s')


# CPU time of others

def threads(pid: int) -> list[int]:
    """The threads that process PID has now."""
    try:
        return [int(task.name) for task in Path(f'/proc/{pid}/task').iterdir()]
    except OSError:
        return []


def thread_seconds(pid: int, tids: list[int]) -> float:
    """CPU seconds used so far by the threads TIDS of process PID."""
    total = 0
    for tid in tids:
        text = _read(f'/proc/{pid}/task/{tid}/schedstat')
        total += int(text.split()[0]) if text else 0
    return total / 1e9


def resident_mib(pid: int) -> float:
    """Resident memory of process PID now."""
    text = _field(_read(f'/proc/{pid}/status'), 'VmRSS')
    return int(text.split()[0]) / 1024 if text else 0.0


def forget_peak(pid: int) -> None:
    """Make the peak of the resident memory of PID start from now."""
    try:
        Path(f'/proc/{pid}/clear_refs').write_text('5')
    except OSError:
        pass        # then the peak contains what came before, as it says
