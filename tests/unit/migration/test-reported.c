/*
 * Unit tests of collecting what is reported with error_report()
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/thread.h"
#include "migration/base/reported.h"
#include "setup.h"

static void expect(Reported *r, const char *text)
{
    g_autofree char *all = reported_end(r);

    g_assert_cmpstr(all, ==, text);
}

static void test_order(void)
{
    Reported r;

    error_report("before");
    reported_begin(&r);
    expect(&r, NULL);
    reported_begin(&r);
    error_report("%d != %d", 1, 2);
    warn_report("no error");
    info_report("nor this");
    error_report("Failed to load b:c");
    error_report("Failed to load a:b");
    expect(&r, "Failed to load a:b: Failed to load b:c: 1 != 2");
    error_report("after");
    reported_begin(&r);
    expect(&r, NULL);
}

/* An Error that is printed is reported as well. */
static void test_error(void)
{
    Error *err = NULL;
    Reported r;

    reported_begin(&r);
    error_setg(&err, "no disk");
    error_report_err(err);
    expect(&r, "no disk");
}

static void test_one_line(void)
{
    static const char lines[] = "a\nb\tc\r\n";
    g_autofree char *text = g_strnfill(REPORTED_LEN_MAX + 1, 'x');
    g_autofree char *cut = g_strndup(text, REPORTED_LEN_MAX);
    Reported r;

    reported_begin(&r);
    error_report("%s", lines);
    expect(&r, "a b c");
    reported_begin(&r);
    error_report("%s", "\033[2J\xff'");
    expect(&r, " [2J\xef\xbf\xbd'");
    reported_begin(&r);
    error_report("%s", text);
    expect(&r, cut);
}

/* Of many the first ones and the last one are kept. */
static void test_many(void)
{
    g_autofree char *all = NULL;
    Reported r;

    reported_begin(&r);
    for (unsigned i = 0; i < 10 * REPORTED_COUNT_MAX; i++) {
        error_report("%u.", i);
    }
    all = reported_end(&r);
    g_assert_true(g_str_has_prefix(all, "119.: 10.: 9.: "));
    g_assert_true(g_str_has_suffix(all, ": 1.: 0."));
}

static void test_nested(void)
{
    Reported outer, inner;

    reported_begin(&outer);
    error_report("first");
    reported_begin(&inner);
    error_report("inner");
    expect(&inner, "inner");
    error_report("last");
    expect(&outer, "last: first");
}

static void *report_elsewhere(void *opaque)
{
    error_report("of another thread");
    return NULL;
}

static void test_threads(void)
{
    QemuThread thread;
    Reported r;

    reported_begin(&r);
    qemu_thread_create(&thread, "other", report_elsewhere, NULL,
                       QEMU_THREAD_JOINABLE);
    qemu_thread_join(&thread);
    error_report("of this one");
    expect(&r, "of this one");
}

static void coroutine_fn report_in_coroutine(void *opaque)
{
    char **said = opaque;
    Reported r;

    reported_begin(&r);
    error_report("begins");
    qemu_coroutine_yield();
    error_report("ends");
    *said = reported_end(&r);
}

/* Two that take turns, and the one who has them do it. */
static void test_coroutines(void)
{
    g_autofree char *one = NULL;
    g_autofree char *two = NULL;
    Coroutine *first = qemu_coroutine_create(report_in_coroutine, &one);
    Coroutine *second = qemu_coroutine_create(report_in_coroutine, &two);
    Reported r;

    reported_begin(&r);
    qemu_coroutine_enter(first);
    error_report("outside");
    qemu_coroutine_enter(second);
    error_report("outside, too");
    qemu_coroutine_enter(first);
    qemu_coroutine_enter(second);
    g_assert_cmpstr(one, ==, "ends: begins");
    g_assert_cmpstr(two, ==, "ends: begins");
    expect(&r, "outside, too: outside");
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/reported/order", test_order);
    g_test_add_func("/reported/error", test_error);
    g_test_add_func("/reported/one-line", test_one_line);
    g_test_add_func("/reported/many", test_many);
    g_test_add_func("/reported/nested", test_nested);
    g_test_add_func("/reported/threads", test_threads);
    g_test_add_func("/reported/coroutines", test_coroutines);
    return g_test_run();
}
