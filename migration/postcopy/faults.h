/*
 * Who waits for which page, since when, and which requests were sent
 *
 * A page is requested once, however many wait for it.  When it is in place,
 * those who waited are struck off and the time they waited is counted.
 *
 * Threads: faults_note() and faults_resume() may send; faults_placed() never
 * does, so whoever puts pages in place is not held up by the way back.  All may
 * be called by any thread.  The lock is the only one that is taken, but for
 * what FaultsOps take, and it is not held while those are called.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_FAULTS_H
#define MIGRATION_POSTCOPY_FAULTS_H

#include "qemu/thread.h"
#include "migration/ram/region.h"
#include "blocktime.h"
#include "latency.h"
#include "received.h"

typedef struct FaultsOps {
    /* Ask for @len bytes from @start on. False if nobody can be asked now. */
    bool (*request)(void *opaque, const RamRegion *region, uint64_t start,
                    uint32_t len);
    /* The number of the vCPU whose thread that is, or -1 */
    int (*vcpu)(void *opaque, uint32_t thread);
} FaultsOps;

/* In place of a thread: one that is no thread of ours */
#define FAULTS_OTHER_PROCESS UINT32_MAX

/* What has been seen so far */
typedef struct FaultsView {
    Latency latency;
    uint64_t requests;          /* that were sent */
    unsigned waiting;           /* pages that are requested and have not come */
} FaultsView;

typedef struct Faults {
    const FaultsOps *ops;
    void *opaque;

    /* Private */
    QemuMutex lock;
    QemuCond none;              /* nobody waits */
    bool open;                  /* the source may be asked */
    bool given_up;
    GArray *waiters;            /* FaultWaiter */
    FaultsView view;
    unsigned settled;           /* pages that came; atomic, wraps around */
    bool some;                  /* any page is waited for; atomic */
    Blocktime blocktime;        /* no vCPU possible: not measured */
} Faults;

/*
 * Takes over @blocktime, which has been initialised; with no vCPU possible it
 * does not matter how long they wait.
 */
void faults_init(Faults *faults, const FaultsOps *ops, void *opaque,
                 Blocktime blocktime);
void faults_destroy(Faults *faults);

/*
 * @thread, 0 if the kernel does not tell which, or FAULTS_OTHER_PROCESS, waits
 * for @host_page of @region, whose pages are in @map.  Returns
 * false if that has come: then it has to be woken, as it may not have been.
 */
bool faults_note(Faults *faults, RamRegion *region, ReceivedMap *map,
                 uint64_t host_page, uint32_t thread);

/* The pages in [@first, @first + @count) have come: also marks them so. */
void faults_placed(Faults *faults, RamRegion *region, ReceivedMap *map,
                   uint64_t first, uint64_t count);

/*
 * From now on the source is asked, beginning with all that is still missing.
 * Between a pause and this it is not.
 */
void faults_resume(Faults *faults);
void faults_pause(Faults *faults);

/* Nobody waits any more, and nothing was requested. */
void faults_forget(Faults *faults);

/*
 * Waits until all that was requested has come, or faults_give_up() was called.
 * False for the latter, until faults_resume().
 */
bool faults_wait(Faults *faults);
void faults_give_up(Faults *faults);

/* Whether that thread of ours waits for a page, as far as the kernel tells. */
bool faults_waits(Faults *faults, uint32_t thread);

/*
 * Whether somebody waits; and whether a page that was waited for has come since
 * *@seen was last set here.  Any thread; no lock.
 */
bool faults_some(const Faults *faults);
bool faults_settled(const Faults *faults, unsigned *seen);

void faults_look(Faults *faults, FaultsView *view);

/* What waiting for pages has cost a vCPU */
typedef struct FaultsVcpu {
    uint32_t blocked_ms;        /* in all */
    uint64_t latency_ns;        /* on average; 0: it never waited */
} FaultsVcpu;

/* The same of all, as far as it was measured */
typedef struct FaultsBlocktime {
    uint32_t all_ms;            /* while all vCPUs waited at once */
    uint64_t others_ns;         /* average of threads that are no vCPU's */
    unsigned count;             /* elements of @vcpus; 0: not measured */
    FaultsVcpu *vcpus;          /* the holder frees them */
} FaultsBlocktime;

void faults_blocktime(Faults *faults, FaultsBlocktime *time);

#endif
