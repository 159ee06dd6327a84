/*
 * userfaultfd: what postcopy and background snapshots need of it
 *
 * Memory that is registered stops whoever touches a page that is not there, or
 * writes to one that is protected, in this process or, where the memory is
 * shared, in the one that registered its mapping.  All of this fails with an
 * error where the host is not Linux.
 *
 * Any thread may call these; the kernel serializes what has to be.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_UFD_H
#define MIGRATION_POSTCOPY_UFD_H

/* What may be asked of registered memory */
typedef enum UfdWay {
    UFD_COPY,                   /* pages with content from elsewhere */
    UFD_ZERO,                   /* pages of zeros */
    UFD_CONTINUE,               /* what another mapping has written there */
    UFD_WAYS
} UfdWay;

/* What this kernel has; all false if @error is not zero */
typedef struct UfdSupport {
    int error;                  /* errno of the attempt to open one */
    bool hugetlb, shmem;        /* pages missing from such memory */
    bool minor_hugetlb, minor_shmem;    /* UFD_CONTINUE */
    bool thread_id;             /* faults tell who waits */
    bool writes;                /* pages can be protected */
    bool shared_writes;         /* those of shmem and hugetlb as well */
    bool missing_writes;        /* and where no page is yet */
} UfdSupport;

/* A fault that somebody waits for */
typedef struct UfdFault {
    uint64_t address;           /* somewhere in the page */
    uint32_t thread;            /* 0: not known */
    bool minor;                 /* it is there, but not mapped */
} UfdFault;

/* Asks the kernel. */
void ufd_probe(UfdSupport *support);

/* A new one, or -1 */
int ufd_open(Error **errp);

/*
 * Stop whoever touches a page that is missing in [@at, @at + @len), and with
 * @minor one that is there but not mapped.  @ways is filled with the bits of
 * what can be asked of this memory.
 */
bool ufd_register(int ufd, void *at, uint64_t len, bool minor, unsigned *ways,
                  Error **errp);

/* One for memory that is to be protected, or -1 */
int ufd_open_for_writes(Error **errp);

/* [@at, @at + @len) can be protected from now on. */
bool ufd_register_writes(int ufd, void *at, uint64_t len, Error **errp);

/*
 * @on: whoever writes to these pages is stopped.  Otherwise they may be written
 * to, and who waits goes on.  Returns zero or a negative errno.
 */
int ufd_protect(int ufd, void *at, uint64_t len, bool on);

/* Who waits goes on; missing pages are zero from now on. */
bool ufd_unregister(int ufd, void *at, uint64_t len, Error **errp);

/*
 * Put the pages from @to on for @len bytes in place, each at once and for all,
 * and let go on who waits for them.  @from counts for UFD_COPY only.  Pages of
 * @page bytes that are there already stay as they are.
 *
 * Returns zero or a negative errno; then some may be in place.
 */
int ufd_place(int ufd, UfdWay way, void *to, const void *from, uint64_t len,
              uint64_t page);

/* Let go on who waits for these pages. Returns zero or a negative errno. */
int ufd_wake(int ufd, void *at, uint64_t len);

/*
 * The faults that there are, at most @max, without waiting for any.  Returns
 * how many, or a negative errno.  Events that are no faults are left out.
 */
int ufd_read(int ufd, UfdFault *faults, unsigned max);

#endif
