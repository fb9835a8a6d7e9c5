"""Exact sums, a hundred times over."""
# SPDX-License-Identifier: Apache-2.0
import threading

import pytest

import tosc
from harness import Thread, make_store, drop_store, stored
from test_processes import count_together


@pytest.mark.seconds(170)
@pytest.mark.parametrize('kind', ['inproc', 'shm', 'python'])
def test_a_hundred_threads_on_one_manager_a_hundred_times(kind):
    for _ in range(100):
        store = make_store(kind)
        try:
            manager = store.manager({'counter': 0})
            data = manager.read()
            barrier = threading.Barrier(100, timeout=30)

            @tosc.transactional(manager)
            def increment(data=data):
                data['counter'] += 1

            def work(barrier=barrier, increment=increment):
                barrier.wait()
                increment()

            for thread in [Thread(work) for _ in range(100)]:
                thread.result()
            assert data['counter'] == 100 == stored(store)['counter']
        finally:
            drop_store(store)


@pytest.mark.seconds(170)
def test_eight_processes_on_one_file_a_hundred_times(quick_file_store, children):
    manager = quick_file_store.manager({'counter': 0})
    for round_ in range(100):
        count_together(children, quick_file_store.path, 8, 20)
        assert manager.refresh() == {'counter': 160 * (round_ + 1)}


@pytest.mark.seconds(120)
def test_nobody_is_starved(quick_file_store, children):
    """Four processes on one counter for some seconds: each gets its share."""
    quick_file_store.manager({'counter': 0})
    code = '''
        manager = tosc.Manager(tosc.FileBackend(sys.argv[1], durable=False))
        data = manager.read()
        @tosc.transactional(manager)
        def increment():
            data['counter'] += 1
            begin = time.monotonic()
            while time.monotonic() - begin < 0.001:
                pass
        print('ready', flush=True)
        sys.stdin.readline()
        until = time.monotonic() + 5
        n = 0
        while time.monotonic() < until:
            increment()
            n += 1
        print(n, flush=True)
    '''
    started = [children(code, quick_file_store.path, timeout=60) for _ in range(4)]
    for child in started:
        child.line()
    for child in started:
        child.send()
    counts = [int(child.line()) for child in started]
    for child in started:
        child.check()
    assert stored(quick_file_store) == {'counter': sum(counts)}
    assert min(counts) > 0.3 * max(counts), counts
