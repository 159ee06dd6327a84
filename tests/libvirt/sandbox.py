# Private namespaces that take everything in them along when they end.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Private namespaces that take everything in them along when they end.

The test runs as the first process of a PID namespace, with mount, UTS and
network namespaces of its own and an empty /run.  When that process ends, for
whatever reason, the kernel kills all others in the namespace (daemons, guests)
and with them go the mounts, the interfaces and the files in /run.  So there is
no cleanup code that could be skipped.

    outer process ---- waits, enforces the time limit, forwards nothing
      unshare          dies with the outer process
        init           first process inside; reaps orphans, as libvirt expects
          worker       the test
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable

from ferry.errors import FerryError

ENTER = ['setpriv', '--pdeathsig', 'KILL',
         'unshare', '--mount', '--pid', '--fork', '--kill-child=KILL',
         '--mount-proc', '--uts', '--net', '--propagation', 'private']
TOOLS = {'setpriv': 'util-linux', 'unshare': 'util-linux',
         'mount': 'mount', 'ip': 'iproute2'}
PROBE_LIMIT = 20                # seconds to see whether namespaces work
PATIENCE = 3                    # seconds for the sandbox to end


class TimeLimit(FerryError):
    """The time limit of the whole run was reached."""


def missing() -> str | None:
    """Why namespaces cannot be had here, or None if they can."""
    if os.geteuid() != 0:
        return 'needs root, to make namespaces'
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            return f'no {tool} here: install the package {package}'
    probe = subprocess.run(
        ENTER + ['sh', '-c',
                 'mount -n -t tmpfs none /run && ip netns add probe'],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, timeout=PROBE_LIMIT, check=False)
    if probe.returncode != 0:
        reason = probe.stderr.strip().splitlines() or ['no reason given']
        return f'this machine does not allow private namespaces: {reason[-1]}'
    return None


def run(command: list[str], limit: float) -> int:
    """Run COMMAND in the sandbox for at most LIMIT seconds; its status.

    On return, or when an exception leaves here, nothing is left running.
    """
    with subprocess.Popen(ENTER + command, stdin=subprocess.DEVNULL,
                          start_new_session=True) as process:
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            raise TimeLimit(f'not finished after {limit:.0f} s') from None
        finally:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the sandbox and wait until it is gone."""
    # unshare waits for init, and the kernel lets go of init only when all
    # others in the namespace are gone; killing unshare itself would return
    # before that.  Init ends on SIGTERM, once it has come that far.
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        for pid in _children(process.pid) or [process.pid]:
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                pass
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    process.wait()


def _children(pid: int) -> list[int]:
    """The processes that PID started itself."""
    try:
        path = Path(f'/proc/{pid}/task/{pid}/children')
        return [int(word) for word in path.read_text().split()]
    except OSError:
        return []


def enter(worker: Callable[[], int]) -> int:
    """Be init of the sandbox: cover /run, run WORKER() in a child."""
    # -n: or mount leaves a directory in the /run that is about to be covered.
    subprocess.run(['mount', '-n', '-t', 'tmpfs', '-o', 'mode=755', 'none',
                    '/run'], check=True)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        return worker()
    signal.signal(signal.SIGTERM, lambda _signum, _frame: os._exit(1))
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(max(os.waitstatus_to_exitcode(status), 0)
                     if os.WIFEXITED(status) else 1)
