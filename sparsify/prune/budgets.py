"""How many weights go in each linear: the allocation of a prune stage, carried out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sparsify.blocks import Structure, linear_weight
from sparsify.calibration import TokenBatch, make_batches, split_holdout
from sparsify.files import write_json
from sparsify.gram import Gram
from sparsify.prune.allocate import Layer, explicit, outlier_ratio, owl, search_slope, slope, uniform
from sparsify.prune.problem import Budget
from sparsify.prune.solve import Inputs, solve
from sparsify.recipe import PruneStage
from sparsify.stage import StageInput
from sparsify.stream import BlockStream

Sequences = list[tuple[int, ...]]
# So many sequences are enough to rank slopes and to find outliers; the pruning itself uses all.
_SEQUENCES = 64
# Logits of a batch are all in memory at once, 128 KB a token with a vocabulary of 32,000.
_HELD_TOKENS = 2048
_RECORD = "allocation.json"


@dataclass(frozen=True)
class Budgets:
    """The budget of every linear.

    Attributes:
        stage: What was asked for.
        counts: Zeros per linear; empty for N:M, which fixes them.
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


@dataclass(frozen=True)
class Planner:
    """Decides on the budgets of a stage.

    Attributes:
        stage: The stage.
        given: Its input.
        structure: Of the model.
        layers: The linears that are pruned.
        open_stream: Makes a stream of text through the dense model; the model is the stream's.
    """

    stage: PruneStage
    given: StageInput
    structure: Structure
    layers: Sequence[Layer]
    open_stream: Callable[[list[TokenBatch]], BlockStream]

    def plan(self, sequences: Sequences) -> Budgets:
        """The budgets; what was measured on text is kept in the work folder, so that it is measured once.

        Args:
            sequences: The calibration text. A slope is chosen by the loss on the part of it that is held out; the
                evaluation text is never seen here.
        """
        allocation, kept = self.stage.allocation, self.given.work / _RECORD
        if self.stage.nm is not None:
            return Budgets(self.stage, {})
        if allocation.kind == "uniform":
            return Budgets(self.stage, uniform(self.layers, self.stage.sparsity))
        if kept.exists():
            record = json.loads(kept.read_text(encoding="utf-8"))
        else:
            record = {"kind": allocation.kind}
            if allocation.kind == "slope":
                record |= {"beta": allocation.beta} if allocation.beta is not None else self._choose_slope(sequences)
            elif allocation.kind == "owl":
                record["outliers"] = self._outliers(sequences)
            write_json(kept, record)
        if allocation.kind == "slope":
            counts = slope(self.layers, self.stage.sparsity, record["beta"])
        elif allocation.kind == "owl":
            outliers = dict(enumerate(record["outliers"]))
            counts = owl(self.layers, self.stage.sparsity, outliers, spread=allocation.spread)
        else:
            counts = explicit(self.layers, self.stage.sparsity, allocation.shares)
        return Budgets(self.stage, counts, record)

    def _choose_slope(self, sequences: Sequences) -> dict[str, Any]:
        assert self.stage.calibration is not None
        known, held = split_holdout(sequences, self.stage.calibration.holdout)
        batches = make_batches(known[:_SEQUENCES])
        text = len(batches)
        stream = self.open_stream([*batches, *make_batches(held, batch_tokens=_HELD_TOKENS)])
        # ADMM and refine would take many times as long for the same ranking.
        method = "sparsegpt" if self.stage.method == "admm" else self.stage.method
        scope = self.stage.scope if method == self.stage.method else "block"
        cheap = self.stage.model_copy(update={"method": method, "scope": scope, "refine": False})
        tried: list[float] = []

        def loss(beta: float) -> float:
            tried.append(beta)
            if len(tried) > 1:
                stream.restart()
            counts = slope(self.layers, self.stage.sparsity, beta)
            found = self._loss(stream, text, Budgets(cheap, counts))
            blocks = len(self.structure.blocks)
            self.given.progress.update(0, blocks, f"slope {beta:.3f}: held-out loss {found:.4f}")
            return found

        search = search_slope(loss)
        stream.close()
        losses = [[beta, search.losses[beta]] for beta in sorted(search.losses)]
        counted = {"sequences": len(known[:_SEQUENCES]), "held_out_sequences": len(held)}
        return {"beta": search.beta, "losses": losses, "method": method, **counted}

    def _loss(self, stream: BlockStream, text: int, budgets: Budgets) -> float:
        """Mean cross-entropy on the held-out batches, those from `text` on, of the model pruned by `budgets`."""
        for index, block in enumerate(self.structure.blocks):
            names = [layer.name for layer in self.layers if layer.block == index]
            grams = stream.grams(index, batches=range(text)) if names else {}
            made: dict[int, Inputs] = {}
            for name in names:
                gram = grams.get(name.removeprefix(block + "."), Gram())
                if id(gram) not in made:
                    expert = ".experts." in name
                    made = {id(gram): Inputs.of(gram, name, budgets.stage, expert=expert)}
                weight = linear_weight(stream.model, name)
                weight.copy_(solve(budgets.stage, weight.float(), made[id(gram)], budgets.of(name), None).weight)
            stream.advance(index)
        total = tokens = 0.0
        for batch, logits in stream.logits(range(text, len(stream.batches))):
            real = batch.real[:, 1:]
            losses = torch.nn.functional.cross_entropy(logits[:, :-1][real], batch.ids[:, 1:][real], reduction="sum")
            total, tokens = total + float(losses), tokens + int(real.sum())
        return total / max(1.0, tokens)

    def _outliers(self, sequences: Sequences) -> list[float]:
        stream = self.open_stream(make_batches(sequences[:_SEQUENCES]))
        ratios: list[float] = []
        for index, block in enumerate(self.structure.blocks):
            names = [layer.name for layer in self.layers if layer.block == index]
            grams = stream.grams(index)
            pairs = []
            for name in names:
                weight = linear_weight(stream.model, name)
                gram = grams.get(name.removeprefix(block + "."))
                none = gram is None or gram.total is None
                power = weight.new_zeros(weight.shape[1]) if none else gram.total.diagonal()  # type: ignore[union-attr]
                pairs.append((weight, power))
            ratios.append(outlier_ratio(pairs, self.stage.allocation.multiple) if pairs else 0.0)
            stream.advance(index)
            self.given.progress.update(0, len(self.structure.blocks), f"outliers of block {index + 1}")
        stream.close()
        return ratios
