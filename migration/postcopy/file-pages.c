/*
 * Pages from their places in a file, while somebody may be waiting for them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/bitops.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "io/channel-file.h"
#include "migration/base/clock.h"
#include "migration/base/turns.h"
#include "migration/migration.h"
#include "file-pages.h"
#include "mapping.h"

/* What a thread that reads ahead takes, and reads at once */
#define CHUNK (1 * MiB)
#define AHEAD_PIECE (256 * KiB)
/* How many chunks from that of a request on are read before others */
#define CHUNKS_NEAR 4
/* For which the rate is kept, at least */
#define SLICE_MS 100
/* Coarser clocks of file systems are not waited for. */
#define TICK_NS (20 * SCALE_MS)

/* What a file is known by, and when it was last written */
typedef struct FileStamp {
    dev_t disk;
    ino_t inode;
    int64_t size;
    int64_t modified_ns;
} FileStamp;

/* A block, and which of its chunks were taken; under the lock */
typedef struct FileBlock {
    RamRegion *region;          /* NULL: it has no place */
    RamPlace place;
    uint64_t end;               /* pages, up to the end of a host page */
    uint64_t chunk_pages;       /* at least one of the host */
    unsigned long *taken;       /* by chunk */
    uint64_t next;              /* all before it are taken, or empty */
} FileBlock;

typedef struct FileRequest {
    FileBlock *block;
    uint64_t page;
} FileRequest;

typedef struct PageReader {
    QIOChannel *ioc;
    QemuThread thread;
    bool started;               /* to be joined; who starts and ends it */
    bool ahead;                 /* it reads ahead */
    uint8_t *stage;
    size_t stage_size;
    unsigned seen;              /* faults_settled() */
} PageReader;

/*
 * Set up before there are threads, and not changed while there are: readers,
 * stamp, blocks but for taken and next, memory, ops.  Under the lock: all
 * below it.  Two flags are also read without it: a thread that sees them late
 * reads one piece more.
 */
static struct {
    PageReader *readers;
    unsigned count;
    FileStamp stamp;
    FileBlock *blocks;          /* by RamRegion.index */
    unsigned block_count;
    PlaceMemory *memory;
    const FilePagesOps *ops;

    QemuMutex lock;
    QemuCond changed;           /* anything below */
    GArray *requests;           /* FileRequest */
    FileBlock *near;            /* where to read ahead first, or NULL */
    uint64_t near_chunk;
    unsigned near_left;
    unsigned cursor;            /* blocks before it are taken */
    int64_t slice_ms;           /* when the one that is counted began */
    uint64_t slice_bytes;       /* that were read ahead in it */
    unsigned running, ahead;    /* threads; those of them that read ahead */
    bool guest;                 /* may run */
    bool over;                  /* no thread runs, nobody waits in vain */
    Error *err;                 /* the first */
    bool stop;                  /* atomic */
    bool asked;                 /* there are requests; atomic */
} fp;

static void __attribute__((constructor)) file_pages_init(void)
{
    qemu_mutex_init(&fp.lock);
    qemu_cond_init(&fp.changed);
}

static bool stopped(void)
{
    return qatomic_read(&fp.stop);
}

/*
 * The file
 */

static bool stamp_get(QIOChannel *ioc, FileStamp *stamp, Error **errp)
{
    QIOChannelFile *file = (QIOChannelFile *)
        object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_FILE);
    struct stat st;

    if (!file || fstat(file->fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        error_setg(errp, "memory can only be loaded while the guest runs from "
                   "a regular file, whose changes can be seen: turn "
                   "'postcopy-ram' off to load from anything else");
        return false;
    }
    *stamp = (FileStamp) {
        .disk = st.st_dev, .inode = st.st_ino, .size = st.st_size,
        .modified_ns = st.st_mtime * NANOSECONDS_PER_SECOND,
    };
#ifdef CONFIG_LINUX
    stamp->modified_ns += st.st_mtim.tv_nsec;
#endif
    return true;
}

/* Another change would show in the time of the last one. */
static bool stamp_is_old(const FileStamp *stamp)
{
    int64_t age = g_get_real_time() * 1000 - stamp->modified_ns;

    return age > TICK_NS || age < -TICK_NS;
}

static bool stamp_is_same(const FileStamp *stamp)
{
    return stamp->disk == fp.stamp.disk && stamp->inode == fp.stamp.inode &&
           stamp->size == fp.stamp.size &&
           stamp->modified_ns == fp.stamp.modified_ns;
}

bool file_pages_same_file(QIOChannel *ioc, Error **errp)
{
    FileStamp now;

    if (!stamp_get(ioc, &now, errp)) {
        return false;
    }
    if (!stamp_is_same(&now)) {
        error_setg(errp, "the file has been changed since loading from it "
                   "began");
        return false;
    }
    return true;
}

static bool stamp_settle(QIOChannel *ioc, Error **errp)
{
    if (!stamp_get(ioc, &fp.stamp, errp)) {
        return false;
    }
    if (!stamp_is_old(&fp.stamp)) {
        g_usleep(FILE_PAGES_SETTLE_MS * 1000);
        if (!stamp_get(ioc, &fp.stamp, errp)) {
            return false;
        }
    }
    if (!stamp_is_old(&fp.stamp)) {
        error_setg(errp, "the file is still being written");
        return false;
    }
    return true;
}

bool file_pages_begin(QIOChannel **files, unsigned count, Error **errp)
{
    bool ok;

    assert(count >= 2 && !fp.readers);
    fp.readers = g_new0(PageReader, count);
    fp.count = count;
    fp.requests = g_array_new(false, false, sizeof(FileRequest));
    for (unsigned i = 0; i < count; i++) {
        fp.readers[i].ioc = files[i];
        fp.readers[i].ahead = i > 0;
    }
    ok = stamp_settle(files[0], errp);
    for (unsigned i = 1; ok && i < count; i++) {
        ok = file_pages_same_file(files[i], errp);
    }
    if (!ok) {
        file_pages_end();
    }
    return ok;
}

/*
 * Places
 */

static uint64_t host_pages(const RamRegion *r)
{
    return r->host_page_size >> r->page_bits;
}

/* Pages that are read at once, if that is to be @bytes */
static uint64_t piece_pages(const FileBlock *b, uint64_t bytes)
{
    return MAX(bytes, b->region->host_page_size) >> b->region->page_bits;
}

static void add_block(RamPlace *p, RamRegion *r)
{
    FileBlock *b;

    if (r->index >= fp.block_count) {
        fp.blocks = g_renew(FileBlock, fp.blocks, r->index + 1);
        memset(fp.blocks + fp.block_count, 0,
               (r->index + 1 - fp.block_count) * sizeof(FileBlock));
        fp.block_count = r->index + 1;
    }
    b = &fp.blocks[r->index];
    *b = (FileBlock) {
        .region = r, .place = *p,
        .end = ROUND_UP(r->pages, host_pages(r)),
        .chunk_pages = MAX(CHUNK, r->host_page_size) >> r->page_bits,
    };
    b->taken = bitmap_new(DIV_ROUND_UP(b->end, b->chunk_pages) + 1);
    p->present = NULL;
}

bool file_pages_keep(RamPlace *p, RamRegion *r, Error **errp)
{
    uint64_t last = find_last_bit(p->present, r->pages);
    uint64_t end = p->pages_at + ((last + 1) << r->page_bits);

    if (last < r->pages && end > fp.stamp.size) {
        error_setg(errp, "its pages end at %" PRIu64 " in the file, which has "
                   "only %" PRId64 " bytes", end, fp.stamp.size);
        return false;
    }
    add_block(p, r);
    return true;
}

bool file_pages_complete(const RamRegions *regions, Error **errp)
{
    RAM_REGIONS_FOREACH_SENT(r, regions) {
        if (r->index >= fp.block_count || !fp.blocks[r->index].region) {
            error_setg(errp, "RAM block '%s' is not in the file", r->name);
            return false;
        }
    }
    return true;
}

/* Where the next host page begins of which the file has some, or the end */
static uint64_t next_present(const FileBlock *b, uint64_t page)
{
    uint64_t pages = b->region->pages;
    uint64_t next = find_next_bit(b->place.present, pages, MIN(page, pages));

    return next < pages ? QEMU_ALIGN_DOWN(next, host_pages(b->region))
                        : b->end;
}

/* Where the first host page begins from @page on of which the file has none */
static uint64_t next_absent(const FileBlock *b, uint64_t page)
{
    uint64_t pages = b->region->pages;

    while (page < b->end) {
        page = find_next_zero_bit(b->place.present, pages, page);
        page = QEMU_ALIGN_DOWN(page, host_pages(b->region));
        if (next_present(b, page) != page) {
            return page;
        }
        page += host_pages(b->region);
    }
    return b->end;
}

void file_pages_mark_zeros(PlaceMemory *memory)
{
    for (unsigned i = 0; i < fp.block_count; i++) {
        const FileBlock *b = &fp.blocks[i];
        uint64_t page = 0, next;

        while (b->region && page < b->end) {
            next = next_present(b, page);
            received_set(&memory->blocks[i].map, page, next - page);
            page = next_absent(b, next);
        }
    }
}

/*
 * Reading
 */

static bool read_at_place(PageReader *c, const FileBlock *b, uint64_t page,
                          uint64_t pages, uint8_t *to, Error **errp)
{
    uint64_t left = pages << b->region->page_bits;
    uint64_t at = b->place.pages_at + (page << b->region->page_bits);

    while (left) {
        ssize_t got = qio_channel_pread(c->ioc, (char *)to, left, at, errp);

        if (got <= 0) {
            if (!got) {
                error_setg(errp, "the file ends at %" PRIu64, at);
            }
            return false;
        }
        to += got;
        at += got;
        left -= got;
    }
    return true;
}

/* Pages [@first, @first + @count), whole ones of the host, to the stage */
static bool fill_stage(PageReader *c, const FileBlock *b, uint64_t first,
                       uint64_t count, Error **errp)
{
    unsigned bits = b->region->page_bits;
    const unsigned long *present = b->place.present;
    uint64_t limit = MIN(first + count, b->region->pages), at = first, end;

    while (at < limit) {
        end = find_next_bit(present, limit, at);
        memset(c->stage + ((at - first) << bits), 0, (end - at) << bits);
        at = end;
        end = find_next_zero_bit(present, limit, at);
        if (!read_at_place(c, b, at, end - at,
                           c->stage + ((at - first) << bits), errp)) {
            return false;
        }
        at = end;
    }
    memset(c->stage + ((at - first) << bits), 0, (first + count - at) << bits);
    return true;
}

static bool read_piece(PageReader *c, const FileBlock *b, uint64_t first,
                       uint64_t count, Error **errp)
{
    ERRP_GUARD();
    RamRegion *r = b->region;
    const ReceivedMap *map = &fp.memory->blocks[r->index].map;
    uint64_t start = first << r->page_bits;

    if (!received_lacking(map, first, first + count) || !ram_region_here(r)) {
        return true;
    }
    if (!fill_stage(c, b, first, count, errp) ||
        !file_pages_same_file(c->ioc, errp) ||
        !place_pages(fp.memory, r, start, c->stage, count << r->page_bits,
                     errp)) {
        error_prepend(errp, "RAM block '%s' at 0x%" PRIx64 ": ", r->name,
                      start);
        return false;
    }
    return true;
}

/*
 * Requests
 */

bool file_pages_request(void *opaque, const RamRegion *region, uint64_t start,
                        uint32_t len)
{
    FileBlock *b = &fp.blocks[region->index];
    FileRequest request = { b, start >> region->page_bits };

    QEMU_LOCK_GUARD(&fp.lock);
    if (fp.stop) {
        return false;
    }
    g_array_append_val(fp.requests, request);
    qatomic_set(&fp.asked, true);
    fp.near = b;
    fp.near_chunk = request.page / b->chunk_pages;
    fp.near_left = CHUNKS_NEAR;
    qemu_cond_broadcast(&fp.changed);
    return true;
}

/* Under the lock */
static bool take_request(FileRequest *request)
{
    if (!fp.requests->len) {
        return false;
    }
    *request = g_array_index(fp.requests, FileRequest, 0);
    g_array_remove_index(fp.requests, 0);
    qatomic_set(&fp.asked, fp.requests->len);
    return true;
}

static bool serve(PageReader *c, const FileRequest *request, Error **errp)
{
    const FileBlock *b = request->block;
    uint64_t count = piece_pages(b, FILE_PAGES_PIECE);
    uint64_t first = QEMU_ALIGN_DOWN(request->page, count);

    return read_piece(c, b, first, MIN(count, b->end - first), errp);
}

/* Waits for a request.  False if there will be none. */
static bool await_request(FileRequest *request)
{
    QEMU_LOCK_GUARD(&fp.lock);
    while (!fp.stop && fp.ahead && !fp.requests->len) {
        qemu_cond_wait(&fp.changed, &fp.lock);
    }
    return !fp.stop && take_request(request);
}

static bool serve_requests(PageReader *c, Error **errp)
{
    FileRequest request;

    while (await_request(&request)) {
        if (!serve(c, &request, errp)) {
            return false;
        }
    }
    return true;
}

/* The thread that serves them may be busy with another one. */
static bool serve_another(PageReader *c, Error **errp)
{
    FileRequest request;
    bool some = false;

    if (qatomic_read(&fp.asked)) {
        QEMU_LOCK_GUARD(&fp.lock);
        some = take_request(&request);
    }
    return !some || serve(c, &request, errp);
}

/*
 * Reading ahead
 */

/* Under the lock: whether @chunk is the caller's now */
static bool take_free_chunk(FileBlock *b, uint64_t chunk)
{
    return next_present(b, chunk * b->chunk_pages) <
           MIN((chunk + 1) * b->chunk_pages, b->end) &&
           !test_and_set_bit(chunk, b->taken);
}

static bool take_near(FileBlock **block, uint64_t *chunk)
{
    while (fp.near_left) {
        fp.near_left--;
        *block = fp.near;
        *chunk = fp.near_chunk++;
        if (*chunk * fp.near->chunk_pages < fp.near->end &&
            take_free_chunk(fp.near, *chunk)) {
            return true;
        }
    }
    return false;
}

static bool take_next(FileBlock **block, uint64_t *chunk)
{
    for (; fp.cursor < fp.block_count; fp.cursor++) {
        FileBlock *b = &fp.blocks[fp.cursor];
        uint64_t page;

        while (b->region &&
               (page = next_present(b, b->next * b->chunk_pages)) < b->end) {
            *block = b;
            *chunk = page / b->chunk_pages;
            b->next = *chunk + 1;
            if (take_free_chunk(b, *chunk)) {
                return true;
            }
        }
    }
    return false;
}

static bool take_some(FileBlock **block, uint64_t *chunk)
{
    QEMU_LOCK_GUARD(&fp.lock);
    return !fp.stop && (take_near(block, chunk) || take_next(block, chunk));
}

/* Under the lock: counts @bytes, and until when that is enough at @rate */
static int64_t count_ahead(uint64_t bytes, uint64_t rate)
{
    int64_t now = now_ms();

    if (now - fp.slice_ms > SLICE_MS) {
        fp.slice_ms = now;
        fp.slice_bytes = 0;
    }
    fp.slice_bytes += bytes;
    return fp.slice_ms + fp.slice_bytes * 1000 / rate;
}

/* Requests are served meanwhile. */
static bool keep_rate(PageReader *c, uint64_t bytes, Error **errp)
{
    uint64_t rate = fp.ops->rate();
    int64_t due = 0, left;

    if (!rate) {
        return true;
    }
    WITH_QEMU_LOCK_GUARD(&fp.lock) {
        due = count_ahead(bytes, rate);
    }
    do {
        if (!serve_another(c, errp)) {
            return false;
        }
        QEMU_LOCK_GUARD(&fp.lock);
        left = due - now_ms();
        if (left > 0 && !fp.stop && !fp.requests->len) {
            qemu_cond_timedwait(&fp.changed, &fp.lock, left);
        }
    } while (left > 0 && !stopped());
    return true;
}

/* Whoever waited for a page goes on before there are more. */
static void let_waiters_go_on(PageReader *c)
{
    if (faults_settled(fp.memory->faults, &c->seen) ||
        faults_some(fp.memory->faults)) {
        turns_give_way();
    }
}

static bool read_ahead_chunk(PageReader *c, const FileBlock *b, uint64_t chunk,
                       Error **errp)
{
    uint64_t end = MIN((chunk + 1) * b->chunk_pages, b->end);
    uint64_t count = piece_pages(b, AHEAD_PIECE);
    uint64_t first = next_present(b, chunk * b->chunk_pages);

    while (first < end && !stopped()) {
        first = QEMU_ALIGN_DOWN(first, count);
        if (!serve_another(c, errp) ||
            !read_piece(c, b, first, MIN(count, end - first), errp)) {
            return false;
        }
        let_waiters_go_on(c);
        if (!keep_rate(c, count << b->region->page_bits, errp)) {
            return false;
        }
        first = next_present(b, first + count);
    }
    return true;
}

static bool read_ahead(PageReader *c, Error **errp)
{
    FileBlock *b;
    uint64_t chunk;

    while (take_some(&b, &chunk)) {
        if (!read_ahead_chunk(c, b, chunk, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Threads
 */

/* Takes over @err, which may be NULL. */
static void stop_reading_for(Error *err)
{
    QEMU_LOCK_GUARD(&fp.lock);
    qatomic_set(&fp.stop, true);
    if (fp.err) {
        error_free(err);
    } else {
        fp.err = err;
    }
    qemu_cond_broadcast(&fp.changed);
}

/* Whether it was the last one, and nobody is to wait for what will not come. */
static bool reader_ends(PageReader *c)
{
    QEMU_LOCK_GUARD(&fp.lock);
    fp.ahead -= c->ahead;
    fp.running--;
    if (!fp.running && fp.err && !fp.guest) {
        return true;
    }
    fp.over = !fp.running;
    qemu_cond_broadcast(&fp.changed);
    return false;
}

static void *page_reader_thread(void *opaque)
{
    PageReader *c = opaque;
    Error *err = NULL;

    rcu_register_thread();
    turns_short();
    if (!(c->ahead ? read_ahead(c, &err) : serve_requests(c, &err))) {
        stop_reading_for(err);
    }
    if (reader_ends(c)) {
        fp.ops->release();
        QEMU_LOCK_GUARD(&fp.lock);
        fp.over = true;
        qemu_cond_broadcast(&fp.changed);
    }
    rcu_unregister_thread();
    return NULL;
}

bool file_pages_start(PlaceMemory *memory, const FilePagesOps *ops,
                      Error **errp)
{
    size_t size = MAX(memory->largest_page, AHEAD_PIECE);

    fp.memory = memory;
    fp.ops = ops;
    for (unsigned i = 0; i < fp.count; i++) {
        /* As direct I/O needs it: whole pages of the host */
        fp.readers[i].stage = mapping_zeros(size, true);
        fp.readers[i].stage_size = size;
        if (!fp.readers[i].stage) {
            error_setg_errno(errp, errno, "There is no memory for a page of "
                             "%zu bytes", size);
            return false;
        }
    }
    fp.running = fp.count;
    fp.ahead = fp.count - 1;
    for (unsigned i = 0; i < fp.count; i++) {
        g_autofree char *name = g_strdup_printf(MIGRATION_THREAD_DST_MULTIFD,
                                                i);

        fp.readers[i].started = true;
        qemu_thread_create(&fp.readers[i].thread, name, page_reader_thread,
                           &fp.readers[i], QEMU_THREAD_JOINABLE);
    }
    return true;
}

bool file_pages_guest(Error **errp)
{
    QEMU_LOCK_GUARD(&fp.lock);
    if (fp.stop) {
        error_propagate(errp, fp.err ? error_copy(fp.err) : NULL);
        if (!fp.err) {
            error_setg(errp, "QEMU is ending");
        }
        return false;
    }
    fp.guest = true;
    return true;
}

bool file_pages_wait(Error **errp)
{
    QEMU_LOCK_GUARD(&fp.lock);
    while (fp.readers && fp.readers[0].started && !fp.over) {
        qemu_cond_wait(&fp.changed, &fp.lock);
    }
    if (fp.err) {
        error_propagate(errp, error_copy(fp.err));
    }
    return !fp.stop;
}

void file_pages_cancel(void)
{
    if (fp.readers) {
        stop_reading_for(NULL);
    }
}

static void free_blocks(void)
{
    for (unsigned i = 0; i < fp.block_count; i++) {
        g_free(fp.blocks[i].place.present);
        g_free(fp.blocks[i].taken);
    }
    g_clear_pointer(&fp.blocks, g_free);
    fp.block_count = 0;
    fp.cursor = 0;
    fp.near = NULL;
    fp.near_left = 0;
}

void file_pages_end(void)
{
    if (!fp.readers) {
        return;
    }
    file_pages_cancel();
    for (unsigned i = 0; i < fp.count; i++) {
        PageReader *c = &fp.readers[i];

        if (c->started) {
            qemu_thread_join(&c->thread);
        }
        mapping_end(c->stage, c->stage_size);
        object_unref(OBJECT(c->ioc));
    }
    g_clear_pointer(&fp.readers, g_free);
    g_array_free(fp.requests, true);
    free_blocks();
    error_free(fp.err);
    fp.err = NULL;
    fp.count = 0;
    fp.guest = fp.over = fp.stop = fp.asked = false;
}
