/*
 * The accounts that the test guest keeps of its own memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All 4096 bytes of a page follow from (seed, page index, sequence number).
 * The sequence numbers are kept in a table elsewhere in memory and a single
 * counter holds the number of all writes, so that after a migration
 *
 *   - a page that was lost, cut or mixed from two moments does not match
 *     what its sequence number says;
 *   - a page that is whole but old does not either;
 *   - a page that is old together with its part of the table makes the
 *     table's sum differ from the counter.
 */
#ifndef FERRY_GUEST_PAGES_H
#define FERRY_GUEST_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE_BYTES 4096
#define PAGE_WORDS (PAGE_BYTES / 8)
#define PAGE_STRIPES 16

typedef struct Pages {
    uint64_t *mem;              /* count * PAGE_WORDS words */
    uint32_t *seq;              /* writes seen by each page */
    uint64_t count;
    uint64_t seed;
    uint64_t writes;            /* by all pages together, = sum of seq[] */
    uint64_t stripes;           /* words a write changes, 0 for all it can */
} Pages;

/* What pages_verify() found. */
typedef struct Verdict {
    uint64_t sum;               /* of seq[] */
    uint64_t wrong;             /* pages that differ */
    uint64_t index;             /* the first of them ... */
    uint32_t seq;               /* ... what the table says of it ... */
    uint32_t offset;            /* ... its first wrong byte ... */
    uint64_t expected;          /* ... and the word around it */
    uint64_t got;
} Verdict;

/*
 * Allocate and fill @count pages, all with sequence number 0.  p->stripes is
 * the caller's: set it before and leave it alone afterwards.  With less than
 * all 16 a page torn where nothing changes is not noticed, as it is whole.
 * Returns false if there is not enough memory.
 */
bool pages_init(Pages *p, uint64_t count, uint64_t seed);
void pages_free(Pages *p);

/* Write page @index once more and account for it. */
void pages_touch(Pages *p, uint64_t index);

/*
 * Compute every byte of every page and compare.  The pages must not change
 * meanwhile.  Returns true if all are right and the sum agrees too.
 */
bool pages_verify(const Pages *p, Verdict *v);

/*
 * Lies for testing the verification, and their cure.  All return false if
 * there is nothing that they could do to page @index.
 *
 * pages_corrupt() flips a bit of the byte at @offset, pages_stale() puts back
 * the previous content, pages_skew() does so with the table as well, as if
 * page and table had both been missed; pages_repair() makes the page and the
 * sum right again, and pages_peek() changes nothing.
 */
typedef bool (*PageChange)(Pages *p, uint64_t index, uint32_t offset);

bool pages_corrupt(Pages *p, uint64_t index, uint32_t offset);
bool pages_stale(Pages *p, uint64_t index, uint32_t offset);
bool pages_skew(Pages *p, uint64_t index, uint32_t offset);
bool pages_repair(Pages *p, uint64_t index, uint32_t offset);
bool pages_peek(Pages *p, uint64_t index, uint32_t offset);

#endif
