# What is tried with a released peer, in both directions.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is tried with a released peer, in both directions.

Most of it is the interoperability test's, with another QEMU in the place of the
base.  Where a running guest may not leave the peer (see peers.LOSES_PAGES), it
is stopped before and continued in its new place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import cases
import failures
import postcopy
from common import SLOW, OnSample, halfway
from ferry import paths
from ferry.errors import FerryError
from ferry.vm import VM
from ferrytest.suite import Case
from lab import FAST, Lab, check

from peers import Peer, common_machine


class PairLab(Lab):
    """A lab whose machines are all of one type."""

    machine = 'q35'
    _peer: Peer | None = None

    def meet(self, peer: Peer) -> None:
        """Go on with PEER: with another one no guest can go on."""
        if peer != self._peer:
            self.clear()
            self._booted.clear()    # they are of another machine
            self._peer = peer
            self.machine = common_machine(peer.binary, paths.qemu('ferry'))

    def vm(self, kind: str, *args: object, **more: object) -> VM:
        return super().vm(kind, *args, **{'machine': self.machine, **more})


def start_postcopy(vm: VM) -> OnSample:
    """An on_sample that switches to postcopy as soon as that is possible."""
    return halfway(lambda: vm.qmp.cmd('migrate-start-postcopy'),
                   lambda sample: sample['phase'] == 'active')[0]


def stopped(source: str, target: str, caps: dict[str, bool],
            tls: bool = False) -> Callable[[Lab], str]:
    """The guest is stopped before it leaves, and continued afterwards."""
    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        vm.qmp.cmd('stop')
        late = caps.get('postcopy-ram', False)
        result = lab.move(lab.target(target), caps=caps, tls=tls,
                          params=SLOW if late else FAST,
                          on_sample=start_postcopy(vm) if late else None)
        if not result.ok:
            raise FerryError(f'{result.status}: {result.error}')
        assert lab.source is not None
        if late:
            check(bool(result.samples[-1]['migrate'].get('ram', {}).get(
                'postcopy-bytes', 1)), 'some of it came in postcopy')
        lab.source.qmp.cmd('cont')
        lab.must_go_on()
        return f'{result.total_ms:.0f} ms, guest stopped'
    return run


def stopped_cancel(source: str, target: str) -> Callable[[Lab], str]:
    """The same, cancelled midway and tried again."""
    again = stopped(source, target, {})

    def run(lab: Lab) -> str:
        vm = lab.boot(source)
        vm.qmp.cmd('stop')
        first = lab.target(target)
        on_sample, done = halfway(lambda: vm.qmp.cmd('migrate_cancel'))
        result = lab.move(first, params=SLOW, on_sample=on_sample)
        check(bool(done) and result.status == 'cancelled',
              f'it is cancelled midway: {result.status} {result.error}')
        vm.qmp.cmd('cont')
        lab.must_go_on()
        return again(lab)
    return run


UNUSED = ('-device', 'virtio-rng-pci')
PREEMPT = {'postcopy-ram': True, 'postcopy-preempt': True}


def leaving_stopped(peer: Peer, ours: str) -> list[Case]:
    """From a peer that a running guest may not leave."""
    pair = (str(peer.binary), ours)
    return [Case('precopy', stopped(*pair, {}), True),
            Case('tls', stopped(*pair, {}, True)),
            Case('postcopy', stopped(*pair, {'postcopy-ram': True}), True),
            Case('postcopy-preempt', stopped(*pair, PREEMPT)),
            Case('cancel', stopped_cancel(*pair))]


def running(source: str, target: str, quick: tuple[str, ...]) -> list[Case]:
    """With a guest that runs all the time."""
    pair = (source, target)
    mode = failures.Mode
    late = {'postcopy-ram': True}
    named = {
        'precopy': cases.plain(*pair, 'tcp', False),
        'xbzrle': cases.plain(*pair, 'unix', True),
        'tls': Case('', lambda lab: _by_tls(lab, source, target)),
        'cancel': failures.cancelled(*pair, failures.PLAIN),
        'cancel-postcopy': failures.cancelled(*pair, mode('late', late)),
        'postcopy': postcopy.plain(*pair, postcopy.PLAIN, 'midway'),
        'postcopy-preempt': postcopy.plain(*pair, postcopy.PREEMPT, 'midway'),
        'postcopy-tls': postcopy.plain(*pair, postcopy.PREEMPT_TLS, 'midway'),
        'postcopy-cut': postcopy.broken(*pair, postcopy.PLAIN, postcopy.cut),
        'postcopy-preempt-cut': postcopy.broken(*pair, postcopy.PREEMPT,
                                                postcopy.cut),
    }
    return [replace(case, name=name, quick=name in quick)
            for name, case in named.items()]


def _by_tls(lab: Lab, source: str, target: str) -> str:
    lab.boot(source)
    return cases.summary(lab.must_move(lab.target(target), tls=True))


def unused_device(source: str, target: str) -> Callable[[Lab], str]:
    """With a device that has no driver: the guest arrives, or goes on.

    Some peers refuse the queues of such a device (see testing.rst), once they
    have loaded all memory.  That must not cost the guest.
    """
    def run(lab: Lab) -> str:
        try:
            lab.boot_anew(source, args=list(UNUSED))
            result = lab.move(lab.target(target, args=list(UNUSED)))
            if not result.ok:
                check(result.status == 'failed', 'it failed: '
                      f'{result.status} {result.error}')
                lab.must_go_on()
            return result.error or 'it arrived'
        finally:
            lab.clear()
    return run


def pair_cases(peer: Peer, ours: str) -> list[Case]:
    """Everything with PEER, so that the guest goes to and fro."""
    there = running(ours, str(peer.binary), ('xbzrle', 'postcopy-preempt'))
    there += [Case('unused-device', unused_device(ours, str(peer.binary)))]
    back = leaving_stopped(peer, ours) if peer.must_stand else \
        running(str(peer.binary), ours, ('precopy', 'postcopy'))
    there = [replace(case, name=f'to-{peer.name}-{case.name}')
             for case in there]
    back = [replace(case, name=f'from-{peer.name}-{case.name}')
            for case in back]
    return interleave(there, back)


def interleave(there: list[Case], back: list[Case]) -> list[Case]:
    """By turns, those of the shorter run first, so that few boots are needed.
    """
    order = []
    for quick in (True, False):
        rows = [[case for case in side if case.quick == quick]
                for side in (there, back)]
        while any(rows):
            order += [row.pop(0) for row in rows if row]
    return order
