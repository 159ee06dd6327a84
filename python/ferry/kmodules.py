# Kernel modules of the test guest, with all that they depend on.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel modules of the test guest, with all that they depend on.

usage: python3 -m ferry.kmodules TREE OUTPUT NAME...

TREE is an unpacked kernel package.  The modules are written to OUTPUT under
names that sort in the order in which they are to be loaded, uncompressed.  A
module that is built into the kernel is left out.
"""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

from .errors import FerryError, run_main

SUFFIXES = ('.ko', '.ko.xz')


def name_of(path: str) -> str | None:
    """The name of the module in this file: "virtio-rng.ko" is virtio_rng."""
    base = path.rsplit('/', 1)[-1]
    for suffix in SUFFIXES:
        if base.endswith(suffix):
            return base[:-len(suffix)].replace('-', '_')
    return None


class Modules:
    """The modules of one kernel."""

    def __init__(self, tree: Path) -> None:
        found = sorted(tree.glob('**/lib/modules/*/modules.builtin'))
        if not found:
            raise FerryError(f'there are no kernel modules in {tree}')
        self._folder = found[-1].parent
        self._builtin = {name_of(line) for line in
                         found[-1].read_text().splitlines()}
        self._files = {name_of(str(path)): path for path in
                       sorted((self._folder / 'kernel').glob('**/*.ko*'))}

    def needs(self, name: str) -> list[str]:
        """What the module itself says that it depends on."""
        for field in self.read(name).split(b'\0'):
            if field.startswith(b'depends='):
                words = field[len(b'depends='):].decode()
                return [w.replace('-', '_') for w in words.split(',') if w]
        return []

    def read(self, name: str) -> bytes:
        """The module, uncompressed."""
        path = self._files.get(name)
        if path is None:
            raise FerryError(f'the kernel has no module {name}')
        data = path.read_bytes()
        return lzma.decompress(data) if path.suffix == '.xz' else data

    def in_order(self, names: list[str]) -> list[str]:
        """These and all that they need, the needed ones first."""
        order: list[str] = []

        def add(name: str) -> None:
            if name in self._builtin or name in order:
                return
            for other in self.needs(name):
                add(other)
            order.append(name)
        for name in names:
            add(name)
        return order


def main(argv: list[str]) -> int:
    """Write the modules that the command line names."""
    if len(argv) < 3:
        raise FerryError('usage: python3 -m ferry.kmodules TREE OUTPUT NAME...')
    modules = Modules(Path(argv[0]))
    output = Path(argv[1])
    try:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        for number, name in enumerate(modules.in_order(argv[2:])):
            (output / f'{number:02}-{name}.ko').write_bytes(modules.read(name))
    except OSError as err:
        raise FerryError(f'cannot write {output}: {err.strerror}') from err
    return 0


if __name__ == '__main__':
    run_main(main)
