/*
 * What the destination says on the return path
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/sockets.h"
#include "io/channel-socket.h"
#include "migration/core/peer.h"
#include "migration/destination/return-path.h"
#include "migration/core/downtime-report.h"
#include "migration/wire/wire.h"
#include "setup.h"

#define HEADER 4
#define NUMBER 4
#define MESSAGE (HEADER + NUMBER)

/* The destination's stream, and the socket of the source */
typedef struct Talk {
    QEMUFile *from_src;
    int source;
} Talk;

static void talk_begin(Talk *t)
{
    QIOChannelSocket *ioc;
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    ioc = qio_channel_socket_new_fd(fds[0], &error_abort);
    t->from_src = qemu_file_new_input(QIO_CHANNEL(ioc));
    object_unref(OBJECT(ioc));
    qemu_file_set_blocking(t->from_src, false);
    t->source = fds[1];
    g_assert_false(reply_is_open());
    g_assert(reply_open(t->from_src));
    g_assert(reply_is_open());
}

static void talk_end(Talk *t)
{
    g_assert_false(reply_is_open());
    qemu_fclose(t->from_src);
    close(t->source);
}

static void hear(Talk *t, uint16_t type, const void *payload, uint16_t len)
{
    uint8_t said[HEADER + WIRE_RP_PAYLOAD_MAX];

    g_assert_cmpint(HEADER + len, <=, sizeof(said));
    g_assert_cmpint(recv(t->source, said, HEADER + len, MSG_WAITALL), ==,
                    HEADER + len);
    g_assert_cmpuint(lduw_be_p(said), ==, type);
    g_assert_cmpuint(lduw_be_p(said + 2), ==, len);
    g_assert_cmpmem(said + HEADER, len, payload, len);
}

static void hear_number(Talk *t, uint16_t type, uint32_t value)
{
    uint8_t payload[NUMBER];

    stl_be_p(payload, value);
    hear(t, type, payload, sizeof(payload));
}

static void hear_end(Talk *t)
{
    uint8_t more;

    g_assert_cmpint(recv(t->source, &more, 1, 0), ==, 0);
}

static void test_words(void)
{
    Talk t;

    talk_begin(&t);
    g_assert(reply_pong(1234567));
    hear_number(&t, WIRE_RP_PONG, 1234567);
    /* Who is greeted introduces itself as well. */
    g_assert(reply_pong(WIRE_PEER_HELLO));
    hear_number(&t, WIRE_RP_PONG, WIRE_PEER_HELLO);
    hear_number(&t, WIRE_RP_PONG, peer_introduction());
    g_assert(reply_switchover_ack());
    hear(&t, WIRE_RP_SWITCHOVER_ACK, NULL, 0);
    reply_close(true, NULL);
    hear_number(&t, WIRE_RP_SHUT, 0);
    hear_end(&t);
    talk_end(&t);
}

/* What an attempt that was given up has left */
static void test_aborted(void)
{
    uint8_t payload[sizeof(WireChanged) + 1 + 6];
    Talk t;

    stq_be_p(payload, 0x5000);
    stq_be_p(payload + 8, 0x2000);
    memcpy(payload + sizeof(WireChanged), "\6pc.ram", 1 + 6);
    talk_begin(&t);
    g_assert(reply_changed("pc.ram", 0x5000, 0x2000));
    hear(&t, WIRE_RP_CHANGED, payload, sizeof(payload));
    g_assert(reply_aborted(3));
    hear_number(&t, WIRE_RP_ABORTED, 3);
    reply_close(true, NULL);
    g_assert_false(reply_aborted(4));
    hear_number(&t, WIRE_RP_SHUT, 0);
    hear_end(&t);
    talk_end(&t);
}

/* The last word may be said ahead of the end, and is said once. */
static void test_epochs(void)
{
    uint8_t number[WIRE_RP_CHECKPOINT_ACK_LEN];
    Talk t;

    g_assert_false(reply_checkpoint_ack(1));
    talk_begin(&t);
    stq_be_p(number, 0x0102030405060708);
    g_assert(reply_checkpoint_ack(0x0102030405060708));
    hear(&t, WIRE_RP_CHECKPOINT_ACK, number, sizeof(number));
    g_assert(reply_accept());
    hear_number(&t, WIRE_RP_SHUT, 0);
    g_assert_false(reply_accept());
    g_assert_false(reply_refuse("too late"));
    g_assert_false(reply_checkpoint_ack(2));
    reply_close(false, "too late");
    hear_end(&t);
    talk_end(&t);
}

/* A source that reads nothing is not waited for. */
static void test_epochs_unread(void)
{
    Talk t;

    talk_begin(&t);
    while (reply_checkpoint_ack(1)) {
        /* until there is no room */
    }
    g_assert_false(reply_accept());
    reply_close(true, NULL);
    talk_end(&t);
}

static void test_failure(void)
{
    Talk t;

    talk_begin(&t);
    reply_close(false, NULL);
    hear_number(&t, WIRE_RP_SHUT, 1);
    hear_end(&t);
    talk_end(&t);
}

/* A report goes to those who said that they understand it. */
static void test_report(void)
{
    DowntimeReport report = { .load_ns = 5 * SCALE_MS };
    uint8_t payload[WIRE_RP_REPORT_MAX];
    size_t len = downtime_report_encode(&report, payload);
    Talk t;

    talk_begin(&t);
    g_assert_false(reply_report(WIRE_RP_STARTED, &report));
    g_assert(reply_pong(peer_offer()));
    hear_number(&t, WIRE_RP_PONG, peer_offer());
    g_assert(reply_report(WIRE_RP_STARTED, &report));
    hear(&t, WIRE_RP_STARTED, payload, len);
    reply_close(true, NULL);
    hear_number(&t, WIRE_RP_SHUT, 0);
    hear_end(&t);
    talk_end(&t);
}

static void introduce(Talk *t, uint32_t offer)
{
    g_assert(reply_pong(offer));
    hear_number(t, WIRE_RP_PONG, offer);
}

static void hear_error(Talk *t, const char *text)
{
    hear(t, WIRE_RP_ERROR, text, strlen(text));
}

/* The reason comes once, and nothing after it. */
static void test_error(void)
{
    DowntimeReport report = {};
    Talk t;

    talk_begin(&t);
    introduce(&t, peer_offer());
    g_assert_true(reply_error("no disk"));
    hear_error(&t, "no disk");
    g_assert_false(reply_error("another reason"));
    g_assert_false(reply_pong(1));
    g_assert_false(reply_switchover_ack());
    g_assert_false(reply_report(WIRE_RP_STARTED, &report));
    g_assert_false(reply_request_pages("pc.ram", 0, 4096));
    reply_close(false, "a third");
    hear_end(&t);
    talk_end(&t);
}

/* With the last word, if that is about a failure. */
static void test_error_at_end(void)
{
    Talk t;

    for (unsigned i = 0; i < 4; i++) {
        bool failed = i & 1, early = i & 2;

        talk_begin(&t);
        introduce(&t, peer_offer());
        if (early) {
            reply_refuse("first");
            hear_error(&t, "first");
            hear_number(&t, WIRE_RP_SHUT, 1);
        }
        reply_close(!failed, "second");
        if (!early && failed) {
            hear_error(&t, "second");
        }
        if (!early) {
            hear_number(&t, WIRE_RP_SHUT, failed);
        }
        hear_end(&t);
        talk_end(&t);
    }
}

/* Sources that do not know the message must not get it. */
static void test_error_unknown(void)
{
    const uint32_t offers[] = {
        1, WIRE_PEER_OFFER | 1 << WIRE_PEER_VERSION_SHIFT |
           (WIRE_PEER_FEATURES_MASK & ~WIRE_PEER_ERROR)
    };
    Talk t;

    for (size_t i = 0; i < ARRAY_SIZE(offers); i++) {
        talk_begin(&t);
        introduce(&t, offers[i]);
        g_assert_false(reply_error("no disk"));
        g_assert(reply_pong(2));
        hear_number(&t, WIRE_RP_PONG, 2);
        reply_close(false, "no disk");
        hear_number(&t, WIRE_RP_SHUT, 1);
        hear_end(&t);
        talk_end(&t);
    }
}

/* What does not fit is cut between two characters. */
static void test_error_long(void)
{
    g_autofree char *text = g_strnfill(WIRE_RP_ERROR_MAX + 1, 'x');
    g_autofree char *cut = g_strdup(text);
    Talk t;

    strcpy(cut + WIRE_RP_ERROR_MAX - 3, "...");
    talk_begin(&t);
    introduce(&t, peer_offer());
    reply_close(false, text);
    hear_error(&t, cut);
    hear_number(&t, WIRE_RP_SHUT, 1);
    hear_end(&t);
    talk_end(&t);

    /* the last of its bytes would be the first of three that are dropped */
    memcpy(text + WIRE_RP_ERROR_MAX - 4, "\xe2\x82\xac", 3);
    cut[WIRE_RP_ERROR_MAX - 1] = 0;
    strcpy(cut + WIRE_RP_ERROR_MAX - 4, "...");
    talk_begin(&t);
    introduce(&t, peer_offer());
    reply_close(false, text);
    hear_error(&t, cut);
    hear_number(&t, WIRE_RP_SHUT, 1);
    hear_end(&t);
    talk_end(&t);
}

static void test_error_empty(void)
{
    Talk t;

    talk_begin(&t);
    introduce(&t, peer_offer());
    g_assert_false(reply_error(""));
    reply_close(false, "");
    hear_number(&t, WIRE_RP_SHUT, 1);
    hear_end(&t);
    talk_end(&t);
}

/* There is one path, and it can be opened again. */
static void test_open(void)
{
    Talk t;

    for (unsigned i = 0; i < 2; i++) {
        talk_begin(&t);
        g_assert_false(reply_open(t.from_src));
        reply_close(true, NULL);
        g_assert_false(reply_pong(1));
        g_assert_false(reply_switchover_ack());
        reply_close(true, NULL);
        hear_number(&t, WIRE_RP_SHUT, 0);
        hear_end(&t);
        talk_end(&t);
    }
}

/* Pongs until there is no room for another. */
static unsigned fill_up(int fd)
{
    uint8_t pong[MESSAGE] = {};
    unsigned count = 0;

    stw_be_p(pong, WIRE_RP_PONG);
    stw_be_p(pong + 2, NUMBER);
    while (send(fd, pong, sizeof(pong), MSG_DONTWAIT) == sizeof(pong)) {
        count++;
    }
    g_assert_cmpint(errno, ==, EAGAIN);
    return count;
}

/* A source that does not read is not waited for, neither well nor failed. */
static void test_does_not_read(void)
{
    Talk t;

    for (unsigned ok = 0; ok < 2; ok++) {
        QIOChannelSocket *ioc;
        unsigned unread;

        talk_begin(&t);
        ioc = QIO_CHANNEL_SOCKET(qemu_file_get_ioc(t.from_src));
        g_assert(reply_pong(peer_offer()));
        hear_number(&t, WIRE_RP_PONG, peer_offer());
        unread = fill_up(ioc->fd);
        g_assert_cmpuint(unread, >, 0);
        if (ok) {
            /* Even if somebody had the channel wait. */
            qemu_file_set_blocking(t.from_src, true);
        }
        if (ok) {
            g_assert_false(reply_report(WIRE_RP_STARTED, &(DowntimeReport) {}));
        }
        reply_close(ok, NULL);
        while (unread--) {
            hear_number(&t, WIRE_RP_PONG, 0);
        }
        hear_end(&t);
        talk_end(&t);
    }
}

/* A source that has gone is no reason to fail. */
static void test_gone(void)
{
    Talk t;

    talk_begin(&t);
    close(t.source);
    g_assert_false(reply_pong(1));
    g_assert_false(reply_switchover_ack());
    reply_close(true, NULL);
    t.source = -1;
    talk_end(&t);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    reply_init();
    g_test_add_func("/reply/words", test_words);
    g_test_add_func("/reply/aborted", test_aborted);
    g_test_add_func("/reply/epochs", test_epochs);
    g_test_add_func("/reply/epochs/unread", test_epochs_unread);
    g_test_add_func("/reply/failure", test_failure);
    g_test_add_func("/reply/report", test_report);
    g_test_add_func("/reply/error", test_error);
    g_test_add_func("/reply/error-at-end", test_error_at_end);
    g_test_add_func("/reply/error-unknown", test_error_unknown);
    g_test_add_func("/reply/error-long", test_error_long);
    g_test_add_func("/reply/error-empty", test_error_empty);
    g_test_add_func("/reply/open", test_open);
    g_test_add_func("/reply/does-not-read", test_does_not_read);
    g_test_add_func("/reply/gone", test_gone);
    return g_test_run();
}
