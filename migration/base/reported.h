/*
 * What is reported with error_report() while something is done
 *
 * Devices and VMState return a number when they cannot be loaded or saved, and
 * print the reason.  A collector takes what the calling thread or coroutine
 * reports between begin and end; it is printed all the same.  Collectors may
 * be nested: the innermost takes it.
 *
 * Any thread, no locks.  A coroutine that collects may yield, but has to stay
 * in its thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_REPORTED_H
#define MIGRATION_BASE_REPORTED_H

#include "qemu/coroutine.h"

/* Reports kept, and bytes of each; of more, the first and the last are kept */
#define REPORTED_COUNT_MAX 12
#define REPORTED_LEN_MAX 256

typedef struct Reported {
    /* Private */
    struct Reported *next;      /* of the same thread */
    Coroutine *co;              /* NULL: not in a coroutine */
    unsigned count;
    char *texts[REPORTED_COUNT_MAX];
} Reported;

/* @r is the caller's, and stays where it is until the end. */
void reported_begin(Reported *r);

/*
 * Returns what was reported as one line, or NULL if nothing was; the caller
 * frees it.  VMState reports from the innermost field outwards, so the last
 * report comes first: "Failed to load a:b: Failed to load b:c: 1 != 2".
 */
char *reported_end(Reported *r);

#endif
