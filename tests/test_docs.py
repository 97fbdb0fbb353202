"""Documents and committed results say what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from harness.records import read_summary
from harness.report.leaderboard import leaderboard_markdown
from harness.report.recovery import recovery_markdown
from sparsify.recipe import builtin_recipes

ROOT = Path(__file__).resolve().parent.parent
POCKET = ROOT / "results" / "pocket"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_reference_tables_follow_from_the_reference_summary() -> None:
    summary = read_summary(POCKET)
    assert (POCKET / "leaderboard.md").read_text(encoding="utf-8") == leaderboard_markdown(summary)
    assert (POCKET / "recovery.md").read_text(encoding="utf-8") == recovery_markdown(summary)
    schema = json.loads((ROOT / "harness" / "schema" / "summary.schema.json").read_text())
    jsonschema.validate(json.loads((POCKET / "summary.json").read_text()), schema)


def test_the_readme_shows_the_reference_table() -> None:
    table = [
        line for line in (POCKET / "leaderboard.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")
    ]
    assert len(table) > 5
    for line in table:
        assert line in README


def test_the_dense_scores_are_in_the_range_where_damage_and_recovery_show() -> None:
    dense = read_summary(POCKET).variants[0]
    assert dense.name == "dense"
    for suite, result in dense.suites.items():
        assert result.n >= 1000, suite
        assert result.value is not None and 0.60 <= result.value <= 0.97, (suite, result.value)


def test_the_readme_names_every_recipe_verb_and_link() -> None:
    for recipe in builtin_recipes():
        assert f"`{recipe}`" in README
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_readme_says_of_histories_what_the_simulation_counted() -> None:
    tables = json.loads((ROOT / "results" / "history" / "steps.json").read_text(encoding="utf-8"))["tables"]
    wrong = [100 * row["share"] for row in tables["false_steps"].values()]
    found = {
        points: [
            100 * row["found"]["10 of 100"]
            for row in tables["skill_power"].values()
            if (row["n"], row["points"]) == (1000, points)
        ]
        for points in (0.05, 0.1)
    }
    slower = [100 * row["found"]["10 of 100"] for row in tables["speed_power"].values() if row["loss"] == 0.05]
    assert f"{min(wrong):.0f} to {max(wrong):.0f} % of simulated histories" in README
    assert min(found[0.1]) == 100 and "a loss of 10 points of 1,000 items is always found" in README
    assert f"one of 5 points in {min(found[0.05]):.0f} to {max(found[0.05]):.0f} %" in README
    assert f"5 % slower in {min(slower):.0f} to {max(slower):.0f} %" in README


@pytest.mark.parametrize("name", ["base/model", "model/model", "sparse70/packed"])
def test_the_bundled_weights_fit_and_are_what_the_card_says(name: str) -> None:
    weights = ROOT / "suites" / "pocket" / f"{name}.safetensors"
    total = sum(path.stat().st_size for path in (ROOT / "suites" / "pocket").glob("*/*") if path.is_file())
    assert total <= 12_000_000
    from sparsify.corpus import sha256_file

    assert sha256_file(weights) in (ROOT / "suites" / "pocket" / "README.md").read_text(encoding="utf-8")
