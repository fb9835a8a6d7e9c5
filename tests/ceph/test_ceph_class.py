"""CephBackend as a class: its arguments, what it shows, copies, pickles; the key stays hidden."""
# SPDX-License-Identifier: Apache-2.0
import copy
import gc
import inspect
import os
import pickle
import subprocess
import sys
import traceback

import pytest

import tosc
from harness import run_child

GOOD = {'client': 'tosc', 'key': None, 'mon_host': '127.0.0.1', 'pool_name': 'pool',
        'obj_name': 'object'}
SECRET = 'AQDsecretsecretsecretsecretsecretsecret=='


# ---- without a cluster ----

def test_the_signature_is_the_manuals():
    names = list(inspect.signature(tosc.CephBackend).parameters)
    assert names[:6] == ['client', 'key', 'mon_host', 'pool_name', 'obj_name', 'max_retries']
    parameters = inspect.signature(tosc.CephBackend).parameters
    assert parameters['max_retries'].default == 100
    assert all(parameter.kind is parameter.KEYWORD_ONLY
               for parameter in list(parameters.values())[6:])
    assert issubclass(tosc.CephBackend, tosc.BackendBase)


@pytest.mark.parametrize('wrong,error,words', [
    ({'client': 5}, TypeError, "client must be str or None, not 'int'"),
    ({'key': b'bytes'}, TypeError, "key must be str or None, not 'bytes'"),
    ({'pool_name': None}, TypeError, "pool_name must be str, not 'NoneType'"),
    ({'obj_name': None}, TypeError, "obj_name must be str, not 'NoneType'"),
    ({'pool_name': ''}, ValueError, 'pool_name must not be empty'),
    ({'obj_name': 'a\0b'}, ValueError, 'obj_name must not contain a null character'),
    ({'mon_host': '\udc80'}, ValueError, 'mon_host must be encodable as UTF-8'),
    ({'max_retries': 0}, ValueError, 'max_retries must be positive: 0'),
    ({'max_retries': 'x'}, TypeError, 'integer'),
    ({'timeout': 0}, ValueError, 'timeout must be from 1 to 3600 seconds: 0'),
    ({'timeout': float('inf')}, ValueError, 'timeout must be from 1 to 3600 seconds: inf'),
    ({'timeout': float('nan')}, ValueError, 'timeout'),
    ({'lease': -1}, ValueError, 'lease must not be negative: -1'),
    ({'connect_timeout': 'x'}, TypeError, 'connect_timeout must be a number of seconds'),
    ({'poll_interval': 0}, ValueError, 'poll_interval must be from 0.001 to 3600 seconds: 0'),
    ({'conf': 5}, TypeError, "conf must be str, bytes or os.PathLike, not 'int'"),
    ({'keyring': ''}, ValueError, 'keyring must not be empty'),
    ({'nonsense': 1}, TypeError, 'nonsense'),
])
def test_wrong_arguments_are_named(wrong, error, words):
    with pytest.raises(error) as caught:
        tosc.CephBackend(**{**GOOD, **wrong})
    assert words in str(caught.value)


@pytest.mark.parametrize('key', [SECRET.encode(), SECRET + '\0', SECRET + '\udc80', [SECRET]])
def test_a_key_of_a_wrong_form_is_not_shown(key):
    with pytest.raises((TypeError, ValueError)) as caught:
        tosc.CephBackend(**{**GOOD, 'key': key})
    told = ''.join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert SECRET not in told and caught.value.__context__ is None


def test_built_without_librados_the_class_says_what_is_missing():
    with pytest.raises((NotImplementedError, tosc.StorageError)) as caught:
        tosc.CephBackend(**{**GOOD, 'mon_host': None, 'conf': '/nonexistent'})
    if isinstance(caught.value, NotImplementedError):
        assert 'librados' in str(caught.value) and '--with-rados' in str(caught.value)


def test_a_backend_that_was_not_made_says_so():
    empty = tosc.CephBackend.__new__(tosc.CephBackend)
    assert repr(empty) == '<CephBackend without an object>'
    for use in (empty.read, empty.copy, empty.target_wait, lambda: empty.write(b''),
                lambda: tosc.Manager(empty), lambda: pickle.dumps(empty)):
        with pytest.raises(ValueError, match='has not been called'):
            use()


# ---- on the cluster ----

def test_arguments_by_position_as_in_the_manual(cluster, name):
    given = cluster.environment
    backend = tosc.CephBackend(given['TOSC_CEPH_CLIENT'], given['TOSC_CEPH_KEY'],
                               given['TOSC_CEPH_MON_HOST'], given['TOSC_CEPH_POOL'], name, 50)
    assert backend.max_retries == 50
    version = backend.write(b'data')
    assert cluster.backend(name).read() == (version, b'data')


def test_attributes_say_what_was_given(cluster, name, tmp_path, monkeypatch):
    monkeypatch.chdir(os.path.dirname(cluster.environment['TOSC_CEPH_KEYRING']))
    backend = cluster.backend(name, timeout=7.5, lease=3, poll_interval=0.5, connect_timeout=4,
                              namespace='space', keyring='client.tosc.keyring')
    monkeypatch.chdir(tmp_path)
    assert (backend.client, backend.pool_name, backend.obj_name) == ('tosc', cluster.pool, name)
    assert (backend.timeout, backend.lease, backend.poll_interval, backend.connect_timeout,
            backend.namespace, backend.conf) == (7.5, 3, 0.5, 4, 'space', None)
    assert backend.keyring == cluster.environment['TOSC_CEPH_KEYRING']
    assert not hasattr(backend, 'key')
    with pytest.raises(AttributeError):
        backend.timeout = 1


def test_the_type_before_the_clients_name_does_no_harm(cluster, name):
    version = cluster.backend(name, client='client.tosc').write(b'x')
    assert cluster.backend(name, client='tosc').read() == (version, b'x')


@pytest.mark.parametrize('source', ['key', 'keyring', 'conf', 'CEPH_KEYRING', 'CEPH_CONF'])
def test_where_key_and_monitors_may_come_from(cluster, name, source):
    """In a process of its own, as one process keeps its connection."""
    keyring, conf = cluster.environment['TOSC_CEPH_KEYRING'], cluster.environment['CEPH_CONF']
    arguments = cluster.arguments(name, keyring=None)
    environment = {'CEPH_KEYRING': '', 'CEPH_CONF': ''}
    if source == 'key':
        arguments['key'] = cluster.key
    elif source == 'keyring':
        arguments['keyring'] = keyring
    elif source == 'conf':
        arguments.update(conf=conf, mon_host=None)
    elif source == 'CEPH_KEYRING':
        environment['CEPH_KEYRING'] = keyring
    else:
        environment['CEPH_CONF'] = conf
        arguments['mon_host'] = None
    environment['GIVEN'] = repr(arguments)
    assert run_child('''
        for unset in ('CEPH_KEYRING', 'CEPH_CONF'):
            if not os.environ[unset]:
                del os.environ[unset]
        backend = tosc.CephBackend(**eval(os.environ['GIVEN']))
        backend.write(b'here')
        print(backend.read()[1])
    ''', env=environment) == "b'here'"
    assert cluster.backend(name).read()[1] == b'here'


def test_a_namespace_is_a_room_of_its_own(cluster, name):
    one, two = cluster.backend(name), cluster.backend(name, namespace='other')
    one.write(b'1')
    assert two.read() == (None, None)
    assert two.try_write(b'2', None) is True
    assert one.read()[1] == b'1' and cluster.backend(name, namespace='other').read()[1] == b'2'


def test_repr_and_attributes_hide_the_key(cluster, name):
    hidden = cluster.backend(name, key=cluster.key, keyring=None)
    assert 'key=<hidden>' in repr(hidden) and name in repr(hidden)
    assert cluster.key not in repr(hidden)
    assert cluster.key not in repr([getattr(hidden, attribute) for attribute in dir(hidden)
                                    if not attribute.startswith('__')])
    shown = repr(cluster.backend(name))
    assert eval(shown, {'CephBackend': tosc.CephBackend}).obj_name == name


def test_the_key_is_not_on_the_command_line_nor_in_the_environment(cluster, name):
    backend = cluster.backend(name, key=cluster.key, keyring=None)
    backend.write(b'x')
    for where in ('cmdline', 'environ'):
        with open(f'/proc/self/{where}', 'rb') as file:
            assert cluster.key.encode() not in file.read()


@pytest.mark.parametrize('how', [pickle.dumps, copy.deepcopy])
def test_with_its_key_given_it_cannot_be_pickled(cluster, name, how):
    backend = cluster.backend(name, key=cluster.key, keyring=None)
    with pytest.raises(TypeError, match='keyring') as caught:
        how(backend)
    assert cluster.key not in str(caught.value)
    copied = backend.copy()
    version = copied.write(b'x')
    assert backend.read() == (version, b'x')


class Labelled(tosc.CephBackend):
    """A subclass with an attribute."""
    label = None


def test_with_its_key_in_a_keyring_it_can_be_pickled(cluster, name):
    backend = Labelled(**cluster.arguments(name, timeout=9, lease=4, namespace='space'))
    backend.label = 'mine'
    version = backend.write(b'x')
    pickled = pickle.dumps(backend)
    assert cluster.key.encode() not in pickled
    for again in (pickle.loads(pickled), copy.copy(backend), copy.deepcopy(backend)):
        assert type(again) is Labelled and repr(again) == repr(backend)
        assert (again.label, again.timeout, again.lease) == ('mine', 9, 4)
        assert again.read() == (version, b'x')
    with pytest.raises(TypeError, match='dict'):
        tosc.CephBackend.__new__(tosc.CephBackend).__setstate__(5)


def test_it_is_made_once(cluster, name):
    backend = cluster.backend(name)
    with pytest.raises(RuntimeError, match='twice'):
        backend.__init__(**cluster.arguments(name))
    failed = tosc.CephBackend.__new__(tosc.CephBackend)
    with pytest.raises(ValueError):
        failed.__init__(**cluster.arguments(name, max_retries=-1))
    failed.__init__(**cluster.arguments(name))
    assert failed.read() == (None, None)


def test_a_process_has_one_connection_for_all_its_backends(cluster, name):
    """And gives it back with the last of them."""
    assert run_child('''
        from opening import open_store
        import gc

        def sockets():
            links = (f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd'))
            return sum(os.path.exists(link) and os.readlink(link).startswith('socket:')
                       for link in links)

        before = sockets()
        first = [open_store('ceph:' + sys.argv[1]) for _ in range(3)]
        tosc.Manager(first[0]).write([0])
        with_three = sockets()
        more = [open_store(f'ceph:{sys.argv[1]}{n}') for n in range(20)]
        for backend in more:
            backend.read()
        assert sockets() <= with_three + 1, (before, with_three, sockets())
        managers = [tosc.Manager(backend) for backend in more]
        for manager in managers:
            manager.write([1])
            manager.close()
        del first, more, backend, managers, manager
        gc.collect()
        deadline = time.monotonic() + 5
        while sockets() > before:
            assert time.monotonic() < deadline, (before, sockets())
            time.sleep(0.02)
        print(tosc.Manager(open_store('ceph:' + sys.argv[1])).read())
    ''', name) == '[0]'


def test_making_and_failing_leaks_nothing(cluster, name):
    arguments = cluster.arguments(name)
    watched = [tosc.CephBackend, name, arguments['pool_name'], arguments['keyring']]

    def work(times):
        for _ in range(times):
            backend = tosc.CephBackend(**arguments)
            backend.copy()
            pickle.loads(pickle.dumps(backend))
            for wrong in ({'max_retries': -1}, {'keyring': 5}, {'pool_name': 'none'},
                          {'key': 'garbage'}):
                with pytest.raises((tosc.StorageError, ValueError, TypeError)):
                    tosc.CephBackend(**{**arguments, **wrong})
        gc.collect()
        return [sys.getrefcount(thing) for thing in watched], len(os.listdir('/proc/self/fd'))

    references, descriptors = work(3)
    again, descriptors_again = work(30)
    assert all(new <= old + 2 for old, new in zip(references, again)), (references, again)
    assert descriptors_again <= descriptors + 1


def test_stubs_and_module_name_it():
    assert 'CephBackend' in tosc.__all__ and 'CephBackend' in tosc.__doc__
    assert subprocess.run([sys.executable, '-c', 'import tosc; help(tosc.CephBackend)'],
                          capture_output=True, check=True).stdout.count(b'keyring') > 1
