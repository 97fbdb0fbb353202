"""Where a gate's rules and rows come from: the study of a run, and the run's records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.gate_rules import GateRule
from harness.layout import Layout, read_json
from harness.records import SampleRow, Summary, read_samples
from harness.study import load_study, parse_study


def read_rules(directory: Path, study: str | None) -> tuple[GateRule, ...]:
    """The rules of a study file, or of the study that the run keeps beside its results."""
    if study is not None:
        return load_study(study).gates
    layout = Layout(directory)
    if not layout.study.is_file():
        raise ConfigError(f"{directory} holds no study.json; name the study with --study")
    body = read_json(layout.study)["study"]
    for variant in body["variants"].values():
        if variant["path"] is not None:
            variant.pop("recipe")
    return parse_study(body, where=str(layout.study)).gates


def read_rows(directory: Path, summary: Summary) -> dict[tuple[str, str], Sequence[SampleRow]]:
    """The sample rows of a run by (variant, suite), as far as they are there."""
    layout = Layout(directory)
    return {
        (variant.name, suite): read_samples(layout.samples(variant.name, suite))
        for variant in summary.variants
        for suite in summary.study.suites
        if layout.samples(variant.name, suite).is_file()
    }
