/*
 * A migration whose guest stops, and goes on at the destination
 *
 * With what can happen to it at each step: it is cancelled, the connection
 * breaks, a side ends, or something of a side fails.  The guest goes on at
 * exactly one place, and has all of its memory there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/base/stats.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/source/state.h"
#include "migration/wire/stream.h"
#include "two-sides.h"

#define LET_RUN 300

static void begin(void)
{
    sides_start();
    sides_let_guest_run(LET_RUN);
}

/* Slow enough for something to happen before it switches over */
static void slow_down(void)
{
    MigrateSetParameters slow = {
        .has_max_bandwidth = true, .max_bandwidth = 2 * 1024 * 1024,
    };

    side_parameters(SOURCE, &slow);
}

static void speed_up(void)
{
    MigrateSetParameters fast = {
        .has_max_bandwidth = true, .max_bandwidth = 0,
    };

    side_parameters(SOURCE, &fast);
}

static void expect_success(void)
{
    sides_wait(MIGRATION_STATUS_COMPLETED);
    g_assert_cmpint(side_run_state(SOURCE), ==, RUN_STATE_POSTMIGRATE);
    g_assert_cmpstr(side_error(SOURCE), ==, "");
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 1);
    sides_expect_guest(DESTINATION);
}

/* After a failure all is as before: the next migration succeeds. */
static void migrate_again(void)
{
    speed_up();
    sides_let_guest_run(LET_RUN);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    sides_migrate();
    expect_success();
    sides_stop();
}

static void test_plain(void)
{
    begin();
    sides_migrate();
    expect_success();
    g_assert_cmpstr(side_phases(SOURCE), ==,
                    "setup active device completed ");
    g_assert_cmpstr(side_phases(DESTINATION), ==, "setup active completed ");
    g_assert_cmpuint(sides_witness()->starts[SOURCE], ==, 1);
    sides_stop();
}

/* The guest has to be slower than the channel: many passes. */
static void test_many_passes(void)
{
    begin();
    slow_down();
    sides_migrate();
    side_wait(SOURCE, MIGRATION_STATUS_ACTIVE);
    sides_let_guest_run(20 * LET_RUN);
    speed_up();
    expect_success();
    sides_stop();
}

/* A guest that was stopped before stays so. */
static int64_t stop(const void *arg, char *text)
{
    emulator_stop();
    return 0;
}

static void test_stopped_guest(void)
{
    begin();
    side_call(SOURCE, stop, NULL, 0);
    sides_migrate();
    sides_wait(MIGRATION_STATUS_COMPLETED);
    sides_expect_stopped_guest(DESTINATION, RUN_STATE_PAUSED);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    side_cont(DESTINATION);
    sides_expect_guest(DESTINATION);
    sides_stop();
}

static void test_pause_before_switchover(void)
{
    begin();
    sides_capability(MIGRATION_CAPABILITY_PAUSE_BEFORE_SWITCHOVER);
    sides_migrate();
    side_wait(SOURCE, MIGRATION_STATUS_PRE_SWITCHOVER);
    g_assert_cmpint(side_run_state(SOURCE), ==, RUN_STATE_FINISH_MIGRATE);
    side_continue();
    expect_success();
    g_assert_cmpstr(side_phases(SOURCE), ==,
                    "setup active pre-switchover device completed ");
    sides_stop();
}

/*
 * Cancelled
 */

static void expect_cancelled(void)
{
    side_wait(SOURCE, MIGRATION_STATUS_CANCELLED);
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    sides_expect_guest(SOURCE);
    side_cont(SOURCE);
}

/*
 * How fast it goes is known once a piece was sent and waited for
 */

/* What is written at once where the limit is low */
#define PIECE STREAM_BUDGET_MIN

/* Bytes/s that are told; -1 until three pieces have been sent */
static int64_t bandwidth_told(const void *arg, char *text)
{
    SourceView view;

    if (migration_transferred_bytes() < 3 * PIECE) {
        return -1;
    }
    source_look(&view);
    return view.policy.bandwidth;
}

/* Each piece takes @ms at the limit. */
static void expect_bandwidth(unsigned ms)
{
    MigrateSetParameters limit = {
        .has_max_bandwidth = true, .max_bandwidth = PIECE * 1000 / ms,
    };
    int64_t told;

    begin();
    side_parameters(SOURCE, &limit);
    sides_migrate();
    side_wait(SOURCE, MIGRATION_STATUS_ACTIVE);
    while ((told = side_call(SOURCE, bandwidth_told, NULL, 0)) < 0) {
        g_usleep(1000);
    }
    g_assert_cmpint(told, >, limit.max_bandwidth / 2);
    g_assert_cmpint(told, <, limit.max_bandwidth * 2);
    side_cancel();
    side_wait(SOURCE, MIGRATION_STATUS_CANCELLED);
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    sides_expect_guest(SOURCE);
    sides_stop();
}

/* The limit is waited for in steps, of which the last is any part of one. */
static void test_bandwidth(void)
{
    for (unsigned ms = 153; ms < 200; ms += 7) {
        expect_bandwidth(ms);
    }
}

static void test_cancelled(void)
{
    begin();
    slow_down();
    sides_migrate();
    side_wait(SOURCE, MIGRATION_STATUS_ACTIVE);
    sides_let_guest_run(LET_RUN);
    side_cancel();
    expect_cancelled();
    migrate_again();
}

static void test_cancelled_before_switchover(void)
{
    begin();
    sides_capability(MIGRATION_CAPABILITY_PAUSE_BEFORE_SWITCHOVER);
    sides_migrate();
    side_wait(SOURCE, MIGRATION_STATUS_PRE_SWITCHOVER);
    side_cancel();
    expect_cancelled();
    sides_stop();
}

/*
 * The connection breaks where the relay stops.
 */

typedef struct Break {
    const char *name;
    RelayStop stop;
} Break;

/* The destination lacks something: the guest goes on at the source. */
static const Break early[] = {
    { "configuration",
      { .pattern = { WIRE_CONFIGURATION, 0, 0, 0, 4 }, .length = 5 } },
    { "greeting", BEFORE_COMMAND(OPEN_RETURN_PATH) },
    { "blocks", { .pattern = "\006pc.ram", .length = 7 } },
    { "first-page", { .pattern = "\006pc.ram", .length = 7, .skip = 1 } },
    { "first-answer",
      { .way = TO_SOURCE, .length = 4,
        .pattern = { 0, WIRE_RP_PONG, 0, WIRE_RP_PONG_LEN } } },
    { "switchover-start", BEFORE_COMMAND(SWITCHOVER_START) },
    { "device", BEFORE_DEVICE },
};

static void migrate_up_to(const RelayStop *stop)
{
    if (stop->way == TO_SOURCE && stop->pattern[1] == WIRE_RP_PONG) {
        /* The source waits a second for it, and then goes on. */
        slow_down();
    }
    sides_migrate_up_to(stop);
}

static void test_cut_early(gconstpointer data)
{
    const Break *b = data;

    begin();
    migrate_up_to(&b->stop);
    relay_cut(sides_relay());
    sides_wait(MIGRATION_STATUS_FAILED);
    sides_expect_guest(SOURCE);
    side_cont(SOURCE);
    migrate_again();
}

static void test_cancelled_early(gconstpointer data)
{
    const Break *b = data;

    begin();
    migrate_up_to(&b->stop);
    if (side_may_cancel()) {
        side_wait(SOURCE, MIGRATION_STATUS_CANCELLED);
        relay_go_on(sides_relay());
        expect_cancelled();
        migrate_again();
        return;
    }
    /* What was held back is what remained to be sent. */
    relay_go_on(sides_relay());
    expect_success();
    sides_stop();
}

static void test_destination_ends_early(gconstpointer data)
{
    const Break *b = data;

    begin();
    migrate_up_to(&b->stop);
    side_kill(DESTINATION);
    relay_go_on(sides_relay());
    side_wait(SOURCE, MIGRATION_STATUS_FAILED);
    sides_expect_guest(SOURCE);
    sides_stop();
}

static void test_source_ends_early(gconstpointer data)
{
    const Break *b = data;

    begin();
    migrate_up_to(&b->stop);
    side_kill(SOURCE);
    relay_cut(sides_relay());
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    g_assert_cmpint(side_run_state(DESTINATION), ==, RUN_STATE_INMIGRATE);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    sides_stop();
}

static void test_cut_at_end(void)
{
    const RelayStop stop = BEFORE_DESCRIPTION;

    begin();
    migrate_up_to(&stop);
    g_assert_false(side_may_cancel());
    relay_cut(sides_relay());
    sides_expect_lost();
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    sides_expect_stopped_guest(SOURCE, RUN_STATE_POSTMIGRATE);
    side_cont(SOURCE);
    sides_expect_guest(SOURCE);
    sides_stop();
}

static void test_cut_before_answer(void)
{
    const RelayStop stop = BEFORE_REPORT(STARTED);

    begin();
    migrate_up_to(&stop);
    side_wait(DESTINATION, MIGRATION_STATUS_COMPLETED);
    g_assert_false(side_may_cancel());
    relay_cut(sides_relay());
    sides_expect_lost();
    sides_expect_guest(DESTINATION);
    sides_stop();
}

/* That the guest runs is all that counts. */
static void test_cut_after_answer(void)
{
    const RelayStop stop = AFTER_REPORT(STARTED);

    begin();
    migrate_up_to(&stop);
    relay_cut(sides_relay());
    expect_success();
    sides_stop();
}

static void test_destination_ends_at_end(void)
{
    const RelayStop stop = BEFORE_DESCRIPTION;

    begin();
    migrate_up_to(&stop);
    side_kill(DESTINATION);
    relay_go_on(sides_relay());
    sides_expect_lost();
    sides_expect_stopped_guest(SOURCE, RUN_STATE_POSTMIGRATE);
    sides_stop();
}

/*
 * Something of a side fails.
 */

typedef struct Failure {
    const char *name;
    SideId side;
    FaultSet faults;
    const char *why;            /* part of what the source says */
} Failure;

static const Failure failures[] = {
    { "flush", SOURCE, { .flush_fails = true }, "cannot be flushed" },
    { "inactivate", SOURCE, { .inactivate_fails = true }, "stuck" },
    { "save", SOURCE, { .save_fails = true }, "" },
    { "load", DESTINATION, { .load_fails = true }, "fake-device" },
    { "activate", DESTINATION, { .activate_fails = true }, "not there" },
};

static void test_failure(gconstpointer data)
{
    const FaultSet none = { 0 };
    const Failure *failure = data;

    begin();
    side_faults(failure->side, &failure->faults);
    sides_migrate();
    sides_wait(MIGRATION_STATUS_FAILED);
    g_assert_nonnull(strstr(side_error(SOURCE), failure->why));
    sides_expect_guest(SOURCE);
    side_cont(SOURCE);
    side_faults(failure->side, &none);
    migrate_again();
}

/* Neither side can have the disks: the guest waits at the source. */
static void test_no_disks_anywhere(void)
{
    const RelayStop stop = BEFORE_DESCRIPTION;
    const FaultSet gone = { .activate_fails = true }, none = { 0 };

    begin();
    side_faults(DESTINATION, &gone);
    migrate_up_to(&stop);
    side_faults(SOURCE, &gone);
    relay_go_on(sides_relay());
    side_wait(SOURCE, MIGRATION_STATUS_FAILED);
    g_assert_nonnull(strstr(side_error(SOURCE), "stays stopped"));
    sides_expect_stopped_guest(SOURCE, RUN_STATE_PAUSED);
    side_faults(SOURCE, &none);
    side_cont(SOURCE);
    sides_expect_guest(SOURCE);
    sides_stop();
}

/* A write after the guest has stopped belongs to what is sent. */
static void test_device_writes(void)
{
    const FaultSet writes = { .stop_writes = true };

    begin();
    side_faults(SOURCE, &writes);
    sides_expect_word(DEVICE_STOPPED);
    sides_migrate();
    expect_success();
    sides_stop();
}

/*
 * A guest that dirties more than the downtime limit allows for, when all that
 * was known of fitted: it is stopped, and with convergence=auto it is resumed.
 */

static void begin_with_bursts(bool automatic, unsigned bursts)
{
    const FaultSet faults = { .bursts = bursts, .burst_steps = 60000 };
    MigrateSetParameters params = {
        .has_convergence = true,
        .convergence = automatic ? MIGRATION_CONVERGENCE_AUTO
                                 : MIGRATION_CONVERGENCE_MANUAL,
        .has_downtime_limit = true, .downtime_limit = 100,
        /* 1,000 pages in that time; a burst is about 1,700 */
        .has_avail_switchover_bandwidth = true,
        .avail_switchover_bandwidth = 40 * 1024 * 1024,
    };

    begin();
    side_parameters(SOURCE, &params);
    side_faults(SOURCE, &faults);
}

/* It has left at last, after it was resumed @returns times. */
static void expect_returns(unsigned returns)
{
    expect_success();
    g_assert_cmpuint(sides_witness()->starts[SOURCE], ==, 1 + returns);
    g_assert_cmpuint(side_events(SOURCE,
                                 QAPI_EVENT_MIGRATION_SWITCHOVER_ABORTED), ==,
                     returns);
    g_assert_cmpuint(sides_attempts(), ==, 0);
    sides_stop();
}

static void test_returned(void)
{
    begin_with_bursts(true, 1);
    sides_capability(MIGRATION_CAPABILITY_EVENTS);
    sides_migrate();
    sides_wait(MIGRATION_STATUS_COMPLETED);
    g_assert_cmpstr(side_phases(SOURCE), ==,
                    "setup active device active device completed ");
    expect_returns(1);
}

/* A guest that does so each time does not stay for ever. */
static void test_returned_often(void)
{
    begin_with_bursts(true, 1000);
    sides_capability(MIGRATION_CAPABILITY_EVENTS);
    sides_migrate();
    sides_wait(MIGRATION_STATUS_COMPLETED);
    expect_returns(5);
}

static void test_not_returned(void)
{
    begin_with_bursts(false, 1);
    sides_migrate();
    expect_returns(0);
}

/* What the user has done with its disks meanwhile cannot be undone. */
static void test_not_returned_after_pause(void)
{
    begin_with_bursts(true, 1);
    sides_capability(MIGRATION_CAPABILITY_PAUSE_BEFORE_SWITCHOVER);
    sides_migrate();
    side_wait(SOURCE, MIGRATION_STATUS_PRE_SWITCHOVER);
    side_continue();
    expect_returns(0);
}

/* A device that sends a part of its state in advance cannot do so again. */
static int live_save(QEMUFile *f, void *opaque)
{
    qemu_put_byte(f, 0);
    return 0;
}

static int live_set_up(QEMUFile *f, void *opaque, Error **errp)
{
    return live_save(f, opaque);
}

static int live_load(QEMUFile *f, void *opaque, int version_id)
{
    return qemu_get_byte(f);
}

static int64_t add_live_device(const void *arg, char *text)
{
    static const SaveVMHandlers ops = {
        .save_setup = live_set_up, .save_live_complete_precopy = live_save,
        .load_state = live_load,
    };

    return register_savevm_live("live-device", 0, 1, &ops, NULL);
}

static void test_not_returned_with_live_device(void)
{
    begin_with_bursts(true, 1);
    side_call(SOURCE, add_live_device, NULL, 0);
    side_call(DESTINATION, add_live_device, NULL, 0);
    sides_migrate();
    expect_returns(0);
}

/*
 * CPR stops the guest before anything is sent.  Resumed by the first switchover
 * it would run on both sides after the second.
 */
static void test_not_returned_if_stopped_first(void)
{
    const FaultSet faults = { .release_writes = true };
    MigrateSetParameters params = {
        .has_mode = true, .mode = MIG_MODE_CPR_REBOOT,
        .has_convergence = true, .convergence = MIGRATION_CONVERGENCE_AUTO,
        .has_downtime_limit = true, .downtime_limit = 100,
        /* 1,000 bytes in that time, and the device writes to a page */
        .has_avail_switchover_bandwidth = true,
        .avail_switchover_bandwidth = 10 * 1000,
    };

    begin();
    side_parameters(SOURCE, &params);
    side_faults(SOURCE, &faults);
    sides_expect_word(DEVICE_STOPPED);
    sides_migrate();
    expect_returns(0);
}

static void add_breaks(void)
{
    static const struct {
        const char *name;
        void (*test)(gconstpointer);
    } kinds[] = {
        { "cut", test_cut_early },
        { "cancelled", test_cancelled_early },
        { "destination-ends", test_destination_ends_early },
        { "source-ends", test_source_ends_early },
    };

    for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
        for (unsigned i = 0; i < ARRAY_SIZE(early); i++) {
            g_autofree char *path = g_strdup_printf(
                "/switchover/%s/%s", kinds[k].name, early[i].name);

            g_test_add_data_func(path, &early[i], kinds[k].test);
        }
    }
}

int main(int argc, char **argv)
{
    sides_init(&argc, &argv);
    g_test_add_func("/switchover/plain", test_plain);
    g_test_add_func("/switchover/many-passes", test_many_passes);
    g_test_add_func("/switchover/bandwidth", test_bandwidth);
    g_test_add_func("/switchover/stopped-guest", test_stopped_guest);
    g_test_add_func("/switchover/pause-before", test_pause_before_switchover);
    g_test_add_func("/switchover/cancelled", test_cancelled);
    g_test_add_func("/switchover/cancelled-before",
                    test_cancelled_before_switchover);
    add_breaks();
    g_test_add_func("/switchover/cut/end", test_cut_at_end);
    g_test_add_func("/switchover/cut/answer", test_cut_before_answer);
    g_test_add_func("/switchover/cut/after-answer", test_cut_after_answer);
    g_test_add_func("/switchover/destination-ends/end",
                    test_destination_ends_at_end);
    for (unsigned i = 0; i < ARRAY_SIZE(failures); i++) {
        g_autofree char *path = g_strdup_printf("/switchover/fails/%s",
                                                failures[i].name);

        g_test_add_data_func(path, &failures[i], test_failure);
    }
    g_test_add_func("/switchover/fails/no-disks", test_no_disks_anywhere);
    g_test_add_func("/switchover/device-writes", test_device_writes);
    g_test_add_func("/switchover/returned/once", test_returned);
    g_test_add_func("/switchover/returned/often", test_returned_often);
    g_test_add_func("/switchover/returned/manual", test_not_returned);
    g_test_add_func("/switchover/returned/live-device",
                    test_not_returned_with_live_device);
    g_test_add_func("/switchover/returned/stopped-first",
                    test_not_returned_if_stopped_first);
    g_test_add_func("/switchover/returned/paused",
                    test_not_returned_after_pause);
    return g_test_run();
}
