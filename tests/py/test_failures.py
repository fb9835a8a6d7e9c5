"""Bad input and bad luck: a clear error that names what is wrong; store and memory as they were."""
# SPDX-License-Identifier: Apache-2.0
import errno
import gc
import gzip
import os
import pickle
import queue
import random
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest

import tosc
from harness import (HERE, MISSING, PRELUDE, PyBackend, SHM, Thread, run_child, shape,
                     stored, wait_until)

# The watchers tell of what is wrong, too.
pytestmark = pytest.mark.filterwarnings('ignore:tosc. watching the store failed')


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Locked:
    """An object with a part that cannot be stored."""

    def __init__(self):
        self.name = 'locked'
        self.guard = threading.Lock()


# ---- paths ----

def test_a_missing_directory(tmp_path):
    path = str(tmp_path / 'missing' / 'store')
    with pytest.raises(tosc.StorageError) as caught:
        tosc.Manager(tosc.FileBackend(path)).write(1)
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.errno == errno.ENOENT
    assert str(tmp_path / 'missing') in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_missing_directory_of_the_lock(tmp_path):
    lock = str(tmp_path / 'missing' / 'lock')
    with pytest.raises(tosc.StorageError) as caught:
        tosc.Manager(tosc.FileBackend(str(tmp_path / 'store'), lock)).write(1)
    assert str(tmp_path / 'missing') in str(caught.value)
    assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize('use', [
    lambda manager: manager.read(), lambda manager: manager.refresh(),
    lambda manager: manager.snapshot(), lambda manager: manager.write(1),
    lambda manager: manager.try_write(1, None), lambda manager: manager.version])
def test_a_directory_as_file(tmp_path, use):
    path = tmp_path / 'directory'
    path.mkdir()
    with pytest.raises(tosc.StorageError) as caught:
        use(tosc.Manager(tosc.FileBackend(str(path))))
        pytest.fail('a directory is not a store')
    assert isinstance(caught.value, IsADirectoryError)
    assert str(path) in str(caught.value)
    assert os.listdir(path) == []


def test_a_file_as_directory(tmp_path):
    (tmp_path / 'file').write_text('text')
    path = str(tmp_path / 'file' / 'store')
    with pytest.raises(tosc.StorageError) as caught:
        tosc.Manager(tosc.FileBackend(path)).write(1)
    assert isinstance(caught.value, NotADirectoryError)
    assert str(tmp_path / 'file') in str(caught.value)


@pytest.mark.parametrize('make', [os.mkfifo, lambda path: os.symlink('/dev/null', path)],
                         ids=['fifo', 'device'])
@pytest.mark.parametrize('use', [lambda manager: manager.read(None),
                                 lambda manager: manager.write(1)], ids=['read', 'write'])
def test_what_is_no_regular_file_is_refused_and_nobody_hangs(tmp_path, make, use):
    path = str(tmp_path / 'special')
    make(path)

    def work():
        with pytest.raises((tosc.StorageError, tosc.DataError)) as caught:
            use(tosc.Manager(tosc.FileBackend(path)))
        return caught.value

    text = str(Thread(work).result(10))
    assert path in text or os.path.realpath(path) in text


def test_a_name_that_is_too_long(tmp_path):
    path = str(tmp_path / ('x' * 300))
    with pytest.raises(tosc.StorageError) as caught:
        tosc.Manager(tosc.FileBackend(path)).write(1)
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize('path', ['', 'a\0b', b'a\0b'])
def test_paths_that_cannot_be(path):
    with pytest.raises((ValueError, tosc.StorageError)):
        tosc.Manager(tosc.FileBackend(path)).write(1)


@pytest.mark.parametrize('path', [None, 5, 1.5, [], object()])
def test_paths_that_are_none(path):
    with pytest.raises(TypeError):
        tosc.FileBackend(path)


def test_dangling_symbolic_links_are_not_followed_to_create_a_file(tmp_path):
    os.symlink(tmp_path / 'target', tmp_path / 'store')
    os.symlink(tmp_path / 'lock-target', tmp_path / 'store.lock')
    try:
        with tosc.Manager(tosc.FileBackend(tmp_path / 'store')) as manager:
            manager.write(1)
    except tosc.StorageError as error:
        assert str(tmp_path / 'store') in str(error)
    assert not (tmp_path / 'target').exists()
    assert not (tmp_path / 'lock-target').exists()


UNPRIVILEGED = '''
    import errno
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
'''


def test_no_permission_to_the_file(tmp_path):
    directory = tmp_path / 'open'
    directory.mkdir()
    directory.chmod(0o777)
    tmp_path.chmod(0o755)
    path = directory / 'store'
    with tosc.Manager(tosc.FileBackend(path)) as manager:
        manager.write([1])
    for file in directory.iterdir():
        file.chmod(0)
    before = path.stat()
    run_unprivileged('''
    for use in (lambda m: m.read(), lambda m: m.snapshot(), lambda m: m.write([2])):
        try:
            use(tosc.Manager(tosc.FileBackend(sys.argv[1])))
        except tosc.StorageError as error:
            assert isinstance(error, PermissionError), type(error)
            assert sys.argv[1] in str(error), error
        else:
            raise AssertionError('no error')
    ''', path)
    after = path.stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def run_unprivileged(code, path, *args):
    """Runs it as nobody, for whom the way to the path is opened; root may do everything."""
    directory = os.path.dirname(str(path))
    while os.getuid() == 0 and directory not in ('/', '/tmp'):
        status = os.stat(directory)
        if not status.st_mode & 0o001:
            os.chmod(directory, status.st_mode | 0o011)
        directory = os.path.dirname(directory)
    return run_child(textwrap.dedent(UNPRIVILEGED) + textwrap.dedent(code), path, *args)


def test_no_permission_to_the_directory(tmp_path):
    directory = tmp_path / 'closed'
    directory.mkdir()
    directory.chmod(0o555)
    run_unprivileged('''
    try:
        tosc.Manager(tosc.FileBackend(sys.argv[1])).write([2])
    except tosc.StorageError as error:
        assert isinstance(error, PermissionError), type(error)
        assert os.path.dirname(sys.argv[1]) in str(error), error
    else:
        raise AssertionError('no error')
    ''', directory / 'store')
    assert os.listdir(directory) == []


def test_a_file_that_may_be_read_but_not_written(tmp_path):
    directory = tmp_path / 'closed'
    directory.mkdir()
    path = directory / 'store'
    with tosc.Manager(tosc.FileBackend(path)) as manager:
        manager.write({'a': [1]})
    for file in directory.iterdir():
        file.chmod(0o444)
    directory.chmod(0o555)
    before = path.read_bytes()
    run_unprivileged('''
    manager = tosc.Manager(tosc.FileBackend(sys.argv[1]))
    data = manager.read()
    assert data == {'a': [1]}
    for change in (lambda: data['a'].append(2), lambda: manager.write([3])):
        try:
            change()
        except tosc.StorageError as error:
            assert isinstance(error, (PermissionError, OSError)), type(error)
            assert error.errno in (errno.EACCES, errno.EROFS, errno.EPERM), error.errno
            assert os.path.dirname(sys.argv[1]) in str(error), error
        else:
            raise AssertionError('no error')
        assert data == {'a': [1]} == manager.refresh()
        assert manager.is_linked(data['a'])
    ''', path)
    assert path.read_bytes() == before


# ---- a full disk ----

FULL = '''
    import errno
    path = sys.argv[1]
    manager = tosc.Manager(tosc.FileBackend(path))
    other = tosc.Manager(tosc.FileBackend(path))
    manager.write({'n': 0, 'list': [], 'keep': [1]})
    data, keep = manager.read(), manager.read()['keep']
    done = 0
    try:
        while done < 10000:
            with manager.transaction():
                data['n'] = done + 1
                data['list'].append('x' * 5000)
            done += 1
    except tosc.StorageError as error:
        assert error.errno in (errno.ENOSPC, errno.EFBIG), error
        assert path in str(error), error
        assert not isinstance(error, tosc.TransactionError)
    else:
        raise AssertionError('the disk never got full')
    # Memory is as it was, and so is the store; a second try fails in the same way.
    for _ in range(3):
        assert data['n'] == done == len(data['list']), (data['n'], done, len(data['list']))
        assert data['keep'] is keep and manager.is_linked(keep) and not manager.is_dirty(data)
        assert manager.refresh() is data
        assert data['n'] == done == len(data['list'])
        assert other.refresh() == data
        fresh = tosc.Manager(tosc.FileBackend(path))
        assert fresh.read() == data
        fresh.close()
        try:
            data['list'].append('y' * 400000)
        except tosc.StorageError as error:
            assert error.errno in (errno.ENOSPC, errno.EFBIG), error
        else:
            raise AssertionError('that much cannot fit')
        try:
            manager.write(['z' * 400000])
        except tosc.StorageError as error:
            assert error.errno in (errno.ENOSPC, errno.EFBIG), error
        else:
            raise AssertionError('that much cannot fit')
    # No temporary file is left; one of a compaction under way goes away.
    left = []
    for _ in range(500):
        left = set(os.listdir(os.path.dirname(path))) - {'filler', 'store', 'store.lock'}
        if not left:
            break
        time.sleep(0.01)
    assert not left, left
    make_room()
    with manager.transaction():
        data['list'].clear()
        data['n'] = -1
    manager.write({'new': 'y' * 1000})
    assert other.refresh() == {'new': 'y' * 1000} == manager.read()
    print('ok', done)
'''


def test_a_full_disk(tmp_path):
    mount = shutil.which('mount')
    unshare = shutil.which('unshare')
    if not mount or not unshare:
        pytest.skip('needs mount and unshare')
    script = tmp_path / 'script.py'
    script.write_text(PRELUDE.format(timeout=40, here=HERE) + textwrap.dedent('''
        def make_room():
            os.unlink(os.path.dirname(path) + '/filler')
    ''') + textwrap.dedent(FULL))
    (tmp_path / 'small').mkdir()
    options = ['-m'] if os.getuid() == 0 else ['-rm']
    command = (f'mount -t tmpfs -o size=512k tosc "$1" && '
               f'dd if=/dev/zero of="$1/filler" bs=1k count=200 2>/dev/null && '
               f'exec "$2" "$3" "$1/store"')
    probe = subprocess.run([unshare, *options, 'sh', '-c', 'mount -t tmpfs -o size=64k t "$1"',
                            'sh', str(tmp_path / 'small')], capture_output=True, timeout=30)
    if probe.returncode != 0:
        pytest.skip('may not mount: ' + probe.stderr.decode())
    done = subprocess.run([unshare, *options, 'sh', '-c', command, 'sh',
                           str(tmp_path / 'small'), sys.executable, str(script)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith('ok')


def test_a_limit_on_the_size_of_files(tmp_path):
    output = run_child(textwrap.dedent('''
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))

        def make_room():
            resource.setrlimit(resource.RLIMIT_FSIZE,
                               (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ''') + textwrap.dedent(FULL), tmp_path / 'store')
    assert output.startswith('ok')


def test_what_cannot_be_appended_any_more_replaces_the_whole(tmp_path):
    """A file may be at its limit though what it has to keep is not."""
    output = run_child('''
        import errno
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        manager = tosc.Manager(tosc.FileBackend(sys.argv[1]))
        manager.write({'much': b'x' * 600_000, 'n': 0})
        data = manager.read()
        for n in range(1, 20):
            with manager.transaction():
                data['n'] = n
                data['some'] = [bytes([n]) * 190_000]
        other = tosc.Manager(tosc.FileBackend(sys.argv[1]))
        assert other.snapshot() == manager.snapshot()
        assert other.read()['n'] == 19 and other.read()['some'][0][0] == 19
        try:
            data['too much'] = b'x' * 300_000
        except tosc.StorageError as error:
            print(errno.errorcode[error.errno])
        del data['much']
        data['too much'] = b'x' * 300_000
        assert tosc.Manager(tosc.FileBackend(sys.argv[1])).snapshot() == manager.snapshot()
    ''', tmp_path / 'store')
    assert output == 'EFBIG'


# ---- foreign, truncated and damaged files ----

FOREIGN = {
    'text': b'Dear diary,\nthis is not a store.\n' * 50,
    'one byte': b'x',
    'zeros': b'\0' * 4096,
    'random': random.Random(7).randbytes(5000),
    'pickle': pickle.dumps({'a': [1, 2, 3]}),
    'gzip': gzip.compress(b'something' * 100),
    'elf': b'\x7fELF' + b'\2\1\1' + b'\0' * 500,
    'newline': b'\n',
}


@pytest.mark.parametrize('name', FOREIGN)
def test_a_foreign_file_is_refused_and_left_alone(tmp_path, name):
    path = tmp_path / 'foreign'
    path.write_bytes(FOREIGN[name])
    for use in (lambda m: m.read(), lambda m: m.refresh(), lambda m: m.snapshot(),
                lambda m: m.write([1]), lambda m: m.try_write([1], None),
                lambda m: m.try_write([1], 1)):
        with tosc.Manager(tosc.FileBackend(path)) as manager:
            with pytest.raises(tosc.DataError) as caught:
                use(manager)
            assert str(path) in str(caught.value)
            assert isinstance(caught.value, ValueError)
            assert path.read_bytes() == FOREIGN[name]


def test_a_manager_of_a_foreign_file_goes_on_when_it_has_been_mended(tmp_path):
    path = tmp_path / 'store'
    path.write_bytes(FOREIGN['text'])
    with tosc.Manager(tosc.FileBackend(path)) as manager:
        with pytest.raises(tosc.DataError):
            manager.read()
        path.unlink()
        manager.write([1])
        assert manager.read() == [1]


def history(path, commits=6, durable=False):
    """Writes a store of some commits; gives its states by size of the file after each."""
    states = []
    with tosc.Manager(tosc.FileBackend(path, durable=durable)) as manager:
        manager.write({'n': 0, 'list': [0], 'text': 'base' * 40})
        states.append((os.path.getsize(path), manager.snapshot()))
        data = manager.read()
        for n in range(1, commits):
            with manager.transaction():
                data['n'] = n
                data['list'].append({'k': [n]})
            states.append((os.path.getsize(path), manager.snapshot()))
    return states


def put(path, content):
    """Puts the bytes there as a file that nobody on this machine has used yet."""
    for name in (path, str(path) + '.lock'):
        if os.path.exists(name):
            os.unlink(name)
    path.write_bytes(content)


def look(path):
    """What a new Manager says of a file: a state, MISSING if it is empty, or the error."""
    try:
        with tosc.Manager(tosc.FileBackend(path)) as manager:
            return manager.snapshot(MISSING)
    except tosc.DataError as error:
        assert str(path) in str(error), error
        return error


def test_a_truncated_file_shows_an_earlier_state_or_an_error(tmp_path):
    original = tmp_path / 'original'
    states = history(original)
    content = original.read_bytes()
    assert [size for size, _ in states] == sorted({size for size, _ in states})
    assert states[-1][0] == len(content)
    sizes = [size for size, _ in states]
    path = tmp_path / 'cut'
    near_the_ends = {end + i for end in sizes for i in (-9, -8, -1, 0, 1, 7, 8, 9)}
    for size in sorted({*range(0, len(content), 7), *range(70), *near_the_ends}):
        put(path, content[:size])
        found = look(path)
        assert content[:size].startswith(path.read_bytes()), 'at most the torn tail is cut off'
        if size >= sizes[0]:
            # A torn tail is dropped; all that was complete is there.
            complete = max(state['n'] for length, state in states if length <= size)
            assert found == states[complete][1], size
        else:
            assert isinstance(found, tosc.DataError) or (size == 0 and found is MISSING), size


def test_after_a_torn_tail_the_next_commit_goes_on(tmp_path):
    original = tmp_path / 'original'
    states = history(original)
    content = original.read_bytes()
    for cut in (1, 5, 20, (states[-1][0] - states[-2][0]) - 1):
        path = tmp_path / f'cut{cut}'
        put(path, content[:-cut])
        with tosc.Manager(tosc.FileBackend(path)) as manager, \
                tosc.Manager(tosc.FileBackend(path)) as other:
            assert manager.read() == states[-2][1] == other.read()
            manager.read()['n'] = 'after'
            assert other.refresh()['n'] == 'after'
        assert look(path)['n'] == 'after'
        with tosc.Manager(tosc.FileBackend(path)) as manager:
            assert manager.read()['list'] == states[-2][1]['list']


def test_garbage_after_the_end_is_dropped_as_a_torn_write(tmp_path):
    original = tmp_path / 'original'
    states = history(original)
    for garbage in (b'\0' * 100, b'\0' * 70_000, b'x', random.Random(3).randbytes(50)):
        path = tmp_path / 'more'
        put(path, original.read_bytes() + garbage)
        with tosc.Manager(tosc.FileBackend(path)) as manager:
            assert manager.read() == states[-1][1]
            manager.read()['n'] = 'after'
        assert look(path)['n'] == 'after'


@pytest.mark.parametrize('flip', [0x01, 0x80, 0xff])
def test_a_flipped_bit_is_noticed(tmp_path, flip):
    """No flip shows anything but a true state; those before the last record are errors."""
    original = tmp_path / 'original'
    states = history(original, commits=4)
    content = original.read_bytes()
    path = tmp_path / 'flipped'
    last_record = states[-2][0]
    silent = []
    for offset in range(len(content)):
        damaged = bytearray(content)
        damaged[offset] ^= flip
        put(path, damaged)
        found = look(path)
        assert path.read_bytes() == damaged, 'nothing is overwritten'
        if isinstance(found, tosc.DataError):
            continue
        if found == states[-1][1]:
            silent.append(offset)
        else:
            assert offset >= last_record and found == states[-2][1], (offset, found)
    assert len(silent) <= 64, f'flips at {silent} do not matter to anybody?'


def test_damage_before_the_end_stops_writers_as_well(tmp_path):
    path = tmp_path / 'store'
    states = history(path)
    content = bytearray(path.read_bytes())
    for offset in ((states[0][0] + states[1][0]) // 2, states[0][0] - 10):
        damaged = bytearray(content)
        damaged[offset] ^= 0xff
        put(path, damaged)
        with tosc.Manager(tosc.FileBackend(path)) as manager:
            for use in (lambda m: m.read(), lambda m: m.write([1]),
                        lambda m: m.try_write([1], 6)):
                with pytest.raises(tosc.DataError) as caught:
                    use(manager)
                assert str(path) in str(caught.value)
        assert path.read_bytes() == damaged


def test_damage_is_named_with_its_place(tmp_path):
    path = tmp_path / 'store'
    states = history(path)
    content = bytearray(path.read_bytes())
    content[states[1][0] + 30] ^= 0xff
    path.write_bytes(content)
    error = look(path)
    assert isinstance(error, tosc.DataError)
    numbers = [int(word) for word in ''.join(
        c if c.isdigit() else ' ' for c in str(error).replace(str(path), '')).split()]
    assert any(states[1][0] <= number <= states[1][0] + 40 for number in numbers), str(error)


def test_a_manager_survives_damage_done_while_it_is_open(tmp_path):
    path = tmp_path / 'store'

    def replace(content):
        (tmp_path / 'other').write_bytes(content)
        os.replace(tmp_path / 'other', path)

    with tosc.Manager(tosc.FileBackend(path)) as manager:
        manager.write({'n': 1})
        data = manager.read()
        good = path.read_bytes()
        replace(b'garbage' * 100)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with pytest.raises(tosc.DataError):
                manager.refresh()
            with pytest.raises(tosc.DataError):
                data['n'] = 2
            assert data == {'n': 1}
            replace(good)
            wait_until(lambda: _refreshes(manager), what='the mended file')
        data = manager.refresh()
        data['n'] = 3
    assert look(path) == {'n': 3}


def _refreshes(manager):
    try:
        return manager.refresh() == {'n': 1}
    except tosc.Error:
        return False


@pytest.mark.parametrize('data', [b'', b'garbage', pickle.dumps([1, 2, 3]), b'\x80\x05.',
                                  pickle.dumps({'version': 1}), struct.pack('<QQ', 1, 2)])
def test_foreign_bytes_in_any_backend(store, data):
    store.backend().write(data)
    manager = store.manager()
    with pytest.raises(tosc.DataError):
        manager.read()
    with pytest.raises(tosc.DataError):
        manager.snapshot()
    version, kept = store.backend().read()
    assert bytes(kept) == data and version is not None


def test_a_pickle_bomb_in_a_store_is_not_run_as_a_record(store, tmp_path):
    crater = str(tmp_path / 'crater')

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (crater,))

    store.backend().write(pickle.dumps(Bomb()))
    with pytest.raises((tosc.DataError, tosc.SerializationError)):
        store.manager().read()
    assert not os.path.exists(crater)


# ---- values that cannot be stored ----

class Unpicklable:
    def __reduce_ex__(self, protocol):
        raise RuntimeError('cannot be pickled')


UNSTORABLE = {
    'lock': threading.Lock, 'function': lambda: lambda: None,
    'generator': lambda: (n for n in ()), 'TextIOWrapper': lambda: open(os.devnull),
    'socket': socket.socket, 'module': lambda: os, 'frame': sys._getframe,
    'memoryview': lambda: memoryview(b'x'), 'Local': lambda: type('Local', (), {})(),
    'InprocBackend': tosc.InprocBackend, 'Manager': lambda: tosc.Manager(tosc.InprocBackend()),
    # Custom objects, of which a part is what cannot be stored.
    'lock ': Locked, 'lock  ': queue.Queue, 'lock   ': threading.current_thread,
}


@pytest.mark.filterwarnings('ignore::ResourceWarning')
@pytest.mark.parametrize('type_name', UNSTORABLE)
def test_a_value_that_cannot_be_stored_is_refused_with_its_type_named(store, type_name):
    value = UNSTORABLE[type_name]()
    one, two = store.pair({'list': [0], 'thing': Thing(x=1)})
    data = one.read()
    before, version = shape(one.snapshot()), one.version
    for put in (lambda: data.__setitem__('x', value),
                lambda: data['list'].append([{'deep': ({'er': value},)}]),
                lambda: data['list'].__setitem__(slice(0, 1), [1, 2, [value]]),
                lambda: data.update(a=1, b=[value]),
                lambda: setattr(data['thing'], 'y', [value]),
                lambda: one.write({'new': [value]}),
                lambda: one.try_write([value], version)):
        with pytest.raises(TypeError) as caught:
            put()
        assert type_name.strip() in str(caught.value), caught.value
        with pytest.raises(TypeError):
            with one.transaction():
                data['list'].append('with it')
                put()
        assert shape(one.snapshot()) == before == shape(two.refresh())
        assert one.version == version == two.version
    data['list'].append(1)
    assert two.refresh()['list'] == [0, 1]


def test_the_path_to_what_cannot_be_stored_is_named(inproc_store):
    manager = inproc_store.manager({})
    with pytest.raises(TypeError) as caught:
        manager.read()['config'] = {'servers': [{}, {'guard': threading.Lock()}]}
    for part in ('lock', 'servers', '1', 'guard'):
        assert part in str(caught.value), caught.value


@pytest.mark.parametrize('make', [Unpicklable, lambda: [Unpicklable()],
                                  lambda: {'k': (Unpicklable(),)}])
def test_an_object_whose_own_pickling_fails(store, make):
    manager = store.manager({'a': 1})
    with pytest.raises(Exception) as caught:
        manager.read()['x'] = make()
    assert 'cannot be pickled' in str(caught.value) or isinstance(caught.value, TypeError)
    assert manager.read() == {'a': 1} == stored(store)
    manager.read()['b'] = 2
    assert stored(store) == {'a': 1, 'b': 2}


@pytest.mark.parametrize('value', [
    {1: [2], (3, 4): {5}}, {None: 1, True: 2, 1.5: 3}, {frozenset({1}): 'x'},
    [float('inf'), float('-inf'), 1e308, 2 ** 10000, -2 ** 64], ['\ud800', '\0', 'ünï', ''],
    [b'\0' * 1000, bytes(range(256))], [[], {}, set(), (), bytearray(), '', b''],
    {'x' * 10000: 'y' * 100000}, [None, NotImplemented, ...], [1 + 2j, slice(1, 2)]])
def test_unusual_but_storable_values(store, value):
    one, two = store.pair({'v': value})
    for view in (one.snapshot(), two.snapshot(), stored(store)):
        assert view == {'v': value}
    one.read()['w'] = value
    assert two.refresh().keys() == {'v', 'w'}
    assert two.snapshot()['w'] == value


# ---- classes that cannot be found ----

def test_a_class_that_cannot_be_imported_on_load(file_store):
    manager = file_store.manager({'a': 1})
    manager.read()
    run_child('''
        import types
        module = types.ModuleType('vanished_module')
        exec('class Vanished:\\n    pass', module.__dict__)
        sys.modules['vanished_module'] = module
        manager = tosc.Manager(tosc.FileBackend(sys.argv[1]))
        manager.read()['x'] = [module.Vanished()]
    ''', file_store.path)
    before = open(file_store.path, 'rb').read()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for use in (manager.refresh, manager.snapshot,
                    lambda: tosc.Manager(file_store.backend()).read()):
            with pytest.raises((tosc.SerializationError, tosc.DataError)) as caught:
                use()
            assert 'anished' in str(caught.value)
    assert open(file_store.path, 'rb').read() == before
    run_child('''
        import types
        module = types.ModuleType('vanished_module')
        exec('class Vanished:\\n    pass', module.__dict__)
        sys.modules['vanished_module'] = module
        manager = tosc.Manager(tosc.FileBackend(sys.argv[1]))
        del manager.read()['x']
        manager.write({'b': 2})
    ''', file_store.path)
    wait_until(lambda: _quietly(manager) == {'b': 2}, what='the watcher to go on')


def _quietly(manager):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return manager.refresh()
    except tosc.Error:
        return None


# ---- wrong arguments ----

@pytest.mark.parametrize('backend', [None, 5, 'path', object(), dict, tosc.InprocBackend])
def test_a_manager_wants_a_backend(backend):
    with pytest.raises(TypeError):
        tosc.Manager(backend)


@pytest.mark.parametrize('arguments,options', [
    ((), {}), ((tosc.InprocBackend(), 1), {}), ((tosc.InprocBackend(),), {'nonsense': 1}),
    ((tosc.InprocBackend(),), {'key': 'text'}), ((tosc.InprocBackend(),), {'key': 5}),
    ((tosc.InprocBackend(),), {'allowed_classes': 5}),
    ((tosc.InprocBackend(),), {'allowed_classes': [5]})])
def test_wrong_arguments_of_a_manager(arguments, options):
    with pytest.raises(TypeError):
        tosc.Manager(*arguments, **options)


def test_an_empty_key_is_refused():
    with pytest.raises(ValueError, match='key'):
        tosc.Manager(tosc.InprocBackend(), key=b'')


@pytest.mark.parametrize('expected', ['1', 1.0, [], object()])
def test_try_write_wants_a_version(store, expected):
    manager = store.manager([1])
    with pytest.raises(TypeError):
        manager.try_write([2], expected)
    if store.kind != 'python':
        with pytest.raises(TypeError):
            store.backend().try_write(b'', expected)
    assert stored(store) == [1]


@pytest.mark.parametrize('expected', [-1, 0, 2 ** 63, 2 ** 200, -2 ** 200])
def test_versions_that_never_were(store, expected):
    manager = store.manager([1])
    assert manager.try_write([2], expected) is False
    assert stored(store) == [1]


@pytest.mark.parametrize('data', ['text', None, 5, [1], object()])
def test_backends_want_bytes(data):
    for backend in (tosc.InprocBackend(), ):
        with pytest.raises(TypeError):
            backend.write(data)
        with pytest.raises(TypeError):
            backend.try_write(data, None)
        assert backend.read() == (None, None)


@pytest.mark.parametrize('call', [
    lambda m: m.read(1, 2), lambda m: m.write(), lambda m: m.write(1, 2),
    lambda m: m.try_write(1), lambda m: m.transaction(1), lambda m: m.is_linked(),
    lambda m: m.is_dirty(), lambda m: m.snapshot(1, 2), lambda m: m.close(1),
    lambda m: m.write(nonsense=1)])
def test_wrong_numbers_of_arguments(inproc_store, call):
    manager = inproc_store.manager([1])
    with pytest.raises(TypeError):
        call(manager)
    assert manager.read() == [1]


@pytest.mark.parametrize('value', [1, 'text', None, [1], {'a': 1}, object()])
def test_linked_and_dirty_of_what_is_no_wrapper(inproc_store, value):
    """Such a thing is never linked nor dirty; asking may also be called an error."""
    manager = inproc_store.manager([value] if value.__class__ is not object else [1])
    for ask in (manager.is_linked, manager.is_dirty):
        try:
            assert ask(value) is False
        except TypeError:
            pass


def test_attributes_of_a_manager_cannot_be_overwritten(inproc_store):
    manager = inproc_store.manager([1])
    for name in ('version', 'backend', 'closed'):
        with pytest.raises(AttributeError):
            setattr(manager, name, 1)


def test_a_transaction_cannot_be_made_by_hand():
    with pytest.raises(TypeError):
        tosc.Transaction()


# ---- after close ----

def test_use_after_close(store):
    manager = store.manager({'a': [1]})
    data = manager.read()
    manager.close()
    manager.close()
    assert manager.closed
    for use in (manager.read, manager.refresh, manager.snapshot, lambda: manager.read(None),
                lambda: manager.write(1), lambda: manager.try_write(1, None),
                lambda: manager.transaction().__enter__(),
                lambda: data.__setitem__('b', 1), lambda: data['a'].append(2),
                tosc.transactional(manager)(lambda: None),
                manager.__enter__):
        with pytest.raises(tosc.ClosedError):
            use()
    assert stored(store) == {'a': [1]}
    with tosc.Manager(store.backend()) as again:
        assert again.read() == {'a': [1]}


def test_close_inside_of_a_transaction(store):
    manager = store.manager([0])
    with pytest.raises(tosc.Error):
        with manager.transaction():
            manager.read().append(1)
            manager.close()
    manager.close()
    assert stored(store) == [0]


def test_close_by_another_thread_while_transactions_are_open(store):
    manager = store.manager([0])
    with pytest.raises(tosc.ClosedError):
        with manager.transaction():
            manager.read().append(1)
            Thread(manager.close).result(10)
    assert stored(store) == [0]


def test_with_closes_also_after_an_exception(store):
    with pytest.raises(KeyError):
        with tosc.Manager(store.backend()) as manager:
            raise KeyError
    assert manager.closed


def test_many_managers_opened_and_closed(store):
    store.manager([1])
    threads = threading.active_count()
    descriptors = len(os.listdir('/proc/self/fd'))
    for _ in range(100):
        with tosc.Manager(store.backend()) as manager:
            assert manager.read() == [1]
    for _ in range(30):
        tosc.Manager(store.backend()).read()
    # A watcher that was just fetching had its Manager for that moment: collected the next time.
    wait_until(lambda: gc.collect() >= 0 and threading.active_count() <= threads
               and len(os.listdir('/proc/self/fd')) <= descriptors + 4,  # a few are kept for reuse
               what='the end of threads and descriptors')


def test_threads_of_closed_and_dropped_managers_end(store):
    def count():
        return len(os.listdir('/proc/self/task'))

    store.manager([1])
    before = count()
    managers = [tosc.Manager(store.backend()) for _ in range(10)]
    for manager in managers:
        manager.read()
    for manager in managers[:5]:
        manager.close()
    del manager, managers
    gc.collect()
    wait_until(lambda: count() <= before, what='the end of the watchers')


# ---- backends that fail ----

class Flaky(PyBackend):
    """Raises what it is told to, as often as it is told."""

    def __init__(self, box=None):
        super().__init__(box)
        self.fail = {}

    def _maybe(self, name):
        if self.fail.get(name):
            error = self.fail[name].pop(0)
            raise error

    def read(self):
        self._maybe('read')
        return super().read()

    def write(self, new):
        self._maybe('write')
        return super().write(new)

    def try_write(self, new, expected):
        self._maybe('try_write')
        return super().try_write(new, expected)

    def target_wait(self):
        self._maybe('target_wait')
        return super().target_wait()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['target_wait', 'read'])
@pytest.mark.parametrize('error', [OSError(5, 'hiccup'), ValueError('mine'),
                                   ZeroDivisionError()])
def test_the_watcher_survives_errors(name, error):
    """It once died on its first error, and the Manager never heard of anything again."""
    backend = Flaky()
    with tosc.Manager(backend) as one, tosc.Manager(PyBackend(backend.box)) as two:
        one.write([0])
        root = one.read()
        two.refresh().append(1)
        wait_until(lambda: root == [0, 1])
        backend.fail = {name: [error] * 3}
        two.read().append(2)
        wait_until(lambda: list(root) == [0, 1, 2], timeout=20,
                   what='news after the errors of the watcher')
        wait_until(lambda: not backend.fail[name], timeout=20, what='the next attempts')
        two.read().append(3)
        wait_until(lambda: list(root) == [0, 1, 2, 3], timeout=20)


def test_the_watchers_errors_are_reported():
    backend = Flaky()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        with tosc.Manager(backend) as one:
            one.write([0])
            one.read()
            backend.fail = {'target_wait': [OSError(5, 'hiccup of the watcher')]}
            wait_until(lambda: caught, what='a warning')
    assert any('hiccup of the watcher' in str(warning.message) for warning in caught)


def test_an_io_error_at_commit_leaves_memory_as_it_was():
    backend = Flaky()
    with tosc.Manager(backend) as manager:
        manager.write({'a': [1], 'b': {2}})
        data = manager.read()
        a = data['a']
        for error in (OSError(errno.EIO, 'broken'), OSError(errno.ENOSPC, 'full'),
                      PermissionError(errno.EACCES, 'mine')):
            backend.fail = {'try_write': [error]}
            with pytest.raises(OSError) as caught:
                with manager.transaction():
                    a.append(2)
                    data['b'].add(3)
                    data['c'] = {}
                    del data['a']
            assert caught.value.errno == error.errno
            assert not isinstance(caught.value, tosc.TransactionError)
            assert data == {'a': [1], 'b': {2}}
            assert data['a'] is a and manager.is_linked(a) and not manager.is_dirty(a)
            backend.fail = {'try_write': [error]}
            with pytest.raises(OSError):
                a.append(2)
            assert a == [1]
        a.append(3)
        assert manager.refresh() == {'a': [1, 3], 'b': {2}}


def test_a_commit_whose_reply_was_lost_is_looked_up():
    """It was stored, the reply was an error: the store says that it is there."""
    class Lossy(PyBackend):
        lose = False

        def try_write(self, new, expected):
            result = super().try_write(new, expected)
            if self.lose:
                self.lose = False
                raise TimeoutError('reply lost')
            return result

    backend = Lossy()
    with tosc.Manager(backend) as manager:
        manager.write({'n': 0})
        data = manager.read()
        backend.lose = True
        try:
            data['n'] += 1
        except tosc.TransactionError:
            pytest.fail('reported as a conflict')
        except (tosc.UnknownOutcomeError, OSError):
            pass
        assert manager.refresh()['n'] == 1
        data['n'] += 1
        assert manager.refresh()['n'] == 2


@pytest.mark.parametrize('answer', [None, 5, 'text', (1,), (1, 2, 3), ('1', b''), (1, 'text'),
                                    (1.5, b'')])
def test_a_backend_whose_read_returns_nonsense(answer):
    class Nonsense(PyBackend):
        def read(self):
            return answer

    with tosc.Manager(Nonsense()) as manager:
        with pytest.raises((TypeError, ValueError)):
            manager.read()


def test_subclasses_of_manager_and_backends(store):
    class Mine(tosc.Manager):
        def __init__(self, backend, name):
            super().__init__(backend)
            self.name = name

        def write(self, new):
            super().write({'wrapped': new})

    with Mine(store.backend(), 'x') as manager:
        manager.write(1)
        assert manager.name == 'x'
        assert manager.read() == {'wrapped': 1}

    class Loud(tosc.InprocBackend):
        pass

    with tosc.Manager(Loud()) as manager:
        manager.write([1])
        manager.read().append(2)
        assert manager.refresh() == [1, 2]


def test_exceptions_form_the_documented_tree():
    assert issubclass(tosc.Error, Exception)
    for name, bases in {'TransactionError': (), 'TransactionRetryError': (tosc.TransactionError,),
                        'TransactionTimeoutError': (tosc.TransactionError, TimeoutError),
                        'SerializationError': (TypeError,), 'StorageError': (OSError,),
                        'DataError': (ValueError,), 'UnknownOutcomeError': (),
                        'ClosedError': (ValueError,),
                        'EmptyStoreError': (LookupError,)}.items():
        error = getattr(tosc, name)
        assert issubclass(error, (tosc.Error,))
        for base in bases:
            assert issubclass(error, base), (name, base)
        assert error.__module__ == 'tosc'
        assert pickle.loads(pickle.dumps(error('text'))).args == ('text',)
    distinct = [tosc.TransactionError, tosc.SerializationError, tosc.StorageError,
                tosc.DataError, tosc.UnknownOutcomeError]
    for one in distinct:
        for other in distinct:
            assert one is other or not issubclass(one, other)


@pytest.mark.skipif(SHM is None, reason='no /dev/shm')
def test_an_error_while_loading_does_not_disturb_the_objects_that_are_held(quick_shared_store):
    manager = quick_shared_store.manager({'a': [1]})
    data = manager.read()
    inner = data['a']
    run_child('''
        import types
        module = types.ModuleType('vanished_module')
        exec('class Vanished:\\n    pass', module.__dict__)
        sys.modules['vanished_module'] = module
        manager = tosc.Manager(open_store(sys.argv[1]))
        with manager.transaction():
            manager.read()['a'].append(2)
            manager.read()['x'] = module.Vanished()
    ''', quick_shared_store.path)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(tosc.Error):
            manager.refresh()
        assert inner == [1] and data == {'a': [1]} and data['a'] is inner, 'all or nothing'
        with pytest.raises(tosc.Error):
            data['b'] = 1
        assert data == {'a': [1]}
        manager.write({'c': 3})
    assert stored(quick_shared_store) == {'c': 3}
