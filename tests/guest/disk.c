/*
 * Pages of the test guest that go to its disk and come back from there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE             /* O_DIRECT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"

#define DISK "/dev/vda"
#define AT_ONCE 8               /* pages of a request */

typedef ssize_t (*Transfer)(int fd, void *mem, size_t bytes, off_t at);

static ssize_t store(int fd, void *mem, size_t bytes, off_t at)
{
    return pwrite(fd, mem, bytes, at);
}

static ssize_t fetch(int fd, void *mem, size_t bytes, off_t at)
{
    return pread(fd, mem, bytes, at);
}

static const char *each(Pages *p, uint64_t first, uint64_t count,
                        Transfer transfer)
{
    int fd = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
    const char *error = NULL;

    if (fd < 0) {
        return "there is no " DISK;
    }
    for (uint64_t end = first + count; first < end && !error;
         first += AT_ONCE) {
        uint64_t n = end - first < AT_ONCE ? end - first : AT_ONCE;
        ssize_t bytes = n * PAGE_BYTES;
        ssize_t done = transfer(fd, p->mem + first * PAGE_WORDS, bytes,
                                first * PAGE_BYTES);

        if (done != bytes) {
            error = done < 0 ? strerror(errno) : "the disk is too small";
        }
    }
    close(fd);
    return error;
}

const char *disk_store(Pages *p, uint64_t first, uint64_t count)
{
    return each(p, first, count, store);
}

const char *disk_fetch(Pages *p, uint64_t first, uint64_t count)
{
    return each(p, first, count, fetch);
}
