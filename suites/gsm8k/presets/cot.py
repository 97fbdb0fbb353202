"""Scores of GSM8K chains of thought, equal to those of lm-eval's `gsm8k_cot` task (version 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from suites.gsm8k import scoring

# The strict filter of lm_eval/tasks/gsm8k/gsm8k-cot.yaml, with its quirk: the number must be followed by a character,
# and the greedy number takes the full stop only if another character comes after it.
_STRICT = re.compile(r"The answer is (\-?[0-9\.\,]+).")


def strict(text: str) -> str | None:
    """The number after the first `The answer is `, as written; None if there is none."""
    match = _STRICT.search(text)
    return match.group(1).strip() if match else None


def score(doc: Mapping[str, Any], output: str | Sequence[str]) -> dict[str, float | list[float]]:
    """Score one chain of thought against a GSM8K document; metrics as `suites.gsm8k.scoring.score` gives them.

    Args:
        doc: Has `answer`, whose last line is `#### <number>`.
        output: The completion's text.
    """
    text = output if isinstance(output, str) else output[0]
    number = strict(text)
    # lm-eval's target of this task is the text behind the last ####, stripped.
    right = number is not None and scoring.normalise(number) == scoring.normalise(
        str(doc["answer"]).split("####")[-1].strip()
    )
    return {**scoring.score(doc, text), "exact_match_strict": float(right)}
