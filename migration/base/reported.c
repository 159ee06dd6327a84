/*
 * What is reported with error_report() while something is done
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/coroutine-tls.h"
#include "qemu/error-report-hook.h"
#include "reported.h"

/* The collectors of this thread, the last one first */
QEMU_DEFINE_STATIC_CO_TLS(Reported *, collectors)

static Coroutine *this_coroutine(void)
{
    return qemu_in_coroutine() ? qemu_coroutine_self() : NULL;
}

/* Names that are reported may come from a stream that lies. */
static void reported_keep(Reported *r, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    char *line = g_strndup(valid, REPORTED_LEN_MAX);

    for (char *c = line; *c; c++) {
        if (g_ascii_iscntrl(*c)) {
            *c = ' ';
        }
    }
    g_strchomp(line);
    if (r->count == REPORTED_COUNT_MAX) {
        g_free(r->texts[--r->count]);
    }
    r->texts[r->count++] = line;
}

/* What other coroutines of this thread report is not the collector's. */
static void reported_note(const char *text)
{
    Reported *r = get_collectors();
    Coroutine *co;

    if (!r) {
        return;
    }
    co = this_coroutine();
    while (r && r->co != co) {
        r = r->next;
    }
    if (r) {
        reported_keep(r, text);
    }
}

void reported_begin(Reported *r)
{
    *r = (Reported) {
        .next = get_collectors(),
        .co = this_coroutine(),
    };
    set_collectors(r);
    qatomic_set(&error_report_hook, reported_note);
}

/* Another coroutine may have begun later and not have ended yet. */
static void reported_take_out(Reported *r)
{
    Reported *other = get_collectors();

    if (other == r) {
        set_collectors(r->next);
        return;
    }
    while (other->next != r) {
        other = other->next;
    }
    other->next = r->next;
}

char *reported_end(Reported *r)
{
    GString *all = r->count ? g_string_new(NULL) : NULL;

    reported_take_out(r);
    while (r->count) {
        char *text = r->texts[--r->count];

        g_string_append_printf(all, "%s%s", text, r->count ? ": " : "");
        g_free(text);
    }
    return all ? g_string_free(all, false) : NULL;
}
