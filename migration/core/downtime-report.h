/*
 * What the destination tells of its part of the downtime
 *
 * The layout is WireReport's (wire.h, section 5).  Both functions are pure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_DOWNTIME_REPORT_H
#define MIGRATION_CORE_DOWNTIME_REPORT_H

#include "migration/base/ledger.h"
#include "migration/wire/wire.h"

QEMU_BUILD_BUG_ON(LEDGER_DEVICES_MAX > WIRE_REPORT_DEVICES_MAX);
QEMU_BUILD_BUG_ON(LEDGER_NAME_MAX > WIRE_REPORT_NAME_MAX);

/* Times that are not known yet are 0. */
typedef struct DowntimeReport {
    uint32_t attempt;
    uint64_t load_ns;           /* from the last byte to the last device */
    uint64_t activate_ns;       /* disks */
    uint64_t start_ns;          /* until the last vCPU runs */
    LedgerDevices devices;      /* those that took longest to load */
} DowntimeReport;

/*
 * Returns the length of @payload.  Times are cut to microseconds, and to
 * 2^32 - 1 of them.
 */
size_t downtime_report_encode(const DowntimeReport *report,
                              uint8_t payload[WIRE_RP_REPORT_MAX]);

/* False if @payload, which a peer sent, is no report. */
bool downtime_report_decode(DowntimeReport *report, const uint8_t *payload,
                            size_t len);

#endif
