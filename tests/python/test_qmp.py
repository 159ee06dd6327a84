# Tests of ferry.qmp: messages, errors, events and lost connections.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of ferry.qmp: messages, errors, events and lost connections."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'python'))

from ferry.qmp import QMP, QMPError, Splitter, tcp_address  # noqa: E402

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


class Splitting(unittest.TestCase):
    """Messages are found wherever the stream is cut."""

    def test_every_cut(self):
        data = b'{"a": 1}\r\n\r\n{"event": "X"}\n'
        for cut in range(len(data) + 1):
            splitter = Splitter()
            got = splitter.feed(data[:cut]) + splitter.feed(data[cut:])
            self.assertEqual(got, [{'a': 1}, {'event': 'X'}])

    def test_incomplete_line_is_kept(self):
        splitter = Splitter()
        self.assertEqual(splitter.feed(b'{"a": 1}'), [])
        self.assertEqual(splitter.feed(b'\n'), [{'a': 1}])

    def test_not_json(self):
        for line in (b'SSH-2.0\n', b'[1]\n', b'7\n', b'\xff\xfe\n'):
            with self.assertRaises(QMPError):
                Splitter().feed(line)


class Addresses(unittest.TestCase):
    """What is a path and what is TCP."""

    def test_kinds(self):
        for text, want in (('host:4444', ('host', 4444)),
                           ('127.0.0.1:1', ('127.0.0.1', 1)),
                           ('[::1]:22', ('::1', 22)),
                           ('/tmp/a:1', None), ('./a:1', None),
                           ('socket', None), ('::1', None), ('a:b', None),
                           (':1', None)):
            self.assertEqual(tcp_address(text), want, text)


class Server:
    """A monitor that plays a script: bytes to send, or a request to await."""

    def __init__(self, path: str | None, script: list) -> None:
        if path is None:
            self.sock = socket.create_server(('127.0.0.1', 0))
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.bind(path)
            self.sock.listen(1)
        self.script = script
        self.requests: list[dict] = []
        self.thread = threading.Thread(target=self.play, daemon=True)
        self.thread.start()

    def play(self) -> None:
        client, _ = self.sock.accept()
        self.sock.close()
        with client, client.makefile('rb') as lines:
            for step in self.script:
                if isinstance(step, bytes):
                    client.sendall(step)
                elif isinstance(step, float):
                    time.sleep(step)
                else:
                    line = lines.readline()
                    if not line:
                        break
                    request = json.loads(line)
                    self.requests.append(request)
                    if step is not None:
                        client.sendall(json.dumps(
                            {**step, 'id': request['id']}).encode() + b'\n')


OK = {'return': {}}


class Talking(unittest.TestCase):
    """Commands and answers."""

    def connect(self, *script, timeout: float = 5, tcp: bool = False) -> QMP:
        if tcp:
            self.server = Server(None, list(script))
            host, port = self.server.sock.getsockname()
            return QMP(f'{host}:{port}', timeout)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = folder.name + '/qmp'
        self.server = Server(path, list(script))
        return QMP(path, timeout)

    def test_command(self):
        with self.connect(GREETING, OK, {'return': {'x': 7}}) as qmp:
            self.assertEqual(qmp.cmd('query-x', {'a': 'b'}), {'x': 7})
        self.server.thread.join(5)
        self.assertEqual([r['execute'] for r in self.server.requests],
                         ['qmp_capabilities', 'query-x'])
        self.assertEqual(self.server.requests[1]['arguments'], {'a': 'b'})

    def test_tcp(self):
        with self.connect(GREETING, OK, {'return': 3}, tcp=True) as qmp:
            self.assertEqual(qmp.cmd('three'), 3)

    def test_error(self):
        error = {'error': {'class': 'GenericError', 'desc': 'no way'}}
        with self.connect(GREETING, OK, error, OK) as qmp:
            with self.assertRaises(QMPError) as caught:
                qmp.cmd('try-it')
            self.assertEqual((caught.exception.cls, caught.exception.desc,
                              str(caught.exception)),
                             ('GenericError', 'no way', 'try-it: no way'))
            self.assertEqual(qmp.cmd('again'), {})

    def test_events_stay_in_order(self):
        events = b''.join(b'{"event": "%s"}\n' % name
                          for name in (b'A', b'B', b'C', b'B'))
        with self.connect(GREETING, OK, events, OK) as qmp:
            qmp.cmd('x')
            self.assertEqual(qmp.wait_event('B', 1)['event'], 'B')
            self.assertEqual([e['event'] for e in qmp.events()],
                             ['A', 'C', 'B'])
            self.assertEqual(qmp.events(), [])

    def test_events_without_a_command(self):
        with self.connect(GREETING, OK, b'{"event": "A"}\n', None) as qmp:
            self.assertEqual(qmp.wait_event('A', 5)['event'], 'A')

    def test_next_event(self):
        events = b'{"event": "A"}\n{"event": "B"}\n'
        with self.connect(GREETING, OK, events, None) as qmp:
            self.assertEqual(qmp.next_event(5)['event'], 'A')
            self.assertEqual(qmp.next_event(5)['event'], 'B')
            with self.assertRaises(QMPError) as caught:
                qmp.next_event(0.05)
            self.assertEqual(caught.exception.cls, 'Timeout')

    def test_event_that_does_not_come(self):
        with self.connect(GREETING, OK, None) as qmp:
            with self.assertRaises(QMPError) as caught:
                qmp.wait_event('NEVER', 0.05)
            self.assertEqual(caught.exception.cls, 'Timeout')

    def test_late_answer_is_not_taken_for_the_next(self):
        with self.connect(GREETING, OK, None, 0.2,
                          b'{"return": "late", "id": 2}\n',
                          {'return': 'right'}) as qmp:
            with self.assertRaises(QMPError) as caught:
                qmp.cmd('slow', timeout=0.05)
            self.assertEqual(caught.exception.cls, 'Timeout')
            self.assertEqual(qmp.cmd('next'), 'right')

    def test_connection_lost(self):
        with self.connect(GREETING, OK, None) as qmp:
            with self.assertRaises(QMPError) as caught:
                qmp.cmd('quit')
            self.assertEqual(caught.exception.cls, 'Disconnected')
            self.assertEqual(qmp.events(), [])
            with self.assertRaises(QMPError) as caught:
                qmp.cmd('more')
            self.assertEqual(caught.exception.cls, 'Disconnected')

    def test_nobody_there(self):
        with self.assertRaises(QMPError) as caught:
            QMP('/nonexistent/socket')
        self.assertEqual(caught.exception.cls, 'Disconnected')
        self.assertIn('/nonexistent/socket', str(caught.exception))

    def test_no_greeting(self):
        with self.assertRaises(QMPError) as caught:
            self.connect(0.3, timeout=0.1)
        self.assertEqual(caught.exception.cls, 'Timeout')

    def test_wrong_greeting(self):
        with self.assertRaises(QMPError) as caught:
            self.connect(b'{"hello": 1}\n')
        self.assertIn('not a QMP monitor', str(caught.exception))


if __name__ == '__main__':
    unittest.main()
