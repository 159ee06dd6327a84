/*
 * Unit tests of comparing saved states: what each byte is called, and which
 * differences are found
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "setup.h"
#include "qobject/json-writer.h"
#include "migration/check/state-compare.h"
#include "migration/check/state-fields.h"
#include "migration/check/state-volatile.h"
#include "migration/vmstate.h"

/*
 * Names, by descriptions that are written here
 */

static void check_field(const GArray *fields, unsigned i, const char *name,
                        size_t at, size_t size)
{
    const StateField *f = &g_array_index(fields, StateField, i);
    g_autofree char *full = g_strdup_printf("%s/%s", f->section, f->path);

    g_assert_cmpuint(i, <, fields->len);
    g_assert_cmpstr(full, ==, name);
    g_assert_cmpuint(f->at, ==, at);
    g_assert_cmpuint(f->size, ==, size);
}

static void test_names(void)
{
    const char *text =
        "{ 'name': 'x', 'instance_id': 0, 'vmsd_name': 'nic', 'version': 1,"
        "  'fields': ["
        "    { 'name': 'one', 'type': 'uint32', 'size': 4 },"
        "    { 'name': 'nothing', 'type': 'buffer', 'size': 0 },"
        "    { 'name': 'all', 'array_len': 3, 'type': 'uint16', 'size': 2 },"
        "    { 'name': 'each', 'index': 0, 'type': 'uint8', 'size': 1 },"
        "    { 'name': 'each', 'index': 1, 'type': 'uint8', 'size': 1 },"
        "    { 'name': 'ring', 'array_len': 2, 'type': 'struct', 'size': 5,"
        "      'struct': { 'vmsd_name': 'ring', 'version': 1, 'fields': ["
        "        { 'name': 'head', 'type': 'uint32', 'size': 4 },"
        "        { 'name': 'on', 'type': 'bool', 'size': 1 } ] } },"
        "    { 'name': 'inner', 'type': 'vstruct', 'vmsd_name': 'inner',"
        "      'version': 2, 'size': 8, 'fields': ["
        "        { 'name': 'low', 'type': 'uint32', 'size': 4 },"
        "        { 'name': 'high', 'type': 'uint32', 'size': 4 } ] },"
        "    { 'name': 'queue', 'type': 'qtailq', 'vmsd_name': 'entry',"
        "      'version': 1, 'size': 6, 'fields': ["
        "        { 'name': 'a', 'type': 'uint32', 'size': 4 } ] } ],"
        "  'subsections': [ { 'vmsd_name': 'nic/more', 'version': 1,"
        "     'fields': [ { 'name': 'm', 'type': 'uint8', 'size': 1 } ],"
        "     'subsections': [ { 'vmsd_name': 'nic/more/still', 'version': 1,"
        "       'fields': [ { 'name': 's', 'type': 'uint8', 'size': 1 } ] } ]"
        "  } ] }";
    size_t more = 36 + 6 + strlen("nic/more");
    size_t still = more + 1 + 6 + strlen("nic/more/still");
    g_autoptr(GArray) fields = state_fields("x", text, still + 1);

    check_field(fields, 0, "nic/one", 0, 4);
    check_field(fields, 1, "nic/all[0]", 4, 2);
    check_field(fields, 3, "nic/all[2]", 8, 2);
    check_field(fields, 4, "nic/each[0]", 10, 1);
    check_field(fields, 5, "nic/each[1]", 11, 1);
    check_field(fields, 6, "nic/ring[0].head", 12, 4);
    check_field(fields, 9, "nic/ring[1].on", 21, 1);
    check_field(fields, 10, "nic/inner.low", 22, 4);
    check_field(fields, 11, "nic/inner.high", 26, 4);
    check_field(fields, 12, "nic/queue", 30, 6);
    check_field(fields, 13, "nic/more/m", more, 1);
    check_field(fields, 14, "nic/more/still/s", still, 1);
    g_assert_cmpuint(fields->len, ==, 15);
}

static void test_repeated(void)
{
    const char *text =
        "{ 'vmsd_name': 'd', 'version': 1, 'fields': ["
        "    { 'name': 'pad', 'type': 'unused', 'size': 2 },"
        "    { 'name': 'pad', 'type': 'unused', 'size': 2 } ] }";
    g_autoptr(GArray) fields = state_fields("x", text, 4);

    check_field(fields, 0, "d/pad", 0, 2);
    check_field(fields, 1, "d/pad#2", 2, 2);
}

/* All of the state is one field then. */
static void whole(const char *text, size_t len)
{
    g_autoptr(GArray) fields = state_fields("dev", text, len);

    g_assert_cmpuint(fields->len, ==, !!len);
    if (len) {
        check_field(fields, 0, "dev/", 0, len);
    }
}

static void test_bad_descriptions(void)
{
    g_autoptr(GString) deep = g_string_new("{ 'fields': [");

    whole("", 5);
    whole("{", 5);
    whole("[]", 5);
    whole("{}", 5);
    whole("{}", 0);
    whole("{ 'fields': 1 }", 5);
    whole("{ 'fields': [ 1 ] }", 5);
    whole("{ 'fields': [ { 'size': 5 } ] }", 5);
    whole("{ 'fields': [ { 'name': 'a' } ] }", 5);
    whole("{ 'fields': [ { 'name': 'a', 'size': 'b' } ] }", 5);
    whole("{ 'fields': [ { 'name': 'a', 'size': -1 } ] }", 5);
    whole("{ 'fields': [ { 'name': 'a', 'size': 4 } ] }", 5);
    whole("{ 'fields': [ { 'name': 'a', 'size': 6 } ] }", 5);
    whole("{ 'fields': [ { 'name': 'a', 'size': 9223372036854775807 } ] }", 5);
    whole("{ 'fields': [ { 'name': 'a', 'size': 5 },"
          "              { 'name': 'a', 'size': 9223372036854775807 } ] }", 5);
    whole("{ 'fields': [ { 'name': 'a', 'size': 1, 'array_len': 6 } ] }", 5);
    whole("{ 'fields': [ { 'name': 'a', 'size': 0,"
          "                'array_len': 9223372036854775807 } ] }", 5);
    whole("{ 'fields': [], 'subsections': [ {} ] }", 5);
    whole("{ 'fields': [], 'subsections': [ { 'vmsd_name': 'a' } ] }", 5);
    /* What QTAILQs of several elements look like */
    whole("{ 'fields': [ { 'name': 'a', 'size': 5, 'fields': [],"
          "                'fields': [] } ] }", 5);
    for (unsigned i = 0; i < 2 * STATE_FIELDS_DEPTH_MAX; i++) {
        g_string_append(deep, "{ 'name': 'a', 'size': 4, 'fields': [");
    }
    for (unsigned i = 0; i < 2 * STATE_FIELDS_DEPTH_MAX; i++) {
        g_string_append(deep, "] }");
    }
    g_string_append(deep, "] }");
    whole(deep->str, 5);
}

/*
 * Differences, by descriptions and states that vmstate.c has written
 */

typedef struct Ring {
    uint16_t head;
    uint8_t slots[20];
} Ring;

typedef struct Nic {
    uint32_t control;
    uint64_t address;
    Ring rings[2];
    bool has_extra;
    uint32_t extra;
} Nic;

static bool extra_needed(void *opaque)
{
    return ((Nic *)opaque)->has_extra;
}

static const VMStateDescription vmstate_extra = {
    .name = "nic/extra",
    .version_id = 1,
    .needed = extra_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(extra, Nic),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_ring = {
    .name = "ring",
    .version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(head, Ring),
        VMSTATE_BUFFER(slots, Ring),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_nic = {
    .name = "nic",
    .version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(control, Nic),
        VMSTATE_UINT64(address, Nic),
        VMSTATE_STRUCT_ARRAY(rings, Nic, 2, 1, vmstate_ring, Ring),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &vmstate_extra,
        NULL
    },
};

typedef struct Saved {
    GByteArray *data;
    GArray *sections;
} Saved;

static Saved saved_new(void)
{
    return (Saved) {
        g_byte_array_new(), g_array_new(false, false, sizeof(SavedSection)),
    };
}

static void saved_free(Saved *s)
{
    for (unsigned i = 0; i < s->sections->len; i++) {
        SavedSection *section = &g_array_index(s->sections, SavedSection, i);

        g_free(section->name);
        g_free(section->description);
    }
    g_array_unref(s->sections);
    g_byte_array_unref(s->data);
}

static SavedBytes saved_bytes(const Saved *s)
{
    return (SavedBytes) { s->data->data, s->sections };
}

static void save_nic(Saved *s, const char *name, uint32_t instance_id,
                     Nic *nic)
{
    QIOChannelBuffer *out = qio_channel_buffer_new(0);
    QEMUFile *f = qemu_file_new_output(QIO_CHANNEL(out));
    g_autoptr(JSONWriter) desc = json_writer_new(false);
    SavedSection section = {
        .name = g_strdup(name), .instance_id = instance_id,
        .at = s->data->len,
    };

    json_writer_start_object(desc, NULL);
    g_assert_cmpint(vmstate_save_state(f, &vmstate_nic, nic, desc), ==, 0);
    json_writer_end_object(desc);
    qemu_fflush(f);
    section.len = out->usage;
    section.description = g_strdup(json_writer_get(desc));
    g_byte_array_append(s->data, out->data, out->usage);
    g_array_append_val(s->sections, section);
    qemu_fclose(f);
    object_unref(OBJECT(out));
}

static StateDifferences compare(const Saved *a, const Saved *b)
{
    SavedBytes before = saved_bytes(a), after = saved_bytes(b);

    return state_compare(&before, &after);
}

static StateDifferences compare_nics(Nic *was, Nic *is)
{
    Saved a = saved_new(), b = saved_new();
    StateDifferences d;

    save_nic(&a, "0000:00:02.0/nic", 0, was);
    save_nic(&b, "0000:00:02.0/nic", 0, is);
    d = compare(&a, &b);
    saved_free(&a);
    saved_free(&b);
    return d;
}

/* The next of @list is this one; it is taken off. */
static void next_is(VmstateDifferenceList **list, const char *where,
                    const char *before, const char *after)
{
    VmstateDifferenceList *first = *list;
    g_autofree char *place = NULL;

    g_assert_nonnull(first);
    place = g_strdup_printf("%s/%s", first->value->section,
                            first->value->field);
    g_assert_cmpstr(place, ==, where);
    g_assert_cmpstr(first->value->before, ==, before);
    g_assert_cmpstr(first->value->after, ==, after);
    *list = g_steal_pointer(&first->next);
    qapi_free_VmstateDifferenceList(first);
}

static void test_same(void)
{
    Nic nic = { .control = 7, .has_extra = true };
    StateDifferences d = compare_nics(&nic, &nic);

    g_assert_null(d.found);
    g_assert_null(d.expected);
    g_assert_cmpuint(d.count, ==, 0);
}

static void test_fields(void)
{
    Nic was = { .control = 7, .address = 1, .has_extra = true, .extra = 5 };
    Nic is = was;
    StateDifferences d;

    is.control = 0x12345678;
    is.rings[0].head = 0x102;
    is.rings[1].slots[3] = 0xaa;
    is.extra = 6;
    d = compare_nics(&was, &is);
    g_assert_cmpstr(d.found->value->device, ==, "0000:00:02.0/nic");
    g_assert_cmpuint(d.count, ==, 4);
    next_is(&d.found, "nic/control", "0x00000007", "0x12345678");
    next_is(&d.found, "nic/rings[0].head", "0x0000", "0x0102");
    next_is(&d.found, "nic/rings[1].slots",
            "+3:00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 ...",
            "+3:aa 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 ...");
    next_is(&d.found, "nic/extra/extra", "0x00000005", "0x00000006");
    g_assert_null(d.found);
}

static void test_subsection_goes(void)
{
    Nic with = { .has_extra = true, .extra = 5 };
    Nic without = {};
    StateDifferences d = compare_nics(&with, &without);

    next_is(&d.found, "nic/extra/extra", "0x00000005", "(absent)");
    g_assert_null(d.found);
    d = compare_nics(&without, &with);
    next_is(&d.found, "nic/extra/extra", "(absent)", "0x00000005");
    g_assert_null(d.found);
}

static void test_section_goes(void)
{
    Saved a = saved_new(), b = saved_new();
    Nic nic = {};
    StateDifferences d;

    save_nic(&a, "stays", 0, &nic);
    save_nic(&a, "goes", 0, &nic);
    save_nic(&a, "same", 1, &nic);
    save_nic(&b, "same", 2, &nic);
    save_nic(&b, "stays", 0, &nic);
    d = compare(&a, &b);
    g_assert_cmpuint(d.count, ==, 3);
    next_is(&d.found, "goes/", "(saved)", "(absent)");
    g_assert_cmpuint(d.found->value->instance_id, ==, 1);
    next_is(&d.found, "same/", "(saved)", "(absent)");
    g_assert_cmpuint(d.found->value->instance_id, ==, 2);
    next_is(&d.found, "same/", "(absent)", "(saved)");
    g_assert_null(d.found);
    saved_free(&a);
    saved_free(&b);
}

/* Many are counted; what is kept has a limit. */
static void test_many(void)
{
    unsigned devices = STATE_DIFFERENCES_MAX + 50;
    Saved a = saved_new(), b = saved_new();
    Nic was = {}, is = { .control = 1 };
    StateDifferences d;
    unsigned kept = 0;

    for (unsigned i = 0; i < devices; i++) {
        save_nic(&a, "nic", i, &was);
        save_nic(&b, "nic", i, &is);
    }
    d = compare(&a, &b);
    g_assert_cmpuint(d.count, ==, devices);
    for (VmstateDifferenceList *l = d.found; l; l = l->next) {
        kept++;
    }
    g_assert_cmpuint(kept, ==, STATE_DIFFERENCES_MAX);
    qapi_free_VmstateDifferenceList(d.found);
    saved_free(&a);
    saved_free(&b);
}

static void test_values(void)
{
    const uint8_t bytes[] = { 0, 0, 1, 2, 3, 4, 5, 6, 7, 8 };
    const struct {
        const char *type;
        size_t size;
        const char *text;
    } values[] = {
        { "uint32", 4, "0x00000102" },
        { "int64", 8, "0x0000010203040506" },
        { "timer", 8, "0x0000010203040506" },
        { "uint64", 10, "00 00 01 02 03 04 05 06 07 08" },
        { "bool", 1, "00" },
        { "buffer", 3, "00 00 01" },
        { "uint8", 0, "" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        g_autofree char *text = state_value(values[i].type, bytes, NULL,
                                            values[i].size);

        g_assert_cmpstr(text, ==, values[i].text);
    }
}

/* The table is in use, and what it does not have is a difference. */
static void test_volatile(void)
{
    g_assert_nonnull(state_volatile("mc146818rtc", "cmos_data", 1));
    g_assert_nonnull(state_volatile("mc146818rtc", "cmos_data", 10));
    g_assert_null(state_volatile("mc146818rtc", "cmos_data", 11));
    g_assert_null(state_volatile("mc146818rtc", "base_rtc", 1));
    g_assert_null(state_volatile("nic", "cmos_data", 1));
}

static void save_cmos(Saved *s, uint8_t *cmos)
{
    SavedSection section = {
        .name = g_strdup("rtc"), .at = s->data->len, .len = 128,
        .description = g_strdup("{ 'vmsd_name': 'mc146818rtc', 'version': 3,"
                                "  'fields': [ { 'name': 'cmos_data',"
                                "    'type': 'buffer', 'size': 128 } ] }"),
    };

    g_byte_array_append(s->data, cmos, 128);
    g_array_append_val(s->sections, section);
}

/* It is about the first bytes of that field only. */
static void test_expected(void)
{
    uint8_t cmos[128] = {};
    Saved a = saved_new(), b = saved_new(), c = saved_new();
    StateDifferences d;

    save_cmos(&a, cmos);
    cmos[0] = 1;
    save_cmos(&b, cmos);
    cmos[20] = 1;
    save_cmos(&c, cmos);
    d = compare(&a, &b);
    g_assert_null(d.found);
    g_assert_cmpuint(d.count, ==, 0);
    g_assert_nonnull(d.expected->value->reason);
    qapi_free_VmstateDifferenceList(d.expected);
    d = compare(&a, &c);
    g_assert_null(d.expected);
    g_assert_cmpuint(d.count, ==, 1);
    qapi_free_VmstateDifferenceList(d.found);
    saved_free(&a);
    saved_free(&b);
    saved_free(&c);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/migration/check/fields/names", test_names);
    g_test_add_func("/migration/check/fields/repeated", test_repeated);
    g_test_add_func("/migration/check/fields/bad", test_bad_descriptions);
    g_test_add_func("/migration/check/compare/same", test_same);
    g_test_add_func("/migration/check/compare/fields", test_fields);
    g_test_add_func("/migration/check/compare/subsection",
                    test_subsection_goes);
    g_test_add_func("/migration/check/compare/section", test_section_goes);
    g_test_add_func("/migration/check/compare/many", test_many);
    g_test_add_func("/migration/check/compare/values", test_values);
    g_test_add_func("/migration/check/compare/volatile", test_volatile);
    g_test_add_func("/migration/check/compare/expected", test_expected);
    return g_test_run();
}
