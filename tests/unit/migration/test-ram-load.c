/*
 * Unit tests of loading RAM: each record, each lie, and streams that are cut
 * off, changed bit by bit, or noise
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory stands between pages that nobody may touch, so that a write outside
 * of it ends the test, and what is mapped but not in use holds a pattern that
 * must not change.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/memfd.h"
#include "io/channel-buffer.h"
#include "setup.h"
#include "migration/ram/load.h"
#include "migration/ram/xbzrle.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"

#include <sys/mman.h>

#define UNUSED 0xa5             /* in memory that is not in use */
#define PAGE 4096u              /* of the target, unless a test says so */
#define GUARD (64 * KiB)

/*
 * The destination
 */

enum { LOW, ROM, TABLES, SHARED, REGIONS };

static const struct {
    const char *name;
    uint64_t pages, max_pages;
    bool ignored;
} layout[REGIONS] = {
    [LOW] = { "pc.ram", 1024, 1024 },
    [ROM] = { "0000:00:02.0/vga.rom", 16, 16 },
    [TABLES] = { "/rom@etc/acpi/tables", 32, 64 },
    [SHARED] = { "shared", 16, 16, true },
};

typedef struct Machine {
    RamRegion list[REGIONS];
    RamRegions regions;
    RamLoader loader;
    unsigned resizes, rests;
    bool fixed;                 /* blocks cannot be resized */
} Machine;

static bool test_resize(void *opaque, RamRegion *r, uint64_t bytes,
                        Error **errp)
{
    Machine *m = opaque;

    g_assert_cmpuint(bytes % ram_region_page_size(r), ==, 0);
    g_assert_cmpuint(bytes >> r->page_bits, <=, r->max_pages);
    m->resizes++;
    if (m->fixed) {
        error_setg(errp, "It cannot be resized");
        return false;
    }
    r->pages = bytes >> r->page_bits;
    r->area.size = bytes;
    return true;
}

static void coroutine_mixed_fn test_rest(void *opaque)
{
    Machine *m = opaque;

    m->rests++;
}

static const RamLoadOps test_ops = { .resize = test_resize, .rest = test_rest };

static uint8_t *map_guarded(size_t size, int fd)
{
    uint8_t *p = mmap(NULL, size + 2 * GUARD, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int flags = MAP_FIXED | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);

    g_assert(p != MAP_FAILED);
    g_assert(mmap(p + GUARD, size, PROT_READ | PROT_WRITE, flags, fd, 0) ==
             p + GUARD);
    return p + GUARD;
}

static void unmap_guarded(uint8_t *host, size_t size)
{
    munmap(host - GUARD, size + 2 * GUARD);
}

static void region_init(RamRegion *r, const char *name, unsigned page_bits,
                        uint64_t pages, uint64_t max_pages, int fd)
{
    *r = (RamRegion) {
        .name = (char *)name,
        .page_bits = page_bits,
        .pages = pages,
        .max_pages = max_pages,
        .host = map_guarded(max_pages << page_bits, fd),
        .host_page_size = qemu_real_host_page_size(),
        .area = {
            .kind = populated_kind(false, fd, fd >= 0),
            .size = pages << page_bits,
            .fd = fd,
        },
    };
    r->area.host = r->host;
}

static void region_destroy(RamRegion *r)
{
    unmap_guarded(r->host, r->max_pages << r->page_bits);
}

static void machine_init(Machine *m)
{
    *m = (Machine) {
        .regions = { m->list, REGIONS },
        .loader = {
            .regions = &m->regions, .ops = &test_ops, .opaque = m,
            .page_bits = 12,
        },
    };
    for (unsigned i = 0; i < REGIONS; i++) {
        RamRegion *r = &m->list[i];

        region_init(r, layout[i].name, 12, layout[i].pages,
                    layout[i].max_pages, -1);
        r->index = i;
        r->ignored = layout[i].ignored;
        r->guest_addr = 0x100000 * i;
        if (i == ROM) {
            r->area.kind = POPULATED_UNKNOWN;
        }
        memset(ram_region_page(r, r->pages), UNUSED,
               (r->max_pages - r->pages) * PAGE);
    }
}

static bool all_bytes(const uint8_t *p, size_t len, uint8_t value)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] != value) {
            return false;
        }
    }
    return true;
}

/* Memory that is not in use, or not ours, is as it was. */
static void machine_destroy(Machine *m)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        RamRegion *r = &m->list[i];
        uint64_t used = MAX(r->pages, layout[i].pages);

        g_assert(all_bytes(ram_region_page(r, used),
                           (r->max_pages - used) * PAGE, UNUSED));
        if (r->ignored) {
            g_assert(all_bytes(r->host, r->pages * PAGE, 0));
        }
        region_destroy(r);
    }
}

/*
 * Making streams
 */

typedef struct Wire {
    GByteArray *bytes;
    GByteArray *bulk;           /* for each byte: is it content of a page? */
    unsigned page_bits;
} Wire;

static void wire_init(Wire *w)
{
    w->bytes = g_byte_array_new();
    w->bulk = g_byte_array_new();
    w->page_bits = 12;
}

static void wire_destroy(Wire *w)
{
    g_byte_array_unref(w->bytes);
    g_byte_array_unref(w->bulk);
}

static void put(Wire *w, const void *data, size_t len, bool bulk)
{
    g_byte_array_append(w->bytes, data, len);
    g_byte_array_set_size(w->bulk, w->bytes->len);
    memset(w->bulk->data + w->bytes->len - len, bulk, len);
}

static void put8(Wire *w, uint8_t v)
{
    put(w, &v, 1, false);
}

static void put16(Wire *w, uint16_t v)
{
    v = cpu_to_be16(v);
    put(w, &v, sizeof(v), false);
}

static void put32(Wire *w, uint32_t v)
{
    v = cpu_to_be32(v);
    put(w, &v, sizeof(v), false);
}

static void put64(Wire *w, uint64_t v)
{
    v = cpu_to_be64(v);
    put(w, &v, sizeof(v), false);
}

static void put_name(Wire *w, const char *name)
{
    put8(w, strlen(name));
    put(w, name, strlen(name), false);
}

/* The header of a record about @page; of the block before if @name is NULL */
static void put_header(Wire *w, unsigned flags, const char *name,
                       uint64_t page)
{
    put64(w, page << w->page_bits | flags | (name ? 0 : WIRE_RAM_CONTINUE));
    if (name) {
        put_name(w, name);
    }
}

static void put_zero(Wire *w, const char *name, uint64_t page)
{
    put_header(w, WIRE_RAM_ZERO, name, page);
    put8(w, 0);
}

static void put_page(Wire *w, const char *name, uint64_t page,
                     const void *content)
{
    put_header(w, WIRE_RAM_PAGE, name, page);
    put(w, content, 1u << w->page_bits, true);
}

static void put_run(Wire *w, const char *name, uint64_t page, uint32_t pages,
                    const void *content)
{
    put_header(w, WIRE_RAM_RUN, name, page);
    put32(w, pages);
    put(w, content, (size_t)pages << w->page_bits, true);
}

static void put_zero_range(Wire *w, const char *name, uint64_t page,
                           uint64_t pages)
{
    put_header(w, WIRE_RAM_ZERO_RANGE, name, page);
    put64(w, pages);
}

static void put_change(Wire *w, const char *name, uint64_t page,
                       const void *code, size_t len)
{
    put_header(w, WIRE_RAM_XBZRLE, name, page);
    put8(w, WIRE_XBZRLE_ENCODING);
    put16(w, len);
    put(w, code, len, false);
}

static void put_end(Wire *w)
{
    put64(w, WIRE_RAM_EOS);
}

/* The list of a source that has what the destination has */
static void put_list(Wire *w)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < REGIONS; i++) {
        total += layout[i].pages * PAGE;
    }
    put64(w, total | WIRE_RAM_MEM_SIZE);
    for (unsigned i = 0; i < REGIONS; i++) {
        put_name(w, layout[i].name);
        put64(w, layout[i].pages * PAGE);
    }
}

static bool load_bytes(Machine *m, const uint8_t *data, size_t len,
                       Error **errp)
{
    QEMUFile *f = test_input(data, len);
    bool ok = ram_load_records(f, &m->loader, errp);

    if (ok) {
        g_assert_cmpint(qemu_file_get_error(f), ==, 0);
        g_assert_cmpuint(stream_position(f), <=, len);
    }
    qemu_fclose(f);
    return ok;
}

/* A section of good records */
static void load(Machine *m, Wire *w)
{
    QEMUFile *f = test_input(w->bytes->data, w->bytes->len);

    ram_load_records(f, &m->loader, &error_abort);
    g_assert_cmpuint(stream_position(f), ==, w->bytes->len);
    g_assert_cmpuint(m->loader.zeros.pages, ==, 0);
    qemu_fclose(f);
}

/* One that is refused with an error that has this in its text, in one line */
static void refuse(Machine *m, Wire *w, const char *text)
{
    Error *err = NULL;

    g_assert(!load_bytes(m, w->bytes->data, w->bytes->len, &err));
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), text)) {
        g_error("'%s' is not in '%s'", text, error_get_pretty(err));
    }
    g_assert_null(strchr(error_get_pretty(err), '\n'));
    error_free(err);
}

/* A page that says where it belongs */
static const uint8_t *content(unsigned seed)
{
    static uint8_t page[PAGE];

    for (unsigned i = 0; i < PAGE; i += 4) {
        stl_le_p(page + i, seed * 2654435761u + i);
    }
    return page;
}

static void assert_page(const RamRegion *r, uint64_t page, unsigned seed)
{
    g_assert_cmpmem(ram_region_page(r, page), PAGE, content(seed), PAGE);
}

static void assert_zero(const RamRegion *r, uint64_t page, uint64_t pages)
{
    g_assert(all_bytes(ram_region_page(r, page), pages << r->page_bits, 0));
}

typedef struct Fixture {
    Machine m;
    Wire w;
} Fixture;

static void setup(Fixture *x, gconstpointer data)
{
    machine_init(&x->m);
    wire_init(&x->w);
}

static void teardown(Fixture *x, gconstpointer data)
{
    wire_destroy(&x->w);
    machine_destroy(&x->m);
}

/*
 * Each record as it should be
 */

static void test_pages(Fixture *x, gconstpointer data)
{
    put_page(&x->w, "pc.ram", 3, content(1));
    put_page(&x->w, NULL, 1023, content(2));
    put_page(&x->w, layout[ROM].name, 0, content(3));
    put_page(&x->w, NULL, 15, content(4));
    put_end(&x->w);
    load(&x->m, &x->w);
    assert_page(&x->m.list[LOW], 3, 1);
    assert_page(&x->m.list[LOW], 1023, 2);
    assert_page(&x->m.list[ROM], 0, 3);
    assert_page(&x->m.list[ROM], 15, 4);
    assert_zero(&x->m.list[LOW], 0, 3);
    assert_zero(&x->m.list[LOW], 4, 1019);
    assert_zero(&x->m.list[ROM], 1, 14);
}

/* The block of the last page is still known in the next section. */
static void test_sections(Fixture *x, gconstpointer data)
{
    Wire second;

    wire_init(&second);
    put_page(&x->w, layout[ROM].name, 1, content(1));
    put_end(&x->w);
    put_page(&second, NULL, 2, content(2));
    put_end(&second);
    load(&x->m, &x->w);
    load(&x->m, &second);
    assert_page(&x->m.list[ROM], 1, 1);
    assert_page(&x->m.list[ROM], 2, 2);
    wire_destroy(&second);
}

static void test_zeros(Fixture *x, gconstpointer data)
{
    RamRegion *low = &x->m.list[LOW], *rom = &x->m.list[ROM];

    memset(low->host, 1, 100 * PAGE);
    memset(rom->host, 2, 16 * PAGE);
    put_zero(&x->w, "pc.ram", 7);           /* alone */
    for (unsigned i = 20; i < 80; i++) {    /* gathered */
        put_zero(&x->w, NULL, i);
    }
    put_zero(&x->w, layout[ROM].name, 0);
    put_zero(&x->w, NULL, 15);
    put_end(&x->w);
    load(&x->m, &x->w);
    assert_zero(low, 7, 1);
    assert_zero(low, 20, 60);
    assert_zero(rom, 0, 1);
    assert_zero(rom, 15, 1);
    g_assert(all_bytes(low->host, 7 * PAGE, 1));
    g_assert(all_bytes(ram_region_page(low, 8), 12 * PAGE, 1));
    g_assert(all_bytes(ram_region_page(low, 80), 20 * PAGE, 1));
    g_assert(all_bytes(ram_region_page(rom, 1), 14 * PAGE, 2));
}

/* What comes last counts, whatever was gathered before. */
static void test_order(Fixture *x, gconstpointer data)
{
    RamRegion *low = &x->m.list[LOW];
    const uint8_t code[] = { 0, 2, 0x11, 0x22 };

    put_page(&x->w, "pc.ram", 30, content(1));
    for (unsigned i = 20; i < 60; i++) {
        put_zero(&x->w, NULL, i);
    }
    put_page(&x->w, NULL, 40, content(2));
    put_zero_range(&x->w, NULL, 100, 50);
    put_run(&x->w, NULL, 149, 1, content(3));
    put_zero(&x->w, NULL, 200);
    put_change(&x->w, NULL, 200, code, sizeof(code));
    put_end(&x->w);
    load(&x->m, &x->w);
    assert_zero(low, 20, 20);
    assert_page(low, 40, 2);
    assert_zero(low, 41, 19);
    assert_page(low, 149, 3);
    g_assert_cmpuint(lduw_be_p(ram_region_page(low, 200)), ==, 0x1122);
}

static void test_runs(Fixture *x, gconstpointer data)
{
    g_autofree uint8_t *many = g_malloc(WIRE_RAM_RUN_MAX * PAGE);
    RamRegion *low = &x->m.list[LOW];

    for (unsigned i = 0; i < WIRE_RAM_RUN_MAX; i++) {
        memcpy(many + i * PAGE, content(i + 1), PAGE);
    }
    put_run(&x->w, "pc.ram", 0, 1, many);
    put_run(&x->w, NULL, 512, WIRE_RAM_RUN_MAX, many);
    put_run(&x->w, layout[TABLES].name, 31, 1, many);
    put_end(&x->w);
    load(&x->m, &x->w);
    assert_page(low, 0, 1);
    assert_zero(low, 1, 511);
    for (unsigned i = 0; i < WIRE_RAM_RUN_MAX; i++) {
        assert_page(low, 512 + i, i + 1);
    }
    assert_page(&x->m.list[TABLES], 31, 1);
}

static void test_zero_ranges(Fixture *x, gconstpointer data)
{
    RamRegion *low = &x->m.list[LOW];

    memset(low->host, 1, 1024 * PAGE);
    put_zero_range(&x->w, "pc.ram", 0, 1);
    put_zero_range(&x->w, NULL, 2, 3);
    put_zero_range(&x->w, NULL, 5, 100);    /* goes on */
    put_zero_range(&x->w, NULL, 1000, 24);
    put_end(&x->w);
    load(&x->m, &x->w);
    assert_zero(low, 0, 1);
    assert_zero(low, 2, 103);
    assert_zero(low, 1000, 24);
    g_assert(all_bytes(ram_region_page(low, 1), PAGE, 1));
    g_assert(all_bytes(ram_region_page(low, 105), 895 * PAGE, 1));
}

static void test_change(Fixture *x, gconstpointer data)
{
    RamRegion *low = &x->m.list[LOW];
    uint8_t old[PAGE], new[PAGE], code[PAGE];
    int len;

    memcpy(old, content(1), PAGE);
    memcpy(new, old, PAGE);
    memset(new + 100, 7, 300);
    new[PAGE - 1]++;
    len = xbzrle_encode_buffer(old, new, PAGE, code, PAGE);
    g_assert_cmpint(len, >, 0);

    put_page(&x->w, "pc.ram", 9, old);
    put_change(&x->w, NULL, 9, code, len);
    put_end(&x->w);
    load(&x->m, &x->w);
    g_assert_cmpmem(ram_region_page(low, 9), PAGE, new, PAGE);
}

/*
 * Pages that are put in place by others (postcopy), who note which
 */

typedef struct Others {
    GString *seen;
    bool fail;
} Others;

static void note_arrived(void *opaque, RamRegion *r, uint64_t page,
                         uint64_t pages)
{
    Others *o = opaque;

    g_string_append_printf(o->seen, "%s %" PRIu64 "+%" PRIu64 "; ", r->name,
                           page, pages);
}

static bool take_data(void *opaque, QEMUFile *f, RamRegion *r, uint64_t page,
                      uint64_t pages, Error **errp)
{
    Others *o = opaque;
    size_t len = pages * PAGE;
    g_autofree uint8_t *bytes = g_malloc(len);

    if (o->fail) {
        error_setg(errp, "It cannot be put in place");
        return false;
    }
    g_assert_cmpuint(qemu_get_buffer(f, bytes, len), ==, len);
    for (uint64_t i = 0; i < pages; i++) {
        g_assert_cmpmem(bytes + i * PAGE, PAGE, content(page + i), PAGE);
    }
    g_string_append_printf(o->seen, "data %" PRIu64 "+%" PRIu64 "; ", page,
                           pages);
    return true;
}

static bool take_zeros(void *opaque, RamRegion *r, uint64_t page,
                       uint64_t pages, Error **errp)
{
    Others *o = opaque;

    g_string_append_printf(o->seen, "zeros %" PRIu64 "+%" PRIu64 "; ", page,
                           pages);
    return !o->fail;
}

/* Three pages that follow each other */
static void put_three(Wire *w, uint64_t page)
{
    g_autofree uint8_t *pages = g_malloc(3 * PAGE);

    for (unsigned i = 0; i < 3; i++) {
        memcpy(pages + i * PAGE, content(page + i), PAGE);
    }
    put_run(w, NULL, page, 3, pages);
}

static const RamPagesOps counting = { .arrived = note_arrived };
static const RamPagesOps placing = { .data = take_data, .zeros = take_zeros };

static void test_arrived(Fixture *x, gconstpointer data)
{
    Others o = { g_string_new(NULL) };

    x->m.loader.pages = &counting;
    x->m.loader.pages_opaque = &o;
    put_page(&x->w, "pc.ram", 9, content(1));
    put_zero(&x->w, NULL, 10);
    put_three(&x->w, 100);
    put_zero_range(&x->w, NULL, 200, 50);
    put_end(&x->w);
    load(&x->m, &x->w);
    g_assert_cmpstr(o.seen->str, ==, "pc.ram 9+1; pc.ram 10+1; pc.ram 100+3; "
                    "pc.ram 200+50; ");
    assert_page(&x->m.list[LOW], 9, 1);
    g_string_free(o.seen, true);
}

static void test_diverted(Fixture *x, gconstpointer data)
{
    Others o = { g_string_new(NULL) };

    x->m.loader.pages = &placing;
    x->m.loader.pages_opaque = &o;
    put_page(&x->w, "pc.ram", 9, content(9));
    put_zero(&x->w, NULL, 10);
    put_three(&x->w, 100);
    put_zero_range(&x->w, NULL, 200, 50);
    put_end(&x->w);
    load(&x->m, &x->w);
    g_assert_cmpstr(o.seen->str, ==, "data 9+1; zeros 10+1; data 100+3; "
                    "zeros 200+50; ");
    assert_zero(&x->m.list[LOW], 0, 1024);
    g_string_free(o.seen, true);
}

/* What would be about memory that may be in use */
static void test_diverted_lies(Fixture *x, gconstpointer data)
{
    Others o = { g_string_new(NULL) };
    const uint8_t code[] = { 0, 1, 2 };

    x->m.loader.pages = &placing;
    x->m.loader.pages_opaque = &o;
    put_list(&x->w);
    refuse(&x->m, &x->w, "while the guest may be running");
    g_byte_array_set_size(x->w.bytes, 0);
    put_change(&x->w, "pc.ram", 9, code, sizeof(code));
    refuse(&x->m, &x->w, "while the guest may be running");
    g_byte_array_set_size(x->w.bytes, 0);
    put_page(&x->w, "pc.ram", 1024, content(1));
    refuse(&x->m, &x->w, "there is no page");
    o.fail = true;
    g_byte_array_set_size(x->w.bytes, 0);
    put_page(&x->w, "pc.ram", 5, content(5));
    refuse(&x->m, &x->w, "cannot be put in place");
    g_assert_cmpstr(o.seen->str, ==, "");
    g_string_free(o.seen, true);
}

static void test_list(Fixture *x, gconstpointer data)
{
    put_list(&x->w);
    put64(&x->w, WIRE_RAM_MEM_SIZE);        /* of a machine without RAM */
    put_end(&x->w);
    load(&x->m, &x->w);
    g_assert_cmpuint(x->m.resizes, ==, 0);
}

/* The other side is larger, then smaller; this side has blocks it has not. */
static void test_list_resize(Fixture *x, gconstpointer data)
{
    RamRegion *tables = &x->m.list[TABLES];

    put64(&x->w, 64 * PAGE | WIRE_RAM_MEM_SIZE);
    put_name(&x->w, tables->name);
    put64(&x->w, 64 * PAGE);
    put_page(&x->w, tables->name, 63, content(1));
    put64(&x->w, 8 * PAGE | WIRE_RAM_MEM_SIZE);
    put_name(&x->w, tables->name);
    put64(&x->w, 8 * PAGE);
    put_page(&x->w, NULL, 7, content(2));
    put_end(&x->w);
    load(&x->m, &x->w);
    g_assert_cmpuint(x->m.resizes, ==, 2);
    g_assert_cmpuint(tables->pages, ==, 8);
    assert_page(tables, 63, 1);
    assert_page(tables, 7, 2);
    memset(ram_region_page(tables, 63), UNUSED, PAGE);

    g_byte_array_set_size(x->w.bytes, 0);
    put_page(&x->w, NULL, 8, content(3));
    refuse(&x->m, &x->w, "has 32768 bytes, so there is no page at 0x8000");
}

static void test_list_extras(Fixture *x, gconstpointer data)
{
    RamRegion *low = &x->m.list[LOW], *shared = &x->m.list[SHARED];

    x->m.loader.page_sizes = x->m.loader.addresses = true;
    low->host_page_size = 2 * MiB;
    put64(&x->w, (low->pages + shared->pages) * PAGE | WIRE_RAM_MEM_SIZE);
    put_name(&x->w, low->name);
    put64(&x->w, low->pages * PAGE);
    put64(&x->w, 2 * MiB);
    put64(&x->w, 12345);                    /* does not matter here */
    put_name(&x->w, shared->name);
    put64(&x->w, shared->pages * PAGE);
    put64(&x->w, shared->guest_addr);
    put_end(&x->w);
    load(&x->m, &x->w);
}

/* Smaller pages than ours speak of: the flags are part of the offset. */
static void test_small_pages(Fixture *x, gconstpointer data)
{
    RamRegion r;
    RamRegions one = { &r, 1 };
    Machine *m = &x->m;

    region_init(&r, "small", 10, 1024, 1024, -1);
    memset(r.host, 1, 1 * MiB);
    m->loader.regions = &one;
    m->loader.page_bits = x->w.page_bits = 10;
    put64(&x->w, 1 * MiB | WIRE_RAM_MEM_SIZE);
    put_name(&x->w, "small");
    put64(&x->w, 1 * MiB);
    put_page(&x->w, "small", 1, content(1));
    for (unsigned i = 7; i < 300; i++) {
        put_zero(&x->w, NULL, i);
    }
    put_page(&x->w, NULL, 1023, content(2));
    put_end(&x->w);
    load(m, &x->w);
    g_assert(all_bytes(r.host, 1024, 1));
    g_assert_cmpmem(ram_region_page(&r, 1), 1024, content(1), 1024);
    g_assert(all_bytes(ram_region_page(&r, 2), 5 * 1024, 1));
    assert_zero(&r, 7, 293);
    g_assert(all_bytes(ram_region_page(&r, 300), 723 * 1024, 1));
    g_assert_cmpmem(ram_region_page(&r, 1023), 1024, content(2), 1024);

    g_byte_array_set_size(x->w.bytes, 0);
    m->loader.page_bits = x->w.page_bits = r.page_bits = 11;
    r.pages = r.max_pages = 512;
    put_run(&x->w, "small", 0, 1, content(1));
    refuse(m, &x->w, "unknown type 0x400");
    region_destroy(&r);
}

/*
 * Memory that nobody used
 */

#define BIG (64 * MiB)

typedef struct Count {
    uint64_t bytes;
} Count;

static void count_populated(void *opaque, uint64_t offset, uint64_t length)
{
    Count *c = opaque;

    c->bytes += length;
}

static uint64_t populated_bytes(const RamRegion *r)
{
    Count c = { 0 };

    populated_scan(&r->area, POPULATED_BEST, count_populated, &c);
    return c.bytes;
}

/* All of it is zero, but for a page that was written to before. */
static void load_empty(Fixture *x, RamRegion *r, bool as_range)
{
    RamRegions one = { r, 1 };
    uint64_t pages = BIG / PAGE;

    x->m.loader.regions = &one;
    put_header(&x->w, WIRE_RAM_ZERO, r->name, 0);
    put8(&x->w, 0);
    if (as_range) {
        put_zero_range(&x->w, NULL, 1, pages - 1);
    } else {
        for (uint64_t i = 1; i < pages; i++) {
            put_zero(&x->w, NULL, i);
        }
    }
    put_end(&x->w);
    memset(ram_region_page(r, 1000), 1, PAGE);
    load(&x->m, &x->w);
    assert_zero(r, 1000, 1);
    x->m.loader.regions = &x->m.regions;
}

static void test_untouched(Fixture *x, gconstpointer data)
{
    bool as_range = data;
    RamRegion r;

    region_init(&r, "big", 12, BIG / PAGE, BIG / PAGE, -1);
    madvise(r.host, BIG, MADV_NOHUGEPAGE);
    load_empty(x, &r, as_range);
    g_assert_cmpuint(populated_bytes(&r), <=, 64 * KiB);
    region_destroy(&r);
}

/* A page of shared memory would be allocated by looking at it. */
static void test_untouched_file(Fixture *x, gconstpointer data)
{
    bool as_range = data;
    int fd = qemu_memfd_create("test", BIG, false, 0, 0, NULL);
    struct stat st;
    RamRegion r;

    if (fd < 0) {
        g_test_skip("no memfd");
        return;
    }
    region_init(&r, "big", 12, BIG / PAGE, BIG / PAGE, fd);
    load_empty(x, &r, as_range);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpuint(st.st_blocks * 512, <=, 64 * KiB);
    region_destroy(&r);
    close(fd);
}

static void test_single_zero_of_file(Fixture *x, gconstpointer data)
{
    int fd = qemu_memfd_create("test", BIG, false, 0, 0, NULL);
    struct stat st;
    RamRegion r;
    RamRegions one = { &r, 1 };

    if (fd < 0) {
        g_test_skip("no memfd");
        return;
    }
    region_init(&r, "big", 12, BIG / PAGE, BIG / PAGE, fd);
    x->m.loader.regions = &one;
    put_zero(&x->w, "big", 5);
    put_zero(&x->w, NULL, 50);
    put_end(&x->w);
    load(&x->m, &x->w);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpuint(st.st_blocks, ==, 0);
    region_destroy(&r);
    close(fd);
}

/*
 * Others get their turn
 */

static void test_rests(Fixture *x, gconstpointer data)
{
    g_autofree uint8_t *many = g_malloc0(WIRE_RAM_RUN_MAX * PAGE);

    put_page(&x->w, "pc.ram", 0, content(1));
    put_end(&x->w);
    load(&x->m, &x->w);
    g_assert_cmpuint(x->m.rests, ==, 0);

    /* 40 MiB as they come */
    g_byte_array_set_size(x->w.bytes, 0);
    for (unsigned i = 0; i < 20; i++) {
        put_run(&x->w, "pc.ram", 0, WIRE_RAM_RUN_MAX, many);
    }
    put_end(&x->w);
    load(&x->m, &x->w);
    g_assert_cmpuint(x->m.rests, >=, 8);
    g_assert_cmpuint(x->m.rests, <=, 10);
}

/* One record, and much to clear */
static void test_rests_zero(Fixture *x, gconstpointer data)
{
    RamRegion r;
    RamRegions one = { &r, 1 };

    region_init(&r, "big", 12, BIG / PAGE, BIG / PAGE, -1);
    memset(r.host, 1, BIG);
    x->m.loader.regions = &one;
    put_zero_range(&x->w, "big", 0, BIG / PAGE);
    put_end(&x->w);
    load(&x->m, &x->w);
    g_assert_cmpuint(x->m.rests, ==, BIG / RAM_LOAD_STRETCH);
    assert_zero(&r, 0, BIG / PAGE);
    region_destroy(&r);
}

/*
 * Lies
 */

static void lie_first_continues(Wire *w)
{
    put_page(w, NULL, 0, content(1));
}

static void lie_unknown_name(Wire *w)
{
    put_page(w, "pc.rum", 0, content(1));
}

static void lie_empty_name(Wire *w)
{
    put_page(w, "", 0, content(1));
}

static void lie_prefix_name(Wire *w)
{
    put_page(w, "pc.ra", 0, content(1));
}

static void lie_name_with_nul(Wire *w)
{
    put64(w, WIRE_RAM_PAGE);
    put8(w, 9);
    put(w, "pc.ram\0ab", 9, false);
    put(w, content(1), PAGE, true);
}

static void lie_name_no_text(Wire *w)
{
    put_zero(w, "\x1b[2J\n\xff", 0);
}

static void lie_long_name(Wire *w)
{
    char name[WIRE_NAME_MAX + 1];

    memset(name, 'x', WIRE_NAME_MAX);
    name[WIRE_NAME_MAX] = '\0';
    put_zero(w, name, 0);
}

static void lie_offset(Wire *w)
{
    put_page(w, "pc.ram", 1024, content(1));
}

static void lie_offset_far(Wire *w)
{
    put_page(w, "pc.ram", UINT64_MAX >> 12, content(1));
}

static void lie_offset_in_max(Wire *w)
{
    put_page(w, layout[TABLES].name, 32, content(1));
}

static void lie_offset_zero(Wire *w)
{
    put_zero(w, layout[ROM].name, 16);
}

static void lie_offset_change(Wire *w)
{
    put_change(w, "pc.ram", 1024, "", 0);
}

static void lie_ignored(Wire *w)
{
    put_page(w, "shared", 0, content(1));
}

static void lie_ignored_zero_range(Wire *w)
{
    put_zero_range(w, "shared", 0, 16);
}

static void lie_fill(Wire *w)
{
    put_header(w, WIRE_RAM_ZERO, "pc.ram", 0);
    put8(w, 0x20);
}

static void lie_run_empty(Wire *w)
{
    put_run(w, "pc.ram", 0, 0, NULL);
}

static void lie_run_over_end(Wire *w)
{
    put_run(w, "pc.ram", 1023, 1, content(1));
    put_header(w, WIRE_RAM_RUN, NULL, 1023);
    put32(w, 2);
}

static void lie_run_long(Wire *w)
{
    put_header(w, WIRE_RAM_RUN, "pc.ram", 0);
    put32(w, WIRE_RAM_RUN_MAX + 1);
}

static void lie_run_huge(Wire *w)
{
    put_header(w, WIRE_RAM_RUN, "pc.ram", 1);
    put32(w, UINT32_MAX);
}

static void lie_range_empty(Wire *w)
{
    put_zero_range(w, "pc.ram", 0, 0);
}

static void lie_range_over_end(Wire *w)
{
    put_zero_range(w, "pc.ram", 1, 1024);
}

static void lie_range_wraps(Wire *w)
{
    put_zero_range(w, "pc.ram", 1, UINT64_MAX);
}

static void lie_range_wraps_bytes(Wire *w)
{
    put_zero_range(w, "pc.ram", 1, 1ull << 52);
}

static void lie_range_in_max(Wire *w)
{
    put_zero_range(w, layout[TABLES].name, 0, 33);
}

static void lie_change_encoding(Wire *w)
{
    put_header(w, WIRE_RAM_XBZRLE, "pc.ram", 0);
    put8(w, 2);
    put16(w, 1);
    put8(w, 0);
}

static void lie_change_long(Wire *w)
{
    put_header(w, WIRE_RAM_XBZRLE, "pc.ram", 0);
    put8(w, WIRE_XBZRLE_ENCODING);
    put16(w, PAGE + 1);
}

static void lie_change_leaves_page(Wire *w)
{
    const uint8_t code[] = { 0xff, 0x1f, 2, 1, 2 };

    put_change(w, "pc.ram", 1023, code, sizeof(code));
}

static void lie_change_cut(Wire *w)
{
    const uint8_t code[] = { 0, 9, 1, 2 };

    put_change(w, "pc.ram", 0, code, sizeof(code));
}

static void lie_no_type(Wire *w)
{
    put64(w, 0);
}

static void lie_two_types(Wire *w)
{
    put_header(w, WIRE_RAM_PAGE | WIRE_RAM_ZERO, "pc.ram", 0);
}

static void lie_old_type(Wire *w)
{
    put64(w, 1);
}

static void lie_end_continues(Wire *w)
{
    put64(w, WIRE_RAM_EOS | WIRE_RAM_CONTINUE);
}

static void lie_list_continues(Wire *w)
{
    put64(w, WIRE_RAM_MEM_SIZE | WIRE_RAM_CONTINUE);
}

static void lie_hook(Wire *w)
{
    put64(w, WIRE_RAM_HOOK);
}

static void lie_compressed(Wire *w)
{
    put64(w, WIRE_RAM_COMPRESSED);
}

static void lie_multifd(Wire *w)
{
    put64(w, WIRE_RAM_MULTIFD_FLUSH);
}

static void put_list_of(Wire *w, uint64_t total, const char *name,
                        uint64_t bytes)
{
    put64(w, total | WIRE_RAM_MEM_SIZE);
    put_name(w, name);
    put64(w, bytes);
}

static void lie_list_unknown(Wire *w)
{
    put_list_of(w, 16 * PAGE, "pc.rom\"", 16 * PAGE);
}

static void lie_list_twice(Wire *w)
{
    put_list_of(w, 2048 * PAGE, "pc.ram", 1024 * PAGE);
    put_name(w, "pc.ram");
    put64(w, 1024 * PAGE);
}

static void lie_list_empty_blocks(Wire *w)
{
    put_list_of(w, 64 * PAGE, layout[TABLES].name, 0);
    put_name(w, layout[TABLES].name);
    put64(w, 0);
}

static void lie_list_total(Wire *w)
{
    put_list_of(w, 1023 * PAGE, "pc.ram", 1024 * PAGE);
}

static void lie_list_huge(Wire *w)
{
    put_list_of(w, -(uint64_t)PAGE, "pc.ram", -(uint64_t)PAGE);
}

static void lie_list_over_max(Wire *w)
{
    put_list_of(w, 65 * PAGE, layout[TABLES].name, 65 * PAGE);
}

static void lie_list_half_page(Wire *w)
{
    put_list_of(w, 64 * PAGE, layout[TABLES].name, 33 * PAGE + 512);
}

static const struct {
    const char *name;
    void (*tell)(Wire *w);
    const char *text;           /* in the error */
} lies[] = {
    { "first-continues", lie_first_continues, "does not say of which" },
    { "unknown-name", lie_unknown_name, "no RAM block 'pc.rum' here" },
    { "empty-name", lie_empty_name, "no RAM block '' here" },
    { "prefix-name", lie_prefix_name, "no RAM block 'pc.ra' here" },
    { "name-with-nul", lie_name_with_nul, "no RAM block" },
    { "name-no-text", lie_name_no_text, "no RAM block '\\033[2J\\n\\377'" },
    { "long-name", lie_long_name, "no RAM block 'xxxx" },
    { "offset", lie_offset, "no page at 0x400000" },
    { "offset-far", lie_offset_far, "no page at 0xfffffffffffff000" },
    { "offset-in-max", lie_offset_in_max, "no page at 0x20000" },
    { "offset-zero", lie_offset_zero, "no page at 0x10000" },
    { "offset-change", lie_offset_change, "no page at 0x400000" },
    { "ignored", lie_ignored, "'shared' is shared" },
    { "ignored-zero-range", lie_ignored_zero_range, "'shared' is shared" },
    { "fill", lie_fill, "'pc.ram' at 0x0: A page of zeros is said to hold" },
    { "run-empty", lie_run_empty, "A run of 0 pages" },
    { "run-over-end", lie_run_over_end, "where there are 1 " },
    { "run-long", lie_run_long, "A run of 513 pages" },
    { "run-huge", lie_run_huge, "A run of 4294967295 pages" },
    { "range-empty", lie_range_empty, "A range of 0 zero pages" },
    { "range-over-end", lie_range_over_end, "where there are 1023" },
    { "range-wraps", lie_range_wraps, "where there are 1023" },
    { "range-wraps-bytes", lie_range_wraps_bytes, "where there are 1023" },
    { "range-in-max", lie_range_in_max, "where there are 32" },
    { "change-encoding", lie_change_encoding, "encoding 0x02" },
    { "change-long", lie_change_long, "length 4097" },
    { "change-leaves-page", lie_change_leaves_page, "not well-formed" },
    { "change-cut", lie_change_cut, "not well-formed" },
    { "no-type", lie_no_type, "unknown type 0x0" },
    { "two-types", lie_two_types, "unknown type 0xa" },
    { "old-type", lie_old_type, "unknown type 0x1" },
    { "end-continues", lie_end_continues, "unknown type 0x30" },
    { "list-continues", lie_list_continues, "unknown type 0x24" },
    { "hook", lie_hook, "RDMA" },
    { "compressed", lie_compressed, "compresses" },
    { "multifd", lie_multifd, "multifd" },
    { "list-unknown", lie_list_unknown, "no RAM block 'pc.rom\\\"' here" },
    { "list-twice", lie_list_twice, "'pc.ram' is in the list twice" },
    { "list-empty-blocks", lie_list_empty_blocks, "in the list twice" },
    { "list-total", lie_list_total, "have only 4190208" },
    { "list-huge", lie_list_huge, "at most 4194304 here" },
    { "list-over-max", lie_list_over_max, "at most 262144 here" },
    { "list-half-page", lie_list_half_page, "no whole number of pages" },
};

/* Nothing of what a lie is followed by is loaded. */
static void test_lie(Fixture *x, gconstpointer data)
{
    unsigned i = GPOINTER_TO_UINT(data);

    lies[i].tell(&x->w);
    put_page(&x->w, "pc.ram", 77, content(1));
    put_end(&x->w);
    refuse(&x->m, &x->w, lies[i].text);
    assert_zero(&x->m.list[LOW], 77, 1);
}

static void test_lie_fixed_size(Fixture *x, gconstpointer data)
{
    x->m.fixed = true;
    put_list_of(&x->w, 512 * PAGE, "pc.ram", 512 * PAGE);
    refuse(&x->m, &x->w, "RAM block 'pc.ram': It has 2097152 bytes on the "
           "source, 4194304 here: It cannot be resized");
}

static void test_lie_page_size(Fixture *x, gconstpointer data)
{
    x->m.loader.page_sizes = true;
    x->m.list[LOW].host_page_size = 2 * MiB;
    put_list_of(&x->w, 1024 * PAGE, "pc.ram", 1024 * PAGE);
    put64(&x->w, 1 * GiB);
    refuse(&x->m, &x->w, "1073741824 bytes on the source and "
           "2097152 here");
}

static void test_lie_address(Fixture *x, gconstpointer data)
{
    x->m.loader.addresses = true;
    put_list_of(&x->w, 16 * PAGE, "shared", 16 * PAGE);
    put64(&x->w, x->m.list[SHARED].guest_addr + PAGE);
    refuse(&x->m, &x->w, "at address 0x301000 on the source");
}

/* Memory that cannot be written to, and is as the source's or not */
static void test_read_only(Fixture *x, gconstpointer data)
{
    static const uint8_t code[] = { 0, 1, 1 };
    static const char *text = "read-only here, and on the source page 0x5000";
    RamRegion *rom = &x->m.list[ROM];

    memcpy(rom->host, content(1), PAGE);
    memcpy(ram_region_page(rom, 4), content(4), PAGE);
    mprotect(rom->host, rom->pages * PAGE, PROT_READ);
    rom->read_only = true;
    put_page(&x->w, rom->name, 0, rom->host);
    put_run(&x->w, NULL, 3, 2, ram_region_page(rom, 3));
    put_zero(&x->w, NULL, 1);
    put_zero_range(&x->w, NULL, 5, 11);
    put_end(&x->w);
    load(&x->m, &x->w);

    g_byte_array_set_size(x->w.bytes, 0);
    put_page(&x->w, rom->name, 5, content(2));
    refuse(&x->m, &x->w, text);

    g_byte_array_set_size(x->w.bytes, 0);
    put_change(&x->w, rom->name, 5, code, sizeof(code));
    refuse(&x->m, &x->w, text);

    g_byte_array_set_size(x->w.bytes, 0);
    put_run(&x->w, rom->name, 4, 2, ram_region_page(rom, 3));
    refuse(&x->m, &x->w, "source page 0x4000 has");

    g_byte_array_set_size(x->w.bytes, 0);
    put_zero(&x->w, rom->name, 4);
    refuse(&x->m, &x->w, "source page 0x4000 has");

    g_byte_array_set_size(x->w.bytes, 0);
    put_zero_range(&x->w, rom->name, 1, 9);
    refuse(&x->m, &x->w, "source page 0x4000 has");
}

static void test_no_memory(Fixture *x, gconstpointer data)
{
    RamRegions none = { NULL, 0 };

    x->m.loader.regions = &none;
    put64(&x->w, WIRE_RAM_MEM_SIZE);
    put_end(&x->w);
    load(&x->m, &x->w);
    g_byte_array_set_size(x->w.bytes, 0);
    put_list(&x->w);
    refuse(&x->m, &x->w, "no RAM block");
}

/*
 * Damage
 */

/* A stream with all there is, and few pages */
static void put_everything(Wire *w)
{
    uint8_t pages[2 * PAGE];
    const uint8_t code[] = { 0, 2, 1, 2, 0x80, 1, 3, 4, 5, 6 };

    memcpy(pages, content(1), PAGE);
    memcpy(pages + PAGE, content(2), PAGE);
    put_list(w);
    put_page(w, "pc.ram", 0, content(3));
    put_change(w, NULL, 0, code, sizeof(code));
    for (unsigned i = 1; i < 20; i++) {
        put_zero(w, NULL, i);
    }
    put_zero(w, layout[ROM].name, 3);
    put_run(w, layout[TABLES].name, 0, 2, pages);
    put_zero_range(w, NULL, 2, 30);
    put_zero_range(w, "pc.ram", 30, 990);
    put_end(w);
}

static void reset(Machine *m)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        RamRegion *r = &m->list[i];

        r->pages = layout[i].pages;
        r->area.size = r->pages * PAGE;
    }
    m->loader.last = NULL;
    m->loader.zeros = (ZeroGather) { 0 };
}

static void test_cut(Fixture *x, gconstpointer data)
{
    Error *err = NULL;

    put_everything(&x->w);
    for (size_t len = 0; len < x->w.bytes->len; len++) {
        reset(&x->m);
        g_assert(!load_bytes(&x->m, x->w.bytes->data, len, &err));
        g_assert_nonnull(err);
        g_clear_pointer(&err, error_free);
    }
    reset(&x->m);
    load(&x->m, &x->w);
}

/* Every byte where records are, one in 64 where pages are */
static bool of_interest(const Wire *w, size_t at)
{
    return !w->bulk->data[at] || at % 64 == 0;
}

static void test_flips(Fixture *x, gconstpointer data)
{
    unsigned refused = 0, bits = 0;

    put_everything(&x->w);
    for (size_t at = 0; at < x->w.bytes->len; at++) {
        for (unsigned bit = 0; of_interest(&x->w, at) && bit < 8; bit++) {
            Error *err = NULL;

            reset(&x->m);
            x->w.bytes->data[at] ^= 1 << bit;
            if (!load_bytes(&x->m, x->w.bytes->data, x->w.bytes->len, &err)) {
                g_assert_nonnull(err);
                error_free(err);
                refused++;
            }
            x->w.bytes->data[at] ^= 1 << bit;
            bits++;
        }
    }
    /* Most of the others are in offsets, counts, or content. */
    g_assert_cmpuint(refused, >, bits / 2);
    reset(&x->m);
}

/* Records that are right but for one field, which is noise */
static void test_noise(Fixture *x, gconstpointer data)
{
    static const unsigned flags[] = {
        WIRE_RAM_ZERO, WIRE_RAM_PAGE, WIRE_RAM_XBZRLE, WIRE_RAM_RUN,
        WIRE_RAM_ZERO_RANGE, WIRE_RAM_MEM_SIZE,
    };
    g_autoptr(GRand) rnd = g_rand_new_with_seed(1);

    for (unsigned round = 0; round < 3000; round++) {
        unsigned n = g_rand_int_range(rnd, 1, 2000);
        Error *err = NULL;

        g_byte_array_set_size(x->w.bytes, 0);
        put_zero(&x->w, layout[round % REGIONS].name, 0);
        put_header(&x->w, flags[g_rand_int_range(rnd, 0, ARRAY_SIZE(flags))],
                   NULL, g_rand_int_range(rnd, 0, 64));
        for (unsigned i = 0; i < n; i++) {
            put8(&x->w, g_rand_int_range(rnd, 0, 4) ? g_rand_int(rnd) : 0);
        }
        reset(&x->m);
        if (!load_bytes(&x->m, x->w.bytes->data, x->w.bytes->len, &err)) {
            g_assert_nonnull(err);
            error_free(err);
        }
    }
    reset(&x->m);
}

/*
 * Any valid stream against a model
 */

#define MODEL_PAGES 1024u

static void random_records(Wire *w, GRand *rnd, uint8_t *model)
{
    const char *name = "pc.ram";

    for (unsigned i = 0; i < 200; i++) {
        unsigned at = g_rand_int_range(rnd, 0, MODEL_PAGES);
        unsigned n = MIN(g_rand_int_range(rnd, 1, 40), MODEL_PAGES - at);
        uint8_t *p = model + at * PAGE;

        switch (g_rand_int_range(rnd, 0, 4)) {
        case 0:
            memcpy(p, content(g_rand_int(rnd)), PAGE);
            put_page(w, name, at, p);
            break;
        case 1:
            memset(p, 0, n * PAGE);
            for (unsigned j = 0; j < n; j++) {
                put_zero(w, j ? NULL : name, at + j);
            }
            break;
        case 2:
            memset(p, 0, n * PAGE);
            put_zero_range(w, name, at, n);
            break;
        case 3:
            for (unsigned j = 0; j < n; j++) {
                memcpy(p + j * PAGE, content(g_rand_int(rnd)), PAGE);
            }
            put_run(w, name, at, n, p);
            break;
        }
        name = g_rand_boolean(rnd) ? NULL : "pc.ram";
    }
    put_end(w);
}

static void test_model(Fixture *x, gconstpointer data)
{
    g_autofree uint8_t *model = g_malloc0(MODEL_PAGES * PAGE);
    g_autoptr(GRand) rnd = g_rand_new_with_seed(2);

    QEMU_BUILD_BUG_ON(MODEL_PAGES != 1024);
    for (unsigned round = 0; round < 20; round++) {
        g_byte_array_set_size(x->w.bytes, 0);
        random_records(&x->w, rnd, model);
        load(&x->m, &x->w);
        g_assert_cmpmem(x->m.list[LOW].host, MODEL_PAGES * PAGE,
                        model, MODEL_PAGES * PAGE);
    }
}

/*
 * How long it takes, with -m perf: from a buffer, so without the system calls
 * of a socket
 */

#define PERF_PAGES (128 * MiB / PAGE)

typedef enum { PERF_PAGE, PERF_RUN, PERF_ZERO, PERF_RANGE } PerfKind;

static void put_perf(Wire *w, PerfKind kind, const uint8_t *many)
{
    for (unsigned i = 0; i < PERF_PAGES; i++) {
        const char *name = i ? NULL : "big";

        switch (kind) {
        case PERF_PAGE:
            put_page(w, name, i, many + (i % WIRE_RAM_RUN_MAX) * PAGE);
            break;
        case PERF_RUN:
            put_run(w, name, i, WIRE_RAM_RUN_MAX, many);
            i += WIRE_RAM_RUN_MAX - 1;
            break;
        case PERF_ZERO:
            put_zero(w, name, i);
            break;
        case PERF_RANGE:
            put_zero_range(w, name, 0, PERF_PAGES);
            i = PERF_PAGES;
            break;
        }
    }
    put_end(w);
}

static void measure(Fixture *x, PerfKind kind, const char *what, bool present)
{
    g_autofree uint8_t *many = g_malloc(WIRE_RAM_RUN_MAX * PAGE);
    int64_t best = INT64_MAX;
    RamRegion r;
    RamRegions one = { &r, 1 };

    memset(many, 1, WIRE_RAM_RUN_MAX * PAGE);
    region_init(&r, "big", 12, PERF_PAGES, PERF_PAGES, -1);
    x->m.loader.regions = &one;
    g_byte_array_set_size(x->w.bytes, 0);
    put_perf(&x->w, kind, many);
    for (unsigned i = 0; i < 5; i++) {
        QEMUFile *f = test_input(x->w.bytes->data, x->w.bytes->len);
        int64_t start;

        if (present) {
            memset(r.host, 1, PERF_PAGES * PAGE);
        }
        start = g_get_monotonic_time();
        ram_load_records(f, &x->m.loader, &error_abort);
        best = MIN(best, g_get_monotonic_time() - start);
        qemu_fclose(f);
    }
    g_test_message("%-36s %7.1f ns a page", what, best * 1e3 / PERF_PAGES);
    x->m.loader.regions = &x->m.regions;
    region_destroy(&r);
}

static void test_speed(Fixture *x, gconstpointer data)
{
    measure(x, PERF_PAGE, "pages, one a record", true);
    measure(x, PERF_RUN, "pages, 512 a record", true);
    measure(x, PERF_ZERO, "zero pages, untouched", false);
    measure(x, PERF_ZERO, "zero pages, in place of others", true);
    measure(x, PERF_RANGE, "a range of zero pages, untouched", false);
    measure(x, PERF_RANGE, "a range of zero pages, ... others", true);
}

#define ADD(path, data, fn) \
    g_test_add("/migration/ram-load/" path, Fixture, data, setup, fn, teardown)

static void add_good(void)
{
    ADD("pages", NULL, test_pages);
    ADD("sections", NULL, test_sections);
    ADD("zeros", NULL, test_zeros);
    ADD("order", NULL, test_order);
    ADD("runs", NULL, test_runs);
    ADD("zero-ranges", NULL, test_zero_ranges);
    ADD("change", NULL, test_change);
    ADD("arrived", NULL, test_arrived);
    ADD("diverted", NULL, test_diverted);
    ADD("diverted-lies", NULL, test_diverted_lies);
    ADD("list/same", NULL, test_list);
    ADD("list/resize", NULL, test_list_resize);
    ADD("list/extras", NULL, test_list_extras);
    ADD("list/no-memory", NULL, test_no_memory);
    ADD("read-only", NULL, test_read_only);
    ADD("small-pages", NULL, test_small_pages);
    ADD("untouched/records", NULL, test_untouched);
    ADD("untouched/range", (void *)true, test_untouched);
    ADD("untouched/file/records", NULL, test_untouched_file);
    ADD("untouched/file/range", (void *)true, test_untouched_file);
    ADD("untouched/file/single", NULL, test_single_zero_of_file);
    ADD("rests/pages", NULL, test_rests);
    ADD("rests/zero", NULL, test_rests_zero);
    ADD("model", NULL, test_model);
}

static void add_bad(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        g_autofree char *path = g_strdup_printf("/migration/ram-load/lie/%s",
                                                lies[i].name);

        g_test_add(path, Fixture, GUINT_TO_POINTER(i), setup, test_lie,
                   teardown);
    }
    ADD("lie/fixed-size", NULL, test_lie_fixed_size);
    ADD("lie/page-size", NULL, test_lie_page_size);
    ADD("lie/address", NULL, test_lie_address);
    ADD("cut", NULL, test_cut);
    ADD("flips", NULL, test_flips);
    ADD("noise", NULL, test_noise);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    add_good();
    add_bad();
    if (g_test_perf()) {
        ADD("speed", NULL, test_speed);
    }
    return g_test_run();
}
