/*
 * The part of QATzip's interface that is used, for tests without that library
 *
 * Names and values are those of QATzip 1.1.2.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FAKE_QATZIP_H
#define FAKE_QATZIP_H

#include <stddef.h>

#define QZ_OK           0
#define QZ_DUPLICATE    1
#define QZ_PARAMS       (-1)
#define QZ_FAIL         (-2)
#define QZ_BUF_ERROR    (-3)
#define QZ_DATA_ERROR   (-4)
#define QZ_NO_HW        11

typedef enum { COMMON_MEM, PINNED_MEM } PinMem_T;

typedef enum {
    QZ_DEFLATE_4B,
    QZ_DEFLATE_GZIP,
    QZ_DEFLATE_GZIP_EXT,
} QzDataFormat_T;

typedef struct {
    unsigned int comp_lvl;
} QzSessionParamsCommon_T;

typedef struct {
    QzSessionParamsCommon_T common_params;
    QzDataFormat_T data_fmt;
} QzSessionParamsDeflate_T;

typedef struct {
    signed long int hw_session_stat;
    void *internal;
} QzSession_T;

int qzInit(QzSession_T *session, unsigned char sw_backup);
int qzGetDefaultsDeflate(QzSessionParamsDeflate_T *params);
int qzSetupSessionDeflate(QzSession_T *session,
                          QzSessionParamsDeflate_T *params);
unsigned int qzMaxCompressedLength(unsigned int len, QzSession_T *session);
void *qzMalloc(size_t size, int numa, int pinned);
void qzFree(void *memory);
int qzCompress(QzSession_T *session, const unsigned char *in,
               unsigned int *in_len, unsigned char *out, unsigned int *out_len,
               unsigned int last);
int qzDecompress(QzSession_T *session, const unsigned char *in,
                 unsigned int *in_len, unsigned char *out,
                 unsigned int *out_len);
int qzTeardownSession(QzSession_T *session);
int qzClose(QzSession_T *session);

#endif
