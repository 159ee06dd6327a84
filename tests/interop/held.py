# A guest that is held until its devices are loaded, without a limit.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is held until its devices are loaded, without a limit.

Between two Ferrys a switchover to postcopy gives the order to start only when
the destination has loaded the devices.  Until then whatever happens to the
destination has the guest go on at the source, and a user may cancel.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Callable

from ferry.migrate import tcp_uri
from ferrytest.suite import Case

from lab import Lab, check
from postcopy import PLAIN, POINTS, PREEMPT, Way, summary
from promised import DEVICE, PLENTY, Promised, locked, promised, stays

STOPPED = 0.3           # s that a destination stands still before it is ended
TOO_FAR = 0             # ms of the downtime limit: no round trip is as short


def hold(move: Promised, point: str = 'at-once') -> None:
    """Have the guest stand still on both sides."""
    move.wait_sent(POINTS[point])
    move.source.vm.qmp.cmd('migrate-start-postcopy')
    move.wait_held()


def killed(move: Promised) -> None:
    """The destination ends while it loads."""
    hold(move)
    os.kill(move.target.vm.pid, signal.SIGKILL)


def killed_midway(move: Promised) -> None:
    """So it does when it had thrown pages away."""
    hold(move, 'midway')
    os.kill(move.target.vm.pid, signal.SIGKILL)


def killed_before(move: Promised) -> None:
    """It ends without having read what it is to load."""
    os.kill(move.target.vm.pid, signal.SIGSTOP)
    move.source.vm.qmp.cmd('migrate-start-postcopy')
    time.sleep(STOPPED)
    os.kill(move.target.vm.pid, signal.SIGKILL)


def cut(move: Promised) -> None:
    """The network fails."""
    hold(move)
    check(move.link.cut() > 0, 'there was something to cut')


def cancelled(move: Promised) -> None:
    """It is not too late for the user."""
    hold(move)
    move.source.vm.qmp.cmd('migrate_cancel')


ACTS = (killed, killed_midway, killed_before, cut, cancelled)


def goes_on(way: Way, act: Callable[[Promised], None]) -> Case:
    """What happens to the destination does not harm the guest."""
    def run(lab: Lab) -> str:
        status = 'cancelled' if act is cancelled else 'failed'
        with promised(lab, 'ferry', 'ferry', way, PLENTY, strict=False,
                      held=True) as move:
            move.begin(tcp_uri(), move.via)
            act(move)
            why = stays(lab, move, status)
            check('goes on here' in why or act in (cancelled, killed_before),
                  f'the reason says where the guest is: {why}')
            move.reset_caps()
            lab.must_move(lab.target('ferry', args=list(DEVICE)))
            return f'"{why}"'
    return case(way, act.__name__.replace('_', '-'), run)


def no_disk(way: Way) -> Case:
    """The destination cannot have its disk: the guest is not taken over."""
    def run(lab: Lab) -> str:
        with promised(lab, 'ferry', 'ferry', way, PLENTY, disks=True,
                      strict=False) as move, locked(lab):
            move.begin(tcp_uri(), move.via)
            move.source.vm.qmp.cmd('migrate-start-postcopy')
            return f'"{stays(lab, move)}"'
    return case(way, 'no-disk', run)


def far(way: Way) -> Case:
    """Too far for another round trip: devices are the order to start."""
    def run(lab: Lab) -> str:
        with promised(lab, 'ferry', 'ferry', way, TOO_FAR,
                      strict=False) as move:
            move.begin(tcp_uri(), move.via)
            move.source.vm.qmp.cmd('migrate-start-postcopy')
            move.wait_gone()
            move.finish()
            return summary(move)
    return case(way, 'far', run)


def case(way: Way, name: str, run: Callable[[Lab], str]) -> Case:
    """One case; a second channel is in the way of few of them."""
    full = way is PREEMPT and name not in ('killed', 'far')
    return Case(f'ferry-ferry-held-{way.name}-{name}', run,
                needs=way.needs, full=full, alone=True)


def all_cases() -> list[Case]:
    """Without and with a channel for urgent pages."""
    return [made for way in (PLAIN, PREEMPT)
            for made in (*(goes_on(way, act) for act in ACTS),
                         no_disk(way), far(way))]
