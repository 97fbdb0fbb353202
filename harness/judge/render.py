"""A judged set of answers as text: the numbers, what had no verdict, and the fall-backs."""

from __future__ import annotations

from harness.judge.records import JudgedScore, JudgeSummary, ModelResult
from harness.schema.summary import DifferenceResult, GroupValue

_OWN = ("judged", "same_output")


def as_text(summary: JudgeSummary) -> str:
    """Tables in Markdown: one of models, one of groups, one of differences; then events."""
    percent = summary.mode == "pairwise"
    lines = [_title(summary), "", *_models(summary, percent), "", *_groups(summary, percent)]
    if summary.comparisons:
        lines += ["", "| model - baseline | difference, all planned | items that differ |", "|---|---:|---:|"]
        for one in summary.comparisons:
            shown = _told(one.difference, percent)
            lines.append(f"| {_cell(one.model)} - {_cell(one.baseline)} | {shown} | {one.difference.n_discordant} |")
    lines += [""] + [f"note: {event.kind}, {event.where}: {event.detail}" for event in summary.events]
    return "\n".join(lines).rstrip() + "\n"


def _title(summary: JudgeSummary) -> str:
    name = {"mt-bench": "MT-Bench", "alpaca-eval": "AlpacaEval"}[summary.benchmark]
    unit = "win rates in %" if summary.mode == "pairwise" else "ratings from 1 to 10"
    prompt = f", prompt {summary.prompt}" if summary.prompt else ""
    return (
        f"{name}, {summary.mode}, judge {summary.judge.name}{prompt}; {unit}, 95 % intervals. "
        "`all`: what has no verdict counts as the worst; `judged`: left out, as published"
    )


def _models(summary: JudgeSummary, percent: bool) -> list[str]:
    controlled = summary.benchmark == "alpaca-eval"
    head = "| model | all | judged | no verdict |" + (" length-controlled |" if controlled else "")
    lines = [head, "|---|---:|---:|---:|" + ("---:|" if controlled else "")]
    for model in summary.models:
        against = f" vs {_cell(model.opponent)}" if model.opponent else ""
        line = f"| {_cell(model.model)}{against} |{_scores(model.overall, percent)}"
        lines.append(line + (f" {_length(model)} |" if controlled else ""))
    return lines


def _groups(summary: JudgeSummary, percent: bool) -> list[str]:
    rows = []
    for model in summary.models:
        groups = {f"turn {turn}": score for turn, score in model.by_turn.items()} | dict(model.by_category)
        rows += [f"| {_cell(model.model)} | {_cell(name)} |{_scores(score, percent)}" for name, score in groups.items()]
    return ["| model | group | all | judged | no verdict |", "|---|---|---:|---:|---:|", *rows] if rows else []


def _scores(score: JudgedScore, percent: bool) -> str:
    lost = {name: n for name, n in score.statuses.items() if name not in _OWN}
    why = ", ".join(f"{n} {name}" for name, n in lost.items())
    failed = f"{sum(lost.values())} of {score.n_planned}" + (f" ({why})" if why else "")
    return f" {_told(score.all, percent)} | {_told(score.judged, percent)} | {failed} |"


def _length(model: ModelResult) -> str:
    found = model.length_controlled
    if found is None or found.win_rate.value is None:
        return "-" if found is None else f"- ({found.win_rate.reason})"
    return f"{_told(found.win_rate, True)} ({found.model})"


def _told(value: GroupValue | DifferenceResult, percent: bool) -> str:
    if value.value is None:
        return "-"
    times = 100 if percent else 1
    interval = f" [{value.ci95[0] * times:.2f}, {value.ci95[1] * times:.2f}]" if value.ci95 else ""
    return f"{value.value * times:.2f}{interval}"


def _cell(text: str | None) -> str:
    # A name comes from a file: it must not make columns or lines of its own, nor steer a terminal.
    plain = " ".join((text or "").replace("|", "\\|").split())
    return "".join(letter if letter.isprintable() else "?" for letter in plain)
