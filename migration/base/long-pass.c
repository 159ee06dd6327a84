/*
 * A pass that takes long, for a shorter downtime
 *
 * The end of the migration is predicted at each look: now, and what remains.
 * While the guest dirties nothing new that does not change, whatever is sent,
 * so the difference to the first prediction is what the pass has cost.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "long-pass.h"
#include "polish.h"

/* Looks are no rarer than this... */
#define LOOK_NS         (500 * 1000 * 1000ull)
/* ...no closer together than this... */
#define LOOK_NS_MIN     (10 * 1000 * 1000ull)
/* ...and this many times as far apart as the log takes to be collected. */
#define LOOK_SYNCS      20
/* A slice is planned as if the guest dirtied this share of it at least. */
#define DIRTIED_MIN     0.5
/*
 * A guest that writes to the same pages again and again dirties nothing new in
 * a pass, though it dirties more than this share of what is sent.  One slice
 * tells, if what a collection found is little beside what remains.
 */
#define SMALL_SET       0.25

/* With so much of the limit, it is the limit that sending waits for. */
#define LIMITED         0.8

#define NS_PER_S        1e9

bool long_pass_limited(double bandwidth, uint64_t max_bandwidth)
{
    return max_bandwidth && bandwidth >= max_bandwidth * LIMITED;
}

void long_pass_sent(LongPass *l, uint64_t ns)
{
    l->sent_ns += ns;
    l->slice_ns += ns;
}

void long_pass_known(LongPass *l, uint64_t remaining)
{
    l->known = remaining;
}

void long_pass_none(LongPass *l)
{
    l->slice_ns = 0;
    l->going = false;
}

/*
 * What the guest has dirtied anew, for each byte that could be sent meanwhile.
 * What it writes to again before that is sent is sent once.
 */
static double dirtied_share(const LongPass *l, const LongPassLook *look)
{
    uint64_t grown = look->remaining - MIN(l->known, look->remaining);

    return grown * NS_PER_S / MAX(l->slice_ns, 1) / look->bandwidth;
}

static bool makes_shorter(const LongPassLook *look, double share)
{
    double now = (double)look->fixed_ns + look->ram_ns;
    double then = look->fixed_ns + look->ram_ns * share;

    return share <= LONG_PASS_DIRTIED && polish_gains(now, then);
}

/* When the migration ends if the guest is stopped now */
static uint64_t end_now(const LongPass *l, const LongPassLook *look)
{
    return l->sent_ns + look->ram_ns + look->fixed_ns;
}

/* What further delay is allowed */
static double delay_left(const LongPass *l, const LongPassLook *look)
{
    uint64_t end = end_now(l, look);

    return (l->end_ns ?: end) * (1 + LONG_PASS_COST) - end;
}

/*
 * A slice whose cost is within the allowance.  @tells: it is taken to find out
 * what the guest dirties, and may be in vain.
 */
static double affordable(const LongPass *l, const LongPassLook *look,
                         double share, bool tells)
{
    if (!makes_shorter(look, tells ? 0 : share)) {
        return 0;
    }
    return delay_left(l, look) / (tells ? 1 : MAX(share, DIRTIED_MIN));
}

uint64_t long_pass_next(LongPass *l, const LongPassLook *look)
{
    uint64_t least = MAX(LOOK_NS_MIN, LOOK_SYNCS * look->sync_ns);
    uint64_t grown = look->remaining - MIN(l->known, look->remaining);
    double share = dirtied_share(l, look), ns;
    bool tells = !l->going && share > LONG_PASS_DIRTIED &&
                 grown <= look->remaining * SMALL_SET;

    ns = affordable(l, look, share, tells);
    if (tells) {
        /* It has to fit still, even if nothing is gained. */
        ns = MIN(ns, look->room_ns / share);
    }
    l->slice_ns = 0;
    l->going = ns >= least;
    if (l->going && !l->end_ns) {
        l->end_ns = end_now(l, look);
    }
    return l->going ? MIN(ns, MAX(LOOK_NS, least)) : 0;
}
