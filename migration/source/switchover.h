/*
 * The source: steps of stopping the guest and handing it over
 *
 * They are put together in switchover.c, for a migration that ends at once,
 * and in switchover-strict.c, for one that may have to try again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_SWITCHOVER_H
#define MIGRATION_SOURCE_SWITCHOVER_H

#include "migration/base/ledger.h"
#include "migration/base/policy.h"
#include "return-path.h"

/* One switchover: its ledger, and where the part that runs began. */
typedef struct Switchover {
    Policy *policy;
    DowntimeLedger ledger;
    LedgerDevices saved, loaded;    /* the slowest devices, here and there */
    int64_t since_ns;
} Switchover;

/*
 * The part that ran until now was @part; the next begins.  What RAM costs the
 * policy works out from speeds.
 */
void switchover_part(Switchover *s, DowntimePart part);

/*
 * Steps, under the BQL; each says by @errp why it did not work
 */

/*
 * The first step of every switchover: the guest is stopped, and the phase is
 * DEVICE.  With pause-before-switchover it is PRE_SWITCHOVER first, in which
 * the BQL is released until the user continues.  On failure the caller has
 * switchover_undo() called, as after every later step.
 */
bool switchover_begin(Switchover *s, Error **errp);

/*
 * The guest is stopped before memory is sent, and switchover_begin() will not
 * do so: whoever resumes it must not switch over after that.  Migration thread,
 * with the BQL, which it lets go for a while.
 */
bool switchover_stop_first(Error **errp);

/*
 * The second: the bandwidth is not limited any more, no more free page hints
 * come, and a destination that expects it is sent SWITCHOVER_START, once.
 */
void switchover_prepare(void);

/*
 * The guest's disks are released, as the destination opens them when it has
 * read the last byte, or the order to start the guest.
 */
bool switchover_disks(Error **errp);

/* These three, of a switchover that has one attempt */
bool switchover_leave(Switchover *s, Error **errp);

/* Memory was sent, or what postcopy needs of it: with that the last sync. */
void switchover_memory_sent(Switchover *s);

/*
 * Turns @ret of a qemu_savevm_*() function into a result and @errp; the reason
 * is latched in the stream or in the migration object.
 */
bool switchover_saved(int ret, Error **errp);

/*
 * And without it
 */

/*
 * Before the guest stops: waits until the destination has read all that was
 * sent, no longer than @timeout_ms.  What is still on its way would be part of
 * the downtime.  What the destination says next is about @attempt.
 */
void switchover_drain(uint32_t attempt, int timeout_ms);

/* How long that may take; the guest runs */
#define DRAIN_MS 1000

/*
 * The guest was handed over, @sent if nothing went wrong with that.  A QEMU
 * says when it has the guest, or that it failed; a peer also what it did with
 * the time, which goes to *@started.  One that never said a word is a channel
 * that goes one way, and nothing more can be known.
 */
bool switchover_arrived(bool sent, ReturnPathReport *started, Error **errp);

/* What @started says of the other side's part belongs to the ledger. */
void switchover_join(Switchover *s, const ReturnPathReport *started);

/*
 * Postcopy: the guest leaves now, and memory follows.  @order, the bytes of a
 * command, has the destination run the guest as soon as it has the last of
 * them: a package with the guest's state, or the COMMIT of one that is @held
 * there.  Under the BQL, with the disks released, when the destination knows
 * what to discard.  False if the guest is still here.
 */
bool switchover_commit(Switchover *s, const GByteArray *order, bool held,
                       Error **errp);

/*
 * Postcopy has begun with @s: a peer will say what became of its part.  If
 * @loaded, what it took to load the devices is known already.
 */
void switchover_expect_start(const Switchover *s, bool loaded);

/* Now and then: if it has said so, adds that to the ledger. */
void switchover_note_start(void);

/*
 * Attempt @number was given up because of @reason, and the guest goes on here:
 * events and trace.
 */
void switchover_announce_abort(const Switchover *s, uint32_t number,
                               const char *reason);

/* What others may see of it; @downtime_ms is 0 if the guest is still here. */
void switchover_show(const Switchover *s, int64_t downtime_ms);

/*
 * Whole switchovers
 */

typedef enum SwitchoverEnd {
    SWITCHOVER_DONE,            /* the guest has left */
    SWITCHOVER_RETURNED,        /* it runs here again, nothing of it was sent */
    SWITCHOVER_FAILED,          /* as the error says; undo is the caller's */
} SwitchoverEnd;

/*
 * The guest stops, and what is left goes to the destination.  If @limits is not
 * NULL and *@remaining, what is left when it has stopped, does not fit them,
 * the guest is resumed instead: between the last look at what it dirtied and
 * the moment it stops a guest can dirty more than was expected, above all one
 * that is throttled and has all of a time slice to catch up in.
 */
SwitchoverEnd switchover_run(Policy *policy, const PolicyLimits *limits,
                             uint64_t *remaining, Error **errp);

/*
 * The guest stops, and goes on there while memory is still here.  False
 * if it has not been handed over.
 */
bool switchover_to_postcopy(Policy *policy, Error **errp);

/* BQL: what was done to the guest and its disks is undone. */
void switchover_undo(void);

#endif
