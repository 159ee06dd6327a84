/*
 * The configuration record
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It is VMState, so the names of descriptions and of the fields of
 * ConfigRecord are part of the format: they stand in the stream or in its
 * JSON description.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "migration/vmstate.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "configuration.h"

typedef struct ConfigRecord {
    const Configuration *here;
    GString *problems;              /* load: what does not agree */

    uint32_t len;
    char *name;
    uint32_t target_page_bits;
    uint32_t caps_count;
    MigrationCapability *capabilities;
    QemuUUID uuid;
} ConfigRecord;

/* Further ones than these are not checked, since they are not in a stream. */
static const MigrationCapability checked_capabilities[] = {
    MIGRATION_CAPABILITY_X_IGNORE_SHARED,
    MIGRATION_CAPABILITY_MAPPED_RAM,
};

/* The record is read to its end all the same. */
static void G_GNUC_PRINTF(2, 3)
problem(ConfigRecord *r, const char *format, ...)
{
    va_list ap;

    if (r->problems->len) {
        g_string_append(r->problems, "; ");
    }
    va_start(ap, format);
    g_string_append_vprintf(r->problems, format, ap);
    va_end(ap);
}

/*
 * Lengths that an allocation follows
 */

static int put_count(QEMUFile *f, void *pv, size_t size,
                     const VMStateField *field, JSONWriter *vmdesc)
{
    qemu_put_be32s(f, pv);
    return 0;
}

/* field->num is the limit. It is no array, so that has no other meaning. */
static int get_count(QEMUFile *f, void *pv, size_t size,
                     const VMStateField *field)
{
    uint32_t *count = pv;

    qemu_get_be32s(f, count);
    if (*count > field->num) {
        *count = 0;
        return -E2BIG;
    }
    return 0;
}

static const VMStateInfo info_count = {
    .name = "uint32",
    .get = get_count,
    .put = put_count,
};

#define CONFIG_COUNT(field_, version_, max_) {                      \
    .name = stringify(field_),                                      \
    .version_id = (version_),                                       \
    .info = &info_count,                                            \
    .size = sizeof(uint32_t),                                       \
    .num = (max_),                                                  \
    .flags = VMS_SINGLE,                                            \
    .offset = vmstate_offset_value(ConfigRecord, field_, uint32_t), \
}

/*
 * Capabilities: by name, so that numbers may change
 */

static int put_capability(QEMUFile *f, void *pv, size_t size,
                          const VMStateField *field, JSONWriter *vmdesc)
{
    const MigrationCapability *capability = pv;

    qemu_put_counted_string(f, MigrationCapability_str(*capability));
    return 0;
}

/* One that we do not know becomes MIGRATION_CAPABILITY__MAX. */
static int get_capability(QEMUFile *f, void *pv, size_t size,
                          const VMStateField *field)
{
    MigrationCapability *capability = pv;
    char name[WIRE_NAME_MAX + 1];

    qemu_get_counted_string(f, name);
    *capability = qapi_enum_parse(&MigrationCapability_lookup, name,
                                  MIGRATION_CAPABILITY__MAX, NULL);
    return 0;
}

static const VMStateInfo info_capability = {
    .name = "capability",
    .get = get_capability,
    .put = put_capability,
};

static unsigned count_checked(const Configuration *here)
{
    unsigned n = 0;

    for (int i = 0; i < ARRAY_SIZE(checked_capabilities); i++) {
        n += here->capabilities[checked_capabilities[i]];
    }
    return n;
}

static bool caps_needed(void *opaque)
{
    ConfigRecord *r = opaque;

    return count_checked(r->here) > 0;
}

static bool configuration_received(const ConfigRecord *r,
                                   MigrationCapability capability)
{
    for (uint32_t i = 0; i < r->caps_count; i++) {
        if (r->capabilities[i] == capability) {
            return true;
        }
    }
    return false;
}

static void compare_capabilities(ConfigRecord *r)
{
    if (configuration_received(r, MIGRATION_CAPABILITY__MAX)) {
        problem(r, "the source uses a capability that is unknown here");
    }
    for (int i = 0; i < ARRAY_SIZE(checked_capabilities); i++) {
        MigrationCapability c = checked_capabilities[i];
        bool there = configuration_received(r, c);

        if (r->here->used) {
            r->here->used[c] = there;
        }
        if (there ? !r->here->capabilities[c]
                  : r->here->capabilities[c] && !r->here->used) {
            problem(r, "capability %s is %s on the source and %s here",
                    MigrationCapability_str(c), there ? "on" : "off",
                    there ? "off" : "on");
        }
    }
}

static const VMStateDescription vmstate_config_caps = {
    .name = WIRE_CONFIG_CAPS,
    .version_id = WIRE_CONFIG_CAPS_VERSION,
    .minimum_version_id = WIRE_CONFIG_CAPS_VERSION,
    .needed = caps_needed,
    .fields = (const VMStateField[]) {
        CONFIG_COUNT(caps_count, 1, WIRE_CONFIG_CAPS_MAX),
        VMSTATE_VARRAY_UINT32_ALLOC(capabilities, ConfigRecord, caps_count, 1,
                                    info_capability, MigrationCapability),
        VMSTATE_END_OF_LIST()
    }
};

/*
 * Page size and UUID
 */

static bool page_bits_needed(void *opaque)
{
    const ConfigRecord *r = opaque;

    return r->here->page_bits > r->here->page_bits_min;
}

static const VMStateDescription vmstate_config_page_bits = {
    .name = WIRE_CONFIG_PAGE_BITS,
    .version_id = WIRE_CONFIG_PAGE_BITS_VERSION,
    .minimum_version_id = WIRE_CONFIG_PAGE_BITS_VERSION,
    .needed = page_bits_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(target_page_bits, ConfigRecord),
        VMSTATE_END_OF_LIST()
    }
};

static bool uuid_needed(void *opaque)
{
    const ConfigRecord *r = opaque;

    return r->here->validate_uuid && r->here->uuid;
}

/* Whoever loads an old snapshot may not remember the UUID. */
static int uuid_post_load(void *opaque, int version_id)
{
    ConfigRecord *r = opaque;
    g_autofree char *there = qemu_uuid_unparse_strdup(&r->uuid);
    g_autofree char *here = NULL;

    if (!r->here->uuid) {
        warn_report("The VM's UUID on the source is %s; it is not set here",
                    there);
        return 0;
    }
    if (qemu_uuid_is_equal(&r->uuid, r->here->uuid)) {
        return 0;
    }
    here = qemu_uuid_unparse_strdup(r->here->uuid);
    problem(r, "the VM's UUID is %s on the source and %s here", there, here);
    return 0;
}

static const VMStateDescription vmstate_config_uuid = {
    .name = WIRE_CONFIG_UUID,
    .version_id = WIRE_CONFIG_UUID_VERSION,
    .minimum_version_id = WIRE_CONFIG_UUID_VERSION,
    .needed = uuid_needed,
    .post_load = uuid_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8_ARRAY_V(uuid.data, ConfigRecord, WIRE_UUID_LEN, 1),
        VMSTATE_END_OF_LIST()
    }
};

/*
 * The record
 */

static int config_post_load(void *opaque, int version_id)
{
    ConfigRecord *r = opaque;
    const char *machine = r->here->machine;

    if (r->len != strlen(machine) || memcmp(r->name, machine, r->len)) {
        g_autofree char *name = g_strndup(r->name ?: "", r->len);
        g_autofree char *shown = g_strescape(name, NULL);

        problem(r, "the machine type is '%s' on the source and '%s' here",
                shown, machine);
    }
    if (r->target_page_bits != r->here->page_bits) {
        problem(r, "a target page has %" PRIu32 " bits on the source and %"
                PRIu32 " here", r->target_page_bits, r->here->page_bits);
    }
    compare_capabilities(r);
    return 0;
}

static const VMStateDescription vmstate_config = {
    .name = "configuration",
    .version_id = 1,
    .post_load = config_post_load,
    .fields = (const VMStateField[]) {
        CONFIG_COUNT(len, 0, WIRE_MACHINE_NAME_MAX),
        VMSTATE_VBUFFER_ALLOC_UINT32(name, ConfigRecord, 0, NULL, len),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription *const []) {
        &vmstate_config_page_bits,
        &vmstate_config_caps,
        &vmstate_config_uuid,
        NULL
    }
};

void configuration_save(QEMUFile *f, const Configuration *here,
                        JSONWriter *desc)
{
    MigrationCapability used[ARRAY_SIZE(checked_capabilities)];
    ConfigRecord r = {
        .here = here,
        .name = (char *)here->machine,
        .len = strlen(here->machine),
        .target_page_bits = here->page_bits,
        .capabilities = used,
    };

    for (int i = 0; i < ARRAY_SIZE(checked_capabilities); i++) {
        if (here->capabilities[checked_capabilities[i]]) {
            used[r.caps_count++] = checked_capabilities[i];
        }
    }
    if (here->uuid) {
        r.uuid = *here->uuid;
    }
    qemu_put_byte(f, WIRE_CONFIGURATION);
    vmstate_save_state(f, &vmstate_config, &r, desc);
}

bool configuration_load(QEMUFile *f, const Configuration *here, bool *differs,
                        Error **errp)
{
    g_autoptr(GString) problems = g_string_new(NULL);
    ConfigRecord r = {
        .here = here,
        .problems = problems,
        /* Absent when the source has the smallest. */
        .target_page_bits = here->page_bits_min,
    };
    int ret;

    if (qemu_get_byte(f) != WIRE_CONFIGURATION) {
        if (stream_check(f, errp)) {
            error_setg(errp, "The configuration record is missing: the source "
                       "runs another machine type or is too old");
        }
        return false;
    }
    /* Sources say no version; what is optional is in subsections. */
    ret = vmstate_load_state(f, &vmstate_config, &r, 0);
    g_free(r.name);
    g_free(r.capabilities);

    if (problems->len) {
        error_setg(errp, "The configurations differ: %s", problems->str);
        if (differs) {
            *differs = !ret && !qemu_file_get_error(f);
        }
        return false;
    }
    if (ret == -E2BIG) {
        error_setg(errp, "A length in the configuration record is too large");
        return false;
    }
    if (stream_check(f, errp) && ret < 0) {
        error_setg_errno(errp, -ret, "Cannot read the configuration record");
    }
    return !ret;
}
