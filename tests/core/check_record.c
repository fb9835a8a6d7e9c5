/*
 * Checksums and framing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/record.h"
#include "support.h"

static void
make_identity(struct tosc__identity *identity, uint64_t generation)
{
    uint8_t id[16];

    memset(id, 7, sizeof(id));
    tosc__identity_init(identity, id, generation);
}

START_TEST(checksum_is_crc32c)
{
    unsigned char zeros[32] = {0};
    unsigned char ones[32];

    memset(ones, 0xff, sizeof(ones));
    ck_assert_uint_eq(tosc__crc32c(0, "123456789", 9), 0xe3069283u);
    ck_assert_uint_eq(tosc__crc32c(0, zeros, 32), 0x8a9136aau);
    ck_assert_uint_eq(tosc__crc32c(0, ones, 32), 0x62a8ab43u);
    ck_assert_uint_eq(tosc__crc32c(0, NULL, 0), 0);
}
END_TEST

START_TEST(checksum_by_instruction_and_by_table_agree_at_every_length)
{
    size_t size = 20000;
    unsigned char *bytes = malloc(size);

    for (size_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)random_number();
    }
    for (size_t length = 0; length < 10000; length += length < 300 ? 1 : 97) {
        for (size_t skew = 0; skew < 9; skew++) {
            ck_assert_uint_eq(tosc__crc32c(5, bytes + skew, length),
                              tosc__crc32c_portable(5, bytes + skew, length));
        }
    }
    free(bytes);
}
END_TEST

START_TEST(checksum_of_parts_is_checksum_of_the_whole)
{
    const char text[] =
        "The quick brown fox jumps over the lazy dog, and over another one.";

    for (size_t cut = 0; cut <= sizeof(text); cut++) {
        ck_assert_uint_eq(
            tosc__crc32c(tosc__crc32c(0, text, cut), text + cut, sizeof(text) - cut),
            tosc__crc32c(0, text, sizeof(text)));
    }
}
END_TEST

START_TEST(header_survives_a_round_trip)
{
    struct tosc__identity identity;
    struct tosc__identity read;
    unsigned char bytes[TOSC__HEADER_SIZE];

    make_identity(&identity, 0x1122334455667788);
    tosc__header_encode(&identity, bytes);
    ck_assert_int_eq(tosc__header_decode(bytes, sizeof(bytes), &read), TOSC__HEADER_GOOD);
    ck_assert_mem_eq(identity.store_id, read.store_id, 16);
    ck_assert_uint_eq(read.generation, identity.generation);
    ck_assert_uint_eq(read.seed, identity.seed);
}
END_TEST

START_TEST(header_has_the_documented_bytes)
{
    static const unsigned char magic[] = {0x89, 'T', 'O', 'S', 'C', 0x0d, 0x0a, 0x1a};
    struct tosc__identity identity;
    unsigned char bytes[TOSC__HEADER_SIZE];

    make_identity(&identity, 0x1122334455667788);
    tosc__header_encode(&identity, bytes);
    ck_assert_mem_eq(bytes, magic, 8);
    ck_assert_uint_eq(tosc__get32(bytes + 8), 1);
    ck_assert_uint_eq(tosc__get32(bytes + 12), 64);
    ck_assert_uint_eq(bytes[16], 7);
    ck_assert_uint_eq(bytes[32], 0x88);
    ck_assert_uint_eq(tosc__get32(bytes + 60), tosc__crc32c(0, bytes, 60));
}
END_TEST

START_TEST(every_flipped_bit_in_a_header_is_seen)
{
    struct tosc__identity identity;
    struct tosc__identity read;
    unsigned char bytes[TOSC__HEADER_SIZE];

    make_identity(&identity, 99);
    tosc__header_encode(&identity, bytes);
    for (unsigned bit = 0; bit < 8 * sizeof(bytes); bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        ck_assert_int_ne(tosc__header_decode(bytes, sizeof(bytes), &read),
                         TOSC__HEADER_GOOD);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}
END_TEST

START_TEST(header_of_a_later_format_is_told_from_a_damaged_one)
{
    struct tosc__identity identity;
    struct tosc__identity read;
    unsigned char bytes[TOSC__HEADER_SIZE];

    make_identity(&identity, 99);
    tosc__header_encode(&identity, bytes);
    tosc__put32(bytes + 8, 2);
    ck_assert_int_eq(tosc__header_decode(bytes, sizeof(bytes), &read),
                     TOSC__HEADER_DAMAGED);
    tosc__put32(bytes + 60, tosc__crc32c(0, bytes, 60));
    ck_assert_int_eq(tosc__header_decode(bytes, sizeof(bytes), &read),
                     TOSC__HEADER_NEWER);
}
END_TEST

START_TEST(short_header_is_foreign_or_damaged)
{
    struct tosc__identity identity;
    struct tosc__identity read;
    unsigned char bytes[TOSC__HEADER_SIZE];

    make_identity(&identity, 99);
    tosc__header_encode(&identity, bytes);
    for (size_t size = 1; size < sizeof(bytes); size++) {
        ck_assert_int_eq(tosc__header_decode(bytes, size, &read), TOSC__HEADER_DAMAGED);
    }
    ck_assert_int_eq(tosc__header_decode((const unsigned char *)"a", 1, &read),
                     TOSC__HEADER_FOREIGN);
}
END_TEST

static struct tosc__record
sample(void)
{
    struct tosc__record record = {.kind = TOSC__APPEND,
                                  .version = 12345,
                                  .length = 77,
                                  .payload_crc = 0xdeadbeef,
                                  .empty_pieces = 3};

    memset(record.commit_id, 0xab, sizeof(record.commit_id));
    return record;
}

START_TEST(record_survives_a_round_trip)
{
    struct tosc__record record = sample();
    struct tosc__record read;
    struct tosc__identity identity;
    unsigned char bytes[TOSC__RECORD_SIZE];

    make_identity(&identity, 5);
    tosc__record_encode(&record, &identity, 4096, bytes);
    ck_assert(tosc__record_decode(bytes, &identity, 4096, &read));
    ck_assert_int_eq(read.kind, record.kind);
    ck_assert_int_eq(read.version, record.version);
    ck_assert_uint_eq(read.length, record.length);
    ck_assert_uint_eq(read.payload_crc, record.payload_crc);
    ck_assert_uint_eq(read.empty_pieces, record.empty_pieces);
    ck_assert_mem_eq(read.commit_id, record.commit_id, 16);
}
END_TEST

START_TEST(record_is_good_only_in_its_own_file_and_place)
{
    struct tosc__record record = sample();
    struct tosc__record read;
    struct tosc__identity here;
    struct tosc__identity later;
    struct tosc__identity other;
    unsigned char bytes[TOSC__RECORD_SIZE];
    uint8_t id[16] = {1};

    make_identity(&here, 5);
    make_identity(&later, 6);
    tosc__identity_init(&other, id, 5);
    tosc__record_encode(&record, &here, 4096, bytes);
    ck_assert(!tosc__record_decode(bytes, &here, 4104, &read));
    ck_assert(!tosc__record_decode(bytes, &later, 4096, &read));
    ck_assert(!tosc__record_decode(bytes, &other, 4096, &read));
}
END_TEST

START_TEST(every_flipped_bit_in_a_records_header_is_seen)
{
    struct tosc__record record = sample();
    struct tosc__record read;
    struct tosc__identity identity;
    unsigned char bytes[TOSC__RECORD_SIZE];

    make_identity(&identity, 5);
    tosc__record_encode(&record, &identity, 64, bytes);
    for (unsigned bit = 0; bit < 8 * sizeof(bytes); bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        ck_assert(!tosc__record_decode(bytes, &identity, 64, &read));
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    ck_assert(tosc__record_decode(bytes, &identity, 64, &read));
}
END_TEST

START_TEST(first_and_last_words_of_a_records_header_are_never_zero)
{
    struct tosc__identity identity;
    unsigned char bytes[TOSC__RECORD_SIZE];

    make_identity(&identity, 5);
    for (int i = 0; i < 10000; i++) {
        struct tosc__record record = {.kind = TOSC__APPEND, .version = 1 + i};

        tosc__record_encode(&record, &identity, 64 + 8 * (uint64_t)i, bytes);
        ck_assert(!tosc__is_zero(bytes, 8));
        ck_assert(!tosc__is_zero(bytes + TOSC__RECORD_SIZE - 8, 8));
    }
}
END_TEST

START_TEST(empty_pieces_are_counted_alike_by_writer_and_judge)
{
    size_t room = 8192;
    unsigned char *record = malloc(room);

    for (int round = 0; round < 3000; round++) {
        uint64_t offset = random_number() % 200 * 8;
        size_t length = random_number() % 4000;
        unsigned char *payload = record + TOSC__RECORD_SIZE;
        uint64_t extent = tosc__record_extent(length);

        memset(record, 0, room);
        memset(record, 1, TOSC__RECORD_SIZE);
        for (uint64_t n = random_number() % 4; n > 0 && length > 0; n--) {
            payload[random_number() % length] = 1;
        }
        ck_assert_uint_eq(tosc__payload_empty_pieces(payload, length, offset),
                          tosc__count_empty_pieces(record, extent, offset));
    }
    free(record);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("record");
    TCase *tests = tcase_create("framing");

    tcase_add_test(tests, checksum_is_crc32c);
    tcase_add_test(tests, checksum_by_instruction_and_by_table_agree_at_every_length);
    tcase_add_test(tests, checksum_of_parts_is_checksum_of_the_whole);
    tcase_add_test(tests, header_survives_a_round_trip);
    tcase_add_test(tests, header_has_the_documented_bytes);
    tcase_add_test(tests, every_flipped_bit_in_a_header_is_seen);
    tcase_add_test(tests, header_of_a_later_format_is_told_from_a_damaged_one);
    tcase_add_test(tests, short_header_is_foreign_or_damaged);
    tcase_add_test(tests, record_survives_a_round_trip);
    tcase_add_test(tests, record_is_good_only_in_its_own_file_and_place);
    tcase_add_test(tests, every_flipped_bit_in_a_records_header_is_seen);
    tcase_add_test(tests, first_and_last_words_of_a_records_header_are_never_zero);
    tcase_add_test(tests, empty_pieces_are_counted_alike_by_writer_and_judge);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
