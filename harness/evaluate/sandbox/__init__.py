"""Runs generated programs where they can do no harm, and lets a process they cannot reach judge them.

Three processes take part. The *candidate* loads one program in a fresh sandbox and answers calls to its function. The
*judge* holds the tests, in a sandbox of its own because tests are code from a data set; it calls the candidate through
a proxy and sees plain built-in values only, so that an overridden `__eq__`, a walk up the frames or `os._exit(0)`
change nothing. The *harness* starts both, passes bytes from one to the other and watches the clock.
"""

from __future__ import annotations

from harness.evaluate.sandbox.preflight import PreflightReport, preflight
from harness.evaluate.sandbox.probe import open_sandbox, probe
from harness.evaluate.sandbox.session import Sandbox
from harness.evaluate.sandbox.types import Job, Limits, Problem, SandboxInfo, Verdict

__all__ = [
    "Job",
    "Limits",
    "PreflightReport",
    "Problem",
    "Sandbox",
    "SandboxInfo",
    "Verdict",
    "open_sandbox",
    "preflight",
    "probe",
]
