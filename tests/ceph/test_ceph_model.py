"""Random histories on Ceph: three Managers of one object and a model in plain data stay equal."""
# SPDX-License-Identifier: Apache-2.0
import uuid

import pytest

import tosc
from opening import ceph_arguments

pytest.importorskip('hypothesis')
from hypothesis import settings  # noqa: E402

from model import StoreMachine  # noqa: E402

pytestmark = [pytest.mark.seconds(400), pytest.mark.usefixtures('cluster')]


class CephMachine(StoreMachine):
    """Each Manager has a backend of its own; they share the process's connection."""

    def make_backends(self):
        name = str(uuid.uuid4())
        return [tosc.CephBackend(**ceph_arguments(name)) for _ in range(self.managers)]


TestCeph = CephMachine.TestCase
TestCeph.settings = settings(max_examples=15, stateful_step_count=25)
