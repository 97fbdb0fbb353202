"""Study files: what is accepted, what is refused and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import harness.engines.sparse
from harness.cells import engine_of_cells
from harness.engines import resolve_engine
from harness.errors import ConfigError
from harness.study import builtin_studies, load_study, parse_study

MINI = {"models": {"p": {"path": "pocket"}}, "variants": {"dense": {"from": "p"}}, "suites": {"gsm8k": {"n": 5}}}


def write(tmp_path: Path, **changes: object) -> str:
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump({**MINI, **changes}))
    return str(path)


def test_the_pocket_study_has_the_ten_variants_and_five_suites() -> None:
    assert "pocket" in builtin_studies()
    study = load_study("pocket")
    assert list(study.variants) == [
        "dense",
        "dense-finetuned",
        "sparse50",
        "sparse70",
        "2of4",
        "int8",
        "2of4-int8",
        "sparse70-recovered",
        "sparse70-recovered-int8",
        "slice25-recovered",
    ]
    assert set(study.suites) == {"chat", "instruct", "code", "gsm8k", "summarization"}
    assert {panel.workload for panel in study.speed} == {"decode", "prefill"}
    assert study.baseline_of("dense") is None
    assert study.baseline_of("int8") == "dense"
    assert study.baseline_of("sparse70-recovered") == "dense-finetuned"


def test_engines_of_suites_and_panels(tmp_path: Path) -> None:
    assert load_study(write(tmp_path)).engine.name == "torch"
    by_name = load_study(write(tmp_path, engine="sparse"))
    assert by_name.engine == load_study(write(tmp_path, engine={"name": "sparse"})).engine
    (panel,) = load_study(write(tmp_path, speed=[{"workload": "decode", "engines": ["sparse"]}])).speed
    assert (panel.engine, panel.engines) == ("torch", ("sparse",))
    assert {engine for panel in load_study("pocket").speed for engine in panel.engines} == {"sparse"}


def test_auto_is_engine_sparse_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for why, engine in ((None, "sparse"), ("the kernels were not built", "torch")):
        monkeypatch.setattr(harness.engines.sparse, "kernels_problem", lambda why=why: why)
        assert resolve_engine("auto") == engine
        assert engine_of_cells(load_study("pocket"), "cpu") == f"{engine}/float32"
    assert resolve_engine("auto", device="cuda") == "torch"
    assert [resolve_engine(name) for name in ("torch", "sparse")] == ["torch", "sparse"]


def test_the_hash_covers_what_decides_results_and_nothing_else(tmp_path: Path) -> None:
    one = load_study(write(tmp_path)).hash
    assert load_study(write(tmp_path, description="other words")).hash == one
    rules = [{"rule": "sparsity", "variant": "dense", "at_least": 0.5}]
    assert load_study(write(tmp_path, gates=rules)).hash == one
    assert load_study(write(tmp_path, suites={"gsm8k": {"n": 6}})).hash != one
    assert load_study(write(tmp_path, seed=1)).hash != one


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "fast"}, "engine: unknown engine 'fast'; choose one of torch, sparse, auto, vllm, openai"),
        ({"engine": {"name": "sparse", "dtype": "float16"}}, "engine sparse knows dtype float32 and bfloat16"),
        ({"speed": [{"workload": "decode", "engines": ["sparse"], "dtype": "float16"}]}, "not float16"),
        ({"speed": [{"workload": "decode", "engines": ["torch"]}]}, "named twice"),
        ({"suites": {"gsm9k": {}}}, "unknown suite 'gsm9k'; choose one of chat"),
        ({"sweets": 1}, "sweets: unknown key; allowed: version, name"),
        ({"variants": {"dense": {"from": "p", "recipes": "x"}}}, "recipes: unknown key; allowed: from, recipe"),
        ({"variants": {"dense": {"from": "q"}}}, "model 'q' is not in models: p"),
        ({"variants": {"dense": {"from": "p", "path": "x"}}}, "either `from`"),
        ({"variants": {"a/b": {"from": "p"}}}, "not a folder name"),
        ({"variants": {"x": {"path": "d", "recipe": "int8"}}}, "takes no recipe"),
        ({"variants": {"dense": {"from": "p", "baseline": "no"}}}, "baseline 'no' is not in variants"),
        ({"suites": {"gsm8k": {"n": 0}}}, "greater than 0"),
        ({"gates": [{"rule": "nonsense"}]}, "gates"),
    ],
)
def test_wrong_studies_get_one_line(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_study(write(tmp_path, **changes))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_study_names_the_built_in_ones() -> None:
    with pytest.raises(ConfigError, match="no study 'pockets'; give a YAML file or one of pocket"):
        load_study("pockets")


def test_a_kept_study_of_endpoints_can_be_read_again() -> None:
    from harness.gate.command import study_as_written

    body = {
        "name": "served",
        "engine": {"name": "openai", "base_url": "http://127.0.0.1:8000/v1"},
        "variants": {"a": {"endpoint": {"model": "m"}}},
        "suites": {"gsm8k": {}},
        "gates": [{"rule": "same_outputs"}],
    }
    study = parse_study(body, where="test")
    assert parse_study(study_as_written(study.resolved()), where="kept").gates == study.gates
