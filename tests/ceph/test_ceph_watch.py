"""Being told of changes on Ceph, whatever happens to the watch; time limits; interrupts."""
# SPDX-License-Identifier: Apache-2.0
import ctypes
import errno
import json
import os
import signal
import socket
import time

import pytest

import tosc
from cluster import skip_without_librados
from harness import Thread, wait_until
from opening import CEPH
from test_ceph_errors import silent_port
from test_transactional import HOLDER

# So long that within a test only notices can bring news.
RARELY = 600
# Threads hold a sanitizer's allocator when the child of a fork is made.
NO_FORKS = pytest.mark.skipif('TOSC_SANITIZED' in os.environ,
                              reason='a sanitizer cannot fork beside threads')
# In the header of a store.
STORE_ID = slice(16, 32)


def two(cluster, name, **options):
    """Managers with connections of their own: keys given in two ways."""
    one = tosc.Manager(cluster.backend(name, **options))
    other = tosc.Manager(cluster.backend(name, key=cluster.key, keyring=None, **options))
    return one, other


# ---- notices ----

def test_news_come_by_notice(cluster, name):
    """Not by looking now and then."""
    one, other = two(cluster, name, poll_interval=RARELY)
    one.write({'n': 0})
    theirs = other.read()
    delays = []
    for n in range(1, 21):
        one.read()['n'] = n
        begin = time.monotonic()
        wait_until(lambda n=n: theirs['n'] == n, what='the change')
        delays.append(time.monotonic() - begin)
    assert sorted(delays)[10] < 0.05, delays


COUNTING = '''
    from opening import ceph_arguments
    manager = tosc.Manager(tosc.CephBackend(**ceph_arguments(sys.argv[1], poll_interval=600)))
    data = manager.read()
    print('ready')
    for line in sys.stdin:
        while data['n'] != int(line):
            time.sleep(0.001)
        print('seen')
'''


@pytest.mark.seconds(180)
def test_who_comes_while_others_commit_is_told_of_all(cluster, name, children):
    """Who is alone sends no notices, up to the moment when somebody comes."""
    writer = children('''
        manager = tosc.Manager(open_store('ceph:' + sys.argv[1]))
        manager.write({'n': 0})
        data = manager.read()
        print('ready')
        for line in sys.stdin:
            pause, count = line.split()
            for _ in range(int(count)):
                data['n'] += 1
                time.sleep(float(pause))
            print(data['n'])
    ''', name, timeout=170)
    assert writer.line() == 'ready'
    connected = cluster.backend(name)
    for turn in range(20):
        writer.send('0.0002 200' if turn % 2 else '0 250')
        time.sleep(0.015 * (turn % 7))
        with tosc.Manager(cluster.backend(name, poll_interval=RARELY)) as newcomer:
            seen = newcomer.read()
            last = int(writer.line())
            wait_until(lambda seen=seen, last=last: seen['n'] == last, timeout=3,
                       what='the last change')
    assert connected.read()[1]


@pytest.mark.seconds(60)
def test_a_process_that_was_frozen_hears_and_tells(cluster, name, children):
    """A frozen one neither hears of changes nor of others who watch."""
    manager = tosc.Manager(cluster.backend(name, poll_interval=RARELY))
    manager.write({'n': 0})
    data = manager.read()
    reader = children(COUNTING, name)
    assert reader.line() == 'ready'
    reader.signal(signal.SIGSTOP)
    for n in range(1, 30):
        data['n'] = n
        time.sleep(0.05)
    reader.signal(signal.SIGCONT)
    reader.send('29')
    assert reader.line(5) == 'seen'
    reader.kill()
    writer = children('''
        manager = tosc.Manager(open_store('ceph:' + sys.argv[1]))
        data = manager.read()
        print('ready')
        for line in sys.stdin:
            data['n'] = int(line)
            print('written')
    ''', name)
    assert writer.line() == 'ready'
    manager.close()
    time.sleep(0.2)
    for n in (100, 101, 102):
        writer.send(str(n))
        assert writer.line() == 'written'
    writer.signal(signal.SIGSTOP)
    late = children(COUNTING, name)
    assert late.line(10) == 'ready'
    time.sleep(1.5)
    writer.send('103')
    writer.signal(signal.SIGCONT)
    assert writer.line() == 'written'
    late.send('103')
    assert late.line(5) == 'seen'


def counters_of(path):
    """librados's own, by the socket that it makes at this path."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.connect(path)
        talk.sendall(b'{"prefix": "perf dump"}\0')
        return json.loads(talk.makefile('rb').read()[4:])


def test_notices_that_a_frozen_process_does_not_acknowledge_do_not_pile_up(cluster, name, children,
                                                                           tmp_path):
    """After an interruption librados sends all of them again, to all. And others hear soon."""
    with open(cluster.environment['CEPH_CONF'], encoding='utf-8') as file:
        text = file.read()
    path = str(tmp_path / 'asok')
    conf = tmp_path / 'ceph.conf'
    conf.write_text(f'{text}\n[client]\nadmin_socket = {path}\n')
    manager = tosc.Manager(cluster.backend(name, poll_interval=RARELY))
    manager.write({'n': 0})
    data = manager.read()
    frozen = children(COUNTING, name)
    assert frozen.line() == 'ready'
    writer = children('''
        from opening import ceph_arguments
        manager = tosc.Manager(tosc.CephBackend(**ceph_arguments(sys.argv[1], conf=sys.argv[2])))
        data = manager.read()
        print('ready')
        for line in sys.stdin:
            data['n'] = int(line)
            print(line.strip())
    ''', name, conf)
    assert writer.line() == 'ready'
    frozen.signal(signal.SIGSTOP)
    most, slowest = 0, 0.0
    for n in range(1, 400):
        writer.send(str(n))
        assert writer.line() == str(n)
        if n % 40 == 0:
            begin = time.monotonic()
            wait_until(lambda n=n: data['n'] == n, timeout=5)
            slowest = max(slowest, time.monotonic() - begin)
            most = max(most, counters_of(path)['objecter']['linger_active'])
    frozen.signal(signal.SIGCONT)
    assert 4 < most <= 26, most  # 24 notices and two watches
    assert slowest < 0.5, slowest


def forged_notices(cluster, name, texts):
    """Sends notices as anybody can who may read the pool."""
    rados = ctypes.CDLL('librados.so.2')
    connection, pool = ctypes.c_void_p(), ctypes.c_void_p()
    assert rados.rados_create(ctypes.byref(connection), b'tosc') == 0
    for option in ('mon_host', 'keyring'):
        value = cluster.environment['TOSC_CEPH_' + option.upper()]
        assert rados.rados_conf_set(connection, option.encode(), value.encode()) == 0
    assert rados.rados_connect(connection) == 0
    assert rados.rados_ioctx_create(connection, cluster.pool.encode(),
                                    ctypes.byref(pool)) == 0
    for text in texts:
        assert rados.rados_notify2(pool, name.encode(), text, len(text),
                                   ctypes.c_uint64(1000), None, None) == 0
    rados.rados_ioctx_destroy(pool)
    rados.rados_shutdown(connection)


def test_managers_that_share_a_backend_object_are_told_of_each_commit(cluster, name):
    """Of their own commits, one is reported to who waits, then none for a moment."""
    backend = cluster.backend(name, poll_interval=RARELY)
    one, other = tosc.Manager(backend), tosc.Manager(backend)
    one.write({'n': 0})
    data, theirs = one.read(), other.read()
    for n in range(2, 600, 2):
        data['n'] = n - 1
        data['n'] = n
        wait_until(lambda n=n: theirs['n'] == n, timeout=2, what='the second change')


def test_notices_that_are_not_true_do_no_harm(cluster, name, tmp_path):
    one, other = two(cluster, name, poll_interval=RARELY)
    one.write({'n': 0})
    theirs = other.read()
    copy = tmp_path / 'copy'
    cluster.rados('-p', cluster.pool, 'get', name, str(copy))
    store_id = copy.read_bytes()[STORE_ID]
    head = b'TOSCnot1' + b'somebody'
    forged_notices(cluster, name, [
        b'', b'hello', b'TOSCnot1', head + bytes(31), head + bytes(33), b'x' * 5000,
        *(head + version.to_bytes(8, 'little', signed=True) + whose + bytes(8)
          for version in (-2**63, -2, -1, 0, 1, 2, 3, 1000, 2**63 - 1)
          for whose in (store_id, bytes(16)))])
    for n in range(1, 6):
        one.read()['n'] = n
        wait_until(lambda n=n: theirs['n'] == n, timeout=2, what='the change')


def test_the_first_write_is_noticed(cluster, name):
    """There was no object that could be watched."""
    one, other = two(cluster, name, poll_interval=1)
    assert other.read(None) is None
    one.write([1])
    wait_until(lambda: other.read(None) == [1], timeout=5)
    begin = time.monotonic()
    one.read().append(2)
    wait_until(lambda: other.read() == [1, 2])
    assert time.monotonic() - begin < 0.9, 'from then on the object is watched'


def test_a_lost_notice_is_made_up_for_by_looking(cluster, name, tmp_path):
    """What is put there without a notice is seen within the poll interval."""
    source = name + '-source'
    first = tosc.Manager(cluster.backend(source))
    first.write({'n': 1})
    first.close()
    kept = tmp_path / 'kept'
    one = tosc.Manager(cluster.backend(name, poll_interval=0.3))
    one.write({'n': 0})
    cluster.rados('-p', cluster.pool, 'rm', name)
    wait_until(lambda: one.read(None) is None, timeout=5, what='the empty store')
    again = tosc.Manager(cluster.backend(name, key=cluster.key, keyring=None))
    again.write({'n': 2})
    wait_until(lambda: one.read(None) == {'n': 2}, timeout=5, what='the new store')
    again.read()['n'] = 3
    wait_until(lambda: one.read() == {'n': 3}, timeout=5)
    assert not kept.exists()


def test_an_object_that_is_removed_is_an_empty_store(cluster, name):
    """The watch goes with the object; a new one is set on the object that comes next."""
    one, other = two(cluster, name, poll_interval=0.5)
    one.write({'old': [1]})
    other.read()
    cluster.rados('-p', cluster.pool, 'rm', name)
    wait_until(lambda: one.read(None) is None and other.read(None) is None, timeout=10,
               what='the empty store')
    assert one.version is None
    one.write({'new': [2]})
    wait_until(lambda: other.read(None) == {'new': [2]}, timeout=10, what='the new object')
    wait_until(lambda: cluster.watchers(name), timeout=10, what='a watch')
    for n in range(5):
        one.read()['new'].append(n)
    wait_until(lambda: other.read() == {'new': [2, *range(5)]}, timeout=10)
    with pytest.raises(tosc.TransactionError):
        with one.transaction():
            one.read()['lost'] = 1
            cluster.rados('-p', cluster.pool, 'rm', name)
            with tosc.Manager(cluster.backend(name)) as third:
                third.write({'third': 0})
    wait_until(lambda: other.read(None) == {'third': 0}, timeout=10)


def test_an_older_copy_that_is_put_back(cluster, name):
    """What was remembered of the object is not so any more."""
    backend = cluster.backend(name, poll_interval=RARELY)
    for n in range(10):
        backend.write(str(n).encode())
        if n == 4:
            cluster.snapshot(name)
    version = backend.read()[0]
    cluster.rados('-p', cluster.pool, 'rollback', name, name)
    try:
        assert backend.try_write(b'refused', version) is False
        assert backend.read()[1] == b'4'
        backend.write(b'new')
        assert backend.read() == (version - 4, b'new')
        assert cluster.backend(name).read()[1] == b'new'
    finally:
        cluster.rados('-p', cluster.pool, 'rmsnap', name)


@pytest.mark.parametrize('size', [0, 3000, 100000], ids=['small', 'middle', 'compacted'])
@pytest.mark.parametrize('ahead', [-2, 0, 1, 4])
@pytest.mark.parametrize('how', ['asks', 'looks'])
def test_a_frozen_program_finds_an_older_copy_that_was_put_back(cluster, name, children,
                                                                how, ahead, size):
    """And what was committed after it: to a version below, at or above the one it knew.

    Large commits make for a compaction on the way.
    """
    def commit(what, times):
        for n in range(times):
            with manager.transaction():
                data['done'].append(f'{what}{n}')
                data['blob'] = what[:1].encode() * size

    manager = tosc.Manager(cluster.backend(name))
    manager.write({'done': [], 'blob': b''})
    data = manager.read()
    commit('kept', 3)
    cluster.snapshot(name)
    try:
        commit('lost', 5)
        frozen = children('''
            manager = tosc.Manager(open_store('ceph:' + sys.argv[1]))
            manager.read()
            print(manager.version)
            sys.stdin.readline()
            if sys.argv[2] == 'asks':
                manager.refresh()
            while 'lost4' in manager.read()['done']:
                assert sys.argv[2] == 'looks'
                time.sleep(0.01)
            print(sorted(manager.read().items()))
            with manager.transaction():
                manager.read()['done'].append('more')
            print('committed')
        ''', name, how)
        lost = manager.version
        assert frozen.line() == str(lost)
        frozen.signal(signal.SIGSTOP)
        manager.close()
        cluster.rados('-p', cluster.pool, 'rollback', name, name)
        manager = tosc.Manager(cluster.backend(name))
        data = manager.read()
        assert 3 <= len(data['done']) < 8
        commit('new!', lost + ahead - manager.version)
        expected = sorted(manager.snapshot().items())
        frozen.send()
        frozen.signal(signal.SIGCONT)
        assert frozen.line() == str(expected)
        assert frozen.line() == 'committed'
        assert manager.refresh()['done'] == [*dict(expected)['done'], 'more']
    finally:
        cluster.rados('-p', cluster.pool, 'rmsnap', name)


def test_a_commit_to_another_state_of_the_same_version_is_a_conflict(cluster, name, children):
    """An older copy was put back, and as much committed since."""
    manager = tosc.Manager(cluster.backend(name))
    manager.write({'n': 0})
    cluster.snapshot(name)
    try:
        manager.read()['n'] = 1
        child = children('''
            from opening import ceph_arguments
            backend = tosc.CephBackend(**ceph_arguments(sys.argv[1], poll_interval=600))
            manager = tosc.Manager(backend)
            print(manager.read()['n'])
            sys.stdin.readline()
            try:
                with manager.transaction():
                    manager.read(None)['n'] = 5
            except tosc.TransactionError:
                print('conflict', manager.read()['n'])
        ''', name)
        assert child.line() == '1'
        version = manager.version
        child.signal(signal.SIGSTOP)
        manager.close()
        cluster.rados('-p', cluster.pool, 'rollback', name, name)
        manager = tosc.Manager(cluster.backend(name))
        manager.read()['n'] = 2
        assert manager.version == version
        child.send()
        child.signal(signal.SIGCONT)
        assert child.line() == 'conflict 2'
    finally:
        cluster.rados('-p', cluster.pool, 'rmsnap', name)


def test_who_waits_on_an_older_copy_that_was_put_back_sleeps(cluster, name, tmp_path):
    """It has gone back once, and not each time that somebody asks."""
    kept = str(tmp_path / 'kept')
    writer = cluster.backend(name)
    for n in range(10):
        writer.write(str(n).encode())
        if n == 4:
            cluster.rados('-p', cluster.pool, 'get', name, kept)
    waiting = cluster.backend(name, poll_interval=1)
    assert waiting.read()[1] == b'9'
    waiting.target_wait(0.1)
    cluster.rados('-p', cluster.pool, 'rm', name)
    cluster.rados('-p', cluster.pool, 'put', name, kept)
    wait_until(lambda: waiting.read()[1] == b'4', timeout=5)
    count = 0
    end = time.monotonic() + 1
    while time.monotonic() < end:
        waiting.target_wait(0.5)
        waiting.read()
        count += 1
    assert count < 10
    cluster.backend(name).write(b'new')
    assert waiting.target_wait(5) is True
    assert waiting.read()[1] == b'new'


@NO_FORKS
def test_parent_and_child_of_a_fork_are_both_told(cluster, name, children):
    """Whoever has waited before has something to wait on, which is not for both."""
    writer = cluster.backend(name)
    writer.write(b'begin')
    child = children('''
        from opening import ceph_arguments
        backend = tosc.CephBackend(**ceph_arguments(sys.argv[1], poll_interval=600))
        backend.read()
        backend.target_wait(0.05)
        child = os.fork()
        os.write(1, b'ready\\n')
        deadline = time.monotonic() + 25
        while backend.read()[1] != b'end' and time.monotonic() < deadline:
            backend.target_wait(deadline - time.monotonic())
        if child:
            os.waitpid(child, 0)
        os.write(1, b'told\\n' if time.monotonic() < deadline else b'not told\\n')
        os._exit(0)
    ''', name)
    assert [child.line(), child.line()] == ['ready', 'ready']
    begin = time.monotonic()
    for n in range(40):
        writer.write(str(n).encode())
        time.sleep(0.05)
    writer.write(b'end')
    assert [child.line(), child.line()] == ['told', 'told']
    assert time.monotonic() - begin < 10


@pytest.mark.seconds(100)
def test_watches_survive_a_restart_of_the_osd(cluster, name):
    one, other = two(cluster, name, poll_interval=RARELY, timeout=20)
    one.write({'n': 0})
    theirs = other.read()
    with cluster.without_osd():
        time.sleep(0.5)
    for n in range(1, 6):
        tosc.transactional(one)(lambda n=n: one.read().__setitem__('n', n))()
        wait_until(lambda n=n: theirs['n'] == n, timeout=10, what='the notice')


@pytest.mark.seconds(100)
@pytest.mark.parametrize('who', ['reader', 'writer'])
def test_a_client_that_is_blocklisted_connects_anew(cluster, name, who, children):
    """Ceph does that to clients it has given up; only a new connection helps them."""
    manager = tosc.Manager(cluster.backend(name, timeout=20))
    manager.write({'n': 0, 'from child': 0})
    ours = set(cluster.watchers(name))
    child = children('''
        manager = tosc.Manager(open_store('ceph:' + sys.argv[1]))
        data = manager.read()
        print('ready')
        for line in sys.stdin:
            if line == 'write\\n':
                while True:
                    try:
                        tosc.transactional(manager)(
                            lambda: data.__setitem__('from child', data['from child'] + 1))()
                        break
                    except tosc.UnknownOutcomeError:
                        raise
                    except tosc.StorageError as error:
                        print('#', error, file=sys.stderr)
                        time.sleep(0.05)
                print('written')
            else:
                wanted = int(line)
                while data['n'] != wanted:
                    time.sleep(0.001)
                print('seen')
    ''', name, timeout=80)
    assert child.line() == 'ready'
    wait_until(lambda: set(cluster.watchers(name)) - ours, what="the child's watch")
    theirs, = set(cluster.watchers(name)) - ours
    cluster.ceph('osd', 'blocklist', 'add', theirs, '3600')
    try:
        if who == 'writer':
            child.send('write')
            assert child.line(40) == 'written'
            wait_until(lambda: manager.read()['from child'] == 1, timeout=10)
        for n in range(1, 4):
            manager.read()['n'] = n
            child.send(str(n))
            assert child.line(40) == 'seen'
        child.send('write')
        assert child.line(40) == 'written'
    finally:
        cluster.ceph('osd', 'blocklist', 'rm', theirs)
    manager.close()


# ---- the exclusive lock ----

@pytest.mark.seconds(100)
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
def test_a_holder_of_the_lock_that_is_gone_frees_it_after_its_lease(cluster, name, children,
                                                                    number):
    """Killed or stuck, it is the same to the others: but for one that wakes up later."""
    manager = tosc.Manager(cluster.backend(name, lease=2))
    manager.write({'n': 0})
    holder = children(HOLDER, CEPH + name, timeout=60)
    assert holder.line() == 'held'
    holder.signal(number)
    begin = time.monotonic()
    writer = Thread(manager.write, {'n': 'next'})
    writer.result(20)
    assert time.monotonic() - begin < 10
    manager.refresh()['n'] = 'after'
    if number == signal.SIGSTOP:
        # What it had in hand is void; its function runs again, on what is stored now.
        holder.signal(signal.SIGCONT)
        holder.send()
        told = holder.line()
        assert told == 'held'
        holder.send()
        assert holder.line() == 'done'
        assert manager.refresh()['n'] == 'holder'


@pytest.mark.seconds(100)
def test_a_holder_that_is_alive_keeps_the_lock_beyond_the_lease(cluster, name, children):
    manager = tosc.Manager(cluster.backend(name, lease=2))
    manager.write({'n': 0})
    holder = children(HOLDER, CEPH + name, timeout=60)
    assert holder.line() == 'held'
    writer = Thread(manager.write, {'n': 'next'})
    writer.join(3.5)
    assert writer.is_alive(), 'the lock is not renewed'
    holder.send()
    assert holder.line(20) == 'done'
    writer.result(10)


# ---- exclusive create ----

def test_of_several_processes_one_creates(cluster, name, children):
    code = '''
        backend = open_store('ceph:' + sys.argv[1])
        print('ready')
        sys.stdin.readline()
        print(backend.try_write(sys.argv[2].encode(), None))
    '''
    started = [children(code, name, number) for number in range(5)]
    for child in started:
        assert child.line() == 'ready'
    for child in started:
        child.send()
    answers = [child.line() for child in started]
    assert answers.count('True') == 1 and answers.count('False') == 4
    assert cluster.backend(name).read()[1] == str(answers.index('True')).encode()


# ---- time limits ----

def timed(function, error=(tosc.StorageError, tosc.UnknownOutcomeError)):
    begin = time.monotonic()
    with pytest.raises(error) as caught:
        function()
    return caught.value, time.monotonic() - begin


@pytest.mark.seconds(100)
def test_operations_end_with_their_time_limit_while_the_osd_is_away(cluster, name):
    backend = cluster.backend(name, timeout=1)
    version = backend.write(b'x')
    with cluster.without_osd():
        error, took = timed(backend.read)
        assert isinstance(error, TimeoutError) and error.errno == errno.ETIMEDOUT
        assert 0.9 < took < 4 and 'timeout' in str(error)
        for change in (lambda: backend.write(b'y'), lambda: backend.try_write(b'y', version)):
            assert timed(change)[1] < 5
    # It is back, and the same object goes on; what was given up may have been stored or not.
    data = backend.read()[1]
    assert data in (b'x', b'y')
    assert backend.try_write(b'z', backend.read()[0])


@pytest.mark.seconds(100)
def test_a_manager_goes_on_after_an_outage(cluster, name):
    one, other = two(cluster, name, timeout=2, poll_interval=1)
    one.write({'n': 0})
    theirs = other.read()
    with cluster.without_osd():
        error, took = timed(lambda: one.read().__setitem__('n', 1))
        assert took < 10
        assert theirs['n'] == 0, 'what is in memory can be read'
    wait_until(lambda: one.refresh() is not None, timeout=10)
    stored = one.read()['n']
    if not isinstance(error, tosc.UnknownOutcomeError):
        assert stored == 0
    tosc.transactional(one)(lambda: one.read().__setitem__('n', 2))()
    wait_until(lambda: theirs['n'] == 2, timeout=10)


@pytest.mark.seconds(100)
def test_a_new_backend_while_the_osd_is_away(cluster, name):
    """Where the store is cannot be known then; what comes is told all the same."""
    first = cluster.backend(name)
    first.write(b'1')
    with cluster.without_osd():
        begin = time.monotonic()
        backend = cluster.backend(name, connect_timeout=1)
        assert time.monotonic() - begin < 4
    assert backend.target_wait(10) is True
    assert backend.read() == first.read()
    first.write(b'2')
    assert backend.target_wait(10) is True


@pytest.mark.seconds(100)
def test_a_new_backend_while_the_monitor_is_away(cluster, name, children):
    cluster.backend(name).write(b'x')
    with cluster.without_mon():
        out = children('''
            from opening import ceph_arguments
            begin = time.monotonic()
            try:
                tosc.CephBackend(**ceph_arguments(sys.argv[1], connect_timeout=1))
            except tosc.StorageError as error:
                print(isinstance(error, TimeoutError), time.monotonic() - begin < 4)
        ''', name).check()
    assert out == 'True True'


# ---- Ctrl-C ----

@pytest.mark.seconds(100)
@pytest.mark.parametrize('what', ['osd', 'frozen'])
def test_ctrl_c_while_the_cluster_is_down(cluster, name, children, what):
    """In each call that has to wait for it."""
    manager = tosc.Manager(cluster.backend(name))
    manager.write({'n': 0})
    manager.close()
    started = [(call, children('''
        backend = open_store('ceph:' + sys.argv[1])
        manager = tosc.Manager(backend)
        data = manager.read()
        version = backend.read()[0]
        print('ready')
        sys.stdin.readline()
        try:
            print('waiting')
            eval(sys.argv[2])
            print('came through')
        except KeyboardInterrupt:
            print('interrupted')
        os._exit(0)
    ''', name, call)) for call in (
        'manager.refresh()', 'data.__setitem__("n", 1)', 'manager.write(1)', 'backend.read()',
        'backend.write(b"")', 'backend.try_write(b"", version)', 'backend.target_wait()')]
    for _, child in started:
        assert child.line() == 'ready'
    with (cluster.without_osd if what == 'osd' else cluster.frozen_osd)():
        for _, child in started:
            child.send()
            assert child.line() == 'waiting'
        time.sleep(0.3)
        for call, child in started:
            begin = time.monotonic()
            child.signal(signal.SIGINT)
            assert child.line(15) == 'interrupted', call
            assert time.monotonic() - begin < 2, call


def test_ctrl_c_while_connecting(children):
    skip_without_librados()
    with silent_port() as address:
        child = children('''
            try:
                print('waiting')
                tosc.CephBackend('tosc', 'AQAAAAAAAAAAAAAAEAAHBwcHBwcHBwcHBwcHBwcHBw==',
                                 sys.argv[1], 'pool', 'object', connect_timeout=60)
            except KeyboardInterrupt:
                print('interrupted')
            os._exit(0)
        ''', address)
        assert child.line() == 'waiting'
        time.sleep(0.3)
        child.signal(signal.SIGINT)
        assert child.line(5) == 'interrupted'


def test_a_process_ends_while_threads_work(cluster, name, children):
    """Its exit status is its own, whatever librados's threads are doing."""
    with tosc.Manager(cluster.backend(name)) as manager:
        manager.write({n: 0 for n in range(4)})
    started = [children('''
        import threading
        manager = tosc.Manager(open_store('ceph:' + sys.argv[1]))
        def work(n):
            while True:
                try:
                    tosc.transactional(manager)(manager.read().__setitem__)(n, time.time())
                    manager.refresh()
                except (tosc.ClosedError, tosc.StorageError):
                    pass
        for n in range(4):
            threading.Thread(target=work, args=(n,), daemon=True).start()
        print('ready')
        sys.stdin.readline()
        sys.exit(7)
    ''', name) for _ in range(6)]
    for number, child in enumerate(started):
        assert child.line() == 'ready'
        time.sleep(0.01 * number)
        child.send()
        assert child.wait() == 7, child.stderr


@pytest.mark.parametrize('commits', [1, 8, 40])
def test_a_process_that_ends_without_closing_its_store(cluster, name, children, commits):
    """Its last commit is told of, though it was made in a stream of them."""
    manager = tosc.Manager(cluster.backend(name, poll_interval=RARELY))
    manager.write({'n': 0})
    data = manager.read()
    for turn in range(1, 4):
        child = children('''
            import ctypes
            backend = open_store('ceph:' + sys.argv[1])
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(backend))
            data = tosc.Manager(backend).read()
            for _ in range(int(sys.argv[2])):
                data['n'] += 1
            sys.exit(7)
        ''', name, commits)
        assert child.wait() == 7, child.stderr
        wait_until(lambda turn=turn: data['n'] == turn * commits, timeout=2, what='the last one')


@NO_FORKS
def test_a_fork_by_the_handler_of_a_signal(cluster, name, children):
    """In the midst of a wait: parent and child go on."""
    cluster.backend(name).write(b'x')
    child = children('''
        import signal
        from opening import ceph_arguments
        backend = tosc.CephBackend(**ceph_arguments(sys.argv[1], poll_interval=600))
        def handler(number, frame):
            global child
            child = os.fork()
        signal.signal(signal.SIGALRM, handler)
        backend.target_wait(0.1)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        right = backend.target_wait(1) is False and backend.read()[1] == b'x'
        if child:
            print(right, os.waitpid(child, 0)[1])
            sys.stdout.flush()
        os._exit(0 if right else 1)
    ''', name)
    assert child.check() == 'True 0'


@pytest.mark.seconds(100)
@pytest.mark.parametrize('ending', ['manager.close()', 'pass', 'sys.exit(0)', 'os._exit(0)'])
def test_a_process_ends_while_the_cluster_is_down(cluster, name, children, ending):
    manager = tosc.Manager(cluster.backend(name))
    manager.write({'n': 0})
    manager.close()
    child = children('''
        manager = tosc.Manager(open_store('ceph:' + sys.argv[1]))
        manager.read()
        print('ready')
        sys.stdin.readline()
        exec(sys.argv[2])
    ''', name, ending)
    assert child.line() == 'ready'
    with cluster.without_osd():
        begin = time.monotonic()
        child.send()
        assert child.wait(30) == 0, child.stderr
        assert time.monotonic() - begin < 8
