"""Sends planned prompts to an engine batch by batch and journals each batch as soon as it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.engines.base import TextEngine
from harness.errors import CorruptRecordError, EngineError
from harness.evaluate.plan import (
    ChatText,
    GenRow,
    GenSettings,
    Prompt,
    common_prefix,
    plan_batches,
    seed_of,
    worst,
)
from harness.evaluate.texts import complete_prompts
from sparsify.progress import Progress

if TYPE_CHECKING:
    from harness.engines.base import Completion, Engine, Request
    from harness.journal import Journal
    from harness.schema.samples import Status


def _row(prompt: Prompt, *, n_in: int, completion: Completion | None) -> dict[str, Any]:
    finish = completion.finish if completion is not None else "truncated_input"
    status = {"stop": "ok", "length": "truncated_output"}.get(finish, "truncated_input")
    return {
        "request_id": prompt.request_id,
        "item_id": prompt.item_id,
        "turn": prompt.turn,
        "prompt_hash": prompt.hash,
        "output": completion.text if completion is not None else "",
        "n_in": completion.n_in if completion is not None else n_in,
        "n_out": completion.n_out if completion is not None else 0,
        "finish": finish,
        "status": status,
        "seconds": round(completion.seconds, 6) if completion is not None else 0.0,
    }


def skip(prompts: Sequence[tuple[Prompt, Status]], journal: Journal) -> None:
    """Journal prompts that cannot be asked, with the status of the earlier turn that has no answer."""
    rows = []
    for prompt, status in prompts:
        row = _row(prompt, n_in=0, completion=None)
        if status != "truncated_input":
            row |= {"finish": status, "status": status, "error": "an earlier turn has no answer"}
        rows.append(row)
    journal.append([row for row in rows if row["request_id"] not in journal])


def encode_prompt(engine: Engine, text: str) -> tuple[int, ...]:
    """Token ids of a plain prompt or a conversation."""
    return tuple(engine.encode(chat=text.messages) if isinstance(text, ChatText) else engine.encode(text))


def _check(prompts: Sequence[Prompt], journal: Journal) -> None:
    for prompt in prompts:
        # A row that failed gives way; its prompt may have held an earlier turn that failed as well.
        if prompt.request_id in journal and journal.rows[prompt.request_id].get("prompt_hash") != prompt.hash:
            raise CorruptRecordError(
                f"{journal.path}: row {prompt.request_id} answers another prompt; remove the file and run again"
            )


def build_requests(
    batch: Sequence[Prompt], ids: Mapping[str, tuple[int, ...]], *, shared: int, settings: GenSettings
) -> list[Request]:
    """What an engine is asked for one batch.

    Args:
        batch: Its prompts.
        ids: Token ids of every prompt by request id.
        shared: With how many equal tokens all prompts of the plan begin.
        settings: Temperature and seed.
    """
    from harness.engines.base import Request

    return [
        Request(
            request_id=prompt.request_id,
            prompt_ids=ids[prompt.request_id],
            max_new_tokens=prompt.max_new_tokens,
            stop=prompt.stop,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=seed_of(settings, prompt.request_id),
            shared_prefix=shared,
        )
        for prompt in batch
    ]


def _complete(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    completions = engine.generate_batch(requests)
    if [c.request_id for c in completions] != [r.request_id for r in requests]:
        raise EngineError(f"engine {engine.name} did not answer its batch in order; report this engine")
    return completions


def run_prompts(
    engine: Engine | TextEngine,
    prompts: Sequence[Prompt],
    *,
    journal: Journal,
    settings: GenSettings,
    progress: Progress,
) -> None:
    """Complete all prompts that the journal does not hold yet.

    Batches are cut from all prompts, whatever the journal holds: a batch that is there is skipped, one that is there
    in part is run again whole and only its missing rows are added. Prompts that leave no room for `max_new_tokens` in
    the engine's context are journaled as `truncated_input` and not generated. An engine that takes text is given the
    prompts one by one (`harness.evaluate.texts`).

    Args:
        engine: Executes the variant.
        prompts: The whole plan of this pass; ids are unique.
        journal: Where rows are read from and added to.
        settings: Batch size, temperature, seed.
        progress: Told of finished prompts.

    Raises:
        EngineError: The engine failed; rows journaled before stay.
        CorruptRecordError: The journal holds an answer to another prompt under one of the ids.
    """
    _check(prompts, journal)
    if isinstance(engine, TextEngine):
        complete_prompts(engine, prompts, journal=journal, settings=settings, progress=progress)
        return
    ids = {p.request_id: encode_prompt(engine, p.text) for p in prompts}
    fits = {p.request_id: len(ids[p.request_id]) + p.max_new_tokens <= engine.context_length for p in prompts}
    journal.append(
        [
            _row(p, n_in=len(ids[p.request_id]), completion=None)
            for p in prompts
            if not fits[p.request_id] and p.request_id not in journal
        ]
    )
    lengths = [(p, len(ids[p.request_id])) for p in prompts if fits[p.request_id]]
    # Of the whole plan, not of what is missing: a resumed run computes what an uninterrupted one does.
    shared = common_prefix([ids[p.request_id] for p, _ in lengths])
    done = len(prompts) - len(lengths)
    for batch in plan_batches(lengths, settings.batch_size):
        missing = {p.request_id for p in batch if p.request_id not in journal}
        if missing:
            completions = _complete(engine, build_requests(batch, ids, shared=shared, settings=settings))
            journal.append(
                [
                    _row(prompt, n_in=len(ids[prompt.request_id]), completion=completion)
                    for prompt, completion in zip(batch, completions, strict=True)
                    if prompt.request_id in missing
                ]
            )
        done += len(batch)
        progress.update(done, len(prompts))


def gather(item_id: str, request_ids: Sequence[str], journal: Journal) -> GenRow:
    """The journaled rows of one item, put together; turns in order."""
    rows = [journal.rows[request_id] for request_id in request_ids]
    return GenRow(
        item_id=item_id,
        prompt_hash=rows[0]["prompt_hash"],
        outputs=[row["output"] for row in rows],
        n_in=[row["n_in"] for row in rows],
        n_out=[row["n_out"] for row in rows],
        finish=[row["finish"] for row in rows],
        status=worst([row["status"] for row in rows]),
        seconds=sum(row["seconds"] for row in rows),
        error=next((row["error"] for row in rows if row.get("error")), None),
    )
