/*
 * Accelerators for compression that do not exist, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "fake.h"

static pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    const char *fail_name;
    unsigned fail_in;
    unsigned no_device;
    unsigned queue;
    unsigned objects, device_work;
} state = { .queue = 1000 };

static void __attribute__((constructor)) read_environment(void)
{
    static char name[64];
    const char *fail = getenv("ACCELERATOR_FAIL");
    const char *device = getenv("ACCELERATOR_DEVICE");

    if (fail && sscanf(fail, "%63[^:]:%u", name, &state.fail_in) == 2) {
        state.fail_name = name;
    }
    state.no_device = device && !atoi(device);
}

void accelerator_fail(const char *name, unsigned n)
{
    pthread_mutex_lock(&state_lock);
    state.fail_name = name;
    state.fail_in = n;
    pthread_mutex_unlock(&state_lock);
}

bool accelerator_fails(const char *name)
{
    bool now = false;

    pthread_mutex_lock(&state_lock);
    if (state.fail_in && (!state.fail_name || !strcmp(state.fail_name, name))) {
        now = --state.fail_in == 0;
    }
    pthread_mutex_unlock(&state_lock);
    return now;
}

static unsigned read_number(const unsigned *number)
{
    unsigned value;

    pthread_mutex_lock(&state_lock);
    value = *number;
    pthread_mutex_unlock(&state_lock);
    return value;
}

static void write_number(unsigned *number, unsigned value)
{
    pthread_mutex_lock(&state_lock);
    *number = value;
    pthread_mutex_unlock(&state_lock);
}

static void add_number(unsigned *number, int more)
{
    pthread_mutex_lock(&state_lock);
    *number += more;
    pthread_mutex_unlock(&state_lock);
}

bool accelerator_fail_left(void)
{
    return read_number(&state.fail_in);
}

void accelerator_device(bool there)
{
    write_number(&state.no_device, !there);
}

bool accelerator_has_device(void)
{
    return !read_number(&state.no_device);
}

void accelerator_queue(unsigned jobs)
{
    write_number(&state.queue, jobs);
}

unsigned accelerator_queue_size(void)
{
    return read_number(&state.queue);
}

void accelerator_made(int objects)
{
    add_number(&state.objects, objects);
}

unsigned accelerator_objects(void)
{
    return read_number(&state.objects);
}

void accelerator_worked(void)
{
    add_number(&state.device_work, 1);
}

unsigned accelerator_device_work(void)
{
    return read_number(&state.device_work);
}

/*
 * Formats
 */

int accelerator_compress(Format format, int level, const uint8_t *in,
                         size_t len, uint8_t *out, uint32_t *room)
{
    z_stream zs = {
        .next_in = (Bytef *)in, .avail_in = len,
        .next_out = out, .avail_out = *room,
    };
    int ret = deflateInit2(&zs, level, Z_DEFLATED, format, 8,
                           Z_DEFAULT_STRATEGY);

    if (ret == Z_OK) {
        ret = deflate(&zs, Z_FINISH);
        *room -= zs.avail_out;
        deflateEnd(&zs);
        ret = ret == Z_STREAM_END ? Z_OK : Z_BUF_ERROR;
    }
    return ret;
}

int accelerator_decompress(Format format, const uint8_t *in, size_t len,
                           uint8_t *out, uint32_t *room, size_t *used)
{
    z_stream zs = {
        .next_in = (Bytef *)in, .avail_in = len,
        .next_out = out, .avail_out = *room,
    };
    int ret = inflateInit2(&zs, format);

    if (ret == Z_OK) {
        ret = inflate(&zs, Z_FINISH);
        *room -= zs.avail_out;
        if (used) {
            *used = len - zs.avail_in;
        }
        ret = ret == Z_STREAM_END ? Z_OK
              : ret == Z_BUF_ERROR && !zs.avail_out ? Z_BUF_ERROR
              : Z_DATA_ERROR;
        inflateEnd(&zs);
    }
    return ret;
}
