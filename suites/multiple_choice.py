"""Scores of multiple-choice items, from the log-likelihood of each choice; equal to lm-eval's `multiple_choice`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def shown(loglikelihood: float, choice: str) -> str:
    """What a sample keeps of one choice: its log-likelihood in nats (float32 has no more digits), and its text."""
    return f"{loglikelihood:.6f} {choice}"


def score(doc: Mapping[str, Any], output: str | Sequence[str]) -> dict[str, float | list[float]]:
    """Score one item.

    Args:
        doc: Has `gold`, the index of the right choice.
        output: One text per choice, as `shown` writes it; none where the item could not be asked.

    Returns:
        `acc` (the likeliest choice is the right one) and `acc_norm` (the likeliest by character of its text is), each
        0 or 1. The first of equals is taken, as numpy's argmax does.
    """
    said = [output] if isinstance(output, str) else list(output)
    pairs = [text.split(" ", 1) for text in said]
    if len(pairs) < 2 or any(len(pair) < 2 for pair in pairs):
        return {"acc": 0.0, "acc_norm": 0.0}
    sums = [float(pair[0]) for pair in pairs]
    by_character = [total / len(pair[1]) if pair[1] else -math.inf for total, pair in zip(sums, pairs, strict=True)]
    gold = int(doc["gold"])
    return {"acc": float(_first_best(sums) == gold), "acc_norm": float(_first_best(by_character) == gold)}


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: (values[index], -index))
