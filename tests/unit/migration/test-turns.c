/*
 * Unit tests of turns on a CPU: what the kernel knows of a thread afterwards
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "migration/base/turns.h"

#include <sched.h>

#ifdef CONFIG_LINUX
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

/* In a thread of its own, as it stays like this */
static void in_thread(void *(*fn)(void *))
{
    QemuThread thread;

    qemu_thread_create(&thread, "turns", fn, NULL, QEMU_THREAD_JOINABLE);
    qemu_thread_join(&thread);
}

static uint64_t turn_ns(void)
{
    uint64_t attributes[6] = { };

    g_assert_cmpint(syscall(SYS_sched_getattr, 0, attributes,
                            sizeof(attributes), 0), ==, 0);
    return attributes[3];
}

static bool kernel_has_turns(void)
{
    unsigned major, minor;
    struct utsname name;

    g_assert_cmpint(uname(&name), ==, 0);
    g_assert_cmpint(sscanf(name.release, "%u.%u", &major, &minor), ==, 2);
    return major > 6 || (major == 6 && minor >= 12);
}

/* Nothing else changes, and who has nobody to give way to goes on at once. */
static void *take_short_ones(void *opaque)
{
    g_assert_cmpint(setpriority(PRIO_PROCESS, 0, 3), ==, 0);
    g_assert_true(turns_short());
    g_assert_cmpuint(turn_ns(), ==, TURNS_SHORT_NS);
    g_assert_cmpint(sched_getscheduler(0), ==, SCHED_OTHER);
    g_assert_cmpint(getpriority(PRIO_PROCESS, 0), ==, 3);
    turns_give_way();
    return NULL;
}

static void test_short(void)
{
    if (!kernel_has_turns()) {
        g_test_skip("turns have a length of their own since Linux 6.12");
        return;
    }
    in_thread(take_short_ones);
}

/* Whoever chose that knows why. */
static void *be_batch(void *opaque)
{
    struct sched_param param = { };
    uint64_t before;

    g_assert_cmpint(sched_setscheduler(0, SCHED_BATCH, &param), ==, 0);
    before = turn_ns();
    g_assert_false(turns_short());
    g_assert_cmpint(sched_getscheduler(0), ==, SCHED_BATCH);
    g_assert_cmpuint(turn_ns(), ==, before);
    return NULL;
}

static void test_chosen_policy(void)
{
    in_thread(be_batch);
}
#endif

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#ifdef CONFIG_LINUX
    g_test_add_func("/migration/turns/short", test_short);
    g_test_add_func("/migration/turns/chosen-policy", test_chosen_policy);
#endif
    return g_test_run();
}
