"""A Ceph cluster with faults of all kinds for a minute; many random histories on it."""
# SPDX-License-Identifier: Apache-2.0
import os
import random
import sys
import time

import pytest

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'ceph'))

# pylint: disable=wrong-import-position,unused-import
from cluster import bare_cluster, cluster, name, whole_cluster  # noqa: E402,F401
from test_ceph_faults import Bank  # noqa: E402

TIMES = int(os.environ.get('TOSC_HISTORIES', '1'))
SECONDS = 60


def kill_the_osd(cluster, chance):
    with cluster.without_osd():
        time.sleep(chance.uniform(0, 1.5))


def freeze_the_osd(cluster, chance):
    with cluster.frozen_osd():
        time.sleep(chance.uniform(0, 3))


def restart_the_monitor(cluster, chance):
    with cluster.without_mon():
        time.sleep(chance.uniform(0, 1))


def kill_both(cluster, chance):
    with cluster.without_mon(), cluster.without_osd():
        time.sleep(chance.uniform(0, 1))


def freeze_and_kill_the_osd(cluster, chance):
    """What is in its queue is applied or not, and no answer comes."""
    cluster.freeze_osd()
    time.sleep(chance.uniform(0, 1))
    kill_the_osd(cluster, chance)


def break_often(cluster, bank, chance):  # noqa: F811
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        bank.wait_for_commits(chance.randrange(40), timeout=60)
        chance.choice([kill_the_osd, kill_the_osd, freeze_the_osd, restart_the_monitor,
                       freeze_and_kill_the_osd, kill_both])(cluster, chance)


@pytest.mark.seconds(400)
@pytest.mark.parametrize('timeout', [20, 1])
def test_faults_of_all_kinds(cluster, name, timeout):  # noqa: F811
    chance = random.Random(timeout)
    bank = Bank(cluster, name, timeout)
    try:
        break_often(cluster, bank, chance)
        bank.wait_for_commits(timeout=60)
        bank.finish()
    finally:
        bank.close()


@pytest.mark.seconds(900 * TIMES)
def test_histories(cluster):  # noqa: F811
    pytest.importorskip('hypothesis')
    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test
    from test_ceph_model import CephMachine
    run_state_machine_as_test(CephMachine, settings=settings(max_examples=100 * TIMES,
                                                             stateful_step_count=40))
