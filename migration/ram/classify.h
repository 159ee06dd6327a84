/*
 * Which pages of a run are zero
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The answer for a whole run at once, as one bit a page, and then the run in
 * segments of pages that are alike: which is what the sender needs.  A page is
 * left at the first word found that is not zero.
 *
 * All of this is pure.  Memory may be written to meanwhile; each page is then
 * judged by some state in between.  Any thread may call it.
 */

#ifndef MIGRATION_RAM_CLASSIFY_H
#define MIGRATION_RAM_CLASSIFY_H

/* Pages in a run, at most */
#define CLASSIFY_MAX 512

/* Bit i % 64 of zero[i / 64]: page i of the run is zero */
typedef struct ZeroPages {
    uint64_t zero[CLASSIFY_MAX / 64];
    unsigned count;
} ZeroPages;

/*
 * Look at @count pages of @page_size bytes each at @pages and set all of
 * @result.  Returns how many of them are zero.
 */
unsigned classify_pages(const void *pages, size_t page_size, unsigned count,
                        ZeroPages *result);

/*
 * How many pages from @from on are like page @from: a segment of the run.
 * Sets *@zero if these are zero.  Returns 0 at the end of the run.
 */
unsigned classify_segment(const ZeroPages *result, unsigned from, bool *zero);

#endif
