/*
 * Payloads in which each page is compressed by itself
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * So it is with the methods "qpl" and "uadk".  A payload begins with a table:
 * the length that each page has in it, 32 bits, big-endian.  The pages follow.
 * One that is as long as a page is not compressed; none is longer.
 *
 * Compressing is up to who uses this.  To encode: codec_pages_take(), set
 * @encoded and @len of those pages that are shorter when compressed,
 * codec_pages_put().  To decode: codec_pages_parse(), and fill @memory of each
 * page with @packed.
 *
 * Threads: a CodecPages has one user at a time.
 */

#ifndef MIGRATION_MULTIFD_CODEC_PAGES_H
#define MIGRATION_MULTIFD_CODEC_PAGES_H

typedef struct CodecPage {
    uint8_t *memory;            /* a page: a copy, or where it goes */
    uint8_t *encoded;           /* @room bytes to compress it to, or itself */
    uint32_t len;               /* of @encoded */
    bool packed;                /* @encoded is not the page as it is */
} CodecPage;

typedef struct CodecPages {
    size_t size, room;          /* bytes: of a page, and for an encoded one */
    unsigned max;               /* pages of a packet */
    unsigned count;             /* pages of the present one */
    CodecPage *pages;           /* @max of them */
    uint8_t *copies, *rooms;    /* NULL in a decoder */
} CodecPages;

/* For pages of @size bytes.  With @room 0 for decoding alone. */
void codec_pages_init(CodecPages *p, size_t size, size_t room);
void codec_pages_destroy(CodecPages *p);

/*
 * The pages of @runs are those of the next packet; they are copied, so that
 * nobody writes to them any more.  None is packed yet.
 */
void codec_pages_take(CodecPages *p, const struct iovec *runs, unsigned n);

/* That page could be compressed to @len bytes, in its room. */
void codec_pages_packed(CodecPages *p, CodecPage *page, uint32_t len);

/* The payload, at most @room bytes at @out; returns its length, or -1. */
ssize_t codec_pages_put(const CodecPages *p, uint8_t *out, size_t room,
                        Error **errp);

/*
 * A payload that was received, @len bytes at @in, of the pages of @runs.  Those
 * that are not packed are put in place.  Nothing is believed of @in, which has
 * to stay until the packed ones are decoded.
 */
bool codec_pages_parse(CodecPages *p, const uint8_t *in, size_t len,
                       const struct iovec *runs, unsigned n, Error **errp);

/* @page has become @len bytes in its place; false if it is not a page then. */
bool codec_pages_check(const CodecPages *p, const CodecPage *page, uint32_t len,
                       Error **errp);

#endif
