/*
 * Unit tests of saving and loading sections: a whole stream in memory, then
 * the same stream cut off at every byte, and with every byte changed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "io/channel-buffer.h"
#include "setup.h"
#include "migration/base/load-step.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "migration/device/load.h"
#include "migration/device/save.h"
#include "migration/device/sections.h"
#include "migration/wire/stream.h"

/*
 * The machine: a live section of records with a length, an old-style device
 * and two of VMState, one of which is loaded first.
 */

typedef struct Disk {
    GByteArray *log;        /* what was saved or loaded, by stage */
    unsigned parts;         /* to save before it is finished */
    int fail_with;          /* what save hooks return */
} Disk;

typedef struct Chip {
    uint32_t control;
    uint8_t fifo[4];
    uint32_t pending;       /* in a subsection, unless zero */
} Chip;

static Disk disk;
static Chip early, late;
static uint16_t old_device;

static int disk_put(QEMUFile *f, uint8_t stage)
{
    if (disk.fail_with) {
        return disk.fail_with;
    }
    qemu_put_be16(f, 1);
    qemu_put_byte(f, stage);
    g_byte_array_append(disk.log, &stage, 1);
    return 0;
}

static int disk_setup(QEMUFile *f, void *opaque, Error **errp)
{
    return disk_put(f, 's');
}

static int disk_iterate(QEMUFile *f, void *opaque)
{
    int ret = disk_put(f, 'p');

    return ret ?: !disk.parts || --disk.parts == 0;
}

static int disk_complete(QEMUFile *f, void *opaque)
{
    return disk_put(f, 'e');
}

static int disk_load(QEMUFile *f, void *opaque, int version_id)
{
    uint8_t bytes[64];
    size_t len = qemu_get_be16(f);

    if (len > sizeof(bytes)) {
        return -EINVAL;
    }
    if (qemu_get_buffer(f, bytes, len) != len) {
        return qemu_file_get_error(f);
    }
    g_byte_array_append(disk.log, bytes, len);
    return 0;
}

static void disk_pending(void *opaque, uint64_t *must, uint64_t *can)
{
    *must += disk.parts;
    *can += 100;
}

static const SaveVMHandlers disk_ops = {
    .save_setup = disk_setup,
    .save_live_iterate = disk_iterate,
    .save_live_complete_precopy = disk_complete,
    .state_pending_exact = disk_pending,
    .load_state = disk_load,
};

static void old_save(QEMUFile *f, void *opaque)
{
    qemu_put_be16(f, old_device);
}

static int old_load(QEMUFile *f, void *opaque, int version_id)
{
    old_device = qemu_get_be16(f);
    return 0;
}

static const SaveVMHandlers old_ops = {
    .save_state = old_save,
    .load_state = old_load,
};

static bool pending_needed(void *opaque)
{
    Chip *chip = opaque;

    return chip->pending;
}

static const VMStateDescription vmstate_chip_pending = {
    .name = "chip/pending",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = pending_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(pending, Chip),
        VMSTATE_END_OF_LIST()
    }
};

#define CHIP_FIELDS                             \
    .version_id = 3,                            \
    .minimum_version_id = 2,                    \
    .fields = (const VMStateField[]) {          \
        VMSTATE_UINT32(control, Chip),          \
        VMSTATE_UINT8_ARRAY(fifo, Chip, 4),     \
        VMSTATE_END_OF_LIST()                   \
    }

#define BAD_CONTROL 0xbad
#define WORSE_CONTROL 0xbade

/* Refuses what makes no sense, with and without a word. */
static int chip_post_load(void *opaque, int version_id)
{
    Chip *chip = opaque;

    if (chip->control == BAD_CONTROL) {
        error_report("control %x is reserved", chip->control);
    }
    return chip->control == BAD_CONTROL || chip->control == WORSE_CONTROL
           ? -EINVAL : 0;
}

static const VMStateDescription vmstate_chip = {
    .name = "chip",
    .post_load = chip_post_load,
    CHIP_FIELDS,
    .subsections = (const VMStateDescription *const []) {
        &vmstate_chip_pending,
        NULL
    }
};

static const VMStateDescription vmstate_early = {
    .name = "early",
    .early_setup = true,
    CHIP_FIELDS,
};

static void machine_create(void)
{
    const SectionSpec specs[] = {
        { .name = "disk", .alias_id = -1, .version_id = 4, .ops = &disk_ops },
        { .name = "old", .alias_id = -1, .version_id = 1, .ops = &old_ops },
        { .path = "bus/1", .name = "chip", .alias_id = -1, .version_id = 3,
          .vmsd = &vmstate_chip, .opaque = &late },
        { .name = "early", .alias_id = -1, .version_id = 3,
          .vmsd = &vmstate_early, .opaque = &early },
    };

    for (int i = 0; i < ARRAY_SIZE(specs); i++) {
        section_add(&specs[i], &error_abort);
    }
    disk.log = g_byte_array_new();
}

static void machine_reset(void)
{
    g_byte_array_set_size(disk.log, 0);
    disk.parts = 0;
    disk.fail_with = 0;
    memset(&early, 0, sizeof(early));
    memset(&late, 0, sizeof(late));
    old_device = 0;
}

static bool capabilities[MIGRATION_CAPABILITY__MAX];
static const Configuration here = {
    .machine = "testbed-1.0", .page_bits = 12, .page_bits_min = 12,
    .capabilities = capabilities,
};

/*
 * Saving and loading all of it
 */

static bool save_machine(const DeviceSave *save, Error **errp)
{
    bool finished = false;

    device_save_header(save, &here);
    if (!device_save_setup(save, 4096, errp)) {
        return false;
    }
    while (!finished) {
        if (!device_save_iterate(save, false, &finished, errp)) {
            return false;
        }
    }
    if (!device_save_complete(save, false, errp) ||
        !device_save_state(save, DEVICES_AFTER_SETUP, errp)) {
        return false;
    }
    device_save_end(save);
    return true;
}

static GByteArray *machine_stream(bool footers, bool describe)
{
    GByteArray *bytes = g_byte_array_new();
    QIOChannelBuffer *buffer = qio_channel_buffer_new(0);
    DeviceSave save = {
        .f = qemu_file_new_output(QIO_CHANNEL(buffer)),
        .desc = describe ? json_writer_new(false) : NULL,
        .footers = footers,
    };

    machine_reset();
    disk.parts = 2;
    early.control = 0x0e0e;
    late = (Chip) { 0x12345678, { 1, 2, 3, 4 }, 99 };
    old_device = 0xabcd;
    save_machine(&save, &error_abort);
    g_assert_cmpint(qemu_fflush(save.f), ==, 0);
    g_byte_array_append(bytes, buffer->data, buffer->usage);
    qemu_fclose(save.f);
    object_unref(OBJECT(buffer));
    if (save.desc) {
        json_writer_free(save.desc);
    }
    return bytes;
}

static unsigned commands_seen;
static bool refuse;

static bool package_ready(void *opaque, Error **errp)
{
    commands_seen |= 1u << WIRE_CMD_PACKAGED;
    return true;
}

static bool take_command(void *opaque, unsigned command, QEMUFile *f,
                         uint16_t len, Error **errp)
{
    commands_seen |= 1u << command;
    switch (command) {
    case WIRE_CMD_PING:
        qemu_get_be32(f);
        return true;
    case WIRE_CMD_POSTCOPY_ADVISE:
        load_step_go(STEP_ADVISED);
        return true;
    case WIRE_CMD_POSTCOPY_LISTEN:
        load_step_go(STEP_LISTENING);
        return true;
    case WIRE_CMD_POSTCOPY_RUN:
        return true;
    default:
        error_setg(errp, "no handler");
        return false;
    }
}

/*
 * An object that is deleted while its state is loaded
 */

enum { STAYS, GOES_BEFORE, GOES_WITHIN, GOES_BETWEEN };

static Section *passing;
static int passing_goes;
static unsigned passing_loads;

static void passing_leaves(void)
{
    section_remove(passing);
    passing = NULL;
}

static int passing_load(QEMUFile *f, void *opaque, int version_id)
{
    g_assert_nonnull(passing);
    passing_loads++;
    if (passing_goes == GOES_WITHIN) {
        passing_leaves();
    }
    return qemu_get_byte(f) == 'p' ? 0 : -EINVAL;
}

static const SaveVMHandlers passing_ops = {
    .save_setup = disk_setup,
    .load_state = passing_load,
};

static void passing_comes(void)
{
    const SectionSpec spec = {
        .name = "passing", .alias_id = -1, .version_id = 1,
        .ops = &passing_ops,
    };

    passing = section_add(&spec, &error_abort);
    passing_loads = 0;
}

static bool proceed(void *opaque, Error **errp)
{
    if (passing && passing_goes == GOES_BETWEEN && passing_loads) {
        /* Another comes in its place, perhaps where it was in memory. */
        passing_leaves();
        passing_comes();
    }
    if (refuse) {
        error_setg(errp, "the owner refused");
    }
    return !refuse;
}

static const DeviceLoadOps load_ops = {
    .command = take_command,
    .package_ready = package_ready,
    .proceed = proceed,
};

static bool load_machine(const uint8_t *data, size_t len, bool footers,
                         Error **errp)
{
    QEMUFile *f = test_input(data, len);
    DeviceLoad load;
    bool ok;

    machine_reset();
    load_step_begin(STEP_PRECOPY);
    commands_seen = 0;
    device_load_init(&load, &load_ops, NULL);
    load.footers = footers;
    ok = device_load_header(f, &here, errp) && device_load_setup(f, errp) &&
         device_load_records(&load, f, errp) &&
         device_load_description(f, errp);
    device_load_destroy(&load);
    qemu_fclose(f);
    return ok;
}

static void check_machine(void)
{
    g_assert_cmpmem(disk.log->data, disk.log->len, "sppe", 4);
    g_assert_cmpuint(early.control, ==, 0x0e0e);
    g_assert_cmpuint(late.control, ==, 0x12345678);
    g_assert_cmpuint(late.fifo[3], ==, 4);
    g_assert_cmpuint(late.pending, ==, 99);
    g_assert_cmpuint(old_device, ==, 0xabcd);
}

static void test_round_trip(void)
{
    for (int footers = 0; footers < 2; footers++) {
        g_autoptr(GByteArray) s = machine_stream(footers, true);

        g_assert_true(load_machine(s->data, s->len, footers, &error_abort));
        check_machine();
    }
}

/* Head and first sections, byte by byte. */
static void test_format(void)
{
    static const uint8_t want[] =
        "QEVM\0\0\0\3" "\7\0\0\0\13testbed-1.0"
        "\1\0\0\0\0\4disk\0\0\0\0\0\0\0\4" "\0\1s" "\x7e\0\0\0\0"
        "\4\0\0\0\3\5early\0\0\0\0\0\0\0\3" "\0\0\x0e\x0e\0\0\0\0"
        "\x7e\0\0\0\3"
        "\2\0\0\0\0" "\0\1p" "\x7e\0\0\0\0"
        "\2\0\0\0\0" "\0\1p" "\x7e\0\0\0\0"
        "\3\0\0\0\0" "\0\1e" "\x7e\0\0\0\0"
        "\4\0\0\0\1\3old\0\0\0\0\0\0\0\1" "\xab\xcd" "\x7e\0\0\0\1"
        "\4\0\0\0\2\12bus/1/chip\0\0\0\0\0\0\0\3" "\x12\x34\x56\x78\1\2\3\4"
        "\5\14chip/pending\0\0\0\1\0\0\0c" "\x7e\0\0\0\2"
        "\0";
    g_autoptr(GByteArray) s = machine_stream(true, false);

    g_assert_cmpmem(s->data, s->len, want, sizeof(want) - 1);
}

static void test_description(void)
{
    g_autoptr(GByteArray) s = machine_stream(true, true);
    g_autoptr(GByteArray) bare = machine_stream(true, false);
    g_autofree char *text = NULL;

    g_assert_cmpmem(s->data, bare->len, bare->data, bare->len);
    g_assert_cmpuint(s->data[bare->len], ==, WIRE_VMDESCRIPTION);
    text = g_strndup((char *)s->data + bare->len + 5, s->len - bare->len - 5);
    g_assert_cmpuint(ldl_be_p(s->data + bare->len + 1), ==, strlen(text));
    g_assert_true(g_str_has_prefix(text, "{\"configuration\": {"));
    g_assert_nonnull(strstr(text, "\"page_size\": 4096, \"devices\": ["));
    g_assert_nonnull(strstr(text, "{\"name\": \"old\", \"instance_id\": 0, "
                            "\"size\": 2, \"fields\": [{\"name\": \"data\", "
                            "\"size\": 2, \"type\": \"buffer\"}]}"));
    g_assert_null(strstr(text, "disk"));
    g_assert_true(g_str_has_suffix(text, "]}"));
}

/* Whatever is missing, the load fails, says why, and does not crash. */
static void test_cut(void)
{
    g_autoptr(GByteArray) s = machine_stream(true, true);

    for (size_t len = 0; len < s->len; len++) {
        Error *err = NULL;

        g_assert_false(load_machine(s->data, len, true, &err));
        g_assert_nonnull(err);
        error_free(err);
    }
}

/* Whatever is changed, it fails with a reason or does as it was told. */
static void test_flipped(void)
{
    static const uint8_t with[] = { 0x01, 0x80, 0xff };
    g_autoptr(GByteArray) s = machine_stream(true, false);
    unsigned failed = 0;

    for (size_t i = 0; i < s->len; i++) {
        for (int k = 0; k < ARRAY_SIZE(with); k++) {
            Error *err = NULL;
            bool ok;

            s->data[i] ^= with[k];
            g_byte_array_append(s, (const uint8_t *)"\6\0\0\0", 5);
            ok = load_machine(s->data, s->len, true, &err);
            g_byte_array_set_size(s, s->len - 5);
            s->data[i] ^= with[k];
            g_assert_true(ok == !err);
            failed += !ok;
            error_free(err);
        }
    }
    g_assert_cmpuint(failed, >, s->len * 2);
    g_assert_true(load_machine(s->data, s->len, true, NULL) ||
                  disk.log->len == 4);
}

/*
 * Single lies; the end-to-end test has many more
 */

static void check_records(const char *bytes, size_t len, const char *why)
{
    static const uint8_t head[] = "QEVM\0\0\0\3" "\7\0\0\0\13testbed-1.0";
    g_autoptr(GByteArray) s = g_byte_array_new();
    Error *err = NULL;
    bool ok;

    g_byte_array_append(s, head, sizeof(head) - 1);
    g_byte_array_append(s, (const uint8_t *)bytes, len);
    g_byte_array_append(s, (const uint8_t *)"\0\6\0\0\0", 6);
    ok = load_machine(s->data, s->len, true, &err);
    if (!why) {
        g_assert_null(err);
        g_assert_true(ok);
        return;
    }
    g_assert_false(ok);
    if (!strstr(error_get_pretty(err), why)) {
        g_test_message("%s", error_get_pretty(err));
        g_assert_not_reached();
    }
    error_free(err);
}

#define RECORDS(bytes, why) check_records(bytes, sizeof(bytes) - 1, why)

#define DISK_START "\1\0\0\0\x50\4disk\0\0\0\0\0\0\0\4" "\0\1s"
#define DISK_FOOTER "\x7e\0\0\0\x50"
#define ADVISE "\10\0\3\0\0"

static void test_lies(void)
{
    RECORDS("", NULL);
    RECORDS(DISK_START DISK_FOOTER, NULL);
    RECORDS(DISK_START DISK_FOOTER "\2\0\0\0\x50" "\0\1p" DISK_FOOTER, NULL);
    RECORDS("\2\0\0\0\x50" "\0\1p" DISK_FOOTER, "did not start");
    RECORDS(DISK_START DISK_FOOTER "\2\0\0\0\x51", "did not start");
    RECORDS(DISK_START "\x7e\0\0\0\x51", "its footer says 81");
    RECORDS(DISK_START "\x7f\0\0\0\x50", "not followed by its footer");
    RECORDS(DISK_START DISK_FOOTER "\1\0\0\0\x50\3old\0\0\0\0\0\0\0\1",
            "have the same number 80");
    RECORDS("\1\0\0\0\x50\4disk\0\0\0\1\0\0\0\4", "Unknown section");
    RECORDS("\1\0\0\0\x50\4disk\0\0\0\0\0\0\0\5", "has version 5");
    RECORDS("\1\0\0\0\x50\4disk\0\0\0\0\xff\xff\xff\xff", "version 4294967295");
    RECORDS("\1\0\0\0\x50\4disk\0\0\0\0\0\0\0\4\1\0", "Section 'disk'");
    RECORDS("\4\0\0\0\2\4chip\0\0\0\0\0\0\0\1", "Section 'bus/1/chip'");
    RECORDS("\x55", "Unknown type 0x55");
    RECORDS("\5", "Unknown type 0x05");
    RECORDS("\10\0\0\0\0", "unknown migration command 0x0");
    RECORDS("\10\0\2\0\4\0\0\0\1", NULL);
    RECORDS("\10\0\2\0\3\0\0\1", "PING with 3 bytes");
    RECORDS("\10\0\5\0\0", "POSTCOPY_RUN during precopy");
    RECORDS("\10\0\1\0\0", "no handler");
    RECORDS(ADVISE "\10\0\7\0\4\0\0\0\1\0", "does not say to start");
    RECORDS(ADVISE "\10\0\7\0\4\xff\xff\xff\xff", "more than the limit");
    RECORDS(ADVISE "\10\0\7\0\4\0\0\1\0\0", "PACKAGED");
    RECORDS(ADVISE "\10\0\7\0\4\0\0\0\5\10\0\7\0\4", "inside of a package");
    RECORDS(ADVISE "\10\0\4\0\0", "outside of a package");
    RECORDS(ADVISE "\10\0\7\0\4\0\0\0\5\10\0\4\0\0", "stream ends");
}

#define CHIP "Section 'bus/1/chip' instance 0"
#define CHIP_START "\4\0\0\0\2\4chip\0\0\0\0\0\0\0\3"

/* The error has what the device and VMState report, and where. */
static void test_reasons(void)
{
    RECORDS("\4\0\0\0\2\4chip\0\0\0\0\0\0\0\1",
            CHIP ": chip: incoming version_id 1 is too old");
    RECORDS(CHIP_START "\0\0\x0b\xad" "\0\0\0\0",
            CHIP ": post_load of chip (version 3) failed: -22: control bad is "
            "reserved: Invalid argument");
    RECORDS(CHIP_START "\0\0\xba\xde" "\0\0\0\0",
            CHIP ": post_load of chip (version 3) failed: -22: Invalid");
    RECORDS(CHIP_START, CHIP ": Failed to load chip:fifo: ");
    RECORDS(CHIP_START "\0\0\0\0" "\0\0\0\0" "\5\7chip/no\0\0\0\1",
            CHIP ": chip: unknown subsection 'chip/no'");
    RECORDS(CHIP_START "\0\0\0\0" "\0\0\0\0" "\5\10chip/\033[J\0\0\0\1",
            CHIP ": chip: unknown subsection 'chip/\\033[J'");
    RECORDS(CHIP_START "\0\0\0\0" "\0\0\0\0" "\5\3x\n/\0\0\0\1",
            CHIP " has a subsection 'x\\n/' that is unknown here");
    RECORDS(CHIP_START "\0\0\0\0" "\0\0\0\0" "\5\14chip/pending\0\0\0\2",
            CHIP ": Failed to load subsection chip/pending: chip/pending: "
            "incoming version_id 2 is too new");
}

/* What LISTEN and RUN do to the stream around their package. */
static void test_leave(void)
{
    static const uint8_t bytes[] =
        ADVISE "\10\0\7\0\4\0\0\0\12" "\10\0\4\0\0" "\10\0\5\0\0" "\x55";
    QEMUFile *f = test_input(bytes, sizeof(bytes) - 1);
    DeviceLoad load;

    load_step_begin(STEP_PRECOPY);
    commands_seen = 0;
    device_load_init(&load, &load_ops, NULL);
    g_assert_true(device_load_records(&load, f, &error_abort));
    g_assert_cmpuint(commands_seen, ==,
                     1u << WIRE_CMD_POSTCOPY_ADVISE | 1u << WIRE_CMD_PACKAGED |
                     1u << WIRE_CMD_POSTCOPY_LISTEN |
                     1u << WIRE_CMD_POSTCOPY_RUN);
    /* What follows is somebody else's. */
    g_assert_cmpuint(qemu_get_byte(f), ==, 0x55);
    device_load_destroy(&load);
    qemu_fclose(f);
}

/* A configuration that differs is read to its end; one that is broken not. */
static void test_differs(void)
{
    g_autoptr(GByteArray) s = machine_stream(true, false);
    bool caps[MIGRATION_CAPABILITY__MAX] = {
        [MIGRATION_CAPABILITY_X_IGNORE_SHARED] = true
    };
    Configuration other = here;
    Error *err = NULL;
    bool differs = false;
    QEMUFile *f = test_input(s->data, s->len);

    other.machine = "testbed-2.0";
    other.capabilities = caps;
    g_assert_true(device_load_header(f, NULL, &error_abort));
    g_assert_false(configuration_load(f, &other, &differs, &err));
    g_assert_true(differs);
    g_assert_nonnull(strstr(error_get_pretty(err), "'testbed-1.0' on the "
                            "source and 'testbed-2.0' here; capability "
                            "x-ignore-shared is off on the source"));
    error_free(err);
    err = NULL;
    g_assert_cmpint(qemu_get_byte(f), ==, WIRE_SECTION_START);
    qemu_fclose(f);

    differs = false;
    f = test_input(s->data, 20);
    g_assert_true(device_load_header(f, NULL, &error_abort));
    g_assert_false(configuration_load(f, &other, &differs, &err));
    g_assert_false(differs);
    error_free(err);
    qemu_fclose(f);
}

static void test_owner(void)
{
    refuse = true;
    RECORDS("", "the owner refused");
    refuse = false;
}

#define PASSING_FOOTER "p\x7e\0\0\0\x60"
#define PASSING "\1\0\0\0\x60\7passing\0\0\0\0\0\0\0\1" PASSING_FOOTER
#define PASSING_ON "\2\0\0\0\x60" PASSING_FOOTER

/* Returns why it failed, or NULL. */
static char *load_passing(int goes, const void *bytes, size_t len)
{
    QEMUFile *f = test_input(bytes, len);
    DeviceLoad load;
    DeviceLoadStream stream = { .load = &load, .f = f };
    DeviceLoadStep step;
    Error *err = NULL;
    char *why = NULL;

    passing_comes();
    passing_goes = goes;
    device_load_init(&load, &load_ops, NULL);
    load.footers = true;
    step = device_load_some(&stream, false, &err);
    g_assert_cmpint(step, ==, DEVICE_LOAD_ELSEWHERE);
    if (goes == GOES_BEFORE) {
        passing_leaves();
    }
    step = device_load_some(&stream, true, &err);
    if (step == DEVICE_LOAD_FAILED) {
        why = g_strdup(error_get_pretty(err));
        error_free(err);
    } else {
        step = device_load_some(&stream, false, &error_abort);
        g_assert_cmpint(step, ==, DEVICE_LOAD_END);
    }
    device_load_destroy(&load);
    qemu_fclose(f);
    if (passing) {
        passing_leaves();
    }
    return why;
}

static void test_section_goes(void)
{
    static const uint8_t bytes[] = PASSING PASSING_ON;

    for (int goes = STAYS; goes <= GOES_BETWEEN; goes++) {
        g_autofree char *why = load_passing(goes, bytes, sizeof(bytes));

        if (goes == STAYS) {
            g_assert_null(why);
        } else {
            g_assert_nonnull(strstr(why, "was removed while"));
        }
    }
}

static void test_refuse_live(void)
{
    static const uint8_t bytes[] = DISK_START DISK_FOOTER;
    QEMUFile *f = test_input(bytes, sizeof(bytes) - 1);
    DeviceLoad load;
    Error *err = NULL;

    device_load_init(&load, &load_ops, NULL);
    load.refuse_live = true;
    g_assert_false(device_load_records(&load, f, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "must not be"));
    error_free(err);
    device_load_destroy(&load);
    qemu_fclose(f);
}

/* An error of a hook ends the saving, and stays in the stream. */
static void test_save_fails(void)
{
    QIOChannelBuffer *buffer = qio_channel_buffer_new(0);
    DeviceSave save = { .f = qemu_file_new_output(QIO_CHANNEL(buffer)) };
    Error *err = NULL;
    bool finished;

    machine_reset();
    disk.fail_with = -ENOSPC;
    g_assert_false(device_save_iterate(&save, false, &finished, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "section 'disk'"));
    g_assert_nonnull(strstr(error_get_pretty(err), strerror(ENOSPC)));
    g_assert_cmpint(qemu_file_get_error(save.f), ==, -ENOSPC);
    error_free(err);
    err = NULL;
    g_assert_false(device_save_setup(&save, 4096, &err));
    g_assert_nonnull(err);
    error_free(err);
    g_assert_false(device_save_complete(&save, false, NULL));
    qemu_fclose(save.f);
    object_unref(OBJECT(buffer));
}

static void test_pending(void)
{
    uint64_t must = 5, can = 5;

    machine_reset();
    disk.parts = 3;
    qemu_savevm_state_pending_exact(&must, &can);
    g_assert_cmpuint(must, ==, 3);
    g_assert_cmpuint(can, ==, 100);
    qemu_savevm_state_pending_estimate(&must, &can);
    g_assert_cmpuint(must + can, ==, 0);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    machine_create();
    g_test_add_func("/migration/device/round-trip", test_round_trip);
    g_test_add_func("/migration/device/format", test_format);
    g_test_add_func("/migration/device/description", test_description);
    g_test_add_func("/migration/device/cut", test_cut);
    g_test_add_func("/migration/device/flipped", test_flipped);
    g_test_add_func("/migration/device/lies", test_lies);
    g_test_add_func("/migration/device/reasons", test_reasons);
    g_test_add_func("/migration/device/differs", test_differs);
    g_test_add_func("/migration/device/leave", test_leave);
    g_test_add_func("/migration/device/owner", test_owner);
    g_test_add_func("/migration/device/section-goes", test_section_goes);
    g_test_add_func("/migration/device/refuse-live", test_refuse_live);
    g_test_add_func("/migration/device/save-fails", test_save_fails);
    g_test_add_func("/migration/device/pending", test_pending);
    return g_test_run();
}
