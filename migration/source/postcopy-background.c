/*
 * The source in postcopy: the background on the channels of multifd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "migration/base/clock.h"
#include "migration/migration-stats.h"
#include "migration/multifd/senders.h"
#include "migration/options.h"
#include "migration/ram/ram-source.h"
#include "migration/wire/wire.h"
#include "postcopy-background.h"
#include "state.h"

/* Written by the migration thread */
static enum {
    BACKGROUND_ON_MAIN,         /* there are no channels, or none any more */
    BACKGROUND_TO_BEGIN,        /* the first mark is to be made */
    BACKGROUND_ON_CHANNELS,
    BACKGROUND_SENT,            /* the last mark has been made */
} background;
static bool had_channels;       /* it began on them; of the migration thread */

bool postcopy_background_begin(PostcopySender *ps)
{
    bool possible = source.senders &&
                    ram_source_peer() & WIRE_PEER_POSTCOPY_CHANNELS &&
                    senders_have_records(source.senders);

    background = possible ? BACKGROUND_TO_BEGIN : BACKGROUND_ON_MAIN;
    had_channels |= possible;
    postcopy_sender_set_helpers(ps, possible ? senders_count(source.senders)
                                             : 0);
    return possible;
}

bool postcopy_background_again(void)
{
    return had_channels && !migrate_postcopy_preempt() &&
           ram_source_peer() & WIRE_PEER_CHANNELS_AGAIN;
}

bool postcopy_background_begun(void)
{
    return background != BACKGROUND_ON_MAIN;
}

/* In postcopy the section's sink is always the stream's. */
static int mark(RamSender *main)
{
    RamStreamSink *sink = container_of(main->sink, RamStreamSink, sink);

    senders_mark(source.senders);
    return ram_stream_sink_mark(sink) ?: senders_settle(source.senders, main);
}

/* A SenderTurn */
static void help(void *ps, unsigned i, RamSender *via)
{
    postcopy_sender_help(ps, i, via);
}

/*
 * Requests do not wait for the threads, which may be waiting for the network.
 * These end when they are told to, or when somebody cuts their channels.
 */
static RamSendResult run_turn(PostcopySender *ps, RamSender *main)
{
    Senders *s = source.senders;
    int64_t end = now_ns() + RAM_SEND_NS;
    bool stopped = false;

    senders_begin_turn(s, help, ps);
    while (!senders_wait_turn(s)) {
        postcopy_sender_serve_queue(ps, main);
        if (!stopped && (migration_rate_wait_ns() || now_ns() >= end)) {
            senders_stop_turn(s);
            stopped = true;
        }
        if (ram_sink_error(main->sink) || !source_may_go_on(NULL)) {
            senders_shutdown(s);
        }
    }
    if (senders_end_turn(s, main)) {
        return RAM_SEND_ERROR;
    }
    return ram_sender_left(ps->regions) ? RAM_SEND_SOME : RAM_SEND_ALL;
}

RamSendResult postcopy_background_run(PostcopySender *ps, RamSender *main,
                                      bool all)
{
    RamSendResult result = RAM_SEND_SOME;

    postcopy_sender_serve_queue(ps, main);
    if (background == BACKGROUND_SENT) {
        return RAM_SEND_ALL;
    }
    if (!ps->quota && !all) {
        return RAM_SEND_SOME;
    }
    if (background == BACKGROUND_TO_BEGIN) {
        if (mark(main)) {
            return RAM_SEND_ERROR;
        }
        background = BACKGROUND_ON_CHANNELS;
    }
    do {
        result = run_turn(ps, main);
    } while (all && result == RAM_SEND_SOME);
    if (result == RAM_SEND_ALL) {
        background = BACKGROUND_SENT;
        if (mark(main)) {
            return RAM_SEND_ERROR;
        }
    }
    return result;
}

void postcopy_background_nudge(void)
{
    QEMU_LOCK_GUARD(&source.lock);
    if (source.senders) {
        senders_nudge(source.senders);
    }
}

void postcopy_background_end(PostcopySender *ps)
{
    if (postcopy_background_begun()) {
        background = BACKGROUND_ON_MAIN;
        postcopy_sender_set_helpers(ps, 0);
    }
}

void postcopy_background_forget(PostcopySender *ps)
{
    postcopy_background_end(ps);
    had_channels = false;
}
