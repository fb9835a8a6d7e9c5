/*
 * Data files that are cut, flipped, torn or foreign: what was acknowledged is there or
 * the damage is told, and a damaged file is never written to.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/checksum.h"
#include "core/filestore.h"
#include "support.h"

#define RECORDS 4

static const tosc_file_options fast = {.not_durable = true};

/* A small store with its file's bytes, and what it held at each version. */
struct sample {
    const char *path;
    unsigned char *bytes;
    size_t size;
    uint64_t ends[RECORDS + 1]; /* where the record of each version ends */
    char text[RECORDS + 1][200];
};

static struct sample
make_sample(void)
{
    static const char *const parts[RECORDS] = {"the base", "+one", "+the second record",
                                               "+3"};
    struct sample sample = {.path = path_in("store")};
    tosc_backend *b = file_store_with(sample.path, &fast);
    tosc_position at = {.stored = false};

    sample.ends[0] = TOSC__HEADER_SIZE;
    for (int i = 0; i < RECORDS; i++) {
        ok(do_append(b, parts[i], &at));
        strcpy(sample.text[i + 1], sample.text[i]);
        strcat(sample.text[i + 1], parts[i]);
        sample.ends[i + 1] = sample.ends[i] + tosc__record_extent(strlen(parts[i]));
    }
    tosc_backend_unref(b);
    sample.bytes = get_file(sample.path, &sample.size);
    ck_assert_uint_eq(sample.size, sample.ends[RECORDS]);
    return sample;
}

static bool
is_text(const tosc_data *data, const char *text)
{
    return data->bytes != NULL && data->bytes->size == strlen(text)
           && memcmp(data->bytes->data, text, data->bytes->size) == 0;
}

/* The file must be as it was put, bit for bit. */
static void
is_untouched(const char *path, const void *bytes, size_t size)
{
    size_t now_size;
    unsigned char *now = get_file(path, &now_size);

    ck_assert_uint_eq(now_size, size);
    ck_assert_mem_eq(now, bytes, size);
    free(now);
}

/* Every operation has to refuse this file and leave it alone. */
static void
is_refused(const char *path, const char *part_of_message)
{
    tosc_backend *b = file_store_with(path, &fast);
    size_t size;
    unsigned char *before = get_file(path, &size);
    tosc_position at = {.stored = false};
    tosc_data data;

    fails(TOSC_ECORRUPT, do_read(b, &data));
    ck_assert_msg(strstr(tosc_error_message(), part_of_message) != NULL
                      && strstr(tosc_error_message(), path) != NULL,
                  "the message is: %s", tosc_error_message());
    ck_assert_str_eq(tosc_error_path(), path);
    fails(TOSC_ECORRUPT, do_append(b, "x", &at));
    fails(TOSC_ECORRUPT, do_write(b, "x", NULL));
    fails(TOSC_ECORRUPT, do_lock(b, &at, 100));
    is_untouched(path, before, size);
    free(before);
    tosc_backend_unref(b);
}

START_TEST(every_flipped_bit_is_told_or_does_no_harm)
{
    struct sample sample = make_sample();
    int told = 0;

    for (size_t bit = 0; bit < 8 * sample.size; bit++) {
        tosc_backend *b;
        tosc_data data;
        int status;

        sample.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        put_file(sample.path, sample.bytes, sample.size);
        forget_control_block(sample.path);
        b = file_store_with(sample.path, &fast);
        status = do_read(b, &data);
        if (status == 0) {
            ck_assert_msg(data.at.version == RECORDS
                              && is_text(&data, sample.text[RECORDS]),
                          "bit %zu of byte %zu went unnoticed", bit % 8, bit / 8);
            tosc_blob_unref(data.bytes);
        } else {
            told++;
            support_fails(TOSC_ECORRUPT, status, "read", __FILE__, __LINE__);
            fails(TOSC_ECORRUPT, do_write(b, "x", NULL));
            is_untouched(sample.path, sample.bytes, sample.size);
        }
        tosc_backend_unref(b);
        sample.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    ck_assert_int_eq(told, 8 * (int)sample.size);
    free(sample.bytes);
}
END_TEST

START_TEST(every_flipped_bit_is_told_to_one_who_has_a_control_block)
{
    struct sample sample = make_sample();

    for (size_t bit = 0; bit < 8 * sample.size; bit += 3) {
        tosc_backend *b;
        tosc_data data;
        int fd = open(sample.path, O_RDWR | O_CLOEXEC);
        unsigned char byte = sample.bytes[bit / 8] ^ (unsigned char)(1 << bit % 8);

        ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)(bit / 8)), 1);
        b = file_store_with(sample.path, &fast);
        fails(TOSC_ECORRUPT, do_read(b, &data));
        tosc_backend_unref(b);
        ck_assert_int_eq(pwrite(fd, sample.bytes + bit / 8, 1, (off_t)(bit / 8)), 1);
        close(fd);
    }
    free(sample.bytes);
}
END_TEST

START_TEST(flipped_bit_among_zeros_of_the_last_record_is_told)
{
    const char *path = path_in("store");
    size_t size = 5000;
    char *zeros = calloc(1, size);
    tosc_backend *b = file_store_with(path, &fast);
    tosc_position at = {.stored = false};
    unsigned char *bytes;
    tosc_data data;

    ok(do_append(b, "base", &at));
    zeros[17] = 1;
    ok(do_append_bytes(b, zeros, size, &at));
    tosc_backend_unref(b);
    free(zeros);
    bytes = get_file(path, &size);
    for (size_t i = size - 5056; i < size; i += 13) {
        bytes[i] ^= 0x10;
        put_file(path, bytes, size);
        forget_control_block(path);
        b = file_store_with(path, &fast);
        fails(TOSC_ECORRUPT, do_read(b, &data));
        tosc_backend_unref(b);
        bytes[i] ^= 0x10;
    }
    free(bytes);
}
END_TEST

/* What a file cut at `length` should be taken for, by nobody who knows more. */
static int
version_left(const struct sample *sample, size_t length)
{
    int version = RECORDS;

    while (version > 0 && sample->ends[version] > length) {
        version--;
    }
    return length == 0 ? 0 : version > 0 ? version : -1;
}

START_TEST(file_cut_at_any_length_shows_whole_records_or_is_told)
{
    struct sample sample = make_sample();

    for (size_t length = 0; length <= sample.size; length++) {
        int version = version_left(&sample, length);
        tosc_backend *b;
        tosc_data data;

        put_file(sample.path, sample.bytes, length);
        forget_control_block(sample.path);
        b = file_store_with(sample.path, &fast);
        if (version < 0) {
            is_refused(sample.path, "damaged");
        } else {
            holds(b, sample.text[version], version);
            ok(do_read(b, &data));
            ok(do_append(b, "!", &data.at));
            tosc_blob_unref(data.bytes);
            ok(do_read(b, &data));
            ck_assert_int_eq(data.at.version, version + 1);
            tosc_blob_unref(data.bytes);
        }
        tosc_backend_unref(b);
    }
    free(sample.bytes);
}
END_TEST

START_TEST(file_cut_below_what_was_committed_since_boot_is_damaged)
{
    struct sample sample = make_sample();

    for (size_t length = 1; length < sample.size; length += 3) {
        ck_assert_int_eq(truncate(sample.path, (off_t)length), 0);
        is_refused(sample.path, "damaged");
        put_file(sample.path, sample.bytes, sample.size);
    }
    free(sample.bytes);
}
END_TEST

START_TEST(store_whose_record_in_the_middle_is_damaged_is_refused)
{
    struct sample sample = make_sample();
    char where[64];

    sample.bytes[sample.ends[2] + TOSC__RECORD_SIZE + 3] ^= 1;
    put_file(sample.path, sample.bytes, sample.size);
    forget_control_block(sample.path);
    snprintf(where, sizeof(where), "version 3 at offset %d", (int)sample.ends[2]);
    is_refused(sample.path, where);
    free(sample.bytes);
}
END_TEST

/*
 * Makes the last record of a big store, as the disk has it when some sectors were not
 * reached.
 */
struct torn {
    const char *path;
    unsigned char *bytes;
    size_t size;
    size_t start; /* of the last record */
};

static struct torn
make_torn(size_t last_size, size_t skew)
{
    struct torn torn = {.path = path_in("store")};
    char *payload = malloc(last_size + skew + 100);
    tosc_backend *b;
    tosc_position at = {.stored = false};

    unlink(torn.path);
    forget_control_block(torn.path);
    b = file_store_with(torn.path, &fast);
    for (size_t i = 0; i < last_size + skew + 100; i++) {
        payload[i] = (char)(1 + i % 100);
    }
    ok(do_append_bytes(b, payload, 100 + skew, &at));
    torn.start = (size_t)size_of(torn.path);
    ok(do_append_bytes(b, payload, last_size, &at));
    tosc_backend_unref(b);
    torn.bytes = get_file(torn.path, &torn.size);
    free(payload);
    return torn;
}

static void
is_dropped(const struct torn *torn, const unsigned char *bytes, size_t size)
{
    tosc_backend *b;
    tosc_data data;

    put_file(torn->path, bytes, size);
    forget_control_block(torn->path);
    b = file_store_with(torn->path, &fast);
    ok(do_read(b, &data));
    ck_assert_int_eq(data.at.version, 1);
    ok(do_append(b, "next", &data.at));
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(b);
    forget_control_block(torn->path);
    b = file_store_with(torn->path, &fast);
    ok(do_read(b, &data));
    ck_assert_int_eq(data.at.version, 2);
    ck_assert_mem_eq(data.bytes->data + data.bytes->size - 4, "next", 4);
    tosc_blob_unref(data.bytes);
    tosc_backend_unref(b);
}

START_TEST(torn_tail_is_dropped_whichever_sector_is_missing)
{
    for (size_t skew = 0; skew < 520; skew += 56) {
        struct torn torn = make_torn(3000, skew);

        for (size_t ahead = 0; ahead <= 8192; ahead += 8192) {
            unsigned char *bytes = calloc(1, torn.size + ahead);
            size_t from = torn.start;

            while (from < torn.size) {
                size_t to = (from / TOSC__SECTOR + 1) * TOSC__SECTOR;

                to = to < torn.size ? to : torn.size;
                memcpy(bytes, torn.bytes, torn.size);
                memset(bytes + from, 0, to - from);
                is_dropped(&torn, bytes, torn.size + ahead);
                from = to;
            }
            free(bytes);
        }
        free(torn.bytes);
    }
}
END_TEST

START_TEST(torn_tail_is_dropped_at_every_length)
{
    struct torn torn = make_torn(700, 0);

    for (size_t size = torn.start + 1; size < torn.size; size++) {
        is_dropped(&torn, torn.bytes, size);
    }
    free(torn.bytes);
}
END_TEST

START_TEST(torn_tail_is_dropped_at_every_sector_of_space_written_ahead)
{
    struct torn torn = make_torn(6000, 24);
    unsigned char *bytes = calloc(1, torn.size + 4096);
    size_t cut = (torn.start / TOSC__SECTOR + 1) * TOSC__SECTOR;

    for (; cut < torn.size; cut += TOSC__SECTOR) {
        memset(bytes, 0, torn.size + 4096);
        memcpy(bytes, torn.bytes, cut);
        is_dropped(&torn, bytes, torn.size + 4096);
    }
    free(bytes);
    free(torn.bytes);
}
END_TEST

START_TEST(what_a_dropped_tail_leaves_never_comes_back)
{
    struct torn torn = make_torn(9000, 0);
    tosc_backend *b;
    tosc_data data;

    memset(torn.bytes + (torn.start / TOSC__SECTOR + 8) * TOSC__SECTOR, 0, TOSC__SECTOR);
    put_file(torn.path, torn.bytes, torn.size);
    forget_control_block(torn.path);
    b = file_store_with(torn.path, &fast);
    ok(do_read(b, &data));
    ok(do_append(b, "short", &data.at));
    tosc_blob_unref(data.bytes);
    ck_assert_int_lt(size_of(torn.path), (int64_t)torn.start + 200);
    tosc_backend_unref(b);
    free(torn.bytes);
}
END_TEST

START_TEST(torn_tail_that_holds_a_copy_of_a_store_is_still_torn)
{
    struct sample sample = make_sample();
    const char *path = path_in("outer");
    tosc_backend *b = file_store_with(path, &fast);
    tosc_position at = {.stored = false};
    unsigned char *bytes;
    size_t size;

    ok(do_append(b, "base", &at));
    ok(do_append_bytes(b, sample.bytes, sample.size, &at));
    tosc_backend_unref(b);
    bytes = get_file(path, &size);
    put_file(path, bytes, size - 8);
    forget_control_block(path);
    stored_at(path, "base", 1);
    free(bytes);
    free(sample.bytes);
}
END_TEST

START_TEST(zeros_after_the_last_record_are_space_written_ahead)
{
    struct sample sample = make_sample();
    unsigned char *bytes = calloc(1, sample.size + 70000);

    memcpy(bytes, sample.bytes, sample.size);
    for (size_t extra = 1; extra <= 70000; extra = extra * 3 + 1) {
        put_file(sample.path, bytes, sample.size + extra);
        forget_control_block(sample.path);
        stored_at(sample.path, sample.text[RECORDS], RECORDS);
    }
    free(bytes);
    free(sample.bytes);
}
END_TEST

START_TEST(foreign_file_is_refused_and_left_as_it_is)
{
    static const char *const texts[] = {
        "x", "\x89", "\x89TOSX\r\n\x1a",
        "#!/bin/sh\necho this is a long enough foreign file\n",
        "SQLite format 3\0 and so on and on and on and on and on and on and on and on"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const char *path = path_in("foreign");

        put_file(path, texts[i], strlen(texts[i]));
        is_refused(path, i == 1 ? "damaged" : "not a tosc store");
    }
}
END_TEST

START_TEST(later_format_is_refused_and_left_as_it_is)
{
    struct sample sample = make_sample();
    struct tosc__identity identity;
    uint32_t crc;

    ck_assert_int_eq(tosc__header_decode(sample.bytes, sample.size, &identity), 0);
    sample.bytes[8] = 2;
    crc = tosc__crc32c(0, sample.bytes, 60);
    memcpy(sample.bytes + 60, &crc, 4);
    put_file(sample.path, sample.bytes, sample.size);
    forget_control_block(sample.path);
    is_refused(sample.path, "format version");
    free(sample.bytes);
}
END_TEST

START_TEST(empty_file_is_an_empty_store)
{
    const char *path = path_in("store");
    struct stat about;
    tosc_backend *b;
    tosc_position at = {.stored = false};

    put_file(path, "", 0);
    ck_assert_int_eq(chmod(path, 0640), 0);
    b = file_store(path);
    holds(b, "", 0);
    ok(do_append(b, "first", &at));
    holds(b, "first", 1);
    ck_assert_int_eq(stat(path, &about), 0);
    ck_assert_uint_eq(about.st_mode & 07777, 0640);
    tosc_backend_unref(b);
}
END_TEST

START_TEST(damage_in_a_shared_store_is_told_by_a_network_reader)
{
    const tosc_file_options network = {.shared_by_hosts = true, .not_durable = true};
    struct sample sample = make_sample();
    tosc_backend *b;
    tosc_data data;

    sample.bytes[sample.ends[1] + 60] ^= 4;
    put_file(sample.path, sample.bytes, sample.size);
    b = file_store_with(sample.path, &network);
    fails(TOSC_ECORRUPT, do_read(b, &data));
    tosc_backend_unref(b);
    free(sample.bytes);
}
END_TEST

static void *
open_and_be_refused(void *path)
{
    tosc_backend *b = file_store_with(path, &fast);
    tosc_data data;

    support_fails(TOSC_ECORRUPT, do_read(b, &data), "read", __FILE__, __LINE__);
    tosc_backend_unref(b);
    return NULL;
}

/* Who opens it judges it under the lock, which another one may have for the same. */
START_TEST(damage_is_told_to_all_who_open_a_store_at_a_time)
{
    enum { THREADS = 4 };
    struct sample sample = make_sample();
    pthread_t threads[THREADS];

    for (int round = 0; round < 200; round++) {
        size_t at = (round % 2 == 0 ? sample.ends[RECORDS] : sample.ends[2]) - 20;

        sample.bytes[at] ^= 1;
        put_file(sample.path, sample.bytes, sample.size);
        forget_control_block(sample.path);
        for (int i = 0; i < THREADS; i++) {
            pthread_create(&threads[i], NULL, open_and_be_refused, (void *)sample.path);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        is_untouched(sample.path, sample.bytes, sample.size);
        sample.bytes[at] ^= 1;
    }
    free(sample.bytes);
}
END_TEST

START_TEST(damaged_store_works_again_when_a_good_copy_is_moved_there)
{
    struct sample sample = make_sample();
    const char *copy = path_in("copy");
    tosc_backend *b = file_store_with(sample.path, &fast);
    tosc_position at = {.stored = false};
    tosc_data data;

    put_file(copy, sample.bytes, sample.size);
    ck_assert_int_eq(truncate(sample.path, (off_t)sample.size - 9), 0);
    fails(TOSC_ECORRUPT, do_read(b, &data));
    ck_assert_int_eq(rename(copy, sample.path), 0);
    holds(b, sample.text[RECORDS], RECORDS);
    ok(do_read(b, &data));
    at = data.at;
    tosc_blob_unref(data.bytes);
    ok(do_append(b, ".", &at));
    tosc_backend_unref(b);
    free(sample.bytes);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("damage");
    TCase *tests = tcase_create("damaged files");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, directory_make_in_memory, directory_remove);
    tcase_add_test(tests, every_flipped_bit_is_told_or_does_no_harm);
    tcase_add_test(tests, every_flipped_bit_is_told_to_one_who_has_a_control_block);
    tcase_add_test(tests, flipped_bit_among_zeros_of_the_last_record_is_told);
    tcase_add_test(tests, file_cut_at_any_length_shows_whole_records_or_is_told);
    tcase_add_test(tests, file_cut_below_what_was_committed_since_boot_is_damaged);
    tcase_add_test(tests, store_whose_record_in_the_middle_is_damaged_is_refused);
    tcase_add_test(tests, torn_tail_is_dropped_whichever_sector_is_missing);
    tcase_add_test(tests, torn_tail_is_dropped_at_every_length);
    tcase_add_test(tests, torn_tail_is_dropped_at_every_sector_of_space_written_ahead);
    tcase_add_test(tests, what_a_dropped_tail_leaves_never_comes_back);
    tcase_add_test(tests, torn_tail_that_holds_a_copy_of_a_store_is_still_torn);
    tcase_add_test(tests, zeros_after_the_last_record_are_space_written_ahead);
    tcase_add_test(tests, foreign_file_is_refused_and_left_as_it_is);
    tcase_add_test(tests, later_format_is_refused_and_left_as_it_is);
    tcase_add_test(tests, empty_file_is_an_empty_store);
    tcase_add_test(tests, damage_in_a_shared_store_is_told_by_a_network_reader);
    tcase_add_test(tests, damage_is_told_to_all_who_open_a_store_at_a_time);
    tcase_add_test(tests, damaged_store_works_again_when_a_good_copy_is_moved_there);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
