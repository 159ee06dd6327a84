/*
 * What the destination asks for: whether that makes sense, and in which order
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "requests.h"

QEMU_BUILD_BUG_ON(POSTCOPY_QUEUE_LEN & (POSTCOPY_QUEUE_LEN - 1));

static const RamRegion *requests_find_region(const RamRegions *regions,
                                             const RamRegion *last,
                                             const char *name, Error **errp)
{
    const RamRegion *r = name ? ram_regions_find(regions, name) : last;

    if (!r && name) {
        /* Whatever the peer says may end up on a terminal. */
        g_autofree char *shown = g_strescape(name, NULL);

        error_setg(errp, "there is no RAM block '%s'", shown);
        return NULL;
    }
    if (!r) {
        error_setg(errp, "no RAM block was named before");
        return NULL;
    }
    if (r->ignored) {
        error_setg(errp, "RAM block '%s' is not migrated", r->name);
        return NULL;
    }
    return r;
}

static bool range_is_whole(const RamRegion *r, uint64_t start, uint32_t len,
                           Error **errp)
{
    uint64_t page = MAX(r->host_page_size, ram_region_page_size(r));
    uint64_t end = ROUND_UP(ram_region_bytes(r), page);
    const char *wrong = NULL;

    if (!len) {
        wrong = "is empty";
    } else if (!QEMU_IS_ALIGNED(start, page) || !QEMU_IS_ALIGNED(len, page)) {
        wrong = "is not made of whole host pages";
    } else if (start >= end || len > end - start) {
        wrong = "goes beyond its end";
    } else if (len > MAX(POSTCOPY_REQUEST_MAX, page)) {
        wrong = "is more than is asked for at once";
    }
    if (wrong) {
        error_setg(errp, "0x%" PRIx32 " bytes at 0x%" PRIx64 " of RAM block "
                   "'%s', whose pages have 0x%" PRIx64 " bytes, %s", len,
                   start, r->name, page, wrong);
    }
    return !wrong;
}

bool postcopy_request_read(const RamRegions *regions, const RamRegion **last,
                           const char *name, uint64_t start, uint32_t len,
                           PageRequest *request, Error **errp)
{
    ERRP_GUARD();
    const RamRegion *r = requests_find_region(regions, *last, name, errp);
    uint64_t first;

    if (!r || !range_is_whole(r, start, len, errp)) {
        error_prepend(errp, "Bad request for pages: ");
        return false;
    }
    *last = r;
    first = start >> r->page_bits;
    *request = (PageRequest) {
        .region = r,
        .first = first,
        .count = MIN(len >> r->page_bits, r->pages - first),
    };
    return true;
}

static uint64_t request_bytes(const PageRequest *request)
{
    return request->count << request->region->page_bits;
}

/* By one thread at a time; others may read it. */
static void queue_count_bytes(uint64_t *bytes, const PageRequest *request)
{
    qatomic_set_u64(bytes, qatomic_read_u64(bytes) + request_bytes(request));
}

bool postcopy_queue_put(PostcopyQueue *q, const PageRequest *request)
{
    unsigned in = q->in;

    if (in - qatomic_load_acquire(&q->out) == POSTCOPY_QUEUE_LEN) {
        return false;
    }
    q->list[in % POSTCOPY_QUEUE_LEN] = *request;
    queue_count_bytes(&q->bytes_in, request);
    qatomic_store_release(&q->in, in + 1);
    return true;
}

bool postcopy_queue_take(PostcopyQueue *q, PageRequest *request)
{
    unsigned out = q->out;

    if (qatomic_load_acquire(&q->in) == out) {
        return false;
    }
    *request = q->list[out % POSTCOPY_QUEUE_LEN];
    queue_count_bytes(&q->bytes_out, request);
    qatomic_store_release(&q->out, out + 1);
    return true;
}

bool postcopy_queue_empty(const PostcopyQueue *q)
{
    return !postcopy_queue_length(q);
}

unsigned postcopy_queue_length(const PostcopyQueue *q)
{
    return qatomic_read(&q->in) - qatomic_read(&q->out);
}

/* The two are not read at the same moment. */
uint64_t postcopy_queue_bytes(const PostcopyQueue *q)
{
    uint64_t out = qatomic_read_u64(&q->bytes_out);
    uint64_t in = qatomic_read_u64(&q->bytes_in);

    return in > out ? in - out : 0;
}

void postcopy_queue_clear(PostcopyQueue *q)
{
    qatomic_set(&q->in, 0);
    qatomic_set(&q->out, 0);
    qatomic_set_u64(&q->bytes_in, 0);
    qatomic_set_u64(&q->bytes_out, 0);
}
