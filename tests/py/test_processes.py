"""Several processes on one file: exact sums, readers beside writers, files that go and come."""
# SPDX-License-Identifier: Apache-2.0
import multiprocessing
import os
import shutil
import time

import pytest

import tosc
from harness import Thread, run_child, stored, wait_until
from opening import open_store

COUNTER = '''
    import json
    path, times = sys.argv[1], int(sys.argv[2])
    manager = tosc.Manager(open_store(path))
    data = manager.read()

    @tosc.transactional(manager)
    def increment():
        data['counter'] += 1

    print('ready', flush=True)
    sys.stdin.readline()
    for _ in range(times):
        increment()
'''


def count_together(children, path, processes, times):
    started = [children(COUNTER, path, times, timeout=60) for _ in range(processes)]
    for child in started:
        assert child.line() == 'ready'
    for child in started:
        child.send()
    for child in started:
        child.check()


def test_eight_processes_increment_one_counter(shared_store, children):
    manager = shared_store.manager({'counter': 0})
    for round_ in range(5 if shared_store.kind == 'shm' else 1):
        count_together(children, shared_store.path, 8, 25)
        assert manager.refresh() == {'counter': 200 * (round_ + 1)}
    assert stored(shared_store) == manager.read()


def test_processes_with_threads(shared_store, children):
    shared_store.manager({'counter': 0})
    code = '''
        import threading
        manager = tosc.Manager(open_store(sys.argv[1]))
        data = manager.read()

        @tosc.transactional(manager)
        def increment():
            data['counter'] += 1

        def work():
            for _ in range(20):
                increment()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    '''
    started = [children(code, shared_store.path) for _ in range(3)]
    for child in started:
        child.check()
    assert stored(shared_store) == {'counter': 240}


WRITER = '''
    manager = tosc.Manager(open_store(sys.argv[1], durable=False))
    mode, seconds = sys.argv[2], float(sys.argv[3])
    print('ready', flush=True)
    until = time.monotonic() + seconds
    n = 0

    @tosc.transactional(manager)
    def append():
        data = manager.read()
        data['a'] = data['b'] = data['a'] + 1
        data['list'].append(data['a'])
        if len(data['list']) > 300:
            del data['list'][:200]
        data['text'] = 'x' * (data['a'] % 5000) + '|' + str(data['a'])

    @tosc.transactional(manager)
    def replace():
        old = manager.read()
        new = old['a'] + 1
        manager.write({'a': new, 'b': new, 'list': [*old['list'][-100:], new],
                       'text': 'x' * (new % 5000) + '|' + str(new)})

    while time.monotonic() < until:
        n += 1
        if mode == 'replace':
            replace()
        else:
            append()
    print(n, flush=True)
'''


def check_state(data):
    """The invariant of what WRITER writes."""
    value = data['a']
    assert data['b'] == value
    assert data['list'][-1] == value
    numbers = list(data['list'])
    assert numbers == list(range(numbers[0], value + 1))
    assert data['text'] == 'x' * (value % 5000) + '|' + str(value)
    return value


def read_beside_writers(store, children, seconds):
    """Two writers, which append, replace and so compact; readers of every sort beside them."""
    store.manager({'a': 0, 'b': 0, 'list': [0], 'text': '|0'})
    writers = [children(WRITER, store.path, mode, seconds, timeout=seconds + 30)
               for mode in ('append', 'replace')]
    for writer in writers:
        assert writer.line() == 'ready'
    with tosc.Manager(open_store(store.path)) as following:
        newest = looks = 0
        while any(writer.process.poll() is None for writer in writers):
            with following.transaction():
                values = [check_state(following.read())]
            values.append(check_state(following.snapshot()))
            following.refresh()
            with following.transaction():
                values.append(check_state(following.read()))
            with tosc.Manager(open_store(store.path)) as fresh:
                values.append(check_state(fresh.snapshot()))
            version, data = open_store(store.path).read()
            assert version is not None and len(bytes(data)) > 0
            assert values == sorted(values), 'time does not go back'
            assert values[0] >= newest
            newest = values[2]
            looks += 1
        commits = [int(writer.check().splitlines()[-1]) for writer in writers]
        assert check_state(following.refresh()) == sum(commits)
    assert looks > 3 and min(commits) > 0
    return looks, commits


def test_a_reader_beside_two_writers(shared_store, children):
    read_beside_writers(shared_store, children, 1.5)


def test_large_data_are_never_read_in_part(quick_shared_store, children):
    """Short reads while another process writes were once unpickled."""
    store = quick_shared_store
    store.manager(['0' * 1_000_000] * 3)
    writer = children('''
        manager = tosc.Manager(open_store(sys.argv[1], durable=False))
        print('ready', flush=True)
        until = time.monotonic() + 1.0
        n = 0
        while time.monotonic() < until:
            n += 1
            manager.write([str(n % 10) * (1_000_000 + n)] * 3)
    ''', store.path)
    writer.line()
    while writer.process.poll() is None:
        with tosc.Manager(open_store(store.path)) as manager:
            first, second, third = manager.read()
            assert first == second == third and len(set(first)) == 1
    writer.check()


def test_changes_travel_between_processes_in_both_directions(shared_store, children):
    manager = shared_store.manager({'ping': 0, 'pong': 0})
    data = manager.read()
    child = children('''
        manager = tosc.Manager(open_store(sys.argv[1]))
        data = manager.read()
        print('ready', flush=True)
        for n in range(1, 51):
            while data['ping'] < n:
                time.sleep(0)
            data['pong'] = n
    ''', shared_store.path)
    child.line()
    for n in range(1, 51):
        data['ping'] = n
        wait_until(lambda n=n: data['pong'] == n, what='the answer')
    child.check()


def test_a_deleted_and_recreated_file_is_seen(file_store):
    """It was once never noticed: the old contents stayed for ever."""
    manager = file_store.manager({'old': [1]})
    manager.read()
    os.unlink(file_store.path)
    with tosc.Manager(file_store.backend()) as other:
        other.write({'new': [2]})
    wait_until(lambda: manager.read(None) == {'new': [2]}, what='the new file')
    manager.refresh()['new'].append(3)
    assert stored(file_store) == {'new': [2, 3]}


def test_a_recreated_file_with_the_same_version_is_another_store(file_store):
    """Versions of the old file mean nothing in the new one: no change is applied to it."""
    manager = file_store.manager({'old': 0})
    version = manager.version
    with pytest.raises(tosc.TransactionError):
        with manager.transaction():
            manager.read()['old'] = 1
            os.unlink(file_store.path)
            with tosc.Manager(file_store.backend()) as other:
                other.write({'new': 0})
                assert other.version == version, 'the test wants equal versions'
    assert stored(file_store) == {'new': 0}
    assert manager.refresh() == {'new': 0}


def test_a_file_replaced_by_a_backup_is_seen(file_store, tmp_path):
    manager = file_store.manager({'n': 1})
    backup = tmp_path / 'backup'
    shutil.copy(file_store.path, backup)
    for n in range(5):
        manager.read()['n'] = n + 2
    os.replace(shutil.copy(backup, file_store.path + '.new'), file_store.path)
    wait_until(lambda: manager.refresh() == {'n': 1}, what='the backup')
    manager.read()['n'] = 100
    assert stored(file_store) == {'n': 100}


def test_a_deleted_file_is_an_empty_store(file_store):
    manager = file_store.manager({'n': 1})
    os.unlink(file_store.path)
    wait_until(lambda: manager.refresh(None) is None, what='the empty store')
    assert manager.version is None
    manager.write({'n': 2})
    assert stored(file_store) == {'n': 2}


def test_relative_paths_are_those_of_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tosc.Manager(tosc.FileBackend('store')) as manager:
        manager.write([1])
        os.mkdir('other')
        monkeypatch.chdir('other')
        manager.read().append(2)
        assert os.listdir('.') == []
    assert (tmp_path / 'store').is_file()
    with tosc.Manager(tosc.FileBackend(tmp_path / 'store')) as manager:
        assert manager.read() == [1, 2]


@pytest.mark.parametrize('name', ['with space', 'ünïcode', 'x' * 200, '-dash', 'new\nline'])
def test_unusual_file_names(tmp_path, name):
    with tosc.Manager(tosc.FileBackend(tmp_path / name)) as manager:
        manager.write([1])
        manager.read().append(2)
    with tosc.Manager(tosc.FileBackend(str(tmp_path / name))) as manager:
        assert manager.read() == [1, 2]


def test_stores_in_one_directory_do_not_disturb_each_other(tmp_path):
    managers = [tosc.Manager(tosc.FileBackend(tmp_path / f'store{n}')) for n in range(5)]
    for n, manager in enumerate(managers):
        manager.write([n])
    for _ in range(10):
        for n, manager in enumerate(managers):
            manager.read().append(n)
    for n, manager in enumerate(managers):
        assert manager.refresh() == [n] * 11
        manager.close()


# ---- multiprocessing ----

def _worker(path, key, times):
    manager = tosc.Manager(open_store(path))
    data = manager.read()

    @tosc.transactional(manager)
    def step():
        data[key] = data.get(key, 0) + 1
        data['total'] += 1

    for _ in range(times):
        step()
    manager.close()


@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
def test_multiprocessing(quick_shared_store, method):
    manager = quick_shared_store.manager({'total': 0})
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=_worker, args=(quick_shared_store.path, key, 20))
                 for key in 'abc']
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert manager.refresh() == {'total': 60, 'a': 20, 'b': 20, 'c': 20}


def test_wrappers_pass_through_a_multiprocessing_pipe_as_plain_data(quick_shared_store):
    manager = quick_shared_store.manager({'a': [1]})
    here, there = multiprocessing.Pipe()
    there.send(manager.read())
    received = here.recv()
    assert received == {'a': [1]} and type(received) is dict


def test_a_process_that_only_reads_does_not_change_the_file(quick_file_store):
    quick_file_store.manager([1])
    before = open(quick_file_store.path, 'rb').read()
    status = os.stat(quick_file_store.path)
    run_child('''
        manager = tosc.Manager(tosc.FileBackend(sys.argv[1]))
        assert manager.read() == [1]
        assert manager.snapshot() == [1]
    ''', quick_file_store.path)
    assert open(quick_file_store.path, 'rb').read() == before
    assert os.stat(quick_file_store.path).st_mtime_ns == status.st_mtime_ns


def test_news_come_quickly(quick_shared_store):
    """Well under a poll's interval, where the filesystem tells of changes."""
    one, two = quick_shared_store.pair({'n': 0})
    theirs = two.read()
    delays = []
    for n in range(1, 21):
        begin = time.perf_counter()
        one.read()['n'] = n
        while theirs['n'] != n:
            time.sleep(0)
            assert time.perf_counter() - begin < 10
        delays.append(time.perf_counter() - begin)
    assert sorted(delays)[10] < 0.02, delays


def test_the_file_shrinks_back_by_compaction(quick_file_store):
    manager = quick_file_store.manager({'list': []})
    data = manager.read()
    data['list'].extend(range(50_000))
    data['list'].clear()
    for n in range(2000):
        data['n'] = n
    wait_until(lambda: os.path.getsize(quick_file_store.path) < 200_000, timeout=20,
               what='the compaction')
    assert stored(quick_file_store) == {'list': [], 'n': 1999}


def test_two_threads_write_while_the_process_reads_through_another_manager(quick_shared_store):
    store = quick_shared_store
    managers = [store.manager({'a': [], 'b': []}), store.manager()]

    def work(manager, key):
        data = manager.read()

        @tosc.transactional(manager)
        def step(n):
            data[key].append(n)

        for n in range(100):
            step(n)

    threads = [Thread(work, manager, key) for manager, key in zip(managers, 'ab')]
    with tosc.Manager(store.backend()) as reader:
        while any(thread.is_alive() for thread in threads):
            snapshot = reader.snapshot()
            assert snapshot['a'] == list(range(len(snapshot['a'])))
            assert snapshot['b'] == list(range(len(snapshot['b'])))
    for thread in threads:
        thread.result()
    assert stored(store) == {'a': list(range(100)), 'b': list(range(100))}
