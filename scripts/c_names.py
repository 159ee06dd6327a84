# What a C file defines at file scope, by its text.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a C file defines at file scope, by its text.

The text is what counts and not the object, because a compiler inlines static
functions, splits them, and renames what is left.  The text is not
preprocessed: a name that a macro makes is not seen, and of "#if" both sides
are.  In QEMU's style a brace that closes in the first column ends whatever
was open, so that two sides that open the same brace do no harm.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Iterator, NamedTuple

TOKEN = re.compile(r'''
    (?P<skip> /\*.*?\*/ | //[^\n]*
            | ^[ \t]*\#(?: \\\n | /\*.*?\*/ | [^\n] )* )
  | (?P<text> "(?: \\. | [^"\\] )*" | '(?: \\. | [^'\\] )*' )
  | (?P<word> [A-Za-z_]\w* )
  | (?P<number> \d[\w.]* )
  | (?P<sign> \S )
''', re.X | re.S | re.M)
WORD = re.compile(r'[A-Za-z_]\w*')
CLOSES = {'(': ')', '[': ']', '{': '}'}

# What may stand behind a declarator and is not its name
ATTRIBUTE = re.compile(r'__attribute__|(?:G_GNUC|TSA|QEMU|GRAPH)_\w+')
# What makes a declaration no definition of a variable
NO_VARIABLE = {'typedef', 'extern'}


class Atom(NamedTuple):
    """A word, a sign, or a whole pair of brackets, whose kind is the opening
    one and whose text is what stands between."""
    kind: str
    text: str
    line: int


class Name(NamedTuple):
    """A definition at file scope."""
    name: str
    line: int
    static: bool


def declarations(text: str) -> Iterator[list[Atom]]:
    """The declarations at file scope, each as its atoms."""
    atoms: list[Atom] = []
    open_: list[str] = []
    inside: list[str] = []
    line, last, began = 1, 0, 1
    for match in TOKEN.finditer(text):
        line += text.count('\n', last, match.start())
        last = match.start()
        kind, token = match.lastgroup, match.group()
        if kind == 'skip':
            continue
        if token == '}' and text[last - 1:last] in ('', '\n'):
            del open_[1:]
        if kind == 'sign' and token in CLOSES:
            if not open_:
                inside, began = [], line
            else:
                inside.append(token)
            open_.append(token)
        elif kind == 'sign' and open_ and token in CLOSES.values():
            opened = open_.pop()
            if open_:
                inside.append(token)
                continue
            atoms.append(Atom(opened, ' '.join(inside), began))
            if is_function(atoms):
                yield atoms
                atoms = []
        elif open_:
            inside.append(token)
        elif token == ';':
            yield atoms
            atoms = []
        else:
            atoms.append(Atom('word' if kind == 'word' else token, token,
                              line))


def without_attributes(atoms: list[Atom]) -> list[Atom]:
    """Less the attributes at the end."""
    atoms = atoms[:]
    while len(atoms) > 1:
        if ATTRIBUTE.fullmatch(atoms[-1].text):
            atoms.pop()
        elif atoms[-1].kind == '(' and ATTRIBUTE.fullmatch(atoms[-2].text):
            del atoms[-2:]
        else:
            break
    return atoms


def is_function(atoms: list[Atom]) -> bool:
    """Whether this ends in the body of a function."""
    if atoms[-1].kind != '{' or any(a.kind == '=' for a in atoms):
        return False
    head = without_attributes(atoms[:-1])
    return bool(head) and head[-1].kind == '('


def declarator_name(atoms: list[Atom]) -> Atom | None:
    """The name in 'TYPE NAME(...)', 'TYPE NAME[...]', 'TYPE (*NAME)(...)'."""
    atoms = without_attributes(atoms)
    groups = []
    while atoms and atoms[-1].kind in ('(', '['):
        groups.append(atoms.pop())
    if len(groups) > 1 and groups[-1].text.startswith('*'):
        words = WORD.findall(re.split(r'[\[(]', groups[-1].text)[0])
        return groups[-1]._replace(text=words[-1]) if words else None
    if len(atoms) > 1 and atoms[-1].kind == 'word':
        return atoms[-1]
    return None


def declarators(atoms: list[Atom]) -> Iterator[list[Atom]]:
    """'TYPE A = 1, *B' as 'TYPE A' and 'TYPE *B', nearly."""
    part: list[Atom] = []
    value = False
    for atom in atoms:
        if atom.kind == ',':
            yield part
            part, value = atoms[:1], False
        elif atom.kind == '=':
            value = True
        elif not value:
            part.append(atom)
    yield part


def names(text: str) -> Iterator[Name]:
    """What is defined at file scope, and of statics also what is declared."""
    for atoms in declarations(text):
        words = [a.text if a.kind == 'word' else '' for a in atoms]
        static = 'static' in words
        if static:
            # a macro in front that has no semicolon is no part of this
            atoms = atoms[words.index('static'):]
        body = bool(atoms) and is_function(atoms)
        if body:
            found = [atoms[:-1]]
        elif static:
            found = list(declarators(atoms))
        elif NO_VARIABLE & set(words) or not is_variable(atoms):
            continue
        else:
            found = list(declarators(atoms))
        for part in found:
            name = declarator_name(part)
            if name:
                yield Name(name.text, name.line, static)


def is_variable(atoms: list[Atom]) -> bool:
    """Of what is not static: neither a prototype, nor a macro's call, nor a
    type alone."""
    end = without_attributes(next(declarators(atoms), []))
    if not end or end[-1].kind in ('(', '{'):
        return False
    tagged = end[0].text in ('struct', 'union', 'enum')
    return not (tagged and len(end) == 2)


class Duplicate(NamedTuple):
    """A name that several files define; where holds (file, line)."""
    name: str
    where: list[tuple[str, int]]


def duplicates(root: Path, files: list[str]) -> list[Duplicate]:
    """Names of statics that another one of the files defines as well.

    Of headers only statics are taken, which are inline functions.
    """
    where: dict[str, dict[str, int]] = defaultdict(dict)
    statics = set()
    for file in files:
        for name in names((root / file).read_text(errors='replace')):
            if name.static:
                statics.add(name.name)
            if name.static or file.endswith('.c'):
                where[name.name].setdefault(file, name.line)
    return [Duplicate(name, sorted(where[name].items()))
            for name in sorted(statics) if len(where[name]) > 1]
