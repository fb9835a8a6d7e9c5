"""What can be wrong with a cluster, a key, a pool or an object: each has its own message."""
# SPDX-License-Identifier: Apache-2.0
import base64
import contextlib
import errno
import re
import socket
import struct
import time
import traceback
import warnings

import pytest

import tosc
from harness import Thread, wait_until

MIB = 1 << 20


def another_key(seed):
    """A key of the right form that no cluster has given out."""
    secret = bytes([seed]) * 16
    return base64.b64encode(struct.pack('<HIIH', 1, 0, 0, len(secret)) + secret).decode()


@pytest.fixture(scope='module')
def blocked(whole_cluster):
    """A client that may not touch the pool, and one that may only read."""
    whole_cluster.ceph('osd', 'pool', 'create', 'other', '8')
    keys = {}
    for client, pool, what in (('stranger', 'other', 'rwx'), ('reader', whole_cluster.pool, 'r')):
        keys[client] = whole_cluster.ceph('auth', 'get-or-create-key', f'client.{client}', 'mon',
                                          'allow r', 'osd', f'allow {what} pool={pool}').strip()
    return keys


@contextlib.contextmanager
def silent_port():
    """An address that takes connections and never says anything."""
    with socket.socket() as listening:
        listening.bind(('127.0.0.1', 0))
        listening.listen(16)
        yield f'v2:127.0.0.1:{listening.getsockname()[1]}'


def failure(make, *words, secret=None):
    """The StorageError that make() raises; its text has all the words and not the secret."""
    begin = time.monotonic()
    with pytest.raises(tosc.StorageError) as caught:
        make()
    error = caught.value
    error.took = time.monotonic() - begin
    told = ''.join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert secret is None or secret not in told
    for word in words:
        assert word in str(error), str(error)
    return error


# ---- connecting ----

def test_a_wrong_key(cluster, name):
    wrong = another_key(7)
    error = failure(lambda: cluster.backend(name, key=wrong, keyring=None), 'key', 'client.tosc',
                    secret=wrong)
    assert isinstance(error, PermissionError) and error.errno == errno.EACCES
    # Neither does a connection that stands already help who has a wrong key.
    backend = cluster.backend(name, key=cluster.key, keyring=None)
    failure(lambda: cluster.backend(name, key=wrong, keyring=None), secret=wrong)
    backend.write(b'x')


def test_a_user_that_does_not_exist(cluster, name):
    key = another_key(8)
    error = failure(lambda: cluster.backend(name, client='nobody', key=key, keyring=None),
                    'client.nobody', secret=key)
    assert error.errno == errno.EACCES


@pytest.mark.parametrize('key', ['garbage', 'AQ==', '!!!!', 'A' * 500])
def test_a_key_that_is_none(cluster, name, key):
    with pytest.raises((tosc.StorageError, ValueError), match='key') as caught:
        cluster.backend(name, key=key, keyring=None)
    assert key not in ''.join(traceback.format_exception(caught.value))


def test_no_keyring(cluster, name, tmp_path):
    missing = str(tmp_path / 'keyring')
    error = failure(lambda: cluster.backend(name, keyring=missing), missing)
    assert isinstance(error, FileNotFoundError)


def test_a_keyring_without_the_user(cluster, name, tmp_path):
    keyring = tmp_path / 'keyring'
    keyring.write_text(f'[client.other]\n\tkey = {cluster.key}\n')
    failure(lambda: cluster.backend(name, keyring=str(keyring)), str(keyring), 'client.tosc',
            secret=cluster.key)


def test_a_keyring_that_is_none(cluster, name, tmp_path):
    keyring = tmp_path / 'keyring'
    keyring.write_text('nothing of the kind\n')
    failure(lambda: cluster.backend(name, keyring=str(keyring)), 'keyring')


def test_no_configuration_file(cluster, name, tmp_path):
    missing = str(tmp_path / 'ceph.conf')
    error = failure(lambda: cluster.backend(name, conf=missing, mon_host=None), missing)
    assert isinstance(error, FileNotFoundError)


@pytest.mark.parametrize('connect_timeout', [1, 2])
def test_a_monitor_that_does_not_answer(cluster, name, connect_timeout):
    with silent_port() as address:
        error = failure(lambda: cluster.backend(name, mon_host=address,
                                                connect_timeout=connect_timeout),
                        'monitor', address.partition(':')[2], 'in time')
    assert isinstance(error, TimeoutError)
    assert connect_timeout - 0.1 < error.took < connect_timeout + 2


def test_a_monitor_that_is_not_there(cluster, name):
    with silent_port() as address:
        pass
    error = failure(lambda: cluster.backend(name, mon_host=address, connect_timeout=1), 'monitor')
    assert error.took < 3


def test_no_monitor_named(cluster, name, tmp_path):
    empty = tmp_path / 'ceph.conf'
    empty.write_text('[global]\n')
    with pytest.raises((tosc.StorageError, ValueError), match='mon_host'):
        cluster.backend(name, conf=str(empty), mon_host=None, connect_timeout=1)


def test_a_monitor_address_that_is_none(cluster, name):
    with pytest.raises((tosc.StorageError, ValueError), match='mon_host|monitor'):
        cluster.backend(name, mon_host='///nonsense///', connect_timeout=1)


# ---- pools and permissions ----

def test_a_pool_that_does_not_exist(cluster, name):
    error = failure(lambda: cluster.backend(name, pool_name='no-such-pool'), 'no-such-pool',
                    'pool create')
    assert isinstance(error, FileNotFoundError)


def test_a_pool_that_the_client_may_not_use(cluster, name, blocked):
    def use():
        backend = cluster.backend(name, client='stranger', key=blocked['stranger'], keyring=None)
        backend.read()

    error = failure(use, 'client.stranger', cluster.pool, secret=blocked['stranger'])
    assert isinstance(error, PermissionError) and error.errno == errno.EPERM


def test_a_client_that_may_only_read(cluster, name, blocked):
    """It can read; writing tells what is missing."""
    version = cluster.backend(name).write(b'x')
    backend = cluster.backend(name, client='reader', key=blocked['reader'], keyring=None)
    assert backend.read() == (version, b'x')
    for write in (lambda: backend.write(b'y'), lambda: backend.try_write(b'y', version)):
        error = failure(write, 'client.reader', cluster.pool, secret=blocked['reader'])
        assert error.errno == errno.EPERM
    assert cluster.backend(name).read() == (version, b'x')


def test_a_reader_sees_the_changes_of_others(cluster, name, blocked):
    """It may not watch, so it looks now and then."""
    writer = tosc.Manager(cluster.backend(name))
    writer.write({'n': 0})
    backend = cluster.backend(name, client='reader', key=blocked['reader'], keyring=None,
                              poll_interval=0.2)
    with tosc.Manager(backend) as reader:
        seen = reader.read()
        writer.read()['n'] = 1
        wait_until(lambda: seen['n'] == 1, what='the change')
        with pytest.raises(tosc.StorageError, match='client.reader'):
            seen['n'] = 2
        assert seen['n'] == 1
    writer.close()


def test_an_erasure_coded_pool(cluster, name):
    cluster.ceph('osd', 'pool', 'create', 'coded', '1', '1', 'erasure')
    cluster.ceph('auth', 'get-or-create', 'client.coded', 'mon', 'allow r', 'osd', 'allow rwx',
                 '-o', cluster.directory + '/client.coded.keyring')
    with pytest.raises((tosc.StorageError, ValueError), match='erasure') as caught:
        cluster.backend(name, client='coded', pool_name='coded',
                        keyring=cluster.directory + '/client.coded.keyring').write(b'x')
    assert 'coded' in str(caught.value)


# ---- objects ----

def test_a_name_that_is_too_long(cluster):
    backend = None
    with pytest.raises((tosc.StorageError, ValueError), match='name') as caught:
        backend = cluster.backend('x' * 3000)
        backend.write(b'x')
    if isinstance(caught.value, OSError):
        assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize('odd', ['with space', 'ünïcode', 'a/b?c=d&e#f', '-dash', 'new\nline',
                                 'x' * 2000], ids=ascii)
def test_unusual_names(cluster, odd, name):
    one = cluster.backend(odd + name)
    version = one.write(b'x')
    assert cluster.backend(odd + name).read() == (version, b'x')


@pytest.mark.filterwarnings('ignore:tosc. watching')
def test_an_object_that_somebody_else_has_written(cluster, name, tmp_path):
    """It is not overwritten by accident."""
    foreign = tmp_path / 'foreign'
    foreign.write_bytes(b'this is a disk image, or whatever' * 10)
    cluster.rados('-p', cluster.pool, 'put', name, str(foreign))
    backend = cluster.backend(name)
    for use in (backend.read, lambda: backend.try_write(b'x', None),
                lambda: backend.try_write(b'x', 1), lambda: tosc.Manager(backend).read()):
        with pytest.raises(tosc.DataError, match=name):
            use()
    kept = tmp_path / 'kept'
    cluster.rados('-p', cluster.pool, 'get', name, str(kept))
    assert kept.read_bytes() == foreign.read_bytes()


def test_damage_is_told_and_nothing_is_overwritten(cluster, name, tmp_path):
    manager = tosc.Manager(cluster.backend(name))
    manager.write({'n': 0})
    for n in range(5):
        manager.read()['n'] = n
    manager.close()
    copy = tmp_path / 'copy'
    cluster.rados('-p', cluster.pool, 'get', name, str(copy))
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 0x10
    damage = tmp_path / 'damage'
    damage.write_bytes(data[len(data) // 2:][:1])
    cluster.rados('-p', cluster.pool, 'put', name, str(damage), '--offset', str(len(data) // 2))
    with pytest.raises(tosc.DataError, match=name):
        tosc.Manager(cluster.backend(name)).read()
    cluster.rados('-p', cluster.pool, 'get', name, str(copy))
    assert copy.read_bytes() == data


@pytest.mark.seconds(120)
def test_data_beyond_the_clusters_limits(cluster, name):
    """90 MiB in one operation, 128 MiB in one object; the error names the limit."""
    backend = cluster.backend(name)
    version = backend.write(b'small')
    with pytest.raises(tosc.StorageError, match='MiB|osd_max') as caught:
        backend.write(bytes(91 * MIB))
    assert caught.value.errno in (errno.EMSGSIZE, errno.EFBIG)
    with pytest.raises(tosc.StorageError, match='MiB|osd_max'):
        backend.try_write(bytes(200 * MIB), version)
    assert backend.read() == (version, b'small')
    assert backend.try_write(b'still usable', version)


@pytest.mark.seconds(120)
def test_a_store_that_has_filled_its_object_can_be_made_smaller(cluster, name):
    """Up to 90 MiB are a base; what is stored beyond that can only be appended, up to 128."""
    manager = tosc.Manager(cluster.backend(name, timeout=60))
    manager.write({})
    data = manager.read()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        for n in range(12):
            data[n] = bytes([n]) * (8 * MIB)
        error = failure(lambda: [data.__setitem__('more', bytes(4 * MIB)) for _ in range(12)],
                        '90 MiB')
        assert error.errno == errno.EMSGSIZE
        wait_until(lambda: warned, what='a warning that it cannot be compacted')
    assert 'compacting the store failed' in str(warned[0].message)
    assert len(warned) == 1
    before = manager.snapshot()
    assert tosc.Manager(cluster.backend(name)).snapshot() == before
    with manager.transaction():
        for n in range(10):
            del data[n]
    data['more'] = bytes(4 * MIB)
    assert sorted(map(str, data)) == ['10', '11', 'more']
    for n in range(5):
        data['again'] = bytes([n]) * (8 * MIB)
    other = tosc.Manager(cluster.backend(name))
    assert other.snapshot() == manager.snapshot()
    size = int(cluster.rados('-p', cluster.pool, 'stat', name).split('size')[-1])
    assert size < 100 * MIB


@pytest.mark.seconds(120)
def test_a_full_object_takes_another_whole(cluster, name):
    manager = tosc.Manager(cluster.backend(name, timeout=60))
    manager.write({n: bytes(12 * MIB) for n in range(5)})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for n in range(5, 8):
            manager.read()[n] = bytes(12 * MIB)
        failure(lambda: [manager.read().__setitem__('more', bytes(4 * MIB)) for _ in range(12)],
                '90 MiB')
        manager.write({'small': 1})
    assert tosc.Manager(cluster.backend(name)).read() == {'small': 1}


@pytest.mark.seconds(60)
def test_a_pool_that_is_made_again(cluster, name):
    """What was made for the pool of this name finds the new one."""
    pool = f'pool-{name}'

    def make():
        cluster.ceph('osd', 'pool', 'create', pool, '1')

    def options():
        return {'client': 'admin', 'key': cluster.environment['TOSC_CEPH_ADMIN_KEY'],
                'keyring': None, 'pool_name': pool, 'timeout': 10}

    make()
    try:
        manager = tosc.Manager(cluster.backend(name, **options()))
        manager.write({'n': 0})
        backend = cluster.backend(name, **options())
        version = backend.read()[0]
        cluster.ceph('osd', 'pool', 'rm', pool, pool, '--yes-i-really-really-mean-it')
        error = failure(backend.read, 'no pool named')
        assert error.errno == errno.ENOENT
        make()
        assert backend.try_write(b'x', version) is False, 'the new pool is empty'
        manager.write({'n': 1})
        assert cluster.backend(name, **options()).read()[0] == 1
        manager.read()['n'] = 2
        manager.close()
    finally:
        cluster.ceph('osd', 'pool', 'rm', pool, pool, '--yes-i-really-really-mean-it')


@pytest.mark.seconds(200)
def test_a_full_cluster(cluster, name):
    """Told at once instead of waiting for room, and reading goes on."""
    manager = tosc.Manager(cluster.backend(name, timeout=20))
    manager.write({'n': 0})
    ratios = ('nearfull', 'backfillfull', 'full')
    before = {'nearfull': '0.85', 'backfillfull': '0.90', 'full': '0.95'}
    try:
        for ratio in ratios:
            cluster.ceph('osd', f'set-{ratio}-ratio', '0.00001')
        wait_until(lambda: re.search(r'\b\d+ full osd', cluster.ceph('health')), timeout=60,
                   what='the full cluster')
        backend = cluster.backend(str(name) + '2', timeout=20)

        def fill():
            for _ in range(1000):
                backend.write(bytes(MIB))
                time.sleep(0.05)

        error = Thread(failure, fill, 'full').result(60)
        assert error.errno in (errno.ENOSPC, errno.EDQUOT)
        assert manager.refresh() == {'n': 0}
        with pytest.raises(tosc.StorageError, match='full'):
            manager.read()['n'] = 1
        assert manager.read() == {'n': 0}
        begin = time.monotonic()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter('always')
            with tosc.Manager(cluster.backend(name, timeout=10)) as newcomer:
                assert newcomer.read() == {'n': 0}
                time.sleep(1)
                assert newcomer.refresh() == {'n': 0}
        assert time.monotonic() - begin < 5, 'reading and watching need no room'
        assert not warned
    finally:
        for ratio in reversed(ratios):
            cluster.ceph('osd', f'set-{ratio}-ratio', before[ratio])
    wait_until(lambda: 'full' not in cluster.ceph('health'), timeout=30, what='room')

    def again():
        try:
            manager.read()['n'] = 2
            return True
        except tosc.StorageError:
            return False

    wait_until(again, timeout=20, what='a commit')
    assert tosc.Manager(cluster.backend(name)).read() == {'n': 2}
    manager.close()


# ---- all of them ----

def test_each_fault_has_a_message_of_its_own(cluster, name, blocked, tmp_path):
    def told(make):
        with pytest.raises((tosc.StorageError, ValueError)) as caught:
            make()
        return str(caught.value)

    with silent_port() as address:
        messages = [told(make) for make in (
            lambda: cluster.backend(name, key=another_key(1), keyring=None),
            lambda: cluster.backend(name, key='garbage', keyring=None),
            lambda: cluster.backend(name, keyring=str(tmp_path / 'none')),
            lambda: cluster.backend(name, pool_name='none'),
            lambda: cluster.backend(name, mon_host=address, connect_timeout=1),
            lambda: cluster.backend(name, client='stranger', key=blocked['stranger'],
                                    keyring=None).read(),
            lambda: cluster.backend('x' * 5000).write(b'x'),
        )]
    assert len(set(messages)) == len(messages)
    for message in messages:
        assert len(message) > 30 and 'Errno' not in message and cluster.key not in message, message
