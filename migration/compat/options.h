/*
 * The settings in force: parameters, capabilities and machine properties
 *
 * One function for each, made from the rows of migration/base/params.def; a
 * row's last columns say what it is for.  What it returns is the value now:
 * a setting that is marked START there must be read once, when a migration
 * starts, and one marked LIVE each time it matters.
 *
 * Threads: settings change under the BQL.  Numbers may be read by any thread,
 * since each access is one atomic load or store of the member; strings and
 * lists, which a command may replace and free, under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_OPTIONS_H
#define QEMU_MIGRATION_OPTIONS_H

#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "qapi/qapi-types-migration.h"
#include "migration/client-options.h"

/* The C types of the column "type" in params.def. */
#define C_TYPE_BOOL bool
#define C_TYPE_UINT8 uint8_t
#define C_TYPE_UINT32 uint32_t
#define C_TYPE_UINT64 uint64_t
#define C_TYPE_SIZE uint64_t
#define C_TYPE_MIG_MODE MigMode
#define C_TYPE_MULTIFD_COMPRESSION MultiFDCompression
#define C_TYPE_ZERO_PAGE_DETECTION ZeroPageDetection
#define C_TYPE_CONVERGENCE MigrationConvergence
#define C_TYPE_ON_MISS MigrationOnMiss
#define C_TYPE_CHECKPOINT_ON_LOSS MigrationCheckpointOnLoss

/* The REST has its declarations from client-options.h. */
#define DECLARE_MIGRATION(type, accessor) type accessor(void);
#define DECLARE_REST(type, accessor)

#define PARAM(kind, type, id, field, name, global, accessor, callers, ...) \
    DECLARE_##callers(C_TYPE_##type, accessor)
#define PARAM_STRING(id, field, name, global, accessor, callers, ...) \
    DECLARE_##callers(const char *, accessor)
#define PARAM_LIST(id, field, name, type, accessor, callers, ...) \
    DECLARE_##callers(const type *, accessor)
#define CAP(id, field, name, global, accessor, callers, ...) \
    DECLARE_##callers(bool, accessor)
#include "migration/base/params.def"

#undef DECLARE_MIGRATION
#undef DECLARE_REST

/* What follows from several settings, or is set by no command. */

bool migrate_direct_io(void);
bool migrate_file_channels(void);
bool migrate_lazy_restore(void);
bool migrate_has_block_bitmap_mapping(void);
bool migrate_multifd_flush_after_each_section(void);
bool migrate_postcopy(void);
bool migrate_tls(void);

/* The properties of the "migration" object, for -global and machine types. */
extern const Property migration_properties[];
extern const size_t migration_properties_count;

/* Give @params, all zero before, the defaults; it owns its strings. */
void migrate_params_init(MigrationParameters *params);

/*
 * Whether @params would be valid with the capabilities in force.
 * Context: under the BQL.
 */
bool migrate_params_check(MigrationParameters *params, Error **errp);

/*
 * Whether the capabilities may change from @old_caps to @new_caps, both of
 * MIGRATION_CAPABILITY__MAX elements, with the parameters in force.
 * Context: under the BQL.
 */
bool migrate_caps_check(bool *old_caps, bool *new_caps, Error **errp);

/*
 * While a snapshot is saved or loaded, capabilities that say how to migrate
 * are off: all of the guest is saved, whatever they are, and what was saved
 * can be loaded, whatever they are by then.  Main thread, BQL.
 */
void migrate_snapshot_begin(void);
void migrate_snapshot_end(void);

/* In between: how the user has set them */
const bool *migrate_snapshot_user_caps(void);

/* The same, for a load: the file that is loaded was saved with @used. */
void migrate_snapshot_was_saved_with(const bool *used);

#endif
