/*
 * A guest and a link in virtual time, to try policies of convergence on
 *
 * Memory is some working sets, each written to at random at a rate, and the
 * rest, which is only read.  What of a set is dirty follows from that: of its
 * pages, those that are dirty already are written to in vain.  All is in
 * doubles and in steps of a few milliseconds; the same seed gives the same
 * figures.
 *
 * Units: bytes, seconds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTUAL_GUEST_H
#define TESTS_VIRTUAL_GUEST_H

#define VIRTUAL_SETS 3

/* When a working set is written to */
typedef enum VirtualRhythm {
    RHYTHM_STEADY,
    RHYTHM_BURSTS,              /* @on seconds of each @period */
    RHYTHM_TURNS,               /* one set after the other, for @period each */
    RHYTHM_NOISE,               /* at a rate that changes every second */
} VirtualRhythm;

typedef struct VirtualSet {
    double size;
    double rate;                /* bytes of pages that are written to, a s */
} VirtualSet;

typedef struct Workload {
    char name[64];
    unsigned seed;
    double memory;              /* all of it, working sets included */
    VirtualSet set[VIRTUAL_SETS];
    VirtualRhythm rhythm;
    double period, on;
    /* So many times its rate it can write to make up; 0: it makes up nothing */
    double catch_up;
    /* Throttled vCPUs run for so long, then sleep; 0: evenly slower */
    double slice;
    double link;                /* bytes/s */
    double link_noise;          /* share by which that varies */
    double latency;             /* s for each pass, and for the switchover */
    double delta;               /* of a page that is sent again; 0: all of it */
    double limit;               /* downtime */
    unsigned vcpus;
} Workload;

typedef struct VirtualGuest {
    const Workload *load;
    GRand *rand;
    double now;
    double known[VIRTUAL_SETS + 1]; /* dirty, to be sent; last: the rest */
    double unknown[VIRTUAL_SETS];   /* dirtied since the log was collected */
    double backlog[VIRTUAL_SETS];
    double found;               /* bytes that the last collection found */
    double synced_at, interval; /* of the last collection */
    double noise_until, noise, link_now;
    bool again;                 /* the first pass is over */
    double keep;                /* share of their time that vCPUs have */
    double lost;                /* s of guest work, by throttling */
    double sent;                /* bytes on the wire */
    double longest_pass;
} VirtualGuest;

/* How a migration ended */
typedef struct Outcome {
    bool done;                  /* with the guest on the destination */
    bool postcopy, cancelled;
    double total, downtime, lost, sent, longest_pass;
    double usual;               /* s of the link that remained after passes */
    unsigned passes;
} Outcome;

void virtual_begin(VirtualGuest *g, const Workload *load);
void virtual_end(VirtualGuest *g);

/* What is known to be dirty */
double virtual_remaining(const VirtualGuest *g);

/* A step in which a pass goes on: a few milliseconds or more. */
double virtual_step(const VirtualGuest *g);

/* The guest runs for @seconds while memory is sent; returns wire bytes. */
double virtual_run(VirtualGuest *g, double seconds);

/* The same while nothing is sent, as the bandwidth limit has it. */
void virtual_idle(VirtualGuest *g, double seconds);

/* Collects the dirty log. */
void virtual_sync(VirtualGuest *g);

/* The guest stops: what is dirty, known or not, is sent. */
Outcome virtual_switch_over(VirtualGuest *g);

/*
 * Policies: each runs a migration of @load until it ends, or @horizon seconds
 * have gone by.
 */
typedef Outcome PolicyModel(const Workload *load, double horizon);

PolicyModel model_auto_converge;        /* QEMU 10.0, capability on */
PolicyModel model_dirty_limit;          /* the same, 1 MB/s a vCPU */
PolicyModel model_five_passes;          /* cloud-hypervisor */

#endif
