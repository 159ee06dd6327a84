# Made-up migrations, as QEMU's monitor would tell them.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Made-up migrations, as QEMU's monitor would tell them."""

from __future__ import annotations

import random
from typing import Iterator

PAGE = 4096
MIB = 1 << 20
PARAMS = {'downtime-limit': 300, 'max-bandwidth': 128 * MIB,
          'multifd-channels': 4}
PROGRESS = {
    'phase': 'later-pass', 'percent': 40,
    'eta': {'low-ms': 1900, 'likely-ms': 2400, 'high-ms': 3300},
    'predicted-downtime': {
        'low-us': 39000, 'likely-us': 41200, 'high-us': 52000, 'parts': [
            {'name': 'stop', 'us': 420}, {'name': 'ram', 'us': 30200},
            {'name': 'start', 'us': 400}]},
    'bandwidth': 100 * MIB, 'dirty-rate': 20 * MIB,
    'decision': '41 MiB are dirty and would take 320 ms',
    'stall': {'count': 3, 'total-us': 1900, 'longest-us': 1100,
              'step': 'sync'},
    'peer': {'version': 1, 'features': ['zero-range', 'page-run']}}
DOWNTIME = {'total-us': 38100, 'parts': [
    {'name': name, 'us': us} for name, us in (
        ('stop', 420), ('sync', 900), ('ram', 21200), ('device-save', 5100),
        ('device-load', 6000), ('activate', 3480), ('start', 1000))]}


class Story:
    """A guest of `total` MiB that dirties memory while it is sent.

    samples() tells the whole of it; t starts at 100 s. The numbers are
    consistent: what is dirtied in one pass is sent in the next."""

    def __init__(self, total: int = 1024, zero: int = 400,
                 bandwidth: int = 100, dirty: int = 20, end: str = 'completed',
                 progress: bool = False, extra: dict | None = None,
                 seed: int = 1, step: float = 0.1) -> None:
        self.total, self.bandwidth = total * MIB, bandwidth * MIB
        self.zero_left, self.dirty = zero * MIB, dirty * MIB
        self.end, self.progress, self.extra = end, progress, extra or {}
        self.random, self.step = random.Random(seed), step
        self.t, self.elapsed = 100.0, 0.0
        self.remaining, self.sent, self.count = self.total, 0, 1
        self.normal = self.duplicate = self.rate = 0
        self.max_passes = 12

    def reply(self, status: str) -> dict:
        pages = {'transferred': self.sent, 'remaining': self.remaining,
                 'total': self.total, 'duplicate': self.duplicate,
                 'normal': self.normal, 'normal-bytes': self.normal * PAGE,
                 'dirty-pages-rate': int(self.rate / PAGE),
                 'mbps': self.bandwidth * 8 / 1e6, 'page-size': PAGE,
                 'dirty-sync-count': self.count, 'postcopy-requests': 0,
                 'pages-per-second': self.bandwidth // PAGE,
                 'multifd-bytes': 0, 'precopy-bytes': self.sent,
                 'downtime-bytes': 0, 'postcopy-bytes': 0}
        told = {'status': status, 'setup-time': 12,
                'total-time': int(self.elapsed * 1000), 'ram': pages,
                **self.extra}
        if status == 'completed':
            told['downtime'] = 34
        else:
            told['expected-downtime'] = 300 if self.count < 2 else 240
        if self.progress:
            told['progress'] = {**PROGRESS,
                                'percent': min(99, int(self.elapsed * 8))}
            if status == 'completed':
                told['progress'] |= {'percent': 100, 'downtime': DOWNTIME,
                                     'phase': 'over'}
                del told['progress']['eta']
        return told

    def sample(self, status: str, guest: str = 'running') -> dict:
        return {'t': self.t, 'migrate': self.reply(status), 'status': guest,
                'params': PARAMS, 'caps': {'xbzrle': False, 'events': True}}

    def advance(self) -> None:
        """Send for one step."""
        self.t += self.step
        self.elapsed += self.step
        budget = int(self.bandwidth * self.step
                     * (0.9 + 0.2 * self.random.random()))
        sent = min(budget, self.remaining)
        blank = min(self.zero_left, self.remaining - sent, 8 * budget)
        self.zero_left -= blank
        self.remaining -= sent + blank
        self.normal += sent // PAGE
        self.duplicate += blank // PAGE
        self.sent += sent + blank // PAGE * 9

    def samples(self) -> Iterator[dict]:
        yield {'t': self.t, 'migrate': {'status': 'setup'}, 'params': PARAMS}
        began = self.elapsed
        while True:
            self.advance()
            if self.remaining == 0:
                took, began = self.elapsed - began, self.elapsed
                fresh = min(int(self.dirty * took), self.total // 2)
                self.rate = fresh / max(took, 1.0)
                self.count += 1
                if fresh < self.bandwidth * 0.3 or \
                        self.count > self.max_passes:
                    break
                self.remaining = fresh // PAGE * PAGE
            yield self.sample('active')
        self.t += 0.05
        self.elapsed += 0.05
        yield self.sample('device', 'finish-migrate')
        self.t += 0.05
        if self.end == 'completed':
            self.elapsed += 0.05
            yield self.sample('completed', 'postmigrate')
        else:
            yield {'t': self.t, 'status': 'running', 'migrate': {
                'status': self.end, 'error-desc': 'Broken pipe'}}


def tell(**how) -> list[dict]:
    return list(Story(**how).samples())
