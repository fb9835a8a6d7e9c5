"""FileBackend on CephFS: two mounts of one file system stand for two hosts."""
# SPDX-License-Identifier: Apache-2.0
import functools
import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import uuid

import pytest

import tosc
from cluster import HERE, PACKAGES, skip_without
from harness import MISSING, Thread, wait_until

POLL = 0.1


@pytest.fixture(scope='module')
def file_system(bare_cluster):
    """The directory that has the mounts."""
    try:
        is_device = stat.S_ISCHR(os.stat('/dev/fuse').st_mode)
        os.close(os.open('/dev/fuse', os.O_RDWR))
    except OSError as error:
        pytest.skip(f'no FUSE here: {error}')
    if not is_device or not shutil.which('umount') or os.getuid() != 0:
        pytest.skip('mounting needs root, umount and the device /dev/fuse')
    skip_without({**PACKAGES, 'ceph-mds': 'ceph-mds', 'ceph-fuse': 'ceph-fuse'})
    bare_cluster.do('cephfs-up')
    yield bare_cluster.directory
    bare_cluster.do('cephfs-down')


def paths_on(directory, hosts):
    """One new file, as each of the hosts names it."""
    name = str(uuid.uuid4())
    return [os.path.join(directory, f'mnt-{host}', name) for host in hosts]


@pytest.fixture
def paths(file_system):
    """On mounts without the kernel's page cache."""
    return paths_on(file_system, 'ab')


@pytest.fixture(params=['ab', 'cd'], ids=['without page cache', 'default options'])
def any_paths(file_system, request):
    return paths_on(file_system, request.param)


def start(work, times, *paths):
    return subprocess.Popen(
        [sys.executable, os.path.join(HERE, 'cephfs_worker.py'), work, str(times), *paths],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8')


def line_of(worker):
    """What it says next; what went wrong if it has ended."""
    return worker.stdout.readline() or worker.communicate()[1]


def together(workers, prepare=(lambda: None,)):
    """Lets them begin at once, and waits until all have done their work; for each preparation."""
    try:
        for step in prepare:
            step()
            for worker in workers:
                assert line_of(worker) == 'ready\n'
            for worker in workers:
                worker.stdin.write('\n')
                worker.stdin.flush()
            for worker in workers:
                assert line_of(worker) == 'done\n'
        for worker in workers:
            assert worker.communicate(timeout=20) == ('', '') and worker.returncode == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def test_both_hosts_see_one_store(any_paths):
    managers = [tosc.Manager(tosc.FileBackend(path)) for path in any_paths]
    managers[0].write({'from': ['a']})
    managers[1].read()['from'].append('b')
    assert managers[0].refresh() == {'from': ['a', 'b']}
    for manager in managers:
        manager.close()


def create(path, value):
    with tosc.Manager(tosc.FileBackend(path)) as manager:
        manager.write(value)


@pytest.mark.seconds(240)
def test_no_increment_is_lost_between_hosts(any_paths):
    """
    Neither by locks that do not exclude nor by old pages. Several new stores, as a page that
    is read beside the first append is the most likely one to be wrong.
    """
    stores = [[f'{path}-{n}' for path in any_paths] for n in range(20)]
    together([start('count', 5, *paths) for paths in list(zip(*stores)) * 2],
             [functools.partial(create, here, {'counter': 0}) for here, _ in stores])
    for path in itertools.chain(*stores):
        with tosc.Manager(tosc.FileBackend(path)) as manager:
            assert manager.read() == {'counter': 20}


def test_nobody_reads_a_mixture(any_paths):
    create(any_paths[0], {'parts': [0] * 40})
    together([*[start('change', 50, path) for path in any_paths],
              *[start('read', 60, path) for path in any_paths]])
    with tosc.Manager(tosc.FileBackend(any_paths[1])) as manager:
        assert manager.read() == {'parts': [100] * 40}


def test_the_lock_excludes_the_other_host(paths, children):
    """And a holder that is killed frees it at once."""
    with tosc.Manager(tosc.FileBackend(paths[0])) as manager:
        manager.write({'n': 0})
    holder = children('''
        import threading
        managers = [tosc.Manager(tosc.FileBackend(sys.argv[1])) for _ in range(2)]
        attempts = 0

        @tosc.transactional(managers[0])
        def operation():
            global attempts
            attempts += 1
            managers[0].read()['n'] = 'holder'
            other = threading.Thread(target=managers[1].write, args=({'n': attempts},),
                                     daemon=True)
            other.start()
            other.join(0.5)
            if other.is_alive():
                print('held', flush=True)
                sys.stdin.readline()

        operation()
    ''', paths[0])
    assert holder.line() == 'held'
    with tosc.Manager(tosc.FileBackend(paths[1])) as other:
        writer = Thread(other.write, {'n': 'other'})
        writer.join(0.5)
        assert writer.is_alive(), 'the lock does not exclude'
        holder.signal(signal.SIGKILL)
        writer.result(5)
        assert other.refresh() == {'n': 'other'}


def test_changes_are_seen_within_the_poll_interval(any_paths):
    """inotify hears nothing of the other host."""
    backends = [tosc.FileBackend(path, poll_interval=POLL) for path in any_paths]
    one, other = [tosc.Manager(backend) for backend in backends]
    one.write({'n': 0})
    theirs = other.read()
    delays = []
    for n in range(1, 16):
        one.read()['n'] = n
        begin = time.monotonic()
        wait_until(lambda n=n: theirs['n'] == n, timeout=5, what='the change')
        delays.append(time.monotonic() - begin)
        time.sleep(0.03 * (n % 4))
    assert sorted(delays)[7] < POLL + 0.05 and max(delays) < POLL + 1, delays
    for manager in (one, other):
        manager.close()


def test_target_wait_hears_of_the_other_host(paths):
    here, there = [tosc.FileBackend(path, poll_interval=POLL) for path in paths]
    here.write(b'1')
    assert there.target_wait(5) is True
    waiter = Thread(there.target_wait, 10)
    waiter.join(0.2)
    assert waiter.is_alive()
    here.write(b'2')
    assert waiter.result(5) is True
    assert there.read() == here.read()


def test_one_of_the_hosts_creates(paths):
    here, there = [tosc.FileBackend(path) for path in paths]
    threads = [Thread(backend.try_write, data, None)
               for backend, data in ((here, b'here'), (there, b'there'))]
    created = [thread.result() for thread in threads]
    assert sorted(created) == [False, True]
    assert here.read() == there.read()
    assert here.read()[1] == (b'here' if created[0] else b'there')


def test_a_store_that_the_other_host_deletes_is_empty(paths):
    one, other = [tosc.Manager(tosc.FileBackend(path, poll_interval=POLL)) for path in paths]
    one.write({'old': 1})
    other.read()
    os.unlink(paths[0])
    wait_until(lambda: other.read(None) is None, timeout=10, what='the empty store')
    other.write({'new': 2})
    wait_until(lambda: one.refresh(None) == {'new': 2}, timeout=10, what='the new store')
    for manager in (one, other):
        manager.close()


def test_compaction_on_one_host_disturbs_nobody_on_the_other(any_paths):
    one, other = [tosc.Manager(tosc.FileBackend(path, poll_interval=POLL, durable=False))
                  for path in any_paths]
    one.write({'list': []})
    mine, theirs = one.read(), other.read()
    sizes = set()
    for n in range(120):
        mine['list'] = ['x' * 500] * 10 + [n]
        sizes.add(os.path.getsize(any_paths[0]))
    assert any(a > b for a, b in zip(sorted(sizes), sizes)) or len(sizes) > 1
    wait_until(lambda: theirs['list'][-1] == 119, timeout=10)
    theirs['list'] = ['from there']
    wait_until(lambda: one.refresh()['list'] == ['from there'], timeout=10)
    with tosc.Manager(tosc.FileBackend(any_paths[1])) as fresh:
        assert fresh.snapshot(MISSING) == {'list': ['from there']}
    for manager in (one, other):
        manager.close()
