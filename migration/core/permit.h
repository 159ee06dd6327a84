/*
 * What may be done to the machine while a migration is in progress: the part
 * that only the migration uses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_PERMIT_H
#define MIGRATION_CORE_PERMIT_H

#include "migration/permit.h"

/* Where the guest is, which may not agree with what runs here */
typedef enum Moment {
    MOMENT_HERE,                /* no migration */
    MOMENT_INCOMPLETE,          /* devices were not loaded completely */
    /* source */
    MOMENT_LEAVING,             /* it goes on while it is being sent */
    MOMENT_STOPPED,             /* by the migration; it may still stay */
    MOMENT_HANDED_OVER,         /* nobody here knows who has it */
    MOMENT_AWAY,                /* it runs there, its memory is here */
    MOMENT_GONE,                /* it was migrated away */
    /* destination */
    MOMENT_AWAITED,             /* nothing of it has come */
    MOMENT_LOADING,             /* it is incomplete and has not started */
    MOMENT_ARRIVING,            /* it runs, its memory is incomplete */
    MOMENT_CUT_OFF,             /* the same, and there is no connection */
    MOMENT_ENDING,              /* it is complete, the migration not over */
    MOMENT__COUNT
} Moment;

/* Who knows where the guest is */
typedef enum PermitUserId {
    PERMIT_SOURCE,
    PERMIT_DESTINATION,
    PERMIT_SNAPSHOT,
    PERMIT_USER__COUNT
} PermitUserId;

typedef struct PermitUser {
    /* MOMENT_HERE if it is not at work */
    Moment (*moment)(void);
    /* The state of the machine is about to be changed.  May be NULL. */
    void (*before_change)(void);
} PermitUser;

/*
 * From now on @user, which stays where it is, is asked, under the BQL.  Once.
 */
void permit_register(PermitUserId id, const PermitUser *user);

/*
 * Between true and false vm_start() starts the guest that has been loaded, or
 * one that the destination has refused; nobody else may do that before the
 * migration has ended.  BQL.
 */
void permit_guest_start(bool now);

/*
 * False with a reason for a guest whose CPUs cannot be reset, as those of
 * confidential guests: what was loaded into it stays.  Any thread.
 */
bool permit_reset_of_cpus(Error **errp);

#endif
