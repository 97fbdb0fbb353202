"""The engine benchmark's arithmetic and report, on journals made by hand."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.bench.command import bench_app
from harness.bench.engines.arms import SHAPES, WORKLOADS, Variant, chosen_groups, groups
from harness.bench.engines.claims import FASTER, check_claims
from harness.bench.engines.numbers import READER, panels_of
from harness.bench.engines.plot import roofline
from harness.bench.engines.render import markdown, plots
from harness.bench.engines.run import Plan, run_benchmark
from harness.bench.engines.session import Settings, steps_of_turn
from harness.errors import ConfigError

Lines = list[dict[str, Any]]


def panel(
    run: int,
    seconds: dict[str, float],
    *,
    megabytes: dict[str, float],
    group: str = "float32",
    threads: int = 1,
    workload: str = "decode-b1",
    reader_gbs: float = 10.0,
    failed: dict[str, str] | None = None,
    drift: float = 0.01,
    steal: float = 0.0,
) -> Lines:
    """Four blocks of every variant, each a little slower than the block before, with the reader in between."""
    lines: Lines = []
    told: dict[str, Any] = {READER: {"bytes": 1_000_000_000}}
    for block in range(4):
        for position, (name, each) in enumerate(seconds.items()):
            slower = each * (1 + drift * block)
            for who, took in ((name, slower), (READER, 1 / reader_gbs)):
                lines.append(
                    {
                        "kind": "turn",
                        "run": run,
                        "block": block,
                        "position": position,
                        "variant": who,
                        "seconds": [took, took, took * 3],
                        "cpu": took * 5,
                    }
                )
    for name in seconds:
        told[name] = {"bytes": int(megabytes[name] * 1e6), "versions": {"numpy": "2"}, "notes": ["as made"]}
        told[name] |= {"rss_mb": 200.0, "huge_mb": 150.0}
    for name, why in (failed or {}).items():
        told[name] = {"error": why}
    shown = WORKLOADS[workload]
    lines.append(
        {
            "kind": "panel",
            "run": run,
            "shape": "1.1b",
            "group": group,
            "threads": threads,
            "workload": workload,
            "batch": shown.batch,
            "context": shown.context,
            "tokens": shown.tokens,
            "settings": {"flush_mb": 512},
            "settings_sha256": "0",
            "blocks": 4,
            "told": told,
            "machine": {"cpu": "A CPU", "cores": 2, "system": "Linux", "python": "3.11"},
            "cache_mb": 100.0,
            "activity": {"busy": 0.5, "steal": steal, "load_average": None},
            "finished": "2026-01-01T00:00:00Z",
        }
    )
    return lines


def float_panel(run: int = 1, **more: Any) -> Lines:
    seconds = {"torch:fp32": 0.90, "ours:f32@0": 0.42, "ours:f32@70": 0.14, "ours:i8@70": 0.05}
    sizes = {"torch:fp32": 4138.0, "ours:f32@0": 4138.0, "ours:f32@70": 1400.0, "ours:i8@70": 478.0}
    return panel(run, seconds, megabytes=sizes, **more)


# Arms


def test_variants_have_names_of_their_own_and_ratios_that_are_claimed_have_a_group() -> None:
    known = groups((0, 50, 60, 70, 80))
    for group in known:
        assert len({variant.name for variant in group.variants}) == len(group.variants)
    for claim in FASTER:
        assert any({claim.slow, claim.fast} <= {variant.name for variant in group.variants} for group in known), claim
    assert Variant("openvino", "int8", 70, "sparse").name == "openvino:int8@70+sparse"


def test_every_group_of_whole_forwards_fits_this_class_of_machine_and_shares_one_engine() -> None:
    for group in groups((0, 50, 70)):
        assert sum(variant.gigabytes(SHAPES["1.1b"]) for variant in group.variants) < 22, group.name
        assert not group.whole or "ours:i8@70" in {variant.name for variant in group.variants}


def test_the_shape_of_tinyllama_counts_its_weights() -> None:
    assert SHAPES["1.1b"].parameters == (968_884_224, 65_536_000)


def test_engines_are_chosen_by_glob_within_groups() -> None:
    (group,) = chosen_groups("torch:*,ours:f32@*", "float32", (0, 70))
    assert [variant.name for variant in group.variants] == ["torch:fp32", "ours:f32@0", "ours:f32@70"]
    with pytest.raises(ConfigError, match="--engines: nothing is called 'vllm:\\*'"):
        chosen_groups("vllm:*", None, (0, 70))
    with pytest.raises(ConfigError, match="--groups: nothing is called 'float'"):
        chosen_groups(None, "float", (0, 70))
    with pytest.raises(ConfigError, match="see --list"):
        chosen_groups("llama.cpp:*", "float32", (0, 70))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threads", "0"], "--threads: 0 is not between"),
        (["--sparsities", "x"], "--sparsities is a list of numbers"),
        (["--shapes", "13b"], "--shapes: nothing is called '13b'"),
        (["--workloads", "decode"], "--workloads: nothing is called 'decode'"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(tmp_path: Path, options: list[str], said: str) -> None:
    result = CliRunner().invoke(bench_app, ["engines", "--out", str(tmp_path), *options])
    assert isinstance(result.exception, ConfigError) and said in str(result.exception)


def test_the_list_needs_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(bench_app, ["engines", "--out", str(tmp_path), "--list", "--engines", "torch:*"])
    assert result.exit_code == 0 and "compile: torch:compile-bf16, torch:compile-fp32, torch:bf16" in result.output
    assert not list(tmp_path.iterdir())


def test_a_turn_has_steps_for_its_time() -> None:
    assert [steps_of_turn(step, 0.6) for step in (0.001, 0.1, 0.29, 5.0)] == [8, 6, 2, 1]


# Numbers


def test_medians_are_of_blocks_and_the_bandwidth_is_the_best_of_all() -> None:
    (found,) = panels_of(float_panel())
    row = found.row("ours:f32@0")
    assert row is not None and row.seconds == pytest.approx(0.42 * 1.015)
    assert row.spread == pytest.approx((0.42, 0.42 * 1.03))
    assert row.rate == pytest.approx(4.138 / (0.42 * 1.015))
    assert found.reader == pytest.approx((10.0, 10.0))
    assert found.best == READER and found.bandwidth == pytest.approx(10.0)
    assert row.share == pytest.approx(row.rate / 10)
    assert row.tokens_per_s == pytest.approx(1 / (0.42 * 1.015)) and row.huge == pytest.approx(0.75)
    (slow,) = panels_of(float_panel(reader_gbs=8.0))
    assert slow.best == "ours:f32@70" or slow.best == "ours:f32@0"
    assert max(row.share or 0 for row in slow.rows) == 1.0


def test_a_ratio_is_of_medians_and_a_common_drift_does_not_move_it() -> None:
    (found,) = panels_of(float_panel(drift=0.3))
    ratio = found.ratio("ours:f32@0", "ours:f32@70")
    assert ratio is not None and ratio.value == pytest.approx(3.0) and ratio.ci95 == pytest.approx((3.0, 3.0))
    assert found.ratio("ours:f32@0", "ours:f32@50") is None


def test_the_last_finished_run_of_a_panel_counts_and_an_unfinished_one_does_not() -> None:
    old, new = float_panel(1), panel(2, {"ours:f32@0": 0.2}, megabytes={"ours:f32@0": 4138.0})
    unfinished = [line for line in float_panel(3) if line["kind"] == "turn"]
    (found,) = panels_of([*old, *new, *unfinished])
    assert [row.variant for row in found.rows] == ["ours:f32@0"] and found.line["run"] == 2


def test_a_prompt_has_no_share_of_the_bandwidth() -> None:
    lines = panel(1, {"torch:bf16": 4.0}, megabytes={"torch:bf16": 2069.0}, workload="prefill-512")
    (found,) = panels_of(lines)
    (row,) = found.rows
    assert row.share is None and row.rate is None and row.tokens_per_s == pytest.approx(512 / (4.0 * 1.015))


# Claims


def test_claims_hold_by_the_ratio_within_one_panel() -> None:
    claims = {claim.text: claim for claim in check_claims(panels_of(float_panel()))}
    alone = claims["Sparsity alone, fp32: 70 % zeros against dense: at least 2.7 times as fast (1 thread)"]
    assert alone.holds and alone.numbers.startswith("3.00 times (3.00 to 3.00), ours:f32@0 426.3 ms")
    assert "97% of the bandwidth" in alone.numbers and "the bytes allow 2.96 at the same rate" in alone.numbers
    dense = claims["Sparse and quantized: int8 at 70 % against our dense fp32: at least 7.5 times as fast (1 thread)"]
    assert dense.holds and dense.numbers.startswith("8.40 times")
    torch = claims[
        "Sparse and quantized: int8 at 70 % against transformers fp32: at least 8.6 times as fast (1 thread)"
    ]
    assert torch.holds
    assert claims["int8 at 70 % against llama.cpp Q8_0: at least 2.1 times as fast (1 thread)"].holds is None


def test_a_ratio_below_its_target_does_not_hold_and_two_panels_make_none() -> None:
    sizes = {"ours:f32@0": 4138.0, "ours:f32@70": 1400.0}
    slow = panel(1, {"ours:f32@0": 0.42, "ours:f32@70": 0.16}, megabytes=sizes)
    (claim,) = [each for each in check_claims(panels_of(slow)) if each.text.startswith("Sparsity alone, fp32")]
    assert claim.holds is False and claim.numbers.startswith("2.6")
    apart = [
        *panel(1, {"ours:f32@0": 0.42}, megabytes=sizes, group="float32"),
        *panel(2, {"ours:f32@70": 0.1}, megabytes=sizes, group="deepsparse"),
    ]
    (claim,) = [each for each in check_claims(panels_of(apart)) if each.text.startswith("Sparsity alone, fp32")]
    assert claim.holds is None


def test_kernels_are_held_against_the_bandwidth_and_against_two_threads() -> None:
    sizes = {"kernels:i8@70": 1100.0}
    one = panel(1, {"kernels:i8@70": 0.1182}, megabytes=sizes, group="kernels-integer")
    two = panel(2, {"kernels:i8@70": 0.062}, megabytes=sizes, group="kernels-integer", threads=2, reader_gbs=19.0)
    claims = {claim.text: claim for claim in check_claims(panels_of([*one, *two]))}
    near = claims["Kernel i8 at 70 % reads at 90% of the bandwidth or more (1 thread)"]
    assert near.holds and near.numbers.startswith("9.17 of 10.00 GB/s")
    scales = claims["Kernel i8 at 70 %: 2 threads at least 1.8 times as fast as 1, where bandwidth is"]
    assert scales.holds and "grew 1.90 times" in scales.numbers
    assert claims["Kernel i4 at 70 % reads at 85% of the bandwidth or more (1 thread)"].holds is None


def test_a_claim_rests_on_a_panel_that_nothing_disturbed_where_there_is_one() -> None:
    sizes = {"ours:i8@0": 1034.0, "ours:i8@70": 478.0}
    disturbed = panel(1, {"ours:i8@0": 0.1, "ours:i8@70": 0.09}, megabytes=sizes, group="integer", steal=0.04)
    calm = panel(2, {"ours:i8@0": 0.09, "ours:i8@70": 0.04}, megabytes=sizes, group="graph-int8")
    (claim,) = [each for each in check_claims(panels_of([*disturbed, *calm])) if "alone, int8" in each.text]
    assert claim.holds and claim.numbers.startswith("2.25 times") and "restless" not in claim.numbers
    (claim,) = [each for each in check_claims(panels_of(disturbed)) if "alone, int8" in each.text]
    assert claim.holds is False and claim.numbers.endswith("; restless")
    found = panels_of(disturbed)
    assert "**restless**: 4.0% of the cores' time was stolen" in markdown(found, check_claims(found), "")


def test_a_claim_says_why_a_peer_is_missing() -> None:
    lines = panel(
        1,
        {"ours:i8@70": 0.05},
        megabytes={"ours:i8@70": 478.0},
        group="integer",
        failed={"llama.cpp:q8_0": "pip could not install llama-cpp-python"},
    )
    (claim,) = [each for each in check_claims(panels_of(lines)) if "Q8_0" in each.text]
    assert claim.holds is None and "pip could not install" in claim.numbers


# Report


def test_the_report_says_no_skill_names_failures_and_shows_every_panel(tmp_path: Path) -> None:
    lines = [*float_panel(failed={"torch:compile-fp32": "no compiler | here"}), *float_panel(2, threads=2)]
    panels = panels_of(lines)
    said = markdown(panels, check_claims(panels), "sparsebench bench engines")
    assert said.count("no skill") >= 2 and "no compiler | here" in said
    assert "### float32: decode, batch 1, after 128 tokens, 1 thread" in said and ", 2 threads" in said
    assert "| ours:i8@70 | 50.75 |" in said and "read bandwidth 10.00 GB/s (our reader)" in said
    assert "![roofline](roofline.svg)" in said and "![roofline](roofline-1.1b-2.svg)" in said


def test_the_roofline_is_a_picture_with_every_engine() -> None:
    panels = panels_of(float_panel())
    ((title, drawn),) = plots(panels).values()
    tree = ElementTree.fromstring(roofline(drawn, title))
    texts = [element.text or "" for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    for name in ("torch:fp32", "ours:f32@0", "ours:f32@70", "ours:i8@70"):
        assert any(text.startswith(name) for text in texts), name
    assert any("dashed: what 10.0 GB/s allow" in text for text in texts)
    assert roofline([], "nothing") == ""


def test_results_are_written_again_from_the_journal_alone(tmp_path: Path) -> None:
    journal = tmp_path / "turns.jsonl"
    journal.write_text("".join(json.dumps(line) + "\n" for line in float_panel()), "utf-8")
    plan = Plan(
        (SHAPES["1.1b"],), (), (1,), (), tmp_path, tmp_path / "work", None, Settings(), "sparsebench bench engines"
    )
    run_benchmark(plan, measure=False, quiet=True)
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert results["panels"][0]["rows"][0]["variant"] == "torch:fp32" and len(results["claims"]) > 10
    assert (tmp_path / "roofline.svg").exists() and "## Claims" in (tmp_path / "results.md").read_text("utf-8")
    assert not (tmp_path / "work").exists()
