"""A made-up set of results, the same for the same seed: studies of ours and files of lm-eval, with known skills.

Written by the real record writers; no model is run. Tests and the benchmark share it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.records import (
    Environment,
    SampleRow,
    SpeedBaseline,
    SpeedRow,
    samples_to_parquet,
    write_json_atomic,
    write_text_atomic,
)
from harness.report.inputs import StudyMeta, SuiteMeta, VariantInput
from harness.report.summarize import summarize

SUITES = {"gsm8k": "exact_match_flexible", "code": "pass@1", "summarization": "rougeLsum"}
_KINDS = ("dense", "int8", "sparse50", "sparse60", "sparse70", "2of4", "sparse50-int8", "2of4-int8", "sliced25")
_LOSS = (0.0, 0.0, 0.02, 0.05, 0.15, 0.08, 0.03, 0.09, 0.06)
_SPEED = (1.0, 2.4, 1.5, 1.8, 2.3, 1.6, 3.1, 3.4, 1.2)
_BITS = (16, 8, 16, 16, 16, 16, 8, 8, 16)
_CLUSTERS = 40


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the set is.

    Attributes:
        variants: entries in all, of which every tenth is a file of lm-eval.
        per_study: variants of a study, at most nine.
        items: items of each suite.
        seed: of skills and answers.
    """

    variants: int = 50
    per_study: int = 9
    items: int = 200
    seed: int = 0


def write_set(folder: Path, shape: Shape) -> list[Path]:
    """Write the set below `folder` and return what to give to `sparsebench leaderboard`.

    The first study's last record keeps no sample rows (unpaired); the last study measures `gsm8k` by another preset,
    which is another protocol; studies 1 and 2 share the weights of their dense model.
    """
    imported = shape.variants // 10
    ours = shape.variants - imported
    paths = []
    number = 0
    while ours > 0:
        count = min(shape.per_study, ours)
        ours -= count
        paths.append(_study(folder / f"study{number}", number, count, shape, last=ours == 0))
        number += 1
    paths += [_lm_eval(folder / f"theirs{k}", k, shape) for k in range(imported)]
    return paths


def _rng(shape: Shape, *parts: object) -> np.random.Generator:
    return np.random.default_rng([shape.seed, *"/".join(map(str, parts)).encode()])


def answers(shape: Shape, suite: str, model: str, skill: float) -> list[float]:
    """Scores of one model, [items]: items differ in difficulty, which all models share, and clusters sway together."""
    items, own = _rng(shape, suite), _rng(shape, suite, model)
    hard = items.normal(0, 1.2, size=shape.items)
    sway = own.normal(0, 0.15, size=_CLUSTERS)[np.arange(shape.items) % _CLUSTERS]
    chance = 1 / (1 + np.exp(-(np.log(skill / (1 - skill)) * 1.4 - hard + sway)))
    if suite == "summarization":
        return [round(float(x), 4) for x in np.clip(chance + own.normal(0, 0.05, size=shape.items), 0, 1)]
    return [float(x) for x in own.random(shape.items) < chance]


def _study(folder: Path, number: int, count: int, shape: Shape, *, last: bool) -> Path:
    preset = "5shot" if last and number > 1 else "pocket"
    suites = {
        suite: SuiteMeta("pocket", f"{suite}-pocket-v1", metric, shape.items, 0.02) for suite, metric in SUITES.items()
    }
    suites["gsm8k"] = SuiteMeta(preset, f"gsm8k-{preset}-v1", SUITES["gsm8k"], shape.items, 0.02)
    environment = Environment(
        python="3.11.9", sparsebench="0.1.0", platform="linux-x86_64", cpu_model=f"Example CPU {number}", cores=8
    )
    meta = StudyMeta(f"study{number}", f"{number:064d}", suites, environment, seed=shape.seed)
    samples: dict[tuple[str, str], list[SampleRow]] = {}
    variants = []
    for kind in range(count):
        name = _KINDS[kind]
        # Two studies have the same dense model; then it also answers alike.
        model = "model0/dense" if kind == 0 and number < 2 else f"model{number}/{name}"
        for suite, told in suites.items():
            skill = 0.78 - 0.04 * (number % 4) * (model != "model0/dense") - _LOSS[kind]
            scores = answers(shape, suite, model, skill)
            samples[name, suite] = list(_rows(name, suite, told, scores))
        variants.append(_variant(name, kind, number, model))
    summary = summarize(meta, variants, samples, list(_speed(variants, number)))
    write_json_atomic(folder / "summary.json", summary)
    if number != 0:
        rows = [row for key in sorted(samples) for row in samples[key]]
        samples_to_parquet(rows, folder / "samples.parquet")
    return folder


def _variant(name: str, kind: int, number: int, model: str) -> VariantInput:
    zeros = {"sparse50": 0.5, "sparse60": 0.6, "sparse70": 0.7, "2of4": 0.5}.get(name.removesuffix("-int8"), 0.0)
    size = int(2e9 * (1 + 0.3 * number) * (_BITS[kind] / 16) * (0.8 if "sliced" in name else 1))
    return VariantInput(
        name=name,
        base=f"model{number}",
        baseline=None if kind == 0 else "dense",
        recipe=name,
        sparsity_linears=zeros,
        sparsity_model=zeros * 0.9,
        weight_bits=_BITS[kind],
        bytes=size,
        parameters=int(1e9 * (1 + 0.3 * number)),
        weights_sha256=model.encode().hex().ljust(64, "0"),
    )


def _rows(name: str, suite: str, meta: SuiteMeta, scores: list[float]) -> Iterator[SampleRow]:
    for i, score in enumerate(scores):
        fields: Mapping[str, object] = {
            "variant": name,
            "engine": "torch/float32",
            "suite": suite,
            "suite_hash": meta.suite_hash,
            "preset": meta.preset,
            "seed": 0,
            "item_id": f"{suite}/{i:05}",
            "item_hash": f"{suite}-{meta.preset}-{i}",
            "template": f"t{i % _CLUSTERS}",
            "difficulty": None,
            "unseen": False,
            "cluster": f"t{i % _CLUSTERS}",
            "prompt_hash": f"prompt-{i}",
            "outputs": [f"answer {i}"],
            "n_in": [20],
            "n_out": [5],
            "finish": ["stop"],
            "status": "ok",
            "error": None,
            "scores": {meta.metric: score, "extracted": 1.0},
        }
        yield SampleRow.model_validate(fields)


def _speed(variants: list[VariantInput], number: int) -> Iterator[SpeedRow]:
    for kind, variant in enumerate(variants):
        ratio = round(_SPEED[kind] * (1 + 0.05 * number), 3) if kind else 1.0
        yield SpeedRow(
            panel="decode-c128-b1",
            workload="decode",
            engine="sparse",
            variant=variant.name,
            dtype="float32",
            threads=1,
            batch=1,
            context=128,
            tokens_per_s=30.0 * ratio,
            baseline=SpeedBaseline(variant="dense", engine="sparse", dtype="float32"),
            ratio=ratio,
            ci95=(ratio - 0.03, ratio + 0.03) if kind else None,
            noise_floor=0.015,
            n=40,
            reason=None if kind else "the baseline itself: 1 by definition",
            verdict="faster" if kind else "baseline",
        )


def _lm_eval(folder: Path, number: int, shape: Shape) -> Path:
    """A results file as lm-eval 0.4.13 writes it, and, for even numbers, its samples."""
    model = f"their-org/model-{number}"
    scores = answers(shape, "gsm8k", model, 0.7 - 0.03 * number)
    n = len(scores)
    mean = sum(scores) / n
    stderr = float(np.std(scores, ddof=1) / np.sqrt(n))
    task, stamp = "gsm8k", f"2026-01-0{number % 9 + 1}T00-00-00.000000"
    results = {"name": task, "alias": task, "sample_len": n}
    results |= {"exact_match,flexible-extract": mean, "exact_match_stderr,flexible-extract": stderr}
    data = {
        "results": {task: results},
        "group_subtasks": {task: []},
        "configs": {task: {"task": task, "num_fewshot": 5, "metadata": {"version": 3.0, "pretrained": model}}},
        "versions": {task: 3.0},
        "n-shot": {task: 5},
        "higher_is_better": {task: {"exact_match": True}},
        "n-samples": {task: {"original": n, "effective": n}},
        "config": {"model": "hf", "model_args": {"pretrained": model, "dtype": "bfloat16"}, "limit": None},
        "lm_eval_version": "0.4.13",
        "model_name": model,
        "chat_template": None,
    }
    write_text_atomic(folder / f"results_{stamp}.json", json.dumps(data, indent=2))
    if number % 2 == 0:
        lines = [
            {"doc_id": i, "doc_hash": f"doc-{i}", "filter": "flexible-extract", "exact_match": score}
            for i, score in enumerate(scores)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_text_atomic(folder / f"samples_{task}_{stamp}.jsonl", text)
    return folder
