"""What holds for the other stores holds on Ceph: their tests once more, on objects of a cluster.

Each file of ../py runs in a pytest of its own with TOSC_TEST_STORE=ceph, which makes the
fixtures give stores on Ceph and leaves out the tests that are not about any store (harness.py).
To run something else: TOSC_TEST_ON_CEPH='test_manual.py -k word'.
"""
# SPDX-License-Identifier: Apache-2.0
import os
import re
import shlex
import subprocess
import sys

import pytest

from cluster import HERE

pytestmark = pytest.mark.skipif(
    bool(os.environ.get('TOSC_SANITIZED')),
    reason='too long with sanitizers: the other files are for them')

FILES = ['test_backends', 'test_manual', 'test_transactions', 'test_isolation',
         'test_identity', 'test_processes', 'test_fork_exit', 'test_transactional',
         'test_failures', 'test_auth', 'test_memory']
RUNS = [os.environ['TOSC_TEST_ON_CEPH']] if 'TOSC_TEST_ON_CEPH' in os.environ else [
    name + '.py' for name in FILES]


def run_on_ceph(cluster, args, timeout):
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--durations=5', *args],
        timeout=timeout, cwd=os.path.join(HERE, '..', 'py'), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8', check=False,
        env={**os.environ, **cluster.environment, 'TOSC_TEST_STORE': 'ceph'})
    print(done.stdout[-20_000:])
    assert done.returncode == 0, done.stdout[-4000:]
    return int(re.search(r'(\d+) passed', done.stdout)[1])


@pytest.mark.seconds(300)
@pytest.mark.parametrize('run', RUNS)
def test_the_tests_of_the_other_stores_pass(cluster, run):
    assert run_on_ceph(cluster, shlex.split(run), timeout=280) > 0
