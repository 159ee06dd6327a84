/*
 * Packets of multifd: filled in and checked
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "packet.h"

void packet_fill_init(WireMultifdInit *init, const QemuUUID *uuid, uint8_t id,
                      uint32_t attempt)
{
    *init = (WireMultifdInit) { .channel = id };
    stl_be_p(&init->magic, WIRE_MULTIFD_MAGIC);
    stl_be_p(&init->version, WIRE_MULTIFD_VERSION);
    stl_be_p(&init->attempt, attempt);
    memcpy(init->uuid, uuid->data, sizeof(init->uuid));
}

bool packet_begins_channel(const uint8_t *bytes)
{
    return ldl_be_p(bytes) == WIRE_MULTIFD_MAGIC;
}

static bool check_kind(uint32_t magic, uint32_t version, Error **errp)
{
    if (magic != WIRE_MULTIFD_MAGIC) {
        error_setg(errp, "0x%08" PRIx32 " stands where each packet has 0x%08x: "
                   "the stream is damaged", magic, WIRE_MULTIFD_MAGIC);
        return false;
    }
    if (version != WIRE_MULTIFD_VERSION) {
        error_setg(errp, "Packets of version %" PRIu32 " arrive, and only "
                   "version %d is known here", version, WIRE_MULTIFD_VERSION);
        return false;
    }
    return true;
}

bool packet_check_init(const WireMultifdInit *init, const QemuUUID *uuid,
                       unsigned channels, unsigned *id, Error **errp)
{
    if (!check_kind(ldl_be_p(&init->magic), ldl_be_p(&init->version), errp)) {
        return false;
    }
    if (memcmp(init->uuid, uuid->data, sizeof(init->uuid))) {
        QemuUUID theirs;
        g_autofree char *here = qemu_uuid_unparse_strdup(uuid);
        g_autofree char *there = NULL;

        memcpy(theirs.data, init->uuid, sizeof(theirs.data));
        there = qemu_uuid_unparse_strdup(&theirs);
        error_setg(errp, "The channel is of the VM with UUID %s, and this one "
                   "has %s", there, here);
        return false;
    }
    if (init->channel >= channels) {
        error_setg(errp, "Channel %u is one of more than %u, which are "
                   "expected here: 'multifd-channels' must be the same on "
                   "both sides", init->channel, channels);
        return false;
    }
    *id = init->channel;
    return true;
}

void packet_fill(WireMultifdPages *wire, const Packet *packet,
                 const char *block)
{
    *wire = (WireMultifdPages) { };
    stl_be_p(&wire->head.magic, WIRE_MULTIFD_MAGIC);
    stl_be_p(&wire->head.version, WIRE_MULTIFD_VERSION);
    stl_be_p(&wire->head.flags, packet->flags);
    stl_be_p(&wire->pages_max, packet->pages_max);
    stl_be_p(&wire->normal_pages, packet->normal);
    stl_be_p(&wire->zero_pages, packet->zeros);
    stl_be_p(&wire->payload_len, packet->payload);
    stq_be_p(&wire->sequence, packet->sequence);
    if (block) {
        g_strlcpy(wire->block, block, sizeof(wire->block));
    }
}

static bool counts_fit(const Packet *p, unsigned pages_max, Error **errp)
{
    if (p->pages_max > pages_max) {
        error_setg(errp, "A packet has room for %" PRIu32 " pages, and at most "
                   "%u are possible", p->pages_max, pages_max);
        return false;
    }
    if (p->normal > p->pages_max || p->zeros > p->pages_max - p->normal) {
        error_setg(errp, "A packet has %" PRIu32 " pages and %" PRIu32 " of "
                   "zeros, and room for %" PRIu32, p->normal, p->zeros,
                   p->pages_max);
        return false;
    }
    if (p->payload > WIRE_MULTIFD_PAYLOAD_MAX) {
        error_setg(errp, "A packet of %" PRIu32 " bytes, where %d are the "
                   "limit", p->payload, WIRE_MULTIFD_PAYLOAD_MAX);
        return false;
    }
    return true;
}

bool packet_check_head(const WireMultifdHead *wire, uint32_t *flags,
                       Error **errp)
{
    *flags = ldl_be_p(&wire->flags);
    if (!check_kind(ldl_be_p(&wire->magic), ldl_be_p(&wire->version), errp)) {
        return false;
    }
    if (*flags & ~(WIRE_MULTIFD_FLAGS | WIRE_MULTIFD_RECORDS)) {
        error_setg(errp, "A packet has unknown flags: 0x%" PRIx32, *flags);
        return false;
    }
    return true;
}

void packet_fill_device_state(WireMultifdDeviceState *wire, const char *name,
                              uint32_t instance_id, uint32_t len)
{
    *wire = (WireMultifdDeviceState) { };
    stl_be_p(&wire->head.magic, WIRE_MULTIFD_MAGIC);
    stl_be_p(&wire->head.version, WIRE_MULTIFD_VERSION);
    stl_be_p(&wire->head.flags, WIRE_MULTIFD_DEVICE_STATE | WIRE_MULTIFD_NONE);
    stl_be_p(&wire->instance_id, instance_id);
    stl_be_p(&wire->payload_len, len);
    g_strlcpy(wire->name, name, sizeof(wire->name));
}

bool packet_check_device_state(const WireMultifdDeviceState *wire,
                               uint32_t *instance_id, uint32_t *len,
                               Error **errp)
{
    uint32_t flags = ldl_be_p(&wire->head.flags);

    *instance_id = ldl_be_p(&wire->instance_id);
    *len = ldl_be_p(&wire->payload_len);
    if (flags != (WIRE_MULTIFD_DEVICE_STATE | WIRE_MULTIFD_NONE)) {
        error_setg(errp, "A packet with the state of a device has other "
                   "flags: 0x%" PRIx32, flags);
        return false;
    }
    if (!memchr(wire->name, 0, sizeof(wire->name))) {
        error_setg(errp, "The name of a device does not end");
        return false;
    }
    if (*len > WIRE_MULTIFD_DEVICE_STATE_MAX) {
        error_setg(errp, "A packet has %" PRIu32 " bytes of the state of a "
                   "device, where %d are the limit", *len,
                   WIRE_MULTIFD_DEVICE_STATE_MAX);
        return false;
    }
    return true;
}

bool packet_check(const WireMultifdPages *wire, unsigned pages_max,
                  Packet *packet, Error **errp)
{
    *packet = (Packet) {
        .pages_max = ldl_be_p(&wire->pages_max),
        .normal = ldl_be_p(&wire->normal_pages),
        .zeros = ldl_be_p(&wire->zero_pages),
        .payload = ldl_be_p(&wire->payload_len),
        .sequence = ldq_be_p(&wire->sequence),
    };
    if (!packet_check_head(&wire->head, &packet->flags, errp)) {
        return false;
    }
    if (!memchr(wire->block, 0, sizeof(wire->block))) {
        error_setg(errp, "The name of a RAM block does not end");
        return false;
    }
    return counts_fit(packet, pages_max, errp);
}
