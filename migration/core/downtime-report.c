/*
 * What the destination tells of its part of the downtime
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "downtime-report.h"

#define NS_PER_US 1000ull

static uint32_t to_us(uint64_t ns)
{
    return MIN(ns / NS_PER_US, UINT32_MAX);
}

/* In nanoseconds */
static uint64_t get_us(const void *p)
{
    return (uint32_t)ldl_be_p(p) * NS_PER_US;
}

size_t downtime_report_encode(const DowntimeReport *report,
                              uint8_t payload[WIRE_RP_REPORT_MAX])
{
    WireReport head;
    uint8_t *p = payload + sizeof(head);

    stl_be_p(&head.attempt, report->attempt);
    stl_be_p(&head.load_us, to_us(report->load_ns));
    stl_be_p(&head.activate_us, to_us(report->activate_ns));
    stl_be_p(&head.start_us, to_us(report->start_ns));
    memcpy(payload, &head, sizeof(head));
    for (unsigned i = 0; i < report->devices.count; i++) {
        const LedgerDevice *device = &report->devices.list[i];
        size_t len = strlen(device->name);

        stl_be_p(p, to_us(device->ns));
        p[4] = len;
        memcpy(p + 5, device->name, len);
        p += 5 + len;
    }
    return p - payload;
}

/* What a peer calls its devices goes to people and into JSON. */
static bool is_text(const uint8_t *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!g_ascii_isprint(name[i])) {
            return false;
        }
    }
    return len > 0;
}

static bool decode_devices(LedgerDevices *devices, const uint8_t *p,
                           const uint8_t *end)
{
    char name[LEDGER_NAME_MAX + 1];

    while (p < end) {
        size_t len = end - p >= 5 ? p[4] : SIZE_MAX;

        if (len > LEDGER_NAME_MAX || end - p - 5 < len ||
            devices->count == LEDGER_DEVICES_MAX || !is_text(p + 5, len)) {
            return false;
        }
        memcpy(name, p + 5, len);
        name[len] = 0;
        ledger_device(devices, name, 0, get_us(p));
        p += 5 + len;
    }
    return true;
}

bool downtime_report_decode(DowntimeReport *report, const uint8_t *payload,
                            size_t len)
{
    WireReport head;

    if (len < sizeof(head)) {
        return false;
    }
    memcpy(&head, payload, sizeof(head));
    *report = (DowntimeReport) {
        .attempt = ldl_be_p(&head.attempt),
        .load_ns = get_us(&head.load_us),
        .activate_ns = get_us(&head.activate_us),
        .start_ns = get_us(&head.start_us),
    };
    return decode_devices(&report->devices, payload + sizeof(head),
                          payload + len);
}
