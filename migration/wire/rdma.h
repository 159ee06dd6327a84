/*
 * RDMA, protocol version 1: control messages as bytes, and what they may say
 *
 * Memory is written straight into the destination; everything else is a SEND,
 * at most WIRE_RDMA_MESSAGE_MAX bytes long: a WireRdmaHead and, after it, the
 * data of one type.  All numbers are big-endian.
 *
 *   READY          destination to source: one message may be sent to it
 *   STREAM         bytes of the stream
 *   BLOCKS_*       a request without data; the result is a WireRdmaBlock for
 *                  each RAM block, in the order of the list in the stream
 *   ZEROS          a WireRdmaZeros: clear so much of a block; several of them
 *                  if that was agreed upon
 *   REGISTER_*     a WireRdmaRegister: make memory writable; the result is a
 *                  WireRdmaKey
 *   PAGES          some WireRdmaPages and then the bytes of each; if that was
 *                  agreed upon
 *   FINISHED       no more of this in this section; the stream goes on
 *   UNREGISTER_*   a WireRdmaRegister with the number of a chunk
 *   ERROR          the sender has given up
 *
 * READY is the only flow control: each message of the source but none of the
 * destination uses one up.  It says that all messages before have been taken
 * and carried out, but for as many as may be on their way (WIRE_RDMA_WINDOW).
 * On the second connection, which carries answers in the stream's other
 * direction, the two sides change places.
 *
 * Everything here is pure: bytes in memory in, and out.  Nothing that was
 * received is believed: each function that checks names the field and its limit
 * in its error.  Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_WIRE_RDMA_H
#define MIGRATION_WIRE_RDMA_H

#include "wire.h"

#define WIRE_RDMA_VERSION               1

/* Bytes of a message, with its head */
#define WIRE_RDMA_MESSAGE_MAX           (512 * 1024)
/* Bytes of the stream in a message, as every version sends them */
#define WIRE_RDMA_STREAM_MAX            (32 * 1024)
/* The same between two of ours: WIRE_RDMA_PEERS */
#define WIRE_RDMA_STREAM_PEERS          (128 * 1024)
/*
 * What a source is sent: pieces of the stream, on the connection for answers;
 * keys and blocks, on the other one
 */
#define WIRE_RDMA_ANSWER_MAX            (WIRE_RDMA_STREAM_PEERS + 64)
/* READY and ERROR, which is all that answers to answers */
#define WIRE_RDMA_SHORT_MAX             4096
/* Entries in the data of a message */
#define WIRE_RDMA_ENTRIES_MAX           4096
/*
 * Registered memory begins and ends at multiples of 2^n bytes of a block, in
 * which it is also counted.  QEMU up to 11.0 knows the smallest n only; later
 * versions have to be told the same on both sides.
 */
#define WIRE_RDMA_CHUNK_BITS            20
#define WIRE_RDMA_CHUNK_BITS_MAX        30

/*
 * What goes along with the request for a connection and its answer: what is
 * requested, and what of it is granted.  It may be followed by padding.
 */
typedef struct WireRdmaHello {
    wire_be32 version;                  /*  0: WIRE_RDMA_VERSION */
    wire_be32 flags;                    /*  4: WIRE_RDMA_FLAGS */
} QEMU_PACKED WireRdmaHello;
WIRE_ASSERT_SIZE(WireRdmaHello, 8);

#define WIRE_RDMA_PIN_ALL               0x00000001u
/*
 * Ours: ZEROS may have several entries, and also the first answer of the
 * destination waits for READY.  Others send that answer without, and have room
 * for one READY only: it must not come before.
 */
#define WIRE_RDMA_PEERS           0x80000000u
/* With it: PAGES may come; and n as above, less the smallest one */
#define WIRE_RDMA_COPIES          0x40000000u
#define WIRE_RDMA_CHUNK           0x00000f00u
#define WIRE_RDMA_CHUNK_SHIFT           8
/*
 * With it, of the first connection: so many others follow, for writes only; and
 * of each of these, that it is one.
 */
#define WIRE_RDMA_MORE            0x001f0000u
#define WIRE_RDMA_MORE_SHIFT            16
#define WIRE_RDMA_WRITES_ONLY     0x20000000u
#define WIRE_RDMA_MORE_MAX              15
/* With PEERS: up to so many messages may be sent before the first is read. */
#define WIRE_RDMA_WINDOW          0x10000000u
#define WIRE_RDMA_WINDOW_MESSAGES       4

typedef enum WireRdmaType {
    WIRE_RDMA_NONE = 0,                 /* never sent */
    WIRE_RDMA_ERROR = 1,
    WIRE_RDMA_READY = 2,
    WIRE_RDMA_STREAM = 3,
    WIRE_RDMA_BLOCKS_REQUEST = 4,
    WIRE_RDMA_BLOCKS_RESULT = 5,
    WIRE_RDMA_ZEROS = 6,
    WIRE_RDMA_REGISTER_REQUEST = 7,
    WIRE_RDMA_REGISTER_RESULT = 8,
    WIRE_RDMA_FINISHED = 9,
    WIRE_RDMA_UNREGISTER_REQUEST = 10,
    WIRE_RDMA_UNREGISTER_RESULT = 11,
    WIRE_RDMA_PAGES = 12,
    WIRE_RDMA_TYPES
} WireRdmaType;

typedef struct WireRdmaHead {
    wire_be32 len;                      /*  0: bytes of data */
    wire_be32 type;                     /*  4: WireRdmaType */
    wire_be32 repeat;                   /*  8: entries; 0 or 1 if none */
    wire_be32 unused;                   /* 12 */
} QEMU_PACKED WireRdmaHead;
WIRE_ASSERT_SIZE(WireRdmaHead, 16);

#define WIRE_RDMA_DATA_MAX  (WIRE_RDMA_MESSAGE_MAX - sizeof(WireRdmaHead))

typedef struct WireRdmaBlock {
    wire_be64 address;                  /*  0: where it is mapped */
    wire_be64 start;                    /*  8: added to offsets in requests */
    wire_be64 bytes;                    /* 16 */
    wire_be32 rkey;                     /* 24: with PIN_ALL, else unused */
    wire_be32 unused;                   /* 28 */
} QEMU_PACKED WireRdmaBlock;
WIRE_ASSERT_SIZE(WireRdmaBlock, 32);

#define WIRE_RDMA_BLOCKS_MAX  ((WIRE_RDMA_ANSWER_MAX - sizeof(WireRdmaHead)) / \
                               sizeof(WireRdmaBlock))

typedef struct WireRdmaZeros {
    wire_be32 value;                    /*  0: must be 0 */
    wire_be32 block;                    /*  4: index */
    wire_be64 offset;                   /*  8: with the block's start added */
    wire_be64 bytes;                    /* 16 */
} QEMU_PACKED WireRdmaZeros;
WIRE_ASSERT_SIZE(WireRdmaZeros, 24);

typedef struct WireRdmaRegister {
    wire_be64 offset;                   /*  0: with the block's start added */
    wire_be32 block;                    /*  8: index */
    wire_be32 unused;                   /* 12 */
    wire_be64 more;                     /* 16: chunks after the first */
} QEMU_PACKED WireRdmaRegister;
WIRE_ASSERT_SIZE(WireRdmaRegister, 24);
WIRE_ASSERT_AT(WireRdmaRegister, more, 16);

typedef struct WireRdmaKey {
    wire_be32 rkey;                     /*  0 */
    wire_be32 unused;                   /*  4 */
    wire_be64 address;                  /*  8: where the block is mapped */
} QEMU_PACKED WireRdmaKey;
WIRE_ASSERT_SIZE(WireRdmaKey, 16);

/* Whole pages, whose bytes come after the last of these */
typedef struct WireRdmaPages {
    wire_be32 block;                    /*  0: index */
    wire_be32 bytes;                    /*  4 */
    wire_be64 offset;                   /*  8: with the block's start added */
} QEMU_PACKED WireRdmaPages;
WIRE_ASSERT_SIZE(WireRdmaPages, 16);

/*
 * In the host's byte order
 */

typedef struct RdmaHello {
    bool pin_all;
    bool peers;
    bool copies;                /* with peers only */
    unsigned chunk_bits;        /* with peers; otherwise it is not said */
    /* With peers only */
    unsigned more;              /* connections for writes that follow this */
    bool writes_only;           /* this is one of them */
    bool window;                /* several messages may be on their way */
} RdmaHello;

/* Messages that may be on their way: so often READY is said in advance. */
static inline unsigned rdma_window(const RdmaHello *hello)
{
    return hello->window ? WIRE_RDMA_WINDOW_MESSAGES : 1;
}

typedef struct RdmaHead {
    WireRdmaType type;
    uint32_t len;
    uint32_t repeat;
} RdmaHead;

/* A RAM block of the destination, as the source has to know it */
typedef struct RdmaBlock {
    uint64_t address;
    uint64_t start;
    uint64_t bytes;
    uint32_t rkey;
} RdmaBlock;

/* Bytes of a block, from @offset on, which counts from its beginning */
typedef struct RdmaExtent {
    uint32_t block;
    uint64_t offset;
    uint64_t bytes;
} RdmaExtent;

typedef struct RdmaKey {
    uint32_t rkey;
    uint64_t address;
} RdmaKey;

/* What a message is called in errors; any value */
const char *rdma_type_name(uint32_t type);

void rdma_fill_hello(WireRdmaHello *wire, const RdmaHello *hello);

/*
 * The first @len bytes of what came with a connection.  Flags that are not
 * known are ignored, as the answer will not grant them.
 */
bool rdma_check_hello(const void *bytes, size_t len, RdmaHello *hello,
                      Error **errp);

/* The head of a message with @len bytes of data, which has @repeat entries */
void rdma_fill_head(WireRdmaHead *wire, WireRdmaType type, uint32_t len,
                    uint32_t repeat);

/*
 * A message of @received bytes: its head, and whether the length of its data
 * is one that the type may have.
 */
bool rdma_check_head(const void *bytes, size_t received, RdmaHead *head,
                     Error **errp);

void rdma_fill_block(WireRdmaBlock *wire, const RdmaBlock *block);

/*
 * One of the blocks of a result, which must have @bytes, as the source's has.
 * It must not wrap around the end of the address space.  @name is for errors.
 */
bool rdma_check_block(const WireRdmaBlock *wire, const char *name,
                      uint64_t bytes, RdmaBlock *block, Error **errp);

/* @start: of the block, as the peer told it */
void rdma_fill_zeros(WireRdmaZeros *wire, const RdmaExtent *zeros,
                     uint64_t start);

/* Where @blocks has @count entries: what is to be cleared, all in one block */
bool rdma_check_zeros(const WireRdmaZeros *wire, const RdmaBlock *blocks,
                      unsigned count, RdmaExtent *zeros, Error **errp);

/*
 * @extent begins at a chunk of 2^@chunk_bits bytes; it ends at one or with the
 * block.
 */
void rdma_fill_register(WireRdmaRegister *wire, const RdmaExtent *extent,
                        uint64_t start, unsigned chunk_bits);

/*
 * What is to be registered: whole chunks, the last one perhaps shorter, as it
 * ends with its block.
 */
bool rdma_check_register(const WireRdmaRegister *wire, const RdmaBlock *blocks,
                         unsigned count, unsigned chunk_bits,
                         RdmaExtent *extent, Error **errp);

void rdma_fill_pages(WireRdmaPages *wire, const RdmaExtent *pages,
                     uint64_t start);

/*
 * The data of PAGES, of @len bytes with @repeat entries: how many bytes follow
 * the entries; -1 if they do not fit
 */
int64_t rdma_check_pages_data(uint32_t len, uint32_t repeat, Error **errp);

/* One of its entries, where @left bytes are left for it and those after it */
bool rdma_check_pages(const WireRdmaPages *wire, const RdmaBlock *blocks,
                      unsigned count, uint64_t left, RdmaExtent *pages,
                      Error **errp);

void rdma_fill_key(WireRdmaKey *wire, const RdmaKey *key);

/* The key for a block that is mapped at @address, as the peer said before */
bool rdma_check_key(const WireRdmaKey *wire, uint64_t address, RdmaKey *key,
                    Error **errp);

#endif
