/*
 * The wire's layouts, against bytes written down by hand
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "migration/wire/wire.h"

/* The bytes of a stream, and how many of them were looked at. */
typedef struct Cursor {
    const uint8_t *bytes;
    size_t len;
    size_t at;
} Cursor;

#define CURSOR(array) { .bytes = (array), .len = sizeof(array) }

static const void *take(Cursor *c, size_t len)
{
    const uint8_t *p = c->bytes + c->at;

    g_assert_cmpuint(c->at + len, <=, c->len);
    c->at += len;
    return p;
}

static void take_name(Cursor *c, const char *expected)
{
    size_t len = *(const uint8_t *)take(c, 1);

    g_assert_cmpuint(len, ==, strlen(expected));
    g_assert_cmpmem(take(c, len), len, expected, len);
}

static void assert_done(Cursor *c)
{
    g_assert_cmpuint(c->at, ==, c->len);
}

/* A stream with nothing in it but a device of one byte. */
static void test_main_channel(void)
{
    static const uint8_t bytes[] = {
        'Q', 'E', 'V', 'M', 0, 0, 0, 3,
        0x07, 0, 0, 0, 3, 'q', '3', '5',
        0x05, 26, 'c', 'o', 'n', 'f', 'i', 'g', 'u', 'r', 'a', 't', 'i', 'o',
        'n', '/', 'c', 'a', 'p', 'a', 'b', 'i', 'l', 'i', 't', 'i', 'e', 's',
        0, 0, 0, 1, 0, 0, 0, 1, 10, 'm', 'a', 'p', 'p', 'e', 'd', '-', 'r',
        'a', 'm',
        0x04, 0, 0, 0, 9, 3, 'd', 'e', 'v', 0, 0, 0, 2, 0, 0, 0, 5, 0xaa,
        0x7e, 0, 0, 0, 9,
        0x00,
        0x06, 0, 0, 0, 2, '{', '}',
    };
    Cursor c = CURSOR(bytes);

    const WireFileHeader *head = take(&c, sizeof(*head));
    g_assert_cmphex(ldl_be_p(&head->magic), ==, WIRE_FILE_MAGIC);
    g_assert_cmphex(ldl_be_p(&head->version), ==, WIRE_FILE_VERSION);

    const WireConfiguration *conf = take(&c, sizeof(*conf));
    g_assert_cmphex(conf->type, ==, WIRE_CONFIGURATION);
    g_assert_cmpuint(ldl_be_p(&conf->machine_len), ==, 3);
    g_assert_cmpmem(take(&c, 3), 3, "q35", 3);
    const WireSubsection *sub = take(&c, sizeof(*sub));
    g_assert_cmphex(sub->type, ==, WIRE_SUBSECTION);
    take_name(&c, WIRE_CONFIG_CAPS);
    g_assert_cmpuint(ldl_be_p(take(&c, 4)), ==, WIRE_CONFIG_CAPS_VERSION);
    g_assert_cmpuint(ldl_be_p(take(&c, 4)), ==, 1);
    take_name(&c, "mapped-ram");

    const WireSection *section = take(&c, sizeof(*section));
    g_assert_cmphex(section->type, ==, WIRE_SECTION_FULL);
    g_assert_cmpuint(ldl_be_p(&section->section_id), ==, 9);
    take_name(&c, "dev");
    const WireSectionInstance *instance = take(&c, sizeof(*instance));
    g_assert_cmpuint(ldl_be_p(&instance->instance_id), ==, 2);
    g_assert_cmpuint(ldl_be_p(&instance->version_id), ==, 5);
    take(&c, 1);
    const WireSectionFooter *footer = take(&c, sizeof(*footer));
    g_assert_cmphex(footer->type, ==, WIRE_SECTION_FOOTER);
    g_assert_cmpuint(ldl_be_p(&footer->section_id), ==, 9);

    g_assert_cmphex(*(const uint8_t *)take(&c, 1), ==, WIRE_EOF);
    const WireVmDescription *text = take(&c, sizeof(*text));
    g_assert_cmphex(text->type, ==, WIRE_VMDESCRIPTION);
    take(&c, ldl_be_p(&text->len));
    assert_done(&c);
}

static size_t take_command(Cursor *c, unsigned command)
{
    const WireCommand *cmd = take(c, sizeof(*cmd));

    g_assert_cmphex(cmd->type, ==, WIRE_COMMAND);
    g_assert_cmpuint(lduw_be_p(&cmd->command), ==, command);
    return lduw_be_p(&cmd->len);
}

static void test_commands(void)
{
    static const uint8_t bytes[] = {
        8, 0, 1, 0, 0,
        8, 0, 2, 0, 4, 0, 0, 0, 1,
        8, 0, 3, 0, 16, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0,
        8, 0, 6, 0, 23, 0, 4, 'p', 'c', '.', 'r', 0,
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0,
        8, 0, 7, 0, 4, 0, 0, 0, 7,
        8, 0, 4, 0, 0,
        8, 0, 5, 0, 0,
        8, 0, 10, 0, 3, 2, 'v', 'm',
        8, 0, 9, 0, 0,
        8, 0, 8, 0, 0,
        8, 0, 11, 0, 0,
    };
    Cursor c = CURSOR(bytes);

    g_assert_cmpuint(take_command(&c, WIRE_CMD_OPEN_RETURN_PATH), ==,
                     WIRE_CMD_OPEN_RETURN_PATH_LEN);
    g_assert_cmpuint(take_command(&c, WIRE_CMD_PING), ==, WIRE_CMD_PING_LEN);
    const WirePing *ping = take(&c, sizeof(*ping));
    g_assert_cmpuint(ldl_be_p(&ping->value), ==, WIRE_PING_START);

    g_assert_cmpuint(take_command(&c, WIRE_CMD_POSTCOPY_ADVISE), ==,
                     WIRE_CMD_POSTCOPY_ADVISE_LEN);
    const WirePostcopyAdvise *advise = take(&c, sizeof(*advise));
    g_assert_cmphex(ldq_be_p(&advise->host_page_sizes), ==, 0x1000);
    g_assert_cmphex(ldq_be_p(&advise->target_page_size), ==, 0x2000);

    size_t len = take_command(&c, WIRE_CMD_POSTCOPY_DISCARD), start = c.at;
    g_assert_cmpuint(len, >=, WIRE_CMD_POSTCOPY_DISCARD_MIN);
    const WirePostcopyDiscard *discard = take(&c, sizeof(*discard));
    g_assert_cmpuint(discard->version, ==, WIRE_POSTCOPY_DISCARD_VERSION);
    take_name(&c, "pc.r");
    g_assert_cmphex(*(const uint8_t *)take(&c, 1), ==, 0);
    const WireRange *range = take(&c, sizeof(*range));
    g_assert_cmphex(ldq_be_p(&range->start), ==, 0x100000000ull);
    g_assert_cmphex(ldq_be_p(&range->len), ==, 0x1000);
    g_assert_cmpuint(c.at, ==, start + len);

    g_assert_cmpuint(take_command(&c, WIRE_CMD_PACKAGED), ==,
                     WIRE_CMD_PACKAGED_LEN);
    const WirePackaged *packaged = take(&c, sizeof(*packaged));
    g_assert_cmpuint(ldl_be_p(&packaged->len), ==, 7);

    g_assert_cmpuint(take_command(&c, WIRE_CMD_POSTCOPY_LISTEN), ==,
                     WIRE_CMD_POSTCOPY_LISTEN_LEN);
    g_assert_cmpuint(take_command(&c, WIRE_CMD_POSTCOPY_RUN), ==,
                     WIRE_CMD_POSTCOPY_RUN_LEN);
    g_assert_cmpuint(take_command(&c, WIRE_CMD_RECV_BITMAP), ==, 3);
    take_name(&c, "vm");
    g_assert_cmpuint(take_command(&c, WIRE_CMD_POSTCOPY_RESUME), ==,
                     WIRE_CMD_POSTCOPY_RESUME_LEN);
    g_assert_cmpuint(take_command(&c, WIRE_CMD_ENABLE_COLO), ==,
                     WIRE_CMD_ENABLE_COLO_LEN);
    g_assert_cmpuint(take_command(&c, WIRE_CMD_SWITCHOVER_START), ==,
                     WIRE_CMD_SWITCHOVER_START_LEN);
    assert_done(&c);
}

static size_t take_return(Cursor *c, unsigned type)
{
    const WireReturn *message = take(c, sizeof(*message));

    g_assert_cmpuint(lduw_be_p(&message->type), ==, type);
    g_assert_cmpuint(lduw_be_p(&message->len), <=, WIRE_RP_PAYLOAD_MAX);
    return lduw_be_p(&message->len);
}

static void assert_value(Cursor *c, uint32_t value)
{
    const WireReturnValue *payload = take(c, sizeof(*payload));

    g_assert_cmpuint(ldl_be_p(&payload->value), ==, value);
}

static void test_return_path(void)
{
    static const uint8_t bytes[] = {
        0, 2, 0, 4, 0, 0, 0, 3,
        0, 3, 0, 19, 0, 0, 0, 2, 0, 0, 0x30, 0, 0, 0, 0x10, 0,
        6, 'p', 'c', '.', 'r', 'a', 'm',
        0, 4, 0, 12, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0x20, 0, 0,
        0, 5, 0, 3, 2, 'v', 'm',
        0, 0, 0, 0, 0, 0, 0, 8, 0xff, 0, 0, 0, 0, 0, 0, 0x80,
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
        0, 6, 0, 4, 0, 0, 0, 1,
        0, 7, 0, 0,
        0, 1, 0, 4, 0, 0, 0, 0,
    };
    Cursor c = CURSOR(bytes);
    const WireRequestPages *request;

    g_assert_cmpuint(take_return(&c, WIRE_RP_PONG), ==, WIRE_RP_PONG_LEN);
    assert_value(&c, WIRE_PING_DEVICES_LOADED);

    g_assert_cmpuint(take_return(&c, WIRE_RP_REQ_PAGES_ID), ==,
                     WIRE_RP_REQ_PAGES_ID_MIN + strlen("pc.ram"));
    request = take(&c, sizeof(*request));
    g_assert_cmphex(ldq_be_p(&request->start), ==, 0x200003000ull);
    g_assert_cmphex(ldl_be_p(&request->len), ==, 0x1000);
    take_name(&c, "pc.ram");

    g_assert_cmpuint(take_return(&c, WIRE_RP_REQ_PAGES), ==,
                     WIRE_RP_REQ_PAGES_LEN);
    request = take(&c, sizeof(*request));
    g_assert_cmphex(ldq_be_p(&request->start), ==, 0x200000);
    g_assert_cmphex(ldl_be_p(&request->len), ==, 0x200000);

    g_assert_cmpuint(take_return(&c, WIRE_RP_RECV_BITMAP), ==,
                     WIRE_RP_RECV_BITMAP_MIN + 2);
    take_name(&c, "vm");
    const WireRecvBitmap *bitmap = take(&c, sizeof(*bitmap));
    take(&c, ldq_be_p(&bitmap->len));
    g_assert_cmphex(ldq_be_p(take(&c, 8)), ==, WIRE_RECV_BITMAP_END);

    g_assert_cmpuint(take_return(&c, WIRE_RP_RESUME_ACK), ==,
                     WIRE_RP_RESUME_ACK_LEN);
    assert_value(&c, WIRE_RESUME_ACK_OK);
    g_assert_cmpuint(take_return(&c, WIRE_RP_SWITCHOVER_ACK), ==,
                     WIRE_RP_SWITCHOVER_ACK_LEN);
    g_assert_cmpuint(take_return(&c, WIRE_RP_SHUT), ==, WIRE_RP_SHUT_LEN);
    assert_value(&c, WIRE_SHUT_OK);
    assert_done(&c);
}

static uint64_t take_ram(Cursor *c, unsigned flags)
{
    uint64_t record = ldq_be_p(take(c, 8));

    g_assert_cmphex(record & WIRE_RAM_FLAGS, ==, flags);
    return record & ~(uint64_t)WIRE_RAM_FLAGS;
}

static void test_ram(void)
{
    static const uint8_t bytes[] = {
        0, 0, 0, 1, 0, 0, 0, 0x04,
        6, 'p', 'c', '.', 'r', 'a', 'm', 0, 0, 0, 1, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0x0c, 0, 0,      /* as with x-ignore-shared */
        0, 0, 0, 0, 0, 0, 0x20, 0x02, 6, 'p', 'c', '.', 'r', 'a', 'm', 0,
        0, 0, 0, 0, 0, 0, 0x30, 0x22, 0,
        0, 0, 0, 0, 0, 0, 0x40, 0x60, 1, 0, 3, 0xa, 0xb, 0xc,
        0, 0, 0, 0, 0, 0, 0x02, 0x00,
        0, 0, 0, 0, 0, 0, 0, 0x10,
    };
    Cursor c = CURSOR(bytes);

    g_assert_cmphex(take_ram(&c, WIRE_RAM_MEM_SIZE), ==, 0x100000000ull);
    take_name(&c, "pc.ram");
    const WireRamBlock *block = take(&c, sizeof(*block));
    g_assert_cmphex(ldq_be_p(&block->used_len), ==, 0x100000000ull);
    g_assert_cmphex(ldq_be_p(take(&c, 8)), ==, 0xc0000);

    g_assert_cmphex(take_ram(&c, WIRE_RAM_ZERO), ==, 0x2000);
    take_name(&c, "pc.ram");
    g_assert_cmphex(*(const uint8_t *)take(&c, 1), ==, WIRE_RAM_ZERO_FILL);
    g_assert_cmphex(take_ram(&c, WIRE_RAM_ZERO | WIRE_RAM_CONTINUE), ==,
                    0x3000);
    g_assert_cmphex(*(const uint8_t *)take(&c, 1), ==, WIRE_RAM_ZERO_FILL);

    g_assert_cmphex(take_ram(&c, WIRE_RAM_XBZRLE | WIRE_RAM_CONTINUE), ==,
                    0x4000);
    const WireXbzrle *xbzrle = take(&c, sizeof(*xbzrle));
    g_assert_cmphex(xbzrle->encoding, ==, WIRE_XBZRLE_ENCODING);
    take(&c, lduw_be_p(&xbzrle->len));
    g_assert_cmphex(take_ram(&c, WIRE_RAM_MULTIFD_FLUSH), ==, 0);
    g_assert_cmphex(take_ram(&c, WIRE_RAM_EOS), ==, 0);
    assert_done(&c);
}

static void test_mapped_ram(void)
{
    static const uint8_t bytes[] = {
        0, 0, 0, 1,
        0, 0, 0, 0, 0, 0, 0x10, 0,
        0, 0, 0, 0, 0, 0, 0x02, 0x22,
        0, 0, 0, 0, 0, 0x30, 0, 0,
    };
    Cursor c = CURSOR(bytes);
    const WireMappedRam *head = take(&c, sizeof(*head));

    g_assert_cmpuint(ldl_be_p(&head->version), ==, WIRE_MAPPED_RAM_VERSION);
    g_assert_cmphex(ldq_be_p(&head->page_size), ==, 0x1000);
    g_assert_cmphex(ldq_be_p(&head->bitmap_at), ==, 0x222);
    g_assert_cmphex(ldq_be_p(&head->pages_at), ==, 0x300000);
    g_assert_cmphex(ldq_be_p(&head->pages_at) % WIRE_MAPPED_RAM_ALIGN, ==, 0);
    assert_done(&c);
}

static void test_multifd(void)
{
    static const uint8_t init[64] = {
        0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1,
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        7,
    };
    static const uint8_t pages[320 + 16] = {
        0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1, 0, 0, 0, 2,
        0, 0, 0, 128, 0, 0, 0, 1, 0, 0, 0x10, 0,
        0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 1,
        [64] = 'p', 'c', '.', 'r', 'a', 'm',
        [320] = 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0, 0x60, 0,
    };
    static const uint8_t device[276] = {
        0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1, 0, 0, 0, 0x40,
        'v', 'f', 'i', 'o',
        [268] = 0, 0, 0, 3, 0, 1, 0, 0,
    };
    Cursor c = CURSOR(init);

    const WireMultifdInit *hello = take(&c, sizeof(*hello));
    g_assert_cmphex(ldl_be_p(&hello->magic), ==, WIRE_MULTIFD_MAGIC);
    g_assert_cmphex(ldl_be_p(&hello->version), ==, WIRE_MULTIFD_VERSION);
    g_assert_cmpuint(hello->uuid[15], ==, 16);
    g_assert_cmpuint(hello->channel, ==, 7);
    assert_done(&c);

    c = (Cursor) CURSOR(pages);
    const WireMultifdPages *packet = take(&c, sizeof(*packet));
    g_assert_cmphex(ldl_be_p(&packet->head.flags), ==, WIRE_MULTIFD_ZLIB);
    g_assert_cmpuint(ldl_be_p(&packet->pages_max), ==,
                     WIRE_MULTIFD_PACKET_MEMORY / 4096);
    g_assert_cmpuint(ldl_be_p(&packet->normal_pages), ==, 1);
    g_assert_cmpuint(ldl_be_p(&packet->payload_len), ==, 4096);
    g_assert_cmphex(ldq_be_p(&packet->sequence), ==, 0x100000005ull);
    g_assert_cmpuint(ldl_be_p(&packet->zero_pages), ==, 1);
    g_assert_cmpstr(packet->block, ==, "pc.ram");
    g_assert_cmphex(ldq_be_p(take(&c, 8)), ==, 0x5000);
    g_assert_cmphex(ldq_be_p(take(&c, 8)), ==, 0x6000);
    assert_done(&c);

    c = (Cursor) CURSOR(device);
    const WireMultifdDeviceState *state = take(&c, sizeof(*state));
    g_assert_cmphex(ldl_be_p(&state->head.flags), ==,
                    WIRE_MULTIFD_DEVICE_STATE);
    g_assert_cmpstr(state->name, ==, "vfio");
    g_assert_cmpuint(ldl_be_p(&state->instance_id), ==, 3);
    g_assert_cmpuint(ldl_be_p(&state->payload_len), ==, 0x10000);
    assert_done(&c);
}

/* Every flag is one bit of its own, and together they are the mask. */
static void assert_bits(const uint32_t *flags, size_t n, uint32_t mask)
{
    uint32_t all = 0;

    for (size_t i = 0; i < n; i++) {
        g_assert_cmpint(ctpop32(flags[i]), ==, 1);
        g_assert_cmphex(all & flags[i], ==, 0);
        all |= flags[i];
    }
    g_assert_cmphex(all, ==, mask);
}

static void test_flags(void)
{
    static const uint32_t ram[] = {
        WIRE_RAM_FULL, WIRE_RAM_ZERO, WIRE_RAM_MEM_SIZE, WIRE_RAM_PAGE,
        WIRE_RAM_EOS, WIRE_RAM_CONTINUE, WIRE_RAM_XBZRLE, WIRE_RAM_HOOK,
        WIRE_RAM_COMPRESSED, WIRE_RAM_MULTIFD_FLUSH,
    };
    static const uint32_t multifd[] = {
        WIRE_MULTIFD_SYNC, WIRE_MULTIFD_ZLIB, WIRE_MULTIFD_ZSTD,
        WIRE_MULTIFD_QPL, WIRE_MULTIFD_UADK, WIRE_MULTIFD_QATZIP,
        WIRE_MULTIFD_DEVICE_STATE,
    };

    assert_bits(ram, ARRAY_SIZE(ram), WIRE_RAM_FLAGS);
    assert_bits(multifd, ARRAY_SIZE(multifd), WIRE_MULTIFD_FLAGS);
    assert_bits(multifd + 1, 5, WIRE_MULTIFD_METHOD);
    g_assert_cmphex(WIRE_MULTIFD_RECORDS & WIRE_MULTIFD_FLAGS, ==, 0);
}

/* A PONG is the answer to one purpose only. */
static void test_ping_values(void)
{
    static const struct {
        uint32_t first, last;
    } values[] = {
        { WIRE_PING_START, WIRE_PING_START },
        { WIRE_PING_POSTCOPY, WIRE_PING_POSTCOPY },
        { WIRE_PING_DEVICES_LOADED, WIRE_PING_DEVICES_LOADED },
        { WIRE_PING_PACKAGE_SENT, WIRE_PING_PACKAGE_SENT },
        { WIRE_PING_ROUND_TRIP, WIRE_PING_ROUND_TRIP },
        /* more attempts than anybody waits for */
        { WIRE_PING_DRAIN, WIRE_PING_DRAIN + 0x1000000 },
        { WIRE_PEER_HELLO, WIRE_PEER_HELLO },
        { WIRE_PING_PACE, WIRE_PING_PACE | ~WIRE_PING_PACE_MASK },
        { WIRE_PING_AGAIN, WIRE_PING_AGAIN | ~WIRE_PING_AGAIN_MASK },
        { WIRE_PEER_OFFER, WIRE_PEER_OFFER | ~WIRE_PEER_MARK_MASK },
        { WIRE_PEER_MARK, WIRE_PEER_MARK | ~WIRE_PEER_MARK_MASK },
    };

    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        g_assert_cmphex(values[i].first, <=, values[i].last);
        g_assert_cmphex(values[i].first, >, i ? values[i - 1].last : 0);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wire/main-channel", test_main_channel);
    g_test_add_func("/wire/commands", test_commands);
    g_test_add_func("/wire/return-path", test_return_path);
    g_test_add_func("/wire/ram", test_ram);
    g_test_add_func("/wire/mapped-ram", test_mapped_ram);
    g_test_add_func("/wire/multifd", test_multifd);
    g_test_add_func("/wire/flags", test_flags);
    g_test_add_func("/wire/ping-values", test_ping_values);
    return g_test_run();
}
