/*
 * The source in postcopy, by means of postcopy/
 *
 *   postcopy.c          what happens when the guest stops, and sending then
 *   postcopy-resume.c   pausing when the connection breaks, and going on
 *
 * Threads: the migration thread, if nothing else is said.  The return path's
 * thread comes in by the functions of postcopy_return_path().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_POSTCOPY_H
#define MIGRATION_SOURCE_POSTCOPY_H

#include "migration/postcopy/pace.h"
#include "migration/postcopy/sender.h"
#include "return-path.h"

typedef struct PostcopySource {
    bool begun;                 /* the next two are of this migration */
    bool paused;                /* it was, at least once */
    bool held;                  /* it was not started by the package */
    bool told;                  /* what to discard, in an attempt */
    bool one_way;               /* of those that only postcopy can follow */
    bool left;                  /* the guest was handed over; atomic */
    bool seen;                  /* the guest, at the destination; atomic */
    bool given_up;              /* by the user, while it is paused; atomic */
    /*
     * Under Source.lock: a user has paused it, on this connection; and the
     * destination has said that it has all.  A pause that comes later breaks
     * nothing any more, and one that came just before is no error.
     */
    bool user_paused, over;
    RamSender *main;
    PostcopySender sender;
    Pace pace;                  /* of the main channel */
    uint32_t pong;              /* the last that came; atomic */
    /*
     * By region: its bitmap is to come; atomic, and so is the pointer, which
     * is changed only where there is no return path's thread, or from NULL.
     */
    bool *awaited;
} PostcopySource;

extern PostcopySource postcopy;

/* Who acts on messages of postcopy; NULL if the capability is off. */
const ReturnPathUser *postcopy_return_path(void);

/* The destination may be sent pages on two channels, and asks for them. */
bool postcopy_channels_ready(Error **errp);

/*
 * The guest has stopped, and the log was collected for the last time: tells
 * the destination what to discard.
 */
bool postcopy_discard_dirty(QEMUFile *f, Error **errp);

/*
 * The guest leaves for good, and memory follows.  @held: it is started by
 * COMMIT, and not by what is in the package.  BQL.
 */
void postcopy_enter(bool held);

/*
 * An attempt, which may be in vain: the guest is stopped, and the log was
 * collected.  Nothing is taken off the maps, so whatever it tells or sends is
 * still to be sent afterwards, and nothing has to be taken back.  @hold: pages
 * may be requested before there is a decision.  Without the BQL.
 */
bool postcopy_try_discard(bool hold, Error **errp);

/*
 * Sends what was requested, as long as the guest is stopped.  Without the
 * BQL.
 */
void postcopy_try_answer(void);

/* The guest goes on here.  BQL. */
void postcopy_try_failed(void);

/*
 * The destination was told to throw pages away and has no means to hear that
 * there will be no postcopy: it would wait for its package.
 */
bool postcopy_no_way_back(void);

/*
 * From now on pages may be requested: the guest is about to be handed over, or
 * there is a new connection to where it is.
 */
void postcopy_open_requests(void);

/* It has been: memory that is not needed here any more goes.  BQL */
void postcopy_release_sent(void);

/*
 * The destination has said on this connection that it has loaded the guest, or
 * started it.  If it has not, what it said may have been lost.
 */
bool postcopy_guest_loaded(void);

/* It is all over, and the connections are closed.  Main loop. */
void postcopy_cleanup(void);

/* Another migration begins: what was counted is of the last one.  BQL */
void postcopy_forget_counts(void);

/* What was counted in this migration or the last one.  Any thread. */
MigrationPageRequests postcopy_counts(void);

/*
 * Sends memory to the guest that runs there, however often the connection
 * breaks and is made anew.  False if it turns out that the guest never ran.
 */
bool postcopy_run(Error **errp);

#endif
