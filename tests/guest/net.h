/*
 * Numbered packets that the test guest sends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The number of the packet that was sent last is in the guest's memory alone,
 * and so are the writes that it tells of.  Whoever gets a packet knows of both
 * that they had been reached; a guest that goes on from an earlier moment sends
 * the same number again.
 *
 * Frames have an EtherType of the range for local experiments.  After the
 * header of 14 bytes, all numbers big-endian:
 *
 *    0  u32  NET_MAGIC
 *    4  u32  NetKind
 *    8  u64  NET_BEAT: number, from 1; others: as in the request
 *   16  u64  writes of all pages until now
 *   24  u64  requests that were received until now
 *
 * A request is answered with the same number.
 */
#ifndef FERRY_GUEST_NET_H
#define FERRY_GUEST_NET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define NET_ETHERTYPE 0x88b5
#define NET_MAGIC 0x46657279

typedef enum NetKind {
    NET_BEAT = 1, NET_REQUEST = 2, NET_ANSWER = 3,
} NetKind;

/*
 * Sends @rate packets a second from now on, from threads of its own, and
 * answers requests.  @writes is read for each of them.  Returns NULL, or what
 * failed.
 */
const char *net_start(uint64_t rate, const _Atomic uint64_t *writes);

/* Changes the rate; 0 is none. */
void net_set_rate(uint64_t rate);

/* Packets that were sent, and requests that were received */
uint64_t net_sent(void);
uint64_t net_received(void);

#endif
