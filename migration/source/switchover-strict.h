/*
 * The source: switching over within the downtime limit, or not at all
 *
 * An attempt goes as follows; the guest is stopped from "stop" on.
 *
 *     source                              destination
 *     drain: all sent has been read
 *     HOLD                      ------>
 *     stop, devices, last sync
 *     memory, STATE             ------>   loads all of it
 *                               <------   READY, with what that took
 *     would the rest still fit?
 *     COMMIT                    ------>   opens disks, starts the guest
 *                               <------   STARTED
 *     what closes the stream    ------>
 *
 * Before COMMIT anything may end the attempt: then the guest goes on here, at
 * the latest when its time is over, and ABORT has the destination forget what
 * it knows of devices.  It answers ABORTED, after it has told which memory that
 * changed, by resetting them for instance; no attempt follows before that.
 * After COMMIT it stays stopped, whatever happens, unless
 * the destination says that it has not started it and never will.
 *
 * A destination that is no peer cannot hold.  Until all memory is there the
 * attempt is the same, and then COMMIT is the state of the devices.
 *
 * If memory is to follow (postcopy), what the destination has to discard is
 * told in place of memory, STATE says first that pages may be missing, and
 * until READY comes the pages that loading needs are sent.  Then no more than
 * the order to start it has to be sent; to one that is no peer, the package.
 *
 * A switchover to postcopy takes this way even where no limit is promised, if
 * the destination can hold and is not far: a guest whose destination dies while
 * it loads devices, or cannot have its disks, goes on here.
 *
 * Migration thread, without the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_SWITCHOVER_STRICT_H
#define MIGRATION_SOURCE_SWITCHOVER_STRICT_H

#include "migration/base/policy.h"

/* What is to be seen of it */
typedef struct StrictView {
    uint32_t attempts;
    uint32_t attempts_max;
    bool one_sided;
    char why[POLICY_REASON_MAX];    /* the last attempt was given up; or "" */
} StrictView;

typedef enum StrictResult {
    STRICT_DONE,                /* the guest has left */
    STRICT_POSTCOPY,            /* so has it, and memory has to follow */
    STRICT_AGAIN,               /* it goes on here, for now */
    STRICT_FAILED,              /* as the error says; undo is the caller's */
} StrictResult;

/*
 * Before anything is sent, with the BQL: whether what this machine consists of
 * can be sent more than once.
 */
bool strict_possible(Error **errp);

/*
 * The same, of any live section: whether it is as before when the guest has
 * been stopped for a switchover and is resumed.  With a device of VFIO, which
 * saves a part of its state in advance, it is not.  @capability is what
 * requires it, for the error.  BQL.
 */
bool strict_sections(const char *capability, Error **errp);

/*
 * Whether a switchover to postcopy is an attempt though no limit is promised.
 * After the destination was met, with the BQL.  An attempt costs a round trip
 * more than a package that contains the order to start, so this is false if
 * four round trips exceed the downtime limit.
 */
bool strict_may_hold(void);

/*
 * After the destination was met: @policy is told what the way to it costs.
 * From then on it is watched how late the main loop is, until somebody calls
 * loop_latency_forget().
 */
void strict_rehearse(Policy *policy);

/*
 * After STRICT_AGAIN: has the destination say which of its memory the attempt
 * changed, and has that sent again.  Until this has been done once there must
 * not be another attempt.  The guest runs meanwhile.
 */
bool strict_settle(Error **errp);

/*
 * One attempt; @postcopy: with memory to follow.  It may do so even if it need
 * not, where an attempt before has left no other way.
 */
StrictResult strict_run(Policy *policy, bool postcopy, Error **errp);

#endif
