/*
 * The configuration record: do both sides run the same kind of machine?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_CONFIGURATION_H
#define MIGRATION_DEVICE_CONFIGURATION_H

#include "qapi/qapi-types-migration.h"
#include "qemu/uuid.h"
#include "qobject/json-writer.h"
#include "migration/qemu-file.h"

/* This side, as far as the other has to agree with it. */
typedef struct Configuration {
    const char *machine;            /* name of the machine type */
    uint32_t page_bits;             /* of the target */
    uint32_t page_bits_min;         /* the smallest this CPU type can have */
    const bool *capabilities;       /* by MigrationCapability */
    /*
     * NULL, or a snapshot is loaded: those that it was saved with are noted
     * here, which need not be all that are on.
     */
    bool *used;
    bool validate_uuid;
    const QemuUUID *uuid;           /* NULL: not set */
} Configuration;

/* Puts the record, and its description into @desc unless that is NULL. */
void configuration_save(QEMUFile *f, const Configuration *here,
                        JSONWriter *desc);

/*
 * Gets the record.  False, with all that differs in @errp, if the sides do
 * not agree; then *@differs, if that is not NULL, is set: all of the record was
 * read.
 */
bool configuration_load(QEMUFile *f, const Configuration *here, bool *differs,
                        Error **errp);

#endif
