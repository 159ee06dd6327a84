/*
 * Sending memory to a guest that runs already
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "migration/base/clock.h"
#include "migration/base/turns.h"
#include "migration/migration-stats.h"
#include "migration/qemu-file.h"
#include "migration/ram/dirty-claim.h"
#include "migration/trace.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"
#include "sender.h"

/*
 * What the background writes at once.  An urgent page waits for one of these
 * if it has no channel of its own.
 */
#define BATCH_BYTES (128 * 1024)
/* With one, it only waits to be aimed anew. */
#define BATCH_BYTES_ALONE (256 * 1024)
/* With a limit, what that allows in so much of a second */
#define BATCH_SHARE 100
/* What follows a page that was requested, at most */
#define ALONG_BYTES (256 * 1024)
/* Memory that is released before those are looked at who wait for a page */
#define RELEASE_BYTES (4ull << 20)
/* Runs in a batch, whose memory may be released together */
#define BATCH_RUNS 64

/* A place in memory as one word */
#define NO_AIM UINT64_MAX
#define AIM_PAGE_BITS 48

/* Each member of the schema has its row. */
enum {
    SERVED_BYTES = 0
#define SERVED(member, label) + sizeof(uint64_t)
#include "served.def"
};
QEMU_BUILD_BUG_ON(SERVED_BYTES != sizeof(MigrationPageRequests));

static uint64_t aim_at(const RamRegion *r, uint64_t page)
{
    return (uint64_t)r->index << AIM_PAGE_BITS | page;
}

static void background_forget(PostcopyBackground *b)
{
    b->noted = 0;
    under_way_clear(&b->under_way);
}

static void background_init(PostcopyBackground *b)
{
    *b = (PostcopyBackground) { .aimed = NO_AIM };
    background_forget(b);
}

void postcopy_sender_init(PostcopySender *ps, RamRegions *regions,
                          const PostcopySenderOps *ops, void *opaque)
{
    /* Of these three it cannot be said who looks at them, or when. */
    qatomic_set(&ps->answers, POSTCOPY_REFUSE);
    postcopy_sender_set_served(ps, (MigrationPageRequests) { });
    postcopy_queue_clear(&ps->queue);
    ps->regions = regions;
    ps->ops = ops;
    ps->opaque = opaque;
    ps->last_asked = NULL;
    ps->urgent = (RamSender) { };
    ps->channel = (RamStreamSink) { };
    ps->again = false;
    ps->copied = 0;
    ps->aim = NO_AIM;
    ps->quota = UINT64_MAX;
    background_init(&ps->background);
    ps->helpers = NULL;
    ps->helper_count = 0;
    ps->copies = ops->early ? g_malloc(POSTCOPY_EARLY) : NULL;
    qemu_mutex_init(&ps->lock);
    qemu_mutex_init(&ps->serving);
    locality_init(&ps->locality);
}

void postcopy_sender_cleanup(PostcopySender *ps)
{
    g_clear_pointer(&ps->copies, g_free);
}

void postcopy_sender_set_channel(PostcopySender *ps, QEMUFile *f,
                                 const RamSender *main, uint32_t features)
{
    assert(qatomic_read(&ps->answers) != POSTCOPY_SERVE);
    ram_stream_sink_init(&ps->channel, f, features);
    ram_sender_init(&ps->urgent, ps->regions, &ps->channel.sink);
    ps->urgent.find_zeros = main->find_zeros;
    /* What was released is not here any more. */
    ps->again = !ps->ops->release && (features & WIRE_PEER_URGENT_COPY);
    ps->copied = 0;
    background_forget(&ps->background);
}

static bool has_channel(const PostcopySender *ps)
{
    return ps->channel.file;
}

void postcopy_sender_set_helpers(PostcopySender *ps, unsigned count)
{
    assert(qatomic_read(&ps->answers) != POSTCOPY_SERVE);
    g_free(ps->helpers);
    ps->helpers = count ? g_new(PostcopyBackground, count) : NULL;
    ps->helper_count = count;
    for (unsigned i = 0; i < count; i++) {
        background_init(&ps->helpers[i]);
    }
}

/* Requested pages overtake the background. */
static bool has_other_way(const PostcopySender *ps)
{
    return has_channel(ps) || ps->helper_count;
}

/* The thread that asks may be at it: the other end of the queue is ours. */
static void forget_requests(PostcopySender *ps)
{
    PageRequest request;

    while (postcopy_sender_take(ps, &request)) {
        /* dropped */
    }
}

void postcopy_sender_open(PostcopySender *ps)
{
    PostcopyAnswers before = qatomic_read(&ps->answers);

    if (before == POSTCOPY_REFUSE) {
        ps->last_asked = NULL;
    }
    if (before != POSTCOPY_KEEP) {
        forget_requests(ps);
    }
    qatomic_store_release(&ps->answers, POSTCOPY_SERVE);
}

void postcopy_sender_close(PostcopySender *ps)
{
    qatomic_set(&ps->answers, POSTCOPY_REFUSE);
}

void postcopy_sender_keep(PostcopySender *ps)
{
    forget_requests(ps);
    qatomic_store_release(&ps->answers, POSTCOPY_KEEP);
}

void postcopy_sender_ignore(PostcopySender *ps)
{
    qatomic_set(&ps->answers, POSTCOPY_IGNORE);
}

bool postcopy_sender_take(PostcopySender *ps, PageRequest *request)
{
    QEMU_LOCK_GUARD(&ps->serving);
    return postcopy_queue_take(&ps->queue, request);
}

/* It was written, so nobody reads it here again. */
static void sender_release(PostcopySender *ps, const RamRegion *r,
                           uint64_t first, uint64_t count)
{
    if (ps->ops->release) {
        ps->ops->release(ps->opaque, r, first, count);
    }
}

/*
 * The clean pages at @at, and where to go on.  Whoever serves a request claims
 * a page first, which makes it clean, and reads it after that; so it is waited
 * for by taking its lock.
 */
static uint64_t release_some(PostcopySender *ps, const RamRegion *r,
                             uint64_t at)
{
    uint64_t bytes = MAX(RELEASE_BYTES, r->host_page_size);
    uint64_t end = MIN(at + (bytes >> r->page_bits), r->pages);
    uint64_t first, count;

    QEMU_LOCK_GUARD(&ps->lock);
    count = dirty_map_find(r->map, at, UINT64_MAX, &first);
    if (!count || first >= end) {
        sender_release(ps, r, at, end - at);
        return end;
    }
    if (first > at) {
        sender_release(ps, r, at, first - at);
    }
    return first + count;
}

void postcopy_sender_release_clean(PostcopySender *ps)
{
    RAM_REGIONS_FOREACH_SENT(r, ps->regions) {
        uint64_t at = 0;

        while (at < r->pages) {
            at = release_some(ps, r, at);
            /* The one that waits for the lock gets it. */
            turns_give_way();
        }
    }
}

/*
 * Requests
 */

static void add_stat(uint64_t *stat, uint64_t n)
{
    qatomic_set_u64(stat, qatomic_read_u64(stat) + n);
}

MigrationPageRequests postcopy_sender_served(const PostcopySender *ps)
{
    return (MigrationPageRequests) {
#define SERVED(member, label) .member = qatomic_read_u64(&ps->served.member),
#include "served.def"
    };
}

void postcopy_sender_set_served(PostcopySender *ps,
                                MigrationPageRequests served)
{
#define SERVED(member, label) \
    qatomic_set_u64(&ps->served.member, served.member);
#include "served.def"
}

/* False if they are sent from where they are, and released when written. */
static bool releases_early(const PostcopySender *ps, const RamRegion *r)
{
    return ps->copies && ram_region_here(r) &&
           r->host_page_size <= POSTCOPY_EARLY;
}

/*
 * Pages that were claimed.  A piece of them is copied as a whole before any of
 * it is released.
 */
static void sender_send_pages(PostcopySender *ps, RamSender *via,
                              const RamRegion *r, uint64_t first,
                              uint64_t count)
{
    uint64_t most = POSTCOPY_EARLY >> r->page_bits, n;

    if (!releases_early(ps, r)) {
        ram_sender_pages(via, r, first, count);
        return;
    }
    for (; count; first += n, count -= n) {
        n = MIN(count, most);
        memcpy(ps->copies, ram_region_page(r, first), n << r->page_bits);
        sender_release(ps, r, first, n);
        ram_sender_copies(via, r, first, n, ps->copies);
    }
}

/* They were written. */
static void sender_sent_pages(PostcopySender *ps, const RamRegion *r,
                              uint64_t first, uint64_t count)
{
    if (!releases_early(ps, r)) {
        sender_release(ps, r, first, count);
    }
}

/* Those of the units from @page to @end that nobody else has. */
static uint64_t send_units(PostcopySender *ps, RamSender *via,
                           const RamRegion *r, uint64_t page, uint64_t end)
{
    uint64_t unit = postcopy_unit(r), sent = 0, run;

    for (; page < end; page += MAX(run, unit)) {
        for (run = 0; page + run < end; run += unit) {
            if (!dirty_map_claim(r->map, page + run, unit)) {
                break;
            }
        }
        run = MIN(run, r->pages - page);
        if (run) {
            sender_send_pages(ps, via, r, page, run);
            ram_sink_flush(via->sink);
            sender_sent_pages(ps, r, page, run);
            sent += run;
        }
    }
    return sent;
}

static uint64_t noted(const PostcopySender *ps)
{
    uint64_t pages = qatomic_read_u64(&ps->background.noted);

    for (unsigned i = 0; i < ps->helper_count; i++) {
        pages += qatomic_read_u64(&ps->helpers[i].noted);
    }
    return pages;
}

static bool is_under_way(const PostcopySender *ps, const PageRequest *request)
{
    bool found = under_way_has(&ps->background.under_way, request->region,
                               request->first);

    for (unsigned i = 0; !found && i < ps->helper_count; i++) {
        found = under_way_has(&ps->helpers[i].under_way, request->region,
                              request->first);
    }
    return found;
}

/*
 * One that the background has sent, but somebody waits for: it may stand behind
 * much else.  Not a huge one, as the other side might have two threads write to
 * it; and no more of them than the background has sent, however often it is
 * asked.
 */
static void sender_send_again(PostcopySender *ps, RamSender *via,
                              const PageRequest *request)
{
    if (!ps->again || !has_other_way(ps) || request->count > 1 ||
        !is_under_way(ps, request)) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&ps->serving) {
        if (ps->copied >= noted(ps)) {
            return;
        }
        ps->copied++;
        add_stat(&ps->served.again, 1);
    }
    ram_sender_pages(via, request->region, request->first, 1);
    ram_sink_flush(via->sink);
}

/*
 * First what was requested, and only then what is likely to be asked next.
 * Returns how much of the former was left to be sent.
 */
static uint64_t sender_serve(PostcopySender *ps, RamSender *via,
                             const PageRequest *request)
{
    const RamRegion *r = request->region;
    uint64_t unit = postcopy_unit(r);
    uint64_t end = request->first + request->count, sent, along;
    unsigned most = has_channel(ps) ? 0
                                    : ALONG_BYTES / (unit << r->page_bits);
    unsigned window;

    WITH_QEMU_LOCK_GUARD(&ps->serving) {
        window = locality_fault(&ps->locality, r->index, request->first / unit,
                                most);
    }
    sent = send_units(ps, via, r, request->first, end);
    along = MIN(end + window * unit, r->pages);
    along = send_units(ps, via, r, end, MAX(end, along));
    qatomic_set_u64(&ps->aim, aim_at(r, MIN(end + window * unit, r->pages)));

    WITH_QEMU_LOCK_GUARD(&ps->serving) {
        add_stat(&ps->served.urgent, sent);
        add_stat(&ps->served.along, along);
    }
    trace_postcopy_served(r->name, request->first, sent, along);
    return sent;
}

/* Returns how much of it was left to be sent. */
static uint64_t serve_request(PostcopySender *ps, RamSender *via,
                              const PageRequest *request)
{
    uint64_t sent = sender_serve(ps, via, request);

    if (!sent) {
        sender_send_again(ps, via, request);
    }
    return sent;
}

/*
 * By the second channel.  A destination that is done closes it whatever
 * comes again: a broken channel is an error only for what comes nowhere else.
 */
static bool serve_at_once(PostcopySender *ps, const PageRequest *request,
                          Error **errp)
{
    QEMUFile *f = ps->channel.file;
    uint64_t before, sent;

    QEMU_LOCK_GUARD(&ps->lock);
    RCU_READ_LOCK_GUARD();
    before = stream_position(f);
    sent = serve_request(ps, &ps->urgent, request);
    stat64_add(&mig_stats.postcopy_bytes, stream_position(f) - before);
    return !sent || stream_check(f, errp);
}

void postcopy_sender_end_channel(PostcopySender *ps)
{
    QEMUFile *f = ps->channel.file;

    if (f) {
        QEMU_LOCK_GUARD(&ps->lock);
        ps->again = false;
        qemu_put_be64(f, WIRE_RAM_EOS);
        qemu_fflush(f);
    }
}

bool postcopy_sender_ask(PostcopySender *ps, const char *name, uint64_t start,
                         uint32_t len, Error **errp)
{
    PostcopyAnswers answers = qatomic_load_acquire(&ps->answers);
    PageRequest request;

    if (answers == POSTCOPY_REFUSE) {
        error_setg(errp, "Bad request for pages: the guest does not run there "
                   "yet");
        return false;
    }
    if (!postcopy_request_read(ps->regions, &ps->last_asked, name, start, len,
                               &request, errp)) {
        return false;
    }
    if (answers == POSTCOPY_IGNORE) {
        return true;
    }
    stat64_add(&mig_stats.postcopy_requests, 1);
    add_stat(&ps->served.asked, request.count);
    if (answers == POSTCOPY_KEEP || !has_channel(ps)) {
        postcopy_queue_put(&ps->queue, &request);
        ps->ops->wake(ps->opaque);
        return true;
    }
    return serve_at_once(ps, &request, errp);
}

bool postcopy_sender_asked(const PostcopySender *ps)
{
    return !postcopy_queue_empty(&ps->queue);
}

/*
 * Background
 */

/* Go on behind the last page that was requested. */
static void re_aim(const PostcopySender *ps, PostcopyBackground *b)
{
    uint64_t aim = qatomic_read_u64(&ps->aim);

    if (aim != b->aimed) {
        b->aimed = aim;
        b->region = aim >> AIM_PAGE_BITS;
        b->page = aim & MAKE_64BIT_MASK(0, AIM_PAGE_BITS);
    }
}

/* A run of up to @limit bytes, or of one host page.  0 if all are clean. */
static uint64_t claim_run(const RamRegions *regions, PostcopyBackground *b,
                          uint64_t limit, const RamRegion **region,
                          uint64_t *first)
{
    /* once more than there are: the first may have been begun in its middle */
    for (unsigned tries = 0; tries <= regions->count; tries++) {
        RamRegion *r = &regions->list[b->region];

        if (ram_region_sent(r) && dirty_map_count(r->map)) {
            uint64_t count = dirty_map_claim_run(r->map, b->page,
                                                 postcopy_unit(r),
                                                 limit >> r->page_bits, first);

            if (count) {
                b->page = *first + count;
                *region = r;
                return count;
            }
        }
        b->region = (b->region + 1) % regions->count;
        b->page = 0;
    }
    return 0;
}

static uint64_t batch_bytes(const PostcopySender *ps, bool all)
{
    uint64_t most = has_other_way(ps) ? BATCH_BYTES_ALONE : BATCH_BYTES;
    uint64_t rate = migration_rate_get();

    if (all || rate == RATE_LIMIT_DISABLED) {
        return most;
    }
    return MIN(rate / BATCH_SHARE, most);
}

/* It may be worth sending again. */
static void sender_note(const PostcopySender *ps, PostcopyBackground *b,
                        const PageRequest *run)
{
    if (ps->again && has_other_way(ps) && postcopy_unit(run->region) == 1) {
        under_way_note(&b->under_way, run->region, run->first, run->count);
        add_stat(&b->noted, run->count);
    }
}

/* At least a host page, and up to @limit bytes.  False: nothing is left */
static bool sender_send_batch(PostcopySender *ps, PostcopyBackground *b,
                              RamSender *via, uint64_t limit)
{
    PageRequest runs[BATCH_RUNS];
    unsigned n = 0;

    re_aim(ps, b);
    do {
        PageRequest *run = &runs[n];
        uint64_t bytes;

        run->count = claim_run(ps->regions, b, limit, &run->region,
                               &run->first);
        if (!run->count) {
            break;
        }
        sender_note(ps, b, run);
        sender_send_pages(ps, via, run->region, run->first, run->count);
        bytes = run->count << run->region->page_bits;
        limit -= MIN(bytes, limit);
        n++;
    } while (limit && n < BATCH_RUNS);

    ram_sink_flush(via->sink);
    for (unsigned i = 0; i < n; i++) {
        sender_sent_pages(ps, runs[i].region, runs[i].first, runs[i].count);
    }
    return n;
}

/* One that waits is the migration thread's, which may just be waking up. */
static bool overflows(const PostcopyQueue *q)
{
    return postcopy_queue_length(q) > 1 &&
           postcopy_queue_bytes(q) >= POSTCOPY_OVERFLOW;
}

/* What is requested, if the migration thread is behind with that */
static bool serve_overflow(PostcopySender *ps, RamSender *via)
{
    PageRequest request;

    if (!overflows(&ps->queue) || !postcopy_sender_take(ps, &request)) {
        return false;
    }
    serve_request(ps, via, &request);
    return true;
}

void postcopy_sender_help(PostcopySender *ps, unsigned i, RamSender *via)
{
    bool more = ps->regions->count, sent = false;

    while (more && !ram_pace_over(via->pace, sent) &&
           !ram_sink_error(via->sink)) {
        RCU_READ_LOCK_GUARD();
        sent = true;
        more = serve_overflow(ps, via) ||
               sender_send_batch(ps, &ps->helpers[i], via,
                                 batch_bytes(ps, false));
    }
}

void postcopy_sender_serve_queue(PostcopySender *ps, RamSender *main)
{
    PageRequest request;

    while (postcopy_sender_take(ps, &request)) {
        QEMU_LOCK_GUARD(&ps->lock);
        serve_request(ps, main, &request);
    }
}

RamSendResult postcopy_sender_run(PostcopySender *ps, RamSender *main,
                                  bool all)
{
    int64_t end = now_ns() + RAM_SEND_NS;
    uint64_t start = ram_sink_position(main->sink);

    while (ps->regions->count) {
        if (ram_sink_error(main->sink)) {
            return RAM_SEND_ERROR;
        }
        postcopy_sender_serve_queue(ps, main);
        if (!all && ps->quota <= ram_sink_position(main->sink) - start) {
            return ram_sender_left(ps->regions) ? RAM_SEND_SOME : RAM_SEND_ALL;
        }
        if (!all && (migration_rate_wait_ns() || now_ns() >= end)) {
            return RAM_SEND_SOME;
        }
        if (!sender_send_batch(ps, &ps->background, main,
                               batch_bytes(ps, all))) {
            break;
        }
    }
    return RAM_SEND_ALL;
}
