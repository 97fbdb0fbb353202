"""A study's speed panels as the bench knows them, and the bench's rows as records know them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.bench.spec import PanelRow, PanelSpec
from harness.layout import Layout
from harness.records import SpeedBaseline, SpeedRow
from harness.study import Study


def panel_plan(study: Study, layout: Layout, device: str) -> list[tuple[PanelSpec, Mapping[str, Path]]]:
    """Each panel of the study with the directories of its variants, the baseline first."""
    panels: list[tuple[PanelSpec, Mapping[str, Path]]] = []
    for index, spec in enumerate(study.speed):
        baseline = spec.baseline or study.reference
        names = tuple(study.variants) if spec.variants == "all" else spec.variants
        ordered = dict.fromkeys((baseline, *names))
        panels.append(
            (
                PanelSpec(
                    panel=f"{index}-{spec.workload}-c{spec.context}-b{spec.batch}",
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
                ),
                {name: layout.variant(name) for name in ordered},
            )
        )
    return panels


def speed_row(row: PanelRow) -> SpeedRow:
    """A panel's row as a record; the noise floor is the larger of the twin's offset and its interval's reach."""
    floor = None
    if row.noise_floor:
        reach = [row.noise_floor["ratio"], *(row.noise_floor["ci95"] or [])]
        floor = round(max(abs(value - 1.0) for value in reach), 6)
    rounded = None if row.ci95 is None else (round(row.ci95[0], 6), round(row.ci95[1], 6))
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
        ratio=None if row.ratio is None else round(row.ratio, 6),
        ci95=rounded,
        noise_floor=floor,
        n=row.n_blocks,
        method="ratio of medians, bootstrap over blocks" if row.ci95 else None,
        reason=row.reason,
    )
