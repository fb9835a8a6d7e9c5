"""Transactions of one context: savepoints, exceptions, early ends, replacing the root."""
# SPDX-License-Identifier: Apache-2.0
import collections
import contextlib
import datetime
import enum
import gc
import threading
import weakref

import pytest

import tosc
from harness import in_thread, shape, stored


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Oops(Exception):
    pass


def everything():
    """One of each kind of container, to be changed by change_everything."""
    return {'list': [1, 2, 3], 'dict': {'a': 1}, 'set': {1, 2}, 'bytes': bytearray(b'abc'),
            'thing': Thing(x=1, y=[1]), 'deque': collections.deque([1, 2]),
            'ordered': collections.OrderedDict(a=1), 'counter': collections.Counter('aab'),
            'default': collections.defaultdict(list, a=[1])}


def change_everything(data, new):
    data['list'][1:2] = [new, new]
    data['list'].append({'nested': new})
    data['list'].reverse()
    data['dict'].update(b=new)
    data['dict'].pop('a', None)
    data['set'].add(new)
    data['set'].discard(1)
    data['bytes'] += b'%d' % new
    data['thing'].x = new
    data['thing'].y.append(new)
    data['thing'].z = [new]
    data['deque'].appendleft(new)
    data['ordered']['b'] = new
    data['counter']['new'] += new
    data['default']['b'].append(new)
    data['added'] = {'deep': [{'er': new}]}


# ---- leaving a block ----

def test_an_exception_in_the_block_passes_unchanged_and_takes_all_changes_with_it(store):
    one, two = store.pair(everything())
    before = shape(one.snapshot())
    version = one.version
    error = Oops('as it was')
    with pytest.raises(Oops) as caught:
        with one.transaction():
            change_everything(one.read(), 7)
            raise error
    assert caught.value is error
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert shape(one.snapshot()) == before
    assert shape(two.refresh()) == before == shape(one.refresh())
    assert one.version == two.version == version


@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_any_kind_of_exception_rolls_back(store, error):
    manager = store.manager([0])
    with pytest.raises(error):
        with manager.transaction():
            manager.read().append(1)
            raise error
    assert manager.read() == [0] == stored(store)


def test_everything_changed_in_a_block_is_committed(store):
    one, two = store.pair(everything())
    expected = everything()
    change_everything(expected, 7)
    with one.transaction():
        change_everything(one.read(), 7)
    assert shape(one.snapshot()) == shape(expected)
    two.refresh()
    assert shape(two.snapshot()) == shape(expected)
    assert shape(stored(store)) == shape(expected)


def test_a_transaction_that_changed_nothing_never_conflicts_and_does_no_io():
    from harness import PyBackend
    backend = PyBackend()
    one = tosc.Manager(backend)
    one.write({'a': [1]})
    data = one.read()
    two = tosc.Manager(PyBackend(backend.box))
    del backend.calls[:]
    with one.transaction():
        assert data['a'] == [1]
        with one.transaction():
            assert list(data) == ['a']
    assert 'try_write' not in backend.calls and 'write' not in backend.calls
    version = one.version
    with one.transaction():
        assert data['a'] == [1]
        two.refresh()['a'].append(2)
    assert one.refresh() == {'a': [1, 2]}
    assert one.version > version
    one.close()
    two.close()


def test_a_block_left_by_return_break_and_continue_commits(store):
    manager = store.manager([])
    root = manager.read()

    def leave():
        with manager.transaction():
            root.append('return')
            return 1

    leave()
    for name in ('continue', 'break'):
        with manager.transaction():
            root.append(name)
            if name == 'continue':
                continue
            break
    assert stored(store) == ['return', 'continue', 'break']


# ---- savepoints ----

def test_a_failed_inner_block_takes_only_its_own_changes_with_it(store):
    one, two = store.pair(everything())
    expected = everything()
    change_everything(expected, 5)
    with one.transaction():
        data = one.read()
        change_everything(data, 5)
        middle = shape(data)
        with pytest.raises(Oops):
            with one.transaction():
                change_everything(data, 6)
                assert shape(data) != middle
                raise Oops
        assert shape(data) == middle
    two.refresh()
    assert shape(one.snapshot()) == shape(expected) == shape(two.snapshot())


def test_only_the_failed_inner_block_changed_something(store):
    one, two = store.pair([0])
    version = one.version
    with one.transaction():
        with contextlib.suppress(Oops):
            with one.transaction():
                one.read().append(1)
                raise Oops
    assert one.read() == [0] == two.refresh()
    assert one.version == version


def test_savepoints_nest_deeply_and_each_undoes_its_own(store):
    one, two = store.pair([])
    depth = 60

    def enter(level):
        if level == depth:
            return
        with contextlib.suppress(Oops):
            with one.transaction():
                one.read().append(level)
                assert one.read() == list(range(level + 1))
                enter(level + 1)
                if level == 40:
                    raise Oops
        assert one.read() == list(range(40 if level <= 40 else depth))

    enter(0)
    assert one.read() == list(range(40)) == two.refresh()


def test_inner_blocks_that_succeed_after_one_that_failed(store):
    manager = store.manager({'n': [0]})
    with manager.transaction():
        numbers = manager.read()['n']
        for n in range(10):
            with contextlib.suppress(Oops):
                with manager.transaction():
                    numbers.append(n)
                    if n % 3 == 0:
                        raise Oops
    assert stored(store) == {'n': [0, 1, 2, 4, 5, 7, 8]}


def test_an_inner_block_caught_outside_of_the_outer_takes_all_with_it(store):
    manager = store.manager([0])
    with pytest.raises(Oops):
        with manager.transaction():
            manager.read().append(1)
            with manager.transaction():
                manager.read().append(2)
                raise Oops
    assert manager.read() == [0] == stored(store)


def test_a_savepoint_restores_what_was_removed_as_the_same_object(store):
    manager = store.manager({'a': [1]})
    data = manager.read()
    inner = data['a']
    with manager.transaction():
        inner.append(2)
        with contextlib.suppress(Oops):
            with manager.transaction():
                inner.append(3)
                del data['a']
                raise Oops
        assert data['a'] is inner
        assert inner == [1, 2]
    assert stored(store) == {'a': [1, 2]}


def test_a_savepoint_undoes_a_replaced_root(store):
    manager = store.manager({'a': 1})
    data = manager.read()
    with manager.transaction():
        data['b'] = 2
        with contextlib.suppress(Oops):
            with manager.transaction():
                manager.write([1])
                manager.read().append(2)
                assert manager.read() == [1, 2]
                raise Oops
        assert manager.read() is data
        assert data == {'a': 1, 'b': 2}
    assert stored(store) == {'a': 1, 'b': 2}


def test_transactions_of_two_stores_nest_and_commit_each_for_itself():
    one = tosc.Manager(tosc.InprocBackend())
    two = tosc.Manager(tosc.InprocBackend())
    one.write([])
    two.write([])
    with one.transaction():
        one.read().append(1)
        with two.transaction():
            two.read().append(1)
            one.read().append(2)
        assert in_thread(two.snapshot) == [1], 'the inner one is the outermost of its store'
        assert in_thread(one.snapshot) == []
    assert one.snapshot() == [1, 2]
    with pytest.raises(Oops):
        with one.transaction(), two.transaction():
            one.read().append(3)
            two.read().append(3)
            raise Oops
    assert (one.snapshot(), two.snapshot()) == ([1, 2], [1])
    with one.transaction():
        one.read().append(3)
        with contextlib.suppress(Oops):
            with two.transaction():
                two.read().append(3)
                raise Oops
    assert (one.snapshot(), two.snapshot()) == ([1, 2, 3], [1])


def test_transactions_of_two_managers_of_one_store_in_one_thread(store):
    one, two = store.pair({'n': 0})
    with pytest.raises(tosc.TransactionError):
        with one.transaction():
            one.read()['n'] = 1
            with two.transaction():
                two.read()['n'] = 2
                assert one.read() == {'n': 1}
            assert one.read() == {'n': 1}
    assert one.refresh() == {'n': 2} == two.refresh()


def test_transactions_of_two_managers_need_not_end_in_order(store):
    one, two = store.pair({'n': 0})
    first, second = one.transaction(), two.transaction()
    first.__enter__()
    second.__enter__()
    one.read()['n'] = 1
    two.read()['n'] = 2
    first.__exit__(None, None, None)
    assert two.read() == {'n': 2}
    with pytest.raises(tosc.TransactionError):
        second.__exit__(None, None, None)
    assert one.refresh() == {'n': 1} == two.refresh()
    two.read()['n'] = 3
    assert one.refresh() == {'n': 3}, 'no transaction is left open'


def test_a_block_that_ends_first_takes_along_those_inside_of_it(store):
    manager = store.pair({'n': 0})[0]
    data = manager.read()
    outer, inner = manager.transaction(), manager.transaction()
    outer.__enter__()
    inner.__enter__()
    data['a'] = 1
    outer.commit()
    assert not inner.active
    data['b'] = 2
    assert inner.__exit__(None, None, None) is False
    with pytest.raises(RuntimeError, match='has ended already'):
        inner.commit()
    assert manager.snapshot() == {'n': 0, 'a': 1, 'b': 2}


def test_what_follows_an_outer_end_is_no_part_of_an_inner_block(store):
    """Also while other contexts have transactions open."""
    manager = store.pair({'n': 0})[0]
    data = manager.read()
    begun, done = threading.Event(), threading.Event()

    def stay_open():
        with manager.transaction():
            begun.set()
            done.wait()

    other = threading.Thread(target=stay_open)
    other.start()
    begun.wait()
    outer, middle, inner = (manager.transaction() for _ in range(3))
    for block in outer, middle, inner:
        block.__enter__()
        data['n'] += 1
    middle.rollback()
    assert data['n'] == 1 and not inner.active
    outer.commit()
    data['b'] = 2
    done.set()
    other.join()
    assert manager.snapshot() == {'n': 1, 'b': 2}


# ---- commit() and rollback() ----

def test_commit_ends_the_transaction_early(store):
    one, two = store.pair([0])
    with one.transaction() as transaction:
        one.read().append(1)
        transaction.commit()
        assert two.refresh() == [0, 1]
        one.read().append(2)
        assert two.refresh() == [0, 1, 2], 'the rest runs outside of a transaction'
    assert one.read() == [0, 1, 2]


def test_rollback_ends_the_transaction_early(store):
    one, two = store.pair([0])
    with one.transaction() as transaction:
        one.read().append(1)
        transaction.rollback()
        assert one.read() == [0]
        one.read().append(2)
        assert two.refresh() == [0, 2]
    assert one.read() == [0, 2]


def test_commit_of_an_inner_block_makes_its_changes_the_outers(store):
    one, two = store.pair([0])
    with one.transaction():
        with contextlib.suppress(Oops):
            with one.transaction() as inner:
                one.read().append(1)
                inner.commit()
                assert two.refresh() == [0]
                raise Oops
        assert one.read() == [0, 1]
    assert two.refresh() == [0, 1]


def test_rollback_of_an_inner_block_leaves_the_outer_open(store):
    one, two = store.pair([0])
    with one.transaction():
        one.read().append(1)
        with one.transaction() as inner:
            one.read().append(2)
            inner.rollback()
            assert one.read() == [0, 1]
            one.read().append(3)
            assert two.refresh() == [0]
    assert two.refresh() == [0, 1, 3]


def test_commit_raises_the_conflict_and_the_transaction_is_over(store):
    one, two = store.pair([0])
    with one.transaction() as transaction:
        one.read().append(1)
        two.read().append(2)
        with pytest.raises(tosc.TransactionError):
            transaction.commit()
        assert one.refresh() == [0, 2]
        one.read().append(3)
    assert two.refresh() == [0, 2, 3]


def test_an_exception_after_commit_undoes_nothing(store):
    manager = store.manager([0])
    with pytest.raises(Oops):
        with manager.transaction() as transaction:
            manager.read().append(1)
            transaction.commit()
            raise Oops
    assert manager.read() == [0, 1] == stored(store)


# ---- the root, and whole-store operations, inside a transaction ----

def test_write_inside_a_transaction_is_part_of_it(store):
    one, two = store.pair([0])
    version = two.version
    with pytest.raises(Oops):
        with one.transaction():
            one.write({'new': []})
            one.read()['new'].append(1)
            assert one.read() == {'new': [1]}
            assert two.refresh() == [0]
            assert two.version == version
            raise Oops
    assert one.read() == [0]
    with one.transaction():
        one.write({'new': []})
        one.read()['new'].append(1)
        assert two.refresh() == [0]
    assert two.refresh() == {'new': [1]} == one.read()


def test_write_inside_a_transaction_conflicts_like_any_change(store):
    one, two = store.pair([0])
    with pytest.raises(tosc.TransactionError):
        with one.transaction():
            one.write([1])
            two.write([2])
    assert one.refresh() == [2] == two.refresh()


def test_write_outside_of_a_transaction_replaces_unconditionally(store):
    one, two = store.pair([0])
    for n in range(20):
        two.write([n])
        one.write([-n])
        assert two.refresh() == [-n]


def test_first_write_inside_a_transaction(store):
    one = store.manager()
    two = store.manager()
    with pytest.raises(Oops):
        with one.transaction():
            one.write([1])
            assert one.read() == [1]
            raise Oops
    assert one.read('empty') == 'empty' == two.refresh('empty')
    with one.transaction():
        one.write([1])
        one.read().append(2)
        assert two.refresh('empty') == 'empty'
    assert two.refresh() == [1, 2]


def test_two_first_writes_conflict(store):
    one = store.manager()
    two = store.manager()
    with pytest.raises(tosc.TransactionError):
        with one.transaction():
            one.write([1])
            two.write([2])
    assert one.refresh() == [2]


def test_snapshot_and_version_in_a_transaction_are_what_it_sees(store):
    one, two = store.pair([0])
    version = one.version
    with pytest.raises(tosc.TransactionError):
        with one.transaction():
            one.read().append(1)
            two.read().append(2)
            assert one.snapshot() == [0, 1]
            assert one.version == version
            assert two.version > version
    assert one.snapshot() == [0, 2]
    assert one.version == two.version


def test_try_write_in_a_transaction(store):
    one, two = store.pair([0])
    with pytest.raises(Oops):
        with one.transaction():
            assert one.try_write([1], one.version) is True
            assert one.read() == [1]
            assert two.refresh() == [0]
            raise Oops
    assert one.read() == [0] == two.refresh()


def test_a_value_of_the_old_root_can_stand_in_the_new(store):
    manager = store.manager({'keep': [1], 'drop': [2]})
    data = manager.read()
    keep, drop = data['keep'], data['drop']
    with manager.transaction():
        manager.write([keep])
    assert manager.read()[0] is keep
    assert manager.is_linked(keep)
    assert not manager.is_linked(drop)
    assert not manager.is_linked(data)
    keep.append(3)
    assert stored(store) == [[1, 3]]


# ---- values that come in later, and the faults that must not come back ----

@pytest.mark.parametrize('put', [
    lambda data, new: data.__setitem__('x', new),
    lambda data, new: data.setdefault('x', new),
    lambda data, new: data.update(x=new),
    lambda data, new: data.update([('x', new)]),
    lambda data, new: data.__ior__({'x': new}),
    lambda data, new: data['list'].append(new),
    lambda data, new: data['list'].insert(0, new),
    lambda data, new: data['list'].extend([new]),
    lambda data, new: data['list'].__iadd__([new]),
    lambda data, new: data['list'].__setitem__(0, new),
    lambda data, new: data['list'].__setitem__(slice(0, 1), [new]),
    lambda data, new: data['list'].__setitem__(slice(None, None, 2), [new]),
    lambda data, new: data['list'].append((1, (new, 2))),
    lambda data, new: data['list'].append([[{'deep': new}]]),
    lambda data, new: setattr(data['thing'], 'x', new),
    lambda data, new: data['thing'].__dict__.update(x=new),
    lambda data, new: data['default']['x'].append(new),
    lambda data, new: data['deque'].append(new),
], ids=['setitem', 'setdefault', 'update-kw', 'update-pairs', 'ior', 'append', 'insert',
        'extend', 'iadd', 'list-setitem', 'slice', 'extended-slice', 'in-tuple', 'deep',
        'setattr', 'attribute-dict', 'defaultdict', 'deque'])
@pytest.mark.parametrize('inside', [False, True], ids=['implicit', 'in-transaction'])
def test_a_container_put_in_later_is_tracked_from_that_moment(inproc_store, put, inside):
    one, two = inproc_store.pair({'list': [0], 'thing': Thing(), 'deque': collections.deque(),
                                  'default': collections.defaultdict(list)})
    data = one.read()
    with one.transaction() if inside else contextlib.nullcontext():
        put(data, {'k': []})
        find_dict(data)['k'].append(1)
        find_dict(data)['l'] = 2
    find_dict(data)['k'].append(3)
    for where in (data, two.refresh(), one.snapshot(), stored(inproc_store)):
        assert find_dict(where) == {'k': [1, 3], 'l': 2}


def find_dict(data):
    """The dict that has a key 'k', wherever it is."""
    todo = [data]
    while todo:
        value = todo.pop()
        if isinstance(value, (tosc.DDict, dict)):
            if 'k' in value:
                return value
            todo.extend(value.values())
        elif isinstance(value, (tosc.DList, list, tuple, collections.deque)):
            todo.extend(value)
        elif isinstance(value, Thing):
            todo.extend(vars(value).values())
        elif hasattr(value, 'append'):
            todo.extend(value)
    raise AssertionError('the dict is lost')


def test_the_example_of_the_design(store):
    manager = store.manager({})
    d = manager.read()
    d['x'] = {}
    d['x']['k'] = 1
    assert stored(store) == {'x': {'k': 1}}


def test_the_plain_original_stays_plain(store):
    inner = {'n': 1}
    outer = [inner]
    manager = store.manager({})
    manager.read()['x'] = outer
    inner['n'] = 2
    outer.append(3)
    assert type(inner) is dict and type(outer) is list and outer[0] is inner
    assert manager.read() == {'x': [{'n': 1}]} == stored(store)


class Colour(enum.Enum):
    RED = 1


def test_leaves_of_many_types_inside_a_list_do_not_disturb_later_commits(store):
    """Custom objects or datetimes in a list once made every later commit fail."""
    manager = store.manager([])
    root = manager.read()
    leaves = [datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc),
              datetime.timedelta(1), Colour.RED, range(3), Thing(x=1), object, len]
    for leaf in leaves:
        root.append(leaf)
        root.append('after')
    other = stored(store)
    assert other[::2][:4] == leaves[:4]
    assert other[8].x == 1
    assert other[10] is object and other[12] is len
    assert other.count('after') == len(leaves)


def test_subclasses_of_dict_keep_contents_and_class(store):
    """OrderedDict and Counter were once silently emptied."""
    manager = store.manager({'o': collections.OrderedDict(a=1, b=2),
                             'c': collections.Counter('aab')})
    manager.read()['later'] = collections.Counter('xyy')
    for data in (manager.snapshot(), stored(store)):
        assert type(data['o']) is collections.OrderedDict
        assert list(data['o'].items()) == [('a', 1), ('b', 2)]
        assert type(data['c']) is collections.Counter
        assert data['c'] == {'a': 2, 'b': 1}
        assert data['later'] == {'x': 1, 'y': 2}
    manager.read()['o'].move_to_end('a')
    manager.read()['c'].update('ab')
    assert list(stored(store)['o']) == ['b', 'a']
    assert stored(store)['c'] == {'a': 3, 'b': 2}


# ---- iteration, views, and what a block leaves behind ----

def test_iterators_run_over_a_stable_snapshot(store):
    manager = store.manager({'list': list(range(5)), 'dict': dict.fromkeys('abc', 0),
                             'set': {1, 2, 3}})
    data = manager.read()
    for inside in (False, True):
        with manager.transaction() if inside else contextlib.nullcontext():
            seen = []
            for value in data['list']:
                data['list'].append(value + 100)
                seen.append(value)
                if len(seen) > 1000:
                    break
            assert len(seen) == (5 if not inside else 10)
            for key in data['dict']:
                data['dict'][key + 'x'] = 1
            for value in data['set']:
                data['set'].add(value + 100)
    assert len(data['list']) == 20
    assert set(data['dict']) == {'a', 'b', 'c', 'ax', 'bx', 'cx', 'axx', 'bxx', 'cxx'}
    assert data['set'] == {1, 2, 3, 101, 102, 103, 201, 202, 203}


def test_an_iterator_of_a_block_survives_it(store):
    manager = store.manager([1, 2, 3])
    with manager.transaction():
        manager.read().append(4)
        iterator = iter(manager.read())
        next(iterator)
    assert list(iterator) == [2, 3, 4]
    with contextlib.suppress(Oops):
        with manager.transaction():
            manager.read().append(5)
            iterator = iter(manager.read())
            raise Oops
    assert list(iterator) in ([1, 2, 3, 4, 5], [1, 2, 3, 4])


def test_a_finished_transaction_keeps_nothing_alive(inproc_store):
    manager = inproc_store.manager({'a': []})

    class Weak(Thing):
        pass

    globals()['Weak'] = Weak
    Weak.__qualname__ = 'Weak'
    plain = Weak(x=1)
    reference = weakref.ref(plain)
    with manager.transaction() as transaction:
        manager.read()['a'].append(plain)
    del plain
    gc.collect()
    assert reference() is None, 'a copy is stored, the original is not held'
    wrapper = manager.read()['a'][0]
    reference = weakref.ref(wrapper)
    with manager.transaction() as transaction:
        del manager.read()['a'][0]
    del wrapper
    gc.collect()
    assert reference() is None
    del transaction


def test_a_transaction_left_open_by_a_generator_ends_with_it(store):
    manager = store.manager([0])

    def generator():
        with manager.transaction():
            manager.read().append(1)
            yield

    running = generator()
    next(running)
    running.close()
    assert manager.read() == [0]
    manager.read().append(2)
    assert stored(store) == [0, 2]


def test_a_dropped_transaction_that_was_never_entered_does_nothing(store):
    manager = store.manager([0])
    manager.transaction()
    gc.collect()
    manager.read().append(1)
    assert stored(store) == [0, 1]


def test_many_changes_in_one_transaction(store):
    one, two = store.pair({'d': {}, 'l': []})
    with one.transaction():
        data = one.read()
        for n in range(2000):
            data['d'][n] = [n]
            data['l'].append(n)
            if n % 3 == 0:
                del data['d'][n]
    expected = {n: [n] for n in range(2000) if n % 3}
    assert two.refresh() == {'d': expected, 'l': list(range(2000))}


def test_changes_that_cancel_each_other_leave_the_data_as_they_were(store):
    one, two = store.pair({'a': [1, 2], 'b': {1}})
    with one.transaction():
        data = one.read()
        data['a'].append(3)
        data['a'].pop()
        data['b'].add(2)
        data['b'].remove(2)
        data['c'] = {}
        del data['c']
    assert two.refresh() == {'a': [1, 2], 'b': {1}} == one.read()


def test_detached_objects_are_local_and_can_be_put_back(store):
    one, two = store.pair({'a': [1], 'b': []})
    data = one.read()
    part = data.pop('a')
    version = one.version
    part.append(2)
    assert part == [1, 2]
    assert one.version == version, 'a change of what is not stored costs no commit'
    assert two.refresh() == {'b': []}
    data['b'].append(part)
    assert one.is_linked(part)
    assert data['b'][0] is part
    part.append(3)
    assert two.refresh() == {'b': [[1, 2, 3]]}


def test_detached_in_a_transaction_and_rolled_back(store):
    manager = store.manager({'a': [1]})
    data = manager.read()
    part = data['a']
    with contextlib.suppress(Oops):
        with manager.transaction():
            del data['a']
            part.append(2)
            assert part == [1, 2]
            raise Oops
    assert part == [1]
    assert data['a'] is part
    assert manager.is_linked(part)


def test_moved_within_a_transaction(store):
    one, two = store.pair({'a': [1], 'b': []})
    data = one.read()
    with one.transaction():
        data['b'].append(data.pop('a'))
        data['b'][0].append(2)
    assert two.refresh() == {'b': [[1, 2]]}
    data['b'][0].append(3)
    assert two.refresh() == {'b': [[1, 2, 3]]}


def test_a_stand_alone_wrapper_is_adopted_when_stored(store):
    manager = store.manager({})
    lst = tosc.DList([1, {'k': 2}])
    lst.append(3)
    assert lst == [1, {'k': 2}, 3]
    assert not manager.is_linked(lst)
    manager.read()['x'] = lst
    assert manager.read()['x'] is lst
    assert manager.is_linked(lst)
    lst[1]['k'] = 4
    assert stored(store) == {'x': [1, {'k': 4}, 3]}


def test_a_wrapper_of_another_manager_is_copied(store):
    one = store.manager({'a': [1]})
    two = tosc.Manager(tosc.InprocBackend())
    two.write({})
    two.read()['b'] = one.read()['a']
    assert two.read()['b'] is not one.read()['a']
    two.read()['b'].append(2)
    assert one.read() == {'a': [1]} == stored(store)
    assert two.snapshot() == {'b': [1, 2]}
    two.write(one.read())
    two.read()['a'].append(3)
    assert one.read() == {'a': [1]}
    assert two.snapshot() == {'a': [1, 3]}
    two.close()


def test_a_wrapper_of_another_manager_of_the_same_store_is_copied(store):
    one, two = store.pair({'a': [1]})
    two.write({'c': one.read()['a']})
    two.read()['c'].append(2)
    assert one.refresh() == {'c': [1, 2]}


def test_a_change_from_inside_of_a_change_is_not_lost(store):
    """User code that runs in the middle of an operation changes the same store."""
    manager = store.manager({'keys': {}, 'n': 0})
    data = manager.read()

    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            data['n'] += 1
            return self is other

        def __reduce__(self):
            return (int, (1,))

    data['keys'][1] = 'one'
    with contextlib.suppress(RuntimeError):
        Key() in data['keys']
    with contextlib.suppress(RuntimeError):
        data['keys'].get(Key())
    snapshot = stored(store)
    assert snapshot['keys'] == {1: 'one'}
    assert snapshot['n'] == data['n']


def test_other_threads_can_commit_while_a_transaction_is_open(store):
    manager = store.manager({'a': 0, 'b': 0})
    with manager.transaction():
        assert manager.read()['a'] == 0
        in_thread(lambda: manager.read().__setitem__('a', 1))
        assert manager.read()['a'] == 0
    assert manager.read() == {'a': 1, 'b': 0}
    assert threading.active_count() >= 1
