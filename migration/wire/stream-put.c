/*
 * Output side of QEMUFile: gathers what is put and writes it in one go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/madvise.h"
#include "qemu/memalign.h"
#include "migration/qemu-file.h"
#include "migration/migration-stats.h"
#include "stream-private.h"

QEMU_BUILD_BUG_ON(STREAM_STAGE_SIZE >= STREAM_BUDGET_MIN);
QEMU_BUILD_BUG_ON(STREAM_GATHER_PIECES < 16);
QEMU_BUILD_BUG_ON(STREAM_GATHER_PIECES > IOV_MAX);

static size_t flush_budget(void)
{
    uint64_t rate = migration_rate_get();

    if (rate == RATE_LIMIT_DISABLED) {
        return STREAM_BUDGET_MAX;
    }
    rate /= STREAM_BUDGET_SHARE;
    return MIN(MAX(rate, STREAM_BUDGET_MIN), STREAM_BUDGET_MAX);
}

Gather *stream_gather_new(void)
{
    Gather *g = g_new(Gather, 1);

    g->stage = NULL;
    g->staged = g->sealed = g->queued = g->npieces = 0;
    g->budget = flush_budget();
    g->release = NULL;
    g->keep = g->placed = false;
    g->kept = NULL;
    return g;
}

void stream_gather_free(Gather *g)
{
    if (g->release) {
        g_array_free(g->release, true);
    }
    if (g->kept) {
        g_byte_array_unref(g->kept);
    }
    qemu_vfree(g->stage);
    g_free(g);
}

static inline void gather_add(Gather *g, const void *base, size_t len)
{
    g->pieces[g->npieces++] = (struct iovec) {
        .iov_base = (void *)base,
        .iov_len = len,
    };
}

static inline void gather_seal(Gather *g)
{
    if (g->staged > g->sealed) {
        gather_add(g, g->stage + g->sealed, g->staged - g->sealed);
        g->sealed = g->staged;
    }
}

/* If the last piece ends where @base begins, makes it @len longer. */
static inline bool gather_extend(Gather *g, const void *base, size_t len)
{
    struct iovec *last;

    if (!g->npieces) {
        return false;
    }
    last = &g->pieces[g->npieces - 1];
    if ((uint8_t *)last->iov_base + last->iov_len != base) {
        return false;
    }
    last->iov_len += len;
    return true;
}

/* Only whole host pages can be given back, so neighbours are joined first. */
static void release_later(Gather *g, const void *base, size_t len)
{
    struct iovec range = { .iov_base = (void *)base, .iov_len = len };

    if (!g->release) {
        g->release = g_array_new(false, false, sizeof(struct iovec));
    }
    if (g->release->len) {
        struct iovec *last = &g_array_index(g->release, struct iovec,
                                            g->release->len - 1);

        if ((uint8_t *)last->iov_base + last->iov_len == base) {
            last->iov_len += len;
            return;
        }
    }
    g_array_append_val(g->release, range);
}

static void release_now(Gather *g)
{
    uintptr_t page = qemu_real_host_page_size();

    for (guint i = 0; g->release && i < g->release->len; i++) {
        struct iovec *range = &g_array_index(g->release, struct iovec, i);
        uintptr_t from = ROUND_UP((uintptr_t)range->iov_base, page);
        uintptr_t to = ROUND_DOWN((uintptr_t)range->iov_base + range->iov_len,
                                  page);

        if (from < to && qemu_madvise((void *)from, to - from,
                                      QEMU_MADV_DONTNEED) < 0) {
            warn_report_once("migration: memory that was sent cannot be given "
                             "back, e.g. %zu bytes at 0x%" PRIxPTR ": %s",
                             (size_t)(to - from), from, strerror(errno));
        }
    }
}

static void gather_keep(Gather *g)
{
    if (!g->kept) {
        g->kept = g_byte_array_new();
    }
    for (size_t i = 0; i < g->npieces; i++) {
        g_byte_array_append(g->kept, g->pieces[i].iov_base,
                            g->pieces[i].iov_len);
    }
}

static bool coroutine_mixed_fn gather_write_kept(QEMUFile *f)
{
    Gather *g = f->out;
    struct iovec all;
    bool ok;

    if (!g->kept) {
        return true;
    }
    all = (struct iovec) {
        .iov_base = g->kept->data,
        .iov_len = g->kept->len,
    };
    ok = stream_channel_write(f, &all, 1, NULL, 0);
    g_byte_array_unref(g_steal_pointer(&g->kept));
    return ok;
}

static bool is_staged(const Gather *g, const struct iovec *piece)
{
    const uint8_t *base = piece->iov_base;

    return g->stage && base >= g->stage && base < g->stage + STREAM_STAGE_SIZE;
}

/* How many pieces from @first on, of @n, are alike; all @bytes of them */
static size_t same_kind(const Gather *g, size_t first, size_t n, size_t *bytes)
{
    bool staged = is_staged(g, &g->pieces[first]);
    size_t end = first;

    *bytes = 0;
    while (end < n && is_staged(g, &g->pieces[end]) == staged) {
        *bytes += g->pieces[end++].iov_len;
    }
    return end - first;
}

/* The stage is used again at once: what lies there is copied. */
static bool coroutine_mixed_fn gather_write(QEMUFile *f)
{
    Gather *g = f->out;
    bool ok = true;
    size_t count, bytes;

    if (!stream_in_place(f)) {
        return stream_channel_write(f, g->pieces, g->npieces, NULL, 0);
    }
    for (size_t at = 0; ok && at < g->npieces; at += count) {
        bool staged = is_staged(g, &g->pieces[at]);

        count = same_kind(g, at, g->npieces, &bytes);
        ok = staged || bytes < STREAM_IN_PLACE_MIN
             ? stream_channel_write(f, &g->pieces[at], count, NULL, 0)
             : f->write_in_place(f, &g->pieces[at], count);
    }
    return ok;
}

/*
 * Writes the queue, or drops it if an error is latched meanwhile.  Memory that
 * is to be given back stays until what is kept of it is written.
 */
static void coroutine_mixed_fn gather_send(QEMUFile *f)
{
    Gather *g = f->out;

    gather_seal(g);
    if (g->keep && gather_held(g) <= STREAM_KEEP_MAX) {
        gather_keep(g);
    } else if (gather_write_kept(f) && gather_write(f)) {
        release_now(g);
    }
    g->staged = g->sealed = g->queued = g->npieces = 0;
    g->budget = flush_budget();
    if (g->release && !g->kept) {
        g_array_set_size(g->release, 0);
    }
}

/* O3: nothing may follow a reference without a flush if this holds. */
static inline bool gather_full(Gather *g)
{
    return g->queued >= g->budget || g->npieces + 3 > STREAM_GATHER_PIECES;
}

static void coroutine_mixed_fn gather_refer(QEMUFile *f, const void *base,
                                            size_t len)
{
    Gather *g = f->out;

    gather_seal(g);
    if (!gather_extend(g, base, len)) {
        gather_add(g, base, len);
    }
    g->queued += len;
}

/* Room for @len (up to STREAM_STAGE_SIZE) more bytes in the stage. */
static bool coroutine_mixed_fn stage_make_room(QEMUFile *f, size_t len)
{
    Gather *g = f->out;

    if (!g->stage) {
        g->stage = qemu_memalign(qemu_real_host_page_size(),
                                 STREAM_STAGE_SIZE);
    }
    if (g->staged + len > STREAM_STAGE_SIZE) {
        gather_send(f);
    }
    return !stream_fault(f);
}

/* Where to store the next @len bytes, or NULL if an error is latched. */
static inline uint8_t *coroutine_mixed_fn stage_take(QEMUFile *f, size_t len)
{
    Gather *g = f->out;
    uint8_t *p;

    assert(g);
    if (unlikely(stream_fault(f))) {
        return NULL;
    }
    if (unlikely(!g->stage || g->staged + len > STREAM_STAGE_SIZE) &&
        !stage_make_room(f, len)) {
        return NULL;
    }
    p = g->stage + g->staged;
    g->staged += len;
    g->queued += len;
    return p;
}

int coroutine_mixed_fn qemu_fflush(QEMUFile *f)
{
    Gather *g = f->out;

    if (g && (g->queued || (g->kept && !g->keep)) && !stream_fault(f)) {
        gather_send(f);
    }
    return qemu_file_get_error(f);
}

bool stream_is_kept(QEMUFile *f)
{
    return f->out->keep;
}

void stream_keep(QEMUFile *f, bool keep)
{
    Gather *g = f->out;

    assert(g);
    keep = keep && !g->placed;
    if (g->keep && !keep && g->queued) {
        gather_send(f);         /* the last copy */
    }
    g->keep = keep;
}

void coroutine_mixed_fn qemu_put_buffer_async(QEMUFile *f, const uint8_t *buf,
                                              size_t size, bool may_free)
{
    Gather *g = f->out;

    assert(g);
    if (!size || stream_fault(f)) {
        return;
    }
    gather_refer(f, buf, size);
    if (may_free) {
        release_later(g, buf, size);
    }
    if (gather_full(g)) {
        gather_send(f);
    }
}

void coroutine_mixed_fn qemu_put_buffer(QEMUFile *f, const uint8_t *buf,
                                        size_t size)
{
    /* What is sent in place is not the caller's again when this returns. */
    if (size >= STREAM_DIRECT_PUT && !stream_in_place(f)) {
        assert(f->out);
        if (!stream_fault(f)) {
            gather_refer(f, buf, size);
            gather_send(f);
        }
        return;
    }
    while (size) {
        Gather *g = f->out;
        size_t room = g && g->stage ? STREAM_STAGE_SIZE - g->staged : 0;
        size_t len = MIN(room ?: STREAM_STAGE_SIZE, size);
        uint8_t *p = stage_take(f, len);

        if (!p) {
            return;
        }
        memcpy(p, buf, len);
        buf += len;
        size -= len;
    }
}

void coroutine_mixed_fn qemu_put_byte(QEMUFile *f, int v)
{
    uint8_t *p = stage_take(f, 1);

    if (p) {
        *p = v;
    }
}

void coroutine_mixed_fn qemu_put_be16(QEMUFile *f, unsigned int v)
{
    uint8_t *p = stage_take(f, 2);

    if (p) {
        stw_be_p(p, v);
    }
}

void coroutine_mixed_fn qemu_put_be32(QEMUFile *f, unsigned int v)
{
    uint8_t *p = stage_take(f, 4);

    if (p) {
        stl_be_p(p, v);
    }
}

void coroutine_mixed_fn qemu_put_be64(QEMUFile *f, uint64_t v)
{
    uint8_t *p = stage_take(f, 8);

    if (p) {
        stq_be_p(p, v);
    }
}

void coroutine_mixed_fn qemu_put_counted_string(QEMUFile *f, const char *str)
{
    size_t len = strlen(str);

    assert(len <= UINT8_MAX);
    qemu_put_byte(f, len);
    qemu_put_buffer(f, (const uint8_t *)str, len);
}

uint64_t qemu_file_transferred(QEMUFile *f)
{
    assert(f->out);
    return stat64_get(&mig_stats.qemu_file_transferred) +
           gather_held(f->out);
}
