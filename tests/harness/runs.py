"""Small runs on disk, made by the real record writers from made-up rows."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.journal import Journal
from harness.layout import Layout
from harness.records import (
    Environment,
    SampleRow,
    SpeedBaseline,
    SpeedConfirmation,
    SpeedRow,
    Summary,
    write_json_atomic,
    write_samples,
)
from harness.report.inputs import StudyMeta, SuiteMeta, VariantInput
from harness.report.summarize import summarize
from harness.study import parse_study

METRICS = {"gsm8k": "exact_match_flexible", "code": "pass@1", "summarization": "rougeLsum"}
ENVIRONMENT = Environment(python="3.11.9", sparsebench="0.1.0", platform="linux-x86_64")
Scores = Mapping[str, Sequence[float]]
"""suite -> scores of one variant"""


def row(variant: str, suite: str, i: int, score: float, **changes: Any) -> SampleRow:
    fields: dict[str, Any] = {
        "variant": variant,
        "engine": "torch/float32",
        "suite": suite,
        "suite_hash": f"{suite}-v1",
        "preset": "pocket",
        "seed": 0,
        "item_id": f"{suite}/{i:05}",
        "item_hash": f"item-{suite}-{i}",
        "template": None,
        "difficulty": None,
        "unseen": False,
        "cluster": f"{suite}-{i}",
        "prompt_hash": f"prompt-{suite}-{i}",
        "outputs": [f"answer {i}, worth {score}"],
        "n_in": [20],
        "n_out": [5],
        "finish": ["stop"],
        "status": "ok",
        "error": None,
        "scores": {METRICS[suite]: score},
    }
    return SampleRow.model_validate({**fields, **changes})


def base_scores(suite: str, n: int) -> list[float]:
    """About three quarters right; ROUGE between 0.4 and 1."""
    rng = random.Random(f"{suite} {n}")
    if suite == "summarization":
        return [round(rng.uniform(0.4, 1.0), 4) for _ in range(n)]
    return [float(rng.random() < 0.75) for _ in range(n)]


def flipped(scores: Sequence[float], lost: int, gained: int = 0, seed: int = 0) -> list[float]:
    """Scores of which so many were lost (to 0, or halved) and gained (to 1)."""
    rng, out = random.Random(seed), list(scores)
    high = [i for i, score in enumerate(scores) if score > 0.3]
    low = [i for i, score in enumerate(scores) if score < 1]
    for i in rng.sample(high, lost):
        out[i] = 0.0 if scores[i] == 1 else round(scores[i] / 2, 4)
    for i in rng.sample([i for i in low if out[i] == scores[i]], gained):
        out[i] = 1.0
    return out


def variant(name: str, baseline: str | None = "dense", **changes: Any) -> VariantInput:
    fields: dict[str, Any] = {
        "base": "pocket",
        "recipe": name,
        "sparsity_linears": 0.0,
        "sparsity_model": 0.0,
        "weight_bits": 32,
        "bytes": 1_000_000,
        "weights_sha256": f"sha-{name}",
    }
    return VariantInput(name=name, baseline=baseline, **{**fields, **changes})


def rows_of(scores: Mapping[str, Scores], **changes: Any) -> dict[tuple[str, str], list[SampleRow]]:
    return {
        (name, suite): [row(name, suite, i, score, **changes) for i, score in enumerate(values)]
        for name, suites in scores.items()
        for suite, values in suites.items()
    }


def summary_of(
    samples: Mapping[tuple[str, str], Sequence[SampleRow]],
    variants: Sequence[VariantInput],
    *,
    speed: Sequence[SpeedRow] = (),
    n_total: int | None = None,
) -> Summary:
    suites = list(dict.fromkeys(suite for _, suite in samples))
    metas = {}
    for suite in suites:
        rows = next(rows for (_, name), rows in samples.items() if name == suite)
        first = rows[0] if rows else None
        metas[suite] = SuiteMeta(
            preset=first.preset if first else "pocket",
            suite_hash=first.suite_hash if first else f"{suite}-v1",
            metric=METRICS[suite],
            n_total=len(rows) if n_total is None else n_total,
        )
    meta = StudyMeta(name="made-up", hash="0" * 64, suites=metas, environment=ENVIRONMENT)
    return summarize(meta, variants, samples, speed)


def confirmation(ratio: float, **changes: Any) -> SpeedConfirmation:
    fields = {"ratio": ratio, "ci95": (ratio - 0.02, ratio + 0.02), "noise_floor": 0.02, "decided": True}
    return SpeedConfirmation.model_validate({**fields, **changes})


def speed_row(name: str, ratio: float | None, /, half: float = 0.02, **changes: Any) -> SpeedRow:
    fields: dict[str, Any] = {
        "panel": "0-decode-c128-b1",
        "workload": "decode",
        "engine": "torch",
        "variant": name,
        "dtype": "float32",
        "threads": 1,
        "batch": 1,
        "context": 128,
        "tokens_per_s": None if ratio is None else 100.0 * ratio,
        "baseline": SpeedBaseline(variant="dense", engine="torch", dtype="float32"),
        "ratio": ratio,
        "ci95": None if ratio is None else (ratio - half, ratio + half),
        "noise_floor": 0.02,
        "n": 12,
        "reason": "not measured" if ratio is None else None,
        # The second run, which a panel makes of what may fail, shows the same.
        "confirmation": None if ratio is None else confirmation(ratio),
    }
    return SpeedRow.model_validate({**fields, **changes})


def write_run(
    folder: Path,
    samples: Mapping[tuple[str, str], Sequence[SampleRow]],
    summary: Summary,
    *,
    gates: Sequence[Mapping[str, Any]] = (),
    template: str = "template-1",
) -> Path:
    """Write everything that the gate reads: study, journals, rows, cell states and the summary."""
    layout = Layout(folder)
    for (name, suite), rows in samples.items():
        with Journal(layout.journal(name, suite), {"suite": suite}) as journal:
            journal.append(
                [
                    {"request_id": f"{r.item_id}#{turn}", "output": text}
                    for r in rows
                    for turn, text in enumerate(r.outputs)
                ]
            )
        write_samples(rows, layout.samples(name, suite))
        key = {"chat_template_sha256": template, "suite": suite}
        write_json_atomic(layout.cell(name, suite), {"key": key, "refused": None, "events": [], "seconds": 1.0})
    body = {
        "name": "made-up",
        "models": {"p": {"path": "pocket"}},
        "variants": {v.name: {"from": "p", "baseline": v.baseline} for v in summary.variants},
        "suites": {suite: {} for suite in summary.study.suites},
        "gates": list(gates),
    }
    study = parse_study(body, where="test")
    write_json_atomic(layout.study, {"hash": study.hash, "study": study.resolved()})
    write_json_atomic(layout.summary, summary)
    return folder
