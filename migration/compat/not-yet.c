/*
 * What other parts of QEMU link to, and is not available yet
 *
 * The capabilities behind these functions are refused (base/caps.c), so that
 * most of them are never called; each says why it may still be.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "migration/misc.h"
#include "migration/postcopy-ram.h"

/*
 * Postcopy: devices come to tell that they would take part.
 */

void postcopy_infrastructure_init(void)
{
}

void postcopy_add_notifier(NotifierWithReturn *notifier)
{
}

void postcopy_remove_notifier(NotifierWithReturn *notifier)
{
}

/* Only ever called from the notifiers above, or after them. */

void postcopy_register_shared_ufd(struct PostCopyFD *pcfd)
{
}

void postcopy_unregister_shared_ufd(struct PostCopyFD *pcfd)
{
}

int postcopy_wake_shared(struct PostCopyFD *pcfd, uint64_t client_addr,
                         RAMBlock *rb)
{
    return -ENOTSUP;
}

int postcopy_request_shared_page(struct PostCopyFD *pcfd, RAMBlock *rb,
                                 uint64_t client_addr, uint64_t offset)
{
    return -ENOTSUP;
}

/*
 * Background snapshots: the balloon asks whether there is one.
 */

bool migration_in_bg_snapshot(void)
{
    return false;
}

/*
 * Device state over multifd: VFIO asks whether that is possible, and does
 * without if it is not.
 */

bool multifd_device_state_supported(void)
{
    return false;
}

bool multifd_queue_device_state(char *idstr, uint32_t instance_id,
                                char *data, size_t len)
{
    return false;
}

bool multifd_device_state_save_thread_should_exit(void)
{
    return true;
}
