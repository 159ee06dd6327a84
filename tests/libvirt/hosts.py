# Two libvirt daemons on one machine, each taking itself for a host.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Two libvirt daemons on one machine, each taking itself for a host.

Everything is below WORK, in the sandbox's private /run.  Each host has its own
network namespace (a pair of virtual interfaces with documentation addresses
connects them), its own name, /etc/libvirt, /run/libvirt and /var, and a socket
that both can reach, so that either can also be told to talk to the other.

A domain names its emulator by path, and the path has to hold on both hosts:
WORK/emulator/PAIR is a mount point over which each host lays its own QEMU.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator

from ferry.errors import FerryError, one_line

HERE = Path(__file__).resolve().parent
WORK = Path('/run/ferry-libvirt')

CALL_LIMIT = 30                 # seconds for one virsh command
START_LIMIT = 90                # for a daemon to come up, probing included

NAMES = ('a', 'b')
ADDRESS = {'a': '192.0.2.1', 'b': '192.0.2.2'}
UUID = {'a': 'aaaaaaaa-1111-4111-8111-111111111111',
        'b': 'bbbbbbbb-2222-4222-8222-222222222222'}

# How each host compresses what it saves; libvirt has a program do it.
SAVE_FORMAT = {'a': 'raw', 'b': 'gzip'}

# A file system in which a guest has no room.
SMALL = WORK / 'small'
SMALL_MIB = 20

# The driver insists that its compiled-in user exists, even with user = "root".
PASSWD = 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n'
GROUP = 'libvirt-qemu:x:64055:\n'

LIBVIRTD_CONF = '''\
host_uuid = "{uuid}"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
log_outputs = "2:file:{log}"
'''

QEMU_CONF = '''\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
migration_address = "{address}"
save_image_format = "{format}"
'''


# Listens on the address and port that its arguments name.
LISTENER = '''\
import socket, sys, time
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('listening', flush=True)
time.sleep(600)
'''


class VirshError(FerryError):
    """A virsh command failed; the text is what it said."""


def _append(source: str, line: str, target: Path) -> None:
    """Copy the file SOURCE to TARGET, with LINE instead of its like."""
    user = line.split(':')[0] + ':'
    with open(source, encoding='utf-8', errors='surrogateescape') as stream:
        kept = [old for old in stream if not old.startswith(user)]
    target.write_text(''.join(kept) + line, encoding='utf-8',
                      errors='surrogateescape')


class Host:
    """One libvirt daemon; EMULATORS says which QEMU each path is here."""

    def __init__(self, name: str, emulators: dict[Path, Path]) -> None:
        self.name = name
        self.dir = WORK / name
        self.address = ADDRESS[name]
        self.uri = ('qemu+unix:///system?socket='
                    f'{self.dir}/run/libvirt-sock')
        self.log = self.dir / 'libvirtd.log'
        self._emulators = emulators
        self._daemon: subprocess.Popen[bytes] | None = None
        self._write_files()

    def _write_files(self) -> None:
        etc = self.dir / 'etc'
        for path in ('etc/libvirt', 'run', 'var/lib', 'var/tmp', 'var/log',
                     'var/cache'):
            (self.dir / path).mkdir(parents=True)
        (self.dir / 'var/run').symlink_to('/run')
        _append('/etc/passwd', PASSWD, etc / 'passwd')
        _append('/etc/group', GROUP, etc / 'group')
        (etc / 'hosts').write_text('127.0.0.1 localhost\n' + ''.join(
            f'{ADDRESS[name]} host-{name}.test\n' for name in NAMES))
        (etc / 'libvirt/libvirtd.conf').write_text(LIBVIRTD_CONF.format(
            uuid=UUID[self.name], log=self.log))
        # A loopback address would be refused here.
        (etc / 'libvirt/qemu.conf').write_text(QEMU_CONF.format(
            address=self.address, format=SAVE_FORMAT[self.name]))

    def launch(self) -> None:
        """Start the daemon; wait_up() says when it is ready."""
        mounts = [f'{path}={qemu}' for path, qemu in self._emulators.items()]
        with open(self.dir / 'stdout', 'wb') as output:
            self._daemon = subprocess.Popen(
                ['ip', 'netns', 'exec', self.name, 'unshare', '--mount',
                 '--uts', '--propagation', 'private',
                 str(HERE / 'host.sh'), self.name, str(self.dir), *mounts],
                stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT)

    def wait_up(self) -> None:
        """Wait until the daemon answers."""
        deadline = time.monotonic() + START_LIMIT
        while True:
            self.check_alive()
            try:
                self.virsh('list')
                return
            except VirshError as err:
                if time.monotonic() > deadline:
                    raise FerryError(
                        f'host {self.name}: libvirtd did not come up in '
                        f'{START_LIMIT} s: {err}') from None
            time.sleep(0.1)

    def check_alive(self) -> None:
        """Raise if the daemon has ended."""
        status = self._daemon.poll() if self._daemon else 'never started'
        if status is not None:
            tail = (self.dir / 'stdout').read_text(errors='replace')[-300:]
            raise FerryError(f'host {self.name}: libvirtd ended, status '
                             f'{status}: {one_line(tail) or "no output"}')

    def probe(self, emulator: Path) -> subprocess.Popen[str]:
        """Start asking EMULATOR what it can do; the daemon keeps the answer.

        It takes seconds, which would otherwise be part of the first migration.
        """
        return self.virsh_start('domcapabilities', '--virttype', 'qemu',
                                '--emulatorbin', str(emulator))

    def _command(self, *args: str) -> list[str]:
        return ['virsh', '-q', '-c', self.uri, *args]

    def virsh(self, *args: str, limit: float = CALL_LIMIT) -> str:
        """Run a virsh command to its end; what it printed."""
        try:
            done = subprocess.run(self._command(*args), text=True,
                                  stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=limit,
                                  check=False)
        except subprocess.TimeoutExpired:
            raise VirshError(f'virsh {args[0]} on host {self.name} did not '
                             f'return within {limit:.0f} s') from None
        if done.returncode != 0:
            raise VirshError(f'virsh {args[0]} on host {self.name}: '
                             f'{one_line(done.stderr)}')
        return done.stdout

    def virsh_start(self, *args: str) -> subprocess.Popen[str]:
        """Start a virsh command; errors are on the process's stderr pipe."""
        return subprocess.Popen(self._command(*args), text=True,
                                stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE)

    def version(self) -> str:
        """The version of the host's libvirt, such as 9.0.0."""
        done = subprocess.run(['libvirtd', '--version'], text=True, check=True,
                              capture_output=True, timeout=CALL_LIMIT)
        return done.stdout.split()[-1]

    def qemu_pid(self, domain: str) -> int | None:
        """The process of DOMAIN's QEMU on this host, if there is one."""
        try:
            return int((self.dir / f'run/qemu/{domain}.pid').read_text())
        except (OSError, ValueError):
            return None

    def occupy(self, port: int) -> subprocess.Popen[bytes]:
        """Start a program that listens on PORT of this host."""
        process = subprocess.Popen(
            ['ip', 'netns', 'exec', self.name, sys.executable, '-c', LISTENER,
             self.address, str(port)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if not process.stdout.readline():
            raise FerryError(f'host {self.name}: cannot listen on port {port}')
        return process

    def save_logs(self, target: Path) -> None:
        """Copy the daemon's and its QEMUs' logs below TARGET."""
        target = target / f'host-{self.name}'
        target.mkdir(parents=True, exist_ok=True)
        qemu_logs = (self.dir / 'var/log/libvirt/qemu').glob('*.log')
        for log in (self.log, self.dir / 'stdout', *qemu_logs):
            if log.exists():
                shutil.copy(log, target)


def _ip(*args: str) -> None:
    subprocess.run(['ip', *args], check=True)


def _connect() -> None:
    """Make both network namespaces and the link between them."""
    for name in NAMES:
        _ip('netns', 'add', name)
    _ip('-n', 'a', 'link', 'add', 'migration', 'type', 'veth',
        'peer', 'name', 'migration', 'netns', 'b')
    for name in NAMES:
        _ip('-n', name, 'link', 'set', 'lo', 'up')
        _ip('-n', name, 'address', 'add', f'{ADDRESS[name]}/30',
            'dev', 'migration')
        _ip('-n', name, 'link', 'set', 'migration', 'up')


def _small_disk() -> None:
    """Both hosts see it, as they begin later."""
    SMALL.mkdir()
    subprocess.run(['mount', '-n', '-t', 'tmpfs', '-o', f'size={SMALL_MIB}m',
                    'none', SMALL], check=True)


# How soon a connection is given up that nobody answers on: about 3 s, by who
# sends as well as by who does not.
IMPATIENT = {'tcp_retries2': 3, 'tcp_keepalive_time': 1,
             'tcp_keepalive_intvl': 1, 'tcp_keepalive_probes': 3}


@contextmanager
def link_down() -> Iterator[None]:
    """Cut the link between the hosts: packets get lost, nobody is told.

    What runs inside is not to end before both sides have noticed.
    """
    for name in NAMES:
        for setting, value in IMPATIENT.items():
            _inside(name, 'sh', '-c',
                    f'echo {value} >/proc/sys/net/ipv4/{setting}')
    _ip('-n', 'a', 'link', 'set', 'migration', 'down')
    try:
        yield
    finally:
        _ip('-n', 'a', 'link', 'set', 'migration', 'up')


def _inside(name: str, *command: str) -> None:
    """Run COMMAND in the network of host NAME."""
    subprocess.run(['ip', 'netns', 'exec', name, *command], check=True,
                   timeout=CALL_LIMIT)


def emulator(pair: str) -> Path:
    """The emulator path of PAIR, the same on both hosts."""
    return WORK / 'emulator' / pair


def start(pairs: dict[str, tuple[Path, Path]]) -> dict[str, Host]:
    """Bring both hosts up.

    PAIRS maps the name of a pair to host a's and host b's QEMU binary.
    """
    (WORK / 'emulator').mkdir(parents=True)
    Path('/run/libvirt').mkdir()
    for pair in pairs:
        emulator(pair).touch(0o755)
    _small_disk()
    _connect()
    hosts = {name: Host(name, {emulator(pair): binaries[index]
                               for pair, binaries in pairs.items()})
             for index, name in enumerate(NAMES)}
    for host in hosts.values():
        host.launch()
    for host in hosts.values():
        host.wait_up()
    _probe(hosts.values(), pairs)
    return hosts


def _probe(hosts: Iterable[Host], pairs: dict[str, tuple[Path, Path]]) -> None:
    """Have all hosts look at all their QEMUs, at the same time."""
    probes = [(host, binaries[index], host.probe(emulator(pair)))
              for index, host in enumerate(hosts)
              for pair, binaries in pairs.items()]
    deadline = time.monotonic() + START_LIMIT
    for host, binary, probe in probes:
        try:
            _, errors = probe.communicate(
                timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise FerryError(f'host {host.name}: libvirt did not finish '
                             f'looking at {binary} in {START_LIMIT} s'
                             ) from None
        if probe.returncode != 0:
            raise FerryError(f'host {host.name}: libvirt cannot use {binary}: '
                             f'{one_line(errors)}')
