/*
 * Unit tests of the control messages of RDMA: as bytes, and what is refused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "setup.h"
#include "migration/wire/rdma.h"

#define CHUNK (1ull << WIRE_RDMA_CHUNK_BITS)

static const RdmaBlock blocks[] = {
    { .address = 0x7f0000000000, .start = 0, .bytes = 8 * CHUNK },
    { .address = 0x7f1000000000, .start = 1ull << 40,
      .bytes = 2 * CHUNK + 4096, .rkey = 7 },
    { .address = 0x7f2000000000, .start = 0x1000, .bytes = 4096 },
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
 * Connections
 */

static void test_hello_bytes(void)
{
    static const uint8_t plain[] = { 0, 0, 0, 1, 0, 0, 0, 0 };
    static const uint8_t pinned[] = { 0, 0, 0, 1, 0, 0, 0, 1 };
    static const uint8_t ours[] = { 0, 0, 0, 1, 0x80, 0, 0, 0 };
    static const uint8_t more[] = { 0, 0, 0, 1, 0xc0, 0, 0x0a, 0 };
    static const uint8_t several[] = { 0, 0, 0, 1, 0xa0, 0x0f, 0, 0 };
    static const uint8_t window[] = { 0, 0, 0, 1, 0x90, 0, 0, 0 };
    WireRdmaHello wire;

    rdma_fill_hello(&wire, &(RdmaHello) { });
    g_assert_cmpmem(&wire, sizeof(wire), plain, sizeof(plain));
    rdma_fill_hello(&wire, &(RdmaHello) { .pin_all = true });
    g_assert_cmpmem(&wire, sizeof(wire), pinned, sizeof(pinned));
    rdma_fill_hello(&wire, &(RdmaHello) { .peers = true, .chunk_bits = 20 });
    g_assert_cmpmem(&wire, sizeof(wire), ours, sizeof(ours));
    rdma_fill_hello(&wire, &(RdmaHello) {
        .peers = true, .copies = true, .chunk_bits = 30,
    });
    g_assert_cmpmem(&wire, sizeof(wire), more, sizeof(more));
    rdma_fill_hello(&wire, &(RdmaHello) {
        .peers = true, .writes_only = true, .chunk_bits = 20, .more = 15,
    });
    g_assert_cmpmem(&wire, sizeof(wire), several, sizeof(several));
    rdma_fill_hello(&wire, &(RdmaHello) {
        .peers = true, .window = true, .chunk_bits = 20,
    });
    g_assert_cmpmem(&wire, sizeof(wire), window, sizeof(window));
    /* Others are not told. */
    rdma_fill_hello(&wire, &(RdmaHello) {
        .copies = true, .chunk_bits = 25, .more = 3, .writes_only = true,
        .window = true,
    });
    g_assert_cmpmem(&wire, sizeof(wire), plain, sizeof(plain));
}

static void test_hello(void)
{
    uint8_t bytes[56] = { 0, 0, 0, 1, 0, 0, 0, 1 };
    RdmaHello hello = { };

    g_assert_true(rdma_check_hello(bytes, 8, &hello, &error_abort));
    g_assert_true(hello.pin_all);
    g_assert_true(rdma_check_hello(bytes, sizeof(bytes), &hello,
                                   &error_abort));
    /* flags of later versions */
    stl_be_p(bytes + 4, 0x7ffffffe);
    g_assert_true(rdma_check_hello(bytes, 8, &hello, &error_abort));
    g_assert_false(hello.pin_all);
    g_assert_false(hello.peers);
    g_assert_false(hello.copies);
    g_assert_false(hello.window);
    g_assert_cmpuint(rdma_window(&hello), ==, 1);
    g_assert_cmpuint(hello.chunk_bits, ==, 0);
    stl_be_p(bytes + 4, 0x80000000);
    g_assert_true(rdma_check_hello(bytes, 8, &hello, &error_abort));
    g_assert_true(hello.peers);
    g_assert_false(hello.copies);
    g_assert_cmpuint(hello.chunk_bits, ==, 20);
    stl_be_p(bytes + 4, 0xc0000500);
    g_assert_true(rdma_check_hello(bytes, 8, &hello, &error_abort));
    g_assert_true(hello.copies);
    g_assert_cmpuint(hello.chunk_bits, ==, 25);
    g_assert_false(hello.writes_only);
    g_assert_cmpuint(hello.more, ==, 0);
    stl_be_p(bytes + 4, 0xa0070000);
    g_assert_true(rdma_check_hello(bytes, 8, &hello, &error_abort));
    g_assert_true(hello.writes_only);
    g_assert_cmpuint(hello.more, ==, 7);
    g_assert_false(hello.window);
    stl_be_p(bytes + 4, 0x90000000);
    g_assert_true(rdma_check_hello(bytes, 8, &hello, &error_abort));
    g_assert_true(hello.window);
    g_assert_cmpuint(rdma_window(&hello), ==, 4);
}

static void test_hello_refused(void)
{
    static const uint32_t versions[] = { 0, 2, 0x01000000, UINT32_MAX };
    RdmaHello hello = { .pin_all = true };
    uint8_t bytes[8] = { 0, 0, 0, 1 };

    for (size_t len = 0; len < sizeof(bytes); len++) {
        Error *err = NULL;

        g_assert_false(rdma_check_hello(bytes, len, &hello, &err));
        assert_says(err, "private data");
    }
    for (unsigned i = 0; i < ARRAY_SIZE(versions); i++) {
        Error *err = NULL;

        stl_be_p(bytes, versions[i]);
        g_assert_false(rdma_check_hello(bytes, 8, &hello, &err));
        assert_says(err, "version");
    }
    stl_be_p(bytes, 1);
    for (uint32_t n = 11; n < 16; n++) {
        Error *err = NULL;

        stl_be_p(bytes + 4, 0x80000000 | n << 8);
        g_assert_false(rdma_check_hello(bytes, 8, &hello, &err));
        assert_says(err, "2^30 is the limit");
    }
    for (uint32_t n = 16; n < 32; n++) {
        Error *err = NULL;

        stl_be_p(bytes + 4, 0x80000000 | n << 16);
        g_assert_false(rdma_check_hello(bytes, 8, &hello, &err));
        assert_says(err, "15 are the limit");
    }
    g_assert_true(hello.pin_all);
}

/*
 * Heads
 */

static void test_head_bytes(void)
{
    static const uint8_t bytes[] = {
        0, 0, 0, 24, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0,
    };
    WireRdmaHead wire;

    memset(&wire, 0xff, sizeof(wire));
    rdma_fill_head(&wire, WIRE_RDMA_REGISTER_REQUEST, 24, 1);
    g_assert_cmpmem(&wire, sizeof(wire), bytes, sizeof(bytes));
}

typedef struct HeadCase {
    uint32_t type, len, repeat;
    const char *says;           /* NULL: it is good */
} HeadCase;

#define DATA_MAX ((uint32_t)WIRE_RDMA_DATA_MAX)

static const HeadCase head_cases[] = {
    { WIRE_RDMA_ERROR, 0, 1 },
    { WIRE_RDMA_READY, 0, 1 },
    { WIRE_RDMA_READY, 0, 0 },
    { WIRE_RDMA_STREAM, 1, 0 },
    { WIRE_RDMA_STREAM, WIRE_RDMA_STREAM_MAX, 0 },
    { WIRE_RDMA_STREAM, DATA_MAX, 1 },
    { WIRE_RDMA_BLOCKS_REQUEST, 0, 1 },
    { WIRE_RDMA_BLOCKS_RESULT, 32, 1 },
    { WIRE_RDMA_BLOCKS_RESULT, 32 * 4097, 1 },
    { WIRE_RDMA_ZEROS, 24, 1 },
    { WIRE_RDMA_ZEROS, 24 * 4096, 4096 },
    { WIRE_RDMA_REGISTER_REQUEST, 24, 1 },
    { WIRE_RDMA_REGISTER_REQUEST, 24 * 4096, 4096 },
    { WIRE_RDMA_REGISTER_RESULT, 16, 1 },
    { WIRE_RDMA_REGISTER_RESULT, 16, 4096 },
    { WIRE_RDMA_REGISTER_RESULT, 16 * 4096, 4096 },
    { WIRE_RDMA_FINISHED, 0, 1 },
    { WIRE_RDMA_UNREGISTER_REQUEST, 24, 1 },
    { WIRE_RDMA_UNREGISTER_RESULT, 0, 1 },
    { WIRE_RDMA_PAGES, 17, 1 },
    { WIRE_RDMA_PAGES, DATA_MAX, 127 },

    { WIRE_RDMA_NONE, 0, 1, "unknown type 0" },
    { WIRE_RDMA_TYPES, 0, 1, "unknown type 13" },
    { WIRE_RDMA_PAGES, 0, 1, "PAGES message" },
    { WIRE_RDMA_PAGES, 16, 1, "PAGES message" },
    { WIRE_RDMA_PAGES, 4112, 4097, "4096 are the limit" },
    { UINT32_MAX, 0, 1, "unknown type 4294967295" },
    { WIRE_RDMA_ERROR, 1, 1, "ERROR message" },
    { WIRE_RDMA_READY, 1, 1, "READY message" },
    { WIRE_RDMA_READY, 0, 4097, "4096 are the limit" },
    { WIRE_RDMA_STREAM, 0, 1, "STREAM message" },
    { WIRE_RDMA_BLOCKS_REQUEST, 32, 1, "BLOCKS_REQUEST message" },
    { WIRE_RDMA_BLOCKS_RESULT, 0, 1, "BLOCKS_RESULT message" },
    { WIRE_RDMA_BLOCKS_RESULT, 31, 1, "BLOCKS_RESULT message" },
    { WIRE_RDMA_BLOCKS_RESULT, 33, 1, "BLOCKS_RESULT message" },
    { WIRE_RDMA_BLOCKS_RESULT, 32 * 4098, 1, "BLOCKS_RESULT message" },
    { WIRE_RDMA_ZEROS, 0, 1, "ZEROS message" },
    { WIRE_RDMA_ZEROS, 23, 1, "ZEROS message" },
    { WIRE_RDMA_ZEROS, 48, 1, "of 1 entries with data for 2" },
    { WIRE_RDMA_ZEROS, 24, 2, "of 2 entries with data for 1" },
    { WIRE_RDMA_ZEROS, 24 * 4097, 4096, "ZEROS message" },
    { WIRE_RDMA_REGISTER_REQUEST, 0, 0, "REGISTER_REQUEST message" },
    { WIRE_RDMA_REGISTER_REQUEST, 25, 1, "REGISTER_REQUEST message" },
    { WIRE_RDMA_REGISTER_REQUEST, 24, 2, "of 2 entries with data for 1" },
    { WIRE_RDMA_REGISTER_REQUEST, 48, 1, "of 1 entries with data for 2" },
    { WIRE_RDMA_REGISTER_REQUEST, 24 * 4097, 4096, "REGISTER_REQUEST" },
    { WIRE_RDMA_REGISTER_RESULT, 0, 1, "REGISTER_RESULT message" },
    { WIRE_RDMA_REGISTER_RESULT, 15, 1, "REGISTER_RESULT message" },
    { WIRE_RDMA_REGISTER_RESULT, 16 * 4097, 4096, "REGISTER_RESULT" },
    { WIRE_RDMA_FINISHED, 16, 1, "FINISHED message" },
    { WIRE_RDMA_UNREGISTER_REQUEST, 24, 0, "of 0 entries with data for 1" },
    { WIRE_RDMA_UNREGISTER_RESULT, 4, 1, "UNREGISTER_RESULT message" },
};

static void test_heads(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(head_cases); i++) {
        const HeadCase *c = &head_cases[i];
        RdmaHead head = { .len = 12345 };
        WireRdmaHead wire;
        Error *err = NULL;
        bool ok;

        rdma_fill_head(&wire, c->type, c->len, c->repeat);
        ok = rdma_check_head(&wire, sizeof(wire) + c->len, &head, &err);
        if (c->says) {
            g_assert_false(ok);
            g_assert_cmpuint(head.len, ==, 12345);
            assert_says(err, c->says);
        } else {
            error_propagate(&error_abort, err);
            g_assert_true(ok);
            g_assert_cmpuint(head.type, ==, c->type);
            g_assert_cmpuint(head.len, ==, c->len);
            g_assert_cmpuint(head.repeat, ==, c->repeat);
        }
    }
}

static void test_head_lengths(void)
{
    static const size_t received[] = {
        0, 1, 15, 17, 23, 25, 1000, WIRE_RDMA_MESSAGE_MAX,
        WIRE_RDMA_MESSAGE_MAX + 1, SIZE_MAX,
    };
    WireRdmaHead wire;
    RdmaHead head;

    rdma_fill_head(&wire, WIRE_RDMA_STREAM, 8, 0);
    g_assert_true(rdma_check_head(&wire, 24, &head, &error_abort));
    for (unsigned i = 0; i < ARRAY_SIZE(received); i++) {
        Error *err = NULL;

        g_assert_false(rdma_check_head(&wire, received[i], &head, &err));
        assert_says(err, "message");
    }
    /* Its length, with that of the head added, wraps around. */
    rdma_fill_head(&wire, WIRE_RDMA_STREAM, -16u, 0);
    g_assert_false(rdma_check_head(&wire, 16, &head, NULL));
    rdma_fill_head(&wire, WIRE_RDMA_STREAM, UINT32_MAX, 0);
    g_assert_false(rdma_check_head(&wire, 15, &head, NULL));
}

static void test_names(void)
{
    g_assert_cmpstr(rdma_type_name(WIRE_RDMA_READY), ==, "READY");
    g_assert_cmpstr(rdma_type_name(WIRE_RDMA_NONE), ==, "unknown");
    g_assert_cmpstr(rdma_type_name(WIRE_RDMA_TYPES), ==, "unknown");
    g_assert_cmpstr(rdma_type_name(UINT32_MAX), ==, "unknown");
    for (uint32_t i = 1; i < WIRE_RDMA_TYPES; i++) {
        g_assert_cmpstr(rdma_type_name(i), !=, "unknown");
    }
}

/*
 * Blocks
 */

static void test_block(void)
{
    static const uint8_t bytes[] = {
        0, 0, 0x7f, 0x10, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0x20, 0x10, 0, 0, 0, 0, 7, 0, 0, 0, 0,
    };
    WireRdmaBlock wire;
    RdmaBlock block = { };

    memset(&wire, 0xff, sizeof(wire));
    rdma_fill_block(&wire, &blocks[1]);
    g_assert_cmpmem(&wire, sizeof(wire), bytes, sizeof(bytes));
    g_assert_true(rdma_check_block(&wire, "ram", blocks[1].bytes, &block,
                                   &error_abort));
    g_assert_cmpuint(block.address, ==, blocks[1].address);
    g_assert_cmpuint(block.start, ==, blocks[1].start);
    g_assert_cmpuint(block.bytes, ==, blocks[1].bytes);
    g_assert_cmpuint(block.rkey, ==, 7);
}

static void refuse_block(const RdmaBlock *block, uint64_t bytes,
                         const char *says)
{
    RdmaBlock found = { .rkey = 99 };
    WireRdmaBlock wire;
    Error *err = NULL;

    rdma_fill_block(&wire, block);
    g_assert_false(rdma_check_block(&wire, "pc.ram", bytes, &found, &err));
    g_assert_cmpuint(found.rkey, ==, 99);
    assert_says(err, says);
}

static void test_block_refused(void)
{
    RdmaBlock block = blocks[0];

    refuse_block(&block, block.bytes - 1, "'pc.ram' has");
    refuse_block(&block, block.bytes + 1, "the same memory");
    refuse_block(&block, 0, "the same memory");
    block.address = -block.bytes;
    refuse_block(&block, block.bytes, "does not end there");
    block.address = UINT64_MAX;
    refuse_block(&block, block.bytes, "does not end there");
    block.address = 0;
    block.start = UINT64_MAX - 1;
    refuse_block(&block, block.bytes, "does not end there");
}

/*
 * Zeros
 */

static bool check_zeros(uint32_t value, uint32_t block, uint64_t offset,
                        uint64_t bytes, RdmaExtent *zeros, Error **errp)
{
    WireRdmaZeros wire;

    stl_be_p(&wire.value, value);
    stl_be_p(&wire.block, block);
    stq_be_p(&wire.offset, offset);
    stq_be_p(&wire.bytes, bytes);
    return rdma_check_zeros(&wire, blocks, ARRAY_SIZE(blocks), zeros, errp);
}

static void test_zeros(void)
{
    static const uint8_t bytes[] = {
        0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0x10, 0,
        0, 0, 0, 0, 0, 0x20, 0, 0,
    };
    RdmaExtent out = { .block = 1, .offset = 4096, .bytes = 2 * CHUNK }, in;
    WireRdmaZeros wire;

    memset(&wire, 0xff, sizeof(wire));
    rdma_fill_zeros(&wire, &out, blocks[1].start);
    g_assert_cmpmem(&wire, sizeof(wire), bytes, sizeof(bytes));
    g_assert_true(rdma_check_zeros(&wire, blocks, ARRAY_SIZE(blocks), &in,
                                   &error_abort));
    g_assert_cmpuint(in.block, ==, 1);
    g_assert_cmpuint(in.offset, ==, 4096);
    g_assert_cmpuint(in.bytes, ==, 2 * CHUNK);

    g_assert_true(check_zeros(0, 2, 0x1fff, 1, &in, &error_abort));
    g_assert_cmpuint(in.offset, ==, 0xfff);
    g_assert_true(check_zeros(0, 0, 0, 8 * CHUNK, &in, &error_abort));
}

static void test_zeros_refused(void)
{
    static const struct {
        uint32_t value, block;
        uint64_t offset, bytes;
        const char *says;
    } lies[] = {
        { 1, 0, 0, 1, "the value is 1" },
        { UINT32_MAX, 0, 0, 1, "the value is 4294967295" },
        { 0, 3, 0, 1, "block 3, where there are 3" },
        { 0, UINT32_MAX, 0, 1, "block 4294967295" },
        { 0, 0, 8 * CHUNK, 1, "is not in block 0" },
        { 0, 0, UINT64_MAX, 1, "is not in block 0" },
        { 0, 1, (1ull << 40) - 1, 1, "is not in block 1" },
        { 0, 1, 0, 1, "is not in block 1" },
        { 0, 2, 0x2000, 1, "is not in block 2" },
        { 0, 0, 0, 0, "0 bytes" },
        { 0, 0, 0, 8 * CHUNK + 1, "bytes at offset 0x0" },
        { 0, 0, CHUNK, UINT64_MAX, "bytes at offset 0x100000" },
        { 0, 0, CHUNK, -CHUNK, "bytes at offset 0x100000" },
        { 0, 2, 0x1fff, 2, "bytes at offset 0xfff" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        RdmaExtent zeros = { .block = 55 };
        Error *err = NULL;

        g_assert_false(check_zeros(lies[i].value, lies[i].block,
                                   lies[i].offset, lies[i].bytes, &zeros,
                                   &err));
        g_assert_cmpuint(zeros.block, ==, 55);
        assert_says(err, lies[i].says);
    }
}

/*
 * Registration
 */

static bool check_register(uint32_t block, uint64_t offset, uint64_t more,
                           RdmaExtent *extent, Error **errp)
{
    WireRdmaRegister wire;

    stq_be_p(&wire.offset, offset);
    stl_be_p(&wire.block, block);
    stl_be_p(&wire.unused, 0xdeadbeef);
    stq_be_p(&wire.more, more);
    return rdma_check_register(&wire, blocks, ARRAY_SIZE(blocks),
                               WIRE_RDMA_CHUNK_BITS, extent, errp);
}

static void test_register(void)
{
    static const struct {
        uint32_t block;
        uint64_t offset, more, first, bytes;
    } good[] = {
        { 0, 0, 0, 0, CHUNK },
        { 0, 4096, 0, 0, CHUNK },
        { 0, CHUNK - 1, 0, 0, CHUNK },
        { 0, CHUNK, 6, CHUNK, 7 * CHUNK },
        { 0, 0, 7, 0, 8 * CHUNK },
        { 0, 8 * CHUNK - 1, 0, 7 * CHUNK, CHUNK },
        { 1, 1ull << 40, 2, 0, 2 * CHUNK + 4096 },
        { 1, (1ull << 40) + 2 * CHUNK, 0, 2 * CHUNK, 4096 },
        { 2, 0x1000, 0, 0, 4096 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
        RdmaExtent extent;

        g_assert_true(check_register(good[i].block, good[i].offset,
                                     good[i].more, &extent, &error_abort));
        g_assert_cmpuint(extent.block, ==, good[i].block);
        g_assert_cmpuint(extent.offset, ==, good[i].first);
        g_assert_cmpuint(extent.bytes, ==, good[i].bytes);
    }
}

static void test_register_bytes(void)
{
    static const uint8_t bytes[] = {
        0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 1,
    };
    RdmaExtent out = { .block = 1, .offset = CHUNK, .bytes = CHUNK + 4096 };
    WireRdmaRegister wire;
    RdmaExtent in;

    memset(&wire, 0xff, sizeof(wire));
    rdma_fill_register(&wire, &out, blocks[1].start, WIRE_RDMA_CHUNK_BITS);
    g_assert_cmpmem(&wire, sizeof(wire), bytes, sizeof(bytes));
    g_assert_true(rdma_check_register(&wire, blocks, ARRAY_SIZE(blocks),
                                      WIRE_RDMA_CHUNK_BITS, &in,
                                      &error_abort));
    g_assert_cmpuint(in.block, ==, 1);
    g_assert_cmpuint(in.offset, ==, CHUNK);
    g_assert_cmpuint(in.bytes, ==, CHUNK + 4096);
}

/* Chunks of 4 MiB, of which each block has two at most */
static void test_register_chunks(void)
{
    RdmaExtent out = { .block = 0, .offset = 4 * CHUNK, .bytes = 4 * CHUNK };
    WireRdmaRegister wire;
    Error *err = NULL;
    RdmaExtent in;

    rdma_fill_register(&wire, &out, 0, 22);
    g_assert_cmpuint(ldq_be_p(&wire.more), ==, 0);
    g_assert_true(rdma_check_register(&wire, blocks, ARRAY_SIZE(blocks), 22,
                                      &in, &error_abort));
    g_assert_cmpuint(in.offset, ==, out.offset);
    g_assert_cmpuint(in.bytes, ==, out.bytes);

    out = (RdmaExtent) { .block = 1, .bytes = blocks[1].bytes };
    rdma_fill_register(&wire, &out, blocks[1].start, 22);
    g_assert_cmpuint(ldq_be_p(&wire.more), ==, 0);
    g_assert_true(rdma_check_register(&wire, blocks, ARRAY_SIZE(blocks), 22,
                                      &in, &error_abort));
    g_assert_cmpuint(in.bytes, ==, blocks[1].bytes);
    stq_be_p(&wire.more, 1);
    g_assert_false(rdma_check_register(&wire, blocks, ARRAY_SIZE(blocks), 22,
                                       &in, &err));
    assert_says(err, "1 chunks after chunk 0");
}

/*
 * Pages
 */

static bool check_pages(uint32_t block, uint64_t offset, uint32_t bytes,
                        uint64_t left, RdmaExtent *pages, Error **errp)
{
    WireRdmaPages wire;

    stl_be_p(&wire.block, block);
    stl_be_p(&wire.bytes, bytes);
    stq_be_p(&wire.offset, offset);
    return rdma_check_pages(&wire, blocks, ARRAY_SIZE(blocks), left, pages,
                            errp);
}

static void test_pages(void)
{
    static const uint8_t bytes[] = {
        0, 0, 0, 1, 0, 0, 0x20, 0, 0, 0, 1, 0, 0, 0, 0x10, 0,
    };
    RdmaExtent out = { .block = 1, .offset = 4096, .bytes = 8192 }, in;
    WireRdmaPages wire;

    memset(&wire, 0xff, sizeof(wire));
    rdma_fill_pages(&wire, &out, blocks[1].start);
    g_assert_cmpmem(&wire, sizeof(wire), bytes, sizeof(bytes));
    g_assert_true(rdma_check_pages(&wire, blocks, ARRAY_SIZE(blocks), 8192,
                                   &in, &error_abort));
    g_assert_cmpuint(in.block, ==, 1);
    g_assert_cmpuint(in.offset, ==, 4096);
    g_assert_cmpuint(in.bytes, ==, 8192);
    g_assert_cmpint(rdma_check_pages_data(16 + 8192, 1, &error_abort), ==,
                    8192);
    g_assert_cmpint(rdma_check_pages_data(4096 * 16 + 1, 4096, &error_abort),
                    ==, 1);
}

static void test_pages_refused(void)
{
    static const struct {
        uint32_t block;
        uint64_t offset;
        uint32_t bytes;
        uint64_t left;
        const char *says;
    } lies[] = {
        { 3, 0, 1, 9, "block 3, where there are 3" },
        { UINT32_MAX, 0, 1, 9, "block 4294967295" },
        { 0, 8 * CHUNK, 1, 9, "is not in block 0" },
        { 0, UINT64_MAX, 1, 9, "is not in block 0" },
        { 1, 0, 1, 9, "is not in block 1" },
        { 0, 0, 0, 9, "0 bytes" },
        { 2, 0x1fff, 2, 9, "bytes at offset 0xfff" },
        { 0, CHUNK, UINT32_MAX, UINT64_MAX, "bytes at offset 0x100000" },
        { 0, 0, 4096, 4095, "of which 4095 are in the message" },
        { 0, 0, 1, 0, "of which 0 are in the message" },
    };
    static const uint32_t data[][2] = {
        { 16, 0 }, { 16, 1 }, { 17, 2 }, { 100, UINT32_MAX },
        { 16, 1u << 28 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        RdmaExtent pages = { .block = 55 };
        Error *err = NULL;

        g_assert_false(check_pages(lies[i].block, lies[i].offset,
                                   lies[i].bytes, lies[i].left, &pages, &err));
        g_assert_cmpuint(pages.block, ==, 55);
        assert_says(err, lies[i].says);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        Error *err = NULL;

        g_assert_cmpint(rdma_check_pages_data(data[i][0], data[i][1], &err),
                        ==, -1);
        assert_says(err, "entries and their pages");
    }
}

static void test_register_refused(void)
{
    static const struct {
        uint32_t block;
        uint64_t offset, more;
        const char *says;
    } lies[] = {
        { 3, 0, 0, "block 3, where there are 3" },
        { UINT32_MAX, 0, 0, "block 4294967295" },
        { 0, 8 * CHUNK, 0, "is not in block 0" },
        { 0, UINT64_MAX, 0, "is not in block 0" },
        { 1, (1ull << 40) - 1, 0, "is not in block 1" },
        { 2, 0, 0, "is not in block 2" },
        { 0, 0, 8, "8 chunks after chunk 0" },
        { 0, 7 * CHUNK, 1, "1 chunks after chunk 7" },
        { 0, 0, UINT64_MAX, "chunks after chunk 0" },
        { 0, CHUNK, UINT64_MAX, "chunks after chunk 1" },
        { 1, (1ull << 40), 3, "3 chunks after chunk 0" },
        { 2, 0x1000, 1, "1 chunks after chunk 0" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        RdmaExtent extent = { .block = 55 };
        Error *err = NULL;

        g_assert_false(check_register(lies[i].block, lies[i].offset,
                                      lies[i].more, &extent, &err));
        g_assert_cmpuint(extent.block, ==, 55);
        assert_says(err, lies[i].says);
    }
}

static void test_key(void)
{
    static const uint8_t bytes[] = {
        0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0x7f, 0x10, 0, 0, 0, 0,
    };
    RdmaKey out = { .rkey = 0x010203, .address = blocks[1].address }, in;
    WireRdmaKey wire;
    Error *err = NULL;

    memset(&wire, 0xff, sizeof(wire));
    rdma_fill_key(&wire, &out);
    g_assert_cmpmem(&wire, sizeof(wire), bytes, sizeof(bytes));
    g_assert_true(rdma_check_key(&wire, blocks[1].address, &in,
                                 &error_abort));
    g_assert_cmpuint(in.rkey, ==, out.rkey);
    g_assert_cmpuint(in.address, ==, out.address);

    g_assert_false(rdma_check_key(&wire, blocks[0].address, &in, &err));
    assert_says(err, "REGISTER_RESULT");
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/rdma-wire/hello/bytes", test_hello_bytes);
    g_test_add_func("/rdma-wire/hello/good", test_hello);
    g_test_add_func("/rdma-wire/hello/refused", test_hello_refused);
    g_test_add_func("/rdma-wire/head/bytes", test_head_bytes);
    g_test_add_func("/rdma-wire/head/types", test_heads);
    g_test_add_func("/rdma-wire/head/lengths", test_head_lengths);
    g_test_add_func("/rdma-wire/head/names", test_names);
    g_test_add_func("/rdma-wire/block/good", test_block);
    g_test_add_func("/rdma-wire/block/refused", test_block_refused);
    g_test_add_func("/rdma-wire/zeros/good", test_zeros);
    g_test_add_func("/rdma-wire/zeros/refused", test_zeros_refused);
    g_test_add_func("/rdma-wire/register/good", test_register);
    g_test_add_func("/rdma-wire/register/bytes", test_register_bytes);
    g_test_add_func("/rdma-wire/register/refused", test_register_refused);
    g_test_add_func("/rdma-wire/register/chunks", test_register_chunks);
    g_test_add_func("/rdma-wire/pages/good", test_pages);
    g_test_add_func("/rdma-wire/pages/refused", test_pages_refused);
    g_test_add_func("/rdma-wire/key", test_key);
    return g_test_run();
}
