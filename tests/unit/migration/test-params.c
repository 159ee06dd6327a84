/*
 * Unit tests of the table of parameters
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-migration.h"
#include "qapi/qobject-input-visitor.h"
#include "qapi/qobject-output-visitor.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "migration/base/params.h"

#define PAGE 4096

static MigrationParameters *defaults(void)
{
    MigrationParameters *params = g_new0(MigrationParameters, 1);

    params_preset(params);
    return params;
}

static MigrateSetParameters *G_GNUC_PRINTF(1, 2)
from_json(const char *format, ...)
{
    va_list ap;
    QObject *json;
    Visitor *v;
    MigrateSetParameters *set = NULL;

    va_start(ap, format);
    json = qobject_from_vjsonf_nofail(format, ap);
    va_end(ap);
    v = qobject_input_visitor_new(json);
    visit_type_MigrateSetParameters(v, NULL, &set, &error_abort);
    visit_free(v);
    qobject_unref(json);
    return set;
}

static char *to_json(MigrationParameters *params)
{
    QObject *dict;
    Visitor *v = qobject_output_visitor_new(&dict);
    GString *text;

    visit_type_MigrationParameters(v, NULL, &params, &error_abort);
    visit_complete(v, &dict);
    visit_free(v);
    text = qobject_to_json(dict);
    qobject_unref(dict);
    return g_string_free(text, false);
}

/* Set one number in fresh defaults and check; the error's text, or NULL. */
static char *check_number(MigrationParameter id, uint64_t value)
{
    g_autoptr(MigrationParameters) params = defaults();
    g_autoptr(MigrateSetParameters) set = NULL;
    Error *err = NULL;
    char *text = NULL;

    set = from_json("{%s: %" PRIu64 "}", param_row(id)->name, value);
    params_merge(params, set);
    g_assert_cmpuint(param_number(params, id), ==, value);
    if (!params_check_numbers(params, PAGE, &err)) {
        text = g_strdup(error_get_pretty(err));
        error_free(err);
    } else {
        g_assert_null(err);
    }
    return text;
}

static void test_rows_match_schema(void)
{
    for (int id = 0; id < MIGRATION_PARAMETER__MAX; id++) {
        const ParamRow *row = param_row(id);

        g_assert_cmpstr(row->name, ==, MigrationParameter_str(id));
        g_assert_nonnull(row->unit);
        if (row->kind == PARAM_INT) {
            g_assert_cmpuint(row->min, <=, row->preset);
            g_assert_cmpuint(row->preset, <=, row->max);
        }
    }
}

/* What QMP shows of the defaults, written down from its documentation. */
static void test_defaults(void)
{
    g_autoptr(MigrationParameters) params = defaults();
    g_autofree char *shown = to_json(params);
    QDict *dict = qobject_to(QDict, qobject_from_json(shown, &error_abort));

    g_assert_true(params_check_numbers(params, PAGE, &error_abort));
    g_assert_null(params->tls_authz);
    /* all but tls-authz, block-bitmap-mapping and cpr-exec-command */
    g_assert_cmpuint(qdict_size(dict), ==, MIGRATION_PARAMETER__MAX - 3);
    g_assert_cmpint(qdict_get_int(dict, "downtime-limit"), ==, 300);
    g_assert_cmpint(qdict_get_int(dict, "max-bandwidth"), ==, 134217728);
    g_assert_cmpint(qdict_get_int(dict, "multifd-channels"), ==, 2);
    g_assert_cmpint(qdict_get_int(dict, "xbzrle-cache-size"), ==, 67108864);
    g_assert_cmpint(qdict_get_int(dict, "x-checkpoint-delay"), ==, 20000);
    g_assert_cmpint(qdict_get_int(dict, "max-cpu-throttle"), ==, 99);
    g_assert_cmpstr(qdict_get_str(dict, "mode"), ==, "normal");
    g_assert_cmpstr(qdict_get_str(dict, "zero-page-detection"), ==, "multifd");
    g_assert_cmpstr(qdict_get_str(dict, "tls-creds"), ==, "");
    g_assert_false(qdict_get_bool(dict, "direct-io"));
    qobject_unref(dict);
}

static uint64_t type_max(const ParamRow *row)
{
    return UINT64_MAX >> (64 - 8 * row->size);
}

static void expect_refused(MigrationParameter id, uint64_t value)
{
    const ParamRow *row = param_row(id);
    g_autofree char *said = check_number(id, value);
    g_autofree char *low = g_strdup_printf(" %" PRIu64, row->min);
    g_autofree char *high = g_strdup_printf(" %" PRIu64, row->max);

    g_assert_nonnull(said);
    g_assert_nonnull(strstr(said, row->name));
    g_assert_nonnull(strstr(said, low));
    if (row->max != UINT64_MAX) {
        g_assert_nonnull(strstr(said, high));
    }
    g_assert_nonnull(strstr(said, row->unit));
}

static void test_ranges(void)
{
    int refused = 0;

    for (int id = 0; id < MIGRATION_PARAMETER__MAX; id++) {
        const ParamRow *row = param_row(id);

        /* those two have more to them than a range */
        if (row->kind != PARAM_INT ||
            id == MIGRATION_PARAMETER_XBZRLE_CACHE_SIZE ||
            id == MIGRATION_PARAMETER_MAX_CPU_THROTTLE) {
            continue;
        }
        g_assert_null(check_number(id, row->min));
        g_assert_null(check_number(id, row->max));
        if (row->min > 0) {
            expect_refused(id, row->min - 1);
            refused++;
        }
        if (row->max < type_max(row) && row->max != SIZE_MAX) {
            expect_refused(id, row->max + 1);
            expect_refused(id, type_max(row));
            refused++;
        }
    }
    /* the bounds that the schema's types do not hold by themselves */
    g_assert_cmpint(refused, ==, 32);
}

static void test_cache_size(void)
{
    static const uint64_t bad[] = { 0, 1, PAGE / 2, PAGE - 1, PAGE + 1,
                                    3 * PAGE, SIZE_MAX };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autofree char *said =
            check_number(MIGRATION_PARAMETER_XBZRLE_CACHE_SIZE, bad[i]);

        g_assert_nonnull(said);
        g_assert_nonnull(strstr(said, "power of two"));
    }
    for (uint64_t good = PAGE; good && good <= SIZE_MAX; good <<= 1) {
        g_assert_null(check_number(MIGRATION_PARAMETER_XBZRLE_CACHE_SIZE,
                                   good));
    }
}

static void test_chunk_size(void)
{
    static const uint64_t bad[] = { MiB + 1, 3 * MiB, GiB - 1 };

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autofree char *said =
            check_number(MIGRATION_PARAMETER_X_RDMA_CHUNK_SIZE, bad[i]);

        g_assert_nonnull(said);
        g_assert_nonnull(strstr(said, "power of two"));
    }
    for (uint64_t good = MiB; good <= GiB; good <<= 1) {
        g_assert_null(check_number(MIGRATION_PARAMETER_X_RDMA_CHUNK_SIZE,
                                   good));
    }
}

static void test_throttle_bounds(void)
{
    g_autoptr(MigrationParameters) params = defaults();
    g_autoptr(MigrateSetParameters) lower = from_json(
        "{'cpu-throttle-initial': 60, 'max-cpu-throttle': 59}");
    g_autoptr(MigrateSetParameters) equal = from_json("{"
        "'max-cpu-throttle': 60}");
    Error *err = NULL;

    params_merge(params, lower);
    g_assert_false(params_check_numbers(params, PAGE, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "max-cpu-throttle"));
    g_assert_nonnull(strstr(error_get_pretty(err), "60"));
    error_free(err);
    params_merge(params, equal);
    g_assert_true(params_check_numbers(params, PAGE, &error_abort));
    params->max_cpu_throttle = 100;
    g_assert_false(params_check_numbers(params, PAGE, NULL));
}

/* Each parameter by itself: it arrives, and no other one moves. */
static void test_merge_each(void)
{
    static const char *const other_value[] = {
        [PARAM_INT] = "7", [PARAM_BOOL] = "true", [PARAM_STRING] = "'text'",
        [PARAM_LIST] = "[]",
    };
    static const char *const other_enum[MIGRATION_PARAMETER__MAX] = {
        [MIGRATION_PARAMETER_MULTIFD_COMPRESSION] = "'zlib'",
        [MIGRATION_PARAMETER_ZERO_PAGE_DETECTION] = "'none'",
        [MIGRATION_PARAMETER_MODE] = "'cpr-reboot'",
        [MIGRATION_PARAMETER_CONVERGENCE] = "'auto'",
        [MIGRATION_PARAMETER_ON_MISS] = "'cancel'",
        [MIGRATION_PARAMETER_CHECKPOINT_ON_LOSS] = "'stop'",
    };

    for (int id = 0; id < MIGRATION_PARAMETER__MAX; id++) {
        const ParamRow *row = param_row(id);
        const char *value = row->kind == PARAM_ENUM ? other_enum[id]
                                                    : other_value[row->kind];
        g_autoptr(MigrationParameters) params = defaults();
        g_autofree char *before = to_json(params);
        g_autoptr(MigrateSetParameters) set = from_json(
            "{%s: %p}", row->name, qobject_from_json(value, &error_abort));
        g_autofree char *after = NULL;
        QDict *old, *new;

        for (int other = 0; other < MIGRATION_PARAMETER__MAX; other++) {
            g_assert_cmpint(params_given(set, other), ==, other == id);
        }
        params_merge(params, set);
        after = to_json(params);
        old = qobject_to(QDict, qobject_from_json(before, &error_abort));
        new = qobject_to(QDict, qobject_from_json(after, &error_abort));
        g_assert_true(qdict_haskey(new, row->name));
        g_assert_false(qobject_is_equal(qdict_get(old, row->name),
                                        qdict_get(new, row->name)));
        qdict_del(old, row->name);
        qdict_del(new, row->name);
        g_assert_true(qobject_is_equal(QOBJECT(old), QOBJECT(new)));
        qobject_unref(old);
        qobject_unref(new);
    }
}

static void test_merge_nothing(void)
{
    g_autoptr(MigrationParameters) params = defaults();
    g_autoptr(MigrateSetParameters) set = from_json("{}");
    g_autofree char *before = to_json(params);
    g_autofree char *after = NULL;

    params_merge(params, set);
    after = to_json(params);
    g_assert_cmpstr(before, ==, after);
}

static void test_null_is_empty(void)
{
    g_autoptr(MigrationParameters) params = defaults();
    g_autoptr(MigrateSetParameters) name = from_json(
        "{'tls-creds': 'a', 'tls-hostname': 'b', 'tls-authz': 'c'}");
    g_autoptr(MigrateSetParameters) null = from_json(
        "{'tls-creds': null, 'tls-hostname': '', 'tls-authz': null}");

    params_merge(params, name);
    g_assert_cmpstr(params->tls_creds, ==, "a");
    g_assert_cmpstr(params->tls_hostname, ==, "b");
    g_assert_cmpstr(params->tls_authz, ==, "c");
    params_merge(params, null);
    g_assert_cmpstr(params->tls_creds, ==, "");
    g_assert_cmpstr(params->tls_hostname, ==, "");
    g_assert_cmpstr(params->tls_authz, ==, "");
}

/* What was merged does not hang on what it came from. */
static void test_merge_copies(void)
{
    g_autoptr(MigrationParameters) params = defaults();
    MigrateSetParameters *set = from_json(
        "{'tls-creds': 'creds', 'block-bitmap-mapping': [{'node-name': 'n',"
        " 'alias': 'a', 'bitmaps': [{'name': 'b', 'alias': 'c'}]}]}");
    g_autoptr(MigrateSetParameters) none =
        from_json("{'block-bitmap-mapping': []}");

    params_merge(params, set);
    params_merge(params, set);
    qapi_free_MigrateSetParameters(set);
    g_assert_cmpstr(params->tls_creds, ==, "creds");
    g_assert_true(params->has_block_bitmap_mapping);
    g_assert_cmpstr(params->block_bitmap_mapping->value->bitmaps->value->alias,
                    ==, "c");
    params_merge(params, none);
    g_assert_true(params->has_block_bitmap_mapping);
    g_assert_null(params->block_bitmap_mapping);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration/params/rows-match-schema",
                    test_rows_match_schema);
    g_test_add_func("/migration/params/defaults", test_defaults);
    g_test_add_func("/migration/params/ranges", test_ranges);
    g_test_add_func("/migration/params/cache-size", test_cache_size);
    g_test_add_func("/migration/params/chunk-size", test_chunk_size);
    g_test_add_func("/migration/params/throttle-bounds", test_throttle_bounds);
    g_test_add_func("/migration/params/merge-each", test_merge_each);
    g_test_add_func("/migration/params/merge-nothing", test_merge_nothing);
    g_test_add_func("/migration/params/null-is-empty", test_null_is_empty);
    g_test_add_func("/migration/params/merge-copies", test_merge_copies);
    return g_test_run();
}
