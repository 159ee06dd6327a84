/*
 * Input side of QEMUFile: reads ahead into a window and serves gets from it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/memalign.h"
#include "migration/qemu-file.h"
#include "stream-private.h"

Window *stream_window_new(void)
{
    Window *w = g_new0(Window, 1);

    w->ahead = STREAM_WINDOW_SIZE;
    g_queue_init(&w->fds);
    return w;
}

void stream_window_free(Window *w)
{
    guint unclaimed = g_queue_get_length(&w->fds);

    if (unclaimed) {
        warn_report("migration: closing %u file descriptor(s) that were "
                    "received but not asked for", unclaimed);
    }
    while (!g_queue_is_empty(&w->fds)) {
        close(GPOINTER_TO_INT(g_queue_pop_head(&w->fds)));
    }
    qemu_vfree(w->mem);
    g_free(w);
}

void stream_read_ahead(QEMUFile *f, size_t bytes)
{
    assert(bytes && bytes <= STREAM_WINDOW_SIZE);
    f->in->ahead = bytes;
}

static void window_open(Window *w)
{
    if (!w->mem) {
        w->mem = qemu_memalign(qemu_real_host_page_size(),
                               STREAM_WINDOW_SIZE);
    }
}

bool coroutine_mixed_fn stream_window_fill(QEMUFile *f, size_t len)
{
    Window *w = f->in;

    assert(len <= STREAM_WINDOW_SIZE);
    window_open(w);
    if (w->start) {
        /* Less is moved than the caller wants to have, so this is cheap. */
        memmove(w->mem, w->mem + w->start, window_held(w));
        w->end = window_held(w);
        w->start = 0;
    }
    while (window_held(w) < len) {
        struct iovec vec = {
            .iov_base = w->mem + w->end,
            .iov_len = MAX(w->ahead, len) - w->end,
        };
        size_t got = stream_channel_read(f, &vec, 1,
                                         len - window_held(w));

        if (!got) {
            return false;
        }
        w->end += got;
    }
    return true;
}

/*
 * The next @len bytes, consumed.  If the stream ends within them the rest is
 * consumed too and NULL returned: half a number is no number.
 */
static inline const uint8_t *coroutine_mixed_fn window_take(QEMUFile *f,
                                                            size_t len)
{
    Window *w = f->in;
    const uint8_t *p;

    assert(w);
    if (unlikely(window_held(w) < len) && !stream_window_fill(f, len)) {
        w->start = w->end;
        return NULL;
    }
    p = w->mem + w->start;
    w->start += len;
    return p;
}

int coroutine_mixed_fn qemu_get_byte(QEMUFile *f)
{
    const uint8_t *p = window_take(f, 1);

    return p ? *p : 0;
}

unsigned int coroutine_mixed_fn qemu_get_be16(QEMUFile *f)
{
    const uint8_t *p = window_take(f, 2);

    return p ? lduw_be_p(p) : 0;
}

unsigned int coroutine_mixed_fn qemu_get_be32(QEMUFile *f)
{
    const uint8_t *p = window_take(f, 4);

    return p ? (uint32_t)ldl_be_p(p) : 0;
}

uint64_t coroutine_mixed_fn qemu_get_be64(QEMUFile *f)
{
    const uint8_t *p = window_take(f, 8);

    return p ? ldq_be_p(p) : 0;
}

/* Moves up to @size held bytes to @buf. */
static size_t window_copy(Window *w, uint8_t *buf, size_t size)
{
    size_t len = MIN(size, window_held(w));

    if (len) {
        memcpy(buf, w->mem + w->start, len);
        w->start += len;
    }
    return len;
}

/*
 * The window is empty: reads @size bytes straight to @buf, and with the same
 * system call refills the window with whatever comes after them.
 */
static size_t coroutine_mixed_fn window_bypass(QEMUFile *f, uint8_t *buf,
                                               size_t size)
{
    Window *w = f->in;
    size_t done = 0;

    window_open(w);
    w->start = w->end = 0;
    while (done < size) {
        struct iovec vec[2] = {
            { .iov_base = buf + done, .iov_len = size - done },
            { .iov_base = w->mem, .iov_len = w->ahead },
        };
        size_t got = stream_channel_read(f, vec, 2, size - done);
        size_t mine = MIN(got, size - done);

        if (!got) {
            break;
        }
        done += mine;
        w->end = got - mine;
    }
    return done;
}

size_t coroutine_mixed_fn qemu_get_buffer(QEMUFile *f, uint8_t *buf,
                                          size_t size)
{
    size_t done;

    assert(f->in);
    done = window_copy(f->in, buf, size);
    if (done < size) {
        done += window_bypass(f, buf + done, size - done);
    }
    return done;
}

size_t coroutine_mixed_fn qemu_peek_buffer(QEMUFile *f, uint8_t **buf,
                                           size_t size, size_t offset)
{
    Window *w = f->in;

    assert(w);
    assert(offset < STREAM_WINDOW_SIZE);
    assert(size <= STREAM_WINDOW_SIZE - offset);
    if (window_held(w) < offset + size) {
        stream_window_fill(f, offset + size);
    }
    if (window_held(w) <= offset) {
        return 0;
    }
    *buf = w->mem + w->start + offset;
    return MIN(size, window_held(w) - offset);
}

int coroutine_mixed_fn qemu_peek_byte(QEMUFile *f, int offset)
{
    uint8_t *p;

    assert(offset >= 0);
    return qemu_peek_buffer(f, &p, 1, offset) ? *p : 0;
}

void qemu_file_skip(QEMUFile *f, int size)
{
    assert(f->in);
    if (size > 0 && size <= window_held(f->in)) {
        f->in->start += size;
    }
}

size_t coroutine_mixed_fn qemu_get_buffer_in_place(QEMUFile *f, uint8_t **buf,
                                                   size_t size)
{
    uint8_t *p;

    if (size <= STREAM_WINDOW_SIZE &&
        qemu_peek_buffer(f, &p, size, 0) == size && size) {
        f->in->start += size;
        *buf = p;
        return size;
    }
    return qemu_get_buffer(f, *buf, size);
}

size_t coroutine_mixed_fn qemu_get_counted_string(QEMUFile *f, char buf[256])
{
    size_t len = qemu_get_byte(f);
    size_t got = qemu_get_buffer(f, (uint8_t *)buf, len);

    buf[got] = '\0';
    return got < len ? 0 : len;
}

int coroutine_mixed_fn qemu_file_get_to_fd(QEMUFile *f, int fd, size_t size)
{
    Window *w = f->in;

    assert(w);
    while (size) {
        ssize_t len;

        if (!window_held(w) && !stream_window_fill(f, 1)) {
            return qemu_file_get_error(f);
        }
        len = RETRY_ON_EINTR(write(fd, w->mem + w->start,
                                   MIN(size, window_held(w))));
        if (len <= 0) {
            return len < 0 ? -errno : -EIO;
        }
        w->start += len;
        size -= len;
    }
    return 0;
}
