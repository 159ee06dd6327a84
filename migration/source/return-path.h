/*
 * The return path on the source: what the destination has to say
 *
 * A thread reads messages until the destination sends SHUT or something wrong,
 * or the channel ends.  Others ask for what it has learnt.
 *
 * A channel that can only be written to looks the same as a destination that
 * never answers: return_path_answered() tells whether there is anybody.
 *
 * Threads: return_path_open() and _close() are called once each by the owner,
 * the rest by any thread in between.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_SOURCE_RETURN_PATH_H
#define MIGRATION_SOURCE_RETURN_PATH_H

#include "migration/qemu-file.h"
#include "migration/wire/wire.h"
#include "migration/core/peer.h"
#include "migration/core/downtime-report.h"
#include "migration/wire/inventory.h"

typedef struct ReturnPath ReturnPath;

/* What is known of the end of the conversation. */
typedef enum ReturnPathEnd {
    RETURN_PATH_OPEN,           /* it goes on */
    RETURN_PATH_DONE,           /* SHUT: the destination has the guest */
    RETURN_PATH_REFUSED,        /* SHUT: the destination failed */
    RETURN_PATH_BROKEN,         /* anything else */
} ReturnPathEnd;

/*
 * What postcopy does with messages of its own.  All are called by the thread,
 * without the lock, but for pong(); false ends the conversation.
 */
typedef struct ReturnPathUser {
    /* @len bytes at @start of block @name, or, if NULL, of that before */
    bool (*asked)(void *opaque, const char *name, uint64_t start, uint32_t len,
                  Error **errp);
    /* What the destination has got of the block @name comes next on @f. */
    bool (*received)(void *opaque, const char *name, QEMUFile *f,
                     Error **errp);
    /* A PONG that is none of those which mark a stage.  With the lock. */
    void (*pong)(void *opaque, uint32_t value);
    /* Something was learnt, or the conversation has ended. */
    void (*changed)(void *opaque);
    void *opaque;
} ReturnPathUser;

/*
 * @to_dst: the stream to the same destination.  @user: who has to stay until
 * it is closed, or NULL if there is no postcopy.  Starts the thread.
 */
ReturnPath *return_path_open(QEMUFile *to_dst, const ReturnPathUser *user);

/*
 * Waits for the answer to the fence (peer.h), at most @timeout_ms.  Returns
 * false if there was none; otherwise *@peer is who answered.
 */
bool return_path_meet(ReturnPath *rp, int timeout_ms, Peer *peer);

/* INVENTORY or LAYOUTS is about to be sent: its answer may come, once. */
void return_path_expect_inventory(ReturnPath *rp);

/*
 * It has come; waits for that at most @timeout_ms.  Then *@inventory is the
 * caller's, or NULL with @errp set if it is damaged.  *@bytes: how many have
 * come of it.
 */
bool return_path_inventory(ReturnPath *rp, int timeout_ms, size_t *bytes,
                           Inventory **inventory, Error **errp);

/*
 * Epoch @number is about to be sent: it may be acknowledged, once.  Before the
 * first call, and after the acknowledgement, one that comes is an error.
 */
void return_path_expect_epoch(ReturnPath *rp, uint64_t number);

/* It has been; waits for that at most @timeout_ms. */
bool return_path_epoch_acked(ReturnPath *rp, int timeout_ms);

/* The destination has answered something at some time. */
bool return_path_answered(ReturnPath *rp);

/* SWITCHOVER_ACK came; waits for it at most @timeout_ms. */
bool return_path_acked(ReturnPath *rp, int timeout_ms);

/*
 * A new attempt to switch over, counted from 1: reports of others are
 * ignored from now on.  Before the first call they are about attempt 0.
 * A PING of @value is about to be sent.
 */
void return_path_expect(ReturnPath *rp, uint32_t attempt, uint32_t value);

/* It was answered; waits for that at most @timeout_ms. */
bool return_path_ponged(ReturnPath *rp, int timeout_ms);

/* A report that came, and when, on QEMU_CLOCK_REALTIME */
typedef struct ReturnPathReport {
    DowntimeReport report;
    int64_t at_ns;
} ReturnPathReport;

/*
 * READY came for the attempt, STARTED came; waits for it at most @timeout_ms,
 * or as long as the conversation goes on if that is negative.
 */
bool return_path_ready(ReturnPath *rp, int timeout_ms, ReturnPathReport *r);
bool return_path_started(ReturnPath *rp, int timeout_ms, ReturnPathReport *r);

/*
 * The destination has loaded all devices: what is left of the package is the
 * order to run the guest.
 */
bool return_path_loaded(ReturnPath *rp);

/* RESUME_ACK came; waits for it at most @timeout_ms. */
bool return_path_resumed(ReturnPath *rp, int timeout_ms);

/* A part of the destination's memory that is not what the source sent */
typedef struct ReturnPathChange {
    char block[WIRE_NAME_MAX + 1];
    uint64_t start, len;        /* bytes; not checked against the block */
} ReturnPathChange;

/* Such parts were reported, and not taken yet. */
bool return_path_changed(ReturnPath *rp);

/*
 * ABORT of @attempt was answered; waits for that at most @timeout_ms.  Then
 * *@changes are the parts reported so far: ReturnPathChange, the caller's.
 */
bool return_path_aborted(ReturnPath *rp, uint32_t attempt, int timeout_ms,
                         GArray **changes);

/* How it ended, if it did; then @errp is set if that was not well. */
ReturnPathEnd return_path_state(ReturnPath *rp, Error **errp);

/*
 * Why the destination failed, in its own words, or NULL if it did not say so
 * (yet).  The caller frees it.  An error of the path contains it.
 */
char *return_path_reason(ReturnPath *rp);

/*
 * The same as return_path_state() after waiting for the end: at most
 * @timeout_ms, or as long as it takes if that is negative.
 */
ReturnPathEnd return_path_wait_end(ReturnPath *rp, int timeout_ms,
                                   Error **errp);

/* Ends the conversation from here: everybody who waits returns. */
void return_path_hang_up(ReturnPath *rp);

/* Hangs up, waits for the thread, and frees @rp. */
void return_path_close(ReturnPath *rp);

#endif
