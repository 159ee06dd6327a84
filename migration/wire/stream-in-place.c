/*
 * Output that the kernel sends from where it lies, without a copy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The kernel takes a reference to each page of a message and says on the error
 * queue of the socket when it has let go of them.  It numbers messages from 0
 * on, as we count them, and tells of ranges of numbers.  The error queue makes
 * poll(2) return at once, whatever it waits for, until somebody has read it.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/units.h"
#include "io/channel-socket.h"
#include "migration/base/stats.h"
#include "stream-private.h"

#if defined(CONFIG_LINUX) && defined(MSG_ZEROCOPY) && defined(SO_ZEROCOPY)
#include <linux/errqueue.h>
#include <sys/resource.h>

struct InPlace {
    uint32_t begun, done;       /* messages; both wrap */
    bool ever;                  /* the kernel has sent something in place, */
    bool lately;                /* since the last wait, */
    bool copied;                /* or has copied something */
    uint64_t moved;             /* bytes of the stream at the last wait */
    bool given_up;              /* it only copies, which we do better */
    bool stays;                 /* for tests: it is not given up */
};

/* Tests see to it that messages are sent so although the kernel copies them. */
void stream_in_place_stays(QEMUFile *f)
{
    f->in_place->stays = true;
}

/*
 * What the kernel has finished
 */

/* False if it is none that tells of messages. */
static bool take_notice(InPlace *in, const struct sock_extended_err *notice)
{
    uint32_t count = notice->ee_data - notice->ee_info + 1;

    if (notice->ee_errno || notice->ee_origin != SO_EE_ORIGIN_ZEROCOPY ||
        count > in->begun - in->done) {
        return false;
    }
    in->done += count;
    if (notice->ee_code & SO_EE_CODE_ZEROCOPY_COPIED) {
        in->copied = true;
    } else {
        in->ever = in->lately = true;
    }
    return true;
}

static bool is_notice(const struct cmsghdr *cm)
{
    return cm && ((cm->cmsg_level == SOL_IP && cm->cmsg_type == IP_RECVERR) ||
                  (cm->cmsg_level == SOL_IPV6 &&
                   cm->cmsg_type == IPV6_RECVERR));
}

static void strange_notice(QEMUFile *f, int code)
{
    Error *err = NULL;

    error_setg_errno(&err, code, "%s: the socket has an error", stream_name(f));
    stream_fault_io(f, err);
}

/* All notices that are there */
static void reap_notices(QEMUFile *f)
{
    InPlace *in = f->in_place;

    while (in->done != in->begun && !stream_fault(f)) {
        char control[256] QEMU_ALIGNED(8);
        struct msghdr msg = {
            .msg_control = control, .msg_controllen = sizeof(control),
        };
        const struct sock_extended_err *notice;
        struct cmsghdr *cm;

        if (recvmsg(f->socket->fd, &msg, MSG_ERRQUEUE) < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno != EAGAIN) {
                strange_notice(f, errno);
            }
            return;
        }
        cm = CMSG_FIRSTHDR(&msg);
        notice = is_notice(cm) ? (void *)CMSG_DATA(cm) : NULL;
        if (!notice || !take_notice(in, notice)) {
            strange_notice(f, notice && notice->ee_errno ? notice->ee_errno
                                                         : EPROTO);
        }
    }
}

/* Returns when there may be more notices, or after a while. */
static void park_for_notice(QEMUFile *f)
{
    GPollFD wait = { .fd = f->socket->fd, .events = 0 };
    uint32_t before = f->in_place->done;
    int code = 0;
    socklen_t len = sizeof(code);

    g_poll(&wait, 1, STREAM_PARK_MS);
    reap_notices(f);
    if (f->in_place->done != before || !wait.revents || stream_fault(f)) {
        return;
    }
    /* Something else has woken us, and will do so again. */
    if (!getsockopt(f->socket->fd, SOL_SOCKET, SO_ERROR, &code, &len) && code) {
        strange_notice(f, code);
    }
    g_usleep(1000);
}

/* Of a wait that is over: a kernel that only copies is not asked again. */
static void count_copies(QEMUFile *f)
{
    InPlace *in = f->in_place;
    bool some = f->moved - in->moved >= STREAM_IN_PLACE_MIN;

    if (in->copied && !in->ever && !in->stays && !in->given_up) {
        in->given_up = true;
        f->write_in_place = NULL;
        warn_report_once("zero-copy-send: the kernel copies what is sent on "
                         "this connection, so it is sent without the "
                         "capability's help; this is so if the destination "
                         "is on this host, or the network device cannot "
                         "gather");
    }
    if (!in->lately && (in->copied || (in->given_up && some))) {
        stat64_add(&mig_stats.dirty_sync_missed_zero_copy, 1);
    }
    in->copied = in->lately = false;
    in->moved = f->moved;
}

/*
 * Sending
 */

/* There is no memory to be locked, or to tell us by, and none will come. */
static void no_room(QEMUFile *f, size_t bytes)
{
    struct rlimit limit = { };
    Error *err = NULL;

    getrlimit(RLIMIT_MEMLOCK, &limit);
    error_setg(&err, "%s: zero-copy-send needs %zu KiB of memory that this "
               "process may lock for each channel, and may lock %" PRIu64
               " KiB in all: raise the limit ('ulimit -l', RLIMIT_MEMLOCK), "
               "raise net.core.optmem_max, or turn off the capability",
               stream_name(f), DIV_ROUND_UP(bytes, KiB),
               (uint64_t)limit.rlim_cur / KiB);
    stream_fault_io(f, err);
}

static void cannot_send(QEMUFile *f, int code)
{
    Error *err = NULL;

    error_setg_errno(&err, code, "%s: memory cannot be sent in place",
                     stream_name(f));
    stream_fault_io(f, err);
}

/* Returns what has been sent, 0 if it is to be tried again, or -1. */
static ssize_t send_once(QEMUFile *f, struct iovec *vec, size_t n)
{
    struct msghdr msg = { .msg_iov = vec, .msg_iovlen = n };
    ssize_t len = sendmsg(f->socket->fd, &msg, MSG_ZEROCOPY);
    InPlace *in = f->in_place;

    if (len > 0) {
        in->begun++;
        return len;
    }
    switch (len ? errno : EPIPE) {
    case EINTR:
        return 0;
    case EAGAIN:
        stream_channel_park(f, G_IO_OUT);
        return 0;
    case ENOBUFS:
        if (in->done == in->begun) {
            no_room(f, iov_size(vec, n));
            return -1;
        }
        park_for_notice(f);
        return 0;
    default:
        cannot_send(f, errno);
        return -1;
    }
}

static bool write_pieces_in_place(QEMUFile *f, struct iovec *vec, size_t n)
{
    while (n) {
        ssize_t len;

        if (stream_fault(f)) {
            return false;
        }
        len = send_once(f, vec, n);
        if (len < 0) {
            return false;
        }
        if (len > 0) {
            size_t gone = stream_written_more(f, vec, len);

            vec += gone;
            n -= gone;
        }
    }
    /* so that there are never many of them */
    reap_notices(f);
    return !stream_fault(f);
}

bool stream_send_in_place(QEMUFile *f, Error **errp)
{
    int on = 1;

    assert(f->out);
    if (!f->socket || setsockopt(f->socket->fd, SOL_SOCKET, SO_ZEROCOPY, &on,
                                 sizeof(on)) < 0) {
        error_setg(errp, "%s: memory can be sent in place over TCP only, and "
                   "with a kernel that can do so; turn off the capability "
                   "'zero-copy-send'", stream_name(f));
        return false;
    }
    f->in_place = g_new0(InPlace, 1);
    f->before_park = reap_notices;
    f->write_in_place = write_pieces_in_place;
    return true;
}

void stream_await_in_place(QEMUFile *f)
{
    InPlace *in = f->in_place;

    if (!in) {
        return;
    }
    while (in->done != in->begun && !stream_fault(f)) {
        park_for_notice(f);
    }
    count_copies(f);
}

#else

bool stream_send_in_place(QEMUFile *f, Error **errp)
{
    error_setg(errp, "This host cannot send memory in place; turn off the "
               "capability 'zero-copy-send'");
    return false;
}

void stream_in_place_stays(QEMUFile *f)
{
}

void stream_await_in_place(QEMUFile *f)
{
}

#endif
