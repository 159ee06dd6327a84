/*
 * Migration over RDMA: what the two sides know of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/ram/load.h"
#include "migration/ram/ram-source.h"
#include "migration/transport/transport.h"
#include "channel.h"
#include "connect.h"
#include "listen.h"
#include "load.h"
#include "rdma.h"
#include "sink.h"

/*
 * What is not possible over it
 */

/*
 * An attempt that is given up leaves memory discarded that is registered: what
 * was written to it after that would not arrive.
 */
static bool is_strict_with_postcopy(void)
{
    return migrate_strict_downtime() && migrate_postcopy_ram();
}

static bool is_cpr(void)
{
    return migrate_mode() != MIG_MODE_NORMAL;
}

static const struct {
    bool (*is_set)(void);
    const char *what;
} excluded[] = {
    { migrate_multifd, "capability 'multifd'" },
    { migrate_postcopy_preempt, "capability 'postcopy-preempt'" },
    { is_strict_with_postcopy,
      "capabilities 'strict-downtime' and 'postcopy-ram' together" },
    { migrate_xbzrle, "capability 'xbzrle'" },
    { migrate_ignore_shared, "capability 'x-ignore-shared'" },
    { migrate_mapped_ram, "capability 'mapped-ram'" },
    { migrate_background_snapshot, "capability 'background-snapshot'" },
    { is_cpr, "parameter 'mode'" },
    { migrate_tls, "parameter 'tls-creds'" },
};

bool rdma_permits(const MigrationAddress *addr, Error **errp)
{
    if (addr->transport != MIGRATION_ADDRESS_TYPE_RDMA) {
        return true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(excluded); i++) {
        if (excluded[i].is_set()) {
            error_setg(errp, "migration over RDMA is not possible with the %s; "
                       "turn it off, or use tcp:HOST:PORT", excluded[i].what);
            return false;
        }
    }
    return true;
}

/*
 * The source
 */

/* One migration; freed with the section "ram" */
typedef struct Sending {
    RdmaChannel *channel;
    RdmaSink *sink;
} Sending;

static RamSink *sending_make(void *opaque, RamStreamSink *stream,
                             const RamRegions *regions)
{
    Sending *s = opaque;

    s->sink = rdma_sink_new(rdma_channel_main(s->channel),
                            rdma_channel_hello(s->channel), stream,
                            regions);
    return rdma_sink_base(s->sink);
}

static int sending_begin(void *opaque)
{
    Sending *s = opaque;

    return rdma_sink_begin(s->sink);
}

static void sending_free(void *opaque)
{
    Sending *s = opaque;

    rdma_sink_free(s->sink);
    g_free(s);
}

bool rdma_carries(QIOChannel *ioc)
{
    return rdma_channel_of(ioc);
}

void rdma_source_begin(QIOChannel *ioc)
{
    RdmaChannel *channel = rdma_channel_of(ioc);
    Sending *s;
    RamOtherSink other = {
        .make = sending_make, .begin = sending_begin, .free = sending_free,
    };

    if (channel) {
        s = g_new0(Sending, 1);
        s->channel = channel;
        other.opaque = s;
        ram_source_set_sink(&other);
    }
}

/*
 * The destination
 */

/* BQL, but while a load is under way: then it is left alone */
static RdmaLoad *rdma_loading;

static bool load_hook(RamRegions *regions, Error **errp)
{
    return rdma_load_part(rdma_loading, regions, errp);
}

void rdma_destination_begin(QIOChannel *ioc)
{
    RdmaChannel *channel = rdma_channel_of(ioc);

    if (channel) {
        RdmaHello hello = *rdma_channel_hello(channel);

        if (!hello.peers) {
            hello.chunk_bits = ctz64(migrate_rdma_chunk_size());
        }
        rdma_loading = rdma_load_new(rdma_channel_main(channel), &hello);
        ram_load_set_hook(load_hook);
    }
}

void rdma_destination_end(void)
{
    ram_load_set_hook(NULL);
    g_clear_pointer(&rdma_loading, rdma_load_free);
}

/*
 * Addresses
 */

/* In a thread of its own */
static QIOChannel *open_rdma(const MigrationAddress *addr, bool both_ways,
                             const bool *called_off, Error **errp)
{
    bool wanted = migrate_rdma_pin_all();
    RdmaHello hello = {
        .pin_all = wanted, .peers = true, .copies = true,
        .chunk_bits = ctz64(migrate_rdma_chunk_size()),
    };
    RdmaLink *main = rdma_connect_to(&addr->u.rdma, &hello, called_off, errp);
    RdmaLink *back = NULL;
    RdmaChannel *channel = NULL;

    if (!main) {
        return NULL;
    }
    if (both_ways) {
        RdmaHello again = hello;

        back = rdma_connect_to(&addr->u.rdma, &again, called_off, errp);
        if (!back) {
            error_prepend(errp, "the connection for answers, which needs "
                          "'return-path' on the destination as well: ");
        }
    }
    if (back || !both_ways) {
        channel = rdma_channel_new(main, back, false, &hello, errp);
    }
    if (!channel) {
        rdma_link_free(back);
        rdma_link_free(main);
        return NULL;
    }
    if (wanted && !hello.pin_all) {
        warn_report("the destination does not pin all memory: it is registered "
                    "piece by piece");
    }
    qio_channel_set_name(QIO_CHANNEL(channel), "migration-rdma-outgoing");
    return QIO_CHANNEL(channel);
}

static bool listen_rdma(const MigrationAddress *addr,
                        TransportForeignArrived *arrived, Error **errp)
{
    return rdma_listen_at(&addr->u.rdma, arrived, errp);
}

static const TransportForeign rdma_foreign = {
    .connect = open_rdma,
    .listen = listen_rdma,
    .listen_stop = rdma_listen_stop,
};

static void __attribute__((constructor)) rdma_register_address(void)
{
    transport_set_foreign(MIGRATION_ADDRESS_TYPE_RDMA, &rdma_foreign);
}
