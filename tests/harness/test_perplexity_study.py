"""Perplexity as a part of a study: measured once, kept, and beside what is published."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness.perplexity_study as in_study
from harness.errors import ConfigError, CorruptRecordError
from harness.layout import Layout
from harness.models import model_directory
from harness.perplexity import Settings, measure, read_text
from harness.perplexity_study import measure_missing, perplexity_plans, perplexity_rows
from harness.run import RunOptions
from harness.study import Study, parse_study

POCKET = Path(__file__).resolve().parents[2] / "suites" / "pocket" / "model" / "model.safetensors"
pytestmark = pytest.mark.skipif(not POCKET.is_file(), reason="the pocket model is not here")
OPTIONS = RunOptions(quiet=True)


def study(**changes: object) -> Study:
    body = {
        "name": "t",
        "models": {"p": {"path": "pocket"}},
        "variants": {"dense": {"from": "p"}, "other": {"from": "p"}},
        "perplexity": [{"text": "pocket", "context": 32, "windows": 3}],
    }
    return parse_study({**body, **changes}, where="t")


def test_each_variant_is_measured_once_and_as_the_verb_measures_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    (tmp_path / "variants").mkdir()
    (tmp_path / "variants" / "dense").symlink_to(model_directory("pocket"))
    (tmp_path / "variants" / "other").symlink_to(model_directory("pocket-base"))
    with pytest.raises(CorruptRecordError, match="run the study again"):
        perplexity_rows(study(), layout, OPTIONS)
    assert measure_missing(study(), layout, OPTIONS)
    dense, other = perplexity_rows(study(), layout, OPTIONS)
    (told,) = measure(
        {"m": model_directory("pocket")}, read_text("pocket", None), Settings(32, 3), tmp_path / "v", quiet=True
    )["models"]
    assert dense.value == pytest.approx(told["perplexity"], abs=1e-6) and dense.windows == 3
    assert (dense.baseline, dense.ratio, other.baseline) == (None, None, "dense")
    assert other.ratio == pytest.approx(other.value / dense.value, rel=1e-5)
    monkeypatch.setattr(in_study, "measure", None)  # a second time there is nothing to measure
    assert not measure_missing(study(), layout, OPTIONS)
    more = study(perplexity=[{"text": "pocket", "context": 32, "windows": 2}])
    assert perplexity_plans(more, layout, "cpu")[0].read() is None


def test_a_text_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        in_study.check_text(study(perplexity=[{"text": str(tmp_path / "no.txt")}]), OPTIONS)


def test_endpoints_and_repeated_texts_are_refused() -> None:
    twice = [{"text": "pocket", "context": 32}, {"text": "pocket", "context": 32}]
    with pytest.raises(ConfigError, match="named twice"):
        study(perplexity=twice)
    served = {"endpoint": {"model": "m", "base_url": "http://127.0.0.1:1/v1"}}
    with pytest.raises(ConfigError, match="which endpoints do not give"):
        study(models={}, variants={"dense": served}, engine={"name": "openai"})


def test_the_pocket_text_is_not_the_training_text() -> None:
    from harness.corpus import plain_rows

    text = read_text("pocket", None).content
    rows = plain_rows(seed=1)
    trained = [row["prompt"] + row["completion"] for row, _ in zip(rows, range(200), strict=False)]
    long = [row for row in trained if len(row) > 80]
    assert len(text) > 20_000 and long and sum(row in text for row in long) == 0
