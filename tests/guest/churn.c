/*
 * Memory that the test guest allocates, checks and frees without a pause
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "churn.h"
#include "pages.h"

#define BLOCK_PAGES 1024        /* 4 MiB, the size of a hint */
#define BLOCKS_MAX 4096
#define WRITES 32               /* to a block that is there */
#define PAUSE_NS 1000000        /* when there is no memory, or no work */

typedef struct Block {
    Pages pages;
    bool there;
} Block;

static Block blocks[BLOCKS_MAX];
static uint64_t in_use;         /* blocks the thread picks from */
static bool shrinking;
static ChurnCount counted;
static uint64_t random_state = 0x9e3779b97f4a7c15ULL;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t any_number(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state >> 11;
}

static void pause_a_little(void)
{
    nanosleep(&(struct timespec) { .tv_nsec = PAUSE_NS }, NULL);
}

static void check_block(Block *b)
{
    Verdict v;

    if (!pages_verify(&b->pages, &v)) {
        counted.wrong++;
    }
}

static void free_block(Block *b)
{
    pages_free(&b->pages);
    b->there = false;
    counted.blocks--;
}

static bool make_block(Block *b)
{
    if (!pages_init(&b->pages, BLOCK_PAGES, any_number())) {
        counted.refused++;
        return false;
    }
    b->there = true;
    counted.blocks++;
    counted.made++;
    return true;
}

static void write_block(Block *b)
{
    for (int i = 0; i < WRITES; i++) {
        pages_touch(&b->pages, any_number() % BLOCK_PAGES);
    }
}

/*
 * Memory is filled up, then most of it is freed, and so on.  Returns false if
 * there was nothing to do.
 */
static bool work(void)
{
    Block *b;

    if (!in_use) {
        return false;
    }
    if (counted.blocks >= in_use - in_use / 8) {
        shrinking = true;
    } else if (counted.blocks <= in_use / 8) {
        shrinking = false;
    }
    b = &blocks[any_number() % in_use];
    if (b->there) {
        write_block(b);
        if (shrinking) {
            check_block(b);
            free_block(b);
        }
        return true;
    }
    return shrinking || make_block(b);
}

static void *churner(void *unused)
{
    setpriority(PRIO_PROCESS, 0, 10);   /* of this thread alone, in Linux */
    for (;;) {
        bool done;

        pthread_mutex_lock(&lock);
        done = work();
        pthread_mutex_unlock(&lock);
        if (!done) {
            pause_a_little();
        }
    }
    return unused;
}

bool churn_init(void)
{
    pthread_t id;

    return !pthread_create(&id, NULL, churner, NULL);
}

bool churn_set(uint64_t mib)
{
    uint64_t wanted = mib * (1024 * 1024 / PAGE_BYTES) / BLOCK_PAGES;

    if (wanted > BLOCKS_MAX) {
        return false;
    }
    pthread_mutex_lock(&lock);
    for (uint64_t i = wanted; i < in_use; i++) {
        if (blocks[i].there) {
            check_block(&blocks[i]);
            free_block(&blocks[i]);
        }
    }
    in_use = wanted;
    pthread_mutex_unlock(&lock);
    return true;
}

void churn_verify(ChurnCount *count)
{
    pthread_mutex_lock(&lock);
    for (uint64_t i = 0; i < in_use; i++) {
        if (blocks[i].there) {
            check_block(&blocks[i]);
        }
    }
    *count = counted;
    pthread_mutex_unlock(&lock);
}

bool churn_once(uint64_t mib)
{
    Pages all = { 0 };

    if (!pages_init(&all, mib * (1024 * 1024 / PAGE_BYTES), mib)) {
        return false;
    }
    pages_free(&all);
    return true;
}
