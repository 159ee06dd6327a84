/*
 * Lazy restore: a guest that runs before its memory is read from a file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/base/load-step.h"
#include "migration/core/main-loop.h"
#include "migration/core/notify.h"
#include "migration/options.h"
#include "migration/postcopy/dest.h"
#include "migration/postcopy/file-pages.h"
#include "migration/qemu-file.h"
#include "migration/ram/load.h"
#include "system/runstate.h"
#include "lazy.h"
#include "postcopy.h"
#include "state.h"

/*
 * Memory is watched.  Written by the thread that reads the list of blocks, with
 * the BQL, and at the end by the main loop, when that thread has ended; atomic.
 */
static bool began;

bool lazy_restore_began(void)
{
    return qatomic_read(&began);
}

/*
 * The list of blocks
 */

static const FaultsOps requests_to_file = {
    .request = file_pages_request, .vcpu = postcopy_dest_vcpu_of_thread,
};

static const FilePagesOps file_ops = {
    .release = dest_unregister, .rate = migrate_max_postcopy_bandwidth,
};

static bool watch_memory_for_file(Error **errp)
{
    QIOChannel *ioc = qemu_file_get_ioc(destination.from_src);

    if (!file_pages_same_file(ioc, errp) ||
        !file_pages_complete(ram_load_regions(), errp) ||
        !dest_advise_file(errp)) {
        return false;
    }
    file_pages_mark_zeros(dest_memory());
    /* Also if it fails: memory may be watched already. */
    qatomic_set(&began, true);
    if (!dest_listen(&requests_to_file, 0, errp) ||
        !file_pages_start(dest_memory(), &file_ops, errp)) {
        return false;
    }
    dest_resume();
    return true;
}

static bool lazy_begin(Error **errp)
{
    BQL_LOCK_GUARD();
    if (!watch_memory_for_file(errp)) {
        return false;
    }
    load_step_go(STEP_LAZY);
    return true;
}

static const RamLazyOps lazy_ops = {
    .keep = file_pages_keep, .begin = lazy_begin,
};

bool lazy_restore_open(QIOChannel **files, unsigned count, Error **errp)
{
    if (!file_pages_begin(files, count, errp)) {
        return false;
    }
    ram_load_set_lazy(&lazy_ops);
    return true;
}

/*
 * The main stream was loaded, or not
 */

void lazy_restore_failed(Error **errp)
{
    Error *why = NULL;

    file_pages_cancel();
    file_pages_wait(&why);
    dest_unregister();
    if (why && errp) {
        /* What devices made of memory that was missing follows from it. */
        error_free(*errp);
        *errp = NULL;
    }
    error_propagate(errp, why);
}

bool lazy_restore_run(Error **errp)
{
    if (!file_pages_guest(errp)) {
        return false;
    }
    load_step_go(STEP_RUNNING);
    notify_phase_set(&destination_phase, MIGRATION_STATUS_POSTCOPY_ACTIVE);
    return true;
}

static void stop_lazy_guest(void *opaque)
{
    if (runstate_is_running()) {
        vm_stop(RUN_STATE_INTERNAL_ERROR);
    }
}

bool lazy_restore_finish(Error **errp)
{
    Error *err = NULL;

    if (file_pages_wait(&err)) {
        dest_unregister();
        return true;
    }
    if (err) {
        error_prepend(&err, "the guest was stopped, as its memory cannot be "
                      "loaded: ");
        postcopy_dest_stay_paused(err, stop_lazy_guest);
    }
    error_setg(errp, "QEMU has ended before all memory was loaded");
    return false;
}

void lazy_restore_quit(void)
{
    file_pages_cancel();
}

void lazy_restore_end(void)
{
    file_pages_end();
    ram_load_set_lazy(NULL);
    qatomic_set(&began, false);
}
