"""Random histories: three Managers of one store and a model in plain data stay equal."""
# SPDX-License-Identifier: Apache-2.0
import shutil

import pytest

import tosc
from harness import PyBackend, new_directory

pytest.importorskip('hypothesis')
from hypothesis import settings  # noqa: E402

from model import StoreMachine  # noqa: E402

pytestmark = pytest.mark.seconds(400)


class InprocMachine(StoreMachine):
    """All Managers share one backend object."""


class FileMachine(StoreMachine):
    """Each Manager opens the file for itself."""

    def make_backends(self):
        self.directory = new_directory('shm')
        return [tosc.FileBackend(self.directory + '/store', durable=False)
                for _ in range(self.managers)]

    def teardown(self):
        super().teardown()
        shutil.rmtree(self.directory, ignore_errors=True)


class PythonMachine(StoreMachine):
    """A backend of four methods, each Manager with its own."""

    def make_backends(self):
        first = PyBackend()
        return [first] + [PyBackend(first.box) for _ in range(self.managers - 1)]


TestInproc = InprocMachine.TestCase
TestInproc.settings = settings(max_examples=40, stateful_step_count=25)
TestFile = FileMachine.TestCase
TestFile.settings = settings(max_examples=30, stateful_step_count=25)
TestPython = PythonMachine.TestCase
TestPython.settings = settings(max_examples=15, stateful_step_count=25)
