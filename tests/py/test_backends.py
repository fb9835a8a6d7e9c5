"""Backends by themselves: the manual's four operations, on each kind of store.

The first part is one suite that every backend has to pass, ours and a user's
(backends_example.py). Then comes what our own two offer beyond it; test_file_backend.py has what
belongs to files.
"""
# SPDX-License-Identifier: Apache-2.0
import array
import copy
import gc
import mmap
import os
import pickle
import signal
import sys
import threading
import time
import weakref

import pytest

import tosc
from backend_places import (BIG, backend, count_up, labelled, native, path,  # noqa: F401
                            place)
from harness import SCALE, Thread, run_child, wait_until


# ---- the suite: read, write, try_write ----

def test_every_backend_is_a_backend_base(backend):
    assert isinstance(backend, tosc.BackendBase)


def test_an_empty_store_reads_none_and_none(backend):
    assert tuple(backend.read()) == (None, None)


def test_write_returns_the_version_that_read_gives_with_the_data(backend):
    version = backend.write(b'data')
    assert type(version) is int
    assert tuple(backend.read()) == (version, b'data')


def test_each_change_gives_another_version_that_never_comes_back(backend):
    versions = []
    for number in range(20):
        if number % 2:
            assert backend.try_write(b'same data', versions[-1]) is True
            versions.append(backend.read()[0])
        else:
            versions.append(backend.write(b'same data'))
    assert len(set(versions)) == 20
    assert versions == sorted(versions)


def test_write_replaces_whatever_is_stored(place):
    one, two = place.open(), place.open()
    one.write(b'a' * 1000)
    two.write(b'b')
    assert one.read()[1] == b'b'
    one.write(b'c' * 3000)
    assert two.read()[1] == b'c' * 3000


def test_objects_for_one_store_see_the_same(place):
    one, two = place.open(), place.open()
    version = one.write(b'1')
    assert tuple(two.read()) == (version, b'1')
    assert two.try_write(b'2', version)
    assert one.read() == two.read()


def test_reading_changes_nothing(backend):
    version = backend.write(b'data')
    for _ in range(5):
        assert tuple(backend.read()) == (version, b'data')


@pytest.mark.parametrize('data', [b'', b'\0', bytes(range(256)), b'x' * BIG,
                                  b'\n\r\n\x1a' * 100], ids=len)
def test_any_bytes_come_back_as_they_were(place, data):
    version = place.open().write(data)
    got_version, got = place.open().read()
    assert got_version == version
    assert bytes(got) == data
    assert place.open().try_write(data, version)
    assert bytes(place.open().read()[1]) == data


def test_try_write_with_none_stores_only_in_an_empty_store(backend):
    assert backend.try_write(b'first', None) is True
    before = backend.read()
    assert before[1] == b'first'
    assert backend.try_write(b'second', None) is False
    assert backend.read() == before


def test_try_write_with_the_version_stores(backend):
    version = backend.write(b'1')
    assert backend.try_write(b'2', version) is True
    new_version, data = backend.read()
    assert data == b'2'
    assert new_version != version


def test_try_write_with_an_older_version_changes_nothing(backend):
    old = backend.write(b'1')
    backend.write(b'2')
    before = backend.read()
    assert backend.try_write(b'3', old) is False
    assert backend.read() == before


def test_try_write_with_a_version_that_is_none_of_the_store_changes_nothing(backend):
    assert backend.try_write(b'x', 1) is False
    assert tuple(backend.read()) == (None, None)
    version = backend.write(b'1')
    for other in (version + 1, version + 1000, version - 1, 0, -1):
        if other != version:
            assert backend.try_write(b'x', other) is False
    assert tuple(backend.read()) == (version, b'1')


def test_arguments_may_be_named(backend):
    version = backend.write(new=b'1')
    assert backend.try_write(new=b'2', expected=version)
    assert backend.target_wait(timeout=1)


@pytest.mark.parametrize('expected', [None, 'version'])
def test_of_many_try_writes_with_one_version_one_wins(place, expected):
    objects = [place.open() for _ in range(6)]
    for turn in range(10):
        known = objects[0].read()[0]
        if expected is None and turn > 0:
            break
        barrier = threading.Barrier(len(objects))

        def attempt(number):
            barrier.wait()
            return objects[number].try_write(b'%d' % number, known)

        results = [thread.result() for thread in
                   [Thread(attempt, number) for number in range(len(objects))]]
        assert sum(results) == 1
        assert objects[0].read()[1] == b'%d' % results.index(True)


def test_threads_that_count_by_try_write_lose_nothing(place):
    times = 10 if place.kind == 'sqlite' else 50
    threads = [Thread(count_up, place.open(), times) for _ in range(4)]
    for thread in threads:
        thread.result()
    assert place.open().read()[1] == b'%d' % (4 * times)


def test_threads_may_share_one_object(place):
    times = 10 if place.kind == 'sqlite' else 50
    shared = place.open()
    threads = [Thread(count_up, shared, times) for _ in range(4)]
    for thread in threads:
        thread.result()
    assert shared.read()[1] == b'%d' % (4 * times)


def test_a_reader_never_sees_a_mixture(place):
    """Data and version are replaced, and read, together."""
    sizes = [1, 5000, 70000, 300]
    done = threading.Event()
    versions = {}

    def write(letter):
        backend = place.open()
        for number in range(40):
            data = b'%c%d:' % (letter, number)
            data += letter.to_bytes(1, 'big') * sizes[number % len(sizes)]
            versions[backend.write(data)] = data

    def read():
        backend = place.open()
        seen = []
        while True:
            seen.append(backend.read())
            if done.is_set():
                return seen

    place.open().write(b'a')
    readers = [Thread(read) for _ in range(2)]
    writers = [Thread(write, letter) for letter in b'xy']
    for writer in writers:
        writer.result()
    done.set()
    for reader in readers:
        seen = reader.result()
        last = 0
        for version, data in seen:
            assert data == versions.get(version, b'a')
            assert version >= last
            last = version


# ---- the suite: target_wait ----

def test_target_wait_tells_of_a_change_by_another_object(place):
    one, two = place.open(), place.open()
    waiter = Thread(two.target_wait)
    wait_until(waiter.is_alive)
    time.sleep(0.05)
    assert waiter.is_alive()
    one.write(b'1')
    assert waiter.result() is True


def test_target_wait_ends_with_its_timeout(backend):
    backend.write(b'1')
    assert backend.target_wait(1) is True
    start = time.monotonic()
    assert backend.target_wait(0.1) is False
    assert 0.09 < time.monotonic() - start < 5
    assert backend.target_wait(0) is False


def test_a_change_before_target_wait_counts(place):
    one, two = place.open(), place.open()
    one.write(b'1')
    assert two.target_wait() is True
    one.write(b'2')
    two.read()
    assert two.target_wait() is True
    assert two.target_wait(0) is False


def test_changes_since_the_last_target_wait_are_told_together(place):
    one, two = place.open(), place.open()
    for number in range(5):
        one.write(b'%d' % number)
    assert two.target_wait() is True
    assert two.target_wait(0.01) is False


def test_an_objects_own_changes_count_as_well(backend):
    backend.write(b'1')
    assert backend.target_wait(1) is True
    assert backend.try_write(b'2', backend.read()[0])
    assert backend.target_wait(1) is True
    assert backend.target_wait(0.01) is False


def test_what_changed_nothing_is_no_change(place):
    one, two = place.open(), place.open()
    one.write(b'1')
    assert two.target_wait() is True
    assert one.try_write(b'2', None) is False
    one.read()
    assert two.target_wait(0.05) is False


def test_each_object_is_told_of_each_change(place):
    writer, *readers = [place.open() for _ in range(4)]
    for number in range(3):
        writer.write(b'%d' % number)
        assert [reader.target_wait(10) for reader in readers] == [True] * 3


def test_each_waiting_thread_is_told(place):
    writer, shared = place.open(), place.open()
    waiters = [Thread(shared.target_wait) for _ in range(4)]
    time.sleep(0.1)
    writer.write(b'1')
    assert [waiter.result() for waiter in waiters] == [True] * 4


def test_other_threads_run_while_one_waits(backend):
    waiter = Thread(backend.target_wait, 0.5)
    count = 0
    while waiter.is_alive():
        count += 1
    assert waiter.result() is False
    assert count > 1000


def test_waiting_follows_a_chain_of_changes(place):
    """Ping-pong: each waits for the other's change, and none is missed."""
    def play(backend, mine, rounds):
        played = 0
        while played < rounds:
            version, data = backend.read()
            if data == mine:
                assert backend.try_write(b'o' if mine == b'x' else b'x', version)
                played += 1
            else:
                backend.target_wait()

    one, two = place.open(), place.open()
    one.write(b'x')
    rounds = 5 if place.kind == 'sqlite' else 50
    players = [Thread(play, one, b'x', rounds), Thread(play, two, b'o', rounds)]
    for player in players:
        player.result()


# ---- our own two: arguments ----

class BytesLike:
    """Not bytes, but with a buffer to read."""


@pytest.mark.parametrize('make', [
    bytes, bytearray, memoryview, lambda data: array.array('B', data),
    lambda data: memoryview(b'--' + data + b'--')[2:-2],
    lambda data: memoryview(bytearray(data)).toreadonly(),
], ids=['bytes', 'bytearray', 'memoryview', 'array', 'slice', 'readonly'])
def test_bytes_like_data_are_stored(native, make):
    backend = native.open()
    version = backend.write(make(b'one'))
    assert backend.read() == (version, b'one')
    assert backend.try_write(make(b'two'), version)
    assert backend.read()[1] == b'two'


def test_data_of_a_mapped_file_are_stored(native):
    with mmap.mmap(-1, 8192) as memory:
        memory[:3] = b'abc'
        native.open().write(memory)
    assert native.open().read()[1] == b'abc' + bytes(8189)


def test_what_was_stored_does_not_change_with_the_object(native):
    data = bytearray(b'before')
    native.open().write(data)
    data[:] = b'after!'
    data.append(0)
    assert native.open().read()[1] == b'before'


def test_data_are_read_as_bytes(native):
    backend = native.open()
    backend.write(bytearray(b'x'))
    result = backend.read()
    assert type(result) is tuple and type(result[1]) is bytes


@pytest.mark.parametrize('bad', [None, 'text', 1, [1, 2], {}, object()], ids=repr)
def test_other_data_are_a_type_error(native, bad):
    backend = native.open()
    version = backend.write(b'1')
    with pytest.raises(TypeError, match=r"write\(\) argument 'new' must be bytes-like"):
        backend.write(bad)
    with pytest.raises(TypeError, match=r"try_write\(\) argument 'new' must be bytes-like"):
        backend.try_write(bad, version)
    assert backend.read() == (version, b'1')


def test_data_with_gaps_are_a_type_error(native):
    backend = native.open()
    with pytest.raises(TypeError, match="'new' must be C-contiguous"):
        backend.write(memoryview(b'abcdef')[::2])
    assert backend.read() == (None, None)


def test_released_data_are_an_error(native):
    view = memoryview(b'abc')
    view.release()
    with pytest.raises(ValueError):
        native.open().write(view)


@pytest.mark.parametrize('bad', ['1', 1.0, b'1', (1,), object()], ids=repr)
def test_an_expected_version_is_int_or_none(native, bad):
    backend = native.open()
    with pytest.raises(TypeError, match="'expected' must be int or None"):
        backend.try_write(b'x', bad)
    assert backend.read() == (None, None)


@pytest.mark.parametrize('huge', [2**63, -2**63 - 1, 2**64, 10**40, -10**40])
def test_an_expected_version_beyond_64_bits_matches_nothing(native, huge):
    backend = native.open()
    assert backend.try_write(b'x', huge) is False
    version = backend.write(b'1')
    assert backend.try_write(b'x', huge) is False
    assert backend.read() == (version, b'1')


@pytest.mark.parametrize('edge', [2**63 - 1, -2**63, 0, -1])
def test_any_64_bit_version_may_be_expected(native, edge):
    backend = native.open()
    backend.write(b'1')
    assert backend.try_write(b'x', edge) is False


@pytest.mark.parametrize('call', [
    lambda backend: backend.write(), lambda backend: backend.write(b'', b''),
    lambda backend: backend.try_write(b''), lambda backend: backend.read(1),
    lambda backend: backend.try_write(b'', None, 1), lambda backend: backend.write(data=b''),
    lambda backend: backend.target_wait(1, 2)])
def test_a_wrong_number_of_arguments_is_a_type_error(native, call):
    with pytest.raises(TypeError):
        call(native.open())


@pytest.mark.parametrize('bad', ['1', b'', [], object()], ids=repr)
def test_a_timeout_is_a_number(native, bad):
    with pytest.raises(TypeError, match='timeout must be a number of seconds'):
        native.open().target_wait(bad)


@pytest.mark.parametrize('bad', [-1, -0.001, float('nan'), float('-inf')])
def test_a_timeout_is_not_negative(native, bad):
    with pytest.raises(ValueError, match='timeout must not be negative'):
        native.open().target_wait(bad)


@pytest.mark.parametrize('long', [None, float('inf'), 1e300, 10**12])
def test_a_timeout_may_be_as_long_as_one_likes(native, long):
    one, two = native.open(), native.open()
    waiter = Thread(two.target_wait, long)
    time.sleep(0.02)
    assert waiter.is_alive()
    one.write(b'1')
    assert waiter.result() is True


def test_a_wait_is_never_shorter_than_its_timeout(native):
    backend = native.open()
    for timeout in (0.0004, 0.01, 0.25):
        start = time.monotonic()
        assert backend.target_wait(timeout) is False
        assert time.monotonic() - start >= timeout


# ---- our own two: copies, subclasses ----

@pytest.mark.parametrize('copier', [lambda backend: backend.copy(), copy.copy],
                         ids=['copy()', 'copy.copy'])
def test_a_copy_is_another_object_for_the_same_store(native, copier):
    one = native.open()
    one.write(b'1')
    two = copier(one)
    assert two is not one and type(two) is type(one)
    assert two.read() == one.read()
    version = two.write(b'2')
    assert one.read() == (version, b'2')


def test_a_copy_waits_by_itself(native):
    one = native.open()
    one.write(b'1')
    two = one.copy()
    assert one.target_wait(1) is True
    if native.kind == 'inproc':
        assert two.target_wait(0.01) is False
    one.write(b'2')
    assert two.target_wait(1) is True
    assert one.target_wait(1) is True


def test_the_store_lives_as_long_as_one_of_the_copies():
    one = tosc.InprocBackend()
    version = one.write(b'1')
    two = one.copy()
    del one
    gc.collect()
    assert two.read() == (version, b'1')


def test_two_inproc_backends_are_two_stores():
    one, two = tosc.InprocBackend(), tosc.InprocBackend()
    one.write(b'1')
    assert two.read() == (None, None)


def test_backends_are_equal_only_to_themselves(native):
    one = native.open()
    two = one.copy()
    assert one == one
    assert one != two
    assert len({one, two}) == 2


def test_backends_can_be_referenced_weakly(native):
    one = native.open()
    reference = weakref.ref(one)
    assert reference() is one
    del one
    gc.collect()
    assert reference() is None


def test_an_object_may_go_while_a_thread_waits_on_it(native):
    writer, waiting = native.open(), native.open()
    waiter = Thread(waiting.target_wait)
    del waiting
    time.sleep(0.02)
    writer.write(b'1')
    assert waiter.result() is True


def test_a_subclass_may_take_other_arguments_and_add_attributes(native):
    backend = labelled(native)
    version = backend.write(b'1')
    assert backend.read() == (version, b'1')
    assert (backend.label, backend.reads) == ('mine', 1)


def test_a_copy_of_a_subclass_keeps_its_attributes(native):
    backend = labelled(native)
    backend.extra = [1]
    other = backend.copy()
    assert type(other) is type(backend)
    assert (other.label, other.extra) == ('mine', [1])
    assert other.extra is backend.extra
    other.write(b'1')
    assert backend.read()[1] == b'1'


def test_a_file_backend_without_its_init_says_so():
    class Forgetful(tosc.FileBackend):
        def __init__(self):
            pass

    backend = Forgetful()
    assert 'without a file' in repr(backend)
    for call in (backend.read, backend.copy, backend.target_wait, lambda: pickle.dumps(backend),
                 lambda: backend.write(b''), lambda: backend.try_write(b'', None)):
        with pytest.raises(ValueError, match=r'__init__\(\) has not been called'):
            call()


def test_a_file_backend_is_made_once(path):
    backend = tosc.FileBackend(path)
    with pytest.raises(RuntimeError, match='twice'):
        backend.__init__(path + '2')
    assert backend.file_path == path


def test_an_inproc_backend_takes_no_arguments():
    with pytest.raises(TypeError, match='takes no arguments'):
        tosc.InprocBackend('x')
    with pytest.raises(TypeError, match='takes no arguments'):
        tosc.InprocBackend(path='x')


@pytest.mark.parametrize('function', [pickle.dumps, copy.deepcopy])
def test_an_inproc_backend_cannot_be_pickled(function):
    with pytest.raises(TypeError, match='lives in this process only; use a FileBackend'):
        function(tosc.InprocBackend())


# ---- our own two: signals ----

CTRL_C = '''
    import signal, threading
    backend = {make}
    backend.write(b'1')
    assert backend.target_wait(1)
    def interrupt():
        time.sleep(0.3)
        times.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    times = []
    threading.Thread(target=interrupt).start()
    try:
        backend.target_wait({timeout})
    except KeyboardInterrupt:
        print(time.monotonic() - times[0])
'''


def make_source(native):
    if native.kind == 'inproc':
        return 'tosc.InprocBackend()'
    return f'open_store({native.path!r})'


@pytest.mark.parametrize('timeout', ['', '30', 'timeout=None'])
def test_ctrl_c_ends_target_wait_at_once(native, timeout):
    out = run_child(CTRL_C.format(make=make_source(native), timeout=timeout))
    assert float(out) < 0.2 * SCALE


def test_ctrl_c_from_outside_ends_target_wait(native, children):
    child = children(f'''
        backend = {make_source(native)}
        try:
            print('waiting')
            backend.target_wait()
        except KeyboardInterrupt:
            print('interrupted')
    ''')
    assert child.line() == 'waiting'
    start = time.monotonic()
    child.signal(signal.SIGINT)
    # Where the signal came before the wait began, Python itself has raised.
    assert child.line() == 'interrupted'
    assert time.monotonic() - start < 1 * SCALE


def test_other_signals_are_handled_and_the_wait_goes_on(native):
    out = run_child(f'''
        import signal, threading
        backend = {make_source(native)}
        handled = []
        signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(time.monotonic()))
        sent = []
        def act():
            for _ in range(3):
                time.sleep(0.1)
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.1)
            backend.copy().write(b'1')
        threading.Thread(target=act).start()
        print(backend.target_wait(), len(handled),
              max(h - s for h, s in zip(handled, sent)) < {0.1 * SCALE})
    ''')
    assert out == 'True 3 True'


def test_an_exception_in_a_signal_handler_ends_the_wait(native):
    out = run_child(f'''
        import signal, threading
        class Alarm(Exception):
            pass
        def ring(number, frame):
            raise Alarm
        backend = {make_source(native)}
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            backend.target_wait()
        except Alarm:
            print('alarm')
        print(backend.target_wait(0.01))
    ''')
    assert out.split() == ['alarm', 'False']


def test_a_stream_of_signals_does_not_disturb_reading_and_writing(native):
    out = run_child(f'''
        import signal
        backend = {make_source(native)}
        count = 0
        def tick(number, frame):
            global count
            count += 1
        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        version = backend.write(b'0')
        number = 0
        while count < 100 or number < 100:
            number += 1
            assert backend.try_write(b'%d' % number, version)
            version, data = backend.read()
            assert data == b'%d' % number
        signal.setitimer(signal.ITIMER_REAL, 0)
        print('done')
    ''')
    assert out == 'done'


# ---- our own two: nothing leaks ----

def test_reading_and_writing_leak_no_descriptors_and_no_memory(native):
    backend = native.open()

    def work(times):
        for _ in range(times):
            version = backend.write(b'x' * 1000)
            backend.try_write(b'y' * 1000, version)
            backend.try_write(b'y', version)
            backend.read()
            backend.target_wait(0)
            backend.copy().target_wait(0)

    work(20)
    gc.collect()
    descriptors = len(os.listdir('/proc/self/fd'))
    objects = len(gc.get_objects())
    work(100)
    gc.collect()
    assert len(os.listdir('/proc/self/fd')) <= descriptors
    assert len(gc.get_objects()) <= objects + 5


def test_references_to_types_and_arguments_stay_flat(path):
    data, huge = bytearray(b'data'), 2**70
    watched = [tosc.InprocBackend, tosc.FileBackend, data, huge, path]

    def work():
        for make in (tosc.InprocBackend, lambda: tosc.FileBackend(path)):
            backend = make()
            backend.copy()
            version = backend.write(data)
            backend.try_write(data, version)
            backend.try_write(data, huge)
            backend.target_wait(0)
            for bad in (lambda: backend.write(5), lambda: backend.try_write(data, 'x'),
                        lambda: backend.target_wait('x'), lambda: tosc.FileBackend(path, 5),
                        lambda: tosc.FileBackend(path, path), lambda: tosc.InprocBackend(1)):
                with pytest.raises((TypeError, ValueError)):
                    bad()
            if not isinstance(backend, tosc.InprocBackend):
                pickle.loads(pickle.dumps(backend))

    work()
    before = [sys.getrefcount(thing) for thing in watched]
    for _ in range(20):
        work()
    gc.collect()
    after = [sys.getrefcount(thing) for thing in watched]
    assert all(new <= old + 2 for old, new in zip(before, after)), (before, after)
