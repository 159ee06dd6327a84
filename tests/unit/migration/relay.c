/*
 * Between the two sides: a relay that stops, cuts and counts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "relay.h"

#define PIPES_MAX 16
#define BUFFER (64 * 1024)
/* A record that has begun and does not go on is none. */
#define TAIL_MS 20
#define PATIENCE_MS 40000

/* What one socket has sent and the other has not been given */
typedef struct Pipe {
    int from, to;               /* from is -1 when it has ended */
    uint8_t buffer[BUFFER];
    size_t used;
    size_t pass;                /* of them, that may go on */
    int64_t came_us;            /* when the last of them came */
} Pipe;

struct Relay {
    QemuThread thread;
    int listener;
    int wake[2];
    char *target;

    QemuMutex lock;             /* of all below */
    QemuCond changed;
    Pipe *pipes[PIPES_MAX][RELAY_WAYS];
    unsigned connections;
    uint64_t bytes[RELAY_WAYS];
    RelayStop stop;
    bool watching;              /* for it */
    bool stopped;               /* there */
    bool held[RELAY_WAYS];
    bool quit;
};

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    g_assert_cmpuint(strlen(path), <, sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    return address;
}

static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

/*
 * One direction; under the lock
 */

static bool is_late(const Pipe *pipe)
{
    return g_get_monotonic_time() - pipe->came_us > TAIL_MS * 1000;
}

/* Of what has come, how much ends before the record or its beginning. */
static size_t before_record(const Relay *relay, const Pipe *pipe, bool *found)
{
    const RelayStop *stop = &relay->stop;
    size_t at, compare;

    for (at = 0; at < pipe->used; at++) {
        compare = MIN(stop->length, pipe->used - at);
        if (!memcmp(pipe->buffer + at, stop->pattern, compare)) {
            *found = compare == stop->length;
            return at;
        }
    }
    *found = false;
    return at;
}

/* Bytes from the start of the record on that pass; they may not be here yet. */
static size_t length_of_record(const Relay *relay, const Pipe *pipe, size_t at)
{
    const uint8_t *record = pipe->buffer + at;

    if (!relay->stop.message) {
        return relay->stop.record;
    }
    return pipe->used < at + 4 ? 4 : 4 + (record[2] << 8 | record[3]);
}

static void come_to_it(Relay *relay, Pipe *pipe, size_t at)
{
    size_t length = length_of_record(relay, pipe, at);

    if (relay->stop.skip) {
        relay->stop.skip--;
        pipe->pass = at + relay->stop.length;
        return;
    }
    if (pipe->used < at + MAX(length, 4)) {
        pipe->pass = at;
        return;
    }
    pipe->pass = at + length;
    relay->watching = false;
    relay->stopped = true;
    relay->held[relay->stop.way] = true;
    qemu_cond_broadcast(&relay->changed);
}

static void decide(Relay *relay, unsigned number, RelayWay way)
{
    Pipe *pipe = relay->pipes[number][way];
    bool found;
    size_t at;

    if (pipe->pass || relay->held[way]) {
        return;
    }
    if (!relay->watching || relay->stop.way != way) {
        pipe->pass = pipe->used;
        return;
    }
    at = before_record(relay, pipe, &found);
    if (found) {
        come_to_it(relay, pipe, at);
    } else {
        pipe->pass = is_late(pipe) ? pipe->used : at;
    }
}

static void close_pair(Relay *relay, unsigned number)
{
    Pipe **pair = relay->pipes[number];

    if (pair[0]) {
        shutdown(pair[0]->to, SHUT_RDWR);
        shutdown(pair[1]->to, SHUT_RDWR);
        close(pair[0]->to);
        close(pair[1]->to);
        g_free(pair[0]);
        g_free(pair[1]);
        pair[0] = pair[1] = NULL;
    }
}

/* Nobody reads what it brings: whoever writes to it is told so. */
static void end_pipe(Pipe *pipe)
{
    pipe->used = pipe->pass = 0;
    if (pipe->from >= 0) {
        shutdown(pipe->from, SHUT_RD);
        pipe->from = -1;
    }
}

/* @gone: who writes to it has closed the socket altogether. */
static void receive(Pipe *pipe, Pipe *back, bool gone)
{
    ssize_t len = recv(pipe->from, pipe->buffer + pipe->used,
                       BUFFER - pipe->used, MSG_DONTWAIT);

    if (len > 0) {
        pipe->used += len;
        pipe->came_us = g_get_monotonic_time();
    } else if (!len || errno != EAGAIN) {
        pipe->from = -1;
        if (gone) {
            end_pipe(back);
        }
    }
}

static void deliver(Relay *relay, RelayWay way, Pipe *pipe)
{
    ssize_t len = send(pipe->to, pipe->buffer, pipe->pass,
                       MSG_DONTWAIT | MSG_NOSIGNAL);

    if (len > 0) {
        pipe->used -= len;
        pipe->pass -= len;
        memmove(pipe->buffer, pipe->buffer + len, pipe->used);
        relay->bytes[way] += len;
    } else if (errno != EAGAIN) {
        end_pipe(pipe);
    }
}

/*
 * The thread
 */

typedef struct Polled {
    struct pollfd fds[2 + PIPES_MAX * RELAY_WAYS * 2];
    unsigned count;
} Polled;

static void poll_for(Polled *polled, int fd, short events)
{
    polled->fds[polled->count++] = (struct pollfd) { fd, events };
}

static void prepare_pipes(Relay *relay, Polled *polled)
{
    for (unsigned i = 0; i < relay->connections; i++) {
        for (RelayWay way = 0; way < RELAY_WAYS; way++) {
            Pipe *pipe = relay->pipes[i][way];
            bool reads = pipe && pipe->from >= 0 && pipe->used < BUFFER;

            if (pipe) {
                decide(relay, i, way);
            }
            poll_for(polled, reads ? pipe->from : -1, POLLIN);
            poll_for(polled, pipe && pipe->pass ? pipe->to : -1, POLLOUT);
        }
    }
}

static void serve_pipes(Relay *relay, const Polled *polled)
{
    const struct pollfd *fd = &polled->fds[2];

    for (; fd < &polled->fds[polled->count]; fd += 2) {
        unsigned i = (fd - &polled->fds[2]) / 2 / RELAY_WAYS;
        RelayWay way = (fd - &polled->fds[2]) / 2 % RELAY_WAYS;
        Pipe *pipe = relay->pipes[i][way];

        if (!pipe) {
            continue;
        }
        if (fd[0].revents) {
            receive(pipe, relay->pipes[i][!way], fd[0].revents & POLLHUP);
        }
        decide(relay, i, way);
        if (pipe->pass) {
            deliver(relay, way, pipe);
        } else if (pipe->from < 0 && !pipe->used) {
            shutdown(pipe->to, SHUT_WR);
        }
    }
}

static Pipe *new_pipe(int from, int to)
{
    Pipe *pipe = g_new0(Pipe, 1);

    pipe->from = from;
    pipe->to = to;
    return pipe;
}

static void accept_one(Relay *relay)
{
    struct sockaddr_un address = address_of(relay->target);
    int source = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
    int destination = new_socket();
    unsigned i = relay->connections;

    g_assert_cmpint(source, >=, 0);
    g_assert_cmpuint(i, <, PIPES_MAX);
    if (connect(destination, (void *)&address, sizeof(address))) {
        close(source);
        close(destination);
        return;
    }
    relay->pipes[i][TO_DESTINATION] = new_pipe(source, destination);
    relay->pipes[i][TO_SOURCE] = new_pipe(destination, source);
    relay->connections++;
    qemu_cond_broadcast(&relay->changed);
}

static bool serve(Relay *relay)
{
    Polled polled = { .count = 0 };
    char waste[64];

    WITH_QEMU_LOCK_GUARD(&relay->lock) {
        poll_for(&polled, relay->wake[0], POLLIN);
        poll_for(&polled, relay->listener, POLLIN);
        prepare_pipes(relay, &polled);
    }
    poll(polled.fds, polled.count, TAIL_MS);
    QEMU_LOCK_GUARD(&relay->lock);
    if (polled.fds[0].revents) {
        g_assert_cmpint(read(relay->wake[0], waste, sizeof(waste)), >, 0);
    }
    serve_pipes(relay, &polled);
    if (polled.fds[1].revents) {
        accept_one(relay);
    }
    return !relay->quit;
}

static void *relay_thread(void *opaque)
{
    while (serve(opaque)) {
        /* the next round */
    }
    return NULL;
}

/* The thread waits for sockets; under the lock or not. */
static void wake_relay(Relay *relay)
{
    g_assert_cmpint(write(relay->wake[1], "", 1), ==, 1);
}

/*
 * For tests
 */

Relay *relay_new(const char *listen_at, const char *connect_to)
{
    struct sockaddr_un address = address_of(listen_at);
    Relay *relay = g_new0(Relay, 1);

    relay->target = g_strdup(connect_to);
    relay->listener = new_socket();
    g_assert_false(bind(relay->listener, (void *)&address, sizeof(address)));
    g_assert_false(listen(relay->listener, PIPES_MAX));
    g_assert_false(pipe2(relay->wake, O_CLOEXEC));
    qemu_mutex_init(&relay->lock);
    qemu_cond_init(&relay->changed);
    qemu_thread_create(&relay->thread, "relay", relay_thread, relay,
                       QEMU_THREAD_JOINABLE);
    return relay;
}

void relay_free(Relay *relay)
{
    WITH_QEMU_LOCK_GUARD(&relay->lock) {
        relay->quit = true;
    }
    wake_relay(relay);
    qemu_thread_join(&relay->thread);
    for (unsigned i = 0; i < relay->connections; i++) {
        close_pair(relay, i);
    }
    close(relay->listener);
    close(relay->wake[0]);
    close(relay->wake[1]);
    qemu_cond_destroy(&relay->changed);
    qemu_mutex_destroy(&relay->lock);
    g_free(relay->target);
    g_free(relay);
}

void relay_stop_at(Relay *relay, const RelayStop *stop)
{
    g_assert_cmpuint(stop->length, <=, RELAY_PATTERN_MAX);
    QEMU_LOCK_GUARD(&relay->lock);
    relay->stop = *stop;
    relay->watching = true;
    relay->stopped = false;
}

bool relay_has_stopped(Relay *relay)
{
    QEMU_LOCK_GUARD(&relay->lock);
    return relay->stopped;
}

void relay_wait(Relay *relay)
{
    QEMU_LOCK_GUARD(&relay->lock);
    while (!relay->stopped) {
        if (!qemu_cond_timedwait(&relay->changed, &relay->lock, PATIENCE_MS)) {
            g_error("the relay never came to what it was to stop at");
        }
    }
}

void relay_hold(Relay *relay, RelayWay way)
{
    QEMU_LOCK_GUARD(&relay->lock);
    relay->held[way] = true;
}

void relay_go_on(Relay *relay)
{
    WITH_QEMU_LOCK_GUARD(&relay->lock) {
        relay->watching = false;
        memset(relay->held, 0, sizeof(relay->held));
    }
    wake_relay(relay);
}

void relay_cut(Relay *relay)
{
    WITH_QEMU_LOCK_GUARD(&relay->lock) {
        relay->watching = false;
        memset(relay->held, 0, sizeof(relay->held));
        for (unsigned i = 0; i < relay->connections; i++) {
            close_pair(relay, i);
        }
    }
    wake_relay(relay);
}

void relay_cut_one(Relay *relay, unsigned number)
{
    WITH_QEMU_LOCK_GUARD(&relay->lock) {
        g_assert_cmpuint(number, <, relay->connections);
        close_pair(relay, number);
    }
    wake_relay(relay);
}

unsigned relay_connections(Relay *relay)
{
    QEMU_LOCK_GUARD(&relay->lock);
    return relay->connections;
}

uint64_t relay_bytes(Relay *relay, RelayWay way)
{
    QEMU_LOCK_GUARD(&relay->lock);
    return relay->bytes[way];
}
