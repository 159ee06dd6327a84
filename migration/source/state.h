/*
 * The source: what its modules know of the migration in common
 *
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
#include "migration/multifd/senders.h"
#include "epochs.h"
#include "return-path.h"
#include "switchover-strict.h"

/* What the migration thread lets others see. */
typedef struct SourceView {
    PolicyView policy;
    char reason[POLICY_REASON_MAX];     /* of the last decision */
    uint64_t devices_remaining;         /* bytes, at the last decision */
    char waiting[POLICY_REASON_MAX];    /* what for, after it; "": nothing */
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
    QemuMutex lock;             /* of the next six, for others */
    QEMUFile *to_dst;
    QEMUFile *urgent;           /* postcopy-preempt: the second channel */
    Senders *senders;           /* multifd: the others; NULL: there are none */
    ReturnPath *return_path;    /* NULL if the channel goes one way */
    int64_t round_trip_ns;      /* of a small message; 0: not known */
    bool handed_over;           /* it cannot be cancelled any more */
    SourceView view;

    const SourceEpochs *epochs; /* set once, while QEMU starts */
    QemuThread thread;          /* main loop */
    int thread_id;              /* the kernel's, while it runs; atomic */
    bool connecting;            /* main loop: transport_connect() is at work */
    bool alive;                 /* there is a thread; atomic */
    bool succeeded;             /* by the thread, for the main loop */
    bool lost;                  /* the same: nobody knows who has the guest */
    QemuSemaphore wake;         /* go on, or look whether to go on */
    bool go_on;                 /* atomic; migrate-continue was given */
    MigrationAddress *addr;     /* main loop: where the destination is */
    unsigned changes_before;    /* settings_changes() when it began */
    bool start_postcopy;        /* atomic; migrate-start-postcopy was given */
    bool postcopy;              /* the guest has been told to run there */
    QemuSemaphore resumed;      /* a paused migration has a new connection */

    bool state_saved;           /* changes would be lost for the other side */
    bool start_sent;            /* SWITCHOVER_START; migration thread */
    bool holds;                 /* strict_may_hold(); migration thread */
    uint32_t returned;          /* switchovers that were taken back */
    uint32_t unsettled;         /* attempt whose ABORT is not answered, or 0 */
    bool stopped_guest;         /* by us, who was vm_before */
    bool stopped_first;         /* before memory is sent; migration thread */
    RunState vm_before;
    int64_t stopped_ns;         /* when it was to stop: downtime begins */
} Source;

extern Source source;

/* Once, while QEMU starts. */
void source_state_init(void);

/* A copy of what is to be seen. Any thread. */
void source_look(SourceView *view);

/* The kernel's number of the migration thread, or 0. Any thread. */
int source_thread_id(void);

/* False if the migration was cancelled, or the stream is broken. */
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

/*
 * Has query-migrate show what the migration waits for in the place of its
 * decision: until the next decision or the end, when the decision is shown.
 */
void source_waits_for(const char *what);

/* For those who find that they were cancelled. Returns false. */
bool source_was_cancelled(Error **errp);

/* Keeps a copy of where the destination is. Main loop. */
void source_set_address(const MigrationAddress *addr);

/* Whether a destination that cannot answer will not do */
bool source_needs_answers(void);

/*
 * Opens the way back from the destination that source.to_dst goes to, if it can
 * have one; @user is told what comes.  Main loop.
 */
void source_open_return_path(const ReturnPathUser *user);

/*
 * Closes a file that all was written to, whose reader may come at any time.
 * False if it could not be; it is closed then as well.  The thread, without the
 * BQL.
 */
bool source_close_file(Error **errp);

/* Closes all connections.  Main loop, or the thread for itself. */
void source_close_streams(bool succeeded);

#endif
