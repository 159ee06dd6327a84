/*
 * The state of all devices, in memory: saved, and loaded again
 *
 * All functions: main thread, BQL, guest stopped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_CHECK_SAVED_STATE_H
#define MIGRATION_CHECK_SAVED_STATE_H

#include "state-compare.h"

typedef struct SavedState {
    GByteArray *stream;         /* as it would go to a file, without memory */
    GArray *sections;           /* SavedSection, within the stream */
} SavedState;

/*
 * False with the reason if there is a section of many records other than
 * memory and bitmaps, or if a device refuses to be saved.  The error names it.
 */
bool saved_state_possible(Error **errp);

/* Saves all devices.  @s is empty, and has to be cleared in any case. */
bool saved_state_take(SavedState *s, Error **errp);

/*
 * Loads them.  Devices have been reset.  If it fails, some have been loaded
 * and others not.
 */
bool saved_state_load(const SavedState *s, Error **errp);

/* For state_compare(); valid until @s is cleared */
SavedBytes saved_state_bytes(const SavedState *s);

void saved_state_clear(SavedState *s);

#endif
