/*
 * Pages as RDMA writes: a sink of ram/
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/migration-stats.h"
#include "migration/qemu-file.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "sink.h"

QEMU_BUILD_BUG_ON(RDMA_ZEROS_RANGES > WIRE_RDMA_ENTRIES_MAX);
QEMU_BUILD_BUG_ON(RDMA_SPAN_BITS < WIRE_RDMA_CHUNK_BITS);
QEMU_BUILD_BUG_ON(RDMA_COPY_RUNS > WIRE_RDMA_ENTRIES_MAX);
QEMU_BUILD_BUG_ON(RDMA_COPY_MAX + sizeof(WireRdmaPages) > WIRE_RDMA_DATA_MAX);

/* What a chunk of memory is registered as, with others or alone */
typedef struct Chunk {
    struct ibv_mr *mr;          /* NULL: it is not */
    uint32_t rkey;
} Chunk;

/* A region whose pages are sent, and the destination's block */
typedef struct Target {
    const RamRegion *region;
    RdmaBlock block;
    struct ibv_mr *mr;          /* pin_all: of all of it */
    Chunk *chunks;              /* otherwise */
} Target;

/* Pages to be written that follow each other */
typedef struct Gathered {
    Target *target;
    uint64_t offset, bytes;     /* bytes 0: none */
} Gathered;

/*
 * Ranges of zeros that the destination is not told of yet, ascending, in one
 * region.  Nothing that was given since the first of them lies before @end.
 */
typedef struct ZeroRanges {
    Target *target;
    RdmaExtent list[RDMA_ZEROS_RANGES];
    unsigned count;
    uint64_t end;               /* of all that was given */
} ZeroRanges;

/* Runs that the destination is to copy, which it is not told of yet */
typedef struct Copies {
    RdmaExtent list[RDMA_COPY_RUNS];
    unsigned count;
    uint32_t bytes;             /* of the message's data */
} Copies;

struct RdmaSink {
    RamSink base;
    RamStreamSink *stream;
    QEMUFile *file;
    RdmaLink *link;
    RdmaLink *const *others;    /* for writes beside it */
    unsigned others_count;
    bool others_wrote;          /* and may not have finished */
    RdmaHello hello;

    Target *targets;
    unsigned count;
    Target **by_region;         /* at the region's index; NULL: ignored */

    bool introduced;            /* the destination's blocks are known */
    bool open;                  /* HOOK was sent, and FINISHED was not */
    bool settled;               /* the destination has done all it was told */
    Gathered run;
    ZeroRanges zeros;
    Copies copies;
    uint64_t given;             /* bytes to be written */
};

static RdmaSink *rdma_sink(RamSink *base)
{
    return container_of(base, RdmaSink, base);
}

/*
 * Failing
 */

static int sink_error(RdmaSink *sink)
{
    return qemu_file_get_error(sink->file);
}

/* Latches @err, which is taken over. */
static bool sink_fail(RdmaSink *sink, Error *err)
{
    qemu_file_set_error_obj(sink->file, -EIO, err);
    return false;
}

/*
 * Conversation
 */

/* An answer of @type; its data are valid until sink_done(). */
static bool sink_answer(RdmaSink *sink, WireRdmaType type, RdmaMessage *m,
                        Error **errp)
{
    switch (rdma_link_receive(sink->link, true, m, errp)) {
    case RDMA_ARRIVED:
        break;
    case RDMA_ENDED:
        error_setg(errp, "the destination closed the RDMA connection");
        return false;
    default:
        return false;
    }
    if (m->head.type != type) {
        error_setg(errp, "the destination sent the RDMA message %s where %s "
                   "was expected", rdma_type_name(m->head.type),
                   rdma_type_name(type));
        return false;
    }
    return true;
}

/* From now on messages can be sent. */
static bool sink_open(RdmaSink *sink, Error **errp)
{
    if (sink->open) {
        return true;
    }
    qemu_put_be64(sink->file, WIRE_RAM_HOOK);
    /* FINISHED comes, and is answered by READY. */
    rdma_link_more_follows(sink->link, true);
    qemu_fflush(sink->file);
    rdma_link_more_follows(sink->link, false);
    if (sink_error(sink)) {
        stream_check(sink->file, errp);
        return false;
    }
    sink->open = true;
    sink->settled = false;
    return true;
}

static bool sink_settle(RdmaSink *sink, Error **errp)
{
    if (!sink->settled &&
        !rdma_link_wait_ready(sink->link, rdma_window(&sink->hello), errp)) {
        return false;
    }
    sink->settled = true;
    return true;
}

/* What was written by the other links has arrived. */
static bool finish_others(RdmaSink *sink, Error **errp)
{
    for (unsigned i = 0; sink->others_wrote && i < sink->others_count; i++) {
        if (!rdma_link_finish_writes(sink->others[i], errp)) {
            return false;
        }
    }
    sink->others_wrote = false;
    return true;
}

static bool sink_tell_many(RdmaSink *sink, WireRdmaType type, uint32_t repeat,
                           const void *data, uint32_t len, Error **errp)
{
    sink->settled = false;
    return rdma_link_send(sink->link, type, repeat, data, len, false, errp);
}

static bool sink_tell(RdmaSink *sink, WireRdmaType type, const void *data,
                      uint32_t len, Error **errp)
{
    return sink_tell_many(sink, type, 1, data, len, errp);
}

/*
 * Blocks
 */

static bool learn_blocks(RdmaSink *sink, const RdmaMessage *m, Error **errp)
{
    const WireRdmaBlock *list = m->data;
    unsigned count = m->head.len / sizeof(*list);

    if (count != sink->count) {
        error_setg(errp, "the destination has %u RAM blocks, and %u are here; "
                   "both sides must have the same memory and devices", count,
                   sink->count);
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        Target *t = &sink->targets[i];

        if (!rdma_check_block(&list[i], t->region->name,
                              ram_region_bytes(t->region), &t->block, errp)) {
            return false;
        }
    }
    return true;
}

/* While the destination does the same */
static bool pin_everything(RdmaSink *sink, Error **errp)
{
    for (unsigned i = 0; i < sink->count; i++) {
        Target *t = &sink->targets[i];
        Error *err = NULL;

        t->mr = rdma_link_register(sink->link, t->region->host,
                                   ram_region_bytes(t->region), false,
                                   t->region->name, &err);
        if (!t->mr && ram_region_here(t->region)) {
            error_propagate(errp, err);
            return false;
        }
        /* What was unplugged meanwhile is not sent. */
        error_free(err);
    }
    return true;
}

static bool introduce(RdmaSink *sink, Error **errp)
{
    RdmaMessage m;

    return sink_open(sink, errp) &&
           sink_tell(sink, WIRE_RDMA_BLOCKS_REQUEST, NULL, 0, errp) &&
           (!sink->hello.pin_all || pin_everything(sink, errp)) &&
           sink_answer(sink, WIRE_RDMA_BLOCKS_RESULT, &m, errp) &&
           learn_blocks(sink, &m, errp) &&
           rdma_link_done(sink->link, &m, errp);
}

int rdma_sink_begin(RdmaSink *sink)
{
    Error *err = NULL;

    sink->base.zeros_at_once = sink->stream->sink.zeros_at_once;
    if (sink_error(sink) || sink->introduced || stream_is_kept(sink->file)) {
        return sink_error(sink);
    }
    if (!introduce(sink, &err)) {
        sink_fail(sink, err);
        return sink_error(sink);
    }
    sink->introduced = true;
    return 0;
}

/*
 * Registration
 */

static bool learn_key(const Target *t, const RdmaMessage *m, uint32_t *rkey,
                      Error **errp)
{
    RdmaKey key;

    if (!rdma_check_key(m->data, t->block.address, &key, errp)) {
        return false;
    }
    *rkey = key.rkey;
    return true;
}

/*
 * Registers @count chunks from @index on, together.  Here that is done while
 * the destination does the same.
 */
static bool register_chunks(RdmaSink *sink, Target *t, uint64_t index,
                            uint64_t count, Error **errp)
{
    uint64_t first = index << sink->hello.chunk_bits;
    RdmaExtent extent = {
        .block = t - sink->targets,
        .offset = first,
        .bytes = MIN(count << sink->hello.chunk_bits, t->block.bytes - first),
    };
    WireRdmaRegister wire;
    struct ibv_mr *mr;
    uint32_t rkey;
    RdmaMessage m;

    rdma_fill_register(&wire, &extent, t->block.start,
                       sink->hello.chunk_bits);
    if (!sink_tell(sink, WIRE_RDMA_REGISTER_REQUEST, &wire, sizeof(wire),
                   errp)) {
        return false;
    }
    mr = rdma_link_register(sink->link, t->region->host + first, extent.bytes,
                            false, t->region->name, errp);
    if (!mr || !sink_answer(sink, WIRE_RDMA_REGISTER_RESULT, &m, errp) ||
        !learn_key(t, &m, &rkey, errp) ||
        !rdma_link_done(sink->link, &m, errp)) {
        return false;
    }
    for (uint64_t i = index; i < index + count; i++) {
        t->chunks[i] = (Chunk) { .mr = mr, .rkey = rkey };
    }
    /* It is the answer to the last message. */
    sink->settled = true;
    return true;
}

/* How many chunks from @index to @last have the same keys, if any */
static uint64_t count_alike(const Target *t, uint64_t index, uint64_t last)
{
    uint64_t count = 1;

    while (index + count <= last &&
           t->chunks[index + count].mr == t->chunks[index].mr) {
        count++;
    }
    return count;
}

/*
 * How many chunks from @index on, of which the run needs @count, are worth one
 * request: twice as many for each that was made before in the same span.
 */
static uint64_t chunks_to_register(const RdmaSink *sink, const Target *t,
                                   uint64_t index, uint64_t count)
{
    unsigned bits = sink->hello.chunk_bits;
    unsigned shift = RDMA_SPAN_BITS - MIN(bits, RDMA_SPAN_BITS);
    uint64_t first = index >> shift << shift;
    uint64_t end = MIN(first + (1ull << shift),
                       DIV_ROUND_UP(t->block.bytes, 1ull << bits));
    uint64_t most = count;
    struct ibv_mr *last = NULL;

    for (uint64_t i = first; i < end; i++) {
        if (t->chunks[i].mr && t->chunks[i].mr != last) {
            most *= 2;
        }
        last = t->chunks[i].mr;
    }
    return index + count < end
           ? count_alike(t, index, MIN(index + most, end) - 1) : count;
}

/*
 * What the run is registered as, from its beginning on for *@bytes.  What is
 * not yet is registered as far as the run goes, and no farther: what is
 * registered takes memory on both sides.
 */
static bool find_keys(RdmaSink *sink, const Gathered *run, Chunk *keys,
                      uint64_t *bytes, Error **errp)
{
    uint64_t first = run->offset >> sink->hello.chunk_bits;
    uint64_t last = (run->offset + run->bytes - 1) >> sink->hello.chunk_bits;
    Target *t = run->target;
    uint64_t count;

    if (sink->hello.pin_all) {
        *keys = (Chunk) { .mr = t->mr, .rkey = t->block.rkey };
        *bytes = run->bytes;
        return true;
    }
    if (!t->chunks) {
        t->chunks = g_new0(Chunk, DIV_ROUND_UP(t->block.bytes,
                                               1ull << sink->hello.chunk_bits));
    }
    count = count_alike(t, first, last);
    if (!t->chunks[first].mr &&
        !register_chunks(sink, t, first,
                         chunks_to_register(sink, t, first, count), errp)) {
        return false;
    }
    *keys = t->chunks[first];
    *bytes = MIN(((first + count) << sink->hello.chunk_bits) - run->offset,
                 run->bytes);
    return true;
}

/*
 * Writing
 */

/* Who writes the span of @t that @offset is in; *@bytes of it at most */
static RdmaLink *choose_link(RdmaSink *sink, const Target *t, uint64_t offset,
                             uint64_t *bytes)
{
    uint64_t number = (t - sink->targets) + (offset >> RDMA_SPAN_BITS);
    unsigned which = number % (sink->others_count + 1);

    if (sink->others_count) {
        *bytes = MIN(*bytes, (1ull << RDMA_SPAN_BITS) -
                     (offset & MAKE_64BIT_MASK(0, RDMA_SPAN_BITS)));
    }
    if (!which) {
        return sink->link;
    }
    sink->others_wrote = true;
    return sink->others[which - 1];
}

static bool write_piece(RdmaSink *sink, Gathered *run, Error **errp)
{
    Target *t = run->target;
    RdmaLink *link;
    uint64_t bytes;
    Chunk keys;

    if (!find_keys(sink, run, &keys, &bytes, errp) ||
        !sink_settle(sink, errp)) {
        return false;
    }
    link = choose_link(sink, t, run->offset, &bytes);
    bytes = MIN(bytes, rdma_link_write_max(link));
    if (!rdma_link_write(link, t->region->host + run->offset,
                         keys.mr->lkey, t->block.address + run->offset,
                         keys.rkey, bytes, errp)) {
        return false;
    }
    run->offset += bytes;
    run->bytes -= bytes;
    return true;
}

/*
 * Copying
 */

static void put_copies(const RdmaSink *sink, WireRdmaPages *wire)
{
    const Copies *c = &sink->copies;
    uint8_t *to = (uint8_t *)(wire + c->count);

    for (unsigned i = 0; i < c->count; i++) {
        const RdmaExtent *e = &c->list[i];
        const Target *t = &sink->targets[e->block];

        rdma_fill_pages(&wire[i], e, t->block.start);
        memcpy(to, t->region->host + e->offset, e->bytes);
        to += e->bytes;
    }
}

/* The destination is sent what was put aside. */
static bool tell_copies(RdmaSink *sink)
{
    Copies *c = &sink->copies;
    g_autofree WireRdmaPages *wire = NULL;
    Error *err = NULL;
    bool ok;

    if (!c->count) {
        return true;
    }
    wire = g_malloc(c->bytes);
    put_copies(sink, wire);
    ok = sink_open(sink, &err) && finish_others(sink, &err) &&
         sink_tell_many(sink, WIRE_RDMA_PAGES, c->count, wire, c->bytes, &err);
    c->count = c->bytes = 0;
    return ok || sink_fail(sink, err);
}

/* Puts @run aside, with others. */
static bool add_copy(RdmaSink *sink, const Gathered *run)
{
    Copies *c = &sink->copies;
    uint32_t bytes = sizeof(WireRdmaPages) + run->bytes;

    if ((c->count == RDMA_COPY_RUNS || c->bytes + bytes > WIRE_RDMA_DATA_MAX) &&
        !tell_copies(sink)) {
        return false;
    }
    c->list[c->count++] = (RdmaExtent) {
        .block = run->target - sink->targets, .offset = run->offset,
        .bytes = run->bytes,
    };
    c->bytes += bytes;
    return true;
}

/* What was gathered, and nothing is any more */
static bool write_gathered(RdmaSink *sink)
{
    Gathered run = sink->run;
    Error *err = NULL;

    sink->run.bytes = 0;
    if (!run.bytes) {
        return true;
    }
    if (sink->hello.copies && run.bytes <= RDMA_COPY_MAX) {
        return add_copy(sink, &run);
    }
    if (!sink_open(sink, &err)) {
        return sink_fail(sink, err);
    }
    while (run.bytes) {
        if (!write_piece(sink, &run, &err)) {
            return sink_fail(sink, err);
        }
    }
    return true;
}

static bool use_stream(RdmaSink *sink)
{
    return !sink->introduced || stream_is_kept(sink->file);
}

/*
 * Zeros that were gathered
 */

/* The destination is told of them. */
static bool tell_gathered(RdmaSink *sink)
{
    ZeroRanges *z = &sink->zeros;
    g_autofree WireRdmaZeros *wire = NULL;
    unsigned count = z->count;
    Error *err = NULL;

    z->count = 0;
    if (!count) {
        return true;
    }
    wire = g_new(WireRdmaZeros, count);
    for (unsigned i = 0; i < count; i++) {
        rdma_fill_zeros(&wire[i], &z->list[i], z->target->block.start);
    }
    return (sink_open(sink, &err) && finish_others(sink, &err) &&
            sink_tell_many(sink, WIRE_RDMA_ZEROS, count, wire,
                           count * sizeof(*wire), &err)) ||
           sink_fail(sink, err);
}

/* @bytes at @offset are given: what is before @zeros.end may be in them. */
static bool pass_by(RdmaSink *sink, Target *t, uint64_t offset, uint64_t bytes)
{
    ZeroRanges *z = &sink->zeros;

    if ((z->target != t || offset < z->end) && !tell_gathered(sink)) {
        return false;
    }
    z->target = t;
    z->end = offset + bytes;
    return true;
}

static bool sink_gather_zeros(RdmaSink *sink, Target *t, uint64_t offset,
                              uint64_t bytes)
{
    ZeroRanges *z = &sink->zeros;
    RdmaExtent *last = z->count ? &z->list[z->count - 1] : NULL;
    bool follows;

    /* If it is not behind all that was given, the last one is told of now. */
    follows = last && z->target == t && z->end == offset &&
              last->offset + last->bytes == offset;
    if (!pass_by(sink, t, offset, bytes)) {
        return false;
    }
    if (follows) {
        last->bytes += bytes;
        return true;
    }
    z->list[z->count++] = (RdmaExtent) {
        .block = t - sink->targets, .offset = offset, .bytes = bytes,
    };
    return z->count < RDMA_ZEROS_RANGES || tell_gathered(sink);
}

static void rdma_sink_pages(RamSink *base, const RamRegion *r, uint64_t first,
                            unsigned count)
{
    RdmaSink *sink = rdma_sink(base);
    Target *t = sink->by_region[r->index];
    uint64_t offset = first << r->page_bits;
    uint64_t bytes = (uint64_t)count << r->page_bits;
    Gathered *run = &sink->run;

    if (sink_error(sink)) {
        return;
    }
    if (use_stream(sink)) {
        ram_sink_pages(&sink->stream->sink, r, first, count);
        return;
    }
    if (!pass_by(sink, t, offset, bytes)) {
        return;
    }
    if (run->bytes && (run->target != t ||
                       run->offset + run->bytes != offset ||
                       run->bytes + bytes > RDMA_WRITE_MAX)) {
        if (!write_gathered(sink)) {
            return;
        }
    }
    if (!run->bytes) {
        *run = (Gathered) { .target = t, .offset = offset };
    }
    run->bytes += bytes;
    /* The limit is kept to by what was given, as nothing else is in between. */
    sink->given += bytes;
    stat64_add(&mig_stats.rdma_bytes, bytes);
}

/* Its memory is newer at most, and then it is given again. */
static void rdma_sink_copy(RamSink *base, const RamRegion *r, uint64_t first,
                           unsigned count, const void *bytes)
{
    rdma_sink_pages(base, r, first, count);
}

static bool sink_tell_zeros(RdmaSink *sink, Target *t, uint64_t offset,
                            uint64_t bytes, Error **errp)
{
    while (bytes) {
        RdmaExtent zeros = {
            .block = t - sink->targets,
            .offset = offset,
            .bytes = MIN(bytes, RDMA_ZEROS_MAX),
        };
        WireRdmaZeros wire;

        rdma_fill_zeros(&wire, &zeros, t->block.start);
        if (!sink_tell(sink, WIRE_RDMA_ZEROS, &wire, sizeof(wire), errp)) {
            return false;
        }
        offset += zeros.bytes;
        bytes -= zeros.bytes;
    }
    return true;
}

static void rdma_sink_zeros(RamSink *base, const RamRegion *r, uint64_t first,
                            uint64_t count)
{
    RdmaSink *sink = rdma_sink(base);
    uint64_t offset = first << r->page_bits, bytes = count << r->page_bits;
    bool has_range = sink->stream->peer & WIRE_PEER_ZERO_RANGE;
    Target *t = sink->by_region[r->index];
    Error *err = NULL;

    if (sink_error(sink) || !count) {
        return;
    }
    if (use_stream(sink) || (has_range && !sink->open && !sink->run.bytes &&
                             !sink->zeros.count && !sink->copies.count)) {
        ram_sink_zeros(&sink->stream->sink, r, first, count);
        return;
    }
    if (bytes < (sink->hello.peers ? RDMA_ZEROS_MANY : RDMA_ZEROS_ONE) &&
        ram_region_here(r)) {
        rdma_sink_pages(base, r, first, count);
        return;
    }
    if (sink->hello.peers) {
        sink_gather_zeros(sink, t, offset, bytes);
        return;
    }
    if (write_gathered(sink) &&
        (!sink_open(sink, &err) ||
         !sink_tell_zeros(sink, t, offset, bytes, &err))) {
        sink_fail(sink, err);
    }
}

/* Nothing that was given is kept back.  A write comes last if there is one. */
static bool give_all(RdmaSink *sink)
{
    if (sink->hello.copies && sink->run.bytes <= RDMA_COPY_MAX &&
        !write_gathered(sink)) {
        return false;
    }
    return tell_gathered(sink) && tell_copies(sink) && write_gathered(sink);
}

static int rdma_sink_flush(RamSink *base)
{
    RdmaSink *sink = rdma_sink(base);
    Error *err = NULL;

    /* The completion of the write that comes last can be requested. */
    if (!sink_error(sink) && give_all(sink) &&
        !(rdma_link_finish_writes(sink->link, &err) &&
          finish_others(sink, &err))) {
        sink_fail(sink, err);
    }
    return sink_error(sink);
}

static int rdma_sink_end_pass(RamSink *base)
{
    /* Writes and messages arrive in order, but for what was gathered. */
    RdmaSink *sink = rdma_sink(base);

    if (!sink_error(sink)) {
        give_all(sink);
    }
    return sink_error(sink);
}

static int rdma_sink_end(RamSink *base)
{
    RdmaSink *sink = rdma_sink(base);
    Error *err = NULL;

    if (rdma_sink_flush(base)) {
        return sink_error(sink);
    }
    if (sink->open) {
        sink->open = false;
        if (!sink_tell(sink, WIRE_RDMA_FINISHED, NULL, 0, &err)) {
            sink_fail(sink, err);
            return sink_error(sink);
        }
    }
    return ram_sink_end(&sink->stream->sink);
}

static uint64_t rdma_sink_position(RamSink *base)
{
    RdmaSink *sink = rdma_sink(base);

    return stream_position(sink->file) + sink->given;
}

static int rdma_sink_error(RamSink *base)
{
    return sink_error(rdma_sink(base));
}

static void rdma_sink_fail(RamSink *base, int ret, Error *err)
{
    qemu_file_set_error_obj(rdma_sink(base)->file, ret, err);
}

static const RamSinkOps rdma_sink_ops = {
    .pages = rdma_sink_pages,
    .copy = rdma_sink_copy,
    .zeros = rdma_sink_zeros,
    .flush = rdma_sink_flush,
    .end_pass = rdma_sink_end_pass,
    .end = rdma_sink_end,
    .position = rdma_sink_position,
    .error = rdma_sink_error,
    .fail = rdma_sink_fail,
};

RdmaSink *rdma_sink_new(RdmaLink *link, const RdmaHello *hello,
                        RdmaLink *const *others, unsigned count,
                        RamStreamSink *stream, const RamRegions *regions)
{
    RdmaSink *sink = g_new0(RdmaSink, 1);

    sink->base.ops = &rdma_sink_ops;
    sink->base.zeros_at_once = stream->sink.zeros_at_once;
    sink->stream = stream;
    sink->file = stream->file;
    sink->link = link;
    sink->others = others;
    sink->others_count = count;
    sink->hello = *hello;
    sink->targets = g_new0(Target, regions->count);
    sink->by_region = g_new0(Target *, regions->count);
    RAM_REGIONS_FOREACH(r, regions) {
        if (!r->ignored) {
            Target *t = &sink->targets[sink->count++];

            t->region = r;
            sink->by_region[r->index] = t;
        }
    }
    return sink;
}

void rdma_sink_free(RdmaSink *sink)
{
    if (sink) {
        for (unsigned i = 0; i < sink->count; i++) {
            g_free(sink->targets[i].chunks);
        }
        g_free(sink->targets);
        g_free(sink->by_region);
        g_free(sink);
    }
}

RamSink *rdma_sink_base(RdmaSink *sink)
{
    return &sink->base;
}
