/*
 * What a channel for urgent pages begins with
 *
 * The source sends nothing on it before the first page that was requested, so
 * that record is all that tells its connection from one of somebody else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_FIRST_RECORD_H
#define MIGRATION_POSTCOPY_FIRST_RECORD_H

#include "migration/ram/region.h"
#include "migration/wire/wire.h"

/* Header, length of a name, name */
#define FIRST_RECORD_BYTES (sizeof(uint64_t) + 1 + WIRE_NAME_MAX)

typedef enum FirstRecord {
    FIRST_RECORD_OURS,
    FIRST_RECORD_FOREIGN,
    FIRST_RECORD_SHORT,         /* it may become either */
} FirstRecord;

/* @data: the first @len bytes that came, up to FIRST_RECORD_BYTES.  Pure. */
FirstRecord first_record(const uint8_t *data, size_t len,
                         const RamRegions *regions);

#endif
