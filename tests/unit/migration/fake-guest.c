/*
 * What a guest does in the tests of both sides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "fake-guest.h"

/* One step in so many is about any page there is. */
#define RARELY 16

/* Spreads bits, so that neighbours have nothing in common. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
    return x ^ (x >> 32);
}

void guest_fill(uint8_t *memory)
{
    uint64_t *words = (uint64_t *)memory;

    for (size_t i = 0; i < GUEST_FILLED_PAGES * GUEST_PAGE_SIZE / 8; i++) {
        words[i] = mix(i + 1);
    }
}

size_t guest_step_offset(uint64_t n)
{
    uint64_t random = mix(n ^ 0x5eed);
    size_t pages = n % RARELY ? GUEST_HOT_PAGES : GUEST_RAM_PAGES;

    return (random % pages) * GUEST_PAGE_SIZE +
           (random >> 32) % (GUEST_PAGE_SIZE / 8) * 8;
}

uint64_t guest_step_value(uint64_t n, uint64_t value)
{
    return value * 0x2545f4914f6cdd1dull + n + 1;
}

void guest_replay(uint8_t *memory, uint64_t steps)
{
    for (uint64_t n = 0; n < steps; n++) {
        uint64_t *at = (uint64_t *)(memory + guest_step_offset(n));

        *at = guest_step_value(n, *at);
    }
}
