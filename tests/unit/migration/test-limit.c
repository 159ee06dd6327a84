/*
 * Unit tests of the bandwidth limit, by the clock
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "io/channel-buffer.h"
#include "migration/base/clock.h"
#include "migration/base/rate.h"
#include "migration/base/stats.h"
#include "migration/qemu-file.h"
#include "setup.h"

#define MB (1000 * 1000)
#define CHUNK (100 * 1000)

static QEMUFile *file;

/* A migration starts. */
static void begin(uint64_t limit)
{
    memset(&mig_stats, 0, sizeof(mig_stats));
    migration_rate_set(limit);
    migration_rate_reset();
}

/* Bytes, and for how long we were not given a CPU when we wanted one, in ns */
typedef struct Sent {
    uint64_t bytes;
    int64_t late_ns;
} Sent;

/* Send over all channels for so long. */
static Sent send_for(int64_t ns)
{
    uint64_t before = migration_transferred_bytes();
    int64_t now = now_ns(), end = now + ns;
    Sent sent = { };

    while (now < end) {
        int64_t due = now;

        if (migration_rate_exceeded(file)) {
            int64_t us = MIN(migration_rate_wait_ns() / 1000 + 1, 20000);

            due += us * 1000;
            g_usleep(us);
        } else {
            stat64_add(&mig_stats.qemu_file_transferred, CHUNK / 2);
            stat64_add(&mig_stats.multifd_bytes, CHUNK / 2);
        }
        now = now_ns();
        sent.late_ns += MAX(now - due, 0);
    }
    sent.bytes = migration_transferred_bytes() - before;
    return sent;
}

/* A machine that is busy makes it slower, but nothing makes it faster. */
static void check_rate(uint64_t limit, int64_t ns)
{
    int64_t start = now_ns();
    Sent sent = send_for(ns);
    double took = now_ns() - start;

    g_assert_cmpfloat(sent.bytes, <=, limit / 1e9 * (took + RATE_GRANULE_NS +
                                                     RATE_CREDIT_NS) + CHUNK);
    g_assert_cmpfloat(sent.bytes, >=,
                      limit / 1e9 * (took - sent.late_ns) * 0.6);
}

static void test_limit(void)
{
    begin(200 * MB);
    g_assert_cmpuint(migration_rate_get(), ==, 200 * MB);
    check_rate(200 * MB, 400 * SCALE_MS);
}

static void test_change(void)
{
    begin(20 * MB);
    check_rate(20 * MB, 200 * SCALE_MS);
    migration_rate_set(400 * MB);
    check_rate(400 * MB, 200 * SCALE_MS);
    migration_rate_set(20 * MB);
    check_rate(20 * MB, 200 * SCALE_MS);
    migration_rate_set(RATE_LIMIT_DISABLED);
    stat64_add(&mig_stats.qemu_file_transferred, INT32_MAX);
    g_assert_false(migration_rate_exceeded(file));
    g_assert_cmpuint(migration_rate_wait_ns(), ==, 0);
}

/* What another migration sent does not count, nor does setting it to zero. */
static void test_next_migration(void)
{
    begin(1 * MB);
    stat64_add(&mig_stats.qemu_file_transferred, 100 * MB);
    g_assert_true(migration_rate_exceeded(file));
    g_assert_cmpuint(migration_rate_wait_ns(), >, 50ULL * 1000 * SCALE_MS);
    begin(1 * MB);
    g_assert_false(migration_rate_exceeded(file));

    stat64_add(&mig_stats.qemu_file_transferred, 100 * MB);
    g_assert_true(migration_rate_exceeded(file));
    memset(&mig_stats, 0, sizeof(mig_stats));
    migration_rate_set(1 * MB);
    g_assert_false(migration_rate_exceeded(file));
}

static void test_error(void)
{
    begin(RATE_LIMIT_DISABLED);
    qemu_file_set_error(file, -EIO);
    g_assert_true(migration_rate_exceeded(file));
    g_assert_cmpuint(migration_rate_wait_ns(), ==, 0);
}

int main(int argc, char **argv)
{
    QIOChannelBuffer *buffer;
    int ret;

    test_setup(&argc, &argv);
    buffer = qio_channel_buffer_new(0);
    file = qemu_file_new_output(QIO_CHANNEL(buffer));
    object_unref(OBJECT(buffer));
    g_test_add_func("/migration/limit/limit", test_limit);
    g_test_add_func("/migration/limit/change", test_change);
    g_test_add_func("/migration/limit/next", test_next_migration);
    g_test_add_func("/migration/limit/error", test_error);
    ret = g_test_run();
    qemu_fclose(file);
    return ret;
}
