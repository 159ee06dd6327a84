/*
 * The destination: a guest that stays at the source, and is received again and
 * again (checkpoints)
 *
 * What does so is above this folder, and is called by DestinationEpochs.  The
 * functions are what it needs of a load that has reached STEP_EPOCHS.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_EPOCHS_H
#define MIGRATION_DESTINATION_EPOCHS_H

#include "migration/qemu-file.h"

typedef struct DestinationEpochs {
    /*
     * CHECKPOINT_DISKS came, and its payload is next in @f.  Main loop's
     * coroutine, BQL.
     */
    bool (*disks)(QEMUFile *f, Error **errp);
    /*
     * CHECKPOINT came in the stream for the first time, and its payload is next
     * in @f.  Goes to STEP_EPOCHS.  Main loop's coroutine, BQL.
     */
    bool (*begin)(QEMUFile *f, Error **errp);
    /*
     * Reads the rest of the stream.  True if the guest may be started from what
     * has come, now or later.  Incoming thread, without the BQL.
     */
    bool (*receive)(QEMUFile *f, Error **errp);
    /* The thread has ended after receive() was true.  Main loop. */
    void (*ended)(void);
    /*
     * Gives up what ended() has kept, if it waits: then there is no load any
     * more, and the result is true.  Main loop.
     */
    bool (*give_up)(void);
    /* The load is over, however it ended: nothing is kept.  Main loop. */
    void (*forget)(void);
} DestinationEpochs;

/*
 * Loads parts of the section "ram" up to WIRE_EOF.  Incoming thread, without
 * the BQL.
 */
bool epochs_load_memory(QEMUFile *f, Error **errp);

/*
 * Loads all devices, up to WIRE_EOF.  Main loop, when the thread has ended.
 */
bool epochs_load_devices(QEMUFile *f, Error **errp);

/*
 * The source is told, if it still listens, that the guest is ours.  Then the
 * guest is started, which completes the migration.  Main loop.
 */
void epochs_take_over(void);

/*
 * The migration has failed because of @err, which is taken over.  QEMU does not
 * end, whatever it was told about failures.  Main loop.
 */
void epochs_fail(Error *err);

#endif
