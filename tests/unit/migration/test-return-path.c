/*
 * The return path on the source, and how peers present themselves
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "io/channel-socket.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qapi/qapi-builtin-types.h"
#include "migration/core/peer.h"
#include "migration/source/return-path.h"
#include "migration/wire/wire.h"
#include "setup.h"

typedef struct Talk {
    QIOChannel *here, *there;
    QEMUFile *to_dst;           /* ours */
    QEMUFile *to_src;           /* what the destination says */
    ReturnPath *rp;
} Talk;

static void talk_with(Talk *t, const ReturnPathUser *user)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    t->here = QIO_CHANNEL(qio_channel_socket_new_fd(fds[0], &error_abort));
    t->there = QIO_CHANNEL(qio_channel_socket_new_fd(fds[1], &error_abort));
    t->to_dst = qemu_file_new_output(t->here);
    t->to_src = qemu_file_new_output(t->there);
    t->rp = return_path_open(t->to_dst, user);
}

static void talk_begin(Talk *t)
{
    talk_with(t, NULL);
}

static void talk_end(Talk *t)
{
    return_path_close(t->rp);
    qemu_fclose(t->to_dst);
    qemu_fclose(t->to_src);
    object_unref(OBJECT(t->here));
    object_unref(OBJECT(t->there));
}

static void say(Talk *t, uint16_t type, uint16_t len)
{
    qemu_put_be16(t->to_src, type);
    qemu_put_be16(t->to_src, len);
}

static void say_number(Talk *t, uint16_t type, uint32_t value)
{
    say(t, type, sizeof(value));
    qemu_put_be32(t->to_src, value);
    g_assert_cmpint(qemu_fflush(t->to_src), ==, 0);
}

static void expect_end(Talk *t, ReturnPathEnd end, const char *text)
{
    Error *err = NULL;

    g_assert_cmpint(return_path_wait_end(t->rp, -1, &err), ==, end);
    g_assert_cmpint(return_path_state(t->rp, NULL), ==, end);
    if (text) {
        g_assert_nonnull(err);
        g_assert_nonnull(strstr(error_get_pretty(err), text));
        error_free(err);
    } else {
        g_assert_null(err);
    }
}

/* What depends on libraries and options: test-peer knows which. */
#define OF_SOME_BUILDS (WIRE_PEER_ANY_METHOD | WIRE_PEER_CHECKPOINT_DISKS)

static void test_introduction(void)
{
    Peer peer = { 0 };

    g_assert_true(peer_recognize(peer_introduction(), &peer));
    g_assert_cmpuint(peer.version, ==, PEER_VERSION);
    g_assert_cmphex(peer.features & ~OF_SOME_BUILDS, ==,
                    WIRE_PEER_ZERO_RANGE | WIRE_PEER_PAGE_RUN |
                    WIRE_PEER_REPORT | WIRE_PEER_STRICT |
                    WIRE_PEER_URGENT_COPY | WIRE_PEER_ERROR |
                    WIRE_PEER_CHANNEL_RECORDS | WIRE_PEER_POSTCOPY_CHANNELS |
                    WIRE_PEER_INVENTORY | WIRE_PEER_CHECKPOINT |
                    WIRE_PEER_CHANNELS_AGAIN);
    g_assert_false(peer_recognize(peer_offer(), &peer));
    g_assert_true(peer_recognize_offer(peer_offer(), &peer));
    g_assert_false(peer_recognize_offer(peer_introduction(), &peer));
}

/* Features of a later version are not ours to use. */
static void test_unknown_features(void)
{
    const uint32_t unknown = WIRE_PEER_FEATURES_MASK & ~peer_introduction();
    Peer peer;
    strList *names;

    g_assert_cmphex(unknown, !=, 0);
    g_assert_true(peer_recognize(WIRE_PEER_MARK | 7 << 16 | unknown |
                                 WIRE_PEER_PAGE_RUN, &peer));
    g_assert_cmpuint(peer.version, ==, 7);
    g_assert_cmphex(peer.features, ==, WIRE_PEER_PAGE_RUN);
    names = peer_feature_names(peer.features);
    g_assert_cmpstr(names->value, ==, "page-run");
    g_assert_null(names->next);
    qapi_free_strList(names);
}

/* What others answer, or could. */
static void test_strangers(void)
{
    const uint32_t values[] = {
        0, 1, WIRE_PEER_HELLO, UINT32_MAX, 0xfd010003, WIRE_PEER_MARK
    };
    Peer peer = { 0 };

    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        g_assert_false(peer_recognize(values[i], &peer) && peer.version);
    }
}

static void test_meet_stranger(void)
{
    Talk t;
    Peer peer = { .version = 9 };

    talk_begin(&t);
    g_assert_false(return_path_answered(t.rp));
    say_number(&t, WIRE_RP_PONG, WIRE_PEER_HELLO);
    say_number(&t, WIRE_RP_PONG, WIRE_PING_START);
    g_assert_true(return_path_meet(t.rp, 5000, &peer));
    g_assert_cmpuint(peer.version, ==, 0);
    g_assert_cmphex(peer.features, ==, 0);
    g_assert_true(return_path_answered(t.rp));
    talk_end(&t);
}

static void test_meet_ferry(void)
{
    Talk t;
    Peer peer;

    talk_begin(&t);
    say_number(&t, WIRE_RP_PONG, WIRE_PEER_HELLO);
    say_number(&t, WIRE_RP_PONG, peer_introduction());
    say_number(&t, WIRE_RP_PONG, WIRE_PING_START);
    g_assert_true(return_path_meet(t.rp, 5000, &peer));
    g_assert_cmpuint(peer.version, ==, PEER_VERSION);
    g_assert_cmphex(peer.features, !=, 0);
    say_number(&t, WIRE_RP_SHUT, 0);
    expect_end(&t, RETURN_PATH_DONE, NULL);
    talk_end(&t);
}

/* The introduction must not come later, when nobody looks any more. */
static void test_meet_nobody(void)
{
    int64_t start = g_get_monotonic_time();
    Peer peer;
    Talk t;

    talk_begin(&t);
    g_assert_false(return_path_meet(t.rp, 30, &peer));
    g_assert_cmpint(g_get_monotonic_time() - start, >=, 29 * 1000);
    talk_end(&t);
}

static void test_ack(void)
{
    Talk t;

    talk_begin(&t);
    g_assert_false(return_path_acked(t.rp, 0));
    say(&t, WIRE_RP_SWITCHOVER_ACK, 0);
    qemu_fflush(t.to_src);
    g_assert_true(return_path_acked(t.rp, 5000));
    g_assert_cmpint(return_path_state(t.rp, NULL), ==, RETURN_PATH_OPEN);
    talk_end(&t);
}

static void test_refused(void)
{
    Talk t;

    talk_begin(&t);
    say_number(&t, WIRE_RP_SHUT, 1);
    expect_end(&t, RETURN_PATH_REFUSED, "destination failed");
    talk_end(&t);
}

static void say_error(Talk *t, const void *text, uint16_t len)
{
    say(t, WIRE_RP_ERROR, len);
    qemu_put_buffer(t->to_src, text, len);
    g_assert_cmpint(qemu_fflush(t->to_src), ==, 0);
}

static void expect_reason(Talk *t, const char *text)
{
    g_autofree char *reason = return_path_reason(t->rp);

    g_assert_cmpstr(reason, ==, text);
}

/* The reason is a part of the error, however the end comes. */
static void test_error(void)
{
    Talk t;

    talk_begin(&t);
    expect_reason(&t, NULL);
    say_error(&t, "no disk 'x'", 11);
    say_number(&t, WIRE_RP_SHUT, 1);
    expect_end(&t, RETURN_PATH_REFUSED, "destination: no disk 'x'");
    expect_reason(&t, "no disk 'x'");
    talk_end(&t);

    talk_begin(&t);
    say_error(&t, "paused", 6);
    qio_channel_shutdown(t.there, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    expect_end(&t, RETURN_PATH_BROKEN, "destination: paused; Return path: ");
    talk_end(&t);
}

/* What comes is one line, whatever it was. */
static void test_error_bytes(void)
{
    static const struct {
        const char *bytes;
        uint16_t len;
        const char *shown;
    } texts[] = {
#define TEXT(bytes_, shown_) { bytes_, sizeof(bytes_) - 1, shown_ }
        TEXT("a\0b\0", "a\\x00b\\x00"),
        TEXT("a\nb\r\tc\033[1m", "a\\x0ab\\x0d\\x09c\\x1b[1m"),
        TEXT("\x7f", "\\x7f"),
        TEXT("\xc2\x80", "\\xc2\\x80"),                   /* a control */
        TEXT("\xe2\x80\xae", "\\xe2\\x80\\xae"),         /* text turns */
        TEXT("gr\xc3\xbc\xc3\x9f \xe2\x82\xac",
             "gr\xc3\xbc\xc3\x9f \xe2\x82\xac"),
        TEXT("\xff\xfe", "\\xff\\xfe"),
        TEXT("cut \xe2\x82", "cut \\xe2\\x82"),
        TEXT("long\xc0\xaf", "long\\xc0\\xaf"),           /* overlong / */
        TEXT("\xed\xa0\x80", "\\xed\\xa0\\x80"),         /* surrogate */
        TEXT("%s%n", "%s%n"),
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        Talk t;

        talk_begin(&t);
        say_error(&t, texts[i].bytes, texts[i].len);
        say_number(&t, WIRE_RP_SHUT, 1);
        expect_end(&t, RETURN_PATH_REFUSED, texts[i].shown);
        expect_reason(&t, texts[i].shown);
        talk_end(&t);
    }
}

static void test_error_longest(void)
{
    g_autofree char *text = g_strnfill(WIRE_RP_ERROR_MAX, 'x');
    Talk t;

    talk_begin(&t);
    say_error(&t, text, WIRE_RP_ERROR_MAX);
    say_number(&t, WIRE_RP_SHUT, 1);
    expect_end(&t, RETURN_PATH_REFUSED, text);
    talk_end(&t);
}

/* After a reason only a failure can come. */
static void test_error_lies(void)
{
    static const struct {
        uint16_t type;
        uint32_t value;
        const char *text;
    } lies[] = {
        { WIRE_RP_PONG, 1, "PONG after ERROR" },
        { WIRE_RP_ERROR, 0x41414141, "ERROR after ERROR" },
        { WIRE_RP_SHUT, 0, "SHUT with success" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        Talk t;

        talk_begin(&t);
        say_error(&t, "no disk", 7);
        say_number(&t, lies[i].type, lies[i].value);
        expect_end(&t, RETURN_PATH_BROKEN, lies[i].text);
        expect_end(&t, RETURN_PATH_BROKEN, "no disk");
        talk_end(&t);
    }
}

/* What comes after the last word is not read. */
static void test_error_late(void)
{
    Talk t;

    talk_begin(&t);
    say_number(&t, WIRE_RP_SHUT, 1);
    expect_end(&t, RETURN_PATH_REFUSED, "no reason");
    say_error(&t, "late", 4);
    expect_end(&t, RETURN_PATH_REFUSED, "no reason");
    expect_reason(&t, NULL);
    talk_end(&t);
}

static void test_broken(void)
{
    Talk t;

    talk_begin(&t);
    say(&t, WIRE_RP_PONG, 4);
    qemu_put_be16(t.to_src, 0);
    qemu_fflush(t.to_src);
    qio_channel_shutdown(t.there, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    expect_end(&t, RETURN_PATH_BROKEN, "Return path");
    talk_end(&t);
}

static void test_hang_up(void)
{
    Talk t;

    talk_begin(&t);
    return_path_hang_up(t.rp);
    expect_end(&t, RETURN_PATH_BROKEN, "Return path");
    talk_end(&t);
}

static void test_lies(void)
{
    static const struct {
        uint16_t type, len;
        const char *text;
    } lies[] = {
        { 0, 0, "Unexpected message 0x0000" },
        { WIRE_RP_REQ_PAGES, 12, "Unexpected message" },
        { WIRE_RP_RECV_BITMAP, 1, "Unexpected message" },
        { WIRE_RP_RESUME_ACK, 4, "Unexpected message" },
        { 8, 0, "Unexpected message" },
        { 0xffff, 0xffff, "Unexpected message 0xffff" },
        { WIRE_RP_SHUT, 0, "SHUT" },
        { WIRE_RP_PONG, 5, "PONG" },
        { WIRE_RP_PONG, 0xffff, "PONG" },
        { WIRE_RP_SWITCHOVER_ACK, 1, "SWITCHOVER_ACK" },
        { WIRE_RP_ERROR, 0, "ERROR" },
        { WIRE_RP_ERROR, WIRE_RP_ERROR_MAX + 1, "ERROR" },
        { WIRE_RP_ERROR, 0xffff, "ERROR" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        Talk t;

        talk_begin(&t);
        say(&t, lies[i].type, lies[i].len);
        qemu_fflush(t.to_src);
        expect_end(&t, RETURN_PATH_BROKEN, lies[i].text);
        talk_end(&t);
    }
}

/*
 * Postcopy: what others act on
 */

typedef struct Acts {
    GString *log;               /* by the thread, until it has ended */
    bool fail;
    unsigned changes;           /* atomic */
} Acts;

static bool act_asked(void *opaque, const char *name, uint64_t start,
                      uint32_t len, Error **errp)
{
    Acts *acts = opaque;

    g_string_append_printf(acts->log, "%s %" PRIx64 "+%x;", name ?: "same",
                           start, len);
    if (acts->fail) {
        error_setg(errp, "no such page");
    }
    return !acts->fail;
}

/* What follows the message is the user's to read. */
static bool act_received(void *opaque, const char *name, QEMUFile *f,
                         Error **errp)
{
    Acts *acts = opaque;

    g_string_append_printf(acts->log, "%s has %x;", name, qemu_get_be32(f));
    return true;
}

static void act_pong(void *opaque, uint32_t value)
{
    g_string_append_printf(((Acts *)opaque)->log, "pong %x;", value);
}

static void act_changed(void *opaque)
{
    qatomic_inc(&((Acts *)opaque)->changes);
}

static void acts_begin(Talk *t, Acts *acts, ReturnPathUser *user)
{
    *acts = (Acts) { .log = g_string_new(NULL) };
    *user = (ReturnPathUser) {
        .asked = act_asked, .received = act_received, .pong = act_pong,
        .changed = act_changed, .opaque = acts,
    };
    talk_with(t, user);
}

static void acts_end(Talk *t, Acts *acts)
{
    talk_end(t);
    g_string_free(acts->log, true);
}

static void say_request(Talk *t, const char *name, uint64_t start, uint32_t len)
{
    say(t, name ? WIRE_RP_REQ_PAGES_ID : WIRE_RP_REQ_PAGES,
        12 + (name ? 1 + strlen(name) : 0));
    qemu_put_be64(t->to_src, start);
    qemu_put_be32(t->to_src, len);
    if (name) {
        qemu_put_counted_string(t->to_src, name);
    }
}

static void test_postcopy(void)
{
    ReturnPathUser user;
    Acts acts;
    Talk t;

    acts_begin(&t, &acts, &user);
    say_request(&t, "pc.ram", 0x123000, 0x1000);
    say_request(&t, NULL, 0xffffffffffff0000, 0x2000);
    say(&t, WIRE_RP_RECV_BITMAP, 7);
    qemu_put_counted_string(t.to_src, "pc.ram");
    qemu_put_be32(t.to_src, 0xabcd);
    say_number(&t, WIRE_RP_PONG, 0x51234567);
    g_assert_false(return_path_loaded(t.rp));
    say_number(&t, WIRE_RP_PONG, WIRE_PING_DEVICES_LOADED);
    say_number(&t, WIRE_RP_RESUME_ACK, WIRE_RESUME_ACK_OK);
    g_assert_true(return_path_resumed(t.rp, 5000));
    g_assert_true(return_path_loaded(t.rp));
    g_assert_true(return_path_answered(t.rp));
    say_number(&t, WIRE_RP_SHUT, 0);
    expect_end(&t, RETURN_PATH_DONE, NULL);
    g_assert_cmpstr(acts.log->str, ==,
                    "pc.ram 123000+1000;same ffffffffffff0000+2000;"
                    "pc.ram has abcd;pong 51234567;");
    acts_end(&t, &acts);
}

/* Who does not like what was asked for ends the conversation. */
static void test_postcopy_refuses(void)
{
    ReturnPathUser user;
    Acts acts;
    Talk t;

    acts_begin(&t, &acts, &user);
    acts.fail = true;
    say_request(&t, "pc.ram", 0, 0x1000);
    qemu_fflush(t.to_src);
    expect_end(&t, RETURN_PATH_BROKEN, "no such page");
    while (!qatomic_read(&acts.changes)) {
        g_usleep(1000);
    }
    acts_end(&t, &acts);
}

static void test_postcopy_lies(void)
{
    static const struct {
        uint16_t type, len;
        uint8_t name_len;       /* where there is a name */
        const char *text;
    } lies[] = {
        { WIRE_RP_REQ_PAGES, 11, 0, "REQ_PAGES" },
        { WIRE_RP_REQ_PAGES, 13, 0, "REQ_PAGES" },
        { WIRE_RP_REQ_PAGES_ID, 13, 0, "REQ_PAGES_ID" },
        { WIRE_RP_REQ_PAGES_ID, 14, 2, "a name of 2" },
        { WIRE_RP_REQ_PAGES_ID, 20, 0, "a name of 0" },
        { WIRE_RP_REQ_PAGES_ID, 20, 255, "a name of 255" },
        { WIRE_RP_REQ_PAGES_ID, 269, 255, "REQ_PAGES_ID" },
        { WIRE_RP_RECV_BITMAP, 1, 0, "RECV_BITMAP" },
        { WIRE_RP_RECV_BITMAP, 9, 7, "a name of 7" },
        { WIRE_RP_RECV_BITMAP, 257, 255, "RECV_BITMAP" },
        { WIRE_RP_RESUME_ACK, 3, 0, "RESUME_ACK" },
        { WIRE_RP_RESUME_ACK, 4, 0, "refuses to resume postcopy" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        uint8_t payload[512] = { 0 };
        ReturnPathUser user;
        Acts acts;
        Talk t;

        acts_begin(&t, &acts, &user);
        payload[lies[i].type == WIRE_RP_REQ_PAGES_ID ? 12 : 0] =
            lies[i].name_len;
        say(&t, lies[i].type, lies[i].len);
        qemu_put_buffer(t.to_src, payload, lies[i].len);
        qemu_fflush(t.to_src);
        expect_end(&t, RETURN_PATH_BROKEN, lies[i].text);
        g_assert_cmpstr(acts.log->str, ==, "");
        acts_end(&t, &acts);
    }
}

/*
 * What the destination's memory lacks
 */

static void say_changed(Talk *t, const char *block, uint64_t start,
                        uint64_t len)
{
    say(t, WIRE_RP_CHANGED, sizeof(WireChanged) + 1 + strlen(block));
    qemu_put_be64(t->to_src, start);
    qemu_put_be64(t->to_src, len);
    qemu_put_counted_string(t->to_src, block);
    g_assert_cmpint(qemu_fflush(t->to_src), ==, 0);
}

static void test_changed(void)
{
    GArray *changes;
    ReturnPathChange *c;
    Talk t;

    talk_begin(&t);
    g_assert_false(return_path_aborted(t.rp, 1, 0, &changes));
    g_assert_false(return_path_changed(t.rp));
    say_changed(&t, "pc.ram", 0x1000, 0x3000);
    say_changed(&t, "vga.vram", 0, 1ull << 40);
    say_number(&t, WIRE_RP_ABORTED, 1);
    g_assert_true(return_path_aborted(t.rp, 1, 5000, &changes));
    g_assert_cmpuint(changes->len, ==, 2);
    c = &g_array_index(changes, ReturnPathChange, 0);
    g_assert_cmpstr(c[0].block, ==, "pc.ram");
    g_assert_cmphex(c[0].start, ==, 0x1000);
    g_assert_cmphex(c[0].len, ==, 0x3000);
    g_assert_cmpstr(c[1].block, ==, "vga.vram");
    g_assert_cmphex(c[1].len, ==, 1ull << 40);
    g_array_free(changes, true);

    /* Each is taken once; an answer to another attempt is none to this one. */
    g_assert_false(return_path_changed(t.rp));
    g_assert_false(return_path_aborted(t.rp, 2, 20, &changes));
    say_changed(&t, "pc.ram", 0, 0x1000);
    say_number(&t, WIRE_RP_ABORTED, 2);
    g_assert_true(return_path_aborted(t.rp, 2, 5000, &changes));
    g_assert_cmpuint(changes->len, ==, 1);
    g_array_free(changes, true);
    talk_end(&t);
}

static void test_changed_too_often(void)
{
    Talk t;

    talk_begin(&t);
    for (unsigned i = 0; i <= WIRE_CHANGED_MAX; i++) {
        say(&t, WIRE_RP_CHANGED, sizeof(WireChanged) + 1 + 1);
        qemu_put_be64(t.to_src, 0);
        qemu_put_be64(t.to_src, 0x1000);
        qemu_put_counted_string(t.to_src, "a");
    }
    qemu_fflush(t.to_src);
    expect_end(&t, RETURN_PATH_BROKEN, "changed ranges");
    talk_end(&t);
}

static void test_changed_lies(void)
{
    static const struct {
        uint16_t len;
        uint8_t name_len;
    } lies[] = {
        { 17, 0 }, { 18, 0 }, { 18, 2 }, { 20, 2 }, { 16, 0 }, { 300, 255 },
    };
    uint8_t payload[WIRE_RP_PAYLOAD_MAX] = { 0 };

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        Talk t;

        talk_begin(&t);
        payload[sizeof(WireChanged)] = lies[i].name_len;
        say(&t, WIRE_RP_CHANGED, lies[i].len);
        qemu_put_buffer(t.to_src, payload, lies[i].len);
        qemu_fflush(t.to_src);
        expect_end(&t, RETURN_PATH_BROKEN, "from the destination");
        talk_end(&t);
    }
}

/*
 * Checkpoints
 */

static void say_epoch(Talk *t, uint64_t number)
{
    say(t, WIRE_RP_CHECKPOINT_ACK, WIRE_RP_CHECKPOINT_ACK_LEN);
    qemu_put_be64(t->to_src, number);
    g_assert_cmpint(qemu_fflush(t->to_src), ==, 0);
}

static void test_epochs(void)
{
    Talk t;

    talk_begin(&t);
    for (uint64_t number = 1; number < 4; number++) {
        return_path_expect_epoch(t.rp, number);
        g_assert_false(return_path_epoch_acked(t.rp, 0));
        say_epoch(&t, number);
        g_assert_true(return_path_epoch_acked(t.rp, 10000));
    }
    say_number(&t, WIRE_RP_SHUT, WIRE_SHUT_OK);
    expect_end(&t, RETURN_PATH_DONE, NULL);
    talk_end(&t);
}

/* Output must not be released for what was not sent, or twice. */
static void test_epoch_lies(void)
{
    static const struct {
        uint64_t expected, said[2];
        const char *text;
    } lies[] = {
        { 0, { 1 }, "acknowledged epoch 1, and epoch 0 is the last" },
        { 3, { 2 }, "acknowledged epoch 2, and epoch 3 is the last" },
        { 3, { 4 }, "acknowledged epoch 4" },
        { 3, { UINT64_MAX }, "acknowledged epoch 18446744073709551615" },
        { 3, { 3, 3 }, "sent and acknowledged" },
        { 3, { 3, 4 }, "acknowledged epoch 4" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        Talk t;

        talk_begin(&t);
        if (lies[i].expected) {
            return_path_expect_epoch(t.rp, lies[i].expected);
        }
        say_epoch(&t, lies[i].said[0]);
        if (lies[i].said[1]) {
            say_epoch(&t, lies[i].said[1]);
        }
        expect_end(&t, RETURN_PATH_BROKEN, lies[i].text);
        talk_end(&t);
    }
}

/*
 * Inventories
 */

static GByteArray *inventory_bytes(unsigned items)
{
    g_autoptr(Inventory) inventory = inventory_new();

    for (unsigned i = 0; i < items; i++) {
        inventory_add(inventory, WIRE_INVENTORY_NODE, "node", NULL);
    }
    return inventory_encode(inventory);
}

/* In messages of at most @step bytes */
static void say_inventory(Talk *t, const GByteArray *bytes, unsigned step)
{
    for (unsigned at = 0; at < bytes->len; at += step) {
        unsigned len = MIN(step, bytes->len - at);

        say(t, WIRE_RP_INVENTORY, len);
        qemu_put_buffer(t->to_src, bytes->data + at, len);
    }
    g_assert_cmpint(qemu_fflush(t->to_src), ==, 0);
}

static void test_inventory(void)
{
    static const unsigned steps[] = { WIRE_RP_INVENTORY_MAX, 100, 1 };

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        g_autoptr(GByteArray) bytes = inventory_bytes(50);
        Inventory *got = NULL;
        size_t size;
        Talk t;

        talk_begin(&t);
        return_path_expect_inventory(t.rp);
        g_assert_false(return_path_inventory(t.rp, 0, &size, &got, NULL));
        g_assert_null(got);
        say_inventory(&t, bytes, steps[i]);
        g_assert_true(return_path_inventory(t.rp, 10000, &size, &got,
                                            &error_abort));
        g_assert_cmpuint(size, ==, bytes->len);
        g_assert_cmpuint(got->items->len, ==, 50);
        inventory_free(got);
        say_number(&t, WIRE_RP_SHUT, WIRE_SHUT_OK);
        expect_end(&t, RETURN_PATH_DONE, NULL);
        talk_end(&t);
    }
}

static void test_inventory_unasked(void)
{
    g_autoptr(GByteArray) bytes = inventory_bytes(1);
    Talk t;

    talk_begin(&t);
    say_inventory(&t, bytes, WIRE_RP_INVENTORY_MAX);
    expect_end(&t, RETURN_PATH_BROKEN, "not requested");
    talk_end(&t);
}

static void test_inventory_twice(void)
{
    g_autoptr(GByteArray) bytes = inventory_bytes(1);
    Talk t;

    talk_begin(&t);
    return_path_expect_inventory(t.rp);
    say_inventory(&t, bytes, WIRE_RP_INVENTORY_MAX);
    say_inventory(&t, bytes, WIRE_RP_INVENTORY_MAX);
    expect_end(&t, RETURN_PATH_BROKEN, "not requested");
    talk_end(&t);
}

/* It breaks off at once: nothing is kept of what is too long. */
static void test_inventory_lengths(void)
{
    static const uint32_t wrong[] = { 0, 11, 13, WIRE_INVENTORY_MAX + 1,
                                      1 << 30, UINT32_MAX };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        g_autoptr(GByteArray) bytes = inventory_bytes(1);
        Talk t;

        talk_begin(&t);
        return_path_expect_inventory(t.rp);
        stl_be_p(bytes->data, wrong[i]);
        say_inventory(&t, bytes, WIRE_RP_INVENTORY_MAX);
        expect_end(&t, RETURN_PATH_BROKEN, "inventory");
        talk_end(&t);
    }
}

static void test_inventory_damaged(void)
{
    g_autoptr(GByteArray) bytes = inventory_bytes(2);
    Inventory *got = NULL;
    Error *err = NULL;
    size_t size;
    Talk t;

    talk_begin(&t);
    return_path_expect_inventory(t.rp);
    stl_be_p(bytes->data + offsetof(WireInventory, items), 3);
    say_inventory(&t, bytes, WIRE_RP_INVENTORY_MAX);
    g_assert_true(return_path_inventory(t.rp, 10000, &size, &got, &err));
    g_assert_null(got);
    g_assert_nonnull(strstr(error_get_pretty(err), "damaged"));
    error_free(err);
    talk_end(&t);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/peer/introduction", test_introduction);
    g_test_add_func("/peer/unknown-features", test_unknown_features);
    g_test_add_func("/peer/strangers", test_strangers);
    g_test_add_func("/return-path/meet-stranger", test_meet_stranger);
    g_test_add_func("/return-path/meet-ferry", test_meet_ferry);
    g_test_add_func("/return-path/meet-nobody", test_meet_nobody);
    g_test_add_func("/return-path/ack", test_ack);
    g_test_add_func("/return-path/refused", test_refused);
    g_test_add_func("/return-path/error", test_error);
    g_test_add_func("/return-path/error-bytes", test_error_bytes);
    g_test_add_func("/return-path/error-longest", test_error_longest);
    g_test_add_func("/return-path/error-lies", test_error_lies);
    g_test_add_func("/return-path/error-late", test_error_late);
    g_test_add_func("/return-path/broken", test_broken);
    g_test_add_func("/return-path/hang-up", test_hang_up);
    g_test_add_func("/return-path/lies", test_lies);
    g_test_add_func("/return-path/changed", test_changed);
    g_test_add_func("/return-path/changed-too-often", test_changed_too_often);
    g_test_add_func("/return-path/changed-lies", test_changed_lies);
    g_test_add_func("/return-path/epochs", test_epochs);
    g_test_add_func("/return-path/epochs/lies", test_epoch_lies);
    g_test_add_func("/return-path/inventory", test_inventory);
    g_test_add_func("/return-path/inventory-unasked", test_inventory_unasked);
    g_test_add_func("/return-path/inventory-twice", test_inventory_twice);
    g_test_add_func("/return-path/inventory-lengths", test_inventory_lengths);
    g_test_add_func("/return-path/inventory-damaged", test_inventory_damaged);
    g_test_add_func("/return-path/postcopy", test_postcopy);
    g_test_add_func("/return-path/postcopy-refuses", test_postcopy_refuses);
    g_test_add_func("/return-path/postcopy-lies", test_postcopy_lies);
    return g_test_run();
}
