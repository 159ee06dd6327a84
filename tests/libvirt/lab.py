# What the cases do with the two hosts and the guest.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the cases do with the two hosts and the guest.

One guest lives through as many cases as it can: a case says where it wants the
guest (Lab.guest_on()) and leaves it wherever it ends up.  After a failed case
the guest is thrown away, so that the next one starts afresh.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Callable

import domain
import hosts
from ferry.errors import FerryError, one_line
from ferrytest import suite

MIGRATE_LIMIT = 60
SETTLE_LIMIT = 15               # for a host to notice what happened
TICKS_AFTER = domain.SWEEP + 2  # the guest has to go on for that many

MIB = 1 << 20
SLOW = ('--bandwidth', '10')    # MiB/s: leaves seconds to interfere
MIDDLE = 8 * MIB                # under way, with most still to come

JobInfo = dict[str, int]


class CheckError(FerryError):
    """Something is not as the test demands."""


def check(holds: bool, text: str) -> None:
    """Raise CheckError(TEXT) unless it HOLDS."""
    if not holds:
        raise CheckError(text)


def wait_for(condition: Callable[[], bool], what: str,
             limit: float = SETTLE_LIMIT) -> None:
    """Wait until CONDITION() holds; WHAT says what did not happen."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise CheckError(f'{what} within {limit:.0f} s')
        time.sleep(0.05)


class Migration:
    """A virsh migrate command at work."""

    def __init__(self, src: hosts.Host,
                 process: subprocess.Popen[str]) -> None:
        self._src = src
        self._process = process
        self._started = time.monotonic()
        self._errors: str | None = None     # once it has ended

    def running(self) -> bool:
        return self._process.poll() is None

    def wait_figure(self, name: str, least: int) -> int:
        """Wait until domjobinfo has at least LEAST for NAME; return that."""
        deadline = time.monotonic() + MIGRATE_LIMIT
        while (value := self.figure(name)) < least:
            if not self.running():
                raise CheckError(f'the migration ended ({self.error() or "ok"}'
                                 f') before {name} was {least}')
            check(time.monotonic() < deadline,
                  f'{name} is still {value} after {MIGRATE_LIMIT} s')
            time.sleep(0.1)
        return value

    def figure(self, name: str) -> int:
        """What domjobinfo has for NAME now, 0 if nothing."""
        try:
            return job_info(self._src).get(name, 0)
        except hosts.VirshError:
            # The guest has just left, and virsh migrate is about to end.
            self.error()
            return 0

    def wait_middle(self) -> None:
        """Wait until a good part of the guest has been sent, but not all."""
        self.wait_figure('data_processed', MIDDLE)

    def error(self, limit: float = MIGRATE_LIMIT) -> str:
        """Wait for the end; the error that virsh printed, '' on success."""
        if self._errors is None:
            try:
                _, self._errors = self._process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                self.kill()
                raise CheckError('virsh migrate did not end within '
                                 f'{limit:.0f} s') from None
        if self._process.returncode == 0:
            return ''
        return one_line(self._errors) or f'status {self._process.returncode}'

    def finish(self) -> float:
        """Wait for success; the seconds that virsh took in all."""
        error = self.error()
        check(not error, f'virsh migrate: {error}')
        return time.monotonic() - self._started

    def kill(self) -> None:
        """End the command, if it still runs."""
        if self.running():
            self._process.kill()
        self._process.wait()
        self._process.stderr.close()


def job_info(host: hosts.Host, *options: str) -> JobInfo:
    """The figures of domjobinfo on HOST, under libvirt's own names."""
    info = {}
    for line in host.virsh('domjobinfo', domain.NAME, '--rawstats',
                           *options).splitlines():
        name, _, value = line.partition(':')
        if value.strip().lstrip('-').isdigit():
            info[name.strip()] = int(value)
    return info


class Lab(suite.Lab):
    """The two hosts and the guest."""

    def __init__(self, folder: Path, both: dict[str, hosts.Host]) -> None:
        self._folder = folder
        self._hosts = both
        self._kind: tuple[str, bool, str] | None = None
        self._migrations: list[Migration] = []

    def host(self, name: str) -> hosts.Host:
        return self._hosts[name]

    def other(self, name: str) -> hosts.Host:
        return self._hosts['b' if name == 'a' else 'a']

    def state(self, name: str) -> str:
        """The guest's state on host NAME; 'absent' if unknown there."""
        try:
            return self.host(name).virsh('domstate', domain.NAME).strip()
        except hosts.VirshError as err:
            if 'failed to get domain' in str(err):
                return 'absent'
            raise

    def idle(self, name: str) -> bool:
        """Whether host NAME has neither the guest nor a QEMU for it."""
        return (self.state(name) in ('shut off', 'absent')
                and self.host(name).qemu_pid(domain.NAME) is None)

    # Having a guest

    def guest_on(self, name: str, pair: str = 'same', disk: bool = False,
                 rdma: str = '') -> None:
        """Have a healthy guest, run by the QEMUs of PAIR, on host NAME."""
        if self._kind != (pair, disk, rdma):
            self.drop_guest()
            self._start_guest(name, pair, disk, rdma)
        elif self.state(name) != 'running':
            self.migrate(self.other(name).name, name)
        domain.wait_ticks(1)

    def _start_guest(self, name: str, pair: str, disk: bool,
                     rdma: str) -> None:
        # Defined on both, so that it is persistent on both: libvirt keeps
        # the figures of a migration only for a domain that it still knows.
        xml = domain.write_xml(pair, disk, rdma)
        for host in self._hosts.values():
            host.virsh('define', str(xml))
        domain.SERIAL.write_bytes(b'')
        if disk:
            self.make_disks(name)
        self.host(name).virsh('start', domain.NAME)
        self._kind = pair, disk, rdma
        domain.wait_ticks(2, domain.BOOT_LIMIT)

    def make_disks(self, name: str) -> None:
        """Give the guest a disk on host NAME, and room for it on the other."""
        size = domain.DISK_MIB * MIB
        with open('/dev/urandom', 'rb') as noise:
            domain.disk_path(self.host(name)).write_bytes(noise.read(size))
        with open(domain.disk_path(self.other(name)), 'wb') as image:
            image.truncate(size)

    def tidy(self) -> None:
        """The guest goes on into the next case, if both daemons live."""
        for host in self._hosts.values():
            host.check_alive()

    def clear(self) -> None:
        self.tidy()
        self.drop_guest()

    def __exit__(self, *_exc: object) -> None:
        """The sandbox ends, and all that is in it."""

    def drop_guest(self) -> None:
        """Get rid of the guest and of unfinished migrations."""
        for migration in self._migrations:
            migration.kill()
        self._migrations.clear()
        self._kind = None
        for name, host in self._hosts.items():
            if self.state(name) not in ('shut off', 'absent'):
                host.virsh('destroy', domain.NAME)
            wait_for(lambda n=name: self.idle(n),
                     f'host {name} did not get rid of the guest')

    # Migrating it

    def start(self, src: str, dst: str, *options: str,
              migrate_uri: str | None = None) -> Migration:
        """Start virsh migrate --live with OPTIONS."""
        source, target = self.host(src), self.host(dst)
        uri = migrate_uri or f'tcp://{target.address}'
        command = ['migrate', '--live', domain.NAME, target.uri]
        if uri != 'tunnel':
            command += ['--migrateuri', uri]
        migration = Migration(source, source.virsh_start(*command, *options))
        self._migrations.append(migration)
        return migration

    def migrate(self, src: str, dst: str, *options: str,
                migrate_uri: str | None = None) -> float:
        """Migrate and check the guest; the seconds that virsh took."""
        wall = self.start(src, dst, *options,
                          migrate_uri=migrate_uri).finish()
        self.check_moved(src, dst)
        return wall

    # Looking at it afterwards

    def check_moved(self, src: str, dst: str) -> None:
        """The guest runs on DST alone, and nothing was lost on the way."""
        states = self.state(src), self.state(dst)
        check(states == ('shut off', 'running'),
              f'after the migration the guest is "{states[0]}" on the source '
              f'and "{states[1]}" on the destination')
        wait_for(lambda: self.idle(src), 'the source QEMU did not go away')
        domain.wait_ticks(TICKS_AFTER)

    def check_stayed(self, src: str, dst: str) -> None:
        """The guest runs on SRC alone, and nothing was lost."""
        wait_for(lambda: self.idle(dst),
                 'the destination did not get rid of the guest')
        state = self.state(src)
        check(state == 'running', f'after the failed migration the guest is '
              f'"{state}" on the source')
        domain.wait_ticks(TICKS_AFTER)

    def save_logs(self) -> None:
        """Copy what the daemons, the QEMUs and the guest said."""
        for host in self._hosts.values():
            host.save_logs(self._folder)
        if domain.SERIAL.exists():
            (self._folder / 'serial.log').write_bytes(
                domain.SERIAL.read_bytes())
