/*
 * Unit tests of the packets of multifd: as bytes, and what is refused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "setup.h"
#include "migration/wire/packet.h"

#define CHANNELS 4
#define PAGES_MAX 128

static const QemuUUID uuid = {
    .data = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
};

/* @err has @text in it, and is freed. */
static void assert_says(Error *err, const char *text)
{
    g_assert_nonnull(err);
    g_assert_nonnull(strstr(error_get_pretty(err), text));
    g_assert_null(strchr(error_get_pretty(err), '\n'));
    error_free(err);
}

/*
 * The beginning of a channel
 */

static void test_init_bytes(void)
{
    static const uint8_t bytes[64] = {
        0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1,
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 200,
    };
    WireMultifdInit init;

    memset(&init, 0xff, sizeof(init));
    packet_fill_init(&init, &uuid, 200, 0);
    g_assert_cmpmem(&init, sizeof(init), bytes, sizeof(bytes));
    g_assert_true(packet_begins_channel((uint8_t *)&init));
}

static void test_init(void)
{
    WireMultifdInit init;

    for (unsigned id = 0; id < 255; id++) {
        unsigned found = 1000;

        packet_fill_init(&init, &uuid, id, 0);
        g_assert_true(packet_check_init(&init, &uuid, id + 1, &found,
                                        &error_abort));
        g_assert_cmpuint(found, ==, id);
    }
    /* What is not used may have any value. */
    packet_fill_init(&init, &uuid, 1, 0);
    memset(init.unused, 0xff, sizeof(init.unused));
    g_assert_true(packet_check_init(&init, &uuid, 2, &(unsigned) { 0 },
                                    &error_abort));
}

static void refuse_init(const WireMultifdInit *init, unsigned channels,
                        const char *text)
{
    unsigned id = 77;
    Error *err = NULL;

    g_assert_false(packet_check_init(init, &uuid, channels, &id, &err));
    g_assert_cmpuint(id, ==, 77);
    assert_says(err, text);
}

static void test_init_refused(void)
{
    WireMultifdInit good, init;

    packet_fill_init(&good, &uuid, 3, 0);

    init = good;
    stl_be_p(&init.magic, 0x44332211);
    refuse_init(&init, CHANNELS, "0x44332211");
    init = good;
    stl_be_p(&init.version, 2);
    refuse_init(&init, CHANNELS, "version 2");
    init = good;
    stl_be_p(&init.version, 0);
    refuse_init(&init, CHANNELS, "version 0");
    init = good;
    stl_be_p(&init.version, UINT32_MAX);
    refuse_init(&init, CHANNELS, "version 4294967295");

    refuse_init(&good, 3, "'multifd-channels'");
    refuse_init(&good, 1, "'multifd-channels'");
    init = good;
    init.channel = 255;
    refuse_init(&init, 255, "Channel 255");
}

static void test_init_uuid(void)
{
    WireMultifdInit init;

    for (unsigned i = 0; i < sizeof(uuid.data); i++) {
        packet_fill_init(&init, &uuid, 0, 0);
        init.uuid[i] ^= 0x80;
        refuse_init(&init, CHANNELS, "01020304-0506-0708-090a-0b0c0d0e0f10");
    }
    packet_fill_init(&init, &(QemuUUID) { }, 0, 0);
    refuse_init(&init, CHANNELS, "00000000-0000-0000-0000-000000000000");
}

static void test_first_bytes(void)
{
    static const uint8_t others[][4] = {
        { 'Q', 'E', 'V', 'M' }, { 'G', 'E', 'T', ' ' }, { 0, 0, 0, 0 },
        { 0x44, 0x33, 0x22, 0x11 }, { 0x11, 0x22, 0x33, 0x45 },
        { 0x10, 0x22, 0x33, 0x44 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
        g_assert_false(packet_begins_channel(others[i]));
    }
}

/*
 * A packet
 */

static void test_bytes(void)
{
    static const uint8_t bytes[64] = {
        0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1, 0, 0, 0, 0x05,
        0, 0, 0, 128, 0, 0, 0, 3, 0, 0, 0x30, 0,
        1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 2,
    };
    Packet packet = {
        .flags = WIRE_MULTIFD_SYNC | WIRE_MULTIFD_ZSTD, .pages_max = 128,
        .normal = 3, .zeros = 2, .payload = 0x3000,
        .sequence = 0x0102030405060708,
    };
    WireMultifdPages wire;

    memset(&wire, 0xff, sizeof(wire));
    packet_fill(&wire, &packet, "pc.ram");
    g_assert_cmpmem(&wire, 64, bytes, sizeof(bytes));
    g_assert_cmpstr(wire.block, ==, "pc.ram");
    g_assert_true(buffer_is_zero(wire.block + 6, sizeof(wire.block) - 6));

    memset(&wire, 0xff, sizeof(wire));
    packet_fill(&wire, &packet, NULL);
    g_assert_true(buffer_is_zero(wire.block, sizeof(wire.block)));
}

static void test_back(void)
{
    static const Packet packets[] = {
        { .flags = 0 },
        { .flags = WIRE_MULTIFD_SYNC, .sequence = UINT64_MAX },
        { .flags = WIRE_MULTIFD_FLAGS },
        { .pages_max = PAGES_MAX, .normal = PAGES_MAX,
          .payload = WIRE_MULTIFD_PACKET_MEMORY },
        { .pages_max = PAGES_MAX, .zeros = PAGES_MAX },
        { .pages_max = PAGES_MAX, .normal = 1, .zeros = PAGES_MAX - 1 },
        { .flags = WIRE_MULTIFD_ZLIB, .pages_max = 1, .normal = 1,
          .payload = WIRE_MULTIFD_PAYLOAD_MAX },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(packets); i++) {
        WireMultifdPages wire;
        Packet found;

        packet_fill(&wire, &packets[i], "pc.ram");
        memset(&found, 0xff, sizeof(found));
        g_assert_true(packet_check(&wire, PAGES_MAX, &found, &error_abort));
        g_assert_cmpuint(found.flags, ==, packets[i].flags);
        g_assert_cmpuint(found.pages_max, ==, packets[i].pages_max);
        g_assert_cmpuint(found.normal, ==, packets[i].normal);
        g_assert_cmpuint(found.zeros, ==, packets[i].zeros);
        g_assert_cmpuint(found.payload, ==, packets[i].payload);
        g_assert_cmpuint(found.sequence, ==, packets[i].sequence);
    }
}

static void refuse(const WireMultifdPages *wire, const char *text)
{
    Error *err = NULL;
    Packet packet;

    g_assert_false(packet_check(wire, PAGES_MAX, &packet, &err));
    assert_says(err, text);
}

static WireMultifdPages filled(void)
{
    Packet packet = {
        .pages_max = PAGES_MAX, .normal = 2, .zeros = 3, .payload = 8192,
    };
    WireMultifdPages wire;

    packet_fill(&wire, &packet, "pc.ram");
    g_assert_true(packet_check(&wire, PAGES_MAX, &packet, &error_abort));
    return wire;
}

static void test_head(void)
{
    WireMultifdPages wire = filled();

    stl_be_p(&wire.head.magic, WIRE_FILE_MAGIC);
    refuse(&wire, "the stream is damaged");
    wire = filled();
    stl_be_p(&wire.head.version, 7);
    refuse(&wire, "version 7");
    for (unsigned bit = 0; bit < 32; bit++) {
        if (!((WIRE_MULTIFD_FLAGS | WIRE_MULTIFD_RECORDS) >> bit & 1)) {
            wire = filled();
            stl_be_p(&wire.head.flags, 1u << bit);
            refuse(&wire, "unknown flags");
        }
    }
}

/* Also where a sum of them is too large for 32 bits */
static void test_counts(void)
{
    static const struct {
        uint32_t max, normal, zeros;
        const char *text;
    } lies[] = {
        { PAGES_MAX + 1, 0, 0, "at most 128" },
        { UINT32_MAX, 0, 0, "at most 128" },
        { UINT32_MAX, UINT32_MAX, 0, "at most 128" },
        { PAGES_MAX, PAGES_MAX + 1, 0, "room for 128" },
        { PAGES_MAX, 0, PAGES_MAX + 1, "room for 128" },
        { PAGES_MAX, 1, PAGES_MAX, "room for 128" },
        { PAGES_MAX, PAGES_MAX, 1, "room for 128" },
        { PAGES_MAX, UINT32_MAX, 1, "room for 128" },
        { PAGES_MAX, 1, UINT32_MAX, "room for 128" },
        { PAGES_MAX, 2, UINT32_MAX - 1, "room for 128" },
        { PAGES_MAX, UINT32_MAX, UINT32_MAX, "room for 128" },
        { PAGES_MAX, 1u << 31, 1u << 31, "room for 128" },
        { 0, 1, 0, "room for 0" },
        { 0, 0, 1, "room for 0" },
        { 5, 3, 3, "room for 5" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        WireMultifdPages wire = filled();

        stl_be_p(&wire.pages_max, lies[i].max);
        stl_be_p(&wire.normal_pages, lies[i].normal);
        stl_be_p(&wire.zero_pages, lies[i].zeros);
        refuse(&wire, lies[i].text);
    }
}

static void test_payload(void)
{
    static const uint32_t lies[] = {
        WIRE_MULTIFD_PAYLOAD_MAX + 1, 1u << 31, UINT32_MAX,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        WireMultifdPages wire = filled();
        g_autofree char *text = g_strdup_printf("%u bytes", lies[i]);

        stl_be_p(&wire.payload_len, lies[i]);
        refuse(&wire, text);
    }
}

static void test_block(void)
{
    WireMultifdPages wire = filled();
    Packet packet;

    memset(wire.block, 'x', sizeof(wire.block));
    refuse(&wire, "does not end");
    wire.block[sizeof(wire.block) - 1] = 0;
    g_assert_true(packet_check(&wire, PAGES_MAX, &packet, &error_abort));
}

/* The longest name that a block can have, and one that is longer */
static void test_long_name(void)
{
    g_autofree char *name = g_strnfill(300, 'n');
    Packet packet = { };
    WireMultifdPages wire;

    packet_fill(&wire, &packet, name);
    g_assert_true(packet_check(&wire, PAGES_MAX, &packet, &error_abort));
    g_assert_cmpuint(strlen(wire.block), ==, 255);
    name[255] = 0;
    packet_fill(&wire, &packet, name);
    g_assert_cmpstr(wire.block, ==, name);
}

static void test_pages_max(void)
{
    g_assert_cmpuint(packet_pages_max(12), ==, 128);
    g_assert_cmpuint(packet_pages_max(16), ==, 8);
    g_assert_cmpuint(packet_pages_max(10), ==, WIRE_MULTIFD_PAGES_MAX);
}

/* Whatever the bytes are, what passes keeps to the limits. */
static void test_noise(void)
{
    unsigned passed = 0;

    for (unsigned round = 0; round < 200000; round++) {
        WireMultifdPages wire = filled();
        uint8_t *bytes = (uint8_t *)&wire;
        Error *err = NULL;
        Packet p;

        for (int n = g_test_rand_int_range(1, 4); n; n--) {
            bytes[g_test_rand_int_range(8, 36)] = g_test_rand_int();
        }
        if (!packet_check(&wire, PAGES_MAX, &p, &err)) {
            error_free_or_abort(&err);
            continue;
        }
        passed++;
        g_assert_cmpuint(p.pages_max, <=, PAGES_MAX);
        g_assert_cmpuint((uint64_t)p.normal + p.zeros, <=, p.pages_max);
        g_assert_cmpuint(p.payload, <=, WIRE_MULTIFD_PAYLOAD_MAX);
        g_assert_cmpuint(p.flags & ~(WIRE_MULTIFD_FLAGS | WIRE_MULTIFD_RECORDS),
                         ==, 0);
    }
    g_assert_cmpuint(passed, >, 1000);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/packet/init/bytes", test_init_bytes);
    g_test_add_func("/packet/init/all", test_init);
    g_test_add_func("/packet/init/refused", test_init_refused);
    g_test_add_func("/packet/init/uuid", test_init_uuid);
    g_test_add_func("/packet/init/first-bytes", test_first_bytes);
    g_test_add_func("/packet/bytes", test_bytes);
    g_test_add_func("/packet/back", test_back);
    g_test_add_func("/packet/head", test_head);
    g_test_add_func("/packet/counts", test_counts);
    g_test_add_func("/packet/payload", test_payload);
    g_test_add_func("/packet/block", test_block);
    g_test_add_func("/packet/long-name", test_long_name);
    g_test_add_func("/packet/pages-max", test_pages_max);
    g_test_add_func("/packet/noise", test_noise);
    return g_test_run();
}
