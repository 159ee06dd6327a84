/*
 * Unit tests of what a host may lack
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "migration/core/host-limits.h"

static void test_locked(void)
{
    g_autofree char *less = host_limits_locked("it", 2 * MiB + 1, 2 * MiB);
    g_autofree char *enough = host_limits_locked("it", 2 * MiB, 2 * MiB);
    g_autofree char *any = host_limits_locked("it", 1 * TiB, UINT64_MAX);

    g_assert_null(enough);
    g_assert_null(any);
    g_assert_nonnull(strstr(less, "it locks 2 MiB"));
    g_assert_nonnull(strstr(less, "may lock 2048 KiB"));
}

static void test_may_lock_all(void)
{
    g_assert_true(host_limits_may_lock_all("Name:\tx\n"
                                           "CapEff:\t0000000000004000\n"));
    g_assert_false(host_limits_may_lock_all("CapEff:\t000001ffffffbfff\n"));
    g_assert_false(host_limits_may_lock_all("Name:\tx\n"));
    g_assert_false(host_limits_may_lock_all(""));
}

/* The last page may be used in part. */
static void test_huge_pages(void)
{
    g_autofree char *enough =
        host_limits_huge_pages("mem", 4 * MiB, 2 * MiB, 2);
    g_autofree char *less =
        host_limits_huge_pages("mem", 4 * MiB + 1, 2 * MiB, 2);

    g_assert_null(enough);
    g_assert_nonnull(strstr(less, "'mem' needs 3 pages of 2048 KiB"));
    g_assert_nonnull(strstr(less, "the host has 2:"));
}

static void test_here(void)
{
    uint64_t spare;

    g_assert_cmpuint(host_limits_lockable(), >, 0);
    g_assert_false(host_limits_spare_pages(3 * MiB, &spare));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/host-limits/locked", test_locked);
    g_test_add_func("/host-limits/may-lock-all", test_may_lock_all);
    g_test_add_func("/host-limits/huge-pages", test_huge_pages);
    g_test_add_func("/host-limits/here", test_here);
    return g_test_run();
}
