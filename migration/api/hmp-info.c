/*
 * Migration in the human monitor: "info migrate" and its capabilities
 *
 * "info migrate" is a summary (summary.c), and with -a every figure in the
 * wording that scripts have been reading for years; a row is one line of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qemu/sockets.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qobject/qdict.h"
#include "system/system.h"
#include "hmp-progress.h"
#include "summary.h"

typedef enum InfoForm {
    COUNT,              /* a number of 64 bits */
    COUNT_IF_ANY,       /* the same; no line if it is 0 */
    KIB,                /* the same in bytes, shown in KiB */
    KIB_IF_ANY,
    FRACTION,           /* a double */
} InfoForm;

typedef struct InfoRow {
    const char *label;
    InfoForm form;
    const char *unit;
    size_t offset;      /* of the member in its struct */
} InfoRow;

#define XBZRLE(label, form, unit, member) \
    { label, form, unit, offsetof(XBZRLECacheStats, member) }

static const InfoRow ram_rows[] = {
#define RAM_FIGURE(member, label, form, unit) \
    { label, form, unit, offsetof(MigrationStats, member) },
#define RAM_COUNTER(counter, ...) RAM_FIGURE(__VA_ARGS__)
#include "migration/base/ram-stats.def"
};

/* Each member of the schema has its row. */
QEMU_BUILD_BUG_ON(ARRAY_SIZE(ram_rows) * sizeof(uint64_t) !=
                  sizeof(MigrationStats));

static const InfoRow xbzrle_rows[] = {
    XBZRLE("cache size", COUNT, "bytes", cache_size),
    XBZRLE("xbzrle transferred", KIB, "kbytes", bytes),
    XBZRLE("xbzrle pages", COUNT, "pages", pages),
    XBZRLE("xbzrle cache miss", COUNT, "pages", cache_miss),
    XBZRLE("xbzrle cache miss rate", FRACTION, "", cache_miss_rate),
    XBZRLE("xbzrle encoding rate", FRACTION, "", encoding_rate),
    XBZRLE("xbzrle overflow", COUNT, "", overflow),
};

#undef XBZRLE

static void print_count(Monitor *mon, const char *label, uint64_t value,
                        const char *unit)
{
    monitor_printf(mon, "%s: %" PRIu64 "%s%s\n", label, value,
                   *unit ? " " : "", unit);
}

static void print_row(Monitor *mon, const InfoRow *row, const void *from)
{
    const void *member = (const char *)from + row->offset;
    uint64_t value = *(const uint64_t *)member;

    switch (row->form) {
    case FRACTION:
        monitor_printf(mon, "%s: %0.2f%s%s\n", row->label,
                       *(const double *)member, *row->unit ? " " : "",
                       row->unit);
        break;
    case COUNT_IF_ANY:
    case KIB_IF_ANY:
        if (!value) {
            break;
        }
        /* fall through */
    case COUNT:
    case KIB:
        if (row->form == KIB || row->form == KIB_IF_ANY) {
            value >>= 10;
        }
        print_count(mon, row->label, value, row->unit);
        break;
    }
}

static void print_list(Monitor *mon, const char *label, const uint64List *list)
{
    monitor_printf(mon, "%s:", label);
    for (; list; list = list->next) {
        monitor_printf(mon, " %" PRIu64, list->value);
    }
    monitor_printf(mon, "\n");
}

static void print_rows(Monitor *mon, const InfoRow *rows, size_t n,
                       const void *from)
{
    for (size_t i = 0; from && i < n; i++) {
        print_row(mon, &rows[i], from);
    }
}

static void print_switch(Monitor *mon, const char *name, bool on)
{
    monitor_printf(mon, "%s: %s\n", name, on ? "on" : "off");
}

/* What is not set by commands, but by the command line or machine type. */
static void print_globals(Monitor *mon)
{
    const MigrationState *s = migrate_get_current();

    monitor_printf(mon, "globals:\n");
    print_switch(mon, "store-global-state", s->store_global_state);
    print_switch(mon, "only-migratable", only_migratable);
    print_switch(mon, "send-configuration", s->send_configuration);
    print_switch(mon, "send-section-footer", s->send_section_footer);
    print_switch(mon, "send-switchover-start", s->send_switchover_start);
    print_count(mon, "clear-bitmap-shift", s->clear_bitmap_shift, "");
}

static void print_blockers(Monitor *mon, const strList *why)
{
    if (why) {
        monitor_printf(mon, "Outgoing migration blocked:\n");
    }
    for (; why; why = why->next) {
        monitor_printf(mon, "  %s\n", why->value);
    }
}

static void print_times(Monitor *mon, const MigrationInfo *info)
{
    print_count(mon, "total time", info->total_time, "ms");
    if (info->has_expected_downtime) {
        print_count(mon, "expected downtime", info->expected_downtime, "ms");
    }
    if (info->has_downtime) {
        print_count(mon, "downtime", info->downtime, "ms");
    }
    if (info->has_setup_time) {
        print_count(mon, "setup", info->setup_time, "ms");
    }
}

/* The first line has the same words in both forms: scripts wait for it. */
static void print_status(Monitor *mon, const MigrationInfo *info, bool times)
{
    const char *why = info->error_desc;

    if (!info->has_status) {
        return;
    }
    monitor_printf(mon, "Migration status: %s%s%s%s\n",
                   MigrationStatus_str(info->status), why ? " (" : "",
                   why ?: "", why ? ")" : "");
    if (times) {
        print_times(mon, info);
    }
}

static void print_throttle(Monitor *mon, const MigrationInfo *info)
{
    if (info->has_cpu_throttle_percentage) {
        print_count(mon, "cpu throttle percentage",
                    info->cpu_throttle_percentage, "");
    }
    if (info->has_dirty_limit_throttle_time_per_round) {
        print_count(mon, "dirty-limit throttle time",
                    info->dirty_limit_throttle_time_per_round, "us");
    }
    if (info->has_dirty_limit_ring_full_time) {
        print_count(mon, "dirty-limit ring full time",
                    info->dirty_limit_ring_full_time, "us");
    }
}

/* One for each vCPU, in their order */
static void print_blocktime(Monitor *mon, const MigrationInfo *info)
{
    const uint32List *vcpu = info->postcopy_vcpu_blocktime;

    if (info->has_postcopy_blocktime) {
        print_count(mon, "postcopy blocktime", info->postcopy_blocktime, "");
    }
    if (!info->has_postcopy_vcpu_blocktime) {
        return;
    }
    monitor_printf(mon, "postcopy vcpu blocktime:");
    for (bool first = true; vcpu; vcpu = vcpu->next, first = false) {
        monitor_printf(mon, "%s%" PRIu32, first ? " " : ",", vcpu->value);
    }
    monitor_printf(mon, "\n");
}

static void print_latency(Monitor *mon, const MigrationInfo *info)
{
    if (!info->has_postcopy_latency) {
        return;
    }
    print_count(mon, "postcopy latency", info->postcopy_latency, "ns");
    print_count(mon, "postcopy non-vCPU latency",
                info->postcopy_non_vcpu_latency, "ns");
    print_list(mon, "postcopy vCPU latency", info->postcopy_vcpu_latency);
    print_list(mon, "postcopy latency, distribution",
               info->postcopy_latency_dist);
}

static void print_addresses(Monitor *mon, const MigrationInfo *info)
{
    if (!info->has_socket_address) {
        return;
    }
    monitor_printf(mon, "socket address: [\n");
    for (SocketAddressList *a = info->socket_address; a; a = a->next) {
        g_autofree char *uri = socket_uri(a->value);

        monitor_printf(mon, "\t%s\n", uri);
    }
    monitor_printf(mon, "]\n");
}

/* With -a: every member of the answer, a line each */
static void print_all(Monitor *mon, const MigrationInfo *info)
{
    print_rows(mon, ram_rows, ARRAY_SIZE(ram_rows), info->ram);
    if (info->has_remaining) {
        print_count(mon, "remaining in all", info->remaining >> 10, "kbytes");
    }
    print_rows(mon, xbzrle_rows, ARRAY_SIZE(xbzrle_rows), info->xbzrle_cache);
    print_throttle(mon, info);
    print_blocktime(mon, info);
    print_latency(mon, info);
    hmp_print_progress(mon, info->progress);
}

static void print_summary(Monitor *mon, const MigrationInfo *info)
{
    g_autofree char *text = summary_text(info, migrate_downtime_limit());

    monitor_puts(mon, text);
}

void hmp_info_migrate(Monitor *mon, const QDict *qdict)
{
    bool all = qdict_get_try_bool(qdict, "all", false);
    g_autoptr(MigrationInfo) info = qmp_query_migrate(NULL);

    if (all) {
        print_globals(mon);
    }
    print_blockers(mon, info->blocked_reasons);
    print_status(mon, info, all);
    if (all) {
        print_all(mon, info);
    } else {
        print_summary(mon, info);
    }
    if (info->progress) {
        hmp_print_checkpoint(mon, info->progress->checkpoint);
    }
    print_addresses(mon, info);
    if (info->vfio) {
        print_count(mon, "vfio device transferred",
                    info->vfio->transferred >> 10, "kbytes");
    }
}

void hmp_info_migrate_capabilities(Monitor *mon, const QDict *qdict)
{
    g_autoptr(MigrationCapabilityStatusList) caps =
        qmp_query_migrate_capabilities(NULL);

    for (MigrationCapabilityStatusList *c = caps; c; c = c->next) {
        print_switch(mon, MigrationCapability_str(c->value->capability),
                     c->value->state);
    }
}
