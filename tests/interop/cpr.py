# A new QEMU under a guest that stays on its host.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""A new QEMU under a guest that stays on its host (CPR).

With cpr-transfer the new QEMU is given the descriptor of the guest's memory, so
nothing of it is sent; with cpr-reboot memory is in a file of shared memory,
which outlives the old QEMU, or is sent as usual.  What is compared is the
memory of the guest.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from ferry.errors import FerryError
from ferry.migrate import ENDED, set_caps, set_params
from ferry.qmp import QMPError
from ferry.vm import VM
from ferrytest.suite import Case

from files import arrived
from lab import FAST, MEMORY, Lab, check, wait_completed

PAIRS = (('ferry', 'ferry'), ('ferry', 'pristine'), ('pristine', 'ferry'))
HANDED = {'mem_backend': f'memory-backend-memfd,id=mem,size={MEMORY}M,share=on',
          'machine': 'q35,aux-ram-share=on'}
SHARED = {'x-ignore-shared': True}
WRITES = 3000           # pages/s
SMALL = 16 << 20        # bytes: less than the guest's memory by far
NUMBERS = itertools.count(1)


def socket_address(path: Path) -> dict[str, str]:
    """A UNIX socket as QMP has it."""
    return {'transport': 'socket', 'type': 'unix', 'path': str(path)}


def transferred(vm: VM) -> int:
    """Bytes that were sent."""
    return vm.qmp.cmd('query-migrate')['ram']['transferred']


def arrive(lab: Lab, target: VM) -> None:
    """The guest goes on in TARGET, with all of its memory."""
    wait_completed(target)
    arrived(lab, target)
    lab.observer.wait_beats(target, 100)


def listens(path: Path) -> bool:
    """Whether somebody does; to connect would be taken for the old QEMU."""
    accepts = 0x10000       # __SO_ACCEPTCON, in the column of flags
    return any(words[7:] == [str(path)] and int(words[3], 16) & accepts
               for words in map(str.split, Path('/proc/net/unix').read_text()
                                .splitlines()[1:]))


class Transfer:
    """A new QEMU that waits for what is open in the old one."""

    def __init__(self, lab: Lab, kind: str) -> None:
        number = next(NUMBERS)
        self.control = lab.workdir / f'cpr-{number}'
        self.main = lab.workdir / f'main-{number}'
        self.vm = lab.vm(kind, incoming=f'unix:{self.main}', wait=False,
                         args=['-incoming', 'cpr,addr.transport=socket,'
                               f'addr.type=unix,addr.path={self.control}'],
                         **HANDED)
        end = time.monotonic() + 20
        while not listens(self.control):
            self.vm.check_alive()
            check(time.monotonic() < end, 'the new QEMU listens')
            time.sleep(0.01)

    def channels(self) -> list[dict[str, Any]]:
        """Where the old one is to connect."""
        return [{'channel-type': 'cpr', 'addr': socket_address(self.control)},
                {'channel-type': 'main', 'addr': socket_address(self.main)}]


def begin(lab: Lab, kind: str, mode: str, **more: Any) -> VM:
    """A guest that writes, in a QEMU that is to be replaced."""
    source = lab.boot_anew(kind, **more)
    lab.guest.set_rate(WRITES)
    set_params(source, {**FAST, 'mode': mode})
    return source


def hand_over(source: str, target: str) -> Case:
    """Memory stays where it is."""
    def run(lab: Lab) -> str:
        old = begin(lab, source, 'cpr-transfer', **HANDED)
        new = Transfer(lab, target)
        old.qmp.cmd('migrate', {'channels': new.channels()})
        new.vm.connect()
        lab.guest.expect(new.vm)
        wait_completed(old)
        sent = transferred(old)
        downtime = old.qmp.cmd('query-migrate')['downtime']
        check(sent < SMALL, f'memory was not sent: {sent} bytes were')
        arrive(lab, new.vm)
        lab.clear()
        return f'{sent} bytes sent, downtime {downtime} ms'
    return Case(f'cpr-transfer-{source}-{target}', run, kinds=(source, target),
                needs=('mode=cpr-transfer',))


def wait_failed(old: VM) -> dict[str, Any]:
    """Until the migration has; what is known of it then."""
    end = time.monotonic() + 30
    while (info := old.qmp.cmd('query-migrate'))['status'] not in ENDED:
        check(time.monotonic() < end, f'it ends: {info}')
        time.sleep(0.01)
    check(info['status'] == 'failed', f'it failed: {info}')
    return info


def new_one_ends(lab: Lab) -> str:
    """The new QEMU ends before it listens; the guest goes on, then moves."""
    old = begin(lab, 'ferry', 'cpr-transfer', **HANDED)
    new = Transfer(lab, 'ferry')
    # Where it is to listen for the migration there is something already.
    new.main.mkdir()
    old.qmp.cmd('migrate', {'channels': new.channels()})
    info = wait_failed(old)
    lab.must_go_on()
    again = Transfer(lab, 'ferry')
    old.qmp.cmd('migrate', {'channels': again.channels()})
    again.vm.connect()
    lab.guest.expect(again.vm)
    arrive(lab, again.vm)
    lab.clear()
    return f'"{info["error-desc"]}"'


def does_not_fit(lab: Lab) -> str:
    """A new QEMU that lacks a device: the guest is not even stopped."""
    old = begin(lab, 'ferry', 'cpr-transfer', **HANDED,
                args=['-device', 'virtio-rng-pci'])
    new = Transfer(lab, 'ferry')
    old.qmp.events()
    old.qmp.cmd('migrate', {'channels': new.channels()})
    info = wait_failed(old)
    check('virtio-rng' in info['error-desc'],
          f'the error tells of the device: {info["error-desc"]}')
    stops = [event for event in old.qmp.events() if event['event'] == 'STOP']
    check(not stops, 'the guest has not been stopped')
    lab.must_go_on()
    lab.clear()
    return f'"{info["error-desc"]}"'


def executed(lab: Lab) -> str:
    """The old QEMU executes the new one in its own process."""
    old = begin(lab, 'ferry', 'cpr-exec', **HANDED)
    state = lab.workdir / f'state-{next(NUMBERS)}'
    new = lab.prepared('ferry', incoming='defer', **HANDED)
    set_params(old, {'cpr-exec-command': new.command_line()})
    pid = old.pid
    old.qmp.cmd('migrate', {'uri': f'file:{state}'})
    new.took_over(old)
    new.connect()
    check(new.pid == pid, 'it is the same process')
    lab.guest.expect(new)
    new.qmp.cmd('migrate-incoming', {'uri': f'file:{state}'})
    arrive(lab, new)
    size = state.stat().st_size
    check(size < SMALL, f'memory was not saved: {size} bytes were')
    left = Path(f'/proc/{pid}/environ').read_bytes()
    check(b'QEMU_CPR_EXEC_STATE' in left, 'it was told by the environment')
    lab.must_go_on()
    lab.clear()
    state.unlink()
    return f'{size} bytes saved'


def not_executed(lab: Lab) -> str:
    """The new QEMU cannot be executed: the guest goes on in the old one."""
    old = begin(lab, 'ferry', 'cpr-exec', **HANDED)
    state = lab.workdir / f'state-{next(NUMBERS)}'
    said = []

    def must_refuse(word: str, command: list[str], uri: str) -> None:
        set_params(old, {'cpr-exec-command': command})
        try:
            old.qmp.cmd('migrate', {'uri': uri})
            raise FerryError(f'the migration begins: {command} {uri}')
        except QMPError as err:
            check(word in err.desc, f'the error tells of {word}: {err.desc}')
            said.append(err.desc)
    must_refuse('cpr-exec-command', [], f'file:{state}')
    must_refuse("'/no/qemu'", ['/no/qemu'], f'file:{state}')
    must_refuse('file:', ['true'], lab.uri('unix'))
    program = lab.workdir / f'program-{next(NUMBERS)}'
    program.write_text('#!/no/interpreter\n')
    program.chmod(0o755)
    old.qmp.cmd('human-monitor-command', {
        'command-line': f'migrate_set_parameter cpr-exec-command "{program} '
                        "'two words'\""})
    shown = old.qmp.cmd('query-migrate-parameters')['cpr-exec-command']
    check(shown == [str(program), 'two words'], f'words are kept: {shown}')
    old.qmp.cmd('migrate', {'uri': f'file:{state}'})
    info = wait_failed(old)
    check(str(program) in info['error-desc'], f'it says why: {info}')
    lab.must_go_on()
    lab.clear()
    state.unlink()
    return '; '.join((*said, info['error-desc']))


def refused(lab: Lab) -> str:
    """What a mode needs and what it excludes, before the guest is stopped."""
    old = begin(lab, 'ferry', 'cpr-transfer', **HANDED)
    said = []

    def must_refuse(word: str, **arguments: Any) -> None:
        try:
            old.qmp.cmd('migrate', arguments)
            raise FerryError(f'the migration begins: {arguments}')
        except QMPError as err:
            check(word in err.desc, f'the error tells of {word}: {err.desc}')
            said.append(err.desc)
    nobody = [{'channel-type': kind, 'addr': socket_address(
        lab.workdir / 'nobody')} for kind in ('cpr', 'main')]
    must_refuse("'cpr'", uri='tcp:127.0.0.1:1')
    must_refuse('No such file', channels=nobody)
    for caps in ({'return-path': True, 'strict-downtime': True},
                 {'postcopy-ram': True}):
        set_caps(old, caps)
        must_refuse(list(caps)[-1], channels=nobody)
        set_caps(old, dict.fromkeys(caps, False))
    set_params(old, {'mode': 'normal'})
    lab.must_go_on()
    lab.clear()
    return '; '.join(said)


def reboot(source: str, target: str, shared: bool, full: bool) -> Case:
    """By way of a file, while no QEMU has the guest."""
    def run(lab: Lab) -> str:
        memory = Path('/dev/shm') / f'ferry-{lab.workdir.name}-{next(NUMBERS)}'
        more = {'mem_backend': f'memory-backend-file,id=mem,size={MEMORY}M,'
                               f'mem-path={memory},share=on'} if shared else {}
        try:
            return through_file(lab, more)
        finally:
            lab.clear()
            memory.unlink(missing_ok=True)

    def through_file(lab: Lab, more: dict[str, Any]) -> str:
        old = begin(lab, source, 'cpr-reboot', **more)
        state = lab.workdir / f'state-{next(NUMBERS)}'
        set_caps(old, dict.fromkeys(SHARED, shared))
        old.qmp.cmd('migrate', {'uri': f'file:{state}'})
        wait_completed(old)
        sent = transferred(old)
        check(not shared or sent < SMALL,
              f'memory was not sent: {sent} bytes were')
        old.stop()
        new = lab.target(target, **more)
        set_caps(new, dict.fromkeys(SHARED, shared))
        set_params(new, {'mode': 'cpr-reboot'})
        lab.guest.expect(new)
        new.qmp.cmd('migrate-incoming', {'uri': f'file:{state}'})
        arrive(lab, new)
        state.unlink()
        return f'{sent} bytes sent'
    return Case(f'cpr-reboot-{"shared" if shared else "sent"}-{source}-'
                f'{target}', run, full=full, kinds=(source, target),
                needs=('mode=cpr-reboot', 'x-ignore-shared', 'file:'))


def all_cases() -> list[Case]:
    """Each mode in each direction, then what may go wrong."""
    ours = {'kinds': ('ferry',), 'needs': ('mode=cpr-transfer',)}
    return [
        *(hand_over(*pair) for pair in PAIRS),
        Case('cpr-transfer-new-one-ends', new_one_ends, **ours),
        Case('cpr-transfer-does-not-fit', does_not_fit, **ours),
        Case('cpr-transfer-refused', refused, **ours),
        Case('cpr-exec', executed, needs=('mode=cpr-exec',)),
        Case('cpr-exec-not-executed', not_executed, needs=('mode=cpr-exec',)),
        *(reboot(*pair, shared=True, full=pair != PAIRS[0]) for pair in PAIRS),
        reboot('ferry', 'ferry', shared=False, full=True),
    ]
