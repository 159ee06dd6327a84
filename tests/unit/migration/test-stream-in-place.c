/*
 * Unit tests of output that is sent in place, over TCP to this host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Here the kernel copies what it is to send in place, so most tests insist on
 * going on.  What arrives is compared with what was put.
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qemu/sockets.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "io/channel-socket.h"
#include "area.h"
#include "setup.h"
#include "migration/base/stats.h"
#include "migration/wire/stream-private.h"

#define AREA (4 * MiB)

typedef struct Wire {
    QEMUFile *out;
    int in;
    QemuThread thread;          /* reads all that comes */
    GByteArray *arrived, *expected;
    uint8_t *memory;
    bool can;                   /* the host can send in place */
} Wire;

/* *@fds: two ends of a TCP connection */
static void connect_tcp(int fds[2])
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    socklen_t len = sizeof(at);
    int server = socket(AF_INET, SOCK_STREAM, 0);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    g_assert_cmpint(bind(server, (void *)&at, len), ==, 0);
    g_assert_cmpint(listen(server, 1), ==, 0);
    g_assert_cmpint(getsockname(server, (void *)&at, &len), ==, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    g_assert_cmpint(connect(fds[0], (void *)&at, len), ==, 0);
    fds[1] = accept(server, NULL, NULL);
    g_assert_cmpint(fds[1], >=, 0);
    close(server);
}

static void *read_all(void *opaque)
{
    g_autofree uint8_t *bytes = g_malloc(MiB);
    Wire *w = opaque;
    ssize_t len;

    while ((len = read(w->in, bytes, MiB)) > 0) {
        g_byte_array_append(w->arrived, bytes, len);
    }
    return NULL;
}

static QEMUFile *output_of(int fd)
{
    QIOChannelSocket *ioc = qio_channel_socket_new_fd(fd, &error_abort);
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(ioc));

    object_unref(OBJECT(ioc));
    return f;
}

static void fill(uint8_t *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 4) {
        stl_he_p(at + i, g_test_rand_int());
    }
}

/* False, and the test is skipped, where this cannot be. */
static bool wire_init(Wire *w, bool blocking)
{
    int fds[2];
    Error *err = NULL;

    *w = (Wire) {
        .arrived = g_byte_array_new(), .expected = g_byte_array_new(),
        .memory = area_new(AREA),
    };
    memset(&mig_stats, 0, sizeof(mig_stats));
    fill(w->memory, AREA);
    connect_tcp(fds);
    w->in = fds[1];
    w->out = output_of(fds[0]);
    qio_channel_set_blocking(qemu_file_get_ioc(w->out), blocking,
                             &error_abort);
    w->can = stream_send_in_place(w->out, &err);
    if (!w->can) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
    }
    return w->can;
}

static void wire_destroy(Wire *w)
{
    qemu_fclose(w->out);
    close(w->in);
    g_byte_array_unref(w->arrived);
    g_byte_array_unref(w->expected);
    area_free(w->memory, AREA);
}

static void begin_reading(Wire *w)
{
    qemu_thread_create(&w->thread, "reader", read_all, w,
                       QEMU_THREAD_JOINABLE);
}

/* All that was put has arrived. */
static void end_reading(Wire *w)
{
    g_assert_cmpint(qemu_fflush(w->out), ==, 0);
    stream_await_in_place(w->out);
    shutdown(w->out->socket->fd, SHUT_WR);
    qemu_thread_join(&w->thread);
    g_assert_cmpmem(w->arrived->data, w->arrived->len,
                    w->expected->data, w->expected->len);
    g_assert_cmpuint(stream_position(w->out), ==, w->expected->len);
}

static void refer(Wire *w, size_t at, size_t len)
{
    qemu_put_buffer_async(w->out, w->memory + at, len, false);
    g_byte_array_append(w->expected, w->memory + at, len);
}

static void copy(Wire *w, const uint8_t *bytes, size_t len)
{
    qemu_put_buffer(w->out, bytes, len);
    g_byte_array_append(w->expected, bytes, len);
}

/* Heads that are copied, between pages and runs of pages that are not */
static void test_mixed(const void *blocking)
{
    Wire w;

    if (wire_init(&w, !!blocking)) {
        stream_in_place_stays(w.out);
        begin_reading(&w);
        for (unsigned i = 0; i < 1000; i++) {
            uint8_t head[400];
            size_t len = g_test_rand_int_range(1, 64) * 4096;

            fill(head, sizeof(head));
            copy(&w, head, g_test_rand_int_range(1, sizeof(head)));
            refer(&w, g_test_rand_int_range(0, AREA - len), len);
            if (i % 50 == 0) {
                g_assert_cmpint(qemu_fflush(w.out), ==, 0);
            }
            if (i % 200 == 0) {
                stream_await_in_place(w.out);
            }
        }
        end_reading(&w);
        g_assert_true(stream_in_place(w.out));
    }
    wire_destroy(&w);
}

/* A buffer that is the caller's again is copied, however large it is. */
static void test_large_copy(void)
{
    g_autofree uint8_t *bytes = g_malloc(MiB);
    Wire w;

    if (wire_init(&w, true)) {
        stream_in_place_stays(w.out);
        begin_reading(&w);
        for (unsigned i = 0; i < 20; i++) {
            fill(bytes, MiB);
            copy(&w, bytes, MiB);
            memset(bytes, 0xee, MiB);
        }
        end_reading(&w);
    }
    wire_destroy(&w);
}

/* Pages that are unmapped before they have been sent */
static void test_unmapped(void)
{
    const size_t bytes = MiB;
    Wire w;

    if (wire_init(&w, true)) {
        stream_in_place_stays(w.out);
        begin_reading(&w);
        for (unsigned i = 0; i < 20; i++) {
            uint8_t *gone = area_new(bytes);

            fill(gone, bytes);
            g_byte_array_append(w.expected, gone, bytes);
            qemu_put_buffer_async(w.out, gone, bytes, false);
            g_assert_cmpint(qemu_fflush(w.out), ==, 0);
            area_free(gone, bytes);
        }
        end_reading(&w);
    }
    wire_destroy(&w);
}

/* A kernel that copies is found out at the first wait, and each wait counts. */
static void test_copied(void)
{
    Wire w;

    if (wire_init(&w, true)) {
        begin_reading(&w);
        stream_await_in_place(w.out);
        g_assert_cmpuint(stat64_get(&mig_stats.dirty_sync_missed_zero_copy),
                         ==, 0);
        for (unsigned i = 1; i <= 3; i++) {
            g_assert_cmpint(stream_in_place(w.out), ==, i == 1);
            refer(&w, 0, AREA);
            g_assert_cmpint(qemu_fflush(w.out), ==, 0);
            stream_await_in_place(w.out);
            g_assert_cmpuint(stat64_get(
                &mig_stats.dirty_sync_missed_zero_copy), ==, i);
            stream_await_in_place(w.out);
            g_assert_cmpuint(stat64_get(
                &mig_stats.dirty_sync_missed_zero_copy), ==, i);
        }
        end_reading(&w);
    }
    wire_destroy(&w);
}

static void *shut_down(void *opaque)
{
    g_usleep(100 * 1000);
    qemu_file_shutdown(opaque);
    return NULL;
}

/* Who waits for a peer that does not read is woken by a shutdown. */
static void test_cancelled(const void *blocking)
{
    int64_t began = g_get_monotonic_time();
    QemuThread thread;
    Wire w;

    if (wire_init(&w, !!blocking)) {
        stream_in_place_stays(w.out);
        qemu_thread_create(&thread, "shutdown", shut_down, w.out,
                           QEMU_THREAD_JOINABLE);
        for (unsigned i = 0; i < 20; i++) {
            qemu_put_buffer_async(w.out, w.memory, AREA, false);
        }
        qemu_fflush(w.out);
        stream_await_in_place(w.out);
        g_assert_cmpint(qemu_file_get_error(w.out), !=, 0);
        qemu_thread_join(&thread);
        g_assert_cmpint(g_get_monotonic_time() - began, <,
                        3 * G_USEC_PER_SEC);
    }
    wire_destroy(&w);
}

/* The peer goes away. */
static void test_reset(void)
{
    struct linger hard = { .l_onoff = 1 };
    Wire w;

    if (wire_init(&w, true)) {
        stream_in_place_stays(w.out);
        qemu_put_buffer_async(w.out, w.memory, 64 * KiB, false);
        qemu_fflush(w.out);
        setsockopt(w.in, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        close(w.in);
        w.in = -1;
        for (unsigned i = 0; i < 20 && !qemu_file_get_error(w.out); i++) {
            qemu_put_buffer_async(w.out, w.memory, AREA, false);
            qemu_fflush(w.out);
            stream_await_in_place(w.out);
        }
        g_assert_cmpint(qemu_file_get_error(w.out), !=, 0);
    }
    wire_destroy(&w);
}

/* Whoever may lock no memory is told what to change. */
static void test_limit(void)
{
    const struct rlimit none = { };
    Error *err = NULL;
    Wire w;

    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_passed();
        return;
    }
    if (wire_init(&w, true) && setrlimit(RLIMIT_MEMLOCK, &none) == 0 &&
        (getuid() != 0 || setuid(65534) == 0)) {
        qemu_put_buffer_async(w.out, w.memory, MiB, false);
        qemu_fflush(w.out);
        g_assert_false(stream_check(w.out, &err));
        g_assert_nonnull(strstr(error_get_pretty(err), "ulimit -l"));
        g_assert_nonnull(strstr(error_get_pretty(err), "1024 KiB"));
        error_free(err);
    }
    wire_destroy(&w);
}

/* Other sockets cannot do that. */
static void test_unix(void)
{
    Error *err = NULL;
    QEMUFile *f;
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    f = output_of(fds[0]);
    g_assert_false(stream_send_in_place(f, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "zero-copy-send"));
    error_free(err);
    g_assert_false(stream_in_place(f));
    stream_await_in_place(f);
    qemu_fclose(f);
    close(fds[1]);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_data_func("/stream/in-place/mixed", NULL, test_mixed);
    g_test_add_data_func("/stream/in-place/mixed-blocking", argv, test_mixed);
    g_test_add_func("/stream/in-place/large-copy", test_large_copy);
    g_test_add_func("/stream/in-place/unmapped", test_unmapped);
    g_test_add_func("/stream/in-place/copied", test_copied);
    g_test_add_data_func("/stream/in-place/cancelled", NULL, test_cancelled);
    g_test_add_data_func("/stream/in-place/cancelled-blocking", argv,
                         test_cancelled);
    g_test_add_func("/stream/in-place/reset", test_reset);
    g_test_add_func("/stream/in-place/limit", test_limit);
    g_test_add_func("/stream/in-place/unix", test_unix);
    return g_test_run();
}
