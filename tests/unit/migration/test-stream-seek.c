/*
 * The migration stream on channels that can seek
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "io/channel-file.h"
#include "migration/wire/stream.h"
#include "migration/migration-stats.h"
#include "mock-channel.h"
#include "script.h"
#include "setup.h"

/* A place beyond what 32 bits can say. */
#define FAR (6 * GiB + 5)

static MockChannel *seekable(MockChannel *mc)
{
    qio_channel_set_feature(QIO_CHANNEL(mc), QIO_CHANNEL_FEATURE_SEEKABLE);
    return mc;
}

static void test_feature(void)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));

    g_assert_false(qemu_file_is_seekable(f));
    seekable(mc);
    g_assert_true(qemu_file_is_seekable(f));
    qemu_fclose(f);
    object_unref(OBJECT(mc));
}

/* What was put before a seek goes to where it was put. */
static void test_put_seek(void)
{
    static const uint8_t wire[] = { 1, 2, 0, 0, 3, 4, 9, 0, 0, 5 };
    MockChannel *mc = seekable(mock_channel_writer());
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));

    qemu_put_be16(f, 0x0102);
    g_assert_cmpint(qemu_get_offset(f), ==, 2);
    qemu_set_offset(f, 4, SEEK_SET);
    qemu_put_be16(f, 0x0304);
    qemu_put_byte(f, 9);
    qemu_set_offset(f, 2, SEEK_CUR);
    g_assert_cmpint(qemu_get_offset(f), ==, 9);
    qemu_put_byte(f, 5);
    g_assert_cmpuint(stream_position(f), ==, 6);
    g_assert_cmpint(qemu_fclose(f), ==, 0);
    g_assert_cmpmem(mc->data->data, mc->data->len, wire, sizeof(wire));
    object_unref(OBJECT(mc));
}

/* The consumer's position counts, not that of the channel, which is ahead. */
static void test_get_seek(void)
{
    const size_t len = 3 * STREAM_WINDOW_SIZE;
    g_autofree uint8_t *wire = noise(21, len);
    MockChannel *mc = seekable(mock_channel_reader(wire, len));
    QEMUFile *f = qemu_file_new_input(QIO_CHANNEL(mc));

    g_assert_cmpint(qemu_get_offset(f), ==, 0);
    g_assert_cmpint(qemu_get_byte(f), ==, wire[0]);
    g_assert_cmpint(qemu_get_offset(f), ==, 1);
    qemu_set_offset(f, 100, SEEK_CUR);
    g_assert_cmpint(qemu_get_offset(f), ==, 101);
    g_assert_cmpint(qemu_get_byte(f), ==, wire[101]);
    qemu_set_offset(f, len - 1, SEEK_SET);
    g_assert_cmpint(qemu_get_byte(f), ==, wire[len - 1]);
    qemu_set_offset(f, -(off_t)len, SEEK_CUR);
    g_assert_cmpint(qemu_get_byte(f), ==, wire[0]);
    g_assert_cmpint(qemu_fclose(f), ==, 0);
    object_unref(OBJECT(mc));
}

/* Positioned writes come after what was put, and leave the position alone. */
static void test_put_at(void)
{
    static const uint8_t wire[] = { 1, 2, 3, 0, 7, 7, 7, 7, 7, 7 };
    uint8_t sevens[6] = { 7, 7, 7, 7, 7, 7 };
    MockChannel *mc = seekable(mock_channel_writer());
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));
    uint64_t start = stat64_get(&mig_stats.qemu_file_transferred);

    mock_channel_steps(mc, 0, 2);
    qemu_put_be16(f, 0x0102);
    qemu_put_buffer_at(f, sevens, 6, 4);
    memset(sevens, 0, 6);
    qemu_put_byte(f, 3);
    g_assert_cmpint(qemu_get_offset(f), ==, 3);
    g_assert_cmpuint(stat64_get(&mig_stats.qemu_file_transferred) - start, ==,
                     9);
    g_assert_cmpint(qemu_fclose(f), ==, 0);
    g_assert_cmpmem(mc->data->data, mc->data->len, wire, sizeof(wire));
    object_unref(OBJECT(mc));
}

static void test_get_at(void)
{
    g_autofree uint8_t *wire = noise(22, 1000);
    uint8_t buf[100];
    MockChannel *mc = seekable(mock_channel_reader(wire, 1000));
    QEMUFile *f = qemu_file_new_input(QIO_CHANNEL(mc));

    mock_channel_steps(mc, 50, 0, 1);
    g_assert_cmpint(qemu_get_byte(f), ==, wire[0]);
    g_assert_cmpuint(qemu_get_buffer_at(f, buf, 100, 900), ==, 100);
    g_assert_cmpmem(buf, 100, wire + 900, 100);
    g_assert_cmpuint(qemu_get_buffer_at(f, buf, 100, 7), ==, 100);
    g_assert_cmpmem(buf, 100, wire + 7, 100);
    g_assert_cmpint(qemu_get_byte(f), ==, wire[1]);
    g_assert_cmpint(qemu_file_get_error(f), ==, 0);

    /* All or nothing. */
    g_assert_cmpuint(qemu_get_buffer_at(f, buf, 100, 901), ==, 0);
    g_assert_cmpint(qemu_file_get_error(f), ==, -EIO);
    g_assert_cmpuint(qemu_get_buffer_at(f, buf, 100, 7), ==, 0);
    g_assert_cmpint(qemu_fclose(f), ==, -EIO);
    object_unref(OBJECT(mc));
}

/* Every operation of a small scenario fails in turn. */
static void test_faults(void)
{
    bool failed = true;

    for (uint64_t n = 0; failed; n++) {
        MockChannel *mc = seekable(mock_channel_writer());
        QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));
        uint8_t data[4] = { 4, 4, 4, 4 };

        mc->fail_at = n;
        mock_channel_steps(mc, 2);
        qemu_put_be16(f, 1);
        qemu_set_offset(f, 10, SEEK_SET);
        qemu_put_buffer_at(f, data, 4, 2);
        qemu_put_byte(f, 2);
        g_assert_cmpint(qemu_get_offset(f), ==, mc->ops > n ? -1 : 11);
        failed = mc->ops > n;
        if (failed) {
            g_assert_cmpuint(mc->ops, ==, n + 1);
        } else {
            g_assert_cmpuint(n, ==, 6);
        }
        g_assert_cmpint(qemu_fclose(f), ==, failed ? -EIO : 0);
        object_unref(OBJECT(mc));
    }
}

static void test_bad_seek(void)
{
    MockChannel *mc = seekable(mock_channel_reader("abcd", 4));
    QEMUFile *f = qemu_file_new_input(QIO_CHANNEL(mc));

    g_assert_cmpint(qemu_get_byte(f), ==, 'a');
    qemu_set_offset(f, -2, SEEK_CUR);
    g_assert_cmpint(qemu_file_get_error(f), ==, -EIO);
    g_assert_cmpint(qemu_fclose(f), ==, -EIO);
    object_unref(OBJECT(mc));
}

static QEMUFile *open_file(const char *path, int flags)
{
    QIOChannelFile *ioc = qio_channel_file_new_path(path, flags, 0600,
                                                    &error_abort);
    QEMUFile *f = flags & O_CREAT ? qemu_file_new_output(QIO_CHANNEL(ioc))
                                  : qemu_file_new_input(QIO_CHANNEL(ioc));

    object_unref(OBJECT(ioc));
    return f;
}

/* A real, sparse file with data beyond 4 GiB. */
static void test_file(void)
{
    g_autofree char *dir = g_dir_make_tmp("test-stream-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "sparse", NULL);
    g_autofree uint8_t *data = noise(23, 10000);
    uint8_t buf[10000];
    QEMUFile *f = open_file(path, O_CREAT | O_RDWR);

    g_assert_true(qemu_file_is_seekable(f));
    qemu_put_be32(f, 0x01020304);
    qemu_put_buffer_at(f, data, 10000, FAR);
    qemu_set_offset(f, FAR + 10000, SEEK_SET);
    qemu_put_be64(f, 0x1122334455667788ull);
    g_assert_cmpint(qemu_get_offset(f), ==, FAR + 10008);
    g_assert_cmpint(qemu_fclose(f), ==, 0);

    f = open_file(path, O_RDONLY);
    g_assert_cmphex(qemu_get_be32(f), ==, 0x01020304);
    g_assert_cmpint(qemu_get_offset(f), ==, 4);
    g_assert_cmpuint(qemu_get_buffer_at(f, buf, 10000, FAR), ==, 10000);
    g_assert_cmpmem(buf, 10000, data, 10000);
    qemu_set_offset(f, FAR + 9992, SEEK_SET);
    g_assert_cmpuint(qemu_get_buffer(f, buf, 8), ==, 8);
    g_assert_cmpmem(buf, 8, data + 9992, 8);
    g_assert_cmphex(qemu_get_be64(f), ==, 0x1122334455667788ull);
    g_assert_cmpint(qemu_get_offset(f), ==, FAR + 10008);
    g_assert_cmpint(qemu_file_get_error(f), ==, 0);
    g_assert_cmpint(qemu_get_byte(f), ==, 0);
    g_assert_cmpint(qemu_fclose(f), ==, -EIO);

    unlink(path);
    rmdir(dir);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/stream/seek/feature", test_feature);
    g_test_add_func("/stream/seek/put", test_put_seek);
    g_test_add_func("/stream/seek/get", test_get_seek);
    g_test_add_func("/stream/seek/put-at", test_put_at);
    g_test_add_func("/stream/seek/get-at", test_get_at);
    g_test_add_func("/stream/seek/faults", test_faults);
    g_test_add_func("/stream/seek/bad", test_bad_seek);
    g_test_add_func("/stream/seek/file", test_file);
    return g_test_run();
}
