/*
 * Delays of parts of a switchover
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/thread.h"
#include "migration/base/clock.h"
#include "migration/core/fault-inject.h"

static void set(const char *text)
{
    fault_inject_set(text, &error_abort);
}

static void text_is(const char *expected)
{
    g_autofree char *text = fault_inject_text();

    g_assert_cmpstr(text, ==, expected);
}

static void test_read(void)
{
    set("device-load:50,stop:7");
    g_assert_cmpuint(fault_inject_delay_ms(DOWNTIME_PART_STOP), ==, 7);
    g_assert_cmpuint(fault_inject_delay_ms(DOWNTIME_PART_DEVICE_LOAD), ==, 50);
    g_assert_cmpuint(fault_inject_delay_ms(DOWNTIME_PART_DEVICE_SAVE), ==, 0);
    text_is("stop:7,device-load:50");

    /* what is not named has none */
    set("ram:1,flush:2,device-save:3,activate:4,start:60000,ram:9");
    text_is("ram:9,device-save:3,flush:2,activate:4,start:60000");
    set("ram:0");
    text_is("");
    set("stop:1");
    set("");
    text_is("");
}

static void test_malformed(void)
{
    static const struct {
        const char *text, *said;
    } cases[] = {
        { "stop", "'stop' is no delay" },
        { "stop=5", "'stop=5' is no delay" },
        { "stop:", "'' is no delay of 'stop'" },
        { "stop:5ms", "'5ms' is no delay of 'stop'" },
        { "stop:-5", "'-5' is no delay of 'stop'" },
        { "stop: 5", "' 5' is no delay of 'stop'" },
        { "stop:1:2", "'1:2' is no delay of 'stop'" },
        { "stop:60001", "from 0 to 60000" },
        { "stop:99999999999", "from 0 to 60000" },
        { "stop:5,", "'' is no delay" },
        { ",", "'' is no delay" },
        { "stop:5,nonsense:1", "'nonsense' is no part" },
        { "transit:5", "'transit' is no part" },
        { "sync:5", "'sync' is no part" },
    };

    set("activate:3");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        Error *err = NULL;

        g_assert_false(fault_inject_set(cases[i].text, &err));
        g_assert_nonnull(strstr(error_get_pretty(err), cases[i].said));
        error_free(err);
        text_is("activate:3");
    }
}

/* Each part that can be delayed is taken by its name; others name those. */
static void test_every_part(void)
{
    g_autoptr(GString) known = g_string_new("use one of ");
    Error *err = NULL;

    for (DowntimePart i = 0; i < DOWNTIME_PART__COUNT; i++) {
        const char *name = downtime_part_name(i);
        g_autofree char *text = g_strdup_printf("%s:%u", name, i + 1);

        if (downtime_part_can_delay(i)) {
            set(text);
            text_is(text);
            g_assert_cmpuint(fault_inject_delay_ms(i), ==, i + 1);
            g_string_append_printf(known, "%s,", name);
        } else {
            g_assert_false(fault_inject_set(text, NULL));
        }
    }
    g_string_truncate(known, known->len - 1);
    g_assert_false(fault_inject_set("nonsense:1", &err));
    g_assert_true(g_str_has_suffix(error_get_pretty(err), known->str));
    error_free(err);
}

static void test_delay(void)
{
    int64_t start = now_ns(), passed;

    set("start:20");
    fault_inject_delay(DOWNTIME_PART_START);
    passed = now_ns() - start;
    g_assert_cmpint(passed, >=, 20 * SCALE_MS);

    set("start:60000");
    for (DowntimePart part = 0; part < DOWNTIME_PART_START; part++) {
        fault_inject_delay(part);      /* or the test runs out of time */
    }
}

/*
 * A gate: whoever removes the file lets the part go on
 */

typedef struct Gate {
    char *folder, *path;
    bool passed;                /* atomic */
} Gate;

static void gate_init(Gate *g)
{
    g->folder = g_dir_make_tmp("fault-XXXXXX", NULL);
    g->path = g_build_filename(g->folder, "start", NULL);
    g->passed = false;
    fault_inject_set_gate(g->folder);
    g_assert_cmpstr(fault_inject_gate(), ==, g->folder);
}

static void gate_done(Gate *g)
{
    fault_inject_set_gate("");
    g_assert_cmpstr(fault_inject_gate(), ==, "");
    g_assert_cmpint(access(g->path, F_OK), !=, 0);
    rmdir(g->folder);
    g_free(g->folder);
    g_free(g->path);
}

static void *pass(void *opaque)
{
    Gate *g = opaque;

    fault_inject_delay(DOWNTIME_PART_START);
    qatomic_set(&g->passed, true);
    return NULL;
}

static void test_gate(void)
{
    QemuThread thread;
    Gate g;

    gate_init(&g);
    set("start:60000");
    for (int turn = 0; turn < 2; turn++) {
        qatomic_set(&g.passed, false);
        qemu_thread_create(&thread, "part", pass, &g, QEMU_THREAD_JOINABLE);
        while (access(g.path, F_OK)) {
            g_usleep(1000);
        }
        g_assert_false(qatomic_read(&g.passed));
        unlink(g.path);
        qemu_thread_join(&thread);
    }
    gate_done(&g);
}

/* Nobody comes; and nobody has to where there is no folder. */
static void test_gate_left_alone(void)
{
    int64_t start = now_ns();
    Gate g;

    gate_init(&g);
    set("start:20");
    fault_inject_delay(DOWNTIME_PART_START);
    g_assert_cmpint(now_ns() - start, >=, 20 * SCALE_MS);

    rmdir(g.folder);
    set("start:60000");
    fault_inject_delay(DOWNTIME_PART_START);
    gate_done(&g);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fault/read", test_read);
    g_test_add_func("/fault/malformed", test_malformed);
    g_test_add_func("/fault/every-part", test_every_part);
    g_test_add_func("/fault/delay", test_delay);
    g_test_add_func("/fault/gate", test_gate);
    g_test_add_func("/fault/gate-left-alone", test_gate_left_alone);
    return g_test_run();
}
