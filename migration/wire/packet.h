/*
 * Packets of multifd: filled in and checked
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A channel begins with a WireMultifdInit, and then has one packet after the
 * other: a WireMultifdPages, its table of offsets, and the payload (wire.h,
 * section 8).  Everything here is pure: it works on bytes in memory, knows no
 * guest memory, and any thread may call it.
 */

#ifndef MIGRATION_WIRE_PACKET_H
#define MIGRATION_WIRE_PACKET_H

#include "qemu/uuid.h"
#include "wire.h"

/* What the fixed part of a packet says, in the host's byte order */
typedef struct Packet {
    uint32_t flags;             /* WIRE_MULTIFD_* */
    uint32_t pages_max;         /* entries of the table */
    uint32_t normal;            /* pages with content: the first entries */
    uint32_t zeros;             /* pages of zeros: the next ones */
    uint32_t payload;           /* bytes after the table */
    uint64_t sequence;          /* over all channels of the sender */
} Packet;

/* Entries of the table where pages of the target have 2^@page_bits bytes */
static inline unsigned packet_pages_max(unsigned page_bits)
{
    return WIRE_MULTIFD_PACKET_MEMORY >> page_bits;
}

/*
 * The beginning of channel @id of the VM with @uuid; @attempt is that of a
 * recovery, or 0.
 */
void packet_fill_init(WireMultifdInit *init, const QemuUUID *uuid, uint8_t id,
                      uint32_t attempt);

/*
 * What the beginning of a channel has to be, where there are @channels of them.
 * Sets *@id.
 */
bool packet_check_init(const WireMultifdInit *init, const QemuUUID *uuid,
                       unsigned channels, unsigned *id, Error **errp);

/* The first bytes that tell a channel of multifd from others, at least 4 */
bool packet_begins_channel(const uint8_t *bytes);

/* The fixed part: @packet, of pages of @block; NULL or "": it has none. */
void packet_fill(WireMultifdPages *wire, const Packet *packet,
                 const char *block);

/*
 * The fixed part that was received, of a channel whose tables have at most
 * @pages_max entries.  False if it contradicts itself or the limits of
 * wire.h.  The name of the block ends within its field, if this is true.
 */
bool packet_check(const WireMultifdPages *wire, unsigned pages_max,
                  Packet *packet, Error **errp);

/* What the head that all packets have in common says */
bool packet_check_head(const WireMultifdHead *wire, uint32_t *flags,
                       Error **errp);

/*
 * The head of @len bytes of the state of section @name, which is no longer
 * than its field.
 */
void packet_fill_device_state(WireMultifdDeviceState *wire, const char *name,
                              uint32_t instance_id, uint32_t len);

/*
 * Such a head whose flags are known; the name ends within its field, if this is
 * true.
 */
bool packet_check_device_state(const WireMultifdDeviceState *wire,
                               uint32_t *instance_id, uint32_t *len,
                               Error **errp);

#endif
