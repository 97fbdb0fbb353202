"""The checks of a gate as items of pytest; imported by `harness.pytest_plugin` only when a run is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SparsebenchError
from harness.gate.command import GateOptions, gate
from harness.gate.result import RuleResult
from harness.report.printable import printable

NODE = "sparsebench-gate"


@dataclass(frozen=True, slots=True)
class GateRequest:
    """What the user gave.

    Attributes:
        run: folder of the run.
        against: earlier runs; each is checked by itself.
        study: a study whose rules are taken.
        inconclusive: `fail`, `xfail` or `skip`.
        allow_different_data: pair with the earlier runs although data differ.
    """

    run: Path
    against: tuple[Path, ...] = ()
    study: str | None = None
    inconclusive: str = "fail"
    allow_different_data: bool = False


class GateFailed(Exception):
    """A check failed, or is inconclusive and counts as a fail."""


class GateBroken(Exception):
    """A check could not be made: the records or the rules are at fault."""


class _Node(pytest.Collector):
    def collect(self) -> list[pytest.Item]:
        return []


class GateItem(pytest.Item):
    """One rule on one variant and suite."""

    result: RuleResult | None
    problem: str | None
    inconclusive: str

    def setup(self) -> None:
        """Raise where the check could not be made: pytest then counts an error, not a failure."""
        if self.problem is not None:
            raise GateBroken(self.problem)
        if self.result is not None and self.result.verdict == "error":
            raise GateBroken(f"{self.result.message} (exit code {self.result.exit_code})")

    def runtest(self) -> None:
        """Raise, skip or expect the failure, as the verdict says."""
        assert self.result is not None
        message = printable(self.result.message)
        if self.result.verdict == "pass":
            return
        if self.result.verdict == "inconclusive" and self.inconclusive == "xfail":
            pytest.xfail(f"inconclusive: {message}")
        if self.result.verdict == "inconclusive" and self.inconclusive == "skip":
            pytest.skip(f"inconclusive: {message}")
        items = "\n".join(printable(item) for item in self.result.items)
        raise GateFailed(f"{self.result.verdict}: {message}" + (f"\nitems:\n{items}" if items else ""))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the numbers, not the code that raised them."""
        if isinstance(excinfo.value, GateFailed | GateBroken):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where pytest says that the test lies."""
        return self.path, None, self.name


def gate_items(session: pytest.Session, request: GateRequest) -> list[GateItem]:
    """Return one item for each check; where the records cannot be read, one that is an error."""
    node = _Node.from_parent(session, name=NODE, nodeid=NODE)
    seen: Counter[str] = Counter()
    items = []
    for against in request.against or (None,):
        label = f" against {against.name or against}" if against is not None and len(request.against) > 1 else ""
        for name, result, problem in _checks(request, against):
            name = printable(name + label).replace("::", ":")
            seen[name] += 1
            item = GateItem.from_parent(node, name=name if seen[name] == 1 else f"{name} #{seen[name]}")
            item.result, item.problem, item.inconclusive = result, problem, request.inconclusive
            item.user_properties += _numbers(result) if result is not None else []
            items.append(item)
    return items


def _checks(request: GateRequest, against: Path | None) -> Iterator[tuple[str, RuleResult | None, str | None]]:
    """Name, result and problem of each check; a run that cannot be read is one check with a problem."""
    options = GateOptions(against=against, study=request.study, allow_different_data=request.allow_different_data)
    try:
        report = gate(request.run, options)
    except SparsebenchError as error:
        yield "records", None, f"{error} (exit code {error.exit_code})"
        return
    for result in report.results:
        yield f"{result.rule}[{result.name}{f' vs {result.against}' if result.against else ''}]", result, None


def _numbers(result: RuleResult) -> list[tuple[str, object]]:
    """What `--junitxml` keeps as properties of the test."""
    low, high = result.ci95 or (None, None)
    found = {
        "verdict": result.verdict,
        "value": result.value,
        "ci95_low": low,
        "ci95_high": high,
        "bound": result.bound,
        "p_value": result.p_value,
        "n": result.n,
    }
    return [(name, value) for name, value in found.items() if value is not None]
