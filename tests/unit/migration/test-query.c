/*
 * Unit tests of what query-migrate answers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-types-sockets.h"
#include "qapi/qapi-visit-migration.h"
#include "qapi/qobject-output-visitor.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "migration/api/query.h"

#define MS 1000000ull

/* The answer as it goes over the wire; the caller drops it. */
static QDict *answer(const SourceInfo *source, const DestInfo *dest)
{
    g_autoptr(MigrationInfo) info = query_info(source, dest);
    QObject *result;
    Visitor *v = qobject_output_visitor_new(&result);

    g_assert_true(visit_type_MigrationInfo(v, NULL, &info, NULL));
    visit_complete(v, &result);
    visit_free(v);
    return qobject_to(QDict, result);
}

static QDict *answer_source(const SourceInfo *source)
{
    DestInfo none = { .status = MIGRATION_STATUS_NONE };

    return answer(source, &none);
}

static QDict *answer_dest(const DestInfo *dest)
{
    SourceInfo none = { .status = MIGRATION_STATUS_NONE };

    return answer(&none, dest);
}

/* @dict has exactly the members in @names, a list with spaces between. */
static void check_members(const QDict *dict, const char *names)
{
    g_auto(GStrv) name = g_strsplit(names, " ", -1);

    for (int i = 0; name[i]; i++) {
        if (*name[i] && !qdict_haskey(dict, name[i])) {
            g_test_message("%s is missing", name[i]);
            g_test_fail();
        }
    }
    for (const QDictEntry *e = qdict_first(dict); e; e = qdict_next(dict, e)) {
        if (!g_strv_contains((const gchar * const *)name, qdict_entry_key(e))) {
            g_test_message("%s should not be there", qdict_entry_key(e));
            g_test_fail();
        }
    }
}

static uint64_t get_uint(const QDict *dict, const char *name)
{
    uint64_t value = 0;

    g_assert_true(qnum_get_try_uint(qobject_to(QNum, qdict_get(dict, name)),
                                    &value));
    return value;
}

static SourceInfo full_source(MigrationStatus status)
{
    static strList feature = { .value = (char *)"page-run" };
    static XBZRLECacheStats xbzrle = { .cache_size = 64, .overflow = 3 };
    SourceInfo info = {
        .status = status,
        .setup_ms = 3,
        .total_ms = 1234,
        .expected_downtime_ms = 45,
        .ram = { .page_size = 4096, .remaining = 77, .normal = 10,
                 .dirty_pages_rate = 9, .transferred = 5000 },
        .devices_remaining = 23,
        .xbzrle = &xbzrle,
        .throttle_percent = 30,
        .has_vfio = true,
        .vfio_bytes = 99,
        .progress = {
            .policy = {
                .bandwidth = 1 << 30, .dirty_rate = 1 << 20, .passes = 2,
                .downtime = { 10 * MS, 20 * MS, 30 * MS },
                .remaining = { 1000 * MS, 2000 * MS, 3000 * MS },
                .percent = 61,
            },
            .decision = "one more pass",
            .peer_version = 1,
            .peer_features = &feature,
        },
    };

    info.progress.policy.downtime_part[DOWNTIME_PART_RAM].likely = 15 * MS;
    info.progress.policy.downtime_part[DOWNTIME_PART_START].likely = 5 * MS;
    stall_record(&info.progress.stalls, "sync", 4 * MS);
    return info;
}

#define ALWAYS "status progress "
#define NUMBERS "setup-time total-time ram remaining xbzrle-cache " \
                "cpu-throttle-percentage vfio "

#define BLOCKTIME "socket-address postcopy-blocktime " \
                  "postcopy-vcpu-blocktime postcopy-latency " \
                  "postcopy-latency-dist postcopy-vcpu-latency " \
                  "postcopy-non-vcpu-latency"

static void test_nothing(void)
{
    SourceInfo source = full_source(MIGRATION_STATUS_NONE);
    g_autoptr(QDict) dict = answer_source(&source);

    check_members(dict, "");
}

static void test_blocked(void)
{
    strList second = { .value = (char *)"so too" };
    strList first = { .next = &second, .value = (char *)"because" };
    SourceInfo source = { .status = MIGRATION_STATUS_NONE,
                          .blocked_reasons = &first };
    g_autoptr(QDict) dict = answer_source(&source);

    check_members(dict, "blocked-reasons");
    g_assert_cmpuint(qlist_size(qdict_get_qlist(dict, "blocked-reasons")), ==,
                     2);
}

/* Which members are there has been promised for each status. */
static void test_members(void)
{
    static const struct {
        MigrationStatus status;
        const char *members;
    } rows[] = {
        { MIGRATION_STATUS_SETUP, ALWAYS },
        { MIGRATION_STATUS_WAIT_UNPLUG, ALWAYS },
        { MIGRATION_STATUS_ACTIVE, ALWAYS NUMBERS "expected-downtime" },
        { MIGRATION_STATUS_CANCELLING, ALWAYS NUMBERS "expected-downtime" },
        { MIGRATION_STATUS_PRE_SWITCHOVER,
          ALWAYS NUMBERS "expected-downtime" },
        { MIGRATION_STATUS_DEVICE, ALWAYS NUMBERS "expected-downtime" },
        { MIGRATION_STATUS_COMPLETED, ALWAYS NUMBERS "downtime" },
        { MIGRATION_STATUS_FAILED, ALWAYS },
        { MIGRATION_STATUS_CANCELLED, ALWAYS },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        SourceInfo source = full_source(rows[i].status);
        g_autoptr(QDict) dict = answer_source(&source);

        g_test_message("%s", MigrationStatus_str(rows[i].status));
        check_members(dict, rows[i].members);
        g_assert_cmpstr(qdict_get_str(dict, "status"), ==,
                        MigrationStatus_str(rows[i].status));
    }
}

static void test_numbers(void)
{
    SourceInfo source = full_source(MIGRATION_STATUS_ACTIVE);
    g_autoptr(QDict) live = answer_source(&source);
    g_autoptr(QDict) done = NULL;
    QDict *ram = qdict_get_qdict(live, "ram");

    g_assert_cmpuint(get_uint(ram, "remaining"), ==, 77);
    g_assert_cmpuint(get_uint(live, "remaining"), ==, 100);
    g_assert_cmpuint(get_uint(ram, "dirty-pages-rate"), ==, 9);
    g_assert_cmpuint(get_uint(ram, "normal-bytes"), ==, 40960);
    g_assert_cmpuint(get_uint(live, "expected-downtime"), ==, 45);
    g_assert_cmpuint(get_uint(qdict_get_qdict(live, "xbzrle-cache"),
                              "overflow"), ==, 3);

    source.status = MIGRATION_STATUS_COMPLETED;
    source.downtime_ms = 12;
    done = answer_source(&source);
    ram = qdict_get_qdict(done, "ram");
    g_assert_cmpuint(get_uint(ram, "remaining"), ==, 0);
    g_assert_cmpuint(get_uint(done, "remaining"), ==, 0);
    g_assert_cmpuint(get_uint(ram, "dirty-pages-rate"), ==, 0);
    g_assert_cmpuint(get_uint(ram, "transferred"), ==, 5000);
    g_assert_cmpuint(get_uint(done, "downtime"), ==, 12);
    g_assert_cmpuint(get_uint(done, "total-time"), ==, 1234);
}

static void test_what_is_off_is_absent(void)
{
    SourceInfo source = full_source(MIGRATION_STATUS_ACTIVE);
    g_autoptr(QDict) dict = NULL;

    source.xbzrle = NULL;
    source.throttle_percent = 0;
    source.has_vfio = false;
    source.dirty_limited = true;
    source.dirty_limit_ring_full_us = 5;
    dict = answer_source(&source);
    check_members(dict, ALWAYS "setup-time total-time ram remaining "
                  "expected-downtime "
                  "dirty-limit-throttle-time-per-round "
                  "dirty-limit-ring-full-time");
}

static void test_error(void)
{
    SourceInfo source = { .status = MIGRATION_STATUS_FAILED,
                          .error = "no way" };
    g_autoptr(QDict) dict = answer_source(&source);

    check_members(dict, ALWAYS "error-desc");
    g_assert_cmpstr(qdict_get_str(dict, "error-desc"), ==, "no way");
}

static void test_dest(void)
{
    SocketAddress address = {
        .type = SOCKET_ADDRESS_TYPE_UNIX,
        .u.q_unix.path = (char *)"/run/x",
    };
    SocketAddressList addresses = { .value = &address };
    FaultsVcpu vcpus[2] = { { .blocked_ms = 8, .latency_ns = 70 }, {} };
    DestInfo dest = {
        .status = MIGRATION_STATUS_NONE,
        .addresses = &addresses,
        .blocktime = {
            .all_ms = 3, .others_ns = 9, .count = 2, .vcpus = vcpus,
        },
    };
    g_autoptr(QDict) listening = answer_dest(&dest);
    g_autoptr(QDict) active = NULL;
    g_autoptr(QDict) done = NULL;
    g_autoptr(QDict) off = NULL;
    QDict *progress;

    check_members(listening, "socket-address");
    dest.status = MIGRATION_STATUS_ACTIVE;
    active = answer_dest(&dest);
    check_members(active, ALWAYS "socket-address");
    progress = qdict_get_qdict(active, "progress");
    check_members(progress, "phase");
    g_assert_cmpstr(qdict_get_str(progress, "phase"), ==, "receiving");

    dest.status = MIGRATION_STATUS_COMPLETED;
    done = answer_dest(&dest);
    check_members(done, ALWAYS BLOCKTIME);
    dest.blocktime.count = 0;
    off = answer_dest(&dest);
    check_members(off, ALWAYS "socket-address");
}

static uint64_t element(const QDict *dict, const char *name, unsigned i)
{
    const QListEntry *e = qlist_first(qdict_get_qlist(dict, name));

    while (i--) {
        e = qlist_next(e);
    }
    return qnum_get_uint(qobject_to(QNum, qlist_entry_obj(e)));
}

/* Times of faults: also where none was long enough, or there was none. */
static void test_dest_latency(void)
{
    FaultsVcpu vcpus[2] = { { .blocked_ms = 8, .latency_ns = 70 }, {} };
    Latency waits = {};
    DestInfo dest = {
        .status = MIGRATION_STATUS_COMPLETED,
        .blocktime = { .others_ns = 9, .count = 2, .vcpus = vcpus },
    };
    g_autoptr(QDict) none = answer_dest(&dest);
    g_autoptr(QDict) some = NULL;

    g_assert_cmpuint(get_uint(none, "postcopy-latency"), ==, 0);
    g_assert_cmpuint(qlist_size(qdict_get_qlist(none, "postcopy-latency-dist")),
                     ==, 24);

    latency_add(&waits, 300);
    latency_add(&waits, 1ull << 30);
    dest.progress.faults = &waits;
    some = answer_dest(&dest);
    g_assert_cmpuint(get_uint(some, "postcopy-latency"), ==,
                     (300 + (1ull << 30)) * 500);
    g_assert_cmpuint(element(some, "postcopy-latency-dist", 8), ==, 1);
    g_assert_cmpuint(element(some, "postcopy-latency-dist", 23), ==, 1);
    g_assert_cmpuint(element(some, "postcopy-vcpu-blocktime", 0), ==, 8);
    g_assert_cmpuint(element(some, "postcopy-vcpu-latency", 0), ==, 70);
    g_assert_cmpuint(element(some, "postcopy-vcpu-latency", 1), ==, 0);
    g_assert_cmpuint(get_uint(some, "postcopy-non-vcpu-latency"), ==, 9);
}

/* Who came here and goes on: the later migration is the one to tell of. */
static void test_both_sides(void)
{
    DestInfo dest = { .status = MIGRATION_STATUS_COMPLETED, .error = "old" };
    SourceInfo source = full_source(MIGRATION_STATUS_SETUP);
    g_autoptr(QDict) dict = answer(&source, &dest);

    check_members(dict, ALWAYS);
    g_assert_cmpstr(qdict_get_str(dict, "status"), ==, "setup");
}

static MigrationProgress *progress_of(const SourceInfo *source)
{
    return query_progress(&source->progress, source->status, true);
}

static void test_phases(void)
{
    static const struct {
        MigrationStatus status;
        uint64_t passes;
        MigrationPhase source, dest;
    } rows[] = {
        { MIGRATION_STATUS_SETUP, 0, MIGRATION_PHASE_SETUP,
          MIGRATION_PHASE_SETUP },
        { MIGRATION_STATUS_ACTIVE, 0, MIGRATION_PHASE_FIRST_PASS,
          MIGRATION_PHASE_RECEIVING },
        { MIGRATION_STATUS_ACTIVE, 1, MIGRATION_PHASE_LATER_PASS,
          MIGRATION_PHASE_RECEIVING },
        { MIGRATION_STATUS_PRE_SWITCHOVER, 1, MIGRATION_PHASE_SWITCHOVER,
          MIGRATION_PHASE_SWITCHOVER },
        { MIGRATION_STATUS_DEVICE, 1, MIGRATION_PHASE_SWITCHOVER,
          MIGRATION_PHASE_SWITCHOVER },
        { MIGRATION_STATUS_POSTCOPY_ACTIVE, 1, MIGRATION_PHASE_POSTCOPY,
          MIGRATION_PHASE_POSTCOPY },
        { MIGRATION_STATUS_POSTCOPY_PAUSED, 1, MIGRATION_PHASE_POSTCOPY,
          MIGRATION_PHASE_POSTCOPY },
        { MIGRATION_STATUS_CANCELLING, 1, MIGRATION_PHASE_STOPPING,
          MIGRATION_PHASE_STOPPING },
        { MIGRATION_STATUS_CANCELLED, 1, MIGRATION_PHASE_OVER,
          MIGRATION_PHASE_OVER },
        { MIGRATION_STATUS_FAILED, 0, MIGRATION_PHASE_OVER,
          MIGRATION_PHASE_OVER },
        { MIGRATION_STATUS_COMPLETED, 9, MIGRATION_PHASE_OVER,
          MIGRATION_PHASE_OVER },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        ProgressInfo info = { .policy.passes = rows[i].passes };
        g_autoptr(MigrationProgress) source =
            query_progress(&info, rows[i].status, true);
        g_autoptr(MigrationProgress) dest =
            query_progress(&info, rows[i].status, false);

        g_assert_cmpint(source->phase, ==, rows[i].source);
        g_assert_cmpint(dest->phase, ==, rows[i].dest);
        g_assert_true(source->has_percent);
        g_assert_false(dest->has_percent);
    }
}

static void test_progress(void)
{
    SourceInfo source = full_source(MIGRATION_STATUS_ACTIVE);
    g_autoptr(MigrationProgress) progress = progress_of(&source);
    MigrationDowntimePartList *parts = progress->predicted_downtime->parts;

    g_assert_cmpuint(progress->percent, ==, 61);
    g_assert_cmpuint(progress->eta->low_ms, ==, 1000);
    g_assert_cmpuint(progress->eta->likely_ms, ==, 2000);
    g_assert_true(progress->eta->has_high_ms);
    g_assert_cmpuint(progress->eta->high_ms, ==, 3000);
    g_assert_cmpuint(progress->predicted_downtime->low_us, ==, 10000);
    g_assert_cmpuint(progress->predicted_downtime->likely_us, ==, 20000);
    g_assert_cmpuint(progress->predicted_downtime->high_us, ==, 30000);
    g_assert_cmpstr(parts->value->name, ==, "ram");
    g_assert_cmpuint(parts->value->us, ==, 15000);
    g_assert_cmpstr(parts->next->value->name, ==, "start");
    g_assert_null(parts->next->next);
    g_assert_cmpuint(progress->bandwidth, ==, 1 << 30);
    g_assert_cmpuint(progress->dirty_rate, ==, 1 << 20);
    g_assert_cmpstr(progress->decision, ==, "one more pass");
    g_assert_cmpuint(progress->stall->longest_us, ==, 4000);
    g_assert_cmpuint(progress->stall->total_us, ==, 4000);
    g_assert_cmpuint(progress->stall->count, ==, 1);
    g_assert_cmpstr(progress->stall->step, ==, "sync");
    g_assert_null(progress->downtime);
    g_assert_cmpuint(progress->peer->version, ==, 1);
    g_assert_cmpstr(progress->peer->features->value, ==, "page-run");
    g_assert_null(progress->served);
    g_assert_null(progress->faults);
}

/*
 * What it waits for covers the decision, until the end: then whoever looks for
 * the first time has to find what was decided last.
 */
static void test_progress_decision(void)
{
    static const MigrationStatus ends[] = {
        MIGRATION_STATUS_COMPLETED, MIGRATION_STATUS_FAILED,
        MIGRATION_STATUS_CANCELLED,
    };
    SourceInfo source = full_source(MIGRATION_STATUS_DEVICE);
    g_autoptr(MigrationProgress) waits = NULL;
    g_autoptr(MigrationProgress) decided = NULL;

    source.progress.waiting = "all is sent";
    waits = progress_of(&source);
    g_assert_cmpstr(waits->decision, ==, "all is sent");
    source.progress.waiting = "";
    decided = progress_of(&source);
    g_assert_cmpstr(decided->decision, ==, "one more pass");

    source.progress.waiting = "all is sent";
    for (int i = 0; i < ARRAY_SIZE(ends); i++) {
        g_autoptr(MigrationProgress) over = NULL;

        source.status = ends[i];
        over = progress_of(&source);
        g_assert_cmpstr(over->decision, ==, "one more pass");
    }
}

static void test_progress_channels(void)
{
    SourceInfo source = full_source(MIGRATION_STATUS_ACTIVE);
    MigrationChannelStats one = {
        .id = 3, .bytes = 7, .memory = 9, .busy = 50,
    };
    MigrationChannelStatsList list = { .value = &one };
    g_autoptr(MigrationProgress) none = progress_of(&source);
    g_autoptr(MigrationProgress) some = NULL;

    g_assert_false(none->has_channels);
    source.progress.channels = &list;
    some = progress_of(&source);
    g_assert_true(some->has_channels);
    g_assert_null(some->channels->next);
    g_assert_cmpuint(some->channels->value->id, ==, 3);
    g_assert_cmpuint(some->channels->value->bytes, ==, 7);
    g_assert_cmpuint(some->channels->value->memory, ==, 9);
    g_assert_cmpuint(some->channels->value->busy, ==, 50);
}

/* Each side tells its own part of what became of faults. */
static void test_progress_postcopy(void)
{
    SourceInfo source = full_source(MIGRATION_STATUS_POSTCOPY_ACTIVE);
    Latency waits = { };
    DestInfo dest = {
        .status = MIGRATION_STATUS_POSTCOPY_ACTIVE,
        .progress = { .faults = &waits, .requests = 7 },
    };
    g_autoptr(MigrationProgress) none = NULL;
    g_autoptr(MigrationProgress) there = NULL;
    g_autoptr(MigrationProgress) here = NULL;

    none = query_progress(&dest.progress, dest.status, false);
    g_assert_null(none->faults);
    latency_add(&waits, 100);
    latency_add(&waits, 300);
    there = query_progress(&dest.progress, dest.status, false);
    g_assert_cmpuint(there->faults->count, ==, 2);
    g_assert_cmpuint(there->faults->requests, ==, 7);
    g_assert_cmpuint(there->faults->mean_us, ==, 200);
    g_assert_cmpuint(there->faults->max_us, ==, 300);
    g_assert_null(there->served);

    source.progress.served = (MigrationPageRequests) {
        .asked = 9, .urgent = 6, .again = 2, .along = 40,
    };
    here = progress_of(&source);
    g_assert_cmpuint(here->served->asked, ==, 9);
    g_assert_cmpuint(here->served->urgent, ==, 6);
    g_assert_cmpuint(here->served->again, ==, 2);
    g_assert_cmpuint(here->served->along, ==, 40);
    g_assert_null(here->faults);
}

/* What is not known is not made up. */
static void test_progress_knows_nothing(void)
{
    SourceInfo source = { .status = MIGRATION_STATUS_ACTIVE };
    g_autoptr(MigrationProgress) empty = progress_of(&source);
    g_autoptr(MigrationProgress) open = NULL;
    g_autoptr(MigrationProgress) half = NULL;

    g_assert_null(empty->eta);
    g_assert_null(empty->predicted_downtime);
    g_assert_null(empty->decision);
    g_assert_null(empty->stall);
    g_assert_null(empty->downtime);
    g_assert_null(empty->peer);
    g_assert_false(empty->has_bandwidth);
    g_assert_false(empty->has_dirty_rate);

    source = full_source(MIGRATION_STATUS_ACTIVE);
    source.progress.decision = "";
    source.progress.policy.remaining.high = POLICY_NEVER;
    source.progress.policy.downtime.high = POLICY_NEVER;
    open = progress_of(&source);
    g_assert_false(open->eta->has_high_ms);
    g_assert_false(open->predicted_downtime->has_high_us);
    g_assert_null(open->decision);

    source.progress.policy.remaining.likely = POLICY_NEVER;
    source.progress.policy.downtime.likely = POLICY_NEVER;
    half = progress_of(&source);
    g_assert_null(half->eta);
    g_assert_null(half->predicted_downtime);
    g_assert_true(half->has_bandwidth);
}

static void test_progress_is_over(void)
{
    SourceInfo source = full_source(MIGRATION_STATUS_COMPLETED);
    DowntimeLedger *ledger = &source.progress.downtime;
    g_autoptr(MigrationProgress) done = NULL;
    g_autoptr(MigrationProgress) failed = NULL;
    MigrationDowntimePartList *parts;

    ledger_mark(ledger, DOWNTIME_PART_STOP, 0, 2 * MS);
    ledger_mark(ledger, DOWNTIME_PART_RAM, 3 * MS, 10 * MS);
    done = progress_of(&source);
    g_assert_cmpuint(done->percent, ==, 100);
    g_assert_null(done->eta);
    g_assert_nonnull(done->predicted_downtime);
    g_assert_cmpuint(done->downtime->total_us, ==, 10000);
    parts = done->downtime->parts;
    g_assert_cmpstr(parts->value->name, ==, "stop");
    g_assert_cmpuint(parts->value->us, ==, 2000);
    g_assert_cmpstr(parts->next->value->name, ==, "ram");
    g_assert_cmpstr(parts->next->next->value->name, ==, "other");
    g_assert_cmpuint(parts->next->next->value->us, ==, 1000);
    g_assert_null(parts->next->next->next);

    source.status = MIGRATION_STATUS_FAILED;
    source.progress.policy.percent = 100;
    failed = progress_of(&source);
    g_assert_cmpuint(failed->percent, ==, 99);
    g_assert_null(failed->eta);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/query/nothing", test_nothing);
    g_test_add_func("/query/blocked", test_blocked);
    g_test_add_func("/query/members", test_members);
    g_test_add_func("/query/numbers", test_numbers);
    g_test_add_func("/query/off-is-absent", test_what_is_off_is_absent);
    g_test_add_func("/query/error", test_error);
    g_test_add_func("/query/dest", test_dest);
    g_test_add_func("/query/dest/latency", test_dest_latency);
    g_test_add_func("/query/both-sides", test_both_sides);
    g_test_add_func("/query/progress/phases", test_phases);
    g_test_add_func("/query/progress/all", test_progress);
    g_test_add_func("/query/progress/decision", test_progress_decision);
    g_test_add_func("/query/progress/channels", test_progress_channels);
    g_test_add_func("/query/progress/postcopy", test_progress_postcopy);
    g_test_add_func("/query/progress/unknown", test_progress_knows_nothing);
    g_test_add_func("/query/progress/over", test_progress_is_over);
    return g_test_run();
}
