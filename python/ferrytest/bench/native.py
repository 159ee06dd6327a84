# The helpers in C: a bare socket pair, and the memory of other processes.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The helpers in C: a bare socket pair, and the memory of other processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ferry import paths
from ferry.errors import FerryError, one_line

SOURCES = paths.ROOT / 'bench'
OUTPUT = paths.BUILD / 'bench'


def program(name: str) -> Path:
    """The helper NAME, compiled if its source is newer."""
    source, binary = SOURCES / f'{name}.c', OUTPUT / name
    try:
        if binary.stat().st_mtime >= source.stat().st_mtime:
            return binary
    except OSError:
        pass
    compiler = os.environ.get('CC') or 'cc'
    if not shutil.which(compiler):
        raise FerryError(f"no C compiler '{compiler}': install gcc, or set CC")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    # Two benchmarks may compile at once: each makes its own file.
    fresh = OUTPUT / f'.{name}.{os.getpid()}'
    try:
        done = subprocess.run(
            [compiler, '-O2', '-std=gnu11', '-Wall', '-pthread', '-o',
             str(fresh), str(source)], timeout=60, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise FerryError(f'cannot compile {source.name}: '
                             f'{one_line(done.stdout)}')
        fresh.rename(binary)
    except subprocess.TimeoutExpired as err:
        raise FerryError(f'compiling {source.name} takes too long') from err
    finally:
        fresh.unlink(missing_ok=True)
    return binary


def call(name: str, *args: object, timeout: float,
         fine: tuple[int, ...] = (0,)) -> list[dict[str, Any]]:
    """Run the helper NAME; return the JSON objects that it prints."""
    try:
        done = subprocess.run([str(program(name)), *map(str, args)],
                              timeout=timeout, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False)
    except subprocess.TimeoutExpired as err:
        raise FerryError(f'{name} did not end within {timeout:.0f} s') from err
    if done.returncode not in fine:
        raise FerryError(one_line(done.stderr) or
                         f'{name} failed with status {done.returncode}')
    return [json.loads(line) for line in done.stdout.splitlines()]


def warm(mib: int) -> None:
    """Touch MIB of memory and free it.

    The host of a virtual machine takes memory back that its guest does not
    use, within seconds; the first touch afterwards costs ten times more.
    """
    call('guest-mem', 'warm', mib, timeout=300)


def fill(pid: int, address: int, size: int, seed: int) -> None:
    """Random data into SIZE bytes at ADDRESS of process PID."""
    call('guest-mem', 'fill', pid, hex(address), size, seed, timeout=120)


def compare(a: tuple[int, int], b: tuple[int, int], size: int) -> dict:
    """Compare memory; A and B are (pid, address).  See guest-mem.c."""
    return call('guest-mem', 'compare', a[0], hex(a[1]), b[0], hex(b[1]), size,
                timeout=300, fine=(0, 3))[0]


def bare_pair(transport: str, mib: int, pairs: int = 1) -> dict[str, float]:
    """What bare pairs of sockets move here; see bare-pair.c.

    The fastest of three: it stands for what the machine can do, and a first
    touch of memory that the host has to bring back can only make it slower.
    """
    runs = [call('bare-pair', '-m', mib, '-c', pairs, transport, timeout=150)[0]
            for _ in range(3)]
    return max(runs, key=lambda run: run['gb_per_s'])
