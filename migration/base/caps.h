/*
 * Which capabilities go together
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_CAPS_H
#define MIGRATION_BASE_CAPS_H

#include "qapi/qapi-types-migration.h"

/*
 * Whether this version has all capabilities that are true in @wanted, an
 * array of MIGRATION_CAPABILITY__MAX elements.  The first one that is missing
 * is reported.
 */
bool caps_available(const bool *wanted, Error **errp);

/*
 * Whether @cap means something for a snapshot, which saves all of a stopped
 * guest into one file and talks to nobody.
 */
bool caps_apply_to_snapshots(MigrationCapability cap);

/*
 * Capabilities as members of the parameters: each has one, so that a command
 * can set and query both at once.
 */

/* Whether @members says anything about a capability. */
bool caps_given(const MigrationCapabilityMembers *members);

/* Changes in @caps, of MIGRATION_CAPABILITY__MAX elements, what is given. */
void caps_merge(bool *caps, const MigrationCapabilityMembers *members);

/* Gives all that are in @caps. */
void caps_show(const bool *caps, MigrationCapabilityMembers *members);

/* What a capability may need besides others: answered by the caller. */
typedef enum CapCondition {
    CAP_COLO_IS_BUILT,
    CAP_HOST_CAN_POSTCOPY,          /* destination only */
    CAP_HOST_TRACKS_WRITES,
    CAP_HOST_SENDS_IN_PLACE,
    CAP_STREAM_IS_PLAIN,            /* neither compressed nor encrypted */
    CAP_INCOMING_NOT_STARTED,
    CAP_DIRTY_RING,
} CapCondition;

/*
 * Whether @condition holds for @cap, with the parameters @params; if not, says
 * in @errp what is missing.
 */
typedef bool CapHolds(MigrationCapability cap, CapCondition condition,
                      const MigrationParameters *params, Error **errp);

/*
 * Whether the capabilities may change from @old to @new, both of
 * MIGRATION_CAPABILITY__MAX elements, where the parameters are @params.  The
 * first rule that is broken is reported.  @holds is asked only about
 * capabilities that are set in @new, and is given @params.
 */
bool caps_check(const bool *old, const bool *new,
                const MigrationParameters *params, CapHolds *holds,
                Error **errp);

#endif
