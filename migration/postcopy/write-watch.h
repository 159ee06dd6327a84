/*
 * Memory as it is at one moment, while the guest goes on writing to it
 *
 * All pages that are to be saved are protected.  Whoever writes to one waits
 * until a thread has copied it; the sender takes the copies.  When there are
 * too many of them, or the page is a huge one, that thread has the sender save
 * it next.  A page that was copied or saved is released, and costs nothing
 * more.
 *
 * Writes are seen of this process, kernel included (KVM, vhost), and not those
 * of another one that has the memory mapped (vhost-user).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_POSTCOPY_WRITE_WATCH_H
#define MIGRATION_POSTCOPY_WRITE_WATCH_H

#include "qemu/event_notifier.h"
#include "qemu/thread.h"
#include "qemu/stats64.h"
#include "kept-pages.h"
#include "sender.h"

/* Whoever waits for a page waits no longer than this if none is saved. */
#define WRITE_WATCH_PATIENCE_MS 10000

typedef struct WriteWatch {
    RamRegions *regions;
    PostcopySender *sender;     /* of these regions; is asked for pages */
    uint64_t keeps;             /* bytes of copies at a time; 0: none */
    /*
     * No page is saved, and somebody waits: nothing is protected any more, and
     * write_watch_check() fails.  Called by the thread, once.
     */
    void (*stuck)(void);
    int ufd;                    /* -1: nothing is protected */
    EventNotifier wake;
    QemuThread thread;
    bool quit;                  /* atomic */
    int error;                  /* a negative errno, or 0; atomic */
    Stat64 saved;               /* releases so far */
    KeptPages kept;
} WriteWatch;

/* Whether this host can protect memory.  Any thread. */
bool write_watch_possible(Error **errp);

/*
 * Protects all pages of @w->regions that are dirty, and starts the thread.  The
 * first four members of @w are set.  The guest stands still, and the sender
 * takes requests.  On failure nothing is protected.  write_watch_free() comes
 * last in either case.
 */
bool write_watch_begin(WriteWatch *w, Error **errp);
void write_watch_free(WriteWatch *w);

/*
 * Sends the copies that there are.  When this is done after all pages of the
 * maps were claimed, nothing is left.  The thread that sends.
 */
void write_watch_send_kept(WriteWatch *w, RamSender *via);

/* Those pages were saved or copied.  The thread that sends. */
void write_watch_release(WriteWatch *w, const RamRegion *r, uint64_t first,
                         uint64_t count);

/* False if some page can neither be saved nor released.  Any thread. */
bool write_watch_check(const WriteWatch *w, Error **errp);

/* Whoever waits goes on.  Idempotent after write_watch_begin(). */
void write_watch_end(WriteWatch *w);

#endif
