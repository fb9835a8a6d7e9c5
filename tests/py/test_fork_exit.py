"""Forks, and every way in which a process can come to its end."""
# SPDX-License-Identifier: Apache-2.0
import os
import signal
import textwrap

import pytest

from harness import Thread, run_child, stored, wait_until

PREAMBLE = '''
import signal
# The watchdog of faulthandler does not survive a fork, and waits for itself then.
faulthandler.cancel_dump_traceback_later()
signal.alarm(45)
manager = tosc.Manager(open_store(sys.argv[1]))
data = manager.read()

def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.001)

def reap(pid):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, f'the forked child ended with {status}'
            return
        time.sleep(0.002)
    os.kill(pid, 9)
    raise AssertionError('the forked child hangs')

def forked(function):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        import traceback
        signal.alarm(15)
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid
'''


def script(code):
    # A watcher may be allocating at the moment of a fork, and GCC 12's AddressSanitizer does not
    # make its allocator safe for that.
    if 'fork' in code and 'TOSC_SANITIZED' in os.environ:
        pytest.skip("the sanitizer's own locks may stay taken in the child")
    return PREAMBLE + textwrap.dedent(code)


# ---- fork ----

def test_the_child_of_a_fork_commits(shared_store):
    shared_store.manager({'n': 0})
    run_child(script('''
        def child():
            data['n'] += 1
            assert manager.refresh()['n'] == 1
        reap(forked(child))
        until(lambda: data['n'] == 1)
        data['n'] += 1
    '''), shared_store.path)
    assert stored(shared_store) == {'n': 2}


def test_the_child_of_a_fork_hears_of_changes(shared_store):
    """It once never updated: threads do not survive a fork."""
    shared_store.manager({'n': 0})
    run_child(script('''
        def child():
            until(lambda: manager.read()['n'] == 1)
            until(lambda: data['n'] == 1)
            data['n'] = 2
        pid = forked(child)
        data['n'] = 1
        until(lambda: data['n'] == 2)
        reap(pid)
    '''), shared_store.path)
    assert stored(shared_store) == {'n': 2}


def test_forks_while_other_threads_commit(shared_store):
    shared_store.manager({'threads': 0, 'children': 0})
    run_child(script('''
        import threading
        stop = threading.Event()

        @tosc.transactional(manager)
        def step(key):
            data[key] += 1

        def work():
            while not stop.is_set():
                step('threads')

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()

        def child():
            for _ in range(5):
                step('children')
            with manager.transaction():
                assert data['children'] >= 5

        for _ in range(6):
            pids = [forked(child) for _ in range(2)]
            for pid in pids:
                reap(pid)
        stop.set()
        for thread in threads:
            thread.join()
        assert manager.refresh()['children'] == 60, data
        assert data['threads'] > 0
        manager.close()
    '''), shared_store.path, timeout=50)
    assert stored(shared_store)['children'] == 60


def test_fork_inside_of_a_transaction(shared_store):
    """Both have the transaction open; whoever commits first wins."""
    shared_store.manager({'n': 0})
    run_child(script('''
        def child():
            data['child'] = 1
            assert data == {'n': 1, 'child': 1}
            transaction.commit()

        try:
            with manager.transaction() as transaction:
                data['n'] = 1
                reap(forked(child))
                data['parent'] = 1
        except tosc.TransactionError:
            print('conflict')
        assert manager.refresh() == {'n': 1, 'child': 1}, data
    '''), shared_store.path)
    assert stored(shared_store) == {'n': 1, 'child': 1}


def test_fork_with_an_in_process_store():
    """After the fork they are two stores."""
    run_child('''
        faulthandler.cancel_dump_traceback_later()
        backend = tosc.InprocBackend()
        manager = tosc.Manager(backend)
        manager.write({'n': 0})
        data = manager.read()
        pid = os.fork()
        if pid == 0:
            data['n'] = 'child'
            other = tosc.Manager(backend)
            assert other.read() == {'n': 'child'}
            other.read()['n'] = 'other'
            deadline = time.monotonic() + 10
            while data['n'] != 'other' and time.monotonic() < deadline:
                time.sleep(0.001)
            os._exit(0 if data['n'] == 'other' else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert data == {'n': 0} == manager.refresh()
        data['n'] = 1
    ''')


def test_grandchildren(shared_store):
    shared_store.manager({'n': 0})
    run_child(script('''
        def child():
            data['n'] += 1
            reap(forked(grandchild))
            until(lambda: data['n'] == 2)
            data['n'] += 1

        def grandchild():
            until(lambda: data['n'] == 1)
            data['n'] += 1

        reap(forked(child))
        until(lambda: data['n'] == 3)
    '''), shared_store.path)


def test_the_child_may_end_by_exit_and_the_parent_is_not_disturbed(shared_store):
    shared_store.manager({'n': 0})
    output = run_child(script('''
        import atexit
        atexit.register(lambda: print('atexit', os.getpid() == parent, flush=True))
        parent = os.getpid()
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                with manager.transaction():
                    data['n'] += 1
                sys.exit(0)
            reap(pid)
        until(lambda: data['n'] == 3)
        data['n'] += 1
    '''), shared_store.path)
    assert output.splitlines() == ['atexit False'] * 3 + ['atexit True']
    assert stored(shared_store) == {'n': 4}


def test_a_child_that_closes_its_manager_does_not_disturb_the_parent(shared_store):
    shared_store.manager({'n': 0})
    run_child(script('''
        reap(forked(manager.close))
        other = tosc.Manager(open_store(sys.argv[1]))
        other.read()['n'] = 1
        until(lambda: data['n'] == 1)
        data['n'] = 2
        assert other.refresh()['n'] == 2
    '''), shared_store.path)


def test_a_child_that_is_forked_while_a_thread_waits_in_target_wait(shared_store):
    shared_store.manager({'n': 0})
    run_child(script('''
        import threading
        backend = open_store(sys.argv[1])
        def wait():
            while manager.read()['n'] != 'end':
                backend.target_wait(0.5)
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        def child():
            data['n'] = 'end'
            assert backend.read()[0] == manager.version
        reap(forked(child))
        thread.join(10)
        assert not thread.is_alive()
    '''), shared_store.path)


def test_subprocess_does_not_inherit_descriptors(shared_store):
    shared_store.manager([1])
    output = run_child(script('''
        import subprocess
        backend = open_store(sys.argv[1])
        backend.read()
        data.append(2)
        listing = subprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False,
                                 capture_output=True, text=True).stdout
        print('store' in listing or 'inotify' in listing or 'eventfd' in listing)
    '''), shared_store.path)
    assert output == 'False'


# ---- exit ----

@pytest.mark.parametrize('ending', ['pass', 'sys.exit(0)', 'os._exit(0)', 'manager.close()',
                                    'del manager, data', 'raise SystemExit',
                                    'import gc; gc.disable()', 'tosc.keep = manager, data'])
def test_endings(shared_store, children, ending):
    shared_store.manager({'n': 0})
    child = children(script('data["n"] = 1\n' + ending), shared_store.path)
    assert child.wait() == 0, child.stderr
    assert child.stderr == ''
    assert stored(shared_store) == {'n': 1}, 'what was committed is there, however it ended'


def test_exit_status_and_uncaught_exceptions(shared_store, children):
    shared_store.manager({'n': 0})
    child = children(script('sys.exit(7)'), shared_store.path)
    assert child.wait() == 7 and child.stderr == ''
    child = children(script('raise ValueError("mine")'), shared_store.path)
    assert child.wait() == 1
    assert 'ValueError: mine' in child.stderr


def test_exit_with_an_open_transaction(shared_store, children):
    shared_store.manager({'n': 0})
    for code in ('transaction = manager.transaction(); transaction.__enter__(); data["n"] = 1',
                 '''
def generator():
    with manager.transaction():
        data["n"] = 1
        yield
running = generator()
next(running)
''', '''
with manager.transaction():
    data["n"] = 1
    sys.exit(0)
''', '''
with manager.transaction():
    data["n"] = 1
    os._exit(0)
'''):
        child = children(script(code), shared_store.path)
        assert child.wait() == 0, child.stderr
        assert stored(shared_store) == {'n': 0}


def test_exit_with_transactions_open_in_daemon_threads(shared_store, children):
    shared_store.manager({'n': 0})
    child = children(script('''
        import threading
        ready = threading.Event()
        def work():
            with manager.transaction():
                data['n'] = 1
                ready.set()
                threading.Event().wait()
        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        ready.wait()
    '''), shared_store.path)
    assert child.wait() == 0, child.stderr
    assert stored(shared_store) == {'n': 0}


def test_exit_while_daemon_threads_commit(shared_store, children):
    shared_store.manager({'a': 0, 'b': 0})
    for _ in range(5):
        child = children(script('''
            import threading
            started = threading.Event()
            @tosc.transactional(manager)
            def step():
                data['a'] += 1
                data['b'] += 1
            def work():
                while True:
                    step()
                    started.set()
            for _ in range(3):
                threading.Thread(target=work, daemon=True).start()
            started.wait()
        '''), shared_store.path)
        assert child.wait() == 0, child.stderr
        assert child.stderr == ''
        state = stored(shared_store)
        assert state['a'] == state['b'] > 0


def test_exit_while_the_watcher_is_busy(shared_store, children):
    manager = shared_store.manager({'n': 0, 'list': []})
    data = manager.read()
    stop = []

    def work():
        while not stop:
            with manager.transaction():
                data['n'] += 1
                data['list'].append({'n': data['n']})
                if len(data['list']) > 100:
                    data['list'].clear()

    writer = Thread(work)
    try:
        for n in range(8):
            child = children(script(
                'until(lambda: data["n"] != manager.version)\n'
                'seen = data["n"]\n'
                'until(lambda: data["n"] != seen)\n' + ['', 'sys.exit(0)', 'del manager'][n % 3]),
                shared_store.path)
            assert child.wait() == 0, child.stderr
            assert child.stderr == ''
    finally:
        stop.append(True)
    writer.result()


def test_use_at_exit(shared_store, children):
    """Functions of atexit run before or after the watchers stop, as they were registered."""
    shared_store.manager({'n': 0})
    child = children('''
        import atexit
        manager = None
        def late():
            try:
                manager.read()['n'] += 1
                manager.write(manager.snapshot())
                print('late done', flush=True)
            except tosc.Error as error:
                print('late', type(error).__name__, flush=True)
        atexit.register(late)
        manager = tosc.Manager(open_store(sys.argv[1]))
        data = manager.read()
        def early():
            data['n'] += 1
            print('early done', flush=True)
        atexit.register(early)
    ''', shared_store.path)
    assert child.wait() == 0, child.stderr
    assert child.stderr == ''
    assert child.out[0] == 'early done'
    assert child.out[1] in ('late done', 'late ClosedError')


def test_an_exception_at_exit(shared_store, children):
    shared_store.manager({'n': 0})
    child = children(script('''
        import atexit
        def fail():
            data['n'] = 1
            raise ZeroDivisionError('at exit')
        atexit.register(fail)
    '''), shared_store.path)
    assert child.wait() == 0
    assert 'at exit' in child.stderr
    assert stored(shared_store) == {'n': 1}


def test_use_in_finalisers_at_the_very_end(shared_store, children):
    shared_store.manager({'n': 0, 'o': []})
    child = children(script('''
        class Late:
            def __del__(self, data=data, manager=manager, tosc=tosc):
                try:
                    data['o'].append(1)
                    list(data)
                    manager.read()
                except Exception:
                    pass
        late = Late()
        sys.late = Late()
        cycle = [late]
        cycle.append(cycle)
    '''), shared_store.path)
    assert child.wait() == 0, child.stderr


@pytest.mark.parametrize('number,status', [(signal.SIGTERM, -15), (signal.SIGINT, -2)])
def test_signals(shared_store, children, number, status):
    shared_store.manager({'n': 0})
    child = children(script('''
        print('ready', flush=True)
        while True:
            data['n'] += 1
    '''), shared_store.path)
    child.line()
    child.signal(number)
    assert child.wait() == status, child.stderr
    assert isinstance(stored(shared_store)['n'], int)


def test_a_signal_handler_may_use_the_store(shared_store, children):
    shared_store.manager({'n': 0, 'signals': 0})
    child = children(script('''
        import signal
        other = tosc.Manager(open_store(sys.argv[1]))
        count = tosc.transactional(other)(
            lambda: other.read().__setitem__('signals', other.read()['signals'] + 1))
        step = tosc.transactional(manager)(lambda: data.__setitem__('n', data['n'] + 1))
        signal.signal(signal.SIGUSR1, lambda number, frame: count())
        print('ready', flush=True)
        while manager.refresh()['signals'] < 5:
            step()
            print('step', flush=True)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # Python's own end would restore the default
        print('done', data['n'] > 0, flush=True)
    '''), shared_store.path)
    child.line()
    while child.process.poll() is None:
        child.signal(signal.SIGUSR1)
        try:
            wait_until(lambda: child.process.poll() is not None, timeout=0.02)
        except pytest.fail.Exception:
            pass
    assert child.wait() == 0, child.stderr
    assert child.out[-1] == 'done True'


def test_python_written_backends_at_exit(children):
    child = children('''
        from harness import PyBackend
        backend = PyBackend()
        managers = [tosc.Manager(backend) for _ in range(5)]
        for manager in managers:
            manager.write([1])
        for manager in managers:
            assert manager.read() == [1]
    ''')
    assert child.wait() == 0, child.stderr
    assert child.stderr == ''


def test_a_python_written_backend_that_blocks_for_ever_in_target_wait_at_exit(children):
    """A watcher that cannot be interrupted must not keep the process."""
    child = children('''
        import threading
        from harness import PyBackend
        class Blocking(PyBackend):
            def target_wait(self):
                entered.set()
                threading.Event().wait()
        entered = threading.Event()
        manager = tosc.Manager(Blocking())
        manager.write([1])
        manager.read()
        entered.wait(5)
        print('leaving', flush=True)
    ''', timeout=20)
    assert child.line() == 'leaving'
    assert child.wait() == 0, child.stderr


def test_close_does_not_wait_for_ever_for_such_a_backend(children):
    child = children('''
        import threading
        from harness import PyBackend
        class Blocking(PyBackend):
            def target_wait(self):
                entered.set()
                threading.Event().wait()
        entered = threading.Event()
        with tosc.Manager(Blocking()) as manager:
            manager.write([1])
            manager.read()
            entered.wait(5)
        print('closed', flush=True)
        os._exit(0)
    ''', timeout=20)
    assert child.line(15) == 'closed'


def test_os_exit_after_a_commit_loses_nothing(shared_store):
    shared_store.manager({'n': 0})
    for n in range(1, 6):
        run_child(script('data["n"] += 1\nos._exit(0)'), shared_store.path)
        assert stored(shared_store) == {'n': n}


def test_abort_after_a_commit_loses_nothing(shared_store, children):
    shared_store.manager({'n': 0})
    child = children(script('faulthandler.disable()\ndata["n"] = 1\nos.abort()'),
                     shared_store.path)
    assert child.wait() == -signal.SIGABRT
    assert stored(shared_store) == {'n': 1}
