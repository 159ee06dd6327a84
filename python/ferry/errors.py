# Errors meant for the user, and the wrapper that prints them.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors meant for the user, and the wrapper that prints them."""

from __future__ import annotations

import os
import signal
import sys
from typing import Callable


class FerryError(Exception):
    """Something failed that the user can act on; the text is one line."""


def one_line(text: str, limit: int = 400) -> str:
    """Fold white space so that TEXT fits in a one-line message."""
    folded = ' '.join(text.split())
    if len(folded) > limit:
        folded = folded[:limit - 3] + '...'
    return folded


def _interrupt(signum: int, _frame: object) -> None:
    # Only the first one counts: a second signal would break off the cleanup
    # that the first one started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(signum).name)


def run_main(main: Callable[[list[str]], int]) -> None:
    """Run MAIN(argv) as a whole script and exit with its status.

    A FerryError becomes "error: ..." and status 1.  Ctrl-C, SIGTERM and SIGHUP
    unwind the stack, so that context managers clean up, and give status 130.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except FerryError as err:
        print(f'error: {err}', file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    except BrokenPipeError:
        # The reader of our output went away (as in "... | head"); there is
        # nobody left to tell, and flushing at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    sys.exit(status)
