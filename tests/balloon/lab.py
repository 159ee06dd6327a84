# The machines of a case.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The machines of a case."""

from __future__ import annotations

from pathlib import Path

from ferrytest import suite
from machine import Machine

HINTS = 'free-page-hint=on,iothread=io0,free-page-reporting=on'


class Lab(suite.Lab):
    """Starts machines, and ends them with the case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines: list[Machine] = []

    def machine(self, kind: str, device: str = HINTS,
                args: tuple[str, ...] = (), incoming: bool = False,
                machine: str = 'pc') -> Machine:
        """A QEMU with a balloon of these properties."""
        new = Machine(kind, self.folder, device, args, incoming, machine)
        self.machines.append(new)
        return new

    def last_words(self) -> list[str]:
        """What is known of the machines, for a failure."""
        return [f'{m.vm.name} {"runs" if m.vm.alive() else "ended"}: '
                f'{m.vm.log_tail(3) or "silent"}' for m in self.machines]

    def clear(self) -> None:
        """End all machines."""
        while self.machines:
            self.machines.pop().stop()
