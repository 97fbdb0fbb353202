"""From a prompt to token ids: plain text, or messages through the chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import ConfigError


def encode_prompt(
    tokenizer: Any, *, label: str, text: str | None = None, chat: Sequence[Mapping[str, str]] | None = None
) -> list[int]:
    """Token ids of `text` (special tokens as the tokenizer adds them, but never a second BOS) or of `chat`.

    A template that refuses a conversation is an error: leaving out the message that it refuses (as lm-eval does with a
    system message) would answer another prompt than the one that was asked.

    Args:
        tokenizer: A tokenizer of transformers.
        label: What messages call the variant.
        text: A plain prompt.
        chat: Messages with `role` and `content`; rendered with the chat template and its generation prompt.

    Raises:
        ConfigError: The variant has no chat template, or one that fails on `chat`; or not exactly one of the two was
            given.
    """
    if (text is None) == (chat is None):
        raise ConfigError("encode takes either a text or chat messages")
    if chat is not None:
        if tokenizer.chat_template is None:
            raise ConfigError(f"variant {label} has no chat template; add chat_template.jinja")
        return list(tokenizer(_rendered(tokenizer, label, chat), add_special_tokens=False)["input_ids"])
    bos = tokenizer.bos_token
    special = not (bos and str(text).startswith(bos))
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


def _rendered(tokenizer: Any, label: str, chat: Sequence[Mapping[str, str]]) -> str:
    from jinja2 import TemplateError

    messages = [dict(message) for message in chat]
    try:
        shown: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        roles = ", ".join(dict.fromkeys(str(message.get("role")) for message in messages))
        raise ConfigError(
            f"variant {label}: its chat template fails on messages of {roles} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); correct its chat_template.jinja"
        ) from None
    return shown
