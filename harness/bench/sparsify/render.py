"""The benchmark's results for people: Markdown, one table per model, bad news included."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.bench.sparsify.arms import all_arms
from harness.bench.sparsify.claims import Claim

_MEGA = 1e6


def markdown(results: Mapping[str, Any]) -> str:
    """The whole document."""
    parts = [
        "# Sparsification, measured",
        "One-shot pruning and quantization by sparsebench next to llm-compressor (`lc:`), on the same calibration "
        "tokens, one thread, one machine; the arms under `Times` in turn in one run.",
        f"Command: `{results['command']}`",
        _machine(results),
        *(_model(model) for model in results["models"]),
        _reading(),
    ]
    return "\n\n".join(parts) + "\n"


def _machine(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    shown = [f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"]
    for side, versions in results["versions"].items():
        if versions:
            shown.append(f"{side}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return "Machine: " + "; ".join(shown) + "."


def _model(model: Mapping[str, Any]) -> str:
    settings, dense = model["settings"], model["dense"]
    texts = list(dense["perplexity"])
    facts = [
        f"{dense['parameters_of_linears']:,} weights in the linears of the blocks; weights {model['sha256'][:16]}.",
        f"Calibration: {settings['samples']} windows of {settings['seq']} tokens ({dense['calibration']}).",
        f"Evaluation: first {settings['eval_tokens']:,} tokens at most, context {settings['context']}, windows side by "
        "side, the first token of each not scored, float32.",
        "Dense perplexity: " + ", ".join(f"{text} {dense['perplexity'][text]:.3f}" for text in texts) + ".",
    ]
    if model.get("training"):
        training = model["training"]
        facts.append(
            f"Trained by `python -m harness.bench.sparsify.text_model` on {training['tokens']:,} tokens; "
            f"{training['parameters']:,} parameters; mean loss of the last 50 steps {training['last_loss']:.3f}."
        )
    parts = [f"## {model['name']}", " ".join(facts), _claims(model["claims"]), _arms(model, texts), _times(model)]
    return "\n\n".join(part for part in parts if part)


def _claims(claims: Sequence[Claim]) -> str:
    verdict = {True: "yes", False: "**no**", None: "not measured"}
    rows = [(claim.text, verdict[claim.holds], claim.numbers) for claim in claims]
    return "### Claims\n\n" + table(("claim", "holds", "numbers"), rows)


def _arms(model: Mapping[str, Any], texts: Sequence[str]) -> str:
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for line in model["arms"]:
        by_arm.setdefault(line["arm"], []).append(line)
    order = [arm.name for arm in all_arms()]
    params = model["dense"]["parameters_of_linears"] / _MEGA
    rows = []
    for name in sorted(by_arm, key=lambda arm: order.index(arm) if arm in order else len(order)):
        lines = by_arm[name]
        good = [line for line in lines if "error" not in line]
        if not good:
            rows.append((name, str(len(lines)), *["failed"] * len(texts), *["—"] * 6, lines[-1]["error"]))
            continue
        zeros = [line["zeros"] for line in good]
        rows.append(
            (
                name,
                str(len(good)),
                *(spread([line["perplexity"][text] for line in good]) for text in texts),
                f"{statistics.fmean(line['linear_error'] for line in good):.4f}",
                f"{statistics.fmean(zero['share'] for zero in zeros):.6f}",
                _lost(zeros, "revived"),
                _lost(zeros, "broken"),
                f"{statistics.median(line['cpu_seconds'] for line in good) / params:.2f}",
                f"{max(line['peak_rss'] - line['import_rss'] for line in good) / _MEGA:.0f}",
                _events(good),
            )
        )
    head = ("arm", "seeds", *(f"perplexity {text}" for text in texts), "linear error", "zeros", "revived", "broken")
    return "### Arms\n\n" + table((*head, "s/M", "MB", "notes"), rows)


def _events(lines: Sequence[Mapping[str, Any]]) -> str:
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.get("events", {}))
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))


def _lost(zeros: Sequence[Mapping[str, Any]], what: str) -> str:
    known = [zero[what] for zero in zeros if zero[what] is not None]
    return f"{max(known):,}" if known else "—"


def _times(model: Mapping[str, Any]) -> str:
    if not model["times"]:
        return ""
    rows = []
    for name, lines in model["times"].items():
        good = [line for line in lines if "error" not in line]
        if good:
            walls = [line["seconds"] for line in good]
            cpu = statistics.median(line["cpu_seconds"] for line in good)
            told = f"{min(walls):.2f} to {max(walls):.2f}"
            rows.append((name, f"{statistics.median(walls):.2f}", told, f"{cpu:.2f}", str(len(good))))
    return "### Times, in turn\n\n" + table(("arm", "median s", "range", "median processor s", "rounds"), rows)


def _reading() -> str:
    return (
        "## How to read this\n\n"
        "- Perplexity: mean over the calibration seeds, with the smallest and largest where there are several.\n"
        "- linear error: relative squared output error ‖(W − W')X‖²/‖WX‖², mean over linears, on the dense model's "
        "inputs from windows that no method was calibrated on.\n"
        "- zeros: share of exact zeros in the weights that are computed with; revived: pruned weights that are not "
        "zero; broken: groups that break N:M (the most over the seeds).\n"
        "- s/M: processor seconds (one thread) per million weights of the linears. The clock of ours runs over the "
        "whole of `make_variant` (loading, tokenising, calibrating, solving, verifying, writing); llm-compressor's "
        "over `oneshot` alone, with the model loaded and the data set built before it and saving after it. Imports are "
        "outside for both. Both get the same windows in batches of the same size.\n"
        "- MB: peak resident memory above what the process held after its imports; a process makes one arm after "
        "another, so what the allocator kept from earlier arms counts.\n"
        "- Each variant is made by a process that is never told where evaluation text is, then hashed, then measured."
    )


def spread(values: Sequence[float]) -> str:
    """A mean, and the range where there are several."""
    mean = statistics.fmean(values)
    return f"{mean:.3f}" if len(values) < 2 else f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
