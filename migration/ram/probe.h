/*
 * What can be found out about the guest's memory while nothing is sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_RAM_PROBE_H
#define MIGRATION_RAM_PROBE_H

/* Of pages that are taken evenly from all that exist */
typedef struct RamSample {
    uint64_t existing;          /* bytes, see existing.h */
    unsigned pages;             /* that were looked at */
    unsigned zero;              /* of these */
    unsigned ratio;             /* of the others: bytes for 100 from zlib */
    uint64_t speed;             /* bytes/s of one thread that compresses them */
} RamSample;

/* Reads and compresses a few hundred pages: some milliseconds.  BQL. */
void ram_sample(RamSample *sample);

/*
 * How much is dirtied, by the dirty log, between begin and end.  One at a time;
 * a migration or snapshot that starts ends it.  Memory that is unplugged
 * meanwhile stays until the end.
 */

/* False if the log is in use, or there is no memory for it.  BQL. */
bool ram_probe_begin(Error **errp);

/*
 * Bytes of pages that were written to at least once since then; false if the
 * probe was ended by somebody else.  BQL.
 */
bool ram_probe_look(uint64_t *dirtied, Error **errp);

/* Does nothing if it was ended already.  BQL. */
void ram_probe_end(void);

#endif
