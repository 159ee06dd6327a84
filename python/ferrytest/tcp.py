# What the kernel knows of a connection to this machine.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel knows of a connection to this machine.

So a test sees that a connection was accepted, and that all was read of it,
although nothing is answered on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TABLE = Path('/proc/net/tcp')       # IPv4
CLOSE_WAIT = 8                      # a state: the peer has closed it


@dataclass(frozen=True)
class End:
    """The end of a connection at the side that listened."""

    state: int = 0
    unread: int = 0     # bytes that have come; the end of the stream is one
    taken: bool = False     # by a process; until then the kernel keeps it

    @property
    def closed(self) -> bool:
        """Whether the peer has closed it, whoever has read that."""
        return self.state == CLOSE_WAIT

    @property
    def read(self) -> bool:
        """Whether it was accepted, and all that has come was read."""
        return self.taken and not self.unread


def port_of(uri: str) -> int:
    """Of tcp:HOST:PORT."""
    return int(uri.rpartition(':')[2])


def end(uri: str, peer: int, table: str = '') -> End:
    """That of the connection from the port PEER to URI, if there is one."""
    for row in (table or TABLE.read_text()).splitlines()[1:]:
        _, local, remote, state, queues, _, _, _, _, inode, *_ = row.split()
        if (int(local[-4:], 16), int(remote[-4:], 16)) == (port_of(uri), peer):
            return End(int(state, 16), int(queues[-8:], 16), inode != '0')
    return End()
