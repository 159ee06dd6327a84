/*
 * Checkpoints: what the guest sends waits until its epoch is acknowledged
 *
 * The object filter-checkpoint, and all of these objects together.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "net/filter.h"
#include "net/net.h"
#include "qom/object_interfaces.h"
#include "system/runstate.h"
#include "migration/trace.h"
#include "output-gate.h"
#include "packet-gate.h"

#define TYPE_FILTER_CHECKPOINT "filter-checkpoint"
OBJECT_DECLARE_SIMPLE_TYPE(FilterCheckpoint, FILTER_CHECKPOINT)

/* A backend that is busy says to nobody here when it no longer is. */
#define RETRY_MS 1

struct FilterCheckpoint {
    NetFilterState parent_obj;

    PacketGate *gate;           /* NULL before the setup */
    QEMUTimer retry;
    uint64_t max_bytes;
    bool warned;                /* since output_gate_begin() */
    QLIST_ENTRY(FilterCheckpoint) next;
};

typedef enum OutputState {
    OUTPUT_OPEN, OUTPUT_CLOSED, OUTPUT_DROPPING,
} OutputState;

/* All gates; under the BQL. */
static struct {
    OutputState state;
    uint64_t marked;            /* the last epoch, 0 before the first */
    /* Of filters that are gone, since output_gate_begin() */
    uint64_t released, dropped, peak;
    QLIST_HEAD(, FilterCheckpoint) filters;
} output = { .filters = QLIST_HEAD_INITIALIZER(output.filters) };

static const char *filter_name(const FilterCheckpoint *f)
{
    return object_get_canonical_path_component(OBJECT(f));
}

/* Sending on */

/*
 * What a backend cannot take it leaves in its queue, which is emptied whenever
 * the guest is stopped, and so in each epoch.  The packet stays here instead,
 * as the first one: a backend may have sent a part of it.
 */
static GateSent filter_send(void *opaque, const GatePacket *packet)
{
    NetFilterState *nf = opaque;
    NetClientState *sender = nf->netdev->peer;
    struct iovec iov = {
        .iov_base = (void *)packet->data, .iov_len = packet->size,
    };

    if (!sender || packet->header != nf->netdev->vnet_hdr_len) {
        return GATE_NOWHERE;
    }
    if (!qemu_can_receive_packet(nf->netdev)) {
        return GATE_BUSY;
    }
    qemu_netfilter_pass_to_next(sender, packet->flags, &iov, 1, nf);
    if (!runstate_is_running()) {
        /* It is in the backend's queue, which waits for the guest to run. */
        qemu_flush_queued_packets(nf->netdev);
    }
    if (nf->netdev->receive_disabled) {
        qemu_net_queue_purge(nf->netdev->incoming_queue, sender);
        return GATE_BUSY;
    }
    return GATE_SENT;
}

static void filter_run(FilterCheckpoint *f)
{
    if (packet_gate_run(f->gate)) {
        timer_mod(&f->retry,
                  qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + RETRY_MS);
    } else {
        timer_del(&f->retry);
    }
}

static void filter_retry(void *opaque)
{
    filter_run(opaque);
}

/* All gates */

void output_gate_begin(void)
{
    FilterCheckpoint *f;

    assert(bql_locked());
    output.state = OUTPUT_CLOSED;
    output.marked = output.released = output.dropped = output.peak = 0;
    QLIST_FOREACH(f, &output.filters, next) {
        packet_gate_close(f->gate);
        f->warned = false;
    }
    trace_migration_output_begin();
}

void output_gate_mark(uint64_t epoch)
{
    FilterCheckpoint *f;

    assert(bql_locked());
    if (output.state != OUTPUT_CLOSED) {
        return;
    }
    output.marked = epoch;
    QLIST_FOREACH(f, &output.filters, next) {
        packet_gate_mark(f->gate, epoch);
    }
}

void output_gate_release(uint64_t epoch)
{
    FilterCheckpoint *f;

    assert(bql_locked());
    QLIST_FOREACH(f, &output.filters, next) {
        PacketGateCounts before = packet_gate_counts(f->gate);

        packet_gate_release(f->gate, epoch);
        filter_run(f);
        trace_migration_output_release(
            filter_name(f), epoch,
            packet_gate_counts(f->gate).released - before.released,
            packet_gate_counts(f->gate).packets);
    }
}

void output_gate_open(void)
{
    FilterCheckpoint *f;

    assert(bql_locked());
    output.state = OUTPUT_OPEN;
    QLIST_FOREACH(f, &output.filters, next) {
        uint64_t packets = packet_gate_counts(f->gate).packets;

        packet_gate_open(f->gate);
        filter_run(f);
        trace_migration_output_open(filter_name(f), packets);
    }
}

void output_gate_drop(void)
{
    FilterCheckpoint *f;

    assert(bql_locked());
    output.state = OUTPUT_DROPPING;
    QLIST_FOREACH(f, &output.filters, next) {
        trace_migration_output_drop(filter_name(f),
                                    packet_gate_counts(f->gate).packets);
        packet_gate_drop(f->gate);
        timer_del(&f->retry);
    }
}

void output_gate_stats(OutputGateStats *stats)
{
    FilterCheckpoint *f;

    assert(bql_locked());
    *stats = (OutputGateStats) {
        .released = output.released, .dropped = output.dropped,
        .peak_bytes = output.peak,
    };
    QLIST_FOREACH(f, &output.filters, next) {
        PacketGateCounts c = packet_gate_counts(f->gate);

        stats->packets += c.packets;
        stats->bytes += c.bytes;
        stats->released += c.released;
        stats->dropped += c.dropped;
        stats->peak_bytes = MAX(stats->peak_bytes, c.peak);
    }
}

/* Whether nothing gets past them */

static bool sees_output(const NetFilterState *nf)
{
    return nf->on && nf->direction != NET_FILTER_DIRECTION_TX;
}

/* What the guest sends to @backend meets the last filter of its list first. */
static bool backend_is_gated(NetClientState *nic, NetClientState *backend,
                             Error **errp)
{
    NetFilterState *nf, *first = NULL;
    bool gated = false;

    QTAILQ_FOREACH(nf, &backend->filters, next) {
        if (sees_output(nf)) {
            first = nf;
            gated |= !!object_dynamic_cast(OBJECT(nf),
                                           TYPE_FILTER_CHECKPOINT);
        }
    }
    if (!gated) {
        error_setg(errp, "network backend '%s' of device '%s' has no "
                   TYPE_FILTER_CHECKPOINT " that is on", backend->name,
                   nic->name);
        error_append_hint(errp, "What the guest sends has to wait for the "
                          "acknowledgement of its checkpoint: add -object "
                          TYPE_FILTER_CHECKPOINT ",id=ID,netdev=%s.\n",
                          backend->name);
        return false;
    }
    if (!object_dynamic_cast(OBJECT(first), TYPE_FILTER_CHECKPOINT)) {
        error_setg(errp, "filter '%s' of network backend '%s' gets what the "
                   "guest sends before " TYPE_FILTER_CHECKPOINT " does",
                   object_get_canonical_path_component(OBJECT(first)),
                   backend->name);
        error_append_hint(errp, "Add it with position=head.\n");
        return false;
    }
    return true;
}

typedef struct Search {
    bool failed;
    Error **errp;
} Search;

static void check_nic(NICState *nic, void *opaque)
{
    Search *search = opaque;
    int queues = MAX(nic->conf->peers.queues, 1);

    for (int i = 0; i < queues && !search->failed; i++) {
        NetClientState *nc = qemu_get_subqueue(nic, i);

        search->failed = nc->peer &&
                         !backend_is_gated(nc, nc->peer, search->errp);
    }
}

bool output_gate_possible(Error **errp)
{
    Search search = { .errp = errp };

    assert(bql_locked());
    qemu_foreach_nic(check_nic, &search);
    return !search.failed;
}

/* The object */

static void filter_tell_full(FilterCheckpoint *f, size_t size)
{
    trace_migration_output_full(filter_name(f), size);
    if (!f->warned && output.state != OUTPUT_DROPPING) {
        f->warned = true;
        warn_report("filter '%s' has no room for what the guest sends, which "
                    "is dropped: max-bytes is %" PRIu64, filter_name(f),
                    f->max_bytes);
    }
}

static ssize_t filter_receive(NetFilterState *nf, NetClientState *sender,
                              unsigned flags, const struct iovec *iov,
                              int iovcnt, NetPacketSent *sent_cb)
{
    FilterCheckpoint *f = FILTER_CHECKPOINT(nf);
    uint64_t dropped = packet_gate_counts(f->gate).dropped;

    if (sender == nf->netdev) {
        return 0;               /* to the guest */
    }
    if (!packet_gate_take(f->gate, flags, nf->netdev->vnet_hdr_len, iov,
                          iovcnt)) {
        return 0;
    }
    if (packet_gate_counts(f->gate).dropped != dropped) {
        filter_tell_full(f, iov_size(iov, iovcnt));
    }
    /* The sender is done with it, and need not be told again. */
    return iov_size(iov, iovcnt);
}

static void filter_setup(NetFilterState *nf, Error **errp)
{
    FilterCheckpoint *f = FILTER_CHECKPOINT(nf);

    if (nf->direction == NET_FILTER_DIRECTION_TX) {
        error_setg(errp, TYPE_FILTER_CHECKPOINT " is for what the guest sends: "
                   "queue must be 'rx' or 'all'");
        return;
    }
    f->gate = packet_gate_new(f->max_bytes, filter_send, nf);
    if (output.state == OUTPUT_DROPPING) {
        packet_gate_drop(f->gate);
    } else if (output.state == OUTPUT_CLOSED) {
        packet_gate_close(f->gate);
        if (output.marked) {
            packet_gate_mark(f->gate, output.marked);
        }
    }
    QLIST_INSERT_HEAD(&output.filters, f, next);
}

static void filter_cleanup(NetFilterState *nf)
{
    FilterCheckpoint *f = FILTER_CHECKPOINT(nf);
    PacketGateCounts c;

    timer_del(&f->retry);
    if (!f->gate) {
        return;
    }
    c = packet_gate_counts(f->gate);
    output.released += c.released;
    output.dropped += c.dropped + c.packets;
    output.peak = MAX(output.peak, c.peak);
    trace_migration_output_drop(filter_name(f) ?: "", c.packets);
    QLIST_REMOVE(f, next);
    packet_gate_free(f->gate);
    f->gate = NULL;
}

static void filter_status_changed(NetFilterState *nf, Error **errp)
{
    FilterCheckpoint *f = FILTER_CHECKPOINT(nf);

    if (!nf->on && f->gate && !packet_gate_idle(f->gate)) {
        nf->on = true;
        error_setg(errp, "filter '%s' cannot be switched off: it holds what "
                   "the guest sends until its checkpoint is acknowledged",
                   filter_name(f));
        error_append_hint(errp, "Cancel the migration first.\n");
    }
}

static bool filter_can_be_deleted(UserCreatable *uc)
{
    FilterCheckpoint *f = FILTER_CHECKPOINT(uc);

    return !f->gate || packet_gate_idle(f->gate);
}

static void filter_get_max_bytes(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    uint64_t value = FILTER_CHECKPOINT(obj)->max_bytes;

    visit_type_size(v, name, &value, errp);
}

static void filter_set_max_bytes(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    FilterCheckpoint *f = FILTER_CHECKPOINT(obj);
    uint64_t value;

    if (!visit_type_size(v, name, &value, errp)) {
        return;
    }
    if (f->gate) {
        error_setg(errp, "%s cannot be changed", name);
    } else if (value < OUTPUT_GATE_BYTES_MIN) {
        error_setg(errp, "%s must be at least %" PRIu64, name,
                   (uint64_t)OUTPUT_GATE_BYTES_MIN);
    } else {
        f->max_bytes = value;
    }
}

static void filter_init(Object *obj)
{
    FilterCheckpoint *f = FILTER_CHECKPOINT(obj);

    f->max_bytes = OUTPUT_GATE_BYTES;
    timer_init_ms(&f->retry, QEMU_CLOCK_REALTIME, filter_retry, f);
}

static void filter_class_init(ObjectClass *oc, void *data)
{
    NetFilterClass *nfc = NETFILTER_CLASS(oc);

    object_class_property_add(oc, "max-bytes", "size", filter_get_max_bytes,
                              filter_set_max_bytes, NULL, NULL);
    nfc->setup = filter_setup;
    nfc->cleanup = filter_cleanup;
    nfc->receive_iov = filter_receive;
    nfc->status_changed = filter_status_changed;
    USER_CREATABLE_CLASS(oc)->can_be_deleted = filter_can_be_deleted;
}

static const TypeInfo filter_checkpoint_info = {
    .name = TYPE_FILTER_CHECKPOINT,
    .parent = TYPE_NETFILTER,
    .class_init = filter_class_init,
    .instance_size = sizeof(FilterCheckpoint),
    .instance_init = filter_init,
};

static void filter_register_types(void)
{
    type_register_static(&filter_checkpoint_info);
}

type_init(filter_register_types);
