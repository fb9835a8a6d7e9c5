"""Readers beside writers for a minute."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from test_processes import read_beside_writers


@pytest.mark.seconds(120)
def test_readers_beside_two_writers(file_store, children):
    looks, commits = read_beside_writers(file_store, children, 45)
    assert looks > 100 and sum(commits) > 1000
