"""From the raw lines to estimates: recoveries with their intervals, all by `harness.stats`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.bench.recover.arms import BASE, COST, Arm, all_arms
from harness.bench.recover.piece import key_of
from harness.bench.recover.settings import SKILLS, Settings
from harness.bench.skills import mean_score, suite_plan
from harness.errors import CorruptRecordError
from harness.stats import Estimate, PairedEstimate, mean_ci, mean_of_recoveries, seeds_recovery

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """An arm against another on the same items.

    Attributes:
        arm, against: Names.
        seeds: Seeds of the arm.
        suites: Recovery by skill: items with their clusters, and the seeds of both sides.
        mean: Mean of the recoveries, intervals joined by MOVER, which takes the skills as independent.
        by_seed: Mean recovery of each seed alone, against the same seed of the other side where it has that.
        over_seeds: Student's t on `by_seed`, which leaves the items out but keeps what a seed does to all skills alike;
            None with one seed.
    """

    arm: str
    against: str
    seeds: int
    suites: Mapping[str, PairedEstimate]
    mean: Estimate
    by_seed: tuple[float, ...]
    over_seeds: Estimate | None

    @property
    def limits(self) -> tuple[float, float] | None:
        """The wider 95 % limit of the two intervals on each side; None where there is no interval."""
        found = [e.ci95 for e in (self.mean, self.over_seeds) if e is not None and e.ci95 is not None]
        return (min(low for low, _ in found), max(high for _, high in found)) if found else None

    @property
    def flips(self) -> tuple[int, int]:
        """Pairs gained and lost over skills and seeds."""
        return sum(p.b01 for p in self.suites.values()), sum(p.b10 for p in self.suites.values())


class Record:
    """The finished lines of one benchmark, by arm and seed.

    Attributes:
        arms: Name -> seed -> line, without failures.
        failed: Lines of pieces whose last try failed.
        cost: The line of the training cost, or None.
        settings: Budgets.
    """

    def __init__(self, lines: Iterable[Line], model_sha256: str, settings: Settings) -> None:
        """Sort the lines of this model and these settings; of a piece the last one counts."""
        keys = {arm.name: key_of(arm, model_sha256, settings) for arm in all_arms()}
        latest: dict[tuple[str, int], Line] = {}
        for line in lines:
            key = keys.get(line["arm"])
            if key is not None and all(line.get(name) == value for name, value in key.items()):
                latest[line["arm"], line["seed"]] = line
        self.settings = settings
        self.failed = [line for line in latest.values() if "error" in line]
        good = [line for line in latest.values() if "error" not in line]
        self.cost = next((line for line in good if line["kind"] == COST), None)
        self.arms: dict[str, dict[int, Line]] = {}
        for line in sorted(good, key=lambda line: int(line["seed"])):
            if line["kind"] == "arm":
                self.arms.setdefault(line["arm"], {})[line["seed"]] = line
        self._clusters: dict[str, list[str]] = {}

    def scores(self, arm: str, suite: str, first: Iterable[int] = ()) -> list[list[float]]:
        """Scores [seed][item] of an arm on a skill: the seeds `first` that it has, then the others, ascending.

        Raises:
            CorruptRecordError: They are of other items than the suite has now.
        """
        lines = self.arms[arm]
        order = dict.fromkeys([*(seed for seed in first if seed in lines), *lines])
        cells = [lines[seed]["scores"][suite] for seed in order]
        self.clusters(suite, {cell["items"] for cell in cells})
        return [[float(value) for value in cell["values"]] for cell in cells]

    def clusters(self, suite: str, hashes: set[str]) -> list[str]:
        """Cluster labels of a skill's items, [n], for cells whose items have these hashes.

        Raises:
            CorruptRecordError: The suite has other items now.
        """
        from harness.fingerprint import plan_sha256

        items = suite_plan(suite, self.settings.items, self.settings.batch).items()
        if hashes - {plan_sha256([(item.item_id, item.item_hash) for item in items])}:
            raise CorruptRecordError(f"the journal holds {suite} items of another version; choose another --out")
        return self._clusters.setdefault(suite, [item.cluster for item in items])

    def mean(self, arm: str, suite: str) -> float:
        """Mean score of an arm on a skill over seeds."""
        return statistics.fmean(mean_score(line["scores"][suite]["values"]) for line in self.arms[arm].values())

    def compare(self, arm: Arm, against: Arm) -> Comparison | None:
        """An arm against another on the skills that both have; None where one is missing."""
        if arm.name not in self.arms or against.name not in self.arms:
            return None
        suites = [suite for suite in arm.suites if suite in against.suites]
        found = {
            suite: seeds_recovery(
                self.scores(arm.name, suite),
                # Pairs of one seed stand in one row.
                self.scores(against.name, suite, first=self.arms[arm.name]),
                self._clusters[suite],
            )
            for suite in suites
        }
        by_seed = self._by_seed(arm.name, against.name, suites)
        return Comparison(
            arm.name,
            against.name,
            len(self.arms[arm.name]),
            found,
            mean_of_recoveries({suite: paired.estimate for suite, paired in found.items()}),
            by_seed,
            mean_ci(by_seed) if len(by_seed) > 1 else None,
        )

    def _by_seed(self, arm: str, against: str, suites: Sequence[str]) -> tuple[float, ...]:
        others = self.arms[against]
        found = []
        for seed, line in self.arms[arm].items():
            # The base model has no seeds: it is the same beside every seed of the arm.
            other = others.get(seed) or (next(iter(others.values())) if against == Arm(BASE).name else None)
            if other is None:
                continue
            ratios = [
                mean_score(line["scores"][suite]["values"]) / level
                for suite in suites
                if (level := mean_score(other["scores"][suite]["values"])) > 0
            ]
            if ratios:
                found.append(statistics.fmean(ratios))
        return tuple(found)


def skills_of(arms: Iterable[Arm]) -> tuple[str, ...]:
    """The skills that these arms are measured on, in the order of the suites."""
    wanted = {suite for arm in arms for suite in arm.suites}
    return tuple(skill for skill in SKILLS if skill in wanted)


def speed_ratio(line: Line, of: str, to: str) -> tuple[float, float, float, float] | None:
    """Measured training speed of one row in units of another's: median, least, most; and the ratio of operations.

    Above 1 is faster. The last number is what the operations alone would give.
    """
    rows = {row["name"]: row for row in line["rows"]}
    if of not in rows or to not in rows:
        return None
    a, b = rows[of]["tokens_per_s"], rows[to]["tokens_per_s"]
    each = [x / y for x, y in zip(a, b, strict=True)]
    measured = statistics.median(a) / statistics.median(b)
    return measured, min(each), max(each), rows[to]["operations"] / rows[of]["operations"]
