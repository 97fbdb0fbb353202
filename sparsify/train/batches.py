"""Which rows go into which step: a plan that follows from the seed, so that a resumed run takes the same steps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsify.corpus import EncodedRow
from sparsify.train.settings import TrainSettings

_CHUNK_BATCHES = 32


@dataclass(frozen=True)
class Batch:
    """One step's tensors, each [rows, tokens].

    Attributes:
        ids: Token ids, padded on the right with 0.
        real: Bool, True on tokens that are not padding.
        target: Bool, True on tokens that the model is to say.
        positions: Int64, position of each token in its document where documents are packed and attention is to stay
            within each; None where a row is one text.
    """

    ids: Tensor
    real: Tensor
    target: Tensor
    positions: Tensor | None = None

    def to(self, device: str | torch.device) -> Batch:
        """The batch on another device."""
        positions = None if self.positions is None else self.positions.to(device)
        return Batch(self.ids.to(device), self.real.to(device), self.target.to(device), positions)

    def rows(self, start: int, stop: int) -> Batch:
        """Some of its rows, without padding that none of them needs."""
        width = max(2, int(self.real[start:stop].sum(1).max()))
        positions = None if self.positions is None else self.positions[start:stop, :width]
        return Batch(
            self.ids[start:stop, :width], self.real[start:stop, :width], self.target[start:stop, :width], positions
        )


def split(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch by rows into at most `parts` micro-batches of about equal size."""
    rows = len(batch.ids)
    parts = min(parts, rows)
    if parts == 1:
        return [batch]
    cuts = [rows * index // parts for index in range(parts + 1)]
    return [batch.rows(start, stop) for start, stop in zip(cuts, cuts[1:], strict=False)]


def plan_steps(lengths: Sequence[int], settings: TrainSettings) -> list[list[list[int]]]:
    """Assign rows to steps: step -> sequences -> row indices (several rows in one sequence where the step is packed).

    Rows of similar length share a step, which keeps padding low; epochs are reshuffled until the token budget is spent.
    """
    steps: list[list[list[int]]] = []
    spent, epoch = 0, 0
    cut = [min(length, settings.seq) for length in lengths]
    chunk_rows = max(1, _CHUNK_BATCHES * settings.batch_tokens // max(1, sum(cut) // max(1, len(cut))))
    while spent < settings.tokens:
        rng = random.Random(f"{settings.seed}/{epoch}")
        order = list(range(len(cut)))
        rng.shuffle(order)
        for start in range(0, len(order), chunk_rows):
            batches = _cut_batches(order[start : start + chunk_rows], cut, settings)
            rng.shuffle(batches)
            for batch in batches:
                steps.append(_pack(batch, cut, settings) if _is_packed(len(steps), settings) else [[i] for i in batch])
                spent += sum(cut[i] for i in batch)
                if spent >= settings.tokens:
                    return steps
        epoch += 1
    return steps


def _is_packed(step: int, settings: TrainSettings) -> bool:
    return settings.pack > 0 and step % settings.pack_every == settings.pack_every - 1


def _cut_batches(rows: Sequence[int], lengths: Sequence[int], settings: TrainSettings) -> list[list[int]]:
    batches: list[list[int]] = []
    current: list[int] = []
    for row in sorted(rows, key=lambda i: (lengths[i], i)):
        if current and (len(current) + 1) * lengths[row] > settings.batch_tokens:
            batches.append(current)
            current = []
        current.append(row)
    return [*batches, current] if current else batches


def _pack(rows: Sequence[int], lengths: Sequence[int], settings: TrainSettings) -> list[list[int]]:
    sequences: list[list[int]] = []
    room = 0
    for row in rows:
        if not sequences or lengths[row] > room:
            sequences.append([])
            room = settings.pack
        sequences[-1].append(row)
        room -= lengths[row]
    return sequences


def collate(sequences: Sequence[Sequence[int]], rows: Sequence[EncodedRow], settings: TrainSettings) -> Batch:
    """Build one step's tensors."""
    joined = [
        (
            [token for i in sequence for token in rows[i].ids[: settings.seq]],
            [said for i in sequence for said in rows[i].target[: settings.seq]],
        )
        for sequence in sequences
    ]
    width = max(len(ids) for ids, _ in joined)
    ids = torch.zeros(len(joined), width, dtype=torch.long)
    real = torch.zeros(len(joined), width, dtype=torch.bool)
    target = torch.zeros(len(joined), width, dtype=torch.bool)
    for index, (tokens, said) in enumerate(joined):
        ids[index, : len(tokens)] = torch.tensor(tokens)
        real[index, : len(tokens)] = True
        target[index, : len(tokens)] = torch.tensor(said)
    return Batch(ids, real, target)
