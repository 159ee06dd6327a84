/*
 * Migration in the human monitor: what somebody has to know at a glance
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "summary.h"

/* Columns of the bar, and of the labels before each line */
#define BAR_WIDTH 30
#define LABEL_WIDTH 11
/* Where a list of parts goes on in the next line */
#define LINE_WIDTH 79

static void summary_label(GString *out, const char *label)
{
    g_string_append_printf(out, "%-*s", LABEL_WIDTH, label);
}

/* A label may be all there is to tell. */
static void summary_end(GString *out)
{
    while (out->len && out->str[out->len - 1] == ' ') {
        g_string_truncate(out, out->len - 1);
    }
    g_string_append_c(out, '\n');
}

static void summary_bytes(GString *out, uint64_t bytes)
{
    g_autofree char *text = size_to_str(bytes);

    g_string_append(out, text);
}

/* Three digits are enough to be compared with a limit. */
static void summary_ms(GString *out, double ms)
{
    if (ms >= 10000) {
        g_string_append_printf(out, "%.1f s", ms / 1000);
    } else {
        g_string_append_printf(out, "%.*f ms", ms < 10 ? 2 : ms < 100 ? 1 : 0,
                               ms);
    }
}

static void summary_seconds(GString *out, uint64_t ms)
{
    g_string_append_printf(out, "%.1f s", ms / 1000.0);
}

/* Only 100 % fills it. */
static void summary_bar(GString *out, unsigned percent)
{
    unsigned full = MIN(percent, 100) * BAR_WIDTH / 100;

    g_string_append_c(out, '[');
    for (unsigned i = 0; i < BAR_WIDTH; i++) {
        g_string_append_c(out, i < full ? '#' : '.');
    }
    g_string_append_printf(out, "] %3u %%", percent);
}

static bool summary_is_over(const MigrationInfo *info)
{
    return info->progress->phase == MIGRATION_PHASE_OVER;
}

static void summary_eta(GString *out, const MigrationProgress *progress)
{
    const MigrationEta *eta = progress->eta;

    if (!eta) {
        bool passes = progress->phase == MIGRATION_PHASE_LATER_PASS;

        g_string_append(out, passes ? ", does not converge" : "");
        return;
    }
    g_string_append(out, ", ");
    summary_seconds(out, eta->likely_ms);
    g_string_append_printf(out, " left (%.1f ", eta->low_ms / 1000.0);
    if (eta->has_high_ms) {
        g_string_append_printf(out, "to %.1f)", eta->high_ms / 1000.0);
    } else {
        g_string_append(out, "or more)");
    }
}

static void summary_phase(GString *out, const MigrationInfo *info)
{
    const MigrationProgress *progress = info->progress;

    summary_label(out, MigrationPhase_str(progress->phase));
    if (progress->has_percent) {
        summary_bar(out, progress->percent);
        if (!summary_is_over(info)) {
            summary_eta(out, progress);
        }
    }
    if (info->has_total_time) {
        g_string_append(out, summary_is_over(info) ? " in " : ", after ");
        summary_seconds(out, info->total_time);
    }
    summary_end(out);
}

static void summary_memory(GString *out, const MigrationInfo *info)
{
    const MigrationStats *ram = info->ram;

    if (!ram) {
        return;
    }
    summary_label(out, "memory");
    summary_bytes(out, ram->transferred);
    g_string_append(out, " sent, ");
    if (!summary_is_over(info)) {
        summary_bytes(out, ram->remaining);
        g_string_append(out, " of ");
    }
    summary_bytes(out, ram->total);
    g_string_append_printf(out, "%s, pass %" PRIu64,
                           summary_is_over(info) ? " in all" : " left",
                           ram->dirty_sync_count);
    if (info->has_remaining && info->remaining > ram->remaining) {
        g_string_append(out, ", and ");
        summary_bytes(out, info->remaining - ram->remaining);
        g_string_append(out, " of devices");
    }
    g_string_append_c(out, '\n');
}

static void summary_rates(GString *out, const MigrationInfo *info)
{
    const MigrationProgress *progress = info->progress;

    if (!progress->has_bandwidth) {
        return;
    }
    summary_label(out, "rate");
    summary_bytes(out, progress->bandwidth);
    g_string_append(out, "/s");
    if (progress->has_dirty_rate) {
        g_string_append(out, ", the guest changes ");
        summary_bytes(out, progress->dirty_rate);
        g_string_append(out, "/s");
    }
    if (info->has_cpu_throttle_percentage) {
        g_string_append_printf(out, ", vCPUs lose %" PRId64 " %%",
                               info->cpu_throttle_percentage);
    }
    g_string_append_c(out, '\n');
}

static size_t summary_column(const GString *out)
{
    const char *line = strrchr(out->str, '\n');

    return line ? out->str + out->len - line - 1 : out->len;
}

static void summary_parts(GString *out, const MigrationDowntimePartList *part)
{
    for (; part; part = part->next) {
        g_autoptr(GString) word = g_string_new(part->value->name);

        g_string_append_c(word, ' ');
        summary_ms(word, part->value->us / 1000.0);
        g_string_append(word, part->next ? "," : "");
        if (summary_column(out) + 1 + word->len > LINE_WIDTH) {
            g_string_append_c(out, '\n');
            summary_label(out, "");
        } else {
            g_string_append_c(out, ' ');
        }
        g_string_append_len(out, word->str, word->len);
    }
}

static void summary_downtime(GString *out, const MigrationProgress *progress,
                         uint64_t limit_ms)
{
    const MigrationDowntimePrediction *p = progress->predicted_downtime;
    const MigrationDowntime *was = progress->downtime;

    if (!was && !p) {
        return;
    }
    summary_label(out, "downtime");
    summary_ms(out, (was ? was->total_us : p->likely_us) / 1000.0);
    g_string_append(out, was ? " measured, limit " : " expected, limit ");
    summary_ms(out, limit_ms);
    if (!was) {
        g_string_append(out, ", from ");
        summary_ms(out, p->low_us / 1000.0);
        g_string_append(out, p->has_high_us ? " to " : " on");
        if (p->has_high_us) {
            summary_ms(out, p->high_us / 1000.0);
        }
    }
    if (was ? was->parts : p->parts) {
        g_string_append_c(out, ':');
        summary_parts(out, was ? was->parts : p->parts);
    }
    g_string_append_c(out, '\n');
}

static void summary_strict(GString *out, const MigrationStrictDowntime *strict)
{
    if (strict) {
        summary_label(out, "strict");
        g_string_append_printf(out, "attempt %" PRIu32 " of %" PRIu32 "%s%s\n",
                               strict->attempts, strict->attempts_max,
                               strict->why ? ": " : "", strict->why ?: "");
    }
}

static void summary_channel(GString *out, const MigrationChannelStats *c)
{
    g_autofree char *label = g_strdup_printf("channel %u", c->id);

    summary_label(out, label);
    summary_bytes(out, c->bytes);
    g_string_append(out, " for ");
    summary_bytes(out, c->memory);
    g_string_append_printf(out, " of memory, busy %u %%", c->busy);
    if (c->compression != MULTIFD_COMPRESSION_NONE) {
        g_string_append_printf(out, ", %s",
                               MultiFDCompression_str(c->compression));
        if (c->has_level) {
            g_string_append_printf(out, " at level %d", c->level);
        }
        g_string_append_printf(out, ", ratio %u %%", c->ratio);
    }
    g_string_append_c(out, '\n');
}

static void summary_page_faults(GString *out, const MigrationProgress *progress)
{
    const MigrationPageRequests *served = progress->served;
    const MigrationPageFaults *faults = progress->faults;

    if (served) {
        summary_label(out, "requests");
        g_string_append_printf(out, "%" PRIu64 " pages, %" PRIu64
                               " of them sent urgently\n", served->asked,
                               served->urgent);
    }
    if (faults) {
        summary_label(out, "waits");
        g_string_append_printf(out, "%" PRIu64 " for a page: half within ",
                               faults->count);
        summary_ms(out, faults->p50_us / 1000.0);
        g_string_append(out, ", 99 % within ");
        summary_ms(out, faults->p99_us / 1000.0);
        g_string_append(out, ", at most ");
        summary_ms(out, faults->max_us / 1000.0);
        g_string_append_c(out, '\n');
    }
}

char *summary_text(const MigrationInfo *info, uint64_t limit_ms)
{
    const MigrationProgress *progress = info->progress;
    GString *out = g_string_new("");

    if (!progress) {
        return g_string_free(out, false);
    }
    summary_phase(out, info);
    summary_memory(out, info);
    summary_rates(out, info);
    summary_downtime(out, progress, limit_ms);
    summary_strict(out, progress->strict);
    if (progress->decision) {
        summary_label(out, "decision");
        g_string_append_printf(out, "%s\n", progress->decision);
    }
    summary_page_faults(out, progress);
    for (const MigrationChannelStatsList *c = progress->channels; c;
         c = c->next) {
        summary_channel(out, c->value);
    }
    return g_string_free(out, false);
}
