/*
 * Whether what convergence=auto is asked for can be had together
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/ram/existing.h"
#include "convergence-check.h"

static bool postcopy_is_on(const MigrationParameters *params, Error **errp)
{
    if (params->on_miss == MIGRATION_ON_MISS_POSTCOPY &&
        !migrate_postcopy_ram()) {
        error_setg(errp, "Parameter 'on-miss' is 'postcopy', which requires "
                   "capability 'postcopy-ram'");
        return false;
    }
    return true;
}

/* On a link as fast as it may be, nothing that must be sent twice */
static uint64_t one_pass_ms(const MigrationParameters *params)
{
    if (!params->max_bandwidth) {
        return 0;
    }
    return ram_existing_bytes() / (params->max_bandwidth / 1000.0);
}

static bool total_is_enough(const MigrationParameters *params, Error **errp)
{
    uint64_t pass = one_pass_ms(params);
    uint64_t least = pass + params->downtime_limit;

    if (!params->total_time_limit || params->total_time_limit >= least) {
        return true;
    }
    error_setg(errp, "Parameter 'total-time-limit' expects at least %" PRIu64
               " ms: sending the memory once takes %" PRIu64 " ms at "
               "max-bandwidth, and downtime-limit is %" PRIu64 " ms", least,
               pass, params->downtime_limit);
    return false;
}

bool convergence_params_agree(const MigrationParameters *params,
                              const bool *caps, Error **errp)
{
    if (params->convergence != MIGRATION_CONVERGENCE_AUTO) {
        return true;
    }
    if (!params->downtime_limit) {
        error_setg(errp, "Parameter 'downtime-limit' expects at least 1 ms "
                   "with convergence=auto");
        return false;
    }
    if (params->on_miss == MIGRATION_ON_MISS_SWITCHOVER &&
        caps[MIGRATION_CAPABILITY_STRICT_DOWNTIME]) {
        error_setg(errp, "Parameter 'on-miss' is 'switchover', which exceeds "
                   "the limit that capability 'strict-downtime' keeps");
        return false;
    }
    return total_is_enough(params, errp);
}

bool convergence_possible(Error **errp)
{
    const MigrationState *s = migrate_get_current();
    const MigrationParameters *params = &s->parameters;

    return convergence_params_agree(params, s->capabilities, errp) &&
           (params->convergence != MIGRATION_CONVERGENCE_AUTO ||
            postcopy_is_on(params, errp));
}
