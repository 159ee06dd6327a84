/*
 * What devices outside of migration need to know of postcopy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_COMPAT_POSTCOPY_RAM_H
#define MIGRATION_COMPAT_POSTCOPY_RAM_H

#include "qemu/notify.h"
#include "exec/cpu-common.h"

/* Called once, before devices are made. */
void postcopy_infrastructure_init(void);

/* Who is told of the steps below, as @data of the notifier. */
void postcopy_add_notifier(NotifierWithReturn *notifier);
void postcopy_remove_notifier(NotifierWithReturn *notifier);

enum PostcopyNotifyReason {
    POSTCOPY_NOTIFY_PROBE,              /* would it work with this device? */
    POSTCOPY_NOTIFY_INBOUND_ADVISE,     /* it may come */
    POSTCOPY_NOTIFY_INBOUND_LISTEN,     /* it comes */
    POSTCOPY_NOTIFY_INBOUND_END,
};

struct PostcopyNotifyData {
    enum PostcopyNotifyReason reason;
};

/* Memory of the guest that another process has mapped, and its userfaultfd */
struct PostCopyFD;

/* @message is a struct uffd_msg.  Neither of the two may wait for anything. */
typedef int (*pcfdhandler)(struct PostCopyFD *shared, void *message);

/* The page of @block at @offset is there. */
typedef int (*pcfdwake)(struct PostCopyFD *shared, RAMBlock *block,
                        uint64_t offset);

struct PostCopyFD {
    const char *idstr;          /* for messages */
    int fd;
    pcfdhandler handler;
    pcfdwake waker;
    void *data;                 /* the device's own */
};

/*
 * From _register to _unregister faults on its descriptor are served, by other
 * threads: when _unregister returns none of them is in a callback.  BQL.
 */
void postcopy_register_shared_ufd(struct PostCopyFD *shared);
void postcopy_unregister_shared_ufd(struct PostCopyFD *shared);

/* Lets a process go on that waits for the page at its @client_addr. */
int postcopy_wake_shared(struct PostCopyFD *shared, uint64_t client_addr,
                         RAMBlock *block);

/* Asks for the page of @block at @offset; only for @shared's handler. */
int postcopy_request_shared_page(struct PostCopyFD *shared, RAMBlock *block,
                                 uint64_t client_addr, uint64_t offset);

/*
 * Whether pages of the guest are still at the source.  Who maps its memory now,
 * without a descriptor registered, would find zeros in their place, and they
 * would stay.
 */
bool postcopy_memory_is_missing(void);

/*
 * What settings need to know: whether this host and the memory of this VM can
 * be the destination of a postcopy.  BQL.
 */
bool postcopy_possible_here(Error **errp);

#endif
