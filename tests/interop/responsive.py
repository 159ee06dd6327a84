# The destination answers its monitor while memory streams in.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The destination answers its monitor while memory streams in.

Who loads at full speed in the main loop, or holds the big lock meanwhile, is
deaf for as long as that takes.  Here 3 GiB of random data come in as fast as
they can while the monitor is asked over and over.
"""

from __future__ import annotations

import time

from ferry.errors import FerryError
from ferry.migrate import ENDED, listen, set_params, tcp_uri
from ferry.vm import VM
from ferrytest.abilities import Skip
from ferrytest.bench import machine, native
from ferrytest.bench.run import ram_address
from ferrytest.suite import Case

from lab import Lab, check

MEMORY = 3072           # MiB
NEEDED = 2 * MEMORY + 1024      # MiB of the machine's memory
LIMIT = 0.020           # s for an answer
PAUSE = 0.001           # s between two questions
FEWEST = 50             # questions, or it says nothing
TIMEOUT = 60.0          # s for the load

# Who asks and who answers have to get a CPU for it as well.  How long that may
# take on this machine at this time is seen in the pauses between the questions:
# an answer may come later than LIMIT by twice the longest delay among them.
# That does not cover every accident, but those do not happen three times in
# turn, while whoever is deaf during a load is deaf during each.
MARGIN = 2.0
ATTEMPTS = 3


def stopped(lab: Lab, kind: str, incoming: str | None = None) -> VM:
    """A QEMU whose guest does not run."""
    vm = VM(kind, f'big-{"in" if incoming else "out"}', lab.workdir, MEMORY,
            paused=True, serial=False, accelerator='tcg', incoming=incoming)
    lab.vms.append(vm)
    return vm.start()


def ask(target: VM) -> tuple[list[float], float]:
    """Ask until the load has ended: seconds of each answer, longest delay."""
    answers: list[float] = []
    delay = 0.0
    end = time.monotonic() + TIMEOUT
    while True:
        asked = time.monotonic()
        status = target.qmp.cmd('query-migrate').get('status')
        answered = time.monotonic()
        if status in ENDED:
            check(status == 'completed', f'the load ended well: {status}')
            return answers, delay
        if status == 'active':
            answers.append(answered - asked)
        check(answered < end, f'the load ends within {TIMEOUT:.0f} s')
        time.sleep(PAUSE)
        delay = max(delay, time.monotonic() - answered - PAUSE)


def answers(source: str, target: str) -> Case:
    """See the top of this file."""
    def run(lab: Lab) -> str:
        if machine.available_mib() < NEEDED:
            raise Skip(f'{NEEDED:,} MiB of memory are not available')
        lab.clear()
        said = []
        for _ in range(ATTEMPTS):
            words, good = judge(*load(lab, source, target))
            said.append(words)
            if good:
                return '; before: '.join(reversed(said))
        raise FerryError('; '.join(said))
    return Case(f'{source}-{target}-destination-answers', run, False,
                (target,), ('query-migrate.progress',), alone=True)


def load(lab: Lab, source: str, target: str) -> tuple[list[float], float]:
    """Fill a guest, migrate it, and ask meanwhile."""
    src = stopped(lab, source)
    dst = stopped(lab, target, 'defer')
    native.fill(src.pid, ram_address(src), MEMORY << 20, 1)
    for vm in (src, dst):
        set_params(vm, {'max-bandwidth': 0})
    uri = listen(dst, tcp_uri())
    src.qmp.cmd('migrate', {'uri': uri})
    found = ask(dst)
    same = native.compare((src.pid, ram_address(src)),
                          (dst.pid, ram_address(dst)), MEMORY << 20)
    check(same['equal'], 'the memory arrived')
    lab.clear()
    return found


def judge(times: list[float], delay: float) -> tuple[str, bool]:
    """Say what the TIMES of the answers are, and whether that is good."""
    if len(times) < FEWEST:
        return (f'only {len(times)} answers during the load, in at most '
                f'{max(times, default=0):.3f} s'), False
    times = sorted(times)
    median, longest = times[len(times) // 2], times[-1]
    words = (f'{len(times)} answers in {1e3 * median:.2f} ms (median), '
             f'{1e3 * times[-1 - len(times) // 100]:.1f} (99 %), '
             f'{1e3 * longest:.1f} ms (longest); allowed: '
             f'{1e3 * LIMIT:.0f} + {MARGIN:.0f} x {1e3 * delay:.1f} ms')
    return words, median <= LIMIT and longest <= LIMIT + MARGIN * delay


def all_cases() -> list[Case]:
    """Both sources, since they cut the stream in their own ways."""
    return [answers('ferry', 'ferry'), answers('pristine', 'ferry')]
