/*
 * Loading RAM: the records of the sections named "ram"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/bitops.h"
#include "qemu/cutils.h"
#include "qemu/host-utils.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "load-parts.h"
#include "mapped.h"
#include "xbzrle.h"

/* Bytes asked about at once: clearing them all would take 200 ms or so. */
#define CLEAR_MAX (256 * RAM_LOAD_STRETCH)

/* The part of a record that all have */
typedef struct Record {
    unsigned flags;
    uint64_t value;             /* an offset; of the list, the size of all */
    RamRegion *region;          /* of records about pages, with the page */
    uint64_t page;
} Record;

typedef bool coroutine_mixed_fn TakeRecord(QEMUFile *f, RamLoader *l,
                                           const Record *rec, Error **errp);

typedef struct RecordType {
    TakeRecord *take;           /* NULL: see refusal, or unknown */
    const char *refusal;
    bool about_pages;
    bool from_peer;             /* only in streams of one of our kind */
} RecordType;

/*
 * Failing
 */

bool ram_load_ended(QEMUFile *f, Error **errp)
{
    if (stream_check(f, errp)) {
        error_setg(errp, "The stream ends");
    }
    return false;
}

/* Pages are put in place by others, who must not find them there. */
static bool is_diverted(const RamLoader *l)
{
    return l->pages && l->pages->data;
}

static bool cannot_come_now(const RamLoader *l, const char *what, Error **errp)
{
    if (is_diverted(l)) {
        error_setg(errp, "%s while the guest may be running: the source does "
                   "not keep to the rules of postcopy", what);
        return true;
    }
    return false;
}

static void tell_arrived(RamLoader *l, RamRegion *r, uint64_t first,
                         uint64_t pages)
{
    if (l->pages && l->pages->arrived) {
        l->pages->arrived(l->pages_opaque, r, first, pages);
    }
}

static bool only_on_main(const RamLoader *l, const char *what, Error **errp)
{
    if (l->beside) {
        error_setg(errp, "%s on a channel of multifd, and may only be on the "
                   "main one", what);
        return true;
    }
    return false;
}

static bool list_failed(const RamRegion *r, Error **errp)
{
    error_prepend(errp, "RAM block '%s': ", r->name);
    return false;
}

/*
 * Names.  What the peer calls a block may be no text at all.
 */

static RamRegion *coroutine_mixed_fn get_region(QEMUFile *f, RamLoader *l,
                                                Error **errp)
{
    g_autofree char *shown = NULL;
    char name[WIRE_NAME_MAX + 1];
    size_t len = qemu_get_counted_string(f, name);
    RamRegion *r;

    if (qemu_file_get_error(f)) {
        ram_load_ended(f, errp);
        return NULL;
    }
    r = strlen(name) == len ? ram_regions_find(l->regions, name) : NULL;
    if (!r) {
        shown = g_strescape(name, NULL);
        error_setg(errp, "There is no RAM block '%s' here: this VM must have "
                   "the same memory and devices as the source", shown);
    }
    return r;
}

/*
 * MEM_SIZE: all blocks and their lengths
 */

static bool check_ignored(const RamRegion *r, uint64_t address, Error **errp)
{
    if (r->ignored && address != r->guest_addr) {
        error_setg(errp, "It is at address 0x%" PRIx64 " on the source and at "
                   "0x%" PRIx64 " here, and cannot be shared", address,
                   r->guest_addr);
        return false;
    }
    return true;
}

static bool unusual_page_size(const RamLoader *l, const RamRegion *r)
{
    return r->host_page_size != MAX(qemu_real_host_page_size(),
                                    1ull << l->page_bits);
}

/* What follows the length */
static bool coroutine_mixed_fn check_extras(QEMUFile *f, RamLoader *l,
                                            const RamRegion *r, Error **errp)
{
    bool has_page_size = l->page_sizes && unusual_page_size(l, r);
    uint64_t page_size = has_page_size ? qemu_get_be64(f) : 0;
    uint64_t address = l->addresses ? qemu_get_be64(f) : 0;

    if (qemu_file_get_error(f)) {
        return ram_load_ended(f, errp);
    }
    if (has_page_size && page_size != r->host_page_size) {
        error_setg(errp, "The host's pages have %" PRIu64 " bytes on the "
                   "source and %" PRIu64 " here; they must be the same",
                   page_size, r->host_page_size);
        return false;
    }
    return !l->addresses || check_ignored(r, address, errp);
}

static bool resize(RamLoader *l, RamRegion *r, uint64_t bytes, Error **errp)
{
    ERRP_GUARD();

    if (bytes == ram_region_bytes(r)) {
        return true;
    }
    if (bytes & (ram_region_page_size(r) - 1)) {
        error_setg(errp, "%" PRIu64 " bytes are no whole number of pages",
                   bytes);
        return false;
    }
    if (bytes >> r->page_bits > r->max_pages) {
        error_setg(errp, "It has %" PRIu64 " bytes on the source, and at most "
                   "%" PRIu64 " here; both sides must have the same size of "
                   "memory", bytes, r->max_pages << r->page_bits);
        return false;
    }
    if (!l->ops->resize(l->opaque, r, bytes, errp)) {
        error_prepend(errp, "It has %" PRIu64 " bytes on the source, %" PRIu64
                      " here: ", bytes, ram_region_bytes(r));
        return false;
    }
    return true;
}

static bool coroutine_mixed_fn take_block(QEMUFile *f, RamLoader *l,
                                          RamRegion *r, uint64_t bytes,
                                          Error **errp)
{
    ERRP_GUARD();

    if (!check_extras(f, l, r, errp) || !resize(l, r, bytes, errp) ||
        (l->mapped && !ram_mapped_load(f, l, r, errp))) {
        return list_failed(r, errp);
    }
    return true;
}

static bool coroutine_mixed_fn take_list(QEMUFile *f, RamLoader *l,
                                         const Record *rec, Error **errp)
{
    g_autofree unsigned long *seen = bitmap_new(l->regions->count + 1);
    uint64_t left = rec->value;
    unsigned count = 0;

    if (only_on_main(l, "The list of RAM blocks is", errp) ||
        cannot_come_now(l, "The list of RAM blocks comes", errp)) {
        return false;
    }
    if (l->met) {
        error_setg(errp, "The list of RAM blocks comes again while pages "
                   "arrive on other channels");
        return false;
    }
    while (left) {
        RamRegion *r = get_region(f, l, errp);
        uint64_t bytes = r ? qemu_get_be64(f) : 0;

        if (!r) {
            return false;
        }
        if (qemu_file_get_error(f)) {
            return ram_load_ended(f, errp);
        }
        if (test_and_set_bit(r->index, seen)) {
            error_setg(errp, "RAM block '%s' is in the list twice", r->name);
            return false;
        }
        if (bytes > left) {
            error_setg(errp, "RAM block '%s' has %" PRIu64 " bytes, but all "
                       "that are left have only %" PRIu64, r->name, bytes,
                       left);
            return false;
        }
        if (!take_block(f, l, r, bytes, errp)) {
            return false;
        }
        r->announced = ++count;
        left -= bytes;
    }
    l->listed = true;
    return !l->mapped || !l->lazy || l->lazy->begin(errp);
}

/*
 * Memory that cannot be written to: the source's must be the same.
 */

static bool differs(const RamRegion *r, uint64_t page, Error **errp)
{
    error_setg(errp, "It is read-only here, and on the source page 0x%" PRIx64
               " has other content", page << r->page_bits);
    return false;
}

bool ram_load_compare(const RamRegion *r, uint64_t page, const uint8_t *theirs,
                      Error **errp)
{
    return !memcmp(ram_region_page(r, page), theirs, ram_region_page_size(r)) ||
           differs(r, page, errp);
}

static bool compare_zero(const RamRegion *r, uint64_t first, uint64_t pages,
                         Error **errp)
{
    for (uint64_t i = first; i < first + pages; i++) {
        if (!buffer_is_zero(ram_region_page(r, i), ram_region_page_size(r))) {
            return differs(r, i, errp);
        }
    }
    return true;
}

static bool coroutine_mixed_fn compare_pages(QEMUFile *f, const Record *rec,
                                             uint64_t pages, Error **errp)
{
    size_t size = ram_region_page_size(rec->region);
    g_autofree uint8_t *theirs = g_malloc(size);

    for (uint64_t i = rec->page; i < rec->page + pages; i++) {
        if (qemu_get_buffer(f, theirs, size) != size) {
            return ram_load_ended(f, errp);
        }
        if (!ram_load_compare(rec->region, i, theirs, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Zero pages
 */

void coroutine_mixed_fn ram_load_worked(RamLoader *l, uint64_t bytes)
{
    l->work += bytes;
    if (l->work >= RAM_LOAD_STRETCH) {
        l->work = 0;
        if (l->ops->rest) {
            l->ops->rest(l->opaque);
        }
    }
}

/*
 * Piece by piece, as there may be a terabyte of them; larger pieces as long as
 * nothing of it exists.
 */
void coroutine_mixed_fn ram_load_clear_zeros(RamLoader *l)
{
    uint64_t piece = RAM_LOAD_STRETCH;

    while (l->zeros.pages) {
        uint64_t looked_at = zero_gather_clear(&l->zeros,
                                               piece >> l->page_bits);

        piece = looked_at ? RAM_LOAD_STRETCH : MIN(2 * piece, CLEAR_MAX);
        ram_load_worked(l, looked_at);
    }
}

bool coroutine_mixed_fn ram_load_zeros(RamLoader *l, RamRegion *r,
                                       uint64_t first, uint64_t pages,
                                       Error **errp)
{
    if (is_diverted(l)) {
        return l->pages->zeros(l->pages_opaque, r, first, pages, errp);
    }
    if (r->read_only) {
        return compare_zero(r, first, pages, errp);
    }
    tell_arrived(l, r, first, pages);
    if (!zero_gather_add(&l->zeros, r, first, pages)) {
        ram_load_clear_zeros(l);
        zero_gather_add(&l->zeros, r, first, pages);
    }
    return true;
}

static bool coroutine_mixed_fn take_zero(QEMUFile *f, RamLoader *l,
                                         const Record *rec, Error **errp)
{
    int fill = qemu_get_byte(f);

    if (qemu_file_get_error(f)) {
        return ram_load_ended(f, errp);
    }
    if (fill != WIRE_RAM_ZERO_FILL) {
        error_setg(errp, "A page of zeros is said to hold 0x%02x", fill);
        return false;
    }
    return ram_load_zeros(l, rec->region, rec->page, 1, errp);
}

static bool coroutine_mixed_fn take_zero_range(QEMUFile *f, RamLoader *l,
                                               const Record *rec, Error **errp)
{
    uint64_t pages = qemu_get_be64(f);

    if (qemu_file_get_error(f)) {
        return ram_load_ended(f, errp);
    }
    if (!pages || pages > rec->region->pages - rec->page) {
        error_setg(errp, "A range of %" PRIu64 " zero pages, where there are "
                   "%" PRIu64, pages, rec->region->pages - rec->page);
        return false;
    }
    return ram_load_zeros(l, rec->region, rec->page, pages, errp);
}

/*
 * Pages with content
 */

static bool coroutine_mixed_fn get_pages(QEMUFile *f, RamLoader *l,
                                         const Record *rec, uint64_t pages,
                                         Error **errp)
{
    size_t bytes = pages << l->page_bits;
    uint8_t *host = ram_region_page(rec->region, rec->page);

    l->work += bytes;
    if (is_diverted(l)) {
        return l->pages->data(l->pages_opaque, f, rec->region, rec->page,
                              pages, errp);
    }
    if (rec->region->read_only) {
        return compare_pages(f, rec, pages, errp);
    }
    if (qemu_get_buffer(f, host, bytes) != bytes) {
        return ram_load_ended(f, errp);
    }
    tell_arrived(l, rec->region, rec->page, pages);
    return true;
}

static bool coroutine_mixed_fn take_page(QEMUFile *f, RamLoader *l,
                                         const Record *rec, Error **errp)
{
    return get_pages(f, l, rec, 1, errp);
}

static bool coroutine_mixed_fn ram_load_take_run(QEMUFile *f, RamLoader *l,
                                                 const Record *rec,
                                                 Error **errp)
{
    uint32_t pages = qemu_get_be32(f);

    if (qemu_file_get_error(f)) {
        return ram_load_ended(f, errp);
    }
    if (!pages || pages > WIRE_RAM_RUN_MAX ||
        pages > rec->region->pages - rec->page) {
        error_setg(errp, "A run of %" PRIu32 " pages, where there are %" PRIu64
                   " and %d are the limit", pages,
                   rec->region->pages - rec->page, WIRE_RAM_RUN_MAX);
        return false;
    }
    return get_pages(f, l, rec, pages, errp);
}

static bool coroutine_mixed_fn take_xbzrle(QEMUFile *f, RamLoader *l,
                                           const Record *rec, Error **errp)
{
    uint8_t *host = ram_region_page(rec->region, rec->page);
    size_t size = ram_region_page_size(rec->region);
    int encoding = qemu_get_byte(f);
    size_t len = qemu_get_be16(f);
    uint8_t *code = NULL;

    if (qemu_file_get_error(f)) {
        return ram_load_ended(f, errp);
    }
    if (only_on_main(l, "A change of a page is", errp) ||
        cannot_come_now(l, "A change of a page comes", errp)) {
        return false;
    }
    if (encoding != WIRE_XBZRLE_ENCODING || len > size) {
        error_setg(errp, "invalid XBZRLE record: encoding 0x%02x, length %zu",
                   encoding, len);
        return false;
    }
    if (rec->region->read_only) {
        return differs(rec->region, rec->page, errp);
    }
    if (qemu_peek_buffer(f, &code, len, 0) != len) {
        return ram_load_ended(f, errp);
    }
    if (xbzrle_decode_buffer(code, len, host, size) < 0) {
        error_setg(errp, "A change of a page is not well-formed");
        return false;
    }
    qemu_file_skip(f, len);
    tell_arrived(l, rec->region, rec->page, 1);
    l->work += size;
    return true;
}

/*
 * Other channels
 */

/* From now on these put pages in place, while nobody resizes a block. */
static bool coroutine_mixed_fn meet_others(RamLoader *l, Error **errp)
{
    if (!l->listed && !l->beside) {
        error_setg(errp, "A mark of multifd comes before the list of RAM "
                   "blocks");
        return false;
    }
    l->met = true;
    return l->meet(l, errp);
}

static bool coroutine_mixed_fn take_mark(QEMUFile *f, RamLoader *l,
                                         const Record *rec, Error **errp)
{
    if (!l->meet) {
        error_setg(errp, "The source uses multifd, and this side does not: "
                   "set the capability 'multifd' on both sides or on neither");
        return false;
    }
    return meet_others(l, errp);
}

/*
 * Memory that comes another way
 */

static bool coroutine_mixed_fn take_hook(QEMUFile *f, RamLoader *l,
                                         const Record *rec, Error **errp)
{
    if (!l->hook) {
        error_setg(errp, "The source sends RAM by RDMA, and this side does not "
                   "listen at rdma:HOST:PORT");
        return false;
    }
    if (!l->listed || rec->value) {
        error_setg(errp, "RAM comes by RDMA before the list of RAM blocks");
        return false;
    }
    if (cannot_come_now(l, "RAM comes by RDMA", errp)) {
        return false;
    }
    return l->hook(l->regions, errp);
}

/*
 * Records.  An entry stands at the number of its flag's bit.
 */

#define BIT_OF(flag) __builtin_ctz(flag)

static const RecordType types[] = {
    [BIT_OF(WIRE_RAM_ZERO)] = { take_zero, .about_pages = true },
    [BIT_OF(WIRE_RAM_MEM_SIZE)] = { take_list },
    [BIT_OF(WIRE_RAM_PAGE)] = { take_page, .about_pages = true },
    [BIT_OF(WIRE_RAM_XBZRLE)] = { take_xbzrle, .about_pages = true },
    [BIT_OF(WIRE_RAM_HOOK)] = { take_hook },
    [BIT_OF(WIRE_RAM_COMPRESSED)] = {
        .refusal = "The source compresses pages one by one, which newer "
                   "versions of QEMU cannot read",
    },
    [BIT_OF(WIRE_RAM_MULTIFD_FLUSH)] = { take_mark },
    [BIT_OF(WIRE_RAM_RUN)] = {
        ram_load_take_run, .about_pages = true, .from_peer = true,
    },
    [BIT_OF(WIRE_RAM_ZERO_RANGE)] = {
        take_zero_range, .about_pages = true, .from_peer = true,
    },
};

static const RecordType *find_type(const RamLoader *l, const Record *rec,
                                   Error **errp)
{
    unsigned kind = rec->flags & ~WIRE_RAM_CONTINUE;
    const RecordType *type = NULL;

    if (is_power_of_2(kind) && ctz32(kind) < ARRAY_SIZE(types)) {
        type = &types[ctz32(kind)];
    }
    if (type && type->refusal) {
        error_setg(errp, "%s", type->refusal);
        return NULL;
    }
    if (!type || !type->take ||
        (type->from_peer && 1u << l->page_bits < WIRE_PEER_PAGE_SIZE_MIN) ||
        (!type->about_pages && rec->flags & WIRE_RAM_CONTINUE) ||
        (type->about_pages && l->mapped)) {
        error_setg(errp, "A RAM record of unknown type 0x%x: the stream is "
                   "damaged, or the source has capabilities set that this "
                   "side has not", rec->flags);
        return NULL;
    }
    return type;
}

/* Which page a record is about */
static bool coroutine_mixed_fn find_page(QEMUFile *f, RamLoader *l,
                                         Record *rec, Error **errp)
{
    if (!(rec->flags & WIRE_RAM_CONTINUE)) {
        l->last = get_region(f, l, errp);
        if (!l->last) {
            return false;
        }
    }
    rec->region = l->last;
    rec->page = rec->value >> l->page_bits;
    if (!rec->region) {
        error_setg(errp, "The first page does not say of which RAM block it "
                   "is");
        return false;
    }
    if (rec->region->ignored) {
        error_setg(errp, "RAM block '%s' is shared, but the source sends it: "
                   "set the same capabilities on both sides",
                   rec->region->name);
        return false;
    }
    if (rec->page >= rec->region->pages) {
        error_setg(errp, "RAM block '%s' has %" PRIu64 " bytes, so there is "
                   "no page at 0x%" PRIx64, rec->region->name,
                   ram_region_bytes(rec->region), rec->value);
        return false;
    }
    return true;
}

static bool coroutine_mixed_fn take_pages(QEMUFile *f, RamLoader *l,
                                          const RecordType *type, Record *rec,
                                          Error **errp)
{
    ERRP_GUARD();

    if (!find_page(f, l, rec, errp)) {
        return false;
    }
    if (!type->take(f, l, rec, errp)) {
        error_prepend(errp, "RAM block '%s' at 0x%" PRIx64 ": ",
                      rec->region->name, rec->value);
        return false;
    }
    return true;
}

bool coroutine_mixed_fn ram_load_records(QEMUFile *f, RamLoader *l,
                                         Error **errp)
{
    uint64_t flag_bits = (1ull << l->page_bits) - 1;

    for (;;) {
        uint64_t header = qemu_get_be64(f);
        Record rec = {
            .flags = header & flag_bits, .value = header & ~flag_bits,
        };
        const RecordType *type;

        if (qemu_file_get_error(f)) {
            return ram_load_ended(f, errp);
        }
        if (rec.flags == WIRE_RAM_EOS) {
            ram_load_clear_zeros(l);
            return !l->meet_each || meet_others(l, errp);
        }
        if (l->sealed) {
            error_setg(errp, "RAM arrived after the guest was started");
            return false;
        }
        type = find_type(l, &rec, errp);
        if (!type) {
            return false;
        }
        /* What comes may be for a page that is among them. */
        if (!(rec.flags & (WIRE_RAM_ZERO | WIRE_RAM_ZERO_RANGE))) {
            ram_load_clear_zeros(l);
        }
        if (type->about_pages ? !take_pages(f, l, type, &rec, errp)
                              : !type->take(f, l, &rec, errp)) {
            return false;
        }
        ram_load_worked(l, RAM_LOAD_RECORD);
    }
}
