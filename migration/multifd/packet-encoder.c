/*
 * The payload of a channel's packets, compressed or not
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/iov.h"
#include "qemu/units.h"
#include "migration/base/clock.h"
#include "migration/base/stats.h"
#include "migration/wire/wire.h"
#include "packet-encoder.h"

/* Levels of Zstandard */
static const int way_level[CODEC_WAY__MAX] = {
    [CODEC_WAY_FAST] = -1,
    [CODEC_WAY_NORMAL] = 1,
    [CODEC_WAY_STRONG] = 3,
};

/* Without it 'auto' is refused, see codec_exists(). */
#ifdef CONFIG_ZSTD
#define METHOD_THAT_PAYS MULTIFD_COMPRESSION_ZSTD
#else
#define METHOD_THAT_PAYS MULTIFD_COMPRESSION_NONE
#endif

/* Of packets that are smaller nothing is compressed for a trial. */
#define PACKET_BYTES_MIN (64 * KiB)
/* A trial that says how good a way is: so many pieces of so many bytes */
#define TRIAL_PIECES 8
#define TRIAL_PIECE_BYTES 4096
#define TRIAL_ROOM (2 * TRIAL_PIECES * TRIAL_PIECE_BYTES)
/* One that says whether a packet can be compressed at all */
#define TEST_PIECES 16
#define TEST_PIECE_BYTES 512
/* It cannot if more than this is left. */
#define TEST_LEFT 0.97
/* After one that can, so many packets are taken for the same. */
#define TEST_EVERY 4

static void *encoder_of(PacketEncoder *e, MultiFDCompression method, int level,
                        Error **errp)
{
    void **encoder = &e->encoders[method];

    if (!*encoder) {
        *encoder = codec_find(method)->encoder_new(level, e->page, errp);
    } else {
        codec_find(method)->encoder_level(*encoder, level);
    }
    return *encoder;
}

/* Of what is set: with AUTO nothing is compressed at first. */
static bool prepare_method(PacketEncoder *e, Error **errp)
{
    if (!codec_exists(e->method, errp)) {
        return false;
    }
    if (packet_encoder_compresses(e) && !e->encoded) {
        e->encoded = g_malloc(WIRE_MULTIFD_PAYLOAD_MAX);
    }
    if (e->method == MULTIFD_COMPRESSION_AUTO) {
        codec_choice_init(&e->choice, now_ns());
        e->clock = (EncoderClock) { };
        return true;
    }
    return !codec_find(e->method) || encoder_of(e, e->method, e->level, errp);
}

bool packet_encoder_init(PacketEncoder *e, MultiFDCompression method, int level,
                         size_t page, unsigned channels, Error **errp)
{
    *e = (PacketEncoder) {
        .method = method, .level = level, .page = page, .channels = channels,
    };
    return prepare_method(e, errp);
}

void packet_encoder_destroy(PacketEncoder *e)
{
    for (int i = 0; i < MULTIFD_COMPRESSION__MAX; i++) {
        if (e->encoders[i]) {
            codec_find(i)->encoder_free(e->encoders[i]);
        }
    }
    for (int i = 0; i < CODEC_WAY__MAX; i++) {
        if (e->trials[i]) {
            codec_automatic()->encoder_free(e->trials[i]);
        }
    }
    g_free(e->encoded);
    *e = (PacketEncoder) { };
}

bool packet_encoder_set(PacketEncoder *e, MultiFDCompression method, int level,
                        Error **errp)
{
    MultiFDCompression old_method = e->method;
    int old_level = e->level;

    e->method = method;
    e->level = level;
    if (!prepare_method(e, errp)) {
        e->method = old_method;
        e->level = old_level;
        return false;
    }
    return true;
}

/*
 * Time
 */

/* CPU time of this thread; without such a clock it seems never to wait. */
static int64_t thread_cpu_ns(void)
{
#ifdef CLOCK_THREAD_CPUTIME_ID
    struct timespec ts;

    if (!clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts)) {
        return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
    }
#endif
    return now_ns();
}

/*
 * What was done since the last call is what the choice learns from.  A rest
 * counts if there is a rate to keep to: then the rate is why.  Who lost the CPU
 * in the encoder or a trial did not wait for the link: less work is what helps.
 */
static void tell_choice(PacketEncoder *e)
{
    EncoderClock *clock = &e->clock;
    int64_t now = now_ns(), cpu = thread_cpu_ns();
    uint64_t rate = migration_rate_get();
    CodecUse use = {
        .wall_ns = now - clock->at_ns,
        .encode_ns = clock->encode_ns,
        .memory = clock->memory,
        .sent = clock->sent,
    };

    if (!clock->at_ns || (clock->rests && rate == RATE_LIMIT_DISABLED)) {
        use = (CodecUse) { };
    }
    use.waited_ns = use.wall_ns - MIN(use.wall_ns, cpu - clock->cpu_ns +
                                                   clock->preempted_ns);
    *clock = (EncoderClock) { .at_ns = now, .cpu_ns = cpu };
    codec_choice_rate(&e->choice, rate / e->channels, now);
    codec_choice_used(&e->choice, &use, now);
}

/*
 * What was begun at @began is done.  Nothing waits in between.  The time is
 * looked at last: a thread often loses its CPU at the end of a system call.
 */
static void note_encoded(EncoderClock *clock, int64_t began)
{
    int64_t cpu = thread_cpu_ns() - clock->cpu_ns;
    int64_t now = now_ns(), took = now - clock->at_ns;

    clock->encode_ns = now - began;
    clock->preempted_ns = took - MIN(took, cpu);
}

/*
 * Trials
 */

/* Up to @count pieces of @bytes each, spread over @runs; returns how many */
static unsigned pick_pieces(const struct iovec *runs, unsigned n,
                            struct iovec *pieces, unsigned count, size_t bytes)
{
    size_t step = iov_size(runs, n) / count, at = 0;
    unsigned picked = 0;

    for (; n && picked < count; runs++, n--) {
        while (picked < count && at + bytes <= runs->iov_len) {
            pieces[picked++] = (struct iovec) {
                .iov_base = (uint8_t *)runs->iov_base + at, .iov_len = bytes,
            };
            at += step;
        }
        at -= MIN(at, runs->iov_len);
    }
    return picked;
}

/* Returns what is left of each byte, or 1 if that cannot be said. */
static double encode_trial(void *encoder, const struct iovec *pieces,
                           unsigned n)
{
    g_autofree uint8_t *out = g_malloc(TRIAL_ROOM);
    size_t bytes = iov_size(pieces, n);
    ssize_t len = encoder && bytes
                  ? codec_automatic()->encode(encoder, pieces, n, out,
                                              TRIAL_ROOM, NULL)
                  : -1;

    return len < 0 ? 1 : (double)len / bytes;
}

/* What is encoded first takes longer: it is no measure. */
static void *trial_encoder(PacketEncoder *e, CodecWay way)
{
    static const uint8_t zeros[TRIAL_PIECE_BYTES];
    struct iovec piece = { (void *)zeros, sizeof(zeros) };

    if (!e->trials[way]) {
        e->trials[way] = codec_automatic()->encoder_new(way_level[way],
                                                        e->page, NULL);
        encode_trial(e->trials[way], &piece, 1);
    }
    return e->trials[way];
}

/* If it is time for that: how good one of the ways is for this memory */
static bool try_one_way(PacketEncoder *e, const struct iovec *runs, unsigned n)
{
    CodecWay way = codec_choice_trial_due(&e->choice);
    struct iovec pieces[TRIAL_PIECES];
    int64_t began;
    void *encoder;
    size_t bytes;
    double left;

    if (way == CODEC_WAY_PLAIN) {
        return false;
    }
    n = pick_pieces(runs, n, pieces, TRIAL_PIECES, TRIAL_PIECE_BYTES);
    bytes = iov_size(pieces, n);
    encoder = trial_encoder(e, way);
    began = thread_cpu_ns();
    left = encode_trial(encoder, pieces, n);
    if (bytes) {
        codec_choice_tried(&e->choice, way, bytes, left * bytes,
                           thread_cpu_ns() - began);
    }
    return bytes;
}

/* Each of them at most once, as they are compared */
static void try_ways(PacketEncoder *e, const struct iovec *runs, unsigned n)
{
    for (int way = CODEC_WAY_FAST; way < CODEC_WAY__MAX; way++) {
        if (!try_one_way(e, runs, n)) {
            return;
        }
    }
}

static bool looks_random(PacketEncoder *e, const struct iovec *runs, unsigned n)
{
    struct iovec pieces[TEST_PIECES];

    if (e->untested) {
        e->untested--;
        return false;
    }
    n = pick_pieces(runs, n, pieces, TEST_PIECES, TEST_PIECE_BYTES);
    /* negative levels do not see that some bytes are more frequent */
    if (encode_trial(trial_encoder(e, CODEC_WAY_NORMAL), pieces, n) >
        TEST_LEFT) {
        return true;
    }
    e->untested = TEST_EVERY - 1;
    return false;
}

/*
 * Packets
 */

static ssize_t encode_with(PacketEncoder *e, MultiFDCompression method,
                           int level, const struct iovec *runs, unsigned n,
                           const uint8_t **out, uint32_t *flag, Error **errp)
{
    const Codec *codec = codec_find(method);
    void *encoder;

    e->last_method = method;
    e->last_level = level;
    *flag = codec ? codec->flag : WIRE_MULTIFD_NONE;
    *out = NULL;
    if (!codec) {
        return iov_size(runs, n);
    }
    *out = e->encoded;
    if (!n) {
        return 0;
    }
    encoder = encoder_of(e, method, level, errp);
    return encoder ? codec->encode(encoder, runs, n, e->encoded,
                                   WIRE_MULTIFD_PAYLOAD_MAX, errp) : -1;
}

static ssize_t encode_automatic(PacketEncoder *e, const struct iovec *runs,
                                unsigned n, const uint8_t **out, uint32_t *flag,
                                Error **errp)
{
    MultiFDCompression method = MULTIFD_COMPRESSION_NONE;
    size_t bytes = iov_size(runs, n);
    int64_t began;
    ssize_t len;

    tell_choice(e);
    e->clock.memory = bytes;
    if (bytes >= PACKET_BYTES_MIN) {
        try_ways(e, runs, n);
    }
    if (e->choice.way != CODEC_WAY_PLAIN && n && !looks_random(e, runs, n)) {
        method = METHOD_THAT_PAYS;
    }
    began = now_ns();
    len = encode_with(e, method, way_level[e->choice.way], runs, n, out, flag,
                      errp);
    note_encoded(&e->clock, began);
    return len;
}

ssize_t packet_encoder_encode(PacketEncoder *e, const struct iovec *runs,
                              unsigned n, const uint8_t **out, uint32_t *flag,
                              Error **errp)
{
    if (e->method == MULTIFD_COMPRESSION_AUTO) {
        return encode_automatic(e, runs, n, out, flag, errp);
    }
    return encode_with(e, e->method, e->level, runs, n, out, flag, errp);
}

void packet_encoder_sent(PacketEncoder *e, uint64_t sent)
{
    e->clock.sent += sent;
}

void packet_encoder_rest(PacketEncoder *e)
{
    if (e->method == MULTIFD_COMPRESSION_AUTO && !e->clock.rests) {
        tell_choice(e);
        e->clock.rests = true;
    }
}
