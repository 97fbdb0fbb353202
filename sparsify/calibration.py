"""Calibration text: which rows, how they become batches, and a record of both."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsify.corpus import encode_rows, read_rows
from sparsify.errors import SparsifyError
from sparsify.recipe import Calibration

_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class CalibrationRecord:
    """What the inputs were measured on."""

    source: str
    sha256: str
    samples: int
    seq: int
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TokenBatch:
    """Sequences of similar length.

    Attributes:
        ids: Int64 [batch, seq], padded on the right.
        real: Bool [batch, seq], False on padding.
    """

    ids: Tensor
    real: Tensor


def draw_sequences(path: Path, tokenizer: Any, settings: Calibration) -> list[tuple[int, ...]]:
    """Draw `settings.samples` rows without replacement; each is one sequence, cut to `settings.seq` tokens.

    Fewer come back where the corpus has fewer rows of at least two tokens.

    Raises:
        SparsifyError: The corpus is missing, empty or malformed, or no row has two tokens.
    """
    rows = list(read_rows(path))
    random.Random(settings.seed).shuffle(rows)
    sequences: list[tuple[int, ...]] = []
    for start in range(0, len(rows), settings.samples):
        missing = settings.samples - len(sequences)
        if not missing:
            break
        encoded = encode_rows(rows[start : start + settings.samples], tokenizer)
        sequences += [row.ids[: settings.seq] for row in encoded if len(row.ids) > 1][:missing]
    if not sequences:
        raise SparsifyError(f"no row of {path} has two tokens or more; calibration needs text")
    return sequences


def make_batches(sequences: Sequence[Sequence[int]], *, batch_tokens: int = _BATCH_TOKENS) -> list[TokenBatch]:
    """Group sequences of similar length into batches of at most `batch_tokens` tokens, padding included."""
    groups: list[list[Sequence[int]]] = []
    for sequence in sorted(sequences, key=len):
        if not groups or (len(groups[-1]) + 1) * len(sequence) > batch_tokens:
            groups.append([])
        groups[-1].append(sequence)
    return [_collate(group) for group in groups]


def _collate(group: Sequence[Sequence[int]]) -> TokenBatch:
    width = max(len(sequence) for sequence in group)
    ids = torch.zeros(len(group), width, dtype=torch.long)
    real = torch.zeros(len(group), width, dtype=torch.bool)
    for index, sequence in enumerate(group):
        ids[index, : len(sequence)] = torch.tensor(list(sequence))
        real[index, : len(sequence)] = True
    return TokenBatch(ids, real)
