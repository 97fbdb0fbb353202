"""The finished arms of one benchmark, and how each compares with another."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.bench.skills import mean_score, suite_plan
from harness.bench.slicing.arms import Arm
from harness.bench.slicing.settings import Settings
from harness.errors import CorruptRecordError
from harness.perplexity import exp_mean
from harness.stats import Estimate, PairedEstimate, mean_of_recoveries, recovery

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """What an arm keeps of another's skills, on the same items.

    Attributes:
        suites: Recovery by skill, paired by item and clustered.
        mean: Mean of the recoveries.
    """

    suites: Mapping[str, PairedEstimate]
    mean: Estimate

    @property
    def flips(self) -> tuple[int, int]:
        """Items gained and lost over all skills."""
        return sum(p.b01 for p in self.suites.values()), sum(p.b10 for p in self.suites.values())


class Record:
    """Lines by arm; of an arm the last one counts.

    Attributes:
        arms: Name -> line, without failures.
        failed: Lines of arms whose last try failed.
        settings: Budgets.
    """

    def __init__(self, lines: Iterable[Line], keys: Mapping[str, Mapping[str, Any]], settings: Settings) -> None:
        """Sort the lines that belong to `keys`, by model."""
        latest: dict[str, Line] = {}
        for line in lines:
            key = keys.get(line.get("model", ""))
            if key is not None and all(line.get(name) == value for name, value in key.items()):
                latest[line["arm"]] = line
        self.settings = settings
        self.failed = [line for line in latest.values() if "error" in line]
        self.arms = {name: line for name, line in latest.items() if "error" not in line}
        self._clusters: dict[str, list[str]] = {}

    def perplexity(self, arm: Arm) -> float | None:
        """Perplexity on the model's evaluation text; None where the arm was not measured."""
        losses = self.losses(arm)
        return None if losses is None else exp_mean(losses)[0]

    def losses(self, arm: Arm) -> list[float] | None:
        """Nats per token of each window of the model's evaluation text; None where the arm was not measured."""
        line = self.arms.get(arm.name)
        return None if line is None else [float(loss) for loss in next(iter(line["nats_per_token"].values()))]

    def ratio(self, arm: Arm, against: Arm) -> tuple[float, list[float] | None] | None:
        """Perplexity over that of another arm, with its 95 % interval, paired by window; None where one is missing."""
        ours, theirs = self.losses(arm), self.losses(against)
        if ours is None or theirs is None:
            return None
        return exp_mean([a - b for a, b in zip(ours, theirs, strict=True)])

    def score(self, arm: Arm) -> float | None:
        """Mean score over the skills; None where they were not measured."""
        line = self.arms.get(arm.name)
        if line is None or not line["scores"]:
            return None
        return statistics.fmean(mean_score(cell["values"]) for cell in line["scores"].values())

    def kept(self, arm: Arm, against: Arm) -> Kept | None:
        """What an arm keeps of another's skills; None where one was not measured."""
        ours, theirs = self.arms.get(arm.name), self.arms.get(against.name)
        if ours is None or theirs is None or not ours["scores"] or not theirs["scores"]:
            return None
        found = {
            suite: recovery(
                [float(v) for v in cell["values"]],
                [float(v) for v in theirs["scores"][suite]["values"]],
                self._labels(suite, {cell["items"], theirs["scores"][suite]["items"]}),
            )
            for suite, cell in ours["scores"].items()
        }
        return Kept(found, mean_of_recoveries({suite: paired.estimate for suite, paired in found.items()}))

    def _labels(self, suite: str, hashes: set[str]) -> list[str]:
        from harness.fingerprint import plan_sha256

        items = suite_plan(suite, self.settings.items, self.settings.batch).items()
        if hashes - {plan_sha256([(item.item_id, item.item_hash) for item in items])}:
            raise CorruptRecordError(f"the journal holds {suite} items of another version; choose another --out")
        return self._clusters.setdefault(suite, [item.cluster for item in items])
