/*
 * Memory that comes by RDMA: the destination's part
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "migration/ram/load.h"
#include "migration/ram/zero-gather.h"
#include "load.h"

/* A block that the source has listed */
typedef struct Listed {
    RamRegion *region;
    struct ibv_mr **mrs;        /* at the chunk where they begin; or NULL */
} Listed;

struct RdmaLoad {
    RdmaLink *link;
    RdmaHello hello;
    Listed *listed;             /* in the order of the source's list */
    RdmaBlock *blocks;          /* the same, as the source knows them */
    unsigned count;             /* 0: they were not requested yet */
};

typedef bool TakeMessage(RdmaLoad *load, const RdmaMessage *m,
                         RamRegions *regions, Error **errp);

/*
 * Blocks
 */

static void forget_blocks(RdmaLoad *load)
{
    for (unsigned i = 0; i < load->count; i++) {
        g_free(load->listed[i].mrs);
    }
    g_clear_pointer(&load->listed, g_free);
    g_clear_pointer(&load->blocks, g_free);
    load->count = 0;
}

static int by_announced(const void *a, const void *b)
{
    const Listed *x = a, *y = b;

    return (int)x->region->announced - (int)y->region->announced;
}

static void list_blocks(RdmaLoad *load, RamRegions *regions)
{
    load->listed = g_new0(Listed, regions->count);
    load->blocks = g_new0(RdmaBlock, regions->count);
    RAM_REGIONS_FOREACH(r, regions) {
        if (!r->ignored && r->announced) {
            load->listed[load->count++].region = r;
        }
    }
    qsort(load->listed, load->count, sizeof(Listed), by_announced);
    for (unsigned i = 0; i < load->count; i++) {
        RamRegion *r = load->listed[i].region;

        load->blocks[i] = (RdmaBlock) {
            .address = (uintptr_t)r->host,
            .bytes = ram_region_bytes(r),
        };
    }
}

static bool check_writable(const RamRegion *r, Error **errp)
{
    if (r->read_only) {
        error_setg(errp, "RAM block '%s' is read-only here, and nothing can be "
                   "written to it over RDMA; use tcp:HOST:PORT", r->name);
        return false;
    }
    return true;
}

/* @extent of @r has whole pages that can be written to. */
static bool check_pages(const char *what, const RamRegion *r,
                        const RdmaExtent *extent, Error **errp)
{
    if ((extent->offset | extent->bytes) & (ram_region_page_size(r) - 1)) {
        error_setg(errp, "%s: 0x%" PRIx64 " bytes at 0x%" PRIx64 " are no "
                   "pages", what, extent->bytes, extent->offset);
        return false;
    }
    return check_writable(r, errp);
}

static bool pin_blocks(RdmaLoad *load, Error **errp)
{
    for (unsigned i = 0; i < load->count; i++) {
        RamRegion *r = load->listed[i].region;
        struct ibv_mr *mr;

        if (!check_writable(r, errp)) {
            return false;
        }
        mr = rdma_link_register(load->link, r->host, ram_region_bytes(r), true,
                                r->name, errp);
        if (!mr) {
            return false;
        }
        load->blocks[i].rkey = mr->rkey;
    }
    return true;
}

/*
 * Which pages are written is not known here.  That matters when postcopy
 * begins: before, the source says which pages are still to come, and all others
 * are here by then.
 */
static void expect_all(RdmaLoad *load)
{
    for (unsigned i = 0; i < load->count; i++) {
        RamRegion *r = load->listed[i].region;

        ram_load_arrived(r, 0, r->pages);
    }
}

static bool take_blocks_request(RdmaLoad *load, const RdmaMessage *m,
                                RamRegions *regions, Error **errp)
{
    g_autofree WireRdmaBlock *wire = NULL;

    if (load->count) {
        error_setg(errp, "the source requests the RAM blocks twice");
        return false;
    }
    list_blocks(load, regions);
    if (!load->count || load->count > WIRE_RDMA_BLOCKS_MAX) {
        error_setg(errp, "there are %u RAM blocks, and RDMA needs 1 to %zu",
                   load->count, WIRE_RDMA_BLOCKS_MAX);
        return false;
    }
    if (load->hello.pin_all && !pin_blocks(load, errp)) {
        return false;
    }
    expect_all(load);
    wire = g_new0(WireRdmaBlock, load->count);
    for (unsigned i = 0; i < load->count; i++) {
        rdma_fill_block(&wire[i], &load->blocks[i]);
    }
    return rdma_link_send(load->link, WIRE_RDMA_BLOCKS_RESULT, 1, wire,
                          load->count * sizeof(*wire), true, errp);
}

/*
 * Registration
 */

/* So many chunks has a block. */
static uint64_t block_chunks(const RdmaLoad *load, uint32_t block)
{
    return DIV_ROUND_UP(load->blocks[block].bytes,
                        1ull << load->hello.chunk_bits);
}

/* What is registered at the chunk where @extent begins; NULL: nothing */
static struct ibv_mr **mr_of(RdmaLoad *load, const RdmaExtent *extent)
{
    Listed *l = &load->listed[extent->block];

    if (!l->mrs) {
        l->mrs = g_new0(struct ibv_mr *, block_chunks(load, extent->block));
    }
    return &l->mrs[extent->offset >> load->hello.chunk_bits];
}

static bool register_extent(RdmaLoad *load, const RdmaExtent *extent,
                            RdmaKey *key, Error **errp)
{
    struct ibv_mr **mr = mr_of(load, extent);
    RamRegion *r = load->listed[extent->block].region;

    if (*mr && (*mr)->length < extent->bytes) {
        error_setg(errp, "RAM block '%s', offset 0x%" PRIx64 ": %" PRIu64
                   " bytes are to be registered, where %zu have been",
                   r->name, extent->offset, extent->bytes, (*mr)->length);
        return false;
    }
    if (!*mr) {
        if (!check_writable(r, errp)) {
            return false;
        }
        *mr = rdma_link_register(load->link, r->host + extent->offset,
                                 extent->bytes, true, r->name, errp);
    }
    if (!*mr) {
        return false;
    }
    *key = (RdmaKey) {
        .rkey = (*mr)->rkey, .address = load->blocks[extent->block].address,
    };
    return true;
}

static bool take_register(RdmaLoad *load, const RdmaMessage *m,
                          RamRegions *regions, Error **errp)
{
    const WireRdmaRegister *request = m->data;
    g_autofree WireRdmaKey *wire = g_new0(WireRdmaKey, m->head.repeat);

    for (unsigned i = 0; i < m->head.repeat; i++) {
        RdmaExtent extent;
        RdmaKey key;

        if (!rdma_check_register(&request[i], load->blocks, load->count,
                                 load->hello.chunk_bits, &extent, errp) ||
            !register_extent(load, &extent, &key, errp)) {
            return false;
        }
        rdma_fill_key(&wire[i], &key);
    }
    return rdma_link_send(load->link, WIRE_RDMA_REGISTER_RESULT,
                          m->head.repeat, wire, m->head.repeat * sizeof(*wire),
                          true, errp);
}

static bool take_unregister(RdmaLoad *load, const RdmaMessage *m,
                            RamRegions *regions, Error **errp)
{
    const WireRdmaRegister *request = m->data;

    for (unsigned i = 0; i < m->head.repeat; i++) {
        uint32_t block = ldl_be_p(&request[i].block);
        uint64_t chunk = ldq_be_p(&request[i].offset);
        struct ibv_mr **mrs = block < load->count ? load->listed[block].mrs
                                                  : NULL;

        if (!mrs || chunk >= block_chunks(load, block) || !mrs[chunk]) {
            error_setg(errp, "chunk %" PRIu64 " of block %" PRIu32 " is to be "
                       "unregistered, and is not registered", chunk, block);
            return false;
        }
        if (!rdma_link_unregister(load->link, mrs[chunk], errp)) {
            return false;
        }
        mrs[chunk] = NULL;
    }
    return rdma_link_send(load->link, WIRE_RDMA_UNREGISTER_RESULT,
                          m->head.repeat, NULL, 0, true, errp);
}

/*
 * Zeros
 */

static bool clear_extent(RdmaLoad *load, const WireRdmaZeros *wire,
                         Error **errp)
{
    ZeroGather zeros = { };
    RdmaExtent extent;
    RamRegion *r;

    if (!rdma_check_zeros(wire, load->blocks, load->count, &extent, errp)) {
        return false;
    }
    r = load->listed[extent.block].region;
    if (!check_pages("ZEROS", r, &extent, errp)) {
        return false;
    }
    zero_gather_add(&zeros, r, extent.offset >> r->page_bits,
                    extent.bytes >> r->page_bits);
    while (zeros.pages) {
        zero_gather_clear(&zeros, UINT64_MAX);
    }
    return true;
}

static bool load_zeros(RdmaLoad *load, const RdmaMessage *m,
                       RamRegions *regions, Error **errp)
{
    const WireRdmaZeros *wire = m->data;

    for (unsigned i = 0; i < m->head.repeat; i++) {
        if (!clear_extent(load, &wire[i], errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Pages in messages
 */

static bool copy_extent(RdmaLoad *load, const WireRdmaPages *wire,
                        const uint8_t **from, int64_t *left, Error **errp)
{
    RdmaExtent extent;
    RamRegion *r;

    if (!rdma_check_pages(wire, load->blocks, load->count, *left, &extent,
                          errp)) {
        return false;
    }
    r = load->listed[extent.block].region;
    if (!check_pages("PAGES", r, &extent, errp)) {
        return false;
    }
    memcpy(r->host + extent.offset, *from, extent.bytes);
    *from += extent.bytes;
    *left -= extent.bytes;
    return true;
}

static bool take_copies(RdmaLoad *load, const RdmaMessage *m,
                       RamRegions *regions, Error **errp)
{
    const WireRdmaPages *wire = m->data;
    const uint8_t *from = (const uint8_t *)(wire + m->head.repeat);
    int64_t left;

    if (!load->hello.copies) {
        error_setg(errp, "the source sent the RDMA message PAGES, which was "
                   "not agreed upon");
        return false;
    }
    left = rdma_check_pages_data(m->head.len, m->head.repeat, errp);
    if (left < 0) {
        return false;
    }
    for (unsigned i = 0; i < m->head.repeat; i++) {
        if (!copy_extent(load, &wire[i], &from, &left, errp)) {
            return false;
        }
    }
    if (left) {
        error_setg(errp, "PAGES: %" PRId64 " bytes belong to no page", left);
        return false;
    }
    return true;
}

/*
 * Messages
 */

static TakeMessage *const take[WIRE_RDMA_TYPES] = {
    [WIRE_RDMA_BLOCKS_REQUEST] = take_blocks_request,
    [WIRE_RDMA_ZEROS] = load_zeros,
    [WIRE_RDMA_REGISTER_REQUEST] = take_register,
    [WIRE_RDMA_UNREGISTER_REQUEST] = take_unregister,
    [WIRE_RDMA_PAGES] = take_copies,
};

static bool next_of_part(RdmaLoad *load, RdmaMessage *m, Error **errp)
{
    if (!rdma_link_send(load->link, WIRE_RDMA_READY, 1, NULL, 0, true, errp)) {
        return false;
    }
    switch (rdma_link_receive(load->link, true, m, errp)) {
    case RDMA_ARRIVED:
        return true;
    case RDMA_ENDED:
        error_setg(errp, "the source closed the RDMA connection while memory "
                   "was being sent");
        return false;
    default:
        return false;
    }
}

static bool load_part(RdmaLoad *load, RamRegions *regions, Error **errp)
{
    RdmaMessage m;

    for (;;) {
        if (!next_of_part(load, &m, errp)) {
            return false;
        }
        if (m.head.type == WIRE_RDMA_FINISHED) {
            return rdma_link_done(load->link, &m, errp);
        }
        if (!take[m.head.type]) {
            error_setg(errp, "the source sent the RDMA message %s, which may "
                       "not come here", rdma_type_name(m.head.type));
            return false;
        }
        if (!take[m.head.type](load, &m, regions, errp) ||
            !rdma_link_done(load->link, &m, errp)) {
            return false;
        }
    }
}

bool rdma_load_part(RdmaLoad *load, RamRegions *regions, Error **errp)
{
    ERRP_GUARD();

    if (load_part(load, regions, errp)) {
        return true;
    }
    error_prepend(errp, "memory over RDMA: ");
    /* If that does not work either, the end of the connection tells it. */
    if (rdma_link_send(load->link, WIRE_RDMA_ERROR, 1, NULL, 0, true, NULL)) {
        rdma_link_drain(load->link, NULL);
    }
    return false;
}

RdmaLoad *rdma_load_new(RdmaLink *link, const RdmaHello *hello)
{
    RdmaLoad *load = g_new0(RdmaLoad, 1);

    load->link = link;
    load->hello = *hello;
    return load;
}

void rdma_load_free(RdmaLoad *load)
{
    if (load) {
        forget_blocks(load);
        g_free(load);
    }
}
