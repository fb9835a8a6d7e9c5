"""Much more of test_records.py, test_links.py and test_overlays.py."""
# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'py'))

import fuzz  # noqa: E402
import test_links  # noqa: E402
import test_overlays  # noqa: E402


@pytest.mark.parametrize('seed', range(100, 120))
def test_five_thousand_damaged_stores(seed):
    fuzz.main(seed, 5000)


@pytest.mark.parametrize('seed', range(1000, 1040))
def test_long_histories_keep_their_links(seed):
    for first, _ in test_links.run(seed, 300):
        pass


@pytest.mark.parametrize('seed', range(10, 30))
def test_many_histories_in_processes_of_other_hash_seeds(seed, tmp_path):
    test_links.test_processes_with_other_hash_seeds_come_to_the_same_graph(seed, tmp_path)


@pytest.mark.parametrize('kind', list(test_overlays.KINDS))
def test_thousands_of_large_objects(kind):
    for seed in range(1000, 3000):
        test_overlays.test_a_transaction_sees_what_a_plain_object_would_show(kind, seed)
