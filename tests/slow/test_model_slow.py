"""Thousands of generated histories."""
# SPDX-License-Identifier: Apache-2.0
import pytest

pytest.importorskip('hypothesis')
from hypothesis import settings  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402

from test_model import FileMachine, InprocMachine, PythonMachine  # noqa: E402


@pytest.mark.seconds(900)
@pytest.mark.parametrize('machine,examples', [(InprocMachine, 400), (FileMachine, 300),
                                              (PythonMachine, 150)])
@pytest.mark.parametrize('part', range(3))
def test_histories(machine, examples, part):
    run_state_machine_as_test(machine, settings=settings(max_examples=examples,
                                                         stateful_step_count=40))
