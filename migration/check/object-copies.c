/*
 * What of a device is another way after its state has been loaded
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/util.h"
#include "qemu/timer.h"
#include "hw/core/cpu.h"
#include "hw/qdev-core.h"
#include "qemu/object-size.h"
#include "object-copies.h"

#define WORD sizeof(uint64_t)
#define SHOWN_BYTES 16

/* An object, device or not */
typedef struct ObjectRange {
    Object *obj;
    const uint8_t *start;
    size_t size;
    uint8_t *before, *reset;    /* copies, of devices that are compared */
} ObjectRange;

typedef struct AddressRange {
    uint64_t first, end;
} AddressRange;

struct ObjectCopies {
    GArray *ranges;             /* ObjectRange, by address */
    GArray *mapped;             /* AddressRange: whatever was mapped here */
    unsigned devices;
};

/*
 * Addresses
 */

/*
 * What is mapped into this process at the moment, in addition to what was
 * before.  Nothing is added where that cannot be found out.
 */
static void add_mapped(GArray *mapped)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    AddressRange range;

    if (!g_file_get_contents("/proc/self/maps", &text, NULL, NULL)) {
        return;
    }
    lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        if (sscanf(lines[i], "%" SCNx64 "-%" SCNx64, &range.first,
                   &range.end) == 2) {
            g_array_append_val(mapped, range);
        }
    }
}

/*
 * Which objects
 */

static bool is_compared(Object *obj)
{
    return object_dynamic_cast(obj, TYPE_DEVICE) &&
           !object_dynamic_cast(obj, TYPE_CPU);
}

static int add_object(Object *obj, void *opaque)
{
    GArray *ranges = opaque;
    ObjectRange range = {
        .obj = obj, .start = (uint8_t *)obj, .size = object_get_size(obj),
    };

    g_array_append_val(ranges, range);
    return 0;
}

/* Of two at one address the larger one first, as the other one is in it */
static gint by_address(gconstpointer a, gconstpointer b)
{
    const ObjectRange *x = a, *y = b;

    if (x->start != y->start) {
        return x->start < y->start ? -1 : 1;
    }
    return x->size > y->size ? -1 : x->size < y->size;
}

ObjectCopies *object_copies_take(void)
{
    ObjectCopies *c = g_new0(ObjectCopies, 1);

    c->ranges = g_array_new(false, false, sizeof(ObjectRange));
    object_child_foreach_recursive(object_get_root(), add_object, c->ranges);
    g_array_sort(c->ranges, by_address);
    c->mapped = g_array_new(false, false, sizeof(AddressRange));
    add_mapped(c->mapped);
    for (unsigned i = 0; i < c->ranges->len; i++) {
        ObjectRange *r = &g_array_index(c->ranges, ObjectRange, i);

        if (is_compared(r->obj)) {
            r->before = g_memdup2(r->start, r->size);
            c->devices++;
        }
    }
    return c;
}

void object_copies_note_reset(ObjectCopies *c)
{
    for (unsigned i = 0; i < c->ranges->len; i++) {
        ObjectRange *r = &g_array_index(c->ranges, ObjectRange, i);

        if (r->before) {
            r->reset = g_memdup2(r->start, r->size);
        }
    }
}

unsigned object_copies_count(const ObjectCopies *c)
{
    return c->devices;
}

void object_copies_free(ObjectCopies *c)
{
    if (!c) {
        return;
    }
    for (unsigned i = 0; i < c->ranges->len; i++) {
        ObjectRange *r = &g_array_index(c->ranges, ObjectRange, i);

        g_free(r->before);
        g_free(r->reset);
    }
    g_array_unref(c->ranges);
    g_array_unref(c->mapped);
    g_free(c);
}

/*
 * Words
 */

static bool is_address(const ObjectCopies *c, uint64_t word)
{
    for (unsigned i = 0; i < c->mapped->len; i++) {
        const AddressRange *r = &g_array_index(c->mapped, AddressRange, i);

        if (word >= r->first && word < r->end) {
            return true;
        }
    }
    return false;
}

static bool word_differs(const ObjectCopies *c, const uint8_t *was,
                         const uint8_t *is)
{
    uint64_t a, b;

    memcpy(&a, was, WORD);
    memcpy(&b, is, WORD);
    return a != b && !is_address(c, a) && !is_address(c, b);
}

/* A QEMUTimer begins before a word that is the address of a list of timers. */
static bool is_timer(const uint8_t *at, size_t left)
{
    QEMUTimer timer;

    if (left < sizeof(timer)) {
        return false;
    }
    memcpy(&timer, at, sizeof(timer));
    for (int type = 0; type < QEMU_CLOCK_MAX; type++) {
        if (timer.timer_list && timer.timer_list == main_loop_tlg.tl[type]) {
            return true;
        }
    }
    return false;
}

/*
 * Comparing
 */

typedef struct ObjectCompare {
    const ObjectCopies *c;
    VmstateNotRestoredList *list, **tail;
    unsigned count;
} ObjectCompare;

static char *hex_of(const uint8_t *bytes, size_t size)
{
    GString *text = g_string_new(NULL);

    for (size_t i = 0; i < MIN(size, SHOWN_BYTES); i++) {
        g_string_append_printf(text, "%s%02x", i ? " " : "", bytes[i]);
    }
    if (size > SHOWN_BYTES) {
        g_string_append(text, " ...");
    }
    return g_string_free(text, false);
}

/* Narrowed down to the bytes that differ */
static void report_part(ObjectCompare *o, const ObjectRange *r, size_t from,
                        size_t to)
{
    VmstateNotRestored *part;

    while (from < to && r->before[from] == r->start[from]) {
        from++;
    }
    while (to > from && r->before[to - 1] == r->start[to - 1]) {
        to--;
    }
    if (from == to || o->count++ >= NOT_RESTORED_MAX) {
        return;
    }
    part = g_new(VmstateNotRestored, 1);
    *part = (VmstateNotRestored) {
        .device = object_get_canonical_path(r->obj),
        .type = g_strdup(object_get_typename(r->obj)),
        .offset = from,
        .size = to - from,
        .before = hex_of(r->before + from, to - from),
        .after = hex_of(r->start + from, to - from),
        .as_reset = r->reset && !memcmp(r->reset + from, r->start + from,
                                        to - from),
    };
    QAPI_LIST_APPEND(o->tail, part);
}

/* From @from to @to nothing else is in the structure. */
static void compare_part(ObjectCompare *o, const ObjectRange *r, size_t from,
                         size_t to)
{
    size_t begin = 0, end = 0;

    from = ROUND_UP(from, WORD);
    for (size_t at = from; at + WORD <= to; at += WORD) {
        if (is_timer(r->before + at, to - at)) {
            at += sizeof(QEMUTimer) - WORD;
            continue;
        }
        if (!word_differs(o->c, r->before + at, r->start + at)) {
            continue;
        }
        if (end && at - end >= NOT_RESTORED_GAP) {
            report_part(o, r, begin, end);
            end = 0;
        }
        begin = end ? begin : at;
        end = at + WORD;
    }
    if (end) {
        report_part(o, r, begin, end);
    }
}

/* What other objects in the structure leave of it */
static void compare_object(ObjectCompare *o, unsigned index)
{
    const GArray *ranges = o->c->ranges;
    const ObjectRange *r = &g_array_index(ranges, ObjectRange, index);
    size_t at = sizeof(DeviceState);

    for (unsigned i = index + 1; i < ranges->len; i++) {
        const ObjectRange *inner = &g_array_index(ranges, ObjectRange, i);
        size_t offset = inner->start - r->start;

        if (inner->start >= r->start + r->size) {
            break;
        }
        if (offset > at) {
            compare_part(o, r, at, offset);
        }
        at = MAX(at, offset + inner->size);
    }
    if (at < r->size) {
        compare_part(o, r, at, r->size);
    }
}

VmstateNotRestoredList *object_copies_compare(ObjectCopies *c)
{
    ObjectCompare o = { .c = c };

    o.tail = &o.list;
    add_mapped(c->mapped);
    if (!c->mapped->len || HOST_LONG_BITS < 64) {
        return NULL;
    }
    for (unsigned i = 0; i < c->ranges->len; i++) {
        if (g_array_index(c->ranges, ObjectRange, i).before) {
            compare_object(&o, i);
        }
    }
    return o.list;
}
