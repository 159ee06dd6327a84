/*
 * The destination: the thread that loads a guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_THREAD_H
#define MIGRATION_DESTINATION_THREAD_H

/* The thread's function: @opaque is called in the main loop at its end. */
void *destination_thread(void *opaque);

/* Once, while QEMU starts. */
void vmstate_load_init(void);

/* After a load, however it ended. BQL. */
void vmstate_load_cleanup(void);

#endif
