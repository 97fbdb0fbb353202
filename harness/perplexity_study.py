"""Perplexities of a study's variants: which are missing, and what they came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.engine_specs import EngineSpec
from harness.errors import CorruptRecordError
from harness.fingerprint import model_fingerprint
from harness.layout import Layout, read_json
from harness.perplexity import Settings, measure, read_text
from harness.records import write_json_atomic
from harness.schema.published import PerplexityRow
from harness.study import PerplexitySpec, Study

if TYPE_CHECKING:
    from harness.run import RunOptions

DIGITS = 6


@dataclass(frozen=True)
class PerplexityPlan:
    """One perplexity of a study.

    Attributes:
        spec: As the study has it.
        settings: How the text is read.
        models: Directories of the variants.
        folder: Of its journals and its record.
    """

    spec: PerplexitySpec
    settings: Settings
    models: dict[str, Path]
    folder: Path

    @property
    def record(self) -> Path:
        """Written last, so that it stands for a complete measurement."""
        return self.folder / "record.json"

    def key(self) -> dict[str, Any]:
        """All that the record depends on, but for the text itself, which the record names by its hash."""
        models = {name: model_fingerprint(directory) for name, directory in self.models.items()}
        return {"spec": self.spec.model_dump(mode="json"), "settings": vars(self.settings), "models": models}

    def read(self) -> dict[str, Any] | None:
        """The results, or None where they are to be measured (again)."""
        if not self.record.is_file():
            return None
        found = read_json(self.record)
        return found.get("results") if found.get("key") == self.key() else None


def perplexity_plans(study: Study, layout: Layout, device: str) -> list[PerplexityPlan]:
    """The perplexities of a study, in its order."""
    dtype = study.engine.dtype if isinstance(study.engine, EngineSpec) else "float32"
    models = {name: layout.variant(name) for name in study.variants}
    plans = []
    for index, spec in enumerate(study.perplexity):
        settings = Settings(spec.context, spec.windows, spec.batch, "torch", dtype, device)
        folder = layout.root / "records" / "perplexity" / f"{index}-c{spec.context}"
        plans.append(PerplexityPlan(spec, settings, models, folder))
    return plans


def check_text(study: Study, options: RunOptions) -> None:
    """Read the texts once before anything is made.

    Raises:
        ConfigError: One is not there.
    """
    for spec in study.perplexity:
        read_text(spec.text, options.data_dir)


def measure_missing(study: Study, layout: Layout, options: RunOptions) -> bool:
    """Measure what is missing; whether anything was.

    Raises:
        ConfigError: A text is not there or too short for its context.
        EngineError: A model answers with NaN.
    """
    did = False
    for plan in perplexity_plans(study, layout, options.device):
        if plan.read() is not None:
            continue
        did = True
        text = read_text(plan.spec.text, options.data_dir)
        results = measure(plan.models, text, plan.settings, plan.folder, quiet=options.quiet)
        write_json_atomic(plan.record, {"key": plan.key(), "results": results})
    return did


def perplexity_rows(study: Study, layout: Layout, options: RunOptions) -> list[PerplexityRow]:
    """What was measured, as records.

    Raises:
        CorruptRecordError: A record is damaged or missing.
    """
    rows = []
    for plan in perplexity_plans(study, layout, options.device):
        results = plan.read()
        if results is None:
            raise CorruptRecordError(f"the perplexity record {plan.record} is missing; run the study again")
        first = results["models"][0]["name"]
        for model in results["models"]:
            rows.append(
                PerplexityRow(
                    variant=model["name"],
                    text=plan.spec.text,
                    text_sha256=results["text_sha256"],
                    context=results["context"],
                    windows=model["windows"],
                    engine=results["engine"],
                    value=round(model["perplexity"], DIGITS),
                    ci95=_interval(model["ci95"]),
                    baseline=None if model["name"] == first else first,
                    ratio=None if model["ratio"] is None else round(model["ratio"], DIGITS),
                    ratio_ci95=_interval(model["ratio_ci95"]),
                    reason=model["reason"],
                )
            )
    return rows


def _interval(ci95: list[float] | None) -> tuple[float, float] | None:
    return None if ci95 is None else (round(ci95[0], DIGITS), round(ci95[1], DIGITS))
