/*
 * virtio-balloon: what the guest says of its memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest puts its figures into a buffer and waits.  Giving the buffer back
 * asks for new ones, so one is held all the time, until the timer gives it
 * back.  It is not part of the VMState: after a migration, or when the guest
 * was stopped, the queue knows that a buffer was taken and not returned, and
 * it is taken again.
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hw/virtio/virtio-access.h"
#include "virtio-balloon-private.h"

/* Members of the property guest-stats, after "stat-", in the order of tags */
static const char *const names[] = {
    "swap-in", "swap-out", "major-faults", "minor-faults", "free-memory",
    "total-memory", "available-memory", "disk-caches", "htlb-pgalloc",
    "htlb-pgfail", "oom-kills", "alloc-stalls", "async-scans",
    "direct-scans", "async-reclaims", "direct-reclaims",
};
QEMU_BUILD_BUG_ON(ARRAY_SIZE(names) != VIRTIO_BALLOON_S_NR);

void balloon_stats_forget(VirtIOBalloon *s)
{
    for (unsigned i = 0; i < VIRTIO_BALLOON_S_NR; i++) {
        s->stats.value[i] = UINT64_MAX;
    }
}

/*
 * The timer
 */

static void ask_in(VirtIOBalloon *s, int64_t seconds)
{
    timer_mod(s->stats.timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) +
                              seconds * 1000);
}

static void ask_later(VirtIOBalloon *s)
{
    if (s->stats.interval) {
        ask_in(s, s->stats.interval);
    }
}

/* Returns whether there was a buffer, and so the guest has been asked. */
static bool give_back(VirtIOBalloon *s)
{
    VirtQueueElement *elem = g_steal_pointer(&s->stats.held);

    if (!elem) {
        return false;
    }
    virtqueue_push(s->stats_vq, elem, 0);
    virtio_notify(VIRTIO_DEVICE(s), s->stats_vq);
    g_free(elem);
    return true;
}

static void time_to_ask(void *opaque)
{
    VirtIOBalloon *s = opaque;

    /* If the guest is asked, its answer sets the timer. */
    if (!virtio_vdev_has_feature(VIRTIO_DEVICE(s),
                                 VIRTIO_BALLOON_F_STATS_VQ) ||
        !give_back(s)) {
        ask_later(s);
    }
}

void balloon_stats_cleanup(VirtIOBalloon *s)
{
    s->stats.interval = 0;
    g_clear_pointer(&s->stats.timer, timer_free);
}

void balloon_stats_loaded(VirtIOBalloon *s)
{
    ask_later(s);
}

/*
 * The queue
 */

static void take_figures(VirtIOBalloon *s, const VirtQueueElement *elem)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    struct virtio_balloon_stat stat;

    balloon_stats_forget(s);    /* this guest may know of fewer */
    for (size_t at = 0; iov_to_buf(elem->out_sg, elem->out_num, at, &stat,
                                   sizeof(stat)) == sizeof(stat);
         at += sizeof(stat)) {
        unsigned tag = virtio_tswap16(vdev, stat.tag);

        if (tag < VIRTIO_BALLOON_S_NR) {
            s->stats.value[tag] = virtio_tswap64(vdev, stat.val);
        }
    }
    s->stats.updated = g_get_real_time() / G_USEC_PER_SEC;
}

void balloon_handle_stats(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(vdev);
    VirtQueueElement *elem = virtqueue_pop(vq, sizeof(*elem));

    if (elem) {
        give_back(s);           /* a driver has no reason to send two */
        s->stats.held = elem;
        take_figures(s, elem);
    }
    ask_later(s);
}

void balloon_stats_reset(VirtIOBalloon *s)
{
    if (s->stats.held) {
        virtqueue_unpop(s->stats_vq, s->stats.held, 0);
        g_clear_pointer(&s->stats.held, g_free);
    }
}

void balloon_stats_resume(VirtIOBalloon *s)
{
    if (!s->stats.held && virtqueue_rewind(s->stats_vq, 1)) {
        balloon_handle_stats(VIRTIO_DEVICE(s), s->stats_vq);
    }
}

/*
 * Properties
 */

static bool visit_figures(VirtIOBalloon *s, Visitor *v, Error **errp)
{
    bool ok = true;

    if (!visit_start_struct(v, "stats", NULL, 0, errp)) {
        return false;
    }
    for (unsigned i = 0; ok && i < VIRTIO_BALLOON_S_NR; i++) {
        g_autofree char *name = g_strconcat("stat-", names[i], NULL);

        ok = visit_type_uint64(v, name, &s->stats.value[i], errp);
    }
    ok = ok && visit_check_struct(v, errp);
    visit_end_struct(v, NULL);
    return ok;
}

static void get_stats(Object *obj, Visitor *v, const char *name, void *opaque,
                      Error **errp)
{
    VirtIOBalloon *s = VIRTIO_BALLOON(obj);

    if (visit_start_struct(v, name, NULL, 0, errp)) {
        if (visit_type_int(v, "last-update", &s->stats.updated, errp) &&
            visit_figures(s, v, errp)) {
            visit_check_struct(v, errp);
        }
        visit_end_struct(v, NULL);
    }
}

static void set_seconds(VirtIOBalloon *s, int64_t seconds)
{
    bool first = !s->stats.timer;

    if (!seconds) {
        balloon_stats_cleanup(s);
        return;
    }
    if (seconds == s->stats.interval) {
        return;
    }
    if (first) {
        s->stats.timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, time_to_ask, s);
    }
    s->stats.interval = seconds;
    ask_in(s, first ? 0 : seconds);
}

static void get_interval(Object *obj, Visitor *v, const char *name,
                         void *opaque, Error **errp)
{
    visit_type_int(v, name, &VIRTIO_BALLOON(obj)->stats.interval, errp);
}

static void set_interval(Object *obj, Visitor *v, const char *name,
                         void *opaque, Error **errp)
{
    int64_t value;

    if (visit_type_int(v, name, &value, errp)) {
        if (value >= 0 && value <= UINT32_MAX) {
            set_seconds(VIRTIO_BALLOON(obj), value);
        } else {
            error_setg(errp, "%s is a number of seconds from 0 (do not ask) "
                       "to %u", name, UINT32_MAX);
        }
    }
}

void balloon_stats_init(VirtIOBalloon *s)
{
    object_property_add(OBJECT(s), "guest-stats", "guest statistics",
                        get_stats, NULL, NULL, NULL);
    object_property_add(OBJECT(s), "guest-stats-polling-interval", "int",
                        get_interval, set_interval, NULL, NULL);
}
