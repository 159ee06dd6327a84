/*
 * Whether this host and this memory can do postcopy, and if not what to change
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "mapping.h"
#include "support.h"

/* Whether a page of this process can be registered, and then be filled */
static bool try_page(size_t size)
{
    const unsigned needed = 1u << UFD_COPY | 1u << UFD_ZERO;
    void *page = mapping_zeros(size, true);
    int ufd = ufd_open(NULL);
    unsigned ways = 0;

    if (page && ufd >= 0) {
        ufd_register(ufd, page, size, false, &ways, NULL);
    }
    mapping_end(page, size);
    if (ufd >= 0) {
        close(ufd);
    }
    return (ways & needed) == needed;
}

void support_look(SupportHost *host, uint64_t target_page_size)
{
    *host = (SupportHost) {
        .page_size = qemu_real_host_page_size(),
        .target_page_size = target_page_size,
    };
    ufd_probe(&host->ufd);
    host->works = !host->ufd.error && try_page(host->page_size);
}

bool support_host(const SupportHost *host, Error **errp)
{
    int error = host->ufd.error;

    if (host->target_page_size > host->page_size) {
        error_setg(errp, "Postcopy is not possible: the guest's pages of %"
                   PRIu64 " bytes are larger than the host's of %" PRIu64,
                   host->target_page_size, host->page_size);
        return false;
    }
    if (error == EPERM || error == EACCES) {
        error_setg_errno(errp, error, "Postcopy is not possible: QEMU may not "
                         "use userfaultfd; give it access to /dev/userfaultfd, "
                         "or set the sysctl vm.unprivileged_userfaultfd to 1");
        return false;
    }
    if (error) {
        error_setg_errno(errp, error, "Postcopy is not possible: this kernel "
                         "has no userfaultfd (CONFIG_USERFAULTFD)");
        return false;
    }
    if (!host->works) {
        error_setg(errp, "Postcopy is not possible: this kernel's userfaultfd "
                   "cannot fill in pages of ordinary memory");
        return false;
    }
    return true;
}

static bool kind_is_possible(const SupportHost *host, const SupportBlock *block,
                             Error **errp)
{
    switch (block->kind) {
    case SUPPORT_OTHER_FILE:
        error_setg(errp, "Postcopy is not possible: RAM block '%s' is a file "
                   "on a file system other than tmpfs and hugetlbfs; use "
                   "memory-backend-memfd, memory-backend-ram, or a file below "
                   "/dev/shm", block->name);
        return false;
    case SUPPORT_HUGETLB:
        if (!host->ufd.hugetlb) {
            error_setg(errp, "Postcopy is not possible: RAM block '%s' is made "
                       "of huge pages of %" PRIu64 " bytes, which this "
                       "kernel's userfaultfd does not support; use a memory "
                       "backend without them", block->name, block->page_size);
        }
        return host->ufd.hugetlb;
    case SUPPORT_SHMEM:
        if (!host->ufd.shmem) {
            error_setg(errp, "Postcopy is not possible: RAM block '%s' is "
                       "shared memory, which this kernel's userfaultfd does "
                       "not support; use memory-backend-ram", block->name);
        }
        return host->ufd.shmem;
    default:
        return true;
    }
}

bool support_block(const SupportHost *host, const SupportBlock *block,
                   Error **errp)
{
    if (!kind_is_possible(host, block, errp)) {
        return false;
    }
    if (block->read_only) {
        error_setg(errp, "Postcopy is not possible: RAM block '%s' is mapped "
                   "read-only here, so its pages cannot be put in place; use "
                   "a memory backend without 'readonly=on'", block->name);
        return false;
    }
    if (block->bytes % block->page_size) {
        error_setg(errp, "Postcopy is not possible: RAM block '%s' has %"
                   PRIu64 " bytes, which is no multiple of its page size %"
                   PRIu64 "; change the size of the memory", block->name,
                   block->bytes, block->page_size);
        return false;
    }
    return true;
}

bool support_continue(const SupportHost *host, const SupportBlock *block)
{
    return block->shared &&
           ((block->kind == SUPPORT_SHMEM && host->ufd.minor_shmem) ||
            (block->kind == SUPPORT_HUGETLB && host->ufd.minor_hugetlb));
}
