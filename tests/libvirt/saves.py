# The cases of the libvirt test in which a guest is saved to a file.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases of the libvirt test in which a guest is saved to a file.

Host a has our QEMU, and host b the other one: what one has saved is restored on
the other.  Host b compresses what it saves (hosts.SAVE_FORMAT).
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import domain
import hosts
from cases import CASES, case      # CASES has those, too
from ferrytest.suite import Skip
from hosts import WORK, VirshError
from lab import MIB, TICKS_AFTER, Lab, check, wait_for

SAVED = WORK / 'saved'
SAVE_LIMIT = 60         # s
RAW, GZIP = b'\0', b'\1'
FORMAT_AT = 16 + 3 * 4  # in libvirt's header: name, version, length, running
HEADER = b'LibvirtQemudSave'


def gone(lab: Lab, name: str) -> None:
    """The guest runs nowhere any more."""
    wait_for(lambda: lab.idle(name), 'the QEMU that was saved did not go away')


def save(lab: Lab, name: str, *options: str) -> float:
    """Save the guest of host NAME; the seconds that virsh took."""
    SAVED.unlink(missing_ok=True)
    started = time.monotonic()
    lab.host(name).virsh('save', domain.NAME, str(SAVED), *options,
                         limit=SAVE_LIMIT)
    took = time.monotonic() - started
    gone(lab, name)
    with SAVED.open('rb') as file:
        header = file.read(FORMAT_AT + 1)
    check(header.startswith(HEADER), f'libvirt finished the file: {header}')
    want = GZIP if hosts.SAVE_FORMAT[name] == 'gzip' else RAW
    check(header[FORMAT_AT:] == want, f'it has the format of host {name}: '
          f'{header[FORMAT_AT:]}')
    least = domain.FILL_MIB * MIB
    check(SAVED.stat().st_size > least, f'it has the data of the guest: '
          f'{SAVED.stat().st_size} of {least}')
    return took


def restore(lab: Lab, name: str, *options: str) -> float:
    """Restore it on host NAME; the seconds that virsh took."""
    started = time.monotonic()
    lab.host(name).virsh('restore', str(SAVED), *options, limit=SAVE_LIMIT)
    return time.monotonic() - started


def goes_on(lab: Lab, name: str) -> None:
    """It runs there, alone and whole."""
    lab.check_moved(lab.other(name).name, name)


def over(lab: Lab, src: str, dst: str, *options: str) -> str:
    """Saved on SRC and restored on DST, each time with OPTIONS."""
    lab.guest_on(src, 'mixed')
    saved = save(lab, src, *options)
    size = SAVED.stat().st_size
    restored = restore(lab, dst, *options)
    goes_on(lab, dst)
    return (f'{size / MIB:.1f} MiB, saved in {saved:.1f} s, restored in '
            f'{restored:.1f} s')


@case('save-to-other', 'virsh save with our QEMU, restore with the other',
      pair='mixed')
def to_other(lab: Lab) -> str:
    return over(lab, 'a', 'b')


@case('save-from-other', 'the other way round, compressed', pair='mixed')
def from_other(lab: Lab) -> str:
    return over(lab, 'b', 'a')


@case('save-direct', '--bypass-cache, to and fro', pair='mixed', full=True)
def direct(lab: Lab) -> str:
    try:
        os.close(os.open(WORK / 'probe', os.O_CREAT | os.O_RDWR | os.O_DIRECT))
    except OSError as err:
        raise Skip(f'{WORK} has no O_DIRECT: {err.strerror}') from err
    return (f'{over(lab, "a", "b", "--bypass-cache")}; back '
            f'{over(lab, "b", "a", "--bypass-cache")}')


@case('save-paused', 'a guest that is suspended is saved so', pair='mixed',
      full=True)
def paused(lab: Lab) -> str:
    lab.guest_on('a', 'mixed')
    lab.host('a').virsh('suspend', domain.NAME)
    save(lab, 'a')
    restore(lab, 'b')
    check(lab.state('b') == 'paused', f'it is still paused: {lab.state("b")}')
    said = domain.ticks()
    time.sleep(0.2)
    check(domain.ticks() == said, 'it does not run')
    lab.host('b').virsh('resume', domain.NAME)
    goes_on(lab, 'b')
    lab.host('b').virsh('suspend', domain.NAME)
    save(lab, 'b')
    restore(lab, 'a', '--running')
    goes_on(lab, 'a')
    return ''


@case('save-managed', 'virsh managedsave, and start', pair='mixed')
def managed(lab: Lab) -> str:
    lab.guest_on('a', 'mixed')
    return managed_on(lab, 'a')


@case('save-managed-other', 'the same with the other QEMU, then with ours',
      pair='mixed', full=True)
def managed_other(lab: Lab) -> str:
    lab.guest_on('b', 'mixed')
    keep(lab, 'b')
    shutil.move(kept(lab, 'b'), kept(lab, 'a').parent)
    # the daemon knows of a file that was there when it started
    return take(lab, 'a')


def kept(lab: Lab, name: str) -> Path:
    """Where libvirt keeps the state of a guest that it manages."""
    folder = lab.host(name).dir / 'var/lib/libvirt/qemu/save'
    return folder / f'{domain.NAME}.save'


def keep(lab: Lab, name: str) -> None:
    """Save the guest where libvirt starts it from next."""
    lab.host(name).virsh('managedsave', domain.NAME, limit=SAVE_LIMIT)
    gone(lab, name)
    check(kept(lab, name).is_file(), f'there is a {kept(lab, name)}')


def take(lab: Lab, name: str) -> str:
    """Start it."""
    lab.host(name).virsh('start', domain.NAME, limit=SAVE_LIMIT)
    domain.wait_ticks(TICKS_AFTER)
    goes_on(lab, name)
    check(not kept(lab, name).exists(), 'the file is gone')
    return f'{domain.ticks()} ticks'


def managed_on(lab: Lab, name: str) -> str:
    """To and from the file of host NAME."""
    keep(lab, name)
    return take(lab, name)


@case('save-live', 'snapshot-create-as --live --memspec, then restored',
      pair='mixed', full=True)
def live(lab: Lab) -> str:
    lab.guest_on('a', 'mixed')
    SAVED.unlink(missing_ok=True)
    before = domain.ticks()
    lab.host('a').virsh('snapshot-create-as', domain.NAME, '--live',
                        '--no-metadata', '--memspec', f'file={SAVED}',
                        limit=SAVE_LIMIT)
    lab.check_stayed('a', 'b')
    lab.host('a').virsh('destroy', domain.NAME)
    gone(lab, 'a')
    after = domain.ticks()
    first = set_back(lab, 'b')
    check(before <= first < after, 'it is the guest as it was meanwhile: '
          f'{before} <= {first} < {after}')
    goes_on(lab, 'b')
    return f'at tick {first} of {before} to {after}'


def set_back(lab: Lab, name: str) -> int:
    """Restore the guest as it was once; what its first whole tick is.

    The log is made to say that all ticks before were good.
    """
    host = lab.host(name)
    restore(lab, name, '--paused')
    domain.SERIAL.write_bytes(b'')
    host.virsh('resume', domain.NAME)
    wait_for(lambda: domain.SERIAL.read_bytes().count(b'\n') > 2,
             'the guest does not go on')
    host.virsh('suspend', domain.NAME)
    # of the first line it may have said a part before
    _, said = domain.SERIAL.read_bytes().split(b'\n', 1)
    first = int(said.split()[1])
    domain.SERIAL.write_bytes(b''.join(
        f'tick {number} bad 0\n'.encode() for number in range(first)) + said)
    host.virsh('resume', domain.NAME)
    return first


@case('save-no-room', 'the disk is full: the guest goes on', pair='mixed')
def no_room(lab: Lab) -> str:
    lab.guest_on('a', 'mixed')
    error = ''
    try:
        lab.host('a').virsh('save', domain.NAME, str(hosts.SMALL / 'saved'),
                            limit=SAVE_LIMIT)
    except VirshError as err:
        error = str(err)
    check('No space left' in error, f'it says why: "{error or "success"}"')
    lab.check_stayed('a', 'b')
    return f'"{error}"'
