"""How often a panel is run: again while the machine is restless, and once more before a slowdown is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from harness.bench.decide import Findings, needs_confirmation
from harness.bench.rows import Outcome, findings_of
from harness.bench.spec import PanelOptions, PanelSpec

Ask = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Series:
    """The runs of one panel, all of which its record keeps.

    Attributes:
        ask: Has one run done, and returns what `run_interleaved` returned and the libraries' versions.
        options: The panel's.
        runs: Every run so far, with its purpose and why it decided nothing, if so.
        libraries: Versions, as the processes report them.
    """

    ask: Ask
    options: PanelOptions
    runs: list[dict[str, Any]] = field(default_factory=list)
    libraries: dict[str, str] = field(default_factory=dict)

    def settle(self, spec: PanelSpec, roles: Mapping[str, dict[str, Any]]) -> Outcome:
        """Run until a run decides or the attempts are used up; then, if it must be confirmed, the same once more."""
        result, findings, attempts = self._until_decided(spec, roles, "first")
        confirmation: Findings | None = None
        at_least = self._at_least(roles)
        if spec.confirm and needs_confirmation(findings, at_least):
            _, confirmation, _ = self._until_decided(spec, roles, "confirmation")
        return Outcome(result, findings, attempts, confirmation, at_least)

    def _at_least(self, roles: Mapping[str, dict[str, Any]]) -> dict[str, float]:
        wanted = self.options.at_least
        return {name: wanted[role["variant"]] for name, role in roles.items() if role["variant"] in wanted}

    def _until_decided(
        self, spec: PanelSpec, roles: Mapping[str, dict[str, Any]], purpose: Literal["first", "confirmation"]
    ) -> tuple[dict[str, Any], Findings, int]:
        attempt = 0
        while True:
            attempt += 1
            # Only the very first run may take processes that another panel left: how memory happened to be laid out in
            # them must not decide twice.
            fresh = self.options.fresh or purpose == "confirmation" or attempt > 1
            reply = self.ask({"spec": asdict(spec), "roles": dict(roles), "fresh": fresh})
            result: dict[str, Any] = reply["result"]
            self.libraries = reply["libraries"]
            findings = findings_of(spec, result)
            self.runs.append(
                {
                    "purpose": purpose,
                    "attempt": attempt,
                    "batch": spec.batch,
                    "restless": list(findings.restless),
                    **result,
                }
            )
            if not findings.restless or attempt >= spec.attempts:
                return result, findings, attempt
