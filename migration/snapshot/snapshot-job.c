/*
 * Snapshots as background jobs: snapshot-save, -load, -delete
 *
 * A job's coroutine must not do what they do, so it has a bottom half do it
 * and waits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-builtin-visit.h"
#include "qapi/qapi-commands-migration.h"
#include "qemu/coroutine.h"
#include "qemu/job.h"
#include "qemu/main-loop.h"
#include "block/aio.h"
#include "migration/permit.h"
#include "migration/snapshot.h"
#include "snapshot.h"

typedef struct SnapshotJob SnapshotJob;

typedef struct SnapshotJobDriver {
    JobDriver common;
    bool (*act)(SnapshotJob *job, Error **errp);
} SnapshotJobDriver;

struct SnapshotJob {
    Job common;
    char *tag;
    char *vmstate;
    strList *devices;

    /* While it waits */
    Coroutine *co;
    Error **errp;
    bool ok;
};

static void act_bh(void *opaque)
{
    SnapshotJob *job = opaque;
    const SnapshotJobDriver *driver =
        container_of(job->common.driver, SnapshotJobDriver, common);

    if (snapshot_wait_for_turn(act_bh, job)) {
        return;
    }
    job_progress_set_remaining(&job->common, 1);
    job->ok = driver->act(job, job->errp);
    job_progress_update(&job->common, 1);
    aio_co_wake(job->co);
}

static int coroutine_fn snapshot_job_run(Job *common, Error **errp)
{
    SnapshotJob *job = container_of(common, SnapshotJob, common);

    job->errp = errp;
    job->co = qemu_coroutine_self();
    aio_bh_schedule_oneshot(qemu_get_aio_context(), act_bh, job);
    qemu_coroutine_yield();
    return job->ok ? 0 : -1;
}

static void snapshot_job_free(Job *common)
{
    SnapshotJob *job = container_of(common, SnapshotJob, common);

    g_free(job->tag);
    g_free(job->vmstate);
    qapi_free_strList(job->devices);
}

static bool act_save(SnapshotJob *job, Error **errp)
{
    return save_snapshot(job->tag, false, job->vmstate, true, job->devices,
                         errp);
}

static bool act_load(SnapshotJob *job, Error **errp)
{
    return snapshot_restore(job->tag, job->vmstate, true, job->devices, errp);
}

static bool act_delete(SnapshotJob *job, Error **errp)
{
    return delete_snapshot(job->tag, true, job->devices, errp);
}

#define SNAPSHOT_JOB(type, function) {          \
    .common = {                                 \
        .instance_size = sizeof(SnapshotJob),   \
        .job_type = (type),                     \
        .run = snapshot_job_run,                \
        .free = snapshot_job_free,              \
    },                                          \
    .act = (function),                          \
}

static const SnapshotJobDriver
    save_driver = SNAPSHOT_JOB(JOB_TYPE_SNAPSHOT_SAVE, act_save),
    load_driver = SNAPSHOT_JOB(JOB_TYPE_SNAPSHOT_LOAD, act_load),
    delete_driver = SNAPSHOT_JOB(JOB_TYPE_SNAPSHOT_DELETE, act_delete);

static void snapshot_job_start(const SnapshotJobDriver *driver,
                               MigrationAct act, const char *id,
                               const char *tag, const char *vmstate,
                               strList *devices, Error **errp)
{
    SnapshotJob *job;

    /* What it is to do is checked again when the job does it. */
    if (!migration_permits(act, errp)) {
        return;
    }
    job = job_create(id, &driver->common, NULL, qemu_get_aio_context(),
                     JOB_MANUAL_DISMISS, NULL, NULL, errp);
    if (job) {
        job->tag = g_strdup(tag);
        job->vmstate = g_strdup(vmstate);
        job->devices = QAPI_CLONE(strList, devices);
        job_start(&job->common);
    }
}

void qmp_snapshot_save(const char *job_id, const char *tag,
                       const char *vmstate, strList *devices, Error **errp)
{
    snapshot_job_start(&save_driver, MIGRATION_ACT_SAVE_SNAPSHOT, job_id, tag,
                       vmstate, devices, errp);
}

void qmp_snapshot_load(const char *job_id, const char *tag,
                       const char *vmstate, strList *devices, Error **errp)
{
    snapshot_job_start(&load_driver, MIGRATION_ACT_LOAD_SNAPSHOT, job_id, tag,
                       vmstate, devices, errp);
}

void qmp_snapshot_delete(const char *job_id, const char *tag,
                         strList *devices, Error **errp)
{
    snapshot_job_start(&delete_driver, MIGRATION_ACT_DELETE_SNAPSHOT, job_id,
                       tag, NULL, devices, errp);
}
