"""Doing the same to a builtin and to its wrapper, wherever that stands, and comparing.

A Place says where wrappers stand: alone; in a store, where each change is a commit of its own;
or in a store and inside a transaction. `small` and `large` containers are changed differently
inside a transaction (a private copy, an overlay), so tests use both.
"""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import copy
import gc
import re
import sys

import tosc

KINDS = ['alone', 'stored', 'transaction', 'nested']

WRAPPER_OF = {dict: tosc.DDict, set: tosc.DSet, list: tosc.DList}
BUILTIN_OF = {wrapper: builtin for builtin, wrapper in WRAPPER_OF.items()}


class Place:
    """Where wrappers stand. A context manager."""

    def __init__(self, kind):
        self.kind = kind
        self.stack = contextlib.ExitStack()
        self.backend = tosc.InprocBackend()
        self.manager = None

    def __enter__(self):
        if self.kind != 'alone':
            self.manager = self.stack.enter_context(tosc.Manager(self.backend))
            self.transactions = self.stack.enter_context(contextlib.ExitStack())
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def make(self, value):
        """A new wrapper of a dict, set or list; those made before are done with."""
        if self.kind == 'alone':
            return WRAPPER_OF[type(value)](value)
        self.transactions.close()
        self.manager.write([value])
        wrapper = self.manager.read()[0]
        if self.kind in ('transaction', 'nested'):
            self.transactions.enter_context(self.manager.transaction())
        if self.kind == 'nested':
            self.transactions.enter_context(self.manager.transaction())
        return wrapper

    def check_stored(self, expected):
        """What another Manager of the store reads is what was made and changed."""
        if self.kind == 'alone':
            return
        self.transactions.close()
        with tosc.Manager(self.backend) as other:
            stored = other.snapshot()[0]
        assert_same(stored, expected)
        if isinstance(expected, dict):
            assert list(stored) == list(plain(expected))


def plain(value):
    """The same in builtins, with cycles and aliases."""
    return copy.deepcopy(value)


def kind_name(value):
    """The name of the type that the builtin would have."""
    name = type(value).__name__
    return {'DDictKeys': 'dict_keys', 'DDictValues': 'dict_values',
            'DDictItems': 'dict_items'}.get(name, BUILTIN_OF.get(type(value), type(value)).__name__)


VIEWS = ('dict_keys', 'dict_values', 'dict_items')


def canonical(value):
    """A text that is the same for equal values, also where sets keep no order."""
    if isinstance(value, (set, frozenset)):
        return f'{type(value).__name__}({sorted(map(canonical, value))})'
    if isinstance(value, dict):
        items = [(canonical(key), canonical(element)) for key, element in value.items()]
        return f'{type(value).__name__}({items})'
    if isinstance(value, (list, tuple)):
        return f'{type(value).__name__}({[canonical(element) for element in value]})'
    return repr(value)


def comparable(value):
    """Of a result: what has to be equal for the builtin and the wrapper."""
    name = kind_name(value)
    if name == 'set_iterator':
        return name, sorted(canonical(plain(element)) for element in value)
    if name in VIEWS or name.endswith('iterator'):
        return name, [canonical(plain(element)) for element in value]
    if name == 'mappingproxy':
        return name, canonical(plain(dict(value)))
    try:
        return name, canonical(plain(value))
    except TypeError:
        return name, None  # methods and other things that cannot be copied


def words(error):
    """The message of an exception without what has to differ."""
    text = str(error)
    text = re.sub(r'\btosc\.', '', text)
    text = re.sub(r'\bDDict(Keys|Values|Items)\b',
                  lambda match: 'dict_' + match.group(1).lower(), text)
    text = re.sub(r'0x[0-9a-f]+', '0x…', text)
    return re.sub(r'\bD(Dict|Set|List)\b', lambda match: match.group(1).lower(), text)


def outcome(function, *args):
    """('returned', …) or ('raised', type, message)."""
    try:
        result = function(*args)
    except Exception as error:  # pylint: disable=broad-except
        return 'raised', type(error), words(error)
    return ('returned', *comparable(result))


def assert_same(wrapper, builtin):
    """Equal contents of equal types; of dicts in the same order."""
    left, right = plain(wrapper), plain(builtin)
    assert type(left) is type(right)
    assert left == right
    assert comparable(left) == comparable(right)


def assert_parity(place, contents, operation, ignore_words=False):
    """Does `operation` to the builtin and the wrapper; returns the wrapper's outcome.

    A change that fails leaves the wrapper as it was, where the builtin may have done a part.
    """
    builtin = plain(contents)
    wrapper = place.make(plain(contents))
    expected = outcome(operation, builtin)
    got = outcome(operation, wrapper)
    if got[0] == 'raised' and got[1] is TypeError and 'cannot be stored' in got[2]:
        expected = got  # what it refuses; other tests see to it that it is not too much
    if ignore_words and expected[0] == 'raised':
        assert got[:2] == expected[:2]
    else:
        assert got == expected
    if expected[0] == 'raised':
        builtin = plain(contents)
    assert_same(wrapper, builtin)
    return builtin


def growth(function, rounds):
    """How many blocks of memory a call leaves behind. The interpreter's own caches fill up
    meanwhile, so a suspicion is looked into with more rounds."""
    left = 0
    for _ in range(6):
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(rounds):
            function()
        gc.collect()
        left = (sys.getallocatedblocks() - before) / rounds
        if left < 0.5:
            break
        rounds *= 2
    return left
