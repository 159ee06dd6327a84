/*
 * Mappings that postcopy makes of its own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "mapping.h"

#ifdef CONFIG_POSIX

#include <sys/mman.h>

static void *or_null(void *mapped)
{
    return mapped == MAP_FAILED ? NULL : mapped;
}

void *mapping_zeros(size_t size, bool writable)
{
    return or_null(mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0),
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

void *mapping_again(int fd, uint64_t offset, size_t size)
{
    return or_null(mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_NORESERVE, fd, offset));
}

void mapping_end(void *at, size_t size)
{
    if (at) {
        munmap(at, size);
    }
}

bool mapping_unlock_all(void)
{
    return !munlockall();
}

#else

void *mapping_zeros(size_t size, bool writable)
{
    errno = ENOSYS;
    return NULL;
}

void *mapping_again(int fd, uint64_t offset, size_t size)
{
    errno = ENOSYS;
    return NULL;
}

void mapping_end(void *at, size_t size)
{
}

bool mapping_unlock_all(void)
{
    errno = ENOSYS;
    return false;
}

#endif
