# Follow one migration: QMP replies in, the numbers an operator wants out.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Follow one migration: QMP replies in, the numbers an operator wants out.

Nothing here does any input or output, reads a clock or knows about terminals: a
Track is fed Samples (what QEMU answered, and when) and can be asked at any time
for the current Point. view.py turns that into lines and report.py into a page.

Units: seconds and bytes, unless a name says otherwise (_ms, _pct).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Optional

ENDED = ('completed', 'failed', 'cancelled')
IDLE = ('none', '')
# States in which the guest already runs on the destination.
POSTCOPY = ('postcopy-active', 'postcopy-paused', 'postcopy-recover-setup',
            'postcopy-recover')

# Rates are measured over this much history: long enough to even out the 100 ms
# steps in which a limited bandwidth is spent, short enough to look alive.
RATE_WINDOW = 0.6
# The time left is worked out from a steadier rate.
SPEED_WINDOW = 2.0
# A migration that is still going never shows more than this.
ALMOST = 99.0
# A story longer than this is thinned out where it is oldest.
MAX_POINTS = 20000
# Passes looked ahead when the time left is estimated.
MAX_PASSES = 200


@dataclass(frozen=True)
class Sample:
    """What one poll of one QEMU brought: the replies, unaltered."""
    t: float
    migrate: dict
    status: str = ''
    params: Optional[dict] = None
    caps: Optional[dict] = None

    @staticmethod
    def of(data: Any, t: float = 0.0) -> 'Sample':
        """Make a sample of a dict holding 't', 'migrate', 'status', 'params'
        and 'caps' (all optional), or of a bare query-migrate reply."""
        if isinstance(data, Sample):
            return data
        if not isinstance(data, dict):
            return Sample(t, {})
        if isinstance(data.get('migrate'), dict):
            status = data.get('status')
            if isinstance(status, dict):
                status = status.get('status')
            return Sample(number(data.get('t'), t), data['migrate'],
                          status if isinstance(status, str) else '',
                          data.get('params'), caps_of(data.get('caps')))
        return Sample(number(data.get('t'), t), data)


def number(value: Any, default: Any = 0.0) -> Any:
    """The value if it is a number, else the default (booleans are no numbers)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    return value if value == value else default


def text(value: Any) -> str:
    return value if isinstance(value, str) else ''


def caps_of(value: Any) -> Optional[dict]:
    """Capabilities as {name: bool}, also from the list that QMP answers with."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        return {c['capability']: bool(c.get('state')) for c in value
                if isinstance(c, dict) and 'capability' in c}
    return None


# -- the optional `progress` object of query-migrate ------------------------

class Progress:
    """The `progress` object. Its members go by the names that QMP has for
    them, those of an object within it as 'stall.longest-us'. One that is
    missing, as QEMU does not know (yet), or is of a later shape, is None or
    empty."""

    def __init__(self, obj: dict) -> None:
        self._obj = obj

    def _value(self, path: str) -> Any:
        value: Any = self._obj
        for name in path.split('.'):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def _list(self, path: str) -> list:
        value = self._value(path)
        return value if isinstance(value, list) else []

    def number(self, path: str) -> Any:
        return number(self._value(path), None)

    def ms(self, path: str) -> Optional[float]:
        """A time whose name ends with its unit, -us or -ms."""
        value = self.number(path)
        return value / 1000 if value is not None and path.endswith('us') \
            else value

    def text(self, path: str) -> str:
        return text(self._value(path))

    def flag(self, path: str) -> bool:
        return self._value(path) is True

    def texts(self, path: str) -> list[str]:
        return [one for one in self._list(path) if isinstance(one, str)]

    def numbers(self, path: str) -> dict[str, float]:
        """Those of an object, in the order in which they are told."""
        found = self._value(path)
        return {name: value
                for name, value in (found if isinstance(found, dict)
                                    else {}).items()
                if number(value, None) is not None}

    def objects(self, path: str) -> list[Progress]:
        """Those of a list, with members of their own."""
        return [Progress(one) for one in self._list(path)
                if isinstance(one, dict)]

    def parts(self, path: str) -> list[tuple[str, float]]:
        """Steps and their times in ms, in the order in which they are told."""
        parts = [Progress(part) for part in self._list(path)
                 if isinstance(part, dict)
                 and isinstance(part.get('name'), str)]
        return [(part.text('name'), part.ms('us')) for part in parts
                if part.ms('us') is not None]


def read_progress(obj: Any) -> Optional[Progress]:
    """The `progress` object of an answer, if there is one."""
    return Progress(obj) if isinstance(obj, dict) else None


# -- one migration over time -------------------------------------------------

@dataclass(frozen=True)
class Point:
    """The state of a migration at one sample. None: not known (yet)."""
    t: float                       # clock of the samples
    elapsed: float                 # since the migration began
    phase: str
    run_state: str
    iteration: int
    transferred: int
    remaining: int
    total: int
    done: int                      # bytes of guest memory dealt with so far
    bandwidth: float               # bytes a second over the link, measured
    speed: float                   # bytes of guest memory a second
    dirty: float                   # bytes a second dirtied by the guest
    percent: float                 # never falls within one migration
    eta: Optional[float]
    converges: Optional[bool]
    expected_ms: Optional[float]
    throttle: Optional[int]


@dataclass(frozen=True)
class Pass:
    """One pass over guest memory, as far as the samples show it."""
    number: int
    start: float                   # elapsed time at its first sample
    remaining: int                 # bytes to send then
    transferred: int


@dataclass(frozen=True)
class Phase:
    name: str
    start: float
    end: float


def forecast(remaining: float, speed: float, dirty: float,
             limit: float) -> tuple[Optional[float], Optional[bool]]:
    """How many bytes of guest memory are still to be dealt with until what is
    left fits into the downtime limit, and whether that point is ever reached.

    Each pass lasts as long as its bytes take at the given speed, and what the
    guest dirties meanwhile is the next pass. (None, None) while the speed is
    not known, (None, False) when the guest dirties faster than that."""
    if remaining <= 0:
        return 0.0, True
    if speed <= 0:
        return None, None
    ratio = dirty / speed
    threshold = speed * limit
    left = float(remaining)
    this_pass = float(remaining)
    for _ in range(MAX_PASSES):
        this_pass *= ratio
        left += this_pass
        if this_pass <= max(threshold, 1.0):
            return left, True
    return None, False


def slope(history: list, t: float, window: float) -> float:
    """Growth a second of the newest (t, value) against the newest entry that is
    at least `window` older, or the oldest there is; 0 with only one entry."""
    if not history:
        return 0.0
    newest_t, newest = history[-1]
    base_t, base = history[0]
    for entry_t, value in reversed(history[:-1]):
        if t - entry_t >= window:
            base_t, base = entry_t, value
            break
    if newest_t <= base_t:
        return 0.0
    return max(0.0, (newest - base) / (newest_t - base_t))


class Track:
    """The story of one migration, built sample by sample.

    When QEMU starts another migration the story begins anew; `restarts` counts
    these. Not thread-safe: feed and read it from one thread."""

    def __init__(self) -> None:
        self.restarts = 0
        self.params: dict = {}
        self.caps: dict = {}
        self.lost = ''             # why QEMU cannot be asked any more
        self.silent = 0.0          # seconds QEMU has not answered for
        self.run_state = ''
        self._reset()

    def _reset(self) -> None:
        self.points: list[Point] = []
        self.passes: list[Pass] = []
        self.phases: list[Phase] = []
        self.last: dict = {}       # last query-migrate reply
        self.info: dict = {}       # union of replies: ended ones say less
        self.progress: Optional[Progress] = None
        self.t0: Optional[float] = None
        self._sent: list = []
        self._done: list = []

    # What it is

    @property
    def point(self) -> Optional[Point]:
        return self.points[-1] if self.points else None

    @property
    def phase(self) -> str:
        return self.points[-1].phase if self.points else 'none'

    @property
    def started(self) -> bool:
        return self.phase not in IDLE

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def incoming(self) -> bool:
        """True for the receiving side: it has a status, but counts no RAM."""
        if self.run_state == 'inmigrate' or 'socket-address' in self.info:
            return True
        return (self.started and not self.ended and self.phase != 'setup'
                and 'ram' not in self.info)

    @property
    def error(self) -> str:
        return text(self.info.get('error-desc'))

    @property
    def limit_ms(self) -> Optional[float]:
        return number(self.params.get('downtime-limit'), None)

    @property
    def max_bandwidth(self) -> Optional[float]:
        """Bytes a second; None when there is no limit."""
        limit = number(self.params.get('max-bandwidth'), None)
        return limit if limit and limit < 1 << 50 else None

    @property
    def downtime_ms(self) -> Optional[float]:
        return number(self.info.get('downtime'), None)

    @property
    def ram(self) -> dict:
        ram = self.info.get('ram')
        return ram if isinstance(ram, dict) else {}

    def average_bandwidth(self) -> float:
        """Bytes a second from the first byte to now."""
        point = self.point
        if not point or point.elapsed <= 0:
            return 0.0
        setup = number(self.info.get('setup-time'), 0) / 1000.0
        return point.transferred / max(point.elapsed - setup, 1e-3)

    def pass_rows(self) -> list[tuple[Pass, float, int]]:
        """Each pass with how long it took and how much went over the link."""
        rows = []
        for this, after in zip(self.passes, self.passes[1:] + [None]):
            end = after.start if after else self.points[-1].elapsed
            sent = (after.transferred if after
                    else self.points[-1].transferred)
            rows.append((this, max(0.0, end - this.start),
                         max(0, sent - this.transferred)))
        return rows

    # What happens to it

    def feed_all(self, samples: Iterable) -> 'Track':
        for sample in samples:
            self.feed(Sample.of(sample))
        return self

    def feed(self, sample: Sample) -> None:
        if isinstance(sample.params, dict):
            self.params = sample.params
        if isinstance(sample.caps, dict):
            self.caps = sample.caps
        self.lost = ''
        self.silent = 0.0
        phase = text(sample.migrate.get('status')) or 'none'
        if self._is_new(phase, sample):
            self._reset()
            self.restarts += 1
        self.run_state = sample.status or self.run_state
        self.last = sample.migrate
        self._merge(sample.migrate)
        self.progress = (read_progress(sample.migrate.get('progress'))
                         or self.progress)
        if phase in IDLE:
            return
        self._place(sample)
        if len(self.points) > MAX_POINTS:
            half = len(self.points) // 2
            self.points[:half] = self.points[:half:2]
        if self.ended and self.points[-1].phase == phase:
            return                 # nothing happens any more
        self.points.append(self._measure(sample, phase))
        self._note_pass()
        self._note_phase(phase)

    def end(self, t: float, phase: str) -> None:
        """Record a phase learnt of by other means (an event seen just before
        QEMU went away), so that the story has its end."""
        if self.started and self.phase != phase:
            self.feed(Sample(t, {'status': phase}))

    def _is_new(self, phase: str, sample: Sample) -> bool:
        """A migration begins after another ended, or its clock fell back."""
        if not self.started or phase in IDLE:
            return False
        if self.ended:
            return phase not in ENDED
        now = number(sample.migrate.get('total-time'), None)
        before = number(self.last.get('total-time'), None)
        return now is not None and before is not None and now + 50 < before

    def _merge(self, reply: dict) -> None:
        for key, value in reply.items():
            if isinstance(value, dict) and isinstance(self.info.get(key), dict):
                self.info[key] = {**self.info[key], **value}
            else:
                self.info[key] = value

    def _place(self, sample: Sample) -> None:
        """Fix when the migration began, on the clock of the samples."""
        if self.t0 is None:
            before = number(sample.migrate.get('total-time'), 0) / 1000.0
            self.t0 = sample.t - before

    def _elapsed(self, sample: Sample) -> float:
        told = number(sample.migrate.get('total-time'), None)
        if told is not None:
            return told / 1000.0
        if self.ended and self.points:
            return self.points[-1].elapsed
        return max(0.0, sample.t - (self.t0 or 0.0))

    def _measure(self, sample: Sample, phase: str) -> Point:
        ram = self.ram
        page = number(ram.get('page-size'), 4096) or 4096
        sent = max(int(number(ram.get('transferred'), 0)),
                   self.points[-1].transferred if self.points else 0)
        done = page * sum(int(number(ram.get(key), 0))
                          for key in ('normal', 'duplicate'))
        cache = self.info.get('xbzrle-cache')
        if isinstance(cache, dict):
            done += page * int(number(cache.get('pages'), 0))
        total = int(number(ram.get('total'), 0))
        remaining = int(number(ram.get('remaining'), 0))
        if phase == 'completed':
            remaining = 0
        if phase not in ENDED:
            self._sent.append((sample.t, sent))
            self._done.append((sample.t, done))
            for history in (self._sent, self._done):
                while sample.t - history[0][0] > 2 * SPEED_WINDOW and \
                        len(history) > 2:
                    history.pop(0)
        speed = slope(self._done, sample.t, SPEED_WINDOW)
        if len(self._done) < 2:    # nothing to compare with: QEMU's own figure
            speed = page * number(ram.get('pages-per-second'), 0)
        dirty = page * number(ram.get('dirty-pages-rate'), 0)
        bandwidth = self._bandwidth(sample.t, phase)
        percent, eta, converges = self._progress(
            phase, done, remaining, total, speed, dirty)
        throttle = number(sample.migrate.get('cpu-throttle-percentage'), None)
        return Point(
            t=sample.t, elapsed=self._elapsed(sample), phase=phase,
            run_state=self.run_state,
            iteration=int(number(ram.get('dirty-sync-count'), 0)),
            transferred=sent, remaining=remaining, total=total, done=done,
            bandwidth=bandwidth, speed=speed, dirty=dirty, percent=percent,
            eta=eta, converges=converges, throttle=throttle,
            expected_ms=self._expected(sample.migrate, phase))

    def _bandwidth(self, t: float, phase: str) -> float:
        if phase in ENDED:
            return 0.0
        if len(self._sent) < 2:
            return number(self.ram.get('mbps'), 0) * 1e6 / 8
        return slope(self._sent, t, RATE_WINDOW)

    def _expected(self, reply: dict, phase: str) -> Optional[float]:
        if phase in ENDED or phase in POSTCOPY:
            return None
        if self.progress:
            predicted = self.progress.ms('predicted-downtime.likely-us')
            if predicted is not None:
                return predicted
        if number(self.ram.get('dirty-sync-count'), 0) < 2:
            return None            # so far QEMU just repeats the limit
        return number(reply.get('expected-downtime'), None)

    def _progress(self, phase: str, done: int, remaining: int, total: int,
                  speed: float, dirty: float) \
            -> tuple[float, Optional[float], Optional[bool]]:
        """Percent, seconds left, and whether the passes get smaller."""
        floor = self.points[-1].percent if self.points else 0.0
        if phase == 'completed':
            return 100.0, 0.0, True
        if phase in ENDED:
            return floor, None, None
        told = self.progress.number('percent') if self.progress else None
        if self.progress and told is not None:
            percent = max(floor, min(ALMOST, told))
            eta = self.progress.ms('eta.likely-ms')
            return percent, None if eta is None else eta / 1000.0, None
        if total <= 0:
            return floor, None, None
        limit = (self.limit_ms if self.limit_ms is not None else 300) / 1000.0
        if phase in POSTCOPY:
            dirty = 0.0            # the guest no longer runs here
        left, converges = forecast(remaining, speed, dirty, limit)
        # Without an end in sight, one more pass of the same size is the least.
        ahead = left if left is not None else 2.0 * remaining
        whole = done + ahead
        percent = 100.0 * done / whole if whole > 0 else 0.0
        percent = max(floor, min(ALMOST, percent))
        eta = left / speed if left is not None and speed > 0 else None
        return percent, eta, converges

    def _note_pass(self) -> None:
        point = self.points[-1]
        if point.iteration <= 0 or point.phase == 'completed':
            return
        if not self.passes or self.passes[-1].number != point.iteration:
            self.passes.append(Pass(point.iteration, point.elapsed,
                                    point.remaining, point.transferred))

    def _note_phase(self, phase: str) -> None:
        now = self.points[-1].elapsed
        if self.phases and self.phases[-1].name == phase:
            last = self.phases[-1]
            self.phases[-1] = Phase(phase, last.start, max(now, last.end))
            return
        start = 0.0
        setup = number(self.info.get('setup-time'), 0) / 1000.0
        if not self.phases and phase != 'setup' and 0 < setup < now:
            self.phases.append(Phase('setup', 0.0, setup))   # not seen
            start = setup
        elif self.phases:
            last = self.phases[-1]
            start = max(now, last.start)
            if phase in ENDED and last.end > start:
                start = last.end
            self.phases[-1] = Phase(last.name, last.start, start)
        self.phases.append(Phase(phase, start, max(now, start)))
