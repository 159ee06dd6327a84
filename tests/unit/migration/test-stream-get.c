/*
 * Input side of the migration stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/wire/stream.h"
#include "mock-channel.h"
#include "script.h"
#include "setup.h"

static QEMUFile *open_reader(MockChannel *mc)
{
    QEMUFile *f = qemu_file_new_input(QIO_CHANNEL(mc));

    object_unref(OBJECT(mc));
    return f;
}

static QEMUFile *open_bytes(const void *data, size_t len, MockChannel **mc)
{
    *mc = mock_channel_reader(data, len);
    return open_reader(*mc);
}

static void assert_clean(QEMUFile *f)
{
    g_assert_cmpint(qemu_file_get_error(f), ==, 0);
}

static void assert_ended(QEMUFile *f)
{
    Error *err = NULL;

    g_assert_cmpint(qemu_file_get_error_obj(f, &err), ==, -EIO);
    g_assert_nonnull(strstr(error_get_pretty(err), "stream ends"));
    error_free(err);
}

/*
 * Numbers come out big-endian, zero-extended, and from any alignment.
 */
static void test_numbers(void)
{
    static const uint8_t wire[] = {
        0xff,
        0x80, 0x01,
        0xfe, 0xdc, 0xba, 0x98,
        0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8,
    };
    MockChannel *mc;
    g_autoptr(QEMUFile) f = open_bytes(wire, sizeof(wire), &mc);

    g_assert_cmpint(qemu_get_byte(f), ==, 0xff);
    g_assert_cmphex(qemu_get_be16(f), ==, 0x8001);
    g_assert_cmphex(qemu_get_be32(f), ==, 0xfedcba98u);
    g_assert_cmphex(qemu_get_be64(f), ==, 0xfffefdfcfbfaf9f8ull);
    assert_clean(f);
    g_assert_cmpuint(mc->ops, ==, 1);
}

/* Every kind of get, whatever the portions in which the bytes arrive. */
static void test_portions(void)
{
    static const size_t one[] = { 1 };
    static const size_t odd[] = { 1, 2, 3, 5, 7, 11, 13, 4096, 1, 1, 64 };
    static const size_t stalls[] = { 0, 1, 0, 0, 9, 0, 0, 0, 4097, 0 };
    static const size_t large[] = { STREAM_WINDOW_SIZE + 1, 3 };
    static const struct {
        const size_t *steps;
        size_t n;
    } portions[] = {
        { NULL, 0 },
        { one, ARRAY_SIZE(one) },
        { odd, ARRAY_SIZE(odd) },
        { stalls, ARRAY_SIZE(stalls) },
        { large, ARRAY_SIZE(large) },
    };

    for (int i = 0; i < ARRAY_SIZE(portions); i++) {
        for (int seed = 1; seed < 20; seed++) {
            g_autoptr(Script) s = script_new(seed, 150, 3000);
            MockChannel *mc = mock_channel_reader(s->wire->data,
                                                  s->wire->len);
            g_autoptr(QEMUFile) f = NULL;

            mc->steps = portions[i].steps;
            mc->nsteps = portions[i].n;
            f = open_reader(mc);
            g_assert_cmpuint(script_get(s, f, UINT64_MAX), ==, s->count);
            g_assert_cmpuint(stream_position(f), ==, s->wire->len);
            g_assert_cmpint(qemu_get_byte(f), ==, 0);
            assert_ended(f);
        }
    }
}

/* The stream ends after every number of bytes, in every kind of get. */
static void test_end_anywhere(void)
{
    g_autoptr(Script) s = script_new(77, 60, 60);

    for (size_t end = 0; end < s->wire->len; end++) {
        MockChannel *mc = mock_channel_reader(s->wire->data, s->wire->len);
        g_autoptr(QEMUFile) f = open_reader(mc);

        mc->read_end = end;
        g_assert_cmpuint(script_get(s, f, end), <, s->count);
        assert_ended(f);
        g_assert_cmpuint(qemu_get_be64(f), ==, 0);
        /* Once the end was seen the channel is left alone. */
        uint64_t ops = mc->ops;
        g_assert_cmpint(qemu_peek_byte(f, 0), ==, 0);
        g_assert_cmpuint(mc->ops, ==, ops);
    }
}

/* Asking for nothing, or for what is held, does not touch the channel. */
static void test_lazy(void)
{
    static const uint8_t wire[] = { 1, 2, 3 };
    MockChannel *mc;
    g_autoptr(QEMUFile) f = open_bytes(wire, sizeof(wire), &mc);
    uint8_t buf[4], *p = buf;

    g_assert_cmpuint(qemu_get_buffer(f, buf, 0), ==, 0);
    g_assert_cmpuint(qemu_get_buffer_in_place(f, &p, 0), ==, 0);
    g_assert_cmpuint(mc->ops, ==, 0);
    g_assert_cmpuint(qemu_get_buffer(f, buf, 3), ==, 3);
    g_assert_cmpuint(qemu_get_buffer(f, buf, 0), ==, 0);
    g_assert_cmpuint(mc->ops, ==, 1);
    assert_clean(f);
}

static void test_strings(void)
{
    g_autofree uint8_t *longest = noise(3, 255);
    g_autoptr(GByteArray) wire = g_byte_array_new();
    static const uint8_t begin[] = { 0, 1, 'x', 255 };
    static const uint8_t cut[] = { 4, 'a', 'b', 'c' };
    char buf[256];
    MockChannel *mc;
    QEMUFile *f;

    g_byte_array_append(wire, begin, sizeof(begin));
    g_byte_array_append(wire, longest, 255);
    g_byte_array_append(wire, cut, sizeof(cut));
    f = open_bytes(wire->data, wire->len, &mc);

    memset(buf, 'z', sizeof(buf));
    g_assert_cmpuint(qemu_get_counted_string(f, buf), ==, 0);
    g_assert_cmpstr(buf, ==, "");
    g_assert_cmpuint(qemu_get_counted_string(f, buf), ==, 1);
    g_assert_cmpstr(buf, ==, "x");
    g_assert_cmpuint(qemu_get_counted_string(f, buf), ==, 255);
    g_assert_cmpmem(buf, 256, longest, 256);
    assert_clean(f);
    g_assert_cmpuint(qemu_get_counted_string(f, buf), ==, 0);
    g_assert_cmpstr(buf, ==, "abc");
    assert_ended(f);
    qemu_fclose(f);
}

/*
 * Peeking at all distances, with the window's edge at every place around
 * what is looked at, and the stream ending soon after.
 */
static void test_peek_edges(void)
{
    const size_t len = 2 * STREAM_WINDOW_SIZE + 100;
    g_autofree uint8_t *wire = noise(5, len);
    g_autofree uint8_t *skipped = g_malloc(len);

    for (size_t back = 0; back < 40; back++) {
        MockChannel *mc;
        QEMUFile *f = open_bytes(wire, len, &mc);
        size_t at = STREAM_WINDOW_SIZE - back;
        uint8_t *p;

        /* The first byte fills the window, the rest comes out of it. */
        g_assert_cmpint(qemu_get_byte(f), ==, wire[0]);
        g_assert_cmpuint(qemu_get_buffer(f, skipped, at - 1), ==, at - 1);
        for (size_t n = 1; n < 40; n++) {
            g_assert_cmpuint(qemu_peek_buffer(f, &p, n, 0), ==, n);
            g_assert_cmpmem(p, n, wire + at, n);
            g_assert_cmpuint(qemu_peek_buffer(f, &p, n, n), ==, n);
            g_assert_cmpmem(p, n, wire + at + n, n);
            g_assert_cmpint(qemu_peek_byte(f, n), ==, wire[at + n]);
        }
        g_assert_cmpuint(stream_position(f), ==, at);
        /* A whole window can be looked at from anywhere. */
        g_assert_cmpuint(qemu_peek_buffer(f, &p, STREAM_WINDOW_SIZE, 0), ==,
                         STREAM_WINDOW_SIZE);
        g_assert_cmpmem(p, STREAM_WINDOW_SIZE, wire + at, STREAM_WINDOW_SIZE);
        g_assert_cmpint(qemu_get_byte(f), ==, wire[at]);
        assert_clean(f);
        qemu_fclose(f);
    }
}

/* A peek that the end cuts short returns what there is. */
static void test_peek_end(void)
{
    static const uint8_t wire[] = { 10, 11, 12, 13, 14 };
    MockChannel *mc;
    g_autoptr(QEMUFile) f = open_bytes(wire, sizeof(wire), &mc);
    uint8_t *p = NULL;

    g_assert_cmpint(qemu_peek_byte(f, 4), ==, 14);
    assert_clean(f);
    g_assert_cmpuint(qemu_peek_buffer(f, &p, 4, 3), ==, 2);
    g_assert_cmpmem(p, 2, wire + 3, 2);
    assert_ended(f);
    g_assert_cmpuint(qemu_peek_buffer(f, &p, 1, 5), ==, 0);
    g_assert_cmpint(qemu_peek_byte(f, 5), ==, 0);
    /* What was there before the end is still there. */
    g_assert_cmphex(qemu_get_be32(f), ==, 0x0a0b0c0d);
    g_assert_cmpint(qemu_get_byte(f), ==, 14);
}

static void test_skip(void)
{
    static const uint8_t wire[] = { 1, 2, 3, 4, 5, 6 };
    MockChannel *mc = mock_channel_reader(wire, sizeof(wire));
    g_autoptr(QEMUFile) f = open_reader(mc);

    mock_channel_steps(mc, 4);
    qemu_file_skip(f, 1);           /* nothing peeked at yet */
    g_assert_cmpint(qemu_peek_byte(f, 0), ==, 1);
    qemu_file_skip(f, 0);
    qemu_file_skip(f, -1);
    g_assert_cmpint(qemu_peek_byte(f, 0), ==, 1);
    qemu_file_skip(f, 5);           /* four bytes are there */
    g_assert_cmpint(qemu_peek_byte(f, 0), ==, 1);
    qemu_file_skip(f, 4);
    g_assert_cmpint(qemu_get_byte(f), ==, 5);
    g_assert_cmpuint(stream_position(f), ==, 5);
    assert_clean(f);
}

/*
 * In place: a pointer into the window if the size allows, the caller's
 * memory if not; the data right either way.
 */
static void test_in_place(void)
{
    const size_t len = 3 * STREAM_WINDOW_SIZE;
    g_autofree uint8_t *wire = noise(6, len);
    g_autofree uint8_t *own = g_malloc(len);
    MockChannel *mc;
    QEMUFile *f;
    uint8_t *p = own;

    f = open_bytes(wire, len, &mc);
    g_assert_cmpuint(qemu_get_buffer_in_place(f, &p, 4096), ==, 4096);
    g_assert_true(p != own);
    g_assert_cmpmem(p, 4096, wire, 4096);

    p = own;
    g_assert_cmpuint(qemu_get_buffer_in_place(f, &p, STREAM_WINDOW_SIZE), ==,
                     STREAM_WINDOW_SIZE);
    g_assert_true(p != own);
    g_assert_cmpmem(p, STREAM_WINDOW_SIZE, wire + 4096, STREAM_WINDOW_SIZE);

    p = own;
    g_assert_cmpuint(qemu_get_buffer_in_place(f, &p, STREAM_WINDOW_SIZE + 1),
                     ==, STREAM_WINDOW_SIZE + 1);
    g_assert_true(p == own);
    g_assert_cmpmem(p, STREAM_WINDOW_SIZE + 1,
                    wire + 4096 + STREAM_WINDOW_SIZE, STREAM_WINDOW_SIZE + 1);
    assert_clean(f);

    /* Cut short: what there is, in the caller's memory. */
    size_t left = len - stream_position(f);
    p = own;
    g_assert_cmpuint(qemu_get_buffer_in_place(f, &p, left + 1), ==, left);
    g_assert_true(p == own);
    g_assert_cmpmem(p, left, wire + len - left, left);
    assert_ended(f);
    qemu_fclose(f);
}

/*
 * A large get goes straight to the caller: after what is held, the channel
 * is given the caller's memory, and nothing beyond the window is taken.
 */
static void test_direct(void)
{
    const size_t len = 4 * MiB;
    g_autofree uint8_t *wire = noise(7, len);
    g_autofree uint8_t *own = g_malloc(len);
    MockChannel *mc;
    QEMUFile *f = open_bytes(wire, len, &mc);

    g_assert_cmphex(qemu_get_byte(f), ==, wire[0]);
    g_assert_cmpuint(qemu_get_buffer(f, own, 3 * MiB), ==, 3 * MiB);
    g_assert_cmpmem(own, 3 * MiB, wire + 1, 3 * MiB);
    g_assert_cmpuint(mc->ops, ==, 2);
    g_assert_true(mc->first.iov_base == own + STREAM_WINDOW_SIZE - 1);
    g_assert_cmpuint(mc->pos, ==, 3 * MiB + 1 + STREAM_WINDOW_SIZE);
    g_assert_cmphex(qemu_get_byte(f), ==, wire[3 * MiB + 1]);
    g_assert_cmpuint(mc->ops, ==, 2);
    qemu_fclose(f);
}

/* However it is used, a stream is ahead by the window at most. */
static void test_read_ahead_limit(void)
{
    const size_t len = 8 * MiB;
    g_autofree uint8_t *wire = noise(8, len);
    g_autofree uint8_t *own = g_malloc(2 * STREAM_WINDOW_SIZE);
    MockChannel *mc = mock_channel_reader(wire, len);
    g_autoptr(QEMUFile) f = open_reader(mc);
    uint32_t random = 1;
    uint64_t at = 0;

    mock_channel_steps(mc, 1, 70000, 4096, STREAM_WINDOW_SIZE, 10 * MiB, 13);
    while (at < len - 2 * STREAM_WINDOW_SIZE) {
        size_t want;

        random = random * 1664525 + 1013904223;
        want = (random >> 8) % (2 * STREAM_WINDOW_SIZE);
        if (random >> 31) {
            want %= 300;
        }
        g_assert_cmpuint(qemu_get_buffer(f, own, want), ==, want);
        g_assert_cmpmem(own, want, wire + at, want);
        at += want;
        g_assert_cmpuint(stream_position(f), ==, at);
        g_assert_cmpuint(mc->pos, <=, at + STREAM_WINDOW_SIZE);
    }
}

/* Less is read ahead if somebody says so, and more if it is needed. */
static void test_read_ahead_less(void)
{
    const size_t ahead = 100, len = 3 * STREAM_WINDOW_SIZE;
    g_autofree uint8_t *wire = noise(8, len);
    g_autofree uint8_t *got = g_malloc(len);
    MockChannel *mc;
    g_autoptr(QEMUFile) f = open_bytes(wire, len, &mc);
    uint8_t *p;

    stream_read_ahead(f, ahead);
    g_assert_cmpint(qemu_get_byte(f), ==, wire[0]);
    g_assert_cmpuint(mc->pos, ==, ahead);
    g_assert_cmpuint(qemu_get_buffer(f, got, 5000), ==, 5000);
    g_assert_cmpmem(got, 5000, wire + 1, 5000);
    g_assert_cmpuint(mc->pos, ==, 5001 + ahead);
    g_assert_cmpuint(mc->ops, ==, 2);
    g_assert_cmpuint(qemu_peek_buffer(f, &p, STREAM_WINDOW_SIZE, 0), ==,
                     STREAM_WINDOW_SIZE);
    g_assert_cmpmem(p, STREAM_WINDOW_SIZE, wire + 5001, STREAM_WINDOW_SIZE);
    g_assert_cmpuint(mc->pos, ==, 5001 + STREAM_WINDOW_SIZE);
    assert_clean(f);
}

/* The pattern in which pages arrive, sizes chosen so that edges drift. */
static void test_pages(void)
{
    const size_t pages = 300, page = 4096;
    g_autoptr(GByteArray) wire = g_byte_array_new();
    g_autofree uint8_t *own = g_malloc(page);
    MockChannel *mc;
    QEMUFile *f;

    for (size_t i = 0; i < pages; i++) {
        uint8_t head[8] = { 0, 0, 0, 0, 0, i >> 4, (i << 4) & 0xf0, 8 };
        g_autofree uint8_t *data = noise(i, page);

        g_byte_array_append(wire, head, sizeof(head));
        g_byte_array_append(wire, data, page);
    }
    f = open_bytes(wire->data, wire->len, &mc);
    for (size_t i = 0; i < pages; i++) {
        g_autofree uint8_t *data = noise(i, page);

        g_assert_cmphex(qemu_get_be64(f), ==, i << 12 | 8);
        g_assert_cmpuint(qemu_get_buffer(f, own, page), ==, page);
        g_assert_cmpmem(own, page, data, page);
    }
    assert_clean(f);
    g_assert_cmpuint(mc->ops, <=, wire->len / STREAM_WINDOW_SIZE + 1);
    qemu_fclose(f);
}

/* More than 4 GiB: in one get, and as a position. */
static void test_huge(void)
{
    MockChannel *mc = mock_channel_weightless();
    g_autoptr(QEMUFile) f = open_reader(mc);
    const uint64_t size = 5 * GiB + 3;
    /* The mock does not touch it; only what the window holds is copied. */
    uint8_t *nowhere = mmap(NULL, size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                            -1, 0);

    g_assert_true(nowhere != MAP_FAILED);
    mc->read_end = 2 * size;
    g_assert_cmpuint(qemu_get_buffer(f, nowhere, size), ==, size);
    g_assert_cmpuint(stream_position(f), ==, size);
    g_assert_cmpuint(mc->ops, ==, DIV_ROUND_UP(size, MOCK_KERNEL_MAX));
    assert_clean(f);

    mc->read_end = mc->pos + 4 * GiB + 1;
    size_t rest = mc->read_end - stream_position(f);
    g_assert_cmpuint(qemu_get_buffer(f, nowhere, size), ==, rest);
    assert_ended(f);
    munmap(nowhere, size);
}

static int temporary_file(void)
{
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("test-stream-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    unlink(path);
    return fd;
}

static void test_to_fd(void)
{
    const size_t len = 3 * STREAM_WINDOW_SIZE + 17;
    g_autofree uint8_t *wire = noise(9, len);
    g_autofree uint8_t *copy = g_malloc(len);
    MockChannel *mc = mock_channel_reader(wire, len);
    QEMUFile *f = open_reader(mc);
    int fd = temporary_file();

    mock_channel_steps(mc, 100000, 1, 0);
    g_assert_cmphex(qemu_get_be16(f), ==, wire[0] << 8 | wire[1]);
    g_assert_cmpint(qemu_file_get_to_fd(f, fd, 0), ==, 0);
    g_assert_cmpint(qemu_file_get_to_fd(f, fd, len - 10), ==, 0);
    g_assert_cmphex(qemu_get_byte(f), ==, wire[len - 8]);
    assert_clean(f);
    g_assert_cmpint(pread(fd, copy, len, 0), ==, len - 10);
    g_assert_cmpmem(copy, len - 10, wire + 2, len - 10);

    /* The stream ends first: what there is goes out, then the error. */
    g_assert_cmpint(qemu_file_get_to_fd(f, fd, 8), ==, -EIO);
    g_assert_cmpint(pread(fd, copy, len, len - 10), ==, 7);
    g_assert_cmpmem(copy, 7, wire + len - 7, 7);
    assert_ended(f);
    qemu_fclose(f);
    close(fd);
}

/* A descriptor that cannot be written is the caller's error. */
static void test_to_bad_fd(void)
{
    static const uint8_t wire[] = { 1, 2, 3 };
    MockChannel *mc;
    g_autoptr(QEMUFile) f = open_bytes(wire, sizeof(wire), &mc);
    int fd = open("/dev/null", O_RDONLY);

    g_assert_cmpint(qemu_file_get_to_fd(f, fd, 2), ==, -EBADF);
    assert_clean(f);
    g_assert_cmpint(qemu_get_byte(f), ==, 1);
    close(fd);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/stream/get/numbers", test_numbers);
    g_test_add_func("/stream/get/portions", test_portions);
    g_test_add_func("/stream/get/end-anywhere", test_end_anywhere);
    g_test_add_func("/stream/get/lazy", test_lazy);
    g_test_add_func("/stream/get/strings", test_strings);
    g_test_add_func("/stream/get/peek-edges", test_peek_edges);
    g_test_add_func("/stream/get/peek-end", test_peek_end);
    g_test_add_func("/stream/get/skip", test_skip);
    g_test_add_func("/stream/get/in-place", test_in_place);
    g_test_add_func("/stream/get/direct", test_direct);
    g_test_add_func("/stream/get/read-ahead-limit", test_read_ahead_limit);
    g_test_add_func("/stream/get/read-ahead-less", test_read_ahead_less);
    g_test_add_func("/stream/get/pages", test_pages);
    if (sizeof(size_t) > 4) {
        g_test_add_func("/stream/get/huge", test_huge);
    }
    g_test_add_func("/stream/get/to-fd", test_to_fd);
    g_test_add_func("/stream/get/to-bad-fd", test_to_bad_fd);
    return g_test_run();
}
