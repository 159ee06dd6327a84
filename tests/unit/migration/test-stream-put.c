/*
 * Output side of the migration stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "migration/wire/stream.h"
#include "migration/migration-stats.h"
#include "mock-channel.h"
#include "script.h"
#include "setup.h"

#define PAGE 4096

static QEMUFile *open_writer(MockChannel *mc)
{
    return qemu_file_new_output(QIO_CHANNEL(mc));
}

/* Ends the stream, which must be without error, and checks its bytes. */
static void close_and_compare(QEMUFile *f, MockChannel *mc, const void *wire,
                              size_t len)
{
    g_assert_cmpint(qemu_fclose(f), ==, 0);
    g_assert_cmpuint(mc->closed, ==, 1);
    g_assert_cmpmem(mc->data->data, mc->data->len, wire, len);
    object_unref(OBJECT(mc));
}

static void test_numbers(void)
{
    static const uint8_t wire[] = {
        0xfe,
        0x80, 0x01,
        0xfe, 0xdc, 0xba, 0x98,
        0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8,
        0, 1, 'x',
    };
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = open_writer(mc);

    /* Only the lowest bits count. */
    qemu_put_byte(f, -2);
    qemu_put_be16(f, 0xabcd8001u);
    qemu_put_be32(f, 0xfedcba98u);
    qemu_put_be64(f, 0xfffefdfcfbfaf9f8ull);
    qemu_put_counted_string(f, "");
    qemu_put_counted_string(f, "x");
    g_assert_cmpuint(mc->ops, ==, 0);
    g_assert_cmpint(qemu_fflush(f), ==, 0);
    g_assert_cmpuint(mc->ops, ==, 1);
    g_assert_cmpuint(mc->most_pieces, ==, 1);
    g_assert_cmpint(qemu_fflush(f), ==, 0);
    g_assert_cmpuint(mc->ops, ==, 1);
    close_and_compare(f, mc, wire, sizeof(wire));
}

/* The order of bytes, whatever is mixed and however the channel takes it. */
static void test_portions(void)
{
    static const size_t one[] = { 1 };
    static const size_t odd[] = { 1, 2, 3, 5, 7, 11, 13, 4096, 1, 1, 64 };
    static const size_t stalls[] = { 0, 1, 0, 0, 9, 0, 0, 0, 4097, 0 };
    static const struct {
        const size_t *steps;
        size_t n;
    } portions[] = {
        { NULL, 0 },
        { one, ARRAY_SIZE(one) },
        { odd, ARRAY_SIZE(odd) },
        { stalls, ARRAY_SIZE(stalls) },
    };

    for (int i = 0; i < ARRAY_SIZE(portions); i++) {
        for (int seed = 1; seed < 15; seed++) {
            g_autoptr(Script) s = script_new(seed, 150, 5000);
            MockChannel *mc = mock_channel_writer();
            QEMUFile *f = open_writer(mc);
            uint64_t before = qemu_file_transferred(f);

            mc->steps = portions[i].steps;
            mc->nsteps = portions[i].n;
            script_put(s, f);
            g_assert_cmpuint(stream_position(f), ==, s->wire->len);
            g_assert_cmpuint(qemu_file_transferred(f) - before, ==,
                             s->wire->len);
            close_and_compare(f, mc, s->wire->data, s->wire->len);
        }
    }
}

/* Nothing is put by putting nothing. */
static void test_nothing(void)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = open_writer(mc);

    qemu_put_buffer(f, NULL, 0);
    qemu_put_buffer_async(f, (uint8_t *)f, 0, true);
    g_assert_cmpuint(stream_position(f), ==, 0);
    g_assert_cmpint(qemu_fflush(f), ==, 0);
    g_assert_cmpuint(mc->ops, ==, 0);
    close_and_compare(f, mc, "", 0);
}

/* Nothing is written while all is kept, and then everything in order. */
static void test_keep(void)
{
    for (int seed = 1; seed < 15; seed++) {
        g_autoptr(Script) before = script_new(seed, 20, 5000);
        g_autoptr(Script) kept = script_new(100 + seed, 150, 5000);
        g_autoptr(Script) after = script_new(200 + seed, 20, 5000);
        g_autoptr(GByteArray) wire = g_byte_array_new();
        MockChannel *mc = mock_channel_writer();
        QEMUFile *f = open_writer(mc);
        unsigned ops;

        script_put(before, f);
        g_assert_cmpint(qemu_fflush(f), ==, 0);
        ops = mc->ops;
        stream_keep(f, true);
        script_put(kept, f);
        g_assert_cmpint(qemu_fflush(f), ==, 0);
        stream_keep(f, false);
        g_assert_cmpuint(mc->ops, ==, ops);
        g_assert_cmpuint(stream_position(f), ==,
                         before->wire->len + kept->wire->len);
        if (seed % 2) {
            g_assert_cmpint(qemu_fflush(f), ==, 0);
        }
        script_put(after, f);
        g_byte_array_append(wire, before->wire->data, before->wire->len);
        g_byte_array_append(wire, kept->wire->data, kept->wire->len);
        g_byte_array_append(wire, after->wire->data, after->wire->len);
        close_and_compare(f, mc, wire->data, wire->len);
    }
}

/* What is only referred to may change as soon as all is kept. */
static void test_keep_copies(void)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = open_writer(mc);
    uint8_t page[PAGE] = "before", sent[PAGE] = "before";

    stream_keep(f, true);
    qemu_put_buffer_async(f, page, PAGE, false);
    stream_keep(f, false);
    strcpy((char *)page, "after");
    g_assert_cmpint(qemu_fflush(f), ==, 0);
    close_and_compare(f, mc, sent, PAGE);
}

/* An error drops what was kept, and its bytes do not count. */
static void test_keep_fault(void)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = open_writer(mc);

    stream_keep(f, true);
    qemu_put_be64(f, 1);
    stream_keep(f, false);
    mc->fail_at = mc->ops;
    g_assert_cmpint(qemu_fflush(f), <, 0);
    g_assert_cmpuint(stream_position(f), ==, 0);
    g_assert_cmpint(qemu_fclose(f), <, 0);
    object_unref(OBJECT(mc));
}

/* References are not copied: the channel sees the memory itself. */
static void test_reference(void)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = open_writer(mc);
    uint8_t page[PAGE] = "before";

    qemu_put_buffer_async(f, page, PAGE, false);
    strcpy((char *)page, "after");
    g_assert_cmpint(qemu_fflush(f), ==, 0);
    g_assert_true(mc->first.iov_base == page);
    g_assert_cmpuint(mc->first.iov_len, ==, PAGE);
    close_and_compare(f, mc, page, PAGE);
}

/* Copies are copies: the caller may reuse its memory at once. */
static void test_copy(void)
{
    const size_t sizes[] = { 1, 4096, STREAM_STAGE_SIZE - 1,
                             STREAM_STAGE_SIZE, STREAM_STAGE_SIZE + 1,
                             3 * STREAM_STAGE_SIZE + 5 };

    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        MockChannel *mc = mock_channel_writer();
        QEMUFile *f = open_writer(mc);
        g_autofree uint8_t *data = noise(i, sizes[i]);
        g_autofree uint8_t *kept = g_memdup2(data, sizes[i]);
        g_autoptr(GByteArray) wire = g_byte_array_new();

        qemu_put_byte(f, 7);
        qemu_put_buffer(f, data, sizes[i]);
        memset(data, 0, sizes[i]);
        qemu_put_byte(f, 8);

        g_byte_array_append(wire, (uint8_t[]) { 7 }, 1);
        g_byte_array_append(wire, kept, sizes[i]);
        g_byte_array_append(wire, (uint8_t[]) { 8 }, 1);
        close_and_compare(f, mc, wire->data, wire->len);
    }
}

/* Neighbouring references are one piece, and so are neighbouring copies. */
static void test_coalesce(void)
{
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = open_writer(mc);
    g_autofree uint8_t *pages = noise(1, 16 * PAGE);
    g_autoptr(GByteArray) wire = g_byte_array_new();

    for (int i = 0; i < 8; i++) {
        qemu_put_buffer_async(f, pages + i * PAGE, PAGE, false);
    }
    qemu_put_be64(f, 1);
    qemu_put_byte(f, 2);
    qemu_put_buffer_async(f, pages + 8 * PAGE, PAGE, false);
    g_assert_cmpint(qemu_fflush(f), ==, 0);
    g_assert_cmpuint(mc->ops, ==, 1);
    g_assert_cmpuint(mc->most_pieces, ==, 3);

    g_byte_array_append(wire, pages, 8 * PAGE);
    g_byte_array_append(wire, (uint8_t[]) { 0, 0, 0, 0, 0, 0, 0, 1, 2 }, 9);
    g_byte_array_append(wire, pages + 8 * PAGE, PAGE);
    close_and_compare(f, mc, wire->data, wire->len);
}

/* Many more references than one write can take, with and without headers. */
static void test_piece_limit(void)
{
    const size_t count = 5 * STREAM_GATHER_PIECES + 3;

    for (int header = 0; header < 2; header++) {
        MockChannel *mc = mock_channel_writer();
        QEMUFile *f = open_writer(mc);
        g_autofree uint8_t *data = noise(2, 2 * count);
        g_autoptr(GByteArray) wire = g_byte_array_new();

        for (size_t i = 0; i < count; i++) {
            if (header) {
                qemu_put_byte(f, i);
                g_byte_array_append(wire, (uint8_t[]) { i }, 1);
            }
            /* One byte of every two, so that none are neighbours. */
            qemu_put_buffer_async(f, data + 2 * i, 1, false);
            g_byte_array_append(wire, data + 2 * i, 1);
        }
        g_assert_cmpuint(mc->most_pieces, <=, IOV_MAX);
        g_assert_cmpuint(mc->most_pieces, >=, STREAM_GATHER_PIECES - 3);
        close_and_compare(f, mc, wire->data, wire->len);
    }
}

/*
 * When a put blocks to write: at the budget, which is a 64th of what the rate
 * limit lets through per period, inside its bounds.
 */
static void test_budget(void)
{
    static const struct {
        uint64_t rate;      /* per second */
        size_t budget;
    } cases[] = {
        { 0, STREAM_BUDGET_MAX },
        { 1000, STREAM_BUDGET_MIN },
        { 1000 * MiB, STREAM_BUDGET_MAX },
        { 120 * MiB, 12 * MiB / 64 },
    };
    g_autofree uint8_t *page = noise(3, PAGE);

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        MockChannel *mc = mock_channel_weightless();
        QEMUFile *f;

        migration_rate_set(cases[i].rate);
        f = open_writer(mc);
        for (int n = 0; n < 1000; n++) {
            qemu_put_be64(f, n);
            qemu_put_buffer_async(f, page, PAGE, false);
        }
        g_assert_cmpuint(mc->largest, >=, cases[i].budget);
        g_assert_cmpuint(mc->largest, <, cases[i].budget + PAGE + 8);
        qemu_fclose(f);
        object_unref(OBJECT(mc));
    }
    migration_rate_set(0);
}

/* Transferred is what was written by anybody, plus what is queued here. */
static void test_transferred(void)
{
    MockChannel *mc = mock_channel_writer(), *mc2 = mock_channel_writer();
    QEMUFile *f = open_writer(mc), *other = open_writer(mc2);
    uint64_t start = stat64_get(&mig_stats.qemu_file_transferred);

    qemu_put_be32(f, 1);
    g_assert_cmpuint(qemu_file_transferred(f), ==, start + 4);
    g_assert_cmpuint(qemu_file_transferred(other), ==, start);
    g_assert_cmpuint(stat64_get(&mig_stats.qemu_file_transferred), ==, start);
    qemu_fflush(f);
    g_assert_cmpuint(qemu_file_transferred(f), ==, start + 4);
    g_assert_cmpuint(qemu_file_transferred(other), ==, start + 4);
    g_assert_cmpuint(stat64_get(&mig_stats.qemu_file_transferred), ==,
                     start + 4);
    qemu_fclose(f);
    qemu_fclose(other);
    object_unref(OBJECT(mc));
    object_unref(OBJECT(mc2));
}

/* The counters go beyond 32 bits, and so does a single reference. */
static void test_huge(void)
{
    const uint64_t size = 5 * GiB + 1;
    MockChannel *mc = mock_channel_weightless();
    QEMUFile *f = open_writer(mc);
    uint64_t start = qemu_file_transferred(f);
    /* The mock does not look at it. */
    uint8_t *nowhere = mmap(NULL, size, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                            -1, 0);

    g_assert_true(nowhere != MAP_FAILED);
    qemu_put_be64(f, 0);
    qemu_put_buffer_async(f, nowhere, size, false);
    qemu_put_be64(f, 0);
    g_assert_cmpuint(stream_position(f), ==, size + 16);
    g_assert_cmpuint(qemu_file_transferred(f) - start, ==, size + 16);
    qemu_put_buffer(f, nowhere, size);
    g_assert_cmpuint(stream_position(f), ==, 2 * size + 16);
    g_assert_cmpint(qemu_fflush(f), ==, 0);
    g_assert_cmpuint(mc->pos, ==, 2 * size + 16);
    g_assert_cmpuint(qemu_file_transferred(f) - start, ==, 2 * size + 16);
    qemu_fclose(f);
    object_unref(OBJECT(mc));
    munmap(nowhere, size);
}

static uint8_t *filled_pages(size_t count)
{
    uint8_t *p = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert_true(p != MAP_FAILED);
    memset(p, 0x55, count * PAGE);
    return p;
}

/*
 * Memory that may be freed reads as zero once it was written, and the wire
 * has what it held.  Neighbours and parts of a page are joined; what is not a
 * whole host page in the end is left alone.
 */
static void test_release(void)
{
    const size_t page = qemu_real_host_page_size();
    const size_t n = 8 * page / PAGE;
    MockChannel *mc = mock_channel_writer();
    QEMUFile *f = open_writer(mc);
    uint8_t *p = filled_pages(n);
    g_autofree uint8_t *was = g_memdup2(p, n * PAGE);

    mock_channel_steps(mc, 1000, 0);
    qemu_put_buffer_async(f, p, page / 2, true);
    qemu_put_be64(f, 0x5555555555555555ull);
    qemu_put_buffer_async(f, p + page / 2, page / 2, true);
    qemu_put_buffer_async(f, p + page, page, false);
    qemu_put_buffer_async(f, p + 2 * page, page, true);
    qemu_put_buffer_async(f, p + 3 * page, page, true);
    qemu_put_buffer_async(f, p + 4 * page + 1, 2 * page, true);
    g_assert_cmpint(p[0], ==, 0x55);
    g_assert_cmpint(qemu_fflush(f), ==, 0);

    g_assert_true(buffer_is_zero(p, page));
    g_assert_cmpmem(p + page, page, was, page);
    g_assert_true(buffer_is_zero(p + 2 * page, 2 * page));
    g_assert_cmpmem(p + 4 * page, page, was, page);
    g_assert_true(buffer_is_zero(p + 5 * page, page));
    g_assert_cmpmem(p + 6 * page, 2 * page, was, 2 * page);
    close_and_compare(f, mc, was, 6 * page + 8);
    munmap(p, n * PAGE);
}

/* Memory that was not written, or maybe not, is kept. */
static void test_release_not(void)
{
    for (int op = 0; op < 3; op++) {
        MockChannel *mc = mock_channel_writer();
        QEMUFile *f = open_writer(mc);
        uint8_t *p = filled_pages(4);

        mock_channel_steps(mc, 5000);
        mc->fail_at = op;
        qemu_put_buffer_async(f, p, 4 * PAGE, true);
        g_assert_cmpint(qemu_fflush(f), ==, -EIO);
        for (size_t i = 0; i < 4 * PAGE; i++) {
            g_assert_cmphex(p[i], ==, 0x55);
        }
        g_assert_cmpint(qemu_fclose(f), ==, -EIO);
        object_unref(OBJECT(mc));
        munmap(p, 4 * PAGE);
    }
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/stream/put/numbers", test_numbers);
    g_test_add_func("/stream/put/portions", test_portions);
    g_test_add_func("/stream/put/nothing", test_nothing);
    g_test_add_func("/stream/put/keep", test_keep);
    g_test_add_func("/stream/put/keep-copies", test_keep_copies);
    g_test_add_func("/stream/put/keep-fault", test_keep_fault);
    g_test_add_func("/stream/put/reference", test_reference);
    g_test_add_func("/stream/put/copy", test_copy);
    g_test_add_func("/stream/put/coalesce", test_coalesce);
    g_test_add_func("/stream/put/piece-limit", test_piece_limit);
    g_test_add_func("/stream/put/budget", test_budget);
    g_test_add_func("/stream/put/transferred", test_transferred);
    if (sizeof(size_t) > 4) {
        g_test_add_func("/stream/put/huge", test_huge);
    }
    g_test_add_func("/stream/put/release", test_release);
    g_test_add_func("/stream/put/release-not", test_release_not);
    return g_test_run();
}
