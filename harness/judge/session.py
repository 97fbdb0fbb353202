"""The judge: an engine with an identity, asked only what its journal does not hold yet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.engines.base import TextEngine
from harness.errors import CorruptRecordError, EngineError
from harness.evaluate.generate import encode_prompt, run_prompts
from harness.evaluate.plan import ChatText, GenSettings, Prompt
from harness.judge.verdicts import parse_name, weigh_names
from sparsify.progress import Progress

if TYPE_CHECKING:
    from harness.engines.base import Engine
    from harness.journal import Journal
    from harness.schema.samples import Status

_LEAST_LOG = -1e6  # JSON has no infinity
NAMES = ("m", "M")
"""What AlpacaEval's classifier prompt calls the two outputs."""


@dataclass(frozen=True)
class Judge:
    """Who judges.

    Attributes:
        name: What records and file names call the judge.
        engine: Executes it.
        identity: All that its judgements depend on besides the prompt, JSON values only: hashes of the model, engine,
            dtype.
    """

    name: str
    engine: Engine | TextEngine
    identity: Mapping[str, Any]


@dataclass(frozen=True)
class AskSettings:
    """How the judge is asked.

    Attributes:
        max_new_tokens: Upper limit of a judgement.
        batch_size: Prompts a batch.
    """

    max_new_tokens: int
    batch_size: int = 16

    def key(self) -> dict[str, Any]:
        """What of it a judgement depends on; judges are greedy."""
        return {"max_new_tokens": self.max_new_tokens, "temperature": 0.0}


@dataclass(frozen=True)
class Judgement:
    """What came back for one prompt.

    Attributes:
        text: The judge's words.
        status: `ok`, `truncated_output` (cut at the limit), `truncated_input` (the prompt does not fit the judge's
            context, nothing was asked), `refused` by a content filter, or `error`.
        preference: Of the names `m` and `M`, 1 to 2; None where they were not asked for, or not given.
    """

    text: str
    status: Status
    preference: float | None = None


@dataclass
class JudgeSession:
    """One judge with its journal: equal prompts are asked once, whoever's answers they hold.

    Attributes:
        judge: Who is asked.
        journal: Where judgements are kept; its key holds the judge's identity.
        settings: How.
        progress: Told of finished prompts.
        events: Fall-backs that a record has to tell.
    """

    judge: Judge
    journal: Journal
    settings: AskSettings
    progress: Progress
    events: list[dict[str, str]] = field(default_factory=list)

    def ask(self, prompts: Sequence[ChatText]) -> dict[str, Judgement]:
        """The judgement of every prompt, by the prompt's text.

        Raises:
            EngineError: The judge failed; journaled judgements stay, and the next call goes on from there.
            CorruptRecordError: The journal holds another prompt under one of the ids.
        """
        plan = self._plan(prompts)
        settings = GenSettings(batch_size=self.settings.batch_size)
        run_prompts(
            self.judge.engine, list(plan.values()), journal=self.journal, settings=settings, progress=self.progress
        )
        self.events += getattr(self.judge.engine, "events", ())
        return self._judgements(plan)

    def weigh(self, prompts: Sequence[ChatText]) -> dict[str, Judgement]:
        """The preference of every prompt that ends in a choice between `m` and `M`, by the prompt's text.

        From the log-probabilities of both names as the judge's next token, where the engine gives them; else from the
        one token that it says, which is told as an event.

        Raises:
            EngineError: As `ask`.
            CorruptRecordError: As `ask`.
        """
        plan = self._plan(prompts)
        engine = self.judge.engine
        if isinstance(engine, TextEngine):  # its tokens are its own
            detail = f"engine {engine.name} gives no log-probabilities: preferences are 1 or 2, not weighted"
            self.events.append({"kind": "judge_not_weighted", "where": self.judge.name, "detail": detail})
            said = self.ask(prompts)
            return {text: replace(one, preference=parse_name(one.text)) for text, one in said.items()}
        size = self.settings.batch_size
        # Longest first, so that a batch holds prompts of like length.
        ids = {prompt.request_id: encode_prompt(engine, prompt.text) for prompt in plan.values()}
        order = sorted(plan.values(), key=lambda prompt: (-len(ids[prompt.request_id]), prompt.request_id))
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            missing = {prompt.request_id for prompt in batch if prompt.request_id not in self.journal}
            if missing:
                # The whole batch, as in `run_prompts`: what a row says does not depend on an earlier interruption.
                rows = _weighed(engine, batch, ids)
                self.journal.append([row for row in rows if row["request_id"] in missing])
            self.progress.update(min(start + size, len(order)), len(order))
        return self._judgements(plan)

    def _plan(self, prompts: Sequence[ChatText]) -> dict[str, Prompt]:
        found: dict[str, Prompt] = {}
        for text in prompts:
            if text not in found:
                prompt = Prompt("", "judge", 0, text, self.settings.max_new_tokens)
                found[text] = Prompt(prompt.hash[:32], "judge", 0, text, self.settings.max_new_tokens)
        return found

    def _judgements(self, plan: Mapping[str, Prompt]) -> dict[str, Judgement]:
        found = {text: self._read(prompt) for text, prompt in plan.items()}
        cut = sum(one.status == "truncated_input" for one in found.values())
        if cut:
            limit = self.settings.max_new_tokens
            detail = (
                f"{cut} of {len(found)} prompts with {limit} tokens to answer do not fit the judge's context: "
                "give a smaller --max-new-tokens, or a judge with a longer context"
            )
            self.events.append({"kind": "judge_context", "where": self.judge.name, "detail": detail})
        return found

    def _read(self, prompt: Prompt) -> Judgement:
        row = self.journal.rows[prompt.request_id]
        if row.get("prompt_hash") != prompt.hash:
            raise CorruptRecordError(
                f"{self.journal.path}: row {prompt.request_id} judges another prompt; remove the file"
            )
        logs = row.get("logprobs")
        preference = weigh_names(logs["m"], logs["M"]) if logs else None
        return Judgement(str(row["output"]), row["status"], preference)


def _weighed(engine: Engine, batch: Sequence[Prompt], ids: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    names = [_continuation(engine, name) for name in NAMES]
    room = engine.context_length - max(map(len, names))
    fits = [prompt for prompt in batch if len(ids[prompt.request_id]) <= room]
    pairs = [(ids[prompt.request_id], name) for prompt in fits for name in names]
    found = iter(engine.loglikelihoods(pairs) if pairs else [])
    rows = []
    for prompt in batch:
        row: dict[str, Any] = {"request_id": prompt.request_id, "prompt_hash": prompt.hash, "output": ""}
        if prompt in fits:
            logs = [_finite(next(found)[0], engine) for _ in names]
            row |= {"status": "ok", "logprobs": dict(zip(NAMES, logs, strict=True))}
            row["output"] = NAMES[logs[1] > logs[0]]
        else:
            row["status"] = "truncated_input"
        rows.append(row)
    return rows


def _finite(value: float, engine: Engine) -> float:
    if math.isnan(value):
        raise EngineError(f"engine {engine.name} gives NaN as a log-probability; the judge's weights are broken")
    return max(value, _LEAST_LOG)


def _continuation(engine: Engine, text: str) -> list[int]:
    """Token ids of a text that goes on behind a prompt: without what the tokenizer puts at a text's start."""
    ids, nothing = engine.encode(text), engine.encode("")
    start = len(nothing) if ids[: len(nothing)] == nothing else 0
    return ids[start:]
