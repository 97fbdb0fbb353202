"""The arms: stock lm-eval, and our loop with one saving more at each step up to all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Arm:
    """One way to answer the items.

    Attributes:
        name: What results call it.
        adds: What it has that the arm before it has not.
        by_length: Prompts of like length share a batch; otherwise batches follow the order of the items.
        drop: Finished rows leave their batch.
        prefix: How a batch holds what all prompts begin with; None computes it with every prompt.
    """

    name: str
    adds: str
    by_length: bool = True
    drop: bool = True
    prefix: Literal["shared", "copied"] | None = None


STOCK = Arm("stock", "lm-eval's own `hf` model", drop=False)
"""Batches by length too; rows stay until the last one is finished."""
STEPS = (
    Arm("loop", "our batch loop, items in order, nothing saved", by_length=False, drop=False),
    Arm("length", "prompts of like length share a batch", drop=False),
    Arm("drop", "finished rows leave the batch"),
    Arm("prefix", "the few-shot prefix is computed once and copied into each batch's cache", prefix="copied"),
    Arm("ours", "attention reads the prefix once for all rows of a batch", prefix="shared"),
)
OURS = STEPS[-1]
ARMS = (STOCK, *STEPS)
