#!/usr/bin/env python3
"""Something that looks like QEMU with the test guest in it.

It serves the monitors and serial ports that it is told to on its command line,
and "migrates" by telling its peer how far the heartbeats have come.  Words in
the -append argument, or in the variable FAKE_WORDS, make it misbehave:

  fake.die        end at the start, with a message
  fake.deaf       heed neither "quit" nor SIGTERM
  fake.lose=N     leave out N heartbeats at the hand-over
  fake.twice      go on with the heartbeats after handing over
  fake.wrong      the guest finds a wrong page after it has moved
  fake.stuck      a migration makes no progress until it is cancelled
  fake.refuse     the destination ends with a message when the guest arrives
  fake.mute       the first question on the control port gets no answer
  fake.panic      the guest panics instead of booting
  fake.lacks=A,B  capabilities A and B, and transports that are called so, are
                  not available yet

SPDX-License-Identifier: GPL-2.0-or-later
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time

ARGS = sys.argv[1:]


def option(name: str) -> list[str]:
    """All values of the option NAME."""
    return [value for key, value in zip(ARGS, ARGS[1:]) if key == name]


WORDS = dict((word[5:].partition('=')[::2]) for word
             in ' '.join([*option('-append'),
                          os.environ.get('FAKE_WORDS', '')]).split()
             if word.startswith('fake.'))
LACKS = WORDS.get('lacks', '').split(',')
RATE = 1000


def listener(path: str) -> socket.socket:
    """Listen on a unix socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen(4)
    return sock


def background(function, *args) -> None:
    """Run in a thread that does not keep the process."""
    threading.Thread(target=function, args=args, daemon=True).start()


class Serial:
    """A serial port: one client at a time, output to nobody is dropped."""

    def __init__(self, path: str) -> None:
        self.client: socket.socket | None = None
        self.take = lambda line: None
        background(self.serve, listener(path))

    def serve(self, server: socket.socket) -> None:
        while True:
            client, _ = server.accept()
            self.client = client
            rest = b''
            while True:
                try:
                    data = client.recv(4096)
                except OSError:
                    data = b''
                if not data:
                    break
                *lines, rest = (rest + data).split(b'\n')
                for line in lines:
                    self.take(line.decode())
            self.client = None

    def put(self, data: bytes) -> None:
        client = self.client
        if client is not None:
            try:
                client.sendall(data)
            except OSError:
                pass


class Refusal(Exception):
    """An error for who gave a command."""


class Fake:
    """The machine."""

    def __init__(self) -> None:
        self.running = not option('-incoming')
        self.state = 'running' if self.running else 'inmigrate'
        self.moved = False
        self.beat = 250             # so that it soon wraps
        self.writes = 5
        self.muted = 'mute' in WORDS
        self.info: dict = {}
        self.events: list[dict] = []
        self.clients: list[socket.socket] = []
        self.cancel = threading.Event()
        self.ports = {}
        for text in option('-chardev'):
            found = re.search(r'id=(\w+),path=([^,]+)', text)
            self.ports[found[1]] = Serial(found[2])
        if self.ports:
            self.ports['control'].take = self.control
            background(self.beats)
            background(self.console)
        for text in option('-qmp'):
            background(self.monitors, text[5:].split(',')[0])

    # The guest

    def beats(self) -> None:
        while True:
            if self.running:
                self.ports['beat'].put(bytes([self.beat % 256]))
                self.beat += 1
            time.sleep(0.001)

    def console(self) -> None:
        port = self.ports['console']
        while True:
            if self.running:
                if 'panic' in WORDS:
                    port.put(b'Kernel panic - not syncing: fake\r\n')
                else:
                    port.put(b'ferry-guest: up 1.0 s, 10 pages, %d writes, '
                             b'7/s\r\n' % self.writes)
            time.sleep(0.05)

    def control(self, line: str) -> None:
        words = line.split()
        if len(words) < 2 or not self.running:
            return
        if self.muted:
            self.muted = False
            return
        self.writes += 1
        wrong = 'wrong' in WORDS and self.moved
        answer = {
            'ping': 'ok up_ms=1',
            'status': f'ok up_ms=1 pages=10 writes={self.writes}',
            'verify': ('bad' if wrong else 'ok') + f' pages=10 writes='
                      f'{self.writes} sum={self.writes} wrong={int(wrong)}'
                      + (' index=3 offset=9 seq=1 expected=aa got=bb'
                         if wrong else ''),
        }.get(words[1], 'error unknown command ' + words[1])
        self.ports['control'].put(f'{words[0]} {answer}\n'.encode())

    # The monitor

    def monitors(self, path: str) -> None:
        server = listener(path)
        while True:
            client, _ = server.accept()
            client.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
            self.clients.append(client)
            background(self.monitor, client)

    def monitor(self, client: socket.socket) -> None:
        for line in client.makefile('rb'):
            request = json.loads(line)
            reply = {'id': request.get('id')}
            handler = getattr(self, 'do_' + request['execute'].replace(
                '-', '_'), None)
            if handler is None:
                reply['error'] = {'class': 'CommandNotFound',
                                  'desc': f'no {request["execute"]} here'}
            else:
                try:
                    reply['return'] = handler(request.get('arguments', {}))
                except Refusal as err:
                    reply['error'] = {'class': 'GenericError',
                                      'desc': str(err)}
            client.sendall(json.dumps(reply).encode() + b'\r\n')

    def event(self, name: str) -> None:
        now = time.time()
        text = json.dumps({'event': name, 'timestamp': {
            'seconds': int(now), 'microseconds': int(now % 1 * 1e6)}})
        for client in self.clients:
            client.sendall(text.encode() + b'\r\n')

    def do_qmp_capabilities(self, _args: dict) -> dict:
        return {}

    def do_slow(self, args: dict) -> dict:
        time.sleep(args['seconds'])
        return {'slept': args['seconds']}

    def do_quit(self, _args: dict) -> dict:
        if 'deaf' not in WORDS:
            threading.Timer(0.01, lambda: signal.raise_signal(
                signal.SIGKILL)).start()
        return {}

    def do_query_status(self, _args: dict) -> dict:
        return {'running': self.running, 'status': self.state}

    def do_query_chardev(self, _args: dict) -> list:
        return [{'label': name, 'filename': 'unix:x' if port.client
                 else 'disconnected:unix:x'}
                for name, port in self.ports.items()]

    def do_migrate_set_capabilities(self, args: dict) -> dict:
        for row in args['capabilities']:
            if row['state'] and row['capability'] in LACKS:
                raise Refusal(f"Capability '{row['capability']}' is not "
                              'available yet in this fake')
            if row['state'] and row['capability'] == 'postcopy-preempt':
                raise Refusal('postcopy-preempt requires postcopy-ram')
        return {}

    def do_migrate_set_parameters(self, args: dict) -> dict:
        for name, value in args.items():
            if f'{name}={value}' in LACKS:
                raise Refusal(f"{name} '{value}' is not available yet")
        return {}

    def do_query_migrate_capabilities(self, _args: dict) -> list:
        return [{'capability': 'xbzrle', 'state': False}]

    def do_query_migrate_parameters(self, _args: dict) -> dict:
        return {'downtime-limit': 300}

    def do_query_migrate(self, _args: dict) -> dict:
        return self.info

    def do_migrate_cancel(self, _args: dict) -> dict:
        self.cancel.set()
        return {}

    # Migration

    def do_migrate_incoming(self, args: dict) -> dict:
        background(self.arrive, listener(args['uri'].removeprefix('unix:')))
        return {}

    def do_query_qmp_schema(self, _args: dict) -> list:
        return [{'name': 'query-migrate', 'meta-type': 'command',
                 'arg-type': '0', 'ret-type': '1'},
                {'name': '0', 'meta-type': 'object', 'members': []},
                {'name': '1', 'meta-type': 'object', 'members': [
                    {'name': 'status', 'type': 'str'}]}]

    def do_migrate(self, args: dict) -> dict:
        scheme = args['uri'].partition(':')[0] + ':'
        if scheme in LACKS:
            raise Refusal(f'{scheme} is not available yet')
        if scheme != 'unix:':
            self.info = {'status': 'failed', 'error-desc': 'a fake goes '
                         'nowhere' + (', it is not available yet' if
                                      f'late-{scheme}' in LACKS else '')}
            return {}
        self.info = {'status': 'setup'}
        background(self.leave, args['uri'].removeprefix('unix:'))
        return {}

    def arrive(self, server: socket.socket) -> None:
        peer, _ = server.accept()
        if 'refuse' in WORDS:
            print('fake: I do not want this guest', file=sys.stderr)
            sys.stderr.flush()
            signal.raise_signal(signal.SIGKILL)
        data = peer.recv(100)
        if not data:
            signal.raise_signal(signal.SIGKILL)     # it was cancelled
        self.beat, self.writes = map(int, data.split())
        self.beat += int(WORDS.get('lose', 0))
        time.sleep(0.02)
        self.moved = self.running = True
        self.state = 'running'
        self.info = {'status': 'completed'}
        self.event('RESUME')

    def leave(self, path: str) -> None:
        self.info = {'status': 'active', 'ram': {'dirty-sync-count': 1,
                                                 'total': 100}}
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.connect(path)
        except OSError as err:
            self.info = {'status': 'failed', 'error-desc': err.strerror}
            return
        if self.cancel.wait(60 if 'stuck' in WORDS else 0.1):
            self.info = {'status': 'cancelled'}
            peer.close()
            return
        if 'twice' not in WORDS:
            self.running = False
        self.state = 'postmigrate'
        time.sleep(0.005)
        try:
            peer.sendall(f'{self.beat} {self.writes}'.encode())
        except OSError as err:
            self.running, self.state = True, 'running'
            self.info = {'status': 'failed', 'error-desc': err.strerror}
            return
        self.info = {'status': 'completed', 'total-time': 123, 'downtime': 25,
                     'setup-time': 1, 'ram': {
                         'transferred': 4567, 'dirty-sync-count': 3}}


def main() -> None:
    """Run until told to end."""
    if 'die' in WORDS:
        print('fake: cannot do that', file=sys.stderr)
        sys.exit(1)
    if 'deaf' in WORDS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    fake = Fake()       # keep it: its threads do the work
    while fake:
        time.sleep(60)


if __name__ == '__main__':
    main()
