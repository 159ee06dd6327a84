/*
 * Attempts to switch over: strict-downtime, by a commit in two phases
 *
 * HOLD, STATE, READY, COMMIT, STARTED: at each of these the connection breaks,
 * a side ends, somebody cancels, or something of a side fails.  Before COMMIT
 * the guest goes on at the source, after it never again.  Attempts are given
 * up and tried again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-emit-events.h"
#include "fake-memory.h"
#include "two-sides.h"

#define LET_RUN 300
/*
 * A machine that is busy may be late by more than a limit that users have; this
 * one is exceeded only by what is made slow.
 */
#define LIMIT_MS 800
#define TOO_SLOW_MS 1200
/* Longer than anything is waited for: no attempt ends by time. */
#define LONG_MS 200000

static void set_limit(unsigned ms, unsigned attempts)
{
    MigrateSetParameters params = {
        .has_downtime_limit = true, .downtime_limit = ms,
        .has_strict_downtime_attempts = true,
        .strict_downtime_attempts = attempts,
    };

    side_parameters(SOURCE, &params);
}

static void begin(void)
{
    sides_start();
    sides_capability(MIGRATION_CAPABILITY_RETURN_PATH);
    sides_capability(MIGRATION_CAPABILITY_STRICT_DOWNTIME);
    set_limit(LIMIT_MS, 10);
    sides_let_guest_run(LET_RUN);
}

static void expect_success(void)
{
    sides_wait(MIGRATION_STATUS_COMPLETED);
    g_assert_cmpint(side_run_state(SOURCE), ==, RUN_STATE_POSTMIGRATE);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 1);
    sides_expect_guest(DESTINATION);
    sides_stop();
}

/* All attempts but the last one were given up. */
static void expect_attempts_given_up(void)
{
    const QAPIEvent event = QAPI_EVENT_MIGRATION_SWITCHOVER_ABORTED;
    unsigned attempts = sides_attempts();

    g_assert_cmpuint(attempts, >=, 2);
    g_assert_cmpuint(side_events(SOURCE, event), ==, attempts - 1);
    g_assert_cmpuint(sides_witness()->starts[SOURCE], ==, attempts);
}

/* What was held back arrives, and is worth nothing any more. */
static void go_on(void)
{
    relay_go_on(sides_relay());
    side_wait(SOURCE, MIGRATION_STATUS_COMPLETED);
    expect_attempts_given_up();
}

/* The same after the guest was resumed, as the limit has it */
static void go_on_late(void)
{
    sides_let_guest_run(LET_RUN);
    go_on();
}

static void set_faults(SideId side, FaultSet set)
{
    side_faults(side, &set);
}

/*
 * Attempts
 */

static void test_one_attempt(void)
{
    begin();
    set_limit(LONG_MS, 1);
    sides_migrate();
    side_wait(SOURCE, MIGRATION_STATUS_COMPLETED);
    g_assert_cmpuint(sides_attempts(), ==, 1);
    g_assert_cmpuint(sides_witness()->starts[SOURCE], ==, 1);
    g_assert_cmpuint(sides_witness()->resets[DESTINATION], ==, 0);
    expect_success();
}

/* The destination takes too long to load; then it does not any more. */
static void test_slow_load(void)
{
    begin();
    set_faults(DESTINATION, (FaultSet) { .load_ms = TOO_SLOW_MS });
    sides_migrate();
    sides_wait_for_aborted();
    set_faults(DESTINATION, (FaultSet) { 0 });
    side_wait(SOURCE, MIGRATION_STATUS_COMPLETED);
    expect_attempts_given_up();
    expect_success();
}

static void test_slow_save(void)
{
    begin();
    set_faults(SOURCE, (FaultSet) { .save_ms = TOO_SLOW_MS });
    sides_migrate();
    sides_wait_for_aborted();
    set_faults(SOURCE, (FaultSet) { 0 });
    side_wait(SOURCE, MIGRATION_STATUS_COMPLETED);
    expect_attempts_given_up();
    expect_success();
}

/* The limit is a promise also where it cannot be kept. */
static void test_never_fast_enough(void)
{
    begin();
    set_limit(LIMIT_MS, 2);
    set_faults(DESTINATION, (FaultSet) { .load_ms = TOO_SLOW_MS });
    sides_migrate();
    sides_wait(MIGRATION_STATUS_FAILED);
    g_assert_cmpuint(sides_attempts(), ==, 2);
    g_assert_nonnull(strstr(side_error(SOURCE), "2 attempts"));
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    g_assert_cmpuint(sides_witness()->starts[SOURCE], ==, 3);
    sides_expect_guest(SOURCE);
    sides_stop();
}

/* READY comes too late: the guest is resumed while it is on its way. */
static void test_stalled_ready(void)
{
    const RelayStop stop = BEFORE_REPORT(READY);

    begin();
    sides_migrate_up_to(&stop);
    go_on_late();
    /* On a busy machine another may have ended before all was loaded. */
    g_assert_cmpuint(sides_witness()->resets[DESTINATION], >=, 1);
    g_assert_cmpuint(sides_witness()->resets[DESTINATION], <,
                     sides_witness()->starts[SOURCE]);
    expect_success();
}

/* So does all that the source sends. */
static void test_stalled_state(void)
{
    const RelayStop stop = BEFORE_COMMAND(STATE);

    begin();
    sides_migrate_up_to(&stop);
    go_on_late();
    expect_success();
}

/*
 * What somebody but the source writes to the destination's memory is told to
 * the source, and sent again.
 */
static void test_reset_writes(void)
{
    const RelayStop stop = BEFORE_REPORT(READY);

    begin();
    set_faults(DESTINATION, (FaultSet) { .reset_writes = true });
    sides_migrate_up_to(&stop);
    go_on_late();
    g_assert_cmpuint(sides_witness()->resets[DESTINATION], >=, 1);
    expect_success();
}

/* What a device writes when it is loaded is part of what is loaded. */
static void test_load_writes(void)
{
    begin();
    set_faults(DESTINATION, (FaultSet) { .load_writes = true });
    sides_migrate();
    sides_wait(MIGRATION_STATUS_COMPLETED);
    sides_forget_source();
    sides_expect_word(DEVICE_LOADED);
    expect_success();
}

/* But not if the attempt in which it did so was given up. */
static void test_load_writes_in_vain(void)
{
    const RelayStop stop = BEFORE_REPORT(READY);

    begin();
    set_faults(DESTINATION, (FaultSet) { .load_writes = true });
    sides_migrate_up_to(&stop);
    set_faults(DESTINATION, (FaultSet) { 0 });
    go_on_late();
    expect_success();
}

/* A device writes after the guest has stopped, before the last look. */
static void test_stop_writes(void)
{
    begin();
    set_faults(SOURCE, (FaultSet) { .stop_writes = true });
    sides_expect_word(DEVICE_STOPPED);
    sides_migrate();
    expect_success();
}

/* It writes when all was sent: that attempt is not worth anything. */
static int64_t write_word(const void *arg, char *text)
{
    memory_device_write(GUEST_DEVICE_WORD, DEVICE_STOPPED);
    return 0;
}

static void test_write_meanwhile(void)
{
    const RelayStop stop = BEFORE_REPORT(READY);

    begin();
    set_limit(LONG_MS, 10);
    sides_migrate_up_to(&stop);
    side_call(SOURCE, write_word, NULL, 0);
    sides_expect_word(DEVICE_STOPPED);
    go_on();
    expect_success();
}

/* A request changes the machine that was saved. */
static void test_reset_requested(void)
{
    const RelayStop stop = BEFORE_REPORT(READY);

    begin();
    set_limit(LONG_MS, 10);
    sides_migrate_up_to(&stop);
    side_request_reset(SOURCE);
    sides_let_guest_run(LET_RUN);
    g_assert_cmpuint(sides_witness()->resets[SOURCE], ==, 1);
    go_on();
    expect_success();
}

/*
 * What may happen at each step
 */

typedef struct Step {
    const char *name;
    RelayStop stop;
} Step;

static const Step before_commit[] = {
    { "hold", BEFORE_COMMAND(HOLD) },
    { "held", AFTER_COMMAND(HOLD) },
    { "state", BEFORE_COMMAND(STATE) },
    { "state-begun", AFTER_COMMAND(STATE) },
    { "ready", BEFORE_REPORT(READY) },
};

/* The guest cannot be resumed by time alone. */
static void stop_at(const RelayStop *stop)
{
    begin();
    set_limit(LONG_MS, 3);
    sides_migrate_up_to(stop);
}

static void expect_nothing_started(void)
{
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    sides_expect_guest(SOURCE);
    sides_stop();
}

static void test_cut(gconstpointer data)
{
    stop_at(&((const Step *)data)->stop);
    relay_cut(sides_relay());
    sides_wait(MIGRATION_STATUS_FAILED);
    expect_nothing_started();
}

static void test_cancelled(gconstpointer data)
{
    stop_at(&((const Step *)data)->stop);
    side_cancel();
    side_wait(SOURCE, MIGRATION_STATUS_CANCELLED);
    relay_go_on(sides_relay());
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    expect_nothing_started();
}

static void test_destination_ends(gconstpointer data)
{
    stop_at(&((const Step *)data)->stop);
    side_kill(DESTINATION);
    relay_go_on(sides_relay());
    side_wait(SOURCE, MIGRATION_STATUS_FAILED);
    expect_nothing_started();
}

/* A guest that is held is not the destination's. */
static void test_source_ends(gconstpointer data)
{
    stop_at(&((const Step *)data)->stop);
    side_kill(SOURCE);
    relay_cut(sides_relay());
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    g_assert_cmpint(side_run_state(DESTINATION), ==, RUN_STATE_INMIGRATE);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    sides_stop();
}

/*
 * At COMMIT and after it
 */

/* COMMIT is on its way when the connection breaks: nobody has the guest. */
static void test_commit_lost(void)
{
    const RelayStop stop = BEFORE_COMMAND(COMMIT);

    stop_at(&stop);
    g_assert_false(side_may_cancel());
    relay_cut(sides_relay());
    sides_expect_lost();
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    sides_expect_stopped_guest(SOURCE, RUN_STATE_POSTMIGRATE);
    side_cont(SOURCE);
    sides_expect_guest(SOURCE);
    sides_stop();
}

static void test_destination_ends_before_commit_arrives(void)
{
    const RelayStop stop = BEFORE_COMMAND(COMMIT);

    stop_at(&stop);
    side_kill(DESTINATION);
    relay_go_on(sides_relay());
    sides_expect_lost();
    sides_expect_stopped_guest(SOURCE, RUN_STATE_POSTMIGRATE);
    sides_stop();
}

static void test_source_ends_before_commit_arrives(void)
{
    const RelayStop stop = BEFORE_COMMAND(COMMIT);

    stop_at(&stop);
    side_kill(SOURCE);
    relay_cut(sides_relay());
    side_wait(DESTINATION, MIGRATION_STATUS_FAILED);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 0);
    sides_stop();
}

/* The guest runs there, and the source does not learn of it. */
static void test_answer_lost(void)
{
    const RelayStop stop = BEFORE_REPORT(STARTED);

    stop_at(&stop);
    g_assert_false(side_may_cancel());
    relay_cut(sides_relay());
    sides_expect_lost();
    side_wait(DESTINATION, MIGRATION_STATUS_COMPLETED);
    sides_expect_guest(DESTINATION);
    sides_stop();
}

static void test_source_ends_after_commit(void)
{
    const RelayStop stop = AFTER_COMMAND(COMMIT);

    stop_at(&stop);
    side_kill(SOURCE);
    relay_cut(sides_relay());
    side_wait(DESTINATION, MIGRATION_STATUS_COMPLETED);
    sides_expect_guest(DESTINATION);
    sides_stop();
}

static void test_destination_ends_after_commit(void)
{
    const RelayStop stop = BEFORE_REPORT(STARTED);

    stop_at(&stop);
    side_kill(DESTINATION);
    relay_cut(sides_relay());
    sides_expect_lost();
    g_assert_cmpuint(sides_witness()->starts[SOURCE], ==, 1);
    g_assert_cmpuint(sides_witness()->starts[DESTINATION], ==, 1);
    sides_stop();
}

/*
 * Something of a side fails
 */

/* The destination has not started it, says so, and the source has it back. */
static void test_no_disks(void)
{
    begin();
    set_faults(DESTINATION, (FaultSet) { .activate_fails = true });
    sides_migrate();
    sides_wait(MIGRATION_STATUS_FAILED);
    g_assert_nonnull(strstr(side_error(SOURCE), "not there"));
    expect_nothing_started();
}

static void test_load_fails(void)
{
    begin();
    set_faults(DESTINATION, (FaultSet) { .load_fails = true });
    sides_migrate();
    sides_wait(MIGRATION_STATUS_FAILED);
    g_assert_nonnull(strstr(side_error(SOURCE), "fake-device"));
    expect_nothing_started();
}

static void test_source_fails(gconstpointer data)
{
    begin();
    side_faults(SOURCE, data);
    sides_migrate();
    sides_wait(MIGRATION_STATUS_FAILED);
    expect_nothing_started();
}

static const FaultSet no_flush = { .flush_fails = true };
static const FaultSet no_save = { .save_fails = true };
static const FaultSet no_inactivate = { .inactivate_fails = true };

static void add_steps(void)
{
    static const struct {
        const char *name;
        void (*test)(gconstpointer);
    } kinds[] = {
        { "cut", test_cut },
        { "cancelled", test_cancelled },
        { "destination-ends", test_destination_ends },
        { "source-ends", test_source_ends },
    };

    for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
        for (unsigned i = 0; i < ARRAY_SIZE(before_commit); i++) {
            g_autofree char *path = g_strdup_printf(
                "/two-phase/%s/%s", kinds[k].name, before_commit[i].name);

            g_test_add_data_func(path, &before_commit[i], kinds[k].test);
        }
    }
}

static void add_attempts(void)
{
    g_test_add_func("/two-phase/one-attempt", test_one_attempt);
    g_test_add_func("/two-phase/slow-load", test_slow_load);
    g_test_add_func("/two-phase/slow-save", test_slow_save);
    g_test_add_func("/two-phase/never-fast-enough", test_never_fast_enough);
    g_test_add_func("/two-phase/stalled-ready", test_stalled_ready);
    g_test_add_func("/two-phase/stalled-state", test_stalled_state);
    g_test_add_func("/two-phase/reset-writes", test_reset_writes);
    g_test_add_func("/two-phase/load-writes", test_load_writes);
    g_test_add_func("/two-phase/load-writes-in-vain",
                    test_load_writes_in_vain);
    g_test_add_func("/two-phase/stop-writes", test_stop_writes);
    g_test_add_func("/two-phase/write-meanwhile", test_write_meanwhile);
    g_test_add_func("/two-phase/reset-requested", test_reset_requested);
}

static void add_commit(void)
{
    g_test_add_func("/two-phase/commit/lost", test_commit_lost);
    g_test_add_func("/two-phase/commit/destination-ends-before",
                    test_destination_ends_before_commit_arrives);
    g_test_add_func("/two-phase/commit/source-ends-before",
                    test_source_ends_before_commit_arrives);
    g_test_add_func("/two-phase/commit/answer-lost", test_answer_lost);
    g_test_add_func("/two-phase/commit/source-ends-after",
                    test_source_ends_after_commit);
    g_test_add_func("/two-phase/commit/destination-ends-after",
                    test_destination_ends_after_commit);
    g_test_add_func("/two-phase/fails/disks", test_no_disks);
    g_test_add_func("/two-phase/fails/load", test_load_fails);
    g_test_add_data_func("/two-phase/fails/flush", &no_flush,
                         test_source_fails);
    g_test_add_data_func("/two-phase/fails/save", &no_save,
                         test_source_fails);
    g_test_add_data_func("/two-phase/fails/inactivate", &no_inactivate,
                         test_source_fails);
}

int main(int argc, char **argv)
{
    sides_init(&argc, &argv);
    add_attempts();
    add_steps();
    add_commit();
    return g_test_run();
}
