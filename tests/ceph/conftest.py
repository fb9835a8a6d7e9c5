"""The cluster, and the fixtures of ../py; see cluster.py here and harness.py there."""
# SPDX-License-Identifier: Apache-2.0
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', 'py')]
sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position,unused-import
from cluster import bare_cluster, cluster, name, whole_cluster  # noqa: E402,F401
from harness import children, hang_guard, install_guard  # noqa: E402,F401


def pytest_configure(config):
    install_guard(config)
