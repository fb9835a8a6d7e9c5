"""C programs on a cluster: tosc-check-backend, which every backend has to pass, and one of ours."""
# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import re
import subprocess
import sys

import pytest

TOSC_RUN = os.environ.get('TOSC_RUN') or sys.executable
PROGRAM = pathlib.Path(TOSC_RUN).with_name('tosc-check-backend')
SENT_TWICE = pathlib.Path(TOSC_RUN).parent / 'tests' / 'ceph' / 'sent_twice'
SECONDS = 300

# To know whether an object has changed takes asking the cluster.
SKIPPED = {'changed.tells', 'changed.objects'}


def uri_of(cluster, name):
    return (f'ceph:{cluster.pool}/{name}?client={cluster.environment["TOSC_CEPH_CLIENT"]}'
            f'&mon_host={cluster.environment["TOSC_CEPH_MON_HOST"]}'
            f'&keyring={cluster.environment["TOSC_CEPH_KEYRING"]}')


@pytest.mark.seconds(SECONDS + 20)
def test_all_that_a_backend_has_to_do(cluster):
    ended = subprocess.run(
        [PROGRAM, '--seconds', '120', uri_of(cluster, 'suite-{}') + '&lease=2'],
        capture_output=True, check=False, text=True, timeout=SECONDS)
    report = ended.stdout + ended.stderr
    assert not re.findall('^not ok', ended.stdout, re.M) and ended.returncode == 0, report
    skipped = re.findall(r'^ok \d+ - ([\w.]+):.* # SKIP ', ended.stdout, re.M)
    assert set(skipped) == SKIPPED, report


@pytest.mark.parametrize('case', ['same', 'other', 'first'])
def test_a_commit_whose_other_copy_is_done_while_it_waits_is_no_conflict(cluster, name, case):
    """The program says which step went wrong."""
    ended = subprocess.run([SENT_TWICE, uri_of(cluster, name), case], capture_output=True,
                           check=False, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
