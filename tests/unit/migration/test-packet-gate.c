/*
 * Packets that wait in the gate of a network backend
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/checkpoint/packet-gate.h"

#define LIMIT 4096

/* What has left, as text: a packet is one character */
typedef struct Outside {
    PacketGate *gate;
    GString *left;
    unsigned busy_after;        /* so many more are taken, then none */
    bool nobody;
    const char *answer;         /* what the guest sends when one leaves */
} Outside;

static void guest_sends(PacketGate *gate, const char *packets, bool waits)
{
    for (; *packets; packets++) {
        char halves[2] = { *packets, '.' };
        struct iovec iov[2] = {
            { .iov_base = &halves[0], .iov_len = 1 },
            { .iov_base = &halves[1], .iov_len = 1 },
        };

        g_assert_cmpint(packet_gate_take(gate, 7, 12, iov, 2), ==, waits);
    }
}

static GateSent leaves(void *opaque, const GatePacket *packet)
{
    Outside *out = opaque;

    g_assert_cmpuint(packet->flags, ==, 7);
    g_assert_cmpint(packet->header, ==, 12);
    if (out->nobody) {
        return GATE_NOWHERE;
    }
    if (!out->busy_after) {
        return GATE_BUSY;
    }
    out->busy_after--;
    g_assert_cmpuint(packet->size, >=, 2);
    g_assert_cmpint(packet->data[1], ==, '.');
    g_string_append_c(out->left, packet->data[0]);
    if (out->answer) {
        const char *answer = out->answer;

        out->answer = NULL;
        guest_sends(out->gate, answer, true);
        g_assert_false(packet_gate_run(out->gate));
    }
    return GATE_SENT;
}

static Outside outside_new(void)
{
    return (Outside) { .left = g_string_new(""), .busy_after = UINT_MAX };
}

/* Behind a gate that lets nothing out */
static void outside_close(Outside *out)
{
    out->gate = packet_gate_new(LIMIT, leaves, out);
    packet_gate_close(out->gate);
}

static void outside_end(Outside *out)
{
    packet_gate_free(out->gate);
    g_string_free(out->left, true);
}

static void waits(const Outside *out, uint64_t packets)
{
    PacketGateCounts c = packet_gate_counts(out->gate);

    g_assert_cmpuint(c.packets, ==, packets);
    g_assert_cmpuint(c.bytes, ==, 2 * packets);
    g_assert_cmpuint(!c.held, ==, !packets);
}

static void test_open(void)
{
    Outside out = outside_new();

    out.gate = packet_gate_new(LIMIT, leaves, &out);
    g_assert_true(packet_gate_idle(out.gate));
    guest_sends(out.gate, "ab", false);
    packet_gate_mark(out.gate, 1);          /* has no effect */
    packet_gate_release(out.gate, 1);
    guest_sends(out.gate, "c", false);
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "");
    waits(&out, 0);
    outside_end(&out);
}

static void test_epochs(void)
{
    Outside out = outside_new();

    outside_close(&out);
    g_assert_false(packet_gate_idle(out.gate));
    guest_sends(out.gate, "ab", true);
    packet_gate_mark(out.gate, 1);
    guest_sends(out.gate, "c", true);
    packet_gate_mark(out.gate, 2);
    guest_sends(out.gate, "d", true);
    waits(&out, 4);
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "");

    packet_gate_release(out.gate, 1);
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "ab");
    packet_gate_release(out.gate, 2);
    packet_gate_release(out.gate, 1);       /* is over: changes nothing */
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "abc");
    waits(&out, 1);
    g_assert_cmpuint(packet_gate_counts(out.gate).released, ==, 3);
    outside_end(&out);
}

/* Several epochs at once, as when an acknowledgement comes late */
static void test_gap(void)
{
    Outside out = outside_new();

    outside_close(&out);
    for (int epoch = 1; epoch <= 5; epoch++) {
        guest_sends(out.gate, "x", true);
        packet_gate_mark(out.gate, epoch);
    }
    packet_gate_release(out.gate, 4);
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "xxxx");
    outside_end(&out);
}

/* Who acknowledges what was never marked gets nothing of it. */
static void test_not_marked(void)
{
    Outside out = outside_new();

    outside_close(&out);
    guest_sends(out.gate, "a", true);
    packet_gate_release(out.gate, UINT64_MAX);
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "");
    packet_gate_mark(out.gate, 1);
    guest_sends(out.gate, "b", true);
    packet_gate_release(out.gate, 7);
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "a");
    packet_gate_mark(out.gate, 2);
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "a");
    outside_end(&out);
}

static void test_opened(void)
{
    Outside out = outside_new();

    outside_close(&out);
    guest_sends(out.gate, "a", true);
    packet_gate_mark(out.gate, 1);
    guest_sends(out.gate, "b", true);
    packet_gate_open(out.gate);
    guest_sends(out.gate, "c", true);       /* behind the others */
    g_assert_false(packet_gate_idle(out.gate));
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "abc");
    g_assert_true(packet_gate_idle(out.gate));
    guest_sends(out.gate, "d", false);
    outside_end(&out);
}

static void test_dropped(void)
{
    Outside out = outside_new();

    outside_close(&out);
    guest_sends(out.gate, "ab", true);
    packet_gate_mark(out.gate, 1);
    packet_gate_release(out.gate, 1);
    packet_gate_drop(out.gate);
    guest_sends(out.gate, "c", true);
    packet_gate_release(out.gate, 1);
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "");
    waits(&out, 0);
    g_assert_cmpuint(packet_gate_counts(out.gate).dropped, ==, 3);
    g_assert_false(packet_gate_idle(out.gate));

    packet_gate_open(out.gate);
    guest_sends(out.gate, "d", false);
    outside_end(&out);
}

static void test_full(void)
{
    Outside out = outside_new();
    char big[LIMIT] = "a.";
    struct iovec iov = { .iov_base = big, .iov_len = LIMIT / 2 };
    PacketGateCounts c;

    out.gate = packet_gate_new(LIMIT, leaves, &out);
    packet_gate_close(out.gate);
    g_assert_true(packet_gate_take(out.gate, 7, 12, &iov, 1));
    big[0] = 'b';
    g_assert_true(packet_gate_take(out.gate, 7, 12, &iov, 1));
    c = packet_gate_counts(out.gate);
    g_assert_cmpuint(c.packets, ==, 1);
    g_assert_cmpuint(c.dropped, ==, 1);
    g_assert_cmpuint(c.held, <=, LIMIT);
    g_assert_cmpuint(c.held, >, c.bytes);
    g_assert_cmpuint(c.peak, ==, c.held);
    guest_sends(out.gate, "c", true);       /* there is room for a small one */

    packet_gate_mark(out.gate, 1);
    packet_gate_release(out.gate, 1);
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "ac");
    c = packet_gate_counts(out.gate);
    g_assert_cmpuint(c.held, ==, 0);
    g_assert_cmpuint(c.bytes, ==, 0);
    outside_end(&out);
}

/* Bookkeeping counts: a great many packets of one byte are bounded, too. */
static void test_many_small(void)
{
    Outside out = outside_new();
    PacketGateCounts c;

    out.gate = packet_gate_new(LIMIT, leaves, &out);
    packet_gate_close(out.gate);
    for (int i = 0; i < LIMIT; i++) {
        guest_sends(out.gate, "a", true);
    }
    c = packet_gate_counts(out.gate);
    g_assert_cmpuint(c.held, <=, LIMIT);
    g_assert_cmpuint(c.packets, <, LIMIT / 16);
    g_assert_cmpuint(c.packets + c.dropped, ==, LIMIT);
    outside_end(&out);
}

static void test_busy(void)
{
    Outside out = outside_new();

    outside_close(&out);
    guest_sends(out.gate, "abc", true);
    packet_gate_mark(out.gate, 1);
    packet_gate_release(out.gate, 1);
    out.busy_after = 1;
    g_assert_true(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "a");
    waits(&out, 2);

    /* Released is released, and leaves first, whatever begins meanwhile. */
    packet_gate_open(out.gate);
    guest_sends(out.gate, "d", true);
    packet_gate_close(out.gate);
    guest_sends(out.gate, "e", true);
    out.busy_after = 2;
    g_assert_true(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "abc");
    out.busy_after = UINT_MAX;
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "abcd");
    waits(&out, 1);
    outside_end(&out);
}

static void test_nobody(void)
{
    Outside out = outside_new();

    outside_close(&out);
    guest_sends(out.gate, "ab", true);
    packet_gate_mark(out.gate, 1);
    packet_gate_release(out.gate, 1);
    out.nobody = true;
    g_assert_false(packet_gate_run(out.gate));
    waits(&out, 0);
    g_assert_cmpuint(packet_gate_counts(out.gate).dropped, ==, 2);
    g_assert_cmpuint(packet_gate_counts(out.gate).released, ==, 0);
    outside_end(&out);
}

/* The guest sends while a packet of it leaves: in order, in its own epoch. */
static void test_answer(void)
{
    Outside out = outside_new();

    outside_close(&out);
    guest_sends(out.gate, "ab", true);
    packet_gate_mark(out.gate, 1);
    packet_gate_release(out.gate, 1);
    out.answer = "c";
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "ab");
    waits(&out, 1);

    out.answer = "d";
    packet_gate_open(out.gate);
    g_assert_false(packet_gate_run(out.gate));
    g_assert_cmpstr(out.left->str, ==, "abcd");
    outside_end(&out);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/packet-gate/open", test_open);
    g_test_add_func("/packet-gate/epochs", test_epochs);
    g_test_add_func("/packet-gate/several-at-once", test_gap);
    g_test_add_func("/packet-gate/not-marked", test_not_marked);
    g_test_add_func("/packet-gate/opened", test_opened);
    g_test_add_func("/packet-gate/dropped", test_dropped);
    g_test_add_func("/packet-gate/full", test_full);
    g_test_add_func("/packet-gate/many-small", test_many_small);
    g_test_add_func("/packet-gate/busy", test_busy);
    g_test_add_func("/packet-gate/nobody", test_nobody);
    g_test_add_func("/packet-gate/answer", test_answer);
    return g_test_run();
}
