"""Measures models against the first of them, one after the other; what is finished is not measured again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.distance.measure import ROW_KEY, compare_logits, continue_greedily
from harness.distance.passages import Encoded, encode_texts, require_same
from harness.distance.summarize import Pair, Row, distance_result
from harness.distance.texts import Texts, describe
from harness.fingerprint import model_fingerprint
from harness.journal import Journal
from harness.progress import Phase
from harness.records import write_json_atomic, write_text_atomic
from harness.schema.distance import DistanceFile, DistanceModel

if TYPE_CHECKING:
    from harness.engines.base import LogitsEngine


@dataclass(frozen=True)
class Settings:
    """How distances are measured.

    Attributes:
        new_tokens: Length of greedy continuations at most.
        batch: Passages at a time.
        engine: What runs the dense model.
        variant_engine: What runs the others.
        dtype: Computation dtype.
        device: `cpu` or `cuda`.
        threads: CPU threads of a model; None leaves them.
    """

    new_tokens: int = 64
    batch: int = 8
    engine: str = "torch"
    variant_engine: str = "torch"
    dtype: str = "float32"
    device: str = "cpu"
    threads: int | None = None

    def label(self, *, dense: bool) -> str:
        """What records call the engine of the dense model, or of the others."""
        return f"{self.engine if dense else self.variant_engine}/{self.dtype}"


@dataclass(frozen=True)
class Model:
    """One open model with the texts as it reads them."""

    name: str
    engine: LogitsEngine
    encoded: Encoded
    fingerprint: dict[str, str | None]
    label: str

    @property
    def key(self) -> dict[str, Any]:
        """What its rows depend on besides settings."""
        return {**self.fingerprint, "engine": self.label, "texts_sha256": self.encoded.sha256}


def open_model(name: str, directory: Path, texts: Texts, settings: Settings, *, dense: bool) -> Model:
    """Open a model and read the texts with it.

    Raises:
        ConfigError: No such model or text, or nothing fits.
        EngineError: The engine cannot run it.
    """
    from harness.engines import load_logits_engine

    engine = load_logits_engine(
        settings.engine if dense else settings.variant_engine,
        directory,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
    )
    encoded = encode_texts(engine, texts, new_tokens=settings.new_tokens)
    return Model(name, engine, encoded, model_fingerprint(directory), settings.label(dense=dense))


def measure_continuations(model: Model, settings: Settings, journal: Path, progress: Any) -> dict[str, Row]:
    """The greedy continuations of a model, by passage; those in the journal are not made again."""
    key = {**model.key, "new_tokens": settings.new_tokens, "batch": settings.batch}
    with Journal(journal, key, row_key=ROW_KEY) as rows:
        continue_greedily(
            model.engine,
            model.encoded,
            new_tokens=settings.new_tokens,
            batch=settings.batch,
            journal=rows,
            progress=progress,
        )
        return dict(rows.rows)


def measure_logits(dense: Model, model: Model, settings: Settings, journal: Path, progress: Any) -> dict[str, Row]:
    """The comparison of two models' logits, by passage; what is in the journal is not computed again.

    Raises:
        ConfigError: The two do not read the same tokens.
    """
    require_same((dense.name, dense.engine, dense.encoded), (model.name, model.engine, model.encoded))
    key = {**model.key, **{f"dense_{name}": value for name, value in dense.key.items()}, "batch": settings.batch}
    with Journal(journal, key, row_key=ROW_KEY) as rows:
        compare_logits(dense.engine, model.engine, model.encoded, batch=settings.batch, journal=rows, progress=progress)
        return dict(rows.rows)


def measure(
    models: Mapping[str, Path], texts: Texts, settings: Settings, out: Path, *, quiet: bool = False
) -> DistanceFile:
    """Distance of each model to the first; at most two models are open at a time.

    Rows are journaled below `out`; the results are written to `out/distance.json` and `out/distance.svg`.

    Args:
        models: Directories by name, at least two.
        texts: On what.
        settings: How.
        out: Folder.
        quiet: Show no progress.

    Raises:
        ConfigError: A text is not there, or a model reads other tokens than the first.
        EngineError: A model's logits are not finite.
    """
    from harness.distance.render import distance_plot

    names = iter(models.items())
    base, directory = next(names)
    dense = open_model(base, directory, texts, settings, dense=True)
    with Phase(f"{base}: continuations", 1, quiet=quiet) as phase:
        theirs = measure_continuations(dense, settings, _journal(out, base, "continuations"), phase)
    found = [DistanceModel(name=base, model=dense.fingerprint, engine=dense.label, distance=None)]
    for name, directory in names:
        # In a function of its own, so that a variant is closed before the next one is opened.
        found.append(_against(dense, theirs, (name, directory), texts, settings, (out, quiet)))
    results = DistanceFile(texts=describe(texts), texts_sha256=dense.encoded.sha256, models=found)
    write_json_atomic(out / "distance.json", results)
    variants = {each.name: each.distance for each in found if each.distance is not None}
    write_text_atomic(out / "distance.svg", distance_plot(variants, f"Distance to {base}, by position"))
    return results


def _against(
    dense: Model,
    theirs: Mapping[str, Row],
    variant: tuple[str, Path],
    texts: Texts,
    settings: Settings,
    told: tuple[Path, bool],
) -> DistanceModel:
    (name, directory), (out, quiet) = variant, told
    model = open_model(name, directory, texts, settings, dense=False)
    with Phase(f"{name}: logits", 1, quiet=quiet) as phase:
        logits = measure_logits(dense, model, settings, _journal(out, name, "logits"), phase)
    with Phase(f"{name}: continuations", 1, quiet=quiet) as phase:
        ours = measure_continuations(model, settings, _journal(out, name, "continuations"), phase)
    pair = Pair(dense.name, (dense.label, model.label), settings.new_tokens, theirs, ours, logits)
    result = distance_result(pair, model.encoded)
    return DistanceModel(name=name, model=model.fingerprint, engine=model.label, distance=result)


def _journal(out: Path, name: str, what: str) -> Path:
    return out / "journal" / f"{name}.{what}.jsonl"
