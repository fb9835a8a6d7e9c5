"""Backends by URI, and backends of C as Python objects."""
# SPDX-License-Identifier: Apache-2.0
import pickle

import pytest

import tosc


def test_a_file_by_its_uri_is_a_file_backend(tmp_path):
    path = tmp_path / 'store'
    backend = tosc.open_backend(f'file:{path}?durable=0&poll_ms=250&shared_by_hosts=1')
    assert type(backend) is tosc.FileBackend
    assert (backend.file_path, backend.lock_path) == (str(path), f'{path}.lock')
    assert (backend.durable, backend.shared_by_hosts, backend.poll_interval) == (
        False, True, 0.25)
    with tosc.Manager(backend) as manager:
        manager.write([1])
    with tosc.Manager(tosc.FileBackend(path, shared_by_hosts=True)) as manager:
        assert manager.snapshot() == [1]


def test_a_file_backend_by_uri_shows_copies_and_pickles_itself_as_any_other(tmp_path):
    backend = tosc.open_backend(f'file:{tmp_path}/a?lock={tmp_path}/b')
    assert repr(backend) == f"FileBackend('{tmp_path}/a', '{tmp_path}/b')"
    for other in [backend.copy(), pickle.loads(pickle.dumps(backend))]:
        assert repr(other) == repr(backend)
        backend.write(b'x')
        assert other.read()[1] == b'x'


def test_a_name_is_the_same_store_for_all_who_name_it():
    first = tosc.open_backend('inproc:by-name')
    second = tosc.open_backend('inproc:by-name')
    assert type(first) is tosc.InprocBackend
    with tosc.Manager(first) as a, tosc.Manager(second) as b:
        a.write({'n': 1})
        assert b.read() == {'n': 1}
        with a.transaction():
            a.read()['n'] = 2
            assert b.read()['n'] == 1
        assert b.refresh()['n'] == 2


def test_managers_of_one_name_know_that_they_lock_the_same_store():
    a = tosc.Manager(tosc.open_backend('inproc:locked'))
    b = tosc.Manager(tosc.open_backend('inproc:locked'))
    a.write({'n': 0})
    other = b.read()
    tries = []

    @tosc.transactional(a)
    def count(data):
        tries.append(1)
        data['n'] += 1
        if len(tries) < 3:
            other['n'] = 10 * len(tries)  # a conflict: the third try is under the lock
        else:
            with pytest.raises(RuntimeError, match='wait for itself'):
                other['n'] = 0

    count(a.read())
    assert len(tries) == 3
    assert b.refresh() == {'n': 21}
    a.close()
    b.close()


def test_a_backend_by_uri_waits_for_changes():
    backend = tosc.open_backend('inproc:waits')
    backend.target_wait(timeout=0)  # the first may tell of a change that was none
    assert backend.target_wait(timeout=0) is False
    tosc.open_backend('inproc:waits').write(b'x')
    assert backend.target_wait(timeout=0) is True
    assert backend.target_wait(timeout=0) is False


@pytest.mark.parametrize('uri, words', [
    ('', 'scheme'), ('no-scheme', 'scheme'), ('what:ever', 'unknown scheme'),
    ('inproc:', 'name'), ('file:', 'path'), ('file:/tmp/x?colour=red', 'colour'),
    ('file:/tmp/x\0y', 'null'),
])
def test_a_wrong_uri_is_told(uri, words):
    with pytest.raises(ValueError, match=words):
        tosc.open_backend(uri)


def test_what_is_no_text_is_refused():
    with pytest.raises(TypeError, match='must be str, not bytes'):
        tosc.open_backend(b'inproc:x')


def test_what_the_system_refuses_is_a_storage_error(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        tosc.open_backend(f'file:{tmp_path}/missing/store')
    assert isinstance(caught.value, tosc.StorageError)
