"""Faults of the cluster while several processes commit: nothing lost, nothing applied twice."""
# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
import time

import pytest

import tosc
from bank import ACCOUNTS
from cluster import HERE
from harness import Thread

pytestmark = pytest.mark.skipif(
    bool(os.environ.get('TOSC_SANITIZED')),
    reason='too long with sanitizers: the other files are for them')

TIMEOUT = 20


class Bank:
    """Processes of bank.py on one object, and what must hold in the end."""

    def __init__(self, cluster, name, timeout=TIMEOUT, processes=6, confs=()):
        self.slow = 2 * timeout + 10
        self.manager = tosc.Manager(cluster.backend(name, timeout=timeout, poll_interval=1))
        self.manager.write({'accounts': [1000] * ACCOUNTS, 'done': {}, 'total': 0})
        self.workers = [subprocess.Popen(
            [sys.executable, os.path.join(HERE, 'bank.py'), name, str(number), str(timeout),
             *confs[number:number + 1]],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8')
            for number in range(processes)]
        for worker in self.workers:
            assert self.line(worker) == 'ready'

    @staticmethod
    def line(worker):
        line = worker.stdout.readline().strip()
        assert line, worker.stderr.read()
        return line

    def total(self):
        return self.manager.read()['total']

    def wait_for_commits(self, count=20, timeout=25):
        """The processes go on: so many more commits are seen here, by the watcher alone."""
        wanted = self.total() + count
        deadline = time.monotonic() + timeout
        while self.total() < wanted:
            assert time.monotonic() < deadline, f'{wanted - self.total()} commits are missing'
            for worker in self.workers:
                assert worker.poll() is None, worker.stderr.read()
            time.sleep(0.01)

    @staticmethod
    def insist(function):
        """Again while the store says no: the last fault may not be over."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return function()
            except (tosc.StorageError, tosc.TransactionError, tosc.UnknownOutcomeError):
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def finish(self):
        """Stops them, and compares what they know with what is stored."""
        data = self.manager.read()
        self.insist(tosc.transactional(self.manager)(lambda: data.__setitem__('stop', True)))
        for worker in self.workers:
            assert Thread(self.line, worker).result(30) == 'stopped'
        self.insist(tosc.transactional(self.manager)(lambda: data.__setitem__('end', True)))
        stored = time.monotonic()
        knows = [json.loads(Thread(self.line, worker).result(40)) for worker in self.workers]
        for worker in self.workers:
            assert worker.wait(20) == 0, worker.stderr.read()
        state = self.manager.snapshot()
        for number, known in enumerate(knows):
            print({key: value for key, value in known.items() if key not in ('state',)})
            applied = state['done'].get(f'worker{number}', 0)
            assert applied == known['acknowledged'] + known['found'], (applied, known)
            assert known['acknowledged'] > 0
            assert known['state'] == state
            assert known['end'] - stored < 5, 'the end state came late'
            assert known['slowest'] < self.slow, known['slowest']
        assert state['total'] == sum(state['done'].values())
        assert sum(state['accounts']) == 1000 * ACCOUNTS
        return knows

    def close(self):
        for worker in self.workers:
            worker.kill()
            worker.wait()
            worker.stdout.close()
            worker.stderr.close()
        self.manager.close()


@pytest.fixture
def bank(cluster, name):
    running = Bank(cluster, name)
    yield running
    running.close()


@pytest.mark.seconds(170)
def test_the_osd_is_killed_five_times(cluster, bank):
    for turn in range(5):
        bank.wait_for_commits()
        cluster.kill_osd()
        time.sleep(0.2 * turn)
        cluster.start_osd()
    bank.wait_for_commits()
    bank.finish()


@pytest.mark.seconds(120)
def test_the_osd_is_frozen_and_goes_on(cluster, bank):
    for seconds in (0.3, 2):
        bank.wait_for_commits()
        with cluster.frozen_osd():
            time.sleep(seconds)
    bank.wait_for_commits()
    bank.finish()


@pytest.mark.seconds(120)
def test_time_limits_that_are_shorter_than_the_outage(cluster, name):
    """Commits are refused, or nobody knows: what is looked up then is true."""
    bank = Bank(cluster, name, timeout=1)
    try:
        for outage in (cluster.frozen_osd, cluster.without_osd):
            bank.wait_for_commits()
            with outage():
                time.sleep(2.5)
        bank.wait_for_commits()
        knows = bank.finish()
    finally:
        bank.close()
    assert sum(known['refused'] + known['unknown'] for known in knows) > 0


@pytest.mark.seconds(120)
def test_the_monitor_is_restarted(cluster, bank):
    """Connections that stand go on without it."""
    bank.wait_for_commits()
    with cluster.without_mon():
        bank.wait_for_commits()
        time.sleep(1)
    bank.wait_for_commits()
    bank.finish()


@pytest.mark.seconds(120)
def test_a_process_that_is_killed_disturbs_nobody(cluster, bank):
    for _ in range(2):
        bank.wait_for_commits()
        worker = bank.workers.pop()
        worker.kill()
        worker.wait()
        worker.stdout.close()
        worker.stderr.close()
    bank.wait_for_commits()
    bank.finish()


# An OSD that remembers hardly anything of what it has done.
FORGETFUL = {'osd_min_pg_log_entries': 1, 'osd_max_pg_log_entries': 2,
             'osd_pg_log_dups_tracked': 0, 'osd_pg_log_trim_min': 1}


@pytest.mark.seconds(240)
def test_what_was_done_and_is_sent_again(cluster, name, tmp_path):
    """librados repeats what was not answered; an OSD may not know that it has done it."""
    with open(cluster.environment['CEPH_CONF'], encoding='utf-8') as file:
        text = file.read()
    conf = tmp_path / 'ceph.conf'
    conf.write_text(text + '\n[client]\nms_inject_socket_failures = 300\n')
    try:
        for option, value in FORGETFUL.items():
            cluster.ceph('config', 'set', 'osd', option, str(value))
        bank = Bank(cluster, name, processes=4, confs=(str(conf), str(conf)))
        try:
            bank.wait_for_commits(1500, timeout=60)
            bank.finish()
        finally:
            bank.close()
    finally:
        for option in FORGETFUL:
            cluster.ceph('config', 'rm', 'osd', option)
