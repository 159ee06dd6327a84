/*
 * What query-migrate shows, as core/ fills it in
 *
 * core/ copies what there is to know into these structs, under whatever locks
 * that needs; the conversion to QMP is then a pure function of them: which
 * member is present in which status, and what is made of what.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_API_QUERY_H
#define MIGRATION_API_QUERY_H

#include "qapi/qapi-types-migration.h"
#include "migration/base/ledger.h"
#include "migration/base/policy.h"
#include "migration/source/switchover-strict.h"
#include "migration/postcopy/faults.h"
#include "migration/postcopy/latency.h"

/* What an operator has to know, and the base's queries do not show. */
typedef struct ProgressInfo {
    PolicyView policy;              /* all zero on the destination */
    const char *decision;           /* reason of the last; NULL or "": none */
    const char *waiting;            /* shown instead until the end; the same */
    StallLedger stalls;
    DowntimeLedger downtime;
    LedgerDevices saved, loaded;    /* devices that took longest */
    const StrictView *strict;       /* NULL: the limit is not enforced */
    uint32_t peer_version;          /* 0: QEMU 10.0, or not known (yet) */
    const strList *peer_features;   /* their names; NULL: none */
    MigrationPageRequests served;   /* all zero if nothing was requested */
    const MigrationChannelStatsList *channels;  /* NULL: there were none */
    const Latency *faults;          /* NULL: no page was ever missing */
    uint64_t requests;              /* sent because of these */
} ProgressInfo;

/*
 * The outgoing migration that runs, or the last one.  While @status is NONE
 * only @blocked_reasons counts.  Pointers are borrowed for the call.
 */
typedef struct SourceInfo {
    MigrationStatus status;
    const strList *blocked_reasons; /* why none could start; NULL: it could */
    const char *error;              /* NULL: none */
    uint64_t setup_ms;
    uint64_t total_ms;              /* until now, or until it was completed */
    uint64_t downtime_ms;           /* once the guest was stopped for good */
    uint64_t expected_downtime_ms;  /* until then */
    MigrationStats ram;             /* but for normal_bytes */
    uint64_t devices_remaining;     /* bytes, of what is no memory */
    const XBZRLECacheStats *xbzrle; /* NULL: the capability is off */
    uint64_t throttle_percent;      /* 0: vCPUs are not throttled */
    bool dirty_limited;             /* the next two count */
    uint64_t dirty_limit_throttle_us;
    uint64_t dirty_limit_ring_full_us;
    bool has_vfio;
    uint64_t vfio_bytes;
    ProgressInfo progress;
} SourceInfo;

/* The same for the incoming migration. */
typedef struct DestInfo {
    MigrationStatus status;
    SocketAddressList *addresses;   /* where it listens; NULL: not on sockets */
    const char *error;
    FaultsBlocktime blocktime;      /* of no vCPU: not measured; borrowed */
    ProgressInfo progress;
} DestInfo;

/*
 * What query-migrate answers; the caller frees it.  A QEMU may have been the
 * destination of one migration and be the source of another: what both sides
 * have to say is then the source's, once it has begun.
 * Context: any thread; pure.
 */
MigrationInfo *query_info(const SourceInfo *source, const DestInfo *dest);

/*
 * The `progress` object alone, for one side; @status is not NONE.  The caller
 * frees it.
 */
MigrationProgress *query_progress(const ProgressInfo *info,
                                  MigrationStatus status, bool is_source);

#endif
