# A suite of tests: its cases, its flags, and how they are run.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A suite of tests: its cases, its flags, and how they are run.

A runner, such as tests/disks/run, names its cases; the rest is here:

    def cases(options: Options) -> list[Case]: ...

    if __name__ == '__main__':
        Suite('disks', __doc__, cases, limit=40).start()

Cases.  Case.run gets a new temporary folder, or the suite's lab, and returns
what it measured, a text, or nothing.  It fails by FerryError; any other
exception is a mistake in the test and fails it with a traceback.  It is skipped
by Skip, also when a QEMU cannot do what the case needs (ferrytest.abilities).
cases() may be a generator: it is asked for a case when the one before is done,
and what it does after the last one is done before the end of the output.

Labs.  A lab, made of the temporary folder, is what cases share or, unless
SHARED, what each has for itself.  It is tidied after a case that went well and
cleared after one that failed and at the end, whatever happens.  Logs that it
has elsewhere are brought into the folder by save_logs().

Time.  A case that takes longer than its limit fails, by SIGALRM in the main
thread; --patience multiplies all limits.

Output is TAP, with the plan at the end.  Comments after a point say how long it
took and what it measured, or why it failed and where logs are: those of the
folder are copied to build/check/logs/SUITE/CASE.  Exit status: 0, all passed or
were skipped; 1, some failed, or there was nothing to run; 77, the suite cannot
run here, for a reason that is printed; 130, interrupted.

Flags are the same for all suites, see tests/README.md.  --ours has another QEMU
stand for 'ferry' wherever it is named, in child processes as well.  With --jobs
cases run side by side (ferrytest.lanes), each in a lane with a lab of its own.

A suite whose cases are not known one by one, such as a program of the base with
tests in it, derives from Suite and overrides run() and names().
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

from ferry import paths
from ferry.errors import FerryError, one_line, run_main

from . import abilities, findings, lanes
from .abilities import Skip

SKIPPED = 77            # exit status of a suite that cannot run here
SHOWN = 900             # characters of a comment, unless --verbose
LINES = 40              # comments of a case
Options = argparse.Namespace


class Failed(FerryError):
    """A case that failed, with more to say about it than one line."""

    def __init__(self, why: str, notes: Iterable[str] = ()) -> None:
        super().__init__(why)
        self.notes = list(notes)


@dataclass(frozen=True)
class Case:
    """One case: its name, what it does, and what it cannot do without."""
    name: str
    run: Callable[[Any], object]
    quick: bool = False                 # with --quick as well
    kinds: tuple[str, ...] = ('ferry',)     # QEMUs that must have
    needs: tuple[str, ...] = ()             # these; see ferrytest.abilities
    full: bool = False                  # only with --full, or when named
    alone: bool = False                 # measures time: nothing beside it
    what: str = ''                      # in a few words, for people
    limit: float = 0                    # s; 0: that of the suite
    begins: str = ''                    # the Lab.where() that it starts from


@dataclass
class Verdict:
    """What became of a case."""
    name: str
    ok: bool
    skip: str = ''                      # why it was not run, or ''
    notes: list[str] = field(default_factory=list)
    seconds: float = 0
    where: str = ''                     # Lab.where() after it


class Lab:
    """Where cases run, if a folder is not enough."""

    def last_words(self) -> list[str]:
        """What is known of the machines, for a failure."""
        return []

    def save_logs(self) -> None:
        """Bring logs that are elsewhere into the folder."""

    def tidy(self) -> None:
        """After a case that went well or was skipped; it may fail the case."""
        self.clear()

    def clear(self) -> None:
        """End everything."""

    def where(self) -> str:
        """The state that the next case can go on from, if that matters."""
        return ''

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.clear()


class Report:
    """The points of a TAP stream, printed as they come."""

    def __init__(self, verbose: bool = False) -> None:
        self._shown, self._lines = ((sys.maxsize,) * 2 if verbose
                                    else (SHOWN, LINES))
        self._verbose = verbose
        self._began = time.monotonic()
        self.passed = self.failed = self.skipped = 0
        print('TAP version 13', flush=True)

    @property
    def number(self) -> int:
        """How many points there are."""
        return self.passed + self.failed + self.skipped

    def point(self, verdict: Verdict) -> bool:
        """Print one; whether it is good."""
        self.failed += not verdict.ok
        self.skipped += verdict.ok and bool(verdict.skip)
        self.passed += verdict.ok and not verdict.skip
        print(f'{"" if verdict.ok else "not "}ok {self.number} - '
              f'{verdict.name}'
              + (f' # SKIP {one_line(verdict.skip)}' if verdict.skip else ''))
        notes = verdict.notes[:self._lines]
        if len(notes) < len(verdict.notes):
            notes.append(f'and {len(verdict.notes) - len(notes)} more: '
                         '--verbose')
        took = f'{verdict.seconds:.1f} s'
        if not verdict.ok:
            notes.append(f'after {took}')
        elif notes:
            notes[0] = f'{took}: {notes[0]}'
        elif self._verbose and not verdict.skip:
            notes = [took]
        for note in notes:
            self.note(note)
        sys.stdout.flush()
        return verdict.ok

    def note(self, text: str) -> None:
        """Print a line for people."""
        print(f'# {one_line(text, self._shown)}', flush=True)

    def end(self) -> int:
        """Print the plan and the sum; the exit status."""
        print(f'1..{self.number}')
        self.note(f'{self.passed} passed, {self.failed} failed'
                  + (f', {self.skipped} skipped' if self.skipped else '')
                  + f' ({time.monotonic() - self._began:.0f} s)')
        return 1 if self.failed or not self.number else 0


def check(condition: object, claim: str) -> None:
    """Fail the case unless CONDITION."""
    if not condition:
        raise FerryError(f'not so: {claim}')


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise FerryError in what takes longer; 0 is no limit."""
    def too_late(_number: int, _frame: object) -> None:
        raise FerryError(f'not done after {seconds:g} s')
    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(name: str, act: Callable[[], object], limit: float = 0
            ) -> Verdict:
    """Have ACT done within LIMIT seconds; what became of it."""
    verdict = Verdict(name, True)
    start = time.monotonic()
    try:
        with time_limit(limit):
            said = act()
        if said:
            verdict.notes = [str(said)]
    except Skip as err:
        verdict.skip = str(err)
    except FerryError as err:
        verdict.ok = False
        verdict.notes = [str(err), *getattr(err, 'notes', ())]
    except Exception as err:            # a mistake in the test: say where
        verdict.ok = False
        verdict.notes = [f'{type(err).__name__}: {err}',
                         *traceback.format_exc().splitlines()]
    verdict.seconds = time.monotonic() - start
    return verdict


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether NAME matches or contains one of PATTERNS, or there is none."""
    patterns = list(patterns)
    return not patterns or any(fnmatch.fnmatchcase(name, pattern)
                               or pattern in name for pattern in patterns)


def keep_logs(folder: Path, suite: str, case: str,
              patterns: Iterable[str] = ('*.log',), since: float = 0
              ) -> Path | None:
    """Copy logs below FOLDER to the build directory; where they are now.

    None if there are none to which something was added SINCE that time.
    """
    kept = paths.BUILD / 'check' / 'logs' / suite / case.replace('/', '-')
    shutil.rmtree(kept, ignore_errors=True)
    found = [log for pattern in patterns for log in folder.rglob(pattern)
             if log.stat().st_size and log.stat().st_mtime >= since]
    for log in found:
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, kept / str(log.relative_to(folder)).replace('/', '-'))
    return kept if found else None


def named(functions: dict[str, Callable[[Any], object]]
          ) -> Callable[[Options], list[Case]]:
    """The cases of a suite that are functions, by name.

    What they are about is the first paragraph of their docstrings.
    """
    def about(function: Callable) -> str:
        doc = hasattr(function, '__code__') and function.__doc__ or ''
        return ' '.join(doc.partition('\n\n')[0].split()).rstrip('.')
    return lambda options: [Case(name, function, what=about(function))
                            for name, function in functions.items()]


class Place:
    """A temporary folder with a lab in it; what a case gets."""

    def __init__(self, suite: Suite, folder: Path) -> None:
        self.folder = folder
        self.lab = suite.lab(folder) if suite.lab else None
        self._suite = suite
        self._logs = findings.Reader(folder, suite.logs)

    def run(self, case: Case, options: Options) -> Verdict:
        """Run a case here."""
        began = time.time() - 0.1       # the clock of files ticks more slowly
        verdict = attempt(case.name + (f': {case.what}' if case.what else ''),
                          lambda: self._act(case),
                          (case.limit or self._suite.limit)
                          * options.patience)
        self._judge_logs(verdict)
        if not verdict.ok and self.lab is not None:
            verdict.notes += self.lab.last_words()
        if not verdict.ok or options.verbose:
            if self.lab is not None:
                self.lab.save_logs()
            kept = keep_logs(self.folder, self._suite.name, case.name,
                             self._suite.logs, began)
            verdict.notes += [f'logs: {kept}'] if kept else []
        if self.lab is not None:
            if not verdict.ok:
                self.lab.clear()
            verdict.where = self.lab.where()
        return verdict

    def _judge_logs(self, verdict: Verdict) -> None:
        """A case in which a sanitizer said something has failed."""
        said = self._logs.new() if self._suite.spotless else []
        if said:
            verdict.ok, verdict.skip = False, ''
            verdict.notes[:0] = said

    def _act(self, case: Case) -> object:
        try:
            abilities.require(case.kinds, case.needs)
            said = case.run(self.folder if self.lab is None else self.lab)
        except Skip:
            self._tidy()
            raise
        self._tidy()
        return said

    def _tidy(self) -> None:
        if self.lab is not None:
            self.lab.tidy()


class Suite:
    """A program that runs cases."""

    def __init__(self, name: str, doc: str,
                 cases: Callable[[Options], Iterable[Case]], *,
                 limit: float = 60,
                 lab: Callable[[Path], Lab] | None = None,
                 shared: bool = True,
                 kinds: tuple[str, ...] = paths.KINDS,
                 jobs: int = 1, tries: int = 1, count: int | None = None,
                 seed: int | None = None,
                 logs: tuple[str, ...] = ('*.log',), spotless: bool = True,
                 flags: Callable[[argparse.ArgumentParser], object]
                 | None = None,
                 check: Callable[[Options], None] | None = None) -> None:
        """DOC is the runner's docstring; LIMIT, in seconds, that of a case.

        KINDS are the QEMUs that must have been built if all is run.  JOBS is 0
        if cases need what others have done.  A case is tried TRIES times, where
        a busy machine may be at fault.  COUNT and SEED are the defaults of
        these flags, which there are only then.  LOGS are kept of a case that
        failed, and it fails with a word of a sanitizer in them, unless the
        suite is not SPOTLESS and judges that itself.  FLAGS adds flags of its
        own; CHECK looks whether it can run here, and raises Skip if not.
        """
        self.name, self.doc, self.cases = name, doc, cases
        self.limit, self.lab, self.shared = limit, lab, shared
        self.kinds, self.jobs, self.tries = kinds, jobs, tries
        self.count, self.seed = count, seed
        self.logs, self.spotless = logs, spotless
        self._flags, self._check = flags, check

    def start(self) -> None:
        """Run it as a whole program."""
        run_main(self.main)

    def main(self, argv: list[str]) -> int:
        """Do what the command line asks for; the exit status."""
        options = self.parse(argv)
        if options.ours != 'ferry':
            os.environ[paths.IN_PLACE] = str(paths.qemu(options.ours))
        findings.settings()
        if options.list:
            for name in self.names(options):
                print(name)
            return 0
        if options.lane:
            return self._lane(options)
        try:
            self.check(options)
        except Skip as err:
            if options.no_skip:
                raise FerryError(str(err)) from err
            print(f'1..0 # SKIP {one_line(str(err))}')
            return SKIPPED
        return self.run(options)

    # What a suite may override

    def check(self, options: Options) -> None:
        """Fail now if a QEMU is not built that will be used."""
        some = options.quick or options.case
        for kind in self.kinds:
            if kind == 'ferry' or not some:
                paths.qemu(kind)
        if self._check:
            self._check(options)

    def chosen(self, options: Options) -> Iterator[Case]:
        """The cases that the flags ask for."""
        for case in self.cases(options):
            if options.quick and not case.quick:
                continue
            if options.case and matches(case.name, options.case) or \
                    not options.case and (options.full or not case.full):
                yield case

    def names(self, options: Options) -> Iterator[str]:
        """What --list prints."""
        for case in self.chosen(options):
            yield (f'{case.name:40} {case.what}'.rstrip()
                   if options.verbose else case.name)

    def run(self, options: Options) -> int:
        """Run the chosen cases; the exit status."""
        cases = self.chosen(options)
        first = next(cases, None)
        if first is None:
            raise FerryError('no case matches: see --list')
        cases = itertools.chain([first], cases)
        report = self.report(options)
        if options.jobs > 1:
            every = list(cases)
            verdicts = (Verdict(**told) for told in lanes.side_by_side(
                every, min(options.jobs, len(every)), sys.argv))
        else:
            verdicts = self._one_by_one(cases, options)
        for verdict in verdicts:
            report.point(verdict)
        return report.end()

    @staticmethod
    def report(options: Options) -> Report:
        """What points are printed by; it has said what the seed is."""
        report = Report(options.verbose)
        if 'seed' in options:
            report.note(f'seed {options.seed}')
        return report

    # The command line

    def parse(self, argv: list[str]) -> Options:
        """Read the flags, which are the same for all suites."""
        parser = argparse.ArgumentParser(
            prog=os.path.relpath(sys.argv[0]), epilog='See tests/README.md.',
            description=self.doc.partition('\n\n')[0])
        add = parser.add_argument
        add('pattern', nargs='*', metavar='PATTERN',
            help='the same as --case PATTERN')
        add('--case', action='append', default=[], metavar='PATTERN',
            help='only cases whose name matches (shell pattern) or contains '
                 'it; may be repeated')
        add('--list', action='store_true', help='print the names of the cases')
        add('--quick', action='store_true', help='only the shortest cases')
        add('--full', action='store_true', help='all cases')
        add('--verbose', action='store_true',
            help='say more about each case, and keep the logs of all')
        add('--ours', default='ferry', metavar='QEMU',
            help='the QEMU under test: ferry, pristine or a path')
        add('--jobs', type=int, default=self.jobs or 1, metavar='N',
            help=f'cases at a time ({self.jobs or "always 1"})')
        add('--patience', type=float, default=1.0, metavar='FACTOR',
            help='multiplies time limits, for slow machines and sanitizers')
        add('--no-skip', action='store_true',
            help='fail if the suite cannot run here')
        add('--lane', action='store_true', help=argparse.SUPPRESS)
        if self.count is not None:
            add('--count', type=int, default=self.count, metavar='N',
                help=f'how often each case is repeated ({self.count})')
        if self.seed is not None:
            add('--seed', type=int, default=self.seed, metavar='N',
                help=f'of what is random ({self.seed})')
        if self._flags:
            self._flags(parser)
        options = parser.parse_args(argv)
        options.case += options.pattern
        if self.count is not None and options.count < 1:
            parser.error('--count must be at least 1')
        if options.jobs > 1 and not self.jobs:
            parser.error('cases of this suite need what others have done: '
                         '--jobs must be 1')
        return options

    # Running

    @contextmanager
    def _place(self) -> Iterator[Place]:
        with tempfile.TemporaryDirectory(
                prefix=f'ferry-{self.name}-') as folder:
            place = Place(self, Path(folder))
            with place.lab or Lab():
                yield place

    def _apart(self, case: Case, options: Options) -> Verdict:
        """Run a case in a place of its own, more than once if need be."""
        before: list[str] = []
        for number in range(1, self.tries + 1):
            with self._place() as place:
                verdict = place.run(case, options)
            if verdict.ok or number == self.tries:
                break
            before.append(f'try {number}: {verdict.notes[0]}')
        verdict.notes += before
        return verdict

    def _one_by_one(self, cases: Iterable[Case], options: Options
                    ) -> Iterator[Verdict]:
        if not self.shared or self.lab is None:
            for case in cases:
                yield self._apart(case, options)
            return
        with self._place() as place:
            for case in cases:
                yield place.run(case, options)

    def _lane(self, options: Options) -> int:
        """Run what the parent names, and write verdicts to it."""
        known = {case.name: case for case in self.cases(options)}
        out, sys.stdout = sys.stdout, sys.stderr    # whatever a case prints
        asked = (known[line.strip()] for line in sys.stdin)
        for verdict in self._one_by_one(asked, options):
            lanes.write(verdict, out)
        return 0
