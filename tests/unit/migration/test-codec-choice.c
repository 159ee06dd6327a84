/*
 * Unit tests of the choice of a compression, on channels that are made up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A channel is a thread that needs so much time for a byte, and a link that
 * needs so much; each is the limit when it is slower.  Time is virtual.
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "migration/multifd/codec-choice.h"

#define STEP_NS (5 * SCALE_MS)
#define TRIAL_BYTES (32 * KiB)
#define GBIT 8.0                /* ns a byte of 1 Gb/s */

/* What encoding does to some memory */
typedef struct Memory {
    double ratio[CODEC_WAY__MAX];
    double ns[CODEC_WAY__MAX];          /* a byte */
} Memory;

static const Memory text = {
    .ratio = { 1, 0.36, 0.28, 0.25 },
    .ns = { 0, 1.8, 2.6, 5.0 },
};
static const Memory noise = {
    .ratio = { 1, 1.0, 1.0, 1.0 },
    .ns = { 0, 0.6, 0.8, 1.5 },
};

typedef struct Channel {
    CodecChoice choice;
    const Memory *memory;
    int64_t now;
    double other_ns;            /* a byte of memory, besides encoding */
    double link_ns;             /* a byte on the link */
    double slower;              /* encoding, in fact, than trials say; 0: as */
    double jitter;              /* of each step, as a part of it */
    uint64_t moved;             /* bytes of memory */
    unsigned changes;           /* of the way */
    int64_t changed_ns;         /* when it was changed last */
} Channel;

static void channel_init(Channel *ch, const Memory *memory, double link_ns)
{
    *ch = (Channel) {
        .memory = memory,
        .now = 1000 * SCALE_MS,
        .other_ns = 0.4,
        .link_ns = link_ns,
    };
    codec_choice_init(&ch->choice, ch->now);
}

static double cpu_ns(const Channel *ch, int way)
{
    return ch->other_ns + ch->memory->ns[way] * (ch->slower ?: 1);
}

/* A byte of memory, with that way */
static double byte_ns(const Channel *ch, int way)
{
    return MAX(cpu_ns(ch, way), ch->memory->ratio[way] * ch->link_ns);
}

static void channel_trial(Channel *ch)
{
    CodecWay way = codec_choice_trial_due(&ch->choice);

    if (way != CODEC_WAY_PLAIN) {
        codec_choice_tried(&ch->choice, way, TRIAL_BYTES,
                           TRIAL_BYTES * ch->memory->ratio[way],
                           TRIAL_BYTES * ch->memory->ns[way]);
    }
}

static void channel_step(Channel *ch)
{
    CodecWay way = ch->choice.way;
    double shake = 1 + ch->jitter * g_test_rand_double_range(-1, 1);
    uint64_t bytes = STEP_NS / byte_ns(ch, way) * shake;
    CodecUse use = {
        .wall_ns = STEP_NS,
        .memory = bytes,
        .sent = bytes * ch->memory->ratio[way],
        .encode_ns = bytes * ch->memory->ns[way] * (ch->slower ?: 1),
    };

    use.waited_ns = STEP_NS - MIN(STEP_NS, bytes * cpu_ns(ch, way));
    channel_trial(ch);
    ch->now += STEP_NS;
    ch->moved += bytes;
    if (codec_choice_used(&ch->choice, &use, ch->now) != way) {
        ch->changes++;
        ch->changed_ns = ch->now;
    }
}

/* Returns how long a byte of memory took on average. */
static double channel_run(Channel *ch, int64_t ms)
{
    int64_t end = ch->now + ms * SCALE_MS;
    uint64_t before = ch->moved;

    ch->changes = 0;
    while (ch->now < end) {
        channel_step(ch);
    }
    return (double)ms * SCALE_MS / (ch->moved - before);
}

/* With the better one of none and Zstandard's usual level, all the time */
static double better_of_two(const Channel *ch)
{
    return MIN(byte_ns(ch, CODEC_WAY_PLAIN), byte_ns(ch, CODEC_WAY_NORMAL));
}

static void test_fast_link(void)
{
    Channel ch;
    double ns;

    channel_init(&ch, &text, 0.2);
    ns = channel_run(&ch, 20000);
    g_assert_cmpint(ch.choice.way, ==, CODEC_WAY_PLAIN);
    g_assert_cmpuint(ch.changes, ==, 0);
    g_assert_cmpfloat(ns, <=, better_of_two(&ch) * 1.001);
}

/* A link that is slower than the thread, and still faster than compression */
static void test_busy_link(void)
{
    Channel ch;

    channel_init(&ch, &text, 1.5);
    channel_run(&ch, 20000);
    g_assert_cmpint(ch.choice.way, ==, CODEC_WAY_PLAIN);
    g_assert_cmpuint(ch.changes, ==, 0);
}

static void test_slow_link(void)
{
    Channel ch;
    double ns;

    channel_init(&ch, &text, GBIT);
    ns = channel_run(&ch, 10000);
    g_assert_cmpint(ch.choice.way, !=, CODEC_WAY_PLAIN);
    g_assert_cmpfloat(ns, <=, better_of_two(&ch) * 1.05);
    ns = channel_run(&ch, 60000);
    g_assert_cmpfloat(ns, <=, better_of_two(&ch) * 1.03);
}

/* So slow that the strongest way pays */
static void test_slowest_link(void)
{
    Channel ch;

    channel_init(&ch, &text, 10 * GBIT);
    channel_run(&ch, 10000);
    g_assert_cmpint(ch.choice.way, ==, CODEC_WAY_STRONG);
}

static void test_noise(void)
{
    static const double links[] = { 0.2, 1.5, GBIT, 10 * GBIT };

    for (unsigned i = 0; i < ARRAY_SIZE(links); i++) {
        Channel ch;

        channel_init(&ch, &noise, links[i]);
        channel_run(&ch, 20000);
        g_assert_cmpint(ch.choice.way, ==, CODEC_WAY_PLAIN);
        g_assert_cmpuint(ch.changes, ==, 0);
    }
}

static void test_limit_comes(void)
{
    Channel ch;
    double ns;
    int64_t came;

    channel_init(&ch, &text, 0.2);
    channel_run(&ch, 5000);
    g_assert_cmpint(ch.choice.way, ==, CODEC_WAY_PLAIN);
    ch.link_ns = GBIT;
    came = ch.now;
    channel_run(&ch, 2000);
    g_assert_cmpint(ch.choice.way, !=, CODEC_WAY_PLAIN);
    g_assert_cmpint(ch.changed_ns - came, <, 1000 * SCALE_MS);
    ns = channel_run(&ch, 10000);
    g_assert_cmpfloat(ns, <=, better_of_two(&ch) * 1.05);
}

static void test_limit_goes(void)
{
    Channel ch;
    double ns;

    channel_init(&ch, &text, GBIT);
    channel_run(&ch, 20000);
    ch.link_ns = 0.2;
    ns = channel_run(&ch, 20000);
    g_assert_cmpint(ch.choice.way, ==, CODEC_WAY_PLAIN);
    g_test_message("%.2f ns a byte, at best %.2f", ns, better_of_two(&ch));
    channel_run(&ch, 60000);
    g_assert_cmpuint(ch.changes, ==, 0);
}

/* The rate is known: it is not looked what happens without compression. */
static void test_rate(void)
{
    Channel ch;
    double ns;

    channel_init(&ch, &text, 1.0);
    codec_choice_rate(&ch.choice, 125 * 1000 * 1000, ch.now);
    ch.link_ns = GBIT;
    channel_run(&ch, 2000);
    g_assert_cmpint(ch.choice.way, !=, CODEC_WAY_PLAIN);
    channel_run(&ch, 2000);
    ns = channel_run(&ch, 20000);
    g_assert_cmpuint(ch.changes, ==, 0);
    g_assert_cmpfloat(ns, <=, better_of_two(&ch) * 1.01);

    codec_choice_rate(&ch.choice, 0, ch.now);
    ch.link_ns = 0.2;
    channel_run(&ch, 3000);
    g_assert_cmpint(ch.choice.way, ==, CODEC_WAY_PLAIN);
}

static void test_content_changes(void)
{
    Channel ch;

    channel_init(&ch, &text, GBIT);
    for (int i = 0; i < 4; i++) {
        ch.memory = i % 2 ? &noise : &text;
        channel_run(&ch, 5000);
        g_assert_cmpint(ch.choice.way == CODEC_WAY_PLAIN, ==, i % 2);
    }
}

/*
 * No CPU is left: encoding takes far longer than trials, which are judged by
 * their CPU time, make believe.
 */
static void test_busy_host(void)
{
    Channel ch;
    double ns;

    channel_init(&ch, &text, 6);
    ch.slower = 6;
    channel_run(&ch, 2000);
    ns = channel_run(&ch, 60000);
    g_assert_cmpfloat(ns, <=, better_of_two(&ch) * 1.05);
}

/* What is measured varies, and the choice does not. */
static void test_no_flapping(void)
{
    static const double links[] = { 0.2, 1.5, 2.6, 3.0, 4, GBIT, 20, 80 };

    for (unsigned i = 0; i < ARRAY_SIZE(links); i++) {
        Channel ch;
        double ns;

        channel_init(&ch, &text, links[i]);
        ch.jitter = 0.2;
        channel_run(&ch, 3000);
        ns = channel_run(&ch, 30000);
        g_test_message("link %.1f ns: %.2f ns a byte, %.2f at best, way %d, "
                       "%u changes", links[i], ns, better_of_two(&ch),
                       ch.choice.way, ch.changes);
        g_assert_cmpfloat(ns, <=, better_of_two(&ch) * 1.05);
        /* a probe is two changes */
        g_assert_cmpuint(ch.changes, <=, 12);
    }
}

/*
 * Where there is a rate to keep to the thread waits anyway: the ways are known
 * after the first window, though encoding takes this long.
 */
static void test_first_trials(void)
{
    static const Memory slow = {
        .ratio = { 1, 0.5, 0.4, 0.38 },
        .ns = { 0, 5, 8, 15 },
    };
    Channel ch;

    channel_init(&ch, &slow, 2 * GBIT);
    codec_choice_rate(&ch.choice, 62500 * 1000, ch.now);
    channel_run(&ch, 150);
    g_assert_cmpint(ch.choice.way, !=, CODEC_WAY_PLAIN);
    g_assert_cmpuint(ch.choice.trial_ns, <, 7 * SCALE_MS);

    /* without one it costs no more than 1 % */
    channel_init(&ch, &slow, 0.2);
    channel_run(&ch, 150);
    g_assert_cmpuint(ch.choice.trial_ns, <, 2500 * SCALE_US);
}

/* Trials take little of the thread's time. */
static void test_trials(void)
{
    Channel ch;

    channel_init(&ch, &text, 0.2);
    channel_run(&ch, 10000);
    g_assert_cmpuint(ch.choice.trial_ns, <=, ch.choice.elapsed_ns / 50);
    g_assert_cmpuint(ch.choice.trial_ns, >, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration/codec-choice/fast-link", test_fast_link);
    g_test_add_func("/migration/codec-choice/busy-link", test_busy_link);
    g_test_add_func("/migration/codec-choice/slow-link", test_slow_link);
    g_test_add_func("/migration/codec-choice/slowest-link", test_slowest_link);
    g_test_add_func("/migration/codec-choice/noise", test_noise);
    g_test_add_func("/migration/codec-choice/limit-comes", test_limit_comes);
    g_test_add_func("/migration/codec-choice/limit-goes", test_limit_goes);
    g_test_add_func("/migration/codec-choice/rate", test_rate);
    g_test_add_func("/migration/codec-choice/content-changes",
                    test_content_changes);
    g_test_add_func("/migration/codec-choice/busy-host", test_busy_host);
    g_test_add_func("/migration/codec-choice/no-flapping", test_no_flapping);
    g_test_add_func("/migration/codec-choice/first-trials", test_first_trials);
    g_test_add_func("/migration/codec-choice/trials", test_trials);
    return g_test_run();
}
