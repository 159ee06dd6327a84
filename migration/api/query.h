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
#include "migration/postcopy/latency.h"
#include "migration/postcopy/sender.h"

/* Counters of guest memory since the migration began, and what is left. */
typedef struct RamInfo {
    uint64_t page_size;             /* of the target; bytes */
    uint64_t transferred;           /* bytes on all channels together */
    uint64_t remaining;             /* bytes known to be dirty */
    uint64_t total;                 /* bytes of memory that can migrate */
    uint64_t zero_pages;
    uint64_t normal_pages;
    uint64_t dirty_pages_rate;      /* pages per second */
    uint64_t dirty_sync_count;
    uint64_t zero_copy_missed;      /* syncs that copied nevertheless */
    uint64_t postcopy_requests;     /* pages asked for by the destination */
    uint64_t precopy_bytes;         /* transferred, by when it was */
    uint64_t downtime_bytes;
    uint64_t postcopy_bytes;
    uint64_t multifd_bytes;
    double mbps;                    /* 10^6 bits per second */
    double pages_per_second;
} RamInfo;

/* What a guest's owner wants to know, and the base's queries do not tell. */
typedef struct FerryInfo {
    PolicyView policy;              /* all zero on the destination */
    const char *decision;           /* reason of the last; NULL or "": none */
    StallLedger stalls;
    DowntimeLedger downtime;
    LedgerDevices saved, loaded;    /* devices that took longest */
    const StrictView *strict;       /* NULL: the limit is not enforced */
    uint32_t peer_version;          /* 0: not a Ferry, or not known (yet) */
    const strList *peer_features;   /* their names; NULL: none */
    PostcopySent sent;              /* all zero if nothing was asked for */
    const Latency *faults;          /* NULL: no page was ever missing */
    uint64_t requests;              /* sent because of these */
} FerryInfo;

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
    RamInfo ram;
    const XBZRLECacheStats *xbzrle; /* NULL: the capability is off */
    uint64_t throttle_percent;      /* 0: vCPUs are not throttled */
    bool dirty_limited;             /* the next two count */
    uint64_t dirty_limit_throttle_us;
    uint64_t dirty_limit_ring_full_us;
    bool has_vfio;
    uint64_t vfio_bytes;
    FerryInfo ferry;
} SourceInfo;

/* The same for the incoming migration. */
typedef struct DestInfo {
    MigrationStatus status;
    SocketAddressList *addresses;   /* where it listens; NULL: not on sockets */
    const char *error;
    bool has_blocktime;             /* the next two count */
    uint32_t blocktime_ms;          /* all vCPUs at once */
    uint32List *vcpu_blocktime_ms;
    FerryInfo ferry;
} DestInfo;

/*
 * What query-migrate answers; the caller frees it.  A QEMU may have been the
 * destination of one migration and be the source of another: what both sides
 * have to say is then the source's, once it has begun.
 * Context: any thread; pure.
 */
MigrationInfo *query_info(const SourceInfo *source, const DestInfo *dest);

/*
 * The `ferry` object alone, for one side; @status is not NONE.  The caller
 * frees it.
 */
FerryMigrationInfo *query_ferry(const FerryInfo *info, MigrationStatus status,
                                bool is_source);

#endif
