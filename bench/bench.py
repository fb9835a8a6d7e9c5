#!/usr/bin/env tosc-run
# SPDX-License-Identifier: Apache-2.0
"""What tosc costs beside the least that anything could cost, measured in the same run.

    tosc-run bench/bench.py [--quick] [--only W3,W7] [--json FILE] [--update FILE...]
                            [--shm DIR] [--disk DIR]

Every work has a floor (the builtin type, or floor.c: a lock, a write and an unlock), tosc, and
where it makes sense SQLite. They take turns. See docs/performance.md.
"""

import argparse
import contextlib
import json
import os
import pickle
import platform
import sqlite3
import subprocess
import sys
import threading
import time

import measure
import tosc
from measure import HERE, Setting, calls, child, quantile, row, rows, statement

WORKS = {}


def work(name):
    def register(function):
        WORKS[name] = function
        return function
    return register


# ---- stores ----

def plain_dict(size):
    return {f'key{i}': i for i in range(size)}


@contextlib.contextmanager
def managed(value, backend=None):
    """A Manager whose store holds the value."""
    with tosc.Manager(backend or tosc.InprocBackend()) as manager:
        manager.write(value)
        yield manager


@contextlib.contextmanager
def sqlite_store(path, size, synchronous='off'):
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    db.execute('pragma journal_mode = wal')
    db.execute(f'pragma synchronous = {synchronous}')
    db.execute('create table store (key text primary key, value int) without rowid')
    db.execute('begin')
    db.executemany('insert into store values (?, ?)', plain_dict(size).items())
    db.execute('commit')
    yield db
    db.close()


def floor_commit(setting, count, size=100, kind='shm'):
    path = setting.path(kind)
    sync = int(kind == 'disk')
    return lambda: setting.floor_numbers('commit', path, count, size, sync)


UPDATE = 'update store set value = ? where key = ?'


# ---- reading ----

@work('W1')
def read_one_key(s):
    plain = plain_dict(1000)
    n = s.amount(1000, 500)
    key = 'key500'
    with managed(plain) as m, sqlite_store(s.path(), 1000) as db:
        shared = m.read()

        def in_transaction():
            with m.transaction():
                return statement('d[k]', n, d=shared, k=key)()

        select = 'select value from store where key = ?'
        return rows('W1', [
            ('dict: d[key], 1000 keys', statement('d[k]', n, d=plain, k=key)),
            ('tosc', statement('d[k]', n, d=shared, k=key)),
            ('tosc, in a transaction', in_transaction),
            ('sqlite3', statement('e(q, k).fetchone()', n // 20, e=db.execute, q=select,
                                  k=[key])),
        ], 10 * s.rounds, '<= 1.4 x')


@work('W2')
def read_nested(s):
    plain = {'users': [{'name': f'user {i}', 'age': i} for i in range(100)]}
    n = s.amount(1000, 500)
    with managed(plain) as m:
        text = "d['users'][17]['name']"
        return rows('W2', [("builtin: d['users'][17]['name']", statement(text, n, d=plain)),
                           ('tosc', statement(text, n, d=m.read()))], 10 * s.rounds, '<= 2 x')


@work('W1c')
def iterate(s):
    plain = plain_dict(1000)
    n = s.amount(10, 5)
    with managed(plain) as m:
        found = []
        for title, text in (('keys', 'for k in d: pass'),
                            ('items', 'for k, v in d.items(): pass')):
            found += rows('W1c', [(f'dict: iterate 1000 {title}', statement(text, n, d=plain)),
                                  ('tosc', statement(text, n, d=m.read()))],
                          10 * s.rounds, '<= 1.05 x')
        return found


class Custom:
    def __init__(self):
        self.name = 'some name'


@work('W1d')
def read_attribute(s):
    n = s.amount(1000, 500)
    plain = Custom()
    with managed(plain) as m:
        return rows('W1d', [('object: o.name', statement('o.name', n, o=plain)),
                            ('tosc', statement('o.name', n, o=m.read()))], 10 * s.rounds,
                    '<= 3 x')


# ---- one change, one commit ----

def set_key(store):
    def change(i):
        store['key500'] = i
    return change


def set_key_in_block(manager, store):
    def change(i):
        with manager.transaction():
            store['key500'] = i
    return change


def update_one(s, name, kind, goal):
    count = s.amount(1000, 300) if kind == 'disk' else s.amount(3000, 1500)
    where = 'disk' if kind == 'disk' else 'shm'
    full = 'full' if kind == 'disk' else 'off'
    with (managed(plain_dict(1000), tosc.FileBackend(s.path(kind))) as m,
          managed(plain_dict(1000), tosc.FileBackend(s.path(kind))) as m2,
          sqlite_store(s.path(kind), 1000, full) as db):
        return rows(name, [
            (f'floor: lock, write, unlock: {where}', floor_commit(s, count, kind=kind)),
            (f'tosc: d[key] = i, 1k entries, {where}', calls(set_key(m.read()), count)),
            ('tosc: the same, in a with block', calls(set_key_in_block(m2, m2.read()), count)),
            ('sqlite3', calls(lambda i: db.execute(UPDATE, [i, 'key500']), count)),
        ], s.rounds, goal)


@work('W3')
def update_shm(s):
    return update_one(s, 'W3', 'shm', '<= 1.6 x')


@work('W3s')
def update_sync(s):
    return update_one(s, 'W3s', 'disk', '<= 1.05 x')


@work('W3i')
def update_inproc(s):
    count = s.amount(5000, 2000)
    lock, plain = threading.Lock(), plain_dict(1000)

    def floor(i):
        with lock:
            pickle.dumps((7, 'key500', i))
            plain['key500'] = i

    with managed(plain_dict(1000)) as m, managed(plain_dict(1000)) as m2:
        return rows('W3i', [
            ('floor: lock, pickle 3-tuple, d[key] = i', calls(floor, count)),
            ('tosc: in memory, d[key] = i', calls(set_key(m.read()), count)),
            ('tosc: the same, in a with block', calls(set_key_in_block(m2, m2.read()), count)),
        ], s.rounds, '<= 2 µs')


def large(s, name, work_of, value, goal):
    """A large store beside one of 1000 entries, whose tosc figure is the floor here."""
    count = s.amount(3000, 1000)
    with (managed(plain_dict(1000), tosc.FileBackend(s.path())) as small,
          managed(value, tosc.FileBackend(s.path())) as m):
        return rows(name, [('tosc W3: 1k entries, shm', calls(set_key(small.read()), count)),
                           (f'tosc: {work_of[0]}; floor: W3', calls(work_of[1](m.read()), count))],
                    s.rounds, goal)


@work('W4')
def update_100k(s):
    return large(s, 'W4', ('d[key] = i, 100k entries', set_key), plain_dict(100_000),
                 '<= 1.2 x W3')


@work('W4m')
def update_1m(s):
    return large(s, 'W4m', ('d[key] = i, 1M entries', set_key), plain_dict(1_000_000),
                 '<= 1.5 x W3')


@work('W5')
def append_to_1m(s):
    return large(s, 'W5', ('append to a list of 1M', lambda store: store.append),
                 list(range(1_000_000)), '<= 1.5 x W3')


@work('W6')
def update_100(s):
    count = s.amount(300, 100)
    keys = [f'key{i}' for i in range(0, 1000, 10)]
    with (managed(plain_dict(1000), tosc.FileBackend(s.path())) as m,
          sqlite_store(s.path(), 1000) as db):
        store, path = m.read(), s.path()
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        plain = plain_dict(1000)

        def floor(i):
            for key in keys:
                plain[key] = i
            os.lockf(file, os.F_LOCK, 1)
            os.pwrite(file, pickle.dumps([(key, i) for key in keys]), 0)
            os.lockf(file, os.F_ULOCK, 1)

        def change(i):
            with m.transaction():
                for key in keys:
                    store[key] = i

        def change_sqlite(i):
            db.execute('begin')
            for key in keys:
                db.execute(UPDATE, [i, key])
            db.execute('commit')

        found = rows('W6', [('floor: 100 updates, pickle, write', calls(floor, count)),
                            ('tosc: 100 changes in one transaction', calls(change, count)),
                            ('sqlite3', calls(change_sqlite, count))], s.rounds, '<= 2 x')
        os.close(file)
        return found


# ---- processes that count ----

def count_processes(s, kind, path, own, work_us, seconds, processes=4):
    """How often each process has counted in a second."""
    start = time.monotonic_ns() + 1_500_000_000
    running = [subprocess.Popen([sys.executable, HERE / 'processes.py',
                                 *map(str, ['count', kind, path, number, own, seconds, start,
                                            work_us])], stdout=subprocess.PIPE)
               for number in range(processes)]
    out = [json.loads(process.communicate()[0]) for process in running]
    if any(process.returncode for process in running) or any(part['late'] for part in out):
        raise RuntimeError('a counting process failed or was late')
    return [part['done'] / seconds for part in out]


def counting(s, name, own, work_us, goal):
    seconds = s.amount(3, 1)
    rates = {'floor': [], 'tosc': [], 'sqlite3': []}
    shares = {label: [] for label in rates}
    for _ in range(s.amount(3, 1)):
        for label in rates:
            path = s.path()
            if label == 'floor':
                each = [number / seconds for number in
                        s.floor_numbers('count', path, 4, seconds, own, work_us)]
            elif label == 'tosc':
                with managed({f'key{i}': 0 for i in range(1000)}, tosc.FileBackend(path)) as m:
                    each = count_processes(s, 'tosc', path, own, work_us, seconds)
                    total = sum(m.refresh().values())
                if total != round(sum(each) * seconds):
                    raise RuntimeError(f'{total} counted instead of {sum(each) * seconds}')
            else:
                with sqlite_store(path, 10):
                    each = count_processes(s, 'sqlite', path, own, work_us, seconds)
            rates[label].append(sum(each))
            shares[label].append(min(each) / max(each) if max(each) else 0)
    middle = quantile(rates['floor'], 0.5)
    what = '4 processes, own keys' if own else '4 processes, one counter'
    return [row(name, f'{label}: {what}', rates[label], middle, True,
                goal=goal if label == 'tosc' else None, first=label == 'floor',
                note=f'least/most share {min(shares[label]):.2f}')
            for label in rates]


@work('W7')
def one_counter(s):
    return counting(s, 'W7', 0, 0, '>= 0.4 x')


@work('W7b')
def own_counters(s):
    return counting(s, 'W7b', 1, 0, '>= 0.4 x')


@work('W7c')
def one_counter_with_work(s):
    return counting(s, 'W7c', 0, 1000, '>= 0.95 x, share >= 0.9')


# ---- a change seen in another process ----

def seen_by(kind, path, change, count, pause):
    """Delays of `count` changes, each some time after the one before."""
    process = subprocess.Popen([sys.executable, HERE / 'processes.py', 'see', kind, path,
                                str(count)], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()  # ready
    while process.poll() is None:
        time.sleep(pause)
        change(time.monotonic_ns())
    return json.loads(process.stdout.read())


@work('W8')
def seen_elsewhere(s):
    count = s.amount(300, 100)
    with (managed({'time': 0}, tosc.FileBackend(s.path())) as m,
          sqlite_store(s.path(), 10) as db):
        store, path = m.read(), m.backend.file_path
        db.execute("insert into store values ('time', 0)")
        database = db.execute('pragma database_list').fetchone()[2]

        def change(ns):
            store['time'] = ns

        def change_sqlite(ns):
            db.execute(UPDATE, [ns, 'time'])

        floor_path = s.path()
        return rows('W8', [
            ('floor: inotify', lambda: s.floor_numbers('wake', floor_path, count, 2000)),
            ('tosc: seen by target_wait, refresh', lambda: seen_by('wait', path, change, count, 0.002)),
            ('tosc: seen by the watcher',
             lambda: seen_by('watch', path, change, count, 0.002)),
            ('sqlite3: select in a loop',
             lambda: seen_by('sqlite', database, change_sqlite, count, 0.002)),
        ], max(1, s.rounds // 3), '<= 2.5 x')


# ---- opening, memory ----

def many_dicts():
    return [{'id': i, 'name': f'user {i}', 'score': i * 0.5} for i in range(100_000)]


@work('W9')
def open_and_load(s):
    plain, path, dumped = many_dicts(), s.path(), s.path()
    with managed(plain, tosc.FileBackend(path)):
        pass
    with open(dumped, 'wb') as file:
        pickle.dump(plain, file, 5)
    del plain

    def floor(_):
        with open(dumped, 'rb') as file:
            pickle.load(file)

    def read(_):
        with tosc.Manager(tosc.FileBackend(path)) as manager:
            manager.read()

    return rows('W9', [('floor: unpickle 100k small dicts', calls(floor, 1)),
                       ('tosc: open and load 100k small dicts', calls(read, 1))], s.rounds, '<= 1.3 x')


@work('W10')
def memory(s):
    plain, path, dumped = many_dicts(), s.path(), s.path()
    with managed(plain, tosc.FileBackend(path)):
        pass
    with open(dumped, 'wb') as file:
        pickle.dump(plain, file, 5)
    del plain
    return rows('W10', [
        ('floor: builtin, as unpickled', lambda: [child('load', 'pickle', dumped)['bytes'] / 1e6]),
        ('tosc: memory of 100k small dicts', lambda: [child('load', 'tosc', path)['bytes'] / 1e6]),
    ], s.amount(3, 1), '<= 1.35 x', unit='MB')


# ---- threads ----

@work('W11')
def hundred_threads(s):
    def run(count):
        threads = [threading.Thread(target=count) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with managed({'count': 0}) as m:
        store, lock, plain = m.read(), threading.Lock(), {'count': 0}

        @tosc.transactional(m)
        def count():
            store['count'] += 1

        def count_plain():
            with lock:
                plain['count'] += 1

        found = rows('W11', [('floor: 100 threads, lock', calls(lambda _: run(count_plain), 1)),
                             ('tosc: 100 threads, @transactional', calls(lambda _: run(count), 1))],
                     s.rounds, '< 0.2 s')
        if store['count'] != plain['count']:
            raise RuntimeError(f"{store['count']} counted instead of {plain['count']}")
        return found


# ---- the program ----

def machine():
    with contextlib.suppress(OSError, StopIteration), open('/proc/cpuinfo') as info:
        cpu = next(line.partition(':')[2].strip() for line in info if 'model name' in line)
        return f'{os.cpu_count()} x {cpu}, Linux {platform.release()}, Python ' + \
            platform.python_version()
    return platform.platform()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--quick', action='store_true', help='fewer and shorter rounds')
    parser.add_argument('--rounds', type=int, help='how often each takes its turn')
    parser.add_argument('--only', metavar='WORK,...', help=', '.join(WORKS))
    parser.add_argument('--json', metavar='FILE', help='write the figures there as well')
    parser.add_argument('--update', metavar='FILE', nargs='+', default=[],
                        help='put the table between the marks in these Markdown files')
    parser.add_argument('--shm', metavar='DIR', default='/dev/shm', help='a tmpfs')
    parser.add_argument('--disk', metavar='DIR', default='.', help='on a local disk')
    options = parser.parse_args()
    names = options.only.split(',') if options.only else list(WORKS)
    if not set(names) <= set(WORKS):
        parser.error('there are only the works ' + ', '.join(WORKS))
    setting = Setting(options.shm, options.disk, options.quick, options.rounds)
    found = []
    print(f'tosc {tosc.__version__}; {machine()}; load {os.getloadavg()[0]:.1f}')
    print(measure.table_line(measure.COLUMNS))
    try:
        for name in names:
            try:
                part = WORKS[name](setting)
            except (RuntimeError, subprocess.CalledProcessError, tosc.Error) as error:
                print(f'{name:<5} FAILED: {type(error).__name__}: {error}', flush=True)
                continue
            found += part
            for entry in part:
                print(measure.table_line(measure.cells(entry)), flush=True)
            setting.clear()
    finally:
        setting.remove()
    for path in options.update:
        measure.update(path, found, f'{machine()}, load average {os.getloadavg()[0]:.1f}')
    if options.json:
        with open(options.json, 'w', encoding='utf-8') as file:
            json.dump({'machine': machine(), 'tosc': tosc.__version__, 'rows': found}, file,
                      indent=1)


if __name__ == '__main__':
    main()
