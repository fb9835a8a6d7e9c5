"""Does a wrapper do what the builtin does? What test_dlist.py and test_dbytearray.py share.

An operation is a function of one argument, the list or bytearray. It is run on the builtin
and on the wrapper, made of the same value, and what comes of it is compared: the result and
its type, or the exception and its message; and the contents afterwards. The wrapper is tried
in several places: standing alone, in a store, and inside transactions.
"""
# SPDX-License-Identifier: Apache-2.0
import collections.abc
import contextlib
import copy
import gc
import sys

import tosc

BUILTIN = {tosc.DList: list, tosc.DDict: dict, tosc.DSet: set, tosc.DByteArray: bytearray}

PLACES = ['alone', 'stored', 'transaction', 'savepoint']


class Place:
    """Where wrappers are made, and how their contents are looked at afterwards."""

    def __init__(self, name):
        self.name = name
        self.manager = None
        if name != 'alone':
            backend = tosc.InprocBackend()
            self.manager = tosc.Manager(backend)
            self.manager.write({})
            self.other = tosc.Manager(backend)

    def close(self):
        if self.manager is not None:
            self.manager.close()
            self.other.close()

    @contextlib.contextmanager
    def transaction(self):
        """The open blocks of this place, around one operation."""
        with contextlib.ExitStack() as stack:
            if self.name in ('transaction', 'savepoint'):
                stack.enter_context(self.manager.transaction())
            if self.name == 'savepoint':
                stack.enter_context(self.manager.transaction())
            yield

    def make(self, type_, value):
        if self.name == 'alone':
            return type_(value)
        root = self.manager.read()
        root['it'] = value
        wrapper = root['it']
        assert type(wrapper) is type_
        return wrapper

    def contents(self, wrapper):
        """As seen through the wrapper, and (where it is stored) as another Manager reads it."""
        seen = [copy.deepcopy(wrapper)]
        if self.manager is not None:
            seen.append(self.manager.snapshot()['it'])
            self.other.refresh()
            seen.append(self.other.snapshot()['it'])
        return seen


@contextlib.contextmanager
def place(name):
    here = Place(name)
    try:
        yield here
    finally:
        here.close()


class Index:
    """Not an int, but an index."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value

    def __repr__(self):
        return f'Index({self.value!r})'


class BadIndex:
    def __index__(self):
        raise LookupError('no index today')


class Holder:
    """Something that is no container, iterable or number."""


def broken_iterable(*values):
    yield from values
    raise LookupError('nothing more today')


def plain(value):
    return copy.deepcopy(value) if type(value) in BUILTIN else value


def same(a, b):
    """Equal, and of the same types all through; wrappers count as what they wrap."""
    a, b = plain(a), plain(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    return a == b


class Raised:
    """An exception, its message in the builtin's words."""

    def __init__(self, error):
        self.type = type(error)
        text = str(error)
        for wrapper, builtin in BUILTIN.items():
            text = text.replace('tosc.' + wrapper.__name__, builtin.__name__)
            text = text.replace(wrapper.__name__, builtin.__name__)
        self.text = text

    def __repr__(self):
        return f'{self.type.__name__}: {self.text}'


ITSELF = type('Itself', (), {'__repr__': lambda self: 'itself'})()


def run(operation, target):
    """What comes of an operation: a value, ITSELF, or Raised."""
    try:
        result = operation(target)
    except Exception as error:  # pylint: disable=broad-except
        return Raised(error)
    if result is target:
        return ITSELF
    if isinstance(result, collections.abc.Iterator):
        return type(result), list(result)
    return result


def differs(expected, actual, messages=True):
    if isinstance(expected, Raised) or isinstance(actual, Raised):
        return (type(expected) is not type(actual) or expected.type is not actual.type
                or (messages and expected.text != actual.text))
    if expected is ITSELF or actual is ITSELF:
        return expected is not actual
    return not same(expected, actual)


def compare(here, type_, values, operations, *, messages=True):
    """Runs each of the operations (name -> function) on each of the values (made by functions)."""
    builtin = BUILTIN[type_]
    faults = []
    for make in values:
        for name, operation in operations.items():
            model = builtin(make())
            wrapper = here.make(type_, make())
            expected = run(operation, model)
            with here.transaction():
                actual = run(operation, wrapper)
                if not same(wrapper, model):
                    faults.append(f'{make()!r} {name}: {model!r} is {wrapper!r} at once')
            if differs(expected, actual, messages):
                faults.append(f'{make()!r} {name}: {expected!r} is {actual!r}')
            for contents in here.contents(wrapper):
                if not same(contents, model):
                    faults.append(f'{make()!r} {name}: {model!r} is {contents!r} afterwards')
    assert not faults, f'{len(faults)} differences:\n' + '\n'.join(faults[:20])


# ---- surfaces ----

def missing_attributes(type_):
    """What the builtin has and the wrapper has not, or has without documentation."""
    builtin = BUILTIN[type_]
    faults = []
    for name in dir(builtin):
        theirs = getattr(builtin, name)
        ours = getattr(type_, name, None)
        if ours is None and theirs is not None:
            faults.append(name)
        elif getattr(theirs, '__doc__', None) and not getattr(ours, '__doc__', None):
            faults.append(name + ': no docstring')
        elif (getattr(theirs, '__text_signature__', None)
              != getattr(ours, '__text_signature__', None)):
            faults.append(f'{name}: {ours.__text_signature__}')
    return faults


# ---- leaks ----

def growth(operation, times):
    """Blocks of memory and collectable objects that `times` runs of an operation leave behind.

    Not by tracemalloc: CPython 3.11 crashes when that is started or stopped while a thread
    that was made in C asks for the GIL.
    """
    gc.collect()
    objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
    for _ in range(times):
        operation()
    gc.collect()
    return sys.getallocatedblocks() - blocks, len(gc.get_objects()) - objects


def assert_no_growth(operations, tokens, times=20000):
    """Each operation leaves nothing behind, and as many references to the tokens as before.

    Caches elsewhere may grow once; a leak grows each time.
    """
    for name, operation in operations.items():
        for _ in range(4):
            counts = [sys.getrefcount(token) for token in tokens]
            grown = growth(operation, times)
            more = [sys.getrefcount(token) - count for token, count in zip(tokens, counts)]
            if max(map(abs, (*grown, *more))) < times / 100:
                break
        else:
            raise AssertionError((name, grown, more))


OUT_OF_MEMORY = """
import _testcapi
from sequences import {ops} as operations
faults = []
for title, (make, operation) in operations().items():
    for number in range(100):
        target, model = make()
        before = repr(target)
        operation(model)
        error = None
        _testcapi.set_nomemory(number, number + 1)
        try:
            operation(target)
        except BaseException as caught:
            error = type(caught)
        finally:
            _testcapi.remove_mem_hooks()
        if error is None and repr(target) != repr(model):
            faults.append((title, number, 'wrong', repr(target)))
        # CPython itself takes the failure for one of its argument's type in one place.
        if error is not None and error not in (MemoryError, TypeError):
            faults.append((title, number, error))
        if error is not None and repr(target) != before:
            faults.append((title, number, 'changed', repr(target)))
print(faults)
"""


def _set(target, key, value):
    target[key] = value


def _delete(target, key):
    del target[key]


def _changes(make, fill):
    """Each way to change a list or bytearray; `fill` makes elements of so many numbers."""
    operations = {
        'append': lambda t: t.append(fill(1)[0]), 'insert': lambda t: t.insert(1, fill(1)[0]),
        'extend': lambda t: t.extend(fill(30)), '+=': lambda t: t.__iadd__(fill(3)),
        '*=': lambda t: t.__imul__(3), 'pop': lambda t: t.pop(1), 'remove': lambda t: t.remove(5),
        'set': lambda t: _set(t, 1, fill(1)[0]), 'delete': lambda t: _delete(t, 1),
        'set slice': lambda t: _set(t, slice(0, 3), fill(2)),
        'set extended': lambda t: _set(t, slice(0, 5, 2), fill(3)),
        'set all': lambda t: _set(t, slice(None, None, -1), fill(len(t))),
        'delete slice': lambda t: _delete(t, slice(1, 4)),
        'delete extended': lambda t: _delete(t, slice(None, None, 2)),
        'clear': lambda t: t.clear(), 'reverse': lambda t: t.reverse(),
        'init': lambda t: t.__init__(fill(4)), 'copy': lambda t: (t[1:], t + t, t * 2, list(t)),
        'iterate': lambda t: (list(t), list(reversed(t)), 5 in t, t.index(5), t == t),
    }
    return {title: (make, operation) for title, operation in operations.items()}


def list_changes():
    value = [3, 5, [1], 'x', 2.5, *range(20)]
    changes = _changes(lambda: (tosc.DList(value), list(value)), lambda n: [[m] for m in range(n)])
    changes['sort'] = changes['clear'][0], lambda t: t.sort(key=lambda e: e if type(e) is int else 9)
    return changes


def bytearray_changes():
    value = bytes(range(40))
    return _changes(lambda: (tosc.DByteArray(value), bytearray(value)), bytes)
