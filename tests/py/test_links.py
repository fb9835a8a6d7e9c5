"""Links are counted rightly and alike in all processes, whatever is done to the graph."""
# SPDX-License-Identifier: Apache-2.0
import collections
import contextlib
import dataclasses
import os
import random
import subprocess
import sys

import pytest

import links
import tosc


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Key:
    """Hashed by identity: a key that is a distributed object."""

    def __init__(self, name):
        self.name = name


@dataclasses.dataclass(frozen=True)
class Inner:
    number: int


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str


class ByContents:
    """Its hash needs another distributed object."""

    def __init__(self, *items):
        self.items = list(items)

    def __hash__(self):
        return hash(tuple(self.items))

    def __eq__(self, other):
        return isinstance(other, ByContents) and list(self.items) == list(other.items)


Pair = collections.namedtuple('Pair', 'left right')

# So that the processes that follow find the classes under one name.
for _cls in (Thing, Key, Inner, Outer, ByContents, Pair):
    _cls.__module__ = 'test_links'
sys.modules.setdefault('test_links', sys.modules[__name__])


class Undo(Exception):
    pass


class History:
    """Random changes to a graph: aliases, cycles, moves, keys, tuples, opaque objects."""

    def __init__(self, seed, managers):
        self.random = random.Random(seed)
        self.managers = managers
        self.known = []

    def some(self):
        """A new value, or one that is or was in the graph."""
        r = self.random
        choice = r.randrange(16)
        if choice < 6 and self.known:
            value = r.choice(self.known)
            return (value, 1, (value,)) if choice == 0 else value
        return [
            lambda: r.randrange(100), lambda: [], lambda: {}, lambda: Thing(n=1),
            lambda: [[], {}], lambda: {'a': {'b': []}}, lambda: set(),
            lambda: Pair([], 2), lambda: (1, [2]), lambda: bytearray(b'ab'),
            lambda: collections.deque([[1], {}]), lambda: Thing(x=[Thing()]),
            lambda: frozenset([Key('f'), 3]), self.cycle, lambda: 'text',
            lambda: Outer(Inner(r.randrange(9)), 'k'),
        ][r.randrange(16)]()

    def cycle(self):
        one, two = {'n': 1}, []
        one['two'] = two
        two.append(one if self.random.random() < .5 else Thing(back=one, me=two))
        return one

    def key(self):
        r = self.random
        keys = [x for x in self.known if isinstance(x, (Key, Outer))]
        if keys and r.random() < .4:
            key = r.choice(keys)
            return (key, 1) if r.random() < .3 else key
        return r.choice([1, 'a', 'b', 'c', (1, 2), True, 2.0, None]) \
            if r.random() < .7 else r.choice([Key('k'), (Key('t'), 2)])

    def collect(self, root):
        """The wrappers in the graph, some of those that were, in an order that is the same for each run."""
        seen, todo = {id(root)}, [root]
        for item in todo:
            kids = links.refs(item)
            if isinstance(links.state_of(item), set):
                kids.sort(key=links.oid_of)
            for kid in kids:
                if id(kid) not in seen:
                    seen.add(id(kid))
                    todo.append(kid)
        self.known = todo[:60] + self.known[:6]

    def change(self, target):
        r = self.random
        if isinstance(target, tosc.DList):
            self.change_list(target)
        elif isinstance(target, tosc.DDict):
            self.change_dict(target)
        elif isinstance(target, tosc.DSet):
            key = self.key()
            if r.random() < .7:
                target.add(key)
            elif r.random() < .3:
                target.clear()
            else:
                target.discard(key)
        elif isinstance(target, tosc.DByteArray):
            target.append(r.randrange(256))
        elif isinstance(target, collections.deque):
            if r.random() < .7:
                target.append(self.some())
            elif target:
                target.popleft()
        elif isinstance(target, Thing):
            name = r.choice('xyz')
            if r.random() < .7:
                setattr(target, name, self.some())
            elif name in vars(target):
                delattr(target, name)

    def change_list(self, target):
        r, n = self.random, len(target)
        choice = r.randrange(8)
        if choice < 3:
            target.append(self.some())
        elif choice == 3 and n:
            target[r.randrange(n)] = self.some()
        elif choice == 4 and n:
            del target[r.randrange(n)]
        elif choice == 5:
            target[r.randrange(n + 1):r.randrange(n + 1)] = [self.some(), self.some()]
        elif choice == 6 and n:
            target.insert(0, target.pop(r.randrange(n)))  # taken out and put back
        elif choice == 7:
            target.clear() if r.random() < .3 else target.reverse()

    def change_dict(self, target):
        r = self.random
        choice = r.randrange(7)
        key = self.key()
        if choice < 3:
            target[key] = self.some()
        elif choice == 3:
            target.pop(key, None)
        elif choice == 4 and target:
            key = r.choice(list(target))
            value = target.pop(key)
            target[key] = value
        elif choice == 5 and target:
            target.popitem()
        elif choice == 6:
            target.clear() if r.random() < .2 else target.update({'u': self.some(), 'v': 1})

    def block(self, manager, depth):
        r = self.random
        self.collect(manager.read())
        for _ in range(r.randrange(1, 5)):
            if depth < 2 and r.random() < .2:
                with contextlib.suppress(Undo), manager.transaction():
                    self.block(manager, depth + 1)
                    if r.random() < .4:
                        raise Undo
            else:
                target = r.choice(self.known)
                if manager.is_linked(target):
                    self.change(target)

    def step(self, manager):
        r = self.random
        manager.refresh()
        self.known = []
        choice = r.random()
        if choice < .03:
            manager.write({'list': [], 'cycle': self.cycle()})
        elif choice < .3:
            self.collect(manager.read())
            self.change(r.choice(self.known))
        else:
            with contextlib.suppress(Undo), manager.transaction():
                self.block(manager, 0)
                if r.random() < .15:
                    raise Undo


def run(seed, steps, path=None):
    """Two Managers change a store in turns; yields after each step."""
    one = tosc.InprocBackend() if path is None else tosc.FileBackend(path, durable=False)
    two = one if path is None else tosc.FileBackend(path, durable=False)
    with tosc.Manager(one) as first, tosc.Manager(two) as second:
        first.write({'list': [], 'set': set(), 'thing': Thing()})
        history = History(seed, (first, second))
        for _ in range(steps):
            history.step(history.random.choice(history.managers))
            first.refresh()
            second.refresh()
            links.check(first, garbage=True)
            links.check(second, garbage=True)
            assert links.dump(first) == links.dump(second)
            yield first, second


@pytest.mark.parametrize('seed', range(12))
def test_links_are_what_a_recount_says(seed):
    for number, (first, _) in enumerate(run(seed, 60)):
        if number % 10 == 9:
            with tosc.Manager(first.backend) as fresh:
                fresh.read()
                links.check(fresh, garbage=True)
                assert links.dump(fresh) == links.dump(first)


@pytest.mark.parametrize('seed', range(3))
def test_processes_with_other_hash_seeds_come_to_the_same_graph(seed, tmp_path):
    path = str(tmp_path / 'store')
    followers = []
    try:
        with tosc.Manager(tosc.FileBackend(path, durable=False)) as manager:
            manager.write({})
        for hash_seed in ('0', '1', '77'):
            followers.append(subprocess.Popen(
                [sys.executable, links.__file__, path], text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, env=os.environ | {'PYTHONHASHSEED': hash_seed}))
        for number, (first, _) in enumerate(run(seed, 60, path)):
            if number % 5:
                continue
            for follower in followers:
                follower.stdin.write('go\n')
                follower.stdin.flush()
                assert follower.stdout.readline().strip() == links.digest(first)
    finally:
        for follower in followers:
            follower.stdin.close()
            assert follower.wait(30) == 0
            follower.stdout.close()


@pytest.mark.parametrize('make', [lambda: Outer(Inner(1), 'a'), lambda: ByContents(1, 2),
                                  lambda: (Outer(Inner(2), 'b'), 3),
                                  lambda: frozenset([Outer(Inner(3), 'c')]), lambda: Inner(4)])
def test_a_key_is_found_again_after_loading(make):
    backend = tosc.InprocBackend()
    with tosc.Manager(backend) as one, tosc.Manager(backend) as two:
        one.write({make(): 'value', 'set': {make()}})
        assert two.read()[make()] == 'value'
        assert make() in two.read()['set']
        one.read()['later'] = {make(): [1]}
        two.refresh()
        assert two.read()['later'][make()] == [1]
        two.read()['later'][make()].append(2)
        one.refresh()
        assert one.read()['later'][make()] == [1, 2]
        links.check(one)
        links.check(two)
        with tosc.Manager(backend) as three:
            assert three.read()['later'][make()] == [1, 2]
            assert links.dump(three) == links.dump(one)


def test_a_cycle_that_one_transaction_makes_and_removes_is_not_linked():
    with tosc.Manager(tosc.InprocBackend()) as manager:
        manager.write({})
        root = manager.read()
        with manager.transaction():
            root['x'] = {}
            gone = root['x']
            gone['me'] = gone
            del root['x']
        assert not manager.is_linked(gone)
        links.check(manager)
