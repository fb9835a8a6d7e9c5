"""The fixtures of ../py, see harness.py there."""
# SPDX-License-Identifier: Apache-2.0
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'py'))
sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position,unused-import
from harness import (children, file_store, hang_guard, inproc_store,  # noqa: E402,F401
                     install_guard, quick_file_store, quick_shared_store, shared_store, store)


def pytest_configure(config):
    install_guard(config)
