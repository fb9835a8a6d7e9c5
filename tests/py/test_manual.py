"""The manual, sentence by sentence: each test quotes what it holds us to."""
# SPDX-License-Identifier: Apache-2.0
import inspect
import os
import pickle
import threading
import time

import pytest

import tosc
from harness import (FILE_KINDS, PyBackend, SHM, Thread, in_thread, run_child, shape, stored,
                     wait_until)


class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y


class Slotted:
    __slots__ = ('x', 'y')

    def __init__(self, x):
        self.x = x


# ---- Managers ----

def test_write_an_object_to_the_manager_and_retrieve_it(store):
    manager = tosc.Manager(store.backend())
    manager.write({'key': [1, 2, 3]})
    obj = manager.read()
    assert obj == {'key': [1, 2, 3]}
    manager.close()


def test_changes_are_applied_and_users_holding_references_are_notified(store):
    """"Changes are applied transactionally, and any user holding references is notified.\""""
    one, two = store.pair({'key': 'old', 'list': [1]})
    held = two.read()
    held_list = held['list']
    obj = one.read()
    obj['key'] = 'new'
    obj['list'].append(2)
    wait_until(lambda: held['key'] == 'new' and held_list == [1, 2],
               what='the change in the other Manager')


def test_data_are_consistent_across_all_nodes(store):
    managers = [store.manager([0])] + [store.manager() for _ in range(3)]
    roots = [manager.read() for manager in managers]
    for manager, root in zip(managers, roots):
        manager.refresh()
        root.append(len(root))
    for manager, root in zip(managers, roots):
        manager.refresh()
        assert root == [0, 1, 2, 3, 4]


# ---- Backends ----

@pytest.mark.parametrize('name', ['read', 'write', 'try_write', 'target_wait'])
def test_backends_implement_the_four_operations(name):
    assert callable(getattr(tosc.BackendBase, name))
    assert callable(getattr(tosc.InprocBackend(), name))
    assert issubclass(tosc.InprocBackend, tosc.BackendBase)
    assert issubclass(tosc.FileBackend, tosc.BackendBase)


def test_read_of_a_backend_gives_version_and_data(store):
    backend = store.backend()
    version = backend.write(b'data')
    assert isinstance(version, int)
    got_version, data = backend.read()
    assert got_version == version
    assert bytes(data) == b'data'


def test_read_of_an_empty_backend_gives_none_twice(store):
    assert store.backend().read() == (None, None)


def test_what_a_backend_reads_can_be_pickled(store):
    """"The data itself may come in different formats, but it must always be pickle-able.\""""
    backend = store.backend()
    backend.write(b'data')
    assert bytes(pickle.loads(pickle.dumps(backend.read()[1]))) == b'data'


def test_write_of_a_backend_replaces_and_returns_the_new_version(store):
    backend = store.backend()
    versions = [backend.write(b'%d' % i) for i in range(5)]
    assert len(set(versions)) == 5
    assert versions == sorted(versions)
    assert backend.read()[0] == versions[-1]
    assert bytes(backend.read()[1]) == b'4'


@pytest.mark.parametrize('data', [b'x', bytearray(b'x'), memoryview(b'x'), b'',
                                  b'\0' * 100_000])
def test_backends_take_any_bytes(store, data):
    backend = store.backend()
    backend.write(data)
    assert bytes(backend.read()[1]) == bytes(data)


def test_try_write_stores_only_if_the_version_matches(store):
    backend = store.backend()
    version = backend.write(b'one')
    assert backend.try_write(b'two', version) is True
    assert backend.try_write(b'three', version) is False
    assert bytes(backend.read()[1]) == b'two'
    assert backend.read()[0] > version


def test_try_write_with_none_expects_that_nothing_is_stored(store):
    backend = store.backend()
    assert backend.try_write(b'one', None) is True
    assert backend.try_write(b'two', None) is False
    assert bytes(backend.read()[1]) == b'one'


def test_try_write_with_a_version_fails_on_an_empty_store(store):
    backend = store.backend()
    assert backend.try_write(b'one', 1) is False
    assert backend.read() == (None, None)


def test_try_write_lets_exactly_one_of_many_through(store):
    backend = store.backend()
    for round_ in range(20):
        version = backend.write(b'base')
        barrier = threading.Barrier(4)

        def attempt(name, version=version, barrier=barrier):
            mine = store.backend()
            barrier.wait()
            return mine.try_write(name, version)

        threads = [Thread(attempt, b'%d' % i) for i in range(4)]
        wins = [thread.result() for thread in threads]
        assert wins.count(True) == 1
        assert bytes(backend.read()[1]) == b'%d' % wins.index(True)


def test_target_wait_blocks_until_the_data_change(store):
    """"Wait for changes on the backend. Returns True if there were any.\""""
    waiter = store.backend()
    store.backend().write(b'one')
    first = waiter.read()[0]
    answers = []

    def wait():
        while waiter.read()[0] == first:
            answers.append(waiter.target_wait())
        while True not in answers:
            answers.append(waiter.target_wait())
        return waiter.read()[0]

    thread = Thread(wait)

    def write_and_look():
        store.backend().write(b'two')
        return not thread.is_alive()

    wait_until(write_and_look, what='target_wait to tell of a change')
    assert thread.result() > first


@pytest.mark.parametrize('kind', ['inproc', *FILE_KINDS])
def test_target_wait_is_called_from_a_separate_thread_and_tells_of_each_change(kind, tmp_path):
    backend = tosc.InprocBackend() if kind == 'inproc' else tosc.FileBackend(
        str(tmp_path / 'store'))
    backend.write(b'0')
    told = []
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            told.append(backend.target_wait())

    thread = Thread(watch)
    for i in range(3):
        before = told.count(True)

        def change(i=i, before=before):
            backend.write(b'%d' % i)
            return told.count(True) > before

        wait_until(change, what='a True from target_wait')
    stop.set()
    backend.write(b'end')
    thread.result(10)


def test_three_backends_are_named_by_the_manual():
    assert inspect.isclass(tosc.InprocBackend)
    assert inspect.isclass(tosc.FileBackend)


def test_inproc_shares_data_across_threads():
    backend = tosc.InprocBackend()
    tosc.Manager(backend).write([1])
    assert in_thread(lambda: tosc.Manager(backend).read()) == [1]


def test_two_inproc_backends_are_two_stores():
    one = tosc.Manager(tosc.InprocBackend())
    two = tosc.Manager(tosc.InprocBackend())
    one.write(1)
    assert two.read('nothing') == 'nothing'


def test_file_backend_stores_in_a_regular_file(tmp_path):
    path = tmp_path / 'some-file'
    with tosc.Manager(tosc.FileBackend(str(path))) as manager:
        manager.write([1, 2, 3])
    assert path.is_file() and not path.is_symlink()
    with tosc.Manager(tosc.FileBackend(str(path))) as manager:
        assert manager.read() == [1, 2, 3]


def test_file_backend_takes_a_path_object(tmp_path):
    with tosc.Manager(tosc.FileBackend(tmp_path / 'some-file')) as manager:
        manager.write(1)
    assert (tmp_path / 'some-file').is_file()


def test_lock_path_is_optional_and_names_the_lock(tmp_path):
    path, lock = tmp_path / 'store', tmp_path / 'locks-go-here'
    with tosc.Manager(tosc.FileBackend(str(path), str(lock))) as one, \
            tosc.Manager(tosc.FileBackend(str(path), lock_path=str(lock))) as two:
        one.write({'n': 0})

        def increments(manager):
            step = tosc.transactional(manager)(bump)
            for _ in range(50):
                step(manager.read())

        def bump(data):
            data['n'] += 1

        threads = [Thread(increments, one), Thread(increments, two)]
        for thread in threads:
            thread.result()
        assert one.refresh() == {'n': 100}
    assert lock.is_file()
    assert sorted(os.listdir(tmp_path)) == ['locks-go-here', 'store']


def test_default_lock_lies_beside_the_file(tmp_path):
    with tosc.Manager(tosc.FileBackend(str(tmp_path / 'store'))) as manager:
        manager.write(1)
        manager.write(2)
    assert set(os.listdir(tmp_path)) <= {'store', 'store.lock'}


def test_file_backend_synchronises_unrelated_processes(shared_store):
    """"It's specially suited to share configuration and apply updates seamlessly.\""""
    manager = shared_store.manager({'config': {'level': 1}})
    config = manager.read()['config']
    run_child('''
        manager = tosc.Manager(open_store(sys.argv[1]))
        manager.read()['config']['level'] = 2
    ''', shared_store.path)
    wait_until(lambda: config['level'] == 2, what='the change of another process')


def test_file_backend_signature():
    parameters = inspect.signature(tosc.FileBackend).parameters
    assert list(parameters)[:2] == ['file_path', 'lock_path']
    assert parameters['lock_path'].default is None


@pytest.mark.parametrize('function,names', [
    ('read', []), ('write', ['new']), ('try_write', ['new', 'expected']), ('target_wait', []),
])
def test_backend_methods_take_their_arguments_by_the_manuals_names(function, names):
    parameters = inspect.signature(getattr(tosc.BackendBase, function)).parameters.values()
    assert [parameter.name for parameter in parameters
            if parameter.name != 'self' and parameter.default is parameter.empty] == names


def test_manager_methods_take_their_arguments_by_the_manuals_names(inproc_store):
    manager = tosc.Manager(backend=inproc_store.backend())
    manager.write(new=[1])
    assert manager.try_write(new=[2], expected=manager.version) is True
    assert manager.is_linked(obj=manager.read()) is True
    assert manager.is_dirty(obj=manager.read()) is False
    manager.close()


# ---- Versioning ----

def test_every_piece_of_data_has_a_version_that_increments(store):
    manager = store.manager()
    assert manager.version is None
    manager.write({'n': 0})
    versions = [manager.version]
    for n in range(5):
        manager.read()['n'] = n + 1
        versions.append(manager.version)
    assert all(isinstance(version, int) for version in versions)
    assert versions == sorted(set(versions))
    assert manager.backend.read()[0] == versions[-1]


def test_the_new_version_is_stored_with_the_data(store):
    one, two = store.pair([0])
    one.read().append(1)
    assert two.refresh() == [0, 1]
    assert two.version == one.version


def test_optimistic_locking_detects_conflicts_without_holding_locks(store):
    one, two = store.pair({'n': 0})
    with pytest.raises(tosc.TransactionError):
        with one.transaction():
            one.read()['n'] += 1
            two.read()['n'] = 10  # is not held up by the open transaction
    assert one.refresh() == {'n': 10}


def test_conditional_updates_apply_only_if_no_one_else_modified(store):
    one, two = store.pair([0])
    version = one.version
    assert two.try_write([1], version) is True
    one.refresh()
    assert one.try_write([2], version) is False
    assert one.read() == [1]


def test_change_detection_refreshes_cached_objects(store):
    one, two = store.pair([0])
    one.write([1])
    wait_until(lambda: two.read() == [1], what='the other Manager to notice')
    assert two.version == one.version


# ---- Transactions ----

def test_a_transaction_prevents_external_changes_from_being_applied(store):
    one, two = store.pair({'n': 0, 'inner': [0]})
    data = one.read()
    with one.transaction():
        two.read()['n'] = 1
        two.read()['inner'].append(1)
        for look in (one.read, one.refresh, lambda: data):
            assert look()['n'] == 0
            assert look()['inner'] == [0]
    assert one.refresh() == {'n': 1, 'inner': [0, 1]}


def test_a_transaction_buffers_mutations_and_commits_on_exit(store):
    one, two = store.pair({'a': 0, 'b': 0})
    version = one.version
    with one.transaction() as transaction:
        assert isinstance(transaction, tosc.Transaction)
        one.read()['a'] = 1
        one.read()['b'] = 1
        assert two.refresh() == {'a': 0, 'b': 0}
        assert two.version == version
    assert two.refresh() == {'a': 1, 'b': 1}
    assert two.version == one.version > version


def test_a_transaction_is_one_commit(store):
    one, two = store.pair({'a': 0, 'b': []})
    seen = set()
    stop = threading.Event()

    def look():
        while not stop.is_set():
            data = two.snapshot()
            seen.add((data['a'], len(data['b'])))

    thread = Thread(look)
    for n in range(50):
        with one.transaction():
            one.read()['a'] = n + 1
            one.read()['b'].append(n)
    stop.set()
    thread.result()
    assert all(a == b for a, b in seen)


def test_a_transaction_rolls_back_on_failure(store):
    one, two = store.pair({'a': 0, 'list': [1, 2]})
    data = one.read()
    with pytest.raises(ZeroDivisionError):
        with one.transaction():
            data['a'] = 1
            data['list'].append(1 / (data['a'] - 1))
    assert data == {'a': 0, 'list': [1, 2]}
    assert two.refresh() == {'a': 0, 'list': [1, 2]}


def test_a_transaction_rolls_back_on_conflict(store):
    one, two = store.pair({'a': 0, 'b': 0})
    data = one.read()
    with pytest.raises(tosc.TransactionError):
        with one.transaction():
            data['a'] = 1
            two.read()['b'] = 2
    assert one.refresh() == {'a': 0, 'b': 2}
    assert data == {'a': 0, 'b': 2}


# ---- Distributed types ----

@pytest.mark.parametrize('value,wrapper', [
    ([1, 2], 'DList'), ({'k': 1}, 'DDict'), ({1, 2}, 'DSet'), (bytearray(b'ab'), 'DByteArray'),
    (Point(1, 2), 'DAny'), (Slotted(1), 'DAny'),
])
def test_wrapper_of_each_python_type(store, value, wrapper):
    manager = store.manager({'value': value})
    assert isinstance(manager.read()['value'], getattr(tosc, wrapper))
    other = store.manager()
    assert isinstance(other.read()['value'], getattr(tosc, wrapper))


@pytest.mark.parametrize('value,wrapper', [
    ([1, 2], 'DList'), ({'k': 1}, 'DDict'), ({1, 2}, 'DSet'), (bytearray(b'ab'), 'DByteArray'),
    (Point(1, 2), 'DAny'),
])
def test_each_type_can_be_the_root(store, value, wrapper):
    manager = store.manager(value)
    assert isinstance(manager.read(), getattr(tosc, wrapper))
    assert shape(manager.snapshot()) == shape(value)


def test_custom_objects_with_dict_or_slots_are_changed_in_place(store):
    one, two = store.pair([Point(1, [2]), Slotted(1)])
    point, slotted = one.read()
    point.x = 10
    point.y.append(3)
    point.z = 'new'
    slotted.x = 20
    slotted.y = [1]
    slotted.y.append(2)
    other_point, other_slotted = two.refresh()
    assert (other_point.x, other_point.y, other_point.z) == (10, [2, 3], 'new')
    assert (other_slotted.x, other_slotted.y) == (20, [1, 2])
    assert isinstance(other_point, Point)
    assert isinstance(other_slotted, Slotted)
    del point.z
    assert not hasattr(two.refresh()[0], 'z')


# ---- About distributed semantics and transactions ----

def test_manager_is_eventually_notified_of_changes_of_other_processes(shared_store):
    manager = shared_store.manager({'n': 0})
    data = manager.read()
    run_child('''
        manager = tosc.Manager(open_store(sys.argv[1]))
        for n in range(100):
            manager.read()['n'] = n + 1
    ''', shared_store.path)
    wait_until(lambda: data['n'] == 100)


def test_the_example_of_an_atomic_change(store):
    manager = store.manager({'list': []})
    data = manager.read()
    with manager.transaction():
        data['key1'] = 'value1'
        data['list'].append(42)
    assert stored(store) == {'list': [42], 'key1': 'value1'}


def test_transactions_may_be_implicit(store):
    manager = store.manager()
    manager.write([1, 2, 3])
    lst = manager.read()
    lst.append(4)
    assert stored(store) == [1, 2, 3, 4]


def test_an_implicit_transaction_may_fail(inproc_store):
    """"This is an implicit transaction and thus may fail.\""""
    class Deaf(PyBackend):
        """Its Manager hears of nothing by itself."""
        def target_wait(self):
            time.sleep(0.5)
            return False

    deaf = Deaf()
    one = tosc.Manager(deaf)
    one.write([0])
    two = tosc.Manager(PyBackend(deaf.box))
    two.read().append(1)
    lst = one.read()
    with pytest.raises(tosc.TransactionError):
        lst.append(2)
    assert lst == [0, 1], 'after a conflict the Manager has caught up'
    lst.append(3)
    assert two.refresh() == [0, 1, 3]
    one.close()
    two.close()


def test_nested_transactions_commit_with_the_outermost(store):
    one, two = store.pair({})
    data = one.read()
    version = one.version
    with one.transaction():
        data['a'] = 1
        with one.transaction():
            data['b'] = 2
        assert two.refresh() == {}, 'the inner transaction has not committed yet'
        data['c'] = 3
        assert two.refresh() == {}
    assert two.refresh() == {'a': 1, 'b': 2, 'c': 3}
    assert two.version > version


def test_the_example_of_handling_a_failure(store):
    one, two = store.pair({'counter': 0})
    data = one.read()
    failed = False
    try:
        with one.transaction():
            data['counter'] += 1
            two.read()['counter'] += 1
    except tosc.TransactionError:
        failed = True
    assert failed
    assert one.refresh() == {'counter': 1}


# ---- @transactional ----

def test_transactional_retries_automatically_on_conflict(store):
    one, two = store.pair({'counter': 0})
    attempts = []

    @tosc.transactional(one)
    def increment_counter(data):
        attempts.append(data['counter'])
        if len(attempts) == 1:
            two.read()['counter'] = 10
        data['counter'] += 1

    increment_counter(one.read())
    assert attempts == [0, 10]
    assert two.refresh() == {'counter': 11}


@pytest.mark.parametrize('options', [{'retries': 10}, {'timeout': 5.0}, {'timeout': 5},
                                     {'retries': 20, 'timeout': 10.0}, {}])
def test_the_examples_of_retries_and_timeout(store, options):
    manager = store.manager({'value': 0})

    @tosc.transactional(manager, **options)
    def operation(data):
        data['value'] = 1

    operation(manager.read())
    assert stored(store) == {'value': 1}


def test_transactional_signature():
    parameters = inspect.signature(tosc.transactional).parameters
    assert list(parameters) == ['manager', 'retries', 'timeout']
    assert parameters['retries'].default is None
    assert parameters['timeout'].default is None


def test_transaction_exceptions():
    assert issubclass(tosc.TransactionRetryError, tosc.TransactionError)
    assert issubclass(tosc.TransactionTimeoutError, tosc.TransactionError)
    assert not issubclass(tosc.TransactionRetryError, tosc.TransactionTimeoutError)


# ---- Wire format ----

def test_stored_data_rely_on_pickle(store):
    """Whatever pickle can store can be stored: functions and classes by name, for one."""
    manager = store.manager({'class': Point, 'function': os.path.join, 'big': 10 ** 100})
    other = store.manager()
    data = other.read()
    assert data['class'] is Point
    assert data['function'] is os.path.join
    assert data['big'] == 10 ** 100


def test_what_is_retrieved_has_distributed_properties(store):
    store.manager({'a': [{'b': {1}}]})
    other = store.manager()
    root = other.read()
    assert isinstance(root, tosc.DDict)
    assert isinstance(root['a'], tosc.DList)
    assert isinstance(root['a'][0], tosc.DDict)
    assert isinstance(root['a'][0]['b'], tosc.DSet)


# ---- BackendBase in Python ----

@pytest.mark.parametrize('make', [bytes, bytearray, memoryview])
@pytest.mark.parametrize('step', [1, 1000])
def test_a_backend_written_in_python_may_return_any_bytes_and_any_increasing_version(make, step):
    backend = PyBackend(step=step, make=make)
    one = tosc.Manager(backend)
    two = tosc.Manager(PyBackend(backend.box, step=step, make=make))
    one.write({'a': []})
    two.refresh()['a'].append(1)
    assert one.refresh() == {'a': [1]}
    assert one.version == two.version == backend.box.version == 2 * step
    one.close()
    two.close()


@pytest.mark.parametrize('name', ['read', 'write', 'try_write', 'target_wait'])
def test_a_subclass_without_an_operation_says_so(name):
    class Partial(PyBackend):
        pass

    setattr(Partial, name, getattr(tosc.BackendBase, name))
    arguments = {'write': (b'',), 'try_write': (b'', None)}.get(name, ())
    with pytest.raises(NotImplementedError):
        getattr(Partial(), name)(*arguments)


def test_target_wait_is_called_from_a_separate_thread():
    threads = set()

    class Noting(PyBackend):
        def target_wait(self):
            threads.add(threading.get_ident())
            return super().target_wait()

    with tosc.Manager(Noting()) as manager:
        manager.write([1])
        manager.read()
        wait_until(lambda: threads, what='the watcher to start')
    assert threading.get_ident() not in threads


# ---- Manager ----

def test_is_linked_and_detached(store):
    manager = store.manager([[1], [2]])
    root = manager.read()
    first = root[0]
    assert manager.is_linked(root)
    assert manager.is_linked(first)
    root.remove([1])
    assert not manager.is_linked(first)
    assert manager.is_linked(root[0])


def test_is_dirty_until_the_changes_are_applied(store):
    manager = store.manager({'a': [], 'b': []})
    data = manager.read()
    assert not manager.is_dirty(data)
    with manager.transaction():
        assert not manager.is_dirty(data['a'])
        data['a'].append(1)
        assert manager.is_dirty(data['a'])
        assert not manager.is_dirty(data['b'])
    assert not manager.is_dirty(data['a'])


def test_transactions_are_context_managers(inproc_store):
    manager = inproc_store.manager([])
    transaction = manager.transaction()
    assert hasattr(transaction, '__enter__') and hasattr(transaction, '__exit__')


def test_read_returns_the_cached_object_if_nothing_has_changed(store):
    manager = store.manager({'a': 1})
    assert manager.read() is manager.read()


def test_read_uses_the_cache_and_refresh_bypasses_it():
    class Deaf(PyBackend):
        def target_wait(self):
            time.sleep(0.02)
            return False

    backend = Deaf()
    one = tosc.Manager(backend)
    one.write([0])
    root = one.read()
    before = backend.calls.count('read')
    for _ in range(5):
        assert one.read() is root
    assert backend.calls.count('read') == before
    with tosc.Manager(PyBackend(backend.box)) as two:
        two.read().append(1)
    assert one.refresh() is root
    assert root == [0, 1]
    one.close()


def test_write_replaces_the_stored_object(store):
    one, two = store.pair({'a': 1})
    one.write([1])
    assert one.read() == [1]
    assert two.refresh() == [1]
    two.write('leaf')
    assert one.refresh() == 'leaf'


def test_manager_try_write(store):
    one = store.manager()
    two = store.manager()
    assert one.try_write([1], None) is True
    assert two.try_write([2], None) is False
    assert two.refresh() == [1]
    assert two.try_write([2], two.version) is True
    assert one.try_write([3], two.version + 1000) is False
    assert one.refresh() == [2]


def test_snapshot_is_of_the_original_types_and_no_longer_distributed(store):
    value = {'l': [1, {'d': {2, 3}}], 'b': bytearray(b'x'), 't': ([4], 5), 'p': Point(1, [2])}
    manager = store.manager(value)
    snapshot = manager.snapshot()
    assert type(snapshot) is dict
    assert type(snapshot['l']) is list
    assert type(snapshot['l'][1]) is dict
    assert type(snapshot['l'][1]['d']) is set
    assert type(snapshot['b']) is bytearray
    assert type(snapshot['t']) is tuple
    assert type(snapshot['t'][0]) is list
    assert type(snapshot['p']) is Point
    assert type(snapshot['p'].y) is list
    assert shape(snapshot) == shape(value)
    version = manager.version
    snapshot['l'].append(1)
    snapshot['p'].x = 5
    assert manager.version == version
    assert shape(manager.snapshot()) == shape(value)


@pytest.mark.parametrize('method', ['read', 'refresh', 'snapshot'])
def test_an_empty_store_gives_the_default_or_an_error(store, method):
    manager = store.manager()
    assert getattr(manager, method)('default') == 'default'
    assert getattr(manager, method)(None) is None
    with pytest.raises(tosc.EmptyStoreError) as caught:
        getattr(manager, method)()
    assert isinstance(caught.value, tosc.Error)
    assert isinstance(caught.value, LookupError)
    assert manager.version is None
    manager.write(1)
    assert getattr(manager, method)('default') == 1


@pytest.mark.parametrize('leaf', [0, None, 'text', 1.5, (1, 'two'), b'bytes', True, 1j,
                                  frozenset({1})])
def test_a_leaf_can_be_the_root(store, leaf):
    one, two = store.pair(leaf)
    assert one.read() == leaf and type(one.read()) is type(leaf)
    assert two.read() == leaf
    assert two.snapshot() == leaf


def test_a_managers_backend_and_closing(store):
    backend = store.backend()
    with tosc.Manager(backend) as manager:
        assert manager.backend is backend
        assert manager.closed is False
        manager.write(1)
    assert manager.closed is True
    manager.close()
    with pytest.raises(tosc.ClosedError):
        manager.read()


@pytest.mark.skipif(SHM is None, reason='no /dev/shm')
def test_files_are_private(quick_file_store):
    quick_file_store.manager([1])
    for name in os.listdir(quick_file_store.directory):
        mode = os.stat(os.path.join(quick_file_store.directory, name)).st_mode
        assert mode & 0o077 == 0, f'{name} is open to others: {mode:o}'


def test_everything_has_a_docstring():
    for name in dir(tosc):
        if name.startswith('_'):
            continue
        thing = getattr(tosc, name)
        if callable(thing):
            assert thing.__doc__, f'tosc.{name} has no docstring'
    for name in ('read', 'refresh', 'snapshot', 'write', 'try_write', 'transaction', 'is_linked',
                 'is_dirty', 'version', 'backend', 'close', 'closed'):
        assert getattr(tosc.Manager, name).__doc__, f'Manager.{name} has no docstring'
