/*
 * Pages in the format of zlib: one stream a channel, flushed at each packet
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include <zlib.h>
#include "migration/wire/wire.h"
#include "codec.h"

/* zlib must not see memory change, so it gets a copy of so much at a time. */
#define PIECE_BYTES 4096

typedef struct Encoder {
    z_stream zs;
    int level, wanted;
    uint8_t piece[PIECE_BYTES];
} Encoder;

static bool zlib_failed(const char *what, int ret, Error **errp)
{
    error_setg(errp, "zlib cannot %s: %s", what,
               ret == Z_BUF_ERROR ? "the output is too small" : zError(ret));
    return false;
}

static void *zlib_encoder_new(int level, size_t page, Error **errp)
{
    Encoder *e = g_new0(Encoder, 1);
    int ret = deflateInit(&e->zs, level);

    e->level = e->wanted = level;
    if (ret != Z_OK) {
        zlib_failed("be started", ret, errp);
        g_clear_pointer(&e, g_free);
    }
    return e;
}

static void zlib_encoder_free(void *opaque)
{
    Encoder *e = opaque;

    deflateEnd(&e->zs);
    g_free(e);
}

static void zlib_encoder_level(void *opaque, int level)
{
    Encoder *e = opaque;

    e->wanted = level;
}

/* All that was put in before comes out with @flush. */
static bool put_in(Encoder *e, int flush, Error **errp)
{
    int ret = deflate(&e->zs, flush);

    /* With a flush there may be nothing left to do. */
    if (ret == Z_BUF_ERROR && !e->zs.avail_in && e->zs.avail_out) {
        ret = Z_OK;
    }
    if (ret != Z_OK || e->zs.avail_in || !e->zs.avail_out) {
        return zlib_failed("compress", ret == Z_OK ? Z_BUF_ERROR : ret, errp);
    }
    return true;
}

/* Between packets there is nothing left to be encoded at the former level. */
static bool change_level(Encoder *e, Error **errp)
{
    int ret;

    if (e->level == e->wanted) {
        return true;
    }
    e->level = e->wanted;
    ret = deflateParams(&e->zs, e->level, Z_DEFAULT_STRATEGY);
    return ret == Z_OK || ret == Z_BUF_ERROR ||
           zlib_failed("change its level", ret, errp);
}

static ssize_t zlib_encode(void *opaque, const struct iovec *runs, unsigned n,
                           uint8_t *out, size_t room, Error **errp)
{
    Encoder *e = opaque;

    e->zs.next_out = out;
    e->zs.avail_out = room;
    e->zs.avail_in = 0;
    if (!change_level(e, errp)) {
        return -1;
    }
    for (; n; runs++, n--) {
        for (size_t at = 0; at < runs->iov_len; at += PIECE_BYTES) {
            size_t len = MIN(runs->iov_len - at, PIECE_BYTES);

            memcpy(e->piece, (uint8_t *)runs->iov_base + at, len);
            e->zs.next_in = e->piece;
            e->zs.avail_in = len;
            if (!put_in(e, Z_NO_FLUSH, errp)) {
                return -1;
            }
        }
    }
    return put_in(e, Z_SYNC_FLUSH, errp) ? room - e->zs.avail_out : -1;
}

static void *zlib_decoder_new(size_t page, Error **errp)
{
    z_stream *zs = g_new0(z_stream, 1);
    int ret = inflateInit(zs);

    if (ret != Z_OK) {
        zlib_failed("be started", ret, errp);
        g_clear_pointer(&zs, g_free);
    }
    return zs;
}

static void zlib_decoder_free(void *opaque)
{
    inflateEnd(opaque);
    g_free(opaque);
}

/*
 * The mark of a flush at the end has no content, but must be read.  What has
 * been read may be kept in the decoder.
 */
static bool read_mark(z_stream *zs, Error **errp)
{
    uint8_t more;
    int ret;

    do {
        zs->next_out = &more;
        zs->avail_out = 1;
        ret = inflate(zs, Z_SYNC_FLUSH);
        if (!zs->avail_out) {
            error_setg(errp, "A packet holds more than its pages");
            return false;
        }
    } while (zs->avail_in && ret == Z_OK);
    return ret == Z_OK || ret == Z_BUF_ERROR ||
           zlib_failed("decompress", ret, errp);
}

static bool zlib_decode(void *opaque, const uint8_t *in, size_t len,
                        const struct iovec *runs, unsigned n, Error **errp)
{
    z_stream *zs = opaque;

    zs->next_in = (Bytef *)in;
    zs->avail_in = len;
    for (; n; runs++, n--) {
        zs->next_out = runs->iov_base;
        zs->avail_out = runs->iov_len;
        while (zs->avail_out) {
            int ret = inflate(zs, Z_SYNC_FLUSH);

            if (ret != Z_OK && ret != Z_BUF_ERROR) {
                return zlib_failed("decompress", ret, errp);
            }
            if (zs->avail_out && !zs->avail_in) {
                error_setg(errp, "A packet holds less than its pages");
                return false;
            }
        }
    }
    return read_mark(zs, errp);
}

const Codec codec_zlib = {
    .flag = WIRE_MULTIFD_ZLIB,
    .name = "zlib",
    .encoder_new = zlib_encoder_new,
    .encoder_free = zlib_encoder_free,
    .encoder_level = zlib_encoder_level,
    .encode = zlib_encode,
    .decoder_new = zlib_decoder_new,
    .decoder_free = zlib_decoder_free,
    .decode = zlib_decode,
};
