# Connections that break around the last byte.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that break around the last byte."""

from __future__ import annotations

import socket
import struct
import time
from typing import Callable

from common import Box, is_state, listen, null, reason, until, wait
from ferry.errors import FerryError
from ferry.qmp import QMP
from ferry.vm import VM
from ferrytest.drain import Drain
from ferrytest.gate import Gate

# SHUT with the value 1, on the return path
REFUSED = struct.pack('>HHI', 1, 4, 1)
# What a failing destination still has to read
MORE = bytes(1 << 20)


def before_the_end(act: Callable[[QMP, VM], None]) -> Callable[[Box], None]:
    """ACT when all was sent but the end: the guest goes on at the source."""
    def test(box: Box) -> None:
        gate = Gate(box.folder, 'flush')
        with box.vm('ferry', [], args=tuple(gate.args), run=True) as src, \
                box.vm('ferry', [], incoming=True) as dst, \
                QMP(src.view_path, oob=True) as urgent:
            src.qmp.cmd('migrate', {'uri': listen(box, dst)})
            wait(dst, 'active')
            gate.wait()         # all is sent, and nobody is answered
            act(urgent, dst)
            gate.open()
            wait(src, 'failed')
            is_state(src, 'running')
    return test


def yank(src: QMP, dst: VM) -> None:
    """The source's user cuts the connection."""
    src.urgent('yank', {'instances': [{'type': 'migration'}]})
    wait(dst, 'failed')


def kill(_src: QMP, dst: VM) -> None:
    """The destination crashes."""
    dst.kill()


def whole(data: bytes) -> bool:
    """It ends in a description of the devices."""
    return data.rstrip(b'\0').endswith(b'}')


def test_linger(box: Box) -> None:
    """One that cannot load what comes says so, and reads until it was heard."""
    with box.vm('ferry', [null('n', 512)]) as src, \
            Drain(box.name('drain')) as drain:
        src.qmp.cmd('migrate', {'uri': drain.uri})
        data = drain.wait(whole, 15)
    if data.count(b'globalstate') < 1 or not whole(data):
        raise FerryError('the stream is not what it was')
    data = data.replace(b'globalstate', b'globalstatX', 1)
    with box.vm('ferry', [null('n', 512)], incoming=True) as dst:
        path = listen(box, dst).removeprefix('unix:')
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect(path)
            said = b''
            sock.sendall(data)
            end = time.monotonic() + 0.4
            while time.monotonic() < end:
                sock.sendall(MORE)      # would fail if it had been closed
                time.sleep(0.02)
            while not said.endswith(REFUSED):
                part = sock.recv(4096)
                if not part:
                    raise FerryError(f'the last word was {said[-8:].hex()}')
                said += part
        wait(dst, 'failed', limit=1)
        until('the reason', lambda: 'globalstatX' in reason(dst))


TESTS: dict[str, Callable[[Box], None]] = {
    'handover/destination-killed': before_the_end(kill),
    'handover/yank': before_the_end(yank),
    'handover/linger': test_linger,
}
