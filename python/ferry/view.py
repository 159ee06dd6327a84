# Draw a migration for a terminal: a Track in, lines of text out.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Draw a migration for a terminal: a Track in, lines of text out.

Pure functions: no input, output or clock. block() draws the live picture,
line() one line for logs, record() one object for programs. A line is built as
spans (text, look) and painted last, so that cutting it to the width of the
terminal never cuts an escape sequence. Text that comes from outside (errors,
the guest's console, names) passes clean() first.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Iterable, Optional

from .track import ENDED, POSTCOPY, Progress, Point, Track, number

Span = tuple[str, str]
Line = list[Span]

LOOKS = {'': '', 'bold': '1', 'dim': '2', 'good': '32', 'bad': '1;31',
         'warn': '33', 'live': '36', 'band': '35'}
PHASE_LOOK = {'completed': 'good', 'failed': 'bad', 'cancelled': 'warn',
              'cancelling': 'warn', 'postcopy-paused': 'bad'}
LABEL = 11
MIN_WIDTH = 40
# Looks of the parts of a stacked bar, in turn.
SLOWEST = 4             # devices that are shown
PART_LOOKS = ('live', 'good', 'warn', 'band', 'bold')


@dataclass(frozen=True)
class Style:
    """What the terminal can show."""
    unicode: bool = True
    color: bool = False

    @property
    def dot(self) -> str:
        return ' · ' if self.unicode else ', '

    @property
    def about(self) -> str:
        return '≈' if self.unicode else '~'

    @property
    def none(self) -> str:
        return '–' if self.unicode else '-'

    @property
    def shades(self) -> str:
        return '█▓▒░' if self.unicode else '#=+-'


PLAIN = Style(unicode=False, color=False)


# -- numbers -----------------------------------------------------------------

def size(count: float) -> str:
    """Bytes for people: '0 B', '12.3 KiB', '1.00 GiB' (binary units)."""
    value = float(count)
    for unit in ('B', 'KiB', 'MiB', 'GiB', 'TiB'):
        if value < 999.5 or unit == 'TiB':
            break
        value /= 1024.0
    if unit == 'B':
        return f'{value:.0f} B'
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f'{value:.{digits}f} {unit}'


def rate(count: float) -> str:
    return size(count) + '/s'


def seconds(value: float) -> str:
    """'0.34 s', '7.4 s', '1:05 min', '2:03:04 h'."""
    if value < 0.9995:
        return f'{value:.2f} s'
    if value < 59.95:
        return f'{value:.1f} s'
    whole = int(round(value))
    if whole < 3600:
        return f'{whole // 60}:{whole % 60:02d} min'
    return f'{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d} h'


def millis(value: float) -> str:
    """'0.042 ms', '3.4 ms', '231 ms', '1,234 ms'."""
    if value < 0.1:
        return f'{value:.3f} ms' if value else '0 ms'
    if value < 9.95:
        return f'{value:.1f} ms'
    return f'{value:,.0f} ms'


def clean(raw: str) -> str:
    """Text from outside on one line, without anything a terminal acts on."""
    out = []
    for char in raw:
        if char in '\t\n\r':
            out.append(' ')
        elif unicodedata.category(char)[0] == 'C':
            out.append('?')
        else:
            out.append(char)
    return ' '.join(''.join(out).split())


def cells(char: str) -> int:
    """Terminal columns taken by one character."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in 'WF' else 1


def width_of(spans: Line) -> int:
    return sum(cells(c) for part, _ in spans for c in part)


def cut(spans: Line, width: int, style: Style) -> Line:
    """The spans, shortened to `width` columns with a mark where cut."""
    if width_of(spans) <= width:
        return spans
    mark = '…' if style.unicode else '>'
    room = width - 1
    out: Line = []
    for part, look in spans:
        kept = ''
        for char in part:
            if cells(char) > room:
                out.append((kept, look))
                out.append((mark, 'dim'))
                return out
            kept += char
            room -= cells(char)
        out.append((kept, look))
    return out


def paint(spans: Line, width: int, style: Style) -> str:
    out = []
    joined: Line = []
    for part, look in cut(spans, width, style):
        if joined and joined[-1][1] == look:
            joined[-1] = (joined[-1][0] + part, look)
        else:
            joined.append((part, look))
    for part, look in joined:
        if not style.unicode:
            part = part.encode('ascii', 'replace').decode()
        code = LOOKS.get(look, '')
        out.append(f'\033[{code}m{part}\033[0m'
                   if style.color and code and part else part)
    return ''.join(out).rstrip()


# -- small pictures ----------------------------------------------------------

EIGHTHS = ' ▏▎▍▌▋▊▉█'
LEVELS = '▁▂▃▄▅▆▇█'
ASCII_LEVELS = '_.-=+*#@'


def bar(percent: float, width: int, style: Style) -> str:
    """A bar of exactly `width` columns; only 100 % fills it."""
    width = max(1, width)
    share = min(100.0, max(0.0, percent)) / 100.0
    if not style.unicode:
        full = int(share * width)
        tip = '>' if 0 < full < width else ''
        return ('=' * (full - len(tip)) + tip).ljust(width, '.')
    steps = int(share * width * 8)
    body = '█' * (steps // 8)
    if steps % 8:
        body += EIGHTHS[steps % 8]
    return body + '·' * (width - len(body))


def sparkline(values: Iterable[float], width: int, style: Style,
              top: Optional[float] = None) -> str:
    """The newest `width` values as a row of columns, from nought to the largest
    of them (or to `top`)."""
    shown = [max(0.0, v) for v in values][-max(0, width):]
    if not shown:
        return ''
    levels = LEVELS if style.unicode else ASCII_LEVELS
    peak = max(shown + ([top] if top else []))
    if peak <= 0:
        return levels[0] * len(shown)
    last = len(levels) - 1
    return ''.join(levels[min(last, int(math.ceil(v / peak * len(levels))) - 1)]
                   if v > 0 else levels[0] for v in shown)


def stacked(parts: list[tuple[str, float]], width: int,
            style: Style) -> list[Span]:
    """Named times as one bar: each part gets columns by its share, and at least
    one when it is not nought."""
    total = sum(ms for _, ms in parts)
    if total <= 0 or width < len(parts):
        return []
    shades = style.shades
    shown = [(name, ms) for name, ms in parts if ms > 0]
    columns = [max(1, int(ms / total * width)) for _, ms in shown]
    while sum(columns) > width:
        columns[columns.index(max(columns))] -= 1
    columns[columns.index(max(columns))] += width - sum(columns)
    return [(shades[i % len(shades)] * n, PART_LOOKS[i % len(PART_LOOKS)])
            for i, n in enumerate(columns)]


# -- the block ---------------------------------------------------------------

def row(label: str, *spans: Span) -> Line:
    return [('  ' + label.ljust(LABEL), 'dim'), *spans]


def flow(label: str, words: Iterable[Span], gap: str, width: int,
         gap_look: str = 'dim') -> list[Line]:
    """A row that goes on in further rows where the terminal is too narrow:
    it breaks only between words."""
    room = max(10, width - LABEL - 2)
    lines: list[Line] = []
    taken = 0
    for word in words:
        needs = width_of([word])
        if not lines or taken + len(gap) + needs > room:
            lines.append(row('' if lines else label, word))
            taken = needs
        else:
            lines[-1] += [(gap, gap_look), word]
            taken += len(gap) + needs
    return lines


def prose(label: str, body: str, look: str, width: int) -> list[Line]:
    return flow(label, [(w, look) for w in clean(body).split()], ' ', width,
                look)


def block(track: Track, width: int = 80, style: Style = PLAIN, name: str = '',
          more: Iterable[tuple[str, str]] = ()) -> list[str]:
    """The live picture of one migration. `more` adds rows (label, text)."""
    width = max(MIN_WIDTH, width)
    lines = []
    if name:
        lines.append(head(track, clean(name), width))
    if track.incoming:
        lines += incoming_rows(track, style)
    elif not track.started:
        lines.append(row('', ('no migration has been started', 'dim')))
    elif track.ended and not track.ram:
        lines.append([('  ' + track.phase.ljust(LABEL),
                       PHASE_LOOK.get(track.phase, '')),
                      ('before it was watched: QEMU keeps no numbers', 'dim')])
    else:
        lines.append(progress(track, width, style))
        lines += memory_rows(track, width, style)
        lines += extra_rows(track, width, style)
        lines += ferry_rows(track, width, style)
    lines += trouble_rows(track, width)
    lines += [row(label, (clean(body), '')) for label, body in more]
    return [paint(spans, width, style) for spans in lines]


GUEST_STATES = {'running': 'guest running here', 'paused': 'guest paused',
                'inmigrate': 'guest not here yet',
                'postmigrate': 'guest has left',
                'finish-migrate': 'guest stopped for the switchover',
                'shutdown': 'guest shut down'}


def head(track: Track, name: str, width: int) -> Line:
    state = GUEST_STATES.get(track.run_state, clean(track.run_state))
    if track.lost:
        state = 'QEMU is gone'
    gap = max(2, width - len(name) - len(state))
    look = 'bad' if track.lost and not track.ended else 'dim'
    return [(name, 'bold'), (' ' * gap, ''), (state, look)]


def progress(track: Track, width: int, style: Style) -> Line:
    point = track.point
    phase = clean(point.phase)
    look = PHASE_LOOK.get(point.phase, 'live')
    tail = f' {point.percent:3.0f} %  {seconds(point.elapsed)}'
    left = time_left(track, style)
    if left:
        tail += f', {left} left'
    name = max(LABEL, len(phase) + 1)
    room = max(8, min(60, width - 2 - name - max(30, len(tail))))
    return [('  ' + phase.ljust(name), look),
            (bar(point.percent, room, style), look), (tail, '')]


def time_left(track: Track, style: Style) -> str:
    """'≈4 s', with the interval when QEMU tells one; '' when not known."""
    point = track.point
    if point.phase in ENDED or point.eta is None:
        return ''
    out = style.about + seconds(point.eta)
    info = track.progress
    low = info.ms('eta.low-ms') if info else None
    high = info.ms('eta.high-ms') if info else None
    if low is not None and high is not None:
        out += f' ({low / 1000:.1f} to {high / 1000:.1f})'
    elif low is not None:
        out += f' ({low / 1000:.1f} or more)'
    return out


def memory_rows(track: Track, width: int, style: Style) -> list[Line]:
    point = track.point
    if not track.ram:
        return []
    sent = f'{size(point.transferred)} sent'
    if point.phase != 'completed':
        sent += f'{style.dot}{size(point.remaining)} of {size(point.total)} left'
    else:
        sent += f' for {size(point.total)} of memory'
    if point.iteration:
        passes = 'passes' if point.iteration != 1 else 'pass'
        sent += (f'{style.dot}{point.iteration} {passes}' if track.ended
                 else f'{style.dot}pass {point.iteration}')
    lines = [row('memory', (sent, ''))]
    lines.append(link_row(track, width, style))
    if not track.ended and point.phase not in POSTCOPY:
        lines.append(dirty_row(track, width, style))
    downtime = downtime_row(track, style)
    if downtime:
        lines.append(downtime)
    return lines


def link_row(track: Track, width: int, style: Style) -> Line:
    point = track.point
    shown = track.average_bandwidth() if track.ended else point.bandwidth
    spans = [(rate(shown).ljust(13), '')]
    room = min(40, width - LABEL - 36)
    spans.append((spark_of(track, 'bandwidth', room, style), 'live'))
    if track.ended:
        spans.append(('  on average', 'dim'))
    elif track.max_bandwidth:
        spans.append((f'  limit {rate(track.max_bandwidth)}', 'dim'))
    return row('link', *spans)


def spark_of(track: Track, what: str, room: int, style: Style,
             top: Optional[float] = None) -> str:
    live = [getattr(p, what) for p in track.points if p.phase not in ENDED]
    return sparkline(live[1:], room, style, top)


def dirty_row(track: Track, width: int, style: Style) -> Line:
    point = track.point
    if not point.dirty and point.iteration < 2:
        return row('dirtying', ('not known before the second pass', 'dim'))
    room = min(40, width - LABEL - 36)
    peak = max((p.bandwidth for p in track.points), default=0.0)
    spans = [(rate(point.dirty).ljust(13), ''),
             (spark_of(track, 'dirty', room, style, peak), 'band')]
    if point.converges is False:
        spans.append(('  faster than it is sent', 'warn'))
    return row('dirtying', *spans)


def downtime_row(track: Track, style: Style) -> Optional[Line]:
    point = track.point
    limit = track.limit_ms
    tail = f' (limit {millis(limit)})' if limit is not None else ''
    if track.downtime_ms is not None:
        over = limit is not None and track.downtime_ms > limit
        return row('downtime', (millis(track.downtime_ms),
                                'warn' if over else 'good'), (tail, 'dim'))
    if point.expected_ms is None:
        return None
    over = limit is not None and point.expected_ms > limit
    return row('downtime', (style.about + millis(point.expected_ms),
                            'warn' if over else ''),
               (' expected', 'dim'), (tail, 'dim'))


def extra_rows(track: Track, width: int, style: Style) -> list[Line]:
    """What is shown only when the migration uses it."""
    point, ram, lines = track.point, track.ram, []
    if point.throttle is not None and not track.ended:
        lines.append(row('throttle', (f'{point.throttle} %', 'warn'),
                         (' of vCPU time is held back', 'dim')))
    slowed = number(track.last.get('dirty-limit-throttle-time-per-round'), 0)
    if slowed:
        lines.append(row('dirty limit', (
            f'vCPUs held back {millis(slowed / 1000)} a round', 'warn')))
    cache = track.info.get('xbzrle-cache')
    if isinstance(cache, dict):
        lines += flow('xbzrle', [(part, '') for part in xbzrle_parts(cache)],
                      style.dot, width)
    words = checkpoint_words(track.progress) if track.progress else []
    if words:
        lines += flow('checkpoint', [(word, '') for word in words], style.dot,
                      width)
    multifd = int(number(ram.get('multifd-bytes'), 0))
    if multifd:
        channels = number(track.params.get('multifd-channels'), None)
        over = f' over {channels} channels' if channels else ''
        share = 100.0 * multifd / max(point.transferred, multifd)
        lines += flow('multifd', [
            (part, '') for part in (
                f'{size(multifd)}{over}', f'{share:.0f} % of all',
                *channel_parts(track.progress))], style.dot, width)
    asked = int(number(ram.get('postcopy-requests'), 0))
    if asked or point.phase in POSTCOPY:
        moved = int(number(ram.get('postcopy-bytes'), 0))
        lines.append(row('postcopy', (
            f'{asked:,} pages asked for{style.dot}{size(moved)} sent', '')))
    vfio = track.info.get('vfio')
    if isinstance(vfio, dict):
        lines.append(row('vfio', (
            f'{size(number(vfio.get("transferred"), 0))} of device state', '')))
    return lines


def channel_parts(info: Optional[Progress]) -> list[str]:
    """How busy the channels are, and what compression makes of memory."""
    channels = info.objects('channels') if info else []
    busy = [number(one.number('busy'), 0) for one in channels]
    sent = sum(number(one.number('bytes'), 0) for one in channels)
    memory = sum(number(one.number('memory'), 0) for one in channels)
    parts = []
    if busy:
        parts.append(f'busy {min(busy):.0f} to {max(busy):.0f} %')
    if sent and memory > 1.1 * sent:
        parts.append(f'compressed to {100 * sent / memory:.0f} %')
    now = sorted({present(one) for one in channels} - {''})
    if now:
        parts.append(f'now {", ".join(now)}')
    return parts


def present(channel: Progress) -> str:
    """How a channel compresses at present; '' if it does not."""
    method = channel.text('compression')
    if method in ('', 'none'):
        return ''
    ratio = number(channel.number('ratio'), 0)
    return (f'{method} {number(channel.number("level"), 0):.0f}'
            + (f' to {10000 / ratio:.0f} %' if ratio else ''))


def xbzrle_parts(cache: dict) -> list[str]:
    pages = int(number(cache.get('pages'), 0))
    sent = int(number(cache.get('bytes'), 0))
    return [f'{pages:,} pages in {size(sent)}',
            f'{100 * number(cache.get("cache-miss-rate"), 0):.0f} % missed',
            f'{int(number(cache.get("overflow"), 0)):,} overflowed',
            f'cache {size(number(cache.get("cache-size"), 0))}']


def checkpoint_words(told: Progress) -> list[str]:
    """How well a guest is protected; nothing if it is not."""
    if not told.text('checkpoint.state'):
        return []
    words = [clean(told.text('checkpoint.state')),
             f'epoch {told.number("checkpoint.epoch") or 0:,.0f}']
    if told.number('checkpoint.age') is not None:
        words.append(f'{millis(told.number("checkpoint.age"))} old')
    if told.number('checkpoint.last-bytes'):
        words.append(size(told.number('checkpoint.last-bytes')))
    for name, what in (('checkpoint.pause-median', 'paused'),
                       ('checkpoint.pause-p99', 'p99'),
                       ('checkpoint.pause-max', 'longest'),
                       ('checkpoint.apply', 'in place in')):
        if told.number(name) is not None:
            words.append(f'{what} {millis(told.number(name) / 1000)}')
    held = told.number('checkpoint.buffered-packets')
    if held is not None:
        words.append(f'{held:,.0f} packets held')
    return words


def ferry_rows(track: Track, width: int, style: Style) -> list[Line]:
    """Rows from the `progress` object, which only some QEMUs have."""
    info, lines = track.progress, []
    if info is None:
        return lines
    phase, decision = info.text('phase'), info.text('decision')
    predicted = info.parts('predicted-downtime.parts')
    downtime, features = info.parts('downtime.parts'), info.texts('peer.features')
    if phase and phase != track.phase and not track.ended:
        lines.append(row('step', (clean(phase), '')))
    if decision:
        lines += prose('decision', decision, '', width)
    if predicted and not track.ended:
        lines += flow('predicted', part_words(predicted), style.dot, width)
    if info.ms('stall.longest-us') is not None:
        lines += flow('stalls', [(w, '') for w in stall_words(info)],
                      style.dot, width)
    if downtime:
        picture = stacked(downtime, min(40, width - LABEL - 20), style)
        total = millis(info.ms('downtime.total-us') or 0)
        lines.append(row('blackout', *picture, (f'  {total}', '')))
        lines += flow('', part_words(downtime, style), '  ', width)
    for name in ('saved', 'loaded'):
        devices = info.parts(f'downtime.slowest-{name}')
        if devices:
            lines += flow(name, part_words(devices[:SLOWEST]), style.dot,
                          width)
    if info.number('faults.count'):
        lines += flow('faults', [(w, '') for w in fault_words(info)],
                      style.dot, width)
    if info.number('served.asked'):
        lines += flow('asked for', [(w, '') for w in served_words(info)],
                      style.dot, width)
    if info.number('strict.attempts') is not None:
        lines += flow('promise', [(w, '') for w in strict_words(info)],
                      style.dot, width)
    if features:
        lines += flow('peer', [(clean(f), '') for f in features],
                      style.dot, width)
    return lines


def part_words(parts: list[tuple[str, float]],
               key: Optional[Style] = None) -> list[Span]:
    """'ram 21 ms' for each part; with `key`, as the legend of stacked()."""
    words = []
    for i, (name, ms) in enumerate((n, ms) for n, ms in parts if ms > 0):
        word = f'{clean(name)} {millis(ms)}'
        if key is None:
            words.append((word, ''))
        else:
            mark = key.shades[i % len(key.shades)]
            words.append((f'{mark} {word}', PART_LOOKS[i % len(PART_LOOKS)]))
    return words


def strict_words(info: Progress) -> list[str]:
    words = [f'attempt {info.number("strict.attempts"):.0f} of '
             f'{info.number("strict.attempts-max") or 0:.0f}']
    if info.flag('strict.one-sided'):
        words.append('one-sided: the other side is no Ferry')
    if info.text('strict.why'):
        words.append(clean(info.text('strict.why')))
    return words


def fault_words(info: Progress) -> list[str]:
    words = [f'{info.number("faults.count"):,.0f} waits for memory']
    for name, what in (('p50', 'p50'), ('p90', 'p90'), ('p99', 'p99'),
                       ('max', 'longest')):
        ms = info.ms(f'faults.{name}-us')
        if ms is not None:
            words.append(f'{what} {millis(ms)}')
    requests = info.number('faults.requests')
    if requests is not None:
        words.append(f'{requests:,.0f} requests')
    return words


SERVED = {'asked': 'pages', 'urgent': 'sent urgently',
          'again': 'sent once more', 'along': 'sent along'}


def served_words(info: Progress) -> list[str]:
    """One that this program does not know goes by its own name."""
    return [f'{count:,.0f} {SERVED.get(name, clean(name))}'
            for name, count in info.numbers('served').items()]


def stall_words(info: Progress) -> list[str]:
    step, count = info.text('stall.step'), info.number('stall.count')
    total = info.ms('stall.total-us')
    words = [f'longest {millis(info.ms("stall.longest-us"))}'
             + (f' ({clean(step)})' if step else '')]
    if total is not None:
        words.append(f'{millis(total)} in all')
    if count is not None:
        words.append(f'{count:.0f} of them')
    return words


def incoming_rows(track: Track, style: Style) -> list[Line]:
    phase = track.phase if track.started else 'listening'
    texts = {'completed': 'the guest has arrived',
             'failed': 'the guest has not arrived',
             'listening': 'no guest has come yet'}
    body = texts.get(phase, 'receiving; the numbers are on the sending side')
    where = address(track.info.get('socket-address'))
    if where:
        body += f'{style.dot}on {where}'
    look = PHASE_LOOK.get(phase, 'live')
    return [[('  ' + clean(phase).ljust(LABEL), look), (body, '')]]


def address(found: object) -> str:
    """A QMP SocketAddress list as text, '' if there is none."""
    first = found[0] if isinstance(found, list) and found else None
    if not isinstance(first, dict):
        return ''
    if 'host' in first:
        return clean(f'{first["host"]}:{first.get("port", "")}')
    return clean(str(first.get('path', first.get('str', ''))))


def trouble_rows(track: Track, width: int) -> list[Line]:
    lines: list[Line] = []
    if track.error:
        lines += prose('error', track.error, 'bad', width)
    reasons = track.last.get('blocked-reasons')
    if isinstance(reasons, list):
        for reason in reasons:
            lines += prose('blocked', str(reason), 'warn', width)
    if track.phase == 'postcopy-paused':
        lines += prose('hint', 'the connection is lost and the guest waits for '
                       'memory: give migrate-recover to the destination, then '
                       'migrate with resume=true here', 'warn', width)
    if track.silent >= 1.0:
        lines.append(row('waiting', (
            f'QEMU has not answered for {seconds(track.silent)}', 'warn')))
    if track.lost:
        look = 'dim' if track.ended else 'bad'
        lines += prose('gone', track.lost, look, width)
    return lines


# -- one line, one record ----------------------------------------------------

def line(track: Track, style: Style = PLAIN, name: str = '') -> str:
    """The state of a migration on one line, for logs."""
    prefix = f'{clean(name)}: ' if name else ''
    point = track.point
    if track.lost:
        return f'{prefix}{clean(track.lost)}'
    if point is None:
        return f'{prefix}no migration'
    parts = [f'{point.elapsed:6.1f}s', f'{clean(point.phase):<9}']
    if track.incoming or not track.ram:
        if point.elapsed == 0 and track.ended:
            parts[0] = ' ' * 7     # not seen, not told
        return prefix + '  '.join(parts + incoming_tail(track)).rstrip()
    parts.append(f'pass {point.iteration:<3}{point.percent:3.0f}%')
    parts.append(f'sent {size(point.transferred):>8}')
    if track.ended:
        parts.append(f'average {rate(track.average_bandwidth())}')
        if track.downtime_ms is not None:
            parts.append(f'downtime {millis(track.downtime_ms)}')
    else:
        parts += live_tail(track, point, style)
    if track.error:
        parts.append(clean(track.error))
    return prefix + '  '.join(parts)


def incoming_tail(track: Track) -> list[str]:
    if track.error:
        return [clean(track.error)]
    return ['(receiving)'] if track.incoming else []


def live_tail(track: Track, point: Point, style: Style) -> list[str]:
    parts = [f'left {size(point.remaining):>8}',
             f'{rate(point.bandwidth):>10}', f'dirty {rate(point.dirty):>10}']
    if point.expected_ms is not None:
        limit = track.limit_ms
        against = f'/{limit:.0f}' if limit is not None else ''
        parts.append(f'downtime ~{point.expected_ms:.0f}{against} ms')
    if point.throttle is not None:
        parts.append(f'throttle {point.throttle}%')
    if point.eta is not None:
        parts.append(f'eta {seconds(point.eta)}')
    elif point.converges is False:
        parts.append('not converging')
    return parts


def record(track: Track, name: str = '') -> dict:
    """The state of a migration as one JSON-ready object. Keys are only added
    in later versions, never renamed; null means not known."""
    point = track.point
    out = {'name': name, 'phase': track.phase, 'ended': track.ended,
           'incoming': track.incoming, 'guest': track.run_state,
           'error': track.error or track.lost or None,
           'elapsed_s': None, 'percent': None, 'eta_s': None}
    if point is not None:
        out.update({
            'elapsed_s': round(point.elapsed, 3),
            'percent': round(point.percent, 2),
            'eta_s': None if point.eta is None else round(point.eta, 3),
            'converges': point.converges, 'pass': point.iteration,
            'transferred': point.transferred, 'remaining': point.remaining,
            'total': point.total, 'bandwidth_Bps': round(point.bandwidth),
            'average_Bps': round(track.average_bandwidth()),
            'dirty_Bps': round(point.dirty),
            'expected_downtime_ms': point.expected_ms,
            'downtime_ms': track.downtime_ms,
            'downtime_limit_ms': track.limit_ms,
            'throttle_percent': point.throttle})
    out['query_migrate'] = track.last
    return out
