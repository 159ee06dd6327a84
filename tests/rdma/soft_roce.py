# The cases of cases.py in a virtual machine that has RDMA.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases of cases.py in a virtual machine that has RDMA.

Linux has RoCE in software (rdma_rxe), as a module of Debian's ordinary kernel.
The machine boots that kernel with an initramfs of what the cases need: Python,
both QEMUs with their libraries, and `ip` and `rdma` of iproute2.  Its first
process is inside.py, which runs the cases and prints their results to the
serial line: those that matter most, or with --full all.  Nothing of the host is
seen from inside, and nothing is installed.

QEMU runs in QEMU, so it is slow; the machine needs 3 GiB.  The environment
variable FERRY_RDMA_CASES has parts of the names of cases, with commas, if not
all of them are to be run.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Iterator

from ferry import paths
from ferry.cpio import Archive
from ferry.errors import FerryError
from ferry.guest import NO_TIMER_CHECK
from ferry.kmodules import Modules
from ferrytest.abilities import Skip
from ferrytest.suite import Case, Options, check

HERE = Path(__file__).resolve().parent
OUT = paths.BUILD / 'check' / 'rdma'
KERNEL = 'linux-image-amd64'
MODULES = ['dummy', 'crc32_generic', 'rdma_ucm', 'rdma_rxe']
PROGRAMS = ('ip', 'rdma')
PROVIDER = 'librxe-rdmav'
PARAMETERS = 'migration/base/params.def'     # which the harness reads
WANTED = 'FERRY_RDMA_CASES'
MEMORY = 3072                   # MiB
BOOT = 120                      # s until the first process runs
LIMIT = 700                     # s for all cases together
RESULT = re.compile(r'^### (ok|not ok|skip) ([\w-]+) ([\d.]+) ?(.*)$')
UNUSED = ('test', 'idlelib', 'lib2to3', 'ensurepip', 'tkinter', 'turtledemo',
          '__pycache__', 'dist-packages', 'pydoc_data')


class Image:
    """An initramfs, to which files are added with what they need."""

    def __init__(self) -> None:
        self._archive = Archive()
        self._names: set[str] = set()

    def _parents(self, name: str) -> None:
        for parent in reversed(Path(name).parents):
            if str(parent) != '.' and str(parent) not in self._names:
                self._names.add(str(parent))
                self._archive.directory(str(parent))

    def add(self, name: str, data: bytes, mode: int = 0o755) -> None:
        """A file, with the folders above it."""
        name = name.lstrip('/')
        if name not in self._names:
            self._parents(name)
            self._names.add(name)
            self._archive.file(name, data, mode)

    def console(self) -> None:
        """What the first process writes to."""
        self._parents('dev/console')
        self._archive.char_device('dev/console', 5, 1)

    def folder(self, name: str) -> None:
        """An empty folder."""
        self._parents(f'{name}/x')

    def program(self, source: Path, name: str = '') -> None:
        """A program or library, with the libraries that it is linked to."""
        self.add(name or str(source), source.resolve().read_bytes())
        done = subprocess.run(['ldd', str(source)], capture_output=True,
                              text=True, check=False)
        for path in re.findall(r'(?:=> )?(/\S+) \(0x', done.stdout):
            self.add(path, Path(path).resolve().read_bytes())

    def tree(self, source: Path, name: str) -> None:
        """A folder of Python."""
        for file in sorted(source.rglob('*')):
            inside = file.relative_to(source)
            if file.is_file() and not set(UNUSED) & set(inside.parts):
                target = f'{name}/{inside}'
                if file.suffix == '.so':
                    self.program(file, target)
                elif file.suffix == '.py':
                    self.add(target, file.read_bytes())

    def write(self, target: Path) -> None:
        """The archive, as a file."""
        target.write_bytes(self._archive.finish())


def stripped(binary: Path) -> Path:
    """A copy without what only a debugger needs."""
    target = OUT / f'{binary.parent.name}-{binary.name}-stripped'
    if not target.exists() or \
            target.stat().st_mtime < binary.stat().st_mtime:
        subprocess.run(['strip', '-o', str(target), str(binary)], check=True)
    return target


def provider() -> tuple[Path, Path]:
    """The library for such devices, and the file that names it."""
    for folder in Path('/usr/lib').glob('*/libibverbs'):
        for library in folder.glob(f'{PROVIDER}*.so'):
            config = Path('/etc/libibverbs.d/rxe.driver')
            if config.is_file():
                return library, config
    raise Skip('the package ibverbs-providers is not installed')


def kernel() -> tuple[Path, list[bytes]]:
    """The kernel, and the modules in the order in which they are loaded."""
    done = subprocess.run([str(paths.ROOT / 'base' / 'fetch-deb'), KERNEL],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skip(f'the kernel with RDMA cannot be fetched: '
                   f'{done.stderr.strip()[-200:]}')
    tree = Path(done.stdout.strip())
    found = sorted(tree.glob('boot/vmlinuz-*'))
    check(bool(found), f'there is a kernel in {tree}')
    modules = Modules(tree)
    return found[-1], [modules.read(name) for name in
                       modules.in_order(MODULES)]


def firmware_files() -> Iterator[tuple[str, bytes]]:
    """What QEMU reads of its data, whatever machine it is."""
    for name in ('kvmvapic.bin',):
        for folder in ('/usr/share/qemu', '/usr/share/seabios'):
            file = Path(folder) / name
            if file.is_file():
                yield f'usr/share/qemu/{name}', file.read_bytes()
                break


def build(firmware: Path) -> tuple[Path, Path]:
    """The kernel and the initramfs."""
    image = Image()
    vmlinuz, modules = kernel()
    library, config = provider()
    for name in ('proc', 'sys', 'dev', 'tmp', 'run', 'build/check'):
        image.folder(name)
    image.console()
    for number, module in enumerate(modules):
        image.add(f'modules/{number:02}.ko', module)
    image.program(library)
    image.add(str(config), config.read_bytes())
    for name in PROGRAMS:
        found = shutil.which(name) or shutil.which(name, path='/sbin:/usr/sbin')
        if not found:
            raise Skip(f'there is no program {name} (package iproute2)')
        image.program(Path(found), f'bin/{name}')
    image.program(Path(sys.executable).resolve(), 'bin/python3')
    image.tree(Path(sysconfig.get_path('stdlib')),
               sysconfig.get_path('stdlib'))
    image.tree(paths.ROOT / 'python', 'ferry/python')
    image.tree(HERE, 'ferry/tests/rdma')
    image.add(f'ferry/{PARAMETERS}', (paths.ROOT / PARAMETERS).read_bytes())
    for kind in paths.KINDS:
        image.program(stripped(paths.qemu(kind)),
                      f'ferry/build/{kind}/qemu-system-x86_64')
    image.add('ferry/firmware.bin', firmware.read_bytes())
    for name, data in firmware_files():
        image.add(name, data)
    image.add('init', (HERE / 'inside.py').read_bytes())
    initramfs = OUT / 'initramfs'
    image.write(initramfs)
    return vmlinuz, initramfs


class Machine:
    """The virtual machine, and what it says."""

    def __init__(self, firmware: Path, cases: str) -> None:
        vmlinuz, initramfs = build(firmware)
        self.log: list[str] = []
        line = [str(paths.qemu('pristine')), '-accel', 'tcg,thread=multi',
                '-machine', 'q35', '-cpu', 'max', '-smp', '2',
                '-m', str(MEMORY), '-nodefaults', '-no-reboot',
                '-display', 'none', '-serial', 'stdio',
                '-kernel', str(vmlinuz), '-initrd', str(initramfs),
                '-append', 'console=ttyS0 quiet panic=-1 mitigations=off '
                           f'tsc=unstable {NO_TIMER_CHECK} cases={cases}']
        self._process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        self._rest = ''

    def lines(self, until: float) -> Iterator[str]:
        """What is said, until the machine ends or the time is over."""
        output = self._process.stdout.fileno()
        while select.select([output], [], [],
                            max(until - time.monotonic(), 0))[0]:
            data = os.read(output, 65536)
            if not data:
                return
            self._rest += data.decode(errors='replace')
            *whole, self._rest = self._rest.split('\n')
            for text in whole:
                self.log.append(text.strip())
                yield text.strip()
        raise FerryError('the machine takes too long')

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(10)


def all_cases(firmware: Path, options: Options) -> Iterator[Case]:
    """One case, which runs the others inside."""
    wanted = os.environ.get(WANTED) or ('all' if options.full else 'quick')

    def run(folder: Path) -> str:
        if not shutil.which('strip'):
            raise Skip('there is no program strip (package binutils)')
        machine = Machine(firmware, wanted)
        results: dict[str, tuple[str, str]] = {}
        try:
            for text in machine.lines(time.monotonic() + LIMIT):
                match = RESULT.match(text)
                if match:
                    results[match[2]] = (match[1], f'{match[3]} s {match[4]}')
        finally:
            (folder / 'console.log').write_text('\n'.join(machine.log) + '\n')
            machine.stop()
        check('### end' in machine.log,
              f'all cases were run inside: {machine.log[-5:]}')
        bad = [f'{name}: {said}' for name, (verdict, said) in results.items()
               if verdict == 'not ok']
        check(not bad, f'all cases pass inside: {"; ".join(bad)}')
        return '\n'.join(f'{name}: {said}'
                         for name, (_, said) in results.items())

    yield Case('soft-roce', run, quick=True, limit=BOOT + LIMIT,
               what='those that matter most, or all, with RoCE in software')
