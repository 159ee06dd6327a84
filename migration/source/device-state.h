/*
 * The source: devices whose state is saved by threads of their own
 *
 * A device with the hook save_live_complete_precopy_thread gets a thread when
 * the guest has stopped, which sends the device's state on channels of multifd
 * (multifd_queue_device_state()), while the others are saved on the main one.
 *
 * Where that is not supported (multifd_device_state_supported()) all of these
 * do nothing, and succeed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_DEVICE_STATE_H
#define MIGRATION_SOURCE_DEVICE_STATE_H

/* Starts the threads.  Migration thread, with the BQL. */
void save_threads_begin(void);

/*
 * Waits for them, and for what they sent to be written.  False, with the reason
 * of the first one that failed, if any did.  Migration thread, without the BQL.
 */
bool save_threads_join(Error **errp);

/*
 * Asks them to stop, and waits: the guest goes on here, and this migration has
 * failed.  Idempotent.  Migration thread.
 */
void save_threads_abort(void);

#endif
