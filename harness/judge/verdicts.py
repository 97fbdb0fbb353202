"""What a judge said: the rating or the winner in its text, parsed as the published tools parse it.

MT-Bench follows FastChat's `llm_judge.common`, AlpacaEval the package's `ranking_parser` and `logprob_parser`. The text
is a model's and is never executed.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from typing import Literal

Winner = Literal["A", "B", "tie", "error"]
How = Literal["strict", "lenient", "unparsable"]

# ASCII digits only: FastChat's own patterns also take digits of other scripts, on which it then fails.
_STRICT = re.compile(r"\[\[(\d+\.?\d*)\]\]", re.ASCII)
_LENIENT = re.compile(r"\[(\d+\.?\d*)\]", re.ASCII)
_WINNERS: tuple[tuple[str, Winner], ...] = (("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie"))
_LONGEST_LITERAL = 10_000
LEAST_MASS = 0.01
"""What both names together must have of a judge's next token."""


@dataclass(frozen=True)
class Rating:
    """The rating of a single answer.

    Attributes:
        value: The number, an int where it was written as one; None if there is none.
        how: `strict` for `[[7]]`, `lenient` for `[7]`, else `unparsable`.
        ambiguous: Whether the text also holds another rating of the same form; the first one counts.
    """

    value: int | float | None
    how: How
    ambiguous: bool = False


def parse_rating(text: str) -> Rating:
    """The first `[[number]]` of a text, or where there is none the first `[number]`."""
    for pattern, how in ((_STRICT, "strict"), (_LENIENT, "lenient")):
        found = pattern.findall(text)
        if found:
            value = _number(found[0])
            if value is None:
                break
            return Rating(value, "strict" if how == "strict" else "lenient", len(set(found)) > 1)
    return Rating(None, "unparsable")


def _number(text: str) -> int | float | None:
    value = float(text)
    if not math.isfinite(value):
        return None
    return value if "." in text else int(value)


def parse_winner(text: str) -> tuple[Winner, bool]:
    """The winner of a pairwise verdict, and whether the text names more than one.

    As in FastChat `[[A]]` anywhere goes before `[[B]]`, and that before `[[C]]`, a tie.
    """
    found = [winner for mark, winner in _WINNERS if mark in text]
    return (found[0], len(found) > 1) if found else ("error", False)


def parse_ranking(text: str) -> float | None:
    """The preference that a ranking gives: 1 where `model_1` has rank 1, 2 where it has rank 2, None where neither.

    The text has to be one Python literal, a list of `{'model': ..., 'rank': ...}`, and nothing else.
    """
    if len(text) > _LONGEST_LITERAL:
        return None
    try:
        ranked = ast.literal_eval(text)
        rank = [entry for entry in ranked if entry["model"] == "model_1"][0]["rank"]
        return float(rank) if rank in (1, 2) else None
    # RecursionError, MemoryError: what deeply nested brackets do to the parser.
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, RecursionError, MemoryError):
        return None


def parse_name(text: str) -> float | None:
    """The preference that a bare name gives: 1 for `m`, the first output, 2 for `M`; None for anything else."""
    return {"m": 1.0, "M": 2.0}.get(text.strip())


def weigh_names(first: float, second: float, *, least_mass: float = LEAST_MASS) -> float | None:
    """The preference, 1 to 2, from the log-probabilities of the names `m` and `M` as the judge's next token.

    The published parser looks only at the five most probable tokens and gives up if neither name is among them. An
    engine that returns the two log-probabilities alone cannot tell; here both names together must have 1 % instead.

    Args:
        first: Log-probability of `m`, in nats; minus infinity if unknown.
        second: Log-probability of `M`.
        least_mass: Below this sum of both probabilities there is no verdict; 0 for top-five lists, as published.

    Returns:
        2 - p(m) / (p(m) + p(M)), or None.
    """
    mass = math.exp(first) + math.exp(second)
    if not mass > 0 or mass < least_mass:  # written so that NaN is no verdict either
        return None
    return 2.0 - math.exp(first) / mass
