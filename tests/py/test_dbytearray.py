"""DByteArray beside bytearray: the same results, errors and contents, wherever it lives."""
# SPDX-License-Identifier: Apache-2.0
import array
import base64
import collections.abc
import copy
import gc
import hashlib
import inspect
import io
import itertools
import operator
import pickle
import re
import struct
import sys
import weakref
import zlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import tosc
from harness import SCALE, in_thread, run_child
from sequences import (ITSELF, OUT_OF_MEMORY, PLACES, BadIndex, Holder, Index, Raised, assert_no_growth,
                       broken_iterable, compare, missing_attributes, place, run, same)
from tosc import DByteArray

VALUES = [
    bytearray,
    lambda: bytearray(b'a'),
    lambda: bytearray(b'Hello, World\n'),
    lambda: bytearray(b' 12,ab,\x00\xff\t '),
    lambda: bytearray(range(60)),
]

INDICES = [0, 1, 2, 11, 12, 59, 60, -1, -2, -13, -14, 100, -100, True, 2**70, -2**70,
           Index(1), Index(-1), Index('x'), BadIndex(), 1.0, None, 'a', (0,)]
BYTES = [0, 65, 255, 256, -1, 2**70, True, Index(66), Index(300), Index('x'), BadIndex(), 1.0,
         None, 'a', b'a', b'', [65]]

BOUNDS = [None, 0, 1, 3, 100, -1, -2, -100]
STEPS = [None, 1, 2, 3, 20, -1, -2, 0]
SLICES = [slice(*bounds) for bounds in itertools.product(BOUNDS, BOUNDS, STEPS)]
SLICES += [slice(Index(1), Index(-1)), slice(2**70, -2**70, -2**70), slice('a'),
           slice(None, 1.5), slice(BadIndex(), None), slice(1, None, BadIndex())]

SOURCES = {
    'empty': lambda b: b'',
    'bytes': lambda b: b'xy',
    'bytearray': lambda b: bytearray(b'xyz'),
    'memoryview': lambda b: memoryview(b'mem'),
    'strided': lambda b: memoryview(b'strided')[::2],
    'array': lambda b: array.array('h', [1, -1]),
    'wrapper': lambda b: DByteArray(b'wrapped'),
    'itself': lambda b: b,
    'ints': lambda b: [65, 66, Index(67)],
    'tuple': lambda b: (1, 2),
    'list wrapper': lambda b: tosc.DList([70, 71]),
    'generator': lambda b: (n for n in range(4)),
    'range': lambda b: range(20),
    'nothing': lambda b: [],
    'too large': lambda b: [1, 256],
    'negative': lambda b: iter([-1]),
    'texts': lambda b: ['a'],
    'text': lambda b: 'text',
    'number': lambda b: 5,
    'float': lambda b: 5.0,
    'none': lambda b: None,
    'holder': lambda b: Holder(),
}


@pytest.fixture(name='here', params=PLACES)
def fixture_here(request):
    with place(request.param) as here:
        yield here


def call(name, *args, **kwargs):
    return lambda b: getattr(b, name)(*args, **kwargs)


def titled(*pairs):
    return {f'{number} {title}': function for number, (title, function) in enumerate(pairs)}


# ---- parity ----

def test_reading_an_element_or_a_slice(here):
    compare(here, DByteArray, VALUES, titled(*[
        (f'[{key!r}]', lambda b, key=key: b[key]) for key in INDICES + SLICES]))


def test_setting_and_deleting_an_element(here):
    compare(here, DByteArray, VALUES, titled(
        *[(f'[{key!r}] = {value!r}', lambda b, key=key, value=value: operator.setitem(b, key, value))
          for key in INDICES for value in (65, 256)],
        *[(f'[1] = {value!r}', lambda b, value=value: operator.setitem(b, 1, value))
          for value in BYTES],
        *[(f'del [{key!r}]', lambda b, key=key: operator.delitem(b, key)) for key in INDICES]))


def test_deleting_a_slice(here):
    compare(here, DByteArray, VALUES, titled(*[
        (f'del [{key!r}]', lambda b, key=key: operator.delitem(b, key)) for key in SLICES]))


def test_setting_a_slice(here):
    chosen = SLICES[::7] + SLICES[-6:]
    compare(here, DByteArray, VALUES, titled(*[
        (f'[{key!r}] = {title}',
         lambda b, key=key, make=make: operator.setitem(b, key, make(b)))
        for key in chosen for title, make in SOURCES.items()]))


def test_setting_an_extended_slice_of_the_right_size(here):
    def fill(b, key):
        b[key] = bytes(range(len(range(len(b))[key])))
    keys = [key for key in SLICES if key.step not in (None, 0)
            and all(isinstance(n, (int, type(None))) for n in (key.start, key.stop, key.step))]
    compare(here, DByteArray, VALUES, titled(*[
        (f'[{key!r}] = as many', lambda b, key=key: fill(b, key)) for key in keys]))


def test_growing_and_shrinking(here):
    def iadd(make):
        def operation(b):
            before = b
            b += make(b)
            assert b is before
            return b
        return operation

    def imul(count):
        def operation(b):
            b *= count
            return b
        return operation
    compare(here, DByteArray, VALUES, titled(
        *[(f'extend({title})', lambda b, make=make: b.extend(make(b)))
          for title, make in SOURCES.items()],
        *[(f'+= {title}', iadd(make)) for title, make in SOURCES.items() if title != 'itself'],
        *[(f'*= {count!r}', imul(count)) for count in (-1, 0, 1, 3, True, Index(2), 1.5, None, 'a')],
        *[(f'append({value!r})', call('append', value)) for value in BYTES],
        *[(f'insert(1, {value!r})', call('insert', 1, value)) for value in BYTES],
        *[(f'insert({key!r})', call('insert', key, 65)) for key in INDICES],
        *[(f'pop({key!r})', call('pop', key)) for key in INDICES],
        *[(f'remove({value!r})', call('remove', value)) for value in BYTES],
        ('pop()', call('pop')), ('pop(1, 2)', call('pop', 1, 2)), ('insert(1)', call('insert', 1)),
        ('append()', call('append')), ('remove(1, 2)', call('remove', 1, 2)),
        ('remove(10)', call('remove', 10)), ('remove(44)', call('remove', 44)),
        ('clear()', call('clear')), ('clear(1)', call('clear', 1)),
        ('reverse()', call('reverse')), ('reverse(1)', call('reverse', 1)),
        ('all popped', lambda b: [b.pop(0) for _ in range(len(b))])))


ARGUMENTS = {
    'find': [(b'l',), (b'lo', 4), (108,), (b'', 5), (b'l', -3, -1), (DByteArray(b'l'),), ('l',),
             (300,), (), (b'l', None, 4), (b'l', Index(2)), (b'l', 'a'), (1, 2, 3, 4)],
    'startswith': [(b'H',), ((b'x', b'Hel'),), (b'e', 1), (DByteArray(b'Hell'),),
                   ((DByteArray(b'H'),),), ('H',), (), (b'', 50), (5,)],
    'join': [([b'a', bytearray(b'b')],), ([],), ((DByteArray(b'q'), b'r'),), (['a'],), (5,), (),
             (tosc.DList([b'x', b'y']),)],
    'split': [(), (b',',), (b',', 1), (None, 1), (DByteArray(b','),), (b'',), ('a',), (5,)],
    'strip': [(), (b' \nH',), (None,), (DByteArray(b'H\n'),), ('a',), (5,), (1, 2)],
    'partition': [(b',',), (b'zzz',), (b'',), (DByteArray(b','),), (',',), (), ([44],)],
    'center': [(20,), (20, b'*'), (2,), (20, bytearray(b'-')), (20, b'**'), (20, '*'), ('a',), ()],
    'replace': [(b'l', b'LL'), (b'l', b'', 1), (DByteArray(b'l'), DByteArray(b'')), (b'', b'-'),
                ('l', b''), (b'l',), (b'l', b'', 'a')],
    'translate': [(bytes(range(256)),), (None, b'l'), (DByteArray(bytes(255 - n for n in range(256))),),
                  (b'short',), (5,), ()],
    'removeprefix': [(b'He',), (b'x',), (DByteArray(b'H'),), ('H',), ()],
    'nothing': [(), (1,)],
    'hex': [(), (':',), (b'-', 2), (':', -3), ('::',), (5,)],
    'decode': [(), ('latin-1',), ('ascii', 'replace'), ('utf-8', 'nonsense'), ('no-such-codec',), (5,)],
    'expandtabs': [(), (4,), (0,), ('a',)],
    'splitlines': [(), (True,), (0,), (1, 2)],
    'zfill': [(20,), (1,), ('a',), ()],
}
LIKE = {'rfind': 'find', 'index': 'find', 'rindex': 'find', 'count': 'find',
        'endswith': 'startswith', 'rsplit': 'split', 'lstrip': 'strip', 'rstrip': 'strip',
        'rpartition': 'partition', 'ljust': 'center', 'rjust': 'center', 'removesuffix': 'removeprefix'}
KEYWORDS = [('split', {'sep': b',', 'maxsplit': 1}), ('rsplit', {'maxsplit': 1}),
            ('splitlines', {'keepends': True}), ('decode', {'encoding': 'latin-1', 'errors': 'strict'}),
            ('hex', {'sep': ':', 'bytes_per_sep': 2}), ('expandtabs', {'tabsize': 2}),
            ('find', {'sub': b'a'}), ('upper', {'x': 1}), ('split', {'separator': 1}),
            ('translate', {'table': None, 'delete': b'a'}), ('join', {'iterable_of_bytes': []}),
            ('extend', {'x': 1}), ('pop', {'index': 1}), ('insert', {'index': 1, 'item': 2})]


def test_each_method_that_only_reads(here):
    changing = {'append', 'clear', 'extend', 'insert', 'pop', 'remove', 'reverse'}
    names = [name for name in dir(bytearray) if not name.startswith('_')
             and name not in changing | {'fromhex', 'maketrans'}]
    assert len(names) > 40
    compare(here, DByteArray, VALUES, titled(
        *[(f'{name}{arguments!r}', call(name, *arguments)) for name in names
          for arguments in ARGUMENTS[LIKE.get(name, name if name in ARGUMENTS else 'nothing')]],
        *[(f'{name}{arguments!r}', call(name, *arguments)) for name in changing
          for arguments in ((), (1, 2, 3), ('a', 'b'))]))
    compare(here, DByteArray, VALUES, titled(*[
        (f'{name}(**{keywords!r})', call(name, **keywords)) for name, keywords in KEYWORDS]),
        messages=False)


def test_it_may_be_added_to_itself_and_be_a_fill_character(here):
    with here.transaction():
        b = here.make(DByteArray, bytearray(b'ab'))
        b += b  # a bytearray refuses this
        assert b == b'abab'
        assert b.center(6, DByteArray(b'-')) == b'-abab-'
        assert type(b.ljust(6, DByteArray(b'-'))) is bytearray


def test_whole(here):
    compare(here, DByteArray, VALUES, titled(
        ('copy.copy', copy.copy), ('copy.deepcopy', copy.deepcopy),
        ('pickle', lambda b: pickle.loads(pickle.dumps(b))),
        ('len', len), ('bool', bool), ('repr', repr), ('str', str), ('format', format),
        ('bytes', bytes), ('bytearray', bytearray), ('list', list), ('iter', iter),
        ('reversed', lambda b: list(reversed(b))), ('sorted', sorted), ('hash', hash),
        ('sum', sum), ('max', max), ('decode', lambda b: str(b, 'latin-1')),
        ('int', int), ('float', float), ('from_bytes', lambda b: int.from_bytes(b, 'little')),
        ('tobytes', lambda b: memoryview(b).tobytes()), ('attribute', lambda b: setattr(b, 'x', 1)),
        ('minus', lambda b: b - b'a'), ('alloc', lambda b: b.__alloc__() >= len(b)),
        ('alloc(1)', lambda b: b.__alloc__(1)),
        ('init', lambda b: b.__init__(b'new')), ('init nothing', lambda b: b.__init__()),
        ('init itself', lambda b: b.__init__(b)), ('init size', lambda b: b.__init__(3)),
        ('init text', lambda b: b.__init__('ä', 'utf-8')),
        ('init keywords', lambda b: b.__init__(source='ä', encoding='latin-1', errors='strict')),
        ('contains', lambda b: [65 in b, b'l' in b, DByteArray(b'o') in b, bytearray() in b]),
        *[(f'{value!r} in', lambda b, value=value: value in b) for value in BYTES],
        *[(f'count({value!r})', call('count', value)) for value in BYTES]))


def test_sums_products_and_formats(here):
    others = [b'', b'xy', bytearray(b'z'), memoryview(b'm'), DByteArray(b'w'), array.array('b', [1]),
              'text', None, 5, [65]]
    compare(here, DByteArray, VALUES, titled(
        *[(f'+ {other!r}', lambda b, other=other: b + other) for other in others],
        *[(f'{other!r} +', lambda b, other=other: other + b) for other in others
          if type(other) not in (DByteArray, array.array)],
        ('+ itself', lambda b: b + b), ('concat', lambda b: operator.concat(b, b'x')),
        *[(f'* {count!r}', lambda b, count=count: b * count) for count in (-1, 0, 1, 3, 1.5, 'a')],
        *[(f'{count!r} *', lambda b, count=count: count * b) for count in (-1, 0, 1, 3, 1.5, 'a')],
        ('bytes %', lambda b: b'<%s %b>' % (b, b)), ('text %', lambda b: '%s' % (b,)),
        ('bytes % itself', lambda b: b'<%s>' % b), ('number %', lambda b: 5 % b)), messages=False)
    formats = [lambda: bytearray(b'%d %s'), lambda: bytearray(b'%b'), lambda: bytearray(b'%'),
               lambda: bytearray(b'none')]

    def imod(values):
        def operation(b):
            b %= values
            return b
        return operation
    arguments = [(1, b'x'), (1, DByteArray(b'w')), b'x', DByteArray(b'w'), (), {}, ('a', 'b'), 5]
    compare(here, DByteArray, formats, titled(
        *[(f'% {values!r}', lambda b, values=values: b % values) for values in arguments],
        *[(f'%= {values!r}', imod(values)) for values in arguments if values != ()]))


COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


def test_comparing_in_both_orders(here):
    class Odd:
        def __eq__(self, other):
            return type(other).__name__.removeprefix('D')[-9:].lower()
        __hash__ = None

    class OddArray(bytearray):
        def __eq__(self, other):
            return 'odd'
        __hash__ = None
    others = [b'', b'a', bytearray(b'Hello, World\n'), memoryview(b'a'), array.array('B', [97]),
              bytearray(range(60)), b'b', 'a', None, 97, [97], Odd(), OddArray(b'a')]
    compare(here, DByteArray, VALUES, titled(
        *[(f'{compare_.__name__} {other!r}',
           lambda b, compare_=compare_, other=other: compare_(b, other))
          for compare_ in COMPARISONS for other in others],
        *[(f'{other!r} {compare_.__name__}',
           lambda b, compare_=compare_, other=other: compare_(other, b))
          for compare_ in COMPARISONS for other in others],
        *[(f'{compare_.__name__} wrapped {other!r}',
           lambda b, compare_=compare_, other=other: compare_(b, DByteArray(other)))
          for compare_ in COMPARISONS for other in others[:6]],
        *[(f'{compare_.__name__} itself', lambda b, compare_=compare_: compare_(b, b))
          for compare_ in COMPARISONS]), messages=False)


def test_the_constructor_takes_what_that_of_bytearray_takes():
    calls = [((make(b'self'),), {}) for make in SOURCES.values()]
    calls += [((), {}), ((-1,), {}), (('ä', 'utf-8'), {}), (('ä', 'ascii'), {}),
              (('ä', 'ascii', 'replace'), {}), (('a', 5), {}), ((b'a', 'ascii'), {}), ((1, 2, 3, 4), {}),
              ((), {'source': b'x'}), ((), {'source': 'x', 'encoding': 'ascii'}), ((), {'x': 1}),
              ((), {'encoding': 'ascii'}), ((sys.maxsize,), {}), ((broken_iterable(1),), {})]
    for args, kwargs in calls:
        if args and isinstance(args[0], collections.abc.Iterator):
            args = (list(range(4)),)
        expected = run(lambda t, args=args, kwargs=kwargs: t(*args, **kwargs), bytearray)
        actual = run(lambda t, args=args, kwargs=kwargs: t(*args, **kwargs), DByteArray)
        if isinstance(expected, Raised):
            assert repr(expected) == repr(actual), (args, kwargs)
        else:
            assert type(actual) is DByteArray and same(actual, expected), (args, kwargs)


def test_fromhex_and_maketrans():
    class Sub(DByteArray):
        pass
    made = DByteArray.fromhex('b9 01EF')
    assert type(made) is DByteArray and made == b'\xb9\x01\xef'
    assert type(Sub.fromhex('00')) is Sub and made.fromhex('41') == b'A'
    for bad in ('x', b'00', 5):
        assert (repr(run(lambda t, bad=bad: t.fromhex(bad), bytearray))
                == repr(run(lambda t, bad=bad: t.fromhex(bad), DByteArray)))
    table = DByteArray.maketrans(b'ab', DByteArray(b'cd'))
    assert type(table) is bytes and table == bytes.maketrans(b'ab', b'cd')
    assert made.maketrans(b'a', b'b') == bytes.maketrans(b'a', b'b')
    for bad in ((b'a',), (b'a', b'bc'), ('a', 'b')):
        assert (repr(run(lambda t, bad=bad: t.maketrans(*bad), bytearray))
                == repr(run(lambda t, bad=bad: t.maketrans(*bad), DByteArray)))
    with pytest.raises(TypeError):
        DByteArray.maketrans(frm=b'a', to=b'b')


# ---- what it is ----

def test_it_has_all_that_bytearray_has():
    known = {'__init__', '__new__', '__reduce_ex__', '__getitem__'}
    faults = [fault for fault in missing_attributes(DByteArray)
              if fault.split(':')[0] not in known]
    assert not faults
    assert DByteArray.__doc__ and DByteArray.__module__ == 'tosc'
    assert str(inspect.signature(DByteArray.split)) == '(self, /, sep=None, maxsplit=-1)'


def test_it_is_a_mutable_sequence_but_no_bytearray():
    b = DByteArray(b'a')
    assert isinstance(b, collections.abc.MutableSequence)
    assert not isinstance(b, bytearray)
    with pytest.raises(TypeError, match='unhashable'):
        {b}
    with pytest.raises(TypeError):
        DByteArray.extra = 1
    with pytest.raises(AttributeError):
        b.extra = 1


def test_it_is_no_sequence_to_a_match_statement():
    for value in (bytearray(b'a'), DByteArray(b'a')):
        match value:
            case [_]:
                pytest.fail('a sequence')
            case _:
                pass


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_plain_bytearrays(protocol):
    b = DByteArray(b'a\x00\xff')
    for dumps in (pickle.dumps, pickle._dumps):  # pylint: disable=protected-access
        assert same(pickle.loads(dumps([b, b], protocol)), [bytearray(b), bytearray(b)])
        assert b'tosc' not in dumps(b, protocol)


def test_subclasses():
    class Named(DByteArray):
        name = 'none'

        def __init__(self, *args, name):
            super().__init__(*args)
            self.name = name
    b = Named(b'ab', name='Ann')
    b += b'c'
    assert type(b) is Named and b == b'abc' and b.name == 'Ann'
    assert type(b[1:]) is bytearray and type(b.upper()) is bytearray
    assert repr(b) == "bytearray(b'abc')"
    b.itself = b
    gone = weakref.ref(b)
    del b
    gc.collect()
    assert gone() is None


def test_text_warns_if_python_is_asked_to():
    code = ("import tosc, warnings\n"
            "warnings.simplefilter('error')\n"
            "b = tosc.DByteArray(b'a')\n"
            "for f in (lambda: str(b), lambda: b == 'a', lambda: 'a' == b):\n"
            "    try:\n"
            "        f()\n"
            "    except BytesWarning:\n"
            "        print('warned')\n")
    import subprocess
    done = subprocess.run([sys.executable, '-b', '-c', code], stdout=subprocess.PIPE, check=True,
                          timeout=60 * SCALE)
    assert done.stdout.split() == [b'warned'] * 3


def test_sizeof_counts_the_bytes():
    assert sys.getsizeof(DByteArray(10000)) > sys.getsizeof(bytearray(10000))


# ---- the buffer ----

def test_whoever_reads_buffers_reads_it(here):
    with here.transaction():
        b = here.make(DByteArray, bytearray(b'Hello, World'))
        plain = bytes(b)
        assert int.from_bytes(b, 'big') == int.from_bytes(plain, 'big')
        assert re.search(rb'o, (W)', b).group(1) == b'W'
        assert [m.span() for m in re.finditer(b'o', b)] == [(4, 5), (8, 9)]
        assert re.sub(b'o', b'0', b) == b'Hell0, W0rld'
        file = io.BytesIO()
        assert file.write(b) == 12 and file.getvalue() == plain
        assert struct.unpack('5s', memoryview(b)[:5]) == (b'Hello',)
        assert struct.unpack_from('<H', b, 2) == struct.unpack_from('<H', plain, 2)
        assert zlib.crc32(b) == zlib.crc32(plain)
        assert hashlib.sha1(b).digest() == hashlib.sha1(plain).digest()
        assert base64.b64encode(b) == base64.b64encode(plain)
        assert b'-'.join([b, b]) == plain + b'-' + plain
        assert bytearray(b) == plain and array.array('B', b).tobytes() == plain
        assert b'' + b == plain and type(b'' + b) is bytes
        assert type(bytearray() + b) is bytearray
        target = held = bytearray(b'>')
        target += b
        target[0:1] = b
        assert target is held and target == plain + plain
        assert str(b, 'ascii') == 'Hello, World' and b.decode() == 'Hello, World'
        assert plain.find(b) == 0 and plain.startswith(b) and b in plain


def test_it_cannot_be_written_through_its_buffer():
    b = DByteArray(b'abc')
    view = memoryview(b)
    assert view.readonly and view.obj is b
    with pytest.raises(TypeError):
        view[0] = 1
    for write in (lambda: io.BytesIO(b'xyz').readinto(b), lambda: struct.pack_into('B', b, 0, 1),
                  lambda: (view.cast('c').__setitem__(0, b'x'))):
        with pytest.raises((TypeError, BufferError)):
            write()
    assert b == b'abc'


def test_a_memoryview_is_a_stable_snapshot(here):
    with here.transaction():
        b = here.make(DByteArray, bytearray(b'abc'))
        views = [memoryview(b)]
        for operation in (lambda: b.append(100), lambda: operator.setitem(b, 0, 65),
                          lambda: b.extend(b * 100), b.reverse, b.clear):
            operation()
            views.append(memoryview(b))
        assert bytes(views[0]) == b'abc' and bytes(views[1]) == b'abcd'
        assert bytes(views[2]) == b'Abcd' and bytes(views[5]) == b''
        for view in views:
            assert view.obj is b
            part = view[:2]
            view.release()
            part.release()


def test_a_memoryview_keeps_what_it_shows():
    def make():
        b = DByteArray(b'abc')
        return weakref.ref(b), memoryview(b)
    reference, view = make()
    gc.collect()
    assert reference() is not None and bytes(view) == b'abc'
    del view
    assert reference() is None


def test_an_iterator_goes_over_the_bytes_as_they_were(here):
    with here.transaction():
        b = here.make(DByteArray, bytearray(b'abc'))
        seen = []
        for byte in b:
            seen.append(byte)
            b.insert(0, byte)
        assert bytes(seen) == b'abc' and b == b'cbaabc'
        backward = reversed(b)
        b.clear()
        assert bytes(backward) == b'cbaabc'


# ---- commits ----

def test_what_changes_nothing_commits_nothing(inproc_store):
    manager = inproc_store.manager({'b': bytearray(b'abc'), 'e': bytearray()})
    data = manager.read()
    version = manager.version
    both = [call('extend', []), call('extend', b''), lambda b: b.__iadd__(b''),
            lambda b: b.__imul__(1), lambda b: operator.delitem(b, slice(5, 5)),
            lambda b: operator.delitem(b, slice(9, 3, 2)),
            lambda b: operator.setitem(b, slice(1, 1), b''),
            lambda b: operator.setitem(b, slice(9, 1, 3), b'')]
    empty = [call('clear'), call('reverse'), lambda b: b.__imul__(0), lambda b: b.__init__(),
             lambda b: operator.delitem(b, slice(None))]
    for key, operations in (('b', both), ('e', both + empty)):
        for operation in operations:
            operation(data[key])
            assert manager.version == version
            with manager.transaction():
                operation(data[key])
            assert manager.version == version
    assert manager.snapshot() == {'b': bytearray(b'abc'), 'e': bytearray()}


def test_an_operation_that_fails_leaves_the_bytes_as_they_were(here):
    with here.transaction():
        b = here.make(DByteArray, bytearray(b'abc'))
        for operation, error in (
                (lambda: b.extend(broken_iterable(1, 2)), LookupError),
                (lambda: b.__init__(broken_iterable(1)), LookupError),
                (lambda: b.extend([1, 300]), ValueError),
                (lambda: operator.setitem(b, slice(0, 1), broken_iterable(1)), LookupError),
                (lambda: operator.setitem(b, slice(0, 3, 2), b'xyz'), ValueError)):
            with pytest.raises(error):
                operation()
            assert b == b'abc'
    assert here.contents(b)[-1] == b'abc'


def test_other_threads_see_a_transaction_only_when_it_ends(inproc_store):
    manager = inproc_store.manager(bytearray(b'abcdef'))
    b = manager.read()
    for operation in (lambda: b.append(65), lambda: b.pop(0), lambda: operator.setitem(b, 1, 65),
                      lambda: operator.delitem(b, slice(None, None, 2)), b.reverse, b.clear):
        b[:] = b'abcdef'
        with manager.transaction():
            operation()
            after = bytes(b)
            assert in_thread(lambda: (bytes(b), b[-1], len(b), bytes(memoryview(b)))) \
                == (b'abcdef', 102, 6, b'abcdef')
        assert in_thread(lambda: bytes(b)) == after != b'abcdef'


# ---- code that comes back while it is being worked on ----

@pytest.fixture(name='there', params=['alone', 'stored'])
def fixture_there(request):
    with place(request.param) as there:
        yield there


def test_arguments_that_change_the_bytes(there):
    b = there.make(DByteArray, bytearray(b'abc'))

    class Clearing:
        def __init__(self, value=0):
            self.value = value

        def __index__(self):
            b.clear()
            return self.value

    operations = [
        lambda: b[Clearing()], lambda: b.pop(Clearing()), lambda: operator.setitem(b, Clearing(), 1),
        lambda: operator.setitem(b, 0, Clearing()), lambda: operator.delitem(b, Clearing()),
        lambda: b[Clearing():], lambda: operator.setitem(b, slice(Clearing(), None), b'xy'),
        lambda: operator.setitem(b, slice(0, 2), [Clearing(7), 8]),
        lambda: operator.setitem(b, slice(0, 3, 2), [Clearing(7), 8]),
        lambda: operator.delitem(b, slice(Clearing(), None, 2)), lambda: b.insert(Clearing(), 7),
        lambda: b.insert(1, Clearing(7)), lambda: b.append(Clearing(7)),
        lambda: b.extend([Clearing(7), Clearing(8)]), lambda: b.remove(Clearing(97)),
        lambda: b.__imul__(Clearing(3)), lambda: b * Clearing(3), lambda: b.find(b'c', Clearing()),
        lambda: b.count(Clearing(97)), lambda: Clearing(97) in b, lambda: b.hex(':', Clearing(2)),
        lambda: b.replace(b'a', b'b', Clearing(1)), lambda: b.join([b'x', memoryview(b)]),
        lambda: b.__init__(Clearing(2)), lambda: b % (Clearing(),)]
    for operation in operations:
        b[:] = b'abc'
        run(lambda _, operation=operation: operation(), b)
        assert len(b) <= 3 and all(same(seen, bytearray(b)) for seen in there.contents(b))

    def values():
        yield 120
        b.append(121)
        yield 122
    b[:] = b'ab'
    b.extend(values())
    assert b == b'abyxz'
    b[1:3] = values()
    assert b == b'axzxzy'


def test_buffers_that_change_the_bytes_while_they_are_held(there):
    b = there.make(DByteArray, bytearray(b'abc'))
    with memoryview(b) as view:
        b += view
        b[0:0] = view
        b[::2] = view[:len(b[::2])] if len(b[::2]) <= 3 else bytes(len(b[::2]))
        assert bytes(view) == b'abc'
        b.clear()
        assert bytes(view) == b'abc' and b == b''
    assert len(b) == 0


def test_a_class_of_another_kind_cannot_be_slipped_under():
    class A(DByteArray):
        __slots__ = ()

    class B(tosc.DList):
        __slots__ = ()
    for other in (B, tosc.DList, tosc.DSet):
        a = A(b'abc')
        try:
            a.__class__ = other
        except TypeError:
            continue
        for operation in (lambda x: x[0], list, repr, lambda x: x.append(1), lambda x: x + x,
                          lambda x: x.pop(), lambda x: x.clear(), lambda x: x == [1], bytes):
            run(operation, a)


# ---- generated histories ----

data = st.binary(max_size=8)
bounds = st.none() | st.integers(-25, 25)
slices = st.builds(slice, bounds, bounds, st.sampled_from([None, 1, 1, 2, 3, -1, -2]))


class Histories(RuleBasedStateMachine):
    """Random operations on a bytearray and on a wrapper, whose place is given by subclasses."""

    place_name = 'alone'

    @initialize(value=st.binary(max_size=60))
    def start(self, value):
        self.context = place(self.place_name)
        self.here = self.context.__enter__()
        self.model = bytearray(value)
        self.wrapper = self.here.make(DByteArray, bytearray(value))
        self.views = []
        self.blocks = []
        self.saved = []

    def teardown(self):
        if hasattr(self, 'here'):
            while self.blocks:
                self.blocks.pop().__exit__(None, None, None)
            assert all(same(seen, self.model) for seen in self.here.contents(self.wrapper))
            assert all(bytes(view) == copied for view, copied in self.views)
            self.context.__exit__(None, None, None)

    def both(self, operation):
        expected, actual = run(operation, self.model), run(operation, self.wrapper)
        if isinstance(expected, Raised):
            assert repr(expected) == repr(actual)
        else:
            assert expected is actual is ITSELF or same(expected, actual)

    @rule(value=st.integers(-1, 256))
    def append(self, value):
        self.both(lambda b: b.append(value))

    @rule(index=st.integers(-25, 25), value=st.integers(0, 255))
    def insert(self, index, value):
        self.both(lambda b: b.insert(index, value))

    @rule(index=st.integers(-25, 25))
    def pop(self, index):
        self.both(lambda b: b.pop(index))

    @rule(values=data)
    def extend(self, values):
        self.both(lambda b: b.extend(values))
        self.both(lambda b: b.__iadd__(values[:2]))

    @rule(count=st.integers(-1, 2))
    def repeat(self, count):
        if len(self.model) < 200:
            self.both(lambda b: b.__imul__(count))

    @rule(index=st.integers(-25, 25), value=st.integers(-1, 256))
    def set_item(self, index, value):
        self.both(lambda b: operator.setitem(b, index, value))

    @rule(index=st.integers(-25, 25))
    def delete_item(self, index):
        self.both(lambda b: operator.delitem(b, index))

    @rule(key=slices, values=data)
    def set_slice(self, key, values):
        self.both(lambda b: operator.setitem(b, key, values))

    @rule(key=slices)
    def fill_slice(self, key):
        self.both(lambda b: operator.setitem(b, key, bytes(range(len(b[key])))))

    @rule(key=slices)
    def delete_slice(self, key):
        self.both(lambda b: operator.delitem(b, key))

    @rule(value=st.integers(0, 255))
    def remove(self, value):
        self.both(lambda b: b.remove(value))

    @rule()
    def reverse(self):
        self.both(lambda b: b.reverse())

    @rule()
    def clear(self):
        self.both(lambda b: b.clear())

    @rule(key=slices, wanted=data)
    def read(self, key, wanted):
        self.both(lambda b: (b[key], b.find(wanted), b.split(b'a'), b.hex(), wanted in b))

    @rule()
    def view(self):
        if len(self.views) < 5:
            self.views.append((memoryview(self.wrapper), bytes(self.wrapper)))

    @invariant()
    def equal(self):
        if hasattr(self, 'wrapper'):
            assert same(self.wrapper, self.model)
            assert len(self.wrapper) == len(self.model)


class StoredHistories(Histories):
    place_name = 'stored'

    @rule()
    def enter(self):
        if len(self.blocks) < 3:
            block = self.here.manager.transaction()
            block.__enter__()
            self.blocks.append(block)
            self.saved.append(bytearray(self.model))

    @rule()
    def leave(self):
        if self.blocks:
            self.blocks.pop().__exit__(None, None, None)
            self.saved.pop()

    @rule()
    def roll_back(self):
        if self.blocks:
            assert not self.blocks.pop().__exit__(LookupError, LookupError(), None)
            self.model = self.saved.pop()


HISTORY_SETTINGS = settings(max_examples=60, stateful_step_count=40, deadline=None,
                            suppress_health_check=list(HealthCheck))
TestHistories = Histories.TestCase
TestHistories.settings = HISTORY_SETTINGS
TestStoredHistories = StoredHistories.TestCase
TestStoredHistories.settings = HISTORY_SETTINGS


# ---- memory ----

def test_an_operation_that_runs_out_of_memory_changes_nothing():
    pytest.importorskip('_testcapi')
    assert run_child(OUT_OF_MEMORY.format(ops='bytearray_changes')).splitlines()[-1] == '[]'



def quietly(operation):
    def wrapped():
        try:
            operation()
        except (LookupError, ValueError, TypeError, OverflowError, BufferError):
            pass
    return wrapped


def leak_operations(b):
    def set_to(value):
        b[:] = value
    return {title: quietly(operation) for title, operation in {
        'append, pop': lambda: (b.append(65), b.pop()),
        'insert, delete': lambda: (b.insert(1, 65), b.__delitem__(1)),
        'extend, delete': lambda: (b.extend([1, 2]), b.__delitem__(slice(-2, None))),
        'set': lambda: b.__setitem__(0, 65),
        'set slice': lambda: b.__setitem__(slice(0, 3, 2), b'xy'),
        'set slice all': lambda: set_to(b'Hello'),
        'delete slice': lambda: (b.__delitem__(slice(0, 3, 2)), set_to(b'Hello')),
        '+= *= clear': lambda: (b.__iadd__(b), b.__imul__(20), b.__delitem__(slice(None, None, 2)),
                                b.clear(), b.extend(b'Hello')),
        'remove, reverse': lambda: (b.append(200), b.reverse(), b.remove(200), b.reverse()),
        'read': lambda: (b[0], b[-1], b[1:3], b[::2], len(b), 65 in b, list(b), b.copy()),
        'sums': lambda: (b + b, b'' + b, b * 2, b == b'x', b < b, b % ()),
        'forwarded': lambda: (b.upper(), b.find(b'l'), b.split(sep=b'l'), b.center(20, DByteArray(b'-')),
                              b.join([b, b]), b.hex(':')),
        'buffers': lambda: (memoryview(b)[1:], bytes(b), b'%s' % b, memoryview(b).release()),
        'iterators': lambda: (next(iter(b)), next(reversed(b))),
        'text': lambda: repr(b),
        'copies': lambda: (copy.copy(b), copy.deepcopy(b), b.__reduce__(), b.__sizeof__()),
        'init': lambda: b.__init__(b'Hello'), 'fromhex': lambda: b.fromhex('00'),
        'make': lambda: DByteArray(b'Hello'), 'maketrans': lambda: b.maketrans(b'a', b'b'),
        'bad index': lambda: b[99], 'bad key': lambda: b['x'], 'bad pop': lambda: b.pop(99),
        'bad remove': lambda: b.remove(0), 'bad byte': lambda: b.append(300),
        'bad extend': lambda: b.extend(broken_iterable(1)), 'bad set': lambda: b.__setitem__(0, 'x'),
        'bad slice': lambda: b.__setitem__(slice(0, 3, 2), b'x'), 'bad sum': lambda: b + 'x',
        'bad call': lambda: b.find(), 'bad keyword': lambda: b.upper(x=1),
        'bad buffer': lambda: io.BytesIO(b'x').readinto(b), 'bad init': lambda: b.__init__('x'),
        'bad hex': lambda: b.fromhex('x'), 'bad argument': lambda: b.center(9, DByteArray(b'ab')),
    }.items()}


def test_operations_leave_nothing_behind():
    b = DByteArray(b'Hello')
    assert_no_growth(leak_operations(b), [DByteArray, bytearray], times=20000 // SCALE ** 2)


def test_operations_in_a_store_leave_nothing_behind():
    with place('stored') as there:
        b = there.make(DByteArray, bytearray(b'Hello'))
        assert_no_growth(leak_operations(b), [DByteArray, bytearray], times=1000)
