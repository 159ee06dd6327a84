/*
 * Packets in the format of gzip, by QuickAssist (QATzip)
 *
 * All pages of a packet are compressed at once, in whichever members of gzip
 * the library makes of them.  Where there is no device, or it is busy, the
 * library does it on the CPU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/iov.h"
#include <qatzip.h>
#include "migration/wire/wire.h"
#include "codec.h"

/* On the CPU if there is no device */
#define WITH_SOFTWARE 1

typedef struct QatBuffer {
    uint8_t *bytes;
    unsigned int size;
} QatBuffer;

/* One for each direction of each channel */
typedef struct QatCoder {
    QzSession_T session;
    bool begun;
    int level, wanted;          /* -1: the library's own */
    QatBuffer from, to;
} QatCoder;

static bool qat_failed(const char *what, int ret, Error **errp)
{
    error_setg(errp, "QATzip cannot %s: status %d", what, ret);
    return false;
}

/* What is positive says why it will be done on the CPU. */
static bool works(int ret)
{
    return ret >= 0;
}

/* The library copies what is not in memory that the device can reach. */
static bool buffer_init(QatBuffer *b, size_t size, Error **errp)
{
    b->size = size;
    b->bytes = qzMalloc(size, 0, PINNED_MEM) ?: qzMalloc(size, 0, COMMON_MEM);
    if (!b->bytes) {
        error_setg(errp, "There is no memory for QATzip: %zu bytes", size);
    }
    return b->bytes;
}

static void buffer_destroy(QatBuffer *b)
{
    if (b->bytes) {
        qzFree(b->bytes);
    }
}

static bool set_up(QatCoder *c, Error **errp)
{
    QzSessionParamsDeflate_T params;
    int ret = qzGetDefaultsDeflate(&params);

    if (!works(ret)) {
        return qat_failed("tell its settings", ret, errp);
    }
    if (c->wanted >= 0) {
        params.common_params.comp_lvl = c->wanted;
    }
    ret = qzSetupSessionDeflate(&c->session, &params);
    if (!works(ret)) {
        return qat_failed("set up a session", ret, errp);
    }
    c->begun = true;
    c->level = c->wanted;
    return true;
}

/* Ends what set_up() has begun. */
static void tear_down(QatCoder *c)
{
    if (c->begun) {
        qzTeardownSession(&c->session);
        c->begun = false;
    }
}

static void qat_coder_free(void *opaque)
{
    QatCoder *c = opaque;

    buffer_destroy(&c->from);
    buffer_destroy(&c->to);
    tear_down(c);
    qzClose(&c->session);
    g_free(c);
}

static QatCoder *qat_coder_new(int level, Error **errp)
{
    QatCoder *c = g_new0(QatCoder, 1);
    int ret = qzInit(&c->session, WITH_SOFTWARE);

    c->wanted = level;
    if (!works(ret)) {
        qat_failed("be started", ret, errp);
        g_clear_pointer(&c, g_free);
    } else if (!set_up(c, errp)) {
        qat_coder_free(g_steal_pointer(&c));
    }
    return c;
}

static void *qat_encoder_new(int level, size_t page, Error **errp)
{
    QatCoder *c = qat_coder_new(level, errp);
    size_t most;

    if (!c) {
        return NULL;
    }
    most = qzMaxCompressedLength(WIRE_MULTIFD_PACKET_MEMORY, &c->session);
    if (!buffer_init(&c->from, WIRE_MULTIFD_PACKET_MEMORY, errp) ||
        !buffer_init(&c->to, most, errp)) {
        qat_coder_free(g_steal_pointer(&c));
    }
    return c;
}

static void qat_encoder_level(void *opaque, int level)
{
    QatCoder *c = opaque;

    c->wanted = level;
}

/* A session has one level, and nothing is kept in it between packets. */
static bool begin_level(QatCoder *c, Error **errp)
{
    if (c->begun && c->level == c->wanted) {
        return true;
    }
    tear_down(c);
    return set_up(c, errp);
}

static ssize_t qat_encode(void *opaque, const struct iovec *runs, unsigned n,
                          uint8_t *out, size_t room, Error **errp)
{
    QatCoder *c = opaque;
    unsigned int in_len = iov_size(runs, n), out_len = c->to.size, all = in_len;
    int ret;

    assert(in_len <= c->from.size);
    if (!begin_level(c, errp)) {
        return -1;
    }
    iov_to_buf(runs, n, 0, c->from.bytes, in_len);
    ret = qzCompress(&c->session, c->from.bytes, &in_len, c->to.bytes, &out_len,
                     1);
    if (ret != QZ_OK) {
        qat_failed("compress", ret, errp);
        return -1;
    }
    if (in_len != all) {
        error_setg(errp, "QATzip has compressed %u of %u bytes", in_len, all);
        return -1;
    }
    if (out_len > room) {
        error_setg(errp, "QATzip needs %u bytes for the pages of a packet, and "
                   "there is room for %zu", out_len, room);
        return -1;
    }
    memcpy(out, c->to.bytes, out_len);
    return out_len;
}

/* A packet that holds more than its pages, whatever that is, does not fit. */
static void *qat_decoder_new(size_t page, Error **errp)
{
    QatCoder *c = qat_coder_new(-1, errp);

    if (c && (!buffer_init(&c->from, WIRE_MULTIFD_PAYLOAD_MAX, errp) ||
              !buffer_init(&c->to, WIRE_MULTIFD_PACKET_MEMORY + page, errp))) {
        qat_coder_free(g_steal_pointer(&c));
    }
    return c;
}

static bool qat_decode(void *opaque, const uint8_t *in, size_t len,
                       const struct iovec *runs, unsigned n, Error **errp)
{
    QatCoder *c = opaque;
    size_t all = iov_size(runs, n);
    unsigned int in_len = len, out_len = c->to.size;
    int ret;

    assert(len <= c->from.size);
    if (!len) {
        error_setg(errp, "A packet with pages has no payload");
        return false;
    }
    memcpy(c->from.bytes, in, len);
    ret = qzDecompress(&c->session, c->from.bytes, &in_len, c->to.bytes,
                       &out_len);
    if (ret != QZ_OK) {
        return qat_failed(ret == QZ_BUF_ERROR ? "decompress all of a packet"
                                              : "decompress", ret, errp);
    }
    if (out_len != all) {
        error_setg(errp, "A packet holds %u bytes, and its pages %zu", out_len,
                   all);
        return false;
    }
    iov_from_buf(runs, n, 0, c->to.bytes, all);
    return true;
}

const Codec codec_qatzip = {
    .flag = WIRE_MULTIFD_QATZIP,
    .name = "qatzip",
    .encoder_new = qat_encoder_new,
    .encoder_free = qat_coder_free,
    .encoder_level = qat_encoder_level,
    .encode = qat_encode,
    .decoder_new = qat_decoder_new,
    .decoder_free = qat_coder_free,
    .decode = qat_decode,
};
