/*
 * QEMUFile: the byte stream that migration and device state travel on
 *
 * This is the interface that devices and the migration code are written
 * against; migration/wire/stream.c is behind it.  The put and get functions
 * for plain values are in migration/qemu-file-types.h, included below.
 *
 * Direction: a stream is either an output or an input.  Put functions, flush
 * and qemu_file_transferred() need an output; get, peek and skip an input.
 *
 * Errors: put and get report nothing.  The first failure of any kind is
 * latched; from then on puts do nothing, nothing more is read from the
 * channel, and gets yield zero or what is still buffered.  Whoever needs to
 * know asks qemu_file_get_error() before acting on what was got.
 *
 * Threads: one thread at a time may put, get, flush or seek.  The error
 * functions and qemu_file_shutdown() may be called from any thread at any
 * time up to qemu_fclose().
 *
 * Blocking: where the channel would block, a coroutine yields and any other
 * caller waits, whatever the blocking mode of the channel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_QEMU_FILE_H
#define MIGRATION_QEMU_FILE_H

#include "exec/cpu-common.h"
#include "io/channel.h"

/*
 * Life cycle
 */

/* A stream that reads from @ioc; takes a reference of its own on @ioc. */
QEMUFile *qemu_file_new_input(QIOChannel *ioc);

/* A stream that writes to @ioc; takes a reference of its own on @ioc. */
QEMUFile *qemu_file_new_output(QIOChannel *ioc);

/*
 * A stream in the opposite direction over @f's channel, with an error latch
 * of its own.  Never NULL; whether the peer answers is another matter.
 */
QEMUFile *qemu_file_get_return_path(QEMUFile *f);

/*
 * Writes what is left, closes the channel (also under a return path that
 * shares it) and frees @f.  Returns the latched error, or a negative number
 * if closing fails, or else zero.
 */
int qemu_fclose(QEMUFile *f);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(QEMUFile, qemu_fclose)

/*
 * Makes everybody who is blocked on @f return, now and in the future: first
 * latches -EIO, then shuts the channel down for both directions.
 * Returns -ENOSYS if this kind of channel cannot be shut down (-EIO is
 * latched all the same), -EIO if that failed.
 */
int qemu_file_shutdown(QEMUFile *f);

/* The channel of @f, without a reference. */
QIOChannel *qemu_file_get_ioc(QEMUFile *f);

/*
 * Blocking mode of the channel.  A socket has one mode for both directions,
 * so this may change the return path's too.
 */
void qemu_file_set_blocking(QEMUFile *f, bool block);

#include "migration/qemu-file-types.h"

/*
 * Errors
 */

/*
 * Latches @ret (negative errno) unless an error is latched already or @ret
 * is zero.  Takes over @err, which may be NULL; where it is not latched it
 * is printed instead.
 */
void qemu_file_set_error_obj(QEMUFile *f, int ret, Error *err);

/* The same without an Error object. */
void qemu_file_set_error(QEMUFile *f, int ret);

/* The latched error or zero; if there is one, @errp receives a copy of it. */
int qemu_file_get_error_obj(QEMUFile *f, Error **errp);

/* The error of the first of @f1, @f2 that has one. Either may be NULL. */
int qemu_file_get_error_obj_any(QEMUFile *f1, QEMUFile *f2, Error **errp);

/*
 * Output
 */

/*
 * Puts @size bytes at @buf by reference.  They must stay readable until the
 * next flush and are read at some time up to then.  With @may_free the whole
 * host pages among them are given back to the kernel once written.
 */
void coroutine_mixed_fn qemu_put_buffer_async(QEMUFile *f, const uint8_t *buf,
                                              size_t size, bool may_free);

/* Writes everything put so far. Returns the latched error or zero. */
int coroutine_mixed_fn qemu_fflush(QEMUFile *f);

/*
 * Bytes written by all streams of this process plus those put here and not
 * written yet.  Meant for differences.
 */
uint64_t qemu_file_transferred(QEMUFile *f);

/*
 * Input
 *
 * What is peeked at or got in place stays valid until the next operation on
 * @f.  @size, or @offset + @size, is limited to STREAM_WINDOW_SIZE.
 */

/*
 * Points *@buf to the @size bytes that begin @offset bytes ahead. Returns
 * how many of them there are: fewer than @size only at the end of the stream
 * or after an error.
 */
size_t coroutine_mixed_fn qemu_peek_buffer(QEMUFile *f, uint8_t **buf,
                                           size_t size, size_t offset);

/* The byte @offset bytes ahead; zero if there is none. */
int coroutine_mixed_fn qemu_peek_byte(QEMUFile *f, int offset);

/*
 * Moves @size bytes on.  They must have been peeked at: otherwise this does
 * nothing.
 */
void qemu_file_skip(QEMUFile *f, int size);

/*
 * Gets @size bytes, either into *@buf or, if they are buffered, by pointing
 * *@buf to them.  Any @size is allowed.  Returns how many were got.
 */
size_t coroutine_mixed_fn qemu_get_buffer_in_place(QEMUFile *f, uint8_t **buf,
                                                   size_t size);

/*
 * Copies the next @size bytes to the file descriptor @fd.
 * Returns zero, or a negative errno that belongs to either side.
 */
int coroutine_mixed_fn qemu_file_get_to_fd(QEMUFile *f, int fd, size_t size);

/*
 * Position, for channels that can seek (qemu_file_is_seekable())
 */

/* Sets the position as lseek() does. Output is flushed before. */
void coroutine_mixed_fn qemu_set_offset(QEMUFile *f, off_t off, int whence);

/* Position of the next byte put or got, -1 on error. Output is flushed. */
off_t coroutine_mixed_fn qemu_get_offset(QEMUFile *f);

/* Writes at @pos without moving the position; flushes before. */
void coroutine_mixed_fn qemu_put_buffer_at(QEMUFile *f, const uint8_t *buf,
                                           size_t buflen, off_t pos);

/*
 * Fills @buf, which is not const but in name, from @pos without moving the
 * position.  Returns @buflen, or zero on error or if the file ends before.
 */
size_t coroutine_mixed_fn qemu_get_buffer_at(QEMUFile *f, const uint8_t *buf,
                                             size_t buflen, off_t pos);

/*
 * File descriptors, for channels that can pass them (UNIX sockets)
 *
 * Each travels with one byte of its own, at its place in the stream.
 */

/* Sends @fd, which stays the caller's. Returns 0, or -1 and latches. */
int coroutine_mixed_fn qemu_file_put_fd(QEMUFile *f, int fd);

/* The next descriptor, now the caller's; -1 if there is none. */
int coroutine_mixed_fn qemu_file_get_fd(QEMUFile *f);

#endif
