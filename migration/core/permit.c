/*
 * What may be done to the machine while a migration is in progress
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "migration/misc.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "fault-inject.h"
#include "permit.h"

static const char *const moment_text[MOMENT__COUNT] = {
    [MOMENT_INCOMPLETE] = "the state of its devices was not loaded completely",
    [MOMENT_LEAVING] = "a migration is in progress",
    [MOMENT_STOPPED] = "a migration is in progress",
    [MOMENT_HANDED_OVER] = "the guest is being handed over to the destination",
    [MOMENT_AWAY] = "the guest runs on the destination",
    [MOMENT_GONE] = "the guest was migrated away",
    [MOMENT_AWAITED] = "the guest has not been migrated here yet",
    [MOMENT_LOADING] = "an incoming migration is loading the guest",
    [MOMENT_ARRIVING] = "the memory of the guest is still arriving",
    [MOMENT_CUT_OFF] = "postcopy is paused, and the guest may wait for memory",
    [MOMENT_ENDING] = "the incoming migration has not ended yet",
};

#define INCOMPLETE  BIT(MOMENT_INCOMPLETE)
#define LEAVING     BIT(MOMENT_LEAVING)
#define STOPPED     BIT(MOMENT_STOPPED)
#define HANDED_OVER BIT(MOMENT_HANDED_OVER)
#define AWAY        BIT(MOMENT_AWAY)
#define GONE        BIT(MOMENT_GONE)
#define AWAITED     BIT(MOMENT_AWAITED)
#define LOADING     BIT(MOMENT_LOADING)
#define ARRIVING    BIT(MOMENT_ARRIVING)
#define CUT_OFF     BIT(MOMENT_CUT_OFF)
#define ENDING      BIT(MOMENT_ENDING)

#define OUTGOING    (LEAVING | STOPPED | HANDED_OVER | AWAY)
#define POSTCOPY    (ARRIVING | CUT_OFF)

typedef struct Rule {
    const char *what;
    unsigned refused;           /* bits by Moment */
} Rule;

static const Rule permit_rules[MIGRATION_ACT__COUNT] = {
    /* Others of its conditions depend on the run state, see source.c. */
    [MIGRATION_ACT_MIGRATE] = {
        "Cannot migrate the VM", INCOMPLETE | LOADING | POSTCOPY | ENDING
    },
    /* Those of a source that has not sent anything can still be set. */
    [MIGRATION_ACT_SET_CAPABILITIES] = {
        "Cannot set migration capabilities", OUTGOING | LOADING | POSTCOPY
    },
    [MIGRATION_ACT_SAVE_SNAPSHOT] = {
        "Cannot save a snapshot",
        INCOMPLETE | OUTGOING | GONE | AWAITED | LOADING | POSTCOPY
    },
    [MIGRATION_ACT_LOAD_SNAPSHOT] = {
        "Cannot load a snapshot",
        OUTGOING | GONE | AWAITED | LOADING | POSTCOPY
    },
    /* It stops the guest, and resets what a migration would load or send. */
    [MIGRATION_ACT_CHECK_DEVICES] = {
        "Cannot check the state of devices",
        INCOMPLETE | OUTGOING | GONE | AWAITED | LOADING | POSTCOPY | ENDING
    },
    /* As long as the disks are here; no migration needs old snapshots. */
    [MIGRATION_ACT_DELETE_SNAPSHOT] = {
        "Cannot delete a snapshot",
        HANDED_OVER | AWAY | GONE | AWAITED | LOADING
    },
    /* It writes to memory: of who is away, that is memory yet to be sent. */
    [MIGRATION_ACT_RESET] = {
        "Cannot reset the machine", HANDED_OVER | AWAY | LOADING | CUT_OFF
    },
    [MIGRATION_ACT_POWERDOWN] = {
        "Cannot send a power-down request",
        HANDED_OVER | AWAY | AWAITED | LOADING
    },
    [MIGRATION_ACT_CHANGE_DEVICE] = {
        "Cannot change the state of a device", HANDED_OVER | AWAY | LOADING
    },
    [MIGRATION_ACT_CHANGE_CPU] = {
        "Cannot change the state of a CPU",
        HANDED_OVER | AWAY | LOADING | CUT_OFF
    },
    /* Backends are not part of what is sent; what devices make of them is. */
    [MIGRATION_ACT_CHANGE_BACKEND] = { "Cannot change a backend", 0 },
    /* Who has the disks is decided by the switchover. */
    [MIGRATION_ACT_ACTIVATE] = {
        "Cannot activate a disk", HANDED_OVER | AWAY
    },
    [MIGRATION_ACT_INACTIVATE] = {
        "Cannot inactivate a disk", STOPPED | HANDED_OVER | AWAY
    },
    /* The destination has been started without it. */
    [MIGRATION_ACT_ADD_OVERLAY] = { "Cannot add an overlay", OUTGOING },
    [MIGRATION_ACT_ANNOUNCE] = {
        "Cannot announce the guest",
        HANDED_OVER | AWAY | GONE | AWAITED | LOADING
    },
    /* A vCPU that waits for memory can only be stopped when that comes. */
    [MIGRATION_ACT_STOP] = { "Cannot stop the guest", CUT_OFF },
    [MIGRATION_ACT_START] = {
        "Cannot start the guest",
        INCOMPLETE | STOPPED | HANDED_OVER | AWAY | AWAITED | LOADING
    },
    [MIGRATION_ACT_HOTPLUG] = {
        "Cannot plug or unplug devices", OUTGOING | LOADING | POSTCOPY
    },
    [MIGRATION_ACT_READ_MEMORY] = {
        "Cannot read the guest's memory", CUT_OFF
    },
    [MIGRATION_ACT_DUMP] = {
        "Cannot dump the guest's memory",
        OUTGOING | AWAITED | LOADING | POSTCOPY
    },
    [MIGRATION_ACT_REQUEST] = {
        "Cannot carry out a request", HANDED_OVER | AWAY | LOADING | CUT_OFF
    },
};

static bool migration_starts_guest;    /* BQL */

void permit_guest_start(bool now)
{
    migration_starts_guest = now;
}

/* In the order in which they are asked; BQL */
static const PermitUser *users[PERMIT_USER__COUNT];

void permit_register(PermitUserId id, const PermitUser *user)
{
    users[id] = user;
}

static Moment moment_of(PermitUserId id)
{
    return users[id] ? users[id]->moment() : MOMENT_HERE;
}

static Moment moment_by_run_state(void)
{
    if (runstate_check(RUN_STATE_INMIGRATE)) {
        return MOMENT_AWAITED;
    }
    if (runstate_check(RUN_STATE_POSTMIGRATE)) {
        return MOMENT_GONE;
    }
    return MOMENT_HERE;
}

static Moment moment_now(void)
{
    return moment_of(PERMIT_SOURCE) ?:
           moment_of(PERMIT_DESTINATION) ?:
           moment_by_run_state() ?:
           moment_of(PERMIT_SNAPSHOT);
}

static void before_change(void)
{
    for (PermitUserId id = 0; id < PERMIT_USER__COUNT; id++) {
        if (users[id] && users[id]->before_change) {
            users[id]->before_change();
        }
    }
}

/* What does not do anything, or was checked by who does it */
static bool is_exempt(MigrationAct act)
{
    switch (act) {
    case MIGRATION_ACT_START:
        return migration_starts_guest;
    case MIGRATION_ACT_STOP:
        return !runstate_is_live(runstate_get());
    default:
        return false;
    }
}

bool permit_reset_of_cpus(Error **errp)
{
    if (fault_inject_cpus_stay() || !cpus_are_resettable()) {
        error_setg(errp, "the guest's CPUs cannot be reset");
        return false;
    }
    return true;
}

static bool permit_changes_state(MigrationAct act)
{
    return act == MIGRATION_ACT_RESET || act == MIGRATION_ACT_POWERDOWN ||
           act == MIGRATION_ACT_CHANGE_DEVICE ||
           act == MIGRATION_ACT_CHANGE_CPU ||
           act == MIGRATION_ACT_CHANGE_BACKEND || act == MIGRATION_ACT_REQUEST;
}

bool migration_permits(MigrationAct act, Error **errp)
{
    ERRP_GUARD();
    const Rule *rule = &permit_rules[act];
    Moment now = moment_now();

    assert(bql_locked());
    if ((act == MIGRATION_ACT_LOAD_SNAPSHOT ||
         act == MIGRATION_ACT_CHECK_DEVICES) && !permit_reset_of_cpus(errp)) {
        error_prepend(errp, "%s: ", rule->what);
        return false;
    }
    if (!(rule->refused & BIT(now)) || is_exempt(act)) {
        if (permit_changes_state(act)) {
            before_change();
        }
        return true;
    }
    error_setg(errp, "%s: %s", rule->what, moment_text[now]);
    if (now == MOMENT_GONE) {
        error_append_hint(errp, "'cont' takes its disks back.\n");
    } else if (now == MOMENT_INCOMPLETE) {
        error_append_hint(errp, "'loadvm' with another snapshot or "
                          "'system_reset' gives it a complete state.\n");
    } else if (now == MOMENT_CUT_OFF) {
        error_append_hint(errp, "'migrate-recover' makes it go on.\n");
    }
    return false;
}
