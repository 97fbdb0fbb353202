"""From a suite's items to journaled rows: prompts, batches, resuming, conversations, scores; on a small real model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.engines.base import Completion, Request
from harness.errors import CorruptRecordError, EngineError
from harness.evaluate.plan import ChatText, GenRow, GenSettings, Prompt
from harness.evaluate.suite import evaluate_suite, score_rows
from harness.journal import Journal
from suites.data import Item, load_fewshot, load_items
from suites.errors import SuiteError
from suites.pocket.draw import doc_hash
from suites.registry import ROOT, Suite, load_suite, read_suite

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SETTINGS = GenSettings(batch_size=3, max_new_tokens=6)


class Stopped(Exception):
    """Stands for a crash between two batches."""


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any]:
    """A random two-layer Llama and a byte-level tokenizer with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(special + letters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=special[1:],
        chat_template=TEMPLATE,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(special) + len(letters),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=640,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=0,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


@pytest.fixture
def engine(parts: tuple[Any, Any]) -> Any:
    from harness.engines.torch import TorchEngine

    class Watched(TorchEngine):
        """The torch engine; remembers its batches and can stop after a number of them."""

        def __init__(self, model: Any, tokenizer: Any) -> None:
            super().__init__(model, tokenizer, label="tiny")
            self.batches: list[list[Request]] = []
            self.stop_after: int | None = None

        def generate_batch(self, requests: Sequence[Request]) -> list[Completion]:
            if self.stop_after is not None and len(self.batches) >= self.stop_after:
                raise Stopped
            self.batches.append(list(requests))
            return super().generate_batch(requests)

    return Watched(*parts)


class Ticks:
    """Remembers progress."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def update(self, done: float, total: float, note: str = "") -> None:
        self.seen.append((done, total))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "cell.jsonl", {}) as opened:
        yield opened


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


def text_of(engine: Any, request: Request) -> str:
    return str(engine.tokenizer.decode(list(request.prompt_ids)))


def test_gsm8k_prompts_are_the_chat_template_over_the_question(engine: Any, journal: Journal) -> None:
    items, ticks = sums(7), Ticks()
    rows = evaluate_suite(
        engine, load_suite("gsm8k"), items, preset="pocket", journal=journal, settings=SETTINGS, progress=ticks
    )
    assert [row.item_id for row in rows] == [item.item_id for item in items]
    asked = {r.request_id: r for batch in engine.batches for r in batch}
    for item, row in zip(items, rows, strict=True):
        message = {"role": "user", "content": f"Question: {item.doc['question']}\nAnswer:"}
        expected = engine.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        assert text_of(engine, asked[item.item_id]) == expected
        assert (
            row.n_in == [len(engine.encode(chat=[message]))]
            and row.prompt_hash == Prompt("", "", 0, ChatText.of([message]), 1).hash
        )
        assert asked[item.item_id].max_new_tokens == 6 and asked[item.item_id].stop == ()
    assert [len(batch) for batch in engine.batches] == [3, 3, 1]
    assert ticks.seen == [(3, 7), (6, 7), (7, 7)]
    assert len({row.outputs[0] for row in rows}) > 1, "the small model must say different things"


def test_a_crash_changes_nothing(engine: Any, parts: Any, tmp_path: Path) -> None:
    suite, items = load_suite("gsm8k"), sums(8)

    def go(path: Path) -> list[GenRow]:
        with Journal(path, {}) as journal:
            return evaluate_suite(engine, suite, items, preset="pocket", journal=journal, settings=SETTINGS)

    whole = [(r.item_id, r.outputs, r.n_out, r.status) for r in go(tmp_path / "whole.jsonl")]
    plan = [[r.request_id for r in batch] for batch in engine.batches]
    engine.batches, engine.stop_after = [], 2
    with pytest.raises(Stopped):
        go(tmp_path / "cut.jsonl")
    cut = tmp_path / "cut.jsonl"
    lines = cut.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 6, "both finished batches are on disk"
    cut.write_bytes(b"".join(lines[:-1]) + lines[-1][:-9])
    kept = cut.read_bytes().splitlines()[: len(lines) - 1]
    engine.batches, engine.stop_after = [], None
    rows = go(cut)
    assert [(r.item_id, r.outputs, r.n_out, r.status) for r in rows] == whole
    assert [[r.request_id for r in batch] for batch in engine.batches] == plan[1:], (
        "batches are those of the whole plan"
    )
    after = cut.read_bytes().splitlines()
    assert after[: len(kept)] == kept and len(after) == 1 + 8, "journaled rows stay, only missing ones are added"
    engine.batches = []
    assert [(r.item_id, r.outputs, r.n_out, r.status) for r in go(cut)] == whole
    assert engine.batches == [], "a second run does nothing"
    assert cut.read_bytes().splitlines() == after


def test_an_answer_to_another_prompt_is_not_taken(engine: Any, journal: Journal) -> None:
    suite = load_suite("gsm8k")
    evaluate_suite(engine, suite, sums(2), preset="pocket", journal=journal, settings=SETTINGS)
    changed = items_of({"question": "Other?", "answer": "#### 1"}, name="gsm8k")
    with pytest.raises(CorruptRecordError, match="gsm8k/00000 answers another prompt"):
        evaluate_suite(engine, suite, changed, preset="pocket", journal=journal, settings=SETTINGS)


def test_prompts_beyond_the_context_are_counted_not_generated(engine: Any, journal: Journal) -> None:
    suite = load_suite("gsm8k")
    items = items_of(
        {"question": "Short?", "answer": "#### 3"}, {"question": "3 " * 400, "answer": "#### 3"}, name="gsm8k"
    )
    rows = evaluate_suite(engine, suite, items, preset="pocket", journal=journal, settings=SETTINGS)
    assert [r.request_id for batch in engine.batches for r in batch] == ["gsm8k/00000"]
    long = rows[1]
    assert (long.status, long.outputs, long.n_out, long.finish) == ("truncated_input", [""], [0], ["truncated_input"])
    assert long.n_in[0] > engine.context_length
    assert rows[0].status == ("ok" if rows[0].finish == ["stop"] else "truncated_output")
    assert set(score_rows(suite, items, rows)[1].values()) == {0.0}


def test_worked_examples_become_turns(engine: Any, journal: Journal) -> None:
    suite, items = load_suite("gsm8k"), sums(2)
    fewshot = [{"question": f"q{i}", "answer": f"a{i}\n#### {i}"} for i in range(5)]
    rows = evaluate_suite(
        engine, suite, items, preset="5shot", journal=journal, settings=GenSettings(max_new_tokens=4), fewshot=fewshot
    )
    asked = {r.request_id: r for batch in engine.batches for r in batch}["gsm8k/00001"]
    turns = "".join(f"<|user|>Question: q{i}\nAnswer:<|end|><|assistant|>a{i}\n#### {i}<|end|>" for i in range(5))
    assert text_of(engine, asked) == f"{turns}<|user|>Question: {items[1].doc['question']}\nAnswer:<|end|><|assistant|>"
    assert asked.stop == ("Question:",) and len(rows) == 2
    with pytest.raises(SuiteError, match="4 worked examples, but the preset asks 5"):
        evaluate_suite(engine, suite, items, preset="5shot", journal=journal, settings=SETTINGS, fewshot=fewshot[:4])


def test_raw_prompts_are_completed_as_they_stand(engine: Any, journal: Journal, tmp_path: Path) -> None:
    items = items_of({"prompt": "def f(x):\n    "}, {"prompt": "x = "})
    rows = evaluate_suite(
        engine, toy_suite(tmp_path, "raw"), items, preset="p", journal=journal, settings=GenSettings()
    )
    assert [text_of(engine, r) for r in engine.batches[0]] == ["def f(x):\n    ", "x = "]
    assert rows[0].n_in == [len(engine.encode("def f(x):\n    "))] and engine.batches[0][0].max_new_tokens == 5
    with pytest.raises(SuiteError, match="an item without"):
        evaluate_suite(
            engine, toy_suite(tmp_path, "raw"), items_of({"text": "x"}), preset="p", journal=journal, settings=SETTINGS
        )
    with pytest.raises(SuiteError, match="no items"):
        evaluate_suite(engine, toy_suite(tmp_path, "raw"), [], preset="p", journal=journal, settings=SETTINGS)


def test_the_second_turn_sees_the_models_own_first_answer(engine: Any, tmp_path: Path) -> None:
    suite = load_suite("chat")
    items = items_of(
        *({"turns": [f"I am {i}{'!' * i}", "Who am I?"], "reference": ["", ""]} for i in range(4)), name="chat"
    )
    items += [Item("chat/long", "", {"turns": ["long " * 200, "And?"], "reference": ["", ""]}, None, None, False, "")]
    ticks = Ticks()

    def go(path: Path) -> list[GenRow]:
        with Journal(path, {}) as journal:
            return evaluate_suite(
                engine, suite, items, preset="pocket", journal=journal, settings=SETTINGS, progress=ticks
            )

    rows = go(tmp_path / "whole.jsonl")
    asked = {r.request_id: text_of(engine, r) for batch in engine.batches for r in batch}
    for item, row in zip(items[:4], rows, strict=False):
        first, second = item.doc["turns"]
        assert asked[f"{item.item_id}#1"] == f"<|user|>{first}<|end|><|assistant|>"
        head = f"<|user|>{first}<|end|><|assistant|>"
        answer = engine.tokenizer.apply_chat_template(
            [{"role": "user", "content": first}, {"role": "assistant", "content": row.outputs[0]}], tokenize=False
        )
        assert answer.startswith(head)
        assert asked[f"{item.item_id}#2"] == f"{answer}<|user|>{second}<|end|><|assistant|>"
        assert len(row.outputs) == len(row.n_in) == len(row.n_out) == len(row.finish) == 2
    assert rows[4].status == "truncated_input" and rows[4].outputs == ["", ""] and rows[4].n_in[1] == 0
    assert "chat/long#2" not in asked and ticks.seen[-1] == (10, 10)
    plan = [[r.request_id for r in batch] for batch in engine.batches]
    engine.batches, engine.stop_after = [], 3
    with pytest.raises(Stopped):
        go(tmp_path / "cut.jsonl")
    engine.batches, engine.stop_after = [], None
    again = go(tmp_path / "cut.jsonl")
    assert [(r.outputs, r.n_in, r.status, r.prompt_hash) for r in again] == [
        (r.outputs, r.n_in, r.status, r.prompt_hash) for r in rows
    ]
    assert [[r.request_id for r in batch] for batch in engine.batches] == plan[3:]
    with pytest.raises(SuiteError, match="needs `turns`"), Journal(tmp_path / "none.jsonl", {}) as journal:
        bad = [*items[:1], *items_of({"turns": []})]
        evaluate_suite(engine, suite, bad, preset="pocket", journal=journal, settings=SETTINGS)


def test_lm_eval_itself_can_drive_the_model(engine: Any, journal: Journal) -> None:
    from lm_eval.evaluator import evaluate

    from harness.evaluate.lm import HarnessLM, build_task

    suite, items = load_suite("gsm8k"), sums(5)
    task = build_task(suite, suite.preset("pocket"), items)
    lm = HarnessLM(engine, journal, SETTINGS)
    found = evaluate(
        lm=lm,
        task_dict={"tasks": {"sparsebench_gsm8k": task}, "groups": {}, "group_map": {}},
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    assert found is not None
    rows = evaluate_suite(engine, suite, items, preset="pocket", journal=journal, settings=SETTINGS)
    assert len(engine.batches) == 2, "evaluate_suite finds all rows in the journal"
    samples = sorted(found["samples"]["sparsebench_gsm8k"], key=lambda sample: sample["doc_id"])
    assert [sample["resps"][0][0] for sample in samples] == [row.outputs[0] for row in rows]
    scores = score_rows(suite, items, rows)
    for metric in ("exact_match_flexible", "extracted"):
        mean = sum(float(str(score[metric])) for score in scores) / len(scores)
        assert found["results"]["sparsebench_gsm8k"][f"{metric},none"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("name", "preset"),
    [("gsm8k", "pocket"), ("instruct", "pocket"), ("summarization", "pocket"), ("gsm8k", "5shot")],
)
def test_the_stock_task_asks_exactly_what_we_ask(name: str, preset: str, tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    from harness.evaluate.lm import build_task, chat_text, render

    suite = load_suite(name)
    rows = [json.dumps({"question": f"q{i}?", "answer": f"a{i}\n#### {i}"}) + "\n" for i in range(9)]
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text("".join(rows[:4]))
    (tmp_path / "gsm8k" / "train.jsonl").write_text("".join(rows[4:]))
    items = load_items(suite, preset, n=4, data_dir=tmp_path)
    fewshot = load_fewshot(suite, preset, data_dir=tmp_path)
    ours = render(build_task(suite, suite.preset(preset), items, fewshot), chat=True)

    metadata = {"preset": preset, "n": 4, "data_dir": str(tmp_path), "pretrained": "x"}
    manager = TaskManager(include_path=str(ROOT), include_defaults=False, metadata=metadata)
    assert set(manager.all_tasks) == {f"sparsebench_{task}" for task in ("gsm8k", "instruct", "summarization")}
    stock = manager.load([f"sparsebench_{name}"])["tasks"][f"sparsebench_{name}"]
    stock.set_config("num_fewshot", suite.preset(preset).num_fewshot)  # as --num_fewshot does
    if preset == "5shot":
        stock.set_config("generation_kwargs", {"max_gen_toks": 256, "until": ["Question:"]}, update=True)
    stock.build_all_requests(apply_chat_template=True, fewshot_as_multiturn=True, chat_template=chat_text)
    assert [request.args for request in stock.instances] == [request.args for request in ours]
    assert [request.doc["item_id"] for request in ours] == [item.item_id for item in items]
    assert len(ours[0].args[0].messages) == 1 + 2 * suite.preset(preset).num_fewshot


def test_loglikelihoods_split_where_lm_eval_splits(engine: Any, journal: Journal) -> None:
    from lm_eval.api.instance import Instance

    from harness.evaluate.lm import HarnessLM

    lm = HarnessLM(engine, journal, SETTINGS)

    def ask(context: str, continuation: str) -> Instance:
        return Instance(request_type="loglikelihood", doc={}, arguments=(context, continuation), idx=0)

    found = lm.loglikelihood([ask("one and ", "two"), ask("one and", " two")])
    assert found[0] == pytest.approx(found[1])
    assert found[0] == pytest.approx(engine.loglikelihoods([(engine.encode("one and"), engine.encode(" two"))])[0])
    with pytest.raises(EngineError, match="context of at least one token"):
        lm.loglikelihood([ask("", "x")])
    with pytest.raises(EngineError, match="chat prompts"):
        lm.loglikelihood([ask(ChatText.of([{"role": "user", "content": "x"}]), "y")])
    with pytest.raises(EngineError, match="whole documents"):
        lm.loglikelihood_rolling([])
