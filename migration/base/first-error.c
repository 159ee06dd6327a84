/*
 * An error that several threads may report, of which the first one counts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "first-error.h"

void first_error_init(FirstError *first)
{
    qemu_mutex_init(&first->lock);
}

void first_error_set(FirstError *first, const Error *err)
{
    QEMU_LOCK_GUARD(&first->lock);
    if (!first->err) {
        first->err = error_copy(err);
    }
}

void first_error_add(FirstError *first, const Error *err)
{
    Error *old;

    QEMU_LOCK_GUARD(&first->lock);
    old = g_steal_pointer(&first->err);
    error_setg(&first->err, "%s%s%s", old ? error_get_pretty(old) : "",
               old ? "; " : "", error_get_pretty(err));
    error_free(old);
}

bool first_error_is_set(FirstError *first)
{
    QEMU_LOCK_GUARD(&first->lock);
    return first->err;
}

Error *first_error_get(FirstError *first)
{
    QEMU_LOCK_GUARD(&first->lock);
    return first->err ? error_copy(first->err) : NULL;
}

void first_error_clear(FirstError *first)
{
    QEMU_LOCK_GUARD(&first->lock);
    error_free(g_steal_pointer(&first->err));
}
