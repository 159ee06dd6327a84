/*
 * The migration stream over real sockets, with a thread at each end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "io/channel-socket.h"
#include "qemu/coroutine.h"
#include "qemu/thread.h"
#include "migration/base/below-tls.h"
#include "migration/base/clock.h"
#include "migration/wire/stream.h"
#include "script.h"
#include "setup.h"

typedef struct Pair {
    QIOChannel *a, *b;
} Pair;

static Pair pair_new(void)
{
    int fds[2];
    Pair p;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    p.a = QIO_CHANNEL(qio_channel_socket_new_fd(fds[0], &error_abort));
    p.b = QIO_CHANNEL(qio_channel_socket_new_fd(fds[1], &error_abort));
    qio_channel_set_name(p.a, "end-a");
    qio_channel_set_name(p.b, "end-b");
    return p;
}

static void pair_free(Pair *p)
{
    object_unref(OBJECT(p->a));
    object_unref(OBJECT(p->b));
}

typedef struct Player {
    QemuThread thread;
    QEMUFile *f;
    Script *s;
    int rounds;
} Player;

static void *play_put(void *opaque)
{
    Player *p = opaque;

    for (int i = 0; i < p->rounds; i++) {
        script_put(p->s, p->f);
    }
    g_assert_cmpint(qemu_fflush(p->f), ==, 0);
    return NULL;
}

static void play_get(Player *p)
{
    for (int i = 0; i < p->rounds; i++) {
        g_assert_cmpuint(script_get(p->s, p->f, UINT64_MAX), ==, p->s->count);
    }
}

/* Both directions at once over one channel: the return path. */
static void test_both_ways(void)
{
    Pair p = pair_new();
    QEMUFile *out = qemu_file_new_output(p.a), *in = qemu_file_new_input(p.b);
    QEMUFile *back_in = qemu_file_get_return_path(out);
    QEMUFile *back_out = qemu_file_get_return_path(in);
    g_autoptr(Script) there = script_new(31, 400, 20000);
    g_autoptr(Script) back = script_new(32, 300, 500);
    Player forward = { .f = out, .s = there, .rounds = 10 };
    Player answer = { .f = back_out, .s = back, .rounds = 10 };
    Player take = { .f = in, .s = there, .rounds = 10 };
    Player hear = { .f = back_in, .s = back, .rounds = 10 };

    qemu_thread_create(&forward.thread, "forward", play_put, &forward,
                       QEMU_THREAD_JOINABLE);
    qemu_thread_create(&answer.thread, "answer", play_put, &answer,
                       QEMU_THREAD_JOINABLE);
    play_get(&take);
    play_get(&hear);
    qemu_thread_join(&forward.thread);
    qemu_thread_join(&answer.thread);

    /* Their errors are their own. */
    qemu_file_set_error(in, -ENOSPC);
    g_assert_cmpint(qemu_file_get_error(back_out), ==, 0);
    g_assert_true(qemu_file_get_ioc(in) == qemu_file_get_ioc(back_out));

    g_assert_cmpint(qemu_fclose(out), ==, 0);
    g_assert_cmpint(qemu_fclose(back_in), ==, 0);
    g_assert_cmpint(qemu_fclose(in), ==, -ENOSPC);
    g_assert_cmpint(qemu_fclose(back_out), ==, 0);
    pair_free(&p);
}

/* The peer goes away: both directions notice. */
static void test_peer_gone(void)
{
    Pair p = pair_new();
    QEMUFile *out = qemu_file_new_output(p.a);
    QEMUFile *in = qemu_file_get_return_path(out);
    Error *err = NULL;

    qio_channel_close(p.b, &error_abort);
    g_assert_cmpint(qemu_get_byte(in), ==, 0);
    g_assert_cmpint(qemu_file_get_error_obj(in, &err), ==, -EIO);
    g_assert_nonnull(strstr(error_get_pretty(err), "end-a"));
    error_free(err);
    qemu_put_byte(out, 1);
    g_assert_cmpint(qemu_fflush(out), ==, -EIO);
    g_assert_cmpint(qemu_fclose(in), ==, -EIO);
    g_assert_cmpint(qemu_fclose(out), ==, -EIO);
    pair_free(&p);
}

static void *blocked_get(void *opaque)
{
    Player *p = opaque;
    uint8_t page[4096] = { 0 };

    /* The page comes back as it was; only the error tells. */
    g_assert_cmpuint(qemu_get_buffer(p->f, page, sizeof(page)), ==, 0);
    g_assert_cmpint(qemu_file_get_error(p->f), ==, -EIO);
    return NULL;
}

static void *blocked_put(void *opaque)
{
    Player *p = opaque;
    g_autofree uint8_t *data = noise(1, 1 * MiB);

    while (!qemu_file_get_error(p->f)) {
        qemu_put_buffer(p->f, data, 1 * MiB);
    }
    g_assert_cmpint(qemu_fflush(p->f), ==, -EIO);
    return NULL;
}

/* The other thread is most likely, but not surely, blocked by then. */
static void let_block(int round)
{
    g_usleep(round % 4 * 300);
}

/* A reader with nothing to read and a writer that fills a socket get out. */
static void shutdown_while_blocked(bool nonblocking)
{
    for (int round = 0; round < 60; round++) {
        Pair p = pair_new();
        QEMUFile *in = qemu_file_new_input(p.a);
        QEMUFile *out = qemu_file_new_output(p.b);
        Player reader = { .f = in }, writer = { .f = out };

        if (nonblocking) {
            qemu_file_set_blocking(in, false);
            qemu_file_set_blocking(out, false);
        }
        if (round & 1) {
            qemu_thread_create(&writer.thread, "writer", blocked_put, &writer,
                               QEMU_THREAD_JOINABLE);
            let_block(round);
            g_assert_cmpint(qemu_file_shutdown(out), ==, 0);
            qemu_thread_join(&writer.thread);
        } else {
            qemu_thread_create(&reader.thread, "reader", blocked_get, &reader,
                               QEMU_THREAD_JOINABLE);
            let_block(round);
            g_assert_cmpint(qemu_file_shutdown(in), ==, 0);
            qemu_thread_join(&reader.thread);
        }
        qemu_fclose(in);
        qemu_fclose(out);
        pair_free(&p);
    }
}

static void test_shutdown_blocking(void)
{
    shutdown_while_blocked(false);
}

static void test_shutdown_nonblocking(void)
{
    shutdown_while_blocked(true);
}

static void *parked_get(void *opaque)
{
    Player *p = opaque;

    g_assert_cmphex(qemu_get_be64(p->f), ==, 0);
    g_assert_cmpint(qemu_file_get_error(p->f), ==, -EPERM);
    return NULL;
}

/* An error is noticed by a waiting thread even if the channel stays open. */
static void test_error_while_parked(void)
{
    Pair p = pair_new();
    Player reader = { .f = qemu_file_new_input(p.a) };

    qemu_file_set_blocking(reader.f, false);
    qemu_thread_create(&reader.thread, "reader", parked_get, &reader,
                       QEMU_THREAD_JOINABLE);
    g_usleep(1000);
    qemu_file_set_error(reader.f, -EPERM);
    qemu_thread_join(&reader.thread);
    g_assert_cmpint(qemu_fclose(reader.f), ==, -EPERM);
    pair_free(&p);
}

/* Who waits does so up to a time, also for the rest of what has begun. */
static void test_read_until(void)
{
    Pair p = pair_new();
    QEMUFile *in = qemu_file_new_input(p.b);
    int64_t now = now_ms();
    char byte = 'x';
    uint8_t *bytes;

    qemu_file_set_blocking(in, false);
    qio_channel_write_all(p.a, &byte, 1, &error_abort);
    stream_read_until(in, now + 100);
    g_assert_cmpint(qemu_get_byte(in), ==, 'x');
    qio_channel_write_all(p.a, &byte, 1, &error_abort);
    g_assert_cmpuint(qemu_peek_buffer(in, &bytes, 2, 0), ==, 1);
    g_assert_cmpint(now_ms(), >=, now + 100);
    g_assert_cmpint(qemu_fclose(in), ==, -EIO);
    pair_free(&p);
}

typedef struct CoGet {
    Player *player;
    bool done;
} CoGet;

static void coroutine_fn co_get(void *opaque)
{
    CoGet *g = opaque;

    play_get(g->player);
    g->done = true;
}

/* A coroutine reads a socket that does not block, as the main loop does. */
static void test_coroutine(void)
{
    Pair p = pair_new();
    g_autoptr(Script) s = script_new(33, 400, 30000);
    Player writer = { .s = s, .rounds = 3 }, reader = { .s = s, .rounds = 3 };
    CoGet get = { .player = &reader };

    writer.f = qemu_file_new_output(p.a);
    reader.f = qemu_file_new_input(p.b);
    qemu_file_set_blocking(reader.f, false);
    qemu_coroutine_enter(qemu_coroutine_create(co_get, &get));
    qemu_thread_create(&writer.thread, "writer", play_put, &writer,
                       QEMU_THREAD_JOINABLE);
    while (!get.done) {
        main_loop_wait(false);
    }
    qemu_thread_join(&writer.thread);
    g_assert_cmpint(qemu_fclose(reader.f), ==, 0);
    g_assert_cmpint(qemu_fclose(writer.f), ==, 0);
    pair_free(&p);
}

/* A file that says @text, and its descriptor. */
static int text_file(const char *text)
{
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("test-stream-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    unlink(path);
    g_assert_cmpint(write(fd, text, strlen(text)), ==, strlen(text));
    return fd;
}

static void assert_says(int fd, const char *text)
{
    char buf[100] = "";

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, buf, sizeof(buf) - 1, 0), >, 0);
    g_assert_cmpstr(buf, ==, text);
    close(fd);
}

/* Descriptors arrive in order, each between the data around it. */
static void test_fds(void)
{
    Pair p = pair_new();
    QEMUFile *out = qemu_file_new_output(p.a), *in = qemu_file_new_input(p.b);
    g_autofree uint8_t *data = noise(34, 20000);
    g_autofree uint8_t *own = g_malloc(20000);

    for (int i = 0; i < 8; i++) {
        g_autofree char *text = g_strdup_printf("file %d", i);
        int fd = text_file(text);

        qemu_put_be32(out, i);
        if (i & 1) {
            qemu_put_buffer(out, data, 20000);
        }
        g_assert_cmpint(qemu_file_put_fd(out, fd), ==, 0);
        close(fd);
    }
    g_assert_cmpint(qemu_fflush(out), ==, 0);

    for (int i = 0; i < 8; i++) {
        g_autofree char *text = g_strdup_printf("file %d", i);

        g_assert_cmpuint(qemu_get_be32(in), ==, i);
        if (i & 1) {
            g_assert_cmpuint(qemu_get_buffer(in, own, 20000), ==, 20000);
            g_assert_cmpmem(own, 20000, data, 20000);
        }
        assert_says(qemu_file_get_fd(in), text);
        g_assert_cmpuint(stream_position(in), ==,
                         (i + 1) * 5 + (i + 1) / 2 * 20000);
    }
    g_assert_cmpint(qemu_file_get_error(in), ==, 0);
    g_assert_cmpint(qemu_fclose(in), ==, 0);
    g_assert_cmpint(qemu_fclose(out), ==, 0);
    pair_free(&p);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) != -1;
}

/* No descriptor where one was expected takes nothing from the stream. */
static void test_fd_missing(void)
{
    Pair p = pair_new();
    QEMUFile *out = qemu_file_new_output(p.a), *in = qemu_file_new_input(p.b);

    qemu_put_byte(out, 42);
    qemu_fflush(out);
    g_assert_cmpint(qemu_file_get_fd(in), ==, -1);
    g_assert_cmpint(qemu_file_get_error(in), ==, 0);
    g_assert_cmpint(qemu_get_byte(in), ==, 42);
    qemu_fclose(out);
    g_assert_cmpint(qemu_file_get_fd(in), ==, -1);
    g_assert_cmpint(qemu_fclose(in), ==, -EIO);
    pair_free(&p);
}

/* Descriptors that nobody takes are closed with the stream. */
static void test_fd_unclaimed(void)
{
    Pair p = pair_new();
    QEMUFile *out = qemu_file_new_output(p.a), *in = qemu_file_new_input(p.b);
    int fd = text_file("unclaimed"), received;

    g_assert_cmpint(qemu_file_put_fd(out, fd), ==, 0);
    /* The lowest free number is what the kernel will give it. */
    received = dup(fd);
    close(received);
    g_assert_cmpint(qemu_get_byte(in), ==, ' ');
    g_assert_true(is_open(received));
    g_assert_cmpint(qemu_fclose(in), ==, 0);
    g_assert_false(is_open(received));
    close(fd);
    qemu_fclose(out);
    pair_free(&p);
}

static void send_with_fds(int fd, int passed, int count)
{
    int fds[16];

    for (int i = 0; i < count; i++) {
        fds[i] = passed;
    }
    QIOChannelSocket *ioc = qio_channel_socket_new_fd(dup(fd), &error_abort);
    struct iovec vec = { .iov_base = (char *)"x", .iov_len = 1 };

    g_assert_cmpint(qio_channel_writev_full(QIO_CHANNEL(ioc), &vec, 1, fds,
                                            count, 0, &error_abort), ==, 1);
    object_unref(OBJECT(ioc));
}

/* A peer that floods us with descriptors is cut off, and nothing leaks. */
static void test_fd_flood(void)
{
    Pair p = pair_new();
    QEMUFile *in = qemu_file_new_input(p.b);
    int fd = text_file("flood"), next;
    Error *err = NULL;

    for (int i = 0; i < STREAM_FDS_MAX / 16 + 1; i++) {
        send_with_fds(QIO_CHANNEL_SOCKET(p.a)->fd, fd, 16);
    }
    next = dup(fd);
    close(next);
    for (int i = 0; i < STREAM_FDS_MAX / 16; i++) {
        g_assert_cmpint(qemu_get_byte(in), ==, 'x');
        g_assert_cmpint(qemu_file_get_error(in), ==, 0);
    }
    qemu_get_byte(in);
    g_assert_cmpint(qemu_file_get_error_obj(in, &err), ==, -EIO);
    g_assert_nonnull(strstr(error_get_pretty(err), "not asked for"));
    error_free(err);
    g_assert_cmpint(qemu_fclose(in), ==, -EIO);
    for (int i = 0; i < STREAM_FDS_MAX + 16; i++) {
        g_assert_false(is_open(next + i));
    }
    close(fd);
    pair_free(&p);
}

/* Where descriptors cannot be passed, that is an error with a reason. */
static void test_fd_impossible(void)
{
    Pair p = pair_new();
    Error *err = NULL;
    QEMUFile *out, *in;

    p.a->features &= ~(1 << QIO_CHANNEL_FEATURE_FD_PASS);
    out = qemu_file_new_output(p.a);
    in = qemu_file_get_return_path(out);
    g_assert_cmpint(qemu_file_put_fd(out, 0), ==, -1);
    g_assert_cmpint(qemu_file_get_error_obj(out, &err), ==, -EIO);
    g_assert_nonnull(strstr(error_get_pretty(err), "UNIX socket"));
    error_free(err);
    g_assert_cmpint(qemu_file_get_fd(in), ==, -1);
    g_assert_cmpint(qemu_file_get_error(in), ==, -EIO);
    qemu_fclose(in);
    qemu_fclose(out);
    pair_free(&p);
}

/*
 * A reader that is woken only when much has come, over TCP: by what comes in
 * small pieces with pauses, then by a few bytes, and by the end in the middle.
 */
#define LARGE (3 * MiB)

static Pair tcp_pair_new(void)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t len = sizeof(at);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    int one = socket(AF_INET, SOCK_STREAM, 0), other;
    Pair p;

    g_assert_cmpint(bind(server, (struct sockaddr *)&at, len), ==, 0);
    g_assert_cmpint(listen(server, 1), ==, 0);
    g_assert_cmpint(getsockname(server, (struct sockaddr *)&at, &len), ==, 0);
    g_assert_cmpint(connect(one, (struct sockaddr *)&at, len), ==, 0);
    other = accept(server, NULL, NULL);
    close(server);
    p.a = QIO_CHANNEL(qio_channel_socket_new_fd(one, &error_abort));
    p.b = QIO_CHANNEL(qio_channel_socket_new_fd(other, &error_abort));
    qio_channel_set_name(p.a, "end-a");
    qio_channel_set_name(p.b, "end-b");
    return p;
}

static void *send_in_pieces(void *opaque)
{
    QIOChannel *to = opaque;
    static const size_t pieces[] = {
        1, 30 * KiB, 700 * KiB, LARGE - 730 * KiB - 1, 1, LARGE / 2
    };
    g_autofree char *bytes = g_malloc(LARGE);

    memset(bytes, 'x', LARGE);
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        g_usleep(20 * 1000);
        qio_channel_write_all(to, bytes, pieces[i], &error_abort);
    }
    qio_channel_shutdown(to, QIO_CHANNEL_SHUTDOWN_WRITE, &error_abort);
    return NULL;
}

static void woken_late(bool blocking)
{
    Pair p = tcp_pair_new();
    QEMUFile *in = qemu_file_new_input(p.b);
    g_autofree uint8_t *buf = g_malloc0(LARGE);
    QemuThread sender;

    qemu_file_set_blocking(in, blocking);
    qemu_thread_create(&sender, "sender", send_in_pieces, p.a,
                       QEMU_THREAD_JOINABLE);
    g_assert_cmpuint(qemu_get_buffer(in, buf, LARGE), ==, LARGE);
    g_assert_cmpint(buf[LARGE - 1], ==, 'x');
    g_assert_cmpint(qemu_get_byte(in), ==, 'x');
    g_assert_cmpint(qemu_file_get_error(in), ==, 0);
    g_assert_cmpuint(qemu_get_buffer(in, buf, LARGE), <, LARGE);
    g_assert_cmpint(qemu_file_get_error(in), ==, -EIO);
    qemu_thread_join(&sender);
    qemu_fclose(in);
    pair_free(&p);
}

static void test_woken_late_blocking(void)
{
    woken_late(true);
}

static void test_woken_late_nonblocking(void)
{
    woken_late(false);
}

/*
 * What waits in the buffer of a socket, until somebody reads
 */

#define MUCH (8 * MiB)

static void *put_much(void *opaque)
{
    g_autofree uint8_t *data = g_malloc0(MUCH);

    qemu_put_buffer(opaque, data, MUCH);
    g_assert_cmpint(qemu_fflush(opaque), ==, 0);
    return NULL;
}

static void unsent(Pair p)
{
    QEMUFile *out = qemu_file_new_output(p.a), *in = qemu_file_new_input(p.b);
    g_autofree uint8_t *buf = g_malloc0(MUCH);
    QemuThread writer;

    g_assert_cmpuint(stream_unsent(out), ==, 0);
    qemu_thread_create(&writer, "writer", put_much, out, QEMU_THREAD_JOINABLE);
    while (!stream_unsent(out)) {
        g_usleep(100);
    }
    g_assert_cmpuint(qemu_get_buffer(in, buf, MUCH), ==, MUCH);
    qemu_thread_join(&writer);
    while (stream_unsent(out)) {
        g_usleep(100);
    }
    qemu_fclose(in);
    qemu_fclose(out);
    pair_free(&p);
}

/* Bytes that are there are still read when they are known to be the last. */
static void peer_closes(Pair p)
{
    char byte = 'x';

    g_assert_true(channel_socket(p.b) == QIO_CHANNEL_SOCKET(p.b));
    g_assert_true(channel_below_tls(p.b) == p.b);
    g_assert_false(channel_peer_closed(p.b));
    qio_channel_write_all(p.a, &byte, 1, &error_abort);
    g_assert_false(channel_peer_closed(p.b));
    qio_channel_shutdown(p.a, QIO_CHANNEL_SHUTDOWN_WRITE, &error_abort);
    g_assert_true(channel_peer_closed(p.b));
    byte = 0;
    qio_channel_read_all(p.b, &byte, 1, &error_abort);
    g_assert_cmpint(byte, ==, 'x');
    g_assert_true(channel_peer_closed(p.b));
    g_assert_false(channel_peer_closed(p.a));
    pair_free(&p);
}

static void test_peer_closes(void)
{
    peer_closes(pair_new());
    peer_closes(tcp_pair_new());
}

static void test_unsent_tcp(void)
{
    unsent(tcp_pair_new());
}

static void test_unsent_unix(void)
{
    unsent(pair_new());
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/stream/socket/both-ways", test_both_ways);
    g_test_add_func("/stream/socket/peer-gone", test_peer_gone);
    g_test_add_func("/stream/socket/shutdown-blocking",
                    test_shutdown_blocking);
    g_test_add_func("/stream/socket/shutdown-nonblocking",
                    test_shutdown_nonblocking);
    g_test_add_func("/stream/socket/error-while-parked",
                    test_error_while_parked);
    g_test_add_func("/stream/socket/read-until", test_read_until);
    g_test_add_func("/stream/socket/woken-late-blocking",
                    test_woken_late_blocking);
    g_test_add_func("/stream/socket/woken-late-nonblocking",
                    test_woken_late_nonblocking);
#ifdef CONFIG_LINUX
    g_test_add_func("/stream/socket/unsent-tcp", test_unsent_tcp);
    g_test_add_func("/stream/socket/unsent-unix", test_unsent_unix);
    g_test_add_func("/stream/socket/peer-closes", test_peer_closes);
#endif
    g_test_add_func("/stream/socket/fds", test_fds);
    g_test_add_func("/stream/socket/fd-missing", test_fd_missing);
    g_test_add_func("/stream/socket/fd-unclaimed", test_fd_unclaimed);
    g_test_add_func("/stream/socket/fd-flood", test_fd_flood);
    g_test_add_func("/stream/socket/fd-impossible", test_fd_impossible);
    g_test_add_func("/stream/coroutine/socket", test_coroutine);
    return g_test_run();
}
