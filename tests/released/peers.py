# The QEMUs that Debian released, and what is known of them.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs that Debian released, and what is known of them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ferry import paths
from ferry.errors import FerryError, one_line
from ferrytest.abilities import Skip

FETCH = paths.ROOT / 'base' / 'fetch-qemu'
FETCH_LIMIT = 600       # s
NOT_OFFERED = 3         # its exit status then

SUITES = ('bookworm', 'trixie', 'trixie-backports')

# Up to this version a guest that runs under TCG may lose pages when it leaves,
# wherever it goes: the version of the source alone decides.
LOSES_PAGES = (7, 2)


@dataclass(frozen=True)
class Peer:
    """A QEMU of another version than ours."""
    suite: str
    binary: Path
    version: tuple[int, int]

    @property
    def name(self) -> str:
        """Its version, as in the names of cases."""
        return '.'.join(map(str, self.version))

    @property
    def must_stand(self) -> bool:
        """Whether a guest has to be stopped before it leaves this QEMU."""
        return self.version <= LOSES_PAGES


def fetch(suite: str) -> Peer:
    """The QEMU of SUITE, fetched if need be; Skip where there is none."""
    try:
        done = subprocess.run([str(FETCH), suite], text=True, check=False,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=FETCH_LIMIT)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise FerryError(f'cannot fetch QEMU of {suite}: {err}') from err
    if done.returncode == NOT_OFFERED:
        raise Skip(f'QEMU of {suite}: {one_line(done.stderr[-300:])}')
    if done.returncode:
        raise FerryError(f'cannot fetch QEMU of {suite}: '
                         f'{one_line(done.stderr[-300:])}')
    binary = Path(done.stdout.strip())
    return Peer(suite, binary, version_of(binary))


def ask(binary: Path, *args: str) -> str:
    """What the emulator prints when it is started with ARGS."""
    try:
        return subprocess.run([str(binary), *args], text=True, check=True,
                              stdin=subprocess.DEVNULL, timeout=30,
                              capture_output=True).stdout
    except (OSError, subprocess.SubprocessError) as err:
        raise FerryError(f'{binary} does not start: {err}') from err


def version_of(binary: Path) -> tuple[int, int]:
    """Major and minor version."""
    match = re.search(r'version (\d+)\.(\d+)', ask(binary, '--version'))
    if not match:
        raise FerryError(f'{binary} does not say which version it is')
    return int(match[1]), int(match[2])


def machines(binary: Path) -> set[tuple[int, int]]:
    """The versions of q35 that it has."""
    return {(int(major), int(minor)) for major, minor in re.findall(
        r'^pc-q35-(\d+)\.(\d+)\s', ask(binary, '-machine', 'help'), re.M)}


def common_machine(one: Path, other: Path) -> str:
    """The newest q35 that both have."""
    both = machines(one) & machines(other)
    if not both:
        raise FerryError(f'{one} and {other} have no machine in common')
    return 'pc-q35-{}.{}'.format(*max(both))
