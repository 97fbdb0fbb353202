"""From generated tokens to text: stop texts and what a tokenizer does at the seam between prompt and completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Tokens of the prompt that are decoded with the completion, so that a tokenizer which strips the blank before its
# first word (SentencePiece) does not strip it from the completion.
SEAM = 4


def stop_at(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of the stop texts begins, or None."""
    found = [at for at in (text.find(stop) for stop in stops if stop) if at >= 0]
    return min(found) if found else None


class TextReader:
    """Decodes completions with one tokenizer; special tokens are left out."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def completion(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """Text that `tokens` add behind `prompt`."""
        seam = list(prompt[-SEAM:])
        before, both = self._decode(seam), self._decode(seam + list(tokens))
        return both[len(before) :] if both.startswith(before) else self._decode(tokens)

    def ends_in_stop(self, tokens: Sequence[int], stops: Sequence[str]) -> bool:
        """Whether the last of `tokens` completed a stop text; looks only at the tail, as it runs at every token."""
        if not stops:
            return False
        tail = max(len(stop.encode()) for stop in stops) + SEAM
        return stop_at(self._decode(tokens[-tail:]), stops) is not None

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
