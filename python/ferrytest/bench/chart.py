# A result of the benchmark as a picture.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A result of the benchmark as a picture (SVG).

Each case has two groups of bars, total time and CPU time, one bar a pair of
engines.  A bar ends at the median; the thin line over it reaches from the
lowest to the highest run, each run is a dot.  The scale is linear, starts at
zero and is the case's own: bars are compared within a case, never across.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from . import report
from .report import CaseResult, Result, Run
from .stats import Ratio, Summary, ratio, summary

WIDTH = 960
MARGIN = 24
LABEL = 150         # room for the names of the pairs
PITCH = 24          # from bar to bar
BAR = 13            # thickness of a bar
VALUE = 66          # room for the number behind a bar
RATIO = 54          # room for the ratio behind that
GAP = 28            # between the groups
GROUPS = ((290, 'total_ms', 1e-3, 'total time'),
          (190, 'engine', 1.0, 'CPU time, both sides together'))
TINY = 1.5          # a bar is never thinner than this, pixels

STYLE = '''\
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1f2933 }
.title { font-size: 18px; font-weight: 600 }
.case { font-weight: 600 }
.note { fill: #66727f; font-size: 11px }
.number { font-variant-numeric: tabular-nums }
.ratio { font-weight: 600 }
.reference { fill: #9aa5b1 }
.other { fill: #0b7a75 }
.mixed { fill: #62b6ad }
.bare { fill: #e2ddd0; stroke: #a89f88; stroke-width: .75 }
.reach { stroke: #1f2933; stroke-width: 1; fill: none }
.run { fill: #1f2933; fill-opacity: .45 }
.rule { stroke: #e4e7eb; stroke-width: 1 }
.wrong { fill: #b3261e }'''


@dataclass(frozen=True)
class _Bar:
    label: str
    style: str
    runs: list[Run]


def _bars(case: CaseResult) -> list[_Bar]:
    bars = []
    for name, pair in case['pairs'].items():
        style = 'reference'
        if name != case['reference']:
            style = 'other' if pair['src'] == pair['dst'] else 'mixed'
        label = report.short(name).replace(':', ' → ')
        bars.append(_Bar(label, style, pair['runs']))
    bare = report.bare_as_values(case)
    if bare:
        bars.append(_Bar('bare socket pair', 'bare', bare))
    return bars


class _Drawing:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.y = 0.0

    def add(self, text: str) -> None:
        self.parts.append(text)

    def text(self, x: float, y: float, text: str, style: str = '',
             anchor: str = 'start') -> None:
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" '
                 f'text-anchor="{anchor}">{escape(text)}</text>')


def _times(found: Ratio | None) -> str:
    return f'×{report.number(found.median)}' if found else ''


def _bar(out: _Drawing, x: float, width: float, top: float, bar: _Bar,
         found: Summary, values: list[float], scale: float) -> float:
    """Draw one bar; the x where its number may begin."""
    middle = out.y + PITCH / 2
    per_unit = width / top if top else 0.0
    length = max(found.median * per_unit, TINY)
    out.add(f'<rect x="{x:.1f}" y="{middle - BAR / 2:.1f}" '
            f'width="{length:.1f}" height="{BAR}" rx="1.5" '
            f'class="{bar.style}"><title>{escape(bar.label)}: median '
            f'{found.median * scale:.6g}, lowest {found.low * scale:.6g}, '
            f'highest {found.high * scale:.6g}, n = {found.n}</title></rect>')
    if found.n < 2:
        return x + length
    low, high = x + found.low * per_unit, x + found.high * per_unit
    if high - low >= 2:
        out.add(f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}'
                f'M{low:.1f} {middle - 3:.1f}v6M{high:.1f} {middle - 3:.1f}v6"'
                ' class="reach"/>')
        for value in values:
            out.add(f'<circle cx="{x + value * per_unit:.1f}" '
                    f'cy="{middle:.1f}" r="1.8" class="run"/>')
    return max(x + length, high)


def _group(out: _Drawing, x: float, width: float, key: str, scale: float,
           bars: list[_Bar]) -> None:
    """One group of bars, one for each of BARS, from out.y downwards."""
    start = out.y
    found = [summary(report.series(bar.runs, key).values()) for bar in bars]
    top = max((s.high for s in found if s), default=0.0)
    reference = report.series(bars[0].runs, key)
    for bar, here in zip(bars, found):
        baseline = out.y + PITCH / 2 + 4
        if here is None:
            out.text(x, baseline, 'no result', 'wrong')
        else:
            values = report.series(bar.runs, key)
            known = [v for v in values.values() if v is not None]
            end = _bar(out, x, width, top, bar, here, known, scale)
            out.text(end + 6, baseline,
                     f'{report.number(here.median * scale)} s', 'number')
            if bar is not bars[0]:
                out.text(x + width + VALUE + RATIO, baseline,
                         _times(ratio(values, reference)), 'number ratio',
                         'end')
        out.y += PITCH
    out.y = start


def _group_starts() -> list[float]:
    starts = [float(MARGIN + LABEL)]
    for width, *_rest in GROUPS:
        starts.append(starts[-1] + width + VALUE + RATIO + GAP)
    return starts[:-1]


def _case(out: _Drawing, case: CaseResult) -> None:
    out.add(f'<path d="M{MARGIN} {out.y:.1f}H{WIDTH - MARGIN}" class="rule"/>')
    out.y += 20
    out.add(f'<text x="{MARGIN}" y="{out.y:.1f}"><tspan class="case">'
            f"{escape(case['name'])}</tspan>  <tspan class=\"note\" dx=\"8\">"
            f"{escape(case['title'])}</tspan></text>")
    out.y += 6
    if case['skipped']:
        out.y += 16
        out.text(MARGIN, out.y, f"skipped: {case['skipped']}", 'note')
        out.y += 12
        return
    bars = _bars(case)
    for index, bar in enumerate(bars):
        out.text(MARGIN, out.y + index * PITCH + PITCH / 2 + 4, bar.label)
    for x, (width, key, scale, _title) in zip(_group_starts(), GROUPS):
        _group(out, x, width, key, scale, bars)
    out.y += len(bars) * PITCH + 8


def _heading(out: _Drawing, result: Result) -> None:
    machine, settings = result['machine'], result['settings']
    out.y = 38
    out.text(MARGIN, out.y, 'Live migration: time and CPU, paired runs',
             'title')
    lines = [
        f"{settings['runs']} runs each; bars: medians; lines: lowest to "
        'highest run; × : multiple of the first bar; every case has its own '
        'scale',
        f"{machine['cpus']} × {machine['cpu']}, "
        f"{machine['memory_mib'] / 1024:.0f} GiB"
        f"{', virtual machine' if machine['virtual'] else ''}, "
        f"Linux {machine['kernel']}, {machine['system']}, "
        f"{result['started'][:10]}"]
    lines += [f"{kind}: {engine['version']}" +
              (f", revision {result['revision']}"
               if kind == 'ferry' and result['revision'] else '')
              for kind, engine in result['engines'].items()]
    for line in lines:
        out.y += 17
        out.text(MARGIN, out.y, line, 'note')
    if result.get('busy'):
        out.y += 17
        out.text(MARGIN, out.y, f"not idle: {result['busy']}", 'note wrong')
    out.y += 24
    for x, (_width, _key, _scale, title) in zip(_group_starts(), GROUPS):
        out.text(x, out.y, title, 'case')
    out.y += 8


def svg(result: Result) -> str:
    """The picture, one self-contained document."""
    out = _Drawing()
    _heading(out, result)
    for case in result['cases']:
        _case(out, case)
    for line in report.problems(result)[:5]:
        out.y += 16
        out.text(MARGIN, out.y, line[:140], 'wrong')
    height = out.y + MARGIN
    return '\n'.join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
        f'height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}">',
        f'<style>{STYLE}</style>',
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
        *out.parts, '</svg>', ''])
