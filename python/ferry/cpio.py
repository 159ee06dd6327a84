# A writer of initramfs archives (cpio, "newc" format).
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A writer of initramfs archives (cpio, "newc" format).

usage: python3 -m ferry.cpio OUTPUT NAME=FILE...

The format is described in the kernel's documentation of the initramfs buffer:
each member is a header of 13 hexadecimal fields, its name and its data, the
last two padded to four bytes.  The archives are reproducible: no times, no
owners.  Device nodes are plain members, so nothing here needs root.
"""

from __future__ import annotations

import stat
from pathlib import Path

from .errors import FerryError, run_main

END = 'TRAILER!!!'


class Archive:
    """An archive in memory, ended and returned by finish()."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def _pad(self, data: bytes) -> bytes:
        return data + b'\0' * (-len(data) % 4)

    def _member(self, name: str, mode: int, data: bytes = b'',
                device: tuple[int, int] = (0, 0)) -> None:
        encoded = name.encode() + b'\0'
        self._inode += 1
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0,
                  device[0], device[1], len(encoded), 0)
        header = b'070701' + b''.join(b'%08X' % field for field in fields)
        self._parts += [self._pad(header + encoded), self._pad(data)]

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add the directory NAME (no leading slash)."""
        self._member(name, stat.S_IFDIR | mode)

    def file(self, name: str, data: bytes, mode: int = 0o755) -> None:
        """Add a file with the content DATA."""
        self._member(name, stat.S_IFREG | mode, data)

    def char_device(self, name: str, major: int, minor: int,
                    mode: int = 0o600) -> None:
        """Add a character device node."""
        self._member(name, stat.S_IFCHR | mode, device=(major, minor))

    def finish(self) -> bytes:
        """End the archive and return its bytes."""
        self._member(END, 0)
        return b''.join(self._parts)


def initramfs(files: dict[str, Path]) -> bytes:
    """The archive of the test guest: FILES, and a console for its init."""
    archive = Archive()
    folders = {name.rsplit('/', 1)[0] for name in files if '/' in name}
    for name in ('dev', 'proc', *sorted(folders - {'dev', 'proc'})):
        archive.directory(name)
    archive.char_device('dev/console', 5, 1)
    for name, path in files.items():
        try:
            archive.file(name, path.read_bytes())
        except OSError as err:
            raise FerryError(f'cannot read {path}: {err.strerror}') from err
    return archive.finish()


def main(argv: list[str]) -> int:
    """Write the archive that the command line describes."""
    if len(argv) < 2 or not all('=' in pair for pair in argv[1:]):
        raise FerryError('usage: python3 -m ferry.cpio OUTPUT NAME=FILE...')
    files = {name: Path(path) for name, path in
             (pair.split('=', 1) for pair in argv[1:])}
    output = Path(argv[0])
    data = initramfs(files)
    try:
        partial = output.with_name(output.name + '.partial')
        partial.write_bytes(data)
        partial.replace(output)
    except OSError as err:
        raise FerryError(f'cannot write {output}: {err.strerror}') from err
    return 0


if __name__ == '__main__':
    run_main(main)
