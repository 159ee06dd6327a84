# The cases of the interoperability test.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases of the interoperability test.

A case takes the Lab, raises FerryError if anything is not as it should be, and
returns a few words on what it measured.
"""

from __future__ import annotations

import itertools
import socket
import time

import automatic
import background
import broken
import compression
import converge
import cpr
import device_state
import failures
import files
import held
import intruders
import lazy
import multifd
import multifd_postcopy
import passed
import postcopy
import postcopy_memory
import promised
import responsive
import told
import vhost_user
import zero_copy
from ferry.errors import FerryError
from ferry.migrate import ENDED
from ferry.qmp import QMPError
from ferrytest.suite import Case

from common import PASSES, PASSES_RATE, ends_by_itself, summary
from lab import FAST, FILL, Lab, check
from meddler import Damage, Meddler, page_start


# Plain migrations

def plain(source: str, target: str, transport: str, xbzrle: bool) -> Case:
    """A migration between two kinds of QEMU."""
    def run(lab: Lab) -> str:
        lab.boot(source)
        if xbzrle:
            lab.guest.set_rate(PASSES_RATE)
        result = lab.must_move(lab.target(target), transport,
                               caps={'xbzrle': xbzrle},
                               params=PASSES if xbzrle else FAST)
        sent = result.samples[-1]['migrate'].get('xbzrle-cache')
        if xbzrle:
            check(bool(sent) and sent['pages'] > 0,
                  f'pages were sent as differences: {sent}')
            return f'{summary(result)}, {sent["pages"]} xbzrle pages'
        check(sent is None, f'xbzrle is off: {sent}')
        return summary(result)
    name = (f'{source}-{target}-{transport}'
            + ('-xbzrle' if xbzrle else ''))
    quick = (source, target, transport, xbzrle) == ('ferry', 'ferry', 'tcp',
                                                    False)
    return Case(name, run, quick, (source, target),
                ('xbzrle',) if xbzrle else (),
                full=xbzrle and transport == 'unix')


# Bad input

def attempt(lab: Lab, uri: str, within: float = 10) -> str:
    """Migrate to where nobody can receive; return the error."""
    source = lab.source
    assert source is not None
    try:
        source.qmp.cmd('migrate', {'uri': uri})
    except QMPError as err:
        return err.desc
    deadline = time.monotonic() + within
    while True:
        info = source.qmp.cmd('query-migrate')
        if info.get('status') in ENDED:
            break
        check(time.monotonic() < deadline,
              f'it failed within {within:.0f} s: {info.get("status")}')
        time.sleep(0.01)
    check(info['status'] == 'failed', f'the state is "failed": {info}')
    check(bool(info.get('error-desc')), f'there is an error-desc: {info}')
    return info['error-desc']


def refused(lab: Lab) -> str:
    """Nobody listens there."""
    lab.boot('ferry')
    said = []
    for uri in (lab.uri('tcp'), lab.uri('unix')):
        error = attempt(lab, uri)
        check('refused' in error.lower() or 'no such file' in error.lower(),
              f'the error says that nobody listens: {error}')
        check('\n' not in error.strip(), f'the error is one line: {error}')
        lab.must_go_on()
        said.append(f'"{error}"')
    lab.must_move(lab.target('ferry'))
    return ', '.join(said)


def port_in_use(lab: Lab) -> str:
    """The destination cannot listen there; the guest never notices."""
    lab.boot('ferry')
    target = lab.target('ferry')
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen(1)
        uri = f'tcp:127.0.0.1:{taken.getsockname()[1]}'
        try:
            target.qmp.cmd('migrate-incoming', {'uri': uri})
            raise FerryError('the destination listens where another does')
        except QMPError as err:
            error = err.desc
    check('in use' in error.lower(), f'the error says so: {error}')
    target.check_alive()
    lab.drop(target)
    lab.must_move(lab.target('ferry'))
    return f'"{error}"'


def hangs_up(lab: Lab) -> str:
    """Something that is no QEMU accepts, and hangs up."""
    lab.boot('ferry')
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.settimeout(5)
        source = lab.source
        source.qmp.cmd('migrate', {
            'uri': f'tcp:127.0.0.1:{server.getsockname()[1]}'})
        peer, _ = server.accept()
        peer.recv(1)
        peer.close()
        deadline = time.monotonic() + 10
        while source.qmp.cmd('query-migrate')['status'] not in ENDED:
            check(time.monotonic() < deadline, 'the source notices')
            time.sleep(0.01)
    info = source.qmp.cmd('query-migrate')
    check(info['status'] == 'failed' and bool(info.get('error-desc')),
          f'it failed with a reason: {info}')
    lab.must_go_on()
    lab.must_move(lab.target('ferry'))
    return f'"{info["error-desc"]}"'


def does_not_read(lab: Lab) -> str:
    """A peer that accepts and never reads can be cancelled promptly."""
    lab.boot('ferry')
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.settimeout(5)
        source = lab.source
        source.qmp.cmd('migrate', {
            'uri': f'tcp:127.0.0.1:{server.getsockname()[1]}'})
        with server.accept()[0]:
            time.sleep(0.5)     # by now the socket's buffers are full
            start = time.monotonic()
            source.qmp.cmd('migrate_cancel')
            while source.qmp.cmd('query-migrate')['status'] not in ENDED:
                check(time.monotonic() - start < 5,
                      'migrate_cancel works on a peer that does not read')
                time.sleep(0.002)
            took = (time.monotonic() - start) * 1000
    lab.must_go_on()
    lab.must_move(lab.target('ferry'))
    return f'cancelled in {took:.0f} ms'


def garbage(lab: Lab) -> str:
    """What arrives is no migration: the destination says so and ends."""
    target = lab.target('ferry')
    uri = lab.uri('unix')
    target.qmp.cmd('migrate-incoming', {'uri': uri})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(uri.removeprefix('unix:'))
        sock.sendall(b'GET / HTTP/1.0\r\n\r\n' + bytes(range(256)) * 16)
        ends_by_itself(target)
    words = target.log_tail(2)
    check('migration stream' in words.lower() or 'magic' in words.lower(),
          f'the destination says that this is no migration: "{words}"')
    return f'"{words}"'


# The test itself

def oracle(lab: Lab) -> str:
    """What the guest says of its memory can be believed."""
    lab.boot('ferry')
    lab.must_move(lab.target('ferry'))
    guest = lab.guest
    guest.set_rate(0)
    pages = guest.status()['pages']
    found = []

    def must_find(lie: str, page: int | None, word: str) -> None:
        verdict = guest.verify()
        check(not verdict.ok and word in verdict.detail,
              f'"{lie}" is found: {verdict.detail}')
        if page is not None:
            check(f'page {page} ' in verdict.detail,
                  f'"{lie}" is found in its place: {verdict.detail}')
        found.append(lie.split()[0])

    for page, byte in ((0, 0), (pages - 1, 4095), (pages // 2, 1234)):
        guest.command(f'corrupt {page} {byte}')
        must_find(f'corrupt {page} {byte}', page, f'byte {byte}:')
        guest.command(f'repair {page}')
    for page in (0, pages - 1):
        guest.command(f'stale {page}')
        must_find(f'stale {page}', page, 'differ')
        guest.command(f'repair {page}')
    page = written_page(lab)
    guest.command(f'skew {page}')
    must_find(f'skew {page}', None, 'account for')
    guest.command(f'repair {page}')
    verdict = guest.verify()
    check(verdict.ok, f'repaired memory is right: {verdict.detail}')
    # One that is wrong before a migration must be wrong after it as well.
    guest.command('corrupt 7 77')
    guest.set_rate(1000)
    result = lab.move(lab.target('ferry'))
    check(result.verified is False and 'page 7 ' in result.error,
          f'a wrong page fails the migration: {result.error}')
    lab.clear()         # the guest is spoilt
    return f'found: {", ".join(found)}'


def damaged(lab: Lab) -> str:
    """A bit that is flipped on the wire is found, and in its place."""
    source = lab.boot('ferry')
    target = lab.target('ferry')
    page = FILL * 256 - 4000        # behind what the guest writes to
    page += 20 - page % 32
    damage = Damage(page_start(1, page), 3000)
    behind, ahead = lab.uri('unix'), lab.uri('unix')
    with Meddler(ahead.removeprefix('unix:'), behind.removeprefix('unix:'),
                 damage):
        target.qmp.cmd('migrate-incoming', {'uri': behind})
        lab.guest.expect(target)
        source.qmp.cmd('migrate', {'uri': ahead})
        deadline = time.monotonic() + 30
        while not target.qmp.cmd('query-status')['running']:
            check(time.monotonic() < deadline, 'it arrives all the same')
            time.sleep(0.02)
        lab.guest.move_to(target)
        verdict = lab.guest.verify()
    check(damage.done == 1, f'a bit was flipped once: {damage.done}')
    check(not verdict.ok and f'1 of {FILL * 256} ' in verdict.detail
          and f'page {page} ' in verdict.detail
          and 'byte 3000:' in verdict.detail,
          f'the bit was found: {verdict.detail}')
    lab.clear()         # the guest is spoilt
    return verdict.detail


def written_page(lab: Lab) -> int:
    """A page that has been written to at least once."""
    for page in itertools.count():
        answer = lab.guest.command(f'peek {page}')
        if not answer.endswith('seq=0'):
            return page
    raise AssertionError


def all_cases() -> list[Case]:
    """In an order that lets most cases take over the guest of the last."""
    pairs = itertools.product(('tcp', 'unix'), (False, True))
    cases = []
    for transport, xbzrle in pairs:
        for source, target in (('ferry', 'ferry'), ('ferry', 'pristine'),
                               ('pristine', 'ferry')):
            cases.append(plain(source, target, transport, xbzrle))
    cases += failures.all_cases() + postcopy.all_cases()
    cases += postcopy_memory.all_cases() + vhost_user.all_cases()
    cases += promised.all_cases() + held.all_cases()
    cases += multifd.all_cases() + multifd_postcopy.all_cases()
    cases += intruders.all_cases()
    cases += files.all_cases() + passed.all_cases() + cpr.all_cases()
    cases += background.all_cases() + lazy.all_cases()
    cases += compression.all_cases()
    cases += zero_copy.all_cases()
    cases += device_state.all_cases()
    cases += automatic.all_cases()
    cases += broken.all_cases() + converge.all_cases()
    cases += [Case(name, run) for name, run in (
        ('refused', refused), ('port-in-use', port_in_use),
        ('peer-hangs-up', hangs_up), ('peer-does-not-read', does_not_read),
        ('not-a-migration', garbage))]
    cases += failures.last_cases()
    cases += [Case('oracle', oracle), Case('damaged-on-the-wire', damaged)]
    return cases + told.all_cases() + responsive.all_cases()
