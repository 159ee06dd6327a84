/*
 * What a host may lack for what is switched on, found before memory is sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#ifndef _WIN32
#include <sys/resource.h>
#endif
#include "host-limits.h"

#define CAP_IPC_LOCK_BIT 14     /* of Linux; it makes RLIMIT_MEMLOCK void */

char *host_limits_locked(const char *what, uint64_t needed, uint64_t lockable)
{
    if (needed <= lockable) {
        return NULL;
    }
    return g_strdup_printf("%s locks %" PRIu64 " MiB of memory, and this "
                           "process may lock %" PRIu64 " KiB: raise the limit "
                           "('ulimit -l', RLIMIT_MEMLOCK), or turn it off",
                           what, needed / MiB, lockable / (uint64_t)KiB);
}

char *host_limits_huge_pages(const char *name, uint64_t bytes,
                             uint64_t page_size, uint64_t spare)
{
    uint64_t needed = DIV_ROUND_UP(bytes, page_size);

    if (needed <= spare) {
        return NULL;
    }
    return g_strdup_printf("RAM block '%s' needs %" PRIu64 " pages of %" PRIu64
                           " KiB that are not reserved, and the host has %"
                           PRIu64 ": raise nr_hugepages, or use 'reserve=on' "
                           "or 'prealloc=on' with its memory backend", name,
                           needed, page_size / (uint64_t)KiB, spare);
}

bool host_limits_may_lock_all(const char *status)
{
    const char *line = strstr(status, "CapEff:");

    return line && (g_ascii_strtoull(line + strlen("CapEff:"), NULL, 16) >>
                    CAP_IPC_LOCK_BIT & 1);
}

uint64_t host_limits_lockable(void)
{
#ifdef RLIMIT_MEMLOCK
    g_autofree char *status = NULL;
    struct rlimit limit;

    if ((g_file_get_contents("/proc/self/status", &status, NULL, NULL) &&
         host_limits_may_lock_all(status)) ||
        getrlimit(RLIMIT_MEMLOCK, &limit) ||
        limit.rlim_cur == RLIM_INFINITY) {
        return UINT64_MAX;
    }
    return limit.rlim_cur;
#else
    return UINT64_MAX;
#endif
}

static bool read_number(const char *folder, const char *name, uint64_t *number)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return false;
    }
    *number = g_ascii_strtoull(text, NULL, 10);
    return true;
}

bool host_limits_spare_pages(uint64_t page_size, uint64_t *spare)
{
    g_autofree char *folder =
        g_strdup_printf("/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB",
                        page_size / (uint64_t)KiB);
    uint64_t unused, reserved;

    if (!read_number(folder, "free_hugepages", &unused) ||
        !read_number(folder, "resv_hugepages", &reserved)) {
        return false;
    }
    *spare = unused - MIN(reserved, unused);
    return true;
}
