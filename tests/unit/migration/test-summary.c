/*
 * Unit tests of what "info migrate" shows at a glance
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/api/summary.h"
#include "setup.h"

#define MB (1024 * 1024ull)

static MigrationDowntimePart stop_part = { (char *)"stop", 900 };
static MigrationDowntimePart ram_part = { (char *)"ram", 401200 };
static MigrationDowntimePartList second = { .value = &ram_part };
static MigrationDowntimePartList first = { &second, &stop_part };
static MigrationEta eta = { 5100, 6400, true, 9800 };
static MigrationDowntimePrediction prediction = {
    .low_us = 371000, .likely_us = 412000, .has_high_us = true,
    .high_us = 530000, .parts = &first,
};
static MigrationStats ram = {
    .transferred = 702 * MB, .remaining = 611 * MB, .total = 2048 * MB,
    .dirty_sync_count = 3,
};

static MigrationProgress live_progress(void)
{
    return (MigrationProgress) {
        .phase = MIGRATION_PHASE_LATER_PASS, .has_percent = true,
        .percent = 48, .eta = &eta, .predicted_downtime = &prediction,
        .has_bandwidth = true, .bandwidth = 118 * MB,
        .has_dirty_rate = true, .dirty_rate = 31 * MB,
        .decision = (char *)"sending: more remains",
    };
}

static MigrationInfo live_info(MigrationProgress *progress)
{
    return (MigrationInfo) {
        .has_total_time = true, .total_time = 7213, .ram = &ram,
        .has_remaining = true, .remaining = ram.remaining,
        .progress = progress,
    };
}

static void check_text(const MigrationInfo *info, const char *expected)
{
    g_autofree char *text = summary_text(info, 300);

    g_assert_cmpstr(text, ==, expected);
}

static void test_live(void)
{
    MigrationProgress progress = live_progress();
    MigrationInfo info = live_info(&progress);

    check_text(&info,
"later-pass [##############................]  48 %, 6.4 s left (5.1 to 9.8), "
"after 7.2 s\n"
"memory     702 MiB sent, 611 MiB of 2 GiB left, pass 3\n"
"rate       118 MiB/s, the guest changes 31 MiB/s\n"
"downtime   412 ms expected, limit 300 ms, from 371 ms to 530 ms: "
"stop 0.90 ms,\n"
"           ram 401 ms\n"
"decision   sending: more remains\n");
}

/* What slows the guest down, and what other devices have still to send */
static void test_means(void)
{
    MigrationProgress progress = live_progress();
    MigrationInfo info = live_info(&progress);

    progress.eta = NULL;
    progress.predicted_downtime = NULL;
    progress.decision = NULL;
    info.has_cpu_throttle_percentage = true;
    info.cpu_throttle_percentage = 30;
    info.remaining += 5 * MB;
    check_text(&info,
"later-pass [##############................]  48 %, does not converge, "
"after 7.2 s\n"
"memory     702 MiB sent, 611 MiB of 2 GiB left, pass 3, and 5 MiB of "
"devices\n"
"rate       118 MiB/s, the guest changes 31 MiB/s, vCPUs lose 30 %\n");
}

static void test_over(void)
{
    MigrationDowntime was = { .total_us = 12345, .parts = &first };
    MigrationProgress progress = live_progress();
    MigrationInfo info = live_info(&progress);

    progress.phase = MIGRATION_PHASE_OVER;
    progress.percent = 100;
    progress.downtime = &was;
    progress.has_bandwidth = false;
    check_text(&info,
"over       [##############################] 100 % in 7.2 s\n"
"memory     702 MiB sent, 2 GiB in all, pass 3\n"
"downtime   12.3 ms measured, limit 300 ms: stop 0.90 ms, ram 401 ms\n"
"decision   sending: more remains\n");
}

/* Nothing is full before it is over, and nothing is shown that is not known. */
static void test_bounds(void)
{
    MigrationProgress progress = {
        .phase = MIGRATION_PHASE_FIRST_PASS, .has_percent = true,
        .percent = 99,
    };
    MigrationInfo info = { .progress = &progress };
    MigrationInfo none = {};

    check_text(&none, "");
    check_text(&info,
               "first-pass [#############################.]  99 %\n");
    progress = (MigrationProgress) { .phase = MIGRATION_PHASE_RECEIVING };
    check_text(&info, "receiving\n");
}

static void test_channels(void)
{
    MigrationChannelStats plain = {
        .id = 0, .bytes = 3 * MB, .memory = 3 * MB, .busy = 50,
    };
    MigrationChannelStats packed = {
        .id = 11, .bytes = 1 * MB, .memory = 4 * MB, .busy = 99,
        .compression = MULTIFD_COMPRESSION_ZLIB, .has_level = true, .level = 1,
        .ratio = 400,
    };
    MigrationChannelStatsList last = { .value = &packed };
    MigrationChannelStatsList list = { &last, &plain };
    MigrationProgress progress = {
        .phase = MIGRATION_PHASE_FIRST_PASS, .channels = &list,
    };
    MigrationInfo info = { .progress = &progress };

    check_text(&info,
"first-pass\n"
"channel 0  3 MiB for 3 MiB of memory, busy 50 %\n"
"channel 11 1 MiB for 4 MiB of memory, busy 99 %, zlib at level 1, "
"ratio 400 %\n");
}

static void test_postcopy(void)
{
    MigrationPageRequests served = { .asked = 9, .urgent = 6 };
    MigrationPageFaults faults = {
        .count = 12, .p50_us = 90, .p99_us = 12000, .max_us = 25000000,
    };
    MigrationStrictDowntime strict = {
        .attempts = 2, .attempts_max = 5, .why = (char *)"too slow",
    };
    MigrationProgress progress = {
        .phase = MIGRATION_PHASE_POSTCOPY, .served = &served,
        .faults = &faults, .strict = &strict,
    };
    MigrationInfo info = { .progress = &progress };

    check_text(&info,
"postcopy\n"
"strict     attempt 2 of 5: too slow\n"
"requests   9 pages, 6 of them sent urgently\n"
"waits      12 for a page: half within 0.09 ms, 99 % within 12.0 ms, at most "
"25.0 s\n");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/summary/live", test_live);
    g_test_add_func("/summary/means", test_means);
    g_test_add_func("/summary/over", test_over);
    g_test_add_func("/summary/bounds", test_bounds);
    g_test_add_func("/summary/channels", test_channels);
    g_test_add_func("/summary/postcopy", test_postcopy);
    return g_test_run();
}
