"""The leaderboard: one row a variant, skill beside size and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.records import SpeedRow, Summary, VariantSummary
from harness.report.markdown import Notes, escape, escape_text, megabytes, percent, problems_of, score_cell, table
from harness.report.methods import explain

_WORKLOADS = ("decode", "prefill")
_VERDICTS = {
    "no difference": "no difference from the baseline that exceeds the panel's noise floor",
    "unconfirmed": "a second run with new processes did not confirm the difference",
    "not decided": "the machine was too noisy to decide",
}


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The leaderboard as text cells, not yet escaped for any medium.

    Attributes:
        header: column titles.
        rows: cells; scores read `value ± half-width`.
        notes: texts of the marks `(1)`, `(2)`, ... in the cells.
        remarks: what the columns mean, and n and interval of each suite.
    """

    header: list[str]
    rows: list[list[str]]
    notes: Notes
    remarks: list[str]


def order(variants: Sequence[VariantSummary]) -> list[VariantSummary]:
    """Sort: references first, then by mean recovery, best first; means over fewer suites, then undefined ones, last."""

    def rank(variant: VariantSummary) -> tuple[int, int, float, str]:
        mean = variant.recovery["mean"]
        if variant.baseline is None:
            return 0, 0, 0.0, variant.name
        if mean.value is None:
            return 2, 0, 0.0, variant.name
        return 1, -len(mean.suites or []), -mean.value, variant.name

    return sorted(variants, key=rank)


def _sparsity(variant: VariantSummary, notes: Notes) -> str:
    sparsity = variant.sparsity
    return notes.missing(sparsity.reason) if sparsity.linears is None else percent(sparsity.linears)


def _score(variant: VariantSummary, suite: str, notes: Notes) -> str:
    result = variant.suites[suite]
    cell = score_cell(result, notes)
    # Cut answers are common and scored as they are; unanswered items counted as 0 are not, and change the score.
    unanswered = result.value is not None and (result.n_error or result.n_refused or result.n_truncated_input)
    return f"{cell} {notes.mark(f'{suite}: {problems_of(result)}')}" if unanswered else cell


def _ratio(row: SpeedRow, notes: Notes) -> str:
    if row.ratio is None:
        return notes.missing(row.reason)
    half = "" if row.ci95 is None else f" ± {(row.ci95[1] - row.ci95[0]) / 2:.2f}"
    said = _VERDICTS.get(row.verdict or "")
    return f"{row.ratio:.2f}×{half}" + (f" {notes.mark(said)}" if said else "")


def _speed_columns(speed: Sequence[SpeedRow]) -> list[tuple[str, str, str]]:
    """Title, workload and engine of every speed column; the engine is named where a workload ran on several."""
    columns = []
    for workload in _WORKLOADS if speed else ():
        engines = list(dict.fromkeys(row.engine for row in speed if row.workload == workload)) or [""]
        columns += [(f"{workload} {engine}" if len(engines) > 1 else workload, workload, engine) for engine in engines]
    return columns


def _speed(variant: VariantSummary, workload: str, engine: str, speed: Sequence[SpeedRow], notes: Notes) -> str:
    rows = [row for row in speed if row.variant == variant.name and row.workload == workload and row.engine == engine]
    if not rows:
        return notes.missing(f"{workload} was not measured for it in this study")
    # The label tells rows apart; where the whole study has one of each, it would only be noise.
    label_panel = len({row.panel for row in speed if row.workload == workload}) > 1
    cells = []
    for row in rows:
        label = row.panel * label_panel
        cells.append(f"{label} {_ratio(row, notes)}".strip())
    return ", ".join(cells)


def build(summary: Summary) -> Leaderboard:
    """Lay out the leaderboard of a summary."""
    notes, suites = Notes(), summary.study.suites
    columns = _speed_columns(summary.speed)
    header = ["variant", "baseline", "sparse %", "bits", "MB", *suites, "mean recovery %"]
    header += [title for title, _, _ in columns]
    rows = []
    for variant in order(summary.variants):
        is_reference = variant.baseline is None
        rows.append(
            [
                variant.name,
                variant.baseline or "reference",
                _sparsity(variant, notes),
                str(variant.weight_bits) if variant.weight_bits is not None else notes.missing(variant.reason),
                megabytes(variant.bytes, notes, variant.reason),
                *(_score(variant, suite, notes) for suite in suites),
                "" if is_reference else score_cell(variant.recovery["mean"], notes),
                *(_speed(variant, workload, engine, summary.speed, notes) for _, workload, engine in columns),
            ]
        )
    return Leaderboard(header, rows, notes, _remarks(summary))


def _remarks(summary: Summary) -> list[str]:
    remarks = [
        "Scores in %, ± half the width of the 95 % interval. Recovery is variant score / baseline score on the same "
        "items; its mean is the plain mean over the suites. A reference is compared with nothing.",
        "sparse %: zero weights among the block linears. bits: of a stored linear weight. "
        "MB: 10^6 bytes of safetensors.",
    ]
    methods: set[str] = set()
    parts = []
    for suite in summary.study.suites:
        results = [variant.suites[suite] for variant in summary.variants if suite in variant.suites]
        if not results:
            continue
        counts = sorted({result.n for result in results if result.value is not None})
        shown = "none" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        parts.append(f"{suite} {results[0].metric} ({results[0].preset}, n = {shown})")
        methods |= {result.method for result in results}
    methods |= {variant.recovery["mean"].method for variant in summary.variants}
    if parts:
        remarks.append("Metrics: " + "; ".join(parts) + ".")
    remarks += [f"Interval {line}." for line in explain(methods)]
    compared = [row for row in summary.speed if row.workload in _WORKLOADS]
    for row in compared:
        base = row.baseline
        floor = "not measured" if row.noise_floor is None else f"± {percent(row.noise_floor)} %"
        remark = (
            f"Speed, panel {row.panel} ({row.workload}, context {row.context}, batch {row.batch}, "
            f"threads {row.threads if row.threads is not None else 'default'}): × {base.variant} on {base.engine} in "
            f"{base.dtype}; noise floor {floor}."
        )
        if remark not in remarks:
            remarks.append(remark)
    return remarks


def leaderboard_markdown(summary: Summary) -> str:
    """Return `leaderboard.md`."""
    board = build(summary)
    lines = [f"# Leaderboard: {escape(summary.study.name)}", ""]
    rows = [[escape(cell) for cell in row] for row in board.rows]
    lines += table([escape(cell) for cell in board.header], rows, left=2)
    if board.notes.texts:
        lines += ["", "No value, or a value with a remark:", "", *board.notes.lines()]
    lines += ["", "How to read it:", "", *(f"- {escape_text(remark)}" for remark in board.remarks), ""]
    return "\n".join(lines)
