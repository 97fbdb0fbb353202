"""`sparsebench doctor`: what works on this machine, what does not, and the fix."""

from __future__ import annotations

from harness.doctor.examine import examine
from harness.doctor.finding import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "examine"]
