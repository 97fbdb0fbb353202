"""How many weights go in each linear: the allocation of a prune stage, carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsify.blocks import Structure
from sparsify.prune.problem import Budget
from sparsify.recipe import PruneStage
from sparsify.stage import StageInput
from sparsify.stream import BlockStream

Open = Callable[[list[tuple[int, ...]]], BlockStream]


@dataclass(frozen=True)
class Budgets:
    """The budget of every linear.

    Attributes:
        stage: What was asked for.
        counts: Zeros per linear; empty for uniform budgets, where each linear has its own rounded share.
        record: How the counts were found, as plain JSON.
    """

    stage: PruneStage
    counts: Mapping[str, int]
    record: dict[str, Any] = field(default_factory=lambda: {"kind": "uniform"})

    def of(self, name: str) -> Budget:
        """The budget of a linear."""
        scope: Any = self.stage.scope
        if name in self.counts:
            return Budget(scope=scope, count=self.counts[name])
        return Budget(self.stage.sparsity, self.stage.nm, scope)


def plan_budgets(
    stage: PruneStage,
    sizes: Mapping[str, int],
    structure: Structure,
    open_stream: Open,
    sequences: list[tuple[int, ...]],
    given: StageInput,
) -> Budgets:
    """Decide on the budgets."""
    return Budgets(stage, {})
