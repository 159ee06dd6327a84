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

from ferry.abilities import Skip
from ferry.bench import machine, native
from ferry.bench.run import ram_address
from ferry.errors import FerryError
from ferry.migrate import ENDED, listen, set_params, tcp_uri
from ferry.vm import VM

from common import Case
from lab import Lab, check

MEMORY = 3072           # MiB
NEEDED = 2 * MEMORY + 1024      # MiB of the machine's memory
LIMIT = 0.020           # s for an answer
PAUSE = 0.001           # s between two questions
FEWEST = 50             # questions, or it says nothing
TIMEOUT = 60.0          # s for the load

# Who asks has to get a CPU for it as well.  How long that may take on this
# machine at this time is seen in the pauses between the questions: an answer
# may come later than LIMIT by twice the longest delay among them.
MARGIN = 2.0


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
        src = stopped(lab, source)
        dst = stopped(lab, target, 'defer')
        native.fill(src.pid, ram_address(src), MEMORY << 20, 1)
        for vm in (src, dst):
            set_params(vm, {'max-bandwidth': 0})
        uri = listen(dst, tcp_uri())
        src.qmp.cmd('migrate', {'uri': uri})
        times, delay = ask(dst)
        same = native.compare((src.pid, ram_address(src)),
                              (dst.pid, ram_address(dst)), MEMORY << 20)
        check(same['equal'], 'the memory arrived')
        return judge(sorted(times), delay)
    return Case(f'{source}-{target}-destination-answers', run, False,
                (target,), ('query-migrate.ferry',))


def judge(times: list[float], delay: float) -> str:
    """Check the sorted TIMES of the answers."""
    if len(times) < FEWEST:
        raise FerryError(f'only {len(times)} answers during the load: '
                         f'at most {max(times, default=0):.3f} s')
    median, longest = times[len(times) // 2], times[-1]
    allowed = LIMIT + MARGIN * delay
    words = (f'{len(times)} answers in {1e3 * median:.2f} ms (median), '
             f'{1e3 * times[-1 - len(times) // 100]:.1f} (99 %), '
             f'{1e3 * longest:.1f} ms (longest); allowed: '
             f'{1e3 * LIMIT:.0f} + {MARGIN:.0f} x {1e3 * delay:.1f} ms')
    check(median <= LIMIT and longest <= allowed, words)
    return words


def all_cases() -> list[Case]:
    """Both sources, since they cut the stream in their own ways."""
    return [answers('ferry', 'ferry'), answers('pristine', 'ferry')]
