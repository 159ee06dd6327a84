/*
 * Which parts of a piece of RAM were ever written to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Everything else reads as zero and need not be read to know it.
 *
 * The answer is about a moment that has passed when it is given.  It is of use
 * if every write is recorded from before the call on, and that record is never
 * discarded unread.  A dirty log that begins with all bits set records
 * nothing until it is cleared for the first time: start it, clear it, then
 * call.
 *
 * Whatever cannot be found out counts as populated.  So do pages that exist
 * for another reason than a write: locked or preallocated memory, the rest of
 * a huge page, pages merged with others, pages given back that the kernel has
 * not yet collected, or read ones where the kernel does not tell.
 */

#ifndef MIGRATION_RAM_POPULATED_H
#define MIGRATION_RAM_POPULATED_H

typedef enum PopulatedKind {
    POPULATED_UNKNOWN,          /* of any other kind: all of it is populated */
    POPULATED_ANON,             /* private and anonymous: pages that exist */
    POPULATED_SHARED,           /* a file, shared: where the file has data */
    POPULATED_PRIVATE,          /* a file, private: either of these */
} PopulatedKind;

/* What to ask; for tests, as each must be right by itself */
typedef enum PopulatedWay {
    POPULATED_BEST,
    POPULATED_IOCTL,            /* only PAGEMAP_SCAN for page tables */
    POPULATED_PAGEMAP,          /* only /proc/self/pagemap for page tables */
} PopulatedWay;

typedef struct PopulatedArea {
    PopulatedKind kind;
    void *host;                 /* aligned to pages of the host, as is size */
    uint64_t size;
    int fd;                     /* the file, for two of the kinds */
    uint64_t fd_offset;         /* of host in the file */
} PopulatedArea;

/* A range of at least a byte, in bytes from the start of the area */
typedef void PopulatedFn(void *opaque, uint64_t offset, uint64_t length);

/*
 * The kind of a mapping: made by somebody else (@foreign), or by us, shared or
 * not, of file @fd or of none (-1).  Shared memory without a file is unknown:
 * pages of it that others wrote to are in no table of ours.
 */
PopulatedKind populated_kind(bool foreign, int fd, bool shared);

/*
 * Tell @fn of the populated ranges of @area, ascending, with something in
 * between any two.  Returns false if some part is told of only because
 * nothing is known about it.
 *
 * Any thread may call this.  The position of the file is moved and put back.
 */
bool populated_scan(const PopulatedArea *area, PopulatedWay way,
                    PopulatedFn *fn, void *opaque);

#endif
