/*
 * Saving and loading the state of a VM: what other parts of QEMU call
 *
 * Saving goes prepare -> header -> setup -> iterate... -> complete ->
 * cleanup, loading is one call; see docs/devel/migration/device.rst.  Unless
 * said otherwise a return value is zero on success and a negative errno, also
 * latched in the QEMUFile, on failure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SAVEVM_H
#define MIGRATION_SAVEVM_H

#include "qapi/qapi-builtin-types.h"
#include "migration/wire/wire.h"

/* For vmstate.c and its test */
#define QEMU_VM_FILE_MAGIC              WIRE_FILE_MAGIC
#define QEMU_VM_FILE_VERSION            WIRE_FILE_VERSION
#define QEMU_VM_EOF                     WIRE_EOF
#define QEMU_VM_SUBSECTION              WIRE_SUBSECTION

/*
 * Before saving; main thread
 */

/* True, with the reason, if some device cannot be migrated at all. */
bool qemu_savevm_state_blocked(Error **errp);

/* Adds a line for each such device to @reasons. */
void qemu_savevm_non_migratable_list(strList **reasons);

/* Some device waits for the guest to release it. Any thread. */
bool qemu_savevm_state_guest_unplug_pending(void);

/* Lets live sections check whether they can be saved. */
int qemu_savevm_state_prepare(Error **errp);

/*
 * Saving; one thread at a time.  The BQL is held for setup, the two
 * complete_precopy functions and cleanup.
 */

void qemu_savevm_state_header(QEMUFile *f);
int qemu_savevm_state_setup(QEMUFile *f, Error **errp);

/* Positive if no section has more to send, zero if some has. */
int qemu_savevm_state_iterate(QEMUFile *f, bool postcopy);

/* Bytes left, by what can and cannot wait until the destination runs. */
void qemu_savevm_state_pending_estimate(uint64_t *must_precopy,
                                        uint64_t *can_postcopy);
/* The same after asking those who have to search for it. Takes the BQL. */
void qemu_savevm_state_pending_exact(uint64_t *must_precopy,
                                     uint64_t *can_postcopy);

/* The guest is stopped: the rest of the live sections, then the devices. */
int qemu_savevm_state_complete_precopy_iterable(QEMUFile *f, bool in_postcopy);
int qemu_savevm_state_complete_precopy_non_iterable(QEMUFile *f);
/* Postcopy: the rest of those that did not complete before, and the end. */
int qemu_savevm_state_complete_postcopy(QEMUFile *f);
/* The end of the stream: who has read it may run the guest. */
void qemu_savevm_state_end(QEMUFile *f);

/* Ends what prepare and setup began, however far it came. */
void qemu_savevm_state_cleanup(void);

/* A whole stream at once, as for a snapshot; the guest is stopped. */
bool savevm_save_all(QEMUFile *f, Error **errp);

/* All that is not live, for a file that goes along with RAM. */
int qemu_save_device_state(QEMUFile *f);

/*
 * Commands to the destination
 */

void qemu_savevm_send_open_return_path(QEMUFile *f);
void qemu_savevm_send_ping(QEMUFile *f, uint32_t value);
void qemu_savevm_send_colo_enable(QEMUFile *f);
/* Only if the machine type lets us. */
void qemu_savevm_maybe_send_switchover_start(QEMUFile *f);
/* Postcopy may follow: with which page sizes. */
void qemu_savevm_send_postcopy_advise(QEMUFile *f);
/*
 * The devices of a guest that is to run before it has its memory, in a stream
 * of their own: the caller's.  The guest is stopped.  @ping: there is a return
 * path.
 */
GByteArray *savevm_make_package(bool ping, Error **errp);
/* @len ranges of the block @name, in bytes. */
void qemu_savevm_send_postcopy_ram_discard(QEMUFile *f, const char *name,
                                           uint16_t len, uint64_t *start_list,
                                           uint64_t *length_list);
void qemu_savevm_send_postcopy_listen(QEMUFile *f);
void qemu_savevm_send_postcopy_run(QEMUFile *f);
void qemu_savevm_send_postcopy_resume(QEMUFile *f);
void qemu_savevm_send_recv_bitmap(QEMUFile *f, char *block_name);

/*
 * Loading
 */

/*
 * A whole snapshot: @f is taken over, the guest is stopped.  In a coroutine
 * if the channel may have to wait.
 */
bool savevm_load_all(QEMUFile *f, Error **errp);

/* A device has loaded enough to be switched over to. BQL. */
int qemu_loadvm_approve_switchover(void);

#endif
