"""Fixtures for the tests in this directory; see harness.py."""
# SPDX-License-Identifier: Apache-2.0
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position,unused-import
from harness import (ON_CEPH, children, file_store, hang_guard, inproc_store,  # noqa: E402,F401
                     install_guard, keep_what_runs_on_ceph, quick_file_store, quick_shared_store,
                     shared_store, store)


def pytest_configure(config):
    install_guard(config)


def pytest_collection_modifyitems(config, items):
    if ON_CEPH:
        keep_what_runs_on_ceph(config, items)
