/*
 * The source: one outgoing migration, from the command to its end
 *
 *   where               does
 *   main loop, BQL      source_start(): connects, then starts the thread
 *   migration thread    sets up, sends, switches over (thread.c,
 *                       switchover.c); the BQL only where it says so
 *   main loop, BQL      the end: the guest goes on or is gone, streams are
 *                       closed, and only then the phase says so
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_STATE_H
#define MIGRATION_SOURCE_STATE_H

#include "qemu/thread.h"
#include "qapi/qapi-types-run-state.h"
#include "migration/base/ledger.h"
#include "migration/base/sides.h"
#include "migration/base/policy.h"
#include "migration/qemu-file.h"
#include "migration/core/peer.h"
#include "return-path.h"
#include "switchover-strict.h"

/* What the migration thread lets others see. */
typedef struct SourceView {
    PolicyView policy;
    char reason[POLICY_REASON_MAX];     /* of the last decision */
    StallLedger stalls;
    DowntimeLedger downtime;
    LedgerDevices saved, loaded;        /* the slowest, here and there */
    StrictView strict;
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
 * joined; the thread uses them freely, and others under the lock.  When
 * postcopy is paused the thread itself lets them go, and waits until the main
 * loop has made new ones.
 */
typedef struct Source {
    QemuMutex lock;             /* of the next five, for others */
    QEMUFile *to_dst;
    QEMUFile *urgent;           /* postcopy-preempt: the second channel */
    ReturnPath *return_path;    /* NULL if the channel goes one way */
    int64_t round_trip_ns;      /* of a small message; 0: not known */
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
    MigrationAddress *addr;     /* main loop: where the destination is */
    bool start_postcopy;        /* atomic; migrate-start-postcopy was given */
    bool postcopy;              /* the guest has been told to run over there */
    QemuSemaphore resumed;      /* a paused migration has a new connection */

    bool state_saved;           /* changes would be lost for the other side */
    bool start_sent;            /* SWITCHOVER_START; migration thread */
    bool holds;                 /* strict_may_hold(); migration thread */
    uint32_t unsettled;         /* attempt whose ABORT is not answered, or 0 */
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

/* Postcopy may begin as soon as it can. Main loop. */
bool source_start_postcopy(Error **errp);

/*
 * Goes on at @addr with a migration that is paused.  BQL.  Fails as
 * source_start() does; it is then paused as before.
 */
bool source_resume(MigrationAddress *addr, Error **errp);

/* Whether there is something for source_pause(), that is postcopy. */
bool source_can_pause(void);

/*
 * Cuts the connection, so that postcopy is paused.  While the destination loads
 * the package that may take half a second, and is done by the main loop. Any
 * thread.
 */
void source_pause(void);

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

/*
 * After that, if no byte of what tells the destination to run the guest has
 * left this process: the guest is here as before.
 */
void source_take_back(void);

/* Has query-migrate say what the migration waits for, as its decision. */
void source_waits_for(const char *what);

/* Now and then: has query-migrate show how fast it goes. */
void source_measure_speed(void);

/* For those who find that they were cancelled. Returns false. */
bool source_was_cancelled(Error **errp);

/* The guest stops, and what is left goes to the destination. */
bool switchover_run(Policy *policy, Error **errp);

/*
 * The guest stops, and goes on over there while memory is still here.  False
 * if it has not been handed over.
 */
bool switchover_to_postcopy(Policy *policy, Error **errp);

/*
 * Sends memory to the guest that runs over there, however often the connection
 * breaks and is made anew.  False if it turns out that the guest never ran.
 */
bool postcopy_run(Error **errp);

/* Keeps a copy of where the destination is. Main loop. */
void source_set_address(const MigrationAddress *addr);

/* To the destination that source.to_dst goes to. Main loop. */
bool source_open_return_path(Error **errp);

/* Closes all connections.  Main loop, or the thread for itself. */
void source_close_streams(bool succeeded);

/* BQL: what was done to the guest and its disks is undone. */
void switchover_undo(void);

#endif
