/*
 * What the destination asks for: whether that makes sense, and in which order
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A request is about whole host pages of one block.  The destination sends it
 * when somebody there waits for a page.
 *
 * The queue has one thread that puts requests in (the return path's) and no
 * lock: those that take them out (whoever sends) do so one at a time.  It is
 * bounded, as nobody knows how much a peer will ask for.  A request that does
 * not fit is dropped, which costs time and nothing else: its pages are dirty,
 * so they are sent in their turn.
 */

#ifndef MIGRATION_POSTCOPY_REQUESTS_H
#define MIGRATION_POSTCOPY_REQUESTS_H

#include "migration/ram/region.h"

/* Bytes requested at once, at most, where host pages are no larger */
#define POSTCOPY_REQUEST_MAX (16 * 1024 * 1024)

typedef struct PageRequest {
    const RamRegion *region;
    uint64_t first, count;      /* target pages */
} PageRequest;

/* Target pages of a host page of @r: what is sent and placed as a whole */
static inline uint64_t postcopy_unit(const RamRegion *r)
{
    uint64_t page_size = ram_region_page_size(r);

    return r->host_page_size > page_size ? r->host_page_size / page_size : 1;
}

/*
 * Make *@request of a message that asks for @len bytes from @start on, of the
 * block @name, or, if that is NULL, of *@last.  Sets *@last.  False, with the
 * reason, if there are no such pages.
 */
bool postcopy_request_read(const RamRegions *regions, const RamRegion **last,
                           const char *name, uint64_t start, uint32_t len,
                           PageRequest *request, Error **errp);

#define POSTCOPY_QUEUE_LEN 1024

typedef struct PostcopyQueue {
    unsigned in, out;           /* atomic; they wrap around */
    uint64_t bytes_in, bytes_out;       /* of their pages; atomic */
    PageRequest list[POSTCOPY_QUEUE_LEN];
} PostcopyQueue;

/* False if it is full.  The one thread that puts in. */
bool postcopy_queue_put(PostcopyQueue *q, const PageRequest *request);

/* False if it is empty.  One thread at a time. */
bool postcopy_queue_take(PostcopyQueue *q, PageRequest *request);

/*
 * Whether it is empty; how many requests, and bytes of pages in these, wait.
 * Any thread; the answer may be old at once.
 */
bool postcopy_queue_empty(const PostcopyQueue *q);
unsigned postcopy_queue_length(const PostcopyQueue *q);
uint64_t postcopy_queue_bytes(const PostcopyQueue *q);

/* Forget all requests, while nobody uses the queue. */
void postcopy_queue_clear(PostcopyQueue *q);

#endif
