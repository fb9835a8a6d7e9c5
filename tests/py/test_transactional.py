"""@transactional: what it keeps of the function, how often and how long it tries, who may pass."""
# SPDX-License-Identifier: Apache-2.0
import functools
import inspect
import os
import signal
import threading
import time

import pytest

import tosc
from harness import PyBackend, Thread, in_thread, run_child, stored, wait_until
from opening import open_store


class Oops(Exception):
    pass


class Stubborn(PyBackend):
    """Refuses the next `refuse` conditional writes, as if somebody were always quicker."""

    def __init__(self):
        super().__init__()
        self.refuse = 0
        self.asked = 0

    def try_write(self, new, expected):
        self.asked += 1
        if self.refuse > 0:
            self.refuse -= 1
            return False
        return super().try_write(new, expected)


@pytest.fixture
def stubborn():
    backend = Stubborn()
    with tosc.Manager(backend) as manager:
        manager.write({'n': 0})
        yield manager


# ---- what it keeps of the function ----

def test_it_keeps_signature_name_and_docstring(inproc_store):
    manager = inproc_store.manager({})

    def operation(a, b: int = 2, *args, c, d=4, **kwargs) -> str:
        """What it does."""
        return f'{a} {b} {args} {c} {d} {kwargs}'

    operation.attribute = 'kept'
    decorated = tosc.transactional(manager)(operation)
    assert decorated.__name__ == 'operation'
    assert decorated.__qualname__ == operation.__qualname__
    assert decorated.__module__ == __name__
    assert decorated.__doc__ == 'What it does.'
    assert decorated.__wrapped__ is operation
    assert decorated.__annotations__ == operation.__annotations__
    assert decorated.attribute == 'kept'
    assert inspect.signature(decorated) == inspect.signature(operation)
    assert callable(decorated)
    assert decorated(1, c=3) == operation(1, c=3)
    assert decorated(1, 5, 6, 7, c=3, d=8, e=9) == operation(1, 5, 6, 7, c=3, d=8, e=9)
    with pytest.raises(TypeError):
        decorated(1)


def test_arguments_and_result_pass_through_as_the_same_objects(inproc_store):
    manager = inproc_store.manager({})
    sentinel, result = object(), object()
    seen = []

    @tosc.transactional(manager, retries=3, timeout=1)
    def operation(*args, **kwargs):
        seen.append((args, kwargs))
        return result

    assert operation(sentinel, x=sentinel) is result
    assert seen[0][0][0] is sentinel and seen[0][1]['x'] is sentinel
    assert operation() is result
    assert seen[1] == ((), {})


def test_methods_class_methods_and_static_methods(inproc_store):
    manager = inproc_store.manager([])

    class Account:
        def __init__(self, name):
            self.name = name

        @tosc.transactional(manager)
        def deposit(self, amount, *, note=''):
            """Deposits."""
            manager.read().append((self.name, amount, note))
            return self

        @classmethod
        @tosc.transactional(manager)
        def all(cls):
            return cls, len(manager.read())

        @staticmethod
        @tosc.transactional(manager)
        def count(extra):
            return len(manager.read()) + extra

    account = Account('a')
    assert account.deposit(5, note='x') is account
    assert Account.deposit(account, 6) is account
    bound = account.deposit
    assert bound.__self__ is account
    assert bound(7) is account
    assert bound.__doc__ == 'Deposits.'
    assert list(inspect.signature(bound).parameters) == ['amount', 'note']
    assert Account.all() == (Account, 3) == account.all()
    assert Account.count(1) == 4 == account.count(1)
    assert manager.read() == [('a', 5, 'x'), ('a', 6, ''), ('a', 7, '')]


def test_lambdas_partials_and_other_callables(inproc_store):
    manager = inproc_store.manager([])
    decorate = tosc.transactional(manager)
    assert decorate(lambda x: x + 1)(1) == 2
    assert decorate(functools.partial(max, 5))(3) == 5
    assert decorate(len)([1, 2]) == 2

    class Callable:
        def __call__(self, x):
            return x * 2

    assert decorate(Callable())(4) == 8


def test_one_decorator_serves_several_functions(inproc_store):
    manager = inproc_store.manager([])
    decorate = tosc.transactional(manager, retries=2)
    first = decorate(lambda: manager.read().append(1))
    second = decorate(lambda: manager.read().append(2))
    first()
    second()
    assert manager.read() == [1, 2]


# ---- arguments ----

@pytest.mark.parametrize('retries', [-1, 0])
def test_retries_must_be_positive(inproc_store, retries):
    manager = inproc_store.manager({})
    with pytest.raises(ValueError, match='retries'):
        tosc.transactional(manager, retries=retries)


@pytest.mark.parametrize('retries', ['3', 2.0, [], object()])
def test_retries_must_be_an_integer(inproc_store, retries):
    manager = inproc_store.manager({})
    with pytest.raises(TypeError, match='retries'):
        tosc.transactional(manager, retries=retries)


@pytest.mark.parametrize('timeout', [0, -1, -0.5, 0.0, float('nan')])
def test_timeout_must_be_positive(inproc_store, timeout):
    manager = inproc_store.manager({})
    with pytest.raises(ValueError, match='timeout'):
        tosc.transactional(manager, timeout=timeout)


@pytest.mark.parametrize('timeout', ['1', [], object(), 1j])
def test_timeout_must_be_a_number(inproc_store, timeout):
    manager = inproc_store.manager({})
    with pytest.raises(TypeError, match='timeout'):
        tosc.transactional(manager, timeout=timeout)


@pytest.mark.parametrize('timeout', [float('inf'), 1e300, 10 ** 12])
def test_a_very_long_timeout_is_allowed(inproc_store, timeout):
    manager = inproc_store.manager({})
    assert tosc.transactional(manager, timeout=timeout)(lambda: 5)() == 5


@pytest.mark.parametrize('manager', [None, 5, object(), tosc.Manager, 'manager'])
def test_the_manager_must_be_one(manager):
    with pytest.raises(TypeError):
        tosc.transactional(manager)


def test_what_is_decorated_must_be_callable(inproc_store):
    manager = inproc_store.manager({})
    with pytest.raises(TypeError):
        tosc.transactional(manager)(5)


# ---- how often ----

@pytest.mark.parametrize('retries', [1, 2, 7, 30])
def test_at_most_so_many_repetitions_after_the_first_attempt(stubborn, retries):
    stubborn.backend.refuse = 10 ** 9
    calls = []

    @tosc.transactional(stubborn, retries=retries)
    def operation():
        calls.append(1)
        stubborn.read()['n'] += 1

    with pytest.raises(tosc.TransactionRetryError) as caught:
        operation()
    assert len(calls) == retries + 1
    assert isinstance(caught.value, tosc.TransactionError)
    assert not isinstance(caught.value, TimeoutError)
    stubborn.backend.refuse = 0
    assert stubborn.refresh() == {'n': 0}


@pytest.mark.parametrize('refuse', [1, 3, 10])
def test_it_stops_trying_as_soon_as_it_succeeds(stubborn, refuse):
    stubborn.backend.refuse = refuse
    calls = []

    @tosc.transactional(stubborn, retries=refuse)
    def operation():
        calls.append(stubborn.read()['n'])
        stubborn.read()['n'] += 1
        return len(calls)

    assert operation() == refuse + 1
    assert calls == [0] * (refuse + 1), 'each attempt starts from the stored state'
    assert stubborn.refresh() == {'n': 1}


def test_the_count_starts_anew_with_each_call(stubborn):
    operation = tosc.transactional(stubborn, retries=2)(
        lambda: stubborn.read().__setitem__('n', stubborn.read()['n'] + 1))
    for n in range(3):
        stubborn.backend.refuse = 2
        operation()
    assert stubborn.refresh() == {'n': 3}


def test_each_attempt_sees_the_newest_state(store):
    one, two = store.pair({'n': 0, 'mine': []})
    data, other = one.read(), two.read()
    seen = []

    @tosc.transactional(one)
    def operation():
        seen.append(data['n'])
        data['mine'].append(len(seen))
        if len(seen) <= 2:
            two.refresh()
            other['n'] += 10

    operation()
    assert seen == [0, 10, 20]
    assert two.refresh() == {'n': 20, 'mine': [3]}


def test_a_function_that_changes_nothing_runs_once(store):
    one, two = store.pair({'n': 0})
    calls = []

    @tosc.transactional(one)
    def operation():
        calls.append(one.read()['n'])
        two.read()['n'] += 1
        return one.read()['n']

    assert operation() == 0
    assert calls == [0]


def test_inside_an_open_transaction_it_is_a_nested_block_without_retry(store):
    one, two = store.pair({'n': 0, 'list': []})
    data = one.read()
    calls = []

    @tosc.transactional(one, retries=5)
    def operation(fail=False):
        calls.append(1)
        data['n'] += 1
        data['list'].append(data['n'])
        if fail:
            raise Oops

    with one.transaction():
        operation()
        with pytest.raises(Oops):
            operation(fail=True)
        assert data == {'n': 1, 'list': [1]}, 'a savepoint as any nested block'
        assert two.refresh() == {'n': 0, 'list': []}
    assert two.refresh() == {'n': 1, 'list': [1]}
    del calls[:]
    with pytest.raises(tosc.TransactionError) as caught:
        with one.transaction():
            operation()
            two.read()['n'] = 100
    assert calls == [1]
    assert type(caught.value) is tosc.TransactionError
    assert one.refresh() == {'n': 100, 'list': [1]}


def test_a_transactional_function_that_calls_another(store):
    one, two = store.pair({'n': 0, 'log': []})
    data, other = one.read(), two.read()
    outer_calls, inner_calls = [], []

    @tosc.transactional(one)
    def inner():
        inner_calls.append(1)
        data['log'].append(data['n'])

    @tosc.transactional(one)
    def outer():
        outer_calls.append(1)
        data['n'] += 1
        inner()
        if len(outer_calls) == 1:
            other['n'] = 10

    outer()
    assert len(outer_calls) == len(inner_calls) == 2
    assert two.refresh() == {'n': 11, 'log': [11]}


def test_a_recursive_transactional_function(store):
    manager = store.manager([])

    @tosc.transactional(manager)
    def count_down(n):
        manager.read().append(n)
        if n:
            count_down(n - 1)

    count_down(20)
    assert stored(store) == list(range(20, -1, -1))


def test_two_stores_each_with_its_own_decorator(store):
    one = store.manager({'n': 0})
    two = tosc.Manager(tosc.InprocBackend())
    two.write({'n': 0})

    @tosc.transactional(one)
    @tosc.transactional(two)
    def both():
        one.read()['n'] += 1
        two.read()['n'] += 1

    both()
    both()
    assert one.refresh() == {'n': 2} == two.refresh()
    two.close()


# ---- exceptions of the function ----

@pytest.mark.parametrize('error', [Oops('text', 5), KeyError('k'), StopIteration(3),
                                   KeyboardInterrupt(), SystemExit(4), OSError(28, 'mine'),
                                   TimeoutError('mine'), MemoryError()])
def test_exceptions_pass_unchanged_with_no_commit_and_no_retry(store, error):
    one, two = store.pair({'n': 0})
    calls = []

    @tosc.transactional(one, retries=5, timeout=5)
    def operation():
        calls.append(1)
        one.read()['n'] += 1
        raise error

    with pytest.raises(type(error)) as caught:
        operation()
    assert caught.value is error
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert calls == [1]
    assert one.read() == {'n': 0} == two.refresh()


@pytest.mark.parametrize('refuse', [1, 2, 30])
def test_exceptions_after_conflicts_pass_as_well(store, refuse):
    """They were once swallowed in the locked phase. The lock, if taken, is given back."""
    one, two = store.pair({'n': 0})
    calls = []
    error = Oops()

    @tosc.transactional(one)
    def operation():
        calls.append(1)
        one.read()['n'] = 'never'
        if len(calls) > refuse:
            raise error
        other = Thread(two.write, {'n': len(calls)})
        other.join(0.2)
        if other.is_alive():
            raise error  # this is the locked phase

    with pytest.raises(Oops) as caught:
        operation()
    assert caught.value is error
    in_thread(two.write, {'n': 'goes on'}, timeout=10)
    assert one.refresh() == {'n': 'goes on'}


def test_an_unpicklable_value_is_not_retried(store):
    """It was once retried for ever as if it were a conflict."""
    manager = store.manager({'n': 0, 'list': []})
    calls = []

    @tosc.transactional(manager)
    def operation():
        calls.append(1)
        manager.read()['n'] = 1
        manager.read()['list'].append(lambda: None)

    with pytest.raises(TypeError):
        operation()
    assert calls == [1]
    assert manager.read() == {'n': 0, 'list': []} == stored(store)
    manager.read()['n'] = 2
    assert stored(store) == {'n': 2, 'list': []}


@pytest.mark.parametrize('error', [OSError(5, 'the disk'), ValueError('mine')])
def test_errors_of_the_backend_are_not_retried(error):
    class Failing(PyBackend):
        fail = False
        asked = 0

        def try_write(self, new, expected):
            if self.fail:
                self.asked += 1
                raise error
            return super().try_write(new, expected)

    with tosc.Manager(Failing()) as manager:
        manager.write({'n': 0})
        manager.backend.fail = True
        calls = []

        @tosc.transactional(manager)
        def operation():
            calls.append(1)
            manager.read()['n'] += 1

        with pytest.raises(type(error)) as caught:
            operation()
        assert caught.value is error or isinstance(caught.value, tosc.Error)
        assert not isinstance(caught.value, tosc.TransactionError)
        assert calls == [1]
        assert manager.read() == {'n': 0}
        manager.backend.fail = False
        operation()
        assert manager.refresh() == {'n': 1}


# ---- how long ----

def test_the_timeout_ends_the_retries(stubborn):
    stubborn.backend.refuse = 10 ** 9
    calls = []

    @tosc.transactional(stubborn, timeout=0.4)
    def operation():
        calls.append(1)
        stubborn.read()['n'] += 1

    begin = time.monotonic()
    with pytest.raises(tosc.TransactionTimeoutError) as caught:
        operation()
    took = time.monotonic() - begin
    assert 0.35 < took < 3, took
    assert len(calls) > 1
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, tosc.TransactionError)


def test_whichever_comes_first_of_retries_and_timeout(stubborn):
    stubborn.backend.refuse = 10 ** 9

    def operation():
        stubborn.read()['n'] += 1

    with pytest.raises(tosc.TransactionRetryError):
        tosc.transactional(stubborn, retries=2, timeout=60)(operation)()
    with pytest.raises(tosc.TransactionTimeoutError):
        tosc.transactional(stubborn, retries=10 ** 9, timeout=0.1)(operation)()


def test_a_slow_first_attempt_that_succeeds_is_not_a_timeout(store):
    manager = store.manager({'n': 0})

    @tosc.transactional(manager, timeout=0.02)
    def operation():
        begin = time.monotonic()
        while time.monotonic() - begin < 0.05:
            pass
        manager.read()['n'] = 1

    operation()
    assert stored(store) == {'n': 1}


# A process that gets into @transactional's locked phase and stays there. It provokes conflicts
# by commits of a second Manager; when one of these does not get through, it holds the lock.
HOLDER = '''
    import threading
    one = tosc.Manager(open_store(sys.argv[1]))
    two = tosc.Manager(open_store(sys.argv[1]))
    attempts = 0

    @tosc.transactional(one)
    def operation():
        global attempts
        attempts += 1
        one.read()['n'] = 'holder'
        other = threading.Thread(target=two.write, args=({'n': attempts},), daemon=True)
        other.start()
        other.join(0.3)
        if other.is_alive():
            print('held', flush=True)
            sys.stdin.readline()
            return
        if attempts > 30:
            print('never', flush=True)
            os._exit(1)

    operation()
    other = None
    print('done', flush=True)
    os._exit(0)
'''


def test_a_writer_cannot_be_starved(shared_store, children):
    """After a few conflicts the next attempt has the store for itself."""
    shared_store.manager({'n': 0})
    holder = children(HOLDER, shared_store.path)
    assert holder.line() == 'held'
    holder.send()
    assert holder.line() == 'done'


def test_a_holder_of_the_lock_that_dies_frees_it(shared_store, children):
    manager = shared_store.manager({'n': 0})
    holder = children(HOLDER, shared_store.path)
    assert holder.line() == 'held'
    writer = Thread(manager.write, {'n': 'next'})
    writer.join(0.2)
    assert writer.is_alive(), 'the lock is not held'
    holder.signal(signal.SIGKILL)
    writer.result(1.0 if shared_store.is_file else 15.0)
    manager.refresh()['n'] = 'after'
    assert stored(shared_store) == {'n': 'after'}


def test_the_timeout_is_honoured_while_waiting_for_the_lock(shared_store, children):
    manager = shared_store.manager({'n': 0})
    holder = children(HOLDER, shared_store.path)
    assert holder.line() == 'held'
    manager.refresh()

    def operation():
        manager.read()['n'] = 'mine'

    begin = time.monotonic()
    with pytest.raises(tosc.TransactionTimeoutError):
        tosc.transactional(manager, timeout=0.3)(operation)()
    assert 0.25 < time.monotonic() - begin < 3
    assert manager.read()['n'] != 'mine'
    holder.send()
    assert holder.line() == 'done'
    manager.refresh()
    tosc.transactional(manager, timeout=30)(operation)()
    assert stored(shared_store) == {'n': 'mine'}


def test_reading_goes_on_while_the_lock_is_held(shared_store, children):
    manager = shared_store.manager({'n': 0})
    holder = children(HOLDER, shared_store.path)
    assert holder.line() == 'held'

    def look():
        with tosc.Manager(open_store(shared_store.path)) as other:
            return other.read()['n'], manager.refresh()['n'], other.snapshot()['n']

    assert isinstance(in_thread(look, timeout=5)[0], int)
    holder.send()
    assert holder.line() == 'done'


def test_control_c_interrupts_the_wait_for_the_lock(shared_store, children):
    shared_store.manager({'n': 0})
    holder = children(HOLDER, shared_store.path)
    assert holder.line() == 'held'
    for code in ('tosc.transactional(manager)(lambda: data.__setitem__("n", 1))()',
                 'data["n"] = 1', 'manager.write({"n": 1})', 'backend.write(b"")'):
        waiter = children('''
            import threading
            backend = open_store(sys.argv[1])
            manager = tosc.Manager(backend)
            data = manager.refresh()
            try:
                print('waiting', flush=True)
                ''' + code + '''
            except KeyboardInterrupt:
                print('interrupted', flush=True)
                del data
                print(manager.snapshot()['n'] != 1, flush=True)
        ''', shared_store.path, timeout=30)
        assert waiter.line() == 'waiting'
        # One that comes just before the process sleeps in the kernel ends no sleep, as with any
        # lock (on Ceph it is asked for). Not again once it is heeded: that would end the process.
        for _ in range(1 if shared_store.kind == 'ceph' else 4):
            waiter.signal(signal.SIGINT)
            if waiter.line_within(5) is not None:
                break
        assert waiter.wait() == 0, (code, waiter.stderr)
        assert waiter.out[1:] == ['interrupted', 'True'], (code, waiter.stderr)
    holder.send()
    assert holder.line() == 'done'


def test_control_c_interrupts_retries():
    output = run_child('''
        import _thread, threading
        from harness import PyBackend

        class Stubborn(PyBackend):
            stubborn = False
            def try_write(self, new, expected):
                return not self.stubborn and super().try_write(new, expected)

        manager = tosc.Manager(Stubborn())
        manager.write({'n': 0})
        manager.backend.stubborn = True
        calls = []

        @tosc.transactional(manager)
        def operation():
            calls.append(1)
            if len(calls) == 5:
                threading.Timer(0.2, _thread.interrupt_main).start()
            manager.read()['n'] += 1

        try:
            operation()
        except KeyboardInterrupt:
            print('interrupted', len(calls) > 5)
        manager.close()
    ''', timeout=15)
    assert output == 'interrupted True'


@pytest.mark.parametrize('kind', ['inproc', 'file'])
def test_control_c_interrupts_target_wait(kind, tmp_path, children):
    child = children('''
        backend = tosc.FileBackend(sys.argv[2]) if sys.argv[1] == 'file' else tosc.InprocBackend()
        backend.write(b'x')
        try:
            print('waiting', flush=True)
            while True:
                backend.target_wait()
        except KeyboardInterrupt:
            print('interrupted', flush=True)
    ''', kind, tmp_path / 'store', timeout=15)
    assert child.line() == 'waiting'
    child.signal(signal.SIGINT)
    assert child.line(5) == 'interrupted'
    assert child.wait() == 0


def test_slow_transactions_get_through_beside_quick_ones(store):
    if store.kind == 'python':
        pytest.skip('a backend of four methods has no lock to queue for')
    manager = store.manager({'n': 0, 'slow': 0})
    stop = threading.Event()

    def hammer():
        with tosc.Manager(store.backend()) as mine:
            data = mine.read()

            @tosc.transactional(mine)
            def step():
                data['n'] += 1

            while not stop.is_set():
                step()

    threads = [Thread(hammer) for _ in range(2)]
    data = manager.read()

    @tosc.transactional(manager, timeout=20)
    def slow():
        before = data['slow']
        begin = time.monotonic()
        while time.monotonic() - begin < 0.02:
            time.sleep(0.001)
        data['slow'] = before + 1

    try:
        wait_until(lambda: data['n'] > 0)
        for _ in range(5):
            slow()
    finally:
        stop.set()
    for thread in threads:
        thread.result()
    assert stored(store)['slow'] == 5


def test_decorated_functions_can_be_used_by_many_threads_at_once(store):
    manager = store.manager({'n': 0})

    @tosc.transactional(manager, retries=1000, timeout=50)
    def increment(by):
        manager.read()['n'] += by
        return by

    def work(me):
        return [increment(me) for _ in range(20)]

    threads = [Thread(work, me) for me in range(5)]
    for me, thread in enumerate(threads):
        assert thread.result() == [me] * 20
    assert stored(store) == {'n': 20 * sum(range(5))}


def test_a_decorated_function_can_be_pickled_by_name(inproc_store):
    manager = inproc_store.manager({})
    decorated = tosc.transactional(manager)(os.path.join)
    assert decorated('a', 'b') == os.path.join('a', 'b')
    assert 'join' in repr(decorated)


def test_a_coroutine_function_is_refused_or_awaited_within(inproc_store):
    """Its body would run after the transaction: that must not pass in silence."""
    manager = inproc_store.manager({'n': 0})

    async def operation():
        manager.read()['n'] += 1

    with pytest.raises(TypeError):
        tosc.transactional(manager)(operation)


def test_a_function_that_holds_the_lock_cannot_wait_for_itself(store):
    """Through another Manager of the same store, that is: an error, and no hang."""
    one, two = store.pair({'n': 0})
    tries = []

    @tosc.transactional(one)
    def both():
        one.read()['n'] += 1
        tries.append(None)
        if len(tries) < 5:
            two.refresh()['n'] += 1

    if store.kind == 'python':
        both()  # such a backend has no lock
        return
    with pytest.raises(RuntimeError, match='wait for itself'):
        both()
    assert len(tries) == 3
    one.refresh()['n'] += 1
    assert two.refresh()['n'] == 3
