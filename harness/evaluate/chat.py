"""Conversations: each turn is one pass over all items, with the model's own earlier answers in the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.evaluate.generate import gather, run_prompts, skip
from harness.evaluate.plan import UNANSWERED, ChatText, GenRow, GenSettings, Prompt, worst
from sparsify.progress import Progress
from suites.data import Item
from suites.errors import SuiteError
from suites.registry import Preset

if TYPE_CHECKING:
    from harness.engines.base import Engine, TextEngine
    from harness.journal import Journal
    from harness.schema.samples import Status


class _Share:
    """Reports one pass as its share of all turns."""

    def __init__(self, progress: Progress, before: int, total: int) -> None:
        self._progress, self._before, self._total = progress, before, total

    def update(self, done: float, total: float, note: str = "") -> None:
        self._progress.update(self._before + done, self._total, note)


def request_ids(item: Item) -> list[str]:
    """The journal keys of an item's turns."""
    return [f"{item.item_id}#{turn + 1}" for turn in range(len(item.doc["turns"]))]


def _messages(item: Item, turn: int, journal: Journal) -> list[dict[str, str]]:
    messages = []
    for index, request_id in enumerate(request_ids(item)[: turn + 1]):
        messages.append({"role": "user", "content": str(item.doc["turns"][index])})
        if index < turn:
            messages.append({"role": "assistant", "content": journal.rows[request_id]["output"]})
    return messages


def converse(
    engine: Engine | TextEngine,
    items: Sequence[Item],
    *,
    preset: Preset,
    journal: Journal,
    settings: GenSettings,
    progress: Progress,
) -> list[GenRow]:
    """Hold all conversations, turn by turn.

    A conversation whose earlier turn has no answer (`truncated_input`, `refused`, `error`) is not continued; its later
    turns carry the same status. `prompt_hash` of a row is that of the first turn: later prompts contain the model's
    answers.

    Raises:
        SuiteError: An item has no turns.
    """
    if any(not item.doc.get("turns") for item in items):
        raise SuiteError("a chat item needs `turns`, a list of at least one user message")
    total = sum(len(item.doc["turns"]) for item in items)
    done = 0
    for turn in range(max(len(item.doc["turns"]) for item in items)):
        prompts: list[Prompt] = []
        unanswerable: list[tuple[Prompt, Status]] = []
        for item in items:
            ids = request_ids(item)
            if turn >= len(ids):
                continue
            fields: dict[str, Any] = {
                "request_id": ids[turn],
                "item_id": item.item_id,
                "turn": turn,
                "text": ChatText.of(_messages(item, turn, journal)),
                "max_new_tokens": settings.max_new_tokens or preset.max_new_tokens,
                "stop": preset.stop,
            }
            earlier = worst([journal.rows[before]["status"] for before in ids[:turn]]) if turn else "ok"
            if earlier in UNANSWERED:
                unanswerable.append((Prompt(**fields), earlier))
            else:
                prompts.append(Prompt(**fields))
        skip(unanswerable, journal)
        share = _Share(progress, done + len(unanswerable), total)
        run_prompts(engine, prompts, journal=journal, settings=settings, progress=share)
        done += len(prompts) + len(unanswerable)
    return [gather(item.item_id, request_ids(item), journal) for item in items]
