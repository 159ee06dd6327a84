/*
 * Reasons that somebody has against migrating this VM
 *
 * A reason is an Error of whoever objects; it is against some modes of
 * migration, and lasts until it is taken back.  All functions: under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/blocker.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/savevm.h"
#include "system/runstate.h"
#include "system/system.h"
#include "blockers.h"

#define ALL_MODES (BIT(MIG_MODE__MAX) - 1)

typedef struct Blocker {
    Error *reason;
    unsigned modes;                 /* bits by MigMode */
    QTAILQ_ENTRY(Blocker) entry;
} Blocker;

static QTAILQ_HEAD(, Blocker) blockers = QTAILQ_HEAD_INITIALIZER(blockers);

/* Takes @reasonp away from who objects, who then has to do without. */
static int refuse(Error **reasonp, const char *why, int ret, Error **errp)
{
    error_propagate_prepend(errp, g_steal_pointer(reasonp),
                            "disallowing migration blocker (%s) for: ", why);
    return ret;
}

static int blocker_insert(Error **reasonp, unsigned modes, Error **errp)
{
    Blocker *blocker;

    if (runstate_check(RUN_STATE_SAVE_VM) || migration_is_running()) {
        return refuse(reasonp, "migration/snapshot in progress", -EBUSY, errp);
    }
    blocker = g_new(Blocker, 1);
    *blocker = (Blocker) { .reason = *reasonp, .modes = modes };
    /* Of several reasons the newest is the one that is told. */
    QTAILQ_INSERT_HEAD(&blockers, blocker, entry);
    return 0;
}

static int add_unless_only_migratable(Error **reasonp, unsigned modes,
                                      Error **errp)
{
    if (only_migratable && (modes & BIT(MIG_MODE_NORMAL))) {
        return refuse(reasonp, "--only-migratable", -EACCES, errp);
    }
    return blocker_insert(reasonp, modes, errp);
}

int migrate_add_blocker(Error **reasonp, Error **errp)
{
    return add_unless_only_migratable(reasonp, ALL_MODES, errp);
}

int migrate_add_blocker_normal(Error **reasonp, Error **errp)
{
    return add_unless_only_migratable(reasonp, BIT(MIG_MODE_NORMAL), errp);
}

/* The list of modes ends with -1 or with MIG_MODE_ALL, which means all. */
int migrate_add_blocker_modes(Error **reasonp, Error **errp, MigMode mode, ...)
{
    unsigned modes = 0;
    va_list rest;

    va_start(rest, mode);
    while (mode != (MigMode)-1 && mode != MIG_MODE_ALL) {
        assert(mode < MIG_MODE__MAX);
        modes |= BIT(mode);
        mode = va_arg(rest, MigMode);
    }
    va_end(rest);
    return add_unless_only_migratable(reasonp, mode == MIG_MODE_ALL
                                               ? ALL_MODES : modes, errp);
}

/* For QEMU itself, which --only-migratable does not mean. */
int migrate_add_blocker_internal(Error **reasonp, Error **errp)
{
    return blocker_insert(reasonp, ALL_MODES, errp);
}

void migrate_del_blocker(Error **reasonp)
{
    Blocker *blocker, *next;

    if (!*reasonp) {
        return;
    }
    QTAILQ_FOREACH_SAFE(blocker, &blockers, entry, next) {
        if (blocker->reason == *reasonp) {
            QTAILQ_REMOVE(&blockers, blocker, entry);
            g_free(blocker);
        }
    }
    error_free(g_steal_pointer(reasonp));
}

bool migration_is_blocked(Error **errp)
{
    Blocker *blocker;

    if (qemu_savevm_state_blocked(errp)) {
        return true;
    }
    QTAILQ_FOREACH(blocker, &blockers, entry) {
        if (blocker->modes & BIT(migrate_mode())) {
            error_propagate(errp, error_copy(blocker->reason));
            return true;
        }
    }
    return false;
}

strList *blockers_reasons(void)
{
    strList *reasons = NULL;
    Blocker *blocker;

    qemu_savevm_non_migratable_list(&reasons);
    QTAILQ_FOREACH_REVERSE(blocker, &blockers, entry) {
        if (blocker->modes & BIT(migrate_mode())) {
            QAPI_LIST_PREPEND(reasons,
                              g_strdup(error_get_pretty(blocker->reason)));
        }
    }
    return reasons;
}
