# A part of a switchover that lasts until the test lets it go on.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A part of a switchover that lasts until the test lets it go on.

What is to happen while a guest is held, or before the last byte is sent, must
come neither before that nor when it is over.  Time does not tell, on a machine
that has other things to do; so the part says when it begins, and waits:

    gate = Gate(folder, 'device-load')
    vm = VM(..., args=gate.args)
    gate.wait()                 # it is under way
    ...                         # and is as long as this takes
    gate.open()
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

from .wait import until

LONGEST = 60000         # ms that a part waits at most, see fault-inject.h
_numbers = itertools.count(1)


class Gate:
    """Where a QEMU waits when it gets to PART; see x-fault-gate."""

    def __init__(self, folder: Path, part: str) -> None:
        self._folder = folder / f'gate{next(_numbers)}'
        self._folder.mkdir()
        self._part = part

    @property
    def args(self) -> list[str]:
        """The options of that QEMU."""
        return ['-global', f'migration.x-fault-delay={self._part}:{LONGEST}',
                '-global', f'migration.x-fault-gate={self._folder}']

    def reached(self) -> bool:
        """Whether it waits there."""
        return (self._folder / self._part).exists()

    def wait(self) -> None:
        """Wait until it does."""
        until(self.reached, f'{self._part} begins')

    def let_by(self) -> None:
        """It goes on, and waits again when it gets there the next time."""
        (self._folder / self._part).unlink()

    def open(self) -> None:
        """It goes on, and never waits again."""
        if self._folder.exists():
            # At once: one that comes just now finds no folder.
            gone = self._folder.rename(f'{self._folder}-open')
            shutil.rmtree(gone)
