"""Training text is rendered as the suite asks: what a model is trained on is what it will be shown."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from harness.corpus import resolve_corpus, train_row, train_rows
from harness.errors import ConfigError
from harness.evaluate.plan import ChatText
from suites.data import Item
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
