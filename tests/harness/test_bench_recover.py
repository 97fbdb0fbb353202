"""The recovery benchmark: arms, recipes, estimates, claims, and what is shown of them."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from harness.bench.command import bench_app
from harness.bench.recover.arms import (
    BASE,
    CE,
    CE_SQUAREHEAD,
    COST,
    DENSE,
    FINAL,
    LONGER,
    ONE_SHOT,
    SEEDS,
    Arm,
    all_arms,
    chosen_arms,
    pieces_of,
)
from harness.bench.recover.claims import check_claims
from harness.bench.recover.cost import Operations
from harness.bench.recover.numbers import Record, speed_ratio
from harness.bench.recover.piece import PieceTask, Place, folder_of, key_of, read_lines
from harness.bench.recover.plot import Point, recovery_plot, recovery_points
from harness.bench.recover.recipes import recipe_of, settings_sha256, tokens_of
from harness.bench.recover.run import listing, write_results
from harness.bench.recover.session import expected_seconds, pretrained
from harness.bench.recover.settings import SKILLS, Settings
from harness.bench.skills import encode_scores, suite_plan
from harness.errors import ConfigError, CorruptRecordError
from harness.fingerprint import plan_sha256
from harness.stats import mean_of_recoveries, seeds_recovery
from sparsify.recipe import parse_recipe

SETTINGS = Settings(items=60)
MODEL = "m"


# Arms and recipes


def test_every_arm_has_a_name_a_folder_and_a_recipe_of_its_own() -> None:
    arms = all_arms()
    assert len({arm.name for arm in arms}) == len({folder_of(arm, 0, SETTINGS) for arm in arms}) == len(arms)
    recipes = [json.dumps(recipe_of(arm, 0, None, SETTINGS)) for arm in arms if arm.method != COST]
    assert len(set(recipes)) == len(recipes)
    for arm in arms:
        if arm.method != COST:
            parse_recipe(recipe_of(arm, 1, 1e-3, SETTINGS), name="r", where=arm.name)


def test_the_core_has_five_seeds_and_the_lead_seed_chooses_the_rate() -> None:
    seeds = {arm.name: arm.seeds for arm in all_arms()}
    core = [Arm(DENSE), *(Arm(method, "70") for method in (ONE_SHOT, CE, CE_SQUAREHEAD, FINAL))]
    assert {seeds[arm.name] for arm in core} == {5} and seeds["one-shot@80"] == 2 and seeds["base"] == 1
    first, second = (recipe_of(Arm(CE, "70"), 0, rate, SETTINGS)["stages"][1]["finetune"] for rate in (None, 2e-3))
    assert first["select"]["lr"] == list(SETTINGS.rates) and first["select"]["trial_tokens"] == SETTINGS.trial_tokens
    assert "lr" not in second["select"] and second["lr"] == 2e-3 and second["muon_lr"] == pytest.approx(0.012)
    trials = {
        json.dumps(recipe_of(arm, 0, None, SETTINGS)["stages"][-1]["finetune"]["select"])
        for arm in (Arm(DENSE), Arm(CE, "70"), Arm(CE_SQUAREHEAD, "80"), Arm(FINAL, "70"), Arm(LONGER))
    }
    assert len(trials) == 1, "dense has as many trials as any other, of the same size"


def test_arms_share_what_they_have_in_common() -> None:
    dense, oneshot = (recipe_of(arm, 0, None, SETTINGS)["stages"] for arm in (Arm(DENSE), Arm(ONE_SHOT, "70")))
    assert oneshot[:1] == dense and [*oneshot[1]] == ["prune"], "one-shot prunes after the same fine-tuning"
    final70 = recipe_of(Arm(FINAL, "70"), 1, 1e-3, SETTINGS)["stages"]
    final80 = recipe_of(Arm(FINAL, "80"), 1, 2e-3, SETTINGS)["stages"]
    int8 = recipe_of(Arm(FINAL, "70", int8=True), 1, 1e-3, SETTINGS)["stages"]
    assert [*map(lambda stage: next(iter(stage)), final70)] == ["prune", "pretrain", "prune", "pretrain", "finetune"]
    assert final80[:4] == final70[:4] and int8[:-1] == final70
    longer = recipe_of(Arm(LONGER), 1, 1e-3, SETTINGS)["stages"]
    same = [
        {name: value for name, value in stage["pretrain"].items() if name not in ("teacher", "losses")}
        for stage in (final70[1], final70[3])
    ]
    assert [stage["pretrain"] for stage in longer[:2]] == same, "the same pretraining, without pruning and teacher"
    assert final70[3]["pretrain"]["teacher"] == "base"
    assert sum(map(tokens_of, final70)) == sum(SETTINGS.pretrain_tokens[p] for p in ("50", "70")) + 450_000
    # A piece that shares all but its last stages is expected to take that much less.
    pieces = [(Arm(FINAL, "70"), 1), (Arm(FINAL, "70", int8=True), 1)]
    whole, rest = expected_seconds(pieces, SETTINGS)
    assert whole > 1000 and rest < 60


def test_half_as_sparse_reads_as_much_text() -> None:
    """50 % is pretrained on with its mask kept, in another order, until it has had as many tokens as 70 %."""
    first, second, third = (
        recipe_of(Arm(FINAL, pattern), 1, 1e-3, SETTINGS)["stages"] for pattern in ("50", "70", "80")
    )
    assert [*map(lambda stage: next(iter(stage)), first)] == ["prune", "pretrain", "pretrain", "finetune"]
    assert first[:2] == second[:2] == third[:2] and first[2]["pretrain"]["seed"] == 201
    assert sum(map(tokens_of, first)) == sum(map(tokens_of, second))
    other = dataclasses.replace(SETTINGS, pretrain_more={"50": 1})
    changed = [arm.name for arm in all_arms() if settings_sha256(arm, SETTINGS) != settings_sha256(arm, other)]
    assert changed == ["pretrain+ce+squarehead@50"]


def test_chosen_arms_bring_what_they_stand_against() -> None:
    names = [arm.name for arm in chosen_arms("*+int8")]
    assert names == ["base", "dense", "pretrain+ce+squarehead@70", "pretrain+ce+squarehead@70+int8"]
    assert [arm.name for arm in chosen_arms("cost@70")] == ["cost@70"]
    assert [arm.name for arm in chosen_arms("*/code")][:2] == ["base", "dense/code"]
    with pytest.raises(ConfigError, match="no arm is called 'sparse@70'"):
        chosen_arms("ce@70, sparse@70")


def test_pieces_come_after_those_that_they_need(tmp_path: Path) -> None:
    pieces = pieces_of(all_arms(), SEEDS)
    place = Place(tmp_path, tmp_path / "j", tmp_path, "torch")
    seen: set[tuple[str, int]] = set()
    for arm, seed in pieces[:-1]:
        assert PieceTask(arm, seed, SETTINGS, place, MODEL).needs <= seen, arm.name
        seen.add((arm.name, seed))
    assert pieces[-1][0].method == COST and len(seen) == len(pieces) - 1


def test_a_journal_that_is_being_written_is_read_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    assert read_lines(path) == []
    path.write_text('{"a": 1}\n{"b"')
    assert read_lines(path) == [{"a": 1}] and path.read_text().endswith('{"b"')


# Numbers


def scores_of(suite: str, level: float, seed: int) -> list[float]:
    """Item scores: each item has a difficulty that is the same for everybody, and a seed moves a few items."""
    items, draw = random.Random(suite), random.Random(f"{suite}{level}{seed}")
    found = [items.random() + 0.05 * draw.random() < level for _ in range(SETTINGS.items)]
    return [0.9 * float(right) if suite == "summarization" else float(right) for right in found]


def line(arm: Arm, seed: int, level: float, **more: Any) -> dict[str, Any]:
    scores = {}
    for suite in arm.suites:
        items = [(item.item_id, item.item_hash) for item in suite_plan(suite, SETTINGS.items, SETTINGS.batch).items()]
        values = encode_scores(scores_of(suite, level, seed))
        scores[suite] = {"items": plan_sha256(items), "metric": "m", "unanswered": 0, "values": values}
    pruned = {"tensors": 1, "pruned": 7, "revived": 0} if arm.pattern else None
    trials = [{"lr": 1e-3, "dev": 0.5, "step": 9}, {"lr": 2e-3, "diverged_at": 3}]
    chosen = {"lr": 1e-3, "step": 9, "dev": 0.5, **({"trials": trials} if seed == 0 else {})}
    facts = {"variant_sha256": "v", "zeros": 0.7 if arm.pattern else 0.0, "bits": 16, "masks": pruned}
    made = {"chosen": chosen if arm.method != BASE else None, "engine": "torch/float32"}
    times = {"make_seconds": 1.0, "evaluate_seconds": 1.0}
    return {
        "kind": "arm",
        "arm": arm.name,
        "seed": seed,
        **key_of(arm, MODEL, SETTINGS),
        **facts,
        **made,
        **times,
        "scores": scores,
        **more,
    }


COST_LINE: Mapping[str, Any] = {
    "kind": "cost",
    "arm": "cost@70",
    "seed": 0,
    **key_of(Arm(COST, "70"), MODEL, SETTINGS),
    "threads": 1,
    "rows": [
        {"name": "dense, CE", "tokens_per_s": [100.0, 110.0], "operations": 12e6},
        {"name": "70 % sparse, CE", "tokens_per_s": [99.0, 99.0], "operations": 6e6},
    ],
}


def record(*lines: Mapping[str, Any]) -> Record:
    return Record(lines, MODEL, SETTINGS)


def several(method: str, pattern: str, level: float, seeds: int = 3) -> list[dict[str, Any]]:
    return [line(Arm(method, pattern), seed, level) for seed in range(seeds)]


def test_a_comparison_is_what_the_statistics_say_of_items_clusters_and_seeds() -> None:
    found = record(*several(CE, "70", 0.5), *several(DENSE, "", 0.8, 4)).compare(Arm(CE, "70"), Arm(DENSE))
    assert found is not None and found.seeds == 3 and len(found.by_seed) == 3
    expected = {
        suite: seeds_recovery(
            [scores_of(suite, 0.5, seed) for seed in range(3)],
            [scores_of(suite, 0.8, seed) for seed in range(4)],
            [item.cluster for item in suite_plan(suite, SETTINGS.items, SETTINGS.batch).items()],
        )
        for suite in SKILLS
    }
    assert found.suites == expected
    assert found.mean == mean_of_recoveries({suite: paired.estimate for suite, paired in expected.items()})
    assert found.mean.ci95 is not None and found.over_seeds is not None and found.over_seeds.ci95 is not None
    assert found.limits == (
        min(found.mean.ci95[0], found.over_seeds.ci95[0]),
        max(found.mean.ci95[1], found.over_seeds.ci95[1]),
    )
    by_hand = [
        sum(sum(scores_of(s, 0.5, seed)) / sum(scores_of(s, 0.8, seed)) for s in SKILLS) / 5 for seed in range(3)
    ]
    assert found.by_seed == pytest.approx(by_hand)


def test_flips_pair_an_arm_with_the_dense_lineage_of_its_own_seed() -> None:
    lines = [*several(DENSE, "", 0.8, 3), line(Arm(CE, "70"), 2, 0.8)]
    for suite in SKILLS:
        lines[-1]["scores"][suite]["values"] = lines[2]["scores"][suite]["values"]
    found = record(*lines).compare(Arm(CE, "70"), Arm(DENSE))
    assert found is not None and found.flips == (0, 0) and found.by_seed == (1.0,)


def test_the_last_line_of_a_piece_counts_and_failures_are_kept_apart() -> None:
    failed = {"kind": "arm", "arm": "ce@70", "seed": 0, **key_of(Arm(CE, "70"), MODEL, SETTINGS), "error": "E: no"}
    other = line(Arm(CE, "70"), 1, 0.5, model_sha256="another")
    found = record(line(Arm(CE, "70"), 0, 0.5), failed, other)
    assert not found.arms and found.failed == [failed]
    found = record(failed, line(Arm(CE, "70"), 0, 0.5))
    assert list(found.arms) == ["ce@70"] and not found.failed
    assert found.compare(Arm(CE, "70"), Arm(DENSE)) is None


def test_items_of_another_version_are_refused() -> None:
    lines = [line(Arm(CE, "70"), 0, 0.5), line(Arm(DENSE), 0, 0.8)]
    lines[0]["scores"]["chat"]["items"] = "0" * 64
    with pytest.raises(CorruptRecordError, match="chat items of another version"):
        record(*lines).compare(Arm(CE, "70"), Arm(DENSE))


def test_claims_hold_fail_or_stay_open() -> None:
    lines = [*several(DENSE, "", 0.8, 5), *several(FINAL, "50", 0.8, 5), *several(FINAL, "70", 0.7, 5)]
    lines += [*several(ONE_SHOT, "70", 0.2, 5), *several(CE, "70", 0.6, 5), *several(CE_SQUAREHEAD, "70", 0.6, 5)]
    lines += [*several(ONE_SHOT, "80", 0.5, 2), *several(CE, "80", 0.2, 2)]
    claims = {claim.text: claim for claim in check_claims(record(*lines))}
    said = [(claim.holds, text) for text, claim in claims.items()]
    assert [holds for holds, text in said if text.startswith("50 %") and "at least 99%" in text] == [True]
    assert [holds for holds, text in said if text.startswith("70 %: mean")] == [False, False]
    assert claims["70 %: one-shot is worse than ce"].holds is True
    undecided = claims["70 %: ce is worse than ce+squarehead"]
    assert undecided.holds is None and undecided.numbers.startswith("not decided")
    assert claims["80 %: one-shot is worse than ce"].holds is not True
    assert claims["80 %: ce is worse than ce+squarehead"].numbers == "not measured"
    assert claims["0 revived weights in every variant that was pruned"].holds is True
    lines[5]["masks"]["revived"] = 1
    assert check_claims(record(*lines))[-1].holds is False


def test_one_seed_decides_no_bound() -> None:
    claims = check_claims(record(line(Arm(DENSE), 0, 0.8), line(Arm(FINAL, "50"), 0, 0.8)))
    assert claims[0].holds is True and claims[1].holds is None and "one seed" in claims[1].numbers


def test_training_operations_skip_zeros_three_times_and_pay_for_a_teacher() -> None:
    operations = Operations(linears=10.0, others=2.0)
    assert operations.training() == 36 and operations.training(0.3) == pytest.approx(15)
    assert operations.training(0.3, taught=True) == pytest.approx(27)
    ratio = speed_ratio(COST_LINE, "70 % sparse, CE", "dense, CE")
    assert ratio == pytest.approx((99 / 105, 0.9, 0.99, 2.0)) and speed_ratio(COST_LINE, "x", "dense, CE") is None


# What is shown


def test_results_are_written_with_failures_and_bad_news(tmp_path: Path) -> None:
    failed = {"kind": "arm", "arm": "ce@70", "seed": 1, **key_of(Arm(CE, "70"), MODEL, SETTINGS), "error": "E: a | b"}
    single = [
        line(Arm(method, pattern, "code"), 0, level)
        for method, pattern, level in ((DENSE, "", 0.8), (FINAL, "70", 0.7))
    ]
    lines = [line(Arm(BASE), 0, 0.4), *several(DENSE, "", 0.8), *several(FINAL, "70", 0.7), line(Arm(CE, "70"), 0, 0.5)]
    lines += [line(Arm(LONGER), 0, 0.9), *several(FINAL, "50", 0.75), *single, failed, COST_LINE]  # type: ignore[list-item]
    machine = {"cpu": "c", "cores": 2, "system": "L", "python": "3"}
    write_results({"command": "cmd", "machine": machine, "schema_version": 1}, record(*lines), tmp_path)
    shown = (tmp_path / "results.md").read_text()
    for part in ("E: a \\| b", "## Fine-tuned on code alone", "## Against a dense lineage with all of its tokens"):
        assert part in shown
    assert "| ce@70 | 0.001 | 0.5000 | 9 | 0.001: 0.5000; 0.002: diverged | at the edge of the grid |" in shown
    assert "| 70 % sparse, CE | 99 | 0.94 (0.90 to 0.99) | 6.0 | 2.00 |" in shown
    assert "| **no** |" in shown and "(n 60)" in shown and "flips +" in shown
    plain = json.loads((tmp_path / "results.json").read_text())
    assert plain["failed"] == [{"arm": "ce@70", "seed": 1, "error": "E: a | b"}]
    arms = {arm["arm"]: arm for arm in plain["arms"]}
    assert arms["pretrain+ce+squarehead@70"]["base"]["mean"]["value"] > 1 > arms["ce@70"]["baseline"]["mean"]["value"]
    ElementTree.fromstring((tmp_path / "recovery.svg").read_text())


def test_the_plot_puts_higher_recovery_higher() -> None:
    found = recovery_points(record(*several(DENSE, "", 0.8), *several(FINAL, "50", 0.8), *several(FINAL, "70", 0.6)))
    assert [point.pattern for point in found[FINAL]] == ["50", "70"]
    marks = {FINAL: [Point("50", 0.99, (0.97, 1.0)), Point("70", 0.95, None), Point("2:4", 0.9, None)]}
    root = ElementTree.fromstring(recovery_plot(marks, "a & b"))
    heights = [float(each.attrib["cy"]) for each in root.iter() if each.tag.endswith("circle")]
    assert heights == sorted(heights)
    (path,) = [each.attrib["points"].split() for each in root.iter() if "points" in each.attrib]
    assert len(path) == 2, "2:4 is no point of the line"
    assert recovery_plot({}, "nothing") == ""


# Command line


def test_the_command_says_how_and_lists_its_arms() -> None:
    runner = CliRunner()
    shown = runner.invoke(bench_app, ["recover", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert (
        shown.exit_code == 0 and "--budget-hours" in shown.output and "sparsebench bench recover --out" in shown.output
    )
    listed = runner.invoke(bench_app, ["recover", "--list", "--arms", "ce@70", "--seeds", "0,1", "--out", "x"])
    assert [row.split()[0] for row in listed.output.splitlines()] == ["base", "dense", "ce@70", "together"]
    assert "2 seed(s)" in listed.output
    assert "together about" in listing(all_arms(), SEEDS, Settings())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "0,x"], "--seeds is a list"),
        (["--seeds", "1,2"], "--seeds must name 0"),
        (["--seeds", "0,7"], "7 is not between 0 and 4"),
        (["--arms", "nothing"], "no arm is called 'nothing'"),
        (["--engine", "vllm"], "--engine is one of"),
        (["--report"], "holds nothing that was measured"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: list[str], said: str) -> None:
    out = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    done = CliRunner().invoke(bench_app, ["recover", *out, *options])
    assert isinstance(done.exception, ConfigError) and said in str(done.exception)
    assert not (tmp_path / "work").exists()


def test_pieces_that_begin_with_the_same_pretraining_do_not_wait_for_each_other() -> None:
    """Those share its name; what needs another, or none, is free to run beside it."""
    final70, final50 = Arm(FINAL, "70"), Arm(FINAL, "50")
    found50, found70 = pretrained(final50, 0, SETTINGS), pretrained(final70, 0, SETTINGS)
    assert len(found50) == len(found70) == 2 and len(found50 & found70) == 1
    for other in (Arm("ce", "70"), Arm("dense"), Arm(FINAL, "2:4"), Arm("cost", "70")):
        assert not pretrained(other, 0, SETTINGS) & pretrained(final70, 0, SETTINGS)
    assert not pretrained(final70, 1, SETTINGS) & pretrained(final70, 0, SETTINGS)


def test_what_one_arm_depends_on_leaves_the_others_alone() -> None:
    other = dataclasses.replace(SETTINGS, pretrain_tokens={"50": 1, "70": 1, "80": 1, "2:4": 1}, cost_rounds=9)
    changed = {arm.method for arm in all_arms() if settings_sha256(arm, SETTINGS) != settings_sha256(arm, other)}
    assert changed == {FINAL, LONGER, COST}
    assert settings_sha256(Arm(CE, "70"), SETTINGS) != settings_sha256(Arm(CE, "70"), Settings(items=61))
    assert folder_of(Arm(CE, "70"), 0, SETTINGS) == folder_of(Arm(CE, "70"), 0, other)
    assert folder_of(Arm(FINAL, "70"), 0, SETTINGS) != folder_of(Arm(FINAL, "70"), 0, other)
