# Write to a terminal: a picture that is redrawn in place, or lines for a log.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Write to a terminal: a picture that is redrawn in place, or lines for a log."""

from __future__ import annotations

import os
import shutil
import sys
from types import TracebackType
from typing import Iterable, Optional, TextIO

from .view import Style

HIDE, SHOW = '\033[?25l', '\033[?25h'
TO_END = '\033[J'
LINE_END = '\033[K'


def style_for(stream: TextIO, color: str = 'auto') -> Style:
    """What the terminal behind a stream can show. color: auto, always, never;
    auto heeds NO_COLOR and TERM=dumb."""
    encoding = (getattr(stream, 'encoding', '') or '').lower()
    dumb = os.environ.get('TERM', '') in ('', 'dumb')
    colored = (color == 'always' or color == 'auto' and stream.isatty()
               and not dumb and not os.environ.get('NO_COLOR'))
    wide = encoding.replace('-', '') == 'utf8' and \
        os.environ.get('TERM') != 'linux'      # its font lacks the blocks
    return Style(unicode=wide, color=colored)


def can_redraw(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get('TERM', '') not in ('', 'dumb')


class Screen:
    """A picture at the end of the terminal's scroll-back.

    draw() replaces the last picture, say() prints lines above it for good, and
    leaving the context keeps the last picture and gives the cursor back."""

    def __init__(self, stream: Optional[TextIO] = None,
                 color: str = 'auto') -> None:
        self.stream = stream or sys.stdout
        self.live = can_redraw(self.stream)
        self.style = style_for(self.stream, color)
        self._height = 0
        self._picture: list[str] = []
        self._hidden = False

    def width(self) -> int:
        """Usable columns: one less than there are, so that nothing wraps."""
        return max(40, shutil.get_terminal_size((80, 24)).columns - 1)

    def __enter__(self) -> 'Screen':
        return self

    def __exit__(self, kind: Optional[type], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def draw(self, lines: Iterable[str]) -> None:
        """Show these lines in place of the ones shown before."""
        if not self.live:
            return
        rows = shutil.get_terminal_size((80, 24)).lines
        picture = list(lines)[:max(1, rows - 1)]
        out = '' if self._hidden else HIDE
        self._hidden = True
        out += self._home()
        out += ''.join(text + LINE_END + '\n' for text in picture) + TO_END
        self._height = len(picture)
        self._picture = picture
        self._write(out)

    def say(self, *lines: str) -> None:
        """Print lines that stay; a picture on show moves down below them."""
        if not self.live:
            self._write(''.join(text + '\n' for text in lines))
            return
        out = self._home() + ''.join(text + LINE_END + '\n' for text in lines)
        out += ''.join(text + LINE_END + '\n' for text in self._picture)
        self._write(out + TO_END)

    def keep(self) -> None:
        """Leave the picture where it is; the next one goes below it."""
        self._height = 0
        self._picture = []

    def clear(self) -> None:
        """Take the picture away."""
        if self._height:
            self._write(self._home() + TO_END)
        self.keep()

    def close(self) -> None:
        self.keep()
        if self._hidden:
            self._hidden = False
            self._write(SHOW)

    def _home(self) -> str:
        return f'\033[{self._height}A\r' if self._height else '\r'

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            if not self.live:
                raise           # a full disk, or a reader that went away
            # The terminal was closed. Its SIGHUP ends the program; what is
            # written until then, also when Python flushes, has no reader.
            with open(os.devnull, 'wb') as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())
