# One migration on a network that fails again and again.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration on a network that fails again and again."""

from __future__ import annotations

import random
import time
from typing import Callable

from common import SLOW, halfway
from ferry.errors import FerryError
from ferry.link import Link
from ferry.migrate import tcp_uri
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.postcopy import ACTIVE, PAUSED, Side
from lab import FILL, Lab
from levels import Levels
from postcopy import Move, Way

MIB = 1 << 20
MOST_CUTS = 3
MOST_CHANNELS = 4
SOME_RATE = 500
PATIENCE = 20.0         # s for a cut to come, or the end of the migration
SOON = 2.0              # s until the source knows that all has come
OVER = 'completed'


class Journey:
    """A migration of the lab's guest, all of it chosen by RNG."""

    def __init__(self, lab: Lab, rng: random.Random, source: str, target: str
                 ) -> None:
        self._lab = lab
        self._rng = rng
        self._source, self._target = source, target
        preempt, tls = rng.random() < 0.5, rng.random() < 0.25
        # QEMU 10.0 does not have both.
        multifd = source == target == 'ferry' and rng.random() < 0.5
        self._channels = rng.randint(1, MOST_CHANNELS) if multifd else 0
        self._way = Way('soak', {
            **({'postcopy-preempt': True} if preempt else {}),
            **({'multifd': True} if multifd else {})}, tls)
        self._vain = rng.choice((None, None, self._killed, self._cancelled,
                                 self._gone)) if multifd else None
        self._rate = rng.choice((0, 500, 4000, 12000))
        self._speed = rng.choice((8, 16, 32)) * MIB
        self._switch_at = rng.choice((0, rng.randrange(FILL * MIB)))
        self._cuts = rng.randint(1, MOST_CUTS)
        self.pauses = 0
        self._done = [
            ', '.join(filter(None, (
                'preempt' if preempt else 'plain', 'TLS' if tls else '',
                f'{self._channels} channels' if multifd else '',
                f'{self._rate} pages/s', f'{self._speed // MIB} MiB/s',
                f'switched at {self._switch_at / MIB:.1f} MiB')))]

    def story(self) -> str:
        """What was done, in one line."""
        return '; '.join(self._done)

    def run(self, levels: Levels) -> None:
        """Do it, and check everything."""
        lab = self._lab
        source = lab.boot(self._source)
        lab.guest.set_rate(self._rate)
        before = levels.before(source)
        if self._vain is not None:
            self._in_vain(self._vain)
            lab.guest.set_rate(self._rate)
        target = lab.target(self._target)
        with Link() as link:
            with Move(lab, target, self._way, link, **{
                    'max-postcopy-bandwidth': self._speed,
                    **self._settings()}) as move:
                move.begin(tcp_uri(), move.via)
                move.wait_sent(
                    lambda ram: ram['transferred'] >= self._switch_at)
                move.switch()
                for _ in range(self._cuts):
                    if not self._cut(move):
                        break
                    self._recover(move)
                move.let_go()
                move.finish()
                self.pauses = move.source.states().count(PAUSED)
                self._done.append(f'{self.pauses} pauses, '
                                  f'{move.info["total-time"]} ms')
            link.close()
            levels.check_source(source, before)
            levels.check_target(target)
        lab.moved(target)

    def _settings(self) -> dict[str, int]:
        return ({'multifd-channels': self._channels} if self._channels
                else {})

    # Attempts in vain, before the guest is switched over

    def _in_vain(self, how: Callable[[VM, Link], None]) -> None:
        """Precopy on several channels ends early; the guest goes on."""
        lab, at = self._lab, self._rng.randrange(FILL * MIB)
        lab.guest.set_rate(self._rate or SOME_RATE)     # it is seen to go on
        target = lab.target(self._target)
        with Link() as link:
            def via(uri: str) -> str:
                link.aim(uri)
                return link.uri
            on_sample, done = halfway(
                lambda: how(target, link), lambda sample:
                sample['phase'] == 'active' and sample['transferred'] >= at)
            result = lab.move(target, caps={'postcopy-ram': True,
                                            **self._way.caps},
                              params={**SLOW, **self._settings()},
                              tls=self._way.tls, on_sample=on_sample, via=via)
        if not done or result.ok:
            raise FerryError(f'it has moved before {at} bytes were sent')
        lab.must_go_on()
        lab.drop(target)
        self._done.append(f'{result.status} after {at / MIB:.1f} MiB '
                          f'({how.__name__.strip("_")})')

    @staticmethod
    def _killed(target: VM, _link: Link) -> None:
        target.kill()

    def _cancelled(self, _target: VM, _link: Link) -> None:
        assert self._lab.source is not None
        self._lab.source.qmp.cmd('migrate_cancel')

    @staticmethod
    def _gone(_target: VM, link: Link) -> None:
        link.cut()

    # Cuts

    def _cut(self, move: Move) -> bool:
        """Break the network in one of many ways; False if it was too late."""
        how = self._rng.choice((
            self._at_a_byte, self._at_a_byte, self._at_a_byte,
            self._at_an_answer, self._at_a_moment, self._one_of_them,
            self._by_the_user, self._silence))
        time.sleep(self._rng.choice((0, self._rng.random() * 0.3)))
        try:
            self._done.append(how(move))
        except QMPError as err:
            # All has come, though the source may not know it yet.
            move.link.hold(False)
            move.until(lambda: move.source.status == OVER,
                       f'"{err}", and it is not over', SOON)
            self._done.append(f'too late: {err}')
        deadline = time.monotonic() + PATIENCE
        while PAUSED not in (move.source.status, move.target.status):
            if move.source.status == OVER:
                move.link.disarm()
                return False
            if time.monotonic() > deadline:
                raise FerryError(f'nothing happened: {move.where()}')
            time.sleep(0.002)
        move.link.disarm()
        return True

    def _at_a_byte(self, move: Move) -> str:
        count, reset = self._rng.randrange(8 * MIB), self._rng.random() < 0.5
        move.link.cut_after(count, 'sent', reset)
        return f'{"reset" if reset else "closed"} after {count} bytes'

    def _at_an_answer(self, move: Move) -> str:
        # While nothing is asked for there is no answer: then soon anyway.
        count = self._rng.randrange(2000)
        move.link.cut_after(count, 'answered')
        if not move.link.cut_by_alarm.wait(2):
            move.link.cut()
        return f'reset after {count} bytes of answers'

    def _at_a_moment(self, move: Move) -> str:
        wait = self._rng.random()
        time.sleep(wait)
        move.link.cut(reset=self._rng.random() < 0.5)
        return f'cut after {wait:.3f} s'

    def _one_of_them(self, move: Move) -> str:
        which = self._rng.randrange(2) if self._way.caps else 0
        if len(move.link.alive()) <= which:
            which = 0   # channels are not made again
        move.link.cut(which)
        return f'connection {which} cut'

    def _by_the_user(self, move: Move) -> str:
        side = self._rng.choice((move.source, move.target))
        side.monitor.urgent('migrate-pause')
        return f'paused on {side.vm.name}'

    def _pause(self, side: Side) -> None:
        """One that has paused in the meantime may refuse to."""
        try:
            side.monitor.urgent('migrate-pause')
        except QMPError:
            if side.status != PAUSED:
                raise

    def _silence(self, move: Move) -> str:
        wait = self._rng.random()
        move.link.hold()
        time.sleep(wait)
        for side in (move.source, move.target):
            if side.status == ACTIVE:
                self._pause(side)
        move.link.cut()
        return f'silent for {wait:.3f} s, then paused'

    # Recoveries

    def _recover(self, move: Move) -> None:
        """Go on; now and then that fails at first."""
        fail = self._rng.choice((None, None, self._refused, self._cut_again))
        move.wait_paused()
        if fail is not None:
            self._done.append(fail(move))
            move.wait_paused()
        move.check_once()
        move.again()

    def _failed(self, move: Move, pauses: int) -> None:
        """Wait until the source is paused once more."""
        deadline = time.monotonic() + PATIENCE
        while (move.source.states().count(PAUSED) <= pauses
               or move.source.status != PAUSED):
            if time.monotonic() > deadline:
                raise FerryError('an attempt to recover did not fail: '
                                 + move.where())
            time.sleep(0.002)

    def _refused(self, move: Move) -> str:
        pauses = move.source.states().count(PAUSED)
        move.link.refuse()
        move.resume(move.link.uri)
        self._failed(move, pauses)
        move.link.refuse(False)
        return 'refused'

    def _cut_again(self, move: Move) -> str:
        way = self._rng.choice(('sent', 'answered'))
        count = self._rng.randrange(1, 5000 if way == 'answered' else 200)
        uri = tcp_uri()
        move.listen_again(uri)
        pauses = move.source.states().count(PAUSED)
        move.link.cut_after(count, way)
        move.resume(move.via(uri))
        self._failed(move, pauses)
        move.link.disarm()
        return f'cut after {count} bytes {way} of the recovery'
