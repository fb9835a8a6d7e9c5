"""Which value becomes which wrapper, at any depth, and back: adopting and plain copies."""
# SPDX-License-Identifier: Apache-2.0
import array
import collections
import contextlib
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import gc
import io
import ipaddress
import itertools
import math
import operator
import pathlib
import random
import re
import socket
import sys
import threading
import time
import uuid
import weakref
import zoneinfo

import pytest

import tosc
from harness import count_objects

Pair = collections.namedtuple('Pair', 'left right')


class Color(enum.Enum):
    RED = [1]


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.Flag):
    A = 1
    B = 2


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Word(str):
    pass


class Stamp(datetime.datetime):
    pass


class SlottedFloat(float):
    __slots__ = ('unit',)


class Tuple(tuple):
    __slots__ = ()


class Node:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class SubList(tosc.DList):
    pass


@dataclasses.dataclass(frozen=True)
class Key:
    name: str
    tags: tuple = ()


def function():
    pass


LEAVES = [
    None, True, 5, 2 ** 100, 1.5, 'text', b'bytes', 1j, range(3), slice(1, 2), ..., NotImplemented,
    int, Node, function, len, math.sqrt, dict.fromkeys, str.upper, Color.RED, Level.LOW,
    Flags.A | Flags.B, datetime.datetime(2020, 1, 1), datetime.date(2020, 1, 1), datetime.time(1),
    datetime.timedelta(1), datetime.timezone.utc, decimal.Decimal('1.5'), fractions.Fraction(1, 2),
    uuid.UUID(int=5), pathlib.PurePath('/a'), pathlib.Path('/b'), ipaddress.ip_address('::1'),
    ipaddress.ip_network('10.0.0.0/8'), ipaddress.ip_interface('10.0.0.1/8'), re.compile('a+'),
    zoneinfo.ZoneInfo('UTC'), Text('x'), Number(5), Word('x'), Stamp(2020, 1, 1), (), (1, 'a', (2,)),
    Pair(1, (2, 3)), frozenset([1, 2]), frozenset([(1, frozenset([2]))]), Tuple((1, (2,))),
    time.struct_time(range(9)), list[int], int | str, sys.float_info, ValueError, operator.add,
]


@pytest.fixture
def two():
    backend = tosc.InprocBackend()
    one, other = tosc.Manager(backend), tosc.Manager(backend)

    def put(value):
        one.write(value)
        return one.read(), other.refresh
    put.manager = one
    put.other = other
    yield put
    one.close()
    other.close()


def adopt(value):
    return tosc.DList([value])[0]


# ---- leaves ----

@pytest.mark.parametrize('value', LEAVES, ids=lambda value: f'{type(value).__name__}')
def test_leaves_are_kept_as_they_are(value):
    assert adopt(value) is value
    assert adopt((value,))[0] is value
    nested = (value, (value, 1))
    assert adopt(nested) is nested


@pytest.mark.parametrize('value', [value for value in LEAVES if value is not sys.float_info],
                         ids=lambda value: f'{type(value).__name__}')
def test_leaves_are_stored(two, value):
    root, other = two([value])
    seen = other()[0]
    assert seen == value and type(seen) is type(value)
    root[0] = 1
    root[0] = value
    assert other()[0] == value


def test_datetimes_and_custom_objects_in_a_list_do_not_break_commits(two):
    root, other = two([])
    root.append(datetime.datetime(2020, 1, 1))
    root.append(Node(x=datetime.date(2020, 1, 2)))
    root.append(1)
    root[1].x = root[0]
    root.append([root[1]])
    assert other()[0] == datetime.datetime(2020, 1, 1) == other()[1].x
    assert other()[3][0] is other()[1] and len(other()) == 4


def test_subclasses_of_immutable_types_with_state_are_not_leaves():
    number = Number(5)
    number.note = 1
    slotted = SlottedFloat(1.5)
    slotted.unit = 'm'
    for value in (number, slotted, Tuple(([],))):
        wrapper = adopt(value)
        assert isinstance(wrapper, tosc.DOpaque) and isinstance(wrapper, type(value))
        assert wrapper == value


# ---- which wrapper ----

@pytest.mark.parametrize('value, kind', [
    ([], tosc.DList), ({}, tosc.DDict), (set(), tosc.DSet), (bytearray(b'x'), tosc.DByteArray),
    (Node(), tosc.DAny), (Key('x'), tosc.DAny), (collections.OrderedDict(), tosc.DOpaque),
    (collections.Counter(), tosc.DOpaque), (collections.deque(), tosc.DOpaque),
    (array.array('i'), tosc.DOpaque), (collections.defaultdict(list), tosc.DOpaque),
    (ValueError(), tosc.DOpaque), (functools.partial(int), tosc.DOpaque),
    (random.Random(1), tosc.DOpaque), (collections.UserDict(), tosc.DAny),
    (collections.ChainMap({}), tosc.DAny), (io.BytesIO(b''), tosc.DOpaque),
])
def test_what_becomes_what(value, kind):
    wrapper = adopt(value)
    assert isinstance(wrapper, kind)
    assert type(copy.deepcopy(wrapper)) is type(value)


def test_plain_containers_at_any_place_are_tracked(two):
    root, other = two({})
    root['a'] = {}
    root['a']['k'] = []
    root['a']['k'].append({1})
    root['a']['k'][0].add(2)
    root['t'] = (1, [2], ({3: []}, 4))
    root['t'][1].append(5)
    root['t'][2][0][3].append(6)
    root['n'] = Pair([1], {})
    root['n'].right['x'] = root['n'].left
    root['n'].left.append(7)
    root.setdefault('s', []).append(8)
    root.update(u=[[9]])
    root['u'][0].append(10)
    root['u'][1:] = [[11], bytearray(b'12')]
    root['u'][1].append(13)
    root['u'][2].extend(b'!')
    root['o'] = Node(x={'y': []})
    root['o'].x['y'].append(14)
    seen = other()
    assert seen['a'] == {'k': [{1, 2}]} and seen['t'] == (1, [2, 5], ({3: [6]}, 4))
    assert seen['n'] == Pair([1, 7], {'x': [1, 7]}) and type(seen['n']) is Pair
    assert seen['n'].right['x'] is seen['n'].left and seen['s'] == [8]
    assert seen['u'] == [[9, 10], [11, 13], bytearray(b'12!')] and seen['o'].x == {'y': [14]}


def test_tuples_and_frozensets(two):
    unchanged = (1, ('a', frozenset([2])))
    assert adopt(unchanged) is unchanged
    inner = []
    value = Pair(inner, (inner, Pair(1, {'k': inner})))
    wrapper = adopt(value)
    assert type(wrapper) is Pair and type(wrapper.right[1]) is Pair
    assert wrapper.left is wrapper.right[0] is wrapper.right[1].right['k']
    assert isinstance(wrapper.left, tosc.DList)
    keys = frozenset([Key('a'), (Key('b'), 1), 5])
    adopted = adopt(keys)
    assert type(adopted) is frozenset and adopted == keys and Key('a') in adopted
    assert any(isinstance(key, tosc.DAny) for key in adopted)
    plain = copy.deepcopy(tosc.DList([value, keys]))
    assert plain == [value, keys] and all(type(key) in (Key, tuple, int) for key in plain[1])


def test_custom_objects_as_keys():
    shared = Key('shared')
    wrapper = tosc.DDict({shared: [1], (shared, 2): {shared}})
    assert wrapper[Key('shared')] == [1] and wrapper[Key('shared'), 2] == {Key('shared')}
    key, pair = wrapper
    assert key is pair[0] is next(iter(wrapper[pair])) and isinstance(key, tosc.DAny)
    plain = copy.deepcopy(wrapper)
    assert plain == {shared: [1], (shared, 2): {shared}}
    key, pair = plain
    assert type(key) is Key and key is pair[0] is next(iter(plain[pair]))


def test_an_object_that_is_a_key_of_its_own_dict():
    class Self:
        def __init__(self):
            self.name = 'me'
            self.by_self = {}
            self.all = set()

        def __hash__(self):
            return hash(self.name)

        def __eq__(self, other):
            return isinstance(other, Self) and self.name == other.name
    value = Self()
    value.by_self[value] = value
    value.all.add((value, 1))
    value.other = Self()
    value.other.name = 'other'
    value.other.all.add(value)
    wrapper = tosc.DAny(value)
    assert wrapper.by_self[wrapper] is wrapper and (wrapper, 1) in wrapper.all
    assert wrapper in wrapper.other.all
    plain = copy.deepcopy(wrapper)
    assert plain.by_self[plain] is plain and (plain, 1) in plain.all and plain in plain.other.all


# ---- identity ----

def test_aliases_and_cycles():
    inner = [1]
    node = Node(items=inner)
    node.me = node
    value = {'a': inner, 'b': [inner, (inner, node)], 'n': node}
    value['self'] = value
    inner.append(value)
    wrapper = tosc.DDict(value)
    top = wrapper['self']
    assert top['self'] is top and top['a'] is top['b'][0] is top['b'][1][0] is top['n'].items
    assert top['n'].me is top['n'] is top['b'][1][1] and top['a'][1] is top
    plain = copy.deepcopy(top)
    assert plain['self'] is plain and plain['a'] is plain['b'][0] is plain['b'][1][0]
    assert plain['n'].me is plain['n'] and plain['a'] is plain['n'].items
    assert type(plain) is dict and type(plain['a']) is list and type(plain['n']) is Node


def test_a_tuple_in_a_cycle():
    items = []
    value = (items, 1)
    items.append(value)
    wrapper = adopt(value)
    assert wrapper[0][0] is wrapper or wrapper[0][0][0] is wrapper[0]
    plain = copy.deepcopy(tosc.DList([value]))[0]
    assert plain[0][0][0] is plain[0] and type(plain[0]) is list


def test_wrappers_are_kept():
    inner = tosc.DList([1])
    sub = SubList([2])
    sub.attribute = 'kept'
    outer = tosc.DDict(a=inner, b=[inner, (inner,)], c=sub)
    assert outer['a'] is inner is outer['b'][0] is outer['b'][1][0] and outer['c'] is sub
    assert type(outer['c']) is SubList and outer['c'].attribute == 'kept'
    assert type(copy.deepcopy(outer)['c']) is list


def test_stand_alone_wrappers_are_taken_along(two):
    inner = tosc.DDict(x=[1])
    deep = inner['x']
    outer = tosc.DList([(inner, 1), {2}, Node(inner=inner)])
    root, other = two([])
    root.append(outer)
    assert root[0] is outer and root[0][0][0] is inner and inner['x'] is deep
    for value in (outer, inner, deep, outer[1], outer[2]):
        assert two.manager.is_linked(value)
    deep.append(2)
    inner['y'] = {}
    assert other()[0][0][0] == {'x': [1, 2], 'y': {}} and other()[0][2].inner is other()[0][0][0]


def test_a_root_that_is_a_stand_alone_wrapper(two):
    wrapper = tosc.DDict(a=[1])
    root, other = two(wrapper)
    assert root is wrapper
    wrapper['a'].append(2)
    assert other() == {'a': [1, 2]}


def test_wrappers_of_another_manager_are_copied(two):
    root, other = two({})
    foreign = tosc.Manager(tosc.InprocBackend())
    foreign.write({'a': [1], 'n': Node(x=[2])})
    theirs = foreign.read()
    theirs['again'] = theirs['a']
    root['list'] = theirs['a']
    root['list'].append(2)
    root['both'] = [theirs, theirs['a'], theirs['n']]
    assert root['both'][0]['a'] is root['both'][0]['again'] is root['both'][1]
    assert root['both'][2] is root['both'][0]['n'] and type(root['both'][2]) is type(theirs['n'])
    root['both'][1].append(3)
    assert other()['both'][0]['a'] == [1, 3] and other()['list'] == [1, 2]
    assert theirs['a'] == [1]
    alone = tosc.DList([theirs['a']])
    alone[0].append(9)
    assert theirs['a'] == [1]
    root['again'] = root['list']
    assert root['again'] is root['list']
    foreign.close()


def test_a_closed_managers_wrappers_can_be_copied(two):
    root, _ = two({})
    foreign = tosc.Manager(tosc.InprocBackend())
    foreign.write([[1]])
    theirs = foreign.read()
    foreign.close()
    with contextlib.suppress(tosc.ClosedError):
        root['x'] = theirs
        assert root['x'] == [[1]]


# ---- depth ----

def nest(kind, depth):
    value = kind()
    for _ in range(depth):
        value = kind(value)
    return value


@pytest.mark.parametrize('kind', [
    lambda *inner: list(inner), lambda *inner: {'k': inner[0] if inner else 1},
    lambda *inner: (inner[0] if inner else [], 1), lambda *inner: Node(next=inner),
    lambda *inner: Node(next=inner[0] if inner else None), lambda *inner: Pair(*inner, 1) if inner else [],
    lambda *inner: frozenset([inner[0] if inner else 1, 2]),
], ids=['list', 'dict', 'tuple', 'tuple in object', 'object', 'named tuple', 'frozenset'])
def test_depth_is_bounded_by_memory_only(kind):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        wrapper = tosc.DList([nest(kind, 20000)])
        plain = copy.deepcopy(wrapper)
        assert type(plain) is list
        del wrapper, plain
    finally:
        sys.setrecursionlimit(limit)
    gc.collect()


# ---- what is refused ----

REFUSED = [
    (threading.Lock(), '_thread.lock'), (threading.RLock(), '_thread.RLock'),
    (memoryview(b''), 'memoryview'), (iter([]), 'list_iterator'), ((x for x in ()), 'generator'),
    ({}.keys(), 'dict_keys'), ({}.values(), 'dict_values'), ({}.items(), 'dict_items'),
    (io.TextIOWrapper(io.BytesIO()), '_io.TextIOWrapper'), (math, 'module'),
    (weakref.ref(Node), 'weakref'), (itertools.count(), 'itertools.count'), (map(int, []), 'map'),
    (sys._getframe(), 'frame'), (function.__code__, 'code'),
    (threading.local(), '_thread._local'),
    (vars(Node), 'mappingproxy'), (property(), 'property'),
]


@pytest.mark.parametrize('value, name', REFUSED, ids=[name for _, name in REFUSED])
def test_what_cannot_be_stored_is_refused_by_name_and_path(value, name):
    with pytest.raises(TypeError) as caught:
        tosc.DDict({'a': [0, 1, 2, Node(lock=value)]})
    text = str(caught.value)
    assert text.startswith("cannot keep value['a'][3].lock: ") and name in text
    with pytest.raises(TypeError, match=r'cannot keep value\[0\]'):
        tosc.DList([value])
    with pytest.raises(TypeError, match=r'cannot keep value\[0\]\[1\]'):
        tosc.DList([(1, value)])


def test_sockets_and_files_are_refused(tmp_path):
    with socket.socket() as connection, open(tmp_path / 'x', 'wb') as file:
        for value in (connection, file):
            with pytest.raises(TypeError, match=r'cannot keep value\.x: .*(socket|Buffered)'):
                tosc.DList().append(Node(x=value))


def test_functions_and_classes_need_a_name_that_can_be_found(two):
    def local():
        pass

    class Local:
        def method(self):
            pass
    for value in (lambda: 1, local, Local, Local.method, Node().__init__, [].append):
        with pytest.raises(TypeError, match='cannot keep value'):
            tosc.DList([value])
    root, other = two([])
    for value in (Local(), tosc.DAny(Local())):
        with pytest.raises((TypeError, tosc.SerializationError), match='Local'):
            root.append(value)
    assert root == [] and other() == []


def test_paths_of_all_kinds():
    lock = threading.Lock()
    for value, path in [
            (lock, 'value'), ([lock], 'value[0]'), ({'k': lock}, "value['k']"), ((1, lock), 'value[1]'),
            (Pair(1, lock), 'value[1]'), (Node(x=[Node(y=lock)]), 'value.x[0].y'),
            ({1: {(2, 3): [lock]}}, 'value[1][(2, 3)][0]'), ({lock}, 'value{element}'),
            (frozenset([lock]), 'value{element}'), ({lock: 1}, 'value{'),
            ({Key('a'): lock}, 'value[')]:
        with pytest.raises(TypeError) as caught:
            tosc.DList().append(value)
        assert str(caught.value).startswith('cannot keep ' + path), caught.value
    deep = lock
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(TypeError) as caught:
        tosc.DList([deep])
    assert len(str(caught.value)) < 400 and '…' in str(caught.value)


def test_a_refusal_changes_nothing(two):
    root, other = two({'l': [1], 's': {1}, 'n': Node(x=1)})
    bad = [[1], threading.Lock()]
    version = two.manager.version
    for action in (lambda: root.update(a=1, b=bad), lambda: root['l'].extend(bad),
                   lambda: root['l'].__setitem__(slice(0, 1), bad), lambda: setattr(root['n'], 'x', bad),
                   lambda: vars(root['n']).update(x=bad), lambda: root['s'].add(threading.Lock()),
                   lambda: two.manager.write(bad)):
        with pytest.raises(TypeError, match='lock'):
            action()
        with pytest.raises(TypeError, match='lock'):
            with two.manager.transaction():
                action()
    assert two.manager.version == version and other()['l'] == [1] and other()['n'].x == 1
    assert root['l'] == [1] and root['s'] == {1} and root['n'].x == 1 and set(root) == {'l', 's', 'n'}


# ---- foreign code that interferes ----

def test_source_that_is_changed_while_it_is_adopted():
    source = []

    class Meddler:
        def __getstate__(self):
            source.clear()
            other.clear()
            gc.collect()
            return {}

        def __setstate__(self, state):
            pass
    Meddler.__qualname__ = 'Meddler'
    globals()['Meddler'] = Meddler
    other = {'m': Meddler(), 'z': [1]}
    source.extend([[1], Meddler(), other, [2]] * 50)
    wrapper = tosc.DList(source)
    assert source == [] and len(wrapper) == 200 and wrapper[3] == [2]
    del globals()['Meddler']


def test_hash_that_keeps_what_it_sees():
    seen = []

    class Nosy:
        def __init__(self, name):
            self.name = name

        def __hash__(self):
            seen.append(self)
            gc.collect(0)
            return hash(self.name)

        def __eq__(self, other):
            seen.append((self, other))
            return self.name == other.name
    value = {Nosy('a'): [1], Nosy('b'): {Nosy('a')}}
    wrapper = tosc.DDict(value)
    copy.deepcopy(wrapper)
    wrapper.clear()
    assert all(thing.name for thing in seen if isinstance(thing, Nosy))


def test_hash_that_fails_while_it_is_adopted():
    class Grumpy:
        angry = False

        def __hash__(self):
            if Grumpy.angry and isinstance(self, tosc.DAny):
                raise ZeroDivisionError
            return 1
    value = {'x': {Grumpy(), 5}}
    Grumpy.angry = True
    with pytest.raises(ZeroDivisionError):
        tosc.DDict(value)


def test_adopting_from_several_threads():
    value = {str(number): [Node(x=[number])] for number in range(200)}
    errors = []

    def work():
        try:
            for _ in range(10):
                assert len(tosc.DDict(value)) >= 200
                copy.deepcopy(wrapper)
        except RuntimeError:
            pass  # another thread changes the source
        except Exception as error:
            errors.append(error)

    def meddle():
        for number in range(2000):
            value['new'] = number
            value.pop('new', None)
    wrapper = tosc.DDict(value)
    threads = [threading.Thread(target=work) for _ in range(4)] + [threading.Thread(target=meddle)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# ---- memory ----

def test_adopting_leaks_nothing():
    node = Node(x=[1])
    node.me = node
    value = {'l': [1, [2]], 't': (1, [2], Pair([], {})), 'n': node, 's': {Key('a'), 5},
             'd': {Key('b'): [Key('b')]}, 'f': frozenset([Key('c')]), 'o': collections.deque([1])}
    bad = dict(value, bad=[threading.Lock()])

    def use():
        wrapper = tosc.DDict(value)
        copy.deepcopy(wrapper)
        with contextlib.suppress(TypeError):
            tosc.DDict(bad)
        tosc.DList([value, value]).append(wrapper)
    for _ in range(10):
        use()
    gc.collect()
    before, references = count_objects(), sys.getrefcount(None)
    for _ in range(300):
        use()
    gc.collect()
    assert count_objects() - before < 20
    assert abs(sys.getrefcount(None) - references) < 100
