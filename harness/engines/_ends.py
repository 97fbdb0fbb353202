"""The tokens that end a completion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Tokens that end an assistant's turn where a template uses them; some checkpoints forget to list theirs as eos.
TURN_ENDS = ("<|end|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|eot|>")


def end_ids(configs: Sequence[Any], tokenizer: Any) -> frozenset[int]:
    """Every declared eos, and the end-of-turn token that the chat template writes.

    Args:
        configs: What may declare an `eos_token_id` beside the tokenizer: configurations of transformers.
        tokenizer: A tokenizer of transformers.
    """
    ids: set[int] = set()
    for source in (*configs, tokenizer):
        declared = getattr(source, "eos_token_id", None)
        ids.update([declared] if isinstance(declared, int) else declared or [])
    template = tokenizer.chat_template or ""
    special = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    ids.update(special[text] for text in TURN_ENDS if text in special and text in str(template))
    return frozenset(ids)


def saved_configs(variant_dir: Path) -> tuple[Any, ...]:
    """The configurations of a model directory, for `end_ids`, without opening the model."""
    from transformers import AutoConfig, GenerationConfig

    found: list[Any] = [AutoConfig.from_pretrained(variant_dir, local_files_only=True, trust_remote_code=False)]
    if (variant_dir / "generation_config.json").is_file():
        found.append(GenerationConfig.from_pretrained(variant_dir, local_files_only=True))
    return tuple(found)
