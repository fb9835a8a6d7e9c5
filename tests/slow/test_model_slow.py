"""Generated histories, many of them.

The same ones each time; TOSC_HISTORIES=10 runs ten times as many, and others.
"""
# SPDX-License-Identifier: Apache-2.0
import os

import pytest

pytest.importorskip('hypothesis')
from hypothesis import seed, settings  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402

from test_model import FileMachine, InprocMachine, PythonMachine  # noqa: E402

TIMES = int(os.environ.get('TOSC_HISTORIES', '1'))
FIXED = 'TOSC_HISTORIES' not in os.environ


@pytest.mark.seconds(900 * TIMES)
@pytest.mark.parametrize('machine,examples', [(InprocMachine, 130), (FileMachine, 100),
                                              (PythonMachine, 50)])
@pytest.mark.parametrize('part', range(2))
def test_histories(machine, examples, part):
    chosen = type(machine.__name__, (machine,), {})
    if FIXED:
        chosen = seed(part)(chosen)
    run_state_machine_as_test(chosen, settings=settings(max_examples=examples * TIMES,
                                                        stateful_step_count=40))
