# Medians, spreads and ratios of a few runs.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Medians, spreads and ratios of a few runs.

With five or seven runs on a machine that does other things too, mean and
standard deviation describe the outlier.  Here everything is a median: the
spread is the median distance from the median.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Iterable, Mapping


@dataclass(frozen=True)
class Summary:
    """Several values of one quantity."""

    n: int
    median: float
    low: float
    high: float
    spread: float | None    # median distance from the median; None for n < 3

    @property
    def spread_percent(self) -> float | None:
        """The spread as a share of the median."""
        if self.spread is None or self.median == 0:
            return None
        return 100 * self.spread / abs(self.median)


def summary(values: Iterable[float | None]) -> Summary | None:
    """Summarize VALUES; missing ones do not count.  None if nothing is left."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    median = statistics.median(known)
    spread = None
    if len(known) >= 3:
        spread = statistics.median(abs(value - median) for value in known)
    return Summary(len(known), median, min(known), max(known), spread)


@dataclass(frozen=True)
class Ratio:
    """How one series of runs compares with a reference."""

    median: float           # of the medians
    low: float              # lowest and highest ratio of two runs that were
    high: float             # made one after the other
    n: int                  # such pairs


def ratio(values: Mapping[int, float | None],
          reference: Mapping[int, float | None]) -> Ratio | None:
    """Ratio of the medians of VALUES and REFERENCE (round -> value).

    None where there is nothing to divide, or nothing to divide by.
    """
    ours, theirs = summary(values.values()), summary(reference.values())
    if ours is None or theirs is None or theirs.median <= 0:
        return None
    pairs = [value / reference[round_] for round_, value in values.items()
             if value is not None and reference.get(round_)]
    middle = ours.median / theirs.median
    if not pairs:
        return Ratio(middle, middle, middle, 0)
    return Ratio(middle, min(pairs), max(pairs), len(pairs))
