#!/bin/python3
# The first process of the machine that has RDMA: runs the cases there.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The first process of the machine that has RDMA: runs the cases there."""

import ctypes
import os
import resource
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

ADDRESS = '10.9.9.1'
PATIENCE = 6                    # QEMU runs in QEMU
LINUX_REBOOT_CMD_POWER_OFF = 0x4321fedc

libc = ctypes.CDLL(None, use_errno=True)


def say(text: str) -> None:
    """A line for who reads the serial line."""
    os.write(1, (text + '\n').encode())


def mount(kind: str, where: str) -> None:
    """Mount a file system of the kernel."""
    libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None)


def load_modules() -> None:
    """All there are, in order."""
    for file in sorted(Path('/modules').iterdir()):
        data = file.read_bytes()
        if libc.syscall(175, data, len(data), b'') and \
                ctypes.get_errno() != 17:
            say(f'{file}: {os.strerror(ctypes.get_errno())}')


def make_device() -> None:
    """An RDMA device over a network card that leads nowhere else."""
    for line in ('ip link set lo up', 'ip link add rd0 type dummy',
                 f'ip addr add {ADDRESS}/24 dev rd0', 'ip link set rd0 up',
                 'rdma link add rxe0 type rxe netdev rd0', 'rdma link show'):
        done = subprocess.run(line.split(), capture_output=True, text=True,
                              check=False)
        if done.returncode or 'show' in line:
            say(f'{line}: {done.stdout.strip()} {done.stderr.strip()}')


def no_buffer() -> int:
    """How many messages ended a connection, as the peer had no buffer."""
    return sum(int(file.read_text()) for file in Path('/sys/class/infiniband')
               .glob('*/ports/1/hw_counters/retry_rnr_exceeded_err'))


def run_cases() -> None:
    """Each of them, and how it went."""
    sys.path[:0] = ['/ferry/python', '/ferry/tests/rdma']
    from cases import Place, all_cases, pairs
    wanted = Path('/proc/cmdline').read_text().split('cases=')[1].split()[0]
    place = Place(ADDRESS, Path('/ferry/firmware.bin'), PATIENCE)
    measure = wanted.startswith('pairs=')
    for number, case in enumerate(pairs(place, wanted[6:]) if measure
                                  else all_cases(place)):
        chosen = (case.quick if wanted == 'quick' else
                  measure or wanted == 'all' or
                  any(word in case.name for word in wanted.split(',')))
        if not chosen:
            continue
        folder = Path(f'/tmp/{number}')
        folder.mkdir()
        start, ended = time.monotonic(), no_buffer()
        try:
            verdict, said = 'ok', case.run(folder)
        except Exception as err:        # whatever it is, the next one runs
            verdict, said = 'not ok', repr(err)
            traceback.print_exc(file=sys.stdout)
            for log in folder.glob('*.log'):
                say(f'{log.name}: {log.read_text()[-1500:]}')
        took = time.monotonic() - start
        if no_buffer() > ended:
            said += f'; {no_buffer() - ended} connections ended without buffer'
        say(f'### {verdict} {case.name} {took:.1f} {said}')
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Everything, and then the machine ends."""
    os.environ.update(PATH='/bin', FERRY_BUILD='/ferry/build', TMPDIR='/tmp')
    for kind, where in (('proc', '/proc'), ('sysfs', '/sys'),
                        ('devtmpfs', '/dev'), ('tmpfs', '/tmp')):
        mount(kind, where)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    say(f'### begin {time.monotonic():.1f}')
    load_modules()
    make_device()
    say(f'### device {time.monotonic():.1f}')
    run_cases()
    say('### end')


if __name__ == '__main__':
    try:
        main()
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    sys.stdout.flush()
    os.sync()
    libc.reboot(LINUX_REBOOT_CMD_POWER_OFF)
    while True:
        time.sleep(1)
