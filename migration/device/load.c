/*
 * Loading sections
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "io/channel-buffer.h"
#include "migration/base/clock.h"
#include "migration/base/reported.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/commands.h"
#include "load.h"
#include "sections.h"

/* A live section whose first record was loaded.  It may have gone since. */
typedef struct StartedSection {
    Section *section;
    uint32_t own_id;
    bool is_ram;
    uint32_t version_id;
} StartedSection;

typedef DeviceLoadStream RecordLoop;

void device_load_init(DeviceLoad *load, const DeviceLoadOps *ops, void *opaque)
{
    *load = (DeviceLoad) { .ops = ops, .opaque = opaque };
    qemu_mutex_init(&load->lock);
    load->started = g_hash_table_new_full(NULL, NULL, NULL, g_free);
}

void device_load_destroy(DeviceLoad *load)
{
    g_clear_pointer(&load->started, g_hash_table_destroy);
    qemu_mutex_destroy(&load->lock);
}

bool device_load_header(QEMUFile *f, const Configuration *config, Error **errp)
{
    uint32_t magic = qemu_get_be32(f);
    uint32_t version = qemu_get_be32(f);

    if (!stream_check(f, errp)) {
        return false;
    }
    if (magic != WIRE_FILE_MAGIC) {
        error_setg(errp, "Not a migration stream");
        return false;
    }
    if (version != WIRE_FILE_VERSION) {
        error_setg(errp, "The migration stream has version %" PRIu32
                   ", only %u is supported", version, WIRE_FILE_VERSION);
        return false;
    }
    return !config || configuration_load(f, config, NULL, errp);
}

/*
 * Sections
 */

static bool gone(Error **errp)
{
    error_setg(errp, "The device or object that the next record is for was "
               "removed while the migration was being loaded: all of them "
               "have to stay until its end");
    return false;
}

/*
 * Between two records commands are carried out.  Devices stay meanwhile, but
 * an object may be deleted, and take its section along.  Under the BQL, unless
 * it is RAM.
 */
static bool still_there(const RecordLoop *loop, Error **errp)
{
    return loop->is_ram || section_numbered(loop->own_id) || gone(errp);
}

/*
 * Numbers are the source's, so that two sections must not have the same.
 * Under the BQL.
 */
static bool start_section(RecordLoop *loop, Error **errp)
{
    DeviceLoad *load = loop->load;
    gpointer key = GUINT_TO_POINTER(loop->id);
    StartedSection *started;

    QEMU_LOCK_GUARD(&load->lock);
    started = g_hash_table_lookup(load->started, key);
    if (started && started->own_id != loop->own_id) {
        Section *other = section_numbered(started->own_id);

        error_setg(errp, "Sections '%s' and '%s' have the same number %" PRIu32,
                   other ? other->name : "(gone)", loop->section->name,
                   loop->id);
        return false;
    }
    if (!started) {
        started = g_new(StartedSection, 1);
        g_hash_table_insert(load->started, key, started);
    }
    *started = (StartedSection) {
        .section = loop->section, .own_id = loop->own_id,
        .is_ram = loop->is_ram, .version_id = loop->version_id,
    };
    return true;
}

static bool find_started(DeviceLoad *load, uint32_t id, StartedSection *found)
{
    StartedSection *started;

    QEMU_LOCK_GUARD(&load->lock);
    started = g_hash_table_lookup(load->started, GUINT_TO_POINTER(id));
    if (started) {
        *found = *started;
    }
    return started;
}

/* One whose name does not begin with that of what was loaded is left over. */
static bool unknown_subsection(RecordLoop *loop, const Section *s,
                               Error **errp)
{
    char name[WIRE_NAME_MAX + 1];
    g_autofree char *shown = NULL;

    qemu_get_counted_string(loop->f, name);
    if (!stream_check(loop->f, errp)) {
        return false;
    }
    shown = g_strescape(name, NULL);
    error_setg(errp, "Section '%s' instance %" PRIu32 " has a subsection '%s' "
               "that is unknown here: the source is newer, or has another "
               "machine type or device properties", s->name, s->instance_id,
               shown);
    return false;
}

static bool check_footer(RecordLoop *loop, const Section *s, uint32_t id,
                         Error **errp)
{
    ERRP_GUARD();
    uint8_t type;
    uint32_t footer_id;

    if (!loop->load->footers) {
        return true;
    }
    type = qemu_get_byte(loop->f);
    footer_id = type == WIRE_SECTION_FOOTER ? qemu_get_be32(loop->f) : 0;
    if (!still_there(loop, errp)) {
        return false;
    }
    if (!stream_check(loop->f, errp)) {
        error_prepend(errp, "After section '%s' instance %" PRIu32 ": ",
                      s->name, s->instance_id);
        return false;
    }
    if (type == WIRE_SUBSECTION) {
        return unknown_subsection(loop, s, errp);
    }
    if (type != WIRE_SECTION_FOOTER) {
        error_setg(errp, "Section '%s' instance %" PRIu32 " is not followed by "
                   "its footer, but by 0x%02x: its format differs on the "
                   "source; both sides need the same machine type and device "
                   "properties", s->name, s->instance_id, type);
        return false;
    }
    if (footer_id != id) {
        error_setg(errp, "Section '%s' instance %" PRIu32 " has the number %"
                   PRIu32 ", but its footer says %" PRIu32, s->name,
                   s->instance_id, id, footer_id);
        return false;
    }
    return true;
}

/*
 * vmstate.c latches its own errors in the stream, too, but only those of the
 * channel are -EIO and have a text.  @reported is what it or the device said,
 * or NULL.
 */
static void body_failed(RecordLoop *loop, const Section *s, int ret,
                        const char *reported, Error **errp)
{
    ERRP_GUARD();

    if (qemu_file_get_error(loop->f) == -EIO && !stream_check(loop->f, errp)) {
        if (reported) {
            error_prepend(errp, "%s: ", reported);
        }
    } else {
        error_setg_errno(errp, ret == -1 ? EINVAL : -ret, "%s",
                         reported ?: "Cannot load its state");
    }
    error_prepend(errp, "Section '%s' instance %" PRIu32 ": ", s->name,
                  s->instance_id);
}

/* Returns as the device's function does. */
static int load_fields(RecordLoop *loop, Section *s, uint32_t version_id,
                       char **reported)
{
    Reported collector;
    int ret;

    reported_begin(&collector);
    if (s->vmsd) {
        ret = vmstate_load_state(loop->f, s->vmsd, s->opaque, version_id);
    } else {
        ret = s->ops->load_state(loop->f, s->opaque, version_id);
    }
    *reported = reported_end(&collector);
    return ret;
}

/* The bytes of a section and its footer. */
static bool load_body(RecordLoop *loop, Section *s, uint32_t id,
                      uint32_t version_id, const char *kind, Error **errp)
{
    g_autofree char *reported = NULL;
    int64_t start = now_ns();
    int64_t took;
    int ret;

    trace_vmstate_load(s->name, s->vmsd ? s->vmsd->name : "(old)");
    ret = load_fields(loop, s, version_id, &reported);
    if (!still_there(loop, errp)) {
        return false;
    }
    if (ret < 0) {
        body_failed(loop, s, ret, reported, errp);
        return false;
    }
    if (kind) {
        took = now_ns() - start;
        /* What is late does not keep the guest waiting. */
        if (!loop->late) {
            ledger_device(&loop->load->times, s->name, s->instance_id, took);
        }
        trace_vmstate_downtime_load(kind, s->name, s->instance_id,
                                    took / SCALE_US);
    }
    return check_footer(loop, s, id, errp);
}

static bool may_load(const DeviceLoad *load, const Section *s,
                     uint32_t version_id, Error **errp)
{
    if (version_id > s->version_id) {
        error_setg(errp, "Section '%s' has version %" PRIu32 ", this QEMU "
                   "knows it up to %d: the source is newer", s->name,
                   version_id, s->version_id);
        return false;
    }
    if (!s->vmsd && !s->ops->load_state) {
        error_setg(errp, "Section '%s' is never sent", s->name);
        return false;
    }
    if (load->refuse_live && section_is_live(s)) {
        error_setg(errp, "Section '%s' must not be in a stream of device "
                   "state", s->name);
        return false;
    }
    return true;
}

/*
 * What ABORT has devices forget is what came with STATE.  Under the BQL.
 */
static bool may_come_now(const RecordLoop *loop, Error **errp)
{
    if (loop->type == WIRE_SECTION_FULL && !loop->in_package &&
        load_step_has(LOAD_HOLDS)) {
        error_setg(errp, "The state of a device came outside of the command "
                   "STATE while the guest is being held");
        return false;
    }
    return true;
}

/* START or FULL: a section introduces itself. */
static bool read_new_section(RecordLoop *loop, Error **errp)
{
    ERRP_GUARD();
    char name[WIRE_NAME_MAX + 1];
    uint32_t id = qemu_get_be32(loop->f);
    size_t name_len = qemu_get_counted_string(loop->f, name);
    uint32_t instance_id = qemu_get_be32(loop->f);
    uint32_t version_id = qemu_get_be32(loop->f);
    Section *s;

    if (!stream_check(loop->f, errp)) {
        error_prepend(errp, "In the header of a section: ");
        return false;
    }
    if (loop->late) {
        error_setg(errp, "new section in postcopy: only started sections may "
                   "continue");
        return false;
    }
    trace_qemu_loadvm_state_section_startfull(id, name, instance_id,
                                              version_id);
    /* Devices may come and go until the source's are known. */
    BQL_LOCK_GUARD();
    if (!may_come_now(loop, errp)) {
        return false;
    }
    s = strlen(name) == name_len ? section_find(name, instance_id) : NULL;
    if (!s) {
        g_autofree char *shown = g_strescape(name, NULL);

        error_setg(errp, "Unknown section or instance '%s' %" PRIu32 ": this "
                   "VM must be set up like that on the source, including all "
                   "hotplugged devices", shown, instance_id);
        return false;
    }
    if (!may_load(loop->load, s, version_id, errp)) {
        return false;
    }
    loop->section = s;
    loop->own_id = s->id;
    loop->is_ram = !strcmp(s->name, WIRE_RAM_NAME);
    loop->id = id;
    loop->version_id = version_id;
    return loop->type != WIRE_SECTION_START || start_section(loop, errp);
}

/* PART or END: more of a section that was started. */
static bool read_more_of_section(RecordLoop *loop, Error **errp)
{
    ERRP_GUARD();
    uint32_t id = qemu_get_be32(loop->f);
    StartedSection started;

    if (!stream_check(loop->f, errp)) {
        error_prepend(errp, "In the header of a section: ");
        return false;
    }
    trace_qemu_loadvm_state_section_partend(id);
    if (!find_started(loop->load, id, &started)) {
        error_setg(errp, "Received a part of section number %" PRIu32
                   ", which did not start", id);
        return false;
    }
    loop->section = started.section;
    loop->own_id = started.own_id;
    loop->is_ram = started.is_ram;
    loop->id = id;
    loop->version_id = started.version_id;
    return true;
}

/* What was introduced, and its footer. */
static bool device_load_section(RecordLoop *loop, Error **errp)
{
    static const char *const kinds[] = {
        [WIRE_SECTION_FULL] = "non-iterable",
        [WIRE_SECTION_END] = "iterable",
    };
    const char *kind = loop->type < ARRAY_SIZE(kinds) ? kinds[loop->type]
                                                      : NULL;

    return still_there(loop, errp) &&
           load_body(loop, loop->section, loop->id, loop->version_id, kind,
                     errp);
}

/*
 * Other records
 */

static bool load_all(RecordLoop *loop, Error **errp);

/* Memory is taken as bytes arrive, not as they are announced. */
static QIOChannelBuffer *read_package(QEMUFile *f, uint32_t len, Error **errp)
{
    QIOChannelBuffer *package = qio_channel_buffer_new(0);

    qio_channel_set_name(QIO_CHANNEL(package), "migration-package");
    while (package->usage < len) {
        size_t step = MIN(len - package->usage,
                          MAX(package->usage, 1 * MiB));

        package->capacity = package->usage + step;
        package->data = g_realloc(package->data, package->capacity);
        package->usage += qemu_get_buffer(f, package->data + package->usage,
                                          step);
        if (!stream_check(f, errp)) {
            object_unref(OBJECT(package));
            return NULL;
        }
    }
    return package;
}

QEMUFile *device_load_package(QEMUFile *f, uint32_t len, Error **errp)
{
    QIOChannelBuffer *package;
    QEMUFile *stream;

    if (len > WIRE_PACKAGED_MAX) {
        error_setg(errp, "%" PRIu32 " bytes are more than the limit of %u",
                   len, WIRE_PACKAGED_MAX);
        return NULL;
    }
    package = read_package(f, len, errp);
    if (!package) {
        return NULL;
    }
    trace_loadvm_handle_cmd_packaged_received(len);
    stream = qemu_file_new_input(QIO_CHANNEL(package));
    object_unref(OBJECT(package));
    return stream;
}

/* Devices that are loaded, and are loaded again after an ABORT */
static bool device_load_take_state(RecordLoop *outer, Error **errp)
{
    DeviceLoad *load = outer->load;
    RecordLoop loop = { .load = load, .in_package = true };
    int64_t arrived_ns;
    uint32_t len;
    bool ok;

    if (!load->ops->state(load->opaque, outer->f, &len, errp)) {
        return false;
    }
    loop.f = device_load_package(outer->f, len, errp);
    if (!loop.f) {
        return false;
    }
    arrived_ns = stream_arrived_ns(outer->f);
    load->times = (LedgerDevices) { 0 };
    ok = load_all(&loop, errp) &&
         load->ops->state_loaded(load->opaque, arrived_ns, errp);
    qemu_fclose(loop.f);
    /* Somebody else reads the stream around it by now. */
    outer->end = loop.listens;
    return ok;
}

static bool take_package(RecordLoop *outer, Error **errp)
{
    DeviceLoad *load = outer->load;
    RecordLoop loop = { .load = load, .in_package = true };
    bool ok;

    loop.f = device_load_package(outer->f, qemu_get_be32(outer->f), errp);
    if (!loop.f) {
        return false;
    }
    if (!load->ops->package_ready(load->opaque, errp)) {
        qemu_fclose(loop.f);
        return false;
    }

    ok = load_all(&loop, errp);
    if (ok && !loop.ran) {
        /* Two threads would read on from the stream around it. */
        error_setg(errp, "The package does not say to start the guest");
        ok = false;
    }
    trace_loadvm_handle_cmd_packaged_main(ok ? 0 : -1);
    qemu_fclose(loop.f);
    outer->end = true;
    return ok;
}

static bool device_load_command(RecordLoop *loop, Error **errp)
{
    ERRP_GUARD();
    DeviceLoad *load = loop->load;
    unsigned command = qemu_get_be16(loop->f);
    unsigned len = qemu_get_be16(loop->f);
    bool ok;

    if (!stream_check(loop->f, errp)) {
        error_prepend(errp, "In the header of a command: ");
        return false;
    }
    trace_loadvm_process_command(command_name(command), len);
    if (!command_check(command, len, load_step(),
                       loop->in_package, errp)) {
        return false;
    }
    switch (command) {
    case WIRE_CMD_PACKAGED:
        ok = take_package(loop, errp);
        break;
    case WIRE_CMD_STATE:
        ok = device_load_take_state(loop, errp);
        break;
    default:
        ok = load->ops->command(load->opaque, command, loop->f, len, errp);
    }
    if (!ok) {
        error_prepend(errp, "Migration command %s: ", command_name(command));
    }
    switch (command) {
    case WIRE_CMD_POSTCOPY_RUN:
        loop->ran = loop->end = true;
        break;
    case WIRE_CMD_POSTCOPY_LISTEN:
        loop->listens = ok;
        break;
    case WIRE_CMD_COMMIT:
    case WIRE_CMD_ABORT:
        loop->end = loop->late;
        break;
    case WIRE_CMD_CHECKPOINT:
        /* What follows is no records. */
        loop->end = true;
        break;
    }
    return ok;
}

static bool take_end(RecordLoop *loop, Error **errp)
{
    loop->end = true;
    return true;
}

/* How a record begins, and what is done with it then. */
static const struct {
    bool (*read)(RecordLoop *, Error **);
    bool (*load)(RecordLoop *, Error **);
} record_types[] = {
    [WIRE_EOF] = { NULL, take_end },
    [WIRE_SECTION_START] = { read_new_section, device_load_section },
    [WIRE_SECTION_PART] = { read_more_of_section, device_load_section },
    [WIRE_SECTION_END] = { read_more_of_section, device_load_section },
    [WIRE_SECTION_FULL] = { read_new_section, device_load_section },
    [WIRE_COMMAND] = { NULL, device_load_command },
};

static bool read_record(RecordLoop *loop, Error **errp)
{
    DeviceLoad *load = loop->load;

    loop->type = qemu_get_byte(loop->f);
    loop->section = NULL;
    if (!stream_check(loop->f, errp)) {
        return false;
    }
    if (load->ops->proceed && !load->ops->proceed(load->opaque, errp)) {
        return false;
    }
    trace_qemu_loadvm_state_section(loop->type);
    if (loop->type >= ARRAY_SIZE(record_types) ||
        !record_types[loop->type].load) {
        error_setg(errp, "Unknown type 0x%02x of a record", loop->type);
        return false;
    }
    return !record_types[loop->type].read ||
           record_types[loop->type].read(loop, errp);
}

/* The record that was read does not need the BQL to be loaded. */
static bool is_free(const RecordLoop *loop)
{
    return loop->type == WIRE_EOF ||
           (loop->section && loop->is_ram);
}

/* Loads records; @elsewhere, if not NULL, tells which are left to others. */
static DeviceLoadStep load_some(RecordLoop *loop,
                                bool (*elsewhere)(const RecordLoop *),
                                Error **errp)
{
    while (!loop->end) {
        if (!loop->has_record && !read_record(loop, errp)) {
            return DEVICE_LOAD_FAILED;
        }
        loop->has_record = elsewhere && elsewhere(loop);
        if (loop->has_record) {
            return DEVICE_LOAD_ELSEWHERE;
        }
        if (!record_types[loop->type].load(loop, errp)) {
            return DEVICE_LOAD_FAILED;
        }
    }
    return DEVICE_LOAD_END;
}

static bool load_all(RecordLoop *loop, Error **errp)
{
    ERRP_GUARD();

    return load_some(loop, NULL, errp) == DEVICE_LOAD_END;
}

static bool needs_bql(const RecordLoop *loop)
{
    return !is_free(loop);
}

DeviceLoadStep device_load_some(DeviceLoadStream *stream, bool under_bql,
                                Error **errp)
{
    ERRP_GUARD();

    return load_some(stream, under_bql ? is_free : needs_bql, errp);
}

bool device_load_records(DeviceLoad *load, QEMUFile *f, Error **errp)
{
    RecordLoop loop = { .load = load, .f = f };

    return load_all(&loop, errp);
}

bool device_load_late(DeviceLoad *load, QEMUFile *f, Error **errp)
{
    RecordLoop loop = { .load = load, .f = f, .late = true };

    return load_all(&loop, errp);
}

bool device_load_description(QEMUFile *f, Error **errp)
{
    ERRP_GUARD();
    uint8_t waste[4 * KiB];
    uint32_t left;
    uint8_t type = qemu_get_byte(f);

    if (!qemu_file_get_error(f) && type != WIRE_VMDESCRIPTION) {
        warn_report("The migration stream has no description of its devices, "
                    "but 0x%02x", type);
        return true;
    }
    left = qemu_get_be32(f);
    if (left > WIRE_VMDESCRIPTION_MAX) {
        error_setg(errp, "A description of devices with %" PRIu32 " bytes is "
                   "longer than the limit of %d", left,
                   WIRE_VMDESCRIPTION_MAX);
        return false;
    }
    while (left && !qemu_file_get_error(f)) {
        left -= qemu_get_buffer(f, waste, MIN(left, sizeof(waste)));
    }
    if (!stream_check(f, errp)) {
        error_prepend(errp, "The stream breaks off after all state was "
                      "loaded: ");
        return false;
    }
    return true;
}

/*
 * Hooks of live sections
 */

bool device_load_setup(QEMUFile *f, Error **errp)
{
    ERRP_GUARD();
    Section *s;

    trace_loadvm_state_setup();
    FOR_EACH_SECTION_WITH(s, load_setup) {
        g_autofree char *said = NULL;
        Reported reported;
        int ret;

        reported_begin(&reported);
        ret = section_active(s) ? s->ops->load_setup(f, s->opaque, errp) : 0;
        said = reported_end(&reported);
        if (ret < 0) {
            if (!*errp) {
                error_setg_errno(errp, -ret, "%s", said ?: "Cannot be set up");
            }
            error_prepend(errp, "Section '%s': ", s->name);
            qemu_file_set_error(f, ret);
            return false;
        }
    }
    return true;
}

void device_load_cleanup(void)
{
    Section *s;

    trace_loadvm_state_cleanup();
    FOR_EACH_SECTION_WITH(s, load_cleanup) {
        s->ops->load_cleanup(s->opaque);
    }
}

unsigned device_load_count_acks(void)
{
    unsigned needed = 0;
    Section *s;

    FOR_EACH_SECTION_WITH(s, switchover_ack_needed) {
        needed += s->ops->switchover_ack_needed(s->opaque);
    }
    trace_loadvm_state_switchover_ack_needed(needed);
    return needed;
}

/* Devices come and go under the BQL, but for those with handlers. */
bool device_load_buffer(const char *name, uint32_t instance_id, char *data,
                        size_t len, Error **errp)
{
    g_autofree char *shown = NULL;
    Section *s;

    FOR_EACH_SECTION_WITH(s, load_state_buffer) {
        if (s->instance_id == instance_id && !strcmp(s->name, name)) {
            ERRP_GUARD();

            if (s->ops->load_state_buffer(s->opaque, data, len, errp)) {
                return true;
            }
            error_prepend(errp, "Device '%s' instance %" PRIu32 ": ", s->name,
                          instance_id);
            return false;
        }
    }
    shown = g_strescape(name, NULL);
    error_setg(errp, "No device '%s' instance %" PRIu32 " here takes state "
               "from a channel of multifd: this VM must have the same devices "
               "as the source, with the same settings", shown, instance_id);
    return false;
}

bool device_load_switchover_start(Error **errp)
{
    Section *s;

    FOR_EACH_SECTION_WITH(s, switchover_start) {
        g_autofree char *said = NULL;
        Reported reported;
        int ret;

        reported_begin(&reported);
        ret = s->ops->switchover_start(s->opaque);
        said = reported_end(&reported);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Section '%s' is not ready%s%s",
                             s->name, said ? ": " : "", said ?: "");
            return false;
        }
    }
    return true;
}
