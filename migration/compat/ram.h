/*
 * Guest memory: what others ask of ram/
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_COMPAT_RAM_H
#define MIGRATION_COMPAT_RAM_H

#include "exec/cpu-common.h"
#include "qapi/qapi-types-migration.h"
#include "migration/misc.h"

/* Blocks that migrate; with "ignored" left out, those whose pages do. RCU. */
#define RAMBLOCK_FOREACH_MIGRATABLE(block) \
    INTERNAL_RAMBLOCK_FOREACH(block) \
        if (qemu_ram_is_migratable(block))
#define RAMBLOCK_FOREACH_NOT_IGNORED(block) \
    INTERNAL_RAMBLOCK_FOREACH(block) \
        if (!migrate_ram_is_ignored(block))

/* Prepares the section "ram", so that it can be registered. Once. */
void ram_mig_init(void);

/* Bytes: known to be dirty, and what there is in all. Any thread. */
uint64_t ram_bytes_remaining(void);
uint64_t ram_bytes_total(void);

/* The migration thread's own; others take a copy of what they were lately. */
extern XBZRLECacheStats xbzrle_counters;
void ram_delta_counters(XBZRLECacheStats *counters);

/*
 * Have an xbzrle cache of @size bytes, an empty one, from the next run of
 * pages on, if there is one.  False if that cannot be; the old one is then
 * still used.  BQL.
 */
bool ram_delta_resize(uint64_t size, Error **errp);

#endif
