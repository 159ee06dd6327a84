/*
 * virtio-balloon: free page hints
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * While memory is being migrated, the guest is asked which of it is free.  It
 * allocates free pages so that nobody else does, and puts them into the queue
 * of hints.  It keeps them until it reads "done", or until it runs out of
 * memory: then it takes some back, also such as are still in the queue.
 *
 *      STOPPED or DONE  --(memory was synced, the guest runs)-->  REQUESTED
 *      REQUESTED        --(the guest sends the command id)----->  STARTED
 *      STARTED          --(the guest sends any other)---------->  STOPPED
 *      any              --(a sync is near, the guest stops)---->  STOPPED
 *      any              --(synced for the last time, or over)-->  DONE
 *
 * Rounds.  The command id is new in each round, so what the guest puts into
 * the queue after it has sent that id it allocated after it was asked.  Hints
 * that come before belong to an earlier round and are ignored.
 *
 * Why no page is lost: a hint is applied between two syncs, by forgetting that
 * the page was written before the first of them.
 *
 *   1. The migration has merged the dirty log into its map, and has cleared
 *      the log wherever it said something.  Each write from now on is in the
 *      log (migration/ram/hints.c).
 *   2. The round begins: the guest reads a new command id.
 *   3. A hint of this round: the page has been free at some time after 2, so
 *      nobody needs what was written before 1.  The bit in the map goes.
 *   4. The guest takes the page back, before or after 3, and writes to it.
 *      That is in the log and not in the map, where 3 cannot reach it.
 *   5. The round ends.  When end_round() has returned, no hint
 *      of it is applied.
 *   6. The next sync merges the log: the bit is set again.
 *
 * So hint and write may come in any order.  What must not be is a hint that is
 * applied after 6, or a log cleared after 2.
 *
 * Threads.  The queue and the state are used under the BQL only: in the main
 * loop, or wherever the guest is reset or the device unplugged.  The iothread
 * applies hints, as one may be about gigabytes; all that it knows is in
 * BalloonHints, which it keeps alive while it is needed there, so nobody ever
 * waits for the iothread, which may serve others and wait for the BQL:
 *
 *   main loop   takes buffers from the queue, judges them       -> todo
 *   iothread    applies those that belong to the open round     -> done
 *   main loop   returns them to the guest
 *
 * Whoever has the BQL may take all buffers from both lists at any time, and
 * does when the guest stops, as the queue must not change after that.
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/iov.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "hw/virtio/virtio-access.h"
#include "migration/misc.h"
#include "trace.h"
#include "virtio-balloon-private.h"

/* Buffers that are taken before the main loop does something else */
#define BATCH 64

/* A buffer of the guest; allocated by virtqueue_pop(). */
typedef struct Hint {
    VirtQueueElement elem;      /* must be first */
    uint32_t round;             /* 0: nothing to apply */
    QSIMPLEQ_ENTRY(Hint) next;
} Hint;

typedef QSIMPLEQ_HEAD(HintList, Hint) HintList;

struct BalloonHints {
    unsigned users;             /* atomic: the device, the iothread */
    AioContext *context;        /* of the iothread */
    IOThread *iothread;         /* a reference */
    /*
     * Of what follows.  Held while one hint is applied.  Order: BQL, lock,
     * what qemu_guest_free_page_hint() takes.
     */
    QemuMutex lock;
    uint32_t open_round;        /* its command id, or 0 */
    bool busy;                  /* the iothread will look at todo */
    HintList todo, done;
    QEMUBH *again;              /* in the main loop; NULL: no device any more */
};

/*
 * Life
 */

static BalloonHints *hints_new(IOThread *iothread)
{
    BalloonHints *h = g_new0(BalloonHints, 1);

    h->users = 1;
    h->iothread = iothread;
    object_ref(OBJECT(iothread));
    h->context = iothread_get_aio_context(iothread);
    qemu_mutex_init(&h->lock);
    QSIMPLEQ_INIT(&h->todo);
    QSIMPLEQ_INIT(&h->done);
    return h;
}

/* In the main loop: the last reference to an iothread waits for its end. */
static void hints_free(void *opaque)
{
    BalloonHints *h = opaque;

    object_unref(OBJECT(h->iothread));
    qemu_mutex_destroy(&h->lock);
    g_free(h);
}

static void hints_unref(BalloonHints *h)
{
    if (qatomic_fetch_dec(&h->users) == 1) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), hints_free, h);
    }
}

/*
 * In the iothread
 */

/* Apply the next hint, if there is one. */
static bool apply_next(BalloonHints *h)
{
    Hint *hint;

    QEMU_LOCK_GUARD(&h->lock);
    hint = QSIMPLEQ_FIRST(&h->todo);
    if (!hint) {
        h->busy = false;
        if (h->again) {
            qemu_bh_schedule(h->again);
        }
        return false;
    }
    if (hint->round && hint->round == h->open_round) {
        for (unsigned i = 0; i < hint->elem.in_num; i++) {
            qemu_guest_free_page_hint(hint->elem.in_sg[i].iov_base,
                                      hint->elem.in_sg[i].iov_len);
        }
    }
    QSIMPLEQ_REMOVE_HEAD(&h->todo, next);
    QSIMPLEQ_INSERT_TAIL(&h->done, hint, next);
    return true;
}

static void apply_all(void *opaque)
{
    BalloonHints *h = opaque;

    while (apply_next(h)) {
        /* the lock is free for a moment */
    }
    hints_unref(h);
}

/*
 * State
 */

bool balloon_hints_negotiated(void *opaque)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(opaque);

    return virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_F_FREE_PAGE_HINT);
}

static void enter_state(VirtIOBalloon *s, BalloonHintState state)
{
    if (s->free_page_hint_status != state) {
        trace_virtio_balloon_hint_state(s->free_page_hint_status, state,
                                        s->free_page_hint_cmd_id);
        s->free_page_hint_status = state;
    }
}

/* The same, and have the guest read the configuration. */
static void tell_state(VirtIOBalloon *s, BalloonHintState state)
{
    enter_state(s, state);
    virtio_notify_config(VIRTIO_DEVICE(s));
}

static void set_open_round(BalloonHints *h, uint32_t round)
{
    QEMU_LOCK_GUARD(&h->lock);
    h->open_round = round;
}

/* When this returns, no hint is applied until a new round begins. */
static void end_round(VirtIOBalloon *s, BalloonHintState state)
{
    set_open_round(s->hints, 0);
    if (s->free_page_hint_status != state) {
        tell_state(s, state);
    }
}

static void request_round(VirtIOBalloon *s)
{
    if (s->free_page_hint_cmd_id == UINT32_MAX) {
        s->free_page_hint_cmd_id = VIRTIO_BALLOON_CMD_ID_MIN;
    } else {
        s->free_page_hint_cmd_id++;
    }
    tell_state(s, BALLOON_HINT_REQUESTED);
}

/* The guest sent a command id. */
static void take_id(VirtIOBalloon *s, uint32_t id)
{
    switch (s->free_page_hint_status) {
    case BALLOON_HINT_REQUESTED:
        /* another id ends an earlier round, of which we know */
        if (id == s->free_page_hint_cmd_id) {
            enter_state(s, BALLOON_HINT_STARTED);
            set_open_round(s->hints, id);
        }
        break;
    case BALLOON_HINT_STARTED:
        /* The round stays open for the hints that have come so far. */
        enter_state(s, BALLOON_HINT_STOPPED);
        break;
    }
}

uint32_t balloon_hints_config(const VirtIOBalloon *s)
{
    switch (s->free_page_hint_status) {
    case BALLOON_HINT_REQUESTED:
    case BALLOON_HINT_STARTED:
        return s->free_page_hint_cmd_id;
    case BALLOON_HINT_DONE:
        return VIRTIO_BALLOON_CMD_ID_DONE;
    default:
        return VIRTIO_BALLOON_CMD_ID_STOP;
    }
}

bool balloon_hints_loaded(VirtIOBalloon *s, Error **errp)
{
    if (s->free_page_hint_cmd_id < VIRTIO_BALLOON_CMD_ID_MIN ||
        s->free_page_hint_status > BALLOON_HINT_DONE) {
        error_setg(errp, "virtio-balloon: free page hints cannot have command "
                   "id 0x%" PRIx32 " in state %" PRIu32,
                   s->free_page_hint_cmd_id, s->free_page_hint_status);
        return false;
    }
    /* Nobody here will ever end a round that was not there. */
    if (s->free_page_hint_status == BALLOON_HINT_REQUESTED ||
        s->free_page_hint_status == BALLOON_HINT_STARTED) {
        enter_state(s, BALLOON_HINT_DONE);
    }
    return true;
}

/*
 * The queue
 */

/* What the hints in a buffer are good for: the round, or 0 for nothing */
static uint32_t judge(VirtIOBalloon *s, const VirtQueueElement *elem)
{
    uint32_t id;

    if (elem->out_num) {
        if (iov_to_buf(elem->out_sg, elem->out_num, 0, &id, sizeof(id)) !=
            sizeof(id)) {
            virtio_error(VIRTIO_DEVICE(s), "virtio-balloon: a command id of "
                         "free page hints has less than 4 bytes");
            return 0;
        }
        take_id(s, virtio_tswap32(VIRTIO_DEVICE(s), id));
    }
    /* Pages that are to be something else than zeros have to be sent. */
    if (!elem->in_num || s->poison_val ||
        s->free_page_hint_status != BALLOON_HINT_STARTED) {
        return 0;
    }
    return s->free_page_hint_cmd_id;
}

/* Returns whether there may be more. */
static bool take_buffers(VirtIOBalloon *s)
{
    BalloonHints *h = s->hints;
    HintList taken = QSIMPLEQ_HEAD_INITIALIZER(taken);
    unsigned n;

    for (n = 0; n < BATCH; n++) {
        Hint *hint = virtqueue_pop(s->hint_vq, sizeof(Hint));

        if (!hint) {
            break;
        }
        hint->round = judge(s, &hint->elem);
        QSIMPLEQ_INSERT_TAIL(&taken, hint, next);
    }
    if (n) {
        QEMU_LOCK_GUARD(&h->lock);
        QSIMPLEQ_CONCAT(&h->todo, &taken);
        if (!h->busy) {
            h->busy = true;
            qatomic_inc(&h->users);
            aio_bh_schedule_oneshot(h->context, apply_all, h);
        }
    }
    return n == BATCH;
}

static void return_buffers(VirtIOBalloon *s, HintList *list)
{
    Hint *hint;

    if (QSIMPLEQ_EMPTY(list)) {
        return;
    }
    while ((hint = QSIMPLEQ_FIRST(list))) {
        QSIMPLEQ_REMOVE_HEAD(list, next);
        virtqueue_push(s->hint_vq, &hint->elem, 0);
        g_free(hint);
    }
    virtio_notify(VIRTIO_DEVICE(s), s->hint_vq);
}

/* The guest does not get these back: its queue is gone, or about to go. */
static void forget_buffers(VirtIOBalloon *s, HintList *list)
{
    Hint *hint;

    while ((hint = QSIMPLEQ_FIRST(list))) {
        QSIMPLEQ_REMOVE_HEAD(list, next);
        virtqueue_detach_element(s->hint_vq, &hint->elem, 0);
        g_free(hint);
    }
}

/* In the main loop */
static void go_on(void *opaque)
{
    VirtIOBalloon *s = opaque;
    HintList done = QSIMPLEQ_HEAD_INITIALIZER(done);

    if (!balloon_is_live(s, VIRTIO_DEVICE(s)->status)) {
        return;                 /* it left nothing to return */
    }
    WITH_QEMU_LOCK_GUARD(&s->hints->lock) {
        QSIMPLEQ_CONCAT(&done, &s->hints->done);
    }
    return_buffers(s, &done);
    if (take_buffers(s)) {
        qemu_bh_schedule(s->hints->again);
    }
}

void balloon_handle_hints(VirtIODevice *vdev, VirtQueue *vq)
{
    go_on(VIRTIO_BALLOON(vdev));
}

static void all_buffers(BalloonHints *h, HintList *list)
{
    QEMU_LOCK_GUARD(&h->lock);
    QSIMPLEQ_CONCAT(list, &h->done);
    QSIMPLEQ_CONCAT(list, &h->todo);
}

void balloon_hints_set_status(VirtIOBalloon *s, uint8_t status)
{
    HintList all = QSIMPLEQ_HEAD_INITIALIZER(all);

    if (!s->hints) {
        return;
    }
    if (balloon_is_live(s, status)) {
        /* what the guest put there while nobody listened, or far away */
        qemu_bh_schedule(s->hints->again);
        return;
    }
    all_buffers(s->hints, &all);
    if (status & VIRTIO_CONFIG_S_DRIVER_OK) {
        if (s->free_page_hint_status != BALLOON_HINT_DONE) {
            end_round(s, BALLOON_HINT_STOPPED);
        }
        return_buffers(s, &all);
    } else {
        set_open_round(s->hints, 0);
        enter_state(s, BALLOON_HINT_STOPPED);
        forget_buffers(s, &all);
    }
}

/*
 * The migration
 */

/*
 * A guest that takes pages while their place is at the other side would wait
 * for pages that are never sent, so hints and postcopy do not go together.
 * And what is free in a guest that fills its pages says something is sent.
 */
static bool hints_are_wanted(VirtIOBalloon *s)
{
    return balloon_is_live(s, VIRTIO_DEVICE(s)->status) && !s->poison_val &&
           !migrate_postcopy_ram();
}

static int precopy_event(NotifierWithReturn *n, void *data, Error **errp)
{
    VirtIOBalloon *s = container_of(n, VirtIOBalloon, precopy);
    PrecopyNotifyData *event = data;

    if (!balloon_hints_negotiated(s)) {
        return 0;
    }
    switch (event->reason) {
    case PRECOPY_NOTIFY_BEFORE_BITMAP_SYNC:
        if (s->free_page_hint_status != BALLOON_HINT_DONE) {
            end_round(s, BALLOON_HINT_STOPPED);
        }
        break;
    case PRECOPY_NOTIFY_AFTER_BITMAP_SYNC:
        if (hints_are_wanted(s)) {
            request_round(s);
        } else if (!VIRTIO_DEVICE(s)->vm_running) {
            /* So that it uses all of its memory where it goes on. */
            end_round(s, BALLOON_HINT_DONE);
        }
        break;
    case PRECOPY_NOTIFY_CLEANUP:
        end_round(s, BALLOON_HINT_DONE);
        break;
    default:
        break;
    }
    return 0;
}

void balloon_hints_realize(VirtIOBalloon *s)
{
    DeviceState *dev = DEVICE(s);

    s->hints = hints_new(s->iothread);
    s->hints->again = qemu_bh_new_guarded(go_on, s,
                                          &dev->mem_reentrancy_guard);
    s->free_page_hint_cmd_id = VIRTIO_BALLOON_CMD_ID_MIN;
    s->precopy.notify = precopy_event;
    precopy_add_notifier(&s->precopy);
}

void balloon_hints_unrealize(VirtIOBalloon *s)
{
    BalloonHints *h = g_steal_pointer(&s->hints);
    HintList all = QSIMPLEQ_HEAD_INITIALIZER(all);

    if (!h) {
        return;
    }
    precopy_remove_notifier(&s->precopy);
    set_open_round(h, 0);
    all_buffers(h, &all);
    forget_buffers(s, &all);
    WITH_QEMU_LOCK_GUARD(&h->lock) {
        qemu_bh_delete(h->again);
        h->again = NULL;
    }
    hints_unref(h);
}
