/*
 * Pages in the format of Zstandard: one frame a channel, flushed at each packet
 *
 * Another level begins another frame.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include <zstd.h>
#include "migration/wire/wire.h"
#include "codec.h"

/*
 * What a decoder may be told to remember, as an exponent of two: as much as the
 * highest 'multifd-zstd-level' makes an encoder look back.
 */
#define WINDOW_LOG_MAX 25

static bool zstd_failed(const char *what, size_t ret, Error **errp)
{
    error_setg(errp, "Zstandard cannot %s: %s", what, ZSTD_getErrorName(ret));
    return false;
}

typedef struct ZstdEncoder {
    ZSTD_CCtx *frames;
    int level, wanted;
    bool begun;                 /* a frame, at that level */
} ZstdEncoder;

static bool set_level(ZstdEncoder *e, int level, Error **errp)
{
    size_t ret = ZSTD_CCtx_setParameter(e->frames, ZSTD_c_compressionLevel,
                                        level);

    if (ZSTD_isError(ret)) {
        return zstd_failed("set its level", ret, errp);
    }
    e->level = e->wanted = level;
    return true;
}

static void zstd_encoder_free(void *opaque)
{
    ZstdEncoder *e = opaque;

    ZSTD_freeCCtx(e->frames);
    g_free(e);
}

static void *zstd_encoder_new(int level, size_t page, Error **errp)
{
    ZstdEncoder *e = g_new0(ZstdEncoder, 1);

    e->frames = ZSTD_createCCtx();
    if (!e->frames) {
        error_setg(errp, "There is no memory for Zstandard");
        g_free(e);
        return NULL;
    }
    if (!set_level(e, level, errp)) {
        zstd_encoder_free(e);
        return NULL;
    }
    return e;
}

static void zstd_encoder_level(void *opaque, int level)
{
    ZstdEncoder *e = opaque;

    e->wanted = level;
}

/* All of @from; with a directive other than CONTINUE all that was kept, too */
static bool compress(ZstdEncoder *e, ZSTD_outBuffer *to, ZSTD_inBuffer *from,
                     ZSTD_EndDirective how, Error **errp)
{
    size_t left;

    do {
        left = ZSTD_compressStream2(e->frames, to, from, how);
        if (ZSTD_isError(left)) {
            return zstd_failed("compress", left, errp);
        }
        if (to->pos == to->size) {
            error_setg(errp, "Zstandard needs more than %zu bytes for the "
                       "pages of a packet", to->size);
            return false;
        }
    } while (from->pos < from->size || (how != ZSTD_e_continue && left));
    return true;
}

/* A frame has one level: another level begins another frame. */
static bool change_frame(ZstdEncoder *e, ZSTD_outBuffer *to, Error **errp)
{
    ZSTD_inBuffer none = { };

    if (e->level == e->wanted) {
        return true;
    }
    return (!e->begun || compress(e, to, &none, ZSTD_e_end, errp)) &&
           set_level(e, e->wanted, errp);
}

/* What it reads is copied before it is looked at, so it may change. */
static ssize_t zstd_encode(void *opaque, const struct iovec *runs, unsigned n,
                           uint8_t *out, size_t room, Error **errp)
{
    ZSTD_outBuffer to = { .dst = out, .size = room };
    ZstdEncoder *e = opaque;

    if (!change_frame(e, &to, errp)) {
        return -1;
    }
    e->begun = true;
    for (unsigned i = 0; i < n; i++) {
        ZSTD_EndDirective how = i + 1 < n ? ZSTD_e_continue : ZSTD_e_flush;
        ZSTD_inBuffer from = {
            .src = runs[i].iov_base, .size = runs[i].iov_len,
        };

        if (!compress(e, &to, &from, how, errp)) {
            return -1;
        }
    }
    return to.pos;
}

static void *zstd_decoder_new(size_t page, Error **errp)
{
    ZSTD_DCtx *decoder = ZSTD_createDCtx();
    size_t ret;

    if (!decoder) {
        error_setg(errp, "There is no memory for Zstandard");
        return NULL;
    }
    ret = ZSTD_DCtx_setParameter(decoder, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    if (ZSTD_isError(ret)) {
        zstd_failed("be started", ret, errp);
        ZSTD_freeDCtx(decoder);
        return NULL;
    }
    return decoder;
}

static void zstd_decoder_free(void *decoder)
{
    ZSTD_freeDCtx(decoder);
}

static bool holds(const char *what, Error **errp)
{
    error_setg(errp, "A packet holds %s than its pages", what);
    return false;
}

/*
 * Whether nothing more comes out.  What is left to read may be the end of a
 * block, which has no content; what has been read may be kept in the decoder.
 */
static bool is_used_up(ZSTD_DCtx *decoder, ZSTD_inBuffer *from, Error **errp)
{
    uint8_t more;

    for (;;) {
        ZSTD_outBuffer to = { .dst = &more, .size = sizeof(more) };
        size_t before = from->pos;
        size_t ret = ZSTD_decompressStream(decoder, &to, from);

        if (ZSTD_isError(ret)) {
            return zstd_failed("decompress", ret, errp);
        }
        if (!to.pos && from->pos == from->size) {
            return true;
        }
        if (to.pos || from->pos == before) {
            return holds("more", errp);
        }
    }
}

static bool zstd_decode(void *decoder, const uint8_t *in, size_t len,
                        const struct iovec *runs, unsigned n, Error **errp)
{
    ZSTD_inBuffer from = { .src = in, .size = len };

    for (; n; runs++, n--) {
        ZSTD_outBuffer to = { .dst = runs->iov_base, .size = runs->iov_len };

        while (to.pos < to.size) {
            size_t before = to.pos;
            size_t ret = ZSTD_decompressStream(decoder, &to, &from);

            if (ZSTD_isError(ret)) {
                return zstd_failed("decompress", ret, errp);
            }
            if (to.pos == before && from.pos == from.size) {
                return holds("less", errp);
            }
        }
    }
    return is_used_up(decoder, &from, errp);
}

const Codec codec_zstd = {
    .flag = WIRE_MULTIFD_ZSTD,
    .name = "zstd",
    .encoder_new = zstd_encoder_new,
    .encoder_free = zstd_encoder_free,
    .encoder_level = zstd_encoder_level,
    .encode = zstd_encode,
    .decoder_new = zstd_decoder_new,
    .decoder_free = zstd_decoder_free,
    .decode = zstd_decode,
};
