/*
 * The whole user space of the test guest, run as /init.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It fills memory, keeps writing to it at a set rate and can tell at any
 * time whether all of it is as it should be (pages.h).  Threads:
 *
 *   writer   writes pages, evenly in time
 *   beat     sends one byte a millisecond to the third UART
 *   status   prints one line a second on the console, the first UART
 *   main     answers commands on the second UART
 *
 * Settings come from the kernel's command line: ferry.fill=MiB,
 * ferry.work=MiB (the part of it that is written to), ferry.rate=PAGES a
 * second, ferry.seed=N, ferry.order=random|linear, ferry.stripes=1..16 (words
 * that a write changes, all 16 unless given), ferry.timed=1 (time the first
 * access to each page that is written, see timing.h), ferry.modules=1 (load
 * what is in /modules, in the order of the names), ferry.disk=1 (what is in
 * /disk: the driver for disk.h), ferry.packets=PACKETS a second (what is in
 * /net: the driver for net.h).
 *
 * A command is a line "ID WORD [NUMBER [NUMBER]]"; the answer is a line
 * "ID ok|bad|error ...".  A command that comes again with the ID of the
 * one before is not run again, its answer is repeated: so a client that
 * lost the answer (in a migration) can ask once more.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "churn.h"
#include "disk.h"
#include "net.h"
#include "pages.h"
#include "timing.h"

#define MIB_PAGES (1024 * 1024 / PAGE_BYTES)
#define NS_PER_S 1000000000LL
#define TICK_NS 1000000LL
#define CHUNK 64                /* writes under one hold of the lock */
#define BEAT_PORT 0x3e8
#define BEAT_PRIORITY 50

/* Registers and bits of a 16550 */
enum {
    UART_DATA = 0, UART_IER = 1, UART_FCR = 2, UART_LCR = 3, UART_MCR = 4,
    UART_LSR = 5,
    LCR_8N1 = 0x03, MCR_DTR_RTS = 0x03, LSR_THR_EMPTY = 0x20,
};

static struct {
    uint64_t fill, work;        /* pages */
    uint64_t seed;
    bool linear;
    bool timed;
    bool modules;
    bool disk;
    bool network;
    uint64_t packets;           /* a second */
} conf = { .fill = 64 * MIB_PAGES, .work = 16 * MIB_PAGES, .seed = 1 };

static Pages pages;
static pthread_mutex_t pages_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int pages_wanted;         /* main waits for pages_lock */

static _Atomic uint64_t rate;           /* pages a second */
static _Atomic uint64_t writes_seen;    /* copy of pages.writes, no lock */
static _Atomic uint64_t beats;          /* bytes sent */
static _Atomic uint64_t beats_skipped;  /* UART was busy */
static _Atomic int64_t beats_apart[256];    /* ns since the one before */
static _Atomic uint64_t spins;
static int64_t started_ns;

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static void sleep_until(int64_t ns)
{
    struct timespec ts = { ns / NS_PER_S, ns % NS_PER_S };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL)) {
        continue;
    }
}

static uint64_t up_ms(void)
{
    return (now_ns() - started_ns) / 1000000;
}

/* init must not return: the kernel would panic and hide the reason. */
static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
    va_list ap;

    printf("ferry-guest: error: ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    for (;;) {
        pause();
    }
}

static void write_all(int fd, const char *text)
{
    size_t left = strlen(text);

    while (left) {
        ssize_t n = write(fd, text, left);

        if (n < 0 && errno != EINTR) {
            return;
        }
        if (n > 0) {
            text += n;
            left -= n;
        }
    }
}

/* Writer */

static uint64_t pick_page(void)
{
    static uint64_t state = 0x2545f4914f6cdd1dULL, next;

    if (conf.linear) {
        next = next + 1 < conf.work ? next + 1 : 0;
        return next;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % conf.work;
}

static void write_pages(uint64_t n)
{
    while (n) {
        uint64_t chunk = n < CHUNK ? n : CHUNK;

        while (atomic_load(&pages_wanted)) {
            sleep_until(now_ns() + TICK_NS);
        }
        pthread_mutex_lock(&pages_lock);
        for (uint64_t i = 0; i < chunk; i++) {
            uint64_t index = pick_page();

            if (conf.timed) {
                timing_access(pages.mem + index * PAGE_WORDS);
            }
            pages_touch(&pages, index);
        }
        atomic_store(&writes_seen, pages.writes);
        pthread_mutex_unlock(&pages_lock);
        n -= chunk;
    }
}

/*
 * Owed work is made up for, but no more than 50 ms of it: after a longer
 * pause the guest goes on at its rate rather than with a burst.
 */
static void *writer(void *unused)
{
    uint64_t pace = 0, done = 0;
    int64_t since = now_ns();

    if (conf.timed && !timing_start()) {
        die("no access to the port for the count of accesses");
    }
    for (;;) {
        int64_t now = now_ns();
        uint64_t want = atomic_load(&rate), due, most = want / 20 + 1;

        if (want != pace) {
            pace = want;
            since = now;
            done = 0;
        }
        due = (uint64_t)((double)(now - since) * pace / NS_PER_S);
        if (due > done + most) {
            since = now - NS_PER_S / 20;
            done = 0;
            due = most;
        }
        if (due > done) {
            write_pages(due - done);
            done = due;
        }
        sleep_until(now + TICK_NS);
    }
    return unused;
}

/* Beat */

/*
 * The UART is driven directly, not through its tty: that costs the guest
 * two port accesses a byte, cannot block, and shows how late the vCPU is
 * rather than how late the tty layer.
 */
static void *beat(void *unused)
{
    struct sched_param param = { .sched_priority = BEAT_PRIORITY };
    uint8_t sequence = 0;
    int64_t next = now_ns(), last = next;

    if (ioperm(BEAT_PORT, 8, 1) ||
        pthread_setschedparam(pthread_self(), SCHED_FIFO, &param)) {
        die("no access to the heartbeat port");
    }
    outb(0, BEAT_PORT + UART_IER);
    outb(0, BEAT_PORT + UART_FCR);
    outb(LCR_8N1, BEAT_PORT + UART_LCR);
    outb(MCR_DTR_RTS, BEAT_PORT + UART_MCR);
    for (;;) {
        int64_t now = now_ns();

        atomic_store(&beats_apart[sequence], now - last);
        last = now;
        if (inb(BEAT_PORT + UART_LSR) & LSR_THR_EMPTY) {
            outb(sequence, BEAT_PORT + UART_DATA);
            atomic_fetch_add(&beats, 1);
        } else {
            atomic_fetch_add(&beats_skipped, 1);
        }
        sequence++;
        next += TICK_NS;
        now = now_ns();
        if (next < now) {
            next = now;
        }
        sleep_until(next);
    }
    return unused;
}

/* Status */

static void *status(void *unused)
{
    int64_t next = now_ns();
    uint64_t before = 0;

    for (;;) {
        char line[160];
        uint64_t writes = atomic_load(&writes_seen);
        uint64_t up = up_ms();

        snprintf(line, sizeof(line), "ferry-guest: up %" PRIu64 ".%" PRIu64
                 " s, %" PRIu64 " pages, %" PRIu64 " writes, %" PRIu64
                 "/s\n", up / 1000, up % 1000 / 100, pages.count, writes,
                 writes - before);
        write_all(STDOUT_FILENO, line);
        before = writes;
        next += NS_PER_S;
        if (next < now_ns()) {
            next = now_ns();
        }
        sleep_until(next);
    }
    return unused;
}

/* Commands */

typedef struct Command {
    char id[24];
    char word[16];
    uint64_t arg[2];
    int args;
} Command;

typedef struct Answer {
    char text[1024];
} Answer;

static void __attribute__((format(printf, 2, 3)))
answer(Answer *a, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(a->text, sizeof(a->text), fmt, ap);
    va_end(ap);
}

static void take_pages(void)
{
    atomic_fetch_add(&pages_wanted, 1);
    pthread_mutex_lock(&pages_lock);
    atomic_fetch_sub(&pages_wanted, 1);
}

static void give_pages(void)
{
    atomic_store(&writes_seen, pages.writes);
    pthread_mutex_unlock(&pages_lock);
}

static void do_ping(const Command *c, Answer *a)
{
    answer(a, "ok up_ms=%" PRIu64, up_ms());
}

static void do_status(const Command *c, Answer *a)
{
    answer(a, "ok up_ms=%" PRIu64 " pages=%" PRIu64 " work=%" PRIu64
           " rate=%" PRIu64 " writes=%" PRIu64 " beats=%" PRIu64
           " skipped=%" PRIu64 " seed=%" PRIu64, up_ms(), pages.count,
           conf.work, atomic_load(&rate), atomic_load(&writes_seen),
           atomic_load(&beats), atomic_load(&beats_skipped), conf.seed);
}

/*
 * By our clock, which stands still while we are stopped: from the beat before
 * number FIRST, of those that came last, COUNT beats on
 */
static void do_apart(const Command *c, Answer *a)
{
    int64_t sum = 0;

    for (unsigned i = 0; i < 256 && i < c->arg[1]; i++) {
        sum += atomic_load(&beats_apart[(uint8_t)(c->arg[0] + i)]);
    }
    answer(a, "ok us=%" PRId64, sum / 1000);
}

static void do_rate(const Command *c, Answer *a)
{
    atomic_store(&rate, c->arg[0]);
    answer(a, "ok rate=%" PRIu64, c->arg[0]);
}

static void do_verify(const Command *c, Answer *a)
{
    ChurnCount churn;
    Verdict v;
    uint64_t writes;
    bool ok;

    take_pages();
    ok = pages_verify(&pages, &v);
    writes = pages.writes;
    give_pages();
    churn_verify(&churn);
    answer(a, "%s pages=%" PRIu64 " writes=%" PRIu64 " sum=%" PRIu64
           " wrong=%" PRIu64 " blocks=%" PRIu64 " made=%" PRIu64
           " refused=%" PRIu64 " lost=%" PRIu64,
           ok && !churn.wrong ? "ok" : "bad", pages.count, writes,
           v.sum, v.wrong, churn.blocks, churn.made, churn.refused,
           churn.wrong);
    if (v.wrong) {
        size_t used = strlen(a->text);

        snprintf(a->text + used, sizeof(a->text) - used,
                 " index=%" PRIu64 " offset=%u seq=%u expected=%016" PRIx64
                 " got=%016" PRIx64, v.index, v.offset, v.seq,
                 v.expected, v.got);
    }
}

/* "times 0", and then "times NEXT" for the rest, until there is none. */
static void do_times(const Command *c, Answer *a)
{
    unsigned next = c->arg[0];
    char text[sizeof(a->text) - 40];
    bool all;

    if (!conf.timed) {
        answer(a, "error ferry.timed is not set");
        return;
    }
    all = timing_tell(text, sizeof(text), &next);
    answer(a, "ok next=%u ns=%" PRId64 " %s", all ? 0 : next, now_ns(),
           text);
}

static void do_packets(const Command *c, Answer *a)
{
    if (!conf.network) {
        answer(a, "error ferry.packets is not set");
        return;
    }
    if (c->args) {
        net_set_rate(c->arg[0]);
    }
    answer(a, "ok sent=%" PRIu64 " received=%" PRIu64, net_sent(),
           net_received());
}

/* How much of a vCPU is left over, in rounds of a loop */
static void *spin(void *unused)
{
    setpriority(PRIO_PROCESS, 0, 19);   /* of this thread alone, in Linux */
    for (;;) {
        for (volatile int i = 0; i < 1000; i++) {
            continue;
        }
        atomic_fetch_add(&spins, 1);
    }
    return unused;
}

static void do_spin(const Command *c, Answer *a)
{
    static pthread_t id;

    if (!id && pthread_create(&id, NULL, spin, NULL)) {
        answer(a, "error no thread");
        return;
    }
    answer(a, "ok spins=%" PRIu64, atomic_load(&spins));
}

static void do_churn(const Command *c, Answer *a)
{
    if (churn_set(c->arg[0])) {
        answer(a, "ok churn=%" PRIu64, c->arg[0]);
    } else {
        answer(a, "error that is too much");
    }
}

static void do_scratch(const Command *c, Answer *a)
{
    if (churn_once(c->arg[0])) {
        answer(a, "ok scratch=%" PRIu64, c->arg[0]);
    } else {
        answer(a, "error there is no memory");
    }
}

/* The commands that are about some pages: FIRST and COUNT. */
static void do_range(const Command *c, Answer *a,
                     const char *(*move)(Pages *, uint64_t, uint64_t))
{
    uint64_t first = c->arg[0], count = c->arg[1];
    const char *error;

    if (first > pages.count || count > pages.count - first) {
        answer(a, "error there are %" PRIu64 " pages", pages.count);
        return;
    }
    take_pages();
    error = move(&pages, first, count);
    give_pages();
    if (error) {
        answer(a, "error %s", error);
    } else {
        answer(a, "ok first=%" PRIu64 " count=%" PRIu64, first, count);
    }
}

/* Makes all of them wrong. */
static const char *spoil(Pages *p, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        pages_corrupt(p, first + i, i % PAGE_BYTES);
    }
    return NULL;
}

/* The commands that are about one page: INDEX, or INDEX and OFFSET. */
static void do_page(const Command *c, Answer *a, PageChange change)
{
    uint64_t index = c->arg[0];
    uint32_t seq;
    bool done;

    if (index >= pages.count || c->arg[1] >= PAGE_BYTES) {
        answer(a, "error there are %" PRIu64 " pages of %u bytes",
               pages.count, PAGE_BYTES);
        return;
    }
    take_pages();
    done = change(&pages, index, c->arg[1]);
    seq = pages.seq[index];
    give_pages();
    if (done) {
        answer(a, "ok index=%" PRIu64 " seq=%u", index, seq);
    } else {
        answer(a, "error page %" PRIu64 " was never written", index);
    }
}

static const struct {
    const char *word;
    int args;                   /* least number of them */
    void (*run)(const Command *c, Answer *a);
    PageChange change;          /* or this, through do_page() */
    const char *(*move)(Pages *, uint64_t, uint64_t);   /* or do_range() */
} commands[] = {
    { "ping", 0, .run = do_ping },
    { "apart", 2, .run = do_apart },
    { "status", 0, .run = do_status },
    { "verify", 0, .run = do_verify },
    { "rate", 1, .run = do_rate },
    { "times", 1, .run = do_times },
    { "packets", 0, .run = do_packets },
    { "spin", 0, .run = do_spin },
    { "churn", 1, .run = do_churn },
    { "scratch", 1, .run = do_scratch },
    { "store", 2, .move = disk_store },
    { "fetch", 2, .move = disk_fetch },
    { "spoil", 2, .move = spoil },
    { "peek", 1, .change = pages_peek },
    { "corrupt", 1, .change = pages_corrupt },
    { "stale", 1, .change = pages_stale },
    { "skew", 1, .change = pages_skew },
    { "repair", 1, .change = pages_repair },
};

static void run_command(const Command *c, Answer *a)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].word, c->word)) {
            continue;
        }
        if (c->args < commands[i].args) {
            answer(a, "error %s needs a number", c->word);
        } else if (commands[i].change) {
            do_page(c, a, commands[i].change);
        } else if (commands[i].move) {
            do_range(c, a, commands[i].move);
        } else {
            commands[i].run(c, a);
        }
        return;
    }
    answer(a, "error unknown command %s", c->word);
}

static void serve(FILE *in, int out)
{
    static char last_id[sizeof(((Command *)0)->id)];
    static Answer a;
    char line[128], reply[sizeof(a.text) + sizeof(last_id) + 2];

    while (fgets(line, sizeof(line), in)) {
        Command c = { 0 };
        int n = sscanf(line, "%23s %15s %" SCNu64 " %" SCNu64, c.id, c.word,
                       &c.arg[0], &c.arg[1]);

        if (n < 2) {
            continue;           /* an empty line, or the rest of a lost one */
        }
        c.args = n - 2;
        if (strcmp(c.id, last_id)) {
            run_command(&c, &a);
            strcpy(last_id, c.id);
        }
        snprintf(reply, sizeof(reply), "%s %s\n", c.id, a.text);
        write_all(out, reply);
    }
}

/* Start */

static int open_serial(const char *path)
{
    struct termios t;
    int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (fd < 0 || tcgetattr(fd, &t)) {
        die("cannot open %s: %s", path, strerror(errno));
    }
    cfmakeraw(&t);
    cfsetspeed(&t, B115200);
    t.c_cflag |= CLOCAL | CREAD;
    tcsetattr(fd, TCSANOW, &t);
    return fd;
}

static void mount_one(const char *type, const char *where)
{
    mkdir(where, 0755);
    if (mount(type, where, type, 0, NULL) && errno != EBUSY) {
        die("cannot mount %s: %s", where, strerror(errno));
    }
}

/* Take the setting WORD ("ferry.name=value") if it is one of ours. */
static void take_setting(const char *word)
{
    uint64_t n;

    if (sscanf(word, "ferry.fill=%" SCNu64, &n) == 1) {
        conf.fill = n * MIB_PAGES;
    } else if (sscanf(word, "ferry.work=%" SCNu64, &n) == 1) {
        conf.work = n * MIB_PAGES;
    } else if (sscanf(word, "ferry.rate=%" SCNu64, &n) == 1) {
        atomic_store(&rate, n);
    } else if (sscanf(word, "ferry.seed=%" SCNu64, &n) == 1) {
        conf.seed = n;
    } else if (sscanf(word, "ferry.stripes=%" SCNu64, &n) == 1 && n &&
               n <= PAGE_STRIPES) {
        pages.stripes = n;
    } else if (sscanf(word, "ferry.packets=%" SCNu64, &n) == 1) {
        conf.network = true;
        conf.packets = n;
    } else if (!strcmp(word, "ferry.timed=1")) {
        conf.timed = true;
    } else if (!strcmp(word, "ferry.modules=1")) {
        conf.modules = true;
    } else if (!strcmp(word, "ferry.disk=1")) {
        conf.disk = true;
    } else if (!strcmp(word, "ferry.order=linear")) {
        conf.linear = true;
    } else if (!strncmp(word, "ferry.", 6) &&
               strcmp(word, "ferry.order=random")) {
        die("unknown setting %s", word);
    }
}

static void read_settings(void)
{
    char text[4096], *word;
    FILE *f = fopen("/proc/cmdline", "re");

    if (!f || !fgets(text, sizeof(text), f)) {
        die("cannot read the kernel's command line");
    }
    fclose(f);
    for (word = strtok(text, "\n "); word; word = strtok(NULL, "\n ")) {
        take_setting(word);
    }
    if (!conf.work || conf.work > conf.fill) {
        die("ferry.work must be from 1 to ferry.fill");
    }
}

static void load_module(const char *name)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)) {
        die("cannot load %s: %s", name, strerror(errno));
    }
    close(fd);
}

static void load_modules(const char *pattern)
{
    glob_t found;

    if (glob(pattern, 0, NULL, &found)) {
        die("there is no %s for this kernel", pattern);
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        load_module(found.gl_pathv[i]);
    }
    globfree(&found);
}

static void fill_memory(void)
{
    struct sysinfo info;
    uint64_t need = conf.fill * (PAGE_BYTES + sizeof(*pages.seq));
    uint64_t have;

    sysinfo(&info);
    have = (uint64_t)info.freeram * info.mem_unit;
    if (need + need / 50 > have || !pages_init(&pages, conf.fill, conf.seed)) {
        die("ferry.fill wants %" PRIu64 " MiB, only %" PRIu64 " MiB are free",
            need >> 20, have >> 20);
    }
}

static void start(void *(*thread)(void *))
{
    pthread_t id;

    if (pthread_create(&id, NULL, thread, NULL)) {
        die("cannot start a thread");
    }
}

static void *nice_writer(void *unused)
{
    setpriority(PRIO_PROCESS, 0, 10);   /* of this thread alone, in Linux */
    return writer(unused);
}

int main(void)
{
    int control;

    setvbuf(stdout, NULL, _IOLBF, 0);
    started_ns = now_ns();
    mount_one("devtmpfs", "/dev");
    mount_one("proc", "/proc");
    read_settings();
    if (conf.modules) {
        load_modules("/modules/*.ko");
    }
    if (conf.disk) {
        load_modules("/disk/*.ko");
    }
    if (conf.network) {
        load_modules("/net/*.ko");
    }
    control = open_serial("/dev/ttyS1");
    fill_memory();
    mlockall(MCL_CURRENT);      /* keep compaction from moving pages */
    start(beat);
    start(nice_writer);
    if (conf.network) {
        const char *error = net_start(conf.packets, &writes_seen);

        if (error) {
            die("%s", error);
        }
    }
    if (!churn_init()) {
        die("cannot start a thread");
    }
    printf("ferry-guest: ready\n");
    start(status);
    for (;;) {
        FILE *in = fdopen(dup(control), "r");

        serve(in, control);
        fclose(in);             /* hang-up or error: start over */
        sleep_until(now_ns() + 100 * TICK_NS);
    }
}
