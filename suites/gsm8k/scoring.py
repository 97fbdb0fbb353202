"""Scores of GSM8K answers, equal to those of lm-eval's built-in `gsm8k` task (version 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# The two filters and the four clean-up patterns of lm_eval/tasks/gsm8k/gsm8k.yaml. Their quirks ("18..." is not 18,
# 18.0 is not 18) are kept on purpose: scores must compare with published ones.
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = tuple(re.compile(pattern) for pattern in (r",", r"\$", r"(?s).*#### ", r"\.$"))


def strict(text: str) -> str | None:
    """The number after the first `#### `, as written; None if there is none."""
    match = _STRICT.search(text)
    return match.group(1).strip() if match else None


def flexible(text: str) -> str | None:
    """The last number of a text, as written; None if there is none."""
    matches = _FLEXIBLE.findall(text)
    return next(part for part in matches[-1] if part).strip() if matches else None


def normalise(number: str) -> str:
    """A number without thousands commas, dollar signs, a leading `... #### ` and a trailing full stop."""
    for pattern in _IGNORED:
        number = pattern.sub("", number)
    return number.lower()


def score(doc: Mapping[str, Any], output: str | Sequence[str]) -> dict[str, float | list[float]]:
    """Score one completion against a GSM8K document.

    Args:
        doc: Has `answer`, whose last line is `#### <number>`.
        output: The completion's text.

    Returns:
        `exact_match_flexible` (the last number of the text is the answer), `exact_match_strict` (the number after
        `####` is) and `extracted` (there is any number), each 0 or 1.
    """
    text = output if isinstance(output, str) else output[0]
    gold = normalise(str(doc["answer"]))
    found = {"exact_match_flexible": flexible(text), "exact_match_strict": strict(text)}
    scores: dict[str, float | list[float]] = {
        metric: float(number is not None and normalise(number) == gold) for metric, number in found.items()
    }
    scores["extracted"] = float(found["exact_match_flexible"] is not None)
    return scores
