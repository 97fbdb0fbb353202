"""Zero-shot suites: prompts and scores are those of stock lm-eval over the same rows; resuming; what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.evaluate.plan import GenSettings
from harness.evaluate.suite import evaluate_suite, score_rows
from harness.journal import Journal
from suites.data import load_items
from suites.errors import DataMissingError, SuiteError
from suites.multiple_choice import score, shown
from suites.registry import ROOT, ZEROSHOT, load_suite, suite_hash
from suites.verify import verify

POCKET = ROOT / "pocket" / "model"
SETTINGS = GenSettings(batch_size=1)
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn")
THINGS = ("cups", "pens", "bags", "keys", "hats", "nuts")


def rows_of(name: str) -> list[dict[str, Any]]:
    """A few rows in the hub's form, with what the tasks' own code treats apart: brackets, unequal lengths, blanks."""
    out: list[dict[str, Any]] = []
    for i, (who, what) in enumerate(zip(NAMES, THINGS, strict=True)):
        if name == "piqa":
            long = f"put the {what} into a box and close it"
            out.append({"goal": f"Store {i + 2} {what}.", "sol1": long, "sol2": f"eat {what}", "label": i % 2})
        elif name == "winogrande":
            said = f"{who} gave {what} to Kim because _ had too many {what}."
            out.append({"sentence": said, "option1": who, "option2": "Kim", "answer": str(1 + i % 2)})
        elif name == "hellaswag":
            endings = [f"sells {what}. [title] Then rests.", f"buys  {i} {what}.", "leaves [step].", "has none"]
            told = {"activity_label": f"Buying {what}", "ctx_a": f"{who} walks.", "ctx_b": "she" if i % 2 else ""}
            out.append({"ind": i, **told, "endings": endings, "source_id": f"s~{i // 2}", "label": str(i % 4)})
        else:
            labels = ["A", "B", "C", "D"][: 3 + i % 2] if i else ["1", "2", "3"]
            texts = [f"{i + j} {what}" for j in range(len(labels))]
            asked = f"{who} has {i} {what}. How many {what} are there?"
            out.append({"question": asked, "choices": {"text": texts, "label": labels}, "answerKey": labels[i % 3]})
    return out


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ZEROSHOT:
        full = load_suite(name).full
        assert full is not None and full.local is not None
        path = folder / full.local.path
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(name)))
    return folder


@pytest.fixture(scope="module")
def engine() -> Any:
    if not (POCKET / "config.json").is_file():
        pytest.skip("the pocket model is not in this checkout (suites/pocket/model)")
    from harness.engines.torch import TorchEngine

    return TorchEngine.load(POCKET, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def stock(data_dir: Path, engine: Any) -> dict[str, list[dict[str, Any]]]:
    """lm-eval's own samples: its task files as they are, but for where rows come from; its own model class."""
    pytest.importorskip("accelerate", reason="lm-eval's own hf model needs accelerate: pip install accelerate")
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks._yaml_loader import load_yaml

    configs = []
    for name in ZEROSHOT:
        suite = load_suite(name)
        assert suite.task_file is not None and suite.full is not None and suite.full.local is not None
        config = load_yaml(suite.task_file, resolve_func=True)
        files = {"data_files": {"test": str(data_dir / suite.full.local.path)}}
        splits = {"test_split": "test", "validation_split": None, "training_split": None}
        configs.append(config | splits | {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": files})
    model = HFLM(pretrained=str(POCKET), device="cpu", dtype="float32", batch_size=1)
    found = lm_eval.simple_evaluate(model, tasks=configs, log_samples=True, bootstrap_iters=0)
    return {name: found["samples"][name] for name in ZEROSHOT}


@pytest.mark.parametrize("name", ZEROSHOT)
def test_likelihoods_and_scores_are_those_of_stock_lm_eval(
    name: str, engine: Any, stock: dict[str, list[dict[str, Any]]], data_dir: Path, tmp_path: Path
) -> None:
    suite = load_suite(name)
    items = load_items(suite, "0shot", data_dir=data_dir)
    with Journal(tmp_path / "cell.jsonl", {}) as journal:
        rows = evaluate_suite(engine, suite, items, preset="0shot", journal=journal, settings=SETTINGS)
    scores = score_rows(suite, items, rows)
    assert len(items) == len(stock[name]) == len(NAMES)
    for row, found, sample in zip(rows, scores, sorted(stock[name], key=lambda s: int(s["doc_id"])), strict=True):
        sums = [float(text.split(" ", 1)[0]) for text in row.outputs]
        assert sums == pytest.approx([float(answer[0][0]) for answer in sample["resps"]], abs=2e-4)
        assert {metric: found[metric] for metric in ("acc", "acc_norm") if metric in sample} == {
            metric: sample[metric] for metric in ("acc", "acc_norm") if metric in sample
        }
    assert suite.primary_metric in stock[name][0]
    if (
        name != "hellaswag"
    ):  # a comparison of zeros with zeros would show nothing; its six rows happen to come out alike
        assert len({found["acc"] for found in scores}) == 2, scores


def test_an_interrupted_cell_goes_on_where_it_was(engine: Any, data_dir: Path, tmp_path: Path) -> None:
    class Cut:
        """Fails after three batches."""

        def __init__(self) -> None:
            self.left = 3
            self.name, self.encode = engine.name, engine.encode

        def loglikelihoods(self, pairs: Any) -> Any:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return engine.loglikelihoods(pairs)

    suite = load_suite("piqa")
    items = load_items(suite, "0shot", data_dir=data_dir)

    def run(executes: Any, path: Path) -> Any:
        with Journal(path, {}) as journal:
            return evaluate_suite(
                executes, suite, items, preset="0shot", journal=journal, settings=GenSettings(batch_size=2)
            )

    with pytest.raises(KeyboardInterrupt):
        run(Cut(), tmp_path / "a.jsonl")
    kept = len((tmp_path / "a.jsonl").read_text().splitlines()) - 1
    assert kept == 6
    assert [row.outputs for row in run(engine, tmp_path / "a.jsonl")] == [
        row.outputs for row in run(engine, tmp_path / "b.jsonl")
    ]


def test_scores_by_hand() -> None:
    told = [shown(-10.0, "twenty letters here."), shown(-8.0, "short")]
    assert score({"gold": 0}, told) == {"acc": 0.0, "acc_norm": 1.0}  # -0.5 a character against -1.6
    assert score({"gold": 1}, told) == {"acc": 1.0, "acc_norm": 0.0}
    assert score({"gold": 0}, [shown(-1.0, "a"), shown(-1.0, "b")])["acc"] == 1.0, "the first of equals"
    assert score({"gold": 0}, [shown(-1.0, ""), shown(-5.0, "b")]) == {"acc": 1.0, "acc_norm": 0.0}
    assert score({"gold": 0}, "") == {"acc": 0.0, "acc_norm": 0.0}, "what could not be asked is wrong"


def test_clusters_hashes_and_files(data_dir: Path, tmp_path: Path) -> None:
    items = load_items(load_suite("hellaswag"), "0shot", data_dir=data_dir)
    assert [item.cluster for item in items] == ["s~0", "s~0", "s~1", "s~1", "s~2", "s~2"]
    assert len({suite_hash(load_suite(name)) for name in ZEROSHOT}) == len(ZEROSHOT)
    assert {status.suite for status in verify(data_dir) if status.ok} >= set(ZEROSHOT)
    with pytest.raises(DataMissingError, match="piqa/validation.jsonl is missing"):
        load_items(load_suite("piqa"), "0shot", data_dir=tmp_path)


def test_arc_in_the_original_form_reads_the_same(tmp_path: Path) -> None:
    suite = load_suite("arc_easy")
    (tmp_path / "arc_easy").mkdir()
    file = tmp_path / "arc_easy" / "test.jsonl"
    row = rows_of("arc_easy")[0]
    texts, labels = row["choices"]["text"], row["choices"]["label"]
    parts = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    original = {"id": "x", "question": {"stem": row["question"], "choices": parts}, "answerKey": row["answerKey"]}
    docs = []
    for version in (row, original):
        file.write_text(json.dumps(version) + "\n")
        docs.append(load_items(suite, "0shot", data_dir=tmp_path)[0].doc)
    assert docs[0] == docs[1] and docs[0]["gold"] == 0


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("piqa", {"label": -1}, "names none of the 2 choices"),
        ("piqa", {"label": None}, "test splits have no labels"),
        ("piqa", {"sol2": ""}, "field sol2 is missing"),
        ("winogrande", {"answer": ""}, "neither 1 nor 2"),
        ("winogrande", {"sentence": "No blank."}, "no '_' to be filled"),
        ("hellaswag", {"label": "4"}, "names none of the 4 choices"),
        ("hellaswag", {"endings": "a"}, "not a list of texts"),
        ("arc_easy", {"answerKey": "E"}, "none of the labels"),
        ("arc_challenge", {"choices": None}, "field choices is missing"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(name: str, change: dict[str, Any], told: str, tmp_path: Path) -> None:
    suite = load_suite(name)
    assert suite.full is not None and suite.full.local is not None
    path = tmp_path / suite.full.local.path
    path.parent.mkdir()
    rows = rows_of(name)
    rows[1] |= change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SuiteError, match=rf"{path.name}:2: .*{told}"):
        load_items(suite, "0shot", data_dir=tmp_path)


def test_a_study_runs_zero_shot_suites_from_the_command_line(data_dir: Path, tmp_path: Path, engine: Any) -> None:
    from typer.testing import CliRunner

    from harness.cli import app

    command = ["eval", str(POCKET), "--suite", "piqa", "--suite", "arc_easy", "--data-dir", str(data_dir)]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), "--jobs", "1", "-q", "--offline"])
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (variant,) = summary["variants"]
    assert variant["suites"]["piqa"]["n"] == len(NAMES)
    rows = (tmp_path / "out" / "records" / "samples" / "model.piqa.jsonl").read_text().splitlines()
    samples = [json.loads(row) for row in rows]
    right = sum(sample["scores"]["acc_norm"] for sample in samples)
    assert variant["suites"]["piqa"]["value"] == pytest.approx(right / len(NAMES))
    assert samples[0]["outputs"][1].endswith(" eat cups") and len(samples[0]["outputs"]) == 2
