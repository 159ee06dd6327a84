# Which file of migration/ uses which, and what may be.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which file of migration/ uses which, and what may be.

Two things are put side by side: the table in migration/README.md, which says
what a folder may use, and the symbols of the built objects, which say what it
does use.  Of an object each global symbol that another file of migration/
defines counts, function or variable, in whatever header it is declared; a
call through a pointer, which is how a lower folder may reach a higher one,
does not.

The files that are carried from the base stand in a folder of their own,
"carried".  They are counted, but are free to use and to be used: their calls
are not ours to change.
"""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'base')]

import c_names                                              # noqa: E402
from manifest import Overlay, read_overlay                  # noqa: E402

# What is found today.  The aims are 0, 3 and 0; until then these numbers are
# what holds the line, so they are only ever lowered: a change that raises one
# is what the check is there to refuse.
MAX_UPWARD = 0          # arrows that the table does not allow
MAX_CIRCLE = 3          # files in the largest circle
MAX_DUPLICATES = 0      # names of statics that another file defines too

AIM_CIRCLE = 3

README = 'migration/README.md'
CARRIED = 'carried'
SOURCES = ('.c', '.h', '.inc', '.def')

Finding = tuple[str, int, str]


class TableError(Exception):
    """The table cannot be read; the message is one line."""

    def __init__(self, line: int, what: str):
        super().__init__(f'{README}:{line}: {what}')
        self.line = line
        self.what = what


@dataclass
class Table:
    """The table of rooms: who may use whom."""
    may: dict[str, set[str]]
    everybody: set[str]

    def allows(self, user: str, used: str) -> bool:
        return used == user or used in self.everybody \
            or used in self.may.get(user, set())


class Row(NamedTuple):
    """A row of the table, not yet understood."""
    room: str
    concern: str
    may: str
    line: int


def table_rows(text: str) -> list[Row]:
    """The rows of the table whose columns are room, concern, may include."""
    rows: list[Row] = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip('|').split('|')]
        if cells == ['room', 'concern', 'may include']:
            inside = True
        elif inside and not line.startswith('|'):
            break
        elif inside and not set(''.join(cells)) <= {'-', ':'}:
            room = re.fullmatch(r'`(\w+)/`', cells[0])
            if not room or len(cells) != 3:
                raise TableError(number, 'cannot read this row of the table')
            rows.append(Row(room.group(1), cells[1], cells[2], number))
    if not rows:
        raise TableError(1, 'no table "room, concern, may include"')
    return rows


def rooms_named(words: str, row: Row, rooms: list[str]) -> set[str]:
    """The rooms of a list such as `wire/`, `ram/`."""
    named = set()
    for word in words.split(','):
        match = re.fullmatch(r'`(\w+)/`', word.strip())
        if not match or match.group(1) not in rooms:
            raise TableError(row.line, f'cannot read "{row.may}": neither '
                             '"nothing else of ours", "all below", "all below '
                             'but" some, nor a list of rooms')
        named.add(match.group(1))
    return named


def parse_table(text: str) -> Table:
    """Understand the table; "all below" are the rows that follow."""
    rows = table_rows(text)
    rooms = [row.room for row in rows]
    may: dict[str, set[str]] = {}
    for number, row in enumerate(rows):
        below = set(rooms[number + 1:])
        if row.room in may:
            raise TableError(row.line, f'{row.room}/ stands there twice')
        if row.may == 'nothing else of ours':
            may[row.room] = set()
        elif row.may == 'all below':
            may[row.room] = below
        elif row.may.startswith('all below but '):
            words = row.may.removeprefix('all below but ')
            may[row.room] = below - rooms_named(words, row, rooms)
        else:
            may[row.room] = rooms_named(row.may, row, rooms)
    return Table(may, {row.room for row in rows
                       if 'used by everyone' in row.concern})


def read_table(root: Path) -> Table:
    return parse_table((root / README).read_text())


def room_of(file: str) -> str:
    """The folder of a file of migration/."""
    parts = file.split('/')
    return parts[1] if len(parts) > 2 else CARRIED


class Arrow(NamedTuple):
    """One file uses a symbol that another one defines."""
    user: str
    used: str
    symbol: str

    def __str__(self) -> str:
        return f'{short(self.user)} -> {short(self.used)}: {self.symbol}'


def short(file: str) -> str:
    return file.removeprefix('migration/')


@dataclass
class Objects:
    """Which objects there are, and how they agree with the files."""
    paths: dict[str, list[str]]     # file -> objects, seen from the build
    missing: list[str]              # files that have none
    older: list[str]                # files that have changed since
    gone: list[str]                 # names of files that are no more

    def notices(self) -> Iterator[str]:
        for files, what in (
                (self.missing, 'not been built'),
                (self.older, 'changed since the last build'),
                (self.gone, 'been removed or moved since the last build')):
            if files:
                more = f' and {len(files) - 3} more' if files[3:] else ''
                yield (f'{", ".join(files[:3])}{more} '
                       f'{"have" if files[1:] else "has"} {what}: what the '
                       'objects say is not up to date; run "make ferry"')


def repository_name(name: str, overlay: Overlay, root: Path) -> str | None:
    """The name here of a file of the assembled tree; None: there is none."""
    if name in overlay.links:
        return str(overlay.links[name].relative_to(root))
    return name if name in overlay.keep else None


def find_objects(root: Path, build: Path, commands: list[dict]) -> Objects:
    """Map the compiled files of migration/ to their objects.

    The unit tests compile some of the files a second time, for themselves;
    the emulator's objects are the ones that count.  A file that they alone have
    compiled belongs to an emulator that is configured in another way, and so
    does one whose name ends with none.c: it stands for what is switched off.
    """
    overlay = read_overlay(root)
    paths: dict[str, list[str]] = defaultdict(list)
    older, gone, elsewhere = set(), set(), set()
    for command in commands:
        at = os.path.join(command['directory'], command['file'])
        name = os.path.relpath(os.path.normpath(at),
                               os.path.dirname(command['directory']))
        if not name.startswith('migration/'):
            continue
        file = repository_name(name, overlay, root)
        if command['output'].startswith('tests/'):
            elsewhere.add(file)
        elif file is None:
            gone.add(name)
        elif (build / command['output']).is_file():
            paths[file].append(command['output'])
            source = root / file
            if source.is_file() and source.stat().st_mtime > \
                    (build / command['output']).stat().st_mtime:
                older.add(file)
    ours = {str(path.relative_to(root)) for path in overlay.links.values()}
    missing = {file for file in ours if file.startswith('migration/')
               and file.endswith('.c') and not file.endswith('none.c')
               } - set(paths) - elsewhere
    return Objects(dict(paths), sorted(missing), sorted(older), sorted(gone))


@dataclass
class Symbols:
    """What each file defines and uses, of global symbols."""
    defined: dict[str, set[str]] = field(
        default_factory=lambda: defaultdict(set))       # symbol -> files
    used: dict[str, set[str]] = field(
        default_factory=lambda: defaultdict(set))       # file -> symbols

    def arrows(self) -> list[Arrow]:
        return sorted(Arrow(user, used, symbol)
                      for user, symbols in self.used.items()
                      for symbol in symbols
                      for used in self.defined.get(symbol, ())
                      if used != user)


def parse_symbols(output: str, file_of: dict[str, str]) -> Symbols:
    """Read what "nm -A -P" prints: OBJECT: SYMBOL KIND [VALUE [SIZE]].

    A small letter is a local symbol, but for w and v: weak ones that are used
    and not defined.
    """
    symbols = Symbols()
    for line in output.splitlines():
        place, _, rest = line.partition(': ')
        words = rest.split()
        if len(words) < 2 or place not in file_of:
            continue
        symbol, kind = words[:2]
        if kind in 'Uwv':
            symbols.used[file_of[place]].add(symbol)
        elif kind.isupper():
            symbols.defined[symbol].add(file_of[place])
    return symbols


def read_symbols(build: Path, paths: dict[str, list[str]]) -> Symbols:
    file_of = {path: file for file, many in paths.items() for path in many}
    run = subprocess.run(['nm', '-A', '-P', *sorted(file_of)], cwd=build,
                         capture_output=True, text=True, check=True)
    return parse_symbols(run.stdout, file_of)


def upward(arrows: list[Arrow], table: Table) -> list[Arrow]:
    """The arrows that the table does not allow."""
    def allowed(arrow: Arrow) -> bool:
        user, used = room_of(arrow.user), room_of(arrow.used)
        return CARRIED in (user, used) or table.allows(user, used)
    return [arrow for arrow in arrows if not allowed(arrow)]


def circles(arrows: list[Arrow]) -> list[list[str]]:
    """Sets of files that all reach each other, the largest one first.

    These are the strongly connected components by Tarjan's method: a file is
    the first of its component when nothing that it reaches leads to a file
    that was entered earlier and is not assigned yet.
    """
    nexts: dict[str, set[str]] = defaultdict(set)
    for arrow in arrows:
        if CARRIED not in (room_of(arrow.user), room_of(arrow.used)):
            nexts[arrow.user].add(arrow.used)
    entered: dict[str, int] = {}
    lowest: dict[str, int] = {}
    waiting: list[str] = []
    found: list[list[str]] = []

    def enter(file: str) -> None:
        entered[file] = lowest[file] = len(entered)
        waiting.append(file)
        for other in sorted(nexts.get(file, ())):
            if other not in entered:
                enter(other)
                lowest[file] = min(lowest[file], lowest[other])
            elif other in waiting:
                lowest[file] = min(lowest[file], entered[other])
        if lowest[file] == entered[file]:
            start = waiting.index(file)
            if len(waiting) - start > 1:
                found.append(sorted(waiting[start:]))
            del waiting[start:]

    for file in sorted(nexts):
        if file not in entered:
            enter(file)
    return sorted(found, key=lambda files: (-len(files), files))


def within(arrows: list[Arrow], files: list[str]) -> dict[tuple[str, str],
                                                          list[str]]:
    """The arrows between these files: (user, used) -> symbols."""
    result: dict[tuple[str, str], list[str]] = defaultdict(list)
    for arrow in arrows:
        if arrow.user in files and arrow.used in files:
            result[arrow.user, arrow.used].append(arrow.symbol)
    return dict(result)


def sources(root: Path) -> list[str]:
    """Our files of migration/, by their names in the repository."""
    return sorted(str(path.relative_to(root))
                  for path in (root / 'migration').glob('*/*')
                  if path.suffix in SOURCES)


def listed_files(meson: str) -> dict[str, set[str]]:
    """The files of each list of migration/meson.build, by the list's name."""
    meson = re.sub(r'#.*', '', meson)
    lists: dict[str, set[str]] = defaultdict(set)
    for name, files in re.findall(r'\b(\w+_files)\s*\+?=\s*files\(([^)]*)\)',
                                  meson):
        lists[name] |= {'migration/' + file
                        for file in re.findall(r"'([^']+)'", files)}
    return lists


def tested_files(meson: str) -> set[str]:
    """The files of migration/ that a unit test's meson.build names, whole or
    as 'PLACE' + NAME + 'END' in a loop over names."""
    meson = re.sub(r'#.*', '', meson)
    found = set(re.findall(r"'(?:\.\./)+(migration/[^']+\.c)'", meson))
    for name, values, body in re.findall(
            r'foreach\s+(\w+)\s*:\s*\[([^]]*)\](.*?)endforeach', meson, re.S):
        for place, end in re.findall(
                r"'(?:\.\./)+(migration/[^']*)'\s*\+\s*" + name
                + r"\s*\+\s*'([^']*)'", body):
            found |= {place + value + end
                      for value in re.findall(r"'([^']+)'", values)}
    return found


def linkable(root: Path) -> set[str]:
    """The .c files that a unit test links: those of libmigration, which all
    of them do, of the lists that their meson.build names, and single ones."""
    lists = listed_files((root / 'migration/meson.build').read_text())
    tests = root / 'tests/unit/migration/meson.build'
    meson = re.sub(r'#.*', '', tests.read_text()) if tests.exists() else ''
    return tested_files(meson).union(
        *(files for name, files in lists.items()
          if name == 'migration_files' or re.search(rf'\b{name}\b', meson)))


class Lines(NamedTuple):
    """Of a folder, or of all of migration/."""
    files: int
    all: int            # of .c and of headers
    code: int           # of .c
    linkable: int       # of .c that a unit test links

    def share(self) -> float:
        return 100 * self.linkable / self.code if self.code else 0


def count_lines(root: Path) -> dict[str, Lines]:
    """Lines by folder; '' is the whole."""
    tested = linkable(root)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for file in sources(root):
        lines = (root / file).read_bytes().count(b'\n')
        code = file.endswith('.c')
        for room in ('', room_of(file)):
            add = (1, lines, lines * code, lines * (code and file in tested))
            counts[room] = [a + b for a, b in zip(counts[room], add)]
    return {room: Lines(*four) for room, four in sorted(counts.items())}


@dataclass
class Measured:
    """What was found; without objects there are no arrows."""
    arrows: list[Arrow]
    upward: list[Arrow]
    circles: list[list[str]]
    duplicates: list[c_names.Duplicate]
    notices: list[str]
    unbuilt: str = ''       # why there are no arrows

    def largest(self) -> list[str]:
        return self.circles[0] if self.circles else []


def read_arrows(root: Path, build: Path) -> tuple[list[Arrow], list[str], str]:
    """The arrows, notices, and why there are none."""
    try:
        commands = json.loads((build / 'compile_commands.json').read_text())
    except FileNotFoundError:
        return [], [], f'nothing is built in {build}'
    objects = find_objects(root, build, commands)
    if not objects.paths:
        return [], [], f'there are no objects of migration/ in {build}'
    try:
        symbols = read_symbols(build, objects.paths)
    except FileNotFoundError:
        return [], [], 'there is no nm; it is in the package binutils'
    return symbols.arrows(), list(objects.notices()), ''


def measure(root: Path, build: Path) -> Measured:
    """Look at the files below root and the objects below build, which is the
    folder that ninja works in."""
    arrows, notices, unbuilt = read_arrows(root, build)
    return Measured(arrows, upward(arrows, read_table(root)), circles(arrows),
                    c_names.duplicates(root, sources(root)), notices, unbuilt)


class Verdict(NamedTuple):
    """What a check says."""
    title: str
    findings: list[Finding]
    skip: str = ''
    hint: str = ''


def line_of(root: Path, file: str, word: str) -> int:
    """Where a file first names this; 1 if a header does it for the file."""
    found = re.compile(rf'\b{re.escape(word)}\b')
    for number, line in enumerate((root / file).read_text().splitlines(), 1):
        if found.search(line):
            return number
    return 1


def judge(title: str, count: int, most: int, limit: str, what: str,
          findings: list[Finding]) -> Verdict:
    """Hold a count against its maximum."""
    if count > most:
        return Verdict(title, [(README, 1, f'{count} {what}, at most {most} '
                                f'({limit} in scripts/direction.py)'),
                               *findings])
    return Verdict(title, [], '', f'{count} {what}: {limit} in '
                   f'scripts/direction.py can be lowered from {most}'
                   if count < most else '')


def verdicts(root: Path, found: Measured) -> list[Verdict]:
    """The three checks."""
    rising = [(a.user, line_of(root, a.user, a.symbol), str(a))
              for a in found.upward]
    around = [(user, line_of(root, user, symbols[0]),
               f'{short(user)} -> {short(used)}: {", ".join(symbols)}')
              for (user, used), symbols
              in within(found.arrows, found.largest()).items()]
    twice = [(file, line, f'{d.name} is also in ' + ', '.join(
                 short(other) for other, _ in d.where if other != file))
             for d in found.duplicates for file, line in d.where]
    circle = len(found.largest())
    result = [
        judge('direction', len(found.upward), MAX_UPWARD, 'MAX_UPWARD',
              'uses that the table of rooms does not allow', rising),
        judge('circles', circle if circle > AIM_CIRCLE else AIM_CIRCLE,
              MAX_CIRCLE, 'MAX_CIRCLE', 'files use each other in a circle',
              around)]
    if found.unbuilt:
        result = [Verdict(v.title, [], found.unbuilt) for v in result]
    elif found.notices:
        # objects that are missing make a figure look better than it is
        result = [v._replace(hint='') for v in result]
    return result + [
        judge('duplicates', len(found.duplicates), MAX_DUPLICATES,
              'MAX_DUPLICATES', 'names of statics are defined in another '
              'file as well', twice)]
