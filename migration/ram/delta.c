/*
 * Pages as differences: the sending side of the xbzrle capability
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "migration/ram.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "delta.h"
#include "page-cache.h"
#include "xbzrle.h"

XBZRLECacheStats xbzrle_counters;

/*
 * There is a cache from start to stop, which come under the BQL and while no
 * thread sends: in between all is the migration thread's but what is marked.
 * A thread that sends may wait for the peer, and a command must not wait for
 * that: so a cache of another size is left for the thread to take.
 */
static struct {
    PageCache *cache;           /* NULL: not in use; atomic */
    PageCache *next;            /* from the next run on, or NULL; atomic */
    size_t page_size;
    uint8_t *code;              /* room for an encoding */
    XBZRLECacheStats before;    /* at the last ram_delta_rates() */
    uint64_t pages_before;

    QemuMutex lock;             /* of the next, held to copy it */
    XBZRLECacheStats shown;     /* xbzrle_counters for other threads */
} delta;

static void __attribute__((constructor)) delta_init_lock(void)
{
    qemu_mutex_init(&delta.lock);
}

static void show_counters(void)
{
    QEMU_LOCK_GUARD(&delta.lock);
    delta.shown = xbzrle_counters;
}

void ram_delta_counters(XBZRLECacheStats *counters)
{
    QEMU_LOCK_GUARD(&delta.lock);
    *counters = delta.shown;
}

bool ram_delta_start(uint64_t size, size_t page_size, Error **errp)
{
    PageCache *cache = page_cache_new(size, page_size, errp);

    if (!cache) {
        return false;
    }
    qatomic_set(&delta.cache, cache);
    delta.page_size = page_size;
    delta.code = g_malloc(page_size);
    delta.before = xbzrle_counters = (XBZRLECacheStats) {};
    delta.pages_before = 0;
    show_counters();
    return true;
}

static void use_next_cache(void)
{
    PageCache *next = qatomic_xchg(&delta.next, NULL);

    if (next) {
        page_cache_free(qatomic_xchg(&delta.cache, next));
    }
}

void ram_delta_stop(void)
{
    if (delta.cache) {
        use_next_cache();
        page_cache_free(qatomic_xchg(&delta.cache, NULL));
        g_clear_pointer(&delta.code, g_free);
    }
}

bool ram_delta_forget(uint64_t size, Error **errp)
{
    PageCache *empty = page_cache_new(size, delta.page_size, errp);

    if (!empty) {
        ram_delta_stop();
        return false;
    }
    use_next_cache();
    page_cache_free(qatomic_xchg(&delta.cache, empty));
    return true;
}

bool ram_delta_active(void)
{
    return qatomic_read(&delta.cache) != NULL;
}

bool ram_delta_resize(uint64_t size, Error **errp)
{
    PageCache *next, *unused;

    if (!ram_delta_active()) {
        return true;
    }
    next = page_cache_new(size, delta.page_size, errp);
    if (!next) {
        return false;
    }
    unused = qatomic_xchg(&delta.next, next);
    if (unused) {
        page_cache_free(unused);
    }
    return true;
}

/*
 * The pages of some runs one after the other.  Nearly all the time of a page
 * that has changed little goes into waiting for memory, its own and that of
 * its slot.  Hardware guesses well as long as pages follow each other.  Where
 * they do not it can know neither the next page nor its slot: so a page is
 * looked up while the one before is at work, and all of it is fetched then.
 */
#define AHEAD 1                 /* pages; and the one that is at work */
#define AHEAD_SETS 8            /* pages whose look-up is prepared */
#define LINE 64

typedef struct DeltaPage {
    const RamRegion *region;
    uint64_t page;
    uint8_t *now;               /* in the guest */
    uint8_t *theirs;            /* what the peer has, or NULL: not known */
} DeltaPage;

typedef struct Walk {
    const RamRun *run, *end;
    uint64_t at;                /* the next page of the run */
    uint64_t age;
    const uint8_t *now_end, *theirs_end;        /* of the page before */
} Walk;

/* Into the second level cache: the first one has no room for two pages more */
static void fetch(const uint8_t *page)
{
    for (size_t i = 0; i < delta.page_size; i += LINE) {
        __builtin_prefetch(page + i, 0, 2);
    }
}

static void fetch_if_far(Walk *w, const DeltaPage *p)
{
    if (p->theirs && (p->now != w->now_end || p->theirs != w->theirs_end)) {
        fetch(p->now);
        fetch(p->theirs);
    }
    w->now_end = p->now + delta.page_size;
    w->theirs_end = p->theirs ? p->theirs + delta.page_size : NULL;
}

/*
 * Where the page stands serves as its name.  A slot that was found keeps its
 * page until the end of this pass: it has been used in it.
 */
static bool walk_next(Walk *w, DeltaPage *p)
{
    const RamRun *run = w->run;

    if (run == w->end) {
        return false;
    }
    p->region = run->region;
    p->page = run->first + w->at;
    p->now = ram_region_page(run->region, p->page);
    p->theirs = page_cache_use(delta.cache, (uintptr_t)p->now, w->age);
    page_cache_prefetch(delta.cache,
                        (uintptr_t)p->now + AHEAD_SETS * delta.page_size);
    fetch_if_far(w, p);
    if (++w->at == run->count) {
        w->run++;
        w->at = 0;
    }
    return true;
}

/* Zero pages that were found, and of which the peer was not told yet */
typedef struct Zeros {
    const RamRegion *region;
    uint64_t first, count;
} Zeros;

static void tell_zeros(RamSink *sink, Zeros *zeros)
{
    if (zeros->count) {
        ram_sink_zeros(sink, zeros->region, zeros->first, zeros->count);
        zeros->count = 0;
    }
}

static void send_zero(RamSink *sink, const DeltaPage *p, Zeros *zeros)
{
    if (zeros->region != p->region ||
        zeros->first + zeros->count != p->page) {
        tell_zeros(sink, zeros);
        *zeros = (Zeros) { p->region, p->page };
    }
    zeros->count++;
    if (p->theirs) {
        memset(p->theirs, 0, delta.page_size);
    }
}

/* Enter the page, and send what was entered; or send it as it is. */
static void send_new(RamSink *sink, const DeltaPage *p, uint64_t age)
{
    uint8_t *copy = page_cache_enter(delta.cache, (uintptr_t)p->now, p->now,
                                     age);

    xbzrle_counters.cache_miss++;
    if (copy) {
        ram_sink_copy(sink, p->region, p->page, 1, copy);
    } else {
        ram_sink_pages(sink, p->region, p->page, 1);
    }
}

/* @len bytes of code say what has changed in the page; or -1, it is too much */
static void send_change(RamSink *sink, const DeltaPage *p, int len)
{
    if (len < 0) {
        xbzrle_counters.overflow++;
        memcpy(p->theirs, p->now, delta.page_size);
        ram_sink_copy(sink, p->region, p->page, 1, p->theirs);
    } else if (len > 0) {
        xbzrle_decode_buffer(delta.code, len, p->theirs, delta.page_size);
        ram_sink_xbzrle(sink, p->region, p->page, delta.code, len);
        xbzrle_counters.pages++;
        /* without the header that every page has */
        xbzrle_counters.bytes += sizeof(WireXbzrle) + len;
    }
}

static bool is_zero(const DeltaPage *p)
{
    return !*(const uint64_t *)p->now &&
           buffer_is_zero(p->now, delta.page_size);
}

/*
 * The page is compared first: if that shows no change, or a small one, and the
 * page does not begin with zeros, then it was read but once.
 */
static void send_page(RamSink *sink, const DeltaPage *p, Zeros *zeros,
                      bool find_zeros, RamDeltaSent *sent, uint64_t age)
{
    int len = -1;

    if (p->theirs) {
        len = xbzrle_encode_buffer(p->theirs, p->now, delta.page_size,
                                   delta.code, delta.page_size);
    }
    if (len && find_zeros && is_zero(p)) {
        send_zero(sink, p, zeros);
        sent->zero++;
        return;
    }
    if (p->theirs) {
        send_change(sink, p, len);
    } else {
        send_new(sink, p, age);
    }
    sent->normal += len < 0;
}

RamDeltaSent ram_delta_send(RamSink *sink, const RamRun *runs, unsigned count,
                            uint64_t age, bool find_zeros,
                            uint64_t max_bytes)
{
    Walk walk = { .run = runs, .end = runs + count, .age = age };
    uint64_t end = ram_sink_position(sink) + max_bytes;
    DeltaPage pages[AHEAD + 1];
    uint64_t found = 0;
    RamDeltaSent sent = {};
    Zeros zeros = {};

    use_next_cache();
    while (found < AHEAD && walk_next(&walk, &pages[found])) {
        found++;
    }
    while (ram_sink_position(sink) < end) {
        found += walk_next(&walk, &pages[found % ARRAY_SIZE(pages)]);
        if (sent.done == found) {
            break;
        }
        send_page(sink, &pages[sent.done++ % ARRAY_SIZE(pages)], &zeros,
                  find_zeros, &sent, age);
    }
    tell_zeros(sink, &zeros);
    show_counters();
    return sent;
}

void ram_delta_rates(uint64_t pages)
{
    uint64_t sent, encoded, missed;

    if (!delta.cache || pages == delta.pages_before) {
        return;
    }
    missed = xbzrle_counters.cache_miss - delta.before.cache_miss;
    sent = xbzrle_counters.pages - delta.before.pages;
    encoded = xbzrle_counters.bytes - delta.before.bytes;
    xbzrle_counters.cache_miss_rate =
        (double)missed / (pages - delta.pages_before);
    xbzrle_counters.encoding_rate =
        encoded ? (double)sent * delta.page_size / encoded : 0;
    delta.before = xbzrle_counters;
    delta.pages_before = pages;
    show_counters();
}
