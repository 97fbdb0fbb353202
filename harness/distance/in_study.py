"""Distances of a study's variants to their baselines: which are missing, what measures them, what they came to."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cells import SuitePlan, engine_of_cells
from harness.distance.run import Settings, measure_continuations, measure_logits, open_model
from harness.distance.summarize import Pair, Row, distance_result
from harness.distance.texts import SuiteText, Texts, WindowText, canonical, describe
from harness.engine_specs import EngineSpec
from harness.errors import ConfigError, CorruptRecordError
from harness.evaluate.plan import GenSettings
from harness.fingerprint import model_fingerprint, plan_sha256
from harness.layout import Layout, read_json
from harness.perplexity import WIKITEXT, read_text
from harness.records import write_json_atomic
from harness.schema.distance import DistanceResult
from harness.study import Study
from harness.tasks import Relay
from suites.registry import SUITES

if TYPE_CHECKING:
    from harness.run import RunOptions

Send = Callable[[str, Any], None]


@dataclass(frozen=True)
class DistancePlan:
    """How a study measures distances.

    Attributes:
        texts: On what.
        settings: How.
        layout: Where records go.
    """

    texts: Texts
    settings: Settings
    layout: Layout

    def directory(self, variant: str) -> Path:
        """The files of a variant."""
        return self.layout.variant(variant)


@dataclass(frozen=True)
class ContinueTask:
    """Continue all prompts greedily with one variant.

    Attributes:
        variant: Its name.
        plan: How.
        key: What the record depends on.
    """

    variant: str
    plan: DistancePlan
    key: dict[str, Any]

    @property
    def name(self) -> str:
        """How progress calls it."""
        return f"continue with {self.variant}"

    def run(self, send: Send) -> None:
        """Generate what the journal lacks and write the record."""
        plan, relay = self.plan, Relay(send, lambda fraction: fraction)
        model = open_model(self.variant, plan.directory(self.variant), plan.texts, plan.settings, dense=True)
        journal = plan.layout.distance_journal(self.variant, f"continuations-{_short(self.key)}")
        rows = measure_continuations(model, plan.settings, journal, relay)
        told = {name: " ".join(map(str, row["tokens"])) for name, row in rows.items()}
        write_json_atomic(plan.layout.distance(self.variant, "continuations"), {"key": self.key, "tokens": told})


@dataclass(frozen=True)
class CompareTask:
    """Compare the logits and continuations of a variant with those of its baseline.

    Attributes:
        variant: Its name.
        baseline: That of its baseline.
        plan: How.
        key: What the record depends on.
    """

    variant: str
    baseline: str
    plan: DistancePlan
    key: dict[str, Any]

    @property
    def name(self) -> str:
        """How progress calls it."""
        return f"distance of {self.variant}"

    def run(self, send: Send) -> None:
        """Compute what the journal lacks and write the record."""
        began = time.monotonic()
        plan, relay = self.plan, Relay(send, lambda fraction: fraction)
        dense, model = (
            open_model(name, plan.directory(name), plan.texts, plan.settings, dense=True)
            for name in (self.baseline, self.variant)
        )
        journal = plan.layout.distance_journal(self.variant, f"logits-{_short(self.key)}")
        logits = measure_logits(dense, model, plan.settings, journal, relay)
        continued = [_continuations(plan.layout, name) for name in (self.baseline, self.variant)]
        labels = dense.label, model.label
        pair = Pair(self.baseline, labels, plan.settings.new_tokens, continued[0], continued[1], logits)
        result = distance_result(pair, model.encoded).model_dump(mode="json")
        record = {"key": self.key, "result": result, "seconds": round(time.monotonic() - began, 2)}
        write_json_atomic(plan.layout.distance(self.variant), record)


def distance_plan(study: Study, layout: Layout, options: RunOptions) -> DistancePlan | None:
    """How the study measures distances; None where it does not.

    Raises:
        ConfigError: It names no text.
    """
    spec = study.distance
    if spec is None:
        return None
    names = [name for name in study.suites if name in SUITES] if spec.suites == "all" else list(spec.suites)
    if not names and spec.text is None:
        raise ConfigError(f"study {study.name}: distance has no text to measure on; give suites, or `text:`")
    assert isinstance(study.engine, EngineSpec)  # a study says so itself
    engine = engine_of_cells(study, options.device).partition("/")[0]
    texts = Texts(
        suites=tuple(SuiteText(name, study.suites[name].preset, spec.items) for name in names),
        window=None if spec.text is None else WindowText(_place(spec.text), spec.context, spec.windows),
        data_dir=options.data_dir,
    )
    settings = Settings(
        new_tokens=spec.new_tokens,
        batch=spec.batch_size,
        engine=engine,
        variant_engine=engine,
        dtype=study.engine.dtype,
        device=options.device,
        threads=options.threads,
    )
    return DistancePlan(texts, settings, layout)


def check_texts(study: Study, layout: Layout, options: RunOptions) -> None:
    """Read the texts of a study once, so that it fails before anything is made.

    Raises:
        ConfigError, SuiteError: One is not there.
    """
    plan = distance_plan(study, layout, options)
    if plan is not None:
        _content(plan)


def distance_tasks(
    study: Study, layout: Layout, options: RunOptions
) -> Iterator[tuple[str, list[ContinueTask] | list[CompareTask]]]:
    """What is missing, in two waves: every model's continuations, then every pair. A wave is planned when its turn is.

    Raises:
        ConfigError, SuiteError: A text is not there.
    """
    plan = distance_plan(study, layout, options)
    if plan is None:
        return
    content = _content(plan)
    keys = {name: {**content, **model_fingerprint(layout.variant(name))} for name in study.variants}
    pairs = {name: base for name in study.variants if (base := study.baseline_of(name)) not in (None, name)}
    missing = {name: base for name, base in pairs.items() if base and _read(plan, name, keys[name], keys[base]) is None}
    needed = dict.fromkeys([*missing.values(), *missing])
    yield (
        "continuing",
        [
            ContinueTask(name, plan, keys[name])
            for name in needed
            if _record(layout.distance(name, "continuations"), keys[name]) is None
        ],
    )
    yield (
        "distance",
        [CompareTask(name, base, plan, _pair_key(keys[name], keys[base])) for name, base in missing.items()],
    )


def read_distance(study: Study, layout: Layout, variant: str, options: RunOptions) -> DistanceResult | None:
    """The distance of a variant to its baseline; None where the study does not measure it, and for a reference.

    Raises:
        CorruptRecordError: It is missing or damaged.
    """
    base = study.baseline_of(variant)
    plan = distance_plan(study, layout, options)
    if plan is None or base is None or base == variant:
        return None
    content = _content(plan)
    key, other = ({**content, **model_fingerprint(layout.variant(name))} for name in (variant, base))
    found = _read(plan, variant, key, other)
    if found is None:
        raise CorruptRecordError(f"{layout.distance(variant)} is missing or of another plan; run the study again")
    return found


def _place(text: str) -> str:
    """A file by its whole path: tasks may run in another folder."""
    return text if text == WIKITEXT else str(Path(text).resolve())


def _content(plan: DistancePlan) -> dict[str, Any]:
    """What all rows depend on besides the models: the texts themselves, and how they are read."""
    window = plan.texts.window
    items = {
        text.suite: plan_sha256(
            [
                (item.item_id, item.item_hash)
                for item in SuitePlan(text.suite, text.preset, text.items, GenSettings(), plan.texts.data_dir).items()
            ]
        )
        for text in plan.texts.suites
    }
    return {
        "texts": describe(plan.texts),
        "items": items,
        "text_sha256": None if window is None else read_text(window.source, plan.texts.data_dir).sha256,
        "engine": plan.settings.label(dense=True),
        "new_tokens": plan.settings.new_tokens,
        "batch": plan.settings.batch,
    }


def _pair_key(key: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    return {**key, "baseline": {name: dense[name] for name in ("weights_sha256", "tokenizer_sha256")}}


def _short(key: dict[str, Any]) -> str:
    """Names the journal of a plan: the study may ask for other texts in the same folder later."""
    return hashlib.sha256(canonical(key)).hexdigest()[:12]


def _record(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    record = read_json(path)
    return record if record.get("key") == key else None


def _read(plan: DistancePlan, variant: str, key: dict[str, Any], dense: dict[str, Any]) -> DistanceResult | None:
    path = plan.layout.distance(variant)
    record = _record(path, _pair_key(key, dense))
    if record is None:
        return None
    try:
        return DistanceResult.model_validate(record["result"])
    except (KeyError, ValueError):
        raise CorruptRecordError(f"{path} is damaged; delete it and run again") from None


def _continuations(layout: Layout, variant: str) -> dict[str, Row]:
    tokens = read_json(layout.distance(variant, "continuations"))["tokens"]
    return {name: {"tokens": list(map(int, told.split()))} for name, told in tokens.items()}
