# Programs that are run with a time limit, and ended with all they started.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that are run with a time limit, and ended with all they started.

Each leads a process group of its own, which is ended whatever happens, also
when the caller is interrupted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Iterator, Sequence

from ferry.errors import FerryError

PATIENCE = 5.0          # s to end after SIGTERM


class Ended(FerryError):
    """A program that ended badly; the text says how."""


def start(argv: Sequence[str | Path], **more: Any) -> subprocess.Popen:
    """Start a program that says something; MORE is for Popen."""
    return subprocess.Popen(
        [str(word) for word in argv], **{
            'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE,
            'stderr': subprocess.STDOUT, 'text': True, 'errors': 'replace',
            'start_new_session': True, **more})


def end(process: subprocess.Popen, patience: float = PATIENCE) -> None:
    """End a group with its leader PROCESS: by SIGTERM, then by SIGKILL."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            pass
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def how(status: int) -> str:
    """In words, what an exit status that is not 0 means."""
    return (f'killed by {signal.Signals(-status).name}' if status < 0
            else f'exit status {status}')


def finish(argv: Sequence[str | Path], limit: float, **more: Any
           ) -> tuple[int, str]:
    """Run a program to its end: exit status, and what it said.

    If it takes longer than LIMIT seconds, that is its last line, and the
    status that of SIGTERM.
    """
    process = start(argv, **more)
    try:
        said = process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        end(process)
        said = (f'{process.communicate()[0]}\n'
                f'not done after {limit:g} s')
        return -signal.SIGTERM, said
    finally:
        end(process)
    return process.returncode, said


def lines(argv: Sequence[str | Path], limit: float | None = None, **more: Any
          ) -> Iterator[str]:
    """What a program says, line by line, until it ends.

    After the last line Ended is raised unless its exit status is 0.
    """
    process = start(argv, **more)
    late = threading.Event()

    def too_late() -> None:
        late.set()
        end(process)
    timer = threading.Timer(limit or threading.TIMEOUT_MAX, too_late)
    timer.daemon = True
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            yield line.rstrip('\n')
        status = process.wait()
    finally:
        timer.cancel()
        end(process)
    if late.is_set():
        raise Ended(f'not done after {limit:g} s')
    if status:
        raise Ended(how(status))
