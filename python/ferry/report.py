# Write the story of a migration as one self-contained HTML page.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the story of a migration as one self-contained HTML page.

The page holds its style and its charts (SVG) and needs nothing else: it can be
mailed, archived or attached to a ticket. It is well-formed XML too, so that a
test can parse it. Only write() touches the file system.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Callable, Iterable, Optional

from .errors import FerryError
from .track import ENDED, POSTCOPY, Point, Track, number
from .view import clean, millis, rate, seconds, size

Fact = tuple[str, str]              # label, value

WIDTH = 860                         # of a chart, in its own units
LEFT, RIGHT = 78, 14
MAX_MARKS = 600                     # points of a line; more cannot be seen
MAX_HOVER = 240                     # strips that answer to the pointer

STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1c2430; --soft: #5c6878;
  --rule: #e1e5ea; --grid: #e9ecf0; --send: #1f6feb; --dirty: #c2570c;
  --left: #0f8a7e; --time: #8a4fd3; --good: #18794e; --bad: #c62f2f;
  --warn: #9a6700; --setup: #9aa4b2; --active: #1f6feb; --switch: #d6409f;
  --post: #8a4fd3; --stop: #b4bcc8; }
@media (prefers-color-scheme: dark) { :root {
  --page: #10141a; --card: #181e27; --ink: #e4e9f0; --soft: #98a4b5;
  --rule: #2a323e; --grid: #252d38; --send: #5b9dff; --dirty: #f5924e;
  --left: #3cc7b6; --time: #b68af2; --good: #4cc38a; --bad: #ff7b72;
  --warn: #e0b341; --setup: #6b7787; --active: #4d93fb; --switch: #f06bbd;
  --post: #a97df0; --stop: #566172; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 22px; line-height: 1.3; margin: 0 0 2px;
  overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 0 0 2px; }
p { margin: 0 0 12px; color: var(--soft); }
p.error { color: var(--bad); font-weight: 600; overflow-wrap: anywhere; }
.mark { font-weight: 700; }
.completed { color: var(--good); } .failed { color: var(--bad); }
.cancelled, .gone { color: var(--warn); }
.card { background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; padding: 16px 18px; margin: 14px 0; }
.tiles { display: grid; gap: 12px; margin: 16px 0;
  grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); }
.tile { background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; padding: 10px 12px; }
.tile b { display: block; font-size: 18px; font-weight: 650;
  white-space: nowrap; }
.tile span { color: var(--soft); font-size: 13px; }
.key { display: flex; flex-wrap: wrap; gap: 2px 18px; color: var(--soft);
  font-size: 13px; margin: 0 0 6px; }
.key i { display: inline-block; width: 14px; height: 10px; border-radius: 2px;
  margin-right: 6px; }
.key i.line { height: 3px; vertical-align: middle; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 11.5px; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .axis { stroke: var(--rule); stroke-width: 1; }
svg .pass { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3;
  opacity: .55; }
svg .limit { stroke: var(--soft); stroke-width: 1.3; stroke-dasharray: 6 4; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .strip { fill: transparent; }
svg .strip:hover { fill: var(--soft); fill-opacity: .22; }
svg .on { fill: #fff; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 5px 14px 5px 0; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
tr:last-child th, tr:last-child td { border-bottom: 0; }
th { font-weight: 500; color: var(--soft); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
details summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: 12.5px; margin: 10px 0 0; }
"""

PHASE_COLOR = {'setup': '--setup', 'wait-unplug': '--setup',
               'active': '--active', 'pre-switchover': '--switch',
               'device': '--switch', 'colo': '--post', 'failed': '--bad',
               'completed': '--good', 'cancelled': '--stop',
               'cancelling': '--stop', 'postcopy-paused': '--bad'}
PART_COLORS = ('--send', '--dirty', '--left', '--time', '--switch', '--setup',
               '--good', '--warn', '--bad')


# -- scales ------------------------------------------------------------------

def nice_step(top: float, steps: int) -> float:
    """1, 2 or 5 times a power of ten, so that about `steps` of them fit."""
    raw = max(top, 1e-9) / max(1, steps)
    power = 10.0 ** math.floor(math.log10(raw))
    for factor in (1, 2, 5, 10):
        if raw <= factor * power * 1.0001:
            return factor * power
    return 10 * power


def ticks(top: float, steps: int = 4) -> list[float]:
    step = nice_step(top, steps)
    count = max(1, math.ceil(top / step - 1e-6))
    return [i * step for i in range(count + 1)]


def byte_unit(top: float) -> tuple[float, str]:
    scale, unit = 1.0, 'B'
    for bigger in ('KiB', 'MiB', 'GiB', 'TiB'):
        if top < 1.2 * scale * 1024:
            break
        scale, unit = scale * 1024.0, bigger
    return scale, unit


def plain(value: float) -> str:
    return f'{value:.10g}'


@dataclass(frozen=True)
class Series:
    label: str
    color: str                      # name of a CSS variable
    values: list                    # [(elapsed, value)]
    area: bool = False
    steps: bool = False             # holds its value until the next point


@dataclass(frozen=True)
class Chart:
    """One panel over the time of the migration."""
    title: str
    note: str
    series: list
    unit: Callable[[float], tuple[float, str]]   # largest value -> scale, name
    limit: Optional[tuple[str, float]] = None
    height: int = 170


class Frame:
    """Where a moment of the migration is on the page, the same in all charts."""

    def __init__(self, track: Track) -> None:
        last = track.points[-1].elapsed if track.points else 0.0
        ends = [phase.end for phase in track.phases]
        self.end = max([last, 0.001] + ends)
        self.start = 0.0
        first = track.points[0].elapsed if track.points else 0.0
        if first > 0.3 * self.end and not track.ended:
            self.start = first      # joined late: show what was seen
        self.passes = track.passes

    def x(self, elapsed: float) -> float:
        share = (elapsed - self.start) / max(self.end - self.start, 1e-9)
        return LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT)


def thin(values: list, most: int = MAX_MARKS) -> list:
    """At most about `most` of the values, keeping peaks and troughs."""
    if len(values) <= most:
        return values
    bucket = math.ceil(len(values) / (most / 2))
    out = []
    for start in range(0, len(values), bucket):
        part = values[start:start + bucket]
        low = min(part, key=lambda v: v[1])
        high = max(part, key=lambda v: v[1])
        out += sorted({low, high})
    if out[-1] != values[-1]:
        out.append(values[-1])
    return out


# -- SVG ---------------------------------------------------------------------

def svg(height: int, body: list[str], label: str) -> str:
    return (f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="{escape(label)}">{"".join(body)}</svg>')


def text_at(x: float, y: float, body: str, anchor: str = 'middle',
            extra: str = '') -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>'
            f'{escape(body)}</text>')


def rect(x: float, y: float, width: float, height: float, color: str,
         title: str, round_by: float = 2) -> str:
    return (f'<rect x="{x:.2f}" y="{y:.1f}" width="{max(width, 0.5):.2f}" '
            f'height="{height:.1f}" rx="{round_by}" fill="var({color})">'
            f'<title>{escape(title)}</title></rect>')


def phase_color(name: str) -> str:
    return PHASE_COLOR.get(name, '--post' if name in POSTCOPY else '--setup')


def phase_band(track: Track, frame: Frame) -> str:
    """The phases as a coloured band, with the passes numbered below it."""
    body = []
    for phase in track.phases:
        left, right = frame.x(phase.start), frame.x(phase.end)
        if phase.name in ENDED:
            left, right = frame.x(frame.end) - 4, frame.x(frame.end)
        told = (f'{phase.name}: {seconds(phase.end - phase.start)}'
                if phase.name not in ENDED else
                f'{phase.name} after {seconds(frame.end)}')
        body.append(rect(left, 2, right - left, 20, phase_color(phase.name),
                         told))
        if right - left > 9 * len(phase.name):
            body.append(text_at((left + right) / 2, 16, phase.name,
                                extra=' class="on" pointer-events="none"'))
    body.append(text_at(LEFT - 8, 16, 'phase', 'end'))
    if frame.passes:
        body.append(text_at(LEFT - 8, 38, 'pass', 'end'))
        free_from = -math.inf
        for one in frame.passes:
            x = frame.x(one.start)
            if x >= free_from:
                body.append(text_at(x, 38, str(one.number), 'start'))
                free_from = x + 9 * len(str(one.number)) + 8
    return svg(44, body, 'phases of the migration')


def pass_lines(frame: Frame, top: float, bottom: float) -> list[str]:
    out, free_from = [], -math.inf
    for one in frame.passes[1:]:
        x = frame.x(one.start)
        if x >= free_from:
            out.append(f'<line class="pass" x1="{x:.1f}" x2="{x:.1f}" '
                       f'y1="{top}" y2="{bottom}"/>')
            free_from = x + 3
    return out


def time_axis(frame: Frame, bottom: float, top: float) -> list[str]:
    span = frame.end - frame.start
    scale, unit = (1e-3, 'ms') if span < 1.5 else (1.0, 's')
    if span > 600:
        scale, unit = 60.0, 'min'
    out = []
    step = nice_step(span / scale, 8)
    mark = math.ceil(frame.start / scale / step) * step
    while mark * scale <= frame.end * 1.0001:
        x = frame.x(mark * scale)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" '
                   f'y2="{bottom}"/>')
        last = (mark + step) * scale > frame.end * 1.0001
        out.append(text_at(x, bottom + 16,
                           plain(mark) + (f' {unit}' if last else '')))
        mark += step
    return out


def draw_series(series: Series, frame: Frame,
                y: Callable[[float], float]) -> str:
    points, path, before = thin(series.values), '', None
    for elapsed, value in points:
        x = frame.x(elapsed)
        if before is not None and series.steps:
            path += f'L{x:.1f} {before:.1f}'
        path += f'{"L" if path else "M"}{x:.1f} {y(value):.1f}'
        before = y(value)
    if not path:
        return ''
    out = ''
    if series.area:
        first, last = frame.x(points[0][0]), frame.x(points[-1][0])
        out = (f'<path d="{path}L{last:.1f} {y(0):.1f}L{first:.1f} {y(0):.1f}Z"'
               f' fill="var({series.color})" fill-opacity=".16"/>')
    return out + (f'<path class="line" d="{path}" '
                  f'stroke="var({series.color})"/>')


def hover_strips(chart: Chart, frame: Frame, top: float, bottom: float,
                 show: Callable[[float], str]) -> list[str]:
    """Invisible columns that tell the numbers under the pointer."""
    base = chart.series[0].values
    every = max(1, math.ceil(len(base) / MAX_HOVER))
    marks = list(range(0, len(base), every))
    known = [dict(series.values) for series in chart.series]
    out = []
    for at, following in zip(marks, marks[1:] + [len(base) - 1]):
        told = [f'{base[at][0]:.2f} s']
        for series, values in zip(chart.series, known):
            if base[at][0] in values:
                told.append(f'{series.label.split(",")[0]}: '
                            f'{show(values[base[at][0]])}')
        left, right = frame.x(base[at][0]), frame.x(base[following][0])
        out.append(f'<rect class="strip" x="{left:.1f}" y="{top}" '
                   f'width="{max(right - left, 1):.1f}" '
                   f'height="{bottom - top}"><title>'
                   f'{escape(chr(10).join(told))}</title></rect>')
    return out


def draw_chart(chart: Chart, frame: Frame) -> str:
    top, bottom = 8, chart.height - 24
    values = [v for s in chart.series for _, v in s.values]
    peak = max(values + ([chart.limit[1]] if chart.limit else []) + [0])
    scale, unit = chart.unit(peak)
    marks = ticks(peak / scale if peak > 0 else 1.0)

    def y(value: float) -> float:
        share = value / scale / marks[-1]
        return bottom - min(1.0, max(0.0, share)) * (bottom - top)

    body = time_axis(frame, bottom, top)
    for mark in marks:
        at = y(mark * scale)
        css = 'axis' if mark == 0 else 'grid'
        body.append(f'<line class="{css}" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
                    f'y1="{at:.1f}" y2="{at:.1f}"/>')
        body.append(text_at(LEFT - 8, at + 4, f'{plain(mark)} {unit}', 'end'))
    body += pass_lines(frame, top, bottom)
    for series in chart.series:
        body.append(draw_series(series, frame, y))
    if chart.limit:
        at = y(chart.limit[1])
        body.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
                    f'y1="{at:.1f}" y2="{at:.1f}"/>')
    body += hover_strips(chart, frame, top, bottom,
                         lambda v: f'{v / scale:.3g} {unit}')
    return svg(chart.height, body, chart.title)


# -- charts of a migration ---------------------------------------------------

def charts_of(track: Track) -> list[Chart]:
    live = [p for p in track.points if p.phase not in ENDED]
    counted = [p for p in live if p.total]
    if not counted:
        return []

    def rates(top: float) -> tuple[float, str]:
        scale, unit = byte_unit(top)
        return scale, unit + '/s'

    out = [Chart('Sent over the link, and dirtied by the guest',
                 'A migration converges while it sends faster than the guest '
                 'writes to memory.',
                 [Series('bandwidth', '--send',
                         [(p.elapsed, p.bandwidth)
                          for p in counted[1:] or counted], True),
                  Series('dirty rate, known from the second pass on',
                         '--dirty', [(p.elapsed, p.dirty) for p in counted
                                     if p.dirty or p.iteration > 1],
                         steps=True)],
                 rates, limit_of('max-bandwidth', track.max_bandwidth,
                                 [p.bandwidth for p in counted])),
           Chart('Memory left to send',
                 'Dotted lines: a new pass begins and what was dirtied '
                 'meanwhile is added.',
                 [Series('remaining', '--left', remaining_of(track, counted),
                         True)], byte_unit)]
    expected = [(p.elapsed, p.expected_ms) for p in counted
                if p.expected_ms is not None]
    if len(expected) > 1:
        limit = limit_of('downtime-limit', track.limit_ms,
                         [v for _, v in expected])
        out.append(Chart('Downtime if it switched over now',
                         'The switchover comes when this falls below the '
                         'limit.',
                         [Series('expected downtime', '--time', expected,
                                 steps=True)],
                         lambda top: (1.0, 'ms') if top < 2000 else
                         (1000.0, 's'), limit, 150))
    throttle = [(p.elapsed, p.throttle or 0) for p in counted]
    if any(value for _, value in throttle):
        out.append(Chart('Guest throttled',
                         'Share of vCPU time taken from the guest so that the '
                         'migration converges.',
                         [Series('throttle', '--bad', throttle, True, True)],
                         lambda top: (1.0, '%'), None, 120))
    return out


def limit_of(name: str, value: Optional[float],
             seen: list) -> Optional[tuple[str, float]]:
    """A limit is drawn unless it is so far off that it would flatten the rest."""
    if value is None or value > 4 * max(seen + [0]):
        return None
    return name, value


def remaining_of(track: Track, counted: list[Point]) -> list:
    values = [(p.elapsed, p.remaining) for p in counted]
    if track.phase == 'completed':
        values.append((track.points[-1].elapsed, 0))
    return values


# -- HTML --------------------------------------------------------------------

def key(chart: Chart) -> str:
    out = ''
    if len(chart.series) > 1 or chart.limit:
        for series in chart.series:
            out += (f'<span><i class="line" style="background:'
                    f'var({series.color})"></i>{escape(series.label)}</span>')
    if chart.limit:
        out += (f'<span>- - -&#160; {escape(chart.limit[0])}</span>')
    return f'<div class="key">{out}</div>' if out else ''


def table(rows: Iterable[tuple], head: tuple = ()) -> str:
    """Rows of cells; every cell but the first is a number."""
    def cell(tag: str, at: int, body: object) -> str:
        css = ' class="n"' if at else ''
        return f'<{tag}{css}>{escape(clean(str(body)))}</{tag}>'

    out = ''
    if head:
        out += '<tr>' + ''.join(cell('th', i, h)
                                for i, h in enumerate(head)) + '</tr>'
    for one in rows:
        out += '<tr>' + cell('th', 0, one[0]) + ''.join(
            cell('td', i + 1, c) for i, c in enumerate(one[1:])) + '</tr>'
    return f'<div class="wide"><table>{out}</table></div>'


def card(title: str, note: str, body: str) -> str:
    said = f'<p>{escape(note)}</p>' if note else ''
    return (f'<section class="card"><h2>{escape(title)}</h2>{said}{body}'
            '</section>')


def headline(track: Track) -> str:
    """What happened, in a sentence."""
    point = track.point
    took = seconds(point.elapsed)
    if track.phase == 'completed':
        said = f'in {took}, {size(point.transferred)} sent'
        if point.iteration:
            count = point.iteration
            said += f' in {count} pass{"es" if count != 1 else ""}'
        if track.downtime_ms is not None:
            said += f', downtime {millis(track.downtime_ms)}'
            if track.limit_ms is not None:
                said += f' (limit {millis(track.limit_ms)})'
        word, css = 'Completed', 'completed'
    elif track.phase in ENDED:
        word, css = track.phase.capitalize(), track.phase
        said = f'after {took}, {size(point.transferred)} sent'
    else:
        word, css = 'Not over', 'gone'
        said = (f'in phase {track.phase} after {took}, '
                f'{point.percent:.0f} % done')
    return (f'<p><span class="mark {css}">{escape(word)}</span> '
            f'{escape(said)}.</p>')


def tiles(track: Track, facts: Iterable[Fact]) -> str:
    point = track.point
    shown: list[Fact] = [('total time', seconds(point.elapsed))]
    if track.downtime_ms is not None:
        shown.append(('downtime (QEMU)', millis(track.downtime_ms)))
    shown += list(facts)
    shown += [('sent', size(point.transferred)),
              ('average bandwidth', rate(track.average_bandwidth())),
              ('passes', str(point.iteration))]
    return '<div class="tiles">' + ''.join(
        f'<div class="tile"><b>{escape(clean(value))}</b>'
        f'<span>{escape(clean(label))}</span></div>'
        for label, value in shown) + '</div>'


def ledger_card(title: str, note: str, parts: list[tuple[str, float]],
                total: Optional[float]) -> str:
    """Named times as one stacked bar with its legend and numbers."""
    parts = [(name, ms) for name, ms in parts if ms > 0]
    whole = sum(ms for _, ms in parts)
    if whole <= 0:
        return ''
    x, body, legend = 0.0, [], ''
    for i, (name, ms) in enumerate(parts):
        color = PART_COLORS[i % len(PART_COLORS)]
        width = ms / whole * WIDTH
        body.append(rect(x, 2, max(width - 1.5, 0.8), 28, color,
                         f'{clean(name)}: {millis(ms)}'))
        x += width
        legend += (f'<span><i style="background:var({color})"></i>'
                   f'{escape(clean(name))} {millis(ms)}</span>')
    told = f'{millis(total if total is not None else whole)} in all. {note}'
    return card(title, told, svg(32, body, title) +
                f'<div class="key" style="margin-top:8px">{legend}</div>')


def ferry_cards(track: Track) -> str:
    info = track.progress
    if info is None:
        return ''
    downtime = info.parts('downtime.parts')
    out = ledger_card('Where the downtime went',
                      'From the first vCPU asked to stop to the last one '
                      'running again.', downtime,
                      info.ms('downtime.total-us'))
    if not downtime:
        out += ledger_card('Downtime as predicted last', '',
                           info.parts('predicted-downtime.parts'),
                           info.ms('predicted-downtime.likely-us'))
    longest = info.ms('stall.longest-us')
    if longest is not None:
        step, count = info.text('stall.step'), info.number('stall.count')
        total = info.ms('stall.total-us')
        said = f'The longest lasted {millis(longest)}'
        said += f' ({clean(step)}).' if step else '.'
        if count is not None and total is not None:
            said += f' {count:.0f} of them took {millis(total)} in all.'
        out += card('Guest stalled while it was running', said, '')
    notes = []
    if info.text('decision'):
        notes.append(('last decision', info.text('decision')))
    if info.texts('peer.features'):
        notes.append(('used with this peer',
                      ', '.join(info.texts('peer.features'))))
    if notes:
        out += card('Decisions and peer', '', table(notes))
    return out


CHANNELS = ('channel', 'written', 'for memory', 'busy', 'compression', 'ratio')


def channels_card(track: Track) -> str:
    """What each channel of multifd has sent."""
    channels = track.progress.objects('channels') if track.progress else []
    rows = []
    for one in channels:
        method, level = one.text('compression') or 'none', one.number('level')
        ratio = number(one.number('ratio'), 0)
        rows.append((f'{number(one.number("id"), 0):.0f}',
                     size(number(one.number('bytes'), 0)),
                     size(number(one.number('memory'), 0)),
                     f'{number(one.number("busy"), 0):.0f} %',
                     method if level is None else f'{method} {level:.0f}',
                     f'{ratio:.0f} %' if ratio else '-'))
    if not rows:
        return ''
    return card('Channels', 'Busy: of the time of the migration. Compression '
                'and its ratio are those of the last second.',
                table(rows, CHANNELS))


PREFLIGHT = 'preflight: the destination cannot take this guest: '


def preflight_card(track: Track) -> str:
    """What both sides were found to differ in before memory was sent."""
    _, found, rest = track.error.partition(PREFLIGHT)
    if not found:
        return ''
    rows = [tuple(one.split(': ', 1)) for one in rest.split('; ')]
    return card('Preflight', 'The migration ended before any memory was sent.',
                table((row if len(row) == 2 else (row[0], '') for row in rows),
                      ('what', 'why, and what to change')))


def passes_card(track: Track) -> str:
    rows = track.pass_rows()
    if not rows:
        return ''
    shown = rows if len(rows) <= 40 else rows[:20] + rows[-20:]
    body = table([(one.number, seconds(one.start), seconds(took),
                   size(one.remaining), size(sent))
                  for one, took, sent in shown],
                 ('pass', 'begins at', 'takes', 'to send', 'sent'))
    note = ('As the polls saw them; passes shorter than the time between two '
            'polls are missing.')
    if len(shown) < len(rows):
        note += f' {len(rows) - len(shown)} in the middle are left out.'
    return card('Passes over memory', note, body)


def numbers_card(track: Track) -> str:
    ram, info, point = track.ram, track.info, track.point
    page = number(ram.get('page-size'), 4096)
    rows: list[tuple] = [('status', track.phase),
                         ('total time', seconds(point.elapsed))]

    def add(label: str, value: object, show: Callable) -> None:
        if number(value, None) is not None:
            rows.append((label, show(value)))

    def pages(count: float) -> str:
        return f'{int(count):,} ({size(count * page)})'

    add('setup time', info.get('setup-time'), millis)
    add('downtime as QEMU reports it', track.downtime_ms, millis)
    add('downtime limit', track.limit_ms, millis)
    add('guest memory', ram.get('total'), size)
    add('sent over the link', ram.get('transferred'), size)
    add('average bandwidth', track.average_bandwidth(), rate)
    add('passes', ram.get('dirty-sync-count'), lambda v: f'{v:,}')
    add('pages sent whole', ram.get('normal'), pages)
    add('zero pages', ram.get('duplicate'), pages)
    add('sent before the switchover', ram.get('precopy-bytes'), size)
    add('sent while the guest was stopped', ram.get('downtime-bytes'), size)
    add('sent in postcopy', ram.get('postcopy-bytes') or None, size)
    add('pages asked for by the destination',
        ram.get('postcopy-requests') or None, lambda v: f'{v:,}')
    add('sent through multifd', ram.get('multifd-bytes') or None, size)
    cache = info.get('xbzrle-cache')
    if isinstance(cache, dict):
        add('xbzrle: pages sent as differences', cache.get('pages'), pages)
        add('xbzrle: bytes for these', cache.get('bytes'), size)
        add('xbzrle: cache misses', cache.get('cache-miss'),
            lambda v: f'{v:,}')
        add('xbzrle: pages that did not shrink', cache.get('overflow'),
            lambda v: f'{v:,}')
    return card('Final numbers', '', table(rows))


def settings_card(track: Track) -> str:
    on = sorted(name for name, state in track.caps.items() if state)
    rows = [('capabilities on', ', '.join(on) or 'none')] if track.caps else []
    for name, value in sorted(track.params.items()):
        if isinstance(value, (int, float, str, bool)) and value != '':
            shown = str(value).lower() if isinstance(value, bool) else value
            rows.append((name, shown))
    raw = json.dumps(track.info, indent=2, sort_keys=True)
    out = ''
    if rows:
        out += ('<section class="card"><details><summary>Settings</summary>'
                f'{table(rows)}</details></section>')
    return out + ('<section class="card"><details><summary>Last answer of '
                  f'query-migrate</summary><pre>{escape(safe(raw))}</pre>'
                  '</details></section>')


def safe(raw: str) -> str:
    """Text with line ends kept, but without what XML does not allow."""
    return '\n'.join(''.join(c if c.isprintable() else '?' for c in part)
                     for part in raw.split('\n'))


def story(title: str, track: Track, facts: Iterable[Fact] = ()) -> str:
    """The part of the page about one migration."""
    frame = Frame(track)
    out = f'<h1>{escape(clean(title))}</h1>{headline(track)}'
    for problem in (track.error, '' if track.ended else track.lost):
        if problem:
            out += f'<p class="error">{escape(clean(problem))}</p>'
    out += tiles(track, facts)
    charts = charts_of(track)
    if charts:
        band = phase_band(track, frame)
        for i, chart in enumerate(charts):
            out += card(chart.title, chart.note,
                        key(chart) + (band if i == 0 else '') +
                        draw_chart(chart, frame))
    else:
        out += card('No chart', 'The migration was over before it could be '
                    'watched; only its last numbers are known.', '')
    return (out + preflight_card(track) + ferry_cards(track) +
            channels_card(track) + passes_card(track) +
            numbers_card(track) + settings_card(track))


def page(tracks: list[tuple[str, Track]], facts: Iterable[Fact] = ()) -> str:
    """The whole page; each track must have at least one point."""
    facts = list(facts)
    stories = ''.join(story(title, track, facts) for title, track in tracks)
    name = ', '.join(clean(title) for title, _ in tracks)
    return ('<!DOCTYPE html>\n<html lang="en"><head>'
            '<meta charset="utf-8"/>'
            '<meta name="viewport" content="width=device-width, '
            'initial-scale=1"/>'
            f'<title>Live migration: {escape(name)}</title>'
            f'<style>{STYLE}</style></head>\n<body><main>{stories}</main>'
            '</body></html>\n')


# -- the file ----------------------------------------------------------------

def check_writable(path: str) -> None:
    """Say before a long migration, not after it, that there is no such place."""
    target = Path(path)
    if target.is_dir():
        raise FerryError(f'cannot write the report: {path} is a directory')
    if not target.absolute().parent.is_dir():
        raise FerryError('cannot write the report: there is no directory '
                         f'{target.absolute().parent}')
    where = target if target.exists() else target.absolute().parent
    if not os.access(where, os.W_OK):
        raise FerryError(f'cannot write the report: no permission for {where}')


def write(path: str, tracks: list[tuple[str, Track]],
          facts: Iterable[Fact] = ()) -> None:
    """Write the page; an older file is replaced only by a whole new one."""
    body = page(tracks, facts)
    target = Path(path)
    scratch = None
    try:
        if target.exists() and not target.is_file():    # a device or a pipe
            target.write_text(body, encoding='utf-8')
            return
        handle, scratch = tempfile.mkstemp(dir=target.absolute().parent,
                                           prefix='.report-')
        with os.fdopen(handle, 'w', encoding='utf-8') as out:
            out.write(body)
        os.chmod(scratch, 0o644)
        os.replace(scratch, target)
    except OSError as err:
        if scratch is not None and os.path.exists(scratch):
            os.unlink(scratch)
        raise FerryError(f'cannot write the report {path}: '
                         f'{err.strerror or err}') from err
