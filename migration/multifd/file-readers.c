/*
 * Threads that read memory from its places in a file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/rcu.h"
#include "qapi/error.h"
#include "migration/base/first-error.h"
#include "migration/migration.h"
#include "migration/wire/stream.h"
#include "file-readers.h"

/* Bytes of memory that a thread takes at once */
#define SHARE_BYTES RAM_LOAD_STRETCH

/*
 * Pages of a block that are being read, up to @end.  @next is all that the
 * threads share and change, once for each piece; what they write to are pages
 * of different pieces.
 */
typedef struct Reading {
    const RamPlace *place;
    RamRegion *region;
    uint64_t pages_at_once, end;
    size_t next;                /* page that nobody has taken; atomic */
} Reading;

typedef struct FileReader {
    QEMUFile *f;
    QemuThread thread;
    Reading *reading;
} FileReader;

static struct {
    FileReader *list;
    unsigned count;
    FirstError error;           /* of the pages that are being read */
} file_readers;

static void __attribute__((constructor)) file_readers_init_error(void)
{
    first_error_init(&file_readers.error);
}

void file_readers_begin(QEMUFile **files, unsigned count)
{
    assert(!file_readers.list);
    file_readers.list = g_new0(FileReader, count);
    file_readers.count = count;
    for (unsigned i = 0; i < count; i++) {
        file_readers.list[i].f = files[i];
    }
}

static bool read_pieces(FileReader *c, Error **errp)
{
    Reading *reading = c->reading;
    RamRegion *r = reading->region;
    RamLoadOps nobody = { };
    RamLoader loader = { .ops = &nobody, .page_bits = r->page_bits };
    uint64_t first;

    while ((first = qatomic_fetch_add(&reading->next,
                                      reading->pages_at_once)) < reading->end) {
        if (!ram_mapped_load_range(c->f, &loader, reading->place, r, first,
                                   MIN(reading->pages_at_once,
                                       reading->end - first), errp)) {
            return false;
        }
    }
    return true;
}

static void *file_reader_thread(void *opaque)
{
    FileReader *c = opaque;
    Error *err = NULL;

    rcu_register_thread();
    if (!read_pieces(c, &err)) {
        first_error_set(&file_readers.error, err);
        error_free(err);
        /* The others need not go on. */
        qatomic_set(&c->reading->next, c->reading->end);
    }
    rcu_unregister_thread();
    return NULL;
}

bool file_readers_load(const RamPlace *p, RamRegion *r, uint64_t first,
                       uint64_t pages, Error **errp)
{
    Reading reading = {
        .place = p, .region = r, .next = first, .end = first + pages,
        .pages_at_once = SHARE_BYTES >> r->page_bits,
    };
    uint64_t pieces = DIV_ROUND_UP(pages, reading.pages_at_once);
    unsigned count = MIN(file_readers.count, pieces);
    Error *err;

    first_error_clear(&file_readers.error);
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *name = g_strdup_printf(MIGRATION_THREAD_DST_MULTIFD,
                                                i);
        FileReader *c = &file_readers.list[i];

        c->reading = &reading;
        qemu_thread_create(&c->thread, name, file_reader_thread, c,
                           QEMU_THREAD_JOINABLE);
    }
    for (unsigned i = 0; i < count; i++) {
        qemu_thread_join(&file_readers.list[i].thread);
    }
    err = first_error_get(&file_readers.error);
    error_propagate(errp, err);
    return !err;
}

void file_readers_end(void)
{
    for (unsigned i = 0; i < file_readers.count; i++) {
        qemu_fclose(file_readers.list[i].f);
    }
    g_clear_pointer(&file_readers.list, g_free);
    file_readers.count = 0;
}
