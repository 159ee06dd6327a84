/*
 * The payload of a channel's packets, compressed or not
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The method is the one that was set, or, with MULTIFD_COMPRESSION_AUTO, what
 * makes the channel faster at the time (codec-choice.h); then it differs from
 * packet to packet, as it does when it is set anew.  The method of a packet
 * stands in its flags.
 *
 * With AUTO some of each packet's bytes are compressed for a trial, so that
 * random memory is sent as it is and costs next to nothing.
 *
 * Threads: all functions are for the channel's, but for _init(), _set() and
 * _destroy(), which are called while it rests.
 */

#ifndef MIGRATION_MULTIFD_PACKET_ENCODER_H
#define MIGRATION_MULTIFD_PACKET_ENCODER_H

#include "codec.h"
#include "codec-choice.h"

/* What the automatic choice has measured since it last decided */
typedef struct EncoderClock {
    int64_t at_ns, cpu_ns;      /* when, 0: never; the thread's CPU time */
    bool rests;                 /* nothing was to be sent since then */
    uint64_t encode_ns;         /* in the encoder */
    uint64_t preempted_ns;      /* in it and in trials: others had the CPU */
    uint64_t memory, sent;      /* bytes */
} EncoderClock;

typedef struct PacketEncoder {
    MultiFDCompression method;  /* as set */
    int level;                  /* of that method */
    size_t page;                /* bytes of one */
    unsigned channels;          /* that share the rate */
    void *encoders[MULTIFD_COMPRESSION__MAX];   /* NULL: not used yet */
    uint8_t *encoded;           /* a payload */

    /* With AUTO */
    CodecChoice choice;
    EncoderClock clock;
    void *trials[CODEC_WAY__MAX];       /* encoders; NULL: not used yet */
    unsigned untested;          /* packets that are not looked at first */

    /* What was done with the last packet */
    MultiFDCompression last_method;
    int last_level;
} PacketEncoder;

/*
 * One of @channels, with @method at @level, of memory in pages of @page bytes.
 * To be destroyed even if false.
 */
bool packet_encoder_init(PacketEncoder *e, MultiFDCompression method, int level,
                         size_t page, unsigned channels, Error **errp);
void packet_encoder_destroy(PacketEncoder *e);

/*
 * From the next packet on; false if the method is not available, and nothing
 * changes.  Only for peers that have WIRE_PEER_ANY_METHOD.
 */
bool packet_encoder_set(PacketEncoder *e, MultiFDCompression method, int level,
                        Error **errp);

/* Whether packets may be compressed */
static inline bool packet_encoder_compresses(const PacketEncoder *e)
{
    return e->method != MULTIFD_COMPRESSION_NONE;
}

/*
 * Memory of @runs, @n of them, for a packet; maybe none.  Returns how many
 * bytes are in *@out, which is valid until the next call, and sets *@flag, or
 * -1.  *@out is NULL if the memory is to be sent as it is.
 */
ssize_t packet_encoder_encode(PacketEncoder *e, const struct iovec *runs,
                              unsigned n, const uint8_t **out, uint32_t *flag,
                              Error **errp);

/* That packet has become @sent bytes. */
void packet_encoder_sent(PacketEncoder *e, uint64_t sent);

/* All was written, and nothing is sent until the next packet. */
void packet_encoder_rest(PacketEncoder *e);

#endif
