"""The benchmark's results for people: Markdown, bad news included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.bench.evaluation.arms import OURS, STEPS, STOCK
from harness.bench.evaluation.ledger import Ledger
from harness.bench.evaluation.numbers import agreement, pieces_of, speedup, split
from harness.bench.evaluation.settings import NEW_TOKENS, POCKET, Settings
from harness.bench.sparsify.claims import Claim
from harness.bench.sparsify.render import table

_VERDICT = {True: "yes", False: "**no**", None: "open"}


def markdown(
    results: Mapping[str, Any], ledgers: Mapping[str, Ledger], claims: Sequence[Claim], settings: Settings
) -> str:
    """The whole document."""
    parts = [
        "# Speed of evaluation, measured",
        f"The first {settings.items} items of GSM8K's test set with five worked examples, answered by stock lm-eval "
        "(its `hf` model) and by engine `torch`: same task file, same chat template, same model, float32, "
        f"{settings.batch} prompts per batch, {settings.threads} thread(s).",
        f"Command: `{results['command']}`",
        *(f"Machine: {_place(place)}." for place in results["places"]),
        "## Claims\n\n"
        + table(("claim", "holds", "numbers"), [(c.text, _VERDICT[c.holds], c.numbers) for c in claims]),
    ]
    for name, ledger in ledgers.items():
        parts += _model(name, ledger, settings)
    return "\n\n".join([*parts, _reading(settings)]) + "\n"


def _place(place: Mapping[str, Any]) -> str:
    machine = place["machine"]
    shown = [f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"]
    return ", ".join([*shown, *(f"{name} {version}" for name, version in place["versions"].items())])


def _model(name: str, ledger: Ledger, settings: Settings) -> list[str]:
    total = speedup(ledger, STOCK, OURS, pieces_of(ledger, settings, (STOCK, OURS)))
    if total is None:
        return []
    limit = "at most" if name == POCKET else "exactly"
    return [
        f"## {name}",
        f"{total.items} answers of {limit} {NEW_TOKENS[name]} tokens: {total.slow_s:.1f} s with stock lm-eval, "
        f"{total.fast_s:.1f} s with ours: **{total.wall:.2f} times as fast** ({total.low:.2f} to {total.high:.2f} by "
        f"piece; processor seconds {total.cpu:.2f}).",
        _steps(ledger, settings),
        _tokens(ledger, settings),
    ]


def _steps(ledger: Ledger, settings: Settings) -> str:
    steps = split(ledger, settings)
    if not steps:
        return "What each part gives was not measured."
    rows = [
        (arm.name, arm.adds, f"{total.fast_s:.1f}", f"{total.wall:.2f}", f"{step:.2f}", f"{total.cpu:.2f}")
        for arm, total, step in steps
    ]
    whole = steps[0][1]
    stock = (STOCK.name, STOCK.adds, f"{whole.slow_s:.1f}", "1.00", "", "1.00")
    head = ("arm", "what it adds", "seconds", "times as fast as stock", "as the line above", "in processor seconds")
    return f"What each part gives, on {whole.items} of the items:\n\n" + table(head, [stock, *rows])


def _tokens(ledger: Ledger, settings: Settings) -> str:
    rows = []
    for arm in STEPS:
        found = agreement(ledger, settings, arm)
        if found is not None:
            margins = f"{max(found.margins):.2g}" if found.margins else "—"
            best = "—" if not found.margins else "yes" if found.two_best else "**no**"
            alike = f"{found.identical} of {found.rows}"
            rows.append((arm.name, alike, f"{found.share:.1%}", f"{found.texts} of {found.rows}", margins, best))
    head = ("arm", "rows with stock's tokens", "share", "texts", "largest margin at a parting", "the two likeliest")
    return "Tokens:\n\n" + table(head, rows)


def _reading(settings: Settings) -> str:
    return (
        "## How to read this\n\n"
        f"- The items are cut into pieces of {settings.piece} in their order; in one run the arms take turns on each "
        "piece, every piece beginning with another arm. A ratio is of total wall seconds over the same pieces.\n"
        "- Seconds are those inside generation: tokenizing, computing, decoding text; for ours also its journal, on "
        "disk after every batch. Loading the model, rendering prompts and scoring are outside for both. Before the "
        "clock every arm answers one item.\n"
        "- The few-shot prefix is computed inside the clock, and so is what finds out how a model can share it.\n"
        "- Both programs hold their own copy of the model in one process and use the same number of threads.\n"
        "- `random-100m` has random weights and no skill; its end tokens are never the likeliest, so that all answers "
        "have the same length and dropping rows gains nothing there.\n"
        "- margin: by how much the logit of the likeliest token was above that of the second, in a forward of stock's "
        "model over that row alone (float32, no padding, no cache), at the first token that differs."
    )
