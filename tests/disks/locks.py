# Disks that one of the two sides cannot have.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that one of the two sides cannot have."""

from __future__ import annotations

import threading
from typing import Callable

from common import (Box, Lock, caps, expect, image, is_state, listen, migrate,
                    params, reason, refused, state, until, wait)
from ferry.errors import FerryError
from ferry.qmp import QMP
from ferry.vm import VM

LOCK = 'Failed to get "write" lock'


class Pair:
    """A guest with a disk that both sides have, and one with a copy each."""

    def __init__(self, box: Box, src: str = 'ferry', dst: str = 'ferry',
                 defer: bool = True) -> None:
        self.box = box
        self.shared, self.here, self.there = box.raw(), box.raw(), box.raw()
        self.src = box.vm(src, [image(self.shared, 'disk0'),
                                image(self.here, 'disk1')], run=True)
        try:
            self.dst = self.new_destination(dst, defer)
        except BaseException:
            self.src.stop()
            raise

    def new_destination(self, kind: str, defer: bool = True) -> VM:
        """One more that could take the guest."""
        return self.box.vm(kind, [image(self.shared, 'disk0'),
                                  image(self.there, 'disk1')], incoming=True,
                           run=True, defer=defer)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.src.stop()
        self.dst.stop()


def goes_on_at_source(pair: Pair) -> None:
    """The destination refuses, the guest runs here, and can leave later."""
    src, dst = pair.src, pair.dst
    with Lock(pair.there):
        migrate(pair.box, src, dst, 'failed')
        is_state(src, 'running')
        wait(dst, 'failed')
        expect(reason(dst), 'disk1', LOCK)
        is_state(dst, 'inmigrate')
    migrate(pair.box, src, dst)
    wait(dst, 'completed')
    is_state(dst, 'running')
    is_state(src, 'postmigrate')


def refusal(kind: str, **on: bool) -> Callable[[Box], None]:
    """From KIND, with these capabilities on both sides."""
    def test(box: Box) -> None:
        with Pair(box, kind) as pair:
            caps(pair.src, pair.dst, **on)
            goes_on_at_source(pair)
    return test


def test_exit(box: Box) -> None:
    """A destination that ends when it fails tells the source before."""
    with Pair(box, defer=False) as pair, Lock(pair.there):
        pair.src.qmp.cmd('migrate', {'uri': pair.dst.incoming})
        wait(pair.src, 'failed')
        is_state(pair.src, 'running')
        until('the end of the destination', lambda: not pair.dst.alive())
        expect(pair.dst.log_tail(), 'disk1', LOCK)


def test_strict(box: Box) -> None:
    """With strict-downtime the destination is asked before it has the guest."""
    with Pair(box) as pair:
        caps(pair.src, return_path=True, strict_downtime=True)
        params(pair.src, downtime_limit=2000)
        goes_on_at_source(pair)


def kept(pair: Pair) -> None:
    """The guest is stopped on the destination, where cont works later."""
    dst = pair.dst
    is_state(dst, 'paused')
    expect(reason(dst), 'disk1', LOCK)
    refused(dst, 'cont', {}, LOCK)
    is_state(dst, 'paused')


def test_one_way(box: Box) -> None:
    """A source that cannot be told has given the guest up: cont runs it."""
    with Pair(box, 'pristine') as pair:
        with Lock(pair.there):
            migrate(box, pair.src, pair.dst)
            wait(pair.dst, 'completed')
            kept(pair)
        pair.dst.qmp.cmd('cont')
        is_state(pair.dst, 'running')
        is_state(pair.src, 'postmigrate')


def start_postcopy(pair: Pair) -> None:
    """The guest is to leave before its memory."""
    caps(pair.src, pair.dst, postcopy_ram=True)
    params(pair.src, max_bandwidth=1 << 20)
    pair.src.qmp.cmd('migrate', {'uri': listen(pair.box, pair.dst)})
    wait(pair.src, 'active')
    pair.src.qmp.cmd('migrate-start-postcopy')


def test_postcopy(box: Box) -> None:
    """The guest is held until the disks are open: it goes on at the source."""
    with Pair(box) as pair:
        with Lock(pair.there):
            start_postcopy(pair)
            wait(pair.src, 'failed')
            is_state(pair.src, 'running')
            wait(pair.dst, 'failed')
            expect(reason(pair.src), 'disk1', LOCK)
        start_postcopy(pair)
        wait(pair.dst, 'completed')
        is_state(pair.dst, 'running')
        is_state(pair.src, 'postmigrate')


def given_up(kind: str, limit: int) -> Callable[[Box], None]:
    """The source has given the guest up: cont runs it when it can."""
    def test(box: Box) -> None:
        with Pair(box, kind) as pair:
            params(pair.src, downtime_limit=limit)
            with Lock(pair.there):
                start_postcopy(pair)
                wait(pair.src, 'completed')
                wait(pair.dst, 'completed')
                kept(pair)
            pair.dst.qmp.cmd('cont')
            is_state(pair.dst, 'running')
    return test


def test_lost_on_the_way(box: Box) -> None:
    """The source cannot have its disk back: it says so, and cont works."""
    with Pair(box) as pair:
        with Lock(pair.there), Lock(pair.here):
            migrate(box, pair.src, pair.dst, 'failed')
            is_state(pair.src, 'paused')
            expect(reason(pair.src), 'disk1', LOCK, "'cont'")
            refused(pair.src, 'cont', {}, LOCK)
            # The other disk must not be held meanwhile.
            with box.vm('ferry', [image(pair.shared, 'disk0')]):
                pass
        pair.src.qmp.cmd('cont')
        is_state(pair.src, 'running')


class Looker:
    """Asks one VM about its disks all the time, on its second monitor."""

    def __init__(self, vm: VM) -> None:
        self._qmp = QMP(vm.view_path)
        self._end = False
        self.count = 0
        self.error = ''
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._end:
                for what in ('query-block', 'query-named-block-nodes',
                             'query-blockstats'):
                    self._qmp.cmd(what)
                self.count += 1
        except FerryError as err:
            self.error = str(err)

    def __enter__(self) -> Looker:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end = True
        self._thread.join()
        self._qmp.close()


def looked_at(count: int) -> Callable[[Box], None]:
    """Whoever asks about disks during COUNT switchovers is answered."""
    def test(box: Box) -> None:
        with Pair(box) as pair:
            for _ in range(count):
                with Looker(pair.dst) as there, Looker(pair.src) as here:
                    migrate(box, pair.src, pair.dst)
                    is_state(pair.dst, 'running')
                for one in (here, there):
                    if one.error or not one.count:
                        raise FerryError(f'no answer: {one.error}')
                pair.here = pair.there
                pair.src.stop()
                pair.src = pair.dst
                pair.there = box.raw()
                pair.dst = pair.new_destination('ferry')
            if state(pair.src) != 'running':
                raise FerryError(f'the guest is {state(pair.src)}')
    return test


TESTS: dict[str, Callable[[Box], None]] = {
    'locks/refused': refusal('ferry'),
    'locks/refused-return-path': refusal('ferry', return_path=True),
    'locks/refused-pristine-source': refusal('pristine', return_path=True),
    'locks/refused-exit': test_exit,
    'locks/strict': test_strict,
    'locks/one-way': test_one_way,
    'locks/postcopy': test_postcopy,
    'locks/postcopy-far': given_up('ferry', 0),
    'locks/postcopy-pristine-source': given_up('pristine', 300),
    'locks/source-cannot-resume': test_lost_on_the_way,
    'locks/query-block': looked_at(5),
}
