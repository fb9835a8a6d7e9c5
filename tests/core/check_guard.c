/*
 * What a Ceph store's attributes say: guard, positions, history. No cluster is needed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "core/bytes.h"
#include "core/ceph_guard.h"
#include "support.h"

static struct tosc__guard
make_guard(void)
{
    struct tosc__guard guard = {.generation = UINT64_C(0x1122334455667788),
                                .version = 10,
                                .base_version = 4,
                                .base_end = 200,
                                .tail = 4000,
                                .fence = 99,
                                .last = 3800};

    memset(guard.store_id, 7, sizeof(guard.store_id));
    memset(guard.commit_id, 9, sizeof(guard.commit_id));
    return guard;
}

/* The id of a commit of some lineage. */
static const uint8_t *
id_of(int64_t version, int lineage)
{
    static uint8_t id[16];

    memset(id, lineage, sizeof(id));
    tosc__put64(id, (uint64_t)version);
    return id;
}

static void
add(struct tosc__history *history, int64_t from, int64_t to, int lineage)
{
    for (int64_t version = from; version <= to; version++) {
        tosc__history_add(history, version, id_of(version, lineage));
    }
}

static bool
has(const struct tosc__history *history, int64_t version, int lineage)
{
    const uint8_t *id = tosc__history_find(history, version);

    return id != NULL && memcmp(id, id_of(version, lineage), 16) == 0;
}

/* ---- guard, positions ---- */

START_TEST(guard_survives_a_round_trip)
{
    const struct tosc__guard guard = make_guard();
    unsigned char bytes[TOSC__GUARD_SIZE];
    struct tosc__guard read;

    tosc__guard_encode(&guard, bytes);
    ck_assert(tosc__guard_decode(bytes, sizeof(bytes), &read));
    ck_assert_uint_eq(read.last, 0);
    read.last = guard.last;
    ck_assert_mem_eq(&read, &guard, sizeof(guard));
    ck_assert(!tosc__guard_decode(bytes, sizeof(bytes) - 1, &read));
    for (unsigned bit = 0; bit < 8 * sizeof(bytes); bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        ck_assert(!tosc__guard_decode(bytes, sizeof(bytes), &read));
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}
END_TEST

START_TEST(position_says_where_reading_goes_on)
{
    struct tosc__guard guard = make_guard();
    tosc_position at = tosc__guard_position(&guard);
    struct tosc__hint hint = tosc__position_hint(&at);

    ck_assert(hint.valid && hint.at_record);
    ck_assert_uint_eq(hint.offset, guard.last);
    ck_assert(tosc__position_is_of(&at, guard.generation));
    ck_assert(!tosc__position_is_of(&at, guard.generation + 1));
    guard.last = 0;
    at = tosc__guard_position(&guard);
    hint = tosc__position_hint(&at);
    ck_assert(hint.valid && !hint.at_record);
    ck_assert_uint_eq(hint.offset, guard.tail);
    guard.last = 300;
    guard.tail = UINT64_C(1) << 32;
    at = tosc__guard_position(&guard);
    hint = tosc__position_hint(&at);
    ck_assert(hint.valid && !hint.at_record);
    ck_assert_uint_eq(hint.offset, guard.tail);
    guard = (struct tosc__guard){.fence = 5};
    at = tosc__guard_position(&guard);
    ck_assert(!at.stored && at.cookie[0] == 0 && at.cookie[1] == 0);
}
END_TEST

START_TEST(positions_of_a_version_made_by_different_commits_differ)
{
    struct tosc__guard guard = make_guard();
    const tosc_position at = tosc__guard_position(&guard);
    tosc_position other;

    ck_assert(tosc__position_may_be(&at, guard.commit_id));
    guard.generation++;
    guard.tail += 800;
    other = tosc__guard_position(&guard);
    ck_assert_msg(tosc__same_position(&at, &other), "a compaction keeps the state");
    for (unsigned bit = 0; bit < 128; bit++) {
        guard.commit_id[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert(!tosc__position_may_be(&at, guard.commit_id));
        guard.commit_id[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    guard.commit_id[8]++;
    other = tosc__guard_position(&guard);
    ck_assert(!tosc__same_position(&at, &other));
    memset(guard.commit_id, 0, sizeof(guard.commit_id));
    ck_assert(tosc__position_may_be(&at, guard.commit_id));
    other = tosc__guard_position(&guard);
    ck_assert_msg(tosc__same_position(&at, &other), "zeros are the id of no commit");
    guard = make_guard();
    guard.version++;
    other = tosc__guard_position(&guard);
    ck_assert(!tosc__same_position(&at, &other));
}
END_TEST

START_TEST(wrong_cookie_says_nothing)
{
    struct tosc__guard guard = make_guard();
    const tosc_position at = tosc__guard_position(&guard);

    for (unsigned bit = 0; bit < 128; bit++) {
        tosc_position wrong = at;

        wrong.cookie[bit / 64] ^= UINT64_C(1) << bit % 64;
        ck_assert(!tosc__position_hint(&wrong).valid);
        ck_assert(!tosc__position_is_of(&wrong, guard.generation));
        ck_assert(tosc__same_position(&at, &wrong));
        ck_assert(tosc__position_may_be(&wrong, id_of(1, 1)));
    }
}
END_TEST

/* ---- history ---- */

START_TEST(history_keeps_the_newest)
{
    struct tosc__history history = {.count = 0};

    add(&history, 1, 300, 'a');
    ck_assert_int_eq(history.count, TOSC__HISTORY_MAX);
    for (int64_t version = 173; version <= 300; version++) {
        ck_assert(has(&history, version, 'a'));
    }
    ck_assert_ptr_null(tosc__history_find(&history, 172));
    ck_assert_ptr_null(tosc__history_find(&history, 301));
    add(&history, 150, 160, 'a');
    ck_assert_int_eq(history.made[TOSC__HISTORY_MAX - 1].version, 173);
}
END_TEST

START_TEST(history_may_have_gaps_that_are_filled_later)
{
    struct tosc__history history = {.count = 0};

    add(&history, 1, 10, 'a');
    add(&history, 20, 20, 'a');
    ck_assert(has(&history, 10, 'a') && has(&history, 20, 'a'));
    ck_assert_ptr_null(tosc__history_find(&history, 15));
    add(&history, 11, 19, 'a');
    ck_assert_int_eq(history.count, 20);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(history.made[i].version, 20 - i);
    }
}
END_TEST

START_TEST(history_of_a_store_that_went_back_forgets)
{
    struct tosc__history history = {.count = 0};
    struct tosc__history other = {.count = 0};

    add(&history, 1, 10, 'a');
    add(&history, 7, 7, 'b');
    ck_assert(has(&history, 6, 'a') && has(&history, 7, 'b'));
    ck_assert_int_eq(history.made[0].version, 7);
    add(&other, 6, 7, 'a');
    ck_assert(tosc__history_differs(&history, &other));
    tosc__history_merge(&history, &other);
    ck_assert_int_eq(history.count, 2);
    ck_assert(has(&history, 6, 'a') && has(&history, 7, 'a'));
    other.count = 0;
    add(&other, 7, 9, 'a');
    ck_assert(!tosc__history_differs(&history, &other));
    tosc__history_merge(&history, &other);
    ck_assert_int_eq(history.count, 4);
    tosc__history_cut(&history, 8);
    ck_assert_int_eq(history.count, 3);
    ck_assert(has(&history, 8, 'a'));
}
END_TEST

START_TEST(history_is_stored_from_the_newest_down_to_the_first_gap)
{
    struct tosc__history history = {.count = 0};
    struct tosc__history read;
    unsigned char bytes[TOSC__HISTORY_ROOM];
    size_t size;

    add(&history, 3, 5, 'a');
    add(&history, 8, 30, 'a');
    size = tosc__history_encode(&history, bytes);
    ck_assert_uint_eq(size, 16 + 16 * 23);
    ck_assert_uint_eq(tosc__get64(bytes), 30);
    ck_assert_uint_eq(tosc__get32(bytes + 8), 23);
    ck_assert_mem_eq(bytes + 16 + 16 * 2, id_of(28, 'a'), 16);
    tosc__history_decode(bytes, size, &read);
    ck_assert_int_eq(read.count, 23);
    ck_assert(has(&read, 30, 'a') && has(&read, 8, 'a'));
    tosc__history_decode(bytes, size - 1, &read);
    ck_assert_int_eq(read.count, 0);
    for (unsigned bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        tosc__history_decode(bytes, size, &read);
        ck_assert_int_eq(read.count, 0);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    add(&history, 1, 300, 'b');
    ck_assert_uint_eq(tosc__history_encode(&history, bytes), TOSC__HISTORY_ROOM);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("guard");
    TCase *tests = tcase_create("attributes");

    tcase_add_test(tests, guard_survives_a_round_trip);
    tcase_add_test(tests, position_says_where_reading_goes_on);
    tcase_add_test(tests, positions_of_a_version_made_by_different_commits_differ);
    tcase_add_test(tests, wrong_cookie_says_nothing);
    tcase_add_test(tests, history_keeps_the_newest);
    tcase_add_test(tests, history_may_have_gaps_that_are_filled_later);
    tcase_add_test(tests, history_of_a_store_that_went_back_forgets);
    tcase_add_test(tests, history_is_stored_from_the_newest_down_to_the_first_gap);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
