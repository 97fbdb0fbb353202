"""The slicing benchmark's results for people: Markdown, bad news included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.bench.skills import mean_score
from harness.bench.slicing.arms import Arm, all_arms, baseline_of
from harness.bench.slicing.record import Kept, Record
from harness.bench.slicing.speed import BASELINE, FRACTION, SHAPE
from harness.bench.sparsify.claims import Claim
from harness.bench.sparsify.render import table
from harness.perplexity import exp_mean
from harness.report.methods import explain
from harness.stats import Estimate

_VERDICT = {True: "yes", False: "**no**", None: "open"}


def markdown(
    results: Mapping[str, Any],
    record: Record,
    claims: Sequence[Claim],
    *,
    models: Sequence[str],
    plots: Mapping[str, str],
    speed: Sequence[Mapping[str, Any]],
) -> str:
    """The whole document."""
    s = record.settings
    parts = [
        "# Slicing, measured",
        "Rows and columns deleted (SliceGPT, arXiv 2401.15024): what that costs in perplexity and skill, what training "
        "recovers, and what it gains in bytes and time.",
        f"Command: `{results['command']}`",
        _machines(results, record),
        f"Calibration: {s.samples} rows of at most {s.seq} tokens. Perplexity over windows of {s.context} tokens. "
        f"{s.items:,} test items a skill. Recovery: {s.tokens:,} tokens, peak learning rate {s.lr:g} (adapters "
        f"{s.lora_lr:g}), in {s.precision}. The first was chosen among three on training text of pocket that was held "
        "out (sliced by 25 %, 200,000 tokens); the second was not tuned.",
        "## Claims\n\n"
        + table(("claim", "holds", "numbers"), [(c.text, _VERDICT[c.holds], c.numbers) for c in claims]),
    ]
    for model in models:
        parts += _model(record, model, plots.get(model, ""))
    parts += [_speed(speed), _failed(record), _reading(record)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machines(results: Mapping[str, Any], record: Record) -> str:
    machines = [line["machine"] for line in record.arms.values()] or [results["machine"]]
    shown = sorted({f"{it['cpu']}, {it['cores']} cores, {it['system']}, Python {it['python']}" for it in machines})
    return f"Machine: {'; '.join(shown)}."


def _model(record: Record, model: str, plot: str) -> list[str]:
    arms = [arm for arm in all_arms([model]) if arm.name in record.arms]
    if not arms:
        return []
    dense = record.arms.get(Arm(model).name)
    rows = []
    for arm in arms:
        line = record.arms[arm.name]
        rows.append(
            (
                arm.name.partition("/")[2],
                *_perplexity(record, arm),
                f"{line['parameters']:,}",
                _change(line, dense, "parameters"),
                _change(line, dense, "macs_per_token"),
                f"{line['bytes'] / 1e6:.2f}",
                f"{line['make_seconds']:.0f}",
            )
        )
    text = next(iter(record.arms[arms[0].name]["nats_per_token"]))
    head = (
        "variant",
        f"perplexity, {text}",
        "times dense",
        "parameters",
        "against dense",
        "MACs a token",
        "MB",
        "seconds to make",
    )
    parts = [f"## {model}"]
    if plot:
        parts.append(f"![perplexity of {model} against the fraction that is cut off]({plot})")
    parts.append(table(head, rows))
    parts.append(_skills(record, arms))
    return parts


def _perplexity(record: Record, arm: Arm) -> tuple[str, str]:
    losses = record.losses(arm)
    assert losses is not None
    against = record.ratio(arm, Arm(arm.model)) if arm != Arm(arm.model) else None
    return _told(*exp_mean(losses)), "" if against is None else _told(*against)


def _told(value: float, limits: Sequence[float] | None) -> str:
    return f"{value:.4g}" + (f" [{limits[0]:.4g}, {limits[1]:.4g}]" if limits else "")


def _skills(record: Record, arms: Sequence[Arm]) -> str:
    skilled = [arm for arm in arms if record.arms[arm.name]["scores"]]
    if not skilled:
        return ""
    suites = tuple(record.arms[skilled[0].name]["scores"])
    rows = []
    for arm in skilled:
        kept = record.kept(arm, baseline_of(arm)) if arm.fraction else None
        line = record.arms[arm.name]
        cells = [_cell(line, suite, kept) for suite in suites]
        rows.append((arm.name.partition("/")[2], _mean(record, arm, kept), *cells))
    head = ("variant", "mean score and recovery", *suites)
    return "Skills, and what is kept of the dense model with the same fine-tuning:\n\n" + table(head, rows)


def _mean(record: Record, arm: Arm, kept: Kept | None) -> str:
    score = record.score(arm)
    assert score is not None
    if kept is None:
        return f"{100 * score:.1f}"
    gained, lost = kept.flips
    return f"{100 * score:.1f}, keeps {_interval(kept.mean)}, +{gained} −{lost} (n {kept.mean.n})"


def _cell(line: Mapping[str, Any], suite: str, kept: Kept | None) -> str:
    values = line["scores"][suite]["values"]
    score = f"{100 * mean_score(values):.1f}"
    if kept is None:
        return f"{score} (n {len(values)})"
    paired = kept.suites[suite]
    return f"{score}, keeps {_interval(paired.estimate)}, +{paired.b01} −{paired.b10}"


def _interval(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"— ({estimate.reason})"
    limits = "" if estimate.ci95 is None else f" [{100 * estimate.ci95[0]:.1f}, {100 * estimate.ci95[1]:.1f}]"
    return f"{100 * estimate.value:.1f} %{limits}"


def _change(line: Mapping[str, Any], dense: Mapping[str, Any] | None, what: str) -> str:
    return "—" if dense is None else f"{100 * (line[what] / dense[what] - 1):+.1f} %"


def _speed(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    dense = next(row for row in rows if row["variant"] == BASELINE)
    lines = []
    for row in rows:
        ratio = "—" if row["ratio"] is None else f"{row['ratio']:.2f}"
        if row["ci95"]:
            ratio += f" [{row['ci95'][0]:.2f}, {row['ci95'][1]:.2f}]"
        lines.append(
            (
                row["workload"],
                row["engine"],
                row["variant"],
                f"{row['parameters'] / 1e6:.1f}",
                f"{100 * (row['macs_per_token'] / dense['macs_per_token'] - 1):+.1f} %",
                f"{(row['bytes'] or 0) / 1e6:.0f}",
                "—" if row["tokens_per_s"] is None else f"{row['tokens_per_s']:.1f}",
                ratio,
                str(row["verdict"]) if row["ratio"] is not None else str(row["reason"]),
            )
        )
    shape = f"{SHAPE['num_hidden_layers']} blocks of width {SHAPE['hidden_size']}, MLP {SHAPE['intermediate_size']}"
    head = (
        *("workload", "engine", "variant", "million parameters", "MACs a token", "MB", "tokens/s"),
        "speed against dense on torch",
        "verdict",
    )
    return (
        f"## Speed\n\nRandom weights (no skill), {shape}, bfloat16, one thread; sliced by {FRACTION:.0%}, next to 2:4. "
        "All variants of a workload are measured in turn in one run.\n\n" + table(head, lines)
    )


def _failed(record: Record) -> str:
    if not record.failed:
        return ""
    return "## Failed\n\n" + table(("variant", "error"), [(line["arm"], line["error"]) for line in record.failed])


def _reading(record: Record) -> str:
    methods = {"mover-mean"}
    for arm in all_arms(["pocket"]):
        kept = record.kept(arm, baseline_of(arm)) if arm.fraction else None
        methods |= {paired.estimate.method for paired in kept.suites.values()} if kept else set()
    notes = [
        "sliceN: N % of the residual stream's width is cut off, uniformly, on components of norm outputs, calibrated "
        "on text like the evaluation's. `mass`: widths by energy. `other`: calibrated on other text. `stream`: "
        "components of the stream itself, as the authors' code has it. `random`: kept axes turned at random. `head`: "
        "the stream in front of the head is cut too. `shared`: one basis for all blocks, a stock model.",
        "+ce, +ce+kl, +ce+squarehead, +kl+squarehead: fine-tuned with these losses, the dense model being the teacher; "
        "SquareHead compares hidden states in the bases of the slicing. +lora: low-rank "
        "adapters with cross-entropy, merged. +int8: linears in INT8, shortcuts too. +50%: pruned by SparseGPT, "
        "shortcuts left alone.",
        "One seed. Intervals are 95 %: of perplexity over windows of text, taken as independent (paired by window "
        "against dense); of skills over items, those of one template as one cluster.",
        "MACs a token: multiplications with matrices, head included, attention's own left out.",
    ]
    return "## How to read this\n\n" + "\n".join(f"- {note}" for note in (*notes, *explain(methods)))
