# Whether one QMP schema has all that another has, and what libvirt looks for.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether one QMP schema has all that another has, and what libvirt looks for.

libvirt decides by paths in the answer to query-qmp-schema what a QEMU can do.
PROBES are those that are about migration, in versions 9 to 12.
"""

from __future__ import annotations

from typing import Any, Iterator

# Path: command, its arguments or result, then members; ^ is before a value of
# an enumeration.
PROBES = (
    'query-migrate/ret-type/blocked-reasons',
    'migrate-set-parameters/arg-type/block-bitmap-mapping/bitmaps/transform',
    'calc-dirty-rate/arg-type/mode',
    'calc-dirty-rate/arg-type/mode/^dirty-bitmap',
    'calc-dirty-rate/arg-type/mode/^dirty-ring',
    'query-dirty-rate/ret-type/vcpu-dirty-rate',
    'migrate-incoming/arg-type/exit-on-error',
    'migrate/arg-type/uri', 'migrate/arg-type/detach',
    'migrate/arg-type/resume', 'migrate-continue/arg-type/state',
    'migrate-recover/arg-type/uri', 'migrate-pause', 'migrate_cancel',
    'migrate-start-postcopy', 'migrate-set-capabilities',
    'query-migrate-capabilities', 'query-migrate-parameters',
    'getfd/arg-type/fdname', 'closefd', 'add-fd/arg-type/fdset-id',
    'remove-fd', 'query-fdsets/ret-type/fdset-id',
    'query-fdsets/ret-type/fds/opaque', 'announce-self/arg-type/rounds',
    'yank/arg-type/instances', 'MIGRATION/arg-type/status',
    'MIGRATION_PASS/arg-type/pass', 'UNPLUG_PRIMARY/arg-type/device-id',
    *(f'query-migrate/ret-type/{name}' for name in (
        'status', 'total-time', 'downtime', 'expected-downtime', 'setup-time',
        'error-desc', 'cpu-throttle-percentage', 'vfio/transferred',
        'xbzrle-cache/cache-size', 'xbzrle-cache/bytes', 'xbzrle-cache/pages',
        'xbzrle-cache/cache-miss', 'xbzrle-cache/overflow')),
    *(f'query-migrate/ret-type/ram/{name}' for name in (
        'transferred', 'remaining', 'total', 'duplicate', 'normal',
        'normal-bytes', 'dirty-pages-rate', 'mbps', 'dirty-sync-count',
        'postcopy-requests', 'page-size')),
    *(f'query-migrate/ret-type/status/^{status}' for status in (
        'setup', 'active', 'pre-switchover', 'device', 'postcopy-active',
        'postcopy-paused', 'postcopy-recover', 'completed', 'failed',
        'cancelling', 'cancelled', 'wait-unplug')),
    *(f'migrate-set-capabilities/arg-type/capabilities/capability/^{name}'
      for name in ('xbzrle', 'auto-converge', 'rdma-pin-all', 'events',
                   'postcopy-ram', 'pause-before-switchover',
                   'late-block-activate', 'multifd', 'dirty-bitmaps',
                   'return-path', 'zero-copy-send', 'postcopy-preempt',
                   'switchover-ack', 'mapped-ram')),
    *(f'migrate-set-parameters/arg-type/{name}' for name in (
        'cpu-throttle-initial', 'cpu-throttle-increment', 'tls-creds',
        'tls-hostname', 'max-bandwidth', 'downtime-limit',
        'xbzrle-cache-size', 'max-postcopy-bandwidth', 'multifd-channels',
        'multifd-compression', 'multifd-zlib-level', 'multifd-zstd-level',
        'avail-switchover-bandwidth', 'direct-io')),
)


class Schema:
    """The answer to query-qmp-schema."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self.by_name = {entry['name']: entry for entry in entries}

    def plain(self, name: str) -> dict[str, Any]:
        """A type, or what an array of it has."""
        entry = self.by_name[name]
        while entry['meta-type'] == 'array':
            entry = self.by_name[entry['element-type']]
        return entry

    def has(self, path: str) -> bool:
        """Whether there is what a path leads to."""
        first, *steps = path.split('/')
        if first not in self.by_name:
            return False
        entry = self.by_name[first]
        for step in steps:
            if step in ('arg-type', 'ret-type'):
                entry = self.plain(entry[step])
            elif step.startswith('^'):
                return step[1:] in entry.get('values', ())
            else:
                found = [member for member in entry.get('members', ())
                         if member['name'] == step]
                if not found:
                    return False
                entry = self.plain(found[0]['type'])
        return True

    def roots(self) -> Iterator[dict[str, Any]]:
        """Commands and events"""
        return (entry for entry in self.by_name.values()
                if entry['meta-type'] in ('command', 'event'))


class Comparison:
    """What OURS lacks of BASE."""

    def __init__(self, base: Schema, ours: Schema) -> None:
        self.base, self.ours = base, ours
        self.lacks: list[str] = []
        self.seen: set[tuple[str, str]] = set()

    def run(self) -> list[str]:
        """All that is missing, or other than in the base."""
        for entry in self.base.roots():
            name = entry['name']
            if name not in self.ours.by_name:
                self.lacks.append(name)
                continue
            other = self.ours.by_name[name]
            for side in ('arg-type', 'ret-type'):
                if side in entry:
                    self.types(f'{name}/{side}', entry[side], other[side],
                               side == 'arg-type' and
                               entry['meta-type'] == 'command')
            for flag in ('allow-oob',):
                if entry.get(flag) and not other.get(flag):
                    self.lacks.append(f'{name}: {flag}')
        return self.lacks

    def types(self, where: str, base: str, ours: str, given: bool) -> None:
        """Two types; with GIVEN clients write them, or else read them."""
        if (base, ours) in self.seen:
            return
        self.seen.add((base, ours))
        one, other = self.base.by_name[base], self.ours.by_name[ours]
        if one['meta-type'] != other['meta-type']:
            self.lacks.append(f'{where}: {other["meta-type"]}')
        elif one['meta-type'] == 'builtin' and one['json-type'] != \
                other['json-type']:
            self.lacks.append(f'{where}: {other["json-type"]}')
        elif one['meta-type'] == 'array':
            self.types(where, one['element-type'], other['element-type'],
                       given)
        elif one['meta-type'] == 'enum':
            self.lacks += [f'{where}/^{value}' for value in one['values']
                           if value not in other['values']]
        elif one['meta-type'] == 'object':
            self.members(where, one, other, given)

    def members(self, where: str, one: dict, other: dict,
                given: bool) -> None:
        """Of two objects.  What a client need not give it never has to; what
        it is always told it is told always."""
        there = {member['name']: member for member in other['members']}
        for member in one['members']:
            name = f'{where}/{member["name"]}'
            if member['name'] not in there:
                self.lacks.append(name)
                continue
            found = there.pop(member['name'])
            was, now = 'default' in member, 'default' in found
            if was != now and now != given:
                self.lacks.append(f'{name}: optional' if now else
                                  f'{name}: required')
            self.types(name, member['type'], found['type'], given)
        if given:
            self.lacks += [f'{where}/{name}: required' for name, member
                           in there.items() if 'default' not in member]
        cases = {case['case']: case for case in other.get('variants', ())}
        for case in one.get('variants', ()):
            if case['case'] not in cases:
                self.lacks.append(f'{where}/+{case["case"]}')
            else:
                self.types(f'{where}/+{case["case"]}', case['type'],
                           cases[case['case']]['type'], given)
