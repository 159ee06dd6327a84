# Huge pages of the host, for as long as a test needs them.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages of the host, for as long as a test needs them."""

from __future__ import annotations

import fcntl
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator

from .abilities import Skip

HUGE = 2                # MiB
POOL = Path(f'/sys/kernel/mm/hugepages/hugepages-{HUGE << 10}kB')


def _number(name: str) -> int:
    return int((POOL / name).read_text())


@contextmanager
def huge_pages(count: int) -> Iterator[None]:
    """Have the kernel reserve COUNT more, if it can; give them back.

    One test at a time: the number is that of the whole machine.
    """
    setting = POOL / 'nr_hugepages'
    with ExitStack() as stack:
        try:
            pool = stack.enter_context(open(setting, encoding='ascii'))
            fcntl.flock(pool, fcntl.LOCK_EX)
            before = _number('nr_hugepages')
            free = _number('free_hugepages')
            setting.write_text(str(before + max(0, count - free)))
        except OSError as err:
            raise Skip(f'no huge pages can be reserved here: {err}') from None
        stack.callback(setting.write_text, str(before))
        if _number('free_hugepages') < count:
            raise Skip(f'the kernel finds no {count} huge pages of {HUGE} MiB')
        yield
