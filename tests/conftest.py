"""Set before any test imports torch; and every test leaves the environment as it found it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# One OpenMP thread: small models are no faster with more, results are the same everywhere, and the resume tests fork
# (a forked child cannot use the thread pool of its parent).
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """A command that is run inside the test process may go offline (`--offline`) for good."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
