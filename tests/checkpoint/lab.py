# A guest that is protected, those that protect it, and somebody outside.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is protected, those that protect it, and somebody outside.

The guest goes from QEMU to QEMU by failovers and stays the same one all the
time: it is booted once, and whatever has become of its memory since then shows.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

from ferry.errors import FerryError
from ferry.guest import Guest, ensure, guest_args
from ferry.link import Link
from ferry.migrate import set_caps, set_params, tcp_uri
from ferry.vm import VM
from ferrytest import suite
from ferrytest.suite import check

from outside import Outside

MEMORY = 192            # MiB
FILL, WORK = 48, 16
RATE = 2000             # pages a second, 8 MB/s
PACKETS = 400           # a second
BOOT_LIMIT = 120        # s
LIMIT = 30.0            # s, for whatever has to happen
POLL = 0.005            # s
CAPS = {'return-path': True, 'checkpoint': True, 'events': True}
PARAMS = {'max-bandwidth': 1 << 30, 'checkpoint-interval': 50,
          'checkpoint-timeout': 5000, 'checkpoint-on-loss': 'stop'}


def told(vm: VM) -> tuple[str, dict, str]:
    """Status of the migration, what it says of checkpoints, and its error."""
    info = vm.qmp.cmd('query-migrate')
    return (info.get('status', 'none'),
            info.get('progress', {}).get('checkpoint', {}),
            info.get('error-desc', ''))


def runs(vm: VM) -> bool:
    """Whether the guest does."""
    return vm.qmp.cmd('query-status')['running']


class Lab(suite.Lab):
    """One guest, its primary, and its secondary if it has one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel, self.initrd = ensure()
        self._numbers = itertools.count(1)
        self.vms: list[VM] = []
        self.primary: VM | None = None
        self.secondary: VM | None = None
        self.link: Link | None = None
        self._guest: Guest | None = None
        self._outside: Outside | None = None

    @property
    def guest(self) -> Guest:
        """The guest of boot()."""
        assert self._guest is not None
        return self._guest

    @property
    def outside(self) -> Outside:
        """Who gets its packets."""
        if self._outside is None:
            self._outside = Outside(self.folder)
        return self._outside

    def vm(self, *, queue: str = '', filtered: bool = True, more: str = '',
           args: tuple[str, ...] = (), **options: Any) -> VM:
        """Start a QEMU for this guest."""
        name = f'vm{next(self._numbers)}'
        vm = VM('ferry', name, self.folder, MEMORY, kernel=self.kernel,
                initrd=self.initrd,
                append=guest_args(FILL, WORK, RATE, net=PACKETS),
                args=[*self.outside.args(name, queue, filtered, more), *args],
                **options)
        self.vms.append(vm)
        return vm.start()

    def boot(self, **options: Any) -> VM:
        """The guest, running and not protected."""
        if self.primary is None or options:
            self.clear()
            self.primary = self.vm(**options)
            self._guest = Guest(self.primary)
            self._guest.wait_ready(BOOT_LIMIT)
        self.outside.wait_beat(self.primary.name)
        return self.primary

    def protect(self, params: dict[str, Any] | None = None,
                linked: bool = False, epochs: int = 1, **options: Any
                ) -> tuple[VM, VM]:
        """The guest on a primary, and a secondary that knows EPOCHS of it."""
        primary = self.boot()
        self.secondary = secondary = self.vm(incoming='defer', **options)
        for vm in (primary, secondary):
            set_caps(vm, CAPS)
            set_params(vm, {**PARAMS, **(params or {})})
        uri = tcp_uri()
        secondary.qmp.cmd('migrate-incoming', {'uri': uri,
                                               'exit-on-error': False})
        if linked:
            self.link = Link()
            self.link.aim(uri)
            uri = self.link.uri
        self.guest.expect(secondary)
        primary.qmp.cmd('migrate', {'uri': uri})
        self.wait_epoch(secondary, epochs)
        return primary, secondary

    def until(self, what: str, done: Any, limit: float = LIMIT) -> None:
        """Wait until DONE()."""
        end = time.monotonic() + limit
        while not done():
            if time.monotonic() > end:
                raise FerryError(f'not within {limit:.0f} s: {what}: '
                                 + '; '.join(self._known()))
            time.sleep(POLL)

    def _known(self) -> list[str]:
        return [f'{vm.name} {told(vm)}' for vm in
                (self.primary, self.secondary) if vm is not None
                and vm.alive() and not self._is_stopped(vm)]

    @staticmethod
    def _is_stopped(vm: VM) -> bool:
        """By SIGSTOP"""
        text = Path(f'/proc/{vm.pid}/stat').read_text()
        return text.rpartition(')')[2].split()[0] in 'Tt'

    def wait_epoch(self, vm: VM, epoch: int) -> None:
        """Wait until VM knows EPOCH."""
        def there() -> bool:
            status, checkpoint, why = told(vm)
            check(status in ('none', 'setup', 'active'),
                  f'{vm.name} goes on: {status} {why}')
            return checkpoint.get('epoch', 0) >= epoch
        self.until(f'{vm.name} knows epoch {epoch}', there)

    def taken_over(self) -> VM:
        """The secondary has the guest, and is alone with it."""
        old, new = self.primary, self.secondary
        assert old is not None and new is not None
        self.until('the secondary has the guest', lambda:
                   told(new)[0] == 'completed' and runs(new))
        self.guest.move_to(new)
        self.primary, self.secondary = new, None
        self.drop(old)
        if self.link is not None:
            self.link.close()
            self.link = None
        return new

    def unprotect(self) -> None:
        """The secondary is gone; the guest goes on in the primary."""
        if self.secondary is not None:
            self.guest.forget(self.secondary)
            self.drop(self.secondary)
            self.secondary = None
        if self.link is not None:
            self.link.close()
            self.link = None

    def verify(self) -> int:
        """All of the guest's memory; how many writes it has seen."""
        verdict = self.guest.verify()
        check(verdict.ok, verdict.detail)
        return verdict.writes

    def drop(self, vm: VM) -> None:
        """End one QEMU, whatever has become of it."""
        if vm in self.vms:
            self.vms.remove(vm)
        if vm.alive():
            vm.kill()
        else:
            vm.stop()
        self.outside.forget(vm.name)

    def stop_process(self, vm: VM) -> None:
        """As if the host had been stopped: it does nothing, and holds all."""
        os.kill(vm.pid, signal.SIGSTOP)
        end = time.monotonic() + LIMIT
        while not self._is_stopped(vm):
            check(time.monotonic() < end, 'the process stops')
            time.sleep(POLL)

    # For the suite

    def last_words(self) -> list[str]:
        words = [f'{vm.name} {"runs" if vm.alive() else "ended"}: '
                 f'{vm.log_tail(3) or "silent"}' for vm in self.vms]
        if self._guest is not None:
            words.append(f'console: {self._guest.last_line()}')
        return words

    def tidy(self) -> None:
        """Keep the guest where it runs."""
        if self.primary is None or not self.primary.alive() or \
                not runs(self.primary):
            self.clear()
            return
        if told(self.primary)[0] in ('setup', 'active'):
            self.primary.qmp.cmd('migrate_cancel')
            self.until('the migration ends', lambda: told(self.primary)[0]
                       not in ('setup', 'active', 'cancelling'))
        self.unprotect()
        for vm in list(self.vms):
            if vm is not self.primary:
                self.drop(vm)

    def clear(self) -> None:
        """End everything."""
        if self._guest is not None:
            self._guest.close()
            self._guest = None
        self.primary = self.secondary = None
        for vm in list(self.vms):
            self.drop(vm)
        if self.link is not None:
            self.link.close()
            self.link = None
        if self._outside is not None:
            self._outside.close()
            self._outside = None
