"""Records hold every value exactly, and refuse everything that is not a record."""
# SPDX-License-Identifier: Apache-2.0
import collections
import datetime
import decimal
import math
import pickle
import random
import resource
import sys
import uuid

import pytest

import fuzz
import links
import tosc

VALUES = [
    0, 1, -1, 255, 256, 65535, 65536, -255, -256, 2 ** 31 - 1, 2 ** 31, -2 ** 31, -2 ** 31 - 1,
    2 ** 63 - 1, 2 ** 63, -2 ** 63, -2 ** 63 - 1, 2 ** 64, 10 ** 400, -10 ** 4000,
    0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324, 1.7976931348623157e308,
    '', 'a', 'é', '\U0001f600', '\ud800', 'x\udfff', '\0', 'x' * 255, 'x' * 256, 'ü' * 128,
    'ascii' * 20000, 'é' * 70000, b'', b'\0', b'y' * 255, b'z' * 256, b'w' * 70000,
    None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((), ())),
    ((1, 2, 3, 4), (5,), [6], {'k': (7, {8})}), Ellipsis, NotImplemented, 3 + 4j, range(3),
    frozenset(), frozenset({1, (2, 3)}), decimal.Decimal('1.50'), uuid.UUID(int=5),
    datetime.datetime(2020, 2, 3, 4, 5, 6, 7), [], {}, set(), bytearray(), bytearray(b'\0\xff'),
    [[]], {'': {}}, {1: [()]}, {(): set()},
]


def exact(value):
    """repr tells 0.0 from -0.0 and True from 1; sets are sorted."""
    if isinstance(value, (set, frozenset)):
        return f'{type(value).__name__}{sorted(map(exact, value))}'
    if isinstance(value, (list, tuple)):
        return f'{type(value).__name__}{list(map(exact, value))}'
    if isinstance(value, dict):
        return f'dict{[(exact(k), exact(v)) for k, v in value.items()]}'
    return f'{type(value).__name__} {value!a}' if not isinstance(value, int) or abs(value) < 2 ** 70 \
        else f'int {value:x}'


@pytest.fixture
def pair():
    backend = tosc.InprocBackend()
    with tosc.Manager(backend) as one, tosc.Manager(backend) as two:
        yield one, two


def hashable(value):
    try:
        hash(value)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize('value', VALUES, ids=lambda v: ascii(v)[:30] if not isinstance(v, int) else hex(v)[:30])
def test_a_value_comes_back_exactly(pair, value):
    one, two = pair
    one.write({'base': value, 'list': []})
    assert exact(two.snapshot()['base']) == exact(value)
    one.read()['list'].append(value)
    one.read()['commit'] = value
    if hashable(value):
        one.read()[value] = 'as a key'
        one.read()['set'] = {value}
        one.read()['set'].add((value, 1))
    two.refresh()
    assert exact(two.snapshot()) == exact(one.snapshot())
    assert exact(two.snapshot()['commit']) == exact(value)
    with tosc.Manager(one.backend) as fresh:
        assert exact(fresh.snapshot()) == exact(one.snapshot())


def test_equal_keys_of_different_types_stay_what_they_were(pair):
    one, two = pair
    one.write({1: 'int', 'f': {1.0: 'float'}, 'b': {True: 'bool'}, 's': {True, 2.0}, 'z': {-0.0: 1}})
    root = one.read()
    root[True] = 'still int'
    root['b'][1] = 'still bool'
    root['s'].add(1)
    root['s'].add(2)
    two.refresh()
    assert exact(two.snapshot()) == exact(one.snapshot())
    assert exact(two.snapshot()['b']) == exact({True: 'still bool'})


def test_a_nan_is_one_key_after_another(pair):
    one, two = pair
    one.write({})
    one.read()[math.nan] = 1
    one.read()[float('nan')] = 2
    two.refresh()
    assert list(two.read().values()) == [1, 2] and all(map(math.isnan, two.read()))


@pytest.mark.parametrize('size', [999, 1000, 1001, 2000, 70000])
def test_containers_of_any_size_come_back(pair, size):
    one, two = pair
    value = {'l': list(range(size)), 'd': {i: str(i) for i in range(size)},
             's': set(range(size)), 't': tuple(range(size)), 'b': bytearray(size),
             'x': [(i, 'text') for i in range(size)]}
    one.write(value)
    assert two.snapshot() == value
    one.read()['l'].extend(value['l'])
    one.read()['more'] = value['d']
    two.refresh()
    assert two.snapshot() == one.snapshot()


def test_tuples_may_be_nested_deeply(pair):
    one, two = pair
    value = ()
    for _ in range(50000):
        value = (value, 1)
    one.write([value])
    two.refresh()
    depth, found = 0, two.read()[0]
    while found:
        found, depth = found[0], depth + 1
    assert depth == 50000


def test_a_key_of_many_colours_is_taken_out_again(pair):
    """Keys that hold wrappers, deleted by an equal key that is another object."""
    one, two = pair
    one.write({})
    root = one.read()
    key = fuzz.Key('k')
    root[(key, 1)] = {'v': 1}
    two.refresh()
    assert len(two.read()) == 1
    del two.read()[(fuzz.Key('k'), 1)]
    one.refresh()
    assert len(root) == 0
    links.check(one)
    links.check(two)


def test_every_record_is_pickle_that_the_pickle_module_reads():
    class Reader(pickle.Unpickler):
        def persistent_load(self, pid):
            return ('ref', pid)

    import io
    for data in fuzz.samples():
        for record in fuzz.records(data):
            at = 32
            numbers = []

            def number():
                nonlocal at
                value = shift = 0
                while True:
                    byte = record[at]
                    at += 1
                    value |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        return value

            numbers = [number(), number()]
            for _ in range(number()):
                number()
            assert numbers[0] >= 2
            for _ in range(number()):
                extras, main = number(), number()
                if extras:
                    assert isinstance(Reader(io.BytesIO(record[at:at + extras])).load(), list)
                at += extras
                items = Reader(io.BytesIO(record[at:at + main])).load()
                assert isinstance(items, list) and items[1][0] == 'ref'
                at += main
            assert at == len(record)


# ---- damage ----

def test_damage_is_refused_or_read_as_a_state():
    r = random.Random(3)
    corpus = fuzz.samples()
    for _ in range(600):
        fuzz.attempt(fuzz.mutate(r, corpus))
    for _ in range(60):
        fuzz.follow(r, corpus)


def record(body, letter=b'B'):
    return b'TSC1' + letter + b'\0\0\0' + len(body).to_bytes(8, 'little') + bytes(16) + body


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def segment(main, extras=b'', counter=5, gone=()):
    main = b'\x80\x05\x95' + len(main).to_bytes(8, 'little') + main
    return (varint(counter) + b'\0' + varint(len(gone)) + b''.join(map(varint, gone)) + b'\x01'
            + varint(len(extras)) + varint(len(main)) + extras + main)


CELL = b'K\x08K\x08Q](K\x11Qe'  # DEFINE the cell: [oid 2, a dict]
DICT = b'K\x08K\x11Q}(u'
HUGE = (2 ** 40).to_bytes(8, 'little')


def raw(*bodies):
    return b''.join(record(body, b'BC'[bool(i):][:1]) for i, body in enumerate(bodies))


def test_a_record_made_by_hand_is_read():
    backend = tosc.InprocBackend()
    backend.write(raw(segment(b'](' + CELL + DICT + b'e.')))
    with tosc.Manager(backend) as manager:
        assert manager.snapshot() == {}
        manager.read()['k'] = 1
        links.check(manager)


@pytest.mark.parametrize('bodies', [
    pytest.param([b'\xff' * 9 + b'\x01'], id='a counter of 64 bits'),
    pytest.param([segment(b'](' + CELL + b'e.')], id='an object that is not stored'),
    pytest.param([segment(b'](' + CELL + DICT + DICT + b'e.')], id='an object defined twice'),
    pytest.param([segment(b'](' + CELL + DICT + b'e.', counter=2)], id='an oid beyond the counter'),
    pytest.param([segment(b'](' + CELL + DICT + b'e.'), segment(b'](e.', counter=4)],
                 id='a counter that goes back'),
    pytest.param([segment(b'](' + CELL + DICT + b'e.'), segment(b'](e.', gone=[1])],
                 id='the root is garbage'),
    pytest.param([segment(b'](' + CELL + DICT + b'e.'), segment(b'](e.', gone=[2])],
                 id='garbage that is in use'),
    pytest.param([segment(b'](' + CELL + DICT + b'e.'), segment(b'](K\x02K\x11QK\x07e.')],
                 id='a key that is not there'),
    pytest.param([segment(b'](' + CELL + DICT + b'e.'), segment(b'](K\x01K\x11QK\x08QK\x07e.')],
                 id='a key that cannot be hashed'),
    pytest.param([segment(b'](' + CELL + b'K\x08K\x11Q}(K\x08QK\x01ue.')], id='the same in a state'),
    pytest.param([segment(b'](' + CELL + b'K\x08K\x10Q](ee.')], id='an object of two kinds'),
    pytest.param([segment(b'](' + CELL + DICT + b'K\x08K\x00Q](ee.')], id='oid 0'),
    pytest.param([segment(b'](K\x08K\x08Q](](ee' + b'e.')], id='a list in a list'),
    pytest.param([segment(b'](' + CELL + DICT + b'e')], id='no end'),
    pytest.param([segment(b'](' + CELL + DICT + b'e..')], id='two ends'),
    pytest.param([segment(b'](' + CELL + b'K\x08K\x13Q\x96' + HUGE + b'e.')], id='a huge bytearray'),
    pytest.param([segment(b'](' + CELL + b'K\x08K\x11Q}(\x8e' + HUGE + b'K\x01ue.')], id='huge bytes'),
    pytest.param([segment(b'](e.', b'\x80\x05]\x94(\x8e' + HUGE + b'e.')], id='huge extra bytes'),
    pytest.param([segment(b'](e.', b'\x80\x05]\x94(\x96' + HUGE + b'e.')], id='a huge extra array'),
    pytest.param([segment(b'](e.', b'\x80\x05]r\xff\xff\xff\x7f.')], id='a memo of gigabytes'),
    pytest.param([segment(b'](e.', b'\x80\x05]p999999999\n.')], id='the same as text'),
    pytest.param([segment(b'](h\x07e.')], id='a string that was not memoized'),
    pytest.param([segment(b'](\x85e.')], id='a tuple of nothing'),
    pytest.param([segment(b'](cos\nsystem\n)Re.')], id='a function'),
    pytest.param([segment(b'](\x8c\x02os\x8c\x06system\x93e.')], id='a function by the stack'),
])
def test_a_forged_record_is_refused_without_being_believed(bodies):
    backend = tosc.InprocBackend()
    backend.write(raw(*bodies))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tosc.Manager(backend) as manager:
        with pytest.raises(tosc.DataError):
            manager.read()
    if 'TOSC_SANITIZED' not in fuzz.os.environ:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_what_was_there_before_the_damage_can_be_read_again():
    backend = tosc.InprocBackend()
    with tosc.Manager(backend) as manager:
        manager.write({'a': [1]})
        good = bytes(backend.read()[1])
        root = manager.read()
        backend.write(good + record(segment(b'](K\x02K\x11QK\x07e.'), b'C'))
        with pytest.raises(tosc.DataError):
            manager.refresh()
        backend.write(good)
        assert manager.refresh() is root and root == {'a': [1]}
        root['a'].append(2)
        links.check(manager)


# ---- reading again what is known ----

def test_a_state_that_is_read_again_keeps_its_objects(pair):
    one, two = pair
    one.write({'a': {}})
    one.read()['b'] = {'x': [1]}
    one.read()['b']['y'] = {}
    root = two.refresh()
    x, y = root['b']['x'], root['b']['y']
    one.backend.write(bytes(one.backend.read()[1]))
    assert two.refresh() is root and root['b']['x'] is x and root['b']['y'] is y
    assert two.is_linked(x) and two.is_linked(y)
    y['k'] = 1
    one.refresh()
    assert one.read() == {'a': {}, 'b': {'x': [1], 'y': {'k': 1}}}
    links.check(one)
    links.check(two)
    assert links.dump(one) == links.dump(two)


def test_another_history_in_the_same_place_is_taken_as_it_is(pair):
    """Oids of the two stores stand for objects of other kinds and classes."""
    one, two = pair
    one.write({'a': [1], 'b': fuzz.Thing(n=1), 'c': {1}, 'd': collections.deque([1])})
    two.read()
    with tosc.Manager(tosc.InprocBackend()) as other:
        other.write([fuzz.Key('x'), {'y': 1}, [2], fuzz.Thing(m=2)])
        one.backend.write(bytes(other.backend.read()[1]))
        for manager in (one, two):
            found = manager.refresh()
            assert found[1:3] == [{'y': 1}, [2]] and found[0].name == 'x' and found[3].m == 2
            assert type(found[0].__class__) is type and found[0].__class__ is fuzz.Key
            links.check(manager)
        one.read().append(3)
        assert two.refresh()[-1] == 3


# ---- authentication ----

def test_a_chain_goes_on_over_compaction_and_reload(tmp_path):
    path = str(tmp_path / 'store')
    with tosc.Manager(tosc.FileBackend(path, durable=False), key=b'secret') as one:
        one.write({'n': 0, 'text': 'x' * 2000})
        root = one.read()
        for n in range(400):
            root['n'] = n
            root['text'] = 'y' * (2000 + n)
            if n % 100 == 0:
                with tosc.Manager(tosc.FileBackend(path), key=b'secret') as other:
                    assert other.read()['n'] == n
                    other.read()['other'] = n
                    one.refresh()
        with tosc.Manager(tosc.FileBackend(path), key=b'secret') as other:
            assert other.snapshot() == one.snapshot()


def test_no_change_to_an_authenticated_store_goes_unnoticed():
    r = random.Random(1)
    corpus = fuzz.samples(key=b'secret')
    sizes = {data: [len(data)] for data in corpus}
    for data in corpus:
        at = 0
        while at < len(data):  # bases carry 64 bytes more, commits 32
            at += 32 + (64 if data[at + 4:at + 5] == b'B' else 32) + int.from_bytes(data[at + 8:at + 16], 'little')
            sizes[data].append(at)
    for _ in range(300):
        data = r.choice(corpus)
        damaged = bytearray(data)
        damaged[r.randrange(len(data))] ^= 1 << r.randrange(8)
        backend = tosc.InprocBackend()
        backend.write(bytes(damaged))
        with tosc.Manager(backend, key=b'secret') as manager, pytest.raises(tosc.DataError):
            manager.read()


def test_loading_leaves_nothing_behind():
    data = fuzz.samples()[1]
    r = random.Random(9)
    damaged = [fuzz.mutate(r, [data]) for _ in range(100)]

    def once():
        for bad in damaged:
            fuzz.attempt(bad, with_use=False)

    once()
    import gc
    gc.collect()
    before = len(gc.get_objects()), sys.getallocatedblocks()
    for _ in range(3):
        once()
    gc.collect()
    after = len(gc.get_objects()), sys.getallocatedblocks()
    assert after[0] - before[0] < 50 and after[1] - before[1] < 500, (before, after)
