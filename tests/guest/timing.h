/*
 * How long accesses to memory take, and how many are made.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A vCPU that has to wait for a page does so within one access, and the
 * clock of the guest runs on meanwhile.  So the guest itself sees what a
 * fault costs it, queueing for a CPU of the host included.
 *
 * Whoever looks from outside gets a byte on the fourth UART for every
 * TIMING_STEP accesses, which counts them modulo 256.
 */
#ifndef FERRY_GUEST_TIMING_H
#define FERRY_GUEST_TIMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TIMING_STEP 16
#define TIMING_PARTS 8          /* buckets to each power of two */
#define TIMING_BUCKETS (40 * TIMING_PARTS)

/* The bucket that @ns belongs to, and the least value in bucket @index. */
unsigned timing_bucket(uint64_t ns);
uint64_t timing_floor(unsigned index);

/* The calling thread is the one that accesses; false: it may not. */
bool timing_start(void);

/* Time one access to the page that @word is in.  Thread: the accessing. */
void timing_access(const uint64_t *word);

/*
 * Write "COUNT FLOOR:N FLOOR:N ..." into @text: the number of accesses since
 * the start, and how many took FLOOR ns or more (and less than the next
 * bucket's), beginning with bucket *@next.  Any thread.
 * Returns false if there was no room for all: *@next is where to go on.
 */
bool timing_tell(char *text, size_t size, unsigned *next);

#endif
