/*
 * Pages in the format of zlib, each by itself, by a device of UADK
 *
 * The library does nothing on the CPU.  So what the device does not compress is
 * sent as it is, and what it does not decompress zlib does: pages that were
 * compressed arrive also where there is no device.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include <zlib.h>
#include <uadk/wd_comp.h>
#include <uadk/wd_sched.h>
#include "migration/wire/wire.h"
#include "codec.h"
#include "codec-pages.h"

typedef struct UadkCoder {
    enum wd_comp_op_type op;
    CodecPages pages;
    handle_t session;           /* 0: there is no device */
} UadkCoder;

/*
 * The library is initialised once for all sessions of the process, and has to
 * outlive them.  The lock is held for that alone; channels of both directions
 * come and go in threads of their own.
 */
static struct {
    QemuMutex lock;
    unsigned users;
} library;

static void __attribute__((constructor)) uadk_init_lock(void)
{
    qemu_mutex_init(&library.lock);
}

static bool library_get(void)
{
    char format[] = "zlib";
    int ret;

    QEMU_LOCK_GUARD(&library.lock);
    if (!library.users) {
        ret = wd_comp_init2(format, SCHED_POLICY_RR, TASK_HW);
        if (ret && ret != -WD_EEXIST) {
            return false;
        }
    }
    library.users++;
    return true;
}

static void library_put(void)
{
    QEMU_LOCK_GUARD(&library.lock);
    if (!--library.users) {
        wd_comp_uninit2();
    }
}

static handle_t session_new(enum wd_comp_op_type op)
{
    struct sched_params turns = { .type = op };
    struct wd_comp_sess_setup setup = {
        .alg_type = WD_ZLIB, .op_type = op, .sched_param = &turns,
    };
    handle_t session;

    if (!library_get()) {
        return 0;
    }
    session = wd_comp_alloc_sess(&setup);
    if (!session) {
        library_put();
    }
    return session;
}

/* False if the device has not done it. */
static bool device_does(const UadkCoder *c, void *from, uint32_t len, void *to,
                        uint32_t room, uint32_t *done)
{
    struct wd_comp_req request = {
        .op_type = c->op, .src = from, .src_len = len, .dst = to,
        .dst_len = room,
    };

    if (!c->session || wd_do_comp_sync(c->session, &request) ||
        request.status) {
        return false;
    }
    *done = request.dst_len;
    return true;
}

static void uadk_coder_free(void *opaque)
{
    UadkCoder *c = opaque;

    if (c->session) {
        wd_comp_free_sess(c->session);
        library_put();
    }
    codec_pages_destroy(&c->pages);
    g_free(c);
}

static UadkCoder *uadk_coder_new(enum wd_comp_op_type op, size_t page,
                                 size_t room)
{
    UadkCoder *c = g_new0(UadkCoder, 1);

    c->op = op;
    codec_pages_init(&c->pages, page, room);
    c->session = session_new(op);
    return c;
}

/* Devices need room for what they write before it turns out to be too long. */
static void *uadk_encoder_new(int level, size_t page, Error **errp)
{
    UadkCoder *c = uadk_coder_new(WD_DIR_COMPRESS, page, 2 * page);

    if (!c->session) {
        warn_report_once("multifd: there is no device of UADK, so nothing is "
                         "compressed");
    }
    return c;
}

/* It is the device's. */
static void uadk_encoder_level(void *opaque, int level)
{
}

static ssize_t uadk_encode(void *opaque, const struct iovec *runs, unsigned n,
                           uint8_t *out, size_t room, Error **errp)
{
    UadkCoder *c = opaque;
    uint32_t len;

    codec_pages_take(&c->pages, runs, n);
    for (unsigned i = 0; i < c->pages.count; i++) {
        CodecPage *page = &c->pages.pages[i];

        if (device_does(c, page->memory, c->pages.size, page->encoded,
                        c->pages.room, &len)) {
            codec_pages_packed(&c->pages, page, len);
        }
    }
    return codec_pages_put(&c->pages, out, room, errp);
}

static void *uadk_decoder_new(size_t page, Error **errp)
{
    return uadk_coder_new(WD_DIR_DECOMPRESS, page, 0);
}

static bool inflate_page(const UadkCoder *c, const CodecPage *page,
                         uint32_t *len, Error **errp)
{
    uLongf out = c->pages.size;
    int ret = uncompress(page->memory, &out, page->encoded, page->len);

    *len = out;
    if (ret != Z_OK) {
        error_setg(errp, "A compressed page cannot be decompressed: %s",
                   ret == Z_BUF_ERROR ? "it holds more than a page"
                                      : zError(ret));
        return false;
    }
    return true;
}

static bool uadk_decode_page(const UadkCoder *c, const CodecPage *page,
                             Error **errp)
{
    uint32_t len;

    return (device_does(c, page->encoded, page->len, page->memory,
                        c->pages.size, &len) ||
            inflate_page(c, page, &len, errp)) &&
           codec_pages_check(&c->pages, page, len, errp);
}

static bool uadk_decode(void *opaque, const uint8_t *in, size_t len,
                        const struct iovec *runs, unsigned n, Error **errp)
{
    UadkCoder *c = opaque;

    if (!codec_pages_parse(&c->pages, in, len, runs, n, errp)) {
        return false;
    }
    for (unsigned i = 0; i < c->pages.count; i++) {
        if (c->pages.pages[i].packed &&
            !uadk_decode_page(c, &c->pages.pages[i], errp)) {
            return false;
        }
    }
    return true;
}

const Codec codec_uadk = {
    .flag = WIRE_MULTIFD_UADK,
    .name = "uadk",
    .encoder_new = uadk_encoder_new,
    .encoder_free = uadk_coder_free,
    .encoder_level = uadk_encoder_level,
    .encode = uadk_encode,
    .decoder_new = uadk_decoder_new,
    .decoder_free = uadk_coder_free,
    .decode = uadk_decode,
};
