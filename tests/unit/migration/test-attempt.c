/*
 * Who decides how an attempt to switch over ends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/base/clock.h"
#include "migration/source/attempt.h"

/* Nothing here takes as long, ms. */
#define LONG 1000000

static unsigned resumed;

static void resume(void)
{
    resumed++;
}

static int64_t in_ms(int ms)
{
    return now_ns() + ms * (int64_t)SCALE_MS;
}

static void run_for(int ms)
{
    int64_t end = in_ms(ms);

    while (now_ns() < end) {
        main_loop_wait(true);
        g_usleep(1000);
    }
}

static AttemptEnd end_of(bool committed, unsigned times, const char *reason)
{
    AttemptEnd end = attempt_end();

    g_assert_cmpint(end.committed, ==, committed);
    g_assert_cmpuint(resumed, ==, times);
    g_assert_nonnull(strstr(end.reason, reason));
    g_assert_false(attempt_open());
    return end;
}

static void begin(int ms)
{
    resumed = 0;
    attempt_begin(in_ms(ms), resume);
    g_assert_true(attempt_open());
}

static void test_committed(void)
{
    begin(20);
    g_assert_true(attempt_commit());
    attempt_abort("too late");
    run_for(40);
    end_of(true, 0, "");
}

static void test_time_is_over(void)
{
    int64_t before = in_ms(0);
    AttemptEnd end;

    begin(10);
    attempt_step("some step");
    run_for(40);
    g_assert_false(attempt_open());
    g_assert_false(attempt_commit());
    attempt_abort("not any more");
    end = end_of(false, 1, "some step");
    g_assert_cmpint(end.resumed_ns, >=, before + 10 * SCALE_MS);
}

/* It may have passed before there was time to look at it. */
static void test_time_was_over(void)
{
    begin(-5);
    run_for(5);
    g_assert_false(attempt_commit());
    end_of(false, 1, "stop");
}

static void test_given_up(void)
{
    begin(20);
    attempt_abort("reason");
    attempt_abort("another");
    g_assert_false(attempt_commit());
    run_for(40);
    end_of(false, 1, "reason");
}

/* Who holds the lock for long looks at the clock himself. */
static void test_in_time(void)
{
    begin(LONG);
    g_assert_true(attempt_in_time());
    attempt_abort("enough");
    end_of(false, 1, "enough");

    begin(-5);
    attempt_step("long step");
    g_assert_false(attempt_in_time());
    g_assert_false(attempt_in_time());
    run_for(5);
    end_of(false, 1, "long step");

    begin(-5);
    g_assert_true(attempt_commit());
    attempt_in_time();
    end_of(true, 0, "");
}

/* What an attempt leaves does not touch the next. */
static void test_again(void)
{
    for (int i = 0; i < 3; i++) {
        begin(i ? 5 : 1000);
        if (i == 2) {
            g_assert_true(attempt_commit());
        } else {
            attempt_abort("again");
        }
        end_of(i == 2, i != 2, i == 2 ? "" : "again");
        run_for(10);
        g_assert_cmpuint(resumed, ==, i != 2);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    rust_bql_mock_lock();
    g_test_add_func("/attempt/committed", test_committed);
    g_test_add_func("/attempt/time-is-over", test_time_is_over);
    g_test_add_func("/attempt/time-was-over", test_time_was_over);
    g_test_add_func("/attempt/given-up", test_given_up);
    g_test_add_func("/attempt/in-time", test_in_time);
    g_test_add_func("/attempt/again", test_again);
    return g_test_run();
}
