/*
 * Slowing vCPUs down: what share of their time they lose, and that all ends
 *
 * What the emulator has is made up here: vCPUs that do their errands when they
 * are told, and the clock that goes by while the guest runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "exec/cpu-common.h"
#include "hw/core/cpu.h"
#include "qapi/qapi-commands-migration.h"
#include "system/cpu-timers.h"
#include "migration/base/clock.h"
#include "migration/core/main-loop.h"
#include "migration/source/throttle.h"
#include "setup.h"

#define CPUS 3

CPUTailQ cpus_queue = QTAILQ_HEAD_INITIALIZER(cpus_queue);

/*
 * vCPUs
 */

typedef struct Errand {
    run_on_cpu_func func;       /* NULL if there is none */
    run_on_cpu_data data;
    int asked_ms;               /* how long it wanted to sleep, all in all */
    unsigned count;             /* of those it was given */
} Errand;

static CPUState *cpus[CPUS];
static QemuCond conds[CPUS];
static Errand errands[CPUS];
static bool asleep;             /* atomic; somebody waits for its condition */
static bool stop_while_asleep;  /* the VM is stopped when somebody sleeps */
static bool errand_while_asleep;    /* one of another kind comes */

struct qemu_work_item {
    QSIMPLEQ_ENTRY(qemu_work_item) node;
};
static struct qemu_work_item other;
static unsigned others_done;
static bool other_unplugs;      /* it ejects the vCPU */

void process_queued_cpu_work(CPUState *cpu)
{
    g_assert_true(QSIMPLEQ_FIRST(&cpu->work_list) == &other);
    QSIMPLEQ_REMOVE_HEAD(&cpu->work_list, node);
    others_done++;
    cpu->unplug = other_unplugs;
}

void async_run_on_cpu(CPUState *cpu, run_on_cpu_func func, run_on_cpu_data d)
{
    Errand *e = &errands[cpu->cpu_index];

    g_assert_null(e->func);
    e->func = func;
    e->data = d;
    e->count++;
}

void qemu_cond_timedwait_bql(QemuCond *cond, int ms)
{
    unsigned n = cond - conds;

    g_assert_cmpuint(n, <, CPUS);
    g_assert_cmpint(ms, >, 0);
    qatomic_set(&errands[n].asked_ms, errands[n].asked_ms + ms);
    qatomic_set(&asleep, true);
    if (stop_while_asleep) {
        cpus[n]->stop = true;
    } else if (errand_while_asleep) {
        errand_while_asleep = false;
        QSIMPLEQ_INSERT_TAIL(&cpus[n]->work_list, &other, node);
    } else {
        g_usleep(ms * 1000);
    }
}

/* Has that vCPU do what it was told. Returns how long it took, in ns. */
static int64_t do_errand(unsigned n)
{
    Errand *e = &errands[n];
    run_on_cpu_func func = g_steal_pointer(&e->func);
    int64_t start = now_ns();

    g_assert_nonnull(func);
    qatomic_set(&e->asked_ms, 0);
    func(cpus[n], e->data);
    return now_ns() - start;
}

static void do_errands(void)
{
    for (unsigned n = 0; n < CPUS; n++) {
        if (errands[n].func) {
            do_errand(n);
        }
    }
}

static unsigned errands_given(void)
{
    unsigned count = 0;

    for (unsigned n = 0; n < CPUS; n++) {
        count += errands[n].count;
    }
    return count;
}

/*
 * The clock of the running guest
 */

static int64_t guest_ns;

int64_t cpu_get_clock(void)
{
    return guest_ns;
}

static void pass(int64_t ns)
{
    guest_ns += ns;
    qemu_clock_run_timers(QEMU_CLOCK_VIRTUAL_RT);
}

/*
 * The main loop, and the dirty limit
 */

static QEMUBHFunc *in_main_loop;
static void *main_loop_opaque;

void main_loop_run(QEMUBHFunc *fn, void *opaque)
{
    in_main_loop = fn;
    main_loop_opaque = opaque;
}

static void loop_turns(void)
{
    QEMUBHFunc *fn = g_steal_pointer(&in_main_loop);

    if (fn) {
        fn(main_loop_opaque);
    }
}

static struct {
    unsigned sets, cancels;
    uint64_t mib;
    bool fails;
} limiter;

void qmp_set_vcpu_dirty_limit(bool has_cpu, int64_t cpu, uint64_t rate,
                              Error **errp)
{
    g_assert_false(has_cpu);
    limiter.sets++;
    limiter.mib = rate;
    if (limiter.fails) {
        error_setg(errp, "There is no dirty ring");
    }
}

void qmp_cancel_vcpu_dirty_limit(bool has_cpu, int64_t cpu, Error **errp)
{
    g_assert_false(has_cpu);
    limiter.cancels++;
}

/*
 * Tests
 */

static void begin(unsigned share)
{
    memset(errands, 0, sizeof(errands));
    throttle_set(share);
    loop_turns();
}

/* Leaves nothing behind for the next test. */
static void end(void)
{
    throttle_set(0);
    do_errands();
    pass(10 * NANOSECONDS_PER_SECOND);
    g_assert_cmpuint(throttle_get(), ==, 0);
    stop_while_asleep = false;
    for (unsigned n = 0; n < CPUS; n++) {
        g_assert_null(errands[n].func);
        cpus[n]->stop = false;
    }
}

/* One errand in a period, and of that period it takes the share. */
static void test_share(void)
{
    for (unsigned share = 1; share <= THROTTLE_MAX; share++) {
        int64_t run_ns = 10 * SCALE_MS;
        int64_t sleep_ns = run_ns * share / (100 - share);

        begin(share);
        g_assert_cmpuint(throttle_get(), ==, share);
        g_assert_cmpuint(errands_given(), ==, CPUS);
        /* What they do in that time is seen below. */
        for (unsigned n = 0; n < CPUS; n++) {
            errands[n].func = NULL;
            cpus[n]->throttle_thread_scheduled = false;
        }
        pass(run_ns + sleep_ns - 1);
        g_assert_cmpuint(errands_given(), ==, CPUS);
        pass(1);
        g_assert_cmpuint(errands_given(), ==, 2 * CPUS);
        end();
    }
}

/* Who sleeps wakes up neither earlier nor, if the machine is idle, later. */
static void test_sleep(void)
{
    static const unsigned shares[] = { 1, 5, 20, 50, 75, 90, 95 };

    for (unsigned i = 0; i < ARRAY_SIZE(shares); i++) {
        int64_t sleep_ns = 10 * SCALE_MS * shares[i] / (100 - shares[i]);

        begin(shares[i]);
        g_assert_cmpint(do_errand(1), >=, sleep_ns);
        g_assert_cmpint(errands[1].asked_ms, <=, sleep_ns / SCALE_MS);
        g_assert_false(cpus[1]->throttle_thread_scheduled);
        end();
    }
}

/* A vCPU that is late with its errand gets no second one, the others do. */
static void test_late(void)
{
    begin(50);
    do_errand(0);
    do_errand(2);
    pass(20 * SCALE_MS);
    g_assert_cmpuint(errands[0].count, ==, 2);
    g_assert_cmpuint(errands[1].count, ==, 1);
    g_assert_cmpuint(errands[2].count, ==, 2);
    do_errand(1);
    pass(20 * SCALE_MS);
    g_assert_cmpuint(errands[1].count, ==, 2);
    end();
}

/* A new share counts from the next errand on. */
static void test_change(void)
{
    begin(20);
    do_errands();
    throttle_set(90);
    g_assert_null(in_main_loop);
    pass(SCALE_MS * 25 / 2);
    g_assert_cmpuint(errands_given(), ==, 2 * CPUS);
    g_assert_cmpint(do_errand(0), >=, 90 * SCALE_MS);
    do_errands();
    pass(100 * SCALE_MS - 1);
    g_assert_cmpuint(errands_given(), ==, 2 * CPUS);
    pass(1);
    g_assert_cmpuint(errands_given(), ==, 3 * CPUS);
    end();
}

/* No errand comes after the end, and a new beginning has one timer only. */
static void test_end(void)
{
    begin(50);
    do_errands();
    throttle_set(0);
    pass(NANOSECONDS_PER_SECOND);
    g_assert_cmpuint(errands_given(), ==, CPUS);

    /* Ended and begun again while the main loop is busy. */
    throttle_set(30);
    throttle_set(0);
    loop_turns();
    g_assert_cmpuint(errands_given(), ==, CPUS);
    throttle_set(50);
    throttle_set(0);
    throttle_set(50);
    loop_turns();
    do_errands();
    g_assert_cmpuint(errands_given(), ==, 2 * CPUS);
    for (unsigned periods = 1; periods <= 5; periods++) {
        pass(20 * SCALE_MS);
        g_assert_cmpuint(errands_given(), ==, (2 + periods) * CPUS);
        do_errands();
    }
    end();
}

static void test_too_much(void)
{
    begin(100);
    g_assert_cmpuint(throttle_get(), ==, THROTTLE_MAX);
    throttle_set(1000);
    g_assert_cmpuint(throttle_get(), ==, THROTTLE_MAX);
    end();
}

static void *sleeper(void *opaque)
{
    do_errand(0);
    return NULL;
}

/* The end is the end for those who sleep as well, of a second at 99 %. */
static void test_wake(void)
{
    QemuThread thread;
    int asked_ms;

    begin(THROTTLE_MAX);
    qatomic_set(&asleep, false);
    qemu_thread_create(&thread, "sleeper", sleeper, NULL,
                       QEMU_THREAD_JOINABLE);
    while (!qatomic_read(&asleep)) {
        g_usleep(100);
    }
    throttle_set(0);
    asked_ms = qatomic_read(&errands[0].asked_ms);
    qemu_thread_join(&thread);
    g_assert_false(cpus[0]->throttle_thread_scheduled);
    /* It may just have looked. */
    g_assert_cmpint(errands[0].asked_ms - asked_ms, <=, 20);
    end();
}

/* Nobody sleeps on while the VM is to stop, or 99 % would cost a second. */
static void test_stop(void)
{
    begin(99);
    stop_while_asleep = true;
    do_errand(0);
    g_assert_cmpint(errands[0].asked_ms, >, 0);
    g_assert_cmpint(errands[0].asked_ms, <=, 10);
    g_assert_false(cpus[0]->throttle_thread_scheduled);
    /* One that is to stop, or has, does not even begin. */
    cpus[1]->stop = true;
    do_errand(1);
    g_assert_cmpint(errands[1].asked_ms, ==, 0);
    cpus[2]->stopped = true;
    do_errand(2);
    g_assert_cmpint(errands[2].asked_ms, ==, 0);
    g_assert_false(cpus[2]->throttle_thread_scheduled);
    cpus[2]->stopped = false;
    end();
}

/*
 * Other errands are done in between, at once, and take nothing off what is to
 * be slept: the vCPU does not come back to the guest for them.
 */
static void test_other_errand(void)
{
    begin(90);
    others_done = 0;
    errand_while_asleep = true;
    g_assert_cmpint(do_errand(0), >=, 90 * SCALE_MS);
    g_assert_cmpuint(others_done, ==, 1);
    g_assert_cmpuint(errands[0].count, ==, 1);
    g_assert_null(in_main_loop);
    g_assert_false(cpus[0]->throttle_thread_scheduled);
    end();

    /* One that is there from the start is not waited for either. */
    begin(90);
    QSIMPLEQ_INSERT_TAIL(&cpus[1]->work_list, &other, node);
    g_assert_cmpint(do_errand(1), >=, 90 * SCALE_MS);
    g_assert_cmpuint(others_done, ==, 2);
    end();
}

/* A vCPU that the guest has ejected sleeps no more, and gets no errand. */
static void test_unplugged(void)
{
    begin(90);
    errand_while_asleep = other_unplugs = true;
    do_errand(0);
    other_unplugs = false;
    g_assert_cmpint(errands[0].asked_ms, <=, 10);
    g_assert_false(cpus[0]->throttle_thread_scheduled);
    do_errands();
    pass(100 * SCALE_MS);
    g_assert_cmpuint(errands[0].count, ==, 1);
    g_assert_cmpuint(errands[1].count, ==, 2);
    cpus[0]->unplug = false;
    end();
}

static void test_dirty_rate(void)
{
    memset(&limiter, 0, sizeof(limiter));
    throttle_dirty_rate(0);
    g_assert_cmpuint(limiter.sets + limiter.cancels, ==, 0);

    throttle_dirty_rate(5 * MiB);
    throttle_dirty_rate(5 * MiB);
    g_assert_cmpuint(limiter.sets, ==, 1);
    g_assert_cmpuint(limiter.mib, ==, 5);

    /* Less than there is a unit for must not become no limit at all. */
    throttle_dirty_rate(MiB / 2);
    g_assert_cmpuint(limiter.sets, ==, 2);
    g_assert_cmpuint(limiter.mib, ==, 1);
    throttle_dirty_rate(MiB + 1);
    g_assert_cmpuint(limiter.mib, ==, 2);
    g_assert_cmpuint(limiter.cancels, ==, 0);

    throttle_dirty_rate(0);
    throttle_dirty_rate(0);
    g_assert_cmpuint(limiter.sets, ==, 3);
    g_assert_cmpuint(limiter.cancels, ==, 1);
}

/* Where it cannot be limited that is said once, and taken back in the end. */
static void test_dirty_rate_fails(void)
{
    memset(&limiter, 0, sizeof(limiter));
    limiter.fails = true;
    throttle_dirty_rate(3 * MiB);
    throttle_dirty_rate(3 * MiB);
    g_assert_cmpuint(limiter.sets, ==, 1);
    throttle_dirty_rate(0);
    g_assert_cmpuint(limiter.cancels, ==, 1);
}

static void make_cpus(void)
{
    for (unsigned n = 0; n < CPUS; n++) {
        cpus[n] = g_new0(CPUState, 1);
        cpus[n]->cpu_index = n;
        cpus[n]->halt_cond = &conds[n];
        QSIMPLEQ_INIT(&cpus[n]->work_list);
        QTAILQ_INSERT_TAIL_RCU(&cpus_queue, cpus[n], node);
    }
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    make_cpus();
    g_test_add_func("/throttle/share", test_share);
    g_test_add_func("/throttle/sleep", test_sleep);
    g_test_add_func("/throttle/late", test_late);
    g_test_add_func("/throttle/change", test_change);
    g_test_add_func("/throttle/end", test_end);
    g_test_add_func("/throttle/too-much", test_too_much);
    g_test_add_func("/throttle/wake", test_wake);
    g_test_add_func("/throttle/stop", test_stop);
    g_test_add_func("/throttle/other-errand", test_other_errand);
    g_test_add_func("/throttle/unplugged", test_unplugged);
    g_test_add_func("/throttle/dirty-rate", test_dirty_rate);
    g_test_add_func("/throttle/dirty-rate-fails", test_dirty_rate_fails);
    return g_test_run();
}
