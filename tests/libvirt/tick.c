/*
 * Guest program of the libvirt test: counts, and guards its memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It is the guest's only process.  It fills memory with data that does not
 * compress, then prints a line every 50 ms of guest time, for ever:
 *
 *     tick NUMBER bad PAGES
 *
 * A missing number is lost output, a repeated one is a guest that ran twice,
 * a number that starts again is a reboot.  PAGES says how often a page was
 * found with wrong contents so far; it has to stay 0.
 *
 * Settings arrive as environment variables, which is what the kernel makes of
 * unknown NAME=VALUE words of its command line:
 *     fill   MiB to fill (default 16)
 *     hot    MiB of it to write to again and again (default 1)
 *     rate   pages to write to per tick (default 16)
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE_BYTES 4096
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define PAGES_PER_MIB ((1 << 20) / PAGE_BYTES)
#define TICK_NS (50 * 1000 * 1000)
#define SWEEP 8

static uint64_t (*memory)[PAGE_WORDS];
static uint32_t *written;       /* times each page was written to */
static size_t pages;

static size_t setting(const char *name, size_t fallback)
{
    const char *text = getenv(name);

    return text ? strtoul(text, NULL, 10) : fallback;
}

/* What word WORD of page PAGE holds for ever; word 0 counts the writes. */
static uint64_t expected(size_t page, size_t word)
{
    uint64_t x = (page * PAGE_WORDS + word + 1) * UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 29) * UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 32;
}

static void *zeroed(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (p == MAP_FAILED) {
        puts("tick program: the guest is too small for fill=");
        exit(1);                /* panics the guest, and the log says why */
    }
    return p;
}

static void fill(void)
{
    for (size_t page = 0; page < pages; page++) {
        memory[page][0] = 0;
        for (size_t word = 1; word < PAGE_WORDS; word++) {
            memory[page][word] = expected(page, word);
        }
    }
}

static unsigned is_bad(size_t page)
{
    for (size_t word = 1; word < PAGE_WORDS; word++) {
        if (memory[page][word] != expected(page, word)) {
            return 1;
        }
    }
    return 0;
}

/*
 * Compares the count of every page, and of one page in SWEEP all contents:
 * that many ticks look at everything.
 */
static unsigned count_bad(size_t tick)
{
    unsigned bad = 0;

    for (size_t page = 0; page < pages; page++) {
        bad += memory[page][0] != written[page];
    }
    for (size_t page = tick % SWEEP; page < pages; page += SWEEP) {
        bad += is_bad(page);
    }
    return bad;
}

int main(void)
{
    const struct timespec pause = { .tv_nsec = TICK_NS };
    size_t hot, rate, next = 0;
    unsigned bad = 0;

    pages = setting("fill", 16) * PAGES_PER_MIB;
    hot = setting("hot", 1) * PAGES_PER_MIB;
    rate = setting("rate", 16);
    if (!pages || !hot || hot > pages) {
        puts("tick program: needs 0 < hot <= fill");
        return 1;
    }
    memory = zeroed(pages * PAGE_BYTES);
    written = zeroed(pages * sizeof(*written));
    fill();

    for (size_t tick = 0;; tick++) {
        for (size_t i = 0; i < rate; i++) {
            memory[next][0] = ++written[next];
            next = (next + 1) % hot;
        }
        bad += count_bad(tick);
        printf("tick %zu bad %u\n", tick, bad);
        fflush(stdout);
        nanosleep(&pause, NULL);
    }
}
