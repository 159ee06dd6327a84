# TLS between two QEMUs, by a key that both have.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS between two QEMUs, by a key that both have."""

from __future__ import annotations

import secrets
from pathlib import Path

from ferry.vm import VM

TLS = 'tls0'            # the credentials' id, for the parameter tls-creds


class SharedKey:
    """A key in a file below FOLDER, and who knows it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / 'keys'
        self._known: set[VM] = set()

    def give(self, source: VM, target: VM) -> None:
        """Let TARGET listen and SOURCE connect with it."""
        if not self._folder.exists():
            self._folder.mkdir()
            (self._folder / 'keys.psk').write_text(
                f'qemu:{secrets.token_hex(32)}\n')
        for vm, endpoint in ((source, 'client'), (target, 'server')):
            # A source that was a destination has the other end's by now.
            if vm in self._known:
                vm.qmp.cmd('object-del', {'id': TLS})
            vm.qmp.cmd('object-add', {
                'qom-type': 'tls-creds-psk', 'id': TLS,
                'dir': str(self._folder), 'endpoint': endpoint})
            self._known.add(vm)

    def forget(self, vm: VM) -> None:
        """It has ended."""
        self._known.discard(vm)
