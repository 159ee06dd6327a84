/*
 * RDMA, protocol version 1: control messages as bytes, and what they may say
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "rdma.h"

/* What the data of a type consists of */
typedef struct DataShape {
    const char *name;
    uint32_t entry;             /* bytes of one entry; 0: there is no data */
    uint32_t min, max;          /* bytes */
    bool counted;               /* repeat is the number of entries */
} DataShape;

#define ENTRIES(type, most) \
    .entry = sizeof(type), .min = sizeof(type), \
    .max = (most) * sizeof(type)

static const DataShape shapes[WIRE_RDMA_TYPES] = {
    [WIRE_RDMA_ERROR] = { "ERROR" },
    [WIRE_RDMA_READY] = { "READY" },
    [WIRE_RDMA_STREAM] = {
        "STREAM", .entry = 1, .min = 1, .max = WIRE_RDMA_DATA_MAX,
    },
    [WIRE_RDMA_BLOCKS_REQUEST] = { "BLOCKS_REQUEST" },
    [WIRE_RDMA_BLOCKS_RESULT] = {
        "BLOCKS_RESULT", ENTRIES(WireRdmaBlock, WIRE_RDMA_BLOCKS_MAX),
    },
    [WIRE_RDMA_ZEROS] = {
        "ZEROS", ENTRIES(WireRdmaZeros, WIRE_RDMA_ENTRIES_MAX),
        .counted = true,
    },
    [WIRE_RDMA_REGISTER_REQUEST] = {
        "REGISTER_REQUEST", ENTRIES(WireRdmaRegister, WIRE_RDMA_ENTRIES_MAX),
        .counted = true,
    },
    /* Other versions send one entry, whatever they say in repeat. */
    [WIRE_RDMA_REGISTER_RESULT] = {
        "REGISTER_RESULT", ENTRIES(WireRdmaKey, WIRE_RDMA_ENTRIES_MAX),
    },
    [WIRE_RDMA_FINISHED] = { "FINISHED" },
    [WIRE_RDMA_UNREGISTER_REQUEST] = {
        "UNREGISTER_REQUEST", ENTRIES(WireRdmaRegister, WIRE_RDMA_ENTRIES_MAX),
        .counted = true,
    },
    [WIRE_RDMA_UNREGISTER_RESULT] = { "UNREGISTER_RESULT" },
    /* See rdma_check_pages_data(). */
    [WIRE_RDMA_PAGES] = {
        "PAGES", .entry = 1, .min = sizeof(WireRdmaPages) + 1,
        .max = WIRE_RDMA_DATA_MAX,
    },
};

const char *rdma_type_name(uint32_t type)
{
    return type < WIRE_RDMA_TYPES && shapes[type].name ? shapes[type].name
                                                       : "unknown";
}

/*
 * Connections
 */

void rdma_fill_hello(WireRdmaHello *wire, const RdmaHello *hello)
{
    uint32_t flags = hello->pin_all ? WIRE_RDMA_PIN_ALL : 0;

    if (hello->peers) {
        flags |= WIRE_RDMA_PEERS | (hello->copies ? WIRE_RDMA_COPIES : 0) |
                 (hello->writes_only ? WIRE_RDMA_WRITES_ONLY : 0) |
                 (hello->window ? WIRE_RDMA_WINDOW : 0) |
                 hello->more << WIRE_RDMA_MORE_SHIFT |
                 (hello->chunk_bits - WIRE_RDMA_CHUNK_BITS) <<
                 WIRE_RDMA_CHUNK_SHIFT;
    }
    stl_be_p(&wire->version, WIRE_RDMA_VERSION);
    stl_be_p(&wire->flags, flags);
}

bool rdma_check_hello(const void *bytes, size_t len, RdmaHello *hello,
                      Error **errp)
{
    const WireRdmaHello *wire = bytes;
    uint32_t version, flags;
    RdmaHello h = { };

    if (len < sizeof(*wire)) {
        error_setg(errp, "the connection came with %zu bytes of private data, "
                   "and %zu are needed: the peer is no QEMU", len,
                   sizeof(*wire));
        return false;
    }
    version = ldl_be_p(&wire->version);
    if (version != WIRE_RDMA_VERSION) {
        error_setg(errp, "the peer uses version %" PRIu32 " of the RDMA "
                   "protocol, and only version %d is known here", version,
                   WIRE_RDMA_VERSION);
        return false;
    }
    flags = ldl_be_p(&wire->flags);
    h.pin_all = flags & WIRE_RDMA_PIN_ALL;
    h.peers = flags & WIRE_RDMA_PEERS;
    if (h.peers) {
        h.copies = flags & WIRE_RDMA_COPIES;
        h.writes_only = flags & WIRE_RDMA_WRITES_ONLY;
        h.window = flags & WIRE_RDMA_WINDOW;
        h.more = (flags & WIRE_RDMA_MORE) >> WIRE_RDMA_MORE_SHIFT;
        h.chunk_bits = WIRE_RDMA_CHUNK_BITS +
                       ((flags & WIRE_RDMA_CHUNK) >> WIRE_RDMA_CHUNK_SHIFT);
    }
    if (h.chunk_bits > WIRE_RDMA_CHUNK_BITS_MAX) {
        error_setg(errp, "the peer registers memory in chunks of 2^%u bytes, "
                   "and 2^%d is the limit", h.chunk_bits,
                   WIRE_RDMA_CHUNK_BITS_MAX);
        return false;
    }
    if (h.more > WIRE_RDMA_MORE_MAX) {
        error_setg(errp, "the peer announces %u connections for writes, and "
                   "%d are the limit", h.more, WIRE_RDMA_MORE_MAX);
        return false;
    }
    *hello = h;
    return true;
}

/*
 * Heads
 */

void rdma_fill_head(WireRdmaHead *wire, WireRdmaType type, uint32_t len,
                    uint32_t repeat)
{
    *wire = (WireRdmaHead) { };
    stl_be_p(&wire->len, len);
    stl_be_p(&wire->type, type);
    stl_be_p(&wire->repeat, repeat);
}

static bool length_fits(const DataShape *shape, const RdmaHead *head,
                        Error **errp)
{
    if (head->len < shape->min || head->len > shape->max ||
        (shape->entry && head->len % shape->entry)) {
        error_setg(errp, "%s message with %" PRIu32 " bytes of data, where "
                   "%" PRIu32 " to %" PRIu32 " are possible", shape->name,
                   head->len, shape->min, shape->max);
        return false;
    }
    if (shape->counted && head->len / shape->entry != head->repeat) {
        error_setg(errp, "%s message of %" PRIu32 " entries with data for "
                   "%" PRIu32, shape->name, head->repeat,
                   head->len / shape->entry);
        return false;
    }
    return true;
}

bool rdma_check_head(const void *bytes, size_t received, RdmaHead *head,
                     Error **errp)
{
    const WireRdmaHead *wire = bytes;
    RdmaHead h;

    if (received < sizeof(*wire) || received > WIRE_RDMA_MESSAGE_MAX) {
        error_setg(errp, "message of %zu bytes, where %zu to %d are possible",
                   received, sizeof(*wire), WIRE_RDMA_MESSAGE_MAX);
        return false;
    }
    h = (RdmaHead) {
        .type = ldl_be_p(&wire->type),
        .len = ldl_be_p(&wire->len),
        .repeat = ldl_be_p(&wire->repeat),
    };
    if (h.type >= WIRE_RDMA_TYPES || !shapes[h.type].name) {
        error_setg(errp, "message of unknown type %" PRIu32,
                   (uint32_t)h.type);
        return false;
    }
    if (h.len != received - sizeof(*wire)) {
        error_setg(errp, "%s message with %" PRIu32 " bytes of data, of which "
                   "%zu arrived", shapes[h.type].name, h.len,
                   received - sizeof(*wire));
        return false;
    }
    if (h.repeat > WIRE_RDMA_ENTRIES_MAX) {
        error_setg(errp, "%s message of %" PRIu32 " entries, where %d are the "
                   "limit", shapes[h.type].name, h.repeat,
                   WIRE_RDMA_ENTRIES_MAX);
        return false;
    }
    if (!length_fits(&shapes[h.type], &h, errp)) {
        return false;
    }
    *head = h;
    return true;
}

/*
 * Blocks
 */

void rdma_fill_block(WireRdmaBlock *wire, const RdmaBlock *block)
{
    *wire = (WireRdmaBlock) { };
    stq_be_p(&wire->address, block->address);
    stq_be_p(&wire->start, block->start);
    stq_be_p(&wire->bytes, block->bytes);
    stl_be_p(&wire->rkey, block->rkey);
}

bool rdma_check_block(const WireRdmaBlock *wire, const char *name,
                      uint64_t bytes, RdmaBlock *block, Error **errp)
{
    RdmaBlock b = {
        .address = ldq_be_p(&wire->address),
        .start = ldq_be_p(&wire->start),
        .bytes = ldq_be_p(&wire->bytes),
        .rkey = ldl_be_p(&wire->rkey),
    };

    if (b.bytes != bytes) {
        error_setg(errp, "RAM block '%s' has %" PRIu64 " bytes here and "
                   "%" PRIu64 " on the destination; both sides must have the "
                   "same memory and devices", name, bytes, b.bytes);
        return false;
    }
    if (b.bytes > UINT64_MAX - b.address || b.bytes > UINT64_MAX - b.start) {
        error_setg(errp, "RAM block '%s' is at 0x%" PRIx64 ", counted from "
                   "0x%" PRIx64 ", on the destination, and does not end there",
                   name, b.address, b.start);
        return false;
    }
    *block = b;
    return true;
}

/* *@offset, which has the block's start in it, becomes one in the block. */
static bool find_extent(const char *what, const RdmaBlock *blocks,
                        unsigned count, uint32_t index, uint64_t *offset,
                        Error **errp)
{
    if (index >= count) {
        error_setg(errp, "%s: block %" PRIu32 ", where there are %u", what,
                   index, count);
        return false;
    }
    if (*offset < blocks[index].start ||
        *offset - blocks[index].start >= blocks[index].bytes) {
        error_setg(errp, "%s: offset 0x%" PRIx64 " is not in block %" PRIu32
                   ", which has %" PRIu64 " bytes from 0x%" PRIx64 " on", what,
                   *offset, index, blocks[index].bytes, blocks[index].start);
        return false;
    }
    *offset -= blocks[index].start;
    return true;
}

/* @extent, which begins in its block, ends there as well. */
static bool extent_fits(const char *what, const RdmaBlock *blocks,
                        const RdmaExtent *extent, Error **errp)
{
    uint64_t bytes = blocks[extent->block].bytes;

    if (!extent->bytes || extent->bytes > bytes - extent->offset) {
        error_setg(errp, "%s: %" PRIu64 " bytes at offset 0x%" PRIx64
                   " of block %" PRIu32 ", which has %" PRIu64, what,
                   extent->bytes, extent->offset, extent->block, bytes);
        return false;
    }
    return true;
}

void rdma_fill_zeros(WireRdmaZeros *wire, const RdmaExtent *zeros,
                     uint64_t start)
{
    *wire = (WireRdmaZeros) { };
    stl_be_p(&wire->block, zeros->block);
    stq_be_p(&wire->offset, start + zeros->offset);
    stq_be_p(&wire->bytes, zeros->bytes);
}

bool rdma_check_zeros(const WireRdmaZeros *wire, const RdmaBlock *blocks,
                      unsigned count, RdmaExtent *zeros, Error **errp)
{
    uint32_t value = ldl_be_p(&wire->value);
    RdmaExtent z = {
        .block = ldl_be_p(&wire->block),
        .offset = ldq_be_p(&wire->offset),
        .bytes = ldq_be_p(&wire->bytes),
    };

    if (value) {
        error_setg(errp, "ZEROS: the value is %" PRIu32 ", and only 0 is "
                   "possible", value);
        return false;
    }
    if (!find_extent("ZEROS", blocks, count, z.block, &z.offset, errp)) {
        return false;
    }
    if (!extent_fits("ZEROS", blocks, &z, errp)) {
        return false;
    }
    *zeros = z;
    return true;
}

void rdma_fill_register(WireRdmaRegister *wire, const RdmaExtent *extent,
                        uint64_t start, unsigned chunk_bits)
{
    *wire = (WireRdmaRegister) { };
    stq_be_p(&wire->offset, start + extent->offset);
    stl_be_p(&wire->block, extent->block);
    stq_be_p(&wire->more, (extent->bytes - 1) >> chunk_bits);
}

bool rdma_check_register(const WireRdmaRegister *wire, const RdmaBlock *blocks,
                         unsigned count, unsigned chunk_bits,
                         RdmaExtent *extent, Error **errp)
{
    uint64_t more = ldq_be_p(&wire->more), offset = ldq_be_p(&wire->offset);
    uint32_t index = ldl_be_p(&wire->block);
    uint64_t chunk, chunks;

    if (!find_extent("REGISTER", blocks, count, index, &offset, errp)) {
        return false;
    }
    chunk = offset >> chunk_bits;
    chunks = DIV_ROUND_UP(blocks[index].bytes, 1ull << chunk_bits);
    if (more >= chunks - chunk) {
        error_setg(errp, "REGISTER: %" PRIu64 " chunks after chunk %" PRIu64
                   " of block %" PRIu32 ", which has %" PRIu64, more, chunk,
                   index, chunks);
        return false;
    }
    offset = chunk << chunk_bits;
    *extent = (RdmaExtent) {
        .block = index,
        .offset = offset,
        .bytes = MIN((more + 1) << chunk_bits, blocks[index].bytes - offset),
    };
    return true;
}

/*
 * Pages
 */

void rdma_fill_pages(WireRdmaPages *wire, const RdmaExtent *pages,
                     uint64_t start)
{
    stl_be_p(&wire->block, pages->block);
    stl_be_p(&wire->bytes, pages->bytes);
    stq_be_p(&wire->offset, start + pages->offset);
}

int64_t rdma_check_pages_data(uint32_t len, uint32_t repeat, Error **errp)
{
    uint64_t entries = (uint64_t)repeat * sizeof(WireRdmaPages);

    if (!repeat || entries >= len) {
        error_setg(errp, "PAGES: %" PRIu32 " entries and their pages in "
                   "%" PRIu32 " bytes", repeat, len);
        return -1;
    }
    return len - entries;
}

bool rdma_check_pages(const WireRdmaPages *wire, const RdmaBlock *blocks,
                      unsigned count, uint64_t left, RdmaExtent *pages,
                      Error **errp)
{
    RdmaExtent p = {
        .block = ldl_be_p(&wire->block),
        .offset = ldq_be_p(&wire->offset),
        .bytes = ldl_be_p(&wire->bytes),
    };

    if (!find_extent("PAGES", blocks, count, p.block, &p.offset, errp)) {
        return false;
    }
    if (!extent_fits("PAGES", blocks, &p, errp)) {
        return false;
    }
    if (p.bytes > left) {
        error_setg(errp, "PAGES: %" PRIu64 " bytes at offset 0x%" PRIx64
                   " of block %" PRIu32 ", of which %" PRIu64 " are in the "
                   "message", p.bytes, p.offset, p.block, left);
        return false;
    }
    *pages = p;
    return true;
}

/*
 * Keys
 */

void rdma_fill_key(WireRdmaKey *wire, const RdmaKey *key)
{
    *wire = (WireRdmaKey) { };
    stl_be_p(&wire->rkey, key->rkey);
    stq_be_p(&wire->address, key->address);
}

bool rdma_check_key(const WireRdmaKey *wire, uint64_t address, RdmaKey *key,
                    Error **errp)
{
    RdmaKey k = {
        .rkey = ldl_be_p(&wire->rkey),
        .address = ldq_be_p(&wire->address),
    };

    if (k.address != address) {
        error_setg(errp, "REGISTER_RESULT: the block is at 0x%" PRIx64 ", and "
                   "was at 0x%" PRIx64 " before", k.address, address);
        return false;
    }
    *key = k;
    return true;
}
