/*
 * Changing values from C: elements, lists, sets, sums; transactions; iterating.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "values.h"

#include <tosc/manager.h>

#include <stdatomic.h>
#include <stdio.h>

static tosc_manager *
manager(void)
{
    tosc_manager *m = NULL;
    tosc_value *value = eval("m");
    ok(tosc_manager_of(value, &m));
    tosc_value_unref(value);
    return m;
}

/* ---- elements ---- */

START_TEST(elements_of_every_sort_of_container_are_set)
{
    values_start();
    python("import collections\n"
           "class Point: pass\n"
           "class Guarded:\n"
           "    limit = 0\n"
           "    @property\n"
           "    def level(self): return self.limit\n"
           "    @level.setter\n"
           "    def level(self, value):\n"
           "        if value < 0: raise ValueError('below zero')\n"
           "        self.limit = value * 2\n"
           "    @property\n"
           "    def fixed(self): return 1\n"
           "    @property\n"
           "    def items(self): return self.kept\n"
           "    @items.setter\n"
           "    def items(self, value): self.kept = [type(value).__name__, *value]\n");
    take("{'a': 1, 'l': [1, 2, 3], 'p': Point(), 'g': Guarded(), 5: 0, 't': (1,),"
         " 'o': collections.OrderedDict(), 'b': bytearray(b'abc')}");
    for (int p = 0; p < 2; p++) {
        tosc_value *x;
        ok(tosc_get(place(p), tosc_key("x"), &x));
        ok(tosc_set_int64(x, tosc_key("a"), 2));
        ok(tosc_set_text(x, tosc_key("new"), "text", TOSC_TEXT_END));
        ok(tosc_set_double(x, tosc_path("l/-1"), 3.5));
        ok(tosc_set_bytes(x, tosc_path("l/0"), "b", 1));
        ok(tosc_set_bool(x, tosc_path("p/x"), true));
        ok(tosc_set_int64(x, tosc_path("g/level"), 4));
        ok(tosc_set_null(x, tosc_index(5)));
        ok(tosc_set_int64(x, tosc_path("6"), 6));
        ok(tosc_set_int64(x, tosc_path("o/k"), 7));
        tosc_value *bytes;
        ok(tosc_get(x, tosc_key("b"), &bytes));
        ok(tosc_set_int64(bytes, tosc_index(1), 'B'));
        tosc_value_unref(bytes);
        fails(TOSC_ENOTFOUND, tosc_set_int64(x, tosc_path("l/3"), 1));
        told("'l/3': no index '3' in the list at 'l'");
        fails(TOSC_ENOTFOUND, tosc_set_int64(x, tosc_path("nobody/x"), 1));
        told("no key 'nobody'");
        fails(TOSC_ENOTFOUND, tosc_set_int64(x, tosc_path("l/x"), 1));
        fails(TOSC_ETYPE, tosc_set_int64(x, tosc_path("t/0"), 1));
        fails(TOSC_ENOTFOUND, tosc_set_int64(x, tosc_path("a/b"), 1));
        told("no element 'b' in the int at 'a'");
        fails(TOSC_EPYTHON, tosc_set_int64(x, tosc_path("g/level"), -4));
        told("below zero");
        fails(TOSC_ENOTFOUND, tosc_delete(x, tosc_path("a~1b")));
        told("no key 'a~1b'");
        fails(TOSC_ETYPE, tosc_set_int64(x, tosc_path("g/fixed"), 1));
        tosc_value *numbers = eval("(i for i in range(3))");
        ok(tosc_set(x, tosc_path("g/items"), numbers));
        tosc_value_unref(numbers);
        fails(TOSC_EINVAL, tosc_set_int64(x, tosc_self(), 1));
        fails(TOSC_EINVAL, tosc_set_int64(x, tosc_path(""), 1));
        tosc_value_unref(x);
    }
    both("x['a'] == 2 and x['new'] == 'text' and x['l'] == [b'b', 2, 3.5]");
    both("x['g'].items == ['generator', 0, 1, 2]");
    both("x['p'].x is True and x['g'].level == 8 and x[5] is None and x['6'] == 6");
    both("x['o'] == {'k': 7} and x['b'] == b'aBc' and x['t'] == (1,)");
    values_stop();
}
END_TEST

START_TEST(elements_are_deleted)
{
    values_start();
    python("class Point: pass\n"
           "p = Point()\n"
           "p.x = 1\n");
    take("{'a': 1, 'l': [1, 2, 3], 'p': p, 5: 0}");
    python("x = {'a': 1, 'l': [1, 2, 3], 'p': p, 5: 0}\n");
    for (int p = 0; p < 2; p++) {
        tosc_value *x;
        ok(tosc_get(place(p), tosc_key("x"), &x));
        ok(tosc_delete(x, tosc_key("a")));
        fails(TOSC_ENOTFOUND, tosc_delete(x, tosc_key("a")));
        told("no key 'a' in the dict");
        ok(tosc_delete(x, tosc_path("l/-2")));
        fails(TOSC_ENOTFOUND, tosc_delete(x, tosc_path("l/2")));
        ok(tosc_delete(x, tosc_path("p/x")));
        fails(TOSC_ENOTFOUND, tosc_delete(x, tosc_path("p/x")));
        told("no attribute 'x' in the Point at 'p'");
        ok(tosc_delete(x, tosc_path("5")));
        fails(TOSC_EINVAL, tosc_delete(x, tosc_self()));
        tosc_value_unref(x);
    }
    both("set(x) == {'l', 'p'} and x['l'] == [1, 3] and not hasattr(x['p'], 'x')");
    values_stop();
}
END_TEST

START_TEST(what_cannot_be_stored_is_told)
{
    values_start();
    python("import collections\n"
           "class Point: pass\n");
    take("{'l': [], 's': set(), 'q': collections.deque(), 'p': Point()}");
    tosc_value *lock = eval("__import__('threading').Lock()");
    tosc_value *list = eval("[1]");
    fails(TOSC_ESERIALIZE, tosc_set(root, tosc_key("y"), lock));
    told("lock");
    fails(TOSC_ESERIALIZE, tosc_append(root, tosc_path("x/l"), lock));
    tosc_value *nested = eval("[{'a': (i for i in ())}]");
    fails(TOSC_ESERIALIZE, tosc_set(root, tosc_key("y"), nested));
    told("generator");
    fails(TOSC_ESERIALIZE, tosc_append(root, tosc_path("x/q"), nested));
    fails(TOSC_ESERIALIZE, tosc_set(root, tosc_path("x/p/y"), nested));
    tosc_value_unref(nested);
    fails(TOSC_ESERIALIZE, tosc_insert(root, tosc_path("x/l"), 0, lock));
    fails(TOSC_ESERIALIZE, tosc_member_add(root, tosc_path("x/s"), lock));
    fails(TOSC_ETYPE, tosc_member_add(root, tosc_path("x/s"), list));
    told("unhashable");
    fails(TOSC_ETYPE, tosc_set_int64(root, tosc_item(list), 1));
    ck_assert(python_true("d['x']['l'] == [] and not d['x']['s'] and not d['x']['q']"
                          " and not vars(d['x']['p']) and len(d) == 1"));
    ok(tosc_set(names, tosc_key("y"), lock)); /* plain ones hold anything */
    tosc_value_unref(list);
    tosc_value_unref(lock);
    values_stop();
}
END_TEST

/* ---- lists and sets ---- */

START_TEST(lists_and_sets_are_changed)
{
    values_start();
    python("import collections\n");
    take("{'l': [2], 's': {1}, 'f': frozenset({1}), 'q': collections.deque([2]),"
         " 'b': bytearray(b'abc'), 'd': {1: 2}, 't': (1,)}");
    tosc_value *two = eval("2");
    for (int p = 0; p < 2; p++) {
        tosc_value *x;
        ok(tosc_get(place(p), tosc_key("x"), &x));
        ok(tosc_append_int64(x, tosc_key("l"), 3));
        ok(tosc_append_double(x, tosc_key("l"), 4.5));
        ok(tosc_append_text(x, tosc_key("l"), "five!", 4));
        ok(tosc_insert(x, tosc_key("l"), 0, two));
        ok(tosc_insert(x, tosc_key("l"), -1, two));
        ok(tosc_insert(x, tosc_key("l"), 1000, two));
        ok(tosc_append(x, tosc_key("q"), two));
        ok(tosc_insert(x, tosc_key("q"), 0, two));
        ok(tosc_member_add(x, tosc_key("s"), two));
        gives(1, tosc_member_has(x, tosc_key("s"), two));
        ok(tosc_member_discard(x, tosc_key("s"), two));
        ok(tosc_member_discard(x, tosc_key("s"), two));
        gives(0, tosc_member_has(x, tosc_key("s"), two));
        gives(0, tosc_member_has(x, tosc_key("f"), two));
        fails(TOSC_ETYPE, tosc_member_add(x, tosc_key("f"), two));
        fails(TOSC_ETYPE, tosc_member_add(x, tosc_key("l"), two));
        told("'l' is of type list, not a set");
        fails(TOSC_ETYPE, tosc_member_has(x, tosc_key("d"), two));
        fails(TOSC_ETYPE, tosc_append(x, tosc_key("s"), two));
        fails(TOSC_ETYPE, tosc_append(x, tosc_key("t"), two));
        fails(TOSC_ETYPE, tosc_append_int64(x, tosc_key("d"), 1));
        fails(TOSC_ETYPE, tosc_clear(x, tosc_key("t")));
        fails(TOSC_ETYPE, tosc_clear(x, tosc_key("f")));
        fails(TOSC_ETYPE, tosc_clear(x, tosc_path("l/0")));
        fails(TOSC_ENOTFOUND, tosc_clear(x, tosc_key("nothing")));
        tosc_value_unref(x);
    }
    both("x['l'] == [2, 2, 3, 4.5, 2, 'five', 2] and list(x['q']) == [2, 2, 2]");
    both("x['s'] == {1}");
    for (int p = 0; p < 2; p++) {
        ok(tosc_clear(place(p), tosc_path("x/l")));
        ok(tosc_clear(place(p), tosc_path("x/s")));
        ok(tosc_clear(place(p), tosc_path("x/q")));
        ok(tosc_clear(place(p), tosc_path("x/b")));
        ok(tosc_clear(place(p), tosc_path("x/d")));
    }
    both("not any((x['l'], x['s'], x['q'], x['b'], x['d']))");
    tosc_value_unref(two);
    values_stop();
}
END_TEST

/* ---- transactions ---- */

START_TEST(changes_belong_to_the_open_transaction)
{
    values_start();
    tosc_manager *m = manager();
    tosc_transaction *transaction;
    int64_t number = -1;
    int64_t version;
    int64_t later;
    ok(tosc_set_int64(root, tosc_key("n"), 1));
    gives(1, tosc_manager_version(m, &version));
    ok(tosc_transaction_begin(m, &transaction));
    ok(tosc_set_int64(root, tosc_key("n"), 2));
    ok(tosc_add_int64(root, tosc_key("n"), 5, &number));
    ck_assert_int_eq(number, 7);
    tosc_value *list = eval("[]");
    ok(tosc_set(root, tosc_key("l"), list));
    ok(tosc_append_int64(root, tosc_key("l"), 1));
    ok(tosc_get_int64(root, tosc_path("l/0"), &number));
    ck_assert_int_eq(number, 1);
    python("import threading\n"
           "seen = []\n"
           "t = threading.Thread(target=lambda: seen.append(dict(d)))\n"
           "t.start(); t.join()\n");
    ck_assert(python_true("seen == [{'n': 1}] and d == {'n': 7, 'l': [1]}"));
    ok(tosc_transaction_rollback(transaction));
    ck_assert(python_true("d == {'n': 1}"));
    ok(tosc_transaction_begin(m, &transaction));
    ok(tosc_set(root, tosc_key("l"), list));
    ok(tosc_append_int64(root, tosc_key("l"), 2));
    ok(tosc_delete(root, tosc_key("n")));
    gives(0, tosc_contains(root, tosc_key("n")));
    ok(tosc_transaction_commit(transaction));
    ck_assert(python_true("d == {'l': [2]}"));
    gives(1, tosc_manager_version(m, &later));
    ck_assert_int_eq(later, version + 1);
    tosc_value_unref(list);
    tosc_manager_unref(m);
    values_stop();
}
END_TEST

START_TEST(a_change_outside_of_transactions_is_stored_at_once)
{
    values_start();
    python("backend = tosc.InprocBackend()\n"
           "one = tosc.Manager(backend)\n"
           "two = tosc.Manager(backend)\n"
           "one.write({'n': 1})\n");
    tosc_value *mine = eval("one.read()");
    ok(tosc_set_int64(mine, tosc_key("n"), 2));
    ck_assert(python_true("two.refresh() == {'n': 2}"));
    python("two.read()['n'] = 10\n");
    int64_t sum;
    ok(tosc_add_int64(mine, tosc_key("n"), 1, &sum));
    ck_assert_int_eq(sum, 11);
    ck_assert(python_true("two.refresh() == {'n': 11}"));
    tosc_value_unref(mine);
    python("one.close(); two.close()\n");
    values_stop();
}
END_TEST

/* ---- sums ---- */

START_TEST(sums_start_at_nothing_and_end_at_the_limit)
{
    values_start();
    python("class Point: pass\n");
    take(
        "{'s': 'text', 'l': [5], 'p': Point(), 'b': True, 'big': 2**63, 'm': 2**63 - 1}");
    for (int p = 0; p < 2; p++) {
        tosc_value *x;
        int64_t sum = -1;
        ok(tosc_get(place(p), tosc_key("x"), &x));
        ok(tosc_add_int64(x, tosc_key("new"), 3, &sum));
        ck_assert_int_eq(sum, 3);
        ok(tosc_add_int64(x, tosc_key("new"), -5, NULL));
        ok(tosc_add_int64(x, tosc_path("p/count"), 2, &sum));
        ck_assert_int_eq(sum, 2);
        ok(tosc_add_int64(x, tosc_path("p/count"), 2, &sum));
        ck_assert_int_eq(sum, 4);
        ok(tosc_add_int64(x, tosc_path("l/-1"), 2, &sum));
        ck_assert_int_eq(sum, 7);
        ok(tosc_add_int64(x, tosc_index(9), 9, &sum));
        ck_assert_int_eq(sum, 9);
        sum = -1;
        fails(TOSC_ENOTFOUND, tosc_add_int64(x, tosc_path("l/1"), 2, &sum));
        told("'l/1': no index '1' in the list at 'l'");
        fails(TOSC_ENOTFOUND, tosc_add_int64(x, tosc_path("q/w"), 2, &sum));
        fails(TOSC_ETYPE, tosc_add_int64(x, tosc_key("s"), 2, &sum));
        told("the element 's' is of type str, not an int");
        fails(TOSC_ETYPE, tosc_add_int64(x, tosc_key("b"), 2, &sum));
        fails(TOSC_ERANGE, tosc_add_int64(x, tosc_key("big"), 2, &sum));
        fails(TOSC_ERANGE, tosc_add_int64(x, tosc_key("m"), 1, &sum));
        fails(TOSC_EINVAL, tosc_add_int64(x, tosc_self(), 1, &sum));
        ck_assert_int_eq(sum, -1);
        tosc_value_unref(x);
    }
    both("x['new'] == -2 and x['p'].count == 4 and x['l'] == [7] and x[9] == 9");
    values_stop();
}
END_TEST

static void *
add_a_thousand(void *unused)
{
    (void)unused;
    for (int i = 0; i < (sanitized() ? 100 : 1000); i++) {
        if (tosc_add_int64(root, tosc_path("x/n"), 1, NULL) < 0
            || tosc_add_int64(names, tosc_path("plain/n"), 1, NULL) < 0) {
            fprintf(stderr, "%s\n", tosc_error_message());
            return root;
        }
    }
    return NULL;
}

START_TEST(ten_threads_add_exactly)
{
    int64_t sum;
    int64_t expected = sanitized() ? 1000 : 10000;
    values_start();
    take("{'n': 0}");
    python("plain = {'n': 0}\n");
    in_threads(10, add_a_thousand, NULL);
    ok(tosc_get_int64(root, tosc_path("x/n"), &sum));
    ck_assert_int_eq(sum, expected);
    ok(tosc_get_int64(names, tosc_path("plain/n"), &sum));
    ck_assert_int_eq(sum, expected);
    values_stop();
}
END_TEST

#define EACH 250

static void
add_in_a_process(void *uri)
{
    tosc_manager *m;
    tosc_value *mine;
    host_start();
    must(tosc_manager_open(uri, NULL, &m) == 0);
    must(tosc_manager_refresh(m, &mine) == 0);
    for (int i = 0; i < EACH; i++) {
        must(tosc_add_int64(mine, tosc_path("deep/n"), 1, NULL) == 0);
    }
    tosc_value_unref(mine);
    tosc_manager_unref(m);
    host_stop();
}

static void
make_sum(void *uri)
{
    tosc_manager *m;
    host_start();
    must(tosc_manager_open(uri, NULL, &m) == 0);
    tosc_value *start = eval("{'deep': {}}");
    must(tosc_manager_write(m, start) == 0);
    tosc_value_unref(start);
    tosc_manager_unref(m);
    host_stop();
}

static void
check_sum(void *uri)
{
    tosc_manager *m;
    tosc_value *mine;
    int64_t sum = 0;
    host_start();
    must(tosc_manager_open(uri, NULL, &m) == 0);
    must(tosc_manager_read(m, &mine) == 0);
    must(tosc_get_int64(mine, tosc_path("deep/n"), &sum) == 0);
    must(sum == 4 * EACH);
    tosc_value_unref(mine);
    tosc_manager_unref(m);
    host_stop();
}

START_TEST(four_processes_add_exactly)
{
    char uri[600];
    pid_t children[4];
    snprintf(uri, sizeof(uri), "%s", store_in("sum"));
    child_join(child_start(make_sum, uri));
    for (int i = 0; i < 4; i++) {
        children[i] = child_start(add_in_a_process, uri);
    }
    for (int i = 0; i < 4; i++) {
        child_join(children[i]);
    }
    child_join(child_start(check_sum, uri));
}
END_TEST

/* ---- iterating ---- */

/* What iterating over a value gives, as "key:item key:item …", sorted by Python. */
static void
goes_over(tosc_value *value, tosc_at at, const char *expected)
{
    tosc_iterator *iterator;
    tosc_value *pairs;
    tosc_value *key;
    tosc_value *item;
    int more;
    ok(tosc_value_new_list(&pairs));
    ok(tosc_iterator_new(value, at, &iterator));
    while ((more = tosc_iterator_next(iterator, &key, &item)) > 0) {
        tosc_value *pair;
        tosc_value *const both_of[] = {key != NULL ? key : item, item};
        ok(tosc_value_new_tuple(both_of, 2, &pair));
        ok(tosc_append(pairs, tosc_self(), pair));
        tosc_value_unref(pair);
    }
    ok(more);
    gives(0, tosc_iterator_next(iterator, &key, &item));
    tosc_iterator_free(iterator);
    ok(tosc_set(names, tosc_key("pairs"), pairs));
    tosc_value_unref(pairs);
    char expression[500];
    snprintf(expression, sizeof(expression),
             "sorted(pairs, key=repr) == %s or print(pairs)", expected);
    must(python_true(expression));
}

START_TEST(everything_is_iterated_over)
{
    static const struct {
        const char *expression;
        const char *pairs;
    } table[] = {
        {"[5, 6]", "[(0, 5), (1, 6)]"},
        {"[]", "[]"},
        {"(5, 6)", "[(0, 5), (1, 6)]"},
        {"Pair(5, 6)", "[(0, 5), (1, 6)]"},
        {"{1: 2, 'a': 'b'}", "[('a', 'b'), (1, 2)]"},
        {"{5, 6}", "[(5, 5), (6, 6)]"},
        {"frozenset({5})", "[(5, 5)]"},
        {"Point()", "[('x', 1), ('y', 2)]"},
        {"Slim()", "[('a', 3)]"},
        {"collections.OrderedDict(a=1)", "[('a', 1)]"},
        {"collections.deque([7, 8])", "[(0, 7), (1, 8)]"},
        {"collections.UserDict(a=1)", "[('a', 1)]"},
        {"Special({5})", "[(5, 5)]"},
        {"ValueError('a')", "[]"},
        {"types.SimpleNamespace(a=1)", "[('a', 1)]"},
    };
    static const char *const others[] = {"5",        "None",         "'text'",
                                         "b'bytes'", "bytearray(3)", "1.5"};
    values_start();
    python("import collections, types\n"
           "class Special(set): pass\n"
           "Pair = collections.namedtuple('Pair', 'left right')\n"
           "class Point:\n"
           "    z = 3\n"
           "    def __init__(self): self.x = 1; self.y = 2\n"
           "class Slim:\n"
           "    __slots__ = ('a', 'b')\n"
           "    def __init__(self): self.a = 3\n");
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        take(table[i].expression);
        goes_over(names, tosc_key("x"), table[i].pairs);
        goes_over(root, tosc_key("x"), table[i].pairs);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        tosc_iterator *iterator = NULL;
        take(others[i]);
        fails(TOSC_ETYPE, tosc_iterator_new(names, tosc_key("x"), &iterator));
        fails(TOSC_ETYPE, tosc_iterator_new(root, tosc_key("x"), &iterator));
        ck_assert_ptr_null(iterator);
    }
    python("x = object()\n");
    goes_over(names, tosc_key("x"), "[]");
    python("x = lambda: 0\n"
           "x.a = 1\n");
    goes_over(names, tosc_key("x"), "[('a', 1)]");
    values_stop();
}
END_TEST

START_TEST(an_iterator_does_not_see_later_changes)
{
    static const char *const containers[] = {"list(range(100))", "set(range(100))",
                                             "{i: i for i in range(100)}"};
    values_start();
    for (size_t i = 0; i < 3; i++) {
        take(containers[i]);
        for (int p = 0; p < 2; p++) {
            tosc_iterator *iterator;
            tosc_value *item;
            int64_t sum = 0;
            int64_t number;
            int count = 0;
            ok(tosc_iterator_new(place(p), tosc_key("x"), &iterator));
            while (tosc_iterator_next(iterator, NULL, &item) > 0) {
                if (count++ == 3) {
                    ok(tosc_clear(place(p), tosc_key("x")));
                }
                ok(tosc_get_int64(item, tosc_self(), &number));
                sum += number;
            }
            ck_assert_int_eq(count, 100);
            ck_assert_int_eq(sum, 4950);
            tosc_iterator_free(iterator);
        }
    }
    values_stop();
}
END_TEST

static atomic_bool changing;

static void *
change_containers(int mine)
{
    int64_t i = 0;
    char path[32];
    snprintf(path, sizeof(path), "x/d/new%d", mine);
    while (atomic_load(&changing)) {
        for (int p = 0; p < 2; p++) {
            must(tosc_append_int64(place(p), tosc_path("x/l"), 1) == 0);
            must(tosc_delete(place(p), tosc_path("x/l/0")) == 0);
            must(tosc_set_int64(place(p), tosc_path(path), i) == 0);
            must(tosc_delete(place(p), tosc_path(path)) == 0);
        }
        i++;
    }
    return NULL;
}

static void *
iterate_meanwhile(void)
{
    static const char *const paths[] = {"x/l", "x/d"};
    for (int i = 0; i < (sanitized() ? 20 : 200); i++) {
        tosc_iterator *iterator;
        tosc_value *item;
        int64_t number;
        int count = 0;
        must(tosc_iterator_new(place(i / 2 % 2), tosc_path(paths[i % 2]), &iterator)
             == 0);
        while (tosc_iterator_next(iterator, NULL, &item) > 0) {
            must(tosc_get_int64(item, tosc_self(), &number) == 0);
            count++;
        }
        must(count >= 97 && count <= 103);
        tosc_iterator_free(iterator);
    }
    atomic_store(&changing, false);
    return NULL;
}

static void *
iterate_and_change(void *number)
{
    int mine = atomic_fetch_add((atomic_int *)number, 1);
    return mine == 0 ? iterate_meanwhile() : change_containers(mine);
}

START_TEST(threads_iterate_while_others_change)
{
    static atomic_int number;
    values_start();
    python("x = {'l': [1] * 100, 'd': {i: i for i in range(100)}}\n"
           "d['x'] = x\n");
    atomic_store(&changing, true);
    in_threads(4, iterate_and_change, &number);
    values_stop();
}
END_TEST

START_TEST(what_an_iterator_has_given_is_its_own)
{
    tosc_iterator *iterator;
    tosc_value *key;
    tosc_value *item;
    tosc_value *old;
    int64_t number = -1;
    values_start();
    tosc_value *list = eval("[5, 6]");
    ok(tosc_iterator_new(list, tosc_self(), &iterator));
    gives(1, tosc_iterator_next(iterator, &key, &item));
    tosc_value *mine = tosc_value_ref(item);
    tosc_value_unref(item); /* not ours to give back */
    told("borrowed");
    ok(tosc_get_int64(item, tosc_self(), &number));
    old = item;
    gives(1, tosc_iterator_next(iterator, &key, &item));
    fails(TOSC_EINVAL, tosc_get_int64(old, tosc_self(), &number));
    told("not valid any more");
    ok(tosc_get_int64(item, tosc_self(), &number));
    ck_assert_int_eq(number, 6);
    ok(tosc_get_int64(key, tosc_self(), &number));
    ck_assert_int_eq(number, 1);
    ok(tosc_get_int64(mine, tosc_self(), &number));
    ck_assert_int_eq(number, 5);
    tosc_iterator_free(iterator);
    fails(TOSC_EINVAL, tosc_get_int64(item, tosc_self(), &number));
    fails(TOSC_EINVAL, tosc_iterator_next(iterator, &key, &item));
    tosc_iterator_free(iterator);
    ck_assert_ptr_null(tosc_iterator_free(NULL));
    tosc_value_unref(mine);
    tosc_value_unref(list);
    values_stop();
}
END_TEST

/* ---- growth ---- */

size_t handle_count(void); /* inside of the library: how many are in use */

START_TEST(many_changes_leave_nothing_behind)
{
    int64_t before = 0;
    size_t handles = 0;
    int rounds = sanitized() ? 2000 : 300000;
    values_start();
    tosc_manager *m = manager();
    take("{'n': 0, 'l': [1, 2, 3], 's': ''}");
    for (int i = 0; i < rounds + rounds / 10; i++) {
        tosc_transaction *transaction;
        tosc_iterator *iterator;
        tosc_value *key;
        tosc_value *item;
        if (i == rounds / 10) {
            before = resident_bytes();
            handles = handle_count();
        }
        must(tosc_transaction_begin(m, &transaction) == 0);
        must(tosc_set_int64(root, tosc_path("x/n"), i) == 0);
        must(tosc_set_text(root, tosc_path("x/s"), "some text", 9) == 0);
        must(tosc_append_int64(root, tosc_path("x/l"), i) == 0);
        must(tosc_delete(root, tosc_path("x/l/0")) == 0);
        must(tosc_iterator_new(root, tosc_key("x"), &iterator) == 0);
        while (tosc_iterator_next(iterator, &key, &item) > 0) {
        }
        tosc_iterator_free(iterator);
        must(tosc_transaction_rollback(transaction) == 0);
    }
    ck_assert_uint_eq(handle_count(), handles);
    ck_assert(sanitized() || resident_bytes() - before < 1 << 20);
    tosc_manager_unref(m);
    values_stop();
}
END_TEST

static Suite *
changes_suite(void)
{
    Suite *suite = suite_create("changes");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, directory_make, directory_remove);
    tcase_add_test(all, elements_of_every_sort_of_container_are_set);
    tcase_add_test(all, elements_are_deleted);
    tcase_add_test(all, what_cannot_be_stored_is_told);
    tcase_add_test(all, lists_and_sets_are_changed);
    tcase_add_test(all, changes_belong_to_the_open_transaction);
    tcase_add_test(all, a_change_outside_of_transactions_is_stored_at_once);
    tcase_add_test(all, sums_start_at_nothing_and_end_at_the_limit);
    tcase_add_test(all, ten_threads_add_exactly);
    tcase_add_test(all, four_processes_add_exactly);
    tcase_add_test(all, everything_is_iterated_over);
    tcase_add_test(all, an_iterator_does_not_see_later_changes);
    tcase_add_test(all, threads_iterate_while_others_change);
    tcase_add_test(all, what_an_iterator_has_given_is_its_own);
    tcase_add_test(all, many_changes_leave_nothing_behind);
    suite_add_tcase(suite, all);
    return suite;
}

int
main(void)
{
    return run_suite(changes_suite());
}
