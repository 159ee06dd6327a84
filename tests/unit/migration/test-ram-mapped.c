/*
 * Unit tests of memory at fixed places of a file: what is written is loaded,
 * and files that lie, are damaged or cut off are refused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/memfd.h"
#include "io/channel-file.h"
#include "area.h"
#include "setup.h"
#include "migration/ram/load.h"
#include "migration/ram/mapped.h"
#include "migration/ram/stream-sink.h"
#include "migration/wire/stream.h"
#include "migration/wire/wire.h"

#define PAGE 4096u
#define OFFSET 512              /* of the stream in the file */
#define GARBAGE 0xa5

enum { LOW, ROM, SHARED, REGIONS };

static const struct {
    const char *name;
    uint64_t pages;
} layout[REGIONS] = {
    [LOW] = { "pc.ram", 1000 },
    [ROM] = { "vga.rom", 16 },
    [SHARED] = { "shared", 65 },
};

typedef struct Memory {
    RamRegion list[REGIONS];
    RamRegions regions;
} Memory;

static void memory_init(Memory *m, uint8_t fill)
{
    m->regions = (RamRegions) { m->list, REGIONS };
    for (unsigned i = 0; i < REGIONS; i++) {
        size_t size = layout[i].pages * PAGE;
        uint8_t *host = area_new(size);

        m->list[i] = (RamRegion) {
            .name = (char *)layout[i].name, .index = i, .page_bits = 12,
            .host = host, .pages = layout[i].pages,
            .max_pages = layout[i].pages,
            .host_page_size = qemu_real_host_page_size(),
            .ignored = i == SHARED,
            .area = { .kind = POPULATED_ANON, .host = host, .size = size },
        };
        memset(host, fill, size);
    }
}

static void memory_free(Memory *m)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        area_free(m->list[i].host, layout[i].pages * PAGE);
    }
}

/*
 * A source that writes to a file
 */

typedef struct Rig {
    int fd;
    Memory from, to;
    RamMapped mapped;
    RamMappedSink sink;
    QEMUFile *out;
    RamLoader loader;
} Rig;

/* With a position of its own */
static QEMUFile *open_at(int fd, off_t at, bool input)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_file_new_path(path, O_RDWR, 0,
                                                            &error_abort));
    QEMUFile *f = input ? qemu_file_new_input(ioc) : qemu_file_new_output(ioc);

    object_unref(OBJECT(ioc));
    qemu_set_offset(f, at, SEEK_SET);
    return f;
}

static bool test_resize(void *opaque, RamRegion *r, uint64_t bytes,
                        Error **errp)
{
    error_setg(errp, "It cannot be resized");
    return false;
}

static const RamLoadOps test_ops = { .resize = test_resize };

/*
 * Others read it
 */

#define MANY (200 * 256u)       /* pages: 200 MiB */

static struct {
    uint64_t next;              /* page that is to come, or is absent */
    uint64_t present, turns, loops;
    bool fails;
} turns;

static bool read_turn(const RamPlace *place, RamRegion *r, uint64_t first,
                      uint64_t count, Error **errp)
{
    uint64_t there = bitmap_count_one_with_offset(place->present, first, count);

    g_assert_cmpuint(there, >, 0);
    g_assert_cmpuint(there, <=, RAM_LOAD_TURN / PAGE);
    g_assert_cmpuint(first, >=, turns.next);
    g_assert_cmpuint(find_next_bit(place->present, first, turns.next), ==,
                     first);
    turns.next = first + count;
    g_assert_cmpuint(turns.next, <=, r->pages);
    turns.present += there;
    turns.turns++;
    g_assert_cmpuint(turns.loops, ==, turns.turns - 1);
    if (turns.fails) {
        error_setg(errp, "It cannot be read");
    }
    return !turns.fails;
}

static void loop_turns(void *opaque)
{
    turns.loops++;
}

static const RamLoadOps turning_ops = {
    .resize = test_resize, .rest = loop_turns,
};

/* Pages that are there in a large block, by how many there are and are not */
static void check_turns(unsigned there, unsigned absent, bool fails)
{
    g_autofree unsigned long *bits = bitmap_new(MANY);
    size_t size = MANY * (size_t)PAGE;
    uint8_t *host = area_new(size);
    RamRegion r = {
        .name = (char *)"large", .page_bits = 12, .host = host, .pages = MANY,
        .max_pages = MANY, .host_page_size = qemu_real_host_page_size(),
        .area = { .kind = POPULATED_ANON, .host = host, .size = size },
    };
    RamRegions regions = { &r, 1 };
    RamLoader loader = {
        .regions = &regions, .ops = &turning_ops, .page_bits = 12,
        .read_places = read_turn,
    };
    RamPlace place = { .present = bits };
    uint64_t all = 0;
    Error *err = NULL;
    bool ok;

    turns = (typeof(turns)) { .fails = fails };
    for (unsigned at = absent; at < MANY; at += there + absent) {
        unsigned n = MIN(there, MANY - at);

        bitmap_set(bits, at, n);
        all += n;
    }
    /* what is absent is zero afterwards, also where nobody was asked */
    host[0] = GARBAGE;
    ok = ram_mapped_read_in_turns(&loader, &place, &r, &err);
    g_assert_true(ok == (!fails || !all));
    if (ok) {
        g_assert_cmpuint(turns.present, ==, all);
        g_assert_cmpuint(find_next_bit(bits, MANY, turns.next), ==, MANY);
        g_assert_cmpuint(turns.turns, <=, all * PAGE / RAM_LOAD_TURN * 2 + 1 +
                         (absent ? MANY / absent : 0));
        g_assert_cmpuint(host[0], ==, absent < RAM_LOAD_TURN / PAGE ? GARBAGE
                                                                    : 0);
    } else {
        g_assert_cmpuint(turns.turns, ==, 1);
        error_free(err);
    }
    area_free(host, size);
}

/* In turns between which the loop goes on, each page once. */
static void test_turns(void)
{
    check_turns(MANY, 0, false);
    check_turns(1, 1, false);
    check_turns(1, 5000, false);
    check_turns(1, 20000, false);
    check_turns(20000, 10000, false);
    check_turns(9000, 1, false);
    check_turns(1, MANY, false);
    check_turns(3000, 3000, true);
}

static void rig_begin(Rig *rig)
{
    RamStreamSink list;

    *rig = (Rig) { .fd = memfd_create("mapped", 0) };
    g_assert_cmpint(rig->fd, >=, 0);
    memory_init(&rig->from, 0);
    memory_init(&rig->to, GARBAGE);
    rig->loader = (RamLoader) {
        .regions = &rig->to.regions, .ops = &test_ops, .page_bits = 12,
        .mapped = true,
    };
    rig->out = open_at(rig->fd, OFFSET, false);
    ram_mapped_begin(&rig->mapped, &rig->from.regions);
    ram_mapped_sink_init(&rig->sink, &rig->mapped, rig->out);
    ram_stream_sink_init(&list, rig->out, 0);
    ram_stream_sink_announce(&list, &rig->from.regions, 0, &rig->mapped);
    g_assert_cmpint(ram_sink_end(&rig->sink.sink), ==, 0);
}

/* All has been written. */
static void rig_finish(Rig *rig)
{
    g_assert_cmpint(ram_mapped_end(&rig->mapped, &rig->from.regions, rig->out),
                    ==, 0);
    g_assert_cmpint(ram_sink_end(&rig->sink.sink), ==, 0);
}

static bool rig_load(Rig *rig, Error **errp)
{
    QEMUFile *in = open_at(rig->fd, OFFSET, true);
    bool ok = ram_load_records(in, &rig->loader, errp) &&
              ram_load_records(in, &rig->loader, errp);

    qemu_fclose(in);
    return ok;
}

static void rig_end(Rig *rig)
{
    qemu_fclose(rig->out);
    ram_mapped_free(&rig->mapped);
    memory_free(&rig->from);
    memory_free(&rig->to);
    close(rig->fd);
}

static void rig_expect_failure(Rig *rig, const char *what)
{
    Error *err = NULL;

    g_assert_false(rig_load(rig, &err));
    g_test_message("%s", error_get_pretty(err));
    g_assert_nonnull(strstr(error_get_pretty(err), what));
    error_free(err);
    rig_end(rig);
}

static RamRegion *of_source(Rig *rig, unsigned i)
{
    return &rig->from.list[i];
}

static void put_pages(Rig *rig, unsigned i, uint64_t first, unsigned count,
                      int fill)
{
    RamRegion *r = of_source(rig, i);

    memset(ram_region_page(r, first), fill, count * PAGE);
    ram_sink_pages(&rig->sink.sink, r, first, count);
}

static void put_zeros(Rig *rig, unsigned i, uint64_t first, unsigned count)
{
    RamRegion *r = of_source(rig, i);

    memset(ram_region_page(r, first), 0, count * PAGE);
    ram_sink_zeros(&rig->sink.sink, r, first, count);
}

static void expect_same(const Rig *rig, unsigned i)
{
    g_assert_cmpmem(rig->to.list[i].host, layout[i].pages * PAGE,
                    rig->from.list[i].host, layout[i].pages * PAGE);
}

static off_t size_of(const Rig *rig)
{
    struct stat st;

    g_assert_cmpint(fstat(rig->fd, &st), ==, 0);
    return st.st_size;
}

/*
 * What is written is loaded
 */

static void test_round_trip(void)
{
    uint8_t bytes[PAGE];
    off_t size;
    Rig rig;

    rig_begin(&rig);
    put_pages(&rig, LOW, 0, 3, 1);
    put_pages(&rig, LOW, 63, 2, 2);
    put_pages(&rig, LOW, 300, 512, 3);
    put_pages(&rig, LOW, 999, 1, 4);
    put_pages(&rig, ROM, 15, 1, 5);
    size = size_of(&rig);
    /* again, and not again */
    g_assert_cmpint(ram_sink_end_pass(&rig.sink.sink), ==, 0);
    put_pages(&rig, LOW, 310, 10, 6);
    put_zeros(&rig, LOW, 400, 65);
    put_zeros(&rig, LOW, 2, 1);
    put_pages(&rig, LOW, 401, 1, 7);
    memset(bytes, 8, PAGE);
    memset(ram_region_page(of_source(&rig, LOW), 64), 8, PAGE);
    ram_sink_copy(&rig.sink.sink, of_source(&rig, LOW), 64, 1, bytes);
    g_assert_cmpint(size_of(&rig), ==, size);
    rig_finish(&rig);
    g_assert_true(rig_load(&rig, &error_abort));
    expect_same(&rig, LOW);
    expect_same(&rig, ROM);
    rig_end(&rig);
}

/* A guest that has written nothing: what the destination had must go. */
static void test_nothing(void)
{
    Rig rig;

    rig_begin(&rig);
    rig_finish(&rig);
    g_assert_true(rig_load(&rig, &error_abort));
    expect_same(&rig, LOW);
    expect_same(&rig, ROM);
    rig_end(&rig);
}

/* Memory that both sides share has a place, and nobody uses it. */
static void test_ignored(void)
{
    Rig rig;

    rig_begin(&rig);
    rig_finish(&rig);
    g_assert_true(rig_load(&rig, &error_abort));
    for (size_t i = 0; i < layout[SHARED].pages * PAGE; i++) {
        g_assert_cmpint(rig.to.list[SHARED].host[i], ==, GARBAGE);
    }
    rig_end(&rig);
}

static void test_places(void)
{
    uint64_t before = OFFSET;
    Rig rig;

    rig_begin(&rig);
    for (unsigned i = 0; i < REGIONS; i++) {
        const RamPlace *p = &rig.mapped.places[i];
        uint64_t bytes = ram_mapped_bitmap_bytes(layout[i].pages);

        g_assert_cmpuint(bytes % 8, ==, 0);
        g_assert_cmpuint(bytes * 8, >=, layout[i].pages);
        g_assert_cmpuint(p->bitmap_at, >=, before + sizeof(WireMappedRam));
        g_assert_cmpuint(p->pages_at, >=, p->bitmap_at + bytes);
        g_assert_cmpuint(p->pages_at % WIRE_MAPPED_RAM_ALIGN, ==, 0);
        before = p->pages_at + layout[i].pages * PAGE;
    }
    g_assert_cmpint(qemu_get_offset(rig.out), ==, before + 8);
    rig_end(&rig);
}

/* Two channels write pages of one word of the bitmap. */
static void test_two_sinks(void)
{
    RamMappedSink other;
    QEMUFile *f;
    Rig rig;

    rig_begin(&rig);
    f = open_at(rig.fd, 0, false);
    ram_mapped_sink_init(&other, &rig.mapped, f);
    for (unsigned page = 0; page < 64; page++) {
        RamRegion *r = of_source(&rig, LOW);
        RamSink *sink = page % 2 ? &other.sink : &rig.sink.sink;

        memset(ram_region_page(r, page), page + 1, PAGE);
        ram_sink_pages(sink, r, page, 1);
    }
    g_assert_cmpint(ram_sink_flush(&other.sink), ==, 0);
    g_assert_cmpuint(ram_sink_position(&other.sink), ==, 32 * PAGE);
    qemu_fclose(f);
    rig_finish(&rig);
    g_assert_true(rig_load(&rig, &error_abort));
    expect_same(&rig, LOW);
    rig_end(&rig);
}

static void make_read_only(Rig *rig)
{
    RamRegion *r = &rig->to.list[ROM];

    memset(r->host, 0, layout[ROM].pages * PAGE);
    memset(ram_region_page(r, 3), 9, PAGE);
    area_read_only(r->host, layout[ROM].pages * PAGE);
    r->read_only = true;
}

static void test_read_only(void)
{
    Rig rig;

    rig_begin(&rig);
    make_read_only(&rig);
    put_pages(&rig, ROM, 3, 1, 9);
    rig_finish(&rig);
    g_assert_true(rig_load(&rig, &error_abort));
    rig_end(&rig);
}

static void test_read_only_differs(void)
{
    Rig rig;

    rig_begin(&rig);
    make_read_only(&rig);
    put_pages(&rig, ROM, 3, 1, 8);
    rig_finish(&rig);
    rig_expect_failure(&rig, "read-only here, and on the source page 0x3000");
}

static void test_read_only_is_not_zero(void)
{
    Rig rig;

    rig_begin(&rig);
    make_read_only(&rig);
    rig_finish(&rig);
    rig_expect_failure(&rig, "read-only here, and on the source page 0x3000");
}

/* Bits of pages that there are not */
static void test_bits_beyond(void)
{
    Rig rig;

    rig_begin(&rig);
    put_pages(&rig, LOW, 999, 1, 1);
    memset((uint8_t *)rig.mapped.places[LOW].present + 125, 0xff, 3);
    rig_finish(&rig);
    g_assert_true(rig_load(&rig, &error_abort));
    expect_same(&rig, LOW);
    rig_end(&rig);
}

/*
 * What is not as it should be
 */

typedef struct Lie {
    const char *name;
    size_t at;                  /* in the head */
    uint64_t value;
    const char *error;
} Lie;

#define LIE(field, value, error) \
    { #field "/" #value, offsetof(WireMappedRam, field), value, error }

static const Lie lies[] = {
    LIE(version, 0, "version"),
    LIE(version, 2, "version"),
    LIE(page_size, 0, "pages have 0 bytes"),
    LIE(page_size, 8192, "pages have 8192 bytes"),
    LIE(bitmap_at, 0, "damaged"),
    LIE(bitmap_at, OFFSET, "damaged"),
    LIE(bitmap_at, 1ull << 20, "damaged"),
    LIE(bitmap_at, INT64_MAX, "damaged"),
    LIE(bitmap_at, UINT64_MAX, "damaged"),
    LIE(pages_at, 0, "damaged"),
    LIE(pages_at, 4096 + 1, "damaged"),
    LIE(pages_at, INT64_MAX - 4095, "damaged"),
    LIE(pages_at, UINT64_MAX - 4095, "damaged"),
    LIE(pages_at, 1ull << 40, "file ends"),
};

static void test_lie(gconstpointer data)
{
    const Lie *lie = data;
    off_t head;
    Rig rig;

    rig_begin(&rig);
    put_pages(&rig, LOW, 0, 3, 1);
    rig_finish(&rig);
    head = rig.mapped.places[LOW].bitmap_at - sizeof(WireMappedRam);
    if (lie->at == offsetof(WireMappedRam, version)) {
        uint32_t value = cpu_to_be32(lie->value);

        g_assert_cmpint(pwrite(rig.fd, &value, 4, head + lie->at), ==, 4);
    } else {
        uint64_t value = cpu_to_be64(lie->value);

        g_assert_cmpint(pwrite(rig.fd, &value, 8, head + lie->at), ==, 8);
    }
    rig_expect_failure(&rig, lie->error);
}

/* Wherever the file is cut off, it is refused. */
static void test_cut(void)
{
    off_t cuts[6];
    Rig rig;

    rig_begin(&rig);
    put_pages(&rig, LOW, 0, 3, 1);
    put_pages(&rig, SHARED - 1, 15, 1, 2);
    rig_finish(&rig);
    cuts[0] = OFFSET + 12;
    cuts[1] = rig.mapped.places[LOW].bitmap_at - 1;
    cuts[2] = rig.mapped.places[LOW].bitmap_at + 5;
    cuts[3] = rig.mapped.places[LOW].pages_at + 2 * PAGE + 1;
    cuts[4] = rig.mapped.places[ROM].pages_at + 15 * PAGE + 1;
    cuts[5] = size_of(&rig) - 1;
    for (int i = ARRAY_SIZE(cuts) - 1; i >= 0; i--) {
        Error *err = NULL;

        g_assert_cmpint(ftruncate(rig.fd, cuts[i]), ==, 0);
        g_assert_false(rig_load(&rig, &err));
        g_assert_nonnull(err);
        g_test_message("%s", error_get_pretty(err));
        error_free(err);
    }
    rig_end(&rig);
}

/* Pages have places, so none comes in the stream. */
static void test_page_in_stream(void)
{
    Rig rig;

    rig_begin(&rig);
    qemu_put_be64(rig.out, WIRE_RAM_ZERO);
    qemu_put_byte(rig.out, 0);
    rig_finish(&rig);
    rig_expect_failure(&rig, "unknown type 0x2");
}

/* A writer that was cut off has not written its bitmaps: no page is there. */
static void test_no_end(void)
{
    Rig rig;

    rig_begin(&rig);
    put_pages(&rig, LOW, 0, 3, 1);
    qemu_fflush(rig.out);
    rig_expect_failure(&rig, "ends");
}

static void test_full(void)
{
    Rig rig;
    int fd;

    rig_begin(&rig);
    fd = open("/dev/full", O_WRONLY);
    g_assert_cmpint(dup2(fd, rig.fd), ==, rig.fd);
    close(fd);
    qemu_fclose(rig.out);
    rig.out = open_at(rig.fd, 0, false);
    rig.sink.file = rig.out;
    put_pages(&rig, LOW, 0, 3, 1);
    g_assert_cmpint(ram_sink_error(&rig.sink.sink), ==, -EIO);
    g_assert_cmpint(ram_mapped_end(&rig.mapped, &rig.from.regions, rig.out),
                    <, 0);
    rig_end(&rig);
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/ram-mapped/round-trip", test_round_trip);
    g_test_add_func("/ram-mapped/nothing", test_nothing);
    g_test_add_func("/ram-mapped/ignored", test_ignored);
    g_test_add_func("/ram-mapped/places", test_places);
    g_test_add_func("/ram-mapped/two-sinks", test_two_sinks);
    g_test_add_func("/ram-mapped/read-only", test_read_only);
    g_test_add_func("/ram-mapped/read-only/differs", test_read_only_differs);
    g_test_add_func("/ram-mapped/read-only/is-not-zero",
                    test_read_only_is_not_zero);
    g_test_add_func("/ram-mapped/bits-beyond", test_bits_beyond);
    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        g_autofree char *path = g_strdup_printf("/ram-mapped/lie/%s",
                                                lies[i].name);

        g_test_add_data_func(path, &lies[i], test_lie);
    }
    g_test_add_func("/ram-mapped/turns", test_turns);
    g_test_add_func("/ram-mapped/cut", test_cut);
    g_test_add_func("/ram-mapped/page-in-stream", test_page_in_stream);
    g_test_add_func("/ram-mapped/no-end", test_no_end);
    g_test_add_func("/ram-mapped/full", test_full);
    return g_test_run();
}
