"""The coverage report in Markdown: tables by truth, and every cell that misses the goal by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
LOW, HIGH, RARE, SMALL = 0.93, 0.97, 0.95, 80
_RARE_GROUPS = ("right/wrong, rare flips", "continuous, rare flips")
_LAYOUTS = {"alone": "independent", "small": "documents of 4", "even": "templates of 25"}
_LAYOUTS |= {"uneven": "43 uneven templates"}
_NAMES = {
    "difference": "difference of the means",
    "recovery": "recovery (ratio of the means)",
    "score": "score of the baseline (Wilson)",
    "false passes": "`non_inferior` passes with the truth on the margin (one-sided 5 %)",
    "false alarms": "`loss_p_value` at most 0.05 with no loss on average",
}
_GOAL = [
    "Goal: 93 to 97 % of the 95 % intervals hold the truth at 2 to 25 % flips; with n = 80 and 0 to 2 % flips at least",
    "95 % (wide is right there); under 2 % with more items at least 93 %. Wide: above 97 %. Short: below the goal.",
    "",
    "p is the baseline's score, flips the share of items whose score differs; the numbers of one place are for 50, 80",
    "and 100 % of the flips being losses, as far as possible (continuous scores: 50 and 100 %). Documents have about",
    "4 items (20, 41, 75 and 330 of them for n = 80, 164, 300 and 1319), templates about 25 (3, 7, 12 and 53), or 1 to",
    "22 (43, the sizes of the pocket `chat` suite); within one, the baseline's scores, the losses and the gains each",
    "have the given correlation (ICC). With ICC 0 the labels say nothing: that is what caution costs.",
    "",
    "Wide cells are few flips in few templates (Student's t, and an assumed correlation where flips cannot show one)",
    "and continuous scores with fewer than ten independent flips (flip bound): caution that is meant. Cells that fall",
    "short are listed one by one.",
    "",
]


def verdict(row: Row, name: str, share: float) -> str:
    """Return "ok", "wide" (covers more than the goal asks) or "short".

    With n = 80 and rare flips at least 95 % is asked of what compares two variants, less twice the simulation's own
    error; wide is right there. A single score knows no flips.
    """
    if row["group"] not in _RARE_GROUPS:
        return "short" if share < LOW else "wide" if share > HIGH else "ok"
    least = RARE - 2 * (RARE * (1 - RARE) / row["runs"]) ** 0.5 if row["n"] == SMALL and name != "score" else LOW
    return "ok" if share >= least else "short"


def _where(row: Row) -> str:
    icc = f", ICC {row['icc']:g}" if row["layout"] != "alone" else ""
    return f"{_LAYOUTS[row['layout']]}{icc}"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    rows = [list(header), ["---"] * len(header), *(list(line) for line in lines)]
    return ["| " + " | ".join(row) + " |" for row in rows] + [""]


def _grid(rows: Sequence[Row], name: str, column: str) -> list[str]:
    """One line for each layout, n and flips; one column for each value of `column`; splits of losses in a cell."""
    columns = sorted({row[column] for row in rows})
    lines: dict[tuple[str, ...], dict[Any, list[str]]] = {}
    for row in rows:
        key = (_where(row), str(row["n"]), f"{row['flips'] * 100:g} %")
        lines.setdefault(key, {}).setdefault(row[column], []).append(f"{row['share'][name] * 100:.1f}")
    header = ["items", "n", "flips", *(f"{column} = {value:g}" for value in columns)]
    return _table(header, ([*key, *(" / ".join(line.get(c, ["-"])) for c in columns)] for key, line in lines.items()))


def _summary(rows: Sequence[Row]) -> list[str]:
    """Cells inside and outside the goal, by group, quantity and layout."""
    counts: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        for name, share in row["share"].items():
            found = counts.setdefault((row["group"], name, _where(row)), {"ok": [], "wide": [], "short": []})
            found[verdict(row, name, share)].append(share)
    lines = []
    for key, found in counts.items():
        every = [share for shares in found.values() for share in shares]
        numbers = [str(len(found[kind])) for kind in ("ok", "wide", "short")]
        lines.append([*key, *numbers, f"{min(every) * 100:.1f} to {max(every) * 100:.1f}"])
    return _table(["group", "of what", "items", "on goal", "wide", "short", "coverage, %"], lines)


def _short(rows: Sequence[Row]) -> list[str]:
    lines = [
        [row["group"], name, _where(row), str(row["n"]), f"{row['flips'] * 100:g} %", f"{row['p']:g}"]
        + [f"{row['losses']:g}", f"{share * 100:.1f}"]
        for row in rows
        for name, share in row["share"].items()
        if verdict(row, name, share) == "short"
    ]
    if not lines:
        return ["No cell falls short.", ""]
    return _table(["group", "of what", "items", "n", "flips", "p", "losses", "coverage, %"], lines)


def markdown(settings: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return the whole report: goal, summary, what falls short, and every number."""
    coverage = [row for row in rows if row["group"].startswith(("right/wrong", "continuous"))]
    runs, versions = settings["runs"], ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    seconds = sum(row["seconds"] for row in rows)
    errors = [f"{(share * 0.95 / runs) ** 0.5 * 100:.2f}" for share in (0.05, 0.1)]
    out = [
        "# Simulated coverage of the intervals",
        "",
        "```sh",
        f"python -m harness.stats.coverage --out results/stats --runs {runs} --seed {settings['seed']}",
        "```",
        "",
        f"{len(rows)} cells in {seconds:.0f} s of CPU time; {versions}. {runs} runs a cell, half as many for",
        f"continuous scores (with {settings['resamples']} resamples) and seeds: the standard error of the",
        f"simulation itself is {errors[0]} and {errors[1]} points.",
        "",
        *_GOAL,
        "## Summary",
        "",
        *_summary(coverage),
        "## Cells that fall short",
        "",
        *_short(coverage),
    ]
    for group in dict.fromkeys(row["group"] for row in coverage):
        chosen = [row for row in coverage if row["group"] == group]
        for name in chosen[0]["share"]:
            out += [f"## {group}: {_NAMES[name]}, coverage in %", "", *_grid(chosen, name, "p")]
    for group, column in (("non-inferior at the margin", "margin"), ("loss where there is none", "p")):
        chosen = [row for row in rows if row["group"] == group]
        name = next(iter(chosen[0]["share"]))
        out += [f"## Error rate: {_NAMES[name]}, in %", "", *_grid(chosen, name, column)]
    seeds = [row for row in rows if row["group"] == "seeds"]
    header = ["seeds", "spread between seeds", *seeds[0]["share"]]
    lines = [
        [str(row["seeds"]), f"{row['spread']:g}", *(f"{share * 100:.1f}" for share in row["share"].values())]
        for row in seeds
    ]
    out += ["## Several seeds: coverage of the recipe's difference and recovery, in %", ""]
    out += ["300 items, p = 0.8, 8 points lost; each seed's chance to lose an item is shifted by up to the spread.", ""]
    return "\n".join([*out, *_table(header, lines)]).rstrip() + "\n"
