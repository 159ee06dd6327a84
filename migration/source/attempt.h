/*
 * One attempt to switch over within a limit: who decides how it ends
 *
 * From the moment the guest is stopped two parties may end the attempt: the
 * migration thread, which hands the guest over or finds that it cannot, and a
 * timer in the main loop, since the thread may hang in a write just when time
 * is over.  Whoever comes first has decided, by one compare-and-swap:
 *
 *     IDLE -> OPEN -> COMMITTED     nobody here resumes the guest any more
 *                  -> ABORTED      it has been resumed, by who decided
 *
 * Both take the BQL to decide, so that whoever resumes the guest has done so
 * when the other learns of it; attempt_open() may be asked without it.
 * strict-downtime.pml has all of this as a model.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_ATTEMPT_H
#define MIGRATION_SOURCE_ATTEMPT_H

#define ATTEMPT_REASON_MAX 160

/*
 * The guest has been stopped: @resume has to be called, by anybody, if it is
 * not committed until @deadline_ns of QEMU_CLOCK_REALTIME.  BQL.
 */
void attempt_begin(int64_t deadline_ns, void (*resume)(void));

/* What the thread is at, a word that lives as long as the program. */
void attempt_step(const char *step);

/* Neither committed nor aborted.  Any thread; an answer of true may be old. */
bool attempt_open(void);

/*
 * Ends the attempt here and now if its time is over: the main loop, which would
 * do so otherwise, has to wait for the BQL.  True if it goes on.  BQL.
 */
bool attempt_in_time(void);

/* The guest is handed over, if it is still ours to give.  BQL. */
bool attempt_commit(void);

/*
 * It is given up because of @reason, unless that has been done; the guest goes
 * on.  BQL.  Not after attempt_commit().
 */
void attempt_abort(const char *reason);

/* How it ended.  */
typedef struct AttemptEnd {
    bool committed;
    int64_t resumed_ns;         /* when the guest went on, otherwise, */
    char reason[ATTEMPT_REASON_MAX];    /* and why */
} AttemptEnd;

/* It is over, one way or the other.  BQL. */
AttemptEnd attempt_end(void);

#endif
