"""Generated histories, many of them: TOSC_HISTORIES=10 runs ten times as many."""
# SPDX-License-Identifier: Apache-2.0
import os

import pytest

pytest.importorskip('hypothesis')
from hypothesis import settings  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402

from test_model import FileMachine, InprocMachine, PythonMachine  # noqa: E402

TIMES = int(os.environ.get('TOSC_HISTORIES', '1'))


@pytest.mark.seconds(900 * TIMES)
@pytest.mark.parametrize('machine,examples', [(InprocMachine, 200), (FileMachine, 150),
                                              (PythonMachine, 80)])
@pytest.mark.parametrize('part', range(2))
def test_histories(machine, examples, part):
    run_state_machine_as_test(machine, settings=settings(max_examples=examples * TIMES,
                                                         stateful_step_count=40))
