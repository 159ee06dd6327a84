# A network card that is replaced by another during the migration.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A network card that is replaced by another during the migration.

QEMU requests the unplug of the primary card when a migration begins.  If that
ends early, for whatever reason, the guest still has to complete the unplug:
only then the card can be plugged in again.
"""

from __future__ import annotations

import json
import socket
import time

from ferry.errors import FerryError
from ferrytest.drain import Drain
from ferrytest.suite import Case
from ferrytest.wait import PATIENCE, until
from cases import Lab, is_there
from machine import Machine
from virtio import VERSION_1, Card

SLOT = 3                # of the standby card
STANDBY = 62            # a feature
EJECT = 0xcc8           # slots of the bus with number 0
QUICK = 1.0             # s, in which nothing may happen
LATER = 0.3             # s
TRIES = 20              # to cancel neither too early nor too late
ARGS = ('-device', 'pcie-root-port,id=root,addr=2,chassis=1',
        '-netdev', 'hubport,id=n0,hubid=0', '-netdev',
        'hubport,id=n1,hubid=0',
        '-device', f'virtio-net-pci,id=standby,addr={SLOT},netdev=n0,'
                   'failover=on,mac=52:54:00:00:00:01,romfile=',
        '-device', 'virtio-net-pci,id=primary,bus=root,netdev=n1,'
                   'failover_pair_id=standby,mac=52:54:00:00:00:01,romfile=')


class Guest(Machine):
    """A machine without a vCPU, and with two cards."""

    def has_primary(self) -> bool:
        """Whether the primary card is plugged in."""
        return is_there(self, 'primary')

    def eject(self) -> None:
        """Complete the unplug."""
        self.out(4, EJECT, 1)


def guest(lab: Lab) -> Guest:
    """A guest with two cards."""
    made = Guest('ferry', lab.folder, None, ARGS, 'q35',
                 accelerator='qtest')
    lab.all.append(made)
    Card(made, SLOT).start(VERSION_1, STANDBY)
    until(made.has_primary, 'the primary card is plugged in')
    return made


def plugs_again(side: Guest, status: str) -> None:
    """It ends, but not before the unplug is complete."""
    end = time.monotonic() + QUICK
    while time.monotonic() < end:
        said = side.status()
        if said == status:
            raise FerryError(f'{status} before the unplug was complete')
        time.sleep(0.02)
    side.eject()
    side.until(status)
    until(side.has_primary, 'the primary card is plugged in again')


def migrate_and_cancel(side: Machine, uri: str) -> None:
    """Both commands in one piece: the second comes while setup begins."""
    commands = ({'execute': 'qmp_capabilities'},
                {'execute': 'migrate', 'arguments': {'uri': uri}},
                {'execute': 'migrate_cancel'})
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(PATIENCE)
        link.connect(side.vm.view_path)
        link.sendall(b''.join(json.dumps(command).encode() + b'\n'
                              for command in commands))
        lines = link.makefile('rb')
        answers = 0
        while answers < len(commands):
            message = json.loads(lines.readline())
            if 'error' in message:
                raise FerryError(message['error']['desc'])
            answers += 'return' in message


def unplug_is_requested(side: Machine) -> bool:
    """Whether it came that far before it was cancelled."""
    side.until('cancelling', 'cancelled')
    return any(event['event'] == 'UNPLUG_PRIMARY'
               for event in side.qmp.events())


def cancelled_in_setup(lab: Lab, side: Guest) -> None:
    """Cancel just after the unplug was requested, as often as that takes."""
    for number in range(TRIES):
        with Drain(lab.folder / f'drain{number}') as drain:
            side.qmp.events()
            migrate_and_cancel(side, drain.uri)
            if unplug_is_requested(side):
                plugs_again(side, 'cancelled')
                return
            side.until('cancelled')
            if not side.has_primary():
                raise FerryError('unplugged without a request')
    raise FerryError(f'cancelled before it was connected, {TRIES} times')


def cancel_at_once(lab: Lab) -> None:
    """Cancelled as soon as the unplug was requested."""
    cancelled_in_setup(lab, guest(lab))


def cancel_later(lab: Lab) -> None:
    """Cancelled while it waits for the unplug."""
    side = guest(lab)
    with Drain(lab.folder / 'drain') as drain:
        side.cmd('migrate', uri=drain.uri)
        side.until('wait-unplug')
        time.sleep(LATER)
        side.cmd('migrate_cancel')
        plugs_again(side, 'cancelled')


def fails(lab: Lab) -> None:
    """The destination hangs up at once."""
    side = guest(lab)
    with Drain(lab.folder / 'hang-up', hang_up=True) as drain:
        side.cmd('migrate', uri=drain.uri)
        plugs_again(side, 'failed')


def again(lab: Lab) -> None:
    """After all that the guest can be migrated."""
    side = guest(lab)
    cancelled_in_setup(lab, side)
    with Drain(lab.folder / 'drain') as drain:
        side.cmd('migrate', uri=drain.uri)
        side.until('wait-unplug')
        side.eject()
        side.until('active', 'device', 'completed')


def leaves(lab: Lab) -> None:
    """QEMU ends though the guest never completes the unplug."""
    side = guest(lab)
    with Drain(lab.folder / 'drain') as drain:
        side.cmd('migrate', uri=drain.uri)
        side.until('wait-unplug')
        start = time.monotonic()
        side.cmd('quit')
        side.vm.stop()
        if time.monotonic() - start > 3:
            raise FerryError('it took '
                             f'{time.monotonic() - start:.1f} s to quit')


def cases() -> list[Case]:
    """All of them."""
    return [Case('failover/cancel-at-once', cancel_at_once),
            Case('failover/cancel-later', cancel_later),
            Case('failover/fails', fails),
            Case('failover/again', again),
            Case('failover/quit', leaves)]
