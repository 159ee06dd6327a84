# Commands that other threads execute, in the moment when a migration ends.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that other threads execute, in the moment when a migration ends.

Out-of-band commands are executed in the monitor's thread, and do not wait for
the main loop: they come while a side closes what they are about.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'quit'))

import rounds as quitting                                   # noqa: E402
from ferry.errors import FerryError                         # noqa: E402
from ferry.migrate import set_params                        # noqa: E402
from ferry.qmp import GONE, LATE, QMPError                  # noqa: E402
from ferrytest.bench import native                          # noqa: E402
from ferrytest.bench.run import ram_address                 # noqa: E402
from ferrytest.postcopy import Side                         # noqa: E402
from pair import FILL, Pair, busy, must_end                 # noqa: E402

ACTIVE, PAUSED = 'postcopy-active', 'postcopy-paused'
COMPLETED = 'completed'
ENDED = (COMPLETED, 'failed', 'cancelled')
RATE = {'max_bandwidth': 24 << 20, 'max_postcopy_bandwidth': 24 << 20,
        'downtime_limit': 1000}
FAST = {'max-postcopy-bandwidth': 0}
PAUSES = 6              # of a postcopy, at most
BURST = 0.05            # s between two of them, at most
QUIT_WITHIN = 30.0      # s for an emulator with the sanitizer, when it is busy
BUSY = 2                # processes beside it
BUSY_SECONDS = 600
YANK = {'instances': [{'type': 'migration'}]}
YANK_WITHIN = 2.0       # s


class Hammer(threading.Thread):
    """Urgent commands to one side, over and over; errors do not matter."""

    def __init__(self, side: Side, commands: list[tuple[str, dict | None]],
                 chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._side, self._commands, self._chance = side, commands, chance
        self._over = threading.Event()
        self.answers: dict[str, int] = {}
        self.start()

    def run(self) -> None:
        while not self._over.wait(self._chance.uniform(0, 0.004)):
            name, arguments = self._chance.choice(self._commands)
            try:
                self._side.monitor.urgent(name, arguments)
                answer = f'{name} done'
            except QMPError as err:
                if err.cls in (GONE, LATE):
                    return
                answer = f'{name} refused'
            self.answers[answer] = self.answers.get(answer, 0) + 1

    def end(self) -> None:
        """No more of them."""
        self._over.set()
        self.join()


def _urgent(side: Side, name: str, arguments: dict | None) -> bool:
    """A command that may come too late; whether it did not."""
    try:
        side.monitor.urgent(name, arguments)
        return True
    except QMPError as err:
        if err.cls in (GONE, LATE):
            raise
        return False


def precopy(caps: dict[str, bool], chance: random.Random, folder: Path,
            binary: str) -> str:
    """Both sides get what they refuse, and one of them a yank at some time."""
    two = Pair(folder, binary, {'events': True, **caps}, **RATE)
    hammers: list[Hammer] = []
    try:
        refused = [('migrate-pause', None),
                   ('migrate-recover', {'uri': f'unix:{folder}/again'})]
        two.begin(False)
        hammers = [Hammer(side, refused, random.Random(chance.random()))
                   for side in (two.source, two.target)]
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, YANK_WITHIN))
            _urgent(chance.choice((two.source, two.target)), 'yank', YANK)
        two.until(lambda: all(side.status in ENDED for side in
                              (two.source, two.target)), 'over')
        for hammer in hammers:
            hammer.end()
        return two.source.status
    finally:
        for hammer in hammers:
            hammer.end()
        two.kill()


def _settled(two: Pair) -> bool:
    """Both sides are done, or wait for somebody."""
    return all(side.status in (*ENDED, PAUSED)
               for side in (two.source, two.target))


def _again(two: Pair, number: int) -> None:
    """Both go on over a new connection."""
    uri = f'unix:{two.folder}/again{number}'
    two.until(lambda: _urgent(two.target, 'migrate-recover', {'uri': uri}),
              'listening')
    two.src.qmp.cmd('migrate', {'uri': uri, 'resume': True})
    two.until(lambda: two.source.status in (ACTIVE, PAUSED, *ENDED),
              'resumed')


def _pause(two: Pair, chance: random.Random, over: Callable[[], bool]
           ) -> Side:
    """Some side pauses at some time, or is too late."""
    time.sleep(chance.uniform(0, 1.5))
    side = chance.choice((two.source, two.target))
    for _ in range(chance.randrange(1, 8)):
        if over():
            break
        _urgent(side, *chance.choice((
            ('migrate-pause', None), ('migrate-pause', None), ('yank', YANK))))
        time.sleep(chance.uniform(0, BURST))
    return side


def postcopy(caps: dict[str, bool], chance: random.Random, folder: Path,
             binary: str) -> str:
    """Pauses until the end, each of which is recovered from."""
    two = Pair(folder, binary,
               {'events': True, 'postcopy-ram': True, **caps}, **RATE)
    pauses, side = 0, two.source
    try:
        two.begin(True)
        two.until(lambda: bool(two.target.when('RESUME')), 'in postcopy')
        while not _settled(two) and pauses < PAUSES:
            side = _pause(two, chance, lambda: _settled(two))
            two.until(lambda: _settled(two) or two.source.status == ACTIVE,
                      'settled')
            two.until(lambda: two.target.status != 'postcopy-recover',
                      'settled')
            if two.source.status == two.target.status == PAUSED:
                pauses += 1
                _again(two, pauses)
        set_params(two.src, FAST)
        two.until(lambda: _settled(two), 'over')
        _judge(two, side)
        return f'completed after {pauses}'
    finally:
        two.kill()


def _judge(two: Pair, last: Side) -> None:
    """The guest has arrived, whatever was cut meanwhile."""
    states = two.source.status, two.target.status
    # What comes too late for the destination may still cut its last word.
    if states != (COMPLETED, COMPLETED) and not (
            states == (PAUSED, COMPLETED) and last is two.source):
        raise FerryError(f'the two are {states}: {two.source.why()}; '
                         f'{two.target.why()}')
    start, size = FILL
    same = native.compare((two.src.pid, ram_address(two.src) + start),
                          (two.dst.pid, ram_address(two.dst) + start), size)
    if not same['equal']:
        raise FerryError(f'the memory differs: {same}')
    for vm in (two.dst, two.src):
        must_end(vm, quitting.told(vm), QUIT_WITHIN)


Round = Callable[[random.Random, Path, str], str]


def commands(what: Callable[..., str], **caps: bool) -> Round:
    """A round of commands in a migration with CAPS."""
    named = {name.replace('_', '-'): state for name, state in caps.items()}
    return lambda chance, folder, binary: what(named, chance, folder, binary)


def end(case: quitting.Case) -> Round:
    """A round of tests/quit, on a machine that is busy."""
    def run(chance: random.Random, folder: Path, binary: str) -> str:
        with busy(BUSY, BUSY_SECONDS):
            return case.round(quitting.Plan(binary, 1, QUIT_WITHIN,
                                            chance), folder)
    return run


ROUNDS: dict[str, Round] = {
    'commands-precopy': commands(precopy),
    'commands-return-path': commands(precopy, return_path=True),
    'commands-strict': commands(precopy, return_path=True,
                                strict_downtime=True),
    'commands-postcopy': commands(postcopy),
    'commands-preempt': commands(postcopy, postcopy_preempt=True),
    'commands-strict-postcopy': commands(postcopy, return_path=True,
                                         strict_downtime=True),
    **{f'quit-{case.name.replace("/", "-")}': end(case)
       for case in quitting.CASES},
}


def run(name: str, count: int, folder: Path, binary: str) -> str:
    """COUNT rounds; what became of how many."""
    chance = random.Random(name)
    seen: dict[str, int] = {}
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        try:
            said = ROUNDS[name](chance, place, binary)
        except (FerryError, QMPError) as err:
            raise FerryError(f'round {number + 1} of {count}: {err}') from err
        seen[said] = seen.get(said, 0) + 1
    return ', '.join(f'{n} {said}' for said, n in sorted(seen.items()))
