# The virtual machines of the interoperability test.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual machines of the interoperability test.

A boot of the guest takes seconds, a migration one or two.  So the guest of a
case that ended well goes on into the next one that wants it to start in the
same kind of QEMU; after a failure everything is thrown away.  A guest that has
booted is kept in a file as well, from which the next one of its kind goes on
that would have to boot.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any, Callable

from ferry.errors import FerryError
from ferry.guest import Guest, ensure, guest_args
from ferry.migrate import (Result, migrate, set_caps, set_params, tcp_uri,
                           unix_uri)
from ferry.observer import Observer
from ferry.paths import KINDS
from ferry.vm import VM
from ferrytest import suite
from ferrytest.suite import check
from ferrytest.tls import TLS, SharedKey

MEMORY = 256            # MiB
FILL = 96
WORK = 32
RATE = 4000             # pages a second, 16 MB/s
FAST = {'max-bandwidth': 128 << 20, 'downtime-limit': 300}
USUAL = 128 << 20       # max-bandwidth, by default
LOADED_WITHIN = 20.0    # s, for a guest that had booted before
BOOT_LIMIT = 120        # s; on a machine with time to spare it takes four
# Guests with these are not kept: memory that has a name of its own, and disks
PRIVATE = {'mem_backend', 'disk'}
OFF = {'xbzrle': False, 'auto-converge': False,
       'pause-before-switchover': False}


def contents(more: dict[str, Any]) -> str:
    """What of a VM's options is in its stream: settings of migration are not.
    """
    args = list(more.get('args', ()))
    while '-global' in args:
        at = args.index('-global')
        del args[at:at + 2]
    return repr(sorted({**more, 'args': args}.items()))


def wait_completed(vm: VM) -> None:
    """Wait until a stream has been written or loaded."""
    end = time.monotonic() + LOADED_WITHIN
    while (info := vm.qmp.cmd('query-migrate')).get('status') != 'completed':
        check(info.get('status') != 'failed' and time.monotonic() < end,
              f'{vm.name} saves or loads the guest that has booted: {info}')
        time.sleep(0.01)


class Lab(suite.Lab):
    """The guest, where it is, and where it goes next."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.kernel, self.initrd = ensure()
        self.vms: list[VM] = []
        self.source: VM | None = None
        self._guest: Guest | None = None
        self._observer: Observer | None = None
        self._key = SharedKey(workdir)
        self._numbers = itertools.count(1)
        self._booted: dict[str, Path] = {}      # streams, by what is in the VM
        self._usual: dict[str, dict] = {}       # parameters, by kind of QEMU
        self.began = time.monotonic_ns()    # the case

    @property
    def guest(self) -> Guest:
        """The guest of the source that boot() returned."""
        if self._guest is None:
            raise FerryError('there is no guest')
        return self._guest

    @property
    def observer(self) -> Observer:
        """The observer of that guest's heartbeats."""
        if self._observer is None:
            raise FerryError('there is no guest')
        return self._observer

    def vm(self, kind: str, wait: bool = True, **more: Any) -> VM:
        """Start a QEMU; it is ended with the case at the latest."""
        vm = self.prepared(kind, **more).start(wait)
        if wait and kind not in self._usual and not more.get('args'):
            self._usual[kind] = vm.qmp.cmd('query-migrate-parameters')
        return vm

    def prepared(self, kind: str, mem: int = MEMORY, modules: bool = False,
                 disk: bool = False, **more: Any) -> VM:
        """A QEMU that was not started."""
        name = f'{Path(kind).name}{next(self._numbers)}'
        vm = VM(kind, name, self.workdir, mem,
                kernel=self.kernel, initrd=self.initrd,
                append=guest_args(FILL, WORK, RATE, modules=modules,
                                    disk=disk), **more)
        self.vms.append(vm)
        return vm

    def target(self, kind: str, **more: Any) -> VM:
        """Start a QEMU that waits for a guest."""
        return self.vm(kind, incoming='defer', **more)

    def boot(self, kind: str, **more: Any) -> VM:
        """The guest, running in a QEMU of this kind."""
        self.began = time.monotonic_ns()
        if (self.source is not None and self.source.kind == kind
                and self.source.mem_backend == more.get('mem_backend')):
            self._set_back(self.source)
            self.guest.set_rate(RATE)
        else:
            self.boot_anew(kind, **more)
        self.observer.wait_beats(self.source, 200)
        return self.source

    def boot_anew(self, kind: str, **more: Any) -> VM:
        """The same, in a QEMU that is like no other; see vm()."""
        self.clear()
        stream = self._booted.get(contents(more)) if kind in KINDS else None
        self.source = (self.target if stream else self.vm)(kind, **more)
        self._observer = Observer()
        self._observer.attach(self.source)
        self._guest = Guest(self.source)
        if stream:
            self._load(self.source, stream)
        else:
            self._guest.wait_ready(BOOT_LIMIT)
            if kind in KINDS and not PRIVATE & more.keys():
                self._keep(self.source, contents(more))
        self.began = time.monotonic_ns()
        return self.source

    def _keep(self, vm: VM, name: str) -> None:
        """Write the guest to a file, for the next one that is like it."""
        stream = self.workdir / f'booted-{len(self._booted)}'
        vm.qmp.cmd('stop')
        set_params(vm, {'max-bandwidth': 0})
        vm.qmp.cmd('migrate', {'uri': f'file:{stream}'})
        wait_completed(vm)
        set_params(vm, {'max-bandwidth': USUAL})
        vm.qmp.cmd('cont')
        self._booted[name] = stream

    def _load(self, vm: VM, stream: Path) -> None:
        """Have the guest in VM go on where the one in STREAM was."""
        vm.qmp.cmd('migrate-incoming', {'uri': f'file:{stream}'})
        wait_completed(vm)
        if not vm.qmp.cmd('query-status')['running']:
            vm.qmp.cmd('cont')      # its state says that it was stopped
        self.guest.command('ping', 20)

    def _set_back(self, vm: VM) -> None:
        """Undo all that earlier migrations of the guest have set in VM.

        Compression comes first: some capabilities are refused with it.
        """
        usual = self._usual.get(vm.kind, {})
        now = vm.qmp.cmd('query-migrate-parameters')
        set_params(vm, {name: value for name, value in usual.items()
                        if now.get(name) != value})
        rows = vm.qmp.cmd('query-migrate-capabilities')
        set_caps(vm, {row['capability']: False for row in rows
                      if row['state']})

    def where(self) -> str:
        """The kind of QEMU where a guest is that the next case may take."""
        source = self.source
        return source.kind if source and not source.mem_backend else ''

    def uri(self, transport: str) -> str:
        """A fresh address to migrate to."""
        return tcp_uri() if transport == 'tcp' else unix_uri(self.workdir)

    def secure(self, target: VM) -> None:
        """Give the source and TARGET a key that they share."""
        assert self.source is not None
        self._key.give(self.source, target)

    def move(self, target: VM, transport: str = 'tcp', *,
             caps: dict[str, bool] | None = None,
             params: dict[str, int] | None = None, tls: bool = False,
             on_sample: Callable[[dict], None] | None = None,
             via: Callable[[str], str] | None = None) -> Result:
        """Migrate the guest to TARGET; on success that is the source.

        VIA is given where TARGET listens, and says where to connect to.
        What an earlier migration of the same guest has set is set back.
        """
        assert self.source is not None
        if tls:
            self.secure(target)
        uri = self.uri(transport)
        result = migrate(self.source, target, uri, via=via and via(uri),
                         caps={**OFF, **(caps or {})},
                         params={**(params or FAST),
                                 'tls-creds': TLS if tls else ''},
                         guest=self.guest, observer=self.observer,
                         on_sample=on_sample, interval=0.02, timeout=30)
        if result.ok:
            self.moved(target)
        return result

    def moved(self, target: VM) -> None:
        """The guest is in TARGET now; end the QEMU where it was."""
        assert self.source is not None
        self.drop(self.source)
        self.source = target

    def must_move(self, target: VM, transport: str = 'tcp',
                  **more: Any) -> Result:
        """Migrate and insist that all of it went well."""
        result = self.move(target, transport, **more)
        if not result.ok:
            raise FerryError(f'{result.status}: {result.error}')
        check(result.verified is True, 'the memory was verified')
        check(result.blackout_ms is not None, 'a hand-over was seen')
        check(result.iterations >= 2, 'the guest was dirtying memory: '
              f'{result.iterations} iteration(s)')
        return result

    def must_go_on(self) -> None:
        """Insist that the guest still runs, whole, in its source."""
        source = self.source
        assert source is not None
        source.check_alive()
        status = source.qmp.cmd('query-status')
        check(status['running'], 'the source goes on after a failed attempt: '
              f'it is "{status["status"]}"')
        before = self.guest.status()['writes']
        self.observer.wait_beats(source, 100)
        after = self.guest.status()['writes']
        check(after > before, 'the guest goes on writing')
        verdict = self.guest.verify()
        check(verdict.ok, verdict.detail)
        lost, repeated = self.observer.breaks(self.began)
        check(not lost and not repeated, 'all heartbeats came: '
              f'{lost} lost, {repeated} repeated')

    def drop(self, vm: VM) -> None:
        """End one QEMU."""
        vm.stop()
        self._key.forget(vm)
        if vm in self.vms:
            self.vms.remove(vm)
        if vm is self.source:
            self.source = None

    def tidy(self) -> None:
        """Between cases: keep the guest, if there is one, and nothing else."""
        for vm in list(self.vms):
            if vm is not self.source:
                self.drop(vm)

    def clear(self) -> None:
        """End everything."""
        if self._guest is not None:
            self._guest.close()
            self._guest = None
        if self._observer is not None:
            self._observer.stop()
            self._observer = None
        self.source = None
        for vm in list(self.vms):
            self.drop(vm)

    def last_words(self) -> list[str]:
        """What is known of the QEMUs that are left, for a failure."""
        words = []
        for vm in self.vms:
            state = 'runs' if vm.alive() else 'ended'
            words.append(f'{vm.name} {state}: {vm.log_tail(3) or "silent"}')
        if self._guest is not None:
            words.append(f'console: {self._guest.last_line()}')
        return words
