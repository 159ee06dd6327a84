/*
 * A pass that is taken though what remains fits, for a shorter downtime: what
 * it has to gain, and what it may take
 *
 * Known in one place, as estimates play such passes through.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_BASE_POLISH_H
#define MIGRATION_BASE_POLISH_H

/* One more pass must promise to take away this share of the downtime... */
#define POLISH_GAIN             0.25
/* ...and at least this much of it, or nobody would notice... */
#define POLISH_GAIN_NS          (1000 * 1000ull)
/* ...and be over within this many limits... */
#define POLISH_LIMITS           2
/* ...and within this, or it is a long pass (long-pass.h)... */
#define POLISH_PASS_NS          (500 * 1000 * 1000ull)
/* ...and not be taken for ever. */
#define POLISH_MAX              3

/* Whether a downtime of @then_ns instead of @now_ns is worth a pass. */
static inline bool polish_gains(double now_ns, double then_ns)
{
    return then_ns + POLISH_GAIN_NS <= now_ns &&
           then_ns <= now_ns * (1 - POLISH_GAIN);
}

/* How long such a pass may take where the downtime limit is @limit_ns */
static inline uint64_t polish_pass_max(uint64_t limit_ns)
{
    return limit_ns < POLISH_PASS_NS / POLISH_LIMITS ? POLISH_LIMITS * limit_ns
                                                     : POLISH_PASS_NS;
}

#endif
