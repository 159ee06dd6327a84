/*
 * Unit tests of addresses: what URIs and lists of channels mean
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-migration.h"
#include "qapi/qobject-input-visitor.h"
#include "qapi/qobject-output-visitor.h"
#include "qobject/qjson.h"
#include "qobject/qobject.h"
#include "migration/misc.h"
#include "migration/transport/transport.h"

static QObject *to_qobject(MigrationAddress *addr)
{
    QObject *obj;
    Visitor *v = qobject_output_visitor_new(&obj);

    visit_type_MigrationAddress(v, NULL, &addr, &error_abort);
    visit_complete(v, &obj);
    visit_free(v);
    return obj;
}

static void check_equal(MigrationAddress *addr, const char *json)
{
    QObject *got = to_qobject(addr);
    QObject *want = qobject_from_json(json, &error_abort);

    if (!qobject_is_equal(got, want)) {
        GString *text = qobject_to_json(got);

        g_error("got %s, want %s", text->str, json);
    }
    qobject_unref(got);
    qobject_unref(want);
}

static void test_uris(void)
{
    static const char *const cases[][2] = {
        { "tcp:127.0.0.1:4444",
          "{'transport':'socket','type':'inet','host':'127.0.0.1',"
          "'port':'4444'}" },
        { "tcp:[::1]:0,ipv4=off",
          "{'transport':'socket','type':'inet','host':'::1','port':'0',"
          "'ipv4':false}" },
        { "tcp::49152",
          "{'transport':'socket','type':'inet','host':'','port':'49152'}" },
        { "unix:/run/vm/mig.sock",
          "{'transport':'socket','type':'unix','path':'/run/vm/mig.sock'}" },
        { "vsock:3:1234",
          "{'transport':'socket','type':'vsock','cid':'3','port':'1234'}" },
        { "fd:migrate",
          "{'transport':'socket','type':'fd','str':'migrate'}" },
        { "fd:37", "{'transport':'socket','type':'fd','str':'37'}" },
        { "exec:cat >'/tmp/x y'",
          "{'transport':'exec','args':['/bin/sh','-c',"
          "\"cat >'/tmp/x y'\"]}" },
        { "file:/tmp/x",
          "{'transport':'file','filename':'/tmp/x','offset':0}" },
        { "file:/tmp/x,offset=0x1000",
          "{'transport':'file','filename':'/tmp/x','offset':4096}" },
        { "file:/tmp/a,b,offset=2M",
          "{'transport':'file','filename':'/tmp/a,b','offset':2097152}" },
#ifdef CONFIG_RDMA
        { "rdma:10.0.0.1:4444",
          "{'transport':'rdma','host':'10.0.0.1','port':'4444'}" },
#endif
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        MigrationAddress *addr;
        MigrationChannel *channel;

        g_assert_true(migrate_is_uri(cases[i][0]));
        transport_parse(cases[i][0], NULL, &addr, &error_abort);
        check_equal(addr, cases[i][1]);
        qapi_free_MigrationAddress(addr);

        migrate_uri_parse(cases[i][0], &channel, &error_abort);
        g_assert_cmpint(channel->channel_type, ==,
                        MIGRATION_CHANNEL_TYPE_MAIN);
        check_equal(channel->addr, cases[i][1]);
        qapi_free_MigrationChannel(channel);
    }
}

/* An error that says @part, and nothing else */
static void check_refused(const char *uri, MigrationChannelList *channels,
                          const char *part)
{
    MigrationAddress *addr = NULL;
    Error *err = NULL;

    if (transport_parse(uri, channels, &addr, &err)) {
        g_error("'%s' is taken", uri ? uri : "a list");
    }
    g_assert_nonnull(err);
    g_assert_null(addr);
    if (!strstr(error_get_pretty(err), part)) {
        g_error("'%s': '%s' does not say '%s'", uri ? uri : "a list",
                error_get_pretty(err), part);
    }
    error_free(err);
}

static void test_bad_uris(void)
{
    static const char *const cases[][2] = {
        { "", "tcp:HOST:PORT" },
        { "/tmp/x", "tcp:HOST:PORT" },
        { "http://example.org", "exec:COMMAND" },
        { "TCP:127.0.0.1:1", "tcp:HOST:PORT" },
        { "defer", "tcp:HOST:PORT" },
        { "tcp:", "address" },
        { "tcp:127.0.0.1", "address" },
        { "unix:", "" },
        { "vsock:3", "" },
        { "fd:", "" },
        { "exec:", "exec:COMMAND" },
        { "file:", "file:PATH" },
        { "file:,offset=1", "file:PATH" },
        { "file:/tmp/x,offset=", "number of bytes" },
        { "file:/tmp/x,offset=-1", "number of bytes" },
        { "file:/tmp/x,offset=ten", "number of bytes" },
        { "file:/tmp/x,offset=1,offset=2", "number of bytes" },
        { "file:/tmp/x,offset=9E", "beyond" },
        { "file:/tmp/x,offset=16E", "number of bytes" },
#ifdef CONFIG_RDMA
        { "rdma:10.0.0.1", "10.0.0.1" },
#else
        { "rdma:10.0.0.1:4444", "built without RDMA" },
#endif
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        check_refused(cases[i][0], NULL, cases[i][1]);
    }
}

static MigrationChannelList *channels_from(const char *json)
{
    QObject *obj = qobject_from_json(json, &error_abort);
    Visitor *v = qobject_input_visitor_new(obj);
    MigrationChannelList *channels = NULL;

    visit_type_MigrationChannelList(v, NULL, &channels, &error_abort);
    visit_free(v);
    qobject_unref(obj);
    return channels;
}

#define TCP "{'transport':'socket','type':'inet','host':'h','port':'1'}"
#define UNIX "{'transport':'socket','type':'unix','path':'/p'}"
#define CHANNEL(type, addr) "{'channel-type':'" type "','addr':" addr "}"

static void test_lists(void)
{
    static const char *const cases[][2] = {
        { "[" CHANNEL("main", TCP) "]", TCP },
        { "[" CHANNEL("main", UNIX) "]", UNIX },
        { "[" CHANNEL("cpr", UNIX) "," CHANNEL("main", TCP) "]", TCP },
        { "[" CHANNEL("main", "{'transport':'exec','args':['/bin/true']}") "]",
          "{'transport':'exec','args':['/bin/true']}" },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        MigrationChannelList *channels = channels_from(cases[i][0]);
        MigrationAddress *addr;

        transport_parse(NULL, channels, &addr, &error_abort);
        qapi_free_MigrationChannelList(channels);
        check_equal(addr, cases[i][1]);
        qapi_free_MigrationAddress(addr);
    }
}

static void test_bad_lists(void)
{
    static const char *const cases[][2] = {
        { "[" CHANNEL("cpr", TCP) "]", "none of type 'main'" },
        { "[" CHANNEL("main", TCP) "," CHANNEL("main", UNIX) "]",
          "more than one of type 'main'" },
        { "[" CHANNEL("cpr", TCP) "," CHANNEL("main", UNIX) ","
          CHANNEL("cpr", TCP) "]", "more than one of type 'cpr'" },
        { "[" CHANNEL("main", "{'transport':'exec','args':[]}") "]",
          "no command" },
        { "[" CHANNEL("main", "{'transport':'exec','args':['']}") "]",
          "no command" },
        { "[" CHANNEL("main", "{'transport':'file','filename':'',"
                      "'offset':0}") "]", "is empty" },
        { "[" CHANNEL("main", "{'transport':'file','filename':'x',"
                      "'offset':18446744073709551615}") "]", "beyond" },
        { "[" CHANNEL("main", "{'transport':'socket','type':'unix',"
                      "'path':''}") "]", "'unix' is empty" },
        { "[" CHANNEL("main", "{'transport':'socket','type':'fd',"
                      "'str':''}") "]", "'fd' is empty" },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        MigrationChannelList *channels = channels_from(cases[i][0]);

        check_refused(NULL, channels, cases[i][1]);
        qapi_free_MigrationChannelList(channels);
    }
}

static void test_one_of_two(void)
{
    MigrationChannelList *channels =
        channels_from("[" CHANNEL("main", TCP) "]");

    check_refused(NULL, NULL, "Exactly one");
    check_refused("tcp:h:1", channels, "Exactly one");
    qapi_free_MigrationChannelList(channels);
}

/* -incoming takes JSON and keys with values as well. */
static void test_is_uri(void)
{
    static const char *const no[] = {
        "", ":", "{}", "{\"a\":1}", "/tmp/a:b", "channel-type=main,a:b", "tcp"
    };

    for (int i = 0; i < ARRAY_SIZE(no); i++) {
        g_assert_false(migrate_is_uri(no[i]));
    }
    g_assert_true(migrate_is_uri("what:ever"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration/transport/parse/uris", test_uris);
    g_test_add_func("/migration/transport/parse/bad-uris", test_bad_uris);
    g_test_add_func("/migration/transport/parse/lists", test_lists);
    g_test_add_func("/migration/transport/parse/bad-lists", test_bad_lists);
    g_test_add_func("/migration/transport/parse/one-of-two", test_one_of_two);
    g_test_add_func("/migration/transport/parse/is-uri", test_is_uri);
    return g_test_run();
}
