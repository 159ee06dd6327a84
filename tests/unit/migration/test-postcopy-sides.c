/*
 * A guest that goes on at the destination before its memory is there
 *
 * Whether it is held there until the source commits, or told to run by the last
 * command of a package.  The connection breaks and is made anew, sides pause,
 * end and fail: before the order to run the guest it goes on at the source,
 * afterwards it is the destination's, and its memory arrives complete.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/postcopy/ufd.h"
#include "two-sides.h"

#define LET_RUN 300
#define LIMIT_MS 200000

/* How it is switched over, and over how many channels */
typedef struct Way {
    const char *name;
    bool package;               /* not held; in vain is what fails then */
    bool preempt;
    bool multifd;               /* memory has channels up to the switchover */
} Way;

static const Way ways[] = {
    { "held", false, false },
    { "held-preempt", false, true },
    { "package", true, false },
    { "package-preempt", true, true },
    { "held-multifd", false, false, true },
    { "package-multifd", true, false, true },
    { "held-multifd-preempt", false, true, true },
    { "package-multifd-preempt", true, true, true },
};

#define HELD (&ways[0])
#define HELD_PREEMPT (&ways[1])
#define PACKAGE (&ways[2])
#define PACKAGE_PREEMPT (&ways[3])

static bool available(void)
{
    UfdSupport support;

    ufd_probe(&support);
    if (support.error) {
        g_test_skip("userfaultfd cannot be used here");
    }
    return !support.error;
}

/*
 * Memory is sent slowly, so that much is left to follow; and is taken to be
 * sent more slowly than any limit allows while the guest is stopped.
 */
static void set_speed(uint64_t precopy, uint64_t postcopy)
{
    MigrateSetParameters params = {
        .has_avail_switchover_bandwidth = true,
        .avail_switchover_bandwidth = precopy ? 1024 : 0,
        .has_max_bandwidth = true, .max_bandwidth = precopy,
        .has_max_postcopy_bandwidth = true,
        .max_postcopy_bandwidth = postcopy,
    };

    side_parameters(SOURCE, &params);
}

/* What is far away in comparison to the limit gets a package. */
static void set_limit(uint64_t ms)
{
    MigrateSetParameters params = {
        .has_downtime_limit = true, .downtime_limit = ms,
    };

    side_parameters(SOURCE, &params);
}

static void hurry(void)
{
    set_speed(0, 0);
}

static bool begin(const Way *way)
{
    if (!available()) {
        return false;
    }
    sides_start();
    sides_capability(MIGRATION_CAPABILITY_POSTCOPY_RAM);
    if (way->preempt) {
        sides_capability(MIGRATION_CAPABILITY_POSTCOPY_PREEMPT);
    }
    if (way->multifd) {
        sides_capability(MIGRATION_CAPABILITY_MULTIFD);
    }
    set_limit(way->package ? 0 : LIMIT_MS);
    set_speed(4 * 1024 * 1024, 1024 * 1024);
    sides_let_guest_run(LET_RUN);
    return true;
}

static void wait_for_postcopy(void)
{
    sides_wait(MIGRATION_STATUS_POSTCOPY_ACTIVE);
    sides_let_guest_run(LET_RUN / 4);
    g_assert_cmpint(sides_witness()->guest_at, ==, DESTINATION + 1);
}

static void expect_success(void)
{
    hurry();
    sides_wait(MIGRATION_STATUS_COMPLETED);
    g_assert_cmpint(side_run_state(SOURCE), ==, RUN_STATE_POSTMIGRATE);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 1);
    sides_expect_guest(DESTINATION);
    sides_stop();
}

static void expect_guest_stayed(void)
{
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    sides_expect_guest(SOURCE);
    sides_stop();
}

static void set_faults(SideId side, FaultSet set)
{
    side_faults(side, &set);
}

/*
 * It works
 */

static void test_plain(gconstpointer data)
{
    if (!begin(data)) {
        return;
    }
    sides_migrate_by_postcopy();
    wait_for_postcopy();
    expect_success();
}

/* A device needs a page to be loaded. */
static void test_device_reads(gconstpointer data)
{
    if (!begin(data)) {
        return;
    }
    set_faults(DESTINATION, (FaultSet) { .load_reads = true });
    sides_migrate_by_postcopy();
    wait_for_postcopy();
    expect_success();
}

static void test_device_writes(gconstpointer data)
{
    if (!begin(data)) {
        return;
    }
    set_faults(SOURCE, (FaultSet) { .stop_writes = true });
    sides_expect_word(DEVICE_STOPPED);
    sides_migrate_by_postcopy();
    wait_for_postcopy();
    expect_success();
}

/* Memory that was sent is given back at once. */
static void test_release(gconstpointer data)
{
    if (!begin(data)) {
        return;
    }
    sides_capability(MIGRATION_CAPABILITY_RELEASE_RAM);
    sides_forget_source();
    sides_migrate_by_postcopy();
    wait_for_postcopy();
    expect_success();
}

/* Precopy is done before it comes to that. */
static void test_not_needed(void)
{
    if (!begin(HELD)) {
        return;
    }
    hurry();
    sides_migrate();
    expect_success();
}

/*
 * The connection breaks
 */

/* What is on its way is lost, and has to be sent again. */
static void cut_while_sending(void)
{
    relay_hold(sides_relay(), TO_DESTINATION);
    g_usleep(100 * 1000);
    relay_cut(sides_relay());
}

static void recover(void)
{
    sides_wait(MIGRATION_STATUS_POSTCOPY_PAUSED);
    sides_recover();
}

static void test_recovered(gconstpointer data)
{
    if (!begin(data)) {
        return;
    }
    sides_migrate_by_postcopy();
    wait_for_postcopy();
    cut_while_sending();
    recover();
    sides_wait(MIGRATION_STATUS_POSTCOPY_ACTIVE);
    expect_success();
}

static void test_recovered_often(gconstpointer data)
{
    if (!begin(data)) {
        return;
    }
    sides_migrate_by_postcopy();
    for (int i = 0; i < 3; i++) {
        sides_wait(MIGRATION_STATUS_POSTCOPY_ACTIVE);
        cut_while_sending();
        recover();
    }
    expect_success();
}

/* It breaks again while it is made anew. */
static void break_recovery(const RelayStop *stop)
{
    if (!begin(HELD)) {
        return;
    }
    sides_migrate_by_postcopy();
    wait_for_postcopy();
    relay_cut(sides_relay());
    sides_wait(MIGRATION_STATUS_POSTCOPY_PAUSED);
    relay_stop_at(sides_relay(), stop);
    sides_recover();
    relay_wait(sides_relay());
    relay_cut(sides_relay());
    recover();
    sides_wait(MIGRATION_STATUS_POSTCOPY_ACTIVE);
    expect_success();
}

static void test_recovery_breaks_at_bitmap(void)
{
    const RelayStop stop = {
        .way = TO_SOURCE, .length = 3,
        .pattern = { 0, WIRE_RP_RECV_BITMAP, 0 },
    };

    break_recovery(&stop);
}

static void test_recovery_breaks_at_resume(void)
{
    const RelayStop stop = BEFORE_COMMAND(POSTCOPY_RESUME);

    break_recovery(&stop);
}

static void test_recovery_breaks_at_answer(void)
{
    const RelayStop stop = {
        .way = TO_SOURCE, .length = 4,
        .pattern = { 0, WIRE_RP_RESUME_ACK, 0, WIRE_RP_RESUME_ACK_LEN },
    };

    break_recovery(&stop);
}

/* The user wants it so. */
static void test_paused_by_user(gconstpointer data)
{
    if (!begin(HELD)) {
        return;
    }
    sides_migrate_by_postcopy();
    wait_for_postcopy();
    side_pause(*(const SideId *)data);
    recover();
    sides_wait(MIGRATION_STATUS_POSTCOPY_ACTIVE);
    expect_success();
}

/* Whoever has said that it has the guest is believed. */
static void test_not_cancelled(void)
{
    if (!begin(HELD)) {
        return;
    }
    sides_migrate_by_postcopy();
    wait_for_postcopy();
    relay_cut(sides_relay());
    sides_wait(MIGRATION_STATUS_POSTCOPY_PAUSED);
    g_assert_false(side_may_cancel());
    recover();
    expect_success();
}

static void test_destination_ends(void)
{
    if (!begin(HELD)) {
        return;
    }
    sides_migrate_by_postcopy();
    wait_for_postcopy();
    side_kill(DESTINATION);
    relay_cut(sides_relay());
    side_wait(SOURCE, MIGRATION_STATUS_POSTCOPY_PAUSED);
    g_assert_false(side_may_cancel());
    g_assert_cmpint(side_run_state(SOURCE), ==, RUN_STATE_FINISH_MIGRATE);
    g_assert_cmpuint(sides_witness()->starts[SOURCE], ==, 1);
    sides_stop();
}

static void test_source_ends(void)
{
    if (!begin(HELD)) {
        return;
    }
    sides_migrate_by_postcopy();
    wait_for_postcopy();
    side_kill(SOURCE);
    relay_cut(sides_relay());
    side_wait(DESTINATION, MIGRATION_STATUS_POSTCOPY_PAUSED);
    sides_stop();
}

/*
 * Before the order to run the guest
 */

typedef struct Step {
    const char *name;
    RelayStop stop;
} Step;

static const Step before_order[] = {
    { "hold", BEFORE_COMMAND(HOLD) },
    { "state", BEFORE_COMMAND(STATE) },
    { "state-begun", AFTER_COMMAND(STATE) },
    { "listen", BEFORE_COMMAND(POSTCOPY_LISTEN) },
    { "ready", BEFORE_REPORT(READY) },
};

static bool leave_up_to(const Way *way, const RelayStop *stop)
{
    if (!begin(way)) {
        return false;
    }
    relay_stop_at(sides_relay(), stop);
    sides_migrate_by_postcopy();
    relay_wait(sides_relay());
    return true;
}

static void test_cut_before(gconstpointer data)
{
    if (!leave_up_to(HELD, &((const Step *)data)->stop)) {
        return;
    }
    relay_cut(sides_relay());
    sides_wait(MIGRATION_STATUS_FAILED);
    expect_guest_stayed();
}

static void test_destination_ends_before(gconstpointer data)
{
    if (!leave_up_to(HELD, &((const Step *)data)->stop)) {
        return;
    }
    side_kill(DESTINATION);
    relay_go_on(sides_relay());
    side_wait(SOURCE, MIGRATION_STATUS_FAILED);
    expect_guest_stayed();
}

static void test_source_ends_before(gconstpointer data)
{
    if (!leave_up_to(HELD, &((const Step *)data)->stop)) {
        return;
    }
    side_kill(SOURCE);
    relay_cut(sides_relay());
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    sides_stop();
}

static void test_cancelled_before(gconstpointer data)
{
    if (!leave_up_to(HELD, &((const Step *)data)->stop)) {
        return;
    }
    side_cancel();
    side_wait(SOURCE, MIGRATION_STATUS_CANCELLED);
    relay_go_on(sides_relay());
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    expect_guest_stayed();
}

/* A package of which a part is missing */
static void test_package_cut(void)
{
    const RelayStop stop = BEFORE_DEVICE;

    if (!leave_up_to(PACKAGE, &stop)) {
        return;
    }
    relay_cut(sides_relay());
    sides_wait(MIGRATION_STATUS_FAILED);
    expect_guest_stayed();
}

/*
 * The order is on its way when the connection breaks.  Nobody here knows that
 * it has not arrived; the user does, and has the guest go on.
 */
static void test_commit_lost(void)
{
    const RelayStop stop = BEFORE_COMMAND(COMMIT);

    if (!leave_up_to(HELD, &stop)) {
        return;
    }
    relay_cut(sides_relay());
    side_wait(SOURCE, MIGRATION_STATUS_POSTCOPY_PAUSED);
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    side_cancel();
    side_wait(SOURCE, MIGRATION_STATUS_FAILED);
    sides_expect_stopped_guest(SOURCE, RUN_STATE_POSTMIGRATE);
    side_cont(SOURCE);
    expect_guest_stayed();
}

/* It has arrived, and what follows from it is not told. */
static void test_started_lost(void)
{
    const RelayStop stop = BEFORE_REPORT(STARTED);

    if (!leave_up_to(HELD, &stop)) {
        return;
    }
    relay_cut(sides_relay());
    recover();
    sides_wait(MIGRATION_STATUS_POSTCOPY_ACTIVE);
    expect_success();
}

/*
 * The guest runs, and the first page that it requests is lost with the channel
 * for those: the destination cannot know yet which connection that is.
 */
static void lose_urgent_channel(const Way *way, const RelayStop *stop)
{
    Relay *relay;

    if (!leave_up_to(way, stop)) {
        return;
    }
    relay = sides_relay();
    side_wait(DESTINATION, MIGRATION_STATUS_POSTCOPY_ACTIVE);
    g_usleep(100 * 1000);       /* for the page to get as far as the relay */
    g_assert_cmpuint(relay_connections(relay), ==, 2);
    relay_cut_one(relay, 1);
    relay_go_on(relay);
    recover();
    sides_wait(MIGRATION_STATUS_POSTCOPY_ACTIVE);
    expect_success();
}

static void test_urgent_lost_held(void)
{
    const RelayStop stop = AFTER_COMMAND(COMMIT);

    lose_urgent_channel(HELD_PREEMPT, &stop);
}

static void test_urgent_lost_package(void)
{
    const RelayStop stop = AFTER_COMMAND(POSTCOPY_RUN);

    lose_urgent_channel(PACKAGE_PREEMPT, &stop);
}

/*
 * Something of a side fails
 */

/* What comes before the order brings the guest back, whatever the way. */
static void test_load_fails(gconstpointer data)
{
    if (!begin(data)) {
        return;
    }
    set_faults(DESTINATION, (FaultSet) { .load_fails = true });
    sides_migrate_by_postcopy();
    sides_wait(MIGRATION_STATUS_FAILED);
    g_assert_nonnull(strstr(side_error(SOURCE), "fake-device"));
    expect_guest_stayed();
}

/* So do disks that cannot be had, if the guest was held. */
static void test_no_disks(void)
{
    if (!begin(HELD)) {
        return;
    }
    set_faults(DESTINATION, (FaultSet) { .activate_fails = true });
    sides_migrate_by_postcopy();
    sides_wait(MIGRATION_STATUS_FAILED);
    g_assert_nonnull(strstr(side_error(SOURCE), "not there"));
    expect_guest_stayed();
}

/* Otherwise it is there, and waits for them. */
static void test_no_disks_after_package(void)
{
    if (!begin(PACKAGE)) {
        return;
    }
    set_faults(DESTINATION, (FaultSet) { .activate_fails = true });
    sides_migrate_by_postcopy();
    sides_wait(MIGRATION_STATUS_POSTCOPY_ACTIVE);
    hurry();
    sides_wait(MIGRATION_STATUS_COMPLETED);
    sides_expect_stopped_guest(DESTINATION, RUN_STATE_PAUSED);
    set_faults(DESTINATION, (FaultSet) { 0 });
    side_cont(DESTINATION);
    sides_expect_guest(DESTINATION);
    sides_stop();
}

static void test_source_fails(gconstpointer data)
{
    if (!begin(HELD)) {
        return;
    }
    side_faults(SOURCE, data);
    sides_migrate_by_postcopy();
    sides_wait(MIGRATION_STATUS_FAILED);
    expect_guest_stayed();
}

/* An attempt to switch over within a limit is given up and tried again. */
static void test_attempts(void)
{
    if (!begin(HELD)) {
        return;
    }
    sides_capability(MIGRATION_CAPABILITY_RETURN_PATH);
    sides_capability(MIGRATION_CAPABILITY_STRICT_DOWNTIME);
    set_limit(800);
    set_faults(DESTINATION, (FaultSet) {
        .load_ms = 1200, .load_reads = true, .reset_writes = true,
    });
    sides_migrate_by_postcopy();
    sides_wait_for_aborted();
    set_faults(DESTINATION, (FaultSet) {
        .load_reads = true, .reset_writes = true,
    });
    side_wait(SOURCE, MIGRATION_STATUS_POSTCOPY_ACTIVE);
    g_assert_cmpuint(sides_attempts(), >=, 2);
    g_assert_cmpuint(sides_witness()->starts[SOURCE], ==, sides_attempts());
    expect_success();
}

static const SideId both[] = { SOURCE, DESTINATION };
static const FaultSet no_flush = { .flush_fails = true };
static const FaultSet no_save = { .save_fails = true };
static const FaultSet no_inactivate = { .inactivate_fails = true };

static void add_ways(const char *name, void (*test)(gconstpointer))
{
    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        g_autofree char *path = g_strdup_printf("/postcopy/%s/%s", name,
                                                ways[i].name);

        g_test_add_data_func(path, &ways[i], test);
    }
}

static void add_steps(const char *name, void (*test)(gconstpointer))
{
    for (unsigned i = 0; i < ARRAY_SIZE(before_order); i++) {
        g_autofree char *path = g_strdup_printf("/postcopy/%s/%s", name,
                                                before_order[i].name);

        g_test_add_data_func(path, &before_order[i], test);
    }
}

static void add_recovery(void)
{
    add_ways("recovered", test_recovered);
    add_ways("recovered-often", test_recovered_often);
    g_test_add_func("/postcopy/recovery-breaks/bitmap",
                    test_recovery_breaks_at_bitmap);
    g_test_add_func("/postcopy/recovery-breaks/resume",
                    test_recovery_breaks_at_resume);
    g_test_add_func("/postcopy/recovery-breaks/answer",
                    test_recovery_breaks_at_answer);
    g_test_add_data_func("/postcopy/paused-by-user/source", &both[SOURCE],
                         test_paused_by_user);
    g_test_add_data_func("/postcopy/paused-by-user/destination",
                         &both[DESTINATION], test_paused_by_user);
    g_test_add_func("/postcopy/not-cancelled", test_not_cancelled);
    g_test_add_func("/postcopy/destination-ends", test_destination_ends);
    g_test_add_func("/postcopy/source-ends", test_source_ends);
}

static void add_order(void)
{
    add_steps("cut-before", test_cut_before);
    add_steps("destination-ends-before", test_destination_ends_before);
    add_steps("source-ends-before", test_source_ends_before);
    add_steps("cancelled-before", test_cancelled_before);
    g_test_add_func("/postcopy/cut-before/package", test_package_cut);
    g_test_add_func("/postcopy/commit-lost", test_commit_lost);
    g_test_add_func("/postcopy/started-lost", test_started_lost);
    g_test_add_func("/postcopy/urgent-lost/held", test_urgent_lost_held);
    g_test_add_func("/postcopy/urgent-lost/package", test_urgent_lost_package);
}

static void add_failures(void)
{
    add_ways("load-fails", test_load_fails);
    g_test_add_func("/postcopy/no-disks/held", test_no_disks);
    g_test_add_func("/postcopy/no-disks/package",
                    test_no_disks_after_package);
    g_test_add_data_func("/postcopy/source-fails/flush", &no_flush,
                         test_source_fails);
    g_test_add_data_func("/postcopy/source-fails/save", &no_save,
                         test_source_fails);
    g_test_add_data_func("/postcopy/source-fails/inactivate", &no_inactivate,
                         test_source_fails);
    g_test_add_func("/postcopy/attempts", test_attempts);
}

int main(int argc, char **argv)
{
    sides_init(&argc, &argv);
    add_ways("plain", test_plain);
    add_ways("device-reads", test_device_reads);
    add_ways("device-writes", test_device_writes);
    add_ways("release-ram", test_release);
    g_test_add_func("/postcopy/not-needed", test_not_needed);
    add_recovery();
    add_order();
    add_failures();
    return g_test_run();
}
