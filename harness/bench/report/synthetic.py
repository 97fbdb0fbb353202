"""A made-up run of many variants, written by the real record writers: text of a random word model, seeded.

Its skills are made up too; what is measured on it is the report, never a model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.layout import Layout
from harness.records import (
    Environment,
    SampleRow,
    SpeedBaseline,
    SpeedRow,
    Summary,
    samples_to_parquet,
    write_json_atomic,
)
from harness.report.inputs import StudyMeta, SuiteMeta, VariantInput
from harness.report.summarize import summarize

METRICS = {
    "chat": "both_turns",
    "instruct": "prompt_level_strict",
    "code": "pass@1",
    "gsm8k": "exact_match_flexible",
    "summarization": "rougeLsum",
}
_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_STEPS = 400
Rows = dict[tuple[str, str], list[SampleRow]]


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the made-up run is.

    Attributes:
        variants: with the reference.
        rows: sample rows in all; each suite gets its share.
        words: of a mean answer.
        blocks: of each model.
        seed: of everything.
    """

    variants: int = 50
    rows: int = 20_000
    words: int = 60
    blocks: int = 16
    seed: int = 0


def write_synthetic(folder: Path, shape: Shape) -> int:
    """Write summary, rows and variants' folders; how many rows were written."""
    rng = random.Random(shape.seed)
    variants = [_variant(i, rng) for i in range(shape.variants)]
    samples = _samples(variants, shape, rng)
    metas = {
        suite: SuiteMeta("pocket", f"{suite}-made-up", metric, len(samples[variants[0].name, suite]), margin=0.05)
        for suite, metric in METRICS.items()
    }
    environment = Environment(python="3.11", sparsebench="0.1.0", platform="made-up")
    study = StudyMeta(f"made-up, {shape.variants} variants", "0" * 64, metas, environment, shape.seed)
    summary: Summary = summarize(study, variants, samples, _speed(variants, rng))
    for variant in variants[1:]:
        _write_variant(Layout(folder).variant(variant.name), shape, rng, trained=bool(rng.getrandbits(1)))
    rows = [row for cell in samples.values() for row in cell]
    samples_to_parquet(rows, folder / "samples.parquet")
    write_json_atomic(folder / "summary.json", summary)
    return len(rows)


def _variant(index: int, rng: random.Random) -> VariantInput:
    if index == 0:
        return VariantInput(
            "dense", "base", None, "dense", sparsity_linears=0.0, sparsity_model=0.0, weight_bits=16, bytes=10**9
        )
    bits = rng.choice((4, 8, 16))
    zeros = rng.choice((0.0, 0.5, 0.6, 0.7, 0.8))
    return VariantInput(
        f"variant-{index:02d}-s{100 * zeros:.0f}-w{bits}",
        "base",
        "dense",
        f"recipe-{index}",
        sparsity_linears=zeros,
        sparsity_model=0.9 * zeros,
        weight_bits=bits,
        bytes=int(10**9 * bits / 16 * rng.uniform(0.95, 1.05)),
        weights_sha256=f"{rng.getrandbits(256):064x}",
    )


def _samples(variants: Sequence[VariantInput], shape: Shape, rng: random.Random) -> Rows:
    items = max(2, shape.rows // (shape.variants * len(METRICS)))
    vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(4000)]
    samples: Rows = {}
    for suite, metric in METRICS.items():
        base = [float(rng.random() < 0.7) for _ in range(items)]
        for number, variant in enumerate(variants):
            damage = 0.0 if number == 0 else rng.uniform(0.0, 0.3)
            scores = [1.0 - s if rng.random() < damage * (0.2 + 0.8 * s) else s for s in base]
            cell = [
                _row(variant.name, suite, metric, i, s, _answer(vocabulary, shape.words, rng))
                for i, s in enumerate(scores)
            ]
            samples[variant.name, suite] = cell
    return samples


def _answer(vocabulary: Sequence[str], words: int, rng: random.Random) -> str:
    # Answers of one length would compress better than real ones.
    return " ".join(rng.choices(vocabulary, k=max(1, round(rng.expovariate(1 / words)))))


def _row(variant: str, suite: str, metric: str, i: int, score: float, answer: str) -> SampleRow:
    return SampleRow(
        variant=variant,
        engine="torch/float32",
        suite=suite,
        suite_hash=f"{suite}-made-up",
        preset="pocket",
        seed=0,
        item_id=f"{suite}/{i:05d}",
        item_hash=f"{suite}-{i}",
        template=f"template-{i % 25}",
        difficulty=i % 4 + 1,
        unseen=i % 25 < 3,
        cluster=f"template-{i % 25}",
        prompt_hash=f"prompt-{suite}-{i}",
        outputs=[answer],
        n_in=[50],
        n_out=[len(answer) // 4],
        finish=["stop"],
        status="ok",
        error=None,
        scores={metric: score},
    )


def _speed(variants: Sequence[VariantInput], rng: random.Random) -> list[SpeedRow]:
    rows = []
    for panel, workload in (("0-decode", "decode"), ("1-prefill", "prefill")):
        for engine in ("torch", "sparse"):
            for number, variant in enumerate(variants):
                baseline = number == 0 and engine == "torch"
                ratio = 1.0 if baseline else rng.uniform(0.98, 1.02) if engine == "torch" else rng.uniform(1.0, 6.0)
                rows.append(
                    SpeedRow(
                        panel=panel,
                        workload=workload,
                        engine=engine,
                        variant=variant.name,
                        dtype="float32",
                        threads=1,
                        batch=1,
                        context=128,
                        tokens_per_s=500 * ratio,
                        baseline=SpeedBaseline(variant="dense", engine="torch", dtype="float32"),
                        ratio=ratio,
                        ci95=None if baseline else (ratio * 0.99, ratio * 1.01),
                        noise_floor=0.015,
                        n=30,
                        reason="the baseline itself: 1 by definition" if baseline else None,
                    )
                )
    return rows


def _write_variant(folder: Path, shape: Shape, rng: random.Random, *, trained: bool) -> None:
    """What the report reads of a variant's folder; there are no weights."""
    names = [f"model.layers.{block}.{kind}" for block in range(shape.blocks) for kind in _LINEARS]
    zeros = {name: round(rng.uniform(0.3, 0.9), 6) for name in names}
    linears = {name: {"sparsity": zeros[name], "relative_error": rng.uniform(1e-4, 1e-1)} for name in names}
    info = {"sparsity": {"per_linear": zeros}, "stages": [{"kind": "prune", "linears": linears}]}
    write_json_atomic(folder / "variant.json", info)
    if trained:
        lines = [
            json.dumps({"step": step, "losses": {"ce": 3 / step**0.3 + rng.uniform(0, 0.1), "kl": rng.uniform(0.1, 1)}})
            for step in range(1, _STEPS + 1)
        ]
        (folder / "curves-2-finetune.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
