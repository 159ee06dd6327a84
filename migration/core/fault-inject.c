/*
 * Faults for tests: parts of a switchover that take longer than they have to,
 * and CPUs that cannot be reset
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "fault-inject.h"
#include "migration/base/clock.h"

/* Between two looks at a gate, us */
#define GATE_LOOK_US 1000

typedef struct Delays {
    unsigned ms[DOWNTIME_PART__COUNT];
} Delays;

static Delays delays;
static const char *gate;        /* interned, or NULL; atomic */
static bool cpus_stay;

/* Appends "name" or, with @values, "name:ms". */
static void append(GString *text, DowntimePart part, bool values)
{
    g_string_append_printf(text, "%s%s", text->len ? "," : "",
                           downtime_part_name(part));
    if (values) {
        g_string_append_printf(text, ":%u", delays.ms[part]);
    }
}

static bool find_part(const char *name, DowntimePart *part, Error **errp)
{
    g_autoptr(GString) known = g_string_new("");

    for (DowntimePart i = 0; i < DOWNTIME_PART__COUNT; i++) {
        if (!downtime_part_can_delay(i)) {
            continue;
        }
        if (g_str_equal(downtime_part_name(i), name)) {
            *part = i;
            return true;
        }
        append(known, i, false);
    }
    error_setg(errp, "'%s' is no part of a switchover that can be delayed: "
               "use one of %s", name, known->str);
    return false;
}

static bool read_one(const char *word, Delays *wanted, Error **errp)
{
    g_auto(GStrv) halves = g_strsplit(word, ":", 2);
    DowntimePart part;
    unsigned ms;

    if (!halves[0] || !halves[1]) {
        error_setg(errp, "'%s' is no delay: write PART:MILLISECONDS, with "
                   "commas between them", word);
        return false;
    }
    if (!find_part(halves[0], &part, errp)) {
        return false;
    }
    if (!g_ascii_isdigit(*halves[1]) ||
        qemu_strtoui(halves[1], NULL, 10, &ms) || ms > FAULT_INJECT_MAX_MS) {
        error_setg(errp,
                   "'%s' is no delay of '%s': use a number of "
                   "milliseconds from 0 to %d",
                   halves[1], halves[0], FAULT_INJECT_MAX_MS);
        return false;
    }
    wanted->ms[part] = ms;
    return true;
}

bool fault_inject_set(const char *text, Error **errp)
{
    g_auto(GStrv) words = g_strsplit(text, ",", -1);
    Delays wanted = { 0 };

    for (char **word = words; *word; word++) {
        if (!read_one(*word, &wanted, errp)) {
            return false;
        }
    }
    delays = wanted;
    return true;
}

char *fault_inject_text(void)
{
    GString *text = g_string_new("");

    for (DowntimePart i = 0; i < DOWNTIME_PART__COUNT; i++) {
        if (delays.ms[i]) {
            append(text, i, true);
        }
    }
    return g_string_free(text, false);
}

unsigned fault_inject_delay_ms(DowntimePart part)
{
    assert(part < DOWNTIME_PART__COUNT);
    return delays.ms[part];
}

void fault_inject_set_gate(const char *folder)
{
    /* Whoever is at it may use the one before. */
    qatomic_set(&gate, *folder ? g_intern_string(folder) : NULL);
}

const char *fault_inject_gate(void)
{
    return qatomic_read(&gate) ?: "";
}

/* Returns false if there is no folder for it. */
static bool make_file(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

static void wait_at_gate(const char *folder, DowntimePart part, unsigned ms)
{
    g_autofree char *path = g_build_filename(folder, downtime_part_name(part),
                                             NULL);
    int64_t end = now_ns() + ms * (int64_t)SCALE_MS;

    if (!make_file(path)) {
        return;
    }
    while (now_ns() < end && !access(path, F_OK)) {
        g_usleep(GATE_LOOK_US);
    }
    unlink(path);
}

void fault_inject_delay(DowntimePart part)
{
    unsigned ms = fault_inject_delay_ms(part);
    const char *folder = qatomic_read(&gate);

    if (ms && folder) {
        wait_at_gate(folder, part, ms);
    } else if (ms) {
        g_usleep(ms * 1000ul);
    }
}

void fault_inject_set_cpus_stay(bool stay)
{
    cpus_stay = stay;
}

bool fault_inject_cpus_stay(void)
{
    return cpus_stay;
}
