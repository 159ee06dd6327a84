/*
 * An error that several threads may report, of which the first one counts
 *
 * Any thread may call these; each one takes the lock for a moment, and no other
 * while it has it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_FIRST_ERROR_H
#define MIGRATION_BASE_FIRST_ERROR_H

#include "qapi/error.h"
#include "qemu/thread.h"

typedef struct FirstError {
    QemuMutex lock;
    Error *err;                 /* under the lock */
} FirstError;

void first_error_init(FirstError *first);

/* Keeps a copy of @err, unless there is one already. */
void first_error_set(FirstError *first, const Error *err);

/* Adds @err to the text of the first one, if there is one. */
void first_error_add(FirstError *first, const Error *err);

bool first_error_is_set(FirstError *first);

/* A copy, to be freed by the caller, or NULL. */
Error *first_error_get(FirstError *first);

void first_error_clear(FirstError *first);

#endif
