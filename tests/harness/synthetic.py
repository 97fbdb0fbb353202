"""A made-up study, the same on every call: sample rows, variants and speed rows for the report and gate tests."""

from __future__ import annotations

import random
from collections.abc import Mapping

from harness.records import Environment, Event, SampleRow, SpeedBaseline, SpeedRow, Summary
from harness.report.inputs import StudyMeta, SuiteMeta, VariantInput
from harness.report.summarize import summarize

N = 120
METRICS = {
    "chat": "both_turns",
    "instruct": "prompt_level_strict",
    "code": "pass@1",
    "gsm8k": "exact_match_flexible",
    "summarization": "rougeLsum",
}
ENVIRONMENT = Environment(
    python="3.11.9",
    sparsebench="0.1.0",
    platform="Linux-x86_64",
    cpu_model="Example CPU",
    cores=2,
    threads=2,
    torch="2.13.0",
    transformers="5.23.0",
    lm_eval="0.4.13",
)


def study(suites: Mapping[str, str] = METRICS, n: int = N) -> StudyMeta:
    metas = {
        name: SuiteMeta(preset="pocket", suite_hash=f"{name}-v1", metric=metric, n_total=n, margin=0.05)
        for name, metric in suites.items()
    }
    return StudyMeta(name="pocket | demo", hash="0123456789abcdef" * 4, suites=metas, environment=ENVIRONMENT)


def row(variant: str, suite: str, i: int, score: float | None, **changes: object) -> SampleRow:
    metric = METRICS.get(suite, "score")
    scores: dict[str, object] = {} if score is None else {metric: score}
    if suite == "instruct" and score is not None:
        scores["inst_level_strict"] = [score, 1.0]
    fields: dict[str, object] = {
        "variant": variant,
        "engine": "torch",
        "suite": suite,
        "suite_hash": f"{suite}-v1",
        "preset": "pocket",
        "seed": 0,
        "item_id": f"{suite}/{i}",
        "item_hash": f"hash-{suite}-{i}",
        "template": f"t{i % 30}",
        "difficulty": i % 4 + 1,
        "unseen": i % 30 in (3, 16, 29),
        "cluster": f"t{i % 30}",
        "prompt_hash": f"prompt-{suite}-{i}",
        "outputs": ["answer"],
        "n_in": [20],
        "n_out": [5],
        "finish": ["stop"],
        "status": "ok",
        "error": None,
        "scores": scores,
    }
    return SampleRow.model_validate({**fields, **changes})


def baseline_scores(suite: str, n: int = N) -> list[float]:
    rng = random.Random(f"{suite} baseline")
    if suite == "summarization":
        return [round(rng.uniform(0.6, 1.0), 4) for _ in range(n)]
    return [float(rng.random() < 0.95 - 0.12 * (i % 4)) for i in range(n)]


def damaged(suite: str, damage: float, n: int = N) -> list[float]:
    """Baseline scores of which a share `damage` was lost, and a tenth of that gained."""
    rng = random.Random(f"{suite} {damage}")
    scores = []
    for score in baseline_scores(suite, n):
        draw = rng.random()
        if suite == "summarization":
            scores.append(round(score * rng.uniform(0.3, 0.9), 4) if draw < damage else score)
        else:
            scores.append(0.0 if score and draw < damage else 1.0 if draw < damage / 10 else score)
    return scores


VARIANTS = (
    VariantInput(
        name="dense",
        base="pocket",
        baseline=None,
        recipe="dense",
        sparsity_linears=0.0,
        sparsity_model=0.0,
        weight_bits=32,
        bytes=10_800_000,
        loaders=("transformers", "vllm"),
    ),
    VariantInput(
        name="sparse70",
        base="pocket",
        baseline="dense",
        recipe="sparse70",
        sparsity_linears=0.699,
        sparsity_model=0.612,
        weight_bits=32,
        bytes=10_800_000,
        loaders=("transformers",),
        events=(Event(kind="damping", where="model.layers.3.mlp.down_proj", detail="0.01 -> 0.1 | Gram was singular"),),
    ),
    VariantInput(
        name="int8",
        base="pocket",
        baseline="dense",
        recipe="int8",
        sparsity_linears=0.0,
        sparsity_model=0.0,
        weight_bits=8,
        bytes=3_200_000,
        loaders=("transformers",),
    ),
    VariantInput(name="mine|<b>", base="someone/else", baseline="dense", refused={"code": "no sandbox runs here"}),
)
DAMAGE = {"dense": 0.0, "sparse70": 0.35, "int8": 0.01, "mine|<b>": 0.1}


def cells(n: int = N) -> dict[tuple[str, str], list[SampleRow]]:
    found: dict[tuple[str, str], list[SampleRow]] = {}
    for variant in VARIANTS:
        for suite in METRICS:
            if suite in variant.refused:
                continue
            scores = damaged(suite, DAMAGE[variant.name], n) if variant.baseline else baseline_scores(suite, n)
            found[variant.name, suite] = [row(variant.name, suite, i, score) for i, score in enumerate(scores)]
    cut = found["sparse70", "chat"]
    cut[0] = row("sparse70", "chat", 0, None, status="truncated_input", outputs=[], finish=[], n_out=[])
    cut[1] = row("sparse70", "chat", 1, None, status="error", error="engine stopped", outputs=[], finish=[], n_out=[])
    return found


def speed() -> list[SpeedRow]:
    rows = []
    for workload, base in (("decode", 410.0), ("prefill", 5200.0)):
        for name, ratio in (("dense", 1.0), ("sparse70", 1.004), ("int8", None)):
            rows.append(
                SpeedRow(
                    panel=f"{workload}-1",
                    workload=workload,
                    engine="torch",
                    variant=name,
                    dtype="float32",
                    threads=1,
                    batch=1,
                    context=128,
                    tokens_per_s=None if ratio is None else base * ratio,
                    baseline=SpeedBaseline(variant="dense", engine="torch", dtype="float32"),
                    ratio=ratio,
                    ci95=None if ratio is None else (ratio - 0.02, ratio + 0.021),
                    noise_floor=0.018,
                    n=12,
                    reason="INT8 is emulated in float by this engine: no speed" if ratio is None else None,
                )
            )
    return rows


def summary() -> Summary:
    return summarize(study(), VARIANTS, cells(), speed())
