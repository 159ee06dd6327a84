# Sources that lie on several channels.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources that lie on several channels.

The destination has a main channel, which is an honest stream with marks, and
others, on which packets come.  Whatever comes there, it says what is wrong,
answers its monitor, and takes another migration afterwards.
"""

from __future__ import annotations

import socket
import struct
import time
import uuid
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import records as r
from ferry.errors import FerryError
from ferry.vm import VM
from ferrytest import abilities
from ram import first_words
from records import Record

LIMIT = 10.0            # s for a migration to end
SILENT = 0.5            # s in which nothing happens
ANSWERS_WITHIN = 1.0    # s
CHANNELS = 2
PAGES_MAX = 128         # of a packet
MAGIC, VERSION = 0x11223344, 1
SYNC, ZLIB, ZSTD, QPL, DEVICE_STATE = 0x01, 0x02, 0x04, 0x08, 0x40
RECORDS = 0x40000000    # follow, and no other packet
BLOCK, SIZE = b'pc.ram', 16 << 20
PAGE = b'\x5a' * r.PAGE_SIZE
HERE = 0x400000         # bytes, in BLOCK
HUGE = (1 << 64) - r.PAGE_SIZE
OVER = ('completed', 'failed')


@dataclass(frozen=True)
class Packet:
    """A packet; what is None follows from the rest."""
    normal: tuple[int, ...] = ()        # offsets
    zeros: tuple[int, ...] = ()
    data: bytes | None = None
    block: bytes = BLOCK
    flags: int = 0
    magic: int = MAGIC
    version: int = VERSION
    pages_max: int = PAGES_MAX
    normal_count: int | None = None
    zero_count: int | None = None
    payload: int | None = None

    def but(self, **changes: object) -> Packet:
        """The same with CHANGES."""
        return replace(self, **changes)

    def pack(self) -> bytes:
        """The bytes of it."""
        data = PAGE * len(self.normal) if self.data is None else self.data
        head = struct.pack(
            '>6IQI28x256s', self.magic, self.version, self.flags,
            self.pages_max,
            len(self.normal) if self.normal_count is None
            else self.normal_count,
            len(data) if self.payload is None else self.payload, 0,
            len(self.zeros) if self.zero_count is None else self.zero_count,
            self.block)
        table = [*self.normal, *self.zeros]
        table += [0] * (PAGES_MAX - len(table))
        return head + struct.pack(f'>{PAGES_MAX}Q', *table) + data


MARK = Packet(flags=SYNC).pack()


class NotLetIn(FerryError):
    """Nobody listens any more."""


class Source:
    """A main channel and others to one destination."""

    def __init__(self, vm: VM, path: Path, stream: bytes) -> None:
        self.vm, self.path = vm, path
        self.uuid = uuid.UUID(vm.qmp.cmd('query-uuid')['UUID']).bytes
        self.main: socket.socket | None = None
        self.others: list[socket.socket] = []
        parsed = r.parse(stream)
        at = next(i for i, one in enumerate(parsed)
                  if one.type == r.START and one.name == b'ram')
        self.setup = parsed[at]
        self.start, self.rest = parsed[:at], parsed[at + 1:]

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """All connections."""
        for sock in (self.main, *self.others):
            if sock is not None:
                sock.close()
        self.main, self.others = None, []

    def connect(self) -> socket.socket:
        """One more connection."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(LIMIT)
        try:
            sock.connect(str(self.path))
        except OSError as err:
            sock.close()
            self.vm.check_alive()
            raise NotLetIn(f'it does not listen: {err}') from None
        return sock

    def begin_main(self, marks: int = 1, early: int = 0) -> None:
        """The main channel, up to the list of blocks and MARKS after it."""
        body = self.setup.body
        end = r.ram(r.EOS)
        assert body.endswith(end)
        body = (r.ram(r.FLUSH) * early + body[:-len(end)]
                + r.ram(r.FLUSH) * marks + end)
        self.main = self.connect()
        send(self.main, r.join([*self.start, self.setup.but(body=body)]))

    def init(self, channel: int, **changes: int) -> bytes:
        """What CHANNEL begins with."""
        fields = {'magic': MAGIC, 'version': VERSION, **changes}
        return struct.pack('>II16sB39x', fields['magic'], fields['version'],
                           self.uuid, channel)

    def add(self, init: bytes) -> socket.socket:
        """One more channel."""
        sock = self.connect()
        self.others.append(sock)
        send(sock, init)
        return sock

    def begin(self, count: int = CHANNELS) -> None:
        """All of them, up to the first mark."""
        for channel in range(count):
            send(self.add(self.init(channel)), MARK)
        self.begin_main()

    def mark(self) -> None:
        """On the main channel"""
        self.part(r.ram(r.FLUSH))

    def part(self, *entries: bytes) -> None:
        """A section of memory on the main channel"""
        send(self.main, Record(
            r.PART, number=self.setup.number,
            body=b''.join(entries) + r.ram(r.EOS)).pack())

    def marks(self) -> None:
        """On all channels"""
        for sock in self.others:
            send(sock, MARK)
        self.mark()

    def finish(self) -> None:
        """All that is left on the main channel"""
        send(self.main, b''.join(one.pack() for one in self.rest))

    def end(self) -> None:
        """The same without memory"""
        self.rest = [one for one in self.rest
                     if not (one.type == r.PART
                             and one.number == self.setup.number)]
        end = next(i for i, one in enumerate(self.rest) if one.type == r.END)
        self.rest[end] = self.rest[end].but(body=r.ram(r.EOS))
        self.finish()

    def say(self, *packets: Packet, channel: int = 0) -> None:
        """Packets on a channel"""
        send(self.others[channel], b''.join(one.pack() for one in packets))


def send(sock: socket.socket, data: bytes) -> None:
    """All of DATA, if anybody still takes it."""
    try:
        sock.sendall(data)
    except OSError:
        pass            # it has heard enough


def closed(sock: socket.socket) -> None:
    """The other side closes."""
    try:
        if sock.recv(1):
            raise FerryError('it answers')
    except ConnectionResetError:
        pass
    except TimeoutError:
        raise FerryError('it is not closed') from None


@dataclass(frozen=True)
class Lie:
    """What a source does, and a part of the error; None: it does no harm."""
    name: str
    act: Callable[[Source], None]
    error: str | None
    method: str = 'none'
    look: Callable[[VM], None] | None = None


def packets(name: str, error: str | None, *lies: Packet,
            method: str = 'none') -> Lie:
    """Packets on channel 0, and then marks."""
    def act(src: Source) -> None:
        src.begin()
        src.say(*lies)
        src.marks()
        if error is None:
            src.finish()
    return Lie(name, act, error if error is None else
               f'multifd channel 0: {error}', method)


def recorded(name: str, error: str | None, *entries: bytes,
             look: Callable[[VM], None] | None = None) -> Lie:
    """Records on channel 0, and then marks."""
    def act(src: Source) -> None:
        src.begin()
        src.say(Packet(flags=RECORDS))
        send(src.others[0], b''.join(entries) + r.ram(r.FLUSH))
        send(src.others[1], MARK)
        src.mark()
        if error is None:
            src.end()
    return Lie(f'records-{name}', act, error if error is None else
               f'multifd channel 0: {error}', look=look)


def packets_again(src: Source) -> None:
    """Records end, and packets follow, and records once more."""
    src.begin()
    src.say(Packet(flags=RECORDS))
    send(src.others[0], run(5, HERE, PAGE * 5)
         + zero_range(1, HERE + 2 * r.PAGE_SIZE) + r.ram(r.EOS)
         + Packet((HERE + r.PAGE_SIZE,), data=b'\x77' * r.PAGE_SIZE).pack()
         + Packet(flags=RECORDS).pack()
         + r.ram(r.PAGE, HERE + 3 * r.PAGE_SIZE, BLOCK, b'\x11' * r.PAGE_SIZE)
         + r.ram(r.EOS) + MARK)
    send(src.others[1], MARK)
    src.mark()
    src.end()


def run(count: int, offset: int = HERE, data: bytes = b'') -> bytes:
    """A record of pages that follow each other"""
    return r.ram(r.PAGE_RUN, offset, BLOCK, struct.pack('>I', count) + data)


def zero_range(count: int, offset: int = HERE) -> bytes:
    """A record of zero pages that follow each other"""
    return r.ram(r.ZERO_RANGE, offset, BLOCK, struct.pack('>Q', count))


def page(offset: int = HERE, block: bytes = BLOCK) -> bytes:
    """A record of one page"""
    return r.ram(r.PAGE, offset, block, PAGE)


ONE = Packet((HERE,))
ZERO = Packet(zeros=(HERE,))


# Channels


def honest(src: Source) -> None:
    """Pages of all kinds, on all channels, and again after a mark"""
    src.begin()
    step = r.PAGE_SIZE
    src.say(Packet(tuple(HERE + i * step for i in range(PAGES_MAX))))
    src.say(Packet((), (HERE + 200 * step,)), channel=1)
    src.marks()
    src.say(Packet((HERE + step,), (HERE + 2 * step,),
                   b'\x77' * r.PAGE_SIZE), channel=1)
    src.marks()
    # The last mark, for the pages of the main channel that follow.
    src.part(r.ram(r.PAGE, HERE + 3 * step, BLOCK, b'\x11' * step))
    src.end()


def seen(vm: VM) -> None:
    """What honest() leaves"""
    first_words(vm, 0x5a5a5a5a, 0x77777777, 0, 0x11111111, 0x5a5a5a5a)


def channel_first(init: Callable[[Source], bytes]) -> Callable[[Source], None]:
    """A channel that cannot be taken, and then the main one"""
    def act(src: Source) -> None:
        src.add(init(src))
        time.sleep(0.1)
        src.begin_main()
    return act


def main_first(init: Callable[[Source], bytes]) -> Callable[[Source], None]:
    """The same in the other order"""
    def act(src: Source) -> None:
        src.begin_main()
        time.sleep(0.1)
        src.add(init(src))
    return act


INITS: dict[str, tuple[Callable[[Source], bytes], str]] = {
    'version': (lambda s: s.init(0, version=2), 'version 2'),
    'id-too-large': (lambda s: s.init(CHANNELS), "'multifd-channels'"),
    'id-255': (lambda s: s.init(255), "'multifd-channels'"),
    'uuid': (lambda s: s.init(0)[:8] + bytes(16) + s.init(0)[24:], 'UUID'),
}


def twice(main: bool) -> Callable[[Source], None]:
    """Two channels with one number"""
    def act(src: Source) -> None:
        if main:
            src.begin_main()
        src.add(src.init(1))
        src.add(src.init(1))
        if not main:
            time.sleep(0.1)
            src.begin_main()
    return act


def strangers(src: Source) -> None:
    """Who does not begin as a channel does is closed, and no more."""
    for words in (b'\x44\x33\x22\x11' + bytes(60), b'QEVN' + bytes(60),
                  b'GET / HTTP/1.0\r\n\r\n'):
        sock = src.connect()
        send(sock, words)
        closed(sock)
        sock.close()
    for words in (b'\x11', src.init(0)[:63]):
        sock = src.connect()
        send(sock, words)
        sock.close()
    src.others.append(src.connect())            # says nothing
    silent = src.others.pop()
    honest(src)
    src.others.append(silent)


def second_main(src: Source) -> None:
    """A second main channel is closed; the first one stays."""
    src.begin_main()
    time.sleep(0.1)
    sock = src.connect()
    send(sock, r.header() + bytes(100))
    closed(sock)
    sock.close()
    for channel in range(CHANNELS):
        send(src.add(src.init(channel)), MARK)
    src.finish()


def surplus(src: Source) -> None:
    """When all are there, nobody else is let in."""
    src.begin()
    src.marks()
    time.sleep(0.2)
    for init in (src.init(0), src.init(7), r.header()):
        try:
            sock = src.connect()
        except NotLetIn:
            continue
        send(sock, init)
        sock.close()
    src.finish()


def gives_up(src: Source) -> None:
    """A source that says nothing at all; the next one is taken"""
    src.connect().close()
    time.sleep(0.2)
    honest(src)


def without_main(src: Source) -> None:
    """Packets of a channel before the main one is there"""
    src.add(src.init(0))
    send(src.others[0], b'\xa5' * 4096)
    time.sleep(0.3)
    src.add(src.init(1))
    src.begin_main()


def closed_before_main(src: Source) -> None:
    """A channel that has gone when the main one comes"""
    src.add(src.init(0)).close()
    time.sleep(0.2)
    send(src.add(src.init(1)), MARK)
    src.begin_main()


# Marks


def no_mark(src: Source) -> None:
    """Pages before the first mark"""
    src.add(src.init(0))
    src.add(src.init(1))
    src.say(ONE)
    src.begin_main()


def mark_missing(src: Source) -> None:
    """The main channel has one that the others have not; then they close."""
    src.begin()
    src.mark()
    answers(src.vm)
    src.others[0].close()


def too_many_marks(src: Source) -> None:
    """The others have some that the main one has not."""
    src.begin()
    for _ in range(3):
        send(src.others[0], MARK)
    src.finish()


def early_mark(src: Source) -> None:
    """A mark before the list of blocks"""
    for channel in range(CHANNELS):
        send(src.add(src.init(channel)), MARK)
    src.say(ONE)
    src.begin_main(marks=0, early=1)
    time.sleep(0.2)
    src.marks()
    src.finish()


def list_again(src: Source) -> None:
    """The list of blocks comes again while pages arrive."""
    src.begin()
    src.say(*[ONE] * 20)
    src.part(src.setup.body[:-8])
    src.marks()
    src.finish()


# Ends


def answers(vm: VM) -> None:
    """The migration goes on, and the monitor answers."""
    end = time.monotonic() + SILENT
    while (asked := time.monotonic()) < end:
        info = vm.qmp.cmd('query-migrate')
        if info.get('status') in OVER:
            raise FerryError(f'did not wait: {info}')
        if time.monotonic() - asked > ANSWERS_WITHIN:
            raise FerryError('the monitor does not answer')
        time.sleep(0.01)


def stalls(size: int) -> Callable[[Source], None]:
    """A channel stops after SIZE bytes of a packet, and closes later."""
    def act(src: Source) -> None:
        src.begin()
        send(src.others[0], ONE.pack()[:size])
        send(src.others[1], MARK)
        src.mark()
        answers(src.vm)
        src.others[0].close()
    return act


def main_closes(count: int) -> Callable[[Source], None]:
    """The main channel ends early, with COUNT channels."""
    def act(src: Source) -> None:
        if count == CHANNELS:
            src.begin()
        else:
            for channel in range(count):
                src.add(src.init(channel))
            src.begin_main(marks=0)
        src.main.close()
    return act


def nobody_marks(src: Source) -> None:
    """A source without multifd"""
    src.begin_main(marks=0)
    src.finish()


def bomb() -> bytes:
    """64 MiB in the format of zlib"""
    return zlib.compress(bytes(64 << 20), 9)


def flushed(data: bytes) -> bytes:
    """DATA as the first packet of a channel"""
    stream = zlib.compressobj()
    return stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)


SMALLER = Packet((HERE,), data=PAGE[:-1])
OF_PAGE = f"RAM block 'pc.ram' at 0x{HERE:x}: "

LIES = [
    Lie('honest', honest, None, look=seen),
    Lie('strangers', strangers, None, look=seen),
    Lie('gives-up', gives_up, None, look=seen),
    Lie('second-main', second_main, None),
    Lie('surplus', surplus, None),
    Lie('channel-twice', twice(True), 'channel 1'),
    Lie('channel-twice-before-main', twice(False), 'channel 1'),
    *(Lie(f'init-{name}', main_first(init), error)
      for name, (init, error) in INITS.items()),
    *(Lie(f'init-{name}-before-main', channel_first(init), error)
      for name, (init, error) in INITS.items()),
    Lie('noise-before-main', without_main, 'multifd channel 0: '),
    Lie('closed-before-main', closed_before_main, 'multifd channel 0: '),

    Lie('page-before-mark', no_mark, 'before the list of RAM blocks'),
    Lie('mark-missing', mark_missing, 'multifd channel 0: '),
    Lie('marks-too-many', too_many_marks, None),
    Lie('mark-before-list', early_mark, 'before the list of RAM blocks'),
    Lie('list-again', list_again, 'list of RAM blocks comes again'),

    packets('nothing', None, Packet()),
    packets('page-and-zero', None, ONE, ZERO, Packet((HERE,), (HERE,))),
    packets('page-twice', None, Packet((HERE, HERE))),
    packets('magic', '0x51455632', ONE.but(magic=0x51455632)),
    packets('version', 'Packets of version 2', ONE.but(version=2)),
    packets('flag-unknown', 'A packet has unknown flags', ONE.but(flags=0x80)),
    packets('flag-31', 'A packet has unknown flags',
            ONE.but(flags=1 << 31)),
    packets('pages-max', 'A packet has room for 129', ONE.but(pages_max=129)),
    packets('pages-max-4-G', 'A packet has room for 4294967295',
            ONE.but(pages_max=0xffffffff)),
    packets('no-room', 'A packet has 1 pages', ONE.but(pages_max=0)),
    packets('normal-count', 'A packet has 129 pages',
            ONE.but(normal_count=129)),
    packets('normal-count-4-G', 'A packet has 4294967295 pages',
            ONE.but(normal_count=0xffffffff)),
    packets('zero-count', 'A packet has 1 pages and 128 of zeros',
            ONE.but(zero_count=128)),
    packets('zero-count-around', 'A packet has 1 pages and 4294967295',
            ONE.but(zero_count=0xffffffff)),
    packets('payload-4-G', 'A packet of 4294967295 bytes',
            ONE.but(payload=0xffffffff)),
    packets('payload-over-limit', 'A packet of 1048577 bytes',
            ONE.but(payload=(1 << 20) + 1)),
    packets('payload-short', 'A packet of 1 pages has 4095 bytes', SMALLER),
    packets('payload-of-no-page', '0x', Packet(data=PAGE)),
    packets('name-without-end', 'The name of a RAM block does not end',
            ONE.but(block=b'x' * 256)),
    packets('unknown-block', "There is no RAM block 'nosuch'",
            ONE.but(block=b'nosuch')),
    packets('block-with-escape', "There is no RAM block '\\033[2J'",
            ONE.but(block=b'\x1b[2J')),
    packets('block-without-name', "There is no RAM block ''",
            ONE.but(block=b'')),
    packets('behind-end', "RAM block 'pc.ram' has", Packet((SIZE,))),
    packets('second-behind-end', "RAM block 'pc.ram' has",
            Packet((HERE, SIZE))),
    packets('at-the-very-end', "RAM block 'pc.ram' has", Packet((HUGE,))),
    packets('odd-offset', "RAM block 'pc.ram' has", Packet((HERE + 1,))),
    packets('zero-behind-end', "RAM block 'pc.ram' has",
            Packet(zeros=(SIZE,))),
    packets('zero-far', "RAM block 'pc.ram' has", Packet(zeros=(HUGE,))),
    packets('zero-odd', "RAM block 'pc.ram' has", Packet(zeros=(HERE + 8,))),
    packets('device-state', "No device '' instance 0 here takes state",
            Packet(flags=DEVICE_STATE)),
    packets('device-state-sync', 'A packet with the state of a device has',
            Packet(flags=DEVICE_STATE | SYNC)),
    packets('noise', '0xa5a5a5a5', Packet(
        magic=0xa5a5a5a5, data=b'\xa5' * 9999)),

    packets('zlib-unset', 'A packet is compressed in another way',
            ONE.but(flags=ZLIB, data=flushed(PAGE))),
    packets('zstd-unset', 'A packet is compressed in another way',
            ONE.but(flags=ZSTD)),
    packets('qpl-unset', 'A packet is compressed in another way',
            ONE.but(flags=QPL)),
    packets('zlib', None, ONE.but(flags=ZLIB, data=flushed(PAGE)),
            method='zlib'),
    packets('plain-for-zlib', 'A packet is compressed in another way', ONE,
            method='zlib'),
    packets('zstd-for-zlib', 'A packet is compressed in another way',
            ONE.but(flags=ZSTD), method='zlib'),
    packets('plain-for-zstd', 'A packet is compressed in another way', ONE,
            method='zstd'),
    packets('zlib-noise', 'zlib cannot decompress', ONE.but(flags=ZLIB),
            method='zlib'),
    packets('zstd-noise', 'Zstandard cannot decompress', ONE.but(flags=ZSTD),
            method='zstd'),
    packets('zlib-nothing', 'A packet holds less', ONE.but(
        flags=ZLIB, data=b''), method='zlib'),
    packets('zlib-less', 'A packet holds less', Packet(
        (HERE, 0), flags=ZLIB, data=flushed(PAGE)), method='zlib'),
    packets('zlib-more', 'A packet holds more', ONE.but(
        flags=ZLIB, data=flushed(PAGE + b'x')), method='zlib'),
    packets('zlib-bomb', 'A packet holds more', ONE.but(
        flags=ZLIB, data=bomb()), method='zlib'),

    recorded('honest', None, run(5, HERE, PAGE * 5),
             zero_range(1, HERE + 2 * r.PAGE_SIZE),
             r.ram(r.PAGE, HERE + r.PAGE_SIZE, BLOCK, b'\x77' * r.PAGE_SIZE),
             r.ram(r.PAGE | r.CONTINUE, HERE + 3 * r.PAGE_SIZE, None,
                   b'\x11' * r.PAGE_SIZE), look=seen),
    recorded('nothing', None),
    recorded('run-of-none', f"{OF_PAGE}A run of 0 pages", run(0)),
    recorded('run-too-long', f"{OF_PAGE}A run of 513 pages", run(513)),
    recorded('run-4-G', f"{OF_PAGE}A run of 4294967295", run(0xffffffff)),
    recorded('run-behind-end', "RAM block 'pc.ram' at",
             run(2, SIZE - r.PAGE_SIZE)),
    recorded('page-behind-end', "RAM block 'pc.ram' has", page(SIZE)),
    recorded('page-far', "RAM block 'pc.ram' has", page(HUGE)),
    recorded('zeros-too-many', f"{OF_PAGE}A range of", zero_range(1 << 63)),
    recorded('zeros-of-none', f"{OF_PAGE}A range of 0", zero_range(0)),
    recorded('unknown-block', "There is no RAM block 'nosuch'",
             page(block=b'nosuch')),
    recorded('no-block', 'The first page does not say',
             r.ram(r.PAGE | r.CONTINUE, HERE, None, PAGE)),
    recorded('list', 'The list of RAM blocks is on a channel',
             r.ram(r.MEM_SIZE, SIZE)),
    recorded('end', '0x00000000 stands', r.ram(r.EOS) + bytes(16)),
    Lie('records-and-packets', packets_again, None, look=seen),
    recorded('difference', f'{OF_PAGE}A change of a page is on a channel',
             r.ram(r.XBZRLE, HERE, BLOCK, b'\x01\0\x03\0\x01\x09')),
    recorded('packet', 'A RAM record of unknown type', ONE.pack()),
    recorded('noise', 'A RAM record of unknown type', b'\xff' * 99),
    packets('records-and-page', 'The last packet has pages',
            ONE.but(flags=RECORDS)),
    packets('records-and-mark', 'The last packet has pages',
            Packet(flags=RECORDS | SYNC)),
    packets('records-for-zlib', 'The source does not compress',
            Packet(flags=RECORDS), method='zlib'),

    packets('auto-mixed', None, ONE, ONE.but(flags=ZLIB, data=flushed(PAGE)),
            ONE, ZERO, method='auto'),
    packets('auto-qpl', 'A packet is compressed in another way',
            ONE.but(flags=QPL), method='auto'),
    packets('auto-two-methods', 'A packet is compressed in another way',
            ONE.but(flags=ZLIB | ZSTD), method='auto'),
    packets('auto-zlib-noise', 'zlib cannot decompress', ONE,
            ONE.but(flags=ZLIB), method='auto'),
    packets('auto-zstd-noise', 'Zstandard cannot decompress', ONE,
            ONE.but(flags=ZSTD), method='auto'),
    packets('auto-bomb', 'A packet holds more', ONE.but(
        flags=ZLIB, data=bomb()), method='auto'),
    packets('auto-plain-short', 'A packet of 1 pages has 4095 bytes', SMALLER,
            method='auto'),

    *(Lie(f'stalls-after-{size}', stalls(size), 'multifd channel 0: ')
      for size in (0, 1, 319, 321, 2000)),
    *(Lie(f'main-closes-with-{count}', main_closes(count), 'stream ends')
      for count in range(CHANNELS + 1)),
    Lie('no-multifd', nobody_marks, None),
]


def over(vm: VM, limit: float = LIMIT) -> dict:
    """Wait for the end of the load."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        vm.check_alive()
        info = vm.qmp.cmd('query-migrate')
        if info.get('status') in OVER:
            return info
        time.sleep(0.01)
    raise FerryError(f'the load does not end: {info}')


def listen(vm: VM, path: Path, method: str) -> None:
    """VM waits at PATH."""
    vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
        {'capability': 'multifd', 'state': True}]})
    vm.qmp.cmd('migrate-set-parameters', {
        'multifd-channels': CHANNELS, 'multifd-compression': method})
    vm.qmp.cmd('migrate-incoming', {'uri': f'unix:{path}',
                                    'exit-on-error': False})


def late(vm: VM, src: Source) -> None:
    """Who comes when all is over does no harm."""
    for init in (src.init(0), r.header()):
        try:
            sock = src.connect()
        except NotLetIn:
            continue
        send(sock, init)
        sock.close()
    vm.qmp.cmd('query-status')
    vm.qmp.cmd('query-block')
    vm.check_alive()


def follow(vm: VM, folder: Path, stream: bytes) -> None:
    """An honest source comes to VM after one that was not."""
    path = folder / f'{vm.name}-again'
    listen(vm, path, 'none')
    with Source(vm, path, stream) as src:
        honest(src)
        info = over(vm)
    if info['status'] != 'completed':
        raise FerryError(f'the next migration: {info}')
    seen(vm)


def check_lie(lie: Lie, vm: VM, folder: Path, stream: bytes) -> None:
    """One of them; then an honest source comes to the same VM."""
    abilities.require(vm.kind, ['multifd',
                                f'multifd-compression={lie.method}'])
    with vm:
        path = folder / f'{vm.name}-multifd'
        listen(vm, path, lie.method)
        with Source(vm, path, stream) as src:
            lie.act(src)
            info = over(vm)
            late(vm, src)
        said = info.get('error-desc', '')
        if info['status'] == 'completed':
            if lie.error is not None:
                raise FerryError('is accepted')
            if lie.look is not None:
                lie.look(vm)
            return
        if lie.error is None or lie.error not in said or '\n' in said:
            raise FerryError(f'error is {said!r}, not {lie.error!r}')
        follow(vm, folder, stream)


def check_too_few(vm: VM, folder: Path, stream: bytes) -> None:
    """A channel that never comes is not waited for without end."""
    with vm:
        path = folder / f'{vm.name}-multifd'
        listen(vm, path, 'none')
        with Source(vm, path, stream) as src:
            send(src.add(src.init(0)), MARK)
            src.begin_main()
            answers(vm)
            info = over(vm, 2 * LIMIT)
        if f'1 of {CHANNELS} multifd channels' not in info['error-desc']:
            raise FerryError(f'no clear error: {info}')
        follow(vm, folder, stream)


def check_quit(vm: VM, folder: Path, stream: bytes) -> None:
    """Told to end while it waits for a channel, it ends."""
    with vm:
        path = folder / f'{vm.name}-multifd'
        listen(vm, path, 'none')
        with Source(vm, path, stream) as src:
            send(src.add(src.init(0)), MARK)
            src.begin_main()
            answers(vm)
            begun = time.monotonic()
            vm.stop()
            if time.monotonic() - begun > LIMIT / 2:
                raise FerryError('it does not end when it is told to')


def tests() -> list[tuple[str, Callable]]:
    """Name and function of each test, which gets the runner's Bench."""
    made: list[tuple[str, Callable]] = [
        (f'multifd/{lie.name}', lambda lab, lie=lie: check_lie(
            lie, lab.vm(incoming='defer'), lab.folder, lab.stream))
        for lie in LIES]
    return made + [
        (f'multifd/{name}', lambda lab, check=check: check(
            lab.vm(incoming='defer'), lab.folder, lab.stream))
        for name, check in (('channel-never-comes', check_too_few),
                            ('channel-never-comes-and-quit', check_quit))]
