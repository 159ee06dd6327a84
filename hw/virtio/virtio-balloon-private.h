/*
 * virtio-balloon: what its parts know of each other
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All functions are called with the BQL.
 */

#ifndef HW_VIRTIO_BALLOON_PRIVATE_H
#define HW_VIRTIO_BALLOON_PRIVATE_H

#include "hw/virtio/virtio-balloon.h"

/* Whether the device runs and its driver is there */
static inline bool balloon_is_live(const VirtIOBalloon *s, uint8_t status)
{
    return s->parent_obj.vm_running && (status & VIRTIO_CONFIG_S_DRIVER_OK);
}

/*
 * Pages that come and go (virtio-balloon-pages.c): handlers of the queues for
 * inflating, deflating and reporting.
 */
void balloon_handle_inflate(VirtIODevice *vdev, VirtQueue *vq);
void balloon_handle_deflate(VirtIODevice *vdev, VirtQueue *vq);
void balloon_handle_report(VirtIODevice *vdev, VirtQueue *vq);

/* Statistics (virtio-balloon-stats.c) */
void balloon_stats_init(VirtIOBalloon *s);      /* adds QOM properties */
void balloon_stats_cleanup(VirtIOBalloon *s);   /* the timer */
void balloon_handle_stats(VirtIODevice *vdev, VirtQueue *vq);

/* Forget what is known. */
void balloon_stats_forget(VirtIOBalloon *s);

/* Give what is held back to the queue, which is about to be reset. */
void balloon_stats_reset(VirtIOBalloon *s);

/* The device has come to life: find the answer that is in flight. */
void balloon_stats_resume(VirtIOBalloon *s);

/* The device was loaded: ask again when it is time. */
void balloon_stats_loaded(VirtIOBalloon *s);

/* Free page hints (virtio-balloon-hints.c) */

/*
 * Begin to listen to migrations.  The device has an iothread.  Undone by
 * balloon_hints_unrealize(), which may be called without.
 */
void balloon_hints_realize(VirtIOBalloon *s);
void balloon_hints_unrealize(VirtIOBalloon *s);

/* Whether the guest knows of hints; usable as VMState's .needed */
bool balloon_hints_negotiated(void *opaque);

void balloon_handle_hints(VirtIODevice *vdev, VirtQueue *vq);

/*
 * The VM was started or stopped, or the driver changes its @status, which is
 * not that of the device yet.
 */
void balloon_hints_set_status(VirtIOBalloon *s, uint8_t status);

/* What the guest reads as the command id */
uint32_t balloon_hints_config(const VirtIOBalloon *s);

/* Check and mend what was loaded.  Returns false if it cannot be. */
bool balloon_hints_loaded(VirtIOBalloon *s, Error **errp);

#endif
