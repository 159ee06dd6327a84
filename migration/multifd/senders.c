/*
 * Threads that send memory, each on a channel of its own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/rcu.h"
#include "io/channel-tls.h"
#include "migration/base/clock.h"
#include "migration/base/stats.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/wire/stream.h"
#include "migration/wire/packet.h"
#include "device-queue.h"
#include "senders.h"

/* The time that the ratio of a channel is about, at least */
#define RATIO_NS (NANOSECONDS_PER_SECOND / 2)
/* How often the migration thread looks at rate and clock in a turn */
#define PACE_MS 1
/* Where nothing is paced: they rest, or are cut off by somebody */
#define LONG_MS 1000

typedef struct ChannelSender {
    Senders *all;
    QEMUFile *file;
    PacketSink packets;
    RamStreamSink records;      /* of peers that understand them, for a time */
    RamMappedSink places;       /* of a file, in its place */
    RamSender ram;              /* its sink is one of these */
    QemuThread thread;
    QemuSemaphore go;           /* a mark, a turn, or to quit */
    unsigned marks;             /* to be made before another turn; atomic */
    unsigned pieces;            /* of device state to be written; atomic */
    SenderView view;            /* written by the thread; atomic */
    SenderView earlier;         /* what view was when ratio was counted last */
    int64_t earlier_ns;
} ChannelSender;

struct Senders {
    ChannelSender *list;
    unsigned count;
    unsigned awaited;           /* that are to rest again */
    unsigned rested;            /* that do, of these; atomic */
    QemuSemaphore rests;        /* one of them does, or senders_nudge() */
    DeviceQueue devices;
    unsigned next;              /* channel that writes of them; atomic */
    SenderTurn *turn;           /* what a turn is; NULL: ram_sender_run() */
    void *turn_opaque;
    bool drain;                 /* of a turn: until nothing is left */
    RamPace pace;               /* of a turn */
    bool quit;                  /* there is nothing more to do; atomic */
};

static bool has_records(const ChannelSender *c)
{
    return c->ram.sink == &c->records.sink;
}

static void sender_mark(ChannelSender *c)
{
    if (has_records(c)) {
        ram_stream_sink_mark(&c->records);
    } else {
        ram_sink_end_pass(&c->packets.sink);
    }
}

/* Packets again; while nothing is gathered. */
static void end_records(ChannelSender *c)
{
    if (has_records(c)) {
        ram_sink_end(&c->records.sink);
        c->ram.sink = &c->packets.sink;
    }
}

/* If there is an error nothing is written. */
static void write_device(ChannelSender *c, const DevicePiece *piece)
{
    WireMultifdDeviceState head;

    end_records(c);
    packet_fill_device_state(&head, piece->name, piece->instance_id,
                             piece->len);
    qemu_put_buffer(c->file, (uint8_t *)&head, sizeof(head));
    qemu_put_buffer(c->file, piece->data, piece->len);
    qemu_fflush(c->file);
}

/* Marks come before the turn that was begun after them. */
static void sender_act(ChannelSender *c)
{
    if (qatomic_read(&c->marks)) {
        qatomic_dec(&c->marks);
        sender_mark(c);
        stream_await_in_place(c->file);
        return;
    }
    if (c->all->turn) {
        c->all->turn(c->all->turn_opaque, c - c->all->list, &c->ram);
        return;
    }
    RCU_READ_LOCK_GUARD();
    ram_sender_run(&c->ram, c->all->drain);
    ram_sink_flush(c->ram.sink);
}

/* Of what was sent since it was counted last */
static void show_ratio(ChannelSender *c, int64_t now)
{
    SenderView *v = &c->view;
    uint64_t bytes = v->bytes - c->earlier.bytes;

    if (bytes && now - c->earlier_ns >= RATIO_NS) {
        qatomic_set(&v->ratio, (v->memory - c->earlier.memory) * 100 / bytes);
        c->earlier = *v;
        c->earlier_ns = now;
    }
}

static void show(ChannelSender *c, int64_t began)
{
    SenderView *v = &c->view;
    int64_t now = now_ns();

    qatomic_set_u64(&v->bytes, ram_sink_position(c->ram.sink));
    qatomic_set_u64(&v->memory, c->packets.memory + c->records.memory +
                                c->places.written);
    qatomic_set_u64(&v->busy_ns, v->busy_ns + (now - began));
    qatomic_set(&v->method, c->packets.encoder.last_method);
    qatomic_set(&v->level, c->packets.encoder.last_level);
    show_ratio(c, now);
}

/*
 * Each post of `go` is for a piece of device state, or for something that the
 * migration thread waits for.  When it has been told that this is done, it may
 * give the channel another sink: nothing here reads the channel after that.
 */
static void sender_do(ChannelSender *c)
{
    int64_t began = now_ns();
    DevicePiece *piece;

    if (qatomic_read(&c->pieces)) {
        qatomic_dec(&c->pieces);
        piece = device_queue_take(&c->all->devices);
        write_device(c, piece);
        show(c, began);
        device_queue_done(&c->all->devices, piece);
        return;
    }
    sender_act(c);
    show(c, began);
    qatomic_inc(&c->all->rested);
    qemu_sem_post(&c->all->rests);
}

static void *channel_sender_thread(void *opaque)
{
    ChannelSender *c = opaque;

    rcu_register_thread();
    qatomic_set(&c->view.thread_id, qemu_get_thread_id());
    qemu_sem_wait(&c->go);
    while (!qatomic_read(&c->all->quit)) {
        sender_do(c);
        qemu_sem_wait(&c->go);
    }
    rcu_unregister_thread();
    return NULL;
}

/* All are to do something. */
static void post(Senders *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        qemu_sem_post(&s->list[i].go);
    }
    s->awaited += s->count;
}

static void channel_sender_free(ChannelSender *c)
{
    packet_sink_destroy(&c->packets);
    qemu_sem_destroy(&c->go);
}

static void senders_free(Senders *s)
{
    device_queue_destroy(&s->devices);
    qemu_sem_destroy(&s->rests);
    g_free(s->list);
    g_free(s);
}

Senders *senders_start(QEMUFile **files, unsigned count,
                       const SendersConfig *config, Error **errp)
{
    Senders *s = g_new0(Senders, 1);
    bool ok = true;

    s->list = g_new0(ChannelSender, count);
    s->count = count;
    qemu_sem_init(&s->rests, 0);
    device_queue_init(&s->devices, 2 * count);
    for (unsigned i = 0; i < count; i++) {
        ChannelSender *c = &s->list[i];

        c->all = s;
        qemu_sem_init(&c->go, 0);
        ram_sender_init(&c->ram, NULL, &c->packets.sink);
        c->ram.find_zeros = config->find_zeros;
        c->ram.tells_untouched = false;
        c->ram.share = count;
        c->ram.pace = &s->pace;
        ok = ok && packet_sink_init(&c->packets, files[i], config->page_bits,
                                    i, count, config->method, config->level,
                                    config->tells_zeros, errp);
    }
    if (!ok) {
        for (unsigned i = 0; i < count; i++) {
            channel_sender_free(&s->list[i]);
        }
        senders_free(s);
        return NULL;
    }
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *name = g_strdup_printf(MIGRATION_THREAD_SRC_MULTIFD,
                                                i);

        s->list[i].file = files[i];
        qemu_thread_create(&s->list[i].thread, name, channel_sender_thread,
                           &s->list[i], QEMU_THREAD_JOINABLE);
    }
    return s;
}

/* The first error of a channel is latched in the sink of @main as well. */
static int tell_main(Senders *s, RamSender *main)
{
    for (unsigned i = 0; i < s->count; i++) {
        Error *err = NULL;
        int ret = qemu_file_get_error_obj(s->list[i].file, &err);

        if (ret && !ram_sink_error(main->sink)) {
            error_prepend(&err, "multifd channel %u: ", i);
            ram_sink_fail(main->sink, ret, err);
        } else {
            error_free(err);
        }
    }
    return ram_sink_error(main->sink);
}

/* Waits until something happens; true if all rest. */
static bool wait_for_senders(Senders *s, int ms)
{
    if (s->awaited) {
        qemu_sem_timedwait(&s->rests, ms);
        s->awaited -= qatomic_xchg(&s->rested, 0);
    }
    return !s->awaited;
}

void senders_stop_turn(Senders *s)
{
    qatomic_set(&s->pace.stop, true);
}

/*
 * What they may send in it does not depend on when the migration thread wakes
 * up to look at the rate.
 */
static void allow_turn(Senders *s)
{
    qatomic_set(&s->pace.stop, false);
    s->pace.end_bytes = migration_rate_end(RAM_SEND_NS);
}

/* Waits until all rest; at @end, or if they are ahead, they are told to. */
static void pace(Senders *s, bool all, int64_t end)
{
    while (!wait_for_senders(s, all ? LONG_MS : PACE_MS)) {
        if (!all && (migration_rate_wait_ns() || now_ns() >= end)) {
            senders_stop_turn(s);
            all = true;
        }
    }
}

int senders_settle(Senders *s, RamSender *main)
{
    pace(s, true, 0);
    return tell_main(s, main);
}

/* The packet that says so goes out with the first of the records. */
static void channel_begin_records(ChannelSender *c, uint32_t features)
{
    packet_sink_leave(&c->packets);
    ram_stream_sink_init(&c->records, c->file, features);
    c->ram.sink = &c->records.sink;
}

void senders_set_peer(Senders *s, uint32_t features)
{
    pace(s, true, 0);
    for (unsigned i = 0; i < s->count; i++) {
        ChannelSender *c = &s->list[i];

        if ((features & WIRE_PEER_CHANNEL_RECORDS) && !has_records(c) &&
            !packet_encoder_compresses(&c->packets.encoder)) {
            channel_begin_records(c, features);
        }
    }
}

/* Where the main channel is a file, the others write to its places. */
static void sender_take_places(ChannelSender *c, RamMapped *places)
{
    if (places && !c->places.file) {
        ram_mapped_sink_init(&c->places, places, c->file);
        c->ram.sink = &c->places.sink;
    }
}

bool senders_set_method(Senders *s, MultiFDCompression method, int level,
                        Error **errp)
{
    pace(s, true, 0);
    for (unsigned i = 0; i < s->count; i++) {
        ChannelSender *c = &s->list[i];

        if (!packet_sink_set_method(&c->packets, method, level, errp)) {
            return false;
        }
        if (method != MULTIFD_COMPRESSION_NONE) {
            end_records(c);
        }
    }
    return true;
}

bool senders_have_records(const Senders *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        if (!has_records(&s->list[i])) {
            return false;
        }
    }
    return true;
}

unsigned senders_count(const Senders *s)
{
    return s->count;
}

void senders_begin_turn(Senders *s, SenderTurn *turn, void *opaque)
{
    assert(!s->awaited);
    s->turn = turn;
    s->turn_opaque = opaque;
    allow_turn(s);
    post(s);
}

bool senders_wait_turn(Senders *s)
{
    return wait_for_senders(s, PACE_MS);
}

int senders_end_turn(Senders *s, RamSender *main)
{
    assert(!s->awaited);
    s->turn = NULL;
    return tell_main(s, main);
}

void senders_nudge(Senders *s)
{
    qemu_sem_post(&s->rests);
}

RamSendResult senders_run(void *opaque, RamSender *main, bool all)
{
    Senders *s = opaque;
    int64_t end = now_ns() + RAM_SEND_NS;

    if (senders_settle(s, main)) {
        return RAM_SEND_ERROR;
    }
    if (main->age > 1) {
        ram_sender_skip_written(main->regions);
    }
    s->drain = all;
    allow_turn(s);
    for (unsigned i = 0; i < s->count; i++) {
        s->list[i].ram.regions = main->regions;
        sender_take_places(&s->list[i], ram_mapped_of(main->sink));
    }
    post(s);
    main->takes_dirty = false;
    ram_sender_run(main, all);
    pace(s, all, end);
    for (unsigned i = 0; i < s->count; i++) {
        packet_sink_tell_zeros(&s->list[i].packets, main->sink);
    }
    if (tell_main(s, main)) {
        return RAM_SEND_ERROR;
    }
    return ram_sender_left(main->regions) ? RAM_SEND_SOME : RAM_SEND_ALL;
}

void senders_mark(void *opaque)
{
    Senders *s = opaque;

    for (unsigned i = 0; i < s->count; i++) {
        qatomic_inc(&s->list[i].marks);
    }
    post(s);
}

bool senders_queue_device(Senders *s, const char *name, uint32_t instance_id,
                          const void *data, size_t len)
{
    ChannelSender *c;

    assert(len <= WIRE_MULTIFD_DEVICE_STATE_MAX);
    if (!device_queue_put(&s->devices, name, instance_id, data, len)) {
        return false;
    }
    c = &s->list[qatomic_fetch_inc(&s->next) % s->count];
    qatomic_inc(&c->pieces);
    qemu_sem_post(&c->go);
    return !qemu_file_get_error(c->file);
}

bool senders_settle_devices(Senders *s)
{
    return device_queue_wait(&s->devices);
}

void senders_drop_devices(Senders *s)
{
    device_queue_end(&s->devices);
}

uint64_t senders_unsent(const Senders *s)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < s->count; i++) {
        sum += stream_unsent(s->list[i].file);
    }
    return sum;
}

bool senders_broken(const Senders *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        if (qemu_file_get_error(s->list[i].file) == -EIO) {
            return true;
        }
    }
    return false;
}

bool senders_look(Senders *s, unsigned i, SenderView *view)
{
    const SenderView *v;

    if (i >= s->count) {
        return false;
    }
    v = &s->list[i].view;
    *view = (SenderView) {
        .thread_id = qatomic_read(&v->thread_id),
        .bytes = qatomic_read_u64(&v->bytes),
        .memory = qatomic_read_u64(&v->memory),
        .busy_ns = qatomic_read_u64(&v->busy_ns),
        .method = qatomic_read(&v->method),
        .level = qatomic_read(&v->level),
        .ratio = qatomic_read(&v->ratio),
    };
    return true;
}

void senders_shutdown(Senders *s)
{
    device_queue_end(&s->devices);
    for (unsigned i = 0; i < s->count; i++) {
        qemu_file_shutdown(s->list[i].file);
    }
}

/* Without this GnuTLS reports an end that nobody has announced as an error. */
static void end_encryption(QEMUFile *f)
{
    QIOChannel *ioc = qemu_file_get_ioc(f);

    if (object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_TLS)) {
        qio_channel_tls_bye(QIO_CHANNEL_TLS(ioc), NULL);
    }
}

void senders_end(Senders *s, bool ok)
{
    device_queue_end(&s->devices);
    qatomic_set(&s->quit, true);
    post(s);
    for (unsigned i = 0; i < s->count; i++) {
        ChannelSender *c = &s->list[i];

        qemu_thread_join(&c->thread);
        if (ok) {
            end_encryption(c->file);
        } else {
            qemu_file_set_error(c->file, -ECANCELED);
        }
        stream_close(c->file);
        channel_sender_free(c);
    }
    senders_free(s);
}
