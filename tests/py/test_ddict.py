"""DDict does what dict does: alone, in a store and inside of transactions."""
# SPDX-License-Identifier: Apache-2.0
import collections
import collections.abc
import copy
import gc
import inspect
import itertools
import pickle
import sys
import threading
import types
import weakref

import hypothesis
import hypothesis.stateful
import pytest
from hypothesis import strategies

import tosc

pytest.register_assert_rewrite('parity')
# pylint: disable=wrong-import-position
from parity import (KINDS, Place, assert_parity, assert_same, canonical,  # noqa: E402
                    comparable, growth, outcome, plain)


@pytest.fixture(name='place', params=KINDS)
def place_fixture(request):
    with Place(request.param) as place:
        yield place


@pytest.fixture(name='stored')
def stored_fixture():
    with Place('stored') as place:
        yield place


class Key:
    """A custom object with hash semantics."""

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return hash(('Key', self.name))

    def __eq__(self, other):
        return self.name == other.name if isinstance(other, Key) else NotImplemented

    def __repr__(self):
        return f'Key({self.name!r})'


class NoHash:
    __hash__ = None

    def __eq__(self, other):
        return isinstance(other, NoHash)

    def __repr__(self):
        return 'NoHash()'


class Raises(Exception):
    pass


class BadHash:
    def __hash__(self):
        raise Raises('hash')

    def __repr__(self):
        return 'BadHash()'


class Mapping:
    """No more than what update() asks of a mapping."""

    def __init__(self, items, error=None):
        self.items_ = dict(items)
        self.error = error

    def keys(self):
        yield from self.items_
        if self.error:
            raise self.error

    def __getitem__(self, key):
        return self.items_[key]

    def __repr__(self):
        return f'Mapping({self.items_})'

    def __eq__(self, other):
        return isinstance(other, Mapping) and self.items_ == other.items_

    def __hash__(self):
        return len(self.items_)

    def __deepcopy__(self, memo):
        return self


def failing_pairs():
    yield 'new', 1
    raise Raises('iterator')


EMPTY = {}
SMALL = {'a': 1, 'b': [1, 2], 3: 'c', (1, 2): {'x': {'y': 1}}, None: None, 1.5: {1, 2}}
LARGE = {**{f'k{number}': number for number in range(40)}, **SMALL}

# Each is made anew for each use, as operations may use it up.
VALUES = [
    lambda: 'a', lambda: 'b', lambda: 'zz', lambda: 3, lambda: 3.0, lambda: True,
    lambda: None, lambda: (1, 2), lambda: (1, [2]), lambda: [], lambda: {}, set,
    lambda: frozenset({1}), lambda: b'x', lambda: [('a', 9), ('n', {'m': 1})],
    lambda: {'a': 'A', 'q': [8]}, lambda: ['xy', 'zw'], lambda: ['xyz'], lambda: [1],
    lambda: iter([('i', 1), ('a', 2)]), lambda: Mapping({'m': 1, 'a': 7}), NoHash, BadHash,
    lambda: Mapping({'m': 1}, Raises('keys')), failing_pairs, lambda: tosc.DDict(a=0, w=[1]),
    lambda: collections.OrderedDict(o=1, a=2), lambda: [(NoHash(), 1)], lambda: [([], 1)],
]

METHODS = ['get', 'setdefault', 'pop', 'popitem', 'update', 'keys', 'values', 'items', 'clear',
           'copy', '__getitem__', '__setitem__', '__delitem__', '__contains__', '__len__',
           '__iter__', '__reversed__', '__eq__', '__ne__', '__lt__', '__or__', '__ror__',
           '__ior__']

ARGUMENTS = [(), *((value,) for value in VALUES),
             *itertools.product(VALUES[:17], VALUES[:22]),
             (VALUES[0], VALUES[0], VALUES[0])]


# ---- each method, with arguments good and bad ----

@pytest.mark.parametrize('contents', [EMPTY, SMALL, LARGE], ids=['empty', 'small', 'large'])
@pytest.mark.parametrize('method', METHODS)
def test_method_does_what_dicts_does(place, method, contents):
    arguments = ARGUMENTS
    if place.kind != 'alone' or contents is LARGE:
        arguments = ARGUMENTS[::7] + ARGUMENTS[:len(VALUES) + 1]
    for makers in arguments:
        def operation(target, makers=makers):
            arguments = [make() for make in makers]
            if method.startswith('__') and any(
                    isinstance(argument, (tosc.DDict, collections.OrderedDict, Mapping))
                    for argument in arguments):
                return None  # the builtin leaves these to the other operand
            return getattr(target, method)(*arguments)
        assert_parity(place, contents, operation)


@pytest.mark.parametrize('arguments', [
    {}, {'a': 1}, {'b': 2, 'z': [3]}, {'self': 1, 'other': {}}], ids=repr)
def test_keywords_of_update_and_constructor(place, arguments):
    assert_parity(place, SMALL, lambda target: target.update(**arguments))
    assert_parity(place, SMALL, lambda target: target.update({'n': 1, 'a': 0}, **arguments))
    assert_parity(place, SMALL, lambda target: target.update([('n', 1), ('a', 0)], **arguments))
    assert_same(tosc.DDict(**arguments), dict(**arguments))
    assert_same(tosc.DDict({'n': {}, 'a': 0}, **arguments), dict({'n': {}, 'a': 0}, **arguments))


def test_keywords_that_are_none(place):
    for method in ('get', 'setdefault', 'pop', 'popitem', 'keys', 'clear', 'copy'):
        assert_parity(place, SMALL, lambda target, method=method:
                      getattr(target, method)(key='a'), ignore_words=True)
    assert_parity(place, SMALL, lambda target: target.update(**{1: 2}), ignore_words=True)


@pytest.mark.parametrize('make', VALUES)
def test_constructor(make):
    assert outcome(lambda: tosc.DDict(make())) == outcome(lambda: dict(make()))
    assert outcome(lambda: tosc.DDict(make(), 1))[:2] == outcome(lambda: dict(make(), 1))[:2]


def test_init_again_updates(place):
    assert_parity(place, SMALL, lambda target: target.__init__())
    assert_parity(place, SMALL, lambda target: target.__init__([('a', 2)], n=3))
    assert_parity(place, SMALL, lambda target: target.__init__(5))
    assert_parity(place, SMALL, lambda target: target.__init__(1, 2), ignore_words=True)


@pytest.mark.parametrize('make', VALUES)
def test_fromkeys(make):
    assert outcome(lambda: tosc.DDict.fromkeys(make())) == outcome(lambda: dict.fromkeys(make()))
    for value in (1, [1], {}):
        assert (outcome(lambda: tosc.DDict.fromkeys(make(), value))
                == outcome(lambda: dict.fromkeys(make(), value)))


def test_fromkeys_gives_one_value_to_all():
    made = tosc.DDict.fromkeys('ab', [])
    assert type(made) is tosc.DDict and type(made['a']) is tosc.DList
    assert made['a'] is made['b']


def test_fromkeys_of_a_subclass():
    class Sub(tosc.DDict):
        def __setitem__(self, key, value):
            super().__setitem__(key, (key, value))

    class Strange(tosc.DDict):
        def __new__(cls):
            return collections.UserDict()

    class Failing(tosc.DDict):
        def __setitem__(self, key, value):
            raise Raises

    made = Sub.fromkeys('ab', 1)
    assert type(made) is Sub and made == {'a': ('a', 1), 'b': ('b', 1)}
    assert type(Strange.fromkeys('ab', 1)) is collections.UserDict
    with pytest.raises(Raises):
        Failing.fromkeys('ab')
    with pytest.raises(Raises):
        Sub.fromkeys(failing_pairs())
    assert type(made.fromkeys('x')) is Sub


EXPRESSIONS = [
    "d == {'a': 1}", "{'a': 1} == d", "d == dict(d)", "dict(d) == d", "d != dict(d)",
    "dict(d) != d", "d == type(d)(d)", "d == list(d)", "d == None", "d != 5", "d < {}",
    "{} <= d", "d > d", "d is d", "hash(d)", "bool(d)", "len(d)", "not d", "str(d)", "repr(d)",
    "f'{d}'", "'%s' % d", "format(d)", "'{0[a]}'.format(d)", "'%(a)s' % d",
    "list(d)", "tuple(d)", "set(d)", "sorted(d, key=str)", "max(d, key=str)", "dict(d)",
    "dict(d, a=5)", "{**d}", "{'z': 0, **d}", "[*d]", "{*d}", "dict(zip(d, d))",
    "dict(**{key: 1 for key in d if isinstance(key, str)})",
    "(lambda **kw: kw)(**{k: v for k, v in d.items() if isinstance(k, str)})",
    "dict.update({}, d)", "{}.update(d)", "{'a': 0} | d", "d | {'a': 0}", "d | d", "d | [1]",
    "[('a', 1)] | d", "d | None", "d & {}", "d + d", "d * 2", "-d",
    "collections.OrderedDict(d)", "collections.ChainMap(d)['a']", "types.MappingProxyType(d)",
    "reversed(d)", "iter(d)", "list(reversed(d))", "'a' in d", "'zz' in d", "[] in d",
    "{} in d", "d['a']", "d[3.0]", "d['zz']", "d[[]]", "d[(1, 2)]", "d[(1, [2])]", "d['a':'b']",
    "d['a', 'b']", "d.a", "d()", "next(d)", "abs(d)", "int(d)",
    "isinstance(d, collections.abc.MutableMapping)",
    "isinstance(d, collections.abc.Sequence)", "issubclass(type(d), collections.abc.Mapping)",
    "isinstance(d, collections.abc.Hashable)", "isinstance(d, collections.abc.Reversible)",
    "type(d)[int, str] is not None", "copy.copy(d)", "copy.deepcopy(d)", "d.copy()",
    "pickle.loads(pickle.dumps(d))", "pickle.loads(pickle.dumps(d, 0))",
    "pickle.loads(pickle.dumps(d, 2))", "pickle.loads(pickle._dumps(d))",
    "any(v is None for v in d.values())", "d.get('b') or 7", "[k for k in d]",
    "{k: v for k, v in d.items()}", "d.keys()", "d.values()", "d.items()", "d.items().mapping",
]


@pytest.mark.parametrize('expression', EXPRESSIONS)
def test_expression(place, expression):
    code = compile(expression, 'expression', 'eval')
    for contents in (EMPTY, SMALL, LARGE):
        assert_parity(place, contents, lambda target: eval(code, globals(), {'d': target}),
                      ignore_words=True)


STATEMENTS = [
    "d['n'] = 1", "d['a'] = [1]", "d[3.0] = 'other'", "d[True] = 1", "d[[]] = 1", "d[{}] = 1",
    "d[()] = ()", "d[(1, [])] = 1", "d[NoHash()] = 1", "d[BadHash()] = 1",
    "d[frozenset({1, 2})] = 1", "del d['a']", "del d['zz']", "del d[[]]", "del d[(1, 2)]",
    "d['b'] += [3]", "d['a'] += 1", "d['zz'] += 1", "d |= {'a': 5, 'z': 6}", "d |= [('q', 1)]",
    "d |= {}", "d |= []", "d |= d", "d |= 5", "d |= None", "d |= [1]", "d |= [(1, 2, 3)]",
    "d |= {'x': d.get('b')}", "d['b'].append(3)", "d[(1, 2)]['x']['y'] += 1",
    "d[1.5] |= {3}", "d.setdefault('s', []).append(1)", "d.setdefault('b', []).append(1)",
    "d['x'] = {}; d['x']['k'] = {}; d['x']['k']['j'] = 1", "d.update(a=2, b=3)",
    "d.update(d)", "d.update({1: 2}); d.popitem(); d.popitem()",
    "d['x'] = [1]; d['y'] = d['x']; d['x'].append(2)",
    "d.clear(); d['a'] = 1", "d.clear(); d.clear()", "d.clear(); d.popitem()",
    "while d: d.popitem()", "for k in list(d): del d[k]", "for k in list(d): d.pop(k)",
    "d.pop('a'); d['a'] = 'again'", "d['a'] = d['a']", "d['b'] = d['b']",
    "d['c'] = d['b']; d['c'].append(9)", "del d['a'], d['b']", "del d['a'], d['zz']",
    "d['a'], d['z'] = 1, 2", "d['a':'b'] = 1", "d.x = 1", "del d.a",
    "for i in range(100): d[i] = i",
    "for i in range(100): d[i] = i\nfor i in range(90): del d[i]",
    "for i in range(50): d.setdefault(i, {})['i'] = i",
    "d[1] = 1\nd[True] = 2\nd[1.0] = 3", "d[''] = 0; d[b''] = 1; d[None] = 2",
    "d['e'] = (1, [2], {'x': 3}); d['e'][1].append(4)",
]


@pytest.mark.parametrize('statement', STATEMENTS)
def test_statement(place, statement):
    code = compile(statement, 'statement', 'exec')
    for contents in (EMPTY, SMALL, LARGE):
        failed = []

        def operation(target):
            try:
                exec(code, globals(), {'d': target})
            except Exception:
                failed.append(True)
                raise

        builtin, wrapper = plain(contents), place.make(plain(contents))
        expected, got = outcome(operation, builtin), outcome(operation, wrapper)
        assert got[:2] == expected[:2]
        if not failed or ';' in statement or '\n' in statement or ',' in statement:
            assert_same(wrapper, builtin)
            place.check_stored(builtin)
        else:
            assert_same(wrapper, contents)


# ---- views ----

VIEW_OPERANDS = [
    lambda: {'a', 'b'}, lambda: frozenset({'a', 3}), set, lambda: ['a', 'a', 'zz'], lambda: 5,
    lambda: None, lambda: 'ab', lambda: {'a': 1}, lambda: {'a': 1}.keys(),
    lambda: {'a': 1}.items(), lambda: {'a': 1}.values(), lambda: tosc.DDict(a=1, z=2),
    lambda: tosc.DDict(a=1, z=2).keys(), lambda: tosc.DDict(a=1, z=2).items(),
    lambda: tosc.DDict(a=1).values(), lambda: tosc.DSet(['a', 'zz']), lambda: {('a', 1)},
    lambda: [('a', 1), ('b', 5)], lambda: iter(['a']), lambda: [[]], lambda: tosc.DList(['a']),
]

HASHABLE = {'a': 1, 'b': 2, 3: 'c', (1, 2): None}


@pytest.mark.parametrize('view', ['keys', 'values', 'items'])
@pytest.mark.parametrize('operator', ['&', '|', '-', '^', '==', '!=', '<', '<=', '>', '>='])
def test_operators_of_views(place, view, operator):
    if place.kind == 'nested':
        return
    # The builtin's view asks for the hash of all items of ours when it comes first.
    for contents in (EMPTY, HASHABLE) if operator == '&' else (EMPTY, HASHABLE, SMALL):
        for number in range(len(VIEW_OPERANDS)):
            for code in (f'd.{view}() {operator} o()', f'o() {operator} d.{view}()'):
                assert_parity(place, contents, lambda target, code=code, number=number:
                              eval(code, {'d': target, 'o': VIEW_OPERANDS[number]}))
        for code in (f'd.{view}() {operator} d.{view}()', f'd.{view}() {operator} d.keys()',
                     f'd.items() {operator} d.{view}()'):
            assert_parity(place, contents, lambda target, code=code: eval(code, {'d': target}))


VIEW_EXPRESSIONS = [
    "len(v)", "repr(v)", "bool(v)", "list(v)", "list(reversed(v))", "iter(v)", "reversed(v)",
    "'a' in v", "1 in v", "('a', 1) in v", "('a', 2) in v", "('zz', 1) in v", "'ab' in v",
    "[] in v", "([], 1) in v", "('a',) in v", "('a', 1, 2) in v", "['a', 1] in v",
    "v.mapping", "v.mapping['a']", "v.isdisjoint(['a'])", "v.isdisjoint([('a', 1)])",
    "v.isdisjoint([])", "v.isdisjoint(v)", "v.isdisjoint(d)", "v.isdisjoint(5)",
    "v.isdisjoint()", "v.isdisjoint(1, 2)", "isinstance(hash(v), int)", "v == v", "v()", "v[0]", "v.x",
    "v.__reversed__()", "isinstance(v, collections.abc.KeysView)",
    "isinstance(v, collections.abc.ValuesView)", "isinstance(v, collections.abc.ItemsView)",
    "isinstance(v, collections.abc.Set)", "isinstance(v, collections.abc.Hashable)",
    "copy.copy(v)", "copy.deepcopy(v)", "pickle.dumps(v)", "pickle.dumps(v, 0)",
    "pickle.dumps(v, 1)", "type(v)()", "type(v)(d)", "object.__new__(type(v))",
    "type('X', (type(v),), {})", "v.__class__ is type(v)", "[*v]", "max(v, key=str)",
    "min(map(str, v), default=0)", "v.mapping.get('b')", "v.mapping['a':]",
]


@pytest.mark.parametrize('view', ['keys', 'values', 'items'])
@pytest.mark.parametrize('expression', VIEW_EXPRESSIONS)
def test_expression_of_view(place, view, expression):
    code = compile(expression, 'expression', 'eval')
    for contents in (EMPTY, HASHABLE, LARGE):
        def operation(target):
            return eval(code, globals(), {'d': target, 'v': getattr(target, view)()})
        assert_parity(place, contents, operation, ignore_words=True)


def test_views_are_live(place):
    target = place.make({'a': 1})
    keys, values, items, mapping = (target.keys(), target.values(), target.items(),
                                    target.keys().mapping)
    target['b'] = 2
    assert list(keys) == ['a', 'b'] and list(values) == [1, 2]
    assert list(items) == [('a', 1), ('b', 2)] and mapping == {'a': 1, 'b': 2}
    del target['a']
    assert keys == {'b'} and 2 in values and ('b', 2) in items and len(keys) == 1
    assert repr(items) == "dict_items([('b', 2)])" and 'a' not in mapping
    with pytest.raises(TypeError):
        mapping['c'] = 1


def test_view_keeps_its_dict():
    keys = tosc.DDict(a=1).keys()
    gc.collect()
    assert list(keys) == ['a']


def test_iterators_are_over_a_stable_snapshot(place):
    for iterate in (iter, reversed, lambda d: iter(d.keys()), lambda d: iter(d.values()),
                    lambda d: iter(d.items()), lambda d: reversed(d.items())):
        for contents in (SMALL, LARGE):
            target = place.make(plain(contents))
            expected = comparable(iterate(contents))
            iterator = iterate(target)
            first = next(iterator)
            target.clear()
            target['new'] = 1
            assert [canonical(plain(element)) for element in
                    itertools.chain([first], iterator)] == expected[1]
    target = place.make({'a': 1, 'b': 2})
    for key in target:
        target[key + key] = target.pop(key)
    assert list(target.items()) == [('aa', 1), ('bb', 2)]


# ---- being a dict to others ----

def test_keywords_from_a_ddict():
    def function(*args, **kwargs):
        return args, kwargs

    assert function(**tosc.DDict(a=1, b=[2])) == ((), {'a': 1, 'b': [2]})
    assert function(1, c=3, **tosc.DDict(a=1)) == ((1,), {'c': 3, 'a': 1})
    with pytest.raises(TypeError):
        function(c=1, **tosc.DDict(c=2))
    with pytest.raises(TypeError):
        function(**tosc.DDict({1: 2}))
    assert dict(tosc.DDict(a=1), **tosc.DDict(b=2)) == {'a': 1, 'b': 2}
    target = {'z': 0}
    target.update(tosc.DDict(a=1), b=2)
    assert list(target.items()) == [('z', 0), ('a', 1), ('b', 2)]


def test_match(place):
    target = place.make({'kind': 'x', 'size': {'w': 1, 'h': [2, 3]}, 'rest': 0})
    match target:
        case {'nothing': _}:
            pytest.fail('matched a key that is not there')
        case {'kind': 'x', 'size': {'w': width, 'h': [_, height]}, **rest}:
            assert (width, height) == (1, 3)
            assert type(rest) is dict and rest == {'rest': 0}
        case _:
            pytest.fail('did not match')
    match target:
        case []:
            pytest.fail('matched a sequence')
        case tosc.DDict():
            pass
        case _:
            pytest.fail('did not match its class')


@pytest.mark.parametrize('other', [
    collections.OrderedDict(a=1, b=2), collections.defaultdict(list, a=1, b=2),
    collections.Counter(a=1, b=2), collections.UserDict(a=1, b=2),
    collections.ChainMap({'a': 1, 'b': 2}), types.MappingProxyType({'a': 1, 'b': 2})],
    ids=lambda other: type(other).__name__)
def test_compared_and_joined_with_other_mappings(place, other):
    for code in ('d == o', 'o == d', 'd != o', 'o != d', 'd | o', 'o | d'):
        def operation(target, code=code):
            result = eval(code, {'d': target, 'o': other})
            # A Mapping's own operators may keep one operand as it is inside of them.
            return result if not isinstance(result, collections.ChainMap) else dict(result)
        assert_parity(place, {'b': 2, 'a': 1}, operation, ignore_words=True)


def test_reflected_operators_of_others_are_asked():
    class Other:
        def __ror__(self, other):
            return 'ror', type(other)

        def __eq__(self, other):
            return 'eq'

        def __contains__(self, other):
            return True

    assert tosc.DDict() | Other() == ('ror', tosc.DDict)
    assert (tosc.DDict() == Other()) == 'eq'
    assert (tosc.DDict().keys() == Other()) == 'eq'


# ---- copies ----

def test_copies_are_plain(place):
    target = place.make({'a': [1, {'b': {2}}], 't': (1, [2])})
    shallow = copy.copy(target)
    assert type(shallow) is dict and shallow['a'] is target['a']
    assert type(target.copy()) is dict and type(target | {}) is dict and type({} | target) is dict
    deep = copy.deepcopy(target)
    assert type(deep) is dict and type(deep['a']) is list and type(deep['a'][1]) is dict
    assert type(deep['a'][1]['b']) is set and type(deep['t'][1]) is list
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        loaded = pickle.loads(pickle.dumps(target, protocol))
        assert loaded == deep and type(loaded['a'][1]['b']) is set
        assert b'tosc' not in pickle.dumps(target, protocol)


def test_copies_keep_cycles_and_aliases(place):
    target = place.make({'a': [1]})
    target['b'] = target['a']
    target['self'] = target
    target['inner'] = {'up': target}
    for twin in (copy.deepcopy(target), pickle.loads(pickle.dumps(target)),
                 pickle.loads(pickle._dumps(target, 2))):
        assert type(twin) is dict and twin['self'] is twin
        assert twin['a'] is twin['b'] and twin['inner']['up'] is twin
    pair = pickle.loads(pickle.dumps([target, target['a'], target]))
    assert pair[0] is pair[2] and pair[0]['a'] is pair[1]


def test_repr_of_cycles(place):
    target = place.make({'a': 1})
    target['me'] = target
    target['list'] = [target]
    assert repr(target) == "{'a': 1, 'me': {...}, 'list': [{...}]}"
    builtin = plain(target)
    assert repr(target.values()) == repr(builtin.values())
    assert repr(target.items()) == repr(builtin.items())


def test_deep_nesting_is_no_matter():
    target = tosc.DDict()
    top = target
    for _ in range(20000):
        target['d'] = {}
        target = target['d']
    twin = copy.deepcopy(top)
    depth = 0
    walk = twin
    while walk:
        walk = walk['d']
        depth += 1
    assert depth == 20000
    while twin:
        twin = twin.popitem()[1]
    with pytest.raises(RecursionError):
        repr(top)
    del top, target


# ---- values and keys become part of the tree ----

def test_values_are_adopted_wherever_they_come_from(place):
    target = place.make({})
    mine = {'list': [1], 'dict': {'x': []}, 'set': {1}, 'bytes': bytearray(b'x')}
    target.update(mine)
    target['again'] = mine
    target |= {'or': {'x': 1}}
    target |= [('pairs', [1])]
    target.setdefault('default', {})['x'] = 1
    target['tuple'] = (1, [2], ({3: []},))
    mine['list'].append(2)
    assert target['list'] == [1] and type(target['list']) is tosc.DList
    assert type(target['dict']['x']) is tosc.DList and type(target['set']) is tosc.DSet
    assert type(target['bytes']) is tosc.DByteArray and type(target['or']) is tosc.DDict
    assert type(target['tuple'][2][0][3]) is tosc.DList and target['default'] == {'x': 1}
    target['tuple'][1].append(3)
    target['pairs'].append(2)
    assert target['again']['list'] is not target['list']
    place.check_stored({
        'list': [1], 'dict': {'x': []}, 'set': {1}, 'bytes': bytearray(b'x'),
        'again': {'list': [1], 'dict': {'x': []}, 'set': {1}, 'bytes': bytearray(b'x')},
        'or': {'x': 1}, 'pairs': [1, 2], 'default': {'x': 1}, 'tuple': (1, [2, 3], ({3: []},))})


def test_setdefault_returns_what_is_stored(place):
    target = place.make({})
    first = target.setdefault('x', [])
    assert first is target['x'] and target.setdefault('x', [5]) is first
    assert target.setdefault('n') is None and target.setdefault('n', 1) is None


def test_custom_objects_as_keys(place):
    target = place.make({})
    target[Key('a')] = 1
    target[Key('b')] = [2]
    target['plain'] = 3
    assert target[Key('a')] == 1 and Key('b') in target and Key('c') not in target
    stored = next(iter(target))
    assert isinstance(stored, Key) and isinstance(stored, tosc.DObject)
    target[Key('a')] = 10
    target.update({Key('a'): 11, Key('d'): 4})
    target |= {stored: 12}
    assert next(iter(target)) is stored and target[stored] == 12
    assert target.setdefault(Key('b'), 5) == [2]
    assert [key.name for key in target if key != 'plain'] == ['a', 'b', 'd']
    assert target.pop(Key('b')) == [2]
    del target[Key('d')]
    with pytest.raises(KeyError):
        del target[Key('d')]
    assert target.popitem() == ('plain', 3)
    assert target.pop(stored) == 12 and not target
    target[(1, Key('t'))] = 1
    target[frozenset({Key('f')})] = 2
    assert target[(1, Key('t'))] == 1 and target[frozenset({Key('f')})] == 2
    target[(1, Key('t'))] = 3
    del target[(1, Key('t'))]
    assert target.pop(frozenset({Key('f')})) == 2
    target[Key('last')] = 1
    place.check_stored({Key('last'): 1})


def test_key_of_another_type_keeps_the_stored_one(place):
    target = place.make({1: 'a', 'x': 0})
    target[True] = 'b'
    target.update({1.0: 'c'})
    assert list(target.items()) == [(1, 'c'), ('x', 0)] and type(list(target)[0]) is int
    assert target.pop(True) == 'c' and list(target) == ['x']


# ---- changes that change nothing ----

def commits(place, function):
    before = place.manager.version
    function()
    return place.manager.version != before


def test_what_changes_nothing_is_not_committed(stored):
    target = stored.make({'a': 1, 'l': [1], 'e': {}})
    for nothing in (
            target.update, lambda: target.update({}), lambda: target.update([]),
            lambda: target.update(()), lambda: target.__ior__({}), target.__init__,
            lambda: target.pop('zz', None), lambda: target.setdefault('a', 5),
            lambda: target.setdefault('l', []), target['e'].clear,
            lambda: target.__setitem__('l', target['l']), lambda: target.get('zz'),
            lambda: target['e'].pop('x', 1), lambda: target.fromkeys('abc')):
        assert not commits(stored, nothing)
    for error in (lambda: target.pop('zz'), lambda: target.__delitem__('zz'),
                  lambda: target['e'].popitem(), lambda: target.update(5),
                  lambda: target.update([(1, 2), 3]), lambda: target.update(failing_pairs()),
                  lambda: target.__setitem__([], 1), lambda: target.setdefault([], 1)):
        def run(error=error):
            with pytest.raises((KeyError, TypeError, Raises)):
                error()
        assert not commits(stored, run)
    assert commits(stored, lambda: target.__setitem__('a', 1))
    assert commits(stored, lambda: target.setdefault('n', []))
    assert commits(stored, target.clear)
    assert not commits(stored, target.clear)


def test_augmented_assignment_of_a_wrapper_is_one_change(stored):
    target = stored.make({'l': [1]})
    seen = []

    class Backend(tosc.BackendBase):
        """Counts what is written."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def read(self):
            return self.inner.read()

        def write(self, new):
            seen.append('write')
            return self.inner.write(new)

        def try_write(self, new, expected):
            seen.append('try_write')
            return self.inner.try_write(new, expected)

        def target_wait(self):
            return self.inner.target_wait()

    with tosc.Manager(Backend(tosc.InprocBackend())) as manager:
        manager.write({'l': [1]})
        target = manager.read()
        seen.clear()
        target['l'] += [2]
        assert target == {'l': [1, 2]} and len(seen) == 1


# ---- subclasses ----

def test_missing_is_asked(place):
    class Missing(tosc.DDict):
        def __missing__(self, key):
            return 'missing', key

    class Static(tosc.DDict):
        @staticmethod
        def __missing__(key):
            return 'static', key

    class Class(Missing):
        @classmethod
        def __missing__(cls, key):
            return cls, key

    class Not(tosc.DDict):
        def __init__(self):
            super().__init__()
            self.__missing__ = lambda key: 'instance'

    class Failing(tosc.DDict):
        def __missing__(self, key):
            raise Raises(key)

    class Wrong(tosc.DDict):
        __missing__ = 5

    assert Missing(a=1)['a'] == 1 and Missing()['b'] == ('missing', 'b')
    assert Missing().get('b') is None and 'b' not in Missing()
    assert Static()['x'] == ('static', 'x') and Class()['x'] == (Class, 'x')
    with pytest.raises(KeyError):
        Not()['x']
    with pytest.raises(Raises):
        Failing()['x']
    with pytest.raises(TypeError):
        Wrong()['x']
    with pytest.raises(TypeError):
        Missing()[[]]
    target = place.make({})
    target['m'] = Missing(a=1)
    assert target['m']['zz'] == ('missing', 'zz')


def test_key_error_has_the_key():
    for key in ('zz', (1, 2), (), None, frozenset()):
        for operation in (lambda d, k: d[k], lambda d, k: d.pop(k),
                          lambda d, k: d.__delitem__(k)):
            with pytest.raises(KeyError) as info:
                operation(tosc.DDict(a=1), key)
            assert info.value.args == (key,) and info.value.args[0] is key


def test_subclass_has_attributes_and_weak_references():
    class Sub(tosc.DDict):
        pass

    class Slots(tosc.DDict):
        __slots__ = ('extra',)

    target = Sub(a=1)
    target.x = target
    assert target.x is target and repr(target) == "{'a': 1}"
    slots = Slots(a=1)
    slots.extra = 5
    with pytest.raises(AttributeError):
        slots.other = 1
    assert type(Sub.fromkeys('a')) is Sub and type(target.copy()) is dict
    for made in (target, slots, tosc.DDict()):
        ended = []
        reference = weakref.ref(made, ended.append)
        assert reference() is made
        del made
    gone = weakref.ref(target)
    del target, reference
    gc.collect()
    assert gone() is None


def test_subclass_that_overrides_iteration_is_asked():
    class Sub(tosc.DDict):
        def keys(self):
            return ['x']

        def __iter__(self):
            return iter(['x'])

        def __getitem__(self, key):
            return 'got ' + key

    for other in (tosc.DDict(Sub(a=1)), dict(Sub(a=1))):
        assert other == {'x': 'got x'}


def test_a_class_cannot_be_two_kinds_at_a_time():
    kinds = (tosc.DDict, tosc.DSet, tosc.DList, tosc.DByteArray)
    for first in kinds:
        for second in kinds:
            if first is not second:
                with pytest.raises(TypeError, match='lay-out conflict'):
                    type('Both', (first, second), {})


def test_an_object_cannot_change_its_kind():
    class Dict(tosc.DDict):
        __slots__ = ()

    class Set(tosc.DSet):
        __slots__ = ()

    with pytest.raises(TypeError):
        Dict(a=1).__class__ = Set


# ---- the surface ----

@pytest.mark.parametrize('builtin, wrapper', [
    (dict, tosc.DDict), (type({}.keys()), type(tosc.DDict().keys())),
    (type({}.values()), type(tosc.DDict().values())),
    (type({}.items()), type(tosc.DDict().items()))])
def test_all_that_the_builtin_has_is_there_with_a_docstring(builtin, wrapper):
    for name in dir(builtin):
        attribute = getattr(wrapper, name)
        if getattr(builtin, name).__doc__ and name != '__hash__':
            assert attribute.__doc__, name
        assert callable(attribute) == callable(getattr(builtin, name)), name
    assert wrapper.__doc__
    assert inspect.ismethoddescriptor(wrapper.__dict__['__reversed__'])


def test_signatures_can_be_read():
    for name in ('get', 'setdefault', 'popitem', 'keys', 'clear', 'copy', 'fromkeys'):
        assert inspect.signature(getattr(tosc.DDict, name))
    assert str(inspect.signature(tosc.DDict.get)) == str(inspect.signature(dict.get))
    assert tosc.DDict.__module__ == 'tosc' and tosc.DDict.__name__ == 'DDict'


def test_sizeof_includes_the_contents():
    small, large = tosc.DDict(), tosc.DDict.fromkeys(range(1000))
    assert sys.getsizeof(large) > sys.getsizeof(dict.fromkeys(range(1000)))
    assert sys.getsizeof(small) < 1000


def test_type_cannot_be_changed():
    with pytest.raises(TypeError):
        tosc.DDict.x = 1
    with pytest.raises(TypeError):
        tosc.DDict.get = None
    with pytest.raises(TypeError):
        object.__new__(tosc.DDict)
    with pytest.raises((TypeError, AttributeError)):
        tosc.DDict().x = 1


# ---- code that is run in the middle ----

class Trap:
    """Runs some code when it is hashed or compared for the nth time."""

    code = staticmethod(lambda: None)
    armed = None
    countdown = 0

    @classmethod
    def arm(cls, moment, countdown, code):
        cls.armed, cls.countdown, cls.code = moment, countdown, staticmethod(code)

    @classmethod
    def disarm(cls):
        cls.arm(None, 0, lambda: None)

    def __init__(self, number):
        self.number = number

    def _spring(self, what):
        if Trap.armed == what:
            Trap.countdown -= 1
            if Trap.countdown < 0:
                code = Trap.code
                Trap.disarm()
                code()

    def __hash__(self):
        self._spring('hash')
        return 7

    def __eq__(self, other):
        self._spring('eq')
        return isinstance(other, Trap) and self.number == other.number


ATTACKS = [
    lambda d: d.clear(), lambda d: d.update({number: number for number in range(50)}),
    lambda d: d.popitem(), lambda d: d.__init__(x=1), lambda d: list(d.items()),
    lambda d: d.pop('k'), lambda d: d.__setitem__('k', 5),
]

TRAPPED = [
    lambda d: d[Trap(2)], lambda d: d.get(Trap(2)), lambda d: Trap(2) in d,
    lambda d: d.__setitem__(Trap(2), 'new'), lambda d: d.__setitem__(Trap(9), 'new'),
    lambda d: d.__delitem__(Trap(2)), lambda d: d.pop(Trap(2), None),
    lambda d: d.pop(Trap(9), None), lambda d: d.setdefault(Trap(9), 1),
    lambda d: d.update({Trap(2): 1}), lambda d: d.update([(Trap(9), 1), (Trap(2), 2)]),
    lambda d: d == {**dict.fromkeys(map(Trap, range(4)))}, lambda d: Trap(2) in d.keys(),
    lambda d: (Trap(2), 1) in d.items(), lambda d: d.keys() & {Trap(2)},
    lambda d: d.keys() - {Trap(2)}, lambda d: d | {Trap(2): 1}, lambda d: d.copy(),
    lambda d: d.items() ^ {(Trap(2), 1)}, lambda d: copy.deepcopy(d), lambda d: dict(d),
]


def spring(operation, target, moment, countdown, code):
    """Does the operation with a trap in it; whatever is raised must be honest."""
    Trap.arm(moment, countdown, code)
    try:
        operation(target)
    except (KeyError, RuntimeError, tosc.Error):
        pass
    except TypeError as error:  # of items that have no hash
        assert 'unhashable' in str(error)
    finally:
        Trap.disarm()
    assert len(list(target.items())) == len(target)
    target['end'] = 1
    assert target['end'] == 1


@pytest.mark.parametrize('attack', range(len(ATTACKS)))
@pytest.mark.parametrize('moment', ['hash', 'eq'])
def test_keys_that_change_the_dict_do_no_harm(place, moment, attack):
    for operation in TRAPPED:
        for countdown in range(8):
            contents = {Trap(number): [number] for number in range(4)}
            contents.update({f'k{number}': number for number in range(countdown % 2 * 30)}, k=0)
            target = place.make(contents)
            spring(operation, target, moment, countdown, lambda t=target: ATTACKS[attack](t))


@pytest.mark.parametrize('end', ['commit', 'rollback'])
@pytest.mark.parametrize('moment', ['hash', 'eq'])
def test_keys_that_end_the_transaction_do_no_harm(moment, end):
    for operation in TRAPPED:
        for countdown in range(6):
            with tosc.Manager(tosc.InprocBackend()) as manager:
                manager.write({Trap(number): [number] for number in range(4)})
                target = manager.read()
                transaction = manager.transaction()
                try:
                    with transaction:
                        target['k'] = 1
                        spring(operation, target, moment, countdown, getattr(transaction, end))
                except (RuntimeError, tosc.Error):
                    pass
                target['end'] = 2
                assert manager.snapshot()['end'] == 2


def test_sources_that_change_the_dict_do_no_harm(place):
    target = place.make({'a': 1})

    class Source:
        def keys(self):
            target.clear()
            target['from keys'] = 1
            return ['x']

        def __getitem__(self, key):
            target['from getitem'] = 1
            return [key]

    def pairs():
        target['from pairs'] = 1
        yield 'p', 1
        target.pop('from pairs')
        yield 'q', 2

    target.update(Source())
    assert target == {'from keys': 1, 'from getitem': 1, 'x': ['x']}
    target.update(pairs())
    assert list(target) == ['from keys', 'from getitem', 'x', 'p', 'q']
    assert tosc.DDict(Source()) == {'x': ['x']}


def test_released_values_that_change_the_dict_do_no_harm(place):
    target = place.make({})

    class Finaliser:
        def __init__(self, name):
            self.name = name

        def __del__(self):
            if self.name == 'armed':
                target['released'] = target.get('released', 0) + 1

    if place.kind == 'alone':
        for release in (lambda: target.__setitem__('f', 1), lambda: target.pop('f'),
                        lambda: target.__delitem__('f'), target.clear, target.popitem):
            target['f'] = Finaliser('armed')
            release()
            gc.collect()
        assert target.get('released', 0) >= 0
    target['end'] = 1
    assert target['end'] == 1


def test_garbage_collection_during_a_change(place):
    target = place.make(plain(LARGE))
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(30):
            target[number] = {'n': [number]}
            target.setdefault(('t', number), []).append(number)
            target.pop(number - 3, None)
            target.update({number: {number}, 'x': {'y': number}})
            assert list(target.items())
    finally:
        gc.set_threshold(*before)
    assert target['x'] == {'y': 29}


# ---- threads ----

def test_threads_that_pop_get_each_item_once(stored):
    target = stored.make(dict.fromkeys(range(200)))
    taken = []

    def work():
        while True:
            try:
                taken.append(target.popitem()[0])
            except KeyError:
                return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(200))


def test_threads_that_set_defaults_agree(stored):
    target = stored.make({})
    got = [[] for _ in range(4)]

    def work(mine):
        for number in range(50):
            mine.append(target.setdefault(number, [number]))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(50):
        assert {id(mine[number]) for mine in got} == {id(target[number])}


# ---- memory ----

@pytest.mark.parametrize('method', METHODS)
def test_methods_leak_nothing(method):
    place = Place('alone')
    arguments = ARGUMENTS[:len(VALUES) + 1] + ARGUMENTS[len(VALUES) + 1::25]

    def work():
        for makers in arguments:
            target = place.make(SMALL)
            try:
                result = getattr(target, method)(*(make() for make in makers))
                del result
            except Exception:  # pylint: disable=broad-except
                pass

    assert growth(work, 20) < 1


@pytest.mark.parametrize('kind', ['stored', 'transaction'])
def test_changes_in_a_store_leak_nothing(kind):
    with Place(kind) as place:
        target = place.make({'a': 1})

        def work():
            target['x'] = {'y': [1]}
            target.setdefault('s', []).append(1)
            target.update(a=2, b={})
            target['x'].pop('y')
            target.pop('x')
            target.popitem()
            target.clear()
            target[Key('k')] = 1
            target[Key('k')] = 2
            target.pop(Key('k'))

        if kind == 'stored':
            assert growth(work, 300) < 1

            def transactions():
                with place.manager.transaction():
                    work()
            assert growth(transactions, 100) < 1


def test_objects_lose_no_references():
    key, value = object.__new__(Key), 'value ' * 3
    key.name = 'k'
    target = tosc.DDict()
    counts = sys.getrefcount(key), sys.getrefcount(value), sys.getrefcount(None)
    for _ in range(1000):
        target['v'] = value
        target.get('v'), target.get(key), target.pop(key, None), target.setdefault('v', key)
        target.update(v=value, w=value)
        target | {'x': value}
        target.keys() & {value}
        list(target.items()), repr(target.values()), target == {'v': value}
        target.pop('v'), target.popitem()
    after = sys.getrefcount(key), sys.getrefcount(value), sys.getrefcount(None)
    assert after[:2] == counts[:2] and abs(after[2] - counts[2]) < 20


def test_cycles_are_collected():
    for make in (lambda d: d.__setitem__('d', d), lambda d: d.update(l=[d]),
                 lambda d: d.__setitem__('v', (d,)), lambda d: setattr(d, 'view', d.keys())):
        class Sub(tosc.DDict):
            pass

        target = Sub(a=1)
        make(target)
        gone = weakref.ref(target)
        del target
        gc.collect()
        assert gone() is None


def test_emptying_a_large_dict_is_not_quadratic(place):
    target = place.make(dict.fromkeys(range(3000), 'v'))
    expected = list(range(3000))
    iterator = iter(target)
    next(iterator)
    assert target.popitem() == (expected.pop(), 'v')
    assert list(iterator) == list(range(1, 3000))
    while target:
        assert target.popitem()[0] == expected.pop()
        if len(target) == 1500:
            target['late'] = 1
            assert list(target)[-3:] == [1498, 1499, 'late'] and target.popitem() == ('late', 1)
    assert not expected


# ---- random histories ----

KEYS = strategies.one_of(
    strategies.sampled_from(['a', 'b', 'c', 1, True, 1.0, None, (1, 2), b'x', frozenset({1})]),
    strategies.integers(0, 40))
LEAVES = strategies.one_of(strategies.none(), strategies.booleans(), strategies.integers(),
                           strategies.text(max_size=3), strategies.floats(allow_nan=False))
TREES = strategies.recursive(
    LEAVES, lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=3), strategies.dictionaries(KEYS, inner, max_size=3),
        strategies.tuples(inner), strategies.frozensets(strategies.integers(), max_size=2)),
    max_leaves=5)
ITEMS = strategies.lists(strategies.tuples(KEYS, TREES), max_size=5)


class Histories(hypothesis.stateful.RuleBasedStateMachine):
    """The same random operations on a dict and on a DDict in a store, with savepoints."""

    def __init__(self):
        super().__init__()
        self.backend = tosc.InprocBackend()
        self.manager = tosc.Manager(self.backend)
        self.blocks = []
        self.model = {}

    @hypothesis.stateful.initialize(items=ITEMS, large=strategies.booleans(),
                                    alone=strategies.booleans())
    def start(self, items, large, alone):
        self.model = dict(items)
        if large:
            self.model.update(dict.fromkeys(range(40)))
        self.alone = alone
        if alone:
            self.real = tosc.DDict(self.model)
        else:
            self.manager.write([self.model])
            self.real = self.manager.read()[0]

    def both(self, operation):
        expected, got = outcome(operation, self.model), outcome(operation, self.real)
        assert got[:2] == expected[:2]
        if expected[0] == 'returned':
            assert got == expected

    @hypothesis.stateful.rule(key=KEYS, value=TREES)
    def set(self, key, value):
        self.both(lambda d: d.__setitem__(key, plain(value)))

    @hypothesis.stateful.rule(key=KEYS)
    def delete(self, key):
        self.both(lambda d: d.__delitem__(key))

    @hypothesis.stateful.rule(key=KEYS)
    def pop(self, key):
        self.both(lambda d: d.pop(key))

    @hypothesis.stateful.rule(key=KEYS, value=TREES)
    def pop_default(self, key, value):
        self.both(lambda d: d.pop(key, value))

    @hypothesis.stateful.rule()
    def popitem(self):
        self.both(lambda d: d.popitem())

    @hypothesis.stateful.rule(key=KEYS, value=TREES)
    def setdefault(self, key, value):
        self.both(lambda d: d.setdefault(key, plain(value)))

    @hypothesis.stateful.rule(key=KEYS, value=TREES)
    def append_to_default(self, key, value):
        self.both(lambda d: d.setdefault(key, []).append(plain(value)))

    @hypothesis.stateful.rule(items=ITEMS, pairs=strategies.booleans())
    def update(self, items, pairs):
        self.both(lambda d: d.update(plain(items if pairs else dict(items))))

    @hypothesis.stateful.rule(items=ITEMS)
    def inplace_or(self, items):
        self.both(lambda d: d.__ior__(dict(plain(items))))

    @hypothesis.stateful.rule(items=ITEMS)
    def joined(self, items):
        self.both(lambda d: d | dict(items))
        self.both(lambda d: dict(items) | d)
        self.both(lambda d: d == dict(items))

    @hypothesis.stateful.rule()
    def clear(self):
        self.both(lambda d: d.clear())

    @hypothesis.stateful.rule(key=KEYS)
    def look(self, key):
        self.both(lambda d: d.get(key))
        self.both(lambda d: key in d)
        self.both(lambda d: d[key])
        self.both(lambda d: d.keys() - {key})
        self.both(lambda d: (key, 1) in d.items())

    @hypothesis.stateful.rule()
    def begin(self):
        if not self.alone and len(self.blocks) < 3:
            block = self.manager.transaction()
            block.__enter__()
            self.blocks.append((block, plain(self.model)))

    @hypothesis.stateful.rule(commit=strategies.booleans())
    def end(self, commit):
        if self.blocks:
            block, before = self.blocks.pop()
            if commit:
                block.__exit__(None, None, None)
            else:
                block.__exit__(Raises, Raises(), None)
                self.model = before

    @hypothesis.stateful.invariant()
    def same(self):
        if hasattr(self, 'real'):
            assert len(self.real) == len(self.model)
            assert list(self.real) == list(self.model)
            assert self.real == self.model and self.model == self.real
            assert canonical(plain(self.real)) == canonical(self.model)
            assert list(reversed(self.real)) == list(reversed(self.model))

    def teardown(self):
        while self.blocks:
            self.blocks.pop()[0].__exit__(None, None, None)
        if hasattr(self, 'real') and not self.alone:
            with tosc.Manager(self.backend) as other:
                assert canonical(other.snapshot()[0]) == canonical(self.model)
        self.manager.close()


# Not shrunk: that would outlast the guard against hangs.
Histories.TestCase.settings = hypothesis.settings(
    max_examples=60, stateful_step_count=30, deadline=None, database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck))
TestHistories = Histories.TestCase
