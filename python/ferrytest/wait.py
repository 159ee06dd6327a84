# Waiting for something that takes a moment.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for something that takes a moment."""

from __future__ import annotations

import time
from typing import Any, Callable

from ferry.errors import FerryError

PATIENCE = 20.0         # s for what takes milliseconds
PAUSE = 0.005           # s between two looks


def until(condition: Callable[[], Any], claim: str,
          patience: float = PATIENCE) -> Any:
    """Wait for CONDITION, and return what it says."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise FerryError(f'not within {patience:.0f} s: {claim}')
        time.sleep(PAUSE)
