/*
 * virtio-balloon: pages that come and go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What goes into the balloon, and what is reported as free, is given back to
 * the host.  The guest reads zeros there when it uses it again.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/madvise.h"
#include "exec/address-spaces.h"
#include "exec/ramblock.h"
#include "hw/virtio/virtio-access.h"
#include "migration/misc.h"
#include "trace.h"
#include "virtio-balloon-private.h"

#define UNIT_SHIFT VIRTIO_BALLOON_PFN_SHIFT
#define UNIT_BYTES (1u << UNIT_SHIFT)

/*
 * A page of the host that is larger than the balloon's unit, of which the
 * guest has given up some units.  It goes when all are there.  They have to
 * come one after the other and in one buffer: guests that know nothing of the
 * host's pages rarely do otherwise when they give up large pieces, and to wait
 * for more would be to believe what may have been taken back since.
 */
typedef struct HostPage {
    RAMBlock *rb;               /* NULL: none is begun */
    ram_addr_t offset;
    unsigned units;
    unsigned long *given;
} HostPage;

/* One unit in the RAM behind it */
typedef struct Unit {
    RAMBlock *rb;
    ram_addr_t offset;
} Unit;

typedef void UnitFn(const Unit *unit, HostPage *page);

/*
 * Who takes in a guest by postcopy wants to know which pages are missing, and
 * there are devices that have pinned the memory.
 */
static bool memory_must_stay(void)
{
    return ram_block_discard_is_disabled() ||
           migration_in_incoming_postcopy() || migration_in_bg_snapshot();
}

static void host_page_forget(HostPage *page)
{
    g_free(page->given);
    *page = (HostPage) { };
}

static void host_page_begin(HostPage *page, const Unit *unit, size_t bytes)
{
    ram_addr_t offset = QEMU_ALIGN_DOWN(unit->offset, bytes);

    if (page->rb == unit->rb && page->offset == offset) {
        return;
    }
    host_page_forget(page);
    page->rb = unit->rb;
    page->offset = offset;
    page->units = bytes >> UNIT_SHIFT;
    page->given = bitmap_new(page->units);
}

static void inflate(const Unit *unit, HostPage *page)
{
    size_t bytes = qemu_ram_pagesize(unit->rb);

    /* What cannot be given back stays: ram_block_discard_range() says why. */
    if (bytes <= UNIT_BYTES) {
        ram_block_discard_range(unit->rb, unit->offset, UNIT_BYTES);
        return;
    }
    warn_report_once("virtio-balloon: the guest's memory has pages of %zu KiB "
                     "on the host, and only whole ones can be given back",
                     bytes >> 10);
    host_page_begin(page, unit, bytes);
    set_bit((unit->offset - page->offset) >> UNIT_SHIFT, page->given);
    if (bitmap_full(page->given, page->units)) {
        ram_block_discard_range(page->rb, page->offset, bytes);
        host_page_forget(page);
    }
}

/* The guest will use it, so the host may as well bring it in now. */
static void deflate(const Unit *unit, HostPage *page)
{
    size_t bytes = qemu_ram_pagesize(unit->rb);
    ram_addr_t offset = QEMU_ALIGN_DOWN(unit->offset, bytes);

    if (qemu_madvise(unit->rb->host + offset, bytes, QEMU_MADV_WILLNEED)) {
        warn_report_once("virtio-balloon: memory that the guest takes back "
                         "cannot be read ahead: %s", strerror(errno));
    }
}

/* Call @fn for the page at @gpa if it is the guest's to give and to take. */
static void with_unit(hwaddr gpa, UnitFn *fn, HostPage *page)
{
    MemoryRegionSection section = memory_region_find(get_system_memory(), gpa,
                                                     UNIT_BYTES);
    MemoryRegion *mr = section.mr;
    Unit unit = { .offset = section.offset_within_region };

    if (!mr) {
        trace_virtio_balloon_bad_addr(gpa);
        return;
    }
    if (!memory_region_is_ram(mr) || memory_region_is_rom(mr) ||
        memory_region_is_romd(mr) || memory_region_is_ram_device(mr) ||
        int128_lt(section.size, int128_make64(UNIT_BYTES))) {
        trace_virtio_balloon_bad_addr(gpa);
    } else {
        trace_virtio_balloon_handle_output(memory_region_name(mr), gpa);
        unit.rb = mr->ram_block;
        if (!memory_must_stay()) {
            fn(&unit, page);
        }
    }
    memory_region_unref(mr);
}

/* A buffer is an array of page numbers, each of 32 bits. */
static void handle_units(VirtIODevice *vdev, VirtQueue *vq, UnitFn *fn)
{
    VirtQueueElement *elem;

    while ((elem = virtqueue_pop(vq, sizeof(*elem)))) {
        HostPage page = { };
        uint32_t number;

        for (size_t at = 0; iov_to_buf(elem->out_sg, elem->out_num, at,
                                       &number, sizeof(number)) ==
                            sizeof(number); at += sizeof(number)) {
            hwaddr pfn = virtio_ldl_p(vdev, &number);

            with_unit(pfn << UNIT_SHIFT, fn, &page);
        }
        host_page_forget(&page);
        virtqueue_push(vq, elem, 0);
        virtio_notify(vdev, vq);
        g_free(elem);
    }
}

void balloon_handle_inflate(VirtIODevice *vdev, VirtQueue *vq)
{
    handle_units(vdev, vq, inflate);
}

void balloon_handle_deflate(VirtIODevice *vdev, VirtQueue *vq)
{
    handle_units(vdev, vq, deflate);
}

/*
 * Reports
 */

/*
 * @iov is where a buffer of the guest is mapped: in a RAM block, unless it was
 * no RAM.  Ranges that are not whole pages of the host stay.
 */
static void give_back(const struct iovec *iov, hwaddr gpa)
{
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(iov->iov_base, false, &offset);

    if (!rb) {
        trace_virtio_balloon_bad_addr(gpa);
        return;
    }
    if (QEMU_IS_ALIGNED(offset | iov->iov_len, qemu_ram_pagesize(rb)) &&
        offset + iov->iov_len <= qemu_ram_get_used_length(rb)) {
        ram_block_discard_range(rb, offset, iov->iov_len);
    }
}

/*
 * A guest that relies on what is in its free pages would find zeros there: so
 * they stay if it says that it is something else.
 */
void balloon_handle_report(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);
    VirtQueueElement *elem;

    while ((elem = virtqueue_pop(vq, sizeof(*elem)))) {
        bool take = !s->poison_val && !memory_must_stay();

        for (unsigned i = 0; take && i < elem->in_num; i++) {
            give_back(&elem->in_sg[i], elem->in_addr[i]);
        }
        virtqueue_push(vq, elem, 0);
        virtio_notify(vdev, vq);
        g_free(elem);
    }
}
