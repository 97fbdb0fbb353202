"""The sparsification benchmark: its arithmetic on hand-made numbers, and what it writes."""

from __future__ import annotations

import json
import math
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from harness.bench.command import bench_app
from harness.bench.sparsify.arms import Arm, all_arms, chosen_arms, peer_steps, recipe_of
from harness.bench.sparsify.claims import HEADLINE, check_claims, excess_reduction, time_ratio
from harness.bench.sparsify.effective import LinearErrors, count_zeros
from harness.bench.sparsify.plot import curves, perplexity_plot
from harness.bench.sparsify.render import markdown, spread, table
from harness.bench.sparsify.run import write_results
from harness.bench.sparsify.windows import cut, perplexity, window_rows
from harness.errors import ConfigError
from sparsify.recipe import parse_recipe

shared = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sparsify_bench.py"))))
SMALL, text, model_dir, load, tokenizer_of = (
    shared.SMALL,
    shared.text,
    shared.model_dir,
    shared.load,
    shared.tokenizer_of,
)

# Windows and perplexity


def test_windows_lie_side_by_side_within_the_limit() -> None:
    assert cut(range(11), 3, 100) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert cut(range(11), 3, 7) == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ConfigError, match="2 tokens"):
        cut(range(2), 3, 100)


def test_perplexity_equals_a_direct_computation(model_dir: Path) -> None:
    model = load(model_dir)
    windows = cut(tokenizer_of(model_dir)(text(1))["input_ids"], 16, 16 * 5)
    losses = []
    for window in windows:
        with torch.no_grad():
            logits = model.double()(input_ids=torch.tensor([window])).logits[0]
        for position in range(1, len(window)):
            row = logits[position - 1]
            losses.append(math.log(sum(math.exp(value) for value in row.tolist())) - float(row[window[position]]))
    expected = math.exp(math.fsum(losses) / len(losses))
    assert perplexity(load(model_dir), windows, batch=2) == pytest.approx(expected, rel=1e-5)
    assert perplexity(load(model_dir), windows, batch=5) == pytest.approx(expected, rel=1e-5)


def test_a_window_row_gives_its_tokens_back(model_dir: Path) -> None:
    tokenizer = tokenizer_of(model_dir)
    rows = list(window_rows([text(1, 40), "é" + text(2, 400)], tokenizer, 24, "here"))
    assert len(rows) > 20 and len({row["item_hash"] for row in rows}) == len(rows)
    assert all(len(tokenizer(row["completion"])["input_ids"]) >= 24 for row in rows)
    assert "".join(row["completion"] for row in rows).startswith(text(1, 40) + "<|eos|>é")


# Arms


def test_every_arm_has_its_own_name_and_a_recipe_of_ours_is_one() -> None:
    arms = all_arms()
    assert len({arm.name for arm in arms}) == len(arms)
    assert {arm.pattern for arm in arms if arm.peer} == {"50", "60", "70", "80", "2:4", "4:8"}
    calibration = {"source": "calibration", "samples": 4, "seq": 8, "seed": 1}
    plain = [arm for arm in arms if not arm.peer and not arm.quantize]
    assert len(plain) == 40
    for arm in plain:
        stage = parse_recipe(recipe_of(arm, calibration), name="arm", where="test").stages[0].prune
        assert stage is not None and stage.sparsity == pytest.approx(arm.sparsity)
        method, *further = arm.method.split("+")
        assert (stage.method, stage.refine) == (method, "refine" in further)
        assert (stage.reconstruct is not None) == ("reconstruct" in further)
        assert stage.nm == arm.nm and (stage.calibration is not None) == (arm.method != "magnitude")
    assert all(arm in arms for arm in HEADLINE.values())


def test_refine_slope_and_quantizers_reach_the_recipe() -> None:
    calibration = {"source": "calibration"}
    prune = recipe_of(Arm("admm+refine", "70", "slope"), calibration)["stages"][0]["prune"]
    assert prune == {
        "method": "admm",
        "sparsity": 0.7,
        "calibration": {"source": "calibration", "holdout": 0.25},
        "refine": True,
        "allocation": {"kind": "slope"},
    }
    rounded = recipe_of(Arm("sparsegpt", "2:4", quantize="w4a16-rtn"), calibration)["stages"]
    assert rounded[1]["quantize"] == {"scheme": "w4a16", "method": "rtn", "group_size": 64}
    (joint,) = recipe_of(Arm("sparsegpt", "2:4", quantize="w8a8-joint"), calibration)["stages"]
    assert joint["quantize"]["prune"] == {"pattern": "2:4"} and joint["quantize"]["method"] == "gptq"


def test_the_peer_counts_zeros_of_a_group_not_what_stays() -> None:
    assert peer_steps(Arm("sparsegpt", "2:4", peer=True))[0]["pattern"] == "2:4"
    assert peer_steps(Arm("sparsegpt", "1:4", peer=True))[0]["pattern"] == "3:4"
    both = peer_steps(Arm("sparsegpt", "70", quantize="w8a8-gptq", peer=True))
    assert [step["kind"] for step in both] == ["sparsegpt", "gptq"] and both[0]["sparsity"] == pytest.approx(0.7)


def test_arms_are_chosen_by_name_or_glob() -> None:
    assert {arm.pattern for arm in chosen_arms("lc:wanda@*")} == {"50", "60", "70", "80", "2:4", "4:8"}
    assert [arm.name for arm in chosen_arms("lc:sparsegpt@50, magnitude@50")] == ["magnitude@50", "lc:sparsegpt@50"]
    with pytest.raises(ConfigError, match="no arm is called 'spargept@50'"):
        chosen_arms("spargept@50")


# Zeros and errors


def test_zeros_revived_and_broken_are_counted() -> None:
    weight = torch.tensor([[1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0, 4.0], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    mask = weight != 0
    mask[1, 2] = False
    zeros = count_zeros({"a": weight}, {"a": mask}, (2, 4))
    assert (zeros.share, zeros.revived, zeros.pruned) == (9 / 16, 1, 10)
    assert (zeros.broken, zeros.groups) == (1, 4)
    unknown = count_zeros({"a": weight}, None, None)
    assert unknown.revived is unknown.pruned is unknown.broken is unknown.groups is None


def test_linear_errors_equal_a_direct_computation(model_dir: Path) -> None:
    sequences = [tokenizer_of(model_dir)(text(seed, 20))["input_ids"][:24] for seed in range(3)]
    errors = LinearErrors(model_dir, sequences)
    model = load(model_dir)
    name = "model.layers.1.mlp.down_proj"
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0].double()))
    with torch.no_grad():
        for ids in sequences:
            model(input_ids=torch.tensor([ids]))
    hook.remove()
    inputs = torch.cat([rows.flatten(0, 1) for rows in seen])
    dense = model.get_submodule(name).weight.detach().double()
    changed = {key: weight.float().clone() for key, weight in errors.dense.items()}
    changed[name][:, ::2] = 0
    expected = ((changed[name].double() - dense) @ inputs.T).square().sum() / (dense @ inputs.T).square().sum()
    found = errors.of(changed)
    assert found[name] == pytest.approx(float(expected), rel=1e-4)
    assert all(value == 0 for key, value in found.items() if key != name) and len(found) == 14


# Claims


def line(arm: str, seed: int, ppl: float, *, revived: int | None = 0, broken: int | None = 0) -> dict[str, Any]:
    zeros = {"share": 0.5, "revived": revived, "pruned": 100, "broken": broken, "groups": 50}
    return {
        "kind": "arm",
        "model": "m",
        "arm": arm,
        "seed": seed,
        "peer": arm.startswith("lc:"),
        "perplexity": {"t": ppl},
        "zeros": zeros,
        "linear_error": 0.1,
        "seconds": 3.0,
        "cpu_seconds": 2.0,
        "peak_rss": 300_000_000,
        "import_rss": 100_000_000,
    }


DENSE = {"kind": "dense", "model": "m", "perplexity": {"t": 10.0}, "parameters_of_linears": 4_000_000}
OURS70, OURS24 = HEADLINE["70"].name, HEADLINE["2:4"].name


def rounds(*seconds: float) -> list[dict[str, float]]:
    return [{"seconds": value, "cpu_seconds": value / 2} for value in seconds]


def test_excess_reduction() -> None:
    assert excess_reduction(12.0, 14.0, 10.0) == pytest.approx(0.5)
    assert excess_reduction(15.0, 14.0, 10.0) == pytest.approx(-0.25)
    assert excess_reduction(9.0, 10.0, 10.0) is None


def test_time_ratio_is_of_medians() -> None:
    ratio = time_ratio({"a": rounds(1, 9, 2), "b": rounds(4, 3, 8)}, "a", "b")
    assert ratio is not None and ratio.wall == pytest.approx(2 / 4) and ratio.cpu == pytest.approx(2 / 4)
    assert (ratio.low, ratio.high, ratio.rounds) == (1 / 4, 3.0, 3)
    assert time_ratio({"a": rounds(1), "b": [{"error": "no"}]}, "a", "b") is None
    assert time_ratio({"a": rounds(1)}, "a", "b") is None


def test_claims_hold_or_not_or_are_not_measured() -> None:
    lines = [DENSE, line(OURS70, 0, 12.0), line("lc:sparsegpt@70", 0, 14.0), line(OURS70, 1, 13.5)]
    lines += [line("lc:sparsegpt@70", 1, 14.0), line(OURS24, 0, 15.0), line("lc:sparsegpt@2:4", 0, 14.0)]
    times = {"sparsegpt@50": rounds(2, 2), "lc:sparsegpt@50": rounds(4, 4), "sparsegpt+refine@50": rounds(9, 9)}
    lines.append({"kind": "times", "model": "m", "times": times})
    lower70, lower24, excess, same50, refine50, same24, _, zeros = check_claims(lines, "m", "t")
    assert (lower70.holds, lower24.holds, excess.holds) == (True, False, True)
    assert "31.2% on average over 2 seed(s) (12.5% to 50.0%)" in excess.numbers
    assert (same50.holds, refine50.holds, same24.holds) == (True, False, None)
    assert zeros.holds and "3 variants: 0 revived, 0 broken" in zeros.numbers
    lines.append(line("lc:sparsegpt@2:4+w8a8-gptq", 0, 14.0, revived=7, broken=3))
    zeros = check_claims(lines, "m", "t")[-1]
    assert zeros.holds and "7 of 100 revived, 3 of 50 groups broken" in zeros.numbers
    for lost in ({"revived": 1}, {"broken": 1}, {"revived": None}):
        assert check_claims([*lines, line("sparsegpt@2:4", 0, 11.0, **lost)], "m", "t")[-1].holds is False
    assert check_claims(lines, "other", "t") == []


# What people read


def results(arms: list[dict[str, Any]]) -> dict[str, Any]:
    settings = {"samples": 6, "seq": 24, "eval_tokens": 64, "context": 16}
    times = {"sparsegpt@50": rounds(2, 3), "lc:sparsegpt@50": rounds(4, 4)}
    model = {
        "name": "m",
        "sha256": "ab" * 32,
        "training": None,
        "settings": settings,
        "dense": {**DENSE, "calibration": "some text"},
        "arms": arms,
        "times": times,
    }
    machine = {"cpu": "c", "cores": 2, "system": "s", "python": "3"}
    versions = {"ours": {"torch": "2"}, "peer": None}
    return {"command": "cmd", "machine": machine, "versions": versions, "models": [model]}


def test_results_are_written_with_failures_and_bad_news(tmp_path: Path) -> None:
    failed = {"kind": "arm", "model": "m", "arm": "wanda@50", "seed": 0, "peer": False, "error": "E: a | b"}
    arms = [line("sparsegpt@50", 0, 14.0), line("sparsegpt@50", 1, 15.0), line("lc:sparsegpt@50", 0, 13.0), failed]
    arms[0]["events"], arms[1]["events"] = {"refine_reverted": 2}, {"refine_reverted": 3}
    write_results(results(arms), tmp_path)
    shown = (tmp_path / "results.md").read_text()
    counted = "| 0.1000 | 0.500000 | 0 | 0 | 0.50 | 200 | refine_reverted 5 |"
    assert f"| sparsegpt@50 | 2 | 14.500 (14.000 to 15.000) {counted}" in shown
    assert "| wanda@50 | 1 | failed |" in shown and "E: a \\| b" in shown
    assert "Same algorithm no slower than llm-compressor's SparseGPT (50 %) | yes | 0.62 times" in shown
    plain = json.loads((tmp_path / "results.json").read_text())
    assert len(plain["models"][0]["arms"]) == 4 and plain["models"][0]["claims"][0]["holds"] is None
    assert (tmp_path / "m.svg").exists()


def test_spread_and_table() -> None:
    assert spread([1.0]) == "1.000" and spread([1.0, 2.0]) == "1.500 (1.000 to 2.000)"
    assert table(("a", "b"), [("x|y", "1")]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"
    assert "holds" in markdown({**results([]), "models": [{**results([])["models"][0], "claims": []}]})


def test_the_plot_puts_higher_perplexity_higher(tmp_path: Path) -> None:
    arms = [line("sparsegpt@50", 0, 12.0), line("sparsegpt@70", 0, 30.0), line("lc:sparsegpt@50", 0, 13.0)]
    found = curves(arms, "t")
    assert found == {"sparsegpt": [(50, 12.0), (70, 30.0)], "llm-compressor sparsegpt": [(50, 13.0)]}
    root = ElementTree.fromstring(perplexity_plot(found, 10.0, "a & b"))
    ours, peer = (
        [float(n) for n in p.attrib["points"].replace(",", " ").split()] for p in root.iter() if "points" in p.attrib
    )
    assert ours[3] < peer[1] < ours[1] and ours[0] == peer[0] < ours[2]
    assert perplexity_plot({}, 10.0, "nothing") == ""


# Command line


def test_the_command_says_how_and_lists_its_arms() -> None:
    runner = CliRunner()
    shown = runner.invoke(bench_app, ["sparsify", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0 and "--peers" in shown.output and "sparsebench bench sparsify --model" in shown.output
    listed = runner.invoke(bench_app, ["sparsify", "--list", "--arms", "lc:wanda@70", "--out", "x"])
    assert listed.output.split() == ["lc:wanda@70"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "0,x"], "--seeds is a list"),
        (["--arms", "lc:wanda@70"], "--peers names the environment"),
        (["--data", "/nowhere"], "--data /nowhere is no folder"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: list[str], said: str) -> None:
    done = CliRunner().invoke(
        bench_app, ["sparsify", "--out", str(tmp_path / "out"), "--work", str(tmp_path), *options]
    )
    assert isinstance(done.exception, ConfigError) and said in str(done.exception)
