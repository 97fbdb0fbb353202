"""Sends planned prompts to an engine that takes text, and journals each row as soon as its answer is there."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.engines.base import TextAnswer, TextEngine, TextRequest
from harness.evaluate.plan import ChatText, GenSettings, Prompt, seed_of
from sparsify.progress import Progress

if TYPE_CHECKING:
    from harness.journal import Journal

_STATUS = {"stop": "ok", "length": "truncated_output"}


def complete_prompts(
    engine: TextEngine, prompts: Sequence[Prompt], *, journal: Journal, settings: GenSettings, progress: Progress
) -> None:
    """Complete all prompts that have no settled row in the journal.

    A request that failed after all tries is journaled with status `error` and its reason, so that it is counted; it is
    asked again when the same cell is run again.

    Raises:
        SparsebenchError: No request can succeed; rows journaled before stay.
    """
    missing = {prompt.request_id: prompt for prompt in prompts if prompt.request_id not in journal}
    count = len(prompts) - len(missing)
    progress.update(count, len(prompts))

    def done(answer: TextAnswer) -> None:
        nonlocal count
        journal.append([_row(missing[answer.request_id], answer)])
        count += 1
        progress.update(count, len(prompts))

    requests = [
        TextRequest(
            request_id=prompt.request_id,
            prompt=prompt.text.messages if isinstance(prompt.text, ChatText) else prompt.text,
            max_new_tokens=prompt.max_new_tokens,
            stop=prompt.stop,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=seed_of(settings, prompt.request_id),
        )
        for prompt in missing.values()
    ]
    if requests:
        engine.complete(requests, done=done)


def _row(prompt: Prompt, answer: TextAnswer) -> dict[str, Any]:
    return {
        "request_id": prompt.request_id,
        "item_id": prompt.item_id,
        "turn": prompt.turn,
        "prompt_hash": prompt.hash,
        "output": answer.text,
        "n_in": answer.n_in,
        "n_out": answer.n_out,
        "finish": answer.finish,
        "status": _STATUS.get(answer.finish, answer.finish),
        "seconds": round(answer.seconds, 6),
        "error": answer.error,
    }


def weigh_texts(
    engine: TextEngine,
    pairs: Mapping[str, tuple[str, str]],
    *,
    rows: Mapping[str, Mapping[str, Any]],
    journal: Journal,
    progress: Progress,
) -> None:
    """Weigh the continuations that the journal does not hold yet.

    Args:
        engine: Weighs.
        pairs: (context, continuation) by request id.
        rows: What is known of each row before it is weighed: `item_id`, `turn`, and the `choice` that is shown.
        journal: Where rows go.
        progress: Told of weighed continuations.

    Raises:
        SparsebenchError: The engine cannot weigh, or failed; rows journaled before stay.
    """
    from suites.multiple_choice import shown

    began = time.monotonic()
    missing = {name: pair for name, pair in pairs.items() if name not in journal}
    count = len(pairs) - len(missing)

    def done(name: str, nats: float, tokens: int | None) -> None:
        nonlocal count
        known = rows[name]
        text = "\0".join(pairs[name]).encode("utf-8", "surrogatepass")
        row = {
            "request_id": name,
            "item_id": known["item_id"],
            "turn": known["turn"],
            "prompt_hash": hashlib.sha256(text).hexdigest(),
            "output": shown(nats, known["choice"]),
            "n_in": None,
            "n_out": tokens,
            "finish": "stop",
            "status": "ok",
            "seconds": round(time.monotonic() - began, 6),
        }
        journal.append([row])
        count += 1
        progress.update(count, len(pairs))

    if missing:
        engine.weigh(missing, done=done)
