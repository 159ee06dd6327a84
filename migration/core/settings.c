/*
 * Commands that query and change settings
 *
 * What a setting may be stands in base/params.def and base/caps.c.  Here is
 * what needs a running emulator: what the host and the moment allow, and what
 * a change does to a migration that runs.
 *
 * All functions: under the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-visit-migration.h"
#include "qemu/units.h"
#include "exec/target_page.h"
#include "migration/base/caps.h"
#include "migration/base/params.h"
#include "migration/colo.h"
#include "migration/migration-stats.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/permit.h"
#include "migration/postcopy-ram.h"
#include "migration/postcopy/write-watch.h"
#include "migration/ram.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "convergence-check.h"
#include "settings.h"

void (*settings_check_period_changed)(void);

/* Atomic: the migration thread compares it with what it was. */
static unsigned param_changes;

unsigned settings_changes(void)
{
    return qatomic_read(&param_changes);
}

static MigrationParameters *params_in_force(void)
{
    return &migrate_get_current()->parameters;
}

/*
 * Capabilities
 */

static bool lacks(Error **errp, MigrationCapability cap, const char *what)
{
    error_setg(errp, "Capability '%s' %s", MigrationCapability_str(cap), what);
    return false;
}

static bool stream_is_plain(MigrationCapability cap,
                            const MigrationParameters *params, Error **errp)
{
    if (params->multifd_compression != MULTIFD_COMPRESSION_NONE) {
        return lacks(errp, cap,
                     "requires parameter 'multifd-compression' to be 'none'");
    }
    if (params_have_tls(params)) {
        return lacks(errp, cap, "requires parameter 'tls-creds' to be empty");
    }
    return true;
}

static bool cap_holds(MigrationCapability cap, CapCondition condition,
                      const MigrationParameters *params, Error **errp)
{
    switch (condition) {
    case CAP_COLO_IS_BUILT:
#ifndef CONFIG_REPLICATION
        return lacks(errp, cap, "requires a QEMU built with replication");
#endif
        return true;
    case CAP_HOST_CAN_POSTCOPY:
        return !runstate_check(RUN_STATE_INMIGRATE) ||
               postcopy_possible_here(errp);
    case CAP_HOST_TRACKS_WRITES:
        return write_watch_possible(errp);
    case CAP_HOST_SENDS_IN_PLACE:
#ifndef CONFIG_LINUX
        return lacks(errp, cap, "requires a Linux host");
#endif
        return true;
    case CAP_STREAM_IS_PLAIN:
        return stream_is_plain(cap, params, errp);
    case CAP_INCOMING_NOT_STARTED:
        return !migration_incoming_started() ||
               lacks(errp, cap,
                     "must be set before the incoming migration starts");
    case CAP_DIRTY_RING:
        return (kvm_enabled() && kvm_dirty_ring_enabled()) ||
               lacks(errp, cap, "requires KVM with the accelerator property "
                     "'dirty-ring-size' set");
    default:
        g_assert_not_reached();
    }
}

/* Whether the capabilities may become @caps, with the parameters @params. */
static bool caps_allowed(const bool *old, const bool *caps,
                         const MigrationParameters *params, Error **errp)
{
    return caps_available(caps, errp) &&
           caps_check(old, caps, params, cap_holds, errp);
}

bool migrate_caps_check(bool *old_caps, bool *new_caps, Error **errp)
{
    return caps_allowed(old_caps, new_caps, params_in_force(), errp);
}

MigrationCapabilityStatusList *qmp_query_migrate_capabilities(Error **errp)
{
    const bool *caps = migrate_get_current()->capabilities;
    MigrationCapabilityStatusList *list = NULL;

    for (int id = MIGRATION_CAPABILITY__MAX - 1; id >= 0; id--) {
        MigrationCapabilityStatus *status = g_new(MigrationCapabilityStatus, 1);

        *status = (MigrationCapabilityStatus) { id, caps[id] };
        QAPI_LIST_PREPEND(list, status);
    }
    return list;
}

static bool caps_may_change(Error **errp)
{
    if (migration_is_running() || migration_in_colo_state()) {
        error_setg(errp, "There's a migration process in progress");
        return false;
    }
    return migration_permits(MIGRATION_ACT_SET_CAPABILITIES, errp);
}

/* A thread that loads may be reading them. */
static void put_caps_in_force(const bool *wanted)
{
    bool *caps = migrate_get_current()->capabilities;

    for (int id = 0; id < MIGRATION_CAPABILITY__MAX; id++) {
        qatomic_set(&caps[id], wanted[id]);
    }
}

void qmp_migrate_set_capabilities(MigrationCapabilityStatusList *list,
                                  Error **errp)
{
    bool *caps = migrate_get_current()->capabilities;
    bool wanted[MIGRATION_CAPABILITY__MAX];

    if (!caps_may_change(errp)) {
        return;
    }
    memcpy(wanted, caps, sizeof(wanted));
    for (; list; list = list->next) {
        wanted[list->value->capability] = list->value->state;
    }
    if (migrate_caps_check(caps, wanted, errp)) {
        put_caps_in_force(wanted);
    }
}

/*
 * Parameters
 */

/* What the host can never hold is not found out only by who starts. */
static bool cache_may_fit(const MigrationParameters *params, Error **errp)
{
    uint64_t memory = qemu_get_host_physmem();

    if (!memory || params->xbzrle_cache_size <= memory) {
        return true;
    }
    error_setg(errp, "Parameter 'xbzrle-cache-size' expects no more than the "
               "memory of the host, which is %" PRIu64 " bytes", memory);
    return false;
}

/*
 * Whether @params can be had with @caps.  @files: by which parameters it is
 * judged whether files can be written as mapped-ram has them.
 */
static bool params_allowed(const MigrationParameters *params, const bool *caps,
                           const MigrationParameters *files, Error **errp)
{
    ERRP_GUARD();

    if (!params_check_numbers(params, qemu_target_page_size(), errp) ||
        !cache_may_fit(params, errp)) {
        return false;
    }
    if (params->has_block_bitmap_mapping &&
        !check_dirty_bitmap_mig_alias_map(params->block_bitmap_mapping,
                                          errp)) {
        error_prepend(errp, "Invalid mapping given for block-bitmap-mapping: ");
        return false;
    }
    if (caps[MIGRATION_CAPABILITY_ZERO_COPY_SEND] &&
        !stream_is_plain(MIGRATION_CAPABILITY_ZERO_COPY_SEND, params, errp)) {
        return false;
    }
    if (caps[MIGRATION_CAPABILITY_MAPPED_RAM] &&
        !stream_is_plain(MIGRATION_CAPABILITY_MAPPED_RAM, files, errp)) {
        return false;
    }
    if (params->direct_io && !qemu_has_direct_io()) {
        error_setg(errp, "No build-time support for direct-io");
        return false;
    }
    return true;
}

bool migrate_params_check(MigrationParameters *params, Error **errp)
{
    return params_allowed(params, migrate_get_current()->capabilities,
                          params_in_force(), errp);
}

MigrationParameters *qmp_query_migrate_parameters(Error **errp)
{
    MigrationParameters *params = QAPI_CLONE(MigrationParameters,
                                             params_in_force());

    params->tls_authz = params->tls_authz ?: g_strdup("");
    caps_show(migrate_get_current()->capabilities,
              qapi_MigrationParameters_base(params));
    return params;
}

/* While @set is not yet in force: false if that cannot be done. */
static bool resize_cache(const MigrateSetParameters *set, Error **errp)
{
    return !set->has_xbzrle_cache_size ||
           ram_delta_resize(set->xbzrle_cache_size, errp);
}

/* Now that @set is in force: tell a migration that runs. */
static void act_on(const MigrateSetParameters *set)
{
    bool in_postcopy = migration_in_postcopy();

    if (set->has_max_bandwidth && migration_is_running() && !in_postcopy) {
        migration_rate_set(set->max_bandwidth);
    }
    if (set->has_max_postcopy_bandwidth && in_postcopy) {
        migration_rate_set(set->max_postcopy_bandwidth);
    }
    if (set->has_x_checkpoint_delay) {
        colo_checkpoint_delay_set();
    }
    if (set->has_vmstate_check_period && settings_check_period_changed) {
        settings_check_period_changed();
    }
}

/*
 * Whether a command may change capabilities to @caps and parameters to @params:
 * they are checked as they would stand afterwards, in whichever order.
 */
static bool both_allowed(const bool *caps, const MigrationParameters *params,
                         Error **errp)
{
    return caps_may_change(errp) &&
           caps_allowed(migrate_get_current()->capabilities, caps, params,
                        errp) &&
           params_allowed(params, caps, params, errp);
}

void qmp_migrate_set_parameters(MigrateSetParameters *set, Error **errp)
{
    const MigrationCapabilityMembers *members =
        qapi_MigrateSetParameters_base(set);
    g_autoptr(MigrationParameters) wanted =
        QAPI_CLONE(MigrationParameters, params_in_force());
    bool caps[MIGRATION_CAPABILITY__MAX];
    bool both = caps_given(members);

    memcpy(caps, migrate_get_current()->capabilities, sizeof(caps));
    caps_merge(caps, members);
    params_merge(wanted, set);
    /* without capabilities as QEMU 10.0 has it: files by what is in force */
    if ((both ? both_allowed(caps, wanted, errp)
              : migrate_params_check(wanted, errp)) &&
        convergence_params_agree(wanted, caps, errp) &&
        resize_cache(set, errp)) {
        params_merge(params_in_force(), set);
        qatomic_set(&param_changes, param_changes + 1);
        if (both) {
            put_caps_in_force(caps);
        }
        act_on(set);
    }
}
