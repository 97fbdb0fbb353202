"""The page of suites and presets, from what `sparsebench suites --json` prints."""

from __future__ import annotations

from typing import Any

from harness.docs.markdown import cell, table
from harness.gate.margins import DEFAULTS

_INTRO = """# Suites and presets

A suite measures one skill; a preset is one protocol of it. `sparsebench suites SUITE` prints the same. *Margin* is the
default of gate rule `non_inferior`: the preset's where one was worked out for its number of items, else the suite's.
Data of *full* presets come from the hub, or from the named files below `--data-dir`.
"""


def suites_page() -> str:
    """The whole page."""
    from harness.listing import described
    from suites.registry import ALL_SUITES, load_suite

    parts = [_INTRO.rstrip()]
    for name in ALL_SUITES:
        suite = load_suite(name)
        rows = [_row(name, preset, suite.margin) for preset in described(suite)["presets"]]
        head = ("preset", "protocol", "source", "shots", "tokens", "data", "margin")
        about = (
            f"Version {suite.version}. Primary metric `{suite.primary_metric}`; items are grouped by `{suite.cluster}`."
        )
        parts.append(f"## {name}\n\n{about}\n\n{table(head, rows)}")
    return "\n\n".join(parts) + "\n"


def _row(suite: str, preset: dict[str, Any], own: float) -> list[str]:
    data = preset["data"]
    where = "bundled" if data["kind"] == "pocket" else f"{data['hub']} ({data['split']})"
    files = "".join(f", or `{file}`" for file in preset["files"])
    default = DEFAULTS.get((suite, preset["preset"]))
    margin = default.margin if default is not None else own
    return [
        f"`{preset['preset']}`",
        cell(preset["protocol"]),
        cell(preset["source"]),
        str(preset["num_fewshot"]),
        str(preset["max_new_tokens"] or "choices"),
        cell(where) + files,
        f"{100 * margin:g} points",
    ]
