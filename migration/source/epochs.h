/*
 * The source: a guest that stays, and is sent again and again (checkpoints)
 *
 * What does so is above this folder, and is called by these.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_EPOCHS_H
#define MIGRATION_SOURCE_EPOCHS_H

#include "qapi/qapi-types-migration.h"

typedef struct SourceEpochs {
    /* Before anything is prepared for a migration to @addr.  BQL. */
    bool (*possible)(const MigrationAddress *addr, Error **errp);
    /*
     * The last step before the destination is connected to; undone by ended().
     * BQL.
     */
    bool (*prepare)(Error **errp);
    /* Whether a destination with @features will do.  Migration thread. */
    bool (*peer_fits)(uint32_t features, Error **errp);
    /*
     * In place of a switchover, when what is left would fit into one.  True:
     * the destination has the guest, which is stopped here.  Migration thread,
     * without the BQL.
     */
    bool (*run)(Error **errp);
    /*
     * The phase is CANCELLING.  True if run() is under way and ends because of
     * that by itself: the connection is still needed.  Main loop, BQL.
     */
    bool (*cancel)(void);
    /* The migration is over, however it ended.  Main loop, BQL. */
    void (*ended)(void);
} SourceEpochs;

#endif
