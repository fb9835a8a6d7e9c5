"""FileBackend: its arguments, other processes, the file, and what can go wrong with it."""
# SPDX-License-Identifier: Apache-2.0
import copy
import multiprocessing
import os
import pathlib
import pickle
import random
import shutil
import stat
import subprocess
import time

import pytest

import tosc
from backend_places import BIG, LabelledFile, file_place, path  # noqa: F401
from harness import SCALE, Thread, new_directory, run_child


# ---- FileBackend: arguments and attributes ----

class PathObject:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


@pytest.mark.parametrize('make', [str, os.fsencode, pathlib.Path, PathObject,
                                  lambda path: PathObject(os.fsencode(path))],
                         ids=['str', 'bytes', 'Path', 'PathLike', 'bytes PathLike'])
def test_paths_may_be_str_bytes_or_path_like(path, make):
    backend = tosc.FileBackend(make(path), make(path + '-lock'))
    assert (backend.file_path, backend.lock_path) == (path, path + '-lock')
    backend.write(b'1')
    assert os.path.exists(path)
    assert tosc.FileBackend(path, path + '-lock').read()[1] == b'1'


def test_a_name_that_is_no_utf8_works(tmp_path):
    name = os.fsencode(tmp_path) + b'/st\xf6re'
    backend = tosc.FileBackend(name)
    backend.write(b'1')
    assert os.path.exists(name)
    assert os.fsencode(backend.file_path) == name
    assert tosc.FileBackend(backend.file_path).read()[1] == b'1'
    repr(backend)


def test_attributes_tell_the_arguments(path):
    backend = tosc.FileBackend(path)
    assert backend.file_path == path
    assert backend.lock_path == path + '.lock'
    assert backend.durable is True
    assert backend.shared_by_hosts is False
    assert backend.poll_interval == 0.1
    backend = tosc.FileBackend(path, path + 'x', durable=False, shared_by_hosts=True,
                               poll_interval=2)
    assert backend.lock_path == path + 'x'
    assert backend.durable is False
    assert backend.shared_by_hosts is True
    assert backend.poll_interval == 2.0


@pytest.mark.parametrize('name', ['file_path', 'lock_path', 'durable', 'shared_by_hosts',
                                  'poll_interval'])
def test_attributes_cannot_be_set(path, name):
    backend = tosc.FileBackend(path)
    with pytest.raises(AttributeError):
        setattr(backend, name, getattr(backend, name))


def test_arguments_may_be_named_as_in_the_manual(path):
    backend = tosc.FileBackend(file_path=path, lock_path=path + 'x')
    assert (backend.file_path, backend.lock_path) == (path, path + 'x')


def test_repr_tells_what_is_not_the_default(path):
    assert repr(tosc.FileBackend(path)) == f'FileBackend({path!r})'
    assert repr(tosc.FileBackend(path, '/x')) == f"FileBackend({path!r}, '/x')"
    backend = tosc.FileBackend(path, durable=False, shared_by_hosts=True)
    assert repr(backend) == f'FileBackend({path!r}, durable=False, shared_by_hosts=True)'
    assert 'InprocBackend' in repr(tosc.InprocBackend())


@pytest.mark.parametrize('bad', [1, None, [], 1.5, PathObject(5)], ids=str)
def test_a_file_path_of_another_type_is_a_type_error(bad):
    with pytest.raises(TypeError, match='file_path must be str, bytes or os.PathLike'):
        tosc.FileBackend(bad)


def test_a_lock_path_of_another_type_is_a_type_error(path):
    with pytest.raises(TypeError, match='lock_path must be str, bytes or os.PathLike'):
        tosc.FileBackend(path, 5)


@pytest.mark.parametrize('argument', ['file_path', 'lock_path'])
@pytest.mark.parametrize('bad, message', [('', 'must not be empty'),
                                          ('a\0b', 'must not contain a null character'),
                                          (b'a\0b', 'must not contain a null character')])
def test_impossible_paths_are_a_value_error(path, argument, bad, message):
    with pytest.raises(ValueError, match=f'{argument} {message}'):
        tosc.FileBackend(**{'file_path': path, argument: bad})


def test_the_store_cannot_be_its_own_lock(path):
    with pytest.raises(ValueError, match="lock_path must not be the store's own file"):
        tosc.FileBackend(path, path)


@pytest.mark.parametrize('bad', [0, -1, 0.0001, 1e9, float('nan'), float('inf')])
def test_an_impossible_poll_interval_is_a_value_error(path, bad):
    with pytest.raises(ValueError, match='poll_interval must'):
        tosc.FileBackend(path, poll_interval=bad)


@pytest.mark.parametrize('bad', ['1', None, []], ids=repr)
def test_a_poll_interval_is_a_number(path, bad):
    with pytest.raises(TypeError, match='poll_interval must be a number of seconds'):
        tosc.FileBackend(path, poll_interval=bad)


def test_options_must_be_named_and_known(path):
    with pytest.raises(TypeError):
        tosc.FileBackend(path, None, True)
    with pytest.raises(TypeError):
        tosc.FileBackend(path, timeout=1)
    with pytest.raises(TypeError):
        tosc.FileBackend()


def test_a_relative_path_is_made_absolute_at_once(tmp_path, monkeypatch):
    (tmp_path / 'sub').mkdir()
    monkeypatch.chdir(tmp_path)
    backend = tosc.FileBackend('store', 'lock')
    assert backend.file_path == str(tmp_path / 'store')
    assert backend.lock_path == str(tmp_path / 'lock')
    monkeypatch.chdir(tmp_path / 'sub')
    backend.write(b'1')
    assert sorted(os.listdir(tmp_path / 'sub')) == []
    assert tosc.FileBackend('../store', '../lock').read()[1] == b'1'


def test_a_relative_path_without_a_directory_is_a_storage_error(tmp_path):
    out = run_child('''
        import os, shutil
        os.chdir(sys.argv[1])
        os.rmdir(sys.argv[1])
        try:
            tosc.FileBackend('store')
        except tosc.StorageError as error:
            print(isinstance(error, FileNotFoundError))
    ''', tmp_path)
    assert out == 'True'


# ---- FileBackend: pickling and processes ----

@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_file_backend_can_be_pickled(path, protocol):
    one = tosc.FileBackend(path, path + '-lock', durable=False, shared_by_hosts=True,
                           poll_interval=0.5)
    one.write(b'1')
    two = pickle.loads(pickle.dumps(one, protocol))
    assert type(two) is tosc.FileBackend
    for name in ('file_path', 'lock_path', 'durable', 'shared_by_hosts', 'poll_interval'):
        assert getattr(two, name) == getattr(one, name)
    assert two.read() == one.read()


def test_a_pickled_subclass_keeps_its_attributes(path):
    one = LabelledFile(path, 'mine')
    one.extra = 5
    two = pickle.loads(pickle.dumps(one))
    assert type(two) is LabelledFile
    assert (two.label, two.extra, two.reads, two.durable) == ('mine', 5, 0, False)
    two.write(b'1')
    assert one.read()[1] == b'1'


def test_a_deep_copy_is_for_the_same_file(path):
    one = tosc.FileBackend(path)
    two = copy.deepcopy({'backend': one})['backend']
    assert two is not one
    two.write(b'1')
    assert one.read()[1] == b'1'


@pytest.mark.parametrize('bad', [None, 5, {}, {'file_path': 5}, {'wrong': 1}], ids=repr)
def test_a_damaged_pickle_is_a_type_error(bad):
    backend = tosc.FileBackend.__new__(tosc.FileBackend)
    with pytest.raises(TypeError):
        backend.__setstate__(bad)


def write_in_process(backend, data):
    backend.write(data)


@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
def test_a_file_backend_can_be_sent_to_another_process(tmp_path, method):
    """The relative path means the same file there."""
    backend = tosc.FileBackend(os.path.relpath(tmp_path / 'store'))
    context = multiprocessing.get_context(method)
    process = context.Process(target=write_in_process, args=(backend, b'there'))
    process.start()
    assert backend.target_wait(30) is True
    process.join(30)
    assert process.exitcode == 0
    assert backend.read()[1] == b'there'


COUNT = '''
    from backend_places import count_up
    backend = tosc.FileBackend(sys.argv[1], durable=False)
    count_up(backend, int(sys.argv[2]))
'''


def test_processes_that_count_by_try_write_lose_nothing(file_place, children):
    started = [children(COUNT, file_place.path, 200) for _ in range(3)]
    for child in started:
        child.check()
    assert file_place.open().read()[1] == b'600'


def test_a_change_in_another_process_ends_target_wait_soon(file_place, children):
    backend = file_place.open()
    backend.write(b'0')
    assert backend.target_wait(1)
    child = children('''
        backend = tosc.FileBackend(sys.argv[1])
        print('ready')
        for line in sys.stdin:
            backend.write(b'%.9f' % time.monotonic())
    ''', file_place.path)
    assert child.line() == 'ready'
    delays = []
    for _ in range(20):
        waiter = Thread(backend.target_wait, 10)
        time.sleep(0.02)
        child.send()
        assert waiter.result() is True
        delays.append(time.monotonic() - float(backend.read()[1]))
        backend.target_wait(0)
    assert sorted(delays)[10] < 0.05 * SCALE


def test_two_processes_play_ping_pong(file_place, children):
    code = '''
        backend = tosc.FileBackend(sys.argv[1])
        mine, other = sys.argv[2].encode(), sys.argv[3].encode()
        played = 0
        while played < 100:
            version, data = backend.read()
            if data == mine:
                assert backend.try_write(other, version)
                played += 1
            else:
                backend.target_wait()
        print('done')
    '''
    file_place.open().write(b'x')
    players = [children(code, file_place.path, *names) for names in (('x', 'o'), ('o', 'x'))]
    for player in players:
        assert player.check() == 'done'


def test_a_fork_shares_the_file_but_not_the_memory(tmp_path):
    out = run_child('''
        memory = tosc.InprocBackend()
        disk = tosc.FileBackend(sys.argv[1])
        for backend in (memory, disk):
            backend.write(b'before')
        pid = os.fork()
        if pid == 0:
            assert memory.read()[1] == disk.read()[1] == b'before'
            memory.write(b'child')
            disk.write(b'child')
            assert memory.target_wait(1) and disk.target_wait(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(memory.read()[1].decode(), disk.read()[1].decode())
    ''', tmp_path / 'store')
    assert out == 'before child'


def test_a_fork_during_writing_in_threads_goes_on_in_the_child(tmp_path):
    run_child('''
        import threading
        backends = [tosc.InprocBackend(), tosc.FileBackend(sys.argv[1], durable=False)]
        stop = threading.Event()
        def busy(backend):
            while not stop.is_set():
                backend.write(b'x' * 100)
                backend.read()
        threads = [threading.Thread(target=busy, args=(b,)) for b in backends * 2]
        for thread in threads:
            thread.start()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                for backend in backends:
                    backend.write(b'child')
                    backend.read()
                    assert backend.target_wait(10)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
    ''', tmp_path / 'store')


# ---- FileBackend: the file ----

def test_making_a_file_backend_makes_no_file(path):
    backend = tosc.FileBackend(path)
    assert os.listdir(os.path.dirname(path)) == []
    assert backend.read() == (None, None)
    assert not os.path.exists(path)


def test_files_are_for_their_owner_only(path):
    old = os.umask(0)
    try:
        tosc.FileBackend(path).write(b'1')
    finally:
        os.umask(old)
    for name in os.listdir(os.path.dirname(path)):
        mode = os.stat(os.path.join(os.path.dirname(path), name)).st_mode
        assert stat.S_ISREG(mode)
        assert stat.S_IMODE(mode) == 0o600, name


def test_what_was_written_is_there_for_a_later_process(file_place):
    version = file_place.open().write(b'kept')
    out = run_child('''
        print(*tosc.FileBackend(sys.argv[1]).read())
    ''', file_place.path)
    assert out == f"{version} b'kept'"


def test_the_lock_may_lie_elsewhere(tmp_path):
    (tmp_path / 'locks').mkdir()
    (tmp_path / 'data').mkdir()
    backend = tosc.FileBackend(tmp_path / 'data' / 'store', tmp_path / 'locks' / 'lock')
    backend.write(b'1')
    assert os.listdir(tmp_path / 'locks') == ['lock']
    assert 'store.lock' not in os.listdir(tmp_path / 'data')


@pytest.mark.parametrize('durable', [True, False])
@pytest.mark.parametrize('shared_by_hosts', [True, False])
def test_all_options_store_and_notice(path, durable, shared_by_hosts):
    options = {'durable': durable, 'shared_by_hosts': shared_by_hosts, 'poll_interval': 0.01}
    one = tosc.FileBackend(path, **options)
    two = tosc.FileBackend(path, **options)
    for number in range(3):
        waiter = Thread(two.target_wait, 10)
        time.sleep(0.03)
        version = one.write(b'%d' % number)
        assert waiter.result() is True
        assert two.read() == (version, b'%d' % number)
        assert two.try_write(b'x', version)
        assert one.read()[1] == b'x'
        two.target_wait(0)


def test_a_file_that_was_deleted_and_made_again_is_a_new_store(path):
    one = tosc.FileBackend(path)
    for number in range(5):
        one.write(b'%d' % number)
    while one.target_wait(0):
        pass
    os.unlink(path)
    assert one.target_wait(10) is True
    assert one.read() == (None, None)
    two = tosc.FileBackend(path)
    two.write(b'new')
    assert one.target_wait(10) is True
    assert one.read() == two.read()
    assert one.read()[1] == b'new'


def test_an_old_file_that_did_not_change_ends_no_wait(path):
    writer = tosc.FileBackend(path)
    writer.write(b'1')
    os.utime(path, (1e9, 1e9))
    backend = tosc.FileBackend(path)
    assert backend.target_wait(0.05) is False
    writer.write(b'2')
    assert backend.target_wait(1) is True
    assert backend.target_wait(0.01) is False


def test_an_old_file_that_changed_before_the_first_wait_ends_it(path):
    writer = tosc.FileBackend(path)
    writer.write(b'1')
    os.utime(path, (1e9, 1e9))
    backend = tosc.FileBackend(path)
    writer.write(b'2')
    assert backend.target_wait(1) is True
    assert backend.target_wait(0.01) is False


def test_a_file_that_is_made_after_the_object_ends_its_first_wait(path):
    backend = tosc.FileBackend(path)
    assert backend.target_wait(0.01) is False
    tosc.FileBackend(path).write(b'1')
    assert backend.target_wait(1) is True
    other = tosc.FileBackend(path + '2')
    tosc.FileBackend(path + '2').write(b'1')
    assert other.target_wait(1) is True


# ---- FileBackend: what can go wrong ----

OPERATIONS = {
    'read': lambda backend: backend.read(),
    'write': lambda backend: backend.write(b'x'),
    'try_write': lambda backend: backend.try_write(b'x', None),
}
WRITING = ['write', 'try_write']


def fail_with(error, call, path, base=tosc.StorageError):
    """The call raises `base` and `error`, and the message names the path."""
    with pytest.raises(base) as caught:
        call()
    assert isinstance(caught.value, error)
    assert path in str(caught.value)
    return caught.value


def test_a_missing_directory_is_named(tmp_path):
    path = str(tmp_path / 'missing' / 'store')
    error = fail_with(FileNotFoundError, lambda: tosc.FileBackend(path).write(b''),
                      str(tmp_path / 'missing'))
    assert error.filename.startswith(str(tmp_path / 'missing'))
    assert os.listdir(tmp_path) == []


def test_a_directory_that_goes_later_is_named(tmp_path):
    (tmp_path / 'sub').mkdir()
    path = str(tmp_path / 'sub' / 'store')
    backend = tosc.FileBackend(path)
    os.rmdir(tmp_path / 'sub')
    for name in WRITING:
        fail_with(FileNotFoundError, lambda: OPERATIONS[name](backend), str(tmp_path / 'sub'))


@pytest.mark.parametrize('name', OPERATIONS)
def test_a_directory_in_place_of_the_file_is_an_error(tmp_path, name):
    (tmp_path / 'store').mkdir()
    path = str(tmp_path / 'store')
    with pytest.raises(tosc.Error) as caught:
        OPERATIONS[name](tosc.FileBackend(path))
    assert isinstance(caught.value, (IsADirectoryError, tosc.DataError, tosc.StorageError))
    assert path in str(caught.value)
    assert os.path.isdir(path)
    assert os.listdir(path) == []


def test_a_file_in_place_of_the_directory_is_an_error(tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    fail_with(NotADirectoryError,
              lambda: tosc.FileBackend(tmp_path / 'file' / 'store').write(b''),
              str(tmp_path / 'file'))


@pytest.mark.parametrize('name', OPERATIONS)
def test_a_device_in_place_of_the_file_is_an_error(name):
    with pytest.raises((tosc.Error, ValueError), match='/dev/null'):
        OPERATIONS[name](tosc.FileBackend('/dev/null', '/tmp/tosc-test-null.lock'))


def test_a_fifo_in_place_of_the_file_does_not_hang(path):
    os.mkfifo(path)
    for operation in OPERATIONS.values():
        with pytest.raises((tosc.Error, ValueError)) as caught:
            operation(tosc.FileBackend(path))
        assert path in str(caught.value)
    assert stat.S_ISFIFO(os.stat(path).st_mode)


def test_a_name_that_is_too_long_is_an_error(tmp_path):
    with pytest.raises((tosc.StorageError, ValueError)):
        tosc.FileBackend(tmp_path / ('x' * 300)).write(b'')


def test_a_loop_of_links_is_an_error(tmp_path):
    os.symlink('store', tmp_path / 'store')
    for operation in OPERATIONS.values():
        with pytest.raises(tosc.Error) as caught:
            operation(tosc.FileBackend(tmp_path / 'store'))
        assert str(tmp_path / 'store') in str(caught.value)


PERMISSION = '''
    os.setgid(65534)
    os.setuid(65534)
    path = sys.argv[1]
    for name, call in (('read', lambda b: b.read()), ('write', lambda b: b.write(b'x')),
                       ('try_write', lambda b: b.try_write(b'x', None))):
        try:
            result = call(tosc.FileBackend(path))
        except tosc.StorageError as error:
            assert isinstance(error, PermissionError), type(error)
            assert os.path.dirname(path) in str(error), str(error)
            assert error.errno in (1, 13), error.errno
            print(name, 'refused')
        else:
            print(name, result)
'''

needs_root = pytest.mark.skipif(os.getuid() != 0, reason='only root can give up its rights')


@pytest.fixture
def open_directory():
    """A directory that anybody can reach (pytest's own are for the user alone)."""
    directory = new_directory('disk')
    os.chmod(directory, 0o755)
    yield directory
    shutil.rmtree(directory)


@needs_root
def test_without_permission_to_read_all_is_refused(open_directory):
    path = os.path.join(open_directory, 'store')
    backend = tosc.FileBackend(path)
    version = backend.write(b'1')
    out = run_child(PERMISSION, path)
    assert out.split('\n') == ['read refused', 'write refused', 'try_write refused']
    assert backend.read() == (version, b'1')


@needs_root
def test_without_permission_to_write_reading_works(open_directory):
    path = os.path.join(open_directory, 'store')
    backend = tosc.FileBackend(path)
    version = backend.write(b'1')
    os.chmod(path, 0o644)
    out = run_child(PERMISSION, path)
    assert out.split('\n') == [f"read ({version}, b'1')", 'write refused', 'try_write refused']
    assert backend.read() == (version, b'1')


@needs_root
def test_without_permission_in_the_directory_nothing_is_made(open_directory):
    path = os.path.join(open_directory, 'store')
    out = run_child(PERMISSION, path)
    assert out.split('\n') == ['read (None, None)', 'write refused', 'try_write refused']
    assert os.listdir(open_directory) == []


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 256 KiB."""
    directory = tmp_path / 'small'
    directory.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tosc-test', directory],
                             capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip('cannot mount a tmpfs here')
    yield str(directory)
    subprocess.run(['umount', '--lazy', directory], check=True)


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which('mount'), reason='needs mount')
def test_on_a_full_disk_nothing_is_lost(small_disk):
    path = os.path.join(small_disk, 'store')
    backend = tosc.FileBackend(path)
    version = backend.write(b'small')
    for call in (lambda: backend.write(b'x' * BIG), lambda: backend.try_write(b'x' * BIG, version)):
        with pytest.raises(tosc.StorageError) as caught:
            call()
        assert caught.value.errno == 28
        assert small_disk in str(caught.value)
        assert backend.read() == (version, b'small')
        assert tosc.FileBackend(path).read() == (version, b'small')
    # What was given up has been cleaned away, so that there is room again.
    with open(os.path.join(small_disk, 'other'), 'wb') as other:
        other.write(b'x' * 100_000)
    os.unlink(os.path.join(small_disk, 'other'))
    assert backend.try_write(b'y' * 50_000, version)
    assert backend.read()[1] == b'y' * 50_000


@pytest.mark.parametrize('content', [
    b'not a store', b'x' * 5000, b'\0' * 64, b'\0' * 5000, b'SQLite format 3\0' + bytes(4080),
    pickle.dumps({'a': 1}), b'\x7fELF' + bytes(range(256)) * 8], ids=lambda c: repr(c[:12]))
def test_a_foreign_file_is_refused_and_left_as_it_is(path, content):
    with open(path, 'wb') as file:
        file.write(content)
    for operation in OPERATIONS.values():
        with pytest.raises(tosc.DataError) as caught:
            operation(tosc.FileBackend(path))
        assert path in str(caught.value)
        with open(path, 'rb') as file:
            assert file.read() == content


def test_a_foreign_file_is_refused_by_target_wait(path):
    with open(path, 'wb') as file:
        file.write(b'not a store' * 10)
    for _ in range(2):
        with pytest.raises(tosc.DataError):
            tosc.FileBackend(path).target_wait(1)


def written_store(path, length=3000):
    data = random.Random(7).randbytes(length)
    backend = tosc.FileBackend(path)
    backend.write(b'older')
    version = backend.write(data)
    with open(path, 'rb') as file:
        return version, data, file.read()


def test_a_truncated_file_is_never_read_as_something_else(path):
    version, data, content = written_store(path)
    lengths = [*range(1, 130), *range(130, len(content), 97)]
    for length in lengths:
        with open(path, 'wb') as file:
            file.write(content[:length])
        backend = tosc.FileBackend(path)
        try:
            result = backend.read()
        except tosc.DataError as error:
            assert path in str(error)
        else:
            # What is cut off may be space that was reserved for later.
            assert result in ((version, data), (None, None)), length
            assert result != (None, None) or length < 200


def test_a_flipped_bit_is_never_read_as_data(path):
    version, data, content = written_store(path)
    chance = random.Random(11)
    places = [*range(min(160, len(content))),
              *(chance.randrange(len(content)) for _ in range(200))]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << chance.randrange(8)
        with open(path, 'wb') as file:
            file.write(damaged)
        try:
            result = tosc.FileBackend(path).read()
        except tosc.DataError as error:
            assert path in str(error)
        else:
            assert result[1] == data, place


def test_damaged_data_are_reported_again_and_again_and_left_as_they_are(path):
    version, _, content = written_store(path)
    damaged = bytearray(content)
    damaged[content.index(random.Random(7).randbytes(16)) + 500] ^= 16
    with open(path, 'wb') as file:
        file.write(damaged)
    backend = tosc.FileBackend(path)
    for call in (backend.read, backend.read, lambda: backend.target_wait(1),
                 lambda: tosc.FileBackend(path).read()):
        with pytest.raises(tosc.DataError) as caught:
            call()
        assert path in str(caught.value)
    assert backend.try_write(b'x', None) is False
    assert backend.try_write(b'x', version - 1) is False
    with open(path, 'rb') as file:
        assert file.read() == damaged
