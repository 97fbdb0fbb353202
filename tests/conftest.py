"""Set before any test imports torch."""

from __future__ import annotations

import os

# One OpenMP thread: small models are no faster with more, results are the same everywhere, and the resume tests fork
# (a forked child cannot use the thread pool of its parent).
os.environ["OMP_NUM_THREADS"] = "1"
