/*
 * Loading sections: taking the stream apart
 *
 * Nothing that arrives is believed: types, lengths, numbers and order are
 * checked before they are used, and the first thing that is wrong ends the
 * load with one error that says what it was and where.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DEVICE_LOAD_H
#define MIGRATION_DEVICE_LOAD_H

#include "qemu/thread.h"
#include "migration/base/ledger.h"
#include "migration/qemu-file.h"
#include "configuration.h"

/* What a load asks of its owner; called by whoever loads records. */
typedef struct DeviceLoadOps {
    /*
     * Acts on a command that passed command_check(), and takes its @len bytes
     * of payload from @f.  PACKAGED is not among them.
     */
    bool (*command)(void *opaque, unsigned command, QEMUFile *f, uint16_t len,
                    Error **errp);

    /*
     * The same for STATE, whose payload is the owner's; *@len bytes of records
     * follow.  When they have been loaded state_loaded() is called, with the
     * time at which the last of them had arrived.
     */
    bool (*state)(void *opaque, QEMUFile *f, uint32_t *len, Error **errp);
    bool (*state_loaded)(void *opaque, int64_t arrived_ns, Error **errp);

    /* Waits until the records of a package may be loaded, if they may. */
    bool (*package_ready)(void *opaque, Error **errp);

    /* Optional: false if the load has to end for a reason of the owner's. */
    bool (*proceed)(void *opaque, Error **errp);
} DeviceLoadOps;

/*
 * One load: from its header on, over several streams if there are packages,
 * checkpoints or a recovery.  Records may be loaded by two threads at once,
 * from different streams (postcopy).
 */
typedef struct DeviceLoad {
    const DeviceLoadOps *ops;
    void *opaque;
    bool footers;               /* the machine type has them */
    bool refuse_live;           /* somebody else loads RAM */
    LedgerDevices times;        /* what devices took; the owner may empty it */

    /* Private */
    QemuMutex lock;             /* of started */
    GHashTable *started;        /* live sections by number on the wire */
} DeviceLoad;

/*
 * A stream whose records are loaded by two threads in turn: those of RAM by
 * one that does not hold the BQL, all others by one that does.
 */
typedef struct DeviceLoadStream {
    DeviceLoad *load;
    QEMUFile *f;

    /* Private */
    bool in_package;
    bool late;                  /* devices are loaded, or are being */
    bool end;                   /* nothing more is to be read */
    bool ran;                   /* since the guest is to run */
    bool listens;               /* pages may come beside it */
    bool has_record;            /* read, and to be loaded next: */
    uint8_t type;
    struct Section *section;    /* NULL for records of other types */
    uint32_t own_id;            /* its number here */
    bool is_ram;                /* it is RAM's, which never goes */
    uint32_t id;
    uint32_t version_id;
} DeviceLoadStream;

typedef enum DeviceLoadStep {
    DEVICE_LOAD_END,            /* of the stream */
    DEVICE_LOAD_ELSEWHERE,      /* the next record is the other thread's */
    DEVICE_LOAD_FAILED,         /* the error says why */
} DeviceLoadStep;

void device_load_init(DeviceLoad *load, const DeviceLoadOps *ops,
                      void *opaque);
void device_load_destroy(DeviceLoad *load);

/* Start of the stream; @config is NULL if the machine type has none. */
bool device_load_header(QEMUFile *f, const Configuration *config,
                        Error **errp);

/* Lets live sections prepare. Whatever happens, _cleanup must follow. */
bool device_load_setup(QEMUFile *f, Error **errp);
void device_load_cleanup(void);

/*
 * Records up to the end mark or, in a package, POSTCOPY_RUN, which ends the
 * stream around it as well: what follows is the listen thread's.
 */
bool device_load_records(DeviceLoad *load, QEMUFile *f, Error **errp);

/*
 * What goes on beside a package or a STATE that listens, or when it has been
 * loaded: only more of sections that were started before, and commands.  Ends
 * with ABORT or COMMIT as well.  Takes no lock of its own.
 */
bool device_load_late(DeviceLoad *load, QEMUFile *f, Error **errp);

/*
 * The same in turns: loads as long as there are records for a thread that
 * holds the BQL, or for one that does not.
 */
DeviceLoadStep device_load_some(DeviceLoadStream *stream, bool under_bql,
                                Error **errp);

/*
 * The next @len bytes of @f, read into memory as a whole and not looked at: a
 * stream that the caller closes.  NULL if there are not so many, or more than
 * WIRE_PACKAGED_MAX.
 */
QEMUFile *device_load_package(QEMUFile *f, uint32_t len, Error **errp);

/*
 * What may follow the end mark: reads and drops it.  A stream without one is
 * as good, but one that breaks off is not.
 */
bool device_load_description(QEMUFile *f, Error **errp);

/* Sections that have to agree before the source stops. */
unsigned device_load_count_acks(void);

/*
 * Part of the state of a section that did not come on the main channel.
 * Without the BQL, after load_set_up, in any thread.
 */
bool device_load_buffer(const char *name, uint32_t instance_id, char *data,
                        size_t len, Error **errp);

/* The source has stopped. */
bool device_load_switchover_start(Error **errp);

#endif
