"""Training text is rendered as the suite asks: what a model is trained on is what it will be shown."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from harness.corpus import held_out, resolve_corpus, train_row, train_rows
from harness.errors import ConfigError
from harness.evaluate.plan import ChatText
from suites.data import Item
from suites.pocket import items as pocket
from suites.pocket.draw import doc_hash
from suites.pocket.items import SKILLS, prompt_text, train_items
from suites.registry import load_suite


@pytest.mark.parametrize("skill", SKILLS)
def test_rows_hold_the_item_and_its_answer(skill: str) -> None:
    for draw in itertools.islice(train_items(skill, seed=5), 40):
        row = train_row(skill, draw)
        if "messages" in row:
            shown = "\n".join(m["content"] for m in row["messages"] if m["role"] == "user")
            said = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        else:
            shown, said = row["prompt"], [row["completion"]]
        assert prompt_text(draw) in shown
        assert said == ([draw.response] if isinstance(draw.response, str) else list(draw.response))
        assert row["item_hash"] == doc_hash(draw.doc)


@pytest.mark.parametrize("skill", ["gsm8k", "instruct", "summarization"])
def test_the_training_prompt_is_the_one_that_lm_eval_renders(skill: str) -> None:
    from harness.evaluate.lm import build_task, render

    suite = load_suite(skill)
    draws = list(itertools.islice(train_items(skill, seed=6), 3))
    items = [
        Item(f"{skill}/{i}", doc_hash(draw.doc), dict(draw.doc), None, None, False, str(i))
        for i, draw in enumerate(draws)
    ]
    task = build_task(suite, suite.preset("pocket"), items, [])
    asked = [instance.args[0] for instance in render(task, chat=True)]
    ours = [ChatText.of([train_row(skill, draw)["messages"][0]]) for draw in draws]
    assert sorted(asked) == sorted(ours)


def test_corpus_names_become_files_and_wrong_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.corpus.MIX_ROWS", 50)
    path = resolve_corpus("suite:mix/train", tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 50 and path.read_bytes() == resolve_corpus("suite:mix/train", tmp_path).read_bytes()
    assert rows == list(itertools.islice(train_rows("mix", seed=1), 50))
    for wrong in ("suite:poetry/train", "suite:gsm8k/test", str(tmp_path / "none.jsonl")):
        with pytest.raises(ConfigError, match="suite:"):
            resolve_corpus(wrong, tmp_path)


@pytest.mark.parametrize("skill", SKILLS)
def test_no_test_item_becomes_training_text(skill: str, tmp_path: Path) -> None:
    """Every test item is refused as a row, and in a file however it is marked; no drawn row is one."""
    items = pocket.test_items(skill)
    for draw in items[::50]:
        with pytest.raises(ConfigError, match=f"is a test item of {skill}"):
            train_row(skill, draw)
    rows = list(itertools.islice(train_rows(skill, seed=1), 2000))
    assert not {row["item_hash"] for row in rows} & held_out(skill)
    assert len(held_out(skill)) >= 2 * len(items) - 50


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("marked", [True, False])
def test_a_file_with_a_test_item_is_refused(
    skill: str, marked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = list(itertools.islice(train_rows(skill, seed=1), 3))
    with monkeypatch.context() as patch:
        patch.setattr("harness.corpus.held_out", lambda _skill: frozenset())
        bad = train_row(skill, pocket.test_items(skill)[7])
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in good))
    assert resolve_corpus(str(path), tmp_path) == path
    leaked = (
        bad if marked else {key: value for key, value in bad.items() if key in ("messages", "prompt", "completion")}
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in [*good, leaked]))
    with pytest.raises(ConfigError, match=r"mine.jsonl:4 is a test item of a suite; remove it"):
        resolve_corpus(str(path), tmp_path)
