# SPDX-License-Identifier: Apache-2.0
"""The other processes of bench.py. Each prints JSON. Times are CLOCK_MONOTONIC, which all
processes of a machine share.

    processes.py count KIND PATH NUMBER OWN SECONDS START WORK_US   count until the time is over
    processes.py see KIND PATH COUNT                                wait for changes, print delays
    processes.py load KIND PATH                                     memory that a store needs
"""

import json
import os
import pickle
import sqlite3
import sys
import time

import tosc


def busy(nanoseconds):
    end = time.monotonic_ns() + nanoseconds
    while time.monotonic_ns() < end:
        pass


# ---- counting ----

def counter_tosc(path, key, work):
    manager = tosc.Manager(tosc.FileBackend(path))
    store = manager.read()

    @tosc.transactional(manager)
    def count():
        value = store[key]
        if work:
            busy(work)
        store[key] = value + 1
    return count


def counter_sqlite(path, key, work):
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    db.execute('pragma synchronous = off')

    def count():
        db.execute('begin immediate')
        value, = db.execute('select value from store where key = ?', [key]).fetchone()
        if work:
            busy(work)
        db.execute('update store set value = ? where key = ?', [value + 1, key])
        db.execute('commit')
    return count


def count_for(kind, path, number, own, seconds, start, work_us):
    key = f'key{number if int(own) else 0}'
    count = {'tosc': counter_tosc, 'sqlite': counter_sqlite}[kind](path, key, int(work_us) * 1000)
    start = int(start)
    end = start + int(float(seconds) * 1e9)
    late = time.monotonic_ns() > start
    while time.monotonic_ns() < start:
        pass
    done = 0
    while time.monotonic_ns() < end:
        count()
        done += 1
    return {'done': done, 'late': late}


# ---- seeing a change ----

def see(kind, path, count):
    """The writer stores the time at which it began to store it."""
    delays = []
    if kind == 'sqlite':
        db = sqlite3.connect(path, timeout=60, isolation_level=None)

        def look():
            return db.execute('select value from store where key = ?', ['time']).fetchone()[0]
        wait = None
    else:
        backend = tosc.FileBackend(path)
        manager = tosc.Manager(backend)
        store = manager.read()

        def look():
            return store['time']

        def wait():
            backend.target_wait()
            manager.refresh()
        if kind == 'watch':  # the watcher alone, looked at often
            def wait():
                time.sleep(0)  # lets other threads run; any real pause is 60 µs and more
    seen = look()
    print('ready', flush=True)
    while len(delays) < int(count):
        if wait is not None:
            wait()
        value = look()
        if value != seen:
            delays.append(time.monotonic_ns() - value)
            seen = value
    return delays


# ---- memory ----

def resident():
    with open('/proc/self/statm', encoding='ascii') as statm:
        return int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def load(kind, path):
    before = resident()
    if kind == 'pickle':
        with open(path, 'rb') as file:
            kept = pickle.load(file)
    else:
        manager = tosc.Manager(tosc.FileBackend(path))
        kept = manager.read()
    return {'bytes': resident() - before, 'length': len(kept)}


if __name__ == '__main__':
    print(json.dumps({'count': count_for, 'see': see, 'load': load}[sys.argv[1]](*sys.argv[2:])))
