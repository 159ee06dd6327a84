/*
 * Parameters as data: the rows of params.def as a table, and loops over it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-migration.h"
#include "params.h"

/* A member is moved by its size: it has to be the same in both structures. */
#define SIZE_OF(field) \
    (sizeof_field(MigrationParameters, field) + QEMU_BUILD_BUG_ON_ZERO( \
        sizeof_field(MigrationParameters, field) != \
        sizeof_field(MigrateSetParameters, field)))
#define ROW(id, field, name_, kind_) \
    .name = (name_), .kind = PARAM_##kind_, \
    .size = SIZE_OF(field), .at = offsetof(MigrationParameters, field), \
    .set_at = offsetof(MigrateSetParameters, field)

static const ParamRow rows[MIGRATION_PARAMETER__MAX] = {
#define PARAM(kind, type, id, field, name, global, accessor, callers, \
              min_, max_, unit_, preset_, when, doc) \
    [MIGRATION_PARAMETER_##id] = { \
        ROW(id, field, name, kind), .unit = (unit_), \
        .min = (min_), .max = (max_), .preset = (preset_), \
        .set_has = offsetof(MigrateSetParameters, has_##field), \
    },
#define PARAM_STRING(id, field, name, global, accessor, callers, when, doc) \
    [MIGRATION_PARAMETER_##id] = { \
        ROW(id, field, name, STRING), .unit = "", \
    },
#define PARAM_LIST(id, field, name, type, accessor, callers, when, doc) \
    [MIGRATION_PARAMETER_##id] = { \
        ROW(id, field, name, LIST), .unit = "", \
        .set_has = offsetof(MigrateSetParameters, has_##field), \
    },
#include "params.def"
};

const ParamRow *param_row(MigrationParameter id)
{
    assert(id < MIGRATION_PARAMETER__MAX && rows[id].name);
    return &rows[id];
}

static bool is_number(const ParamRow *row)
{
    return row->kind != PARAM_STRING && row->kind != PARAM_LIST;
}

uint64_t param_load(const void *at, size_t size)
{
    switch (size) {
    case 1:
        return qatomic_read((const uint8_t *)at);
    case 4:
        return qatomic_read((const uint32_t *)at);
    case 8:
        return qatomic_read_u64((const uint64_t *)at);
    default:
        g_assert_not_reached();
    }
}

static void store(void *at, size_t size, uint64_t value)
{
    switch (size) {
    case 1:
        qatomic_set((uint8_t *)at, value);
        break;
    case 4:
        qatomic_set((uint32_t *)at, value);
        break;
    case 8:
        qatomic_set_u64((uint64_t *)at, value);
        break;
    default:
        g_assert_not_reached();
    }
}

uint64_t param_number(const MigrationParameters *params, MigrationParameter id)
{
    const ParamRow *row = param_row(id);

    assert(is_number(row));
    return param_load((const char *)params + row->at, row->size);
}

void params_preset(MigrationParameters *params)
{
    for (int id = 0; id < MIGRATION_PARAMETER__MAX; id++) {
        if (is_number(&rows[id])) {
            store((char *)params + rows[id].at, rows[id].size,
                  rows[id].preset);
        }
    }
    /* what has no default is absent, and QMP shows it so */
#define PARAM(kind, type, id, field, ...) params->has_##field = true;
#include "params.def"
    /* NULL for tls-authz means that nobody is refused, "" that all are */
    params->tls_creds = g_strdup("");
    params->tls_hostname = g_strdup("");
}

static StrOrNull *given_string(const MigrateSetParameters *set,
                               const ParamRow *row)
{
    return *(StrOrNull **)((const char *)set + row->set_at);
}

bool params_given(const MigrateSetParameters *set, MigrationParameter id)
{
    const ParamRow *row = param_row(id);

    if (row->kind == PARAM_STRING) {
        return given_string(set, row);
    }
    return *(const bool *)((const char *)set + row->set_has);
}

static void merge_string(char **to, const StrOrNull *from)
{
    g_free(*to);
    *to = g_strdup(from->type == QTYPE_QSTRING ? from->u.s : "");
}

void params_merge(MigrationParameters *params, const MigrateSetParameters *set)
{
    for (int id = 0; id < MIGRATION_PARAMETER__MAX; id++) {
        const ParamRow *row = param_row(id);
        void *to = (char *)params + row->at;

        if (!params_given(set, id) || row->kind == PARAM_LIST) {
            continue;
        }
        if (row->kind == PARAM_STRING) {
            merge_string(to, given_string(set, row));
        } else {
            store(to, row->size,
                  param_load((const char *)set + row->set_at, row->size));
        }
    }
#define PARAM_LIST(id, field, name, type, ...) \
    if (set->has_##field) { \
        qapi_free_##type(params->field); \
        params->field = QAPI_CLONE(type, set->field); \
        params->has_##field = true; \
    }
#include "params.def"
}

static bool expects(Error **errp, const ParamRow *row, const char *what)
{
    error_setg(errp, "Parameter '%s' expects %s", row->name, what);
    return false;
}

static bool param_check_range(const ParamRow *row, uint64_t value, Error **errp)
{
    g_autofree char *range = NULL;
    const char *space = *row->unit ? " " : "";

    if (value >= row->min && value <= row->max) {
        return true;
    }
    if (row->max == UINT64_MAX) {
        range = g_strdup_printf("an integer of at least %" PRIu64 "%s%s",
                                row->min, space, row->unit);
    } else {
        range = g_strdup_printf("an integer in the range of %" PRIu64
                                " to %" PRIu64 "%s%s", row->min, row->max,
                                space, row->unit);
    }
    return expects(errp, row, range);
}

bool params_check_numbers(const MigrationParameters *params,
                          uint64_t page_size, Error **errp)
{
    for (int id = 0; id < MIGRATION_PARAMETER__MAX; id++) {
        if (is_number(&rows[id]) &&
            !param_check_range(&rows[id], param_number(params, id), errp)) {
            return false;
        }
    }
    if (params->xbzrle_cache_size < page_size ||
        !is_power_of_2(params->xbzrle_cache_size)) {
        return expects(errp, param_row(MIGRATION_PARAMETER_XBZRLE_CACHE_SIZE),
                       "a power of two no less than the target page size");
    }
    if (!is_power_of_2(params->x_rdma_chunk_size)) {
        return expects(errp, param_row(MIGRATION_PARAMETER_X_RDMA_CHUNK_SIZE),
                       "a power of two");
    }
    if (params->max_cpu_throttle < params->cpu_throttle_initial) {
        g_autofree char *what = g_strdup_printf(
            "a value no lower than cpu-throttle-initial, which is %u",
            params->cpu_throttle_initial);

        return expects(errp, param_row(MIGRATION_PARAMETER_MAX_CPU_THROTTLE),
                       what);
    }
    return true;
}

bool params_have_tls(const MigrationParameters *params)
{
    return params->tls_creds && *params->tls_creds;
}
