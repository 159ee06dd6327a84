/*
 * What a guest does in the tests of both sides
 *
 * The guest is a sequence of steps.  Step n reads eight bytes of memory and
 * writes what follows from them and from n.  So the number of steps that a
 * guest has done says what all of its memory has to hold, whoever did them; and
 * a page that was lost, or came from another moment, shows.
 *
 * All of it is pure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_FAKE_GUEST_H
#define TEST_FAKE_GUEST_H

#define GUEST_PAGE_BITS 12
#define GUEST_PAGE_SIZE (1ul << GUEST_PAGE_BITS)

/* Two RAM blocks, one after the other */
#define GUEST_RAM_PAGES 2048
#define GUEST_ROM_PAGES 64
#define GUEST_PAGES (GUEST_RAM_PAGES + GUEST_ROM_PAGES)
#define GUEST_BYTES (GUEST_PAGES * GUEST_PAGE_SIZE)

/* The guest begins with content in so many pages; others are zero. */
#define GUEST_FILLED_PAGES 1200
/* Pages that almost all steps are about */
#define GUEST_HOT_PAGES 48
/* A word of memory that no step is about: a device writes to it. */
#define GUEST_DEVICE_WORD ((GUEST_RAM_PAGES + 5) * GUEST_PAGE_SIZE + 64)

/* Writes to all of @memory, or what @memory needs to begin with. */
void guest_fill(uint8_t *memory);

/* The offset that step @n reads and writes, and what it makes of @value. */
size_t guest_step_offset(uint64_t n);
uint64_t guest_step_value(uint64_t n, uint64_t value);

/* All that @steps steps do to memory that guest_fill() has written. */
void guest_replay(uint8_t *memory, uint64_t steps);

#endif
