#!/usr/bin/env tosc-run
# SPDX-License-Identifier: Apache-2.0
"""A backend written in Python: the store is a row of an SQLite database.

    tosc-run sqlite_backend.py DATABASE      counts its own runs

The four methods are all that a Manager needs. Each commit writes all of the store, though.
"""

import contextlib
import sqlite3
import sys
import time

import tosc

CREATE = 'create table if not exists store (one integer primary key, version int, data blob)'
WRITE = '''insert into store values (1, 1, ?) on conflict do
           update set version = version + 1, data = excluded.data returning version'''
FIRST = 'insert into store values (1, 1, ?) on conflict do nothing returning version'
NEXT = 'update store set version = version + 1, data = ? where version = ? returning version'


class SqliteBackend(tosc.BackendBase):
    def __init__(self, path):
        self.path = path
        self.row(CREATE)
        self.seen, _ = self.read()

    def row(self, *statement):
        # A connection each time, as a backend is used by several threads.
        with contextlib.closing(sqlite3.connect(self.path, 30, isolation_level=None)) as db:
            return next(iter(db.execute(*statement).fetchall()), None)

    def read(self):
        return self.row('select version, data from store') or (None, None)

    def write(self, new):
        return self.row(WRITE, [new])[0]

    def try_write(self, new, expected):
        row = self.row(FIRST, [new]) if expected is None else self.row(NEXT, [new, expected])
        return row is not None

    def target_wait(self, timeout=1.0):
        deadline, before = time.monotonic() + timeout, self.seen
        while self.seen == before and time.monotonic() < deadline:
            time.sleep(0.02)
            self.seen, _ = self.read()
        return self.seen != before


if __name__ == '__main__':
    with tosc.Manager(SqliteBackend(sys.argv[1])) as manager:
        manager.try_write({'runs': 0}, None)  # None: only if there is nothing yet
        store = manager.read()
        with manager.transaction():
            store['runs'] += 1
        print('run number', store['runs'])
