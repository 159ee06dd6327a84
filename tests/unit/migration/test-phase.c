/*
 * Unit tests of the phase tables
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "migration/base/phase.h"

static const PhaseSide sides[] = { PHASE_SOURCE, PHASE_DESTINATION };

/* Statuses that can be reached from NONE. */
static uint32_t reachable(PhaseSide side)
{
    uint32_t seen = 1u << MIGRATION_STATUS_NONE, before;

    do {
        before = seen;
        for (int from = 0; from < MIGRATION_STATUS__MAX; from++) {
            for (int to = 0; to < MIGRATION_STATUS__MAX; to++) {
                if ((seen & (1u << from)) && phase_allows(side, from, to)) {
                    seen |= 1u << to;
                }
            }
        }
    } while (seen != before);
    return seen;
}

static void test_every_phase_is_reachable(void)
{
    for (int i = 0; i < ARRAY_SIZE(sides); i++) {
        uint32_t seen = reachable(sides[i]);

        for (int s = 0; s < MIGRATION_STATUS__MAX; s++) {
            g_assert_cmpint(phase_exists(sides[i], s), ==,
                            !!(seen & (1u << s)));
        }
    }
}

static void test_no_phase_follows_itself(void)
{
    for (int i = 0; i < ARRAY_SIZE(sides); i++) {
        for (int s = 0; s < MIGRATION_STATUS__MAX; s++) {
            g_assert_false(phase_allows(sides[i], s, s));
        }
    }
}

/* A phase is running or one from which to begin, or the very end. */
static void test_running_or_over(void)
{
    for (int i = 0; i < ARRAY_SIZE(sides); i++) {
        for (int s = 0; s < MIGRATION_STATUS__MAX; s++) {
            unsigned traits = phase_traits(sides[i], s);
            bool over = !(traits & PHASE_RUNNING);

            if (!phase_exists(sides[i], s)) {
                g_assert_cmpuint(traits, ==, 0);
                continue;
            }
            if (over && s != MIGRATION_STATUS_COMPLETED) {
                g_assert_true(traits & PHASE_RESTARTABLE);
            }
            if (traits & PHASE_RESTARTABLE) {
                g_assert_true(over);
                g_assert_true(phase_allows(sides[i], s,
                                           MIGRATION_STATUS_SETUP));
            }
        }
    }
}

/* Every running phase can end, and cancelling is offered where it works. */
static void test_cancellable(void)
{
    for (int s = 0; s < MIGRATION_STATUS__MAX; s++) {
        bool says = phase_traits(PHASE_SOURCE, s) & PHASE_CANCELLABLE;

        g_assert_cmpint(says, ==, phase_allows(PHASE_SOURCE, s,
                                               MIGRATION_STATUS_CANCELLING));
        g_assert_false(phase_allows(PHASE_DESTINATION, s,
                                    MIGRATION_STATUS_CANCELLING));
    }
}

/*
 * The rule that matters most: the guest is never on both sides.  Once the
 * source has let it go, no phase of this migration gives it back.
 */
static void test_guest_does_not_come_back(void)
{
    for (int from = 0; from < MIGRATION_STATUS__MAX; from++) {
        if (!phase_exists(PHASE_SOURCE, from) ||
            (phase_traits(PHASE_SOURCE, from) & PHASE_GUEST_HERE)) {
            continue;
        }
        for (int to = 0; to < MIGRATION_STATUS__MAX; to++) {
            if (to == MIGRATION_STATUS_FAILED ||
                from == MIGRATION_STATUS_COMPLETED) {
                continue;
            }
            if (phase_allows(PHASE_SOURCE, from, to)) {
                g_assert_false(phase_traits(PHASE_SOURCE, to) &
                               PHASE_GUEST_HERE);
            }
        }
    }
}

static void test_walk(void)
{
    static const MigrationStatus walk[] = {
        MIGRATION_STATUS_SETUP, MIGRATION_STATUS_ACTIVE,
        MIGRATION_STATUS_PRE_SWITCHOVER, MIGRATION_STATUS_DEVICE,
        MIGRATION_STATUS_COMPLETED, MIGRATION_STATUS_SETUP,
        MIGRATION_STATUS_CANCELLING, MIGRATION_STATUS_CANCELLED,
    };
    MigrationStatus last = MIGRATION_STATUS_NONE;
    Phase p;

    p = (Phase) { .side = PHASE_SOURCE };
    g_assert_cmpint(phase_get(&p), ==, MIGRATION_STATUS_NONE);
    for (int i = 0; i < ARRAY_SIZE(walk); i++) {
        g_assert_cmpint(phase_set(&p, walk[i]), ==, last);
        last = walk[i];
        g_assert_cmpint(phase_get(&p), ==, last);
    }
    g_assert_true(phase_has(&p, PHASE_GUEST_HERE | PHASE_RESTARTABLE));
    g_assert_false(phase_has(&p, PHASE_GUEST_HERE | PHASE_RUNNING));
}

static void test_forbidden(void)
{
    if (g_test_subprocess()) {
        Phase p;

        p = (Phase) { .side = PHASE_SOURCE };
        phase_set(&p, MIGRATION_STATUS_COMPLETED);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
}

static void test_move(void)
{
    Phase p;

    p = (Phase) { .side = PHASE_DESTINATION };
    phase_set(&p, MIGRATION_STATUS_SETUP);
    g_assert_true(phase_move(&p, MIGRATION_STATUS_SETUP,
                             MIGRATION_STATUS_ACTIVE));
    g_assert_false(phase_move(&p, MIGRATION_STATUS_SETUP,
                              MIGRATION_STATUS_FAILED));
    g_assert_cmpint(phase_get(&p), ==, MIGRATION_STATUS_ACTIVE);
}

/* The migration thread completes while the user cancels: one of them wins. */
typedef struct Race {
    Phase *phase;
    MigrationStatus to;
    bool won;
} Race;

static void *racer(void *opaque)
{
    Race *race = opaque;

    race->won = phase_move(race->phase, MIGRATION_STATUS_DEVICE, race->to);
    return NULL;
}

static void test_race(void)
{
    for (int round = 0; round < 200; round++) {
        Phase p = { PHASE_SOURCE, MIGRATION_STATUS_DEVICE };
        Race a = { &p, MIGRATION_STATUS_COMPLETED };
        Race b = { &p, MIGRATION_STATUS_CANCELLING };
        QemuThread thread;

        qemu_thread_create(&thread, "racer", racer, &a, QEMU_THREAD_JOINABLE);
        racer(&b);
        qemu_thread_join(&thread);
        g_assert_true(a.won != b.won);
        g_assert_cmpint(phase_get(&p), ==, a.won ? a.to : b.to);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration/phase/reachable",
                    test_every_phase_is_reachable);
    g_test_add_func("/migration/phase/irreflexive",
                    test_no_phase_follows_itself);
    g_test_add_func("/migration/phase/running-or-over", test_running_or_over);
    g_test_add_func("/migration/phase/cancellable", test_cancellable);
    g_test_add_func("/migration/phase/guest-does-not-come-back",
                    test_guest_does_not_come_back);
    g_test_add_func("/migration/phase/walk", test_walk);
    g_test_add_func("/migration/phase/forbidden", test_forbidden);
    g_test_add_func("/migration/phase/move", test_move);
    g_test_add_func("/migration/phase/race", test_race);
    return g_test_run();
}
