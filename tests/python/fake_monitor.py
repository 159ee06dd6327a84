# A monitor that tells a made-up migration to whoever connects.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A monitor that tells a made-up migration to whoever connects."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


class Monitor:
    """Answers each query-migrate with the next sample of a story.

    The last sample is repeated; with die=True the connection ends after it.
    greeting=None accepts connections and says nothing; `events` are sent
    before the end."""

    def __init__(self, address: str | None, samples: list[dict], *,
                 greeting: bytes | None = GREETING, die: bool = False,
                 events: tuple[dict, ...] = (), name: str = 'vm') -> None:
        self.samples, self.die, self.name = list(samples), die, name
        self.greeting, self.events = greeting, events
        self.asked: list[str] = []
        if address is None:
            self.server = socket.create_server(('127.0.0.1', 0))
            port = self.server.getsockname()[1]
            self.address = f'127.0.0.1:{port}'
        else:
            self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.server.bind(address)
            self.server.listen(1)
            self.address = address
        self.clients: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            self.clients.append(client)
            if self.greeting is not None:
                client.sendall(self.greeting)
                threading.Thread(target=self._talk, args=(client,),
                                 daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        try:
            with client, client.makefile('rb') as lines:
                for line in lines:
                    request = json.loads(line)
                    done = self._answer(client, request)
                    if done:
                        return
        except (OSError, ValueError):
            return

    def _answer(self, client: socket.socket, request: dict) -> bool:
        command = request['execute']
        self.asked.append(command)
        now, ends = self.samples[0], False
        if command == 'query-migrate':
            value = now['migrate']
            if len(self.samples) > 1:
                self.samples.pop(0)
            else:
                ends = self.die
        else:
            value = {'query-name': {'name': self.name},
                     'query-status': {'status': now.get('status', 'running')},
                     'query-migrate-parameters': now.get('params') or {},
                     'query-migrate-capabilities': [],
                     'qmp_capabilities': {}}.get(command)
        if value is None:
            reply = {'error': {'class': 'CommandNotFound', 'desc': command}}
        else:
            reply = {'return': value}
        client.sendall(json.dumps({'id': request.get('id'), **reply}).encode()
                       + b'\r\n')
        if ends:
            for event in self.events:
                client.sendall(json.dumps(event).encode() + b'\r\n')
        return ends

    def close(self) -> None:
        self.server.close()
        for client in self.clients:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            client.close()
        if self.address.startswith('/'):
            Path(self.address).unlink(missing_ok=True)
