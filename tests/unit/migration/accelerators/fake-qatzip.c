/*
 * QATzip without a device, see fake.h
 *
 * Packets consist of several members of gzip, as those of a device do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <qatzip.h>
#include "fake.h"

/* Of memory in a member */
#define MEMBER (64 * 1024)

typedef struct Session {
    unsigned level;
    bool device;
} Session;

int qzInit(QzSession_T *session, unsigned char sw_backup)
{
    assert(sw_backup);
    if (accelerator_fails("qzInit")) {
        return QZ_FAIL;
    }
    return accelerator_has_device() ? QZ_OK : QZ_NO_HW;
}

int qzGetDefaultsDeflate(QzSessionParamsDeflate_T *params)
{
    if (accelerator_fails("qzGetDefaultsDeflate")) {
        return QZ_PARAMS;
    }
    *params = (QzSessionParamsDeflate_T) {
        .common_params.comp_lvl = 1, .data_fmt = QZ_DEFLATE_GZIP_EXT,
    };
    return QZ_OK;
}

int qzSetupSessionDeflate(QzSession_T *session,
                          QzSessionParamsDeflate_T *params)
{
    Session *s;

    assert(!session->internal && params->data_fmt == QZ_DEFLATE_GZIP_EXT);
    if (accelerator_fails("qzSetupSessionDeflate")) {
        return QZ_FAIL;
    }
    s = calloc(1, sizeof(*s));
    s->level = params->common_params.comp_lvl;
    s->device = accelerator_has_device();
    session->internal = s;
    accelerator_made(1);
    return s->device ? QZ_OK : QZ_NO_HW;
}

int qzTeardownSession(QzSession_T *session)
{
    assert(session->internal);
    free(session->internal);
    session->internal = NULL;
    accelerator_made(-1);
    return QZ_OK;
}

int qzClose(QzSession_T *session)
{
    assert(!session->internal);
    return QZ_OK;
}

unsigned int qzMaxCompressedLength(unsigned int len, QzSession_T *session)
{
    assert(session->internal);
    return len + len / 8 + 4096;
}

void *qzMalloc(size_t size, int numa, int pinned)
{
    if ((pinned == PINNED_MEM && !accelerator_has_device()) ||
        accelerator_fails(pinned == PINNED_MEM ? "qzMalloc pinned"
                                               : "qzMalloc")) {
        return NULL;
    }
    accelerator_made(1);
    return malloc(size);
}

void qzFree(void *memory)
{
    assert(memory);
    accelerator_made(-1);
    free(memory);
}

static void count_work(const QzSession_T *session)
{
    const Session *s = session->internal;

    if (s->device) {
        accelerator_worked();
    }
}

int qzCompress(QzSession_T *session, const unsigned char *in,
               unsigned int *in_len, unsigned char *out, unsigned int *out_len,
               unsigned int last)
{
    const Session *s = session->internal;
    unsigned int done = 0;

    assert(last);
    if (accelerator_fails("qzCompress")) {
        return QZ_FAIL;
    }
    if (accelerator_fails("qzCompress short")) {
        *in_len /= 2;
    }
    for (unsigned int at = 0, len; at < *in_len; at += len) {
        uint32_t room = *out_len - done;

        len = *in_len - at < MEMBER ? *in_len - at : MEMBER;
        if (accelerator_compress(FORMAT_GZIP, s->level, in + at, len,
                                 out + done, &room) != Z_OK) {
            return QZ_BUF_ERROR;
        }
        done += room;
    }
    *out_len = done;
    count_work(session);
    return QZ_OK;
}

int qzDecompress(QzSession_T *session, const unsigned char *in,
                 unsigned int *in_len, unsigned char *out,
                 unsigned int *out_len)
{
    unsigned int done = 0;
    size_t used;

    if (accelerator_fails("qzDecompress")) {
        return QZ_FAIL;
    }
    for (unsigned int at = 0; at < *in_len; at += used) {
        uint32_t room = *out_len - done;
        int ret = accelerator_decompress(FORMAT_GZIP, in + at, *in_len - at,
                                         out + done, &room, &used);

        if (ret != Z_OK) {
            return ret == Z_BUF_ERROR ? QZ_BUF_ERROR : QZ_DATA_ERROR;
        }
        done += room;
    }
    *out_len = done;
    count_work(session);
    return QZ_OK;
}
