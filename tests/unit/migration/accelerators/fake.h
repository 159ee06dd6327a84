/*
 * Accelerators for compression that do not exist, for tests
 *
 * fake-qpl.c, fake-uadk.c and fake-qatzip.c have the functions of these
 * libraries that migration calls.  zlib does the work, so the formats are the
 * real ones.  They need nothing of QEMU, and may be shared libraries.
 *
 * What is used wrongly ends the program: a job that is freed while the device
 * has it, a session that outlives its library, flags that are missing.
 *
 * In a program that is linked to shared ones, the environment says the same as
 * the functions below:
 *
 *   ACCELERATOR_FAIL=NAME:N    the N-th call of NAME fails, counted from 1
 *   ACCELERATOR_DEVICE=0       there is no device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FAKE_ACCELERATOR_H
#define FAKE_ACCELERATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The @n-th call of @name from now on fails; with @name NULL, of any function
 * that can.  0: none does.
 */
void accelerator_fail(const char *name, unsigned n);

/* Whether one is still to fail */
bool accelerator_fail_left(void);

/* Whether there are devices, for what is begun from now on */
void accelerator_device(bool there);

/* The queue of the device takes so many jobs at once. */
void accelerator_queue(unsigned jobs);

/* Jobs, sessions and memory that have not been freed */
unsigned accelerator_objects(void);

/* Pages or packets that were compressed or decompressed by a device */
unsigned accelerator_device_work(void);

/*
 * For the libraries
 */

bool accelerator_fails(const char *name);
bool accelerator_has_device(void);
unsigned accelerator_queue_size(void);
void accelerator_made(int objects);
void accelerator_worked(void);

typedef enum { FORMAT_RAW = -15, FORMAT_ZLIB = 15, FORMAT_GZIP = 31 } Format;

/*
 * @len bytes at @in to at most *@room at @out, which becomes how many; returns
 * Z_OK, Z_BUF_ERROR for what needs more room, or Z_DATA_ERROR.  *@used, if it
 * is not NULL, is how many were read.
 */
int accelerator_compress(Format format, int level, const uint8_t *in,
                         size_t len, uint8_t *out, uint32_t *room);
int accelerator_decompress(Format format, const uint8_t *in, size_t len,
                           uint8_t *out, uint32_t *room, size_t *used);

#endif
