/*
 * Processes that share the guest's memory, and devices that want to know how
 * far postcopy is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "shared.h"

#ifdef CONFIG_LINUX
#include <linux/userfaultfd.h>
#endif

static NotifierWithReturnList notifiers;
static QemuMutex lock;
static GArray *sharers;         /* struct PostCopyFD; under the lock */

static void __attribute__((constructor)) init(void)
{
    qemu_mutex_init(&lock);
    sharers = g_array_new(false, false, sizeof(struct PostCopyFD));
    notifier_with_return_list_init(&notifiers);
}

/*
 * Devices
 */

void postcopy_infrastructure_init(void)
{
}

void postcopy_add_notifier(NotifierWithReturn *notifier)
{
    notifier_with_return_list_add(&notifiers, notifier);
}

void postcopy_remove_notifier(NotifierWithReturn *notifier)
{
    notifier_with_return_remove(notifier);
}

bool shared_notify(enum PostcopyNotifyReason reason, Error **errp)
{
    ERRP_GUARD();
    struct PostcopyNotifyData data = { .reason = reason };
    int ret = notifier_with_return_list_notify(&notifiers, &data, errp);

    if (ret && !*errp) {
        error_setg(errp, "A device is not ready for postcopy");
    }
    return !ret;
}

/*
 * Processes
 */

void postcopy_register_shared_ufd(struct PostCopyFD *shared)
{
    QEMU_LOCK_GUARD(&lock);
    g_array_append_val(sharers, *shared);
}

void postcopy_unregister_shared_ufd(struct PostCopyFD *shared)
{
    QEMU_LOCK_GUARD(&lock);
    for (unsigned i = 0; i < sharers->len; i++) {
        if (g_array_index(sharers, struct PostCopyFD, i).fd == shared->fd) {
            g_array_remove_index(sharers, i);
            return;
        }
    }
}

GArray *shared_list(void)
{
    QEMU_LOCK_GUARD(&lock);
    return g_array_copy(sharers);
}

bool shared_any(void)
{
    QEMU_LOCK_GUARD(&lock);
    return sharers->len;
}

void shared_lost(struct PostCopyFD *shared)
{
    error_report("postcopy: %s has closed its descriptor: it will wait for "
                 "pages that have not come", shared->idstr);
    postcopy_unregister_shared_ufd(shared);
}

void shared_serve(struct PostCopyFD *shared)
{
#ifdef CONFIG_LINUX
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
#endif
}

void shared_wake(RAMBlock *rb, uint64_t page_size, uint64_t start, uint64_t len)
{
    g_autoptr(GArray) list = NULL;

    if (!shared_any()) {
        return;
    }
    list = shared_list();
    for (uint64_t end = start + len; start < end; start += page_size) {
        for (unsigned i = 0; i < list->len; i++) {
            struct PostCopyFD *other = &g_array_index(list, struct PostCopyFD,
                                                      i);

            other->waker(other, rb, start);
        }
    }
}
