# SPDX-License-Identifier: Apache-2.0
"""What commits and their being seen cost on Ceph, beside plain librados on the same cluster.

    tosc-run bench/bench_ceph.py [--quick] [--rounds N] [--cluster DIR]

Brings up a cluster of one node (tests/ceph/ceph-test-cluster) for the time of the measurement, or
takes the one in DIR. The floor is bench/ceph_floor.c: one compound operation (compare an
attribute, append as many bytes as a commit does, set two attributes), and bare notices. Floor
and tosc take turns. See measure.py for the columns.
"""

import argparse
import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import measure
import tosc

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parent / 'tests' / 'ceph' / 'ceph-test-cluster'
PAUSE_MS = 2


# ---- the cluster and the floor ----

@contextlib.contextmanager
def cluster(given):
    """The directory of a cluster that runs, with its settings in the environment."""
    directory = given or tempfile.mkdtemp(prefix='tosc-bench-ceph-', dir='/tmp')
    environment = {**os.environ, 'CTC_OWNER': '' if given else str(os.getpid())}
    try:
        subprocess.run([SCRIPT, 'up', directory], check=True, env=environment)
        printed = subprocess.run([SCRIPT, 'env', directory], check=True, stdout=subprocess.PIPE,
                                 encoding='utf-8').stdout
        for name, value in re.findall(r'(?m)^(TOSC_\w+)=(.*)$', printed):
            if 'ADMIN' not in name:
                os.environ[name] = shlex.split(value)[0]
        yield directory
    finally:
        if not given:
            subprocess.run([SCRIPT, 'down', directory], check=True)


class Floor:
    """The program ceph_floor, compiled here."""

    def __init__(self, directory):
        self.program = os.path.join(directory, 'ceph_floor')
        subprocess.run([os.environ.get('CC', 'cc'), '-std=gnu11', '-D_GNU_SOURCE', '-O2',
                        str(HERE / 'ceph_floor.c'), '-o', self.program, '-lrados'], check=True)

    def numbers(self, *args):
        done = subprocess.run([self.program, *map(str, args)], check=True, timeout=120,
                              stdout=subprocess.PIPE)
        return [int(line) for line in done.stdout.split()]

    def listen(self, name, count):
        listener = subprocess.Popen([self.program, 'listen', name, str(count)],
                                    stdout=subprocess.PIPE, encoding='utf-8')
        if listener.stdout.readline() != 'ready\n':
            raise RuntimeError('the floor does not listen')
        return listener


def backend(name):
    return tosc.CephBackend(os.environ['TOSC_CEPH_CLIENT'], None, os.environ['TOSC_CEPH_MON_HOST'],
                            os.environ['TOSC_CEPH_POOL'], name,
                            keyring=os.environ['TOSC_CEPH_KEYRING'])


# ---- committing ----

WATCH = '''
import sys
sys.path.insert(0, sys.argv[1])
import bench_ceph, tosc
manager = tosc.Manager(bench_ceph.backend(sys.argv[2]))
manager.read()
print('ready', flush=True)
sys.stdin.read()
'''


@contextlib.contextmanager
def watched(name):
    """Another process keeps up with the store."""
    with subprocess.Popen([sys.executable, '-c', WATCH, str(HERE), name], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, encoding='utf-8') as child:
        if child.stdout.readline() != 'ready\n':
            raise RuntimeError('the other process did not start')
        yield
        child.stdin.close()


def commits(floor, work, entries, count, rounds):
    """One key changed at a time, in a dict of so many entries."""
    name = f'bench-{uuid.uuid4()}'
    with tosc.Manager(backend(name)) as manager:
        manager.write({f'key{i}': i for i in range(entries)})
        store = manager.read()
        size, = floor.numbers('size', name)
        state = {'turn': 0}

        def change(_):
            state['turn'] += 1
            store[f'key{state["turn"] * 7919 % entries}'] = state['turn']

        for turn in range(20):
            change(turn)
        grown, = floor.numbers('size', name)
        each = (grown - size) // 20
        other = name + '-floor'
        floor.numbers('fill', other, size)
        alone = measure.calls(change, count)

        def in_company():
            with watched(name):
                return alone()

        found = measure.rows(
            work,
            [(f'floor: {each} bytes into {size / 1e6:.3g} MB',
              lambda: floor.numbers('append', other, count, each)),
             (f'tosc: one of {entries:,} keys', alone),
             ('tosc: the same, while another process watches', in_company)],
            rounds, '<= 1.15 x')
    return found


# ---- being seen elsewhere ----

SEE = '''
import sys, time
sys.path.insert(0, sys.argv[1])
import bench_ceph, tosc
manager = tosc.Manager(bench_ceph.backend(sys.argv[2]))
store = manager.read()
seen = store['n']
print('ready', flush=True)
times = []
while seen < int(sys.argv[3]):
    value = store['n']
    if value != seen:
        times.append((value, time.monotonic_ns()))
        seen = value
    time.sleep(0)
for value, ns in times:
    print(value, ns)
'''


def seen_by_tosc(count):
    """[(from the commit's begin, from its return)] of changes seen in another process."""
    name = f'bench-{uuid.uuid4()}'
    with tosc.Manager(backend(name)) as manager:
        manager.write({'n': 0, **{f'key{i}': i for i in range(100)}})
        store = manager.read()
        with subprocess.Popen([sys.executable, '-c', SEE, str(HERE), name, str(count)],
                              stdout=subprocess.PIPE, encoding='utf-8') as child:
            if child.stdout.readline() != 'ready\n':
                raise RuntimeError('the other process did not start')
            time.sleep(0.2)
            stamps = {}
            for n in range(1, count + 1):
                time.sleep(PAUSE_MS / 1000)
                begin = time.monotonic_ns()
                store['n'] = n
                stamps[n] = (begin, time.monotonic_ns())
            seen = [map(int, line.split()) for line in child.stdout]
    return [(ns - stamps[n][0], ns - stamps[n][1]) for n, ns in seen]


def seen_by_floor(floor, count, size):
    name = f'bench-{uuid.uuid4()}'
    floor.numbers('fill', name, 1000)
    with floor.listen(name, count) as listener:
        floor.numbers('notify', name, count, PAUSE_MS, size)
        return [int(line) for line in listener.stdout]


def seen(floor, count, rounds):
    """From the commit's return against a bare notice; from its begin against both together."""
    kept = []

    def commit_to_seen():
        kept[:] = seen_by_tosc(count)
        return [begin for begin, _ in kept]

    whole = measure.rows('C3', [
        ('floor: operation, then notice', lambda: seen_by_floor(floor, count, 100)),
        ("tosc: seen, from the commit's begin", commit_to_seen)], rounds)
    after = measure.rows('C4', [
        ('floor: bare notice', lambda: seen_by_floor(floor, count, 0)),
        ("tosc: seen, from the commit's return",
         lambda: [end for _, end in seen_by_tosc(count)])], rounds, '<= 2 x')
    return whole + after


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--quick', action='store_true', help='fewer and shorter rounds')
    parser.add_argument('--rounds', type=int, help='how often each takes its turn')
    parser.add_argument('--cluster', metavar='DIR', help='a cluster of ceph-test-cluster')
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 7)
    count = 100 if options.quick else 300
    with cluster(options.cluster) as directory:
        floor = Floor(directory)
        print(f'tosc {tosc.__version__}; load {os.getloadavg()[0]:.1f}')
        print(measure.table_line(measure.COLUMNS))
        for part in (lambda: commits(floor, 'C1', 1000, count, rounds),
                     lambda: commits(floor, 'C2', 1_000_000, count, rounds),
                     lambda: seen(floor, count, rounds)):
            for entry in part():
                print(measure.table_line(measure.cells(entry)), flush=True)


if __name__ == '__main__':
    main()
