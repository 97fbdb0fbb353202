"""What is generated, in which batches: follows from the whole plan alone, so that a crash cannot change a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.schema.samples import Status

_WORST: tuple[Status, ...] = ("error", "refused", "truncated_input", "truncated_output", "ok")
# Rows of these statuses have no answer to judge or to go on from: they count as wrong.
UNANSWERED = frozenset({"error", "refused", "truncated_input"})


@dataclass(frozen=True, kw_only=True)
class GenSettings:
    """How a cell generates; part of the journal's key.

    Attributes:
        batch_size: Prompts per batch, fixed for the whole cell.
        max_new_tokens: Overrides the preset's limit; None keeps it.
        temperature: 0 is greedy.
        top_p: Nucleus mass kept when sampling.
        seed: Of sampling; greedy generation does not use it.
    """

    batch_size: int = 16
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def key(self) -> dict[str, Any]:
        """The settings as a part of the journal's key; nucleus sampling only where it is used (older journals)."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("top_p", 1.0)}


@dataclass(frozen=True)
class Prompt:
    """One text, or conversation, to complete.

    Attributes:
        request_id: Unique within the cell; the journal's row key.
        item_id: The item it belongs to.
        turn: 0-based turn of a conversation.
        text: A plain prompt, or the messages as `ChatText`.
        max_new_tokens: Upper limit of new tokens.
        stop: Texts that end the completion and are cut off.
    """

    request_id: str
    item_id: str
    turn: int
    text: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 (64 hex digits) of what is asked; the chat template that wraps it has a fingerprint of its own."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()


class ChatText(str):
    """A conversation on its way through an interface that passes prompts as text: its text is the messages' JSON.

    The engine, which knows its own template and tokens, renders it; nothing is joined as text before.
    """

    messages: tuple[Mapping[str, str], ...]

    @classmethod
    def of(cls, messages: Sequence[Mapping[str, str]]) -> ChatText:
        """The messages (each with `role` and `content`), as one text."""
        plain = tuple({"role": message["role"], "content": message["content"]} for message in messages)
        chat = cls(json.dumps(plain, ensure_ascii=False))
        chat.messages = plain
        return chat


@dataclass(frozen=True)
class GenRow:
    """All that was generated for one item; lists have one entry per turn.

    Attributes:
        item_id: The item.
        prompt_hash: SHA-256 of the first turn's prompt, which does not depend on the model's answers.
        outputs: Completion texts, stop texts cut off.
        n_in: Prompt lengths in tokens; None where a server does not count them.
        n_out: Generated tokens; None likewise.
        finish: `stop`, `length`, `truncated_input`, `refused` or `error`.
        status: The worst of the turns; `truncated_input` means that a prompt left no room to answer.
        seconds: Wall time until the item was finished, counted from the start of its batch; turns are added.
        error: Why, for status `error`.
    """

    item_id: str
    prompt_hash: str
    outputs: list[str]
    n_in: list[int | None]
    n_out: list[int | None]
    finish: list[str]
    status: Status
    seconds: float
    error: str | None = None


def seed_of(settings: GenSettings, request_id: str) -> int:
    """The seed of a request's own random stream, so that a sample depends neither on its batch nor on the order."""
    return int.from_bytes(hashlib.sha256(f"{settings.seed}/{request_id}".encode()).digest()[:4])


def worst(statuses: Sequence[Status]) -> Status:
    """The worst of several statuses."""
    return min(statuses, key=_WORST.index)


def plan_batches(prompts: Sequence[tuple[Prompt, int]], batch_size: int) -> list[list[Prompt]]:
    """Cut prompts into batches: longest first, ties by text and then by id, every batch full except the last.

    The order is that of lm-eval's HFLM, so that a stock run with the same batch size pads the same prompts together.

    Args:
        prompts: Each with its length in tokens.
        batch_size: Prompts per batch, at least 1.
    """
    ordered = [p for p, _ in sorted(prompts, key=lambda pair: (-pair[1], pair[0].text, pair[0].request_id))]
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """With how many equal tokens all prompts begin; 0 if there are fewer than two prompts.

    One token less than the shortest at most: every prompt keeps a last token, from which its answer follows.
    """
    if len(prompts) < 2:
        return 0
    # What the first and the last in order have in common, all between them have.
    first, last = min(prompts), max(prompts)
    shortest = min(map(len, prompts))
    unequal = (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return max(0, min(next(unequal, shortest), shortest - 1))
