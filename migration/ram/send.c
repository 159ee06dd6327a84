/*
 * Dirty pages, found, looked at and sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/base/clock.h"
#include "migration/migration-stats.h"
#include "migration/wire/wire.h"
#include "classify.h"
#include "delta.h"
#include "send.h"

QEMU_BUILD_BUG_ON(RAM_SEND_BATCH > CLASSIFY_MAX);
QEMU_BUILD_BUG_ON(RAM_SEND_BATCH > WIRE_RAM_RUN_MAX);

/* Pages looked at and sent between two looks at rate and clock */
#define BATCH_PAGES RAM_SEND_BATCH
/* With a rate, what it allows in so much of a second */
#define BATCH_SHARE 100
#define BATCH_PAGES_MIN 8

void ram_sender_init(RamSender *s, RamRegions *regions, RamSink *sink)
{
    *s = (RamSender) {
        .regions = regions,
        .sink = sink,
        .age = 1,
        .find_zeros = true,
        .tells_untouched = true,
        .takes_dirty = true,
        .share = 1,
    };
}

uint64_t ram_sender_left(const RamRegions *regions)
{
    uint64_t bytes = 0;

    RAM_REGIONS_FOREACH_SENT(r, regions) {
        bytes += (dirty_map_count(r->map) + qatomic_read_u64(&r->untold_pages))
                 << r->page_bits;
    }
    return bytes;
}

bool ram_sender_untold(const RamRegions *regions)
{
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        if (qatomic_read_u64(&r->untold_pages)) {
            return true;
        }
    }
    return false;
}

/* Tell of up to @limit pages of the next range; returns how many. */
static uint64_t tell_untouched(RamSink *sink, RamRegion *r, uint64_t limit)
{
    RamRange *range = &g_array_index(r->untouched, RamRange, r->told);
    uint64_t count = MIN(limit, range->count);

    ram_sink_zeros(sink, r, range->first, count);
    range->first += count;
    range->count -= count;
    if (!range->count) {
        r->told++;
    }
    qatomic_set_u64(&r->untold_pages, r->untold_pages - count);
    return count;
}

/* Those pages of @range that are clean become ranges of @clean. */
static uint64_t add_clean(DirtyMap *map, const RamRange *range, GArray *clean)
{
    uint64_t at = range->first, end = at + range->count, pages = 0;

    while (at < end) {
        uint64_t first, dirty = dirty_map_find(map, at, end - at, &first);
        RamRange piece = {
            .first = at, .count = (dirty ? MIN(first, end) : end) - at,
        };

        if (piece.count) {
            g_array_append_val(clean, piece);
            pages += piece.count;
        }
        at += piece.count + dirty;
    }
    return pages;
}

void ram_sender_skip_written(RamRegions *regions)
{
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        GArray *clean;
        uint64_t pages = 0;

        if (!qatomic_read_u64(&r->untold_pages)) {
            continue;
        }
        clean = g_array_new(false, false, sizeof(RamRange));
        for (unsigned i = r->told; i < r->untouched->len; i++) {
            pages += add_clean(r->map,
                               &g_array_index(r->untouched, RamRange, i),
                               clean);
        }
        g_array_free(r->untouched, true);
        r->untouched = clean;
        r->told = 0;
        qatomic_set_u64(&r->untold_pages, pages);
    }
}

/* Tell of up to a batch of pages nobody ever wrote to.  False: none is left */
static bool send_untouched(RamSender *s)
{
    if (!s->tells_untouched) {
        return false;
    }
    RAM_REGIONS_FOREACH_SENT(r, s->regions) {
        if (r->untold_pages) {
            stat64_add(&mig_stats.zero_pages,
                       tell_untouched(s->sink, r, s->sink->zeros_at_once));
            return true;
        }
    }
    return false;
}

/*
 * The next dirty pages, up to @limit of them, taken from their map.  Returns
 * how many; 0 if there are none in any region.
 */
static uint64_t ram_send_take_run(RamSender *s, uint64_t limit,
                                  RamRegion **region, uint64_t *first)
{
    /* once more than there are: the first may have been begun in its middle */
    for (unsigned tries = 0; tries <= s->regions->count; tries++) {
        RamRegion *r = &s->regions->list[s->region];

        if (ram_region_sent(r) && dirty_map_count(r->map)) {
            uint64_t count = dirty_map_take(r->map, s->page, limit, first);

            if (count) {
                s->page = *first + count;
                *region = r;
                return count;
            }
        }
        s->region = (s->region + 1) % s->regions->count;
        s->page = 0;
    }
    return 0;
}

/*
 * The counters of all are lines that all senders write to: once a batch, as
 * pages may take turns in being zero.
 */
static void ram_send_count(RamSender *s)
{
    if (s->normal) {
        stat64_add(&mig_stats.normal_pages, s->normal);
    }
    if (s->zero) {
        stat64_add(&mig_stats.zero_pages, s->zero);
    }
    s->normal = s->zero = 0;
}

/* @bytes: where the pages were copied to; or NULL */
static void send_content(RamSender *s, const RamRegion *r, uint64_t first,
                         unsigned count, const uint8_t *bytes)
{
    if (bytes) {
        ram_sink_copy(s->sink, r, first, count, bytes);
    } else {
        ram_sink_pages(s->sink, r, first, count);
    }
    s->normal += count;
}

static void send_zeros(RamSender *s, const RamRegion *r, uint64_t first,
                       unsigned count)
{
    ram_sink_zeros(s->sink, r, first, count);
    s->zero += count;
}

static void send_run(RamSender *s, const RamRegion *r, uint64_t first,
                     unsigned count, const uint8_t *bytes)
{
    ZeroPages zeros;
    unsigned segment;
    bool zero;

    if (!s->find_zeros) {
        send_content(s, r, first, count, bytes);
        return;
    }
    classify_pages(bytes ?: ram_region_page(r, first), ram_region_page_size(r),
                   count, &zeros);
    for (unsigned at = 0; at < count; at += segment) {
        segment = classify_segment(&zeros, at, &zero);
        if (zero) {
            send_zeros(s, r, first + at, segment);
        } else {
            send_content(s, r, first + at, segment, bytes
                         ? bytes + at * ram_region_page_size(r) : NULL);
        }
    }
}

void ram_sender_copies(RamSender *s, const RamRegion *r, uint64_t first,
                       uint64_t count, const uint8_t *bytes)
{
    for (uint64_t done = 0; done < count; done += CLASSIFY_MAX) {
        send_run(s, r, first + done, MIN(count - done, CLASSIFY_MAX),
                 bytes + (done << r->page_bits));
    }
    ram_send_count(s);
}

void ram_sender_pages(RamSender *s, const RamRegion *r, uint64_t first,
                      uint64_t count)
{
    if (!ram_region_here(r)) {
        ram_sink_zeros(s->sink, r, first, count);
        stat64_add(&mig_stats.zero_pages, count);
        return;
    }
    for (uint64_t done = 0; done < count; done += CLASSIFY_MAX) {
        send_run(s, r, first + done, MIN(count - done, CLASSIFY_MAX), NULL);
    }
    ram_send_count(s);
}

/* The pages of @runs after the first @done are to be sent after all. */
static void ram_send_give_back(RamSender *s, const RamRun *runs, unsigned count,
                               uint64_t done)
{
    bool next = true;

    for (; count; runs++, count--) {
        uint64_t skip = MIN(done, runs->count);

        done -= skip;
        if (skip == runs->count) {
            continue;
        }
        dirty_map_set(runs->region->map, runs->first + skip,
                      runs->count - skip);
        if (next) {
            s->region = runs->region->index;
            s->page = runs->first + skip;
            next = false;
        }
    }
}

/*
 * The same for pages of which the peer may have an older version.  How much of
 * the stream they take shows only when they have been encoded, so some may be
 * left then.
 */
static bool send_deltas(RamSender *s, unsigned pages)
{
    uint64_t max_bytes = (uint64_t)pages << s->regions->list[0].page_bits;
    unsigned runs = 0, taken = 0;
    RamDeltaSent sent;

    while (taken < BATCH_PAGES) {
        RamRun *run = &s->runs[runs];

        run->count = ram_send_take_run(s, BATCH_PAGES - taken, &run->region,
                                       &run->first);
        if (!run->count) {
            break;
        }
        taken += run->count;
        runs++;
    }
    if (!runs) {
        return false;
    }
    sent = ram_delta_send(s->sink, s->runs, runs, s->age, s->find_zeros,
                          max_bytes);
    ram_send_give_back(s, s->runs, runs, sent.done);
    stat64_add(&mig_stats.normal_pages, sent.normal);
    stat64_add(&mig_stats.zero_pages, sent.zero);
    return true;
}

/* Send up to @pages pages.  False: there were none. */
static bool ram_send_send_batch(RamSender *s, unsigned pages)
{
    uint64_t first, count;
    RamRegion *r;
    bool some = false;

    if (!s->takes_dirty) {
        return false;
    }
    /* what is sent but once is not worth remembering */
    if (s->age > 1 && ram_delta_active()) {
        return send_deltas(s, pages);
    }
    while (pages && (count = ram_send_take_run(s, pages, &r, &first))) {
        send_run(s, r, first, count, NULL);
        pages -= count;
        some = true;
    }
    ram_send_count(s);
    return some;
}

static unsigned batch_pages(const RamSender *s, bool all)
{
    uint64_t rate = migration_rate_get();
    uint64_t pages;

    if (all || rate == RATE_LIMIT_DISABLED) {
        return BATCH_PAGES;
    }
    pages = (rate / BATCH_SHARE / s->share) >> s->regions->list[0].page_bits;
    return CLAMP(pages, BATCH_PAGES_MIN, BATCH_PAGES);
}

/* Without a limit nobody reads the counters that all of them write to. */
bool ram_pace_over(const RamPace *pace, bool sent)
{
    return sent && (qatomic_read(&pace->stop) ||
                    (pace->end_bytes != UINT64_MAX &&
                     migration_transferred_bytes() >= pace->end_bytes));
}

static bool turn_is_over(const RamSender *s, bool sent, int64_t end)
{
    return s->pace ? ram_pace_over(s->pace, sent)
                   : migration_rate_wait_ns() || now_ns() >= end;
}

RamSendResult ram_sender_run(RamSender *s, bool all)
{
    int64_t end = now_ns() + RAM_SEND_NS;
    bool sent = false;

    while (s->regions->count) {
        if (ram_sink_error(s->sink)) {
            return RAM_SEND_ERROR;
        }
        if (!all && turn_is_over(s, sent, end)) {
            return RAM_SEND_SOME;
        }
        sent = true;
        if (!send_untouched(s) &&
            !ram_send_send_batch(s, batch_pages(s, all))) {
            break;
        }
    }
    return RAM_SEND_ALL;
}
