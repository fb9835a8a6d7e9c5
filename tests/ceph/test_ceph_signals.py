"""Signals while Ceph does not answer: handlers run, and the operation goes on or is ended."""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import time

import pytest

import tosc

CALLS = ('manager.refresh()', 'data.__setitem__("n", 1)', 'manager.write({"n": 1})',
         'tosc.transactional(manager)(lambda: data.__setitem__("n", 1))()',
         'backend.read()', 'backend.write(content)', 'backend.try_write(content, version)')

WAITER = '''
    import signal
    from opening import ceph_arguments
    class Alarm(Exception):
        pass
    def tick(number, frame):
        ticks.append(time.monotonic())
        if len(ticks) == 5:
            print('ticking')
    def ring(number, frame):
        print('ringing')
        raise Alarm
    ticks = []
    backend = open_store('ceph:' + sys.argv[1])
    manager = tosc.Manager(backend)
    data = manager.read()
    version, content = backend.read()
    signal.signal(signal.SIGALRM, eval(sys.argv[3]))
    print('ready')
    sys.stdin.readline()
    first, interval = eval(sys.argv[4])
    signal.setitimer(signal.ITIMER_REAL, first, interval)
    try:
        eval(sys.argv[2])
        time.sleep(0.05)  # what was late is raised here
        print('came through')
    except BaseException as error:
        print(type(error).__name__, type(error.__cause__).__name__)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(max([0.0, *(b - a for a, b in zip(ticks, ticks[1:]))]))
    sys.stdin.readline()
    print(manager.refresh()['n'])
    os._exit(0)
'''


@contextlib.contextmanager
def frozen(cluster):
    with cluster.frozen_osd():
        time.sleep(0.1)  # until all of its threads have stopped
        yield


def start(cluster, name, children, handler, times, calls=CALLS):
    with tosc.Manager(cluster.backend(name)) as manager:
        manager.write({'n': 0})
    started = [children(WAITER, name, call, handler, repr(times)) for call in calls]
    for child in started:
        assert child.line() == 'ready'
    return list(zip(calls, started))


@pytest.mark.seconds(120)
@pytest.mark.parametrize('interval', [0.05, 0.001])
def test_handlers_run_and_the_operation_goes_on(cluster, name, children, interval):
    """Of each kind, all at once, each on an object of its own."""
    started = [start(cluster, f'{name}-{number}', children, 'tick', (interval, interval), [call])[0]
               for number, call in enumerate(CALLS)]
    with frozen(cluster):
        for _, child in started:
            child.send()
        for call, child in started:
            assert child.line(5) == 'ticking', call
        time.sleep(2.5)
        for call, child in started:
            assert child.out[2:] == [], f'{call} did not wait'
    for call, child in started:
        assert child.line(20) == 'came through', call
        assert float(child.line()) < 2, f'{call}: handlers did not run for so long'
        child.send()
        assert child.line(20) == str(int('"n"' in call)), call


@pytest.mark.seconds(100)
def test_a_handler_that_raises_ends_the_operation(cluster, name, children):
    started = start(cluster, name, children, 'ring', (0.3, 0))
    with frozen(cluster):
        begin = time.monotonic()
        for _, child in started:
            child.send()
        for call, child in started:
            assert child.line(10) == 'ringing', call
            assert child.line(10) in ('Alarm NoneType', 'Alarm UnknownOutcomeError'), call
        assert time.monotonic() - begin < 4


@pytest.mark.seconds(100)
@pytest.mark.parametrize('handler', ['tick', 'ring'])
def test_a_signal_while_it_is_asked_what_became_of_a_commit(cluster, name, children, handler):
    """The commit has two thirds of the time, that question the last one."""
    times = (5, 0.05 if handler == 'tick' else 0)
    [(_, child)] = start(cluster, name, children, handler, times, [
        '[other := tosc.Manager(tosc.CephBackend(**ceph_arguments(sys.argv[1], timeout=6))),'
        ' data := other.read(), print("made"), sys.stdin.readline(),'
        ' data.__setitem__("n", 1)]'])
    child.send()
    assert child.line(10) == 'made'
    with frozen(cluster):
        child.send()
        begin = time.monotonic()
        if handler == 'ring':
            assert child.line(10) == 'ringing'
            rung = time.monotonic()
            assert child.line(10) == 'Alarm UnknownOutcomeError'
            assert time.monotonic() - rung < 1.5
        else:
            assert child.line(10) == 'ticking'
            assert child.line(10) == 'UnknownOutcomeError NoneType'
            assert time.monotonic() - begin > 5.5


def test_a_handler_that_raises_while_a_backend_object_is_made(cluster, name, children):
    """That looks at the store, and would go without knowing what is there."""
    [(_, child)] = start(cluster, name, children, 'ring', (0.3, 0),
                         ['open_store("ceph:" + sys.argv[1])'])
    with frozen(cluster):
        child.send()
        assert child.line(10) == 'ringing'
        assert child.line(10) == 'Alarm NoneType'


@pytest.mark.seconds(100)
@pytest.mark.parametrize('call', CALLS[1:4])
def test_a_reply_that_comes_after_the_handler_has_raised(cluster, name, children, call):
    """The commit is stored, and the exception comes after it."""
    [(_, child)] = start(cluster, name, children, 'ring', (0.2, 0), [call])
    with frozen(cluster):
        child.send()
        assert child.line(10) == 'ringing', call
    assert child.line(10) == 'Alarm NoneType'
    child.line()
    child.send()
    assert child.line(20) == '1'


@pytest.mark.seconds(100)
def test_a_handler_may_commit_to_the_same_object(cluster, name, children):
    with tosc.Manager(cluster.backend(name)) as manager:
        manager.write({'n': 0, 'ticks': 0})
        child = children('''
            import signal
            backend = open_store('ceph:' + sys.argv[1])
            manager, other = tosc.Manager(backend), tosc.Manager(backend)
            data, seen = manager.read(), other.read()
            @tosc.transactional(other)
            def count():
                seen['ticks'] += 1
            def ring(number, frame):
                print('ringing')
                count()
                print('rung')
            @tosc.transactional(manager)
            def step():
                data['n'] += 1
            signal.signal(signal.SIGALRM, ring)
            print('ready')
            sys.stdin.readline()
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            step()
            print('done')
        ''', name)
        assert child.line() == 'ready'
        with frozen(cluster):
            child.send()
            assert child.line(10) == 'ringing'
            time.sleep(0.5)
        assert [child.line(20), child.line(20)] == ['rung', 'done']
        assert child.wait() == 0, child.stderr
        manager.refresh()
        assert manager.snapshot() == {'n': 1, 'ticks': 1}


def test_a_storm_of_signals_does_not_keep_commits_from_their_end(cluster, name, children):
    with tosc.Manager(cluster.backend(name)) as manager:
        manager.write({'n': 0})
    out = children('''
        import signal
        manager = tosc.Manager(open_store('ceph:' + sys.argv[1]))
        ticks = []
        signal.signal(signal.SIGALRM, lambda *args: ticks.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        backend = open_store('ceph:' + sys.argv[1])  # connects
        data = manager.read()
        done = 0
        while done < 100 or len(ticks) <= 100:
            data['n'] += 1
            done += 1
            assert len(backend.read()[1]) > 0
        with manager.transaction():
            manager.write({'n': data['n']})
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(manager.refresh()['n'] == done)
    ''', name).check()
    assert out == 'True'


def test_a_handler_may_change_the_manager_that_is_just_committing(cluster, name, children):
    """It runs after the commit, unless that takes long."""
    child = children('''
        import signal
        manager = tosc.Manager(open_store('ceph:' + sys.argv[1]))
        manager.write({'main': 0, 'handler': 0})
        data = manager.read()
        done = refused = early = 0
        began = time.monotonic()
        def tick(number, frame):
            global done, refused, early, began
            before = began
            now = began = time.monotonic()
            try:
                data['handler'] += 1
                done += 1
            except RuntimeError:
                refused += 1
                early += now - before < 0.24
            began = before
        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        for _ in range(600):
            began = time.monotonic()
            data['main'] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert data['main'] == 600 and data['handler'] == done
        print(done > 10, refused * 10 <= done, early, done, refused)
    ''', name, timeout=60)
    assert child.check().startswith('True True 0 '), child.stdout
