/*
 * Unit tests of the section registry, against a model that is plainly right
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "setup.h"
#include "migration/device/sections.h"

static const SaveVMHandlers live_ops, other_ops;

static const VMStateDescription vmsd_default = { .name = "v" };
static const VMStateDescription vmsd_early = {
    .name = "v", .priority = MIG_PRI_GICV3_ITS,
};
static const VMStateDescription vmsd_earlier = {
    .name = "v", .priority = MIG_PRI_GICV3,
};

static void remove_all(void)
{
    Section *s, *after;

    FOR_EACH_SECTION_SAFE(s, after) {
        section_remove(s);
    }
}

static Section *add(const char *path, const char *name, uint32_t instance,
                    int alias, const VMStateDescription *vmsd)
{
    SectionSpec spec = {
        .path = path, .name = name, .instance_id = instance,
        .alias_id = alias, .vmsd = vmsd, .ops = vmsd ? NULL : &live_ops,
    };

    return section_add(&spec, NULL);
}

static Section *add_any(const char *path, const char *name)
{
    return add(path, name, VMSTATE_INSTANCE_ID_ANY, -1, &vmsd_default);
}

static void test_instances(void)
{
    Section *a = add_any(NULL, "dev");
    Section *b = add_any(NULL, "dev");
    Section *c = add(NULL, "dev", 7, -1, &vmsd_default);
    Section *d = add_any(NULL, "dev");

    g_assert_cmpuint(a->instance_id, ==, 0);
    g_assert_cmpuint(b->instance_id, ==, 1);
    g_assert_cmpuint(c->instance_id, ==, 7);
    g_assert_cmpuint(d->instance_id, ==, 8);

    /* Only what is above all others is given again. */
    section_remove(a);
    section_remove(d);
    section_remove(c);
    a = add_any(NULL, "dev");
    g_assert_cmpuint(a->instance_id, ==, 2);
    g_assert_true(section_find("dev", 1) == b);
    g_assert_true(section_find("dev", 2) == a);
    g_assert_null(section_find("dev", 0));
    g_assert_null(section_find("other", 1));
    remove_all();
}

static void test_paths(void)
{
    Section *a = add_any("0000:00:01.0", "e1000");
    Section *b = add_any("0000:00:02.0", "e1000");

    g_assert_cmpstr(a->name, ==, "0000:00:01.0/e1000");
    g_assert_cmpuint(b->instance_id, ==, 0);
    g_assert_true(section_find("0000:00:02.0/e1000", 0) == b);
    /* A source without paths counts. */
    g_assert_true(section_find("e1000", 0) == a);
    g_assert_true(section_find("e1000", 1) == b);
    section_remove(a);
    g_assert_null(section_find("e1000", 0));
    g_assert_null(section_find("0000:00:01.0/e1000", 0));
    remove_all();
}

static void test_alias(void)
{
    Section *a = add(NULL, "pic", 0x20, 0, &vmsd_default);
    Section *b = add("isa", "pic", 0xa0, 1, &vmsd_default);

    g_assert_true(section_find("pic", 0x20) == a);
    g_assert_true(section_find("pic", 0) == a);
    g_assert_true(section_find("pic", 0xa0) == b);
    g_assert_true(section_find("pic", 1) == b);
    g_assert_true(section_find("isa/pic", 1) == b);
    g_assert_true(section_find("isa/pic", 0) == b);
    /* No alias is not the alias -1. */
    add(NULL, "rtc", 5, -1, &vmsd_default);
    g_assert_null(section_find("rtc", UINT32_MAX));
    remove_all();
}

static void check_refused(const char *path, const char *name,
                          uint32_t instance, const char *why)
{
    SectionSpec spec = {
        .path = path, .name = name, .instance_id = instance, .alias_id = -1,
        .ops = &other_ops,
    };
    Error *err = NULL;

    g_assert_null(section_add(&spec, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), why));
    error_free(err);
}

static void test_refused(void)
{
    g_autofree char *name = g_strnfill(WIRE_NAME_MAX + 1, 'x');

    add(NULL, "ram", 0, -1, NULL);
    check_refused(NULL, "ram", 0, "already");
    add_any("path", "dev");
    check_refused("path", "dev", VMSTATE_INSTANCE_ID_ANY, "already");
    check_refused(NULL, "dev", 0, "already");
    check_refused(NULL, name, 0, "longer than");
    check_refused(name, "dev", 0, "longer than");
    name[WIRE_NAME_MAX] = '\0';
    g_assert_nonnull(add_any(NULL, name));
    /* The highest instance is in use. */
    add(NULL, "full", UINT32_MAX - 1, -1, &vmsd_default);
    check_refused(NULL, "full", VMSTATE_INSTANCE_ID_ANY, "No instance");
    remove_all();
}

static void test_order(void)
{
    const VMStateDescription *in[] = {
        &vmsd_default, &vmsd_early, &vmsd_default, &vmsd_earlier, &vmsd_early,
    };
    const int out[] = { 3, 1, 4, 0, 2 };
    Section *s[ARRAY_SIZE(in)], *at = NULL;
    int i;

    for (i = 0; i < ARRAY_SIZE(in); i++) {
        s[i] = add(NULL, "dev", VMSTATE_INSTANCE_ID_ANY, -1, in[i]);
        g_assert_true(i == 0 || s[i]->id == s[i - 1]->id + 1);
    }
    for (i = 0; i < ARRAY_SIZE(out); i++) {
        at = section_next(at);
        g_assert_true(at == s[out[i]]);
    }
    g_assert_null(section_next(at));
    remove_all();
}

static bool yes(void *opaque)
{
    return true;
}

static bool no(void *opaque)
{
    return false;
}

static void test_hooks(void)
{
    static const SaveVMHandlers with = { .has_postcopy = yes };
    static const SaveVMHandlers idle = { .has_postcopy = no, .is_active = no };
    SectionSpec spec = { .name = "x", .instance_id = VMSTATE_INSTANCE_ID_ANY,
                         .alias_id = -1, .ops = &other_ops };
    unsigned seen = 0, active = 0, postcopy = 0;
    Section *s;

    section_add(&spec, &error_abort);
    add_any(NULL, "y");
    spec.ops = &with;
    section_add(&spec, &error_abort);
    spec.ops = &idle;
    section_add(&spec, &error_abort);
    FOR_EACH_SECTION_WITH(s, has_postcopy) {
        seen++;
        active += section_active(s);
        postcopy += section_has_postcopy(s);
    }
    g_assert_cmpuint(seen, ==, 2);
    g_assert_cmpuint(active, ==, 1);
    g_assert_cmpuint(postcopy, ==, 1);
    remove_all();
}

/*
 * Whoever walks over sections with handlers does not meet the others, which the
 * guest may have unplugged at any time.
 */
static void test_hooks_without_others(void)
{
    static const SaveVMHandlers with = { .has_postcopy = yes };
    SectionSpec spec = { .name = "x", .instance_id = VMSTATE_INSTANCE_ID_ANY,
                         .alias_id = -1, .ops = &with };
    Section *first, *second, *third, *device[2];

    first = section_add(&spec, &error_abort);
    device[0] = add(NULL, "dev", VMSTATE_INSTANCE_ID_ANY, -1, &vmsd_early);
    second = section_add(&spec, &error_abort);
    device[1] = add_any(NULL, "dev");
    third = section_add(&spec, &error_abort);

    /* Where a walk is, and where it goes on, is not what is removed. */
    g_assert_true(section_next_with(NULL, 0) == NULL);
    g_assert_true(section_next_with(
                      NULL, offsetof(SaveVMHandlers, has_postcopy)) == first);
    section_remove(device[0]);
    g_assert_true(section_next_with(
                      first, offsetof(SaveVMHandlers, has_postcopy)) == second);
    section_remove(device[1]);
    g_assert_true(section_next_with(
                      second, offsetof(SaveVMHandlers, has_postcopy)) == third);
    section_remove(second);
    g_assert_true(section_next_with(
                      first, offsetof(SaveVMHandlers, has_postcopy)) == third);
    section_remove(first);
    g_assert_true(section_next_with(
                      NULL, offsetof(SaveVMHandlers, has_postcopy)) == third);
    remove_all();
    g_assert_null(section_next_with(NULL,
                                    offsetof(SaveVMHandlers, has_postcopy)));
}

/*
 * The model: an array in the order of registration, searched from end to end
 */

#define MODEL_MAX 24

typedef struct Entry {
    Section *s;
    const char *path;
    const char *name;
    uint32_t old_instance;
    int alias;
    int priority;
} Entry;

static Entry model[MODEL_MAX];
static unsigned entries;

static bool answers(const Entry *e, const char *name, uint32_t instance)
{
    g_autofree char *own = e->path
        ? g_strdup_printf("%s/%s", e->path, e->name) : g_strdup(e->name);
    bool alias = e->alias >= 0 && instance == e->alias;

    if (!strcmp(own, name) && (alias || instance == e->s->instance_id)) {
        return true;
    }
    return e->path && !strcmp(e->name, name) &&
           (alias || instance == e->old_instance);
}

static Section *model_find(const char *name, uint32_t instance)
{
    const Entry *best = NULL;

    for (unsigned i = 0; i < entries; i++) {
        if (answers(&model[i], name, instance) &&
            (!best || model[i].priority > best->priority)) {
            best = &model[i];
        }
    }
    return best ? best->s : NULL;
}

static uint32_t model_next(const char *path, const char *name)
{
    uint32_t next = 0;

    for (unsigned i = 0; i < entries; i++) {
        const Entry *e = &model[i];
        bool same = path ? e->path && !strcmp(e->name, name)
                         : !strcmp(e->s->name, name);

        if (same) {
            next = MAX(next, (path ? e->old_instance
                                   : e->s->instance_id) + 1);
        }
    }
    return next;
}

static void model_add(void)
{
    static const char *const paths[] = { NULL, NULL, "p", "q", "r" };
    static const char *const names[] = { "a", "b", "p/a" };
    static const VMStateDescription *const vmsds[] = {
        &vmsd_default, &vmsd_default, &vmsd_early, &vmsd_earlier,
    };
    Entry e = {
        .path = paths[g_test_rand_int_range(0, ARRAY_SIZE(paths))],
        .name = names[g_test_rand_int_range(0, ARRAY_SIZE(names))],
        .alias = g_test_rand_int_range(-1, 3),
    };
    const VMStateDescription *vmsd =
        vmsds[g_test_rand_int_range(0, ARRAY_SIZE(vmsds))];
    uint32_t instance = g_test_rand_bit() ? VMSTATE_INSTANCE_ID_ANY
                                          : g_test_rand_int_range(0, 5);
    uint32_t next = model_next(e.path, e.name);
    g_autofree char *own = e.path ? g_strdup_printf("%s/%s", e.path, e.name)
                                  : g_strdup(e.name);
    bool any = instance == VMSTATE_INSTANCE_ID_ANY;
    uint32_t own_instance = e.path ? 0 : any ? next : instance;
    bool taken = model_find(own, own_instance);

    e.s = add(e.path, e.name, instance, e.alias, vmsd);
    g_assert_cmpint(taken, ==, !e.s);
    if (e.s) {
        g_assert_cmpuint(e.s->instance_id, ==, own_instance);
        e.old_instance = any ? next : instance;
        e.priority = vmsd->priority;
        model[entries++] = e;
    }
}

static void model_remove(void)
{
    unsigned i = g_test_rand_int_range(0, entries);

    section_remove(model[i].s);
    memmove(&model[i], &model[i + 1], (--entries - i) * sizeof(model[0]));
}

static void model_compare(void)
{
    static const char *const names[] = {
        "a", "b", "p/a", "q/a", "r/b", "p/p/a", "c",
    };
    Section *s = NULL, *last = NULL;
    unsigned n = 0;

    for (int i = 0; i < ARRAY_SIZE(names); i++) {
        for (uint32_t instance = 0; instance < 12; instance++) {
            g_assert_true(section_find(names[i], instance) ==
                          model_find(names[i], instance));
        }
        g_assert_null(section_find(names[i], UINT32_MAX));
    }
    FOR_EACH_SECTION(s) {
        g_assert_true(!last || last->vmsd->priority > s->vmsd->priority ||
                      (last->vmsd->priority == s->vmsd->priority &&
                       last->id < s->id));
        last = s;
        n++;
    }
    g_assert_cmpuint(n, ==, entries);
}

static void test_model(void)
{
    for (int round = 0; round < 20000; round++) {
        bool grow = entries == 0 ||
                    (entries < MODEL_MAX && g_test_rand_int_range(0, 5) < 3);

        if (grow) {
            model_add();
        } else {
            model_remove();
        }
        if (round % 8 == 0) {
            model_compare();
        }
    }
    remove_all();
}

int main(int argc, char **argv)
{
    test_setup(&argc, &argv);
    g_test_add_func("/migration/sections/instances", test_instances);
    g_test_add_func("/migration/sections/paths", test_paths);
    g_test_add_func("/migration/sections/alias", test_alias);
    g_test_add_func("/migration/sections/refused", test_refused);
    g_test_add_func("/migration/sections/order", test_order);
    g_test_add_func("/migration/sections/hooks", test_hooks);
    g_test_add_func("/migration/sections/hooks-without-others",
                    test_hooks_without_others);
    g_test_add_func("/migration/sections/model", test_model);
    return g_test_run();
}
