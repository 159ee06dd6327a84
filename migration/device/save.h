/*
 * Saving sections: framing, and calling those who have something to save
 *
 * Errors: a function that fails has put the reason into @errp and latched it
 * in the stream, so that nothing is written after it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_SAVE_H
#define MIGRATION_DEVICE_SAVE_H

#include "qobject/json-writer.h"
#include "migration/base/ledger.h"
#include "migration/qemu-file.h"
#include "configuration.h"

typedef struct DeviceSave {
    QEMUFile *f;
    JSONWriter *desc;       /* describes what is saved; or NULL */
    bool footers;           /* the machine type has them */
    LedgerDevices *times;   /* what each took goes there; or NULL */
} DeviceSave;

/* What device_save_state() saves. */
typedef enum DeviceSet {
    DEVICES_AFTER_SETUP,    /* all that device_save_setup() did not save */
    DEVICES_NOT_LIVE,       /* all but the live sections */
} DeviceSet;

/* Lets live sections refuse before anything is sent. */
bool device_save_prepare(Error **errp);

/* Start of the stream; @config is NULL if the machine type has none. */
void device_save_header(const DeviceSave *save, const Configuration *config);

/*
 * First record of each live section, and the devices that have to be loaded
 * before them.
 */
bool device_save_setup(const DeviceSave *save, uint64_t target_page_size,
                       Error **errp);

/*
 * A part of each live section, until the rate limit is reached; in postcopy
 * only of those that know of it, which look at the limit themselves, as some
 * of what they send does not wait for it.  *@finished: no section has more to
 * send.
 */
bool device_save_iterate(const DeviceSave *save, bool in_postcopy,
                         bool *finished, Error **errp);

/* A part of the live section @name alone, whatever the rate limit says. */
bool device_save_iterate_one(const DeviceSave *save, const char *name,
                             bool *finished, Error **errp);

/*
 * Last record of each live section; in postcopy only of those that do not
 * know of it.
 */
bool device_save_complete(const DeviceSave *save, bool in_postcopy,
                          Error **errp);

/* Last record of those that know of postcopy, and the end of the stream. */
bool device_save_complete_postcopy(const DeviceSave *save, Error **errp);

struct Section;

/* A device, in one record; nothing if it has no state at present. */
bool device_save_one(const DeviceSave *save, const struct Section *s,
                     Error **errp);

/* Devices, each in one record. */
bool device_save_state(const DeviceSave *save, DeviceSet set, Error **errp);

/* End of the stream, and the description if there is one. */
void device_save_end(const DeviceSave *save);

/* Ends what prepare and setup began. May be called at any time. */
void device_save_cleanup(void);

#endif
