"""A backend for the path of a store, in the tests and in their child processes.

With TOSC_TEST_STORE=ceph the stores of all fixtures are objects of the cluster that TOSC_CEPH_…
describe (see ../ceph/test_as_on_files.py), and their paths are 'ceph:' and a name.
"""
# SPDX-License-Identifier: Apache-2.0
import os

import tosc

ON_CEPH = os.environ.get('TOSC_TEST_STORE') == 'ceph'
CEPH = 'ceph:'


def ceph_arguments(path, **options):
    """Those of a CephBackend for the path; the key is in the keyring unless options say else."""
    given = {'client': os.environ['TOSC_CEPH_CLIENT'], 'key': None,
             'mon_host': os.environ['TOSC_CEPH_MON_HOST'],
             'pool_name': os.environ['TOSC_CEPH_POOL'], 'obj_name': path.removeprefix(CEPH),
             'keyring': os.environ['TOSC_CEPH_KEYRING'], 'lease': 2, 'connect_timeout': 60}
    return {**given, **options}


def open_store(path, **file_options):
    path = os.fspath(path)
    if path.startswith(CEPH):
        return tosc.CephBackend(**ceph_arguments(path))
    return tosc.FileBackend(path, **file_options)
