"""The recovery benchmark's results for people: Markdown, bad news included."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.bench.recover.arms import BASE, COST, FINAL, LONGER, MIX, Arm, all_arms
from harness.bench.recover.cost import DENSE_CE
from harness.bench.recover.numbers import Comparison, Record, skills_of, speed_ratio
from harness.bench.sparsify.claims import Claim
from harness.bench.sparsify.render import table
from harness.report.methods import explain
from harness.stats import Estimate, PairedEstimate

_VERDICT = {True: "yes", False: "**no**", None: "open"}


def markdown(results: Mapping[str, Any], record: Record, claims: Sequence[Claim], *, plot: bool) -> str:
    """The whole document."""
    parts = [
        "# Recovery, measured",
        f"Lineages of {record.settings.model}: pruned, trained with their zeros held, and compared with the dense "
        "lineage that had the same fine-tuning tokens (headline) and with the untouched dense model beside it.",
        f"Command: `{results['command']}`",
        _machine(results, record),
        _budgets(record),
        "## Claims\n\n"
        + table(("claim", "holds", "numbers"), [(c.text, _VERDICT[c.holds], c.numbers) for c in claims]),
        "![mean recovery against sparsity](recovery.svg)" if plot else "",
        _means(record),
        *_skills(record),
        _stricter(record),
        _rates(record),
        _cost(record),
        _failed(record),
        _reading(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(results: Mapping[str, Any], record: Record) -> str:
    lines = list(_lines(record))
    machines = [line["machine"] for line in lines if "machine" in line] or [results["machine"]]
    shown = sorted({f"{it['cpu']}, {it['cores']} cores, {it['system']}, Python {it['python']}" for it in machines})
    engines = sorted({line["engine"] for line in lines})
    return f"Machine: {'; '.join(shown)}. Skills measured with engine {', '.join(engines) or '—'}."


def _budgets(record: Record) -> str:
    s = record.settings
    pretrained = ", ".join(f"{_label(pattern)} {tokens:,}" for pattern, tokens in s.pretrain_tokens.items())
    rates = ", ".join(f"{rate:g}" for rate in s.rates)
    losses = ", ".join(f"{name} {weight:g}" for name, weight in s.pretrain_losses.items() if weight)
    more = "".join(f", {name} % {count:,} more with its mask kept" for name, count in s.pretrain_more.items())
    return (
        f"Budgets: fine-tuning {s.finetune_tokens:,} tokens on the five skills or {s.skill_tokens:,} on one; "
        f"pretraining after each pruning: {pretrained} (70 % follows 50 %, 80 % follows 70 %{more}), losses {losses}, "
        f"with the untouched model as teacher. Matrices are multiplied in {s.precision}. Learning rates tried "
        f"for every arm, dense too: {rates}, {s.trial_tokens:,} tokens each, chosen by a dev split of {s.dev:.0%} of "
        f"the training prompts. {s.items:,} test items a skill."
    )


def _means(record: Record) -> str:
    rows = []
    for arm in _measured(record, MIX):
        line = next(iter(record.arms[arm.name].values()))
        against = record.compare(arm, arm.baseline) if arm.baseline is not None else None
        base = record.compare(arm, Arm(BASE)) if arm.method != BASE else None
        rows.append(
            (
                arm.name,
                str(len(record.arms[arm.name])),
                f"{100 * line['zeros']:.1f} %" if line["zeros"] is not None else "—",
                _share(statistics.fmean(record.mean(arm.name, suite) for suite in arm.suites)),
                _mean(against),
                _over_seeds(against),
                _range(against),
                _mean(base),
                _flips(against),
                str(against.mean.n) if against else "—",
            )
        )
    head = ("arm", "seeds", "zeros", "mean score", "mean recovery", "over seeds alone", "each seed")
    return "## Mean over the five skills\n\n" + table((*head, "against the untouched model", "flips", "n"), rows)


def _skills(record: Record) -> list[str]:
    parts = []
    for skill, title in ((MIX, "Skill by skill"), *((s, f"Fine-tuned on {s} alone") for s in _single(record))):
        arms = _measured(record, skill)
        suites = skills_of(arms)
        rows = []
        for arm in arms:
            against = record.compare(arm, arm.baseline) if arm.baseline is not None else None
            cells = [_cell(record, arm, suite, against) for suite in suites]
            rows.append((arm.name, str(len(record.arms[arm.name])), *cells))
        if rows:
            parts.append(f"## {title}\n\n" + table(("arm", "seeds", *suites), rows))
    return parts


def _cell(record: Record, arm: Arm, suite: str, against: Comparison | None) -> str:
    score = _share(record.mean(arm.name, suite))
    if against is None:
        return f"{score} (n {len(next(iter(record.arms[arm.name].values()))['scores'][suite]['values'])})"
    paired = against.suites[suite]
    return f"{score}, recovery {_interval(paired.estimate)}, {_pairs(paired)} (n {paired.estimate.n})"


def _stricter(record: Record) -> str:
    """The final method next to a dense lineage that had all of its tokens, pretraining too."""
    found = record.compare(Arm(FINAL, "70"), Arm(LONGER))
    if found is None:
        return ""
    return (
        f"## Against a dense lineage with all of its tokens\n\nThe 70 % lineage is pretrained longer than the "
        f"headline's dense lineage. Against `{LONGER}`, which had those {_pretrained(record):,} tokens too, it keeps "
        f"{_mean(found)}, over seeds alone {_over_seeds(found)}, flips {_flips(found)}."
    )


def _pretrained(record: Record) -> int:
    tokens = record.settings.pretrain_tokens
    return tokens["50"] + tokens["70"]


def _rates(record: Record) -> str:
    rows = []
    for arm in all_arms():
        line = record.arms.get(arm.name, {}).get(0)
        chosen = (line or {}).get("chosen")
        if not chosen or arm.rate_of != arm:
            continue
        trials = chosen.get("trials", [])
        tried = "; ".join(
            f"{trial['lr']:g}: {trial['dev']:.4f}" if "dev" in trial else f"{trial['lr']:g}: diverged"
            for trial in trials
        )
        rates = [trial["lr"] for trial in trials]
        edge = "at the edge of the grid" if rates and chosen["lr"] in (min(rates), max(rates)) else ""
        rows.append((arm.name, f"{chosen['lr']:g}", f"{chosen['dev']:.4f}", str(chosen["step"]), tried, edge))
    if not rows:
        return ""
    head = ("arm", "rate", "dev loss", "step", "dev loss of each trial", "note")
    return "## Learning rates, chosen by the dev split\n\n" + table(head, rows)


def _cost(record: Record) -> str:
    line = record.cost
    if line is None:
        return ""
    rows = []
    for row in line["rows"]:
        ratio = speed_ratio(line, row["name"], DENSE_CE)
        assert ratio is not None
        measured, low, high, theory = ratio
        rows.append(
            (
                row["name"],
                f"{statistics.median(row['tokens_per_s']):,.0f}",
                f"{measured:.2f} ({low:.2f} to {high:.2f})",
                f"{row['operations'] / 1e6:.1f}",
                f"{theory:.2f}",
            )
        )
    said = (
        f"Short trainings in turn on one machine, {line['threads']} thread(s), {len(line['rows'][0]['tokens_per_s'])} "
        "counted rounds. **Measured**: real tokens per second. Zeros are held by masks on dense matrices, so sparse "
        "training does not run faster here. **Theory**: float operations of forward and backward if every pruned "
        "weight were skipped in all three products of a linear, head and attention in full, the teacher dense; no such "
        "kernel was used."
    )
    head = (
        "training",
        "tokens/s, median",
        "measured speed against dense CE",
        "Mop a token, theory",
        "theoretical speed",
    )
    return f"## Training cost\n\n{said}\n\n" + table(head, rows)


def _failed(record: Record) -> str:
    if not record.failed:
        return ""
    rows = [(line["arm"], str(line["seed"]), line["error"]) for line in record.failed]
    return "## Failed\n\n" + table(("arm", "seed", "error"), rows)


def _reading(record: Record) -> str:
    methods = {"mover-mean", "t"}
    for arm in _measured(record, None):
        found = record.compare(arm, arm.baseline) if arm.baseline is not None else None
        methods |= {paired.estimate.method for paired in found.suites.values()} if found else set()
    notes = [
        "recovery: mean score of the arm over that of the dense lineage, on the same items. Mean recovery weighs the "
        "five skills equally. Intervals are 95 %, hold for another seed and other items, and take items of one "
        "template as one cluster.",
        "over seeds alone: Student's t on the mean recoveries of single seeds. It leaves the items out, but keeps what "
        "a seed does to all skills at once, which the other interval takes as independent. Claims use the wider limit "
        "of the two on each side.",
        "flips: item and seed pairs that the arm gained and lost against the dense lineage of the same seed; of ROUGE, "
        "pairs that differ.",
        "one-shot prunes the dense lineage after its fine-tuning and is not trained further; ce, ce+kl and "
        "ce+squarehead prune the base model and then fine-tune, the teacher being the dense lineage of the same seed; "
        "pretrain+... pretrains in between. All are pruned by SparseGPT, uniformly.",
        "The first seed tries the learning rates; the other seeds of the arm use the one it chose. Checkpoints are "
        "chosen by the dev split in every run. Test items take part in none of these choices; but pretraining was "
        "changed after three pilots of one seed each, whose test scores were seen (70 % after 3 million tokens of "
        "cross-entropy: 95.6 %; after 5 million of KL: 96.8 %; after 4 million of KL and SquareHead: 97.7 %, and "
        "98.2 % at 50 % after 1 million of them). SquareHead was added because it leaves less loss on training text "
        "that was held out, and the budgets of 50 % and 2:4 were raised after the third. 50 % was first measured after "
        "4 million tokens with all five seeds (98.9 %: 99.1, 98.7, 99.0, 99.2, 98.4), less than was expected, and then "
        "given 3 million more, so that it has had as many as 70 %. All of these lines are in the journal.",
        "A seed draws calibration rows and the order and choice of training rows. All seeds start from one base model.",
    ]
    return "## How to read this\n\n" + "\n".join(f"- {note}" for note in (*notes, *explain(methods)))


def _lines(record: Record) -> Iterable[Mapping[str, Any]]:
    return (line for seeds in record.arms.values() for line in seeds.values())


def _measured(record: Record, skill: str | None) -> list[Arm]:
    arms = [arm for arm in all_arms() if arm.name in record.arms and arm.method != COST]
    return [arm for arm in arms if skill is None or arm.skill == skill]


def _single(record: Record) -> list[str]:
    return list(dict.fromkeys(arm.skill for arm in _measured(record, None) if arm.skill != MIX))


def _label(pattern: str) -> str:
    return pattern if ":" in pattern else f"{pattern} %"


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"— ({estimate.reason})"
    limits = "" if estimate.ci95 is None else f" [{_share(estimate.ci95[0])}, {_share(estimate.ci95[1])}]"
    return f"{_share(estimate.value)}{limits}"


def _mean(found: Comparison | None) -> str:
    return "—" if found is None else _interval(found.mean)


def _over_seeds(found: Comparison | None) -> str:
    if found is None or found.over_seeds is None or found.over_seeds.ci95 is None:
        return "—"
    return f"[{_share(found.over_seeds.ci95[0])}, {_share(found.over_seeds.ci95[1])}]"


def _range(found: Comparison | None) -> str:
    return "—" if found is None else " ".join(_share(value) for value in found.by_seed)


def _flips(found: Comparison | None) -> str:
    if found is None:
        return "—"
    gained, lost = found.flips
    return f"+{gained} −{lost}"


def _pairs(paired: PairedEstimate) -> str:
    return f"+{paired.b01} −{paired.b10}"
