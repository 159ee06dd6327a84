/*
 * The migration stream when things fail, and when they would block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "qemu/coroutine.h"
#include "qemu/thread.h"
#include "migration/wire/stream.h"
#include "mock-channel.h"
#include "script.h"
#include "setup.h"

/* The latched error is -EIO and says what the channel said. */
static void assert_mock_error(QEMUFile *f)
{
    Error *err = NULL;

    g_assert_cmpint(qemu_file_get_error(f), ==, -EIO);
    g_assert_cmpint(qemu_file_get_error_obj(f, &err), ==, -EIO);
    g_assert_cmpstr(error_get_pretty(err), ==, MOCK_ERROR);
    error_free(err);
    err = NULL;
    g_assert_false(stream_check(f, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, MOCK_ERROR);
    error_free(err);
}

/*
 * Writing, with the Nth operation failing, for every N until none does: what
 * was written is a beginning of the stream, and nothing follows the failure.
 */
static void test_write_fails(void)
{
    g_autoptr(Script) s = script_new(11, 300, 6000);
    bool failed = true;

    for (uint64_t n = 0; failed; n++) {
        MockChannel *mc = mock_channel_writer();
        QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));

        mock_channel_steps(mc, 5000, 0, 1, 40000, 3);
        mc->fail_at = n;
        script_put(s, f);
        qemu_fflush(f);
        failed = mc->ops > n;
        g_assert_cmpuint(mc->data->len, <=, s->wire->len);
        g_assert_cmpmem(mc->data->data, mc->data->len, s->wire->data,
                        mc->data->len);
        if (failed) {
            assert_mock_error(f);
            g_assert_cmpuint(mc->ops, ==, n + 1);
            script_put(s, f);
            g_assert_cmpint(qemu_fflush(f), ==, -EIO);
            g_assert_cmpuint(mc->ops, ==, n + 1);
            g_assert_cmpint(qemu_fclose(f), ==, -EIO);
        } else {
            g_assert_cmpuint(n, >, 30);
            g_assert_cmpuint(mc->data->len, ==, s->wire->len);
            g_assert_cmpint(qemu_fclose(f), ==, 0);
        }
        g_assert_cmpuint(mc->closed, ==, 1);
        object_unref(OBJECT(mc));
    }
}

/* Reading, with the Nth operation failing, for every N until none does. */
static void test_read_fails(void)
{
    g_autoptr(Script) s = script_new(12, 300, 3000);
    bool failed = true;

    for (uint64_t n = 0; failed; n++) {
        MockChannel *mc = mock_channel_reader(s->wire->data, s->wire->len);
        QEMUFile *f = qemu_file_new_input(QIO_CHANNEL(mc));

        mock_channel_steps(mc, 5000, 0, 1, 4000, 3);
        mc->fail_at = n;
        script_get_faulty(s, f);
        failed = mc->ops > n;
        if (failed) {
            assert_mock_error(f);
            g_assert_cmpuint(mc->ops, ==, n + 1);
            g_assert_cmpint(qemu_fclose(f), ==, -EIO);
        } else {
            g_assert_cmpuint(n, >, 30);
            g_assert_cmpint(qemu_fclose(f), ==, 0);
        }
        object_unref(OBJECT(mc));
    }
}

/* A channel that takes nothing and does not block would go on for ever. */
static ssize_t takes_nothing(QIOChannel *ioc, const struct iovec *iov,
                             size_t niov, int *fds, size_t nfds, int flags,
                             Error **errp)
{
    return 0;
}

/* @fails: that operation; @close_fails: to close the channel, too */
static void check_finish(uint64_t fails, bool close_fails)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));
    bool good = fails == MOCK_NEVER && !close_fails;
    Error *err = NULL;

    mc->fail_at = fails;
    mc->close_fails = close_fails;
    qemu_put_be32(f, 7);
    g_assert_true(stream_finish(f, &err) == good);
    g_assert_true(!err == good);
    if (err) {
        g_assert_cmpstr(error_get_pretty(err), ==, MOCK_ERROR);
        error_free(err);
    }
    g_assert_cmpuint(mc->data->len, ==, fails == MOCK_NEVER ? 4 : 0);
    g_assert_cmpuint(mc->closed, ==, 1);
    object_unref(OBJECT(mc));
}

/* All is written, and the channel closed; what fails of that is said once. */
static void test_finish(void)
{
    check_finish(MOCK_NEVER, false);
    check_finish(MOCK_NEVER, true);
    check_finish(0, false);
    check_finish(0, true);
}

static void test_write_stuck(void)
{
    MockChannel *mc = mock_channel_writer();
    QIOChannelClass *klass = QIO_CHANNEL_GET_CLASS(mc);
    typeof(klass->io_writev) saved = klass->io_writev;
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));

    klass->io_writev = takes_nothing;
    qemu_put_byte(f, 1);
    g_assert_cmpint(qemu_fflush(f), ==, -EIO);
    klass->io_writev = saved;
    g_assert_cmpint(qemu_fclose(f), ==, -EIO);
    object_unref(OBJECT(mc));
}

/* The first error stays, whatever comes after it. */
static void test_latch(void)
{
    MockChannel *mc = mock_channel_reader("abc", 3);
    QEMUFile *f = qemu_file_new_input(QIO_CHANNEL(mc));
    Error *err = NULL;

    g_assert_true(stream_check(f, &error_abort));
    qemu_file_set_error(f, 0);
    g_assert_cmpint(qemu_file_get_error(f), ==, 0);
    g_assert_cmpint(qemu_file_get_error_obj(f, &error_abort), ==, 0);

    error_setg(&err, "first");
    qemu_file_set_error_obj(f, -EPERM, err);
    qemu_file_set_error(f, -ENOENT);
    g_assert_cmphex(qemu_get_be64(f), ==, 0);
    g_assert_cmpuint(mc->ops, ==, 0);

    /* Every caller gets an Error of its own. */
    for (int i = 0; i < 2; i++) {
        err = NULL;
        g_assert_cmpint(qemu_file_get_error_obj(f, &err), ==, -EPERM);
        g_assert_cmpstr(error_get_pretty(err), ==, "first");
        error_free(err);
    }
    g_assert_cmpint(qemu_file_get_error_obj(f, NULL), ==, -EPERM);
    g_assert_cmpint(qemu_fclose(f), ==, -EPERM);
    object_unref(OBJECT(mc));
}

/* An errno without a text still makes an Error. */
static void test_latch_number(void)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));
    Error *err = NULL;

    qemu_put_byte(f, 1);
    qemu_file_set_error(f, -ENOSPC);
    g_assert_cmpint(qemu_file_get_error_obj(f, &err), ==, -ENOSPC);
    g_assert_nonnull(strstr(error_get_pretty(err), strerror(ENOSPC)));
    error_free(err);
    qemu_put_byte(f, 1);
    g_assert_cmpint(qemu_fclose(f), ==, -ENOSPC);
    g_assert_cmpuint(mc->ops, ==, 0);
    object_unref(OBJECT(mc));
}

static void test_any(void)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *a = qemu_file_new_output(QIO_CHANNEL(mc));
    QEMUFile *b = qemu_file_new_output(QIO_CHANNEL(mc));
    Error *err = NULL;

    g_assert_cmpint(qemu_file_get_error_obj_any(NULL, NULL, &error_abort), ==,
                    0);
    g_assert_cmpint(qemu_file_get_error_obj_any(a, b, &error_abort), ==, 0);
    qemu_file_set_error(b, -EPIPE);
    g_assert_cmpint(qemu_file_get_error_obj_any(a, b, NULL), ==, -EPIPE);
    g_assert_cmpint(qemu_file_get_error_obj_any(NULL, b, NULL), ==, -EPIPE);
    g_assert_cmpint(qemu_file_get_error_obj_any(a, NULL, &error_abort), ==, 0);
    qemu_file_set_error(a, -ENOMEM);
    g_assert_cmpint(qemu_file_get_error_obj_any(a, b, &err), ==, -ENOMEM);
    g_assert_nonnull(strstr(error_get_pretty(err), strerror(ENOMEM)));
    error_free(err);
    qemu_fclose(a);
    qemu_fclose(b);
    object_unref(OBJECT(mc));
}

typedef struct Rival {
    QEMUFile *f;
    int code;
} Rival;

static void *rival_thread(void *opaque)
{
    Rival *r = opaque;
    Error *err = NULL, *seen = NULL;
    g_autofree char *text = g_strdup_printf("rival %d", r->code);
    int code;

    error_setg(&err, "%s", text);
    qemu_file_set_error_obj(r->f, r->code, err);
    /* Code and text are of the same rival, and stay. */
    code = qemu_file_get_error_obj(r->f, &seen);
    g_autofree char *expected = g_strdup_printf("rival %d", code);
    g_assert_cmpstr(error_get_pretty(seen), ==, expected);
    error_free(seen);
    return NULL;
}

/* Many threads fail at once: one of them wins, completely. */
static void test_latch_race(void)
{
    /* The losers' errors are printed. */
    for (int round = 0; round < 10; round++) {
        MockChannel *mc = mock_channel_writer();
        QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));
        QemuThread threads[4];
        Rival rivals[4];
        int winner;

        for (int i = 0; i < 4; i++) {
            rivals[i] = (Rival) { .f = f, .code = -1 - i };
            qemu_thread_create(&threads[i], "rival", rival_thread, &rivals[i],
                               QEMU_THREAD_JOINABLE);
        }
        while (!(winner = qemu_file_get_error(f))) {
            sched_yield();
        }
        for (int i = 0; i < 4; i++) {
            qemu_thread_join(&threads[i]);
        }
        g_assert_cmpint(qemu_fclose(f), ==, winner);
        object_unref(OBJECT(mc));
    }
}

static void check_latched(void *opaque)
{
    g_assert_cmpint(qemu_file_get_error(opaque), ==, -EIO);
}

/* By the time the channel is shut down the error is there to be seen. */
static void test_shutdown_order(void)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));
    QEMUFile *back = qemu_file_get_return_path(f);

    mc->on_shutdown = check_latched;
    mc->opaque = f;
    g_assert_cmpint(qemu_file_shutdown(back), ==, -ENOSYS);
    g_assert_cmpint(qemu_file_get_error(back), ==, -EIO);
    g_assert_cmpint(qemu_file_get_error(f), ==, 0);

    qio_channel_set_feature(QIO_CHANNEL(mc), QIO_CHANNEL_FEATURE_SHUTDOWN);
    qemu_put_byte(f, 1);
    g_assert_cmpint(qemu_file_shutdown(f), ==, 0);
    g_assert_cmpint(qemu_file_shutdown(f), ==, 0);
    g_assert_cmpint(qemu_fflush(f), ==, -EIO);
    g_assert_cmpuint(mc->ops, ==, 0);
    qemu_fclose(back);
    qemu_fclose(f);
    object_unref(OBJECT(mc));
}

/* An error that is latched before a shutdown survives it. */
static void test_shutdown_late(void)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));

    qemu_file_set_error(f, -ENOSPC);
    g_assert_cmpint(qemu_file_shutdown(f), ==, -ENOSYS);
    g_assert_cmpint(qemu_fclose(f), ==, -ENOSPC);
    object_unref(OBJECT(mc));
}

/* Waiting outside of a coroutine: once per refusal, and nothing is lost. */
static void test_block_plain(void)
{
    g_autoptr(Script) s = script_new(13, 100, 3000);
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));

    mock_channel_steps(mc, 0, 0, 0, 1000);
    script_put(s, f);
    g_assert_cmpint(qemu_fclose(f), ==, 0);
    g_assert_cmpmem(mc->data->data, mc->data->len, s->wire->data,
                    s->wire->len);
    g_assert_cmpuint(mc->waits, ==, mc->ops / 4 * 3);
    object_unref(OBJECT(mc));

    mc = mock_channel_reader(s->wire->data, s->wire->len);
    f = qemu_file_new_input(QIO_CHANNEL(mc));
    mock_channel_steps(mc, 0, 0, 0, 1000);
    g_assert_cmpuint(script_get(s, f, UINT64_MAX), ==, s->count);
    g_assert_cmpint(qemu_fclose(f), ==, 0);
    g_assert_cmpuint(mc->waits, ==, mc->ops / 4 * 3);
    object_unref(OBJECT(mc));
}

typedef struct CoWork {
    Script *s;
    QEMUFile *f;
    bool done;
} CoWork;

static void coroutine_fn co_put(void *opaque)
{
    CoWork *w = opaque;

    script_put(w->s, w->f);
    g_assert_cmpint(qemu_fflush(w->f), ==, 0);
    w->done = true;
}

static void coroutine_fn co_get(void *opaque)
{
    CoWork *w = opaque;

    g_assert_cmpuint(script_get(w->s, w->f, UINT64_MAX), ==, w->s->count);
    w->done = true;
}

/* Enters @entry; returns how often the event loop ran before it was done. */
static unsigned run_coroutine(CoroutineEntry *entry, CoWork *w)
{
    unsigned turns = 0;

    qemu_coroutine_enter(qemu_coroutine_create(entry, w));
    while (!w->done) {
        main_loop_wait(false);
        turns++;
    }
    return turns;
}

/* In a coroutine, blocking gives the event loop a turn, every time. */
static void test_block_coroutine(void)
{
    g_autoptr(Script) s = script_new(14, 100, 3000);
    MockChannel *mc = mock_channel_writer();
    CoWork w = { .s = s, .f = qemu_file_new_output(QIO_CHANNEL(mc)) };

    mock_channel_steps(mc, 0, 0, 0, 1000);
    g_assert_cmpuint(run_coroutine(co_put, &w), >, 0);
    g_assert_cmpint(qemu_fclose(w.f), ==, 0);
    g_assert_cmpmem(mc->data->data, mc->data->len, s->wire->data,
                    s->wire->len);
    g_assert_cmpuint(mc->waits, ==, mc->ops / 4 * 3);
    object_unref(OBJECT(mc));

    mc = mock_channel_reader(s->wire->data, s->wire->len);
    w = (CoWork) { .s = s, .f = qemu_file_new_input(QIO_CHANNEL(mc)) };
    mock_channel_steps(mc, 0, 0, 0, 1000);
    g_assert_cmpuint(run_coroutine(co_get, &w), >=, mc->waits);
    g_assert_cmpint(qemu_fclose(w.f), ==, 0);
    g_assert_cmpuint(mc->waits, ==, mc->ops / 4 * 3);
    object_unref(OBJECT(mc));
}

static void coroutine_fn co_get_faulty(void *opaque)
{
    CoWork *w = opaque;

    script_get_faulty(w->s, w->f);
    w->done = true;
}

/* The Nth operation fails, in a coroutine, right after it had to wait. */
static void test_coroutine_fails(void)
{
    g_autoptr(Script) s = script_new(15, 100, 3000);
    bool failed = true;

    for (uint64_t n = 0; failed; n++) {
        MockChannel *mc = mock_channel_reader(s->wire->data, s->wire->len);
        CoWork w = { .s = s, .f = qemu_file_new_input(QIO_CHANNEL(mc)) };

        mock_channel_steps(mc, 0, 1500);
        mc->fail_at = n;
        run_coroutine(co_get_faulty, &w);
        failed = mc->ops > n;
        if (failed) {
            assert_mock_error(w.f);
            g_assert_cmpuint(mc->ops, ==, n + 1);
        }
        g_assert_cmpint(qemu_fclose(w.f), ==, failed ? -EIO : 0);
        object_unref(OBJECT(mc));
    }
}

/* Sends three descriptors between numbers; returns how many went out. */
static int put_fds(QEMUFile *f)
{
    int sent = 0;

    for (int i = 0; i < 3; i++) {
        qemu_put_be16(f, i);
        sent += qemu_file_put_fd(f, 100 + i) == 0;
    }
    qemu_put_be16(f, 3);
    qemu_fflush(f);
    return sent;
}

/* Receives them, until an error; checks what comes. */
static void get_fds(QEMUFile *f)
{
    for (int i = 0; i < 3; i++) {
        int fd;

        if (qemu_get_be16(f) != i) {
            break;
        }
        fd = qemu_file_get_fd(f);
        if (fd < 0) {
            break;
        }
        g_assert_cmpint(fd, ==, 100 + i);
    }
}

static MockChannel *fd_carrier(MockChannel *mc)
{
    qio_channel_set_feature(QIO_CHANNEL(mc), QIO_CHANNEL_FEATURE_FD_PASS);
    mock_channel_steps(mc, 0, 1, 2, 0);
    return mc;
}

/*
 * Descriptors when a send blocks, is cut short or fails.  Those of the mock
 * are numbers only; what is received is not to be closed, so all is taken.
 */
static void test_fds_fail(void)
{
    static const uint8_t wire[] = {
        0, 0, ' ', 0, 1, ' ', 0, 2, ' ', 0, 3
    };
    bool failed = true;

    for (uint64_t n = 0; failed; n++) {
        MockChannel *mc = fd_carrier(mock_channel_writer());
        QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(mc));
        int sent;

        mc->fail_at = n;
        sent = put_fds(f);
        failed = mc->ops > n;
        g_assert_cmpuint(mc->data->len, <=, sizeof(wire));
        g_assert_cmpmem(mc->data->data, mc->data->len, wire, mc->data->len);
        g_assert_cmpint(mc->fds->len, ==, sent);
        for (int i = 0; i < sent; i++) {
            MockFd *fd = &g_array_index(mc->fds, MockFd, i);

            g_assert_cmpint(fd->fd, ==, 100 + i);
            g_assert_cmpuint(fd->at, ==, 3 * i + 2);
        }
        g_assert_cmpint(qemu_fclose(f), ==, failed ? -EIO : 0);
        g_assert_true(failed || sent == 3);
        object_unref(OBJECT(mc));
    }

    failed = true;
    for (uint64_t n = 0; failed; n++) {
        MockChannel *mc = fd_carrier(mock_channel_reader(wire, sizeof(wire)));
        QEMUFile *f = qemu_file_new_input(QIO_CHANNEL(mc));

        for (int i = 0; i < 3; i++) {
            MockFd fd = { .at = 3 * i + 2, .fd = 100 + i };

            g_array_append_val(mc->fds, fd);
        }
        mc->fail_at = n;
        get_fds(f);
        failed = mc->ops > n;
        g_assert_cmpint(qemu_fclose(f), ==, failed ? -EIO : 0);
        object_unref(OBJECT(mc));
    }
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/stream/fault/write", test_write_fails);
    g_test_add_func("/stream/fault/read", test_read_fails);
    g_test_add_func("/stream/fault/write-stuck", test_write_stuck);
    g_test_add_func("/stream/fault/finish", test_finish);
    g_test_add_func("/stream/fault/latch", test_latch);
    g_test_add_func("/stream/fault/latch-number", test_latch_number);
    g_test_add_func("/stream/fault/any", test_any);
    g_test_add_func("/stream/fault/latch-race", test_latch_race);
    g_test_add_func("/stream/fault/shutdown-order", test_shutdown_order);
    g_test_add_func("/stream/fault/shutdown-late", test_shutdown_late);
    g_test_add_func("/stream/fault/fds", test_fds_fail);
    g_test_add_func("/stream/block/plain", test_block_plain);
    g_test_add_func("/stream/coroutine/block", test_block_coroutine);
    g_test_add_func("/stream/coroutine/fails", test_coroutine_fails);
    return g_test_run();
}
