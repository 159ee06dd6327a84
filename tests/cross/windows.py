# The files of migration/, compiled for Windows without being linked.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compile migration/ for Windows, as far as Debian allows.

Debian has a compiler for Windows, but not the libraries that QEMU needs there.
For the headers of GLib those of this machine serve, with a glibconfig.h of
Windows made from theirs, and QEMU's configuration is that of this machine
without what a POSIX or Linux host has.  So nothing can be linked, but a header
or function that Windows does not have is found.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from ferry.paths import BUILD

GCC = 'x86_64-w64-mingw32-gcc'
TREE = BUILD / 'tree' / 'ferry'
OUT = BUILD / 'cross' / 'windows'

# Types and names of GLib that are others there
GLIB = (
    (r'#define G_OS_UNIX', '#define G_OS_WIN32\n#define G_PLATFORM_WIN32'),
    (r'typedef signed long gssize', 'typedef signed long long gssize'),
    (r'typedef unsigned long gsize', 'typedef unsigned long long gsize'),
    (r'typedef signed long gint64', 'typedef signed long long gint64'),
    (r'typedef unsigned long guint64', 'typedef unsigned long long guint64'),
    (r'typedef signed long gintptr', 'typedef signed long long gintptr'),
    (r'typedef unsigned long guintptr',
     'typedef unsigned long long guintptr'),
    (r'typedef int GPid', 'typedef void * GPid'),
    (r'\((g?u?)long\)', r'(\1int64)'),
    (r'(#define G_G(?:U?INT64|S?SIZE|INTPTR|UINTPTR)_(?:FORMAT|MODIFIER)\s+)'
     r'"l', r'\1"ll'),
    (r'\(val##L\)', '(val##LL)'), (r'\(val##UL\)', '(val##ULL)'),
    (r'#define GLIB_SIZEOF_LONG\s+8', '#define GLIB_SIZEOF_LONG 4'),
    (r'#define G_POLLFD_FORMAT.*', '#define G_POLLFD_FORMAT "%#llx"'),
)

# What QEMU's configuration has of this machine
DROP = re.compile(r'#define (CONFIG_POSIX|CONFIG_LINUX\w*|CONFIG_KVM|HAVE_\w+|'
                  r'CONFIG_(?:EVENTFD|EPOLL\w*|SPLICE|PPOLL|PREADV|SENDFILE|'
                  r'MADVISE|POSIX_\w+|SYNCFS|SYNC_FILE_RANGE|TIMERFD|DUP3|'
                  r'FALLOCATE\w*|FDATASYNC|SIGNALFD|ACCEPT4|CLOCK_ADJTIME|'
                  r'GETRANDOM|INOTIFY\w*|IOVEC|CLOSE_RANGE|NUMA|RDMA|VHOST\w*|'
                  r'PTHREAD_\w+|SETNS|TASN1|GNUTLS\w*|RTNETLINK|OPEN_BY_HANDLE|'
                  r'MEMALIGN|VALLOC|MEMFD|USBFS|PRCTL\w*|BLKZONED|LIBATTR|'
                  r'ATTR|VIRTFS|SIGEV\w*|STRCHRNUL|BYTESWAP_H|BDRV_\w+|'
                  r'SECRET_KEYRING|KEYUTILS|AF_VSOCK|MALLOC_TRIM|'
                  r'GETAUXVAL|ELF_AUX_INFO|QATOMIC\w*|COROUTINE_POOL'
                  r'))\b.*')


def missing() -> str | None:
    """What has to be there first."""
    if not shutil.which(GCC):
        return f'there is no {GCC} (Debian package gcc-mingw-w64-x86-64)'
    if not (TREE / 'build' / 'compile_commands.json').exists():
        return 'the tree is not configured (make ferry)'
    return None


def prepare() -> None:
    """The headers that are made up."""
    flags = subprocess.run(['pkg-config', '--cflags-only-I', 'glib-2.0'],
                           capture_output=True, text=True, check=True).stdout
    config = next(path / 'glibconfig.h'
                  for path in map(Path, re.findall(r'-I(\S+)', flags))
                  if (path / 'glibconfig.h').exists())
    text = config.read_text()
    for pattern, new in GLIB:
        text = re.sub(pattern, new, text)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / 'glibconfig.h').write_text(text)
    text = (TREE / 'build' / 'config-host.h').read_text()
    (OUT / 'config-host.h').write_text(
        DROP.sub('', text) + '\n#define CONFIG_WIN32 1\n')
    target = 'x86_64-softmmu-config-target.h'
    text = (TREE / 'build' / target).read_text()
    (OUT / target).write_text(DROP.sub('', text))


def commands() -> list[tuple[str, list[str]]]:
    """Each file of migration/ and how it is compiled."""
    found = {}
    build = TREE / 'build'
    for entry in json.loads((build / 'compile_commands.json').read_text()):
        name = entry['file'].removeprefix('../')
        if not name.startswith('migration/'):
            continue
        line = []
        for word in shlex.split(entry['command'])[1:]:
            if word.startswith(('-I', '-isystem', '-D', '-std', '-W')) or \
                    line[-1:] in (['-isystem'], ['-iquote'], ['-include']) or \
                    word in ('-iquote', '-include', '-fno-strict-aliasing',
                             '-fno-common', '-fwrapv'):
                line.append(word)
        line = [word for word in line if word != '-D_GNU_SOURCE'
                and not re.fullmatch(r'-I/usr/include', word)]
        # The unit tests compile some of them once more.
        found[name] = [GCC, '-iquote', str(OUT), f'-I{OUT}', *line,
                       '-mms-bitfields', '-Wno-attributes', '-Werror=format',
                       '-Werror=implicit-function-declaration',
                       '-fsyntax-only', entry['file']]
    return sorted(found.items())


def compile_one(command: list[str]) -> str | None:
    """What is wrong with it, if anything."""
    run = subprocess.run(command, cwd=TREE / 'build', capture_output=True,
                         text=True, check=False, timeout=600)
    if not run.returncode:
        return None
    return next((line for line in run.stderr.splitlines()
                 if 'error:' in line), run.stderr[-300:])
