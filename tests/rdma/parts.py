# What the cases need that has to be built first.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the cases need that has to be built first."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ferry.errors import FerryError
from ferry.paths import BUILD, ROOT

HERE = Path(__file__).resolve().parent
VERBS = ROOT / 'tests' / 'unit' / 'migration' / 'fake-verbs.c'
OUT = BUILD / 'check' / 'rdma'


def run(*line: str | Path) -> None:
    """Run a command that must succeed."""
    done = subprocess.run([str(word) for word in line], capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise FerryError(f'{line[0]} failed: {done.stderr.strip()[-300:]}')


def make_firmware() -> Path:
    """The firmware of the guest, as bytes."""
    OUT.mkdir(parents=True, exist_ok=True)
    run('gcc', '-m32', '-c', '-o', OUT / 'firmware.o', HERE / 'firmware.S')
    run('objcopy', '-O', 'binary', '-j', '.text', OUT / 'firmware.o',
        OUT / 'firmware.bin')
    return OUT / 'firmware.bin'


def make_verbs() -> Path:
    """The device that does not exist, to be preloaded."""
    library = OUT / 'libfake-verbs.so'
    run('gcc', '-O2', '-g', '-Wall', '-shared', '-fPIC', '-pthread',
        '-D_GNU_SOURCE', '-o', library, VERBS)
    return library
