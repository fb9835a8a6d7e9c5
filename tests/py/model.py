"""A model of a store in plain Python data, and the machine that compares it with the real thing.

The model's state is a table: node id -> a plain builtin whose elements are leaves, `Ref`s to
other nodes, or tuples of these. Committing is replacing the table; a transaction works on a
copy of it, a savepoint is one more copy. Node ids never change, so the model also says which
Python object a wrapper has to be: one per Manager and node, as long as the node is in the tree.

Each Manager's transactions run in a worker thread of their own. The main thread has no
transaction open and after every step sees the committed state through all Managers.
"""
# SPDX-License-Identifier: Apache-2.0
import collections
import queue
import threading

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import tosc
from harness import kind_of

Ref = collections.namedtuple('Ref', 'node')
Point = collections.namedtuple('Point', 'x y')


class Thing:
    """A custom object."""


class Slots:
    """A custom object whose attributes are slots, some of them unset."""
    __slots__ = ('a', 'b', 'c')


class Attributes(dict):
    """The model's node for a Thing or a Slots: its attributes."""
    cls = Thing


def copy_content(content):
    if isinstance(content, Attributes):
        copied = Attributes(content)
        copied.cls = content.cls
        return copied
    if isinstance(content, collections.deque):
        return collections.deque(content)
    return content.copy()


class State:
    """One state of the store: the table, the root (a leaf, a Ref or a tuple), and a number."""

    def __init__(self, table, root, number):
        self.table = table
        self.root = root
        self.number = number

    def copy(self):
        return State({node: copy_content(content) for node, content in self.table.items()},
                     self.root, self.number)

    def reachable(self):
        found, todo = {}, [self.root]
        while todo:
            value = todo.pop(0)
            if isinstance(value, Ref):
                if value.node not in found:
                    found[value.node] = len(found)
                    todo.extend(elements(self.table[value.node]))
            elif isinstance(value, tuple):
                todo.extend(value)
        return list(found)


def elements(content):
    if isinstance(content, dict):
        return [*content.keys(), *content.values()]
    if isinstance(content, (list, collections.deque)):
        return list(content)
    return []


# ---- values to put in: descriptions that can be made both for the model and for a Manager ----

leaves = st.one_of(st.integers(-3, 300), st.sampled_from(['', 'a', 'b', 'é']), st.none(),
                   st.booleans(), st.sampled_from([1.5, -0.0, b'', b'xy']),
                   st.tuples(st.integers(0, 3), st.sampled_from('ab')))
keys = st.one_of(st.sampled_from(['a', 'b', 'c', 'd']), st.integers(0, 4))
old = st.builds(lambda n: ('old', n), st.integers(0, 30))


def _extend(inner):
    values = st.lists(inner, max_size=3)
    return st.one_of(
        values.map(lambda v: ('list', v)),
        st.dictionaries(keys, inner, max_size=3).map(lambda v: ('dict', v)),
        st.dictionaries(st.sampled_from('abc'), inner, max_size=3).map(lambda v: ('thing', v)),
        st.dictionaries(st.sampled_from('abc'), inner, max_size=3).map(lambda v: ('slots', v)),
        values.map(lambda v: ('tuple', v)),
        st.tuples(inner, inner).map(lambda v: ('point', v)),
        st.lists(inner, min_size=1, max_size=2).map(lambda v: ('twice', v)),
        values.map(lambda v: ('loop', v)),
        st.sets(st.integers(0, 5), max_size=4).map(lambda v: ('set', v)),
        st.binary(max_size=4).map(lambda v: ('bytes', v)),
        st.lists(st.integers(0, 5), max_size=3).map(lambda v: ('deque', v)),
    )


new = st.recursive(st.one_of(leaves.map(lambda v: ('leaf', v)), old), _extend, max_leaves=5)
# One of each kind, so that every operation finds something to work on; now and then anything.
rich = st.fixed_dictionaries({
    'a': st.lists(new, min_size=2, max_size=5).map(lambda v: ('list', v)),
    'b': st.dictionaries(keys, new, max_size=4).map(lambda v: ('dict', v)),
    'c': st.sets(st.integers(0, 5), max_size=4).map(lambda v: ('set', v)),
    'd': st.binary(max_size=4).map(lambda v: ('bytes', v)),
    0: st.dictionaries(st.sampled_from('abc'), new, max_size=3).map(lambda v: ('thing', v)),
    1: st.lists(st.integers(0, 5), max_size=3).map(lambda v: ('deque', v)),
    2: new,
}).map(lambda v: ('dict', v))
roots = st.one_of(rich, rich, rich, new)


class Maker:
    """Makes the value of a description, as plain data or as nodes of the model."""

    def __init__(self, machine, state, wrapper_of):
        self.machine = machine
        self.state = state
        self.wrapper_of = wrapper_of
        self.nodes = state.reachable()

    def both(self, description):
        """(for the model, for the Manager)"""
        kind, value = description
        if kind == 'leaf':
            return value, value
        if kind == 'old':
            if not self.nodes:
                return value, value
            node = self.nodes[value % len(self.nodes)]
            return Ref(node), self.wrapper_of(node)
        if kind in ('tuple', 'point'):
            pairs = [self.both(element) for element in value]
            make = Point._make if kind == 'point' else tuple
            return make(m for m, _ in pairs), make(p for _, p in pairs)
        if kind == 'set':
            return self.node(set(value)), set(value)
        if kind == 'bytes':
            return self.node(bytearray(value)), bytearray(value)
        if kind == 'deque':
            return self.node(collections.deque(value)), collections.deque(value)
        if kind == 'dict':
            pairs = {key: self.both(element) for key, element in value.items()}
            return (self.node({key: m for key, (m, _) in pairs.items()}),
                    {key: p for key, (_, p) in pairs.items()})
        if kind in ('thing', 'slots'):
            pairs = {key: self.both(element) for key, element in value.items()}
            content = Attributes((key, m) for key, (m, _) in pairs.items())
            content.cls = Thing if kind == 'thing' else Slots
            plain = content.cls()
            for key, (_, p) in pairs.items():
                setattr(plain, key, p)
            return self.node(content), plain
        pairs = [self.both(element) for element in value]
        model, plain = [m for m, _ in pairs], [p for _, p in pairs]
        if kind == 'twice':
            model, plain = model + model, plain + plain
        ref = self.node(model)
        if kind == 'loop':
            model.append(ref)
            plain.append(plain)
        return ref, plain

    def node(self, content):
        node = self.machine.next_node
        self.machine.next_node += 1
        self.state.table[node] = content
        return Ref(node)


# ---- operations: name -> (kinds, arguments, function) ----

OPERATIONS = {}


def operation(kind, *arguments):
    def register(function):
        OPERATIONS.setdefault(kind, {})[function.__name__] = (arguments, function)
        return function
    return register


index = st.integers(-4, 4)
maybe_index = st.one_of(st.none(), index)
steps = st.sampled_from([None, 1, 2, -1, -2, 3])
slices = st.builds(slice, maybe_index, maybe_index, steps)
many = st.lists(new, max_size=3)
small = st.integers(0, 5)
smalls = st.lists(small, max_size=4)


@operation('list', new)
def append(o, value):
    o.append(value)


@operation('list', many)
def extend(o, values):
    o.extend(values)


@operation('list', many)
def iadd(o, values):
    o += values


@operation('list', index, new)
def insert(o, i, value):
    o.insert(i, value)


@operation('list', maybe_index)
def pop(o, i):
    return o.pop() if i is None else o.pop(i)


# In a Manager a bytearray is equal to bytes; the model, whose list has a Ref there, would not know.
@operation('list', leaves.filter(lambda value: not isinstance(value, bytes)))
def remove(o, value):
    o.remove(value)


@operation('list')
def clear(o):
    o.clear()


@operation('list')
def reverse(o):
    o.reverse()


def _sort_key(value):
    if value is None or isinstance(value, (int, float, str, bytes)):
        return f'leaf {type(value).__name__} {value!r}'
    return 'other'


@operation('list', st.booleans())
def sort(o, descending):
    o.sort(key=_sort_key, reverse=descending)


@operation('list', st.integers(-1, 2))
def imul(o, n):
    if len(o) < 8:
        o *= n


@operation('list', index, new)
def set_item(o, i, value):
    o[i] = value


@operation('list', index)
def delete_item(o, i):
    del o[i]


@operation('list', slices, many)
def set_slice(o, where, values):
    o[where] = values


@operation('list', slices)
def delete_slice(o, where):
    del o[where]


@operation('list', slices)
def slice_onto_itself(o, where):
    if len(o) < 8:
        o[where] = o


@operation('list')
def double_by_itself(o):
    if len(o) < 8:
        o.extend(o)


@operation('dict', keys, new)
def set_key(o, key, value):
    o[key] = value


@operation('dict', keys)
def delete_key(o, key):
    del o[key]


@operation('dict', keys)
def pop_key(o, key):
    return o.pop(key)


@operation('dict', keys)
def pop_default(o, key):
    return o.pop(key, 'default')


@operation('dict')
def popitem(o):
    return o.popitem()


@operation('dict', keys, new)
def setdefault(o, key, value):
    return o.setdefault(key, value)


@operation('dict', st.dictionaries(keys, new, max_size=3))
def update(o, values):
    o.update(values)


@operation('dict', new)
def update_keyword(o, value):
    o.update(a=value)


@operation('dict', st.dictionaries(keys, new, max_size=3))
def ior(o, values):
    o |= values


@operation('dict')
def clear_dict(o):
    o.clear()


@operation('dict', keys)
def reinsert(o, key):
    o[key] = o.pop(key)


@operation('set', small)
def add(o, value):
    o.add(value)


@operation('set', small)
def discard(o, value):
    o.discard(value)


@operation('set', small)
def remove_member(o, value):
    o.remove(value)


@operation('set', smalls, smalls)
def set_update(o, values, more):
    o.update(values, more)


@operation('set', smalls)
def difference_update(o, values):
    o.difference_update(values)


@operation('set', smalls)
def intersection_update(o, values):
    o.intersection_update(values)


@operation('set', smalls)
def symmetric_difference_update(o, values):
    o.symmetric_difference_update(values)


@operation('set', st.sets(small))
def set_ior(o, values):
    o |= values


@operation('set', st.sets(small))
def set_iand(o, values):
    o &= values


@operation('set', st.sets(small))
def set_isub(o, values):
    o -= values


@operation('set', st.sets(small))
def set_ixor(o, values):
    o ^= values


@operation('set')
def clear_set(o):
    o.clear()


@operation('set')
def pop_member(o):
    value = min(o)
    o.remove(value)
    return value


@operation('bytearray', st.integers(0, 300))
def append_byte(o, value):
    o.append(value)


@operation('bytearray', st.binary(max_size=4))
def extend_bytes(o, value):
    o.extend(value)


@operation('bytearray', st.binary(max_size=4))
def iadd_bytes(o, value):
    o += value


@operation('bytearray', index, st.integers(0, 255))
def insert_byte(o, i, value):
    o.insert(i, value)


@operation('bytearray', maybe_index)
def pop_byte(o, i):
    return o.pop() if i is None else o.pop(i)


@operation('bytearray', st.integers(0, 255))
def remove_byte(o, value):
    o.remove(value)


@operation('bytearray')
def reverse_bytes(o):
    o.reverse()


@operation('bytearray')
def clear_bytes(o):
    o.clear()


@operation('bytearray', st.integers(-1, 2))
def imul_bytes(o, n):
    if len(o) < 16:
        o *= n


@operation('bytearray', index, st.integers(0, 300))
def set_byte(o, i, value):
    o[i] = value


@operation('bytearray', slices, st.binary(max_size=3))
def set_byte_slice(o, where, value):
    o[where] = value


@operation('bytearray', slices)
def delete_byte_slice(o, where):
    del o[where]


@operation('deque', small)
def deque_append(o, value):
    o.append(value)


@operation('deque', smalls)
def deque_extendleft(o, values):
    o.extendleft(values)


@operation('deque')
def deque_popleft(o):
    return o.popleft()


@operation('deque', st.integers(-2, 2))
def deque_rotate(o, n):
    o.rotate(n)


class AttributeView:
    """Lets operations on attributes run on the model's node as on the object."""

    def __init__(self, content):
        object.__setattr__(self, 'content', content)

    def __getattr__(self, name):
        try:
            return self.content[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        if self.content.cls is Slots and name not in Slots.__slots__:
            raise AttributeError(name)
        self.content[name] = value

    def __delattr__(self, name):
        if name not in self.content:
            raise AttributeError(name)
        del self.content[name]


names = st.sampled_from(['a', 'b', 'c', 'd'])


@operation('any', names, new)
def set_attribute(o, name, value):
    setattr(o, name, value)


@operation('any', names)
def delete_attribute(o, name):
    delattr(o, name)


@operation('any', names)
def get_attribute(o, name):
    return getattr(o, name)


def kind_of_content(content):
    if isinstance(content, Attributes):
        return 'any'
    if isinstance(content, collections.deque):
        return 'deque'
    return kind_of(content)


# ---- the machine ----

class Worker:
    """A thread that runs one function after the other and gives back what became of them."""

    def __init__(self):
        self.todo = queue.SimpleQueue()
        self.done = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            function = self.todo.get()
            if function is None:
                return
            try:
                self.done.put((function(), None))
            except BaseException as error:
                self.done.put((None, error))

    def call(self, function):
        self.todo.put(function)
        result, error = self.done.get(timeout=60)
        if error is not None:
            raise error
        return result

    def stop(self):
        self.todo.put(None)
        self.thread.join(10)


class Abort(Exception):
    pass


class Open:
    """An open transaction of the model: its state, its savepoints, and what it has done."""

    def __init__(self, state):
        self.start = state
        self.state = state.copy()
        self.saved = []      # the states to go back to, one for each inner block
        self.blocks = []     # the real Transactions, outermost first
        self.touched = False


class Side:
    """One Manager, its worker, the wrappers it has shown, and its open transaction."""

    def __init__(self, manager):
        self.manager = manager
        self.worker = Worker()
        self.wrappers = {}
        self.open = None

    def view(self, state):
        """Compares what this thread sees of the Manager with the state; True if it is equal."""
        manager, seen = self.manager, {}
        todo = [(state.root, manager.read(None))]
        assert (state.number is None) == (manager.version is None)
        while todo:
            want, got = todo.pop()
            if isinstance(want, Ref):
                if want.node in seen:
                    assert got is seen[want.node], 'an alias is not the same object'
                    continue
                seen[want.node] = got
                content = state.table[want.node]
                if isinstance(content, Attributes):
                    assert isinstance(got, content.cls) and isinstance(got, tosc.DAny)
                    assert {n for n in 'abcd' if hasattr(got, n)} == set(content)
                    todo.extend((content[n], getattr(got, n)) for n in content)
                elif isinstance(content, list):
                    assert isinstance(got, tosc.DList) and len(got) == len(content)
                    todo.extend(zip(content, got))
                elif isinstance(content, dict):
                    assert isinstance(got, tosc.DDict)
                    assert list(got) == list(content)
                    todo.extend((content[key], got[key]) for key in content)
                elif isinstance(content, collections.deque):
                    assert list(got) == list(content)
                else:
                    assert isinstance(got, (tosc.DSet, tosc.DByteArray)) and got == content
            elif isinstance(want, tuple):
                assert type(got) is type(want) and len(got) == len(want)
                todo.extend(zip(want, got))
            else:
                assert type(got) is type(want) and got == want
        for node, wrapper in seen.items():
            assert self.wrappers.setdefault(node, wrapper) is wrapper, 'identity is lost'
            assert manager.is_linked(wrapper)
        return seen

    def forget(self, states):
        """Drops what is in none of the states, after a look that it is not linked."""
        keep = set()
        for state in states:
            keep.update(state.reachable())
        for node in set(self.wrappers) - keep:
            assert not self.manager.is_linked(self.wrappers.pop(node))


def snapshot_equals(state, plain):
    """Whether a snapshot has the contents and the alias structure of the state."""
    seen, todo = {}, [(state.root, plain)]
    while todo:
        want, got = todo.pop()
        if isinstance(want, Ref):
            if want.node in seen:
                assert seen[want.node] is got
                continue
            seen[want.node] = got
            content = state.table[want.node]
            if isinstance(content, Attributes):
                assert type(got) is content.cls
                assert {n for n in 'abcd' if hasattr(got, n)} == set(content)
                todo.extend((content[n], getattr(got, n)) for n in content)
                continue
            assert type(got) is type(content)
            if isinstance(content, dict):
                assert list(got) == list(content)
                todo.extend((content[key], got[key]) for key in content)
            elif isinstance(content, list):
                assert len(got) == len(content)
                todo.extend(zip(content, got))
            else:
                assert got == content
        elif isinstance(want, tuple):
            assert type(got) is type(want) and len(got) == len(want)
            todo.extend(zip(want, got))
        else:
            assert type(got) is type(want) and got == want
    assert len({id(value) for value in seen.values()}) == len(seen)
    return True


def contents(state):
    """Something equal for states that have equal trees, node for node."""
    result = [state.root]
    for node in sorted(state.reachable()):
        content = state.table[node]
        if isinstance(content, Attributes):
            content = sorted(content.items())
        elif isinstance(content, dict):
            content = list(content.items())
        elif isinstance(content, set):
            content = sorted(content)
        result.append((node, content))
    return repr(result)


class StoreMachine(RuleBasedStateMachine):
    """Three Managers on one store, and the model."""

    managers = 3

    def make_backends(self):
        backend = tosc.InprocBackend()
        return [backend] * self.managers

    def __init__(self):
        super().__init__()
        self.next_node = 1
        self.committed = State({}, None, None)
        self.commits = 0
        self.sides = [Side(tosc.Manager(backend)) for backend in self.make_backends()]
        self.last_version = None

    def teardown(self):
        for side in self.sides:
            if side.open:
                def leave(side=side):
                    for block in reversed(side.open.blocks):
                        block.__exit__(Abort, Abort(), None)
                side.worker.call(leave)
            side.worker.stop()
            side.manager.close()

    # -- helpers --

    def commit(self, state):
        self.commits += 1
        table = {node: state.table[node] for node in state.reachable()}
        self.committed = State(table, state.root, self.commits)

    @initialize(description=roots)
    def first_write(self, description):
        side = self.sides[0]
        state = self.committed.copy()
        model, plain = Maker(self, state, side.wrappers.__getitem__).both(description)
        side.manager.write(plain)
        state.root = model
        self.commit(state)

    def plan(self, data, state, leave_out=()):
        """Draws one mutating method of one node with its arguments; None: there is no node."""
        nodes = state.reachable()
        if not nodes:
            return None
        node = data.draw(st.sampled_from(nodes), label='node')
        choices = OPERATIONS[kind_of_content(state.table[node])]
        name = data.draw(st.sampled_from(sorted(set(choices) - set(leave_out))),
                         label='operation')
        arguments, function = choices[name]
        return node, function, [(strategy, data.draw(strategy, label='argument'))
                                for strategy in arguments]

    def perform(self, plan, side, state):
        """Does it in the model and for real, and compares results and exceptions."""
        node, function, arguments = plan
        content = state.table[node]
        maker = Maker(self, state, side.wrappers.__getitem__)
        model_arguments, real_arguments = [], []
        for strategy, value in arguments:
            if strategy is new:
                m, p = maker.both(value)
            elif strategy is many:
                pairs = [maker.both(element) for element in value]
                m, p = [m for m, _ in pairs], [p for _, p in pairs]
            elif isinstance(value, dict):
                pairs = {key: maker.both(element) for key, element in value.items()}
                m, p = ({key: m for key, (m, _) in pairs.items()},
                        {key: p for key, (_, p) in pairs.items()})
            else:
                m = p = value
            model_arguments.append(m)
            real_arguments.append(p)
        target = AttributeView(content) if isinstance(content, Attributes) else content
        wrapper = side.wrappers[node]
        model_result, model_error = attempt(function, target, model_arguments)
        real_result, real_error = attempt(function, wrapper, real_arguments)
        if isinstance(real_error, tosc.Error):
            raise real_error
        assert type(real_error) is type(model_error), (model_error, real_error)
        self.compare_result(side, model_result, real_result)

    def compare_result(self, side, want, got):
        if isinstance(want, Ref):
            if want.node in side.wrappers:  # else it has never been seen yet
                assert got is side.wrappers[want.node]
        elif isinstance(want, tuple):
            assert type(got) is type(want) and len(got) == len(want)
            for one, other in zip(want, got):
                self.compare_result(side, one, other)
        else:
            assert type(got) is type(want) and got == want

    # -- rules --

    which = st.integers(0, 2)

    @rule(data=st.data(), i=which, count=st.integers(1, 5))
    def change(self, data, i, count):
        """Some changes: of the open transaction, or implicit."""
        side = self.sides[i]
        for _ in range(count):
            if side.open is None:
                self.implicit(data, side)
            else:
                self.inside(data, side)

    @rule(data=st.data(), i=which, count=st.integers(1, 5), levels=st.integers(1, 3),
          how=st.sampled_from(['leave', 'leave', 'raise', 'commit', 'rollback']))
    def change_in_a_block(self, data, i, count, levels, how):
        """A whole block, or some in one another, on top of what is open."""
        side = self.sides[i]
        for _ in range(levels):
            self.begin(i)
            for _ in range(count):
                self.inside(data, side)
        self.finish(side, how)
        for _ in range(levels - 1):
            if side.open:
                self.inside(data, side)
                self.finish(side, 'leave')

    def inside(self, data, side):
        plan = self.plan(data, side.open.state)
        if plan:
            def work():
                side.view(side.open.state)
                self.perform(plan, side, side.open.state)
            side.worker.call(work)
            side.open.touched = True

    def implicit(self, data, side):
        side.manager.refresh()
        side.view(self.committed)
        state = self.committed.copy()
        before = contents(state)
        version = side.manager.version
        # What is taken out and put back by two commits may be another object elsewhere.
        plan = self.plan(data, state, leave_out=['reinsert'])
        if plan is None:
            return
        self.perform(plan, side, state)
        if contents(state) != before:
            assert side.manager.version > version
            self.commit(state)
        elif side.manager.version != version:
            self.commit(state)

    @precondition(lambda self: any(side.open for side in self.sides))
    @rule(data=st.data(), i=which)
    def change_beside_an_open_transaction(self, data, i):
        """An implicit change by another thread of a Manager that has a transaction open."""
        which = [side for side in self.sides if side.open]
        self.implicit(data, which[i % len(which)])

    @rule(i=which)
    def begin(self, i):
        side = self.sides[i]
        if side.open is None:
            def work():
                side.manager.refresh()
                block = side.manager.transaction()
                block.__enter__()
                return block
            block = side.worker.call(work)
            side.open = Open(self.committed)
            side.open.blocks.append(block)
            return
        def nest():
            block = side.manager.transaction()
            block.__enter__()
            return block
        side.open.blocks.append(side.worker.call(nest))
        side.open.saved.append(side.open.state.copy())

    @precondition(lambda self: any(side.open for side in self.sides))
    @rule(i=which, how=st.sampled_from(['leave', 'leave', 'leave', 'raise', 'commit', 'rollback']))
    def end(self, i, how):
        """Ends the innermost block of one that has any."""
        which = [side for side in self.sides if side.open]
        self.finish(which[i % len(which)], how)

    def finish(self, side, how):
        """Ends the innermost block, in one of four ways."""
        block = side.open.blocks.pop()

        def work():
            if how == 'raise':
                assert not block.__exit__(Abort, Abort(), None)
                return
            if how == 'rollback':
                block.rollback()
            elif how == 'commit':
                try:
                    block.commit()
                except tosc.TransactionError as error:
                    assert not block.__exit__(type(error), error, None)
                    raise
            block.__exit__(None, None, None)

        good = how in ('leave', 'commit')
        if side.open.blocks:
            side.worker.call(work)
            saved = side.open.saved.pop()
            if not good:
                side.open.state = saved
            return
        transaction, side.open = side.open, None
        version = side.manager.version
        try:
            side.worker.call(work)
            conflict = False
        except tosc.TransactionError:
            conflict = True
        changed = contents(transaction.state) != contents(transaction.start)
        moved = self.committed.number != transaction.start.number
        if conflict:
            assert good and moved and transaction.touched, 'a conflict out of the blue'
            return
        if not good:
            return
        if changed:
            assert not moved, 'a conflict was not noticed'
            self.commit(transaction.state)
        elif side.manager.version != version and not moved:
            assert transaction.touched, 'nothing was changed, and yet there is a new version'
            self.commit(transaction.state)

    @rule(i=which, description=roots)
    def write(self, i, description):
        """Replaces the root, inside of a transaction or not."""
        side = self.sides[i]
        if side.open:
            def work():
                side.view(side.open.state)
                maker = Maker(self, side.open.state, side.wrappers.__getitem__)
                model, plain = maker.both(description)
                side.manager.write(plain)
                side.open.state.root = model
            side.worker.call(work)
            side.open.touched = True
            return
        side.manager.refresh()
        side.view(self.committed)
        state = self.committed.copy()
        model, plain = Maker(self, state, side.wrappers.__getitem__).both(description)
        side.manager.write(plain)
        state.root = model
        self.commit(state)

    @rule(i=which, description=roots, right=st.booleans())
    def try_write(self, i, description, right):
        side = self.sides[i]
        if side.open:
            return
        side.manager.refresh()
        side.view(self.committed)
        state = self.committed.copy()
        model, plain = Maker(self, state, side.wrappers.__getitem__).both(description)
        expected = side.manager.version if right else side.manager.version + 1
        assert side.manager.try_write(plain, expected) is right
        if right:
            state.root = model
            self.commit(state)

    @rule(i=which)
    def look_with_a_new_manager(self, i):
        with tosc.Manager(self.sides[i].manager.backend) as manager:
            assert snapshot_equals(self.committed, manager.snapshot(None))

    @invariant()
    def all_managers_equal_the_model(self):
        versions = set()
        for side in self.sides:
            side.manager.refresh(None)
            versions.add(side.manager.version)
            side.view(self.committed)
            assert snapshot_equals(self.committed, side.manager.snapshot(None))
            states = [self.committed]
            if side.open:
                def inside(side=side):
                    side.manager.refresh(None)
                    side.view(side.open.state)
                    assert snapshot_equals(side.open.state, side.manager.snapshot(None))
                side.worker.call(inside)
                states += [side.open.start, side.open.state, *side.open.saved]
            side.forget(states)
        assert len(versions) == 1
        version = versions.pop()
        if self.last_version is not None:
            assert version >= self.last_version
        self.last_version = version


def attempt(function, target, arguments):
    try:
        return function(target, *arguments), None
    except tosc.Error as error:
        return None, error
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        return None, error
