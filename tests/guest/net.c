/*
 * Numbered packets that the test guest sends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <endian.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net.h"

#define INTERFACE "eth0"
#define TICK_NS 1000000L
#define FRAME_MIN 60            /* without the checksum */
#define PATIENCE 5000           /* ticks until the interface is there */

typedef struct __attribute__((packed)) Frame {
    uint8_t to[ETH_ALEN], from[ETH_ALEN];
    uint16_t type;
    uint32_t magic, kind;
    uint64_t number, writes, received;
    uint8_t rest[FRAME_MIN - 14 - 32];
} Frame;

static int fd = -1;
static int interface_index;
static uint8_t address[ETH_ALEN];
static const _Atomic uint64_t *writes_made;
static _Atomic uint64_t wanted_rate, sent, received;

static void tick(void)
{
    nanosleep(&(struct timespec) { .tv_nsec = TICK_NS }, NULL);
}

static bool send_frame(NetKind kind, uint64_t number)
{
    struct sockaddr_ll to = {
        .sll_family = AF_PACKET, .sll_ifindex = interface_index,
        .sll_halen = ETH_ALEN,
    };
    Frame f = {
        .type = htons(NET_ETHERTYPE), .magic = htonl(NET_MAGIC),
        .kind = htonl(kind), .number = htobe64(number),
        .writes = htobe64(atomic_load(writes_made)),
        .received = htobe64(atomic_load(&received)),
    };

    memset(f.to, 0xff, ETH_ALEN);
    memcpy(f.from, address, ETH_ALEN);
    memset(to.sll_addr, 0xff, ETH_ALEN);
    return sendto(fd, &f, sizeof(f), 0, (struct sockaddr *)&to,
                  sizeof(to)) == sizeof(f);
}

/*
 * A number counts before it is sent: a state of the guest in which it has been
 * sent, but does not count, would send it again.
 */
static void *sender(void *unused)
{
    double due = 0;
    struct timespec last, now;

    clock_gettime(CLOCK_MONOTONIC, &last);
    for (;;) {
        double passed;

        tick();
        clock_gettime(CLOCK_MONOTONIC, &now);
        passed = now.tv_sec - last.tv_sec + (now.tv_nsec - last.tv_nsec) / 1e9;
        last = now;
        /* After a longer pause there is no burst. */
        due += (passed < 0.05 ? passed : 0.05) * atomic_load(&wanted_rate);
        for (; due >= 1; due--) {
            if (!send_frame(NET_BEAT, atomic_fetch_add(&sent, 1) + 1)) {
                tick();
            }
        }
    }
    return unused;
}

static void *receiver(void *unused)
{
    Frame f;

    for (;;) {
        ssize_t n = recv(fd, &f, sizeof(f), 0);

        if (n < (ssize_t)sizeof(f)) {
            if (n < 0) {
                tick();
            }
            continue;
        }
        if (ntohl(f.magic) == NET_MAGIC && ntohl(f.kind) == NET_REQUEST) {
            atomic_fetch_add(&received, 1);
            send_frame(NET_ANSWER, be64toh(f.number));
        }
    }
    return unused;
}

static const char *bring_up(int control)
{
    struct ifreq request = { .ifr_name = INTERFACE };

    for (int i = 0; ioctl(control, SIOCGIFINDEX, &request); i++) {
        if (i == PATIENCE) {
            return "there is no " INTERFACE;
        }
        tick();
    }
    interface_index = request.ifr_ifindex;
    if (ioctl(control, SIOCGIFHWADDR, &request)) {
        return INTERFACE " has no address";
    }
    memcpy(address, request.ifr_hwaddr.sa_data, ETH_ALEN);
    if (ioctl(control, SIOCGIFFLAGS, &request)) {
        return INTERFACE " has no flags";
    }
    request.ifr_flags |= IFF_UP;
    if (ioctl(control, SIOCSIFFLAGS, &request)) {
        return INTERFACE " cannot be started";
    }
    return NULL;
}

const char *net_start(uint64_t rate, const _Atomic uint64_t *writes)
{
    struct sockaddr_ll from = {
        .sll_family = AF_PACKET, .sll_protocol = htons(NET_ETHERTYPE),
    };
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const char *error = control < 0 ? "no sockets" : bring_up(control);
    pthread_t id;

    close(control);
    if (error) {
        return error;
    }
    writes_made = writes;
    net_set_rate(rate);
    fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(NET_ETHERTYPE));
    from.sll_ifindex = interface_index;
    if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof(from))) {
        return "no packet socket";
    }
    if (pthread_create(&id, NULL, sender, NULL) ||
        pthread_create(&id, NULL, receiver, NULL)) {
        return "no thread";
    }
    return NULL;
}

void net_set_rate(uint64_t rate)
{
    atomic_store(&wanted_rate, rate);
}

uint64_t net_sent(void)
{
    return atomic_load(&sent);
}

uint64_t net_received(void)
{
    return atomic_load(&received);
}
