/*
 * Unit tests of device state on the channels of multifd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Threads that save hand pieces to the senders, and what receivers get is
 * compared.  Then sources that lie.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "qemu/sockets.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "qemu/yank.h"
#include "io/channel-socket.h"
#include "setup.h"
#include "migration/base/stats.h"
#include "migration/multifd/receivers.h"
#include "migration/multifd/senders.h"
#include "migration/wire/packet.h"
#include "migration/yank_functions.h"

#define CHANNELS 2
#define DEVICES 3
#define PIECES 200

/* What a piece has: which it is, and then bytes that follow from that */
typedef struct Piece {
    uint32_t device, number, len;
} Piece;

static struct {
    QemuMutex lock;
    bool seen[DEVICES][PIECES];
    unsigned count;
    bool refuse;
    char *failure;              /* what failed() was told first */
} got;

static uint8_t piece_byte(const Piece *p, size_t at)
{
    return p->device * 31 + p->number * 7 + at;
}

static bool take(const char *name, uint32_t instance_id, char *data, size_t len,
                 Error **errp)
{
    Piece p;

    g_assert_cmpstr(name, ==, "0000:00:04.0/vfio");
    if (got.refuse) {
        error_setg(errp, "it does not fit");
        return false;
    }
    g_assert_cmpuint(len, >=, sizeof(p));
    memcpy(&p, data, sizeof(p));
    g_assert_cmpuint(p.len, ==, len);
    g_assert_cmpuint(p.device, ==, instance_id);
    for (size_t i = sizeof(p); i < len; i++) {
        g_assert_cmpuint((uint8_t)data[i], ==, piece_byte(&p, i));
    }
    QEMU_LOCK_GUARD(&got.lock);
    g_assert_false(got.seen[p.device][p.number]);
    got.seen[p.device][p.number] = true;
    got.count++;
    return true;
}

static void failed(const Error *err)
{
    QEMU_LOCK_GUARD(&got.lock);
    if (!got.failure) {
        got.failure = g_strdup(error_get_pretty(err));
    }
}

static QEMUFile *file_on(int fd, bool output)
{
    QIOChannelSocket *ioc = qio_channel_socket_new_fd(fd, &error_abort);
    QEMUFile *f;

    migration_ioc_register_yank(QIO_CHANNEL(ioc));
    f = output ? qemu_file_new_output(QIO_CHANNEL(ioc))
               : qemu_file_new_input(QIO_CHANNEL(ioc));
    object_unref(OBJECT(ioc));
    return f;
}

/* Receivers; returns the other ends of their channels. */
static void receive(int *fds, unsigned channels, bool expected)
{
    ReceiversConfig config = {
        .channels = channels,
        .page_bits = 12,
        .method = MULTIFD_COMPRESSION_NONE,
        .failed = failed,
        .load_device = expected ? take : NULL,
    };

    memset(got.seen, 0, sizeof(got.seen));
    got.count = 0;
    got.refuse = false;
    g_clear_pointer(&got.failure, g_free);
    receivers_begin(&config);
    for (unsigned i = 0; i < channels; i++) {
        int pair[2];
        QEMUFile *f;

        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
        fds[i] = pair[0];
        f = file_on(pair[1], false);
        qemu_file_set_blocking(f, false);
        g_assert_true(receivers_add(f, i, &error_abort));
    }
}

static Senders *send_to(const int *fds)
{
    SendersConfig config = { .page_bits = 12, .tells_zeros = true };
    QEMUFile *files[CHANNELS];

    for (unsigned i = 0; i < CHANNELS; i++) {
        files[i] = file_on(fds[i], true);
    }
    return senders_start(files, CHANNELS, &config, &error_abort);
}

typedef struct Saver {
    Senders *senders;
    unsigned device;
    QemuThread thread;
    bool ok;
} Saver;

static void *save(void *opaque)
{
    g_autofree uint8_t *bytes = g_malloc(300 * KiB);
    Saver *s = opaque;

    s->ok = true;
    for (unsigned i = 0; s->ok && i < PIECES; i++) {
        Piece p = {
            .device = s->device, .number = i,
            .len = sizeof(p) + i * 7919u % (i % 10 ? 5000 : 300000),
        };

        memcpy(bytes, &p, sizeof(p));
        for (size_t at = sizeof(p); at < p.len; at++) {
            bytes[at] = piece_byte(&p, at);
        }
        s->ok = senders_queue_device(s->senders, "0000:00:04.0/vfio",
                                     s->device, bytes, p.len);
    }
    return NULL;
}

static void begin_saving(Saver *savers, Senders *senders)
{
    for (unsigned i = 0; i < DEVICES; i++) {
        savers[i] = (Saver) { .senders = senders, .device = i };
        qemu_thread_create(&savers[i].thread, "save", save, &savers[i],
                           QEMU_THREAD_JOINABLE);
    }
}

/* Several devices at once, with marks in between */
static void test_devices(void)
{
    Saver savers[DEVICES];
    Senders *senders;
    int fds[CHANNELS];

    receive(fds, CHANNELS, true);
    senders = send_to(fds);
    senders_mark(senders);
    g_assert_true(receivers_meet(&error_abort));
    begin_saving(savers, senders);
    for (unsigned i = 0; i < 5; i++) {
        senders_mark(senders);
        g_assert_true(receivers_meet(&error_abort));
    }
    for (unsigned i = 0; i < DEVICES; i++) {
        qemu_thread_join(&savers[i].thread);
        g_assert_true(savers[i].ok);
    }
    g_assert_true(senders_settle_devices(senders));
    /* they are loaded before the next mark */
    senders_mark(senders);
    g_assert_true(receivers_meet(&error_abort));
    g_assert_cmpuint(got.count, ==, DEVICES * PIECES);
    senders_end(senders, true);
    receivers_end();
    g_assert_null(got.failure);
}

static void *shut(void *opaque)
{
    g_usleep(100 * 1000);
    senders_shutdown(opaque);
    return NULL;
}

static void *drop(void *opaque)
{
    g_usleep(100 * 1000);
    senders_drop_devices(opaque);
    return NULL;
}

/* Nobody reads: whoever saves waits for room until that ends. */
static void test_stuck(const void *end)
{
    int fds[CHANNELS], other[CHANNELS];
    Saver savers[DEVICES];
    Senders *senders;
    QemuThread thread;

    for (unsigned i = 0; i < CHANNELS; i++) {
        int pair[2];

        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
        fds[i] = pair[0];
        other[i] = pair[1];
    }
    senders = send_to(fds);
    begin_saving(savers, senders);
    qemu_thread_create(&thread, "end", end ? shut : drop, senders,
                       QEMU_THREAD_JOINABLE);
    for (unsigned i = 0; i < DEVICES; i++) {
        qemu_thread_join(&savers[i].thread);
        g_assert_false(savers[i].ok);
    }
    qemu_thread_join(&thread);
    g_assert_false(senders_settle_devices(senders));
    senders_shutdown(senders);
    senders_end(senders, false);
    for (unsigned i = 0; i < CHANNELS; i++) {
        close(other[i]);
    }
}

/*
 * Lies
 */

typedef struct Lie {
    const char *name;
    const char *said;           /* NULL: all is well */
    bool early, unexpected, refuse;
    uint32_t flags, len;        /* len: 0: as long as it is */
    bool endless;
} Lie;

static const Lie lies[] = {
    { "honest", NULL },
    { "early", "before the list of RAM blocks", .early = true },
    { "unexpected", "none is expected", .unexpected = true },
    { "refused", "it does not fit", .refuse = true },
    { "sync", "other flags", .flags = WIRE_MULTIFD_SYNC },
    { "zlib", "other flags", .flags = WIRE_MULTIFD_ZLIB },
    { "unknown-flag", "unknown flags", .flags = 1u << 31 },
    { "too-long", "are the limit", .len = WIRE_MULTIFD_DEVICE_STATE_MAX + 1 },
    { "huge", "are the limit", .len = UINT32_MAX },
    { "endless-name", "does not end", .endless = true },
};

static void put(int fd, const void *bytes, size_t len)
{
    g_assert_cmpint(write(fd, bytes, len), ==, len);
}

static void add_mark(GByteArray *bytes)
{
    size_t len = sizeof(WireMultifdPages) + packet_pages_max(12) * 8;
    g_autofree uint8_t *mark = g_malloc0(len);
    Packet p = {
        .flags = WIRE_MULTIFD_SYNC, .pages_max = packet_pages_max(12),
    };

    packet_fill((WireMultifdPages *)mark, &p, NULL);
    g_byte_array_append(bytes, mark, len);
}

static void put_mark(int fd)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    add_mark(bytes);
    put(fd, bytes->data, bytes->len);
}

static void test_lie(const void *opaque)
{
    const Lie *lie = opaque;
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    Piece p = { .len = sizeof(p) };
    WireMultifdDeviceState head;
    Error *err = NULL;
    bool ok;
    int fd;

    receive(&fd, 1, !lie->unexpected);
    got.refuse = lie->refuse;
    if (!lie->early) {
        put_mark(fd);
        g_assert_true(receivers_meet(&error_abort));
    }
    packet_fill_device_state(&head, "0000:00:04.0/vfio", 0,
                             lie->len ?: sizeof(p));
    stl_be_p(&head.head.flags, ldl_be_p(&head.head.flags) | lie->flags);
    if (lie->endless) {
        memset(head.name, 'x', sizeof(head.name));
    }
    /* At once: the channel is closed as soon as the head has been read. */
    g_byte_array_append(bytes, (uint8_t *)&head, sizeof(head));
    g_byte_array_append(bytes, (uint8_t *)&p, sizeof(p));
    add_mark(bytes);
    put(fd, bytes->data, bytes->len);
    ok = receivers_meet(&err);
    g_assert_cmpint(ok, ==, !lie->said);
    if (lie->said) {
        g_assert_nonnull(strstr(error_get_pretty(err), lie->said));
        g_assert_cmpuint(got.count, ==, 0);
        error_free(err);
    } else {
        g_assert_cmpuint(got.count, ==, 1);
    }
    close(fd);
    receivers_end();
}

/* What is announced and does not come takes no memory. */
static void test_announced(void)
{
    WireMultifdDeviceState head;
    Error *err = NULL;
    int fd;

    receive(&fd, 1, true);
    put_mark(fd);
    g_assert_true(receivers_meet(&error_abort));
    packet_fill_device_state(&head, "0000:00:04.0/vfio", 0,
                             WIRE_MULTIFD_DEVICE_STATE_MAX);
    put(fd, &head, sizeof(head));
    close(fd);
    g_assert_false(receivers_meet(&err));
    error_free_or_abort(&err);
    receivers_end();
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    qemu_mutex_init(&got.lock);
    yank_register_instance(MIGRATION_YANK_INSTANCE, &error_abort);
    migration_rate_set(RATE_LIMIT_DISABLED);
    g_test_add_func("/multifd/device/devices", test_devices);
    g_test_add_data_func("/multifd/device/stuck-shutdown", argv, test_stuck);
    g_test_add_data_func("/multifd/device/stuck-dropped", NULL, test_stuck);
    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        g_autofree char *path = g_strdup_printf("/multifd/device/lie/%s",
                                                lies[i].name);

        g_test_add_data_func(path, &lies[i], test_lie);
    }
    g_test_add_func("/multifd/device/announced", test_announced);
    return g_test_run();
}
