# TLS between two QEMUs, by a key that both have.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS between two QEMUs, by a key that both have."""

from __future__ import annotations

import secrets
from pathlib import Path

from ferry.vm import VM

TLS = 'tls0'            # the credentials' id, for the parameter tls-creds

# The group ffdhe2048 of RFC 7919.  Where there is none, QEMU looks for a prime
# whenever a server gets credentials, and answers nothing meanwhile: for a second,
# or on a busy machine for a minute, as chance has it.
GROUP = '''\
-----BEGIN DH PARAMETERS-----
MIIBDAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAgICAQA=
-----END DH PARAMETERS-----
'''


def write_key(folder: Path, key: str) -> None:
    """Make FOLDER what is the `dir` of tls-creds-psk, with KEY, hexadecimal."""
    folder.mkdir()
    (folder / 'keys.psk').write_text(f'qemu:{key}\n')
    (folder / 'dh-params.pem').write_text(GROUP)


class SharedKey:
    """A key in a file below FOLDER, and who knows it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / 'keys'
        self._known: set[VM] = set()

    def give(self, source: VM, target: VM) -> None:
        """Let TARGET listen and SOURCE connect with it."""
        if not self._folder.exists():
            write_key(self._folder, secrets.token_hex(32))
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
