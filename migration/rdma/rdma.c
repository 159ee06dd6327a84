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
    unsigned count;
    RdmaLink *const *others = rdma_channel_others(s->channel, &count);

    s->sink = rdma_sink_new(rdma_channel_main(s->channel),
                            rdma_channel_hello(s->channel), others, count,
                            stream, regions);
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

/* All links of a source, until they are a channel's */
typedef struct Links {
    RdmaLink *main, *back;
    RdmaLink *others[WIRE_RDMA_MORE_MAX];
    unsigned count;
} Links;

static void free_links(Links *links)
{
    for (unsigned i = 0; i < links->count; i++) {
        rdma_link_free(links->others[i]);
    }
    rdma_link_free(links->back);
    rdma_link_free(links->main);
}

static bool connect_back(const MigrationAddress *addr, const RdmaHello *hello,
                         Links *links, const bool *called_off, Error **errp)
{
    RdmaHello again = *hello;

    again.more = 0;
    links->back = rdma_connect_to(&addr->u.rdma, &again, NULL,
                                  RDMA_ROOM_BACK, called_off, errp);
    if (!links->back) {
        error_prepend(errp, "the connection for answers, which needs "
                      "'return-path' on the destination as well: ");
    }
    return links->back;
}

static bool connect_others(const MigrationAddress *addr,
                           const RdmaHello *hello, Links *links,
                           const bool *called_off, Error **errp)
{
    while (links->count < hello->more) {
        RdmaHello again = *hello;
        RdmaLink *link;

        again.more = 0;
        again.writes_only = true;
        link = rdma_connect_to(&addr->u.rdma, &again, links->main,
                               RDMA_ROOM_NONE, called_off, errp);
        if (!link) {
            error_prepend(errp, "queue pair %u: ", links->count + 2);
            return false;
        }
        links->others[links->count++] = link;
    }
    return true;
}

static void warn_of_less(const RdmaHello *wanted, const RdmaHello *hello)
{
    if (wanted->pin_all && !hello->pin_all) {
        warn_report("the destination does not pin all memory: it is registered "
                    "piece by piece");
    }
    if (wanted->more > hello->more) {
        warn_report("the destination accepts %u queue pairs and not %u",
                    hello->more + 1, wanted->more + 1);
    }
}

/* In a thread of its own */
static QIOChannel *open_rdma(const MigrationAddress *addr, bool both_ways,
                             const bool *called_off, Error **errp)
{
    ERRP_GUARD();
    const RdmaHello wanted = {
        .pin_all = migrate_rdma_pin_all(), .peers = true, .copies = true,
        .window = true,
        .chunk_bits = ctz64(migrate_rdma_chunk_size()),
        .more = migrate_rdma_queue_pairs() - 1,
    };
    RdmaHello hello = wanted;
    RdmaChannel *channel = NULL;
    Links links = { };

    links.main = rdma_connect_to(&addr->u.rdma, &hello, NULL,
                                 RDMA_ROOM_MAIN, called_off, errp);
    if (links.main &&
        (!both_ways || connect_back(addr, &hello, &links, called_off, errp)) &&
        connect_others(addr, &hello, &links, called_off, errp)) {
        channel = rdma_channel_new(links.main, links.back, false, &hello,
                                   errp);
    }
    if (!channel) {
        free_links(&links);
        return NULL;
    }
    for (unsigned i = 0; i < links.count; i++) {
        rdma_channel_add(channel, links.others[i]);
    }
    warn_of_less(&wanted, &hello);
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
