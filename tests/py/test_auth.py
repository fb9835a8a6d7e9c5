"""Keys and allowed classes: nothing is decoded, let alone run, that should not be."""
# SPDX-License-Identifier: Apache-2.0
import collections
import datetime
import decimal
import enum
import os
import pathlib
import types
import uuid
import warnings

import pytest

import tosc
from harness import PyBackend, make_store, drop_store, run_child, wait_until

KEY = b'k' * 32
RAN = []

# The watchers tell of what is wrong, too.
pytestmark = pytest.mark.filterwarnings('ignore:tosc. watching the store failed')


class Witness:
    """Notes when it is loaded."""

    def __init__(self, name):
        self.name = name

    def __setstate__(self, state):
        RAN.append(state)
        self.__dict__.update(state)


class Other:
    def __init__(self, x):
        self.x = x


class Fancy(dict):
    pass


Named = collections.namedtuple('Named', 'x')


class Colour(enum.Enum):
    RED = 1


@pytest.fixture(autouse=True)
def nothing_ran():
    del RAN[:]


# ---- keys ----

def test_managers_with_the_same_key_share_a_store(store):
    one, two = store.manager({'n': 0}, key=KEY), store.manager(key=KEY)
    two.read()['n'] = 1
    one.refresh()['list'] = []
    two.refresh()['list'].append(1)
    assert one.refresh() == {'n': 1, 'list': [1]}
    wait_until(lambda: store.manager(key=bytearray(KEY)).read() == one.read())


@pytest.mark.parametrize('key', [b'x', b'\0', b'k' * 1000, bytearray(b'abc'),
                                 memoryview(b'abc')])
def test_any_bytes_are_a_key(inproc_store, key):
    one = inproc_store.manager([0], key=key)
    two = inproc_store.manager(key=bytes(key))
    two.read().append(1)
    assert one.refresh() == [0, 1]


@pytest.mark.parametrize('written,read', [(KEY, b'wrong'), (KEY, None), (None, KEY),
                                          (KEY, KEY + b'k'), (KEY, KEY[:-1])])
def test_another_key_or_none_is_an_error_and_nothing_is_run(store, written, read):
    one = store.manager([Witness('secret')], key=written)
    content = store.backend().read()
    del RAN[:]
    two = store.manager(key=read)
    for use in (lambda: two.read(), lambda: two.read(None), lambda: two.refresh(),
                lambda: two.snapshot()):
        with pytest.raises(tosc.DataError):
            use()
    assert RAN == []
    assert tuple(map(bytes_of, store.backend().read())) == tuple(map(bytes_of, content))
    assert one.refresh()[0].name == 'secret'


def bytes_of(value):
    return value if isinstance(value, int) else bytes(value)


def test_with_the_wrong_key_nothing_is_changed(store):
    one = store.manager({'n': 0}, key=KEY)
    two = store.manager(key=b'wrong')
    with pytest.raises(tosc.DataError):
        two.try_write([1], one.version)
    assert one.refresh() == {'n': 0}
    one.read()['n'] = 1
    assert one.refresh() == {'n': 1}


def test_records_appended_without_the_key_are_refused(file_store):
    """An attacker who may write to the file cannot add a commit of his own."""
    manager = file_store.manager({'n': 0}, key=KEY)
    inner = manager.read()
    size = os.path.getsize(file_store.path)
    content = open(file_store.path, 'rb').read()
    other = make_store(file_store.kind)
    try:
        forger = other.manager({'n': 0})
        forger.read()['n'] = Witness('forged')
        forged = open(other.path, 'rb').read()
    finally:
        drop_store(other)
    del RAN[:]
    for extra in (forged, forged[len(forged) // 2:], forged[100:]):
        with open(file_store.path, 'wb') as file:
            file.write(content[:size] + extra)
        with tosc.Manager(file_store.backend(), key=KEY) as fresh:
            try:
                assert fresh.read() == {'n': 0}
            except tosc.DataError:
                pass
    with open(file_store.path, 'wb') as file:
        file.write(forged)
    with tosc.Manager(file_store.backend(), key=KEY) as fresh:
        with pytest.raises(tosc.DataError):
            fresh.read()
    assert RAN == []
    assert inner == {'n': 0} or inner == {}


def test_every_byte_is_authenticated():
    """Whatever is flipped in the stored bytes: the true state or an error, never another."""
    backend = PyBackend()
    with tosc.Manager(backend, key=KEY) as manager:
        manager.write({'amount': 1000, 'to': 'alice'})
        manager.read()['amount'] = 2000
        manager.read()['to'] = 'bob'
    content = backend.box.data
    silent = 0
    for offset in range(len(content)):
        for flip in (0x01, 0x10):
            damaged = bytearray(content)
            damaged[offset] ^= flip
            backend.box.data = bytes(damaged)
            with tosc.Manager(backend, key=KEY) as manager:
                try:
                    assert manager.snapshot() == {'amount': 2000, 'to': 'bob'}
                    silent += 1
                except tosc.DataError:
                    pass
    assert silent <= 32


def test_the_key_is_not_stored_and_not_shown(file_store):
    key = b'very-secret-key-material'
    manager = file_store.manager([1], key=key)
    manager.read().append(2)
    assert key not in open(file_store.path, 'rb').read()
    assert 'very-secret' not in repr(manager)
    assert 'very-secret' not in str(vars(manager) if hasattr(manager, '__dict__') else '')


def test_a_key_between_processes(shared_store):
    manager = shared_store.manager({'n': 0}, key=KEY)
    run_child('''
        manager = tosc.Manager(open_store(sys.argv[1]), key=b'k' * 32)
        manager.read()['n'] += 1
        try:
            tosc.Manager(open_store(sys.argv[1]), key=b'other').read()
        except tosc.DataError as error:
            assert sys.argv[1] in str(error) or 'key' in str(error), error
        else:
            raise AssertionError('another key was accepted')
    ''', shared_store.path)
    assert manager.refresh() == {'n': 1}


def test_the_watcher_of_a_manager_with_the_key_ignores_no_forgery():
    backend = PyBackend()
    with tosc.Manager(backend, key=KEY) as manager:
        manager.write([0])
        root = manager.read()
        forged = PyBackend()
        with tosc.Manager(forged) as forger:
            forger.write([Witness('forged')])
        del RAN[:]
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            backend.write(forged.box.data)
            with pytest.raises(tosc.DataError):
                manager.refresh()
        assert root == [0]
        assert RAN == []


# ---- allowed classes ----

def test_plain_data_need_no_allowance(store):
    value = {'l': [1, {2}, (3, b'4')], 'b': bytearray(b'x'), 'n': None, 'f': frozenset({1}),
             'c': 1j, 't': True, 'd': 1.5}
    store.manager(value)
    two = store.manager(allowed_classes=[])
    assert two.read() == value
    two.read()['l'].append([5])
    assert store.manager(allowed_classes=()).read()['l'][-1] == [5]


def test_inert_types_of_the_library_need_no_allowance(store):
    value = [collections.OrderedDict(a=1), collections.deque([1]), collections.Counter('a'),
             datetime.date(2024, 1, 2), uuid.UUID(int=5), pathlib.PurePosixPath('/x'),
             decimal.Decimal('1.5')]
    store.manager(value)
    assert store.manager(allowed_classes=[]).snapshot() == value


@pytest.mark.parametrize('value,name', [
    (Witness('x'), 'Witness'), (Other(1), 'Other'), (Fancy(a=1), 'Fancy'),
    (os.system, 'system'), (Other, 'Other'), (Named(1), 'Named'), (Colour.RED, 'Colour'),
    (types.SimpleNamespace(a=1), 'SimpleNamespace'), ([{'deep': (Witness('x'),)}], 'Witness')])
def test_other_classes_are_refused_and_named(store, value, name):
    one = store.manager({'x': value})
    del RAN[:]
    for allowed in ([], [int, 'builtins.list'], ['no.such']):
        two = store.manager(allowed_classes=allowed)
        for use in (two.read, two.snapshot, two.refresh):
            with pytest.raises((tosc.DataError, tosc.SerializationError)) as caught:
                use()
            assert name in str(caught.value), caught.value
    assert RAN == [], 'nothing is run'
    one.refresh()


@pytest.mark.parametrize('value,name', [
    (collections.defaultdict(Witness), 'Witness'), (collections.deque([Witness('x')]), 'Witness'),
    (collections.OrderedDict(a=Witness), 'Witness')])
def test_classes_inside_of_allowed_ones_are_refused_when_they_are_needed(store, value, name):
    store.manager({'x': value})
    del RAN[:]
    two = store.manager(allowed_classes=[])
    for use in (two.snapshot, lambda: list(two.read()['x']), lambda: repr(two.read()['x']),
                lambda: list(two.refresh()['x'])):
        with pytest.raises((tosc.DataError, tosc.SerializationError), match=name):
            use()
    assert RAN == []


def test_an_allowed_enumeration_is_loaded(store):
    store.manager({'x': Colour.RED})
    assert store.manager(allowed_classes=[Colour]).read() == {'x': Colour.RED}


@pytest.mark.parametrize('allowed', [
    [Other, Witness], {Other, Witness}, (c for c in [Other, Witness]),
    [f'{__name__}.Other', f'{__name__}.Witness'], [Other, f'{__name__}.Witness']])
def test_allowed_classes_are_loaded(inproc_store, allowed):
    one = inproc_store.manager([Other(1)])
    two = inproc_store.manager(allowed_classes=allowed)
    assert isinstance(two.read()[0], Other)
    two.read()[0].x = 2
    one.refresh().append(Witness('y'))
    assert two.refresh()[1].name == 'y'
    one.read()[0].x = [Fancy()]
    with pytest.raises((tosc.DataError, tosc.SerializationError), match='Fancy'):
        two.refresh()


def test_functions_that_pickles_call_are_not_found_without_allowance(store, tmp_path):
    crater = str(tmp_path / 'crater')

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (crater,))

    globals()['Bomb'] = Bomb
    Bomb.__qualname__ = 'Bomb'
    one = store.manager({})
    try:
        one.read()['x'] = [Bomb()]
    except (TypeError, OSError):
        pytest.skip('it is not even stored')
    if os.path.isdir(crater):
        os.rmdir(crater)
    two = store.manager(allowed_classes=[Other])
    with pytest.raises((tosc.DataError, tosc.SerializationError)):
        two.read()
    assert not os.path.exists(crater)


@pytest.mark.parametrize('name', ['eval', 'exec', 'getattr', '__import__', 'open'])
def test_dangerous_builtins_are_not_allowed_by_default(inproc_store, name):
    import builtins
    inproc_store.manager([getattr(builtins, name)])
    two = inproc_store.manager(allowed_classes=[])
    with pytest.raises((tosc.DataError, tosc.SerializationError)):
        two.read()


def test_a_class_that_arrives_later_is_refused_and_what_is_held_stays(store):
    one = store.manager({'a': [1]})
    two = store.manager(allowed_classes=[])
    data = two.read()
    one.read()['x'] = Other(1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises((tosc.DataError, tosc.SerializationError), match='Other'):
            two.refresh()
        assert data == {'a': [1]}
        del one.read()['x']
        one.read()['a'].append(2)
        wait_until(lambda: _quiet_refresh(two) == {'a': [1, 2]})
    assert two.read()['a'] is data['a']


def _quiet_refresh(manager):
    try:
        return manager.refresh()
    except tosc.Error:
        return None


def test_key_and_classes_together(store):
    store.manager([Other(1)], key=KEY)
    with pytest.raises((tosc.DataError, tosc.SerializationError), match='Other'):
        store.manager(key=KEY, allowed_classes=[]).read()
    assert store.manager(key=KEY, allowed_classes=[Other]).read()[0].x == 1
