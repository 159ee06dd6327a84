/*
 * Unit tests of work that is queued for a vCPU: who waits for it, and how long
 *
 * cpu-common.c is the base's, with a patch of ours.  One thread stands for a
 * vCPU that does its work with a lock held, as the emulator's do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "exec/cpu-common.h"
#include "hw/core/cpu.h"
#include "setup.h"

/* What nothing waits for takes so long; nobody is to wait for it. */
#define LONG_MS (20 * 1000)

static QemuMutex lock;
static CPUState *cpu;
static QemuSemaphore slept_enough;
static bool waits;              /* atomic: the long work goes on */
static unsigned done;           /* lock */

bool qemu_cpu_is_self(CPUState *one)
{
    return false;
}

void qemu_cpu_kick(CPUState *one)
{
}

static void do_something(CPUState *one, run_on_cpu_data data)
{
    done++;
}

/* As a throttled vCPU: the lock is released meanwhile. */
static void take_long(CPUState *one, run_on_cpu_data data)
{
    qatomic_set(&waits, true);
    qemu_mutex_unlock(&lock);
    qemu_sem_timedwait(&slept_enough, LONG_MS);
    qemu_mutex_lock(&lock);
    qatomic_set(&waits, false);
}

static void *vcpu(void *opaque)
{
    qemu_mutex_lock(&lock);
    process_queued_cpu_work(cpu);
    qemu_mutex_unlock(&lock);
    return NULL;
}

static void *waiter(void *opaque)
{
    qemu_mutex_lock(&lock);
    do_run_on_cpu(cpu, do_something, RUN_ON_CPU_NULL, &lock);
    g_assert_cmpuint(done, ==, 1);
    /* What was queued later has not been waited for. */
    g_assert_true(qatomic_read(&waits));
    qemu_mutex_unlock(&lock);
    qemu_sem_post(&slept_enough);
    return NULL;
}

static bool is_queued(void)
{
    bool queued;

    qemu_mutex_lock(&cpu->work_mutex);
    queued = !QSIMPLEQ_EMPTY(&cpu->work_list);
    qemu_mutex_unlock(&cpu->work_mutex);
    return queued;
}

/*
 * The vCPU finds both pieces of work when it looks, and does one after the
 * other: whoever waits for the first one goes on when that is done.
 */
static void test_done_first(void)
{
    QemuThread a, b;
    int64_t start = g_get_monotonic_time();

    qemu_thread_create(&a, "waiter", waiter, NULL, QEMU_THREAD_JOINABLE);
    while (!is_queued()) {
        g_usleep(100);
    }
    async_run_on_cpu(cpu, take_long, RUN_ON_CPU_NULL);
    qemu_thread_create(&b, "vcpu", vcpu, NULL, QEMU_THREAD_JOINABLE);
    qemu_thread_join(&a);
    qemu_thread_join(&b);
    g_assert_cmpint(g_get_monotonic_time() - start, <, LONG_MS * 1000 / 2);
    g_assert_false(is_queued());
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_cpu_list();
    qemu_mutex_init(&lock);
    qemu_sem_init(&slept_enough, 0);
    cpu = g_new0(CPUState, 1);
    qemu_mutex_init(&cpu->work_mutex);
    QSIMPLEQ_INIT(&cpu->work_list);
    g_test_add_func("/cpu-work/done-first", test_done_first);
    return g_test_run();
}
