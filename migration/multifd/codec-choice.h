/*
 * Which compression makes a channel faster, if any does
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A channel encodes a packet while the link transmits the one before.  So with
 * way k a byte of memory takes the longer of two times: what the thread needs
 * to read, encode and write it, and what the link needs for the bytes that it
 * becomes.  The way with the shortest such time is used.
 *
 * What is known of a way that is not in use comes from trials: some pages are
 * encoded and thrown away.  How fast the link is shows only while somebody has
 * to wait for it, be that a socket that is full or the rate that is set; when
 * compression leaves the link idle, a short probe without compression looks
 * again.  A way that turns out slower than the one before, although the memory
 * is as it was thought to be, is left, and not used again for some time.
 *
 * Pure: time is passed in, nanoseconds on one monotonic clock.
 * Threads: a CodecChoice has one user at a time.
 */

#ifndef MIGRATION_MULTIFD_CODEC_CHOICE_H
#define MIGRATION_MULTIFD_CODEC_CHOICE_H

/* The ways a packet can be encoded, the cheapest one first */
typedef enum CodecWay {
    CODEC_WAY_PLAIN,
    CODEC_WAY_FAST,
    CODEC_WAY_NORMAL,
    CODEC_WAY_STRONG,
    CODEC_WAY__MAX,
} CodecWay;

/* What a channel did in some time */
typedef struct CodecUse {
    uint64_t wall_ns;           /* how long that was */
    uint64_t waited_ns;         /* of these: for the link, or for the rate */
    uint64_t encode_ns;         /* of these: in the encoder */
    uint64_t memory;            /* bytes of pages with content */
    uint64_t sent;              /* bytes that were written */
} CodecUse;

typedef struct CodecCost {
    double ratio;               /* bytes after encoding, for each one before */
    double ns;                  /* of CPU time, for each byte before */
    unsigned count;             /* trials so far, up to some limit */
    int64_t blocked_ns;         /* it is not to be used before that time */
    int64_t block_ns;           /* for how long it is blocked the next time */
} CodecCost;

typedef struct CodecChoice {
    CodecWay way;               /* in use */
    CodecCost trial[CODEC_WAY__MAX];
    CodecUse window;            /* since the last decision */
    bool settling;              /* its first window tells of the one before */
    double byte_ns;             /* of memory, with the way in use; 0: unknown */
    double other_ns;            /* of these: not waiting, not encoding */
    double ratio;               /* of what was sent in the last window */
    double link_ns;             /* a byte on the link, at most; 0: unknown */
    bool link_waits;            /* in the last window: the link is the limit */
    uint64_t rate;              /* bytes per second of this channel; 0: none */

    /* The way before, until the present one has shown what it is worth */
    CodecWay before;
    double before_ns, expected_ratio;
    unsigned slower;            /* windows; UINT_MAX: it has shown it */

    /* A probe: plain for a moment */
    bool probing;
    CodecWay probe_from;
    int64_t probe_at_ns, probe_wait_ns;

    uint64_t elapsed_ns, trial_ns;      /* in all */
} CodecChoice;

/* Nothing is compressed at first. */
void codec_choice_init(CodecChoice *c, int64_t now_ns);

/* The rate that is set allows this channel so many bytes per second; 0: all. */
void codec_choice_rate(CodecChoice *c, uint64_t bytes_per_s, int64_t now_ns);

/*
 * A trial is worth its time now: returns a way to try, or CODEC_WAY_PLAIN if
 * none is.
 */
CodecWay codec_choice_trial_due(const CodecChoice *c);

/* @memory bytes became @encoded ones, in @ns of CPU time.  @memory is not 0. */
void codec_choice_tried(CodecChoice *c, CodecWay way, uint64_t memory,
                        uint64_t encoded, uint64_t ns);

/*
 * What the channel did since the last call.  Now and then this is the time to
 * decide; returns the way to be used from now on.
 */
CodecWay codec_choice_used(CodecChoice *c, const CodecUse *use, int64_t now_ns);

#endif
