# What is measured: the cases of the benchmark.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured: the cases of the benchmark.

A case is one guest and one way to migrate it.  It is run with several pairs of
engines in turn; the first pair is the reference of all ratios.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field, replace
from typing import Any, Sequence

from ferry.errors import FerryError

GIB = 1024                      # in MiB, the unit of memory sizes here

# What one QEMU needs besides the RAM of its guest, MiB.
QEMU_MIB = 250

# A read of memory that was never touched maps the zero page: one page-table
# page for each 2 MiB.  So does the destination of an engine that reads before
# it decides not to write.
TABLE_SHARE = 512


@dataclass(frozen=True)
class Pair:
    """The engines at the two ends: 'ferry', 'pristine' or a path."""

    src: str
    dst: str
    hints: bool = False         # the guest's balloon tells what is free
    multifd: bool = False       # two channels, whatever the case has

    @property
    def name(self) -> str:
        """How the pair is called in options, tables and files."""
        engines = (self.src if self.src == self.dst
                   else f'{self.src}:{self.dst}')
        return (engines + (HINTS if self.hints else '')
                + (MULTIFD if self.multifd else ''))


HINTS = '+hints'
MULTIFD = '+multifd'


def pair(text: str) -> Pair:
    """Parse 'ENGINE' or 'SOURCE:DESTINATION'; '+hints', '+multifd' behind."""
    without = text.removesuffix(MULTIFD)
    engines = without.removesuffix(HINTS)
    src, colon, dst = engines.partition(':')
    if not src or (colon and not dst):
        raise FerryError(f"'{text}' is no pair of engines: give ENGINE or "
                         'SOURCE:DESTINATION, each ferry, pristine or a path')
    return Pair(src, dst or src, engines != without, without != text)


PRISTINE = Pair('pristine', 'pristine')
FERRY = Pair('ferry', 'ferry')
OUT = Pair('ferry', 'pristine')
IN = Pair('pristine', 'ferry')


@dataclass(frozen=True)
class Load:
    """What the Linux guest does."""

    fill: int           # MiB that hold data
    work: int           # MiB of those that it keeps writing to
    rate: int           # pages it changes per second
    stripes: int = 16   # words of 8 bytes that it changes in each
    timed: bool = False     # measure how long each access takes
    freed: int = 0      # MiB that it has filled and freed; it has a balloon


@dataclass(frozen=True)
class Target:
    """What a pair of engines should reach; see report.MEASURES."""

    pair: Pair
    what: str
    limit: float


@dataclass(frozen=True)
class Case:
    """One guest, and one way to migrate it."""

    name: str
    title: str
    mem: int                            # MiB
    memory: str                         # 'untouched', 'zero', 'random', 'linux'
    load: Load | None = None            # of the Linux guest; others are stopped
    pairs: Sequence[Pair] = (PRISTINE, FERRY)
    transport: str = 'tcp'
    caps: dict[str, bool] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    # Keep the migration going until so many pages were delta-encoded: the same
    # work for every engine.
    hold_pages: int = 0
    postcopy: bool = False              # switch at once, see postcopy.py
    bare: bool = False                  # measure bare sockets beside it, as many
    targets: Sequence[Target] = ()
    default: bool = True                # part of a run without --case
    quick: bool = False                 # part of --quick
    timeout: float = 120.0              # s, for the migration alone

    def caps_of(self, pair_: Pair) -> dict[str, bool]:
        """The capabilities with that pair of engines."""
        return {**self.caps, **({'multifd': True} if pair_.multifd else {})}

    def channels(self) -> int:
        """How many connections have memory."""
        return (self.params.get('multifd-channels', 2)
                if self.caps.get('multifd') else 1)

    def need_mib(self) -> int:
        """Most memory that is in use at once, MiB."""
        base = 2 * (QEMU_MIB + self.mem // TABLE_SHARE)
        if self.load:
            cache = self.params.get('xbzrle-cache-size', 0) >> 20
            return base + 2 * self.mem + cache
        return base + (0 if self.memory == 'untouched' else 2 * self.mem)

    def warm_mib(self) -> int:
        """Memory that the migration itself will ask the kernel for, MiB."""
        tables = 2 * self.mem // TABLE_SHARE
        if self.load:
            return tables + 2 * self.load.fill + 512
        return tables + 128 + (0 if self.memory == 'untouched' else self.mem)


def _idle(gib: int, **more: Any) -> Case:
    return Case(f'idle-{gib}g', f'idle guest, {gib} GiB never touched',
                gib * GIB, 'untouched', **more)


def _linux(name: str, rate: int, title: str, **more: Any) -> Case:
    return Case(f'linux-{name}', title, 2 * GIB, 'linux',
                load=Load(fill=128, work=64, rate=rate), **more)


def _faster(limit: float, engines: Pair = FERRY) -> Target:
    return Target(engines, 'time', limit)


_RANDOM = Case('random-3g', 'stopped guest, 3 GiB of random data, one TCP '
               'connection', 3 * GIB, 'random', bare=True, quick=True)

# The guest dirties its working set faster than the delta of it can be sent (see
# linux.Hold), so every pass encodes nearly all of it.
_XBZRLE = Case('linux-xbzrle', 'Linux guest changing 8 bytes a page, xbzrle, '
               '300,000 pages encoded', 2 * GIB, 'linux', default=False,
               load=Load(fill=80, work=64, rate=200000, stripes=1),
               caps={'xbzrle': True}, params={'xbzrle-cache-size': 512 << 20},
               hold_pages=300000,
               targets=(Target(FERRY, 'encode', 0.5),
                        Target(FERRY, 'encode-all', 0.5),
                        Target(FERRY, 'encoded-bytes', 1.0)))
# Everything is fetched after the switch, by a guest that accesses it at random.
# What it does in a second is far less than it could.
_POSTCOPY_TARGETS = (Target(FERRY, 'fault-p50', 0.5),
                     Target(FERRY, 'fault-p99', 0.5),
                     Target(FERRY, 'full-speed', 0.7), _faster(1.0))


def _postcopy(name: str, mib: int, preempt: bool) -> Case:
    return Case(f'postcopy-{name}' + ('-preempt' if preempt else ''),
                f'Linux guest accessing {mib} MiB at random, postcopy'
                + (', preempt' if preempt else ''), mib + 384, 'linux',
                load=Load(fill=mib, work=mib, rate=20000, timed=True),
                caps={'postcopy-ram': True, 'postcopy-preempt': preempt},
                pairs=(PRISTINE, FERRY, replace(FERRY, multifd=True)),
                postcopy=True, default=False, targets=_POSTCOPY_TARGETS)


_MIXED = (PRISTINE, OUT, IN, FERRY)

CASES: tuple[Case, ...] = (
    _idle(4, quick=True),
    _idle(16, quick=True, targets=[_faster(1 / 50)]),
    _idle(64),
    _idle(256),
    _idle(784, default=False, timeout=400.0, pairs=(PRISTINE, OUT, FERRY),
          targets=[_faster(1 / 400), _faster(0.5, OUT)]),
    Case('zero-3g', 'stopped guest, 3 GiB touched but zero', 3 * GIB, 'zero',
         quick=True, targets=[_faster(0.5)]),
    replace(_RANDOM, targets=(Target(FERRY, 'bare', 0.9),
                              Target(FERRY, 'cpu', 0.6))),
    replace(_RANDOM, name='random-3g-unix', transport='unix', default=False,
            quick=False,
            title='stopped guest, 3 GiB of random data, unix socket'),
    *(replace(_RANDOM, name=f'random-3g-multifd{channels}', default=False,
              quick=False, caps={'multifd': True},
              params={'multifd-channels': channels},
              targets=(_faster(1 / 1.15), Target(FERRY, 'cpu', 0.7)),
              title='stopped guest, 3 GiB of random data, multifd, '
              f'{channels} channels') for channels in (2, 4)),
    _linux('idle', 0, 'Linux guest, 2 GiB, 128 MiB filled, at rest'),
    _linux('slow', 1000, 'Linux guest changing 1,000 pages/s', quick=True),
    _linux('medium', 5000, 'Linux guest changing 5,000 pages/s',
           targets=[_faster(0.8)]),
    _linux('fast', 20000, 'Linux guest changing 20,000 pages/s',
           targets=[_faster(0.8)]),
    _linux('fast-multifd2', 20000, 'Linux guest changing 20,000 pages/s, '
           'multifd, 2 channels', default=False, caps={'multifd': True},
           params={'multifd-channels': 2},
           targets=[_faster(0.5), Target(FERRY, 'downtime', 0.5)]),
    _XBZRLE,
    *(_postcopy(name, mib, preempt) for name, mib in
      (('256m', 256), ('1g', GIB)) for preempt in (False, True)),
    Case('linux-freed', 'Linux guest at rest, 1 GiB touched, 800 MiB of it '
         'freed, 128 MiB/s', 1536, 'linux', default=False,
         load=Load(fill=128, work=32, rate=0, freed=800),
         params={'max-bandwidth': 128 << 20},
         pairs=(replace(PRISTINE, hints=True), FERRY,
                replace(FERRY, hints=True))),
    replace(_idle(16, pairs=_MIXED, targets=[_faster(0.5, OUT)]),
            name='mixed-idle-16g',
            title='idle guest, 16 GiB never touched, mixed engines'),
    replace(_RANDOM, name='mixed-random-3g', pairs=_MIXED, quick=False,
            title='stopped guest, 3 GiB of random data, mixed engines'),
)


def select(patterns: Sequence[str], quick: bool = False,
           targets: bool = False) -> list[Case]:
    """The cases that match any of PATTERNS (shell style), in their order.

    Without patterns: those of the default set, of the quick one, or those that
    have targets.
    """
    if not patterns:
        return [case for case in CASES
                if (case.targets if targets else
                    case.quick if quick else case.default)]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(case.name, pattern) for case in CASES):
            raise FerryError(f"no case matches '{pattern}': see --list")
    return [case for case in CASES
            if any(fnmatch.fnmatchcase(case.name, pattern)
                   for pattern in patterns)]
