/*
 * Whether this host and this memory can do postcopy, and if not what to change
 *
 * The checks are pure, so that each refusal can be tested; support_look() asks
 * the kernel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_SUPPORT_H
#define MIGRATION_POSTCOPY_SUPPORT_H

#include "ufd.h"

/* What memory is made of */
typedef enum SupportKind {
    SUPPORT_ANON,               /* of the process */
    SUPPORT_SHMEM,              /* tmpfs, memfd */
    SUPPORT_HUGETLB,
    SUPPORT_OTHER_FILE,         /* on a file system that keeps it on a disk */
} SupportKind;

typedef struct SupportHost {
    UfdSupport ufd;
    uint64_t page_size;         /* of the host, the usual one */
    uint64_t target_page_size;
    bool works;                 /* a page was registered, and can be filled */
} SupportHost;

typedef struct SupportBlock {
    const char *name;
    SupportKind kind;
    uint64_t bytes;
    uint64_t page_size;         /* of the memory behind it */
    bool read_only;
    bool shared;
} SupportBlock;

/* Asks the kernel; @target_page_size is what the guest has. */
void support_look(SupportHost *host, uint64_t target_page_size);

/* Errors say what is missing and what the user may do. */
bool support_host(const SupportHost *host, Error **errp);
bool support_block(const SupportHost *host, const SupportBlock *block,
                   Error **errp);

/* Pages of such memory may be written by another mapping: UFD_CONTINUE. */
bool support_continue(const SupportHost *host, const SupportBlock *block);

#endif
