/*
 * The migration object: settings, and what every part of migration may ask
 *
 * For files that QEMU carries beside ours, and for ours above the leaf
 * modules.  How a migration runs is in source/ and destination/.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_COMPAT_MIGRATION_H
#define MIGRATION_COMPAT_MIGRATION_H

#include "exec/cpu-common.h"
#include "hw/qdev-core.h"
#include "io/channel.h"
#include "qapi/qapi-types-migration.h"
#include "qemu/thread.h"
#include "qom/object.h"
#include "migration/base/first-error.h"
#include "migration/misc.h"

/* Names of threads, as debuggers and management tools show them */
#define MIGRATION_THREAD_DIRTY_RATE     "mig/dirtyrate"
#define MIGRATION_THREAD_SRC_MAIN       "mig/src/main"
#define MIGRATION_THREAD_SRC_RETURN     "mig/src/return"
#define MIGRATION_THREAD_SRC_MULTIFD    "mig/src/send_%d"
#define MIGRATION_THREAD_DST_MAIN       "mig/dst/main"
#define MIGRATION_THREAD_DST_MULTIFD    "mig/dst/recv_%d"
#define MIGRATION_THREAD_DST_FAULT      "mig/dst/fault"
#define MIGRATION_THREAD_DST_PREEMPT    "mig/dst/preempt"
#define MIGRATION_THREAD_DST_ARRIVAL    "mig/dst/arrival"

/* The dirty log is cleared in chunks of so many pages, as a power of two. */
#define CLEAR_SHIFT_DEFAULT 18

#define TYPE_MIGRATION "migration"
OBJECT_DECLARE_SIMPLE_TYPE(MigrationState, MIGRATION)

/*
 * The one object of its type.  The first part is set by properties: of the
 * machine type, which have to be the same on both sides, and by -global.
 */
struct MigrationState {
    DeviceState parent_obj;

    MigrationParameters parameters;
    bool capabilities[MIGRATION_CAPABILITY__MAX];

    bool store_global_state;        /* the run state travels */
    bool send_configuration;        /* so does what kind of machine it is */
    bool send_section_footer;
    bool send_switchover_start;
    bool preflight;                 /* the destination is compared with us */
    bool preempt_pre_7_2;           /* an early form of postcopy preempt */
    bool multifd_flush_after_each_section;
    bool multifd_clean_tls_termination;
    uint8_t clear_bitmap_shift;     /* pages of a chunk of the dirty log, 2^n */

    FirstError error;
};

/* Never NULL once the machine is being set up. Any thread. */
MigrationState *migrate_get_current(void);

/* Once, when @s has been made. */
void migrate_set_current(MigrationState *s);

/*
 * The first error of a migration, out or in; @error stays the caller's.
 * Any thread.
 */
void migrate_set_error(MigrationState *s, const Error *error);
bool migrate_has_error(MigrationState *s);

/* True, with the reason, if this VM cannot be migrated or saved now. BQL. */
bool migration_is_blocked(Error **errp);

/* The guest runs on the other side, and pages may be missing there. */
bool migration_in_postcopy(void);

/* A source is being waited for, or is here. */
bool migration_incoming_started(void);

/* Machine types that are old enough do without. */
bool should_send_vmdesc(void);

/* of block-dirty-bitmap.c */
void dirty_bitmap_mig_init(void);
void dirty_bitmap_mig_before_vm_start(void);
void dirty_bitmap_mig_cancel_outgoing(void);
void dirty_bitmap_mig_cancel_incoming(void);
bool check_dirty_bitmap_mig_alias_map(const BitmapMigrationNodeAliasList *map,
                                      Error **errp);

/* of target.c */
void migration_populate_vfio_info(MigrationInfo *info);
void migration_reset_vfio_bytes_transferred(void);

#endif
