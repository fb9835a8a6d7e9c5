"""The cost of a commit follows the change: in bytes of the file, in large stores, over time."""
# SPDX-License-Identifier: Apache-2.0
import os
import time

import pytest

import tosc
from harness import stored, wait_until


def quick(store):
    return tosc.Manager(tosc.FileBackend(store.path, durable=False))


@pytest.mark.seconds(170)
def test_a_commit_of_one_key_in_a_dict_of_a_million(quick_file_store):
    with quick(quick_file_store) as one, quick(quick_file_store) as two:
        one.write({'d': dict.fromkeys(range(1_000_000), 0), 'l': list(range(1000))})
        data, other = one.read(), two.read()
        for n in range(50):
            before = os.path.getsize(quick_file_store.path)
            data['d'][n * 1000] = n + 1
            grown = os.path.getsize(quick_file_store.path) - before
            assert 0 < grown < 400, grown
            begin = time.perf_counter()
            assert two.refresh()['d'][n * 1000] == n + 1
            assert time.perf_counter() - begin < 0.2
        begin = time.perf_counter()
        for n in range(1000):
            data['d'][n] = -n
        took = time.perf_counter() - begin
        assert took < 1.0, f'{took} s for 1000 commits'
        assert two.refresh()['d'][999] == -999
        with one.transaction():
            for n in range(100):
                data['d'][n] = 'again'
        assert other['d'][99] in ('again', -99)
        del other


@pytest.mark.seconds(170)
def test_an_append_to_a_list_of_a_million(quick_file_store):
    with quick(quick_file_store) as one, quick(quick_file_store) as two:
        one.write([0] * 1_000_000)
        root, other = one.read(), two.read()
        before = os.path.getsize(quick_file_store.path)
        begin = time.perf_counter()
        for n in range(200):
            root.append(n)
        took = time.perf_counter() - begin
        assert os.path.getsize(quick_file_store.path) - before < 200 * 400
        assert took < 1.0
        assert len(two.refresh()) == 1_000_200 and other[-1] == 199
        root[500_000] = 'middle'
        del root[0]
        root.insert(3, 'x')
        assert os.path.getsize(quick_file_store.path) - before < 210 * 400
        two.refresh()
        assert other[3] == 'x' and other[499_999 + 1] == 'middle'


@pytest.mark.seconds(170)
def test_a_hundred_thousand_commits_do_not_blow_up_the_file(quick_file_store):
    with quick(quick_file_store) as manager, quick(quick_file_store) as follower:
        manager.write({n: f'{-n:0100d}' for n in range(1000)})
        data = manager.read()
        base = os.path.getsize(quick_file_store.path)
        largest = 0
        begin = time.monotonic()
        for n in range(100_000):
            data[n % 1000] = f'{n:0100d}'
            if n % 100 == 0:
                largest = max(largest, os.path.getsize(quick_file_store.path))
            if n % 5000 == 0:
                assert follower.refresh()[n % 1000] == f'{n:0100d}'
        took = time.monotonic() - begin
        assert largest < 8 * base, (largest, base)
        wait_until(lambda: os.path.getsize(quick_file_store.path) < 6 * base, timeout=20,
                   what='the last compaction')
        assert follower.refresh() == data
    assert stored(quick_file_store)[999] == f'{99_999:0100d}'
    assert took < 100


@pytest.mark.seconds(170)
def test_a_small_counter_for_a_long_time(file_store):
    with quick(file_store) as manager:
        manager.write({'n': 0})
        data = manager.read()
        for n in range(60_000):
            data['n'] = n
            if n % 1000 == 0:
                assert os.path.getsize(file_store.path) < 4_000_000
    assert stored(file_store) == {'n': 59_999}


@pytest.mark.seconds(170)
def test_a_log_that_is_cut_at_its_front(quick_file_store):
    with quick(quick_file_store) as manager:
        manager.write([])
        root = manager.read()
        for n in range(20_000):
            with manager.transaction():
                root.append({'n': n})
                if len(root) > 100:
                    del root[:50]
        assert [entry['n'] for entry in root] == list(range(20_000 - len(root), 20_000))
        wait_until(lambda: os.path.getsize(quick_file_store.path) < 1_000_000, timeout=20,
                   what='the compaction')
    assert len(stored(quick_file_store)) <= 101
