"""SIGKILL at random moments: no acknowledged commit is lost, nothing torn is read."""
# SPDX-License-Identifier: Apache-2.0
import os
import signal
import time

import pytest

import tosc
from crashing import kill_writers
from harness import run_child, stored


@pytest.mark.parametrize('durable', [True, False], ids=['durable', 'quick'])
def test_writers_killed_at_random_moments(file_store, children, durable):
    kill_writers(file_store, children, 8, durable, seed=len(file_store.kind) + durable)


def test_killed_while_a_transaction_is_open(file_store, children):
    file_store.manager({'n': 0})
    child = children('''
        manager = tosc.Manager(tosc.FileBackend(sys.argv[1]))
        with manager.transaction():
            manager.read()['n'] = 1
            print('open', flush=True)
            time.sleep(60)
    ''', file_store.path)
    child.line()
    child.signal(signal.SIGKILL)
    child.wait()
    assert stored(file_store) == {'n': 0}
    with tosc.Manager(file_store.backend()) as manager:
        manager.read()['n'] = 2
    assert stored(file_store) == {'n': 2}


def test_killed_while_a_large_base_is_written(file_store, children):
    """The old state or the new one, and what was left behind goes away."""
    file_store.manager(['old'])
    for _ in range(6):
        child = children('''
            manager = tosc.Manager(tosc.FileBackend(sys.argv[1], durable=False))
            big = ['new'] + ['x' * 1000] * 20000
            print('ready', flush=True)
            while True:
                manager.write(big)
        ''', file_store.path)
        child.line()
        time.sleep(0.01 * (1 + _))
        child.signal(signal.SIGKILL)
        child.wait()
        found = stored(file_store)
        assert found == ['old'] or (found[0] == 'new' and len(found) == 20001)
    with tosc.Manager(file_store.backend()) as manager:
        manager.write(['mended'])
        manager.write(['mended again'])
    assert stored(file_store) == ['mended again']
    size = sum(os.path.getsize(os.path.join(file_store.directory, name))
               for name in os.listdir(file_store.directory))
    assert size < 1_000_000 * len(os.listdir(file_store.directory)), \
        os.listdir(file_store.directory)


def test_temporary_files_of_the_dead_do_not_pile_up(quick_file_store, children):
    quick_file_store.manager(['old'])
    for n in range(12):
        child = children('''
            manager = tosc.Manager(tosc.FileBackend(sys.argv[1], durable=False))
            big = ['x' * 1000] * 20000
            print('ready', flush=True)
            while True:
                manager.write(big)
        ''', quick_file_store.path)
        child.line()
        time.sleep(0.005 + 0.003 * n)
        child.signal(signal.SIGKILL)
        child.wait()
    with tosc.Manager(quick_file_store.backend()) as manager:
        manager.write(['small'])
        manager.write(['small again'])
    left = set(os.listdir(quick_file_store.directory)) - {'store', 'store.lock'}
    assert len(left) <= 2, left


def test_stopped_and_continued(file_store, children):
    """A writer that is stopped in the middle does not break anything when it goes on."""
    file_store.manager({'a': 0, 'b': 0})
    child = children('''
        manager = tosc.Manager(tosc.FileBackend(sys.argv[1]))
        data = manager.read()
        @tosc.transactional(manager)
        def step():
            data['a'] += 1
            data['b'] += 1
        print('ready', flush=True)
        while os.getppid() != 1:
            step()
            if os.path.exists(sys.argv[1] + '.stop'):
                break
    ''', file_store.path)
    child.line()
    with tosc.Manager(file_store.backend()) as manager:
        for n in range(20):
            child.signal(signal.SIGSTOP)
            with manager.transaction():
                data = manager.refresh()
                assert data['a'] == data['b']
            child.signal(signal.SIGCONT)
            tosc.transactional(manager)(lambda: data.update(a=data['a'] + 1, b=data['b'] + 1))()
    open(file_store.path + '.stop', 'w').close()
    child.check()
    state = stored(file_store)
    assert state['a'] == state['b'] > 20


def test_a_process_that_dies_by_a_fault_frees_the_lock(file_store, children):
    file_store.manager({'n': 0})
    child = children('''
        import ctypes, threading
        faulthandler.disable()
        manager = tosc.Manager(tosc.FileBackend(sys.argv[1]))
        data = manager.read()
        step = tosc.transactional(manager)(lambda: data.__setitem__('n', data['n'] + 1))
        def work():
            while True:
                step()
        for _ in range(2):
            threading.Thread(target=work, daemon=True).start()
        while data['n'] < 50:
            time.sleep(0.001)
        ctypes.string_at(0)
    ''', file_store.path, env=dict(os.environ, ASAN_OPTIONS='handle_segv=0:detect_leaks=0'))
    assert child.wait() == -signal.SIGSEGV
    begin = time.monotonic()
    with tosc.Manager(file_store.backend()) as manager:
        data = manager.read()
        assert data['n'] >= 50
        # The last commit of the dead may come to light only now, as a conflict.
        tosc.transactional(manager)(lambda: data.__setitem__('n', 0))()
    assert time.monotonic() - begin < 1
    run_child('''
        manager = tosc.Manager(tosc.FileBackend(sys.argv[1]))
        manager.read()['n'] += 1
    ''', file_store.path)
    assert stored(file_store) == {'n': 1}
