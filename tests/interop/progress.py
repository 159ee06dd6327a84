# What "info migrate -a" shows of what query-migrate tells.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What "info migrate -a" shows of what query-migrate tells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterator

from ferry.errors import FerryError
from ferry.vm import VM

SERVED = (Path(__file__).resolve().parents[2] / 'migration' / 'postcopy'
          / 'served.def')

# Members of the object `progress`, and the lines that have their values
LABELS = {
    'phase': ('phase',),
    'percent': ('percent',),
    'eta': ('time left',),
    'predicted-downtime': ('predicted downtime', 'predicted downtime, parts'),
    'bandwidth': ('bandwidth',),
    'dirty-rate': ('dirty rate',),
    'decision': ('decision',),
    'checkpoint': ('checkpoints', 'checkpoint epoch', 'checkpoint age',
                   'checkpoint size', 'checkpoint pause',
                   'checkpoint pauses', 'checkpoint output held',
                   'checkpoint apply'),
    'stall': ('stalls',),
    'downtime': ('downtime, total', 'downtime, parts',
                 'slowest devices, saved', 'slowest devices, loaded'),
    'strict': ('strict downtime', 'strict downtime, last attempt'),
    'peer': ('peer',),
    'channels': ('channels',),
    'served': tuple(re.findall(r'^SERVED\(\w+, "(.+)"\)$', SERVED.read_text(),
                               re.M)),
    'faults': ('memory waited for', 'requests for memory',
               'wait for memory, mean', 'wait for memory, p50',
               'wait for memory, p90', 'wait for memory, p99',
               'wait for memory, longest', 'wait for memory, histogram'),
}


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All numbers and texts within VALUE, and where they are."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from leaves(member, f'{path}.{name}')
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from leaves(member, f'{path}.{number}')
    else:
        yield path, value


def shown(path: str, value: Any, lines: str) -> bool:
    """Whether VALUE is a word of LINES; of a switch, whether it is named."""
    if isinstance(value, bool):
        return (path.rsplit('.', 1)[-1] in lines) == value
    return re.search(rf'(?<![\w.]){re.escape(str(value))}(?![\w.])',
                     lines) is not None


def all_members(vm: VM) -> set[str]:
    """Those that the object `progress` may have."""
    schema = {entry['name']: entry
              for entry in vm.qmp.cmd('query-qmp-schema')}
    info = schema[schema['query-migrate']['ret-type']]
    progress = next(member['type'] for member in info['members']
                    if member['name'] == 'progress')
    return {member['name'] for member in schema[progress]['members']}


def check_progress(vm: VM) -> set[str]:
    """Compare the two monitors of VM, in which nothing must happen meanwhile.

    But time passes, of which some figures are a share: what is shown is what
    was told before or is told after it.  Returns the members that were there.
    """
    if all_members(vm) != set(LABELS):
        raise FerryError('"info migrate" has no lines for '
                         f'{all_members(vm) ^ set(LABELS)}')
    progress = vm.qmp.cmd('query-migrate')['progress']
    text = vm.qmp.cmd('human-monitor-command', {
        'command-line': 'info migrate -a'})
    later = dict(leaves(vm.qmp.cmd('query-migrate')['progress'], ''))
    lines = dict(line.split(':', 1) for line in text.splitlines()
                 if ':' in line)
    for member, value in progress.items():
        there = '\n'.join(lines[label] for label in LABELS[member]
                          if label in lines)
        for path, leaf in leaves(value, member):
            if not (shown(path, leaf, there) or shown(
                    path, later.get(f'.{path}', leaf), there)):
                raise FerryError(f'{path} is {leaf!r}, and "info migrate" '
                                 f'says {there!r}')
    for member in set(LABELS) - set(progress):
        for label in LABELS[member]:
            if label in lines:
                raise FerryError(f'"{label}" is shown, but there is no '
                                 f'{member}')
    return set(progress)
