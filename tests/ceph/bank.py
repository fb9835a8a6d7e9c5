"""One of several processes that move money about in a Ceph object while the cluster has faults.

    bank.py NAME NUMBER TIMEOUT [CONF]

It commits until the store says 'stop', and prints a JSON line with what it knows then. Each
commit moves money between two accounts, and raises a counter shared by all and one of its own.
So its own counter in the store says how many of its commits were applied, each once.

A commit can end in four ways. It was acknowledged; it was refused (StorageError), so it must not
be there; its outcome is not known (UnknownOutcomeError): then the store is read, and its own
counter tells; or the process has to be tried again because somebody was faster (conflict).
"""
# SPDX-License-Identifier: Apache-2.0
import faulthandler
import json
import os
import random
import sys
import time

faulthandler.dump_traceback_later(150, exit=True)
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'py'))

# pylint: disable=wrong-import-position
import tosc  # noqa: E402
from opening import ceph_arguments  # noqa: E402

ACCOUNTS = 8


class Worker:
    """What one process knows of its own commits."""

    def __init__(self, name, number, timeout, conf=None):
        self.me = f'worker{number}'
        self.random = random.Random(number)
        backend = tosc.CephBackend(
            **ceph_arguments(name, timeout=timeout, poll_interval=1, conf=conf))
        self.manager = tosc.Manager(backend)
        self.data = self.manager.read()
        self.known = {'acknowledged': 0, 'refused': 0, 'unknown': 0, 'found': 0, 'slowest': 0.0,
                      'errors': {}}
        self.move = tosc.transactional(self.manager)(self._move)

    def _move(self, giver, taker, amount):
        data = self.data
        data['accounts'][giver] -= amount
        data['accounts'][taker] += amount
        data['done'][self.me] = data['done'].get(self.me, 0) + 1
        data['total'] += 1

    def timed(self, function, *args):
        begin = time.monotonic()
        try:
            return function(*args)
        finally:
            self.known['slowest'] = max(self.known['slowest'], time.monotonic() - begin)

    def applied(self):
        return self.known['acknowledged'] + self.known['found']

    def look_until_it_works(self):
        while True:
            try:
                return self.timed(self.manager.refresh)['done'].get(self.me, 0)
            except tosc.StorageError as error:
                self.count(error)
                time.sleep(0.05)

    def count(self, error):
        text = f'{type(error).__name__}: {error}'
        self.known['errors'][text] = self.known['errors'].get(text, 0) + 1

    def step(self):
        giver, taker = self.random.sample(range(ACCOUNTS), 2)
        try:
            self.timed(self.move, giver, taker, self.random.randrange(100))
            self.known['acknowledged'] += 1
        except tosc.UnknownOutcomeError as error:
            self.count(error)
            self.known['unknown'] += 1
            self.known['found'] += self.look_until_it_works() - self.applied()
        except tosc.StorageError as error:
            self.count(error)
            self.known['refused'] += 1
            time.sleep(0.02)

    def run(self):
        print('ready', flush=True)
        while not self.data.get('stop'):
            self.step()
        self.known['seen'] = time.monotonic()
        print('stopped', flush=True)
        # From here on nothing is asked for: what comes, the watcher brings.
        deadline = time.monotonic() + 30
        while not self.data.get('end') and time.monotonic() < deadline:
            time.sleep(0.005)
        self.known['end'] = time.monotonic()
        self.known['state'] = self.manager.snapshot()
        print(json.dumps(self.known), flush=True)


if __name__ == '__main__':
    Worker(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]).run()
