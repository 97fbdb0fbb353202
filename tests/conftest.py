"""Set before any test imports torch."""

from __future__ import annotations

import os

from hypothesis import settings

# One OpenMP thread: small models are no faster with more, results are the same everywhere, and the resume tests fork
# (a forked child cannot use the thread pool of its parent).
os.environ["OMP_NUM_THREADS"] = "1"

# A hub that is not there is asked again and again, for 20 seconds; tests of the hub start one of their own.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

# The same examples every time: a change is judged by what it changed. `SPARSEBENCH_PROPERTIES=random` draws new ones.
# No example is late: a process's first draw reads all modules for constants, which takes seconds on a busy machine.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.register_profile("random", print_blob=True, deadline=None)
settings.load_profile(os.environ.get("SPARSEBENCH_PROPERTIES", "fixed"))
