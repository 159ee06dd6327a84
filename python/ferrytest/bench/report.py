# Results of the benchmark: as a table, as JSON, and two of them compared.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of the benchmark: as a table, as JSON, and two of them compared.

A result is one JSON document:

  format, version       FORMAT, VERSION
  started, ended        UTC; ended is missing while it still runs
  revision, machine     what was measured where (machine.describe)
  busy                  null, or why the machine did not count as idle
  settings              runs, perf
  engines               kind -> path, version, sha256, built
  cases                 a list of
    name, title, mem_mib, reference
    skipped             null, or the reason
    targets             a list of {pair, what, limit}; what is in MEASURES
    pairs               name -> {src, dst, runs}; a run has
      round             runs of one round were made one after the other
      error             null, or why there are no values
      values            see run.py
      verified          whether the memory arrived; null if that is unknown
    bare                runs of a bare socket pair: {round, values}
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

from .stats import Ratio, Summary, ratio, summary
from ferry.errors import FerryError

FORMAT = 'ferry-bench'
VERSION = 1

Run = dict[str, Any]
CaseResult = dict[str, Any]
Result = dict[str, Any]


# Values of a case

def _both(name: str) -> Callable[[dict], float | None]:
    def total(values: dict) -> float | None:
        ends = [values.get(f'{name}_{end}') for end in ('src', 'dst')]
        return None if None in ends else sum(ends)
    return total


# Quantities made of several measured ones.
_DERIVED = {name: _both(name) for name in ('cpu', 'engine', 'rss', 'grown',
                                           'instr')}


def series(runs: list[Run], key: str) -> dict[int, float | None]:
    """Round -> value of KEY, of the runs that succeeded.

    KEY is a name in 'values', or cpu, engine, rss, grown or instr for the sum
    of both ends.
    """
    get = _DERIVED.get(key) or (lambda values: values.get(key))
    return {run['round']: get(run['values'])
            for run in runs if not run.get('error')}


def of_pair(case: CaseResult, name: str, key: str) -> Summary | None:
    """Summary of KEY over the runs of one pair of engines."""
    return summary(series(case['pairs'][name]['runs'], key).values())


def against_reference(case: CaseResult, name: str, key: str) -> Ratio | None:
    """KEY of the pair NAME as a multiple of the reference's."""
    return ratio(series(case['pairs'][name]['runs'], key),
                 series(case['pairs'][case['reference']]['runs'], key))


def bare_as_values(case: CaseResult) -> list[Run]:
    """The runs of the bare socket pair under the names of migration runs."""
    return [{'round': run['round'], 'values': {
                'total_ms': 1000 * run['values']['seconds'],
                'engine_src': run['values']['cpu_send'],
                'engine_dst': run['values']['cpu_recv'],
                'bytes': run['values']['bytes'],
                'gb_per_s': run['values']['gb_per_s']}}
            for run in case.get('bare') or []]


def problems(result: Result) -> list[str]:
    """What went wrong, one line each."""
    found = []
    for case in result['cases']:
        for name, pair in case['pairs'].items():
            for run in pair['runs']:
                where = f"{case['name']} {name} run {run['round'] + 1}"
                if run.get('error'):
                    found.append(f"{where}: {run['error']}")
                elif run.get('verified') is False:
                    found.append(f'{where}: the memory of the guest differs'
                                 f"{_detail(run)}")
    return found


def _detail(run: Run) -> str:
    memory = run.get('memory') or {}
    if 'differs_at' in memory:
        return f" at {memory['differs_at']:#x}"
    return f": {memory['detail']}" if memory.get('detail') else ''


# Targets

def _times(key: str) -> Callable[[CaseResult, str], float | None]:
    def measure(case: CaseResult, name: str) -> float | None:
        found = against_reference(case, name, key)
        return found.median if found else None
    return measure


def rate(case: CaseResult, name: str) -> float | None:
    """Guest memory a second, in GB, while NAME migrated."""
    total = of_pair(case, name, 'total_ms')
    if not total or total.median <= 0:
        return None
    return case['mem_mib'] * (1 << 20) / 1e6 / total.median


def share_of_bare(case: CaseResult, name: str) -> float | None:
    """rate() as a share of what the bare socket pair reached."""
    ceiling = summary(series(bare_as_values(case), 'gb_per_s').values())
    reached = rate(case, name)
    return reached / ceiling.median if ceiling and reached else None


# What a target can be about: how it is called, how it is measured, and whether
# less of it is better.
MEASURES: dict[str, tuple[str, Callable[[CaseResult, str], float | None],
                          bool]] = {
    'time': ('time x', _times('total_ms'), True),
    'cpu': ('CPU x', _times('engine'), True),
    'downtime': ('downtime x', _times('downtime_ms'), True),
    'bare': ('share of the bare pair', share_of_bare, False),
    'encode': ("sender's CPU of an encoded page x",
               _times('xbzrle_sender_us_per_page'), True),
    'encode-all': ('CPU of an encoded page x', _times('xbzrle_us_per_page'),
                   True),
    'encoded-bytes': ('bytes of an encoded page x',
                      _times('xbzrle_bytes_per_page'), True),
    'fault-p50': ('median fault x', _times('fault_p50_us'), True),
    'fault-p99': ('99 % of faults x', _times('fault_p99_us'), True),
    'full-speed': ('time to 90 % speed x', _times('full_speed_ms'), True),
}


def met(case: CaseResult, target: dict[str, Any]) -> bool | None:
    """Whether a target was reached; None if it was not measured."""
    _, measure, less = MEASURES[target['what']]
    if target['pair'] not in case['pairs'] or case['skipped']:
        return None
    value = measure(case, target['pair'])
    if value is None:
        return None
    return value <= target['limit'] if less else value >= target['limit']


def target_row(case: CaseResult, target: dict[str, Any]) -> str:
    """One line about a target; empty if it was not measured."""
    title, measure, less = MEASURES[target['what']]
    reached = met(case, target)
    if reached is None:
        return ''
    value = number(measure(case, target['pair']))
    return (f"  target: {short(target['pair'])} {title} {value}, "
            f"{'at most' if less else 'at least'} {number(target['limit'])}: "
            f"{'met' if reached else 'MISSED'}")


def targets(result: Result) -> str:
    """All targets of a result that were measured, and their number."""
    lines, good = [], 0
    for case in result['cases']:
        for target in case.get('targets', ()):
            row = target_row(case, target)
            if row:
                good += bool(met(case, target))
                lines.append(f"  {case['name']:<16}"
                             f"{row.removeprefix('  target: ')}")
    if not lines:
        return ''
    return '\n'.join([f'targets: {good} of {len(lines)} met', *lines])


# Table

def number(value: float | None, digits: int = 3) -> str:
    """VALUE with DIGITS significant ones, never in exponents."""
    if value is None:
        return '-'
    if value == 0:
        return '0'
    decimals = digits - 1
    size = abs(value)
    while size >= 10 and decimals:
        size /= 10
        decimals -= 1
    while size < 1 and decimals < 6:
        size *= 10
        decimals += 1
    return f'{value:,.{decimals}f}'


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{value:.0f}'


LABEL = 22          # longest name of a pair of engines, characters
_COLUMNS = (('', 25), ('n', 3), ('total ms', 10), ('±%', 4), ('down ms', 8),
            ('black ms', 9), ('CPU s src+dst', 15), ('MB sent', 8),
            ('RSS MiB', 8), ('time x', 8), ('low-high', 14), ('CPU x', 7),
            ('memory', 8))


def _line(cells: list[str]) -> str:
    text = cells[0].ljust(_COLUMNS[0][1])
    for cell, (_title, width) in zip(cells[1:], _COLUMNS[1:]):
        text += cell.rjust(width)
    return text.rstrip()


def table_head() -> str:
    """The heading of the table, and a rule."""
    head = _line([title for title, _width in _COLUMNS])
    return head + '\n' + '-' * len(head)


LEGEND = '''\
Medians of n runs; ±% is the median distance from the median.  total, down: as
the source reports them; black: longest gap in the heartbeat of a running
guest, seen from outside.  CPU: user + system, without the virtual CPUs.  RSS:
peaks of both ends together.  time x, CPU x: medians as a multiple of the
reference's; low-high: of single runs made one after the other.'''


def _median(runs: list[Run], key: str, scale: float = 1.0) -> str:
    found = summary(series(runs, key).values())
    return number(found.median * scale if found else None)


def _memory(runs: list[Run]) -> str:
    told = [run.get('verified') for run in runs if not run.get('error')]
    if not told or None in told:
        return '-'
    return 'ok' if all(told) else 'DIFFERS'


def short(name: str) -> str:
    """NAME of a pair of engines as it fits into a table."""
    return name if len(name) <= LABEL else '..' + name[2 - LABEL:]


def _row(name: str, runs: list[Run], reference: list[Run]) -> str:
    total = summary(series(runs, 'total_ms').values())
    label = f'  {short(name)}'
    if total is None:
        return _line([label, '0', 'failed'])
    time_ratio = ratio(series(runs, 'total_ms'),
                       series(reference, 'total_ms'))
    cpu_ratio = ratio(series(runs, 'engine'), series(reference, 'engine'))
    reach = '-'
    if time_ratio and time_ratio.n > 1 and runs is not reference:
        reach = f'{number(time_ratio.low)}-{number(time_ratio.high)}'
    return _line([
        label, str(total.n), number(total.median),
        _percent(total.spread_percent), _median(runs, 'downtime_ms'),
        _median(runs, 'blackout_ms'),
        f"{_median(runs, 'engine_src')}+{_median(runs, 'engine_dst')}",
        _median(runs, 'bytes', 1e-6), _median(runs, 'rss'),
        number(time_ratio.median if time_ratio else None), reach,
        number(cpu_ratio.median if cpu_ratio else None), _memory(runs)])


def case_rows(case: CaseResult) -> str:
    """The part of the table that is about one case."""
    lines = [f"{case['name']}: {case['title']}"]
    if case['skipped']:
        return f"{lines[0]}\n  skipped: {case['skipped']}"
    reference = case['pairs'][case['reference']]['runs']
    for name, pair in case['pairs'].items():
        lines.append(_row(name, pair['runs'], reference))
    bare = bare_as_values(case)
    if bare:
        lines.append(_row('bare socket pair', bare, reference))
        lines.append(_rates(case, bare))
    encoding = _encoding(case)
    if encoding:
        lines.append(encoding)
    lines += _faults(case)
    lines += filter(None, (target_row(case, target)
                           for target in case.get('targets', ())))
    return '\n'.join(lines)


def _rates(case: CaseResult, bare: list[Run]) -> str:
    """Throughputs, what share of the bare pair's that is, and CPU time."""
    ceiling = summary(series(bare, 'gb_per_s').values())
    said = [f'bare pair {number(ceiling.median)}']
    for name in case['pairs']:
        reached = rate(case, name)
        if reached:
            said.append(f'{short(name)} {number(reached)} '
                        f'({number(reached / ceiling.median, 2)} of it)')
    gb = case['mem_mib'] * (1 << 20) / 1e9
    spent = [f'{short(name)} {_median(runs, "engine_src", 1 / gb)}+'
             f'{_median(runs, "engine_dst", 1 / gb)}'
             for name, runs in (('bare pair', bare), *(
                 (name, pair['runs']) for name, pair in case['pairs'].items()))
             if summary(series(runs, 'engine').values())]
    return ('  GB/s: ' + ', '.join(said) + '\n  CPU s/GB, source+destination: '
            + ', '.join(spent))


def table(result: Result) -> str:
    """The whole table of a finished result."""
    return '\n'.join([table_head(),
                      *(case_rows(case) for case in result['cases'])])


def _encoding(case: CaseResult) -> str:
    """What delta encoding cost; empty if there was none."""
    said = []
    for name in case['pairs']:
        time = of_pair(case, name, 'xbzrle_us_per_page')
        size = of_pair(case, name, 'xbzrle_bytes_per_page')
        times = against_reference(case, name, 'xbzrle_us_per_page')
        sender = of_pair(case, name, 'xbzrle_sender_us_per_page')
        if time and size and times:
            part = (f'{number(sender.median)} us of it in the sender, '
                    if sender else '')
            said.append(f'{short(name)} {number(time.median)} us '
                        f'(x {number(times.median)}), {part}'
                        f'{number(size.median)} bytes a page')
    return '  xbzrle: ' + ', '.join(said) if said else ''


def _faults(case: CaseResult) -> list[str]:
    """What the guest noticed of postcopy; empty if there was none."""
    lines = []
    for name in case['pairs']:
        found = [of_pair(case, name, key) for key in (
            'faults', 'fault_p50_us', 'fault_p99_us', 'full_speed_ms',
            'requests')]
        if None in found:
            continue
        count, half, most, speed, asked = (number(one.median)
                                           for one in found if one)
        lines.append(f'  {short(name)}: {count} faults of {half} us (median), '
                     f'{most} us (99 %); 90 % of its speed after {speed} ms; '
                     f'{asked} requests')
    return lines


# Files

def save(result: Result, path: Path) -> None:
    """Write RESULT; an older file is replaced as a whole or not at all."""
    write(path, json.dumps(result, indent=1) + '\n')


def write(path: Path, text: str) -> None:
    """Write TEXT to PATH at once."""
    fresh = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fresh.write_text(text)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as err:
        raise FerryError(f'cannot write {path}: {err.strerror}') from err


def load(path: Path) -> Result:
    """Read a result that save() wrote."""
    try:
        result = json.loads(path.read_text())
    except OSError as err:
        raise FerryError(f'cannot read {path}: {err.strerror}') from err
    except ValueError as err:
        raise FerryError(f'{path} is no JSON: {err}') from err
    if not isinstance(result, dict) or result.get('format') != FORMAT:
        raise FerryError(f'{path} is not the result of a benchmark')
    if result.get('version') != VERSION:
        raise FerryError(f"{path} has format version {result.get('version')}, "
                         f'this program reads version {VERSION}')
    return result


# Two results

def compare(a: Result, b: Result) -> str:
    """A table of what changed from A to B, for the cases both have."""
    others = {case['name']: case for case in b['cases']}
    head = (f"{'':<38}{'total ms':>10}{'now':>10}{'change':>8}"
            f"{'CPU':>8}{'bytes':>8}   {'time x reference'}")
    lines = [head, '-' * len(head)]
    for old in a['cases']:
        new = others.get(old['name'])
        if new is None or old['skipped'] or new['skipped']:
            continue
        for name in old['pairs']:
            if name in new['pairs']:
                lines.append(_change(old, new, name))
    if len(lines) == 2:
        raise FerryError('the two results have no case in common')
    lines += _differences(a, b)
    return '\n'.join(lines)


def _change(old: CaseResult, new: CaseResult, name: str) -> str:
    def times(key: str) -> str:
        before, after = of_pair(old, name, key), of_pair(new, name, key)
        if not before or not after or before.median <= 0:
            return '-'
        return 'x' + number(after.median / before.median)

    def median(case: CaseResult) -> str:
        found = of_pair(case, name, 'total_ms')
        return number(found.median if found else None)

    def reference(case: CaseResult) -> str:
        found = against_reference(case, name, 'total_ms')
        return number(found.median if found else None)

    return (f"{old['name'] + ' ' + short(name):<38}{median(old):>10}{median(new):>10}"
            f"{times('total_ms'):>8}{times('engine'):>8}{times('bytes'):>8}"
            f"   {reference(old)} -> {reference(new)}")


def _differences(a: Result, b: Result) -> list[str]:
    """What makes the two results hard to compare."""
    found = []
    for key, old in a['machine'].items():
        new = b['machine'].get(key)
        if old != new:
            found.append(f'note: {key} was {old}, is {new}')
    for result, which in ((a, 'first'), (b, 'second')):
        if result.get('busy'):
            found.append(f'note: the machine was not idle in the {which}: '
                         f"{result['busy']}")
    return found
