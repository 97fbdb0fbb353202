"""The log-likelihood of a continuation, from the `logprobs` that `/completions` gives for an echoed prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from harness.errors import EngineError

_PART = "\ufffd"


def continuation_logprob(logprobs: Any, context: str, continuation: str) -> tuple[float, int]:
    """Sum of log-probabilities in nats, and number, of the tokens that make up `continuation`.

    The text of the tokens is compared, not `text_offset`: servers differ in whether a BOS token counts there, and in
    whether the token that was generated beside the echo is listed.

    Args:
        logprobs: `choices[0].logprobs` with `tokens` and `token_logprobs`.
        context: What comes before.
        continuation: What is weighed.

    Raises:
        EngineError: There are no log-probabilities of the prompt, or no token begins where the continuation begins.
    """
    tokens, values = _lists(logprobs)
    # A BOS before and the generated token behind may be listed as well.
    parts = [(first, last) for first in (0, 1) for last in (len(tokens), len(tokens) - 1) if first < last]
    for first, last in parts:
        starts = token_starts(tokens[first:last], context + continuation)
        if starts is not None:
            break
    else:
        raise EngineError(
            "the server does not give back the log-probabilities of the prompt (`echo` with `logprobs`); "
            "weigh choices with a local engine (--engine torch)"
        )
    if len(context) not in starts:
        raise EngineError(
            f"the server's tokens run across the start of the choice {continuation[:60]!r}; weigh with a local engine"
        )
    chosen = values[first + starts.index(len(context)) : last]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in chosen):
        raise EngineError("the server gives a log-probability that is no number; weigh choices with a local engine")
    return math.fsum(chosen), len(chosen)


def token_starts(tokens: Sequence[str], text: str) -> list[int | None] | None:
    """Where each token begins in the text that they spell; None where a character is spread over tokens.

    Servers decode token by token, and then the bytes of one character show as replacement characters.

    Args:
        tokens: Texts of all tokens.
        text: What they should spell.

    Returns:
        One place for each token, or None where the tokens do not spell the text.
    """
    pattern, marked, run = [], [], 0
    for token in tokens:
        within = run > 0 and token.startswith(_PART)
        marked.append(not within)
        if not within:
            pattern += [_any(run), "()"]
            run = 0
        for chunk in re.findall(f"{_PART}+|[^{_PART}]+", token):
            if chunk.startswith(_PART):
                run += len(chunk)
            else:
                pattern += [_any(run), re.escape(chunk)]
                run = 0
    match = re.fullmatch("".join([*pattern, _any(run)]), text, re.DOTALL)
    if match is None:
        return None
    places = (match.start(group) for group in range(1, sum(marked) + 1))
    return [next(places) if known else None for known in marked]


def _any(count: int) -> str:
    return f"[^\\x00-\\x7f]{{1,{count}}}" if count else ""


def _lists(logprobs: Any) -> tuple[list[str], list[Any]]:
    tokens = logprobs.get("tokens") if isinstance(logprobs, dict) else None
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        return [], []
    return [str(token) for token in tokens], values
