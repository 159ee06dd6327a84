/*
 * The accounts that the test guest keeps of its own memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A page is a stream of pseudo-random words that depends on its index, so
 * that it is neither zero nor like another.  A write changes one word in
 * every stripe of 256 bytes: enough for any torn mix of two moments to be
 * seen, few enough that a guest under TCG can write fast and that a page
 * differs little from its predecessor, as pages do in practice.  Fewer can
 * be asked for, to see how well small differences are sent.
 */
#include <string.h>
#include <sys/mman.h>

#include "pages.h"

#define STRIPE_WORDS (PAGE_WORDS / PAGE_STRIPES)

/* Scatter the bits of a counter all over a word (a bijection). */
static uint64_t scatter(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ULL;
    x = (x ^ (x >> 29)) * 0xd6e8feb86659fd93ULL;
    return x ^ (x >> 32);
}

/* Which word of each stripe a write changes: it differs between pages. */
static unsigned hot_word(uint64_t index)
{
    return index % STRIPE_WORDS;
}

static uint64_t hot_value(uint64_t seed, uint64_t index, uint32_t seq)
{
    return scatter(scatter(seed ^ index) + seq);
}

/* The words that depend on the sequence number. */
static void put_hot(const Pages *p, uint64_t *page, uint64_t index,
                    uint32_t seq)
{
    uint64_t *word = page + hot_word(index);
    uint64_t value = hot_value(p->seed, index, seq);
    uint64_t count = p->stripes ? p->stripes : PAGE_STRIPES;

    for (uint64_t i = 0; i < count; i++, word += STRIPE_WORDS) {
        *word = value + i;
    }
}

static void compute(const Pages *p, uint64_t *page, uint64_t index,
                    uint32_t seq)
{
    uint64_t x = scatter(scatter(p->seed) + index);

    for (unsigned i = 0; i < PAGE_WORDS; i++) {
        x = x * 0x5851f42d4c957f2dULL + 0x14057b7ef767814fULL;
        page[i] = x ^ (x >> 29);
    }
    put_hot(p, page, index, seq);
}

static uint64_t *page_of(const Pages *p, uint64_t index)
{
    return p->mem + index * PAGE_WORDS;
}

static void *allocate(uint64_t bytes)
{
    void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return mem == MAP_FAILED ? NULL : mem;
}

void pages_free(Pages *p)
{
    if (p->mem) {
        munmap(p->mem, p->count * PAGE_BYTES);
    }
    if (p->seq) {
        munmap(p->seq, p->count * sizeof(*p->seq));
    }
    p->mem = NULL;
    p->seq = NULL;
}

bool pages_init(Pages *p, uint64_t count, uint64_t seed)
{
    p->count = count;
    p->seed = seed;
    p->writes = 0;
    p->mem = allocate(count * PAGE_BYTES);
    p->seq = allocate(count * sizeof(*p->seq));
    if (!p->mem || !p->seq) {
        pages_free(p);
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        compute(p, page_of(p, i), i, 0);
    }
    return true;
}

void pages_touch(Pages *p, uint64_t index)
{
    put_hot(p, page_of(p, index), index, ++p->seq[index]);
    p->writes++;
}

static uint32_t first_difference(const uint64_t *a, const uint64_t *b)
{
    uint32_t i = 0;

    while (((const uint8_t *)a)[i] == ((const uint8_t *)b)[i]) {
        i++;
    }
    return i;
}

bool pages_verify(const Pages *p, Verdict *v)
{
    uint64_t want[PAGE_WORDS];

    *v = (Verdict) { 0 };
    for (uint64_t i = 0; i < p->count; i++) {
        const uint64_t *page = page_of(p, i);

        v->sum += p->seq[i];
        compute(p, want, i, p->seq[i]);
        if (!memcmp(want, page, PAGE_BYTES)) {
            continue;
        }
        if (!v->wrong++) {
            v->index = i;
            v->seq = p->seq[i];
            v->offset = first_difference(want, page);
            v->expected = want[v->offset / 8];
            v->got = page[v->offset / 8];
        }
    }
    return !v->wrong && v->sum == p->writes;
}

bool pages_corrupt(Pages *p, uint64_t index, uint32_t offset)
{
    ((uint8_t *)page_of(p, index))[offset] ^= 0x10;
    return true;
}

bool pages_stale(Pages *p, uint64_t index, uint32_t offset)
{
    put_hot(p, page_of(p, index), index, p->seq[index] - 1);
    return true;
}

bool pages_skew(Pages *p, uint64_t index, uint32_t offset)
{
    if (!p->seq[index]) {
        return false;           /* nothing to go back to */
    }
    pages_stale(p, index, offset);
    p->seq[index]--;
    return true;
}

bool pages_repair(Pages *p, uint64_t index, uint32_t offset)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < p->count; i++) {
        sum += p->seq[i];
    }
    p->seq[index] += p->writes - sum;
    compute(p, page_of(p, index), index, p->seq[index]);
    return true;
}

bool pages_peek(Pages *p, uint64_t index, uint32_t offset)
{
    return true;
}
