"""How a variant was made, as its folder tells: sparsity and error of each linear, and the curves of its training."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.layout import Layout
from harness.records import Summary

_CURVES = re.compile(r"curves-(\d+)-(.+)\.jsonl")
_BLOCK = re.compile(r"\.(\d+)\.")
_ERRORS = {"relative_error": "relative output error", "relative_weight_error": "relative weight error"}


@dataclass(frozen=True, slots=True)
class LinearInfo:
    """One linear: its block, its kind (`self_attn.q_proj`), its share of zeros and what pruning or rounding cost it."""

    block: int
    kind: str
    zeros: float | None
    error: float | None


@dataclass(frozen=True, slots=True)
class Training:
    """The curves of one training stage: steps, and each loss [n] by name (None where a step has none)."""

    name: str
    steps: list[int]
    losses: Mapping[str, list[float | None]]


@dataclass(frozen=True, slots=True)
class Made:
    """What a variant's folder says.

    Attributes:
        linears: in the order of the model.
        error_name: what `LinearInfo.error` is.
        trainings: in the order in which they ran.
        problem: why nothing could be read; None where it could.
    """

    linears: tuple[LinearInfo, ...] = ()
    error_name: str = ""
    trainings: tuple[Training, ...] = ()
    problem: str | None = None
    stages: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)


def read_made(layout: Layout, summary: Summary) -> dict[str, Made]:
    """What the folders of a run's variants say; nothing for one that has no folder."""
    found = {}
    for variant in summary.variants:
        # A name comes from a record: it must not lead out of the run's folder.
        if Path(variant.name).name != variant.name or variant.name in (".", "..") or "\0" in variant.name:
            continue
        try:
            folder = layout.variant(variant.name)
            if (folder / "variant.json").is_file():
                found[variant.name] = _read(folder)
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            found[variant.name] = Made(problem=(str(error).splitlines() or ["unreadable"])[0])
    return found


def _read(folder: Path) -> Made:
    info = json.loads((folder / "variant.json").read_text(encoding="utf-8"))
    if not isinstance(info, dict):
        raise ValueError("variant.json is not a JSON object")
    stages = [stage for stage in info.get("stages") or [] if isinstance(stage, dict)]
    zeros = (info.get("sparsity") or {}).get("per_linear") or {}
    errors, name = _errors(stages)
    linears = tuple(_linear(key, zeros.get(key), errors.get(key)) for key in dict.fromkeys([*zeros, *errors]))
    return Made(linears, name, tuple(_trainings(folder)), stages=tuple(stages))


def _errors(stages: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """Errors of the first stage that has any, which is the one that started from the dense weights, and their name."""
    for stage in stages:
        rows = {key: row for key, row in (stage.get("linears") or {}).items() if isinstance(row, dict)}
        for field_name, name in _ERRORS.items():
            found = {key: row[field_name] for key, row in rows.items() if row.get(field_name) is not None}
            if found:
                return found, f"{name} ({stage.get('kind', 'stage')})"
    return {}, ""


def _linear(name: str, zeros: Any, error: Any) -> LinearInfo:
    number = _BLOCK.search(name)
    block, kind = (int(number[1]), name[number.end() :]) if number else (0, name)
    # Experts of one matrix are one kind.
    return LinearInfo(block, re.sub(r"experts\.\d+\.", "experts.", kind), _number(zeros), _number(error))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _trainings(folder: Path) -> list[Training]:
    found = []
    for path in folder.glob("curves-*.jsonl"):
        match = _CURVES.fullmatch(path.name)
        if match:
            found.append((int(match[1]), _training(f"stage {match[1]}, {match[2]}", path)))
    return [training for _, training in sorted(found, key=lambda pair: pair[0])]


def _training(name: str, path: Path) -> Training:
    from sparsify.train.curves import read_curves

    lines = [line for line in read_curves(path) if isinstance(line, dict) and isinstance(line.get("step"), int)]
    losses = {key: None for line in lines for key in (line.get("losses") or {})}
    values = {key: [_number((line.get("losses") or {}).get(key)) for line in lines] for key in losses}
    dev = [_number(line.get("dev")) for line in lines]
    if any(value is not None for value in dev):
        values["dev"] = dev
    return Training(name, [line["step"] for line in lines], values)
