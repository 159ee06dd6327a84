# Reading base/overlay and base/patches.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading base/overlay and base/patches."""

from dataclasses import dataclass, field
from pathlib import Path

SOURCES = ('.c', '.h', '.inc', '.def', '.build', '.json', '.hx')
SOURCE_NAMES = ('trace-events', 'Kconfig')


class OverlayError(Exception):
    """Something a user can mend; the message is one line."""


@dataclass
class Overlay:
    """base/overlay, read."""
    links: dict[str, Path] = field(default_factory=dict)
    replaced: dict[str, list[str]] = field(default_factory=dict)
    keep: set[str] = field(default_factory=set)
    docs: dict[str, str] = field(default_factory=dict)


def is_source(path: Path) -> bool:
    return path.suffix in SOURCES or path.name in SOURCE_NAMES


def read_overlay(root: Path) -> Overlay:
    """Parse the manifest; every file it names must exist."""
    overlay = Overlay()
    manifest = root / 'base' / 'overlay'
    for number, line in enumerate(manifest.read_text().splitlines(), 1):
        words = line.split('#')[0].split()
        if not words:
            continue
        verb, args = words[0], words[1:]
        where = f'base/overlay line {number}'
        if verb == 'own' and len(args) == 1:
            if not (root / args[0]).is_dir():
                raise OverlayError(f'{where}: there is no folder {args[0]}')
            for path in sorted((root / args[0]).rglob('*')):
                if path.is_file() and is_source(path):
                    overlay.links[str(path.relative_to(root))] = path
        elif verb == 'place' and len(args) == 2:
            if not (root / args[0]).is_file():
                raise OverlayError(f'{where}: there is no file {args[0]}')
            overlay.links[args[1]] = root / args[0]
        elif verb == 'replace' and args:
            overlay.replaced[args[0]] = args[1:]
        elif verb == 'keep':
            overlay.keep.update(args)
        elif verb == 'docs' and len(args) == 2:
            overlay.docs[args[0]] = args[1]
        else:
            raise OverlayError(f'{where}: cannot read "{line.strip()}"')
    return overlay


def patches(root: Path) -> list[Path]:
    return sorted((root / 'base' / 'patches').glob('*.patch'))


def patched_names(patch: Path) -> list[str]:
    """The files a patch changes, without the a/ and b/ of the diff."""
    return [line.split()[1].split('/', 1)[1]
            for line in patch.read_text().splitlines()
            if line.startswith('+++ b/')]
