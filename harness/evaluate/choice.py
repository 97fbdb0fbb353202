"""Suites of kind `choice`: lm-eval builds the requests, an engine weighs each choice, every batch is journaled."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.engines.base import TextEngine
from harness.evaluate.generate import gather
from harness.evaluate.plan import GenRow, GenSettings
from harness.evaluate.texts import weigh_texts
from sparsify.progress import Progress
from suites.data import Item
from suites.multiple_choice import shown
from suites.registry import Preset, Suite

if TYPE_CHECKING:
    from harness.engines.base import Engine
    from harness.journal import Journal


def weigh_choices(
    engine: Engine | TextEngine,
    suite: Suite,
    items: Sequence[Item],
    *,
    preset: Preset,
    journal: Journal,
    settings: GenSettings,
    progress: Progress,
    fewshot: Sequence[Mapping[str, Any]] = (),
) -> list[GenRow]:
    """The log-likelihood of every choice that the journal does not hold yet; one row per item, one output per choice.

    A request longer than the context loses tokens at its left, as in lm-eval. Batches go by length, longest first, and
    follow from the whole plan, so that a run that was cut off gives the same numbers.

    Raises:
        SuiteError: No items, or too few worked examples.
        EngineError: The engine failed; journaled rows stay.
    """
    from harness.evaluate.lm import at_blank, build_task, encode_pair, render

    asked: dict[str, tuple[str, int, str, Any]] = {}
    of_item: dict[str, list[str]] = defaultdict(list)
    for part, examples in parts(suite, items, fewshot):
        task = build_task(suite, preset, part, examples)
        for instance in render(task, chat=False):
            item_id = str(instance.doc["item_id"])
            request_id = f"{item_id}#{instance.idx}"
            asked[request_id] = (item_id, instance.idx, task.doc_to_choice(instance.doc)[instance.idx], instance.args)
            of_item[item_id].append(request_id)
    if isinstance(engine, TextEngine):
        texts = {name: at_blank(*args) for name, (_, _, _, args) in asked.items()}
        known = {name: {"item_id": i, "turn": turn, "choice": choice} for name, (i, turn, choice, _) in asked.items()}
        weigh_texts(engine, texts, rows=known, journal=journal, progress=progress)
        return [gather(item.item_id, of_item[item.item_id], journal) for item in items]
    pairs = {name: encode_pair(engine, *args) for name, (_, _, _, args) in asked.items()}
    order = sorted(asked, key=lambda name: (-sum(map(len, pairs[name])), name))
    for start in range(0, len(order), settings.batch_size):
        batch = order[start : start + settings.batch_size]
        missing = [name for name in batch if name not in journal]
        if missing:
            began = time.monotonic()
            found = engine.loglikelihoods([pairs[name] for name in batch])
            seconds = round((time.monotonic() - began) / len(batch), 6)
            rows = {
                name: _row(name, asked[name], pairs[name], ll, seconds)
                for name, (ll, _) in zip(batch, found, strict=True)
            }
            journal.append([rows[name] for name in missing])
        progress.update(min(start + len(batch), len(order)), len(order))
    return [gather(item.item_id, of_item[item.item_id], journal) for item in items]


def parts(
    suite: Suite, items: Sequence[Item], fewshot: Sequence[Mapping[str, Any]]
) -> list[tuple[list[Item], list[Mapping[str, Any]]]]:
    """Items and worked examples of each task of a suite: all together, or by the field that tells its tasks apart."""
    if suite.by is None:
        return [(list(items), list(fewshot))]
    groups: dict[Any, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.doc[suite.by]].append(item)
    return [(group, [doc for doc in fewshot if doc[suite.by] == value]) for value, group in groups.items()]


def _row(
    name: str,
    asked: tuple[str, int, str, Any],
    pair: tuple[Sequence[int], Sequence[int]],
    loglikelihood: float,
    seconds: float,
) -> dict[str, Any]:
    item_id, index, choice, (context, continuation) = asked
    text = f"{context}\0{continuation}".encode("utf-8", "surrogatepass")
    return {
        "request_id": name,
        "item_id": item_id,
        "turn": index,
        "prompt_hash": hashlib.sha256(text).hexdigest(),
        "output": shown(loglikelihood, choice),
        "n_in": len(pair[0]),
        "n_out": len(pair[1]),
        "finish": "stop",
        "status": "ok",
        "seconds": seconds,
    }
