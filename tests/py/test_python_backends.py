"""Objects with the four methods as the backend of a Manager: what it asks, and what it makes of
the answers, good and bad."""
# SPDX-License-Identifier: Apache-2.0
import gc
import signal
import sys
import threading
import time
import warnings
import weakref

import pytest

import tosc
from backends_example import SqliteBackend
from harness import MISSING, Thread, run_child, wait_until

# What a Manager's watcher reports while a backend gives wrong answers.
pytestmark = pytest.mark.filterwarnings('ignore:tosc. watching the store failed')

METHODS = ['read', 'write', 'try_write', 'target_wait']


class Plain:
    """The four methods and nothing else: no base class, no timeout."""

    def __init__(self):
        self.condition = threading.Condition()
        self.version = None
        self.data = None
        self.ended = False
        self.threads = set()

    def read(self):
        self.threads.add(threading.get_ident())
        with self.condition:
            return self.version, self.data

    def store(self, new):
        assert type(new) is bytes
        self.version = (self.version or 0) + 1
        self.data = new
        self.condition.notify_all()

    def write(self, new):
        with self.condition:
            self.store(new)
            return self.version

    def try_write(self, new, expected):
        with self.condition:
            if self.version != expected:
                return False
            self.store(new)
            return True

    def target_wait(self):
        with self.condition:
            before = self.version
            self.condition.wait_for(lambda: self.version != before or self.ended, 0.2)
            return self.version != before


class Derived(tosc.BackendBase):
    """The same, derived from BackendBase, and its target_wait can be told how long."""

    def __init__(self):
        self.plain = Plain()

    def read(self):
        return self.plain.read()

    def write(self, new):
        return self.plain.write(new)

    def try_write(self, new, expected):
        return self.plain.try_write(new, expected)

    def target_wait(self, timeout=None):
        plain = self.plain
        with plain.condition:
            before = plain.version
            plain.condition.wait_for(lambda: plain.version != before or plain.ended, timeout)
            return plain.version != before


class Partly(tosc.InprocBackend):
    """Our own, with one of the methods overridden."""

    def __init__(self):
        self.reads = 0

    def read(self):
        self.reads += 1
        return super().read()


class Empty:
    pass


def with_methods(**methods):
    """A Plain some of whose methods are replaced."""
    backend = Plain()
    for name, method in methods.items():
        setattr(backend, name, method)
    return backend


@pytest.fixture(params=['plain', 'derived', 'partly', 'sqlite'])
def make(request, tmp_path):
    """A function that gives an object for one and the same store."""
    if request.param == 'sqlite':
        return lambda: SqliteBackend(tmp_path / 'store')
    backend = {'plain': Plain, 'derived': Derived, 'partly': Partly}[request.param]()
    return lambda: backend


# ---- what is accepted ----

def test_the_four_methods_are_enough(make):
    with tosc.Manager(make()) as manager:
        assert manager.read(MISSING) is MISSING
        manager.write({'list': [1]})
        data = manager.read()
        data['list'].append(2)
        with manager.transaction():
            data['more'] = {'deep': [3]}
            data['more']['deep'].append(4)
        assert manager.snapshot() == {'list': [1, 2], 'more': {'deep': [3, 4]}}
    with tosc.Manager(make()) as manager:
        assert manager.read() == {'list': [1, 2], 'more': {'deep': [3, 4]}}


def test_the_manager_gives_back_the_object(make):
    backend = make()
    with tosc.Manager(backend) as manager:
        assert manager.backend is backend


def test_an_overridden_method_is_called():
    backend = Partly()
    with tosc.Manager(backend) as manager:
        manager.write([1])
        manager.refresh()
    assert backend.reads > 0


def test_a_method_of_the_instance_counts_as_overridden():
    class Open(tosc.InprocBackend):
        pass

    calls = []
    backend = Open()
    inner = backend.copy()
    backend.read = lambda: calls.append(1) or inner.read()
    with tosc.Manager(backend) as manager:
        manager.write([1])
        manager.refresh()
        assert manager.read() == [1]
    assert calls


def test_a_subclass_that_overrides_nothing_shares_its_store_with_the_plain_class():
    class Named(tosc.InprocBackend):
        name = 'mine'

    backend = Named()
    with tosc.Manager(backend) as one, tosc.Manager(backend.copy()) as two:
        one.write([1])
        assert two.read() == [1]


@pytest.mark.parametrize('bad', [None, 5, 'path', b'', [], {}, Empty(), object()], ids=repr)
def test_what_has_no_methods_is_a_type_error_that_names_them(bad):
    with pytest.raises(TypeError, match='read, write, try_write, target_wait') as caught:
        tosc.Manager(bad)
    assert type(bad).__name__ in str(caught.value)


@pytest.mark.parametrize('missing', METHODS)
def test_the_missing_method_is_named(missing):
    Lacking = type('Lacking', (), {name: (lambda self, *args: None) for name in METHODS
                                   if name != missing})
    with pytest.raises(TypeError, match=f"'Lacking' object does not define {missing}$"):
        tosc.Manager(Lacking())


@pytest.mark.parametrize('missing', METHODS)
def test_what_base_has_is_no_definition(missing):
    Lacking = type('Lacking', (tosc.BackendBase,),
                   {name: (lambda self, *args: None) for name in METHODS if name != missing})
    with pytest.raises(TypeError, match=f"'Lacking' object does not define {missing}$"):
        tosc.Manager(Lacking())


def test_a_method_that_cannot_be_called_is_missing():
    with pytest.raises(TypeError, match='does not define write$'):
        tosc.Manager(with_methods(write=5))


@pytest.mark.parametrize('cls', [tosc.InprocBackend, tosc.FileBackend, Plain, Derived])
def test_a_class_is_no_backend(cls):
    with pytest.raises(TypeError, match=r'an object, not a class: call .*\(\.\.\.\)'):
        tosc.Manager(cls)


def test_an_exception_while_looking_for_the_methods_goes_on():
    class Odd(Plain):
        @property
        def try_write(self):
            raise ZeroDivisionError('odd')

    with pytest.raises(ZeroDivisionError, match='odd'):
        tosc.Manager(Odd())


def test_a_file_backend_without_init_is_refused():
    with pytest.raises(ValueError, match='has not been called'):
        tosc.Manager(tosc.FileBackend.__new__(tosc.FileBackend))


@pytest.mark.parametrize('name', METHODS)
def test_the_methods_of_base_say_what_is_missing(name):
    class Mine(tosc.BackendBase):
        pass

    args = {'read': (), 'write': (b'',), 'try_write': (b'', None), 'target_wait': ()}[name]
    with pytest.raises(NotImplementedError, match=rf'Mine does not define {name}\(\)'):
        getattr(Mine(), name)(*args)


def test_base_needs_no_init():
    class Mine(tosc.BackendBase):
        def __init__(self, number):
            self.number = number

    assert Mine(5).number == 5
    assert isinstance(tosc.BackendBase(), tosc.BackendBase)
    with pytest.raises(TypeError):
        tosc.BackendBase(1)


# ---- several managers, threads ----

def test_managers_see_each_others_changes(make):
    with tosc.Manager(make()) as one, tosc.Manager(make()) as two:
        one.write({'n': 0})
        held = two.read()
        data = one.read()
        for number in range(1, 4):
            data['n'] = number
            wait_until(lambda: held['n'] == number, what='the change in the other Manager')


def test_a_conflict_is_a_transaction_error(make):
    with tosc.Manager(make()) as one, tosc.Manager(make()) as two:
        one.write({'n': 0})
        data, other = one.read(), two.read()
        with pytest.raises(tosc.TransactionError):
            with one.transaction():
                data['n'] = 1
                Thread(other.__setitem__, 'n', 2).result()
        assert one.refresh() == {'n': 2}


def test_threads_and_managers_count_without_loss(make):
    with tosc.Manager(make()) as one, tosc.Manager(make()) as two:
        one.write({'n': 0})
        two.read()

        def count(manager):
            data = manager.read()

            @tosc.transactional(manager)
            def increment():
                data['n'] += 1

            for _ in range(5):
                increment()

        threads = [Thread(count, manager) for manager in (one, two) * 3]
        for thread in threads:
            thread.result()
        assert one.refresh() == {'n': 30}


def test_methods_are_called_by_the_watcher_in_a_thread_of_its_own():
    backend = Plain()
    waiting = set()
    inner = backend.target_wait

    def target_wait():
        waiting.add(threading.get_ident())
        return inner()

    backend.target_wait = target_wait
    with tosc.Manager(backend) as manager:
        manager.write([1])
        manager.read()
        wait_until(lambda: waiting, what='a call of target_wait')
    assert threading.get_ident() not in waiting


# ---- answers ----

@pytest.mark.parametrize('empty', [(None, None), (None, b''), (0, None)], ids=repr)
def test_none_means_that_nothing_is_stored(empty):
    with tosc.Manager(with_methods(read=lambda: empty)) as manager:
        assert manager.read(MISSING) is MISSING
        with pytest.raises(tosc.EmptyStoreError):
            manager.read()


@pytest.mark.parametrize('form', [bytes, bytearray, memoryview,
                                  lambda data: memoryview(bytearray(data)),
                                  lambda data: memoryview(bytes(
                                      b for byte in data for b in (byte, 0)))[::2]],
                         ids=['bytes', 'bytearray', 'memoryview', 'writable', 'with gaps'])
def test_data_may_come_in_different_forms(form):
    backend = Plain()
    with tosc.Manager(backend) as manager:
        manager.write({'n': [1, 2, 3]})
    backend.read = lambda: (backend.version, form(backend.data))
    with tosc.Manager(backend) as manager:
        assert manager.read() == {'n': [1, 2, 3]}


@pytest.mark.parametrize('version', [0, -5, 1, 2**62, 2**63 - 1, -2**63 + 1, True])
def test_any_64_bit_version_will_do(version):
    backend = Plain()
    with tosc.Manager(backend) as manager:
        manager.write([1])
    backend.version = version
    with tosc.Manager(backend) as manager:
        assert manager.read() == [1]
        assert manager.version == version


@pytest.mark.parametrize('answer, error, message', [
    (5, TypeError, r'Plain\.read\(\) must return a tuple \(version, data\), not .int'),
    (None, TypeError, r'Plain\.read\(\) must return a tuple \(version, data\), not .NoneType'),
    ((1,), TypeError, r'Plain\.read\(\) must return a tuple'),
    ((1, b'', 2), TypeError, r'Plain\.read\(\) must return a tuple'),
    ([1, b''], TypeError, r'Plain\.read\(\) must return a tuple \(version, data\), not .list'),
    ((1.5, b''), TypeError, r'Plain\.read\(\) must return the version as an int, not .float'),
    (('1', b''), TypeError, r'Plain\.read\(\) must return the version as an int, not .str'),
    ((1, 'text'), TypeError, r'Plain\.read\(\) must return bytes-like data, not .str'),
    ((1, 7), TypeError, r'Plain\.read\(\) must return bytes-like data, not .int'),
    ((2**63, b''), OverflowError, r'Plain\.read\(\) returned the version 9223372036854775808'),
    ((-2**63, b''), OverflowError, r'Plain\.read\(\) returned the version -9223372036854775808'),
    ((2**80, b''), OverflowError, 'versions must fit in 64 bits'),
], ids=repr)
def test_a_wrong_answer_of_read_names_class_and_method(answer, error, message):
    with tosc.Manager(with_methods(read=lambda: answer)) as manager:
        with pytest.raises(error, match=message):
            manager.read()
        with pytest.raises(error, match=message):
            manager.refresh(None)


@pytest.mark.parametrize('answer, error, message', [
    (None, TypeError, r'Plain\.write\(\) must return the version as an int, not .NoneType'),
    ('1', TypeError, r'Plain\.write\(\) must return the version as an int, not .str'),
    (2**64, OverflowError, r'Plain\.write\(\) returned the version'),
], ids=repr)
def test_a_wrong_answer_of_write_names_class_and_method(answer, error, message):
    """Where the Manager writes at all without comparing."""
    backend = with_methods(write=lambda new: answer)
    with tosc.Manager(backend) as manager:
        try:
            manager.write([1])
        except (TypeError, OverflowError):
            with pytest.raises(error, match=message):
                raise
        else:
            assert manager.snapshot() == [1]


def test_bytes_that_are_no_record_are_a_data_error():
    for junk in (b'', b'junk', b'\0' * 1000, b'\x80\x05N.'):
        with tosc.Manager(with_methods(read=lambda: (1, junk))) as manager:
            with pytest.raises(tosc.DataError):
                manager.read()


@pytest.mark.parametrize('yes', [True, 1, 'yes', [0]], ids=repr)
@pytest.mark.parametrize('no', [False, 0, '', None], ids=repr)
def test_try_write_answers_by_its_truth(yes, no):
    backend = Plain()
    with tosc.Manager(backend) as manager:
        manager.write([1])
        data = manager.read()
        backend.try_write = lambda new, expected: (
            yes if Plain.try_write(backend, new, expected) else no)
        data.append(2)
        assert data == [1, 2]
        backend.try_write = lambda new, expected: no
        with pytest.raises(tosc.TransactionError):
            data.append(3)
    backend.__dict__.pop('try_write')
    with tosc.Manager(backend) as manager:
        assert manager.read() == [1, 2]


# ---- exceptions ----

class Broken(Exception):
    pass


def raising(error):
    def method(*args, **kwargs):
        raise error
    return method


def test_an_exception_of_read_goes_to_the_caller_unchanged():
    backend = Plain()
    with tosc.Manager(backend) as manager:
        manager.write([1])
    error = Broken('read')
    backend.read = raising(error)
    with tosc.Manager(backend) as manager:
        for _ in range(3):
            with pytest.raises(Broken) as caught:
                manager.read()
            assert caught.value is error
        del backend.read
        assert manager.read() == [1]


def test_an_exception_of_try_write_that_stored_nothing_goes_to_the_caller():
    """And the memory is as it was."""
    backend = Plain()
    with tosc.Manager(backend) as manager:
        manager.write({'n': 0})
        data = manager.read()
        error = Broken('write')
        backend.try_write = raising(error)
        with pytest.raises(Broken) as caught:
            data['n'] = 1
        assert caught.value is error
        assert data == {'n': 0}
        with pytest.raises(Broken):
            with manager.transaction():
                data['n'] = 2
                data['m'] = [3]
        assert data == {'n': 0}
        assert not manager.is_dirty(data)
        del backend.try_write
        data['n'] = 4
        assert manager.snapshot() == {'n': 4}


def test_a_store_that_was_reached_before_the_exception_is_no_failure(monkeypatch):
    """The reply was lost, but the data are there: the commit has succeeded."""
    backend = Plain()
    unraisable = []
    monkeypatch.setattr(sys, 'unraisablehook', unraisable.append)
    with tosc.Manager(backend) as manager:
        manager.write({'n': 0})
        data = manager.read()

        def lose(new, expected):
            assert Plain.try_write(backend, new, expected)
            raise ConnectionResetError('the reply was lost')

        backend.try_write = lose
        data['n'] = 1
        assert data == {'n': 1}
        del backend.try_write
        data['n'] += 1
        assert manager.snapshot() == {'n': 2}
    assert [type(entry.exc_value) for entry in unraisable] == [ConnectionResetError]


def test_an_outcome_that_cannot_be_found_out_is_said_so():
    backend = Plain()
    with tosc.Manager(backend) as manager:
        manager.write({'n': 0})
        data = manager.read()
        error = ConnectionResetError('the reply was lost')

        def lose(new, expected):
            Plain.try_write(backend, new, expected)
            backend.read = raising(ConnectionError('gone'))
            raise error

        backend.try_write = lose
        with pytest.raises(tosc.UnknownOutcomeError, match=r'Plain\.try_write\(\) raised '
                           'ConnectionResetError') as caught:
            data['n'] = 1
        assert caught.value.__cause__ is error
        del backend.try_write, backend.read
        assert manager.refresh() == {'n': 1}
        data = manager.read()
        data['n'] += 1
        assert manager.snapshot() == {'n': 2}


def test_a_commit_that_was_overtaken_at_once_has_succeeded(make):
    """Somebody else commits between our try_write and the look for its version."""
    backend = Plain()
    with tosc.Manager(backend) as one, tosc.Manager(backend) as two:
        one.write({'n': 0, 'other': 0})
        data, other = one.read(), two.read()

        def slow(new, expected):
            done = Plain.try_write(backend, new, expected)
            del backend.try_write
            two.refresh()
            Thread(other.__setitem__, 'other', 1).result()
            return done

        backend.try_write = slow
        data['n'] = 1
        wait_until(lambda: data == {'n': 1, 'other': 1}, what='both changes')
        data['n'] += 1
        assert one.refresh() == {'n': 2, 'other': 1}
        assert two.refresh() == {'n': 2, 'other': 1}


def test_ctrl_c_in_a_method_interrupts():
    out = run_child('''
        import signal, threading
        from test_python_backends import Plain
        backend = Plain()
        manager = tosc.Manager(backend)
        manager.write([1])
        data = manager.read()
        def slow(new, expected):
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(20)
        backend.try_write = slow
        start = time.monotonic()
        try:
            data.append(2)
        except KeyboardInterrupt:
            print(time.monotonic() - start < 5)
        del backend.try_write
        print(data == [1])
        data.append(3)
        print(manager.snapshot())
        manager.close()
    ''')
    assert out.split('\n') == ['True', 'True', '[1, 3]']


def test_an_exception_in_the_watcher_is_reported_and_not_its_end():
    backend = Plain()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        with tosc.Manager(backend) as manager, tosc.Manager(backend) as other:
            manager.write({'n': 0})
            held = other.read()
            data = manager.read()
            backend.target_wait = raising(Broken('in the watcher'))
            data['n'] = 1
            wait_until(lambda: any('in the watcher' in str(warning.message)
                                   for warning in caught), what='a warning')
            del backend.target_wait
            data['n'] = 2
            wait_until(lambda: held['n'] == 2, what='the watcher at work again')


# ---- waiting and ending ----

def test_a_manager_is_closed_at_once_when_target_wait_takes_a_timeout():
    backend = Derived()
    manager = tosc.Manager(backend)
    manager.write([1])
    manager.read()
    time.sleep(0.05)
    start = time.monotonic()
    manager.close()
    assert time.monotonic() - start < 1


def test_a_target_wait_that_returns_false_at_once_makes_no_busy_loop():
    calls = []
    backend = with_methods(target_wait=lambda: bool(calls.append(1)))
    with tosc.Manager(backend) as manager:
        manager.write([1])
        manager.read()
        time.sleep(0.5)
    assert len(calls) < 100


def test_a_target_wait_that_never_returns_does_not_keep_the_program():
    out = run_child('''
        import threading
        from test_python_backends import Plain
        backend = Plain()
        backend.target_wait = threading.Event().wait
        manager = tosc.Manager(backend)
        manager.write([1])
        manager.read()
        time.sleep(0.1)
        print('end')
    ''', timeout=20)
    assert out == 'end'


def test_the_backend_goes_with_its_manager(make):
    backend = Plain()
    reference = weakref.ref(backend)
    manager = tosc.Manager(backend)
    manager.write([1])
    manager.close()
    del manager, backend
    gc.collect()
    wait_until(lambda: gc.collect() is not None and reference() is None,
               what='the end of the backend')


def test_signals_reach_the_program_while_a_python_backend_waits(make):
    with tosc.Manager(make()) as manager:
        manager.write([1])
        manager.read()
        handled = []
        old = signal.signal(signal.SIGALRM, lambda number, frame: handled.append(number))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            wait_until(lambda: handled, what='the signal')
        finally:
            signal.signal(signal.SIGALRM, old)
