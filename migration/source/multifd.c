/*
 * The source: the channels of multifd, from their connection to their end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "exec/target_page.h"
#include "system/system.h"
#include "migration/base/stats.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/ram/ram-source.h"
#include "migration/transport/transport.h"
#include "migration/wire/packet.h"
#include "migration/wire/stream.h"
#include "channel.h"
#include "multifd.h"
#include "save.h"
#include "state.h"

static int level_of(MultiFDCompression method)
{
    switch (method) {
    case MULTIFD_COMPRESSION_ZLIB:
        return migrate_multifd_zlib_level();
#ifdef CONFIG_ZSTD
    case MULTIFD_COMPRESSION_ZSTD:
        return migrate_multifd_zstd_level();
#endif
#ifdef CONFIG_QATZIP
    case MULTIFD_COMPRESSION_QATZIP:
        return migrate_multifd_qatzip_level();
#endif
    default:
        return 0;
    }
}

/* The compression that was requested last, whether it was possible or not */
static struct {
    MultiFDCompression method;
    int level;
} requested;

/* What the migration began with, and so what is set on the destination */
static MultiFDCompression first_method;

static void read_request(void)
{
    requested.method = migrate_multifd_compression();
    requested.level = level_of(requested.method);
}

static bool peer_takes_any_method(void)
{
    return ram_source_peer() & WIRE_PEER_ANY_METHOD;
}

/*
 * A migration goes on with what it began with where the destination does not
 * know that it may change.  Whether the library of another method is there is
 * not known, unless it is the one that the migration began with.
 */
static void change_method(Senders *s)
{
    Error *err = NULL;

    read_request();
    if (!peer_takes_any_method()) {
        error_setg(&err, "the destination does not understand that");
    } else if (requested.method != first_method &&
               !codec_is_for_any_peer(requested.method)) {
        error_setg(&err, "this method has to be set before a migration begins");
    } else if (senders_set_method(s, requested.method, requested.level, &err)) {
        return;
    }
    warn_reportf_err(err, "multifd: the compression cannot be changed to '%s', "
                     "and stays as it was: ",
                     MultiFDCompression_str(requested.method));
}

/* Before the first turn: what the destination understands is known. */
static void begin_automatic(Senders *s)
{
    if (requested.method == MULTIFD_COMPRESSION_AUTO &&
        !peer_takes_any_method()) {
        warn_report("multifd: the destination is not known to understand "
                    "'multifd-compression' 'auto', so nothing is compressed");
        senders_set_method(s, MULTIFD_COMPRESSION_NONE, 0, &error_abort);
    }
}

/* A RamRunFn: a turn, with the settings as they are */
static RamSendResult multifd_run(void *opaque, RamSender *main, bool all)
{
    MultiFDCompression method = migrate_multifd_compression();

    if (method != requested.method || level_of(method) != requested.level) {
        change_method(opaque);
    }
    return senders_run(opaque, main, all);
}

static SendersConfig multifd_config(void)
{
    ZeroPageDetection zeros = migrate_zero_page_detection();

    read_request();
    first_method = requested.method;
    return (SendersConfig) {
        .page_bits = qemu_target_page_bits(),
        .method = requested.method,
        .level = requested.level,
        .find_zeros = zeros != ZERO_PAGE_DETECTION_NONE,
        .tells_zeros = zeros == ZERO_PAGE_DETECTION_MULTIFD,
    };
}

/* Of the recovery that channels are connected for; 0: none.  Who connects */
static uint32_t attempt_of_channels;

/* The destination knows by this which of them it is. */
static void introduce_channel(QEMUFile *f, unsigned id)
{
    WireMultifdInit init;

    stream_count_in(f, &mig_stats.multifd_bytes);
    packet_fill_init(&init, &qemu_uuid, id, attempt_of_channels);
    qemu_put_buffer(f, (uint8_t *)&init, sizeof(init));
    qemu_fflush(f);
}

static void close_files(QEMUFile **files, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        qemu_file_set_error(files[i], -ECANCELED);
        stream_close(files[i]);
    }
}

/* Each channel, if the capability is set */
static bool send_in_place(QEMUFile **files, unsigned count, Error **errp)
{
    bool ok = true;

    for (unsigned i = 0; ok && migrate_zero_copy_send() && i < count; i++) {
        ok = stream_send_in_place(files[i], errp);
    }
    return ok;
}

static Senders *start(QEMUFile **files, unsigned count,
                      const SendersConfig *config, Error **errp)
{
    Senders *s = senders_start(files, count, config, errp);

    if (s) {
        QEMU_LOCK_GUARD(&source.lock);
        source.senders = s;
    }
    return s;
}

static bool connect_channels(QEMUFile **files, unsigned count, Error **errp)
{
    ERRP_GUARD();
    unsigned failed;

    if (source_channels_connect("multifd", files, count, introduce_channel,
                                &failed, errp)) {
        return true;
    }
    error_prepend(errp, "multifd channel %u of %u cannot be connected; the "
                  "destination must have the capability set as well: ", failed,
                  count);
    return false;
}

/* A file is there already: it is opened once more for each. */
static bool open_channels(QEMUFile **files, unsigned count, Error **errp)
{
    for (unsigned made = 0; made < count; made++) {
        QIOChannel *ioc = transport_reopen_file(source.addr, false,
                                                migrate_direct_io(), errp);

        if (!ioc) {
            close_files(files, made);
            return false;
        }
        files[made] = qemu_file_new_output(ioc);
        object_unref(OBJECT(ioc));
        stream_count_in(files[made], &mig_stats.multifd_bytes);
    }
    return true;
}

/* NULL: not possible */
static Senders *multifd_make_channels(unsigned count,
                                      const SendersConfig *config, Error **errp)
{
    g_autofree QEMUFile **files = g_new0(QEMUFile *, count);
    Senders *s = NULL;

    if (!(migrate_file_channels() ? open_channels(files, count, errp)
                                  : connect_channels(files, count, errp))) {
        return NULL;
    }
    if (send_in_place(files, count, errp)) {
        s = start(files, count, config, errp);
    }
    if (!s) {
        close_files(files, count);
    }
    return s;
}

bool multifd_connect(Error **errp)
{
    SendersConfig config;
    RamChannels channels = {
        .run = multifd_run,
        .mark = senders_mark,
        .each_section = migrate_multifd_flush_after_each_section(),
    };

    if (!migrate_multifd()) {
        return true;
    }
    config = multifd_config();
    attempt_of_channels = 0;
    channels.opaque = multifd_make_channels(migrate_multifd_channels(), &config,
                                            errp);
    if (!channels.opaque) {
        return false;
    }
    ram_source_set_channels(&channels);
    return source_may_go_on(errp);
}

void multifd_meet(uint32_t features)
{
    if (source.senders) {
        begin_automatic(source.senders);
        senders_set_peer(source.senders, features);
    }
}

bool multifd_settle(Error **errp)
{
    if (source.senders &&
        senders_settle(source.senders, ram_source_sender())) {
        stream_check(source.to_dst, errp);
        return false;
    }
    return true;
}

/*
 * They stay open, although nothing more comes there: a socket that is closed
 * before the destination has read all of it may lose the rest.
 */
bool multifd_leave(Error **errp)
{
    if (!migrate_postcopy_ram() || ram_source_must_precopy() ||
        !ram_source_leave_channels()) {
        return true;
    }
    if (vmstate_save_ram(source.to_dst) < 0 || qemu_fflush(source.to_dst)) {
        stream_check(source.to_dst, errp);
        return false;
    }
    return multifd_settle(errp);
}

/*
 * With an old machine type each section ends with a mark, also after the
 * channels have ended; and before 7.2 the channel for urgent pages is connected
 * so early that it cannot be told from others.
 */
bool multifd_possible(Error **errp)
{
    const MigrationState *s = migrate_get_current();

    if (migrate_multifd() && migrate_postcopy_ram() &&
        (s->multifd_flush_after_each_section || s->preempt_pre_7_2)) {
        error_setg(errp, "Capabilities 'multifd' and 'postcopy-ram' need a "
                   "machine type of version 8.1 or later when they are used "
                   "together: turn one of them off");
        return false;
    }
    return true;
}

/* Of a migration that has ended; under source.lock. */
static struct {
    SenderView list[UINT8_MAX];
    unsigned count;
} last_channels;

bool multifd_look(unsigned i, SenderView *view)
{
    QEMU_LOCK_GUARD(&source.lock);
    if (source.senders) {
        return senders_look(source.senders, i, view);
    }
    if (i < last_channels.count) {
        *view = last_channels.list[i];
    }
    return i < last_channels.count;
}

void multifd_forget(void)
{
    QEMU_LOCK_GUARD(&source.lock);
    last_channels.count = 0;
}

static void remember(Senders *s)
{
    unsigned i = 0;

    while (senders_look(s, i, &last_channels.list[i])) {
        last_channels.list[i++].thread_id = 0;
    }
    last_channels.count = i;
}

bool multifd_resume(uint32_t attempt, Error **errp)
{
    SendersConfig config;
    Senders *s;

    multifd_close(false);
    if (!attempt) {
        return true;
    }
    attempt_of_channels = attempt;
    config = multifd_config();
    /* Only records may come, whatever has been set meanwhile. */
    config.method = MULTIFD_COMPRESSION_NONE;
    s = multifd_make_channels(last_channels.count, &config, errp);
    if (!s) {
        return false;
    }
    senders_set_peer(s, ram_source_peer());
    return source_may_go_on(errp);
}

void multifd_shutdown(void)
{
    if (source.senders) {
        senders_shutdown(source.senders);
    }
}

void multifd_close(bool ok)
{
    Senders *s;

    WITH_QEMU_LOCK_GUARD(&source.lock) {
        s = g_steal_pointer(&source.senders);
        if (s) {
            remember(s);
        }
        if (s && !ok) {
            senders_shutdown(s);
        }
    }
    if (s) {
        senders_end(s, ok);
    }
}
