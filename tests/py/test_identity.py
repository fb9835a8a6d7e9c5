"""A reference stays the same object; aliases and cycles survive; what is linked, what is dirty."""
# SPDX-License-Identifier: Apache-2.0
import collections
import contextlib
import copy
import gc
import pickle
import weakref

import pytest

import tosc
from harness import in_thread, kind_of, shape, stored, wait_until

Pair = collections.namedtuple('Pair', 'left right')


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Oops(Exception):
    pass


# ---- identity ----

def test_references_stay_the_same_objects_across_refreshes(store):
    one, two = store.pair({'list': [[1], [2]], 'dict': {'k': {}}, 'set': {1},
                           'bytes': bytearray(b'x'), 'thing': Thing(x=[1])})
    data = one.read()
    held = [data, data['list'], data['list'][0], data['list'][1], data['dict'],
            data['dict']['k'], data['set'], data['bytes'], data['thing'], data['thing'].x]

    def again():
        now = one.refresh()
        found = {id(value) for value in (
            now, now['list'], *now['list'], now['dict'], now['dict']['k'], now['set'],
            now['bytes'], now['thing'], now['thing'].x)}
        return all(id(value) in found for value in held)

    other = two.read()
    for change in (lambda: other['list'].reverse(),
                   lambda: other['list'].insert(0, [0]),
                   lambda: other['list'].sort(key=len, reverse=True),
                   lambda: other['dict'].update(new={}),
                   lambda: other['set'].add(2),
                   lambda: other['bytes'].extend(b'y'),
                   lambda: setattr(other['thing'], 'y', 1),
                   lambda: other['thing'].x.append(2)):
        two.refresh()
        change()
        assert again()
    assert shape(one.snapshot()) == shape(two.snapshot())
    assert held[6] == {1, 2} and held[7] == b'xy' and held[9] == [1, 2]


def test_an_object_moved_by_another_manager_stays_the_same(store):
    one, two = store.pair({'from': {'it': [1]}, 'to': []})
    it = one.read()['from']['it']
    other = two.read()
    with two.transaction():
        other['to'].append(other['from'].pop('it'))
        other['to'][0].append(2)
    one.refresh()
    assert one.read()['to'][0] is it
    assert it == [1, 2]
    assert one.is_linked(it)


def test_objects_put_in_are_the_same_when_read_back(store):
    one, two = store.pair({})
    data = one.read()
    data['a'] = {'b': [1]}
    inner = data['a']['b']
    two.refresh()['a']['b'].append(2)
    assert one.refresh()['a']['b'] is inner
    assert inner == [1, 2]


def test_identity_is_kept_through_a_conflict_and_a_rollback(store):
    one, two = store.pair({'a': [1]})
    data = one.read()
    inner = data['a']
    with contextlib.suppress(tosc.TransactionError):
        with one.transaction():
            inner.append(2)
            two.read()['a'].append(3)
    assert one.refresh() is data and data['a'] is inner
    assert inner == [1, 3]
    with contextlib.suppress(Oops):
        with one.transaction():
            data['a'] = 'gone'
            raise Oops
    assert data['a'] is inner


def test_the_root_is_another_object_after_it_was_replaced(store):
    one, two = store.pair([1])
    root = one.read()
    two.write([1])
    assert one.refresh() is not root
    assert not one.is_linked(root)
    assert root == [1]


def test_a_held_part_of_a_replaced_root_keeps_its_contents(store):
    one, two = store.pair({'a': [1, {'b': 2}]})
    part = one.read()['a']
    two.write('gone')
    one.refresh()
    assert part == [1, {'b': 2}]
    assert not one.is_linked(part)
    version = one.version
    part.append(3)
    part[1]['b'] = 4
    assert part == [1, {'b': 4}, 3]
    assert one.version == version == two.version


def test_threads_of_one_manager_see_the_same_objects(store):
    manager = store.manager({'a': [1]})
    data = manager.read()
    with manager.transaction():
        assert in_thread(lambda: manager.read() is data and manager.read()['a'] is data['a'])


def test_wrappers_that_nobody_holds_come_back_the_same_in_content(store):
    one, two = store.pair({'a': {'b': [1]}})
    for n in range(20):
        two.refresh()['a']['b'].append(n)
        gc.collect()
        assert one.refresh()['a']['b'][-1] == n


def test_wrappers_can_be_referenced_weakly(store):
    manager = store.manager({'l': [1], 'd': {}, 's': {1}, 'b': bytearray(b'x'), 't': Thing(x=1)})
    for key in 'ldsbt':
        wrapper = manager.read()[key]
        assert weakref.ref(wrapper)() is wrapper


# ---- aliases ----

def test_a_wrapper_put_in_again_is_an_alias(store):
    one, two = store.pair({'a': [1]})
    data = one.read()
    data['b'] = data['a']
    assert data['b'] is data['a']
    data['b'].append(2)
    for view in (data, two.refresh(), one.snapshot(), stored(store)):
        assert view['a'] is view['b']
        assert view['a'] == [1, 2]
    two.read()['a'].append(3)
    assert one.refresh()['b'] == [1, 2, 3]


def test_aliases_within_what_is_written_stay_aliases(store):
    inner = [1]
    thing = Thing(x=inner)
    value = {'a': inner, 'b': [inner, (inner, thing)], 'c': thing, 'd': thing}
    one, two = store.pair(value)
    for view in (one.read(), two.read(), one.snapshot(), stored(store)):
        assert shape(view) == shape(value)
        assert view['a'] is view['b'][0] is view['b'][1][0] is view['c'].x
        assert view['c'] is view['d'] is view['b'][1][1]
    two.read()['d'].x.append(2)
    assert one.refresh()['b'][1][0] == [1, 2]


def test_an_alias_survives_the_removal_of_one_of_its_places(store):
    one, two = store.pair({})
    shared = [1]
    one.write({'a': shared, 'b': shared})
    data = one.read()
    it = data['a']
    del data['a']
    assert one.is_linked(it)
    it.append(2)
    assert two.refresh() == {'b': [1, 2]}
    del data['b']
    assert not one.is_linked(it)


def test_equal_but_distinct_objects_stay_distinct(store):
    one, two = store.pair({'a': [1], 'b': [1]})
    for view in (one.read(), two.read(), one.snapshot()):
        assert view['a'] is not view['b']
    one.read()['a'].append(2)
    assert two.refresh() == {'a': [1, 2], 'b': [1]}


def test_the_same_plain_object_written_twice_is_two_copies(store):
    manager = store.manager({})
    data = manager.read()
    plain = [1]
    data['a'] = plain
    data['b'] = plain
    data['a'].append(2)
    assert data == {'a': [1, 2], 'b': [1]}


# ---- cycles ----

def make_cycle():
    root = {'list': [], 'thing': Thing()}
    root['self'] = root
    root['list'].append(root['list'])
    root['list'].append((root, root['thing']))
    root['thing'].owner = root
    root['thing'].me = root['thing']
    return root


def test_cycles_are_written_and_loaded(store):
    one, two = store.pair(make_cycle())
    for view in (one.read(), two.read(), one.snapshot(), stored(store)):
        assert shape(view) == shape(make_cycle())
        assert view['self'] is view
        assert view['list'][0] is view['list']
        assert view['list'][1][0] is view
        assert view['thing'].me is view['thing'] is view['list'][1][1]


def test_cycles_made_later(store):
    one, two = store.pair({'a': [], 'b': {}})
    data = one.read()
    data['a'].append(data)
    data['b']['a'] = data['a']
    data['a'].append(data['b'])
    for view in (two.refresh(), stored(store)):
        assert view['a'][0] is view
        assert view['b']['a'] is view['a']
        assert view['a'][1] is view['b']
    two.read()['a'][0]['b']['new'] = 1
    assert one.refresh()['b']['new'] == 1


def test_repr_of_a_cycle_ends(store):
    manager = store.manager(make_cycle())
    assert '...' in repr(manager.read())


def test_a_cycle_can_be_cut_and_the_rest_lives(store):
    one, two = store.pair(make_cycle())
    data = one.read()
    del data['self']
    data['list'].clear()
    data['thing'].owner = None
    del data['thing'].me
    assert shape(two.refresh()) == shape({'list': [], 'thing': Thing(owner=None)})


# ---- tuples ----

def test_tuples_and_named_tuples_with_containers(store):
    value = {'t': (1, [2], ({'k': 3},)), 'p': Pair([1], {'x': {2}}),
             'nested': [(([1],),)], 'frozen': frozenset({1, (2, 3)})}
    one, two = store.pair(value)
    for view in (one.read(), two.read(), one.snapshot()):
        assert type(view['t']) is tuple
        assert type(view['p']) is Pair
        assert shape(view) == shape(value)
        assert view['p'].left == [1]
    one.read()['t'][1].append('a')
    one.read()['t'][2][0]['k'] = 'b'
    one.read()['p'].left.append('c')
    one.read()['p'].right['x'].add('d')
    one.read()['nested'][0][0][0].append('e')
    for view in (two.refresh(), stored(store)):
        assert view['t'] == (1, [2, 'a'], ({'k': 'b'},))
        assert view['p'] == Pair([1, 'c'], {'x': {2, 'd'}})
        assert view['nested'] == [(([1, 'e'],),)]
    held = one.read()['t'][1]
    two.read()['t'] = (0, two.read()['t'][1])
    assert one.refresh()['t'][1] is held


def test_a_tuple_with_containers_as_root(store):
    one, two = store.pair(([1], {'a': 2}))
    one.read()[0].append(3)
    assert two.refresh() == ([1, 3], {'a': 2})
    assert type(two.read()) is tuple
    assert one.is_linked(one.read()[0])


# ---- linked ----

def test_linked_follows_the_tree(store):
    one, two = store.pair({'a': {'b': {'c': [1]}}})
    data = one.read()
    a, b, c = data['a'], data['a']['b'], data['a']['b']['c']
    assert all(map(one.is_linked, (data, a, b, c)))
    del data['a']
    assert one.is_linked(data)
    assert not any(map(one.is_linked, (a, b, c)))
    data['back'] = b
    assert one.is_linked(b) and one.is_linked(c) and not one.is_linked(a)
    two.refresh()['back'] = None
    one.refresh()
    assert not one.is_linked(b) and not one.is_linked(c)


@pytest.mark.parametrize('remove', [
    lambda data: data['l'].pop(), lambda data: data['l'].clear(),
    lambda data: data['l'].__delitem__(0), lambda data: data['l'].__setitem__(0, 1),
    lambda data: data['l'].__setitem__(slice(None), []), lambda data: data['l'].__imul__(0),
    lambda data: data.pop('l'), lambda data: data.popitem(), lambda data: data.clear(),
    lambda data: data.__setitem__('l', None), lambda data: data.update(l=[]),
    lambda data: data['l'].remove([1]),
], ids=['pop', 'list-clear', 'delitem', 'setitem', 'slice', 'imul', 'dict-pop', 'popitem',
        'clear', 'dict-setitem', 'update', 'remove'])
def test_every_way_to_remove_unlinks(inproc_store, remove):
    manager = inproc_store.manager({'l': [[1]]})
    data = manager.read()
    part = data['l'][0]
    remove(data)
    assert not manager.is_linked(part)
    assert part == [1]


def test_unlinked_attributes(inproc_store):
    manager = inproc_store.manager(Thing(x=[1], y=[2]))
    thing = manager.read()
    x, y = thing.x, thing.y
    del thing.x
    thing.y = 3
    assert not manager.is_linked(x) and not manager.is_linked(y)
    assert manager.is_linked(thing)


def test_cyclic_garbage_is_not_linked(store):
    one, two = store.pair({'a': {}, 'keep': [1]})
    data = one.read()
    a = data['a']
    a['self'] = a
    a['b'] = [a]
    b = a['b']
    assert one.is_linked(a) and one.is_linked(b)
    theirs = two.refresh()['a']
    del data['a']
    assert not one.is_linked(a)
    assert not one.is_linked(b)
    two.refresh()
    assert not two.is_linked(theirs)
    assert a['self'] is a and a['b'] is b, 'it keeps its contents'
    version = one.version
    b.append(1)
    assert one.version == version
    data['again'] = b
    assert one.is_linked(a) and one.is_linked(b)
    assert two.refresh()['again'][0]['b'] is two.read()['again']


@pytest.mark.parametrize('change', [
    lambda loop: loop.extend(loop), lambda loop: loop.append(5), lambda loop: loop.append([loop]),
    lambda loop: loop.insert(0, {'k': loop}), lambda loop: None])
def test_a_cycle_changed_and_cut_off_in_one_commit(store, change):
    loop = []
    loop.append(loop)
    one, two = store.pair({'t': [loop], 'other': []})
    data, theirs = one.read(), two.read()['t'][0]
    loop = data['t'][0]
    with one.transaction():
        change(loop)
        data.clear()
    assert not one.is_linked(loop)
    two.refresh()
    assert not two.is_linked(theirs)
    version = one.version
    loop.append('local')
    assert one.version == version == two.version


def test_a_cycle_that_holds_a_shared_part(store):
    manager = store.manager({'cycle': {}, 'shared': [1]})
    data = manager.read()
    cycle, shared = data['cycle'], data['shared']
    cycle['me'] = cycle
    cycle['shared'] = shared
    del data['cycle']
    assert not manager.is_linked(cycle)
    assert manager.is_linked(shared)
    del data['shared']
    assert not manager.is_linked(shared)


def test_linked_inside_of_a_transaction_is_as_it_sees_it(store):
    one, two = store.pair({'a': [1], 'cycle': {}})
    data = one.read()
    data['cycle']['me'] = data['cycle']
    two.refresh()
    a, cycle = data['a'], data['cycle']
    with contextlib.suppress(Oops):
        with one.transaction():
            del data['a']
            del data['cycle']
            data['new'] = {'k': []}
            new = data['new']
            assert not one.is_linked(a)
            assert not one.is_linked(cycle)
            assert one.is_linked(new) and one.is_linked(new['k'])
            assert in_thread(lambda: one.is_linked(a) and one.is_linked(cycle))
            data['b'] = a
            assert one.is_linked(a)
            raise Oops
    assert one.is_linked(a) and one.is_linked(cycle)
    assert not one.is_linked(new)
    with one.transaction():
        del data['a']
        del data['cycle']
    assert not one.is_linked(a) and not one.is_linked(cycle)


def test_linked_belongs_to_one_manager(store):
    one, two = store.pair([[1]])
    assert not two.is_linked(one.read())
    assert not two.is_linked(one.read()[0])
    assert not one.is_linked(tosc.DList([1]))


def test_linked_after_others_removed_it(store):
    one, two = store.pair({'a': [1]})
    a = one.read()['a']
    del two.read()['a']
    wait_until(lambda: not one.is_linked(a), what='the watcher to tell')


# ---- dirty ----

@pytest.mark.parametrize('key,change', [
    ('l', lambda o: o.append(1)), ('l', lambda o: o.sort(reverse=True)),
    ('d', lambda o: o.update(a=1)), ('s', lambda o: o.add(5)), ('b', lambda o: o.extend(b'x')),
    ('t', lambda o: setattr(o, 'x', 1)), ('t', lambda o: setattr(o, 'new', 1)),
    ('q', lambda o: o.append(5)),
])
def test_dirty_between_change_and_commit(inproc_store, key, change):
    manager = inproc_store.manager({
        'l': [1, 2], 'd': {}, 's': {1}, 'b': bytearray(b'x'), 't': Thing(x=0),
        'q': collections.deque()})
    data = manager.read()
    with manager.transaction():
        change(data[key])
        assert manager.is_dirty(data[key])
        assert not manager.is_dirty(data), 'the one that refers to it has not changed'
        assert not in_thread(manager.is_dirty, data[key]), 'nobody else sees it'
    assert not manager.is_dirty(data[key])
    with contextlib.suppress(Oops):
        with manager.transaction():
            change(data[key])
            raise Oops
    assert not manager.is_dirty(data[key])
    change(data[key])
    assert not manager.is_dirty(data[key]), 'implicit changes are applied at once'


def test_dirty_after_inner_blocks(store):
    manager = store.manager({'a': [], 'b': []})
    data = manager.read()
    with manager.transaction():
        with manager.transaction():
            data['a'].append(1)
        assert manager.is_dirty(data['a'])
        with contextlib.suppress(Oops):
            with manager.transaction():
                data['b'].append(1)
                assert manager.is_dirty(data['b'])
                raise Oops
        assert not manager.is_dirty(data['b'])
        assert manager.is_dirty(data['a'])
    assert not manager.is_dirty(data['a'])


def test_not_dirty_after_a_conflict_or_after_others_changed_it(store):
    one, two = store.pair({'a': []})
    a = one.read()['a']
    with contextlib.suppress(tosc.TransactionError):
        with one.transaction():
            a.append(1)
            two.read()['a'].append(2)
    assert not one.is_dirty(a)
    two.refresh()['a'].append(3)
    one.refresh()
    assert not one.is_dirty(a)


# ---- copies ----

def test_copies_are_plain(store):
    manager = store.manager({'l': [[1]], 'd': {'k': [1]}, 's': {1}, 'b': bytearray(b'x'),
                             't': Thing(x=[1])})
    data = manager.read()
    for key, plain in (('l', list), ('d', dict), ('s', set), ('b', bytearray), ('t', Thing)):
        assert type(copy.deepcopy(data[key])) is plain
        assert type(copy.copy(data[key])) is plain
        assert shape(copy.deepcopy(data[key])) == shape(data[key])
    deep = copy.deepcopy(data)
    assert type(deep['l'][0]) is list and type(deep['t'].x) is list
    deep['l'][0].append(2)
    deep['t'].x.append(2)
    assert data['l'] == [[1]] and data['t'].x == [1]


def test_deepcopy_keeps_aliases_and_cycles(store):
    manager = store.manager(make_cycle())
    copied = copy.deepcopy(manager.read())
    assert shape(copied) == shape(make_cycle())
    assert type(copied) is dict and copied['self'] is copied
    together = copy.deepcopy([manager.read()['list'], manager.read()['list']])
    assert together[0] is together[1]


def test_deepcopy_in_a_transaction_sees_what_it_sees(store):
    manager = store.manager([1])
    with contextlib.suppress(Oops):
        with manager.transaction():
            manager.read().append([2])
            copied = copy.deepcopy(manager.read())
            raise Oops
    assert copied == [1, [2]]


@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_wrapper_is_plain_data_when_loaded(store, protocol):
    value = {'l': [1, [2]], 'd': {'k': {3}}, 'b': bytearray(b'x'), 't': Thing(x=[1])}
    manager = store.manager(value)
    loaded = pickle.loads(pickle.dumps(manager.read(), protocol))
    assert shape(loaded) == shape(value)
    assert type(loaded) is dict
    assert type(loaded['l'][1]) is list
    assert type(loaded['t']) is Thing
    loaded['l'].append(3)
    assert manager.read()['l'] == [1, [2]]


def test_pickling_keeps_aliases_and_cycles(store):
    manager = store.manager(make_cycle())
    loaded = pickle.loads(pickle.dumps(manager.read()))
    assert shape(loaded) == shape(make_cycle())


def test_kinds_of_wrappers_are_known_to_the_harness(store):
    manager = store.manager([[], {}, set(), bytearray(), Thing(), 1, 'a'])
    assert [kind_of(value) for value in manager.read()] == [
        'list', 'dict', 'set', 'bytearray', 'any', None, None]


# ---- depth ----

DEPTH = 20_000


def nest(depth):
    value = ['bottom']
    for _ in range(depth):
        value = [value]
    return value


def descend(value):
    depth = 0
    while not isinstance(value[0], str):
        value = value[0]
        depth += 1
    return value, depth


@pytest.mark.parametrize('kind', ['list', 'dict', 'tuple', 'object'])
def test_twenty_thousand_levels(quick_shared_store, kind):
    store = quick_shared_store
    value = ['bottom']
    for _ in range(DEPTH):
        value = {'list': lambda v: [v], 'dict': lambda v: {0: v}, 'tuple': lambda v: [(v,)],
                 'object': lambda v: [Thing(v=v)]}[kind](value)

    def bottom(value):
        depth = 0
        while True:
            step = value[0]
            if isinstance(step, str):
                return value, depth
            if kind == 'tuple':
                step = step[0]
            elif kind == 'object':
                step = step.v
            value = step
            depth += 1

    one, two = store.pair({'deep': value})
    innermost, depth = bottom(one.read()['deep'])
    assert depth == DEPTH
    theirs, depth = bottom(two.read()['deep'])
    assert depth == DEPTH
    theirs.append('changed')
    one.refresh()
    assert innermost == ['bottom', 'changed']
    assert one.is_linked(innermost)
    plain, depth = bottom(one.snapshot()['deep'])
    assert plain == ['bottom', 'changed'] and depth == DEPTH
    del plain
    with one.transaction():
        one.read()['more'] = [one.read().pop('deep')]
        innermost.append('again')
    theirs2, depth = bottom(two.refresh()['more'][0])
    assert theirs2 is theirs and theirs == ['bottom', 'changed', 'again']
    del one.read()['more']
    assert not one.is_linked(innermost)
    two.refresh()
    assert not two.is_linked(theirs)
    del innermost, theirs, theirs2, value
    gc.collect()


def test_twenty_thousand_levels_put_in_one_after_the_other(quick_shared_store):
    one, two = quick_shared_store.pair([])
    with one.transaction():
        place = one.read()
        for _ in range(DEPTH):
            place.append([])
            place = place[0]
        place.append('bottom')
    found, depth = descend(two.refresh())
    assert (found, depth) == (['bottom'], DEPTH)
    found[0] = 'changed'
    assert descend(one.refresh())[0] == ['changed']
    assert place == ['changed']


def test_deep_nesting_as_an_argument_of_every_kind_of_change(inproc_store):
    manager = inproc_store.manager({'d': {}, 'l': [], 't': Thing()})
    data = manager.read()
    data['d']['x'] = nest(DEPTH)
    data['l'].append(nest(DEPTH))
    data['l'].extend([nest(DEPTH)])
    data['t'].x = nest(DEPTH)
    for value in (data['d']['x'], data['l'][0], data['l'][1], data['t'].x):
        assert descend(value)[1] == DEPTH
    assert descend(stored(inproc_store)['t'].x)[1] == DEPTH


def test_deep_nesting_in_a_copy(inproc_store):
    manager = inproc_store.manager(nest(DEPTH))
    assert descend(copy.deepcopy(manager.read()))[1] == DEPTH
