"""What a step minimises: the student is run on a batch, the teacher once beside it, and their losses are weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.slicegpt.bases import Bases
from sparsify.train.batches import Batch
from sparsify.train.hooks import Strategy
from sparsify.train.losses import cross_entropy, kl_divergence, squarehead_blocks
from sparsify.train.settings import TrainSettings


@dataclass(frozen=True)
class Losses:
    """The losses of a batch, or of its part of a step.

    Attributes:
        total: What is minimised, with gradient.
        parts: ce, kl and squarehead as far as they have a weight; not weighted, without gradient.
        blocks: SquareHead of each block, without gradient; empty where it has no weight.
    """

    total: Tensor
    parts: dict[str, Tensor]
    blocks: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Counts:
    """What the losses of a step are means over, summed over its micro-batches and all processes.

    Attributes:
        importance: Weights of the tokens in the cross-entropy.
        said: Target tokens.
        real: Real tokens.
    """

    importance: Tensor
    said: Tensor
    real: Tensor


class Objective:
    """The weighted sum of the losses of `settings`.

    With several micro-batches, cross-entropy and KL are the step's own to rounding. SquareHead's normaliser is the
    teacher's energy in each micro-batch, and micro-batches count by their real tokens; over processes it is exact.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        settings: TrainSettings,
        strategy: Strategy,
        bases: Bases | None = None,
    ) -> None:
        """Use `model` as it is wrapped for training, and the teacher on the device where it is.

        Where the student is sliced, `bases` turn what the teacher says into what it should say.
        """
        self._bases = bases
        self._model: Any = model
        self._teacher: Any = teacher
        self._settings, self._strategy = settings, strategy

    def counts(self, parts: Sequence[Batch]) -> Counts:
        """What the losses of a step of these micro-batches are means over."""
        importance = [self._importance(part) for part in parts]
        return Counts(
            self._strategy.total(torch.stack([weights[weights > 0].sum() for weights in importance]).sum()),
            self._strategy.total(torch.stack([part.target[:, 1:].sum() for part in parts]).sum()),
            self._strategy.total(torch.stack([part.real.sum() for part in parts]).sum()),
        )

    def __call__(self, batch: Batch, counts: Counts) -> Losses:
        """The losses of a micro-batch as its share of the step that `counts` is of."""
        settings, weights = self._settings, self._settings.losses
        importance = self._importance(batch)
        chosen = importance > 0
        states, logits = self._predict(self._model, batch, chosen, features=weights.squarehead > 0)
        parts: dict[str, Tensor] = {}
        blocks: list[Tensor] = []
        if weights.ce:
            parts["ce"] = cross_entropy(logits, batch.ids[:, 1:][chosen], importance[chosen], total=counts.importance)
        if self._teacher is not None:
            device = next(self._teacher.parameters()).device
            said = batch.target[:, 1:]
            asked = said.to(device) if weights.kl else None
            with torch.no_grad():
                taught, wanted = self._predict(self._teacher, batch.to(device), asked, features=weights.squarehead > 0)
            if weights.squarehead:
                if self._bases is not None:
                    taught = tuple(self._bases.rotated(taught))
                share = self._strategy.total(batch.real.sum()) / counts.real
                blocks = [
                    share * block
                    for block in squarehead_blocks(
                        states,
                        taught,
                        batch.real,
                        settings.squarehead_eps,
                        total=self._strategy.total,
                    )
                ]
                parts["squarehead"] = sum(blocks, torch.zeros((), device=logits.device))
            if wanted is not None:
                wanted = wanted.to(logits.device)
                parts["kl"] = kl_divergence(logits[said[chosen]], wanted, settings.temperature, total=counts.said)
        total = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
        return Losses(
            total, {name: part.detach() for name, part in parts.items()}, tuple(block.detach() for block in blocks)
        )

    @torch.no_grad()
    def dev_loss(self, batches: Sequence[Batch]) -> float:
        """Mean cross-entropy over the target tokens of `batches`, in nats, in eval mode."""
        self._model.eval()
        total = count = 0.0
        for whole in batches:
            batch = self._strategy.share(whole)
            said = batch.target[:, 1:]
            _, logits = self._predict(self._model, batch, said, features=False)
            targets = batch.ids[:, 1:][said]
            losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none").double()
            total += float(self._strategy.total(losses.sum()))
            count += float(self._strategy.total(said.sum()))
        self._model.train()
        return total / max(1.0, count)

    def _predict(
        self, model: Any, batch: Batch, chosen: Tensor | None, *, features: bool
    ) -> tuple[tuple[Tensor, ...], Any]:
        bf16 = self._settings.precision == "bf16"
        found: tuple[tuple[Tensor, ...], Any] = self._strategy.run(
            model, _predict, batch, chosen, _Wanted(features, bf16)
        )
        return found

    def _importance(self, batch: Batch) -> Tensor:
        """Weight of each predicted token in the cross-entropy, [batch, tokens - 1]."""
        if self._settings.prompt_weight:
            shown = batch.real[:, 1:]
            return torch.where(batch.target[:, 1:], 1.0, self._settings.prompt_weight) * shown
        return batch.target[:, 1:].float()


@dataclass(frozen=True)
class _Wanted:
    features: bool
    bf16: bool


def _predict(
    model: Any, batch: Batch, chosen: Tensor | None, wanted: _Wanted
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The output of every block (where wanted), and the logits of the tokens marked in `chosen` [batch, tokens - 1].

    Each token is predicted from the position before it. One function, because of a sharded model the weights outside
    the blocks are at hand only while it runs.
    """
    # Attention is causal and padding lies on the right, so no real token ever sees it: no mask is needed. Positions
    # that begin again tell transformers where a document ends; tokens then see their own document only.
    packed = {} if batch.positions is None else {"position_ids": batch.positions}
    with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=wanted.bf16):
        states = model.base_model(input_ids=batch.ids, use_cache=False, output_hidden_states=wanted.features, **packed)
        blocks = tuple(states.hidden_states[1:]) if wanted.features else ()
        if chosen is None:
            return blocks, None
        logits: Tensor = model.get_output_embeddings()(states.last_hidden_state[:, :-1][chosen])
    return blocks, logits.float()
