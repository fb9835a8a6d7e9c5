"""Signals during operations that wait: their handlers run, and what they do not end goes on."""
# SPDX-License-Identifier: Apache-2.0
import signal
import time

import pytest

from harness import SCALE, stored
from test_transactional import HOLDER

# What waits for the lock that HOLDER has.
WAITING = ('tosc.transactional(manager)(lambda: data.__setitem__("n", "mine"))()',
           'data["n"] = "mine"', 'manager.write({"n": "mine"})',
           'backend.write(tosc_bytes)')

WAITER = '''
    import signal
    backend = open_store(sys.argv[1])
    manager = tosc.Manager(backend)
    data = manager.refresh()
    other = tosc.Manager(tosc.InprocBackend())
    other.write({'n': 0})
    tosc_bytes = other.backend.read()[1]
    ticks = []
    def tick(number, frame):
        ticks.append(number)
        if len(ticks) == 10:
            print('waiting', flush=True)
    %s
    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]), float(sys.argv[2]))
    try:
        %s
        print('came through')
    except BaseException as error:
        print(type(error).__name__, error, error.__cause__)
    signal.setitimer(signal.ITIMER_REAL, 0)
'''


@pytest.mark.parametrize('call', WAITING)
@pytest.mark.parametrize('interval', [0.05, 0.001])
def test_the_wait_for_a_lock_goes_on_after_signals(shared_store, children, call, interval):
    shared_store.manager({'n': 0})
    holder = children(HOLDER, shared_store.path)
    assert holder.line() == 'held'
    waiter = children(WAITER % ('', call), shared_store.path, interval)
    assert waiter.line() == 'waiting'
    time.sleep(0.2)
    holder.send()
    assert holder.line() == 'done'
    # Outside a transactional function what the holder has done is a conflict.
    assert waiter.line().startswith('TransactionError' if 'data["n"] =' in call else 'came')
    assert waiter.wait() == 0, waiter.stderr


@pytest.mark.parametrize('call', WAITING)
def test_a_handler_that_raises_ends_the_wait_for_a_lock(shared_store, children, call):
    shared_store.manager({'n': 0})
    holder = children(HOLDER, shared_store.path)
    assert holder.line() == 'held'
    waiter = children(WAITER % ('''
    class Alarm(Exception):
        pass
    def tick(number, frame):
        raise Alarm('now')
    ''', call), shared_store.path, 0.3)
    assert waiter.line(10) == 'Alarm now None'
    assert waiter.wait() == 0, waiter.stderr
    holder.send()
    assert holder.line() == 'done'
    assert stored(shared_store)['n'] != 'mine'


def test_a_handler_may_wait_for_the_same_lock(shared_store, children):
    """Through the same backend object, which the wait that it interrupts must not keep."""
    shared_store.manager({'n': 0})
    holder = children(HOLDER, shared_store.path)
    assert holder.line() == 'held'
    waiter = children(WAITER % ('''
    mine = tosc.Manager(backend)
    seen = mine.read()
    @tosc.transactional(mine)
    def count():
        seen['ticks'] = 1
    def tick(number, frame):
        signal.setitimer(signal.ITIMER_REAL, 0)
        print('waiting', flush=True)
        count()
        print('counted', flush=True)
    ''', WAITING[0]), shared_store.path, 0.3)
    assert waiter.line() == 'waiting'
    time.sleep(0.2)
    holder.send()
    assert holder.line() == 'done'
    assert waiter.line() == 'counted'
    assert waiter.line() == 'came through'
    assert waiter.wait() == 0, waiter.stderr


STORM = '''
    import signal
    manager = tosc.Manager(open_store(sys.argv[1]))
    data = manager.read()
    ticks = 0
    def tick(number, frame):
        global ticks
        ticks += 1
    @tosc.transactional(manager)
    def step():
        data['n'] += 1
    print('ready')
    sys.stdin.readline()
    signal.signal(signal.SIGALRM, tick)
    if sys.argv[2] == 'storm':
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    steps = 0
    end = time.monotonic() + float(sys.argv[3])
    while time.monotonic() < end:
        step()
        steps += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(steps)
    print(ticks)
'''


def test_a_storm_of_signals_starves_nobody(shared_store, children):
    """Two processes commit as fast as they can; one is interrupted every millisecond."""
    shared_store.manager({'n': 0})
    seconds = 1.5 * SCALE
    workers = [children(STORM, shared_store.path, kind, seconds) for kind in ('storm', 'calm')]
    for worker in workers:
        assert worker.line() == 'ready'
    for worker in workers:
        worker.send()
    steps = [int(worker.line()) for worker in workers]
    ticks = [int(worker.line()) for worker in workers]
    for worker in workers:
        assert worker.wait() == 0, worker.stderr
    assert stored(shared_store)['n'] == sum(steps)
    assert ticks[0] > 100 and ticks[1] == 0
    assert steps[0] > sum(steps) / 50, steps


def test_ignored_signals_and_their_threads(shared_store, children):
    """A thread that is not the main one waits on, and the main thread handles the signal."""
    shared_store.manager({'n': 0})
    holder = children(HOLDER, shared_store.path)
    assert holder.line() == 'held'
    waiter = children('''
        import signal, threading
        manager = tosc.Manager(open_store(sys.argv[1]))
        data = manager.refresh()
        handled = []
        signal.signal(signal.SIGUSR1,
                      lambda *args: handled.append(threading.current_thread().name))
        def work():
            tosc.transactional(manager)(lambda: data.__setitem__('n', 'mine'))()
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.3)
        for _ in range(3):
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
            time.sleep(0.05)
        print('waiting', thread.is_alive(), {*handled}, len(handled))
        thread.join()
        print('done')
    ''', shared_store.path)
    assert waiter.line() == "waiting True {'MainThread'} 3"
    holder.send()
    assert holder.line() == 'done'
    assert waiter.line() == 'done'
    assert waiter.wait() == 0, waiter.stderr
