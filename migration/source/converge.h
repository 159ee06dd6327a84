/*
 * The source: convergence=auto, with what it needs of settings and clock
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_CONVERGE_H
#define MIGRATION_SOURCE_CONVERGE_H

#include "migration/base/convergence.h"

/* A migration begins to send.  Migration thread, as all that follows. */
void converge_begin(void);

/* Fills in what convergence=auto adds to @limits. */
void converge_limits(PolicyLimits *limits);

/*
 * After policy_decide(), whatever it decided; does nothing unless
 * convergence=auto.  @now_bytes of @remaining cannot follow in postcopy.
 */
void converge_decide(Policy *policy, const PolicyLimits *limits,
                     ConvergenceLook *look, PolicyDecision *decision);

/*
 * Whether the switchover that was decided may be taken back (switchover_run()).
 * Not with pause-before-switchover: what the user did then cannot be undone.
 * Nor if the guest was stopped before memory was sent: the next switchover
 * would not stop it again (switchover_stop_first()).  Nor with a device that
 * begins anew when it is resumed, and the destination has had a part of its
 * state (strict_sections()).  Migration thread, without the BQL.
 */
bool converge_may_return(const PolicyLimits *limits,
                         const PolicyDecision *decision);

/* It was, as @remaining bytes remained. */
void converge_returned(uint64_t remaining);

/*
 * The decision was to cancel: it is done as migrate_cancel would, with @reason
 * as the error.  Returns, with @errp set, when the migration may not go on.
 */
void converge_cancel(const char *reason, Error **errp);

#endif
