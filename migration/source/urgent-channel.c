/*
 * The second channel of postcopy, for pages that somebody waits for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "migration/trace.h"
#include "channel.h"
#include "state.h"
#include "urgent-channel.h"

bool urgent_channel_connect(Error **errp)
{
    Error *err = NULL;
    QEMUFile *f = source_channel_connect("migration-postcopy-urgent", &err);

    if (f) {
        trace_postcopy_preempt_new_channel();
    }
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        source.urgent = f;
    }
    if (err) {
        error_propagate_prepend(errp, err, "The channel for urgent pages "
                                "cannot be made: ");
        return false;
    }
    return source_may_go_on(errp);
}
