/*
 * The return path on the destination: what we have to say to the source
 *
 * Any thread may call these; each message is written at once.  While there is
 * no return path they do nothing and return false.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_DESTINATION_RETURN_PATH_H
#define MIGRATION_DESTINATION_RETURN_PATH_H

#include "migration/qemu-file.h"
#include "migration/core/downtime-report.h"

void reply_init(void);

/* False if it is open already.  The thread that reads @from_src. */
bool reply_open(QEMUFile *from_src);
bool reply_is_open(void);

/*
 * Answers a PING.  If it was a Ferry's greeting it introduces ourselves, and
 * its offer is remembered.
 */
bool reply_pong(uint32_t value);

/* What the source says that it understands, WIRE_PEER_*; any thread */
uint32_t reply_peer_features(void);

/*
 * READY or STARTED, to a source that understands them.  Does not wait: if the
 * source has left so much unread that there is no room for it, false.
 */
bool reply_report(uint16_t type, const DowntimeReport *report);

/*
 * @len bytes of the block @name from @start on were changed here, and are to
 * be sent again; and the answer to ABORT, which comes after those.
 */
bool reply_changed(const char *name, uint64_t start, uint64_t len);
bool reply_aborted(uint32_t attempt);

/* The answer to INVENTORY: all @len bytes, waiting for a source that is slow */
bool reply_inventory(const uint8_t *bytes, size_t len);

/*
 * All of epoch @number has arrived.  Does not wait: false if there is no room
 * for it.
 */
bool reply_checkpoint_ack(uint64_t number);

/* The source need not wait for our devices any longer. */
bool reply_switchover_ack(void);

/*
 * Postcopy: asks for @len bytes of the block @name from @start on.  @name stays
 * the same string as long as the path is open.
 */
bool reply_request_pages(const char *name, uint64_t start, uint32_t len);

/* Who asks from now on does not know which block was requested last. */
void reply_next_listener(void);

/* What has come of the block @name: @put writes it. */
bool reply_received(const char *name, bool (*put)(const char *, QEMUFile *));

/* We are ready to go on with postcopy. */
bool reply_resume_ack(void);

/*
 * Why the connection is about to be closed without a last word: to a source
 * that understands it.  Nothing can be said after it.  Does not wait for the
 * source; if another thread does, or it is said already, false.
 */
bool reply_error(const char *why);

/*
 * The last word, whether we have the guest, and the end of the path.  Does not
 * wait either: a source that leaves no room for it finds the path broken.  With
 * reply_refuse() it can be said before the end: we do not have it.  That is
 * false if it could not be written: the source does not know then.  @why, which
 * may be NULL, goes ahead of it if it is a failure.
 */
bool reply_refuse(const char *why);
void reply_close(bool ok, const char *why);

/*
 * The other last word ahead of time: the guest is ours.  Does not wait; false
 * if it could not be written.
 */
bool reply_accept(void);

/*
 * The end of a path that is of no more use.  It was shut down before, and is
 * not known to `yank` any more, as this closes its channel.
 */
void reply_abandon(void);

#endif
