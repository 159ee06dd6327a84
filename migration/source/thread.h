/*
 * The source: the migration thread
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_THREAD_H
#define MIGRATION_SOURCE_THREAD_H

/* The thread's function: @opaque is called in the main loop at its end. */
void *source_thread(void *opaque);

#endif
