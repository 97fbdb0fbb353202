"""Text that the papers train and calibrate on: its form, where it comes from, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.corpus import prompt_renderer, resolve_corpus
from harness.errors import ConfigError
from sparsify.corpus import read_rows
from sparsify.dataset import DatasetName
from sparsify.errors import RecipeError

ROW = {"question": "How many is 2 and 3?", "answer": "2+3=<<2+3=5>>5\n#### 5"}


def data_dir(tmp_path: Path, rows: list[Any]) -> Path:
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data" / "gsm8k" / "train.jsonl").write_text(text, encoding="utf-8")
    return tmp_path / "data"


def test_gsm8k_is_taught_in_the_form_in_which_it_is_asked(tmp_path: Path) -> None:
    path = resolve_corpus("task:gsm8k", tmp_path / "corpora", data_dir=data_dir(tmp_path, [ROW]))
    (row,) = read_rows(path)
    assert row["prompt"] == "Question: How many is 2 and 3?\nAnswer:"
    assert row["completion"] == " 2+3=<<2+3=5>>5\n#### 5"
    assert prompt_renderer("gsm8k")(ROW) == row["prompt"]  # as the suite's task.yaml renders it


def test_the_hub_is_asked_for_the_pinned_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(*names: Any, **options: Any) -> list[dict[str, str]]:
        asked.append((*names, options["split"], options["revision"]))
        return [{"text": ""}, {"text": " = Title = \n"}, {"text": "A line .\n"}] if "wikitext" in names[0] else [ROW]

    monkeypatch.setattr(datasets, "load_dataset", load)
    running = resolve_corpus("task:wikitext2", tmp_path)
    assert running.suffix == ".txt" and running.read_text() == "= Title =\n\nA line .\n"
    assert [row["prompt"] for row in read_rows(resolve_corpus("task:gsm8k", tmp_path))] == [
        "Question: How many is 2 and 3?\nAnswer:"
    ]
    assert resolve_corpus("task:gsm8k", tmp_path).is_file()  # the second time it is there
    assert [entry[:3] for entry in asked] == [
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "train"),
        ("openai/gsm8k", "main", "train"),
    ]
    assert all(len(entry[3]) == 40 for entry in asked)


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ConfigError, match=r"cannot be fetched \(no route to host\); connect to the hub, or give the"):
        resolve_corpus("task:gsm8k", tmp_path)
    with pytest.raises(ConfigError, match="corpus 'task:gsm9k' is unknown; there are task:gsm8k, task:wikitext2"):
        resolve_corpus("task:gsm9k", tmp_path)
    with pytest.raises(ConfigError, match="row 2 has no text in 'answer'; it is no row of openai/gsm8k"):
        resolve_corpus("task:gsm8k", tmp_path, data_dir=data_dir(tmp_path, [ROW, {"question": "x"}]))
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_data_set_is_named_with_commit_and_file(tmp_path: Path) -> None:
    found = DatasetName.parse("hub:allenai/c4/en:train@abc123#en/one.json.gz")
    assert found == DatasetName("allenai/c4", "en", "train", "abc123", "en/one.json.gz")
    assert found.options() == {"split": "train", "revision": "abc123", "data_files": {"train": "en/one.json.gz"}}
    assert found.options("other")["revision"] == "abc123"
    plain = DatasetName.parse("hub:owner/name")
    assert plain.options() == {"split": "train"} and plain.options("c")["revision"] == "c"
    assert DatasetName.parse(f"hub:{tmp_path}").options("c") == {"split": "train"}
    with pytest.raises(RecipeError, match="is not hub:OWNER/NAME"):
        DatasetName.parse("hub:a/b/c/d@x")
