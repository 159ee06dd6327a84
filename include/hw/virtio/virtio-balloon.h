/*
 * virtio-balloon: the device and its state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What guests and other instances of QEMU see of it (features, configuration,
 * queues, VMState) is that of QEMU 10.0.  All of it is accessed under the BQL;
 * what else runs without is in BalloonHints, see virtio-balloon-hints.c.
 */

#ifndef HW_VIRTIO_VIRTIO_BALLOON_H
#define HW_VIRTIO_VIRTIO_BALLOON_H

#include "hw/virtio/virtio.h"
#include "qemu/notify.h"
#include "qom/object.h"
#include "standard-headers/linux/virtio_balloon.h"
#include "system/iothread.h"

#define TYPE_VIRTIO_BALLOON "virtio-balloon-device"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOBalloon, VIRTIO_BALLOON)

/* Smaller ones have a meaning of their own, such as "stop" and "done". */
#define VIRTIO_BALLOON_CMD_ID_MIN 0x80000000u

/* Where a round of free page hints is.  The values are in the VMState. */
typedef enum BalloonHintState {
    BALLOON_HINT_STOPPED = 0,   /* the guest keeps what it hinted so far */
    BALLOON_HINT_REQUESTED = 1, /* it may begin, with this command id */
    BALLOON_HINT_STARTED = 2,   /* it has answered with that id */
    BALLOON_HINT_DONE = 3,      /* it may use all of its memory again */
} BalloonHintState;

typedef struct BalloonHints BalloonHints;

typedef struct BalloonStats {
    uint64_t value[VIRTIO_BALLOON_S_NR];    /* UINT64_MAX: not known */
    int64_t updated;            /* s since 1970 */
    int64_t interval;           /* s between two questions; 0: none */
    QEMUTimer *timer;           /* as long as there is an interval */
    VirtQueueElement *held;     /* the guest's answer; returned to ask again */
} BalloonStats;

struct VirtIOBalloon {
    VirtIODevice parent_obj;

    /* properties */
    uint32_t host_features;
    bool qemu_4_0_config_size;
    IOThread *iothread;

    /* the last two only if the device offers the feature */
    VirtQueue *inflate_vq, *deflate_vq, *stats_vq, *hint_vq, *report_vq;

    /* configuration space */
    uint32_t num_pages;         /* that the guest is asked to give up */
    uint32_t actual;            /* that it has given up */
    uint32_t free_page_hint_cmd_id;
    uint32_t free_page_hint_status;         /* BalloonHintState */
    uint32_t poison_val;        /* what is in free pages, 0 unless negotiated */

    BalloonStats stats;
    BalloonHints *hints;        /* NULL unless the device offers hints */
    NotifierWithReturn precopy;
};

#endif
