/*
 * Sending RAM: what core/ and api/ know of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * RAM is sent by the handlers of the section "ram", as other devices are.
 * The rest is here; the names others link to are in migration/ram.h.
 */

#ifndef MIGRATION_RAM_RAM_SOURCE_H
#define MIGRATION_RAM_RAM_SOURCE_H

/* What a sync of the dirty log found, and what it took */
typedef struct RamSyncReport {
    bool first;             /* nothing was dirtied: everything is to be sent */
    uint64_t dirtied;       /* bytes that were clean before */
    uint64_t interval_ns;   /* since the sync before */
    uint64_t took_ns;
    uint64_t bql_ns;        /* of it, with the BQL held */
} RamSyncReport;

/*
 * The last sync, if there was one that has not been asked for.  Migration
 * thread.
 */
bool ram_source_last_sync(RamSyncReport *report);

/*
 * What the peer understands: WIRE_PEER_*.  After the section has been set up,
 * which sets it to nothing, and before it is first iterated over.  Migration
 * thread.
 */
void ram_source_set_peer(uint32_t features);

#endif
