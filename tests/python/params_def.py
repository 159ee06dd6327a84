# Read migration/base/params.def.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Read migration/base/params.def."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEF = ROOT / 'migration' / 'base' / 'params.def'

ROW = re.compile(r'^(PARAM|PARAM_STRING|PARAM_LIST|CAP)\(([^()]*?)\)$', re.M)
WHEN = {'LIVE': 'at once', 'START': 'next start', '': ''}


@dataclass
class Row:
    """What documentation says of a parameter or capability."""
    macro: str
    name: str
    allowed: str
    preset: str
    unit: str
    acts: str
    option: str         # of -global
    section: str

    def cells(self) -> list[str]:
        """The row of a parameter in the table of its section."""
        return [self.name, self.allowed, self.preset, self.unit or '-',
                self.acts, self.option]


def number(text: str) -> str:
    """A number as documentation writes it."""
    if text in ('UINT32_MAX', 'UINT64_MAX', 'SIZE_MAX'):
        return ''
    return text.replace(' * MiB', 'M')


def read_rows() -> list[Row]:
    """All rows, in the order of the file."""
    text = re.sub(r'/\*.*?\*/', '', DEF.read_text(), flags=re.S)
    text = re.sub(r'^#else\n.*?^#endif\n', '', text, flags=re.S | re.M)
    rows = []
    for macro, body in ROW.findall(text):
        cells = [cell.strip().strip('"') for cell in body.split(',')]
        rows.append(_row(macro, cells))
    return rows


def _row(macro: str, cells: list[str]) -> Row:
    option = {'SAME': '{}', 'X': 'x-{}', 'NONE': '-'}
    if macro == 'PARAM':
        kind, _, _, _, name, spelling, _, _, low, high, unit, preset, when, \
            section = cells
        allowed = {'BOOL': 'bool', 'ENUM': 'enum'}.get(
            kind, f'{number(low)}..{number(high)}')
        if kind == 'ENUM':
            preset = re.sub(r'.*_', '', preset).lower()
        preset = {'false': 'off', 'true': 'on'}.get(preset, number(preset))
    elif macro == 'CAP':
        _, _, name, spelling, _, _, section = cells
        allowed, preset, unit, when = 'bool', 'off', '', ''
    elif macro == 'PARAM_STRING':
        _, _, name, spelling, _, _, when, section = cells
        allowed, preset, unit = 'string', 'empty', ''
    else:
        _, _, name, _, _, _, when, section = cells
        allowed, preset, unit, spelling = 'list', 'none', '', 'NONE'
    return Row(macro, name, allowed, preset, unit, WHEN[when],
               option[spelling].format(name), section)

