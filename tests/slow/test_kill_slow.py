"""Two hundred kills."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from crashing import kill_writers


@pytest.mark.seconds(170)
def test_two_hundred_kills(file_store, children):
    kill_writers(file_store, children, 200 if file_store.kind == 'shm' else 60, seed=77)
