/*
 * Finding elements: by key, index, item, attribute and path; and what is said if they are not
 * there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "values.h"

#include <stdio.h>

/* The int at this place of x and d['x']. */
static void
is_int_at(tosc_at at, int64_t expected)
{
    for (int p = 0; p < 2; p++) {
        tosc_value *x;
        int64_t number = -1;
        ok(tosc_get(place(p), tosc_key("x"), &x));
        ok(tosc_get_int64(x, at, &number));
        ck_assert_int_eq(number, expected);
        gives(1, tosc_contains(x, at));
        tosc_value_unref(x);
    }
}

/* Not there, in x and d['x'], and this is said. */
static void
is_missing(int status, tosc_at at, const char *words)
{
    for (int p = 0; p < 2; p++) {
        tosc_value *x;
        int64_t number = -1;
        ok(tosc_get(place(p), tosc_key("x"), &x));
        fails(status, tosc_get_int64(x, at, &number));
        told(words);
        ck_assert_int_eq(number, -1);
        if (status == TOSC_ENOTFOUND) {
            gives(0, tosc_contains(x, at));
        }
        tosc_value_unref(x);
    }
}

static void
python_classes(void)
{
    python("import collections, dataclasses\n"
           "class Point:\n"
           "    def __init__(self, x, y):\n"
           "        self.x = x\n"
           "        self.y = y\n"
           "class Slim:\n"
           "    __slots__ = ('a', 'b')\n"
           "    def __init__(self): self.a = 3\n"
           "    def __getstate__(self): return None, {'a': self.a}\n"
           "@dataclasses.dataclass\n"
           "class User:\n"
           "    name: str\n"
           "    age: int = 17\n"
           "class Odd:\n"
           "    @property\n"
           "    def good(self): return 5\n"
           "    @property\n"
           "    def broken(self): raise AttributeError('inside')\n"
           "    @property\n"
           "    def deep(self): return self.nothing\n"
           "    @property\n"
           "    def wrong(self): raise ValueError('wrong')\n"
           "class Dynamic:\n"
           "    def __getattr__(self, name):\n"
           "        if name == 'seven': return 7\n"
           "        if name == 'fault': raise ValueError('fault')\n"
           "        if name == 'other': return len.nothing\n"
           "        raise AttributeError(name)\n"
           "Pair = collections.namedtuple('Pair', 'left right')\n");
}

START_TEST(keys_and_indexes_of_builtins)
{
    values_start();
    take("{'a': 1, '': 2, chr(233): 3, 5: 4, -1: 6}");
    is_int_at(tosc_key("a"), 1);
    is_int_at(tosc_key(""), 2);
    is_int_at(tosc_key("\xc3\xa9"), 3);
    is_int_at(tosc_index(5), 4);
    is_int_at(tosc_index(-1), 6);
    is_missing(TOSC_ENOTFOUND, tosc_key("b"), "no key 'b' in the dict");
    is_missing(TOSC_ENOTFOUND, tosc_index(7), "no key 7 in the dict");
    is_missing(TOSC_ENOTFOUND, tosc_attribute("a"), "no attribute 'a' in the dict");
    take("[10, 11, 12]");
    is_int_at(tosc_index(0), 10);
    is_int_at(tosc_index(-1), 12);
    is_int_at(tosc_index(-3), 10);
    is_missing(TOSC_ENOTFOUND, tosc_index(3), "no index 3 in the list");
    is_missing(TOSC_ENOTFOUND, tosc_index(-4), "no index -4 in the list");
    is_missing(TOSC_ENOTFOUND, tosc_index(INT64_MAX), "no index");
    is_missing(TOSC_ENOTFOUND, tosc_index(INT64_MIN), "no index");
    is_missing(TOSC_ETYPE, tosc_key("0"), "");
    take("(20, 21)");
    is_int_at(tosc_index(1), 21);
    is_int_at(tosc_index(-2), 20);
    is_missing(TOSC_ENOTFOUND, tosc_index(2), "no index 2 in the tuple");
    is_missing(TOSC_ENOTFOUND, tosc_index(-3), "no index -3 in the tuple");
    take("b'AB'");
    is_int_at(tosc_index(-1), 'B');
    take("bytearray(b'AB')");
    is_int_at(tosc_index(0), 'A');
    is_missing(TOSC_ENOTFOUND, tosc_index(2), "no index 2 in the bytearray");
    take("5");
    is_missing(TOSC_ETYPE, tosc_key("a"), "an object of type int has no elements by key");
    is_missing(TOSC_ETYPE, tosc_index(0), "int");
    take("{1, 2}");
    is_missing(TOSC_ETYPE, tosc_index(1), "set");
    values_stop();
}
END_TEST

START_TEST(items_by_any_key)
{
    values_start();
    take("{(1, 'a'): 1, None: 2, 2.5: 3, b'k': 4, frozenset({1}): 5, 6: 6, True: 7}");
    tosc_value *keys = eval("[(1, 'a'), None, 2.5, b'k', frozenset({1}), 6, True]");
    int64_t count;
    ok(tosc_length(keys, tosc_self(), &count));
    for (int64_t i = 0; i < count; i++) {
        tosc_value *key;
        ok(tosc_get(keys, tosc_index(i), &key));
        is_int_at(tosc_item(key), i + 1);
        tosc_value_unref(key);
    }
    tosc_value *list = eval("[]");
    is_missing(TOSC_ETYPE, tosc_item(list), "unhashable");
    tosc_value *two = eval("2");
    is_missing(TOSC_ENOTFOUND, tosc_item(two), "no such key in the dict");
    take("[5, 6, 7]");
    is_int_at(tosc_item(two), 7);
    is_missing(TOSC_ETYPE, tosc_item(list), "has to be an int, and is of type list");
    tosc_value_unref(two);
    tosc_value_unref(list);
    tosc_value_unref(keys);
    values_stop();
}
END_TEST

START_TEST(attributes_of_objects)
{
    values_start();
    python_classes();
    take("Point(1, 2)");
    is_int_at(tosc_attribute("x"), 1);
    is_int_at(tosc_path("y"), 2);
    is_missing(TOSC_ENOTFOUND, tosc_attribute("z"), "no attribute 'z' in the Point");
    is_missing(TOSC_ENOTFOUND, tosc_path("z"), "'z': no attribute 'z' in the Point");
    is_missing(TOSC_ETYPE, tosc_key("x"), "of type Point has no elements by key");
    take("Slim()");
    is_int_at(tosc_attribute("a"), 3);
    is_missing(TOSC_ENOTFOUND, tosc_attribute("b"), "no attribute 'b' in the Slim");
    take("User('Ann')");
    is_int_at(tosc_path("age"), 17);
    take("Pair(8, 9)");
    is_int_at(tosc_path("0"), 8);
    is_int_at(tosc_path("right"), 9);
    is_int_at(tosc_index(-1), 9);
    is_missing(TOSC_ENOTFOUND, tosc_path("2"), "no index '2' in the Pair");
    take("Odd()");
    is_int_at(tosc_attribute("good"), 5);
    take("Dynamic()");
    is_int_at(tosc_attribute("seven"), 7);
    is_missing(TOSC_ENOTFOUND, tosc_attribute("eight"), "no attribute 'eight'");
    values_stop();
}
END_TEST

START_TEST(what_the_users_code_raises_is_no_missing_element)
{
    values_start();
    python_classes();
    take("Odd()");
    is_missing(TOSC_EPYTHON, tosc_attribute("broken"), "inside");
    told_type("AttributeError");
    told_traceback("in broken");
    is_missing(TOSC_EPYTHON, tosc_attribute("deep"), "nothing");
    is_missing(TOSC_EPYTHON, tosc_path("wrong"), "wrong");
    told_type("ValueError");
    take("Dynamic()");
    is_missing(TOSC_EPYTHON, tosc_attribute("fault"), "fault");
    is_missing(TOSC_EPYTHON, tosc_attribute("other"), "nothing");
    python("class Key:\n"
           "    armed = False\n"
           "    def __hash__(self): return hash('name')\n"
           "    def __eq__(self, other):\n"
           "        if Key.armed: raise KeyError('name')\n"
           "        return self is other\n"
           "x = {Key(): 1}\n"
           "Key.armed = True\n"
           "class Table:\n"
           "    def __getitem__(self, key):\n"
           "        if key == 'there': return 4\n"
           "        if key == 'broken': return {}['other']\n"
           "        raise KeyError(key)\n");
    tosc_value *value = eval("x");
    int64_t number = -1;
    fails(TOSC_EPYTHON, tosc_get_int64(value, tosc_key("name"), &number));
    told_type("KeyError");
    told_traceback("__eq__");
    fails(TOSC_EPYTHON, tosc_contains(value, tosc_key("name")));
    tosc_value_unref(value);
    python("x = Table()\n");
    value = eval("x");
    ok(tosc_get_int64(value, tosc_key("there"), &number));
    ck_assert_int_eq(number, 4);
    fails(TOSC_ENOTFOUND, tosc_get_int64(value, tosc_key("nowhere"), &number));
    fails(TOSC_EPYTHON, tosc_get_int64(value, tosc_key("broken"), &number));
    tosc_value_unref(value);
    values_stop();
}
END_TEST

START_TEST(paths_lead_through_everything)
{
    values_start();
    python_classes();
    take("{'users': {17: {'name': 1, 'tags': ['a', {'n': 2}]}, 'u': Point(3, (4, 5))},"
         " 'a/b': {'~': 6, '': {'': 7}}, '8': 8, 9: 9, '10': 10, 10: 11, -3: 12,"
         " '~1': 13, 12345678901234567890123: 14, '01': 15}");
    is_int_at(tosc_path("users/17/name"), 1);
    is_int_at(tosc_path("/users/17/name"), 1);
    is_int_at(tosc_path("users/17/tags/1/n"), 2);
    is_int_at(tosc_path("users/17/tags/-1/n"), 2);
    is_int_at(tosc_path("users/u/x"), 3);
    is_int_at(tosc_path("users/u/y/-1"), 5);
    is_int_at(tosc_path("a~1b/~0"), 6);
    is_int_at(tosc_path("a~1b//"), 7);
    is_int_at(tosc_path("8"), 8);
    is_int_at(tosc_path("9"), 9);
    is_int_at(tosc_path("10"), 10);
    is_int_at(tosc_path("-3"), 12);
    is_int_at(tosc_path("~01"), 13);
    is_int_at(tosc_path("12345678901234567890123"), 14);
    is_int_at(tosc_path("01"), 15);
    is_missing(TOSC_ENOTFOUND, tosc_path("users/18/name"),
               "'users/18/name': no key '18' in the dict at 'users'");
    is_missing(TOSC_ENOTFOUND, tosc_path("nobody/18"),
               "'nobody/18': no key 'nobody' in the dict");
    is_missing(TOSC_ENOTFOUND, tosc_path("users/17/tags/2"),
               "no index '2' in the list at 'users/17/tags'");
    is_missing(TOSC_ENOTFOUND, tosc_path("users/17/tags/first"), "no index 'first'");
    is_missing(TOSC_ENOTFOUND, tosc_path("users/17/name/0"),
               "no element '0' in the int at 'users/17/name'");
    is_missing(TOSC_ENOTFOUND, tosc_path("users/u/z/0"),
               "no attribute 'z' in the Point at 'users/u'");
    is_missing(TOSC_ENOTFOUND, tosc_path("009"), "no key '009'");
    is_missing(TOSC_ENOTFOUND, tosc_path("+9"), "no key '+9'");
    is_missing(TOSC_ENOTFOUND, tosc_path("users/"), "no key '' in the dict at 'users'");
    is_missing(TOSC_EINVAL, tosc_path("a~2b"), "~");
    is_missing(TOSC_EINVAL, tosc_path("a~"), "~");
    values_stop();
}
END_TEST

START_TEST(the_empty_path_is_the_value)
{
    values_start();
    take("{'': 1}");
    gives(TOSC_DICT, tosc_type_of(root, tosc_path("")));
    is_int_at(tosc_key(""), 1);
    is_int_at(tosc_path("/"), 1);
    is_missing(TOSC_ENOTFOUND, tosc_path("//"), "no element '' in the int at ''");
    values_stop();
}
END_TEST

START_TEST(long_paths_and_names)
{
    values_start();
    char *path = malloc(200001);
    python("x = 5\n"
           "for i in range(1000): x = {'k' * 99: x}\n"
           "d['x'] = x\n");
    for (int i = 0; i < 1000; i++) {
        memset(path + (size_t)i * 100, 'k', 99);
        path[i * 100 + 99] = '/';
    }
    path[99999] = '\0';
    is_int_at(tosc_path(path), 5);
    path[99998] = 'z';
    is_missing(TOSC_ENOTFOUND, tosc_path(path), "no key 'kkk");
    memset(path, 'n', 200000);
    path[200000] = '\0';
    python("x = d['x'] = {'n' * 200000: 6}\n");
    is_int_at(tosc_key(path), 6);
    is_int_at(tosc_path(path), 6);
    path[199999] = '\0';
    is_missing(TOSC_ENOTFOUND, tosc_key(path), "no key 'nnn");
    free(path);
    values_stop();
}
END_TEST

START_TEST(names_that_share_a_place_in_a_cache_are_kept_apart)
{
    char name[32];
    int64_t number;
    values_start();
    python("x = d['x'] = {f'name{i}': i for i in range(5000)}\n");
    tosc_value *x = eval("d['x']");
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 5000; i++) {
            snprintf(name, sizeof(name), "name%d", i);
            must(tosc_get_int64(x, tosc_key(name), &number) == 0 && number == i);
        }
    }
    tosc_value_unref(x);
    values_stop();
}
END_TEST

START_TEST(subclasses_of_builtins)
{
    values_start();
    python("import collections\n"
           "class Loud(dict):\n"
           "    def __getitem__(self, key): return super().__getitem__(key.lower())\n");
    take("collections.OrderedDict(a=1, b={'c': 2})");
    is_int_at(tosc_key("a"), 1);
    is_int_at(tosc_path("b/c"), 2);
    is_missing(TOSC_ENOTFOUND, tosc_key("z"), "no key 'z' in the ");
    take("collections.Counter('aab')");
    is_int_at(tosc_key("a"), 2);
    take("collections.deque([5, 6, {'k': 7}])");
    is_int_at(tosc_index(-2), 6);
    is_int_at(tosc_path("2/k"), 7);
    is_missing(TOSC_ENOTFOUND, tosc_index(3), "no index 3 in the ");
    take("collections.UserDict(a=3)");
    is_int_at(tosc_key("a"), 3);
    is_int_at(tosc_path("a"), 3);
    is_missing(TOSC_ENOTFOUND, tosc_key("z"), "no key 'z' in the UserDict");
    python("x = Loud(k=4)\n");
    tosc_value *x = eval("x");
    int64_t number;
    ok(tosc_get_int64(x, tosc_key("K"), &number));
    ck_assert_int_eq(number, 4);
    tosc_value_unref(x);
    values_stop();
}
END_TEST

START_TEST(a_wrong_type_is_told_with_its_place)
{
    char *text = NULL;
    const char *borrowed = NULL;
    void *bytes = NULL;
    bool truth = false;
    tosc_scope scope;
    values_start();
    python("class Point: pass\n"
           "p = Point()\n"
           "p.x = None\n");
    take("[p, 2.5]");
    tosc_value *x = eval("d['x']");
    tosc_value *zero = eval("0");
    fails(TOSC_ETYPE, tosc_get_text(x, tosc_index(1), &text, NULL));
    told("the element 1 is of type float, not a text");
    fails(TOSC_ETYPE, tosc_get_text(x, tosc_item(zero), &text, NULL));
    told("the element is of type Point, not a text");
    fails(TOSC_ETYPE, tosc_get_bytes(x, tosc_path("0/x"), &bytes, NULL));
    told("'0/x' is None, not bytes");
    fails(TOSC_ETYPE, tosc_get_bytes(zero, tosc_self(), &bytes, NULL));
    told("the value is of type int, not bytes");
    ok(tosc_scope_enter(&scope));
    fails(TOSC_ETYPE, tosc_borrow_text(x, tosc_self(), &borrowed, NULL));
    told("the value is of type list, not a text");
    tosc_value *point;
    ok(tosc_borrow(x, tosc_index(0), &point));
    fails(TOSC_ETYPE, tosc_get_bool(point, tosc_attribute("x"), &truth));
    told("the attribute 'x' is None, not a bool");
    ok(tosc_scope_leave(&scope));
    ck_assert(text == NULL && borrowed == NULL && bytes == NULL && !truth);
    tosc_value_unref(zero);
    tosc_value_unref(x);
    values_stop();
}
END_TEST

START_TEST(parts_of_opaque_values_are_values_too)
{
    void *bytes;
    size_t size;
    values_start();
    take("__import__('collections').deque([[1, {'k': 2}], bytearray(b'abc'), {3}])");
    is_int_at(tosc_path("0/1/k"), 2);
    is_int_at(tosc_path("0/-2"), 1);
    for (int p = 0; p < 2; p++) {
        gives(TOSC_LIST, tosc_type_of(place(p), tosc_path("x/0")));
        gives(TOSC_BYTES, tosc_type_of(place(p), tosc_path("x/1")));
        gives(TOSC_SET, tosc_type_of(place(p), tosc_path("x/2")));
        ok(tosc_get_bytes(place(p), tosc_path("x/1"), &bytes, &size));
        ck_assert(size == 3 && memcmp(bytes, "abc", 3) == 0);
        free(bytes);
        ok(tosc_append_int64(place(p), tosc_path("x/0"), 7));
        ok(tosc_set_int64(place(p), tosc_path("x/0/1/k"), 8));
    }
    both("list(x) == [[1, {'k': 8}, 7], bytearray(b'abc'), {3}]");
    fails(TOSC_ENOTFOUND, tosc_set_int64(root, tosc_path("x/0/5"), 1));
    told("no index '5' in the list at 'x/0'");
    values_stop();
}
END_TEST

START_TEST(asking_does_not_make_an_element_nor_a_message)
{
    values_start();
    take("collections.defaultdict(list, {1: []}) if (collections := "
         "__import__('collections')) else 0");
    fails(TOSC_EINVAL, tosc_value_new_bigint("x", &(tosc_value *){NULL}));
    for (int p = 0; p < 2; p++) {
        tosc_value *x;
        ok(tosc_get(place(p), tosc_key("x"), &x));
        gives(0, tosc_contains(x, tosc_key("new")));
        gives(1, tosc_contains(x, tosc_index(1)));
        gives(1, tosc_contains(x, tosc_self()));
        gives(0, tosc_contains(place(p), tosc_path("nothing/at/all")));
        gives(0, tosc_contains(place(p), tosc_path("x/1/0")));
        gives(0, tosc_contains(place(p), tosc_key("nothing")));
        gives(0, tosc_contains(place(p), tosc_attribute("nothing")));
        told("digits");
        gives(TOSC_LIST, tosc_type_of(x, tosc_path("1")));
        gives(TOSC_DICT, tosc_type_of(x, tosc_self()));
        tosc_value_unref(x);
    }
    both("len(x) == 1");
    values_stop();
}
END_TEST

static Suite *
elements_suite(void)
{
    Suite *suite = suite_create("elements");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, keys_and_indexes_of_builtins);
    tcase_add_test(all, items_by_any_key);
    tcase_add_test(all, attributes_of_objects);
    tcase_add_test(all, what_the_users_code_raises_is_no_missing_element);
    tcase_add_test(all, paths_lead_through_everything);
    tcase_add_test(all, the_empty_path_is_the_value);
    tcase_add_test(all, long_paths_and_names);
    tcase_add_test(all, names_that_share_a_place_in_a_cache_are_kept_apart);
    tcase_add_test(all, subclasses_of_builtins);
    tcase_add_test(all, a_wrong_type_is_told_with_its_place);
    tcase_add_test(all, parts_of_opaque_values_are_values_too);
    tcase_add_test(all, asking_does_not_make_an_element_nor_a_message);
    suite_add_tcase(suite, all);
    return suite;
}

int
main(void)
{
    return run_suite(elements_suite());
}
