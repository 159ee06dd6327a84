/*
 * Threads that load memory, each from a channel of its own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "migration/base/clock.h"
#include "migration/base/first-error.h"
#include "migration/migration.h"
#include "migration/ram/load.h"
#include "migration/ram/zero-gather.h"
#include "migration/wire/packet.h"
#include "migration/wire/stream.h"
#include "receivers.h"

/* How long a channel that was not even connected is waited for at a mark */
#define CHANNEL_MS (10 * 1000)
/* How often it is looked whether it was, and whether one has failed */
#define LOOK_MS 100
/* Of a device's state, what is read at once */
#define DEVICE_STATE_PIECE (1 * MiB)
/* Enough for the head of the next packet, and little of its pages */
#define READ_AHEAD 4096

int receivers_room_ms = 1000;

typedef struct Receiver {
    unsigned id;
    QEMUFile *f;                /* NULL: it has not come yet */
    QemuThread thread;
    bool joined;                /* that has been */
    bool ended;                 /* before the first mark; under meeting.lock */
    RamLoader loader;           /* of records */
    bool diverted;              /* their pages go elsewhere */
    bool records;               /* and no packets; atomic */
    void *decoders[MULTIFD_COMPRESSION__MAX];   /* NULL: not used yet */
    uint8_t *encoded;           /* room for a payload, once there is one */
    uint8_t *spare;             /* for pages that cannot be written to */
    uint64_t *table;
    struct iovec *runs;
    ZeroGather zeros;
} Receiver;

static struct {
    ReceiversConfig config;
    Receiver *list;             /* NULL: there is no multifd */
    unsigned pages_max;
} receivers;

/* Where the channels meet */
static struct {
    QemuMutex lock;
    QemuCond arrived, left;
    unsigned there;             /* receivers that wait at the mark */
    unsigned number;            /* of the meeting */
    unsigned channels;          /* that have come so far */
    const ReceiversPlaces *places;      /* where pages go from now on */
    bool over;                  /* nobody waits any more */
    bool broken;                /* one of them has ended, or was refused */
    unsigned ended;             /* that have made room, */
    int64_t ended_ms;           /* the last one of these then */
    FirstError error;           /* why */
} meeting;

static void __attribute__((constructor)) receivers_init_lock(void)
{
    qemu_mutex_init(&meeting.lock);
    qemu_cond_init(&meeting.arrived);
    qemu_cond_init(&meeting.left);
    first_error_init(&meeting.error);
}

static void channel_arrived(RamRegion *r, uint64_t page, uint64_t pages)
{
    if (receivers.config.arrived && !r->read_only) {
        receivers.config.arrived(r, page, pages);
    }
}

static void record_arrived(void *opaque, RamRegion *r, uint64_t page,
                           uint64_t pages)
{
    channel_arrived(r, page, pages);
}

/*
 * Marks
 */

/* Under meeting.lock; while it is not at its mark the thread's own. */
static void choose_places(Receiver *c)
{
    static const RamPagesOps memory = { .arrived = record_arrived };
    const ReceiversPlaces *places = meeting.places;

    c->diverted = places;
    c->loader.pages = places ? places->ops : &memory;
    c->loader.pages_opaque = places ? places->opaque(c->id) : NULL;
}

/* False if there is nothing more to come. */
static bool wait_for_main(Receiver *c)
{
    unsigned number;

    QEMU_LOCK_GUARD(&meeting.lock);
    number = meeting.number;
    meeting.there++;
    qemu_cond_signal(&meeting.arrived);
    while (number == meeting.number && !meeting.over) {
        qemu_cond_wait(&meeting.left, &meeting.lock);
    }
    choose_places(c);
    return !meeting.over;
}

static void missing(Error **errp)
{
    error_setg(errp, "%u of %u multifd channels have been connected, and the "
               "others are waited for in vain: 'multifd-channels' must be the "
               "same on both sides", meeting.channels,
               receivers.config.channels);
}

static bool not_met(Error **errp)
{
    Error *err = first_error_get(&meeting.error);

    if (!err) {
        error_setg(&err, "The channels of multifd have been closed");
    }
    error_propagate(errp, err);
    return false;
}

void receivers_fail(const Error *err)
{
    first_error_set(&meeting.error, err);
    QEMU_LOCK_GUARD(&meeting.lock);
    meeting.broken = true;
    qemu_cond_signal(&meeting.arrived);
}

bool receivers_check(Error **errp)
{
    QEMU_LOCK_GUARD(&meeting.lock);
    return !meeting.broken || not_met(errp);
}

/* Under meeting.lock.  One has ended, and no other has come in its place. */
static bool has_lost(int64_t since_ms)
{
    return meeting.ended &&
           now_ms() > MAX(since_ms, meeting.ended_ms) + receivers_room_ms;
}

static bool meet_all(const ReceiversPlaces *places, Error **errp)
{
    int64_t begin = now_ms(), end = begin + CHANNEL_MS;

    if (!receivers.list) {
        return not_met(errp);
    }
    QEMU_LOCK_GUARD(&meeting.lock);
    while (meeting.there < receivers.config.channels && !meeting.over &&
           !meeting.broken) {
        qemu_cond_timedwait(&meeting.arrived, &meeting.lock, LOOK_MS);
        if (has_lost(begin)) {
            return not_met(errp);
        }
        if (meeting.channels < receivers.config.channels && now_ms() > end) {
            missing(errp);
            return false;
        }
    }
    if (meeting.over || meeting.broken) {
        return not_met(errp);
    }
    meeting.there = 0;
    meeting.number++;
    meeting.places = places;
    qemu_cond_broadcast(&meeting.left);
    return true;
}

bool receivers_meet(Error **errp)
{
    return meet_all(NULL, errp);
}

bool receivers_divert(const ReceiversPlaces *places, Error **errp)
{
    return meet_all(places, errp);
}

bool receivers_have_records(void)
{
    QEMU_LOCK_GUARD(&meeting.lock);
    for (unsigned i = 0; receivers.list && i < receivers.config.channels; i++) {
        if (!qatomic_read(&receivers.list[i].records)) {
            return false;
        }
    }
    return receivers.list;
}

static void end_meetings(void)
{
    QEMU_LOCK_GUARD(&meeting.lock);
    meeting.over = true;
    qemu_cond_broadcast(&meeting.left);
    qemu_cond_broadcast(&meeting.arrived);
}

/*
 * Pages
 */

static RamRegion *find_region(const WireMultifdPages *head, Error **errp)
{
    RamRegion *r = ram_regions_find(receivers.config.regions(), head->block);
    g_autofree char *shown = NULL;

    if (!r) {
        shown = g_strescape(head->block, NULL);
        error_setg(errp, "There is no RAM block '%s' here: this VM must have "
                   "the same memory and devices as the source", shown);
    } else if (r->ignored) {
        error_setg(errp, "RAM block '%s' is shared, but the source sends it: "
                   "set the same capabilities on both sides", r->name);
        r = NULL;
    }
    return r;
}

static bool take_offset(const RamRegion *r, uint64_t entry, uint64_t *page,
                        Error **errp)
{
    uint64_t offset = be64_to_cpu(entry);

    *page = offset >> r->page_bits;
    if (*page >= r->pages || offset & (ram_region_page_size(r) - 1)) {
        error_setg(errp, "RAM block '%s' has %" PRIu64 " bytes, so there is no "
                   "page at 0x%" PRIx64, r->name, ram_region_bytes(r), offset);
        return false;
    }
    return true;
}

static bool page_differs(const RamRegion *r, uint64_t page, Error **errp)
{
    error_setg(errp, "RAM block '%s' is read-only here, and on the source page "
               "0x%" PRIx64 " has other content", r->name,
               page << r->page_bits);
    return false;
}

static void clear_zeros(Receiver *c)
{
    while (c->zeros.pages) {
        zero_gather_clear(&c->zeros, c->zeros.pages);
    }
}

static bool take_zero_entries(Receiver *c, RamRegion *r,
                              const uint64_t *entries, unsigned count,
                              Error **errp)
{
    uint64_t page;

    for (unsigned i = 0; i < count; i++) {
        if (!take_offset(r, entries[i], &page, errp)) {
            return false;
        }
        if (r->read_only) {
            if (!buffer_is_zero(ram_region_page(r, page),
                                ram_region_page_size(r))) {
                return page_differs(r, page, errp);
            }
        } else if (!zero_gather_add(&c->zeros, r, page, 1)) {
            clear_zeros(c);
            zero_gather_add(&c->zeros, r, page, 1);
        }
        channel_arrived(r, page, 1);
    }
    clear_zeros(c);
    return true;
}

/* Where the pages go; those that follow each other at once.  0: an error */
static unsigned find_runs(Receiver *c, RamRegion *r, unsigned count,
                          Error **errp)
{
    size_t size = ram_region_page_size(r);
    uint8_t *end = NULL;
    unsigned n = 0;
    uint64_t page;

    for (unsigned i = 0; i < count; i++) {
        uint8_t *at;

        if (!take_offset(r, c->table[i], &page, errp)) {
            return 0;
        }
        at = r->read_only ? c->spare + i * size : ram_region_page(r, page);
        if (n && at == end) {
            c->runs[n - 1].iov_len += size;
        } else {
            c->runs[n++] = (struct iovec) { .iov_base = at, .iov_len = size };
        }
        end = at + size;
    }
    return n;
}

/* Pages that could not be written to were read to the spare ones. */
static bool compare_spare(const Receiver *c, const RamRegion *r, unsigned count,
                    Error **errp)
{
    size_t size = ram_region_page_size(r);

    for (unsigned i = 0; i < count; i++) {
        uint64_t page = be64_to_cpu(c->table[i]) >> r->page_bits;

        if (memcmp(ram_region_page(r, page), c->spare + i * size, size)) {
            return page_differs(r, page, errp);
        }
    }
    return true;
}

static void normal_arrived(const Receiver *c, RamRegion *r, unsigned runs)
{
    for (unsigned i = 0; i < runs && !r->read_only; i++) {
        const struct iovec *run = &c->runs[i];

        channel_arrived(r, ((uint8_t *)run->iov_base - r->host) >> r->page_bits,
                        run->iov_len >> r->page_bits);
    }
}

static bool get_plain(Receiver *c, unsigned runs)
{
    for (unsigned i = 0; i < runs; i++) {
        qemu_get_buffer(c->f, c->runs[i].iov_base, c->runs[i].iov_len);
    }
    return !qemu_file_get_error(c->f);
}

static bool prepare_decoder(Receiver *c, MultiFDCompression method,
                            Error **errp)
{
    void **decoder = &c->decoders[method];

    if (!*decoder) {
        *decoder = codec_find(method)->decoder_new(
            (size_t)1 << receivers.config.page_bits, errp);
    }
    if (!c->encoded) {
        c->encoded = g_malloc(WIRE_MULTIFD_PAYLOAD_MAX);
    }
    return *decoder;
}

static bool get_encoded(Receiver *c, MultiFDCompression method, unsigned runs,
                        size_t len, Error **errp)
{
    return prepare_decoder(c, method, errp) &&
           qemu_get_buffer(c->f, c->encoded, len) == len &&
           codec_find(method)->decode(c->decoders[method], c->encoded, len,
                                      c->runs, runs, errp);
}

/* A source that knows it of us may change the method from packet to packet. */
static bool takes_method(MultiFDCompression method)
{
    return method == receivers.config.method ||
           (codec_is_for_any_peer(method) &&
            (receivers.config.method == MULTIFD_COMPRESSION_AUTO ||
             (receivers.config.takes_any && receivers.config.takes_any())));
}

/* What its flags and length have to be; sets *@method. */
static bool is_expected(const RamRegion *r, const Packet *p,
                        MultiFDCompression *method, Error **errp)
{
    if (!codec_by_flag(p->flags & WIRE_MULTIFD_METHOD, method) ||
        !takes_method(*method)) {
        error_setg(errp, "A packet is compressed in another way than is set "
                   "here: 'multifd-compression' must be the same on both "
                   "sides");
        return false;
    }
    if (*method == MULTIFD_COMPRESSION_NONE && p->payload &&
        p->payload != (uint64_t)p->normal << r->page_bits) {
        error_setg(errp, "A packet of %" PRIu32 " pages has %" PRIu32 " bytes",
                   p->normal, p->payload);
        return false;
    }
    return true;
}

static bool take_packet_pages(Receiver *c, const WireMultifdPages *head,
                              const Packet *p, Error **errp)
{
    RamRegion *r = find_region(head, errp);
    MultiFDCompression method;
    unsigned runs;

    if (!r || !is_expected(r, p, &method, errp) ||
        !take_zero_entries(c, r, c->table + p->normal, p->zeros, errp)) {
        return false;
    }
    if (!p->normal) {
        return true;
    }
    runs = find_runs(c, r, p->normal, errp);
    if (!runs || !(method == MULTIFD_COMPRESSION_NONE
                   ? get_plain(c, runs)
                   : get_encoded(c, method, runs, p->payload, errp))) {
        return false;
    }
    normal_arrived(c, r, runs);
    return !r->read_only || compare_spare(c, r, p->normal, errp);
}

/* The rest of something that begins with what has been read, @done bytes */
static bool get_rest(Receiver *c, void *head, size_t done, size_t size)
{
    return qemu_get_buffer(c->f, (uint8_t *)head + done, size - done) ==
           size - done;
}

/* Memory for so much is there only once it has come, or some of it. */
static char *get_device_bytes(Receiver *c, uint32_t len)
{
    g_autofree char *bytes = NULL;

    for (size_t done = 0; done < len || !bytes; ) {
        size_t more = MIN(len - done, DEVICE_STATE_PIECE);

        bytes = g_realloc(bytes, done + more + 1);
        if (qemu_get_buffer(c->f, (uint8_t *)bytes + done, more) != more) {
            return NULL;
        }
        done += more;
    }
    return g_steal_pointer(&bytes);
}

/* A packet that begins with @head; the guest's devices are known to be there */
static bool take_device_state(Receiver *c, const WireMultifdHead *head,
                              Error **errp)
{
    WireMultifdDeviceState state = { .head = *head };
    g_autofree char *bytes = NULL;
    uint32_t instance_id, len;

    if (!get_rest(c, &state, sizeof(*head), sizeof(state)) ||
        !packet_check_device_state(&state, &instance_id, &len, errp)) {
        return false;
    }
    if (!receivers.config.load_device) {
        error_setg(errp, "A packet has the state of a device, and none is "
                   "expected");
        return false;
    }
    bytes = get_device_bytes(c, len);
    return bytes && receivers.config.load_device(state.name, instance_id,
                                                 bytes, len, errp);
}

static bool get_packet(Receiver *c, WireMultifdPages *head, Packet *p,
                       Error **errp)
{
    size_t table = receivers.pages_max * sizeof(*c->table);

    return get_rest(c, head, sizeof(head->head), sizeof(*head)) &&
           packet_check(head, receivers.pages_max, p, errp) &&
           qemu_get_buffer(c->f, (uint8_t *)c->table, table) == table;
}

/*
 * Records
 */

static bool meet_main(RamLoader *loader, Error **errp)
{
    return wait_for_main(container_of(loader, Receiver, loader));
}

static bool records_possible(const Receiver *c, const Packet *p, bool ready,
                             Error **errp)
{
    if (p->flags != WIRE_MULTIFD_RECORDS || p->normal || p->zeros ||
        p->payload) {
        error_setg(errp, "The last packet has pages or other flags: 0x%" PRIx32,
                   p->flags);
        return false;
    }
    if (!ready) {
        error_setg(errp, "Records come before the list of RAM blocks");
        return false;
    }
    if (!takes_method(MULTIFD_COMPRESSION_NONE)) {
        error_setg(errp, "The source does not compress: 'multifd-compression' "
                   "must be the same on both sides");
        return false;
    }
    return true;
}

typedef enum RecordsEnd {
    RECORDS_FAILED,             /* with an error, or the channel has ended */
    RECORDS_OVER,               /* nobody needs more of them */
    RECORDS_BEFORE_PACKETS,
} RecordsEnd;

static RecordsEnd receive_records(Receiver *c, Error **errp)
{
    static const RamLoadOps ops = { };
    Error *err = NULL;

    c->loader = (RamLoader) {
        .regions = receivers.config.regions(),
        .ops = &ops,
        .page_bits = receivers.config.page_bits,
        .pages = c->loader.pages,
        .pages_opaque = c->loader.pages_opaque,
        .meet = meet_main,
        .beside = true,
    };
    qatomic_set(&c->records, true);
    if (ram_load_records(c->f, &c->loader, &err)) {
        if (!c->diverted) {
            qatomic_set(&c->records, false);
            return RECORDS_BEFORE_PACKETS;
        }
        error_setg(errp, "Records end in postcopy, before the last mark");
        return RECORDS_FAILED;
    }
    if (qemu_file_get_error(c->f)) {
        /* It has ended, whatever was missing then. */
        error_free(err);
        return RECORDS_FAILED;
    }
    error_propagate(errp, err);
    return err ? RECORDS_FAILED : RECORDS_OVER;
}

/*
 * A channel
 */

/* Packets have no place to go to while pages are put in place. */
static bool is_possible(const Receiver *c, const Packet *p, Error **errp)
{
    bool possible = !c->diverted || (p->flags & WIRE_MULTIFD_RECORDS);

    if (!possible) {
        error_setg(errp, "In postcopy there may only be records");
    }
    return possible;
}

/* False, without an error, if the channel ends. */
static bool receive(Receiver *c, Error **errp)
{
    bool ready = false;         /* there was a mark */
    WireMultifdPages head;
    RecordsEnd end;
    uint32_t flags;
    Packet p;

    for (;;) {
        if (!get_rest(c, &head, 0, sizeof(head.head)) ||
            !packet_check_head(&head.head, &flags, errp)) {
            return false;
        }
        if (flags & WIRE_MULTIFD_DEVICE_STATE) {
            if (!ready) {
                error_setg(errp, "The state of a device comes before the list "
                           "of RAM blocks");
                return false;
            }
            if (!take_device_state(c, &head.head, errp)) {
                return false;
            }
            continue;
        }
        if (!get_packet(c, &head, &p, errp) || !is_possible(c, &p, errp)) {
            return false;
        }
        if (p.flags & WIRE_MULTIFD_RECORDS) {
            if (!records_possible(c, &p, ready || c->diverted, errp)) {
                return false;
            }
            end = receive_records(c, errp);
            if (end != RECORDS_BEFORE_PACKETS) {
                return end == RECORDS_OVER;
            }
            continue;
        }
        if (p.normal || p.zeros) {
            if (!ready) {
                error_setg(errp, "Pages come before the list of RAM blocks");
                return false;
            }
            if (!take_packet_pages(c, &head, &p, errp)) {
                return false;
            }
        }
        if (p.flags & WIRE_MULTIFD_SYNC) {
            if (!wait_for_main(c)) {
                return true;
            }
            if (c->diverted) {
                error_setg(errp, "In postcopy there may only be records");
                return false;
            }
            ready = true;
        }
    }
}

static void receiver_failed(Receiver *c, Error *err)
{
    error_prepend(&err, "multifd channel %u: ", c->id);
    receivers_fail(err);
    receivers.config.failed(err);
    error_free(err);
    end_meetings();
}

/*
 * A channel that ends is one that the source has closed.  Whether something is
 * missing shows at the next mark of the main channel, if there is one; but a
 * guest that runs may be waiting for it already.
 */
static void receiver_ended(Receiver *c)
{
    Error *err = NULL;

    if (stream_check(c->f, &err)) {
        error_setg(&err, "It is not needed any more");
    }
    if (c->diverted) {
        receiver_failed(c, err);
        return;
    }
    error_prepend(&err, "multifd channel %u: ", c->id);
    first_error_set(&meeting.error, err);
    error_free(err);
    QEMU_LOCK_GUARD(&meeting.lock);
    if (meeting.number) {
        meeting.broken = true;
    } else {
        c->ended = true;
        meeting.ended++;
        meeting.ended_ms = now_ms();
    }
    qemu_cond_signal(&meeting.arrived);
}

static void *receiver_thread(void *opaque)
{
    Receiver *c = opaque;
    Error *err = NULL;

    rcu_register_thread();
    if (!receive(c, &err)) {
        if (err) {
            receiver_failed(c, err);
        } else {
            receiver_ended(c);
        }
    }
    /* Nobody is to wait until somebody reads from it. */
    qemu_file_shutdown(c->f);
    rcu_unregister_thread();
    return NULL;
}

/*
 * All of them
 */

static void await_channels(const ReceiversPlaces *places)
{
    WITH_QEMU_LOCK_GUARD(&meeting.lock) {
        assert(!receivers.list);
        receivers.list = g_new0(Receiver, receivers.config.channels);
        meeting.there = meeting.number = meeting.channels = 0;
        meeting.over = meeting.broken = false;
        meeting.ended = 0;
        meeting.places = places;
    }
    first_error_clear(&meeting.error);
}

void receivers_begin(const ReceiversConfig *config)
{
    receivers.config = *config;
    receivers.pages_max = packet_pages_max(config->page_bits);
    await_channels(NULL);
}

void receivers_begin_again(const ReceiversPlaces *places)
{
    receivers_end();
    await_channels(places);
}

static void receiver_free(Receiver *c)
{
    stream_close(c->f);
    for (int i = 0; i < MULTIFD_COMPRESSION__MAX; i++) {
        if (c->decoders[i]) {
            codec_find(i)->decoder_free(c->decoders[i]);
        }
    }
    g_free(c->encoded);
    g_free(c->spare);
    g_free(c->table);
    g_free(c->runs);
}

static bool receiver_prepare(Receiver *c, Error **errp)
{
    unsigned max = receivers.pages_max;

    if (codec_find(receivers.config.method) &&
        !prepare_decoder(c, receivers.config.method, errp)) {
        return false;
    }
    c->spare = g_malloc((size_t)max << receivers.config.page_bits);
    c->table = g_new(uint64_t, max);
    c->runs = g_new(struct iovec, max);
    return true;
}

/* Under meeting.lock. */
static bool receiver_begin(unsigned id, QEMUFile *f, Error **errp)
{
    g_autofree char *name = g_strdup_printf(MIGRATION_THREAD_DST_MULTIFD, id);
    Receiver *c = &receivers.list[id];

    if (!receiver_prepare(c, errp)) {
        return false;
    }
    c->id = id;
    c->f = f;
    choose_places(c);
    stream_read_ahead(f, READ_AHEAD);
    meeting.channels++;
    qemu_thread_create(&c->thread, name, receiver_thread, c,
                       QEMU_THREAD_JOINABLE);
    return true;
}

/* Under meeting.lock, which its thread does not take any more. */
static void receiver_clear(Receiver *c)
{
    qemu_thread_join(&c->thread);
    receiver_free(c);
    *c = (Receiver) { };
    meeting.channels--;
    meeting.ended--;
    if (!meeting.ended && !meeting.broken) {
        first_error_clear(&meeting.error);
    }
}

/* Once they have been stopped nobody joins another thread. */
bool receivers_add(QEMUFile *f, unsigned id, Error **errp)
{
    Receiver *c;

    QEMU_LOCK_GUARD(&meeting.lock);
    if (!receivers.list || meeting.over) {
        error_setg(errp, "Channel %u is not expected", id);
        return false;
    }
    c = &receivers.list[id];
    if (c->ended) {
        receiver_clear(c);
    }
    if (c->f) {
        error_setg(errp, "There is a channel %u already", id);
        return false;
    }
    return receiver_begin(id, f, errp);
}

bool receivers_has(unsigned id)
{
    QEMU_LOCK_GUARD(&meeting.lock);
    return receivers.list && receivers.list[id].f && !receivers.list[id].ended;
}

bool receivers_complete(void)
{
    QEMU_LOCK_GUARD(&meeting.lock);
    return receivers.list && meeting.channels == receivers.config.channels;
}

void receivers_shutdown(void)
{
    end_meetings();
    QEMU_LOCK_GUARD(&meeting.lock);
    for (unsigned i = 0; receivers.list && i < receivers.config.channels; i++) {
        if (receivers.list[i].f) {
            qemu_file_shutdown(receivers.list[i].f);
        }
    }
}

void receivers_stop(void)
{
    receivers_shutdown();
    for (unsigned i = 0; receivers.list && i < receivers.config.channels; i++) {
        Receiver *c = &receivers.list[i];

        if (c->f && !c->joined) {
            qemu_thread_join(&c->thread);
            c->joined = true;
        }
    }
}

void receivers_end(void)
{
    Receiver *list;

    receivers_stop();
    WITH_QEMU_LOCK_GUARD(&meeting.lock) {
        list = g_steal_pointer(&receivers.list);
    }
    for (unsigned i = 0; list && i < receivers.config.channels; i++) {
        receiver_free(&list[i]);
    }
    g_free(list);
}
