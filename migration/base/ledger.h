/*
 * Ledgers: where a guest's downtime and its stalls went
 *
 * A DowntimeLedger accounts for one switchover, from the moment the vCPUs are
 * asked to stop to the moment they run on the other side, part by part.  A
 * StallLedger accounts for what a guest feels of a migration while it runs:
 * each time that migration held the BQL.
 *
 * Both are plain values; all zero is an empty one, and a copy is as good as
 * the original.  Times are nanoseconds on one monotonic clock of this side,
 * whichever, as long as it is the same for all marks of a ledger.
 *
 * Threads: no locks here.  Who shows a ledger to other threads guards it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_LEDGER_H
#define MIGRATION_BASE_LEDGER_H

#include "qapi/qapi-types-migration.h"
#include "downtime-part.h"

typedef struct DowntimeLedger {
    uint64_t part_ns[DOWNTIME_PART__COUNT];
    uint32_t known;             /* bit i: part i was marked or added */
    bool begun;                 /* there was a mark: first and last are set */
    int64_t first_ns;           /* when the first of our parts began */
    int64_t last_ns;            /* when the last of them was over */
    uint64_t added_ns;          /* what came from elsewhere, see ledger_add() */
    DowntimePart last_part;     /* that was over at last_ns */
} DowntimeLedger;

/*
 * @part went on from @start_ns to @end_ns here.  A part may be marked more
 * than once, with pauses in between; the times add up.  An @end_ns before
 * @start_ns counts as no time.
 */
void ledger_mark(DowntimeLedger *l, DowntimePart part, int64_t start_ns,
                 int64_t end_ns);

/*
 * @part took @ns where our clock does not reach: it was measured by the other
 * side, or follows from a round trip.  Only for what happens before our first
 * mark or after our last: it makes the total longer by as much.
 */
void ledger_add(DowntimeLedger *l, DowntimePart part, uint64_t ns);

/*
 * The guest went on at @end_ns: what the last part marked has beyond that is
 * none of its downtime.
 */
void ledger_end(DowntimeLedger *l, int64_t end_ns);

/*
 * The last @ns, in which nothing was marked, belong to nobody here: what comes
 * next is as if it followed on what was marked last.
 */
void ledger_skip(DowntimeLedger *l, uint64_t ns);

/* Whether anything is known of @part. */
bool ledger_knows(const DowntimeLedger *l, DowntimePart part);

/*
 * From the first mark to the last, and what was added.  That is more than the
 * sum of the parts if there were gaps, and less if parts overlapped.
 */
uint64_t ledger_total_ns(const DowntimeLedger *l);

/* How much of the total no part accounts for; 0 if parts overlap. */
uint64_t ledger_gap_ns(const DowntimeLedger *l);

/* "stop 0.1 ms, ram 3.2 ms", for people; the caller frees it. */
char *ledger_text(const DowntimeLedger *l);

/* What the longest of many steps took, such as those of devices. */
#define LEDGER_DEVICES_MAX 10
#define LEDGER_NAME_MAX 40

typedef struct LedgerDevice {
    char name[LEDGER_NAME_MAX + 1];     /* cut off if it is longer */
    uint64_t ns;
} LedgerDevice;

typedef struct LedgerDevices {
    unsigned count;
    LedgerDevice list[LEDGER_DEVICES_MAX];  /* the longest first */
} LedgerDevices;

/* @name, with @instance unless that is 0, took @ns; below zero counts as 0. */
void ledger_device(LedgerDevices *l, const char *name, uint32_t instance,
                   int64_t ns);

/* As QMP has them; the caller frees them. */
MigrationDowntimePart *ledger_part(const char *name, uint64_t ns);
MigrationDowntime *ledger_downtime(const DowntimeLedger *l,
                                   const LedgerDevices *saved,
                                   const LedgerDevices *loaded);

typedef struct StallLedger {
    uint64_t count;
    uint64_t total_ns;
    uint64_t longest_ns;
    const char *longest_step;   /* NULL while there was none */
} StallLedger;

/*
 * The guest could not go on for @ns during @step, a word or two for people
 * that lives as long as the program.  Below zero counts as zero.
 */
void stall_record(StallLedger *l, const char *step, int64_t ns);

#endif
