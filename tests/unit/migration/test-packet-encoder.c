/*
 * Unit tests of payloads whose compression changes from packet to packet
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What is encoded is decoded by the decoders of a receiver, one a method, and
 * compared.  The automatic choice is made by the tests: when it is made is the
 * business of test-codec-choice.c.
 */

#include "qemu/osdep.h"
#include <sched.h>
#include "qemu/iov.h"
#include "area.h"
#include "setup.h"
#include "migration/base/stats.h"
#include "migration/multifd/packet-encoder.h"
#include "migration/wire/wire.h"

#define PAGE 4096u
#define PAGES 128u
#define BYTES (PAGES * PAGE)

/* A sender and what a receiver has for it */
typedef struct Way {
    PacketEncoder encoder;
    void *decoders[MULTIFD_COMPRESSION__MAX];
    uint8_t *from, *to;
} Way;

static void way_init(Way *w, MultiFDCompression method)
{
    *w = (Way) { .from = area_new(BYTES), .to = area_new(BYTES) };
    migration_rate_set(RATE_LIMIT_DISABLED);
    g_assert_true(packet_encoder_init(&w->encoder, method, 1, PAGE, 2,
                                      &error_abort));
}

static void way_destroy(Way *w)
{
    for (int i = 0; i < MULTIFD_COMPRESSION__MAX; i++) {
        if (w->decoders[i]) {
            codec_find(i)->decoder_free(w->decoders[i]);
        }
    }
    packet_encoder_destroy(&w->encoder);
    area_free(w->from, BYTES);
    area_free(w->to, BYTES);
}

static void fill_with_noise(uint8_t *to, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 4) {
        stl_he_p(to + i, g_test_rand_int());
    }
}

static void fill_with_text(uint8_t *to, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        to[i] = "etaoin shrdlu\n"[g_test_rand_int_range(0, 14)];
    }
}

static void decode_packet(Way *w, MultiFDCompression method,
                          const uint8_t *bytes, size_t len, unsigned pages)
{
    g_autofree uint8_t *in = g_memdup2(bytes, len);
    struct iovec to = { w->to, pages * PAGE };
    const Codec *codec = codec_find(method);

    if (!w->decoders[method]) {
        w->decoders[method] = codec->decoder_new(PAGE, &error_abort);
    }
    memset(w->to, 0, BYTES);
    g_assert_true(codec->decode(w->decoders[method], in, len, &to, 1,
                                &error_abort));
    g_assert_cmpmem(w->from, pages * PAGE, w->to, pages * PAGE);
}

/* The first @pages of what is there, as a packet; returns its method. */
static MultiFDCompression send_packet(Way *w, unsigned pages)
{
    struct iovec runs[2] = {
        { w->from, pages / 2 * PAGE },
        { w->from + pages / 2 * PAGE, (pages - pages / 2) * PAGE },
    };
    MultiFDCompression method;
    const uint8_t *out;
    uint32_t flag;
    ssize_t len = packet_encoder_encode(&w->encoder, runs, 2, &out, &flag,
                                        &error_abort);

    g_assert_cmpint(len, >, 0);
    g_assert_true(codec_by_flag(flag, &method));
    g_assert_cmpint(method, ==, w->encoder.last_method);
    g_assert_cmpint(!out, ==, method == MULTIFD_COMPRESSION_NONE);
    if (out) {
        decode_packet(w, method, out, len, pages);
    } else {
        g_assert_cmpint(len, ==, pages * PAGE);
    }
    packet_encoder_sent(&w->encoder, len);
    return method;
}

static void set(Way *w, MultiFDCompression method, int level)
{
    g_assert_true(packet_encoder_set(&w->encoder, method, level,
                                     &error_abort));
}

/* Methods and levels change in the middle. */
static void test_set(void)
{
    static const struct {
        MultiFDCompression method;
        int level;
    } steps[] = {
        { MULTIFD_COMPRESSION_NONE, 0 },
        { MULTIFD_COMPRESSION_ZLIB, 1 },
        { MULTIFD_COMPRESSION_ZLIB, 9 },
#ifdef CONFIG_ZSTD
        { MULTIFD_COMPRESSION_ZSTD, 1 },
        { MULTIFD_COMPRESSION_ZSTD, 12 },
        { MULTIFD_COMPRESSION_ZSTD, 2 },
#endif
        { MULTIFD_COMPRESSION_ZLIB, 0 },
        { MULTIFD_COMPRESSION_NONE, 0 },
    };
    Way w;

    way_init(&w, MULTIFD_COMPRESSION_NONE);
    for (unsigned i = 0; i < 200; i++) {
        unsigned step = g_test_rand_int_range(0, ARRAY_SIZE(steps));

        set(&w, steps[step].method, steps[step].level);
        for (unsigned n = g_test_rand_int_range(0, 3); n; n--) {
            unsigned pages = g_test_rand_int_range(1, PAGES + 1);

            if (g_test_rand_bit()) {
                fill_with_text(w.from, BYTES);
            } else {
                fill_with_noise(w.from, BYTES);
            }
            g_assert_cmpint(send_packet(&w, pages), ==, steps[step].method);
        }
    }
    way_destroy(&w);
}

/* A packet of zeros alone has the flag that a receiver waits for. */
static void test_nothing(void)
{
    const uint8_t *out;
    uint32_t flag;
    Way w;

    way_init(&w, MULTIFD_COMPRESSION_ZLIB);
    g_assert_cmpint(packet_encoder_encode(&w.encoder, NULL, 0, &out, &flag,
                                          &error_abort), ==, 0);
    g_assert_cmphex(flag, ==, WIRE_MULTIFD_ZLIB);
    way_destroy(&w);
}

#ifdef CONFIG_ZSTD
/* The next packet is the first one that the choice hears of. */
static void force_way(Way *w, CodecWay way)
{
    codec_choice_init(&w->encoder.choice, 0);
    w->encoder.choice.way = way;
    w->encoder.clock.at_ns = 0;
}

/* Text is compressed and noise is not, in whatever order they come. */
static void test_noise(void)
{
    unsigned compressed = 0;
    Way w;

    way_init(&w, MULTIFD_COMPRESSION_AUTO);
    for (unsigned i = 0; i < 100; i++) {
        bool text = i / 10 % 2;

        force_way(&w, CODEC_WAY_NORMAL);
        if (text) {
            fill_with_text(w.from, BYTES);
        } else {
            fill_with_noise(w.from, BYTES);
        }
        if (send_packet(&w, PAGES) == MULTIFD_COMPRESSION_ZSTD) {
            compressed++;
        } else {
            g_assert_false(text);
        }
    }
    /* after text three packets are not looked at */
    g_assert_cmpuint(compressed, >=, 50);
    g_assert_cmpuint(compressed, <=, 65);
    way_destroy(&w);
}

static void test_levels(void)
{
    Way w;

    way_init(&w, MULTIFD_COMPRESSION_AUTO);
    for (unsigned i = 0; i < 100; i++) {
        CodecWay way = g_test_rand_int_range(0, CODEC_WAY__MAX);

        force_way(&w, way);
        fill_with_text(w.from, BYTES);
        g_assert_cmpint(send_packet(&w, PAGES), ==,
                        way == CODEC_WAY_PLAIN ? MULTIFD_COMPRESSION_NONE
                                               : MULTIFD_COMPRESSION_ZSTD);
        if (i % 10 == 0) {
            packet_encoder_rest(&w.encoder);
        }
    }
    way_destroy(&w);
}

/* Packets of few pages, and of none */
static void test_small(void)
{
    const uint8_t *out;
    uint32_t flag;
    Way w;

    way_init(&w, MULTIFD_COMPRESSION_AUTO);
    fill_with_text(w.from, BYTES);
    for (unsigned pages = 1; pages < PAGES; pages++) {
        force_way(&w, pages % CODEC_WAY__MAX);
        send_packet(&w, pages);
    }
    g_assert_cmpint(packet_encoder_encode(&w.encoder, NULL, 0, &out, &flag,
                                          &error_abort), ==, 0);
    g_assert_cmphex(flag, ==, WIRE_MULTIFD_NONE);
    way_destroy(&w);
}

#ifdef CONFIG_LINUX
static void *spin(void *stop)
{
    while (!qatomic_read((bool *)stop)) {
        continue;
    }
    return NULL;
}

static int64_t thread_cpu_us(void)
{
    struct timespec ts;

    g_assert_cmpint(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts), ==, 0);
    return ts.tv_sec * G_USEC_PER_SEC + ts.tv_nsec / 1000;
}

/*
 * This thread, and those that it creates, on the first of its CPUs.  False if
 * that is forbidden, or if there are more CPUs than the set has room for.
 */
static bool share_a_cpu(cpu_set_t *before)
{
    cpu_set_t one;
    int cpu = 0;

    if (sched_getaffinity(0, sizeof(*before), before)) {
        return false;
    }
    while (!CPU_ISSET(cpu, before)) {
        cpu++;
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    return !sched_setaffinity(0, sizeof(one), &one);
}

/* Time in which another thread has the CPU is not taken for a wait. */
static void test_busy(void)
{
    int64_t wall, cpu, preempted = 0;
    bool stop = false;
    QemuThread other;
    cpu_set_t before;
    struct iovec memory;
    const uint8_t *out;
    uint32_t flag;
    Way w;

    if (!share_a_cpu(&before)) {
        g_test_skip("threads cannot be bound to a CPU");
        return;
    }
    way_init(&w, MULTIFD_COMPRESSION_AUTO);
    memory = (struct iovec) { w.from, BYTES };
    fill_with_text(w.from, BYTES);
    qemu_thread_create(&other, "spin", spin, &stop, QEMU_THREAD_JOINABLE);
    wall = g_get_monotonic_time();
    cpu = thread_cpu_us();
    for (unsigned i = 0; i < 1500; i++) {
        force_way(&w, CODEC_WAY_STRONG);
        packet_encoder_encode(&w.encoder, &memory, 1, &out, &flag,
                              &error_abort);
        preempted += w.encoder.clock.preempted_ns / 1000;
    }
    wall = g_get_monotonic_time() - wall;
    cpu = thread_cpu_us() - cpu;
    qatomic_set(&stop, true);
    qemu_thread_join(&other);
    g_assert_cmpint(sched_setaffinity(0, sizeof(before), &before), ==, 0);
    g_assert_cmpint(wall, >, cpu * 1.2);
    g_assert_cmpint(preempted, >, (wall - cpu) / 2);
    way_destroy(&w);
}
#endif

/* A rate that is lower than what could be sent: text is compressed by itself */
static void test_rate(void)
{
    const uint64_t rate = 20 * 1000 * 1000;
    int64_t began, due = 0;
    Way w;

    way_init(&w, MULTIFD_COMPRESSION_AUTO);
    migration_rate_set(2 * rate);
    fill_with_text(w.from, BYTES);
    began = g_get_monotonic_time();
    while (w.encoder.choice.way == CODEC_WAY_PLAIN) {
        send_packet(&w, PAGES);
        packet_encoder_rest(&w.encoder);
        due += (uint64_t)BYTES * G_USEC_PER_SEC / rate;
        g_usleep(MAX(began + due - g_get_monotonic_time(), 0));
        g_assert_cmpint(due, <, 5 * G_USEC_PER_SEC);
    }
    g_assert_cmpint(send_packet(&w, PAGES), ==, MULTIFD_COMPRESSION_ZSTD);
    way_destroy(&w);
    migration_rate_set(RATE_LIMIT_DISABLED);
}
#endif

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/migration/packet-encoder/set", test_set);
    g_test_add_func("/migration/packet-encoder/nothing", test_nothing);
#ifdef CONFIG_ZSTD
    g_test_add_func("/migration/packet-encoder/noise", test_noise);
    g_test_add_func("/migration/packet-encoder/levels", test_levels);
    g_test_add_func("/migration/packet-encoder/small", test_small);
#ifdef CONFIG_LINUX
    g_test_add_func("/migration/packet-encoder/busy", test_busy);
#endif
    g_test_add_func("/migration/packet-encoder/rate", test_rate);
#endif
    return g_test_run();
}
