/*
 * A QIOChannel under a test's control: what it delivers, accepts and refuses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_MOCK_CHANNEL_H
#define TEST_MOCK_CHANNEL_H

#include "io/channel.h"
#include "qom/object.h"

#define TYPE_MOCK_CHANNEL "test-mock-channel"
OBJECT_DECLARE_SIMPLE_TYPE(MockChannel, MOCK_CHANNEL)

/* Text of the error that an operation fails with when it is told to. */
#define MOCK_ERROR "the mock was told to fail"

#define MOCK_NEVER UINT64_MAX

/* Longest read or write in one piece that the kernel does. */
#define MOCK_KERNEL_MAX 0x7ffff000

typedef struct MockFd {
    uint64_t at;        /* rides on the byte at this offset */
    int fd;
} MockFd;

/*
 * "Operation" is every call of read, write, pread, pwrite or seek, including
 * those that would block; they are counted in ops.
 */
struct MockChannel {
    QIOChannel parent;

    /* What can be read, and what was written. */
    GByteArray *data;
    uint64_t pos;       /* of the next sequential byte */
    uint64_t read_end;  /* reads end here, whether data goes on or not */

    /*
     * Instead of using data: bytes are not looked at and only counted, reads
     * leave the memory they are given alone.  For amounts beyond memory.
     */
    bool weightless;

    /*
     * How much each sequential operation may move at most, used in turn for
     * ever; 0 means that it would block.  Unset means as much as is asked.
     */
    const size_t *steps;
    size_t nsteps;

    uint64_t fail_at;   /* the operation of this number fails; MOCK_NEVER */
    bool close_fails;

    GArray *fds;        /* MockFd: to be received, or sent; sorted by at */
    size_t next_fd;

    /* Called by shutdown. */
    void (*on_shutdown)(void *opaque);
    void *opaque;

    /* Observations. */
    uint64_t ops;
    uint64_t waits;     /* blocking waits, by event loop or coroutine */
    uint64_t closed;
    uint64_t largest;   /* bytes moved by one sequential operation */
    size_t most_pieces; /* in one sequential operation */
    struct iovec first; /* first piece of the latest sequential operation */
};

/* Delivers the @len bytes at @data, then the end of the stream. */
MockChannel *mock_channel_reader(const void *data, size_t len);

/* Records what is written in ->data. */
MockChannel *mock_channel_writer(void);

/* May move any amount of bytes of no content. */
MockChannel *mock_channel_weightless(void);

/* Sets the steps to a static array. */
#define mock_channel_steps(mc, ...)                                     \
    do {                                                                \
        static const size_t steps_[] = { __VA_ARGS__ };                 \
        (mc)->steps = steps_;                                           \
        (mc)->nsteps = ARRAY_SIZE(steps_);                              \
    } while (0)

#endif
