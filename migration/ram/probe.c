/*
 * What can be found out about the guest's memory while nothing is sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <zlib.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "migration/base/clock.h"
#include "blocks.h"
#include "existing.h"
#include "probe.h"
#include "sync.h"

/* How many pages of the target are looked at */
#define SAMPLE_PAGES 256

/*
 * Samples
 */

typedef struct Sampler {
    RamSample *sample;
    RamRegion *region;
    uint64_t every;             /* bytes from one page to the next */
    uint64_t skip;              /* bytes until the next one */
    uint64_t in, out, ns;       /* of compression */
} Sampler;

static void sample_page(Sampler *s, const uint8_t *from, size_t size)
{
    /* The guest may write to it meanwhile. */
    g_autofree uint8_t *page = g_memdup2(from, size);
    uLongf length = compressBound(size);
    g_autofree uint8_t *out = g_malloc(length);
    int64_t start = now_ns();

    s->sample->pages++;
    if (buffer_is_zero(page, size)) {
        s->sample->zero++;
        return;
    }
    if (compress2(out, &length, page, size, 1) != Z_OK) {
        length = size;
    }
    s->ns += now_ns() - start;
    s->in += size;
    s->out += MIN(length, size);
}

static void sample_range(void *opaque, uint64_t offset, uint64_t length)
{
    Sampler *s = opaque;
    size_t size = ram_region_page_size(s->region);
    uint64_t at = s->skip;

    for (; at + size <= length; at += s->every) {
        uint64_t page = QEMU_ALIGN_DOWN(offset + at, size);

        if (page + size <= ram_region_bytes(s->region) &&
            s->sample->pages < SAMPLE_PAGES) {
            sample_page(s, s->region->host + page, size);
        }
    }
    s->skip = at > length ? at - length : 0;
}

void ram_sample(RamSample *sample)
{
    Sampler s = { .sample = sample };
    RamRegions regions;

    *sample = (RamSample) { .existing = ram_existing_bytes() };
    s.every = MAX(sample->existing / SAMPLE_PAGES, 4096);
    ram_blocks_get(&regions);
    RAM_REGIONS_FOREACH(r, &regions) {
        if (ram_region_here(r) && r->pages) {
            s.region = r;
            populated_scan(&r->area, POPULATED_BEST, sample_range, &s);
        }
    }
    ram_blocks_free(&regions);
    if (s.in) {
        sample->ratio = s.in * 100 / MAX(s.out, 1);
        sample->speed = s.in * 1e9 / MAX(s.ns, 1);
    }
}

/*
 * What is dirtied
 *
 * All under the BQL, which ram_log_restart() and ram_log_sync() release while
 * they wait for vCPUs.  A migration may take the log meanwhile.  They have read
 * and cleared it by then, and do not again, but still walk over the regions: so
 * these are freed by whoever is at work.
 */

static struct {
    RamRegions regions;         /* no list: there is no probe */
    uint64_t dirtied;
    bool busy;                  /* somebody walks over the regions */
    bool ended;                 /* the log was returned meanwhile */
} probe;

/* Memory whose device is unplugged stays as long as it is looked at. */
static void hold_memory(bool hold)
{
    RAM_REGIONS_FOREACH(r, &probe.regions) {
        if (hold) {
            memory_region_ref(r->rb->mr);
        } else {
            memory_region_unref(r->rb->mr);
        }
    }
}

static void forget_probe(void)
{
    hold_memory(false);
    ram_blocks_free(&probe.regions);
}

void ram_probe_end(void)
{
    if (!probe.regions.list || probe.ended) {
        return;
    }
    ram_log_return();
    probe.ended = true;
    if (!probe.busy) {
        forget_probe();
    }
}

static bool was_ended(Error **errp)
{
    error_setg(errp, "The estimate was ended, as a migration or a snapshot "
               "was started");
    return false;
}

/* After work on the regions: false if the probe was ended meanwhile. */
static bool still_probing(Error **errp)
{
    probe.busy = false;
    if (!probe.ended) {
        return true;
    }
    forget_probe();
    return was_ended(errp);
}

bool ram_probe_begin(Error **errp)
{
    if (probe.regions.list) {
        error_setg(errp, "An estimate is being made already");
        return false;
    }
    ram_blocks_get(&probe.regions);
    if (!ram_blocks_make_maps(&probe.regions)) {
        error_setg(errp, "No memory for maps of what the guest writes");
    } else if (ram_log_borrow(ram_probe_end, errp)) {
        hold_memory(true);
        probe.dirtied = 0;
        probe.ended = false;
        probe.busy = true;
        ram_log_restart(&probe.regions);
        return still_probing(errp);
    }
    ram_blocks_free(&probe.regions);
    return false;
}

bool ram_probe_look(uint64_t *dirtied, Error **errp)
{
    RamSyncReport report;

    if (!probe.regions.list) {
        return was_ended(errp);
    }
    probe.busy = true;
    ram_log_sync(&probe.regions, false, &report);
    probe.dirtied += report.dirtied;
    *dirtied = probe.dirtied;
    return still_probing(errp);
}
