"""Large objects that a transaction changes piece by piece are what plain ones would be.

Objects of more than 16 elements are not copied by a transaction that changes some of them
(src/py/changes.c), so sizes here stand around that number and above.
"""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import random

import pytest

import links
import tosc

SIZES = [0, 1, 15, 16, 17, 18, 40, 300]


class Undo(Exception):
    pass


class Nosy:
    """A key whose comparison looks at the container that it stands in, or changes it."""

    meddle = None

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return 7

    def __eq__(self, other):
        meddle, Nosy.meddle = Nosy.meddle, None
        if meddle:
            meddle()
            Nosy.meddle = meddle
        return isinstance(other, Nosy) and self.number == other.number


def same(thing, model):
    """Equal, and in the same order where there is one; asked in ways that keep an overlay."""
    assert len(thing) == len(model)
    if isinstance(model, dict):
        for key in list(model)[:5]:
            assert thing[key] == model[key] and key in thing
        assert thing.get('missing') is None
    elif isinstance(model, list) and model:
        assert thing[0] == model[0] and thing[-1] == model[-1]
        assert thing[len(model) // 2] == model[len(model) // 2]
    elif isinstance(model, set):
        assert all(item in thing for item in list(model)[:5]) and 'missing' not in thing


def same_whole(thing, model):
    same(thing, model)
    assert thing == model
    if isinstance(model, dict):
        assert list(thing.items()) == list(model.items())
        assert list(map(repr, thing)) == list(map(repr, model))


def change_dict(r, pair):
    key = r.choice([r.randrange(30), str(r.randrange(40)), True, 1.0, (1, 2), None])
    choice = r.randrange(9)
    if choice < 3:
        return [d.__setitem__(key, choice) for d in pair]
    if choice == 3:
        return [d.pop(key, 'none') for d in pair]
    if choice == 4 and pair[1]:
        last = list(pair[1])[-1]
        return [(d.pop(last), d.__setitem__(last, 'again')) for d in pair]
    if choice == 5 and pair[1]:
        return [d.popitem() for d in pair]
    if choice == 6:
        return [d.setdefault(key, 'default') for d in pair]
    if choice == 7:
        return [d.update({key: 'u', 'other': 1}) for d in pair]
    return [d.clear() for d in pair] if r.random() < .1 else [key in d for d in pair]


def change_list(r, pair):
    size = len(pair[1])
    choice = r.randrange(11)
    at = r.randrange(size + 1)
    to = r.randrange(size + 1)
    if choice < 3:
        return [x.append(choice) for x in pair]
    if choice == 3 and size:
        return [x.pop() for x in pair]
    if choice == 4 and at < size:
        return [x.__setitem__(at, 'set') for x in pair]
    if choice == 5:
        return [x.extend([1, 2, 3]) for x in pair]
    if choice == 6 and at < size:
        return [x.__delitem__(slice(at, None)) for x in pair]
    if choice == 7:
        return [x.__setitem__(slice(at, to), ['slice'] * (to % 4)) for x in pair]
    if choice == 8 and size:
        return [x.pop(at if at < size else 0) for x in pair]
    if choice == 9:
        return [x.insert(at, 'in') for x in pair]
    return [x.reverse() for x in pair] if r.random() < .2 else None


def change_set(r, pair):
    item = r.choice([r.randrange(40), str(r.randrange(40)), True, 1.0, None, (1, 2)])
    choice = r.randrange(6)
    if choice < 2:
        return [s.add(item) for s in pair]
    if choice == 2:
        return [s.discard(item) for s in pair]
    if choice == 3:
        return [s.update({item, 1, 'more'}) for s in pair]
    if choice == 4:
        return [s.difference_update({item, 2}) for s in pair]
    return [s.clear() for s in pair] if r.random() < .1 else [item in s for s in pair]


def change_bytes(r, pair):
    at = r.randrange(len(pair[1]) + 1)
    to = r.randrange(len(pair[1]) + 1)
    choice = r.randrange(4)
    if choice == 0:
        return [b.append(at % 256) for b in pair]
    if choice == 1:
        return [b.__setitem__(slice(at, to), b'abc') for b in pair]
    if choice == 2:
        return [b.extend(b'xyz') for b in pair]
    return [b.__delitem__(slice(at, to)) for b in pair]


KINDS = {
    'dict': (lambda n: {str(i): i for i in range(n)}, change_dict),
    'list': (lambda n: list(range(n)), change_list),
    'set': (lambda n: {str(i) for i in range(n)} | set(range(n // 2)), change_set),
    'bytes': (lambda n: bytearray(range(256)) * 2 if n > 255 else bytearray(n), change_bytes),
}


def block(r, manager, thing, model, change, depth):
    """Returns what the plain object must be after a block of changes."""
    for _ in range(r.randrange(1, 12)):
        if depth < 3 and r.random() < .15:
            inner = model.copy()
            with contextlib.suppress(Undo), manager.transaction():
                inner = block(r, manager, thing, inner, change, depth + 1)
                if r.random() < .4:
                    raise Undo
                model = inner
        else:
            results = change(r, (thing, model))
            assert results is None or results[0] == results[1]
        (same_whole if r.random() < .1 else same)(thing, model)
    return model


@pytest.mark.parametrize('kind', list(KINDS))
@pytest.mark.parametrize('seed', range(60))
def test_a_transaction_sees_what_a_plain_object_would_show(kind, seed):
    r = random.Random(seed)
    make, change = KINDS[kind]
    model = make(r.choice(SIZES))
    backend = tosc.InprocBackend()
    with tosc.Manager(backend) as one, tosc.Manager(backend) as two:
        one.write({'it': model})
        thing = one.read()['it']
        for _ in range(4):
            after = model.copy()
            with contextlib.suppress(Undo), one.transaction():
                after = block(r, one, thing, after, change, 0)
                same_whole(two.read()['it'], model)
                if r.random() < .25:
                    raise Undo
                model = after
            same_whole(thing, model)
            two.refresh()
            same_whole(two.read()['it'], model)
            links.check(one)
        with tosc.Manager(backend) as three:
            same_whole(three.read()['it'], model)


@pytest.mark.parametrize('meddle', ['look', 'iterate', 'length', 'write'])
@pytest.mark.parametrize('size', [3, 40])
def test_a_key_may_look_at_the_dict_while_it_is_compared(meddle, size):
    with tosc.Manager(tosc.InprocBackend()) as manager:
        manager.write({Nosy(-i): i for i in range(1, size)})
        root = manager.read()

        def write():
            with contextlib.suppress(RuntimeError):
                root['w'] = 1

        Nosy.meddle = {'look': lambda: root.get('x'), 'iterate': lambda: list(root),
                       'length': lambda: len(root), 'write': write}[meddle]
        try:
            with manager.transaction():
                root[Nosy(1)] = 1
                root[Nosy(2)] = 2
                del root[Nosy(1)]
                assert root[Nosy(2)] == 2
                assert len(list(root)) == len(root)
        finally:
            Nosy.meddle = None
        assert root[Nosy(2)] == 2 and Nosy(1) not in root
        assert root.pop('w', 1) == 1
        assert len(root) == size
        with tosc.Manager(manager.backend) as other:
            assert len(other.read()) == size and other.read()[Nosy(2)] == 2


def test_a_comparison_that_fails_leaves_the_dict_as_it_was():
    def fail():
        raise Undo

    with tosc.Manager(tosc.InprocBackend()) as manager:
        manager.write({Nosy(-i): i for i in range(1, 40)})
        root = manager.read()
        with manager.transaction():
            root['a'] = 1
            Nosy.meddle = fail
            with pytest.raises(Undo):
                root[Nosy(5)] = 5
            Nosy.meddle = None
            with contextlib.suppress(Undo), manager.transaction():
                root['b'] = 2
                Nosy.meddle = fail
                root[Nosy(6)] = 6
            Nosy.meddle = None
            assert len(root) == 40 and 'b' not in root
        assert len(root) == 40 and root['a'] == 1 and Nosy(5) not in root
