/*
 * Commands: what the source tells the destination between sections
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_WIRE_COMMANDS_H
#define MIGRATION_WIRE_COMMANDS_H

#include "migration/base/load-step.h"
#include "migration/qemu-file.h"
#include "wire.h"

/* For traces and messages; never NULL. */
const char *command_name(unsigned command);

/**
 * command_check: may this come now?
 * @command: number and
 * @len: payload length as they were received
 * @step: of the destination
 * @in_package: came inside of a package
 *
 * One table lists for every command its lengths and where and when it may
 * come; all else is an error.
 */
bool command_check(unsigned command, unsigned len, LoadStep step,
                   bool in_package, Error **errp);

/* Puts a command and flushes. */
void command_send(QEMUFile *f, unsigned command, const void *payload,
                  size_t len);

/* The same as bytes, which the caller frees */
GByteArray *command_bytes(unsigned command, const void *payload, size_t len);

/* PACKAGED with @package, as bytes, which the caller frees */
GByteArray *command_package(const GByteArray *package);

/*
 * @host_page_sizes: page sizes of all RAM blocks, or-ed; zero if RAM is not
 * among what postcopy is meant for.
 */
void command_send_advise(QEMUFile *f, uint64_t host_page_sizes,
                         uint64_t target_page_size);

#endif
