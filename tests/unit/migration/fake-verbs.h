/*
 * An RDMA device that does not exist, for tests
 *
 * fake-verbs.c has the functions of libibverbs and librdmacm that migration
 * calls, over TCP: between threads, between processes, and between versions of
 * QEMU if it is preloaded as a shared library.  It needs nothing of QEMU.
 *
 * It behaves as a device does where that matters: work requests complete when
 * what they sent has arrived, in order; memory is read when it is sent; keys
 * and bounds are checked; a message without a posted buffer fails unless the
 * other side said otherwise when it connected; full queues are errors.
 *
 * In a program that is preloaded with it, the environment says what fails:
 *
 *   VERBS_FAIL=NAME:N      the N-th call of NAME fails, counted from 1
 *   VERBS_LATE=US          each completion is so many microseconds late
 *   VERBS_SLOW=N:US        writes to the N-th queue pair are, see verbs_slow()
 *   VERBS_COUNTS=FILE      counts are appended to FILE when the program ends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FAKE_VERBS_H
#define FAKE_VERBS_H

#include <stdint.h>

typedef struct VerbsCounts {
    uint64_t sends, send_bytes;         /* messages */
    uint64_t writes, write_bytes;
    uint64_t writes_read;               /* their memory may change again */
    uint64_t signalled;                 /* completions of both */
    uint64_t receives;
    uint64_t registrations;
    uint64_t pinned, pinned_most;       /* bytes */
    uint64_t calls;                     /* of what can be made to fail */
} VerbsCounts;

/* What happened since the program began or verbs_forget().  Any thread. */
VerbsCounts verbs_counts(void);
void verbs_forget(void);

/*
 * The @n-th call of @name from now on fails; with @name NULL, of any function
 * that can fail.  0: none does.
 */
void verbs_fail(const char *name, unsigned n);

/* How many calls of it are to come until one fails; 0: it has, or none will. */
unsigned verbs_fail_left(void);

/* Completions are late by @us microseconds from now on. */
void verbs_late(unsigned us);

/*
 * Writes that arrive at the @n-th queue pair that is made from now on, counted
 * from 1, are put in place and acknowledged @us microseconds later, one after
 * the other.  What they write was read when they were sent, as by a device.  So
 * queue pairs overtake each other; each keeps the order of its own.  @n 0: none
 * is slow.
 */
void verbs_slow(unsigned n, unsigned us);

/* Objects of all kinds that exist: 0 if everything was given back */
int verbs_objects(void);

#endif
