/*
 * Values between C and Python: every type both ways, plain and stored; finding elements.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "values.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

/* ---- numbers ---- */

START_TEST(integers_come_through_both_ways)
{
    static const int64_t numbers[] = {
        0,         1,         -1,        255,       256,       -5,        -6,
        INT32_MAX, INT32_MIN, 1LL << 30, 1LL << 60, INT64_MAX, INT64_MIN, INT64_MIN + 1};
    char expression[200];
    values_start();
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        tosc_value *value;
        int64_t back = 0;
        ok(tosc_value_new_int64(numbers[i], &value));
        give(value);
        snprintf(expression, sizeof(expression), "type(x) is int and x == %lld",
                 (long long)numbers[i]);
        both(expression);
        for (int p = 0; p < 2; p++) {
            ok(tosc_get_int64(place(p), tosc_key("x"), &back));
            ck_assert_int_eq(back, numbers[i]);
            ok(tosc_set_int64(place(p), tosc_key("x"), numbers[i]));
        }
        both(expression);
    }
    values_stop();
}
END_TEST

START_TEST(unsigned_integers_come_through_both_ways)
{
    tosc_value *value;
    uint64_t back = 7;
    int64_t narrow = 7;
    values_start();
    ok(tosc_value_new_uint64(UINT64_MAX, &value));
    give(value);
    both("x == 2**64 - 1");
    for (int p = 0; p < 2; p++) {
        ok(tosc_get_uint64(place(p), tosc_key("x"), &back));
        ck_assert(back == UINT64_MAX);
        fails(TOSC_ERANGE, tosc_get_int64(place(p), tosc_key("x"), &narrow));
        told("'x'");
        ck_assert_int_eq(narrow, 7);
    }
    take("-1");
    fails(TOSC_ERANGE, tosc_get_uint64(root, tosc_key("x"), &back));
    take("2**64");
    fails(TOSC_ERANGE, tosc_get_uint64(root, tosc_key("x"), &back));
    ck_assert(back == UINT64_MAX);
    values_stop();
}
END_TEST

START_TEST(integers_of_any_size_come_through_as_digits)
{
    char *digits = malloc(20002);
    tosc_value *value;
    char *back;
    values_start();
    memset(digits, '7', 20001);
    digits[0] = '-';
    digits[20001] = '\0';
    ok(tosc_value_new_bigint(digits, &value));
    give(value);
    both("x == -((10**20000 - 1) // 9 * 7)");
    for (int p = 0; p < 2; p++) {
        ok(tosc_get_bigint(place(p), tosc_key("x"), &back));
        ck_assert_str_eq(back, digits);
        free(back);
    }
    ck_assert(python_true("__import__('sys').get_int_max_str_digits() == 4300"));
    ok(tosc_value_new_bigint("+12", &value));
    give(value);
    both("x == 12");
    free(digits);
    values_stop();
}
END_TEST

START_TEST(digits_that_are_no_integer_are_refused)
{
    static const char *const bad[] = {"",   "-",    "+",   "1_000", " 1",
                                      "1 ", "0x10", "1.0", "--1",   "\xd9\xa1"};
    tosc_value *value = NULL;
    values_start();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        fails(TOSC_EINVAL, tosc_value_new_bigint(bad[i], &value));
        told("digits");
    }
    ck_assert_ptr_null(value);
    values_stop();
}
END_TEST

START_TEST(doubles_come_through_both_ways)
{
    static const double numbers[] = {0.0,       -0.0,    1.5,      -2.25,
                                     DBL_MAX,   DBL_MIN, 5e-324,   INFINITY,
                                     -INFINITY, NAN,     1.0 / 3.0};
    values_start();
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        tosc_value *value;
        double back;
        char expression[100];
        ok(tosc_value_new_double(numbers[i], &value));
        give(value);
        snprintf(expression, sizeof(expression),
                 "type(x) is float and repr(x) == repr(float('%a'))", numbers[i]);
        if (isfinite(numbers[i])) {
            snprintf(expression, sizeof(expression),
                     "type(x) is float and x.hex() == float.fromhex('%a').hex()",
                     numbers[i]);
        }
        both(expression);
        for (int p = 0; p < 2; p++) {
            back = 7;
            ok(tosc_get_double(place(p), tosc_key("x"), &back));
            ck_assert(memcmp(&back, &numbers[i], sizeof(back)) == 0);
            ok(tosc_set_double(place(p), tosc_key("x"), numbers[i]));
        }
        both(expression);
    }
    values_stop();
}
END_TEST

START_TEST(an_int_is_read_as_a_double_where_nothing_is_lost)
{
    double back = 7;
    values_start();
    take("2**53");
    ok(tosc_get_double(root, tosc_key("x"), &back));
    ck_assert(back == 9007199254740992.0);
    take("2**70");
    ok(tosc_get_double(root, tosc_key("x"), &back));
    back = 7;
    take("2**53 + 1");
    fails(TOSC_ERANGE, tosc_get_double(root, tosc_key("x"), &back));
    take("10**400");
    fails(TOSC_ERANGE, tosc_get_double(root, tosc_key("x"), &back));
    take("True");
    fails(TOSC_ETYPE, tosc_get_double(root, tosc_key("x"), &back));
    take("'1.5'");
    fails(TOSC_ETYPE, tosc_get_double(root, tosc_key("x"), &back));
    told("the element 'x' is of type str, not a float");
    ck_assert(back == 7);
    values_stop();
}
END_TEST

START_TEST(a_bool_is_no_int_and_an_int_no_bool)
{
    bool truth = true;
    int64_t number = 7;
    uint64_t natural = 7;
    char *digits = NULL;
    tosc_value *value;
    values_start();
    ok(tosc_value_new_bool(false, &value));
    give(value);
    both("x is False");
    ok(tosc_get_bool(root, tosc_key("x"), &truth));
    ck_assert(!truth);
    ok(tosc_set_bool(root, tosc_key("x"), true));
    ck_assert(python_true("d['x'] is True"));
    fails(TOSC_ETYPE, tosc_get_int64(root, tosc_key("x"), &number));
    fails(TOSC_ETYPE, tosc_get_uint64(root, tosc_key("x"), &natural));
    fails(TOSC_ETYPE, tosc_get_bigint(root, tosc_key("x"), &digits));
    take("1");
    fails(TOSC_ETYPE, tosc_get_bool(root, tosc_key("x"), &truth));
    told("of type int, not a bool");
    ok(tosc_set_null(root, tosc_key("x")));
    ck_assert(python_true("d['x'] is None"));
    fails(TOSC_ETYPE, tosc_get_bool(root, tosc_key("x"), &truth));
    told("is None, not a bool");
    ck_assert(!truth && number == 7 && natural == 7 && digits == NULL);
    values_stop();
}
END_TEST

/* ---- texts and bytes ---- */

START_TEST(texts_come_through_both_ways)
{
    static const struct {
        const char *text;
        size_t size;
        const char *expression;
    } texts[] = {
        {"", 0, "x == ''"},
        {"plain", TOSC_TEXT_END, "x == 'plain'"},
        {"cut off", 3, "x == 'cut'"},
        {"\xc3\xa9", 2, "x == chr(233)"},
        {"\xf0\x9f\x98\x80!", 5, "x == chr(0x1f600) + '!'"},
        {"\xe4\xb8\xad\xe6\x96\x87", TOSC_TEXT_END, "x == chr(0x4e2d) + chr(0x6587)"},
        {"a\0b\0", 4, "x == 'a' + chr(0) + 'b' + chr(0)"},
    };
    values_start();
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const char *text = texts[i].text;
        size_t size = texts[i].size == TOSC_TEXT_END ? strlen(text) : texts[i].size;
        tosc_value *value;
        ok(tosc_value_new_text(text, texts[i].size, &value));
        give(value);
        both(texts[i].expression);
        for (int p = 0; p < 2; p++) {
            char *copy;
            const char *borrowed;
            size_t copy_size;
            size_t borrowed_size;
            tosc_scope scope;
            ok(tosc_get_text(place(p), tosc_key("x"), &copy, &copy_size));
            ok(tosc_scope_enter(&scope));
            ok(tosc_borrow_text(place(p), tosc_key("x"), &borrowed, &borrowed_size));
            ck_assert_uint_eq(copy_size, size);
            ck_assert_uint_eq(borrowed_size, size);
            ck_assert(memcmp(copy, text, size) == 0 && copy[size] == '\0');
            ck_assert(memcmp(borrowed, text, size) == 0 && borrowed[size] == '\0');
            ok(tosc_scope_leave(&scope));
            free(copy);
            ok(tosc_set_text(place(p), tosc_key("x"), text, texts[i].size));
        }
        both(texts[i].expression);
    }
    values_stop();
}
END_TEST

START_TEST(what_is_not_utf8_is_refused)
{
    static const char *const bad[] = {"\xff", "\xc3", "\xed\xa0\x80", "\xc0\x80",
                                      "ok\xf8\x88\x80\x80\x80"};
    tosc_value *value = NULL;
    char *back = NULL;
    values_start();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        fails(TOSC_EINVAL, tosc_value_new_text(bad[i], TOSC_TEXT_END, &value));
        told("text is not UTF-8");
        fails(TOSC_EINVAL, tosc_set_text(root, tosc_key("y"), bad[i], TOSC_TEXT_END));
        fails(TOSC_EINVAL, tosc_get(root, tosc_key(bad[i]), &value));
        told("not UTF-8");
        fails(TOSC_EINVAL, tosc_get(root, tosc_path(bad[i]), &value));
    }
    ck_assert_ptr_null(value);
    ck_assert(python_true("d == {}"));
    /* And the other way round: what Python has and UTF-8 has not. */
    take("'a' + chr(0xd800)");
    tosc_scope scope;
    const char *borrowed = NULL;
    fails(TOSC_ETYPE, tosc_get_text(root, tosc_key("x"), &back, NULL));
    told("surrogates");
    ok(tosc_scope_enter(&scope));
    fails(TOSC_ETYPE, tosc_borrow_text(root, tosc_key("x"), &borrowed, NULL));
    told("surrogates");
    ok(tosc_scope_leave(&scope));
    ck_assert(back == NULL && borrowed == NULL);
    ok(tosc_host_eval("d['x']", &value));
    ok(tosc_value_describe(value, &back));
    ck_assert_str_eq(back, "'a\\ud800'");
    free(back);
    tosc_value_unref(value);
    values_stop();
}
END_TEST

START_TEST(bytes_come_through_both_ways)
{
    unsigned char all[256];
    tosc_value *value;
    values_start();
    for (int i = 0; i < 256; i++) {
        all[i] = (unsigned char)i;
    }
    for (int empty = 0; empty < 2; empty++) {
        size_t size = empty ? 0 : sizeof(all);
        ok(tosc_value_new_bytes(empty ? NULL : all, size, &value));
        give(value);
        both(empty ? "x == b'' and type(x) is bytes"
                   : "x == bytes(range(256)) and type(x) is bytes");
        for (int p = 0; p < 2; p++) {
            void *copy;
            const void *borrowed;
            size_t copy_size = 7;
            size_t borrowed_size = 7;
            tosc_scope scope;
            ok(tosc_get_bytes(place(p), tosc_key("x"), &copy, &copy_size));
            ok(tosc_scope_enter(&scope));
            ok(tosc_borrow_bytes(place(p), tosc_key("x"), &borrowed, &borrowed_size));
            ck_assert(copy_size == size && borrowed_size == size);
            ck_assert(memcmp(copy, all, size) == 0 && memcmp(borrowed, all, size) == 0);
            ok(tosc_scope_leave(&scope));
            free(copy);
        }
        ok(tosc_set_bytes(root, tosc_key("x"), all, size));
    }
    values_stop();
}
END_TEST

START_TEST(borrowed_bytes_stay_as_they_were)
{
    tosc_scope scope;
    values_start();
    take("bytearray(b'before')");
    ck_assert(python_true("type(d['x']) is tosc.DByteArray and type(x) is bytearray"));
    ok(tosc_scope_enter(&scope));
    for (int p = 0; p < 2; p++) {
        const void *borrowed;
        size_t size;
        ok(tosc_borrow_bytes(place(p), tosc_key("x"), &borrowed, &size));
        python("x[:] = b'after' * 1000\n"
               "d['x'][:] = b'after' * 1000\n");
        ck_assert(size == 6 && memcmp(borrowed, "before", 6) == 0);
        python("x[:] = b'before'\nd['x'][:] = b'before'\n");
    }
    ok(tosc_scope_leave(&scope));
    values_stop();
}
END_TEST

/* ---- containers ---- */

START_TEST(containers_are_built_and_stored)
{
    tosc_value *list;
    tosc_value *dict;
    tosc_value *set;
    tosc_value *tuple;
    tosc_value *member;
    values_start();
    ok(tosc_value_new_list(&list));
    ok(tosc_value_new_dict(&dict));
    ok(tosc_value_new_set(&set));
    ok(tosc_append_int64(list, tosc_self(), 1));
    ok(tosc_append_double(list, tosc_self(), 2.5));
    ok(tosc_append_text(list, tosc_self(), "three", TOSC_TEXT_END));
    ok(tosc_value_new_text("m", 1, &member));
    ok(tosc_member_add(set, tosc_self(), member));
    tosc_value *const items[] = {member, list, member};
    ok(tosc_value_new_tuple(items, 3, &tuple));
    ok(tosc_set(dict, tosc_key("list"), list));
    ok(tosc_set(dict, tosc_key("set"), set));
    ok(tosc_set(dict, tosc_index(5), tuple));
    tosc_value_unref(tuple);
    tosc_value_unref(member);
    tosc_value_unref(set);
    give(dict);
    both("x == {'list': [1, 2.5, 'three'], 'set': {'m'}, 5: ('m', [1, 2.5, 'three'], "
         "'m')}");
    /* What is stored is a copy. */
    ok(tosc_append_int64(list, tosc_self(), 4));
    ck_assert(python_true("len(x['list']) == 4 and len(d['x']['list']) == 3"));
    ck_assert(python_true("m.is_linked(d['x']['list'])"));
    tosc_value_unref(list);
    ok(tosc_value_new_tuple(NULL, 0, &tuple));
    give(tuple);
    both("x == () and type(x) is tuple");
    values_stop();
}
END_TEST

START_TEST(the_type_of_everything_is_told)
{
    static const struct {
        const char *expression;
        int type;
    } table[] = {
        {"None", TOSC_NULL},
        {"True", TOSC_BOOL},
        {"2**100", TOSC_INT},
        {"1.5", TOSC_DOUBLE},
        {"'a'", TOSC_TEXT},
        {"b'a'", TOSC_BYTES},
        {"bytearray(b'a')", TOSC_BYTES},
        {"[1]", TOSC_LIST},
        {"(1, [2])", TOSC_TUPLE},
        {"__import__('time').gmtime(0)", TOSC_TUPLE},
        {"{1: 2}", TOSC_DICT},
        {"{1}", TOSC_SET},
        {"frozenset({1})", TOSC_SET},
        {"collections.OrderedDict(a=1)", TOSC_DICT},
        {"collections.Counter('ab')", TOSC_DICT},
        {"collections.deque([1])", TOSC_OBJECT},
        {"Point()", TOSC_OBJECT},
        {"1j", TOSC_OBJECT},
        {"Color.RED", TOSC_INT},
        {"__import__('datetime').date(2020, 1, 1)", TOSC_OBJECT},
    };
    values_start();
    python("import collections, enum\n"
           "class Point: pass\n"
           "class Color(enum.IntEnum):\n"
           "    RED = 1\n");
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        take(table[i].expression);
        gives(table[i].type, tosc_type_of(names, tosc_key("x")));
        gives(table[i].type, tosc_type_of(root, tosc_path("x")));
    }
    gives(TOSC_DICT, tosc_type_of(root, tosc_self()));
    fails(TOSC_ENOTFOUND, tosc_type_of(root, tosc_key("y")));
    values_stop();
}
END_TEST

START_TEST(lengths_are_told)
{
    static const struct {
        const char *expression;
        int64_t length;
    } table[] = {
        {"'a' + chr(233) + chr(0x1f600)", 3},
        {"b'abc'", 3},
        {"bytearray(4)", 4},
        {"[1, 2]", 2},
        {"(1,)", 1},
        {"{1: 2, 3: 4}", 2},
        {"{1, 2, 3}", 3},
        {"frozenset()", 0},
        {"collections.deque([1, 2])", 2},
        {"Sized()", 42},
    };
    static const char *const without[] = {"5", "1.5", "None", "Point()", "True"};
    int64_t length;
    values_start();
    python("import collections\n"
           "class Point: pass\n"
           "class Sized:\n"
           "    def __len__(self): return 42\n");
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        take(table[i].expression);
        for (int p = 0; p < 2; p++) {
            ok(tosc_length(place(p), tosc_key("x"), &length));
            ck_assert_int_eq(length, table[i].length);
        }
    }
    length = 7;
    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++) {
        take(without[i]);
        fails(TOSC_ETYPE, tosc_length(names, tosc_key("x"), &length));
        fails(TOSC_ETYPE, tosc_length(root, tosc_key("x"), &length));
    }
    ck_assert_int_eq(length, 7);
    values_stop();
}
END_TEST

START_TEST(values_are_compared_and_described)
{
    values_start();
    tosc_value *plain = eval("{'a': [1, 2]}");
    tosc_value *bad = NULL;
    char *words;
    take("{'a': [1, 2]}");
    tosc_value *stored = eval("d['x']");
    gives(1, tosc_value_equal(plain, stored));
    gives(1, tosc_value_equal(stored, plain));
    gives(0, tosc_value_equal(plain, root));
    ok(tosc_value_describe(stored, &words));
    ck_assert_str_eq(words, "{'a': [1, 2]}");
    free(words);
    python("class Bad:\n"
           "    def __eq__(self, other): raise ValueError('no')\n"
           "    def __repr__(self): raise ValueError('not at all')\n");
    bad = eval("Bad()");
    words = NULL;
    fails(TOSC_EPYTHON, tosc_value_equal(bad, plain));
    told_type("ValueError");
    fails(TOSC_EPYTHON, tosc_value_describe(bad, &words));
    told("not at all");
    ck_assert_ptr_null(words);
    tosc_value_unref(bad);
    tosc_value_unref(plain);
    tosc_value_unref(stored);
    values_stop();
}
END_TEST

/* ---- JSON ---- */

START_TEST(json_comes_through_both_ways)
{
    static const char text[] =
        "{\"a\": [1, 2.5, null, true, \"\xc3\xa9\\u0000\"], \"b\": "
        "{\"n\": 123456789012345678901234567890}}";
    tosc_value *value;
    char *back;
    size_t size;
    values_start();
    ok(tosc_value_new_json(text, TOSC_TEXT_END, &value));
    give(value);
    both("x == {'a': [1, 2.5, None, True, chr(233) + chr(0)],"
         " 'b': {'n': 123456789012345678901234567890}}");
    for (int p = 0; p < 2; p++) {
        ok(tosc_get_json(place(p), tosc_key("x"), &back, &size));
        ck_assert_str_eq(back, text);
        ck_assert_uint_eq(size, strlen(text));
        free(back);
    }
    take("{1: (2, 3), None: 0.5}");
    ok(tosc_get_json(root, tosc_path("x"), &back, NULL));
    ck_assert_str_eq(back, "{\"1\": [2, 3], \"null\": 0.5}");
    free(back);
    values_stop();
}
END_TEST

START_TEST(what_json_has_not_is_named_with_its_path)
{
    static const struct {
        const char *expression;
        const char *words;
    } table[] = {
        {"{'a': [1, {2}]}", "set, at 'a/1'"},
        {"{'a': b'x'}", "bytes, at 'a'"},
        {"[0, [bytearray()]]", "bytearray, at '1/0'"},
        {"{'p': Point()}", "Point, at 'p'"},
        {"[float('nan')]", "no finite number, at '0'"},
        {"[1, float('inf')]", "no finite number, at '1'"},
        {"{'a': {(1, 2): 3}}", "a key that is no text or number, at 'a/tuple'"},
        {"{1}", "set, at ''"},
    };
    char *back = NULL;
    tosc_value *value = NULL;
    values_start();
    python("class Point: pass\n");
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        take(table[i].expression);
        for (int p = 0; p < 2; p++) {
            fails(TOSC_ETYPE, tosc_get_json(place(p), tosc_key("x"), &back, NULL));
            told(table[i].words);
        }
    }
    take("[]");
    python("d['x'].append(d['x'])\n");
    fails(TOSC_ETYPE, tosc_get_json(root, tosc_key("x"), &back, NULL));
    told("ircular");
    python("d['x'].append(d['x'])\n"); /* two ways at each step: it must not try all */
    fails(TOSC_ETYPE, tosc_get_json(root, tosc_key("x"), &back, NULL));
    told("ircular");
    fails(TOSC_EINVAL, tosc_value_new_json("{\"a\": ", TOSC_TEXT_END, &value));
    told("char 6");
    fails(TOSC_EINVAL, tosc_value_new_json("\"\xff\"", TOSC_TEXT_END, &value));
    fails(TOSC_EINVAL, tosc_value_new_json("", 0, &value));
    ck_assert(back == NULL && value == NULL);
    values_stop();
}
END_TEST

START_TEST(numbers_that_json_has_not_are_refused)
{
    static const char *const texts[] = {
        "{\"a\": [1, NaN]}",   "{\"a\": [1, Infinity]}", "{\"a\": [1, -Infinity]}",
        "{\"a\": [1, 1e999]}", "{\"a\": [1, -1e999]}",
    };
    tosc_value *value = NULL;
    values_start();
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        fails(TOSC_EINVAL, tosc_value_new_json(texts[i], TOSC_TEXT_END, &value));
        told("no NaN or Infinity");
        told("'a/1'");
    }
    fails(TOSC_EINVAL, tosc_value_new_json("NaN", 3, &value));
    ck_assert_ptr_null(value);
    ok(tosc_value_new_json("[1e308, -1e-999]", TOSC_TEXT_END, &value));
    give(value);
    both("x == [1e308, 0]");
    values_stop();
}
END_TEST

/* `count` times `open`, the core, and as often `close`. */
static char *
nested(size_t count, char open, const char *core, char close)
{
    size_t size = strlen(core);
    char *text = malloc(2 * count + size + 1);
    must(text != NULL);
    memset(text, open, count);
    memcpy(text + count, core, size);
    memset(text + count + size, close, count);
    text[2 * count + size] = '\0';
    return text;
}

START_TEST(json_that_python_has_no_room_for_is_refused)
{
    char *back = NULL;
    tosc_value *value = NULL;
    char *digits = nested(2500, '7', "", '7');
    char *deep = nested(100000, '[', "", ']');
    values_start();
    fails(TOSC_EINVAL, tosc_value_new_json(digits, TOSC_TEXT_END, &value));
    told("tosc_value_new_bigint()");
    fails(TOSC_EINVAL, tosc_value_new_json(deep, TOSC_TEXT_END, &value));
    told("more deeply");
    ck_assert_ptr_null(value);
    take("{'a': [1, 10 ** 5000]}");
    for (int p = 0; p < 2; p++) {
        fails(TOSC_ERANGE, tosc_get_json(place(p), tosc_key("x"), &back, NULL));
        told("'a/1'");
        told("tosc_get_bigint()");
    }
    python("deep = []\n"
           "for i in range(100000): deep = [deep]\n");
    value = eval("deep");
    fails(TOSC_ERANGE, tosc_get_json(value, tosc_self(), &back, NULL));
    told("more deeply");
    tosc_value_unref(value);
    ck_assert_ptr_null(back);
    free(digits);
    free(deep);
    values_stop();
}
END_TEST

/* ---- growth ---- */

size_t handle_count(void); /* inside of the library: how many are in use */

START_TEST(a_million_readings_leave_nothing_behind)
{
    values_start();
    take("{'n': 1, 'text': chr(233) * 50, 'l': [1, 2, 3], 'deep': {'er': {'n': 5}}}");
    tosc_value *x = eval("d['x']");
    int rounds = sanitized() ? 20000 : 1000000;
    int64_t before = 0;
    size_t handles = 0;
    for (int i = 0; i < rounds + rounds / 10; i++) {
        tosc_scope scope;
        tosc_value *value;
        tosc_value *borrowed;
        const char *text;
        char *copy;
        int64_t number;
        if (i == rounds / 10) {
            before = resident_bytes();
            handles = handle_count();
        }
        must(tosc_scope_enter(&scope) == 0);
        must(tosc_get(x, tosc_key("l"), &value) == 0);
        must(tosc_borrow(x, tosc_key("deep"), &borrowed) == 0);
        must(tosc_get_int64(borrowed, tosc_path("er/n"), &number) == 0 && number == 5);
        must(tosc_borrow_text(x, tosc_key("text"), &text, NULL) == 0);
        must(tosc_get_text(x, tosc_key("text"), &copy, NULL) == 0);
        must(strcmp(text, copy) == 0);
        must(tosc_get_int64(x, tosc_path("nothing/here"), &number) == TOSC_ENOTFOUND);
        must(tosc_get_int64(value, tosc_index(2), &number) == 0 && number == 3);
        tosc_value_unref(value);
        must(tosc_scope_leave(&scope) == 0);
        free(copy);
    }
    ck_assert_uint_eq(handle_count(), handles);
    ck_assert(sanitized() || resident_bytes() - before < 1 << 20);
    tosc_value_unref(x);
    values_stop();
}
END_TEST

START_TEST(many_names_do_not_pile_up)
{
    char name[300];
    int64_t before = 0;
    int rounds = sanitized() ? 20000 : 500000;
    values_start();
    for (int i = 0; i < rounds; i++) {
        snprintf(name, sizeof(name), "%0*d", 5 + i % 200, i);
        must(tosc_contains(root, tosc_key(name)) == 0);
        if (i == rounds / 10) {
            before = resident_bytes();
        }
    }
    ck_assert(sanitized() || resident_bytes() - before < 1 << 20);
    values_stop();
}
END_TEST

static Suite *
values_suite(void)
{
    Suite *suite = suite_create("values");
    TCase *types = tcase_create("types");
    TCase *growth = tcase_create("growth");
    tcase_set_timeout(types, 60);
    tcase_set_timeout(growth, 300);
    tcase_add_test(types, integers_come_through_both_ways);
    tcase_add_test(types, unsigned_integers_come_through_both_ways);
    tcase_add_test(types, integers_of_any_size_come_through_as_digits);
    tcase_add_test(types, digits_that_are_no_integer_are_refused);
    tcase_add_test(types, doubles_come_through_both_ways);
    tcase_add_test(types, an_int_is_read_as_a_double_where_nothing_is_lost);
    tcase_add_test(types, a_bool_is_no_int_and_an_int_no_bool);
    tcase_add_test(types, texts_come_through_both_ways);
    tcase_add_test(types, what_is_not_utf8_is_refused);
    tcase_add_test(types, bytes_come_through_both_ways);
    tcase_add_test(types, borrowed_bytes_stay_as_they_were);
    tcase_add_test(types, containers_are_built_and_stored);
    tcase_add_test(types, the_type_of_everything_is_told);
    tcase_add_test(types, lengths_are_told);
    tcase_add_test(types, values_are_compared_and_described);
    tcase_add_test(types, json_comes_through_both_ways);
    tcase_add_test(types, what_json_has_not_is_named_with_its_path);
    tcase_add_test(types, numbers_that_json_has_not_are_refused);
    tcase_add_test(types, json_that_python_has_no_room_for_is_refused);
    tcase_add_test(growth, a_million_readings_leave_nothing_behind);
    tcase_add_test(growth, many_names_do_not_pile_up);
    suite_add_tcase(suite, types);
    suite_add_tcase(suite, growth);
    return suite;
}

int
main(void)
{
    return run_suite(values_suite());
}
