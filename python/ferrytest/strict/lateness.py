# How late this machine is when something has to happen at once.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""How late this machine is when something has to happen at once.

A process of its own sleeps for a millisecond again and again, and tells by how
much it overslept: on a busy machine that is what getting a CPU takes, for a
timer of QEMU as for anybody else.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time

_SLEEPER = '''
import sys, time
while True:
    start = time.monotonic_ns()
    time.sleep(0.001)
    now = time.monotonic_ns()
    if now - start > 1500000:
        sys.stdout.write(f"{now} {now - start - 1000000}\\n")
        sys.stdout.flush()
'''


class Lateness:
    """Watches the machine until stop()."""

    def __init__(self) -> None:
        self._late: list[tuple[int, float]] = []
        self._process = subprocess.Popen(
            [sys.executable, '-I', '-c', _SLEEPER], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            when, late = line.split()
            self._late.append((int(when), int(late) / 1e6))

    def worst_ms(self, since_ns: int) -> float:
        """The longest delay since that time; 0 if there was none to speak of.

        SINCE_NS is of time.monotonic_ns().
        """
        time.sleep(0.005)       # what was late is told late
        return max((late for when, late in self._late if when >= since_ns),
                   default=0.0)

    def stop(self) -> None:
        """Watch no more."""
        self._process.kill()
        self._process.wait()
        self._thread.join(2)
        self._process.stdout.close()
