/*
 * Which pages of a region have come, and which were requested
 *
 * A bit for each target page that is in place, and one for each host page that
 * somebody waits for.  All but received_init(), _destroy() and _missing() may
 * be called by any thread at any time: bits are atomic.
 *
 * Whoever puts pages in place sets "received", then looks at "requested".
 * Whoever waits sets "requested", then looks at "received".  Both have a full
 * barrier in between, so that at least one of them sees the other's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_RECEIVED_H
#define MIGRATION_POSTCOPY_RECEIVED_H

#include "migration/qemu-file.h"

typedef struct ReceivedMap {
    uint64_t pages;             /* of the target; whole pages of the host */
    unsigned host_shift;        /* target pages of a host page, as 2^n */
    unsigned long *received;    /* by target page */
    unsigned long *requested;   /* by host page */
} ReceivedMap;

/*
 * Nothing has come.  @pages is rounded up to a host page, which has
 * 2^@host_shift target pages.  False if there is no memory.
 */
bool received_init(ReceivedMap *map, uint64_t pages, unsigned host_shift);
void received_destroy(ReceivedMap *map);

/* @count pages from @first on are in place, or are not any more. */
void received_set(ReceivedMap *map, uint64_t first, uint64_t count);
void received_clear(ReceivedMap *map, uint64_t first, uint64_t count);
bool received_test(const ReceivedMap *map, uint64_t page);

/* How many of the first @pages have come */
uint64_t received_count(const ReceivedMap *map, uint64_t pages);

/* How many of the pages [@from, @end) have not come */
uint64_t received_lacking(const ReceivedMap *map, uint64_t from, uint64_t end);

/*
 * The first of the host pages [@from, @end) of which nothing has come, or @end.
 * @count: how many there are in a row, if there are any.  Nothing comes
 * meanwhile.
 */
uint64_t received_missing(const ReceivedMap *map, uint64_t from, uint64_t end,
                          uint64_t *count);

/* Somebody waits for @host_page. False if that was so already. */
bool requested_set(ReceivedMap *map, uint64_t host_page);

/* Nobody does any more. False if that was so already. */
bool requested_clear(ReceivedMap *map, uint64_t host_page);

/* The first host page in [@from, @end) that is waited for, or @end */
uint64_t requested_next(const ReceivedMap *map, uint64_t from, uint64_t end);

/*
 * What has come of the first @pages, as the return path has it behind its
 * message RECV_BITMAP: length, bitmap, end mark.
 */
void received_put(const ReceivedMap *map, uint64_t pages, QEMUFile *f);

#endif
