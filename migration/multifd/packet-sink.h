/*
 * Pages as packets of multifd, in a channel of their own
 *
 * A packet has pages of one region; it is sent when it is full, when another
 * region comes, and by flush().  end_pass() ends with a packet that has no
 * pages and the flag SYNC: the receiver waits there until the main channel says
 * that all channels have come so far.  There are no differences (xbzrle), and
 * no copies of pages, which are for those who make differences.
 *
 * An old receiver does not know of zero pages in packets.  For such a one they
 * are remembered, and whoever has the main channel tells of them there; those
 * that find no room are sent as what they are.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_MULTIFD_PACKET_SINK_H
#define MIGRATION_MULTIFD_PACKET_SINK_H

#include "migration/qemu-file-types.h"
#include "migration/ram/sink.h"
#include "migration/wire/packet.h"
#include "packet-encoder.h"

/* Runs of zero pages that are remembered at most */
#define PACKET_SINK_ZERO_RUNS 1024

typedef struct PacketSink {
    RamSink sink;
    QEMUFile *file;
    unsigned page_bits, pages_max;
    bool tells_zeros;           /* in packets */
    uint64_t sequence, step;    /* of the next packet, and to the one after */
    uint64_t memory;            /* bytes of pages with content, so far */

    PacketEncoder encoder;
    WireMultifdPages *head;     /* room for one, and its table */

    /* The packet that is being filled */
    const RamRegion *region;
    unsigned normal, zeros;
    uint64_t *normal_at, *zeros_at;     /* page numbers, pages_max of each */
    struct iovec *runs;                 /* of the normal pages' memory */
    unsigned run_count;

    RamRun *zero_runs;          /* not told of in packets */
    unsigned zero_run_count;
} PacketSink;

/*
 * Packets for @file, channel @id of @channels, compressed with @method at
 * @level.  @tells_zeros: the receiver knows of zero pages in packets.
 */
bool packet_sink_init(PacketSink *s, QEMUFile *file, unsigned page_bits,
                      unsigned id, unsigned channels, MultiFDCompression method,
                      int level, bool tells_zeros, Error **errp);

/*
 * The last packet: the receiver is told that records follow, which somebody
 * else puts into the file.  While nothing is gathered.
 */
void packet_sink_leave(PacketSink *s);

/* See packet_encoder_set(). */
bool packet_sink_set_method(PacketSink *s, MultiFDCompression method, int level,
                            Error **errp);

/* Frees all but the file; also after packet_sink_init() has failed. */
void packet_sink_destroy(PacketSink *s);

/*
 * Zero pages that were remembered, to @main; they are forgotten.  While nobody
 * uses the sink.
 */
void packet_sink_tell_zeros(PacketSink *s, RamSink *main);

#endif
