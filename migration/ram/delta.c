/*
 * Pages as differences: the sending side of the xbzrle capability
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "migration/ram.h"
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

static void __attribute__((constructor)) init_lock(void)
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
    PageCache *cache = cache_init(size, page_size, errp);

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
        cache_fini(qatomic_xchg(&delta.cache, next));
    }
}

void ram_delta_stop(void)
{
    if (delta.cache) {
        use_next_cache();
        cache_fini(qatomic_xchg(&delta.cache, NULL));
        g_clear_pointer(&delta.code, g_free);
    }
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
    next = cache_init(size, delta.page_size, errp);
    if (!next) {
        return false;
    }
    unused = qatomic_xchg(&delta.next, next);
    if (unused) {
        cache_fini(unused);
    }
    return true;
}

/* Where the page stands serves as its name. */
static uint64_t key_of(const RamRegion *r, uint64_t page)
{
    return (uintptr_t)ram_region_page(r, page);
}

/* Enter the page, and send what was entered; or send it as it is. */
static void send_new(RamSink *sink, const RamRegion *r, uint64_t page,
                     uint64_t age)
{
    uint64_t key = key_of(r, page);

    xbzrle_counters.cache_miss++;
    if (cache_insert(delta.cache, key, ram_region_page(r, page), age) < 0) {
        ram_sink_pages(sink, r, page, 1);
    } else {
        ram_sink_copy(sink, r, page, get_cached_data(delta.cache, key));
    }
}

/* Returns whether the page was sent as it is. */
static bool send_page(RamSink *sink, const RamRegion *r, uint64_t page,
                      uint64_t age)
{
    uint8_t *now = ram_region_page(r, page);
    uint8_t *theirs;
    int len;

    if (!cache_is_cached(delta.cache, key_of(r, page), age)) {
        send_new(sink, r, page, age);
        return true;
    }
    theirs = get_cached_data(delta.cache, key_of(r, page));
    len = xbzrle_encode_buffer(theirs, now, delta.page_size,
                               delta.code, delta.page_size);
    if (len < 0) {
        xbzrle_counters.overflow++;
        memcpy(theirs, now, delta.page_size);
        ram_sink_copy(sink, r, page, theirs);
        return true;
    }
    if (len > 0) {
        xbzrle_decode_buffer(delta.code, len, theirs, delta.page_size);
        ram_sink_xbzrle(sink, r, page, delta.code, len);
        xbzrle_counters.pages++;
        /* without the header that every page has */
        xbzrle_counters.bytes += sizeof(WireXbzrle) + len;
    }
    return false;
}

unsigned ram_delta_send(RamSink *sink, const RamRegion *r, uint64_t first,
                        unsigned count, uint64_t age)
{
    unsigned plain = 0;

    use_next_cache();
    for (unsigned i = 0; i < count; i++) {
        plain += send_page(sink, r, first + i, age);
    }
    show_counters();
    return plain;
}

void ram_delta_zeros(const RamRegion *r, uint64_t first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint8_t *theirs = get_cached_data(delta.cache, key_of(r, first + i));

        if (theirs) {
            memset(theirs, 0, delta.page_size);
        }
    }
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
