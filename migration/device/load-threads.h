/*
 * Threads that load device state beside the main channel
 *
 * All functions: under the BQL.  Threads are started by devices with
 * qemu_loadvm_start_load_thread() (migration/misc.h) between _open and _join.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_LOAD_THREADS_H
#define MIGRATION_DEVICE_LOAD_THREADS_H

/* Allows threads to be started. */
void load_threads_open(void);

/*
 * Waits for all of them, without the BQL, which they may need.  False, with
 * the error of the first that failed, if any did.
 */
bool load_threads_join(Error **errp);

/* Asks all of them to stop: what they wait for does not come.  Any thread. */
void load_threads_give_up(void);

/* Asks all of them to stop and waits. May be called at any time. */
void load_threads_close(void);

#endif
