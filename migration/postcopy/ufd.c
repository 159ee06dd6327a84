/*
 * userfaultfd: what postcopy and background snapshots need of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "ufd.h"

#ifdef CONFIG_LINUX

#include <sys/ioctl.h>
#include "qemu/userfaultfd.h"

/* Events fetched by one system call */
#define BATCH 16

void ufd_probe(UfdSupport *support)
{
    uint64_t features;

    *support = (UfdSupport) {};
    if (uffd_query_features(&features) < 0) {
        support->error = errno ?: ENOSYS;
        return;
    }
    support->hugetlb = features & UFFD_FEATURE_MISSING_HUGETLBFS;
    support->shmem = features & UFFD_FEATURE_MISSING_SHMEM;
    support->minor_hugetlb = features & UFFD_FEATURE_MINOR_HUGETLBFS;
    support->minor_shmem = features & UFFD_FEATURE_MINOR_SHMEM;
    support->thread_id = features & UFFD_FEATURE_THREAD_ID;
    support->writes = features & UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    support->shared_writes = features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    support->missing_writes = features & UFFD_FEATURE_WP_UNPOPULATED;
}

/* With those of the features @useful that there are */
static int open_with(uint64_t useful, Error **errp)
{
    uint64_t features = 0;
    int ufd = -1;

    if (uffd_query_features(&features) == 0) {
        ufd = uffd_create_fd(features & useful, true);
    }
    if (ufd < 0) {
        error_setg_errno(errp, errno, "Cannot open a userfaultfd");
        return -1;
    }
    return ufd;
}

int ufd_open(Error **errp)
{
    return open_with(UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_MINOR_HUGETLBFS |
                     UFFD_FEATURE_MINOR_SHMEM, errp);
}

int ufd_open_for_writes(Error **errp)
{
    return open_with(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                     UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
                     UFFD_FEATURE_WP_UNPOPULATED, errp);
}

bool ufd_register_writes(int ufd, void *at, uint64_t len, Error **errp)
{
    struct uffdio_register reg = {
        .range = { .start = (uintptr_t)at, .len = len },
        .mode = UFFDIO_REGISTER_MODE_WP,
    };

    if (ioctl(ufd, UFFDIO_REGISTER, &reg)) {
        error_setg_errno(errp, errno, "The kernel cannot protect this memory");
        return false;
    }
    if (!(reg.ioctls & (1ull << _UFFDIO_WRITEPROTECT))) {
        error_setg(errp, "The kernel cannot protect memory of this kind");
        return false;
    }
    return true;
}

int ufd_protect(int ufd, void *at, uint64_t len, bool on)
{
    struct uffdio_writeprotect change = {
        .range = { .start = (uintptr_t)at, .len = len },
        .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
    };

    while (ioctl(ufd, UFFDIO_WRITEPROTECT, &change)) {
        /* Somebody changes the mappings of this process right now. */
        if (errno != EAGAIN) {
            return -errno;
        }
    }
    return 0;
}

bool ufd_register(int ufd, void *at, uint64_t len, bool minor, unsigned *ways,
                  Error **errp)
{
    static const unsigned bits[UFD_WAYS] = {
        [UFD_COPY] = _UFFDIO_COPY,
        [UFD_ZERO] = _UFFDIO_ZEROPAGE,
        [UFD_CONTINUE] = _UFFDIO_CONTINUE,
    };
    struct uffdio_register reg = {
        .range = { .start = (uintptr_t)at, .len = len },
        .mode = UFFDIO_REGISTER_MODE_MISSING |
                (minor ? UFFDIO_REGISTER_MODE_MINOR : 0),
    };

    if (ioctl(ufd, UFFDIO_REGISTER, &reg)) {
        error_setg_errno(errp, errno, "The kernel cannot tell of missing "
                         "pages of this memory");
        return false;
    }
    *ways = 0;
    for (int i = 0; i < UFD_WAYS; i++) {
        if (reg.ioctls & (1ull << bits[i])) {
            *ways |= 1u << i;
        }
    }
    return true;
}

bool ufd_unregister(int ufd, void *at, uint64_t len, Error **errp)
{
    struct uffdio_range range = { .start = (uintptr_t)at, .len = len };

    if (ioctl(ufd, UFFDIO_UNREGISTER, &range)) {
        error_setg_errno(errp, errno, "Cannot unregister memory from its "
                         "userfaultfd");
        return false;
    }
    return true;
}

/* One attempt: bytes that it put in place, or a negative errno if none */
static int64_t place(int ufd, UfdWay way, uint64_t to, uint64_t from,
                     uint64_t len)
{
    struct uffdio_copy copy = { .dst = to, .src = from, .len = len };
    struct uffdio_zeropage zero = { .range = { .start = to, .len = len } };
    struct uffdio_continue cont = { .range = { .start = to, .len = len } };
    int64_t done;
    int ret;

    switch (way) {
    case UFD_COPY:
        ret = ioctl(ufd, UFFDIO_COPY, &copy);
        done = copy.copy;
        break;
    case UFD_ZERO:
        ret = ioctl(ufd, UFFDIO_ZEROPAGE, &zero);
        done = zero.zeropage;
        break;
    case UFD_CONTINUE:
        ret = ioctl(ufd, UFFDIO_CONTINUE, &cont);
        done = cont.mapped;
        break;
    default:
        g_assert_not_reached();
    }
    if (ret == 0) {
        return len;
    }
    /* What is partly done says how far; if nothing was, errno says why. */
    return done > 0 ? done : -errno;
}

int ufd_place(int ufd, UfdWay way, void *to, const void *from, uint64_t len,
              uint64_t page)
{
    uint64_t dst = (uintptr_t)to, src = (uintptr_t)from;

    while (len) {
        int64_t done = place(ufd, way, dst, src, len);

        if (done == -EAGAIN || done == -EINTR) {
            continue;
        }
        if (done == -EEXIST) {
            /* Whoever came too late to see it being put there goes on. */
            ufd_wake(ufd, (void *)(uintptr_t)dst, page);
            done = page;
        }
        if (done < 0) {
            return done;
        }
        dst += done;
        src += done;
        len -= done;
    }
    return 0;
}

int ufd_wake(int ufd, void *at, uint64_t len)
{
    struct uffdio_range range = { .start = (uintptr_t)at, .len = len };

    return ioctl(ufd, UFFDIO_WAKE, &range) ? -errno : 0;
}

int ufd_read(int ufd, UfdFault *faults, unsigned max)
{
    struct uffd_msg msgs[BATCH];
    ssize_t got = RETRY_ON_EINTR(read(ufd, msgs, sizeof(msgs[0]) *
                                      MIN(max, BATCH)));
    unsigned count = 0;

    if (got < 0) {
        return errno == EAGAIN ? 0 : -errno;
    }
    for (unsigned i = 0; i < got / sizeof(msgs[0]); i++) {
        if (msgs[i].event == UFFD_EVENT_PAGEFAULT) {
            faults[count++] = (UfdFault) {
                .address = msgs[i].arg.pagefault.address,
                .thread = msgs[i].arg.pagefault.feat.ptid,
                .minor = msgs[i].arg.pagefault.flags &
                         UFFD_PAGEFAULT_FLAG_MINOR,
            };
        }
    }
    return count;
}

#else

void ufd_probe(UfdSupport *support)
{
    *support = (UfdSupport) { .error = ENOSYS };
}

int ufd_open(Error **errp)
{
    error_setg(errp, "This host has no userfaultfd");
    return -1;
}

bool ufd_register(int ufd, void *at, uint64_t len, bool minor, unsigned *ways,
                  Error **errp)
{
    error_setg(errp, "This host has no userfaultfd");
    return false;
}

bool ufd_unregister(int ufd, void *at, uint64_t len, Error **errp)
{
    error_setg(errp, "This host has no userfaultfd");
    return false;
}

int ufd_open_for_writes(Error **errp)
{
    return ufd_open(errp);
}

bool ufd_register_writes(int ufd, void *at, uint64_t len, Error **errp)
{
    return ufd_unregister(ufd, at, len, errp);
}

int ufd_protect(int ufd, void *at, uint64_t len, bool on)
{
    return -ENOSYS;
}

int ufd_place(int ufd, UfdWay way, void *to, const void *from, uint64_t len,
              uint64_t page)
{
    return -ENOSYS;
}

int ufd_wake(int ufd, void *at, uint64_t len)
{
    return -ENOSYS;
}

int ufd_read(int ufd, UfdFault *faults, unsigned max)
{
    return -ENOSYS;
}

#endif
