/*
 * Connections for a postcopy that is paused: told apart by their first bytes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "qemu/yank.h"
#include "io/channel-socket.h"
#include "migration/destination/arrivals.h"
#include "migration/wire/packet.h"
#include "migration/wire/stream.h"
#include "migration/yank_functions.h"
#include "setup.h"

#define ALL 12
#define PATIENCE_US (20 * G_USEC_PER_SEC)
#define NOTHING_US 100000

/* What was called back; under the lock */
static struct {
    QemuMutex lock;
    QEMUFile *main;
    uint32_t attempt;
    QEMUFile *channels[ALL];
    unsigned count;
    unsigned asked;             /* for one that is silent */
    bool refuse, take_silent;
    QIOChannel *silent;
} taken;

static bool take_main(QEMUFile *f, uint32_t attempt, Error **errp)
{
    QEMU_LOCK_GUARD(&taken.lock);
    if (taken.refuse || taken.main) {
        error_setg(errp, "there is one");
        return false;
    }
    taken.main = f;
    taken.attempt = attempt;
    return true;
}

static bool take_channel(QEMUFile *f, const WireMultifdInit *init, Error **errp)
{
    QEMU_LOCK_GUARD(&taken.lock);
    if (taken.refuse || taken.channels[init->channel]) {
        error_setg(errp, "it is not expected");
        return false;
    }
    taken.channels[init->channel] = f;
    taken.count++;
    return true;
}

static bool take_silent(QIOChannel *ioc)
{
    QEMU_LOCK_GUARD(&taken.lock);
    taken.asked++;
    if (taken.take_silent && !taken.silent) {
        taken.silent = ioc;
        return true;
    }
    return false;
}

static const ArrivalsOps ops = {
    .main = take_main, .channel = take_channel, .silent = take_silent,
};

/* The source's end of a new connection */
static int come(void)
{
    QIOChannel *ioc;
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    ioc = QIO_CHANNEL(qio_channel_socket_new_fd(fds[1], &error_abort));
    migration_ioc_register_yank(ioc);
    arrivals_offer(ioc, ALL, &ops);
    object_unref(OBJECT(ioc));
    return fds[0];
}

static void say(int fd, const void *data, size_t len)
{
    g_assert_cmpint(send(fd, data, len, MSG_NOSIGNAL), ==, len);
}

/* In two pieces */
static void say_init(int fd, unsigned id)
{
    QemuUUID uuid = { };
    WireMultifdInit init;

    packet_fill_init(&init, &uuid, id, 0);
    say(fd, &init, 3);
    g_usleep(1000);
    say(fd, (uint8_t *)&init + 3, sizeof(init) - 3);
}

static void say_command(int fd, uint16_t command, const void *payload,
                        uint16_t len)
{
    WireCommand head = { .type = WIRE_COMMAND };

    stw_be_p(&head.command, command);
    stw_be_p(&head.len, len);
    say(fd, &head, sizeof(head));
    say(fd, payload, len);
}

static void say_ping(int fd, uint32_t value)
{
    stl_be_p(&value, value);
    say_command(fd, WIRE_CMD_PING, &value, sizeof(value));
}

static void say_bitmap(int fd)
{
    say_command(fd, WIRE_CMD_RECV_BITMAP, "\006pc.ram", 7);
}

/* It has been closed by whoever accepted it. */
static void assert_closed(int fd)
{
    GPollFD wait = { .fd = fd, .events = G_IO_IN };
    char byte;

    g_assert_cmpint(g_poll(&wait, 1, PATIENCE_US / 1000), ==, 1);
    g_assert_cmpint(recv(fd, &byte, 1, 0), <=, 0);
    close(fd);
}

static void assert_open(int fd)
{
    GPollFD wait = { .fd = fd, .events = G_IO_IN };

    g_assert_cmpint(g_poll(&wait, 1, NOTHING_US / 1000), ==, 0);
}

static bool main_is_there(void)
{
    QEMU_LOCK_GUARD(&taken.lock);
    return taken.main;
}

static bool channels_are_there(void)
{
    QEMU_LOCK_GUARD(&taken.lock);
    return taken.count == 2;
}

static bool silent_is_there(void)
{
    QEMU_LOCK_GUARD(&taken.lock);
    return taken.silent;
}

static bool silent_was_asked(void)
{
    QEMU_LOCK_GUARD(&taken.lock);
    return taken.asked;
}

static void await(bool (*done)(void))
{
    int64_t end = g_get_monotonic_time() + PATIENCE_US;

    while (!done() && g_get_monotonic_time() < end) {
        g_usleep(1000);
    }
    g_assert_true(done());
}

static void begin(void)
{
    taken.main = NULL;
    taken.count = taken.asked = taken.attempt = 0;
    taken.refuse = taken.take_silent = false;
    taken.silent = NULL;
    memset(taken.channels, 0, sizeof(taken.channels));
}

static void end(void)
{
    arrivals_drop();
    stream_close(taken.main);
    for (unsigned i = 0; i < ALL; i++) {
        stream_close(taken.channels[i]);
    }
}

/* The main channel comes last, and all that it says is left to be read. */
static void test_strangers_first(void)
{
    static const struct {
        const char *bytes;
        size_t len;
    } strangers[] = {
        { "GET / HTTP/1.0\r\n\r\n", 18 },
        { "QEVM\0\0\0\3", 8 },
        { "\0", 1 },
        { "\x11\x22\x33\x45", 4 },
        { "\x08\0\1\0\0", 5 },
        { "\x08\0\7\0\0", 5 },
    };
    int silent, slow, fd;

    begin();
    silent = come();
    slow = come();
    say(slow, "\x11\x22", 2);
    for (unsigned i = 0; i < ARRAY_SIZE(strangers); i++) {
        fd = come();
        say(fd, strangers[i].bytes, strangers[i].len);
        assert_closed(fd);
    }
    fd = come();
    say(fd, "\x08\0", 2);
    close(fd);
    g_assert_false(main_is_there());
    fd = come();
    say_bitmap(fd);
    await(main_is_there);
    g_assert_cmpuint(taken.attempt, ==, 0);
    g_assert_cmpint(qemu_get_byte(taken.main), ==, WIRE_COMMAND);
    g_assert_cmpint(qemu_get_be16(taken.main), ==, WIRE_CMD_RECV_BITMAP);
    g_assert_cmpint(qemu_get_be16(taken.main), ==, 7);
    assert_open(silent);
    end();
    assert_closed(silent);
    assert_closed(slow);
    close(fd);
}

/* What the main channel begins with tells the number of the attempt. */
static void main_with(uint32_t value, uint32_t attempt)
{
    int fd;

    begin();
    fd = come();
    say_ping(fd, value);
    await(main_is_there);
    g_assert_cmpuint(taken.attempt, ==, attempt);
    g_assert_cmpint(qemu_get_byte(taken.main), ==, WIRE_COMMAND);
    close(fd);
    end();
}

static void test_attempt(void)
{
    main_with(WIRE_PING_AGAIN | 7, 7);
    main_with(WIRE_PING_AGAIN | 0xffffff, 0xffffff);
    main_with(WIRE_PING_START, 0);
    main_with(WIRE_PING_PACE | 7, 0);
}

/* In any order, and one that stalls keeps nobody's place. */
static void test_channels(void)
{
    int stalled, fds[2], again;

    begin();
    stalled = come();
    say(stalled, "\x11\x22\x33\x44\0\0", 6);
    fds[1] = come();
    fds[0] = come();
    say_init(fds[0], 0);
    say_init(fds[1], 1);
    say(fds[1], "x", 1);
    await(channels_are_there);
    g_assert_cmpint(qemu_get_byte(taken.channels[1]), ==, 'x');
    again = come();
    say_init(again, 1);
    assert_closed(again);
    assert_open(stalled);
    arrivals_close();
    assert_closed(stalled);
    end();
    close(fds[0]);
    close(fds[1]);
}

/* What nobody takes is closed. */
static void test_refused(void)
{
    int fd;

    begin();
    taken.refuse = true;
    fd = come();
    say_bitmap(fd);
    assert_closed(fd);
    fd = come();
    say_init(fd, 0);
    assert_closed(fd);
    end();
}

/* The one for urgent pages says nothing of itself. */
static void test_silent(void)
{
    int fd;

    begin();
    fd = come();
    await(silent_was_asked);
    assert_open(fd);
    WITH_QEMU_LOCK_GUARD(&taken.lock) {
        taken.take_silent = true;
    }
    await(silent_is_there);
    end();
    assert_open(fd);
    say(fd, "x", 1);
    migration_ioc_unregister_yank(taken.silent);
    object_unref(OBJECT(taken.silent));
    assert_closed(fd);
}

/* They are bounded, and those that have been silent for longest make room. */
static void test_too_many(void)
{
    int silent[ALL], fd;

    begin();
    for (unsigned i = 0; i < ALL; i++) {
        silent[i] = come();
    }
    fd = come();
    assert_closed(silent[0]);
    say_bitmap(fd);
    await(main_is_there);
    for (unsigned i = 1; i < ALL; i++) {
        assert_open(silent[i]);
    }
    end();
    for (unsigned i = 1; i < ALL; i++) {
        assert_closed(silent[i]);
    }
    close(fd);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    qemu_mutex_init(&taken.lock);
    yank_register_instance(MIGRATION_YANK_INSTANCE, &error_abort);
    arrivals_init();
    g_test_add_func("/arrivals/strangers-first", test_strangers_first);
    g_test_add_func("/arrivals/attempt", test_attempt);
    g_test_add_func("/arrivals/channels", test_channels);
    g_test_add_func("/arrivals/refused", test_refused);
    g_test_add_func("/arrivals/silent", test_silent);
    g_test_add_func("/arrivals/too-many", test_too_many);
    return g_test_run();
}
