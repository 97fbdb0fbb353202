"""Runs one suite on one engine: prompts, generation, rows; and, as a pass of its own, the scores of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.evaluate.generate import gather, run_prompts
from harness.evaluate.plan import UNANSWERED, ChatText, GenRow, GenSettings, Prompt
from harness.fingerprint import plan_sha256
from sparsify.progress import NullProgress, Progress
from suites.data import Item
from suites.errors import SuiteError
from suites.pocket.draw import doc_hash
from suites.registry import Preset, Suite, scorer, suite_hash

if TYPE_CHECKING:
    from harness.engines.base import Engine, TextEngine
    from harness.journal import Journal

Scores = dict[str, float | list[float]]


def cell_key(
    suite: Suite,
    items: Sequence[Item],
    *,
    preset: str,
    settings: GenSettings,
    engine: str,
    model: Mapping[str, str | None],
    fewshot: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """All that the rows of a cell depend on, for the header of its journal.

    Args:
        suite: The suite.
        items: The whole plan; batches, and so results, follow from all of it.
        preset: Name of the preset.
        settings: How the cell generates.
        engine: The engine's name, with whatever of its options changes results (`torch/float32`).
        model: `harness.fingerprint.model_fingerprint` of the variant.
        fewshot: The preset's worked examples.
    """
    plan = [(item.item_id, item.item_hash) for item in items]
    return {
        **model,
        "engine": engine,
        "suite": suite.name,
        "suite_hash": suite_hash(suite, preset),
        "preset": preset,
        "plan_sha256": plan_sha256([*plan, *(("fewshot", doc_hash(doc)) for doc in fewshot)]),
        **settings.key(),
    }


def request_ids(item: Item, preset: Preset) -> list[str]:
    """The journal keys of an item's answers: each is drawn with a seed of its own, which follows from its key."""
    return [item.item_id, *(f"{item.item_id}~{sample}" for sample in range(1, preset.samples))]


def _plain_prompts(suite: Suite, items: Sequence[Item], *, preset: str, settings: GenSettings) -> list[Prompt]:
    chosen = suite.preset(preset)
    prompts = []
    for item in items:
        if not isinstance(item.doc.get("prompt"), str):
            raise SuiteError(f"suite {suite.name}: an item without task.yaml, turns or prompt; give one of them")
        text = item.doc["prompt"]
        prompts += [
            Prompt(
                request_id=request_id,
                item_id=item.item_id,
                turn=0,
                text=ChatText.of([{"role": "user", "content": text}]) if suite.asks_by(chosen) == "chat" else text,
                max_new_tokens=settings.max_new_tokens or chosen.max_new_tokens,
                stop=chosen.stop,
            )
            for request_id in request_ids(item, chosen)
        ]
    return prompts


def evaluate_suite(
    engine: Engine | TextEngine,
    suite: Suite,
    items: Sequence[Item],
    *,
    preset: str,
    journal: Journal,
    settings: GenSettings,
    progress: Progress | None = None,
    fewshot: Sequence[Mapping[str, Any]] = (),
) -> list[GenRow]:
    """Generate all answers of a suite that the journal does not hold yet; one row per item, in item order.

    A suite with `task.yaml`, or a preset that says what is asked, has its prompts rendered by lm-eval, one with `turns`
    is a conversation, one of kind `choice` weighs given answers, and any other completes the document's `prompt` as it
    stands. A row holds one output a turn, or one a sample where the preset asks for several.

    Args:
        engine: Executes the variant.
        suite: The suite.
        items: The whole plan of the cell, at least one item.
        preset: Name of the preset.
        journal: The cell's journal, opened with `cell_key`.
        settings: Batch size, limits, seed.
        progress: Told of finished prompts.
        fewshot: The preset's worked examples (`suites.data.load_fewshot`).

    Raises:
        SuiteError: No items, no such preset, or fewer worked examples than the preset asks for.
        EngineError: The engine failed; journaled rows stay and are not generated again.
    """
    chosen = suite.preset(preset)
    progress = progress or NullProgress()
    if not items:
        raise SuiteError(f"suite {suite.name}: no items to run; ask for at least one")
    if suite.kind == "choice":
        from harness.evaluate.choice import weigh_choices

        return weigh_choices(
            engine, suite, items, preset=chosen, journal=journal, settings=settings, progress=progress, fewshot=fewshot
        )
    if suite.task_of(chosen) is not None or chosen.text is not None:
        from harness.evaluate.lm import HarnessLM, build_task, render

        task = build_task(suite, chosen, items, fewshot)
        asked = render(task, chat=suite.asks_by(chosen) == "chat")
        requests = [request for request in asked for _ in range(chosen.samples)]
        HarnessLM(engine, journal, settings, progress).generate_until(requests)
    elif "turns" in items[0].doc:
        from harness.evaluate.chat import converse

        return converse(engine, items, preset=chosen, journal=journal, settings=settings, progress=progress)
    else:
        prompts = _plain_prompts(suite, items, preset=preset, settings=settings)
        run_prompts(engine, prompts, journal=journal, settings=settings, progress=progress)
    return [gather(item.item_id, request_ids(item, chosen), journal) for item in items]


def deviations(suite: Suite, preset: str) -> Sequence[str]:
    """Where the scores of a preset are known to differ from the official ones."""
    if suite.preset(preset).scoring is None and suite.name == "instruct":
        from suites.instruct.checkers import DEVIATIONS

        return DEVIATIONS
    found: Sequence[str] = getattr(scorer(suite.name, preset), "DEVIATIONS", ())
    return found


def score_rows(
    suite: Suite, items: Sequence[Item], rows: Sequence[GenRow], *, preset: str | None = None
) -> list[Scores]:
    """Score rows by the scoring of the suite or preset, in order; not for `code`, whose programs must be run.

    Rows without an answer get 0 in every metric that the suite gives for an empty one.

    Raises:
        SuiteError: Items and rows are not of the same items, or the suite has no `score`.
    """
    module = scorer(suite.name, preset)
    if not hasattr(module, "score"):
        raise SuiteError(f"suite {suite.name} is scored by running its programs; use the sandbox")
    if [item.item_id for item in items] != [row.item_id for row in rows]:
        raise SuiteError(f"suite {suite.name}: items and rows do not belong together; score the rows of one run")
    scores: list[Scores] = []
    for item, row in zip(items, rows, strict=True):
        output = row.outputs if len(row.outputs) > 1 else row.outputs[0]
        found: Scores = module.score(item.doc, output)
        if row.status in UNANSWERED:
            found = {name: [0.0] * len(v) if isinstance(v, list) else 0.0 for name, v in found.items()}
        scores.append(found)
    return scores
