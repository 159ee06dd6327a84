/*
 * What every test program of the migration stream begins with
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_SETUP_H
#define TEST_SETUP_H

#include "io/channel-buffer.h"
#include "migration/qemu-file.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "time-limit.h"

#define TEST_TIME_LIMIT 55      /* s */

static inline void test_setup(int *argc, char ***argv)
{
    sigset_t alarms;

    g_test_init(argc, argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    qemu_init_main_loop(&error_abort);
    signal(SIGPIPE, SIG_IGN);
    /* The main loop has it blocked, as it has its own use for it. */
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    test_limit_time(TEST_TIME_LIMIT);
}

/* A stream that consists of @len bytes at @data */
static inline QEMUFile *test_input(const void *data, size_t len)
{
    QIOChannelBuffer *buffer = qio_channel_buffer_new(len);
    QEMUFile *f;

    if (len) {
        memcpy(buffer->data, data, len);
    }
    buffer->usage = len;
    f = qemu_file_new_input(QIO_CHANNEL(buffer));
    object_unref(OBJECT(buffer));
    return f;
}

#endif
