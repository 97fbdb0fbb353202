"""A study's speed panels as the bench knows them, and the bench's rows as records know them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.bench.clock import Ratio
from harness.bench.decide import floor_of
from harness.bench.spec import PanelOptions, PanelRow, PanelSpec
from harness.gate_rules import SpeedupRule
from harness.layout import Layout
from harness.records import SpeedBaseline, SpeedConfirmation, SpeedPacking, SpeedRow
from harness.study import SpeedSpec, Study

DIGITS = 6


@dataclass(frozen=True)
class PlannedPanel:
    """A panel of a study: what to measure, where its variants lie (the baseline first), and what is asked of them."""

    spec: PanelSpec
    paths: Mapping[str, Path]
    options: PanelOptions


def panel_plan(study: Study, layout: Layout, device: str) -> list[PlannedPanel]:
    """The panels of a study, in its order."""
    panels: list[PlannedPanel] = []
    for index, spec in enumerate(study.speed):
        baseline = spec.baseline or study.reference
        names = tuple(study.variants) if spec.variants == "all" else spec.variants
        ordered = dict.fromkeys((baseline, *names))
        panel = PanelSpec(
            panel=panel_name(index, spec),
            workload=spec.workload,
            context=spec.context,
            batch=spec.batch,
            new_tokens=spec.new_tokens,
            threads=spec.threads,
            dtype=spec.dtype,
            baseline=baseline,
            budget_s=spec.budget_s,
            seed=study.seed,
            engine=spec.engine,
            device=device,
            engines=spec.engines,
            batches=spec.batches,
            attempts=spec.attempts,
        )
        options = PanelOptions(at_least=_asked(study, panel, ordered))
        panels.append(PlannedPanel(panel, {name: layout.variant(name) for name in ordered}, options))
    return panels


def panel_name(index: int, spec: SpeedSpec) -> str:
    """A panel's name: its place in the study, and what it measures."""
    sizes = "-".join(str(batch) for batch in spec.batches) if spec.batches else str(spec.batch)
    return f"{index}-{spec.workload}-c{spec.context}" + ("" if spec.workload == "throughput" else f"-b{sizes}")


def _asked(study: Study, panel: PanelSpec, variants: Mapping[str, None]) -> dict[str, float]:
    """The highest ratio that a gate rule asks of each variant in this panel: failing it takes two runs."""
    asked: dict[str, float] = {}
    for rule in study.gates:
        if not isinstance(rule, SpeedupRule) or rule.workload != panel.workload:
            continue
        if rule.panel not in (None, panel.panel):
            continue
        for name in variants if rule.variants == "all" else rule.variants:
            if name in variants and name != panel.baseline:
                asked[name] = max(rule.at_least, asked.get(name, 0.0))
    return asked


def speed_row(row: PanelRow) -> SpeedRow:
    """A panel's row as a record; the noise floor is the larger of the twin's offset and its interval's reach."""
    floor = None
    if row.noise_floor:
        low, high = row.noise_floor["ci95"] or (row.noise_floor["ratio"],) * 2
        floor = _cut(floor_of(Ratio(row.noise_floor["ratio"], (low, high))))
    again = row.confirmation
    return SpeedRow(
        panel=row.panel,
        workload=row.workload,
        engine=row.engine,
        variant=row.variant,
        dtype=row.dtype,
        threads=row.threads,
        batch=row.batch,
        context=row.context,
        tokens_per_s=None if row.tokens_per_s is None else round(row.tokens_per_s, 2),
        baseline=SpeedBaseline(**row.baseline),
        ratio=_cut(row.ratio),
        ci95=_interval(row.ci95),
        noise_floor=floor,
        n=row.n_blocks,
        method="ratio of medians of block-adjusted times, bootstrap over blocks" if row.ci95 else None,
        reason=row.reason,
        verdict=row.verdict,
        p_value=_cut(row.p_value),
        confirmation=None
        if again is None
        else SpeedConfirmation(
            ratio=round(again["ratio"], DIGITS),
            ci95=_interval((again["ci95"][0], again["ci95"][1])),
            noise_floor=round(again["floor"], DIGITS),
            decided=again["decided"],
        ),
        attempts=row.attempts,
        peak_rss=row.peak_rss,
        peak_device=row.peak_device,
        bytes=row.bytes,
        energy_j_per_token=row.energy_j_per_token,
        packing=None if row.packing is None else SpeedPacking(**row.packing),
    )


def _cut(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _interval(ci95: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if ci95 is None else (round(ci95[0], DIGITS), round(ci95[1], DIGITS))
