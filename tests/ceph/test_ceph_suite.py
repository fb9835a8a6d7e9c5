"""tosc-check-backend, the tests that every backend has to pass, on a cluster."""
# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import re
import subprocess
import sys

import pytest

TOSC_RUN = os.environ.get('TOSC_RUN') or sys.executable
PROGRAM = pathlib.Path(TOSC_RUN).with_name('tosc-check-backend')
SECONDS = 300

# To know whether an object has changed takes asking the cluster.
SKIPPED = {'changed.tells', 'changed.objects'}


@pytest.mark.seconds(SECONDS + 20)
def test_all_that_a_backend_has_to_do(cluster):
    uri = (f'ceph:{cluster.pool}/suite-{{}}?client={cluster.environment["TOSC_CEPH_CLIENT"]}'
           f'&mon_host={cluster.environment["TOSC_CEPH_MON_HOST"]}'
           f'&keyring={cluster.environment["TOSC_CEPH_KEYRING"]}&lease=2')
    ended = subprocess.run([PROGRAM, '--seconds', '120', uri], capture_output=True, check=False,
                           text=True, timeout=SECONDS)
    report = ended.stdout + ended.stderr
    assert not re.findall('^not ok', ended.stdout, re.M) and ended.returncode == 0, report
    skipped = re.findall(r'^ok \d+ - ([\w.]+):.* # SKIP ', ended.stdout, re.M)
    assert set(skipped) == SKIPPED, report
