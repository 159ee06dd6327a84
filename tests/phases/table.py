#!/usr/bin/env python3
# What each command does in each phase of a migration: the one table.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What each command does in each phase of a migration: the one table.

usage: tests/phases/table.py [--write]

Prints docs/devel/migration/commands.rst, which is made of this table, or writes
it.  tests/phases/run tries every cell.
"""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[2] / 'docs' / 'devel' / 'migration'
        / 'commands.rst')

SOURCE = ('setup', 'active', 'pre-switchover', 'attempt', 'device',
          'postcopy-active', 'postcopy-paused', 'postcopy-recover',
          'completed', 'failed', 'cancelled')
DESTINATION = ('none', 'setup', 'active', 'held', 'failed',
               'postcopy-active', 'postcopy-paused')

# Phases in which the guest is in the same place (migration/core/permit.c)
LEAVING = ('setup', 'active')
STOPPED = ('pre-switchover', 'attempt')
HANDED = ('device',)
AWAY = ('postcopy-active', 'postcopy-paused', 'postcopy-recover')
GONE = ('completed',)
HERE = ('failed', 'cancelled')
OUTGOING = LEAVING + STOPPED + HANDED + AWAY
AWAITED = ('none', 'setup', 'failed')
LOADING = ('active', 'held')
ARRIVING = ('postcopy-active',)
CUT_OFF = ('postcopy-paused',)

# Why a command is refused
IN_PROGRESS = 'a migration is in progress'
HANDING = 'the guest is being handed over to the destination'
THERE = 'the guest runs on the destination'
LEFT = 'the guest was migrated away'
NOT_YET = 'the guest has not been migrated here yet'
LOADS = 'an incoming migration is loading the guest'
ARRIVES = 'the memory of the guest is still arriving'
NO_MEMORY = 'postcopy is paused, and the guest may wait for memory'
PROCESS = "There's a migration process in progress"
UNFINISHED = 'Migration is not finalized yet'
WAITING = 'Guest is waiting for an incoming migration'
RESUME = 'no paused migration'
PAUSE = 'only supported during postcopy-active'
POSTMIGRATE = "Can't migrate the vm that was paused due to previous migration"

WHERE = {**dict.fromkeys(LEAVING + STOPPED, IN_PROGRESS),
         **dict.fromkeys(HANDED, HANDING), **dict.fromkeys(AWAY, THERE),
         **dict.fromkeys(GONE, LEFT)}
WHERE_TO = {**dict.fromkeys(AWAITED, NOT_YET), **dict.fromkeys(LOADING, LOADS),
            **dict.fromkeys(ARRIVING, ARRIVES),
            **dict.fromkeys(CUT_OFF, NO_MEMORY)}


@dataclass(frozen=True)
class Cell:
    """What a command does in a phase.

    KIND is 'works' (as without a migration), 'refused' (nothing is touched;
    TEXT is in the error), 'idle' (accepted and without effect, because of
    TEXT), 'later' (accepted, takes effect later: TEXT says how), or 'special'
    (accepted, does what TEXT says).
    """
    kind: str = 'works'
    text: str = ''


WORKS = Cell()


def no(text: str) -> Cell:
    """It is refused."""
    return Cell('refused', text)


def later(text: str) -> Cell:
    """It takes effect later."""
    return Cell('later', text)


def idle(text: str) -> Cell:
    """It does nothing."""
    return Cell('idle', text)


def special(text: str) -> Cell:
    """It does this."""
    return Cell('special', text)


def each(phases: tuple[str, ...], cell: Cell) -> dict[str, Cell]:
    """The same in all of them."""
    return dict.fromkeys(phases, cell)


def refused(*phases: str) -> dict[str, Cell]:
    """In these, of the source, with the reason that is usual there."""
    return {phase: no(WHERE[phase]) for phase in phases}


def refused_there(*phases: str) -> dict[str, Cell]:
    """The same of the destination."""
    return {phase: no(WHERE_TO[phase]) for phase in phases}


@dataclass(frozen=True)
class Row:
    """A command or event; phases that are not listed have it work."""
    name: str
    group: str
    source: dict[str, Cell] = field(default_factory=dict)
    destination: dict[str, Cell] = field(default_factory=dict)

    def cell(self, side: str, phase: str) -> Cell:
        """What it does there."""
        return getattr(self, side).get(phase, WORKS)


ALL_OUT = {**refused(*OUTGOING, *GONE)}
ALL_IN = {**refused_there(*DESTINATION)}

KEPT = later('the guest stays stopped if it stays here, and if its state has '
             'not been sent yet the destination does not start it')
NOT_HERE = idle('the guest is not running here')
ABORTS = special('the attempt ends, this is done, and another attempt follows')
# What the guest does, or a device
EVENT = {**each(STOPPED, later('when the guest goes on, here or there')),
         **each(HANDED, idle('the guest stands still')),
         **each(AWAY + GONE, NOT_HERE)}
EVENT_IN = {**each(AWAITED + LOADING, NOT_HERE),
            **each(CUT_OFF, later('when postcopy goes on'))}
# Without its disks, and the rest of the block layer's reasons
DISKLESS = HANDED + AWAY + GONE
DISKLESS_IN = AWAITED + LOADING


def disk_row(name: str, text: str) -> Row:
    """A command for a disk that is active."""
    return Row(name, 'disks', each(DISKLESS, no(text)),
               each(DISKLESS_IN, no(text)))


ROWS = [
    # Run state
    Row('stop', 'run state',
        {**each(STOPPED, KEPT), **each(HANDED, later(
            'the guest stays stopped if it stays here')),
         **each(AWAY + GONE, NOT_HERE)},
        {**each(AWAITED + LOADING, later('the guest is not started')),
         **refused_there(*CUT_OFF)}),
    Row('cont', 'run state',
        {**each(STOPPED + HANDED + AWAY, no(UNFINISHED)),
         **each(GONE, special('takes the disks back and starts the guest: '
                              'only if it does not run elsewhere'))},
        each(AWAITED + LOADING, later('the guest is started'))),
    Row('system_reset', 'run state',
        {'attempt': ABORTS, **refused(*HANDED, *AWAY)},
        refused_there(*LOADING, *CUT_OFF)),
    Row('system_powerdown', 'run state',
        {'attempt': ABORTS, **refused(*HANDED, *AWAY)},
        refused_there(*AWAITED, *LOADING)),
    Row('system_wakeup', 'run state',
        each(STOPPED + HANDED + AWAY + GONE, no('not in suspended state')),
        each(AWAITED + LOADING, no('not in suspended state'))),
    Row('quit', 'run state',
        {**each(LEAVING + STOPPED, special('the migration is cancelled')),
         **each(HANDED + AWAY, special('the destination goes on with what it '
                                       'has'))},
        each(LOADING + ARRIVING + CUT_OFF, special(
            'the migration fails'))),
    *(Row(f'the guest: {name}', 'guest', EVENT, EVENT_IN)
      for name in ('reset', 'suspend', 'I/O error', 'watchdog', 'panic',
                   'power-off')),
    # Snapshots
    Row('savevm', 'snapshots', ALL_OUT, ALL_IN),
    Row('loadvm', 'snapshots', ALL_OUT, ALL_IN),
    Row('vmstate-check', 'snapshots', ALL_OUT, ALL_IN),
    Row('delvm', 'snapshots', refused(*HANDED, *AWAY, *GONE),
        refused_there(*AWAITED, *LOADING)),
    Row('snapshot-save', 'snapshots', ALL_OUT, ALL_IN),
    Row('snapshot-load', 'snapshots', ALL_OUT, ALL_IN),
    Row('snapshot-delete', 'snapshots', refused(*HANDED, *AWAY, *GONE),
        refused_there(*AWAITED, *LOADING)),
    # Migration
    Row('migrate', 'migration',
        {**each(OUTGOING, no(PROCESS)), **each(GONE, no(POSTMIGRATE))},
        {**each(AWAITED, no(WAITING)), **each(LOADING, no(WAITING)),
         **refused_there(*ARRIVING, *CUT_OFF)}),
    Row('migrate-check', 'migration',
        {**each(OUTGOING, no(PROCESS)), **each(GONE, no(LEFT))},
        {**each(AWAITED, no(WAITING)), **each(LOADING, no(WAITING)),
         **refused_there(*ARRIVING, *CUT_OFF)}),
    Row('migrate resume', 'migration',
        {**each(OUTGOING + GONE + HERE, no(RESUME)),
         'postcopy-paused': special('connects and goes on')},
        each(DESTINATION, no(RESUME))),
    Row('migrate-incoming', 'migration',
        each(OUTGOING, no('was not specified')),
        {**each(('none', 'failed'), special('listens')),
         **each(LOADING + ARRIVING + CUT_OFF + ('setup',),
                no('has already been started'))}),
    Row('migrate_cancel', 'migration',
        {**each(LEAVING + STOPPED, special('the guest goes on here')),
         **each(HANDED, no('too late to cancel')),
         **each(AWAY, no('too late to cancel')),
         **each(GONE + HERE, idle('there is nothing to cancel'))},
        each(DESTINATION, idle('there is nothing to cancel'))),
    Row('migrate-continue', 'migration',
        {**each(OUTGOING + GONE + HERE, no('not in expected state')),
         'pre-switchover': special('the migration goes on')},
        each(DESTINATION, no('not in expected state'))),
    Row('migrate-start-postcopy', 'migration',
        {**each(LEAVING + STOPPED + HANDED + GONE + HERE,
                no('Enable postcopy')),
         **each(AWAY, idle('it has been started'))},
        {**each(AWAITED + LOADING, no('Enable postcopy')),
         **each(ARRIVING + CUT_OFF, no('must be started after'))}),
    Row('migrate-pause', 'migration',
        {**each(LEAVING + STOPPED + HANDED + GONE + HERE, no(PAUSE)),
         'postcopy-active': special('the connection is cut'),
         'postcopy-paused': no(PAUSE),
         'postcopy-recover': special('the connection is cut')},
        {**each(AWAITED + LOADING + CUT_OFF, no(PAUSE)),
         'postcopy-active': special('the connection is cut')}),
    Row('migrate-recover', 'migration',
        each(SOURCE, no('only be run when')),
        {**each(AWAITED + LOADING + ARRIVING, no('only be run when')),
         'postcopy-paused': special('listens for the source')}),
    Row('yank', 'migration',
        {**each(LEAVING + STOPPED, special('the migration fails, the guest '
                                           'goes on here')),
         **each(HANDED, special('the guest stays stopped, as nobody can know '
                                'who has it')),
         **each(AWAY, special('the connection is cut, postcopy is paused'))},
        {**each(('setup',) + LOADING, special('the migration fails')),
         **each(ARRIVING, special('the connection is cut, postcopy is '
                                  'paused')),
         **each(CUT_OFF, idle('there is no connection'))}),
    Row('migrate-set-capabilities', 'migration', each(OUTGOING, no(PROCESS)),
        refused_there(*LOADING, *ARRIVING, *CUT_OFF)),
    Row('migrate-set-parameters', 'migration'),
    Row('query-migrate', 'migration'),
    # Devices and memory
    Row('device_add', 'devices', refused(*OUTGOING),
        refused_there(*LOADING, *ARRIVING, *CUT_OFF)),
    Row('device_del', 'devices', each(OUTGOING, no('not allowed while '
                                                   'migrating')),
        each(LOADING + ARRIVING + CUT_OFF, no('not allowed while migrating'))),
    Row('object-add memory-backend', 'devices'),
    Row('balloon', 'devices', {'attempt': ABORTS, **refused(*HANDED, *AWAY)},
        refused_there(*LOADING)),
    Row('object-del memory-backend', 'devices'),
    *(Row(f'device_add of a {what}', 'devices', refused(*OUTGOING),
          refused_there(*LOADING, *ARRIVING, *CUT_OFF))
      for what in ('CPU', 'DIMM')),
    *(Row(f'device_del of a {what}', 'devices',
          each(OUTGOING, no('not allowed while migrating')),
          each(LOADING + ARRIVING + CUT_OFF, no('not allowed while '
                                                'migrating')))
      for what in ('CPU', 'DIMM')),
    Row('device-sync-config', 'devices',
        each(OUTGOING, no('not allowed during migration'))),
    Row('virtio-mem, requested-size', 'devices',
        {'attempt': ABORTS, **refused(*HANDED, *AWAY)},
        refused_there(*LOADING)),
    Row('set_link', 'devices', {'attempt': ABORTS}),
    Row('announce-self', 'devices', refused(*HANDED, *AWAY, *GONE),
        refused_there(*AWAITED, *LOADING)),
    Row('o (HMP)', 'devices',
        {'attempt': ABORTS, **refused(*HANDED, *AWAY)},
        refused_there(*LOADING)),
    Row('mce (HMP)', 'devices',
        {'attempt': ABORTS, **refused(*HANDED, *AWAY)},
        refused_there(*LOADING, *CUT_OFF)),
    *(Row(name, 'devices') for name in (
        'netdev_add, netdev_del', 'chardev-add, chardev-remove', 'send-key',
        'rtc-reset-reinjection', 'set-action', 'watchdog-set-action')),
    *(Row(name, 'devices', {}, refused_there(*CUT_OFF)) for name in (
        'calc-dirty-rate', 'screendump', 'x and xp (HMP)', 'gva2gpa (HMP)',
        'info tlb and info mem (HMP)', 'x-query-virtio-queue-element')),
    Row('query-*', 'devices'),
    Row('inject-nmi', 'devices',
        {'attempt': ABORTS, **refused(*HANDED, *AWAY)},
        refused_there(*LOADING)),
    Row('dump-guest-memory', 'devices', refused(*OUTGOING),
        {**each(AWAITED + LOADING, no('Dump not allowed')),
         **refused_there(*ARRIVING, *CUT_OFF)}),
    Row('memsave', 'devices', {}, refused_there(*CUT_OFF)),
    Row('pmemsave', 'devices', {}, refused_there(*CUT_OFF)),
    # Disks
    Row('query-block', 'disks'),
    Row('blockdev-add', 'disks'),
    Row('blockdev-reopen', 'disks'),
    Row('blockdev-del', 'disks'),
    Row('blockdev-snapshot-sync', 'disks', refused(*OUTGOING)),
    Row('transaction', 'disks'),
    Row('transaction with a snapshot', 'disks', refused(*OUTGOING)),
    Row('blockdev-set-active', 'disks', refused(*STOPPED, *HANDED, *AWAY)),
    *(Row(name, 'disks', {'attempt': ABORTS}) for name in (
        'blockdev-open-tray', 'blockdev-insert-medium', 'eject')),
    Row('block_set_io_throttle', 'disks'),
    Row('block_resize', 'disks',
        {'attempt': ABORTS, **each(DISKLESS, no('inactive'))},
        each(DISKLESS_IN, no('inactive'))),
    disk_row('block-commit', 'nactive'),
    disk_row('block-stream', 'nactive'),
    disk_row('job-pause, job-resume', 'nactive'),
    disk_row('blockdev-backup', 'nactive'),
    disk_row('blockdev-mirror', 'nactive'),
    disk_row('blockdev-snapshot-internal-sync', 'internal snapshots'),
    Row('block-dirty-bitmap-add', 'disks'),
    Row('nbd-server-start', 'disks'),
    Row('block-export-add', 'disks', refused(*HANDED, *AWAY)),
]


HEAD = """\
.. This page is made by tests/phases/table.py --write; do not edit it.

Commands during a migration
===========================

What a command of the monitor does while a migration is in progress depends on
where the guest is.  A command that would harm the guest or the migration is
refused with a reason, before anything is changed; what was requested in a phase,
such as ``stop``, still holds when the migration fails or is cancelled.

Commands and events ask ``migration_permits()`` (``include/migration/permit.h``),
whose table of rules is in ``migration/core/permit.c``.  Requests that devices
and the guest make, such as for a reset, stay pending while the guest is handed
over, while it is loaded and while postcopy is paused; ``source/requests.c`` has
the guest leave only when no request is pending.  ``vm_start()`` asks as well,
so that nobody can start a guest that is not here or not complete.

``tests/phases/run`` gives every command in every phase, and what it does has to
be what is said here; the guest's own events are made by a firmware that does
what it is told. A command of QMP that is neither here nor in the list of those
that have nothing to do with the guest (``tests/phases/stories.py``) is a failure.  A phase is a status of ``query-migrate``, but for these:
*attempt* is ``device`` with ``strict-downtime`` on, before the guest is handed
over; *device* is the same status afterwards, when the source waits for the
answer of the destination; *held* is ``active`` on the destination of an
attempt.

In the tables ``+`` stands for "as without a migration"; letters and numbers
refer to the lists below them.  What is refused without a migration is refused
in the same words.
"""


class Legend:
    """Short marks for texts, in the order in which they are met."""

    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.notes: list[str] = []

    def mark(self, cell: Cell) -> str:
        """What stands in the table."""
        if cell.kind == 'works':
            return '+'
        texts = self.refusals if cell.kind == 'refused' else self.notes
        text = ('later: ' if cell.kind == 'later' else '') + cell.text
        if text not in texts:
            texts.append(text)
        number = texts.index(text)
        return chr(ord('a') + number) if cell.kind == 'refused' \
            else str(number + 1)

    def lines(self) -> list[str]:
        """The lists."""
        return ['Refused, and why:', '',
                *(f'- {chr(ord("a") + number)}: {text}'
                  for number, text in enumerate(self.refusals)),
                '', 'Accepted, and what it does:', '',
                *(f'- {number}: {text}'
                  for number, text in enumerate(self.notes, 1)), '']


# Why it is so, where a user may ask
REASONS = {
    'plug and unplug of devices, CPUs and memory':
        'the two machines have to be the same while the state of one is sent '
        'to the other.',
    'blockdev-snapshot, blockdev-snapshot-sync and transactions with them':
        'from then on the guest writes to an image that the destination was '
        'started without, and what it wrote would be lost. After the end of a '
        'migration to a file, which is how a snapshot with memory is made, '
        'they work.',
    'block-commit, blockdev-mirror, blockdev-reopen':
        'they work as long as the disk is here, as a disk may be moved '
        'together with the guest: the destination has to be started with the '
        'images that are in use in the end.',
    'block-export-add, blockdev-set-active':
        'they would make a disk active that the guest on the other side writes '
        'to. A disk that was made inactive would be missing for a guest that '
        'goes on here. An export with ``allow-inactive`` is not concerned.',
    'trays, media, links, the size of a disk':
        'these are not sent, but what the device says to the guest about them '
        'is: an attempt that has it already ends. On the destination the same '
        'has to be done by its own monitor.',
    'qom-set of requested-size (virtio-mem)':
        'it is sent with the device. The guest plugs nothing before the end of '
        'the migration.',
    'announce-self':
        'switches would send what is for the guest to where it is not.',
    'x, xp, gva2gpa, info mem, info tlb, screendump, memsave, calc-dirty-rate':
        'who reads memory that has not come waits for it, and with it the '
        'monitor that is needed for ``migrate-recover``.',
    'system_wakeup':
        'a guest that was put to sleep and then stopped is not asleep, but '
        'stopped; after a failure it sleeps again.',
    'migrate-incoming':
        'after a failed load the machine is reset. The CPUs of a confidential '
        'guest cannot be: then it is refused, and so is ``loadvm``.',
}


def reasons() -> list[str]:
    """The list of them."""
    lines = ['Why', '---', '']
    for what, why in REASONS.items():
        lines += textwrap.wrap(f'- **{what}**: {why}', 79,
                               subsequent_indent='  ',
                               break_on_hyphens=False)
    return lines


def grid(side: str, phases: tuple[str, ...]) -> list[str]:
    """The table of a side."""
    legend = Legend()
    lines = [f'{side.capitalize()}', '-' * len(side), '',
             '.. csv-table::', f'   :header: command, {", ".join(phases)}', '']
    for row in ROWS:
        marks = ', '.join(legend.mark(row.cell(side, phase))
                          for phase in phases)
        lines.append(f'   "{row.name}", {marks}')
    return [*lines, '', *legend.lines()]


def page() -> str:
    """The whole page."""
    return '\n'.join([HEAD, *grid('source', SOURCE),
                      *grid('destination', DESTINATION),
                      *reasons()]).rstrip() + '\n'


def main(argv: list[str]) -> int:
    """Print the page, or write it."""
    if argv == ['--write']:
        PAGE.write_text(page())
    elif argv:
        print(__doc__.splitlines()[2], file=sys.stderr)
        return 2
    else:
        print(page(), end='')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
