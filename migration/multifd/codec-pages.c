/*
 * Payloads in which each page is compressed by itself
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "migration/wire/wire.h"
#include "codec-pages.h"

#define ENTRY sizeof(uint32_t)

void codec_pages_init(CodecPages *p, size_t size, size_t room)
{
    unsigned max = WIRE_MULTIFD_PACKET_MEMORY / size;

    *p = (CodecPages) {
        .size = size,
        .room = room,
        .max = max,
        .pages = g_new0(CodecPage, max),
        .copies = room ? g_malloc(max * size) : NULL,
        .rooms = g_malloc(max * room),
    };
}

void codec_pages_destroy(CodecPages *p)
{
    g_free(p->pages);
    g_free(p->copies);
    g_free(p->rooms);
    *p = (CodecPages) { };
}

/*
 * Encoding
 */

void codec_pages_take(CodecPages *p, const struct iovec *runs, unsigned n)
{
    size_t bytes = iov_size(runs, n);

    assert(bytes <= p->max * p->size && bytes % p->size == 0);
    iov_to_buf(runs, n, 0, p->copies, bytes);
    p->count = bytes / p->size;
    for (unsigned i = 0; i < p->count; i++) {
        p->pages[i] = (CodecPage) {
            .memory = p->copies + i * p->size,
            .encoded = p->rooms + i * p->room,
            .len = p->size,
        };
    }
}

void codec_pages_packed(CodecPages *p, CodecPage *page, uint32_t len)
{
    if (len && len < p->size) {
        page->len = len;
        page->packed = true;
    }
}

ssize_t codec_pages_put(const CodecPages *p, uint8_t *out, size_t room,
                        Error **errp)
{
    size_t at = p->count * ENTRY, end = at;

    for (unsigned i = 0; i < p->count; i++) {
        end += p->pages[i].len;
    }
    if (end > room) {
        error_setg(errp, "%u compressed pages take %zu bytes, and there is "
                   "room for %zu", p->count, end, room);
        return -1;
    }
    for (unsigned i = 0; i < p->count; i++) {
        const CodecPage *page = &p->pages[i];

        stl_be_p(out + i * ENTRY, page->len);
        memcpy(out + at, page->packed ? page->encoded : page->memory,
               page->len);
        at += page->len;
    }
    return end;
}

/*
 * Decoding
 */

/* Where each page goes; false if there are more than a packet can have */
static bool find_places(CodecPages *p, const struct iovec *runs, unsigned n,
                        Error **errp)
{
    p->count = 0;
    for (; n; runs++, n--) {
        for (size_t at = 0; at < runs->iov_len; at += p->size) {
            if (p->count == p->max) {
                error_setg(errp, "A packet has more than %u pages", p->max);
                return false;
            }
            p->pages[p->count++] = (CodecPage) {
                .memory = (uint8_t *)runs->iov_base + at,
            };
        }
    }
    return true;
}

/* How long each page is in the payload, and where it stands there */
static bool read_lengths(CodecPages *p, const uint8_t *in, size_t len,
                         Error **errp)
{
    size_t at = p->count * ENTRY;

    if (len < at) {
        error_setg(errp, "A packet of %u pages has %zu bytes, less than its "
                   "table of lengths", p->count, len);
        return false;
    }
    for (unsigned i = 0; i < p->count; i++) {
        CodecPage *page = &p->pages[i];

        page->len = ldl_be_p(in + i * ENTRY);
        if (!page->len || page->len > p->size) {
            error_setg(errp, "A compressed page has %" PRIu32 " bytes, and a "
                       "page has %zu", page->len, p->size);
            return false;
        }
        page->encoded = (uint8_t *)in + at;
        page->packed = page->len < p->size;
        at += page->len;
    }
    if (at != len) {
        error_setg(errp, "A packet has %zu bytes, and its pages take %zu", len,
                   at);
        return false;
    }
    return true;
}

bool codec_pages_parse(CodecPages *p, const uint8_t *in, size_t len,
                       const struct iovec *runs, unsigned n, Error **errp)
{
    if (!find_places(p, runs, n, errp) || !read_lengths(p, in, len, errp)) {
        return false;
    }
    for (unsigned i = 0; i < p->count; i++) {
        if (!p->pages[i].packed) {
            memcpy(p->pages[i].memory, p->pages[i].encoded, p->size);
        }
    }
    return true;
}

bool codec_pages_check(const CodecPages *p, const CodecPage *page, uint32_t len,
                       Error **errp)
{
    if (len != p->size) {
        error_setg(errp, "A compressed page of %" PRIu32 " bytes holds %"
                   PRIu32 " of the %zu that a page has", page->len, len,
                   p->size);
        return false;
    }
    return true;
}
