/*
 * What the destination tells of its part of the downtime
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/core/downtime-report.h"

static void same(const DowntimeReport *a, const DowntimeReport *b)
{
    g_assert_cmpuint(a->attempt, ==, b->attempt);
    g_assert_cmpuint(a->load_ns, ==, b->load_ns);
    g_assert_cmpuint(a->activate_ns, ==, b->activate_ns);
    g_assert_cmpuint(a->start_ns, ==, b->start_ns);
    g_assert_cmpuint(a->devices.count, ==, b->devices.count);
    for (unsigned i = 0; i < a->devices.count; i++) {
        g_assert_cmpstr(a->devices.list[i].name, ==, b->devices.list[i].name);
        g_assert_cmpuint(a->devices.list[i].ns, ==, b->devices.list[i].ns);
    }
}

static void round_trip(const DowntimeReport *report, size_t expected_len)
{
    uint8_t payload[WIRE_RP_REPORT_MAX];
    size_t len = downtime_report_encode(report, payload);
    DowntimeReport back;

    g_assert_cmpuint(len, ==, expected_len);
    g_assert_true(downtime_report_decode(&back, payload, len));
    same(report, &back);
}

static void test_plain(void)
{
    DowntimeReport report = {
        .attempt = 0xfedcba98, .load_ns = 1000, .activate_ns = 2000,
        .start_ns = UINT32_MAX * 1000ull,
    };

    round_trip(&report, WIRE_RP_REPORT_MIN);
}

/* The largest that there can be must fit, whatever devices are called. */
static void test_devices(void)
{
    DowntimeReport report = { .attempt = 1 };
    char name[100];

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    for (unsigned i = 0; i < 2 * LEDGER_DEVICES_MAX; i++) {
        ledger_device(&report.devices, name, UINT32_MAX, i * 1000);
    }
    g_assert_cmpuint(report.devices.count, ==, LEDGER_DEVICES_MAX);
    g_assert_cmpuint(report.devices.list[0].ns, ==,
                     (2 * LEDGER_DEVICES_MAX - 1) * 1000);
    round_trip(&report, WIRE_RP_REPORT_MAX);
}

static void test_cut(void)
{
    DowntimeReport report = { .load_ns = 1999 }, back;
    uint8_t payload[WIRE_RP_REPORT_MAX];

    report.start_ns = UINT64_MAX;
    g_assert_true(downtime_report_decode(
        &back, payload, downtime_report_encode(&report, payload)));
    g_assert_cmpuint(back.load_ns, ==, 1000);
    g_assert_cmpuint(back.start_ns, ==, UINT32_MAX * 1000ull);
}

/* Nothing that a peer may send is believed. */
static void test_lies(void)
{
    uint8_t payload[WIRE_RP_REPORT_MAX + 64] = { 0 };
    DowntimeReport report = { 0 };
    size_t len;

    ledger_device(&report.devices, "disk", 0, 5000);
    len = downtime_report_encode(&report, payload);
    for (size_t cut = 0; cut < len; cut++) {
        g_assert_cmpint(downtime_report_decode(&report, payload, cut), ==,
                        cut == WIRE_RP_REPORT_MIN);
    }
    payload[len - 1] = '\n';
    g_assert_false(downtime_report_decode(&report, payload, len));
    payload[len - 1] = 0;
    g_assert_false(downtime_report_decode(&report, payload, len));
    payload[WIRE_RP_REPORT_MIN + 4] = 0;
    g_assert_false(
        downtime_report_decode(&report, payload, WIRE_RP_REPORT_MIN + 5));

    /* one device too many */
    len = WIRE_RP_REPORT_MIN;
    for (unsigned i = 0; i <= LEDGER_DEVICES_MAX; i++) {
        g_assert_cmpint(downtime_report_decode(&report, payload, len), ==,
                        true);
        payload[len + 4] = 1;
        payload[len + 5] = 'd';
        len += 6;
    }
    g_assert_false(downtime_report_decode(&report, payload, len));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/report/plain", test_plain);
    g_test_add_func("/report/devices", test_devices);
    g_test_add_func("/report/cut", test_cut);
    g_test_add_func("/report/lies", test_lies);
    return g_test_run();
}
