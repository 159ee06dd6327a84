/*
 * Memory as it is at one moment, while the guest goes on writing to it
 *
 * All pages that are to be saved are protected.  To protect them takes time, so
 * most of that is done while the guest runs (write_watch_arm()): a page that
 * somebody writes to then is released at once, and noted.  At the moment itself
 * only these pages are protected again, and those that are new
 * (write_watch_moment()).
 *
 * From then on whoever writes to a page waits until a thread has copied it; the
 * sender takes the copies.  When there are too many of them, or the page is a
 * huge one, that thread has the sender save it next.  A page that was copied or
 * saved is released, and costs nothing more.
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
     * Whether memory is still to be protected, which may take long; sets the
     * error if not.  Asked by write_watch_arm(), for each piece.
     */
    bool (*may_go_on)(Error **errp);
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
    QemuMutex lock;             /* of the next two, and of pages till then */
    bool kept_from_now;         /* the moment has come */
    /* Before it: pages to be protected again; by RamRegion.index, or NULL */
    DirtyMap **written;
    struct WrittenPage *recent; /* what was written to last before it; a ring */
    uint64_t recent_count;      /* that were noted there so far */
} WriteWatch;

/* Whether this host can protect memory.  Any thread. */
bool write_watch_possible(Error **errp);

/*
 * Begins to watch, and starts the thread; nothing is protected yet.  The first
 * five members of @w are set, the maps of @w->regions say what is to be saved,
 * and the sender takes requests.  On failure nothing is watched.
 * write_watch_free() comes last in either case.
 */
bool write_watch_begin(WriteWatch *w, Error **errp);
void write_watch_free(WriteWatch *w);

/*
 * Protects all pages that are dirty in the maps, while the guest runs, until
 * few of them have been written to since.  Fails when may_go_on() does.  On
 * failure, as on that of write_watch_moment(), write_watch_end() comes next.
 * The thread that sends, without the BQL.
 */
bool write_watch_arm(WriteWatch *w, Error **errp);

/*
 * These pages are to be saved as well, and may not have been protected.
 * Between write_watch_arm() and write_watch_moment(); the thread that sends.
 */
void write_watch_add(WriteWatch *w, RamRegion *r, uint64_t first,
                     uint64_t count);

/*
 * The guest is stopped: pages are as they are to be saved, and all that are
 * dirty in the maps are protected when this returns.  *@again, if not NULL, is
 * how many had to be protected again.  The thread that sends.
 */
bool write_watch_moment(WriteWatch *w, uint64_t *again, Error **errp);

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

/* Whoever waits goes on.  Idempotent, also after a begin that failed. */
void write_watch_end(WriteWatch *w);

#endif
