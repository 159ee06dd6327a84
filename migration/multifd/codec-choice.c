/*
 * Which compression makes a channel faster, if any does
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "codec-choice.h"

/* What a decision is based on: at least so much time, and so much memory */
#define WINDOW_NS (100 * SCALE_MS)
#define WINDOW_BYTES (512 * KiB)
/* The link is the limit if it is waited for in this part of the time. */
#define WAITS 0.15
/* Another way has to be faster by this. */
#define GAIN 0.92
/* So near to the fastest way is as good if it costs less. */
#define ALIKE 1.02
/* A way that was begun is worse than the one before if it is slower by this, */
#define WORSE 1.03
/* in so many windows, while its ratio is within this of what was expected. */
#define WORSE_WINDOWS 2
#define SAME_RATIO 1.15
/* How much the last window says, and the last trial */
#define WINDOW_WEIGHT 0.5
#define TRIAL_WEIGHT 0.15
/* Trials from which a way is known */
#define TRIALS 4
/* CPU time for trials, also if the link is waited for anyway */
#define TRIAL_SHARE 0.01
#define TRIAL_SHARE_WAITING 0.04
/* ... and at least so much then, so that the first ones are over soon */
#define TRIAL_NS_WAITING (6 * SCALE_MS)
/* How long a way that turned out worse is not used, at first and at most */
#define BLOCK_NS (2000ll * SCALE_MS)
#define BLOCK_NS_MAX (32000ll * SCALE_MS)
/* When it is looked without compression, at first, if that is the limit... */
#define PROBE_NS (1000ll * SCALE_MS)
/* ... and if the link is; at most */
#define PROBE_NS_WAITING (8000ll * SCALE_MS)
#define PROBE_NS_MAX (16000ll * SCALE_MS)
/* A probe: what fills the buffers of a socket says nothing. */
#define PROBE_SKIP_BYTES (4 * MiB)
#define PROBE_BYTES (8 * MiB)

#define SHOWN UINT_MAX

void codec_choice_init(CodecChoice *c, int64_t now_ns)
{
    *c = (CodecChoice) {
        .way = CODEC_WAY_PLAIN,
        .slower = SHOWN,
        .probe_wait_ns = PROBE_NS,
        .probe_at_ns = now_ns,
    };
    c->trial[CODEC_WAY_PLAIN] = (CodecCost) { .ratio = 1, .count = TRIALS };
    for (int way = 0; way < CODEC_WAY__MAX; way++) {
        c->trial[way].block_ns = BLOCK_NS;
    }
}

/* What is known of the link is of the time before. */
static void choice_forget_link(CodecChoice *c, int64_t now_ns)
{
    c->link_ns = 0;
    c->probe_wait_ns = PROBE_NS;
    c->probe_at_ns = now_ns + PROBE_NS;
    for (int way = 0; way < CODEC_WAY__MAX; way++) {
        c->trial[way].blocked_ns = 0;
        c->trial[way].block_ns = BLOCK_NS;
    }
}

void codec_choice_rate(CodecChoice *c, uint64_t bytes_per_s, int64_t now_ns)
{
    if (bytes_per_s != c->rate) {
        c->rate = bytes_per_s;
        choice_forget_link(c, now_ns);
    }
}

/*
 * Trials
 */

/* With a rate to keep to a channel waits as well, from the first packet on. */
static double choice_trials_may_take(const CodecChoice *c)
{
    if (c->link_waits || c->rate) {
        return MAX(TRIAL_SHARE_WAITING * c->elapsed_ns, TRIAL_NS_WAITING);
    }
    return TRIAL_SHARE * c->elapsed_ns;
}

CodecWay codec_choice_trial_due(const CodecChoice *c)
{
    CodecWay least = CODEC_WAY_FAST;

    if (c->trial_ns > choice_trials_may_take(c)) {
        return CODEC_WAY_PLAIN;
    }
    for (int way = least + 1; way < CODEC_WAY__MAX; way++) {
        if (c->trial[way].count < c->trial[least].count) {
            least = way;
        }
    }
    return least;
}

static double choice_towards(double old, double new, double weight)
{
    return old + weight * (new - old);
}

/* The counts of all are kept alike, so that each has its turn. */
static void choice_count_trial(CodecChoice *c, CodecWay tried)
{
    bool all = true;

    c->trial[tried].count++;
    for (int way = CODEC_WAY_FAST; way < CODEC_WAY__MAX; way++) {
        all &= c->trial[way].count > TRIALS;
    }
    for (int way = CODEC_WAY_FAST; all && way < CODEC_WAY__MAX; way++) {
        c->trial[way].count--;
    }
}

void codec_choice_tried(CodecChoice *c, CodecWay way, uint64_t memory,
                        uint64_t encoded, uint64_t ns)
{
    CodecCost *cost = &c->trial[way];
    /* the first ones are a mean, later ones fade */
    double weight = MAX(TRIAL_WEIGHT, 1.0 / (cost->count + 1));

    cost->ratio = choice_towards(cost->ratio, (double)encoded / memory, weight);
    cost->ns = choice_towards(cost->ns, (double)ns / memory, weight);
    c->trial_ns += ns;
    choice_count_trial(c, way);
}

/*
 * Decisions
 */

static double choice_rate_ns(const CodecChoice *c)
{
    return c->rate ? (double)NANOSECONDS_PER_SECOND / c->rate : 0;
}

/* What was seen in the window that is over */
static void choice_learn(CodecChoice *c, double encode_ns)
{
    const CodecUse *w = &c->window;
    double byte_ns = (double)w->wall_ns / w->memory;
    double other = (double)(w->wall_ns - MIN(w->waited_ns, w->wall_ns)) /
                   w->memory - encode_ns;
    double link = w->sent ? (double)w->wall_ns / w->sent : 0;
    double weight = c->byte_ns ? WINDOW_WEIGHT : 1;

    c->byte_ns = choice_towards(c->byte_ns, byte_ns, weight);
    c->other_ns = choice_towards(c->other_ns, MAX(other, 0), weight);
    c->ratio = (double)w->sent / w->memory;
    c->link_waits = w->waited_ns > WAITS * w->wall_ns;
    if (!link) {
        return;
    }
    if (c->link_waits) {
        c->link_ns = choice_towards(c->link_ns ?: link, link, WINDOW_WEIGHT);
    } else if (c->link_ns) {
        c->link_ns = MIN(c->link_ns, link);
    }
}

/*
 * What a byte of memory would take with @way.  Trials are of a few pages and
 * without what came before: what the way in use makes of them, and what it
 * really does, says how much better the others would be as well.
 */
static double choice_predict(const CodecChoice *c, CodecWay way,
                             double encode_ns)
{
    double ratio = c->trial[way].ratio, ns = c->trial[way].ns;
    const CodecCost *now = &c->trial[c->way];
    double link = c->link_waits ? c->link_ns
                                : MAX(c->link_ns, choice_rate_ns(c));

    if (way == c->way) {
        return c->byte_ns;
    }
    if (way != CODEC_WAY_PLAIN && c->way != CODEC_WAY_PLAIN &&
        now->count >= TRIALS && now->ratio > 0 && now->ns > 0) {
        ratio *= c->ratio / now->ratio;
        ns *= encode_ns / now->ns;
    }
    return MAX(c->other_ns + ns, ratio * link);
}

static void choice_use(CodecChoice *c, CodecWay way)
{
    c->way = way;
    c->settling = true;
    c->byte_ns = 0;
}

static void choice_try_way(CodecChoice *c, CodecWay way)
{
    c->before = c->way;
    c->before_ns = c->byte_ns;
    c->expected_ratio = c->trial[way].ratio;
    c->slower = 0;
    choice_use(c, way);
}

static bool choice_may_use(const CodecChoice *c, int way, int64_t now_ns)
{
    return way == c->way || (c->trial[way].count >= TRIALS &&
                             now_ns >= c->trial[way].blocked_ns);
}

/* The cheapest of those that are as fast as the fastest, more or less. */
static void choice_choose(CodecChoice *c, double encode_ns, int64_t now_ns)
{
    double ns[CODEC_WAY__MAX], best = c->byte_ns;

    for (int way = 0; way < CODEC_WAY__MAX; way++) {
        if (choice_may_use(c, way, now_ns)) {
            ns[way] = choice_predict(c, way, encode_ns);
            best = MIN(best, ns[way]);
        }
    }
    for (int way = 0; way < CODEC_WAY__MAX; way++) {
        if (way == c->way) {
            if (best >= c->byte_ns * GAIN) {
                return;
            }
        } else if (choice_may_use(c, way, now_ns) && ns[way] <= best * ALIKE) {
            choice_try_way(c, way);
            return;
        }
    }
}

/*
 * True if the way in use seems to be worse than the one before.  Then nothing
 * else is tried; in the end the one before is used again, and those that cost
 * more than the wrong one are not used for some time either.
 */
static bool choice_was_wrong(CodecChoice *c, int64_t now_ns)
{
    CodecCost *cost = &c->trial[c->way];

    if (c->slower == SHOWN) {
        return false;
    }
    if (c->byte_ns <= c->before_ns * WORSE ||
        c->ratio > c->expected_ratio * SAME_RATIO) {
        c->slower = SHOWN;
        cost->block_ns = BLOCK_NS;
        return false;
    }
    if (++c->slower < WORSE_WINDOWS) {
        return true;
    }
    for (int way = c->way; way < CODEC_WAY__MAX; way++) {
        c->trial[way].blocked_ns = now_ns + cost->block_ns;
    }
    cost->block_ns = MIN(2 * cost->block_ns, BLOCK_NS_MAX);
    c->slower = SHOWN;
    choice_use(c, c->before);
    return true;
}

/*
 * Probes
 */

static bool choice_probe_is_due(const CodecChoice *c, int64_t now_ns)
{
    int64_t wait = c->link_waits ? MAX(c->probe_wait_ns, PROBE_NS_WAITING)
                                 : c->probe_wait_ns;

    return c->way != CODEC_WAY_PLAIN && c->slower == SHOWN &&
           now_ns >= c->probe_at_ns + wait &&
           c->other_ns < c->byte_ns * GAIN &&
           choice_rate_ns(c) < c->byte_ns * GAIN;
}

static void choice_begin_probe(CodecChoice *c)
{
    c->probing = true;
    c->probe_from = c->way;
    c->before_ns = c->byte_ns;
    c->way = CODEC_WAY_PLAIN;
}

static void choice_end_probe(CodecChoice *c, int64_t now_ns)
{
    bool better = c->window.wall_ns <
                  c->window.memory * c->before_ns * GAIN;

    c->probing = false;
    c->probe_at_ns = now_ns;
    c->probe_wait_ns = better ? PROBE_NS
                              : MIN(2 * c->probe_wait_ns, PROBE_NS_MAX);
    if (better) {
        c->link_ns = 0;
        choice_use(c, CODEC_WAY_PLAIN);
        c->slower = SHOWN;
    } else {
        c->way = c->probe_from;
        c->settling = true;     /* byte_ns is of this way */
    }
    c->window = (CodecUse) { };
}

/* What was sent before the buffers were full is left out. */
static void choice_probe_used(CodecChoice *c, uint64_t skipped, int64_t now_ns)
{
    if (c->window.sent >= PROBE_BYTES || c->window.wall_ns >= WINDOW_NS) {
        choice_end_probe(c, now_ns);
    } else if (skipped < PROBE_SKIP_BYTES &&
               c->window.sent >= PROBE_SKIP_BYTES) {
        c->window.wall_ns = c->window.memory = 0;
    }
}

static void choice_window_over(CodecChoice *c, int64_t now_ns)
{
    double encode_ns = (double)c->window.encode_ns / c->window.memory;

    if (c->settling) {
        c->settling = false;
        return;
    }
    choice_learn(c, encode_ns);
    if (choice_was_wrong(c, now_ns)) {
        return;
    }
    choice_choose(c, encode_ns, now_ns);
    if (!c->settling && choice_probe_is_due(c, now_ns)) {
        choice_begin_probe(c);
    }
}

CodecWay codec_choice_used(CodecChoice *c, const CodecUse *use, int64_t now_ns)
{
    uint64_t before = c->window.sent;

    c->elapsed_ns += use->wall_ns;
    c->window.wall_ns += use->wall_ns;
    c->window.waited_ns += use->waited_ns;
    c->window.encode_ns += use->encode_ns;
    c->window.memory += use->memory;
    c->window.sent += use->sent;
    if (c->probing) {
        choice_probe_used(c, before, now_ns);
    } else if (c->window.wall_ns >= WINDOW_NS &&
               c->window.memory >= WINDOW_BYTES) {
        choice_window_over(c, now_ns);
        c->window = (CodecUse) { };
    }
    return c->way;
}
