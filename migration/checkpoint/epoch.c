/*
 * Checkpoints: the head of an epoch, checked
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "epoch.h"

void epoch_head_encode(const EpochHead *head, WireCheckpoint *wire)
{
    stq_be_p(&wire->number, head->number);
    stl_be_p(&wire->memory, head->memory);
    stl_be_p(&wire->devices, head->devices);
}

static bool epoch_length_fits(uint32_t len, const char *what, Error **errp)
{
    if (!len) {
        error_setg(errp, "the %s of an epoch is missing", what);
    } else if (len > WIRE_PACKAGED_MAX) {
        error_setg(errp, "the %s of an epoch has %" PRIu32 " bytes, which are "
                   "more than the limit of %u", what, len, WIRE_PACKAGED_MAX);
    }
    return len && len <= WIRE_PACKAGED_MAX;
}

bool epoch_head_decode(EpochHead *head, const WireCheckpoint *wire,
                       uint64_t expected, Error **errp)
{
    EpochHead h = {
        .number = ldq_be_p(&wire->number),
        .memory = ldl_be_p(&wire->memory),
        .devices = ldl_be_p(&wire->devices),
    };

    if (h.number != expected) {
        error_setg(errp, "epoch %" PRIu64 " received, epoch %" PRIu64
                   " expected", h.number, expected);
        return false;
    }
    *head = h;
    return epoch_length_fits(h.memory, "memory", errp) &&
           epoch_length_fits(h.devices, "device state", errp);
}
