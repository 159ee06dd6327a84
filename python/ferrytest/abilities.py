# What a QEMU can do, asked of the QEMU itself.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU can do, asked of the QEMU itself.

A test that needs a feature names it; a QEMU that does not have the feature yet
refuses it with an error that says so, and the test is skipped with that error
as its reason.  Nothing else in the tests knows what is missing where.

A need is written as

    NAME            a migration capability that can be turned on
    NAME=VALUE      a value of a migration parameter
    SCHEME:         a transport that the source can connect by
    NAME+SCHEME:    both together
    COMMAND.MEMBER  a member of what a QMP command returns

What a capability needs of the kernel is asked of the kernel itself.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterable

from ferry import paths
from ferry.errors import FerryError, one_line
from ferry.qmp import QMPError
from ferry.vm import VM

# What a refusal says when the feature is to come; any other error is about
# the circumstances, such as another capability that has to be on as well.
NOT_YET = 'not available yet'

# Capabilities and parameters that are ours alone: a QEMU of the base has
# nothing to compare them with.
OURS = frozenset(('strict-downtime', 'strict-downtime-attempts',
                  'x-fault-delay', 'x-fault-gate', 'x-fault-cpus-stay',
                  'postcopy-auto', 'convergence', 'total-time-limit', 'on-miss',
                  'cpr-exec-command', 'x-rdma-chunk-size', 'x-rdma-queue-pairs',
                  'preflight', 'vmstate-check-period', 'checkpoint',
                  'checkpoint-interval', 'checkpoint-timeout',
                  'checkpoint-on-loss'))

# Capabilities, which are parameters as well, as in QEMU 11.0 and not in 10.0
CAPABILITIES = frozenset(re.findall(
    r'^CAP\(\w+, \w+,\s+"([^"]+)"',
    (paths.ROOT / 'migration' / 'base' / 'params.def').read_text(), re.M))

PATIENCE = 5.0          # s, for a migration to nowhere to end

# Where a migration over a scheme can go without meeting anybody.
NOWHERE = {'exec:': 'exec:cat >/dev/null', 'file:': 'file:/dev/null',
           'rdma:': 'rdma:127.0.0.1:1', 'vsock:': 'vsock:1:1'}

# Keyed by binary and need: why it is lacking, or None
_known: dict[tuple[Path, str], str | None] = {}


USERFAULTFD = {'x86_64': 323, 'aarch64': 282}      # numbers of the call


class Skip(Exception):
    """A test cannot be had here; the text says why."""


def _refusal(act: Callable[[], Any]) -> str | None:
    """The error of ACT, if it says that the feature is to come."""
    try:
        act()
    except QMPError as err:
        return err.desc if NOT_YET in err.desc else None
    return None


def _turn(vm: VM, name: str, state: bool) -> None:
    vm.qmp.cmd('migrate-set-capabilities', {'capabilities': [
        {'capability': name, 'state': state}]})


def _capability(vm: VM, name: str) -> str | None:
    reason = _refusal(lambda: _turn(vm, name, True))
    if reason is None:
        _turn(vm, name, False)
    return reason


def _parameter(vm: VM, name: str, value: str) -> str | None:
    before = vm.qmp.cmd('query-migrate-parameters').get(name)
    typed = int(value) if value.isdigit() else value
    reason = _refusal(lambda: vm.qmp.cmd('migrate-set-parameters',
                                         {name: typed}))
    if reason is None and before is not None:
        vm.qmp.cmd('migrate-set-parameters', {name: before})
    return reason


def _scheme(vm: VM, scheme: str) -> str | None:
    if scheme not in NOWHERE:
        raise FerryError(f'no way to ask for the transport {scheme}')
    reason = _refusal(lambda: vm.qmp.cmd('migrate',
                                         {'uri': NOWHERE[scheme]}))
    deadline = time.monotonic() + PATIENCE
    while reason is None:
        info = vm.qmp.cmd('query-migrate')
        if info.get('status') in (None, 'none', 'completed', 'failed',
                                  'cancelled'):
            said = info.get('error-desc', '')
            return said if NOT_YET in said else None
        if time.monotonic() > deadline:
            return None         # it is at work, so it is there
        time.sleep(0.005)
    return reason


def members(schema: list[dict], command: str) -> set[str]:
    """What may be in the object that COMMAND returns, by query-qmp-schema."""
    by_name = {entry['name']: entry for entry in schema}
    if command not in by_name:
        return set()
    result = by_name[by_name[command]['ret-type']]
    if result['meta-type'] == 'array':
        result = by_name[result['element-type']]
    return {member['name'] for member in result.get('members', ())}


def _member(vm: VM, command: str, member: str) -> str | None:
    if member in members(vm.qmp.cmd('query-qmp-schema'), command):
        return None
    return f'{command} has no {member} here'


def _together(vm: VM, name: str, scheme: str) -> str | None:
    reason = _refusal(lambda: _turn(vm, name, True))
    if reason is None:
        reason = _scheme(vm, scheme)
        _turn(vm, name, False)
    return reason


def _ask(vm: VM, need: str) -> str | None:
    if '+' in need:
        return _together(vm, *need.split('+', 1))
    if need.endswith(':'):
        return _scheme(vm, need)
    if '=' in need:
        return _parameter(vm, *need.split('=', 1))
    if '.' in need:
        return _member(vm, *need.split('.', 1))
    return _capability(vm, need)


def learn(kind: str | Path, needs: Iterable[str]) -> None:
    """Ask the QEMU KIND for all of NEEDS at once, on a throw-away instance."""
    binary = paths.qemu(kind).resolve()
    new = [need for need in dict.fromkeys(needs)
           if (binary, need) not in _known]
    if not new:
        return
    with tempfile.TemporaryDirectory(prefix='ferry-ask-') as folder, \
         VM(binary, 'asked', Path(folder), 16, machine='none', paused=True,
            serial=False, accelerator='tcg') as vm:
        for need in new:
            try:
                reason = _ask(vm, need)
            except QMPError as err:
                raise FerryError(f'{kind}, asked for {need}: {err}') from err
            _known[binary, need] = reason and one_line(reason)


@functools.cache
def no_userfaultfd() -> str | None:
    """Why this process may not use userfaultfd, or None."""
    number = USERFAULTFD.get(platform.machine())
    if number is None or os.access('/dev/userfaultfd', os.R_OK | os.W_OK):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(number, os.O_CLOEXEC)
    if descriptor >= 0:
        os.close(descriptor)
        return None
    return ('userfaultfd cannot be used here: '
            + os.strerror(ctypes.get_errno()))


KERNEL = {'postcopy-ram': no_userfaultfd, 'postcopy-preempt': no_userfaultfd}


def lacks(kind: str | Path, needs: Iterable[str]) -> str | None:
    """Why the QEMU KIND cannot do all of NEEDS, in its own words, or None."""
    needs = list(needs)
    for need in needs:
        if need in KERNEL and (reason := KERNEL[need]()):
            return reason
    learn(kind, needs)
    binary = paths.qemu(kind).resolve()
    return next((reason for need in needs
                 if (reason := _known[binary, need])), None)


def require(kinds: str | Path | Iterable[str | Path],
            needs: Iterable[str]) -> None:
    """Raise Skip unless each of the QEMUs KINDS can do all of NEEDS."""
    needs = list(needs)
    for kind in (kinds,) if isinstance(kinds, (str, Path)) else kinds:
        reason = lacks(kind, needs) if needs else None
        if reason:
            raise Skip(f'{Path(kind).name}: {reason}')


def turned_on(caps: dict[str, bool] | None) -> list[str]:
    """The needs of a test that sets CAPS."""
    return [name for name, state in (caps or {}).items() if state]
