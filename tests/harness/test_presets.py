"""Every preset asks what stock lm-eval asks over the same rows, where lm-eval has the task, or what its source says."""

from __future__ import annotations

import ast
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.engines.base import Completion
from harness.errors import SandboxUnavailable
from harness.evaluate.lm import build_task, render
from harness.evaluate.plan import ChatText, GenSettings
from harness.evaluate.sandbox import open_sandbox
from harness.evaluate.suite import request_ids
from sparsify.progress import NullProgress
from suites.data import Item, load_fewshot, load_items
from suites.errors import SuiteError
from suites.registry import load_suite

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SPARSEBENCH_DATA", ROOT.parent / "shared" / "data"))
TASKS = Path(__import__("importlib.util").util.find_spec("lm_eval").submodule_search_locations[0]) / "tasks"
real_data = pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="no real data; set SPARSEBENCH_DATA to its folder")


def asked(suite_name: str, preset_name: str, *, n: int, data_dir: Path) -> tuple[list[Any], list[Item]]:
    suite = load_suite(suite_name)
    preset = suite.preset(preset_name)
    items = load_items(suite, preset_name, n=n, data_dir=data_dir)
    fewshot = load_fewshot(suite, preset_name, data_dir=data_dir)
    return render(build_task(suite, preset, items, fewshot), chat=suite.asks_by(preset) == "chat"), items


def plain_yaml(file: Path) -> dict[str, Any]:
    """A task file without what its functions are: some download and run programs when they are imported."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: None)
    found: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=Loader)
    return found


def stock(config: dict[str, Any], rows: dict[str, list[dict[str, Any]]], *, n: int) -> Any:
    """A stock task over given rows, rendered as a stock run does without a chat template."""
    from datasets import Dataset
    from lm_eval.tasks import TaskManager

    splits = {name: Dataset.from_list(found) for name, found in rows.items()}
    config = {**config, "dataset_path": None, "dataset_name": None, "custom_dataset": lambda **_: splits}
    task = TaskManager(include_defaults=False).load([config])["tasks"][config["task"]]
    task.set_fewshot_seed(seed=1234)
    task.build_all_requests(limit=n, rank=0, world_size=1)
    return task


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.open(encoding="utf-8")]


@real_data
@pytest.mark.parametrize(("preset", "file"), [("5shot-lm-eval", "gsm8k.yaml"), ("8shot-cot", "gsm8k-cot.yaml")])
def test_gsm8k_is_stock(preset: str, file: str) -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(TASKS / "gsm8k" / file, resolve_func=True)
    rows = {"test": rows_of(DATA / "gsm8k" / "test.jsonl"), "train": rows_of(DATA / "gsm8k" / "train.jsonl")}
    task = stock(config, rows, n=12)
    ours, _ = asked("gsm8k", preset, n=12, data_dir=DATA)
    assert [request.args[0] for request in ours] == [request.args[0] for request in task.instances]
    ours_options, stock_options = ours[0].args[1], task.instances[0].args[1]
    assert ours_options["until"] == stock_options["until"] and ours_options["do_sample"] is False
    assert ours_options["max_gen_toks"] == stock_options.get("max_gen_toks", 256)
    shots = load_suite("gsm8k").preset(preset).num_fewshot
    assert ours[0].args[0].count("Q:" if preset == "8shot-cot" else "Question:") == shots + 1
    if preset == "5shot-lm-eval":
        assert len({request.args[0].split("Question:")[1] for request in ours}) > 1, "examples are drawn anew"


@real_data
def test_gsm8k_for_tuned_models_is_the_bare_question() -> None:
    ours, items = asked("gsm8k", "0shot-finetuned", n=3, data_dir=DATA)
    assert [r.args[0] for r in ours] == [f"Question: {item.doc['question']}\nAnswer:" for item in items]
    assert ours[0].args[1]["until"] == [":", "Question:", "Question"]


@real_data
@pytest.mark.parametrize("name", ["mbpp", "mbpp-sanitized"])
def test_mbpp_is_stock(name: str) -> None:
    config = plain_yaml(TASKS / "mbpp" / "mbpp.yaml")
    # The examples are taken from the source text: importing the module fetches and runs a program.
    tree = ast.parse((TASKS / "mbpp" / "utils.py").read_text())
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "list_fewshot_samples")
    (statement,) = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    samples = ast.literal_eval(statement.value)  # type: ignore[arg-type]
    if name == "mbpp":
        raw = rows_of(DATA / "mbpp" / "mbpp.jsonl")
    else:
        raw = json.loads((DATA / "mbpp" / "sanitized-mbpp.json").read_text())
        raw = [{**row, "text": row["prompt"]} for row in raw]
        known = {row["task_id"]: row for row in raw}
        samples = [{**sample, **known[sample["task_id"]], "is_fewshot": True} for sample in samples]
    test = [row for row in raw if 11 <= row["task_id"] <= 510]
    assert len(test) == (500 if name == "mbpp" else 257)
    config["fewshot_config"]["samples"] = samples
    config["metric_list"] = [{"metric": "bypass", "aggregation": "bypass", "higher_is_better": True}]
    config.pop("unsafe_code")
    task = stock(config, {"test": test}, n=20)
    ours, items = asked("code", name, n=20, data_dir=DATA)
    assert [request.args[0] for request in ours] == [request.args[0] for request in task.instances]
    assert (
        ours[0].args[0].count("[BEGIN]") == 4 and list(ours[0].args[1]["until"]) == config["generation_kwargs"]["until"]
    )
    assert [item.doc["task_id"] for item in items] == [f"Mbpp/{row['task_id']}" for row in test[:20]]
    assert len(load_items(load_suite("code"), name, data_dir=DATA)) == len(test)


@real_data
def test_human_eval_is_stock() -> None:
    from lm_eval.utils import apply_template

    for preset, file in (("greedy", "humaneval.yaml"), ("humaneval-plus", "humaneval.yaml")):
        config = plain_yaml(TASKS / "humaneval" / file)
        items = load_items(load_suite("code"), preset, n=164, data_dir=DATA)
        assert len(items) == 164
        assert all(apply_template(config["doc_to_text"], item.doc) == item.doc["prompt"] for item in items)
        chosen = load_suite("code").preset(preset)
        assert list(chosen.stop) == config["generation_kwargs"]["until"]
        assert chosen.max_new_tokens == config["generation_kwargs"]["max_gen_toks"]
    config = plain_yaml(TASKS / "humaneval" / "humaneval_instruct.yaml")
    ours, items = asked("code", "instruct", n=10, data_dir=DATA)
    turns = [apply_template(config["doc_to_text"], item.doc) for item in items]
    assert all(isinstance(request.args[0], ChatText) for request in ours)
    assert [request.args[0].messages for request in ours] == [({"role": "user", "content": t},) for t in turns]


@real_data
def test_fifty_samples_have_a_journal_row_and_a_seed_each() -> None:
    from harness.evaluate.plan import seed_of

    preset = load_suite("code").preset("n50")
    assert (preset.samples, preset.temperature, preset.top_p) == (50, 0.2, 0.95)
    ours, items = asked("code", "n50", n=2, data_dir=DATA)
    assert [request.args[0] for request in ours] == [item.doc["prompt"].strip() for item in items]
    ids = request_ids(items[0], preset)
    assert len(set(ids)) == 50 and ids[0] == items[0].item_id
    seeds = {seed_of(GenSettings(), name) for name in ids}
    assert len(seeds) == 50


@real_data
def test_ifeval_is_stock() -> None:
    config = plain_yaml(TASKS / "ifeval" / "ifeval.yaml")
    ours, items = asked("instruct", "ifeval", n=541, data_dir=DATA)
    assert [r.args[0].messages[0]["content"] for r in ours] == [item.doc["prompt"] for item in items]
    assert ours[0].args[1]["max_gen_toks"] == config["generation_kwargs"]["max_gen_toks"] == 1280
    assert ours[0].args[1]["until"] == config["generation_kwargs"]["until"] == []
    assert config["doc_to_text"] == "prompt"


SUMMARIES = {
    "cnn": (
        "cnn_dailymail/test.jsonl",
        [{"article": f"A {i}.\nB.", "highlights": f"H {i} .\nI .", "id": f"c{i}"} for i in (1, 2)],
    ),
    "cnn-validation": (
        "cnn_dailymail/validation.jsonl",
        [{"article": f"A {i}.\nB.", "highlights": f"H {i} .", "id": f"c{i}"} for i in (1, 2)],
    ),
    "xsum": ("xsum/test.jsonl", [{"document": f"A {i}.\nB.", "summary": f"H {i}.", "id": f"{i}"} for i in (1, 2)]),
}  # rows in the form of the hub's data sets


@pytest.mark.parametrize("preset", SUMMARIES)
def test_summaries_are_asked_for_as_the_source_says(preset: str, tmp_path: Path) -> None:
    from lm_eval.utils import apply_template

    path, rows = SUMMARIES[preset]
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    ours, items = asked("summarization", preset, n=2, data_dir=tmp_path)
    assert [item.doc["id"] for item in items] == [row["id"] for row in rows]
    texts = [request.args[0] for request in ours]
    articles = [row.get("article", row.get("document")) for row in rows]
    if preset == "cnn":
        config = plain_yaml(TASKS / "cnn_dailymail" / "cnn_dailymail.yaml")
        assert texts == [apply_template(config["doc_to_text"], row) for row in rows]
        assert ours[0].args[1]["max_gen_toks"] == config["generation_kwargs"]["max_gen_toks"]
        # lm-eval's own default where a task names no stop
        assert "until" not in config["generation_kwargs"] and ours[0].args[1]["until"] == ["\n\n"]
    elif preset == "xsum":
        assert texts == [f"###\nArticle: {a}\n\nSummarize the above article in 1 sentence.\n" for a in articles]
    else:
        assert texts == [f"Article:\n{a}\n\n### Summarization:\n" for a in articles]


@real_data
def test_dialogsum_has_three_references() -> None:
    items = load_items(load_suite("summarization"), "dialogsum", data_dir=DATA)
    assert len(items) == 500 and {len(item.doc["highlights"]) for item in items} == {3}
    assert items[0].doc["id"] == "test_0"


MMLU = [
    {"question": f" What is {i}? ", "subject": subject, "choices": [f"{i}{c}" for c in "abcd"], "answer": i % 4}
    for i in range(7)
    for subject in ("anatomy", "high_school_us_history", "econometrics")
]


@pytest.mark.parametrize("preset", ["0shot", "5shot"])
def test_mmlu_asks_by_the_task_of_each_subject(preset: str, tmp_path: Path) -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    from harness.evaluate.choice import parts

    (tmp_path / "mmlu").mkdir()
    for split, rows in (("test", MMLU), ("dev", MMLU[::-1])):
        (tmp_path / "mmlu" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = load_suite("mmlu")
    items, fewshot = load_items(suite, preset, data_dir=tmp_path), load_fewshot(suite, preset, data_dir=tmp_path)
    assert {item.cluster for item in items} == {row["subject"] for row in MMLU}
    groups = parts(suite, items, fewshot)
    assert sum(len(group) for group, _ in groups) == len(MMLU) and len(groups) == 3
    for group, examples in groups:
        subject = group[0].doc["subject"]
        config = load_yaml(TASKS / "mmlu" / "default" / f"mmlu_{subject}.yaml", resolve_func=True)
        config["num_fewshot"] = suite.preset(preset).num_fewshot
        rows = {"test": [row for row in MMLU if row["subject"] == subject]}
        rows["dev"] = [row for row in MMLU[::-1] if row["subject"] == subject]
        task = stock(config, rows, n=99)
        ours = render(build_task(suite, suite.preset(preset), group, examples), chat=False)
        assert [request.args for request in ours] == [request.args for request in task.instances]
        assert ours[0].args[0].startswith("The following are multiple choice questions (with answers) about")
        assert ours[0].args[0].count("Answer:") == 1 + config["num_fewshot"] and len(ours) == 4 * len(group)
    with pytest.raises(SuiteError, match="no task for subject 'cooking'"):
        suite.task_of(suite.preset(preset), "cooking")


class _Scripted:
    """An engine that solves every problem for odd seeds only, and remembers what it was asked."""

    name, context_length = "scripted", 10_000

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers, self.requests = answers, []

    def encode(self, text: str | None = None, *, chat: Any = None) -> list[int]:
        return [len(str(text or chat))]

    def generate_batch(self, requests: Any) -> list[Completion]:
        self.requests += requests
        answer = self.answers
        return [
            Completion(
                r.request_id, answer[r.request_id.split("~")[0]] if r.seed % 2 else "    return 1\n", 1, 1, "stop", 0.0
            )
            for r in requests
        ]


@real_data
def test_fifty_samples_become_one_paired_item(tmp_path: Path) -> None:
    from harness.cells import Cell, plan_suites, run_cell
    from harness.layout import Layout
    from harness.records import read_samples
    from harness.study import parse_study

    try:
        open_sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    body = {"name": "s", "variants": {"m": {"path": "x"}}, "suites": {"code": {"preset": "n50", "n": 2}}}
    plan = plan_suites(parse_study(body, where="test"), DATA)["code"]
    assert plan.requests() == 100 and (plan.settings.temperature, plan.settings.top_p) == (0.2, 0.95)
    cell = Cell("m", plan, "scripted/float32", Layout(tmp_path))
    model = tmp_path / "variants" / "m"
    engine = _Scripted({item.item_id: item.doc["canonical_solution"] for item in plan.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.cells.model_fingerprint", lambda directory: {"weights": "w"})
        run_cell(cell, engine, sandbox_refusal=None, progress=NullProgress())
    assert not model.exists()
    rows = read_samples(cell.layout.samples("m", "code"))
    assert [len(row.outputs) for row in rows] == [50, 50] and len({r.seed for r in engine.requests}) == 100
    assert {(r.temperature, r.top_p) for r in engine.requests} == {(0.2, 0.95)}
    for row in rows:
        right = sum("return 1\n" not in output for output in row.outputs)
        assert 10 < right < 40
        assert row.scores["pass@1"] == pytest.approx(right / 50)
        assert row.scores["pass@10"] == pytest.approx(1 - math.comb(50 - right, 10) / math.comb(50, 10))
