"""A backend written in Python: a store in an SQLite database.

It is complete: data and version change together, versions never come back, several threads and
processes may use it at a time, and a Manager that uses it can be closed at once, because
target_wait takes a timeout. test_backends.py runs it through the same tests as our own.
"""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import math
import sqlite3
import time

import tosc

PAUSE = 0.01


class SqliteBackend(tosc.BackendBase):

    def __init__(self, path):
        self.path = path
        with self._connect() as db:
            db.execute('CREATE TABLE IF NOT EXISTS store (id INTEGER PRIMARY KEY CHECK (id = 1),'
                       ' version INTEGER NOT NULL, data BLOB NOT NULL)')
        self._seen = self._version()

    @contextlib.contextmanager
    def _connect(self):
        # A connection belongs to one thread and must not cross a fork: so one for each call.
        db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        try:
            yield db
        finally:
            db.close()

    def _version(self):
        return self.read()[0]

    @staticmethod
    def _store(db, new):
        db.execute('INSERT INTO store VALUES (1, 1, ?) ON CONFLICT (id)'
                   ' DO UPDATE SET version = version + 1, data = excluded.data', (bytes(new),))
        return db.execute('SELECT version FROM store').fetchone()[0]

    def read(self):
        with self._connect() as db:
            return db.execute('SELECT version, data FROM store').fetchone() or (None, None)

    def write(self, new):
        with self._connect() as db:
            db.execute('BEGIN IMMEDIATE')
            version = self._store(db, new)
            db.execute('COMMIT')
            return version

    def try_write(self, new, expected):
        with self._connect() as db:
            db.execute('BEGIN IMMEDIATE')
            row = db.execute('SELECT version FROM store').fetchone()
            matches = expected == (row[0] if row else None)
            if matches:
                self._store(db, new)
            db.execute('COMMIT')
            return matches

    def target_wait(self, timeout=None):
        seen = self._seen
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        while True:
            version = self._version()
            if version != seen:
                self._seen = version
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(PAUSE, left))
