/*
 * Unit tests of connecting and listening, both ends in one process
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-yank.h"
#include "qemu/cutils.h"
#include "qemu/sockets.h"
#include "io/channel-socket.h"
#include "migration/options.h"
#include "migration/transport/private.h"
#include "migration/yank_functions.h"
#include "monitor/monitor.h"
#include "setup.h"
#ifdef CONFIG_GNUTLS
#include "crypto/tlscredspsk.h"
#include "io/channel-tls.h"
#include "io/net-listener.h"
#include "qom/object_interfaces.h"
#endif

/*
 * Instead of the emulator's
 */

static const char *tls_creds = "";
static const char *tls_authz;
static bool both_ways;

bool migrate_tls(void)
{
    return *tls_creds;
}

const char *migrate_tls_creds(void)
{
    return tls_creds;
}

const char *migrate_tls_hostname(void)
{
    return "";
}

const char *migrate_tls_authz(void)
{
    return tls_authz;
}

bool migrate_return_path(void)
{
    return both_ways;
}

int monitor_fd_param(Monitor *mon, const char *fdname, Error **errp)
{
    int fd = qemu_parse_fd(fdname);

    if (fd < 0) {
        error_setg(errp, "no such descriptor");
    }
    return fd;
}

/*
 * What a test needs
 */

static char *dir;

typedef struct End {
    QIOChannel *ioc;        /* the last one */
    Error *err;
    int calls;
    int wanted;             /* listening: how many channels */
} End;

static End source, dest;

/* Set while a function is called that may not call back */
static bool calling;

static void connected(QIOChannel *ioc, Error *err, void *opaque)
{
    End *end = opaque;

    g_assert_false(calling);
    g_assert_true(!ioc != !err);
    end->calls++;
    end->ioc = ioc;
    end->err = err;
}

static bool accepted(QIOChannel *ioc, Error *err, void *opaque)
{
    End *end = opaque;

    g_assert_false(calling);
    g_assert_true(!ioc != !err);
    end->calls++;
    end->err = err;
    if (end->ioc) {
        migration_ioc_unregister_yank(end->ioc);
        object_unref(OBJECT(end->ioc));
    }
    end->ioc = ioc;
    return end->calls < end->wanted;
}

static void close_end(End *end)
{
    if (end->ioc) {
        migration_ioc_unregister_yank(end->ioc);
        qio_channel_close(end->ioc, NULL);
        object_unref(OBJECT(end->ioc));
    }
    error_free(end->err);
    *end = (End) { 0 };
}

/* Nothing is left, and nothing comes any more. */
static void close_all(void)
{
    int64_t until = g_get_monotonic_time() + 20 * 1000;
    YankInstanceList *left;

    close_end(&source);
    close_end(&dest);
    transport_end();
    transport_end();
    while (g_get_monotonic_time() < until) {
        main_loop_wait(true);
    }
    g_assert_cmpint(source.calls + dest.calls, ==, 0);
    g_assert_null(transport_addresses());
    left = qmp_query_yank(&error_abort);
    g_assert_null(left);
}

static bool in_yank(void)
{
    YankInstanceList *list = qmp_query_yank(&error_abort);
    bool result = list && list->value->type == YANK_INSTANCE_TYPE_MIGRATION;

    qapi_free_YankInstanceList(list);
    return result;
}

static bool try_connect(const char *uri, Error **errp)
{
    MigrationAddress *addr;
    bool ok;

    transport_parse(uri, NULL, &addr, &error_abort);
    calling = true;
    ok = transport_connect(addr, both_ways, connected, &source, errp);
    calling = false;
    qapi_free_MigrationAddress(addr);
    return ok;
}

static bool try_listen(const char *uri, Error **errp)
{
    MigrationAddress *addr;
    bool ok;

    transport_parse(uri, NULL, &addr, &error_abort);
    calling = true;
    ok = transport_listen(addr, accepted, &dest, errp);
    calling = false;
    qapi_free_MigrationAddress(addr);
    return ok;
}

/* As try_*, which is to fail and to say @part */
static void check_refused(bool (*try)(const char *, Error **),
                          const char *uri, const char *part)
{
    Error *err = NULL;

    g_assert_false(try(uri, &err));
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), part)) {
        g_error("%s: '%s' does not say '%s'", uri, error_get_pretty(err),
                part);
    }
    error_free(err);
}

static void wait_for(const End *end, int calls)
{
    while (end->calls < calls) {
        main_loop_wait(false);
    }
    g_assert_cmpint(end->calls, ==, calls);
}

static char *listener_uri(void)
{
    SocketAddressList *list = transport_addresses();

    g_assert_nonnull(list);
    return socket_uri(list->value);
}

/* Both ends block and lead to each other. */
static void check_joined(QIOChannel *from, QIOChannel *to)
{
    static const char hello[] = "hello";
    char got[sizeof(hello)] = "";

    qio_channel_write_all(from, hello, sizeof(hello), &error_abort);
    qio_channel_read_all(to, got, sizeof(got), &error_abort);
    g_assert_cmpstr(got, ==, hello);
}

static void check_blocks(QIOChannel *ioc)
{
    int fd = QIO_CHANNEL_SOCKET(ioc)->fd;

    g_assert_cmpint(fcntl(fd, F_GETFL) & O_NONBLOCK, ==, 0);
}

/* Who only listens will notice that nobody is there. */
static void check_kept_alive(QIOChannel *ioc)
{
    int on = 0;
    socklen_t len = sizeof(on);

    g_assert_cmpint(getsockopt(QIO_CHANNEL_SOCKET(ioc)->fd, SOL_SOCKET,
                               SO_KEEPALIVE, &on, &len), ==, 0);
    g_assert_cmpint(on, !=, 0);
}

static char *unix_uri(void)
{
    return g_strdup_printf("unix:%s/sock", dir);
}

/*
 * Tests
 */

/* @data: where to listen; NULL for a path */
static void test_socket(const void *data)
{
    g_autofree char *at = data ? g_strdup(data) : unix_uri();
    g_autofree char *uri = NULL;

    try_listen(at, &error_abort);
    g_assert_true(in_yank());
    uri = listener_uri();
    try_connect(uri, &error_abort);
    wait_for(&source, 1);
    wait_for(&dest, 1);
    g_assert_null(source.err);
    check_blocks(source.ioc);
    check_blocks(dest.ioc);
    check_kept_alive(source.ioc);
    check_kept_alive(dest.ioc);
    check_joined(source.ioc, dest.ioc);
    check_joined(dest.ioc, source.ioc);

    /* Nobody listens any more; but the address is still known. */
    g_free(uri);
    uri = listener_uri();
    close_end(&source);
    try_connect(uri, &error_abort);
    wait_for(&source, 1);
    g_assert_nonnull(source.err);
    g_assert_true(in_yank());
    close_all();
}

static void test_yank(void)
{
    g_autofree char *at = unix_uri();
    YankInstance which = { .type = YANK_INSTANCE_TYPE_MIGRATION };
    YankInstanceList list = { .value = &which };
    char byte;

    try_listen(at, &error_abort);
    try_connect(at, &error_abort);
    wait_for(&source, 1);
    wait_for(&dest, 1);
    qmp_yank(&list, &error_abort);
    g_assert_cmpint(qio_channel_read(dest.ioc, &byte, 1, NULL), ==, 0);
    close_all();
}

static void test_fd(const void *data)
{
    bool is_socket = !strcmp(data, "socket");
    g_autofree char *from = NULL, *to = NULL;
    int fd[2];

    g_assert_cmpint(is_socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, fd)
                              : pipe(fd), ==, 0);
    to = g_strdup_printf("fd:%d", fd[0]);
    from = g_strdup_printf("fd:%d", fd[1]);
    try_listen(to, &error_abort);
    g_assert_null(transport_addresses());
    try_connect(from, &error_abort);
    wait_for(&source, 1);
    main_loop_wait(true);
    g_assert_cmpint(dest.calls, ==, 0);         /* not before there is data */

    qio_channel_write_all(source.ioc, "x", 1, &error_abort);
    wait_for(&dest, 1);
    qio_channel_read_all(dest.ioc, (char[1]) { 0 }, 1, &error_abort);
    check_joined(source.ioc, dest.ioc);
    close_all();
}

/* A peer that goes without a word is one that ends the stream at once. */
static void test_fd_hangup(void)
{
    g_autofree char *to = NULL;
    int fd[2];

    g_assert_cmpint(pipe(fd), ==, 0);
    to = g_strdup_printf("fd:%d", fd[0]);
    try_listen(to, &error_abort);
    close(fd[1]);
    wait_for(&dest, 1);
    close_all();
}

static void test_fd_unknown(void)
{
    check_refused(try_connect, "fd:none", "no such descriptor");
    check_refused(try_listen, "fd:none", "no such descriptor");
    check_refused(try_listen, "fd:1000000", "1000000");
    close_all();
}

static void test_exec(void)
{
    g_autofree char *path = g_build_filename(dir, "out", NULL);
    g_autofree char *to = g_strdup_printf("exec:cat >%s", path);
    g_autofree char *from = g_strdup_printf("exec:cat %s", path);
    char got[4] = "";

    try_connect(to, &error_abort);
    wait_for(&source, 1);
    qio_channel_write_all(source.ioc, "abc", 3, &error_abort);
    transport_finish(source.ioc, &error_abort);
    close_end(&source);

    try_listen(from, &error_abort);
    wait_for(&dest, 1);
    qio_channel_read_all(dest.ioc, got, 3, &error_abort);
    g_assert_cmpstr(got, ==, "abc");
    transport_writer_ended(dest.ioc, &error_abort);
    unlink(path);
    close_all();
}

static QIOChannel *run(const char *command)
{
    g_autofree char *uri = g_strdup_printf("exec:%s", command);

    close_end(&source);
    try_connect(uri, &error_abort);
    wait_for(&source, 1);
    g_assert_null(source.err);
    return source.ioc;
}

static void check_says(Error *err, const char *part)
{
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), part)) {
        g_error("'%s' does not say '%s'", error_get_pretty(err), part);
    }
    error_free(err);
}

/* How a command ended is told, whatever it did with its input before. */
static void test_exec_status(void)
{
    static const char *const cases[][2] = {
        { "cat >/dev/null; exit 3", "exit status 3" },
        { "cat >/dev/null; kill -9 $$", "killed by signal 9" },
        { "exec /nobody/there 2>/dev/null", "exit status 127" },
    };
    Error *err = NULL;

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        QIOChannel *ioc = run(cases[i][0]);

        g_assert_false(transport_finish(ioc, &err));
        check_says(g_steal_pointer(&err), cases[i][1]);
    }
    transport_exit_ms = 50;
    g_assert_false(transport_finish(run("cat >/dev/null; sleep 2"), &err));
    check_says(g_steal_pointer(&err), "has not ended");
    transport_exit_ms = 60 * 1000;
    close_all();
}

/* What breaks a pipe is said as well. */
static void test_exec_breaks(void)
{
    QIOChannel *ioc = run("exec 0<&- >&-; exit 4");
    const char zeros[512] = "";
    Error *err = NULL;
    char byte;

    while (qio_channel_write(ioc, zeros, sizeof(zeros), &err) != -1) {
        g_usleep(100);      /* until it is gone */
    }
    check_says(g_steal_pointer(&err), "exit status 4");
    g_assert_cmpint(qio_channel_read(ioc, &byte, 1, &err), ==, -1);
    check_says(g_steal_pointer(&err), "exit status 4");

    /* One that ended well has written all it had to. */
    ioc = run("exit 0");
    transport_finish(ioc, &error_abort);
    g_assert_cmpint(qio_channel_read(ioc, &byte, 1, &error_abort), ==, 0);
    close_all();
}

/* A command that reads nothing and lives on */
static void test_exec_lingers(void)
{
    const int64_t start = g_get_monotonic_time();
    QIOChannel *ioc = run("exec sleep 30");
    g_autofree char *zeros = g_malloc0(1 << 20);
    YankInstance which = { .type = YANK_INSTANCE_TYPE_MIGRATION };
    YankInstanceList list = { .value = &which };
    Error *err = NULL;

    g_assert_cmpint(qio_channel_write(ioc, zeros, 1 << 20, &error_abort), >, 0);
    g_assert_cmpint(qio_channel_write(ioc, zeros, 1 << 20, &error_abort), ==,
                    QIO_CHANNEL_ERR_BLOCK);
    qmp_yank(&list, &error_abort);
    g_assert_cmpint(qio_channel_write(ioc, zeros, 1, &err), ==, -1);
    check_says(g_steal_pointer(&err), "shut down");
    g_assert_false(transport_finish(ioc, &err));
    check_says(g_steal_pointer(&err), "shut down");
    close_all();

    try_listen("exec:echo; exec sleep 30", &error_abort);
    wait_for(&dest, 1);
    transport_writer_ended(dest.ioc, &error_abort);
    close_all();
    g_assert_cmpint(g_get_monotonic_time() - start, <, 10 * G_USEC_PER_SEC);
}

static void test_exec_writer_fails(void)
{
    Error *err = NULL;

    try_listen("exec:echo; exit 5", &error_abort);
    wait_for(&dest, 1);
    qio_channel_read_all(dest.ioc, (char[1]) { 0 }, 1, &error_abort);
    g_assert_false(transport_writer_ended(dest.ioc, &err));
    check_says(err, "exit status 5");
    close_all();
}

/* A command that nobody used does not stay behind. */
static void test_exec_unused(void)
{
    g_autofree char *path = g_build_filename(dir, "pid", NULL);
    g_autofree char *uri = g_strdup_printf("exec:echo $$ >%s; exec sleep 60 "
                                           ">/dev/null", path);
    g_autofree char *text = NULL;
    int64_t end = g_get_monotonic_time() + 5 * G_USEC_PER_SEC;
    int pid = 0;

    try_listen(uri, &error_abort);
    while (!pid && g_get_monotonic_time() < end) {
        g_clear_pointer(&text, g_free);
        if (g_file_get_contents(path, &text, NULL, NULL)) {
            pid = atoi(text);
        }
    }
    g_assert_cmpint(pid, >, 0);
    transport_listen_stop();
    while (kill(pid, 0) == 0 && g_get_monotonic_time() < end) {
        g_usleep(1000);
    }
    g_assert_cmpint(kill(pid, 0), ==, -1);
    unlink(path);
    close_all();
}

static gboolean drain(void *opaque)
{
    transport_listen_drain();
    return G_SOURCE_REMOVE;
}

/*
 * The main loop has found that somebody connected, and then drops all who have:
 * it does not wait for another one.
 */
static void test_drained(void)
{
    g_autoptr(QIOChannelSocket) client = qio_channel_socket_new();
    g_autofree char *at = unix_uri();

    /* Before what listens, in the same round */
    g_idle_add_full(G_PRIORITY_DEFAULT, drain, NULL, NULL);
    try_listen(at, &error_abort);
    qio_channel_socket_connect_sync(client, transport_addresses()->value,
                                    &error_abort);
    main_loop_wait(true);
    g_assert_cmpint(dest.calls, ==, 0);

    try_connect(at, &error_abort);
    wait_for(&source, 1);
    wait_for(&dest, 1);
    check_blocks(dest.ioc);
    check_joined(source.ioc, dest.ioc);
    close_all();
}

/* Nobody waits for the other end of a FIFO. */
static void test_fifo(void)
{
    g_autofree char *path = g_build_filename(dir, "fifo", NULL);
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    g_assert_cmpint(mkfifo(path, 0600), ==, 0);
    check_refused(try_connect, uri, "must have a reader");
    try_listen(uri, &error_abort);
    try_connect(uri, &error_abort);
    wait_for(&source, 1);
    g_assert_cmpint(dest.calls, ==, 0);
    qio_channel_write_all(source.ioc, "x", 1, &error_abort);
    wait_for(&dest, 1);
    unlink(path);
    close_all();
}

/* Where no answer can come from is refused at once, and left alone. */
static void test_both_ways(void)
{
    g_autofree char *path = g_build_filename(dir, "file", NULL);
    g_autofree char *file = g_strdup_printf("file:%s", path);
    g_autofree char *content = NULL;
    g_autofree char *uri = NULL;
    QIOChannel *ioc;
    int fd[2];

    both_ways = true;
    g_file_set_contents(path, "content", -1, NULL);
    check_refused(try_connect, file, "return-path");
    g_file_get_contents(path, &content, NULL, NULL);
    g_assert_cmpstr(content, ==, "content");
    unlink(path);

    g_assert_cmpint(pipe(fd), ==, 0);
    uri = g_strdup_printf("fd:%d", fd[1]);
    check_refused(try_connect, uri, "both ways");
    close(fd[0]);

    ioc = run("cat");
    check_joined(ioc, ioc);
    both_ways = false;
    close_all();
}

static void test_file(void)
{
    g_autofree char *path = g_build_filename(dir, "file", NULL);
    g_autofree char *uri = g_strdup_printf("file:%s,offset=8", path);
    g_autofree char *missing = g_strdup_printf("file:%s/no/file", dir);
    g_autofree char *content = NULL;
    char got[4] = "";
    size_t len;

    g_file_set_contents(path, "header..and more of it", -1, NULL);
    try_connect(uri, &error_abort);
    wait_for(&source, 1);
    qio_channel_write_all(source.ioc, "abc", 3, &error_abort);
    close_end(&source);
    g_file_get_contents(path, &content, &len, NULL);
    g_assert_cmpmem(content, len, "header..abc", 11);

    try_listen(uri, &error_abort);
    wait_for(&dest, 1);
    qio_channel_read_all(dest.ioc, got, 3, &error_abort);
    g_assert_cmpstr(got, ==, "abc");
    close_end(&dest);

    check_refused(try_connect, missing, "No such file");
    check_refused(try_listen, missing, "No such file");
    unlink(path);
    close_all();
}

/*
 * In the place of the C library's: it waits while it is told to.
 */
static struct {
    QemuSemaphore begun, go_on;
    bool waits;                 /* set by the main thread while nobody calls */
    GThread *who;
    int calls;
} cutting;

int ftruncate(int fd, off_t length)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);

    cutting.who = g_thread_self();
    cutting.calls++;
    if (cutting.waits) {
        qemu_sem_post(&cutting.begun);
        qemu_sem_wait(&cutting.go_on);
    }
    return truncate(path, length);
}

static void loop_for(int ms)
{
    int64_t until = g_get_monotonic_time() + ms * 1000;

    while (g_get_monotonic_time() < until) {
        main_loop_wait(true);
    }
}

/* The main loop goes on while a file is truncated, and nothing else does. */
static void test_file_truncated(void)
{
    g_autofree char *path = g_build_filename(dir, "file", NULL);
    g_autofree char *uri = g_strdup_printf("file:%s,offset=6", path);
    g_autofree char *content = NULL;
    size_t len;

    cutting.waits = true;
    g_file_set_contents(path, "header and what is old", -1, NULL);
    try_connect(uri, &error_abort);
    qemu_sem_wait(&cutting.begun);
    loop_for(20);
    g_assert_cmpint(source.calls, ==, 0);
    g_assert_true(cutting.who != g_thread_self());
    qemu_sem_post(&cutting.go_on);
    wait_for(&source, 1);
    g_assert_null(source.err);
    qio_channel_write_all(source.ioc, "new", 3, &error_abort);
    close_end(&source);
    g_file_get_contents(path, &content, &len, NULL);
    g_assert_cmpmem(content, len, "headernew", 9);

    /* what has the length, or less, is not waited for */
    cutting.waits = false;
    cutting.calls = 0;
    g_file_set_contents(path, "header", -1, NULL);
    try_connect(uri, &error_abort);
    wait_for(&source, 1);
    close_end(&source);
    g_assert_cmpint(cutting.calls, ==, 0);
    g_file_set_contents(path, "", -1, NULL);
    try_connect(uri, &error_abort);
    g_assert_cmpint(cutting.calls, ==, 1);
    g_assert_true(cutting.who == g_thread_self());
    wait_for(&source, 1);
    unlink(path);
    close_all();
}

/* What is written after an attempt was called off stays in the file. */
static void test_file_called_off(void)
{
    g_autofree char *path = g_build_filename(dir, "file", NULL);
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    cutting.waits = false;
    for (int i = 0; i < 100; i++) {
        g_autofree char *content = NULL;
        size_t len;
        FILE *file;

        g_file_set_contents(path, "old", -1, NULL);
        try_connect(uri, &error_abort);
        g_usleep(i % 10 * 10);
        transport_connect_cancel();
        file = fopen(path, "w");
        fputs("new content", file);
        fclose(file);
        loop_for(2);
        g_file_get_contents(path, &content, &len, NULL);
        g_assert_cmpmem(content, len, "new content", 11);
    }
    loop_for(20);
    g_assert_cmpint(source.calls, ==, 0);
    unlink(path);
    close_all();
}

/* Nobody there: that is known later, and the next attempt may succeed. */
static void test_refused(void)
{
    g_autofree char *at = unix_uri();
    g_autofree char *tcp = NULL;

    try_connect(at, &error_abort);
    g_assert_true(in_yank());
    wait_for(&source, 1);
    g_assert_nonnull(source.err);
    g_assert_false(in_yank());
    close_end(&source);

    try_listen("tcp:127.0.0.1:0", &error_abort);
    tcp = listener_uri();
    transport_listen_stop();
    g_assert_false(in_yank());
    try_connect(tcp, &error_abort);
    wait_for(&source, 1);
    g_assert_nonnull(strstr(error_get_pretty(source.err), "refused"));
    close_end(&source);

    try_listen(at, &error_abort);
    try_connect(at, &error_abort);
    wait_for(&source, 1);
    wait_for(&dest, 1);
    check_joined(source.ioc, dest.ioc);
    close_all();
}

/* A failure says all there is to say, so that the callee may try again. */
static void connect_again(QIOChannel *ioc, Error *err, void *opaque)
{
    g_assert_nonnull(err);
    error_free(err);
    try_connect(opaque, &error_abort);
}

static void test_again_from_callback(void)
{
    g_autofree char *at = unix_uri();
    MigrationAddress *addr;

    transport_parse("unix:/nobody/there", NULL, &addr, &error_abort);
    transport_connect(addr, false, connect_again, at, &error_abort);
    qapi_free_MigrationAddress(addr);
    try_listen(at, &error_abort);
    wait_for(&source, 1);
    wait_for(&dest, 1);
    check_joined(source.ioc, dest.ioc);
    close_all();
}

static void test_cancel(void)
{
    g_autofree char *at = unix_uri();
    g_autofree char *file = g_strdup_printf("file:%s/file", dir);

    /* A thread may still connect afterwards: not to the listener below. */
    transport_connect_cancel();
    for (int i = 0; i < 20; i++) {
        try_connect(i % 2 ? file : "unix:/nobody/there", &error_abort);
        transport_connect_cancel();
        g_assert_false(in_yank());
        if (i % 3) {
            main_loop_wait(true);
        }
    }
    g_assert_cmpint(source.calls, ==, 0);

    try_listen(at, &error_abort);
    try_connect(at, &error_abort);
    wait_for(&source, 1);
    wait_for(&dest, 1);
    check_joined(source.ioc, dest.ioc);
    unlink(file + strlen("file:"));
    close_all();
}

static void test_one_at_a_time(void)
{
    g_autofree char *at = unix_uri();

    try_listen(at, &error_abort);
    check_refused(try_listen, "tcp:127.0.0.1:0", "already");
    try_connect(at, &error_abort);
    check_refused(try_connect, at, "already");
    wait_for(&source, 1);
    wait_for(&dest, 1);
    check_joined(source.ioc, dest.ioc);
    close_all();
}

#define SEVERAL 20

static void connect_several(const char *uri, End *ends)
{
    MigrationAddress *addr;

    transport_parse(uri, NULL, &addr, &error_abort);
    for (unsigned i = 0; i < SEVERAL; i++) {
        ends[i] = (End) { 0 };
        g_assert_true(transport_connect_more(addr, false, connected, &ends[i],
                                             &error_abort));
    }
    qapi_free_MigrationAddress(addr);
}

/* All of them arrive, fail, or are called off; yank does not know them then. */
static void test_several(void)
{
    g_autofree char *at = unix_uri();
    End ends[SEVERAL];

    dest.wanted = SEVERAL;
    try_listen(at, &error_abort);
    connect_several(at, ends);
    check_refused(try_connect, at, "already");
    wait_for(&dest, SEVERAL);
    for (unsigned i = 0; i < SEVERAL; i++) {
        wait_for(&ends[i], 1);
        g_assert_nonnull(ends[i].ioc);
        close_end(&ends[i]);
    }
    close_all();

    connect_several("unix:/nobody/there", ends);
    for (unsigned i = 0; i < SEVERAL; i++) {
        wait_for(&ends[i], 1);
        g_assert_nonnull(ends[i].err);
        close_end(&ends[i]);
    }
    g_assert_false(in_yank());

    for (unsigned turns = 0; turns < 3; turns++) {
        connect_several("unix:/nobody/there", ends);
        for (unsigned i = 0; i < turns; i++) {
            main_loop_wait(true);
        }
        transport_connect_cancel();
        g_assert_false(in_yank());
        for (unsigned i = 0; i < SEVERAL; i++) {
            close_end(&ends[i]);
        }
    }
    close_all();
}

static void test_listen_fails(void)
{
    g_autofree char *at = unix_uri();
    g_autofree char *taken = NULL;
    QIOChannelSocket *other = qio_channel_socket_new();
    SocketAddress *where = socket_parse("tcp:127.0.0.1:0", &error_abort);
    SocketAddress *is;

    qio_channel_socket_listen_sync(other, where, 1, &error_abort);
    is = qio_channel_socket_get_local_address(other, &error_abort);
    taken = socket_uri(is);
    check_refused(try_listen, taken, "in use");
    check_refused(try_listen, "unix:/nobody/there", "/nobody/there");
    g_assert_false(in_yank());
    g_assert_null(transport_addresses());
    object_unref(OBJECT(other));
    qapi_free_SocketAddress(where);
    qapi_free_SocketAddress(is);

    try_listen(taken, &error_abort);
    transport_listen_stop();
    try_listen(at, &error_abort);
    try_connect(at, &error_abort);
    wait_for(&source, 1);
    wait_for(&dest, 1);
    check_joined(source.ioc, dest.ioc);
    close_all();
}

static void test_more(void)
{
    g_autofree char *uri = NULL;

    dest.wanted = 3;
    try_listen("tcp:127.0.0.1:0", &error_abort);
    uri = listener_uri();
    for (int i = 1; i <= 3; i++) {
        close_end(&source);
        try_connect(uri, &error_abort);
        wait_for(&source, 1);
        g_assert_null(source.err);
        wait_for(&dest, i);
    }
    check_joined(source.ioc, dest.ioc);
    close_end(&source);
    try_connect(uri, &error_abort);
    wait_for(&source, 1);
    g_assert_nonnull(source.err);
    close_all();
}

/* Stopping to listen closes the door for those who knocked, too. */
static void test_stop(void)
{
    g_autoptr(QIOChannelSocket) knocks = qio_channel_socket_new();

    transport_listen_stop();
    try_listen("tcp:127.0.0.1:0", &error_abort);
    qio_channel_socket_connect_sync(knocks, transport_addresses()->value,
                                    &error_abort);
    transport_listen_stop();
    transport_listen_stop();
    main_loop_wait(true);
    g_assert_cmpint(dest.calls, ==, 0);
    g_assert_cmpint(qio_channel_read(QIO_CHANNEL(knocks), (char[1]) { 0 }, 1,
                                     NULL), <=, 0);
    close_all();
}

#ifdef CONFIG_GNUTLS

/* Credentials of both ends, @id and @id-c, from the same key */
static void make_creds(const char *id, const char *key)
{
    static const char *const ends[][2] = {
        { "server", "" }, { "client", "-c" }
    };
    g_autofree char *sub = g_build_filename(dir, id, NULL);
    g_autofree char *path = g_build_filename(sub, QCRYPTO_TLS_CREDS_PSKFILE,
                                             NULL);
    g_autofree char *line = g_strdup_printf("qemu:%s\n", key);

    g_assert_cmpint(mkdir(sub, 0700), ==, 0);
    g_assert_true(g_file_set_contents(path, line, -1, NULL));
    for (int i = 0; i < ARRAY_SIZE(ends); i++) {
        g_autofree char *name = g_strconcat(id, ends[i][1], NULL);

        object_new_with_props(TYPE_QCRYPTO_TLS_CREDS_PSK,
                              object_get_objects_root(), name, &error_abort,
                              "endpoint", ends[i][0], "dir", sub,
                              "priority", "NORMAL", NULL);
    }
}

/* Servers read the key at each handshake. */
static void delete_creds(const char *id)
{
    g_autofree char *sub = g_build_filename(dir, id, NULL);
    g_autofree char *path = g_build_filename(sub, QCRYPTO_TLS_CREDS_PSKFILE,
                                             NULL);

    unlink(path);
    rmdir(sub);
}

/* The other end, which is not ours */
typedef struct Other {
    QIOChannel *ioc;        /* encrypts */
    const char *creds;      /* NULL: says nothing */
    int calls;
    bool failed;
} Other;

static void other_shaken(QIOTask *task, void *opaque)
{
    Other *other = opaque;
    Error *err = NULL;

    other->calls++;
    other->failed = qio_task_propagate_error(task, &err);
    error_free(err);
}

static void other_start(Other *other, QIOChannel *plain, bool server)
{
    QCryptoTLSCreds *creds = QCRYPTO_TLS_CREDS(
        object_resolve_path_component(object_get_objects_root(),
                                      other->creds));
    QIOChannelTLS *tls = server ?
        qio_channel_tls_new_server(plain, creds, NULL, &error_abort) :
        qio_channel_tls_new_client(plain, creds, NULL, &error_abort);

    other->ioc = QIO_CHANNEL(tls);
    qio_channel_set_blocking(plain, false, &error_abort);
    qio_channel_tls_handshake(tls, other_shaken, other, NULL, NULL);
}

static void other_accepts(QIONetListener *listener, QIOChannelSocket *socket,
                          void *opaque)
{
    Other *other = opaque;

    if (other->creds) {
        other_start(other, QIO_CHANNEL(socket), true);
    } else {
        other->calls++;
        other->ioc = QIO_CHANNEL(object_ref(OBJECT(socket)));
    }
}

static void other_connects(Other *other, SocketAddress *addr)
{
    g_autoptr(QIOChannelSocket) socket = qio_channel_socket_new();

    qio_channel_socket_connect_sync(socket, addr, &error_abort);
    other_start(other, QIO_CHANNEL(socket), false);
}

static void other_close(Other *other)
{
    if (other->ioc) {
        qio_channel_close(other->ioc, NULL);
        object_unref(OBJECT(other->ioc));
    }
    *other = (Other) { .creds = other->creds };
}

static void check_other_joined(End *end, Other *other)
{
    while (!end->calls || !other->calls) {
        main_loop_wait(false);
    }
    g_assert_null(end->err);
    g_assert_false(other->failed);
    qio_channel_set_blocking(other->ioc, true, &error_abort);
    check_joined(end->ioc, other->ioc);
    check_joined(other->ioc, end->ioc);
}

static void test_tls_connect(void)
{
    g_autofree char *at = unix_uri();
    QIONetListener *listener = qio_net_listener_new();
    SocketAddress *addr = socket_parse(at, &error_abort);
    Other other = { .creds = "wrong" };

    qio_net_listener_open_sync(listener, addr, 4, &error_abort);
    qapi_free_SocketAddress(addr);
    qio_net_listener_set_client_func(listener, other_accepts, &other, NULL);

    tls_creds = "right-c";
    try_connect(at, &error_abort);
    while (!other.calls) {
        main_loop_wait(false);
    }
    g_assert_true(other.failed);
    other_close(&other);
    wait_for(&source, 1);
    g_assert_nonnull(strstr(error_get_pretty(source.err), "TLS handshake"));
    g_assert_false(in_yank());
    close_end(&source);

    /* One that does not answer, for too long */
    other.creds = NULL;
    transport_tls_ms = 30;
    try_connect(at, &error_abort);
    wait_for(&source, 1);
    g_assert_nonnull(strstr(error_get_pretty(source.err), "did not answer"));
    g_assert_false(in_yank());
    close_end(&source);
    other_close(&other);
    transport_tls_ms = 30 * 1000;

    /* It can be called off before, and sees that. */
    try_connect(at, &error_abort);
    while (!other.calls) {
        main_loop_wait(false);
    }
    for (int i = 0; i < 5; i++) {
        main_loop_wait(true);
    }
    transport_connect_cancel();
    qio_channel_set_blocking(other.ioc, false, &error_abort);
    while (qio_channel_read(other.ioc, (char[64]) { 0 }, 64, NULL)) {
        main_loop_wait(true);                   /* what we said before */
    }
    other_close(&other);
    g_assert_cmpint(source.calls, ==, 0);

    other.creds = "right";
    try_connect(at, &error_abort);
    check_other_joined(&source, &other);
    other_close(&other);
    object_unref(OBJECT(listener));
    tls_creds = "";
    close_all();
}

static void test_tls_creds(void)
{
    g_autofree char *file = g_strdup_printf("file:%s/file", dir);
    g_autofree char *at = unix_uri();

    tls_creds = "none";
    check_refused(try_connect, at, "no object of that name");
    tls_creds = "right";
    check_refused(try_connect, at, "endpoint");
    tls_creds = "right-c";
    check_refused(try_connect, file, "TLS needs a peer");
    check_refused(try_listen, file, "TLS needs a peer");
    tls_creds = "";
    close_all();
}

/* Whoever fails is turned away, and the right one is still let in. */
static void test_tls_listen(void)
{
    Other wrong = { .creds = "wrong-c" }, right = { .creds = "right-c" };
    g_autoptr(QIOChannelSocket) babbles = qio_channel_socket_new();
    g_autoptr(QIOChannelSocket) silent = qio_channel_socket_new();
    SocketAddress *addr;
    char byte;

    try_listen("tcp:127.0.0.1:0", &error_abort);
    addr = transport_addresses()->value;
    tls_creds = "right";
    qio_channel_socket_connect_sync(silent, addr, &error_abort);
    qio_channel_socket_connect_sync(babbles, addr, &error_abort);
    qio_channel_write_all(QIO_CHANNEL(babbles), "QEVM\0\0\0\3", 8,
                          &error_abort);
    other_connects(&wrong, addr);
    while (!wrong.calls) {
        main_loop_wait(false);
    }
    other_close(&wrong);
    for (int i = 0; i < 5; i++) {
        main_loop_wait(true);
    }
    g_assert_cmpint(dest.calls, ==, 0);

    other_connects(&right, addr);
    check_other_joined(&dest, &right);
    g_assert_cmpint(dest.calls, ==, 1);
    /* The others were dropped with the listener. */
    g_assert_cmpint(qio_channel_read(QIO_CHANNEL(silent), &byte, 1, NULL),
                    ==, 0);
    other_close(&right);
    tls_creds = "";
    close_all();
}

/* What is wrong at this end is said, and can be put right meanwhile. */
static void test_tls_listen_creds(void)
{
    Other other = { .creds = "right-c" };

    tls_creds = "none";
    try_listen("tcp:127.0.0.1:0", &error_abort);
    other_connects(&other, transport_addresses()->value);
    while (!other.calls) {
        main_loop_wait(false);
    }
    g_assert_true(other.failed);
    other_close(&other);

    tls_creds = "right";
    other_connects(&other, transport_addresses()->value);
    check_other_joined(&dest, &other);
    other_close(&other);
    tls_creds = "";
    close_all();
}

/* Who is to be checked and cannot be is not let in. */
static void test_tls_authz(void)
{
    Other other = { .creds = "right-c" };

    tls_creds = "right";
    tls_authz = "";
    check_refused(try_listen, "tcp:127.0.0.1:0", "admits nobody");
    tls_authz = "z";
    check_refused(try_listen, "tcp:127.0.0.1:0", "requires X.509");
    tls_authz = NULL;
    try_listen("tcp:127.0.0.1:0", &error_abort);
    for (int i = 0; i < 2; i++) {
        tls_authz = i ? "z" : "";
        other_connects(&other, transport_addresses()->value);
        while (!other.calls) {
            main_loop_wait(false);
        }
        g_assert_true(other.failed);
        other_close(&other);
        g_assert_cmpint(dest.calls, ==, 0);
    }
    tls_authz = NULL;
    other_connects(&other, transport_addresses()->value);
    check_other_joined(&dest, &other);
    other_close(&other);
    tls_creds = "";
    close_all();
}

/* Where nobody else can come, whoever waits is told that this one failed. */
static void test_tls_only_peer(void)
{
    g_autofree char *exec = g_strdup("exec:echo no greeting of TLS");
    g_autofree char *uri = NULL;
    int fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    uri = g_strdup_printf("fd:%d", fd[0]);
    tls_creds = "right";
    try_listen(uri, &error_abort);
    g_assert_cmpint(write(fd[1], "QEVM\0\0\0\3", 8), ==, 8);
    wait_for(&dest, 1);
    g_assert_nonnull(strstr(error_get_pretty(dest.err), "TLS handshake"));
    g_assert_false(in_yank());
    close(fd[1]);
    close_end(&dest);

    try_listen(exec, &error_abort);
    wait_for(&dest, 1);
    g_assert_nonnull(strstr(error_get_pretty(dest.err), "TLS handshake"));
    close_end(&dest);
    try_listen("exec:true", &error_abort);
    wait_for(&dest, 1);
    g_assert_nonnull(strstr(error_get_pretty(dest.err), "TLS handshake"));
    close_end(&dest);

    /* What is wrong at this end counts as well. */
    tls_creds = "none";
    try_listen(exec, &error_abort);
    wait_for(&dest, 1);
    g_assert_nonnull(strstr(error_get_pretty(dest.err), "no object"));
    close_end(&dest);

    /* It goes on as if nothing had been. */
    tls_creds = "";
    try_listen(exec, &error_abort);
    wait_for(&dest, 1);
    g_assert_null(dest.err);
    close_all();
}

/* The same for whoever connects. */
static void test_tls_only_way(void)
{
    static const char *const uris[] = {
        "exec:echo no TLS", "exec:true", "exec:sleep 0.2", "exec:head -c 1",
    };
    int64_t end = g_get_monotonic_time() + transport_tls_ms * 500LL;

    for (unsigned i = 0; i < ARRAY_SIZE(uris); i++) {
        tls_creds = "right-c";
        try_connect(uris[i], &error_abort);
        wait_for(&source, 1);
        g_assert_nonnull(strstr(error_get_pretty(source.err),
                                "TLS handshake"));
        g_assert_false(in_yank());
        tls_creds = "";
        close_all();
    }
    /* Nobody waited for the time limit. */
    g_assert_cmpint(g_get_monotonic_time(), <, end);
}

static void add_tls_tests(void)
{
    make_creds("right", "009d5638c40fde0c");
    make_creds("wrong", "10ffa6a2c42f0388");
    g_test_add_func("/migration/transport/tls/connect", test_tls_connect);
    g_test_add_func("/migration/transport/tls/creds", test_tls_creds);
    g_test_add_func("/migration/transport/tls/listen", test_tls_listen);
    g_test_add_func("/migration/transport/tls/listen-creds",
                    test_tls_listen_creds);
    g_test_add_func("/migration/transport/tls/authz", test_tls_authz);
    g_test_add_func("/migration/transport/tls/only-peer", test_tls_only_peer);
    g_test_add_func("/migration/transport/tls/only-way", test_tls_only_way);
}

#endif

int main(int argc, char **argv)
{
    int ret;

    test_setup(&argc, &argv);
    qemu_sem_init(&cutting.begun, 0);
    qemu_sem_init(&cutting.go_on, 0);
    dir = g_dir_make_tmp("test-transport-XXXXXX", NULL);
    g_assert_nonnull(dir);
    g_test_add_data_func("/migration/transport/tcp", "tcp:127.0.0.1:0",
                         test_socket);
    g_test_add_data_func("/migration/transport/unix", NULL, test_socket);
    g_test_add_func("/migration/transport/yank", test_yank);
    g_test_add_data_func("/migration/transport/fd/socket", "socket", test_fd);
    g_test_add_data_func("/migration/transport/fd/pipe", "pipe", test_fd);
    g_test_add_func("/migration/transport/fd/hangup", test_fd_hangup);
    g_test_add_func("/migration/transport/fd/unknown", test_fd_unknown);
    g_test_add_func("/migration/transport/exec", test_exec);
    g_test_add_func("/migration/transport/exec/status", test_exec_status);
    g_test_add_func("/migration/transport/exec/breaks", test_exec_breaks);
    g_test_add_func("/migration/transport/exec/lingers", test_exec_lingers);
    g_test_add_func("/migration/transport/exec/writer-fails",
                    test_exec_writer_fails);
    g_test_add_func("/migration/transport/exec/unused", test_exec_unused);
    g_test_add_func("/migration/transport/file", test_file);
    g_test_add_func("/migration/transport/file-truncated", test_file_truncated);
    g_test_add_func("/migration/transport/file-called-off",
                    test_file_called_off);
    g_test_add_func("/migration/transport/drained", test_drained);
    g_test_add_func("/migration/transport/fifo", test_fifo);
    g_test_add_func("/migration/transport/both-ways", test_both_ways);
    g_test_add_func("/migration/transport/refused", test_refused);
    g_test_add_func("/migration/transport/again", test_again_from_callback);
    g_test_add_func("/migration/transport/cancel", test_cancel);
    g_test_add_func("/migration/transport/one-at-a-time", test_one_at_a_time);
    g_test_add_func("/migration/transport/several", test_several);
    g_test_add_func("/migration/transport/listen-fails", test_listen_fails);
    g_test_add_func("/migration/transport/more", test_more);
    g_test_add_func("/migration/transport/stop", test_stop);
#ifdef CONFIG_GNUTLS
    add_tls_tests();
#endif
    ret = g_test_run();
#ifdef CONFIG_GNUTLS
    delete_creds("right");
    delete_creds("wrong");
#endif
    rmdir(dir);
    g_free(dir);
    return ret;
}
