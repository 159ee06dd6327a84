/*
 * filter-checkpoint between a network device and a backend that are made up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "net/filter.h"
#include "net/net.h"
#include "qom/object_interfaces.h"
#include "system/runstate.h"
#include "migration/checkpoint/output-gate.h"

/* The network: one device, whose backend writes packets down as characters */

static NetClientInfo nic_info = {
    .type = NET_CLIENT_DRIVER_NIC, .size = sizeof(NICState),
};
static NICConf nic_conf;
static NICState nic;
static NetClientState nic_client, backend;
static GString *outside;
static bool guest_runs, backend_busy;
static unsigned flushes, purges;
static unsigned takes;          /* so many packets, and then none */

void qemu_foreach_nic(qemu_nic_foreach func, void *opaque)
{
    func(&nic, opaque);
}

NetClientState *qemu_get_subqueue(NICState *n, int queue_index)
{
    return n->ncs + queue_index;
}

int qemu_can_receive_packet(NetClientState *nc)
{
    return !backend_busy && !nc->receive_disabled;
}

void qemu_net_queue_purge(NetQueue *queue, NetClientState *from)
{
    g_assert(queue == backend.incoming_queue && from == &nic_client);
    purges++;
}

void qemu_flush_queued_packets(NetClientState *nc)
{
    g_assert(nc == &backend);
    flushes++;
}

bool runstate_is_running(void)
{
    return guest_runs;
}

ssize_t qemu_netfilter_pass_to_next(NetClientState *sender, unsigned flags,
                                    const struct iovec *iov, int iovcnt,
                                    void *opaque)
{
    g_assert(sender == &nic_client);
    g_assert_cmpuint(flags, ==, QEMU_NET_PACKET_FLAG_RAW);
    if (!takes) {
        backend.receive_disabled = 1;
        return 0;
    }
    takes--;
    g_string_append_len(outside, iov->iov_base, iov->iov_len);
    return iov_size(iov, iovcnt);
}

/* What is known here of the type that filters derive from */

static void finalize_filter(Object *obj)
{
    NetFilterState *nf = NETFILTER(obj);

    NETFILTER_GET_CLASS(nf)->cleanup(nf);
    if (QTAILQ_IN_USE(nf, next)) {
        QTAILQ_REMOVE(&backend.filters, nf, next);
    }
}

static const TypeInfo filter_types[] = {
    {
        .name = TYPE_NETFILTER,
        .parent = TYPE_OBJECT,
        .abstract = true,
        .class_size = sizeof(NetFilterClass),
        .instance_size = sizeof(NetFilterState),
        .instance_finalize = finalize_filter,
        .interfaces = (InterfaceInfo[]) { { TYPE_USER_CREATABLE }, { } },
    },
};

static NetFilterState *add_filter(const char *type, const char *id,
                                  NetFilterDirection direction, Error **errp)
{
    Object *obj = object_new(type);
    NetFilterState *nf = NETFILTER(obj);
    ERRP_GUARD();

    nf->on = true;
    nf->direction = direction;
    nf->netdev = &backend;
    NETFILTER_GET_CLASS(nf)->setup(nf, errp);
    if (*errp) {
        object_unref(obj);
        return NULL;
    }
    QTAILQ_INSERT_TAIL(&backend.filters, nf, next);
    object_property_add_child(object_get_objects_root(), id, obj);
    object_unref(obj);
    return nf;
}

static NetFilterState *add_gate(const char *id)
{
    return add_filter("filter-checkpoint", id, NET_FILTER_DIRECTION_ALL,
                      &error_abort);
}

static void remove_filter(NetFilterState *nf)
{
    object_unparent(OBJECT(nf));
}

static void begin_network(void)
{
    nic = (NICState) { .ncs = &nic_client, .conf = &nic_conf };
    nic_client = (NetClientState) {
        .info = &nic_info, .peer = &backend, .name = (char *)"net0",
    };
    backend = (NetClientState) {
        .peer = &nic_client, .name = (char *)"n0", .vnet_hdr_len = 12,
    };
    QTAILQ_INIT(&backend.filters);
    g_string_truncate(outside, 0);
    guest_runs = true;
    backend_busy = false;
    flushes = purges = 0;
    takes = UINT_MAX;
}

/* One packet a character; true if it is held. */
static bool guest_sends(NetFilterState *nf, const char *text)
{
    bool held = true;

    for (; *text; text++) {
        struct iovec iov = { .iov_base = (char *)text, .iov_len = 1 };
        ssize_t done = NETFILTER_GET_CLASS(nf)->receive_iov(
            nf, &nic_client, QEMU_NET_PACKET_FLAG_RAW, &iov, 1, NULL);

        g_assert(done == 0 || done == 1);
        held = held && done;
    }
    return held;
}

static void is_outside(const char *text)
{
    g_assert_cmpstr(outside->str, ==, text);
}

static void is_refused(Error *err, const char *text)
{
    g_assert_nonnull(err);
    g_assert_nonnull(strstr(error_get_pretty(err), text));
    error_free(err);
}

static OutputGateStats stats(void)
{
    OutputGateStats s;

    output_gate_stats(&s);
    return s;
}

/* Tests */

static void test_protection(void)
{
    NetFilterState *nf;

    begin_network();
    nf = add_gate("f0");
    g_assert_false(guest_sends(nf, "a"));
    output_gate_begin();
    g_assert_true(guest_sends(nf, "bc"));
    output_gate_mark(1);
    g_assert_true(guest_sends(nf, "d"));
    is_outside("");
    g_assert_cmpuint(stats().packets, ==, 3);
    g_assert_cmpuint(stats().bytes, ==, 3);
    output_gate_release(1);
    is_outside("bc");
    g_assert_cmpuint(flushes, ==, 0);
    output_gate_mark(2);
    guest_runs = false;             /* what is released leaves all the same */
    output_gate_release(2);
    is_outside("bcd");
    g_assert_cmpuint(flushes, ==, 1);
    guest_runs = true;
    g_assert_true(guest_sends(nf, "e"));
    output_gate_open();
    is_outside("bcde");
    g_assert_cmpuint(stats().released, ==, 4);
    g_assert_cmpuint(stats().dropped, ==, 0);
    g_assert_false(guest_sends(nf, "f"));
    remove_filter(nf);
}

/* What comes from the backend is for the guest. */
static void test_to_the_guest(void)
{
    NetFilterState *nf;
    struct iovec iov = { .iov_base = (char *)"x", .iov_len = 1 };

    begin_network();
    nf = add_gate("f0");
    output_gate_begin();
    g_assert_cmpint(NETFILTER_GET_CLASS(nf)->receive_iov(
                        nf, &backend, 0, &iov, 1, NULL), ==, 0);
    g_assert_cmpuint(stats().packets, ==, 0);
    output_gate_open();
    remove_filter(nf);
}

static void test_failover(void)
{
    NetFilterState *nf;

    begin_network();
    nf = add_gate("f0");
    output_gate_begin();
    guest_sends(nf, "a");
    output_gate_mark(1);
    backend_busy = true;
    output_gate_release(1);
    output_gate_drop();
    backend_busy = false;
    g_assert_true(guest_sends(nf, "b"));
    output_gate_release(1);
    is_outside("");
    g_assert_cmpuint(stats().dropped, ==, 2);
    g_assert_cmpuint(stats().packets, ==, 0);
    output_gate_open();
    g_assert_false(guest_sends(nf, "c"));
    remove_filter(nf);
}

/* A backend that is busy is tried again, in whatever state the gate is. */
static void test_busy_backend(void)
{
    NetFilterState *nf;
    int64_t end = g_get_monotonic_time() + 5 * G_USEC_PER_SEC;

    begin_network();
    nf = add_gate("f0");
    output_gate_begin();
    guest_sends(nf, "ab");
    output_gate_mark(1);
    guest_sends(nf, "c");
    backend_busy = true;
    output_gate_release(1);
    output_gate_open();
    g_assert_true(guest_sends(nf, "d"));
    is_outside("");
    backend_busy = false;
    while (outside->len < 4 && g_get_monotonic_time() < end) {
        main_loop_wait(false);
    }
    is_outside("abcd");
    g_assert_false(guest_sends(nf, "e"));
    remove_filter(nf);
}

/* What a backend has not taken is not left in its queue, and comes again. */
static void test_overfull_backend(void)
{
    NetFilterState *nf;

    begin_network();
    nf = add_gate("f0");
    output_gate_begin();
    guest_sends(nf, "abc");
    output_gate_mark(1);
    takes = 1;
    output_gate_release(1);
    is_outside("a");
    g_assert_cmpuint(purges, ==, 1);
    g_assert_cmpuint(stats().packets, ==, 2);
    output_gate_release(1);         /* it is still full */
    is_outside("a");
    g_assert_cmpuint(purges, ==, 1);
    takes = UINT_MAX;
    backend.receive_disabled = 0;
    output_gate_release(1);
    is_outside("abc");
    g_assert_cmpuint(stats().dropped, ==, 0);
    output_gate_open();
    remove_filter(nf);
}

static void test_no_receiver(void)
{
    NetFilterState *nf;

    begin_network();
    nf = add_gate("f0");
    output_gate_begin();
    guest_sends(nf, "a");
    output_gate_mark(1);
    backend.vnet_hdr_len = 10;      /* as after a reset of the device */
    output_gate_release(1);
    guest_sends(nf, "b");
    output_gate_mark(2);
    backend.peer = NULL;            /* it was unplugged */
    output_gate_release(2);
    is_outside("");
    g_assert_cmpuint(stats().dropped, ==, 2);
    output_gate_open();
    remove_filter(nf);
}

static void test_in_use(void)
{
    NetFilterState *nf;
    NetFilterClass *nfc;
    Error *err = NULL;

    begin_network();
    nf = add_gate("f0");
    nfc = NETFILTER_GET_CLASS(nf);
    output_gate_begin();
    g_assert_false(user_creatable_can_be_deleted(USER_CREATABLE(nf)));
    nf->on = false;
    nfc->status_changed(nf, &err);
    is_refused(err, "cannot be switched off");
    g_assert_true(nf->on);

    /* ... nor when protection is over, but packets still wait */
    guest_sends(nf, "a");
    backend_busy = true;
    output_gate_open();
    g_assert_false(user_creatable_can_be_deleted(USER_CREATABLE(nf)));
    backend_busy = false;
    output_gate_open();
    is_outside("a");
    g_assert_true(user_creatable_can_be_deleted(USER_CREATABLE(nf)));
    nf->on = false;
    nfc->status_changed(nf, &error_abort);
    g_assert_false(nf->on);
    remove_filter(nf);
}

/* netdev_del removes the filter, whatever it holds. */
static void test_backend_removed(void)
{
    NetFilterState *nf;

    begin_network();
    nf = add_gate("f0");
    output_gate_begin();
    guest_sends(nf, "abc");
    output_gate_mark(1);
    output_gate_release(1);
    guest_sends(nf, "de");
    remove_filter(nf);
    is_outside("abc");
    g_assert_cmpuint(stats().packets, ==, 0);
    g_assert_cmpuint(stats().released, ==, 3);
    g_assert_cmpuint(stats().dropped, ==, 2);
    output_gate_open();
}

static void test_added_late(void)
{
    NetFilterState *nf;

    begin_network();
    output_gate_begin();
    output_gate_mark(1);
    nf = add_gate("f0");
    g_assert_true(guest_sends(nf, "a"));
    output_gate_release(1);
    is_outside("");
    output_gate_mark(2);
    output_gate_release(2);
    is_outside("a");
    remove_filter(nf);
    output_gate_drop();
    nf = add_gate("f0");
    g_assert_true(guest_sends(nf, "b"));
    output_gate_open();
    is_outside("a");
    remove_filter(nf);
}

static void test_possible(void)
{
    NetFilterState *nf, *front;
    Error *err = NULL;

    begin_network();
    g_assert_false(output_gate_possible(&err));
    is_refused(err, "backend 'n0' of device 'net0' has no filter-checkpoint");
    err = NULL;

    nf = add_gate("f0");
    g_assert_true(output_gate_possible(&error_abort));
    nf->on = false;
    g_assert_false(output_gate_possible(&err));
    is_refused(err, "has no filter-checkpoint that is on");
    err = NULL;
    nf->on = true;
    nf->direction = NET_FILTER_DIRECTION_TX;
    g_assert_false(output_gate_possible(&err));
    is_refused(err, "has no filter-checkpoint that is on");
    err = NULL;
    nf->direction = NET_FILTER_DIRECTION_RX;
    g_assert_true(output_gate_possible(&error_abort));

    /* The last of the list is the first to get what the guest sends. */
    front = add_filter("filter-other", "other", NET_FILTER_DIRECTION_ALL,
                       &error_abort);
    g_assert_false(output_gate_possible(&err));
    is_refused(err, "filter 'other' of network backend 'n0'");
    err = NULL;
    front->direction = NET_FILTER_DIRECTION_TX;
    g_assert_true(output_gate_possible(&error_abort));
    front->direction = NET_FILTER_DIRECTION_ALL;
    front->on = false;
    g_assert_true(output_gate_possible(&error_abort));
    front->on = true;
    remove_filter(nf);
    nf = add_gate("f0");
    g_assert_true(output_gate_possible(&error_abort));
    remove_filter(front);
    remove_filter(nf);

    nic_client.peer = NULL;
    g_assert_true(output_gate_possible(&error_abort));
}

static void test_properties(void)
{
    NetFilterState *nf;
    Error *err = NULL;

    begin_network();
    g_assert_null(add_filter("filter-checkpoint", "f0",
                             NET_FILTER_DIRECTION_TX, &err));
    is_refused(err, "queue must be 'rx' or 'all'");
    err = NULL;
    nf = add_gate("f0");
    g_assert_cmpuint(object_property_get_uint(OBJECT(nf), "max-bytes",
                                              &error_abort), ==,
                     OUTPUT_GATE_BYTES);
    object_property_set_uint(OBJECT(nf), "max-bytes", GiB, &err);
    is_refused(err, "cannot be changed");
    remove_filter(nf);
    nf = NETFILTER(object_new("filter-checkpoint"));
    err = NULL;
    object_property_set_uint(OBJECT(nf), "max-bytes",
                             OUTPUT_GATE_BYTES_MIN - 1, &err);
    is_refused(err, "must be at least");
    object_property_set_uint(OBJECT(nf), "max-bytes", OUTPUT_GATE_BYTES_MIN,
                             &error_abort);
    object_unref(OBJECT(nf));
}

static void setup_other(NetFilterState *nf, Error **errp)
{
}

static void cleanup_other(NetFilterState *nf)
{
}

static void other_class_init(ObjectClass *oc, void *data)
{
    NETFILTER_CLASS(oc)->setup = setup_other;
    NETFILTER_CLASS(oc)->cleanup = cleanup_other;
}

static const TypeInfo other_filter = {
    .name = "filter-other",
    .parent = TYPE_NETFILTER,
    .class_init = other_class_init,
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    type_register_static_array(filter_types, ARRAY_SIZE(filter_types));
    type_register_static(&other_filter);
    qemu_init_main_loop(&error_abort);
    rust_bql_mock_lock();
    outside = g_string_new("");
    g_test_add_func("/output-gate/protection", test_protection);
    g_test_add_func("/output-gate/to-the-guest", test_to_the_guest);
    g_test_add_func("/output-gate/failover", test_failover);
    g_test_add_func("/output-gate/busy-backend", test_busy_backend);
    g_test_add_func("/output-gate/overfull-backend", test_overfull_backend);
    g_test_add_func("/output-gate/no-receiver", test_no_receiver);
    g_test_add_func("/output-gate/in-use", test_in_use);
    g_test_add_func("/output-gate/backend-removed", test_backend_removed);
    g_test_add_func("/output-gate/added-late", test_added_late);
    g_test_add_func("/output-gate/possible", test_possible);
    g_test_add_func("/output-gate/properties", test_properties);
    return g_test_run();
}
