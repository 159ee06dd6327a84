/*
 * Unit tests of which capabilities go together
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qapi/error.h"
#include "migration/base/caps.h"

#define CAPS MIGRATION_CAPABILITY__MAX
#define BIT_OF(cap) BIT_ULL(MIGRATION_CAPABILITY_##cap)

/*
 * The expectations, written down from the documentation of the capabilities
 * and independently of the rules' order: for each, what it cannot go with
 * (one direction is enough) and what it cannot be without.
 */
static const struct {
    MigrationCapability cap;
    uint64_t without;
    uint64_t with;
} expected[] = {
    { MIGRATION_CAPABILITY_POSTCOPY_RAM,
      BIT_OF(X_IGNORE_SHARED) | BIT_OF(BACKGROUND_SNAPSHOT), 0 },
    { MIGRATION_CAPABILITY_XBZRLE,
      BIT_OF(MULTIFD) | BIT_OF(MAPPED_RAM) | BIT_OF(ZERO_COPY_SEND) |
      BIT_OF(BACKGROUND_SNAPSHOT), 0 },
    { MIGRATION_CAPABILITY_DIRTY_LIMIT, BIT_OF(AUTO_CONVERGE), 0 },
    { MIGRATION_CAPABILITY_ZERO_COPY_SEND,
      BIT_OF(BACKGROUND_SNAPSHOT), BIT_OF(MULTIFD) },
    { MIGRATION_CAPABILITY_POSTCOPY_PREEMPT, BIT_OF(MAPPED_RAM),
      BIT_OF(POSTCOPY_RAM) },
    { MIGRATION_CAPABILITY_POSTCOPY_AUTO, 0, BIT_OF(POSTCOPY_RAM) },
    { MIGRATION_CAPABILITY_SWITCHOVER_ACK, 0, BIT_OF(RETURN_PATH) },
    { MIGRATION_CAPABILITY_STRICT_DOWNTIME,
      BIT_OF(X_COLO) | BIT_OF(X_IGNORE_SHARED), BIT_OF(RETURN_PATH) },
    { MIGRATION_CAPABILITY_CHECKPOINT,
      BIT_OF(POSTCOPY_RAM) | BIT_OF(MULTIFD) | BIT_OF(MAPPED_RAM) |
      BIT_OF(X_IGNORE_SHARED) | BIT_OF(DIRTY_BITMAPS) |
      BIT_OF(STRICT_DOWNTIME) | BIT_OF(PAUSE_BEFORE_SWITCHOVER) |
      BIT_OF(X_COLO) | BIT_OF(BACKGROUND_SNAPSHOT), BIT_OF(RETURN_PATH) },
    { MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT,
      BIT_OF(DIRTY_BITMAPS) | BIT_OF(POSTCOPY_BLOCKTIME) |
      BIT_OF(LATE_BLOCK_ACTIVATE) | BIT_OF(RETURN_PATH) | BIT_OF(MULTIFD) |
      BIT_OF(PAUSE_BEFORE_SWITCHOVER) | BIT_OF(AUTO_CONVERGE) |
      BIT_OF(RELEASE_RAM) | BIT_OF(RDMA_PIN_ALL) | BIT_OF(X_COLO) |
      BIT_OF(VALIDATE_UUID), 0 },
};

static bool expect_good(uint64_t caps)
{
    for (int i = 0; i < ARRAY_SIZE(expected); i++) {
        if (!(caps & BIT_ULL(expected[i].cap))) {
            continue;
        }
        if ((caps & expected[i].without) ||
            (caps & expected[i].with) != expected[i].with) {
            return false;
        }
    }
    return true;
}

/* The environment: which conditions fail, and which were asked about. */
static unsigned failing;
static unsigned asked;
static const MigrationParameters considered;

static bool holds(MigrationCapability cap, CapCondition condition,
                  const MigrationParameters *params, Error **errp)
{
    g_assert_true(params == &considered);
    asked |= 1u << condition;
    if (failing & (1u << condition)) {
        error_setg(errp, "condition %d of %s", condition,
                   MigrationCapability_str(cap));
        return false;
    }
    return true;
}

/* Asks for @new where @old is set; returns the error's text, or NULL. */
static char *check(uint64_t old, uint64_t new)
{
    bool from[CAPS], to[CAPS];
    Error *err = NULL;
    char *text;

    for (int cap = 0; cap < CAPS; cap++) {
        from[cap] = old & BIT_ULL(cap);
        to[cap] = new & BIT_ULL(cap);
    }
    asked = 0;
    if (caps_check(from, to, &considered, holds, &err)) {
        g_assert_null(err);
        return NULL;
    }
    text = g_strdup(error_get_pretty(err));
    error_free(err);
    return text;
}

static void check_as_expected(uint64_t caps)
{
    g_autofree char *said = check(0, caps);

    /* zero-blocks warns on standard error, which is not of interest here */
    g_assert_cmpint(!said, ==, expect_good(caps));
}

static const uint64_t silent = ~BIT_OF(ZERO_BLOCKS);

static void test_none(void)
{
    failing = ~0u;
    g_assert_null(check(0, 0));
    g_assert_null(check(BIT_OF(MULTIFD) | BIT_OF(POSTCOPY_RAM), 0));
    g_assert_cmpuint(asked, ==, 0);
}

/* All sets of up to four. */
static void test_sets(void)
{
    failing = 0;
    for (int a = 0; a < CAPS; a++) {
        for (int b = a; b < CAPS; b++) {
            for (int c = b; c < CAPS; c++) {
                for (int d = c; d < CAPS; d++) {
                    check_as_expected((BIT_ULL(a) | BIT_ULL(b) | BIT_ULL(c) |
                                       BIT_ULL(d)) & silent);
                }
            }
        }
    }
}

static bool names(const char *text, MigrationCapability cap)
{
    g_autofree char *quoted = g_strdup_printf("'%s'",
                                              MigrationCapability_str(cap));

    return strstr(text, quoted);
}

/* Which of two are at odds, or which one lacks what. */
static void check_text(MigrationCapability a, MigrationCapability b,
                       const char *said)
{
    bool found = false;

    if (strstr(said, "is not compatible with")) {
        g_assert_true(names(said, a) && names(said, b));
        return;
    }
    g_assert_nonnull(strstr(said, "requires"));
    for (int i = 0; i < ARRAY_SIZE(expected); i++) {
        if (expected[i].cap == a || expected[i].cap == b) {
            found |= expected[i].with && names(said, expected[i].cap) &&
                     names(said, ctz64(expected[i].with));
        }
    }
    g_assert_true(found);
}

static void test_texts(void)
{
    int seen = 0;

    failing = 0;
    for (int a = 0; a < CAPS; a++) {
        for (int b = a + 1; b < CAPS; b++) {
            g_autofree char *said =
                check(0, (BIT_ULL(a) | BIT_ULL(b)) & silent);

            if (said) {
                check_text(a, b, said);
                seen++;
            }
        }
    }
    g_assert_cmpint(seen, >, 20);
}

/* condition, capability (with what it needs), only when turned on */
static const struct {
    CapCondition condition;
    MigrationCapability cap;
    uint64_t needs;
    bool once;
} conditions[] = {
    { CAP_COLO_IS_BUILT, MIGRATION_CAPABILITY_X_COLO },
    { CAP_HOST_CAN_POSTCOPY, MIGRATION_CAPABILITY_POSTCOPY_RAM, 0, true },
    { CAP_HOST_TRACKS_WRITES, MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT },
    { CAP_HOST_SENDS_IN_PLACE, MIGRATION_CAPABILITY_ZERO_COPY_SEND,
      BIT_OF(MULTIFD) },
    { CAP_STREAM_IS_PLAIN, MIGRATION_CAPABILITY_ZERO_COPY_SEND,
      BIT_OF(MULTIFD) },
    { CAP_INCOMING_NOT_STARTED, MIGRATION_CAPABILITY_MULTIFD, 0, true },
    { CAP_INCOMING_NOT_STARTED, MIGRATION_CAPABILITY_POSTCOPY_PREEMPT,
      BIT_OF(POSTCOPY_RAM), true },
    { CAP_DIRTY_RING, MIGRATION_CAPABILITY_DIRTY_LIMIT },
};

static void test_conditions(void)
{
    for (int i = 0; i < ARRAY_SIZE(conditions); i++) {
        const char *name = MigrationCapability_str(conditions[i].cap);
        uint64_t set = BIT_ULL(conditions[i].cap) | conditions[i].needs;
        g_autofree char *turned_on = NULL;
        g_autofree char *kept = NULL;

        failing = 0;
        g_assert_null(check(0, set));
        g_assert_true(asked & (1u << conditions[i].condition));
        g_assert_null(check(0, silent & BIT_OF(EVENTS)));
        g_assert_cmpuint(asked, ==, 0);

        failing = 1u << conditions[i].condition;
        turned_on = check(conditions[i].needs, set);
        g_assert_nonnull(turned_on);
        g_assert_nonnull(strstr(turned_on, name));
        kept = check(set, set);
        g_assert_cmpint(!kept, ==, conditions[i].once);
    }
    failing = 0;
}

/* Each has a member of its own, and what is not given stays. */
static void test_members(void)
{
    for (int cap = 0; cap < CAPS; cap++) {
        MigrationCapabilityMembers members = {};
        bool caps[CAPS] = {}, other[CAPS], all[CAPS];

        g_assert_false(caps_given(&members));
        caps[cap] = true;
        caps_show(caps, &members);
        g_assert_true(caps_given(&members));
        memset(other, true, sizeof(other));
        caps_merge(other, &members);
        g_assert_cmpmem(other, sizeof(other), caps, sizeof(caps));

        memset(all, true, sizeof(all));
        memset(&members, 0, sizeof(members));
        caps_merge(all, &members);
        for (int i = 0; i < CAPS; i++) {
            g_assert_true(all[i]);
        }
    }
}

static void test_member_names(void)
{
    MigrationCapabilityMembers members = { .has_dirty_bitmaps = true };
    bool caps[CAPS];

    memset(caps, true, sizeof(caps));
    caps_merge(caps, &members);
    for (int cap = 0; cap < CAPS; cap++) {
        g_assert_cmpint(caps[cap], ==,
                        cap != MIGRATION_CAPABILITY_DIRTY_BITMAPS);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration/caps/none", test_none);
    g_test_add_func("/migration/caps/sets", test_sets);
    g_test_add_func("/migration/caps/texts", test_texts);
    g_test_add_func("/migration/caps/conditions", test_conditions);
    g_test_add_func("/migration/caps/members", test_members);
    g_test_add_func("/migration/caps/member-names", test_member_names);
    return g_test_run();
}
