/*
 * Processes that share the guest's memory, and devices that want to know how
 * far postcopy is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "shared.h"

#ifdef CONFIG_LINUX
#include <linux/userfaultfd.h>
#endif

static NotifierWithReturnList shared_notifiers;
static QemuMutex shared_lock;
static GArray *sharers;         /* struct PostCopyFD; under the lock */
static GArray *shared_asked;    /* SharedFault, while one is served; likewise */
static bool shared_missing;     /* atomic: changed under the BQL, read by all */

static void __attribute__((constructor)) init(void)
{
    qemu_mutex_init(&shared_lock);
    sharers = g_array_new(false, false, sizeof(struct PostCopyFD));
    shared_asked = g_array_new(false, false, sizeof(SharedFault));
    notifier_with_return_list_init(&shared_notifiers);
}

/*
 * Devices
 */

void postcopy_infrastructure_init(void)
{
}

void postcopy_add_notifier(NotifierWithReturn *notifier)
{
    notifier_with_return_list_add(&shared_notifiers, notifier);
}

void postcopy_remove_notifier(NotifierWithReturn *notifier)
{
    notifier_with_return_remove(notifier);
}

bool shared_notify(enum PostcopyNotifyReason reason, Error **errp)
{
    ERRP_GUARD();
    struct PostcopyNotifyData data = { .reason = reason };
    int ret = notifier_with_return_list_notify(&shared_notifiers, &data, errp);

    if (ret && !*errp) {
        error_setg(errp, "A device is not ready for postcopy");
    }
    return !ret;
}

/*
 * Processes
 */

static struct PostCopyFD *sharer(unsigned i)
{
    return &g_array_index(sharers, struct PostCopyFD, i);
}

/* Its place among them, or their number if it is not there; under the lock. */
static unsigned shared_find(int fd)
{
    unsigned i = 0;

    while (i < sharers->len && sharer(i)->fd != fd) {
        i++;
    }
    return i;
}

static bool shared_drop(int fd)
{
    unsigned i = shared_find(fd);

    if (i == sharers->len) {
        return false;
    }
    g_array_remove_index(sharers, i);
    return true;
}

void postcopy_register_shared_ufd(struct PostCopyFD *shared)
{
    QEMU_LOCK_GUARD(&shared_lock);
    g_array_append_val(sharers, *shared);
}

void postcopy_unregister_shared_ufd(struct PostCopyFD *shared)
{
    bool was_there;

    WITH_QEMU_LOCK_GUARD(&shared_lock) {
        was_there = shared_drop(shared->fd);
    }
    if (was_there && postcopy_memory_is_missing()) {
        warn_report("postcopy: %s has lost its backend while memory is still "
                    "to come; the guest goes on without it", shared->idstr);
    }
}

void shared_set_missing(bool is)
{
    qatomic_set(&shared_missing, is);
}

bool postcopy_memory_is_missing(void)
{
    return qatomic_read(&shared_missing);
}

GArray *shared_list(void)
{
    GArray *fds = g_array_new(false, false, sizeof(int));

    QEMU_LOCK_GUARD(&shared_lock);
    for (unsigned i = 0; i < sharers->len; i++) {
        g_array_append_val(fds, sharer(i)->fd);
    }
    return fds;
}

bool shared_any(void)
{
    QEMU_LOCK_GUARD(&shared_lock);
    return sharers->len;
}

void shared_lost(int fd)
{
    QEMU_LOCK_GUARD(&shared_lock);
    unsigned i = shared_find(fd);

    if (i < sharers->len) {
        error_report("postcopy: %s has closed its descriptor: it will wait for "
                     "pages that have not come", sharer(i)->idstr);
        shared_drop(fd);
    }
}

/* Called by a device's handler, so under the lock */
int postcopy_request_shared_page(struct PostCopyFD *shared, RAMBlock *rb,
                                 uint64_t client_addr, uint64_t offset)
{
    SharedFault fault = { .rb = rb, .offset = offset };

    pstrcpy(fault.who, sizeof(fault.who), shared->idstr);
    g_array_append_val(shared_asked, fault);
    return 0;
}

#ifdef CONFIG_LINUX
/* Reads all that is there, and has the device say what it is. */
static void ask_device(struct PostCopyFD *shared)
{
    struct uffd_msg msg;

    while (RETRY_ON_EINTR(read(shared->fd, &msg, sizeof(msg))) ==
           sizeof(msg)) {
        if (msg.event == UFFD_EVENT_PAGEFAULT &&
            shared->handler(shared, &msg)) {
            error_report("postcopy: a fault of %s at 0x%llx is in no memory "
                         "of the guest", shared->idstr,
                         (unsigned long long)msg.arg.pagefault.address);
        }
    }
}
#endif

void shared_serve(int fd, void (*wanted)(void *opaque, const SharedFault *),
                  void *opaque)
{
    g_autoptr(GArray) faults = NULL;

    WITH_QEMU_LOCK_GUARD(&shared_lock) {
#ifdef CONFIG_LINUX
        unsigned i = shared_find(fd);

        if (i < sharers->len) {
            ask_device(sharer(i));
        }
#endif
        faults = g_array_copy(shared_asked);
        g_array_set_size(shared_asked, 0);
    }
    for (unsigned i = 0; i < faults->len; i++) {
        wanted(opaque, &g_array_index(faults, SharedFault, i));
    }
}

void shared_wake(RAMBlock *rb, uint64_t page_size, uint64_t start, uint64_t len)
{
    QEMU_LOCK_GUARD(&shared_lock);
    for (unsigned i = 0; i < sharers->len; i++) {
        for (uint64_t at = start; at < start + len; at += page_size) {
            sharer(i)->waker(sharer(i), rb, at);
        }
    }
}
