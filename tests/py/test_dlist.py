"""DList beside list: the same results, errors and contents, wherever it lives."""
# SPDX-License-Identifier: Apache-2.0
import collections
import collections.abc
import copy
import gc
import inspect
import itertools
import json
import operator
import pickle
import random
import sys
import typing
import weakref

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import tosc
from harness import SCALE, Thread, in_thread, run_child
from sequences import (ITSELF, OUT_OF_MEMORY, PLACES, BadIndex, Holder, Index, Raised, assert_no_growth,
                       broken_iterable, compare, missing_attributes, place, run, same)
from tosc import DList

VALUES = [
    list,
    lambda: [7],
    lambda: [3, 1, 2],
    lambda: ['b', 'a', 'b', None, 1],
    lambda: [[1], {'k': [2]}, (3, 4), 2.5],
    lambda: list(range(40)),
]

INDICES = [0, 1, 2, 4, 39, 40, -1, -2, -3, -5, -6, 100, -100, True, 2**70, -2**70,
           Index(1), Index(-1), Index('x'), BadIndex(), 1.0, None, 'a', (0,)]

BOUNDS = [None, 0, 1, 3, 100, -1, -2, -100]
STEPS = [None, 1, 2, 3, 20, -1, -2, 0]
SLICES = [slice(*bounds) for bounds in itertools.product(BOUNDS, BOUNDS, STEPS)]
SLICES += [slice(Index(1), Index(-1)), slice(2**70, -2**70, -2**70), slice('a'),
           slice(None, 1.5), slice(BadIndex(), None), slice(1, None, BadIndex())]

ITERABLES = {
    'empty': lambda l: [],
    'one': lambda l: [9],
    'tuple': lambda l: (8, 9),
    'text': lambda l: 'xyz',
    'generator': lambda l: (n * n for n in range(5)),
    'dict': lambda l: {'p': 1, 'q': 2},
    'wrapper': lambda l: DList([5, [6]]),
    'itself': lambda l: l,
    'nested': lambda l: [[1], {'a': 1}],
    'twenty': lambda l: range(20),
    'number': lambda l: 5,
    'none': lambda l: None,
    'holder': lambda l: Holder(),
}


@pytest.fixture(name='here', params=PLACES)
def fixture_here(request):
    with place(request.param) as here:
        yield here


def call(name, *args, **kwargs):
    return lambda l: getattr(l, name)(*args, **kwargs)


def titled(*pairs):
    return {f'{number} {title}': function for number, (title, function) in enumerate(pairs)}


# ---- parity ----

def test_reading_an_element_or_a_slice(here):
    keys = INDICES + SLICES
    compare(here, DList, VALUES, titled(*[
        (f'[{key!r}]', lambda l, key=key: l[key]) for key in keys]))


def test_setting_and_deleting_an_element(here):
    compare(here, DList, VALUES, titled(
        *[(f'[{key!r}] = {value!r}', lambda l, key=key, value=value: operator.setitem(l, key, value))
          for key in INDICES for value in (5, [1, {'x': 2}])],
        *[(f'del [{key!r}]', lambda l, key=key: operator.delitem(l, key)) for key in INDICES]))


def test_deleting_a_slice(here):
    compare(here, DList, VALUES, titled(*[
        (f'del [{key!r}]', lambda l, key=key: operator.delitem(l, key)) for key in SLICES]))


def test_setting_a_slice(here):
    chosen = SLICES[::7] + SLICES[-6:]
    compare(here, DList, VALUES, titled(*[
        (f'[{key!r}] = {title}',
         lambda l, key=key, make=make: operator.setitem(l, key, make(l)))
        for key in chosen for title, make in ITERABLES.items()]))


def test_setting_an_extended_slice_of_the_right_size(here):
    def fill(l, key):
        l[key] = [(n, [n]) for n in range(len(range(len(l))[key]))]
    keys = [key for key in SLICES if key.step not in (None, 0)
            and all(isinstance(n, (int, type(None))) for n in (key.start, key.stop, key.step))]
    compare(here, DList, VALUES, titled(*[
        (f'[{key!r}] = as many', lambda l, key=key: fill(l, key)) for key in keys]))


def test_insert_and_pop(here):
    compare(here, DList, VALUES, titled(
        *[(f'insert({key!r})', call('insert', key, 'new')) for key in INDICES],
        *[(f'insert({key!r}, [])', call('insert', key, [[]])) for key in (0, 1, -1)],
        *[(f'pop({key!r})', call('pop', key)) for key in INDICES],
        ('pop()', call('pop')), ('pop(1, 2)', call('pop', 1, 2)),
        ('insert()', call('insert')), ('insert(1)', call('insert', 1)),
        ('insert(1, 2, 3)', call('insert', 1, 2, 3)),
        ('all popped', lambda l: [l.pop() for _ in range(len(l))]),
        ('all popped from the front', lambda l: [l.pop(0) for _ in range(len(l))])))


def test_growing(here):
    def iadd(make):
        def operation(l):
            before = l
            l += make(l)
            assert l is before
            return l
        return operation
    compare(here, DList, VALUES, titled(
        *[(f'extend({title})', lambda l, make=make: l.extend(make(l)))
          for title, make in ITERABLES.items()],
        *[(f'+= {title}', iadd(make)) for title, make in ITERABLES.items()],
        *[(f'iconcat {title}', lambda l, make=make: operator.iconcat(l, make(l)))
          for title, make in ITERABLES.items() if title not in ('number', 'none', 'holder')],
        *[(f'append({value!r})', call('append', value))
          for value in (1, None, 'x', [1, [2]], {'a': []}, (1, [2]), bytearray(b'x'))],
        ('append()', call('append')), ('append(1, 2)', call('append', 1, 2))))


COUNTS = [-2, -1, 0, 1, 2, 3, True, Index(2), 1.0, None, 'a', [1]]


def test_sums_and_products(here):
    def imul(count):
        def operation(l):
            l *= count
            return l
        return operation
    others = [[], [1], [[1]], (1,), 'a', None, 5]
    compare(here, DList, VALUES, titled(
        *[(f'+ {other!r}', lambda l, other=other: l + other) for other in others],
        *[(f'{other!r} +', lambda l, other=other: other + l) for other in others],
        ('+ itself', lambda l: l + l),
        ('concat', lambda l: operator.concat(l, [1])),
        *[(f'* {count!r}', lambda l, count=count: l * count) for count in COUNTS],
        *[(f'{count!r} *', lambda l, count=count: count * l) for count in COUNTS],
        *[(f'*= {count!r}', imul(count)) for count in COUNTS],
        ('too large', lambda l: l * sys.maxsize if len(l) > 1 else None)))


def test_searching(here):
    wanted = [1, 1.0, 3, 'a', None, [1], {'k': [2]}, (3, 4), 39, 40, Holder]
    bounds = [(), (0,), (1,), (2, 3), (-2,), (-3, -1), (100,), (0, 100), (-100, 100),
              (Index(1),), ('a',), (None,), (1, 2, 3), (2**70,), (-2**70, 2**70)]
    compare(here, DList, VALUES, titled(
        *[(f'index({value!r}, *{bound!r})', call('index', value, *bound))
          for value in wanted for bound in bounds],
        *[(f'count({value!r})', call('count', value)) for value in wanted],
        *[(f'{value!r} in', lambda l, value=value: value in l) for value in wanted],
        *[(f'indexOf({value!r})', lambda l, value=value: operator.indexOf(l, value))
          for value in wanted],
        *[(f'remove({value!r})', call('remove', value)) for value in wanted],
        ('index()', call('index')), ('count()', call('count')), ('count(1, 2)', call('count', 1, 2)),
        ('remove()', call('remove'))), messages=False)
    compare(here, DList, VALUES, titled(
        *[(f'index({value!r})', call('index', value)) for value in wanted if value is not Holder],
        *[(f'remove({value!r})', call('remove', value)) for value in wanted]))


def test_sorting(here):
    values = [*VALUES[:3], lambda: [5, 3, 5, 1, 4] * 5, lambda: ['b', 'C', 'a'],
              lambda: [(1, [2]), (0, [3]), (1, [0])], lambda: [1, 'a', 2], lambda: [1, 2, 3]]

    def fails(_):
        raise LookupError('no key today')
    compare(here, DList, values, titled(
        ('sort()', call('sort')),
        ('sort(reverse=True)', call('sort', reverse=True)),
        ('sort(reverse=0)', call('sort', reverse=0)),
        ('sort(key=str)', call('sort', key=str)),
        ('sort(key=None)', call('sort', key=None)),
        ('sort(key, reverse)', call('sort', key=lambda x: str(x)[-1:], reverse=1)),
        ('sort(key=fails)', call('sort', key=fails)),
        ('sort(key=5)', call('sort', key=5)),
        ('sort(1)', call('sort', 1)),
        ('sort(foo=1)', call('sort', foo=1)),
        ('sort(reverse="x")', call('sort', reverse='x')),
        ('reverse()', call('reverse')), ('reverse(1)', call('reverse', 1)),
        ('sorted', sorted), ('max', max), ('min', min)), messages=True)


def test_whole(here):
    compare(here, DList, VALUES, titled(
        ('clear()', call('clear')), ('clear(1)', call('clear', 1)),
        ('copy()', call('copy')), ('copy(1)', call('copy', 1)),
        ('copy.copy', copy.copy), ('copy.deepcopy', copy.deepcopy),
        ('pickle', lambda l: pickle.loads(pickle.dumps(l))),
        ('len', len), ('bool', bool), ('repr', repr), ('str', str), ('format', format),
        ('format spec', lambda l: format(l, '>10')), ('percent', lambda l: '%s %r' % (l, l)),
        ('list', list), ('tuple', tuple), ('star', lambda l: [*l, 0]),
        ('enumerate', lambda l: list(enumerate(l))),
        ('iter', iter), ('reversed', reversed), ('zip', lambda l: list(zip(l, l))),
        ('hash', hash), ('join', lambda l: '-'.join(map(str, l))),
        ('length hint', operator.length_hint), ('sum', lambda l: sum([l, [1]], [])),
        ('attribute', lambda l: setattr(l, 'x', 1)), ('call', lambda l: l()),
        ('minus', lambda l: l - [1]), ('int', int), ('subscript', lambda l: l[0][0]),
        ('init', lambda l: l.__init__([4, [5]])), ('init nothing', lambda l: l.__init__()),
        ('init itself', lambda l: l.__init__(l)),
    ), messages=False)


COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


def test_comparing_in_both_orders(here):
    class Odd(list):
        """Not what it looks like."""

        def __eq__(self, other):
            return 'odd'

        def __lt__(self, other):
            return 'odd'
        __hash__ = None

    others = [[], [7], [3, 1, 2], [3, 1], [3, 2], [3, 1, 2, 0], ['b', 'a'],
              [[1], {'k': [2]}, (3, 4), 2.5], list(range(40)), (3, 1, 2), 'abc', None, 5, Odd()]
    compare(here, DList, VALUES, titled(
        *[(f'{compare_.__name__} {other!r}',
           lambda l, compare_=compare_, other=other: compare_(l, other))
          for compare_ in COMPARISONS for other in others],
        *[(f'{other!r} {compare_.__name__}',
           lambda l, compare_=compare_, other=other: compare_(other, l))
          for compare_ in COMPARISONS for other in others],
        *[(f'{compare_.__name__} wrapped {other!r}',
           lambda l, compare_=compare_, other=other: compare_(l, DList(other)))
          for compare_ in COMPARISONS for other in others if type(other) is list],
        *[(f'{compare_.__name__} itself', lambda l, compare_=compare_: compare_(l, l))
          for compare_ in COMPARISONS]), messages=False)


def test_the_constructor_takes_what_that_of_list_takes():
    for title, make in ITERABLES.items():
        expected, actual = run(lambda t: t(make([])), list), run(lambda t: t(make([])), DList)
        if isinstance(expected, Raised):
            assert repr(expected) == repr(actual), title
        else:
            assert type(actual) is DList and same(actual, expected), title
    for arguments in ((1, 2), ([], [])):
        with pytest.raises(TypeError, match='expected at most 1 argument, got 2'):
            DList(*arguments)
    with pytest.raises(TypeError, match='takes no keyword arguments'):
        DList(iterable=[1])
    with pytest.raises(LookupError):
        DList(broken_iterable(1))


# ---- what it is ----

def test_it_has_all_that_list_has():
    # list.__getitem__ has no signature, ours has; __init__ and __new__ are described elsewhere.
    known = {'__getitem__', '__class_getitem__', '__init__', '__new__'}
    faults = [fault for fault in missing_attributes(DList) if fault.split(':')[0] not in known]
    assert not faults
    assert str(inspect.signature(DList)) == '(iterable=(), /)'
    assert DList.__doc__ and DList.__module__ == 'tosc' and DList.__qualname__ == 'DList'
    for name in ('append', 'sort', 'pop', 'index'):
        assert inspect.signature(getattr(DList, name))


def test_it_is_a_mutable_sequence_but_no_list():
    l = DList([1])
    assert isinstance(l, collections.abc.MutableSequence)
    assert issubclass(DList, collections.abc.Sequence)
    assert not isinstance(l, list)
    with pytest.raises(TypeError, match='unhashable'):
        {l}
    with pytest.raises(TypeError):
        DList.extra = 1
    with pytest.raises(AttributeError):
        l.extra = 1
    with pytest.raises(TypeError):
        json.dumps(l)
    assert json.dumps(l, default=copy.deepcopy) == '[1]'


def test_it_matches_sequence_patterns():
    match DList([1, [2, 3], 4]):
        case [first, [second, *rest], *others]:
            assert (first, second, rest, others) == (1, 2, [3], [4])
            assert type(rest) is list and type(others) is list
        case _:
            pytest.fail('no match')
    match DList():
        case []:
            pass
        case _:
            pytest.fail('no match')
    match DList([1]):
        case DList():
            pass
        case _:
            pytest.fail('no match')


def test_annotations():
    assert DList[int].__origin__ is DList and typing.get_args(DList[int]) == (int,)


def test_copies_are_plain_lists(here):
    with here.transaction():
        l = here.make(DList, [1, [2], 3])
        for made in (l[:], l[::2], l[::-1], l + [], [] + l, l + l, l * 1, 1 * l, l.copy(),
                     copy.copy(l)):
            assert type(made) is list
        assert l[:][1] is l[1]  # shallow: the element is tracked
        deep = copy.deepcopy(l)
        assert type(deep) is list and type(deep[1]) is list
        deep[1].append(0)
        assert l == [1, [2], 3]


def test_containers_that_are_put_in_are_tracked(here):
    with here.transaction():
        l = here.make(DList, [])
        l.append([])
        l[0].append({})
        l[0][0]['k'] = [1]
        l += [[2]]
        l.insert(0, [3])
        l[1:1] = [[4], (5, [6])]
        l[0] = bytearray(b'x')
        l.extend(iter([{7}]))
        l[2][1].append('deep')
        l *= 2
        assert l[0] is l[6] and type(l[0]) is tosc.DByteArray
        l[0].append(0x79)
        l[3][0]['k'].append(8)
    for contents in here.contents(l):
        half = [bytearray(b'xy'), [4], (5, [6, 'deep']), [{'k': [1, 8]}], [2], {7}]
        assert same(contents, half * 2)


def test_elements_are_aliased_not_copied_again(here):
    with here.transaction():
        l = here.make(DList, [[1], 2])
        inner = l[0]
        l.append(inner)
        l[1] = inner
        l[0:1] = [inner, inner]
        assert all(element is inner for element in l) and len(l) == 4
        assert l.pop() is inner


def test_a_list_that_holds_itself(here):
    with here.transaction():
        l = here.make(DList, [1])
        l.append(l)
        model = [1]
        model.append(model)
        assert repr(l) == repr(model) == '[1, [...]]'
        assert l[1] is l and l == l and l in l and l.index(l) == 1
        deep = copy.deepcopy(l)
        assert type(deep) is list and deep[1] is deep
        loaded = pickle.loads(pickle.dumps(l))
        assert type(loaded) is list and loaded[1] is loaded
        l.append([l])
        assert repr(l) == '[1, [...], [[...]]]'
        l.remove(l)
        del l[1]
        assert l == [1]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_plain_lists(protocol):
    shared = DList([1])
    l = DList([shared, {'k': shared}, bytearray(b'x'), {3}])
    for dumps in (pickle.dumps, pickle._dumps):  # pylint: disable=protected-access
        loaded = pickle.loads(dumps(l, protocol))
        assert same(loaded, [[1], {'k': [1]}, bytearray(b'x'), {3}])
        assert loaded[0] is loaded[1]['k']
        assert b'tosc' not in dumps(l, protocol)


def test_subclasses():
    class Named(DList):
        def __init__(self, *args, name='none'):
            super().__init__(*args)
            self.name = name

        def first(self):
            return self[0]

    class Bare(DList):
        __slots__ = ()

    l = Named([1, [2]], name='Ann')
    assert l == [1, [2]] and l.first() == 1 and l.name == 'Ann' and type(l[1]) is DList
    l += [3]
    assert type(l) is Named and l.name == 'Ann' and l == [1, [2], 3]
    assert type(l[:]) is list and repr(l) == '[1, [2], 3]'
    assert weakref.ref(l)() is l
    assert Bare([1]) + Named([2]) == [1, 2] and not hasattr(Bare(), '__dict__')
    l.itself = l
    gone = weakref.ref(l)
    del l
    gc.collect()
    assert gone() is None


def test_cycles_are_collected():
    l = DList([1])
    l.append(l)
    l.append({'l': l})
    gone = [weakref.ref(l), weakref.ref(l[2])]
    del l
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_weak_reference(here):
    l = here.make(DList, [1])
    reference = weakref.ref(l)
    assert reference() is l
    if here.name == 'alone':
        del l
        assert reference() is None


def test_nesting_may_be_deep_but_repr_and_comparison_say_recursion_error():
    l = DList()
    other = DList()
    for _ in range(5000):
        l, other = DList([l]), DList([other])
    for operation in (lambda: repr(l), lambda: l == other, lambda: pickle.dumps(l)):
        with pytest.raises(RecursionError):
            operation()
    deep = copy.deepcopy(l)
    while deep:
        deep = deep[0]
    assert type(deep) is list


def test_sizeof_counts_the_elements():
    assert sys.getsizeof(DList(range(1000))) > sys.getsizeof(list(range(1000)))


# ---- a plain list as the other operand ----

def test_a_plain_list_takes_a_wrapper_wherever_it_takes_a_list():
    l = DList([1, 2])
    assert [0] + l == [0, 1, 2] and type([0] + l) is list
    assert sum([l, l], []) == [1, 2, 1, 2]
    assert [*l, *l] == [1, 2, 1, 2]
    target = [0]
    target.extend(l)
    target[1:1] = l
    assert target == [0, 1, 2, 1, 2]
    assert operator.iconcat([0], l) == [0, 1, 2]
    assert collections.deque(l) == collections.deque([1, 2])
    assert ''.join(DList('ab')) == 'ab' and b'-'.join(DList([b'a', bytearray(b'b')])) == b'a-b'


def test_augmented_assignment_extends_the_plain_list_itself():
    l = DList([1, 2])
    target = [0]
    held = target
    target += l
    assert target is held and held == [0, 1, 2]

    class Box:
        items = [5]
    Box.items += l
    assert Box.items == [5, 1, 2]

    def generator(target):
        target += l
        yield target + l
    more = [7]
    assert list(generator(more)) == [[7, 1, 2, 1, 2]] and more == [7, 1, 2]
    rows = [[1]]
    rows[0] += l
    assert rows == [[1, 1, 2]]


# ---- snapshots, atomicity, and when nothing is to be done ----

def test_an_iterator_goes_over_the_list_as_it_was(here):
    with here.transaction():
        l = here.make(DList, [1, 2, 3])
        seen = []
        for element in l:
            seen.append(element)
            l.append(element)
            if element == 1:
                l.pop(0)
        assert seen == [1, 2, 3] and l == [2, 3, 1, 2, 3]
        backward = reversed(l)
        del l[:]
        assert list(backward) == [3, 2, 1, 3, 2]
        forward = iter(l)
        l.append(4)
        assert list(forward) == [] and list(l) == [4]


def test_an_operation_that_fails_leaves_the_list_as_it_was(here):
    def fails(element):
        if element == 3:
            raise LookupError('not three')
        return element
    with here.transaction():
        l = here.make(DList, [2, 1, 3])
        for operation in (lambda: l.extend(broken_iterable(1, 2)),
                          lambda: l.__iadd__(broken_iterable(1, 2)),
                          lambda: l.__init__(broken_iterable(1, 2)),
                          lambda: operator.setitem(l, slice(0, 1), broken_iterable(1)),
                          lambda: l.sort(key=fails)):
            with pytest.raises(LookupError):
                operation()
            assert l == [2, 1, 3]
    assert here.contents(l)[-1] == [2, 1, 3]


IDLE = titled(
    ('extend', call('extend', [])), ('+=', lambda l: l.__iadd__(())),
    ('*= 1', lambda l: l.__imul__(1)), ('del', lambda l: operator.delitem(l, slice(5, 5))),
    ('del extended', lambda l: operator.delitem(l, slice(9, 3, 2))),
    ('set', lambda l: operator.setitem(l, slice(1, 1), [])),
    ('set extended', lambda l: operator.setitem(l, slice(2, 1, 3), [])),
    ('sort', call('sort')), ('sort key', call('sort', key=str)),
    ('set to itself', lambda l: operator.setitem(l, 2, l[2])))
IDLE_EMPTY = {**IDLE, **titled(
    ('clear', call('clear')), ('reverse', call('reverse')), ('*=', lambda l: l.__imul__(5)),
    ('*= 0', lambda l: l.__imul__(0)), ('del', lambda l: operator.delitem(l, slice(None))),
    ('init', lambda l: l.__init__()), ('set', lambda l: operator.setitem(l, slice(None), [])))}
del IDLE_EMPTY['9 set to itself']


def test_what_changes_nothing_commits_nothing(inproc_store):
    manager = inproc_store.manager({'l': [1, 2, [3]], 'e': []})
    data = manager.read()
    for key, operations in (('l', dict(IDLE)), ('e', IDLE_EMPTY)):
        if key == 'l':
            operations = {title: operation for title, operation in operations.items()
                          if 'sort' not in title}
            operations.update({'sort key': call('sort', key=str)})
        for title, operation in operations.items():
            version = manager.version
            operation(data[key])
            assert manager.version == version, title
            with manager.transaction():
                operation(data[key])
                assert not manager.is_dirty(data[key]) or key == 'l', title
            assert manager.version == version, title
    assert same(manager.snapshot(), {'l': [1, 2, [3]], 'e': []})


def test_augmented_assignment_to_an_element_is_one_commit(inproc_store):
    manager = inproc_store.manager([[1], 2])
    l = manager.read()
    version = manager.version
    l[0].append(1)
    one = manager.version - version
    version = manager.version
    l[0] += [2]
    assert manager.version - version == one and l == [[1, 1, 2], 2]


def test_an_error_in_an_operation_commits_nothing(inproc_store):
    manager = inproc_store.manager([1, 2])
    l = manager.read()
    version = manager.version
    for operation in (lambda: l.pop(5), lambda: l.remove(9), lambda: operator.setitem(l, 9, 1),
                      lambda: operator.setitem(l, slice(0, 2, 2), [1, 2]),
                      lambda: l.insert('a', 1), lambda: l.append(open)):
        try:
            operation()
        except (IndexError, ValueError, TypeError):
            pass
    l.clear()
    l[:] = [1, 2]
    assert manager.version > version and l == [1, 2]


def test_popped_elements_are_each_given_out_once(inproc_store):
    manager = inproc_store.manager(list(range(2000)))
    l = manager.read()

    def take():
        taken = []
        while True:
            try:
                taken.append(l.pop())
            except IndexError:
                return taken
            except tosc.TransactionError:
                continue
    threads = [Thread(take) for _ in range(4)]
    taken = [element for thread in threads for element in thread.result()]
    assert sorted(taken) == list(range(2000)) and l == []


def test_other_threads_see_a_transaction_only_when_it_ends(inproc_store):
    manager = inproc_store.manager(list(range(50)))
    l = manager.read()
    operations = [lambda: l.append(1), lambda: l.pop(0), lambda: l.sort(reverse=True),
                  lambda: operator.setitem(l, slice(None, None, 2), range(25)),
                  lambda: operator.delitem(l, slice(None, None, 3)), lambda: l.remove(7),
                  lambda: l.__imul__(2), l.reverse, l.clear]
    for operation in operations:
        before = list(range(50))
        l[:] = before
        with manager.transaction():
            operation()
            after = list(l)
            assert in_thread(lambda: (list(l), l[-1], len(l), 49 in l)) == (before, 49, 50, True)
        assert in_thread(lambda: list(l)) == after != before


# ---- code that comes back while it is being worked on ----

class Attacker:
    """Equal to `equal_to`; each comparison first runs `attack`."""

    def __init__(self, attack, equal_to=None):
        self.attack = attack
        self.equal_to = equal_to
        self.calls = 0

    def __eq__(self, other):
        self.calls += 1
        self.attack()
        return other == self.equal_to

    __hash__ = None


@pytest.fixture(name='there', params=['alone', 'stored'])
def fixture_there(request):
    with place(request.param) as there:
        yield there


def test_remove_takes_out_what_it_found_although_the_list_changes(there):
    l = there.make(DList, [1, 2, 3, 4])

    def shift():
        if len(l) < 8:
            l.insert(0, 0)
    l.remove(Attacker(shift, 3))
    assert l == [0] * 4 + [1, 2, 4]

    l[:] = [1, 2, 3]
    l.remove(Attacker(lambda: l.append(9) if len(l) < 9 else None, 2))
    assert l.count(2) == 0 and l[:2] == [1, 3]

    l[:] = [1, 2, 3]
    with pytest.raises(ValueError, match='not in list'):
        l.remove(Attacker(l.clear, 3))
    assert l == []

    l[:] = [1]
    with pytest.raises(RuntimeError, match='changed'):
        l.remove(Attacker(lambda: operator.setitem(l, 0, float('1')), 1))


def test_searching_goes_on_in_the_list_as_it_was(there):
    l = there.make(DList, [1, 2, 3])
    assert l.index(Attacker(l.clear, 3)) == 2 and l == []
    l[:] = [3, 3, 3]
    assert l.count(Attacker(lambda: l.append(3), 3)) == 3 and len(l) == 6
    l[:] = [1, 2, 3]
    assert (Attacker(l.clear, 3) in l) is True
    l[:] = [1, 2]
    assert (l == [1, Attacker(l.clear, 2)]) is True
    l[:] = [1, 2]
    assert ([Attacker(l.clear, 1), 2] == l) is True


ATTACKS = []


class Fighter:
    """An element that attacks whoever compares it; at home in a store."""

    def __init__(self, number):
        self.number = number

    def fight(self):
        if ATTACKS:
            ATTACKS.pop()()

    def __eq__(self, other):
        self.fight()
        return self.number == getattr(other, 'number', other)

    def __lt__(self, other):
        self.fight()
        return self.number < other.number

    def __repr__(self):
        self.fight()
        return f'F{self.number}'


def test_elements_that_change_the_list_when_they_are_looked_at(there):
    l = there.make(DList, [])
    attacks = [l.clear, lambda: l.append(0), lambda: l.insert(0, 0), lambda: l.pop(0),
               lambda: operator.setitem(l, slice(None), [0]), lambda: l.reverse(),
               lambda: operator.setitem(l, 0, None), gc.collect]
    operations = [
        lambda: l.remove(2), lambda: l.index(2), lambda: l.count(2), lambda: 2 in l,
        lambda: l == [0, 1, 2], lambda: [0, 1, 2] == l, lambda: l == DList([0, 1, 3]),
        lambda: l < [Fighter(0), Fighter(2)], l.sort, lambda: l.sort(reverse=True),
        lambda: repr(l), lambda: sorted(l), lambda: max(l), lambda: l[:] == l]
    for attack in attacks:
        for operation in operations:
            ATTACKS.clear()
            l[:] = [Fighter(number) for number in (2, 0, 1)]
            ATTACKS.extend([attack] * 2)
            run(lambda _, operation=operation: operation(), l)
            ATTACKS.clear()
            numbers = [getattr(element, 'number', element) for element in l]
            assert set(numbers) <= {0, 1, 2, None} and len(l) <= 5
            assert all(len(seen) == len(l) for seen in there.contents(l))


def test_repr_ends_although_the_list_is_another_one_at_each_depth(there):
    l = there.make(DList, [Fighter(0)])
    l.append(l)
    ATTACKS.clear()
    ATTACKS.extend([lambda: l.append(0)] * 2000)
    try:
        assert repr(l) == '[F0, [...]]'
    finally:
        ATTACKS.clear()


def test_sort_refuses_a_list_that_was_modified_meanwhile(there):
    l = there.make(DList, [3, 1, 2])
    for attack in (lambda: l.append(0), l.clear, lambda: operator.setitem(l, 0, 5),
                   lambda: (l.append(1), l.pop())):
        l[:] = [3, 1, 2]
        attacks = iter([attack])

        def key(element, attacks=attacks):
            for attack in attacks:
                attack()
            return element
        with pytest.raises(ValueError, match='list modified during sort'):
            l.sort(key=key)
    l[:] = [3, 1, 2]
    l.sort(key=lambda element: (len(l), l[0], element))  # unlike the builtin, it is not empty
    assert l == [1, 2, 3]


def test_arguments_that_change_the_list(there):
    l = there.make(DList, [1, 2, 3])

    class Clearing:
        def __index__(self):
            l.clear()
            return 0

    for operation, expected in (
            (lambda: l[Clearing()], IndexError), (lambda: l.pop(Clearing()), IndexError),
            (lambda: operator.setitem(l, Clearing(), 1), IndexError),
            (lambda: operator.delitem(l, Clearing()), IndexError),
            (lambda: l[Clearing():], []), (lambda: l.index(2, Clearing()), 1),
            (lambda: operator.delitem(l, slice(Clearing(), None, 2)), None),
            (lambda: operator.setitem(l, slice(Clearing(), None), [7]), None),
            (lambda: l.insert(Clearing(), 7), None),
            (lambda: l.__imul__(Clearing()), l), (lambda: l * Clearing(), [])):
        l[:] = [1, 2, 3]
        if isinstance(expected, type):
            with pytest.raises(expected):
                operation()
        else:
            assert operation() == expected
        assert l in ([], [7])


def test_iterables_that_change_the_list(there):
    l = there.make(DList, [1, 2])

    def values():
        yield 5
        l.append(3)
        yield 6
        l.pop(0)

    l.extend(values())
    assert l == [2, 3, 5, 6]
    l += values()
    assert l == [3, 5, 6, 3, 5, 6]
    l[1:2] = values()
    assert l == [5, 5, 6, 3, 5, 6, 3] or l[1:3] == [5, 6]
    l[:] = [1, 2]
    l[:] = (l.append(n) or n for n in (8, 9))
    assert l == [8, 9]
    l.__init__(values())
    assert l == [5, 6]
    l.extend(element for element in l)
    assert l == [5, 6, 5, 6]


def test_code_that_ends_the_transaction():
    for end in ('commit', 'rollback'):
        with place('stored') as there:
            for operation in (
                    lambda l, attack: l.remove(Attacker(attack, 3)),
                    lambda l, attack: l.index(Attacker(attack, 3)),
                    lambda l, attack: l.sort(key=lambda element: (attack(), element)[1]),
                    lambda l, attack: l.extend(attack() or n for n in range(2)),
                    lambda l, attack: operator.setitem(l, slice(0, 2), (attack() or n for n in 'ab')),
                    lambda l, attack: l == [4, 2, Attacker(attack, 3)]):
                l = there.make(DList, [4, 2, 3])
                transaction = there.manager.transaction()
                transaction.__enter__()
                l.append(1)
                ended = []

                def attack(transaction=transaction, ended=ended):
                    if not ended:
                        ended.append(True)
                        getattr(transaction, end)()
                run(lambda l, operation=operation, attack=attack: operation(l, attack), l)
                try:
                    transaction.__exit__(None, None, None)
                except (RuntimeError, tosc.Error):
                    pass
                contents = there.contents(l)
                assert all(same(seen, contents[0]) for seen in contents)
                assert set(map(str, contents[0])) <= set('0123456789ab')


def test_a_class_of_another_kind_cannot_be_slipped_under():
    class A(DList):
        __slots__ = ()

    class B(tosc.DByteArray):
        __slots__ = ()

    class C(tosc.DDict):
        __slots__ = ()

    for other in (B, C, tosc.DByteArray, tosc.DDict):
        a = A([1, 2])
        try:
            a.__class__ = other
        except TypeError:
            continue
        for operation in (lambda x: x[0], list, repr, lambda x: x.append(1), lambda x: x + x,
                          lambda x: x.pop(), lambda x: x.clear(), lambda x: x == [1], bytes):
            run(operation, a)
    b = B(b'ab')
    with pytest.raises(TypeError):
        b.__class__ = A
        b.append(1)
        b[0]


# ---- generated histories ----

elements = st.recursive(st.integers(-3, 3) | st.sampled_from(['a', None, 2.5]),
                        lambda inner: st.lists(inner, max_size=2), max_leaves=3)
bounds = st.none() | st.integers(-12, 12)
slices = st.builds(slice, bounds, bounds, st.sampled_from([None, 1, 1, 2, 3, -1, -2]))


class Histories(RuleBasedStateMachine):
    """Random operations on a list and on a wrapper; the wrapper's place is given by subclasses."""

    place_name = 'alone'

    @initialize(value=st.lists(elements, max_size=20))
    def start(self, value):
        self.context = place(self.place_name)
        self.here = self.context.__enter__()
        self.model = copy.deepcopy(value)
        self.wrapper = self.here.make(DList, value)
        self.blocks = []
        self.saved = []

    def teardown(self):
        if hasattr(self, 'here'):
            while self.blocks:
                self.blocks.pop().__exit__(None, None, None)
            assert all(same(seen, self.model) for seen in self.here.contents(self.wrapper))
            self.context.__exit__(None, None, None)

    def both(self, operation):
        expected, actual = run(operation, self.model), run(operation, self.wrapper)
        if isinstance(expected, Raised):
            assert repr(expected) == repr(actual)
        else:
            assert expected is actual is ITSELF or same(expected, actual)

    @rule(value=elements)
    def append(self, value):
        self.both(lambda l: l.append(copy.deepcopy(value)))

    @rule(index=st.integers(-12, 12), value=elements)
    def insert(self, index, value):
        self.both(lambda l: l.insert(index, copy.deepcopy(value)))

    @rule(index=st.integers(-12, 12))
    def pop(self, index):
        self.both(lambda l: l.pop(index))

    @rule()
    def pop_last(self):
        self.both(lambda l: l.pop())

    @rule(values=st.lists(elements, max_size=5))
    def extend(self, values):
        self.both(lambda l: l.extend(copy.deepcopy(values)))

    @rule(count=st.integers(-1, 3))
    def repeat(self, count):
        if len(self.model) < 60:
            self.both(lambda l: l.__imul__(count))

    @rule(index=st.integers(-12, 12), value=elements)
    def set_item(self, index, value):
        self.both(lambda l: operator.setitem(l, index, copy.deepcopy(value)))

    @rule(index=st.integers(-12, 12))
    def delete_item(self, index):
        self.both(lambda l: operator.delitem(l, index))

    @rule(key=slices, values=st.lists(elements, max_size=5))
    def set_slice(self, key, values):
        self.both(lambda l: operator.setitem(l, key, copy.deepcopy(values)))

    @rule(key=slices)
    def fill_slice(self, key):
        self.both(lambda l: operator.setitem(l, key, list(range(len(l[key])))))

    @rule(key=slices)
    def delete_slice(self, key):
        self.both(lambda l: operator.delitem(l, key))

    @rule(value=elements)
    def remove(self, value):
        self.both(lambda l: l.remove(value))

    @rule(value=elements)
    def search(self, value):
        self.both(lambda l: (l.count(value), value in l))
        self.both(lambda l: l.index(value))

    @rule(reverse=st.booleans())
    def sort(self, reverse):
        self.both(lambda l: l.sort(key=repr, reverse=reverse))

    @rule()
    def reverse(self):
        self.both(lambda l: l.reverse())

    @rule()
    def clear(self):
        self.both(lambda l: l.clear())

    @rule(index=st.integers(-12, 12), value=st.integers(0, 9))
    def change_element(self, index, value):
        self.both(lambda l: l[index].append(value))

    @rule(key=slices)
    def read(self, key):
        self.both(lambda l: l[key])
        self.both(lambda l: list(reversed(l)))

    @invariant()
    def equal(self):
        if hasattr(self, 'wrapper'):
            assert same(self.wrapper, self.model)
            assert len(self.wrapper) == len(self.model)
            assert repr(self.wrapper) == repr(self.model)
            for index in range(-1, min(3, len(self.model))):
                if self.model:
                    assert same(self.wrapper[index], self.model[index])


class StoredHistories(Histories):
    place_name = 'stored'

    @rule()
    def enter(self):
        if len(self.blocks) < 3:
            block = self.here.manager.transaction()
            block.__enter__()
            self.blocks.append(block)
            self.saved.append(copy.deepcopy(self.model))

    @rule()
    def leave(self):
        if self.blocks:
            self.blocks.pop().__exit__(None, None, None)
            self.saved.pop()

    @rule()
    def roll_back(self):
        if self.blocks:
            error = LookupError()
            assert not self.blocks.pop().__exit__(LookupError, error, None)
            self.model = self.saved.pop()


HISTORY_SETTINGS = settings(max_examples=60, stateful_step_count=40, deadline=None,
                            suppress_health_check=list(HealthCheck))
TestHistories = Histories.TestCase
TestHistories.settings = HISTORY_SETTINGS
TestStoredHistories = StoredHistories.TestCase
TestStoredHistories.settings = HISTORY_SETTINGS


def test_long_random_histories(here):
    """Many operations on one long list, where single operations are noted and joined."""
    rng = random.Random(12)
    model = list(range(100))
    l = here.make(DList, model)
    for _ in range(20):
        with here.transaction():
            for _ in range(30):
                key = slice(rng.randrange(-120, 120), rng.randrange(-120, 120),
                            rng.choice([1, 1, 2, 5, 30, -1, -4]))
                operation = rng.choice([
                    lambda l: l.append(rng_value), lambda l: l.insert(rng_index, rng_value),
                    lambda l: l.pop(rng_index), lambda l: operator.setitem(l, rng_index, rng_value),
                    lambda l, key=key: operator.delitem(l, key),
                    lambda l, key=key: operator.setitem(l, key, range(len(range(len(l))[key]))),
                    lambda l: l.extend(range(7)), lambda l: l.__delitem__(slice(-3, None)),
                    lambda l: l.pop()])
                rng_value, rng_index = rng.randrange(1000), rng.randrange(-110, 110)
                expected, actual = run(operation, model), run(operation, l)
                assert repr(expected) == repr(actual)
                assert len(l) == len(model)
                if rng.random() < 0.3:
                    assert l == model
                if len(model) < 60:
                    model.extend(range(60))
                    l.extend(range(60))
        assert all(same(seen, model) for seen in here.contents(l))


# ---- memory ----

def test_an_operation_that_runs_out_of_memory_changes_nothing():
    pytest.importorskip('_testcapi')
    assert run_child(OUT_OF_MEMORY.format(ops='list_changes')).splitlines()[-1] == '[]'



class Fails:
    def __eq__(self, other):
        raise LookupError('no comparison today')
    __hash__ = None


def quietly(operation):
    def wrapped():
        try:
            operation()
        except (LookupError, ValueError, TypeError, OverflowError):
            pass
    return wrapped


def leak_operations(l, token):
    def sort_fails():
        l.sort(key=lambda element: [][0])

    def set_to(value):
        l[:] = value
    return {title: quietly(operation) for title, operation in {
        'append, pop': lambda: (l.append(token), l.pop()),
        'insert, delete': lambda: (l.insert(1, token), l.__delitem__(1)),
        'extend, delete': lambda: (l.extend([token, token]), l.__delitem__(slice(-2, None))),
        'nested': lambda: (l.append([token, {'k': [token]}]), l.pop()),
        'set': lambda: l.__setitem__(0, token),
        'set slice': lambda: l.__setitem__(slice(0, 3, 2), [token, token]),
        'set slice all': lambda: set_to([token, 2, 3, 4, token]),
        'delete slice': lambda: (l.__delitem__(slice(0, 3, 2)), set_to([token, 2, 3, 4, 5])),
        '+= *= clear': lambda: (l.__iadd__([token]), l.__imul__(2), l.clear(),
                                l.extend([token, 2, 3, 4, 5])),
        'remove': lambda: (l.append('gone'), l.remove('gone')),
        'sort, reverse': lambda: (l.sort(key=id), l.reverse()),
        'read': lambda: (l[0], l[-1], l[1:3], l[::2], len(l), token in l, list(l), l.copy()),
        'sums': lambda: (l + [token], [token] + l, l * 2, l + l, l == [token], l < [token]),
        'iterators': lambda: (next(iter(l)), next(reversed(l))),
        'text': lambda: repr(l),
        'search': lambda: (l.count(token), l.index(token)),
        'copies': lambda: (copy.copy(l), copy.deepcopy(l), l.__reduce__(), l.__sizeof__()),
        'init': lambda: l.__init__([token, 2, 3, 4, 5]),
        'bad index': lambda: l[99], 'bad key': lambda: l['x'], 'bad pop': lambda: l.pop(99),
        'bad remove': lambda: l.remove('nowhere'), 'bad compare': lambda: l.remove(Fails()),
        'bad sort': sort_fails, 'bad extend': lambda: l.extend(broken_iterable(token)),
        'bad slice': lambda: l.__setitem__(slice(0, 3, 2), [token]),
        'bad set': lambda: l.__setitem__(99, token), 'bad sum': lambda: l + token,
        'bad iterable': lambda: l.__setitem__(slice(0, 1), 5),
        'bad init': lambda: l.__init__(5),
    }.items()}


def test_operations_leave_nothing_behind():
    token = 'token-%d' % id(DList)
    l = DList([token, 2, 3, 4, 5])
    operations = leak_operations(l, token)
    operations['make'] = lambda: DList([token, [token]])
    operations['cycle'] = lambda: DList([token]).append(l)
    assert_no_growth(operations, [token, DList], times=20000 // SCALE ** 2)


def test_operations_in_a_store_leave_nothing_behind():
    token = 'token-%d' % id(DList)
    with place('stored') as there:
        l = there.make(DList, [token, 2, 3, 4, 5])

        def in_transaction(operation):
            def wrapped():
                with there.manager.transaction():
                    operation()
            return wrapped
        operations = leak_operations(l, token)
        operations.update({title + ' in a transaction': in_transaction(operation)
                           for title, operation in operations.items()})
        del operations['bad compare in a transaction']
        assert_no_growth(operations, [token, DList], times=1000)
