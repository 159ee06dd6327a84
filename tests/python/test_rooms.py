# Tests of scripts/rooms: the table, the names, the objects and the graph.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/rooms: the table, the names, the objects and the graph."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from scripts import ROOT, run

sys.path.insert(0, str(ROOT / 'scripts'))

import c_names                                              # noqa: E402
import direction                                            # noqa: E402
from direction import Arrow, TableError, parse_table        # noqa: E402

TABLE = '''# A map

| room | concern | may include |
|---|---|---|
| `top/` | what is seen | all below |
| `left/` | one side | all below but `right/` |
| `right/` | the other side | `wire/` |
| `wire/` | the stream | nothing else of ours |
| `base/` | settings; used by everyone | nothing else of ours |

| thread | locks |
|---|---|
| main | none |
'''


def arrows(*pairs: str) -> list[Arrow]:
    """Arrows from 'a b' and the like, which stand for files of one room."""
    return [Arrow(f'migration/r/{p.split()[0]}.c',
                  f'migration/r/{p.split()[1]}.c', 'f') for p in pairs]


def letters(files: list[str]) -> str:
    return ''.join(Path(file).stem for file in files)


class TheTable(unittest.TestCase):
    """The table of rooms is read, and nothing is guessed."""

    def test_rows(self):
        table = parse_table(TABLE)
        self.assertEqual(table.may, {
            'top': {'left', 'right', 'wire', 'base'},
            'left': {'wire', 'base'},
            'right': {'wire'}, 'wire': set(), 'base': set()})
        self.assertEqual(table.everybody, {'base'})

    def test_what_is_allowed(self):
        table = parse_table(TABLE)
        for user, used, allowed in (
                ('top', 'left', True), ('left', 'top', False),
                ('left', 'right', False), ('right', 'wire', True),
                ('wire', 'base', True), ('base', 'wire', False),
                ('wire', 'wire', True), ('unknown', 'wire', False),
                ('top', 'unknown', False)):
            with self.subTest(user=user, used=used):
                self.assertEqual(table.allows(user, used), allowed)

    def test_what_cannot_be_read(self):
        for old, new, line in (
                ('all below but `right/`', 'the same, not `right/`', 6),
                ('| `wire/` |\n', '| `wire/` and `bas/` |\n', 7),
                ('| `wire/` |\n', '| `air/` |\n', 7),
                ('| `left/` |', '| left |', 6),
                ('| `left/` |', '| `top/` |', 6),
                ('may include', 'may do', 1)):
            with self.subTest(new), self.assertRaises(TableError) as caught:
                self.assertNotEqual(TABLE, TABLE.replace(old, new))
                parse_table(TABLE.replace(old, new))
            self.assertEqual(caught.exception.line, line)

    def test_ours(self):
        rooms = {path.name for path in (ROOT / 'migration').iterdir()
                 if path.is_dir()}
        self.assertEqual(set(direction.read_table(ROOT).may), rooms)


class Names(unittest.TestCase):
    """Which names a C file defines at file scope."""

    def check(self, text: str, *expected: str) -> None:
        """Statics as they are, others with a + in front."""
        self.assertEqual([('' if n.static else '+') + n.name
                          for n in c_names.names(text)], list(expected))

    def test_functions(self):
        self.check('static int a(int x)\n{\n    static int n;\n'
                   '    return x + n;\n}\n\nvoid b(void)\n{\n}\n', 'a', '+b')
        self.check('static bool coroutine_mixed_fn\na(QEMUFile *f)\n{\n}\n',
                   'a')
        self.check('static GPtrArray * GRAPH_RDLOCK\na(void)\n{\n}\n', 'a')

    def test_attributes(self):
        self.check('static void G_GNUC_PRINTF(2, 3)\na(int x, ...)\n{\n}\n',
                   'a')
        self.check('static void __attribute__((constructor)) a(void)\n{\n}\n',
                   'a')
        self.check('static void a(void) TSA_NO_TSA\n{\n}\n', 'a')
        self.check('static void a(void) __attribute__((unused));\n'
                   'static int b G_GNUC_UNUSED = 1;\n'
                   'static int N;\n', 'a', 'b', 'N')

    def test_variables(self):
        self.check('static int a, *b = &a, c[2] = { 1, 2 };\n', 'a', 'b', 'c')
        self.check('static struct {\n    int x;\n} a = {\n    .x = 1,\n};\n'
                   'static const char *const b[COUNT] = {\n    "};", ";",\n'
                   '};\nSource c;\n', 'a', 'b', '+c')
        self.check('static QTAILQ_HEAD(, Row) a = QTAILQ_HEAD_INITIALIZER(a);',
                   'a')
        self.check('static void (*a)(int), (*const b[2])(void);', 'a', 'b')
        self.check('static __thread bool a;\n', 'a')

    def test_what_defines_nothing(self):
        self.check('typedef struct A {\n    int x;\n} A;\nstruct B;\n'
                   'enum { C };\nstruct D {\n    int y;\n};\n'
                   'extern int e;\nint f(int);\nBUILD_BUG_ON(1);\n'
                   '#define STATIC \\\n    static int g;\n'
                   '/* static int h; */\n// static int i;\n')

    def test_macros_without_semicolon(self):
        self.check('type_init(set_up)\n\nstatic int a;\n'
                   'DECLARE(X, Y)\n\nvoid b(void)\n{\n}\n', 'a', '+b')

    def test_two_openings(self):
        self.check('static int a(void)\n{\n#ifdef X\n    if (x) {\n#else\n'
                   '    if (y) {\n#endif\n        z();\n    }\n}\n\n'
                   'static int b;\n', 'a', 'b')

    def test_lines(self):
        text = '/* one\n * two */\nstatic int a;\n\nstatic int\nb(void)\n{\n}\n'
        self.assertEqual([n.line for n in c_names.names(text)], [3, 6])


class Duplicates(unittest.TestCase):
    def find(self, **texts: str) -> list[tuple]:
        with tempfile.TemporaryDirectory() as folder:
            names = []
            for name, text in texts.items():
                names.append(name.replace('_', '.'))
                Path(folder, names[-1]).write_text(text)
            return [(d.name, *(f'{file}:{line}' for file, line in d.where))
                    for d in c_names.duplicates(Path(folder), names)]

    def test_between_files(self):
        self.assertEqual(
            self.find(a_c='static int once;\nstatic void f(void);\n'
                          'static void f(void)\n{\n}\n',
                      b_c='\nstatic int f;\nint g;\n', c_c='int g;\n'),
            [('f', 'a.c:2', 'b.c:2')])

    def test_with_what_is_global(self):
        self.assertEqual(
            self.find(a_c='static int f;\n', b_c='void f(void)\n{\n}\n',
                      c_h='extern int f;\n'), [('f', 'a.c:1', 'b.c:1')])

    def test_inline(self):
        self.assertEqual(
            self.find(a_c='static int f;\n',
                      b_h='static inline int f(void)\n{\n}\n'),
            [('f', 'a.c:1', 'b.h:1')])


class Graph(unittest.TestCase):
    """Arrows that point upward, and circles."""

    def test_no_circle(self):
        self.assertEqual(direction.circles(arrows('a b', 'b c', 'a c')), [])

    def test_circles(self):
        found = direction.circles(arrows(
            'a b', 'b c', 'c b', 'c d', 'd e', 'e f', 'f d', 'f g'))
        self.assertEqual([letters(files) for files in found], ['def', 'bc'])

    def test_circles_that_touch(self):
        found = direction.circles(arrows('a b', 'b a', 'b c', 'c b'))
        self.assertEqual([letters(files) for files in found], ['abc'])

    def test_a_long_chain(self):
        found = direction.circles(arrows(
            *(f'{n} {n + 1}' for n in range(300)), '300 0'))
        self.assertEqual([len(files) for files in found], [301])

    def test_carried_files_make_none(self):
        ours, theirs = 'migration/r/a.c', 'migration/vmstate.c'
        self.assertEqual(direction.circles([Arrow(ours, theirs, 'f'),
                                            Arrow(theirs, ours, 'g')]), [])

    def test_arrows_of_a_circle(self):
        pair = arrows('a b', 'b a', 'a c')
        pair.append(pair[0]._replace(symbol='g'))
        files = direction.circles(pair)[0]
        self.assertEqual(list(direction.within(pair, files).values()),
                         [['f', 'g'], ['f']])

    def test_upward(self):
        table = parse_table(TABLE)
        down = Arrow('migration/top/a.c', 'migration/wire/b.c', 'f')
        rising = Arrow('migration/wire/b.c', 'migration/top/a.c', 'g')
        carried = Arrow('migration/vmstate.c', 'migration/top/a.c', 'g')
        free = Arrow('migration/wire/b.c', 'migration/base/c.c', 'h')
        self.assertEqual(
            direction.upward([down, rising, carried, free], table), [rising])
        self.assertEqual(str(rising), 'wire/b.c -> top/a.c: g')


class Symbols(unittest.TestCase):
    def test_what_nm_prints(self):
        found = direction.parse_symbols(
            'a.o: start T 0 10\na.o: table D 0 8\na.o: hidden t 0 4\n'
            'a.o: note U         \na.o: maybe w         \n'
            'b.o: note B 0 4\nb.o: start U         \n'
            'b.o: hidden U         \n\nother.o: note T 0 4\n',
            {'a.o': 'a.c', 'b.o': 'b.c'})
        self.assertEqual(dict(found.defined),
                         {'start': {'a.c'}, 'table': {'a.c'}, 'note': {'b.c'}})
        self.assertEqual(found.arrows(), [Arrow('a.c', 'b.c', 'note'),
                                          Arrow('b.c', 'a.c', 'start')])


class Build(unittest.TestCase):
    """A repository and a build of a few files."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name, 'repo')
        self.build = Path(folder.name, 'tree', 'build')
        self.commands = []
        self.put(self.root / 'base/overlay',
                 'own migration/top\nown migration/wire\n'
                 'place migration/base/stub.c migration/not-yet.c\n'
                 'keep migration/vmstate.c\n')
        self.put(self.root / 'migration/README.md', TABLE)
        self.put(self.root / 'migration/meson.build', '')
        self.put(self.root / 'migration/top/a.c',
                 'int low(void);\nint high(void)\n{\n    return low();\n}\n')
        self.put(self.root / 'migration/wire/b.c',
                 'int high(void);\nstatic int twice;\nint low(void)\n{\n'
                 '    return high() + twice;\n}\n')
        self.put(self.root / 'migration/base/stub.c', 'static int twice;\n')

    @staticmethod
    def put(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def object(self, file: str, output: str, make: bool = True) -> None:
        """A line of compile_commands.json, and its object, one hour newer."""
        self.commands.append({'directory': str(self.build),
                              'file': f'../{file}', 'output': output})
        self.put(self.build / 'compile_commands.json',
                 json.dumps(self.commands))
        if make:
            self.put(self.build / output, '')
            self.age(self.build / output, -3600)

    @staticmethod
    def age(path: Path, seconds: float) -> None:
        when = path.stat().st_mtime - seconds
        os.utime(path, (when, when))

    def objects(self) -> direction.Objects:
        return direction.find_objects(self.root, self.build, self.commands)

    def test_files_of_objects(self):
        self.object('migration/top/a.c', 'lib.p/a.o')
        self.object('migration/top/a.c', 'tests/unit/test.p/a.o')
        self.object('migration/wire/b.c', 'lib.p/b.o')
        self.object('migration/not-yet.c', 'lib.p/stub.o')
        self.object('migration/vmstate.c', 'lib.p/vmstate.o')
        self.object('hw/migration.c', 'lib.p/hw.o')
        found = self.objects()
        self.assertEqual(found.paths, {
            'migration/top/a.c': ['lib.p/a.o'],
            'migration/wire/b.c': ['lib.p/b.o'],
            'migration/base/stub.c': ['lib.p/stub.o'],
            'migration/vmstate.c': ['lib.p/vmstate.o']})
        self.assertEqual(list(found.notices()), [])

    def test_stale_objects(self):
        self.object('migration/top/a.c', 'lib.p/a.o')
        self.object('migration/wire/b.c', 'lib.p/b.o', make=False)
        self.object('migration/top/old.c', 'lib.p/old.o')
        self.age(self.build / 'lib.p/a.o', 7200)
        found = self.objects()
        self.assertEqual(found.older, ['migration/top/a.c'])
        self.assertEqual(found.missing, ['migration/base/stub.c',
                                         'migration/wire/b.c'])
        self.assertEqual(found.gone, ['migration/top/old.c'])
        self.assertEqual(len(list(found.notices())), 3)

    def test_files_of_what_is_switched_off(self):
        """Nobody misses the object of one: another file was built for it."""
        off = self.root / 'migration' / 'top' / 'disks-none.c'
        off.write_text('')
        self.assertNotIn('migration/top/disks-none.c', self.objects().missing)

    def test_nothing_is_built(self):
        found = direction.measure(self.root, self.build)
        self.assertIn('nothing is built', found.unbuilt)
        verdicts = direction.verdicts(self.root, found)
        self.assertEqual([bool(v.skip) for v in verdicts],
                         [True, True, False])
        self.object('migration/top/a.c', 'lib.p/a.o', make=False)
        found = direction.measure(self.root, self.build)
        self.assertIn('no objects', found.unbuilt)

    @unittest.skipUnless(shutil.which('cc') and shutil.which('nm'),
                         'there is no compiler')
    def test_real_objects(self):
        for file, output in (('migration/top/a.c', 'lib.p/a.o'),
                             ('migration/wire/b.c', 'lib.p/b.o'),
                             ('migration/base/stub.c', 'lib.p/stub.o')):
            name = file.replace('base/stub', 'not-yet')
            self.object(name, output)
            subprocess.run(['cc', '-c', self.root / file,
                            '-o', self.build / output], check=True)
        found = direction.measure(self.root, self.build)
        self.assertEqual(list(map(str, found.upward)),
                         ['wire/b.c -> top/a.c: high'])
        self.assertEqual(found.circles,
                         [['migration/top/a.c', 'migration/wire/b.c']])
        self.assertEqual([d.name for d in found.duplicates], ['twice'])
        self.assertEqual((found.notices, found.unbuilt), ([], ''))

    def test_lines(self):
        self.put(self.root / 'migration/wire/b.h', '\n\n\n')
        self.put(self.root / 'migration/meson.build',
                 "migration_files = files(\n  'wire/b.c',   # a part\n)\n"
                 "# migration_files += files('top/a.c')\n"
                 "system_ss.add(files('top/a.c'))\n")
        lines = direction.count_lines(self.root)
        self.assertEqual(lines['wire'], (2, 9, 6, 6))
        self.assertEqual(lines[''], (4, 15, 12, 6))
        self.assertEqual(lines[''].share(), 50)


class Meson(unittest.TestCase):
    def test_listed_files(self):
        self.assertEqual(
            direction.listed_files(
                "migration_files = files('a/b.c', 'a/c.c')\n"
                "migration_files += files('d.c')    # files('x.c')\n"
                "other_files = files(\n  'e.c')\n"),
            {'migration_files': {'migration/a/b.c', 'migration/a/c.c',
                                 'migration/d.c'},
             'other_files': {'migration/e.c'}})

    def test_linkable(self):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            for place, text in (
                    ('migration', "migration_files = files('a.c')\n"
                     "side_files = files('b.c')\nno_files = files('c.c')\n"),
                    ('tests/unit/migration', "both = [side_files]\n"
                     "# no_files\none = ['../../../migration/d.c']\n")):
                (root / place).mkdir(parents=True)
                (root / place / 'meson.build').write_text(text)
            self.assertEqual(direction.linkable(root), {
                f'migration/{file}.c' for file in 'abd'})

    def test_tested_files(self):
        self.assertEqual(
            direction.tested_files(
                "list = []\nforeach name : ['x', 'y']\n"
                "  list += '../../../migration/t/' + name + '.c'\n"
                "endforeach\n"
                "tests = {\n  'test-a': ['../../../migration/a/b.c'],\n"
                "  'test-c': ['mock.c'],\n}\n"),
            {'migration/t/x.c', 'migration/t/y.c', 'migration/a/b.c'})


class Verdicts(unittest.TestCase):
    """A maximum is kept, and can be lowered."""

    def judge(self, count: int) -> direction.Verdict:
        return direction.judge('t', count, 5, 'MAX', 'things', [('f', 1, 'x')])

    def test_above(self):
        verdict = self.judge(6)
        self.assertEqual(len(verdict.findings), 2)
        self.assertIn('6 things, at most 5', verdict.findings[0][2])

    def test_at_and_below(self):
        self.assertEqual(self.judge(5), direction.Verdict('t', []))
        below = self.judge(2)
        self.assertEqual(below.findings, [])
        self.assertIn('can be lowered from 5', below.hint)

    def verdicts(self, **more) -> list[direction.Verdict]:
        found = direction.Measured(
            [], [], more.pop('circles', []), [], more.pop('notices', []))
        self.assertFalse(more)
        return direction.verdicts(ROOT, found)

    def test_small_circles_are_free(self):
        files = [['a', 'b', 'c']]
        self.assertEqual(self.verdicts(circles=files)[1].findings, [])
        many = [[str(n) for n in range(direction.MAX_CIRCLE + 1)]]
        self.assertTrue(self.verdicts(circles=many)[1].findings)

    def test_no_hints_by_stale_objects(self):
        hints = [v.hint for v in self.verdicts(notices=['stale'])[:2]]
        self.assertEqual(hints, ['', ''])


class Program(unittest.TestCase):
    """The program as it is called, without objects."""

    def call(self, *args: str) -> subprocess.CompletedProcess:
        with tempfile.TemporaryDirectory() as folder:
            return run([ROOT / 'scripts/rooms', '--build', folder, *args])

    def test_report(self):
        result = self.call()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn('nothing is built', result.stdout)
        self.assertIn('Lines (linkable', result.stdout)

    def test_json(self):
        result = json.loads(self.call('--json').stdout)
        self.assertEqual(result['upward'], [])
        self.assertIn('nothing is built', result['unbuilt'])
        self.assertGreater(result['lines']['all']['share'], 0)

    def test_check(self):
        result = self.call('--check', '--tap')
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertIn('ok 1 - direction # SKIP nothing is built',
                      result.stdout)
        self.assertIn('ok 3 - duplicates\n1..3\n', result.stdout)

    def test_usage(self):
        self.assertEqual(self.call('--tap').returncode, 2)


if __name__ == '__main__':
    unittest.main()
