/*
 * Misuse of the functions for values: always a status and a message, never a crash, and the
 * outputs stay as they were.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "values.h"

#include <tosc/manager.h>

#include <stdio.h>

/* Outputs of all sorts, which must not be touched. */
static union {
    unsigned char bytes[64];
    tosc_value *value;
    tosc_iterator *iterator;
    bool truth;
    int64_t number;
    uint64_t natural;
    double real;
    char *text;
    const char *borrowed_text;
    void *memory;
    const void *borrowed_memory;
} out;
static size_t out_size;
static tosc_value *one; /* a good value */

#define CALLS(X) \
    X(get, tosc_get(v, at, &out.value)) \
    X(borrow, tosc_borrow(v, at, &out.value)) \
    X(get_bool, tosc_get_bool(v, at, &out.truth)) \
    X(get_int64, tosc_get_int64(v, at, &out.number)) \
    X(get_uint64, tosc_get_uint64(v, at, &out.natural)) \
    X(get_double, tosc_get_double(v, at, &out.real)) \
    X(get_bigint, tosc_get_bigint(v, at, &out.text)) \
    X(get_text, tosc_get_text(v, at, &out.text, &out_size)) \
    X(get_bytes, tosc_get_bytes(v, at, &out.memory, &out_size)) \
    X(borrow_text, tosc_borrow_text(v, at, &out.borrowed_text, &out_size)) \
    X(borrow_bytes, tosc_borrow_bytes(v, at, &out.borrowed_memory, &out_size)) \
    X(get_json, tosc_get_json(v, at, &out.text, &out_size)) \
    X(type_of, tosc_type_of(v, at)) \
    X(contains, tosc_contains(v, at)) \
    X(length, tosc_length(v, at, &out.number)) \
    X(set, tosc_set(v, at, one)) \
    X(set_null, tosc_set_null(v, at)) \
    X(set_bool, tosc_set_bool(v, at, true)) \
    X(set_int64, tosc_set_int64(v, at, 1)) \
    X(set_double, tosc_set_double(v, at, 1)) \
    X(set_text, tosc_set_text(v, at, "a", 1)) \
    X(set_bytes, tosc_set_bytes(v, at, "a", 1)) \
    X(add_int64, tosc_add_int64(v, at, 1, &out.number)) \
    X(delete, tosc_delete(v, at)) \
    X(append, tosc_append(v, at, one)) \
    X(append_int64, tosc_append_int64(v, at, 1)) \
    X(append_double, tosc_append_double(v, at, 1)) \
    X(append_text, tosc_append_text(v, at, "a", 1)) \
    X(insert, tosc_insert(v, at, 0, one)) \
    X(member_add, tosc_member_add(v, at, one)) \
    X(member_discard, tosc_member_discard(v, at, one)) \
    X(member_has, tosc_member_has(v, at, one)) \
    X(clear, tosc_clear(v, at)) \
    X(iterator_new, tosc_iterator_new(v, at, &out.iterator))

/* Those that take no place. */
#define MORE_CALLS(X) \
    X(equal_left, tosc_value_equal(v, one)) \
    X(equal_right, tosc_value_equal(one, v)) \
    X(describe, tosc_value_describe(v, &out.text)) \
    X(new_tuple, tosc_value_new_tuple(&v, 1, &out.value)) \
    X(set_element, tosc_set(names, tosc_key("y"), v)) \
    X(item, tosc_get(root, tosc_item(v), &out.value)) \
    X(set_item, tosc_set_int64(root, tosc_item(v), 1)) \
    X(next, tosc_iterator_next((tosc_iterator *)v, &out.value, &out.value))

typedef int (*with_place)(tosc_value *v, tosc_at at);
typedef int (*without_place)(tosc_value *v);

#define DEFINE(name, call) \
    static int call_##name(tosc_value *v, tosc_at at) \
    { \
        return call; \
    }
CALLS(DEFINE)
#undef DEFINE

#define DEFINE(name, call) \
    static int call_##name(tosc_value *v) \
    { \
        return call; \
    }
MORE_CALLS(DEFINE)
#undef DEFINE

#define ENTRY(name, call) {call_##name, #name},
static const struct {
    with_place call;
    const char *name;
} calls[] = {CALLS(ENTRY)};
static const struct {
    without_place call;
    const char *name;
} more_calls[] = {MORE_CALLS(ENTRY)};
#undef ENTRY

static void
outputs_set(void)
{
    memset(&out, 0x5a, sizeof(out));
    out_size = 77;
}

static void
must_be(int expected, int status, const char *name, const char *words)
{
    if (status != expected || strstr(tosc_error_message(), words) == NULL) {
        ck_abort_msg("%s: %s (%s), not %s (%s)", name, tosc_status_name(status),
                     tosc_error_message(), tosc_status_name(expected), words);
    }
    for (size_t i = 0; i < sizeof(out.bytes); i++) {
        if (out.bytes[i] != 0x5a || out_size != 77) {
            ck_abort_msg("%s: the output was touched", name);
        }
    }
}

/* All functions with this value. */
static void
all_fail(int expected, tosc_value *value, const char *words)
{
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        outputs_set();
        must_be(expected, calls[i].call(value, tosc_key("k")), calls[i].name, words);
    }
    for (size_t i = 0; i < sizeof(more_calls) / sizeof(more_calls[0]); i++) {
        bool iterator = strcmp(more_calls[i].name, "next") == 0;
        outputs_set();
        must_be(expected, more_calls[i].call(value), more_calls[i].name,
                iterator && expected == TOSC_EINVAL ? "" : words);
    }
}

static void
start(void)
{
    values_start();
    one = eval("1");
}

START_TEST(handles_that_are_none_are_told)
{
    tosc_scope scope;
    int local = 0;
    start();
    for (int in_scope = 0; in_scope < 2; in_scope++) {
        if (in_scope) {
            ok(tosc_scope_enter(&scope));
        }
        all_fail(TOSC_EINVAL, NULL, "is NULL");
        all_fail(TOSC_EINVAL, (tosc_value *)(void *)&local, "is not a handle");
        all_fail(TOSC_EINVAL, (tosc_value *)(uintptr_t)2, "is not a handle");
        all_fail(TOSC_EINVAL, (tosc_value *)(uintptr_t)1, "not valid");
        all_fail(TOSC_EINVAL, (tosc_value *)UINTPTR_MAX, "not valid");
        all_fail(TOSC_EINVAL, (tosc_value *)((uintptr_t)one + ((uintptr_t)1 << 32)),
                 "not valid");
        if (in_scope) {
            ok(tosc_scope_leave(&scope));
        }
    }
    values_stop();
}
END_TEST

START_TEST(values_that_were_given_back_are_told)
{
    start();
    tosc_value *gone = eval("{'k': 1}");
    ck_assert_ptr_null(tosc_value_unref(gone));
    all_fail(TOSC_EINVAL, gone, "was given back");
    tosc_value *reused = eval("{'k': 2}"); /* perhaps in the same place */
    all_fail(TOSC_EINVAL, gone, "was given back");
    tosc_value_unref(gone);
    told("was given back");
    ck_assert_ptr_null(tosc_value_ref(gone));
    ck_assert_ptr_null(tosc_value_ref(NULL));
    ck_assert_ptr_null(tosc_value_unref(NULL));
    outputs_set();
    ok(tosc_get_int64(reused, tosc_key("k"), &out.number));
    ck_assert_int_eq(out.number, 2);
    tosc_value_unref(reused);
    values_stop();
}
END_TEST

START_TEST(handles_of_another_kind_are_told)
{
    tosc_manager *m = NULL;
    tosc_iterator *iterator;
    tosc_transaction *transaction;
    start();
    tosc_value *value = eval("m");
    ok(tosc_manager_of(value, &m));
    all_fail(TOSC_EINVAL, (tosc_value *)m, "is a handle of a Manager, not of a");
    ok(tosc_transaction_begin(m, &transaction));
    all_fail(TOSC_EINVAL, (tosc_value *)transaction, "a handle of a transaction");
    ok(tosc_transaction_rollback(transaction));
    ok(tosc_iterator_new(root, tosc_self(), &iterator));
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        outputs_set();
        must_be(TOSC_EINVAL, calls[i].call((tosc_value *)iterator, tosc_self()),
                calls[i].name, "a handle of an iterator");
    }
    tosc_value_unref((tosc_value *)iterator);
    told("a handle of an iterator, not of a value");
    tosc_iterator_free((tosc_iterator *)root);
    told("a handle of a value, not of an iterator");
    tosc_iterator_free(iterator);
    tosc_value_unref(value);
    tosc_manager_unref(m);
    values_stop();
}
END_TEST

START_TEST(places_that_are_none_are_told)
{
    static const int bad_kinds[] = {-1, 6, 1000};
    start();
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        const char *name = calls[i].name;
        outputs_set();
        must_be(TOSC_EINVAL, calls[i].call(root, tosc_key(NULL)), name,
                "at: the text is NULL");
        must_be(TOSC_EINVAL, calls[i].call(root, tosc_path(NULL)), name,
                "at: the text is NULL");
        must_be(TOSC_EINVAL, calls[i].call(root, tosc_attribute(NULL)), name,
                "at: the text is NULL");
        must_be(TOSC_EINVAL, calls[i].call(root, tosc_item(NULL)), name,
                "at: the key is NULL");
        must_be(TOSC_EINVAL, calls[i].call(root, tosc_path("a~/b")), name, "~");
        must_be(TOSC_EINVAL, calls[i].call(root, tosc_key("\xff")), name, "not UTF-8");
        for (size_t k = 0; k < 3; k++) {
            tosc_at at = tosc_self();
            at.kind = bad_kinds[k];
            must_be(TOSC_EINVAL, calls[i].call(root, at), name, "no kind of place");
        }
    }
    values_stop();
}
END_TEST

START_TEST(elements_that_are_not_there_are_told)
{
    start();
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        const char *name = calls[i].name;
        bool sets = strncmp(name, "set", 3) == 0 || strcmp(name, "add_int64") == 0;
        outputs_set();
        if (strcmp(name, "contains") != 0) {
            must_be(TOSC_ENOTFOUND, calls[i].call(root, tosc_path("no/where")), name,
                    "'no/where': no key 'no' in the dict");
            must_be(sets ? TOSC_ETYPE : TOSC_ENOTFOUND,
                    calls[i].call(root, tosc_attribute("nothing")), name, "nothing");
        }
    }
    values_stop();
}
END_TEST

START_TEST(missing_outputs_are_told)
{
    tosc_at at = tosc_key("x");
    start();
    take("1");
    fails(TOSC_EINVAL, tosc_get(root, at, NULL));
    told("ret is NULL");
    fails(TOSC_EINVAL, tosc_borrow(root, at, NULL));
    fails(TOSC_EINVAL, tosc_get_bool(root, at, NULL));
    fails(TOSC_EINVAL, tosc_get_int64(root, at, NULL));
    fails(TOSC_EINVAL, tosc_get_uint64(root, at, NULL));
    fails(TOSC_EINVAL, tosc_get_double(root, at, NULL));
    fails(TOSC_EINVAL, tosc_get_bigint(root, at, NULL));
    fails(TOSC_EINVAL, tosc_get_text(root, at, NULL, NULL));
    fails(TOSC_EINVAL, tosc_get_bytes(root, at, NULL, NULL));
    fails(TOSC_EINVAL, tosc_borrow_text(root, at, NULL, NULL));
    fails(TOSC_EINVAL, tosc_borrow_bytes(root, at, NULL, NULL));
    fails(TOSC_EINVAL, tosc_get_json(root, at, NULL, NULL));
    fails(TOSC_EINVAL, tosc_length(root, at, NULL));
    fails(TOSC_EINVAL, tosc_iterator_new(root, at, NULL));
    fails(TOSC_EINVAL, tosc_value_describe(root, NULL));
    fails(TOSC_EINVAL, tosc_value_new_null(NULL));
    fails(TOSC_EINVAL, tosc_value_new_bool(true, NULL));
    fails(TOSC_EINVAL, tosc_value_new_int64(1, NULL));
    fails(TOSC_EINVAL, tosc_value_new_uint64(1, NULL));
    fails(TOSC_EINVAL, tosc_value_new_bigint("1", NULL));
    fails(TOSC_EINVAL, tosc_value_new_double(1, NULL));
    fails(TOSC_EINVAL, tosc_value_new_text("a", 1, NULL));
    fails(TOSC_EINVAL, tosc_value_new_bytes("a", 1, NULL));
    fails(TOSC_EINVAL, tosc_value_new_list(NULL));
    fails(TOSC_EINVAL, tosc_value_new_dict(NULL));
    fails(TOSC_EINVAL, tosc_value_new_set(NULL));
    fails(TOSC_EINVAL, tosc_value_new_tuple(&one, 1, NULL));
    fails(TOSC_EINVAL, tosc_value_new_json("1", 1, NULL));
    told("ret is NULL");
    values_stop();
}
END_TEST

START_TEST(inputs_that_are_missing_or_too_large_are_told)
{
    start();
    outputs_set();
    size_t huge = SIZE_MAX - 1;
    tosc_at at = tosc_key("x");
    must_be(TOSC_EINVAL, tosc_value_new_text(NULL, 1, &out.value), "text",
            "text is NULL");
    must_be(TOSC_EINVAL, tosc_value_new_text(NULL, TOSC_TEXT_END, &out.value), "text",
            "text is NULL");
    must_be(TOSC_EINVAL, tosc_value_new_text("a", huge, &out.value), "text", "size");
    must_be(TOSC_EINVAL, tosc_value_new_bytes(NULL, 1, &out.value), "bytes",
            "bytes is NULL");
    must_be(TOSC_EINVAL, tosc_value_new_bytes("a", huge, &out.value), "bytes", "size");
    must_be(TOSC_EINVAL, tosc_value_new_bytes("a", (size_t)-1, &out.value), "bytes",
            "size");
    must_be(TOSC_EINVAL, tosc_value_new_bigint(NULL, &out.value), "digits",
            "digits is NULL");
    must_be(TOSC_EINVAL, tosc_value_new_json(NULL, 5, &out.value), "json",
            "text is NULL");
    must_be(TOSC_EINVAL, tosc_value_new_tuple(NULL, 1, &out.value), "tuple",
            "items is NULL");
    must_be(TOSC_EINVAL, tosc_value_new_tuple(&one, huge, &out.value), "tuple", "count");
    must_be(TOSC_EINVAL, tosc_set_text(root, at, NULL, TOSC_TEXT_END), "set_text",
            "text is NULL");
    must_be(TOSC_EINVAL, tosc_set_text(root, at, "a", huge), "set_text", "size");
    must_be(TOSC_EINVAL, tosc_set_bytes(root, at, NULL, 3), "set_bytes", "bytes is NULL");
    must_be(TOSC_EINVAL, tosc_set_bytes(root, at, "a", huge), "set_bytes", "size");
    must_be(TOSC_EINVAL, tosc_append_text(root, at, NULL, 3), "append_text",
            "text is NULL");
    must_be(TOSC_EINVAL, tosc_set(root, at, NULL), "set", "element is NULL");
    take("[]");
    must_be(TOSC_EINVAL, tosc_append(root, at, NULL), "append", "element is NULL");
    must_be(TOSC_EINVAL, tosc_insert(root, at, 0, NULL), "insert", "element is NULL");
    take("set()");
    must_be(TOSC_EINVAL, tosc_member_add(root, at, NULL), "add", "member is NULL");
    must_be(TOSC_EINVAL, tosc_member_discard(root, at, NULL), "discard",
            "member is NULL");
    must_be(TOSC_EINVAL, tosc_member_has(root, at, NULL), "has", "member is NULL");
    ok(tosc_value_new_text(NULL, 0, &out.value));
    tosc_value_unref(out.value);
    ok(tosc_value_new_bytes(NULL, 0, &out.value));
    tosc_value_unref(out.value);
    values_stop();
}
END_TEST

START_TEST(everything_is_closed_before_start_and_after_stop)
{
    tosc_scope scope;
    memset(&scope, 0, sizeof(scope));
    for (int stopped = 0; stopped < 2; stopped++) {
        if (stopped) {
            start();
            values_stop();
        }
        all_fail(TOSC_ECLOSED, one, "Python");
        all_fail(TOSC_ECLOSED, NULL, "Python");
        outputs_set();
        must_be(TOSC_ECLOSED, tosc_value_new_null(&out.value), "null", "");
        must_be(TOSC_ECLOSED, tosc_value_new_text("a", 1, &out.value), "text", "");
        must_be(TOSC_ECLOSED, tosc_value_new_json("1", 1, &out.value), "json", "");
        must_be(TOSC_ECLOSED, tosc_value_new_bigint("1", &out.value), "bigint", "");
        must_be(TOSC_ECLOSED, tosc_scope_enter(&scope), "enter", "");
        must_be(TOSC_ECLOSED, tosc_scope_leave(&scope), "leave", "");
        must_be(TOSC_ECLOSED, tosc_scope_pause(&scope), "pause", "");
        must_be(TOSC_ECLOSED, tosc_scope_resume(&scope), "resume", "");
        ck_assert_ptr_null(tosc_value_ref(one));
        ck_assert_ptr_null(tosc_value_unref(one));
        ck_assert_ptr_null(tosc_iterator_free((tosc_iterator *)one));
    }
}
END_TEST

START_TEST(values_that_were_never_given_back_are_dropped_at_the_stop)
{
    start();
    python("import atexit\n"
           "class Noisy:\n"
           "    def __del__(self): open(path, 'w').write('gone')\n");
    tosc_value *path;
    tosc_iterator *iterator;
    ok(tosc_value_new_text(path_in("trace"), TOSC_TEXT_END, &path));
    ok(tosc_set(names, tosc_key("path"), path));
    eval("Noisy()");
    ok(tosc_iterator_new(root, tosc_self(), &iterator));
    ok(tosc_host_stop());
    char *trace = text_of("trace");
    ck_assert_ptr_nonnull(trace);
    ck_assert_str_eq(trace, "gone");
    free(trace);
    fails(TOSC_ECLOSED, tosc_iterator_next(iterator, NULL, NULL));
    ck_assert_ptr_null(tosc_iterator_free(iterator));
    ck_assert_ptr_null(tosc_value_unref(path));
}
END_TEST

static Suite *
misuse_suite(void)
{
    Suite *suite = suite_create("misuse of values");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, directory_make, directory_remove);
    tcase_add_test(all, handles_that_are_none_are_told);
    tcase_add_test(all, values_that_were_given_back_are_told);
    tcase_add_test(all, handles_of_another_kind_are_told);
    tcase_add_test(all, places_that_are_none_are_told);
    tcase_add_test(all, elements_that_are_not_there_are_told);
    tcase_add_test(all, missing_outputs_are_told);
    tcase_add_test(all, inputs_that_are_missing_or_too_large_are_told);
    tcase_add_test(all, everything_is_closed_before_start_and_after_stop);
    tcase_add_test(all, values_that_were_never_given_back_are_dropped_at_the_stop);
    suite_add_tcase(suite, all);
    return suite;
}

int
main(void)
{
    return run_suite(misuse_suite());
}
