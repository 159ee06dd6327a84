/*
 * The source: one outgoing migration, from the command to its end
 *
 *   where               does
 *   main loop, BQL      source_start(): connects, then starts the thread
 *   migration thread    sets up, sends, switches over (source-thread.c,
 *                       switchover.c); the BQL only where it says so
 *   main loop, BQL      the end: the guest goes on or is gone, streams are
 *                       closed, and only then the phase says so
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CORE_SOURCE_H
#define MIGRATION_CORE_SOURCE_H

#include "qemu/thread.h"
#include "qapi/qapi-types-run-state.h"
#include "migration/base/ledger.h"
#include "migration/base/phase.h"
#include "migration/base/policy.h"
#include "migration/qemu-file.h"
#include "peer.h"
#include "return-path.h"

/* What the migration thread lets others see. */
typedef struct SourceView {
    PolicyView policy;
    char reason[POLICY_REASON_MAX];     /* of the last decision */
    StallLedger stalls;
    DowntimeLedger downtime;
    LedgerDevices saved, loaded;        /* the slowest, here and there */
    Peer peer;
    double mbps;                        /* 10^6 bits/s, lately or at the end */
    double pages_per_second;
    int64_t start_ms;                   /* on QEMU_CLOCK_REALTIME */
    int64_t setup_ms;                   /* how long it took */
    int64_t total_ms;                   /* the same; 0 before the end */
    int64_t downtime_ms;                /* the same */
} SourceView;

/*
 * One that runs, or the last one.  There is one object for the life of QEMU.
 *
 * to_dst and return_path come before the thread does and go after it has been
 * joined; the thread uses them freely, and others under the lock.
 */
typedef struct Source {
    Phase phase;

    QemuMutex lock;             /* of the next four, for others */
    QEMUFile *to_dst;
    ReturnPath *return_path;    /* NULL if the channel goes one way */
    bool handed_over;           /* it cannot be cancelled any more */
    SourceView view;

    QemuThread thread;          /* main loop */
    int thread_id;              /* the kernel's, while it runs; atomic */
    bool connecting;            /* main loop: transport_connect() is at work */
    bool alive;                 /* there is a thread; atomic */
    bool succeeded;             /* by the thread, for the main loop */
    bool lost;                  /* the same: nobody knows who has the guest */
    QemuSemaphore wake;         /* go on, or look whether to go on */
    bool go_on;                 /* atomic; migrate-continue was given */

    bool stopped_guest;         /* by us, who was vm_before */
    RunState vm_before;
    int64_t downtime_start_ms;
} Source;

extern Source source;

void source_init(void);

/*
 * Starts a migration to @addr.  BQL.  What can be found wrong at once is told
 * at once; all else later, by the phase and the error.
 */
bool source_start(MigrationAddress *addr, Error **errp);

/*
 * Has a migration end as soon as it can, if there is one. BQL.  Fails if the
 * destination has all it needs to run the guest.
 */
bool source_cancel(Error **errp);

/*
 * QEMU is about to end: cancels, and waits for the thread to let go of the
 * guest's memory.  Lets the BQL go meanwhile.
 */
void source_shutdown(void);

/* Gives a migration that waits in @phase leave to go on. BQL. */
bool source_continue(MigrationStatus phase, Error **errp);

/*
 * For snapshots, which save all at once under the BQL: the same checks, and
 * the phases that others look at.
 */
bool source_begin_snapshot(QEMUFile *f, Error **errp);
void source_end_snapshot(bool ok);

/* A copy of what is to be seen. Any thread. */
void source_look(SourceView *view);

/* The kernel's number of the migration thread, or 0. Any thread. */
int source_thread_id(void);

/*
 * Private to the source
 */

/* The thread's function. */
void *source_thread(void *opaque);

/* False if somebody wants the migration to end, or the stream is broken. */
bool source_may_go_on(Error **errp);

/*
 * From here on the destination may run the guest, so that nobody can cancel.
 * False if somebody has.
 */
bool source_hand_over(Error **errp);

/* For those who find that they were cancelled. Returns false. */
bool source_was_cancelled(Error **errp);

/* The guest stops, and what is left goes to the destination. */
bool switchover_run(Policy *policy, Error **errp);

/* BQL: what was done to the guest and its disks is undone. */
void switchover_undo(void);

/*
 * Takes the BQL and lets it go again; the time in between is recorded, with
 * @step, among the stalls of the guest.
 */
int64_t source_lock_bql(void);
void source_unlock_bql(const char *step, int64_t since_ns);

#endif
