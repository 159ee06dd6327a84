/*
 * The settings in force: where they are kept, and how they are read
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-types-migration.h"
#include "qemu/units.h"
#include "exec/target_page.h"
#include "migration/cpr.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "caps.h"
#include "params.h"

#define PROP_SAME(init_struct, name, ...) \
    init_struct(name, MigrationState, __VA_ARGS__),
#define PROP_X(init_struct, name, ...) \
    init_struct("x-" name, MigrationState, __VA_ARGS__),
#define PROP_NONE(...)

const Property migration_properties[] = {
#define PARAM(kind, type, id, field, name, global, accessor, callers, \
              min, max, unit, preset, ...) \
    PROP_##global(DEFINE_PROP_##type, name, parameters.field, preset)
#define PARAM_STRING(id, field, name, global, ...) \
    PROP_##global(DEFINE_PROP_STRING, name, parameters.field)
#define CAP(id, field, name, global, ...) \
    PROP_##global(DEFINE_PROP_BOOL, name, \
                  capabilities[MIGRATION_CAPABILITY_##id], false)
#define SWITCH(type, field, name, preset) \
    PROP_SAME(DEFINE_PROP_##type, name, field, preset)
#include "params.def"
};
const size_t migration_properties_count = ARRAY_SIZE(migration_properties);

static MigrationParameters *in_force(void)
{
    return &migrate_get_current()->parameters;
}

static bool has_cap(MigrationCapability cap)
{
    return qatomic_read(&migrate_get_current()->capabilities[cap]);
}

#define ACCESSOR(type, name, value) type name(void) { return value; }
#define PARAM(kind, type, id, field, name, global, accessor, ...) \
    ACCESSOR(C_TYPE_##type, accessor, \
             param_load(&in_force()->field, sizeof(in_force()->field)))
#define PARAM_STRING(id, field, name, global, accessor, ...) \
    ACCESSOR(const char *, accessor, in_force()->field)
#define PARAM_LIST(id, field, name, type, accessor, ...) \
    ACCESSOR(const type *, accessor, in_force()->field)
#define CAP(id, field, name, global, accessor, ...) \
    ACCESSOR(bool, accessor, has_cap(MIGRATION_CAPABILITY_##id))
#include "params.def"

bool migrate_has_block_bitmap_mapping(void)
{
    return in_force()->has_block_bitmap_mapping;
}

bool migrate_multifd_flush_after_each_section(void)
{
    return migrate_get_current()->multifd_flush_after_each_section;
}

bool migrate_send_switchover_start(void)
{
    return migrate_get_current()->send_switchover_start;
}

bool migrate_postcopy(void)
{
    return migrate_postcopy_ram() || migrate_dirty_bitmaps();
}

bool migrate_tls(void)
{
    return params_have_tls(in_force());
}

/* What has channels of multifd besides the main one is a file. */
bool migrate_file_channels(void)
{
    return migrate_multifd() && migrate_mapped_ram();
}

/* Loading a file: the guest runs before its memory is there. */
bool migrate_lazy_restore(void)
{
    return migrate_mapped_ram() && migrate_postcopy_ram();
}

/*
 * Files take unbuffered I/O at aligned places only.  Those are what mapped-ram
 * gives pages, and multifd keeps everything else on a channel of its own.
 */
bool migrate_direct_io(void)
{
    return migrate_direct_io_wanted() && migrate_file_channels();
}

/* On the destination of a CPR transfer the mode comes with the CPR state. */
MigMode migrate_mode(void)
{
    MigMode incoming = cpr_get_incoming_mode();

    return incoming != MIG_MODE_NONE ? incoming : migrate_mode_wanted();
}

void migrate_params_init(MigrationParameters *params)
{
    params_preset(params);
}

AnnounceParameters *migrate_announce_params(void)
{
    static AnnounceParameters announce;

    announce = (AnnounceParameters) {
        .initial = migrate_announce_initial(),
        .max = migrate_announce_max(),
        .rounds = migrate_announce_rounds(),
        .step = migrate_announce_step(),
    };
    return &announce;
}

/*
 * Snapshots
 */

static bool user_caps[MIGRATION_CAPABILITY__MAX];   /* during a snapshot; BQL */

void migrate_snapshot_begin(void)
{
    bool *caps = migrate_get_current()->capabilities;

    memcpy(user_caps, caps, sizeof(user_caps));
    for (int id = 0; id < MIGRATION_CAPABILITY__MAX; id++) {
        qatomic_set(&caps[id], user_caps[id] && caps_apply_to_snapshots(id));
    }
}

void migrate_snapshot_end(void)
{
    bool *caps = migrate_get_current()->capabilities;

    for (int id = 0; id < MIGRATION_CAPABILITY__MAX; id++) {
        qatomic_set(&caps[id], user_caps[id]);
    }
}

const bool *migrate_snapshot_user_caps(void)
{
    return user_caps;
}

void migrate_snapshot_was_saved_with(const bool *used)
{
    bool *caps = migrate_get_current()->capabilities;

    for (int id = 0; id < MIGRATION_CAPABILITY__MAX; id++) {
        qatomic_set(&caps[id], caps[id] || used[id]);
    }
}
