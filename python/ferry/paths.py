# Where the repository, its build results and the two QEMUs are.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the repository, its build results and the two QEMUs are."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import FerryError

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get('FERRY_BUILD') or ROOT / 'build').absolute()

KINDS = ('ferry', 'pristine')
IN_PLACE = 'FERRY_QEMU'     # environment: a binary in the place of 'ferry'


def qemu(kind: str | Path) -> Path:
    """Path of a QEMU: KIND is 'ferry', 'pristine' or a path to a binary."""
    if kind == 'ferry' and os.environ.get(IN_PLACE):
        path = Path(os.environ[IN_PLACE])
        hint = f'{IN_PLACE} is set to it'
    elif str(kind) in KINDS:
        path = BUILD / str(kind) / 'qemu-system-x86_64'
        hint = f'run "make {kind}" first'
    else:
        path = Path(kind).absolute()
        hint = f'give {", ".join(KINDS)} or the path of a QEMU binary'
    if not path.is_file() or not os.access(path, os.X_OK):
        raise FerryError(f'no QEMU at {path}: {hint}')
    return path
