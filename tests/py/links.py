"""Counting links anew: the graph as a Manager holds it, seen past the Manager.

The reference is the graph itself: which wrappers stand in which states, found by going
through memory. `check` compares the Manager's own count of links with it; `dump` says all
that processes must agree on: oids, kinds, links, states.

Run as a script it follows a store: for each line on stdin it refreshes and prints a digest.
"""
# SPDX-License-Identifier: Apache-2.0
import ctypes
import gc
import hashlib
import sys

import tosc

# struct DObject in src/py/dobject.h, and the refs of OpaqueState in src/py/wrap.h.
STATE, OID, LINKS, KIND = 16, 32, 72, 76
REFS = 24
OPAQUE = 5


def state_of(wrapper):
    return ctypes.py_object.from_address(id(wrapper) + STATE).value


def oid_of(wrapper):
    return ctypes.c_uint64.from_address(id(wrapper) + OID).value


def links_of(wrapper):
    return ctypes.c_uint32.from_address(id(wrapper) + LINKS).value


def kind_of(wrapper):
    return ctypes.c_uint8.from_address(id(wrapper) + KIND).value


def is_wrapper(value):
    return issubclass(type(value), tosc.DObject)


def table(manager):
    """All linked objects by oid; 1 is the cell that holds the root."""
    found = {}
    for item in gc.get_referents(manager):
        if is_wrapper(item) and oid_of(item):
            assert found.setdefault(oid_of(item), item) is item, 'two objects of one oid'
    return found


def elements(wrapper):
    """What stands in a state, keys included."""
    state = state_of(wrapper)
    if kind_of(wrapper) == OPAQUE:
        return list(ctypes.py_object.from_address(id(state) + REFS).value)
    if isinstance(state, dict):
        return [*state.keys(), *state.values()]
    return [] if isinstance(state, bytearray) else list(state)


def refs(wrapper):
    """The wrappers in a state, as often as they stand there."""
    found, stack = [], elements(wrapper)
    while stack:
        item = stack.pop()
        if is_wrapper(item):
            found.append(item)
        elif isinstance(item, (tuple, frozenset)):
            stack.extend(item)
    return found


def check(manager, garbage=False):
    """Asserts that links are what they should be; unless `garbage`, that all is reachable."""
    objects = table(manager)
    counts = dict.fromkeys(objects, 0)
    counts[1] = 1
    for wrapper in objects.values():
        for ref in refs(wrapper):
            assert objects.get(oid_of(ref)) is ref, ('not linked', wrapper, ref)
            counts[oid_of(ref)] += 1
    for oid, wrapper in objects.items():
        assert links_of(wrapper) == counts[oid] > 0, (oid, links_of(wrapper), counts[oid])
    if not garbage:
        reached, todo = {1}, [objects[1]]
        while todo:
            for ref in refs(todo.pop()):
                if oid_of(ref) not in reached:
                    reached.add(oid_of(ref))
                    todo.append(ref)
        assert reached == set(objects), set(objects) - reached


def show(value):
    if is_wrapper(value):
        return f'@{oid_of(value)}'
    if isinstance(value, frozenset):
        return 'frozenset' + str(sorted(map(show, value)))
    if isinstance(value, tuple):
        return f'{type(value).__name__}({", ".join(map(show, value))})'
    return repr(value)


def dump(manager):
    lines = []
    for oid, wrapper in sorted(table(manager).items()):
        state = state_of(wrapper)
        if isinstance(state, dict):
            text = [f'{show(k)}: {show(v)}' for k, v in state.items()]
        elif isinstance(state, set):
            text = sorted(map(show, state))
        elif isinstance(state, bytearray):
            text = repr(state)
        else:
            text = list(map(show, elements(wrapper)))
        lines.append(f'{oid} {kind_of(wrapper)} {links_of(wrapper)} {text}')
    return '\n'.join(lines)


def digest(manager):
    return hashlib.sha256(dump(manager).encode()).hexdigest()


def follow(path):
    with tosc.Manager(tosc.FileBackend(path)) as manager:
        for line in sys.stdin:
            manager.refresh()
            check(manager, garbage=True)
            print(digest(manager) if line.strip() != 'dump' else dump(manager) + '\n.', flush=True)


if __name__ == '__main__':
    sys.path.insert(0, __file__.rpartition('/')[0])
    import test_links  # noqa: F401  (its classes)
    follow(sys.argv[1])
