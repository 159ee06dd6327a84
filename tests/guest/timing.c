/*
 * How long accesses to memory take, and how many are made.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/io.h>
#include <time.h>

#include "timing.h"

#define PORT 0x2e8
enum { DATA = 0, IER = 1, FCR = 2, LCR = 3, MCR = 4, LSR = 5 };

static _Atomic uint64_t buckets[TIMING_BUCKETS];
static _Atomic uint64_t accesses;
static uint8_t sequence;

unsigned timing_bucket(uint64_t ns)
{
    unsigned power, index;

    if (ns < TIMING_PARTS) {
        return ns;
    }
    power = 63 - __builtin_clzll(ns) - 3;
    index = (power + 1) * TIMING_PARTS + ((ns >> power) & (TIMING_PARTS - 1));
    return index < TIMING_BUCKETS ? index : TIMING_BUCKETS - 1;
}

uint64_t timing_floor(unsigned index)
{
    unsigned power = index / TIMING_PARTS, part = index % TIMING_PARTS;

    return power ? (uint64_t)(TIMING_PARTS + part) << (power - 1) : part;
}

bool timing_start(void)
{
    if (ioperm(PORT, 8, 1)) {
        return false;
    }
    outb(0, PORT + IER);
    outb(0, PORT + FCR);
    outb(0x03, PORT + LCR);     /* eight bits, no parity */
    outb(0x03, PORT + MCR);
    return true;
}

static uint64_t clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

/* A byte that finds the UART busy is left out; the count goes on. */
static void tell_outside(void)
{
    uint8_t byte = sequence++;

    if (inb(PORT + LSR) & 0x20) {
        outb(byte, PORT + DATA);
    }
}

void timing_access(const uint64_t *word)
{
    uint64_t begin = clock_ns(), end;

    (void)*(const volatile uint64_t *)word;
    end = clock_ns();
    buckets[timing_bucket(end > begin ? end - begin : 0)]++;
    if (++accesses % TIMING_STEP == 0) {
        tell_outside();
    }
}

bool timing_tell(char *text, size_t size, unsigned *next)
{
    size_t used = snprintf(text, size, "%" PRIu64, (uint64_t)accesses);

    for (; *next < TIMING_BUCKETS; (*next)++) {
        uint64_t count = buckets[*next];
        char one[48];
        size_t length;

        if (!count) {
            continue;
        }
        length = snprintf(one, sizeof(one), " %" PRIu64 ":%" PRIu64,
                          timing_floor(*next), count);
        if (used + length >= size) {
            return false;
        }
        snprintf(text + used, size - used, "%s", one);
        used += length;
    }
    return true;
}
