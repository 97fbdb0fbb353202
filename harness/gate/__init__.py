"""The gate: rules on a run's records to pass, fail, inconclusive or error. Imports no torch.

Exit codes: 0 every rule passed; 1 a rule failed (or is inconclusive, unless told); 2 the user's input; 3 records are
missing or damaged. What is missing never passes.
"""

from __future__ import annotations

from harness.gate.check import check
from harness.gate.result import GateReport, RuleResult, Verdict
from harness.gate.run_records import RunRecords, open_run
from harness.gate.skill import Context

__all__ = ["Context", "GateReport", "RuleResult", "RunRecords", "Verdict", "check", "open_run"]
