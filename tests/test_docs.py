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


@pytest.mark.parametrize("name", ["base/model", "model/model", "sparse70/packed"])
def test_the_bundled_weights_fit_and_are_what_the_card_says(name: str) -> None:
    weights = ROOT / "suites" / "pocket" / f"{name}.safetensors"
    total = sum(path.stat().st_size for path in (ROOT / "suites" / "pocket").glob("*/*") if path.is_file())
    assert total <= 12_000_000
    from sparsify.corpus import sha256_file

    assert sha256_file(weights) in (ROOT / "suites" / "pocket" / "README.md").read_text(encoding="utf-8")
