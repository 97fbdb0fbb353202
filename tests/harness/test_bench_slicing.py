"""The slicing benchmark: its arms, numbers, claims and pages on synthetic lines, and a real arm of the pocket model."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.bench.skills import encode_scores, suite_plan
from harness.bench.slicing.arms import (
    CE,
    CE_SQUAREHEAD,
    FRACTIONS,
    INT8,
    LORA,
    PRUNED,
    RECOVERY,
    Arm,
    all_arms,
    baseline_of,
    chosen_arms,
)
from harness.bench.slicing.claims import check_claims
from harness.bench.slicing.plot import curves, slicing_plot
from harness.bench.slicing.record import Record
from harness.bench.slicing.run import MODELS, Plan, run_benchmark, write_results
from harness.bench.slicing.settings import Settings
from harness.errors import ConfigError, CorruptRecordError
from harness.fingerprint import plan_sha256
from harness.stats import recovery
from sparsify.recipe import parse_recipe
from suites.registry import SUITES

SETTINGS = Settings(items=40)
KEY = {"model_sha256": "m", "settings_sha256": "s"}
KEYS = {model: KEY for model in MODELS}
MACHINE = {"cpu": "c", "cores": 2, "system": "s", "python": "3"}


# Arms


def test_names_are_unique_and_recipes_are_recipes() -> None:
    arms = all_arms(MODELS)
    assert len({arm.name for arm in arms}) == len(arms)
    for arm in arms:
        recipe = parse_recipe(arm.recipe(SETTINGS), name="r", where=arm.name)
        kinds = [stage.kind for stage in recipe.stages]
        assert kinds[:1] == (["slice"] if arm.fraction else kinds[:1])
        last = {INT8: "quantize", PRUNED: "prune", "": "slice"}.get(arm.after, "finetune")
        assert not kinds or kinds[-1] == last
        assert recipe.needs_teacher is False
    sliced = parse_recipe(Arm("pocket", 25, after=RECOVERY).recipe(SETTINGS), name="r", where="w").stages[0].slice
    assert sliced is not None and sliced.keep_bases and sliced.fraction == 0.25
    tuned = parse_recipe(Arm("pocket", 25, after=LORA).recipe(SETTINGS), name="r", where="w").stages[1].finetune
    assert tuned is not None and tuned.lora is not None and (tuned.lora.rank, tuned.lora.alpha) == (32, 10)


def test_every_fraction_text_and_schedule_is_there() -> None:
    names = {arm.name for arm in all_arms(["pocket"])}
    for fraction in FRACTIONS:
        for text in ("", "-other"):
            for schedule in ("", "-mass"):
                assert f"pocket/slice{fraction}{text}{schedule}" in names
        assert f"pocket/slice{fraction}+{RECOVERY}" in names
    assert {"pocket/slice25+int8", "pocket/slice25+50%", "pocket/slice25-shared", "pocket/dense+ce"} <= names


def test_chosen_arms_bring_what_they_stand_against() -> None:
    found = [arm.name for arm in chosen_arms(f"text/slice25+{CE_SQUAREHEAD}", MODELS)]
    assert found == ["text/dense", "text/dense+ce", f"text/slice25+{CE_SQUAREHEAD}"]
    assert [arm.name for arm in chosen_arms("*/slice25-head", ["pocket"])] == ["pocket/dense", "pocket/slice25-head"]
    with pytest.raises(ConfigError, match="no arm is called 'slice25'"):
        chosen_arms("slice25", MODELS)


# Numbers


def scores_of(suite: str, level: float) -> list[float]:
    draw = random.Random(suite)
    found = [draw.random() < level for _ in range(SETTINGS.items)]
    return [0.9 * float(right) if suite == "summarization" else float(right) for right in found]


def line(arm: Arm, perplexity: float, level: float | None = None, **more: Any) -> dict[str, Any]:
    scores = {}
    for suite in SUITES if level is not None else ():
        items = [(item.item_id, item.item_hash) for item in suite_plan(suite, SETTINGS.items, SETTINGS.batch).items()]
        values = encode_scores(scores_of(suite, level or 0.0))
        scores[suite] = {"items": plan_sha256(items), "metric": "m", "unanswered": 0, "values": values}
    facts = {"parameters": 1000 - 2 * arm.fraction, "macs_per_token": 900 - 3 * arm.fraction, "bytes": 2000}
    made = {"variant_sha256": "v", "zeros": 0.0, "bits": 16, "loaders": ["sparsebench"], "make_seconds": 1.0}
    named = {"arm": arm.name, "model": arm.model, **KEY, "machine": MACHINE}
    losses = [math.log(perplexity) + gap for gap in (-0.01, 0.0, 0.01)]
    return {**named, **facts, **made, "nats_per_token": {"a text": losses}, "scores": scores, **more}


def record(*lines: Mapping[str, Any]) -> Record:
    return Record(lines, KEYS, SETTINGS)


def test_what_is_kept_is_what_the_statistics_say() -> None:
    dense, sliced = Arm("pocket"), Arm("pocket", 25)
    kept = record(line(dense, 2.0, 0.8), line(sliced, 3.0, 0.6)).kept(sliced, dense)
    assert kept is not None
    for suite, paired in kept.suites.items():
        clusters = [item.cluster for item in suite_plan(suite, SETTINGS.items, SETTINGS.batch).items()]
        assert paired == recovery(scores_of(suite, 0.6), scores_of(suite, 0.8), clusters)
    assert kept.mean.value is not None and 0.5 < kept.mean.value < 1
    assert kept.flips[0] == 0 and kept.flips[1] > 0


def test_the_last_line_counts_and_failures_are_listed() -> None:
    arm = Arm("text", 10)
    found = record(line(arm, 5.0), line(arm, 4.0), {**line(Arm("text"), 3.0), "error": "it broke"})
    assert found.perplexity(arm) == pytest.approx(4.0) and found.perplexity(Arm("text")) is None
    assert [failed["error"] for failed in found.failed] == ["it broke"]
    assert found.score(arm) is None and found.kept(arm, arm) is None
    assert record({**line(arm, 5.0), "settings_sha256": "other"}).arms == {}


def test_ratios_of_perplexity_are_paired_by_window() -> None:
    dense, sliced = line(Arm("text"), 2.0), line(Arm("text", 10), 2.0)
    sliced["nats_per_token"] = {
        "a text": [loss + gap for loss, gap in zip(*dense["nats_per_token"].values(), (1, 2, 3), strict=True)]
    }
    found = record(dense, sliced).ratio(Arm("text", 10), Arm("text"))
    half = 4.302652729911275 / math.sqrt(3)  # t with 2 degrees of freedom; the gaps' standard deviation is 1
    assert found is not None and found[0] == pytest.approx(math.exp(2))
    assert found[1] == pytest.approx([math.exp(2 - half), math.exp(2 + half)])
    assert record(dense).ratio(Arm("text", 10), Arm("text")) is None


def test_items_of_another_version_are_refused() -> None:
    changed = line(Arm("pocket"), 2.0, 0.8)
    changed["scores"]["chat"]["items"] = "x"
    with pytest.raises(CorruptRecordError, match="chat items of another version"):
        record(changed, line(Arm("pocket", 25), 2.0, 0.8)).kept(Arm("pocket", 25), Arm("pocket"))


def claims_of(*lines: Mapping[str, Any]) -> dict[str, bool | None]:
    return {claim.text: claim.holds for claim in check_claims(record(*lines), ["pocket"])}


def test_claims_hold_fail_or_stay_open() -> None:
    rising = [line(Arm("pocket", fraction), 2.0 + fraction) for fraction in (0, *FRACTIONS)]
    said = "pocket: perplexity rises with the fraction that is cut off"
    assert claims_of()[said] is None
    assert claims_of(*rising)[said] is True
    assert claims_of(*rising[:-1], line(Arm("pocket", 30), 1.0))[said] is False
    said = "pocket: SquareHead across the rotation recovers more than cross-entropy alone"
    plain, taught = Arm("pocket", 25, after=CE), Arm("pocket", 25, after=CE_SQUAREHEAD)
    assert claims_of(line(plain, 3.0), line(taught, 2.5))[said] is True
    assert claims_of(line(plain, 3.0), line(taught, 3.5))[said] is False
    said = "pocket: slicing 25 % removes less than 25 % of the parameters"
    assert claims_of(*rising)[said] is True
    assert claims_of(line(Arm("pocket"), 1.0), line(Arm("pocket", 25), 1.0, parameters=700))[said] is False
    kept = next(text for text in claims_of() if f"25 % with {RECOVERY} keeps at least 99%" in text)
    dense, recovered = Arm("pocket", after=CE), Arm("pocket", 25, after=RECOVERY)
    assert claims_of(line(dense, 2.0, 0.8), line(recovered, 2.0, 0.8))[kept] is True
    assert claims_of(line(dense, 2.0, 0.8), line(recovered, 2.0, 0.5))[kept] is False


def test_a_claim_over_several_pairs_is_open_where_they_differ() -> None:
    arms = [arm for arm in all_arms(["pocket"]) if arm.signals == "norm" and not arm.after and arm.basis == "block"]
    lines = [line(arm, 3.0 + (arm.schedule == "mass")) for arm in arms]
    said = "pocket: uniform widths lose less than widths by energy"
    assert claims_of(*lines)[said] is True
    assert claims_of(*lines, line(Arm("pocket", 10, schedule="mass"), 2.0))[said] is None


def test_the_page_says_all_of_it(tmp_path: Path) -> None:
    arms = all_arms(["pocket"])
    lines = [line(arm, 2.0 + arm.fraction / 10, 0.8 - arm.fraction / 100 if arm.skilled else None) for arm in arms]
    lines[5] = {**lines[5], "error": "out of <memory>"}
    rows = [
        {
            **{"workload": "decode", "engine": engine, "variant": variant, "parameters": 10**6, "macs_per_token": 9e5},
            **{"bytes": 10**6, "tokens_per_s": 5.0, "ratio": 1.2, "ci95": [1.1, 1.3], "verdict": "faster"},
            "reason": None,
        }
        for engine in ("torch", "sparse")
        for variant in ("dense", "slice25")
    ]
    (tmp_path / "speed.json").write_text(json.dumps({"machine": MACHINE, "rows": rows}))
    said = {"schema_version": 1, "command": "cmd", "machine": MACHINE}
    whole = write_results(said, record(*lines), ["pocket"], tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert len(whole["arms"]) == len(arms) - 1 and whole["failed"] == [
        {"arm": lines[5]["arm"], "error": "out of <memory>"}
    ]
    assert "beyond their intervals" in page and "| times dense |" in page
    for wanted in ("## Claims", "## pocket", "slice25-shared", "keeps", "1.20 [1.10, 1.30]", "## Failed", "pocket.svg"):
        assert wanted in page
    assert (tmp_path / "pocket.svg").read_text().count("<polyline") == 5
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(whole))


def test_nothing_measured_draws_nothing() -> None:
    assert slicing_plot(curves(record(), "pocket"), {}, "t") == ""


# A real run


def plan_of(root: Path, arms: str) -> Plan:
    few = {"samples": 4, "seq": 96, "context": 64, "eval_tokens": 256, "items": 2, "batch": 2, "rows": 60}
    settings = Settings(**few, tokens=900, batch_tokens=256, precision="float32")
    chosen = chosen_arms(arms, ["pocket"])
    return Plan(("pocket",), chosen, root / "out", root / "work", root, "torch", 2, 0.0, settings, "cmd")


def test_a_small_run_measures_goes_on_and_reports(tmp_path: Path) -> None:
    whole = run_benchmark(plan_of(tmp_path, f"pocket/slice25+{RECOVERY}"), quiet=True)
    found = {arm["arm"]: arm for arm in whole["arms"]}
    recovered = found[f"pocket/slice25+{RECOVERY}"]
    assert recovered["loaders"] == ["sparsebench"] and recovered["against"] == "pocket/dense+ce"
    assert 2_000_000 < recovered["parameters"] < found["pocket/dense"]["parameters"]
    assert recovered["macs_per_token"] < found["pocket/dense"]["macs_per_token"]
    assert whole["failed"] == [] and len(found) == 3
    before = (tmp_path / "out" / "arms.jsonl").read_text()
    again = run_benchmark(plan_of(tmp_path, f"pocket/slice25+{RECOVERY},pocket/dense"), quiet=True)
    assert (tmp_path / "out" / "arms.jsonl").read_text() == before and again["arms"] == whole["arms"]
    elsewhere = replace(plan_of(tmp_path, "pocket/dense"), work=tmp_path / "nothing", data=tmp_path / "nothing")
    assert run_benchmark(elsewhere, measure=False, quiet=True)["arms"] == whole["arms"]


def test_a_report_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds nothing that was measured"):
        run_benchmark(plan_of(tmp_path, "pocket/dense"), measure=False, quiet=True)


def test_baselines_had_the_same_training() -> None:
    assert baseline_of(Arm("text", 25, after=LORA)) == Arm("text", after=CE)
    assert baseline_of(Arm("text", 25, after=INT8)) == Arm("text")
