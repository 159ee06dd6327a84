# The cases of the libvirt test.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases of the libvirt test.

A case is a function that takes the Lab, raises FerryError on failure (Skip if
it cannot be had here) and returns a few words about what it measured.  The
names of pairs: "same" has our QEMU on both hosts, "mixed" has ours on host a
and the other one on host b.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Callable

import domain
import hosts
from ferrytest.suite import Case, Skip
from hosts import WORK, VirshError
from lab import MIB, SLOW, JobInfo, Lab, Migration, check, job_info, wait_for

PAGE = 4096


PAIRS = {'same': ('ferry',), 'mixed': ('ferry', 'pristine')}

CASES: list[Case] = []


def case(name: str, what: str, pair: str = 'same', full: bool = False,
         needs: tuple[str, ...] = ()) -> Callable[[Callable[[Lab], str]],
                                                  Callable[[Lab], str]]:
    """Decorator: list the function as a case."""
    def add(run: Callable[[Lab], str]) -> Callable[[Lab], str]:
        CASES.append(Case(name, run, kinds=PAIRS[pair], needs=needs,
                          full=full, what=what))
        return run
    return add


# Figures

def figures(lab: Lab, src: str, wall: float) -> JobInfo:
    """Read the finished job back from its source and judge its figures."""
    info = job_info(lab.host(src), '--completed', '--keep-completed')
    missing = [name for name in (
        'time_elapsed', 'downtime', 'data_processed', 'memory_total',
        'memory_remaining', 'memory_constant', 'memory_normal',
        'memory_normal_bytes', 'memory_bps', 'memory_iteration',
        'memory_page_size') if name not in info]
    check(not missing, f'domjobinfo lacks {", ".join(missing)}')

    def holds(condition: bool, claim: str) -> None:
        check(condition, f'domjobinfo: not {claim}: {info}')

    sent = info['data_processed']
    holds(0 < info['time_elapsed'] <= wall * 1000,
          f'0 < time_elapsed <= {wall * 1000:.0f}')
    holds(0 < info['downtime'] <= info['time_elapsed'],
          '0 < downtime <= time_elapsed')
    holds(info['memory_page_size'] == PAGE, f'memory_page_size = {PAGE}')
    holds(domain.MEMORY_MIB * MIB <= info['memory_total']
          <= (domain.MEMORY_MIB + 64) * MIB,
          f'memory_total about {domain.MEMORY_MIB} MiB')
    holds(info['memory_remaining'] == 0, 'memory_remaining = 0')
    holds(domain.FILL_MIB * MIB <= sent <= 2 * info['memory_total'],
          f'{domain.FILL_MIB} MiB <= data_processed <= 2 * memory_total')
    holds(info['memory_normal_bytes'] == info['memory_normal'] * PAGE,
          'memory_normal_bytes = memory_normal pages')
    holds(info['memory_normal_bytes'] <= sent,
          'memory_normal_bytes <= data_processed')
    holds(info['memory_constant'] > 0, 'memory_constant > 0')
    holds((info['memory_normal'] + info['memory_constant']) * PAGE
          >= info['memory_total'], 'every page sent at least once')
    holds(info['memory_bps'] > 0, 'memory_bps > 0')
    holds(info['memory_iteration'] > 0, 'memory_iteration > 0')
    return info


def summary(info: JobInfo) -> str:
    """The main figures, for people."""
    return (f'{info["time_elapsed"]} ms, downtime {info["downtime"]} ms, '
            f'{info["data_processed"] / MIB:.1f} MiB, '
            f'{info["memory_iteration"]} passes')


def move(lab: Lab, src: str, dst: str, *options: str,
         migrate_uri: str | None = None) -> JobInfo:
    """Migrate, check the guest, read the figures back."""
    wall = lab.migrate(src, dst, *options, migrate_uri=migrate_uri)
    return figures(lab, src, wall)


def hold_back(lab: Lab, src: str, migration: Migration) -> None:
    """Keep a busy guest's migration from ending, until let_go()."""
    migration.wait_figure('data_processed', 1)
    lab.host(src).virsh('migrate-setmaxdowntime', domain.NAME, '1')


def let_go(lab: Lab, src: str) -> None:
    """Let the migration end, if it has not ended by itself."""
    try:
        lab.host(src).virsh('migrate-setmaxdowntime', domain.NAME, '5000')
    except VirshError:
        pass                    # the guest has left; the caller looks into it


def to_and_fro(lab: Lab, *options: str) -> str:
    """Migrate with OPTIONS to host b and back again."""
    there = move(lab, 'a', 'b', *options)
    back = move(lab, 'b', 'a', *options)
    return f'{summary(there)}; back {summary(back)}'


# The test itself

@case('self-check', 'faults in what the guest says are noticed')
def self_check(_lab: Lab) -> str:
    good = 'SeaBIOS\n\ntick 0 bad 0\r\ntick 1 bad 0\r\n'
    check(domain.count_ticks(good + 'tick 2 ba') == 2, 'a good log is refused')
    faults = {'a lost tick': 'tick 3 bad 0', 'a repeated tick': 'tick 1 bad 0',
              'a reboot': 'tick 0 bad 0', 'bad memory': 'tick 2 bad 1',
              'a garbled tick': 'tick 2 btick 3 bad 0',
              'a panic': 'Kernel panic - not syncing'}
    for fault, line in faults.items():
        try:
            domain.count_ticks(good + line + '\n')
        except domain.GuestError:
            continue
        check(False, f'{fault} goes unnoticed')
    return ''


# Plain migrations

@case('plain', 'live migration over TCP, figures read back on both sides')
def plain(lab: Lab) -> str:
    lab.guest_on('a')
    info = move(lab, 'a', 'b')
    arrived = job_info(lab.host('b'), '--completed', '--keep-completed')
    check(arrived.get('data_processed') == info['data_processed'],
          'the destination reports other figures than the source: '
          f'{arrived} against {info}')
    check(arrived.get('downtime', 0) > 0,
          f'the destination reports no downtime: {arrived}')
    return summary(info)


@case('back', 'and back again')
def back(lab: Lab) -> str:
    lab.guest_on('b')
    return summary(move(lab, 'b', 'a'))


@case('xbzrle', '--compressed --comp-methods xbzrle', needs=('xbzrle',))
def xbzrle(lab: Lab) -> str:
    lab.guest_on('a')
    return use_xbzrle(lab, 'a', 'b')


def use_xbzrle(lab: Lab, src: str, dst: str) -> str:
    """Migrate with xbzrle and check that it was put to use."""
    cache = 128 * MIB
    # A page is compressed from the third time that it is sent on: not before
    # the third pass, so make sure that it takes place.  Once compressed, the
    # passes are so short that the migration may end without being let go.
    migration = lab.start(src, dst, '--compressed', '--comp-methods', 'xbzrle',
                          '--comp-xbzrle-cache', str(cache),
                          '--bandwidth', '30')
    hold_back(lab, src, migration)
    wait_for(lambda: migration.figure('memory_iteration') > 3
             or not migration.running(),
             'the third pass did not end', 30)
    let_go(lab, src)
    wall = migration.finish()
    lab.check_moved(src, dst)
    info = figures(lab, src, wall)
    check(info['compression_cache'] == cache,
          f'the cache should be {cache} bytes: {info}')
    pages, size = info['compression_pages'], info['compression_bytes']
    check(0 < size < pages * PAGE,
          f'xbzrle compressed nothing: {pages} pages, {size} bytes')
    return f'{summary(info)}, {pages} pages in {size} bytes'


# Interference

def abort(lab: Lab, migration: Migration) -> None:
    """Abort in the middle and check that virsh says so."""
    migration.wait_middle()
    lab.host('a').virsh('domjobabort', domain.NAME)
    error = migration.error()
    check('cancel' in error or 'abort' in error,
          f'an aborted migration should say so, not "{error or "success"}"')


@case('abort', 'domjobabort in the middle, then a second attempt')
def domjobabort(lab: Lab) -> str:
    lab.guest_on('a')
    abort(lab, lab.start('a', 'b', *SLOW))
    lab.check_stayed('a', 'b')
    return summary(move(lab, 'a', 'b'))


@case('kill', 'destination QEMU killed in the middle, then a second attempt')
def kill(lab: Lab) -> str:
    lab.guest_on('a')
    migration = lab.start('a', 'b', *SLOW)
    migration.wait_middle()
    pid = lab.host('b').qemu_pid(domain.NAME)
    check(pid is not None, 'the destination has no QEMU')
    os.kill(pid, signal.SIGKILL)
    check(migration.error() != '',
          'the migration succeeded without a destination')
    lab.check_stayed('a', 'b')
    return summary(move(lab, 'a', 'b'))


@case('setmaxdowntime', 'migrate-setmaxdowntime ends a slow migration')
def setmaxdowntime(lab: Lab) -> str:
    lab.guest_on('a')
    source = lab.host('a')
    migration = lab.start('a', 'b', *SLOW)
    migration.wait_middle()
    source.virsh('migrate-setmaxdowntime', domain.NAME, '400')
    limit = source.virsh('migrate-getmaxdowntime', domain.NAME).strip()
    check(limit == '400', f'the limit of 400 ms reads back as {limit}')
    # Everything that is left fits into that, so the guest may stop at once,
    # and once it has stopped the bandwidth limit does not hold any more.
    source.virsh('migrate-setmaxdowntime', domain.NAME, '60000')
    wall = migration.finish()
    lab.check_moved('a', 'b')
    info = figures(lab, 'a', wall)
    slowly = info['data_processed'] * 1000 / (int(SLOW[1]) * MIB)
    check(info['time_elapsed'] < slowly * 0.7,
          f'it took {info["time_elapsed"]} ms, about as long as with the '
          f'default limit ({slowly:.0f} ms)')
    return summary(info)


# Ways to connect

@case('p2p', '--p2p: the daemons talk to each other')
def p2p(lab: Lab) -> str:
    lab.guest_on('a')
    return summary(move(lab, 'a', 'b', '--p2p'))


@case('unix', 'a unix: migration URI')
def unix(lab: Lab) -> str:
    lab.guest_on('a')
    return summary(move(lab, 'a', 'b',
                        migrate_uri=f'unix://{WORK}/migration.sock'))


@case('tunnelled', '--p2p --tunnelled', full=True)
def tunnelled(lab: Lab) -> str:
    lab.guest_on('a')
    return summary(move(lab, 'a', 'b', '--p2p', '--tunnelled',
                        migrate_uri='tunnel'))


@case('parallel', '--parallel: several connections, to and fro',
      needs=('multifd',))
def parallel(lab: Lab) -> str:
    lab.guest_on('a')
    return to_and_fro(lab, '--parallel', '--parallel-connections', '3')


# RDMA

def use_rdma(lab: Lab, src: str, dst: str, *options: str) -> str:
    """Migrate over RDMA with OPTIONS."""
    return summary(move(lab, src, dst, *options,
                        migrate_uri=f'rdma://{lab.host(dst).address}'))


@case('rdma', '--migrateuri rdma://, with a device that does not exist')
def rdma(lab: Lab) -> str:
    lab.guest_on('a', rdma='fake')
    return f'{use_rdma(lab, "a", "b")}; back {use_rdma(lab, "b", "a")}'


@case('rdma-pin-all', '--rdma-pin-all with it')
def rdma_pin_all(lab: Lab) -> str:
    lab.guest_on('a', rdma='fake')
    return use_rdma(lab, 'a', 'b', '--rdma-pin-all')


@case('rdma-none', 'rdma:// where there is no device: why is said')
def rdma_none(lab: Lab) -> str:
    lab.guest_on('a', rdma='allowed')
    error = lab.start('a', 'b', migrate_uri='rdma://'
                      f'{lab.host("b").address}').error()
    check('rdma_create_event_channel' in error or 'RDMA device' in error,
          f'what is missing should be named: "{error or "success"}"')
    lab.check_stayed('a', 'b')
    return error


# Convergence and postcopy

@case('auto-converge', '--auto-converge slows the guest down', full=True,
      needs=('auto-converge',))
def auto_converge(lab: Lab) -> str:
    lab.guest_on('a')
    # Little more than the guest writes to in the same time, so that passes
    # do not get shorter.
    migration = lab.start('a', 'b', '--auto-converge',
                          '--auto-converge-initial', '40',
                          '--auto-converge-increment', '20',
                          '--bandwidth', '16')
    hold_back(lab, 'a', migration)
    throttle = migration.wait_figure('auto_converge_throttle', 1)
    check(throttle >= 40, f'throttled to {throttle} %, not 40 % at least')
    let_go(lab, 'a')
    wall = migration.finish()
    lab.check_moved('a', 'b')
    return f'{summary(figures(lab, "a", wall))}, throttle {throttle} %'


# Seen with the distribution's own QEMU, too; libvirt 9.0 is all right.
RESUME_CRASHES = '11.3.'

# Interrupting a TCG guest whose stack has not arrived yet blocks the
# destination's main loop, and libvirt could not talk to it any more: by so many
# requests the kernel's own pages are there.
SETTLED = 60

POSTCOPY = ('--postcopy', '--postcopy-bandwidth', '20', *SLOW)


def enter_postcopy(lab: Lab, src: str, dst: str) -> Migration:
    """Start a migration and switch it to postcopy in the middle."""
    migration = lab.start(src, dst, *POSTCOPY)
    migration.wait_middle()
    lab.host(src).virsh('migrate-postcopy', domain.NAME)
    wait_for(lambda: lab.state(dst) == 'running',
             'the guest did not start on the destination')
    check(migration.running(), 'nothing was left for postcopy')
    return migration


def skip_crash(lab: Lab) -> None:
    """Not with a libvirt that cannot do it."""
    version = lab.host('a').version()
    if version.startswith(RESUME_CRASHES):
        raise Skip(f'the daemon of libvirt {version} crashes when a postcopy '
                   'migration is resumed, whatever the QEMU')


def use_postcopy(lab: Lab, src: str, dst: str) -> str:
    """Migrate with postcopy and check that pages were asked for."""
    migration = enter_postcopy(lab, src, dst)
    wall = migration.finish()
    lab.check_moved(src, dst)
    info = figures(lab, src, wall)
    requests = info['memory_postcopy_requests']
    check(requests > 0, 'the destination asked for no page')
    return f'{summary(info)}, {requests} pages asked for'


def noticed(lab: Lab) -> None:
    """Wait until both hosts know that postcopy was broken off."""
    for name in ('a', 'b'):
        wait_for(lambda n=name: 'post-copy failed' in lab.host(n).virsh(
                     'domstate', domain.NAME, '--reason'),
                 f'host {name} did not notice that postcopy was broken off')


@case('postcopy', '--postcopy and migrate-postcopy', needs=('postcopy-ram',))
def postcopy(lab: Lab) -> str:
    lab.guest_on('a')
    return use_postcopy(lab, 'a', 'b')


def settled_postcopy(lab: Lab) -> Migration:
    """A migration from a to b that has been in postcopy for a while."""
    skip_crash(lab)
    lab.guest_on('a')
    migration = enter_postcopy(lab, 'a', 'b')
    migration.wait_figure('memory_postcopy_requests', SETTLED)
    return migration


@case('postcopy-resume', 'postcopy broken off with domjobabort, then resumed',
      full=True, needs=('postcopy-ram',))
def postcopy_resume(lab: Lab) -> str:
    migration = settled_postcopy(lab)
    lab.host('a').virsh('domjobabort', domain.NAME, '--postcopy')
    check(migration.error() != '', 'a broken postcopy should be an error')
    noticed(lab)
    lab.start('a', 'b', *POSTCOPY, '--postcopy-resume').finish()
    lab.check_moved('a', 'b')
    return f'resumed, {domain.ticks()} ticks'


@case('postcopy-link', 'the link is lost in postcopy, then resumed',
      full=True, needs=('postcopy-ram',))
def postcopy_link(lab: Lab) -> str:
    migration = settled_postcopy(lab)
    with hosts.link_down():
        noticed(lab)
        check(migration.error() != '', 'a lost link should be an error')
        error = lab.start('a', 'b', *POSTCOPY, '--postcopy-resume').error()
        check(error != '', 'resumed without a link')
        noticed(lab)
    lab.start('a', 'b', *POSTCOPY, '--postcopy-resume').finish()
    lab.check_moved('a', 'b')
    return f'without a link: "{error}"; {domain.ticks()} ticks'


@case('timeout-postcopy', '--timeout with --timeout-postcopy', full=True,
      needs=('postcopy-ram',))
def timeout_postcopy(lab: Lab) -> str:
    lab.guest_on('a')
    info = move(lab, 'a', 'b', *POSTCOPY, '--timeout', '2',
                '--timeout-postcopy')
    check(info['memory_postcopy_requests'] > 0, 'postcopy was not used')
    return summary(info)


@case('timeout-suspend', '--timeout with --timeout-suspend', full=True)
def timeout_suspend(lab: Lab) -> str:
    lab.guest_on('a')
    info = move(lab, 'a', 'b', *SLOW, '--timeout', '2', '--timeout-suspend')
    check(info['downtime'] > info['time_elapsed'] / 2,
          f'the guest was not suspended after 2 s: {summary(info)}')
    return summary(info)


# More interference

@case('kill-virsh', 'virsh killed in the middle, then a second attempt',
      full=True)
def kill_virsh(lab: Lab) -> str:
    lab.guest_on('a')
    migration = lab.start('a', 'b', *SLOW)
    migration.wait_middle()
    migration.kill()
    lab.check_stayed('a', 'b')
    return summary(move(lab, 'a', 'b'))


@case('kill-source', 'source QEMU killed in the middle: no residue',
      full=True)
def kill_source(lab: Lab) -> str:
    lab.guest_on('a')
    migration = lab.start('a', 'b', *SLOW)
    migration.wait_middle()
    pid = lab.host('a').qemu_pid(domain.NAME)
    check(pid is not None, 'the source has no QEMU')
    os.kill(pid, signal.SIGKILL)
    check(migration.error() != '', 'the migration succeeded without a source')
    started = time.monotonic()
    for name in ('a', 'b'):
        wait_for(lambda n=name: lab.idle(n),
                 f'host {name} did not get rid of the guest')
    lab.drop_guest()
    return f'both hosts clean after {time.monotonic() - started:.1f} s'


@case('port-in-use', 'a port that is taken is an error, the guest runs on',
      full=True)
def port_in_use(lab: Lab) -> str:
    lab.guest_on('a')
    port = 49999
    with lab.host('b').occupy(port) as listener:
        error = lab.start('a', 'b', migrate_uri='tcp://'
                          f'{lab.host("b").address}:{port}').error()
        listener.kill()
    check('in use' in error, 'the error should say that the port is in use, '
          f'not "{error or "success"}"')
    lab.check_stayed('a', 'b')
    return ''


@case('ping-pong', 'ten times to and fro', full=True)
def ping_pong(lab: Lab) -> str:
    lab.guest_on('a')
    downtimes = []
    for _ in range(10):
        for src, dst in (('a', 'b'), ('b', 'a')):
            downtimes.append(move(lab, src, dst)['downtime'])
    downtimes.sort()
    return (f'downtime {downtimes[0]} to {downtimes[-1]} ms, '
            f'median {downtimes[len(downtimes) // 2]} ms')


@case('storage', '--copy-storage-all: the disk comes along', full=True)
def storage(lab: Lab) -> str:
    lab.guest_on('a', disk=True)
    info = move(lab, 'a', 'b', '--copy-storage-all')
    images = [domain.disk_path(lab.host(name)).read_bytes()
              for name in ('a', 'b')]
    check(images[0] == images[1], 'the disk differs after the migration')
    check(info['disk_processed'] >= domain.DISK_MIB * MIB,
          f'disk_processed is {info["disk_processed"]}')
    return summary(info)


# With the other QEMU

@case('to-other', 'our QEMU to the other', pair='mixed')
def to_other(lab: Lab) -> str:
    lab.guest_on('a', 'mixed')
    return summary(move(lab, 'a', 'b'))


@case('from-other', 'the other QEMU to ours', pair='mixed')
def from_other(lab: Lab) -> str:
    lab.guest_on('b', 'mixed')
    return summary(move(lab, 'b', 'a'))


@case('parallel-mixed', '--parallel with the other QEMU, to and fro',
      pair='mixed', full=True, needs=('multifd',))
def parallel_mixed(lab: Lab) -> str:
    lab.guest_on('a', 'mixed')
    return to_and_fro(lab, '--parallel', '--parallel-connections', '3')


@case('xbzrle-to-other', 'xbzrle, our QEMU to the other', pair='mixed',
      full=True, needs=('xbzrle',))
def xbzrle_to_other(lab: Lab) -> str:
    lab.guest_on('a', 'mixed')
    return use_xbzrle(lab, 'a', 'b')


@case('xbzrle-from-other', 'xbzrle, the other QEMU to ours', pair='mixed',
      full=True, needs=('xbzrle',))
def xbzrle_from_other(lab: Lab) -> str:
    lab.guest_on('b', 'mixed')
    return use_xbzrle(lab, 'b', 'a')


@case('postcopy-to-other', 'postcopy, our QEMU to the other', pair='mixed',
      full=True, needs=('postcopy-ram',))
def postcopy_to_other(lab: Lab) -> str:
    lab.guest_on('a', 'mixed')
    return use_postcopy(lab, 'a', 'b')


@case('postcopy-from-other', 'postcopy, the other QEMU to ours', pair='mixed',
      full=True, needs=('postcopy-ram',))
def postcopy_from_other(lab: Lab) -> str:
    lab.guest_on('b', 'mixed')
    return use_postcopy(lab, 'b', 'a')
