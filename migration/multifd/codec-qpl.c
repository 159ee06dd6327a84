/*
 * Pages in raw deflate format, by an In-Memory Analytics Accelerator (QPL)
 *
 * Jobs for all pages of a packet are given to the device before the first one
 * is waited for.  What the device does not do, or does not take because its
 * queue is full, the library does on the CPU; where there is no device, it does
 * everything.  Both write the same format.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include <qpl/qpl.h>
#include "migration/wire/wire.h"
#include "codec.h"
#include "codec-pages.h"

/* How often a job is given to a device whose queue is full */
#define SUBMITS 4

typedef struct QplCoder {
    qpl_operation op;
    CodecPages pages;
    qpl_job *software;
    qpl_job **hardware;         /* one a page of a packet; NULL: no device */
    bool *submitted;            /* the device has the page's job */
} QplCoder;

/*
 * Jobs
 */

static qpl_job *job_new(qpl_path_t path, qpl_status *status)
{
    uint32_t size = 0;
    qpl_job *job;

    *status = qpl_get_job_size(path, &size);
    if (*status != QPL_STS_OK) {
        return NULL;
    }
    job = g_malloc0(MAX(size, sizeof(*job)));
    *status = qpl_init_job(path, job);
    if (*status != QPL_STS_OK) {
        g_clear_pointer(&job, g_free);
    }
    return job;
}

static void job_free(qpl_job *job)
{
    if (job) {
        qpl_fini_job(job);
        g_free(job);
    }
}

static void free_hardware_jobs(QplCoder *c)
{
    for (unsigned i = 0; c->hardware && i < c->pages.max; i++) {
        job_free(c->hardware[i]);
    }
    g_clear_pointer(&c->hardware, g_free);
}

/* Without all that are needed the device is not used. */
static void make_hardware_jobs(QplCoder *c)
{
    qpl_status status;

    c->hardware = g_new0(qpl_job *, c->pages.max);
    for (unsigned i = 0; i < c->pages.max; i++) {
        c->hardware[i] = job_new(qpl_path_hardware, &status);
        if (!c->hardware[i]) {
            free_hardware_jobs(c);
            return;
        }
    }
}

/* A compressed page that is no shorter than the page is of no use. */
static void job_set(const QplCoder *c, qpl_job *job, const CodecPage *page)
{
    bool compress = c->op == qpl_op_compress;

    job->op = c->op;
    job->next_in_ptr = compress ? page->memory : page->encoded;
    job->available_in = page->len;
    job->next_out_ptr = compress ? page->encoded : page->memory;
    job->available_out = compress ? c->pages.size - 1 : c->pages.size;
    job->total_in = job->total_out = 0;
    job->flags = QPL_FLAG_FIRST | QPL_FLAG_LAST | QPL_FLAG_OMIT_VERIFY;
    job->level = qpl_level_1;
}

static bool job_submit(const QplCoder *c, qpl_job *job, const CodecPage *page)
{
    qpl_status status = QPL_STS_QUEUES_ARE_BUSY_ERR;

    for (unsigned i = 0;
         i < SUBMITS && status == QPL_STS_QUEUES_ARE_BUSY_ERR; i++) {
        job_set(c, job, page);
        status = qpl_submit_job(job);
    }
    return status == QPL_STS_OK;
}

static qpl_status job_execute(const QplCoder *c, const CodecPage *page)
{
    job_set(c, c->software, page);
    return qpl_execute_job(c->software);
}

/* Gives the pages to the device, as far as it takes them. */
static void submit_all(QplCoder *c, bool packed)
{
    for (unsigned i = 0; i < c->pages.count; i++) {
        const CodecPage *page = &c->pages.pages[i];

        c->submitted[i] = c->hardware && page->packed == packed &&
                          job_submit(c, c->hardware[i], page);
    }
}

/*
 * The job of page @i, done by the device if it has it, or else here; NULL if
 * neither could do it, and @status is why.
 */
static const qpl_job *finish(QplCoder *c, unsigned i, qpl_status *status)
{
    if (c->submitted[i]) {
        c->submitted[i] = false;
        if (qpl_wait_job(c->hardware[i]) == QPL_STS_OK) {
            return c->hardware[i];
        }
    }
    *status = job_execute(c, &c->pages.pages[i]);
    return *status == QPL_STS_OK ? c->software : NULL;
}

/* The device reads and writes memory as long as it has jobs. */
static void wait_for_device(QplCoder *c)
{
    for (unsigned i = 0; i < c->pages.count; i++) {
        if (c->submitted[i]) {
            qpl_wait_job(c->hardware[i]);
            c->submitted[i] = false;
        }
    }
}

/*
 * Codec
 */

static void qpl_coder_free(void *opaque)
{
    QplCoder *c = opaque;

    job_free(c->software);
    free_hardware_jobs(c);
    g_free(c->submitted);
    codec_pages_destroy(&c->pages);
    g_free(c);
}

static void *qpl_coder_new(qpl_operation op, size_t page, size_t room,
                           Error **errp)
{
    QplCoder *c = g_new0(QplCoder, 1);
    qpl_status status;

    c->op = op;
    codec_pages_init(&c->pages, page, room);
    c->submitted = g_new0(bool, c->pages.max);
    c->software = job_new(qpl_path_software, &status);
    if (!c->software) {
        error_setg(errp, "QPL cannot be started: status %d", (int)status);
        qpl_coder_free(c);
        return NULL;
    }
    make_hardware_jobs(c);
    return c;
}

/* There is one level that both the device and the CPU have. */
static void *qpl_encoder_new(int level, size_t page, Error **errp)
{
    return qpl_coder_new(qpl_op_compress, page, page, errp);
}

static void qpl_encoder_level(void *opaque, int level)
{
}

static ssize_t qpl_encode(void *opaque, const struct iovec *runs, unsigned n,
                          uint8_t *out, size_t room, Error **errp)
{
    QplCoder *c = opaque;
    qpl_status status;

    codec_pages_take(&c->pages, runs, n);
    submit_all(c, false);
    for (unsigned i = 0; i < c->pages.count; i++) {
        const qpl_job *done = finish(c, i, &status);

        if (done) {
            codec_pages_packed(&c->pages, &c->pages.pages[i], done->total_out);
        }
    }
    return codec_pages_put(&c->pages, out, room, errp);
}

static void *qpl_decoder_new(size_t page, Error **errp)
{
    return qpl_coder_new(qpl_op_decompress, page, 0, errp);
}

static bool qpl_decode_page(QplCoder *c, unsigned i, Error **errp)
{
    qpl_status status;
    const qpl_job *done = finish(c, i, &status);

    if (!done) {
        error_setg(errp, "QPL cannot decompress a page: status %d",
                   (int)status);
        return false;
    }
    return codec_pages_check(&c->pages, &c->pages.pages[i], done->total_out,
                             errp);
}

static bool qpl_decode(void *opaque, const uint8_t *in, size_t len,
                       const struct iovec *runs, unsigned n, Error **errp)
{
    QplCoder *c = opaque;
    bool ok = codec_pages_parse(&c->pages, in, len, runs, n, errp);

    if (!ok) {
        return false;
    }
    submit_all(c, true);
    for (unsigned i = 0; ok && i < c->pages.count; i++) {
        ok = !c->pages.pages[i].packed || qpl_decode_page(c, i, errp);
    }
    wait_for_device(c);
    return ok;
}

const Codec codec_qpl = {
    .flag = WIRE_MULTIFD_QPL,
    .name = "qpl",
    .encoder_new = qpl_encoder_new,
    .encoder_free = qpl_coder_free,
    .encoder_level = qpl_encoder_level,
    .encode = qpl_encode,
    .decoder_new = qpl_decoder_new,
    .decoder_free = qpl_coder_free,
    .decode = qpl_decode,
};
