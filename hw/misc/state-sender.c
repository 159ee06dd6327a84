/*
 * A device for tests, whose state is saved and loaded by threads of its own
 *
 * It does what the largest devices do: with multifd its state goes over the
 * channels, in pieces that arrive in any order, otherwise over the main one:
 *
 *   -device state-sender,bytes=10000000,piece=65536
 *
 * The state is a pattern, so each piece is verified when it arrives; "arrived"
 * is how many bytes have been.  "fail" has the thread that saves fail in the
 * middle, and "stall" has it wait there until it is told to stop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/qdev-core.h"
#include "hw/qdev-properties.h"
#include "migration/misc.h"
#include "migration/qemu-file-types.h"
#include "migration/register.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "qemu/module.h"
#include "qemu/thread.h"
#include "qom/object.h"

#define TYPE_STATE_SENDER "state-sender"
OBJECT_DECLARE_SIMPLE_TYPE(StateSender, STATE_SENDER)

/* A piece: be64, where it belongs; then bytes of the pattern */
#define HEAD 8
#define PIECE_MAX (16 * 1024 * 1024)
#define LOOK_MS 20

/* Records on the main channel begin with one of these. */
enum { BEGIN, ON_CHANNELS, ON_MAIN };

struct StateSender {
    DeviceState parent_obj;

    uint64_t bytes;
    uint32_t piece;
    bool fail, stall;

    QemuMutex lock;
    QemuCond more;
    uint64_t arrived;           /* bytes that were right; under the lock */
};

static uint8_t pattern(uint64_t at)
{
    return (at * 0x9e3779b97f4a7c15ull) >> 56;
}

static void put_pattern(uint8_t *to, uint64_t at, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        to[i] = pattern(at + i);
    }
}

static bool take_pattern(StateSender *s, const uint8_t *from, uint64_t at,
                         size_t len, Error **errp)
{
    if (len > s->bytes || at > s->bytes - len) {
        error_setg(errp, "%zu bytes at %" PRIu64 " are not within its state",
                   len, at);
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (from[i] != pattern(at + i)) {
            error_setg(errp, "byte %" PRIu64 " is wrong", at + i);
            return false;
        }
    }
    QEMU_LOCK_GUARD(&s->lock);
    s->arrived += len;
    qemu_cond_signal(&s->more);
    return true;
}

/*
 * Source
 */

static int save_setup(QEMUFile *f, void *opaque, Error **errp)
{
    qemu_put_byte(f, BEGIN);
    return 0;
}

static int save_complete(QEMUFile *f, void *opaque)
{
    StateSender *s = opaque;
    g_autofree uint8_t *bytes = NULL;

    if (multifd_device_state_supported()) {
        qemu_put_byte(f, ON_CHANNELS);
        return 0;
    }
    bytes = g_malloc(s->bytes);
    put_pattern(bytes, 0, s->bytes);
    qemu_put_byte(f, ON_MAIN);
    qemu_put_be64(f, s->bytes);
    qemu_put_buffer(f, bytes, s->bytes);
    return 0;
}

static bool interrupt(StateSender *s, Error **errp)
{
    while (s->stall && !multifd_device_state_save_thread_should_exit()) {
        g_usleep(LOOK_MS * 1000);
    }
    if (s->stall || s->fail) {
        error_setg(errp, s->stall ? "it was told to stop"
                                  : "it was made to fail");
        return false;
    }
    return true;
}

static bool save_in_thread(SaveLiveCompletePrecopyThreadData *d, Error **errp)
{
    StateSender *s = d->handler_opaque;
    g_autofree uint8_t *bytes = g_malloc(HEAD + s->piece);

    for (uint64_t at = 0; at < s->bytes; at += s->piece) {
        size_t len = MIN(s->piece, s->bytes - at);

        if (at >= s->bytes / 2 && !interrupt(s, errp)) {
            return false;
        }
        stq_be_p(bytes, at);
        put_pattern(bytes + HEAD, at, len);
        if (!multifd_queue_device_state(d->idstr, d->instance_id,
                                        (char *)bytes, HEAD + len)) {
            error_setg(errp, "the channels take no more");
            return false;
        }
    }
    return true;
}

/*
 * Destination
 */

static int load_setup(QEMUFile *f, void *opaque, Error **errp)
{
    StateSender *s = opaque;

    s->arrived = 0;
    return 0;
}

static bool wait_in_thread(void *opaque, bool *should_quit, Error **errp)
{
    StateSender *s = opaque;

    QEMU_LOCK_GUARD(&s->lock);
    while (s->arrived < s->bytes && !qatomic_read(should_quit)) {
        qemu_cond_timedwait(&s->more, &s->lock, LOOK_MS);
    }
    if (s->arrived != s->bytes) {
        error_setg(errp, "%" PRIu64 " of %" PRIu64 " bytes of a state-sender "
                   "have come", s->arrived, s->bytes);
        return false;
    }
    return true;
}

static int load_main(StateSender *s, QEMUFile *f, Error **errp)
{
    g_autofree uint8_t *bytes = NULL;

    if (qemu_get_be64(f) != s->bytes) {
        error_setg(errp, "the state-sender there has another size");
        return -EINVAL;
    }
    bytes = g_malloc(s->bytes);
    if (qemu_get_buffer(f, bytes, s->bytes) != s->bytes) {
        return -EIO;
    }
    return take_pattern(s, bytes, 0, s->bytes, errp) ? 0 : -EINVAL;
}

static int load_state(QEMUFile *f, void *opaque, int version_id)
{
    uint8_t how = qemu_get_byte(f);
    Error *err = NULL;
    int ret = 0;

    if (how == ON_MAIN) {
        ret = load_main(opaque, f, &err);
    } else if (how == ON_CHANNELS && !multifd_device_state_supported()) {
        error_setg(&err, "the source has sent the state on channels");
        ret = -EINVAL;
    }
    if (err) {
        error_report_err(err);
    }
    return ret;
}

static bool load_buffer(void *opaque, char *data, size_t len, Error **errp)
{
    StateSender *s = opaque;

    if (len < HEAD) {
        error_setg(errp, "a piece has %zu bytes", len);
        return false;
    }
    return take_pattern(s, (uint8_t *)data + HEAD, ldq_be_p(data), len - HEAD,
                        errp);
}

static int switchover_start(void *opaque)
{
    if (multifd_device_state_supported()) {
        qemu_loadvm_start_load_thread(wait_in_thread, opaque);
    }
    return 0;
}

static const SaveVMHandlers handlers = {
    .save_setup = save_setup,
    .save_live_complete_precopy = save_complete,
    .save_live_complete_precopy_thread = save_in_thread,
    .load_setup = load_setup,
    .load_state = load_state,
    .load_state_buffer = load_buffer,
    .switchover_start = switchover_start,
};

static void realize(DeviceState *dev, Error **errp)
{
    StateSender *s = STATE_SENDER(dev);

    if (!s->piece || s->piece > PIECE_MAX || s->bytes > UINT32_MAX) {
        error_setg(errp, "'piece' is 1 to %d, and 'bytes' less than 4 GiB",
                   PIECE_MAX);
        return;
    }
    qemu_mutex_init(&s->lock);
    qemu_cond_init(&s->more);
    register_savevm_live(TYPE_STATE_SENDER, VMSTATE_INSTANCE_ID_ANY, 1,
                         &handlers, s);
}

static void unrealize(DeviceState *dev)
{
    StateSender *s = STATE_SENDER(dev);

    unregister_savevm(NULL, TYPE_STATE_SENDER, s);
    qemu_cond_destroy(&s->more);
    qemu_mutex_destroy(&s->lock);
}

static const Property properties[] = {
    DEFINE_PROP_UINT64("bytes", StateSender, bytes, 1000000),
    DEFINE_PROP_UINT32("piece", StateSender, piece, 65536),
    DEFINE_PROP_BOOL("fail", StateSender, fail, false),
    DEFINE_PROP_BOOL("stall", StateSender, stall, false),
    DEFINE_PROP_UINT64("arrived", StateSender, arrived, 0),
};

static void class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = realize;
    dc->unrealize = unrealize;
    dc->desc = "has its state sent by a thread, for tests of migration";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, properties);
}

static const TypeInfo info = {
    .name = TYPE_STATE_SENDER,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(StateSender),
    .class_init = class_init,
};

static void register_type(void)
{
    type_register_static(&info);
}

type_init(register_type)
