"""What is asked: the items, the batches, the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SUITE, PRESET = "gsm8k", "5shot"


@dataclass(frozen=True)
class Settings:
    """Budgets that results depend on.

    Attributes:
        items: First items of GSM8K's test set, with five worked examples each.
        batch: Prompts per batch, for every arm.
        split: So many items also go through the steps between stock and ours.
        threads: CPU threads.
    """

    items: int = 200
    batch: int = 16
    split: int = 64
    threads: int = 1

    @property
    def piece(self) -> int:
        """Items of one timing; an arm makes its batches within it, and the arms take turns piece by piece."""
        return 4 * self.batch

    def pieces(self) -> list[range]:
        """Positions of the items of each piece."""
        return [range(start, min(start + self.piece, self.items)) for start in range(0, self.items, self.piece)]

    def is_split(self, piece: int) -> bool:
        """Whether all steps run on a piece."""
        return self.pieces()[piece].start < self.split


POCKET, RANDOM = "pocket", "random-100m"
NEW_TOKENS = {POCKET: 128, RANDOM: 64}
"""Tokens that an answer may have (pocket), or has (random: it never ends on its own)."""
SHAPE: dict[str, Any] = {
    "vocab_size": 1536,  # the pocket tokenizer's, whose files the model gets
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
"""A Llama of 103 million parameters."""
