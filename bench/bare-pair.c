/*
 * What plain pairs of sockets move on this machine: the ceiling for a migration
 * with as many connections
 *
 * A child process receives into memory nobody has touched yet, as the
 * destination of a migration does, so that the page faults are part of the
 * price; the parent sends random data from anonymous memory, as the source
 * does.  Nothing else happens: no headers, no bitmap, no copy of our own.
 * Each pair has a thread on both sides, and a share of the memory.
 *
 * For each transport one line of JSON goes to stdout.  GB are 10^9 bytes; CPU
 * is user + system time of that side alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024UL * 1024UL)
#define PAIRS_MAX 64

typedef struct Options {
    unsigned pairs;
    size_t bytes;      /* to be moved */
    size_t block;      /* most that one send() or recv() is asked to move */
    unsigned seconds;  /* give up after this long */
} Options;

/* What the receiver reports to the sender when the last byte has arrived. */
typedef struct Receipt {
    double cpu;        /* seconds, user + system */
    uint64_t bytes;
} Receipt;

/* One side of one pair */
typedef struct Share {
    pthread_t thread;
    int fd;
    uint8_t *memory;
    size_t bytes;
    size_t block;
    size_t done;       /* received */
} Share;

static void die(const char *what)
{
    fprintf(stderr, "bare-pair: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double seconds_of(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return ts.tv_sec + ts.tv_nsec / 1e9;
}

static uint8_t *new_memory(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED) {
        die("no memory");
    }
    /* Only a hint, exactly as for the RAM of a guest. */
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

/* xorshift64*: not for secrets, but no two pages are alike and none is zero. */
static void fill_random(uint8_t *p, size_t bytes)
{
    uint64_t x = 0x9e3779b97f4a7c15ULL;
    uint64_t *word = (uint64_t *)p;

    for (size_t i = 0; i < bytes / sizeof(*word); i++) {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        word[i] = x * 0x2545f4914f6cdd1dULL;
    }
}

static void connect_tcp(int fd[2])
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t len = sizeof(addr);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (listener < 0 ||
        bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&addr, &len) < 0) {
        die("cannot listen on the loopback interface");
    }
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd[0] < 0 ||
        connect(fd[0], (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        die("cannot connect over the loopback interface");
    }
    fd[1] = accept(listener, NULL, NULL);
    if (fd[1] < 0) {
        die("cannot accept a connection");
    }
    close(listener);
}

static void connect_unix(int fd[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) < 0) {
        die("cannot make a socket pair");
    }
}

static void *send_share(void *opaque)
{
    const Share *s = opaque;
    size_t done = 0;

    while (done < s->bytes) {
        size_t want = s->bytes - done;
        ssize_t n = send(s->fd, s->memory + done,
                         want < s->block ? want : s->block, MSG_NOSIGNAL);

        if (n < 0 && errno != EINTR) {
            die("send");
        }
        done += n > 0 ? n : 0;
    }
    return NULL;
}

static void *recv_share(void *opaque)
{
    Share *s = opaque;

    while (s->done < s->bytes) {
        size_t want = s->bytes - s->done;
        ssize_t n = recv(s->fd, s->memory + s->done,
                         want < s->block ? want : s->block, 0);

        if (n == 0) {
            break;
        }
        if (n < 0 && errno != EINTR) {
            die("recv");
        }
        s->done += n > 0 ? n : 0;
    }
    return NULL;
}

/* All pairs at once; returns how much was received. */
static uint64_t move_all(void *(*move)(void *), const int *fds, uint8_t *memory,
                         const Options *opt)
{
    /* Shares begin where a huge page may. */
    size_t share = opt->bytes / opt->pairs / (2 * MIB) * (2 * MIB);
    Share shares[PAIRS_MAX];
    uint64_t done = 0;

    for (unsigned i = 0; i < opt->pairs; i++) {
        bool last = i + 1 == opt->pairs;

        shares[i] = (Share) {
            .fd = fds[i], .memory = memory + i * share, .block = opt->block,
            .bytes = last ? opt->bytes - i * share : share,
        };
        if (pthread_create(&shares[i].thread, NULL, move, &shares[i])) {
            die("no thread");
        }
    }
    for (unsigned i = 0; i < opt->pairs; i++) {
        pthread_join(shares[i].thread, NULL);
        done += shares[i].done;
    }
    return done;
}

/*
 * On a virtual machine, memory that its host has taken back costs many times
 * more on first touch.  That is no property of sockets: have the host bring it
 * back beforehand.
 */
static void warm(size_t bytes)
{
    uint8_t *p = new_memory(bytes);

    for (size_t i = 0; i < bytes; i += 4096) {
        p[i] = 1;
    }
    munmap(p, bytes);
}

static void close_all(const int *fds, const Options *opt)
{
    for (unsigned i = 0; i < opt->pairs; i++) {
        close(fds[i]);
    }
}

/* The receiving process: never returns.  @report is its end of a pipe. */
static void receiver(const int *fds, int report, const Options *opt)
{
    Receipt receipt = { 0 };
    uint8_t *memory;
    double cpu;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(opt->seconds);
    warm(opt->bytes);
    memory = new_memory(opt->bytes);
    if (write(report, "", 1) != 1) {        /* ready */
        die("cannot report readiness");
    }
    cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    receipt.bytes = move_all(recv_share, fds, memory, opt);
    receipt.cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (write(report, &receipt, sizeof(receipt)) != sizeof(receipt)) {
        die("cannot report the result");
    }
    _exit(0);
}

static void measure(const char *name, void (*make_pair)(int *), uint8_t *data,
                    const Options *opt)
{
    int out[PAIRS_MAX], in[PAIRS_MAX], report[2];
    double start, cpu, wall, gb;
    Receipt receipt;
    char ready;
    pid_t pid;

    for (unsigned i = 0; i < opt->pairs; i++) {
        int fd[2];

        make_pair(fd);
        out[i] = fd[0];
        in[i] = fd[1];
    }
    if (pipe(report) < 0) {
        die("pipe");
    }
    pid = fork();
    if (pid < 0) {
        die("fork");
    }
    if (pid == 0) {
        close_all(out, opt);
        close(report[0]);
        receiver(in, report[1], opt);
    }
    close_all(in, opt);
    close(report[1]);
    if (read(report[0], &ready, 1) != 1) {
        die("the receiver did not start");
    }

    start = seconds_of(CLOCK_MONOTONIC);
    cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    move_all(send_share, out, data, opt);
    cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (read(report[0], &receipt, sizeof(receipt)) != sizeof(receipt) ||
        receipt.bytes != opt->bytes) {
        fprintf(stderr, "bare-pair: the receiver did not get everything\n");
        exit(1);
    }
    wall = seconds_of(CLOCK_MONOTONIC) - start;

    close_all(out, opt);
    close(report[0]);
    waitpid(pid, NULL, 0);

    gb = opt->bytes / 1e9;
    printf("{\"transport\": \"%s\", \"pairs\": %u, \"bytes\": %zu, "
           "\"block\": %zu, \"seconds\": %.6f, \"gb_per_s\": %.4f, "
           "\"cpu_send\": %.6f, \"cpu_recv\": %.6f, "
           "\"cpu_send_per_gb\": %.5f, \"cpu_recv_per_gb\": %.5f}\n",
           name, opt->pairs, opt->bytes, opt->block, wall, gb / wall, cpu,
           receipt.cpu, cpu / gb, receipt.cpu / gb);
    fflush(stdout);
}

static unsigned long number(const char *text, unsigned long max)
{
    int64_t value;
    char rest;

    if (sscanf(text, "%" SCNd64 "%c", &value, &rest) != 1 ||
        value < 1 || value > (int64_t)max) {
        fprintf(stderr, "bare-pair: '%s' is not a number from 1 to %lu\n",
                text, max);
        exit(2);
    }
    return value;
}

static void usage(FILE *to)
{
    fprintf(to, "usage: bare-pair [-m MIB] [-b BLOCK_KIB] [-c PAIRS] "
            "[-t SECONDS] [tcp|unix]...\n"
            "Moves MIB (3072) MiB of random data between two processes in "
            "pieces of at most\nBLOCK_KIB (1024) KiB, over PAIRS (1) "
            "connections of loopback TCP and of unix\nsockets unless only "
            "some are named.\n");
}

int main(int argc, char **argv)
{
    Options opt = {
        .pairs = 1, .bytes = 3072 * MIB, .block = MIB, .seconds = 120,
    };
    bool all;
    uint8_t *data;
    int c;

    while ((c = getopt(argc, argv, "m:b:c:t:h")) != -1) {
        switch (c) {
        case 'm':
            opt.bytes = number(optarg, 1UL << 20) * MIB;
            break;
        case 'b':
            opt.block = number(optarg, 1UL << 20) * 1024;
            break;
        case 'c':
            opt.pairs = number(optarg, PAIRS_MAX);
            break;
        case 't':
            opt.seconds = number(optarg, 3600);
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    for (int i = optind; i < argc; i++) {
        if (strcmp(argv[i], "tcp") && strcmp(argv[i], "unix")) {
            fprintf(stderr, "bare-pair: '%s' is neither tcp nor unix\n",
                    argv[i]);
            return 2;
        }
    }

    alarm(opt.seconds);
    data = new_memory(opt.bytes);
    fill_random(data, opt.bytes);

    all = optind == argc;
    if (all) {
        measure("tcp", connect_tcp, data, &opt);
        measure("unix", connect_unix, data, &opt);
    }
    for (int i = optind; i < argc; i++) {
        bool tcp = !strcmp(argv[i], "tcp");

        measure(argv[i], tcp ? connect_tcp : connect_unix, data, &opt);
    }
    return 0;
}
