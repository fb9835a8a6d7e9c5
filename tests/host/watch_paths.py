"""Random commits, and whether what watches were told covers what has changed.

Run by check_watch_paths.c, which gives it the module `watching`: new(manager, path) makes a
watch, take(watch) gives None or [all, own, version, before, path, ...]. run(kind, seed, steps)
makes a store with two Managers, each with a watch of everything and some of paths. One of the
Managers commits, the other one fetches. Before and after, all is compared as plain data.
"""
# SPDX-License-Identifier: Apache-2.0
import collections
import enum
import random
import time

import tosc
import watching


class Thing:
    """A custom object."""


class Slots:
    """Another one."""
    __slots__ = ('a', 'b', 'c')


class Colour(enum.Enum):
    """A key whose hash is Python code."""
    RED = 1
    BLUE = 2


class Bytes(tosc.BackendBase):
    """The least that a backend can be: everybody reads all of it, always."""

    def __init__(self):
        self.data, self.version = None, None

    def read(self):
        return self.version, self.data

    def write(self, new):
        self.data, self.version = new, (self.version or 0) + 1
        return self.version

    def try_write(self, new, expected):
        if self.version != expected:
            return False
        self.write(new)
        return True

    def target_wait(self, timeout=None):
        time.sleep(timeout or 0.1)
        return False


TEXTS = ['a', 'b', 'c', 'd e', 'x/y', '~', '~1', '/', 'ä', '', '0', '1', '-1', 'n\0l']
KEYS = TEXTS + [0, 1, 2, -1, 10**30, True, 2.5, None, (1, 2), b'k', Colour.RED, Colour.BLUE]
CONTAINERS = (tosc.DDict, tosc.DList, tosc.DSet, tosc.DByteArray, tosc.DAny, tosc.DOpaque)


# ---- what has changed ----

def attributes(thing):
    if hasattr(thing, '__dict__'):
        return vars(thing)
    return {name: getattr(thing, name) for name in thing.__slots__ if hasattr(thing, name)}


def step_of(key):
    """True and 1 are one key, whichever of them it is."""
    return str(int(key) if key is True else key) if type(key) in (str, int, bool) else None


def changed(before, after):
    """The positions, as tuples of steps (None: one that no path can have), that are different."""
    found, way = set(), []

    def compare(x, y, place):
        pair = (id(x), id(y))
        if type(x) is not type(y):
            found.add(place)
        elif pair not in way:
            way.append(pair)
            inside(x, y, place)
            way.pop()

    def inside_dict(x, y, place):
        for key in {**x, **y}:
            if key in x and key in y:
                compare(x[key], y[key], (*place, step_of(key)))
            else:
                found.add((*place, step_of(key)))

    def inside(x, y, place):
        if isinstance(x, dict):
            inside_dict(x, y, place)
        elif isinstance(x, (Thing, Slots)):
            inside_dict(attributes(x), attributes(y), place)
        elif isinstance(x, (list, tuple)):
            if len(x) != len(y):
                found.add(place)
            for i, (one, other) in enumerate(zip(x, y)):
                compare(one, other, (*place, str(i)))
        elif x != y:
            found.add(place)

    compare(before, after, ())
    return found


def steps_of(path):
    return tuple(step.replace('~1', '/').replace('~0', '~') for step in path.split('/')) if path else ()


def path_of(steps):
    return '/'.join(step.replace('~', '~0').replace('/', '~1') for step in steps)


def starts(place, start):
    return place[:len(start)] == start


# ---- changing at random ----

class Changer:
    def __init__(self, chance):
        self.chance = chance

    def leaf(self):
        return self.chance.choice([0, 1, 2, 'x', 'y', None, 2.5, b'z', (1, 2), True])

    def value(self, containers, depth=0):
        kind = self.chance.randrange(14 if depth < 3 else 5)
        some = range(self.chance.randrange(4))
        if kind < 4:
            return self.leaf()
        if kind == 4:  # an alias, or a cycle, or what was taken out before
            return self.chance.choice(containers) if containers else 7
        if kind in (5, 6):
            return [self.value(containers, depth + 1) for _ in some]
        if kind in (7, 8):
            return {self.chance.choice(KEYS): self.value(containers, depth + 1) for _ in some}
        if kind == 9:
            return {self.leaf() for _ in some}
        if kind == 10:
            return bytearray(b'abc')
        if kind == 11:
            return tuple(self.value(containers, depth + 1) for _ in some)
        if kind == 12:
            return collections.deque(self.leaf() for _ in some)
        thing = Thing() if self.chance.random() < 0.5 else Slots()
        for name in self.chance.sample('abc', self.chance.randrange(4)):
            setattr(thing, name, self.value(containers, depth + 1))
        return thing

    def change(self, target, containers):
        value = self.value(containers)
        pick, at = self.chance.randrange(6), self.chance.randrange
        if isinstance(target, tosc.DDict):
            key = self.chance.choice(list(target) + KEYS)
            if pick < 3:
                target[key] = value
            elif pick == 3 and target:
                self.put_aside(target.pop(self.chance.choice(list(target))), containers)
            elif pick == 4:
                target.update({self.chance.choice(KEYS): value, self.chance.choice(KEYS): 3})
            elif self.chance.random() < 0.2:
                target.clear()
        elif isinstance(target, tosc.DList):
            if pick < 2 and target:
                target[at(len(target))] = value
            elif pick == 2 and target:
                self.put_aside(target.pop(at(len(target))), containers)
            elif pick == 3 and len(target) > 1:
                target.reverse()
            elif pick == 4:
                target[at(len(target) + 1):at(len(target) + 1)] = [value, 1]
            else:
                target.insert(at(len(target) + 1), value)
        elif isinstance(target, tosc.DSet):
            (target.add if pick < 4 else target.discard)(self.leaf())
        elif isinstance(target, tosc.DByteArray):
            target.append(at(256))
        elif isinstance(target, tosc.DOpaque):
            target.append(self.leaf())
        elif pick < 4 or not attributes_of(target):
            setattr(target, self.chance.choice('abc'), value)
        else:
            delattr(target, self.chance.choice(attributes_of(target)))

    @staticmethod
    def put_aside(value, containers):
        if isinstance(value, CONTAINERS):
            containers.append(value)


def attributes_of(thing):
    return [name for name in 'abc' if hasattr(thing, name)]


def containers_of(root):
    """All that can change, the nearest first."""
    found, todo = [], collections.deque([root])
    while todo and len(found) < 60:
        value = todo.popleft()
        if isinstance(value, (tuple, frozenset)):
            todo.extend(value)
        elif isinstance(value, CONTAINERS) and not any(value is other for other in found):
            found.append(value)
            if isinstance(value, tosc.DDict):
                todo.extend(value.values())
            elif isinstance(value, tosc.DList):
                todo.extend(value)
            elif isinstance(value, tosc.DAny):
                todo.extend(getattr(value, name) for name in attributes_of(value))
    return found


# ---- the store ----

class Filter:
    """A watch of a path."""

    def __init__(self, manager, steps):
        self.steps = steps
        self.watch = watching.new(manager, path_of(steps))

    def check(self, found):
        told = watching.take(self.watch)
        concerned = [place for place in found
                     if starts(place, self.steps) or starts(self.steps, known(place))]
        assert told is not None or not concerned, (self.steps, concerned)


class Side:
    """A Manager and its watches."""

    def __init__(self, backend, chance):
        self.manager = tosc.Manager(backend)
        self.manager.read(default=None)
        self.everything = watching.new(self.manager, None)
        self.chance = chance
        self.filters = []
        self.version = self.manager.version or 0
        # Its own commits may have to be read back, and then nobody knows whose they are.
        self.forgetful = isinstance(backend, Bytes)

    def check(self, before, own):
        after = self.manager.snapshot(default=None)
        found = changed(before, after)
        told = watching.take(self.everything)
        assert told is not None or not found, found
        everything = False
        if told is not None:
            everything, is_own, version, before_version, *paths = told
            assert is_own == own or self.forgetful and not is_own, told
            assert before_version == self.version < version == self.manager.version
            self.version = version
            places = [steps_of(path) for path in paths]
            for place in found:
                assert everything or any(starts(known(place), start) for start in places), (
                    place, paths)
        for each in self.filters:
            each.check(found)
        self.renew_filters()
        return everything, len(found)

    def renew_filters(self):
        """On places that there are, mostly."""
        if len(self.filters) == 6:
            watching.free(self.filters.pop(self.chance.randrange(6)).watch)
        steps, value = [], self.manager.snapshot(default=None)
        while self.chance.random() < 0.8:
            if isinstance(value, dict) and value:
                key = self.chance.choice(list(value))
                step, value = step_of(key), value[key]
            elif isinstance(value, (list, tuple)) and value:
                step = self.chance.randrange(len(value))
                value = value[step]
            elif isinstance(value, (Thing, Slots)) and attributes(value):
                step = self.chance.choice(list(attributes(value)))
                value = attributes(value)[step]
            else:
                break
            if step is None or '\0' in str(step):
                break
            steps.append(str(step))
        if steps and steps[0] == '' or any(step == '' for step in steps):
            return
        self.filters.append(Filter(self.manager, tuple(steps)))


def known(place):
    """As far as a path can say it."""
    for i, step in enumerate(place):
        if step is None or step == '' or '\0' in step:
            return place[:i]
    return place


def commit(side, changer):
    manager, chance = side.manager, side.chance
    root = manager.read(default=None)
    containers = containers_of(root)
    if not containers or chance.random() < 0.02:
        manager.write({'a': changer.value([]), 'b': [1, {'c': []}], 'c': Thing()})
        return
    with manager.transaction():
        for _ in range(chance.choice([1, 1, 1, 2, 3, 6])):
            target = containers[min(int(chance.expovariate(0.3)), len(containers) - 1)]
            if chance.random() < 0.1:
                try:
                    with manager.transaction():
                        changer.change(target, containers)
                        raise LookupError
                except LookupError:
                    continue
            changer.change(target, containers)
            if chance.random() < 0.3:
                containers = containers_of(manager.read(default=None)) or containers


def backend_of(kind, path):
    return {'inproc': tosc.InprocBackend, 'bytes': Bytes,
            'file': lambda: tosc.FileBackend(path, durable=False)}[kind]()


def run(kind, path, seed, steps):
    chance = random.Random(seed)
    changer = Changer(chance)
    backend = backend_of(kind, path)
    sides = [Side(backend, chance), Side(backend, chance)]
    everything = some = 0
    before = None
    for step in range(steps):
        one, other = chance.sample(sides, 2)
        try:
            commit(one, changer)
            other.manager.refresh(default=None)
            for side in (one, other):
                unknown, count = side.check(before, own=side is one)
                everything += unknown
                some += count > 0
        except AssertionError as error:
            raise AssertionError(f'{kind}, seed {seed}, step {step}: {error}') from error
        before = one.manager.snapshot(default=None)
        if isinstance(before, dict) and len(repr(before)) > 4000:
            one.manager.write({'a': {}})
            other.manager.refresh()
            for side in sides:
                side.check(before, own=side is one)
            before = one.manager.snapshot()
    for side in sides:
        side.manager.close()
        watching.free(side.everything)
        for each in side.filters:
            watching.free(each.watch)
    assert some > steps / 4, some
    assert everything < steps / 5, everything
    return some
