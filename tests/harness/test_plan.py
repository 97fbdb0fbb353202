"""Batches, cell keys and scores of planned prompts; no model is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.evaluate.plan import GenRow, GenSettings, Prompt, plan_batches, worst
from harness.evaluate.suite import cell_key, score_rows
from harness.journal import Journal
from suites.data import Item, load_items
from suites.errors import SuiteError
from suites.pocket.draw import doc_hash
from suites.registry import Suite, load_suite, read_suite

SETTINGS = GenSettings(batch_size=3, max_new_tokens=6)


def items_of(*docs: dict[str, Any], name: str = "toy") -> list[Item]:
    return [Item(f"{name}/{i:05d}", doc_hash(d), d, None, None, False, str(i)) for i, d in enumerate(docs)]


def sums(n: int) -> list[Item]:
    return items_of(
        *({"question": f"What is {i} plus {'1' * i}?", "answer": f"#### {i}"} for i in range(n)), name="gsm8k"
    )


def toy_suite(folder: Path, prompt: str) -> Suite:
    header = "name: toy\nversion: 1\nprimary_metric: a\nmargin: 0.1\npresets: {p: {data: pocket, max_new_tokens: 5}}\n"
    (folder / "suite.yaml").write_text(header + f"prompt: {prompt}\n")
    return read_suite(folder)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4), max_size=20),
    size=st.integers(1, 5),
    order=st.randoms(use_true_random=False),
)
def test_batches_follow_from_the_set_of_prompts(lengths: list[int], size: int, order: Any) -> None:
    prompts = [(Prompt(f"r{i}", f"i{i}", 0, "x" * n, 8), n) for i, n in enumerate(lengths)]
    batches = plan_batches(prompts, size)
    flat = [prompt for batch in batches for prompt in batch]
    assert sorted(p.request_id for p in flat) == sorted(p.request_id for p, _ in prompts)
    assert all(len(batch) == size for batch in batches[:-1])
    assert [len(p.text) for p in flat] == sorted(lengths, reverse=True)
    shuffled = list(prompts)
    order.shuffle(shuffled)
    assert plan_batches(shuffled, size) == batches


def test_scores_are_the_suites_own_and_unanswered_rows_get_none(tmp_path: Path) -> None:
    suite, items = load_suite("gsm8k"), sums(3)
    fields: dict[str, Any] = {"prompt_hash": "", "n_in": [1], "n_out": [1], "finish": ["stop"], "seconds": 0.0}
    rows = [
        GenRow(item_id=items[i].item_id, outputs=[f"#### {i}"], status=status, **fields)
        for i, status in enumerate(("ok", "truncated_output", "error"))
    ]
    assert [s["exact_match_strict"] for s in score_rows(suite, items, rows)] == [1.0, 1.0, 0.0]
    with pytest.raises(SuiteError, match="do not belong together"):
        score_rows(suite, items[::-1], rows)
    conversation = items_of({"turns": ["a", "b"], "category": "pocket/x", "reference": ["A", "B"]}, name="chat")
    row = GenRow(item_id="chat/00000", outputs=["A.", "b"], status="ok", **fields)
    assert score_rows(load_suite("chat"), conversation, [row])[0]["turns"] == [1.0, 1.0]
    lost = GenRow(item_id="chat/00000", outputs=["A", "B"], status="truncated_input", **fields)
    assert score_rows(load_suite("chat"), conversation, [lost])[0]["turns"] == [0.0, 0.0]


def test_the_worst_turn_decides() -> None:
    assert worst(["ok", "truncated_output"]) == "truncated_output"
    assert worst(["truncated_input", "truncated_output"]) == "truncated_input"
    assert worst(["error", "truncated_input"]) == "error"


def test_the_key_names_all_that_rows_depend_on(tmp_path: Path) -> None:
    suite, items = load_suite("gsm8k"), load_items(load_suite("gsm8k"), "pocket", n=3)
    model = {"weights_sha256": "w", "tokenizer_sha256": "t", "chat_template_sha256": None}

    def key(**changes: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"preset": "pocket", "settings": SETTINGS, "engine": "torch", "model": model, **changes}
        return cell_key(given.pop("suite", suite), given.pop("items", items), **given)

    assert key() == key() and {"weights_sha256", "suite_hash", "batch_size", "seed", "plan_sha256"} <= set(key())
    changed = [
        key(items=items[:2]),
        key(items=items[::-1]),
        key(fewshot=[{"question": "q", "answer": "#### 1"}]),
        key(settings=GenSettings(batch_size=4, max_new_tokens=6)),
        key(settings=GenSettings(batch_size=3, max_new_tokens=6, seed=1)),
        key(engine="sparse"),
        key(model={**model, "weights_sha256": "v"}),
        key(preset="5shot"),
    ]
    assert all(other != key() for other in changed)
    with Journal(tmp_path / "cell.jsonl", key()):
        pass
    with pytest.raises(ConfigError, match="differs in batch_size"):
        Journal(tmp_path / "cell.jsonl", changed[3])
