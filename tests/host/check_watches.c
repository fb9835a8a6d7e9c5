/*
 * Being told of changes: which paths, of whom, from which version to which, and by descriptors.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "watches.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- which paths ---- */

START_TEST(each_operation_tells_what_it_changes)
{
    begin_with("{'d': {'k': 1, 'l': [1, 2, [3]], 's': {1}, 'b': bytearray(b'x'),"
               " 't': Thing(), 'q': collections.deque([1])}, 'n': {}}");
    watch_path(NULL);
    changes("r['d']['k'] = 2", "d/k");
    changes("r['d']['new'] = {'a': {}}", "d/new");
    changes("r['d']['new']['a']['b'] = 1", "d/new/a/b");
    changes("del r['d']['new']", "d/new");
    changes("r['d']['l'][1] = 5", "d/l/1");
    changes("r['d']['l'].append([7])", "d/l");
    changes("r['d']['l'][-1][0] = 8", "d/l/3/0");
    changes("r['d']['l'].insert(0, 1)", "d/l");
    changes("r['d']['l'][4][0] = 9", "d/l/4/0");
    changes("r['d']['l'][3].append(1)", "d/l/3");
    changes("r['d']['l'].sort(key=str, reverse=True)", "d/l");
    changes("r['d']['s'].add(2)", "d/s");
    changes("r['d']['s'].discard(1)", "d/s");
    changes("r['d']['b'].append(65)", "d/b");
    changes("r['d']['t'].name = 'x'", "d/t/name");
    changes("r['d']['t'].part = {}", "d/t/part");
    changes("r['d']['t'].part[1] = 2", "d/t/part/1");
    changes("del r['d']['t'].name", "d/t/name");
    changes("r['d']['q'].append(2)", "d/q");
    changes("r['n'].update(a=1, b=2)", "n/a n/b");
    changes("r['n'].clear()", "n");
    changes("r.pop('n')", "n");
    changes("m.write({'d': 1})", "(root)");
    changes("r = m.read()", "-");
    changes("r['d'] = 2", "d");
    changes("m.write(5)", "(root)");
    changes("m.write([1, [2]])", "(root)");
    changes("m.read()[1].append(3)", "1");
    end();
}
END_TEST

START_TEST(what_no_path_can_name_is_told_as_what_holds_it)
{
    begin_with(
        "{'a/b': {'~': 1, '': 2, 'x\\0': 3}, 1: {(1, 2): {}, None: 1},"
        " 'i': {1: [], '1': []}, 't': (1, {}, ({},)), 'e': {Colour.RED: {}, 'k': []},"
        " '-5': 0, -5: {}, 10**40: {}}");
    watch_path(NULL);
    changes("r['a/b']['~'] = 3", "a~1b/~0");
    changes("r['a/b'][''] = 3", "a~1b");
    changes("r['a/b']['x\\0'] = 4", "a~1b");
    changes("r['a/b']['\\ud800'] = 4", "a~1b");
    changes("r['a/b']['\\u20ac'] = 4", "a~1b/\xe2\x82\xac");
    changes("r[1][None] = 2", "1");
    changes("r[1][1, 2]['x'] = 2", "1");
    changes("r[1][True] = 2", "1");
    changes("r['i'][1].append(1)", "i"); /* "i/1" would be the one below */
    changes("r['i']['1'].append(1)", "i/1");
    changes("r['t'][1]['x'] = 1", "t/1/x");
    changes("r['t'][2][0]['x'] = 1", "t");
    changes("r['e'][Colour.RED]['x'] = 1", "e");
    changes("r['e']['k'].append(1)", "e/k");
    changes("r['e'][7] = 1", "e"); /* a key beside whose hash is code of the program */
    changes("r[-5]['x'] = 1", "(root)");
    changes("del r['-5']", "-5");
    changes("r[-5]['x'] = 2", "-5/x");
    changes("r[10**40]['x'] = 2", "(root)");
    end();
}
END_TEST

START_TEST(a_transaction_tells_all_that_it_changes_at_once)
{
    begin_with("{'a': {}, 'b': [], 'c': {}}");
    watch_path(NULL);
    changes("with m.transaction():\n"
            "    r['a']['x'] = 1\n"
            "    r['a']['x'] = 2\n"
            "    r['b'].append(1)\n"
            "    try:\n"
            "        with m.transaction():\n"
            "            r['c']['no'] = 1\n"
            "            raise KeyError\n"
            "    except KeyError: pass\n",
            "a/x b");
    changes("with m.transaction():\n"
            "    r['new'] = {}\n"
            "    r['new']['deep'] = [1]\n"
            "    r['new']['deep'].append(2)\n",
            "new");
    changes("with m.transaction():\n"
            "    r['c']['moved'] = r.pop('new')\n"
            "    r['c']['moved']['deep'][0] = 3\n",
            "c/moved c/moved/deep/0 new");
    changes("with m.transaction():\n"
            "    r['c']['moved']['deep'].append(1)\n"
            "    del r['c']\n",
            "c");
    changes("try:\n"
            "    with m.transaction():\n"
            "        r['a'] = 1\n"
            "        raise KeyError\n"
            "except KeyError: pass",
            "-");
    changes("with m.transaction(): r['a'].get('x')", "-");
    end();
}
END_TEST

START_TEST(an_aliased_object_is_told_by_all_its_paths)
{
    begin_with("{'a': {}, 'b': {}, 'l': []}");
    watch_path(NULL);
    changes("r['a']['x'] = {'deep': []}", "a/x");
    changes("r['b']['y'] = r['a']['x']", "b/y");
    changes("r['l'].extend([r['b'], 0, r['b']])", "l");
    changes("r['a']['x']['deep'].append(1)", "a/x/deep b/y/deep l/0/y/deep l/2/y/deep");
    changes("del r['l'][0]", "l");
    changes("r['a']['x']['deep'].append(1)", "a/x/deep b/y/deep l/1/y/deep");
    changes("del r['b']", "b");
    changes("del r['a']['x']", "a/x");
    changes("r['l'][1]['y']['deep'].append(1)", "l/1/y/deep");
    /* A cycle: the ways that do not go round. */
    changes("r['l'][1]['y']['top'] = r", "l/1/y/top");
    changes("r['z'] = 1", "z");
    changes("r['a']['same'] = r['a']", "a/same");
    changes("r['a']['v'] = 1", "a/v");
    changes("m.write(r['a'])", "(root)");
    changes("r = m.read(); r['same']['v'] = 2", "v");
    end();
}
END_TEST

START_TEST(indices_are_right_after_insertions)
{
    begin_with("{'l': [[i] for i in range(1000)]}");
    watch_path(NULL);
    changes("del r['l'][:10]; r['l'].insert(0, None)", "l");
    changes("r['l'][500].append(1)", "l/500");
    changes("r['l'].reverse()", "l");
    changes("r['l'][500].append(1)", "l/500");
    changes("r['l'][0].append(1)", "l/0");
    changes("r['l'][:] = r['l'][100:]", "l");
    changes("r['l'][3].append(1)", "l/3");
    end();
}
END_TEST

START_TEST(many_keys_of_one_object_are_told_as_the_object)
{
    begin_with("{'d': {}, 'o': {str(i): {} for i in range(300)}}");
    watch_path(NULL);
    changes("r['d'].update({str(i): i for i in range(100)})", "d");
    changes("with m.transaction():\n"
            "    for i in range(300): r['o'][str(i)]['x'] = 1",
            "all");
    changes("r['d']['1'] = 7", "d/1");
    changes("r['o']['7']['x'] = 7", "o/7/x");
    end();
}
END_TEST

START_TEST(depth_is_no_matter)
{
    begin_with("{}");
    python("with m.transaction():\n"
           "    d = r\n"
           "    for i in range(3000): d['k'] = {}; d = d['k']\n");
    watch_path(NULL);
    python("d['x'] = 1");
    gives(1, tosc_watch_next(watch, 0, &change));
    ck_assert_uint_eq(change->path_count, 1);
    ck_assert_uint_eq(strlen(change->paths[0]), 2 * 3000 + 1);
    python("del d");
    end();
}
END_TEST

START_TEST(filters_hear_of_what_is_at_under_and_above_their_path)
{
    tosc_watch *other;
    begin_with("{'users': {17: {'name': 'a'}, 18: {}}, 'l': [1, [2]], 'x': 1}");
    watch_path("/users/17");
    ok(tosc_watch_new(manager, "l/-1", NULL, NULL, &other));
    changes("r['x'] = 2", "-");
    changes("r['users'][18]['name'] = 'b'", "-");
    changes("r['users'][17]['name'] = 'b'", "users/17/name");
    changes("r['users'][17] = {}", "users/17");
    changes("r['users'] = {}", "users");
    changes("m.write({'users': {}})", "(root)");
    ck_assert_str_eq(next_of(other, 0), "(root)");
    python("r = m.read(); r['l'] = [1, [2]]");
    ck_assert_str_eq(next_of(other, 0), "l");
    python("r['l'][1].append(1)");
    ck_assert_str_eq(next_of(other, 0), "l/1");
    python("with m.transaction(): r['l'][1].append(1); r['users'][17] = 1; r['y'] = 1");
    told_paths("users/17");
    ck_assert_str_eq(next_of(other, 0), "l/1");
    tosc_watch_free(other);
    end();
}
END_TEST

/* ---- by whom, from which version to which ---- */

START_TEST(versions_follow_each_other_and_changes_are_put_together)
{
    begin_with("{'a': 1}");
    int64_t start = version_now();
    watch_path(NULL);
    told_paths("-");
    python("r['a'] = 2");
    told_paths("a");
    ck_assert_int_eq(change->before, start);
    ck_assert_int_eq(change->version, version_now());
    ck_assert(change->own);
    int64_t before = version_now();
    python("r['b'] = 2\nr['a'] = 1\nr['b'] = 3");
    told_paths("a b");
    ck_assert_int_eq(change->before, before);
    ck_assert_int_eq(change->version, version_now());
    told_paths("-");
    end();
}
END_TEST

START_TEST(changes_of_others_are_told_and_not_called_own)
{
    char source[8192];
    begin_with("{'a': 1, 'b': {}}");
    watch_path(NULL);
    snprintf(source, sizeof(source),
             "import tosc\n"
             "m = tosc.Manager(tosc.FileBackend('%s', durable=False))\n"
             "r = m.read()\n"
             "with m.transaction(): r['b']['x'] = {}; r['b']['x']['y'] = 1\n"
             "r['b']['x']['y'] = 2\n",
             path_in("store"));
    ck_assert_int_eq(tosc_run(source), 0);
    gives(1, tosc_watch_next(watch, 5000, &change));
    ck_assert(!change->own);
    ck_assert(!change->all);
    ck_assert_str_eq(change->paths[0], "b/x");
    while (change->version < version_now()) {
        gives(1, tosc_watch_next(watch, 5000, &change));
    }
    python("r['b']['x']['y'] = 3");
    told_paths("b/x/y");
    ck_assert(change->own);
    /* Put together with others', it is not only own. */
    tosc_manager *other = open_store("store");
    tosc_value *root;
    ok(tosc_manager_read(other, &root));
    ok(tosc_set_int64(root, tosc_key("a"), 7));
    ok(tosc_manager_refresh(manager, NULL));
    python("r['b'] = 1");
    told_paths("a b");
    ck_assert(!change->own);
    tosc_value_unref(root);
    tosc_manager_unref(other);
    end();
}
END_TEST

START_TEST(an_empty_store_tells_its_first_object)
{
    host_start();
    manager = open_store("store");
    watch_path(NULL);
    told_paths("-");
    tosc_value *value;
    ok(tosc_value_new_json("{\"a\": 1}", TOSC_TEXT_END, &value));
    ok(tosc_manager_write(manager, value));
    told_paths("(root)");
    ck_assert_int_eq(change->before, 0);
    unlink(path_in("store"));
    for (double end_at = seconds() + 10; seconds() < end_at;) {
        tosc_manager_refresh(manager, NULL);
        if (strcmp(next_of(watch, 20), "(root)") == 0) {
            break;
        }
    }
    ck_assert_int_eq(change->version, 0);
    tosc_value_unref(value);
    watch = tosc_watch_free(watch);
    manager = tosc_manager_unref(manager);
    host_stop();
}
END_TEST

START_TEST(a_new_base_tells_only_what_is_different)
{
    begin_with("{'a': {'x': [1, 2.5, None, (1, {})], 's': {1, 'b'}, 'n': float('nan')},"
               " 'b': {'y': 1}, 'l': [bytearray(b'x'), collections.deque([1])]}");
    python("import datetime as dt\n"
           "r['times'] = [dt.datetime(2020, 1, 1), dt.date(2020, 1, 1), dt.timedelta(1),"
           " dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)]\n"
           "r['c'] = {Colour.RED: 1, 2: [1]}\n"
           "r['many'] = ''\n");
    watch_path(NULL);
    tosc_manager *other = open_store("store");
    ok(tosc_host_publish("other", other));
    python("o = tosc.shared('other')\n"
           "m.close()\n");
    tosc_watch_free(watch);
    ok(tosc_watch_new(other, NULL, NULL, NULL, &watch));
    /* Somebody else makes the tail long enough for a new base. */
    char source[8192];
    snprintf(source, sizeof(source),
             "import tosc, time\n"
             "class Thing: pass\n"
             "import enum\n"
             "class Colour(enum.Enum): RED = 1\n"
             "m = tosc.Manager(tosc.FileBackend('%s', durable=False))\n"
             "r = m.read()\n"
             "r['b']['y'] = 2\n"
             "for i in range(40): r['many'] = str(i) * 10000\n"
             "time.sleep(0.5)\n"
             "r['b']['z'] = 2\n",
             path_in("store"));
    ck_assert_int_eq(tosc_run(source), 0);
    ok(tosc_manager_refresh(other, NULL));
    sleep_us(20000);
    char all[4096] = "";
    const char *text;
    while (strcmp(text = next_of(watch, 100), "-") != 0) {
        strncat(all, text, sizeof(all) - strlen(all) - 2);
        strcat(all, " ");
    }
    ck_assert_msg(strstr(all, "b/z") != NULL && strstr(all, "many") != NULL, "%s", all);
    ck_assert_msg(strstr(all, "a/") == NULL && strstr(all, "l/") == NULL
                      && strstr(all, "times") == NULL && strstr(all, "all") == NULL
                      && strstr(all, "c") == NULL,
                  "%s", all);
    python("del o");
    ok(tosc_host_publish("other", NULL));
    tosc_manager_unref(other);
    end();
}
END_TEST

/* ---- descriptors ---- */

START_TEST(the_descriptor_is_readable_while_something_is_pending)
{
    begin_with("{'a': 1}");
    watch_path(NULL);
    int fd = tosc_watch_fd(watch);
    ck_assert_int_ge(fd, 0);
    ck_assert(!is_readable(fd));
    for (int i = 0; i < 3; i++) {
        python("r['a'] += 1");
        ck_assert(is_readable(fd));
        python("r['a'] += 1");
        ck_assert(is_readable(fd));
        told_paths("a");
        ck_assert(!is_readable(fd));
        told_paths("-");
    }
    end();
}
END_TEST

START_TEST(an_edge_triggered_loop_is_told_of_each_change)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    begin_with("{'a': 1}");
    watch_path("a");
    int loop = epoll_create1(EPOLL_CLOEXEC);
    must(epoll_ctl(loop, EPOLL_CTL_ADD, tosc_watch_fd(watch), &event) == 0);
    ck_assert_int_eq(epoll_wait(loop, &event, 1, 0), 0);
    for (int i = 0; i < 5; i++) {
        python("r['a'] += 1");
        ck_assert_int_eq(epoll_wait(loop, &event, 1, 1000), 1);
        told_paths("a");
        ck_assert_int_eq(epoll_wait(loop, &event, 1, 0), 0);
        python("r['b'] = 1"); /* does not concern it */
        ck_assert_int_eq(epoll_wait(loop, &event, 1, 0), 0);
    }
    close(loop);
    end();
}
END_TEST

static void
ignore_signal(int number)
{
    (void)number;
}

static void *
signal_soon(void *thread)
{
    sleep_us(100000);
    pthread_kill(*(pthread_t *)thread, SIGUSR1);
    return NULL;
}

START_TEST(a_wait_ends_by_time_and_by_a_signal)
{
    struct sigaction action = {.sa_handler = ignore_signal};
    pthread_t self = pthread_self();
    pthread_t other;
    begin_with("{'a': 1}");
    watch_path(NULL);
    double begun = seconds();
    gives(0, tosc_watch_next(watch, 50, &change));
    ck_assert(seconds() - begun > 0.045);
    sigaction(SIGUSR1, &action, NULL);
    pthread_create(&other, NULL, signal_soon, &self);
    fails(TOSC_EINTR, tosc_watch_next(watch, -1, &change));
    pthread_join(other, NULL);
    end();
}
END_TEST

START_TEST(a_wait_inside_a_scope_lets_others_work)
{
    tosc_scope scope;
    pthread_t other;
    begin_with("{'a': 1}");
    watch_path(NULL);
    ok(tosc_scope_enter(&scope));
    pthread_create(&other, NULL, change_soon, NULL);
    told_within("a", 10000);
    ok(tosc_scope_leave(&scope));
    pthread_join(other, NULL);
    end();
}
END_TEST

/* ---- misuse ---- */

static void
never_called(tosc_manager *m, const tosc_change *told, void *arg)
{
    (void)m;
    (void)told;
    (void)arg;
    must(false);
}

START_TEST(misuse_is_told)
{
    tosc_watch *other = NULL;
    fails(TOSC_ECLOSED, tosc_watch_new(NULL, NULL, NULL, NULL, &other));
    ck_assert_ptr_null(tosc_watch_free(NULL));
    begin_with("{'a': 0}");
    fails(TOSC_EINVAL, tosc_watch_new(NULL, NULL, NULL, NULL, &other));
    told("manager");
    fails(TOSC_EINVAL, tosc_watch_new(manager, NULL, NULL, NULL, NULL));
    fails(TOSC_EINVAL, tosc_watch_new(manager, "a/~2", NULL, NULL, &other));
    told("~");
    ck_assert_ptr_null(other);
    watch_path(NULL);
    fails(TOSC_EINVAL, tosc_watch_next(watch, 0, NULL));
    fails(TOSC_EINVAL, tosc_watch_next(NULL, 0, &change));
    fails(TOSC_EINVAL, tosc_watch_next((tosc_watch *)manager, 0, &change));
    fails(TOSC_EINVAL, tosc_watch_next((tosc_watch *)"x", 0, &change));
    fails(TOSC_EINVAL, tosc_manager_close((tosc_manager *)watch));
    ck_assert_int_eq(tosc_watch_fd(NULL), -1);
    tosc_watch *freed = watch;
    watch = tosc_watch_free(watch);
    fails(TOSC_EINVAL, tosc_watch_next(freed, 0, &change));
    ck_assert_ptr_null(tosc_watch_free(freed));
    ck_assert_int_eq(tosc_watch_fd(freed), -1);
    ok(tosc_watch_new(manager, NULL, never_called, NULL, &watch));
    ck_assert_ptr_ne(watch, freed);
    fails(TOSC_EINVAL, tosc_watch_next(watch, 0, &change));
    told("callback");
    end();
}
END_TEST

START_TEST(a_store_that_cannot_be_read_cannot_be_watched)
{
    host_start();
    script("store",
           "this is no store, but more than a header's length of text in a file");
    manager = open_store("store");
    fails(TOSC_ECORRUPT, tosc_watch_new(manager, NULL, NULL, NULL, &watch));
    manager = tosc_manager_unref(manager);
    host_stop();
}
END_TEST

static void
add_tests(TCase *tcase)
{
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, directory_make, directory_remove);
    tcase_add_test(tcase, each_operation_tells_what_it_changes);
    tcase_add_test(tcase, what_no_path_can_name_is_told_as_what_holds_it);
    tcase_add_test(tcase, a_transaction_tells_all_that_it_changes_at_once);
    tcase_add_test(tcase, an_aliased_object_is_told_by_all_its_paths);
    tcase_add_test(tcase, indices_are_right_after_insertions);
    tcase_add_test(tcase, many_keys_of_one_object_are_told_as_the_object);
    tcase_add_test(tcase, depth_is_no_matter);
    tcase_add_test(tcase, filters_hear_of_what_is_at_under_and_above_their_path);
    tcase_add_test(tcase, versions_follow_each_other_and_changes_are_put_together);
    tcase_add_test(tcase, changes_of_others_are_told_and_not_called_own);
    tcase_add_test(tcase, an_empty_store_tells_its_first_object);
    tcase_add_test(tcase, a_new_base_tells_only_what_is_different);
    tcase_add_test(tcase, the_descriptor_is_readable_while_something_is_pending);
    tcase_add_test(tcase, an_edge_triggered_loop_is_told_of_each_change);
    tcase_add_test(tcase, a_wait_ends_by_time_and_by_a_signal);
    tcase_add_test(tcase, a_wait_inside_a_scope_lets_others_work);
    tcase_add_test(tcase, misuse_is_told);
    tcase_add_test(tcase, a_store_that_cannot_be_read_cannot_be_watched);
}

int
main(void)
{
    Suite *suite = suite_create("watches");
    TCase *tcase = tcase_create("all");
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
