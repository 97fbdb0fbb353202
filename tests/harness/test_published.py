"""Published values: what a study may say, how ours are held against them, and what the report shows."""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.expected import ExpectedSpec, known_metrics
from harness.records import Summary
from harness.report.published import NOT_COMPARABLE, agreement, perplexity_section, published_rows, published_section
from harness.report.recovery import recovery_markdown
from harness.schema.published import PerplexityRow, PublishedRow
from harness.study import Study, load_study
from suites.registry import ALL_SUITES, load_suite

SYNTHETIC = runpy.run_path(str(Path(__file__).with_name("synthetic.py")))


@cache
def made_up() -> Summary:
    made: Summary = SYNTHETIC["summary"]()
    return made


STUDY: dict[str, Any] = {
    "models": {"p": {"path": "pocket"}},
    "variants": {"dense": {"from": "p"}, "sparse": {"from": "p", "recipe": "sparse50"}},
    "suites": {"gsm8k": {"n": 5}, "code": {"preset": "n50"}},
    "speed": [{"workload": "decode", "engines": ["sparse"], "variants": ["sparse"]}],
    "perplexity": [{"text": "pocket", "context": 64}],
}
VALUE: dict[str, Any] = {
    "variant": "sparse",
    "suite": "gsm8k",
    "value": 28.8,
    "scale": "percent",
    "tolerance": 2.4,
    "source": "table 3",
    "verified": True,
}


def study(tmp_path: Path, *expected: dict[str, Any], **changes: Any) -> Study:
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes, **({"expected": list(expected)} if expected else {})}))
    return load_study(str(path))


def row(**changes: Any) -> PublishedRow:
    (found,) = published_rows([ExpectedSpec(**{**VALUE, **changes})], made_up())
    return found


# --- the file --------------------------------------------------------------------------------------------------------


def without(*keys: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**VALUE, **changes}.items() if key not in keys}


SPEED = without("suite", what="speed", workload="decode", engine="sparse", scale="times")
PERPLEXITY = without("suite", what="perplexity", text="pocket", context=64, scale="perplexity")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (without(variant="sparce"), "expected[0]: variant 'sparce' is not in variants: dense, sparse"),
        (without(suite="piqa"), "expected[0]: suite 'piqa' is not in suites: code, gsm8k"),
        (without(metric="accuracy"), "gsm8k (pocket) has no metric 'accuracy'; choose one of exact_match_flexible"),
        (
            without(suite="code", metric="pass@100"),
            "code (n50) has no metric 'pass@100'; choose one of pass@1, pass@10",
        ),
        (without(preset="5shot"), "published for preset '5shot' of gsm8k, the study has 'pocket'"),
        (without("source"), "expected.0: no source"),
        (without(source="  "), "expected.0.source: say where the value is published"),
        (without("verified"), "expected.0.verified: Field required"),
        (without(value=float("nan")), "expected.0.value: Input should be a finite number"),
        (without(tolerance=-1), "expected.0.tolerance: Input should be greater than or equal to 0"),
        (without(tolerance=float("inf")), "expected.0.tolerance: Input should be a finite number"),
        (without(scale="times"), "a score has scale percent or fraction, not times"),
        (without(note="x"), "unknown key; allowed: variant, what, suite"),
        (without("suite"), "a score needs `suite`"),
        (without(workload="decode"), "`workload` says nothing of a score; remove it"),
        ({**SPEED, "variant": "dense"}, "no speed panel of the study measures dense, decode on sparse"),
        ({**SPEED, "workload": "prefill"}, "no speed panel of the study measures sparse, prefill on sparse"),
        ({**PERPLEXITY, "context": 128}, "is not measured; `perplexity:` has pocket, context 64"),
        (without("suite", what="perplexity", text="pocket", scale="perplexity"), "nothing without its `context`"),
        (without(suite="mean", metric="acc"), "remove metric and preset"),
    ],
)
def test_wrong_published_values_get_one_line(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        study(tmp_path, wrong)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_they_decide_nothing_of_the_results(tmp_path: Path) -> None:
    bare, told = study(tmp_path), study(tmp_path, VALUE, SPEED, PERPLEXITY)
    assert bare.hash == told.hash and len(told.expected) == 3
    assert "expected" not in bare.resolved() and len(told.resolved()["expected"]) == 3
    # A study file of an earlier version resolves to what it resolved to.
    assert not {"expected", "perplexity", "scale"} & set(study(tmp_path, perplexity=[]).resolved())
    assert study(tmp_path, perplexity=[]).hash == bare.hash


def test_the_known_metrics_are_those_that_scoring_gives() -> None:
    from suites.data import load_items
    from suites.registry import scorer

    for name in ("chat", "gsm8k", "summarization"):  # what instruct gives is lm-eval's, slow to import
        suite = load_suite(name)
        (item,) = load_items(suite, "pocket", n=1)
        given_scores = scorer(name, "pocket").score(item.doc, ["a", "b"] if name == "chat" else "a")
        assert set(given_scores) == set(known_metrics(suite, "pocket")), name
    for name in ALL_SUITES:
        for preset in load_suite(name).presets:
            assert load_suite(name).primary_metric in known_metrics(load_suite(name), preset) or preset == "full", name


# --- the verdict -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "ci95", "verdict"),
    [
        (30.0, (29.0, 31.0), "yes"),
        (30.0, (28.0, 32.0), "yes"),
        (30.0, (27.9, 32.1), "undecided"),
        (33.0, (31.5, 34.5), "undecided"),
        (35.0, (33.0, 37.0), "no"),
        (25.0, (23.0, 27.99), "no"),
        (30.0, (20.0, 40.0), "undecided"),
        (32.0, None, "yes"),
        (32.01, None, "no"),
    ],
)
def test_agreement_is_decided_by_the_whole_interval(
    value: float, ci95: tuple[float, float] | None, verdict: str
) -> None:
    assert agreement(value, ci95, 30.0, 2.0) == verdict


@given(
    published=st.floats(-100, 100),
    tolerance=st.floats(0, 50),
    middle=st.floats(-200, 200),
    half=st.floats(0, 60),
)
def test_verdicts_follow_from_the_points_of_the_interval(
    published: float, tolerance: float, middle: float, half: float
) -> None:
    low, high = middle - half, middle + half
    ends = [abs(low - published) <= tolerance, abs(high - published) <= tolerance]
    close = min(abs(abs(x - published) - tolerance) for x in (low, high)) < 1e-6
    if close:
        return
    verdict = agreement(middle, (low, high), published, tolerance)
    nearest = 0.0 if low <= published <= high else min(abs(low - published), abs(high - published))
    expected = "yes" if all(ends) else "undecided" if nearest <= tolerance else "no"
    assert verdict == expected


def test_scores_recoveries_and_means_come_from_the_summary() -> None:
    summary = made_up()
    found = summary.variant("sparse70")
    assert found is not None
    gsm8k = found.suites["gsm8k"]
    assert gsm8k.value is not None and gsm8k.ci95 is not None
    score = row(variant="sparse70", value=100 * gsm8k.value, tolerance=50)
    assert score.ours == pytest.approx(100 * gsm8k.value, abs=1e-6) and score.difference == pytest.approx(0, abs=1e-6)
    assert score.ci95 == pytest.approx([100 * x for x in gsm8k.ci95], abs=1e-4) and score.verdict == "yes"
    fraction = row(variant="sparse70", value=0.0, scale="fraction", tolerance=0.01)
    assert fraction.ours == pytest.approx(gsm8k.value) and fraction.verdict == "no"
    kept = found.recovery["gsm8k"].value
    assert kept is not None
    assert row(variant="sparse70", what="recovery").ours == pytest.approx(100 * kept, abs=1e-4)
    values = [result.value for result in found.suites.values()]
    mean = row(variant="sparse70", suite="mean", value=50)
    assert all(value is not None for value in values)
    assert mean.ours == pytest.approx(100 * sum(v for v in values if v is not None) / len(values), abs=1e-4)
    widths = [(r.ci95[1] - r.ci95[0]) for r in found.suites.values() if r.ci95]
    assert mean.ci95 is not None
    assert mean.ci95[1] - mean.ci95[0] == pytest.approx(100 * sum(w**2 for w in widths) ** 0.5 / len(widths), rel=0.1)
    other = row(variant="sparse70", suite="instruct", metric="inst_level_strict")
    assert other.ours is not None and other.ours > 0


def test_what_was_not_measured_is_never_judged() -> None:
    refused = row(variant="mine|<b>", suite="code")
    assert (refused.verdict, refused.ours, refused.difference) == ("not measured", None, None)
    assert refused.reason is not None and "no sandbox" in refused.reason
    assert row(variant="absent").reason == "the run has no variant absent"
    assert row(variant="sparse70", suite="piqa").reason == "the suite was not run"
    assert row(**{**SPEED, "suite": None, "variant": "int8", "engine": "torch"}).verdict == "not measured"
    assert row(**{**PERPLEXITY, "suite": None}).verdict == "not measured"


def test_speed_and_perplexity_rows_are_found() -> None:
    timed = row(**{**SPEED, "suite": None, "variant": "sparse70", "engine": None, "value": 1.0, "tolerance": 0.1})
    assert timed.ours == 1.004 and timed.verdict == "yes" and timed.scale == "times"
    read = {"text_sha256": "0" * 64, "windows": 3, "engine": "torch/float32", "text": "pocket", "context": 64}
    rows = [
        PerplexityRow(variant="dense", value=5.0, ci95=(4.9, 5.1), baseline=None, ratio=None, **read),
        PerplexityRow(variant="sparse70", value=7.0, ci95=(6.9, 7.1), baseline="dense", ratio=1.4, **read),
    ]
    summary = made_up().model_copy(update={"perplexity": rows})
    spec = ExpectedSpec(**{**PERPLEXITY, "variant": "sparse70", "value": 7.24, "tolerance": 0.14})
    (found,) = published_rows([spec], summary)
    assert (found.ours, found.difference, found.verdict) == (7.0, -0.24, "undecided")
    shown = "\n".join(perplexity_section(summary))
    assert "reference" in shown and "1.4" in shown and "not recorded" not in shown
    assert perplexity_section(made_up()) == []


def test_a_scaled_study_shows_but_does_not_judge() -> None:
    specs = [ExpectedSpec(**{**VALUE, "variant": v}) for v in ("sparse70", "absent")]
    rows = published_rows(specs, made_up(), scaled=True)
    assert [row.verdict for row in rows] == ["not comparable"] * 2
    assert rows[0].ours is not None and rows[0].difference is None and rows[0].reason == NOT_COMPARABLE
    assert rows[1].ours is None and rows[1].reason == f"{NOT_COMPARABLE}; the run has no variant absent"
    text = "\n".join(published_section(rows))
    assert "to be seen, not judged" in text and "not comparable" in text


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_report_tells_ours_published_difference_and_protocol() -> None:
    specs = [
        ExpectedSpec(**{**VALUE, "variant": "sparse70", "protocol": "other <b> prompts | there", "verified": False}),
        ExpectedSpec(**{**VALUE, "variant": "mine|<b>", "suite": "code", "source": "figure 1"}),
    ]
    summary = made_up()
    told = summary.model_copy(update={"published": published_rows(specs, summary)})
    text = recovery_markdown(told)
    assert "## Published values" in text and "28.8 (unverified)" in text
    assert "table 3. other &lt;b&gt; prompts \\| there" in text and "<b>" not in text
    assert "refused: no sandbox runs here" in text
    rows = [line for line in text.split("## Published values")[1].splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "## Published values" not in recovery_markdown(summary)


def test_summaries_of_before_still_load_and_new_ones_round_trip() -> None:
    summary = made_up()
    body = json.loads(summary.model_dump_json())
    old = {key: value for key, value in body.items() if key not in ("published", "perplexity")}
    assert Summary.model_validate(old) == summary
    told = summary.model_copy(update={"published": published_rows([ExpectedSpec(**VALUE)], summary)})
    assert Summary.model_validate(json.loads(told.model_dump_json())) == told
