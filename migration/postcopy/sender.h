/*
 * Sending memory to a guest that runs already
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two streams of pages.  The background one sends all that is dirty.  Pages
 * that somebody there waits for overtake it:
 *
 *  - without a second channel requests are queued, and the migration thread
 *    looks at the queue after each small batch of the background;
 *  - with one, the thread that hears the request sends the pages there and then
 *    by itself, so that nobody has to be woken.
 *
 * Where there are channels for the background, a thread for each of them sends
 * it (postcopy_sender_help()), and the migration thread only what is requested.
 * When more is requested than one thread sends at once, as when several vCPUs
 * wait for huge pages, these threads help with that: then a request waits as
 * long behind the others on the main channel as behind the background.
 *
 * Either way the background goes on behind them.  Without a second channel
 * neighbours follow the page at once, as far as locality.h says so.  With one
 * they do not: at the end a destination waits for no more on that channel than
 * it requested, and what else is on its way there would be lost.
 *
 * All threads claim pages before they send them (ram/dirty-claim.h) and share
 * nothing else but the queue, where the background shall go on, and what it has
 * sent lately: a page of that is sent again where requested ones are, without a
 * claim, if it is requested (under-way.h) and the background goes another way.
 *
 * `lock` is of the thread that serves requests, while it sends.  With a
 * second channel that is the thread that hears them, but for those that were
 * kept and for the very end, so nobody waits for it.  Helpers do without: they
 * rest while memory is released by anybody else.  `serving` is of all of them,
 * for a look at what they share, and never held while something is sent.
 *
 * Errors are latched in the stream that they happen on.
 */

#ifndef MIGRATION_POSTCOPY_SENDER_H
#define MIGRATION_POSTCOPY_SENDER_H

#include "qemu/thread.h"
#include "qapi/qapi-types-migration.h"
#include "migration/ram/send.h"
#include "migration/ram/stream-sink.h"
#include "discard.h"
#include "locality.h"
#include "requests.h"
#include "under-way.h"

typedef struct PostcopySenderOps {
    /* Any thread that asks: there is something in the queue. */
    void (*wake)(void *opaque);
    /* May be NULL.  Whoever sent them. */
    PostcopyReleaseFn *release;
    /*
     * Somebody waits until pages are released: they are copied and released
     * before they are written, and not after it.  Only where all are sent by
     * the migration thread, and huge pages of the host are not copied.
     */
    bool early;
} PostcopySenderOps;

/* What becomes of requests */
typedef enum PostcopyAnswers {
    POSTCOPY_REFUSE,            /* they make no sense */
    POSTCOPY_IGNORE,            /* they may be late, and are of no use */
    POSTCOPY_KEEP,              /* queued, for the migration thread to take */
    POSTCOPY_SERVE,             /* pages are claimed and sent */
} PostcopyAnswers;

/*
 * Bytes of requested pages that wait for others to be sent: more than one
 * connection is to have before it, where others have as much of the background
 */
#define POSTCOPY_OVERFLOW (1024 * 1024)

/* Bytes that are copied at a time where pages are released early */
#define POSTCOPY_EARLY (256 * 1024)

/* Where one thread that sends in the background is, and what it has sent */
typedef struct PostcopyBackground {
    uint64_t aimed;             /* the last aim that it went to */
    unsigned region;
    uint64_t page;
    UnderWay under_way;
    uint64_t noted;             /* pages under way so far, atomic */
} PostcopyBackground;

typedef struct PostcopySender {
    RamRegions *regions;
    const PostcopySenderOps *ops;
    void *opaque;

    PostcopyAnswers answers;    /* atomic */
    const RamRegion *last_asked; /* of the thread that asks */
    PostcopyQueue queue;
    QemuMutex lock;             /* of whoever serves requests */
    RamStreamSink channel;      /* the second one; its file is NULL without */
    RamSender urgent;           /* of pages to that channel */
    bool again;                 /* pages that are under way may come again */
    QemuMutex serving;          /* taken last; of these and the queue's end: */
    uint64_t copied;            /* pages that came again */
    Locality locality;
    MigrationPageRequests served;   /* atomic for those who look */
    uint64_t aim;               /* where the background goes on; atomic */
    uint8_t *copies;            /* with ops->early: room for POSTCOPY_EARLY */

    uint64_t quota;             /* bytes in a run; UINT64_MAX if any */
    PostcopyBackground background;      /* of the migration thread */
    PostcopyBackground *helpers;        /* of others; or NULL */
    unsigned helper_count;
} PostcopySender;

/*
 * @regions have maps that are complete and frozen.  Migration thread, while
 * requests are not open; others may look at what has been told, and may ask in
 * vain, as a destination may before it was told of postcopy.
 */
void postcopy_sender_init(PostcopySender *ps, RamRegions *regions,
                          const PostcopySenderOps *ops, void *opaque);

/* What was allocated for sending.  Once it has ended; then see _init(). */
void postcopy_sender_cleanup(PostcopySender *ps);

/*
 * From now on urgent pages go to @f, in the form that a peer with @features
 * knows, and looked at as @main does; with NULL they go where the others do.
 * While requests are not open.
 */
void postcopy_sender_set_channel(PostcopySender *ps, QEMUFile *f,
                                 const RamSender *main, uint32_t features);

/*
 * The background is sent by @count threads, each of which calls
 * postcopy_sender_help(); 0: by none of them any more.  While requests are not
 * open and none of them does.
 */
void postcopy_sender_set_helpers(PostcopySender *ps, unsigned count);

/*
 * Thread @i sends by @via until its turn is over, nothing is left, or there is
 * an error in its sink: the background, and what is requested while at least
 * two requests wait, of POSTCOPY_OVERFLOW bytes together.  Not with RCU.
 */
void postcopy_sender_help(PostcopySender *ps, unsigned i, RamSender *via);

/* Sends what is queued by @main.  Migration thread, with RCU. */
void postcopy_sender_serve_queue(PostcopySender *ps, RamSender *main);

/*
 * Say on the second channel that nothing more comes there, if there is one.
 * Once all pages are claimed; what is requested later is on its way anyway.
 */
void postcopy_sender_end_channel(PostcopySender *ps);

/*
 * Whether requests may come.  Those that are left are forgotten, but for those
 * that were kept.  Migration thread.
 */
void postcopy_sender_open(PostcopySender *ps);
void postcopy_sender_close(PostcopySender *ps);

/*
 * The guest has not been handed over, and may not be: requests may come, and
 * are kept for postcopy_sender_take(), as no page may be claimed yet.  When
 * the attempt was aborted, those that are on their way are dropped.  Migration
 * thread.
 */
void postcopy_sender_keep(PostcopySender *ps);
void postcopy_sender_ignore(PostcopySender *ps);

/*
 * Releases all pages that are clean: sent before the guest was handed over, or
 * since then.  Requests may be served meanwhile.  Migration thread, while it
 * does not send.
 */
void postcopy_sender_release_clean(PostcopySender *ps);

/* The next of those that were kept; false if there is none. */
bool postcopy_sender_take(PostcopySender *ps, PageRequest *request);

/*
 * A message asks for pages: see postcopy_request_read().  False if it makes
 * no sense, or the second channel is broken and they come nowhere else.  The
 * thread that reads messages.
 */
bool postcopy_sender_ask(PostcopySender *ps, const char *name, uint64_t start,
                         uint32_t len, Error **errp);

/* What has been told so far.  Any thread. */
MigrationPageRequests postcopy_sender_served(const PostcopySender *ps);
/* While requests are not open */
void postcopy_sender_set_served(PostcopySender *ps,
                                MigrationPageRequests served);

/* Somebody waits for the migration thread to send pages.  Any thread. */
bool postcopy_sender_asked(const PostcopySender *ps);

/*
 * Send requested pages by @main, then others, for a time, up to @ps->quota
 * bytes and at the rate that is set; with @all until nothing is left.
 * Migration thread.
 */
RamSendResult postcopy_sender_run(PostcopySender *ps, RamSender *main,
                                  bool all);

#endif
