"""What the doctor says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: environment, sandbox, data, kernels, hub, ...
        name: what was looked at.
        state: `fail` where the main job (`sparsebench run`) cannot work without it, `warn` where something else cannot.
        detail: what was found, and what will not work.
        fix: what to do; empty where all is well.
    """

    area: str
    name: str
    state: State
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings."""

    findings: tuple[Finding, ...]

    def count(self, state: State) -> int:
        """Return how many findings have this state."""
        return sum(finding.state == state for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 where the main job can work, else 3."""
        return 3 if self.count("fail") or not self.findings else 0

    @property
    def line(self) -> str:
        """The outcome in one line."""
        warned = self.count("warn")
        rest = f"; {warned} {'thing' if warned == 1 else 'things'} will not, see WARN" if warned else ""
        if self.exit_code:
            return f"doctor: `sparsebench run` will not work here, see FAIL{rest}"
        return f"doctor: `sparsebench run` will work here{rest}"

    def text(self) -> str:
        """Return one line a finding, its fix below it where there is one, and the outcome."""
        words = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}
        areas = max((len(finding.area) for finding in self.findings), default=0)
        names = max((len(finding.name) for finding in self.findings), default=0)
        lines = []
        for found in self.findings:
            lines.append(f"{words[found.state]:4}  {found.area:{areas}}  {found.name:{names}}  {found.detail}")
            if found.fix:
                lines.append(f"{'':{areas + names + 10}}fix: {found.fix}")
        return "\n".join([*lines, self.line]) + "\n"

    def json(self) -> str:
        """Return the diagnosis as JSON."""
        body = {
            "schema_version": SCHEMA_VERSION,
            "exit_code": self.exit_code,
            "line": self.line,
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(body, indent=2) + "\n"
