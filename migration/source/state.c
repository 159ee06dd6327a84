/*
 * The source: what its modules know of the migration in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-migration.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "io/channel-socket.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "migration/wire/stream.h"
#include "migration/yank_functions.h"
#include "failure.h"
#include "state.h"

Source source;

void source_state_init(void)
{
    qemu_mutex_init(&source.lock);
    qemu_sem_init(&source.wake, 0);
    qemu_sem_init(&source.resumed, 0);
}

bool migration_thread_is_self(void)
{
    return source_thread_id() == qemu_get_thread_id();
}

/* Any thread: a device cannot go on with its part. Takes over @err. */
void migration_file_set_error(int ret, Error *err)
{
    QEMU_LOCK_GUARD(&source.lock);
    if (source.to_dst) {
        qemu_file_set_error_obj(source.to_dst, ret, err);
    } else if (err) {
        error_report_err(err);
    }
}

void source_look(SourceView *view)
{
    QEMU_LOCK_GUARD(&source.lock);
    *view = source.view;
}

void source_waits_for(const char *what)
{
    QEMU_LOCK_GUARD(&source.lock);
    snprintf(source.view.waiting, sizeof(source.view.waiting),
             "all is sent, waiting for %s; 'yank' ends that", what);
}

int source_thread_id(void)
{
    return qatomic_read(&source.thread_id);
}

void source_set_address(const MigrationAddress *addr)
{
    qapi_free_MigrationAddress(source.addr);
    source.addr = QAPI_CLONE(MigrationAddress, addr);
}

/*
 * Whether to go on, and who has the guest
 */

bool source_was_cancelled(Error **errp)
{
    error_setg(errp, "The migration was cancelled");
    return false;
}

bool source_needs_answers(void)
{
    return migrate_return_path() || migrate_postcopy_ram();
}

/* A channel that goes one way only looks like a path that breaks at once. */
static bool path_is_needed(void)
{
    return source_needs_answers() ||
           return_path_answered(source.return_path);
}

bool source_may_go_on(Error **errp)
{
    ReturnPathEnd end;

    if (phase_get(&source_phase) == MIGRATION_STATUS_CANCELLING) {
        return source_was_cancelled(errp);
    }
    if (!source_streams_intact(errp)) {
        return false;
    }
    end = source.return_path ? return_path_state(source.return_path, NULL)
                             : RETURN_PATH_OPEN;
    if (end == RETURN_PATH_OPEN ||
        (end == RETURN_PATH_BROKEN && !path_is_needed())) {
        return true;
    }
    if (end == RETURN_PATH_DONE) {
        error_setg(errp, "destination sent SHUT before the migration was "
                   "complete");
    } else {
        return_path_state(source.return_path, errp);
    }
    return false;
}

bool source_hand_over(Error **errp)
{
    QEMU_LOCK_GUARD(&source.lock);
    source.handed_over = phase_get(&source_phase) !=
                         MIGRATION_STATUS_CANCELLING;
    return source.handed_over || source_was_cancelled(errp);
}

void source_take_back(void)
{
    QEMU_LOCK_GUARD(&source.lock);
    source.handed_over = false;
}

/*
 * Streams
 */

/* Nobody waits any more for what is left, so it need not be written. */
static void close_outgoing(QEMUFile *f, bool succeeded)
{
    if (f) {
        if (!succeeded) {
            qemu_file_set_error(f, -ECANCELED);
        }
        qemu_fclose(f);
    }
}

bool source_close_file(Error **errp)
{
    QEMUFile *f;

    WITH_QEMU_LOCK_GUARD(&source.lock) {
        f = g_steal_pointer(&source.to_dst);
    }
    return stream_finish(f, errp);
}

void source_close_streams(bool succeeded)
{
    ReturnPath *rp;
    QEMUFile *f, *urgent;

    WITH_QEMU_LOCK_GUARD(&source.lock) {
        rp = g_steal_pointer(&source.return_path);
        f = g_steal_pointer(&source.to_dst);
        urgent = g_steal_pointer(&source.urgent);
    }
    if (f) {
        migration_ioc_unregister_yank_from_file(f);
    }
    if (urgent) {
        /* The return path's thread may be about to write to it. */
        migration_ioc_unregister_yank_from_file(urgent);
        qemu_file_shutdown(urgent);
    }
    return_path_close(rp);
    close_outgoing(urgent, false);
    close_outgoing(f, succeeded);
}

/*
 * Answers can come back over any socket.  Of other channels it is not known,
 * and of those that are secured it is left to the user: GnuTLS does not always
 * bear it when one thread reads and another writes.
 */
void source_open_return_path(const ReturnPathUser *user)
{
    QIOChannel *ioc = qemu_file_get_ioc(source.to_dst);
    ReturnPath *rp;

    /* Whoever reads a snapshot has nothing to say to the guest. */
    if (migrate_background_snapshot()) {
        return;
    }
    if (!source_needs_answers() &&
        !object_dynamic_cast(OBJECT(ioc), TYPE_QIO_CHANNEL_SOCKET)) {
        return;
    }
    rp = return_path_open(source.to_dst, user);
    WITH_QEMU_LOCK_GUARD(&source.lock) {
        source.return_path = rp;
    }
}
