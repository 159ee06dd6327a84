#!/usr/bin/env python3
"""Compare migration/wire/wire.h with a table of its own and with the base.

usage: check-wire-constants.py [BASE_TREE]

The table below was written down from the specification of the stream. Each row
has the name in wire.h, the value, and where the base says the same: a file and
an expression over the macros and enumerations in it, or nothing where the base
has no name for it. Without BASE_TREE (build/tree/pristine if it is there) the
table alone is compared. Speaks TAP.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HEADER = ROOT / 'migration' / 'wire' / 'wire.h'

SAVEVM_H = 'migration/savevm.h'
SAVEVM_C = 'migration/savevm.c'
MIGRATION_C = 'migration/migration.c'
RAM_H = 'migration/ram.h'
RAM_C = 'migration/ram.c'
MULTIFD_H = 'migration/multifd.h'
MULTIFD_C = 'migration/multifd.c'
CPR_H = 'include/migration/cpr.h'
BITMAP_C = 'migration/block-dirty-bitmap.c'

# name in wire.h without WIRE_, value, file of the base, expression there
TABLE: list[tuple[str, int, str, str]] = [
    ('FILE_MAGIC', 0x5145564d, SAVEVM_H, 'QEMU_VM_FILE_MAGIC'),
    ('FILE_VERSION', 3, SAVEVM_H, 'QEMU_VM_FILE_VERSION'),
    ('FILE_VERSION_OLD', 2, SAVEVM_H, 'QEMU_VM_FILE_VERSION_COMPAT'),
    ('EOF', 0, SAVEVM_H, 'QEMU_VM_EOF'),
    ('SECTION_START', 1, SAVEVM_H, 'QEMU_VM_SECTION_START'),
    ('SECTION_PART', 2, SAVEVM_H, 'QEMU_VM_SECTION_PART'),
    ('SECTION_END', 3, SAVEVM_H, 'QEMU_VM_SECTION_END'),
    ('SECTION_FULL', 4, SAVEVM_H, 'QEMU_VM_SECTION_FULL'),
    ('SUBSECTION', 5, SAVEVM_H, 'QEMU_VM_SUBSECTION'),
    ('VMDESCRIPTION', 6, SAVEVM_H, 'QEMU_VM_VMDESCRIPTION'),
    ('CONFIGURATION', 7, SAVEVM_H, 'QEMU_VM_CONFIGURATION'),
    ('COMMAND', 8, SAVEVM_H, 'QEMU_VM_COMMAND'),
    ('SECTION_FOOTER', 0x7e, SAVEVM_H, 'QEMU_VM_SECTION_FOOTER'),
    ('CMD_OPEN_RETURN_PATH', 1, SAVEVM_C, 'MIG_CMD_OPEN_RETURN_PATH'),
    ('CMD_PING', 2, SAVEVM_C, 'MIG_CMD_PING'),
    ('CMD_POSTCOPY_ADVISE', 3, SAVEVM_C, 'MIG_CMD_POSTCOPY_ADVISE'),
    ('CMD_POSTCOPY_LISTEN', 4, SAVEVM_C, 'MIG_CMD_POSTCOPY_LISTEN'),
    ('CMD_POSTCOPY_RUN', 5, SAVEVM_C, 'MIG_CMD_POSTCOPY_RUN'),
    ('CMD_POSTCOPY_DISCARD', 6, SAVEVM_C, 'MIG_CMD_POSTCOPY_RAM_DISCARD'),
    ('CMD_PACKAGED', 7, SAVEVM_C, 'MIG_CMD_PACKAGED'),
    ('CMD_ENABLE_COLO', 8, SAVEVM_C, 'MIG_CMD_ENABLE_COLO'),
    ('CMD_POSTCOPY_RESUME', 9, SAVEVM_C, 'MIG_CMD_POSTCOPY_RESUME'),
    ('CMD_RECV_BITMAP', 10, SAVEVM_C, 'MIG_CMD_RECV_BITMAP'),
    ('CMD_SWITCHOVER_START', 11, SAVEVM_C, 'MIG_CMD_SWITCHOVER_START'),
    ('CMD_PING_LEN', 4, '', ''),
    ('CMD_POSTCOPY_ADVISE_LEN', 16, '', ''),
    ('CMD_PACKAGED_LEN', 4, '', ''),
    ('RP_SHUT', 1, MIGRATION_C, 'MIG_RP_MSG_SHUT'),
    ('RP_PONG', 2, MIGRATION_C, 'MIG_RP_MSG_PONG'),
    ('RP_REQ_PAGES_ID', 3, MIGRATION_C, 'MIG_RP_MSG_REQ_PAGES_ID'),
    ('RP_REQ_PAGES', 4, MIGRATION_C, 'MIG_RP_MSG_REQ_PAGES'),
    ('RP_RECV_BITMAP', 5, MIGRATION_C, 'MIG_RP_MSG_RECV_BITMAP'),
    ('RP_RESUME_ACK', 6, MIGRATION_C, 'MIG_RP_MSG_RESUME_ACK'),
    ('RP_SWITCHOVER_ACK', 7, MIGRATION_C, 'MIG_RP_MSG_SWITCHOVER_ACK'),
    ('RP_SHUT_LEN', 4, '', ''),
    ('RP_PONG_LEN', 4, '', ''),
    ('RP_REQ_PAGES_LEN', 12, '', ''),
    ('RP_RESUME_ACK_LEN', 4, '', ''),
    ('RP_PAYLOAD_MAX', 512, '', ''),
    ('RESUME_ACK_OK', 1, 'migration/migration.h', 'MIGRATION_RESUME_ACK_VALUE'),
    ('RECV_BITMAP_END', 0x0123456789abcdef, RAM_C,
     'RAMBLOCK_RECV_BITMAP_ENDING'),
    ('RAM_ZERO', 0x002, RAM_H, 'RAM_SAVE_FLAG_ZERO'),
    ('RAM_MEM_SIZE', 0x004, RAM_H, 'RAM_SAVE_FLAG_MEM_SIZE'),
    ('RAM_PAGE', 0x008, RAM_H, 'RAM_SAVE_FLAG_PAGE'),
    ('RAM_EOS', 0x010, RAM_H, 'RAM_SAVE_FLAG_EOS'),
    ('RAM_CONTINUE', 0x020, RAM_H, 'RAM_SAVE_FLAG_CONTINUE'),
    ('RAM_XBZRLE', 0x040, RAM_H, 'RAM_SAVE_FLAG_XBZRLE'),
    ('RAM_HOOK', 0x080, RAM_H, 'RAM_SAVE_FLAG_HOOK'),
    ('RAM_MULTIFD_FLUSH', 0x200, RAM_H, 'RAM_SAVE_FLAG_MULTIFD_FLUSH'),
    ('XBZRLE_ENCODING', 1, RAM_C, 'ENCODING_FLAG_XBZRLE'),
    ('RAM_RUN', 0x400, '', ''),
    ('RAM_ZERO_RANGE', 0x800, '', ''),
    ('RAM_RUN_MAX', 512, '', ''),
    ('PEER_PAGE_SIZE_MIN', 0x1000, '', ''),
    ('PING_START', 1, '', ''),
    ('PING_POSTCOPY', 2, '', ''),
    ('PING_DEVICES_LOADED', 3, '', ''),
    ('PING_PACKAGE_SENT', 4, '', ''),
    ('PING_ROUND_TRIP', 0xff, '', ''),
    ('PING_DRAIN', 0x100, '', ''),
    ('PING_PACE', 0x50000000, '', ''),
    ('PING_PACE_MASK', 0xff000000, '', ''),
    ('PEER_HELLO', 0x46455252, '', ''),
    ('PEER_OFFER', 0xfd000000, '', ''),
    ('PEER_MARK', 0xfe000000, '', ''),
    ('PEER_ZERO_RANGE', 1, '', ''),
    ('PEER_PAGE_RUN', 2, '', ''),
    ('PEER_INVENTORY', 0x1000, '', ''),
    ('CMD_INVENTORY', 0x4608, '', ''),
    ('CMD_WITHDRAW', 0x4609, '', ''),
    ('CMD_LAYOUTS', 0x460e, '', ''),
    ('RP_INVENTORY', 0x4612, '', ''),
    ('PEER_CHECKPOINT', 0x2000, '', ''),
    ('CMD_CHECKPOINT', 0x460a, '', ''),
    ('CMD_CHECKPOINT_LEN', 16, '', ''),
    ('CMD_CHECKPOINT_END', 0x460b, '', ''),
    ('CMD_CHECKPOINT_END_LEN', 8, '', ''),
    ('PEER_CHECKPOINT_DISKS', 0x8000, '', ''),
    ('CMD_CHECKPOINT_DISKS', 0x460c, '', ''),
    ('CMD_CHECKPOINT_DISKS_LEN', 4, '', ''),
    ('RP_CHECKPOINT_ACK', 0x4613, '', ''),
    ('RP_CHECKPOINT_ACK_LEN', 8, '', ''),
    ('INVENTORY_MAX', 0x40000, '', ''),
    ('INVENTORY_ITEMS_MAX', 0x2000, '', ''),
    ('INVENTORY_MACHINE', 1, '', ''),
    ('INVENTORY_CAPABILITY', 2, '', ''),
    ('INVENTORY_PARAMETER', 3, '', ''),
    ('INVENTORY_CPU', 4, '', ''),
    ('INVENTORY_CPU_WORD', 5, '', ''),
    ('INVENTORY_RAM', 6, '', ''),
    ('INVENTORY_SECTION', 7, '', ''),
    ('INVENTORY_SUBSECTION', 8, '', ''),
    ('INVENTORY_NODE', 9, '', ''),
    ('INVENTORY_BITMAP', 10, '', ''),
    ('INVENTORY_PROBLEM', 11, '', ''),
    ('MAPPED_RAM_VERSION', 1, RAM_C, 'MAPPED_RAM_HDR_VERSION'),
    ('MAPPED_RAM_ALIGN', 0x100000, RAM_C, 'MAPPED_RAM_FILE_OFFSET_ALIGNMENT'),
    ('MULTIFD_MAGIC', 0x11223344, MULTIFD_C, 'MULTIFD_MAGIC'),
    ('MULTIFD_VERSION', 1, MULTIFD_C, 'MULTIFD_VERSION'),
    ('MULTIFD_SYNC', 0x01, MULTIFD_H, 'MULTIFD_FLAG_SYNC'),
    ('MULTIFD_METHOD', 0x3e, MULTIFD_H, 'MULTIFD_FLAG_COMPRESSION_MASK'),
    ('MULTIFD_NONE', 0x00, MULTIFD_H, 'MULTIFD_FLAG_NOCOMP'),
    ('MULTIFD_ZLIB', 0x02, MULTIFD_H, 'MULTIFD_FLAG_ZLIB'),
    ('MULTIFD_ZSTD', 0x04, MULTIFD_H, 'MULTIFD_FLAG_ZSTD'),
    ('MULTIFD_QPL', 0x08, MULTIFD_H, 'MULTIFD_FLAG_QPL'),
    ('MULTIFD_UADK', 0x10, MULTIFD_H, 'MULTIFD_FLAG_UADK'),
    ('MULTIFD_QATZIP', 0x20, MULTIFD_H, 'MULTIFD_FLAG_QATZIP'),
    ('MULTIFD_DEVICE_STATE', 0x40, MULTIFD_H, 'MULTIFD_FLAG_DEVICE_STATE'),
    ('MULTIFD_PACKET_MEMORY', 512 * 1024, MULTIFD_H, 'MULTIFD_PACKET_SIZE'),
    ('CPR_MAGIC', 0x51435052, CPR_H, 'QEMU_CPR_FILE_MAGIC'),
    ('CPR_VERSION', 1, CPR_H, 'QEMU_CPR_FILE_VERSION'),
    ('BITMAP_EOS', 0x01, BITMAP_C,
     'DIRTY_BITMAP_MIG_FLAG_EOS'),
    ('BITMAP_ZEROES', 0x02, BITMAP_C,
     'DIRTY_BITMAP_MIG_FLAG_ZEROES'),
    ('BITMAP_NAME', 0x04, BITMAP_C,
     'DIRTY_BITMAP_MIG_FLAG_BITMAP_NAME'),
    ('BITMAP_NODE', 0x08, BITMAP_C,
     'DIRTY_BITMAP_MIG_FLAG_DEVICE_NAME'),
    ('BITMAP_START', 0x10, BITMAP_C,
     'DIRTY_BITMAP_MIG_FLAG_START'),
    ('BITMAP_COMPLETE', 0x20, BITMAP_C,
     'DIRTY_BITMAP_MIG_FLAG_COMPLETE'),
    ('BITMAP_BITS', 0x40, BITMAP_C,
     'DIRTY_BITMAP_MIG_FLAG_BITS'),
    ('BITMAP_MORE', 0x80, BITMAP_C,
     'DIRTY_BITMAP_MIG_EXTRA_FLAGS'),
    ('BITMAP_ENABLED', 0x01, BITMAP_C, 'DIRTY_BITMAP_MIG_START_FLAG_ENABLED'),
    ('BITMAP_PERSISTENT', 0x02, BITMAP_C,
     'DIRTY_BITMAP_MIG_START_FLAG_PERSISTENT'),
    ('BITMAP_CHUNK', 1024, BITMAP_C, 'CHUNK_SIZE'),
]

COMMENT = re.compile(r'/\*.*?\*/', re.S)
DEFINE = re.compile(r'^#define[ \t]+(\w+)[ \t]+(\S.*)$', re.M)
ENUM = re.compile(r'\benum\b\s*\w*\s*{([^{}]*)}', re.S)
SUFFIX = re.compile(r'\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]+\b')
ARITHMETIC = re.compile(r'[0-9a-fA-FxX\s()<>|&+*-]+')


def definitions(path: Path) -> dict[str, str]:
    """The object-like macros and the enumerators of a C file, as text."""
    text = COMMENT.sub(' ', path.read_text(encoding='utf-8'))
    text = text.replace('\\\n', ' ')
    found = dict(DEFINE.findall(text))
    for body in ENUM.findall(text):
        last = '-1'
        for entry in filter(None, (e.strip() for e in body.split(','))):
            name, _, value = (p.strip() for p in entry.partition('='))
            last = f'({value})' if value else f'({last} + 1)'
            found.setdefault(name, last)
    return found


def evaluate(name: str, found: dict[str, str]) -> int | None:
    """What a name comes to, or None if that is not a plain number."""
    text = found.get(name, '')
    for _ in range(50):
        text = SUFFIX.sub(r'\1', text)
        names = [n for n in re.findall(r'\b[A-Za-z_]\w*\b', text)]
        if not names:
            break
        for n in names:
            if n not in found:
                return None
            text = re.sub(rf'\b{n}\b', f'({found[n]})', text)
    if not text or not ARITHMETIC.fullmatch(text):
        return None
    return eval(text, {'__builtins__': {}})  # digits and operators only


def complaint(row: tuple[str, int, str, str], ours: dict[str, str],
              base: Path | None) -> str:
    """What is wrong with one row, or nothing."""
    name, value, file, theirs = row
    have = evaluate('WIRE_' + name, ours)
    if have != value:
        return f'wire.h says {have}, the table {value}'
    if base and file:
        have = evaluate(theirs, definitions(base / file))
        if have != value:
            return f'{file} says {theirs} is {have}, the table {value}'
    return ''


def main(argv: list[str]) -> int:
    if len(argv) > 2:
        print(__doc__.split('\n\n')[1], file=sys.stderr)
        return 2
    base = Path(argv[1]) if len(argv) == 2 else ROOT / 'build/tree/pristine'
    if not (base / SAVEVM_H).exists():
        if len(argv) == 2:
            print(f'error: {base} is not a QEMU source tree', file=sys.stderr)
            return 2
        base = None
    ours = definitions(HEADER)
    bad = 0
    print(f'1..{len(TABLE)}')
    for number, row in enumerate(TABLE, 1):
        problem = complaint(row, ours, base)
        bad += bool(problem)
        if problem:
            print(f'# WIRE_{row[0]}: {problem}')
        print(f'{"not ok" if problem else "ok"} {number} - WIRE_{row[0]}')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv))
