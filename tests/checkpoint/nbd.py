# Reading what somebody exports over NBD.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading what somebody exports over NBD."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from ferry.errors import FerryError

FIXED, NO_ZEROES = 1, 2             # flags of the greeting
EXPORT_NAME = 1                     # the option
READ, BYE = 0, 2                    # requests
REQUEST = struct.Struct('>IHHQQI')
REPLY = struct.Struct('>IIQ')
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
AT_ONCE = 1 << 20
LIMIT = 20.0            # s


def _receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise FerryError('the NBD server hangs up')
        data += chunk
    return bytes(data)


def read(path: Path, export: str) -> bytes:
    """All of an EXPORT of the server at a unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(LIMIT)
        sock.connect(str(path))
        _receive(sock, 18)
        name = export.encode()
        sock.sendall(struct.pack('>I', FIXED | NO_ZEROES) + b'IHAVEOPT'
                     + struct.pack('>II', EXPORT_NAME, len(name)) + name)
        size, _ = struct.unpack('>QH', _receive(sock, 10))
        data = b''
        while len(data) < size:
            count = min(AT_ONCE, size - len(data))
            sock.sendall(REQUEST.pack(REQUEST_MAGIC, 0, READ, 0, len(data),
                                      count))
            magic, error, _ = REPLY.unpack(_receive(sock, REPLY.size))
            if magic != REPLY_MAGIC or error:
                raise FerryError(f'NBD: magic {magic:x}, error {error}')
            data += _receive(sock, count)
        sock.sendall(REQUEST.pack(REQUEST_MAGIC, 0, BYE, 0, 0, 0))
        return data
