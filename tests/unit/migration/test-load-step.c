/*
 * Unit tests of the steps of a load: what the table allows, what holds in each
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "setup.h"
#include "migration/base/load-step.h"
#include "migration/misc.h"

#define FOREACH_STEP(s) for (LoadStep s = 0; s < STEP__COUNT; s++)

/* By all ways that the table has, without the end, bits by LoadStep */
static unsigned reachable(LoadStep from)
{
    unsigned seen = 1u << from, before;

    do {
        before = seen;
        FOREACH_STEP(a) {
            FOREACH_STEP(b) {
                if ((seen & (1u << a)) && b != STEP_ENDED &&
                    load_step_allows(a, b)) {
                    seen |= 1u << b;
                }
            }
        }
    } while (seen != before);
    return seen;
}

static void test_ways(void)
{
    unsigned all = (1u << STEP__COUNT) - 1;
    unsigned in_postcopy = 1u << STEP_LISTENING | 1u << STEP_RUNNING;

    g_assert_cmphex(reachable(STEP_PRECOPY), ==,
                    all & ~(1u << STEP_SNAPSHOT) & ~(1u << STEP_ENDED));
    g_assert_cmphex(reachable(STEP_SNAPSHOT), ==, 1u << STEP_SNAPSHOT);
    g_assert_cmphex(reachable(STEP_ENDED), ==, 1u << STEP_ENDED);
    /* From postcopy there is no way back. */
    g_assert_cmphex(reachable(STEP_LISTENING), ==, in_postcopy);
    g_assert_cmphex(reachable(STEP_RUNNING), ==, 1u << STEP_RUNNING);
    g_assert_cmphex(reachable(STEP_LAZY), ==,
                    1u << STEP_LAZY | 1u << STEP_RUNNING);
    g_assert_cmphex(reachable(STEP_EPOCHS), ==, 1u << STEP_EPOCHS);
    FOREACH_STEP(s) {
        g_assert_true(load_step_allows(s, STEP_ENDED));
    }
}

/* Takes the shortest way from PRECOPY to @to. */
static void walk_to(LoadStep to)
{
    static const LoadStep ways[STEP__COUNT][5] = {
        [STEP_ADVISED] = { STEP_ADVISED },
        [STEP_DISCARDING] = { STEP_ADVISED, STEP_DISCARDING },
        [STEP_LISTENING] = { STEP_ADVISED, STEP_LISTENING },
        [STEP_RUNNING] = { STEP_ADVISED, STEP_LISTENING, STEP_RUNNING },
        [STEP_LAZY] = { STEP_LAZY },
        [STEP_HELD] = { STEP_HELD },
        [STEP_HELD_DISCARDING] = { STEP_ADVISED, STEP_HELD,
                                   STEP_HELD_DISCARDING },
        [STEP_HELD_LISTENING] = { STEP_ADVISED, STEP_HELD,
                                  STEP_HELD_LISTENING },
        [STEP_READY] = { STEP_HELD, STEP_READY },
        [STEP_READY_LISTENING] = { STEP_ADVISED, STEP_HELD,
                                   STEP_HELD_LISTENING, STEP_READY_LISTENING },
        [STEP_EPOCHS] = { STEP_EPOCHS },
    };

    load_step_begin(STEP_PRECOPY);
    for (int i = 0; ways[to][i]; i++) {
        load_step_go(ways[to][i]);
    }
    g_assert_cmpint(load_step(), ==, to);
}

static void test_traits(void)
{
    for (LoadStep s = STEP_ADVISED; s < STEP__COUNT; s++) {
        bool held = s >= STEP_HELD && s != STEP_EPOCHS;
        bool listens = s == STEP_LISTENING || s == STEP_RUNNING ||
                       s == STEP_HELD_LISTENING || s == STEP_READY_LISTENING;

        if (s == STEP_ENDED) {
            continue;
        }
        walk_to(s);
        g_assert_true(load_step_has(LOAD_HOLDS) == held);
        g_assert_true(load_step_has(LOAD_EPOCHS) == (s == STEP_EPOCHS));
        g_assert_true(load_step_has(LOAD_LISTENS) == listens);
        g_assert_true(load_step_has(LOAD_POSTCOPY) == (listens && !held));
        g_assert_true(load_step_has(LOAD_READY) ==
                      (s == STEP_READY || s == STEP_READY_LISTENING));
        g_assert_true(migration_in_incoming_postcopy() ==
                      (listens || s == STEP_DISCARDING || s == STEP_LAZY ||
                       s == STEP_HELD_DISCARDING));
        g_assert_true(migration_incoming_postcopy_advised() ==
                      (s != STEP_LAZY && s != STEP_HELD && s != STEP_READY &&
                       s != STEP_EPOCHS));
        load_step_end();
        g_assert_false(migration_incoming_postcopy_advised());
        g_assert_false(migration_in_incoming_postcopy());
    }
}

/* What was held goes back to where it came from, however often. */
static void test_back(void)
{
    load_step_begin(STEP_PRECOPY);
    load_step_go(STEP_HELD);
    load_step_back();
    g_assert_cmpint(load_step(), ==, STEP_PRECOPY);

    for (int i = 0; i < 3; i++) {
        walk_to(STEP_READY_LISTENING);
        load_step_back();
        g_assert_cmpint(load_step(), ==, STEP_ADVISED);
        load_step_go(STEP_HELD);
        load_step_go(STEP_READY);
        load_step_back();
        g_assert_cmpint(load_step(), ==, STEP_ADVISED);
    }
    /* Another load knows nothing of that. */
    load_step_end();
    load_step_end();
    load_step_begin(STEP_PRECOPY);
    load_step_go(STEP_HELD);
    load_step_back();
    g_assert_cmpint(load_step(), ==, STEP_PRECOPY);
    load_step_end();
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/load-step/ways", test_ways);
    g_test_add_func("/load-step/traits", test_traits);
    g_test_add_func("/load-step/back", test_back);
    return g_test_run();
}
